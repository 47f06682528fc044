/* The issuers that sign here: ca and selfSigned. */
#include <stdio.h>

#include "kt/mem.h"
#include "keeper/keeper.h"

/* Leaves begin a little in the past, so that a reader whose clock is behind takes them: a twentieth of their life, at most a
 * minute. */
static kt_ms backdate(kt_ms duration)
{
	return duration / 20 < KT_MINUTE ? duration / 20 : KT_MINUTE;
}

static void took(struct kt_flight *flight, const struct kt_issued *info)
{
	(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%s", info->serial);
	(void)snprintf(flight->got.sha256, sizeof(flight->got.sha256), "%s", info->sha256);
	flight->got.not_before = info->not_before;
	flight->got.not_after = info->not_after;
}

/* Chain (leaf, then what lies between it and the root) and ca.crt of a freshly signed leaf. */
static enum kt_code take_leaf(struct kt_flight *flight, struct kt_view der, const char *between, const char *root,
                              struct kt_err *err)
{
	struct kt_buf pem KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&pem, KT_PKI_CHAIN_BYTES_MAX);
	kt_pki_pem_encode(&pem, "CERTIFICATE", der);
	if (between != NULL) {
		kt_buf_adds(&pem, between);
	}
	code = kt_buf_check(&pem, "chain", err);
	if (code == KT_OK) {
		struct kt_view ca = root != NULL ? kt_view_str(root) : kt_buf_view(&pem);

		code = kt_issuers_take_chain(flight, kt_buf_view(&pem), ca, err);
	}
	return code;
}

static enum kt_effect obtain_self_signed(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	struct kt_buf der KT_AUTOBUF = {0};
	struct kt_spec_request request;
	struct kt_issued info;
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	code = kt_spec_request_init(spec, &request, err);
	if (code == KT_OK) {
		request.request.not_before = now - backdate(spec->duration);
		request.request.not_after = now + spec->duration;
		request.request.crl_urls = kt_spec_strs(&flight->issuer->spec->issuer.self_signed->crl_distribution_points);
		code = kt_pki_self_sign(&request.request, flight->key, &der, &info, err);
	}
	if (code == KT_OK) {
		took(flight, &info);
		code = take_leaf(flight, kt_buf_view(&der), NULL, NULL, err);
	}
	kt_spec_request_finish(&request);
	return code == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
}

/* Splits the CA's own chain into what a leaf carries along and what goes into ca.crt. */
static enum kt_code take_ca_chain(struct kt_issuer_entry *entry, const struct kt_chain *chain, struct kt_err *err)
{
	struct kt_buf between KT_AUTOBUF = {0};
	struct kt_buf root KT_AUTOBUF = {0};
	enum kt_code code = KT_OK;
	size_t i;

	kt_buf_init(&between, KT_PKI_CHAIN_BYTES_MAX);
	kt_buf_init(&root, KT_PKI_CHAIN_BYTES_MAX);
	for (i = 0; i < kt_pki_chain_count(chain) && code == KT_OK; i++) {
		const struct kt_cert *cert = kt_pki_chain_at(chain, i);
		bool last = i + 1 == kt_pki_chain_count(chain);

		code = kt_pki_cert_pem(cert, kt_pki_cert_self_issued(cert) ? &root : &between, err);
		if (code == KT_OK && last && root.len == 0 && entry->ca_pem == NULL) {
			code = kt_pki_cert_pem(cert, &root, err);
		}
	}
	if (code == KT_OK) {
		code = kt_buf_check(&root, "ca.crt", err);
	}
	if (code == KT_OK) {
		if (entry->ca_pem == NULL) {
			entry->ca_pem = kt_buf_steal(&root, NULL);
		}
		entry->chain_pem = between.len > 0 ? kt_buf_steal(&between, NULL) : NULL;
	}
	return code;
}

static enum kt_code parse_ca(struct kt_issuer_entry *entry, const struct kt_secret *crt, const struct kt_secret *key_pem,
                             const char *secret, struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_key *key KT_AUTOKEY = NULL;
	enum kt_code code = kt_pki_chain_parse(kt_secret_view(crt), &chain, err);

	if (code == KT_OK) {
		struct kt_view view = kt_secret_view(key_pem);

		code = view.len > 0 && view.ptr[0] == '-' ? kt_pki_key_from_pem(view, &key, err)
		                                          : kt_pki_key_from_der(view, &key, err);
	}
	if (code == KT_OK) {
		code = kt_pki_issuer_create(kt_pki_chain_at(chain, 0), key, &entry->ca, err);
	}
	if (code == KT_OK) {
		code = take_ca_chain(entry, chain, err);
	}
	return code == KT_OK ? KT_OK : kt_err_prefix(err, "the CA in secret %s", secret);
}

