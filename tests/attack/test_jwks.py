"""JWKS and JWT rows: what a token server publishes as its keys (spec.oauth2.verifyTokens), and what it signs, or does not."""

import json
import time

import pytest

from hostile import Answer, Server
from lib import jose
from lib.certs import Authority
from lib.wait import until
from victim import TokenVictim

AUTHORITY = Authority("jwks")
EC = jose.new_key("ES256")
RSA = jose.new_key("RS256")
OTHER = jose.new_key("ES256")
GOOD = {"keys": [jose.jwk(EC, kid="ec", alg="ES256", use="sig"), jose.jwk(RSA, kid="rsa", alg="RS256", use="sig")]}
PAUSE = 60  # seconds between two requests for the same keys, as src/courier/grant/verify.c has it
FAILED_PAUSE = 10  # after one that failed


class Issuer(Server):
    """Answers with self.token (made for each request) and self.jwks; self.metadata changes the discovery document."""

    def __init__(self):
        self.jwks, self.metadata, self.token = GOOD, {}, signed()
        super().__init__(self.answer, AUTHORITY)

    def answer(self, request):
        if request.path.startswith("/.well-known/"):
            return Answer(200, {"issuer": self.url, "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/jwks", **self.metadata})
        if request.path == "/jwks":
            return self.jwks if isinstance(self.jwks, Answer) else Answer(200, self.jwks)
        return Answer(200, {"access_token": self.token(self.url), "token_type": "Bearer", "expires_in": 3600})

    def asked(self):
        return len([r for r in self.requests if r.path == "/jwks"])


def claims(url, **more):
    now = int(time.time())
    return {"iss": url, "aud": "https://api.example", "sub": "s", "iat": now, "exp": now + 3600, "jti": str(time.time_ns()), **more}


def signed(key=EC, alg="ES256", kid="ec", **header):
    """What makes a token for an issuer's URL."""
    return lambda url: jose.sign(claims(url), key, alg, **({"kid": kid} if kid else {}), **header)


def bare(header, signature=b"s" * 64):
    """A token with such a header that nobody has signed."""
    return lambda url: ".".join([jose.b64(json.dumps(header).encode()), jose.b64(json.dumps(claims(url)).encode()), jose.b64(signature)])


def broken(token):
    def make(url):
        head, body, signature = token(url).split(".")
        return ".".join([head, body, ("B" if signature[0] == "A" else "A") + signature[1:]])
    return make


