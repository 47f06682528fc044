"""Certificates in Anypoint secret groups: uploaded, read back, replaced; at a stand-in for Anypoint's API (anypoint_standin.py)."""

import json
import os
import subprocess

import pytest

from anypoint_standin import GROUP, Anypoint
from lib.certs import Authority, key_pem, load, pem, served
from lib.manifests import ca_issuer, certificate, consumer, token
from lib.servers import PEERS, Nginx, lacking
from lib.wait import until


@pytest.fixture
def anypoint(tmp_path):
    folder = tmp_path / "anypoint"
    folder.mkdir()
    with Anypoint(folder) as server:
        yield server


def prepare(kt, anypoint, *targets, chain=False, spec=None, **more):
    """A Certificate flex with the secret flex-tls, the token for the API, and a Consumer `group`."""
    root = Authority("corp")
    cert, key = root.sub("corp issuing") if chain else (root.cert, root.key)
    kt.secret("ca-root", tls__crt=pem(cert) + (root.pem() if chain else b""), tls__key=key_pem(key))
    kt.secret("anypoint-client", client_secret=anypoint.secret)
    kt.manifest("mulesoft", ca_issuer(), certificate("flex", "ca", ["flex.example"], **(spec or {})), anypoint.token_issuer(),
                token("anypoint", "anypoint", outputs=["raw"]), consumer("group", targets=list(targets), **more))


def serial(kt):
    return load(kt.read("flex-tls", "tls.crt"))[0].serial_number


@pytest.mark.parametrize("kind", ["PEM", "PKCS12", "JKS"])
@pytest.mark.parametrize("chain", [False, True])
def test_uploaded_and_replaced(kt, anypoint, kind, chain):
    more = {} if kind == "PEM" else {"alias": "flex"}
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress", kind, **more), chain=chain)
    kt.ok("renew")
    first = anypoint.entry("flex-ingress")
    assert int(first["details"]["certificate"]["serialNumber"], 16) == serial(kt) and first["type"] == kind
    assert [r[0] for r in anypoint.uploads()] == ["POST"]
    assert kt.credential("flex")["proof"] == "uploaded", "an upload is no proof of use"
    assert kt.credential("flex")["proved"] is False
    records = kt.audit(resource="Certificate/default/flex", step="uploaded")
    assert [r["outcome"] for r in records] == ["ok"] and f"{serial(kt):X}" in records[0]["seen"]
    assert not kt.audit(resource="Certificate/default/flex", step="proved")
    kt.ok("renew", "--force", "flex")
    again = anypoint.entry("flex-ingress")
    assert again["meta"]["id"] == first["meta"]["id"] and [r[0] for r in anypoint.uploads()] == ["POST", "PUT"]
    assert int(again["details"]["certificate"]["serialNumber"], 16) == serial(kt)
    assert again["details"]["certificate"]["serialNumber"] != first["details"]["certificate"]["serialNumber"]


def test_passphrases_are_fresh_and_nowhere(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"))
    out = kt.ok("-v", "-v", "renew").err + kt.ok("-v", "-v", "renew", "--force", "flex").err
    found = [form.split(b'name="keyPassphrase"\r\n\r\n')[1].split(b"\r\n")[0] for form in anypoint.forms]
    assert len(found) == 2 and found[0] != found[1] and all(len(p) == 48 for p in found)
    secret = kt.read("flex-tls", "tls.key").splitlines()[1]
    for form in anypoint.forms:
        assert secret not in form, "the key travels encrypted"
    for path in kt.files():
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            assert found[0] not in data and found[1] not in data, path
    assert found[0].decode() not in out and found[1].decode() not in out


def test_read_back_may_be_the_proof(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), prove=[{"secret": "flex-tls", "readBack": {"name": "flex-ingress"}}])
    kt.ok("renew")
    assert kt.credential("flex")["proof"] == "proved"
    assert [r["step"] for r in kt.audit(resource="Certificate/default/flex", consumer="default/group")] == ["uploaded", "proved"]


