"""An ACME server (RFC 8555) that plays along until a step for which it was given a function: step(answer, request)."""

import base64
import datetime
import json
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hostile import Answer, Server
from lib.certs import Authority, pem


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def problem(name, detail="because", status=400, **more):
    return Answer(status, {"type": f"urn:ietf:params:acme:error:{name}", "detail": detail, "status": status, **more},
                  "application/problem+json")


class Acme:
    """Steps: directory nonce account order authz challenge poll finalize certificate. `polls`: answers that say
    "processing" after finalize before "valid"."""

    def __init__(self, authority):
        self.issuer = Authority("acme")
        self.server = Server(self.handle, authority)
        self.url = self.server.url
        self.twist = {}  # step -> function(answer, request, self) -> Answer or function
        self.orders, self.nonces = {}, set()
        self.issued = []
        self.placed = self.finalized = 0
        self.leaf = None  # function(csr, self) -> PEM chain, in place of issue()
        self.counts = {}

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.__exit__(*args)

    @property
    def port(self):
        return self.server.port

    def nonce(self):
        value = secrets.token_urlsafe(16)
        self.nonces.add(value)
        return value

    def handle(self, request):
        kind, _, number = request.path.strip("/").partition("/")
        kind = kind or "directory"
        body, payload = {}, b""
        if request.method == "POST":
            body = request.json()
            payload = unb64(body["payload"])
            protected = json.loads(unb64(body["protected"]))
            if protected.get("nonce") not in self.nonces:
                answer = problem("badNonce")
                answer.headers.append(("Replay-Nonce", self.nonce()))
                return answer
            self.nonces.discard(protected["nonce"])
        self.counts[kind] = self.counts.get(kind, 0) + 1
        refused = kind == "finalize" and self.orders[number]["status"] != "ready"
        answer = problem("orderNotReady", status=403) if refused else getattr(self, f"do_{kind}")(number, payload)
        if kind != "directory":
            answer.headers.append(("Replay-Nonce", self.nonce()))
        step = "poll" if kind == "order" and not payload else kind
        if step in self.twist:
            answer = self.twist[step](answer, request, self)
        if kind == "neworder" and (callable(answer) or answer.status == 201):
            self.placed += 1
        return answer

    # --- resources

    def do_directory(self, *_):
        return Answer(200, {"newNonce": f"{self.url}/nonce", "newAccount": f"{self.url}/account", "newOrder": f"{self.url}/neworder",
                            "revokeCert": f"{self.url}/revoke", "keyChange": f"{self.url}/keychange"})

    def do_nonce(self, *_):
        return Answer(200, b"", None)

    def do_renewalinfo(self, number, payload):
        now = datetime.datetime.utcnow()
        moment = lambda hours: (now + datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: E731
        return Answer(200, {"suggestedWindow": {"start": moment(10), "end": moment(11)}}, headers=[("Retry-After", "21600")])

    def do_account(self, number, payload):
        return Answer(201, {"status": "valid"}, headers=[("Location", f"{self.url}/account/1")])

    def show(self, number):
        order = self.orders[number]
        shown = {"status": order["status"], "identifiers": order["identifiers"], "finalize": f"{self.url}/finalize/{number}",
                 "authorizations": [f"{self.url}/authz/{number}"], "expires": "2099-01-01T00:00:00Z"}
        if order["status"] == "valid":
            shown["certificate"] = f"{self.url}/certificate/{number}"
        return shown

    def do_neworder(self, _, payload):
        number = str(len(self.orders) + 1)
        self.orders[number] = {"status": "pending", "identifiers": json.loads(payload)["identifiers"], "authz": "pending"}
        return Answer(201, self.show(number), headers=[("Location", f"{self.url}/order/{number}")])

    def do_order(self, number, payload):
        return Answer(200, self.show(number))

    def do_authz(self, number, payload):
        order = self.orders[number]
        return Answer(200, {"status": order["authz"], "identifier": order["identifiers"][0], "challenges": [
            {"type": "http-01", "url": f"{self.url}/challenge/{number}", "token": "t" * 30, "status": "pending"}]})

    def do_challenge(self, number, payload):
        order = self.orders[number]
        order["authz"] = "valid"
        if order["status"] == "pending":
            order["status"] = "ready"
        return Answer(200, {"type": "http-01", "url": f"{self.url}/challenge/{number}", "token": "t" * 30, "status": "valid"})

    def do_finalize(self, number, payload):
        self.finalized += 1
        order = self.orders[number]
        csr = x509.load_der_x509_csr(unb64(json.loads(payload)["csr"]))
        order["status"] = "valid"
        order["pem"] = (self.leaf or issue)(csr, self)
        self.issued.append(number)
        return Answer(200, self.show(number))

    def do_certificate(self, number, payload):
        return Answer(200, self.orders[number]["pem"], "application/pem-certificate-chain")


def names_of(csr):
    return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def build(csr, acme, key=None, names=None, before=-1, after=24, ca=False, digest=None, issuer=None):
    """A leaf for a CSR, wrong where asked: hours from now, another key, names, CA flag, digest, issuer."""
    now = datetime.datetime.utcnow()
    issuer = issuer or acme.issuer
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")]))
            .issuer_name(issuer.name).public_key(key or csr.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(hours=before)).not_valid_after(now + datetime.timedelta(hours=after))
            .add_extension(names or names_of(csr), False).add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(usage, False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False)
            .sign(issuer.key, digest or hashes.SHA256()))


def issue(csr, acme):
    return pem(build(csr, acme)) + acme.issuer.pem()
