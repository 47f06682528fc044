"""ACME against Pebble with its random delays and bad nonces: bulk, crashes, both solvers, refusals."""

import os
import random
import signal
import time

import pytest

from lib.agent import Keyturn
from lib.certs import Authority, check_set, load
from lib.manifests import certificate
from lib.servers import Nginx, Pebble
from lib.wait import free_port, until

IN_FLIGHT = 8  # Pebble deadlocks from 16 parallel orders on: its fault, not ours


def settle(kt, port):
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{port}"}, limits={"perIssuer": IN_FLIGHT})


@pytest.fixture
def pebble(tmp_path):
    with Pebble(tmp_path) as server:
        yield server


@pytest.fixture
def quick(tmp_path):
    """Without delays before a validation, for what is not about delays."""
    with Pebble(tmp_path, sleep=False) as server:
        yield server


def prepare(kt, server, count, **spec):
    settle(kt, server.http_port)
    names = [f"n{i:02d}" for i in range(count)]
    kt.manifest("set", server.issuer(), *(certificate(n, "pebble", **spec) for n in names))
    return names


def all_delivered(kt, server, names):
    roots = server.roots()
    return [check_set(kt.volume(f"{n}-tls"), [f"{n}.example"], roots) for n in names]


def test_twenty_in_one_renew(kt, pebble):
    names = prepare(kt, pebble, 20)
    kt.ok("renew", timeout=120)
    leaves = all_delivered(kt, pebble, names)
    assert len({leaf.serial_number for leaf in leaves}) == 20
    assert len(pebble.issued()) == 20
    assert pebble.orders() == 20
    assert pebble.accounts() == 1
    before = pebble.requests()
    kt.ok("renew")
    assert pebble.requests() == before, "nothing is due, so nobody is asked"
    kt.ok("audit", "--verify")


def test_kill_at_ten_random_moments(kt, pebble):
    """kill -9 of everything, ten times: at most one certificate a renewal, and in the end all are delivered."""
    names = prepare(kt, pebble, 20)
    dice = random.Random(20261123)
    moments = []
    for _ in range(60):
        running = kt.background("renew")
        moment = dice.uniform(0.02, 1.6)
        end = time.monotonic() + moment
        while time.monotonic() < end and running.alive():
            time.sleep(0.005)
        if running.alive():
            moments.append(round(moment, 2))
            running.kill9()
        else:
            # What was in work at several sudden ends in a row rests for a moment: that is status 75.
            assert running.wait() in (0, 75), running.err()
            time.sleep(0.2)
        if len(moments) == 10:
            break
    kills = len(moments)
    assert kills >= 6, f"too quick to be killed: {moments}"
    # What was asked for is waited for: an order whose answer was lost may have to rest before it is asked for again.
    until(lambda: kt.run("renew", timeout=120).status == 0, 120, f"all is delivered after kills at {moments}", pause=1)
    all_delivered(kt, pebble, names)
    assert len(pebble.issued()) == 20, f"one certificate a renewal; kills at {moments}"
    assert pebble.accounts() == 1
    assert pebble.orders() <= 20 + kills * IN_FLIGHT
    kt.ok("audit", "--verify")


def test_kill_between_finalize_and_download(kt, tmp_path):
    """Killed while the CA works on the finalized order: the next start takes that certificate, it orders no other."""
    with Pebble(tmp_path, sleep=False, reject=0) as server:
        prepare(kt, server, 1)
        running = kt.background("renew")
        until(lambda: "is fully authorized. Processing finalization" in server.log(), 20, "the order is finalized", pause=0.002)
        running.kill9()
        kt.ok("renew", timeout=60)
        assert len(server.issued()) == 1
        assert server.orders() == 1
        all_delivered(kt, server, ["n00"])


