"""Java programs as Mule runs them: key stores that are read once, at deployment, behind haproxy; tokens that are asked for in each call."""

import datetime
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lib.agent import BUILD
from lib.certs import Authority, key_pem, load, served
from lib.manifests import ca_issuer, certificate, consumer, token
from lib.servers import Server, program
from lib.wait import Process, free_port, until

PASSWORD = "Mule-store-123"
KEYSTORES = {"pkcs12": {"create": True, "profile": "Modern2023", "passwordSecretRef": {"name": "store", "key": "password"}}}
DAYS = {"duration": "48h", "renewBefore": "16h", "keystores": KEYSTORES}
NAME = "orders.example"


@pytest.fixture(scope="session")
def classes():
    """AppServer.java, compiled."""
    with tempfile.TemporaryDirectory(prefix="kt-java.") as folder:
        done = subprocess.run([program("javac"), "-d", folder, Path(__file__).with_name("AppServer.java")], capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Path(folder)


@pytest.fixture
def ca(kt):
    authority = Authority()
    kt.secret("ca-root", tls__crt=authority.pem(), tls__key=key_pem(authority.key))
    kt.secret("store", password=PASSWORD)
    return authority


def as_root():
    return {"user": "root"} if os.geteuid() == 0 else {}


class Runtime(Server):
    """A runtime with the app `orders`, its files laid out as in MULE_HOME."""

    def __init__(self, kt, classes, name, keystore):
        self.name, self.classes, self.port, self.ready = name, classes, free_port(), free_port()
        self.apps = kt.root / name / "apps"
        self.descriptor = self.apps / "orders" / "META-INF" / "mule-artifact" / "mule-artifact.json"
        self.descriptor.parent.mkdir(parents=True)
        self.descriptor.write_text('{"minMuleVersion": "4.4.0"}\n')
        self.anchor = self.apps / "orders-anchor.txt"
        self.password = kt.root / f"{name}.password"
        self.password.write_text(PASSWORD + "\n")
        self.password.chmod(0o600)
        self.settings = {"port": self.port, "keystore": keystore, "alias": "certificate", "passwordFile": self.password, "startup": 200}
        self.configure()

    def configure(self, **other):
        """What the app is deployed with from the next time on."""
        self.settings.update(other)
        (self.apps / "orders" / "app.properties").write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))

    def log(self):
        return (self.apps / "mule.log").read_text()

    def start(self):
        self.process = Process([program("java"), "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx48m", "-cp", self.classes, "AppServer", self.apps,
                                "orders", self.ready], self.apps / "mule.log")
        self.process.wait_port(self.port, 30)

    def deployments(self):
        """(serials it was deployed with, failed deployments)"""
        lines = self.log().splitlines()
        return [int(line.split()[-1], 16) for line in lines if " deployed with " in line], [li for li in lines if "deployment failed" in li]

    def times(self, what):
        """When it did that, in seconds."""
        return [int(line.split()[0]) / 1000 for line in self.log().splitlines() if f" {what}" in line]

    def touched(self):
        return self.descriptor.stat().st_mtime_ns

    def serial(self):
        cert = served(self.port, NAME, 2)
        return cert.serial_number if cert else None

    def consumer(self, kt, balancer=None, **spec):
        rollout = {"maxUnavailable": 1, **spec.pop("rollout", {})}
        prove = [{"secret": "orders-tls", "tls": {"address": f"127.0.0.1:{self.port}", "serverName": NAME}}]
        if balancer:
            prove.append({"secret": "orders-tls", "exec": {"argv": [str(balancer.taken_back), self.name], **as_root()}})
        return consumer(self.name, secrets=["orders-tls"], notify=[{"touch": {"path": str(self.descriptor)}}], rollout=rollout,
                        prove=prove, **{"within": "20s", **spec})


