"""A set that is refused while its successor is on its way."""

import http.server
import json
import threading

from lib.manifests import consumer, token
from lib.wait import until
from test_share import Silent


class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"used": {"sha256": "ab" * 32}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_what_is_refused_during_a_renewal_is_put_back_after_it(kt):
    """The next one is asked for and does not come: when that has failed, the one before is put back."""
    with Silent() as silent, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as liar:
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        silent.gate.set()
        kt.secret("client", client_secret="s3cret")
        kt.manifest("set", silent.manifest(), token("t", "silent"))
        kt.start()
        until(lambda: kt.volume("t-token").exists(), 10, "the first token")
        old = kt.read("t-token", "token")
        url = f"http://127.0.0.1:{liar.server_address[1]}/status"
        service = consumer("svc", secrets=["t-token"], within="4s", onFailure="Rollback",
                           prove=[{"secret": "t-token", "observed": {"http": {"url": url, "jsonPath": ".used.sha256"}}}])
        kt.manifest("svc", service)
        kt.ok("reload")
        kt.background("renew", "t", "--force")
        until(lambda: kt.read("t-token", "token") != old, 10, "the second token")
        silent.gate.clear()
        held = silent.held
        kt.background("renew", "t", "--force")
        until(lambda: silent.held > held, 3, "the third one is asked for")
        assert not kt.audit(step="rolled-back")
        until(lambda: kt.read("t-token", "token") == old, 25, "the first one is put back")
        assert kt.audit(step="rolled-back")
        silent.gate.set()
        liar.shutdown()
