"""keyturn beside uacme, lego and certbot against the same Pebble, in one run: what a certificate costs.

usage: acme.py BUILDDIR [--quick] [--only one-shot,nonces,bulk] [--clients keyturn,uacme,...] [--runs N]

BUILDDIR is a release build with tests/bench/acme_floor (`make bench-acme` there does all of it). Clients that are not
installed are left out, and said so; `tests/peers/setup bench` gets them. Everything is on loopback and in memory, no
machine setting is changed, no figure passes or fails. All issue ECDSA P-256 with an account that exists already, by http-01.
Pebble runs without its validation sleep and (but for the nonces) without refused nonces.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lib.servers import PEERS, Pebble  # noqa: E402
from lib.wait import descendants  # noqa: E402

from proxy import Proxy  # noqa: E402

RTT = 0.050
KEYTURN = """apiVersion: keyturn.dev/v1alpha1
kind: Agent
metadata: {{name: bench}}
spec: {{listeners: {{http01: "127.0.0.1:{port}"}}, limits: {{perIssuer: {flights}}}}}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {{name: pebble}}
spec: {{acme: {{server: "{server}", caBundle: {bundle}, privateKeySecretRef: {{name: account}}, solvers: [{{http01: {{ingress: {{}}}}}}]}}}}
"""
LEAF = """---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: {0}}}
spec: {{secretName: {0}, dnsNames: [{0}.example], privateKey: {{algorithm: ECDSA}}, issuerRef: {{name: pebble}}}}
"""


def number(pid, file, name):
    """KiB, from a line of a file below /proc."""
    with open(f"/proc/{pid}/{file}", encoding="ascii", errors="replace") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


class Run:
    """A command: wall and CPU time (its children's too); where it is sampled, memory."""

    def __init__(self, argv, env=None, sample=False, timeout=120):
        self.pss = self.rss = 0.0
        with tempfile.TemporaryFile() as out:
            began = time.monotonic()
            process = subprocess.Popen([str(a) for a in argv], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            bound = threading.Timer(timeout, process.kill)
            bound.start()
            if sample:
                self.watch(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            self.wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            bound.cancel()
            out.seek(0)
            self.output = out.read().decode(errors="replace")
        self.status = process.returncode
        self.cpu = usage.ru_utime + usage.ru_stime

    def watch(self, pid):
        """Peak of the sum of PSS over the process and all below it, and of the largest one's resident size, in MiB."""
        while True:
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                    if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                        return
            except OSError:
                return
            total = 0
            for one in [pid, *descendants(pid)]:
                with contextlib.suppress(OSError):
                    total += number(one, "smaps_rollup", "Pss:")
                    self.rss = max(self.rss, number(one, "status", "VmHWM:") / 1024)
            self.pss = max(self.pss, total / 1024)
            time.sleep(0.001)


class Webroot:
    """Serves a folder at Pebble's validation port, for clients that only write files."""

    def __init__(self, folder, port):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = folder / pathlib.PurePosixPath(self.path).name
                try:
                    body = path.read_bytes()
                except OSError:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Client:
    """One ACME client with an account of its own at `server`; issue() gets a certificate for a new name."""

    version = ""

    def __init__(self, folder, pebble, server):
        self.folder, self.pebble, self.server, self.count = pathlib.Path(folder), pebble, server, 0
        self.folder.mkdir(parents=True)
        (self.folder / "ca.pem").write_bytes(pebble.authority.pem())
        self.env = {**os.environ, "LC_ALL": "C.UTF-8"}

    def prepare(self):
        """Makes the account."""

    def command(self, name):
        raise NotImplementedError

    def issue(self, sample=False):
        self.count += 1
        return Run(self.command(f"{type(self).__name__.lower()}-{self.count}.example"), self.env, sample)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Keyturn(Client):
    """One certificate, renewed before its time: state, delivery and audit trail included."""

    flights = 8
    version = "this build"

    @staticmethod
    def there():
        return True

    def manifests(self, *names):
        """The issuer and these certificates."""
        folder = self.folder / "m"
        folder.mkdir(exist_ok=True)
        with open(folder / "all.yaml", "w", encoding="utf-8") as file:
            file.write(KEYTURN.format(port=self.pebble.http_port, flights=self.flights, server=self.server,
                                      bundle=json.dumps(self.pebble.authority.bundle())))
            file.writelines(LEAF.format(name) for name in names)

    def argv(self, *command):
        return [BUILD / "keyturn", "-q", "-c", self.folder / "m", "--state-dir", self.folder / "state", "--secrets-dir",
                self.folder / "secrets", "--socket", self.folder / "sock", *command]

    def prepare(self):
        self.env["KEYTURN_LIBEXECDIR"] = str(BUILD)
        self.manifests("one")
        return Run(self.argv("renew"), self.env)

    def command(self, name):
        return self.argv("renew", "one", "--force")


class Uacme(Client):
    @staticmethod
    def there():
        return TRUSTED and shutil.which("uacme")

    def prepare(self):
        root = self.folder / "root"
        root.mkdir()
        hook = self.folder / "hook"
        # The cheapest hook there is: a shell that writes one file or removes it.
        hook.write_text(f'#!/bin/sh\n[ "$2" = http-01 ] || exit 1\ncase $1 in\nbegin) echo -n "$5" >"{root}/$4" ;;\n'
                        f'*) rm -f "{root}/$4" ;;\nesac\n')
        hook.chmod(0o755)
        self.web = Webroot(root, self.pebble.http_port)
        return Run([*self.argv(), "-y", "new", "ops@example.org"], self.env)

    def argv(self):
        return ["uacme", "-c", self.folder / "conf", "-a", self.server, "-t", "EC", "-b", "256", "-h", self.folder / "hook"]

    def command(self, name):
        return [*self.argv(), "issue", name]

    def close(self):
        self.web.close()
        super().close()


class Lego(Client):
    """The command that is found first: Debian's version 4."""

    @staticmethod
    def there():
        return shutil.which("lego")

    def prepare(self):
        self.env["LEGO_CA_CERTIFICATES"] = str(self.folder / "ca.pem")
        return Run(self.command("first.example"), self.env)

    def command(self, name):
        return ["lego", "--server", self.server, "--accept-tos", "--email", "ops@example.org", "--path", self.folder / "lego",
                "--key-type", "ec256", "--http", "--http.port", f"127.0.0.1:{self.pebble.http_port}", "-d", name, "run"]


class Lego5(Client):
    """Version 5's library behind the smallest program (tests/bench/lego)."""

    @staticmethod
    def there():
        path = PEERS / "bin" / "lego5"
        return path.exists() and str(path)

    def argv(self, count, flights, prefix):
        return [self.there(), self.server, self.folder / "account.json", self.pebble.http_port, count, flights, prefix]

    def prepare(self):
        self.env["LEGO_CA_CERTIFICATES"] = str(self.folder / "ca.pem")
        return Run(self.argv(0, 1, "none"), self.env)

    def command(self, name):
        return self.argv(1, 1, name.split(".")[0])


class Certbot(Client):
    @staticmethod
    def there():
        return shutil.which("certbot")

    def prepare(self):
        self.env["REQUESTS_CA_BUNDLE"] = str(self.folder / "ca.pem")
        return Run([*self.argv("register"), "--email", "ops@example.org", "--no-eff-email"], self.env)

    def argv(self, verb):
        dirs = [f"--{kind}-dir={self.folder / kind}" for kind in ("config", "work", "logs")]
        return ["certbot", verb, "-n", "--agree-tos", "--server", self.server, *dirs]

    def command(self, name):
        return [*self.argv("certonly"), "--standalone", "--http-01-port", str(self.pebble.http_port), "--http-01-address",
                "127.0.0.1", "--key-type", "ecdsa", "--no-random-sleep-on-renew", "-d", name]


CLIENTS = {c.__name__.lower(): c for c in (Keyturn, Uacme, Lego, Lego5, Certbot)}


class Trial(contextlib.ExitStack):
    """A fresh Pebble, a line to it, and one client that has its account."""

    def __init__(self, kind, delay=0.0, reject=0):
        super().__init__()
        self.kind, self.delay, self.reject = kind, delay, reject

    def __enter__(self):
        super().__enter__()
        folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-bench.", dir=MEMORY)))
        self.pebble = self.enter_context(pebble_as_it_comes(folder, self.reject))
        self.line = self.enter_context(Proxy(self.pebble.port))
        self.client = self.kind(folder / "client", self.pebble, f"https://localhost:{self.line.port}/dir")
        self.callback(self.client.close)
        prepared = self.client.prepare()
        for _ in range(20 if self.reject else 0):  # the account is not what is measured
            if prepared is None or prepared.status == 0:
                break
            prepared = self.client.prepare() if self.kind is not Uacme else Run([*self.client.argv(), "-y", "new"], self.client.env)
        if prepared is not None and prepared.status != 0:
            print(f"{self.kind.__name__}: no account: {prepared.output[-400:]}", file=sys.stderr)
        self.line.delay = self.delay
        self.line.take()
        return self


def pebble_as_it_comes(folder, reject=0):
    """Without its sleep, and with the Retry-After of its own defaults (3 s and 5 s)."""
    pebble = Pebble(folder, sleep=False, reject=reject)
    config = json.loads(pebble.config.read_text())
    config["pebble"]["retryAfter"] = {"authz": 3, "order": 5}
    pebble.config.write_text(json.dumps(config))
    pebble.env["PEBBLE_AUTHZREUSE"] = "0"
    if TRUSTED:
        with open(TRUSTED, "ab") as file:
            file.write(pebble.authority.pem())
    return pebble


def middle(values):
    return statistics.median(values) if values else float("nan")


def one_shot(kind, runs):
    """Medians of `runs`, without delay and over the long line; requests and connections of one."""
    row = {}
    for delay in (0, RTT / 2):
        with Trial(kind, delay) as trial:
            done, asked, opened = [], [], []
            trial.client.issue()  # caches are warm
            for _ in range(runs):
                before = trial.pebble.requests()
                trial.line.take()
                run = trial.client.issue()
                if run.status == 0:
                    done.append(run)
                    asked.append(trial.pebble.requests() - before)
                    opened.append(trial.line.take())
            side = "far" if delay else "near"
            row[f"wall_{side}"] = middle([r.wall for r in done])
            row[f"cpu_{side}"] = middle([r.cpu for r in done])
            row[f"requests_{side}"] = middle(asked)
            row[f"connections_{side}"] = middle(opened)
            row[f"ok_{side}"] = f"{len(done)}/{runs}"
            if not delay:
                sampled = [trial.client.issue(sample=True) for _ in range(3)]
                row["pss"] = max(r.pss for r in sampled)
                row["rss"] = max(r.rss for r in sampled)
    return row


def floor_run(count, flights, delay=0.0):
    with tempfile.TemporaryDirectory(prefix="keyturn-bench.", dir=MEMORY) as folder, \
            pebble_as_it_comes(pathlib.Path(folder)) as pebble, Proxy(pebble.port) as line:
        (pathlib.Path(folder) / "ca.pem").write_bytes(pebble.authority.pem())
        line.delay = delay
        url = f"https://localhost:{line.port}/dir" if delay else pebble.server
        done = subprocess.run([str(BUILD / "tests/bench/acme_floor"), url, f"{folder}/ca.pem", str(pebble.http_port),
                               str(count), str(flights)], capture_output=True, text=True, timeout=600)
        if "Timeout was reached" in done.stderr:
            raise Stuck
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def nonces(kind, reject, tries=10):
    with Trial(kind, reject=reject) as trial:
        good = 0
        for _ in range(tries):
            run = trial.client.issue()
            good += run.status == 0
            if run.status != 0 and kind is Keyturn:  # ours never should
                print(f"at {reject} %: exit status {run.status} after {run.wall:.1f} s: {run.output[-2000:]}", file=sys.stderr)
        return good


def keyturn_bulk(count, flights):
    """A renew over `count` new certificates with an account that exists; (rate, CPU s, requests a certificate)."""
    with Trial(type("Bulk", (Keyturn,), {"flights": flights})) as trial:
        client = trial.client
        client.server = trial.pebble.server  # without the line: it costs more than it is to measure
        client.prepare()
        client.manifests("one", *(f"bulk-{i}" for i in range(count)))
        before, issued = trial.pebble.requests(), len(trial.pebble.issued())
        run = Run(client.argv("renew", "--timeout", f"{30 + count // 20}s"), client.env, timeout=900)
        if run.status != 0 and "Operation timed out" in run.output:
            raise Stuck
        assert run.status == 0, run.output[-2000:]
        assert len(trial.pebble.issued()) - issued == count
        return {"count": count, "wall_s": run.wall, "cpu_s": run.cpu, "requests": trial.pebble.requests() - before}


def lego_bulk(count, flights):
    """lego's command takes its port for one certificate at a time."""
    with Trial(Lego) as trial:
        began = time.monotonic()
        good = sum(trial.client.issue().status == 0 for _ in range(count))
        return {"count": good, "wall_s": time.monotonic() - began, "cpu_s": 0.0, "requests": 0}


def lego5_bulk(count, flights):
    """lego's library, with one listener for all."""
    with Trial(Lego5) as trial:
        client = trial.client
        client.server = trial.pebble.server  # its account's URL is another one there
        (client.folder / "account.json").unlink()
        client.prepare()
        before = trial.pebble.requests()
        run = Run(client.argv(count, flights, "bulk"), client.env, timeout=900)
        done = json.loads(run.output[run.output.index("{"):]) if "{" in run.output else {"count": 0, "wall_s": run.wall, "cpu_s": 0.0}
        return {**done, "requests": trial.pebble.requests() - before}


def print_one_shot(names, runs):
    print(f"One certificate, median of {runs}; memory: peak PSS of all processes together / largest resident process\n")
    print("| client | wall s | CPU s | wall s at 50 ms | CPU s at 50 ms | memory MiB | requests / connections | at 50 ms | succeed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        r = one_shot(CLIENTS[name], runs)
        print(f"| {name} | {r['wall_near']:.3f} | {r['cpu_near']:.3f} | {r['wall_far']:.3f} | {r['cpu_far']:.3f} | "
              f"{r['pss']:.1f} / {r['rss']:.1f} | {r['requests_near']:.0f} / {r['connections_near']:.0f} | "
              f"{r['requests_far']:.0f} / {r['connections_far']:.0f} | {r['ok_near']}, {r['ok_far']} |", flush=True)
    near, far = [sorted((floor_run(1, 1, d) for _ in range(runs)), key=lambda r: r["wall_s"])[runs // 2] for d in (0, RTT / 2)]
    print(f"| floor (after directory, nonce, account) | {near['wall_s']:.3f} | {near['cpu_s']:.3f} | {far['wall_s']:.3f} | "
          f"{far['cpu_s']:.3f} | {near['peak_rss_kib'] / 1024:.1f} | {near['requests']} / 1 | {far['requests']} / 1 | |\n", flush=True)


def print_nonces(names, tries):
    print(f"With 5 / 20 / 50 % of the nonces refused, of {tries}\n")
    print("| client | 5 % | 20 % | 50 % |")
    print("| --- | --- | --- | --- |")
    with ThreadPoolExecutor(3) as pool:
        for name in names:
            good = list(pool.map(lambda reject, kind=CLIENTS[name]: nonces(kind, reject, tries), (5, 20, 50)))
            print(f"| {name} | {good[0]} | {good[1]} | {good[2]} |", flush=True)
    print()


class Stuck(Exception):
    """Pebble answers nobody any more: it locks itself up now and then when several orders are in flight."""


def unless_stuck(measure, tries=5):
    for _ in range(tries):
        try:
            return measure()
        except Stuck:
            print("Pebble has locked itself up: once more", file=sys.stderr)
    raise SystemExit("Pebble locks itself up each time")


def bulk_once(who, count, flights):
    """{"count", "wall_s", "cpu_s", "requests"} of one run."""
    if who == "floor":
        return unless_stuck(lambda: floor_run(count, flights))
    if who == "keyturn":
        return unless_stuck(lambda: keyturn_bulk(count, flights))
    if who == "lego5":
        return lego5_bulk(min(count, 12 * flights), flights)  # it waits for half a second and more in each
    return lego_bulk(4, 1)


def print_bulk(names, count, runs):
    print(f"In bulk: certificates a second ({count}; lego fewer), share of the floor's rate, requests and CPU each; floor and "
          f"keyturn in turns, medians of {runs}\n")
    print("| client | 1 in flight | 4 | 8 |")
    print("| --- | --- | --- | --- |")
    done = {}
    for flights in (1, 4, 8):
        for _ in range(runs):
            for who in ("floor", "keyturn"):
                if who == "floor" or who in names:
                    done.setdefault((who, flights), []).append(bulk_once(who, count, flights))
        for who in ("lego", "lego5"):
            if who in names and (who, flights) not in (("lego", 4), ("lego", 8)):  # the command takes its port for one
                done[who, flights] = [bulk_once(who, count, flights)]
    for who in ["floor", *[n for n in names if n in ("keyturn", "lego", "lego5")]]:
        cells = []
        for flights in (1, 4, 8):
            if (who, flights) not in done:
                cells.append("one at a time")
                continue
            rate, base = [middle([d["count"] / d["wall_s"] for d in done[name, flights]]) for name in (who, "floor")]
            requests, cpu = [middle([d[key] / max(d["count"], 1) for d in done[who, flights]]) for key in ("requests", "cpu_s")]
            cells.append(f"{rate:.1f} ({100 * rate / base:.0f} %, {requests:.1f}, {1000 * cpu:.1f} ms CPU)")
        print(f"| {who} | {' | '.join(cells)} |", flush=True)
    print()


def trust_in_private():
    """uacme knows the system's roots only: so they get replaced, in a mount namespace of this run's own. The file, or None."""
    if "KEYTURN_BENCH_ROOTS" in os.environ:
        return os.environ["KEYTURN_BENCH_ROOTS"]
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    if os.geteuid() != 0 or not shutil.which("unshare") or not os.path.exists(bundle):
        return None
    with tempfile.NamedTemporaryFile(prefix="keyturn-bench.", dir=MEMORY, delete=False) as file:
        os.environ["KEYTURN_BENCH_ROOTS"] = file.name
    script = 'mount --bind "$KEYTURN_BENCH_ROOTS" "$0" || exit 1; "$@"; status=$?; umount "$0"; rm -f "$KEYTURN_BENCH_ROOTS"; exit $status'
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", script, bundle, sys.executable, *sys.argv])
    return None


def main():
    global BUILD, MEMORY, TRUSTED
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--only", default="one-shot,nonces,bulk")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    args = parser.parse_args()
    BUILD = args.build.resolve()
    MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    TRUSTED = trust_in_private()
    names = args.clients.split(",")
    missing = [n for n in names if not CLIENTS[n].there()]
    names = [n for n in names if n not in missing]
    if missing:
        print(f"not installed, left out: {', '.join(missing)} (tests/peers/setup bench)\n")
    only = args.only.split(",")
    if "one-shot" in only:
        print_one_shot(names, args.runs or (3 if args.quick else 7))
    if "nonces" in only:
        print_nonces(names, 4 if args.quick else 10)
    if "bulk" in only:
        print_bulk(names, args.count or (200 if args.quick else 1000), args.runs or (1 if args.quick else 3))


if __name__ == "__main__":
    main()
