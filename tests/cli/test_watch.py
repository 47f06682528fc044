"""kind Watch: what something else issues is read, warned about, renewed by its own command, and the renewal is proved."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from lib.wait import free_port, until

RENEW = """#!/bin/sh
# What Flex or a Mule agent would do: ask its own issuer for a fresh certificate.
echo "start $$ $KEYTURN_STEP $KEYTURN_NAME" >> "$RUNS"
[ -z "$SLOW" ] || sleep "$SLOW"
[ ! -e "$RUNS.fail" ] || { echo "the control plane says no"; exit 3; }
[ -e "$RUNS.idle" ] || {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=flex -days 30 \\
        -keyout "$FILE.key" -out "$FILE.new" 2>/dev/null && mv "$FILE.new" "$FILE"
}
echo "end $$" >> "$RUNS"
"""


class Foreign:
    """A credential of somebody else's, and the script that renews it."""

    def __init__(self, kt):
        self.kt = kt
        self.folder = kt.root / "foreign"
        self.folder.mkdir()
        self.file = self.folder / "registration.pem"
        self.runs = self.folder / "runs"
        self.script = kt.root / "renew"
        self.script.write_text(RENEW)
        self.script.chmod(0o755)

    def make(self, seconds, name="flex"):
        """A certificate that ends in so many seconds, as if it had been issued for a longer time before."""
        config = self.folder / "req.cnf"
        config.write_text("[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=%s\n[v3]\n"
                          "basicConstraints=CA:FALSE\n" % name)
        before = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() - 86400))
        after = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))
        csr, key = self.folder / "x.csr", self.folder / "x.key"
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", config,
                        "-keyout", key, "-out", csr], check=True, capture_output=True)
        ca = self.folder / "ca"
        shutil.rmtree(ca, ignore_errors=True)
        ca.mkdir()
        (ca / "index.txt").write_text("")
        (ca / "serial").write_text("%016X\n" % time.time_ns())
        (ca / "ca.cnf").write_text(f"[ca]\ndefault_ca=c\n[c]\ndatabase={ca}/index.txt\nserial={ca}/serial\nnew_certs_dir={ca}\n"
                                   "default_md=sha256\npolicy=p\nrand_serial=no\n[p]\ncommonName=supplied\n")
        subprocess.run(["openssl", "ca", "-batch", "-selfsign", "-config", ca / "ca.cnf", "-keyfile", key, "-in", csr, "-startdate",
                        before, "-enddate", after, "-notext", "-out", self.folder / "x.pem"], check=True, capture_output=True)
        os.replace(self.folder / "x.pem", self.file)
        return self.file

    def watch(self, name="flex", source=None, renew=True, env=None, **spec):
        if renew:
            spec["renew"] = {"exec": {"argv": [str(self.script)], "user": "root" if os.geteuid() == 0 else None, "timeout": "30s",
                                      "env": {"RUNS": str(self.runs), "FILE": str(self.file), **(env or {})}}}
            if os.geteuid() != 0:
                del spec["renew"]["exec"]["user"]
        return self.kt.manifest(name, {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Watch", "metadata": {"name": name},
                                       "spec": {"source": source if source is not None else {"file": {"path": str(self.file)}}, **spec}})

    def starts(self):
        return self.runs.read_text().count("start ") if self.runs.exists() else 0

    def ends(self):
        return self.runs.read_text().count("end ") if self.runs.exists() else 0


@pytest.fixture
def foreign(kt):
    return Foreign(kt)


def steps(kt, name="flex"):
    return [(r["step"], r["outcome"]) for r in kt.audit(resource=f"Watch/default/{name}")]


def test_renewed_on_time_and_proved(kt, foreign):
    foreign.make(3600)
    foreign.watch(renewBefore="2h", prove={"within": "10s"})
    kt.ok("check")
    kt.ok("renew", "flex")
    assert foreign.starts() == foreign.ends() == 1
    assert "renew flex" in foreign.runs.read_text()
    row = kt.json("status", "flex")
    assert row["state"] == "proved" and row["proved"], row
    assert row["subject"] == "CN=flex" and row["source"] == str(foreign.file)
    assert [s for s in steps(kt) if s[0] != "watch.warned"] == [
        ("watch.read", "ok"), ("watch.renewing", "ok"), ("watch.proved", "ok")], steps(kt)
    kt.ok("renew", "flex")
    assert foreign.starts() == 1, "it has 30 days now"
    time.sleep(1.1)  # dates of certificates have no smaller unit
    kt.ok("renew", "--force", "flex")
    assert foreign.starts() == 2
    kt.ok("audit", "--verify")


