"""Client authentication, grants and bindings at a real Keycloak; each token is read back, by its keys and by introspection."""

import select
import socket
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lib import jose
from lib.agent import Keyturn
from lib.certs import Authority, key_pem, load
from lib.keycloak import Keycloak, Realm
from lib.manifests import ca_issuer, certificate, token
from lib.oauth import API, BINDINGS, CLIENT, GRANTS, SCOPE, auth, binding_spec, client_certificate, grant_spec, x5t
from lib.wait import free_port, until


@pytest.fixture(scope="module")
def realm(tmp_path_factory):
    authority = Authority("clients")
    with Keycloak(tmp_path_factory.mktemp("keycloak"), authority) as server, Realm(server, authority) as own:
        yield own


def rows(name):
    """What a client with this method can ask for; a public one has users' refresh tokens only."""
    grants = ["refresh_token"] if name == "none" else list(GRANTS)
    return [(grant, binding) for grant in grants for binding in BINDINGS]


def tag_of(grant, binding):
    return f"{grant.replace('_', '-')}-{binding}"


def documents(kt, realm, name, auths):
    """Two issuers, since it is the client whose tokens are bound to certificates or not; and a Token for every row."""
    own = [realm.oauth2("bound" if bound else "plain", spec) for bound, spec in auths.items()]
    for grant, binding in rows(name):
        bound, tag = binding == "certificate", tag_of(grant, binding)
        own.append(token(tag, "bound" if bound else "plain", audiences=[API], scopes=[SCOPE], outputs=["raw", "header"],
                         **grant_spec(kt, realm, name, grant, bound, tag=f"-{tag}"), **binding_spec(binding)))
    return own


def read_row(kt, realm, name, grant, binding):
    """One token is what was asked for, says its signature and says the server."""
    secret = f"{tag_of(grant, binding)}-token"
    raw = kt.read(secret, "token").decode()
    confirmation, scheme = None, "Bearer"
    if binding == "certificate":
        confirmation = {"x5t#S256": x5t(load(kt.read("client-tls", "tls.crt"))[0])}
    elif binding == "dpop":
        confirmation, scheme = {"jkt": jose.thumbprint(load_pem_private_key(kt.read(secret, "dpop.key"), None))}, "DPoP"
    assert kt.read(secret, "header").decode().strip() == f"Authorization: {scheme} {raw}"
    client = realm.client_id(name, binding == "certificate")
    realm.check(realm.read_jwt(raw), client, grant, confirmation)
    told = realm.introspect(raw)
    assert told["active"] and told["client_id"] == client, told
    realm.check(told, client, grant, confirmation)


def read_rows(kt, realm, name, more):
    wrong = {}
    for grant, binding in rows(name):
        try:
            read_row(kt, realm, name, grant, binding)
        except (AssertionError, OSError) as error:
            wrong[f"{grant}, {binding}"] = str(error)[:400]
    assert not wrong, f"{wrong}\n{more}"


def show_certificate(kt, realm):
    client_certificate(kt, realm)
    realm.shown = kt.volume("client-tls") / "tls.crt", kt.volume("client-tls") / "tls.key"


@pytest.mark.parametrize("name", Realm.METHODS)
def test_matrix(kt, realm, name):
    """Every grant with every binding, by one method: by the issuer's name alone, all at once."""
    show_certificate(kt, realm)
    kt.manifest("token", *documents(kt, realm, name, {bound: auth(kt, realm, name, bound) for bound in (False, True)}))
    kt.ok("check")
    result = kt.ok("renew", timeout=120)
    read_rows(kt, realm, name, result)


def identity(bound=False):
    return "spiffe://example/ns/shop/sa/orders" + ("-bound" if bound else "")


def mesh(kt, realm, alias, **settings):
    """Our own issuer of JWT-SVIDs, whose keys the agent serves and Keycloak fetches."""
    port = free_port()
    kt.agent_settings(listeners={"jwks": f"127.0.0.1:{port}"})
    realm.trust_domain(alias, "spiffe://example", f"http://127.0.0.1:{port}/jwks.json", **settings)
    local = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "mesh"}, "spec": {"local": {
        "issuerURL": "https://spiffe.example"}}}
    svids = [token(f"svid{'-bound' if bound else ''}", "mesh", audiences=[realm.issuer_url], duration="4m",
                   claims={"subject": identity(bound)}) for bound in (False, True)]
    kt.manifest("mesh", local, *svids)


