"""Every client authentication with every grant and binding at the certified oidc-provider; each token is read back."""

import hashlib
import json
import os
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lib import jose
from lib.certs import key_pem, load
from lib.manifests import certificate, consumer, projected, token
from lib.oauth import (API, BINDINGS, CLIENT, GRANTS, IDP, METHODS, OPAQUE, SCOPE, World, auth, binding_spec, client_certificate,
                       grant_spec, x5t)
from lib.wait import until


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("oauth")) as own:
        yield own


@pytest.fixture
def fresh(tmp_path):
    """A World of the test's own: with World settings as keywords."""
    worlds = []

    def make(**settings):
        worlds.append(World(tmp_path, **settings))
        return worlds[-1].__enter__()

    yield make
    for own in worlds:
        own.__exit__()


def own_requests(world, since):
    return world.server.requests()[since:]


# Not for public clients: client_credentials (RFC 6749 4.4); see test_what_cannot_be.
MATRIX = [(name, grant, binding) for name in METHODS for grant in GRANTS for binding in BINDINGS
          if (name, grant) != ("none", "client_credentials")]


@pytest.mark.parametrize("name, grant, binding", MATRIX)
def test_matrix(kt, world, name, grant, binding):
    bound = binding == "certificate"
    shown = client_certificate(kt, world, name) if bound or "tls" in name else None
    since = None
    tokens = []
    for tag, resource in (("jwt", API), ("opaque", OPAQUE)):
        tokens.append(token(tag, audiences=[resource], scopes=[SCOPE], outputs=["raw", "header", "json"],
                            **grant_spec(kt, world, name, grant, bound, resource, f"-{tag}"), **binding_spec(binding)))
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, name, bound)), *tokens)
    kt.ok("check")
    since = len(world.server.requests())
    kt.ok("renew")

    for tag, resource in (("jwt", API), ("opaque", OPAQUE)):
        raw = kt.read(f"{tag}-token", "token").decode()
        told = json.loads(kt.read(f"{tag}-token", "token.json"))
        assert told["access_token"] == raw
        confirmation = None
        scheme = "Bearer"
        if bound:
            confirmation = {"x5t#S256": x5t(load(kt.read("client-tls", "tls.crt"))[0])}
            assert confirmation["x5t#S256"] == x5t(shown)
        if binding == "dpop":
            scheme = "DPoP"
            key = load_pem_private_key(kt.read(f"{tag}-token", "dpop.key"), None)
            confirmation = {"jkt": jose.thumbprint(key)}
        assert told["token_type"].lower() == scheme.lower()
        assert kt.read(f"{tag}-token", "header").decode().strip() == f"Authorization: {scheme} {raw}"
        read = world.read_jwt(raw) if resource == API else world.server.introspect(raw)
        world.check(read, world.client_id(name, bound), grant, confirmation, resource)

    sent = own_requests(world, since)
    assert [r["status"] for r in sent] == [200, 200], sent
    for request in sent:
        assert request["params"]["grant_type"] == GRANTS[grant]
        assert bool(request["certificate"]) == bool(shown), "a certificate is shown where one is wanted, and nowhere else"
        assert request["port"] == (world.server.mtls_port if shown else world.server.port)
        assert bool(request["dpop"]) == (binding == "dpop")
        if request.get("assertion"):
            assert request["assertion"]["claims"]["exp"] - request["assertion"]["claims"]["iat"] <= 120


@pytest.mark.parametrize("why", ["public client with client_credentials", "two bindings", "two certificates", "no secret"])
def test_what_cannot_be(kt, world, why):
    """Combinations that make no sense (RFC 6749 4.4, RFC 8705): refused by `keyturn check`; nothing is ever sent."""
    own, spec = {"method": "none", "clientID": "none"}, {}
    if why == "two bindings":
        own, spec = auth(kt, world, "client_secret_basic"), {"dpop": {}, "certificateRef": "client-tls"}
        client_certificate(kt, world)
    elif why == "two certificates":  # one connection shows one
        client_certificate(kt, world)
        kt.manifest("other", certificate("other", "ca", **CLIENT))
        own, spec = auth(kt, world, "tls_client_auth", True), {"certificateRef": "other-tls"}
    elif why == "no secret":
        own = {"method": "client_secret_jwt", "clientID": "client_secret_jwt"}
    kt.manifest("token", world.server.oauth2("oidc", own), token("pay", audiences=[API], scopes=[SCOPE], **spec))
    checked = kt.run("check")
    assert checked.status != 0, checked
    since = len(world.server.requests())
    result = kt.run("renew")
    assert result.status != 0, result
    assert not (kt.volume("pay-token") / "token").exists()
    assert not own_requests(world, since)


