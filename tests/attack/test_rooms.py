"""Rooms that were taken over: what a courier or desk of somebody else's making can do to the keeper, and what it can't."""

import os
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lib.agent import BUILD, Keyturn
from lib.manifests import certificate, consumer, projected, token
from lib.wait import free_port, until
from puppet import dress_up

CANARY = "cAnArY-rOoM-0815"
SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"}, "spec": {"selfSigned": {}}}
ACME = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "acme"}, "spec": {"acme": {
    "server": "https://acme.example/directory", "privateKeySecretRef": {"name": "acme-key"}, "solvers": [{"http01": {"ingress": {}}}]}}}
OAUTH = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "oauth"}, "spec": {"oauth2": {
    "tokenURL": "https://oauth.example/token",
    "auth": {"method": "client_secret_post", "clientID": "client", "clientSecretRef": {"name": "client"}}}}}
BIG = (1 << 63) - 1


def victim(room, orders):
    kt = Keyturn()
    kt.env["KEYTURN_LIBEXECDIR"] = str(dress_up(kt.root / "rooms", BUILD, room, orders))
    return kt


def web(kt, *more, prove=None, notify=None):
    kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                consumer("edge", secrets=["web-tls"], within="3s", onFailure="Keep",
                         **({"notify": notify} if notify else {}), **({"prove": prove} if prove else {})), *more)


TLS = [{"secret": "web-tls", "tls": {"address": "127.0.0.1:4"}}]
HTTP = [{"secret": "web-tls", "observed": {"http": {"url": "https://app.example/status", "jsonPath": ".sha256"}}}]
NOTIFY = [{"http": {"url": "https://app.example/reload"}}]

ANSWERS = ["DONE", "MINTED", "PROBED_TLS", "HTTP_DONE"]


@pytest.mark.parametrize("prove, answer", [(p, a) for p in ("tls", "http") for a in ANSWERS])
def test_proof_by_a_wrong_answer(prove, answer):
    """Only an answer to the question that was asked proves anything."""
    orders = f"""
def on_probe_tls(wire, ident, values):
    wire.send(frame({answer!r}, flags=REPLY, ident=ident))
on_http = on_probe_tls
"""
    with victim("keyturn-courier", orders) as kt:
        web(kt, prove=TLS if prove == "tls" else HTTP)
        result = kt.run("renew", timeout=40)
        assert not kt.audit(step="proved", outcome="ok"), result
        assert result.status != 0, result
        assert (kt.volume("web-tls") / "tls.crt").exists(), result
        assert "keyturn-keeper" not in result.err, result  # nobody died


def minting(kt, **spec):
    kt.manifest("set", OAUTH, token("api", "oauth", audiences=["https://api.example"], outputs=["raw", "header", "json"], **spec))
    kt.secret("client", client_secret=CANARY)


@pytest.mark.parametrize("values", [
    {"token": "good\r\nX-Admin: yes"}, {"token": "a\x00b"}, {"token": "a b"}, {"token": "t\x1b[31m"}, {"token": "\u00e4"}, {"token": ""},
    {"token": "good", "token_type": "Bearer\nX-Admin: yes"}, {"token": "good", "scope": "read\nwrite"}], ids=repr)
def test_token_that_no_header_can_carry(values):
    """The courier refuses these; the keeper doesn't take its word for it."""
    orders = f"""
def on_mint(wire, ident, values):
    wire.send(frame("MINTED", {{"expires_in": 60, **{values!r}}}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        result = kt.run("renew", timeout=20)
        assert result.status == 75, result
        assert not kt.volume("api-token").exists() or not os.listdir(kt.volume("api-token")), result
        assert re.search("header can carry|no access_token", kt.credential("api")["lastError"])


@pytest.mark.parametrize("values", [{"expires_in": BIG, "date_skew": BIG}, {"expires_in": -BIG, "date_skew": -BIG}, {"expires_in": 0}])
def test_token_with_numbers_beyond_reckoning(values):
    orders = f"""
