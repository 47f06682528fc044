"""The demo's small service: calls the protected API with the token from its file and reports which one it used last."""

import hashlib
import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, TOKEN_FILE, API = int(sys.argv[1]), sys.argv[2], sys.argv[3]
state = {"tokenSha256": "", "accepted": 0, "refused": 0}
turn = threading.Lock()


def call():
    with turn:
        try:
            with open(TOKEN_FILE, encoding="ascii") as file:
                token = file.read()
            request = urllib.request.Request(API, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=5):
                state["accepted"] += 1
                state["tokenSha256"] = hashlib.sha256(token.encode()).hexdigest()
        except (OSError, urllib.error.URLError):
            state["refused"] += 1


class Service(BaseHTTPRequestHandler):
    def answer(self):
        body = json.dumps(state).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call()
        self.answer()

    def log_message(self, *args):
        pass


call()
ThreadingHTTPServer(("127.0.0.1", PORT), Service).serve_forever()
