"""Proofs on ports that begin without TLS: a real PostgreSQL and a real Postfix, stand-ins that speak SMTP, IMAP and LDAP, and hostile ones."""

import glob
import os
import pwd
import shutil
import smtplib
import socket
import ssl
import subprocess
import threading

import pytest

from lib.certs import Authority, key_pem, load
from lib.manifests import ca_issuer, certificate, consumer, projected
from lib.servers import Server, lacking, program
from lib.wait import Process, free_port, until

HOUR = {"duration": "1h", "renewBefore": "20m"}
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
LDAP_REQUEST = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
LDAP_ANSWER = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"


@pytest.fixture
def ca(kt):
    authority = Authority()
    kt.secret("ca-root", tls__crt=authority.pem(), tls__key=key_pem(authority.key))
    return authority


def delivered(kt):
    return load(kt.read("web-tls", "tls.crt"))[0].serial_number


def web(kt, *consumers):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), *consumers)


def prover(port, protocol, **more):
    tls = {"address": f"127.0.0.1:{port}", "serverName": "web.example", **({"startTLS": protocol} if protocol else {})}
    return consumer("server", **{"secrets": ["web-tls"], "within": "15s", "prove": [{"secret": "web-tls", "tls": tls}], **more})


# --- PostgreSQL


class Postgres(Server):
    """A cluster of its own below tmp, run as the user postgres where the tests are root."""

    user = "postgres"

    def __init__(self, tmp):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        self.bin = os.path.dirname(found[-1]) if found else os.path.dirname(os.path.realpath(program("postgres")))
        self.prefix = []
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam(self.user)
            except KeyError:
                lacking("no user postgres")
            self.prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        self.tmp, self.port = tmp / "pg", free_port()
        self.tmp.mkdir()
        self.data, self.pid_file = self.tmp / "data", self.tmp / "pid"
        if self.prefix:
            os.chown(self.tmp, account.pw_uid, account.pw_gid)
        made = subprocess.run([*self.prefix, f"{self.bin}/initdb", "-D", self.data, "-A", "reject", "--no-sync", "-E", "UTF8",
                               "--locale=C"], capture_output=True, text=True, timeout=120, cwd=self.tmp)
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self, **settings):
        values = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.tmp, "fsync": "off",
                  "external_pid_file": self.pid_file, "shared_buffers": "1MB", "max_connections": 10, **settings}
        argv = [x for k, v in values.items() for x in ("-c", f"{k}={v}")]
        self.process = Process([*self.prefix, f"{self.bin}/postgres", "-D", self.data, *argv], self.tmp.parent / "pg.log", cwd=self.tmp)
        self.process.wait_port(self.port)
        until(lambda: "ready to accept connections" in self.process.log(), 20, "PostgreSQL is ready")

    def served(self):
        """Serial of what it serves, asked by this program and not by ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(SSL_REQUEST)
            assert sock.recv(1) == b"S"
            with context.wrap_socket(sock) as tls:
                return load(ssl.DER_cert_to_PEM_cert(tls.getpeercert(True)).encode())[0].serial_number


@pytest.fixture
def postgres(kt):
    server = Postgres(kt.root)
    yield server
    if getattr(server, "process", None):
        server.process.stop(subprocess.signal.SIGINT)


def pg_volume(kt):
    owner = {"owner": Postgres.user, "group": Postgres.user} if os.geteuid() == 0 else {}
    return projected(kt.root / "pg-tls", ("web-tls", {"tls.crt": "server.crt", "tls.key": "server.key"}), **owner)


def test_postgres(kt, ca, postgres):
    """Rotated, told by SIGHUP, proved by what its own port serves after SSLRequest."""
    volume = pg_volume(kt)
    web(kt, consumer("server", volumes=[volume]))
    kt.ok("renew")
    postgres.start(ssl="on", ssl_cert_file=kt.root / "pg-tls" / "server.crt", ssl_key_file=kt.root / "pg-tls" / "server.key")
    assert postgres.served() == delivered(kt)
    web(kt, prover(postgres.port, "postgres", volumes=[volume],
                   notify=[{"signal": {"name": "HUP", "pidFile": str(postgres.pid_file)}}]))
    for _ in range(3):
        before = postgres.served()
        kt.ok("renew", "--force", timeout=60)
        row = kt.credential("web")
        assert row["state"] == "proved" and int(row["serial"], 16) == delivered(kt) != before, row
        assert postgres.served() == delivered(kt)
    assert len({p["serial"] for p in kt.audit(step="proved", outcome="ok", consumer="default/server")}) == 3
    # Not told: the old one is still served, and that is seen.
    web(kt, prover(postgres.port, "postgres", volumes=[volume], within="2s", onFailure="Keep"))
    kt.run("renew", "--force", timeout=60)
    assert "an older set is still used" in kt.run("why", "web").out
    # Without the field the port is no TLS port.
    web(kt, prover(postgres.port, None, volumes=[volume], within="2s", onFailure="Keep"))
    kt.run("renew", "--force", timeout=60)
    assert kt.credential("web")["proved"] is False


def test_postgres_without_tls(kt, ca, postgres):
    postgres.start(ssl="off")
    not_proved(kt, postgres.port, "postgres", "the server has no TLS")


# --- Postfix


class Postfix(Server):
    """An instance of its own below tmp that takes connections and delivers nothing."""

    def __init__(self, tmp, cert, key):
        program("postfix")
        self.tmp, self.port = tmp / "postfix", free_port()
        self.config, self.log_path = self.tmp / "config", self.tmp / "log"
        for folder in (self.tmp, self.config, self.tmp / "queue", self.tmp / "data"):
            folder.mkdir()
        shutil.chown(self.tmp / "data", "postfix")
        values = {"compatibility_level": "3.6", "queue_directory": self.tmp / "queue", "data_directory": self.tmp / "data",
                  "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin", "mail_owner": "postfix",
                  "setgid_group": "postdrop", "myhostname": "mx.example", "mydestination": "", "inet_interfaces": "127.0.0.1",
                  "inet_protocols": "ipv4", "smtpd_tls_cert_file": cert, "smtpd_tls_key_file": key, "smtpd_tls_security_level": "may",
                  "maillog_file": self.log_path, "maillog_file_prefixes": self.tmp, "alias_maps": "", "alias_database": ""}
        (self.config / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in values.items()))
        (self.config / "master.cf").write_text(f"""127.0.0.1:{self.port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
""")

    def start(self):
        checked = subprocess.run([program("postfix"), "-c", self.config, "check"], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        self.process = Process(["/usr/lib/postfix/sbin/master", "-c", self.config, "-d"], self.tmp / "master.log")
        self.process.wait_port(self.port)

    def served(self):
        """Serial of what it serves, asked by Python's SMTP client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as client:
            client.starttls(context=context)
            return load(ssl.DER_cert_to_PEM_cert(client.sock.getpeercert(True)).encode())[0].serial_number


@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix's master wants to be root")
def test_postfix(kt, ca):
    """Rotated, told by `postfix reload`, proved by what its own port serves after STARTTLS."""
    web(kt)
    kt.ok("renew")
    folder = kt.volume("web-tls")
    server = Postfix(kt.root, folder / "tls.crt", folder / "tls.key")
    with server:
        assert server.served() == delivered(kt)
        reload = {"exec": {"argv": [program("postfix"), "-c", str(server.config), "reload"], "user": "root"}}
        web(kt, prover(server.port, "smtp", notify=[reload]))
        for _ in range(2):
            before = server.served()
            kt.ok("renew", "--force", timeout=60)
            row = kt.credential("web")
            assert row["state"] == "proved" and int(row["serial"], 16) == delivered(kt) != before, row
            until(lambda: server.served() == delivered(kt), 15, "what is delivered is served")
    log = server.log_path.read_text()
    assert "reload" in log and "ehlo=1 starttls=1" in log, log


# --- stand-ins


class StandIn:
    """Speaks a script on every connection (bytes: said; a number: so many bytes are read; True: a line is read), then TLS with the
    files as they lie in the volume, unless the script ends with None. A function of the socket does what it likes."""

    def __init__(self, *script, files=None):
        self.script, self.files, self.heard, self.after = script, files, [], []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        socket.create_connection(("127.0.0.1", self.port), 5).close()
        self.thread.join(20)
        self.socket.close()

    def run(self):
        while not self.ended:
            sock, _ = self.socket.accept()
            with sock:
                sock.settimeout(6)
                try:
                    self.play(sock)
                except OSError:
                    pass

    def play(self, sock):
        for step in self.script:
            if step is None:
                self.after.append(sock.recv(4096))
                return
            if callable(step):
                step(sock)
            elif step is True:
                line = b""
                while not line.endswith(b"\n"):
                    got = sock.recv(1)
                    if not got:
                        return
                    line += got
                self.heard.append(line)
            elif isinstance(step, int):
                got = sock.recv(step, socket.MSG_WAITALL)
                self.heard.append(got)
            else:
                sock.sendall(step)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files / "tls.crt", self.files / "tls.key")
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)


