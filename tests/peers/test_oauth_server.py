"""The OAuth server of the tests by itself, by a client of a few lines: what test_oauth_matrix.py wants of keyturn can be had."""

import time
import urllib.request

import pytest

from lib import jose
from lib.oauth import ACCESS_TOKEN, API, BINDINGS, GRANTS, METHODS, OPAQUE, SCOPE, World, x5t


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("oauth")) as own:
        cert, *own.files = own.certificate()
        own.cert = cert
        own.register_self_signed(cert)
        yield own


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Nonces, no tolerance, refresh tokens without leeway."""
    with World(tmp_path_factory.mktemp("strict"), nonce=True, strict=True, tolerance=0) as own:
        yield own


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("name", METHODS)
def test_matrix(world, name, grant, binding):
    bound = binding == "certificate"
    certificate = world.files if bound or "tls" in name else None
    dpop = jose.new_key("ES256") if binding == "dpop" else None
    for resource in (API, OPAQUE):
        fields = world.grant_fields(name, grant, bound, resource) if (name, grant) != ("none", "client_credentials") else {}
        status, _, told = world.ask(name, grant, fields, bound, certificate, dpop, resource)
        if (name, grant) == ("none", "client_credentials"):  # RFC 6749 4.4: confidential clients only
            assert status == 400 and told["error"] == "invalid_request", told
            return
        assert status == 200, told
        assert told["token_type"] == ("DPoP" if dpop else "Bearer")
        confirmation = {"x5t#S256": x5t(world.cert)} if bound else {"jkt": jose.thumbprint(dpop)} if dpop else None
        read = world.read_jwt(told["access_token"]) if resource == API else world.server.introspect(told["access_token"])
        world.check(read, world.client_id(name, bound), grant, confirmation, resource)
        if grant == "token_exchange":
            assert told["issued_token_type"] == ACCESS_TOKEN
        if grant == "refresh_token":
            assert told["refresh_token"] != fields["refresh_token"]


@pytest.mark.parametrize("name", METHODS)
def test_wrong_credentials_are_refused(world, name):
    """Every method but none: the key, secret or certificate of somebody else."""
    if name == "none":
        return
    other = World(world.tmp)
    other.server, certificate = world.server, None
    other.secret = lambda name: "not the secret, but as long as it has to be for HS256"
    if "tls" in name:
        _, *certificate = world.certificate("stranger.example")
    status, _, told = other.ask(name, "client_credentials", certificate=certificate)
    assert status == 401 and told["error"] == "invalid_client", told


def test_bound_clients_need_certificate_and_proof(world):
    status, _, told = world.ask("client_secret_post", "client_credentials", bound=True)
    assert status == 400 and "certificate" in world.server.requests()[-1]["detail"], told
    world.server.set_client("dpop-only", client_secret=world.secret("x"), token_endpoint_auth_method="client_secret_post",
                            dpop_bound_access_tokens=True)
    status, _, told = world.server.form("/token", {"grant_type": "client_credentials", "client_id": "dpop-only",
                                                   "client_secret": world.secret("x"), "resource": API, "scope": SCOPE})
    assert status == 400 and "DPoP" in world.server.requests()[-1]["detail"], told


def test_exchange_refuses_what_it_cannot_verify(world):
    fields = {"subject_token": world.user_token(), "subject_token_type": ACCESS_TOKEN}
    status, _, told = world.ask("client_secret_post", "token_exchange", fields)
    assert status == 200 and "act" not in world.read_jwt(told["access_token"]), "nobody acts"
    for broken in ({"subject_token": fields["subject_token"][:-8] + "AAAAAAAA"}, {"subject_token": "unknown"},
                   {"subject_token_type": "urn:x"}, {"actor_token": "unknown", "actor_token_type": ACCESS_TOKEN}):
        status, _, told = world.ask("client_secret_post", "token_exchange", {**fields, **broken})
        assert status == 400 and told["error"] == "invalid_request", told
    # Who acted before stays inside.
    status, _, told = world.ask("client_secret_post", "token_exchange", world.grant_fields("client_secret_post", "token_exchange"))
    fields = {"subject_token": told["access_token"], "subject_token_type": ACCESS_TOKEN,
              "actor_token": world.actor_token(), "actor_token_type": ACCESS_TOKEN}
    status, _, told = world.ask("client_secret_post", "token_exchange", fields)
    assert world.read_jwt(told["access_token"])["act"] == {"sub": "client_secret_post", "act": {"sub": "client_secret_post"}}


def test_bearer_refuses_strangers(world):
    for assertion in (jose.assertion("https://stranger.example", "alice", world.server.issuer_url, world.idp_key),
                      jose.assertion("https://idp.example", "alice", world.server.issuer_url, jose.new_key("ES256")),
                      jose.assertion("https://idp.example", "alice", "https://another.example", world.idp_key),
                      world.idp_assertion(life=-60)):
        status, _, told = world.ask("client_secret_post", "jwt_bearer", {"assertion": assertion})
        assert status == 400 and told["error"] == "invalid_grant", told


def test_nonces(strict):
    status, headers, told = strict.server.form("/token", {"grant_type": "client_credentials", **strict.authenticate("client_secret_post")[0]},
                                               {"DPoP": jose.proof(jose.new_key("ES256"), "POST", f"{strict.server.issuer_url}/token")})
    assert status == 400 and told["error"] == "use_dpop_nonce" and headers["DPoP-Nonce"], told
    before = len(strict.server.requests())
    status, _, told = strict.ask("client_secret_post", "client_credentials", dpop=jose.new_key("ES256"))
    assert status == 200, told
    assert len(strict.server.requests()) == before + 2


def test_assertions_of_another_time(strict):
    for off in (5, -120, 30):
        status, _, told = strict.ask("private_key_jwt-ES256", "client_credentials", now=time.time() + off)
        assert status == 401 and told["error"] == "invalid_client", (off, told)
    assert strict.ask("private_key_jwt-ES256", "client_credentials", now=time.time() - 3)[0] == 200
    told = strict.server.requests()[-1]["assertion"]
    assert told["claims"]["iss"] == "private_key_jwt-ES256" and told["header"]["alg"] == "ES256"


def test_assertions_are_single_use(strict):
    fields, _ = strict.authenticate("private_key_jwt-ES256")
    answers = [strict.server.form("/token", {"grant_type": "client_credentials", "resource": API, "scope": SCOPE, **fields})[0]
               for _ in range(2)]
    assert answers == [200, 401]


def test_clock_that_is_off(strict):
    try:
        strict.server.hook("config", skew=90)
        assert strict.ask("private_key_jwt-ES256", "client_credentials")[0] == 401, "it has expired there"
        status, headers, told = strict.ask("private_key_jwt-ES256", "client_credentials", now=time.time() + 90)
        assert status == 200
        assert abs(time.mktime(time.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone - time.time() - 90) < 5
        assert jose.read(told["access_token"])[1]["iat"] > time.time() + 80
    finally:
        strict.server.hook("config", skew=0)


def test_refresh_tokens_rotate_and_answers_get_lost(strict):
    first = strict.server.refresh_token("client_secret_post", resource=API)
    strict.server.drop()
    with pytest.raises(OSError):
        strict.ask("client_secret_post", "refresh_token", {"refresh_token": first})
    assert strict.server.requests()[-1]["dropped"] and strict.server.requests()[-1]["error"] is None
    status, _, told = strict.ask("client_secret_post", "refresh_token", {"refresh_token": first})
    assert status == 400 and told["error"] == "invalid_grant", "no leeway: it was used"
    try:
        strict.server.hook("config", leeway=5)
        second = strict.server.refresh_token("client_secret_post", resource=API)
        strict.server.drop(half=True)
        with pytest.raises(Exception):
            strict.ask("client_secret_post", "refresh_token", {"refresh_token": second})
        status, _, told = strict.ask("client_secret_post", "refresh_token", {"refresh_token": second})
        assert status == 200 and told["refresh_token"] not in (first, second)
    finally:
        strict.server.hook("config", leeway=0)


def test_revoked(world):
    _, _, told = world.ask("client_secret_post", "client_credentials", resource=OPAQUE)
    token, own = told["access_token"], world.authenticate("client_secret_post")[0]
    assert world.server.introspect(token)["active"]
    assert world.server.form("/token/revocation", {"token": token, **own})[0] == 200
    assert world.server.introspect(token) == {"active": False}
    _, _, told = world.ask("client_secret_post", "client_credentials")
    status, _, told = world.server.form("/token/revocation", {"token": told["access_token"], **own})
    assert status == 400 and told["error"] == "unsupported_token_type", "JWTs end by themselves here"


def test_metadata(world):
    for name in ("oauth-authorization-server", "openid-configuration"):
        with urllib.request.urlopen(f"{world.server.issuer_url}/.well-known/{name}", context=world.server.context()) as answer:
            assert str(world.server.mtls_port) in answer.read().decode()