# --- binding


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_dpop_proofs(kt, world, alg):
    """keyturn token NAME --dpop METHOD URL: a proof by the key that the token is bound to, for this token and request."""
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_basic")),
                token("pay", audiences=[API], scopes=[SCOPE], dpop={"algorithm": alg}))
    kt.ok("renew")
    raw = kt.read("pay-token", "token")
    bound_to = world.read_jwt(raw)["cnf"]["jkt"]
    url = "https://payments.example/api/orders?page=2"
    seen = set()
    for _ in range(2):
        proof = kt.ok("token", "pay", "--dpop", "GET", url).out.strip().splitlines()[-1].split()[-1]
        header, claims = jose.read(proof)
        assert header["typ"] == "dpop+jwt" and header["alg"] == alg and "d" not in header["jwk"]
        assert jose.thumbprint(header["jwk"]) == bound_to
        jose.verify(proof, {"keys": [header["jwk"]]})
        assert claims["htm"] == "GET" and claims["htu"] == url.partition("?")[0] and abs(claims["iat"] - time.time()) < 30
        assert claims["ath"] == jose.b64(hashlib.sha256(raw).digest())
        seen.add(claims["jti"])
    assert len(seen) == 2


def test_dpop_nonces(kt, fresh):
    """use_dpop_nonce is no failure; the key stays when the token is renewed."""
    world = fresh(nonce=True)
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "private_key_jwt-ES256")),
                token("pay", audiences=[API], scopes=[SCOPE], dpop={}))
    kt.ok("renew")
    assert [r["error"] for r in world.server.requests()] == ["use_dpop_nonce", None]
    assertions = [r["assertion"]["claims"]["jti"] for r in world.server.requests() if r.get("assertion")]
    assert len(assertions) == len(set(assertions)), "single use"
    first = world.read_jwt(kt.read("pay-token", "token"))
    kt.ok("renew", "pay", "--force")
    second = world.read_jwt(kt.read("pay-token", "token"))
    assert second["jti"] != first["jti"]
    assert second["cnf"]["jkt"] == jose.thumbprint(load_pem_private_key(kt.read("pay-token", "dpop.key"), None))
    assert len(world.server.requests()) <= 4


def test_dpop_at_a_server_without(kt, world):
    """A server that ignores the proof and gives a bearer token: not taken for a bound one."""
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_post")),
                token("pay", audiences=[API], scopes=[SCOPE], dpop={}))
    world.server.refuse(200, {"Content-Type": "application/json"}, times=1,
                        body=json.dumps({"access_token": "plain", "token_type": "Bearer", "expires_in": 60}))
    try:
        result = kt.run("renew")
    finally:
        world.server.refuse(times=0)
    assert result.status != 0 and "DPoP" in result.err, result
    assert not (kt.volume("pay-token") / "token").exists()


def test_certificate_that_the_server_did_not_bind(kt, world):
    """certificateRef at a client whose tokens are not bound: refused, since whoever stole the token could use it."""
    client_certificate(kt, world)
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_basic")),
                token("pay", audiences=[API], scopes=[SCOPE], certificateRef="client-tls"))
    result = kt.run("renew")
    assert result.status != 0 and "cnf" in result.err, result
    assert not (kt.volume("pay-token") / "token").exists()


def test_bound_token_follows_its_certificate(kt, world):
    """A new certificate: the token is minted again, and readers of both see only what belongs together."""
    client_certificate(kt, world)
    own = auth(kt, world, "client_secret_basic", True)
    both = kt.root / "both"
    kt.manifest("token", world.server.oauth2("oidc", own), token("pay", audiences=[API], scopes=[SCOPE], certificateRef="client-tls"),
                consumer("caller", volumes=[projected(both, ("client-tls", None), ("pay-token", None))]))
    running = kt.start()
    until(lambda: (both / "token").exists(), 20, "the first set")
    wrong, done, seen = [], threading.Event(), set()

    def reader():
        while not done.is_set():
            try:
                folder = both / os.readlink(both / "..data")
                confirmed = jose.read((folder / "token").read_bytes())[1]["cnf"]["x5t#S256"]
                real = x5t(load((folder / "tls.crt").read_bytes())[0])
            except OSError:
                continue  # swept between the two
            seen.add(real)
            if confirmed != real:
                wrong.append((confirmed, real))
            time.sleep(0.005)

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for _ in range(2):
            before = (both / "token").read_bytes()
            kt.ok("renew", "client", "--force")
            until(lambda: (both / "token").read_bytes() != before, 20, "the token is minted again")
            fresh_one = x5t(load((both / "tls.crt").read_bytes())[0])
            assert world.read_jwt((both / "token").read_bytes())["cnf"]["x5t#S256"] == fresh_one
    finally:
        done.set()
        thread.join()
    assert not wrong, f"{len(wrong)} times token and certificate did not belong together"
    assert len(seen) == 3
    assert running.stop() == 0, running.err()


