"""Tokens from the certified oidc-provider: minted, delivered, renewed in time; refusals obeyed, never hammered."""

import base64
import json
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

import pytest

from lib.certs import Authority, key_pem
from lib.jose import jwk, new_key, thumbprint
from lib.manifests import token
from lib.servers import Local, OidcProvider
from lib.wait import free_port, until

API = "https://payments.example/api"


def claims(jwt):
    body = jwt.split(b".")[1]
    return json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))


@pytest.fixture
def provider(tmp_path):
    with OidcProvider(tmp_path) as server:
        yield server


@pytest.fixture
def opaque(tmp_path):
    with OidcProvider(tmp_path, jwt=False) as server:
        yield server


def setup_token(kt, provider, client="basic", name="pay", method=None, issuer=None, secret=None, **spec):
    kt.secret("oidc-client", client_secret=secret or provider.secret_of(client))
    spec = {"audiences": [API], "scopes": ["pay.write"], "outputs": ["raw", "header", "json"], **spec}
    kt.manifest("token", provider.token_issuer(client=client, method=method, **(issuer or {})), token(name, **spec))


@pytest.mark.parametrize("client", ["basic", "post"])
def test_minted_and_delivered(kt, provider, client):
    setup_token(kt, provider, client)
    kt.ok("renew")
    raw = kt.read("pay-token", "token")
    assert raw == raw.strip(), "no newline"
    body = claims(raw)
    assert body["iss"] == provider.issuer_url and body["aud"] == API and body["scope"] == "pay.write"
    assert kt.read("pay-token", "header") in (b"Authorization: Bearer " + raw, b"Authorization: Bearer " + raw + b"\n")
    told = json.loads(kt.read("pay-token", "token.json"))
    assert told["access_token"].encode() == raw
    assert told["token_type"].lower() == "bearer"
    assert "pay.write" in told["scope"]
    assert len([r for r in provider.requests() if r["status"] == 200]) == 1
    assert kt.ok("token", "pay").out.strip().encode() == raw
    assert provider.requests()[0]["traceparent"], "the trace goes out with the request"


def test_secret_never_shows(kt, provider):
    setup_token(kt, provider, "basic")
    result = kt.ok("-v", "-v", "renew")
    secret = provider.secret_of("basic")
    for text in (result.out, result.err, kt.run("audit", "-o", "json").out, kt.run("status", "-o", "json").out):
        assert secret not in text
        assert kt.read("pay-token", "token").decode() not in text


def test_introspection_says_active(kt, opaque):
    setup_token(kt, opaque, "basic", issuer={"audienceParam": "none"}, audiences=[])
    kt.ok("renew")
    raw = kt.read("pay-token", "token").decode()
    told = opaque.introspect(raw)
    assert told["active"] is True
    assert told["client_id"] == "basic" and told["scope"] == "pay.write"


def test_renewed_before_its_end_and_never_expired_on_disk(kt, provider):
    """For three lives of 15 s: whoever reads the file finds a token that is valid at that moment."""
    setup_token(kt, provider)
    running = kt.start()
    path = kt.volume("pay-token") / "token"
    until(path.exists, 15, "the first token")
    seen, worst = {}, 99.0
    end = time.monotonic() + 32
    while time.monotonic() < end:
        before = time.time()
        body = claims(path.read_bytes())
        left = body["exp"] - before
        worst = min(worst, left)
        assert left > 0, "an expired token is on the disk"
        seen[body["jti"]] = body
        time.sleep(0.05)
    assert len(seen) >= 3, seen
    assert worst > 1, "renewed at the last moment only"
    mints = [r for r in provider.requests() if r["status"] == 200]
    assert len(mints) <= len(seen) + 1, "one request for each token"
    assert running.stop() == 0, running.err()


def test_expired_token_leaves_the_disk(kt, tmp_path):
    """When the server is gone the old token is served as long as it is valid, and then removed."""
    with OidcProvider(tmp_path, ttl=10) as provider:
        setup_token(kt, provider)
        running = kt.start()
        path = kt.volume("pay-token") / "token"
        until(path.exists, 15, "the first token")
        provider.refuse(503)
        body = claims(path.read_bytes())
        time.sleep(max(0, body["exp"] - 2.5 - time.time()))
        assert path.exists(), "still valid, still served"
        until(lambda: not path.exists(), 30, "the expired token is removed")
        assert time.time() >= body["exp"], "removed while it was still valid"
        assert kt.run("token", "pay").status != 0
        # The server is back: whoever asks has it at once (by itself it is asked for again within minutes).
        provider.refuse(times=0)
        kt.ok("renew", "pay", timeout=30)
        assert path.exists()
        assert claims(path.read_bytes())["exp"] > time.time()
        assert running.stop() == 0, running.err()


