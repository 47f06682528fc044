"""The desk under strangers: thousands of connections, slow ones, paths that lead out; it goes on answering others."""

import http.client
import os
import resource
import socket
import ssl
import threading
import time

import pytest

from acme_server import Acme
from lib.agent import Keyturn
from lib.certs import Authority
from lib.manifests import certificate
from lib.wait import descendants, free_port, until
from victim import _status_kib

SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"}, "spec": {"selfSigned": {}}}
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"


class Desk:
    def __init__(self):
        self.kt = Keyturn()
        self.metrics, self.acme, self.jwks, self.tls = (free_port() for _ in range(4))
        self.kt.agent_settings(listeners={"metrics": f"127.0.0.1:{self.metrics}", "http01": f"127.0.0.1:{self.acme}",
                                          "jwks": f"127.0.0.1:{self.jwks}", "tlsAlpn01": f"127.0.0.1:{self.tls}"})
        self.kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]))
        self.agent = self.kt.start()
        until(lambda: self.get(self.metrics, "/livez") == 200, 10, "the desk answers")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kt.__exit__()

    @staticmethod
    def get(port, path, source=None, timeout=5):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout, source_address=source and (source, 0))
        try:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", "localhost")
            connection.endheaders()
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def pid(self):
        for pid, name in descendants(self.agent.pid).items():
            if name.startswith("keyturn-desk"):
                return pid
        return 0


@pytest.fixture(scope="module")
def desk():
    with Desk() as it:
        yield it


