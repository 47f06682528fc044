"""A stand-in for parts of Anypoint Platform's API: tokens, organizations, keystores of Secrets Manager, TLS contexts of a private space.

It is not MuleSoft's. It holds requests against the published API description (repository mulesoft/mulesoft-dx,
apis/secrets-manager/api.yaml, apis/cloudhub-20/api.yaml) and refuses what that does not allow: unknown fields and paths, sizes, names, a key that is not
encrypted, a passphrase that opens nothing, a key that is another certificate's. In one thing it follows MuleSoft's own client,
which sends `keyStore` where the description says `keystore`: both are taken.
"""

import datetime
import hmac
import json
import re
import secrets
import ssl
import subprocess
import tempfile
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from lib.certs import Authority, load
from lib.servers import Server
from lib.wait import free_port

SPACE = "b72b876d-f63d-4d4e-a06c-080027adee7c"
ORG, ENV, GROUP = "2b5f3d1e-6a0c-4d4e-9a53-1d7c1d2f8a01", "7c0a9a52-53a7-4cf1-8d0f-3f2e5b1c9d02", "59573b4e-cdea-4917-ac34-b047e1e94dbe"
NAME = re.compile(r"^[a-zA-Z][-a-zA-Z0-9]{2,34}$")
COMMON = {"type", "name", "expirationDate", "keyPassphrase"}
LIMITS = {"certificate": 4096, "key": 6144, "capath": 28672, "keyStore": 40960}
FIELDS = {"PEM": ({"certificate", "key"}, {"capath"}),
          "PKCS12": ({"keyStore", "storePassphrase", "alias"}, {"algorithm"}),
          "JKS": ({"keyStore", "storePassphrase", "alias"}, {"algorithm"})}
FILES = {"certificate", "key", "capath", "keyStore"}


class Refused(Exception):
    """An answer of the form {message, errors: [{code, message, field}]}."""

    def __init__(self, status, message, code=None, field=None):
        self.status = status
        self.body = {"message": message}
        if code:
            self.body["errors"] = [{"code": code, "message": message, **({"field": field} if field else {})}]


def parse_form(content_type, body):
    """{name: (bytes, file name or None)} of multipart/form-data."""
    found = re.fullmatch(r"multipart/form-data; boundary=([-A-Za-z0-9]{1,70})", content_type or "")
    if not found:
        raise Refused(415, "Not Supported Content-Type")
    mark = b"--" + found[1].encode()
    parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if parts[0] != b"" or parts[-1] not in (b"--\r\n", b"--"):
        raise Refused(400, "Invalid request", "RB-1003")
    fields = {}
    for part in parts[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'^content-disposition: form-data; name="([^"]+)"(?:; filename="([^"]+)")?', head, re.I | re.M)
        if not name:
            raise Refused(400, "Invalid request", "RB-1003")
        key = name[1].decode()
        key = "keyStore" if key == "keystore" else key
        if key in fields:
            raise Refused(400, "Field given twice", "RB-1003", key)
        fields[key] = (value, name[2].decode() if name[2] else None)
    return fields


def jks_certificates(store, password, alias):
    """What Java itself reads: the chain of the entry, whose key must open with the same password."""
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "s.jks", Path(folder) / "s.p12"
        path.write_bytes(store)
        shown = subprocess.run(["keytool", "-list", "-rfc", "-keystore", path, "-storetype", "JKS", "-storepass", password,
                                "-alias", alias], capture_output=True)
        moved = subprocess.run(["keytool", "-importkeystore", "-srckeystore", path, "-srcstoretype", "JKS", "-srcstorepass", password,
                                "-srckeypass", password, "-srcalias", alias, "-destkeystore", copy, "-deststoretype", "PKCS12",
                                "-deststorepass", password, "-noprompt"], capture_output=True)
        if shown.returncode or moved.returncode:
            raise Refused(400, "The keystore can't be opened", "RB-1006", "keyStore")
        key, cert, _ = load_key_and_certificates(copy.read_bytes(), password.encode())
        return key, load(shown.stdout)


