"""AWS sessions: requests equal to those of AWS's own client, sessions from moto, and boto3 as the reader of every output."""

import datetime
import json
import os
import pwd
import re
import subprocess
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from lib.aws import ANCHOR, PROFILE, REGION, ROLE, Moto, RolesAnywhere, client, python
from lib.manifests import ca_issuer, certificate, consumer, token
from lib.servers import Recorder, fetch
from lib.wait import free_port, until

OUTPUTS = ["awsProcess", "awsCredentials", "awsEndpoint"]

# What AWS's client sends at a given moment: the prepared request, and the text that it signs.
SENDS = """
import datetime, json, sys
import iam_rolesanywhere_session.iam_rolesanywhere_session as module
certificate, key, chain, endpoint, moment, *arns = sys.argv[1:]
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=tz)
module.datetime = Clock
session = module.IAMRolesAnywhereSession(profile_arn=arns[1], role_arn=arns[2], trust_anchor_arn=arns[0], certificate=certificate,
    private_key=key, certificate_chain=chain or None, region=arns[3], endpoint=endpoint)
texts, signer = [], session._request_signer
original = signer.string_to_sign
def string_to_sign(request, canonical):
    texts.append(original(request, canonical))
    return texts[-1]
signer.string_to_sign = string_to_sign
class Sent(Exception): pass
def send(request):
    print(json.dumps({"method": request.method, "url": request.url, "signed": texts[-1],
        "headers": [[k, v.decode() if isinstance(v, bytes) else v] for k, v in request.headers.items()],
        "body": request.body.decode() if isinstance(request.body, bytes) else request.body}))
    raise Sent()
session._session.send = send
try:
    session._IAMRolesAnywhereSession__get_credentials()
except Sent:
    pass
"""

WHO = """
import boto3, json, os
session = boto3.Session()
found = session.get_credentials()
frozen = found.get_frozen_credentials()
who = session.client("sts", endpoint_url=os.environ["STS"]).get_caller_identity()["Arn"] if os.environ.get("STS") else None
print(json.dumps({"method": found.method, "key": frozen.access_key, "secret": frozen.secret_key, "token": frozen.token, "who": who,
    "expiry": found._expiry_time.isoformat() if getattr(found, "_expiry_time", None) else None}))
"""


def authorities():
    return [
        {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "self"}, "spec": {"selfSigned": {}}},
        certificate("root", "self", secret="root-ca", isCA=True, commonName="anchor", usages=["cert sign"]), ca_issuer("root", "root-ca"),
        certificate("sub", "root", secret="sub-ca", isCA=True, commonName="sub", usages=["cert sign"]), ca_issuer("sub", "sub-ca")]


def workload(algorithm="ECDSA", issuer="sub"):
    size = 256 if algorithm == "ECDSA" else 2048
    return certificate("orders", issuer, secret="orders-tls", privateKey={"algorithm": algorithm, "size": size}, usages=[
        "digital signature", "client auth"])


def root_of(kt):
    """Issues the authorities first: the stand-in's trust anchor has to be known before it starts."""
    kt.manifest("authorities", *authorities())
    kt.ok("renew")
    return kt.read("root-ca", "tls.crt")


@pytest.mark.parametrize("algorithm", ["RSA", "ECDSA"])
@pytest.mark.parametrize("issuer", ["sub", "root"])
def test_requests_equal_those_of_awss_client(kt, algorithm, issuer):
    """Headers and body, byte for byte; of ECDSA, whose signatures are never twice the same, all but those."""
    python()
    with RolesAnywhere(root_of(kt)) as server:
        kt.manifest("workload", workload(algorithm, issuer), server.issuer("orders-tls"), token("s3", "aws", outputs=OUTPUTS))
        kt.ok("renew")
        (items, body), = server.seen
    ours = dict(items)
    pem = kt.read("orders-tls", "tls.crt").decode()
    leaf, *more = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", pem, re.S)
    assert bool(more) == (issuer == "sub")
    (kt.root / "leaf.pem").write_text(leaf)
    (kt.root / "more.pem").write_text("".join(more))
    theirs = client(SENDS, kt.root / "leaf.pem", kt.volume("orders-tls") / "tls.key", kt.root / "more.pem" if more else "",
                    f"127.0.0.1:{server.port}", ours["X-Amz-Date"], ANCHOR, PROFILE, ROLE, REGION)
    assert theirs["method"] == "POST" and theirs["url"] == f"https://127.0.0.1:{server.port}/sessions"
    assert theirs["body"].encode() == body
    expected = {name: value for name, value in theirs["headers"] if name != "Authorization"}
    assert {name: ours[name] for name in expected} == {name: str(value) for name, value in expected.items()}
    authorization = dict(theirs["headers"])["Authorization"]
    if algorithm == "RSA":
        assert ours["Authorization"] == authorization
        return
    head, _, signature = ours["Authorization"].partition("Signature=")
    assert head == authorization.partition("Signature=")[0]
    x509.load_pem_x509_certificate(leaf.encode()).public_key().verify(bytes.fromhex(signature), theirs["signed"].encode(),
                                                                      ec.ECDSA(hashes.SHA256()))


