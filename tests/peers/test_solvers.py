"""How challenges are answered, against Pebble: programs in four conventions, dns-persist-01, tls-alpn-01, and what is left."""

import os

import pytest
from cryptography import x509

from lib.certs import check_set, load
from lib.dns import SECRET, WRONG, Bind, nsupdate
from lib.manifests import certificate
from lib.servers import Pebble
from lib.wait import free_port, until

ISSUER_DOMAIN = "pebble.letsencrypt.org"


@pytest.fixture
def quick(tmp_path):
    with Pebble(tmp_path, sleep=False, reject=0) as server:
        yield server


def settle(kt, server, timeout="20s", **listeners):
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}", **listeners}, limits={"perIssuer": 8},
                      dns01={"recursiveNameservers": [f"127.0.0.1:{server.names.port}"], "recursiveNameserversOnly": True,
                             "propagationTimeout": timeout})


def script(kt, name, text):
    path = kt.root / name
    path.write_text("#!/bin/sh\nset -e\n" + text)
    path.chmod(0o755)
    return path


def tools(server, log):
    """Shell functions that write and clear a record at challtestsrv, and write down how they were called."""
    at = f"http://127.0.0.1:{server.names.management}"
    return f"""
say() {{ echo "$@" >> {log}; }}
add() {{ curl -sSf -d "{{\\"host\\":\\"$1\\",\\"value\\":\\"$2\\"}}" {at}/set-txt; }}
clear() {{ curl -sSf -d "{{\\"host\\":\\"$1\\"}}" {at}/clear-txt; }}
"""


def program(path, convention, **more):
    exec_ = {"argv": [str(path)], "timeout": "20s", **({"user": "root"} if os.geteuid() == 0 else {}), **more.pop("exec", {})}
    return {"dns01": {"exec": {"convention": convention, "exec": exec_, **more}}}


def keyturn_script(kt, server, log, more=""):
    return script(kt, "keyturn.sh", tools(server, log) + more + '''
say "$1 $2 $3 record=$KEYTURN_RECORD value=$KEYTURN_VALUE domain=$KEYTURN_DOMAIN trace=$TRACEPARENT home=$HOME"
case $1 in
present) add "$2." "$3" ;;
cleanup) clear "$2." ;;
esac
''')


def nothing_left(kt, server, *names):
    for name in names:
        until(lambda: not server.names.txt(f"_acme-challenge.{name}"), 10, f"no record is left at {name}")


# --- programs


