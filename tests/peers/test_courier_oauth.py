"""Tokens in the courier alone: what goes over the wire, connections that show certificates, and the second tries."""

import json
import os
import re
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from lib import jose
from lib.agent import BUILD
from lib.certs import key_pem
from lib.oauth import API, BINDINGS, GRANTS, METHODS, OPAQUE, SCOPE, World, x5t
from lib.wait import free_port

DRIVE = BUILD / "tests" / "peers" / "courier_drive"
TYPE = "urn:ietf:params:oauth:token-type:"


@pytest.fixture(scope="session", autouse=True)
def driver(built):
    subprocess.run(["make", "-s", "-C", str(BUILD), "tests/peers/courier_drive"], check=True, timeout=600, capture_output=True)


def run(what, args, options=(), fine=True):
    """The lines that courier_drive has said: [[word, rest]]."""
    argv = [DRIVE, "--room", BUILD / "keyturn-courier", *options, what, *args]
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if fine else 1), done.stdout + done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert World.secret("x")[3:] not in done.stdout + done.stderr, "a secret was told"
    return [[word, rest[0] if rest else ""] for word, *rest in lines]


def pick(lines, word):
    return [rest for first, rest in lines if first == word]


class Client:
    """What a client has: its issuer as the keeper says it, and the options by which courier_drive plays its keeper."""

    def __init__(self, world, name, bound=False, token_url=None):
        self.world, self.name, self.bound = world, name, bound
        method, alg = METHODS[name]
        self.issuer = {"auth": {"method": method, "clientID": world.client_id(name, bound)}, "audienceParam": "resource",
                       "caBundle": world.server.authority.pem().decode(),
                       **({"tokenURL": token_url} if token_url else {"issuer": world.server.issuer_url})}
        self.secret = world.secret(name)
        self.options = []
        if method == "private_key_jwt":
            self.options += ["--assertion-key", world.file(f"{name}.key", key_pem(world.keys[name])), "--alg", alg]
        if bound or "tls" in name:
            self.options += ["--show", world.cert_file, "--show-key", world.key_file]

    def mint(self, request=None, options=(), fine=True, count=1):
        request = {"audiences": [API], "scopes": [SCOPE], **(request or {})}
        return run("mint", [json.dumps(self.issuer), json.dumps(request), self.secret],
                   [*self.options, "--print", "token,refresh", "--count", count, *options], fine)

    def op(self, what, token, fine=True):
        return run(what, [json.dumps(self.issuer), token, self.secret], self.options, fine)


class Own(World):
    def __enter__(self):
        super().__enter__()
        self.cert, self.cert_file, self.key_file = self.certificate()
        self.register_self_signed(self.cert)
        self.dpop = jose.new_key("ES256")
        self.dpop_file = self.file("dpop.key", key_pem(self.dpop))
        return self

    def file(self, name, data):
        path = self.tmp / name
        path.write_bytes(data)
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with Own(tmp_path_factory.mktemp("courier")) as own:
        yield own


@pytest.fixture
def strict(tmp_path):
    with Own(tmp_path, nonce=True, strict=True, tolerance=0) as own:
        yield own


def grant_options(world, name, grant, bound):
    fields = world.grant_fields(name, grant, bound)
    names = {"token_exchange": ("subject_token", "actor_token"), "jwt_bearer": ("assertion",), "refresh_token": ("refresh_token",)}
    return [part for what in names.get(grant, ()) for part in ("--give", f"{what}={fields[what]}")]


