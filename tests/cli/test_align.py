"""check beside a mesh and API gateways: sets that line up, and each thing that may not, by reader and status."""

import copy
import json

import pytest
from lib.manifests import ca_issuer, consumer, projected, token

ISS = "https://tokens.example"
AUD = "https://payments.example/api"
SPIFFE = "spiffe://cluster.local/ns/default/sa/orders"
APP = {"matchLabels": {"app": "payments"}}


def mesh(kind, name, **spec):
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": {"selector": APP, **spec}}


def flex(kind, name, **spec):
    return {"apiVersion": "gateway.mulesoft.com/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def jwt_config(**more):
    return {"jwtOrigin": "httpBearerAuthenticationHeader", "signingMethod": "rsa", "signingKeyLength": 256, "jwtKeyOrigin": "jwks",
            "jwksUrl": f"{ISS}/jwks.json", "validateAudClaim": True, "mandatoryAudClaim": True, "supportedAudiences": AUD,
            "mandatoryExpClaim": True, "skipClientIdValidation": False, "clientIdExpression": "#[vars.claimSet.client_id]", **more}


class Set:
    """A set that lines up; rows change one thing."""

    def __init__(self):
        self.issuer = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": "tokens"}, "spec": {"local": {
            "issuerURL": ISS, "algorithm": "RS256", "publishAhead": "1h", "publishJWKS": {"volume": {"path": "/run/jwks"}}}}}
        self.token = token("pay", "tokens", audiences=[AUD], scopes=["pay.read", "pay.write"],
                           claims={"subject": "orders", "clientID": "0oa1", "extra": {"team": "shop"}})
        self.cert = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "orders"}, "spec": {
            "secretName": "orders-tls", "uris": [SPIFFE], "issuerRef": {"name": "ca"}, "privateKey": {"algorithm": "ECDSA"},
            "usages": ["digital signature", "client auth"]}}
        self.consumer = consumer("orders", volumes=[projected("/run/orders", ("orders-tls", None), ("pay-token", None))])
        self.peer = mesh("PeerAuthentication", "strict", mtls={"mode": "STRICT"})
        self.rule = {"issuer": ISS, "jwksUri": f"{ISS}/jwks.json", "audiences": [AUD], "forwardOriginalToken": True}
        self.ra = mesh("RequestAuthentication", "payments", jwtRules=[self.rule])
        self.source = {"principals": [SPIFFE[9:]], "requestPrincipals": [f"{ISS}/orders"]}
        self.allow_rule = {"from": [{"source": self.source}],
                           "when": [{"key": "request.auth.claims[scope]", "values": ["pay.write"]}]}
        self.allow = mesh("AuthorizationPolicy", "payments", rules=[self.allow_rule])
        self.api = flex("ApiInstance", "payments", address="http://0.0.0.0:8081")
        self.config = jwt_config(validateCustomClaim=True, mandatoryCustomClaims=[{"key": "iss", "value": ISS}])
        self.binding = flex("PolicyBinding", "payments-jwt", targetRef={"kind": "ApiInstance", "name": "payments"},
                            policyRef={"kind": "Extension", "name": "jwt-validation-flex"}, order=1, config=self.config)
        self.exported = {"assetId": "jwt-validation", "assetVersion": "1.4.0", "order": 1, "configurationData": jwt_config()}
        self.more = []

    def ours(self):
        ca = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca-root"}, "stringData": {"tls.crt": "crt", "tls.key": "key"}}
        return [ca, ca_issuer(), self.issuer, self.token, self.cert, self.consumer]

    def foreign(self):
        return [d for d in (self.peer, self.ra, self.allow, self.api, self.binding, *self.more) if d]

    def write(self, kt):
        kt.manifest("ours", *self.ours())
        kt.manifest("theirs", *self.foreign())
        if self.exported:
            (kt.manifests / "policy.json").write_text(json.dumps(self.exported))


def check(kt, s):
    s.write(kt)
    result = kt.run("check", "-o", "json")
    value = result.json()
    assert result.status == (2 if value["errorCount"] else 0), result
    return value


# --- one wrong thing each: what, change, severity, status, reader, words of the text ---------------------------------------

