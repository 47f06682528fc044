/* Manifests of one document: what is accepted, what is refused with which line, the stored form, schema and page. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/io.h"
#include "kt/manifest.h"
#include "kt/mem.h"
#include "manifest/doc.h"
#include "manifest/field.h"

#define CERT_HEAD                                                                                                      \
	"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: web}\nspec:\n  secretName: web-tls\n  "   \
	"issuerRef: {name: ca}\n"
#define CERT   CERT_HEAD "  dnsNames: [a.example]\n" /* 7 lines: the next one is line 8 */
#define ISSUER "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: le}\nspec:\n"
#define ACME   ISSUER "  acme:\n    server: https://ca.example/dir\n    privateKeySecretRef: {name: key}\n"
#define TOKEN                                                                                                          \
	"apiVersion: keyturn.dev/v1alpha1\nkind: Token\nmetadata: {name: t}\nspec:\n  secretName: t\n  issuerRef: "    \
	"{name: i}\n"
#define ISS      "apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: i}\nspec:\n"
#define CLIENT "apiVersion: keyturn.dev/v1alpha1\nkind: ClientCredential\nmetadata: {name: c}\nspec:\n"
#define WATCH "apiVersion: keyturn.dev/v1alpha1\nkind: Watch\nmetadata: {name: w}\nspec:\n"
#define CONSUMER "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c}\nspec:\n  secrets: [web-tls]\n"
#define AGENT    "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n"

struct kept {
	struct kt_resource *items[16];
	unsigned count;
};

static enum kt_code keep(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct kept *kept = arg;

	(void)err;
	if (kept->count == 16)
		kt_resource_destroy(resource);
	else
		kept->items[kept->count++] = resource;
	return KT_OK;
}

static void drop(struct kept *kept)
{
	for (unsigned i = 0; i < kept->count; i++)
		kt_resource_destroy(kept->items[i]);
	kept->count = 0;
}

/* Reads text; puts the complaints into out. */
static void read_text(struct kt_view text, struct kept *kept, struct kt_buf *out)
{
	struct kt_report report;
	struct kt_err err = {0};

	kt_report_init(&report);
	assert_int_equal(kt_manifest_read(text, "f", keep, kept, &report, &err), KT_OK);
	kt_buf_init(out, 1 << 20);
	kt_report_format(&report, true, out);
	kt_report_finish(&report);
}

struct bad {
	const char *text, *error;
};