# Every method by one grant, every grant by some methods; all of it is in test_oauth_matrix.py, through keyturn as a whole.
PAIRS = [(name, "client_credentials") for name in METHODS if name != "none"] + [
    (name, grant) for name in ("client_secret_basic", "private_key_jwt-ES256", "tls_client_auth", "none") for grant in GRANTS
    if grant != "client_credentials"]


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("name,grant", PAIRS)
def test_matrix(world, name, grant, binding):
    bound, dpop = binding == "certificate", binding == "dpop"
    client = Client(world, name, bound)
    request = {"grantType": grant, "dpop": dpop, "certificate": bound}
    if grant == "token_exchange":
        request.update(actor=True, requestedTokenType=TYPE + "jwt", subjectTokenType=TYPE + "access_token")
    options = grant_options(world, name, grant, bound) + (["--dpop-key", world.dpop_file] if dpop else [])
    lines = client.mint(request, options)
    token, = pick(lines, "token")
    confirmation = {"x5t#S256": x5t(world.cert)} if bound else {"jkt": jose.thumbprint(world.dpop)} if dpop else None
    world.check(world.read_jwt(token), world.client_id(name, bound), grant, confirmation, API)
    done, = pick(lines, "done")
    assert f"type {'DPoP' if dpop else 'Bearer'}," in done
    assert f"issued '{TYPE + 'jwt' if grant == 'token_exchange' else ''}'" in done
    last = world.server.requests()[-1]
    if bound or "tls" in name:
        assert last["port"] == world.server.mtls_port and last["certificate"], "the alias of the metadata is used"
    else:
        assert last["port"] == world.server.port and not last["certificate"]
    saved = pick(lines, "save")
    assert len(saved) == (1 if grant == "refresh_token" else 0)
    words = [word for word, _ in lines]
    if saved:
        assert words.index("save") < words.index("done"), "kept before it is told"


def test_exactly_what_is_needed_is_asked_for(world):
    for name, asked in (("client_secret_basic", ["secret"]), ("private_key_jwt-ES256", ["assertion"]), ("tls_client_auth", ["key"])):
        lines = Client(world, name).mint()
        assert [rest.split()[0] for rest in pick(lines, "ask")] == asked
    lines = Client(world, "private_key_jwt-ES256").mint({"dpop": True, "certificate": True}, [
        "--dpop-key", world.dpop_file, "--show", world.cert_file, "--show-key", world.key_file])
    assert [rest.split()[0] for rest in pick(lines, "ask")] == ["key", "assertion", "proof"]
    assert f"issuer={world.server.issuer_url} " in pick(lines, "ask")[1]


def test_nonce_is_fetched_once_and_remembered(strict):
    client = Client(strict, "private_key_jwt-ES256")
    lines = run("mint", [json.dumps(client.issuer), json.dumps({"dpop": True, "audiences": [API], "scopes": [SCOPE]})],
                [*client.options, "--dpop-key", strict.dpop_file, "--repeat", 3])
    proofs = [rest for rest in pick(lines, "ask") if rest.startswith("proof")]
    assert ["nonce=yes" in rest for rest in proofs] == [False, True, True, True]
    assert len([rest for rest in pick(lines, "ask") if rest.startswith("assertion")]) == 4, "each try has an assertion of its own"
    assert [r["status"] for r in strict.server.requests()] == [400, 200, 200, 200]
    assert len({r["assertion"]["claims"]["jti"] for r in strict.server.requests()}) == 4


def test_a_nonce_that_never_suits_ends_it(strict):
    strict.server.refuse(400, {"DPoP-Nonce": "one"}, body='{"error": "use_dpop_nonce"}')
    client = Client(strict, "client_secret_basic")
    lines = client.mint({"dpop": True}, ["--dpop-key", strict.dpop_file], fine=False)
    assert pick(lines, "error")[0].startswith("later type=use_dpop_nonce")
    assert len(strict.server.requests()) == 2


@pytest.mark.parametrize("off,dpop", [(-90, False), (90, False), (-400, True), (400, True)])  # proofs may be 300 s off there
def test_another_clock(strict, off, dpop):
    """Known by the metadata's Date; or, without metadata, learnt from the refusal, and then remembered."""
    strict.server.hook("config", skew=off, nonce=False)
    name, request, options = ("client_secret_basic", {"dpop": True}, ["--dpop-key", strict.dpop_file]) if dpop else (
        "private_key_jwt-ES256", {}, [])
    what = "proof" if dpop else "assertion"
    lines = Client(strict, name).mint(request, options)
    assert len(strict.server.requests()) == 1
    client = Client(strict, name, token_url=f"{strict.server.issuer_url}/token")
    lines = client.mint(request, [*options, "--repeat", 2])
    skews = [int(re.search(r"skew=(-?\d+)", rest)[1]) for rest in pick(lines, "ask") if rest.startswith(what)]
    assert skews[0] == 0 and len(skews) == 3, lines
    assert all(abs(skew - off) <= 2 for skew in skews[1:])
    assert len(pick(lines, "done")) == 2


def test_a_refusal_without_another_clock_is_final(strict):
    lines = Client(strict, "private_key_jwt-ES256").mint(options=["--clock", "300"], fine=False)
    assert pick(lines, "error")[0].startswith("auth type=invalid_client")
    assert len(strict.server.requests()) == 1, "not hammered"


