"""ACME against step-ca: another server's ways, by http-01, tls-alpn-01 and dns-01 on a real BIND."""

import time

import pytest

from lib.certs import check_set, load
from lib.dns import SECRET, Bind
from lib.manifests import certificate
from lib.servers import StepCa

ZONE = "step.test"


@pytest.fixture(scope="module")
def bind(tmp_path_factory):
    with Bind(tmp_path_factory.mktemp("bind")).zone(ZONE, ["@ NS ns1", "* A 127.0.0.1", "localhost A 127.0.0.1"]) as server:
        yield server


@pytest.fixture
def step(tmp_path, bind):
    with StepCa(tmp_path, names=bind) as server:
        yield server


def settle(kt, server):
    kt.agent_settings(listeners={"http01": f":{server.http_port}", "tlsAlpn01": f":{server.tls_port}"}, limits={"perIssuer": 8},
                      dns01={"recursiveNameservers": [f"127.0.0.1:{server.names.port}"], "recursiveNameserversOnly": True,
                             "propagationTimeout": "20s"})


def renew(kt, seconds=60):
    """To the end. It answers a part of all orders with 500: what was so refused rests for a moment (status 75)."""
    end = time.monotonic() + seconds
    while (result := kt.run("renew", timeout=seconds)).status != 0:
        assert result.status == 75 and time.monotonic() < end, result
        time.sleep(1)


def by_update(kt, bind):
    kt.secret("tsig", tsig__secret=SECRET)
    return {"dns01": {"rfc2136": {"nameserver": f"127.0.0.1:{bind.port}", "tsigKeyName": "kt-sha256", "tsigAlgorithm": "HMACSHA256",
                                  "tsigSecretSecretRef": {"name": "tsig", "key": "tsig.secret"}}}}


def test_http(kt, step):
    settle(kt, step)
    names = [f"h{i:02d}" for i in range(20)]
    kt.manifest("set", step.issuer(), *(certificate(n, "step", names=[f"{n}.{ZONE}"], duration="24h") for n in names))
    renew(kt)
    leaves = [check_set(kt.volume(f"{n}-tls"), [f"{n}.{ZONE}"], step.roots()) for n in names]
    assert len({leaf.serial_number for leaf in leaves}) == len(names)
    assert all(len(load(kt.read(f"{n}-tls", "tls.crt"))) == 2 for n in names), "leaf and intermediate"
    made = [r for r in step.requests() if r["path"].endswith("/new-account")]
    assert len([r for r in made if r["status"] == 201]) == 1, made
    orders = len([r for r in step.requests() if r["path"].endswith("/new-order") and r["status"] == 201])
    assert len(names) <= orders <= len(names) + 4
    kt.ok("audit", "--verify")


def test_tls_alpn(kt, step):
    settle(kt, step)
    kt.manifest("set", step.issuer(solvers=[{"tlsAlpn01": {}}]),
                certificate("web", "step", names=[f"t.{ZONE}", f"u.{ZONE}"], duration="24h"))
    renew(kt)
    check_set(kt.volume("web-tls"), [f"t.{ZONE}", f"u.{ZONE}"], step.roots())


def test_records(kt, step, bind):
    settle(kt, step)
    names = [f"d.{ZONE}", f"*.d.{ZONE}"]
    kt.manifest("set", step.issuer(solvers=[by_update(kt, bind)]), certificate("web", "step", names=names, duration="24h"))
    renew(kt)
    check_set(kt.volume("web-tls"), names, step.roots())
    assert not bind.txt(f"_acme-challenge.d.{ZONE}"), "the record is gone"


def test_forced_renewal_keeps_the_account(kt, step):
    settle(kt, step)
    kt.manifest("set", step.issuer(), certificate("web", "step", names=[f"w.{ZONE}"], duration="24h"))
    renew(kt)
    first = check_set(kt.volume("web-tls"), [f"w.{ZONE}"], step.roots())
    if kt.run("renew", "--force", timeout=60).status != 0:
        renew(kt)
    second = check_set(kt.volume("web-tls"), [f"w.{ZONE}"], step.roots())
    assert first.serial_number != second.serial_number
    assert len([r for r in step.requests() if r["path"].endswith("/new-account") and r["status"] == 201]) == 1


def test_a_refusal_is_said_whole(kt, step):
    settle(kt, step)
    kt.manifest("set", step.issuer(), certificate("web", "step", names=["nowhere.invalid"], duration="24h"))
    result = kt.run("renew", timeout=60)
    # It says in the challenge what it found and waits to be asked again; after a few times that is the end.
    assert result.status != 0 and "could not validate nowhere.invalid" in result.err, result
    told = [r for r in step.requests() if "/challenge/" in r["path"]]
    assert 4 <= len(told) <= 16, told
    assert not kt.volume("web-tls").exists()
