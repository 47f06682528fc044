"""Moving in: folders made by real clients against Pebble; nothing is ordered, and the next renewal uses the same account."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from datetime import datetime

import pytest
import yaml

from lib.certs import Authority, check_set, key_pem, load, pem
from lib.servers import Nginx, Pebble, lacking, program
from lib.wait import free_port, until


@pytest.fixture
def pebble(tmp_path):
    with Pebble(tmp_path, sleep=False, reject=0) as server:
        server.bundle_file = tmp_path / "pebble-root.pem"
        server.bundle_file.write_bytes(base64.b64decode(server.authority.bundle()))
        yield server


def call(*argv, env=None, cwd=None):
    """A client, to its end."""
    done = subprocess.run([str(a) for a in argv], env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, timeout=120,
                          text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


# --- the clients ------------------------------------------------------------------------------------------------------


def certbot(server, folder, *arguments):
    """certbot with folders of its own."""
    return call(program("certbot"), *arguments, "--non-interactive", "--config-dir", folder, "--work-dir", folder.parent / "work",
                "--logs-dir", folder.parent / "logs", "--server", server.server,
                env={"REQUESTS_CA_BUNDLE": str(server.bundle_file)})


def certbot_issue(server, folder, name, *arguments):
    certbot(server, folder, "certonly", "--standalone", "--http-01-port", str(server.http_port), "--agree-tos", "--no-eff-email",
            "-m", "ops@example.org", "-d", name, *arguments)


def lego_issue(server, folder, *names):
    path = program("lego")
    version = call(path, "--version")
    if not re.search(r"version (4|dev)", version):
        lacking(f"lego 4 ({version.strip()} is there)")
    call(path, "--server", server.server, "--email", "ops@example.org", "--accept-tos", "--path", folder, "--http", "--http.port",
         f"127.0.0.1:{server.http_port}", *[a for n in names for a in ("-d", n)], "run",
         env={"LEGO_CA_CERTIFICATES": str(server.bundle_file)})


class Dehydrated:
    """dehydrated, with an nginx that serves its answers."""

    def __init__(self, server, kt, folder, algo="prime256v1"):
        self.program = program("dehydrated")
        self.server, self.folder = server, folder
        self.root = kt.root / "webroot"
        (self.root / ".well-known" / "acme-challenge").mkdir(parents=True)
        for path in (self.root, self.root / ".well-known", self.root / ".well-known" / "acme-challenge"):
            path.chmod(0o755)
        folder.mkdir()
        self.config = folder / "config"
        self.config.write_text(f"""# settings of the test
CA="{server.server}"
BASEDIR={folder}
WELLKNOWN="{self.root}/.well-known/acme-challenge"
DOMAINS_TXT="${{BASEDIR}}/domains.txt"
CURL_OPTS="--cacert {server.bundle_file}"
KEY_ALGO={algo}
CONTACT_EMAIL=ops@example.org
RENEW_DAYS="20"
PRIVATE_KEY_RENEW="no"
LOCKFILE="$(mktemp -u)"
""")
        self.web = Nginx(kt.root)
        self.web.files(self.root, server.http_port)

    def issue(self, *lines):
        (self.folder / "domains.txt").write_text("".join(f"{line}\n" for line in lines))
        call(self.program, "-f", self.config, "--register", "--accept-terms")
        call(self.program, "-f", self.config, "-c")


# --- what is looked at -------------------------------------------------------------------------------------------------


def listen(kt, server):
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}"})


def leaf(data):
    return load(data)[0]


def same_pair(kt, secret, cert_file, key_file):
    """The volume holds the client's own certificate and its key."""
    assert leaf(kt.read(secret, "tls.crt")).serial_number == leaf(cert_file.read_bytes()).serial_number
    public = [call(program("openssl"), "pkey", "-in", path, "-pubout") for path in (kt.volume(secret) / "tls.key", key_file)]
    assert public[0] == public[1]