def test_forced_renewal_keeps_the_account(kt, quick):
    names = prepare(kt, quick, 2)
    kt.ok("renew", timeout=60)
    first = all_delivered(kt, quick, names)
    kt.ok("renew", "--force", timeout=60)
    second = all_delivered(kt, quick, names)
    assert quick.accounts() == 1
    assert len(quick.issued()) == 4
    for old, new in zip(first, second):
        assert old.serial_number != new.serial_number
        assert old.public_key().public_numbers() != new.public_key().public_numbers(), "rotationPolicy is Always"
    kt.ok("renew", "n01", "--force", timeout=60)
    assert len(quick.issued()) == 5


def test_several_names_and_a_common_name(kt, quick):
    settle(kt, quick.http_port)
    names = ["a.example", "b.example", "c.example"]
    kt.manifest("set", quick.issuer(), certificate("multi", "pebble", names=names, commonName="a.example"))
    kt.ok("renew", timeout=60)
    check_set(kt.volume("multi-tls"), names, quick.roots())


def test_webroot(kt, quick, tmp_path):
    """A real nginx answers the challenges from a folder; nothing of them is left."""
    root = kt.root / "webroot"
    root.mkdir()
    root.chmod(0o755)
    web = Nginx(kt.root)
    web.files(root, quick.http_port)
    with web:
        kt.agent_settings(limits={"perIssuer": IN_FLIGHT})
        names = [f"w{i}" for i in range(4)]
        kt.manifest("set", quick.issuer(webroot=root), *(certificate(n, "pebble") for n in names))
        kt.ok("renew", timeout=60)
        all_delivered(kt, quick, names)
    assert len(quick.issued()) == 4
    left = [str(p) for p in root.rglob("*") if p.is_file()]
    assert not left, "challenge files are removed"


def test_webroot_is_cleaned_up_after_a_crash(kt, pebble):
    root = kt.root / "webroot"
    root.mkdir()
    root.chmod(0o755)
    web = Nginx(kt.root)
    web.files(root, pebble.http_port)
    with web:
        kt.manifest("set", pebble.issuer(webroot=root), certificate("w", "pebble"))
        running = kt.background("renew")
        until(lambda: any(p.is_file() for p in root.rglob("*")), 20, "a challenge file is there", pause=0.005)
        running.kill9()
        until(lambda: kt.run("renew", timeout=60).status == 0, 90, "delivered", pause=1)
        all_delivered(kt, pebble, ["w"])
    assert not [str(p) for p in root.rglob("*") if p.is_file()]
    assert len(pebble.issued()) == 1


def test_half_of_the_nonces_refused(kt, tmp_path):
    with Pebble(tmp_path, sleep=False, reject=50) as server:
        names = prepare(kt, server, 10)
        kt.ok("renew", timeout=120)
        all_delivered(kt, server, names)
        assert len(server.issued()) == 10


def test_dead_ca(kt, quick):
    """The CA is down: exit 75, a clear text, and the old set stays as it is."""
    names = prepare(kt, quick, 1)
    kt.ok("renew", timeout=60)
    old = kt.read("n00-tls", "tls.crt")
    quick.kill()
    result = kt.run("renew", "--force", timeout=60)
    assert result.status == 75, result
    assert "n00" in result.err and quick.server in result.err, result
    assert kt.read("n00-tls", "tls.crt") == old
    why = kt.run("why", "n00").out
    assert quick.server in why, why
    # It comes back, and the renewal that was asked for is done.
    quick.start()
    until(lambda: kt.run("renew", "n00", timeout=60).status == 0, 60, "renewed once the CA is back", pause=1)
    assert kt.read("n00-tls", "tls.crt") != old
    assert names == ["n00"]


def test_ca_that_never_was(kt):
    port = free_port()
    settle(kt, free_port())
    kt.manifest("set", {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "gone"}, "spec": {"acme": {
        "server": f"https://localhost:{port}/dir", "privateKeySecretRef": {"name": "x"}, "solvers": [{"http01": {"ingress": {}}}]}}},
        certificate("a", "gone"))
    result = kt.run("renew", timeout=60)
    assert result.status == 75, result
    assert f"localhost:{port}" in result.err, result
    assert not kt.volume("a-tls").exists()


