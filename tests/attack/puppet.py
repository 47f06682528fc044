"""A courier or desk that was taken over: it speaks the wires' frames itself and does what $KEYTURN_TEST_PUPPET says.

Started by the warden in the place of a room, from a script that dress_up() writes."""

import array
import os
import re
import select
import signal
import socket
import struct
import sys
from pathlib import Path

WARDEN_FD = 3
REPLY, FAILED = 1, 2
FRAME_MAX = 256 * 1024
TABLE = (Path(__file__).resolve().parent.parent.parent / "include/kt/msg.h").read_text(encoding="utf-8")
NAMES = re.findall(r"^\s*M\((\w+), (\w+)\)", TABLE, re.M)
TYPES = {upper: number + 1 for number, (upper, _) in enumerate(NAMES)}
BODIES = {name: re.findall(r"F\(S, (\w+), (\w+), (\w+)\)", re.split(r"\n(?:/\*|#|$)", body.replace("\\\n", " "))[0])
          for name, body in re.findall(r"#define KT_MSG_(\w+)\(F, S\)((?:.|\\\n)*?)(?=\n[^\t ]|\Z)", TABLE)}
ROOMS = {"keyturn-courier": 2, "keyturn-desk": 3}


def view(value):
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
    return struct.pack("<I", len(data)) + data


def body(name, values):
    """Every field of a message; what is not named is empty."""
    out = b""
    for kind, field, _ in BODIES[name]:
        value = values.get(field, 0 if kind in ("u32", "u64", "i64", "flag") else b"")
        out += (struct.pack("<I", value) if kind in ("u32", "flag") else struct.pack("<Q", value % (1 << 64)) if kind in ("u64", "i64")
                else view(value))
    return out


def frame(name, values=None, flags=0, ident=0, raw=None):
    return struct.pack("<IIII", TYPES[name], flags, ident, 0) + (raw if raw is not None else body(name, values or {}))


def failure(ident, code, what, retry_after=0, problem=""):
    return struct.pack("<IIII", 0, REPLY | FAILED, ident, 0) + struct.pack("<IIq", code, 0, retry_after) + view(problem) + view(what)


def fields(name, data):
    """The body of a message that came in."""
    out, at = {}, 0
    for kind, field, _ in BODIES[name]:
        if kind in ("u32", "flag"):
            out[field], at = struct.unpack_from("<I", data, at)[0], at + 4
        elif kind in ("u64", "i64"):
            out[field], at = struct.unpack_from("<Q" if kind == "u64" else "<q", data, at)[0], at + 8
        else:
            size = struct.unpack_from("<I", data, at)[0]
            out[field], at = data[at + 4:at + 4 + size], at + 4 + size
    return out


class Wire:
    def __init__(self, fd, room):
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.said_hello, self.room = False, room

    def receive(self):
        data, rest, _, _ = self.socket.recvmsg(FRAME_MAX + 16, socket.CMSG_SPACE(16 * 4))
        fds = array.array("i")
        for level, kind, content in rest:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[:len(content) - len(content) % 4])
        if not data:
            raise EOFError
        kind, flags, ident, _ = struct.unpack_from("<IIII", data)
        return (NAMES[kind - 1][0] if 0 < kind <= len(NAMES) else ""), flags, ident, data[16:], list(fds)

    def send(self, data):
        self.socket.send(data)

    def hello(self, content):
        """Our own hello, with the build id that the other end gave in its."""
        self.send(frame("HELLO", {**fields("HELLO", content), "room": self.room, "pid": os.getpid(), "credit": 128}))
        self.said_hello = True


def dress_up(folder, build, room, orders):
    """A folder of rooms in which `room` is a puppet. orders: Python text with functions joined(wire) at the keeper's
    hello, on_<message>(wire, ident, values), replied(wire, ident, name, flags, content); what has none is not answered."""
    folder.mkdir()
    for name in ("keyturn-keeper", "keyturn-courier", "keyturn-desk"):
        if name != room:
            (folder / name).symlink_to(build / name)
    script = folder / room
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).resolve().parent)!r})\n"
                      f"import puppet\npuppet.main({ROOMS[room]}, {orders!r})\n", encoding="utf-8")
    script.chmod(0o755)
    return folder


def main(room, text):
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    orders = dict(globals())
    exec(compile(text, "orders", "exec"), orders)  # noqa: S102: the test's own text
    wires = [Wire(WARDEN_FD, room)]
    while wires:
        for sock in select.select([w.socket for w in wires], [], [], 60)[0]:
            wire = next(w for w in wires if w.socket is sock)
            try:
                name, flags, ident, content, fds = wire.receive()
                if name == "HELLO":
                    wire.hello(content)
                    if wire is not wires[0] and "joined" in orders:
                        orders["joined"](wire)
                elif wire is wires[0]:
                    if name == "SHUTDOWN":
                        return
                    if name == "PEER":
                        wires.append(Wire(fds[0], room))
                    if ident:
                        wire.send(frame("DONE", flags=REPLY, ident=ident))
                elif not flags & REPLY and f"on_{name.lower()}" in orders:
                    orders[f"on_{name.lower()}"](wire, ident, fields(name, content))
                elif flags & REPLY and "replied" in orders:
                    orders["replied"](wire, ident, name, flags, content)
            except (EOFError, OSError):
                if wire is wires[0]:
                    return
                wires.remove(wire)
                wire.socket.close()
