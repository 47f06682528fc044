"""
Power cuts on a real ext4: state and volumes lie on a loop device, renewals run, and at a random moment the file system is
shut down without its journal being flushed. What was not fsynced by then is gone, in whatever order it was written.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from common import BUILD, House, Torn
from lib.manifests import certificate, token
from lib.wait import kill_tree
from scenarios import PKI, local

SECONDS = float(os.environ.get("KEYTURN_CRASH_POWER_SECONDS", "40"))
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
# ext4 writes a file out by itself when it is renamed over another one; nobody else does.
OPTIONS = "noauto_da_alloc,noatime"
NAMES = {"ca": "ca-root", "leaf": "leaf-tls", "job": "job-token"}


class NoDisk(Exception):
    """This machine lets us mount nothing."""


def tool(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as missing:
        raise NoDisk(f"there is no {missing.filename}") from None
    if done.returncode != 0:
        raise NoDisk(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout.strip()


class Disk:
    """An ext4 of our own that can be cut off and comes back with what was on it."""

    def __init__(self):
        if os.geteuid() != 0:
            raise NoDisk("only root may mount")
        self.folder = Path(tempfile.mkdtemp(prefix="kt-disk.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.at, self.device = self.folder / "at", None
        self.folder.chmod(0o755)
        self.at.mkdir()
        try:
            self.image = self.folder / "image"
            with open(self.image, "wb") as file:
                file.truncate(48 << 20)
            tool("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
            self.attach()
            self.mount()
        except BaseException:
            self.close()
            raise

    def attach(self):
        self.device = tool("/sbin/losetup", "--find", "--show", self.image)

    def mount(self):
        tool("/bin/mount", "-t", "ext4", "-o", OPTIONS, self.device, self.at)

    def cut(self):
        fd = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def back(self):
        for turn in range(100):  # who was killed just now may still have a file open
            if subprocess.run(["/bin/umount", self.at], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        else:
            tool("/bin/umount", self.at)
        held = Path("/sys/fs/ext4") / Path(self.device).name
        for turn in range(40):
            if not held.exists():
                break
            time.sleep(0.05)
        else:  # in a mount namespace that somebody made meanwhile it goes on: what is on the disk moves to another one
            old, self.image = self.image, self.image.with_name(self.image.name + "+")
            shutil.copyfile(old, self.image)
            subprocess.run(["/sbin/losetup", "--detach", self.device], check=False, capture_output=True)
            old.unlink()
            self.attach()
        self.mount()

    def close(self):
        if os.path.ismount(self.at):
            subprocess.run(["/bin/umount", self.at], check=False, capture_output=True)
        if self.device:
            subprocess.run(["/sbin/losetup", "--detach", self.device], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Victim:
    """A house on that disk, with somebody who renews all the time and remembers what was acknowledged."""

    def __init__(self, disk, env=None):
        self.disk, self.house = disk, House(env=env)
        house = self.house
        for name, place in (("state", "KEYTURN_STATE_DIR"), ("secrets", "KEYTURN_SECRETS_DIR")):
            setattr(house, name, disk.at / name)
            house.env[place] = str(disk.at / name)
        house.agent_settings(allowPersistent=True)
        house.manifest("set", *PKI, certificate("leaf", "ca"), local(disk.at / "jwks"),
                       token("job", "local", audiences=["https://api.example"], outputs=["raw", "header"]))
        self.lock, self.acknowledged, self.process = threading.Lock(), [], None
        self.empty()

    def close(self):
        self.house.__exit__()

    def empty(self):
        for name in ("state", "secrets", "jwks"):
            shutil.rmtree(self.disk.at / name, ignore_errors=True)
        self.house.state.mkdir(mode=0o700)
        os.sync()
        self.acknowledged = []

    def renew(self, until):
        """What somebody does while the power goes: one renewal after the other."""
        force = []
        while not until.is_set():
            self.process = subprocess.Popen([self.house.binary, "renew", *force], env=self.house.env, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL, start_new_session=True)
            status = self.process.wait()
            with self.lock:
                if until.is_set() or status != 0:
                    return
                self.acknowledged.append(self.house.served())
            force = ["--force"]

    def until_cut(self, delay):
        over, failed = threading.Event(), []

        def work():
            try:
                self.renew(over)
            except BaseException as error:
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(delay)
        with self.lock:
            self.disk.cut()
            over.set()
        if self.process.poll() is None:
            kill_tree(self.process.pid)
        worker.join()
        if failed:
            raise failed[0]
        self.disk.back()

    # --- what must hold afterwards

    def look(self):
        house = self.house
        self.sound()
        served = house.served()  # raises where anything is torn or empty
        if self.acknowledged:  # else there may be no store yet, or one without all of its tables
            self.verify()
        obtained = self.obtained() if self.acknowledged else {}
        for number, seen in enumerate(self.acknowledged):
            for name, volume in NAMES.items():
                if seen[volume] not in obtained.get(name, ()):
                    raise Torn(f"acknowledged as number {number} of {len(self.acknowledged)} and gone: {name} {seen[volume]}, known: {obtained}")
        for name, volume in NAMES.items():
            if not self.acknowledged:
                break
            least = obtained[name].index(self.acknowledged[-1][volume])
            if volume not in served or obtained[name].index(served[volume]) < least:
                raise Torn(f"{name} was acknowledged with {self.acknowledged[-1][volume]}, served is {served.get(volume)}")
        self.goes_on()

    def verify(self):
        verified = self.house.run("audit", "--verify")
        if verified.status != 0:
            raise Torn(f"{verified!r}")

    def obtained(self):
        found = {}
        for record in self.house.json("audit", "--since", "24h")["records"]:
            if record["step"] == "obtained" and record["outcome"] == "ok":
                found.setdefault(record["resource"].rsplit("/", 1)[1], []).append((record.get("serial") or record["token_id"]).lstrip("0"))
        return found

    def sound(self):
        """The database as it lies there, looked at in a copy."""
        with tempfile.TemporaryDirectory(dir=self.house.root) as copy:
            for path in self.house.state.glob("state.db*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, copy)
            if (Path(copy) / "state.db").exists():
                with contextlib.closing(sqlite3.connect(Path(copy) / "state.db")) as db:
                    said = db.execute("PRAGMA integrity_check").fetchall()
                if said != [("ok",)]:
                    raise Torn(f"integrity_check: {said}")

    def goes_on(self):
        house = self.house
        for arguments in ((), ("--force",)):
            done = house.run("renew", *arguments)
            if done.status != 0:
                raise Torn(f"renew {arguments} after the cut: {done!r}")
        served = house.served()
        if set(served) < set(NAMES.values()):
            raise Torn(f"served after the cut: {served}")
        left, _ = house.leftovers()
        if left:
            raise Torn(f"left behind: {left}")
        kid = json.loads(_unpack(house.read("job-token", "token").split(b".")[0]))["kid"]
        if kid not in [k["kid"] for k in json.loads((self.disk.at / "jwks" / "jwks.json").read_bytes())["keys"]]:
            raise Torn("the key of the token is not published")
        self.verify()
        self.acknowledged = [served]


def _unpack(part):
    import base64
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


@pytest.fixture
def disk(say):
    try:
        disk = Disk()
    except NoDisk as why:
        say(f"power cut: NOT TRIED, {why}")
        pytest.skip(f"no disk to cut off: {why}")
    yield disk
    disk.close()


def unordered(points):
    """What a disk that writes in any order could tear: complaints about the calls of the keeper, in the order in which they came."""
    wrong, unsynced = [], set()
    calls = [(call, path) for _, _, call, path in points if not call.startswith("send")]
    for at, (call, path) in enumerate(calls):
        after = calls[at + 1][1] if at + 1 < len(calls) and calls[at + 1][0].startswith("f") else ""
        if call in ("write", "fchmod") and path.startswith("/"):
            unsynced.add(path)
        elif call in ("fsync", "fdatasync"):
            unsynced.discard(path)
        elif call == "mkdirat" and "fsync" not in [c for c, _ in calls[at + 1:at + 4]] and not path.startswith(".."):
            wrong.append(f"{path} is made, and its folder is not synced")
        if call.startswith("renameat"):
            before = next((p for c, p in reversed(calls[:at]) if c in ("fsync", "fdatasync")), "")
            if not calls[at + 1][0] == "fsync" or not os.path.isdir(after):
                wrong.append(f"{path} is not followed by fsync of its folder but by {calls[at + 1]}")
            if path == "..data":
                wrong += [f"{p} is not on the disk when {after} is switched" for p in sorted(unsynced) if p.startswith(after + "/")]
                if before != after:
                    wrong.append(f"{after} is switched before its links are on the disk")
            elif before in unsynced or os.path.dirname(before) != after:
                wrong.append(f"{path} is renamed before it is on the disk")
    return wrong + [f"{p} is never synced" for p in sorted(unsynced) if not p.endswith((".db-shm", "/lock"))]


def test_order(disk, say):
    """ext4 writes more than it is asked for; so the calls themselves are looked at, too."""
    victim, count = Victim(disk), 0
    try:
        for arguments in ((), ("--force",)):
            seen = victim.house.under(["trace"], "renew", *arguments, classes="w")
            assert seen.result.status == 0, repr(seen.result)
            wrong = unordered(seen.points)
            assert not wrong, "\n".join(wrong)
            assert unordered([p for p in seen.points if p[2] != "fsync"]), "nobody would notice"
            count += sum(p[2] in ("fsync", "fdatasync") for p in seen.points)
    finally:
        victim.close()
    say(f"power cut: order of {count} syncs in two renewals is right")


def test_power_cut(disk, say):
    seed = int(os.environ.get("KEYTURN_CRASH_SEED", time.time_ns() % 1000000))
    dice, victim = random.Random(seed), Victim(disk)
    cuts = fresh = renewals = 0
    began = time.monotonic()
    try:
        while time.monotonic() - began < SECONDS:
            if cuts % 3 == 0:
                victim.empty()
                fresh += 1
            kept = len(victim.acknowledged)
            # From nothing the first renewal takes longest; later ones are short, and a cut may fall between two.
            victim.until_cut(dice.uniform(0.005, 0.25) if cuts % 3 == 0 else dice.uniform(0.02, 0.6))
            cuts, renewals = cuts + 1, renewals + len(victim.acknowledged) - kept
            try:
                victim.look()
            except Torn as torn:
                raise Torn(f"cut {cuts} of seed {seed}: {torn}") from None
    finally:
        victim.close()
    say(f"power cut: {cuts} cuts, {fresh} of them during the first issue from nothing, {renewals} acknowledged renewals, none lost")
    assert cuts >= 5 and renewals > 0


def test_power_cut_without_fsync(disk, say):
    """The same with fsync left out loses what was acknowledged: the disk does forget."""
    victim = Victim(disk, env={"KEYTURN_TEST_ENV": "1", "LD_PRELOAD": str(BUILD / "tests" / "crash" / "nosync.so")})
    try:
        for _ in range(5):
            victim.until_cut(0.6)
            if victim.acknowledged:
                break
        assert victim.acknowledged, "no renewal was acknowledged"
        del victim.house.env["LD_PRELOAD"]
        with pytest.raises((Torn, AssertionError, OSError, sqlite3.DatabaseError)):
            victim.look()
    finally:
        victim.close()
    say("power cut: without fsync acknowledged renewals are lost, as they must be")