def moves_in(kt, server, client, folder, secrets, *options):
    """Import, delivery without an order, a second import that changes nothing, and a renewal with the same account."""
    accounts, orders = server.accounts(), server.orders()
    told = kt.json("import", client, folder, "--ca-bundle", server.bundle_file, *options)
    assert server.orders() == orders and server.accounts() == accounts
    assert {r["outcome"] for r in told["state"]} == {"imported"}, told
    result = kt.ok("renew", timeout=60)
    assert "not as it was delivered" not in result.err, "it never was"
    assert server.orders() == orders, "what was imported is delivered, nothing is ordered"
    for secret, (cert, key) in secrets.items():
        same_pair(kt, secret, cert, key)
    for row in kt.json("plan")["plan"]:
        cert = leaf(kt.read(f"{row['name']}-tls", "tls.crt"))
        life = cert.not_valid_after - cert.not_valid_before
        share = (datetime.fromisoformat(row["renewAt"].rstrip("Z")) - cert.not_valid_before) / life
        assert row["action"] == "wait" and 0.6 < share < 0.8, row
    again = kt.json("import", client, folder, "--ca-bundle", server.bundle_file, *options)
    assert {r["outcome"] for r in again["state"]} == {"unchanged"}, again
    kt.ok("renew")
    assert server.orders() == orders
    old = {secret: leaf(kt.read(secret, "tls.crt")).serial_number for secret in secrets}
    kt.ok("renew", "--force", timeout=90)
    assert server.orders() == orders + len(secrets)
    assert server.accounts() == accounts, "the order was placed with the imported account"
    for secret, serial in old.items():
        assert leaf(kt.read(secret, "tls.crt")).serial_number != serial
    kt.ok("audit", "--verify")
    assert len(kt.audit(step="imported")) == len(secrets)
    return told


# --- certbot ------------------------------------------------------------------------------------------------------------


def test_certbot(kt, pebble, tmp_path):
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "-d", "b.example", "--key-type", "ecdsa", "--deploy-hook", "/bin/true --reload",
                  "--pre-hook", "systemctl stop nothing")
    certbot_issue(pebble, folder, "r.example", "--key-type", "rsa", "--reuse-key")
    assert pebble.accounts() == 1
    listen(kt, pebble)
    live = folder / "live"
    told = moves_in(kt, pebble, "certbot", folder, {
        "a.example-tls": (live / "a.example" / "cert.pem", live / "a.example" / "privkey.pem"),
        "r.example-tls": (live / "r.example" / "cert.pem", live / "r.example" / "privkey.pem")})
    [regr] = folder.glob("accounts/*/dir/*/regr.json")
    shown = kt.json("account", "show", "localhost")
    assert shown["accountURL"] == json.loads(regr.read_text())["uri"] and shown["account"]["status"] == "valid"
    text = (kt.manifests / "imported-certbot.yaml").read_text()
    made = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text)}
    a = made["Certificate", "a.example"]["spec"]
    assert sorted(a["dnsNames"]) == ["a.example", "b.example"]
    assert a["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
    assert made["Certificate", "r.example"]["spec"]["privateKey"]["rotationPolicy"] == "Never"
    issuer = made["Issuer", "localhost"]["spec"]["acme"]
    assert issuer["server"] == pebble.server and issuer["solvers"] == [{"http01": {"ingress": {}}}]
    hook = made["Consumer", "after-renewal"]["spec"]
    assert hook["secrets"] == ["a.example-tls"] and hook["notify"][0]["exec"]["argv"] == ["/bin/true", "--reload"]
    assert any(item["what"] == "pre_hook" for item in told["lost"]), told["lost"]
    key = leaf(kt.read("r.example-tls", "tls.crt")).public_key().public_numbers()
    assert key == leaf((live / "r.example" / "cert.pem").read_bytes()).public_key().public_numbers(), "rotationPolicy: Never"
    check_set(kt.volume("a.example-tls"), ["a.example", "b.example"], pebble.roots())


def test_dry_run_touches_nothing(kt, pebble, tmp_path):
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in folder.rglob("*"))
    result = kt.ok("import", "certbot", folder, "--dry-run")
    assert [d["kind"] for d in yaml.safe_load_all(result.out)] == ["Issuer", "Certificate"]
    assert "PRIVATE" not in result.out
    assert not kt.files() and not list(kt.manifests.iterdir())
    assert before == sorted((str(p), p.lstat().st_mtime_ns) for p in folder.rglob("*"))


