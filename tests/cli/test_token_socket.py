"""Tokens by asking: who may ask at the local socket, what is answered, and what comes of a token that was refused."""

import hashlib
import http.server
import json
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.asking import ask, ask_as
from lib.manifests import certificate, consumer, projected, token
from lib.wait import until

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can be several users")
ME = str(os.geteuid())
LOCAL = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "minter"},
         "spec": {"local": {"issuerURL": "https://minter.example", "publishAhead": "0s"}}}
SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"}, "spec": {"selfSigned": {}}}
API = "/v1/token/default/api-token"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Gives opaque tokens and counts them; `down` makes it fail."""

    def __init__(self, life=600):
        self.given, self.asked, self.down, self.life, self.lock = [], 0, False, life, threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with outer.lock:
                    outer.asked += 1
                    down = outer.down
                    if not down:
                        outer.given.append(f"canary-{len(outer.given)}-{os.urandom(12).hex()}")
                        body = json.dumps({"access_token": outer.given[-1], "token_type": "Bearer", "expires_in": outer.life})
                body = b"{}" if down else body.encode()
                self.send_response(503 if down else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def manifest(self):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "remote"}, "spec": {"oauth2": {
            "tokenURL": f"http://127.0.0.1:{self.server_address[1]}/token",
            "auth": {"clientID": "c", "clientSecretRef": {"name": "client"}}}}}


def sock_of(kt):
    return kt.root / "tokens.sock"


def settings(kt, **more):
    kt.agent_settings(listeners={"tokens": f"unix:{sock_of(kt)}"}, **more)


def local(kt, *more, **spec):
    """A Token `api` of an embedded issuer, in the secret api-token."""
    settings(kt)
    kt.manifest("set", LOCAL, token("api", "minter", audiences=["a"], outputs=["raw", "json"], **spec), *more)


def remote(kt, server, *more):
    settings(kt)
    kt.secret("client", client_secret="s3cret")
    kt.manifest("set", server.manifest(), token("api", "remote"), *more)


def mine(**socket):
    return consumer("shop", secrets=["api-token"], socket={"users": [ME], **socket})


def first(kt, path=API, **headers):
    """The first token, once it is there; of an agent that was killed the socket is still there."""
    def given():
        try:
            said = ask(sock_of(kt), path, **headers)
        except ConnectionRefusedError:
            return None
        return said.status == 200 and said

    return until(given, 20, "a token is there")


# --- asking

def test_what_is_given(kt):
    local(kt, mine())
    with_agent = kt.start()
    said = first(kt)
    assert said.headers["Content-Type"] == "application/json" and said.headers["Cache-Control"] == "no-store"
    raw = ask(sock_of(kt), API, Accept="text/plain")
    assert raw.status == 200 and raw.body == kt.read("api-token", "token").decode() and raw.headers["Cache-Control"] == "no-store"
    file = json.loads(kt.read("api-token", "token.json"))
    assert {k: v for k, v in said.json().items() if k != "expires_in"} == file
    assert said.headers["ETag"] == raw.headers["ETag"] == f'"{sha256(raw.body)}"'
    assert ask(sock_of(kt), API, Accept="text/html, text/plain;q=0.5").body == raw.body
    assert ask(sock_of(kt), API, Accept="image/png").status == 406
    head = ask(sock_of(kt), API, "HEAD")
    assert head.status == 200 and head.body == ""
    assert with_agent.stop() == 0
    assert not sock_of(kt).exists()


def test_the_socket_is_open_to_all_and_goes_with_the_setting(kt):
    local(kt, mine())
    kt.start()
    first(kt)
    assert stat.S_IMODE(sock_of(kt).stat().st_mode) == 0o666
    kt.agent_settings()
    kt.ok("reload")
    until(lambda: not sock_of(kt).exists(), 10, "the socket is gone")
    settings(kt)
    kt.ok("reload")
    first(kt)


@needs_root
def test_only_who_is_named(kt):
    """Users and groups by number and by name; root is nobody special; what is not there looks like what is not yours."""
    local(kt, consumer("shop", volumes=[projected(kt.root / "vol", ("api-token", {}))],
                       socket={"users": ["4101", "mail", "no-such-user"], "groups": ["4202", "www-data"]}))
    kt.start()
    sock = sock_of(kt)
    until(lambda: ask_as(4101, 4101, sock, API).status == 200, 20, "a token is there")
    for uid, gid, groups in ((4101, 1, ()), (8, 8, ()), (4999, 4202, ()), (4999, 4999, (5000, 4202)), (4999, 33, ()),
                             (4999, 4999, (33,))):
        said = ask_as(uid, gid, sock, API, groups=groups)
        assert said.status == 200, (uid, gid, groups, said)
    for uid, gid, groups in ((4102, 4102, ()), (0, 0, ()), (65534, 65534, ()), (4999, 4101, (8,))):
        said = ask_as(uid, gid, sock, API, groups=groups)
        absent = ask_as(uid, gid, sock, "/v1/token/default/nothing", groups=groups)
        elsewhere = ask_as(uid, gid, sock, "/v1/token/other/api-token", groups=groups)
        assert said.status == absent.status == elsewhere.status == 403
        assert said.body == absent.body == elsewhere.body
        strip = lambda headers: {k: v for k, v in headers.items() if k != "Date"}  # noqa: E731
        assert strip(said.headers) == strip(absent.headers)
        refused = ask_as(uid, gid, sock, API + "/invalidate", "POST", groups=groups)
        assert refused.status == 403 and refused.body == said.body
    assert ask_as(4101, 4101, sock, "/v1/token/default/nothing").status == 403
    assert not kt.audit(step="token.invalidated")
    records = kt.audit(step="token.asked", outcome="refused")
    by_user = [r["actor"] for r in records]
    assert sorted(set(by_user)) == sorted(by_user), "one record a user and minute"
    assert {"uid:4102", "uid:0", "uid:65534", "uid:4999"} <= set(by_user)


def test_only_what_is_offered(kt):
    """socket.secrets narrows it down; certificates are never given; another Consumer's socket opens nothing here."""
    local(kt, SELF, certificate("web", "ss", ["a.example"]), token("other", "minter", audiences=["b"]),
          token("third", "minter", audiences=["c"]),
          consumer("shop", secrets=["api-token", "other-token", "web-tls"], socket={"users": [ME], "secrets": ["api-token"]}),
          consumer("asks", socket={"users": [ME], "secrets": ["third-token"]}),
          consumer("files", secrets=["web-tls"], socket={"users": [ME]}))
    kt.start()
    first(kt)
    first(kt, "/v1/token/default/third-token")
    assert ask(sock_of(kt), "/v1/token/default/other-token").status == 403
    assert ask(sock_of(kt), "/v1/token/default/web-tls").status == 403