def details(cert):
    """CertificateDetails, as far as anybody here looks."""
    def name(of):
        found = of.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return {"commonName": found[0].value if found else ""}

    def time(of):
        return of.strftime("%Y-%m-%d %H:%M:%S")

    return {"issuer": name(cert.issuer), "subject": name(cert.subject), "version": "3", "serialNumber": f"{cert.serial_number:X}",
            "signatureAlgorithm": "SHA256withECDSA", "publicKeyAlgorithm": "EC", "certificateType": "X.509",
            "validity": {"notBefore": time(cert.not_valid_before), "notAfter": time(cert.not_valid_after)}}


def check_keystore(form):
    """(type, name, key, certificates, file names, alias) of a form, or why it is refused."""
    kind = form.get("type", (b"", None))[0].decode(errors="replace")
    if kind not in FIELDS:
        raise Refused(400, "Invalid field value", "RB-1003", "type")
    required, optional = FIELDS[kind]
    for field in sorted((required | {"name", "keyPassphrase"}) - set(form)):
        raise Refused(400, "Missing field", "RB-1004", field)
    for field in sorted(set(form) - required - optional - COMMON):
        raise Refused(400, "Unknown field", "RB-1003", field)
    for field, (value, file) in form.items():
        if not value:
            raise Refused(400, "Field with empty value", "RB-1004", field)
        if (field in FILES) != (file is not None):
            raise Refused(400, "Invalid field value", "RB-1003", field)
        if len(value) > LIMITS.get(field, 64):
            raise Refused(400, "Limit exceeded", "RB-1008", field)
    name = form["name"][0].decode()
    if not NAME.match(name):
        raise Refused(400, "Invalid field value", "RB-1003", "name")
    password = form["keyPassphrase"][0]
    try:
        if kind == "PEM":
            if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in form["key"][0]:
                raise Refused(400, "The key is not encrypted", "RB-1006", "key")
            key = load_pem_private_key(form["key"][0], password)
            certs = load(form["certificate"][0]) + load(form.get("capath", (b"", None))[0])
            if len(load(form["certificate"][0])) != 1:
                raise Refused(400, "One certificate", "RB-1006", "certificate")
        elif kind == "PKCS12":
            if form["storePassphrase"][0] != password:
                raise Refused(400, "PKCS12 has one passphrase", "RB-1006", "keyPassphrase")
            from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
            store = load_pkcs12(form["keyStore"][0], password)
            if store.cert.friendly_name != form["alias"][0]:
                raise Refused(400, "No entry of that alias", "RB-1006", "alias")
            key, certs = store.key, [store.cert.certificate] + [c.certificate for c in store.additional_certs]
        else:
            key, certs = jks_certificates(form["keyStore"][0], form["storePassphrase"][0].decode(), form["alias"][0].decode())
    except ValueError as why:
        raise Refused(400, f"Not readable: {why}", "RB-1006") from None
    if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != certs[0].public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise Refused(400, "The key is another certificate's", "RB-1006", "key")
    for issuer, cert in zip(certs[1:], certs):
        if cert.issuer != issuer.subject:
            raise Refused(400, "The chain has a gap", "RB-1006", "capath")
    if certs[0].not_valid_after < datetime.datetime.utcnow():
        raise Refused(400, "Certificate expired", "RB-1007", "certificate")
    return kind, name, certs, {f: v[1] for f, v in form.items() if v[1]}, form.get("alias", (b"", None))[0].decode()


