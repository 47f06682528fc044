"""Real servers around the agent: Pebble with its DNS, step-ca, nginx, haproxy, Envoy, oidc-provider; and small HTTP services."""

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest

from .agent import TOP
from .certs import Authority, key_pem, pem
from .wait import Process, free_port

PEERS = Path(os.environ.get("KEYTURN_PEERS") or TOP / "build" / "peers")  # where tests/peers/setup put them


def lacking(what):
    """A missing peer: a failure where CI is set, else a skip."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: tests/peers/setup could not get it", pytrace=False)
    pytest.skip(f"{what}: run tests/peers/setup")


def program(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return path or lacking(f"no {name}")


def fetch(url, data=None, context=None, timeout=10, headers=None):
    """(status, body) of a small request."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def no_checks():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """Start and stop; use as a context manager."""

    process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def log(self):
        return self.process.log()


class Names(Server):
    """challtestsrv: every name is 127.0.0.1."""

    def __init__(self, tmp):
        self.tmp, self.port, self.management = Path(tmp), free_port(), free_port()

    def start(self):
        binary = PEERS / "bin" / "pebble-challtestsrv"
        if not binary.exists():
            lacking("no pebble-challtestsrv")
        # Debian's older one calls its listener otherwise and has no DNS over HTTPS.
        own = (["-dnsserver", f"127.0.0.1:{self.port}", "-doh", ""] if (PEERS / "bin" / ".pebble").exists() else
               ["-dns01", f"127.0.0.1:{self.port}"])
        self.process = Process([binary, *own, "-management", f"127.0.0.1:{self.management}", "-defaultIPv4", "127.0.0.1",
                                "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""], self.tmp / "names.log")
        self.process.wait_port(self.management)
        self.process.wait_port(self.port)  # it goes on without names when it can't have this one

    def ask(self, what, **body):
        """The management interface: set-txt, clear-txt, ..."""
        status, answer = fetch(f"http://127.0.0.1:{self.management}/{what}", json.dumps(body).encode())
        assert status == 200, (what, body, status, answer)

    def txt(self, name):
        """The TXT records that it answers with."""
        out = subprocess.run(["dig", "+short", "+tries=2", "@127.0.0.1", "-p", str(self.port), "TXT", name], capture_output=True,
                             text=True, timeout=20, check=True).stdout
        return sorted(line.strip('"') for line in out.splitlines() if line.startswith('"'))


class Pebble(Server):
    """An ACME server with its own names; validates http-01 at http_port. Random delays and 5 % bad nonces unless told otherwise."""

    def __init__(self, tmp, http_port=None, sleep=True, reject=None, sleep_time=None, validity=None, profiles=None, eab=None,
                 env=None, names=None):
        self.tmp = Path(tmp) / f"pebble-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port, self.management = free_port(), free_port()
        self.http_port = http_port or free_port()
        self.tls_port = free_port()  # where it validates tls-alpn-01
        self.names, self.own_names = names or Names(self.tmp), names is None  # others' are theirs to start and stop
        self.env = dict(os.environ)
        for name in [n for n in self.env if n.startswith("PEBBLE_")]:
            del self.env[name]
        if not sleep:
            self.env["PEBBLE_VA_NOSLEEP"] = "1"
        if sleep_time:
            self.env["PEBBLE_VA_SLEEPTIME"] = str(sleep_time)
        if reject is not None:
            self.env["PEBBLE_WFE_NONCEREJECT"] = str(reject)
        self.env.update(env or {})
        self.authority = Authority("pebble")
        cert, key, _ = self.authority.write(self.tmp, "localhost", "127.0.0.1")
        profile = {"description": "the only one", "validityPeriod": validity or 7776000}
        self.config = self.tmp / "pebble.json"
        self.config.write_text(json.dumps({"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(cert), "privateKey": str(key), "httpPort": self.http_port, "tlsPort": self.tls_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": bool(eab), "externalAccountMACKeys": eab or {}, "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1}, "profiles": profiles or {"default": profile},
            "certificateValidityPeriod": profile["validityPeriod"]}}))
        self.server = f"https://localhost:{self.port}/dir"

    def start(self):
        binary = PEERS / "bin" / "pebble"
        if not binary.exists():
            lacking("no pebble")
        if not self.names.process:
            self.names.start()
        self.process = Process([binary, "-config", self.config, "-dnsserver", f"127.0.0.1:{self.names.port}"],
                               self.tmp / "pebble.log", env=self.env)
        self.process.wait_port(self.port)
        self.process.wait_port(self.management)

    def stop(self):
        super().stop()
        if self.own_names:
            self.names.stop()

    def kill(self):
        """The CA goes down; its names stay."""
        self.process.stop()
        self.process = None

    def log(self):
        return (self.tmp / "pebble.log").read_text(errors="replace")

    def issued(self):
        """Serials of the certificates that were issued, in order."""
        return re.findall(r"Issued certificate serial (\S+)", self.log())

    def orders(self):
        return len(re.findall(r"Added order ", self.log()))

    def accounts(self):
        return max([0, *map(int, re.findall(r"There are now (\d+) accounts in memory", self.log()))])

    def requests(self):
        return len(re.findall(r"-> calling handler", self.log()))

    def roots(self):
        """Root and intermediate certificates of the CA that it made for this run."""
        parts = []
        for kind in ("roots", "intermediates"):
            status, body = fetch(f"https://127.0.0.1:{self.management}/{kind}/0", context=no_checks())
            if status == 200:
                parts.append(body)
        return parts[0]

    def ask(self, path, data=None):
        """The management interface: (status, JSON or bytes)."""
        status, body = fetch(f"https://127.0.0.1:{self.management}{path}", data, no_checks())
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body

    def certificate_status(self, serial):
        """What it says of a certificate: {"Status", "Reason", ...}."""
        status, answer = self.ask(f"/cert-status-by-serial/{serial}")
        assert status == 200, (serial, status, answer)
        return answer

    def suggest(self, pem, answer):
        """From now on this is its renewal information about the certificate: an object, or any text."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        status, body = self.ask("/set-renewal-info/", json.dumps({"Certificate": pem, "ARIResponse": text}).encode())
        assert status == 200, (status, body)

    def replacements(self):
        """Orders that named a certificate which they replace."""
        return re.findall(r'ARI: order "(\S+)" is a replacement of "(\S+)"', self.log())

    def issuer(self, name="pebble", webroot=None, email="ops@example.org", bundle=None, **more):
        """The Issuer manifest for it."""
        meta = {"name": name}
        if webroot:
            meta["annotations"] = {"keyturn.dev/http01-webroot": str(webroot)}
        return {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": meta, "spec": {"acme": {
            "server": self.server, "email": email, "privateKeySecretRef": {"name": f"{name}-account"},
            "caBundle": bundle or self.authority.bundle(), "solvers": [{"http01": {"ingress": {}}}], **more}}}


