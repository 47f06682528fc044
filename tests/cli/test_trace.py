"""trace and audit: own records and lines of mesh and gateway on one line of time; filters; following along."""

import datetime
import json
import os
import time

import pytest
import yaml

from lib.agent import TOP
from lib.manifests import certificate
from lib.wait import until

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"


@pytest.fixture
def traced(kt):
    kt.manifest("all", SELF, certificate("web", "self"), certificate("two", "self"))
    kt.ok("renew")
    kt.id = kt.credential("web")["traceId"]
    return kt


def after(kt, ms):
    """The time so long after the newest record of the trace."""
    newest = max(r["time"] for r in kt.json("trace", kt.id)["records"])
    at = datetime.datetime.fromisoformat(newest.replace("Z", "+00:00")) + datetime.timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def envoy(fields):
    """A line as Envoy writes it for data/envoy-access-log.yaml, members without a value left out."""
    doc = yaml.safe_load((TOP / "data/envoy-access-log.yaml").read_text())
    wanted = doc["access_log"][0]["typed_config"]["log_format"]["json_format"]
    assert set(fields) <= set(wanted), set(fields) - set(wanted)
    return json.dumps({"source": wanted["source"], **fields})


def template(which, **values):
    """A message of data/api-manager-log.yaml as the gateway fills it in: its DataWeave is a plain concatenation."""
    import re

    doc = yaml.safe_load((TOP / "data/api-manager-log.yaml").read_text())
    for item in doc["spec"]["config"]["loggingConfiguration"]:
        if item["itemName"] == which:
            parts = re.fullmatch(r"#\[(.*)\]", item["itemData"]["message"], re.S).group(1).split("++")
            return "".join(p.strip()[1:-1] if p.strip().startswith("'") else
                           next((v for k, v in values.items() if k in re.sub(r"[^a-z0-9]", "", p.lower())), "") for p in parts)
    raise AssertionError(which)


def test_mesh_and_gateway_on_one_line(traced):
    kt = traced
    log = kt.root / "envoy.log"
    log.write_text("\n".join([
        envoy({"time": after(kt, 20), "trace_id": kt.id, "method": "GET", "authority": "web.example", "path": "/pay", "response_code": 200,
               "duration": 12, "downstream_peer_uri_san": "spiffe://a/b", "downstream_peer_serial": "0abc", "response_flags": "-"}),
        envoy({"time": after(kt, 10), "traceparent": f"00-{kt.id.upper()}-00f067aa0ba902b7-01", "method": "POST", "response_code": 403}),
        envoy({"time": after(kt, 30), "x-b3-traceid": kt.id[16:], "method": "PUT", "response_code": 201}),
        envoy({"time": after(kt, 30), "trace_id": "f" * 32, "method": "DELETE", "response_code": 500}),
        "not json, but not of the trace", ""]))
    gateway = kt.root / "gateway.log"
    gateway.write_text(f"{after(kt, 15)} [flex-gateway-envoy][info] " + template(
        "request", traceparent=f"00-{kt.id}-00f067aa0ba902b7-01", method="GET", requestpath="/v1", clientid="orders") + "\n" +
        f"{after(kt, 16)} [flex-gateway-envoy][info] " + template("response", traceparent=f"00-{kt.id}-00f067aa0ba902b7-01",
                                                                  statuscode="200") + "\n")
    records = kt.json("trace", kt.id, "--logs", log, gateway)["records"]
    assert [r["time"] for r in records] == sorted(r["time"] for r in records)
    own = [r for r in records if r["source"] == "keyturn"]
    assert len(own) == len(kt.json("trace", kt.id)["records"]) > 3
    rest = [r for r in records if r["source"] != "keyturn"]
    assert [(r["source"], r.get("method"), r.get("status")) for r in rest] == [
        ("envoy", "POST", 403), ("gateway", "GET", None), ("gateway", None, "200"), ("envoy", "GET", 200), ("envoy", "PUT", 201)], rest
    assert rest[3]["serial"] == "0abc" and rest[3]["peer"] == "spiffe://a/b" and rest[3]["line"] == 1 and rest[1]["peer"] == "orders"
    table = kt.ok("trace", kt.id, "--logs", log, gateway)
    assert "GET web.example /pay -> 200; ms 12; peer spiffe://a/b; serial 0abc" in table.out and "gateway" in table.out, table
    assert not table.err and "DELETE" not in table.out


def test_formats_agree():
    """Envoy and Istio write the same members."""
    one = yaml.safe_load((TOP / "data/envoy-access-log.yaml").read_text())["access_log"][0]["typed_config"]["log_format"]["json_format"]
    two = next(yaml.safe_load_all((TOP / "data/istio-access-log.yaml").read_text()))
    assert one == two["spec"]["meshConfig"]["extensionProviders"][0]["envoyFileAccessLog"]["logFormat"]["labels"]