def test_a_lying_date_costs_one_try(strict):
    strict.server.hook("config", dateSkew=3600)
    client = Client(strict, "private_key_jwt-ES256", token_url=f"{strict.server.issuer_url}/token")
    assert pick(client.mint(), "done"), "an assertion that suits is never tried twice"
    lines = client.mint(options=["--clock", "-300"], fine=False)
    assert pick(lines, "error")[0].startswith("auth type=invalid_client")
    assert len(strict.server.requests()) == 3


def test_revoked_and_introspected(world):
    for name in ("client_secret_basic", "private_key_jwt-ES256", "tls_client_auth", "client_secret_jwt"):
        client = Client(world, name)
        token, = pick(client.mint({"audiences": [OPAQUE]}), "token")
        told = json.loads(pick(client.op("introspect", token), "done")[0].removeprefix("op "))
        assert told["active"] is True and told["client_id"] == name
        assert pick(client.op("revoke", token), "done") == ["op "]
        told = json.loads(pick(client.op("introspect", token), "done")[0].removeprefix("op "))
        assert told == {"active": False}
        port = world.server.mtls_port if "tls" in name else world.server.port
        assert world.server.requests("/token/revocation")[-1]["port"] == port
    client = Client(world, "client_secret_basic", token_url=f"{world.server.issuer_url}/token")
    assert pick(client.op("revoke", "x", fine=False), "error")[0].startswith("unsupported ")
    client = Client(world, "client_secret_basic")
    client.secret = "wrong, but long enough"
    assert pick(client.op("revoke", "x", fine=False), "error")[0].startswith("auth type=invalid_client")


def test_rotated_refresh_token_is_kept_whatever_else_is_wrong(world):
    client = Client(world, "client_secret_basic")
    first = world.server.refresh_token("client_secret_basic", resource=API)
    lines = client.mint({"grantType": "refresh_token"}, ["--give", f"refresh_token={first}", "--save", "no"], fine=False)
    second, = [rest.removeprefix("refresh ") for rest in pick(lines, "save")]
    assert pick(lines, "error")[0].startswith("system ") or "disk is full" in pick(lines, "error")[0]
    # The rotated one, in an answer that is refused: its scope is narrower than what was asked for.
    body = json.dumps({"access_token": "x.y.z", "token_type": "Bearer", "scope": "other", "refresh_token": "r-2"})
    world.server.refuse(200, {"Content-Type": "application/json"}, times=1, body=body)
    lines = client.mint({"grantType": "refresh_token"}, ["--give", f"refresh_token={second}"], fine=False)
    assert pick(lines, "save") == ["refresh r-2"]
    assert pick(lines, "error")[0].startswith("denied ")
    lines = client.mint({"grantType": "refresh_token"}, ["--give", f"refresh_token={second}"])
    assert pick(lines, "save")[0] != f"refresh {second}"


def test_limits_are_told(world):
    client = Client(world, "client_secret_basic")
    cases = [(429, {"Retry-After": "17"}, 17), (503, {"Retry-After": "Thu, 01 Jan 2099 00:00:00 GMT"}, 86400),
             (503, {"X-RateLimit-Reset": "1"}, 1), (429, {"X-Rate-Limit-Reset": "99999999999"}, 86400), (503, {}, 0)]
    for status, headers, seconds in cases:
        world.server.refuse(status, headers, times=1)
        assert pick(client.mint(fine=False), "error")[0].startswith(f"later type= retry_after={seconds} ")
    # An epoch is one of the server's clock.
    world.server.hook("config", dateSkew=5000)
    world.server.refuse(429, {"X-RateLimit-Reset": str(int(time.time()) + 5000 + 60)}, times=1)
    wait = int(re.search(r"retry_after=(\d+)", pick(client.mint(fine=False), "error")[0])[1])
    world.server.hook("config", dateSkew=0)
    assert 55 <= wait <= 61


def test_wrong_certificate(world):
    _, cert, key = world.certificate("stranger.example")
    client = Client(world, "tls_client_auth")
    client.options = ["--show", cert, "--show-key", key]
    assert pick(client.mint(fine=False), "error")[0].startswith("auth type=invalid_client")
    client.options = ["--show", cert, "--show-key", world.key_file]
    assert "does not belong" in pick(client.mint(fine=False), "error")[0]