@pytest.mark.parametrize("client", ["its own id", "its identity"])
def test_jwt_svid(kt, realm, client):
    """The client shows a JWT-SVID that our own issuer signs, verified with the keys that the agent serves; clientID is either."""
    name, alias = "spiffe_jwt", client.replace(" ", "-")
    mesh(kt, realm, alias)
    for bound in (False, True):
        realm.federated(realm.client_id(name, bound), alias, identity(bound), bound)
    show_certificate(kt, realm)
    running = kt.start()
    until(lambda: all((kt.volume(svid) / "token").exists() for svid in ("svid-token", "svid-bound-token")), 30, "the JWT-SVIDs")
    realm.svids = {bound: kt.read(f"svid{'-bound' if bound else ''}-token", "token").decode() for bound in (False, True)}
    kt.manifest("token", *documents(kt, realm, name, {bound: {
        "method": name, "clientID": identity(bound) if client == "its identity" else realm.client_id(name, bound),
        "tokenRef": f"svid{'-bound' if bound else ''}-token"} for bound in (False, True)}))
    kt.ok("reload")
    until(lambda: all((kt.volume(f"{tag_of(*row)}-token") / "token").exists() for row in rows(name)), 30, "the tokens")
    read_rows(kt, realm, name, running.err()[-3000:])
    before = kt.read("svid-token", "token"), kt.read("client-credentials-bearer-token", "token")
    kt.ok("renew", "svid", "--force")
    kt.ok("renew", "client-credentials-bearer", "--force")
    assert before[0] != kt.read("svid-token", "token") and before[1] != kt.read("client-credentials-bearer-token", "token")
    read_row(kt, realm, name, "client_credentials", "bearer")
    assert running.stop() == 0, running.err()


def test_jwt_svid_that_is_too_old(kt, realm):
    """Keycloak looks at its age as well, whatever its exp says: it is the SVID that has to be renewed sooner."""
    mesh(kt, realm, "strict", fedClientAssertionMaxExp="1")
    realm.federated("spiffe_jwt", "strict", identity())
    running = kt.start()
    until(lambda: (kt.volume("svid-token") / "token").exists(), 30, "the JWT-SVID")
    time.sleep(2.5)
    plain(kt, realm, {"method": "spiffe_jwt", "clientID": identity(), "tokenRef": "svid-token"})
    kt.ok("reload")
    result = kt.run("renew", "pay")
    assert result.status == 1 and "too far in the past" in result.err and "a shorter spec.duration" in result.err, result
    assert running.stop() == 0, running.err()


def plain(kt, realm, own, **spec):
    """A Token "pay" by this client authentication."""
    kt.manifest("token", realm.oauth2("oidc", own), token("pay", audiences=[API], scopes=[SCOPE], **spec))


# --- refresh tokens, revocation


@pytest.fixture(scope="module", autouse=True)
def superseded(realm):
    """An agent that revokes what a newer token has replaced, beside all the other tests: that takes its minute."""
    with Keyturn() as own:
        methods = ["client_secret_basic", "private_key_jwt-ES256", "tls_client_auth"]
        client_certificate(own, realm)
        documents = []
        for i, name in enumerate(methods):
            documents.append(realm.oauth2(f"at{i}", auth(own, realm, name, secret=f"client-{i}"), revokeSuperseded=True))
            documents.append(token(f"t{i}", f"at{i}", audiences=[API], scopes=[SCOPE]))
        own.manifest("token", *documents)
        running = own.start()
        read = lambda: [own.read(f"t{i}-token", "token").decode() for i in range(len(methods))]  # noqa: E731
        until(lambda: all((own.volume(f"t{i}-token") / "token").exists() for i in range(len(methods))), 30, "the first tokens")
        old = read()
        assert all(realm.introspect(one)["active"] for one in old)
        own.ok("renew", *(f"t{i}" for i in range(len(methods))), "--force")
        new = read()
        assert not set(new) & set(old)
        yield running, old, new


def first_refresh_token(kt, realm, name, bound=False):
    """Of a login in a second before this one: Keycloak tells old from new by whole seconds."""
    given = realm.grant_fields(name, "refresh_token", bound)
    kt.secret("refresh", **given)
    time.sleep(1.1)
    return given


