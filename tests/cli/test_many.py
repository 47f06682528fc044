"""Many that depend on one: none is left out because of how many there are."""

import os

from lib.asking import ask
from lib.manifests import consumer, token
from lib.wait import until
from test_token_socket import API, LOCAL, settings, sock_of

MANY = 150


def test_the_last_of_many_consumers_may_ask(kt):
    settings(kt)
    kt.manifest("set", LOCAL, token("api", "minter", audiences=["a"]),
                *(consumer(f"c{i}", secrets=["api-token"], socket={"users": ["4999"]}) for i in range(MANY)),
                consumer("z", secrets=["api-token"], socket={"users": [str(os.geteuid())]}))
    kt.start()
    until(lambda: sock_of(kt).exists() and ask(sock_of(kt), API).status == 200, 20, "it is given")


def test_each_of_many_that_deliver_a_secret_has_the_new_one(kt):
    kt.secret("given", client_secret="one")
    kt.manifest("set", *({"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": f"c{i}"}, "spec": {
        "secretName": f"c{i}", "clients": [{"clientID": "x", "secretRef": {"name": "given"}}], "issuer": {"static": {}}}}
        for i in range(MANY)))
    kt.start()

    def delivered():
        return {kt.read(f"c{i}", "client-secret") if (kt.volume(f"c{i}") / "client-secret").exists() else None for i in range(MANY)}

    until(lambda: delivered() == {b"one"}, 20, "the first one", pause=0.2)
    kt.secret("given", client_secret="two")
    until(lambda: delivered() == {b"two"}, 20, "the second one", pause=0.2)
