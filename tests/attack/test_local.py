"""Local rows: what lies in the way of a volume, pid files, hooks, the state's files, a second agent, and the clock."""

import ast
import datetime
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hostile import Answer, Server
from lib.agent import Keyturn
from lib.certs import Authority, load
from lib.manifests import certificate, consumer, token
from lib.wait import descendants, until
from test_transport import TABLE as TRANSPORT
from victim import Victim

SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"}, "spec": {"selfSigned": {}}}
LOCAL = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "minter"},
         "spec": {"local": {"issuerURL": "https://minter.example"}}}
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
ROOT = os.geteuid() == 0


class Case:
    """A slow one, for the pool."""

    def __init__(self, row, name, act):
        self.row, self.name, self.run = row, name, act


class Local(Victim):
    """A self-signed certificate, delivered."""

    def __init__(self, *more, **spec):
        super().__init__()
        self.web(*more, **spec)
        self.publish()

    def web(self, *more, **spec):
        self.manifest("set", SELF, certificate("web", "ss", ["a.example"], **spec), *more)

    @property
    def folder(self):
        return self.volume("web-tls")


def as_root():
    return {"user": "root"} if ROOT else {}


def script(kt, name, text):
    path = kt.root / name
    path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return path


# --- L1, L2, L4: what lies in the way


def symlinked(kt):
    outside = kt.root / "outside"
    outside.mkdir()
    kept = kt.root / "kept"
    kt.folder.rename(kept)
    kt.folder.symlink_to(outside)
    return lambda: (not list(outside.iterdir()), "something was written behind the link")


def dangling(kt):
    kt.folder.rename(kt.root / "kept")
    kt.folder.symlink_to(kt.root / "nowhere")
    return lambda: (not (kt.root / "nowhere").exists(), "the link's target was made")


def link_to_etc(kt):
    link = kt.folder / "..data"
    link.unlink()
    outside = kt.root / "outside"
    outside.mkdir()
    link.symlink_to(outside)
    return lambda: (not list(outside.iterdir()), "something was written behind ..data")


def instead_of_volume(make):
    def act(kt):
        kt.folder.rename(kt.root / "kept")
        make(kt.folder)
        return None
    return act


def instead_of_data(make):
    def act(kt):
        (kt.folder / "..data").unlink()
        make(kt.folder / "..data")
        return None
    return act


def instead_of_file(make):
    def act(kt):
        (kt.folder / "tls.crt").unlink()
        make(kt.folder / "tls.crt")
        return None
    return act


def hardlink(kt):
    """A stable link replaced by a hard link to a precious file: it may not be written through."""
    precious = kt.root / "precious"
    precious.write_text("precious")
    (kt.folder / "tls.crt").unlink()
    os.link(precious, kt.folder / "tls.crt")
    return lambda: (precious.read_text() == "precious", "the linked file was written")


