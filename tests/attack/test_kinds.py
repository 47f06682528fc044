"""Hostile answers to what asks for clients' secrets, AWS sessions and uploads: Anypoint's management API, STS, Roles Anywhere."""

import json
import re
import urllib.parse

import pytest

from hostile import Answer, Server, head
from lib.agent import Keyturn
from lib.aws import ANCHOR, PROFILE, REGION, ROLE
from lib.certs import Authority, key_pem, pem
from lib.manifests import ca_issuer, certificate, consumer, token
from victim import CANARY, Victim

AUTHORITY = Authority("kinds")
BEARER = "bEaReR-c4n4ry-7f3a"  # as short as a platform's are: nothing but itself tells that it is one
MADE = "d34db33f" * 4  # a secret that the API has just made
ID = "2b5f3d1e-6a0c-4d4e-9a53-1d7c1d2f8a01"
SESSION = {"accessKeyId": "ASIAGOODGOODGOOD0000", "secretAccessKey": "g00d/sEcReT+c4n4ry" + "s" * 22, "sessionToken": "g00d/tOkEn+c4n4ry" + "t" * 400}
LATER = "2099-01-01T00:00:00Z"
DOCUMENT = {"apiVersion": "keyturn.dev/v1alpha1"}


def anypoint_issuer(url):
    """The Token that may manage: bought with CANARY, and it is BEARER."""
    return [{**DOCUMENT, "kind": "TokenIssuer", "metadata": {"name": "platform"}, "spec": {"oauth2": {
        "tokenURL": f"{url}/token", "caBundle": AUTHORITY.bundle(), "profile": "Anypoint", "audienceParam": "none",
        "auth": {"method": "client_secret_post", "clientID": "admin", "clientSecretRef": {"name": "admin"}}}}}, token("admin", "platform")]


class ClientVictim(Victim):
    """A client whose secret is reset in place."""

    name, volume_name = "orders", "orders-client"

    def __init__(self, server):
        super().__init__()
        self.manifest("set", *anypoint_issuer(server.url), {**DOCUMENT, "kind": "ClientCredential", "metadata": {"name": "orders"}, "spec": {
            "secretName": "orders-client", "drain": "0s", "clients": [{"clientID": "a"}], "issuer": {"anypoint": {
                "url": server.url, "kind": "ConnectedApp", "tokenRef": "admin-token", "caBundle": AUTHORITY.bundle()}}}})
        self.secret("admin", client_secret=CANARY)

    def _material(self):
        return (self.volume(self.volume_name) / "client-secret").read_bytes()

    good = Answer(200, {"client_id": "a", "client_secret": "good-secret-" + "g" * 24})


class SessionVictim(Victim):
    """A session of Roles Anywhere."""

    name, volume_name = "s3", "s3-token"

    def __init__(self, server):
        super().__init__()
        root = Authority("anchor")
        self.secret("ca-root", tls__crt=root.pem(), tls__key=key_pem(root.key))
        self.manifest("set", ca_issuer(), certificate("orders", "ca", usages=["digital signature", "client auth"]), self.issuer(server),
                      token("s3", "aws", outputs=["awsProcess", "awsCredentials"]))

    def issuer(self, server):
        return {**DOCUMENT, "kind": "TokenIssuer", "metadata": {"name": "aws"}, "spec": {"aws": {
            "region": REGION, "roleARN": ROLE, "endpoint": server.url, "caBundle": AUTHORITY.bundle(),
            "rolesAnywhere": {"trustAnchorARN": ANCHOR, "profileARN": PROFILE, "certificateRef": "orders-tls"}}}}

    def _material(self):
        return json.loads((self.volume(self.volume_name) / "aws-process.json").read_bytes())["SecretAccessKey"].encode()

    good = Answer(201, {"credentialSet": [{"credentials": {**SESSION, "expiration": LATER}, "roleArn": ROLE}]})


def session(**changes):
    return Answer(201, {"credentialSet": [{"credentials": {**SESSION, "expiration": LATER, **changes}, "roleArn": ROLE}]})



