"""What somebody meets who tries it for the first time: empty folders, secrets that are set already, a CA that has expired."""

import time

import pytest

from lib.manifests import ca_issuer, certificate, token
from lib.wait import until

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"
NONE = "no manifests in "


def oauth(url="http://127.0.0.1:1/token", secret="okta-client"):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "okta"}, "spec": {"oauth2": {
        "tokenURL": url, "auth": {"method": "client_secret_basic", "clientID": "x", "clientSecretRef": {"name": secret, "key": "s"}}}}}


# --- nothing there


@pytest.mark.parametrize("what", ["empty", "others", "blank", "below"])
def test_a_folder_without_manifests(kt, what):
    """It is the wrong folder, as a rule: nothing is made there, and the words say what to do."""
    if what == "others":
        (kt.manifests / "README").write_text("see below")
    elif what == "blank":
        kt.manifest("later", "# nothing yet\n")
    elif what == "below":
        (kt.manifests / "team").mkdir(mode=0o755)
        (kt.manifests / "team" / "self.yaml").write_text(SELF)
    for command in ("check", "renew"):
        result = kt.run(command)
        assert result.status == 2 and result.err.count("\n") == 1, result
        assert NONE + str(kt.manifests) in result.err and "*.yaml" in result.err and "-c" in result.err, result
        assert not kt.files()
    checks = {c["check"]: c for c in kt.run("doctor", "-o", "json").json()["checks"]}
    assert checks["manifests"]["verdict"] == "missing" and NONE in checks["manifests"]["text"]


def test_files_without_manifests(kt):
    blank = kt.manifest("blank", "# nothing yet\n")
    result = kt.run("check", str(blank))
    assert result.status == 2 and NONE + str(blank) in result.err, result
    kt.manifest("self", SELF)
    assert "1 resource, 0 errors" in kt.ok("check").out


def test_an_agent_may_wait_for_its_manifests(kt):
    agent = kt.start()
    assert f"{kt.manifests}: warning: no manifests here" in agent.err() and "keyturn reload" in agent.err()
    kt.ok("secret", "list")
    kt.manifest("all", SELF, certificate("web", "self"))
    kt.ok("reload")
    until(lambda: kt.credential("web")["state"] == "delivered", 10, "it is delivered")
    assert agent.stop() == 0


def test_secrets_can_be_set_before_the_manifests(kt):
    kt.secret("okta-client", s="v")
    assert "okta-client" in kt.ok("secret", "list").out


# --- secrets that are in the store


def complaints(kt, *args):
    return [w["text"] for w in kt.run("check", "-o", "json", *args).json()["warnings"]]


def manifests_verdict(kt):
    return next(c for c in kt.run("doctor", "-o", "json").json()["checks"] if c["check"] == "manifests")


@pytest.mark.parametrize("agent", [False, True], ids=["state", "agent"])
def test_check_looks_into_the_store(kt, agent):
    path = kt.manifest("all", oauth(), token("pay", issuer="okta", audiences=["a"]))
    before, = complaints(kt)
    assert f"the store could not be looked into (there is no state yet in {kt.state})" in before, before
    assert "keyturn secret set" in before
    kt.secret("other", s="v")
    running = kt.start() if agent else None
    missing, = complaints(kt)
    assert "neither the manifests nor the store have; set it with keyturn secret set" in missing, missing
    assert "neither the manifests nor the store" in manifests_verdict(kt)["text"]
    kt.secret("okta-client", s="v")
    assert complaints(kt) == complaints(kt, str(path)) == []
    assert manifests_verdict(kt)["verdict"] == "ok"
    result = kt.ok("check", "--strict")
    assert result.err == "", result
    # What is wrong with the manifests is said once, whoever reads them beside.
    kt.manifest("wrong", token("lost", issuer="nobody", audiences=["a"]), oauth(secret="absent") | {"metadata": {"name": "two"}})
    result = kt.run("check")
    assert result.status == 2 and result.err.count("nobody") == 1, result
    assert result.err.count("(absent) names a secret that neither the manifests nor the store have") == 1, result
    if running:
        assert running.stop() == 0


