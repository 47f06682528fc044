/* The field tables of an ACME solver, every field of the CRD in it and keyturn's own, and the choice of a solver. */
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "kt/text.h"
#include "manifest/rows.h"

#define NO_PROVIDER "keyturn has acmeDNS, cloudflare, digitalocean, exec, rfc2136 and route53; a script can be run by exec"

/* --- http-01 -------------------------------------------------------------------------------------------------------- */

static const struct kt_field ingress_rows[] = {
	ROW("class", KT_F_STRING, struct kt_http01_ingress, class_name, .check = kt_value_printable,
	    DOC "Kept for a cluster; here keyturn's own listener answers."),
	ROW("ingressClassName", KT_F_STRING, struct kt_http01_ingress, ingress_class_name, .check = kt_value_printable,
	    DOC "Kept for a cluster; here keyturn's own listener answers."),
	REFUSED("ingressTemplate", "there is no Ingress to make here: keyturn's own listener answers; remove it"),
	REFUSED("name",
		"there is no Ingress to edit here: keyturn's own listener answers; remove it or use ingressClassName"),
	REFUSED("podTemplate", "there is no pod to start here: keyturn's own listener answers; remove it"),
	ROW("serviceType", KT_F_STRING, struct kt_http01_ingress, service_type, .check = kt_value_printable,
	    DOC "Kept for a cluster; there is no Service here."),
};
static const struct kt_table ingress_table =
	TABLE("HTTP01Ingress", struct kt_http01_ingress, ingress_rows,
	      .doc = "Answer http-01 with keyturn's listener (Agent, spec.listeners.http01).");

static const struct kt_field http01_rows[] = {
	REFUSED("gatewayHTTPRoute", "there is no Gateway to edit here; write ingress: {} for keyturn's own listener",
		.flags = KT_F_CHOICE),
	ROW("ingress", KT_F_OBJECT, struct kt_http01_solver, ingress, CHOICE, OF(ingress_table),
	    DOC "`ingress: {}` means: keyturn's own listener answers, or the webroot of annotation "
		"`keyturn.dev/http01-webroot`."),
};
static const struct kt_table http01_table = TABLE("HTTP01", struct kt_http01_solver, http01_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "Challenge http-01.");

/* --- dns-01 --------------------------------------------------------------------------------------------------------- */

SECRET_REF_TABLE(acme_dns_account_table, "acmedns.json");
SECRET_REF_TABLE(api_key_table, "api-key");
SECRET_REF_TABLE(api_token_table, "api-token");
SECRET_REF_TABLE(access_token_table, "access-token");
SECRET_REF_TABLE(tsig_table, "tsig-secret");
SECRET_REF_TABLE(access_key_table, "access-key-id");
SECRET_REF_TABLE(secret_access_key_table, "secret-access-key");

static const struct kt_field acme_dns_rows[] = {
	ROW("accountSecretRef", KT_F_STRUCT, struct kt_dns_acme_dns, account, REQUIRED, OF(acme_dns_account_table),
	    DOC "The accounts: JSON of domain to {username, password, fulldomain, subdomain}, as lego and cert-manager keep it."),
	ROW("host", KT_F_STRING, struct kt_dns_acme_dns, host, REQUIRED, .check = kt_value_any_url,
	    DOC "URL of the acme-dns server."),
};
static const struct kt_table acme_dns_table =
	TABLE("AcmeDNS", struct kt_dns_acme_dns, acme_dns_rows, .doc = "An acme-dns server.");

static const struct kt_field cloudflare_rows[] = {
	ROW("apiKeySecretRef", KT_F_STRUCT, struct kt_dns_cloudflare, api_key, .flags = KT_F_CHOICE | KT_F_OPTIONAL,
	    OF(api_key_table), DOC "The global API key; needs email."),
	ROW("apiTokenSecretRef", KT_F_STRUCT, struct kt_dns_cloudflare, api_token, .flags = KT_F_CHOICE | KT_F_OPTIONAL,
	    OF(api_token_table), DOC "An API token with Zone:Read and DNS:Edit."),
	ROW("apiURL", KT_F_STRING, struct kt_dns_cloudflare, api_url, .check = kt_value_any_url,
	    DOC "keyturn's own: another address of the API than `https://api.cloudflare.com/client/v4`."),
	ROW("email", KT_F_STRING, struct kt_dns_cloudflare, email, .check = kt_value_email,
	    DOC "Account of the API key."),
};

