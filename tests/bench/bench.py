"""Figures of the main job, as ratios within one run. usage: bench.py BUILDDIR [--quick]

BUILDDIR is a release build (./dev build makes build/release). Everything is in memory (/dev/shm) and on this machine; no
figure here passes or fails.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(sys.argv[1]).resolve()
QUICK = "--quick" in sys.argv
HEAD = """apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: root}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: ca}
spec: {secretName: ca-tls, isCA: true, commonName: bench ca, privateKey: {algorithm: ECDSA}, issuerRef: {name: root}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca}
spec: {ca: {secretName: ca-tls}}
"""
LEAF = """---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: web-{0}}}
spec: {{secretName: web-{0}, dnsNames: [web-{0}.example], privateKey: {{algorithm: ECDSA}}, issuerRef: {{name: ca}}}}
"""


# One token, proved over HTTP at the agent's own listener: so all four rooms are running.
FOUR_ROOMS = """apiVersion: keyturn.dev/v1alpha1
kind: Agent
metadata: {{name: bench}}
spec: {{listeners: {{metrics: "127.0.0.1:{0}"}}}}
---
apiVersion: keyturn.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: local}}
spec: {{local: {{issuerURL: "https://bench.example", publishJWKS: {{listener: false}}}}}}
---
apiVersion: keyturn.dev/v1alpha1
kind: Token
metadata: {{name: one}}
spec: {{secretName: one, issuerRef: {{name: local, kind: TokenIssuer}}, audiences: ["https://bench.example"], duration: 1h}}
---
apiVersion: keyturn.dev/v1alpha1
kind: Consumer
metadata: {{name: one}}
spec:
  secrets: [one]
  prove: [{{secret: one, accepted: {{http: {{url: "http://127.0.0.1:{0}/livez"}}}}}}]
"""


class Place:
    """A folder in memory with manifests for n leaves."""

    def __init__(self, leaves, text=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="keyturn-bench.", dir="/dev/shm"))
        (self.dir / "m").mkdir()
        with open(self.dir / "m" / "all.yaml", "w", encoding="utf-8") as file:
            file.write(text or HEAD)
            file.writelines(LEAF.format(i) for i in range(leaves))

    def argv(self, *command):
        return [str(BUILD / "keyturn"), "-q", "-c", str(self.dir / "m"), "--state-dir", str(self.dir / "state"),
                "--secrets-dir", str(self.dir / "secrets"), "--socket", str(self.dir / "sock"), *command]

    def run(self, *command):
        begin = time.monotonic()
        done = subprocess.run(self.argv(*command), env=ENV, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - begin

    def close(self):
        shutil.rmtree(self.dir)


ENV = {**os.environ, "KEYTURN_LIBEXECDIR": str(BUILD)}


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def rollup(pid):
    """Pss, and private memory: what was written (Dirty), and file pages that nobody else happens to map (Clean)."""
    sums = {"Pss": 0, "Private_Dirty": 0, "Private_Clean": 0}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0])
    return sums


def cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(place, settle, watch, courier=False):
    """PSS and private memory of all rooms, and their CPU time over `watch` seconds with nothing due."""
    agent = subprocess.Popen(place.argv("run"), env=ENV, stderr=subprocess.DEVNULL)
    time.sleep(settle)
    pids = [agent.pid, *children(agent.pid)]
    sums = {"Pss": 0, "Private_Dirty": 0, "Private_Clean": 0}
    for pid in pids:
        for key, value in rollup(pid).items():
            sums[key] += value
    before = sum(cpu(pid) for pid in pids)
    time.sleep(watch)
    spent = sum(cpu(pid) for pid in pids) - before
    agent.terminate()
    agent.wait()
    return sums, spent, len(pids)


def main():
    count = 2000 if QUICK else 10000
    floor = float(subprocess.run([str(BUILD / "tests/bench/floor")], capture_output=True, check=True, text=True).stdout)
    place = Place(count)
    took = place.run("renew")
    place.close()
    rate = (count + 1) / took
    print(f"floor, one core (EVP_EC_gen + one signature)   {floor:10.0f} /s")
    print(f"{count} certificates end to end               {rate:10.0f} /s   {100 * rate / floor:.0f} % of the floor")

    place = Place(0)
    first = []
    for _ in range(3 if QUICK else 15):
        shutil.rmtree(place.dir / "state", ignore_errors=True)
        shutil.rmtree(place.dir / "secrets", ignore_errors=True)
        begin = time.monotonic()
        agent = subprocess.Popen(place.argv("renew"), env=ENV, stderr=subprocess.DEVNULL)
        while not (place.dir / "secrets" / "ca-tls" / "tls.crt").exists():
            time.sleep(0.0002)
        first.append(time.monotonic() - begin)
        agent.wait()
    place.close()
    print(f"exec to first delivered certificate (median)   {1000 * sorted(first)[len(first) // 2]:10.1f} ms")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = Place(0, FOUR_ROOMS.format(port))
    sums, spent, rooms = idle(place, 45, 10)
    place.close()
    print(f"idle, one proved credential, {rooms} rooms: {sums['Pss'] / 1024:5.1f} MiB PSS, "
          f"{sums['Private_Dirty'] / 1024:5.1f} MiB private dirty, {sums['Private_Clean'] / 1024:5.1f} clean, {1000 * spent / 10:.1f} ms CPU a second")

    sizes = (1, 1000) if QUICK else (1, 1000, 100000)
    base = None
    for n in sizes:
        place = Place(n - 1)
        place.run("renew")
        sums, spent, rooms = idle(place, 12 + n / 2000, 10)
        place.close()
        base = base or sums
        each = "" if n == 1 else f"   {1024 * (sums['Pss'] - base['Pss']) / (n - 1):.0f} bytes for each further one"
        print(f"idle, {n:6} credentials, {rooms} rooms: {sums['Pss'] / 1024:6.1f} MiB PSS, "
              f"{sums['Private_Dirty'] / 1024:5.1f} MiB private dirty, {sums['Private_Clean'] / 1024:5.1f} clean, {1000 * spent / 10:.1f} ms CPU a second{each}")


main()
