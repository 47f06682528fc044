"""What check and doctor say of solvers before anything is ordered."""

from lib.manifests import certificate


def issuer(solvers, kind="Issuer", name="ca"):
    return {"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": {"name": name}, "spec": {"acme": {
        "server": "https://ca.example/dir", "privateKeySecretRef": {"name": "account"}, "solvers": solvers}}}


HTTP = {"http01": {"ingress": {}}}
DNS = {"dns01": {"rfc2136": {"nameserver": "127.0.0.1:53"}}}


def warnings(kt, *documents):
    kt.agent_settings(listeners={"http01": "127.0.0.1:8080"})
    kt.manifest("set", *documents)
    return [w["text"] for w in kt.json("check")["warnings"]]


def test_names_that_no_solver_can_prove(kt):
    web = certificate("web", "ca", names=["*.a.example", "b.example"])
    for order in ([web, issuer([HTTP])], [issuer([HTTP]), web]):
        found = warnings(kt, *order)
        assert len(found) == 1 and "spec.dnsNames (*.a.example)" in found[0] and "a wildcard needs dns-01" in found[0], found
    assert warnings(kt, issuer([HTTP, DNS]), web) == []
    found = warnings(kt, issuer([DNS]), certificate("ip", "ca", names=["c.example"], ipAddresses=["192.0.2.1"]))
    assert len(found) == 1 and "spec.ipAddresses (192.0.2.1)" in found[0] and "an address needs http-01" in found[0], found
    zoned = {**DNS, "selector": {"dnsZones": ["in.example"]}}
    found = warnings(kt, issuer([zoned], kind="ClusterIssuer"),
                     certificate("web", "ca", kind="ClusterIssuer", names=["a.in.example", "a.out.example"]))
    assert len(found) == 1 and "(a.out.example)" in found[0] and "no selector takes it" in found[0], found


def test_tls_alpn_without_a_listener(kt):
    found = warnings(kt, issuer([{"tlsAlpn01": {}}]), certificate("web", "ca"))
    assert len(found) == 1 and "spec.listeners.tlsAlpn01" in found[0], found
    rows = {r["check"]: r for r in kt.json("doctor")["checks"]}
    assert rows["manifests"]["verdict"] == "missing" and "spec.listeners.tlsAlpn01" in rows["manifests"]["text"]
    kt.agent_settings(listeners={"tlsAlpn01": "127.0.0.1:8443"})
    assert kt.json("check")["warnings"] == []
    rows = {r["check"]: r for r in kt.json("doctor")["checks"]}
    assert rows["manifests"]["verdict"] == "ok"
