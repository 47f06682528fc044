/* What is checked when a CA hands us a certificate, before anybody else sees it. */
#include "pki/pki_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKEW_DEFAULT (5 * KT_MINUTE)
#define RSA_BITS_MIN 2048

/* --- order ------------------------------------------------------------------------------------------------------------ */

static void move_to(struct kt_chain *chain, size_t from, size_t to)
{
	struct kt_cert *cert = chain->at[from];

	memmove(&chain->at[to + 1], &chain->at[to], (from - to) * sizeof(chain->at[0]));
	chain->at[to] = cert;
}

/* Our leaf first, then each certificate's issuer; what belongs to nothing is refused. */
static enum kt_code put_in_order(struct kt_chain *chain, const struct kt_key *key, struct kt_err *err)
{
	size_t leaf = 0, next;

	while (leaf < chain->count && !kt_pki_cert_has_key(chain->at[leaf], key))
		leaf++;
	if (leaf == chain->count)
		return kt_err_set(err, KT_E_CRYPTO, "the certificate is for another key than the one requested");
	move_to(chain, leaf, 0);
	for (size_t at = 1; at < chain->count; at++) {
		for (next = at; next < chain->count; next++)
			if (kt_pki_cert_issued_by(chain->at[at - 1], chain->at[next]))
				break;
		if (next == chain->count)
			return kt_err_set(err, KT_E_CRYPTO,
			                  "the chain is broken: certificate %zu (%s) was not signed by any other of the %zu",
			                  at, chain->at[at - 1]->subject, chain->count);
		move_to(chain, next, at);
	}
	return KT_OK;
}

/* --- names -------------------------------------------------------------------------------------------------------------- */

struct names {
	char **at;
	size_t count;
};

static void names_finish(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		kt_free(names->at[i]);
	kt_free(names->at);
}

static bool names_add(struct names *names, char *text)
{
	if (text == NULL)
		return false;
	if (strncmp(text, "dns:", 4) == 0)
		kt_pki_lower(text);
	names->at[names->count++] = text;
	return true;
}

/* "<prefix><value>", escaped as struct kt_cert has it. */
static char *escaped_name(const char *prefix, const char *value)
{
	char *escaped = kt_pki_escape((const uint8_t *)value, strlen(value), 4096);
	char *text = escaped != NULL ? kt_asprintf("%s%s", prefix, escaped) : NULL;

	kt_free(escaped);
	return text;
}

static char *other_name(const struct kt_cert_other_name *other)
{
	char prefix[144];

	snprintf(prefix, sizeof(prefix), "other:%s:", other->oid);
	return escaped_name(prefix, other->utf8);
}

static char *canonical_ip(const char *text)
{
	char out[INET6_ADDRSTRLEN] = "";
	uint8_t bytes[16];
	size_t len = 0;

	if (kt_pki_ip_parse(text, bytes, &len, NULL) != KT_OK ||
	    inet_ntop(len == 4 ? AF_INET : AF_INET6, bytes, out, sizeof(out)) == NULL)
		return kt_asprintf("ip:%s", text);
	return kt_asprintf("ip:%s", out);
}

/* The request's names in the form that struct kt_cert uses. */
static enum kt_code wanted_names(const struct kt_cert_request *r, struct names *names, struct kt_err *err)
{
	size_t total = r->dns_names.count + r->ip_addresses.count + r->uris.count + r->emails.count + r->other_name_count;
	bool ok;

	names->at = kt_calloc(total + 1, sizeof(char *));
	ok = names->at != NULL;
	for (size_t i = 0; ok && i < r->dns_names.count; i++)
		ok = names_add(names, escaped_name("dns:", r->dns_names.at[i]));
	for (size_t i = 0; ok && i < r->ip_addresses.count; i++)
		ok = names_add(names, canonical_ip(r->ip_addresses.at[i]));
	for (size_t i = 0; ok && i < r->uris.count; i++)
		ok = names_add(names, escaped_name("uri:", r->uris.at[i]));
	for (size_t i = 0; ok && i < r->emails.count; i++)
		ok = names_add(names, escaped_name("email:", r->emails.at[i]));
	for (size_t i = 0; ok && i < r->other_name_count; i++)
		ok = names_add(names, other_name(&r->other_names[i]));
	return ok ? KT_OK : kt_err_set(err, KT_E_NOMEM, "names: out of memory");
}

static int compare_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_name(char *const *sorted, size_t count, const char *name)
{
	return count > 0 && bsearch(&name, sorted, count, sizeof(char *), compare_text) != NULL;
}

/* "dns:<common name>" in lower case, or NULL when there is none. */
static char *common_name_as_dns(const char *cn)
{
	char *text = cn != NULL ? kt_asprintf("dns:%s", cn) : NULL;

	if (text != NULL)
		kt_pki_lower(text);
	return text;
}

