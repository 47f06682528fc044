"""What a CA allows, fallback issuers and the staging server, against Pebble."""

import base64
import sqlite3
import time

import pytest

from lib.certs import check_set
from lib.manifests import certificate
from lib.servers import Pebble
from lib.wait import free_port, until


@pytest.fixture
def pebble(tmp_path):
    with Pebble(tmp_path, sleep=False, reject=0) as server:
        yield server


@pytest.fixture
def other(tmp_path, pebble):
    """A second CA with a root of its own, which validates at the same port."""
    with Pebble(tmp_path / "other", http_port=pebble.http_port, sleep=False, reject=0) as server:
        yield server


def settle(kt, server, port=None):
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{port or server.http_port}"}, limits={"perIssuer": 8})


def issuer(server, name="pebble", bundle=None, **annotations):
    manifest = server.issuer(name, bundle=bundle)
    manifest["metadata"]["annotations"] = {f"keyturn.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}
    return manifest


def both(*servers):
    return base64.b64encode(b"".join(base64.b64decode(s.authority.bundle()) for s in servers)).decode()


def plan(kt):
    return {r["name"]: r for r in kt.json("plan")["plan"]}


def budgets(kt, what):
    return {b["subject"]: b for b in kt.json("plan")["summary"]["budgets"] if b["what"] == what}


def ledger(kt):
    with sqlite3.connect(f"file:{next(kt.state.glob('*.db'))}?mode=ro", uri=True) as db:
        return db.execute("SELECT issuer, what, subject, outcome FROM ledger ORDER BY id").fetchall()


def test_no_more_orders_than_the_ca_allows(kt, pebble):
    """Ten at once where six an hour are allowed: the others wait, without a failure, and plan says until when."""
    settle(kt, pebble)
    names = [f"n{i}" for i in range(10)]
    kt.manifest("set", issuer(pebble, rate_limits="orders=6/1h"), *(certificate(n, "pebble") for n in names))
    assert "orders in 1h used" in kt.ok("renew", status=75, timeout=60).err
    placed = pebble.orders()
    assert 3 <= placed <= 5, "one in six is kept for renewals near their end"
    waiting = [n for n in names if plan(kt)[n]["reason"] == "limit"]
    assert len(waiting) == 10 - placed
    row = plan(kt)[waiting[0]]
    assert row["action"] == "wait" and "orders in 1h used" in row["text"] and "the next at 20" in row["text"]
    assert kt.credential(waiting[0])["attempts"] == 0
    order = budgets(kt, "order")[""]
    assert order["used"] == placed and order["limit"] == 6 and order["left"] == 6 - placed
    assert "orders in 1h used" in kt.ok("plan").out
    assert "the CA's limit is reached" in kt.ok("why", waiting[0]).out
    for _ in range(5):  # whoever starts it again and again spends nothing more
        kt.run("renew", timeout=60)
    assert pebble.orders() == placed
    kt.ok("audit", "--verify")


def test_goes_on_when_there_is_room_again(kt, pebble):
    """The agent comes back by itself, at the pace that is allowed; new accounts are counted, too."""
    settle(kt, pebble)
    names = [f"n{i}" for i in range(8)]
    kt.manifest("set", issuer(pebble, rate_limits="orders=4/12s, accounts=2/1h"), *(certificate(n, "pebble") for n in names))
    agent = kt.start()
    begun = time.monotonic()
    until(lambda: len(pebble.issued()) == 8, 60)
    assert time.monotonic() - begun > 8, "four at once, then one every three seconds"
    assert pebble.orders() == 8
    assert budgets(kt, "account")[""]["used"] == 1
    agent.stop()
    assert not [r for r in kt.audit() if r["outcome"] == "failed"]


def test_domains_and_exact_sets(kt, pebble):
    """Three of one domain are allowed, and two of the same names: renewals by force included."""
    settle(kt, pebble)
    kt.manifest("set", issuer(pebble, rate_limits="certificates=3/168h, duplicates=2/168h"),
                certificate("a", "pebble", names=["a.shop.example"]), certificate("b", "pebble", names=["b.shop.example"]),
                certificate("c", "pebble", names=["c.other.example"]))
    kt.run("renew", timeout=60)
    assert set(budgets(kt, "certificate")) == {"shop.example", "other.example"}
    assert budgets(kt, "certificate")["shop.example"]["used"] == 2
    kt.run("renew", "--force", "c", timeout=60)
    issued = len(pebble.issued())
    kt.ok("renew", "--force", "c", status=75, timeout=60)
    kt.ok("renew", "--force", "c", status=75, timeout=60)
    assert len(pebble.issued()) == issued
    assert plan(kt)["c"]["reason"] == "limit" and "for the same names" in plan(kt)["c"]["text"]


def test_counted_before_the_request(kt, pebble):
    """Killed at once after the order went out: the ledger has it."""
    settle(kt, pebble)
    kt.manifest("set", issuer(pebble, rate_limits="orders=100/1h"), certificate("a", "pebble"))
    for _ in range(4):
        running = kt.background("renew")
        end = time.monotonic() + 0.4
        while time.monotonic() < end and running.alive() and pebble.orders() == 0:
            time.sleep(0.002)
        if running.alive():
            running.kill9()
    kt.run("renew", timeout=60)
    spent = [r for r in ledger(kt) if r[1] == "order" and r[0].startswith("Issuer/default/pebble") and r[3] == "placed"]
    assert len(spent) >= pebble.orders() >= 1


def test_fallback_and_back(kt, pebble, other):
    """The CA is down: the fallback issues, nothing is issued anew because of it, and the next renewal goes back."""
    settle(kt, pebble)
    kt.manifest("set", issuer(pebble, fallback_issuers="backup", fallback_trust="Unchecked"), issuer(other, "backup"),
                certificate("web", "pebble"))
    pebble.kill()
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["web.example"], other.roots())
    assert kt.credential("web")["issuedBy"] == "Issuer/default/backup"
    assert "issued by Issuer/default/backup" in kt.ok("why", "web").out
    assert plan(kt)["web"]["reason"] == "not-due"
    assert any("fallback Issuer/default/backup is asked" in (r.get("reason") or "") for r in kt.audit())
    pebble.start()
    kt.ok("renew")
    assert len(other.issued()) == 1 and not pebble.issued()
    kt.ok("renew", "--force", "web", timeout=60)
    check_set(kt.volume("web-tls"), ["web.example"], pebble.roots())
    assert kt.credential("web")["issuedBy"] == "Issuer/default/pebble"
    assert len(other.issued()) == 1