@pytest.mark.parametrize("lie", ["serial", "notAfter", "nothing"])
def test_a_wrong_read_back_is_seen(kt, anypoint, lie):
    def show(entry):
        shown = json.loads(json.dumps(entry))
        cert = shown["details"]["certificate"]
        if lie == "serial":
            cert["serialNumber"] = "E93E2F47200ED6DC"
        elif lie == "notAfter":
            cert["validity"]["notAfter"] = "2018-07-04 21:00:00"
        else:
            del shown["details"]
        return shown

    anypoint.show = show
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), within="1s")
    result = kt.ok("renew", status=5)
    assert kt.credential("flex")["proof"] == "not proved"
    record = kt.audit(resource="Certificate/default/flex", step="uploaded")[0]
    assert record["outcome"] == "failed"
    assert {"serial": "E93E2F47200ED6DC", "notAfter": "2018-07-04", "nothing": "shows no serial"}[lie] in record["reason"], result


def test_rate_limits_and_refusals(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), within="20s")
    anypoint.refuse(503)  # empty, as rate limits were seen in the field
    anypoint.refuse(429, headers={"Retry-After": "1"})
    kt.ok("renew")
    assert kt.credential("flex")["proof"] == "uploaded" and len(anypoint.uploads()) == 1
    assert [r[2] for r in anypoint.requests if "/keystores" in r[1]][:2] == [503, 429]


def test_what_is_refused_is_named(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), within="1s")
    body = {"message": "Invalid request", "errors": [{"code": "RB-1008", "message": "Limit exceeded", "field": "certificate"}]}
    anypoint.refuse(400, json.dumps(body).encode(), times=20, method="POST")
    result = kt.ok("renew", status=5)
    for text in (result.err, kt.ok("status", "flex").out, kt.ok("why", "flex").out):
        assert "look at the ids in the Consumer's targets" in text, text
    reason = kt.audit(resource="Certificate/default/flex", step="uploaded")[0]["reason"]
    assert "status 400: Limit exceeded, RB-1008, field certificate" in reason


def test_a_refused_token_is_minted_anew(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), within="20s")
    agent = kt.start()
    until(lambda: kt.credential("flex")["proof"] == "uploaded", 20, "uploaded")
    anypoint.tokens.clear()  # the platform has forgotten them
    kt.run("renew", "--force", "flex", timeout=60)
    until(lambda: kt.credential("flex")["proof"] == "uploaded" and
          int(anypoint.entry("flex-ingress")["details"]["certificate"]["serialNumber"], 16) == serial(kt), 30, "uploaded with another token")
    assert len(kt.audit(step="token.invalidated")) == 1
    agent.stop()


def test_too_long_for_the_field(kt, anypoint):
    names = [f"{'n' * 60}{i}.example.org" for i in range(60)]
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), within="1s", spec={"dnsNames": names})
    kt.ok("renew", status=5)
    assert "field certificate has" in kt.audit(resource="Certificate/default/flex", step="uploaded")[0]["reason"] and not anypoint.uploads()


def test_redeploy_and_handshake(kt, anypoint, tmp_path):
    """A connected gateway: the upload, its redeploy (a program), and only a handshake proves."""
    server = Nginx(kt.root)
    cert, key = Authority("old").write(tmp_path, "localhost")[:2]
    port = server.tls(cert, key)
    server.write()
    reload = kt.root / "redeploy"
    folder = kt.volume("flex-tls")
    reload.write_text(f"#!/bin/sh\ncp {folder}/tls.crt {cert} && cp {folder}/tls.key {key} && exec {' '.join(map(str, server.argv('-s', 'reload')))}\n")
    reload.chmod(0o755)
    with server:
        prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), notify=[{"exec": {"argv": [str(reload)], **({"user": "root"} if os.geteuid() == 0 else {})}}],
              prove=[{"secret": "flex-tls", "tls": {"address": f"127.0.0.1:{port}", "serverName": "flex.example"}}])
        kt.ok("renew")
        until(lambda: served(port).serial_number == serial(kt), 5, "the last worker of before has ended")
    assert kt.credential("flex")["proof"] == "proved"
    assert [r["step"] for r in kt.audit(resource="Certificate/default/flex", consumer="default/group")] == ["uploaded", "notified", "proved"]


def test_two_targets(kt, anypoint):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), anypoint.target("flex-tls", "mule-app", "PKCS12"))
    kt.ok("renew")
    assert sorted(e["type"] for e in anypoint.keystores.values()) == ["PEM", "PKCS12"]
    assert len(kt.audit(resource="Certificate/default/flex", step="uploaded")) == 2