class Balancer(Server):
    """haproxy, TCP: a runtime that says that it is not ready gets no more connections; a refused one goes to the other."""

    def __init__(self, tmp, *runtimes):
        self.port, self.state = free_port(), free_port()
        self.config = Path(tmp) / "balancer.cfg"
        self.taken_back = Path(tmp) / "taken-back"
        self.taken_back.write_text(f"""#!/bin/sh
for i in $(seq 100); do
	curl -s 'http://127.0.0.1:{self.state}/;csv' | cut -d, -f1,2,18 | grep -qx "orders,$1,UP" && exit 0
	sleep 0.1
done
exit 1
""")
        self.taken_back.chmod(0o755)
        servers = "".join(f"\tserver {r.name} 127.0.0.1:{r.port} check port {r.ready}\n" for r in runtimes)
        self.config.write_text(f"""global
	maxconn 500
defaults
	mode tcp
	timeout connect 2s
	timeout client 10s
	timeout server 10s
	timeout check 5s
	retries 3
	option redispatch
listen state
	mode http
	bind 127.0.0.1:{self.state}
	stats enable
	stats uri /
listen orders
	bind 127.0.0.1:{self.port}
	balance roundrobin
	option httpchk GET /
	default-server inter 50ms fall 1 rise 1
{servers}""")

    def start(self):
        self.process = Process([program("haproxy"), "-db", "-f", self.config], self.config.with_suffix(".log"))
        self.process.wait_port(self.port)


class Load:
    """Callers that make request after request through the balancer, each over a connection of its own, and never twice."""

    def __init__(self, port, authority, callers=3):
        self.port, self.context = port, ssl.create_default_context(cadata=authority.pem().decode())
        self.answers, self.failures, self.ended = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.call, daemon=True) for _ in range(callers)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until(lambda: len(self.answers) > 5 or self.failures, 20, "calls are answered")
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(15)

    def call(self):
        while not self.ended.wait(0.01):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=8) as raw:
                    with self.context.wrap_socket(raw, server_hostname=NAME) as tls:
                        tls.sendall(b"GET / HTTP/1.1\r\nHost: orders.example\r\n\r\n")
                        answer = b""
                        while more := tls.recv(4096):
                            answer += more
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                self.answers.append((time.time(), int(answer.split()[-1], 16)))
            except (OSError, AssertionError) as error:
                self.failures.append((time.time(), repr(error)))

    def serials(self, since=0.0):
        return {serial for when, serial in list(self.answers) if when >= since}


def serial(kt):
    return load(kt.read("orders-tls", "tls.crt"))[0].serial_number


def manifest(kt, *consumers):
    kt.manifest("orders", ca_issuer(), certificate("orders", "ca", [NAME], **DAYS), *consumers)


def first_set(kt):
    """What the runtimes are deployed with, before anybody is told."""
    manifest(kt)
    kt.ok("renew")
    return serial(kt)


def pair(kt, classes):
    keystore = kt.volume("orders-tls") / "keystore.p12"
    return Runtime(kt, classes, "mule-a", keystore), Runtime(kt, classes, "mule-b", keystore)


def test_one_runtime_at_a_time(kt, ca, classes):
    """The second is touched after the first has shown the new certificate; callers of both notice nothing but the new serial."""
    old = first_set(kt)
    one, two = pair(kt, classes)
    with one, two, Balancer(kt.root, one, two) as balancer, Load(balancer.port, ca) as calls:
        manifest(kt, one.consumer(kt, balancer), two.consumer(kt, balancer))
        touched = one.touched(), two.touched()
        kt.ok("renew", timeout=60)  # the Consumers are new, and use what there is: nobody is redeployed for that
        assert (one.touched(), two.touched()) == touched and kt.credential("orders")["proved"] is True
        began = time.time()
        for _ in range(2):
            kt.ok("renew", "--force", "orders", timeout=60)
            new = serial(kt)
            assert new != old and one.serial() == two.serial() == new
            assert kt.credential("orders")["proved"] is True
            old = new
        until(lambda: calls.serials(time.time() - 0.2) == {new}, 5, "callers meet the new one only")
    assert not calls.failures, calls.failures[:5]
    assert len(calls.serials(began)) == 3 and len(calls.answers) > 100, (calls.serials(), len(calls.answers))
    # Never both at once: each was away only while the other was there.
    assert len(one.times("undeployed")) == len(two.times("undeployed")) == 2, one.log() + two.log()
    away = sorted((begin, end) for r in (one, two) for begin, end in zip(r.times("undeployed"), r.times("deployed with")[1:]))
    assert all(end <= begin for (_, end), (begin, _) in zip(away, away[1:])), away
    records = [(r["step"], r["consumer"]) for r in kt.audit(resource="Certificate/default/orders", outcome="ok")
               if r.get("consumer") and int(r["serial"], 16) == new]
    first, second = [c for s, c in records if s == "proved"]
    assert records == [("notified", first), ("proved", first), ("notified", second), ("proved", second)], records