def lying_length(connection):
    connection.send(head("Content-Type: application/json", "Content-Length: 1000000000"))
    connection.stream(b"[" * 65536)


def endless(connection):
    connection.send(head("Content-Type: application/json"))
    connection.stream(b'{"a":"' + b"x" * 65536)


def drip(connection):
    connection.send(head("Content-Type: application/json", "Content-Length: 100000"))
    connection.stream(b" ", 0.5)


def silent(connection):
    connection.hold()


def cut(connection):
    connection.send(head("Content-Type: application/json", "Content-Length: 200") + b'{"client_secret":"' + MADE.encode())


LONG = r"larger than allowed|limit|too large|transfer|answer"
SLOW = r"time|slow|no answer|limit"
EVERYWHERE = [  # whoever is asked
    ("C1", "huge", LONG, lying_length),
    ("C1", "endless", LONG, endless),
    ("C2", "drip", SLOW, drip),
    ("C2", "silent", SLOW, silent),
    ("C3", "html", r"JSON|status|HTTP|usable|session", Answer(200, "<html>Please log in</html>", "text/html")),
    ("C3", "empty", r"JSON|usable|empty|nothing|session", Answer(200, "")),
    ("C3", "list", r"nothing|usable|JSON|session", Answer(200, [1, 2])),
    ("C3", "deep", r"JSON|usable|session", Answer(200, "[" * 20000)),
    ("C3", "error in 200", r"nothing|usable|session", Answer(200, {"error": "no", "message": "no"})),
    ("C4", "redirect", r"30[27]|redirect", Answer(302, "", headers=[("Location", "https://127.0.0.1:9/elsewhere")])),
    ("C4", "redirect 307", r"30[27]|redirect", Answer(307, "", headers=[("Location", "/elsewhere")])),
]
CLIENT = [
    ("C5", "secret of two lines", r"line|empty", Answer(200, {"client_secret": "two\nlines"})),
    ("C5", "secret with NUL", r"line|JSON|empty", Answer(200, '{"client_secret":"a\\u0000b"}')),
    ("C5", "empty secret", r"empty", Answer(200, {"client_secret": ""})),
    ("C5", "secret that is a list", r"no text", Answer(200, {"client_secret": [MADE]})),
    ("C5", "secret that is null", r"no text", Answer(200, {"client_secret": None})),
    ("C5", "long secret", r"long|limit", Answer(200, {"client_secret": "x" * 60000})),
    ("C6", "cut", r"transfer|clos|end|cut|answer", cut),
    ("C7", "echo of the token", r"HTTP 400", lambda r: Answer(400, {"message": f"bad: {r.headers['authorization']}"})),
    ("C7", "echo in another member", r"HTTP 403", lambda r: Answer(403, {"errorSummary": r.headers["authorization"], "error": BEARER})),
    ("C7", "the new secret in an error", r"HTTP 409", Answer(409, {"message": f"the secret is now {MADE}, do not reset it again"})),
    ("C7", "terminal codes", r"HTTP 400", Answer(400, {"message": "\x1b[2J\x1b]0;owned\x07\r\nnotice: all is well"})),
    ("C8", "not allowed", r"HTTP 403", Answer(403, {"message": "not for you"})),
    ("C8", "limited", r"HTTP 429", Answer(429, {}, headers=[("Retry-After", "99999999999")])),
]
SESSIONS = [
    ("C5", "no secret key", r"no SecretAccessKey", session(secretAccessKey=None)),
    ("C5", "secret key of two lines", r"usable|session", session(secretAccessKey="a\nregion = evil")),
    ("C5", "token with spaces", r"usable|session", session(sessionToken="a b")),
    ("C5", "numbers", r"usable|session", session(accessKeyId=17)),
    ("C5", "huge token", r"usable|long|limit|larger|session", session(sessionToken="x" * 200000)),
    ("C6", "over already", r"end|expir|past", session(expiration="2001-01-01T00:00:00Z")),
    ("C6", "no end", r"no Expiration", session(expiration=None)),
    ("C6", "an end that is none", r"Expiration in the answer of AWS is no time", session(expiration="tomorrow")),
    ("C7", "echo of the signature", r"403", lambda r: Answer(403, {"message": f"no: {r.headers['authorization']}"})),
    ("C7", "a session in an error", r"400", Answer(400, {"message": f"given to another one: {SESSION['secretAccessKey']} {SESSION['sessionToken']}"})),
    ("C7", "terminal codes", r"403", Answer(403, {"message": "\x1b[2J\r\nnotice: all is well"})),
]