def test_program_of_our_own(kt, quick):
    log = kt.root / "log"
    settle(kt, quick)
    path = keyturn_script(kt, quick, log)
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]),
                certificate("web", "pebble", names=["web.example", "*.web.example"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["web.example", "*.web.example"], quick.roots())
    lines = log.read_text().splitlines()
    assert len([l for l in lines if l.startswith("present ")]) == 2, "one for the name, one for the wildcard"
    assert len([l for l in lines if l.startswith("cleanup ")]) == 2, lines
    assert all(" _acme-challenge.web.example " in l and "domain=web.example " in l and "trace=00-" in l for l in lines)
    nothing_left(kt, quick, "web.example")


def test_program_of_certbot(kt, quick):
    log = kt.root / "log"
    settle(kt, quick)
    auth = script(kt, "auth.sh", tools(quick, log) + '''
say "auth $# $CERTBOT_DOMAIN $CERTBOT_IDENTIFIER $CERTBOT_REMAINING_CHALLENGES $CERTBOT_ALL_DOMAINS ${CERTBOT_AUTH_OUTPUT-unset}"
add "_acme-challenge.$CERTBOT_DOMAIN." "$CERTBOT_VALIDATION"
echo "zone-id 42"
''')
    clean = script(kt, "clean.sh", tools(quick, log) + '''
say "clean $# $CERTBOT_DOMAIN $CERTBOT_VALIDATION $CERTBOT_AUTH_OUTPUT"
clear "_acme-challenge.$CERTBOT_DOMAIN."
''')
    kt.manifest("set", quick.issuer(solvers=[program(auth, "Certbot", cleanupArgv=[str(clean)])]),
                certificate("web", "pebble", names=["a.example", "b.example"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["a.example", "b.example"], quick.roots())
    lines = sorted(log.read_text().splitlines())
    assert lines[0] == "auth 0 a.example a.example 0 a.example,b.example unset"
    assert lines[1] == "auth 0 b.example b.example 0 a.example,b.example unset"
    assert lines[2].startswith("clean 0 a.example ") and lines[2].endswith(" zone-id 42")
    nothing_left(kt, quick, "a.example", "b.example")


def test_program_of_dehydrated(kt, quick):
    log = kt.root / "log"
    settle(kt, quick)
    hook = script(kt, "hook.sh", tools(quick, log) + '''
say "$1 $2 token=$3 $#"
case $1 in
deploy_challenge) add "_acme-challenge.$2." "$4" ;;
clean_challenge) clear "_acme-challenge.$2." ;;
esac
''')
    kt.manifest("set", quick.issuer(solvers=[program(hook, "Dehydrated")]), certificate("web", "pebble", names=["d.example"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["d.example"], quick.roots())
    first, second = log.read_text().splitlines()
    assert first.startswith("deploy_challenge d.example token=") and first.endswith(" 4")
    assert second == first.replace("deploy_", "clean_")
    assert len(first.split("token=")[1].split()[0]) >= 16
    nothing_left(kt, quick, "d.example")


@pytest.mark.parametrize("raw", [False, True])
def test_program_of_lego(kt, quick, raw):
    log = kt.root / "log"
    settle(kt, quick)
    text = '''
say "$@"
case $1 in
present) add "$2" "$3" ;;
cleanup) clear "$2" ;;
esac
'''
    if raw:
        text = '''
say "$@"
value=$(printf %s "$5" | openssl dgst -sha256 -binary | openssl base64 | tr +/ -_ | tr -d =)
case $1 in
present) add "_acme-challenge.$3." "$value" ;;
cleanup) clear "_acme-challenge.$3." ;;
esac
'''
    path = script(kt, "lego.sh", tools(quick, log) + text)
    kt.manifest("set", quick.issuer(solvers=[program(path, "Lego", exec={"env": {"EXEC_MODE": "RAW"}} if raw else {})]),
                certificate("web", "pebble", names=["l.example"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["l.example"], quick.roots())
    first, second = log.read_text().splitlines()
    assert first.startswith("present -- l.example " if raw else "present _acme-challenge.l.example. ")
    assert second == first.replace("present", "cleanup")
    nothing_left(kt, quick, "l.example")


def test_program_that_fails_says_why_and_is_cleaned_up_after(kt, quick):
    log = kt.root / "log"
    settle(kt, quick)
    path = keyturn_script(kt, quick, log, more='[ "$1" = cleanup ] || { echo "no such zone here" >&2; exit 3; }\n')
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]), certificate("web", "pebble"))
    result = kt.run("renew", timeout=60)
    assert result.status != 0
    assert "no such zone here" in result.err and "exit status 3" in result.err, result
    assert not quick.issued()
    assert [l.split()[0] for l in log.read_text().splitlines()] == ["cleanup"], "what may be there in part is removed"


def test_program_that_lies_is_found_out(kt, quick):
    settle(kt, quick, timeout="2s")
    path = script(kt, "lies.sh", "exit 0\n")
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]), certificate("web", "pebble"))
    result = kt.run("renew", timeout=60)
    assert result.status != 0 and "not yet" in result.err, result
    assert "web.example" in result.err
    assert "Attempting to validate" not in quick.log(), "the CA is not asked in vain"


# --- after a kill


def test_kill_while_a_record_is_out(kt, quick):
    """kill -9 between presenting and finalizing: the next process takes the record back, whoever asked for it."""
    log, gate = kt.root / "log", kt.root / "gate"
    settle(kt, quick, timeout="60s")
    # The record is written, but under another name, so that the order waits for it.
    path = script(kt, "slow.sh", tools(quick, log) + f'''
say "$1 $2 $3"
case $1 in
present) [ -e {gate} ] && add "$2." "$3" || add "$2.parked." "$3" ;;
cleanup) clear "$2."; clear "$2.parked." ;;
esac
''')
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]), certificate("web", "pebble"))
    running = kt.background("renew")
    until(lambda: quick.names.txt("_acme-challenge.web.example.parked"), 20, "the record is out")
    running.kill9()
    assert quick.names.txt("_acme-challenge.web.example.parked"), "nobody has removed it yet"
    gate.touch()
    kt.ok("renew", timeout=90)
    assert not quick.names.txt("_acme-challenge.web.example.parked")
    nothing_left(kt, quick, "web.example")
    assert len(quick.issued()) == 1
    check_set(kt.volume("web-tls"), ["web.example"], quick.roots())