def test_outputs_as_boto3_reads_them(kt):
    """credential_process, the shared file, and the endpoint with its token; each the session that the server gave."""
    port = free_port()
    with RolesAnywhere(root_of(kt)) as server:
        kt.agent_settings(listeners={"aws": f"127.0.0.1:{port}"})
        kt.manifest("workload", workload(), server.issuer("orders-tls"), token("s3", "aws", outputs=OUTPUTS, awsProfile="orders"))
        running = kt.start()
        until(lambda: (kt.volume("s3-token") / "aws-process.json").exists())
        folder, given = kt.volume("s3-token"), server.given[-1]
        config = kt.root / "aws-config"
        config.write_text(f"[profile process]\ncredential_process = cat {folder}/aws-process.json\n")
        ways = {"custom-process": {"AWS_PROFILE": "process", "AWS_CONFIG_FILE": str(config)},
                "shared-credentials-file": {"AWS_PROFILE": "orders", "AWS_SHARED_CREDENTIALS_FILE": f"{folder}/aws-credentials"},
                "container-role": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/v1/aws/default/s3-token",
                                   "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{folder}/aws-endpoint-token"}}
        for method, env in ways.items():
            who = client(WHO, env=env)
            assert who["method"] == method
            assert (who["key"], who["secret"], who["token"]) == (given["accessKeyId"], given["secretAccessKey"],
                                                                 given["sessionToken"])
            if method != "shared-credentials-file":
                end = datetime.datetime.strptime(given["expiration"], "%Y-%m-%dT%H:%M:%SZ")
                told = datetime.datetime.fromisoformat(who["expiry"]).replace(tzinfo=None)
                assert abs((told - end).total_seconds()) <= 2
        process = json.loads(kt.ok("token", "s3", "--format", "aws-credential-process").out)
        assert process == json.loads(kt.read("s3-token", "aws-process.json")) and process["Version"] == 1
        assert {f.name for f in folder.iterdir() if not f.name.startswith(".")} == {
            "aws-process.json", "aws-credentials", "aws-endpoint-token"}
        running.stop()


def refused(kt, text):
    result = kt.run("check")
    assert result.status != 0 and text in result.out + result.err, result


@pytest.fixture
def moto(kt):
    with Moto(kt.root) as server:
        yield server


def identity(**more):
    """A JWT of ours for STS, and the issuer that makes it."""
    return [{"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
        "issuerURL": "https://tokens.example", "publishJWKS": {"listener": False}, "publishAhead": "0s"}}}, token(
            "id", "own", audiences=["sts.amazonaws.com"], **more)]


def test_web_identity_at_moto(kt, moto):
    """From a JWT of the embedded issuer to a session, and to moto telling boto3 whom it takes that session for."""
    port = free_port()
    kt.agent_settings(listeners={"aws": f"127.0.0.1:{port}"})
    kt.manifest("set", *identity(), moto.issuer("id-token"), token("s3", "aws", outputs=OUTPUTS))
    running = kt.start()
    until(lambda: (kt.volume("s3-token") / "aws-process.json").exists(), timeout=30)
    folder = kt.volume("s3-token")
    config = kt.root / "aws-config"
    config.write_text(f"[profile process]\ncredential_process = cat {folder}/aws-process.json\n")
    for env in ({"AWS_PROFILE": "process", "AWS_CONFIG_FILE": str(config)}, {"AWS_SHARED_CREDENTIALS_FILE": f"{folder}/aws-credentials"},
                {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/v1/aws/default/s3-token",
                 "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{folder}/aws-endpoint-token"}):
        assert client(WHO, env={**env, "STS": moto.url()})["who"] == "arn:aws:sts::123456789012:assumed-role/orders/s3"
    running.stop()


