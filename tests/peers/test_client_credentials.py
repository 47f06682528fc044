"""Clients' ids and secrets as credentials, against a stand-in for Anypoint and Okta (tests/lib/anypoint.py): rotated, tried, switched."""

import hashlib
import json
import os
import signal
import threading
import time

import pytest

from lib.anypoint import ORG, Platform
from lib.manifests import consumer, token
from lib.servers import Consumer, fetch
from lib.wait import until


@pytest.fixture()
def platform():
    with Platform("a", "b") as own:
        yield own
        assert not own.wrong, own.wrong


def issuer(platform, name="anypoint", client="admin", secret="admin", path="/accounts/api/v2/oauth2/token"):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"oauth2": {
        "tokenURL": platform.url + path, "profile": "Anypoint", "audienceParam": "none",
        "auth": {"method": "client_secret_post", "clientID": client, "clientSecretRef": {"name": secret}}}}}


def client(*names, name="orders", kind="ConnectedApp", where=None, given=(), **spec):
    clients = [{"clientID": n, **({"secretRef": {"name": f"given-{n}"}} if n in given else {})} for n in names]
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": name}, "spec": {
        "secretName": f"{name}-client", "clients": clients, "issuer": where, "drain": "0s",
        **({"strategy": "AlternateClients"} if len(names) == 2 else {}), **spec}}


def anypoint(platform, kind="ConnectedApp", **more):
    return {"anypoint": {"url": platform.url, "kind": kind, "tokenRef": "admin-token", **more}}


def prepare(kt, platform, *documents):
    kt.secret("admin", client_secret=platform.clients["admin"].secret)
    kt.manifest("all", issuer(platform), token("admin", "anypoint"), *documents)


def pair(kt, name="orders"):
    """What one generation has: another may be switched to between two reads."""
    for _ in range(20):
        try:
            folder = (kt.volume(f"{name}-client") / "..data").resolve(strict=True)
            said = json.loads((folder / "credentials.json").read_bytes())
            assert (folder / "client-id").read_text() == said["client_id"]
            assert (folder / "client-secret").read_text() == said["client_secret"]
            return said["client_id"], said["client_secret"]
        except FileNotFoundError:
            continue
    raise AssertionError("no generation stays")


def works(kt, platform, name="orders"):
    who, secret = pair(kt, name)
    return platform.clients[who].good(secret)


def nowhere(kt, platform):
    """No secret is in anything that is shown."""
    text = kt.run("audit", "-o", "json").out + kt.run("status", "-o", "json").out + kt.run("why", "orders").out
    for one in platform.clients.values():
        for secret in one.secrets.values():
            assert secret not in text


@pytest.mark.parametrize("kind,where", [("ConnectedApp", {}), ("ConnectedApp", {"organization": ORG}),
                                        ("EnvironmentClient", {"organization": ORG}),
                                        ("ApplicationContract", {"organization": ORG})])
def test_in_place(kt, platform, kind, where):
    prepare(kt, platform, client("a", where=anypoint(platform, kind, **where)))
    kt.ok("renew")
    assert platform.resets("a") == 1 and works(kt, platform)
    assert (kt.volume("orders-client") / "client-secret").stat().st_mode & 0o777 == 0o600
    if kind == "ConnectedApp":
        assert platform.mints[-1] == ("a", platform.clients["a"].secret, True), "tried before anybody got it"
    first = pair(kt)
    kt.ok("renew")
    assert platform.resets("a") == 1, "in order"
    kt.ok("renew", "orders", "--force")
    assert platform.resets("a") == 2 and works(kt, platform) and pair(kt) != first
    row = kt.credential("orders")
    assert row["kind"] == "ClientCredential" and row["notAfter"] is None and row["tokenId"] == "a"
    assert row["sha256"] == hashlib.sha256(pair(kt)[1].encode()).hexdigest()
    nowhere(kt, platform)