def test_what_was_left_goes_even_when_the_certificate_is_gone(kt, quick):
    log = kt.root / "log"
    settle(kt, quick, timeout="60s")
    path = script(kt, "slow.sh", tools(quick, log) + '''
say "$1 $2 $3"
case $1 in
present) add "$2.parked." "$3" ;;
cleanup) clear "$2.parked." ;;
esac
''')
    issuer = quick.issuer(solvers=[program(path, "Keyturn")])
    kt.manifest("set", issuer, certificate("web", "pebble"))
    running = kt.background("renew")
    until(lambda: quick.names.txt("_acme-challenge.web.example.parked"), 20, "the record is out")
    running.kill9()
    kt.manifest("set", issuer)
    kt.ok("renew", timeout=90)
    assert not quick.names.txt("_acme-challenge.web.example.parked"), log.read_text()
    calls = [l.split() for l in log.read_text().splitlines()]
    assert calls[0][1:] == calls[1][1:] and calls[1][0] == "cleanup"


def test_removing_waits_for_adding(kt, quick):
    """The order is called off while the program adds: it is not interrupted, and then asked to remove what it added."""
    log = kt.root / "log"
    settle(kt, quick)
    path = script(kt, "slow.sh", tools(quick, log) + '''
say "$1 begins"
[ "$1" = cleanup ] || { sleep 2; add "$2." "$3"; }
[ "$1" = present ] || clear "$2."
say "$1 ends"
''')
    issuer = quick.issuer(solvers=[program(path, "Keyturn")])
    kt.manifest("set", issuer, certificate("web", "pebble"))
    agent = kt.start()
    until(lambda: log.exists(), 20, "the program runs")
    kt.manifest("set", issuer)
    kt.ok("reload")
    until(lambda: "cleanup ends" in log.read_text(), 20, "the record is removed")
    assert log.read_text().splitlines() == ["present begins", "present ends", "cleanup begins", "cleanup ends"]
    assert not quick.names.txt("_acme-challenge.web.example")
    assert agent.stop() == 0
    assert not quick.issued()


def test_what_cannot_be_removed_holds_nothing_up(kt, quick):
    """A record of an earlier process stays, because its program is gone from the manifest: the next order goes on."""
    log, gate = kt.root / "log", kt.root / "gate"
    settle(kt, quick, timeout="60s")
    text = tools(quick, log) + f'''
say "$1"
case $1 in
present) [ -e {gate} ] && add "$2." "$3" || add "$2.parked." "$3" ;;
cleanup) clear "$2." ;;
esac
'''
    first, second = script(kt, "one.sh", text), script(kt, "two.sh", text)
    kt.manifest("set", quick.issuer(solvers=[program(first, "Keyturn")]), certificate("web", "pebble"))
    running = kt.background("renew")
    until(lambda: quick.names.txt("_acme-challenge.web.example.parked"), 20, "the record is out")
    running.kill9()
    gate.touch()
    kt.manifest("set", quick.issuer(solvers=[program(second, "Keyturn")]), certificate("web", "pebble"))
    result = kt.ok("renew", timeout=60)
    assert "has no exec solver with this program any more" in result.err, result
    check_set(kt.volume("web-tls"), ["web.example"], quick.roots())


def test_removing_is_tried_again(kt, quick):
    log, gate = kt.root / "log", kt.root / "gate"
    settle(kt, quick)
    path = keyturn_script(kt, quick, log, more=f'[ "$1" = present ] || [ -e {gate} ] || {{ touch {gate}; exit 1; }}\n')
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]), certificate("web", "pebble"))
    result = kt.ok("renew", timeout=60)
    assert "can't be taken back yet" in result.err, result
    nothing_left(kt, quick, "web.example")
    assert len(log.read_text().splitlines()) == 2