static const struct bad bads[] = {
	/* YAML itself */
	{"a: [1, 2\n", "f:2: not YAML"},
	{"a: 1\n  b: 2\n", "f:2: not YAML"},
	{"a: \xff\n", "not UTF-8"},
	{"- 1\n", "f:1: a document must be an object"},
	{CERT "  <<: {a: 1}\n", "f:8: merge keys"},
	{"1: a\n", "f:1: a key must be a string"},
	{"yes: a\n", "f:1: a key must be a string"},
	{"? [a]\n: b\n", "f:1: a key must be a string"},
	{CERT "  commonName: *x\n", "f:8: alias *x has no anchor"},
	{CERT "  uris: &x [a]\n  emailAddresses: *x\n", "f:9: alias *x stands for a list or an object"},
	{CERT "  commonName: !!binary aGk=\n", "f:8: tag"},
	{CERT "  dnsNames: [b.example]\n", "f:8: spec.dnsNames is given twice"},
	{CERT "  secretTemplate:\n    labels: {a: x, a: y}\n", "spec.secretTemplate.labels.a is given twice"},
	/* kinds */
	{"apiVersion: v1\nkind: Sekret\n",
	 "f:2: kind (Sekret) of apiVersion v1 is not one that keyturn handles, did you mean Secret?"},
	{"apiVersion: cert-manager.io/v1alpha2\nkind: Certificate\n",
	 "f:1: apiVersion (cert-manager.io/v1alpha2) must be cert-manager.io/v1"},
	{"kind: Certificate\n", "f:1: apiVersion is required"},
	{"apiVersion: v1\n", "f:1: kind is required"},
	{"apiVersion: cert-manager.io/v1\nkind: CertificateRequest\n",
	 "f:2: kind (CertificateRequest) is made by a controller"},
	{"apiVersion: v1\nkind: List\n", "f:2: a List must have items"},
	/* metadata */
	{"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: ../x}\nspec: {secretName: a, issuerRef: "
	 "{name: b}, dnsNames: [c]}\n",
	 "f:3: metadata.name (../x) is not a name"},
	{"apiVersion: cert-manager.io/v1\nkind: Certificate\nspec: {secretName: a, issuerRef: {name: b}, dnsNames: "
	 "[c]}\n",
	 "f:1: metadata is required"},
	{"apiVersion: cert-manager.io/v1\nkind: ClusterIssuer\nmetadata: {name: x, namespace: shop}\nspec: "
	 "{selfSigned: {}}\n",
	 "f:3: metadata.namespace (shop) is not for kind ClusterIssuer"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: x, annotations: {keyturn.dev/webroot: "
	 "/x}}\nspec: {selfSigned: {}}\n",
	 "keyturn.dev/webroot is not an annotation that keyturn knows"},
	/* fields and types */
	{CERT "  isCa: true\n", "f:8: spec.isCa is not a field that is known here, did you mean isCA?"},
	{CERT "  renewBefor: 1h\n", "did you mean renewBefore?"},
	{CERT "  xyzzy: 1h\n", "f:8: spec.xyzzy is not a field that is known here; remove it"},
	{CERT "  commonName: 5\n", "f:8: spec.commonName (5) must be a string, not a number; write it in quotes"},
	{CERT "  commonName: yes\n", "f:8: spec.commonName (yes) must be a string, not a boolean"},
	{CERT "  isCA: \"true\"\n", "f:8: spec.isCA (true) must be true or false, not a string"},
	{CERT "  duration: 90d\n", "f:8: spec.duration (90d) is not a duration"},
	{CERT "  duration: 24\n", "f:8: spec.duration (24) must be a duration"},
	{CERT "  duration: 1ns\n", "f:8: spec.duration (1ns) must be from 5s to"},
	{CERT "  duration: -1h\n", "f:8: spec.duration (-1h)"},
	{CERT "  uris: a\n", "f:8: spec.uris (a) must be a list, not a string"},
	{CERT "  privateKey: [a]\n", "f:8: spec.privateKey must be an object, not a list"},
	{CERT "  revisionHistoryLimit: 0\n", "must be a whole number from 1 to 1000"},
	{CERT "  revisionHistoryLimit: 1.5\n", "must be a number, not a fraction"},
	{CERT "  usages: [server auth, serverauth]\n",
	 "f:8: spec.usages[1] (serverauth) is not known, did you mean server auth?"},
	{CERT_HEAD "  dnsNames:\n    - good.example\n    - \"\"\n", "f:9: spec.dnsNames[1] must not be empty"},
	{"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: web}\nspec:\n  dnsNames: [a.example]\n  "
	 "issuerRef: {name: ca}\n",
	 "f:4: spec.secretName is required"},
	{"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: web}\nspec:\n  dnsNames: [a.example]\n  "
	 "issuerRef: {}\n  secretName: x\n",
	 "f:6: spec.issuerRef.name is required"},
	/* values of Certificate */
	{CERT_HEAD, "f:4: spec must name at least one of dnsNames"},
	{CERT_HEAD "  dnsNames: [\"a b\"]\n", "f:7: spec.dnsNames[0] (a b) is not a DNS name"},
	{CERT_HEAD "  dnsNames: [\"a.*.b\"]\n", "has a '*' that is not its whole first label"},
	{CERT_HEAD "  dnsNames: [127.0.0.1]\n", "is an IP address; move it to spec.ipAddresses"},
	{CERT_HEAD "  dnsNames: [b\xc3\xbc"
		   "cher.example]\n",
	 "write it in punycode"},
	{CERT_HEAD "  ipAddresses: [1.2.3]\n", "f:7: spec.ipAddresses[0] (1.2.3) "},
	{CERT_HEAD "  ipAddresses: [\"1.2.3\"]\n", "f:7: spec.ipAddresses[0] (1.2.3) is not an IP address"},
	{CERT "  uris: [www]\n", "is not a URI with a scheme"},
	{CERT "  emailAddresses: [www]\n", "is not a mail address"},
	{CERT "  commonName: 12345678901234567890123456789012345678901234567890123456789012345x\n",
	 "has more than 64 bytes"},
	{CERT "  duration: 24h\n  renewBefore: 720h\n",
	 "f:9: spec.renewBefore (720h) must be shorter than spec.duration (24h)"},
	{CERT "  renewBefore: 1m\n", "f:8: spec.renewBefore (1m) must be at least 5m"},
	{CERT "  renewBefore: 1h\n  renewBeforePercentage: 10\n",
	 "f:9: spec.renewBeforePercentage excludes renewBefore"},
	{CERT "  renewBeforePercentage: 100\n", "from 1 to 99"},
	{CERT "  duration: 1h\n  renewBeforePercentage: 1\n", "leaves less than 5m"},
	{CERT "  literalSubject: CN=x\n  commonName: x\n", "f:8: spec.literalSubject excludes commonName"},
	{CERT "  privateKey: {algorithm: ECDSA, size: 2048}\n",
	 "f:8: spec.privateKey.size (2048) must be 256, 384 or 521"},
	{CERT "  privateKey: {size: 1024}\n", "must be from 2048 to 8192 for RSA"},
	{CERT "  privateKey: {algorithm: ECDSA}\n  signatureAlgorithm: SHA256WithRSA\n",
	 "f:9: spec.signatureAlgorithm (SHA256WithRSA) needs a key of algorithm RSA"},
	{CERT "  nameConstraints: {permitted: {dnsDomains: [a]}}\n", "are for CA certificates only"},
	{CERT "  isCA: true\n  nameConstraints: {permitted: {}}\n", "must name something"},
	{CERT "  keystores: {jks: {create: true}}\n",
	 "f:8: spec.keystores.jks must have passwordSecretRef or password"},
	{CERT "  keystores: {jks: {alias: x, password: a}}\n", "spec.keystores.jks.create is required"},
	{CERT "  keystores: {jks: {create: true, password: a, passwordSecretRef: {name: b}}}\n",
	 "spec.keystores.jks.password excludes passwordSecretRef"},
	{CERT "  keystores: {jks: {create: true, password: a, alias: \"z\xc3\xbcrich\"}}\n", "must be printable ASCII"},
	{CERT "  keystores: {pkcs12: {create: true}}\n", "must have passwordSecretRef or password"},
	{CERT "  keystores: {pkcs12: {create: true, password: 7}}\n",
	 "spec.keystores.pkcs12.password must be a string"},
	{CERT "  renewal: {windows: [{cron: \"0 25 * * *\", windowDuration: 1h}]}\n",
	 "f:8: spec.renewal.windows[0].cron (0 25 * * *) has a wrong second field"},
	{CERT "  renewal: {windows: [{cron: \"0 2 * * *\", windowDuration: 1h, timezone: Europe/Atlantis}]}\n",
	 "(Europe/Atlantis) is not a time zone"},
	{CERT "  renewal: {windows: [{cron: \"0 2 * * *\"}]}\n", "spec.renewal.windows[0].windowDuration is required"},
	{CERT "  otherNames: [{oid: 1.2.x, utf8Value: a}]\n", "is not an object identifier"},
	{CERT "  secretTemplate: {annotations: {cert-manager.io/x: z}}\n", "is kept for the controller"},
	{"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: w}\nspec: {secretName: a, issuerRef: "
	 "{name: b, group: awspca.x}, dnsNames: [c]}\n",
	 "f:4: spec.issuerRef.group (awspca.x) is not offered"},
	/* Issuer */
	{ISSUER "  {}\n", "f:4: spec must have one of: acme, ca, selfSigned"},
	{ISSUER "  selfSigned: {}\n  ca: {secretName: x}\n", "f:4: spec must have only one of"},
	{ISSUER "  vault: {server: x}\n", "f:5: spec.vault is not offered"},
	{ACME "    solvers: [{dns01: {cloudflare: {}}}]\n",
	 "f:8: spec.acme.solvers[0].dns01.cloudflare must have one of: apiKeySecretRef, apiTokenSecretRef"},
	{ACME "    solvers: [{dns01: {cloudflare: {apiKeySecretRef: {name: k}}}}]\n",
	 "cloudflare.email is needed beside apiKeySecretRef"},
	{ACME "    solvers: [{dns01: {azureDNS: {}}}]\n", "solvers[0].dns01.azureDNS is not offered: keyturn has acmeDNS"},
	{ACME "    solvers: [{dns01: {webhook: {}}}]\n", "solvers[0].dns01.webhook is not offered: a cluster's webhook"},
	{ACME "    solvers: [{dns01: {rfc2136: {nameserver: a, tsigKeyName: k}}}]\n",
	 "rfc2136.tsigKeyName and tsigSecretSecretRef belong together"},
	{ACME "    solvers: [{dns01: {rfc2136: {nameserver: a, tsigAlgorithm: MD5}}}]\n",
	 "tsigAlgorithm (MD5) must be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512"},
	{ACME "    solvers: [{dns01: {route53: {secretAccessKeySecretRef: {name: s}}}}]\n",
	 "route53.accessKeyID or accessKeyIDSecretRef must be given"},
	{ACME "    solvers: [{dns01: {exec: {exec: {argv: [x]}}}}]\n", "exec.exec.argv[0] (x)"},
	{ACME "    solvers: [{dns01: {exec: {exec: {argv: [/x]}, cleanupArgv: [/y]}}}]\n",
	 "exec.cleanupArgv is for convention: Certbot"},
	{ACME "    solvers: [{dns01: {exec: {exec: {argv: [/x]}}}, http01: {ingress: {}}}]\n",
	 "solvers[0] must have only one of"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/fallback-issuers: "
	 "\"B_b\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "keyturn.dev/fallback-issuers (B_b) must be a list of names"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/rate-limits: "
	 "\"order=5/1h\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "must be none, or a list"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/rate-limits: "
	 "\"orders=5\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "must be none, or a list"},
	{"apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {listeners: {jwks: \":443\", tlsAlpn01: "
	 "\":443\"}}\n",
	 "speaks TLS: it can't share :443"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/rate-limits: "
	 "\"orders=0/1h\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "must have numbers"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/rate-limits: "
	 "\"orders=5/1h, failures=2/99999h\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "must have durations"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/rate-limits: "
	 "\"none, x\"}}\nspec:\n  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: "
	 "{ingress: {}}}]}\n",
	 "must be none, or a list"},
	{"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/stagin-server: "
	 "x}}\nspec: {selfSigned: {}}\n",
	 "did you mean keyturn.dev/staging-server?"},
	{ACME "    solvers: [{http01: {ingress: {name: x}}}]\n",
	 "ingress.name is not offered: there is no Ingress to edit here"},
	{ACME "    solvers: []\n", "spec.acme.solvers must have at least one entry"},
	{ACME "    skipTLSVerify: true\n    solvers: [{http01: {ingress: {}}}]\n",
	 "f:8: spec.acme.skipTLSVerify is accepted only for a server on this machine"},
	{ISSUER "  acme:\n    server: http://ca.example/dir\n    privateKeySecretRef: {name: k}\n    solvers: "
		"[{http01: {ingress: {}}}]\n",
	 "f:6: spec.acme.server (http://ca.example/dir) must be https"},
	/* TokenIssuer, Token */
	{ISS "  oauth2: {tokenURL: \"https://a.example/t\", auth: {method: private_key_jwt, clientID: a, "
	     "clientSecretRef: {name: b}}}\n",
	 "spec.oauth2.auth.keySecretRef is needed for method private_key_jwt"},
	{ISS "  oauth2: {tokenURL: \"https://a.example/t\", jwksURL: \"https://a.example/j\", auth: {clientID: a, clientSecretRef: {name: b}}}\n",
	 "spec.oauth2.jwksURL is of no use without verifyTokens"},
	{ISS "  oauth2: {tokenURL: \"https://a.example/t\", verifyTokens: true, auth: {clientID: a, clientSecretRef: {name: b}}}\n",
	 "spec.oauth2.verifyTokens needs jwksURL where tokenURL is given"},
	{ISS "  oauth2: {auth: {clientID: a, clientSecretRef: {name: b}}}\n",
	 "spec.oauth2 must have one of: issuer, tokenURL"},
	{ISS "  anypoint: {}\n", "spec.anypoint is not offered"},
	{ISS "  local: {issuerURL: \"https://a.example\", publishAhead: -1h}\n", "publishAhead (-1h)"},
	{TOKEN "  maxLifetime: 10m\n  renewBefore: 10m\n",
	 "f:8: spec.renewBefore (10m) must be shorter than spec.maxLifetime (10m)"},
	{TOKEN "  scopes: [\"a b\"]\n", "is not a scope"},
	{TOKEN "  outputs: [raw, yaml]\n", "spec.outputs[1] (yaml)"},
	{TOKEN "  awsProfile: \"a]b\"\n", "spec.awsProfile (a]b) must be 2 to 64"},
	{ISS "  aws: {region: eu-central-1, roleARN: \"arn:aws:iam::1:role/a\"}\n",
	 "spec.aws must have one of: rolesAnywhere, webIdentity"},
	{ISS "  aws: {region: EU, roleARN: \"arn:aws:iam::1:role/a\", webIdentity: {tokenRef: t}}\n", "spec.aws.region (EU) is not a region"},
	{ISS "  aws: {region: eu, roleARN: \"arn:aws:iam:role/a\", webIdentity: {tokenRef: t}}\n", "is not an ARN"},
	{ISS "  aws: {region: eu, roleARN: \"arn:aws:iam::1:role/a\\\"\", webIdentity: {tokenRef: t}}\n", "is not an ARN"},
	{ISS "  aws: {region: eu, roleARN: \"arn:aws:iam::1:role/a\", sessionName: a b, webIdentity: {tokenRef: t}}\n",
	 "spec.aws.sessionName (a b) must be 2 to 64"},
	{ISS "  aws: {region: eu, roleARN: \"arn:aws:iam::1:role/a\", endpoint: \"https://a.example/b\", webIdentity: {tokenRef: t}}\n",
	 "must end after host and port"},
	{AGENT "  listeners: {aws: \":9405\"}\n", "spec.listeners.aws (:9405)"},
	{AGENT "  listeners: {aws: \"192.0.2.1:9405\"}\n", "spec.listeners.aws (192.0.2.1:9405) must be a loopback address"},
	{AGENT "  listeners: {aws: \"127.0.0.1:9405\", metrics: \"127.0.0.1:9405\"}\n", "spec.listeners.aws gives secrets"},
	/* Consumer */
	{"apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c}\nspec: {within: 5s}\n",
	 "f:4: spec must use a secret"},
	{CONSUMER "  socket: {secrets: [web-tls]}\n", "f:6: spec.socket must say who may ask: users, groups or both"},
	{CONSUMER "  socket: {users: [nobody]}\n", "spec.socket.users have nobody, which is everybody of other user namespaces"},
	{CONSUMER "  socket: {groups: [\"65534\"]}\n", "spec.socket.groups have 65534"},
	{CONSUMER "  socket: {users: [\"a b\"]}\n", "spec.socket.users[0] (a b)"},
	{AGENT "  listeners: {tokens: \":9500\"}\n", "spec.listeners.tokens (:9500) must be a local socket"},
	{AGENT "  listeners: {tokens: \"unix:/t\", tlsAlpn01: \"unix:/t\"}\n", "spec.listeners.tokens is open to everybody here"},
	{CONSUMER "  prove: [{secret: other, tls: {address: \"a:1\"}}]\n",
	 "f:6: spec.prove[0].secret (other) is not used by this Consumer"},
	{CONSUMER "  prove: [{secret: web-tls}]\n", "spec.prove[0] must have one of: accepted, exec, observed, readBack, tls"},
	{CONSUMER "  prove: [{secret: web-tls, readBack: {name: ingress}}]\n",
	 "spec.prove[0].readBack.name (ingress) is no target of secret web-tls"},
	{CONSUMER "  targets: [{secret: web-tls}]\n", "spec.targets[0] must have one of: anypointPrivateSpace, anypointSecretGroup"},
	{CONSUMER "  targets: [{secret: web-tls, anypointSecretGroup: {organization: o, environment: e, secretGroup: g/../h, name: abc, "
		  "tokenRef: t}}]\n",
	 "spec.targets[0].anypointSecretGroup.secretGroup (g/../h) is not an id"},
	{CONSUMER "  targets: [{secret: web-tls, anypointSecretGroup: {organization: o, environment: e, secretGroup: g, name: ab, "
		  "tokenRef: t}}]\n",
	 "must have 3 to 35 letters"},
	{CONSUMER "  targets: [{secret: web-tls, anypointSecretGroup: {organization: o, environment: e, secretGroup: g, name: abc, "
		  "tokenRef: t, host: \"a/b\"}}]\n",
	 "spec.targets[0].anypointSecretGroup.host (a/b) is not a host"},
	{CONSUMER "  targets: [{secret: web-tls, anypointSecretGroup: {organization: o, environment: e, secretGroup: g, name: abc, "
		  "tokenRef: t, type: JCEKS}}]\n",
	 "spec.targets[0].anypointSecretGroup.type (JCEKS)"},
	{CONSUMER "  validate: [{exec: {argv: [nginx, -t]}}]\n",
	 "f:6: spec.validate[0].exec.argv[0] (nginx) must be an absolute path"},
	{CONSUMER "  notify: [{signal: {name: SIGHUP, pidFile: /run/x}}]\n", "spec.notify[0].signal.name (SIGHUP)"},
	{CONSUMER "  rollout: {windows: [{cron: \"0 2 * * 6\", windowDuration: 2h}]}\n", "rollout.windows have no use without notify or targets"},
	{CONSUMER "  notify: [{touch: {path: /x}}]\n  rollout: {windows: [{cron: \"0 2 * * 9\", windowDuration: 2h}]}\n",
	 "spec.rollout.windows[0].cron"},
	{CONSUMER "  notify: [{signal: {name: HUP}}]\n", "must have one of: pidFile, process, systemdUnit"},
	{CONSUMER "  notify: [{touch: {path: /run/../etc/x}}]\n", "must not have '.' or '..'"},
	{CONSUMER "  volumes: [{path: /v, defaultMode: 0440, sources: [{secret: {name: a}}]}]\n",
	 "f:6: spec.volumes[0].defaultMode (0440) must be an octal mode in quotes"},
	{CONSUMER "  volumes: [{path: /v, sources: [{secret: {name: a, items: [{key: k, path: ../x}]}}]}]\n",
	 "items[0].path (../x) must be a relative path"},
	{CONSUMER "  volumes: [{path: /v}]\n", "spec.volumes[0].sources is required"},
	{CONSUMER "  notify: [{exec: {argv: [/bin/true], env: {KEYTURN_X: a}}}]\n", "is a variable that keyturn sets"},
	/* Agent */
	{AGENT "  masterKey: {file: /a, credential: b}\n", "spec.masterKey must have only one of"},
	{AGENT "  listeners: {metrics: \"127.0.0.1\"}\n", "is not an address with a port"},
	{AGENT "  audit: {anchor: File}\n", "belongs with anchor: File"},
	/* Secret: no value in a complaint */
	{"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: \"%%hush\"}\n", "f:4: data.k is not base64"},
};

static void test_bad(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct kept kept = {0};
		struct kt_buf out;

		read_text(kt_view_str(bads[i].text), &kept, &out);
		if (kept.count || !out.len || !strstr(out.ptr, bads[i].error)) {
			wrong++;
			print_error("case %zu: wanted '%s', got %u resources and:\n%s\n", i, bads[i].error, kept.count,
				    out.len ? out.ptr : "nothing");
		}
		if (out.len && strstr(out.ptr, "hush"))
			fail_msg("case %zu shows a secret", i);
		kt_buf_finish(&out);
		drop(&kept);
	}
	assert_int_equal(wrong, 0);
}

/* The documents after a bad one are still read, also after one that isn't YAML. */
static void test_goes_on(void **state)
{
	struct kept kept = {0};
	struct kt_buf out;

	(void)state;
	read_text(kt_view_str("a: [\n---\n" CERT "---\n" CERT "  isCa: 1\n---\n" CERT "...\n"), &kept, &out);
	assert_int_equal(kept.count, 2);
	assert_int_equal(kept.items[0]->line, 3);
	assert_non_null(strstr(out.ptr, "f:18: spec.isCa"));
	kt_buf_finish(&out);
	drop(&kept);
}

static void test_limits(void **state)
{
	struct kt_buf text, out;
	struct kept kept = {0};

	(void)state;
	kt_buf_init(&text, (size_t)4 << 20);
	kt_buf_adds(&text, CERT_HEAD "  dnsNames:\n");
	for (int i = 0; i < 10000; i++)
		kt_buf_addf(&text, "    - n%d.example\n", i);
	read_text(kt_buf_view(&text), &kept, &out);
	assert_string_equal(out.ptr, "f:7: spec.dnsNames has 10000 entries, at most 1000 are accepted; split it\n");
	kt_buf_finish(&out);

	/* The billion laughs, of lists and of text. */
	kt_buf_reset(&text);
	kt_buf_adds(&text, "a0: &a0 [x, x]\n");
	for (int i = 1; i < 30; i++)
		kt_buf_addf(&text, "a%d: &a%d [*a%d, *a%d]\n", i, i, i - 1, i - 1);
	read_text(kt_buf_view(&text), &kept, &out);
	assert_non_null(strstr(out.ptr, "f:2: alias *a0 stands for a list"));
	kt_buf_finish(&out);
	kt_buf_reset(&text);
	kt_buf_adds(&text, "a: &a ");
	for (int i = 0; i < 100000; i++)
		kt_buf_addc(&text, 'x');
	kt_buf_adds(&text, "\nb: [");
	for (int i = 0; i < 50000; i++)
		kt_buf_adds(&text, "*a ,");
	kt_buf_adds(&text, "]\n");
	read_text(kt_buf_view(&text), &kept, &out);
	assert_non_null(strstr(out.ptr, "f:2: aliases make the document larger"));
	kt_buf_finish(&out);

	kt_buf_reset(&text);
	for (int i = 0; i < 5000; i++)
		kt_buf_addc(&text, '[');
	read_text(kt_buf_view(&text), &kept, &out);
	assert_non_null(strstr(out.ptr, "f:1: nested deeper than 32"));
	kt_buf_finish(&out);

	kt_buf_reset(&text);
	kt_buf_adds(&text, CERT "---\na: ");
	while (text.len < ((size_t)2 << 20))
		kt_buf_adds(&text, "xxxxxxxxxxxxxxxx\n   ");
	kt_buf_adds(&text, "\n---\n" CERT);
	read_text(kt_buf_view(&text), &kept, &out);
	assert_non_null(strstr(out.ptr, "f:8: the document has 2"));
	assert_int_equal(kept.count, 2);
	kt_buf_finish(&out);
	kt_buf_finish(&text);
	drop(&kept);
}

/* Many complaints: the first hundred are kept, the others counted. */
static void test_many(void **state)
{
	struct kt_buf text, out;
	struct kept kept = {0};

	(void)state;
	kt_buf_init(&text, 1 << 20);
	for (int i = 0; i < 150; i++)
		kt_buf_adds(&text, "a: b\n---\n");
	read_text(kt_buf_view(&text), &kept, &out);
	assert_non_null(strstr(out.ptr, "and 50 more errors"));
	kt_buf_finish(&out);
	kt_buf_finish(&text);
}

/* Every field that has a place in a struct, set to something that is not its default. */
static const char *const goods[] = {
	"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata:\n  name: web\n  namespace: shop\n  labels: {app: "
	"web, a.b/c: d}\n"
	"  annotations: {x: z}\n  uid: abc\n  managedFields: [{a: {b: c}}]\nspec:\n  secretName: web-tls\n"
	"  secretTemplate: {annotations: {a: b}, labels: {c: d}}\n  issuerRef: {name: ca, kind: ClusterIssuer, group: "
	"cert-manager.io}\n"
	"  commonName: web\n  subject:\n    organizations: [O]\n    countries: [DE]\n    organizationalUnits: [OU]\n   "
	" localities: [L]\n"
	"    provinces: [P]\n    streetAddresses: [S]\n    postalCodes: [\"1\"]\n    serialNumber: \"77\"\n"
	"  dnsNames: [a.example, \"*.b.example\"]\n  ipAddresses: [192.0.2.1, \"2001:db8::1\"]\n  uris: "
	"[\"spiffe://x/y\"]\n"
	"  emailAddresses: [a@b.example]\n  otherNames: [{oid: 1.3.6.1.4.1.311.20.2.3, utf8Value: u@x}]\n  duration: "
	"48h\n"
	"  renewBefore: 12h\n  renewal: {policy: RenewBefore, windows: [{cron: \"0 2 * * 1-5\", timezone: "
	"Europe/Berlin, windowDuration: 2h}]}\n"
	"  privateKey: {algorithm: ECDSA, encoding: PKCS8, rotationPolicy: Never, size: 384}\n  signatureAlgorithm: "
	"ECDSAWithSHA384\n"
	"  usages: [signing, server auth, s/mime]\n  encodeUsagesInRequest: false\n  isCA: true\n"
	"  nameConstraints:\n    critical: true\n    permitted: {dnsDomains: [a], ipRanges: [10.0.0.0/8], "
	"emailAddresses: [x], uriDomains: [z]}\n"
	"    excluded: {dnsDomains: [b]}\n  keystores: {pkcs12: {create: true, profile: Modern2023, passwordSecretRef: "
	"{name: p, key: k}}, jks: {create: true, alias: Web, passwordSecretRef: {name: p, key: k}}}\n"
	"  additionalOutputFormats: [{type: CombinedPEM}, {type: DER}]\n  revisionHistoryLimit: 3\nstatus: "
	"{conditions: []}\n",
	CERT_HEAD "  literalSubject: CN=x,O=y\n  renewBeforePercentage: 30\n  renewal: {policy: Disabled}\n  "
		  "keystores: {pkcs12: {create: false, password: changeit}, jks: {create: true, password: changeit}}\n",
	ISSUER "  acme:\n    server: https://127.0.0.1:14000/dir\n    email: a@b.example\n    privateKeySecretRef: "
	       "{name: k, key: x}\n"
	       "    disableAccountKeyGeneration: true\n    enableDurationFeature: true\n    caBundle: aGVsbG8=\n    "
	       "skipTLSVerify: true\n"
	       "    solvers:\n      - http01: {ingress: {ingressClassName: nginx, class: c, serviceType: NodePort}}\n"
	       "        selector: {matchLabels: {a: b}, dnsNames: [a.b], dnsZones: [b]}\n",
	"apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: w, annotations: {keyturn.dev/http01-webroot: "
	"/var/www, keyturn.dev/staging-server: \"https://s.example/d\", keyturn.dev/fallback-issuers: \"b, "
	"ClusterIssuer/c\", keyturn.dev/fallback-trust: Unchecked, keyturn.dev/renewal-info: Disabled, "
	"keyturn.dev/rate-limits: \"orders=300/3h, certificates=5/168h,duplicates=1/1s\"}}\nspec:\n"
	"  acme: {server: \"https://ca.example/d\", privateKeySecretRef: {name: k}, solvers: [{http01: {ingress: "
	"{}}}]}\n",
	ISSUER "  ca: {secretName: x, crlDistributionPoints: [\"http://a.b/c\"], ocspServers: [\"http://o.b\"], "
	       "issuingCertificateURLs: [\"http://i.b\"]}\n",
	"apiVersion: cert-manager.io/v1\nkind: ClusterIssuer\nmetadata: {name: s}\nspec: {selfSigned: "
	"{crlDistributionPoints: [\"http://a.b\"]}}\n",
	ISS "  oauth2: {issuer: \"https://a.b\", tokenURL: \"https://a.b/t\", audienceParam: resource, caBundle: "
	    "aGVsbG8=, auth: {method: client_secret_post, clientID: c, clientSecretRef: {name: s, key: k}}}\n",
	ISS "  local: {issuerURL: \"http://127.0.0.1:1\", algorithm: RS256, keyRotation: 24h, publishAhead: 0s, "
	    "maxTokenLifetime: 2h, publishJWKS: {listener: false, volume: {path: /x}}}\n",
	TOKEN "  audiences: [a]\n  scopes: [b]\n  claims: {subject: s, clientID: c, extra: {tenant: t}}\n  duration: "
	      "20m\n  maxLifetime: 30m\n  onLongerLifetime: Refuse\n"
	      "  renewBefore: 5m\n  defaultLifetime: 7m\n  outputs: [header, json]\n",
	CONSUMER
	"  volumes:\n    - path: /run/c\n      owner: root\n      group: \"12\"\n      defaultMode: \"0440\"\n      "
	"allowPersistent: true\n      allowShared: true\n"
	"      sources: [{secret: {name: web-tls, items: [{key: tls.crt, path: a/b, mode: \"0400\"}]}}, {secret: "
	"{name: t}}]\n"
	"  validate: [{exec: {argv: [/bin/true, -x], user: root, group: adm, timeout: 5s, env: {LANG: C}}}]\n"
	"  notify:\n    - signal: {name: HUP, pidFile: /run/x.pid}\n    - signal: {name: USR2, systemdUnit: "
	"nginx.service}\n"
	"    - signal: {name: TERM, process: {executable: /usr/sbin/x, cgroup: system.slice/x.service}}\n    - exec: "
	"{argv: [/bin/true]}\n"
	"    - systemd: {unit: a.service, action: ReloadOrRestart, timeout: 9s}\n    - touch: {path: /run/t}\n"
	"    - http: {url: \"http://localhost:1/x\", caBundle: aGVsbG8=, timeout: 3s}\n"
	"  prove:\n    - {secret: web-tls, tls: {address: \"127.0.0.1:1\", serverName: a.b, startTLS: smtp}}\n"
	"    - {secret: t, observed: {http: {url: \"https://a.b\", jsonPath: \".a[0].b\", caBundle: aGVsbG8=}}}\n"
	"    - {secret: t, observed: {accessLog: {path: /var/log/x, field: \"7\"}}}\n"
	"    - {secret: t, accepted: {http: {url: \"https://a.b\", expectStatus: 204, headerName: X-Token, "
	"headerPrefix: \"t \", caBundle: aGVsbG8=}}}\n"
	"    - {secret: web-tls, readBack: {name: ingress}}\n"
	"    - {secret: t, exec: {argv: [/bin/true]}}\n"
	"  targets:\n    - {secret: web-tls, anypointSecretGroup: {host: \"localhost:8443\", caBundle: aGVsbG8=, organization: o, "
	"environment: e, secretGroup: g, name: ingress, type: JKS, alias: x, tokenRef: t, timeout: 4s}}\n"
	"    - {secret: web-tls, anypointSecretGroup: {organization: o, environment: e, secretGroup: g, name: mule, tokenRef: t}}\n"
	"    - {secret: web-tls, anypointPrivateSpace: {host: eu1.anypoint.mulesoft.com, caBundle: aGVsbG8=, organization: o, privateSpace: p, "
	"name: a context, tokenRef: t, timeout: 3s}}\n"
	"  socket: {users: [www, \"12\"], groups: [app], secrets: [t]}\n  within: 10s\n  onFailure: Keep\n  rollout: {maxUnavailable: "
	"1, windows: [{cron: \"0 2 * * 6\", timezone: Europe/Berlin, windowDuration: 2h}]}\n",
	AGENT
	"  secretsDir: /s\n  stateDir: /st\n  allowPersistent: true\n  allowShared: true\n  secretsGroup: \"4294967294\"\n"
	"  secretsMode: \"0440\"\n  listeners: {socketGroup: \"12\", probes: \":9403\", control: {address: \":9404\", tokenFile: /t}, metrics: \":9402\", http01: "
	"\"[::1]:80\", jwks: \"unix:/run/j\", tlsAlpn01: \":443\", tokens: \"unix:/run/t\", aws: \"127.0.0.1:9405\"}\n"
	"  dns01: {recursiveNameservers: [\"192.0.2.1:53\"], recursiveNameserversOnly: true, propagationTimeout: 9s}\n"
	"  masterKey: {command: [/bin/key, arg]}\n  users: {keeper: a, courier: b, desk: c}\n  limits: {flights: 1, "
	"perIssuer: 2, hooks: 3}\n"
	"  audit: {anchor: File, file: /var/log/a, retention: 240h}\n  control: {socket: /run/k.sock, group: ops}\n",
	CLIENT "  secretName: c\n  clients: [{clientID: a b, id: '41', secretRef: {name: first, key: k}}, {clientID: z}]\n"
	       "  strategy: AlternateClients\n  rotationInterval: 168h\n  drain: 1h\n"
	       "  issuer: {anypoint: {url: 'https://eu1.anypoint.mulesoft.com', organization: o, kind: EnvironmentClient,\n"
	       "    tokenRef: t, caBundle: eA==}}\n"
	       "  test: {tokenURL: 'https://x.example/t', method: client_secret_basic, scopes: [a], caBundle: eA==}\n",
	CLIENT "  secretName: c\n  clients: [{clientID: x}]\n  issuer: {okta: {orgURL: 'https://a.okta.com', tokenRef: t}}\n"
	       "  test: {tokenURL: 'https://x.example/t'}\n",
	CLIENT "  secretName: c\n  clients: [{clientID: x}]\n  privateKey: {algorithm: PS256, publishAhead: 2h}\n"
	       "  issuer: {hosted: {jwksURL: 'https://k.example/x', publishJWKS: {listener: false, volume: {path: /srv/k}}}}\n"
	       "  test: {tokenURL: 'https://idp.example/t', audience: 'https://idp.example', method: private_key_jwt}\n",
	CLIENT "  secretName: c\n  clients: [{clientID: x, secretRef: {name: s}}]\n  issuer: {static: {source: vault}}\n",
	WATCH "  source: {file: {path: /k.p12, format: PKCS12, alias: a, passwordSecretRef: {name: p, key: k}}}\n  renewBefore: 24h\n"
	      "  renew: {exec: {argv: [/bin/true], user: root, timeout: 5m}}\n  prove: {within: 1m}\n  warnBefore: 12h\n",
	WATCH "  source: {tls: {address: \"127.0.0.1:1\", serverName: a.b, startTLS: smtp}}\n  renewBeforePercentage: 20\n"
	      "  renew: {exec: {argv: [/bin/true]}}\n",
	AGENT "  {}\n",
	ISS "  aws: {region: eu-central-1, roleARN: \"arn:aws:iam::1:role/a\", endpoint: \"https://v.example:8443/\", caBundle: "
	    "aGVsbG8=, sessionName: a@b, duration: 15m, webIdentity: {tokenRef: t}}\n",
	ISS "  aws: {region: cn-north-1, roleARN: \"arn:aws-cn:iam::1:role/a\", rolesAnywhere: {trustAnchorARN: "
	    "\"arn:aws-cn:rolesanywhere:cn-north-1:1:trust-anchor/a\", profileARN: \"arn:aws-cn:rolesanywhere:cn-north-1:1:profile/b\", "
	    "certificateRef: c}}\n",
	TOKEN "  outputs: [awsProcess, awsCredentials, awsEndpoint]\n  awsProfile: orders\n",
	ACME "    externalAccountBinding: {keyID: kid, keyAlgorithm: HS512, keySecretRef: {name: k, key: x}}\n    "
	     "preferredChain: Root X2\n    profile: shortlived\n    solvers:\n"
	     "      - dns01: {cnameStrategy: Follow, acmeDNS: {host: \"https://a.b\", accountSecretRef: {name: a}}}\n"
	     "      - dns01: {cloudflare: {email: a@b.c, apiKeySecretRef: {name: a}, apiURL: \"https://a.b\"}}\n"
	     "      - dns01: {cloudflare: {apiTokenSecretRef: {name: a}}}\n"
	     "      - dns01: {digitalocean: {tokenSecretRef: {name: a}, apiURL: \"https://a.b\"}}\n"
	     "      - dns01: {rfc2136: {nameserver: \"127.0.0.1:53\", protocol: TCP, tsigAlgorithm: HMACSHA512, "
	     "tsigKeyName: k, tsigSecretSecretRef: {name: a}}}\n"
	     "      - dns01: {route53: {region: eu-central-1, accessKeyID: A, secretAccessKeySecretRef: {name: a}, "
	     "hostedZoneID: Z, apiURL: \"https://a.b\"}}\n"
	     "      - dns01: {route53: {accessKeyIDSecretRef: {name: b}, secretAccessKeySecretRef: {name: a}}}\n"
	     "      - dns01: {exec: {convention: Certbot, exec: {argv: [/a]}, cleanupArgv: [/b]}}\n"
	     "      - tlsAlpn01: {listener: tlsAlpn01}\n      - dnsPersist01: {issuerDomain: ca.example}\n",
	ISS "  oauth2: {issuer: \"https://a.b\", profile: Okta, revokeSuperseded: true, verifyTokens: true, jwksURL: \"https://a.b/keys\", auth: {method: private_key_jwt, clientID: "
	    "c, keySecretRef: {name: s, key: k}, keyID: k1, algorithm: PS256, audience: x, assertionLifetime: 30s}}\n",
	ISS "  oauth2: {issuer: \"https://a.b\", auth: {method: tls_client_auth, clientID: c, certificateRef: web-tls}}\n",
	ISS "  oauth2: {issuer: \"https://a.b\", auth: {method: spiffe_jwt, clientID: c, tokenRef: svid}}\n",
	TOKEN "  grant: {tokenExchange: {subject: {tokenRef: s}, actor: {secretRef: {name: a, key: k}}, subjectTokenType: u, "
	      "actorTokenType: v, requestedTokenType: w}}\n  certificateRef: web-tls\n",
	TOKEN "  grant: {jwtBearer: {assertion: {tokenRef: s}}}\n  dpop: {algorithm: EdDSA}\n",
	TOKEN "  grant: {refreshToken: {secretRef: {name: s, key: k}}}\n",
};

/* Equal text when written, read and written again; and every row of the tables was seen to be written. */
static void test_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
		struct kept kept = {0};
		struct kt_resource *again = NULL;
		struct kt_buf out, first, second;
		struct kt_err err = {0};

		read_text(kt_view_str(goods[i]), &kept, &out);
		if (kept.count != 1 || out.len)
			fail_msg("case %zu: %u resources, %s", i, kept.count, out.len ? out.ptr : "");
		kt_buf_init(&first, 1 << 16);
		kt_buf_init(&second, 1 << 16);
		assert_int_equal(kt_resource_to_json(kept.items[0], &first, &err), KT_OK);
		if (kt_resource_from_json(kept.items[0]->kind, kt_buf_view(&first), &again, &err) != KT_OK)
			fail_msg("case %zu: %s\n%s", i, err.what, first.ptr);
		assert_int_equal(kt_resource_to_json(again, &second, &err), KT_OK);
		assert_string_equal(first.ptr, second.ptr);
		assert_string_equal(again->meta.name, kept.items[0]->meta.name);
		assert_string_equal(again->meta.ns, kept.items[0]->meta.ns);
		kt_resource_destroy(again);
		kt_buf_finish(&first);
		kt_buf_finish(&second);
		kt_buf_finish(&out);
		drop(&kept);
	}
}

