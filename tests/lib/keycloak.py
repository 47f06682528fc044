"""A real Keycloak, and a realm in it with a client for every authentication, grant and binding that it knows."""

import http.client
import json
import os
import ssl
import subprocess
import time
from pathlib import Path
from urllib.parse import quote_plus, urlencode

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import jose
from .certs import Authority
from .oauth import ACCESS_TOKEN, API, ASSERTION_TYPE, IDP, METHODS, SCOPE, World
from .servers import PEERS, Server, lacking, program
from .wait import Process, free_port

ADMIN = "administrator"  # of a server on loopback that keeps nothing


def flat(**values):
    """Attributes as Keycloak has them: text only."""
    return {key: {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else str(value)
            for key, value in values.items()}


class Keycloak(Server):
    """Keycloak over TLS, with a database in memory; certificates of client_authority are asked for, and may be left out."""

    def __init__(self, tmp, client_authority):
        self.tmp = Path(tmp) / f"keycloak-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.authority = Authority("keycloak")
        self.client_authority = client_authority
        self.cert, self.key, _ = self.authority.write(self.tmp, "localhost")
        self.token = None, 0

    def start(self):
        folder = next((PEERS / "keycloak").glob("keycloak-*/bin"), None)
        if not folder or not (PEERS / "keycloak" / ".keycloak").exists():
            lacking("no Keycloak")
        roots, trust = self.tmp / "clients.crt", self.tmp / "clients.p12"
        roots.write_bytes(self.client_authority.pem())
        subprocess.run([program("keytool"), "-importcert", "-noprompt", "-alias", "clients", "-file", roots, "-keystore", trust,
                        "-storetype", "PKCS12", "-storepass", ADMIN], check=True, capture_output=True, timeout=60)
        options = {"hostname": self.url, "http-enabled": "false", "http-host": "127.0.0.1", "https-port": self.port,
                   "https-certificate-file": self.cert, "https-certificate-key-file": self.key, "https-trust-store-file": trust,
                   "https-trust-store-password": ADMIN}
        env = {**os.environ, "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN, "JAVA_OPTS":
               "-Xms64m -Xmx512m -XX:MaxMetaspaceSize=256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError"}
        self.process = Process(["bash", folder / "kc.sh", "start", "--optimized", *(f"--{k}={v}" for k, v in options.items())],
                               self.tmp / "keycloak.log", env=env)
        self.process.wait_port(self.port, 300)

    def context(self, certificate=None):
        """For requests to it; certificate: (file, key file) that the connection shows."""
        context = ssl.create_default_context(cadata=self.authority.pem().decode())
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        return context

    def call(self, method, path, body=None, headers=None, certificate=None):
        """(status, headers, body)."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.context(certificate))
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def form(self, path, fields, headers=None, certificate=None):
        """(status, headers, JSON) of a form that is posted by hand."""
        status, answered, body = self.call("POST", path, urlencode(fields, doseq=True),
                                           {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}, certificate)
        return status, answered, json.loads(body) if body else None

    def admin(self, method, path, told=None):
        """A request to the administrator's interface; its JSON."""
        if self.token[1] < time.monotonic():
            status, _, own = self.form("/realms/master/protocol/openid-connect/token", {
                "grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN})
            assert status == 200, own
            self.token = own["access_token"], time.monotonic() + own["expires_in"] / 2
        status, _, body = self.call(method, f"/admin/realms{path}", json.dumps(told) if told is not None else None,
                                    {"Authorization": f"Bearer {self.token[0]}", "Content-Type": "application/json"})
        assert status < 300, (method, path, status, body)
        return json.loads(body) if body else None


class Realm(World):
    """
    A realm with a client for every method (and "<name>+cert" for tokens that are bound to a certificate), the API that the tokens
    are for (a client too, which introspects them), a user, and an identity provider whose assertions it takes.
    """

    NAME = "pay"
    METHODS = [name for name in METHODS if name not in ("self_signed_tls_client_auth", "private_key_jwt-ES384")]
    GRANTED = {"standard.token.exchange.enabled": True, "oauth2.jwt.authorization.grant.enabled": True,
               "oauth2.jwt.authorization.grant.idp": "idp"}
    LOGIN = "login"  # where users' tokens come from: another client

    def __init__(self, keycloak, clients_ca):  # pylint: disable=super-init-not-called
        self.keycloak, self.clients_ca, self.server = keycloak, clients_ca, self
        self.tmp = keycloak.tmp
        self.idp_key = jose.new_key("ES256")
        self.keys = {name: jose.new_key(alg) for name, (method, alg) in METHODS.items() if method == "private_key_jwt"}
        self.issuer_url = f"{keycloak.url}/realms/{self.NAME}"
        self.port = self.mtls_port = keycloak.port

    def __enter__(self):
        self.keycloak.admin("POST", "", self.representation())
        return self

    def __exit__(self, *_):
        pass

    # --- what is in it

    @staticmethod
    def audience(*names):
        """Mappers that put names into aud."""
        return [{"name": f"for {name}", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper", "config": {
            "included.custom.audience": name, "access.token.claim": "true", "introspection.token.claim": "true"}} for name in names]

    def client(self, client_id, audiences=(API,), attributes=None, **more):
        sub = {"name": "sub", "protocol": "openid-connect", "protocolMapper": "oidc-sub-mapper",
               "config": {"access.token.claim": "true", "introspection.token.claim": "true"}}
        return {"clientId": client_id, "enabled": True, "serviceAccountsEnabled": not more.get("publicClient"),
                "standardFlowEnabled": False, "directAccessGrantsEnabled": True, "fullScopeAllowed": False,
                "defaultClientScopes": [], "optionalClientScopes": [SCOPE], "protocolMappers": [sub, *self.audience(*audiences)],
                "attributes": flat(**(attributes or {})), **more}

    def method_client(self, name, bound):
        method, alg = METHODS[name]
        kinds = {"client_secret_jwt": "client-secret-jwt", "private_key_jwt": "client-jwt", "tls_client_auth": "client-x509"}
        attributes = {**self.GRANTED, "tls.client.certificate.bound.access.tokens": bound}
        if alg:
            attributes["token.endpoint.auth.signing.alg"] = alg
        if method == "private_key_jwt":
            key = self.keys[name]
            attributes.update({"use.jwks.string": True, "jwks.string": json.dumps(
                {"keys": [jose.jwk(key, kid=jose.thumbprint(key), use="sig", alg=alg)]})})
        if method == "tls_client_auth":
            attributes.update({"x509.subjectdn": "CN=client.example", "x509.casubjectdn": "CN=clients root",
                               "x509.allow.regex.pattern.comparison": False})
        if method == "none":
            attributes = {"tls.client.certificate.bound.access.tokens": bound}
        return self.client(self.client_id(name, bound), attributes=attributes, publicClient=method == "none",
                           clientAuthenticatorType=kinds.get(method, "client-secret"), secret=self.secret(name))

    def trust_domain(self, alias, domain, keys, **settings):
        """A SPIFFE trust domain whose JWT-SVIDs clients may show; keys: where its bundle is."""
        self.keycloak.admin("POST", f"/{self.NAME}/identity-provider/instances", {
            "alias": alias, "providerId": "spiffe", "enabled": True, "config": {
                "trustDomain": domain, "bundleEndpoint": keys, **settings}})

    def federated(self, client_id, alias, identity, bound=False):
        """A client whose credential is a JWT-SVID of that identity; one of that name before is taken away."""
        for own in self.keycloak.admin("GET", f"/{self.NAME}/clients?clientId={quote_plus(client_id)}"):
            self.keycloak.admin("DELETE", f"/{self.NAME}/clients/{own['id']}")
        self.keycloak.admin("POST", f"/{self.NAME}/clients", self.client(
            client_id, clientAuthenticatorType="federated-jwt", attributes={
                **self.GRANTED, "tls.client.certificate.bound.access.tokens": bound, "jwt.credential.issuer": alias,
                "jwt.credential.sub": identity}))

    def representation(self):
        own = [self.method_client(name, bound) for name in self.METHODS for bound in (False, True)]
        names = [*(client["clientId"] for client in own), *(self.client_id("spiffe_jwt", bound) for bound in (False, True))]
        login = self.client(self.LOGIN, [API, *names], publicClient=True)
        api = self.client(API, [], secret=self.secret("api"))
        public = self.idp_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        idp = {"alias": "idp", "providerId": "jwt-authorization-grant", "enabled": True, "config": flat(
            issuer=IDP, useJwksUrl=False, publicKeySignatureVerifier=public, jwtAuthorizationGrantEnabled=True,
            publicKeySignatureVerifierKeyId=jose.thumbprint(self.idp_key),
            jwtAuthorizationGrantAssertionSignatureAlg="ES256", jwtAuthorizationGrantMaxAllowedAssertionExpiration=3600)}
        alice = {"username": "alice", "enabled": True, "email": "alice@example.org", "firstName": "Alice", "lastName": "Example",
                 "emailVerified": True, "credentials": [{"type": "password", "value": ADMIN}],
                 "federatedIdentities": [{"identityProvider": "idp", "userId": "alice", "userName": "alice"}]}
        scope = {"name": SCOPE, "protocol": "openid-connect", "attributes": flat(**{"include.in.token.scope": True})}
        return {"realm": self.NAME, "enabled": True, "sslRequired": "external", "revokeRefreshToken": True, "refreshTokenMaxReuse": 0,
                "accessTokenLifespan": 300, "clients": [*own, login, api], "clientScopes": [scope], "users": [alice],
                "identityProviders": [idp]}

    # --- as the World of oidc-provider

    def set(self, **settings):
        """Other settings of the realm."""
        self.keycloak.admin("PUT", f"/{self.NAME}", settings)

    def path(self, path):
        return f"/realms/{self.NAME}/protocol/openid-connect{path}"

    def form(self, path, fields, headers=None, certificate=None):
        return self.keycloak.form(self.path(path), fields, headers, certificate)

    def password(self, name, bound=False, certificate=None):
        """What a login of alice gives the client."""
        fields = {"grant_type": "password", "username": "alice", "password": ADMIN}
        status, _, told = self.ask(name, "client_credentials", fields, bound, certificate)
        assert status == 200, told
        return told

    def authenticate(self, name, bound=False, now=None):
        if name == "spiffe_jwt":
            return {"client_assertion": self.svids[bound], "client_assertion_type": ASSERTION_TYPE.replace("bearer", "spiffe")}, {}
        return super().authenticate(name, bound, now) if name in METHODS else ({"client_id": name}, {})

    def grant_fields(self, name, grant, bound=False, resource=API):
        if grant == "token_exchange":
            return {"subject_token": self.password(self.LOGIN)["access_token"], "subject_token_type": ACCESS_TOKEN}
        if grant == "jwt_bearer":
            return {"assertion": self.idp_assertion()}
        if grant == "refresh_token":
            shown = self.shown if bound or name == "tls_client_auth" else None
            return {"refresh_token": self.password(name, bound, shown)["refresh_token"]}
        return {}

    svids = {}  # whether bound -> what the clients that have no other credential show
    shown = None  # (certificate's file, key's file) of the client while it asks for a first refresh token

    def jwks(self):
        status, _, body = self.keycloak.call("GET", self.path("/certs"))
        assert status == 200, body
        return json.loads(body)

    def introspect(self, token):
        """By the API itself, for which the token is."""
        status, _, told = self.form("/token/introspect", {"token": token, "client_id": API, "client_secret": self.secret("api")})
        assert status == 200, told
        return told

    def oauth2(self, name, auth, **more):
        """A TokenIssuer manifest for it with any client authentication."""
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"oauth2": {
            "issuer": self.issuer_url, "profile": "Keycloak", "caBundle": self.keycloak.authority.bundle(), "auth": auth, **more}}}

    def check(self, told, client, grant, confirmation, audience=API, actor=None):
        """What a token says (its claims, or the answer of introspection) is what was asked for."""
        aud = told["aud"] if isinstance(told["aud"], list) else [told["aud"]]
        assert told["azp"] == client and told["scope"] == SCOPE and audience in aud, told
        user = "alice" if grant != "client_credentials" else f"service-account-{client}".lower()
        assert told.get("username", user) == user and told["sub"], told
        told.get("cnf", {}).pop("kc-jkt-type", None)  # a word of Keycloak's own
        assert told.get("cnf") == confirmation, told