def drop(s, *names):
    for name in names:
        setattr(s, name, None)


def only_mesh(s):
    drop(s, "binding", "api", "exported")


def oauth2(s, profile="Generic"):
    s.token["spec"].pop("claims")
    s.issuer["spec"] = {"oauth2": {"issuer": ISS, "profile": profile, "auth": {"clientID": "x", "clientSecretRef": {"name": "client"}}}}


CLIENT = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": "shop"}, "spec": {
    "secretName": "shop-client", "clients": [{"clientID": "0oa1", "secretRef": {"name": "given"}}], "issuer": {"static": {}}}}


def enforce(s, beside=None):
    """Client ID Enforcement before the API; the secret `beside` is in the caller's set."""
    s.more.append(flex("PolicyBinding", "ids", targetRef={"name": "payments"}, order=2, policyRef={"name": "client-id-enforcement-flex"},
                       config={"credentialsOriginHasHttpBasicAuthenticationHeader": "customExpression"}))
    if beside:
        s.consumer["spec"]["volumes"][0]["sources"].append({"secret": {"name": beside}})


ROWS = [
    ("mesh-audience", lambda s: (only_mesh(s), s.rule.update(audiences=["https://other.example/api"])), "error", 403,
     "RequestAuthentication default/payments", ["jwtRules[0].audiences", "Audiences in Jwt are not allowed", AUD]),
    ("mesh-audience-near", lambda s: (only_mesh(s), s.rule.update(audiences=[AUD + "/v2"])), "error", 403,
     "RequestAuthentication default/payments", [AUD + "/v2"]),
    ("mesh-audience-any", lambda s: s.rule.pop("audiences"), "warning", None,
     "RequestAuthentication default/payments", ["means any"]),
    ("token-without-audience", lambda s: (only_mesh(s), s.token["spec"].pop("audiences")), "error", 403,
     "RequestAuthentication default/payments", ["the token has no audience", "set spec.audiences of the Token"]),
    ("issuer-slash", lambda s: s.rule.update(issuer=ISS + "/"), "error", 401, "RequestAuthentication default/payments",
     ["jwtRules[0].issuer", "letter by letter", "Jwt issuer is not configured", f"write {ISS}"]),
    ("issuer-other", lambda s: s.rule.update(issuer="https://login.example"), "error", 401,
     "RequestAuthentication default/payments", ["Jwt issuer is not configured"]),
    ("issuer-http", lambda s: s.rule.update(issuer="http://tokens.example"), "error", 401,
     "RequestAuthentication default/payments", ["Jwt issuer is not configured"]),
    ("mesh-jwks-path", lambda s: s.rule.update(jwksUri=f"{ISS}/oauth2/keys"), "error", 401,
     "RequestAuthentication default/payments", ["jwksUri", "Jwks doesn't have key", f"write {ISS}/jwks.json"]),
    ("mesh-jwks-host", lambda s: (s.issuer["spec"]["local"].pop("publishJWKS"), s.rule.update(jwksUri="https://cdn.example/jwks.json")),
     "warning", None, "RequestAuthentication default/payments", ["another host"]),
    ("mesh-jwks-inline", lambda s: (s.rule.pop("jwksUri"), s.rule.update(jwks='{"keys":[]}')), "warning", None,
     "RequestAuthentication default/payments", ["jwks is fixed"]),
    ("mesh-from-header", lambda s: s.rule.update(fromHeaders=[{"name": "x-jwt"}]), "error", 403,
     "AuthorizationPolicy default/payments", ["requestPrincipals", "prefix: \"Bearer \""]),
    ("mesh-forward", lambda s: s.rule.pop("forwardOriginalToken"), "warning", None, "RequestAuthentication default/payments",
     ["forwardOriginalToken", "answer 400"]),
    ("mesh-no-policy", lambda s: drop(s, "allow"), "warning", None, "RequestAuthentication default/payments",
     ["a call without one passes"]),
    ("mesh-no-authentication", lambda s: drop(s, "ra"), "error", 403, "AuthorizationPolicy default/payments",
     ["add a RequestAuthentication"]),
    ("principal", lambda s: s.source.update(principals=["cluster.local/ns/default/sa/billing"]), "error", 403,
     "AuthorizationPolicy default/payments", ["source.principals", "cluster.local/ns/default/sa/orders", "RBAC: access denied"]),
    ("principal-with-scheme", lambda s: s.source.update(principals=[SPIFFE]), "error", 403,
     "AuthorizationPolicy default/payments", ["source.principals", f'add "{SPIFFE[9:]}"']),
    ("principal-domain", lambda s: s.source.update(principals=["prod.example/ns/default/sa/orders"]), "error", 403,
     "AuthorizationPolicy default/payments", ["prod.example/ns/default/sa/orders"]),
    ("namespace", lambda s: s.source.update(namespaces=["shop"]), "error", 403, "AuthorizationPolicy default/payments",
     ["source.namespaces"]),
    ("service-account", lambda s: s.source.update(serviceAccounts=["default/billing"]), "error", 403,
     "AuthorizationPolicy default/payments", ["source.serviceAccounts", "default/orders"]),
    ("not-principal", lambda s: s.source.update(notPrincipals=["*/sa/orders"]), "error", 403,
     "AuthorizationPolicy default/payments", ["rules out"]),
    ("subject", lambda s: s.source.update(requestPrincipals=[f"{ISS}/default/pay"]), "error", 403,
     "AuthorizationPolicy default/payments", ["source.requestPrincipals", f'add "{ISS}/orders"']),
    ("claim", lambda s: s.allow_rule.update(when=[{"key": "request.auth.claims[team]", "values": ["billing"]}]), "error", 403,
     "AuthorizationPolicy default/payments", ["request.auth.claims[team]", "billing", "shop"]),
    ("claim-missing", lambda s: s.allow_rule.update(when=[{"key": "request.auth.claims[groups]", "values": ["a"]}]), "error", 403,
     "AuthorizationPolicy default/payments", ["request.auth.claims[groups]", "not there"]),
    ("scope", lambda s: s.allow_rule.update(when=[{"key": "request.auth.claims[scope]", "values": ["pay.admin"]}]), "error", 403,
     "AuthorizationPolicy default/payments", ["pay.admin"]),
    ("claim-excluded", lambda s: s.allow_rule.update(when=[{"key": "request.auth.claims[team]", "notValues": ["shop"]}]), "error",
     403, "AuthorizationPolicy default/payments", ["rules out", "shop"]),
    ("policy-audience", lambda s: s.allow_rule.update(when=[{"key": "request.auth.audiences", "values": [AUD + "/"]}]), "error",
     403, "AuthorizationPolicy default/payments", ["request.auth.audiences"]),
    ("deny", lambda s: s.more.append(mesh("AuthorizationPolicy", "deny", action="DENY", rules=[
        {"from": [{"source": {"requestPrincipals": [f"{ISS}/*"]}}]}])), "error", 403, "AuthorizationPolicy default/deny",
     ["DENY rule that hits"]),
    ("deny-all", lambda s: s.allow["spec"].pop("rules"), "error", 403, "AuthorizationPolicy default/payments",
     ["has no rule, so nothing is allowed"]),
    ("no-certificate", lambda s: (drop(s, "api", "binding", "exported"), s.cert["spec"].update(uris=[], dnsNames=["orders"]),
                                  s.consumer["spec"].update(volumes=[projected("/run/orders", ("pay-token", None))])), "error", 0,
     "PeerAuthentication default/strict", ["no client certificate", "refuse the connection"]),
    ("server-certificate", lambda s: s.cert["spec"].update(usages=["digital signature", "server auth"]), "error", 0,
     "PeerAuthentication default/strict", ["not for clients", "add client auth"]),
    ("two-uris", lambda s: s.cert["spec"].update(uris=[SPIFFE, "https://orders.example"]), "warning", None, None,
     ["exactly one"]),
    ("dpop", lambda s: (drop(s, "api", "binding", "exported"), s.token["spec"].update(dpop={})), "error", 403,
     "AuthorizationPolicy default/payments", ["DPoP"]),
    ("api-dpop", lambda s: (drop(s, "ra", "allow"), s.token["spec"].update(dpop={})), "error", 400,
     "PolicyBinding default/payments-jwt", ["bound by DPoP"]),
    ("api-audience", lambda s: s.config.update(supportedAudiences="https://other.example"), "error", 401,
     "PolicyBinding default/payments-jwt", ["spec.config.supportedAudiences", AUD]),
    ("api-audience-slash", lambda s: s.config.update(supportedAudiences=f"{AUD}/,urn:x"), "error", 401,
     "PolicyBinding default/payments-jwt", ["letter by letter"]),
    ("api-audience-any", lambda s: s.config.update(validateAudClaim=False), "warning", None,
     "PolicyBinding default/payments-jwt", ["validateAudClaim", "pass here too"]),
    ("api-no-audience", lambda s: (drop(s, "ra", "allow", "exported"), s.token["spec"].pop("audiences")), "error", 401,
     "PolicyBinding default/payments-jwt", ["the token has no audience"]),
    ("api-jwks", lambda s: s.config.update(jwksUrl=f"{ISS}/keys"), "error", 401, "PolicyBinding default/payments-jwt",
     ["spec.config.jwksUrl", f"write {ISS}/jwks.json"]),
    ("api-jwks-missing", lambda s: s.config.pop("jwksUrl"), "error", 401, "PolicyBinding default/payments-jwt",
     ["jwksUrl is missing"]),
    ("api-algorithm", lambda s: s.config.update(signingMethod="es"), "error", 401, "PolicyBinding default/payments-jwt",
     ["asks for ES256", "signs with RS256"]),
    ("api-algorithm-hmac", lambda s: s.config.update(signingMethod="hmac"), "error", 401, "PolicyBinding default/payments-jwt",
     ["asks for HS256"]),
    ("api-key-length", lambda s: s.config.update(signingKeyLength=512), "error", 401, "PolicyBinding default/payments-jwt",
     ["asks for RS512"]),
    ("api-text-key", lambda s: (s.config.pop("jwksUrl"), s.config.update(jwtKeyOrigin="text", textKey="-----BEGIN")), "warning",
     None, "PolicyBinding default/payments-jwt", ["textKey is fixed"]),
    ("api-nbf", lambda s: s.config.update(mandatoryNbfClaim="true"), "error", 401, "PolicyBinding default/payments-jwt",
     ["wants nbf"]),
    ("api-claim-issuer", lambda s: s.config.update(mandatoryCustomClaims=[{"key": "iss", "value": ISS + "/"}]), "error", 401,
     "PolicyBinding default/payments-jwt", ["wants claim iss", ISS + "/"]),
    ("api-claim-missing", lambda s: s.config.update(mandatoryCustomClaims=[{"key": "roles", "value": "#['a']"}]), "error", 401,
     "PolicyBinding default/payments-jwt", ["wants claim roles"]),
    ("api-client-claim", lambda s: s.config.update(clientIdExpression="#[vars.claimSet.azp]"), "error", 401,
     "PolicyBinding default/payments-jwt", ["clientIdExpression", "claim azp"]),
    ("api-client-default", lambda s: s.token["spec"]["claims"].pop("clientID"), "warning", None,
     "PolicyBinding default/payments-jwt", ["skipClientIdValidation", "clientID"]),
    ("api-expression", lambda s: s.config.update(jwtOrigin="customExpression", jwtExpression="#[attributes.headers['jwt']]"),
     "warning", 400, "PolicyBinding default/payments-jwt", ["jwtExpression"]),
    ("api-ahead", lambda s: s.issuer["spec"]["local"].update(publishAhead="10m"), "warning", None,
     "PolicyBinding default/payments-jwt", ["keeps keys for 60 min", "10m"]),
    ("mesh-ahead", lambda s: (only_mesh(s), s.issuer["spec"]["local"].update(publishAhead="10m")), "warning", None,
     "RequestAuthentication default/payments", ["keeps keys for 20 min"]),
    ("api-target", lambda s: s.binding["spec"]["targetRef"].update(name="payment"), "warning", None,
     "PolicyBinding default/payments-jwt", ["guard nothing"]),
    ("export-audience", lambda s: s.exported["configurationData"].update(supportedAudiences="x"), "error", 401,
     "API policy jwt-validation", ["configurationData.supportedAudiences"]),
    ("client-id-basic", lambda s: s.more.append(flex(
        "PolicyBinding", "ids", targetRef={"kind": "ApiInstance", "name": "payments"}, order=2,
        policyRef={"name": "client-id-enforcement-flex"},
        config={"credentialsOriginHasHttpBasicAuthenticationHeader": "httpBasicAuthenticationHeader"})), "error", 401,
     "PolicyBinding default/ids", ["Authorization header, where the token is"]),
    ("client-id", lambda s: s.more.append(flex(
        "PolicyBinding", "ids", targetRef={"name": "payments"}, order=2, policyRef={"name": "client-id-enforcement-flex"},
        config={"credentialsOriginHasHttpBasicAuthenticationHeader": "customExpression"})), "warning", 401,
     "PolicyBinding default/ids", ["client id and secret besides the token", "put a ClientCredential beside"]),
    ("client-elsewhere", lambda s: (enforce(s), s.more.append(CLIENT)), "warning", 401,
     "PolicyBinding default/ids", ["client id and secret besides the token"]),
    ("gateway-mtls", lambda s: (drop(s, "peer", "ra", "allow"), s.cert["spec"].update(usages=["server auth"]), s.more.append(flex(
        "PolicyBinding", "tls", targetRef={"kind": "ApiInstance", "name": "payments"}, policyRef={"name": "tls"},
        config={"requireClientCertificate": True}))), "error", 0, "PolicyBinding default/tls", ["not for clients"]),
    ("life", lambda s: (s.token["spec"].update(duration="2h"),), "warning", None, None, ["maxTokenLifetime 1h"]),
    ("anypoint", lambda s: (only_mesh(s), oauth2(s, "Anypoint")), "error", 401,
     "RequestAuthentication default/payments", ["Anypoint", "Jwt is not in the form"]),
    ("okta-jwks", lambda s: (only_mesh(s), oauth2(s, "Okta"), s.rule.update(jwksUri=f"{ISS}/keys")), "error", 401,
     "RequestAuthentication default/payments", [f"write {ISS}/v1/keys"]),
]


