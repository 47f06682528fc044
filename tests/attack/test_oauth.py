"""OAuth rows: what a token endpoint answers, what its metadata says, and what stands in a JWT that it gives."""

import base64
import json
import re
import time
import urllib.parse

import pytest

from hostile import Answer, Server
from lib.certs import Authority
from victim import CANARY, TokenVictim

AUTHORITY = Authority("oauth")
GOOD = {"access_token": "good-token-" + "g" * 40, "token_type": "Bearer", "expires_in": 3600}


def b64(value):
    data = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(header=None, raw=None, tail="", **claims):
    now = int(time.time())
    full = {"iss": "ISSUER", "aud": "https://api.example", "sub": "s", "iat": now, "exp": now + 3600, "jti": "j-" + str(now), **claims}
    full = {k: v for k, v in full.items() if v is not None}
    return f"{b64(header or {'alg': 'ES256', 'typ': 'at+jwt'})}.{b64(raw if raw is not None else full)}.{b64(b's' * 64)}{tail}"


def ok(**members):
    new = {**GOOD, **members}
    return Answer(200, {k: v for k, v in new.items() if v is not None})


def token(text, **members):
    return ok(access_token=text, **members)


def text(raw):
    return Answer(200, raw)


def error(status, code, description=None, *headers):
    return Answer(status, {"error": code, **({"error_description": description} if description else {})}, headers=list(headers))


class Row:
    """answer: what the endpoint says (may be made from the request). why: the reason that must be named; None: it is taken."""

    def __init__(self, row, name, why, answer, waits=(0, 90000), statuses=(1, 4, 75), issuer=False, life=None, more=None, asks=1,
                 **spec):
        self.row, self.name, self.why, self.answer, self.waits, self.statuses = row, name, why, answer, waits, statuses
        self.issuer, self.life, self.more, self.asks, self.spec = issuer, life, more, asks, spec

    def run(self):
        hostile = [False]

        def handle(request):
            base = server.url
            if request.path.startswith("/.well-known/"):
                metadata = {"issuer": base, "token_endpoint": f"{base}/token", "jwks_uri": f"{base}/jwks"}
                answer = Answer(200, metadata)
                return self.answer(request, answer) if hostile[0] and self.row.startswith("J") and callable(self.answer) else answer
            if not hostile[0] or (self.row in ("J1", "J2")):
                return Answer(200, GOOD)
            answer = self.answer(request) if callable(self.answer) else self.answer
            if not callable(answer) and isinstance(answer.body, dict) and "access_token" in answer.body:
                answer = Answer(answer.status, dict(answer.body), answer.type, answer.headers)
                sent = answer.body["access_token"]
                if isinstance(sent, str) and sent.count(".") >= 2:  # the issuer's name is known only now
                    head, claims, *rest = sent.split(".")
                    claims = base64.urlsafe_b64decode(claims + "==").replace(b"ISSUER", base.encode())
                    answer.body["access_token"] = ".".join([head, b64(claims), *rest])
            return answer

        with Server(handle, AUTHORITY) as server, TokenVictim(server.url, AUTHORITY, issuer=self.issuer, **self.spec) as victim:
            victim.publish()
            hostile[0] = True
            count = len(server.requests)
            victim.attack()
            if self.why is None:
                self.taken(victim)
            else:
                victim.refused(self.why, statuses=self.statuses, peer=victim.peer)
                assert self.waits[0] <= victim.wait_s <= self.waits[1], f"the next try is in {victim.wait_s:.0f} s"
            asked = [r for r in server.requests[count:] if r.path == "/token"]
            assert len(asked) <= self.asks, f"one renewal asked {len(asked)} times"
            pauses = [later.at - earlier.at for earlier, later in zip(asked, asked[1:])]
            assert all(pause > 0.9 for pause in pauses), f"asked again after {pauses} s"
            for request in asked:
                form = urllib.parse.parse_qs(request.body.decode())
                assert form["client_secret"] == [CANARY] and form["grant_type"] == ["client_credentials"], form
            if self.more:
                self.more(victim, server)

    def taken(self, victim):
        assert victim.status == 0, victim.err
        assert victim.snapshot() != victim.before
        victim.secrets_seen.append(victim._material())
        victim.no_secret()
        if self.life:
            from datetime import datetime, timezone
            left = (datetime.fromisoformat(victim.row["notAfter"].replace("Z", "+00:00")) - datetime.now(timezone.utc)).total_seconds()
            assert self.life[0] <= left <= self.life[1], f"lives {left:.0f} s more"


