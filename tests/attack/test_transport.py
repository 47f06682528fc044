"""Transport rows against each HTTPS client: the ACME directory, a token endpoint, and a Consumer's HTTP calls."""

import contextlib
import datetime
import os
import ssl
import subprocess
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from acme_server import Acme
from hostile import Answer, Server, context, head
from lib.agent import BUILD
from lib.certs import Authority, alternatives, key_pem, pem
from victim import CANARY, EXTRA_KIB, CertificateVictim, TokenVictim, watched

AUTHORITY = Authority("transport")
JSON = "Content-Type: application/json"
KEY = key_pem(AUTHORITY.key)


class Spy(Server):
    """Where a redirect points to: nobody may ever come here."""

    def __init__(self, tls=False):
        super().__init__(lambda request: Answer(200, {"access_token": "stolen", "token_type": "Bearer"}), AUTHORITY, tls=tls)


# --- what a server does in place of an answer


def silent(c):
    c.hold()


def headers_then_silent(c):
    c.send(head(JSON, "Content-Length: 100"))
    c.hold()


def drip(c):
    c.send(head(JSON, "Content-Length: 1000"))
    c.stream(b" ", 1.0)


def drip_headers(c):
    c.send(b"HTTP/1.1 200 OK\r\n")
    c.stream(b"X", 1.0)


def endless_header_line(c):
    c.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    c.stream(b"a" * 16384)


def endless_headers(c):
    c.send(b"HTTP/1.1 200 OK\r\n")
    c.stream(b"X-More: and more\r\n" * 500)


def endless_continue(c):
    c.stream(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)


def endless_body(c):
    c.send(head(JSON))
    c.stream(b" " * 65536)


def endless_chunks(c):
    c.send(head(JSON, "Transfer-Encoding: chunked"))
    c.stream(b"1\r\n \r\n" * 200)


def slow_chunks(c):
    c.send(head(JSON, "Transfer-Encoding: chunked"))
    c.stream(b"1\r\n \r\n", 0.2)


def huge_chunk(c):
    c.send(head(JSON, "Transfer-Encoding: chunked") + b"fffffffffffffff0\r\n")
    c.stream(b" " * 65536)


def bomb(kind):
    import gzip

    data = gzip.compress(b" " * (32 << 20))
    return lambda c: c.send(head(JSON, f"Content-Encoding: {kind}", f"Content-Length: {len(data)}") + data)


def packed(c):
    """What no client asked for with TE: the same bomb by another header."""
    import gzip

    data = gzip.compress(b" " * 60000 + b'{"a":1}')
    c.send(head(JSON, "Transfer-Encoding: gzip, chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))


def until_the_end(c):
    """Only the end of the connection says that this is all, and it comes without close_notify."""
    c.send(head(JSON, "Transfer-Encoding: identity") + b'{"a":1}')
    c.abrupt()


def length(*values):
    def act(c):
        c.send(head(JSON, *(f"Content-Length: {v}" for v in values)) + b'{"a":1}')
        c.sock.close()
    return act


def reset_in_body(c):
    c.send(head(JSON, "Content-Length: 100") + b'{"a"')
    time.sleep(0.05)
    c.reset()


def close_without_a_word(c):
    c.sock.close()


def http09(c):
    c.send(b'{"access_token":"x","token_type":"Bearer"}')
    c.sock.close()


def redirect(status, to):
    return lambda c: c.send(head(f"Location: {to(c)}", "Content-Length: 0", status=f"{status} Elsewhere"))


def loop_to_itself(c):
    return f"{c.server.url}/again"


def control(c):
    c.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: a\x00b\rc\r\nContent-Length: 2\r\n\r\n{}")


def fold(c):
    c.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: a\x01\x1b[31m\r\nContent-Length: 2\r\n\r\n{}")


def page(status, kind="text/html", *more):
    return lambda c: c.send(head(f"Content-Type: {kind}", "Content-Length: 20", *more, status=f"{status} X") + b"<html>log in!</html>")


def h2(frames):
    def act(c):
        c.send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        c.stream(frames, seconds=3)
    return act


SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 500
CONTINUATION = b"\x00\x00\x04\x09\x00\x00\x00\x00\x01abcd" * 500
RST = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08" * 500


# --- what a server shows in its handshake


def certificate(names=("127.0.0.1",), after=1, before=-1, issuer=None, key=None, digest=None, extra=None, self_signed=False):
    """Names that are addresses go in as such; after and before in days."""
    issuer = issuer or AUTHORITY
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject if self_signed else issuer.name)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(now + datetime.timedelta(days=before)).not_valid_after(now + datetime.timedelta(days=after))
               .add_extension(alternatives(names), False))
    for extension in extra or []:
        builder = builder.add_extension(extension, False)
    return pem(builder.sign(key if self_signed else issuer.key, digest or hashes.SHA256())), key_pem(key)


def below_constrained():
    """A CA of ours that may only name *.example, naming an address."""
    import ipaddress

    other = Authority("constrained")
    now = datetime.datetime.utcnow()
    constraint = x509.NameConstraints([x509.DNSName("example"), x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))], None)
    between = (x509.CertificateBuilder().subject_name(other.name).issuer_name(AUTHORITY.name).public_key(other.key.public_key())
               .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
               .not_valid_after(now + datetime.timedelta(days=1)).add_extension(x509.BasicConstraints(True, None), True)
               .add_extension(constraint, True).sign(AUTHORITY.key, hashes.SHA256()))
    cert, key = certificate(issuer=other)
    return cert + pem(between), key