def on_mint(wire, ident, values):
    wire.send(frame("MINTED", {{"token": "good", **{values!r}}}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        kt.run("renew", timeout=20)
        row = kt.credential("api")
        assert row["rotations"] == 1 and row["notAfter"] is None or row["notAfter"] > "2026", row


@pytest.mark.parametrize("values", [{"serial": b"\xff" * 128, "sha256": b"\xff" * 64, "not_after": -BIG}, {"serial": "\x1b[31m\n", "not_after": BIG}],
                         ids=["no UTF-8", "escapes"])
def test_what_was_seen_is_shown_as_text(values):
    """Bytes that are no text: they must neither reach a terminal nor make the failed proof vanish from status."""
    orders = f"""
def on_probe_tls(wire, ident, values):
    wire.send(frame("PROBED_TLS", {values!r}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        web(kt, prove=TLS)
        result = kt.run("renew", timeout=20)
        assert result.status == 5, result
        seen = kt.credential("web")["consumers"][0]
        assert "\\x" in seen["seen"] and seen["seen"].isprintable(), seen
        why = kt.ok("why", "web").out
        assert "expected" in why and all(c.isprintable() or c == "\n" for c in why), why


@pytest.mark.parametrize("what, after", [(b"\xff\xfe", BIG), (b"\x1b]0;x\x07\nline two\x00", -BIG - 1), (b"x" * 1000, 0)],
                         ids=["no UTF-8", "escapes", "long"])
def test_error_of_any_kind(what, after):
    """An error's text is shown as it may be; its numbers keep nobody waiting for longer than a day."""
    orders = f"""
def on_mint(wire, ident, values):
    wire.send(failure(ident, 10, {what!r}, {after}, "\\xff\\n oops"))
    wire.send(failure(ident, 10, "twice"))
    wire.send(frame("MINTED", {{"token": "late"}}, flags=REPLY, ident=ident))
    wire.send(frame("MINTED", {{"token": "nobody"}}, flags=REPLY, ident=ident + 7))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        result = kt.run("renew", timeout=20)
        assert result.status == 75, result
        assert all(c.isprintable() or c == "\n" for c in result.err), result
        row = kt.credential("api")
        assert row["lastError"] and row["lastError"].isprintable() and row["nextTry"], row
        assert kt.run("audit", "--verify").status == 0
        left = datetime.fromisoformat(row["nextTry"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
        assert left.total_seconds() < 90000, row


BREAKS = {"half a frame": 'wire.send(b"x")', "an unknown type": 'wire.send(struct.pack("<IIII", 9999, 0, 1, 0))',
          "unknown flags": 'wire.send(frame("DONE", flags=255))', "a request of others": 'wire.send(frame("HOOK", {}, ident=1))',
          "an error that is none": 'wire.send(failure(1, 0, "x"))', "a length beyond": 'wire.send(frame("CLIENT_SECRET", raw=b"\\xff" * 100, ident=2))',
          "an end of its wire": "wire.socket.shutdown(socket.SHUT_RDWR)"}


@pytest.mark.parametrize("how", BREAKS)
def test_room_that_breaks_the_rules(how):
    """It is ended and a fresh one does the work: nobody waits for a room that nobody hears any more."""
    orders = f"""
mark = Path("MARK")

def on_mint(wire, ident, values):
    if not mark.exists():
        mark.touch()
        {BREAKS[how]}
    else:
        wire.send(frame("MINTED", {{"token": "good", "token_type": "Bearer", "expires_in": 3600}}, flags=REPLY, ident=ident))
"""
    kt = Keyturn()
    kt.env["KEYTURN_LIBEXECDIR"] = str(dress_up(kt.root / "rooms", BUILD, "keyturn-courier",
                                                orders.replace("MARK", str(kt.root / "mark"))))
    with kt:
        minting(kt)
        agent = kt.start()
        until(lambda: (kt.volume("api-token") / "token").exists(), 20, f"the token is there:\n{agent.err()}")
        assert "keyturn-courier" in agent.err(), agent.err()
        assert "keyturn-keeper ended" not in agent.err(), agent.err()
        agent.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_rooms_with_users_of_their_own():
    """Three uids; of root's rights only the keeper has any, and those are enough to give a consumer its files."""
    with Keyturn() as kt:
        kt.agent_settings(users={"keeper": "12001", "courier": "12002", "desk": "12003"}, listeners={"metrics": f"127.0.0.1:{free_port()}"})
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]), consumer(
            "edge", secrets=["web-tls"], prove=TLS, within="1s", onFailure="Keep",
            volumes=[projected(kt.root / "edge", ("web-tls", None), owner="12345", group="12346", allowPersistent=True)]))
        agent = kt.start()
        key = kt.root / "edge" / "tls.key"
        until(key.exists, 15, f"the consumer has its volume:\n{agent.err()}")
        assert (key.stat().st_uid, key.stat().st_gid, key.stat().st_mode & 0o777) == (12345, 12346, 0o600)
        until(lambda: len(agent.rooms()) == 3 and all("NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                                                      for pid in agent.rooms()), 10, "all rooms are up and closed")
        seen = {}
        for pid, name in agent.rooms().items():
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
            assert len(set(status["Uid"].split())) == 1 and status["Groups"].strip() == "" and status["NoNewPrivs"].strip() == "1", status
            assert int(status["CapBnd"], 16) & ~0x1b == int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0, status
            seen[name] = (status["Uid"].split()[0], int(status["CapPrm"], 16), int(status["CapEff"], 16))
        caps = 1 << 0 | 1 << 1 | 1 << 3  # chown, dac_override, fowner
        assert seen == {"keyturn-keeper": ("12001", caps, caps), "keyturn-courier": ("12002", 0, 0), "keyturn-desk": ("12003", 0, 0)}
        agent.stop()


def test_requests_without_end():
    """Asked for signatures again and again by one that reads none of them: bounded memory, and commands are answered."""
    orders = """
def on_acme(wire, ident, values):
    ask = frame("ACME_SIGN", {"job": values["job"], "url": "https://acme.example/x", "nonce": "n", "payload": "x" * 60000}, ident=1)
    while True:
        wire.send(ask)
"""
    def peak(pid):
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))[1])

    with victim("keyturn-courier", orders) as kt:
        kt.manifest("set", ACME)
        agent = kt.start()
        kt.ok("status")
        keeper = next(pid for pid, name in agent.rooms().items() if name == "keyturn-keeper")
        before = peak(keeper)
        kt.manifest("more", certificate("web", "acme", ["a.example"]))
        kt.ok("reload")
        until(lambda: "courier is gone" in agent.err(), 20, f"the courier is cut off:\n{agent.err()}")
        assert kt.run("status", timeout=10).status in (0, 1, 5, 75)
        assert peak(keeper) - before < 32 * 1024, f"the keeper took {peak(keeper) - before} KiB more"
        agent.stop()