def test_a_kill_between_upload_and_reading_back(kt, anypoint):
    """kill -9 when the service has made the keystore and nothing of that is written down: the next try finds it by its name."""
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"))
    agents = []

    def kill(entry):
        if agents:
            agents.pop().kill9()
        return entry

    anypoint.show = kill
    agents.append(kt.background("run"))
    until(lambda: not agents, 20, "killed while it reads back")
    agent = kt.start()
    until(lambda: kt.credential("flex")["proof"] == "uploaded", 20, "uploaded after all")
    assert [r[0] for r in anypoint.uploads()] == ["POST", "PUT"] and len(anypoint.keystores) == 1
    assert int(anypoint.entry("flex-ingress")["details"]["certificate"]["serialNumber"], 16) == serial(kt)
    agent.stop()


def test_private_space(kt, anypoint):
    """CloudHub 2.0: the TLS context is there, its keystore is replaced, the rest of it stays."""
    anypoint.add_context("other")
    key = anypoint.add_context("ingress context")
    prepare(kt, anypoint, anypoint.space_target("flex-tls", "ingress context"), chain=True)
    kt.ok("renew")
    kt.ok("renew", "--force", "flex")
    assert [k for k, _ in anypoint.patches] == [key, key] and anypoint.patches[1][1] == serial(kt)
    assert anypoint.contexts[key]["ciphers"] == {"tlsAes128GcmSha256": True}
    assert kt.credential("flex")["proof"] == "uploaded"
    seen = kt.audit(resource="Certificate/default/flex", step="uploaded")[-1]["seen"]
    end = load(kt.read("flex-tls", "tls.crt"))[0].not_valid_after
    assert seen == f"TLS context ingress context ends {end:%Y-%m-%d} (no serial is shown)"


def test_private_space_without_the_context(kt, anypoint):
    anypoint.add_context("other")
    prepare(kt, anypoint, anypoint.space_target("flex-tls", "ingress"), within="1s")
    kt.ok("renew", status=5)
    assert "has no TLS context ingress" in kt.audit(resource="Certificate/default/flex", step="uploaded")[0]["reason"]
    assert not anypoint.patches


@pytest.mark.parametrize("change,said", [
    ({"name": "1x"}, "must have 3 to 35 letters"),
    ({"organization": "../other"}, "is not an id"),
    ({"host": "evil.example/path"}, "is not a host"),
    ({"alias": "a"}, "is of PKCS12 and JKS keystores only"),
    ({"tokenRef": "other-token"}, "names a secret that no Token has"),
])
def test_wrong_targets_are_told(kt, anypoint, change, said):
    prepare(kt, anypoint, anypoint.target("flex-tls", **{"name": "flex-ingress", **change}))
    result = kt.run("check")
    assert result.status == 2 and said in result.out + result.err, result


def cli(anypoint, tmp_path, *args):
    program = PEERS / "anypoint" / "node_modules" / ".bin" / "anypoint-cli-v4"
    if not program.exists():
        lacking("no anypoint-cli-v4")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NODE_EXTRA_CA_CERTS": str(anypoint.ca), "ANYPOINT_HOST": anypoint.host,
           "ANYPOINT_CLIENT_ID": anypoint.client, "ANYPOINT_CLIENT_SECRET": anypoint.secret, "ANYPOINT_ORG": "Acme", "ANYPOINT_ENV": "Sandbox"}
    done = subprocess.run([program, *args, "--output", "json"], env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done
    return json.loads(done.stdout[min(i for i in (done.stdout.find("["), done.stdout.find("{")) if i >= 0):])


def test_the_real_client_reads_what_we_put(kt, anypoint, tmp_path):
    prepare(kt, anypoint, anypoint.target("flex-tls", "flex-ingress"), anypoint.target("flex-tls", "mule-app", "JKS", alias="app"))
    kt.ok("renew")
    listed = cli(anypoint, tmp_path, "secrets-mgr:keystore:list", "--group-id", GROUP)
    assert {(row["name"], row["type"]) for row in listed} == {("flex-ingress", "PEM"), ("mule-app", "JKS")}
    end = load(kt.read("flex-tls", "tls.crt"))[0].not_valid_after
    for row in listed:
        shown = cli(anypoint, tmp_path, "secrets-mgr:keystore:describe", "--group-id", GROUP, "--id", row["id"])
        assert shown["name"] == row["name"] and shown["expirationDate"] == f"{end:%Y-%m-%d}"