@pytest.mark.parametrize("change,severity,status,reader,words", [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_one_wrong_thing(kt, change, severity, status, reader, words):
    s = Set()
    change(s)
    value = check(kt, s)
    found = value["findings"]
    fitting = [f for f in found if f["severity"] == severity and f.get("status") == status and f.get("reader") == reader and
               all(word in f["text"] for word in words)]
    assert len(fitting) == 1, json.dumps(value, indent=1)
    assert fitting[0]["line"] > 0 and fitting[0]["file"].startswith(str(kt.manifests))
    worse = [f for f in found if f["severity"] == "error" and f is not fitting[0]]
    assert severity == "error" or not worse, worse


GOOD = [
    ("as-is", lambda s: None),
    ("audience-as-envoy-compares", lambda s: s.rule.update(audiences=["payments.example/api/"])),
    ("one-of-several-audiences", lambda s: (s.token["spec"].update(audiences=["urn:other", AUD]), s.rule.update(audiences=["urn:x", AUD]),
                                            s.config.update(supportedAudiences=f"urn:y, {AUD}"))),
    ("prefix-and-suffix", lambda s: s.source.update(principals=["*/sa/orders"], requestPrincipals=[f"{ISS}/*"])),
    ("anybody-with-identity", lambda s: s.source.update(principals=["*"], requestPrincipals=["*"])),
    ("other-workload", lambda s: s.more.append(mesh("AuthorizationPolicy", "else", selector={"matchLabels": {"app": "payments", "v": "2"}},
                                                    action="DENY", rules=[{"from": [{"source": {"namespaces": ["x"]}}]}]))),
    ("deny-others", lambda s: s.more.append(mesh("AuthorizationPolicy", "deny", action="DENY", rules=[
        {"from": [{"source": {"notPrincipals": [SPIFFE[9:]]}}]}]))),
    ("deny-by-path", lambda s: s.more.append(mesh("AuthorizationPolicy", "deny", action="DENY", rules=[
        {"to": [{"operation": {"paths": ["/admin/*"]}}]}]))),
    ("audit", lambda s: s.more.append(mesh("AuthorizationPolicy", "audit", action="AUDIT", rules=[{}]))),
    ("v1beta1", lambda s: s.ra.update(apiVersion="security.istio.io/v1beta1")),
    ("certificate-by-reference", lambda s: (oauth2(s), s.token["spec"].update(certificateRef="orders-tls"), s.more.append(
        {**copy.deepcopy(s.cert), "metadata": {"name": "else"}}), s.more[0]["spec"].update(secretName="else", uris=["spiffe://x/y"]),
        s.consumer["spec"].update(volumes=[projected("/run/orders", ("pay-token", None))]))),
    ("server-elsewhere", lambda s: oauth2(s)),
    ("usages-by-default", lambda s: s.cert["spec"].pop("usages")),
    ("second-token-for-another-api", lambda s: s.more.append(token("else", "tokens", secret="else-token", audiences=["urn:else"]))),
    ("disabled-policy", lambda s: s.exported.update(disabled=True, configurationData=jwt_config(supportedAudiences="x"))),
    ("list-of-policies", lambda s: setattr(s, "exported", {"policies": [
        {"template": {"assetId": "jwt-validation"}, "order": 1, "configuration": jwt_config()},
        {"template": {"assetId": "rate-limiting"}, "order": 2, "configuration": {"x": 1}}]})),
    ("array-of-policies", lambda s: setattr(s, "exported", [{"policyTemplateId": "jwt-validation", "configurationData": jwt_config()}])),
    ("bare-configuration", lambda s: setattr(s, "exported", jwt_config())),
    ("claim-equal-to-itself", lambda s: s.config.update(mandatoryCustomClaims=[{"key": "iss", "value": "#[vars.claimSet.iss]"},
                                                                               {"key": "team", "value": "#['shop']"}])),
    ("client-beside", lambda s: (enforce(s, "shop-client"), s.more.append(CLIENT))),
    ("several-key-servers", lambda s: s.config.update(jwksUrl=f"https://other.example/keys,{ISS}/jwks.json")),
]


@pytest.mark.parametrize("change", [r[1] for r in GOOD], ids=[r[0] for r in GOOD])
def test_sets_that_line_up(kt, change):
    s = Set()
    change(s)
    value = check(kt, s)
    assert value["findings"] == [] and value["errorCount"] == 0, json.dumps(value, indent=1)
    assert value["foreign"] >= 5


def test_a_list_and_one_file_for_all(kt):
    s = Set()
    items = copy.deepcopy(s.foreign())
    (kt.manifests / "all.yaml").write_text("\n---\n".join(json.dumps(d) for d in [*s.ours(), {"apiVersion": "v1", "kind": "List", "items": items}]))
    value = kt.json("check")
    assert value["foreign"] == 5 and value["findings"] == [] and value["errorCount"] == 0, value
    assert "5 read by check only" in kt.run("check").out


def test_what_can_not_be_understood(kt):
    s = Set()
    s.ra["spec"]["jwtRules"] = "x"
    s.allow["spec"]["action"] = "Allow"
    s.binding["metadata"] = {}
    s.exported["configurationData"]["supportedAudiences"] = ",".join(f"a{i}" for i in range(1200))
    errors = [e["text"] for e in check(kt, s)["errors"]]
    assert any("jwtRules must be a list" in e for e in errors), errors
    assert any("spec.action must be ALLOW, DENY, AUDIT or CUSTOM" in e for e in errors), errors
    assert any("supportedAudiences has 1200 items" in e for e in errors), errors
    assert any("metadata.name are required" in e for e in errors), errors


def test_the_agent_passes_over_them(kt):
    kt.agent_settings()
    s = Set()
    s.rule["issuer"] = "https://wrong.example"
    kt.manifest("theirs", *s.foreign())
    (kt.manifests / "policy.json").write_text(json.dumps(s.exported))
    kt.manifest("ours", {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "self"},
                         "spec": {"selfSigned": {}}},
                {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "web"}, "spec": {
                    "secretName": "web-tls", "dnsNames": ["web.example"], "issuerRef": {"name": "self", "kind": "ClusterIssuer"}}})
    result = kt.run("renew")
    assert result.status == 0 and (kt.secrets / "web-tls" / "tls.crt").exists(), result


