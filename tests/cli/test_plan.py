"""plan, why and rehearse: what would be, with the manifests as they are on disk; nothing is touched by any of them."""

import pytest

from lib.manifests import certificate, consumer, token

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"
LOCAL = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "local"},
         "spec": {"local": {"issuerURL": "https://tokens.example"}}}


def rows(kt, *args):
    return {f"{r['kind']}/{r['name']}": r for r in kt.json("plan", *args)["plan"]}


def agent_or_not(kt, agent):
    return kt.start() if agent else None


def loaded(kt, agent):
    """Everything is issued and settled; with an agent or without one."""
    kt.ok("renew")
    return agent_or_not(kt, agent)


def test_rehearse_is_a_first_command(kt):
    """No state, no folder, no key: the schedule comes from the manifests alone, in the order of time."""
    kt.state.rmdir()
    kt.manifest("all", SELF, LOCAL, certificate("web", "self", duration="240h", renewBefore="80h"), certificate("two", "self"),
                token("api", issuer="local", audiences=["https://api.example"], maxLifetime="24h", duration="24h"))
    answer = kt.json("rehearse", "--days", "30")
    assert not kt.state.exists() and not kt.secrets.exists()
    times = [r["at"] for r in answer["issuances"]]
    assert times == sorted(times)
    count = {n: sum(r["name"] == n for r in answer["issuances"]) for n in ("web", "two", "api")}
    assert 4 <= count["web"] <= 6 and count["two"] == 1 and 30 <= count["api"] <= 90, count
    assert {r["reason"] for r in answer["issuances"] if r["name"] == "two"} == {"never-issued"}
    total = answer["summary"]
    assert total["credentials"] == 3 and total["expired"] == 0 and total["issuances"] == sum(count.values())
    assert total["perIssuer"] == {"Issuer/default/self": count["web"] + 1, "TokenIssuer/default/local": count["api"]}


def test_rehearse_with_a_state_of_an_empty_folder(kt):
    kt.manifest("all", SELF, certificate("web", "self"))
    assert "1 credential, 1 issuances in 30 days" in kt.ok("rehearse", "--days", "30").out
    assert not kt.files()


def test_rehearse_named_folder(kt):
    """-c names what is played."""
    folder = kt.root / "other"
    folder.mkdir(mode=0o755)
    (folder / "a.yaml").write_text(SELF + "---\n" + "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: elsewhere}\n"
                                   "spec: {secretName: e, dnsNames: [e.example], issuerRef: {name: self}}\n")
    (folder / "a.yaml").chmod(0o644)
    kt.manifest("all", SELF, certificate("web", "self"))
    assert {r["name"] for r in kt.json("rehearse", "-c", folder)["issuances"]} == {"elsewhere"}


@pytest.mark.parametrize("agent", [False, True], ids=["alone", "agent"])
def test_rehearse_goes_on_from_the_state(kt, agent):
    """What is there is not issued again; what is new on disk is, what is gone is not."""
    kt.manifest("all", SELF, certificate("web", "self"), certificate("old", "self"))
    loaded(kt, agent)
    kt.manifest("all", SELF, certificate("web", "self"), certificate("new", "self"))
    played = kt.json("rehearse", "--days", "70")["issuances"]
    assert sorted((r["name"], r["reason"]) for r in played) == [("new", "never-issued"), ("new", "renewal-point"), ("web", "renewal-point")]
    assert played[0]["name"] == "new"


