"""What ACME orders can ask for, and work on accounts and certificates, each read back from Pebble and not from our state."""

import datetime
import shutil
import time
from pathlib import Path

import pytest
from cryptography import x509


from lib.certs import check_set, load
from lib.manifests import certificate
from lib.servers import Pebble, program
from lib.wait import until

MAC = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@pytest.fixture
def pebble(tmp_path):
    with Pebble(tmp_path, sleep=False) as server:
        yield server


def prepare(kt, server, *documents, **issuer):
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}"}, limits={"perIssuer": 8})
    kt.manifest("set", server.issuer(**issuer), *documents)


def serial(kt, name="a-tls"):
    """Hex, two digits a byte."""
    text = f"{load(kt.read(name, 'tls.crt'))[0].serial_number:x}"
    return text.zfill(len(text) + len(text) % 2)


def public(kt, name="a-tls"):
    return load(kt.read(name, "tls.crt"))[0].public_key().public_numbers()


# --- orders


def test_external_account_binding(kt, tmp_path):
    with Pebble(tmp_path, sleep=False, eab={"kid-1": MAC}) as server:
        prepare(kt, server, certificate("a", "pebble"))
        result = kt.run("renew", timeout=60)
        assert result.status == 1 and "externalAccountBinding" in result.err, result
        assert server.accounts() == 0
        binding = {"keyID": "kid-1", "keySecretRef": {"name": "mac", "key": "secret"}, "keyAlgorithm": "HS256"}
        prepare(kt, server, certificate("a", "pebble"), externalAccountBinding=binding)
        kt.secret("mac", secret="c" * 43)
        result = kt.run("renew", "a", timeout=60)
        assert result.status == 1, result
        assert server.accounts() == 0, "another key than the CA's"
        kt.secret("mac", secret=MAC + "\n")
        kt.ok("renew", "a", timeout=60)
        assert 'newAccount Binding with CA using kid "kid-1"' in server.log()
        check_set(kt.volume("a-tls"), ["a.example"], server.roots())
        assert kt.json("account", "show", "pebble")["directory"]["externalAccountRequired"] is True


def test_profiles(kt, tmp_path):
    profiles = {"long": {"description": "the usual one", "validityPeriod": 90 * 86400},
                "shortlived": {"description": "six days", "validityPeriod": 6 * 86400}}
    with Pebble(tmp_path, sleep=False, profiles=profiles) as server:
        for name, days in (("long", 90), ("shortlived", 6)):
            kt.manifest(name, server.issuer(name, profile=name), certificate(name, name, commonName=f"{name}.example"))
        kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}"})
        kt.ok("renew", timeout=60)
        for name, days in (("long", 90), ("shortlived", 6)):
            leaf = check_set(kt.volume(f"{name}-tls"), [f"{name}.example"], server.roots())
            life = leaf.not_valid_after - leaf.not_valid_before
            assert abs(life - datetime.timedelta(days=days)) < datetime.timedelta(minutes=1)
        # Half of a life of less than ten days, two thirds of a longer one.
        rows = {r["name"]: r for r in kt.json("plan")["plan"]}
        for name, share in (("long", 2 / 3), ("shortlived", 1 / 2)):
            leaf = load(kt.read(f"{name}-tls", "tls.crt"))[0]
            point = datetime.datetime.strptime(rows[name]["renewAt"][:19], "%Y-%m-%dT%H:%M:%S")
            part = (point - leaf.not_valid_before) / (leaf.not_valid_after - leaf.not_valid_before)
            assert share - 0.03 < part <= share + 0.001, (name, part, rows[name])
        orders = server.orders()
        kt.manifest("unknown", server.issuer("unknown", profile="tlsserver"), certificate("u", "unknown"))
        result = kt.run("renew", "u", timeout=60)
        assert result.status in (1, 2), result
        assert "tlsserver" in result.err and "long" in result.err and "shortlived" in result.err, "the list is shown"
        assert server.orders() == orders, "no order is spent on it"