def test_in_the_agent(kt, foreign):
    port = free_port()
    kt.agent_settings(listeners={"metrics": f"127.0.0.1:{port}"})
    foreign.make(12)
    foreign.watch(renewBefore="7s")
    agent = kt.start()
    until(lambda: kt.credential("flex")["state"] == "watched" or foreign.starts(), 10, "the file is read")
    until(lambda: kt.credential("flex")["state"] == "proved", 15, "the renewal is proved")
    assert foreign.starts() == 1
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    line = [x for x in text.splitlines() if x.startswith('keyturn_watch_not_after_seconds{namespace="default",name="flex"}')]
    assert line and 29 * 86400 < int(line[0].split()[-1]) - time.time() < 31 * 86400
    assert 'keyturn_watch_renewals_total{namespace="default",name="flex"} 1' in text
    assert "proved" in kt.ok("status").out and "flex" in kt.ok("plan").out
    why = kt.ok("why", "flex").out
    assert "is proved" in why, why
    agent.stop()


def test_renew_before_longer_than_the_life(kt, foreign):
    """Warned of at once, and the command does not run all the time; the rule that counts is named."""
    foreign.make(86400)  # two days in all
    foreign.watch(renewBefore="720h")
    result = kt.ok("renew")
    words = "at half of its life: renewBefore 30d is not shorter than its whole life, 2d"
    assert words in result.err, result
    said = [r for r in kt.audit(resource="Watch/default/flex", step="watch.warned") if words in r["reason"]]
    assert len(said) == 1
    assert foreign.starts() == 1, "half of its life is over"
    kt.ok("renew")  # the new one has 720 hours, which is not longer either
    assert foreign.starts() == 1
    assert "at 2/3 of its life: renewBefore 30d is not shorter than its whole life, 30d" in kt.ok("why", "flex").out
    assert words not in kt.ok("renew").err, "once a certificate"
    foreign.watch(renewBefore="700h")
    kt.ok("renew")
    assert "renewBefore 29d4h" in kt.ok("why", "flex").out and "not shorter" not in kt.ok("why", "flex").out


def test_command_that_fails_or_does_nothing(kt, foreign):
    foreign.make(3600)
    foreign.watch(renewBefore="2h", prove={"within": "1s"})
    (foreign.folder / "runs.fail").touch()
    result = kt.run("renew", "flex")
    assert result.status == 75 and "the control plane says no" in result.err, result
    row = kt.json("status", "flex")
    assert row["state"] == "failing" and row["attempts"] == 1 and "exit status 3" in row["lastError"], row
    assert foreign.starts() == 1
    kt.run("renew")
    assert foreign.starts() == 1, "the backoff holds where nobody names it"
    (foreign.folder / "runs.fail").unlink()
    (foreign.folder / "runs.idle").touch()
    result = kt.run("renew", "flex")
    assert result.status == 5 and "still shows a certificate that ends" in result.err, result
    (foreign.folder / "runs.idle").unlink()
    kt.ok("renew", "flex")
    assert kt.json("status", "flex")["state"] == "proved"
    assert ("watch.failed", "retry") in steps(kt)


def test_what_the_command_says_is_one_line(kt, foreign):
    """Its lines are told apart, the last ones are shown, and no control character comes through."""
    foreign.make(3600)
    foreign.watch(renewBefore="2h")
    foreign.script.write_text("#!/bin/sh\ni=0; while [ $i -lt 300 ]; do echo \"noise $i of the log\"; i=$((i+1)); done\n"
                              "printf 'asking\\n\\n  \\033[31mthe control plane says no\\033[0m\\r\\n\\n' >&2; exit 3\n")
    result = kt.run("renew", "flex")
    assert result.status == 75 and "retired" not in result.err and "renewing: " in result.err, result
    for text in (result.err, kt.ok("status", "flex").out, kt.ok("why", "flex").out, kt.credential("flex")["lastError"]):
        assert "noise 299 of the log | asking | \\x1b[31mthe control plane says no\\x1b[0m" in text, text
        assert "x0a" not in text and "x0d" not in text and "\x1b" not in text and "noise 1 " not in text, text
    assert kt.credential("flex")["step"] == "renewing"
    assert "the command of spec.renew has to end well" in result.err
    foreign.script.write_text("#!/bin/sh\nexit 0\n")
    foreign.file.unlink()
    assert "reading: " in kt.run("renew", "flex").err


