"""The demo's protected API: answers 200 to a token whose signature, issuer's keys, audience and life check out, else 401."""

import base64
import json
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

PORT, JWKS_URL, AUDIENCE = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def b64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_keys():
    with urllib.request.urlopen(JWKS_URL, timeout=5) as answer:
        keys = json.load(answer)["keys"]
    return {
        key["kid"]: ec.EllipticCurvePublicNumbers(
            int.from_bytes(b64(key["x"]), "big"), int.from_bytes(b64(key["y"]), "big"), ec.SECP256R1()
        ).public_key()
        for key in keys
    }


def check(token):
    """None when the token is good, else what is wrong with it."""
    head, body, signature = token.split(".")
    header, claims, raw = json.loads(b64(head)), json.loads(b64(body)), b64(signature)
    key = public_keys().get(header["kid"])
    if header["alg"] != "ES256" or key is None:
        return "unknown key"
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return "bad signature"
    if claims["exp"] <= time.time():
        return "expired"
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    return None if AUDIENCE in audience else "wrong audience"


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            fault = check(token) if kind == "Bearer" else "no token"
        except Exception as error:  # whatever a stranger sends is refused, not fatal
            fault = f"malformed: {type(error).__name__}"
        self.send_response(401 if fault else 200)
        self.end_headers()
        self.wfile.write((fault or "paid").encode() + b"\n")

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Api).serve_forever()
