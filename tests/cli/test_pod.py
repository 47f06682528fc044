"""A pod as a kubelet makes it: data/examples/kubernetes/pod.yaml is run in namespaces of its own, as users without any capability.

An emptyDir is a tmpfs of mode 2777, root's and the fsGroup's; a ConfigMap a folder of mode 0777 behind links, mounted read-only;
all else is read-only. Each container is another user that shares the fsGroup.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lib.agent import BUILD, TOP, Keyturn
from lib.manifests import consumer
from lib.wait import until

POD = TOP / "data" / "examples" / "kubernetes" / "pod.yaml"

# Unshares, waits for its users, makes the mounts, says so, and holds them until its standard input ends.
PAUSE = r"""
import ctypes, fcntl, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def mount(source, target, kind, flags, data=None):
    call(libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode()))
REC, PRIVATE, BIND, REMOUNT, RDONLY, NOSUID, NODEV = 16384, 1 << 18, 4096, 32, 1, 2, 4
root, group = sys.argv[1], sys.argv[2]
call(libc.unshare(0x10000000 | 0x00020000 | 0x40000000))  # a user, mount and network namespace
print("unshared", flush=True)
sys.stdin.readline()
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
mount("none", "/", None, REC | PRIVATE)
attr = struct.pack("QQQQ", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
call(libc.syscall(442, -100, b"/", 0x8000, attr, 32))  # mount_setattr(AT_FDCWD, "/", AT_RECURSIVE)
for volume in sys.argv[3:]:
    target = f"{root}/{volume}"
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV, "size=16m")
    os.chown(target, 0, int(group))
    os.chmod(target, 0o2777 if int(group) else 0o777)
mount(f"{root}/configmap", f"{root}/manifests", None, BIND)
mount("none", f"{root}/manifests", None, BIND | REMOUNT | RDONLY | NOSUID | NODEV)
with socket.socket() as s:  # lo
    request = struct.pack("16sH14x", b"lo", 1)
    fcntl.ioctl(s, 0x8914, request)
print("ready", flush=True)
sys.stdin.read()
"""

ASK = r"""
import sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[2], method=sys.argv[1])
if len(sys.argv) > 3:
    request.add_header("Authorization", "Bearer " + sys.argv[3])
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.status, answer.read().decode(), end="")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), end="")
except OSError as error:
    print(0, error, end="")
"""


def namespaces():
    """Why they can't be had here, or None."""
    if os.geteuid() != 0:
        return "only root can give a user namespace the users of a pod"
    tried = subprocess.run(["unshare", "-Umn", "true"], capture_output=True)
    return tried.stderr.decode().strip() if tried.returncode else None


WEB = """apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web}
spec: {secretName: web-tls, dnsNames: [web.example], privateKey: {algorithm: ECDSA}, issuerRef: {name: self}}
"""
pytestmark = pytest.mark.skipif(namespaces() is not None, reason=namespaces() or "")