def test_with_an_agent_that_runs(kt, pebble, tmp_path):
    """The agent takes the manifests at once, and delivers what was imported without a question to the CA."""
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    listen(kt, pebble)
    agent = kt.start()
    told = kt.json("import", "certbot", folder, "--ca-bundle", pebble.bundle_file)
    assert {r["outcome"] for r in told["state"]} == {"imported"}
    until(lambda: (kt.volume("a.example-tls") / "tls.crt").exists(), 10, "the volume is written")
    same_pair(kt, "a.example-tls", folder / "live" / "a.example" / "cert.pem", folder / "live" / "a.example" / "privkey.pem")
    assert pebble.orders() == 1, "delivered without an order"
    assert {r["outcome"] for r in kt.json("import", "certbot", folder, "--ca-bundle", pebble.bundle_file)["state"]} == {"unchanged"}
    kt.ok("renew", "--force", "a.example", timeout=60)
    assert pebble.accounts() == 1 and pebble.orders() == 2
    agent.stop()


def test_a_wrong_key_is_refused(kt, pebble, tmp_path):
    """A key of another certificate: that one is refused, the other comes along."""
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    certbot_issue(pebble, folder, "b.example", "--key-type", "ecdsa")
    live = folder / "live"
    (live / "a.example" / "privkey.pem").unlink()
    shutil.copy(live / "b.example" / "privkey.pem", live / "a.example" / "privkey.pem")
    result = kt.run("import", "certbot", folder, "-o", "json")
    assert result.status == 1
    outcome = {r["name"]: r["outcome"] for r in result.json()["state"] if r["kind"] == "Certificate"}
    assert outcome == {"a.example": "refused", "b.example": "imported"}


def test_links_do_not_lead_out(kt, tmp_path, pebble):
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    outside = tmp_path / "outside.pem"
    key = folder / "live" / "a.example" / "privkey.pem"
    shutil.copy(key, outside)
    key.unlink()
    key.symlink_to(outside)
    told = kt.json("import", "certbot", folder, "--dry-run")
    assert not [n for n in told["manifests"] if n.startswith("Certificate/")]
    assert any("leads out" in item["reason"] for item in told["lost"])


def test_manifests_in_force_already(kt, pebble, tmp_path):
    """The manifests came first and nothing was issued yet: what is imported becomes what is in force."""
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    (kt.manifests / "imported-certbot.yaml").write_text(kt.ok("import", "certbot", folder, "--dry-run").out)
    kt.secret("some", value="thing")  # loads the manifests
    assert kt.credential("a.example") and not kt.volume("a.example-tls").exists()
    told = kt.json("import", "certbot", folder)
    assert {r["outcome"] for r in told["state"]} == {"imported"}
    kt.ok("renew")
    same_pair(kt, "a.example-tls", folder / "live" / "a.example" / "cert.pem", folder / "live" / "a.example" / "privkey.pem")
    assert pebble.orders() == 1


def test_two_clients(kt, pebble, tmp_path):
    """Names that other manifests have are left to them; each issuer keeps its own account."""
    first, second = tmp_path / "letsencrypt", tmp_path / "lego"
    certbot_issue(pebble, first, "a.example", "--key-type", "ecdsa")
    lego_issue(pebble, second, "a.example")
    assert pebble.accounts() == 2
    listen(kt, pebble)
    options = ("--ca-bundle", pebble.bundle_file, "--server", pebble.server)
    kt.json("import", "certbot", first, *options)
    told = kt.json("import", "lego", second, *options)
    assert {r["outcome"] for r in told["state"]} == {"imported"}
    assert set(told["manifests"]) == {"Issuer/localhost-2", "Certificate/a.example-2"}
    kt.ok("renew", "--force", timeout=60)
    assert pebble.accounts() == 2 and pebble.orders() == 4
    for client, folder in (("certbot", first), ("lego", second)):
        again = kt.json("import", client, folder, *options)
        assert {r["outcome"] for r in again["state"]} == {"unchanged"}


