"""Wrong input to every command: one clear line with file and line, exit status 2, and nothing written."""

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from lib.agent import BUILD, Keyturn
from lib.manifests import ca_issuer, certificate, consumer, token

COMMANDS = [("check",), ("run",), ("renew",), ("plan",), ("status",)]
SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"

CERT = """apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: web
spec:
  secretName: web-tls
  dnsNames: [web.example]
  issuerRef: {name: self}
"""

ALIAS_BOMB = """a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]
h: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g, *g]
i: [*h, *h, *h, *h, *h, *h, *h, *h, *h, *h]
"""

# name: (text of web.yaml, line that must be named (None: any), words that must be said)
CASES = {
    "unknown-field": (CERT.replace("dnsNames:", "dnsName:"), 7, ["dnsName", "dnsNames"]),
    "unknown-field-deep": (CERT + "  privateKey:\n    algorithm: RSA\n    sise: 2048\n", 11, ["sise", "size"]),
    "unknown-kind": (CERT.replace("kind: Certificate", "kind: Certifcate"), 2, ["Certifcate", "Certificate"]),
    "wrong-type": (CERT.replace("[web.example]", "{a: b}"), 7, ["dnsNames"]),
    "wrong-number": (CERT + "  revisionHistoryLimit: many\n", 9, ["revisionHistoryLimit"]),
    "wrong-duration": (CERT + "  duration: fortnight\n", 9, ["duration", "fortnight"]),
    "wrong-enum": (CERT + "  privateKey: {algorithm: ROT13}\n", 9, ["algorithm", "ROT13"]),
    "renew-before-too-long": (CERT + "  duration: 24h\n  renewBefore: 720h\n", 10, ["renewBefore", "720h", "24h"]),
    "missing-field": (CERT.replace("  secretName: web-tls\n", ""), None, ["secretName"]),
    "dangling-issuer": (CERT.replace("name: self", "name: slef"), 8, ["slef", "self"]),
    "no-name": (CERT.replace("  name: web\n", "  labels: {}\n"), None, ["name"]),
    "duplicate-key": (CERT + "  secretName: other\n", 9, ["secretName"]),
    "two-owners-of-a-secret": (CERT + "---\n" + CERT.replace("name: web\n", "name: two\n"), None, ["web-tls"]),
    "twice-the-same-name": (CERT + "---\n" + CERT.replace("web-tls", "x-tls"), None, ["web"]),
    "not-yaml": (CERT + "  dnsNames: [a, b\n", None, []),
    "tab": ("apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n\tname: web\n", 4, []),
    "scalar": ("hello\n", 1, []),
    "binary": ("\x00\x01\x02\x03", None, []),
    "alias-bomb": (ALIAS_BOMB, None, []),
    "alias-bomb-in-names": (CERT.replace("[web.example]", "*names") .replace("spec:", "x: &names [a, b]\nspec:"), None, []),
    "10000-names": (CERT.replace("[web.example]", "[" + ", ".join(f"n{i}.example" for i in range(10000)) + "]"), 7, ["dnsNames", "1000"]),
    "deep": (CERT + "  x: " + "[" * 5000 + "]" * 5000 + "\n", None, []),
    "bad-name": (CERT.replace("web.example", "web example!"), 7, ["web example!"]),
    "refused-by-name": (SELF.replace("selfSigned: {}", "vault: {path: pki}"), None, ["vault"]),
    "dangling-consumer": (CERT + "---\napiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: edge}\nspec:\n  secrets: [web-tsl]\n",
                          None, ["web-tsl", "web-tls"]),
    "control-characters": (CERT.replace("web.example", '"web\\e[31m.example"'), 7, []),
}