class Row:
    def __init__(self, victim, row, name, why, answer):
        self.victim, self.row, self.name, self.why, self.answer = victim, row, f"{victim.name}-{name}", why, answer

    def run(self):
        hostile = [False]

        def handle(request):
            if request.path.endswith("/token"):
                return Answer(200, {"access_token": BEARER, "token_type": "bearer", "expires_in": 3600})
            if not hostile[0]:
                return self.victim.good
            made = self.answer(request) if callable(self.answer) and self.answer.__name__ == "<lambda>" else self.answer
            return made

        with Server(handle, AUTHORITY) as server, self.victim(server) as victim:
            victim.publish()
            hostile[0] = True
            count = len(server.requests)
            victim.attack(timeout=70)
            victim.refused(self.why, statuses=(1, 4, 5, 75), limit=60)  # 10 s a try; an answer that never comes may be a lost one
            victim.no_secret(BEARER, MADE, "g00d/sEcReT", "g00d/tOkEn")
            assert "\x1b" not in victim.err + victim.out
            asked = [r for r in server.requests[count:] if not r.path.endswith("/token")]
            assert 1 <= len(asked) <= 4, f"one renewal asked {len(asked)} times"
            assert not [r for r in asked if "elsewhere" in r.path], "followed elsewhere"


CASES = [Row(victim, *case) for victim, own in ((ClientVictim, CLIENT), (SessionVictim, SESSIONS)) for case in EVERYWHERE + own]


@pytest.mark.parametrize("case", CASES)
def test_kind(case, outcome):
    outcome(case)


# --- uploads ----------------------------------------------------------------------------------------------------------------


class TargetVictim(Victim):
    name, volume_name = "flex", "flex-tls"

    def __init__(self, server):
        super().__init__()
        root = Authority("corp")
        self.secret("ca-root", tls__crt=pem(root.cert), tls__key=key_pem(root.key))
        self.secret("admin", client_secret=CANARY)
        self.manifest("set", ca_issuer(), certificate("flex", "ca"), *anypoint_issuer(server.url), consumer("group", within="1s", targets=[{
            "secret": "flex-tls", "anypointSecretGroup": {
                "host": server.url.partition("//")[2], "caBundle": AUTHORITY.bundle(), "organization": ID, "environment": ID,
                "secretGroup": ID, "name": "flex-ingress", "type": "PEM", "tokenRef": "admin-token"}}]))


def passphrase(request):
    found = re.search(rb'name="keyPassphrase"\r\n\r\n([^\r]+)', request.body)
    return found[1].decode() if found else ""


def shown(request, serial="E93E2F47200ED6DC", until="2018-07-04 21:00:00"):
    return Answer(200, {"details": {"certificate": {"serialNumber": serial, "validity": {"notAfter": until}}}})