def test_alternate_chains(kt, tmp_path):
    with Pebble(tmp_path, sleep=False, env={"PEBBLE_ALTERNATE_ROOTS": "2", "PEBBLE_CHAIN_LENGTH": "2"}) as server:
        roots = [x509.load_pem_x509_certificate(server.ask(f"/roots/{i}")[1]) for i in range(3)]
        names = [r.subject.rfc4514_string().split("CN=")[1] for r in roots]
        assert len(set(names)) == 3
        kt.agent_settings(listeners={"http01": f"127.0.0.1:{server.http_port}"})
        for i, name in enumerate(names):
            kt.manifest(f"i{i}", server.issuer(f"i{i}", preferredChain=name), certificate(f"c{i}", f"i{i}"))
        kt.manifest("none", server.issuer("none", preferredChain="Nobody's Root"), certificate("cn", "none"))
        kt.ok("renew", timeout=60)
        for i, root in enumerate(roots):
            chain = load(kt.read(f"c{i}-tls", "tls.crt"))
            assert len(chain) == 3, "leaf and two intermediates"
            assert chain[-1].issuer == root.subject, f"chain {i} leads to {names[i]}"
        assert kt.volume("cn-tls").exists(), "a chain that nobody offers is a wish"


def test_addresses(kt, pebble):
    """RFC 8738: an address is validated over http-01 at that address; nothing but the alternative names holds it."""
    prepare(kt, pebble, certificate("a", "pebble", names=["127.0.0.1"]))
    spec = certificate("a", "pebble", ipAddresses=["127.0.0.1"])
    spec["spec"].pop("dnsNames")
    both = certificate("b", "pebble", names=["b.example"], ipAddresses=["127.0.0.1"])
    prepare(kt, pebble, spec, both)
    kt.ok("renew", timeout=60)
    leaf = load(kt.read("a-tls", "tls.crt"))[0]
    alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in alternatives] == ["127.0.0.1"]
    assert not leaf.subject.rdns
    alternatives = load(kt.read("b-tls", "tls.crt"))[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(n.value) for n in alternatives} == {"127.0.0.1", "b.example"}


# --- accounts


def test_account_from_registration_to_its_end(kt, pebble):
    prepare(kt, pebble, certificate("a", "pebble"))
    shown = kt.json("account", "show", "pebble")
    assert shown["accountURL"] is None and pebble.accounts() == 0, "to look makes none"
    assert shown["directory"]["profiles"] == {"default": "the only one"}
    assert shown["directory"]["renewalInfo"].startswith("https://") and shown["directory"]["termsOfService"]
    made = kt.json("account", "register", "Issuer/pebble")
    assert pebble.accounts() == 1
    assert made["account"]["status"] == "valid" and made["account"]["contact"] == ["mailto:ops@example.org"]
    assert kt.json("account", "register", "pebble")["accountURL"] == made["accountURL"]
    kt.ok("renew", timeout=60)
    assert pebble.accounts() == 1, "orders use it"

    kt.ok("account", "update", "pebble", "--email", "new@example.org")
    shown = kt.json("account", "show", "default/pebble")
    assert shown["account"]["contact"] == ["mailto:new@example.org"]
    text = kt.ok("account", "show", "pebble").out
    assert "new@example.org" in text and "the only one" in text and "valid" in text
    kt.ok("account", "update", "pebble", status=2)

    kt.ok("account", "deactivate", "pebble")
    result = kt.run("renew", "--force", timeout=60)
    assert result.status == 1 and "keyturn account register" in result.err, result
    assert kt.run("account", "update", "pebble", "--email", "x@example.org").status == 1
    # Another account, with another key: one that was deactivated never comes back.
    again = kt.json("account", "register", "pebble")
    assert again["accountURL"] != made["accountURL"] and pebble.accounts() == 2
    kt.ok("renew", "a", timeout=60)
    assert len(pebble.issued()) == 2
    steps = [r["step"] for r in kt.json("audit")["records"]]
    for step in ("account.registered", "account.updated", "account.deactivated"):
        assert step in steps, steps
    kt.ok("audit", "--verify")


def test_unknown_issuers(kt, pebble):
    prepare(kt, pebble, {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "self"}, "spec": {"selfSigned": {}}})
    assert "nobody" in kt.ok("account", "show", "nobody", status=2).err
    assert "no acme issuer" in kt.ok("account", "show", "self", status=2).err



def test_rollover(kt, pebble, tmp_path):
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    before = kt.json("account", "show", "pebble")
    # A copy of the state from before has the old key.
    old = kt.root / "old-state"
    shutil.copytree(kt.state, old)
    kt.ok("account", "rollover", "pebble")
    after = kt.json("account", "show", "pebble")
    assert after["accountURL"] == before["accountURL"] and after["account"]["status"] == "valid"
    kt.ok("renew", "--force", timeout=60)
    assert pebble.accounts() == 1 and len(pebble.issued()) == 2
    result = kt.run("--state-dir", old, "account", "show", "pebble")
    assert result.status != 0, "the server refuses the old key"
    assert "JWS" in result.err or "signature" in result.err.lower() or "verification" in result.err.lower(), result
    assert [r for r in kt.audit(step="account.key-changed")]


