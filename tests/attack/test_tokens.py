"""The token socket under hostile local users: slow, huge, many, malformed; others are answered, and nothing leaks."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lib.agent import Keyturn
from lib.asking import ask, ask_as
from lib.manifests import consumer, token
from lib.wait import descendants, until
from victim import _status_kib

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
LOCAL = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "minter"},
         "spec": {"local": {"issuerURL": "https://minter.example", "publishAhead": "0s"}}}
API = "/v1/token/default/api-token"
FRIEND, FOE = 4301, 4302


class Agent:
    def __init__(self):
        self.kt = Keyturn()
        self.path = self.kt.root / "tokens.sock"
        self.kt.agent_settings(listeners={"tokens": f"unix:{self.path}"})
        self.kt.manifest("set", LOCAL, token("api", "minter", audiences=["a"], outputs=["raw"]),
                         consumer("shop", secrets=["api-token"], socket={"users": [str(FRIEND)]}))
        self.agent = self.kt.start("-vv")
        self.token = until(lambda: (s := self.friend(Accept="text/plain")).status == 200 and s.body, 20, "a token is there")

    def friend(self, url=API, method="GET", **headers):
        return ask_as(FRIEND, FRIEND, self.path, url, method, **headers)

    def pid(self, room="desk"):
        for pid, name in descendants(self.agent.pid).items():
            if name.startswith(f"keyturn-{room}"):
                return pid
        return 0

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        sock.connect(str(self.path))
        return sock

    def raw(self, data):
        """What comes back on a connection of its own."""
        got = b""
        with self.connect() as sock:
            try:
                sock.sendall(data)
                while piece := sock.recv(65536):
                    got += piece
            except OSError:
                pass
        return got


@pytest.fixture(scope="module")
def it():
    agent = Agent()
    with agent.kt:
        yield agent
        text = agent.agent.err() + open(agent.kt.state / "state.db", "rb").read().decode("latin-1")
        assert agent.token not in text, "the token is in the log or in the clear in the state"


def lines(head, *more):
    return "\r\n".join([head, "Host: localhost", "Connection: close", *more, "", ""]).encode()


PATHS = ["/", "/v1", "/v1/token", "/v1/token/", "/v1/token//", "/v1/token/default", "/v1/token/default/", "/v1/token//api-token",
         "/v1/token/default/api-token/", "/v1/token/default/api-token/x", "/v1/token/default/../default/api-token", "/v1/token/default/%61pi-token",
         "/v1/token/default/api%2dtoken", "/v1/token/default/api-token%00", "/v1/token/DEFAULT/API-TOKEN", "/v1/token/default/" + "a" * 300,
         "/v1/token/default/" + "a" * 4000, "/v1/token/'or'1'='1/x", "/v1/token/default/api-token;x", "/V1/token/default/api-token", "*",
         "http://localhost/v1/token/default/api-token", "/metrics", "/status.json", "/quit", "/v1/token/default/*", "/v1/token/default/\xff"]


@pytest.mark.rows("A30")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths(it, path, method):
    """By a stranger, as root is one here: nothing but a refusal."""
    data = it.raw(lines(f"{method} {path} HTTP/1.1"))
    assert it.token.encode() not in data
    assert data == b"" or int(data.split()[1]) in (400, 403, 404, 405, 414, 431), data[:200]


BAD = {
    "a body": lines(f"GET {API} HTTP/1.1", "Content-Length: 5") + b"hello",
    "a body of 2^63": lines(f"POST {API}/invalidate HTTP/1.1", "Content-Length: 9223372036854775807"),
    "chunks": lines(f"POST {API}/invalidate HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "smuggling": lines(f"POST {API}/invalidate HTTP/1.1", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n",
    "endless headers": f"GET {API} HTTP/1.1\r\n".encode() + b"a: b\r\n" * 50000 + b"\r\n",
    "a huge Accept": lines(f"GET {API} HTTP/1.1", "Accept: " + "a/b," * 20000),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 5000,
    "NULs": b"\0" * 50000,
    "DELETE": lines(f"DELETE {API} HTTP/1.1"),
    "a GET that invalidates": lines(f"GET {API}/invalidate HTTP/1.1"),
    "a POST for the token": lines(f"POST {API} HTTP/1.1"),
    "a bad hash": lines(f"POST {API}/invalidate?sha256={'z' * 64} HTTP/1.1"),
    "a long hash": lines(f"POST {API}/invalidate?sha256={'a' * 5000} HTTP/1.1"),
    "many arguments": lines(f"POST {API}/invalidate?{'&'.join('a=b' for _ in range(2000))} HTTP/1.1"),
}


@pytest.mark.rows("A30")
@pytest.mark.parametrize("name", BAD)
def test_requests_that_are_none(it, name):
    pid, keeper = it.pid(), it.pid("keeper")
    data = it.raw(BAD[name])
    assert it.token.encode() not in data
    assert data == b"" or int(data.split()[1]) in (400, 403, 404, 405, 413, 414, 431, 505), data[:200]
    assert it.friend(Accept="text/plain").body == it.token and (it.pid(), it.pid("keeper")) == (pid, keeper)
    assert not it.kt.audit(step="token.invalidated")


HOLD = r"""
import os, socket, sys, time
held = []
for i in range(int(sys.argv[2])):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    try:
        sock.connect(sys.argv[1])
        sock.send(b"GET /v1/token/default/api-token HTTP/1.1\r\nHost: a\r\nX-")
        held.append(sock)
    except OSError:
        sock.close()