def test_not_there_yet(kt):
    with Server() as server:
        server.down = True
        remote(kt, server, mine())
        kt.start()
        said = until(lambda: (s := ask(sock_of(kt), API)).status == 503 and "no valid token" in s.body and s, 10, "an answer")
        assert 1 <= int(said.headers["Retry-After"]) <= 60 and said.headers["Cache-Control"] == "no-store"
        server.down = False
        assert first(kt).json()["access_token"] == server.given[-1]


@pytest.mark.parametrize("text, complaint", [
    ({"tokens": "127.0.0.1:9500"}, "must be a local socket"),
    ({"tokens": "unix:/run/x.sock", "metrics": "unix:/run/x.sock"}, "can't share"),
])
def test_settings_that_can_not_be(kt, text, complaint):
    kt.agent_settings(listeners=text)
    kt.manifest("set", LOCAL)
    result = kt.run("check")
    assert result.status != 0 and complaint in result.err + result.out, result


@pytest.mark.parametrize("socket, complaint", [
    ({"secrets": ["api-token"]}, "must say who may ask"),
    ({"users": ["nobody"]}, "other user namespaces"),
    ({"groups": ["65534"]}, "other user namespaces"),
    ({"users": ["a"], "secrets": ["wrong-token"]}, "wrong-token"),
])
def test_consumers_that_can_not_be(kt, socket, complaint):
    local(kt, consumer("shop", secrets=["api-token"], socket=socket))
    result = kt.run("check")
    assert result.status != 0 and complaint in result.err + result.out, result


# --- feedback

def invalidate(kt, **query):
    query = "&".join(f"{k}={v}" for k, v in query.items())
    return ask(sock_of(kt), f"{API}/invalidate{'?' + query if query else ''}", "POST")