def test_saves_and_challenges_without_end():
    """A courier that has ever more orders saved and ever more challenges answered gets as many as an order could have."""
    orders = """
order, taken = None, {"save": 0, "challenge": 0}

def on_acme(wire, ident, values):
    global order
    order = ident
    for n in range(1, 101):
        wire.send(frame("ACME_SAVE", {"job": values["job"], "what": "order", "value": f"https://acme.example/order/{n}"}, ident=n))
    for n in range(101, 201):
        offer = '[{"type":"http-01","token":"token-number-%04d"}]' % n
        wire.send(frame("CHALLENGE", {"job": values["job"], "present": 1, "name": "a.example", "offered": offer}, ident=n))

def replied(wire, ident, name, flags, content):
    if not flags & FAILED:
        taken["save" if ident <= 100 else "challenge"] += 1
    if ident == 200:
        wire.send(failure(order, 16, f"taken were {taken['save']} saves and {taken['challenge']} challenges"))
"""
    with victim("keyturn-courier", orders) as kt:
        webroot = kt.root / "webroot"
        webroot.mkdir()
        annotated = {**ACME, "metadata": {"name": "acme", "annotations": {"keyturn.dev/http01-webroot": str(webroot)}}}
        kt.manifest("set", annotated, certificate("web", "acme", ["a.example"]))
        assert kt.run("renew", timeout=30).status != 0
        assert "taken were 16 saves and 4 challenges" in kt.credential("web")["lastError"], kt.credential("web")
        assert not [p for p in webroot.rglob("*") if p.is_file()], "an answer was left behind"