# --- predictions -----------------------------------------------------------------------------------------------------------

def answers(kt, *argv):
    result = kt.run("check", "-o", "json", "--call", *argv)
    assert result.status in (0, 4), result
    value = result.json()
    assert (result.status == 0) == (value["summary"]["answer"] == 200), result
    return value["summary"]["answer"], {(r["hop"], r["reader"].split()[0]): r["answer"] for r in value["hops"]}


def test_predictions(kt):
    s = Set()
    s.allow_rule["to"] = [{"operation": {"methods": ["GET"], "paths": ["/pay/*"]}}]
    s.more += [token("wrong", "tokens", audiences=["urn:else"], claims={"subject": "orders"}),
               {**copy.deepcopy(s.cert), "metadata": {"name": "foreign"}}]
    s.more[1]["spec"].update(secretName="foreign-tls", uris=["spiffe://cluster.local/ns/evil/sa/orders"])
    s.write(kt)
    hop = "mesh default app=payments"
    request = ("--request", "GET https://payments.example/pay/1?x=2")
    assert answers(kt, "pay")[0] == 200
    total, rows = answers(kt, "pay,orders", *request)
    assert total == 200 and set(rows.values()) == {"200"} and len(rows) == 5, rows
    table = kt.run("check", "--call", "default/pay,orders", *request)
    assert table.out.splitlines()[0].split() == ["HOP", "READER", "ANSWER", "WHY", "WHERE"]
    assert table.out.splitlines()[-1] == "the call would get 200"
    assert answers(kt, "pay", "--request", "POST /pay/1")[0] == 403
    assert answers(kt, "pay", "--request", "GET /admin")[0] == 403
    total, rows = answers(kt, "-,orders")
    assert total == 403 and rows[hop, "RequestAuthentication"] == "200" and rows["ApiInstance payments", "PolicyBinding"] == "400"
    total, rows = answers(kt, "pay,-")
    assert total == 0 and rows[hop, "PeerAuthentication"] == "refused" and (hop, "RequestAuthentication") not in rows
    total, rows = answers(kt, "pay", "--expired")
    assert total == 401 and rows[hop, "RequestAuthentication"] == "401" and rows["ApiInstance payments", "PolicyBinding"] == "401"
    total, rows = answers(kt, "wrong,orders")
    assert total == 403 and rows[hop, "RequestAuthentication"] == "403" and rows["ApiInstance payments", "PolicyBinding"] == "401"
    total, rows = answers(kt, "pay,foreign", *request)
    assert total == 403 and rows[hop, "AuthorizationPolicy"] == "403"