static void check_written(const struct kt_table *table, const char *all, unsigned depth)
{
	assert_true(depth < 10);
	for (size_t i = 0; i < table->count; i++) {
		const struct kt_field *field = &table->fields[i];
		char name[128];

		assert_non_null(field->doc);
		if (i && strcmp(table->fields[i - 1].name, field->name) >= 0)
			fail_msg("%s: %s is not in order", table->name, field->name);
		(void)snprintf(name, sizeof(name), "\"%s\":", field->name);
		if (field->type < KT_F_FIXED && field->type != KT_F_SECRETS && table != &kt_table_secret &&
		    !strstr(all, name))
			fail_msg("%s.%s is never set by a case of the round trip", table->name, field->name);
		if (field->object)
			check_written(field->object, all, depth + 1);
	}
}

static void test_tables(void **state)
{
	struct kt_buf all;
	struct kt_err err = {0};

	(void)state;
	kt_buf_init(&all, 1 << 20);
	for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
		struct kept kept = {0};
		struct kt_buf out;

		read_text(kt_view_str(goods[i]), &kept, &out);
		assert_int_equal(kt_resource_to_json(kept.items[0], &all, &err), KT_OK);
		kt_buf_finish(&out);
		drop(&kept);
	}
	kt_buf_adds(&all, "\"credential\":\"file\":"); /* excluded by masterKey.command */
	for (int kind = 1; kind < KT_RES_COUNT; kind++)
		check_written(kt_kind_infos[kind].top, all.ptr, 0);
	kt_buf_finish(&all);
}

