"""What the desk says about the agent: the exposition format by promtool's rules, names and units as docs/metrics.md has them."""

import re
import time
import urllib.error
import urllib.request

from lib.agent import TOP
from lib.wait import free_port

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([0-9.eE+-]+|NaN|[+-]Inf)(?: (-?\d+))?\Z")
UNITS_REFUSED = ("_ms", "_milliseconds", "_minutes", "_hours", "_days", "_kilobytes", "_megabytes", "_percent")

CA = """apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web}
spec: {secretName: web-tls, dnsNames: [web.example], privateKey: {algorithm: ECDSA}, issuerRef: {name: self}}
"""
WITHOUT_CA = """---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: lost}
spec: {ca: {secretName: nowhere}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: lost}
spec: {secretName: lost-tls, dnsNames: [lost.example], issuerRef: {name: lost}}
"""


def get(port, path):
    """(status, content type, body)"""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def parse(text):
    """{family: (type, help, [(name, labels, value)])}; everything that a scraper would refuse or promtool complain of fails."""
    assert text.endswith("\n"), "the last line must end"
    families, current = {}, None
    for line in text.splitlines():
        assert line == line.strip() and line, f"stray blanks: {line!r}"
        if line.startswith("# HELP "):
            _, _, name, help_text = line.split(" ", 3)
            assert NAME.match(name) and help_text and name not in families, line
            families[name] = [None, help_text, []]
            current = name
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and families[name][0] is None and not families[name][2], f"TYPE in the wrong place: {line}"
            assert kind in ("counter", "gauge", "histogram", "summary"), line
            families[name][0] = kind
        else:
            match = SAMPLE.match(line)
            assert match and match[1] == current, f"no sample of {current}: {line!r}"
            labels = LABEL.findall(match[2] or "")
            assert ",".join(f'{k}="{v}"' for k, v in labels) == (match[2] or ""), f"labels: {line!r}"
            assert len({k for k, _ in labels}) == len(labels), f"a label twice: {line!r}"
            families[current][2].append((match[1], tuple(sorted(labels)), float(match[3])))
    return families


def lint(families):
    for name, (kind, _, samples) in families.items():
        assert kind is not None, f"{name} has no TYPE"
        assert name.startswith("keyturn_"), name
        assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
        assert not name.endswith(UNITS_REFUSED) and name == name.lower(), f"{name}: base units, snake case"
        assert len({labels for _, labels, _ in samples}) == len(samples), f"{name}: a series twice"
        assert not any(k in ("le", "quantile", "job", "instance") for _, labels, _ in samples for k, _ in labels), name


def value(families, name, **labels):
    found = [v for _, l, v in families[name][2] if dict(l) == labels]
    assert len(found) == 1, f"{name}{labels}: {families[name][2]}"
    return found[0]


def scrape(port):
    status, content_type, body = get(port, "/metrics")
    assert status == 200 and content_type == "text/plain; version=0.0.4; charset=utf-8", (status, content_type, body)
    families = parse(body)
    lint(families)
    return families


def wait_for(check, seconds=15):
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_metrics_say_what_is_delivered(kt):
    port = free_port()
    kt.agent_settings(listeners={"metrics": f"127.0.0.1:{port}"})
    kt.manifest("web", CA)
    before = time.time()
    agent = kt.start()

    def delivered():
        families = scrape(port)
        assert value(families, "keyturn_credentials_unpublished", kind="certificate") == 0
        assert value(families, "keyturn_credentials", kind="certificate", step="retired") == 1
        assert value(families, "keyturn_rotations_total") == 1
        assert value(families, "keyturn_credentials_in_flight") == 0
        return families

    families = wait_for(delivered)
    assert before - 1 <= value(families, "keyturn_start_time_seconds") <= time.time()
    assert value(families, "keyturn_next_due_timestamp_seconds") > time.time() + 3600
    assert value(families, "keyturn_failures_total") == 0 == value(families, "keyturn_credentials_expired")
    assert get(port, "/livez")[:1] + get(port, "/livez")[2:] == (200, "alive\n")
    assert get(port, "/readyz")[:1] + get(port, "/readyz")[2:] == (200, "ready\n")
    kt.ok("renew", "--force", "web")

    def counted():
        assert value(scrape(port), "keyturn_rotations_total") == 2

    wait_for(counted)
    assert agent.stop() == 0


def test_every_metric_is_documented(kt):
    port = free_port()
    kt.agent_settings(listeners={"metrics": f"127.0.0.1:{port}"})
    kt.manifest("web", CA, {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Watch", "metadata": {"name": "other"},
                            "spec": {"source": {"file": {"path": str(kt.root / "other.pem")}}}})
    kt.start()
    families = wait_for(lambda: scrape(port))
    rows = re.findall(r"^\| `(keyturn_[a-z_]+)` \| (\w+) \|", (TOP / "docs" / "metrics.md").read_text(encoding="utf-8"), re.M)
    assert dict(rows) == {name: kind for name, (kind, _, _) in families.items()}


def test_not_ready_while_one_has_no_set(kt):
    port = free_port()
    kt.agent_settings(listeners={"metrics": f"127.0.0.1:{port}"})
    kt.manifest("web", CA + WITHOUT_CA)
    kt.start()

    def failing():
        families = scrape(port)
        assert value(families, "keyturn_credentials_failing", kind="certificate") == 1
        assert value(families, "keyturn_credentials_unpublished", kind="certificate") == 1
        assert value(families, "keyturn_failures_total") >= 1

    wait_for(failing)
    status, _, body = get(port, "/readyz")
    assert status == 503 and body.startswith("1 of 2 credentials"), (status, body)
    assert get(port, "/livez")[0] == 200
    assert get(port, "/nothing")[0] == 404