static bool is_attribute_cn(const struct kt_cert_request *request, const char *cn)
{
	for (size_t i = 0; i < request->subject_count; i++)
		if (kt_ascii_ieq(kt_view_str(request->subject[i].type), KT_VIEW_LIT("CN")) &&
		    strcmp(request->subject[i].value, cn) == 0)
			return true;
	return false;
}

/* The common name that came must be the one that was asked for, or one of the names. */
static enum kt_code check_common_name(const char *cn, const struct kt_cert_request *request, const struct names *want,
                                      const char *cn_dns, struct kt_err *err)
{
	char *got = common_name_as_dns(cn);
	bool known;

	if (got == NULL)
		return kt_err_set(err, KT_E_NOMEM, "names: out of memory");
	known = (cn_dns != NULL && strcmp(got, cn_dns) == 0) || has_name(want->at, want->count, got) ||
	        is_attribute_cn(request, cn);
	for (size_t i = 0; !known && i < want->count; i++)
		known = strcmp(strchr(want->at[i], ':') + 1, cn) == 0;
	kt_free(got);
	if (!known)
		return kt_err_set(err, KT_E_POLICY, "the certificate has a common name that was not requested: %.200s", cn);
	return KT_OK;
}

static enum kt_code compare_names(const struct kt_cert *leaf, const struct kt_cert_request *request, char **have,
                                  const struct names *want, const char *cn_dns, struct kt_err *err)
{
	for (size_t i = 0; i < leaf->name_count; i++) {
		/* The CA may repeat the common name that we asked for among the names. */
		if (!has_name(want->at, want->count, have[i]) && (cn_dns == NULL || strcmp(have[i], cn_dns) != 0))
			return kt_err_set(err, KT_E_POLICY, "the certificate has a name that was not requested: %.200s",
			                  have[i]);
	}
	for (size_t i = 0; i < want->count; i++)
		if (!has_name(have, leaf->name_count, want->at[i]))
			return kt_err_set(err, KT_E_POLICY, "the certificate lacks the requested name %.200s", want->at[i]);
	if (leaf->common_name != NULL && request->literal_subject == NULL)
		return check_common_name(leaf->common_name, request, want, cn_dns, err);
	return KT_OK;
}

static enum kt_code check_names(const struct kt_cert *leaf, const struct kt_cert_request *request, struct kt_err *err)
{
	struct names want = {NULL, 0};
	char *cn_dns = common_name_as_dns(request->common_name);
	char **have = kt_calloc(leaf->name_count + 1, sizeof(char *));
	enum kt_code code;

	if (have == NULL || (request->common_name != NULL && cn_dns == NULL)) {
		code = kt_err_set(err, KT_E_NOMEM, "names: out of memory");
		goto out;
	}
	code = wanted_names(request, &want, err);
	if (code != KT_OK)
		goto out;
	if (leaf->name_count > 0)
		memcpy(have, leaf->names, leaf->name_count * sizeof(char *));
	qsort(have, leaf->name_count, sizeof(char *), compare_text);
	qsort(want.at, want.count, sizeof(char *), compare_text);
	code = compare_names(leaf, request, have, &want, cn_dns, err);
out:
	names_finish(&want);
	kt_free(have);
	kt_free(cn_dns);
	return code;
}

/* --- dates, algorithms, trust ---------------------------------------------------------------------------------------- */

static enum kt_code check_dates(const struct kt_cert *leaf, const struct kt_issue_expect *expect, struct kt_err *err)
{
	kt_ms skew = expect->skew > 0 ? expect->skew : SKEW_DEFAULT;
	char when[32];

	if (leaf->not_after <= leaf->not_before)
		return kt_err_set(err, KT_E_POLICY, "the certificate ends before it begins");
	if (leaf->not_after <= expect->now)
		return kt_err_set(err, KT_E_POLICY, "the certificate has expired already (at %s)",
		                  kt_time_format(leaf->not_after, when));
	if (leaf->not_before > expect->now + skew)
		return kt_err_set(err, KT_E_POLICY, "the certificate is not valid yet (from %s on)",
		                  kt_time_format(leaf->not_before, when));
	if (leaf->not_after - expect->now < expect->min_remaining)
		return kt_err_set(err, KT_E_POLICY, "the certificate ends too early (at %s)",
		                  kt_time_format(leaf->not_after, when));
	return KT_OK;
}

static enum kt_code check_one(const struct kt_cert *cert, bool is_root, struct kt_err *err)
{
	int md = NID_undef, pk = NID_undef, bits = 0;
	uint32_t flags = 0;

	if (cert->broken)
		return kt_err_set(err, KT_E_PROTO, "%s has extensions or a key that can't be read", cert->subject);
	if (cert->key_type == KT_KEY_RSA && cert->key_bits < RSA_BITS_MIN)
		return kt_err_set(err, KT_E_CRYPTO, "%s has an RSA key of only %u bits", cert->subject, cert->key_bits);
	if (is_root) /* nobody relies on a root's own signature */
		return KT_OK;
	if (X509_get_signature_info(cert->x509, &md, &pk, &bits, &flags) != 1)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "%s has an unknown signature algorithm", cert->subject);
	if (md == NID_md5 || md == NID_sha1 || md == NID_md5_sha1 || md == NID_md2 || md == NID_md4)
		return kt_err_set(err, KT_E_CRYPTO, "%s is signed with %s, which is broken", cert->subject,
		                  OBJ_nid2sn(md));
	return KT_OK;
}