def test_predictions_of_client_id_enforcement(kt):
    """With the pair that a Consumer has beside the Token, with one that is named, and with none."""
    s = Set()
    enforce(s, "shop-client")
    anypoint = copy.deepcopy(CLIENT)
    anypoint["metadata"]["name"] = "in-place"
    anypoint["spec"].update(secretName="other-client", issuer={"anypoint": {"tokenRef": "pay-token"}})
    s.more += [CLIENT, anypoint]
    s.write(kt)
    hop = "ApiInstance payments"
    for words, status, answer, why in (("pay", 200, "200", "ClientCredential default/shop"),
                                       ("pay,orders,shop", 200, "200", "ClientCredential default/shop"),
                                       ("pay,orders,in-place", 200, "200", "401 from each reset"),
                                       ("pay,orders,-", 401, "401", "a client id and secret besides")):
        rows = kt.run("check", "-o", "json", "--call", words).json()
        row = next(r for r in rows["hops"] if r["hop"] == hop and r["reader"].endswith("/ids"))
        assert (rows["summary"]["answer"], row["answer"]) == (status, answer) and why in row["why"], (words, rows)
        assert row["certain"] == (status == 401), "contracts stand in no manifest"


def test_a_call_that_nobody_reads(kt):
    kt.manifest("ours", *Set().ours())
    result = kt.run("check", "--call", "pay")
    assert result.status == 0 and "nothing here reads the call" in result.out, result
    assert kt.run("check", "--call", "nobody").status == 2