static void check_cloudflare(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_dns_cloudflare *c = object;

	if (c->api_key.name && !c->email)
		kt_complain(d, node, "email", "is needed beside apiKeySecretRef; an apiTokenSecretRef needs none");
}

static const struct kt_table cloudflare_table =
	TABLE("Cloudflare", struct kt_dns_cloudflare, cloudflare_rows, .choice_min = 1, .choice_max = 1,
	      .check = check_cloudflare, .doc = "Cloudflare's API.");

static const struct kt_field digitalocean_rows[] = {
	ROW("apiURL", KT_F_STRING, struct kt_dns_digitalocean, api_url, .check = kt_value_any_url,
	    DOC "keyturn's own: another address of the API than `https://api.digitalocean.com/v2`."),
	ROW("tokenSecretRef", KT_F_STRUCT, struct kt_dns_digitalocean, token, REQUIRED, OF(access_token_table),
	    DOC "A token that may write."),
};
static const struct kt_table digitalocean_table =
	TABLE("DigitalOcean", struct kt_dns_digitalocean, digitalocean_rows, .doc = "DigitalOcean's API.");

static const struct kt_enum_name protocols[] = {{"UDP", KT_DNS_UDP}, {"TCP", KT_DNS_TCP}, {NULL, 0}};

static const char *tsig_algorithm(const char *text)
{
	static const char *const known[] = {"HMACMD5", "HMACSHA1", "HMACSHA256", "HMACSHA512"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!strcmp(text, known[i]))
			return NULL;
	}
	return "must be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512";
}

static const struct kt_field rfc2136_rows[] = {
	ROW("nameserver", KT_F_STRING, struct kt_dns_rfc2136, nameserver, REQUIRED, .check = kt_value_printable,
	    DOC "The server that takes updates: an address, with a port when it is not 53; IPv6 in brackets."),
	ROW("protocol", KT_F_ENUM, struct kt_dns_rfc2136, protocol, .def = KT_DNS_UDP, .names = protocols,
	    DOC "How updates are sent."),
	ROW("tsigAlgorithm", KT_F_STRING, struct kt_dns_rfc2136, tsig_algorithm, .check = tsig_algorithm,
	    .def_text = "HMACSHA256", DOC "MAC of the updates. cert-manager's default is HMACMD5; keyturn's is not."),
	ROW("tsigKeyName", KT_F_STRING, struct kt_dns_rfc2136, tsig_key_name, .check = kt_value_dns_domain,
	    DOC "Name of the key; needs tsigSecretSecretRef."),
	ROW("tsigSecretSecretRef", KT_F_STRUCT, struct kt_dns_rfc2136, tsig_secret, .flags = KT_F_OPTIONAL,
	    OF(tsig_table), DOC "The key in base64, as in a BIND key file; needs tsigKeyName."),
};

static void check_rfc2136(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_dns_rfc2136 *r = object;

	if (!r->tsig_key_name != !r->tsig_secret.name)
		kt_complain(d, node, "tsigKeyName", "and tsigSecretSecretRef belong together; give both or none");
}

static const struct kt_table rfc2136_table = TABLE("RFC2136", struct kt_dns_rfc2136, rfc2136_rows,
						   .check = check_rfc2136, .doc = "Dynamic updates (RFC 2136), signed with TSIG.");

static const struct kt_field route53_rows[] = {
	ROW("accessKeyID", KT_F_STRING, struct kt_dns_route53, access_key_id, .check = kt_value_printable,
	    DOC "Access key; or accessKeyIDSecretRef."),
	ROW("accessKeyIDSecretRef", KT_F_STRUCT, struct kt_dns_route53, access_key_id_ref, .flags = KT_F_OPTIONAL,
	    OF(access_key_table), DOC "Where the access key is kept."),
	ROW("apiURL", KT_F_STRING, struct kt_dns_route53, api_url, .check = kt_value_any_url,
	    DOC "keyturn's own: another address of the API than `https://route53.amazonaws.com`."),
	REFUSED("auth", "a Kubernetes service account can't be exchanged here; use accessKeyID and secretAccessKeySecretRef"),
	ROW("hostedZoneID", KT_F_STRING, struct kt_dns_route53, hosted_zone_id, .check = kt_value_printable,
	    DOC "The zone; looked up by name when absent."),
	ROW("region", KT_F_STRING, struct kt_dns_route53, region, .check = kt_value_printable, .def_text = "us-east-1",
	    DOC "Region of the signature."),
	REFUSED("role", "assuming a role is not offered; use an access key of that role"),
	ROW("secretAccessKeySecretRef", KT_F_STRUCT, struct kt_dns_route53, secret_access_key, REQUIRED,
	    OF(secret_access_key_table), DOC "The secret access key."),
};