static enum kt_code check_links(const struct kt_chain *chain, const struct kt_issue_expect *expect, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	for (size_t i = 0; code == KT_OK && i < chain->count; i++) {
		const struct kt_cert *cert = chain->at[i];
		bool self = kt_pki_cert_self_issued(cert);

		code = check_one(cert, self && i > 0, err);
		if (code != KT_OK || i == 0)
			continue;
		if (!cert->is_ca)
			return kt_err_set(err, KT_E_CRYPTO, "the chain has an issuer that is no CA: %s", cert->subject);
		if (X509_check_issued(cert->x509, chain->at[i - 1]->x509) != X509_V_OK)
			return kt_err_set(err, KT_E_CRYPTO, "%s may not have issued %s", cert->subject,
			                  chain->at[i - 1]->subject);
		if (cert->not_after <= expect->now || cert->not_before > expect->now + SKEW_DEFAULT)
			return kt_err_set(err, KT_E_POLICY, "the issuer %s is not valid now", cert->subject);
	}
	if (code == KT_OK && chain->count == 1 && kt_pki_cert_self_issued(chain->at[0]) &&
	    !kt_pki_cert_issued_by(chain->at[0], chain->at[0]))
		return kt_err_set(err, KT_E_CRYPTO, "the self-signed certificate's signature is wrong");
	return code;
}

enum kt_code kt_pki_chain_verify(const struct kt_chain *chain, const struct kt_trust *roots, kt_ms now, struct kt_err *err)
{
	KT_AUTOSSL(X509_STORE_CTX) ctx = X509_STORE_CTX_new();
	KT_AUTOSSL(X509) leaf = kt_pki_cert_whole(chain->at[0]);
	STACK_OF(X509) *others = sk_X509_new_null();
	enum kt_code code = KT_OK;
	int why;

	for (size_t i = 1; others != NULL && i < chain->count; i++) {
		X509 *other = kt_pki_cert_whole(chain->at[i]);

		if (other == NULL || sk_X509_push(others, other) <= 0) {
			X509_free(other);
			code = KT_E_NOMEM;
		}
	}
	if (ctx == NULL || leaf == NULL || others == NULL || code != KT_OK ||
	    X509_STORE_CTX_init(ctx, roots->store, leaf, others) != 1) {
		code = kt_pki_openssl_err(err, KT_E_NOMEM, "verifying the chain");
	} else {
		X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(ctx), (time_t)(now / KT_SECOND));
		X509_VERIFY_PARAM_set_depth(X509_STORE_CTX_get0_param(ctx), (int)KT_PKI_CHAIN_MAX);
		if (X509_verify_cert(ctx) != 1) {
			why = X509_STORE_CTX_get_error(ctx);
			ERR_clear_error();
			code = kt_err_set(err, why == X509_V_ERR_OUT_OF_MEM ? KT_E_NOMEM : KT_E_CRYPTO,
			                  "the chain doesn't lead to a trusted root: %s",
			                  X509_verify_cert_error_string(why));
		}
	}
	sk_X509_pop_free(others, X509_free);
	return code;
}

static enum kt_code check_issued(struct kt_chain *chain, const struct kt_issue_expect *expect, struct kt_err *err)
{
	const struct kt_cert *leaf;
	enum kt_code code = put_in_order(chain, expect->key, err);

	if (code != KT_OK)
		return code;
	leaf = chain->at[0];
	code = check_one(leaf, false, err);
	if (code == KT_OK)
		code = check_dates(leaf, expect, err);
	if (code == KT_OK && leaf->is_ca != expect->request->is_ca)
		code = kt_err_set(err, KT_E_POLICY, leaf->is_ca ? "a CA certificate came although none was requested"
		                                                : "a CA certificate was requested, this is none");
	if (code == KT_OK)
		code = check_names(leaf, expect->request, err);
	if (code == KT_OK)
		code = check_links(chain, expect, err);
	if (code == KT_OK && expect->roots != NULL)
		code = kt_pki_chain_verify(chain, expect->roots, expect->now, err);
	else if (code == KT_OK && expect->need_chain && chain->count == 1 && !kt_pki_cert_self_issued(leaf))
		code = kt_err_set(err, KT_E_PROTO, "the CA sent the certificate without the chain to it");
	return code;
}

enum kt_code kt_pki_check_issued(struct kt_chain *chain, const struct kt_issue_expect *expect, struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();

	return kt_pki_settle(check_issued(chain, expect, err), failures, err);
}
