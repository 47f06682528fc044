"""Bounded waiting, free ports, and processes that end by their pid."""

import ctypes
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


# Ports by the block, below or above those that the kernel gives to outgoing connections: one of these could take a port in the
# moment between our look at it and a server's bind. A name that one process has says whose a block is, as long as that lives.
_BLOCK = 64
_ports = {"owner": None, "left": [], "names": []}


def _take_block():
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, last = map(int, file.read().split())
    blocks = list(range(10240, 65536 - _BLOCK, _BLOCK))
    blocks = [b for b in blocks if b + _BLOCK <= first or b > last] or blocks
    start = os.getpid() * 7 % len(blocks)
    for block in blocks[start:] + blocks[:start]:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0keyturn-tests-ports-{block}")
        except OSError:
            name.close()
            continue
        _ports["names"].append(name)
        return list(range(block, block + _BLOCK))
    raise AssertionError("every port is taken by some test")


def free_port():
    """A port on loopback that nobody has now, that was not given before, and that no other process is given."""
    if _ports["owner"] != os.getpid():  # a child has those of its parent no more
        _ports.update(owner=os.getpid(), left=[])
    while True:
        _ports["left"] = _ports["left"] or _take_block()
        port = _ports["left"].pop(0)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def port_open(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


# Orphans become our own children, so that nothing that a test started can get out of sight.
_PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat_of(pid):
    """(name, state, parent) of a process, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, rest = file.read().rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    return head.partition("(")[2], fields[0], int(fields[1])


def descendants(root):
    """Living processes below a process (zombies are none), as {pid: name}."""
    below, names = {}, {}
    for entry in os.listdir("/proc"):
        stat = stat_of(entry) if entry.isdigit() else None
        if stat:
            below.setdefault(stat[2], []).append(int(entry))
            if stat[1] != "Z":
                names[int(entry)] = stat[0]
    found, todo = {}, [root]
    while todo:
        for pid in below.get(todo.pop(), []):
            todo.append(pid)
            if pid in names:
                found[pid] = names[pid]
    return found


def kill_tree(root, number=signal.SIGKILL):
    """Sends a signal to a process that we started and to everything below it. Returns the pids."""
    pids = [root, *descendants(root)]
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return pids


def children():
    """Pids of our own children, as texts; where the kernel keeps no list, of everybody."""
    found = set()
    try:
        for _ in range(2):  # one that ends meanwhile can hide another one
            for task in os.listdir("/proc/self/task"):
                with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                    found.update(file.read().split())
        return found
    except FileNotFoundError:
        return {entry for entry in os.listdir("/proc") if entry.isdigit()}


def orphan_rooms():
    """Rooms whose warden is gone: they are our own children now. Dead ones are reaped on the way."""
    left = {}
    for entry in children():
        stat = stat_of(entry)
        if stat and stat[2] == os.getpid() and stat[0].startswith("keyturn-"):
            if stat[1] == "Z":
                try:
                    os.waitpid(int(entry), os.WNOHANG)
                except ChildProcessError:
                    pass
            else:
                left[int(entry)] = stat[0]
    return left


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
        below = descendants(self.pid)
        if self.alive():
            self.process.send_signal(number)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                kill_tree(self.pid)
                self.process.wait(5)
        for pid in below:  # workers that outlive their master; orphans are our children, so the pid can't be another's
            stat = stat_of(pid)
            if stat and stat[2] == os.getpid():
                if stat[1] != "Z":
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
