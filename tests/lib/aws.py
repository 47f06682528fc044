"""AWS without AWS: IAM Roles Anywhere as its documents say it, strictly; moto's STS; AWS's own clients in a Python of their own."""

import base64
import datetime
import hashlib
import json
import os
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from lib.servers import PEERS, Recorder, Server, lacking
from lib.wait import Process, free_port

ANCHOR = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/0a1b"
PROFILE = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/2c3d"
ROLE = "arn:aws:iam::123456789012:role/orders"
REGION = "eu-central-1"
STAMP = "%Y%m%dT%H%M%SZ"


def python():
    """The Python that has AWS's clients and moto; tests/peers/setup makes it."""
    path = PEERS / "aws" / "bin" / "python"
    if not path.exists():
        lacking("AWS's Python clients and moto")
    return path


def client(script, *args, env=None, timeout=60):
    """Runs a script with AWS's clients; what it prints is JSON."""
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}
    result = subprocess.run([python(), "-c", script, *map(str, args)], capture_output=True, text=True, timeout=timeout,
                            env={**clean, **(env or {})})
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


class Refused(Exception):
    pass


class RolesAnywhere(Recorder):
    """
    A stand-in for CreateSession that takes nothing on trust: what was signed is put together again from the bytes that came.
    skew: seconds that its clock is ahead. seen: (headers as a list of pairs, body) of each request.
    """

    def __init__(self, root_pem, skew=0, life=3600, answer=None):
        super().__init__()
        self.skew, self.life, self.answer = skew, life, answer
        self.root = x509.load_pem_x509_certificate(root_pem)
        self.given = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def date_time_string(self, timestamp=None):
                return outer.now().strftime("%a, %d %b %Y %H:%M:%S GMT")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((self.headers.items(), body))
                status, answer = outer.judge(self.command, self.path, self.headers, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.handler = Handler

    def now(self):
        return datetime.datetime.utcnow() + datetime.timedelta(seconds=self.skew)

    def judge(self, method, path, headers, body):
        if self.answer:
            return self.answer
        try:
            self.check(method, path, headers, body)
        except Refused as why:
            return 403, {"message": str(why)}
        number = len(self.given)
        end = self.now() + datetime.timedelta(seconds=self.life)
        self.given.append({"accessKeyId": f"ASIASTANDIN{number:05d}", "secretAccessKey": f"stand/in+secret{number:025d}",
                           "sessionToken": f"stand+in/token{number}==" + "t" * 800, "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
        return 201, {"credentialSet": [{"assumedRoleUser": {"arn": ROLE, "assumedRoleId": "x:y"}, "credentials": self.given[-1],
                                        "packedPolicySize": 1, "roleArn": ROLE, "sourceIdentity": "CN=x"}],
                     "subjectArn": "arn:aws:rolesanywhere:eu-central-1:123456789012:subject/4e5f"}

    def chain(self, headers):
        more = headers.get("X-Amz-X509-Chain")
        ders = [headers["X-Amz-X509"], *(more.split(",") if more else [])]
        certs = [x509.load_der_x509_certificate(base64.b64decode(der, validate=True)) for der in ders]
        for cert, issuer in zip(certs, [*certs[1:], self.root]):
            if cert.issuer != issuer.subject:
                raise Refused("Untrusted certificate. Insufficient certificate")
            issuer.public_key().verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(cert.signature_hash_algorithm))
        return certs

    def check(self, method, path, headers, body):
        cert = self.chain(headers)[0]
        stamp = headers["X-Amz-Date"]
        if abs((datetime.datetime.strptime(stamp, STAMP) - self.now()).total_seconds()) > 300:
            raise Refused(f"Signature expired: {stamp} is not within 5 min of {self.now().strftime(STAMP)}")
        algorithm, _, rest = headers["Authorization"].partition(" ")
        fields = dict(item.split("=", 1) for item in rest.split(", "))
        key = cert.public_key()
        if algorithm != f"AWS4-X509-{'RSA' if isinstance(key, rsa.RSAPublicKey) else 'ECDSA'}-SHA256":
            raise Refused("wrong algorithm")
        scope = f"{stamp[:8]}/{REGION}/rolesanywhere/aws4_request"
        if fields["Credential"] != f"{cert.serial_number}/{scope}":
            raise Refused("wrong scope or serial number")
        names = fields["SignedHeaders"].split(";")
        if names != sorted(names) or not {"host", "content-type", "x-amz-date", "x-amz-x509"} <= set(names):
            raise Refused("a header is not signed")
        if "X-Amz-X509-Chain" in headers and "x-amz-x509-chain" not in names:
            raise Refused("the chain is not signed")
        canonical = "\n".join([method, path, "", *(f"{name}:{' '.join(headers[name].split())}" for name in names), "",
                               ";".join(names), hashlib.sha256(body).hexdigest()])
        signed = "\n".join([algorithm, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()]).encode()
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(bytes.fromhex(fields["Signature"]), signed, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(bytes.fromhex(fields["Signature"]), signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Refused("The request signature we calculated does not match") from None
        asked = json.loads(body)
        if (asked["trustAnchorArn"], asked["profileArn"], asked["roleArn"]) != (ANCHOR, PROFILE, ROLE) or not 900 <= asked[
                "durationSeconds"] <= 43200:
            raise Refused("access denied")

    def issuer(self, certificate, name="aws", **more):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"aws": {
            "region": REGION, "roleARN": ROLE, "endpoint": self.url(""),
            "rolesAnywhere": {"trustAnchorARN": ANCHOR, "profileARN": PROFILE, "certificateRef": certificate}, **more}}}


class Moto(Server):
    """moto's server: STS as AWS's clients know it. It takes any JWT, and says who a session is."""

    def __init__(self, tmp):
        self.port, self.tmp = free_port(), Path(tmp)

    def start(self):
        self.process = Process([python(), "-m", "moto.server", "-H", "127.0.0.1", "-p", self.port], self.tmp / "moto.log",
                               env={"PATH": os.environ["PATH"], "HOME": str(self.tmp)})
        self.process.wait_port(self.port, timeout=60)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def issuer(self, token, name="aws", **more):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"aws": {
            "region": REGION, "roleARN": ROLE, "endpoint": self.url(), "webIdentity": {"tokenRef": token}, **more}}}