class StepCa(Server):
    """step-ca with a CA of its own and an ACME provisioner; names come from `names`. Answers a small part of orders with 500."""

    def __init__(self, tmp, names=None, challenges=("http-01", "dns-01", "tls-alpn-01")):
        self.tmp = Path(tmp) / f"step-ca-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port, self.http_port, self.tls_port = free_port(), free_port(), free_port()
        self.names, self.own_names = names or Names(self.tmp), names is None
        self.authority = Authority("step")
        cert, key = self.authority.sub("step intermediate")
        for name, data in (("root.crt", self.authority.pem()), ("ca.crt", pem(cert)), ("ca.key", key_pem(key))):
            (self.tmp / name).write_bytes(data)
        self.config = self.tmp / "ca.json"
        self.config.write_text(json.dumps({
            "root": str(self.tmp / "root.crt"), "crt": str(self.tmp / "ca.crt"), "key": str(self.tmp / "ca.key"),
            "address": f"127.0.0.1:{self.port}", "dnsNames": ["localhost"], "logger": {"format": "json"},
            "db": {"type": "badgerv2", "dataSource": str(self.tmp / "db")},
            "authority": {"provisioners": [{"type": "ACME", "name": "acme", "challenges": list(challenges)}]}}))
        self.server = f"https://localhost:{self.port}/acme/acme/directory"

    def start(self):
        binary = PEERS / "bin" / "step-ca"
        if not binary.exists():
            lacking("no step-ca")
        if not self.names.process:
            self.names.start()
        self.process = Process([binary, self.config, "--insecure", "--acme-http-port", str(self.http_port), "--acme-tls-port",
                                str(self.tls_port), "--resolver", f"127.0.0.1:{self.names.port}"], self.tmp / "step-ca.log",
                               env={**os.environ, "HOME": str(self.tmp), "STEPPATH": str(self.tmp)})
        self.process.wait_port(self.port)

    def stop(self):
        super().stop()
        if self.own_names:
            self.names.stop()

    def requests(self):
        """What came in: [{method, path, status, ...}]."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [r for r in map(json.loads, lines) if "path" in r]

    def roots(self):
        return self.authority.pem()

    def issuer(self, name="step", email="ops@example.org", **more):
        """The Issuer manifest for it."""
        return {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": {"acme": {
            "server": self.server, "email": email, "privateKeySecretRef": {"name": f"{name}-account"},
            "caBundle": self.authority.bundle(), "solvers": [{"http01": {"ingress": {}}}], **more}}}


class Nginx(Server):
    """nginx with TLS servers and plain folders, all on loopback."""

    def __init__(self, tmp):
        self.tmp = Path(tmp) / f"nginx-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.tmp.chmod(0o755)
        self.pid_file = self.tmp / "nginx.pid"
        self.config = self.tmp / "nginx.conf"
        self.servers = []
        self.ports = []
        self.ignore_hup = False

    def tls(self, cert, key, name="localhost", extra=""):
        """A TLS server that reads these files; returns its port."""
        port = free_port()
        self.servers.append(f"""
	server {{
		listen 127.0.0.1:{port} ssl;
		server_name {name};
		ssl_certificate {cert};
		ssl_certificate_key {key};
		location / {{ return 200 "ok\\n"; }}
		{extra}
	}}""")
        self.ports.append(port)
        return port

    def files(self, root, port=None):
        """A plain server that serves a folder; returns its port."""
        port = port or free_port()
        self.servers.append(f"""
	server {{
		listen 127.0.0.1:{port};
		location / {{ root {root}; }}
	}}""")
        self.ports.append(port)
        return port

    def write(self):
        work = "".join(f"\t{n}_temp_path {self.tmp}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;\n" if os.geteuid() == 0 else ""
        self.config.write_text(f"""{user}daemon off;