def test_fallback_where_a_limit_is_used_up(kt, pebble, other):
    """Nothing is in force: what the first allows no more is the fallback's to issue."""
    settle(kt, pebble)
    names = [f"n{i}" for i in range(6)]
    kt.manifest("set", issuer(pebble, fallback_issuers="pebble, backup", fallback_trust="Unchecked", rate_limits="orders=3/1h"),
                issuer(other, "backup"), *(certificate(n, "pebble") for n in names))
    kt.ok("renew", timeout=60)
    assert 1 <= pebble.orders() <= 3 and pebble.orders() + other.orders() == 6
    by = [kt.credential(n)["issuedBy"] for n in names]
    assert by.count("Issuer/default/backup") == other.orders()


def test_all_are_down(kt, pebble, other):
    """Each is tried once, then the delays are those of any failure; the first that comes back is asked."""
    settle(kt, pebble)
    kt.manifest("set", issuer(pebble, fallback_issuers="backup", fallback_trust="Unchecked"), issuer(other, "backup"),
                certificate("web", "pebble"))
    pebble.kill()
    other.kill()
    begun = time.monotonic()
    kt.ok("renew", status=75, timeout=60)
    assert time.monotonic() - begun < 15
    assert kt.credential("web")["attempts"] == 2
    other.start()
    kt.ok("renew", "web", timeout=60)
    assert kt.credential("web")["issuedBy"] == "Issuer/default/backup"