def test_manifest_changes_while_a_record_is_out(kt, quick):
    """The issuer has another solver by the time of the removal: the program that added is the one that removes."""
    log = kt.root / "log"
    settle(kt, quick, timeout="60s")
    path = script(kt, "parks.sh", tools(quick, log) + '''
say "$1"
case $1 in
present) add "$2.parked." "$3" ;;
cleanup) clear "$2.parked." ;;
esac
''')
    kt.manifest("set", quick.issuer(solvers=[program(path, "Keyturn")]), certificate("web", "pebble"))
    agent = kt.start()
    until(lambda: quick.names.txt("_acme-challenge.web.example.parked"), 20, "the record is out")
    kt.manifest("set", quick.issuer(), certificate("web", "pebble", names=["other.example"]))
    kt.ok("reload")
    until(lambda: not quick.names.txt("_acme-challenge.web.example.parked"), 20, "the record is removed")
    until(lambda: (kt.volume("web-tls") / "tls.crt").exists(), 30, "the new order goes by http-01")
    assert log.read_text().split() == ["present", "cleanup"]
    assert agent.stop() == 0


def test_kill_while_a_record_is_at_a_name_server(kt, tmp_path):
    """The same with a real server and dynamic updates: what the next process has is the row of the store."""
    bind = Bind(tmp_path).zone("kill.test", ["@ NS ns1", "@ NS ns2", "* A 127.0.0.1"])
    server = Pebble(tmp_path, sleep=False, reject=0)
    server.names = bind
    with bind, server:
        kt.agent_settings(dns01={"recursiveNameservers": [f"127.0.0.1:{bind.port}"], "propagationTimeout": "60s"})
        kt.secret("tsig", tsig__secret=SECRET)
        kt.manifest("set", server.issuer(solvers=[{"dns01": {"rfc2136": {
            "nameserver": f"127.0.0.1:{bind.port}", "tsigKeyName": "kt-sha256", "tsigAlgorithm": "HMACSHA256",
            "tsigSecretSecretRef": {"name": "tsig", "key": "tsig.secret"}}}}]),
            certificate("web", "pebble", names=["a.kill.test", "*.a.kill.test"]))
        running = kt.background("renew")
        # ns2 does not exist, so the order waits.
        until(lambda: len(bind.txt("_acme-challenge.a.kill.test")) == 2, 20, "both records are out")
        running.kill9()
        assert len(bind.txt("_acme-challenge.a.kill.test")) == 2 and not server.issued()
        nsupdate(bind.port, ["update delete kill.test. NS ns2.kill.test."])
        kt.ok("renew", timeout=90)
        assert bind.txt("_acme-challenge.a.kill.test") == []
        assert len(server.issued()) == 1
        check_set(kt.volume("web-tls"), ["a.kill.test", "*.a.kill.test"], server.roots())


def test_an_order_that_is_called_off_leaves_no_record(kt, tmp_path):
    """The wait for the name servers ends at once, and the record goes."""
    bind = Bind(tmp_path).zone("off.test", ["@ NS ns1", "@ NS ns2", "* A 127.0.0.1"])
    server = Pebble(tmp_path, sleep=False, reject=0)
    server.names = bind
    with bind, server:
        kt.agent_settings(dns01={"recursiveNameservers": [f"127.0.0.1:{bind.port}"], "propagationTimeout": "120s"})
        kt.secret("tsig", tsig__secret=SECRET)
        issuer = server.issuer(solvers=[{"dns01": {"rfc2136": {
            "nameserver": f"127.0.0.1:{bind.port}", "tsigKeyName": "kt-sha256", "tsigAlgorithm": "HMACSHA256",
            "tsigSecretSecretRef": {"name": "tsig", "key": "tsig.secret"}}}}])
        kt.manifest("set", issuer, certificate("web", "pebble", names=["a.off.test"]))
        agent = kt.start()
        until(lambda: bind.txt("_acme-challenge.a.off.test"), 20, "the record is out")
        kt.manifest("set", issuer)
        kt.ok("reload")
        until(lambda: not bind.txt("_acme-challenge.a.off.test"), 10, "the record is gone")
        assert agent.stop() == 0


# --- dns-persist-01