def test_an_expired_certificate_is_refused(kt, tmp_path):
    with Pebble(tmp_path, sleep=False, reject=0, validity=5) as server:
        server.bundle_file = tmp_path / "pebble-root.pem"
        server.bundle_file.write_bytes(base64.b64decode(server.authority.bundle()))
        folder = tmp_path / "letsencrypt"
        certbot_issue(server, folder, "a.example", "--key-type", "ecdsa")
        listen(kt, server)
        until(lambda: leaf((folder / "live" / "a.example" / "cert.pem").read_bytes()).not_valid_after < datetime.utcnow(), 20,
              "it has expired")
        result = kt.run("import", "certbot", folder, "--ca-bundle", server.bundle_file, "-o", "json")
        assert result.status == 1
        outcome = {r["kind"]: r["outcome"] for r in result.json()["state"]}
        assert outcome == {"Account": "imported", "Certificate": "refused"}


def many_lineages(folder, count):
    """A folder as certbot lays it out, with certificates of a CA of our own: nobody is asked for these."""
    authority = Authority()
    account = folder / "accounts" / "ca.example" / "dir" / "0123"
    account.mkdir(parents=True)
    numbers = authority.key.private_numbers()

    def part(number):
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    (account / "private_key.json").write_text(json.dumps({
        "kty": "EC", "crv": "P-256", "x": part(numbers.public_numbers.x), "y": part(numbers.public_numbers.y),
        "d": part(numbers.private_value)}))
    (account / "regr.json").write_text(json.dumps({"body": {}, "uri": "https://ca.example/account/1"}))
    (folder / "renewal").mkdir()
    for i in range(count):
        cert, key = authority.issue(f"n{i}.example", days=30)
        live = folder / "live" / f"n{i}.example"
        live.mkdir(parents=True)
        (live / "fullchain.pem").write_bytes(pem(cert))
        (live / "privkey.pem").write_bytes(key_pem(key))
        (folder / "renewal" / f"n{i}.example.conf").write_text(
            "[renewalparams]\naccount = 0123\nserver = https://ca.example/dir\nauthenticator = standalone\nkey_type = ecdsa\n")


def test_many_and_a_kill(kt, tmp_path):
    """A kill -9 in the middle: what is stored stays, the rest comes with the next run, and then all is delivered."""
    folder = tmp_path / "letsencrypt"
    many_lineages(folder, 60)
    for moment in (0.05, 0.1, 0.15, 0.2, 0.3):
        running = kt.background("import", "certbot", str(folder))
        time.sleep(moment)
        running.kill9()
    told = kt.json("import", "certbot", folder)
    assert len(told["state"]) == 61 and {r["outcome"] for r in told["state"]} <= {"imported", "unchanged"}
    records = kt.json("audit", "-n", "1000")["records"]
    assert len([r for r in records if r["step"] == "imported"]) == 60, "each of them once"
    kt.ok("audit", "--verify")
    kt.ok("renew", timeout=60)
    for i in (0, 17, 59):
        same_pair(kt, f"n{i}.example-tls", folder / "live" / f"n{i}.example" / "fullchain.pem",
                  folder / "live" / f"n{i}.example" / "privkey.pem")


# --- lego ---------------------------------------------------------------------------------------------------------------


def test_lego_4(kt, pebble, tmp_path):
    folder = tmp_path / "lego"
    lego_issue(pebble, folder, "l.example", "m.example")
    listen(kt, pebble)
    refused = kt.json("import", "lego", folder, "--dry-run")
    assert any("--server" in item["instead"] for item in refused["lost"]), "lego 4 does not write down the directory URL"
    certificates = folder / "certificates"
    moves_in(kt, pebble, "lego", folder, {"l.example-tls": (certificates / "l.example.crt", certificates / "l.example.key")},
             "--server", pebble.server)


def test_lego_5_layout(kt, pebble, tmp_path):
    """The layout of version 5, written by the test from what lego 4 made: the account's file is beside its key."""
    old, folder = tmp_path / "lego4", tmp_path / "lego5"
    lego_issue(pebble, old, "l.example")
    listen(kt, pebble)
    [account] = old.glob("accounts/*/*")
    new = folder / account.relative_to(old)
    new.mkdir(parents=True)
    said = json.loads((account / "account.json").read_text())
    (new / "account.json").write_text(json.dumps({
        "id": account.name, "email": said["email"], "keyType": "EC256", "server": pebble.server,
        "registration": {**said["registration"]["body"], "accountURL": said["registration"]["uri"]}}))
    shutil.copy(account / "keys" / f"{account.name}.key", new / f"{account.name}.key")
    shutil.copytree(old / "certificates", folder / "certificates")
    resource = json.loads((old / "certificates" / "l.example.json").read_text())
    (folder / "certificates" / "l.example.json").write_text(json.dumps({
        "id": "l.example", "domains": ["l.example"], "keyType": "EC256", "certUrl": resource["certUrl"],
        "certStableUrl": resource["certStableUrl"]}))
    certificates = folder / "certificates"
    moves_in(kt, pebble, "lego", folder, {"l.example-tls": (certificates / "l.example.crt", certificates / "l.example.key")})