static void check_route53(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_dns_route53 *r = object;

	if (!r->access_key_id == !r->access_key_id_ref.name)
		kt_complain(d, node, "accessKeyID", "or accessKeyIDSecretRef must be given, and only one of them");
}

static const struct kt_table route53_table = TABLE("Route53", struct kt_dns_route53, route53_rows,
						   .check = check_route53, .doc = "Amazon Route 53.");

static const struct kt_enum_name conventions[] = {{"Keyturn", KT_DNS_CONV_KEYTURN},
						  {"Certbot", KT_DNS_CONV_CERTBOT},
						  {"Dehydrated", KT_DNS_CONV_DEHYDRATED},
						  {"Lego", KT_DNS_CONV_LEGO},
						  {NULL, 0}};

static const struct kt_field dns_exec_rows[] = {
	ROW("cleanupArgv", KT_F_STRINGS, struct kt_dns_exec, cleanup_argv, .max = 64,
	    DOC "With convention Certbot: the clean-up hook; none is run when absent."),
	ROW("convention", KT_F_ENUM, struct kt_dns_exec, convention, .def = KT_DNS_CONV_KEYTURN, .names = conventions,
	    DOC "How the program is called, so that scripts written for other clients work unchanged."),
	ROW("exec", KT_F_STRUCT, struct kt_dns_exec, exec, REQUIRED, OF(kt_table_exec),
	    DOC "The program; it is run by the warden, without a shell."),
};

static void check_dns_exec(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_dns_exec *e = object;
	const char *problem = e->cleanup_argv.count ? kt_value_file_path(e->cleanup_argv.items[0]) : NULL;

	if (e->cleanup_argv.count && e->convention != KT_DNS_CONV_CERTBOT)
		kt_complain(d, node, "cleanupArgv", "is for convention: Certbot; the others call one program for both");
	else if (problem)
		kt_complain(d, node, "cleanupArgv[0]", "(%.128s) %s", e->cleanup_argv.items[0], problem);
}

static const struct kt_table dns_exec_table = TABLE("DNSExec", struct kt_dns_exec, dns_exec_rows, .check = check_dns_exec,
						    .doc = "keyturn's own: a program that writes and removes the record.");

static const struct kt_enum_name strategies[] = {{"None", KT_CNAME_NONE}, {"Follow", KT_CNAME_FOLLOW}, {NULL, 0}};

static const struct kt_field dns01_rows[] = {
	ROW("acmeDNS", KT_F_OBJECT, struct kt_dns01_solver, acme_dns, CHOICE, OF(acme_dns_table),
	    DOC "An acme-dns server."),
	REFUSED("akamai", NO_PROVIDER, .flags = KT_F_CHOICE),
	REFUSED("azureDNS", NO_PROVIDER, .flags = KT_F_CHOICE),
	REFUSED("cloudDNS", NO_PROVIDER, .flags = KT_F_CHOICE),
	ROW("cloudflare", KT_F_OBJECT, struct kt_dns01_solver, cloudflare, CHOICE, OF(cloudflare_table),
	    DOC "Cloudflare's API."),
	ROW("cnameStrategy", KT_F_ENUM, struct kt_dns01_solver, cname_strategy, .def = KT_CNAME_NONE, .names = strategies,
	    DOC "Follow: the record is written where a CNAME at `_acme-challenge.` points to."),
	ROW("digitalocean", KT_F_OBJECT, struct kt_dns01_solver, digitalocean, CHOICE, OF(digitalocean_table),
	    DOC "DigitalOcean's API."),
	ROW("exec", KT_F_OBJECT, struct kt_dns01_solver, exec, CHOICE, OF(dns_exec_table),
	    DOC "keyturn's own: a program that writes and removes the record."),
	ROW("rfc2136", KT_F_OBJECT, struct kt_dns01_solver, rfc2136, CHOICE, OF(rfc2136_table),
	    DOC "Dynamic updates."),
	ROW("route53", KT_F_OBJECT, struct kt_dns01_solver, route53, CHOICE, OF(route53_table), DOC "Amazon Route 53."),
	REFUSED("webhook", "a cluster's webhook can't be called from here; " NO_PROVIDER, .flags = KT_F_CHOICE),
};
static const struct kt_table dns01_table = TABLE("DNS01", struct kt_dns01_solver, dns01_rows, .choice_min = 1,
						 .choice_max = 1, .doc = "Challenge dns-01: a TXT record, by one provider.");