def test_given_secret_is_taken_over(kt, platform):
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    prepare(kt, platform, client("a", given=("a",), where=anypoint(platform)))
    kt.ok("renew")
    assert platform.resets("a") == 0 and pair(kt) == ("a", "first-secret-of-a")
    kt.ok("renew", "orders", "--force")
    assert platform.resets("a") == 1 and works(kt, platform)


def test_given_secret_that_is_wrong(kt, platform):
    kt.secret("given-a", client_secret="wrong-one")
    prepare(kt, platform, client("a", given=("a",), where=anypoint(platform)))
    result = kt.run("renew")
    assert result.status != 0 and "given" in result.err and "wrong-one" not in result.err, result
    assert platform.resets("a") == 0 and not kt.volume("orders-client").exists()
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    kt.ok("renew")
    assert works(kt, platform)


# --- lost answers -----------------------------------------------------------------------------------------------------------


def kill_keeper(running):
    for pid, name in running.rooms().items():
        if "keeper" in name:
            os.kill(pid, signal.SIGKILL)


class Killer:
    """Ends the agent, by kill -9, when the reset is done and its answer is not sent; once."""

    def __init__(self, whole):
        self.whole, self.running, self.done = whole, None, 0

    def __call__(self, client):
        if self.done:
            return None
        if self.whole:
            self.running.kill9()
        else:
            kill_keeper(self.running)
        self.done += 1
        return "drop"


@pytest.mark.parametrize("whole", [True, False])
def test_kill_between_reset_and_store(kt, platform, whole):
    """In place: the secret is lost; after the restart that is noticed, and the client is reset once more."""
    prepare(kt, platform, client("a", where=anypoint(platform), rotationInterval="5s"))
    kt.ok("renew")
    first = pair(kt)
    platform.before_answer = killer = Killer(whole)
    killer.running = running = kt.start()
    until(lambda: killer.done, 20, "the agent is killed in the middle of a reset")
    if whole:
        running = kt.start()
    until(lambda: platform.resets("a") >= 3 and works(kt, platform), 30, "reset once more")
    assert pair(kt) != first
    lost = kt.audit(step="reset.lost")
    assert len(lost) == 1 and lost[0]["outcome"] == "repaired" and "orders" in str(lost), lost
    running.stop()


def test_dropped_answer(kt, platform):
    prepare(kt, platform, client("a", where=anypoint(platform)))
    kt.ok("renew")
    dropped = []
    platform.before_answer = lambda client: dropped.append(client.name) or "drop" if not dropped else None
    kt.ok("renew", "orders", "--force", timeout=60)
    assert dropped == ["a"] and platform.resets("a") == 3 and works(kt, platform)
    assert len(kt.audit(step="reset.lost")) == 1


def test_reset_that_never_arrived(kt, platform):
    """The server was down: nothing was lost, and nothing is said to be."""
    prepare(kt, platform, client("a", where=anypoint(platform)))
    kt.ok("renew")
    platform.answer_with = (503, None, [("Retry-After", "1")])
    kt.run("renew", "orders", "--force", timeout=60)
    assert platform.resets("a") == 1 and works(kt, platform)
    platform.answer_with = None
    until(lambda: kt.run("renew", "orders").status == 0, 30, "the server is back")
    assert platform.resets("a") == 2 and works(kt, platform) and not kt.audit(step="reset.lost")


def test_wrong_answers(kt, platform):
    """Answers without a secret, and what is no JSON."""
    prepare(kt, platform, client("a", where=anypoint(platform)))
    for said in ({"client_id": "a"}, {"client_secret": ""}, ["x"], {"client_secret": "two\nlines"}):
        platform.answer_with = (200, said, [])
        result = kt.run("renew", timeout=60)
        assert result.status != 0, result
        assert not kt.volume("orders-client").exists()
    platform.answer_with = (403, {"message": "not for you"}, [])
    result = kt.run("renew", "orders", "--force", timeout=60)
    assert result.status != 0 and "not for you" in result.err, result


# --- two clients ------------------------------------------------------------------------------------------------------------