# --- dehydrated -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["prime256v1", "rsa"])
def test_dehydrated(kt, pebble, tmp_path, algo):
    client = Dehydrated(pebble, kt, tmp_path / "dehydrated", algo)
    with client.web:
        client.issue("d.example e.example", "f.example > alias")
        certs = tmp_path / "dehydrated" / "certs"
        told = moves_in(kt, pebble, "dehydrated", tmp_path / "dehydrated", {
            "d.example-tls": (certs / "d.example" / "cert.pem", certs / "d.example" / "privkey.pem"),
            "alias-tls": (certs / "alias" / "cert.pem", certs / "alias" / "privkey.pem")})
    made = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all((kt.manifests / "imported-dehydrated.yaml").read_text())}
    issuer = made["Issuer", "localhost"]
    assert issuer["metadata"]["annotations"] == {"keyturn.dev/http01-webroot": str(client.root)}
    assert issuer["spec"]["acme"]["email"] == "ops@example.org"
    spec = made["Certificate", "d.example"]["spec"]
    assert spec["renewBefore"] == "480h" and spec["privateKey"]["rotationPolicy"] == "Never"
    assert any(item["what"] == "LOCKFILE" for item in told["lost"]), "what needs a shell is not run"


# --- acme.sh --------------------------------------------------------------------------------------------------------------


def acme_sh_folder(server, old, folder, name, hook="/bin/true reload"):
    """acme.sh is in no distribution: its documented layout, written from an account and a certificate that lego made."""
    [account] = old.glob("accounts/*/*")
    ca = folder / "ca" / f"localhost:{server.port}" / "dir"
    ca.mkdir(parents=True)
    shutil.copy(account / "keys" / f"{account.name}.key", ca / "account.key")
    uri = json.loads((account / "account.json").read_text())["registration"]["uri"]
    (ca / "ca.conf").write_text(f"ACCOUNT_URL='{uri}'\nCA_EMAIL='ops@example.org'\nCA_KEY_HASH='x='\n")
    (folder / "account.conf").write_text("\nLOG_FILE=\"/dev/null\"\nSAVED_CF_Token='token-of-the-provider'\nUSER_PATH=\"$(touch ran)\"\n")
    domain = folder / f"{name}_ecc"
    domain.mkdir()
    shutil.copy(old / "certificates" / f"{name}.key", domain / f"{name}.key")
    shutil.copy(old / "certificates" / f"{name}.crt", domain / "fullchain.cer")
    wrapped = "__ACME_BASE64__START_" + base64.b64encode(hook.encode()).decode() + "__ACME_BASE64__END_"
    (domain / f"{name}.conf").write_text(
        f"Le_Domain='{name}'\nLe_Alt='no'\nLe_Webroot='no'\nLe_PreHook=''\nLe_PostHook=''\nLe_RenewHook=''\n"
        f"Le_API='{server.server}'\nLe_Keylength='ec-256'\nLe_ReloadCmd='{wrapped}'\nLe_NextRenewTime='1'\n")
    return domain


def test_acme_sh_layout(kt, pebble, tmp_path):
    old, folder = tmp_path / "lego4", tmp_path / "acme.sh"
    lego_issue(pebble, old, "s.example")
    domain = acme_sh_folder(pebble, old, folder, "s.example")
    listen(kt, pebble)
    moves_in(kt, pebble, "acme.sh", folder, {"s.example-tls": (domain / "fullchain.cer", domain / "s.example.key")})
    made = {d["kind"]: d for d in yaml.safe_load_all((kt.manifests / "imported-acme.sh.yaml").read_text())}
    assert made["Consumer"]["spec"]["notify"][0]["exec"]["argv"] == ["/bin/true", "reload"]
    assert made["Certificate"]["spec"]["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"}
    assert not list(kt.root.glob("ran")) and not list(folder.rglob("ran"))