class Pod(Keyturn):
    """The volumes of a pod, and containers in it; paths of the example lie below self.root."""

    def __init__(self, group=2000, volumes=("certs", "secrets", "state")):
        super().__init__()
        self.group, self.volumes = group, volumes
        shutil.rmtree(self.manifests)
        shutil.rmtree(self.state)
        for name in ("configmap", "manifests", *volumes):
            (self.root / name).mkdir()
            (self.root / name).chmod(0o777)
        for name in ("KEYTURN_CONFIG", "KEYTURN_STATE_DIR", "KEYTURN_SECRETS_DIR", "KEYTURN_SOCKET", "HOME"):
            del self.env[name]
        self.pause = None

    def configmap(self, files):
        """As the kubelet writes it, with its links."""
        folder = self.root / "configmap"
        data = folder / "..2026_11_23_00_00_00.1"
        data.mkdir()
        data.chmod(0o755)
        for name, text in files.items():
            (data / name).write_text(text.replace("/certs", f"{self.root}/certs"))
            (data / name).chmod(0o644)
            (folder / name).symlink_to(f"..data/{name}")
        (folder / "..data").symlink_to(data.name)

    def up(self):
        self.pause = subprocess.Popen([sys.executable, "-c", PAUSE, str(self.root), str(self.group), *self.volumes],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.pause.stdout.readline() == "unshared\n"
        for kind in ("uid", "gid"):
            Path(f"/proc/{self.pause.pid}/{kind}_map").write_text("0 0 65536\n")
        self.pause.stdin.write("\n")
        self.pause.stdin.flush()
        assert self.pause.stdout.readline() == "ready\n"
        self.prefix = self.container(10001)
        return self

    def container(self, uid, groups=None):
        """argv that puts a command into the pod as this user: no capabilities, no new privileges."""
        groups = groups if groups is not None else str(self.group) if self.group else ""
        return ("nsenter", "-t", str(self.pause.pid), "-U", "-m", "-n", "--preserve-credentials", "--wd=/", "setpriv", f"--reuid={uid}",
                f"--regid={uid}", f"--groups={groups}" if groups else "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
                "--no-new-privs", "--")

    def do(self, uid, *argv, groups=None):
        return subprocess.run([*self.container(uid, groups), *map(str, argv)], capture_output=True, text=True, timeout=60,
                              env={"PATH": self.env["PATH"]})

    def ask(self, path, method="GET", token=None, port=9403):
        answer = self.do(10002, sys.executable, "-c", ASK, method, f"http://127.0.0.1:{port}{path}", *([token] if token else []))
        status, _, text = answer.stdout.partition(" ")
        return int(status or 0), text + answer.stderr

    def __exit__(self, *args):
        super().__exit__(*args)
        if self.pause:
            self.pause.stdin.close()
            self.pause.wait(10)

    def environment(self, container):
        self.env.update({e["name"]: e["value"] if e["name"] == "KEYTURN_SIDECAR" else f"{self.root}{e['value']}"
                         for e in container.get("env", [])})


def example():
    config, pod = yaml.safe_load_all(POD.read_text())
    return config, pod


@pytest.fixture
def pod():
    with Pod() as pod:
        config, spec = example()
        pod.configmap(config["data"])
        pod.environment(spec["spec"]["initContainers"][0])
        yield pod.up()


def mode(pod, uid, path):
    out = pod.do(uid, "stat", "-L", "-c", "%a %u %g", pod.root / path)
    assert out.returncode == 0, out.stderr
    return tuple(out.stdout.split())


def test_the_example_is_whole(kt):
    """What a kubelet would refuse for its form; the manifests in the ConfigMap are right, too."""
    config, pod = example()
    assert (config["kind"], pod["kind"]) == ("ConfigMap", "Pod")
    spec = pod["spec"]
    volumes = {v["name"] for v in spec["volumes"]}
    assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} == {config["metadata"]["name"]}
    containers = spec["initContainers"] + spec["containers"]
    assert len({c["name"] for c in containers}) == len(containers)
    for container in containers:
        mounts = container["volumeMounts"]
        assert {m["name"] for m in mounts} <= volumes and len({m["mountPath"] for m in mounts}) == len(mounts), container["name"]
        ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] in ports and ports["probes"] == 9403
    sidecar = spec["initContainers"][1]
    assert sidecar["restartPolicy"] == "Always" and "startupProbe" in sidecar
    for container in spec["initContainers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"] and security["runAsUser"] > 0
        assert all(isinstance(e["value"], str) for e in container["env"])
    for name, text in config["data"].items():
        kt.manifest(name.removesuffix(".yaml"), text)
    kt.ok("check", "--strict")


def test_init_container_then_sidecar(pod):
    """The whole pod: delivered before the program starts, then probes, the program's own user, and the end."""
    first, sidecar = example()[1]["spec"]["initContainers"]
    done = pod.run(*first["args"])
    assert done.status == 0, done
    assert all(json.loads(line) for line in done.err.splitlines()), "logs are JSON"
    # The program may read, and only it: by group, not as anybody else.
    assert mode(pod, 10002, "certs/tls.key") == ("640", "10001", "2000")
    assert "PRIVATE KEY" in pod.do(10002, "cat", pod.root / "certs/tls.key").stdout
    assert pod.do(10003, "cat", pod.root / "certs/tls.key", groups="").returncode != 0
    assert pod.do(10002, "cat", pod.root / "secrets/ca-tls/tls.key").returncode != 0, "the CA's key is keyturn's alone"
    assert mode(pod, 10001, "state/keyturn")[0] == "700"
    serial = pod.do(10002, "cat", pod.root / "certs/tls.crt").stdout

    agent = pod.background(*sidecar["args"])
    until(lambda: pod.ask("/startupz")[0] == 200, 20, f"started: {agent.err()}")
    assert pod.ask("/livez") == (200, "alive\n") and pod.ask("/readyz") == (200, "ready\n")
    assert pod.ask("/metrics")[0] == 200 and "keyturn_credentials" in pod.ask("/metrics")[1]
    assert pod.ask("/status.json")[0] == 404 and pod.ask("/")[0] == 404, "names are not for the whole cluster"
    assert pod.ask("/quit", "POST")[0] == 405, "the listener of the probes takes no commands"
    # kubectl exec: no option needed.
    rows = {r["name"]: r for r in pod.json("status")["credentials"]}
    assert set(rows) == {"ca", "service"}
    assert pod.do(10002, "cat", pod.root / "certs/tls.crt").stdout == serial, "the sidecar goes on with what is there"
    pod.ok("renew", "--force", "service")
    assert pod.do(10002, "cat", pod.root / "certs/tls.crt").stdout != serial
    assert mode(pod, 10002, "certs/tls.key") == ("640", "10001", "2000")

    doctor = {row["check"]: row for row in pod.json("doctor")["checks"]}
    walls = doctor["keeper's walls"]
    assert "in the agent" in walls["text"], walls
    sanitized = b"__asan_init" in (BUILD / "keyturn-keeper").read_bytes()  # such a build has no filter of system calls
    for wall in ("no_new_privs yes", "no core yes", "capabilities dropped yes", "seccomp NO" if sanitized else "seccomp yes"):
        assert wall in walls["text"], walls
    assert doctor["secretsDir"]["verdict"] == doctor["stateDir"]["verdict"] == "ok", doctor
    print("walls in the pod:", walls["text"])

    assert pod.ok("quit").out == "the agent is ending\n"
    assert agent.wait(20) == 0, agent.err()
    agent.no_room_left()


