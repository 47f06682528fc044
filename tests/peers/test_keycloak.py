"""Client authentication, grants and bindings at a real Keycloak; each token is read back, by its keys and by introspection."""

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lib import jose
from lib.certs import Authority, load
from lib.keycloak import Keycloak, Realm
from lib.manifests import token
from lib.oauth import API, BINDINGS, GRANTS, SCOPE, auth, binding_spec, client_certificate, grant_spec, x5t
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


def mesh(kt, realm, alias):
    """Our own issuer of JWT-SVIDs, whose keys the agent serves and Keycloak fetches."""
    port = free_port()
    kt.agent_settings(listeners={"jwks": f"127.0.0.1:{port}"})
    realm.trust_domain(alias, "spiffe://example", f"http://127.0.0.1:{port}/jwks.json")
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
    until(lambda: (kt.volume("svid-bound-token") / "token").exists() and (kt.volume("svid-token") / "token").exists(), 30, "the JWT-SVIDs")
    realm.svids = {bound: kt.read(f"svid{'-bound' if bound else ''}-token", "token").decode() for bound in (False, True)}
    kt.manifest("token", *documents(kt, realm, name, {bound: {
        "method": name, "clientID": identity(bound) if client == "its identity" else realm.client_id(name, bound),
        "tokenRef": f"svid{'-bound' if bound else ''}-token"} for bound in (False, True)}))
    kt.ok("reload")
    until(lambda: all((kt.volume(f"{tag_of(*row)}-token") / "token").exists() for row in rows(name)), 30, lambda: running.err()[-3000:])
    read_rows(kt, realm, name, running.err()[-3000:])
    before = kt.read("svid-token", "token"), kt.read("client-credentials-bearer-token", "token")
    kt.ok("renew", "svid", "--force")
    kt.ok("renew", "client-credentials-bearer", "--force")
    assert before[0] != kt.read("svid-token", "token") and before[1] != kt.read("client-credentials-bearer-token", "token")
    read_row(kt, realm, name, "client_credentials", "bearer")
    assert running.stop() == 0, running.err()
