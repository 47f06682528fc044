"""Challenges handed over: haproxy and nginx own the ports, and pass ACME's part to the agent's Unix sockets."""

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from lib.certs import Authority, check_set
from lib.manifests import certificate
from lib.servers import Pebble, Server, fetch, lacking, no_checks, program
from lib.wait import Process, free_port, until

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@pytest.fixture
def quick(tmp_path):
    with Pebble(tmp_path, sleep=False) as server:
        yield server


@pytest.fixture
def site(tmp_path):
    """Certificate and key of the site that owns the port, in one file."""
    pem = tmp_path / "site.pem"
    cert, key, _ = Authority("site").write(tmp_path, "localhost")
    pem.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    pem.chmod(0o644)
    return pem


class Front(Server):
    """A proxy with a configuration of its own."""

    def __init__(self, folder, ports, config, argv):
        self.folder, self.ports, self.argv = Path(folder), ports, argv
        self.file = self.folder / "front.conf"
        self.file.write_text(config)

    def start(self):
        self.process = Process([str(a).replace("CONFIG", str(self.file)) for a in self.argv], self.folder / "front.log")
        for port in self.ports:
            self.process.wait_port(port)


def haproxy(folder, http, tls, site, kt, proxy="send-proxy-v2"):
    """As docs/challenges.md has it."""
    return Front(folder, [http, tls], f"""global
	maxconn 500
defaults
	timeout connect 5s
	timeout client 10s
	timeout server 10s
frontend http
	mode http
	bind 127.0.0.1:{http}
	acl acme path_beg /.well-known/acme-challenge/
	use_backend acme-http if acme
	http-request return status 200 content-type text/plain string site unless acme
backend acme-http
	mode http
	server keyturn unix@{kt.root}/http01.sock
frontend tls
	mode tcp
	bind 127.0.0.1:{tls}
	tcp-request inspect-delay 5s
	tcp-request content accept if {{ req.ssl_hello_type 1 }}
	use_backend acme-tls if {{ req.ssl_alpn acme-tls/1 }}
	default_backend site
backend acme-tls
	mode tcp
	server keyturn unix@{kt.root}/alpn.sock {proxy}
backend site
	mode tcp
	server site abns@kt-site-{tls} send-proxy-v2
frontend site
	mode http
	bind abns@kt-site-{tls} accept-proxy ssl crt {site}
	http-request return status 200 content-type text/plain string site
""", [program("haproxy"), "-db", "-f", "CONFIG"])


