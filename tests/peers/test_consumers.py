"""Consumers: nginx and haproxy told by signal and exec, proved by handshake; what does not reload, validate or answer right."""

import datetime
import json
import os
import shutil
import stat
import time

import pytest

from lib.certs import Authority, key_pem, load, served
from lib.manifests import ca_issuer, certificate, consumer, projected
from lib.servers import Consumer, Haproxy, Nginx, program
from lib.wait import free_port, port_open, until

HOUR = {"duration": "1h", "renewBefore": "20m"}


@pytest.fixture
def ca(kt):
    authority = Authority()
    kt.secret("ca-root", tls__crt=authority.pem(), tls__key=key_pem(authority.key))
    return authority


def serial(kt, secret="web-tls"):
    return load(kt.read(secret, "tls.crt"))[0].serial_number


def served_serial(port, name="localhost"):
    cert = served(port, name)
    return cert.serial_number if cert else None


def serves(kt, port, name="web.example"):
    """After the proof by one handshake an old worker may still take a connection for a moment."""
    until(lambda: served_serial(port, name) == serial(kt), 15, "the delivered set is served")
    return True


def web(kt, *consumers, **spec):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **{**HOUR, **spec}), *consumers)


def tls(port, secret="web-tls", name="web.example"):
    return {"secret": secret, "tls": {"address": f"127.0.0.1:{port}", "serverName": name}}


def first_set(kt):
    """The volume is needed before a server can start: delivers without the consumer."""
    web(kt)
    kt.ok("renew")


def nginx_on(kt, folder):
    server = Nginx(kt.root)
    port = server.tls(folder / "tls.crt", folder / "tls.key", "web.example")
    return server, port


def script(kt, name, text):
    path = kt.root / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_nginx_by_signal(kt, ca):
    first_set(kt)
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        web(kt, consumer("edge", secrets=["web-tls"], within="15s", prove=[tls(port)],
                         notify=[{"signal": {"name": "HUP", "pidFile": str(server.pid_file)}}]))
        for _ in range(3):
            before = served_serial(port, "web.example")
            kt.ok("renew", "--force", timeout=60)
            now = serial(kt)
            assert now != before
            assert serves(kt, port)
            row = kt.credential("web")
            assert row["proved"] is True and row["state"] == "proved", row
            assert int(row["serial"], 16) == now
        proofs = kt.audit(step="proved", outcome="ok", consumer="default/edge")
        assert len({p["serial"] for p in proofs}) == 3, proofs
        assert "edge" in kt.ok("status", "web").out


def test_nginx_by_exec(kt, ca):
    """nginx -s reload, as a systemd unit's ExecReload does it."""
    first_set(kt)
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        web(kt, consumer("edge", secrets=["web-tls"], within="15s", prove=[tls(port)],
                         notify=[{"exec": {"argv": server.argv("-s", "reload"), **as_root()}}]))
        kt.ok("renew", "--force", timeout=60)
        assert serves(kt, port)


def as_root():
    return {"user": "root"} if os.geteuid() == 0 else {}


def test_haproxy_by_signal(kt, ca):
    """Combined PEM in a volume of its own; SIGUSR2 to the master."""
    volume = kt.root / "haproxy-certs"
    formats = {"additionalOutputFormats": [{"type": "CombinedPEM"}]}
    vol = projected(volume, ("web-tls", {"tls-combined.pem": "site.pem"}))
    web(kt, consumer("lb", volumes=[vol]), **formats)
    kt.ok("renew")
    with Haproxy(kt.root, volume / "site.pem") as server:
        assert serves(kt, server.port, "localhost")
        web(kt, consumer("lb", volumes=[vol], within="20s", prove=[tls(server.port)],
                         notify=[{"signal": {"name": "USR2", "pidFile": str(server.pid_file)}}]), **formats)
        for _ in range(2):
            kt.ok("renew", "--force", timeout=60)
            assert serves(kt, server.port, "localhost")
            assert kt.credential("web")["proved"] is True


