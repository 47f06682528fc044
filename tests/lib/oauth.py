"""The clients, keys and grants of the OAuth tests, and a client of their own that proves the server before keyturn is tried."""

import base64
import hashlib
import time
from pathlib import Path
from urllib.parse import quote_plus

from cryptography.hazmat.primitives.serialization import Encoding

from . import jose
from .certs import Authority, key_pem, load, pem
from .manifests import ca_issuer, certificate
from .servers import OidcProvider

API = "https://payments.example/api"  # its tokens are JWTs
OPAQUE = "https://payments.example/opaque"  # its tokens are not
IDP = "https://idp.example"  # whose assertions the server takes
SCOPE = "pay.write"

# name -> (method, algorithm of the assertion)
METHODS = {
    "client_secret_basic": ("client_secret_basic", None),
    "client_secret_post": ("client_secret_post", None),
    "client_secret_jwt": ("client_secret_jwt", "HS256"),
    **{f"private_key_jwt-{alg}": ("private_key_jwt", alg) for alg in ("ES256", "ES384", "RS256", "PS256", "EdDSA")},
    "tls_client_auth": ("tls_client_auth", None),
    "self_signed_tls_client_auth": ("self_signed_tls_client_auth", None),
    "none": ("none", None),
}
GRANTS = {
    "client_credentials": "client_credentials",
    "token_exchange": "urn:ietf:params:oauth:grant-type:token-exchange",
    "jwt_bearer": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "refresh_token": "refresh_token",
}
BINDINGS = ("bearer", "certificate", "dpop")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


SELF_SIGNED = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ca"}, "spec": {"selfSigned": {}}}
CLIENT = {"names": ["client.example"], "usages": ["digital signature", "client auth"], "duration": "2h", "renewBefore": "30m",
          "commonName": "client.example"}


def x5t(cert):
    """cnf.x5t#S256 of a certificate."""
    return jose.b64(hashlib.sha256(cert.public_bytes(Encoding.DER)).digest())


def self_signed_jwks(cert):
    """What a client registers for self_signed_tls_client_auth."""
    return {"keys": [jose.jwk(cert.public_key(), x5c=[base64.b64encode(cert.public_bytes(Encoding.DER)).decode()])]}


class World:
    """One oidc-provider with a client for every method (and "<name>+cert" for tokens that are bound to a certificate)."""

    def __init__(self, tmp, **settings):
        self.tmp = Path(tmp)
        self.clients_ca = Authority("clients")
        self.idp_key = jose.new_key("ES256")
        self.keys = {name: jose.new_key(alg) for name, (method, alg) in METHODS.items() if method == "private_key_jwt"}
        clients = [self.metadata(name, bound) for name in METHODS for bound in (False, True)
                   if name != "self_signed_tls_client_auth"]
        clients.append({"client_id": "post", "client_secret": "post-secret-0123456789", "token_endpoint_auth_method": "client_secret_post"})
        self.server = OidcProvider(self.tmp, clients=clients, client_authority=self.clients_ca, formats={OPAQUE: "opaque"},
                                   **{"ttl": 300, **settings})

    @staticmethod
    def client_id(name, bound=False):
        return name + ("+cert" if bound else "")

    @staticmethod
    def secret(name):
        return f"{name}: a secret/of+48 characters, 100% sure&=".ljust(48, "~")

    def metadata(self, name, bound, cert=None):
        method, alg = METHODS[name]
        own = {"client_id": self.client_id(name, bound), "token_endpoint_auth_method": method}
        if method == "none":
            own["grant_types"] = [g for g in GRANTS.values() if g != "client_credentials"]
        if method.startswith("client_secret"):
            own["client_secret"] = self.secret(name)
        if alg:
            own["token_endpoint_auth_signing_alg"] = alg
        if method == "private_key_jwt":
            own["jwks"] = {"keys": [jose.jwk(self.keys[name], kid=jose.thumbprint(self.keys[name]))]}
        if method == "tls_client_auth":
            own["tls_client_auth_san_dns"] = "client.example"
        if cert:
            own["jwks"] = self_signed_jwks(cert)
        if bound:
            own["tls_client_certificate_bound_access_tokens"] = True
        return own

    def register_self_signed(self, cert):
        for bound in (False, True):
            self.server.set_client(**self.metadata("self_signed_tls_client_auth", bound, cert))

    def __enter__(self):
        self.server.start()
        self.server.trust(IDP, {"keys": [jose.jwk(self.idp_key, kid=jose.thumbprint(self.idp_key))]})
        return self

    def __exit__(self, *_):
        self.server.stop()

    # --- what goes into the grants

    def idp_assertion(self, subject="alice", life=3600, **more):
        return jose.assertion(IDP, subject, self.server.issuer_url, self.idp_key, life=life, **more)

    def user_token(self, subject="alice"):
        """An access token (a JWT) for somebody."""
        status, _, told = self.ask("client_secret_post", "jwt_bearer", {"assertion": self.idp_assertion(subject)})
        assert status == 200, told
        return told["access_token"]

    def actor_token(self):
        """An access token of the client client_secret_post itself."""
        status, _, told = self.ask("client_secret_post", "client_credentials")
        assert status == 200, told
        return told["access_token"]

    def grant_fields(self, name, grant, bound=False, resource=API):
        """What the grant needs beside resource and scope."""
        if grant == "token_exchange":
            return {"subject_token": self.user_token(), "subject_token_type": ACCESS_TOKEN,
                    "actor_token": self.actor_token(), "actor_token_type": ACCESS_TOKEN}
        if grant == "jwt_bearer":
            return {"assertion": self.idp_assertion()}
        if grant == "refresh_token":
            return {"refresh_token": self.server.refresh_token(self.client_id(name, bound), resource=resource)}
        return {}

    # --- a plain client

    def certificate(self, *names):
        """(certificate, its file, its key's file) by the CA of clients."""
        cert, key = self.clients_ca.issue(*(names or ("client.example",)), client=True)
        paths = self.tmp / f"client-{cert.serial_number}.crt", self.tmp / f"client-{cert.serial_number}.key"
        for path, data in zip(paths, (pem(cert), key_pem(key))):
            path.write_bytes(data)
        return cert, *paths

    def authenticate(self, name, bound=False, now=None):
        """(fields, headers) by which a client shows who it is."""
        method, alg = METHODS[name]
        client = self.client_id(name, bound)
        if method == "client_secret_basic":
            pair = f"{quote_plus(client)}:{quote_plus(self.secret(name))}".encode()
            return {}, {"Authorization": "Basic " + base64.b64encode(pair).decode()}
        if method == "client_secret_post":
            return {"client_id": client, "client_secret": self.secret(name)}, {}
        if alg:
            key = self.secret(name) if alg == "HS256" else self.keys[name]
            own = jose.assertion(client, client, self.server.issuer_url, key, alg, now=now)
            return {"client_assertion": own, "client_assertion_type": ASSERTION_TYPE}, {}
        return {"client_id": client}, {}

    def ask(self, name, grant, fields=None, bound=False, certificate=None, dpop=None, resource=API, scope=SCOPE, now=None):
        """(status, headers, JSON) of one token request by hand; certificate: files; dpop: key of the proof."""
        form = {"grant_type": GRANTS[grant], "resource": resource, "scope": scope, **(fields or {})}
        nonce = None
        for _ in range(2):  # the second with the nonce that the first one was told
            own, headers = self.authenticate(name, bound, now)
            if dpop:
                port = self.server.mtls_port if certificate else self.server.port
                headers["DPoP"] = jose.proof(dpop, "POST", f"https://localhost:{port}/token", nonce)
            status, answered, told = self.server.form("/token", {**form, **own}, headers, certificate)
            if not dpop or told.get("error") != "use_dpop_nonce":
                break
            nonce = answered["DPoP-Nonce"]
        return status, answered, told

    # --- reading back

    def read_jwt(self, token):
        """Its claims, verified with the server's JWKS."""
        claims = jose.verify(token, self.server.jwks())
        assert claims["iss"] == self.server.issuer_url and claims["exp"] > time.time()
        return claims

    def check(self, told, client, grant, confirmation, audience, actor="client_secret_post"):
        """What a token says (its claims, or the answer of introspection) is what was asked for."""
        assert told["client_id"] == client and told["scope"] == SCOPE and told["aud"] == audience, told
        if grant != "client_credentials":
            assert told["sub"] == "alice", told
        assert told.get("act") == ({"sub": actor} if grant == "token_exchange" else None), told
        assert told.get("cnf") == confirmation, told


