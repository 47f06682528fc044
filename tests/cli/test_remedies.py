"""What a failure says besides what and where: how to mend it, in renew, status and why alike."""

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib import jose
from lib.certs import Authority, key_pem, pem
from lib.manifests import token

AUTHORITY, OTHER = Authority("tokens"), Authority("others")
KEY, FOREIGN = jose.new_key("ES256"), jose.new_key("ES256")
JWKS = {"keys": [jose.jwk(KEY, kid="k", alg="ES256", use="sig")]}


class TokenServer:
    """A token server whose certificate, tokens and keys are as a test wants them."""

    def __init__(self, folder, names=("127.0.0.1",), days=1, key=KEY, status=200, text=None, jwks=JWKS):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def say(self, status, body, kind="application/json"):
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.say(200 if isinstance(jwks, dict) else jwks or 404, jwks if isinstance(jwks, dict) else {})

            def do_POST(self):
                now = int(time.time())
                claims = {"iss": outer.url, "aud": "a", "sub": "s", "iat": now, "exp": now + 600, "jti": str(time.time_ns())}
                if text:
                    self.say(status, text, "text/html")
                elif status != 200:
                    self.say(status, {})
                else:
                    self.say(200, {"access_token": jose.sign(claims, key, "ES256", kid="k"), "token_type": "Bearer", "expires_in": 600})

            def log_message(self, *args):
                pass

        cert, private = AUTHORITY.issue(*names, days=days)
        (folder / "server.pem").write_bytes(pem(cert) + key_pem(private))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


CASES = {
    "expired": ({"days": -0.02}, {}, "the server's certificate has to be renewed there", "caBundle"),
    "other name": ({"names": ("other.example",)}, {}, "the URL has to name the server as its certificate does", "caBundle"),
    "untrusted": ({}, {"caBundle": OTHER.bundle()}, "needs its roots in caBundle", "clock"),
    "500": ({"status": 500}, {}, "look at the server's own log", "nothing to do"),
    "keys 500": ({"jwks": 500}, {"verifyTokens": True}, "look at the server's own log", "nothing to do"),
    "not JSON": ({"text": b"<html>hello"}, {}, "look at the URL and at what answers there", "nothing to do"),
    "wrong key": ({"key": FOREIGN}, {"verifyTokens": True}, "have to be those that this server signs with", "caBundle"),
    "no keys": ({"jwks": None}, {"verifyTokens": True}, "has to answer with a JWKS", "caBundle"),
}


@pytest.mark.parametrize("case", CASES)
def test_of_token_servers(kt, tmp_path, case):
    server, oauth2, right, wrong = CASES[case]
    with TokenServer(tmp_path, **server) as issuer:
        kt.secret("client", client_secret="x")
        kt.manifest("all", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "idp"}, "spec": {"oauth2": {
            "tokenURL": issuer.url + "/token", "caBundle": AUTHORITY.bundle(),
            **({"jwksURL": issuer.url + "/jwks"} if "verifyTokens" in oauth2 else {}), **oauth2,
            "auth": {"method": "client_secret_basic", "clientID": "c", "clientSecretRef": {"name": "client"}}}}},
            token("api", "idp", audiences=["a"]))
        failed = kt.run("renew", "api")
        assert failed.status in (1, 75), failed
        assert "Token/default/api: " in failed.err and issuer.url in failed.err, failed
        for text in (failed.err, kt.ok("status", "api").out, kt.ok("why", "api").out):
            assert right in text and wrong not in text, text
        row = kt.json("status", "api")
        assert right in row["mend"], row
        if "500" in case:
            assert "(server_error, fault: peer)" in kt.ok("why", "api").out


def test_of_a_watched_file(kt):
    folder = kt.root / "foreign"
    folder.mkdir()
    kt.manifest("watch", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Watch", "metadata": {"name": "flex"},
                          "spec": {"source": {"file": {"path": str(folder / "missing.pem")}}}})
    failed = kt.run("renew", "flex")
    assert failed.status == 75 and "missing.pem" in failed.err, failed
    for text in (failed.err, kt.ok("status", "flex").out, kt.ok("why", "flex").out):
        assert "spec.source has to name a file that is there" in text and "make room" not in text, text