def test_credentials_only_on_request(kt, pebble, tmp_path):
    old, folder = tmp_path / "lego4", tmp_path / "acme.sh"
    lego_issue(pebble, old, "s.example")
    domain = acme_sh_folder(pebble, old, folder, "s.example")
    conf = domain / "s.example.conf"
    conf.write_text(conf.read_text().replace("Le_Webroot='no'", "Le_Webroot='dns_cf'"))
    told = kt.json("import", "acme.sh", folder, "--dry-run")
    assert "token-of-the-provider" not in json.dumps(told)
    assert any("keyturn secret set cloudflare api-token" in note for note in told["notes"])
    kt.json("import", "acme.sh", folder, "--with-secrets")
    assert [(s["name"], s["key"]) for s in kt.json("secret", "list")["secrets"]] == [("cloudflare", "api-token")]
    text = (kt.manifests / "imported-acme.sh.yaml").read_text()
    assert "token-of-the-provider" not in text and "apiTokenSecretRef" in text


# --- certmonger ----------------------------------------------------------------------------------------------------------


def test_certmonger(kt, tmp_path):
    """The real daemon on a socket of its own, without a bus; its CA SelfSign. It has no ACME, so nobody is asked at all."""
    folder = tmp_path / "certmonger"
    for name in ("requests", "cas", "local", "tmp"):
        (folder / name).mkdir(parents=True)
    cert, key = folder / "c.pem", folder / "k.pem"
    script = folder / "ask"
    script.write_text(f"""#!/bin/sh
getcert request -w -v -c SelfSign -f {cert} -k {key} -N CN=cm.example -D cm.example -D cn.example -G EC -g 256 -C '/bin/true reload'
getcert request -w -v -c SelfSign -f {folder}/other.pem -k {folder}/other.key -N CN=o.example -D o.example -p {folder}/pin
""")
    script.chmod(0o755)
    (folder / "pin").write_text("passphrase")
    call(program("certmonger"), "-n", "-L", "-P", folder / "socket", "-c", script, env={
        "CERTMONGER_CONFIG_DIR": str(folder), "CERTMONGER_REQUESTS_DIR": str(folder / "requests"),
        "CERTMONGER_CAS_DIR": str(folder / "cas"), "CERTMONGER_LOCAL_CA_DIR": str(folder / "local"),
        "CERTMONGER_TMPDIR": str(folder / "tmp"), "CERTMONGER_SYSTEM_LOCK_FILE": str(folder / "lock"),
        "CERTMONGER_NOTIFICATION": "none"})
    assert cert.exists() and key.exists()
    told = kt.json("import", "certmonger", folder)
    assert [r["outcome"] for r in told["state"]] == ["imported"]
    assert any("encrypted" in item["reason"] for item in told["lost"]), told["lost"]
    kt.ok("renew")
    [name] = [n.partition("/")[2] for n in told["manifests"] if n.startswith("Certificate/")]
    same_pair(kt, f"{name}-tls", cert, key)
    kt.ok("renew", "--force")
    assert leaf(kt.read(f"{name}-tls", "tls.crt")).serial_number != leaf(cert.read_bytes()).serial_number
    made = {d["kind"]: d for d in yaml.safe_load_all((kt.manifests / "imported-certmonger.yaml").read_text())}
    assert made["Issuer"]["spec"] == {"selfSigned": {}}
    assert made["Consumer"]["spec"]["notify"][0]["exec"]["argv"] == ["/bin/true", "reload"]


# --- the file -------------------------------------------------------------------------------------------------------------


def test_a_file_is_never_overwritten(kt, pebble, tmp_path):
    folder = tmp_path / "letsencrypt"
    certbot_issue(pebble, folder, "a.example", "--key-type", "ecdsa")
    mine = kt.manifests / "imported-certbot.yaml"
    mine.write_text("# mine\n")
    result = kt.run("import", "certbot", folder)
    assert result.status != 0 and "is there already" in result.err
    assert mine.read_text() == "# mine\n"
    assert not kt.files(), "nothing is stored for a file that can't be written"
    other = kt.manifests / "other.yaml"
    kt.ok("import", "certbot", folder, "--manifests", other)
    assert other.exists() and mine.read_text() == "# mine\n"