def test_alternate_clients(kt, platform):
    """Each rotation resets the idle one; the one in use is never touched."""
    prepare(kt, platform, client("a", "b", where=anypoint(platform)))
    kt.ok("renew")
    assert pair(kt)[0] == "a" and platform.resets("a") == 1 and platform.resets("b") == 0
    for turn, (now, idle) in enumerate((("b", "a"), ("a", "b"), ("b", "a"))):
        before = platform.clients[idle].secret
        kt.ok("renew", "orders", "--force")
        assert pair(kt)[0] == now and works(kt, platform)
        assert platform.clients[idle].secret == before, "the one that was in use still works"
    nowhere(kt, platform)


def test_alternate_in_drain(kt, platform):
    prepare(kt, platform, client("a", "b", where=anypoint(platform), drain="1h"))
    kt.ok("renew")
    kt.ok("renew", "orders", "--force")
    assert pair(kt)[0] == "b"
    for _ in range(5):
        result = kt.run("renew", "orders", "--force")
        assert result.status != 0 and "drain" in result.err and "server asked" not in result.err, result
    assert pair(kt)[0] == "b" and platform.resets("a") == 1 and works(kt, platform)


def test_waiting_for_drain_is_no_failure(kt, platform):
    """However often somebody asked in vain: when the time has come nothing of it is left, and the next failure is the first."""
    prepare(kt, platform, client("a", "b", where=anypoint(platform), drain="2s"))
    running = kt.start()
    until(lambda: kt.volume("orders-client").exists() and pair(kt)[0] == "a", 20, "delivered")
    kt.ok("renew", "orders", "--force")
    for _ in range(6):
        assert kt.run("renew", "orders", "--force").status != 0
    until(lambda: kt.credential("orders")["state"] == "delivered", 10, "in order again")
    assert kt.credential("orders")["attempts"] == 0
    dropped = []
    platform.before_answer = lambda client: dropped.append(client.name) or "drop" if not dropped else None
    began = time.monotonic()
    kt.ok("renew", "orders", "--force")
    assert dropped == ["a"] and pair(kt)[0] == "a" and works(kt, platform)
    assert time.monotonic() - began < 5, "tried again at once"
    running.stop()


def test_alternate_waits_for_proof(kt, platform):
    """As long as somebody may use the other client, it is not reset."""
    with Consumer(kt.volume("orders-client") / "client-secret") as app:
        prepare(kt, platform, client("a", "b", where=anypoint(platform)),
                consumer("app", secrets=["orders-client"], notify=[{"http": {"url": app.url("/reload")}}],
                         prove=[{"secret": "orders-client",
                                 "observed": {"http": {"url": app.url("/status"), "jsonPath": ".used.sha256"}}}]))
        running = kt.start()
        until(lambda: kt.credential("orders")["proved"], 20, "proved")
        app.deaf = True
        kt.run("renew", "orders", "--force", "--timeout", "3s", timeout=60)
        until(lambda: pair(kt)[0] == "b", 10, "switched")
        for _ in range(2):
            result = kt.run("renew", "orders", "--force", "--timeout", "3s", timeout=60)
            assert result.status != 0, result
        assert platform.resets("a") == 1 and platform.resets("b") == 1
        app.deaf = False
        app.read()
        until(lambda: kt.credential("orders")["proved"], 60, "proved at last")
        kt.ok("renew", "orders", "--force", timeout=60)
        assert pair(kt)[0] == "a" and platform.resets("a") == 2 and works(kt, platform)
        running.stop()


class Caller:
    """A service that calls an API behind Client ID Enforcement with what its volume has, all the time; it counts refusals."""

    def __init__(self, kt, platform):
        self.file, self.url = kt.volume("orders-client") / "credentials.json", platform.url + "/api/orders"
        self.calls, self.refused, self.stopped = 0, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopped.is_set():
            said = json.loads(self.file.read_bytes())
            try:
                fetch(self.url, headers={"client_id": said["client_id"], "client_secret": said["client_secret"]})
            except Exception as error:  # noqa: BLE001
                self.refused.append((said["client_id"], repr(error)))
            self.calls += 1
            time.sleep(0.002)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(10)