def test_process_by_executable(kt, ca):
    first_set(kt)
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        own = kt.root / "nginx-copy"
        shutil.copy(os.path.realpath(program("nginx")), own)
        own.chmod(0o755)
        server.stop()
        server.argv = lambda *more: [str(own), "-e", str(server.tmp / "error.log"), "-p", str(server.tmp), "-c", str(server.config), *more]
        server.start()
        web(kt, consumer("edge", secrets=["web-tls"], within="15s", prove=[tls(port)],
                         notify=[{"signal": {"name": "HUP", "process": {"executable": str(own)}}}]))
        kt.ok("renew", "--force", timeout=60)
        assert serves(kt, port)


def test_systemd_where_there_is_none(kt, ca):
    """Asked for a reload by systemd on a machine without it: not proved, and the text says why."""
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here: what happens without it can't be seen")
    web(kt, consumer("edge", secrets=["web-tls"], within="2s", notify=[{"systemd": {"unit": "nginx.service"}}],
                     prove=[tls(free_port())]))
    result = kt.run("renew", timeout=60)
    assert result.status == 5, result
    assert "systemd" in result.err or "systemctl" in result.err, result
    assert "nginx.service" in result.err or "edge" in result.err, result


def test_one_that_does_not_reload(kt, ca):
    """Exit 5; `why` names the serial that was seen and the one that was expected; then it is told again and proves."""
    first_set(kt)
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        old = serial(kt)
        flag = kt.root / "now"
        deaf = script(kt, "deaf", f"[ -e {flag} ] || exit 0\nexec {' '.join(server.argv('-s', 'reload'))}\n")
        web(kt, consumer("edge", secrets=["web-tls"], within="3s", prove=[tls(port)],
                         notify=[{"exec": {"argv": [str(deaf)], **as_root()}}]))
        result = kt.run("renew", "--force", timeout=60)
        new = serial(kt)
        assert result.status == 5, result
        assert "edge" in result.err and "web" in result.err, result
        assert served_serial(port, "web.example") == old != new
        why = kt.run("why", "web").out
        assert f"{old:x}" in why.lower(), why
        assert f"{new:x}" in why.lower(), why
        assert "not proved" in why, why
        row = kt.credential("web")
        assert row["proved"] is False, row
        assert kt.run("status").out.count("proved") >= 1
        # an old set of ours is no wrong answer: the new one stays in place
        assert serial(kt) == new
        # now it listens; the agent tells it again by itself
        flag.touch()
        running = kt.start()
        until(lambda: served_serial(port, "web.example") == new, 30, "told again")
        until(lambda: kt.credential("web")["proved"], 15, "proved in the end")
        assert running.stop() == 0, running.err()


def test_unreachable_consumer(kt, ca):
    web(kt, consumer("edge", secrets=["web-tls"], within="2s", prove=[tls(free_port())]))
    result = kt.run("renew", timeout=60)
    assert result.status == 5, result
    assert "edge" in result.err, result
    assert kt.volume("web-tls").joinpath("tls.crt").exists(), "delivered all the same"


def test_bad_configuration_never_replaces_a_good_set(kt, ca):
    """nginx -t on the live configuration with the candidate in place: what fails is not switched to."""
    first_set(kt)
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        old = serial(kt)
        spec = {"secrets": ["web-tls"], "within": "15s", "prove": [tls(port)],
                "notify": [{"signal": {"name": "HUP", "pidFile": str(server.pid_file)}}],
                "validate": [{"exec": {"argv": server.argv("-t"), **as_root()}}]}
        web(kt, consumer("edge", **spec))
        kt.ok("renew", "--force", timeout=60)
        good = serial(kt)
        assert good != old and serves(kt, port)
        # A configuration that is wrong now: the check fails, so nothing may change.
        server.config.write_text(server.config.read_text() + "this is no directive;\n")
        generation = os.readlink(kt.volume("web-tls") / "..data")
        result = kt.run("renew", "--force", timeout=60)
        assert result.status in (1, 5), result
        assert "validat" in result.err, result
        assert "no directive" in result.err or "unknown directive" in result.err, result
        assert os.readlink(kt.volume("web-tls") / "..data") == generation
        assert serial(kt) == good
        assert served_serial(port, "web.example") == good