/* --- tls-alpn-01, dns-persist-01 -------------------------------------------------------------------------------------- */

static const struct kt_field alpn_rows[] = {
	ROW("listener", KT_F_STRING, struct kt_tls_alpn01_solver, listener, .check = kt_value_printable,
	    .def_text = "tlsAlpn01", DOC "The Agent's listener that answers; only `tlsAlpn01`."),
};
static const struct kt_table alpn_table = TABLE("TLSALPN01", struct kt_tls_alpn01_solver, alpn_rows,
						.doc = "Challenge tls-alpn-01 (RFC 8737), answered on the Agent's listener `tlsAlpn01`.");

static const struct kt_field persist_rows[] = {
	ROW("issuerDomain", KT_F_STRING, struct kt_dns_persist01_solver, issuer_domain, .check = kt_value_dns_domain,
	    DOC "Domain of the CA in the record; the first that the CA names when absent."),
};
static const struct kt_table persist_table =
	TABLE("DNSPersist01", struct kt_dns_persist01_solver, persist_rows,
	      .doc = "Challenge dns-persist-01: the record is published once (`keyturn dns-record NAME`) and only read here.");

/* --- solver --------------------------------------------------------------------------------------------------------- */

static const struct kt_field selector_rows[] = {
	ROW("dnsNames", KT_F_STRINGS, struct kt_solver_selector, dns_names, .check = kt_value_dns_name,
	    DOC "Exactly these names."),
	ROW("dnsZones", KT_F_STRINGS, struct kt_solver_selector, dns_zones, .check = kt_value_dns_domain,
	    DOC "Names in these zones."),
	ROW("matchLabels", KT_F_PAIRS, struct kt_solver_selector, match_labels, .check_key = kt_value_label_key,
	    DOC "Certificates with all of these labels."),
};
static const struct kt_table selector_table =
	TABLE("SolverSelector", struct kt_solver_selector, selector_rows,
	      .doc = "For which names the solver is; the most specific one wins.");

static const struct kt_field solver_rows[] = {
	ROW("dns01", KT_F_OBJECT, struct kt_acme_solver, dns01, CHOICE, OF(dns01_table), DOC "Challenge dns-01."),
	ROW("dnsPersist01", KT_F_OBJECT, struct kt_acme_solver, dns_persist01, CHOICE, OF(persist_table),
	    DOC "keyturn's own: challenge dns-persist-01."),
	ROW("http01", KT_F_OBJECT, struct kt_acme_solver, http01, CHOICE, OF(http01_table), DOC "Challenge http-01."),
	ROW("selector", KT_F_STRUCT, struct kt_acme_solver, selector, OF(selector_table), DOC "For which names."),
	ROW("tlsAlpn01", KT_F_OBJECT, struct kt_acme_solver, tls_alpn01, CHOICE, OF(alpn_table),
	    DOC "keyturn's own: challenge tls-alpn-01."),
	REFUSED("waitInsteadOfSelfCheck", "keyturn checks dns-01 at the authoritative servers and nothing else; remove it"),
};
const struct kt_table kt_table_solver = TABLE("Solver", struct kt_acme_solver, solver_rows, .choice_min = 1, .choice_max = 1,
					      .doc = "How a challenge is answered.");

/* --- the choice of a solver ------------------------------------------------------------------------------------------
 */