def test_rollover_cut_off(kt, pebble):
    """kill -9 during the roll-over: the next command asks the server which key it knows, and that is the one in force."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    found = set()
    for turn in range(40):
        seen = pebble.log().count("/rollover-account-key")
        running = kt.background("account", "rollover", "pebble")
        end = time.monotonic() + (0.01 + turn % 10 * 0.004 if turn % 2 else 5)
        while running.alive() and time.monotonic() < end and pebble.log().count("/rollover-account-key") == seen:
            pass
        if running.alive():
            running.kill9()
        shown = kt.run("account", "show", "pebble", "-v", timeout=60)
        assert shown.status == 0 and "valid" in shown.out, shown
        found |= {word for word in ("does not know", "knows") if f"the CA {word} the new account key" in shown.err}
        assert "new account key" not in kt.ok("account", "show", "pebble", "-v").err, "it is settled"
        if turn >= 5 and len(found) == 2:
            break
    kt.ok("renew", "--force", timeout=60)
    assert pebble.accounts() == 1
    assert found, "no kill fell between the key and its answer"
    kt.ok("audit", "--verify")


def test_account_that_the_server_forgot(kt, pebble):
    """A CA that lost its accounts: registered anew by the next order, and remembered."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    first = kt.json("account", "show", "pebble")["accountURL"]
    pebble.kill()
    pebble.start()
    made = pebble.log().count("accounts in memory")
    result = kt.run("account", "show", "pebble")
    assert result.status != 0 and "accountDoesNotExist" in result.err, result
    assert pebble.log().count("accounts in memory") == made, "to look makes none"
    kt.ok("renew", "--force", timeout=60)
    assert pebble.log().count("accounts in memory") == made + 1
    assert kt.json("account", "show", "pebble")["account"]["status"] == "valid"
    kt.ok("renew", "--force", timeout=60)
    assert pebble.log().count("accounts in memory") == made + 1
    assert first


