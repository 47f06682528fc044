"""dns-01 in the courier: real BIND and Knot with TSIG, providers behind stand-ins, and name servers that mean harm."""

import base64
import json
import os
import re
import struct
import subprocess
import threading
import time

import pytest

from lib.agent import BUILD
from lib.dns import (KEYS, SECRET, WRONG, AcmeDns, Bind, Cloudflare, DigitalOcean, FakeAcmeDns, Hostile, Knot, Route53, dig, nsupdate,
                     question_end, record, reply_to, soa, wire_name)
from lib.servers import fetch, program

DRIVE = BUILD / "tests" / "peers" / "courier_drive"
RECORD = "_acme-challenge.www.example.test"


@pytest.fixture(scope="session", autouse=True)
def driver(built):
    subprocess.run(["make", "-s", "-C", str(BUILD), "tests/peers/courier_drive"], check=True, timeout=600, capture_output=True)
    if "NEEDED" not in subprocess.run(["readelf", "-d", BUILD / "keyturn-courier"], capture_output=True, text=True).stdout or \
            "libldns" not in subprocess.run(["readelf", "-d", BUILD / "keyturn-courier"], capture_output=True, text=True).stdout:
        pytest.skip("built without dns-01")


def dns(action, value, solver, secret=None, settings=None, handle="", name=RECORD, count=1, room=True, timeout=60, port=None, quick=3000, wrap=()):
    """What the courier said, as a dict a job: {"ok", "effective", "handle", "seen"} or {"ok": False, "code", "what"}."""
    settings = settings if settings is not None else {"recursiveNameservers": [f"127.0.0.1:{port}"], "propagationTimeoutMs": quick}
    argv = [*wrap, str(DRIVE), "--count", str(count), *(["--room", str(BUILD / "keyturn-courier")] if room else []), "dns", action, name + ".",
            value, json.dumps(solver), json.dumps(secret) if secret else "", json.dumps(settings), handle]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    for part in (secret or {}).values():
        assert part not in done.stdout + done.stderr, "a secret was told"
    results = []
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"done dns effective=(\S*) handle=(.*?) seen=(.*)", line):
            results.append({"ok": True, "effective": match[1], "handle": match[2], "seen": match[3]})
        elif match := re.fullmatch(r"error (\S+) type=\S* retry_after=(-?\d+) (.*)", line):
            results.append({"ok": False, "code": match[1], "retry_after": int(match[2]), "what": match[3]})
    assert len(results) == count, done.stdout + done.stderr
    return results[0] if count == 1 else results


def rfc2136(port, key="kt-sha256", algorithm=None, **more):
    algorithm = algorithm or "HMAC" + KEYS[key].replace("hmac-", "").upper()
    return {"provider": "rfc2136", "nameserver": f"127.0.0.1:{port}", "tsigKeyName": key, "tsigAlgorithm": algorithm, **more}


TSIG = {"tsigSecret": SECRET}
LOOK = {"provider": "none"}


@pytest.fixture
def bind(tmp_path):
    server = Bind(tmp_path)
    server.zone("example.test", ["@ NS ns1", f'{RECORD}. TXT "of somebody else"', "alias CNAME www",
                                 "_acme-challenge.al CNAME al._acme.dyn.test.", "_acme-challenge.circle CNAME b.circle",
                                 "b.circle CNAME _acme-challenge.circle",
                                 "sub NS ns1.sub", "ns1.sub A 127.0.0.1",
                                 *[f"_acme-challenge.long{'' if i == 0 else i} CNAME _acme-challenge.long{i + 1}" for i in range(12)]])
    server.zone("dyn.test", ["@ NS ns1"]).zone("sub.example.test", ["@ NS ns1"])
    server.zone("frozen.test", ["@ NS ns1"], update="none").zone("other.example.test", ["@ NS ns1"], update="other")
    with server:
        yield server