/* How well a selector fits, as cert-manager ranks: a name beats a zone, a longer zone a shorter one, then labels. */
static int rank(const struct kt_solver_selector *s, const struct kt_pairs *labels, const char *name)
{
	int best = -1;

	for (uint32_t i = 0; i < s->match_labels.count; i++) {
		const char *value = kt_pairs_get(labels, s->match_labels.items[i].key);

		if (!value || strcmp(value, s->match_labels.items[i].value) != 0)
			return -1;
	}
	for (uint32_t i = 0; i < s->dns_names.count; i++) {
		if (!strcasecmp(s->dns_names.items[i], name))
			best = 1 << 20;
	}
	if (!strncmp(name, "*.", 2))
		name += 2;
	for (uint32_t i = 0; i < s->dns_zones.count; i++) {
		size_t zone = strlen(s->dns_zones.items[i]), len = strlen(name);
		bool inside = len >= zone && !strcasecmp(name + len - zone, s->dns_zones.items[i]) &&
			      (len == zone || name[len - zone - 1] == '.');

		if (inside && (int)(zone + 1) * 1024 > best)
			best = (int)(zone + 1) * 1024;
	}
	if (best < 0 && (s->dns_names.count || s->dns_zones.count))
		return -1;
	return (best < 0 ? 0 : best) + (int)s->match_labels.count;
}

int kt_acme_solver_among(const struct kt_acme *a, const struct kt_pairs *labels, const char *name, unsigned challenges)
{
	int found = -1, best = -1;

	for (uint32_t i = 0; i < a->solvers.count; i++) {
		const struct kt_acme_solver *solver = &a->solvers.items[i];
		int r = (kt_acme_challenge(solver) & challenges) ? rank(&solver->selector, labels, name) : -1;

		if (r > best) {
			best = r;
			found = (int)i;
		}
	}
	return found;
}

int kt_acme_solver_for(const struct kt_acme *a, const struct kt_pairs *labels, const char *dns_name)
{
	return kt_acme_solver_among(a, labels, dns_name, KT_CHALLENGE_ALL);
}

/* --- challenges ---------------------------------------------------------------------------------------------------- */

static const char *const challenge_names[] = {"http-01", "tls-alpn-01", "dns-01", "dns-persist-01"};

const char *kt_challenge_name(unsigned challenge)
{
	for (size_t i = 0; i < sizeof(challenge_names) / sizeof(challenge_names[0]); i++) {
		if (challenge == 1u << i)
			return challenge_names[i];
	}
	return "";
}

unsigned kt_challenge_from_name(const char *name)
{
	for (size_t i = 0; i < sizeof(challenge_names) / sizeof(challenge_names[0]); i++) {
		if (!strcmp(name, challenge_names[i]))
			return 1u << i;
	}
	return 0;
}

unsigned kt_acme_challenge(const struct kt_acme_solver *solver)
{
	return solver->http01		? KT_CHALLENGE_HTTP01
	       : solver->tls_alpn01	? KT_CHALLENGE_TLS_ALPN01
	       : solver->dns01		? KT_CHALLENGE_DNS01
	       : solver->dns_persist01	? KT_CHALLENGE_DNS_PERSIST01
					: 0;
}

static const char *what_name(const char *name)
{
	return !strncmp(name, "*.", 2) ? "a wildcard needs dns-01 or dns-persist-01" : "an address needs http-01 or tls-alpn-01";
}

void kt_acme_check_names(const struct kt_resource *certificate, const struct kt_resource *issuer, struct kt_report *report)
{
	const struct kt_certificate_spec *spec = &certificate->certificate;
	const struct kt_acme *acme = issuer->issuer.acme;
	uint32_t total = spec->dns_names.count + spec->ip_addresses.count;

	for (uint32_t i = 0; i < total && acme->solvers.count; i++) {
		bool dns = i < spec->dns_names.count;
		const char *name = dns ? spec->dns_names.items[i] : spec->ip_addresses.items[i - spec->dns_names.count];
		const char *field = dns ? "spec.dnsNames" : "spec.ipAddresses";
		bool taken = kt_acme_solver_for(acme, &certificate->meta.labels, name) >= 0;

		if (kt_acme_solver_among(acme, &certificate->meta.labels, name, kt_acme_challenges_for(name)) >= 0)
			continue;
		kt_report_add(report, KT_COMPLAINT_WARNING, certificate->file, kt_resource_line(certificate, field),
			      "%s (%.253s) can't be proved by any solver of %s %s: %s", field, name, kt_kind_name(issuer->kind),
			      issuer->meta.name, taken ? what_name(name) : "no selector takes it");
	}
}

unsigned kt_acme_challenges_for(const char *name)
{
	struct in6_addr address;

	if (!strncmp(name, "*.", 2))
		return KT_CHALLENGE_DNS01 | KT_CHALLENGE_DNS_PERSIST01;
	if (inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1)
		return KT_CHALLENGE_HTTP01 | KT_CHALLENGE_TLS_ALPN01;
	return KT_CHALLENGE_ALL;
}
