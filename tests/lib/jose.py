"""JWKs and JWTs for tests, by `cryptography` alone: what keyturn and servers say is signed and verified by another hand."""

import base64
import hashlib
import hmac
import json
import time
import uuid

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CURVES = {"P-256": (ec.SECP256R1, 32), "P-384": (ec.SECP384R1, 48)}
_HASHES = {"256": hashes.SHA256, "384": hashes.SHA384}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def new_key(alg):
    """A private key that can make signatures of this kind."""
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg.startswith("ES"):
        return ec.generate_private_key({"256": ec.SECP256R1, "384": ec.SECP384R1}[alg[2:]]())
    return rsa.generate_private_key(65537, 2048)


def jwk(key, **more):
    """The public JWK of a private or public key."""
    public = key.public_key() if hasattr(key, "public_key") else key
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        own = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        name = {"secp256r1": "P-256", "secp384r1": "P-384"}[public.curve.name]
        size = _CURVES[name][1]
        own = {"kty": "EC", "crv": name, "x": b64(numbers.x.to_bytes(size, "big")), "y": b64(numbers.y.to_bytes(size, "big"))}
    else:
        own = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return {**own, **more}


def thumbprint(key):
    """RFC 7638 of a key or of its JWK."""
    own = key if isinstance(key, dict) else jwk(key)
    members = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[own["kty"]]
    text = json.dumps({m: own[m] for m in members}, separators=(",", ":"), sort_keys=True)
    return b64(hashlib.sha256(text.encode()).digest())


def sign(claims, key, alg, **header):
    """A compact JWT; for HS256 the key is the secret."""
    parts = [b64(json.dumps(part, separators=(",", ":")).encode()) for part in ({"alg": alg, **header}, claims)]
    data = ".".join(parts).encode()
    if alg == "HS256":
        signature = hmac.new(key.encode(), data, hashlib.sha256).digest()
    elif alg == "EdDSA":
        signature = key.sign(data)
    elif alg.startswith("ES"):
        size = _CURVES[f"P-{alg[2:]}"][1]
        signature = b"".join(n.to_bytes(size, "big") for n in decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[alg[2:]]()))))
    elif alg.startswith("RS"):
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return f"{data.decode()}.{b64(signature)}"


def read(token):
    """(header, claims) of a JWT, unverified."""
    parts = (token.decode() if isinstance(token, bytes) else token).split(".")
    assert len(parts) == 3, "not a JWT"
    return json.loads(unb64(parts[0])), json.loads(unb64(parts[1]))


def _public(key):
    if key["kty"] == "RSA":
        return rsa.RSAPublicNumbers(*(int.from_bytes(unb64(key[m]), "big") for m in ("e", "n"))).public_key()
    if key["kty"] == "OKP":
        return ed25519.Ed25519PublicKey.from_public_bytes(unb64(key["x"]))
    return ec.EllipticCurvePublicNumbers(*(int.from_bytes(unb64(key[m]), "big") for m in ("x", "y")),
                                         _CURVES[key["crv"]][0]()).public_key()


def verify(token, keys):
    """The claims of a JWT whose signature is by one of the keys (a JWKS); AssertionError when none of them made it."""
    token = token.decode() if isinstance(token, bytes) else token
    header, claims = read(token)
    data, _, signature = token.rpartition(".")
    data, signature, alg = data.encode(), unb64(signature), header["alg"]
    family = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}.get(alg[:2])
    for key in (k for k in keys["keys"] if k["kty"] == family and k.get("kid") == header.get("kid", k.get("kid"))):
        public = _public(key)
        try:
            if alg == "EdDSA":
                public.verify(signature, data)
            elif family == "EC":
                half = len(signature) // 2
                numbers = [int.from_bytes(part, "big") for part in (signature[:half], signature[half:])]
                public.verify(encode_dss_signature(*numbers), data, ec.ECDSA(_HASHES[alg[2:]]()))
            elif alg == "RS256":
                public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            else:
                public.verify(signature, data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
            return claims
        except InvalidSignature:
            continue
    raise AssertionError(f"no key of {[k.get('kid') for k in keys['keys']]} has signed {header}")


def assertion(issuer, subject, audience, key, alg="ES256", life=60, now=None, **more):
    """A JWT as RFC 7523 wants it, of a client (section 2.2) or as a grant (2.1)."""
    now = int(now or time.time())
    claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": now, "exp": now + life, "jti": str(uuid.uuid4()), **more}
    return sign(claims, key, alg, **({} if alg == "HS256" else {"kid": thumbprint(key)}))


def proof(key, method, url, nonce=None, alg="ES256"):
    """A DPoP proof (RFC 9449)."""
    claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": url, "iat": int(time.time()), **({"nonce": nonce} if nonce else {})}
    return sign(claims, key, alg, typ="dpop+jwt", jwk=jwk(key))