# --- rfc2136 against BIND and Knot ------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("key", list(KEYS))
def test_bind_adds_and_removes_one_value(bind, key, protocol):
    solver = rfc2136(bind.port, key, protocol=protocol)
    first = dns("add", "value-of-the-base-name", solver, TSIG, port=bind.port)
    assert first["ok"] and first["effective"] == RECORD, first
    assert "authoritative: ns1.example.test has it; recursive: 127.0.0.1:" in first["seen"]
    second = dns("add", "value-of-the-wildcard", solver, TSIG, port=bind.port)
    assert second["ok"]
    assert bind.txt(RECORD) == ["of somebody else", "value-of-the-base-name", "value-of-the-wildcard"]
    assert dns("add", "value-of-the-wildcard", solver, TSIG, port=bind.port)["ok"], "again is no harm"
    gone = dns("remove", "value-of-the-base-name", solver, TSIG, port=bind.port, handle=first["handle"])
    assert gone["ok"] and bind.txt(RECORD) == ["of somebody else", "value-of-the-wildcard"]
    assert dns("remove", "value-of-the-base-name", solver, TSIG, port=bind.port, handle=first["handle"])["ok"], "gone already"
    assert dns("remove", "value-of-the-wildcard", solver, TSIG, port=bind.port)["ok"], "without a handle, as after a crash"
    assert bind.txt(RECORD) == ["of somebody else"]


def test_knot_adds_and_removes_one_value(tmp_path):
    with Knot(tmp_path, ["@ NS ns1"]) as knot:
        solver = rfc2136(knot.port)
        for protocol in ("UDP", "TCP"):
            first = dns("add", "base", {**solver, "protocol": protocol}, TSIG, port=knot.port)
            assert first["ok"] and "ns1.example.test has it" in first["seen"], first
            assert dns("add", "wildcard", {**solver, "protocol": protocol}, TSIG, port=knot.port)["ok"]
            assert knot.txt(RECORD) == ["base", "wildcard"]
            assert dns("remove", "base", {**solver, "protocol": protocol}, TSIG, port=knot.port, handle=first["handle"])["ok"]
            assert knot.txt(RECORD) == ["wildcard"]
            assert dns("remove", "wildcard", solver, TSIG, port=knot.port)["ok"]
            assert knot.txt(RECORD) == []
        bad = dns("add", "v", rfc2136(knot.port, "kt-other", "HMACSHA256"), TSIG, port=knot.port)
        assert bad["code"] == "auth" and "BADKEY" in bad["what"]
        bad = dns("add", "v", solver, {"tsigSecret": WRONG}, port=knot.port)
        assert bad["code"] == "auth" and "BADSIG" in bad["what"]
        bad = dns("add", "v", {"provider": "rfc2136", "nameserver": f"127.0.0.1:{knot.port}"}, None, port=knot.port)
        assert not bad["ok"] and ("REFUSED" in bad["what"] or "NOTAUTH" in bad["what"])


def test_values_side_by_side_at_once(bind):
    results = dns("add", "v", rfc2136(bind.port), TSIG, port=bind.port, count=20)
    assert all(r["ok"] for r in results), results
    assert bind.txt(RECORD) == sorted(["of somebody else", *[f"v-{i}" for i in range(20)]])
    assert all(r["ok"] for r in dns("remove", "v", rfc2136(bind.port), TSIG, port=bind.port, count=20))
    assert bind.txt(RECORD) == ["of somebody else"]


def test_refusals_say_how_to_mend_them(bind):
    def refused(solver, secret=TSIG, **more):
        result = dns("add", "v", solver, secret, port=bind.port, **more)
        assert not result["ok"]
        return result["code"], result["what"]

    code, what = refused(rfc2136(bind.port), {"tsigSecret": WRONG})
    assert code == "auth" and "BADSIG" in what and "kt-sha256" in what
    code, what = refused(rfc2136(bind.port, "nobody", "HMACSHA256"))
    assert code == "auth" and "BADKEY" in what and "tsigKeyName" in what
    code, what = refused(rfc2136(bind.port, "kt-sha256", "HMACSHA512"))
    assert code == "auth" and "BADKEY" in what and "tsigAlgorithm" in what
    code, what = refused({"provider": "rfc2136", "nameserver": f"127.0.0.1:{bind.port}"}, None)
    assert code == "denied" and "REFUSED" in what and "tsigSecretSecretRef" in what
    code, what = refused(rfc2136(bind.port), name="_acme-challenge.frozen.test")
    assert code == "denied" and "REFUSED" in what and "allow-update" in what
    code, what = refused(rfc2136(bind.port), name="_acme-challenge.other.example.test")
    assert code == "denied" and "update-policy" in what
    code, what = refused(rfc2136(bind.port, nameserver="127.0.0.1:1"))
    assert code == "net" and "refused" in what.lower()
    code, what = refused(rfc2136(bind.port), {"other": "x" * 8})
    assert code == "invalid" and "tsigSecret" in what
    code, what = refused(rfc2136(bind.port), {"tsigSecret": "no base 64!"})
    assert code == "invalid" and "base64" in what