worker_processes 1;
pid {self.pid_file};
error_log {self.tmp}/error.log notice;
events {{ worker_connections 128; }}
http {{
	access_log off;
	ssl_session_cache off;
	ssl_session_tickets off;
{work}{''.join(self.servers)}
}}
""")
        self.config.chmod(0o644)

    def argv(self, *more):
        return [program("nginx"), "-e", str(self.tmp / "error.log"), "-p", str(self.tmp), "-c", str(self.config), *more]

    def start(self):
        self.write()
        self.process = Process(self.argv(), self.tmp / "nginx.log")
        for port in self.ports:
            self.process.wait_port(port)

    def log(self):
        path = self.tmp / "error.log"
        return self.process.log() + (path.read_text(errors="replace") if path.exists() else "")


class Haproxy(Server):
    """haproxy in master-worker mode with one TLS frontend; SIGUSR2 to the master reloads it."""

    def __init__(self, tmp, pem_file):
        self.tmp = Path(tmp) / f"haproxy-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.tmp.chmod(0o755)
        self.port = free_port()
        self.pid_file = self.tmp / "haproxy.pid"
        self.config = self.tmp / "haproxy.cfg"
        self.config.write_text(f"""global
	maxconn 200
defaults
	mode http
	timeout connect 5s
	timeout client 5s
	timeout server 5s
frontend tls
	bind 127.0.0.1:{self.port} ssl crt {pem_file}
	http-request return status 200 content-type text/plain string ok