def test_a_refused_token_is_minted_again_once(kt):
    with Server() as server:
        remote(kt, server, mine())
        kt.start("-vv")
        old = first(kt).json()["access_token"]
        said = invalidate(kt, sha256=sha256(old).upper())
        assert said.status == 202 and said.json()["outcome"] == "minting", said
        new = until(lambda: (t := first(kt).json()["access_token"]) != old and t, 10, "another token")
        assert server.given == [old, new]
        assert invalidate(kt, sha256=sha256(old)).json()["outcome"] == "newer"
        damped = invalidate(kt)
        assert damped.status == 200 and damped.json()["outcome"] == "damped" and 1 <= int(damped.headers["Retry-After"]) <= 61
        assert ask(sock_of(kt), "/invalidate?name=api-token&sha256=" + sha256(new), "POST").json()["outcome"] == "damped"
        record, = kt.audit(step="token.invalidated")
        assert record["actor"] == f"uid:{ME}" and record["consumer"] == "default/shop" and record["trace_id"] == said.json()["traceId"]
        steps = [r["step"] for r in kt.audit(trace_id=record["trace_id"])]
        assert steps[:2] == ["token.invalidated", "due"] and "switched" in steps
        assert [r for r in kt.audit(step="due") if r["trace_id"] == record["trace_id"]][0]["reason"] == "refused"
        time.sleep(1.5)
        assert server.given == [old, new]
        everything = json.dumps(kt.json("audit")) + kt.running[0].err() + damped.body + said.body
        assert old not in everything and new not in everything


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_restart_does_not_reset_the_damping(kt, end):
    with Server(life=1800) as server:
        remote(kt, server, mine())
        agent = kt.start()
        old = first(kt).json()["access_token"]
        assert invalidate(kt).json()["outcome"] == "minting"
        until(lambda: len(server.given) == 2 and first(kt).json()["access_token"] != old, 10, "another token")
        getattr(agent, end)()
        kt.start()
        first(kt)
        said = invalidate(kt, sha256=sha256(server.given[-1]))
        assert said.json()["outcome"] == "damped" and 100 < int(said.headers["Retry-After"]) <= 180, said
        assert len(server.given) == 2


@pytest.mark.parametrize("pause", [0, 0.003, 0.01, 0.03])
def test_a_kill_right_after_it_loses_nothing(kt, pause):
    """What was answered with 202 is done after a kill -9, whatever it hit; one token, and one more where an answer was lost."""
    with Server() as server:
        remote(kt, server, mine())
        agent = kt.start()
        old = first(kt).json()["access_token"]
        assert invalidate(kt).status == 202
        time.sleep(pause)
        agent.kill9()
        kt.start()
        until(lambda: first(kt).json()["access_token"] != old, 20, "another token")
        assert invalidate(kt).json()["outcome"] == "damped"
        time.sleep(0.5)
        assert first(kt).json()["access_token"] == server.given[-1] and len(server.given) in (2, 3)
        assert len(kt.audit(step="token.invalidated")) == 1


def test_a_storm_leads_to_one_token(kt):
    """A hundred at once, with and without the hash, through every door."""
    with Server() as server:
        remote(kt, server, mine())
        kt.start()
        old = first(kt).json()["access_token"]

        def say(i):
            if i % 10 == 0:
                return ask(kt.socket, f"/invalidate?name=api&sha256={sha256(old)}", "POST").json()["outcome"]
            return invalidate(kt, **({"sha256": sha256(old)} if i % 2 else {})).json()["outcome"]

        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(say, range(100)))
        assert outcomes.count("minting") == 1 and set(outcomes) <= {"minting", "already-minting", "newer", "damped"}
        until(lambda: first(kt).json()["access_token"] != old, 10, "another token")
        time.sleep(1.5)
        assert len(server.given) == 2 and server.asked == 2
        assert len(kt.audit(step="token.invalidated")) == 1
        kt.ok("audit", "--verify")


