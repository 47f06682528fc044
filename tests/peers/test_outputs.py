"""A token's files as their readers read them: curl, sh, systemd, Envoy; with a token of everything that needs quoting."""

import base64
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from lib.certs import Authority
from lib.manifests import token
from lib.servers import Envoy, OidcProvider, Recorder, Server, program
from lib.wait import free_port

# Every visible character (what the keeper takes), and what sh, systemd, curl and YAML would make of some of them.
NASTY = "".join(chr(c) for c in range(0x21, 0x7f)) + "\"';$(id)`id`${HOME}\\n\\\"\\\\$$%n#[1+1]:'"
FLEX_SAFE = NASTY.replace("$", "S").replace("#[", "[#")
ALL = ["raw", "header", "json", "curl", "env", "envoy"]


class TokenServer(Server):
    """An authorization server that gives whatever access token it was told to."""

    def __init__(self, tmp, access_token, token_type="bearer"):
        self.port, self.authority = free_port(), Authority("as")
        self.cert, self.key, _ = self.authority.write(tmp, "localhost", "127.0.0.1")
        answer = json.dumps({"access_token": access_token, "token_type": token_type, "expires_in": 600}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.handler = Handler

    def start(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def issuer(self):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "as"}, "spec": {"oauth2": {
            "tokenURL": f"https://localhost:{self.port}/token", "audienceParam": "none", "caBundle": self.authority.bundle(),
            "auth": {"method": "client_secret_basic", "clientID": "c", "clientSecretRef": {"name": "as-client"}}}}}


def minted(kt, access_token, outputs, **more):
    with TokenServer(kt.root, access_token, **more) as server:
        kt.secret("as-client", client_secret="not-a-secret")
        kt.manifest("token", server.issuer(), token("calls", "as", outputs=outputs))
        return kt.run("renew", timeout=30)


@pytest.fixture
def upstream():
    with Recorder() as server:
        yield server


def test_curl(kt, upstream):
    """curl --config, beside curl -H @header: the same header line, byte for byte."""
    assert minted(kt, NASTY, ALL).status == 0
    folder = kt.volume("calls-token")
    for args in (["--config", folder / "curl.conf"], ["-H", f"@{folder}/header"]):
        subprocess.run([program("curl"), "-q", "-sS", "-f", "-o", os.devnull, *args, upstream.url()], check=True, timeout=20)
        assert upstream.seen[-1][1] == [f"Bearer {NASTY}"], args


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shell(kt, shell):
    assert minted(kt, NASTY, ALL).status == 0
    script = '. "$1"; printf "%s\\n" "$ACCESS_TOKEN" "$TOKEN_TYPE" "$EXPIRES_AT"'
    out = subprocess.run([program(shell), "-c", script, shell, kt.volume("calls-token") / "token.env"], capture_output=True, text=True,
                         timeout=20, check=True, env={"PATH": os.environ["PATH"], "HOME": "/nowhere"})
    told = kt.json("token", "calls")
    assert out.stdout.splitlines() == [NASTY, "Bearer", told["expires_at"]] and out.stderr == ""


def test_systemd(kt):
    """By the parser that EnvironmentFile= uses: systemd reads os-release with it, and systemd-tmpfiles writes ID where %o stands."""
    if not shutil.which("systemd-tmpfiles"):
        pytest.skip("no systemd-tmpfiles")
    assert minted(kt, NASTY, ALL).status == 0
    root = kt.root / "image"
    (root / "etc").mkdir(parents=True)
    env = kt.read("calls-token", "token.env").decode()
    (root / "etc" / "os-release").write_text(env.replace("ACCESS_TOKEN=", "ID=").replace("EXPIRES_AT=", "VERSION_ID="))
    (root / "write.conf").write_text("f /id 0600 - - - %o\nf /version 0600 - - - %w\n")
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={root}", root / "write.conf"], check=True, timeout=20)
    assert (root / "id").read_text() == NASTY
    assert (root / "version").read_text() == kt.json("token", "calls")["expires_at"]


def test_envoy(kt, upstream):
    assert minted(kt, NASTY, ALL).status == 0
    secret = yaml.safe_load(kt.read("calls-token", "envoy.yaml"))["resources"][0]
    assert secret["name"] == "calls-token"
    assert secret["generic_secret"]["secret"]["inline_string"] == f"Bearer {NASTY}"
    with Envoy(kt.root, upstream.port, kt.volume("calls-token"), "calls-token") as envoy:
        subprocess.run([program("curl"), "-q", "-sS", "-f", "-o", os.devnull, envoy.url()], check=True, timeout=20)
    assert upstream.seen[-1][1] == [f"Bearer {NASTY}"]