GOOD = {
    "smtp": ([b"220-mx.example ESMTP\r\n220 ready\r\n", True, b"250-mx.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n",
              True, b"220 2.0.0 Ready\r\n"], [b"EHLO keyturn\r\n", b"STARTTLS\r\n"]),
    "imap": ([b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", True, b"a OK Begin TLS\r\n"], [b"a STARTTLS\r\n"]),
    "ldap": ([len(LDAP_REQUEST), LDAP_ANSWER], [LDAP_REQUEST]),
    "postgres": ([len(SSL_REQUEST), b"S"], [SSL_REQUEST]),
}


@pytest.mark.parametrize("protocol", sorted(GOOD))
def test_proved(kt, ca, protocol):
    script, heard = GOOD[protocol]
    web(kt)
    kt.ok("renew")
    with StandIn(*script, files=kt.volume("web-tls")) as server:
        web(kt, prover(server.port, protocol))
        kt.ok("renew", "--force", timeout=60)
    assert kt.credential("web")["state"] == "proved"
    assert server.heard[:len(heard)] == heard


def not_proved(kt, port, protocol, text):
    web(kt, prover(port, protocol, within="1s", onFailure="Keep"))
    kt.run("renew", "--force", timeout=60)
    shown = kt.run("why", "web").out
    assert text in shown, shown
    assert kt.credential("web")["proved"] is False


def endless(line):
    def say(sock):
        while True:
            sock.sendall(line * 64)
    return say


def slowly(text):
    """A byte now and then, so that something always comes."""
    def say(sock):
        for byte in text:
            sock.sendall(bytes([byte]))
            threading.Event().wait(0.3)
    return say


EHLO = [b"220 mx\r\n", True, b"250-mx\r\n250 STARTTLS\r\n", True]
HOSTILE = {
    "smtp-endless-greeting": ("smtp", [endless(b"220-welcome\r\n")], "the server talks on"),
    "smtp-endless-line": ("smtp", [endless(b"220 welcome to this server ")], "a line of more than 1000 bytes"),
    "smtp-silent": ("smtp", [lambda sock: sock.recv(1)], "no answer in time"),
    "smtp-trickle": ("smtp", [slowly(b"220-" + b"x" * 60)], "no answer in time"),
    "smtp-hangs-up": ("smtp", [b"220 mx\r\n", True, lambda sock: sock.shutdown(socket.SHUT_RDWR), None], "closed the connection before TLS"),
    "smtp-none": ("smtp", [b"220 mx\r\n", True, b"250 mx\r\n", None], "offers no STARTTLS"),
    "smtp-stripped": ("smtp", [b"220 mx\r\n", True, b"250-mx\r\n250 XXXXXXXA\r\n", None], "offers no STARTTLS"),
    "smtp-refuses": ("smtp", [*EHLO, b"454 4.7.0 TLS not available\x1b[2J\r\n", None], "454 4.7.0 TLS not available"),
    "smtp-injected": ("smtp", [*EHLO, b"220 go\r\n250 injected\r\n", None], "more than it was asked for before TLS: refused"),
    "smtp-guesses": ("smtp", [b"220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n", None], "more than it was asked for before TLS: refused"),
    "smtp-no-tls": ("smtp", [*EHLO, b"220 go\r\n", lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), None], "TLS handshake with"),
    "postgres-no": ("postgres", [8, b"N", None], "the server has no TLS"),
    "postgres-error": ("postgres", [8, b"EFATAL\0look at http://evil.example\0\0", None], "answers SSLRequest with an error"),
    "postgres-injected": ("postgres", [8, b"S" + b"R\0\0\0\x08\0\0\0\0", None], "more than it was asked for before TLS: refused"),
    "postgres-silent": ("postgres", [lambda sock: sock.recv(9)], "no answer in time"),
    "postgres-other": ("postgres", [b"SSH-2.0-OpenSSH\r\n", 8, None], "more than it was asked for before TLS: refused"),
    "postgres-http": ("postgres", [8, b"HTTP/1.1 400 Bad Request\r\n\r\n", None], "this is no PostgreSQL server"),
    "ldap-refuses": ("ldap", [31, LDAP_ANSWER.replace(b"\x0a\x01\x00", b"\x0a\x01\x35"), None], "refuses StartTLS with result 53"),
    "ldap-huge": ("ldap", [31, b"\x30\x84\x7f\xff\xff\xff", None], "this is no LDAP server"),
    "imap-preauth": ("imap", [b"* PREAUTH welcome\r\n", None], "greets with: * PREAUTH"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile(kt, ca, case):
    """Refused with a reason that says it; no TLS, and nothing else, is sent to who broke the order."""
    protocol, script, text = HOSTILE[case]
    web(kt)
    kt.ok("renew")
    with StandIn(*script, files=kt.volume("web-tls")) as server:
        not_proved(kt, server.port, protocol, text)
    if case != "smtp-no-tls":
        assert not any(server.after), server.after
    assert "evil.example" not in kt.run("why", "web").out
    assert "\x1b" not in kt.run("why", "web").out