def test_server_without_the_zone(bind, tmp_path):
    with Knot(tmp_path, ["@ NS ns1"], "127.0.0.2", "elsewhere.test") as other:
        result = dns("add", "v", rfc2136(other.port, nameserver=f"127.0.0.2:{other.port}"), TSIG, port=bind.port)
        assert result["code"] == "denied" and "serves no zone" in result["what"] and "primary" in result["what"]


def test_clock_that_is_wrong(bind):
    for ours, theirs in (("-2h", "ahead"), ("+2h", "behind")):
        result = dns("add", "v", rfc2136(bind.port), TSIG, port=bind.port, room=False, wrap=[program("faketime"), "-f", ours])
        assert result["code"] == "auth" and "BADTIME" in result["what"], result
        skew = int(re.search(rf"clock is (\d+) s {theirs}", result["what"])[1])
        assert 7190 < skew < 7230 and "set the clocks" in result["what"]


def test_nameserver_by_name(bind):
    assert dns("add", "v", rfc2136(bind.port, nameserver=f"localhost:{bind.port}"), TSIG, port=bind.port)["ok"]


# --- aliases and zones --------------------------------------------------------------------------------------------------

def test_alias_is_followed(bind):
    name = "_acme-challenge.al.example.test"
    refused = dns("add", "v", rfc2136(bind.port), TSIG, port=bind.port, name=name)
    assert refused["code"] == "invalid" and "cnameStrategy: Follow" in refused["what"] and "al._acme.dyn.test" in refused["what"]
    added = dns("add", "v", rfc2136(bind.port, followCNAME=True), TSIG, port=bind.port, name=name)
    assert added["ok"] and added["effective"] == "al._acme.dyn.test", added
    assert bind.txt("al._acme.dyn.test") == ["v"]
    assert dns("check", "v", LOOK, port=bind.port, name=name)["effective"] == "al._acme.dyn.test"
    assert dns("remove", "v", rfc2136(bind.port, followCNAME=True), TSIG, port=bind.port, name=name)["ok"], "without a handle"
    assert bind.txt("al._acme.dyn.test") == []


def test_aliases_that_never_end(bind):
    result = dns("add", "v", rfc2136(bind.port, followCNAME=True), TSIG, port=bind.port, name="_acme-challenge.circle.example.test")
    assert result["code"] == "invalid" and "circle" in result["what"]
    result = dns("add", "v", rfc2136(bind.port, followCNAME=True), TSIG, port=bind.port, name="_acme-challenge.long.example.test")
    assert result["code"] == "limit" and "in a row" in result["what"]


def test_zone_below_the_zone(bind):
    result = dns("add", "v", rfc2136(bind.port), TSIG, port=bind.port, name="_acme-challenge.a.sub.example.test")
    assert result["ok"] and json.loads(result["handle"])["zone"] == "sub.example.test"
    assert "ns1.sub.example.test has it" in result["seen"]


def test_no_such_zone(bind):
    result = dns("check", "v", LOOK, port=bind.port, name="_acme-challenge.nobody.invalid")
    assert result["code"] == "net" and "REFUSED" in result["what"]


# --- propagation ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def two(tmp_path):
    """Two authoritative servers that know nothing of each other."""
    first = Bind(tmp_path).zone("example.test", ["@ NS ns1", "@ NS ns2"])
    second = Knot(tmp_path, ["@ NS ns1", "@ NS ns2"], "127.0.0.2", serial=7)
    with first, second:
        yield first, second


def both(two, **more):
    return {"recursiveNameservers": [f"127.0.0.1:{two[0].port}", f"127.0.0.2:{two[1].port}"], "propagationTimeoutMs": 3000, **more}


def test_every_authoritative_server_must_have_it(two):
    result = dns("add", "v", rfc2136(two[0].port), TSIG, both(two))
    assert result["code"] == "timeout", result
    assert "ns1.example.test has it, ns2.example.test not yet (old serial 7)" in result["what"]
    assert re.search(r"recursive: 127.0.0.1:\d+ has it, 127.0.0.2:\d+ not yet \(cached 2 s\)", result["what"]), result["what"]