class Anypoint(Server):
    """keystores: {id: dict as GET shows it}; requests: [(method, path, status)]; forms: the bodies of uploads."""

    def __init__(self, tmp):
        self.port, self.authority = free_port(), Authority("anypoint stand-in")
        self.host = f"localhost:{self.port}"
        self.client, self.secret = "connected-app", secrets.token_urlsafe(24)
        self.cert, self.key, self.ca = self.authority.write(tmp, "localhost", "127.0.0.1")
        self.keystores, self.tokens, self.requests, self.forms, self.faults = {}, set(), [], [], []
        self.contexts, self.patches = {}, []
        self.lock = threading.RLock()
        self.show = lambda entry: entry  # tests put a liar here

    def refuse(self, status, body=b"", times=1, method=None, headers=None):
        """The next requests below secretGroups fail."""
        self.faults += [(status, body, method, headers or {})] * times

    # --- the API

    def token(self, body, content_type):
        if content_type.startswith("application/json"):
            asked = json.loads(body)
        else:
            asked = {k: v[0] for k, v in parse_qs(body.decode()).items()}
        if asked.get("grant_type") != "client_credentials" or asked.get("client_id") != self.client or \
                not hmac.compare_digest(asked.get("client_secret", ""), self.secret):
            raise Refused(401, "Unauthorized")
        token = str(uuid.uuid4())
        self.tokens.add(token)
        return 200, {"access_token": token, "token_type": "bearer"}

    def accounts(self, path):
        org = {"id": ORG, "name": "Acme", "isRoot": True, "subOrganizationIds": [], "parentOrganizationIds": []}
        if path in ("/accounts/api/users/me", "/accounts/api/me"):
            return 200, {"id": "u1", "username": "connected-app", "organization": org, "organizationPreferences": {},
                         "memberOfOrganizations": [org]}
        if path == f"/accounts/api/organizations/{ORG}":
            return 200, {**org, "subOrganizations": [], "environments": [{"id": ENV, "name": "Sandbox", "type": "sandbox"}]}
        if path == f"/accounts/api/organizations/{ORG}/environments":
            return 200, {"data": [{"id": ENV, "name": "Sandbox", "type": "sandbox", "organizationId": ORG}], "total": 1}
        raise Refused(404, "Not found")

    def secret_groups(self, method, path, headers, body):
        base = f"/secrets-manager/api/v1/organizations/{ORG}/environments/{ENV}/secretGroups/{GROUP}/keystores"
        if path != base and not path.startswith(base + "/"):
            raise Refused(404, "No such secret group found")
        one = path[len(base) + 1:]
        if one and one not in self.keystores:
            raise Refused(404, "Requested resource not found")
        if method == "GET" and not one:
            return 200, [{k: e[k] for k in ("meta", "name", "expirationDate", "type")} for e in self.keystores.values()]
        if method == "GET":
            return 200, self.show(dict(self.keystores[one]))
        if method != ("PUT" if one else "POST"):
            raise Refused(405, "Method not allowed")
        self.forms.append(body)
        kind, name, certs, files, alias = check_keystore(parse_form(headers.get("Content-Type"), body))
        if any(e["name"] == name and i != one for i, e in self.keystores.items()):
            raise Refused(400, "Name already in use", "RB-1002", "name")
        key = one or str(uuid.uuid4())
        shown = {"meta": {"id": key, "path": f"keystores/{key}", "modifiedAt": f"{datetime.datetime.utcnow():%Y-%m-%d %H:%M:%S}"},
                 "name": name, "type": kind, "expirationDate": f"{certs[0].not_valid_after:%Y-%m-%d}",
                 "details": {"certificate": details(certs[0]), "capath": [details(c) for c in certs[1:]]}}
        if kind == "PEM":
            shown |= {"certificateFileName": files["certificate"], "keyFileName": files["key"]}
            shown |= {"capathFileName": files["capath"]} if "capath" in files else {}
        else:
            shown |= {"keystoreFileName": files["keyStore"], "alias": alias}
        self.keystores[key] = shown
        return (200, {"message": "Secret updated successfully"}) if one else (201, {"id": key, "message": "Secret created successfully"})

    def tls_contexts(self, method, path, headers, body):
        """GET shows neither serial nor time: only the day of the end, the name and the alternative names."""
        base = f"/runtimefabric/api/organizations/{ORG}/privatespaces/{SPACE}/tlsContexts"
        one = path[len(base) + 1:]
        if path == base and method == "GET":
            return 200, list(self.contexts.values())
        if not path.startswith(base + "/") or one not in self.contexts:
            raise Refused(404, "Not found")
        if method == "GET":
            return 200, self.contexts[one]
        if method != "PATCH":
            raise Refused(405, "Method not allowed")
        if headers.get("Content-Type") != "application/json":
            raise Refused(415, "Unsupported media type")
        asked = json.loads(body)
        store = asked.get("tlsConfig", {}).get("keyStore", {})
        names = {"source", "certificate", "key", "capath", "keyPassphrase", "certificateFileName", "keyFileName", "capathFileName"}
        if set(asked) - {"name", "tlsConfig", "ciphers"} or set(store) - names or store.get("source") != "PEM":
            raise Refused(400, "Invalid request")
        form = {"type": (b"PEM", None), "name": (b"context", None), "keyPassphrase": (store["keyPassphrase"].encode(), None)}
        form |= {k: (store[k].encode(), store[k + "FileName"]) for k in ("certificate", "key", "capath") if k in store}
        _, _, certs, files, _ = check_keystore(form)
        self.patches.append((one, certs[0].serial_number))
        self.contexts[one]["keyStore"] = {"type": "PEM", "cn": "", "san": [], "fileName": files["certificate"],
                                          "expirationDate": f"{certs[0].not_valid_after:%Y-%m-%d}"}
        return 200, self.contexts[one]

    def answer(self, method, target, headers, body):
        path = unquote(urlsplit(target).path)
        if path == "/accounts/api/v2/oauth2/token" and method == "POST":
            return *self.token(body, headers.get("Content-Type", "")), {}
        if path.startswith("/cli/api/v1/analytics/"):
            return 200, {}, {}
        if headers.get("Authorization", "").partition(" ")[2] not in self.tokens:
            raise Refused(401, "Invalid Bearer Token")
        if path.startswith("/runtimefabric/"):
            return *self.tls_contexts(method, path, headers, body), {}
        if not path.startswith("/secrets-manager/"):
            return *self.accounts(path), {}
        for i, (status, text, only, more) in enumerate(self.faults):
            if only in (None, method):
                del self.faults[i]
                return status, text, more
        return *self.secret_groups(method, path, headers, body), {}

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                more = {}
                with outer.lock:
                    try:
                        status, said, more = outer.answer(self.command, self.path, self.headers, body)
                    except Refused as refused:
                        status, said = refused.status, refused.body
                    outer.requests.append((self.command, self.path, status))
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    # --- manifests

    def token_issuer(self, name="anypoint"):
        """Its client secret is in Secret anypoint-client."""
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"oauth2": {
            "profile": "Anypoint", "tokenURL": f"https://{self.host}/accounts/api/v2/oauth2/token", "caBundle": self.authority.bundle(),
            "auth": {"method": "client_secret_post", "clientID": self.client, "clientSecretRef": {"name": "anypoint-client"}}}}}

    def target(self, secret, name, kind="PEM", **more):
        return {"secret": secret, "anypointSecretGroup": {
            "host": self.host, "caBundle": self.authority.bundle(), "organization": ORG, "environment": ENV, "secretGroup": GROUP,
            "name": name, "type": kind, "tokenRef": "anypoint-token", **more}}

    def space_target(self, secret, name):
        return {"secret": secret, "anypointPrivateSpace": {
            "host": self.host, "caBundle": self.authority.bundle(), "organization": ORG, "privateSpace": SPACE, "name": name,
            "tokenRef": "anypoint-token"}}

    def add_context(self, name):
        key = str(uuid.uuid4())
        self.contexts[key] = {"id": key, "name": name, "type": "custom", "ciphers": {"tlsAes128GcmSha256": True},
                              "keyStore": {"type": "PEM", "cn": "old.example", "san": [], "fileName": "old.pem", "expirationDate": "2022-08-13"}}
        return key

    def entry(self, name):
        return next(e for e in self.keystores.values() if e["name"] == name)

    def uploads(self):
        return [r for r in self.requests if r[0] in ("POST", "PUT") and "/keystores" in r[1]]