def unix_socket(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.close()


def full_folder(path):
    path.mkdir()
    (path / "x").write_text("x")


def device(path):
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


WAYS = [
    ("L1", "volume is a symlink", symlinked, r"is a link"), ("L1", "volume is a dangling symlink", dangling, r"is a link"),
    ("L1", "..data leads out", link_to_etc, r"\.\.data|generation"),
    ("L2", "volume is a FIFO", instead_of_volume(os.mkfifo), r"folder must be"),
    ("L2", "volume is a file", instead_of_volume(lambda p: p.write_text("x")), r"folder must be"),
    ("L2", "volume is a socket", instead_of_volume(unix_socket), r"folder must be"),
    ("L2", "volume is a device", instead_of_volume(device), r"folder must be"),
    ("L2", "..data is a folder", instead_of_data(full_folder), r"\.\.data"),
    ("L2", "..data is a FIFO", instead_of_data(os.mkfifo), r"\.\.data"),
    ("L2", "file is a FIFO", instead_of_file(os.mkfifo), r"in the way"),
    ("L2", "file is a folder", instead_of_file(full_folder), r"in the way"),
    ("L2", "file is a hard link", hardlink, r"in the way"),
    ("L4", "volume is world-writable", lambda kt: kt.folder.chmod(0o777), r"writable by others"),
    ("L4", "volume is group-writable", lambda kt: kt.folder.chmod(0o775), r"writable by others|"),
    ("L4", "volume belongs to another", lambda kt: os.chown(kt.folder, 12345, 12345), r"belongs to uid 12345"),
    ("L4", "secretsDir is world-writable", lambda kt: kt.secrets.chmod(0o777), r"writable by others"),
]


class Way:
    def __init__(self, row, name, act, why):
        self.row, self.name, self.act, self.why = row, name, act, why


@pytest.mark.parametrize("case", [Way(*way) for way in WAYS])
def test_in_the_way(case):
    import re

    if not ROOT and ("device" in case.name or "belongs" in case.name):
        pytest.skip("needs root")
    with Local() as kt:
        key = (kt.folder / "tls.key").read_bytes()
        untouched = case.act(kt)
        result = kt.run("renew", "web", "--force")
        if untouched:
            good, what = untouched()
            assert good, what
        if result.status == 0:  # put right, not written through
            assert case.name in ("..data leads out", "volume is group-writable"), result
            assert (kt.folder / "..data").resolve().parent == kt.folder
        else:
            assert result.status in (1, 4), result
            assert re.search(case.why, result.err), result
            assert str(kt.secrets) in result.err and "web-tls" in result.err + str(kt.secrets / "web-tls"), result
        body = b"".join(line for line in key.splitlines() if b"---" not in line)
        assert body not in result.err.encode() + result.out.encode()


@pytest.mark.rows("L1")
def test_parent_of_a_consumer_volume_is_a_symlink():
    """A Consumer's own volume below a folder that somebody swaps for a link to elsewhere."""
    with Keyturn() as kt:
        real, elsewhere = kt.root / "real", kt.root / "elsewhere"
        real.mkdir()
        elsewhere.mkdir()
        volume = {"path": str(real / "edge"), "sources": [{"secret": {"name": "web-tls"}}]}
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]), consumer("edge", volumes=[volume]))
        kt.ok("renew")
        assert (real / "edge/tls.crt").exists()
        real.rename(kt.root / "moved")
        real.symlink_to(elsewhere)
        result = kt.run("renew", "web", "--force")
        assert not list(elsewhere.iterdir()), "the volume was made behind the link"
        assert result.status in (1, 4, 5), result
        assert str(real) in result.err, result


@pytest.mark.rows("L6")
def test_umask_000():
    with Keyturn(prefix=["sh", "-c", 'umask 000; exec "$@"', "sh"]) as kt:
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]))
        kt.ok("renew")
        folder = kt.volume("web-tls")
        for path in [folder, *(folder / "..data").resolve().iterdir(), *kt.state.iterdir(), kt.state]:
            mode = path.lstat().st_mode
            assert not mode & 0o022, f"{path} has mode {mode:o}"
        assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
        for path in kt.state.iterdir():
            assert not path.stat().st_mode & 0o077, path


# --- L7: pid files

BYSTANDER = [sys.executable, "-c", "import time; time.sleep(60)"]


def pid_file_with(text):
    """What an attacker writes there: nobody gets the signal who isn't a plain process named in a file of a trusted user."""
    with Keyturn() as kt:
        pid_file = kt.root / "pid"
        pid_file.write_text({"own": str(os.getpid()), "warden": "self"}.get(text, text))
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                    consumer("edge", secrets=["web-tls"], within="2s", onFailure="Keep",
                             notify=[{"signal": {"name": "CONT", "pidFile": str(pid_file)}}]))
        result = kt.run("renew", timeout=40)
        if text != "own":  # ours is a plain process: CONT does no harm
            assert result.status in (1, 4, 5, 75), result
            assert str(pid_file) in result.err or "pid" in result.err, result
        assert (kt.volume("web-tls") / "tls.crt").exists()


PIDS = ["0", "-1", "1", "own", "warden", "4194304999", "", "12x", "1 2", "\n\n", "99999999999999999999999"]