def test_an_injected_401(kt):
    """Eight callers ask for each call; what they hold is refused from one moment on. One new token, and every call gets through."""
    with Server() as server:
        remote(kt, server, mine())
        kt.start()
        first(kt)
        refused, stop, lock = set(), threading.Event(), threading.Lock()
        calls = {"ok": 0, "refused": 0, "lost": 0}

        def service(bearer):  # the resource server: what it gave is good until it is not
            return 200 if bearer in server.given and bearer not in refused else 401

        def call():
            for _ in range(40):  # a second's patience and more
                bearer = ask(sock_of(kt), API, Accept="text/plain").body
                if service(bearer) == 200:
                    return "ok"
                with lock:
                    calls["refused"] += 1
                assert invalidate(kt, sha256=sha256(bearer)).status in (200, 202)
                time.sleep(0.05)
            return "lost"

        def caller():
            while not stop.is_set():
                result = call()
                with lock:
                    calls[result] += 1

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(caller) for _ in range(8)]
            time.sleep(0.7)
            refused.add(server.given[0])
            until(lambda: len(server.given) == 2, 10, "another token")
            time.sleep(1)
            stop.set()
            for one in running:
                one.result(timeout=20)
        assert calls["lost"] == 0 and calls["refused"] >= 1 and calls["ok"] > 50, calls
        assert len(server.given) == server.asked == 2
        assert len(kt.audit(step="token.invalidated")) == 1


def test_a_server_that_is_down_does_not_lose_it(kt):
    """The old token stays in place; the next tries come by themselves, and complaints do not make them sooner."""
    with Server() as server:
        remote(kt, server, mine())
        kt.start()
        old = first(kt).json()["access_token"]
        server.down = True
        asked = server.asked
        assert invalidate(kt).json()["outcome"] == "minting"
        until(lambda: server.asked > asked and kt.credential("api").get("lastError"), 15, "a try has failed")
        asked = server.asked
        for _ in range(20):
            said = invalidate(kt)
            assert said.status == 202 and said.json()["outcome"] == "already-minting", said
        assert server.asked <= asked + 1
        assert first(kt).json()["access_token"] == old
        server.down = False
        kt.ok("renew", "api")  # not forced: it is still due, and a person need not wait for the next try
        assert first(kt).json()["access_token"] == server.given[-1] != old
        assert len(server.given) == 2 and len(kt.audit(step="token.invalidated")) == 1


def test_by_command(kt):
    with Server() as server:
        remote(kt, server, mine())
        kt.ok("renew")
        old = kt.ok("token", "api").out.strip()
        # without an agent, on the state itself
        result = kt.ok("token", "api", "--invalidate", "--sha256", sha256(old))
        assert "another token is in place" in result.out and len(server.given) == 2
        assert kt.ok("token", "api").out.strip() == server.given[-1]
        assert kt.json("token", "api", "--invalidate", "--sha256", sha256(old))["outcome"] == "newer"
        assert kt.json("token", "api", "--invalidate")["outcome"] == "damped"
        assert kt.audit(step="token.invalidated")[0]["actor"] == f"uid:{ME}"
        # and with one
        kt.start()
        assert "minted" in kt.ok("token", "api", "--invalidate").out
        assert len(server.given) == 2
        assert kt.run("token", "api", "--invalidate", "--sha256", "xyz").status == 2
        assert kt.run("token", "nothing", "--invalidate").status == 2


def test_by_command_at_an_agent(kt):
    with Server() as server:
        remote(kt, server, mine())
        kt.start()
        old = first(kt).json()["access_token"]
        said = kt.json("token", "api", "--invalidate")
        assert said["outcome"] == "minted" and kt.ok("token", "api").out.strip() == server.given[-1] != old
        assert len(server.given) == 2
        assert ask(kt.socket, "/invalidate", "POST").status == 404
        assert ask(kt.socket, "/invalidate?name=nothing", "POST").status == 404
        assert ask(kt.socket, "/invalidate?sha256=1", "POST").status == 400


def test_a_command_that_can_not_mint_says_so(kt):
    with Server() as server:
        remote(kt, server, mine())
        kt.ok("renew")
        server.down = True
        result = kt.run("token", "api", "--invalidate", "--timeout", "5s")
        assert result.status == 75 and "api" in result.err, result
        server.down = False
        time.sleep(1)
        kt.ok("token", "api", "--invalidate")  # what was left undone is done
        assert len(server.given) == 2


def test_as_many_scopes_as_a_manifest_may_have(kt):
    with Server() as server:
        remote(kt, server)
        kt.manifest("set", server.manifest(), token("api", "remote", scopes=[f"s{i}" for i in range(128)]))
        kt.ok("check")
        kt.ok("renew")
        assert kt.ok("token", "api").out.strip() == server.given[-1]
