"""One keyturn with a credential published before the attack, and the judgement that every row shares."""

import hashlib
import os
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from lib.agent import Keyturn
from lib.manifests import certificate, token
from lib.wait import free_port, kill_tree

CANARY = "cAnArY-kEyTuRn-4711"  # client secret
EXTRA_KIB = int(os.environ.get("KEYTURN_ATTACK_EXTRA_KIB", 32 * 1024))  # more for a build with sanitizers
EXCHANGE = 10.0


def _status_kib(pid, name):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def _courier_of(pid):
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
            if Path(f"/proc/{child}/comm").read_text(encoding="utf-8").startswith("keyturn-courier"):
                return int(child)
    except OSError:
        pass
    return 0


def watched(argv, env, cwd, timeout):
    """Runs a command; (status, out, err, seconds, peak memory of its courier in KiB)."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd,
                               start_new_session=True)
    peak, done = [0], threading.Event()

    def sample():
        courier = 0
        while not done.wait(0.02):
            courier = courier or _courier_of(process.pid)
            if courier:
                peak[0] = max(peak[0], _status_kib(courier, "VmHWM"))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        out, err = process.communicate()
        raise AssertionError(f"{argv} has not ended after {timeout} s:\n{err.decode(errors='replace')[-3000:]}") from None
    finally:
        done.set()
        sampler.join()
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - began, peak[0]


class Victim(Keyturn):
    """A Keyturn whose credential `name` is published by a good server, then renewed by force from a hostile one."""

    name, volume_name = "web", "web-tls"

    def renew(self, *args, timeout=40, env=None):
        return watched([*self.prefix, self.binary, "renew", *args], {**self.env, **(env or {})}, self.root, timeout)

    def snapshot(self):
        folder = self.volume(self.volume_name)
        return os.readlink(folder / "..data"), {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                                                for p in sorted((folder / "..data").iterdir())}

    def publish(self):
        """The first, good round: what must still be there afterwards."""
        status, out, err, _, self.good_peak = self.renew()
        assert status == 0, f"the good round failed:\n{out}\n{err}"
        self.before = self.snapshot()
        self.secrets_seen = [self.before and self._material()]

    def _material(self):
        folder = self.volume(self.volume_name) / "..data"
        name = "tls.key" if (folder / "tls.key").exists() else "token"
        return (folder / name).read_bytes()

    def attack(self, timeout=40, env=None):
        self.status, self.out, self.err, self.seconds, self.peak = self.renew(self.name, "--force", "-v", timeout=timeout, env=env)
        self.row = self.credential(self.name)
        return self

    # --- judgement

    def refused(self, why, statuses=(1, 4, 75), peer=None, limit=EXCHANGE + 3, more=EXTRA_KIB):
        """The row's whole expectation: refused for this reason, in time and bounds, nothing else touched."""
        import re

        text = self.row["lastError"] or ""
        assert self.status in statuses, f"status {self.status}, expected one of {statuses}:\n{self.out}\n{self.err}"
        assert re.search(why, text), f"the reason is not clear: {text!r} has no /{why}/\n{self.err}"
        if peer:
            assert peer in text, f"the peer {peer} is not named: {text!r}"
        assert text.isprintable(), f"not one printable line: {text!r}"
        assert len(text) <= 1024
        assert self.seconds <= limit, f"took {self.seconds:.1f} s, allowed are {limit} s"
        extra = self.peak - self.good_peak
        assert extra <= more, f"the courier took {extra} KiB more than in a good round"
        self.kept()
        self.later()
        self.no_secret()
        shown = [line for line in self.err.splitlines() if self.name in line and text[:40] in line]
        assert shown, f"renew did not say why:\n{self.err}\n{self.out}"

    def kept(self):
        assert self.snapshot() == self.before, "the credential that was published is not there any more"
        assert self.run("audit", "--verify").status == 0

    def later(self):
        row = self.row
        assert row["attempts"] >= 1 and row["nextTry"], f"no next try: {row}"
        wait = (datetime.fromisoformat(row["nextTry"].replace("Z", "+00:00")) - datetime.now(timezone.utc)).total_seconds()
        assert -8 < wait < 86400 * 1.1, f"the next try is in {wait:.0f} s"
        self.wait_s = wait

    def no_secret(self, *more):
        """Neither the client secret nor keys or tokens stand in what was said or stored."""
        import base64

        needles = [CANARY.encode(), base64.b64encode(CANARY.encode())[2:-4], *[m.encode() for m in more]]
        for material in self.secrets_seen:
            body = b"".join(line for line in material.splitlines() if b"---" not in line)
            needles += [body[:64]] if len(body) >= 16 else []
        said = [self.out, self.err, self.run("status", "-o", "json").out, self.run("audit", "-o", "json").out,
                self.run("why", self.name).out]
        haystacks = [s.encode() for s in said] + [p.read_bytes() for p in self.state.rglob("*") if p.is_file()]
        for needle in needles:
            for haystack in haystacks:
                assert needle not in haystack, f"a secret is shown: {haystack[max(0, haystack.find(needle) - 200):][:300]!r}"


class CertificateVictim(Victim):
    def __init__(self, acme, authority, **more):
        super().__init__()
        self.peer = f"127.0.0.1:{acme.port}"
        self.agent_settings(listeners={"http01": f"127.0.0.1:{free_port()}"})
        self.manifest("set", {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "evil"}, "spec": {"acme": {
            "server": f"{acme.url}/directory", "caBundle": authority.bundle(), "privateKeySecretRef": {"name": "acme-key"},
            "solvers": [{"http01": {"ingress": {}}}], **more}}}, certificate("web", "evil", ["a.example"]))


class TokenVictim(Victim):
    name, volume_name = "api", "api-token"

    def __init__(self, url, authority, issuer=False, method="client_secret_post", oauth2=None, **spec):
        super().__init__()
        self.peer = url.split("//")[1].split("/")[0]
        self.manifest("set", {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "evil"}, "spec": {
            "oauth2": {**({"issuer": url} if issuer else {"tokenURL": f"{url}/token"}), "caBundle": authority.bundle(), **(oauth2 or {}),
                       "auth": {"method": method, "clientID": "client", "clientSecretRef": {"name": "client"}}}}},
            token("api", "evil", audiences=["https://api.example"], scopes=["read", "write"], outputs=["raw", "header"], **spec))
        Keyturn.secret(self, "client", client_secret=CANARY)