def bad(kt, text):
    kt.manifest("a-issuer", SELF)
    path = kt.manifests / "web.yaml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def judge(result, path, line, words):
    assert result.status == 2, result
    where = re.escape(str(path)) + (rf":{line}: " if line else r":\d+: ")
    found = [text for text in result.err.splitlines() if re.search(where, text)]
    assert found, result
    for word in words:
        assert word in result.err, (word, result)
    assert "\x1b" not in result.err and "\x1b" not in result.out
    assert len(result.err) < 64 * 1024, "a wall of text"
    assert not result.out.strip() or result.argv[1] == "check", result


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
@pytest.mark.parametrize("case", CASES)
def test_wrong_manifest(kt, case, command):
    text, line, words = CASES[case]
    path = bad(kt, text)
    before = kt.files(kt.root)
    result = kt.run(*command, timeout=30)
    judge(result, path, line, words)
    assert kt.files(kt.root) == before, "nothing is written"
    assert result.seconds < 15, "in bounded time"


def test_every_mistake_is_said_at_once(kt):
    """Not one after another: three mistakes, three lines."""
    path = bad(kt, CERT.replace("dnsNames:", "dnsName:").replace("secretName:", "secretname:") + "  duration: soon\n")
    result = kt.run("check")
    assert result.status == 2, result
    for line in (6, 7, 9):
        assert f"{path}:{line}: " in result.err, result


def unprivileged():
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    return ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")


@pytest.fixture
def nobody():
    """An agent of a user without privileges: root reads everything, so it can't meet an unreadable file."""
    prefix = unprivileged()
    with Keyturn(prefix=prefix) as kt:
        if prefix:
            user = pwd.getpwnam("nobody")
            for path in (kt.root, kt.manifests, kt.state):
                os.chown(path, user.pw_uid, user.pw_gid)
            probe = subprocess.run([*prefix, str(BUILD / "keyturn"), "version"], capture_output=True, timeout=10)
            if probe.returncode != 0:  # a build folder that only root may enter: run a copy
                copy = kt.root / "build"
                copy.mkdir()
                for name in ("keyturn", "keyturn-keeper", "keyturn-courier", "keyturn-desk"):
                    (copy / name).write_bytes((BUILD / name).read_bytes())
                    (copy / name).chmod(0o755)
                copy.chmod(0o755)
                kt.binary = str(copy / "keyturn")
                kt.env["KEYTURN_LIBEXECDIR"] = str(copy)
        yield kt


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_unreadable_file(nobody, command):
    path = bad(nobody, CERT)
    os.chown(path, *((0, 0) if os.geteuid() == 0 else (-1, -1)))
    path.chmod(0o000)
    before = nobody.files(nobody.root)
    result = nobody.run(*command, timeout=30)
    assert result.status == 2, result
    assert str(path) in result.err and "ermission denied" in result.err, result
    assert nobody.files(nobody.root) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_missing_path(kt, command):
    result = kt.run(*command, "-c", str(kt.root / "nowhere"), timeout=30)
    assert result.status == 2, result
    assert str(kt.root / "nowhere") in result.err, result
    assert not kt.files()


def test_file_that_others_may_write(kt):
    """The warden runs hooks from manifests: one that anybody may write is refused (4: by policy, 2: as wrong)."""
    path = bad(kt, CERT)
    path.chmod(0o666)
    for command in ("run", "renew"):
        result = kt.run(command, timeout=30)
        assert result.status in (2, 4), result
        assert str(path) in result.err, result
        assert not kt.files(), result


def test_hook_that_is_not_there(kt):
    kt.manifest("a-issuer", SELF)
    kt.manifest("web", certificate("web", "self"), consumer("edge", secrets=["web-tls"], notify=[{"exec": {"argv": ["/nowhere/reload"]}}]))
    result = kt.run("renew", timeout=30)
    assert result.status == 2, result
    assert "/nowhere/reload" in result.err, result
    assert not kt.files()