@pytest.mark.parametrize("agent", [False, True], ids=["alone", "agent"])
def test_plan_of_changes(kt, agent):
    kt.manifest("all", SELF, certificate("same", "self"), certificate("names", "self"), certificate("outputs", "self"),
                certificate("gone", "self"), certificate("used", "self"), consumer("edge", secrets=["outputs-tls"]))
    loaded(kt, agent)
    assert all("manifest" not in row for row in rows(kt).values())
    before = kt.files()
    kt.manifest("all", SELF, certificate("same", "self"), certificate("names", "self", names=["other.example"], duration="100h"),
                certificate("outputs", "self", secretTemplate={"labels": {"a": "b"}}), certificate("new", "self"), certificate("used", "self"),
                consumer("door", secrets=["used-tls"]))
    plan = rows(kt)
    assert "manifest" not in plan["Certificate/same"] and plan["Certificate/same"]["action"] == "wait"
    names = plan["Certificate/names"]
    assert (names["manifest"], names["action"], names["reason"]) == ("changed", "reissue", "request-changed")
    assert "spec.dnsNames[0]" in names["changes"] and "spec.duration" in names["changes"]
    assert (plan["Certificate/outputs"]["manifest"], plan["Certificate/outputs"]["action"]) == ("changed", "redeliver")
    assert (plan["Certificate/gone"]["manifest"], plan["Certificate/gone"]["reason"]) == ("removed", "orphan")
    assert (plan["Certificate/new"]["manifest"], plan["Certificate/new"]["action"]) == ("new", "issue")
    assert (plan["Certificate/used"]["manifest"], plan["Certificate/used"]["changes"]) == ("affected", "Consumer/door")
    assert plan["Certificate/used"]["action"] == "redeliver"
    assert plan["Consumer/door"]["manifest"] == "new" and plan["Consumer/edge"]["manifest"] == "removed"
    table = kt.ok("plan").out
    assert "MANIFEST" in table and "changed: spec.dnsNames[0]" in table.replace("spec.duration, ", "")
    assert [f for f in kt.files() if "-wal" not in f and "-shm" not in f] == [f for f in before if "-wal" not in f and "-shm" not in f]
    assert {r["name"] for r in kt.json("status")["credentials"]} == {"same", "names", "outputs", "gone", "used"}, "nothing was loaded"


@pytest.mark.parametrize("agent", [False, True], ids=["alone", "agent"])
def test_why_of_changes(kt, agent):
    kt.manifest("all", SELF, certificate("web", "self"))
    loaded(kt, agent)
    assert "on disk" not in kt.ok("why", "web").out
    kt.manifest("all", SELF, certificate("web", "self", names=["other.example"]), certificate("new", "self"))
    told = kt.ok("why", "web").out
    assert "changed (spec.dnsNames[0])" in told and "request-changed" in told, told
    assert "is not loaded" in kt.ok("why", "default/new").out
    assert kt.run("why", "nobody").status == 2
    path = kt.manifest("all", SELF, "kind: Nonsense\n")
    result = kt.run("why", "web")
    assert result.status == 2 and result.err.count(str(path)) == 1, result
    assert ("Plan: wait" in result.out) == agent, result
    assert kt.run("plan").status == 2


def test_what_comes_true(kt):
    """The plan of a change is what loading it does."""
    kt.manifest("all", SELF, certificate("web", "self"), certificate("gone", "self"))
    kt.start()
    kt.ok("renew")
    before = kt.credential("web")["rotations"]
    kt.manifest("all", SELF, certificate("web", "self", names=["other.example"]), certificate("new", "self"))
    plan = rows(kt)
    assert [plan[f"Certificate/{n}"]["action"] for n in ("web", "gone", "new")] == ["reissue", "none", "issue"]
    kt.ok("reload")
    kt.ok("renew")
    assert all("manifest" not in row for row in rows(kt).values())
    assert kt.credential("web")["rotations"] == before + 1 and kt.credential("new")["rotations"] == 1


def test_no_manifest_that_is_not_sealed(kt):
    """The keeper maps only what nobody can shorten, and only one bundle a request."""
    import array
    import json
    import os
    import socket

    kt.manifest("all", SELF, certificate("web", "self"))
    kt.start()
    kt.ok("renew")
    for make in ("pipe", "memfd", "file", "rubbish"):
        if make == "pipe":
            fd, other = os.pipe()
            os.close(other)
        elif make == "file":
            fd = os.open(kt.manifests / "all.yaml", os.O_RDONLY)
        else:
            fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
            os.write(fd, b"KTB1\xff\xff\xff\xff\xff\xff\xff\xff")
            if make == "rubbish":
                import fcntl
                fcntl.fcntl(fd, 1033, 1 | 2 | 4 | 8)
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(kt.socket))
            wire.sendmsg([b'{"command": "plan"}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd, fd, fd]))])
            answer = b""
            while chunk := wire.recv(65536):
                answer += chunk
        os.close(fd)
        last = json.loads(answer.splitlines()[-1])
        assert last["status"] != 0 and last["error"]["what"], (make, last)
    assert rows(kt)["Certificate/web"]["action"] == "wait"