def test_flex(kt):
    """Two PolicyBindings; a token that Flex Gateway would evaluate is refused, and nothing of it shows."""
    assert minted(kt, FLEX_SAFE, [*ALL, "flex"]).status == 0
    remove, inject = yaml.safe_load_all(kt.read("calls-token", "flex.yaml"))
    assert {d["kind"] for d in (remove, inject)} == {"PolicyBinding"} and remove["spec"]["order"] < inject["spec"]["order"]
    assert remove["metadata"]["name"] != inject["metadata"]["name"]
    for document in (remove, inject):
        assert document["spec"]["targetRef"]["selector"]["labels"] == {"keyturn.dev/token": "calls-token"}
    assert remove["spec"]["policyRef"]["name"] == "header-removal-flex"
    assert inject["spec"]["config"]["inboundHeaders"] == [{"key": "authorization", "value": f"Bearer {FLEX_SAFE}"}]


def test_flex_refuses_expressions(kt):
    result = minted(kt, "a${HOME}b", ["raw", "flex"])
    assert result.status != 0 and "Flex Gateway would evaluate" in result.err, result
    assert "a${HOME}b" not in result.err + result.out
    assert not kt.volume("calls-token").exists() or not (kt.volume("calls-token") / "token").exists()


def test_the_command_prints_what_the_files_hold(kt):
    jwt = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"ES256"}', b'{"sub":"calls"}', b"x" * 64))
    assert minted(kt, jwt, [*ALL, "flex"]).status == 0
    for format, file in (("raw", "token"), ("header", "header"), ("curl", "curl.conf"), ("env", "token.env"), ("envoy", "envoy.yaml"),
                         ("flex", "flex.yaml"), ("aws-web-identity", "token")):
        assert kt.ok("token", "--format", format, "calls").out.encode() == kt.read("calls-token", file), format
    told, file = json.loads(kt.ok("token", "--format", "json", "calls").out), json.loads(kt.read("calls-token", "token.json"))
    assert 0 < told.pop("expires_in") <= 600 and abs(told["exp"] - time.time() - 600) < 60
    assert told == file
    assert kt.run("token", "--format", "xml", "calls").status == 2


def test_web_identity_is_a_jwt(kt):
    assert minted(kt, "opaque", ["raw"]).status == 0
    result = kt.run("token", "--format", "aws-web-identity", "calls")
    assert result.status == 2 and "no JWT" in result.err and result.out == "", result


def test_formats_that_the_manifest_does_not_name(kt):
    """The command has every format, whatever spec.outputs says."""
    assert minted(kt, "opaque", ["raw"]).status == 0
    assert sorted(p.name for p in kt.volume("calls-token").iterdir() if not p.name.startswith("..")) == ["token"]
    assert kt.ok("token", "--format", "curl", "calls").out == 'header = "Authorization: Bearer opaque"\n'


def test_dpop(kt, tmp_path):
    """The scheme is the token's type, also in what is written again from the store, and the command says the same."""
    scheme = {"header": "Authorization: DPoP ", "curl.conf": 'header = "Authorization: DPoP ', "envoy.yaml": 'inline_string: "DPoP ',
              "token.env": 'TOKEN_TYPE="DPoP"', "token.json": '"token_type":"DPoP"'}
    with OidcProvider(tmp_path, ttl=300) as server:
        kt.secret("oidc-client", client_secret=server.secret_of("basic"))
        kt.manifest("token", server.token_issuer(), token("calls", "oidc", audiences=["https://payments.example/api"],
                                                          scopes=["pay.write"], dpop={"algorithm": "ES256"}, outputs=ALL))
        kt.ok("renew")
        written = {name: kt.read("calls-token", name) for name in scheme}
        for name, words in scheme.items():
            assert words in written[name].decode(), name
        minted_once = len(server.requests())
        shutil.rmtree(kt.volume("calls-token"))
        kt.ok("renew")
        assert {name: kt.read("calls-token", name) for name in scheme} == written
        assert len(server.requests()) == minted_once, "written again, not minted again"
        assert kt.ok("token", "--format", "header", "calls").out.encode() == written["header"]
        assert kt.json("token", "calls")["token_type"] == "DPoP"