def test_persistent_record(kt, quick):
    settle(kt, quick, timeout="2s")
    names = ["p.example", "*.p.example"]
    kt.manifest("set", quick.issuer(solvers=[{"dnsPersist01": {}}]), certificate("web", "pebble", names=names))
    result = kt.run("renew", timeout=60)
    assert result.status != 0
    assert f"_validation-persist.p.example. TXT" in result.err and f"{ISSUER_DOMAIN}; accounturi=" in result.err, result
    account = result.err.split("accounturi=")[1].split('"')[0].split(";")[0]
    # As somebody else may have written it: other spaces, another order, more parameters.
    quick.names.ask("set-txt", host="_validation-persist.p.example.", value="ca.other.example; accounturi=https://x/1")
    quick.names.ask("set-txt", host="_validation-persist.p.example.",
                    value=f"{ISSUER_DOMAIN};persistUntil=4102444800 ; policy = wildcard; accounturi={account}")
    kt.ok("renew", "web", timeout=60)
    check_set(kt.volume("web-tls"), names, quick.roots())
    assert len(quick.names.txt("_validation-persist.p.example")) == 2, "it is only read"


@pytest.mark.parametrize("value", [
    ISSUER_DOMAIN + "; accounturi=https://somebody.example/else",
    ISSUER_DOMAIN + "; accounturi={account}; persistUntil=1600000000",
    ISSUER_DOMAIN + ".example; accounturi={account}",
    ISSUER_DOMAIN + "; policy=wildcard",
])
def test_persistent_record_that_does_not_do(kt, quick, value):
    settle(kt, quick, timeout="2s")
    kt.manifest("set", quick.issuer(solvers=[{"dnsPersist01": {}}]), certificate("web", "pebble", names=["p.example"]))
    result = kt.run("renew", timeout=60)
    account = result.err.split("accounturi=")[1].split('"')[0]
    quick.names.ask("set-txt", host="_validation-persist.p.example.", value=value.format(account=account))
    result = kt.run("renew", "web", timeout=60)
    assert result.status != 0 and "publish once" in result.err, result
    assert not quick.issued()


def test_persistent_record_above_the_name(kt, quick):
    """One with policy=wildcard may do for what is below (this CA does not take it so, but has to be asked); others do not."""
    settle(kt, quick, timeout="2s")
    kt.manifest("set", quick.issuer(solvers=[{"dnsPersist01": {}}]), certificate("web", "pebble", names=["a.b.p.example"]))
    account = kt.run("renew", timeout=60).err.split("accounturi=")[1].split('"')[0]
    quick.names.ask("set-txt", host="_validation-persist.p.example.", value=f"{ISSUER_DOMAIN}; accounturi={account}")
    result = kt.run("renew", "web", timeout=60)
    assert "publish once: _validation-persist.a.b.p.example. TXT" in result.err, result
    assert "Attempting to validate" not in quick.log()
    quick.names.ask("set-txt", host="_validation-persist.p.example.",
                    value=f"{ISSUER_DOMAIN}; accounturi={account}; policy=Wildcard")
    result = kt.run("renew", "web", "--force", timeout=60)
    assert result.status != 0 and "DNS-PERSIST-01" in result.err, result


# --- the choice


