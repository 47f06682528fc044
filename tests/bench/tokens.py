"""keyturn beside curl and golang.org/x/oauth2 at the same token endpoints, in one run: what a token costs.

usage: tokens.py BUILDDIR [--quick] [--only latency,rate] [--servers fast,oidc-provider] [--clients keyturn,curl,...] [--count N] [--runs N]

BUILDDIR is a release build with tests/bench/token_server and token_floor (`make bench-tokens` there does all of it). Clients
and servers that are not installed are left out, and said so; `tests/peers/setup bench` gets them. Everything is on loopback
and in memory, no machine setting is changed, no figure passes or fails. Every token is asked for by client_credentials with a
resource of its own, so that nobody can give one answer to two; the server counts the requests.
"""

import argparse
import base64
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lib import jose  # noqa: E402
from lib.certs import Authority, key_pem  # noqa: E402
from lib.servers import PEERS, OidcProvider, Server  # noqa: E402
from lib.wait import free_port, until  # noqa: E402

from acme import Run, middle  # noqa: E402

ID, SECRET = "bench", "bench-secret-0123456789-0123456789"
RESOURCE = "https://api.example/"
FLIGHTS = (1, 8)
AGENT = """apiVersion: keyturn.dev/v1alpha1
kind: Agent
metadata: {{name: bench}}
spec: {{limits: {{perIssuer: {flights}}}}}
---
apiVersion: keyturn.dev/v1alpha1
kind: TokenIssuer
metadata: {{name: server}}
spec: {{oauth2: {{issuer: "{issuer}", audienceParam: resource, caBundle: {bundle}, auth: {auth}}}}}
"""
TOKEN = """---
apiVersion: keyturn.dev/v1alpha1
kind: Token
metadata: {{name: {0}}}
spec: {{secretName: {0}, issuerRef: {{name: server, kind: TokenIssuer}}, audiences: ["{1}{0}"], scopes: [pay.write]}}
"""


# --- servers


class Fast(Server):
    """tests/bench/token_server: answers at once, and is no authorization server."""

    title = "an endpoint that answers at once (tests/bench/token_server)"
    count = 4000

    def __init__(self, tmp, key):
        self.tmp = pathlib.Path(tmp)
        self.port = free_port()
        self.issuer_url = f"https://localhost:{self.port}"
        self.authority = Authority("fast")
        self.cert, self.key, _ = self.authority.write(self.tmp, "localhost", "127.0.0.1")

    @staticmethod
    def there():
        return True

    def start(self):
        basic = "Basic " + base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
        self.process = subprocess.Popen([BUILD / "tests/bench/token_server", str(self.port), self.cert, self.key, basic],
                                        stdout=subprocess.PIPE, text=True)
        until(self.listens, 5, "the server")
        self.take()

    def listens(self):
        with open("/proc/net/tcp", encoding="ascii") as file:
            return any(line.split()[1] == f"0100007F:{self.port:04X}" and line.split()[3] == "0A" for line in list(file)[1:])

    def stop(self):
        self.process.kill()
        self.process.wait()

    def take(self):
        """(requests for a token, all others, connections) since the last time."""
        self.process.send_signal(signal.SIGUSR1)
        told = json.loads(self.process.stdout.readline())
        return told["tokens"], told["metadata"] + told["refused"], told["connections"]


class Provider(OidcProvider):
    """The certified npm oidc-provider, whose tokens are JWTs that it signs (ES256)."""

    title = "oidc-provider 9 (node; it signs each token)"
    count = 1500

    def __init__(self, tmp, key):
        super().__init__(tmp, ttl=3600, alg="ES256", clients=[
            {"client_id": ID, "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"},
            {"client_id": f"{ID}-key", "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
             "jwks": {"keys": [jose.jwk(key, kid=jose.thumbprint(key))]}}])
        self.seen = self.others = 0

    @staticmethod
    def there():
        return shutil.which("node") and (PEERS / "npm/node_modules/oidc-provider").is_dir()

    def take(self):
        everything, tokens = len(self.hook("log")), len(self.requests())
        new = tokens - self.seen, everything - tokens - self.others
        self.seen, self.others = tokens, everything - tokens
        return *new, None


SERVERS = {"fast": Fast, "oidc-provider": Provider}


# --- clients


class Client:
    """Gets `count` tokens, so many at once; {"count", "wall_s", "cpu_s"}."""

    flights = FLIGHTS
    stores = "a file each"

    def __init__(self, folder, server, key):
        self.folder, self.server, self.key = pathlib.Path(folder), server, key
        self.out = self.folder / "out"
        self.out.mkdir(parents=True)
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(server.authority.pem())
        self.url = f"{server.issuer_url}/token"

    @staticmethod
    def there():
        return True

    def get(self, count, flights):
        raise NotImplementedError

    def result(self, run, count):
        assert run.status == 0, run.output[-2000:]
        return {"count": count, "wall_s": run.wall, "cpu_s": run.cpu}

    def files(self, count):
        got = [p for p in self.out.iterdir() if p.stat().st_size > 0]
        assert len(got) == count, f"{len(got)} of {count} files"
        shutil.rmtree(self.out)
        self.out.mkdir()