def warned(pattern):
    def more(victim, server):
        assert re.search(pattern, victim.err), f"no warning /{pattern}/:\n{victim.err}"
    return more


def metadata(**changes):
    def answer(request, good):
        good.body.update({k: (v(good.body[k]) if callable(v) else v) for k, v in changes.items()})
        return good
    return answer


def resting(victim, server):
    """Nobody is hammered: a renew that isn't forced asks no one until the time has come."""
    count = len(server.requests)
    victim.run("renew")
    assert len(server.requests) == count, "it asked again at once"


NOW = int(time.time())
TABLE = [
    Row("O1", "200 with an error", r"invalid_request", text('{"error":"invalid_request","error_description":"no"}')),
    Row("O2", "HTML", r"text/html", Answer(200, "<html>", "text/html")),
    Row("O2", "HTML said to be JSON", r"JSON", text("<html>")),
    Row("O2", "JSON said to be text", r"text/plain", Answer(200, GOOD, "text/plain")),
    Row("O3", "none", r"access_token", token(None)),
    Row("O3", "empty", r"access_token", token("")),
    Row("O3", "number", r"access_token", token(7)),
    Row("O3", "array", r"access_token", token(["a"])),
    Row("O3", "100 kB", r"larger", token("a" * 100000)),
    Row("O3", "1 MB", r"larger", token("a" * (1 << 20))),
    Row("O3", "CR LF", r"token", token("aaaaaaaaaaaaaaaaaaaa\r\nX-Evil: 1")),
    Row("O3", "NUL", r"JSON|token", text('{"access_token":"aaaaaaaaaaaaaaaaaaaaaa\\u0000b","token_type":"Bearer"}')),
    Row("O3", "space", r"token", token("aaaaaaaaaaaaaaaaaa b")),
    Row("O3", "not ASCII", r"token", token("aaaaaaaaaaaaaaaaaaaaä")),
    Row("O3", "no type", r"type", ok(token_type=None)),
    Row("O3", "type MAC", r"type", ok(token_type="mac")),
    Row("O3", "a list", r"access_token|JSON", text("[]")),
    Row("O3", "twice", r"JSON", text('{"access_token":"' + "a" * 30 + '","access_token":"' + "b" * 30 + '","token_type":"Bearer"}')),
    Row("O5", "0", r"expire", ok(expires_in=0)),
    Row("O5", "negative", r"expire", ok(expires_in=-3600)),
    Row("O5", "string of a number", None, ok(expires_in="600", access_token="new-token-" + "n" * 30), life=(500, 610)),
    Row("O5", "words", r"expires_in", ok(expires_in="soon")),
    Row("O5", "1e400", r"JSON|expires_in", text('{"access_token":"' + "a" * 30 + '","token_type":"Bearer","expires_in":1e400}')),
    Row("O5", "real", r"expires_in", ok(expires_in=3.5)),
    Row("O5", "2^63", r"JSON|expires_in", text('{"access_token":"' + "a" * 30 + '","token_type":"Bearer","expires_in":9223372036854775808}')),
    Row("O5", "2^63-1", None, ok(expires_in=2 ** 63 - 1, access_token="new-token-" + "n" * 30), life=(600, 3651 * 86400)),
    Row("O5", "true", r"expires_in", ok(expires_in=True)),
    Row("O5", "missing", None, ok(expires_in=None, access_token="new-token-" + "n" * 30), life=(200, 310)),
    Row("O6", "expired", r"expired", token(jwt(exp=NOW - 60))),
    Row("O6", "nbf ahead", r"not valid yet|nbf", token(jwt(nbf=NOW + 7200))),
    Row("O6", "iat a year ahead", None, token(jwt(iat=NOW + 366 * 86400)), life=(3000, 3650)),
    Row("O6", "iat a year ago", None, token(jwt(iat=NOW - 366 * 86400)), life=(3000, 3650)),
    Row("O6", "exp before expires_in", None, token(jwt(exp=NOW + 300), expires_in=36000), life=(60, 310)),
    Row("O7", "narrower", r"narrowed", ok(scope="read")),
    Row("O7", "empty", r"narrowed", ok(scope="")),
    Row("O7", "a list", r"scope", ok(scope=["read", "write"])),
    Row("O7", "of 20 kB", r"scope", ok(scope="read write " + "x" * 20000)),
    Row("O8", "other audience", r"audience", token(jwt(aud="https://other.example"))),
    Row("O8", "other issuer", r"iss", token(jwt(iss="https://other.example")), issuer=True),
    Row("O8", "one of several audiences", None, token(jwt(aud=["x", "https://api.example"]))),
    Row("O9", "invalid_client", r"invalid_client", error(401, "invalid_client"), waits=(600, 90000), statuses=(1,), more=resting),
    Row("O9", "unauthorized_client", r"unauthorized_client", error(400, "unauthorized_client"), waits=(600, 90000), statuses=(1,), more=resting),
    Row("O9", "401 without a word", r"HTTP 401", Answer(401, b"", None), waits=(600, 90000), statuses=(1,), more=resting),
    Row("O10", "429 for 2 min", r"429", error(429, "slow_down", None, ("Retry-After", "120")), waits=(115, 300), statuses=(75,), more=resting),
    Row("O10", "503 for 10 min", r"503", Answer(503, "busy", "text/plain", [("Retry-After", "600")]), waits=(595, 900), statuses=(75,),
        more=resting),
    Row("O10", "reset header", r"429", error(429, "slow_down", None, ("X-Rate-Limit-Reset", str(NOW + 900))), waits=(700, 1100), statuses=(75,)),
    # "Come back now" is believed, a second or more apart, four times at most in one command.
    *(Row("T21", name, r"503", Answer(503, "", "text/plain", [("Retry-After", value)]), waits=waits, statuses=(75,),
          asks=4 if name in ("zero", "past date") else 1) for name, value, waits in (
        ("1e18", "1000000000000000000", (86000, 90000)), ("1e40", "1" + "0" * 40, (0, 90000)), ("negative", "-5", (-5, 7200)),
        ("past date", "Sun, 06 Nov 1994 08:49:37 GMT", (-5, 7200)), ("garbage", "soon", (5, 7200)),
        ("2099", "Thu, 01 Jan 2099 00:00:00 GMT", (86000, 90000)), ("zero", "0", (-5, 7200)))),
    *(Row("T22", name, None, Answer(200, {**GOOD, "access_token": "new-token-" + "n" * 30}, headers=[("Date", value)]), life=(3000, 3650))
      for name, value in (("years ahead", "Thu, 01 Jan 2099 00:00:00 GMT"), ("years ago", "Sun, 06 Nov 1994 08:49:37 GMT"),
                          ("garbage", "yesterday"))),
    Row("O12", "escapes", r"invalid_request", error(400, "invalid_request", "\x1b]0;x\x07\x1b[31mred\r\nline two\x7f")),
    Row("O12", "echoes the secret", r"redacted", error(400, "invalid_request", f"you sent {CANARY}!")),
    Row("O12", "echoes the form", r"redacted", lambda r: error(400, "invalid_request", r.body.decode())),
    Row("O12", "echoes it as code", r"refuses", error(400, CANARY)),
    Row("O12", "echoes it cut", r"invalid", error(400, "invalid_request", "x" * 385 + CANARY)),
    Row("O12", "echoes it as scope", r"narrowed", ok(scope=f"read {CANARY}")),
    Row("O12", "echoes it as type", r"type", ok(token_type=CANARY)),
    Row("O12", "echoes it as Content-Type", r"instead of JSON", Answer(200, "x", CANARY)),
    Row("O12", "echoes basic authorization", r"redacted", lambda r: error(400, "invalid_request", base64.b64encode(
        f"client:{CANARY}".encode()).decode())),
    Row("O13", "307", r"(?i)redirect", lambda r: Answer(307, "", None, [("Location", "https://evil.example/token")])),
    Row("J1", "other issuer", r"issuer", metadata(issuer="https://evil.example"), issuer=True),
    Row("J1", "issuer with a slash", r"issuer", metadata(issuer=lambda old: old + "/"), issuer=True),
    Row("J1", "no issuer", r"issuer", metadata(issuer=None), issuer=True),
    *(Row("J2", f"token_endpoint {where}", r"token_endpoint|https|names", metadata(token_endpoint=where), issuer=True)
      for where in ("http://evil.example/token", "file:///etc/passwd", "https://169.254.169.254/latest", "https://user@evil.example/", "")),
    Row("J14", "aud an empty array", r"aud", token(jwt(aud=[]))),
    Row("J14", "no exp", None, token(jwt(exp=None)), life=(3000, 3650)),
]
# What is no good JWT is to the client an opaque token, which the resource server judges: taken by expires_in.
TABLE += [Row("J14", name, None, token(value), life=(3000, 3650)) for name, value in (
    ("exp a string", jwt(exp="1")), ("claims twice", jwt(raw='{"exp":1,"exp":99999999999}')), ("four parts", jwt(tail=".AAAA")),
    ("padding", jwt(tail="==")), ("plus", jwt(tail="+/")))]