def test_wrong_ca_bundle(kt, quick):
    """The server's certificate comes from a root that the bundle does not have: refused, nothing ordered."""
    settle(kt, quick.http_port)
    kt.manifest("set", quick.issuer(bundle=Authority("stranger").bundle()), certificate("a", "pebble"))
    result = kt.run("renew", timeout=60)
    assert result.status in (1, 75), result
    assert "certificate" in result.err.lower(), result
    assert quick.accounts() == 0 and quick.orders() == 0
    assert not kt.volume("a-tls").exists()
    # Mended: it goes on at once.
    kt.manifest("set", quick.issuer(), certificate("a", "pebble"))
    kt.ok("renew", "a", timeout=60)
    check_set(kt.volume("a-tls"), ["a.example"], quick.roots())


def test_refused_name_is_said_whole(kt, tmp_path):
    """A problem document of the CA reaches the user."""
    with Pebble(tmp_path, sleep=False) as server:
        settle(kt, free_port())  # nobody answers where Pebble looks
        kt.manifest("set", server.issuer(), certificate("a", "pebble"))
        result = kt.run("renew", timeout=60)
        assert result.status in (1, 75), result
        assert "a.example" in result.err, result
        assert "refused" in result.err or "connection" in result.err, result
        assert not server.issued()


def test_short_lived_ones_renew_by_themselves(kt, tmp_path):
    """`keyturn run` renews a certificate that lives for 12 s before its end."""
    with Pebble(tmp_path, sleep=False, validity=12) as server:
        settle(kt, server.http_port)
        kt.manifest("set", server.issuer(enableDurationFeature=True), certificate("s", "pebble", duration="12s", renewBefore="6s"))
        running = kt.start()
        until(lambda: kt.volume("s-tls").joinpath("tls.crt").exists(), 20, "the first set")
        serials = set()

        def rotated():
            leaf = load(kt.read("s-tls", "tls.crt"))[0]
            assert leaf.not_valid_after.timestamp() - time.timezone > time.time() - 1, "an expired certificate is served"
            serials.add(leaf.serial_number)
            return len(serials) >= 3

        until(rotated, 40, "two renewals")
        assert running.stop() == 0, running.err()
        assert server.accounts() == 1


def test_webroot_is_cleaned_at_the_start(kt, tmp_path):
    """Killed with a challenge file out: the next start takes it away, though its order can't go on."""
    root = kt.root / "webroot"
    root.mkdir()
    root.chmod(0o755)
    with Pebble(tmp_path, sleep_time=8) as server:
        kt.manifest("set", server.issuer(webroot=root), certificate("w", "pebble"))
        running = kt.background("renew")
        until(lambda: any(p.is_file() for p in root.rglob("*")), 20, "a challenge file is there", pause=0.005)
        running.kill9()
    assert kt.run("renew", timeout=60).status == 75
    assert not [str(p) for p in root.rglob("*") if p.is_file()]


def order_over_a_dead_desk(kt, server):
    """kill -9 of the desk while the CA waits before it looks; whether the order came through."""
    prepare(kt, server, 1)
    running = kt.start()
    until(lambda: "Pulled a task from the Tasks queue" in server.log(), 20, "the CA is told to look", pause=0.01)
    (desk,) = [pid for pid, name in running.rooms().items() if name == "keyturn-desk"]
    os.kill(desk, signal.SIGKILL)
    end = time.monotonic() + 20
    delivered = kt.volume("n00-tls").joinpath("tls.crt")
    while time.monotonic() < end and not delivered.exists() and not kt.credential("n00")["lastError"]:
        time.sleep(0.2)
    assert running.stop() == 0
    return delivered.exists()


def test_desk_killed_in_the_middle_of_an_order(tmp_path):
    """The next desk gets the answers again. (At times the CA looks in the very moment in which nobody listens.)"""
    for _ in range(4):
        with Keyturn() as kt, Pebble(tmp_path, sleep_time=8, reject=0) as server:
            if order_over_a_dead_desk(kt, server):
                all_delivered(kt, server, ["n00"])
                assert server.orders() == 1
                return
    raise AssertionError("no order survived the death of the desk")
