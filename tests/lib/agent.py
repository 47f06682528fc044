"""One keyturn with a state, secrets, manifests and socket of its own, run from the build in $KEYTURN_BUILD."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from .wait import Process, descendants, kill_tree, orphan_rooms, until

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("KEYTURN_BUILD") or TOP / "build" / "release")


class Result:
    """What a command gave: status, out, err."""

    def __init__(self, argv, status, out, err, seconds):
        self.argv, self.status, self.out, self.err, self.seconds = argv, status, out, err, seconds

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"{' '.join(self.argv)} -> {self.status} after {self.seconds:.2f} s\n--- out\n{self.out[-3000:]}\n--- err\n{self.err[-3000:]}"


class Running:
    """A `keyturn` that runs in the background."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid

    def err(self):
        return self.process.log()

    def alive(self):
        return self.process.alive()

    def rooms(self):
        """{pid: name} of the rooms that are up."""
        return {pid: name for pid, name in descendants(self.pid).items() if name.startswith("keyturn-")}

    def wait(self, timeout=60):
        try:
            return self.process.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.err()[-4000:]}") from None

    def kill9(self):
        """kill -9 to the warden and every room at once; afterwards none is left."""
        kill_tree(self.pid)
        self.process.process.wait(5)
        self.no_room_left()

    def stop(self, timeout=15):
        """SIGTERM, as a service manager does; the exit status. No room may be left."""
        if self.alive():
            self.process.process.send_signal(signal.SIGTERM)
        status = self.wait(timeout)
        self.no_room_left()
        return status

    def no_room_left(self, timeout=5):
        until(lambda: not orphan_rooms(), timeout, "every room has ended")


class Keyturn:
    """Use as a context manager: at the end everything that runs is ended and every folder removed."""

    def __init__(self, base="/dev/shm", env=None, prefix=()):
        if not os.access(base, os.W_OK):
            base = tempfile.gettempdir()
        self.root = Path(tempfile.mkdtemp(prefix="kt-test.", dir=base))
        self.root.chmod(0o755)
        self.manifests = self.root / "manifests"
        self.state = self.root / "state"
        self.secrets = self.root / "secrets"
        self.socket = self.root / "agent.sock"
        self.manifests.mkdir()
        self.manifests.chmod(0o755)
        self.state.mkdir(mode=0o700)
        self.prefix = tuple(str(p) for p in prefix)  # runs commands as somebody else, e.g. setpriv ...
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.root),
            "KEYTURN_LIBEXECDIR": str(BUILD),
            "KEYTURN_CONFIG": str(self.manifests),
            "KEYTURN_STATE_DIR": str(self.state),
            "KEYTURN_SECRETS_DIR": str(self.secrets),
            "KEYTURN_SOCKET": str(self.socket),
            **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "LSAN_"))},
            **(env or {}),
        }
        self.binary = str(BUILD / "keyturn")
        self.running = []
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for running in self.running:
            if running.alive():
                kill_tree(running.pid)
            running.process.process.wait(5)
        for pid in orphan_rooms():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    # --- manifests

    def manifest(self, name, *documents):
        """Writes manifests/<name>.yaml: dicts, or YAML as text."""
        text = "\n---\n".join(d if isinstance(d, str) else yaml.safe_dump(d, sort_keys=False) for d in documents)
        path = self.manifests / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        return path

    def agent_settings(self, **spec):
        """kind Agent."""
        return self.manifest("agent", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "agent"},
                                       "spec": spec})

    # --- commands

    def run(self, *args, timeout=60, stdin=None, env=None):
        """A command to its end; never raises for its status."""
        argv = [*self.prefix, self.binary, *map(str, args)]
        began = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**self.env, **(env or {})}, start_new_session=True, cwd=self.root)
        try:
            out, err = process.communicate(stdin.encode() if isinstance(stdin, str) else stdin or b"", timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            out, err = process.communicate()
            raise AssertionError(f"keyturn {' '.join(map(str, args))} has not ended after {timeout} s:\n"
                                 f"{out.decode(errors='replace')[-2000:]}\n{err.decode(errors='replace')[-4000:]}") from None
        result = Result(["keyturn", *map(str, args)], process.returncode, out.decode(errors="replace"),
                        err.decode(errors="replace"), time.monotonic() - began)
        until(lambda: not orphan_rooms(), 5, f"no room is left after {result!r}")
        return result

    def ok(self, *args, status=0, **kw):
        """A command that must end with this status."""
        result = self.run(*args, **kw)
        assert result.status == status, f"expected exit status {status}: {result!r}"
        return result

    def json(self, *args, **kw):
        return self.ok(*args, "-o", "json", **kw).json()

    def secret(self, name, **values):
        """keyturn secret set, the values by standard input or file, never in argv."""
        folder = Path(tempfile.mkdtemp(prefix="value.", dir=self.root))
        pairs = []
        for key, value in values.items():
            path = folder / key
            path.write_bytes(value if isinstance(value, bytes) else value.encode())
            path.chmod(0o644)
            pairs.append(f"{key.replace('__', '.').replace('_', '-')}={path}")
        folder.chmod(0o755)
        result = self.ok("secret", "set", name, *pairs)
        shutil.rmtree(folder)
        return result

    def background(self, *args, env=None):
        """Starts a command and returns at once."""
        self.count += 1
        process = Process([*self.prefix, self.binary, *args], self.root / f"run-{self.count}.log", env={**self.env, **(env or {})},
                          cwd=self.root)
        running = Running(process)
        self.running.append(running)
        return running

    def start(self, *args, timeout=15, env=None):
        """`keyturn run` in the background; returns when it holds the state and takes commands: the socket alone is there before."""
        running = self.background("run", *args, env=env)

        def ready():
            assert running.alive(), f"keyturn run ended with {running.process.process.returncode}:\n{running.err()[-4000:]}"
            return "ready; commands go to " in running.err()

        until(ready, timeout, "the agent is ready")
        return running

    # --- what it shows

    def credential(self, name):
        """The row of one credential in `status -o json`."""
        for row in self.json("status")["credentials"]:
            if row["name"] == name:
                return row
        raise AssertionError(f"no credential {name}")

    def audit(self, **match):
        """Audit records whose members have these values."""
        return [r for r in self.json("audit")["records"] if all(r.get(k) == v for k, v in match.items())]

    def files(self, *folders):
        """Every path below, for 'nothing was written'."""
        found = []
        for folder in folders or (self.state, self.secrets):
            for path, names, files in os.walk(folder):
                found += [os.path.join(path, n) for n in names + files]
        return sorted(found)

    def volume(self, secret, ns=None):
        return self.secrets / ns / secret if ns else self.secrets / secret

    def read(self, secret, file):
        return (self.volume(secret) / file).read_bytes()