def rsa_jwk(n, e=65537):
    def number(value):
        return jose.b64(value.to_bytes((value.bit_length() + 7) // 8 or 1, "big"))
    return {"kty": "RSA", "kid": "ec", "n": number(n), "e": number(e)}


def ec_jwk(**changes):
    return {**jose.jwk(EC, kid="ec"), **changes}


SECRET = json.dumps(jose.jwk(EC, kid="ec"))  # a public key as the secret of a MAC: what confusion looks like
N = RSA.public_key().public_numbers().n

# row, name, why it is refused (None: it is taken), JWKS, token, changes of the metadata
TABLE = [
    ("J3", "shell words in another endpoint", None, GOOD, signed(), {"authorization_endpoint": "https://x.example/$(touch /tmp/owned)`id`;"}),
    ("J4", "10,000 keys", r"larger|limit|bytes", {"keys": [jose.jwk(OTHER, kid=f"k{i}") for i in range(10000)] + GOOD["keys"]}, signed(), {}),
    ("J4", "as many as one can have", r"no key|kid|verif", {"keys": [jose.jwk(OTHER, kid=f"k{i}") for i in range(900)] + GOOD["keys"]},
     signed(), {}),
    ("J5", "131,072 bits", r"RSA|key|larger|JWK", {"keys": [rsa_jwk((1 << 131071) + 1)]}, signed(), {}),
    ("J5", "512 bits", r"RSA|key|JWK", {"keys": [rsa_jwk((1 << 511) + 1)]}, signed(), {}),
    ("J5", "an even exponent", r"RSA|key|exponent", {"keys": [rsa_jwk(N, 65536)]}, signed(), {}),
    ("J5", "an exponent of 1", r"RSA|key|exponent", {"keys": [rsa_jwk(N, 1)]}, signed(), {}),
    ("J5", "an exponent of 2^63", r"RSA|key|exponent", {"keys": [rsa_jwk(N, (1 << 63) + 1)]}, signed(), {}),
    ("J6", "off the curve", r"key|curve|point", {"keys": [ec_jwk(y=jose.jwk(EC)["x"])]}, signed(), {}),
    ("J6", "infinity", r"key|curve|point", {"keys": [ec_jwk(x=jose.b64(bytes(32)), y=jose.b64(bytes(32)))]}, signed(), {}),
    ("J6", "the name of another curve", r"coordinate|key|curve", {"keys": [ec_jwk(crv="P-384")]}, signed(), {}),
    ("J6", "a coordinate too short", r"coordinate|key|curve", {"keys": [ec_jwk(x="AAAA")]}, signed(), {}),
    ("J7", "a MAC by the public key", r"alg|HS256", GOOD, signed(SECRET, "HS256"), {}),
    ("J7", "a symmetric key with the kid of another", r"symmetric|oct", {"keys": [*GOOD["keys"], {"kty": "oct", "kid": "ec", "k": jose.b64(b"s" * 32)}]},
     signed(SECRET, "HS256"), {}),
    ("J9", "a private key", r"private", {"keys": [{**jose.jwk(EC, kid="ec"), "d": jose.b64(b"d" * 32)}]}, signed(), {}),
    *[("J11", f"alg {alg!r}", r"alg|signature", GOOD, bare({"alg": alg, "kid": "ec"}, signature), {})
      for alg in ("none", "None", "nOnE", "", None, 7, ["ES256"]) for signature in (b"", b"s" * 64)],
    ("J12", "crit", r"crit", GOOD, signed(crit=["exp"], exp=1), {}),
    ("J12", "crit that is empty", r"crit", GOOD, signed(crit=[]), {}),
    ("J12", "b64", r"b64|crit", GOOD, signed(b64=False), {}),
    ("J14", "another signature", r"signature", GOOD, broken(signed()), {}),
    ("J14", "another's signature", r"signature", GOOD, signed(OTHER), {}),
    ("J14", "no JWT at all", r"JWT", GOOD, lambda url: "opaque-" + "o" * 40, {}),
    ("J14", "an algorithm that is not its key's", r"alg|key|signature", GOOD, signed(EC, "ES256", "rsa"), {}),
    ("J14", "RSA", None, GOOD, signed(RSA, "RS256", "rsa"), {}),
    ("J14", "PSS by a key that is for RS256", r"alg|key|signature", GOOD, signed(RSA, "PS256", "rsa"), {}),
    ("J2", "keys at another host", r"jwks_uri", GOOD, signed(), {"jwks_uri": "https://localhost.evil.example/jwks"}),
    ("J2", "keys in a file", r"jwks_uri", GOOD, signed(), {"jwks_uri": "file:///etc/passwd"}),
    ("J2", "keys at a link-local address", r"jwks_uri", GOOD, signed(), {"jwks_uri": "http://169.254.169.254/jwks"}),
    ("J2", "no jwks_uri", r"jwks_uri", GOOD, signed(), {"jwks_uri": None}),
    ("J16", "no keys", r"JWKS|keys", {"keys": []}, signed(), {}),
    ("J16", "HTML", r"JSON|JWKS", Answer(200, "<html>", "text/html"), signed(), {}),
    ("J16", "500", r"500", Answer(500, {}), signed(), {}),
]


@pytest.fixture(scope="module")
def kept():
    """An agent that has read the keys when this module began; what it does when they are old is looked at in the end."""
    with Issuer() as issuer, TokenVictim(issuer.url, AUTHORITY, issuer=True, oauth2={"verifyTokens": True}) as victim:
        agent = victim.start()
        until(lambda: victim.credential("api").get("notAfter"), 20, "the first token")
        began = time.monotonic()
        yield issuer, victim, began
        agent.stop()


@pytest.mark.rows("J15")
def test_unknown_kids_are_no_flood(kept):
    issuer, victim, _ = kept
    assert issuer.asked() == 1
    before = victim.snapshot()
    for i in range(5):
        issuer.token = signed(OTHER, kid=f"unknown-{i}")
        result = victim.run("renew", "api", "--force", timeout=30)
        assert result.status != 0 and "kid" in result.err + result.out, result
    assert issuer.asked() == 1 and victim.snapshot() == before
    issuer.token = signed()
    victim.ok("renew", "api", "--force")
    assert issuer.asked() == 1 and victim.snapshot() != before


@pytest.mark.rows("J16")
def test_a_failure_is_not_remembered_for_long():
    """Where no keys have been read yet, one bad answer does not keep every token away for as long as unknown kids do."""
    with Issuer() as issuer, TokenVictim(issuer.url, AUTHORITY, issuer=True, oauth2={"verifyTokens": True}) as victim:
        issuer.jwks = Answer(503, {})
        agent = victim.start()
        until(lambda: issuer.asked() == 1, 20, "the keys are asked for")
        issuer.jwks = GOOD
        assert victim.run("renew", "api", "--force", timeout=30).status != 0 and issuer.asked() == 1, "no flood either"
        time.sleep(FAILED_PAUSE)
        victim.ok("renew", "api", "--force")
        assert issuer.asked() == 2
        agent.stop()


class Row:
    def __init__(self, row, name, why, jwks, token, metadata):
        self.row, self.name, self.why, self.jwks, self.token, self.metadata = row, name, why, jwks, token, metadata

    def run(self):
        with Issuer() as issuer, TokenVictim(issuer.url, AUTHORITY, issuer=True, oauth2={"verifyTokens": True}) as victim:
            victim.publish()
            issuer.jwks, issuer.token, issuer.metadata = self.jwks, self.token, self.metadata
            victim.attack()
            if self.why is None:
                assert victim.status == 0 and victim.snapshot() != victim.before, victim.err
            else:
                victim.refused(self.why, peer=victim.peer)
            assert issuer.asked() <= 2


CASES = [Row(*row) for row in TABLE]


@pytest.mark.parametrize("case", CASES, ids=lambda r: f"{r.row}-{r.name}".replace(" ", "-"))
def test_row(case, outcome):
    outcome(case)


@pytest.mark.rows("J16")
def test_keys_of_before_are_kept(kept):
    """The server shows no keys for a while: those that were read before still count, and a new kid is asked for once a minute."""
    issuer, victim, began = kept
    issuer.jwks = {"keys": []}
    time.sleep(max(0, began + PAUSE + 1 - time.monotonic()))
    asked, before = issuer.asked(), victim.snapshot()
    issuer.token = signed(OTHER, kid="new")
    result = victim.run("renew", "api", "--force", timeout=30)
    assert result.status != 0 and "kid" in result.err + result.out, result
    assert issuer.asked() == asked + 1
    issuer.token = signed()
    victim.ok("renew", "api", "--force")
    assert issuer.asked() == asked + 1 and victim.snapshot() != before