def test_fallback_without_trust(kt, pebble, other):
    """Another root than the one that consumers hold: what the fallback gave is refused, what is in force stays."""
    settle(kt, pebble)
    kt.manifest("set", issuer(pebble, fallback_issuers="backup"), issuer(other, "backup"), certificate("web", "pebble"))
    kt.ok("renew", timeout=60)
    before = kt.read("web-tls", "tls.crt")
    pebble.kill()
    for _ in range(4):
        kt.run("renew", "--force", "web", timeout=60)
    state = kt.credential("web")
    assert kt.read("web-tls", "tls.crt") == before
    health = {h["issuer"]: h for h in kt.json("plan")["summary"]["issuers"]}
    assert health["Issuer/default/pebble"]["failures"] >= 3
    assert any("may not trust what the fallback" in (r.get("reason") or "") for r in kt.audit()), state


def test_fallback_of_the_same_root(kt, pebble):
    """What it gives leads to what was delivered before: taken, and the next renewal is the first issuer's."""
    settle(kt, pebble)
    first, backup = issuer(pebble, fallback_issuers="backup"), issuer(pebble, "backup")
    kt.manifest("set", first, backup, certificate("web", "pebble"))
    kt.ok("renew", timeout=60)
    server, first["spec"]["acme"]["server"] = first["spec"]["acme"]["server"], f"https://localhost:{free_port()}/dir"
    kt.manifest("set", first, backup, certificate("web", "pebble"))
    for _ in range(3):
        kt.run("renew", "--force", "web", timeout=60)
    state = kt.credential("web")
    assert state["issuedBy"] == "Issuer/default/backup" and state["attempts"] == 0, "\n".join(str(r.get("reason"))[:300] for r in kt.audit())
    assert kt.json("plan")["summary"]["issuers"][0]["state"] in ("down", "to be tried")
    check_set(kt.volume("web-tls"), ["web.example"], pebble.roots())
    first["spec"]["acme"]["server"] = server
    kt.manifest("set", first, backup, certificate("web", "pebble"))
    kt.ok("renew", "--force", "web", timeout=60)


def test_staging_that_is_down(kt, pebble, other):
    """What can't be tried first is not waited for."""
    settle(kt, pebble, port=free_port())
    kt.manifest("set", issuer(pebble, bundle=both(pebble, other), staging_server=other.server), certificate("web", "pebble"))
    kt.run("renew", timeout=60)
    other.kill()
    settle(kt, pebble)
    kt.ok("renew", "--force", "web", timeout=60)
    assert pebble.orders() == 2
    check_set(kt.volume("web-tls"), ["web.example"], pebble.roots())


def test_staging_first_after_a_failed_validation(kt, pebble, other):
    """Validation fails: the next tries are made at the staging server until one passes; then the real one gets an order."""
    settle(kt, pebble, port=free_port())
    kt.manifest("set", issuer(pebble, bundle=both(pebble, other), staging_server=other.server, rate_limits="failures=3/1h"),
                certificate("web", "pebble"))
    kt.run("renew", timeout=60)
    assert pebble.orders() == 1 and other.orders() == 0
    assert budgets(kt, "failed-validation")["web.example"]["used"] == 1
    kt.run("renew", "--force", "web", timeout=60)
    assert pebble.orders() == 1 and other.orders() == 1, "the real one is not asked before staging passes"
    assert "tried at" in kt.credential("web")["lastError"]
    assert budgets(kt, "failed-validation")["web.example"]["used"] == 1
    settle(kt, pebble)
    kt.ok("renew", "--force", "web", timeout=60)
    assert pebble.orders() == 2 and other.orders() == 2
    check_set(kt.volume("web-tls"), ["web.example"], pebble.roots())
    kt.ok("renew", "--force", "web", timeout=60)
    assert pebble.orders() == 3 and other.orders() == 2, "what goes well goes without staging"