def test_limit_that_is_none():
    """A failure that says of itself that it is none, but our own count of the CA's limits: it is believed to nobody else."""
    orders = """
def on_acme(wire, ident, values):
    wire.send(failure(ident, 16, "held back by nobody", 0, "budget"))
"""
    with victim("keyturn-courier", orders) as kt:
        kt.manifest("set", ACME, certificate("web", "acme", ["a.example"]))
        assert kt.run("renew", timeout=30).status != 0
        row = kt.credential("web")
        assert row["attempts"] == 1 and "held back by nobody" in row["lastError"], row
        assert datetime.fromisoformat(row["nextTry"].replace("Z", "+00:00")) > datetime.now(timezone.utc), row


def test_no_token_for_those_who_share_a_request():
    """Two Tokens that ask for the same share one request: an answer without a token is one for neither."""
    orders = """
def on_mint(wire, ident, values):
    wire.send(frame("MINTED", {"token_type": "Bearer", "expires_in": 60}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        kt.manifest("more", token("bpi", "oauth", audiences=["https://api.example"], outputs=["raw"]))
        result = kt.run("renew", timeout=20)
        assert result.status == 75 and "keyturn-keeper" not in result.err, result
        for name in ("api", "bpi"):
            row = kt.credential(name)
            assert row.get("notAfter") is None and "no access_token" in (row["lastError"] or ""), row
            assert not kt.volume(f"{name}-token").exists() or not os.listdir(kt.volume(f"{name}-token")), result


def test_refresh_tokens_without_end():
    """One answer brings one refresh token: who says more of them may not push out the one that was used."""
    orders = """
mint = []
def on_mint(wire, ident, values):
    mint.append((ident, values["job"]))
    wire.send(frame("SAVE_REFRESH", {"job": values["job"], "token": "made-up-1"}, ident=21))
def replied(wire, ident, name, flags, content):
    if ident < 24:
        wire.send(frame("SAVE_REFRESH", {"job": mint[-1][1], "token": f"made-up-{ident}"}, ident=ident + 1))
    else:
        wire.send(failure(mint[-1][0], 8, "no answer"))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt, grant={"refreshToken": {"secretRef": {"name": "client", "key": "refresh-token"}}})
        kt.secret("client", refresh_token=CANARY)
        kt.run("renew", timeout=20)
        assert len(kt.audit(step="refresh-token.rotated")) == 1


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), Path("/nonexistent"))
REVOKING = {**OAUTH, "spec": {"oauth2": {**OAUTH["spec"]["oauth2"], "revokeSuperseded": True}}}


def later(kt, seconds, *args):
    env = {"KEYTURN_TEST_ENV": "1", "LD_PRELOAD": str(FAKETIME), "FAKETIME": f"+{seconds}"}
    return kt.run(*args, timeout=100, env=env)