def test_retry_after_is_obeyed(kt, provider):
    """429 with Retry-After: 5: nobody calls earlier, then it goes on by itself."""
    setup_token(kt, provider)
    provider.refuse(429, {"Retry-After": "5"}, times=1)
    running = kt.start()
    until(lambda: provider.requests(), 15, "the refused call")
    refused = provider.requests()[0]
    assert refused["status"] == 429
    path = kt.volume("pay-token") / "token"
    until(path.exists, 30, "the token after the pause")
    calls = provider.requests()
    assert calls[1]["time"] - refused["time"] >= 4.9, calls
    assert calls[1]["time"] - refused["time"] <= 9, "not much later than it may"
    assert len(calls) == 2, calls
    assert running.stop() == 0, running.err()


def test_retry_after_as_a_date_and_across_restarts(kt, provider):
    setup_token(kt, provider)
    until_then = time.time() + 7
    stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(until_then))
    provider.refuse(429, {"Retry-After": stamp}, times=1)
    result = kt.run("renew", "--timeout", "3s")
    assert result.status == 75, result
    assert "429" in result.err or "rate" in result.err.lower() or "later" in result.err.lower(), result
    running = kt.start()
    path = kt.volume("pay-token") / "token"
    until(path.exists, 30, "the token after the pause")
    calls = provider.requests()
    assert calls[1]["time"] >= int(until_then) - 0.1, (calls, until_then)
    assert len(calls) == 2, calls
    assert running.stop() == 0, running.err()


def test_empty_503_is_a_limit(kt, provider):
    """Some gateways answer an empty 503 when they mean 429: not hammered."""
    setup_token(kt, provider)
    provider.refuse(503)
    running = kt.start()
    until(lambda: provider.requests(), 15, "the refused call")
    time.sleep(6)
    assert len(provider.requests()) <= 4, provider.requests()
    assert running.stop() == 0, running.err()


def test_wrong_secret(kt, provider):
    """invalid_client: exit 1 with the reason, no second try until the secret changes, then at once."""
    setup_token(kt, provider, secret="not-the-secret")
    result = kt.run("renew", timeout=60)
    assert result.status == 1, result
    assert "invalid_client" in result.err, result
    assert "not-the-secret" not in result.err
    assert not (kt.volume("pay-token") / "token").exists()
    assert len(provider.requests()) == 1, provider.requests()
    running = kt.start()
    time.sleep(4)
    assert len(provider.requests()) == 1, "a wrong secret is not tried again by itself"
    kt.secret("oidc-client", client_secret=provider.secret_of("basic"))
    path = kt.volume("pay-token") / "token"
    until(path.exists, 10, "`secret set` wakes it")
    assert [r["status"] for r in provider.requests()] == [401, 200]
    assert running.stop() == 0, running.err()


def test_no_secret_yet(kt, provider):
    """The Secret is not there: said by name, and nothing is sent."""
    kt.manifest("token", provider.token_issuer(), token("pay", audiences=[API], scopes=["pay.write"]))
    result = kt.run("renew", timeout=30)
    assert result.status in (1, 75), result
    assert "oidc-client" in result.err, result
    assert not provider.requests()
    kt.secret("oidc-client", client_secret=provider.secret_of("basic"))
    kt.ok("renew", "pay")


def test_scope_that_the_client_may_not_have(kt, provider):
    setup_token(kt, provider, scopes=["pay.write", "root.everything"])
    result = kt.run("renew", timeout=30)
    assert result.status == 1, result
    assert "scope" in result.err, result
    assert not (kt.volume("pay-token") / "token").exists()
    assert len(provider.requests()) == 1


def test_longer_life_than_allowed(kt, provider):
    """maxLifetime caps what counts as its life; with Refuse it is not taken at all."""
    setup_token(kt, provider, maxLifetime="8s", onLongerLifetime="Refuse", renewBefore="3s")
    result = kt.run("renew", timeout=30)
    assert result.status in (1, 4), result
    assert "maxLifetime" in result.err or "8s" in result.err, result
    assert not (kt.volume("pay-token") / "token").exists()


def test_server_is_down(kt, provider):
    setup_token(kt, provider, issuer={})
    provider.stop()
    result = kt.run("renew", timeout=60)
    assert result.status == 75, result
    assert f"localhost:{provider.port}" in result.err, result


def test_server_of_another_root(kt, provider):
    setup_token(kt, provider, issuer={"bundle": Authority("stranger").bundle()})
    result = kt.run("renew", timeout=60)
    assert result.status in (1, 75), result
    assert "certificate" in result.err.lower(), result
    assert not provider.requests(None)