def nginx(folder, http, tls, site, kt, proxy=True):
    """As docs/challenges.md has it."""
    if not STREAM_MODULE.exists():
        lacking("no stream module of nginx (libnginx-mod-stream)")
    work = "".join(f"\t{n}_temp_path {folder}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    inner = free_port()
    return Front(folder, [http, tls, inner], f"""{user}load_module {STREAM_MODULE};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 512; }}
http {{
	access_log off;
{work}
	server {{
		listen 127.0.0.1:{http};
		location /.well-known/acme-challenge/ {{ proxy_pass http://unix:{kt.root}/http01.sock; }}
		location / {{ return 200 "site"; }}
	}}
	server {{
		listen 127.0.0.1:{inner} ssl{' proxy_protocol' if proxy else ''};
		ssl_certificate {site};
		ssl_certificate_key {site};
		location / {{ return 200 "site"; }}
	}}
}}
stream {{
	map $ssl_preread_alpn_protocols $target {{
		~\\bacme-tls/1\\b unix:{kt.root}/alpn.sock;
		default 127.0.0.1:{inner};
	}}
	server {{
		listen 127.0.0.1:{tls};
		ssl_preread on;
		{'proxy_protocol on;' if proxy else ''}
		proxy_pass $target;
	}}
}}
""", [program("nginx"), "-e", f"{folder}/error.log", "-p", folder, "-c", "CONFIG"])


FRONTS = {"haproxy": haproxy, "haproxy without PROXY": lambda *a: haproxy(*a, proxy=""), "nginx": nginx,
          "nginx without PROXY": lambda *a: nginx(*a, proxy=False)}


def behind(kt, **more):
    kt.agent_settings(listeners={"http01": f"unix:{kt.root}/http01.sock", "tlsAlpn01": f"unix:{kt.root}/alpn.sock", **more})


@pytest.mark.parametrize("name", FRONTS)
def test_handed_over(kt, quick, tmp_path, site, name):
    """Both challenges through the proxy that owns the ports, while the site goes on answering there."""
    behind(kt)
    kt.manifest("set", quick.issuer("http"), quick.issuer("tls", solvers=[{"tlsAlpn01": {}}]),
                certificate("a", "http", names=["a.example", "b.example"]),
                certificate("b", "tls", names=["c.example", "d.example"]))
    with FRONTS[name](tmp_path, quick.http_port, quick.tls_port, site, kt):
        kt.ok("renew", timeout=90)
        assert fetch(f"http://127.0.0.1:{quick.http_port}/")[1] == b"site"
        assert fetch(f"https://127.0.0.1:{quick.tls_port}/", context=no_checks())[1] == b"site"
    check_set(kt.volume("a-tls"), ["a.example", "b.example"], quick.roots())
    check_set(kt.volume("b-tls"), ["c.example", "d.example"], quick.roots())
    assert not (kt.root / "alpn.sock").exists() and not (kt.root / "http01.sock").exists(), "removed at the end"


def test_group_of_the_sockets(kt):
    behind(kt, socketGroup=str(os.getgid()))
    kt.manifest("set", {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"},
                        "spec": {"selfSigned": {}}}, certificate("web", "ss"))
    running = kt.start()
    for name in ("http01.sock", "alpn.sock"):
        info = (kt.root / name).stat()
        assert stat.S_IMODE(info.st_mode) == 0o660 and info.st_gid == os.getgid()
    assert running.stop() == 0, running.err()
    assert not (kt.root / "alpn.sock").exists()


def connects(family, address, port):
    with socket.socket(family) as sock:
        sock.settimeout(5)
        try:
            sock.connect((address, port))
        except OSError:
            return False
        return True


def has_ipv6():
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
        return True


def s_client(port, *args):
    done = subprocess.run([program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *args], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def test_openssl_and_both_families(kt, quick):
    """`:port` is IPv4 and IPv6; http-01 and metrics share one; openssl sees the answer of an order in work, and nothing else."""
    http, tls = quick.http_port, quick.tls_port
    kt.agent_settings(listeners={"http01": f":{http}", "metrics": f":{http}", "tlsAlpn01": f":{tls}"})
    kt.manifest("set", {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"},
                        "spec": {"selfSigned": {}}}, certificate("web", "ss"))
    running = kt.start()
    for port in (http, tls):
        assert connects(socket.AF_INET, "127.0.0.1", port)
        assert connects(socket.AF_INET6, "::1", port) or not has_ipv6()
    until(lambda: fetch(f"http://127.0.0.1:{http}/livez")[0] == 200, 10, "the pages are there, too")
    assert fetch(f"http://127.0.0.1:{http}/.well-known/acme-challenge/x")[0] == 404
    assert "alert number 112" in s_client(tls, "-alpn", "acme-tls/1", "-servername", "x.example")
    assert "alert number 112" in s_client(tls, "-alpn", "acme-tls/1", "-noservername")
    assert "alert number 120" in s_client(tls, "-alpn", "h2", "-servername", "x.example")
    assert "alert number 120" in s_client(tls, "-servername", "x.example")
    # Settings that are taken over while it runs: the same sockets go on.
    kt.agent_settings(listeners={"http01": f":{http}", "tlsAlpn01": f":{tls}"})
    kt.ok("reload")
    until(lambda: fetch(f"http://127.0.0.1:{http}/livez")[0] == 404, 15, "the pages are gone from the listener")
    assert "alert number 112" in s_client(tls, "-alpn", "acme-tls/1", "-servername", "x.example")
    assert running.stop() == 0, running.err()


def in_work(port, names, *args):
    """One of the names whose proof is shown now, and what openssl says. Each is validated at a random moment, so one of
    several is always left."""
    def look():
        for name in names:
            out = s_client(port, "-alpn", "acme-tls/1", "-servername", name.upper(), "-showcerts", *args)
            if "BEGIN CERTIFICATE" in out:
                return name, out
        return None

    until(lambda: connects(socket.AF_INET, "127.0.0.1", port), 20, "the port is open")
    return until(look, 20, "a proof is shown")


def test_what_is_shown(kt, tmp_path):
    """While Pebble takes its time, openssl gets the certificate with the proof, by TLS 1.2 and 1.3, and no data."""
    names = [f"w{i}.example" for i in range(6)]
    with Pebble(tmp_path, sleep=True, sleep_time=6) as server:
        kt.agent_settings(listeners={"tlsAlpn01": f"127.0.0.1:{server.tls_port}"})
        kt.manifest("set", server.issuer(solvers=[{"tlsAlpn01": {}}]), certificate("web", "pebble", names=names))
        running = kt.background("renew")
        for version in ("-tls1_2", "-tls1_3"):
            name, out = in_work(server.tls_port, names, version)
            assert "ALPN protocol: acme-tls/1" in out and "subject=" in out, out
            pem = out[out.index("-----BEGIN"):out.index("-----END CERTIFICATE-----") + 26]
            text = subprocess.run([program("openssl"), "x509", "-noout", "-text"], input=pem, capture_output=True, text=True).stdout
            assert "1.3.6.1.5.5.7.1.31: critical" in text and f"DNS:{name}" in text, text
        old = s_client(server.tls_port, "-alpn", "acme-tls/1", "-servername", name, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert "alert" in old, old
        assert running.wait(90) == 0, running.err()
        check_set(kt.volume("web-tls"), names, server.roots())


def test_desk_that_dies(kt, tmp_path):
    """Killed while the CA takes its time: the next desk has the sockets, and the answers again."""
    names = [f"b{i}.example" for i in range(6)]
    with Pebble(tmp_path, sleep=True, sleep_time=5) as server:
        kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}", "tlsAlpn01": f"127.0.0.1:{server.tls_port}"})
        kt.manifest("set", server.issuer("http"), server.issuer("tls", solvers=[{"tlsAlpn01": {}}]),
                    certificate("a", "http", names=["a.example"]), certificate("b", "tls", names=names))
        running = kt.background("renew")
        in_work(server.tls_port, names)
        desks = [pid for pid, name in running.rooms().items() if name.startswith("keyturn-desk")]
        assert len(desks) == 1
        os.kill(desks[0], signal.SIGKILL)
        assert running.wait(90) == 0, running.err()
        check_set(kt.volume("a-tls"), ["a.example"], server.roots())
        check_set(kt.volume("b-tls"), names, server.roots())
        assert server.orders() == 2


def test_many_names_at_once(kt, quick):
    """A CA that validates forty names of one order at the same time."""
    names = [f"n{i}.example" for i in range(40)]
    kt.agent_settings(listeners={"tlsAlpn01": f"127.0.0.1:{quick.tls_port}"})
    kt.manifest("set", quick.issuer(solvers=[{"tlsAlpn01": {}}]), certificate("web", "pebble", names=names))
    kt.ok("renew", timeout=120)
    check_set(kt.volume("web-tls"), names, quick.roots())