static void test_values(void **state)
{
	struct kept kept = {0};
	struct kt_buf out;
	const struct kt_certificate_spec *cert;
	const struct kt_consumer_spec *consumer;

	(void)state;
	read_text(kt_view_str(goods[0]), &kept, &out);
	cert = &kept.items[0]->certificate;
	assert_string_equal(kept.items[0]->meta.ns, "shop");
	assert_int_equal(cert->dns_names.count, 2);
	assert_string_equal(cert->dns_names.items[1], "*.b.example");
	assert_int_equal(cert->issuer_ref.kind, KT_RES_CLUSTER_ISSUER);
	assert_int_equal(cert->usages, KT_CERT_DIGITAL_SIGNATURE | KT_CERT_SERVER_AUTH | KT_CERT_EMAIL_PROTECTION);
	assert_int_equal(cert->private_key.size, 384);
	assert_int_equal(cert->duration, 48 * KT_HOUR);
	assert_string_equal(cert->keystores.pkcs12->password_ref->key, "k");
	assert_string_equal(cert->keystores.jks->alias, "Web");
	assert_string_equal(kt_pairs_get(&kept.items[0]->meta.labels, "app"), "web");
	kt_buf_finish(&out);
	drop(&kept);

	read_text(kt_view_str(CERT), &kept, &out);
	cert = &kept.items[0]->certificate;
	assert_string_equal(kept.items[0]->meta.ns, "default");
	assert_int_equal(cert->private_key.size, 2048);
	assert_int_equal(cert->duration, 90 * KT_DAY);
	assert_int_equal(cert->usages, KT_CERT_DIGITAL_SIGNATURE | KT_CERT_KEY_ENCIPHERMENT);
	assert_true(cert->encode_usages_in_request);
	assert_string_equal(cert->issuer_ref.group, "cert-manager.io");
	kt_buf_finish(&out);
	drop(&kept);

	read_text(kt_view_str(goods[9]), &kept, &out);
	consumer = &kept.items[0]->consumer;
	assert_int_equal(consumer->volumes.items[0].default_mode, 0440);
	assert_int_equal(consumer->volumes.items[0].sources.items[0].secret.items.items[0].mode, 0400);
	assert_int_equal(consumer->notify.items[0].signal->signo, 1);
	assert_string_equal(consumer->prove.items[3].accepted->http->header_prefix, "t ");
	assert_string_equal(consumer->validate.items[0].exec->argv.items[1], "-x");
	kt_buf_finish(&out);
	drop(&kept);

	read_text(kt_view_str("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {b: aGk=, a: "
			      "aGk=}\nstringData: {b: text}\n"),
		  &kept, &out);
	assert_non_null(strstr(out.ptr, "f:2: warning: kind Secret lies readable"));
	assert_int_equal(kept.items[0]->secret.data.count, 2);
	assert_string_equal(kept.items[0]->secret.data.items[1].key, "b");
	assert_memory_equal(kept.items[0]->secret.data.items[1].value.ptr, "text", 4);
	assert_memory_equal(kept.items[0]->secret.data.items[0].value.ptr, "hi", 2);
	kt_buf_finish(&out);
	drop(&kept);

	/* What can't be used is said, but it is the manifest's owner who decides. */
	read_text(kt_view_str(TOKEN "  dpop: {}\n  outputs: [raw, envoy]\n"), &kept, &out);
	assert_int_equal(kept.count, 1);
	assert_non_null(strstr(out.ptr, "warning: spec.outputs has envoy or flex, which send no proof"));
	kt_buf_finish(&out);
	drop(&kept);
	read_text(kt_view_str(TOKEN "  dpop: {}\n  outputs: [raw, header]\n"), &kept, &out);
	assert_int_equal(kept.count, 1);
	assert_int_equal(out.len, 0);
	kt_buf_finish(&out);
	drop(&kept);

	/* JSON, aliases of scalars, a List. */
	read_text(kt_view_str("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"cert-manager.io/"
			      "v1\",\"kind\":\"Issuer\","
			      "\"metadata\":{\"name\":\"a\"},\"spec\":{\"selfSigned\":{}}}]}\n---\n" CERT_HEAD
			      "  commonName: &n x.example\n  dnsNames: [*n ]\n"),
		  &kept, &out);
	assert_int_equal(kept.count, 2);
	assert_string_equal(kept.items[1]->certificate.dns_names.items[0], "x.example");
	kt_buf_finish(&out);
	drop(&kept);
}