def test_issuer_that_names_another(kt, provider):
    """Metadata whose issuer is not the one that was asked is refused (RFC 8414 3.3)."""
    issuer = provider.token_issuer()
    issuer["spec"]["oauth2"]["issuer"] = f"https://127.0.0.1:{provider.port}"
    kt.secret("oidc-client", client_secret=provider.secret_of("basic"))
    kt.manifest("token", issuer, token("pay", audiences=[API], scopes=["pay.write"]))
    result = kt.run("renew", timeout=60)
    assert result.status in (1, 75), result
    assert "issuer" in result.err, result
    assert not provider.requests()


def test_token_url_without_metadata(kt, provider):
    issuer = provider.token_issuer()
    del issuer["spec"]["oauth2"]["issuer"]
    issuer["spec"]["oauth2"]["tokenURL"] = f"{provider.issuer_url}/token"
    kt.secret("oidc-client", client_secret=provider.secret_of("basic"))
    kt.manifest("token", issuer, token("pay", audiences=[API], scopes=["pay.write"]))
    kt.ok("renew")
    assert [r["path"] for r in provider.requests(None)] == ["/token"]


def test_one_request_for_those_who_ask_for_the_same(kt, provider):
    """Five Tokens of one client for the same scopes and audience share one request; one for others has its own."""
    kt.secret("oidc-client", client_secret=provider.secret_of("basic"))
    kt.manifest("token", provider.token_issuer(), token("other", scopes=["pay.write"]),
                *(token(f"t{i}", audiences=[API], scopes=["pay.write"]) for i in range(5)))
    kt.ok("renew")
    assert len(provider.requests()) == 2
    assert len({kt.read(f"t{i}-token", "token") for i in range(5)}) == 1
    kt.ok("renew")
    assert len(provider.requests()) == 2


class Slow(Local):
    """A stand-in for a server that takes its time, and counts how many requests it has at once."""

    def __init__(self, status=200, takes=0.03, limited=()):
        """limited: ids of clients whose every request is one too many."""
        self.port = free_port()
        self.seen = []
        self.metadata = self.asked = self.running = self.most = 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, headers=(), **body):
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                with lock:
                    outer.metadata += 1
                time.sleep(0.2)
                self.answer(status, issuer=outer.url(""), token_endpoint=outer.url("/token"))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                with lock:
                    outer.seen.append((time.time(), parse_qs(body)))
                    outer.asked += 1
                    outer.running += 1
                    outer.most = max(outer.most, outer.running)
                time.sleep(takes)
                with lock:
                    outer.running -= 1
                client = base64.b64decode(self.headers.get("Authorization", "Basic ").split(" ")[1]).decode().split(":")[0]
                if client in limited:
                    self.answer(429, [("Retry-After", "600")], error="slow_down")
                else:
                    self.answer(200, access_token=f"token-{outer.asked}", token_type="Bearer", expires_in=3600)

            def log_message(self, *args):
                pass

        self.handler = Handler

    def manifest(self, kt, count, client="c", **auth):
        auth = auth or {"method": "client_secret_basic", "clientSecretRef": {"name": "client"}}
        issuer = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": f"slow-{client}"}, "spec": {"oauth2": {
            "issuer": self.url(""), "auth": {"clientID": client, **auth}}}}
        kt.secret("client", client_secret="secret-0123456789")
        kt.manifest(client, issuer, *(token(f"t{i}" if client == "c" else f"{client}-{i}", issuer=f"slow-{client}", audiences=[f"https://api.example/{i}"])
                                      for i in range(count)))


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_at_once_than_the_limit(kt, limit):
    """spec.limits.perIssuer holds for tokens too; the metadata is read once for all that need it at the same moment."""
    with Slow() as server:
        kt.agent_settings(limits={"perIssuer": limit})
        server.manifest(kt, 12)
        kt.ok("renew")
        assert (server.asked, server.metadata, server.most) == (12, 1, limit)


def test_a_pause_is_for_all_requests_of_a_client(kt):
    """One is told to slow down: the others of the same client are held back without being sent, those of another client are not."""
    with Slow(limited={"busy"}) as server:
        kt.agent_settings(limits={"perIssuer": 1})
        server.manifest(kt, 12, "busy")
        server.manifest(kt, 3, "idle")
        result = kt.run("renew")
        assert result.status == 75 and "another request of this client" in result.err, result
        assert server.asked == 1 + 3
        assert all(kt.credential(f"busy-{i}")["nextTry"] for i in range(12))
        assert kt.read("idle-2-token", "token").startswith(b"token-")