class Sts(Recorder):
    """Keeps each request to STS, and refuses it with a message that quotes the token."""

    def __init__(self):
        super().__init__()
        self.forms = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.forms.append((self.command, self.path, self.headers["Content-Type"], parse_qs(body, strict_parsing=True)))
                token = outer.forms[-1][3]["WebIdentityToken"][0]
                answer = ("<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
                          f"<Message>Couldn't retrieve key for {token}</Message></Error></ErrorResponse>").encode()
                self.send_response(400)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.handler = Handler

    def issuer(self, **more):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "aws"}, "spec": {"aws": {
            "region": REGION, "roleARN": ROLE, "endpoint": self.url(""), "webIdentity": {"tokenRef": "id-token"}, **more}}}


ASSUME = """
import boto3, botocore, json, sys
sts = boto3.client("sts", endpoint_url=sys.argv[1], config=botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"max_attempts": 0}))
try:
    sts.assume_role_with_web_identity(RoleArn=sys.argv[2], RoleSessionName="s3", WebIdentityToken=sys.argv[3], DurationSeconds=3600)
except sts.exceptions.InvalidIdentityTokenException:
    print("{}")
"""


def test_sts_is_asked_as_boto3_asks(kt):
    """The same form; a token that the refusal quotes is not shown."""
    python()
    with Sts() as server:
        kt.manifest("set", *identity(), server.issuer(), token("s3", "aws", outputs=OUTPUTS))
        result = kt.run("renew")
        jwt = kt.read("id-token", "token").decode()
        client(ASSUME, server.url(""), ROLE, jwt)
        ours, theirs = server.forms
    assert ours == theirs
    assert result.status != 0 and "InvalidIdentityToken: [it quotes what must not be shown] (HTTP 400)" in result.out + result.err, result
    assert jwt not in result.out + result.err


def test_the_command_is_a_credential_process(kt, moto):
    """`keyturn token NAME` where no agent runs, straight from the configuration of an SDK."""
    kt.manifest("set", *identity(), moto.issuer("id-token", sessionName="nightly"), token("s3", "aws", outputs=["awsCredentials"]))
    kt.ok("renew")
    config = kt.root / "aws-config"
    config.write_text(f"[profile process]\ncredential_process = {kt.binary} token s3 --format aws-credential-process\n")
    env = {name: value for name, value in kt.env.items() if name.startswith("KEYTURN_")}
    who = client(WHO, env={**env, "AWS_PROFILE": "process", "AWS_CONFIG_FILE": str(config), "STS": moto.url()})
    assert who["who"] == "arn:aws:sts::123456789012:assumed-role/orders/nightly"
    assert kt.json("token", "s3") == json.loads(kt.ok("token", "s3").out) and kt.json("token", "s3")["Version"] == 1
    refusal = kt.run("token", "s3", "--format", "header")
    assert refusal.status != 0 and "its formats are aws-credential-process" in refusal.err + refusal.out
    other = kt.run("token", "id", "--format", "aws-credentials")
    assert other.status != 0 and "not a session of AWS" in other.err + other.out


def anywhere(kt, server, **more):
    kt.manifest("workload", workload(), server.issuer("orders-tls"), token("s3", "aws", outputs=OUTPUTS, **more))