/* What makes a new certificate necessary, and what does not (KUBE.md). */
static void test_request_key(void **state)
{
	static const struct {
		const char *more;
		bool same;
	} cases[] = {{"  renewBefore: 10h\n", true},
		     {"  privateKey: {rotationPolicy: Never, encoding: PKCS8}\n", true},
		     {"  revisionHistoryLimit: 9\n", true},
		     {"  additionalOutputFormats: [{type: DER}]\n", true},
		     {"  keystores: {pkcs12: {create: true, password: x}}\n", true},
		     {"  keystores: {jks: {create: true, password: x}}\n", true},
		     {"  renewal: {policy: Disabled}\n", true},
		     {"  duration: 48h\n", false},
		     {"  commonName: x\n", false},
		     {"  isCA: true\n", false},
		     {"  usages: [any]\n", false},
		     {"  uris: [\"a:b\"]\n", false},
		     {"  ipAddresses: [\"::1\"]\n", false},
		     {"  subject: {organizations: [x]}\n", false},
		     {"  privateKey: {size: 4096}\n", false},
		     {"  privateKey: {algorithm: ECDSA}\n", false},
		     {"  signatureAlgorithm: SHA512WithRSA\n", false}};
	struct kt_buf plain;
	struct kept kept = {0};
	struct kt_buf out;

	(void)state;
	kt_buf_init(&plain, 65536);
	read_text(kt_view_str(CERT), &kept, &out);
	kt_certificate_request_key(&kept.items[0]->certificate, &plain);
	kt_buf_finish(&out);
	drop(&kept);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = kt_asprintf("%s%s", CERT, cases[i].more);
		struct kt_buf key;

		kt_buf_init(&key, 65536);
		read_text(kt_view_str(text), &kept, &out);
		assert_int_equal(kept.count, 1);
		kt_certificate_request_key(&kept.items[0]->certificate, &key);
		if (!strcmp(key.ptr, plain.ptr) != cases[i].same)
			fail_msg("%s: %s", cases[i].more, key.ptr);
		kt_buf_finish(&key);
		kt_buf_finish(&out);
		drop(&kept);
		kt_free(text);
	}
	kt_buf_finish(&plain);
}