def test_many_tokens_for_other_apis(kt):
    s = Set()
    s.more += [token(f"t{i}", "tokens", audiences=[f"urn:api:{i}"]) for i in range(1000)]
    s.source["requestPrincipals"] = ["https://else.example/x"]
    found = check(kt, s)["findings"]
    assert [f["token"] for f in found if f["severity"] == "error"] == ["default/pay"], found


def test_words_of_a_call(kt):
    Set().write(kt)
    for argv, words in [(["--call", "nobody"], "there is no Token nobody"), (["--call", "pay,nobody"], "there is no Certificate nobody"),
                        (["--call", "pay,"], "--call takes"), (["--call", "pay,orders,"], "--call takes"),
                        (["--call", "pay,orders,nobody"], "there is no ClientCredential nobody"), (["--expired"], "belong to --call"),
                        (["--call", "pay", "--request", "GET"], "--request takes")]:
        result = kt.run("check", *argv)
        assert result.status == 2 and words in result.err, result


# --- init ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("more", [(), ("-n", "shop", "--api-audience", "urn:payments", "--issuer-url", "https://a.example/t/",
                                       "--spiffe-id", "spiffe://prod.example/ns/shop/sa/checkout")], ids=["defaults", "own"])
def test_init(kt, more):
    folder = kt.root / "set"
    result = kt.run("init", "--for", "mulesoft-downstream", "--dir", str(folder), *more)
    assert result.status == 0 and str(folder / "mesh.yaml") in result.out, result
    value = json.loads(kt.run("-c", str(folder), "check", "--strict", "-o", "json").out)
    assert value["findings"] == [] and value["errorCount"] == 0 and value["warningCount"] == 0 and value["foreign"] == 6, value
    call = json.loads(kt.run("-c", str(folder), "check", "-o", "json", "--call", "orders-to-payments").out)
    assert call["summary"]["answer"] == 200 and len(call["hops"]) == 5 and all(r["certain"] for r in call["hops"]), call
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    again = kt.run("init", "--for", "mulesoft-downstream", "--dir", str(folder))
    assert again.status == 2 and "is there already; nothing was written" in again.err, again
    (folder / "agent.yaml").unlink()
    assert kt.run("init", "--for", "mulesoft-downstream", "--dir", str(folder)).status == 2
    assert not (folder / "agent.yaml").exists()
    assert all(p.read_bytes() == before[p.name] for p in folder.iterdir())


