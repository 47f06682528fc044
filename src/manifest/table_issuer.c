/* The field table of Issuer and ClusterIssuer, every field of the CRD in it, and the choice of a solver. */
#include <string.h>
#include <strings.h>

#include "kt/text.h"
#include "manifest/rows.h"

#define WITH_ACME    "it comes with the ACME release; leave it out for now"
#define OTHER_ISSUER "keyturn has acme, ca and selfSigned; this one comes later"

typedef struct kt_acme acme;

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
	REFUSED("dns01", WITH_ACME " or use http01", .flags = KT_F_CHOICE),
	ROW("http01", KT_F_OBJECT, struct kt_acme_solver, http01, CHOICE, OF(http01_table), DOC "Challenge http-01."),
	ROW("selector", KT_F_STRUCT, struct kt_acme_solver, selector, OF(selector_table), DOC "For which names."),
	REFUSED("waitInsteadOfSelfCheck", "keyturn makes no self check from outside; remove it"),
};
static const struct kt_table solver_table = TABLE("Solver", struct kt_acme_solver, solver_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "How a challenge is answered.");

SECRET_REF_TABLE(account_key_table, "tls.key");

static const struct kt_field acme_rows[] = {
	ROW("caBundle", KT_F_BYTES, acme, ca_bundle,
	    DOC "PEM in base64: the roots to trust for the server instead of the system's."),
	ROW("disableAccountKeyGeneration", KT_F_BOOL, acme, disable_account_key_generation,
	    DOC "The account key must be there already; none is made."),
	ROW("email", KT_F_STRING, acme, email, .check = kt_value_email, DOC "Contact of the account."),
	ROW("enableDurationFeature", KT_F_BOOL, acme, enable_duration_feature,
	    DOC "Ask the server for spec.duration of the Certificate."),
	REFUSED("externalAccountBinding", WITH_ACME),
	REFUSED("preferredChain", WITH_ACME),
	ROW("privateKeySecretRef", KT_F_STRUCT, acme, private_key_ref, REQUIRED, OF(account_key_table),
	    DOC "Where the account key is kept; made on first use. Key `tls.key` when absent."),
	REFUSED("profile", WITH_ACME),
	ROW("server", KT_F_STRING, acme, server, REQUIRED, .check = kt_value_url, DOC "URL of the ACME directory."),
	ROW("skipTLSVerify", KT_F_BOOL, acme, skip_tls_verify,
	    DOC "Only for a server on this machine; elsewhere caBundle is the way."),
	ROW("solvers", KT_F_LIST, acme, solvers, .max = 100, OF(solver_table), DOC "How challenges are answered."),
};

static void check_acme(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const acme *a = object;

	if (a->skip_tls_verify && !kt_url_is_loopback(a->server))
		kt_complain(d, node, "skipTLSVerify",
			    "is accepted only for a server on this machine; give its root as caBundle");
	if (!a->solvers.count)
		kt_complain(d, node, "solvers", "must have at least one entry, such as {http01: {ingress: {}}}");
}

static const struct kt_table acme_table =
	TABLE("ACME", acme, acme_rows, .check = check_acme, .doc = "An ACME server (RFC 8555).");

static const struct kt_field ca_rows[] = {
	ROW("crlDistributionPoints", KT_F_STRINGS, struct kt_ca_issuer, crl_distribution_points,
	    .check = kt_value_any_url, .max = 16, DOC "URLs written into the certificates."),
	ROW("issuingCertificateURLs", KT_F_STRINGS, struct kt_ca_issuer, issuing_certificate_urls,
	    .check = kt_value_any_url, .max = 16, DOC "URLs written into the certificates."),
	ROW("ocspServers", KT_F_STRINGS, struct kt_ca_issuer, ocsp_servers, .check = kt_value_any_url, .max = 16,
	    DOC "URLs written into the certificates."),
	ROW("secretName", KT_F_STRING, struct kt_ca_issuer, secret_name, REQUIRED, .check = kt_value_name,
	    DOC "Secret with tls.crt and tls.key of the CA: that of a Certificate with isCA, or one in the store."),
};
static const struct kt_table ca_table =
	TABLE("CA", struct kt_ca_issuer, ca_rows, .doc = "A CA whose key keyturn holds.");

static const struct kt_field self_rows[] = {
	ROW("crlDistributionPoints", KT_F_STRINGS, struct kt_self_signed, crl_distribution_points,
	    .check = kt_value_any_url, .max = 16, DOC "URLs written into the certificates."),
};
static const struct kt_table self_table = TABLE("SelfSigned", struct kt_self_signed, self_rows,
						.doc = "Each certificate signs itself; roots are made so.");

static const struct kt_field spec_rows[] = {
	ROW("acme", KT_F_OBJECT, struct kt_issuer_spec, acme, CHOICE, OF(acme_table), DOC "An ACME server."),
	ROW("ca", KT_F_OBJECT, struct kt_issuer_spec, ca, CHOICE, OF(ca_table), DOC "A CA whose key keyturn holds."),
	ROW("selfSigned", KT_F_OBJECT, struct kt_issuer_spec, self_signed, CHOICE, OF(self_table),
	    DOC "Each certificate signs itself."),
	REFUSED("vault", OTHER_ISSUER, .flags = KT_F_CHOICE),
	REFUSED("venafi", OTHER_ISSUER, .flags = KT_F_CHOICE),
};
static const struct kt_table spec_table = TABLE("IssuerSpec", struct kt_issuer_spec, spec_rows, .choice_min = 1,
						.choice_max = 1, .doc = "Exactly one way to issue.");

#define WEBROOT "keyturn.dev/http01-webroot"

static void check_issuer(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_resource *resource = object;
	const char *webroot = kt_pairs_get(&resource->meta.annotations, WEBROOT);
	const char *problem = webroot && *webroot ? kt_value_path(webroot) : NULL;

	if (!webroot)
		return;
	if (!resource->issuer.acme)
		kt_complain(d, node, "metadata.annotations", WEBROOT " is for an acme issuer; remove it");
	else if (problem || !*webroot)
		kt_complain(d, node, "metadata.annotations", WEBROOT " (%.128s) %s", webroot,
			    problem ? problem : "must be an absolute path");
	else
		resource->issuer.acme->webroot = webroot;
}

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "cert-manager.io/v1"),
	{.name = "kind", .type = KT_F_FIXED, .flags = KT_F_REQUIRED, .doc = "`Issuer` or `ClusterIssuer`."},
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta),
	    DOC "Name and namespace. Annotation `" WEBROOT
		"`: a folder that a web server serves; http-01 answers are put under "
		"`.well-known/acme-challenge` in it."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, issuer, REQUIRED, OF(spec_table),
	    DOC "How certificates are issued."),
	STATUS_ROW,
};

const struct kt_table kt_table_issuer =
	TABLE("Issuer", struct kt_resource, top_rows, .check = check_issuer, .doc = "Where certificates come from.");

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

int kt_acme_solver_for(const struct kt_acme *a, const struct kt_pairs *labels, const char *dns_name)
{
	int found = -1, best = -1;

	for (uint32_t i = 0; i < a->solvers.count; i++) {
		int r = rank(&a->solvers.items[i].selector, labels, dns_name);

		if (r > best) {
			best = r;
			found = (int)i;
		}
	}
	return found;
}