class Watcher:
    """A TLS server that counts its connections and says which certificate each request came under."""

    def __init__(self, world):
        self.seen, self.connections, self.look = [], 0, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                outer.connections += 1
                self.number = outer.connections
                super().setup()

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if outer.look:
                    outer.look()
                outer.seen.append((self.number, self.connection.getpeercert(True)))
                data = b'{"access_token": "x", "token_type": "Bearer", "expires_in": 60}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(world.server.cert, world.server.key)
        context.load_verify_locations(cadata=world.clients_ca.pem().decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        self.port = free_port()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def memory_of(pid):
    """Everything that a process can write to."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            where, modes, *_ = line.split()
            start, end = (int(part, 16) for part in where.split("-"))
            if modes.startswith("rw") and end - start < 1 << 28:  # a sanitizer maps terabytes
                memory.seek(start)
                try:
                    found.append(memory.read(end - start))
                except OSError:
                    pass
    return b"".join(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="reads another process's memory")
def test_the_key_is_forgotten_after_the_handshake(world):
    """While the server still thinks about the request, nothing of the key is left, in either order of its bytes."""
    key = load_pem_private_key(world.key_file.read_bytes(), None).private_numbers().private_value.to_bytes(32, "big")
    cert = world.cert.public_bytes(Encoding.DER)
    seen = []

    def look():
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if (folder / "comm").read_text() == "keyturn-courier\n" and parent == driver_process.pid:
                    seen.append(memory_of(folder.name))
            except OSError:
                continue

    with Watcher(world) as watcher:
        watcher.look = look
        client = Client(world, "tls_client_auth", token_url=f"https://localhost:{watcher.port}/token")
        argv = [DRIVE, "--room", BUILD / "keyturn-courier", *client.options, "mint", json.dumps(client.issuer), "{}"]
        with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE) as driver_process:
            assert b"done mint" in driver_process.communicate(timeout=60)[0]
    assert len(seen) == 1 and API.encode() not in seen[0]
    assert f"localhost:{watcher.port}".encode() in seen[0], "that is the courier"
    assert watcher.seen[0][1] == cert, "the certificate was shown"
    assert key not in seen[0] and key[::-1] not in seen[0]


def test_connections_belong_to_their_certificate(world):
    """One after the other on one connection with the same certificate; never with another, and never with none."""
    with Watcher(world) as watcher:
        url = f"https://localhost:{watcher.port}/token"
        plain = Client(world, "client_secret_post", token_url=url)
        shown = Client(world, "tls_client_auth", token_url=url)
        for client in (plain, shown):
            watcher.seen.clear()
            run("mint", [json.dumps(client.issuer), "{}", client.secret], [*client.options, "--repeat", 4])
            assert len(watcher.seen) == 4 and len({number for number, _ in watcher.seen}) == 1
            assert {bool(cert) for _, cert in watcher.seen} == {client is shown}
        # In one courier: the same issuer, asked for with and without, and with a certificate that is replaced meanwhile.
        watcher.seen.clear()
        _, second, second_key = world.certificate("client.example")
        turns = ["", f"{world.cert_file},{world.key_file}", f"{second},{second_key}"]
        run("mint", [json.dumps(plain.issuer), "{}", plain.secret],
            [*[part for turn in turns for part in ("--turn", turn)], "--repeat", 9])
        by_connection = {}
        for number, cert in watcher.seen:
            by_connection.setdefault(number, set()).add(cert)
        assert len(watcher.seen) == 9 and len(by_connection) == 3
        assert all(len(certs) == 1 for certs in by_connection.values())
        assert len({cert for _, cert in watcher.seen}) == 3


def test_many_certificates_at_once(world):
    """More than there are sets with CAs: each request shows its own, and none another's."""
    turns = [world.certificate("client.example") for _ in range(40)]
    with Watcher(world) as watcher:
        client = Client(world, "none", token_url=f"https://localhost:{watcher.port}/token")
        options = [part for _, cert, key in turns for part in ("--turn", f"{cert},{key}")]
        run("mint", [json.dumps(client.issuer), "{}"], [*options, "--count", 40, "--repeat", 2])
        assert len(watcher.seen) == 80
        shown = [cert for _, cert in watcher.seen]
        assert {shown.count(cert.public_bytes(Encoding.DER)) for cert, _, _ in turns} == {2}
        assert len({number for number, _ in watcher.seen}) == 40, "the second round is on the connections of the first"
