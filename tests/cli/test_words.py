"""What failing commands say: what, where, how to mend it, and each of it once."""

import re
import subprocess

import pytest

from lib.agent import BUILD, TOP
from lib.manifests import certificate, consumer, token

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"


def once(text, *words):
    for word in words:
        assert text.count(word) == 1, f"{word!r} stands {text.count(word)} times in:\n{text}"


def said(result):
    """The lines of the command itself, without the log."""
    return "\n".join(line for line in result.err.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line))


def test_dead_ca(kt):
    kt.manifest("all", certificate("web", "acme"), {
        "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "acme"}, "spec": {"acme": {
            "server": "https://127.0.0.1:1/dir", "privateKeySecretRef": {"name": "k"}, "solvers": [{"http01": {"ingress": {}}}]}}})
    result = kt.run("renew", "--timeout", "1s")
    once(said(result), "https://127.0.0.1:1/dir")
    assert result.status == 75 and "is gone" not in result.err, result


def test_dead_token_server_and_missing_secret(kt):
    kt.manifest("all", token("t", issuer="o", audiences=["a"]), {
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "o"}, "spec": {"oauth2": {
            "tokenURL": "http://127.0.0.1:1/token", "auth": {"method": "client_secret_basic", "clientID": "x",
                                                             "clientSecretRef": {"name": "s", "key": "k"}}}}})
    once(said(kt.run("renew", "--timeout", "1s")), "keyturn secret set")
    kt.secret("s", k="v")
    once(said(kt.run("renew", "t", "--timeout", "1s")), "http://127.0.0.1:1/token")


def test_file_that_others_may_write(kt):
    path = kt.manifest("all", SELF)
    path.chmod(0o666)
    for command in ("plan", "check", "renew"):
        result = kt.run(command)
        once(result.err, f"{path}: may be written by others", f"chmod go-w {path}")
        assert result.status == 2, result
    path.chmod(0o644)
    kt.manifests.chmod(0o777)
    result = kt.run("check")
    once(result.err, f"chmod go-w {kt.manifests}\n")
    assert result.status == 2, result
    kt.manifests.chmod(0o755)
    kt.ok("check")
    kt.ok("renew")
    kt.state.chmod(0o777)
    result = kt.run("renew")
    assert result.status == 4 and f"chmod go-w {kt.state}" in result.err, result


def test_a_file_in_place_of_the_socket(kt):
    kt.manifest("all", SELF)
    kt.socket.write_text("")
    once(kt.run("run").err, str(kt.socket), "is in the way", "--socket")


def test_renew_says_what_it_waits_for(kt):
    """Without a terminal: switched is not done while a consumer has not proved it."""
    kt.manifest("all", SELF, certificate("web", "self"),
                consumer("edge", secrets=["web-tls"], notify=[{"signal": {"name": "HUP", "pidFile": "/nowhere/pid"}}], within="8s"))
    result = kt.run("renew", "--timeout", "6s", timeout=30)
    assert "1 of 1 switched after 5s; waiting for the consumers" in result.err and "done" not in result.err, result
    assert result.status != 0


@pytest.mark.parametrize("lines", [1000])
def test_a_long_answer_arrives_whole(kt, lines):
    """A one-shot command reads what its rooms left behind in the stream."""
    kt.manifest("all", SELF, *(certificate(f"c{i}", "self", names=[f"n{i}.example"]) for i in range(lines)))
    assert len(kt.json("plan")["plan"]) == lines + 1


def test_completion_knows_the_names(kt):
    kt.manifest("all", SELF, certificate("web", "self"), certificate("other", "self"))
    kt.ok("renew")
    words = subprocess.run(["bash", "-c", ". packaging/completion/keyturn.bash; COMP_WORDS=(keyturn why ''); COMP_CWORD=2; _keyturn; "
                            "echo ${COMPREPLY[@]}"], cwd=TOP, env={**kt.env, "PATH": f"{BUILD}:{kt.env['PATH']}"}, capture_output=True,
                           text=True, timeout=30, check=True)
    assert sorted(words.stdout.split()) == ["other", "web"], words