@pytest.mark.parametrize("how", ["quiet", "kill", "drop"])
def test_no_caller_is_ever_refused(kt, platform, how):
    """Rotations under load, with the agent killed between a reset and its being stored, or the answer lost."""
    prepare(kt, platform, client("a", "b", where=anypoint(platform), rotationInterval="5s", drain="1s"))
    kt.ok("renew")
    killer = Killer(True)
    hurt = []
    with Caller(kt, platform) as caller:
        killer.running = running = kt.start()
        if how == "kill":
            platform.before_answer = killer
            until(lambda: killer.done, 30, "killed in the middle of a reset")
            running = kt.start()
        if how == "drop":
            platform.before_answer = lambda client: hurt.append(client.name) or "drop" if not hurt else None
        seen = set()
        until(lambda: seen.add(pair(kt)) or len(seen) >= 3, 40, "three pairs were in use")
        running.stop()
    assert caller.calls > 100 and not caller.refused, caller.refused[:3]
    if how == "quiet":
        assert not kt.audit(step="reset.lost")
    nowhere(kt, platform)


# --- who buys tokens with it --------------------------------------------------------------------------------------------------


def test_token_sees_the_new_secret_at_once(kt, platform):
    """An invalid_client is remembered for long, but not beyond the next secret."""
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    prepare(kt, platform, client("a", given=("a",), where=anypoint(platform)),
            issuer(platform, "own", "a", "orders-client"), token("pay", "own", defaultLifetime="5m"))
    running = kt.start()
    until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
    platform.clients["a"].secrets = {"s9": "somebody-else-has-reset-it"}
    kt.run("renew", "pay", "--force")
    assert kt.credential("pay")["state"] == "failing"
    kt.ok("renew", "orders", "--force")
    until(lambda: kt.credential("pay")["state"] == "delivered", 5, "a token with the new secret")
    running.stop()


def test_token_follows_the_client(kt, platform):
    """With two clients the id comes from the pair, too."""
    prepare(kt, platform, client("a", "b", where=anypoint(platform)),
            issuer(platform, "own", "a", "orders-client"), token("pay", "own"))
    kt.ok("renew")
    assert platform.mints[-1][0] == "a"
    kt.ok("renew", "orders", "--force")
    kt.ok("renew", "pay", "--force")
    assert platform.mints[-1] == ("b", platform.clients["b"].secret, True)


def test_a_client_that_is_no_longer_rotated(kt, platform):
    """Its manifest is gone: its pair is used on, until a person sets the secret under its name."""
    prepare(kt, platform, client("a", where=anypoint(platform)), issuer(platform, "own", "a", "orders-client"), token("pay", "own"))
    kt.ok("renew")
    kt.manifest("all", issuer(platform), token("admin", "anypoint"), issuer(platform, "own", "a", "orders-client"), token("pay", "own"))
    kt.ok("renew", "pay", "--force")
    platform.clients["a"].secrets = {"s9": "a-person-has-reset-it"}
    kt.secret("orders-client", client_secret="a-person-has-reset-it")
    kt.ok("renew", "pay", "--force")
    assert platform.mints[-1] == ("a", "a-person-has-reset-it", True)


def test_client_that_resets_itself(kt, platform):
    """The Token that resets is bought with the secret that is reset."""
    platform.managers = ("a", "b")
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    kt.manifest("all", issuer(platform, "own", "a", "orders-client"), token("admin", "own"),
                client("a", "b", given=("a",), where=anypoint(platform)))
    kt.ok("renew", timeout=30)
    for turn in range(3):
        kt.ok("renew", "orders", "--force")
        kt.ok("renew", "admin", "--force")
        assert works(kt, platform)