def test_an_assertion_does_not_grow_old_in_the_queue(kt):
    """Who has to wait for its turn longer than an assertion lives has one that is fresh when the turn has come."""
    with Slow(takes=0.3) as server:
        kt.agent_settings(limits={"perIssuer": 1})
        server.manifest(kt, 8, method="client_secret_jwt", clientSecretRef={"name": "client"})
        kt.secret("client", client_secret="secret-0123456789-0123456789-0123456789")
        kt.ok("renew")
        made = [claims(form["client_assertion"][0].encode())["iat"] for _, form in server.seen]
        waited = [at - iat for (at, _), iat in zip(server.seen, made)]
        assert len(waited) == 8 and max(waited) - min(waited) < 1.8, waited


def test_a_token_lives_from_its_own_request_on(kt):
    """Not from the moment at which it began to wait for its turn: a short one would be over before it came."""
    with Slow(takes=0.35) as server:
        kt.agent_settings(limits={"perIssuer": 1})
        server.manifest(kt, 8)
        kt.ok("renew")
        lives = []
        for i in range(8):
            at, _ = server.seen[int(kt.read(f"t{i}-token", "token").rsplit(b"-", 1)[1]) - 1]
            end = kt.credential(f"t{i}")["notAfter"]
            lives.append(datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() - at)
        assert len(lives) == 8 and all(3598.5 < life < 3600.5 for life in lives), lives


def test_metadata_that_fails_fails_for_all_who_wait(kt):
    with Slow(status=503) as server:
        server.manifest(kt, 5)
        assert kt.run("renew").status == 75
        assert (server.asked, server.metadata) == (0, 1)


def test_client_key_is_taken_anew_when_it_changes(kt, tmp_path):
    """What was read of it is kept only as long as the secret is the same: a daemon signs with the new one at once."""
    keys = [new_key("ES256") for _ in range(2)]
    client = {"client_id": "key", "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256"}
    with OidcProvider(tmp_path, ttl=300, clients=[{**client, "jwks": {"keys": [jwk(keys[0], kid=thumbprint(keys[0]))]}}]) as server:
        kt.secret("client", tls__key=key_pem(keys[0]))
        kt.manifest("token", server.oauth2("oidc", {"method": "private_key_jwt", "clientID": "key", "keySecretRef": {"name": "client"}}),
                    token("pay", audiences=[API], scopes=["pay.write"]))
        kt.start()
        until(lambda: len([r for r in server.requests() if r.get("status") == 200]) == 1, 15, "the first token")
        server.set_client(**client, jwks={"keys": [jwk(keys[1], kid=thumbprint(keys[1]))]})
        kt.secret("client", tls__key=key_pem(keys[1]))
        kt.ok("renew", "pay", "--force")
        assert [r["status"] for r in server.requests()] == [200, 200]


def test_accepted_by_an_api(kt, provider):
    """The weaker proof: a URL takes the new token; here the provider's own userinfo, which must refuse it."""
    port = free_port()
    setup_token(kt, provider)
    kt.manifest("consumer", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Consumer", "metadata": {"name": "caller"}, "spec": {
        "secrets": ["pay-token"], "within": "2s",
        "prove": [{"secret": "pay-token", "accepted": {"http": {"url": f"http://127.0.0.1:{port}/api"}}}]}})
    result = kt.run("renew", timeout=60)
    assert result.status == 5, result
    assert "caller" in result.err, result


def test_signing_keys_go_when_their_last_token_has_ended(kt):
    """Rotated twice within a token's life: each key stays for the longest token and the caches, not for what comes later."""
    keys = kt.root / "keys"
    kt.manifest("set", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
        "issuerURL": "https://tokens.example", "keyRotation": "5s", "publishAhead": "1s", "maxTokenLifetime": "8s",
        "publishJWKS": {"volume": {"path": str(keys)}}}}},
        token("t", "own", audiences=[API], duration="8s"))
    running = kt.start()

    def kids():
        return [key["kid"] for key in json.loads((keys / "jwks.json").read_text())["keys"]]

    until(lambda: (keys / "jwks.json").exists(), 10, "the first key is shown")
    began = time.monotonic()
    (first,) = kids()
    until(lambda: first not in kids(), 24, "the first key is gone", pause=0.1)
    assert 13 < time.monotonic() - began < 24, "5 s of its own, 8 s of its last token, 1 s of caches"
    assert 2 <= len(kids()) <= 4
    assert "issuer-key.retired" in kt.run("audit", "-o", "json").out
    assert running.stop() == 0
    kt.ok("audit", "--verify")