def test_a_late_server_is_waited_for(two):
    later = threading.Timer(2.5, nsupdate, (two[1].port, [f'update add {RECORD}. 60 TXT "v"'], "127.0.0.2"))
    later.start()
    started = time.monotonic()
    result = dns("add", "v", rfc2136(two[0].port), TSIG, both(two, propagationTimeoutMs=20000))
    assert result["ok"] and "ns1.example.test has it, ns2.example.test has it" in result["seen"], result
    assert 2 < time.monotonic() - started < 18
    later.join()


def test_a_dead_server_is_told(two):
    two[1].stop()
    result = dns("add", "v", rfc2136(two[0].port), TSIG, both(two, propagationTimeoutMs=1000))
    assert result["code"] == "timeout" and "ns1.example.test has it, ns2.example.test no answer" in result["what"], result


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network without IPv6")
def test_a_server_beyond_reach_is_left_out(tmp_path):
    alone = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with Bind(tmp_path, alone).zone("example.test", ["@ NS ns1", "@ NS ns6", "ns6 AAAA 2001:db8::53"]) as bind:
        there = ["nsenter", "-t", str(bind.process.pid), "-n"]
        result = dns("add", "v", rfc2136(bind.port), TSIG, port=bind.port, wrap=there)
        assert result["ok"] and "ns1.example.test has it, ns6.example.test can't be asked from this host (2001:db8::53)" in result["seen"], result
        assert dns("check", "other", LOOK, port=bind.port, quick=300, wrap=there)["code"] == "timeout"


def test_look_once(two):
    started = time.monotonic()
    assert dns("check", "v", LOOK, None, both(two, propagationTimeoutMs=0))["code"] == "timeout"
    assert time.monotonic() - started < 15


def test_check_of_a_persistent_record(bind):
    name = "_validation-persist.example.test"
    value = "ca.example; accounturi=https://ca.example/acct/1;"
    assert dns("check", value, LOOK, port=bind.port, name=name, quick=500)["code"] == "timeout"
    nsupdate(bind.port, [f'update add {name}. 60 TXT "{value} policy=wildcard"'])
    assert dns("check", value, LOOK, port=bind.port, name=name)["ok"]
    assert dns("check", "ca.example; accounturi=https://ca.example/acct/2;", LOOK, port=bind.port, name=name, quick=500)["code"] == "timeout"
    assert dns("check", value[:-1], LOOK, port=bind.port, name=name, quick=500)["code"] == "timeout", "without ; it must be equal"


def test_none_waits_for_whoever_writes(bind):
    later = threading.Timer(1, nsupdate, (bind.port, [f'update add {RECORD}. 60 TXT "by a program"']))
    later.start()
    assert dns("add", "by a program", LOOK, port=bind.port, quick=10000)["ok"]
    assert dns("remove", "by a program", LOOK, port=bind.port)["ok"]
    later.join()


def test_recursive_servers_only_respects_their_caches():
    """A cached denial is not asked for again before it ends."""
    asked, began = [], time.monotonic()

    def answer(question):
        kind = struct.unpack(">H", question[question_end(question) - 4:question_end(question) - 2])[0]
        if kind == 5:
            return [reply_to(question, authority=[soa("example.test")], rcode=3)]
        asked.append(time.monotonic() - began)
        if len(asked) == 1:
            return [reply_to(question, authority=[soa("example.test", negative=3)], rcode=3, flags=0x8180)]
        return [reply_to(question, [record(16, b"\1v")], flags=0x8180)]

    with Hostile(answer) as server:
        settings = {"recursiveNameservers": [f"127.0.0.1:{server.port}"], "recursiveNameserversOnly": True, "propagationTimeoutMs": 9000}
        result = dns("check", "v", LOOK, None, settings)
        assert result["ok"] and result["seen"] == f"recursive: 127.0.0.1:{server.port} has it", result
        assert len(asked) == 2 and asked[1] - asked[0] >= 3, asked
        asked.clear()
        hopeless = dns("check", "w", LOOK, None, {**settings, "propagationTimeoutMs": 2000})
        assert hopeless["code"] == "timeout" and "not yet (cached 3 s)" in hopeless["what"] and hopeless["retry_after"] == 3
        assert len(asked) == 1


# --- name servers that mean harm ----------------------------------------------------------------------------------------