static void test_solver(void **state)
{
	struct kept kept = {0};
	struct kt_buf out;
	struct kt_pair pair = {"team", "a"};
	struct kt_pairs labels = {&pair, 1}, none = {NULL, 0};
	const struct kt_acme *acme;

	(void)state;
	read_text(
		kt_view_str(
			ACME
			"    solvers:\n      - http01: {ingress: {}}\n        selector: {dnsZones: [example.com]}\n"
			"      - http01: {ingress: {}}\n        selector: {dnsZones: [a.example.com]}\n"
			"      - http01: {ingress: {}}\n        selector: {dnsNames: [x.a.example.com]}\n"
			"      - http01: {ingress: {}}\n        selector: {matchLabels: {team: a}, dnsZones: [org]}\n"),
		&kept, &out);
	assert_int_equal(kept.count, 1);
	acme = kept.items[0]->issuer.acme;
	assert_int_equal(kt_acme_solver_for(acme, &none, "www.example.com"), 0);
	assert_int_equal(kt_acme_solver_for(acme, &none, "*.a.example.com"), 1);
	assert_int_equal(kt_acme_solver_for(acme, &none, "x.a.example.com"), 2);
	assert_int_equal(kt_acme_solver_for(acme, &none, "x.org"), -1);
	assert_int_equal(kt_acme_solver_for(acme, &labels, "x.org"), 3);
	assert_int_equal(kt_acme_solver_for(acme, &none, "notexample.com"), -1);
	kt_buf_finish(&out);
	drop(&kept);
}