@pytest.mark.parametrize("fault", [{"alias": "orders"}, {"passwordFile": "wrong"}])
def test_stops_at_the_first_bad_one(kt, ca, classes, fault):
    """The first does not come up: the second is left alone and serves the old certificate; mended, the rest follows."""
    old = first_set(kt)
    one, two = pair(kt, classes)
    wrong = kt.root / "wrong"
    wrong.write_text("another-password\n")
    with one, two, Balancer(kt.root, one, two) as balancer, Load(balancer.port, ca) as calls:
        manifest(kt, one.consumer(kt, balancer, within="3s"), two.consumer(kt, balancer, within="3s"))
        kt.ok("renew", timeout=60)
        good = dict(one.settings)
        one.configure(**{k: wrong if v == "wrong" else v for k, v in fault.items()})
        touched, anchored = two.touched(), one.anchor.stat().st_mtime_ns
        running = kt.start() if "passwordFile" in fault else None
        result = kt.run("renew", "--force", "orders", timeout=60)
        new = serial(kt)
        assert result.status == 5, result
        assert "mule-a" in result.err and "mule-b" not in result.err.replace("mule-b: pending", ""), result
        assert one.deployments()[1] and one.serial() is None and one.anchor.stat().st_mtime_ns == anchored
        assert two.touched() == touched and two.serial() == old != new
        row = kt.credential("orders")
        assert row["proved"] is False and row["state"] == "not proved" and row["step"] == "notified", row
        states = {c["name"]: c["state"] for c in row["consumers"]}
        assert states["default/mule-b"] == "pending", states
        assert kt.audit(outcome="failed", consumer="default/mule-a") and not kt.audit(step="notified", consumer="default/mule-b", outcome="ok",
                                                                                        serial=row["serial"])
        assert calls.serials(time.time() - 0.3) == {old}
        one.configure(**good)
        if running:  # by itself: late ones are told again, patiently
            until(lambda: kt.credential("orders")["proved"], 30, "both are proved", 0.2)
            assert running.stop() == 0, running.err()
        else:
            kt.ok("renew", "orders", timeout=60)
        assert one.serial() == two.serial() == new
        assert len(two.deployments()[0]) == 2, two.log()
    assert not calls.failures, calls.failures[:5]


def test_rollback_spares_those_that_never_took_it(kt, ca, classes):
    """The balancer does not take the first one back: it gets the previous set again, the second has had it all the while."""
    old = first_set(kt)
    one, two = pair(kt, classes)
    with one, two, Balancer(kt.root, one, two) as balancer:
        closed = {"windows": [window(datetime.datetime.utcnow() + datetime.timedelta(hours=6))]}
        manifest(kt, one.consumer(kt, balancer, within="2s", rollout=closed), two.consumer(kt, balancer, within="2s", rollout=closed))
        kt.ok("renew", timeout=60)
        balancer.taken_back.write_text("#!/bin/sh\nexit 1\n")
        touched = two.touched()
        result = kt.run("renew", "--force", "--now", "orders", timeout=60)
        assert result.status == 5, result
        assert [r["consumer"] for r in kt.audit(step="notified", outcome="ok")][:1] == ["default/mule-a"]
        assert kt.audit(step="rolled-back"), kt.audit(resource="Certificate/default/orders")
        assert serial(kt) == old
        until(lambda: one.serial() == old, 20, "the first has the previous set again")
        assert len(one.deployments()[0]) == 3 and len(two.deployments()[0]) == 1, one.log() + two.log()
        assert two.serial() == old and two.touched() == touched


def test_slow_deployment_is_not_disturbed(kt, ca, classes):
    """One that takes longer than `within` is looked at before it is told again: a second redeployment would only take as long."""
    first_set(kt)
    one, _ = pair(kt, classes)
    with one:
        manifest(kt, one.consumer(kt))
        kt.ok("renew", timeout=60)
        manifest(kt, one.consumer(kt, within="1s"))
        one.configure(startup=2500)
        with_agent = kt.start()
        kt.run("renew", "--force", "orders", timeout=60)
        until(lambda: kt.credential("orders")["proved"], 30, "it is proved when it is up", 0.2)
        assert one.serial() == serial(kt)
        before = len(one.times("undeployed"))
        time.sleep(1)
        assert len(one.times("undeployed")) == before, "told again though it has taken it"
        assert with_agent.stop() == 0, with_agent.err()