def hostile_check(udp, tcp=None, timeout=1000):
    """A look by recursive servers only: its first question is for an alias, the next ones for the text."""
    with Hostile(udp, tcp) as server:
        settings = {"recursiveNameservers": [f"127.0.0.1:{server.port}"], "recursiveNameserversOnly": True, "propagationTimeoutMs": timeout}
        return dns("check", "v", LOOK, None, settings), server.asked


def good(question):
    kind = struct.unpack(">H", question[question_end(question) - 4:question_end(question) - 2])[0]
    return reply_to(question, [record(16, b"\1v")] if kind == 16 else [], flags=0x8180)


def test_ids_and_ports_are_fresh():
    result, asked = hostile_check(lambda q: [good(q)])
    assert result["ok"]
    assert len({q[1][:2] for q in asked}) == len(asked) > 1 and len({q[2] for q in asked}) == len(asked)
    assert all(b"\0\0\x29\x04\xd0" in q[1] for q in asked), "EDNS with 1232 bytes"


@pytest.mark.parametrize("forge", [
    lambda a: bytes([a[0] ^ 1]) + a[1:],                  # another id
    lambda a: a[:2] + bytes([a[2] & 0x7f]) + a[3:],       # a question
    lambda a: a[:13] + b"x" + a[14:],                     # another name
    lambda a: a[:question_end(a) - 3] + b"\1" + a[question_end(a) - 2:],  # another type
    lambda a: a[:5],                                      # next to nothing
], ids=["id", "question", "name", "type", "short"])
def test_forged_answers_are_passed_over(forge):
    result, _ = hostile_check(lambda q: [forge(reply_to(q, [record(16, b"\3bad")], flags=0x8180))] * 20 + [good(q)])
    assert result["ok"], result


def test_a_flood_of_forgeries_ends_the_question():
    started = time.monotonic()
    result, _ = hostile_check(lambda q: [b"\0\0" + good(q)[2:]] * 400)
    assert result["code"] in ("proto", "timeout") and time.monotonic() - started < 20, result


def test_truncated_answers_are_asked_again_by_tcp():
    def cut(question):
        return [reply_to(question, flags=0x8380)]

    def whole(question):
        answer = good(question)
        return [struct.pack(">H", len(answer)), answer[:20], answer[20:]]  # in pieces

    result, asked = hostile_check(cut, whole)
    assert result["ok"] and {a[0] for a in asked} == {"udp", "tcp"}


@pytest.mark.parametrize("name,tcp", [
    ("silent", lambda q: []),
    ("cut", lambda q: [struct.pack(">H", 500) + good(q)]),
    ("huge", lambda q: [struct.pack(">H", 65535) + b"x" * 65535]),
    ("other", lambda q: [struct.pack(">H", len(good(q))) + b"\0\0" + good(q)[2:]]),
], ids=lambda v: v if isinstance(v, str) else "")
def test_bad_tcp_answers(name, tcp):
    started = time.monotonic()
    result, _ = hostile_check(lambda q: [reply_to(q, flags=0x8380)], tcp)
    assert not result["ok"] and result["code"] in ("net", "proto", "limit", "timeout") and time.monotonic() - started < 15, result


@pytest.mark.parametrize("body", [
    lambda q: [record(16, b"\1v")] * 200,                                   # more records than are looked at
    lambda q: [record(16, b"\xffv")],                                       # a string longer than its record
    lambda q: [b"\xc0\xff" + record(16, b"\1v")[2:]],                       # a name beyond the message
    lambda q: [record(5, struct.pack(">H", 0xc000 | question_end(q) + 12))],  # an alias whose name is itself
], ids=["many", "string", "beyond", "loop"])
def test_answers_that_cannot_be_read(body):
    result, _ = hostile_check(lambda q: [reply_to(q, body(q), flags=0x8180)])
    assert not result["ok"] and result["code"] in ("proto", "limit"), result


def test_old_servers_without_edns():
    def old(question):
        if question[11]:  # an additional record
            return [question[:2] + struct.pack(">HHHHH", 0x8181, 0, 0, 0, 0)]
        return [good(question)]

    assert hostile_check(old)[0]["ok"]


def test_silence_is_bounded():
    started = time.monotonic()
    result, asked = hostile_check(lambda q: [])
    assert result["code"] == "timeout" and time.monotonic() - started < 15 and len(asked) == 2, (result, asked)