def test_validate_sees_the_candidate(kt, ca):
    """The check runs before the switch and reads the new certificate at the usual path."""
    first_set(kt)
    old = serial(kt)
    seen = kt.root / "seen"
    live = kt.volume("web-tls") / "tls.crt"
    check = script(kt, "check", f"openssl x509 -in {live} -noout -serial >> {seen}\n")
    web(kt, consumer("edge", secrets=["web-tls"], validate=[{"exec": {"argv": [str(check)], **as_root()}}]))
    kt.ok("renew", "--force", timeout=60)
    new = serial(kt)
    serials = [int(line.partition("=")[2], 16) for line in seen.read_text().split()]
    # The old set is looked at too: the Consumer is new, so it was delivered to it first.
    assert serials == [old, new], (serials, old, new)
    steps = [r["step"] for r in kt.audit(resource="Certificate/default/web") if int(r.get("serial") or "0", 16) == new]
    if os.geteuid() == 0:
        assert steps.index("validated") < steps.index("switched"), steps


def test_rollback_on_a_wrong_answer(kt, ca):
    """A consumer that reports something that was never ours: the previous set is put back, and said why."""
    first_set(kt)
    old = serial(kt)
    file = kt.volume("web-tls") / "tls.crt"
    with Consumer(file) as service:
        service.lie = "ab" * 32
        web(kt, consumer("svc", secrets=["web-tls"], within="2s", onFailure="Rollback",
                         notify=[{"http": {"url": service.url("/reload")}}],
                         prove=[{"secret": "web-tls", "observed": {"http": {"url": service.url("/status"), "jsonPath": ".used.sha256"}}}]))
        result = kt.run("renew", "--force", timeout=60)
        assert result.status == 5, result
        until(lambda: serial(kt) == old, 10, "the previous set is back")
        assert "abababab" in result.err + kt.run("why", "web").out
        assert kt.audit(step="rolled-back"), [r["step"] for r in kt.audit(resource="Certificate/default/web")]
        assert service.reloads >= 2, "told again after the rollback"


def test_keep_on_a_wrong_answer(kt, ca):
    first_set(kt)
    old = serial(kt)
    with Consumer(kt.volume("web-tls") / "tls.crt") as service:
        service.lie = "cd" * 32
        web(kt, consumer("svc", secrets=["web-tls"], within="2s", onFailure="Keep",
                         notify=[{"http": {"url": service.url("/reload")}}],
                         prove=[{"secret": "web-tls", "observed": {"http": {"url": service.url("/status"), "jsonPath": ".used.sha256"}}}]))
        result = kt.run("renew", "--force", timeout=60)
        assert result.status == 5, result
        assert serial(kt) != old


def test_http_notification_and_report(kt, ca):
    """A POST with a small JSON, and a proof by what the service reports: the SHA-256 of the certificate."""
    from cryptography.hazmat.primitives import hashes

    with Consumer(kt.volume("web-tls") / "tls.crt") as service:
        def read():
            try:
                service.sha256 = load((kt.volume("web-tls") / "tls.crt").read_bytes())[0].fingerprint(hashes.SHA256()).hex()
            except OSError:
                service.sha256 = ""

        service.read = read
        web(kt, consumer("svc", secrets=["web-tls"], within="5s", notify=[{"http": {"url": service.url("/reload")}}],
                         prove=[{"secret": "web-tls", "observed": {"http": {"url": service.url("/status"), "jsonPath": ".used.sha256"}}}]))
        kt.ok("renew", timeout=60)
        assert kt.credential("web")["proved"] is True
        headers, body = service.bodies[0]
        told = json.loads(body)
        assert int(told["serial"], 16) == serial(kt) and told["secretName"] == "web-tls"
        assert {k.lower(): v for k, v in headers.items()}["traceparent"].split("-")[1] == kt.credential("web")["traceId"]