def test_solvers_by_name(kt, quick):
    """Selectors: a program for one zone and for wildcards, the listener for the rest."""
    log = kt.root / "log"
    settle(kt, quick)
    path = keyturn_script(kt, quick, log)
    kt.manifest("set", quick.issuer(solvers=[
        {"http01": {"ingress": {}}},
        {**program(path, "Keyturn"), "selector": {"dnsZones": ["deep.example"]}},
        {**program(path, "Keyturn"), "selector": {"dnsZones": ["w.example"]}}]),
        certificate("web", "pebble", names=["h.example", "a.deep.example", "*.w.example"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["h.example", "a.deep.example", "*.w.example"], quick.roots())
    assert sorted(l.split()[1] for l in log.read_text().splitlines() if l.startswith("present")) == [
        "_acme-challenge.a.deep.example", "_acme-challenge.w.example"]


def test_no_solver_fits(kt, quick):
    settle(kt, quick)
    kt.manifest("set", quick.issuer(), certificate("wild", "pebble", names=["*.x.example"]))
    result = kt.run("renew", timeout=60)
    assert result.status != 0
    assert "*.x.example" in result.err and "a wildcard needs dns-01, dns-persist-01" in result.err, result


# --- the listeners


def addresses(kt, secret="web-tls"):
    alts = load((kt.volume(secret) / "tls.crt").read_bytes())[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(ip) for ip in alts.value.get_values_for_type(x509.IPAddress)]


def test_tls_alpn(kt, quick):
    settle(kt, quick, tlsAlpn01=f"127.0.0.1:{quick.tls_port}")
    kt.manifest("set", quick.issuer(solvers=[{"tlsAlpn01": {}}]),
                certificate("web", "pebble", names=["t.example", "u.example"], ipAddresses=["127.0.0.1"]))
    kt.ok("renew", timeout=90)
    check_set(kt.volume("web-tls"), ["t.example", "u.example"], quick.roots())
    assert addresses(kt) == ["127.0.0.1"]


def test_two_orders_for_one_name(kt, quick):
    """There is one answer for a server name at a time: the second order waits for the end of the first."""
    quick.env["PEBBLE_AUTHZREUSE"] = "0"
    quick.kill()
    quick.start()
    settle(kt, quick, tlsAlpn01=f"127.0.0.1:{quick.tls_port}")
    names = [f"c{i}" for i in range(4)]
    kt.manifest("set", quick.issuer(solvers=[{"tlsAlpn01": {}}]), *(certificate(n, "pebble", names=["same.example"]) for n in names))
    kt.ok("renew", timeout=90)
    for name in names:
        check_set(kt.volume(f"{name}-tls"), ["same.example"], quick.roots())


def test_addresses_by_http(kt, quick):
    settle(kt, quick)
    kt.manifest("set", quick.issuer(), certificate("web", "pebble", names=["t.example"], ipAddresses=["127.0.0.1"]))
    kt.ok("renew", timeout=90)
    assert addresses(kt) == ["127.0.0.1"]


def test_tls_alpn_without_a_listener(kt, quick):
    settle(kt, quick)
    kt.manifest("set", quick.issuer(solvers=[{"tlsAlpn01": {}}]), certificate("web", "pebble"))
    result = kt.run("renew", timeout=60)
    assert result.status != 0 and "spec.listeners.tlsAlpn01" in result.err, result


# --- keyturn dns-record


def test_dns_record(kt, quick):
    """What it prints does: published as it is, the certificate is issued; the account is registered by it and then kept."""
    settle(kt, quick, timeout="2s")
    names = ["p.example", "*.p.example", "q.example"]
    kt.manifest("set", quick.issuer(solvers=[{"dnsPersist01": {}}]), certificate("web", "pebble", names=names))
    first = kt.ok("dns-record", "web")
    assert "an account was registered" in first.err and quick.accounts() == 1
    lines = [l for l in first.out.splitlines() if not l.startswith(";")]
    assert lines[0].startswith(f'_validation-persist.p.example. IN TXT "{ISSUER_DOMAIN}; accounturi=https://')
    assert lines[0].endswith('; policy=wildcard"') and "wildcard" not in lines[1] and len(lines) == 2
    again = kt.json("dns-record", "web")
    assert [r["name"] for r in again["records"]] == ["p.example", "q.example"]
    assert again["summary"]["registered"] is False and quick.accounts() == 1
    for row in again["records"]:
        assert f'{row["record"]}. IN TXT "{row["value"]}"' in lines
        quick.names.ask("set-txt", host=row["record"] + ".", value=row["value"])
    kt.ok("renew", timeout=60)
    check_set(kt.volume("web-tls"), names, quick.roots())
    assert quick.accounts() == 1


def test_dns_record_of_aliases(kt, quick):
    settle(kt, quick)
    accounts = '{"a.example": {"username": "u", "password": "p-secret", "fulldomain": "7c1f.auth.example", "subdomain": "7c1f"}}'
    kt.secret("acme-dns", acmedns__json=accounts)
    kt.manifest("set", quick.issuer(solvers=[
        {"dns01": {"acmeDNS": {"host": "https://auth.example", "accountSecretRef": {"name": "acme-dns"}}}},
        {"dns01": {"cnameStrategy": "Follow", "rfc2136": {"nameserver": "127.0.0.1:53"}}, "selector": {"dnsZones": ["b.example"]}}]),
        certificate("web", "pebble", names=["x.a.example", "www.b.example", "c.example"]))
    shown = kt.json("dns-record", "web")
    assert [(r["record"], r["type"], r["value"]) for r in shown["records"]] == [
        ("_acme-challenge.x.a.example", "CNAME", "7c1f.auth.example."), ("_acme-challenge.www.b.example", "CNAME", None),
        ("_acme-challenge.c.example", "CNAME", None)]
    text = kt.ok("dns-record", "web").out
    assert "_acme-challenge.x.a.example. IN CNAME 7c1f.auth.example.\n" in text
    assert "p-secret" not in text + str(shown) and quick.accounts() == 0


def test_dns_record_of_what_needs_none(kt, quick):
    settle(kt, quick)
    kt.manifest("set", quick.issuer(), certificate("web", "pebble"))
    result = kt.ok("dns-record", "web")
    assert result.out == "" and "nothing is to be published" in result.err
    assert kt.run("dns-record", "nobody").status == 2


def test_http_without_a_listener(kt, quick):
    kt.manifest("set", quick.issuer(), certificate("web", "pebble"))
    result = kt.run("renew", timeout=60)
    assert result.status != 0 and "listeners.http01" in result.err and "http01-webroot" in result.err, result


def test_a_refused_update_leaves_nothing_to_take_back(kt, tmp_path):
    """A wrong key: one clear line, no record to go after for a week, and nothing against the CA."""
    bind = Bind(tmp_path).zone("no.test", ["@ NS ns1", "* A 127.0.0.1"])
    server = Pebble(tmp_path, sleep=False, reject=0)
    server.names = bind
    with bind, server:
        kt.agent_settings(dns01={"recursiveNameservers": [f"127.0.0.1:{bind.port}"], "propagationTimeout": "5s"})
        solver = {"nameserver": f"127.0.0.1:{bind.port}", "tsigKeyName": "kt-sha256", "tsigSecretSecretRef": {"name": "tsig", "key": "secret"}}
        kt.manifest("set", server.issuer(solvers=[{"dns01": {"rfc2136": solver}}]), certificate("web", "pebble", names=["a.no.test", "*.a.no.test"]))
        result = kt.run("renew", timeout=60)
        assert result.status == 75 and "'keyturn secret set tsig secret'" in result.err, result
        assert "taken back" not in result.err, result
        kt.secret("tsig", secret=WRONG)
        result = kt.run("renew", "web", timeout=60)
        assert result.status == 1 and "(BADSIG)" in result.err and "taken back" not in result.err, result
        kt.secret("tsig", secret=SECRET)
        result = kt.ok("renew", "web", timeout=60)
        assert "taken back" not in result.err and bind.txt("_acme-challenge.a.no.test") == [], result


def test_an_api_that_was_only_read_has_nothing_to_take_back(kt, quick):
    """It can't be reached: the zone could not even be looked for."""
    settle(kt, quick)
    kt.secret("cf", token="cf-token-0123456789")
    solver = {"apiURL": f"https://localhost:{free_port()}/client/v4", "apiTokenSecretRef": {"name": "cf", "key": "token"}}
    kt.manifest("set", quick.issuer(solvers=[{"dns01": {"cloudflare": solver}}]), certificate("web", "pebble", names=["a.test", "*.a.test"]))
    result = kt.run("renew", timeout=60)
    assert result.status == 75 and "Failed to connect" in result.err and "taken back" not in result.err, result
    assert "cf-token" not in result.err, result


def test_what_our_side_failed_at_is_not_held_against_the_ca(kt, tmp_path):
    """The name servers are down, or a record is not published: no failure of the CA, so nobody goes to a fallback for it."""
    bind = Bind(tmp_path).zone("down.test", ["@ NS ns1", "* A 127.0.0.1"])
    server = Pebble(tmp_path, sleep=False, reject=0)
    server.names = bind
    with bind, server:
        kt.agent_settings(dns01={"recursiveNameservers": [f"127.0.0.1:{bind.port}"], "propagationTimeout": "1s"})
        solver = {"nameserver": f"127.0.0.1:{free_port()}", "tsigKeyName": "kt-sha256", "tsigSecretSecretRef": {"name": "tsig", "key": "secret"}}
        kt.secret("tsig", secret=SECRET)
        for solvers in ([{"dns01": {"rfc2136": solver}}], [{"dnsPersist01": {"issuerDomain": ISSUER_DOMAIN}}]):
            kt.manifest("set", server.issuer(solvers=solvers), certificate("web", "pebble", names=["a.down.test"]))
            for _ in range(3):
                result = kt.run("renew", "web", timeout=60)
                assert result.status == 75 and "counts as down" not in result.err, result
            assert "look whether name servers, DNS provider or program do their part" in result.err or "dns-record" in result.err, result
        assert kt.json("plan")["summary"]["issuers"] == []
