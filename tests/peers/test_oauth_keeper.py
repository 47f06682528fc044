"""What the keeper does about tokens beside asking for them: waits for what they are made of, keys of their own, bindings."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lib import jose
from lib.certs import key_pem, load
from lib.manifests import ca_issuer, certificate, token
from lib.oauth import API, SCOPE, World, x5t

CLIENT = {"names": ["client.example"], "usages": ["digital signature", "client auth"], "duration": "2h", "renewBefore": "30m"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("oauth")) as own:
        yield own


def basic(kt, world, bound=False):
    kt.secret("client", client_secret=world.secret("client_secret_basic"))
    return {"method": "client_secret_basic", "clientID": world.client_id("client_secret_basic", bound),
            "clientSecretRef": {"name": "client"}}


def ca(kt, world):
    kt.secret("ca-root", tls__crt=world.clients_ca.pem(), tls__key=key_pem(world.clients_ca.key))
    return ca_issuer()


def claims(kt, volume="pay-token"):
    return jose.read(kt.read(volume, "token"))[1]


def test_waits_for_what_it_is_made_of(kt, world):
    """All in one set: the Token that is bound, its Certificate, and the CA; one command has all of them."""
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world, True)),
                token("a-first", audiences=[API], scopes=[SCOPE], certificateRef="client-tls"),
                ca(kt, world), certificate("client", "ca", **CLIENT))
    since = len(world.server.requests())
    kt.ok("renew")
    assert claims(kt, "a-first-token")["cnf"]["x5t#S256"] == x5t(load(kt.read("client-tls", "tls.crt"))[0])
    assert len(world.server.requests()) == since + 1, "nothing is asked for before the certificate is there"
    kt.ok("renew")
    assert len(world.server.requests()) == since + 1, "in order"


def test_certificate_that_nobody_issues(kt, world):
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world, True)), ca(kt, world), certificate("client", "ca", **CLIENT),
                token("pay", audiences=[API], scopes=[SCOPE], certificateRef="another"))
    since = len(world.server.requests())
    result = kt.run("renew", "pay")
    assert result.status != 0 and "another" in result.err, result
    assert len(world.server.requests()) == since


def test_dpop_key_stays_until_another_kind_is_asked_for(kt, world):
    def want(alg):
        kt.manifest("all", world.server.oauth2("oidc", basic(kt, world)),
                    token("pay", audiences=[API], scopes=[SCOPE], dpop={"algorithm": alg}))

    want("ES256")
    kt.ok("renew")
    key = kt.read("pay-token", "dpop.key")
    first = claims(kt)
    assert isinstance(load_pem_private_key(key, None), ec.EllipticCurvePrivateKey)
    assert (kt.volume("pay-token") / "dpop.key").stat().st_mode & 0o777 == 0o600
    assert jose.thumbprint(json.loads(kt.read("pay-token", "dpop.jwk"))) == first["cnf"]["jkt"]
    assert b'"d"' not in kt.read("pay-token", "dpop.jwk")
    kt.ok("renew", "pay", "--force")
    assert kt.read("pay-token", "dpop.key") == key
    assert claims(kt)["jti"] != first["jti"] and claims(kt)["cnf"] == first["cnf"]
    want("EdDSA")
    kt.ok("renew")
    assert isinstance(load_pem_private_key(kt.read("pay-token", "dpop.key"), None), ed25519.Ed25519PrivateKey)
    assert claims(kt)["cnf"]["jkt"] != first["cnf"]["jkt"]
    text = kt.run("audit", "-o", "json").out + kt.run("status", "-o", "json").out
    assert key.decode().splitlines()[1] not in text


def test_key_goes_with_the_manifest(kt, world):
    """dpop taken out of the manifest: a bearer token, and no key beside it."""
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world)), token("pay", audiences=[API], scopes=[SCOPE], dpop={}))
    kt.ok("renew")
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world)), token("pay", audiences=[API], scopes=[SCOPE]))
    kt.ok("renew")
    assert "cnf" not in claims(kt)
    assert not (kt.volume("pay-token") / "dpop.key").exists()
    result = kt.run("token", "pay", "--dpop", "GET", "https://payments.example/")
    assert result.status == 2 and "spec.dpop" in result.err, result


@pytest.mark.parametrize("words", [["--dpop", "GET"], ["https://payments.example/"], ["--nonce", "n"]])
def test_proofs_need_method_and_url(kt, words):
    assert kt.run("token", "pay", *words).status == 2


def test_header_lines(kt, world):
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world)), token("pay", audiences=[API], scopes=[SCOPE], dpop={}))
    kt.ok("renew")
    first, second, *more = kt.ok("token", "pay", "--dpop", "POST", "https://payments.example/", "--nonce", "n-1").out.splitlines()
    raw = kt.read("pay-token", "token")
    assert first == f"Authorization: DPoP {raw.decode()}" and second.startswith("DPoP: ") and not more
    told = jose.read(second.split()[1])[1]
    assert told["nonce"] == "n-1" and told["htm"] == "POST"
    assert told["ath"] == jose.b64(hashlib.sha256(raw).digest())


def test_refresh_token_of_a_manifest_is_not_lost(kt, world):
    """The Secret in the manifests comes again with each load; what the server gave in its place is what counts."""
    first = world.server.refresh_token("client_secret_basic", resource=API)
    kt.manifest("all", world.server.oauth2("oidc", basic(kt, world)),
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mailbox"}, "stringData": {"refresh-token": first}},
                token("pay", audiences=[API], scopes=[SCOPE], grant={"refreshToken": {"secretRef": {"name": "mailbox"}}}))
    since = len(world.server.requests())
    for _ in range(3):
        kt.ok("renew", "pay", "--force")
    used = [r["params"]["refresh_token"] for r in world.server.requests()[since:]]
    assert len(set(used)) == 3 and used[0] == first, used
    assert all(r["status"] == 200 for r in world.server.requests()[since:])