def test_account_that_the_server_deactivated(kt, pebble, tmp_path):
    """HOSTILE A22: what to do is said, and done."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    other = kt.root / "other-state"
    shutil.copytree(kt.state, other)
    kt.ok("--state-dir", other, "account", "deactivate", "pebble")
    result = kt.run("renew", "--force", timeout=60)
    assert result.status == 1, result
    assert "keyturn account register --new-key" in result.err, result
    kt.ok("account", "register", "--new-key", "pebble")
    kt.ok("renew", "a", timeout=60)
    assert pebble.accounts() == 2


# --- revocation


@pytest.mark.parametrize("how", [(), ("--by-key",)], ids=["account", "key"])
def test_revocation(kt, pebble, how):
    spec = certificate("a", "pebble")
    spec["spec"]["privateKey"]["rotationPolicy"] = "Never"
    prepare(kt, pebble, spec)
    kt.ok("renew", timeout=60)
    kt.ok("renew", "--force", timeout=60)
    old, key = serial(kt), public(kt)
    assert pebble.certificate_status(old)["Status"] == "Valid"
    result = kt.ok("revoke", "a", "--reason", "keyCompromise", *how, timeout=60)
    assert old in result.out
    status = pebble.certificate_status(old)
    assert status["Status"] == "Revoked" and status["Reason"] == 1
    assert serial(kt) != old and public(kt) != key, "a new one, with a new key whatever rotationPolicy says"
    assert pebble.certificate_status(serial(kt))["Status"] == "Valid"
    record, = kt.audit(step="revoked")
    assert "keyCompromise" in record["reason"]
    kt.ok("audit", "--verify")


def test_revocation_without_renewal(kt, pebble):
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    old = serial(kt)
    kt.ok("revoke", "a", "--reason", "nonsense", status=2)
    kt.ok("revoke", "a", "--reason", "superseded", "--no-renew")
    assert pebble.certificate_status(old) ["Reason"] == 4
    assert "It was revoked" in kt.ok("why", "a").out and kt.credential("a")["certificateRevoked"] is True
    kt.ok("renew", timeout=60)
    assert serial(kt) == old, "nothing takes its place by itself"
    kt.ok("revoke", "a", "--no-renew")  # again: done already
    kt.ok("renew", "--force", "a", timeout=60)
    assert serial(kt) != old
    assert len(pebble.issued()) == 2
    assert "revoked" not in kt.ok("why", "a").out


def test_revocation_by_a_running_agent(kt, pebble):
    prepare(kt, pebble, certificate("a", "pebble"))
    running = kt.start()
    until(lambda: (kt.volume("a-tls") / "tls.crt").exists(), 60, "issued")
    old = serial(kt)
    row = kt.json("revoke", "a", "--reason", "cessationOfOperation", timeout=60)
    assert row["revoked"]["serial"] == old
    assert pebble.certificate_status(old)["Reason"] == 5
    assert serial(kt) != old
    shown = kt.json("account", "show", "pebble")
    assert shown["account"]["status"] == "valid"
    kt.ok("account", "rollover", "pebble")
    kt.ok("renew", "--force", timeout=60)
    assert len(pebble.issued()) == 3 and pebble.accounts() == 1
    assert running.stop() == 0


def test_a_ca_issuer_revokes_nothing(kt):
    kt.manifest("set", {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "self"}, "spec": {"selfSigned": {}}},
                certificate("a", "self"))
    kt.ok("renew")
    result = kt.ok("revoke", "a", status=1)
    assert "unsupported" in result.err


# --- renewal information


def moment(**delta):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def window(start, end, **more):
    return {"suggestedWindow": {"start": moment(**start), "end": moment(**end)}, **more}


def leaf_pem(kt, name="a-tls"):
    end = b"-----END CERTIFICATE-----\n"
    return (kt.read(name, "tls.crt").split(end)[0] + end).decode()


def plan_of(kt, name="a"):
    row, = [r for r in kt.json("plan")["plan"] if r["name"] == name]
    return row


def test_renewal_information_renews_early(kt, pebble):
    """A window in the past: renewed by the next look, as the successor of the one before."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    old = serial(kt)
    kt.ok("renew", "a", timeout=60)
    assert serial(kt) == old
    seen = plan_of(kt)["renewalInfo"]
    assert seen["followed"] and seen["start"] and seen["nextCheck"] >= moment(hours=1)[:16], "Pebble says six hours"
    # The next look is hours away; a new certificate is looked at when it is named.
    kt.ok("renew", "--force", timeout=60)
    old = serial(kt)
    pebble.suggest(leaf_pem(kt), window({"hours": -2}, {"hours": -1}, explanationURL="https://ca.example/incident?a=1"))
    count = len(pebble.replacements())
    kt.ok("renew", "a", timeout=60)
    assert serial(kt) != old
    assert len(pebble.replacements()) == count + 1, "the order said what it replaces"
    until(lambda: "has been marked as replaced" in pebble.log(), 15, "Pebble took it as that")
    assert any("https://ca.example/incident?a=1" in r["reason"] for r in kt.audit(step="renewal-info"))
    assert [r for r in kt.audit(step="due") if r.get("reason") == "renewal-info"]
    # The same said of the new one is not followed into a loop.
    pebble.suggest(leaf_pem(kt), window({"hours": -2}, {"hours": -1}))
    new = serial(kt)
    kt.ok("renew", "a", timeout=60)
    assert serial(kt) == new
    assert plan_of(kt)["renewalInfo"]["followed"] is True
    assert plan_of(kt)["renewAt"] < moment(days=1, minutes=5)
    kt.ok("audit", "--verify")


def test_renewal_window_ahead(kt, pebble):
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    said = window({"days": 10}, {"days": 11}, explanationURL="https://ca.example/why\u001b[31m")
    pebble.suggest(leaf_pem(kt), said)
    kt.ok("renew", "a", timeout=60)
    row = plan_of(kt)
    assert said["suggestedWindow"]["start"] <= row["renewAt"] <= said["suggestedWindow"]["end"]
    assert plan_of(kt)["renewAt"] == row["renewAt"], "the same moment whenever it is asked"
    text = kt.ok("why", "a").out
    assert "suggests renewal between" in text and "\x1b" not in text