@pytest.mark.parametrize("case", [Case("L7", repr(text), lambda t=text: pid_file_with(t)) for text in PIDS])
def test_pid_file(case, outcome):
    outcome(case)


@pytest.mark.rows("L7")
@pytest.mark.skipif(not ROOT, reason="needs root")
@pytest.mark.parametrize("mode, owner", [(0o666, 0), (0o644, 12345)])
def test_pid_file_of_an_attacker(mode, owner):
    """CVE-2018-16888: a file that others write names a process of root."""
    bystander = subprocess.Popen(BYSTANDER)
    try:
        with Keyturn() as kt:
            pid_file = kt.root / "pid"
            pid_file.write_text(str(bystander.pid))
            pid_file.chmod(mode)
            os.chown(pid_file, owner, 0)
            kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                        consumer("edge", secrets=["web-tls"], within="2s", onFailure="Keep",
                                 notify=[{"signal": {"name": "TERM", "pidFile": str(pid_file)}}]))
            result = kt.run("renew", timeout=40)
            assert bystander.poll() is None, "a process of root was signalled"
            assert result.status != 0 and "pid" in result.err, result
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()


@pytest.mark.rows("L2")
@pytest.mark.parametrize("how", ["symlink", "hardlink"])
def test_access_log_that_leads_to_a_secret(how):
    """The log's folder is the consumer's: a link there must not make the agent show what only the agent can read."""
    with Keyturn() as kt:
        logs = kt.root / "logs"
        logs.mkdir()
        kt.manifest("set", LOCAL, token("api", "minter", audiences=["https://api.example"], outputs=["raw"]), SELF,
                    certificate("web", "ss", ["a.example"]))
        kt.ok("renew")
        secret = kt.read("api-token", "token").decode().strip()
        folder = kt.volume("api-token")
        victim = folder / os.readlink(folder / "..data") / "token"
        (os.symlink if how == "symlink" else os.link)(victim, logs / "access.log")
        kt.manifest("watch", consumer("edge", secrets=["web-tls"], within="2s", onFailure="Keep", prove=[
            {"secret": "web-tls", "observed": {"accessLog": {"path": str(logs / "access.log"), "field": "1"}}}]))
        result = kt.run("renew", "web", "--force", "-v", timeout=40)
        assert result.status not in (0, 2), result
        shown = [result.out, result.err, kt.run("status", "-o", "json").out, kt.run("audit", "-o", "json").out,
                 kt.run("why", "web").out]
        for text in shown:
            assert secret[:40] not in text, f"a token is shown: {text[-2000:]}"
        assert any("link" in text for text in shown), shown


# --- L8, L9: hooks


@pytest.mark.rows("L8")
def test_hook_with_a_shell_in_its_name():
    """A path and arguments full of shell: executed as they are, nothing expanded, descriptors closed, environment fixed."""
    with Keyturn() as kt:
        seen, bad = kt.root / "seen", kt.root / "bad"
        folder = kt.root / f"a b;touch {bad.name}$(touch {bad.name})`touch {bad.name}`"
        folder.mkdir(mode=0o755)
        hook = folder / "hook $(id) 'x'"
        hook.write_text(f"""#!{sys.executable} -I
import os, sys
open({str(seen)!r}, "w").write(repr((sys.argv[1:], sorted(os.readlink(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{n}}")), dict(os.environ),
    [l for l in open("/proc/self/status") if l.startswith(("SigBlk", "SigIgn", "CapAmb"))])))
""", encoding="utf-8")
        hook.chmod(0o755)
        argv = [str(hook), "$(touch bad)", "; touch bad", "a b", "*", "%s%n"]
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                    consumer("edge", secrets=["web-tls"], notify=[{"exec": {"argv": argv, **as_root()}}]))
        kt.ok("renew", env={"LEAK": "from-the-shell", "LD_PRELOAD": "", "BASH_ENV": "/nowhere", "IFS": "/"})
        args, fds, env, status = ast.literal_eval(seen.read_text())
        assert args == argv[1:]
        strange = [fd for fd in fds if not fd.startswith(("/dev/null", "pipe:", str(seen)))]
        assert not strange and len(fds) <= 4, f"descriptors are open: {fds}"
        assert not {"LEAK", "LD_PRELOAD", "BASH_ENV", "IFS"} & set(env), env
        mine = 1 << 12 | 1 << 24  # Python itself ignores SIGPIPE and SIGXFSZ
        assert all(int(line.split()[1], 16) & ~mine == 0 for line in status), status
        assert not list(kt.root.rglob("bad"))


