"""Envoy's credential injector with our generic secret: every swap is seen, and no request goes out without a valid token."""

import base64
import json
import os
import statistics
import threading
import time
import urllib.error
import urllib.request

import pytest

from lib.manifests import consumer, projected, token
from lib.servers import Envoy, Recorder
from lib.wait import until

API = "https://payments.example/api"
LOCAL = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"},
         "spec": {"local": {"issuerURL": "https://tokens.example", "publishJWKS": {"listener": False}}}}


def claims(authorization):
    scheme, _, jwt = authorization.partition(" ")
    assert scheme == "Bearer", authorization[:20]
    body = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def call(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code


class Callers:
    """Calls without a pause worth mentioning until it is left; statuses holds what came of it."""

    def __init__(self, url, count=3):
        self.url, self.statuses, self.over = url, [], threading.Event()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(count)]

    def work(self):
        while not self.over.wait(0.01):
            try:
                self.statuses.append(call(self.url))
            except OSError as e:
                self.statuses.append(str(e))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(15)


class Swaps:
    """When a volume's ..data came to point to another generation, looked at every few milliseconds."""

    def __init__(self, volume):
        self.volume, self.at, self.over = volume, {}, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.over.wait(0.004):
            try:
                now, name = time.time(), os.readlink(self.volume / "..data")
                if name not in self.at:
                    self.at[name] = (now, claims("Bearer " + (self.volume / name / "token").read_text())["jti"])
            except FileNotFoundError:
                pass  # the generation was retired just now

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(5)


@pytest.fixture
def upstream():
    with Recorder() as server:
        yield server


def local_token(kt, name="calls", *more, **spec):
    kt.manifest("token", LOCAL, token(name, "own", **{"audiences": [API], "outputs": ["raw", "envoy"], **spec}), *more)


def test_every_swap_is_seen(kt, upstream):
    """Tokens of 8 s, renewed in the middle, for half a minute under load; the agent is killed once meanwhile."""
    local_token(kt, duration="8s", renewBefore="5s")
    running = kt.start()
    volume = kt.volume("calls-token")
    until((volume / "envoy.yaml").exists, 15, "the first token")
    with Envoy(kt.root, upstream.port, volume, "calls-token") as envoy, Swaps(volume) as swaps, Callers(envoy.url()) as callers:
        until(lambda: len(swaps.at) >= 5, 30, "five generations")
        running.kill9()
        running = kt.start()
        until(lambda: len(swaps.at) >= 8, 30, "eight generations")
        time.sleep(1)
    assert running.stop() == 0, running.err()
    assert set(callers.statuses) == {200} and len(callers.statuses) > 500, set(callers.statuses)
    first = {}
    for at, values in upstream.seen:
        assert len(values) == 1, values
        body = claims(values[0])
        assert body["exp"] > at, f"an expired token went out, {at - body['exp']:.2f} s late"
        assert body["aud"] == API
        first.setdefault(body["jti"], at)
    delays = []
    for at, jti in swaps.at.values():
        assert jti in first, "a token was delivered and never used"
        delays.append(first[jti] - at)
    # The first one lay there before Envoy started.
    delays = sorted(delays[1:])
    print(f"{len(delays)} swaps, from the rename to the first request with it: median {statistics.median(delays) * 1000:.0f} ms, "
          f"slowest {delays[-1] * 1000:.0f} ms; {len(upstream.seen)} requests")
    assert delays[-1] < 2


def test_caller_brings_no_token_of_its_own(kt, upstream):
    """Also: what Envoy shows of it on its admin interface is a version, never the token."""
    local_token(kt, duration="1h")
    kt.ok("renew")
    with Envoy(kt.root, upstream.port, kt.volume("calls-token"), "calls-token") as envoy:
        assert call(envoy.url(), Authorization="Bearer mine") == 200
        raw = kt.read("calls-token", "token").decode()
        assert upstream.seen[-1][1] == [f"Bearer {raw}"]
        version = kt.read("calls-token", "envoy.yaml").decode().split('"')[1]
        dump = envoy.ask("/config_dump")
        assert version in dump and raw not in dump


def test_a_consumers_volume(kt, upstream):
    """Of two secrets, the file under another name: the folder that is watched is the volume's."""
    volume = kt.root / "sidecar"
    local_token(kt, "calls", token("other", "own", audiences=[API], outputs=["raw"], duration="1h"),
                consumer("sidecar", volumes=[projected(volume, ("calls-token", {"envoy.yaml": "envoy.yaml"}), ("other-token", {}))]),
                duration="1h")
    kt.ok("renew")
    with Envoy(kt.root, upstream.port, volume, "calls-token") as envoy:
        assert call(envoy.url()) == 200
        before = upstream.seen[-1][1]
        kt.ok("renew", "--force", "calls")
        raw = kt.read("calls-token", "token").decode()

        def swapped():
            assert call(envoy.url()) == 200
            return upstream.seen[-1][1] == [f"Bearer {raw}"]

        assert before != [f"Bearer {raw}"]
        until(swapped, 15, "the new token goes out")


def test_what_has_to_be_watched(kt, upstream):
    """Without watched_directory Envoy watches the file's own name, which never moves: docs/outputs.md says so."""
    local_token(kt, duration="1h")
    kt.ok("renew")
    volume = kt.volume("calls-token")
    with Envoy(kt.root, upstream.port, volume, "calls-token", watch=False) as deaf, \
            Envoy(kt.root, upstream.port, volume, "calls-token") as envoy:
        assert call(deaf.url()) == call(envoy.url()) == 200
        kt.ok("renew", "--force", "calls")
        raw = kt.read("calls-token", "token").decode()

        def swapped():
            assert call(envoy.url()) == 200
            return upstream.seen[-1][1] == [f"Bearer {raw}"]

        until(swapped, 15, "the new token goes out")
        assert call(deaf.url()) == 200
        assert upstream.seen[-1][1] != [f"Bearer {raw}"], "Envoy sees the swap without watched_directory now: mend the docs"
