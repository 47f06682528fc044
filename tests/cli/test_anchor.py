"""spec.audit.anchor: the head of the audit chain outside the store, and what it finds."""

import os
import re
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from lib.manifests import certificate
from lib.wait import until

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"
LINE = re.compile(r"audit anchor seq=(\d+) hash=([0-9a-f]{64}) time=(\S+Z) state=(.+)")


def heads(text):
    return [(int(seq), digest) for seq, digest, _, _ in LINE.findall(text)]


def newest(kt):
    record = kt.json("audit", "-n", "1")["records"][0]
    return record["seq"], record["hash"]


@pytest.fixture
def anchored(kt):
    kt.anchor = kt.root / "anchor file"
    kt.agent_settings(audit={"anchor": "File", "file": str(kt.anchor)})
    kt.manifest("all", SELF, certificate("web", "self"))
    return kt


def test_a_command_leaves_its_head(anchored):
    kt = anchored
    for _ in range(3):
        kt.ok("renew", "web", "--force")
        assert heads(kt.anchor.read_text())[-1] == newest(kt), "the last record of the command"
    kt.ok("secret", "set", "x", "k=-", stdin="v")
    assert heads(kt.anchor.read_text())[-1] == newest(kt)
    assert kt.anchor.stat().st_mode & 0o022 == 0
    result = kt.ok("audit", "--verify", "--anchor", kt.anchor)
    assert f"agrees with the anchor up to record {newest(kt)[0]}" in result.out
    before = kt.anchor.read_text()
    for words in (("status",), ("plan",), ("audit",), ("rehearse",)):
        kt.ok(*words)
    assert kt.anchor.read_text() == before, "who only looks writes nothing"


def test_an_agent_at_its_pace(anchored):
    kt = anchored
    running = kt.start()
    kt.ok("renew")
    for _ in range(15):
        kt.ok("renew", "web", "--force")
    until(lambda: heads(kt.anchor.read_text())[-1] == newest(kt), 15, "the last head comes, a second later at most")
    seen = heads(kt.anchor.read_text())
    assert len(seen) < 10 and [s for s, _ in seen] == sorted(s for s, _ in seen), "a head a second, not one a commit"
    result = kt.json("audit", "--verify", "--anchor", kt.anchor)
    assert result["good"] and result["anchoredUpTo"] == newest(kt)[0] and result["anchors"] == len(seen)
    # Rotated away under it: the next line makes a new file.
    kt.anchor.rename(kt.root / "anchor.1")
    kt.ok("renew", "web", "--force")
    until(lambda: kt.anchor.exists() and heads(kt.anchor.read_text())[-1] == newest(kt), 15, "a new file")
    kt.ok("renew", "web", "--force")
    end = newest(kt)
    assert running.stop() == 0
    assert heads(kt.anchor.read_text())[-1][0] >= end[0], "the last head goes out at the end"


def chain(kt):
    return sqlite3.connect(kt.state / "state.db")


def test_what_it_finds(anchored):
    """A chain that is whole in itself, but is not the one that was: an older copy, and one written anew."""
    kt = anchored
    kt.ok("renew")
    shutil.copytree(kt.state, kt.root / "old")
    old = newest(kt)[0]
    kt.ok("renew", "web", "--force")
    kt.ok("audit", "--verify", "--anchor", kt.anchor)
    new = newest(kt)[0]
    shutil.rmtree(kt.state)
    shutil.copytree(kt.root / "old", kt.state)
    kt.ok("audit", "--verify")
    result = kt.run("audit", "--verify", "--anchor", kt.anchor)
    assert result.status == 1 and f"records {old + 1} to {new} were cut off" in result.err, result
    # The copy goes on: the numbers are there again, the records are others. Its heads are not in our anchor.
    keep = kt.root / "keep"
    shutil.copy(kt.anchor, keep)
    for _ in range(2):
        kt.ok("renew", "web", "--force")
    kt.ok("audit", "--verify")
    result = kt.run("audit", "--verify", "--anchor", keep)
    assert result.status == 1 and "is not the one that was anchored" in result.err, result
    value = kt.run("audit", "--verify", "--anchor", keep, "-o", "json").json()
    assert not value["good"] and old < value["badSeq"] <= new and value["anchoredUpTo"] == old