def test_bad_lines_are_counted_and_skipped(traced):
    kt = traced
    log = kt.root / "bad.log"
    good = json.dumps({"ts": time.time() + 1, "attributes": {"trace.id": kt.id}, "status": 200, "uri": "/\x1b[31m"})
    log.write_bytes(b"\n".join([
        b'{"trace_id": "' + kt.id.encode() + b'", "time": ',          # cut in the middle
        b"GET / " + kt.id.encode(),                                    # no JSON
        b'{"trace_id": "' + kt.id.encode() + b'"}',                    # no time
        b'{"trace_id": "' + kt.id.encode() + b'", "x": "' + b"y" * 70000 + b'"}',  # too long
        b'{"trace_id": "' + kt.id.encode() + b'", "a": ' + b"[" * 3000 + b"]" * 3000 + b"}",  # too deep
        b'{"time": "2026-11-23T09:00:00Z", "token_sha256": "' + kt.id.encode() + b'"}',  # the digits mean something else
        b"\xff\xfe\x00" * 100, b"x" * 300000, good.encode()]))  # and the last line without an end
    result = kt.ok("trace", kt.id, "--logs", log)
    assert "4 lines that name the trace skipped: no JSON object" in result.err, result
    assert "1 line that names the trace skipped: longer than 64 KiB" in result.err, result
    assert "-> 200" in result.out and "\x1b" not in result.out and result.out.count("log ") == 1, result
    assert kt.json("trace", kt.id, "--logs", log)["records"][-1]["line"] == 9


def test_wrong_words(traced):
    kt = traced
    for args, word in [((kt.id, "x.log"), "--logs"), ((kt.id, "--logs"), "--logs"), (("nonsense",), "nonsense"),
                       (("f" * 32,), "f" * 32), (("f" * 32, "--logs", os.devnull), "logs")]:
        result = kt.run("trace", *args)
        assert result.status == 2 and word in result.err, result
    result = kt.run("trace", kt.id, "--logs", kt.root / "nowhere.log", os.devnull)
    assert result.status == 2 and "nowhere.log" in result.err and "switched" in result.out, result


def test_logs_without_a_state(kt):
    kt.state.rmdir()
    kt.manifest("all", SELF)
    line = json.dumps({"time": "2026-11-23T09:00:00Z", "traceparent": "00-" + "a" * 32 + "-00f067aa0ba902b7-01", "method": "GET"})
    assert "GET" in kt.ok("trace", "a" * 32, "--logs", "-", stdin=line + "\n").out
    assert not kt.state.exists()


def test_audit_filters(traced):
    kt = traced
    for name in ("web", "default/web", "Certificate/default/web"):
        about = kt.json("audit", "--resource", name)["records"]
        assert about and {r["resource"] for r in about} == {"Certificate/default/web"}
    assert kt.json("audit", "--resource", "eb")["records"] == []
    assert len(kt.json("audit", "-r", "two", "-n", "2")["records"]) == 2
    assert [r["step"] for r in kt.json("audit", "-r", "two", "-n", "2")["records"]] == [r["step"] for r in kt.json("audit", "-r", "two")["records"]][-2:]
    assert {r["trace_id"] for r in kt.json("audit", "--trace", kt.id)["records"]} == {kt.id}
    assert kt.run("audit", "--trace", "x").status == 2
    assert len(kt.json("audit", "--since", "1h", "--resource", "web")["records"]) == len(kt.json("audit", "--resource", "web")["records"])


def test_audit_follow(kt):
    assert kt.run("audit", "--follow").status == 3
    kt.manifest("all", SELF, certificate("web", "self"), certificate("two", "self"))
    running = kt.start()
    kt.ok("renew")
    follower = kt.background("audit", "--follow", "-o", "json", "-r", "web")
    all_of = kt.background("audit", "-f", "-n", "1")

    def records():
        return [json.loads(line) for line in follower.err().splitlines() if line.startswith("{")]

    until(lambda: records() and records()[-1]["step"] in ("switched", "notified", "proved", "retired"), 10, "what was there is shown")
    before = len(records())
    kt.ok("renew", "web", "--force")
    kt.ok("renew", "two", "--force")
    until(lambda: len(records()) >= before + 5 and "default/two" in all_of.err(), 10, "what comes is shown")
    assert {r["resource"] for r in records()} == {"Certificate/default/web"}
    numbers = [r["seq"] for r in records()]
    assert numbers == sorted(set(numbers)), "each one once"
    assert "Certificate/default/two  switched  ok" in all_of.err()
    # The agent is started again: it goes on where it was.
    assert running.stop() == 0
    kt.start()
    kt.ok("renew", "web", "--force")
    until(lambda: len(records()) >= before + 10, 10, "it follows the next agent")
    numbers = [r["seq"] for r in records()]
    assert numbers == sorted(set(numbers)), "each one once"
    until(lambda: [r["seq"] for r in records()] == [r["seq"] for r in kt.json("audit", "-r", "web", "-n", "1000")["records"]][-len(records()):],
          5, "none was missed")
    os.kill(follower.pid, 2)
    os.kill(all_of.pid, 2)