def test_certificates_without_aliases(kt, fresh):
    """A server that asks for certificates at its only port names no mtls_endpoint_aliases."""
    world = fresh(aliases=False)
    client_certificate(kt, world)
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "tls_client_auth", True)),
                token("pay", audiences=[API], scopes=[SCOPE], certificateRef="client-tls"))
    kt.ok("renew")
    assert world.read_jwt(kt.read("pay-token", "token"))["cnf"] == {"x5t#S256": x5t(load(kt.read("client-tls", "tls.crt"))[0])}


# --- grants


def test_tokens_of_ours_go_into_grants(kt, world):
    """Subject and actor are Tokens too: one of the server, one of the embedded issuer, whose keys the server has from our JWKS."""
    keys = kt.root / "keys"
    local = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
        "issuerURL": "https://tokens.example", "publishAhead": "0s", "publishJWKS": {"volume": {"path": str(keys)}}}}}
    kt.manifest("own", local, token("subject", "own", audiences=[world.server.issuer_url], claims={"subject": "alice"}))
    kt.ok("renew")
    world.server.trust("https://tokens.example", json.loads((keys / "jwks.json").read_text()))
    jwt = "urn:ietf:params:oauth:token-type:jwt"
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_post")),
                token("actor", audiences=[API], scopes=[SCOPE]),
                token("exchanged", audiences=[OPAQUE], scopes=[SCOPE], outputs=["raw", "json"], grant={"tokenExchange": {
                    "subject": {"tokenRef": "subject-token"}, "subjectTokenType": jwt, "actor": {"tokenRef": "actor-token"}}}),
                token("bearer", audiences=[API], scopes=[SCOPE], grant={"jwtBearer": {"assertion": {"tokenRef": "subject-token"}}}))
    kt.ok("renew", timeout=90)
    told = world.server.introspect(kt.read("exchanged-token", "token").decode())
    world.check(told, "client_secret_post", "token_exchange", None, OPAQUE)
    world.check(world.read_jwt(kt.read("bearer-token", "token")), "client_secret_post", "jwt_bearer", None, API)


def test_exchange_without_actor(kt, world):
    kt.secret("subject", token=world.user_token())
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_basic"), audienceParam="audience"),
                token("pay", audiences=[API], scopes=[SCOPE], grant={"tokenExchange": {
                    "subject": {"secretRef": {"name": "subject"}}, "requestedTokenType": "urn:ietf:params:oauth:token-type:jwt"}}))
    kt.ok("renew")
    claims = world.read_jwt(kt.read("pay-token", "token"))
    assert claims["sub"] == "alice" and claims["aud"] == API and "act" not in claims
    params = world.server.requests()[-1]["params"]
    assert params["audience"] == API and "actor_token" not in params and "actor_token_type" not in params


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
def test_grant_that_is_refused(kt, world, grant):
    """A subject or assertion of a stranger: final, with the server's word, not tried again until it is another one."""
    stranger = jose.assertion(IDP, "alice", world.server.issuer_url, jose.new_key("ES256"))
    kt.secret("given", token=stranger)
    source = {"secretRef": {"name": "given"}}
    spec = {"tokenExchange": {"subject": source, "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt"}}
    if grant == "jwt_bearer":
        spec = {"jwtBearer": {"assertion": source}}
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_basic")),
                token("pay", audiences=[API], scopes=[SCOPE], grant=spec))
    since = len(world.server.requests())
    result = kt.run("renew")
    assert result.status == 1, result
    assert "invalid_request" in result.err or "invalid_grant" in result.err, result
    assert stranger not in result.err
    running = kt.start()
    time.sleep(3)
    assert len(own_requests(world, since)) <= 2, "no hammering"
    kt.secret("given", token=world.idp_assertion())
    until(lambda: (kt.volume("pay-token") / "token").exists(), 15, "another one is tried at once")
    assert running.stop() == 0, running.err()