@pytest.mark.rows("L8")
@pytest.mark.parametrize("argv, why", [(["relative/hook"], "absolute"), (["/nonexistent/hook"], "exist|No such"), (["/etc/passwd"], "execut"),
                                       (["/tmp"], "execut|folder|file")])
def test_hook_that_is_none(argv, why):
    import re

    with Keyturn() as kt:
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                    consumer("edge", secrets=["web-tls"], notify=[{"exec": {"argv": argv, **as_root()}}]))
        result = kt.run("renew")
        assert result.status == 2 and re.search(why, result.err) and "set.yaml:" in result.err, result


@pytest.mark.rows("L8")
def test_hook_that_others_may_write():
    with Keyturn() as kt:
        hook = script(kt, "hook", "exit 0\n")
        hook.chmod(0o777)
        kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                    consumer("edge", secrets=["web-tls"], notify=[{"exec": {"argv": [str(hook)], **as_root()}}]))
        result = kt.run("renew")
        assert result.status == 2 and "hook" in result.err, result


HOOKS = {
    "exits 255": ("exit 255\n", "255", 10),
    "kills itself": ("kill -9 $$\n", "signal|kill|9", 10),
    "hangs": ("sleep 300\n", "did not end", 25),
    "ignores TERM": ("trap '' TERM INT HUP\nwhile :; do sleep 300; done\n", "did not end", 25),
    "forks a daemon that holds the pipe": ("(trap '' HUP TERM; sleep 20) &\nexit 3\n", "3", 15),
    "outputs 1 GB": ("head -c 1000000000 /dev/zero\nexit 4\n", "4|did not end|output", 25),
    "prints escapes": ("printf '\\033[2J\\033]0;x\\007\\r\\n%%n'; exit 5\n", "5", 10),
    "prints the key": ("cat $KEYTURN_SECRET_DIR/tls.key; exit 6\n", "6", 10),
}


def misbehaving_hook(name):
    import re

    text, why, limit = HOOKS[name]
    with Local() as kt:
        before = kt.snapshot()
        hook = script(kt, "hook", text)
        kt.web(consumer("edge", secrets=["web-tls"], within="3s", onFailure="Keep",
                        notify=[{"exec": {"argv": [str(hook)], "timeout": "1s", **as_root()}}]))
        status, out, err, seconds, _ = kt.renew("web", "--force", timeout=60)
        assert status in (1, 5, 75), err
        assert seconds < limit, f"{seconds:.1f} s"
        assert re.search(why, err), err
        assert len(out) + len(err) < 64 * 1024, f"{len(out) + len(err)} bytes were said"
        assert "\x1b" not in out + err and "\r" not in out + err
        assert kt.snapshot() != before, "a failing notify does not undo a delivery (Keep)"
        assert kt.run("audit", "--verify").status == 0


@pytest.mark.parametrize("case", [Case("L9", name, lambda n=name: misbehaving_hook(n)) for name in HOOKS])
def test_hook_that_misbehaves(case, outcome):
    outcome(case)


# --- L10: a notify by HTTP that never answers

NOTIFY = [row for row in TRANSPORT if row.name in ("silent", "headers then silent", "endless body", "reset in the body", "HTTP/0.9", "407")]


class Notify:
    def __init__(self, row):
        self.row, self.name, self.act = "L10", row.name, row.act

    def run(self):
        with Server(lambda request: self.act, None, tls=False) as server, Local() as kt:
            kt.web(consumer("edge", secrets=["web-tls"], within="3s", onFailure="Keep",
                            notify=[{"http": {"url": f"{server.url}/hook", "timeout": "2s"}}]))
            status, out, err, seconds, peak = kt.renew("web", "--force", timeout=60)
            assert status in (1, 5, 75), f"{status} {out} {err}"
            assert seconds < 15, seconds
            assert peak < 48 * 1024, f"{peak} KiB"
            assert f"127.0.0.1:{server.port}" in err, err
            assert kt.run("audit", "--verify").status == 0


