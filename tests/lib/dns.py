"""Name servers and DNS providers for tests: real BIND and Knot on loopback, and stand-ins for what needs an account."""

import base64
import datetime
import hashlib
import hmac
import json
import re
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

from .certs import Authority
from .servers import PEERS, Server, program
from .wait import Process, free_port, until

KEYS = {"kt-md5": "hmac-md5", "kt-sha1": "hmac-sha1", "kt-sha256": "hmac-sha256", "kt-sha512": "hmac-sha512"}
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
WRONG = base64.b64encode(b"x" * 32).decode()


def dig(port, name, kind="TXT", address="127.0.0.1", *options):
    out = subprocess.run([program("dig"), "+short", "+tries=1", "+time=3", "-p", str(port), f"@{address}", name, kind, *options],
                         capture_output=True, text=True, timeout=20).stdout
    return sorted(line.strip('"') for line in out.splitlines() if line and not line.startswith(";"))


def nsupdate(port, lines, address="127.0.0.1", key="kt-sha256"):
    text = f"server {address} {port}\n" + "\n".join(lines) + "\nsend\n"
    done = subprocess.run([program("nsupdate"), "-y", f"{KEYS[key]}:{key}:{SECRET}"], input=text, capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 0, done.stderr + text


def zone_text(records, serial=1, negative=2):
    """example.test as ns1 (127.0.0.1) and ns2 (127.0.0.2) have it."""
    return "\n".join([f"$TTL 60\n@ SOA ns1 hostmaster {serial} 60 60 600 {negative}", "ns1 A 127.0.0.1", "ns2 A 127.0.0.2", *records, ""])


class Bind(Server):
    """named on a port of 127.0.0.1."""

    def __init__(self, tmp, wrap=()):
        self.tmp, self.port, self.wrap = Path(tmp) / f"named-{free_port()}", free_port(), wrap
        self.tmp.mkdir(parents=True)
        self.zones = []

    def zone(self, name, records, update="any", **soa):
        (self.tmp / name).write_text(zone_text(records, **soa))
        keys = " ".join(f'key "{key}";' for key in KEYS)
        policy = {"any": f"allow-update {{ {keys} }};", "none": "",
                  "other": 'update-policy { grant kt-sha256 name other.example.test TXT; };'}[update]
        self.zones.append(f'zone "{name}" {{ type primary; file "{name}"; {policy} }};')
        return self

    def start(self):
        keys = "\n".join(f'key "{name}" {{ algorithm {algorithm}; secret "{SECRET}"; }};' for name, algorithm in KEYS.items())
        config = self.tmp / "named.conf"
        config.write_text(f"""{keys}
options {{ directory "{self.tmp}"; listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;
  session-keyfile none; recursion no; dnssec-validation no; notify no; minimal-responses no; }};
controls {{ }};
{chr(10).join(self.zones)}
""")
        self.process = Process([*self.wrap, program("named"), "-c", config, "-g", "-n", "1"], self.tmp / "log")
        until(lambda: "all zones loaded" in self.log() or not self.process.alive(), 20, "named is up")
        assert self.process.alive(), self.log()

    def txt(self, name):
        return dig(self.port, name)


class Knot(Server):
    """knotd with one zone that takes updates by kt-sha256; on any address of loopback."""

    def __init__(self, tmp, records, address="127.0.0.1", zone="example.test", serial=1):
        self.tmp, self.address, self.port, self.zone = Path(tmp) / f"knot-{free_port()}", address, free_port(), zone
        self.tmp.mkdir(parents=True)
        (self.tmp / f"{zone}.zone").write_text(zone_text(records, serial=serial))

    def start(self):
        config = self.tmp / "knot.conf"
        config.write_text(f"""server:
    listen: {self.address}@{self.port}
    rundir: {self.tmp}
database:
    storage: {self.tmp}
log:
  - target: stderr
    any: info
key:
  - id: kt-sha256
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: update
    key: kt-sha256
    action: update
template:
  - id: default
    storage: {self.tmp}
    zonefile-sync: -1
zone:
  - domain: {self.zone}
    acl: update
""")
        self.process = Process([program("knotd"), "-c", config], self.tmp / "log")
        until(lambda: dig(self.port, self.zone, "SOA", self.address) or not self.process.alive(), 20, "knotd is up")
        assert self.process.alive(), self.log()

    def txt(self, name):
        return dig(self.port, name, "TXT", self.address)


class AcmeDns(Server):
    """A real acme-dns, where there is one: accounts by /register, DNS on self.port, API on self.api."""

    def __init__(self, tmp):
        self.tmp, self.port, self.api = Path(tmp) / "acme-dns", free_port(), free_port()
        self.tmp.mkdir(parents=True)

    @staticmethod
    def binary():
        own = PEERS / "bin" / "acme-dns"
        return str(own) if own.exists() else shutil.which("acme-dns")

    def start(self):
        config = self.tmp / "config.cfg"
        config.write_text(f"""[general]
listen = "127.0.0.1:{self.port}"
protocol = "both4"
domain = "auth.example.test"
nsname = "ns1.auth.example.test"
nsadmin = "admin.example.test"
records = ["auth.example.test. A 127.0.0.1", "ns1.auth.example.test. A 127.0.0.1", "auth.example.test. NS ns1.auth.example.test."]
debug = false
[database]
engine = "sqlite3"
connection = "{self.tmp}/acme-dns.db"
[api]
ip = "127.0.0.1"
disable_registration = false
port = "{self.api}"
tls = "none"
corsorigins = ["*"]
use_header = false
[logconfig]
loglevel = "info"
logtype = "stdout"
logformat = "text"
""")
        self.process = Process([self.binary(), "-c", config], self.tmp / "log", cwd=self.tmp)
        self.process.wait_port(self.api)


# --- stand-ins ------------------------------------------------------------------------------------------------------

class Api(Server):
    """A strict HTTPS stand-in; what it holds it publishes in a BIND, as its model does in its name servers."""

    def __init__(self, tmp, bind, zone="example.test"):
        self.tmp, self.bind, self.zone = Path(tmp), bind, zone
        self.records, self.requests, self.complaints, self.next_id = [], [], [], 1000
        self.fail = []  # (method, path part, status, body, headers): answers given once before anything else
        self.authority = Authority("provider")
        self.lock = threading.Lock()

    def start(self):
        cert, key, _ = self.authority.write(self.tmp, "localhost")
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query, strict_parsing=bool(url.query), keep_blank_values=True))
                with api.lock:
                    api.requests.append((self.command, self.path, dict(self.headers), body.decode()))
                    status, answer, headers = api.next_answer(self.command, url.path, query, self.headers, body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml" if data[:1] == b"<" else "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def url(self, path=""):
        return f"https://localhost:{self.port}{path}"

    def next_answer(self, method, path, query, headers, body):
        for rule in self.fail:
            if rule[0] == method and rule[1] in path:
                self.fail.remove(rule)
                return rule[2], rule[3], rule[4] if len(rule) > 4 else {}
        answer = self.answer(method, path, query, headers, body)
        return (*answer, {}) if len(answer) == 2 else answer

    def complain(self, text):
        self.complaints.append(text)

    def publish(self, name):
        values = [r["value"] for r in self.records if r["name"] == name]
        nsupdate(self.bind.port, [f"update delete {name}. TXT", *[f'update add {name}. 60 TXT "{v}"' for v in values]])

    def add(self, name, value):
        self.next_id += 1
        self.records.append({"id": str(self.next_id), "name": name, "value": value})
        self.publish(name)
        return self.next_id

    def drop(self, number):
        found = [r for r in self.records if r["id"] == str(number)]
        for record in found:
            self.records.remove(record)
            self.publish(record["name"])
        return bool(found)

    def values(self, name):
        return sorted(r["value"] for r in self.records if r["name"] == name)


class Cloudflare(Api):
    TOKEN, KEY, EMAIL, ZONE = "cf-token-0123456789", "cf-key-0123456789", "ops@example.test", "0123456789abcdef0123456789abcdef"

    def good(self, result, status=200):
        return status, {"success": True, "errors": [], "messages": [], "result": result}

    def bad(self, status, code, message):
        return status, {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}

    def answer(self, method, path, query, headers, body):
        token = headers.get("Authorization") == f"Bearer {self.TOKEN}"
        key = headers.get("X-Auth-Email") == self.EMAIL and headers.get("X-Auth-Key") == self.KEY
        if not token and not key:
            return self.bad(403, 9109, f"Invalid access token {headers.get('Authorization', '')}")
        if method == "GET" and path == "/client/v4/zones":
            return self.good([{"id": self.ZONE, "name": self.zone}] if query.get("name") == self.zone else [])
        records = f"/client/v4/zones/{self.ZONE}/dns_records"
        if method == "GET" and path == records:
            if query.get("type") != "TXT":
                self.complain(f"list without type: {query}")
            return self.good([{"id": "a" * 28 + r["id"], "type": "TXT", "name": r["name"], "content": f'"{r["value"]}"'}
                              for r in self.records if r["name"] == query.get("name")])
        if method == "POST" and path == records:
            record = json.loads(body)
            if set(record) != {"type", "name", "content", "ttl"} or record["type"] != "TXT" or record["ttl"] < 60 or \
                    not re.fullmatch(r'"[^"]+"', record["content"]) or headers.get("Content-Type") != "application/json":
                self.complain(f"bad record {record}")
                return self.bad(400, 9000, "bad record")
            if record["content"][1:-1] in self.values(record["name"]):
                return self.bad(400, 81058, "An identical record already exists.")
            return self.good({"id": "a" * 28 + str(self.add(record["name"], record["content"][1:-1]))})
        if method == "DELETE" and path.startswith(records + "/" + "a" * 28):
            if self.drop(path.rsplit("/", 1)[1][28:]):
                return self.good({"id": path.rsplit("/", 1)[1]})
            return self.bad(404, 81044, "Record does not exist.")
        self.complain(f"{method} {path}")
        return self.bad(405, 10000, "no such thing")


class DigitalOcean(Api):
    TOKEN = "do-token-0123456789"

    def answer(self, method, path, query, headers, body):
        if headers.get("Authorization") != f"Bearer {self.TOKEN}":
            return 401, {"id": "Unauthorized", "message": "Unable to authenticate you"}
        if method == "GET" and path == f"/v2/domains/{self.zone}":
            return 200, {"domain": {"name": self.zone, "ttl": 1800}}
        records = f"/v2/domains/{self.zone}/records"
        if method == "GET" and path == records:
            page, size = int(query["page"]), int(query["per_page"])
            found = [{"id": int(r["id"]), "type": "TXT", "name": r["name"][:-len(self.zone) - 1], "data": r["value"]}
                     for r in self.records if r["name"] == query["name"] and query["type"] == "TXT"]
            return 200, {"domain_records": found[(page - 1) * size:page * size], "meta": {"total": len(found)}}
        if method == "POST" and path == records:
            record = json.loads(body)
            if set(record) != {"type", "name", "data", "ttl"} or record["type"] != "TXT" or record["name"].endswith(self.zone):
                self.complain(f"bad record {record}")
                return 422, {"id": "unprocessable_entity", "message": "bad record"}
            return 201, {"domain_record": {"id": self.add(f"{record['name']}.{self.zone}", record["data"])}}
        if method == "DELETE" and path.startswith(records + "/"):
            return (204, b"") if self.drop(path.rsplit("/", 1)[1]) else (404, {"id": "not_found", "message": "not found"})
        if method == "GET" and path.startswith("/v2/domains/"):
            return 404, {"id": "not_found", "message": "The resource you were accessing could not be found."}
        self.complain(f"{method} {path}")
        return 405, {"id": "method", "message": "no such thing"}


class Route53(Api):
    ID, SECRET, ZONE, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "Z0123456789ABC", "us-east-1"
    NS = "https://route53.amazonaws.com/doc/2013-04-01/"
    pending = 1  # how often a change is asked for before it is done

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ttl, self.changes, self.private = 60, {}, True

    def signed(self, method, path, query, headers, body):
        """Signature Version 4 as Amazon describes it, over what really came."""
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})", headers.get("Authorization", ""))
        if not match or match[1] != self.ID or match[3] != self.REGION or match[4] != "route53":
            return False
        when = headers.get("X-Amz-Date", "")
        now = datetime.datetime.utcnow()
        if abs((datetime.datetime.strptime(when, "%Y%m%dT%H%M%SZ") - now).total_seconds()) > 300 or when[:8] != match[2] or \
                not {"host", "x-amz-date"} <= set(match[5].split(";")):
            return False
        quote = lambda text: urllib.parse.quote(text, safe="-_.~")  # noqa: E731
        lines = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in match[5].split(";"))
        request = "\n".join([method, urllib.parse.quote(path, safe="/-_.~"),
                             "&".join(f"{quote(k)}={quote(v)}" for k, v in sorted(query.items())), lines, match[5],
                             hashlib.sha256(body).hexdigest()])
        text = "\n".join(["AWS4-HMAC-SHA256", when, f"{match[2]}/{match[3]}/{match[4]}/aws4_request",
                          hashlib.sha256(request.encode()).hexdigest()])
        key = ("AWS4" + self.SECRET).encode()
        for part in (match[2], match[3], match[4], "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), match[6])

    def error(self, status, code, message):
        return status, (f'<?xml version="1.0"?>\n<ErrorResponse xmlns="{self.NS}"><Error><Type>Sender</Type><Code>{code}</Code>'
                        f"<Message>{message}</Message></Error><RequestId>x</RequestId></ErrorResponse>").encode()

    def document(self, name, inner):
        return 200, f'<?xml version="1.0"?>\n<{name} xmlns="{self.NS}">{inner}</{name}>'.encode()

    def change_info(self, number):
        status = "PENDING" if self.changes[number] > 0 else "INSYNC"
        self.changes[number] -= 1
        return f"<ChangeInfo><Id>/change/{number}</Id><Status>{status}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo>"

    def answer(self, method, path, query, headers, body):
        if not self.signed(method, path, query, headers, body):
            return self.error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if method == "GET" and path == "/2013-04-01/hostedzonesbyname":
            def zone(number, name, private):
                return (f"<HostedZone><Id>/hostedzone/{number}</Id><Name>{name}.</Name><CallerReference>x</CallerReference>"
                        f"<Config><PrivateZone>{private}</PrivateZone></Config></HostedZone>")
            order = lambda name: name.rstrip(".").split(".")[::-1]  # noqa: E731
            zones = [("ZPRIVATE", self.zone, "true")] if self.private else []
            zones += [(self.ZONE, self.zone, "false"), ("ZOTHER", "zzz.test", "false")]
            return self.document("ListHostedZonesByNameResponse", "<HostedZones>" + "".join(
                zone(*z) for z in zones if order(z[1]) >= order(query["dnsname"])) + "</HostedZones>")
        records = f"/2013-04-01/hostedzone/{self.ZONE}/rrset"
        if method == "GET" and path == records:
            name = query["name"].rstrip(".")
            values = self.values(name)
            if not values:
                name, values = "zzz." + self.zone, ["other"]  # the next one in the alphabet, as Amazon does
            items = "".join(f"<ResourceRecord><Value>&quot;{v}&quot;</Value></ResourceRecord>" for v in values)
            return self.document("ListResourceRecordSetsResponse", "<ResourceRecordSets><ResourceRecordSet>"
                                 f"<Name>{name}.</Name><Type>TXT</Type><TTL>{self.ttl}</TTL><ResourceRecords>{items}"
                                 "</ResourceRecords></ResourceRecordSet></ResourceRecordSets><IsTruncated>false</IsTruncated>"
                                 "<MaxItems>1</MaxItems>")
        if method == "POST" and path == records:
            return self.change(body)
        if method == "GET" and path.startswith("/2013-04-01/change/"):
            number = path.rsplit("/", 1)[1]
            return self.document("GetChangeResponse", self.change_info(number)) if number in self.changes else \
                self.error(404, "NoSuchChange", "no")
        self.complain(f"{method} {path}")
        return self.error(405, "InvalidInput", "no such thing")

    def change(self, body):
        ns = "{" + self.NS + "}"
        root = ElementTree.fromstring(body)
        changes = root.findall(f"./{ns}ChangeBatch/{ns}Changes/{ns}Change")
        if root.tag != ns + "ChangeResourceRecordSetsRequest" or len(changes) != 1:
            self.complain(body)
            return self.error(400, "InvalidInput", "bad batch")
        action = changes[0].findtext(f"{ns}Action")
        record = changes[0].find(f"{ns}ResourceRecordSet")
        name, ttl = record.findtext(f"{ns}Name").rstrip("."), int(record.findtext(f"{ns}TTL"))
        values = [v.text for v in record.findall(f"{ns}ResourceRecords/{ns}ResourceRecord/{ns}Value")]
        if record.findtext(f"{ns}Type") != "TXT" or not values or not all(re.fullmatch(r'"[^"]*"', v) for v in values) or \
                len(set(values)) != len(values):
            self.complain(body)
            return self.error(400, "InvalidChangeBatch", "bad record")
        values = sorted(v[1:-1] for v in values)
        if action == "DELETE" and (values != self.values(name) or ttl != self.ttl):
            return self.error(400, "InvalidChangeBatch", "Tried to delete a record but the values provided do not match.")
        self.records = [r for r in self.records if r["name"] != name]
        if action == "UPSERT":
            self.records += [{"id": v, "name": name, "value": v} for v in values]
            self.ttl = ttl
        self.publish(name)
        number = f"C{len(self.changes)}"
        self.changes[number] = self.pending
        return self.document("ChangeResourceRecordSetsResponse", self.change_info(number))


class FakeAcmeDns(Api):
    """acme-dns's update as its documentation has it, where the real one can't be had."""
    USER, PASSWORD, SUBDOMAIN = "c36f50e8-4632-44f0-83fe-e070fef28a10", "htB9mR9DYgcu9bX_afHF62erXaH2TS7bg9KW3F7Z", "8e5700ea-a4bf-41c7-8a77-e990661dcc6a"

    def account(self):
        return {"username": self.USER, "password": self.PASSWORD, "subdomain": self.SUBDOMAIN,
                "fulldomain": f"{self.SUBDOMAIN}.{self.zone}", "allowfrom": []}

    def answer(self, method, path, query, headers, body):
        if (method, path) != ("POST", "/update"):
            self.complain(f"{method} {path}")
            return 404, {"error": "not_found"}
        asked = json.loads(body)
        if headers.get("X-Api-User") != self.USER or headers.get("X-Api-Key") != self.PASSWORD:
            return 401, {"error": "forbidden"}
        if asked.get("subdomain") != self.SUBDOMAIN:
            return 401, {"error": "forbidden"}
        if len(asked.get("txt", "")) != 43:
            return 400, {"error": "bad_txt"}
        name = f"{self.SUBDOMAIN}.{self.zone}"
        mine = [r for r in self.records if r["name"] == name]
        for old in mine[:max(0, len(mine) - 1)]:
            self.records.remove(old)
        self.add(name, asked["txt"])
        return 200, {"txt": asked["txt"]}


# --- hostile name servers ---------------------------------------------------------------------------------------------

class Hostile(Server):
    """UDP and TCP on one port; udp and tcp are functions of the question's bytes that give lists of messages."""

    def __init__(self, udp, tcp=None, at=None):
        self.udp, self.tcp, self.at, self.asked = udp, tcp, at or ("127.0.0.1", free_port()), []

    def start(self):
        hostile = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                head = self.request.recv(2)
                question = self.request.recv(struct.unpack(">H", head)[0]) if len(head) == 2 else b""
                hostile.asked.append(("tcp", question))
                for message in hostile.tcp(question) if hostile.tcp else []:
                    self.request.sendall(message)

        self.server = socketserver.ThreadingTCPServer(self.at, Handler)
        self.server.daemon_threads = True
        self.port = self.at[1]
        self.udp_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp_socket.bind(self.at)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        threading.Thread(target=self.serve_udp, daemon=True).start()

    def serve_udp(self):
        while True:
            try:
                question, peer = self.udp_socket.recvfrom(65535)
            except OSError:
                return
            self.asked.append(("udp", question, peer[1]))
            for message in self.udp(question):
                try:
                    self.udp_socket.sendto(message, peer)
                except OSError:
                    pass

    def stop(self):
        self.udp_socket.close()
        self.server.shutdown()
        self.server.server_close()


def question_end(question):
    at = 12
    while question[at]:
        at += question[at] + 1
    return at + 5


def reply_to(question, answers=(), authority=(), flags=0x8400, rcode=0):
    """An answer with records as bytes (owner by pointer to the question)."""
    head = question[:2] + struct.pack(">HHHHH", flags | rcode, 1, len(answers), len(authority), 0)
    return head + question[12:question_end(question)] + b"".join(answers) + b"".join(authority)


def record(kind, data, owner=b"\xc0\x0c", ttl=30):
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def wire_name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def soa(zone, negative=2, serial=7):
    return record(6, wire_name("ns1." + zone) + wire_name("h." + zone) + struct.pack(">5I", serial, 1, 1, 1, negative),
                  owner=wire_name(zone), ttl=negative)
