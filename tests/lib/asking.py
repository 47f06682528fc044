"""Asking the local token socket as somebody: a child with that user and those groups speaks HTTP to it."""

import http.client
import json
import socket
import subprocess
import sys

CHILD = r"""
import http.client, json, socket, sys
path, method, url, headers = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(path)
try:
    connection = Connection("localhost")
    connection.request(method, url, headers=headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
except OSError as error:
    print(json.dumps([0, {}, str(error)]))
"""


class Said:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]}"


class Connection(http.client.HTTPConnection):
    """HTTP over a local socket."""

    def __init__(self, path, timeout=15):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, url, method="GET", **headers):
    """As ourselves; headers with _ for -."""
    connection = Connection(path)
    try:
        connection.request(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return Said(answer.status, dict(answer.getheaders()), answer.read().decode())
    finally:
        connection.close()


def ask_as(uid, gid, path, url, method="GET", groups=(), **headers):
    """As another user; this needs root."""
    headers = json.dumps({k.replace("_", "-"): v for k, v in headers.items()})
    done = subprocess.run([sys.executable, "-I", "-c", CHILD, str(path), method, url, headers], user=uid, group=gid,
                          extra_groups=list(groups), capture_output=True, timeout=60, check=True, cwd="/")
    return Said(*json.loads(done.stdout))