@pytest.mark.parametrize("case", [Notify(row) for row in NOTIFY])
def test_notify(case, outcome):
    outcome(case)


# --- L11: the state's files


def flip(offset):
    def act(kt):
        path = kt.state / "state.db"
        data = bytearray(path.read_bytes())
        if isinstance(offset, bytes):
            at = data.index(offset)
        else:
            at = offset if offset >= 0 else len(data) // 2
        for i in range(at, min(at + 64, len(data))):
            data[i] ^= 0xff
        path.write_bytes(data)
    return act


def older(kt):
    """A copy from before the last renewal is put back."""
    shutil.copytree(kt.state, kt.root / "copy")
    kt.ok("renew", "web", "--force")
    for path in (kt.root / "copy").iterdir():
        if path.name.startswith("state.db"):
            shutil.copy(path, kt.state / path.name)


def another_state(kt):
    with Local() as other:
        shutil.copy(other.state / "state.db", kt.state / "state.db")


def lone_wal(kt):
    (kt.state / "state.db-wal").write_bytes(os.urandom(4096 * 3))


def locked(kt):
    connection = sqlite3.connect(kt.state / "state.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    kt.connection = connection


STATES = {
    "empty": (lambda kt: (kt.state / "state.db").write_bytes(b""), "missing or empty|restore"),
    "gone": (lambda kt: (kt.state / "state.db").unlink(), "missing or empty|restore"),
    "truncated": (lambda kt: os.truncate(kt.state / "state.db", 20000), "cut|restore|damaged|corrupt"),
    "bits flipped in the header": (flip(0), "restore|damaged|corrupt|not a database"),
    "bits flipped in the schema": (flip(b"CREATE TABLE"), "restore|damaged|corrupt|malformed"),
    "bits flipped in the middle": (flip(-1), None),
    "rubbish": (lambda kt: (kt.state / "state.db").write_bytes(os.urandom(50000)), "restore|damaged|corrupt|not a database"),
    "older copy": (older, "older|behind|anchor|restore"),
    "another state": (another_state, "master key|anchor|restore|another"),
    "wrong master key": (lambda kt: (kt.state / "master-key").write_bytes(os.urandom(32)), "master key"),
    "no master key": (lambda kt: (kt.state / "master-key").unlink(), "master key|master-key"),
    "short master key": (lambda kt: (kt.state / "master-key").write_bytes(b"short"), "master key|master-key|bytes"),
    "master key readable by all": (lambda kt: (kt.state / "master-key").chmod(0o644), None),
    "locked by another process": (locked, "lock|busy|held"),
    "rubbish as WAL": (lone_wal, None),
    "a FIFO": (lambda kt: ((kt.state / "state.db").unlink(), os.mkfifo(kt.state / "state.db")), "state.db"),
    "a symlink": (lambda kt: ((kt.state / "state.db").rename(kt.root / "x.db"), (kt.state / "state.db").symlink_to(kt.root / "x.db")), None),
}


@pytest.mark.rows("L11")
@pytest.mark.parametrize("name", STATES)
def test_state(name):
    import re

    act, why = STATES[name]
    with Local() as kt:
        act(kt)
        before = kt.snapshot()
        result = kt.run("renew", "web", "--force", timeout=40)
        if why:
            assert result.status in (1, 2, 4, 75), result
            assert re.search(why, result.err), result
            assert kt.snapshot() == before, "a damaged state touched what is published"
        else:  # found out and refused, or not needed and taken: never a wreck
            assert result.status in (0, 1, 4, 75), result
            assert "Traceback" not in result.err and "signal" not in result.err, result
            if result.status == 0:
                assert kt.run("audit", "--verify").status in (0, 1)
        assert load((kt.folder / "tls.crt").read_bytes())
        if hasattr(kt, "connection"):
            kt.connection.close()


# --- L12: two agents


def two_agents():
    """The second waits for a while, in case the first is only a command, and then says who holds the state."""
    with Local() as kt:
        agent = kt.start()
        other = kt.run("run", "--socket", str(kt.root / "other.sock"), timeout=60)
        assert other.status == 75 and f"in use by keyturn with pid {agent.pid} on {kt.socket}" in other.err, other
        assert len(re.findall(f"waiting up to 30 s for keyturn with pid {agent.pid}", other.err)) == 1, other
        assert f"has been in use by keyturn with pid {agent.pid} for 30 s" in other.err and "ready" not in other.err, other
        assert agent.alive()
        kt.ok("renew", "web", "--force")
        agent.stop()


def second_waits():
    """The second starts as soon as the first has ended, and a signal ends its waiting."""
    with Local() as kt:
        agent = kt.start()
        second, third = (kt.background("run", "--socket", str(kt.root / f"{name}.sock")) for name in ("second", "third"))
        for waiting in (second, third):
            until(lambda: f"waiting up to 30 s for keyturn with pid {agent.pid}" in waiting.err(), 15, "it says whom it waits for")
        assert third.stop() == 75 and "ready" not in third.err()
        agent.stop()
        until(lambda: "ready; commands go to" in second.err(), 15, "the second agent is ready")
        kt.ok("renew", "web", "--force", "--socket", str(kt.root / "second.sock"))
        second.stop()


@pytest.mark.parametrize("case", [Case("L12", "two agents on one state", two_agents),
                                  Case("L12", "one agent after the other", second_waits)])
def test_two_agents(case, outcome):
    outcome(case)


@pytest.mark.rows("L12")
def test_five_commands_at_once():
    """One-shots on one state wait for each other or say that they can't; nothing is lost."""
    with Local() as kt:
        results = []
        threads = [threading.Thread(target=lambda: results.append(kt.run("renew", "web", "--force"))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(results) == 5 and all(r.status in (0, 75) for r in results), results
        assert any(r.status == 0 for r in results)
        kt.ok("audit", "--verify")


# --- L13: the clock


def at(offset):
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "KEYTURN_TEST_ENV": "1"}


@pytest.mark.rows("L13")
@pytest.mark.skipif(not FAKETIME.exists(), reason="no faketime")
@pytest.mark.parametrize("offset, renewed", [("+400d", True), ("-400d", None), ("+8h", False), ("@2038-01-19 03:14:05", True),
                                             ("@2027-03-28 01:59:58", True), ("@2106-02-07 06:28:14", True)])
def test_clock_jumps(offset, renewed):
    """What is due by the new time is renewed, and back at the right time what is not valid yet is replaced."""
    with Local() as kt:
        before = kt.snapshot()
        result = kt.run("renew", timeout=30, env=at(offset))
        assert result.status == 0, result
        if renewed is not None:
            assert (kt.snapshot() != before) == renewed, result
        result = kt.run("renew", timeout=30)
        assert result.status == 0, result
        leaf = load((kt.folder / "tls.crt").read_bytes())[0]
        now = datetime.datetime.utcnow()
        assert leaf.not_valid_before <= now < leaf.not_valid_after, f"{leaf.not_valid_before} to {leaf.not_valid_after}"
        kt.ok("audit", "--verify")


@pytest.mark.skipif(not FAKETIME.exists(), reason="no faketime")
def test_refusals_are_not_kept_for_ever():
    """Each refusal of a token is in the ledger for as long as it counts: an agent with nothing but tokens prunes it as well."""
    with Keyturn() as kt:
        kt.manifest("set", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "minter"},
                            "spec": {"local": {"issuerURL": "https://minter.example", "publishAhead": "0s"}}},
                    token("api", "minter", audiences=["a"]))
        for day in (0, 10, 20):
            for words in (("renew",), ("token", "api", "--invalidate")):
                result = kt.run(*words, env=at(f"+{day}d"))
                assert result.status == 0, result
        with sqlite3.connect(kt.state / "state.db") as db:
            assert db.execute("SELECT count(*) FROM ledger WHERE what='refused'").fetchone()[0] == 1