@pytest.mark.parametrize("case", TABLE)
def test_oauth(case, outcome):
    outcome(case)


@pytest.mark.rows("O15")
def test_slow_mint_is_asked_once():
    """The answer takes 8 s: who asks meanwhile waits for the same one."""
    import threading

    slow = [False]

    def handle(request):
        if slow[0]:
            time.sleep(8)
        return Answer(200, {**GOOD, "access_token": f"token-{len(server.requests)}-" + "x" * 30})

    with Server(handle, AUTHORITY) as server, TokenVictim(server.url, AUTHORITY) as victim:
        victim.publish()
        agent = victim.start()
        slow[0] = True
        count = len(server.requests)
        results = []
        threads = [threading.Thread(target=lambda: results.append(victim.run("renew", "api", "--force"))) for _ in range(5)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        assert victim.snapshot() == victim.before  # nobody waits without the old one
        for thread in threads:
            thread.join(40)
        assert [r.status for r in results] == [0] * 5, results
        asked = len(server.requests) - count
        assert asked <= 2, f"five commands at once asked {asked} times"
        agent.stop()


@pytest.mark.rows("O11")
def test_refresh_tokens_are_kept_until_one_works():
    """Rotated and the answer lost; then one that was given is not known any more: what may still work is tried, newest first."""
    given, good, asked = ["refresh-0-" + "r" * 30], [], []
    lose = [False]

    def handle(request):
        form = urllib.parse.parse_qs(request.body.decode())
        assert form["grant_type"] == ["refresh_token"], form
        asked.append(form["refresh_token"][0])
        if asked[-1] not in good:
            return Answer(400, {"error": "invalid_grant"})
        given.append(f"refresh-{len(given)}-" + "r" * 30)
        if lose[0]:
            return lambda c: c.abrupt()
        good[:] = [given[-1]]
        return Answer(200, {**GOOD, "access_token": f"token-{len(given)}-" + "x" * 30, "refresh_token": given[-1]})

    grant = {"refreshToken": {"secretRef": {"name": "login"}}}
    with Server(handle, AUTHORITY) as server, TokenVictim(server.url, AUTHORITY, grant=grant) as victim:
        victim.secret("login", refresh_token=given[0])
        good[:] = [given[0]]
        victim.publish()
        first = given[-1]
        lose[0] = True
        victim.attack()
        victim.refused(r"token", statuses=(75,), peer=victim.peer)
        assert asked[-1] == first
        lose[0] = False
        victim.attack()  # the server is patient: the one that it has rotated is good for a while
        assert victim.status == 0 and asked[-1] == first, victim.err
        newest = given[-1]
        good[:] = [first]  # it has forgotten the newest, as a replica does that was behind
        del asked[:]
        victim.attack()
        assert victim.status == 0 and asked == [newest, first], (asked, victim.err)
        good[:] = []
        del asked[:]
        victim.attack()
        assert victim.status == 1 and "invalid_grant" in victim.err and 1 <= len(asked) <= 3, (asked, victim.err)
        assert not any(one in victim.err + victim.out for one in given)


@pytest.mark.rows("J2")
@pytest.mark.parametrize("host", ["localhost.", "LOCALHOST.", "localhost%2e"])
def test_name_with_a_dot_at_its_end(host):
    """The same host to DNS, another name to libcurl's cache: nothing may be looked up past the courier's own resolver."""
    def handle(request):
        base = f"https://localhost:{server.port}"
        if request.path.startswith("/.well-known/"):
            return Answer(200, {"issuer": base, "token_endpoint": f"https://{host if evil else 'localhost'}:{server.port}/token"})
        return Answer(200, GOOD)

    evil = False
    with Server(handle, AUTHORITY) as server, TokenVictim(f"https://localhost:{server.port}", AUTHORITY, issuer=True) as victim:
        victim.publish()
        evil = True
        victim.attack()
        victim.refused(r"token_endpoint")
