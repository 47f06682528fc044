"""An issuer that accepts and never answers: what is due at others is not kept waiting, and its own goes on when it answers."""

import threading

import pytest

from lib.manifests import certificate, consumer, projected, token
from lib.wait import until
from test_token_socket import SELF, Server


class Silent(Server):
    """Takes each request and answers none before the gate opens."""

    def __init__(self):
        self.gate, self.held = threading.Event(), 0
        super().__init__()
        answer = self.RequestHandlerClass.do_POST

        def wait(of):
            self.held += 1
            self.gate.wait()
            try:
                answer(of)
            except OSError:  # who asked has given up
                pass

        self.RequestHandlerClass.do_POST = wait

    def __exit__(self, *_):
        self.gate.set()
        super().__exit__()

    def manifest(self, name="silent"):
        return {**super().manifest(), "metadata": {"name": name}}


@pytest.mark.parametrize("many", (300, 5000), ids=("more-than-flights", "more-than-a-batch"))
def test_a_silent_issuer_keeps_nobody_else_waiting(kt, many):
    """Others' credentials that become due behind its own, a command, and then its own when it answers at last."""
    with Silent() as silent, Server() as well:
        kt.secret("client", client_secret="s3cret")
        kt.manifest("a", silent.manifest(), *(token(f"a{i}", "silent", scopes=[f"s{i}"]) for i in range(many)))
        kt.start()
        until(lambda: silent.held >= 8, 20, "the silent issuer is asked")
        kt.manifest("b", well.manifest(), token("z-token", "remote"), SELF, certificate("z-cert", "ss"))
        kt.ok("reload")
        until(lambda: kt.volume("z-token-token").exists() and kt.volume("z-cert-tls").exists(), 5, "the others are issued")
        before = well.asked
        kt.ok("renew", "z-token", "--force", timeout=5)
        assert well.asked == before + 1
        assert not any(kt.volume(f"a{i}-token").exists() for i in range(many))
        silent.gate.set()
        until(lambda: all(kt.volume(f"a{i}-token").exists() for i in range(many)), 90, "each has had its turn", pause=0.2)
        assert len(silent.given) == many


def test_several_silent_issuers(kt):
    """Each takes a part of what is left: the last one and what is embedded find a place still."""
    silents = [Silent() for _ in range(6)]
    with Server() as well:
        try:
            kt.secret("client", client_secret="s3cret")
            kt.manifest("a", *(silent.manifest(f"silent-{n}") for n, silent in enumerate(silents)),
                        *(token(f"a{n}-{i}", f"silent-{n}", scopes=[f"s{i}"]) for n in range(6) for i in range(150)))
            kt.start()
            until(lambda: all(silent.held for silent in silents), 20, "each is asked")
            kt.manifest("b", well.manifest(), token("z-token", "remote"), SELF, certificate("z-cert", "ss"))
            kt.ok("reload")
            until(lambda: kt.volume("z-token-token").exists() and kt.volume("z-cert-tls").exists(), 5, "the others are issued")
        finally:
            for silent in silents:
                silent.__exit__()


def test_what_asks_nobody_does_not_wait(kt):
    """A Consumer that wants what a crowded issuer gave before: it is written, as it asks nobody."""
    with Silent() as silent:
        silent.gate.set()
        kt.secret("client", client_secret="s3cret")
        kt.manifest("a", silent.manifest(), token("first", "silent"))
        kt.start()
        until(lambda: kt.volume("first-token").exists(), 10, "the first token")
        silent.gate.clear()
        kt.manifest("b", *(token(f"a{i}", "silent", scopes=[f"s{i}"]) for i in range(300)))
        kt.ok("reload")
        until(lambda: silent.held >= 9, 20, "the silent issuer is asked")
        kt.manifest("c", consumer("shop", volumes=[projected(kt.root / "vol", ("first-token", {}))]))
        kt.ok("reload")
        until(lambda: list((kt.root / "vol").glob("*")), 5, "it is delivered")