/* Only a challenge that can prove the name, and that the CA offers, is chosen. */
static void test_solver_among(void **state)
{
	enum { HTTP = KT_CHALLENGE_HTTP01, ALPN = KT_CHALLENGE_TLS_ALPN01, DNS = KT_CHALLENGE_DNS01, PERSIST = KT_CHALLENGE_DNS_PERSIST01 };
	static const struct {
		const char *name;
		unsigned offered;
		int solver;
	} cases[] = {
		{"www.example.org", HTTP | ALPN | DNS, 0},  {"www.example.org", ALPN | DNS, 1},
		{"www.example.org", DNS | PERSIST, 2},	     {"www.example.org", PERSIST, 3},
		{"www.example.org", 0, -1},		     {"*.example.org", HTTP | ALPN | DNS, 2},
		{"*.example.org", PERSIST, 3},		     {"*.example.org", HTTP, -1},
		{"192.0.2.1", HTTP | ALPN | DNS, 0},	     {"2001:db8::1", ALPN | DNS, 1},
		{"192.0.2.1", DNS | PERSIST, -1},	     {"a.deep.example.net", HTTP | DNS, 4},
		{"a.deep.example.net", HTTP, 0},
	};
	struct kept kept = {0};
	struct kt_buf out;
	struct kt_pairs none = {NULL, 0};

	(void)state;
	read_text(kt_view_str(ACME "    solvers:\n      - http01: {ingress: {}}\n      - tlsAlpn01: {}\n"
				   "      - dns01: {rfc2136: {nameserver: '127.0.0.1:53'}}\n      - dnsPersist01: {}\n"
				   "      - dns01: {rfc2136: {nameserver: '127.0.0.1:54'}}\n        selector: {dnsZones: [example.net]}\n"),
		  &kept, &out);
	assert_int_equal(kept.count, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int solver = kt_acme_solver_among(kept.items[0]->issuer.acme, &none, cases[i].name,
						  cases[i].offered & kt_acme_challenges_for(cases[i].name));

		if (solver != cases[i].solver)
			fail_msg("%s of %x: %d, not %d", cases[i].name, cases[i].offered, solver, cases[i].solver);
	}
	assert_int_equal(kt_challenge_from_name("dns-persist-01"), PERSIST);
	assert_int_equal(kt_challenge_from_name("dns-account-01"), 0);
	assert_string_equal(kt_challenge_name(ALPN), "tls-alpn-01");
	kt_buf_finish(&out);
	drop(&kept);
}

