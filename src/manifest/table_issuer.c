/* The field table of Issuer and ClusterIssuer, every field of the CRD in it; its solvers are in table_solver.c. */
#include <stdio.h>
#include <string.h>

#include "kt/text.h"
#include "manifest/rows.h"

#define OTHER_ISSUER "keyturn has acme, ca and selfSigned; this one comes later"

#define FALLBACK_MAX 8u

typedef struct kt_acme acme;

SECRET_REF_TABLE(account_key_table, "tls.key");

static const struct kt_enum_name eab_algorithms[] = {
	{"HS256", KT_EAB_HS256}, {"HS384", KT_EAB_HS384}, {"HS512", KT_EAB_HS512}, {NULL, 0}};

SECRET_REF_TABLE(eab_key_table, "secret");

static const struct kt_field eab_rows[] = {
	ROW("keyAlgorithm", KT_F_ENUM, struct kt_acme_eab, alg, .def = KT_EAB_HS256, .names = eab_algorithms,
	    DOC "MAC of the binding; cert-manager ignores this field, keyturn obeys it."),
	ROW("keyID", KT_F_STRING, struct kt_acme_eab, key_id, REQUIRED, .check = kt_value_printable, .max = 1024,
	    DOC "Key identifier that the CA gave."),
	ROW("keySecretRef", KT_F_STRUCT, struct kt_acme_eab, key, REQUIRED, OF(eab_key_table),
	    DOC "The MAC key, base64url as the CA gave it."),
};
static const struct kt_table eab_table = TABLE("ExternalAccountBinding", struct kt_acme_eab, eab_rows,
					       .doc = "External account binding (RFC 8555 section 7.3.4).");