def test_lines_of_a_log(anchored):
    """A system log holds other things, other states, and lines that were cut."""
    kt = anchored
    kt.ok("renew")
    seq, digest = newest(kt)
    log = kt.root / "messages"
    good = f"Nov 23 13:00:00 host keyturn[7]: audit anchor seq={seq} hash={digest} time=2026-11-23T13:00:00.000Z state={kt.state}\n"
    log.write_text("Nov 23 13:00:00 host cron[1]: hello\n" + good.replace(digest, "0" * 64).replace(str(kt.state), "/elsewhere") + good +
                   good[:60] + "\n" + good.replace("hash=", "hash=x") + "x" * 20000 + "\n" + good.rstrip()[:-20])
    result = kt.ok("audit", "--verify", "--anchor", log)
    assert "1 anchors of other states are left out" in result.err and "broken line" in result.err, result
    assert f"agrees with the anchor up to record {seq}" in result.out
    # Another place of the same state: the lines of the one state that the file is of.
    shutil.copytree(kt.state, kt.root / "copy")
    assert "agrees" in kt.ok("audit", "--verify", "--anchor", kt.anchor, "--state-dir", kt.root / "copy").out
    for path, word in [(kt.root / "nowhere", "nowhere"), (Path(os.devnull), "no line")]:
        result = kt.run("audit", "--verify", "--anchor", path)
        assert result.status == 2 and word in result.err, result
    assert kt.run("audit", "--anchor", kt.anchor).status == 2


def test_many_anchors(anchored):
    """Thinned, never without the newest."""
    kt = anchored
    kt.ok("renew")
    seq, digest = newest(kt)
    first = heads(kt.anchor.read_text())[0]
    with kt.anchor.open("a") as out:
        for _ in range(20000):
            out.write(f"audit anchor seq={first[0]} hash={first[1]} time=2026-11-23T13:00:00.000Z state={kt.state}\n")
        out.write(f"audit anchor seq={seq} hash={digest} time=2026-11-23T13:00:00.000Z state={kt.state}\n")
    value = kt.json("audit", "--verify", "--anchor", kt.anchor)
    assert value["good"] and value["anchoredUpTo"] == seq and 1000 < value["anchors"] <= 4096


@pytest.mark.parametrize("kind", ["folder", "link", "missing", "writable"])
def test_a_file_that_cannot_be(anchored, kind):
    kt = anchored
    if kind == "folder":
        kt.anchor.mkdir()
    elif kind == "link":
        (kt.root / "target").write_text("")
        kt.anchor.symlink_to(kt.root / "target")
    elif kind == "writable":
        kt.anchor.write_text("")
        kt.anchor.chmod(0o666)
    else:
        kt.agent_settings(audit={"anchor": "File", "file": str(kt.root / "no" / "anchor")})
    result = kt.run("renew")
    assert result.status != 0 and result.err.count("spec.audit.file") == 1 and "anchor" in result.err, result
    assert not kt.files(), "refused before anything was begun"


def test_a_file_that_goes_away_is_said_once(kt):
    kt.anchor = kt.root / "anchor"
    kt.agent_settings(audit={"anchor": "File", "file": str(kt.anchor)})
    kt.manifest("all", SELF, certificate("web", "self"))
    running = kt.start()
    kt.ok("renew")
    until(lambda: heads(kt.anchor.read_text())[-1] == newest(kt), 15, "anchored")
    kt.anchor.unlink()
    kt.anchor.mkdir()
    for _ in range(3):
        kt.ok("renew", "web", "--force")
        time.sleep(1.1)
    assert running.err().count("is not written down outside") == 1, running.err()
    kt.anchor.rmdir()
    kt.ok("renew", "web", "--force")
    until(lambda: "written down outside again" in running.err(), 15, "said when it works again")
    assert heads(kt.anchor.read_text())[-1][0] <= newest(kt)[0]


@pytest.mark.skipif(os.geteuid() != 0 or Path("/dev/log").exists(), reason="needs /dev/log for itself")
def test_syslog(kt):
    kt.agent_settings(audit={"anchor": "Syslog"})
    kt.manifest("all", SELF, certificate("web", "self"))
    kt.ok("renew")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("/dev/log")
        try:
            log.settimeout(5)
            kt.ok("renew", "web", "--force")
            lines = [log.recv(8192).decode()]
            while heads(lines[-1]) != [newest(kt)]:
                lines.append(log.recv(8192).decode())
            assert lines[-1].startswith("<86>keyturn["), lines
            path = kt.root / "log"
            path.write_text("\n".join(lines) + "\n")
            kt.ok("audit", "--verify", "--anchor", path)
        finally:
            os.unlink("/dev/log")
