/* Chains of certificates and bundles of trusted ones, from PEM that strangers send. */
#include "pki/pki_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* --- issuers ------------------------------------------------------------------------------------------------------------ */

/*
 * The same few issuers stand above all leaves of a CA, and to parse one costs as much as to parse the leaf: those seen
 * last are remembered, by their bytes.
 */
#define ISSUERS_MAX 4u

static pthread_mutex_t issuers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kt_cert *issuers[ISSUERS_MAX];
static unsigned issuers_next;

static struct kt_cert *known_issuer(struct kt_view der)
{
	struct kt_cert *found = NULL;

	pthread_mutex_lock(&issuers_lock);
	for (unsigned i = 0; i < ISSUERS_MAX && found == NULL; i++)
		if (issuers[i] != NULL && kt_view_eq(issuers[i]->der, der))
			found = issuers[i];
	if (found != NULL)
		atomic_fetch_add(&found->more, 1);
	pthread_mutex_unlock(&issuers_lock);
	return found;
}

static void remember_issuer(struct kt_cert *cert)
{
	pthread_mutex_lock(&issuers_lock);
	kt_pki_cert_destroy(issuers[issuers_next]);
	atomic_fetch_add(&cert->more, 1);
	issuers[issuers_next] = cert;
	issuers_next = (issuers_next + 1) % ISSUERS_MAX;
	pthread_mutex_unlock(&issuers_lock);
}

void kt_pki_chain_forget(void)
{
	pthread_mutex_lock(&issuers_lock);
	for (unsigned i = 0; i < ISSUERS_MAX; i++) {
		kt_pki_cert_destroy(issuers[i]);
		issuers[i] = NULL;
	}
	pthread_mutex_unlock(&issuers_lock);
}

/* --- chains --------------------------------------------------------------------------------------------------------------- */

static enum kt_code append(struct kt_chain *chain, struct kt_view der, const struct kt_key *key, struct kt_err *err)
{
	struct kt_cert *cert;
	enum kt_code code = KT_OK;

	if (chain->count == KT_PKI_CHAIN_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a chain of more than %u certificates", KT_PKI_CHAIN_MAX);
	cert = chain->count > 0 ? known_issuer(der) : NULL;
	if (cert == NULL) {
		code = kt_pki_cert_for_key(der, key, &cert, err);
		if (code == KT_OK && chain->count > 0 && cert->own == NULL)
			remember_issuer(cert);
	}
	if (code == KT_OK)
		chain->at[chain->count++] = cert;
	return code;
}

/* Why a block other than a certificate is refused: a private key gets a sentence of its own. */
static enum kt_code refuse_label(struct kt_view label, struct kt_err *err)
{
	if (label.len >= 11 && memcmp(label.ptr + label.len - 11, "PRIVATE KEY", 11) == 0)
		return kt_err_set(err, KT_E_PROTO, "a private key stands among the certificates");
	return kt_err_set(err, KT_E_PROTO, "a PEM block \"%.*s\" stands among the certificates",
	                  label.len > 40 ? 40 : (int)label.len, label.ptr);
}

enum kt_code kt_pki_chain_parse_for(struct kt_view pem, const struct kt_key *key, struct kt_chain **ret, struct kt_err *err)
{
	KT_AUTOCHAIN struct kt_chain *chain = NULL;
	struct kt_buf KT_AUTOBUF der;
	struct kt_pem block;
	enum kt_code code;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	if (pem.len > KT_PKI_CHAIN_BYTES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a chain of %zu bytes", pem.len);
	chain = kt_calloc(1, sizeof(*chain));
	if (chain == NULL)
		return kt_err_set(err, KT_E_NOMEM, "chain: out of memory");
	while ((code = kt_pem_next(&pem, true, &block, err)) == KT_OK) {
		if (!kt_view_eq_str(block.label, "CERTIFICATE"))
			return refuse_label(block.label, err);
		kt_buf_reset(&der);
		code = kt_pem_decode(&block, &der, err);
		if (code == KT_OK)
			code = append(chain, kt_buf_view(&der), key, err);
		if (code != KT_OK)
			return code;
	}
	if (code != KT_E_NOTFOUND)
		return code;
	if (chain->count == 0)
		return kt_err_set(err, KT_E_PROTO, "there is no certificate in it");
	kt_err_clear(err);
	*ret = chain;
	chain = NULL;
	return KT_OK;
}

enum kt_code kt_pki_chain_parse(struct kt_view pem, struct kt_chain **ret, struct kt_err *err)
{
	return kt_pki_chain_parse_for(pem, NULL, ret, err);
}

enum kt_code kt_pki_chain_from_der(struct kt_view der, struct kt_chain **ret, struct kt_err *err)
{
	KT_AUTOCHAIN struct kt_chain *chain = NULL;
	enum kt_code code;