def test_nobody_has_the_first_secret(kt, platform):
    """Token and ClientCredential wait for each other: said at once, not waited for for ever."""
    kt.manifest("all", issuer(platform, "own", "a", "orders-client"), token("admin", "own"), client("a", "b", where=anypoint(platform)))
    result = kt.run("renew", timeout=60)
    assert result.status != 0 and not platform.mints, result


def test_accepted_by_basic(kt, platform):
    """A proof by what the API says to the new pair."""
    prepare(kt, platform, client("a", where=anypoint(platform)),
            consumer("app", secrets=["orders-client"],
                     prove=[{"secret": "orders-client", "accepted": {"http": {"url": platform.url + "/api/orders"}}}]))
    running = kt.start()
    until(lambda: kt.credential("orders")["proved"], 20, "proved")
    running.stop()


def test_a_secret_that_was_reset_does_not_come_back(kt, platform):
    """onFailure Rollback: where the reset has ended the secret before there is nothing to go back to."""
    prepare(kt, platform, client("a", where=anypoint(platform)),
            consumer("app", secrets=["orders-client"], within="1s", onFailure="Rollback",
                     prove=[{"secret": "orders-client", "accepted": {"http": {"url": platform.url + "/api/closed"}}}]))
    assert kt.run("renew", timeout=60).status == 5
    first = pair(kt)
    assert kt.run("renew", "orders", "--force", timeout=60).status == 5
    assert platform.resets("a") == 2 and pair(kt) != first and works(kt, platform)
    platform.wrong.clear()  # the API that refuses everybody


# --- static, okta -------------------------------------------------------------------------------------------------------------


def test_static(kt, platform):
    kt.secret("given-a", client_secret="one")
    kt.manifest("all", client("a", given=("a",), where={"static": {}}))
    running = kt.start()
    until(lambda: kt.volume("orders-client").exists() and pair(kt) == ("a", "one"), 10, "delivered")
    kt.secret("given-a", client_secret="two")
    until(lambda: pair(kt) == ("a", "two"), 10, "delivered again")
    running.stop()
    assert not platform.seen


def okta(platform):
    return {"okta": {"orgURL": platform.url, "tokenRef": "admin-token"}}


def okta_client(platform, *names, **spec):
    return client(*names, where=okta(platform), test={"tokenURL": platform.url + "/oauth2/aus1/v1/token", "scopes": ["pay.write"]}, **spec)


@pytest.mark.parametrize("given", [(), ("a",)])
def test_okta_overlaps(kt, platform, given):
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    prepare(kt, platform, okta_client(platform, "a", given=given, drain="1s", rotationInterval="5s"))
    if not given:  # nobody uses what it has
        platform.clients["a"].secrets.clear()
    kt.ok("renew")
    assert works(kt, platform)
    with Caller(kt, platform) as caller:
        running = kt.start()
        seen = set()
        until(lambda: seen.add(pair(kt)) or len(seen) >= 3, 60, "three pairs were in use")
        running.stop()
    assert not caller.refused, caller.refused[:3]
    assert kt.audit(step="secret.deleted")
    nowhere(kt, platform)


@pytest.mark.parametrize("whole", [True, False])
def test_okta_kill_between_add_and_store(kt, platform, whole):
    """A secret that nobody knows is left at the server: it is found in the list, deleted, and another one is added."""
    kt.secret("given-a", client_secret=platform.clients["a"].secret)
    prepare(kt, platform, okta_client(platform, "a", given=("a",), drain="1s"))
    kt.ok("renew")
    kt.ok("renew", "orders", "--force")
    running = kt.start()
    platform.before_answer = killer = Killer(whole)
    killer.running = running
    before = pair(kt)
    until(lambda: list(platform.clients["a"].secrets.values()) == [before[1]] and not platform.clients["a"].inactive, 20, "cleaned up")
    kt.background("renew", "orders", "--force")
    until(lambda: killer.done, 20, "killed")
    assert platform.clients["a"].good(before[1]) and len(platform.clients["a"].secrets) == 2
    if whole:
        running = kt.start()
    until(lambda: pair(kt) != before and works(kt, platform), 30, "rotated")
    running.stop()