# --- refresh tokens


def setup_refresh(kt, world, name="client_secret_basic"):
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, name)),
                token("pay", audiences=[API], scopes=[SCOPE], **grant_spec(kt, world, name, "refresh_token")))


def test_refresh_tokens_rotate(kt, fresh):
    """Each is used once, across processes; the newest is in the store and nowhere else."""
    world = fresh()
    setup_refresh(kt, world)
    for _ in range(4):
        kt.ok("renew", "pay", "--force")
    used = [r["params"]["refresh_token"] for r in world.server.requests() if r["status"] == 200]
    assert len(used) == 4 and len(set(used)) == 4, used
    assert all(r["status"] == 200 for r in world.server.requests())
    told = kt.run("audit", "-o", "json").out + kt.run("status", "-o", "json").out
    assert not any(one in told for one in used)
    for path in kt.files():
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            assert not any(one.encode() in data for one in used), path


def test_refresh_token_that_does_not_rotate(kt, fresh):
    world = fresh(rotate=False)
    setup_refresh(kt, world)
    for _ in range(3):
        kt.ok("renew", "pay", "--force")
    assert len({r["params"]["refresh_token"] for r in world.server.requests()}) == 1


@pytest.mark.parametrize("half", [False, True], ids=["no answer", "half an answer"])
def test_lost_answer_at_a_patient_server(kt, fresh, half):
    """Rotated, and the connection goes (HOSTILE O11): the old one is tried again, and the chain goes on."""
    world = fresh(leeway=60)
    setup_refresh(kt, world)
    kt.ok("renew")
    first = world.read_jwt(kt.read("pay-token", "token"))["jti"]
    world.server.drop(half=half)
    running = kt.start()
    kt.run("renew", "pay", "--force", timeout=90)
    until(lambda: world.read_jwt(kt.read("pay-token", "token"))["jti"] != first, 60, "a new token after the lost answer")
    sent = world.server.requests()
    lost = next(r for r in sent if r.get("dropped"))
    after = sent[sent.index(lost) + 1]
    assert after["params"]["refresh_token"] == lost["params"]["refresh_token"] and after["status"] == 200
    assert running.stop() == 0, running.err()
    kt.ok("renew", "pay", "--force")
    last = world.server.requests()[-1]
    assert last["status"] == 200 and last["params"]["refresh_token"] != lost["params"]["refresh_token"]


def test_lost_answer_at_a_strict_server(kt, fresh):
    """The old one is dead: said by name, not hammered; a new one in the store is tried at once."""
    world = fresh()
    setup_refresh(kt, world)
    kt.ok("renew")
    token_before = kt.read("pay-token", "token")
    world.server.drop()
    result = kt.run("renew", "pay", "--force", timeout=90)
    assert result.status != 0, result
    assert kt.read("pay-token", "token") == token_before, "still valid, still served"
    result = kt.run("renew", "pay", "--force", timeout=90)
    assert result.status == 1 and "invalid_grant" in result.err, result
    before = len(world.server.requests())
    running = kt.start()
    time.sleep(5)
    assert len(world.server.requests()) <= before + 1, world.server.requests()[before:]
    kt.secret("refresh", refresh_token=world.server.refresh_token("client_secret_basic", resource=API))
    until(lambda: kt.read("pay-token", "token") != token_before, 20, "the new one is used at once")
    assert running.stop() == 0, running.err()


# --- refusals, clocks, revocation


@pytest.mark.parametrize("name", ["client_secret_jwt", "private_key_jwt-ES256", "client_secret_post"])
def test_invalid_client_waits_for_a_change(kt, world, name):
    """invalid_client: no second request by itself; another secret or key: at once."""
    own = auth(kt, world, name)
    if name.startswith("client_secret"):
        kt.secret("client", client_secret="not the secret, but as long as it has to be for HS256")
    else:
        kt.secret("client", tls__key=key_pem(jose.new_key("ES256")))
    kt.manifest("token", world.server.oauth2("oidc", own), token("pay", audiences=[API], scopes=[SCOPE]))
    since = len(world.server.requests())
    running = kt.start()
    until(lambda: own_requests(world, since), 15, "the refused request")
    time.sleep(4)
    refused = own_requests(world, since)
    assert len(refused) == 1 and refused[0]["error"] == "invalid_client", refused
    auth(kt, world, name)
    until(lambda: (kt.volume("pay-token") / "token").exists(), 15, "the right one is used at once")
    assert len(own_requests(world, since)) == 2
    assert running.stop() == 0, running.err()


