"""Rooms that were taken over: what a courier or desk of somebody else's making can do to the keeper, and what it can't."""

import os
import re

import pytest

from lib.agent import BUILD, Keyturn
from lib.manifests import certificate, consumer, token
from lib.wait import free_port, until
from puppet import dress_up

CANARY = "cAnArY-rOoM-0815"
SELF = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ss"}, "spec": {"selfSigned": {}}}
ACME = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "acme"}, "spec": {"acme": {
    "server": "https://acme.example/directory", "privateKeySecretRef": {"name": "acme-key"}, "solvers": [{"http01": {"ingress": {}}}]}}}
OAUTH = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "oauth"}, "spec": {"oauth2": {
    "tokenURL": "https://oauth.example/token",
    "auth": {"method": "client_secret_post", "clientID": "client", "clientSecretRef": {"name": "client"}}}}}
# Any message as the answer, and errors of every code with the worst numbers.
BIG = (1 << 63) - 1
CODES = 21


def victim(room, orders):
    kt = Keyturn()
    kt.env["KEYTURN_LIBEXECDIR"] = str(dress_up(kt.root / "rooms", BUILD, room, orders))
    return kt


def web(kt, *more, prove=None, notify=None):
    kt.manifest("set", SELF, certificate("web", "ss", ["a.example"]),
                consumer("edge", secrets=["web-tls"], within="3s", onFailure="Keep",
                         **({"notify": notify} if notify else {}), **({"prove": prove} if prove else {})), *more)


TLS = [{"secret": "web-tls", "tls": {"address": "127.0.0.1:4"}}]
HTTP = [{"secret": "web-tls", "observed": {"http": {"url": "https://app.example/status", "jsonPath": ".sha256"}}}]
NOTIFY = [{"http": {"url": "https://app.example/reload"}}]

ANSWERS = ["DONE", "MINTED", "PROBED_TLS", "HTTP_DONE"]


@pytest.mark.parametrize("prove, answer", [(p, a) for p in ("tls", "http") for a in ANSWERS])
def test_proof_by_a_wrong_answer(prove, answer):
    """Only an answer to the question that was asked proves anything."""
    orders = f"""
def on_probe_tls(wire, ident, values):
    wire.send(frame({answer!r}, flags=REPLY, ident=ident))
on_http = on_probe_tls
"""
    with victim("keyturn-courier", orders) as kt:
        web(kt, prove=TLS if prove == "tls" else HTTP)
        result = kt.run("renew", timeout=40)
        assert not kt.audit(step="proved", outcome="ok"), result
        assert result.status != 0, result
        assert (kt.volume("web-tls") / "tls.crt").exists(), result
        assert "keyturn-keeper" not in result.err, result  # nobody died