def test_touch(kt, ca):
    path = kt.root / "watched"
    path.touch()
    os.utime(path, (1, 1))
    web(kt, consumer("watcher", secrets=["web-tls"], notify=[{"touch": {"path": str(path)}}]))
    kt.ok("renew", timeout=60)
    assert path.stat().st_mtime > 1000


def test_hook_environment(kt, ca):
    """Fixed and documented: nothing of ours leaks, no secret in it; output is capped."""
    seen = kt.root / "env"
    hook = script(kt, "hook", f"env > {seen}\nhead -c 5000000 /dev/zero | tr '\\0' x\n")
    web(kt, consumer("edge", secrets=["web-tls"], notify=[{"exec": {"argv": [str(hook)], "env": {"MINE": "1"}, **as_root()}}]))
    kt.ok("renew", timeout=60, env={"LEAK_ME": "secret-of-the-shell"})
    env = dict(line.partition("=")[::2] for line in seen.read_text().splitlines() if "=" in line)
    assert "LEAK_ME" not in env
    assert env["KEYTURN_NAME"].endswith("web") and env["KEYTURN_SECRET_DIR"] == str(kt.volume("web-tls"))
    assert env["KEYTURN_STEP"] == "notify" and env["MINE"] == "1"
    assert env["KEYTURN_NOT_AFTER"] and env["TRACEPARENT"].split("-")[1] == kt.credential("web")["traceId"]
    assert "PRIVATE KEY" not in seen.read_text()


def test_hook_that_hangs(kt, ca):
    hook = script(kt, "hang", "sleep 300 &\nsleep 300\n")
    web(kt, consumer("edge", secrets=["web-tls"], within="3s", notify=[{"exec": {"argv": [str(hook)], "timeout": "1s", **as_root()}}]))
    began = time.monotonic()
    result = kt.run("renew", timeout=40)
    assert result.status == 5, result
    assert time.monotonic() - began < 25
    assert "did not end within 1 s" in result.err, result


def test_proof_by_exec(kt, ca):
    first_set(kt)
    marker = kt.root / "good"
    probe = script(kt, "probe", f"test -e {marker}\n")
    spec = {"secrets": ["web-tls"], "within": "2s", "onFailure": "Keep",
            "prove": [{"secret": "web-tls", "exec": {"argv": [str(probe)], **as_root()}}]}
    web(kt, consumer("edge", **spec))
    assert kt.run("renew", "--force", timeout=40).status == 5
    marker.touch()
    kt.ok("renew", "--force", timeout=40)
    assert kt.credential("web")["proved"] is True


def test_access_log(kt, ca):
    """A proof by a column of a log that the consumer's peer writes."""
    log = kt.root / "access.log"
    log.write_text("")
    log.chmod(0o644)
    live = kt.volume("web-tls") / "tls.crt"
    hook = script(kt, "hook", f"s=$(openssl x509 -in {live} -noout -serial | cut -d= -f2)\necho \"GET / 200 $s\" >> {log}\n")
    web(kt, consumer("edge", secrets=["web-tls"], within="5s", notify=[{"exec": {"argv": [str(hook)], **as_root()}}],
                     prove=[{"secret": "web-tls", "observed": {"accessLog": {"path": str(log), "field": "4"}}}]))
    kt.ok("renew", timeout=40)
    assert kt.credential("web")["proved"] is True