@pytest.mark.parametrize("skew", [1800, -1800])
def test_a_clock_that_is_off(kt, skew):
    """Refused by our clock, signed again by the server's, once; and the session's end is told by ours."""
    root = root_of(kt)
    with RolesAnywhere(root, skew=skew) as server:
        anywhere(kt, server)
        kt.ok("renew")
        assert len(server.seen) == 2 and len(server.given) == 1
    end = datetime.datetime.strptime(json.loads(kt.read("s3-token", "aws-process.json"))["Expiration"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs((end - datetime.datetime.utcnow()).total_seconds() - 3600) < 10


def test_a_refusal_says_why(kt):
    with RolesAnywhere(root_of(kt), answer=(403, {"message": "Untrusted certificate. Insufficient certificate"})) as server:
        anywhere(kt, server)
        result = kt.run("renew")
        assert result.status != 0 and "Untrusted certificate. Insufficient certificate (HTTP 403)" in result.err + result.out, result
        assert len(server.seen) == 1, "the clocks agree: nothing to be gained by another try"


@pytest.mark.parametrize("answer", [
    {}, {"credentialSet": []}, {"credentialSet": [{"credentials": {"accessKeyId": "A", "secretAccessKey": "b"}}]},
    {"credentialSet": [{"credentials": {"accessKeyId": "A", "secretAccessKey": "canary\nx = y", "sessionToken": "c",
                                        "expiration": "2099-01-01T00:00:00Z"}}]},
    {"credentialSet": [{"credentials": {"accessKeyId": "A", "secretAccessKey": "canary", "sessionToken": "c",
                                        "expiration": "2001-01-01T00:00:00Z"}}]},
    {"credentialSet": [{"credentials": {"accessKeyId": "A", "secretAccessKey": "canary", "sessionToken": "c" * 20000,
                                        "expiration": "2099-01-01T00:00:00Z"}}]}])
def test_what_is_no_session_is_not_delivered(kt, answer):
    with RolesAnywhere(root_of(kt), answer=(201, answer)) as server:
        anywhere(kt, server)
        result = kt.run("renew")
        assert result.status != 0 and "canary" not in result.err + result.out, result
    assert not (kt.volume("s3-token") / "aws-process.json").exists()


def test_the_endpoint_gives_nothing_without_its_token(kt):
    port = free_port()
    with RolesAnywhere(root_of(kt)) as server:
        kt.agent_settings(listeners={"aws": f"127.0.0.1:{port}"})
        kt.manifest("workload", workload(), server.issuer("orders-tls"), token("s3", "aws", outputs=OUTPUTS),
                    token("other", "aws", outputs=OUTPUTS))
        running = kt.start()
        until(lambda: all((kt.volume(f"{name}-token") / "aws-endpoint-token").exists() for name in ("s3", "other")))
        mine, other = (kt.read(f"{name}-token", "aws-endpoint-token").decode() for name in ("s3", "other"))
        assert re.fullmatch("[0-9a-f]{64}", mine) and mine != other

        def ask(authorization, path="default/s3-token", **more):
            return fetch(f"http://127.0.0.1:{port}/v1/aws/{path}", headers={"Authorization": authorization} if authorization else {}, **more)

        status, body = ask(mine)
        given = json.loads(body)
        assert status == 200 and set(given) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
        refusals = [ask(other), ask(mine[:-1]), ask(mine + "0"), ask(mine.upper()), ask(f"Bearer {mine}"), ask(mine, "default/orders-tls"),
                    ask(mine, "default/nothing"), ask(mine, "elsewhere/s3-token"), ask("x" * 4096)]
        assert {status for status, _ in refusals} == {403} and len({body for _, body in refusals}) == 1, refusals
        assert ask(None)[0] == 401 and ask(mine, "default/../x")[0] == 400 and ask(mine, "s3-token")[0] == 404
        assert ask(mine, data=b"x=y")[0] in (405, 413)
        assert fetch(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": mine})[0] == 404
        # An SDK that has read the file a moment before the session is replaced still gets the new one.
        kt.ok("renew", "--force", "s3")
        assert kt.read("s3-token", "aws-endpoint-token").decode() != mine
        status, body = ask(mine)
        assert status == 200 and json.loads(body)["AccessKeyId"] == server.given[-1]["accessKeyId"] != given["AccessKeyId"]
        running.stop()
        secrets = [text.encode() for one in server.given for text in (one["secretAccessKey"], one["sessionToken"])] + [mine.encode()]
        for path in [*kt.state.rglob("*"), kt.root / "run-1.log"]:
            if path.is_file():
                data = path.read_bytes()
                assert not any(secret in data for secret in secrets), path


def test_the_token_socket_gives_it_too(kt):
    with RolesAnywhere(root_of(kt)) as server:
        kt.agent_settings(listeners={"tokens": f"unix:{kt.root}/tokens.sock"})
        anywhere(kt, server)
        kt.manifest("consumer", consumer("batch", secrets=["s3-token"], socket={"users": [pwd.getpwuid(os.getuid()).pw_name]}))
        running = kt.start()
        until(lambda: (kt.volume("s3-token") / "aws-process.json").exists())
        out = subprocess.run(["curl", "-q", "-sS", "--unix-socket", f"{kt.root}/tokens.sock", "http://x/v1/token/default/s3-token"],
                             capture_output=True, text=True, timeout=20, check=True).stdout
        assert json.loads(out)["Token"] == server.given[-1]["sessionToken"]
        running.stop()


LOOKS = """
import boto3, datetime, json, sys, time
found, seen = boto3.Session().get_credentials(), []
end = time.time() + float(sys.argv[1])
while time.time() < end:
    key = found.get_frozen_credentials().access_key
    left = (found._expiry_time - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    if not seen or seen[-1][0] != key:
        seen.append([key, left])
    seen[-1][1] = min(seen[-1][1], left)
    time.sleep(0.3)
print(json.dumps(seen))
"""


def test_a_program_that_runs_on_never_has_an_ended_session(kt):
    """boto3 at the endpoint over several renewals: each session in turn, none to its end."""
    port = free_port()
    with RolesAnywhere(root_of(kt), life=8) as server:
        kt.agent_settings(listeners={"aws": f"127.0.0.1:{port}"})
        anywhere(kt, server)
        running = kt.start()
        until(lambda: (kt.volume("s3-token") / "aws-endpoint-token").exists())
        seen = client(LOOKS, 12, env={"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/v1/aws/default/s3-token",
                                      "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{kt.volume('s3-token')}/aws-endpoint-token"})
        running.stop()
    keys = [key for key, _ in seen]
    assert len(keys) >= 3 and keys == [one["accessKeyId"] for one in server.given[:len(keys)]], seen
    assert min(left for _, left in seen) > 0, seen


def test_a_session_is_no_token(kt):
    """Where a JWT is wanted the keys of a session would be sent: they are not."""
    with RolesAnywhere(root_of(kt)) as server, Sts() as sts:
        anywhere(kt, server)
        kt.manifest("wrong", {**sts.issuer(webIdentity={"tokenRef": "s3-token"}), "metadata": {"name": "wrong"}}, token("b", "wrong", outputs=OUTPUTS))
        result = kt.run("renew")
        assert result.status != 0 and "is a session of AWS, which is no token" in result.out + result.err, result
        assert not sts.forms


def test_one_that_was_refused_is_replaced(kt):
    with RolesAnywhere(root_of(kt)) as server:
        anywhere(kt, server)
        kt.ok("renew")
        kt.ok("token", "s3", "--invalidate")
        assert len(server.given) == 2
        assert json.loads(kt.read("s3-token", "aws-process.json"))["AccessKeyId"] == server.given[1]["accessKeyId"]


@pytest.mark.parametrize("spec, text", [
    ({}, "spec.outputs (aws) gives AWS sessions, not tokens"),
    ({"outputs": ["raw", "awsProcess"]}, "spec.outputs (aws) gives AWS sessions, not tokens"),
    ({"outputs": ["awsProcess"], "audiences": ["x"]}, "spec.audiences (aws) gives AWS sessions"),
    ({"outputs": ["awsProcess"], "scopes": ["x"]}, "spec.scopes (aws) gives AWS sessions"),
    ({"outputs": ["awsProcess"], "claims": {"subject": "x"}}, "spec.claims (aws) has a meaning only with a local TokenIssuer, this one is aws"),
    ({"outputs": ["awsProcess"], "dpop": {}}, "spec.dpop (aws) has a meaning only with an oauth2 TokenIssuer, this one is aws")])
def test_what_a_session_has_no_use_for(kt, spec, text):
    kt.manifest("set", *identity(), {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "aws"}, "spec": {"aws": {
        "region": REGION, "roleARN": ROLE, "webIdentity": {"tokenRef": "id-token"}}}}, token("s3", "aws", **spec))
    refused(kt, text)


def test_what_an_aws_issuer_needs(kt):
    def issuer(**aws):
        return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "aws"}, "spec": {"aws": {
            "region": REGION, "roleARN": ROLE, **aws}}}

    for document, text in ((issuer(webIdentity={"tokenRef": "nobody"}), "names a secret that no Token has"),
                           (issuer(webIdentity={"tokenRef": "id-token"}, roleARN="orders"), "is not an ARN"),
                           (issuer(webIdentity={"tokenRef": "id-token"}, endpoint="https://vpce.example/x"), "must end after host and port"),
                           (issuer(webIdentity={"tokenRef": "id-token"}, duration="1m"), "duration"),
                           (issuer(), "webIdentity")):
        kt.manifest("set", *identity(), document)
        refused(kt, text)
    kt.manifest("set", *identity(outputs=["awsProcess"]))
    refused(kt, "awsProcess, awsCredentials and awsEndpoint belong to an aws TokenIssuer")
    kt.manifest("set", *identity())
    kt.agent_settings(listeners={"aws": "0.0.0.0:9405"})
    refused(kt, "must be a loopback address")
