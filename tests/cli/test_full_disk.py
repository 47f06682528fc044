"""A full disk under the state: every command says so and ends with 75, try again later; with room it goes on."""

import os
import subprocess

import pytest

from lib.manifests import certificate

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"


@pytest.fixture
def small(kt):
    """A disk of 2 MB under the state."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", kt.state], check=True)
    yield kt.state
    subprocess.run(["umount", kt.state], check=True)


def test_full_disk(kt, small):
    kt.manifest("all", SELF, certificate("web", "self"))
    filler = small / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    fill()
    for command in (("renew",), ("secret", "set", "demo", "k=-"), ("run",)):
        result = kt.run(*command, stdin="v")
        assert result.status == 75 and "make room" in result.err, result
    filler.unlink()
    kt.ok("renew")
    kt.secret("demo", k="v")
    fill()
    for command in (("renew", "--force", "web"), ("secret", "set", "demo", "k=-"), ("secret", "rm", "demo")):
        result = kt.run(*command, stdin="w")
        assert result.status == 75 and "make room" in result.err, result
    filler.unlink()
    kt.ok("renew", "--force", "web")
    kt.ok("secret", "rm", "demo")
    kt.ok("audit", "--verify")
