"""T26: name servers that lie, say nothing, or say too much. The resolver's file is replaced in a mount namespace of its own."""

import os
import re
import shutil
import socket
import struct
import threading
from pathlib import Path

import pytest

from hostile import Answer, Server
from lib.agent import BUILD
from lib.certs import Authority
from lib.wait import free_port
from victim import watched

AUTHORITY = Authority("names")
HOST = "as.attack.example"
ROOT = os.geteuid() == 0 and shutil.which("unshare")


class NameServer:
    """Answers A with the given addresses (more over TCP where they don't fit), everything else with nothing."""

    def __init__(self, where, addresses=(), code=0, silent=False):
        self.addresses, self.code, self.silent = addresses, code, silent
        self.udp, self.tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.udp.bind((where, 53))
        self.tcp.bind((where, 53))
        self.tcp.listen(16)
        threading.Thread(target=self._datagrams, daemon=True).start()
        threading.Thread(target=self._streams, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in (self.udp, self.tcp):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def reply(self, query, most):
        end = 12
        while query[end]:
            end += query[end] + 1
        question = query[12:end + 5]
        kind = struct.unpack(">H", query[end + 1:end + 3])[0]
        addresses = self.addresses if kind == 1 and not self.code else ()
        records = b"".join(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(a) for a in addresses)
        cut = len(records) + len(question) + 12 > most
        flags = 0x8180 | self.code | (0x0200 if cut else 0)
        return query[:2] + struct.pack(">HHHHH", flags, 1, 0 if cut else len(addresses), 0, 0) + question + (b"" if cut else records)

    def _datagrams(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(4096)
                if not self.silent:
                    self.udp.sendto(self.reply(query, 512), peer)
            except (OSError, IndexError, struct.error):
                return

    def _streams(self):
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            sock.settimeout(3)
            try:
                while True:
                    size = struct.unpack(">H", sock.recv(2))[0]
                    answer = self.reply(sock.recv(size), 65535)
                    sock.sendall(struct.pack(">H", len(answer)) + answer)
            except (OSError, IndexError, struct.error):
                sock.close()


class Names:
    def __init__(self, name, where, why, **answers):
        self.row, self.name, self.where, self.why, self.answers = "T26", name, where, why, answers

    def run(self):
        folder = Path(f"/tmp/kt-names-{os.getpid()}-{self.where}")
        folder.mkdir()
        try:
            (folder / "resolv.conf").write_text(f"nameserver {self.where}\noptions timeout:30 attempts:1\n")
            (folder / "ca.pem").write_bytes(AUTHORITY.pem())
            port = free_port()
            inner = (f'mount --bind {folder}/resolv.conf "$(readlink -f /etc/resolv.conf)" && exec {BUILD}/tests/peers/courier_drive '
                     f'--room {BUILD}/keyturn-courier --ca {folder}/ca.pem http GET https://{HOST}:{port}/x .a')
            with NameServer(self.where, **self.answers), Server(lambda r: Answer(200, {"a": 1}), AUTHORITY, names=(HOST,)) as server:
                inner = inner.replace(f":{port}/", f":{server.port}/")
                status, out, err, seconds, peak = watched(["unshare", "-m", "sh", "-c", inner], None, "/tmp", 60)
                said = [line for line in out.splitlines() if line.startswith(("error", "done"))]
                assert len(said) == 1 and said[0].startswith("error"), out + err
                assert re.search(self.why, said[0]) and HOST in said[0], said
                assert not server.accepted, "it connected to this host"
                assert seconds < 13, f"{seconds:.1f} s"
                assert peak < 48 * 1024, f"{peak} KiB"
                assert status == 1
        finally:
            shutil.rmtree(folder)


CASES = [
    Names("NXDOMAIN", "127.0.53.1", r"(?i)looking up|resolv", code=3),
    Names("SERVFAIL", "127.0.53.2", r"(?i)looking up|resolv", code=2),
    Names("silent", "127.0.53.3", r"(?i)tim|looking up", silent=True),
    Names("no address", "127.0.53.4", r"(?i)looking up|resolv"),
    Names("loopback", "127.0.53.5", r"(?i)this host|loopback|names", addresses=["127.0.0.1"]),
    Names("link-local", "127.0.53.6", r"(?i)this host|link|names", addresses=["169.254.169.254"]),
    Names("loopback among others", "127.0.53.7", r"(?i)this host|loopback|names", addresses=["192.0.2.1", "127.0.0.1"]),
    Names("this network", "127.0.53.8", r"(?i)this host|address|names", addresses=["0.0.0.0"]),
    Names("1,000 addresses of loopback", "127.0.53.9", r"(?i)this host|loopback|names", addresses=[f"127.0.{i // 250}.{i % 250 + 1}" for i in range(1000)]),
]


@pytest.mark.skipif(not ROOT, reason="needs root for a mount namespace")
@pytest.mark.parametrize("case", CASES)
def test_names(case, outcome):
    outcome(case)