def test_two_in_turn(kt, ca):
    """maxUnavailable 1: the second is told only after the first is proved."""
    first_set(kt)
    one, port1 = nginx_on(kt, kt.volume("web-tls"))
    two, port2 = nginx_on(kt, kt.volume("web-tls"))
    with one, two:
        log = kt.root / "order"

        def reload(name, server, delay):
            return script(kt, f"reload-{name}", f"echo told-{name} $(date +%s.%N) >> {log}\nsleep {delay}\n{' '.join(server.argv('-s', 'reload'))}\n")

        def member(name, server, port, delay):
            return consumer(name, secrets=["web-tls"], within="20s", prove=[tls(port)], rollout={"maxUnavailable": 1},
                            notify=[{"exec": {"argv": [str(reload(name, server, delay))], **as_root()}}])

        web(kt, member("first", one, port1, 1), member("second", two, port2, 0))
        kt.ok("renew", "--force", timeout=60)
        assert serves(kt, port1) and serves(kt, port2)
        told = [line.split()[0] for line in log.read_text().splitlines()]
        assert sorted(told) == ["told-first", "told-second"], told
        records = [(r["step"], r["consumer"]) for r in kt.audit(resource="Certificate/default/web", outcome="ok")
                   if r.get("consumer") and int(r["serial"], 16) == serial(kt)]
        order = [c for s, c in records if s == "proved"]
        assert records.index(("proved", order[0])) < records.index(("notified", order[1])), records


def test_second_is_spared_when_the_first_fails(kt, ca):
    first_set(kt)
    one, port1 = nginx_on(kt, kt.volume("web-tls"))
    two, port2 = nginx_on(kt, kt.volume("web-tls"))
    with one, two:
        old = serial(kt)
        web(kt, consumer("a", secrets=["web-tls"], within="2s", prove=[tls(port1)], rollout={"maxUnavailable": 1}),
            consumer("b", secrets=["web-tls"], within="2s", prove=[tls(port2)], rollout={"maxUnavailable": 1},
                     notify=[{"signal": {"name": "HUP", "pidFile": str(two.pid_file)}}]))
        result = kt.run("renew", "--force", timeout=60)
        assert result.status == 5, result
        told = kt.audit(step="notified", outcome="ok", consumer="default/b")
        assert served_serial(port2, "web.example") == old and not told, "b keeps serving while a is not proved"


def in_six_hours():
    at = time.gmtime(time.time() + 6 * 3600)
    return {"cron": f"{at.tm_min} {at.tm_hour} * * *", "windowDuration": "59m"}


def two_in_line(kt):
    """The first waits for its window, the second for the first: consumers, and who was told."""
    told = kt.root / "told"

    def member(name, **rollout):
        hook = script(kt, f"hook-{name}", f"echo {name} >> {told}\n")
        return consumer(name, secrets=["web-tls"], within="5s", notify=[{"exec": {"argv": [str(hook)], **as_root()}}], rollout=rollout)

    first_set(kt)
    first, second = member("first", windows=[in_six_hours()]), member("second", maxUnavailable=1)
    web(kt, first)
    kt.ok("renew", timeout=40)
    web(kt, first, second)
    kt.ok("renew", "--force", "web", timeout=40)
    assert not told.exists() and {c.get("waitsFor") for c in kt.credential("web")["consumers"]} == {"window", None}
    return first, second, told


def test_who_is_removed_is_not_waited_for(kt, ca):
    """A Consumer that waits for its window goes from the manifests: those behind it have their turn, and the wait is over."""
    _, second, told = two_in_line(kt)
    web(kt, second)
    kt.ok("renew", timeout=40)
    row = kt.credential("web")
    assert told.exists() and told.read_text().split() == ["second"], row
    assert row["state"] != "waiting" and [c["state"] for c in row["consumers"]] == ["superseded", "delivered"], row


def test_window_of_one_that_uses_many(kt, ca):
    """What it uses of a credential is told by that credential's history, however much else the consumer uses."""
    names = [f"c{i}" for i in range(100)]
    hook = script(kt, "hook", "true\n")

    def manifest(window, **first):
        edge = consumer("edge", secrets=[f"{name}-tls" for name in names], notify=[{"exec": {"argv": [str(hook)], **as_root()}}], **window)
        kt.manifest("web", ca_issuer(), certificate(names[0], "ca", **{**HOUR, **first}),
                    *(certificate(name, "ca", duration="720h") for name in names[1:]), edge)

    manifest({})
    kt.ok("renew", timeout=60)
    for _ in range(4):
        kt.ok("renew", "--force", *names[1:], timeout=60)
    manifest({"rollout": {"windows": [in_six_hours()]}}, duration="720h", renewBefore="240h")
    kt.ok("renew", timeout=60)
    row = kt.credential(names[0])
    told = datetime.datetime.strptime(row["consumers"][0]["nextTry"], "%Y-%m-%dT%H:%M:%SZ") - datetime.datetime.utcnow()
    assert told < datetime.timedelta(hours=1), f"what it uses ends in an hour: {row}"