def long_chain(count=100):
    signer, chain = AUTHORITY, b""
    now = datetime.datetime.utcnow()
    for _ in range(count):
        other = Authority("link")
        link = (x509.CertificateBuilder().subject_name(other.name).issuer_name(signer.name).public_key(other.key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=1)).add_extension(x509.BasicConstraints(True, None), True)
                .sign(signer.key, hashes.SHA256()))
        chain = pem(link) + chain
        signer = other
    cert, key = certificate(issuer=signer)
    return cert + chain, key


def show(make, **how):
    return lambda server: setattr(server, "tls", context(*make(), **how))


def megabyte():
    blob = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), os.urandom(1 << 20))
    return certificate(extra=[blob])


def garbage_instead_of_tls(server):
    server.on_accept = lambda c: c.stream(b"HTTP/1.1 200 OK\r\n\r\n", 0.01, 1)


def silent_before_tls(server):
    server.on_accept = lambda c: c.hold()


def truncated(c):
    c.send(head(JSON) + b'{"access_token":"cut","token_type":"Bearer","expires_in":600}')
    c.abrupt()


class Row:
    """act: what happens to the answer; arm: what happens to the server. why: the reason that must be named."""

    def __init__(self, row, name, why, act=None, arm=None, only=None, limit=13.0, evil=False, redirect_to=None):
        self.row, self.name, self.why, self.act, self.arm, self.only = row, name, why, act, arm, only
        self.limit, self.evil, self.redirect_to = limit, evil, redirect_to


TIMEOUT = r"(?i)timed? ?out|timeout|too slow|less than \d+ bytes"
TLS = r"(?i)certificate|SSL|TLS|verif"
MOVED = r"(?i)redirect|HTTP 30\d|302|307|308"