/* Makes the CA ready to sign: its certificate and key from the Secret. */
static enum kt_code load_ca(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	struct kt_issuer_entry *entry = flight->issuer;
	const char *secret = entry->spec->issuer.ca->secret_name;
	const char *ns = entry->spec->meta.ns;
	struct kt_secret *crt KT_AUTOSECRET = NULL;
	struct kt_secret *key KT_AUTOSECRET = NULL;
	struct kt_secret *root KT_AUTOSECRET = NULL;
	enum kt_code code = kt_issuers_secret(keeper, ns, secret, "tls.crt", &crt, err);

	if (code == KT_OK) {
		code = kt_issuers_secret(keeper, ns, secret, "tls.key", &key, err);
	}
	if (code != KT_OK) {
		(void)snprintf(flight->waiting_for, sizeof(flight->waiting_for), "%s/%s",
		               ns[0] != '\0' ? ns : "default", secret);
		(void)kt_err_prefix(err, "%s", entry->ref);
		err->code = KT_E_LATER;
		return KT_E_LATER;
	}
	kt_free(entry->ca_pem);
	kt_free(entry->chain_pem);
	entry->ca_pem = entry->chain_pem = NULL;
	if (kt_issuers_secret(keeper, ns, secret, "ca.crt", &root, NULL) == KT_OK) {
		struct kt_view view = kt_secret_view(root);

		entry->ca_pem = kt_strndup(view.ptr, view.len);
	}
	return parse_ca(entry, crt, key, secret, err);
}

/* Where the CA is a Certificate of ours it is renewed as well, and the leaf follows as soon as that is in place. */
static void wait_for_own(struct kt_keeper *keeper, struct kt_flight *flight)
{
	const struct kt_resource *issuer = flight->issuer->spec;
	const char *ns = issuer->meta.ns[0] != '\0' ? issuer->meta.ns : "default";
	struct kt_store_resource resource;
	struct kt_store_cred cred;

	if (kt_store_cred_find_secret(keeper->store, ns, issuer->issuer.ca->secret_name, &cred, NULL) != KT_OK) {
		return;
	}
	if (cred.id != flight->id && cred.kind == KT_KIND_CERT &&
	    kt_store_resource_get(keeper->store, cred.id, &resource, NULL) == KT_OK) {
		if (!resource.gone) {
			(void)snprintf(flight->waiting_for, sizeof(flight->waiting_for), "%s/%s", ns, issuer->issuer.ca->secret_name);
		}
		kt_store_resource_finish(&resource);
	}
	kt_store_cred_finish(&cred);
}

static enum kt_effect obtain_ca(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	struct kt_issuer_entry *entry = flight->issuer;
	struct kt_buf der KT_AUTOBUF = {0};
	struct kt_spec_request request = {0};
	struct kt_issued info;
	kt_ms now = kt_keeper_now(keeper);
	kt_ms ca_end;
	enum kt_code code = entry->ca != NULL ? KT_OK : load_ca(keeper, flight, err);

	kt_buf_init(&der, KT_PKI_DER_MAX);
	if (code != KT_OK) {
		return KT_EFFECT_FAILED;
	}
	ca_end = kt_pki_issuer_not_after(entry->ca);
	if (ca_end <= now) {
		wait_for_own(keeper, flight);
		(void)kt_err_set(err, KT_E_LATER, "the certificate of %s has expired: renew the CA first", entry->ref);
		return KT_EFFECT_FAILED;
	}
	code = kt_spec_request_init(spec, &request, err);
	if (code == KT_OK) {
		const struct kt_ca_issuer *ca = entry->spec->issuer.ca;
		int path_len = kt_pki_issuer_path_len(entry->ca);

		request.request.not_before = now - backdate(spec->duration);
		/* cert-manager lets a leaf outlive its CA; nobody could verify it then. */
		request.request.not_after = now + spec->duration < ca_end ? now + spec->duration : ca_end;
		request.request.crl_urls = kt_spec_strs(&ca->crl_distribution_points);
		request.request.ocsp_urls = kt_spec_strs(&ca->ocsp_servers);
		request.request.issuer_urls = kt_spec_strs(&ca->issuing_certificate_urls);
		if (spec->is_ca && path_len > 0) {
			request.request.has_path_len = true;
			request.request.path_len = (unsigned)path_len - 1;
		}
		code = kt_pki_issue(entry->ca, &request.request, flight->key, &der, &info, err);
	}
	if (code == KT_OK) {
		took(flight, &info);
		code = take_leaf(flight, kt_buf_view(&der), entry->chain_pem, entry->ca_pem, err);
	}
	kt_spec_request_finish(&request);
	return code == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
}

const struct kt_issuer_ops kt_issuer_self_signed = {.name = "selfSigned", .obtain = obtain_self_signed};
const struct kt_issuer_ops kt_issuer_ca = {.name = "ca", .obtain = obtain_ca};