def test_refresh_tokens_rotate(kt, realm):
    """revokeRefreshToken: each is used once; a used one ends the session, which is said by name and asks for another login."""
    own = auth(kt, realm, "client_secret_basic")
    given = first_refresh_token(kt, realm, "client_secret_basic")
    plain(kt, realm, own, grant={"refreshToken": {"secretRef": {"name": "refresh"}}})
    seen = set()
    for _ in range(3):
        kt.ok("renew", "pay", "--force")
        seen.add(realm.read_jwt(kt.read("pay-token", "token"))["jti"])
    assert len(seen) == 3
    status, _, told = realm.ask("client_secret_basic", "refresh_token", given)
    assert (status, told["error"], told["error_description"]) == (400, "invalid_grant", "Stale token"), told
    before = kt.read("pay-token", "token")
    result = kt.run("renew", "pay", "--force")
    assert result.status == 1 and "invalid_grant" in result.err and "keyturn secret set refresh'" in result.err, result
    assert kt.read("pay-token", "token") == before, "still valid, still served"
    kt.secret("refresh", **realm.grant_fields("client_secret_basic", "refresh_token"))
    kt.ok("renew", "pay", "--force")
    assert kt.read("pay-token", "token") != before


def test_bound_refresh_token(kt, realm):
    """A refresh token is bound with the tokens that it gives: another certificate asks for another login, which is said."""
    show_certificate(kt, realm)
    own = auth(kt, realm, "client_secret_basic", True)
    first_refresh_token(kt, realm, "client_secret_basic", True)
    plain(kt, realm, own, certificateRef="client-tls", grant={"refreshToken": {"secretRef": {"name": "refresh"}}})
    kt.ok("renew")
    kt.ok("renew", "pay", "--force")
    kt.ok("renew", "client", "--force")
    result = kt.run("renew", "pay", "--force")
    assert result.status == 1 and "thumbprint" in result.err and "the one in client-tls" in result.err, result
    first_refresh_token(kt, realm, "client_secret_basic", True)
    kt.ok("renew", "pay", "--force")
    assert realm.read_jwt(kt.read("pay-token", "token"))["cnf"] == {"x5t#S256": x5t(load(kt.read("client-tls", "tls.crt"))[0])}


class Cut(threading.Thread):
    """Hands connections on to a port, and loses the first answer: the request arrives, and what comes back is thrown away."""

    REQUEST = 1200  # bytes that a client has sent with a request, and not with a handshake alone

    def __init__(self, port):
        super().__init__(daemon=True)
        self.behind, self.lost = port, 0
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                one, _ = self.door.accept()
            except OSError:
                return
            with one, socket.create_connection(("127.0.0.1", self.behind)) as two:
                self.pass_on(one, two)

    def pass_on(self, one, two):
        sent = 0
        while True:
            for ready in select.select([one, two], [], [], 10)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is one:
                    sent += len(data)
                elif sent > self.REQUEST and not self.lost:
                    self.lost += 1
                    while select.select([two], [], [], 1)[0] and two.recv(65536):
                        pass
                    return
                (two if ready is one else one).sendall(data)


@pytest.mark.parametrize("reuse", [1, 0], ids=["refreshTokenMaxReuse 1", "refreshTokenMaxReuse 0"])
def test_lost_answer(kt, realm, reuse):
    """Rotated, and the answer is lost: the chain goes on where an old token may be used once more, else a login is asked for."""
    realm.set(refreshTokenMaxReuse=reuse)
    cut = Cut(realm.port)
    try:
        own = auth(kt, realm, "client_secret_post")
        first_refresh_token(kt, realm, "client_secret_post")
        issuer = realm.oauth2("oidc", own)
        issuer["spec"]["oauth2"]["tokenURL"] = f"https://localhost:{cut.port}" + realm.path("/token")
        del issuer["spec"]["oauth2"]["issuer"]
        kt.manifest("token", issuer, token("pay", audiences=[API], scopes=[SCOPE], grant={
            "refreshToken": {"secretRef": {"name": "refresh"}}}))
        kt.run("renew", "pay")
        result = kt.run("renew", "pay", "--force")
        assert cut.lost == 1, result
        if reuse:
            assert result.status == 0, result
            kt.ok("renew", "pay", "--force")
        else:
            assert result.status == 1 and "invalid_grant" in result.err and "keyturn secret set refresh'" in result.err, result
            assert not (kt.volume("pay-token") / "token").exists()
    finally:
        cut.door.close()
        realm.set(refreshTokenMaxReuse=0)


# --- what it refuses