TABLE = [
    Row("T1", "blackhole", TIMEOUT, arm=lambda s: s.blackhole()),
    Row("T2", "silent", TIMEOUT, silent),
    Row("T2", "silent before TLS", TIMEOUT, arm=silent_before_tls),
    Row("T3", "headers then silent", TIMEOUT, headers_then_silent),
    Row("T4", "drip", TIMEOUT, drip),
    Row("T4", "drip in headers", TIMEOUT, drip_headers),
    Row("T5", "endless header line", r"(?i)header", endless_header_line),
    Row("T6", "endless headers", r"(?i)headers", endless_headers),
    Row("T6", "endless 100", r"(?i)headers", endless_continue),
    Row("T8", "endless body", r"(?i)larger", endless_body),
    Row("T9", "endless chunks", r"(?i)larger|timed? ?out", endless_chunks),
    Row("T9", "slow chunks", TIMEOUT, slow_chunks),
    Row("T9", "chunk of 2^60", r"(?i)larger|chunk", huge_chunk),
    Row("T10", "gzip bomb", r"(?i)compress", bomb("gzip")),
    Row("T10", "br", r"(?i)compress", bomb("br")),
    Row("T10", "gzip as Transfer-Encoding", r"Transfer-Encoding", packed),
    Row("T11", "identity", r"Transfer-Encoding", until_the_end),
    Row("T11", "short", r"(?i)transfer closed|length|JSON", length(100)),
    Row("T11", "long", r"(?i)JSON|length|parse", length(3)),
    Row("T11", "negative", r"(?i)length", length(-1)),
    Row("T11", "twice", r"(?i)length", length(7, 8)),
    Row("T11", "1e20", r"(?i)length", length(10 ** 20)),
    Row("T12", "reset in the body", r"(?i)reset|recv|closed|EOF|SSL", reset_in_body),
    Row("T13", "close", r"(?i)empty reply|closed|EOF|SSL", close_without_a_word),
    Row("T14", "HTTP/0.9", r"(?i)HTTP/0\.9", http09),
    Row("T16", "redirect loop", MOVED, redirect(302, loop_to_itself)),
    *(Row("T17", f"302 to {where.partition(':')[0]}", MOVED, redirect(302, lambda c, w=where: w))
      for where in ("file:///etc/passwd", "ftp://127.0.0.1/x", "ldap://127.0.0.1/x", "gopher://127.0.0.1:6379/_FLUSHALL")),
    Row("T18", "307 to another port", MOVED, evil=True, redirect_to=(307, "https")),
    Row("T18", "308 to http", MOVED, evil=True, redirect_to=(308, "http")),
    Row("T19", "NUL and CR in a header", r"(?i)header|nul|control", control),
    Row("T19", "escapes in a header", r"(?i)control", fold),
    Row("T23", "expired", TLS, arm=show(lambda: certificate(after=-0.5))),
    Row("T23", "not yet", TLS, arm=show(lambda: certificate(before=0.5))),
    Row("T23", "wrong name", TLS, arm=show(lambda: certificate(["10.1.2.3", "other.example"]))),
    Row("T23", "wildcard", TLS, arm=show(lambda: certificate(["*.0.0.1", "*"]))),
    Row("T23", "name as DNS", TLS, arm=show(lambda: certificate(["127.0.0.1.example"]))),
    Row("T23", "self-signed", TLS, arm=show(lambda: certificate(self_signed=True))),
    Row("T23", "unknown CA", TLS, arm=show(lambda: certificate(issuer=Authority("stranger")))),
    Row("T23", "name constraint", TLS, arm=show(below_constrained)),
    Row("T23", "SHA-1", TLS, arm=show(lambda: certificate(digest=hashes.SHA1()), low=True)),
    Row("T23", "RSA 1024", TLS, arm=show(lambda: certificate(key=rsa.generate_private_key(65537, 1024)), low=True)),
    Row("T23", "TLS 1.0", TLS, arm=show(certificate, low=True, version=ssl.TLSVersion.TLSv1)),
    Row("T23", "TLS 1.1", TLS, arm=show(certificate, low=True, version=ssl.TLSVersion.TLSv1_1)),
    Row("T23", "chain of 100", TLS, arm=show(long_chain)),
    Row("T23", "certificate of 1 MB", TLS, arm=show(megabyte)),
    Row("T23", "no TLS", TLS, arm=garbage_instead_of_tls),
    Row("T23", "no close_notify", r"may have been cut", truncated),
    Row("T24", "407", r"(?i)407|JSON", page(407, "text/html", "Proxy-Authenticate: Basic realm=x")),
    Row("T25", "SETTINGS flood", r"(?i)HTTP/0\.9|HTTP", h2(SETTINGS)),
    Row("T25", "CONTINUATION flood", r"(?i)HTTP/0\.9|HTTP", h2(CONTINUATION)),
    Row("T25", "rapid RST", r"(?i)HTTP/0\.9|HTTP", h2(RST)),
    Row("T27", "captive portal", r"(?i)text/html|JSON", page(200)),
]


