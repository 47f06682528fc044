"""How long signing keys of an embedded token issuer are shown."""

import json
import time

from lib.manifests import token
from lib.wait import until


def issuer(keys, life):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
        "issuerURL": "https://tokens.example", "keyRotation": "5s", "publishAhead": "0s", "maxTokenLifetime": life,
        "publishJWKS": {"volume": {"path": str(keys)}}}}}


def test_a_shorter_life_does_not_take_the_key_of_longer_tokens(kt):
    """Tokens of 18 s are about when maxTokenLifetime is lowered: their key stays until they have ended, then it goes."""
    keys = kt.root / "keys"
    kt.manifest("issuer", issuer(keys, "18s"))
    kt.manifest("token", token("t", "own", audiences=["a"], duration="18s"))
    kt.start()

    def kids():
        return [key["kid"] for key in json.loads((keys / "jwks.json").read_text())["keys"]]

    until(lambda: kt.volume("t-token").exists() and (keys / "jwks.json").exists(), 10, "the first token")
    first = kids()[0]
    kt.manifest("issuer", issuer(keys, "5s"))
    kt.ok("reload")
    lowered = time.monotonic()
    until(lambda: first not in kids(), 40, "the first key is gone", pause=0.1)
    assert 17 < time.monotonic() - lowered < 30