def test_ten_thousand_good_names_elsewhere(kt):
    """1,000 names are the limit and work; 1,001 do not."""
    kt.manifest("a-issuer", SELF)
    kt.manifest("web", certificate("web", "self", names=[f"n{i}.example" for i in range(1000)]))
    kt.ok("check")
    kt.ok("renew", timeout=30)
    kt.manifest("web", certificate("web", "self", names=[f"n{i}.example" for i in range(1001)]))
    result = kt.run("check")
    assert result.status == 2 and "1000" in result.err, result


def test_bad_reload_keeps_the_old_set(kt):
    """A running agent refuses a bad set whole and goes on with the one it has."""
    kt.manifest("a-issuer", SELF)
    kt.manifest("web", certificate("web", "self"))
    running = kt.start()
    bad(kt, CERT.replace("dnsNames:", "dnsName:"))
    result = kt.run("reload", timeout=30)
    assert result.status == 2, result
    assert "dnsName" in result.err, result
    assert running.alive()
    assert [r["name"] for r in kt.json("status")["credentials"]] == ["web"]
    kt.manifest("web", certificate("web", "self"), certificate("two", "self"))
    kt.ok("reload")
    assert sorted(r["name"] for r in kt.json("status")["credentials"]) == ["two", "web"]
    assert running.stop() == 0, running.err()


USAGE = [
    (("statsu",), "status"),
    (("nonsense",), "nonsense"),
    (("renew", "--forse"), "--force"),
    (("status", "-o", "jsn"), "json"),
    (("why",), "NAME"),
    (("renew", "--timeout", "soon"), "soon"),
    (("secret", "set", "only-a-name"), "secret set"),
    (("secret",), "set"),
    (("rehearse", "--days", "-3"), "days"),
    ((), ""),
]


@pytest.mark.parametrize("args,word", USAGE, ids=lambda a: " ".join(a) if isinstance(a, tuple) else "")
def test_wrong_usage(kt, args, word):
    result = kt.run(*args, timeout=20)
    assert result.status == 2, result
    assert word in result.err, result
    assert not kt.files()


@pytest.mark.parametrize("command", [("why", "nobody"), ("renew", "nobody"), ("token", "nobody"), ("status", "nobody")], ids=lambda c: c[0])
def test_unknown_name(kt, command):
    kt.manifest("a-issuer", SELF)
    kt.manifest("web", certificate("nobdy", "self"))
    kt.ok("renew")
    result = kt.run(*command, timeout=20)
    assert result.status in (1, 2), result
    assert "nobody" in result.err, result


def test_agent_is_needed(kt):
    kt.manifest("a-issuer", SELF)
    result = kt.run("reload", timeout=20)
    assert result.status == 3, result
    assert str(kt.socket) in result.err or "agent" in result.err, result


def test_good_set_passes(kt):
    """check of everything that this layer uses: no error, and nothing written."""
    kt.manifest("all", SELF, certificate("web", "self"), ca_issuer(), token("t", issuer="local", audiences=["https://api.example"]),
                {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "local"},
                 "spec": {"local": {"issuerURL": "https://tokens.example"}}},
                consumer("edge", secrets=["web-tls"]))
    result = kt.ok("check")
    assert "0 errors" in result.out, result
    assert not kt.files()
    assert Path(kt.state).exists()


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_tokens_that_are_made_of_each_other(kt, names):
    """Nothing can begin such a circle: the command says what lacks instead of waiting for ever."""
    oauth = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "oauth"}, "spec": {"oauth2": {
        "tokenURL": "https://oauth.example/token",
        "auth": {"method": "client_secret_post", "clientID": "client", "clientSecretRef": {"name": "client"}}}}}
    kt.secret("client", client_secret="x")
    kt.manifest("all", oauth, *(
        token(name, "oauth", audiences=["https://api.example"],
              grant={"tokenExchange": {"subject": {"tokenRef": f"{names[i - 1]}-token"}}}) for i, name in enumerate(names)))
    result = kt.run("renew", timeout=20)
    assert result.status == 75, result
    for name in names:
        assert f"{name}-token is not issued yet" in result.err, result