def test_unsigned_success_is_not_believed(bind):
    """Whoever stands between us and the server can't tell that an update was done."""
    with Hostile(lambda q: [reply_to(q[:10] + b"\0\0" + q[12:], authority=[soa("example.test")], rcode=0)] if q[2] & 0x78 == 0 else
                 [q[:2] + b"\xa8\0" + b"\0" * 8]) as forger:
        result = dns("add", "v", rfc2136(forger.port), TSIG, port=bind.port, timeout=90)
        assert result["code"] == "timeout" and "another question" in result["what"], result


def zone_at(address):
    """Answers for example.test whose only server is ns1 with this address."""
    def answer(question):
        kind = struct.unpack(">H", question[question_end(question) - 4:question_end(question) - 2])[0]
        if question[12:question_end(question) - 4] == wire_name("example.test") and kind == 6:
            return [reply_to(question, [soa("example.test")], flags=0x8580)]
        found = {2: record(2, wire_name("ns1.example.test")), 1: record(1, bytes(map(int, address.split("."))))}.get(kind)
        return [reply_to(question, [found] if found else [], [] if found else [soa("example.test")], flags=0x8580)]

    return answer


def dns_of_the_machine(server, tmp_path, *args, **kwargs):
    """A job without settings, where this server is what resolv.conf names."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"search example.test\nnameserver {server}\n")
    return dns(*args, wrap=["unshare", "-m", "sh", "-c",
                            f'mount --bind {conf} "$(readlink -f /etc/resolv.conf)" && exec "$@"', "sh"], **kwargs)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace and port 53")
def test_resolv_conf_and_what_strangers_may_not_name(tmp_path):
    """Nobody's zone sends us to this machine; a manifest that names such servers itself may (as all others here do)."""
    name = "_acme-challenge.example.test"
    quick = {"propagationTimeoutMs": 0}
    for number, address in enumerate(["127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"]):
        at = f"127.0.53.{40 + number}"
        with Hostile(zone_at(address), at=(at, 53)):
            result = dns_of_the_machine(at, tmp_path, "check", "v", LOOK, None, quick, name=name)
            assert result["code"] == "net" and "none has an address that may be asked" in result["what"], (address, result)
    with Hostile(zone_at("127.0.53.50"), at=("127.0.53.50", 53)) as server:
        only = dns_of_the_machine("127.0.53.50", tmp_path, "check", "v", LOOK, None, {**quick, "recursiveNameserversOnly": True}, name=name)
        assert only["code"] == "timeout" and "recursive: 127.0.53.50 not yet (cached 2 s)" in only["what"], only
        before = len(server.asked)
        named = dns("check", "v", LOOK, None, {"recursiveNameservers": ["127.0.53.50:53"], **quick}, name=name)
        assert named["code"] == "timeout" and "authoritative: ns1.example.test not yet (old serial 7)" in named["what"], named
        assert len(server.asked) > before
    nobody = dns_of_the_machine("", tmp_path, "check", "v", LOOK, None, quick, name=name)
    assert nobody["code"] == "invalid" and "recursiveNameservers" in nobody["what"], nobody


# --- providers with an HTTP interface -------------------------------------------------------------------------------------

@pytest.fixture
def zone(tmp_path):
    with Bind(tmp_path).zone("example.test", ["@ NS ns1", "_acme-challenge.delegated CNAME "
                                              "8e5700ea-a4bf-41c7-8a77-e990661dcc6a.example.test."]) as server:
        yield server


def cloud(kind, api):
    """solver and secret"""
    common = {"caBundle": api.authority.pem().decode()}
    if kind is Cloudflare:
        return {"provider": "cloudflare", "apiURL": api.url("/client/v4"), **common}, {"apiToken": api.TOKEN}
    if kind is DigitalOcean:
        return {"provider": "digitalocean", "apiURL": api.url("/v2/"), **common}, {"token": api.TOKEN}
    return ({"provider": "route53", "apiURL": api.url(), "region": api.REGION, "accessKeyID": api.ID, **common},
            {"secretAccessKey": api.SECRET})


CLOUDS = [Cloudflare, DigitalOcean, Route53]