@pytest.mark.rows("A30")
def test_ten_thousand_connections(desk):
    """Opened as fast as they go, each with half a request: memory stays, and another address is answered meanwhile."""
    pid, began = desk.pid(), time.monotonic()
    before = _status_kib(pid, "VmHWM")
    limit = min(3000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    held, opened = [], 0
    answers = []
    while opened < 10000 and time.monotonic() - began < 150:  # seconds on a machine with nothing else to do
        sock = socket.socket()
        sock.settimeout(2)
        try:
            sock.connect(("127.0.0.1", desk.acme))
            sock.send(f"GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: a\r\nX-".encode())
        except OSError:
            pass
        opened += 1
        held.append(sock)
        if len(held) > limit:
            held.pop(0).close()
        if opened % 2000 == 0:
            answers.append(desk.get(desk.acme, "/", source="127.0.0.2"))
            answers.append(desk.get(desk.metrics, "/livez", source="127.0.0.3"))
    for sock in held:
        sock.close()
    assert opened == 10000
    assert answers.count(0) == 0, f"others were not answered: {answers}"
    assert desk.pid() == pid, "the desk died"
    assert _status_kib(pid, "VmHWM") - before < 32 * 1024
    assert len(os.listdir(f"/proc/{pid}/fd")) < 500


@pytest.mark.rows("A30")
def test_slowloris(desk):
    """A byte a second: cut off after 10 s, others are answered."""
    socks = [socket.create_connection(("127.0.0.1", desk.acme), source_address=("127.0.0.9", 0)) for _ in range(60)]
    for sock in socks:
        sock.setblocking(False)
        sock.send(b"GET / HTTP/1.1\r\n")
    began, closed = time.monotonic(), 0.0
    while time.monotonic() - began < 30 and not closed:
        for sock in socks:
            try:
                sock.send(b"X")
            except OSError:
                closed = time.monotonic() - began
        if time.monotonic() - began < 8:
            assert desk.get(desk.acme, "/", source="127.0.0.8") == 404
        time.sleep(1)
    for sock in socks:
        sock.close()
    assert 5 < closed < 20, f"cut off after {closed:.1f} s"


PATHS = ["/.well-known/acme-challenge/../../../../etc/passwd", "/../../etc/passwd", "/.well-known/acme-challenge/%2e%2e/%2e%2e/etc/passwd",
         "/.well-known/acme-challenge/..%2f..%2fetc%2fpasswd", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/" + "a" * 600,
         "//etc/passwd", "/%00", "/.well-known/acme-challenge/%00", "/.well-known/acme-challenge/..\\..\\x", "/?x=/etc/passwd",
         "http://127.0.0.1/.well-known/acme-challenge/x", "*", "/.well-known/acme-challenge/" + TOKEN + "/..", "/metrics", "/status.json"]


@pytest.mark.rows("A30")
@pytest.mark.parametrize("listener", ["acme", "jwks"])
@pytest.mark.parametrize("path", PATHS)
def test_paths_that_lead_out(desk, path, listener):
    with socket.create_connection(("127.0.0.1", getattr(desk, listener)), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while True:
            got = sock.recv(65536)
            if not got:
                break
            data += got
    assert b"root:" not in data
    status = int(data.split()[1]) if data else 0
    assert status in (0, 400, 404, 414), data[:200]


BAD = {
    "a body of 2^63": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nx",
    "smuggling": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n",
    "endless headers": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50000 + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 5000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "NULs": b"\0" * 50000,
    "no HTTP": b"EHLO a\r\nMAIL FROM:<x>\r\n",
}


@pytest.mark.rows("A30")
@pytest.mark.parametrize("name", BAD)
def test_requests_that_are_none(desk, name):
    pid = desk.pid()
    with socket.create_connection(("127.0.0.1", desk.acme), timeout=12) as sock:
        try:
            sock.sendall(BAD[name])
            sock.shutdown(socket.SHUT_WR)
            data = sock.recv(65536)
        except OSError:
            data = b""
    assert not data or data.split()[1] in (b"400", b"404", b"405", b"411", b"413", b"414", b"431", b"505", b"501"), data[:200]
    assert desk.get(desk.metrics, "/livez") == 200 and desk.pid() == pid


@pytest.mark.rows("A30")
def test_many_pages_at_once(desk):
    """Two hundred readers of /metrics do not become two hundred questions to the keeper, nor stop it."""
    answers = []
    threads = [threading.Thread(target=lambda i=i: answers.append(desk.get(desk.metrics, "/metrics", f"127.0.1.{i % 200 + 1}", 8)))
               for i in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers.count(200) >= 190, {a: answers.count(a) for a in set(answers)}
    desk.kt.ok("status")


# --- the same for tls-alpn-01


def hello(name="x.example", alpn=("acme-tls/1",)):
    """The bytes of a client's first message."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = hello()
UNKNOWN_NAME = b"\x15\x03\x03\x00\x02\x02\x70"  # the alert for a name that no challenge waits for


def alert(port, source, data=None, timeout=6):
    """What is answered to a whole hello, from this address."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0)) as sock:
            sock.sendall(data or HELLO)
            return sock.recv(4096)
    except OSError:
        return b""


def test_a_hello_is_answered(desk):
    assert alert(desk.tls, "127.0.0.1") == UNKNOWN_NAME


def soon(ask, wanted):
    """Five times at most: a machine that is busy with the flood itself may be late."""
    for _ in range(5):
        try:
            answer = ask()
        except OSError as error:
            answer = error
        if answer == wanted:
            break
        time.sleep(0.4)
    return answer


@pytest.mark.rows("A30")
def test_ten_thousand_half_hellos(desk):
    """As fast as they go, each with half a hello: memory stays, and another address is answered meanwhile."""
    pid, began = desk.pid(), time.monotonic()
    before = _status_kib(pid, "VmHWM")
    limit = min(3000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    held, opened, answers = [], 0, []
    while opened < 10000 and time.monotonic() - began < 150:
        sock = socket.socket()
        sock.settimeout(2)
        try:
            sock.bind((f"127.0.2.{opened % 2 + 1}", 0))
            sock.connect(("127.0.0.1", desk.tls))
            sock.send(HELLO[:len(HELLO) // 2])
        except OSError:
            pass
        opened += 1
        held.append(sock)
        if len(held) > limit:
            held.pop(0).close()
        if opened % 2000 == 0:
            answers.append(soon(lambda: alert(desk.tls, "127.0.2.9"), UNKNOWN_NAME))
            answers.append(soon(lambda: desk.get(desk.metrics, "/livez", source="127.0.2.9"), 200))
    for sock in held:
        sock.close()
    assert opened == 10000
    assert all(a in (UNKNOWN_NAME, 200) for a in answers), f"others were not answered: {answers}"
    assert desk.pid() == pid, "the desk died"
    assert _status_kib(pid, "VmHWM") - before < 32 * 1024
    assert len(os.listdir(f"/proc/{pid}/fd")) < 500


@pytest.mark.rows("A30")
def test_slow_hellos(desk):
    """A byte a second on every place: cut off, and others are answered meanwhile."""
    socks = [socket.create_connection(("127.0.0.1", desk.tls), source_address=(f"127.0.3.{i % 4 + 1}", 0)) for i in range(100)]
    for sock in socks:
        sock.setblocking(False)
        sock.send(HELLO[:5])
    began, at, closed = time.monotonic(), 5, set()
    while time.monotonic() - began < 30 and len(closed) < len(socks):
        for sock in socks:
            if sock in closed:
                continue
            try:
                sock.send(HELLO[at:at + 1])
                if sock.recv(4096) == b"":
                    closed.add(sock)
            except BlockingIOError:
                pass
            except OSError:
                closed.add(sock)
        at += 1
        assert alert(desk.tls, "127.0.3.9") == UNKNOWN_NAME
        time.sleep(1)
    for sock in socks:
        sock.close()
    assert len(closed) == len(socks), "all are cut off"


NO_HELLO = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "NULs": b"\0" * 20000,
    "an endless record": b"\x16\x03\x01\xff\xff" + b"\x01" * 70000,
    "a hello of 16 MiB": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03" + b"\0" * 16373 + b"\x16\x03\x01\x40\x00" + b"\0" * 16384,
    "empty records": b"\x16\x03\x01\x00\x00" * 4000,
    "alerts": b"\x15\x03\x01\x00\x02\x01\x00" * 3000,
    "application data first": b"\x17\x03\x03\x00\x05hello",
    "SSLv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x07\x00\xc0" * 7 + b"\x11" * 16,
    "a name with a NUL": HELLO.replace(b"x.example", b"x\0example"),
    "a PROXY header": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n" + HELLO,
    "another protocol": hello(alpn=("h2", "http/1.1")),
    "one more protocol": hello(alpn=("acme-tls/1", "h2")),
    "an endless name": HELLO[:60] + b"a" * 400,
}


@pytest.mark.rows("A30")
@pytest.mark.parametrize("name", NO_HELLO)
def test_hellos_that_are_none(desk, name):
    pid = desk.pid()
    with socket.create_connection(("127.0.0.1", desk.tls), timeout=14) as sock:
        data = b""
        try:
            sock.sendall(NO_HELLO[name])
            while True:
                got = sock.recv(4096)
                if not got:
                    break
                data += got
        except ConnectionError:
            pass
    assert not data or data[0] == 0x15, f"nothing but an alert: {data[:64]}"
    assert alert(desk.tls, "127.0.0.1") == UNKNOWN_NAME and desk.pid() == pid


@pytest.mark.rows("A30")
def test_refused_hellos_cost_little(desk):
    """Two thousand whole hellos for names that nobody waits for: no key is used, no memory stays."""
    pid = desk.pid()
    before = _status_kib(pid, "VmRSS")
    for i in range(2000):
        assert alert(desk.tls, f"127.0.4.{i % 200 + 1}") == UNKNOWN_NAME
    assert desk.pid() == pid and _status_kib(pid, "VmRSS") - before < 8 * 1024