def test_quit_by_curl_on_the_control_socket(pod):
    agent = pod.background("run")
    until(lambda: pod.ask("/readyz")[0] == 200, 20, "ready")
    socket = pod.root / "state/keyturn/control.sock"
    other = pod.do(10002, "curl", "-sS", "--unix-socket", socket, "-X", "POST", "http://localhost/quit")
    assert other.returncode != 0 and agent.alive(), "another user may not"
    wrong = pod.do(10001, "curl", "-sS", "--unix-socket", socket, "http://localhost/quit")
    assert "only POST" in wrong.stdout, wrong
    wrong = pod.do(10001, "curl", "-sS", "--unix-socket", socket, "-X", "POST", "http://localhost/invalidate")
    assert "only POST /quit" in wrong.stdout and agent.alive()
    right = pod.do(10001, "curl", "-sS", "--unix-socket", socket, "-X", "POST", "http://localhost/quit")
    assert right.stdout == "the agent is ending\n", right
    assert agent.wait(20) == 0, agent.err()


def test_quit_lets_finish_what_is_in_flight(kt):
    """A hook that runs is not cut off; nothing new is begun; 0 although it was asked twice."""
    hook = kt.root / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {kt.root}/begun && sleep 2 && touch {kt.root}/ended\n")
    hook.chmod(0o755)
    kt.manifest("web", WEB, consumer("web", secrets=["web-tls"], notify=[{"exec": {"argv": [str(hook)], "user": "root"}}]))
    agent = kt.start()
    until(lambda: (kt.root / "begun").exists(), 10, "the hook runs")
    assert not (kt.root / "ended").exists()
    kt.ok("quit")
    kt.ok("renew", "--force", "--no-wait", "web")
    kt.ok("quit")
    assert agent.wait(20) == 0, agent.err()
    assert (kt.root / "ended").exists(), agent.err()
    assert len([r for r in kt.audit(step="switched") if r["outcome"] == "ok"]) == 1, "nothing new was begun"
    kt.ok("quit", status=3)


def test_quit_by_token(pod):
    token = pod.root / "token"
    token.write_text("correct horse battery\n")
    token.chmod(0o644)
    folder = pod.root / "configmap"
    (folder / "agent.yaml").write_text(f"""apiVersion: keyturn.dev/v1alpha1
kind: Agent
metadata: {{name: agent}}
spec:
  listeners: {{control: {{address: "127.0.0.1:9404", tokenFile: {token}}}}}
""")
    agent = pod.background("run", "--probe-address", "127.0.0.1:9500")
    until(lambda: pod.ask("/readyz", port=9500)[0] == 200, 20, f"ready {agent.err()}")
    assert pod.ask("/livez")[0] == 0, "--probe-address moves the probes"
    assert pod.ask("/quit", "POST", port=9404)[0] == 401
    assert pod.ask("/quit", "POST", "correct horse batterx", port=9404)[0] == 401
    assert pod.ask("/quit", "POST", "correct horse", port=9404)[0] == 401
    assert pod.ask("/quit", "GET", "correct horse battery", port=9404)[0] == 405
    assert pod.ask("/invalidate", "POST", "correct horse battery", port=9404)[0] == 404
    token.write_text("short\n")
    assert pod.ask("/quit", "POST", "short", port=9404)[0] == 503, "a short token opens nothing"
    token.write_text("another horse battery\n")
    assert pod.ask("/quit", "POST", "correct horse battery", port=9404)[0] == 401 and agent.alive()
    assert pod.ask("/quit", "POST", "another horse battery", port=9404) == (200, "the agent is ending\n")
    assert agent.wait(20) == 0, agent.err()
    assert "horse" not in agent.err()


