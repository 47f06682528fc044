"""One request path, two layers: a real Envoy that demands a SPIFFE identity by mTLS and a JWT for its audience, both by keyturn."""

import http.client
import json
import os
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler

import pytest

from lib.certs import Authority, key_pem, load
from lib.manifests import ca_issuer, certificate, consumer, projected, token
from lib.servers import Envoy, Local, OidcProvider, Recorder
from lib.wait import free_port, until

API, ISSUER = "https://payments.example/api", "https://tokens.example"
CALLER, STRANGER = "spiffe://example/ns/orders/sa/orders", "spiffe://example/ns/other/sa/other"


class Gate(Envoy):
    """
    As istiod sets a sidecar up for MESH: who comes without a certificate of our CA gets no connection; with a JWT that is not of
    our issuer, or has ended, 401; with one for another audience 403; without any, or as anybody but CALLER, 403. Its own
    certificate is read from a secret volume, and again at each swap.
    """

    def __init__(self, tmp, upstream, volume, jwks, issuer=ISSUER):
        self.tmp = tmp / f"gate-{free_port()}"
        self.tmp.mkdir(parents=True)
        self.port, self.admin, self.workers = free_port(), free_port(), 2
        extensions = "type.googleapis.com/envoy.extensions"
        folder = {"path": str(volume)}
        sds = self.tmp / "gate.json"
        sds.write_text(json.dumps({"resources": [{
            "@type": f"{extensions}.transport_sockets.tls.v3.Secret", "name": "gate", "tls_certificate": {
                "certificate_chain": {"filename": f"{volume}/tls.crt"}, "private_key": {"filename": f"{volume}/tls.key"},
                "watched_directory": folder}}]}))
        tls = {"@type": f"{extensions}.transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
               "common_tls_context": {
                   "tls_certificate_sds_secret_configs": [{"name": "gate", "sds_config": {"path_config_source": {"path": str(sds)}}}],
                   "validation_context": {"trusted_ca": {"filename": f"{volume}/ca.crt"}}}}
        jwt = {"@type": f"{extensions}.filters.http.jwt_authn.v3.JwtAuthentication", "providers": {"own": {
            "issuer": issuer, "audiences": [API], "local_jwks": {"filename": str(jwks)}, "clock_skew_seconds": 1, "forward": True,
            "payload_in_metadata": "payload"}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                {"provider_name": "own"}, {"allow_missing": {}}]}}}]}
        issued = {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "iss"}],
                               "value": {"string_match": {"exact": issuer}}}}
        rbac = {"@type": f"{extensions}.filters.http.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": {"orders": {
            "permissions": [{"any": True}], "principals": [{"and_ids": {"ids": [
                {"authenticated": {"principal_name": {"exact": CALLER}}}, issued]}}]}}}}
        manager = {"@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
                   "http_filters": [{"name": "envoy.filters.http.jwt_authn", "typed_config": jwt},
                                    {"name": "envoy.filters.http.rbac", "typed_config": rbac},
                                    {"name": "envoy.filters.http.router",
                                     "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"}}]}

        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        self.config = self.tmp / "envoy.json"
        self.config.write_text(json.dumps({"node": {"id": "gate", "cluster": "gate"}, "admin": {"address": address(self.admin)},
                                           "static_resources": {
            "listeners": [{"name": "in", "address": address(self.port), "filter_chains": [{
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{"name": "upstream", "type": "STATIC", "connect_timeout": "2s", "load_assignment": {
                "cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]}}]}}))

    def url(self, path="/"):
        return f"https://localhost:{self.port}{path}"


def mesh(kind, **spec):
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": "payments"},
            "spec": {"selector": {"matchLabels": {"app": "payments"}}, **spec}}


# What the gate does, in the words of a mesh: keyturn check reads it.
MESH = [mesh("PeerAuthentication", mtls={"mode": "STRICT"}),
        mesh("RequestAuthentication", jwtRules=[{"issuer": ISSUER, "jwksUri": f"{ISSUER}/jwks.json", "audiences": [API],
                                                 "forwardOriginalToken": True}]),
        mesh("AuthorizationPolicy", rules=[{"from": [{"source": {"principals": [CALLER[9:]], "requestPrincipals": [f"{ISSUER}/*"]}}]}])]


def context(folder=None, authority=None):
    made = ssl.create_default_context(cadata=authority.pem().decode())
    if folder:
        made.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return made


def call(url, tls, bearer=None, **headers):
    """Status, or what came of the connection. tls: a context."""
    headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10, context=tls) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code
    except OSError as e:
        return str(getattr(e, "reason", e))


def identity(name, uri):
    return certificate(name, "ca", [f"{name}.example"], duration="1h", renewBefore="20m", uris=[uri],
                       usages=["digital signature", "client auth"])


class House:
    """Gate, callers and what they need, all from one agent; tokens are by the embedded issuer."""

    def __init__(self, kt, duration="1h"):
        self.start(kt)
        self.jwks = kt.root / "keys" / "jwks.json"
        self.manifests({"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
                           "issuerURL": ISSUER, "publishJWKS": {"volume": {"path": str(self.jwks.parent)}}}}},
                       identity("stranger", STRANGER), token("call", "own", audiences=[API], duration=duration),
                       token("elsewhere", "own", audiences=["https://other.example"], duration="1h"))

    def start(self, kt, issuer=ISSUER):
        self.kt, self.authority, self.issuer, self.caller = kt, Authority(), issuer, kt.root / "caller"
        kt.secret("ca-root", tls__crt=self.authority.pem(), tls__key=key_pem(self.authority.key))

    def manifests(self, *more, secrets=()):
        self.kt.manifest("set", ca_issuer(), certificate("gate", "ca", ["localhost"], duration="1h", renewBefore="20m"),
                         identity("orders", CALLER), *more,
                         consumer("orders", volumes=[projected(self.caller, *[(s, {}) for s in ("orders-tls", "call-token", *secrets)])]))

    def gate(self, upstream):
        return Gate(self.kt.root, upstream.port, self.kt.volume("gate-tls"), self.jwks, self.issuer)

    def generation(self):
        """The caller's set: one generation, so certificate and token belong together."""
        return (self.caller / "..data").resolve(strict=True)


class Load:
    """Callers that read their set for each call; pairs: they show theirs. A set that can't be read whole is a call that failed."""

    def __init__(self, house, url, pairs=False):
        self.house, self.url, self.pairs = house, url, pairs
        self.results, self.used, self.over = [], set(), threading.Event()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(2)]

    def work(self):
        while not self.over.wait(0.02):
            try:
                self.results.append((self.once(), time.time()))
            except Exception as e:
                self.results.append((repr(e), time.time()))

    def once(self):
        folder = self.house.generation()
        tls, bearer = context(folder, self.house.authority), (folder / "token").read_text()
        pair = {f"client_{path.name[7:]}": path.read_text() for path in sorted(folder.glob("client-*"))}
        self.used.add((load((folder / "tls.crt").read_bytes())[0].serial_number, bearer, *pair.values()))
        return call(self.url, tls, bearer, **(pair if self.pairs else {}))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until(lambda: self.results, 20, "the first call")
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(15)

    def bad(self):
        return [r for r in self.results if r[0] != 200]


@pytest.fixture
def upstream():
    with Recorder() as server:
        yield server


def test_who_is_refused(kt, upstream):
    house = House(kt)
    kt.ok("renew")
    folder, good = house.generation(), kt.read("call-token", "token").decode()
    mine = context(folder, house.authority)
    with house.gate(upstream) as gate:
        assert call(gate.url(), mine, good) == 200
        assert upstream.seen[-1][1] == [f"Bearer {good}"]
        assert call(gate.url(), mine) == 403
        assert call(gate.url(), mine, good[:-4] + "AAAA") == 401
        assert call(gate.url(), mine, kt.read("elsewhere-token", "token").decode()) == 403
        assert call(gate.url(), context(kt.volume("stranger-tls"), house.authority), good) == 403
        came = len(upstream.seen)
        assert not isinstance(call(gate.url(), context(None, house.authority), good), int)
        foreign = Authority("foreign")
        cert, key, _ = foreign.write(kt.root, "orders.example")
        alien = context(None, house.authority)
        alien.load_cert_chain(cert, key)
        assert not isinstance(call(gate.url(), alien, good), int)
        assert len(upstream.seen) == came == 1


def test_check_predicts_the_answers(kt, upstream):
    """keyturn check --call from the manifests, beside what the gate answers to the same call."""
    house = House(kt, duration="5s")
    kt.manifest("mesh", *MESH)
    kt.ok("renew")
    tokens = {"-": None, **{name: kt.read(f"{name}-token", "token").decode() for name in ("call", "elsewhere")}}
    contexts = {"-": context(None, house.authority), "orders": context(house.generation(), house.authority),
                "stranger": context(kt.volume("stranger-tls"), house.authority)}
    with house.gate(upstream) as gate:
        for expired in (False, True):
            if expired:
                until(lambda: call(gate.url(), contexts["orders"], tokens["call"]) == 401, 10, "the token has ended", pause=0.2)
            for name in ("call", "elsewhere", "-") if not expired else ("call",):
                for who, tls in contexts.items():
                    said = kt.run("check", "--call", f"{name},{who}", *(["--expired"] if expired else []), "-o", "json")
                    rows = said.json()
                    predicted = rows["summary"]["answer"]
                    answered = call(gate.url(), tls, tokens[name])
                    assert predicted == (answered if isinstance(answered, int) else 0), (name, who, expired, answered, rows)
                    assert said.status == (0 if answered == 200 else 4), said


def test_an_expired_token_is_refused(kt, upstream):
    house = House(kt, duration="5s")
    kt.ok("renew")
    old = kt.read("call-token", "token").decode()
    with house.gate(upstream) as gate:
        mine = context(house.generation(), house.authority)
        assert call(gate.url(), mine, old) == 200
        until(lambda: call(gate.url(), mine, old) == 401, 10, "the token has ended", pause=0.2)


def test_no_call_fails_while_everything_rotates(kt, upstream):
    """Tokens of 8 s, the caller's and the gate's certificates renewed meanwhile, the agent killed once."""
    house = House(kt, duration="8s")
    running = kt.start()
    until(lambda: (house.caller / "token").exists() and (house.caller / "tls.crt").exists(), 20, "the caller's set")
    until(lambda: (kt.volume("gate-tls") / "tls.crt").exists(), 20, "the gate's set")
    def gate_serial():
        return load(kt.read("gate-tls", "tls.crt"))[0].serial_number

    with house.gate(upstream) as gate:
        first = gate_serial()
        with Load(house, gate.url()) as callers:
            for step in range(3):
                kt.ok("renew", "--force", "orders", "gate")
                time.sleep(2.5)
                if step == 1:
                    running.kill9()
                    running = kt.start()
            until(lambda: len({used[1] for used in list(callers.used)}) >= 4, 30, "four tokens were used")
        assert gate_serial() != first
    assert running.stop() == 0, running.err()
    assert not callers.bad() and len(callers.results) > 100, (callers.bad()[:3], len(callers.results))
    assert len({used[0] for used in callers.used}) >= 4, "each certificate of the caller was used"


# --- the client secret --------------------------------------------------------------------------------------------------------


class Shop(House):
    """
    Tokens are bought at the certified oidc-provider with the secret of a ClientCredential, which is rotated at the same server
    by what secrets.mjs imitates; the caller's set has the pair beside certificate and token.
    """

    def __init__(self, kt, server, where, *clients):
        self.start(kt, server.issuer_url)
        self.server, self.jwks = server, kt.root / "server.json"
        self.jwks.write_text(json.dumps(server.jwks()))
        kt.secret("manager", client_secret=server.secret_of("manager"))
        kt.secret("first", client_secret=server.secret_of(clients[0]))

        def issuer(name, client, secret):
            return server.oauth2(name, {"method": "client_secret_post", "clientID": client, "clientSecretRef": {"name": secret}})

        api = {"tokenRef": "manager-token", "caBundle": server.authority.bundle()}
        self.manifests(
            issuer("management", "manager", "manager"), token("manager", "management"),
            issuer("sales", clients[0], "app-client"), token("call", "sales", audiences=[API], scopes=["pay.write"]),
            {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": "app"}, "spec": {
                "secretName": "app-client", "drain": "1s", "strategy": "AlternateClients" if len(clients) > 1 else "InPlace",
                "clients": [{"clientID": c, **({"secretRef": {"name": "first"}} if c == clients[0] else {})} for c in clients],
                "test": {"tokenURL": f"{server.issuer_url}/token"},
                "issuer": {where: {**api, "url" if where == "anypoint" else "orgURL": server.issuer_url}}}},
            secrets=["app-client"])

    def pair(self):
        """What callers have."""
        return tuple((self.generation() / f"client-{what}").read_text() for what in ("id", "secret"))

    def delivered_is_in_force(self, forced_before):
        """The pair is a new one, and the only one that its client has at the server."""
        who, secret = self.pair()
        return secret not in forced_before and self.server.secrets()[who] == [secret]


class Enforcement(Local):
    """A service behind Client ID Enforcement: the pair in two headers must be one that the server takes at this moment."""

    def __init__(self, server):
        self.port, self.seen = free_port(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            asked = None

            def good(self, pair):
                for _ in range(2):  # a connection that was idle may be closed
                    self.asked = self.asked or http.client.HTTPSConnection("localhost", server.port, timeout=10, context=server.context())
                    try:
                        self.asked.request("POST", "/-/pair", json.dumps(dict(zip(("client", "secret"), pair))))
                        return json.loads(self.asked.getresponse().read())["good"]
                    except (OSError, http.client.HTTPException):
                        self.asked.close()
                        self.asked = None
                raise AssertionError("the server does not say")

            def do_GET(self):
                pair = self.headers.get("client_id"), self.headers.get("client_secret")
                good = self.good(pair)
                outer.seen.append((pair, good))
                self.send_response(200 if good else 401)
                if not good:
                    self.send_header("WWW-Authenticate", "Client-ID-Enforcement")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def finish(self):
                if self.asked:
                    self.asked.close()
                super().finish()

            def log_message(self, *args):
                pass

        self.handler = Handler


# Where in a reset the agent is killed: what the server is held at, and whether its answer reaches the agent's socket before.
MOMENTS = {"asked, and never heard": ("asked", False), "made, and the answer lost": ("made", False),
           "answered, and not stored": ("made", True), "stored, and not tried": ("tried", False),
           "tried, and not switched": ("tried", True)}


def room(running, which):
    return next(pid for pid, name in running.rooms().items() if which in name)


def reset_and_kill(kt, house, running, moment, which):
    """One rotation, with a kill -9 of a room or of the whole "agent" at this moment; the agent that runs afterwards."""
    at, answered = MOMENTS[moment]
    now = house.pair()[0]
    client = next((c for c in house.server.secrets() if c != now), now)
    house.server.hold(client, at)
    asking = [kt.background("renew", "--force", "app")]

    def reached():
        if not asking[-1].alive():  # spec.drain of the last one was not over
            asking.append(kt.background("renew", "--force", "app"))
        return house.server.held()

    until(reached, 20, f"the reset is at: {moment}", pause=0.05)
    asking[-1].kill9()  # it would ask again, and be given a second rotation
    if answered:
        os.kill(room(running, "keeper"), signal.SIGSTOP)
        house.server.release()
        time.sleep(0.3)  # the answer is at the agent, and the keeper does not see it
    if which == "agent":
        running.kill9()
    else:
        os.kill(room(running, which), signal.SIGKILL)
    if not answered:
        house.server.release(drop=at == "asked")
    return kt.start() if which == "agent" else running


@pytest.mark.parametrize("where,clients", [("anypoint", ["app-a"]), ("anypoint", ["app-a", "app-b"]), ("okta", ["app-a"])],
                         ids=["InPlace", "AlternateClients", "okta"])
def test_no_call_fails_while_the_client_secret_rotates(kt, where, clients):
    """Quietly, and with a kill -9 at each moment of a reset, of the keeper and of the whole agent in turns; last of the courier."""
    pairs = where == "okta" or len(clients) > 1  # without overlap a pair is refused for a moment; a token in hand is not
    turns = ("agent", "keeper") if where == "okta" else ("keeper", "agent")
    kills = [*zip(MOMENTS, turns * len(MOMENTS)), ("made, and the answer lost", "courier")]
    metadata = [{"client_id": c, "client_secret": f"first-secret-of-{c}-0123456789", "token_endpoint_auth_method": "client_secret_post"}
                for c in ("manager", *clients)]
    with OidcProvider(kt.root, ttl=10, clients=metadata, rotating=clients, manager="manager") as server, \
            Enforcement(server) if pairs else Recorder() as service:
        house = Shop(kt, server, where, *clients)
        running = kt.start()
        until(lambda: (house.caller / "client-secret").exists() and (house.caller / "token").exists() and
              (kt.volume("gate-tls") / "tls.crt").exists(), 20, "what caller and gate need")
        old = {house.pair()[1]}
        assert old == {server.secret_of("app-a")}, "the first secret is taken over"
        with house.gate(service) as gate, Load(house, gate.url(), pairs) as callers:
            for kill in (None, *kills):
                if kill:
                    running = reset_and_kill(kt, house, running, *kill)
                else:
                    kt.ok("renew", "--force", "app")
                until(lambda: house.delivered_is_in_force(old), 30, f"one new secret, in force and delivered; killed: {kill}")
                assert not callers.bad(), (kill, callers.bad()[:3])
                pair = house.pair()
                kt.ok("renew", "--force", "call")
                bought = [r["params"] for r in server.requests() if r["params"].get("resource")][-1]
                assert (bought["client_id"], bought["client_secret"]) == pair, "tokens are bought with it"
                old.add(pair[1])
            until(lambda: pair[1] in {u[-1] for u in list(callers.used)}, 10, "the last pair is in use")
        assert running.stop() == 0, running.err()
        assert not callers.bad() and len(callers.results) > 100, (callers.bad()[:3], len(callers.results))
        assert len({u[-1] for u in callers.used}) >= 1 + len(kills)
        in_force = [secret for own in server.secrets().values() for secret in own]
        for secret in old | {r["params"].get("client_secret") for r in server.requests()}:
            told = [server.form("/token", {"grant_type": "client_credentials", "client_id": c, "client_secret": secret})[0]
                    for c in clients]
            assert (200 in told) == (secret in in_force), told


ENFORCEMENT = {"assetId": "client-id-enforcement", "assetVersion": "1.3.3", "order": 1, "configurationData": {
    "credentialsOriginHasHttpBasicAuthenticationHeader": "customExpression",
    "clientIdExpression": "#[attributes.headers['client_id']]", "clientSecretExpression": "#[attributes.headers['client_secret']]"}}


def test_check_predicts_client_id_enforcement(kt):
    """Beside what gate and service answer: with the pair in force, without one, and with one that was reset in place."""
    metadata = [{"client_id": c, "client_secret": f"first-secret-of-{c}-0123456789", "token_endpoint_auth_method": "client_secret_post"}
                for c in ("manager", "app-a")]
    with OidcProvider(kt.root, ttl=60, clients=metadata, rotating=["app-a"], manager="manager") as server, \
            Enforcement(server) as service:
        house = Shop(kt, server, "anypoint", "app-a")
        (kt.manifests / "policy.json").write_text(json.dumps(ENFORCEMENT))
        kt.ok("renew")
        before = house.pair()
        kt.ok("renew", "--force", "app")

        def told(words):
            said = kt.run("check", "--call", words, "-o", "json").json()
            return said["summary"]["answer"], next(r["why"] for r in said["hops"] if r["reader"].startswith("API policy"))

        with house.gate(service) as gate:
            folder = house.generation()
            mine, bearer = context(folder, house.authority), (folder / "token").read_text()

            def answer(*pair):
                return call(gate.url(), mine, bearer, **dict(zip(("client_id", "client_secret"), pair)))

            assert told("call,orders,app")[0] == told("call")[0] == answer(*house.pair()) == 200
            assert told("call,orders,-")[0] == answer() == 401
            assert "401 from each reset" in told("call,orders,app")[1] and answer(*before) == 401
