"""Client authentication, grants and bindings at a real Keycloak; each token is read back, by its keys and by introspection."""

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lib import jose
from lib.certs import Authority, load
from lib.keycloak import Keycloak, Realm
from lib.manifests import token
from lib.oauth import API, BINDINGS, GRANTS, SCOPE, auth, binding_spec, client_certificate, grant_spec, x5t


@pytest.fixture(scope="module")
def realm(tmp_path_factory):
    authority = Authority("clients")
    with Keycloak(tmp_path_factory.mktemp("keycloak"), authority) as server, Realm(server, authority) as own:
        yield own


def rows(name):
    """What a client with this method can ask for; a public one has users' refresh tokens only."""
    grants = ["refresh_token"] if name == "none" else list(GRANTS)
    return [(grant, binding) for grant in grants for binding in BINDINGS]


def row_of(kt, realm, name, grant, binding):
    """Reads one token back."""
    secret = f"{grant.replace('_', '-')}-{binding}-token"
    raw = kt.read(secret, "token").decode()
    confirmation = None
    if binding == "certificate":
        confirmation = {"x5t#S256": x5t(load(kt.read("client-tls", "tls.crt"))[0])}
    elif binding == "dpop":
        confirmation = {"jkt": jose.thumbprint(load_pem_private_key(kt.read(secret, "dpop.key"), None))}
    scheme = "DPoP" if binding == "dpop" else "Bearer"
    assert kt.read(secret, "header").decode().strip() == f"Authorization: {scheme} {raw}"
    client = realm.client_id(name, binding == "certificate")
    realm.check(realm.read_jwt(raw), client, grant, confirmation)
    told = realm.introspect(raw)
    assert told["active"] and told["client_id"] == client, told
    realm.check(told, client, grant, confirmation)


@pytest.mark.parametrize("name", Realm.METHODS)
def test_matrix(kt, realm, name):
    """Every grant with every binding, by one method: by the issuer's name alone, all at once."""
    client_certificate(kt, realm)
    realm.shown = kt.volume("client-tls") / "tls.crt", kt.volume("client-tls") / "tls.key"
    documents = [realm.oauth2(issuer, auth(kt, realm, name, bound)) for issuer, bound in (("plain", False), ("bound", True))]
    for grant, binding in rows(name):
        bound = binding == "certificate"
        tag = f"{grant.replace('_', '-')}-{binding}"
        documents.append(token(tag, "bound" if bound else "plain", audiences=[API], scopes=[SCOPE], outputs=["raw", "header"],
                               **grant_spec(kt, realm, name, grant, bound, tag=f"-{tag}"), **binding_spec(binding)))
    kt.manifest("token", *documents)
    kt.ok("check")
    result = kt.run("renew", timeout=120)
    wrong = {}
    for grant, binding in rows(name):
        try:
            row_of(kt, realm, name, grant, binding)
        except (AssertionError, OSError) as error:
            wrong[f"{grant}, {binding}"] = str(error)[:400]
    assert not wrong and result.status == 0, f"{wrong}\n{result}"