def test_only_warned_about(kt, foreign):
    foreign.make(3600)
    foreign.watch(renew=False, warnBefore="2h")
    kt.ok("renew", "flex")
    row = kt.json("status", "flex")
    assert row["state"] == "expiring" and not row["hasCommand"], row
    assert ("watch.warned", "ok") in steps(kt)
    kt.ok("renew", "flex")
    assert steps(kt).count(("watch.warned", "ok")) == 1, "once a certificate"
    foreign.make(7200 * 2)
    kt.ok("renew", "flex")
    assert kt.json("status", "flex")["state"] == "watched"
    assert kt.run("status", "--fail-within", "700h").status == 1
    kt.ok("status", "--fail-within", "1h")


def test_sources_that_cannot_be_read(kt, foreign):
    foreign.watch(renewBefore="2h")
    result = kt.run("renew", "flex")
    assert result.status != 0 and "registration.pem" in result.err, result
    assert foreign.starts() == 0, "what can't be read is no reason to run anything"
    foreign.file.write_text("certificate: none\n")
    result = kt.run("renew", "flex")
    assert "no PEM certificate" in result.err, result
    other = foreign.make(3600)
    os.rename(other, foreign.folder / "real.pem")
    os.symlink(foreign.folder / "real.pem", foreign.file)
    assert "link" in kt.run("renew", "flex").err
    foreign.file.unlink()
    os.mkfifo(foreign.file)
    assert "no plain file" in kt.run("renew", "flex", timeout=20).err
    foreign.file.unlink()
    foreign.file.write_bytes(b"x" * 300000)
    assert kt.run("renew", "flex").status != 0
    assert foreign.starts() == 0
    text = (foreign.folder / "real.pem").read_text()
    foreign.file.write_text("kind: Configuration\ncertificate: |\n" + "".join(f"    {line}\n" for line in text.splitlines()))
    kt.ok("renew", "flex")
    assert foreign.starts() == 1


def keystore(foreign, kind, path, password, alias="mule-agent"):
    p12 = foreign.folder / "made.p12"
    subprocess.run(["openssl", "pkcs12", "-export", "-in", foreign.file, "-inkey", foreign.folder / "x.key", "-name", alias,
                    "-passout", f"pass:{password}", "-out", p12], check=True, capture_output=True)
    if kind == "PKCS12":
        os.replace(p12, path)
        return
    subprocess.run(["keytool", "-importkeystore", "-noprompt", "-srckeystore", p12, "-srcstoretype", "PKCS12", "-srcstorepass", password,
                    "-destkeystore", path, "-deststoretype", "JKS", "-deststorepass", password, "-destkeypass", password,
                    "-srcalias", alias], check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["PKCS12", "JKS"])
def test_key_stores(kt, foreign, kind):
    if kind == "JKS" and not shutil.which("keytool"):
        pytest.skip("no keytool here")
    foreign.make(86400)
    store = foreign.folder / "mule-agent.jks"
    keystore(foreign, kind, store, "changeit")
    source = {"file": {"path": str(store), "format": kind, "alias": "MULE-agent"}}
    if kind == "PKCS12":
        source["file"]["passwordSecretRef"] = {"name": "agent-store"}
        kt.secret("agent-store", password="wrong")
    foreign.watch(source=source, renew=False)
    if kind == "PKCS12":
        assert "does not open with this password" in kt.run("renew", "flex").err
        kt.secret("agent-store", password="changeit")
    kt.ok("renew", "flex")
    row = kt.json("status", "flex")
    serial = subprocess.run(["openssl", "x509", "-in", foreign.file, "-noout", "-serial"], check=True, capture_output=True, text=True)
    assert row["serial"].upper().lstrip("0") == serial.stdout.strip().partition("=")[2].lstrip("0"), row
    source["file"]["alias"] = "nobody"
    foreign.watch(source=source, renew=False)
    assert "under alias nobody" in kt.run("renew", "flex").err


def test_tls_endpoint(kt, foreign):
    foreign.make(3600)
    port = free_port()
    server = subprocess.Popen(["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", foreign.file, "-key",
                               foreign.folder / "x.key"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}"], stdin=subprocess.DEVNULL,
                                     capture_output=True).returncode == 0, 10, "the server answers")
        foreign.watch(source={"tls": {"address": f"127.0.0.1:{port}", "serverName": "flex.example"}}, renew=False)
        kt.ok("renew", "flex")
        row = kt.json("status", "flex")
        assert row["subject"] == "CN=flex" and row["source"] == f"127.0.0.1:{port}#flex.example", row
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize("whole", [False, True], ids=["keeper", "all"])
def test_kill_while_the_command_runs(kt, foreign, whole):
    """It is never run twice at once; and it is run again when nobody knows whether it ran."""
    foreign.make(3600)
    foreign.watch(renewBefore="2h", env={"SLOW": "3"})
    agent = kt.start()
    until(lambda: foreign.starts() == 1, 10, "the command runs")
    if whole:
        for pid, name in {agent.pid: "", **agent.rooms()}.items():  # the command itself lives on
            os.kill(pid, signal.SIGKILL)
        agent.process.process.wait(5)
        agent.no_room_left()
        agent = kt.start()
    else:
        os.kill(next(pid for pid, name in agent.rooms().items() if name == "keyturn-keeper"), signal.SIGKILL)
    until(lambda: foreign.ends() == 1, 10, "the first one ends")
    assert foreign.starts() == 1, "not twice at once"
    until(lambda: kt.run("status", "flex").status == 0 and kt.json("status", "flex")["state"] == "proved", 15, "it is proved")
    assert foreign.starts() == 1, "the certificate that it left is a later one"
    agent.stop()