class Floor(Client):
    """libcurl in one process, a thread and a connection a flight, nothing stored."""

    stores = "nothing"

    def get(self, count, flights):
        return self.result(Run([BUILD / "tests/bench/token_floor", self.url, self.ca, f"{ID}:{SECRET}", count, flights, RESOURCE]), count)


class Keyturn(Client):
    """`keyturn renew` with empty or kept state: validation, database, audit trail and delivery included."""

    stores = "database, audit trail, volumes"
    auth = json.dumps({"method": "client_secret_basic", "clientID": ID, "clientSecretRef": {"name": "client"}})
    parts = (("client-secret", SECRET.encode()),)

    def __init__(self, folder, server, key):
        super().__init__(folder, server, key)
        self.env = {**os.environ, "KEYTURN_LIBEXECDIR": str(BUILD)}
        self.round = 0

    def manifests(self, flights, *names):
        folder = self.folder / "m"
        folder.mkdir(exist_ok=True)
        with open(folder / "all.yaml", "w", encoding="utf-8") as file:
            file.write(AGENT.format(flights=flights, issuer=self.server.issuer_url, auth=self.auth,
                                    bundle=json.dumps(self.server.authority.bundle())))
            file.writelines(TOKEN.format(name, RESOURCE) for name in names)

    def argv(self, *command):
        return [BUILD / "keyturn", "-q", "-c", self.folder / "m", "--state-dir", self.folder / "state", "--secrets-dir",
                self.folder / "secrets", "--socket", self.folder / "sock", *command]

    def fresh(self, flights):
        """An empty state that knows the client's secret and has one token."""
        for name in ("state", "secrets"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.manifests(flights, "one")
        for name, value in self.parts:
            part = self.folder / "part"
            part.write_bytes(value)
            run = Run(self.argv("secret", "set", "client", f"{name}={part}"), self.env)
            assert run.status == 0, run.output
        run = Run(self.argv("renew"), self.env)
        assert run.status == 0, run.output

    def get(self, count, flights):
        if count == 1:
            return self.result(Run(self.argv("renew", "one", "--force"), self.env), 1)
        self.fresh(flights)
        self.manifests(flights, "one", *(f"t-{i}" for i in range(count)))
        self.server.take()
        done = self.result(Run(self.argv("renew", "--timeout", "5m"), self.env, timeout=400), count)
        got = sum((self.folder / "secrets" / f"t-{i}" / "token").stat().st_size > 0 for i in range(count))
        assert got == count, f"{got} of {count} volumes"
        return done


class KeyturnJwt(Keyturn):
    """The same with private_key_jwt (ES256): a signature for each."""

    auth = json.dumps({"method": "private_key_jwt", "clientID": f"{ID}-key", "keySecretRef": {"name": "client"}})

    @property
    def parts(self):
        return (("tls.key", key_pem(self.key)),)


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Curl(Client):
    """A loop that runs curl once for each token."""

    @staticmethod
    def there():
        return shutil.which("curl")

    def options(self, number):
        return [f'url = "{self.url}"', f'cacert = "{self.ca}"', f'user = "{ID}:{SECRET}"', "silent", "show-error", "fail",
                f'data = "grant_type=client_credentials&scope=pay.write&resource={RESOURCE}{number}"',
                f'output = "{self.out / str(number)}"']

    def get(self, count, flights):
        before, began, running, bad = children_cpu(), time.monotonic(), 0, 0
        (self.folder / "config").write_text("\n".join(self.options(0)[1:5]))
        argv = ["curl", "-f", "-K", str(self.folder / "config"), "-d"]
        for i in range(count):
            if running == flights:
                bad += os.wait()[1] != 0
                running -= 1
            os.posix_spawnp("curl", [*argv, f"grant_type=client_credentials&scope=pay.write&resource={RESOURCE}{i}", "-o",
                                     str(self.out / str(i)), self.url], os.environ)
            running += 1
        for _ in range(running):
            bad += os.wait()[1] != 0
        wall, spent = time.monotonic() - began, children_cpu() - before
        assert bad == 0, f"{bad} of {count} failed"
        self.files(count)
        return {"count": count, "wall_s": wall, "cpu_s": spent}


class CurlAtOnce(Curl):
    """One curl that is given all of them in a file, on kept connections."""

    def get(self, count, flights):
        config = self.folder / "config"
        config.write_text("\nnext\n".join("\n".join(self.options(i)) for i in range(count)))
        parallel = ["--parallel", "--parallel-max", flights] if flights > 1 else []
        done = self.result(Run(["curl", *parallel, "-K", config]), count)
        self.files(count)
        return done


class Go(Client):
    """golang.org/x/oauth2/clientcredentials behind the smallest program (tests/bench/oauth-go)."""

    stores = "a file each, renamed into place"

    @staticmethod
    def there():
        path = PEERS / "bin" / "oauth-go"
        return path.exists() and str(path)

    def get(self, count, flights):
        done = self.result(Run([self.there(), self.url, self.ca, f"{ID}:{SECRET}", count, flights, RESOURCE, self.out]), count)
        self.files(count)
        return done


CLIENTS = {"floor": Floor, "keyturn": Keyturn, "keyturn-jwt": KeyturnJwt, "go": Go, "curl-at-once": CurlAtOnce, "curl": Curl}
TITLES = {"floor": "floor: libcurl, nothing stored", "keyturn": "**keyturn**", "keyturn-jwt": "**keyturn**, private_key_jwt (ES256)",
          "go": "golang.org/x/oauth2", "curl-at-once": "one curl for all", "curl": "a curl for each"}


# --- what is measured


def latency(server, client, runs):
    """Medians of one token, from exec to the file."""
    if isinstance(client, Keyturn):
        client.fresh(8)
    client.get(1, 1)  # caches are warm
    server.take()
    done = [client.get(1, 1) for _ in range(runs)]
    asked, others, opened = server.take()
    each = f"{asked / runs:.0f} + {others / runs:.0f}" + (f" / {opened / runs:.0f}" if opened is not None else "")
    return f"{1000 * middle([d['wall_s'] for d in done]):.1f} | {1000 * middle([d['cpu_s'] for d in done]):.1f} | {each}"


def print_latency(server, clients, runs):
    print(f"One token, from exec to the file, median of {runs}; {server.title}\n")
    print("| client | wall ms | CPU ms | requests + others / connections |")
    print("| --- | --- | --- | --- |")
    for name, client in clients.items():
        print(f"| {TITLES[name]} | {latency(server, client, runs)} |", flush=True)
    print()


def print_rate(server, clients, count, runs):
    print(f"Tokens a second, share of the floor's rate, CPU each, requests + others / connections; {count} ({count // 25} by a curl "
          f"for each), in turns, medians of {runs}; {server.title}\n")
    print(f"| client | keeps | {' | '.join(f'{flights} in flight' for flights in FLIGHTS)} |")
    print("| --- | --- | --- | --- |")
    done = {}
    for flights in FLIGHTS:
        for _ in range(runs):
            for name, client in clients.items():
                of = count // 25 if name == "curl" else count
                server.take()
                result = client.get(of, flights)
                result["asked"] = server.take()
                done.setdefault((name, flights), []).append(result)
    for name, client in clients.items():
        cells = []
        for flights in FLIGHTS:
            mine = done[name, flights]
            rate = middle([d["count"] / d["wall_s"] for d in mine])
            base = middle([d["count"] / d["wall_s"] for d in done.get(("floor", flights), mine)])
            asked, others, opened = mine[0]["asked"]
            cells.append(f"{rate:.0f} /s, {100 * rate / base:.0f} %, {1000 * middle([d['cpu_s'] / d['count'] for d in mine]):.2f} ms, "
                         f"{asked} + {others}" + (f" / {opened}" if opened is not None else ""))
        print(f"| {TITLES[name]} | {client.stores} | {' | '.join(cells)} |", flush=True)
    print()


def main():
    global BUILD
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--only", default="latency,rate")
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--clients", default=",".join(CLIENTS))
    args = parser.parse_args()
    BUILD = args.build.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server stays behind
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    names, servers, only = args.clients.split(","), args.servers.split(","), args.only.split(",")
    missing = [n for n in names if not CLIENTS[n].there()] + [n for n in servers if not SERVERS[n].there()]
    if missing:
        print(f"not installed, left out: {', '.join(missing)} (tests/peers/setup bench)\n")
    key = jose.new_key("ES256")
    for which in (s for s in servers if s not in missing):
        with tempfile.TemporaryDirectory(prefix="keyturn-bench.", dir=memory) as folder, SERVERS[which](folder, key) as server:
            clients = {n: CLIENTS[n](pathlib.Path(folder) / n, server, key) for n in names if n not in missing}
            if "latency" in only:
                print_latency(server, clients, args.runs or (3 if args.quick else 15))
            if "rate" in only:
                print_rate(server, clients, args.count or (server.count // (4 if args.quick else 1)), args.runs or (1 if args.quick else 3))


if __name__ == "__main__":
    main()