def window(opens, minutes=59):
    return {"cron": f"{opens.minute} {opens.hour} * * *", "windowDuration": f"{minutes}m"}


def test_window(kt, ca, classes):
    """Outside of its window no runtime is touched: the files are there, status says until when; then one after the other."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    old = first_set(kt)
    one, two = pair(kt, classes)
    with one, two:
        now = datetime.datetime.utcnow()
        closed = {"rollout": {"windows": [window(now + datetime.timedelta(hours=6))]}}
        manifest(kt, one.consumer(kt, **closed), two.consumer(kt, **closed))
        touched = one.touched(), two.touched()
        result = kt.ok("renew", "--force", "orders", timeout=60)
        assert result.seconds < 5 and "wait for their windows" in result.out, result
        assert serial(kt) != old and (one.touched(), two.touched()) == touched
        assert one.serial() == two.serial() == old
        row = kt.credential("orders")
        assert row["proved"] is False and row["state"] == "waiting", row
        assert {c["waitsFor"] for c in row["consumers"]} == {"window"}, row
        assert row["consumers"][0]["nextTry"][11:16] == f"{(now + datetime.timedelta(hours=6)):%H:%M}", row
        assert "waits for its window" in kt.ok("status", "orders").out
        assert "waits for its window" in kt.ok("why", "orders").out
        kt.ok("renew", timeout=60)  # a timer's: it changes nothing
        assert (one.touched(), two.touched()) == touched
        # A person may do it now.
        kt.ok("renew", "--now", "orders", timeout=60)
        assert one.serial() == two.serial() == serial(kt) and kt.credential("orders")["proved"] is True
        if b"__asan_init" in (BUILD / "keyturn").read_bytes():
            return  # no program lives with both of these libraries
        # And a window that opens while the agent runs: by its clock in 6 s.
        opens = datetime.datetime.utcnow().replace(second=0, microsecond=0)
        soon = {"rollout": {"windows": [window(opens)]}}
        manifest(kt, one.consumer(kt, **soon), two.consumer(kt, **soon))
        behind = (datetime.datetime.utcnow() - opens).total_seconds() + 6
        before, touched = serial(kt), (one.touched(), two.touched())
        running = kt.start(env={"LD_PRELOAD": str(library), "FAKETIME": f"-{behind:.1f}", "KEYTURN_TEST_ENV": "1"})
        kt.ok("renew", "--force", "orders", timeout=60)
        assert serial(kt) != before and (one.touched(), two.touched()) == touched, "told before its window"
        assert one.serial() == two.serial() == before
        until(lambda: kt.credential("orders")["proved"], 30, "both are proved in the window", 0.2)
        assert one.serial() == two.serial() == serial(kt)
        assert one.touched() < two.touched()
        assert running.stop() == 0, running.err()


def test_java_program_asks_per_call(kt):
    """data/examples/mule/Tokens.java: the token in force from the local socket, and another one after a 401, once."""
    example = Path(__file__).resolve().parent.parent.parent / "data" / "examples" / "mule" / "Tokens.java"
    minter = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "minter"},
              "spec": {"local": {"issuerURL": "https://minter.example", "publishAhead": "0s"}}}
    kt.agent_settings(listeners={"tokens": f"unix:{kt.root}/tokens.sock"})
    kt.manifest("set", minter, token("orders", "minter", audiences=["orders"], outputs=["raw"]),
                consumer("mule", secrets=["orders-token"], socket={"users": [str(os.geteuid())]}))
    running = kt.start()
    until(lambda: (kt.volume("orders-token") / "token").exists() and (kt.root / "tokens.sock").exists(), 20, "a token is there")

    def call(*more, secret="orders-token"):
        done = subprocess.run([program("java"), "-XX:TieredStopAtLevel=1", example, kt.root / "tokens.sock", "default", secret, *more],
                              capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else done.stderr

    first = call()
    assert first == kt.read("orders-token", "token").decode() and first.count(".") == 2
    second = call(first)
    assert second != first and second == kt.read("orders-token", "token").decode() == call()
    assert call(first) == second, "a late complaint changes nothing"
    assert "no token: HTTP/1.1 403" in call(secret="another-token")
    assert len(kt.audit(step="token.invalidated")) == 1
    assert running.stop() == 0, running.err()