REFUSED = {  # why: (the server's word, what is said to help)
    "wrong secret": ("unauthorized_client: Invalid client or Invalid client credentials (HTTP 401)", "keyturn secret set client'"),
    "unknown client": ("invalid_client: Invalid client or Invalid client credentials (HTTP 401)", "auth.clientID"),
    "wrong key": ("invalid_client: Unable to load public key (HTTP 400)", "the key in secret client"),
    "audience of another make": ("invalid_client: Invalid token audience (HTTP 400)", "auth.audience and profile"),
    "unknown scope": ("invalid_scope: Invalid scopes: pay.everything (HTTP 400)", "spec.scopes"),
    "unknown audience": ("invalid_client: Audience not found (HTTP 400)", "spec.audiences"),
    "stranger's subject": ("invalid_request: Invalid token (HTTP 400)", "keyturn why"),
    "no such grant": ("invalid_grant: JWT Authorization Grant is not supported", "keyturn why"),
    "no certificate": ("invalid_request: Client Certification missing", "spec.certificateRef"),
    "stranger's identity": ("invalid_client: Invalid client or Invalid client credentials (HTTP 401)",
                            "the sub of the token in svid-token"),
    "certificate of another name": ("invalid_client: Invalid client or Invalid client credentials (HTTP 401)",
                                    "the certificate in client-tls"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused(kt, realm, why):
    """What Keycloak refuses is final: shown with its own word, where it was, and what helps; and asked for once."""
    own, spec, name = None, {}, "client_secret_post"
    if why == "wrong secret":
        own = auth(kt, realm, name)
        kt.secret("client", client_secret="not the secret")
    elif why == "unknown client":
        own = {**auth(kt, realm, name), "clientID": "nobody"}
    elif why == "wrong key":
        own = auth(kt, realm, "private_key_jwt-ES256")
        kt.secret("client", tls__key=key_pem(jose.new_key("ES256")))
    elif why == "audience of another make":
        own = {**auth(kt, realm, "private_key_jwt-ES256"), "audience": "https://login.example/token"}
    elif why == "unknown scope":
        own, spec = auth(kt, realm, name), {"scopes": ["pay.everything"]}
    elif why == "unknown audience":
        own, spec = auth(kt, realm, name), {"audiences": ["https://other.example"], **grant_spec(kt, realm, name, "token_exchange")}
    elif why == "stranger's subject":
        own, spec = auth(kt, realm, name), grant_spec(kt, realm, name, "token_exchange")
        kt.secret("subject", token=realm.idp_assertion())
    elif why == "no such grant":
        own = {"method": "client_secret_post", "clientID": API, "clientSecretRef": {"name": "client"}}
        kt.secret("client", client_secret=realm.secret("api"))
        spec = grant_spec(kt, realm, name, "jwt_bearer")
    elif why == "no certificate":
        own = auth(kt, realm, name, True)
    elif why == "stranger's identity":
        own = {"method": "spiffe_jwt", "clientID": "spiffe://other/me", "tokenRef": "svid-token"}
        local = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "mesh"}, "spec": {"local": {
            "issuerURL": "https://spiffe.example"}}}
        kt.manifest("mesh", local, token("svid", "mesh", audiences=[realm.issuer_url], claims={"subject": "spiffe://other/me"}))
    else:
        kt.secret("ca-root", tls__crt=realm.clients_ca.pem(), tls__key=key_pem(realm.clients_ca.key))
        kt.manifest("client", ca_issuer(), certificate("client", "ca", **{**CLIENT, "commonName": "other.example"}))
        own = {"method": "tls_client_auth", "clientID": "tls_client_auth", "certificateRef": "client-tls"}
    kt.manifest("token", realm.oauth2("oidc", own), token("pay", **{"audiences": [API], "scopes": [SCOPE], **spec}))
    result = kt.run("renew")
    error, mend = REFUSED[why]
    assert result.status != 0 and error in result.err and mend in result.err and realm.issuer_url in result.err, result
    assert not (kt.volume("pay-token") / "token").exists()


def test_superseded_tokens_are_revoked(realm, superseded):
    """revokeSuperseded at a server whose access tokens are JWTs: they are worth nothing at introspection afterwards."""
    running, old, new = superseded
    until(lambda: not any(realm.introspect(one)["active"] for one in old), 100, "the old ones are revoked",
          pause=0.5)
    assert all(realm.introspect(one)["active"] for one in new)
    assert running.stop() == 0, running.err()