def test_kill_and_the_command_dies_too(kt, foreign):
    foreign.make(3600)
    foreign.watch(renewBefore="2h", env={"SLOW": "2"})
    agent = kt.start()
    until(lambda: foreign.starts() == 1, 10, "the command runs")
    agent.kill9()
    assert foreign.ends() == 0
    agent = kt.start()
    until(lambda: kt.json("status", "flex")["state"] == "proved", 20, "it is proved")
    assert foreign.starts() == 2 and foreign.ends() == 1
    again = [r for r in kt.audit(resource="Watch/default/flex", step="watch.renewing") if r.get("reason")]
    assert again and "not known whether" in again[0]["reason"]
    agent.stop()


def test_request_that_is_sent_again(kt, foreign):
    """A keeper that died after the proof and before its answer is asked once more, with sentAt: the command has run for that."""
    foreign.make(3600)
    foreign.watch(renewBefore="1s")
    agent = kt.start()
    kt.ok("renew", "flex")
    began = int(time.time() * 1000) - 1
    time.sleep(1.1)  # dates of certificates have no smaller unit
    kt.ok("renew", "--force", "flex")
    assert foreign.starts() == 1

    def renew(**more):
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(kt.socket))
            wire.sendall(json.dumps({"command": "renew", "names": ["flex"], "force": True, **more}).encode() + b"\n")
            answer = b""
            while chunk := wire.recv(65536):
                answer += chunk
        return json.loads(answer.splitlines()[-1])

    assert renew(sentAt=began)["status"] == 0
    assert foreign.starts() == 1, "it was renewed since"
    time.sleep(1.1)
    assert renew(sentAt=int(time.time() * 1000))["status"] == 0
    assert foreign.starts() == 2
    assert agent.stop() == 0


def test_replaced_while_its_command_runs(kt, foreign):
    """What comes after it in the state, under the very number that it had, is not taken for it."""
    foreign.make(3600)
    nobody = {"tls": {"address": f"127.0.0.1:{free_port()}"}}
    kt.agent_settings()
    path = foreign.watch(source=nobody, env={"SLOW": "3"})
    agent = kt.start()
    keeper = agent.rooms()
    kt.ok("renew", "--force", "--no-wait", "flex")
    until(lambda: foreign.starts() == 1, 10, "the command runs")
    path.unlink()
    kt.ok("reload")
    foreign.watch("other", source=nobody, renew=False)
    kt.ok("reload")
    until(lambda: foreign.ends() == 1, 10, "the command ends")
    time.sleep(1)
    row = kt.json("status", "other")
    assert row["state"] == "failing" and row["ranAt"] is None, row
    assert {s for s, _ in steps(kt, "other")} == {"watch.read"}, steps(kt, "other")
    assert set(keeper.items()) <= set(agent.rooms().items()), agent.err()
    assert agent.stop() == 0


def test_words(kt, foreign):
    foreign.make(3600)
    for spec, word in (({"renew": False, "renewBefore": "1h"}, "has a meaning only with spec.renew"),
                       ({"renewBefore": "1h", "renewBeforePercentage": 5}, "excludes renewBefore"),
                       ({"source": {"file": {"path": str(foreign.file), "alias": "x"}}}, "a PEM file has none"),
                       ({"source": {"file": {"path": "relative"}}}, "path"),
                       ({"source": {}}, "source")):
        foreign.watch(**spec)
        result = kt.run("check")
        assert result.status != 0 and word in result.out + result.err, (spec, result)
    foreign.script.chmod(0o777)
    foreign.watch()
    assert "not safe to run" in kt.run("check").err + kt.run("check").out


def test_removed(kt, foreign):
    foreign.make(3600)
    path = foreign.watch(renew=False)
    kt.ok("renew", "flex")
    path.unlink()
    foreign.watch(name="other", renew=False)
    kt.ok("renew")
    assert [r["name"] for r in kt.json("status")["credentials"]] == ["other"]