# --- manifests, with what they need in the store


def auth(kt, world, name, bound=False, secret="client"):
    """spec.oauth2.auth of a method; what it needs is put into the store."""
    method, alg = METHODS[name]
    own = {"method": method, "clientID": world.client_id(name, bound)}
    if method.startswith("client_secret"):
        kt.secret(secret, client_secret=world.secret(name))
        own["clientSecretRef"] = {"name": secret}
    if method == "private_key_jwt":
        kt.secret(secret, tls__key=key_pem(world.keys[name]))
        own["keySecretRef"] = {"name": secret}
        if alg == "PS256":  # the others are what the key can do
            own["algorithm"] = alg
    if "tls" in method:
        own["certificateRef"] = "client-tls"
    return own


def client_certificate(kt, world, name="tls_client_auth"):
    """A Certificate of ours that the client shows, in client-tls."""
    if name == "self_signed_tls_client_auth":
        kt.manifest("client", SELF_SIGNED, certificate("client", "ca", **CLIENT))
    else:
        kt.secret("ca-root", tls__crt=world.clients_ca.pem(), tls__key=key_pem(world.clients_ca.key))
        kt.manifest("client", ca_issuer(), certificate("client", "ca", **CLIENT))
    kt.ok("renew", "client", "--force")
    own = load(kt.read("client-tls", "tls.crt"))[0]
    if name == "self_signed_tls_client_auth":
        world.register_self_signed(own)
    return own


def grant_spec(kt, world, name, grant, bound=False, resource=API, tag=""):
    """spec.grant of a Token; what goes into it is put into the store."""
    given = world.grant_fields(name, grant, bound, resource)
    if grant == "token_exchange":
        spec = {}
        for who in ("subject", "actor"):
            if f"{who}_token" in given:
                kt.secret(f"{who}{tag}", token=given[f"{who}_token"])
                spec[who] = {"secretRef": {"name": f"{who}{tag}"}}
        return {"grant": {"tokenExchange": spec}}
    if grant == "jwt_bearer":
        kt.secret(f"assertion{tag}", token=given["assertion"])
        return {"grant": {"jwtBearer": {"assertion": {"secretRef": {"name": f"assertion{tag}"}}}}}
    if grant == "refresh_token":
        kt.secret(f"refresh{tag}", refresh_token=given["refresh_token"])
        return {"grant": {"refreshToken": {"secretRef": {"name": f"refresh{tag}"}}}}
    return {}


def binding_spec(binding):
    return {"certificate": {"certificateRef": "client-tls"}, "dpop": {"dpop": {}}}.get(binding, {})