print(len(held), flush=True)
end = time.monotonic() + float(sys.argv[3])
closed = 0
while time.monotonic() < end:
    time.sleep(0.2)
    for sock in list(held):
        sock.setblocking(False)
        try:
            sock.send(b"X")
            if sock.recv(1) == b"":
                raise OSError
        except BlockingIOError:
            pass
        except OSError:
            held.remove(sock)
            closed += 1
print(closed, len(held), flush=True)
"""


def hold(it, uid, count, seconds):
    return subprocess.Popen([sys.executable, "-I", "-c", HOLD, str(it.path), str(count), str(seconds)], user=uid, group=uid,
                            extra_groups=[], stdout=subprocess.PIPE, text=True, cwd="/")


@pytest.mark.rows("A30")
def test_a_user_that_holds_connections(it):
    """Half requests, a byte at a time: a user has 32 at most, each is cut off, and another user is answered meanwhile."""
    before = _status_kib(it.pid(), "VmHWM")
    children = [hold(it, FOE + i, 400, 16) for i in range(3)]
    for child in children:
        child.stdout.readline()
    most = 0
    for _ in range(8):
        began = time.monotonic()
        assert it.friend(Accept="text/plain").body == it.token
        assert time.monotonic() - began < 10
        most = max(most, len(os.listdir(f"/proc/{it.pid()}/fd")))
        time.sleep(0.5)
    for child in children:
        closed, left = map(int, child.communicate(timeout=30)[0].split()[-2:])
        assert left == 0 and closed > 0
    assert most < 3 * 32 + 60, f"{most} descriptors"
    assert _status_kib(it.pid(), "VmHWM") - before < max(8192, before)  # sanitizers keep what was freed for a while
    until(lambda: len(os.listdir(f"/proc/{it.pid()}/fd")) < 60, 15, "the connections are gone")


@pytest.mark.rows("A30")
def test_a_flood_of_questions(it):
    """Strangers ask without end: who may is answered in time, and the audit trail does not grow with them."""
    stop = time.monotonic() + 4
    counts = [0] * 6

    def flood(i):
        while time.monotonic() < stop:
            assert ask(it.path, f"/v1/token/default/x{counts[i] % 100}").status in (403, 503)
            counts[i] += 1

    threads = [threading.Thread(target=flood, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    while time.monotonic() < stop:
        began = time.monotonic()
        assert it.friend(Accept="text/plain").body == it.token
        assert time.monotonic() - began < 10
    for thread in threads:
        thread.join()
    assert sum(counts) > 100
    assert len(it.kt.audit(step="token.asked", actor="uid:0")) == 1


@pytest.mark.rows("A30")
def test_who_never_reads(it):
    """Pipelined requests whose answers nobody takes: bounded, and cut off."""
    child = subprocess.Popen([sys.executable, "-I", "-c", r"""
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(14)
sock.connect(sys.argv[1])
one = b"GET /v1/token/default/api-token HTTP/1.1\r\nHost: a\r\n\r\n"
sent = 0
try:
    while sent < 64 << 20:
        sent += sock.send(one * 1000)
except OSError:
    pass
print(sent)
"""[1:], str(it.path)], user=FRIEND, group=FRIEND, extra_groups=[], stdout=subprocess.PIPE, text=True, cwd="/")
    before = _status_kib(it.pid(), "VmRSS")
    assert int(child.communicate(timeout=60)[0]) < 64 << 20
    assert _status_kib(it.pid(), "VmRSS") - before < max(8192, before)
    assert it.friend(Accept="text/plain").body == it.token


@pytest.mark.rows("A30")
@pytest.mark.parametrize("room", ["desk", "keeper"])
def test_a_room_that_is_killed(it, room):
    """While questions are under way: each is answered or cut off, never with another one's answer; then all goes on."""
    seen, stop = [], threading.Event()

    def go_on():
        while not stop.is_set():
            try:
                said = ask(it.path, "/v1/token/default/nothing")
                seen.append((said.status, it.token in said.body))
            except OSError:
                seen.append((0, False))

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    os.kill(it.pid(room), signal.SIGKILL)
    until(lambda: it.friend(Accept="text/plain").status == 200, 20, "it is answered again")
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in seen} <= {0, 403, 503} and not any(leak for _, leak in seen), set(seen)


@pytest.mark.rows("A30")
def test_the_answer_names_nothing(it):
    """A refusal holds no name, no path and no version."""
    data = it.raw(lines(f"GET {API} HTTP/1.1")).decode()
    assert data.startswith("HTTP/1.1 403")
    assert not re.search(r"api-token|shop|minter|Server:|microhttpd|/dev/shm", data)