LISTED = Answer(200, [])
MADE_ONE = Answer(201, {"id": ID})
# name, what is said of it, (what the list, the upload and the look at it are answered)
UPLOADS = [
    ("C1", "huge list", LONG, (lying_length, None, None)),
    ("C1", "endless list", LONG, (endless, None, None)),
    ("C3", "html", r"JSON|list", (Answer(200, "<html>", "text/html"), None, None)),
    ("C3", "no list", r"no list", (Answer(200, {"keystores": 1}), None, None)),
    ("C3", "an id that leads elsewhere", r"without an id", (Answer(200, [{"name": "flex-ingress", "meta": {"id": "../../../users"}}]), None, None)),
    ("C3", "made, with an id that leads elsewhere", r"no id", (LISTED, Answer(201, {"id": "x/../../users?"}), None)),
    ("C4", "redirect", r"30[27]|redirect", (Answer(302, "", headers=[("Location", "https://127.0.0.1:9/elsewhere")]), None, None)),
    ("C4", "redirect of the upload", r"30[27]|redirect", (LISTED, Answer(307, "", headers=[("Location", "/elsewhere")]), None)),
    ("C7", "echo of the token", r"status 400", (lambda r: Answer(400, {"message": f"bad {r.headers['authorization']}"}), None, None)),
    ("C7", "echo of the passphrase", r"status 400", (
        LISTED, lambda r: Answer(400, {"message": "x", "errors": [{"code": "RB-1003", "message": f"'{passphrase(r)}' is too long",
                                                                   "field": passphrase(r)}]}), None)),
    ("C7", "echo of the token as the serial", r"no serial", (LISTED, MADE_ONE, lambda r: shown(r, serial=r.headers["authorization"]))),
    ("C7", "echo of the token as the end", r"not a time", (LISTED, MADE_ONE, lambda r: shown(r, until=r.headers["authorization"][7:]))),
    ("C7", "terminal codes", r"status 400", (Answer(400, {"message": "\x1b[2J\r\nall is well"}), None, None)),
    ("C8", "another one's certificate", r"E93E2F47200ED6DC", (LISTED, MADE_ONE, shown)),
]


class Upload:
    def __init__(self, row, name, why, answers):
        self.row, self.name, self.why, self.answers = row, f"flex-{name}", why, answers

    def run(self):
        phrases = []

        def handle(request):
            if request.path.endswith("/token"):
                return Answer(200, {"access_token": BEARER, "token_type": "bearer", "expires_in": 3600})
            phrases.append(passphrase(request))
            answer = self.answers[1 if request.method != "GET" else 0 if request.path.endswith("keystores") else 2]
            return answer(request) if callable(answer) and answer.__name__ in ("<lambda>", "shown") else answer

        with Server(handle, AUTHORITY) as server, TargetVictim(server) as victim:
            victim.status, victim.out, victim.err, seconds, _ = victim.renew("-v", timeout=70)
            records = victim.audit(resource="Certificate/default/flex", step="uploaded")
            assert victim.status == 5 and records and records[0]["outcome"] == "failed", (victim.status, victim.err, records)
            assert re.search(self.why, records[0]["reason"]), records[0]["reason"]
            assert records[0]["reason"].isprintable() and "\x1b" not in victim.err + victim.out and seconds < 30
            assert not [r for r in server.requests if "elsewhere" in r.path or "users" in urllib.parse.unquote(r.path)]
            victim.secrets_seen = []
            victim.no_secret(BEARER, *[p for p in phrases if p])


@pytest.mark.parametrize("case", [Upload(*case) for case in UPLOADS])
def test_upload(case, outcome):
    outcome(case)


@pytest.mark.rows("C9")
def test_nothing_is_bought_for_a_stranger():
    """The token is sent to the host that the manifest names, and the platform's certificate must be that host's."""
    def handle(request):
        return Answer(200, {"access_token": BEARER, "token_type": "bearer", "expires_in": 3600})

    seen = []
    stranger = Authority("stranger")
    with Server(handle, AUTHORITY) as server, Server(lambda r: seen.append(r) or Answer(200, {}), stranger) as other, Keyturn() as kt:
        kt.secret("admin", client_secret=CANARY)
        kt.manifest("set", *anypoint_issuer(server.url), {**DOCUMENT, "kind": "ClientCredential", "metadata": {"name": "orders"}, "spec": {
            "secretName": "orders-client", "clients": [{"clientID": "a"}], "issuer": {"anypoint": {
                "url": other.url, "kind": "ConnectedApp", "tokenRef": "admin-token", "caBundle": AUTHORITY.bundle()}}}})
        assert kt.run("renew").status != 0 and not seen
        assert re.search(r"certificate|TLS", kt.credential("orders")["lastError"])
