"""Bounded waiting, free ports, and processes that end by their pid."""

import os
import signal
import socket
import subprocess
import time


def until(check, timeout=15.0, what="the condition", pause=0.02):
    """The first true value of check(), asked again and again; AssertionError after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"after {timeout:g} s still not: {what}" + (f" ({value})" if value not in (None, False) else ""))
        time.sleep(pause)


_given = set()


def free_port():
    """A port on loopback that nobody has now and that was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def port_open(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def stat_of(pid):
    """(state, parent, session, start time) of a process, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[3]), int(fields[19])


def session_pids(session):
    """Living processes of a session, without zombies."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = stat_of(entry)
            if stat and stat[2] == session and stat[0] != "Z":
                found.append(int(entry))
    return found


def kill_session(session, number=signal.SIGKILL):
    """Sends a signal to every process of a session that we started, by pid. Returns the pids."""
    pids = session_pids(session)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return pids


class Process:
    """A server in a session of its own, its output in a file, ended by pid."""

    def __init__(self, argv, log, env=None, cwd=None, stdin=None):
        self.log_path = str(log)
        self.argv = [str(a) for a in argv]
        with open(self.log_path, "ab") as out:
            self.process = subprocess.Popen(self.argv, stdin=stdin or subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=env, cwd=cwd, start_new_session=True)
        self.pid = self.process.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def alive(self):
        return self.process.poll() is None

    def wait_port(self, port, timeout=20):
        def ready():
            assert self.alive(), f"{self.argv[0]} ended with {self.process.returncode}:\n{self.log()[-3000:]}"
            return port_open(port)

        until(ready, timeout, f"{self.argv[0]} listens on {port}")

    def stop(self, number=signal.SIGTERM, timeout=5):
        if self.alive():
            self.process.send_signal(number)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        kill_session(self.pid)
        self.process.wait(5)