def test_init_delivers(kt):
    folder = kt.root / "set"
    assert kt.run("init", "--for", "mulesoft-downstream", "--dir", str(folder)).status == 0
    text = (folder / "credentials.yaml").read_text().replace("/run/keyturn/consumers", str(kt.root / "consumers"))
    (kt.root / "consumers").mkdir()
    (folder / "credentials.yaml").write_text(text)
    (folder / "agent.yaml").unlink()
    result = kt.run("-c", str(folder), "renew")
    assert result.status in (0, 5), result
    assert (kt.root / "consumers" / "orders" / "token").exists() and (kt.root / "consumers" / "orders" / "tls.crt").exists()


def test_init_wrong_words(kt):
    for argv, words in [([], "say what for"), (["--for", "mulesoft"], "--for takes"),
                        (["--for", "mulesoft-downstream", "--spiffe-id", "spiffe://x"], "--spiffe-id takes"),
                        (["--for", "mulesoft-downstream", "--issuer-url", "tokens"], "--issuer-url takes"),
                        (["--for", "mulesoft-downstream", "-n", "A b"], "--namespace takes"),
                        (["--for", "mulesoft-downstream", "--api-audience", "a\"b"], "--api-audience takes")]:
        result = kt.run("init", "--dir", str(kt.root / "none"), *argv)
        assert result.status == 2 and words in result.err and not (kt.root / "none").exists(), result