static const struct kt_field acme_rows[] = {
	ROW("caBundle", KT_F_BYTES, acme, ca_bundle,
	    DOC "PEM in base64: the roots to trust for the server instead of the system's."),
	ROW("disableAccountKeyGeneration", KT_F_BOOL, acme, disable_account_key_generation,
	    DOC "The account key must be there already; none is made."),
	ROW("email", KT_F_STRING, acme, email, .check = kt_value_email, DOC "Contact of the account."),
	ROW("enableDurationFeature", KT_F_BOOL, acme, enable_duration_feature,
	    DOC "Ask the server for spec.duration of the Certificate."),
	ROW("externalAccountBinding", KT_F_OBJECT, acme, eab, OF(eab_table),
	    DOC "Binds the account to one that the CA knows already."),
	ROW("preferredChain", KT_F_STRING, acme, preferred_chain, .check = kt_value_printable, .max = 64,
	    DOC "Common name of the issuer at the top of the chain that is wanted, where the CA offers several; its first "
		"one when none matches."),
	ROW("privateKeySecretRef", KT_F_STRUCT, acme, private_key_ref, REQUIRED, OF(account_key_table),
	    DOC "Where the account key is kept; made on first use. Key `tls.key` when absent."),
	ROW("profile", KT_F_STRING, acme, profile, .check = kt_value_printable, .max = 64,
	    DOC "Profile of the certificate, one of those that the CA's directory lists."),
	ROW("server", KT_F_STRING, acme, server, REQUIRED, .check = kt_value_url, DOC "URL of the ACME directory."),
	ROW("skipTLSVerify", KT_F_BOOL, acme, skip_tls_verify,
	    DOC "Only for a server on this machine; elsewhere caBundle is the way."),
	ROW("solvers", KT_F_LIST, acme, solvers, .max = 100, OF(kt_table_solver), DOC "How challenges are answered."),
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

/* --- annotations: what a cluster's Issuer has no field for ---------------------------------------------------------- */

#define PREFIX "keyturn.dev/"

static const char *on_webroot(struct kt_decoder *d, acme *a, const char *text)
{
	(void)d;
	a->webroot = text;
	return *text ? kt_value_path(text) : "must be an absolute path";
}

static const char *on_staging(struct kt_decoder *d, acme *a, const char *text)
{
	(void)d;
	a->staging_server = text;
	return kt_value_url(text);
}

/* "backup, ClusterIssuer/other" */
static const char *on_fallback(struct kt_decoder *d, acme *a, const char *text)
{
	const char **items = kt_arena_alloc(d->arena, FALLBACK_MAX * sizeof(*items));
	uint32_t count = 0;

	if (!items)
		return "is too much for this machine's memory";
	while (*text) {
		size_t len = strcspn(text, ", "), kind = 0;
		char *item;

		if (!len) {
			text++;
			continue;
		}
		if (count == FALLBACK_MAX)
			return "names more than 8 issuers";
		if (!strncmp(text, "Issuer/", 7))
			kind = 7;
		else if (!strncmp(text, "ClusterIssuer/", 14))
			kind = 14;
		item = kt_arena_alloc(d->arena, len + 8);
		if (!item)
			return "is too much for this machine's memory";
		(void)snprintf(item, len + 8, "%s%.*s", kind ? "" : "Issuer/", (int)len, text);
		if (kt_value_name(strchr(item, '/') + 1))
			return "must be a list of names, each of an Issuer, or ClusterIssuer/name";
		items[count++] = item;
		text += len;
	}
	a->fallback = (struct kt_strings){.items = items, .count = count};
	return count ? NULL : "must name at least one issuer";
}

static const char *on_fallback_trust(struct kt_decoder *d, acme *a, const char *text)
{
	(void)d;
	a->fallback_unchecked = !strcmp(text, "Unchecked");
	return a->fallback_unchecked || !strcmp(text, "Checked") ? NULL : "must be Checked or Unchecked";
}

static const char *on_renewal_info(struct kt_decoder *d, acme *a, const char *text)
{
	(void)d;
	a->renewal_info_disabled = !strcmp(text, "Disabled");
	return a->renewal_info_disabled || !strcmp(text, "Enabled") ? NULL : "must be Enabled or Disabled";
}

/* "orders=300/3h" up to the end of text; *text is moved behind it. */
static const char *take_rate(const char **text, struct kt_rates *rates)
{
	static const char *const kinds[KT_RATE_COUNT] = {"orders", "certificates", "duplicates", "failures", "accounts"};
	const char *equals = *text + strcspn(*text, "=, "), *slash = equals + strcspn(equals, "/, ");
	const char *end = slash + strcspn(slash, ", ");
	struct kt_rate *rate = NULL;
	uint64_t limit;

	for (size_t i = 0; i < KT_RATE_COUNT; i++) {
		if (strlen(kinds[i]) == (size_t)(equals - *text) && !memcmp(kinds[i], *text, (size_t)(equals - *text)))
			rate = &rates->of[i];
	}
	if (!rate || *equals != '=' || *slash != '/')
		return "must be none, or a list such as orders=300/3h, certificates=50/168h, duplicates=5/168h, "
		       "failures=5/1h, accounts=10/3h";
	if (kt_parse_u64((struct kt_view){equals + 1, (size_t)(slash - equals - 1)}, 10000000, &limit, NULL) != KT_OK || !limit)
		return "must have numbers from 1 to 10000000";
	if (kt_duration_parse((struct kt_view){slash + 1, (size_t)(end - slash - 1)}, &rate->window, NULL) != KT_OK ||
	    rate->window < KT_SECOND || rate->window > 3660 * KT_DAY)
		return "must have durations from 1s to 87840h";
	rate->limit = (uint32_t)limit;
	*text = end;
	return NULL;
}

static const char *on_rates(struct kt_decoder *d, acme *a, const char *text)
{
	const char *problem = NULL;

	(void)d;
	a->rates.none = !strcmp(text, "none");
	text += a->rates.none ? 4 : 0;
	while (!problem && *text) {
		text += strspn(text, ", ");
		if (*text)
			problem = take_rate(&text, &a->rates);
	}
	return problem;
}

static const struct {
	const char *name;
	const char *(*take)(struct kt_decoder *d, acme *a, const char *text);
} annotations[] = {
	{PREFIX "http01-webroot", on_webroot},       {PREFIX "staging-server", on_staging},
	{PREFIX "fallback-issuers", on_fallback},    {PREFIX "fallback-trust", on_fallback_trust},
	{PREFIX "renewal-info", on_renewal_info},    {PREFIX "rate-limits", on_rates},
};

static void check_issuer(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_resource *resource = object;

	for (size_t i = 0; i < sizeof(annotations) / sizeof(annotations[0]); i++) {
		const char *text = kt_pairs_get(&resource->meta.annotations, annotations[i].name);
		const char *problem = NULL;

		if (!text)
			continue;
		if (!resource->issuer.acme) {
			kt_complain(d, node, "metadata.annotations", "%s is for an acme issuer; remove it",
				    annotations[i].name);
			continue;
		}
		problem = annotations[i].take(d, resource->issuer.acme, text);
		if (problem)
			kt_complain(d, node, "metadata.annotations", "%s (%.128s) %s", annotations[i].name, text, problem);
	}
}

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "cert-manager.io/v1"),
	{.name = "kind", .type = KT_F_FIXED, .flags = KT_F_REQUIRED, .doc = "`Issuer` or `ClusterIssuer`."},
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta),
	    DOC "Name and namespace. Annotations for acme: `keyturn.dev/http01-webroot`: a folder that a web server "
		"serves; http-01 answers are put under `.well-known/acme-challenge` in it. "
		"`keyturn.dev/staging-server`: a directory where a failed order is tried first. "
		"`keyturn.dev/fallback-issuers`: issuers to go to, in order, when this one fails; "
		"`keyturn.dev/fallback-trust: Unchecked` takes their certificates though consumers may not trust them. "
		"`keyturn.dev/renewal-info: Disabled`: the CA's renewal information (RFC 9773) is not asked for. "
		"`keyturn.dev/rate-limits`: what this CA allows, where that is not what it publishes: `none`, or a list "
		"such as `orders=300/3h, certificates=50/168h, duplicates=5/168h, failures=5/1h, accounts=10/3h`."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, issuer, REQUIRED, OF(spec_table),
	    DOC "How certificates are issued."),
	STATUS_ROW,
};

const struct kt_table kt_table_issuer =
	TABLE("Issuer", struct kt_resource, top_rows, .check = check_issuer, .doc = "Where certificates come from.");

