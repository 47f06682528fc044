"""One request path, two layers: a real Envoy that demands a SPIFFE identity by mTLS and a JWT for its audience, both by keyturn."""

import json
import ssl
import threading
import time
import urllib.error
import urllib.request

import pytest

from lib.certs import Authority, key_pem, load
from lib.manifests import ca_issuer, certificate, consumer, projected, token
from lib.servers import Envoy, Recorder
from lib.wait import free_port, until

API, ISSUER = "https://payments.example/api", "https://tokens.example"
CALLER, STRANGER = "spiffe://example/ns/orders/sa/orders", "spiffe://example/ns/other/sa/other"


class Gate(Envoy):
    """
    As istiod sets a sidecar up for MESH: who comes without a certificate of our CA gets no connection; with a JWT that is not of
    our issuer, or has ended, 401; with one for another audience 403; without any, or as anybody but CALLER, 403. Its own
    certificate is read from a secret volume, and again at each swap.
    """

    def __init__(self, tmp, upstream, volume, jwks):
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
            "issuer": ISSUER, "audiences": [API], "local_jwks": {"filename": str(jwks)}, "clock_skew_seconds": 1, "forward": True,
            "payload_in_metadata": "payload"}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                {"provider_name": "own"}, {"allow_missing": {}}]}}}]}
        issued = {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "iss"}],
                               "value": {"string_match": {"exact": ISSUER}}}}
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


def call(url, tls, bearer=None):
    """Status, or what came of the connection. tls: a context."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10, context=tls) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code
    except OSError as e:
        return str(getattr(e, "reason", e))


class House:
    """Gate, callers and what they need, all from one agent."""

    def __init__(self, kt, duration="1h"):
        self.kt, self.authority = kt, Authority()
        self.jwks, self.caller = kt.root / "keys", kt.root / "caller"
        kt.secret("ca-root", tls__crt=self.authority.pem(), tls__key=key_pem(self.authority.key))

        def identity(name, uri):
            return certificate(name, "ca", [f"{name}.example"], duration="1h", renewBefore="20m", uris=[uri],
                               usages=["digital signature", "client auth"])

        kt.manifest("set", ca_issuer(),
                    {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "own"}, "spec": {"local": {
                        "issuerURL": ISSUER, "publishJWKS": {"volume": {"path": str(self.jwks)}}}}},
                    certificate("gate", "ca", ["localhost"], duration="1h", renewBefore="20m"),
                    identity("orders", CALLER), identity("stranger", STRANGER),
                    token("call", "own", audiences=[API], duration=duration),
                    token("elsewhere", "own", audiences=["https://other.example"], duration="1h"),
                    consumer("orders", volumes=[projected(self.caller, ("orders-tls", {}), ("call-token", {}))]))

    def gate(self, upstream):
        return Gate(self.kt.root, upstream.port, self.kt.volume("gate-tls"), self.jwks / "jwks.json")

    def generation(self):
        """The caller's set: one generation, so certificate and token belong together."""
        return (self.caller / "..data").resolve(strict=True)


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
    results, over = [], threading.Event()
    used = set()

    def work(gate):
        while not over.wait(0.02):
            try:
                folder = house.generation()
                tls, bearer = context(folder, house.authority), (folder / "token").read_text()
                used.add((load((folder / "tls.crt").read_bytes())[0].serial_number, bearer))
                results.append(call(gate.url(), tls, bearer))
            except Exception as e:  # a set that could not be read whole counts as a call that failed
                results.append(repr(e))

    def gate_serial():
        return load(kt.read("gate-tls", "tls.crt"))[0].serial_number

    with house.gate(upstream) as gate:
        threads = [threading.Thread(target=work, args=(gate,), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        first = gate_serial()
        try:
            until(lambda: results, 10, "the first call")
            for step in range(3):
                kt.ok("renew", "--force", "orders", "gate")
                time.sleep(2.5)
                if step == 1:
                    running.kill9()
                    running = kt.start()
            until(lambda: len({bearer for _, bearer in list(used)}) >= 4, 30, "four tokens were used")
        finally:
            over.set()
            for thread in threads:
                thread.join(15)
        assert gate_serial() != first
    assert running.stop() == 0, running.err()
    assert set(results) == {200} and len(results) > 100, (set(results), len(results))
    assert len({serial for serial, _ in used}) >= 4, "each certificate of the caller was used"