def test_until_delivered_in_time_or_not(pod):
    """75 while something is missing that may come, once the time is over; and the next try goes on from there."""
    folder = pod.root / "configmap"
    (folder / "late.yaml").write_text("""apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: late}
spec: {acme: {server: "https://127.0.0.1:1/directory", skipTLSVerify: true, privateKeySecretRef: {name: late},
  solvers: [{http01: {ingress: {}}}]}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: late}
spec: {secretName: late-tls, dnsNames: [late.example], issuerRef: {name: late}}
""")
    began = time.monotonic()
    result = pod.run("run", "--until", "delivered", "--timeout", "4s")
    assert result.status == 75 and 3 < time.monotonic() - began < 25, result
    assert mode(pod, 10002, "certs/tls.crt")[2] == "2000", "what could be delivered is"
    (folder / "late.yaml").unlink()
    assert pod.run("run", "--until", "delivered", "--timeout", "20s").status == 0
    assert pod.run("run", "--timeout", "5s").status == 2, "--timeout is for --until"


def test_a_shared_volume_needs_the_word(pod):
    """Without --sidecar (or allowShared) a folder that others may write to is refused, and the hint says how to mend it."""
    refused = pod.run("run", "--until", "delivered", env={"KEYTURN_SIDECAR": "0"})
    assert refused.status in (2, 4) and "--sidecar" in refused.err, refused


@pytest.mark.parametrize("trap", ["link", "folder"])
def test_traps_of_the_neighbour_in_a_shared_volume(pod, trap):
    """Who may write to the same emptyDir can be in the way, but never has a key written where it wants it."""
    assert pod.do(10002, "mkdir", "-m", "777", pod.root / "certs/own").returncode == 0
    if trap == "link":
        assert pod.do(10002, "ln", "-s", pod.root / "certs/own", pod.root / "secrets/service-tls").returncode == 0
    else:
        assert pod.do(10002, "mkdir", "-m", "777", pod.root / "secrets/service-tls").returncode == 0
    result = pod.run("run", "--until", "delivered", "--timeout", "3s")
    assert result.status in (1, 4, 75), result
    found = pod.do(10002, "find", pod.root / "certs/own", pod.root / "secrets/service-tls/", "-name", "tls.key").stdout
    assert found == "", found


def test_state_folder_of_somebody_else(pod):
    """What a neighbour made before us is not taken for ours."""
    assert pod.do(10002, "mkdir", "-m", "777", pod.root / "state/keyturn").returncode == 0
    result = pod.run("run", "--until", "delivered")
    assert result.status == 4, result
    assert pod.do(10002, "ls", "-A", pod.root / "state/keyturn").stdout == ""


def test_secrets_group_without_a_consumer():
    """secretsGroup: the volumes in secretsDir themselves are the group's, keys 0640; a group that we are not in is refused."""
    with Pod(group=0) as pod:
        config, spec = example()
        pod.configmap({"service.yaml": "\n---\n".join(
            d for d in config["data"]["service.yaml"].split("\n---\n") if "kind: Consumer" not in d),
            "agent.yaml": 'apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {secretsGroup: "3000"}\n'})
        pod.environment(spec["spec"]["initContainers"][0])
        pod.up()
        refused = pod.run("run", "--until", "delivered")
        assert refused.status == 2 and "not in group 3000" in refused.err and "supplementalGroups" in refused.err, refused
        pod.prefix = pod.container(10001, groups="3000")
        assert pod.run("run", "--until", "delivered").status == 0
        assert mode(pod, 10001, "secrets/service-tls/tls.key") == ("640", "10001", "3000")
        assert mode(pod, 10001, "secrets/ca-tls/tls.key")[0] == "600", "the CA's key is for nobody else"
        key = pod.do(10002, "cat", pod.root / "secrets/service-tls/tls.key", groups="3000")
        assert "PRIVATE KEY" in key.stdout, key
        assert pod.do(10002, "cat", pod.root / "secrets/service-tls/tls.key", groups="2000").returncode != 0
        assert pod.do(10002, "cat", pod.root / "secrets/ca-tls/tls.key", groups="3000").returncode != 0


def test_fsgroup_widened_the_state(pod):
    """A kubelet that applies fsGroup again gives every file to the group: narrowed again, not refused."""
    assert pod.run("run", "--until", "delivered").status == 0
    widen = pod.do(10001, "sh", "-c", f"chmod 2770 {pod.root}/state/keyturn && chmod 660 {pod.root}/state/keyturn/*")
    assert widen.returncode == 0, widen
    result = pod.run("run", "--until", "delivered")
    assert result.status == 0, result
    assert mode(pod, 10001, "state/keyturn")[0] == "700"
    modes = pod.do(10001, "sh", "-c", f"stat -c %a {pod.root}/state/keyturn/*").stdout.split()
    assert modes and set(modes) == {"600"}, modes