def test_check_of_a_state_that_is_in_use(kt):
    """It does not wait for the one who works there."""
    kt.manifest("all", oauth(), token("pay", issuer="okta", audiences=["a"]))
    kt.secret("other", s="v")
    agent = kt.start()
    began = time.monotonic()
    warning, = complaints(kt, "--socket", str(kt.root / "elsewhere"))
    assert time.monotonic() - began < 10
    assert "neither the manifests" in warning or "is in use by" in warning, warning
    agent.stop()


# --- a CA of ours


def short(name, issuer, seconds, **spec):
    return certificate(name, issuer, duration=f"{seconds}s", renewBefore="1s", **spec)


def chain(kt, ca_seconds, *leaves):
    kt.manifest("all", SELF, short("root", "self", ca_seconds, isCA=True, commonName="root", secret="ca-root"), ca_issuer(), *leaves)


def test_leaves_follow_their_expired_ca(kt):
    """Both are expired: one run mends both, whichever comes first."""
    chain(kt, 6, short("leaf", "ca", 5), short("other", "ca", 6))
    kt.ok("renew")
    time.sleep(7)
    result = kt.ok("renew")
    assert "3 credentials in order, 0 not" in result.out and "expired" not in result.err, result
    rows = {r["name"]: r for r in kt.json("status")["credentials"]}
    assert [rows[n]["rotations"] for n in ("root", "leaf", "other")] == [2, 2, 2], rows
    assert {r["state"] for r in rows.values()} == {"delivered"}, rows
    time.sleep(7)
    kt.ok("renew", "leaf")
    rows = {r["name"]: r for r in kt.json("status")["credentials"]}
    assert rows["leaf"]["state"] == "delivered" and rows["root"]["rotations"] == 3, rows


def test_an_expired_ca_that_nobody_renews(kt):
    """It ends, and says what is wrong."""
    chain(kt, 5, short("leaf", "ca", 5))
    kt.ok("renew")
    time.sleep(6)
    root = short("root", "gone", 5, isCA=True, commonName="root", secret="ca-root")
    kt.manifest("all", SELF, {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "gone"},
                              "spec": {"ca": {"secretName": "not-there"}}}, root, ca_issuer(), short("leaf", "ca", 5))
    result = kt.run("renew", timeout=40)
    assert result.status != 0 and "has expired: renew the CA first" in result.err, result


# --- words


def test_a_failure_stands_there_once(kt):
    kt.manifest("all", oauth(), token("pay", issuer="okta", audiences=["a"]))
    kt.secret("okta-client", s="v")
    for args in ((), ("pay",)):
        result = kt.run("renew", *args)
        assert result.status == 75, result
        assert result.err.count("Failed to connect") == 1 and "Token/default/pay: at step keyed: " in result.err, result
    result = kt.run("-v", "renew", "pay")
    assert result.err.count("Token/default/pay: at step") == 1, result


def test_kinds_are_named(kt):
    kt.manifest("all", SELF)
    kt.ok("renew")
    words = "Certificate, Token, ClientCredential or Watch"
    assert words in kt.ok("status").out and words in kt.ok("plan").out
    assert words in kt.run("why", "nobody").err and words in kt.run("status", "nobody").err


def test_paths_of_clients(kt):
    kt.manifest("all", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": "c"}, "spec": {
        "secretName": "c", "clients": [{"clientID": "x"}], "issuer": {"static": {}}}})
    assert "spec.clients[0] needs a secretRef" in kt.run("check").err


def test_why_names_the_rule_that_was_used(kt):
    """An issuer that gives less than was asked for: renewBefore was not the rule then."""
    chain(kt, 60, certificate("leaf", "ca", duration="2h", renewBefore="1h"))
    kt.ok("renew")
    why = kt.ok("why", "leaf").out
    assert "at half of its life: renewBefore 1h is not shorter than its whole life, " in why, why
    assert "renewBefore 1s)" in kt.ok("why", "root").out


def test_several_folders(kt):
    one, two = kt.root / "one", kt.root / "two"
    for folder in (one, two):
        folder.mkdir(mode=0o755)
    result = kt.run("check", "-c", str(one), "-c", str(two))
    assert result.status == 2 and f"{NONE}{one} and the others" in result.err, result
