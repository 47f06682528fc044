"""A server on loopback that behaves well until it is told which row of the attack table to misbehave in."""

import json
import socket
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lib.certs import key_pem, pem

HOLD = 25.0  # seconds that a silent peer stays silent: longer than any client may wait
STREAM = 25.0  # seconds that an endless one goes on


@dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: bytes
    at: float = field(default_factory=time.monotonic)

    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: object = b""
    type: str = "application/json"
    headers: list = field(default_factory=list)

    def raw(self):
        body = self.body if isinstance(self.body, bytes) else (
            self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()
        head = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(body)}"]
        if self.type:
            head.append(f"Content-Type: {self.type}")
        head += [f"{k}: {v}" for k, v in self.headers]
        return "\r\n".join(head).encode("latin1") + b"\r\n\r\n" + body


def head(*lines, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines]).encode("latin1") + b"\r\n\r\n"


def context(cert_pem, private_pem, low=False, version=None):
    """A server's context from PEM texts; low: as weak as OpenSSL still allows."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if low:
        ctx.set_ciphers("ALL:@SECLEVEL=0")
        ctx.minimum_version = ssl.TLSVersion.TLSv1
    if version:
        ctx.minimum_version = version
        ctx.maximum_version = version
    with tempfile.TemporaryDirectory() as folder:
        cert, private = Path(folder, "c"), Path(folder, "k")
        cert.write_bytes(cert_pem)
        private.write_bytes(private_pem)
        ctx.load_cert_chain(cert, private)
    return ctx


class Connection:
    """What a misbehaving function gets: bytes out, silence, an end with or without manners."""

    def __init__(self, sock, server):
        self.sock, self.server = sock, server

    def send(self, data):
        self.sock.sendall(data)

    def hold(self, seconds=HOLD):
        """Silent until the client goes away."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
        except (OSError, ValueError):
            pass

    def stream(self, chunk, pause=0.0, seconds=STREAM):
        """The same bytes again and again until the client has had enough."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(chunk)
            self.server.streamed += len(chunk)
            if pause:
                time.sleep(pause)

    def reset(self):
        raw = self.sock
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        raw.close()

    def abrupt(self):
        """TCP ends without TLS's close_notify."""
        fd = self.sock.detach()
        socket.socket(fileno=fd).close()


class Server:
    """handler(request) -> Answer, or a function of the Connection that does what it likes."""

    def __init__(self, handler, authority=None, names=("127.0.0.1", "localhost"), tls=True):
        self.handler = handler
        self.tls = None
        if tls:
            cert, key = authority.issue(*names)
            self.tls = context(pem(cert), key_pem(key))
        self.on_accept = None  # function of the raw Connection, before TLS
        self.requests = []
        self.accepted = 0
        self.streamed = 0
        self.longest = 0.0
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.fillers = []
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True
        for filler in self.fillers:
            filler.close()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def blackhole(self):
        """Nobody accepts any more and the backlog is full: SYNs are dropped."""
        self.closed = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # takes the accepting thread out
        time.sleep(0.05)
        self.socket.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    def _accept(self):
        while not self.closed:
            try:
                raw, _ = self.socket.accept()
            except OSError:
                return
            if self.closed:
                raw.close()
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        began = time.monotonic()
        sock = raw
        try:
            raw.settimeout(HOLD)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.on_accept:
                self.on_accept(Connection(raw, self))
                return
            if self.tls:
                sock = self.tls.wrap_socket(raw, server_side=True)
            while True:
                request = self._read(sock)
                if not request:
                    return
                self.requests.append(request)
                answer = self.handler(request)
                if callable(answer):
                    answer(Connection(sock, self))
                    return
                sock.sendall(answer.raw())
        except (OSError, ValueError):
            pass
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
            try:
                sock.close()
            except OSError:
                pass

    @staticmethod
    def _read(sock):
        data = b""
        while b"\r\n\r\n" not in data:
            got = sock.recv(65536)
            if not got or len(data) > 1 << 20:
                return None
            data += got
        top, _, body = data.partition(b"\r\n\r\n")
        lines = top.decode("latin1").split("\r\n")
        method, path = lines[0].split(" ")[:2]
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        want = int(headers.get("content-length", 0))
        while len(body) < want:
            got = sock.recv(65536)
            if not got:
                return None
            body += got
        return Request(method, path, headers, body)