class Exchange:
    """One row against one client."""

    def __init__(self, row, client):
        self.row_of, self.client = row, client
        self.row, self.name = row.row, f"{client} {row.name}"

    def run(self):
        getattr(self, f"run_{self.client}")()

    @contextlib.contextmanager
    def armed(self, server):
        """From here on the server is hostile."""
        row, spy = self.row_of, None
        act = row.act
        server.accepted_before = len(server.requests)
        if row.redirect_to:
            status, scheme = row.redirect_to
            spy = Spy(tls=scheme == "https")
            act = redirect(status, lambda c: f"{spy.url}/token")
        if row.arm:
            row.arm(server)
        if act:
            server.handler = lambda request: act
        try:
            yield
            assert not spy or (not spy.requests and not spy.accepted), f"it followed the redirect: {spy.requests}"
            self.polite(server)
        finally:
            if spy:
                spy.__exit__()

    @staticmethod
    def polite(server):
        for request in server.requests:
            assert "accept-encoding" not in request.headers and "cookie" not in request.headers, request.headers

    def run_directory(self):
        with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
            victim.publish()
            with self.armed(acme.server):
                victim.attack()
                victim.refused(self.row_of.why, peer=victim.peer, limit=self.row_of.limit)

    def run_token(self):
        good = Answer(200, {"access_token": "good-token-" + "x" * 40, "token_type": "Bearer", "expires_in": 3600})
        with Server(lambda request: good, AUTHORITY) as server, TokenVictim(server.url, AUTHORITY) as victim:
            victim.publish()
            with self.armed(server):
                victim.attack()
                victim.refused(self.row_of.why, peer=victim.peer, limit=self.row_of.limit)

    def run_http(self):
        """What a Consumer's notify and prove use, with a token in a header: courier_drive plays the keeper."""
        with Server(lambda request: Answer(200, {"a": 1}), AUTHORITY) as server:
            ca = f"/tmp/kt-attack-{os.getpid()}-{server.port}.pem"
            with open(ca, "wb") as file:
                file.write(AUTHORITY.pem())
            argv = [str(BUILD / "tests/peers/courier_drive"), "--room", str(BUILD / "keyturn-courier"), "--ca", ca, "http", "GET",
                    f"{server.url}/x", ".a", CANARY]
            try:
                status, out, err, _, good = watched(argv, None, "/tmp", 40)
                assert status == 0, out + err
                with self.armed(server):
                    status, out, err, seconds, peak = watched(argv, None, "/tmp", 40)
                    done = [line for line in out.splitlines() if line.startswith(("error", "done"))]
                    if done and done[0].startswith("done http 2"):
                        raise AssertionError(f"it was taken: {done}")
                    assert len(done) == 1, out + err
                    assert seconds <= self.row_of.limit, f"took {seconds:.1f} s"
                    assert peak - good <= EXTRA_KIB, f"{peak - good} KiB more"
                    assert CANARY not in out + err
                    if done[0].startswith("error"):
                        import re
                        assert re.search(self.row_of.why, done[0]), f"the reason is not clear: {done[0]}"
                        assert f"127.0.0.1:{server.port}" in done[0] or "the answer" in done[0], done[0]
            finally:
                os.unlink(ca)


NOT_FOR_HTTP = {"T27"}  # any 2xx with the wished value is an answer there; T24 and redirects give a status

CASES = [Exchange(row, client) for client in ("directory", "token", "http") for row in TABLE
         if not (client == "http" and row.row in NOT_FOR_HTTP)]


@pytest.mark.parametrize("case", CASES)
def test_transport(case, outcome):
    outcome(case)