def test_one_that_uses_hundreds(kt, ca):
    """Each secret is in its volume, and the consumer is told of each."""
    names = [f"c{i}" for i in range(144)]
    told = kt.root / "told"
    hook = script(kt, "hook", f"echo told >> {told}\n")
    volumes = [projected(kt.root / f"volume-{at}", *((f"{name}-tls", {"tls.crt": f"{name}.crt"}) for name in names[at:at + 16]))
               for at in range(0, len(names), 16)]
    kt.manifest("web", ca_issuer(), *(certificate(name, "ca", **HOUR) for name in names),
                consumer("edge", volumes=volumes, notify=[{"exec": {"argv": [str(hook)], **as_root()}}]))
    kt.ok("renew", timeout=60)
    assert len(list(kt.root.glob("volume-*/c*.crt"))) == len(names)
    assert len(told.read_text().split()) == len(names)


def test_one_that_hundreds_use(kt, ca):
    told = kt.root / "told"
    hook = script(kt, "hook", f"echo told >> {told}\n")
    web(kt, *(consumer(f"edge-{i}", secrets=["web-tls"], notify=[{"exec": {"argv": [str(hook)], **as_root()}}]) for i in range(130)))
    kt.ok("renew", timeout=60)
    assert len(told.read_text().split()) == 130


def test_waiting_in_line_costs_nothing(kt, ca):
    """Behind one that waits for days nothing is written down twice a second."""
    two_in_line(kt)
    running = kt.start()
    time.sleep(2)
    log = kt.state / "state.db-wal"
    seen = set()
    for _ in range(30):
        seen.add((log.stat().st_mtime_ns, log.stat().st_size) if log.exists() else None)
        time.sleep(0.1)
    assert len(seen) <= 2, f"{len(seen)} writes in 3 s"
    assert running.stop() == 0, running.err()


def test_run_rotates_under_load(kt, ca):
    """`keyturn run` with a certificate that lives for 10 s: three proved rotations, and every handshake meets a valid one."""
    web(kt, duration="10s", renewBefore="6s")
    kt.ok("renew")
    server, port = nginx_on(kt, kt.volume("web-tls"))
    with server:
        web(kt, consumer("edge", secrets=["web-tls"], within="3s", prove=[tls(port)],
                         notify=[{"signal": {"name": "HUP", "pidFile": str(server.pid_file)}}]), duration="10s", renewBefore="6s")
        running = kt.start()
        seen, failed = set(), 0
        end = time.monotonic() + 18
        while time.monotonic() < end:
            cert = served(port, "web.example")
            if cert is None:
                failed += 1
                continue
            seen.add(cert.serial_number)
            assert cert.not_valid_after.timestamp() - time.timezone >= int(time.time()), "an expired certificate is served"
            time.sleep(0.02)
        assert failed == 0 and len(seen) >= 3, (failed, len(seen))
        assert running.stop() == 0, running.err()
        assert len(kt.audit(step="proved", outcome="ok", consumer="default/edge")) >= 3


def test_own_port_stays_closed(kt, ca):
    """One-shot without an order: no listener is opened."""
    port = free_port()
    kt.agent_settings(listeners={"http01": f"127.0.0.1:{port}", "metrics": f"127.0.0.1:{port}"})
    web(kt)
    kt.ok("renew")
    assert not port_open(port)
    assert stat.S_ISDIR(kt.volume("web-tls").stat().st_mode)