@pytest.mark.skipif(not FAKETIME.exists(), reason="no faketime")
@pytest.mark.parametrize("same", [True, False])
def test_token_in_force_is_not_revoked(same):
    """Servers that give out the same token until it is about to end: the superseded one is the one in force."""
    orders = f"""
count = 0
def on_mint(wire, ident, values):
    global count
    count += 1
    token = "same" if {same} else f"other-{{os.getpid()}}-{{count}}"
    wire.send(frame("MINTED", {{"token": token, "token_type": "Bearer", "expires_in": 7200}}, flags=REPLY, ident=ident))
def on_token_op(wire, ident, values):
    wire.send(frame("TOKEN_OP_DONE", {{}}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        kt.manifest("set", REVOKING, token("api", "oauth", audiences=["https://api.example"], outputs=["raw"]))
        kt.ok("renew")
        kt.ok("renew", "api", "--force")
        result = later(kt, 120, "renew")
        assert kt.credential("api")["step"] == "retired", (result, kt.credential("api"))
        assert len(kt.audit(step="revoked")) == (0 if same else 1), result


@pytest.mark.skipif(not FAKETIME.exists(), reason="no faketime")
def test_revocation_that_is_never_answered():
    """Who shares a volume with the token does not wait for it, and the token's own next one not for more than one try."""
    orders = """
count = 0
def on_mint(wire, ident, values):
    global count
    count += 1
    wire.send(frame("MINTED", {"token": f"t-{os.getpid()}-{count}", "token_type": "Bearer", "expires_in": 7200}, flags=REPLY, ident=ident))
def on_token_op(wire, ident, values):
    open(ASKED, "w").close()
"""
    with victim("keyturn-courier", "") as kt:
        asked = kt.root / "asked"
        Path(kt.env["KEYTURN_LIBEXECDIR"], "keyturn-courier").unlink()
        kt.env["KEYTURN_LIBEXECDIR"] = str(dress_up(kt.root / "rooms-2", BUILD, "keyturn-courier", f"ASKED = {str(asked)!r}\n{orders}"))
        minting(kt)
        kt.manifest("set", REVOKING, token("api", "oauth", audiences=["https://api.example"], outputs=["raw"]), SELF,
                    certificate("web", "ss", ["a.example"]),
                    consumer("edge", volumes=[projected(kt.root / "both", ("web-tls", None), ("api-token", None))]))
        kt.ok("renew")
        kt.ok("renew", "api", "--force")
        running = kt.start(env={"KEYTURN_TEST_ENV": "1", "LD_PRELOAD": str(FAKETIME), "FAKETIME": "+120"})
        until(asked.exists, 20, "a revocation is asked for")
        kt.ok("renew", "web", "--force", timeout=10)
        before = kt.read("api-token", "token")
        kt.ok("renew", "api", "--force", timeout=30)
        assert kt.read("api-token", "token") != before
        running.kill9()


def test_server_that_asks_for_a_pause_gets_it():
    """A Token that is made of another one: that the other one changes does not end the pause that the server asked for."""
    orders = """
def on_mint(wire, ident, values):
    if b'"token_exchange"' in values["request"]:
        wire.send(failure(ident, 8, "busy", 3600))
    else:
        wire.send(frame("MINTED", {"token": f"t-{os.getpid()}", "token_type": "Bearer", "expires_in": 7200}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        kt.manifest("more", token("late", "oauth", audiences=["https://api.example"],
                                  grant={"tokenExchange": {"subject": {"tokenRef": "api-token"}}}))
        kt.run("renew", timeout=30)
        before = kt.credential("late")
        assert before["attempts"] >= 1 and "busy" in before["lastError"], before
        kt.run("renew", "api", "--force", timeout=30)
        after = kt.credential("late")
        assert (after["nextTry"], after["attempts"]) == (before["nextTry"], before["attempts"]), (before, after)


def test_life_of_a_token_that_came_late():
    """expires_in counts from when it was asked for, not from when a slow answer came; also for who shared the request."""
    orders = """
import time
def on_mint(wire, ident, values):
    time.sleep(6)
    wire.send(frame("MINTED", {"token": "opaque", "token_type": "Bearer", "expires_in": 60}, flags=REPLY, ident=ident))
"""
    with victim("keyturn-courier", orders) as kt:
        minting(kt)
        kt.manifest("more", token("bpi", "oauth", audiences=["https://api.example"], outputs=["raw"]))
        before = datetime.now(timezone.utc)
        kt.ok("renew", timeout=30)
        for name in ("api", "bpi"):
            ends = datetime.fromisoformat(kt.credential(name)["notAfter"].replace("Z", "+00:00"))
            assert 55 < (ends - before).total_seconds() < 64, (before, ends)