@pytest.mark.parametrize("kind", CLOUDS)
def test_cloud_adds_and_removes_one_value(kind, tmp_path, zone):
    with kind(tmp_path, zone) as api:
        solver, secret = cloud(kind, api)
        api.add(RECORD, "of somebody else")
        first = dns("add", "base", solver, secret, port=zone.port)
        assert first["ok"] and "ns1.example.test has it" in first["seen"], first
        second = dns("add", "wildcard", solver, secret, port=zone.port)
        assert second["ok"] and api.values(RECORD) == ["base", "of somebody else", "wildcard"]
        assert dns("add", "wildcard", solver, secret, port=zone.port)["ok"], "an ADD that was cut short is done again"
        assert api.values(RECORD) == ["base", "of somebody else", "wildcard"]
        assert dns("remove", "base", solver, secret, port=zone.port, handle=first["handle"])["ok"]
        assert api.values(RECORD) == ["of somebody else", "wildcard"]
        assert dns("remove", "base", solver, secret, port=zone.port, handle=first["handle"])["ok"], "gone already"
        assert dns("remove", "wildcard", solver, secret, port=zone.port)["ok"], "without a handle"
        assert dns("remove", "wildcard", solver, secret, port=zone.port)["ok"], "gone already, without a handle"
        assert api.values(RECORD) == ["of somebody else"] and zone.txt(RECORD) == ["of somebody else"]
        assert dns("remove", "of somebody else", solver, secret, port=zone.port)["ok"], "the last value"
        assert api.values(RECORD) == [] and api.complaints == []


@pytest.mark.parametrize("kind", CLOUDS)
def test_cloud_many_values_at_once(kind, tmp_path, zone):
    """Route 53 replaces sets: jobs on one name must not undo each other."""
    with kind(tmp_path, zone) as api:
        solver, secret = cloud(kind, api)
        results = dns("add", "v", solver, secret, port=zone.port, count=6, quick=20000)
        assert all(r["ok"] for r in results), results
        assert api.values(RECORD) == [f"v-{i}" for i in range(6)]
        assert all(r["ok"] for r in dns("remove", "v", solver, secret, port=zone.port, count=6))
        assert api.values(RECORD) == [] and api.complaints == []


@pytest.mark.parametrize("kind", CLOUDS)
def test_cloud_refusals(kind, tmp_path, zone):
    with kind(tmp_path, zone) as api:
        solver, secret = cloud(kind, api)
        wrong = {name: "wrong-secret-000" for name in secret}
        result = dns("add", "v", solver, wrong, port=zone.port)
        assert result["code"] == "auth" and "credential" in result["what"], result
        result = dns("remove", "v", solver, secret, port=zone.port, name="_acme-challenge.nobody.invalid")
        assert result["code"] == "notfound" and "nobody.invalid" in result["what"], result
        api.fail = [("GET", "/", 429, {}, {"Retry-After": "17"})]
        result = dns("remove", "v", solver, secret, port=zone.port)
        assert result["code"] == "later" and result["retry_after"] == 17, result
        api.fail = [("GET", "/", 503, b"<html>oops")]
        assert dns("remove", "v", solver, secret, port=zone.port)["code"] == "later"
        for body in (b"<", b"{", b"[]", b"", b"<a>" * 50, b"x" * 300000):
            api.fail = [("GET", "/", 200, body)]
            result = dns("remove", "v", solver, secret, port=zone.port)
            assert not result["ok"] or kind is DigitalOcean, (body[:20], result)  # its domain is found by status
        api.fail = [("POST", "/", 200, {"success": True, "result": {"id": "../../../evil"}, "domain_record": {"id": "x"}})]
        assert dns("add", "v", solver, secret, port=zone.port)["code"] == "proto"
        untrusted = dict(solver)
        del untrusted["caBundle"]
        assert dns("add", "v", untrusted, secret, port=zone.port)["code"] in ("crypto", "net")


def test_cloudflare_by_global_key(tmp_path, zone):
    with Cloudflare(tmp_path, zone) as api:
        solver, _ = cloud(Cloudflare, api)
        assert dns("add", "v", {**solver, "email": api.EMAIL}, {"apiKey": api.KEY}, port=zone.port)["ok"]
        assert dns("add", "v", solver, {"apiKey": api.KEY}, port=zone.port)["code"] == "invalid"


def test_route53_waits_and_gives_way(tmp_path, zone):
    with Route53(tmp_path, zone) as api:
        solver, secret = cloud(Route53, api)
        api.pending = 2
        api.fail = [("POST", "/rrset", 400, b'<?xml version="1.0"?><ErrorResponse><Error><Code>PriorRequestNotComplete</Code>'
                     b"<Message>wait</Message></Error></ErrorResponse>")]
        result = dns("add", "v", {**solver, "hostedZoneID": "/hostedzone/" + api.ZONE}, secret, port=zone.port)
        assert result["ok"], result
        paths = [path for _, path, _, _ in api.requests]
        assert not any("hostedzonesbyname" in path for path in paths), "the zone was given"
        assert sum("/change/" in path for path in paths) == 2 and sum("rrset" in path for path in paths) == 4, paths
        key_elsewhere = {k: v for k, v in solver.items() if k != "accessKeyID"}
        assert dns("remove", "v", key_elsewhere, {**secret, "accessKeyID": api.ID}, port=zone.port)["ok"]