	if (der.len == 0 || der.len > KT_PKI_CHAIN_BYTES_MAX)
		return kt_err_set(err, KT_E_PROTO, "a chain of %zu bytes", der.len);
	chain = kt_calloc(1, sizeof(*chain));
	if (chain == NULL)
		return kt_err_set(err, KT_E_NOMEM, "chain: out of memory");
	while (der.len > 0) {
		const unsigned char *p = (const unsigned char *)der.ptr;
		long len;
		int tag, xclass;
		size_t total;

		if ((ASN1_get_object(&p, &len, &tag, &xclass, (long)der.len) & 0x80) != 0 || tag != V_ASN1_SEQUENCE)
			return kt_pki_openssl_err(err, KT_E_PROTO, "not a certificate");
		total = (size_t)(p - (const unsigned char *)der.ptr) + (size_t)len;
		if (total > der.len)
			return kt_err_set(err, KT_E_PROTO, "a certificate is cut short");
		code = append(chain, (struct kt_view){der.ptr, total}, NULL, err);
		if (code != KT_OK)
			return code;
		der.ptr += total;
		der.len -= total;
	}
	*ret = chain;
	chain = NULL;
	return KT_OK;
}

void kt_pki_chain_destroy(struct kt_chain *chain)
{
	if (chain == NULL)
		return;
	for (size_t i = 0; i < chain->count; i++)
		kt_pki_cert_destroy(chain->at[i]);
	kt_free(chain);
}

size_t kt_pki_chain_count(const struct kt_chain *chain)
{
	return chain->count;
}

const struct kt_cert *kt_pki_chain_at(const struct kt_chain *chain, size_t index)
{
	return index < chain->count ? chain->at[index] : NULL;
}

enum kt_code kt_pki_chain_split(const struct kt_chain *chain, struct kt_buf *chain_pem, struct kt_buf *root_pem,
                                struct kt_err *err)
{
	const struct kt_cert *last = chain->at[chain->count - 1];
	enum kt_code code = KT_OK;

	for (size_t i = 0; chain_pem != NULL && code == KT_OK && i < chain->count; i++)
		if (i == 0 || !kt_pki_cert_self_issued(chain->at[i]))
			code = kt_pki_cert_pem(chain->at[i], chain_pem, err);
	if (root_pem != NULL && code == KT_OK && (chain->count > 1 || kt_pki_cert_self_issued(last)))
		code = kt_pki_cert_pem(last, root_pem, err);
	return code;
}

enum kt_code kt_pki_chain_pem(const struct kt_chain *chain, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	for (size_t i = 0; code == KT_OK && i < chain->count; i++)
		code = kt_pki_cert_pem(chain->at[i], out, err);
	return code;
}

/* --- trust ------------------------------------------------------------------------------------------------------------ */

static enum kt_code add_trusted(struct kt_trust *trust, struct kt_view der, struct kt_err *err)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	KT_AUTOSSL(X509) x509 = d2i_X509(NULL, &p, (long)der.len);

	if (x509 == NULL)
		return kt_pki_openssl_err(err, KT_E_INVALID, "trust bundle: certificate %zu can't be read", trust->count + 1);
	if (X509_STORE_add_cert(trust->store, x509) != 1)
		return kt_pki_openssl_err(err, KT_E_NOMEM, "trust bundle");
	trust->count++;
	return KT_OK;
}

static enum kt_code trust_new(struct kt_trust **ret, struct kt_err *err)
{
	struct kt_trust *trust = kt_calloc(1, sizeof(*trust));

	if (trust != NULL)
		trust->store = X509_STORE_new();
	if (trust == NULL || trust->store == NULL) {
		kt_pki_trust_destroy(trust);
		return kt_err_set(err, KT_E_NOMEM, "trust bundle: out of memory");
	}
	*ret = trust;
	return KT_OK;
}

static enum kt_code add_bundle(struct kt_trust *trust, struct kt_view pem, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	struct kt_pem block;
	enum kt_code code;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	while ((code = kt_pem_next(&pem, false, &block, err)) == KT_OK) {
		if (!kt_view_eq_str(block.label, "CERTIFICATE") && !kt_view_eq_str(block.label, "TRUSTED CERTIFICATE"))
			continue;
		if (trust->count == KT_PKI_TRUST_MAX)
			return kt_err_set(err, KT_E_LIMIT, "trust bundle: more than %u certificates", KT_PKI_TRUST_MAX);
		kt_buf_reset(&der);
		code = kt_pem_decode(&block, &der, err);
		if (code == KT_OK)
			code = add_trusted(trust, kt_buf_view(&der), err);
		if (code != KT_OK)
			return code;
	}
	if (code != KT_E_NOTFOUND)
		return code;
	if (trust->count == 0)
		return kt_err_set(err, KT_E_INVALID, "trust bundle: there is no certificate in it");
	kt_err_clear(err);
	return KT_OK;
}

enum kt_code kt_pki_trust_create(struct kt_view pem, struct kt_trust **ret, struct kt_err *err)
{
	struct kt_trust *trust = NULL;
	enum kt_code code;

	if (pem.len > KT_PKI_TRUST_BYTES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a trust bundle of %zu bytes", pem.len);
	code = trust_new(&trust, err);
	if (code == KT_OK)
		code = add_bundle(trust, pem, err);
	if (code != KT_OK) {
		kt_pki_trust_destroy(trust);
		return code;
	}
	*ret = trust;
	return KT_OK;
}

enum kt_code kt_pki_trust_create_system(struct kt_trust **ret, struct kt_err *err)
{
	struct kt_trust *trust = NULL;
	enum kt_code code = trust_new(&trust, err);

	if (code != KT_OK)
		return code;
	if (X509_STORE_set_default_paths(trust->store) != 1) {
		kt_pki_trust_destroy(trust);
		return kt_pki_openssl_err(err, KT_E_SYS, "the system's trust store can't be opened");
	}
	*ret = trust;
	return KT_OK;
}

void kt_pki_trust_destroy(struct kt_trust *trust)
{
	if (trust == NULL)
		return;
	X509_STORE_free(trust->store);
	kt_free(trust);
}

size_t kt_pki_trust_count(const struct kt_trust *trust)
{
	return trust->count;
}

X509_STORE *kt_pki_trust_store(const struct kt_trust *trust)
{
	return trust->store;
}