""")
        self.config.chmod(0o644)

    def start(self):
        self.process = Process([program("haproxy"), "-W", "-db", "-f", self.config, "-p", self.pid_file], self.tmp / "haproxy.log")
        self.pid_file.write_text(f"{self.process.pid}\n")  # in the foreground it writes none
        self.pid_file.chmod(0o644)
        self.process.wait_port(self.port)


class OidcProvider(Server):
    """
    The certified npm oidc-provider over TLS. client_authority: its certificates authenticate clients, at a second port that the
    metadata names in mtls_endpoint_aliases (aliases=False: at the only port). Further settings go to oidc.mjs: nonce (DPoP proofs
    need one), rotate and leeway (refresh tokens), strict (assertions), skew and dateSkew (its clock), formats, tolerance; rotating and
    manager (secrets.mjs: whose secrets are reset by which client's tokens).
    """

    def __init__(self, tmp, ttl=15, jwt=True, clients=None, scopes=("pay.read", "pay.write"), client_authority=None, aliases=True,
                 **settings):
        self.tmp = Path(tmp) / f"oidc-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port = free_port()
        self.mtls_port = free_port() if client_authority and aliases else self.port
        self.authority = Authority("oidc")
        self.cert, self.key, _ = self.authority.write(self.tmp, "localhost", "127.0.0.1")
        self.issuer_url = f"https://localhost:{self.port}"
        self.clients = list(clients or [
            {"client_id": "basic", "client_secret": "a:b c/%+secret&=x~0123456789", "token_endpoint_auth_method": "client_secret_basic"},
            {"client_id": "post", "client_secret": "post-secret-0123456789", "token_endpoint_auth_method": "client_secret_post"},
        ])
        self.config = {"modules": str((PEERS / "npm").resolve()), "port": self.port, "cert": str(self.cert), "key": str(self.key),
                       "clients": self.clients, "ttl": ttl, "format": "jwt" if jwt else "opaque", "scopes": list(scopes), **settings}
        if client_authority:
            self.config["clientCA"] = client_authority.pem().decode()
            self.config.update({"mtlsPort": self.mtls_port} if aliases else {"certificates": True})

    def start(self):
        node = program("node")
        if not (PEERS / "npm" / "node_modules" / "oidc-provider").is_dir():
            lacking("no oidc-provider")
        for left in (2, 1, 0):  # once in some hundred starts node 20 stands still before it has loaded its modules
            self.process = Process([node, TOP / "tests" / "peers" / "oidc.mjs", json.dumps(self.config)], self.tmp / "oidc.log")
            try:
                return self.process.wait_port(self.port, 20)
            except AssertionError:
                self.process.stop()
                if not left:
                    raise

    def secret_of(self, client):
        return next(c["client_secret"] for c in self.clients if c["client_id"] == client)

    def context(self, certificate=None):
        """For requests to it; certificate: (file, key file) that the connection shows."""
        context = ssl.create_default_context(cadata=self.authority.pem().decode())
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        return context

    def call(self, path, data=None, headers=None):
        return fetch(self.issuer_url + path, data, self.context(), headers=headers)

    def form(self, path, fields, headers=None, certificate=None):
        """(status, headers, JSON) of a form that is posted by hand; with a certificate to the port that asks for one."""
        port = self.mtls_port if certificate else self.port
        connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=self.context(certificate))
        try:
            connection.request("POST", path, urlencode(fields, doseq=True),
                               {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})})
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, answer.headers, json.loads(body) if body else None
        finally:
            connection.close()

    def hook(self, name, **told):
        """One of the hooks of oidc.mjs (log, refuse, drop, config, client, trust, refresh) or of secrets.mjs."""
        status, body = self.call(f"/-/{name}", json.dumps(told).encode())
        assert status == 200, (name, told, body)
        return json.loads(body)

    def requests(self, path="/token"):
        """What came in: [{time, method, path, status, port, certificate, dpop, params, assertion, error}]."""
        return [r for r in self.hook("log") if path is None or r["path"] == path]

    def refuse(self, status=429, headers=None, times=-1, path="/token", body=""):
        """Answers this from now on (times: so often); times=0 ends it."""
        self.hook("refuse", status=status, headers=headers or {}, times=times, path=path, body=body)

    def drop(self, times=1, path="/token", half=False):
        """Does what it is asked, and then loses the answer (half: in the middle of it)."""
        self.hook("drop", times=times, path=path, half=half)

    def set_client(self, client_id, **metadata):
        """A new client, or an old one with other metadata."""
        self.clients = [c for c in self.clients if c["client_id"] != client_id] + [{"client_id": client_id, **metadata}]
        self.hook("client", client_id=client_id, **metadata)

    def trust(self, issuer, jwks):
        """Takes assertions (RFC 7523 2.1) of this issuer."""
        self.hook("trust", issuer=issuer, jwks=jwks)

    def refresh_token(self, client, subject="alice", scope="pay.write", resource=None):
        """A first refresh token, as a login would have given it."""
        return self.hook("refresh", client=client, sub=subject, scope=scope, resource=resource)["refresh_token"]

    def secrets(self):
        """{client: its secrets that are in force}, of those that rotate."""
        return self.hook("secrets")

    def hold(self, client, at):
        """Stops the next reset when it was "asked" for or is "made", or the request that has "tried" the newest secret first."""
        self.hook("hold", client=client, at=at)

    def held(self):
        return self.hook("held")["reached"]

    def release(self, drop=False):
        """What is held goes on; drop: it is cut off instead."""
        self.hook("release", drop=drop)

    def jwks(self):
        return json.loads(self.call("/jwks")[1])

    def introspect(self, token, client="post"):
        status, _, told = self.form("/token/introspection", {"token": token, "client_id": client,
                                                             "client_secret": self.secret_of(client)})
        assert status == 200, told
        return told

    def token_issuer(self, name="oidc", client="basic", method=None, bundle=None, **more):
        """The TokenIssuer manifest for it; its secret is in Secret <name>-client."""
        method = method or ("client_secret_post" if client == "post" else "client_secret_basic")
        return self.oauth2(name, {"method": method, "clientID": client, "clientSecretRef": {"name": f"{name}-client"}},
                           caBundle=bundle or self.authority.bundle(), **more)

    def oauth2(self, name, auth, **more):
        """A TokenIssuer manifest for it with any client authentication."""
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"oauth2": {
            "issuer": self.issuer_url, "audienceParam": "resource", "caBundle": self.authority.bundle(), "auth": auth, **more}}}


class Local(Server):
    """An HTTP server in this process: `handler` at `port`."""

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


class Consumer(Local):
    """A small HTTP service that reads a file when it is told and reports its SHA-256."""

    def __init__(self, file, status_path="/status"):
        self.file, self.port = Path(file), free_port()
        self.reloads, self.bodies, self.deaf, self.lie = 0, [], False, None
        self.sha256 = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                self.answer({"used": {"sha256": outer.lie or outer.sha256}, "reloads": outer.reloads})

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.bodies.append((dict(self.headers), body))
                outer.reloads += 1
                if not outer.deaf:
                    outer.read()
                self.answer({})

            def log_message(self, *args):
                pass

        self.handler = Handler

    def read(self):
        try:
            self.sha256 = hashlib.sha256(self.file.read_bytes()).hexdigest()
        except OSError:
            self.sha256 = ""


class Recorder(Local):
    """A plain HTTP service that writes down when each request came and with which Authorization."""

    def __init__(self):
        self.port, self.seen = free_port(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.seen.append((time.time(), self.headers.get_all("Authorization") or []))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.handler = Handler


class Envoy(Server):
    """Envoy before an upstream, with the credential injector: its generic secret is read from a file of a secret volume."""

    def __init__(self, tmp, upstream, volume, name, watch=True, workers=2):
        self.tmp = Path(tmp) / f"envoy-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port, self.admin, self.workers = free_port(), free_port(), workers
        source = {"path": f"{volume}/envoy.yaml"}
        if watch:
            source["watched_directory"] = {"path": str(volume)}
        extensions = "type.googleapis.com/envoy.extensions"
        injector = {"@type": f"{extensions}.filters.http.credential_injector.v3.CredentialInjector", "overwrite": True, "credential": {
            "name": "envoy.http.injected_credentials.generic", "typed_config": {
                "@type": f"{extensions}.http.injected_credentials.generic.v3.Generic",
                "credential": {"name": name, "sds_config": {"path_config_source": source}}}}}
        manager = {"@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
                   "http_filters": [
                       {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
                       {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"}}]}

        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        self.config = self.tmp / "envoy.json"
        self.config.write_text(json.dumps({"node": {"id": "calls", "cluster": "calls"}, "admin": {"address": address(self.admin)}, "static_resources": {
            "listeners": [{"name": "in", "address": address(self.port), "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{"name": "upstream", "type": "STATIC", "connect_timeout": "2s", "load_assignment": {
                "cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}]}}))

    def start(self):
        binary = PEERS / "bin" / "envoy"
        if not binary.exists():
            lacking("no envoy")
        self.process = Process([binary, "-c", self.config, "--disable-hot-restart", "--concurrency", self.workers, "-l", "warning"],
                               self.tmp / "envoy.log")
        self.process.wait_port(self.port, 30)

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, path):
        """The admin interface, as text."""
        status, body = fetch(f"http://127.0.0.1:{self.admin}{path}")
        assert status == 200, (path, status)
        return body.decode()

    def counter(self, name):
        return int(self.ask(f"/stats?filter={name}$").rpartition(":")[2])


__all__ = ["Consumer", "Envoy", "Haproxy", "Names", "Nginx", "OidcProvider", "Pebble", "Recorder", "StepCa", "fetch", "lacking", "program"]