HOSTILE = {
    "end before start": lambda: window({"days": 11}, {"days": 10}),
    "a hundred years": lambda: window({"days": -1}, {"days": 36500}),
    "javascript": lambda: window({"days": 36000}, {"days": 36001}, explanationURL="javascript:alert(1)"),
    "no JSON": lambda: "<html>it works</html>",
    "nothing in it": lambda: {"suggestedWindow": {}},
    "another type": lambda: {"suggestedWindow": {"start": 5, "end": [1]}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_renewal_information(kt, pebble, what):
    """HOSTILE A24: the life counts, the question comes again after an hour at the soonest, nothing strange is shown."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    old = serial(kt)
    usual = plan_of(kt)["renewAt"]
    pebble.suggest(leaf_pem(kt), HOSTILE[what]())
    kt.ok("renew", "a", timeout=60)
    row = plan_of(kt)
    assert serial(kt) == old
    assert row["renewAt"] == usual and not row["renewalInfo"]["followed"]
    assert row["renewalInfo"]["nextCheck"] >= moment(minutes=59)
    assert "javascript" not in str(row) and "javascript" not in kt.ok("why", "a").out
    asked = pebble.log().count("renewalInfo")
    assert asked > 0
    kt.ok("renew", "a", timeout=60)
    assert pebble.log().count("renewalInfo") == asked


def test_renew_by_name_asks_an_agent_at_once(kt, pebble):
    """Where the CA was not asked yet, the command has it asked now and does not sit out its patience."""
    prepare(kt, pebble, certificate("a", "pebble"))
    agent = kt.start()
    kt.ok("renew", "a", timeout=60)
    result = kt.ok("renew", "a", timeout=60)
    assert result.seconds < 10, result
    assert plan_of(kt)["renewalInfo"]["nextCheck"]
    assert agent.stop() == 0


def test_a_named_certificate_is_the_only_one_that_is_ordered(kt, pebble):
    """Without an agent: an order of another one would be cut off by the end of the command."""
    prepare(kt, pebble, certificate("a", "pebble"), certificate("b", "pebble"), certificate("c", "pebble"))
    kt.ok("renew", "a", timeout=60)
    assert pebble.orders() == 1
    assert kt.credential("b")["step"] == "new"
    kt.ok("revoke", "a", timeout=60)
    assert pebble.orders() == 2
    kt.ok("renew", timeout=60)
    assert pebble.orders() == 4


def test_renewal_information_of_a_revoked_certificate(kt, pebble):
    """Somebody else revoked it: the CA's window says so, and it is renewed."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    other = kt.root / "other-state"
    shutil.copytree(kt.state, other)
    old = serial(kt)
    kt.ok("--state-dir", other, "revoke", "a", "--no-renew")
    assert pebble.certificate_status(old)["Status"] == "Revoked"
    kt.ok("renew", "a", timeout=60)
    assert serial(kt) != old


def test_replaced_already(kt, pebble):
    """A state from a backup names a certificate that has a successor: ordered without, and that is in the audit trail."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    backup = kt.root / "backup"
    shutil.copytree(kt.state, backup)
    kt.ok("renew", "--force", timeout=60)
    until(lambda: "has been marked as replaced" in pebble.log(), 15, "replaced")
    kt.ok("--state-dir", backup, "renew", "--force", timeout=60)
    records = kt.json("--state-dir", backup, "audit")["records"]
    assert [r for r in records if r["outcome"] == "refused" and "successor" in r.get("reason", "")], records
    assert len(pebble.issued()) == 3


def test_renewal_information_switched_off(kt, pebble):
    issuer = pebble.issuer()
    issuer["metadata"].setdefault("annotations", {})["keyturn.dev/renewal-info"] = "Disabled"
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{pebble.http_port}"})
    kt.manifest("set", issuer, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    kt.ok("renew", "a", timeout=60)
    kt.ok("renew", "--force", timeout=60)
    assert not pebble.replacements() and "renewalInfo" not in plan_of(kt)


def test_a_failure_by_a_clock_that_was_ahead_is_not_waited_out(kt, pebble):
    """Five years ahead no server's certificate is valid; when the clock is right again the next command goes on."""
    prepare(kt, pebble, certificate("a", "pebble"))
    program("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    result = kt.run("renew", env={"LD_PRELOAD": str(library), "FAKETIME": "+5y", "KEYTURN_TEST_ENV": "1"}, timeout=60)
    assert result.status == 75 and "has expired" in result.err, result
    kt.ok("renew", timeout=60)
    assert len(pebble.issued()) == 1


def test_an_agent_asks_by_itself(kt, pebble):
    """Nobody names the certificate: the agent's own timer has come (eleven minutes after the issuance, by a clock that is ahead)."""
    prepare(kt, pebble, certificate("a", "pebble"))
    kt.ok("renew", timeout=60)
    old = serial(kt)
    pebble.suggest(leaf_pem(kt), window({"hours": -2}, {"hours": -1}))
    program("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    running = kt.start(env={"LD_PRELOAD": str(library), "FAKETIME": "+11m", "KEYTURN_TEST_ENV": "1"})
    until(lambda: len(pebble.issued()) == 2, 30, "renewed without being told")
    until(lambda: serial(kt) != old, 30, "delivered")
    assert pebble.replacements()
    assert running.stop() == 0