@pytest.mark.parametrize("skew", [-90, 90], ids=["behind", "ahead"])
@pytest.mark.parametrize("name", ["private_key_jwt-ES256", "client_secret_jwt"])
@pytest.mark.parametrize("metadata", [True, False], ids=["metadata", "tokenURL"])
def test_clock_of_the_server(kt, fresh, name, skew, metadata):
    """Assertions are dated by the server's clock: from the metadata's Date, or by a second try after the first refusal."""
    world = fresh(skew=skew, strict=True, tolerance=0)
    issuer = world.server.oauth2("oidc", auth(kt, world, name))
    if not metadata:
        own = issuer["spec"]["oauth2"]
        del own["issuer"]
        own["tokenURL"] = f"{world.server.issuer_url}/token"
    kt.manifest("token", issuer, token("pay", audiences=[API], scopes=[SCOPE]))
    kt.ok("renew")
    sent = world.server.requests()
    assert sent[-1]["status"] == 200 and len(sent) <= (1 if metadata else 2), sent
    claims = sent[-1]["assertion"]["claims"]
    assert abs(claims["iat"] - time.time() - skew) < 15
    assert "nbf" not in claims


def test_superseded_tokens_are_revoked(kt, fresh):
    """revokeSuperseded: a while after the new one is in place the old one is worth nothing any more (RFC 7009)."""
    world = fresh()
    client_certificate(kt, world)
    names = ["client_secret_basic", "private_key_jwt-ES256", "tls_client_auth"]
    documents = []
    for i, name in enumerate(names):
        documents.append(world.server.oauth2(f"at{i}", auth(kt, world, name, secret=f"client-{i}"), revokeSuperseded=True))
        documents.append(token(f"t{i}", f"at{i}", audiences=[OPAQUE], scopes=[SCOPE]))
    kt.manifest("token", *documents)
    running = kt.start()
    read = lambda: [kt.read(f"t{i}-token", "token").decode() for i in range(len(names))]  # noqa: E731
    until(lambda: all((kt.volume(f"t{i}-token") / "token").exists() for i in range(len(names))), 20, "the first tokens")
    old = read()
    assert all(world.server.introspect(one)["active"] for one in old)
    kt.ok("renew", *(f"t{i}" for i in range(len(names))), "--force")
    new = read()
    assert not set(new) & set(old)
    until(lambda: not any(world.server.introspect(one)["active"] for one in old), 100, "the old ones are revoked", pause=0.5)
    assert all(world.server.introspect(one)["active"] for one in new)
    revoked = world.server.requests("/token/revocation")
    assert [r["status"] for r in revoked] == [200] * len(names) and {r["params"]["token"] for r in revoked} == set(old)
    assert {r["params"]["client_id"] for r in revoked if r["certificate"]} == {"tls_client_auth"}
    assert running.stop() == 0, running.err()


def test_nothing_is_revoked_unasked(kt, world):
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "client_secret_basic")),
                token("pay", audiences=[OPAQUE], scopes=[SCOPE]))
    before = len(world.server.requests("/token/revocation"))
    for _ in range(2):
        kt.ok("renew", "pay", "--force")
    assert len(world.server.requests("/token/revocation")) == before


def test_no_secret_shows(kt, world):
    """Keys, secrets, assertions and proofs stay out of logs, audit and status."""
    given = grant_spec(kt, world, "private_key_jwt-ES256", "jwt_bearer")
    since = len(world.server.requests())
    kt.manifest("token", world.server.oauth2("oidc", auth(kt, world, "private_key_jwt-ES256")),
                token("pay", audiences=[API], scopes=[SCOPE], dpop={}, **given))
    result = kt.ok("-v", "-v", "renew")
    request = own_requests(world, since)[0]
    secrets = [request["params"]["client_assertion"], request["params"]["assertion"], request["dpop"], kt.read("pay-token", "token").decode()]
    for text in (result.out, result.err, kt.run("audit", "-o", "json").out, kt.run("status", "-o", "json").out):
        for secret in secrets:
            assert secret.rpartition(".")[2] not in text