def test_acme_dns_stand_in(tmp_path, zone):
    with FakeAcmeDns(tmp_path, zone) as api:
        accounts = {"other.test": {}, "delegated.example.test": api.account()}
        solver = {"provider": "acmeDNS", "host": api.url("/"), "caBundle": api.authority.pem().decode()}
        value = base64.urlsafe_b64encode(b"v" * 32).decode().rstrip("=")
        second = base64.urlsafe_b64encode(b"w" * 32).decode().rstrip("=")
        secret, name = {"account": json.dumps(accounts)}, "_acme-challenge.delegated.example.test"
        result = dns("add", value, solver, secret, port=zone.port, name=name)
        assert result["ok"] and result["effective"] == f"{api.SUBDOMAIN}.example.test", result
        assert dns("add", second, solver, secret, port=zone.port, name=name)["ok"]
        assert api.values(f"{api.SUBDOMAIN}.example.test") == sorted([value, second])
        assert dns("remove", value, solver, secret, port=zone.port, name=name, handle=result["handle"])["ok"]
        missing = dns("add", value, solver, {"account": json.dumps({"www.example.test": api.account()})}, port=zone.port)
        assert missing["code"] == "invalid" and f"{RECORD}. CNAME {api.SUBDOMAIN}.example.test." in missing["what"]
        assert dns("add", value, solver, {"account": json.dumps({"x.test": api.account()})}, port=zone.port)["code"] == "notfound"
        wrong = {"account": json.dumps({"delegated.example.test": {**api.account(), "password": "wrong-password"}})}
        assert dns("add", value, solver, wrong, port=zone.port, name=name)["code"] == "auth"
        assert dns("add", value, {**solver, "host": "http://auth.example.test"}, secret, port=zone.port, name=name)["code"] == "policy"


@pytest.mark.skipif(not AcmeDns.binary(), reason="no acme-dns here: its stand-in is used")
def test_acme_dns(tmp_path):
    with AcmeDns(tmp_path) as server:
        _, body = fetch(f"http://127.0.0.1:{server.api}/register", data=b"")
        account = json.loads(body)
        solver = {"provider": "acmeDNS", "host": f"http://127.0.0.1:{server.api}"}
        settings = {"recursiveNameservers": [f"127.0.0.1:{server.port}"], "propagationTimeoutMs": 5000}
        for value in (b"v" * 32, b"w" * 32):
            text = base64.urlsafe_b64encode(value).decode().rstrip("=")
            result = dns("add", text, solver, {"account": json.dumps({"x": account})}, settings, name=account["fulldomain"])
            assert result["ok"] and "ns1.auth.example.test has it" in result["seen"], result
        assert len(dig(server.port, account["fulldomain"])) == 2


# --- resolv.conf, calling off ---------------------------------------------------------------------------------------------

def test_calling_off(bind):
    with Hostile(lambda q: []) as silent:
        argv = [str(DRIVE), "--cancel", "300", "dns", "check", RECORD, "v", json.dumps(LOOK), "",
                json.dumps({"recursiveNameservers": [f"127.0.0.1:{silent.port}"]})]
        started = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert "error cancelled" in done.stdout and time.monotonic() - started < 15, done.stdout


def test_requests_that_make_no_sense(bind):
    for solver in ({"provider": "azure"}, [], "x"):
        assert dns("add", "v", solver, port=bind.port)["code"] in ("unsupported", "invalid")
    assert dns("add", 'v"v', LOOK, port=bind.port)["code"] == "invalid"
    assert dns("add", "v", rfc2136(bind.port, nameserver="a b"), TSIG, port=bind.port)["code"] == "invalid"
    assert dns("add", "v", LOOK, None, {"recursiveNameservers": ["192.0.2.1:53"] * 9})["code"] == "limit"
    assert dns("remove", "v", LOOK, port=bind.port, handle="{")["code"] == "invalid"