/* data/ and docs/reference/ are what the tables say. */
static void test_docs(void **state)
{
	(void)state;
	for (int kind = 1; kind < KT_RES_COUNT; kind++) {
		for (int page = 0; page < 2; page++) {
			struct kt_buf made, kept;
			struct kt_err err = {0};
			char path[512];

			kt_buf_init(&made, 1 << 20);
			kt_buf_init(&kept, 1 << 20);
			if (page)
				kt_manifest_reference((enum kt_kind)kind, &made);
			else
				kt_manifest_schema((enum kt_kind)kind, &made);
			(void)snprintf(path, sizeof(path),
				       page ? KT_TEST_SRCDIR "/docs/reference/%s.md"
					    : KT_TEST_SRCDIR "/data/%s.schema.json",
				       kt_manifest_doc_file((enum kt_kind)kind));
			assert_int_equal(kt_buf_check(&made, "made", &err), KT_OK);
			if (kt_io_read_file(AT_FDCWD, path, &kept, &err) != KT_OK || strcmp(made.ptr, kept.ptr) != 0)
				fail_msg("%s is out of date: run `make manifest-doc`", path);
			kt_buf_finish(&made);
			kt_buf_finish(&kept);
		}
	}
}

/* Every allocation fails once: an error, no crash, nothing leaked. */
static void test_nomem(void **state)
{
	int64_t total = 0;

	(void)state;
	for (int64_t n = -1; n < total; n++) {
		uint64_t before = kt_mem_count();
		struct kept kept = {0};
		struct kt_report report;
		struct kt_resource *again = NULL;
		struct kt_buf json;
		struct kt_err err = {0};
		enum kt_code code;

		kt_report_init(&report);
		kt_buf_init(&json, 1 << 16);
		kt_mem_fail_after(n, 0);
		code = kt_manifest_read(kt_view_str(goods[0]), "f", keep, &kept, &report, &err);
		if (code == KT_OK && kept.count)
			code = kt_resource_to_json(kept.items[0], &json, &err);
		if (code == KT_OK && kept.count)
			code = kt_resource_from_json(KT_RES_CERTIFICATE, kt_buf_view(&json), &again, &err);
		kt_mem_fail_after(-1, 0);
		if (n < 0)
			total = (int64_t)(kt_mem_count() - before);
		if (code != KT_OK)
			assert_int_equal(code, KT_E_NOMEM);
		kt_resource_destroy(again);
		drop(&kept);
		kt_buf_finish(&json);
		kt_report_finish(&report);
	}
	assert_true(total > 5);
	print_message("%lld allocations, each failed\n", (long long)total);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad),    cmocka_unit_test(test_goes_on),     cmocka_unit_test(test_limits),
		cmocka_unit_test(test_many),   cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_tables),
		cmocka_unit_test(test_values), cmocka_unit_test(test_request_key), cmocka_unit_test(test_solver),
		cmocka_unit_test(test_solver_among),
		cmocka_unit_test(test_docs),   cmocka_unit_test(test_nomem),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
