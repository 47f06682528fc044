/* Certificates for a key that we hold: read without having OpenSSL decode that key, which takes ten times what the rest takes. */
#include "pki/pki_internal.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <string.h>

/*
 * OpenSSL decodes the key of a certificate while it reads it, if it finds a decoder. So these are read in a library context
 * without any: all that its one provider has is SHA-1, which libcrypto takes fingerprints with that it compares
 * certificates by (nobody trusts them). The algorithm itself is the one of the usual context.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static OSSL_LIB_CTX *library;
static OSSL_PROVIDER *provider;

static void *sha1_new(void *provctx)
{
	(void)provctx;
	return EVP_MD_CTX_new();
}

static void sha1_free(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

static int sha1_init(void *ctx, const OSSL_PARAM params[])
{
	(void)params;
	return EVP_DigestInit_ex2(ctx, kt_pki_algs.sha1, NULL);
}

static int sha1_update(void *ctx, const unsigned char *in, size_t len)
{
	return EVP_DigestUpdate(ctx, in, len);
}

static int sha1_final(void *ctx, unsigned char *out, size_t *len, size_t room)
{
	unsigned done = 0;

	if (room < (size_t)EVP_MD_get_size(kt_pki_algs.sha1) || EVP_DigestFinal_ex(ctx, out, &done) != 1)
		return 0;
	*len = done;
	return 1;
}

static int sha1_params(OSSL_PARAM params[])
{
	return EVP_MD_get_params(kt_pki_algs.sha1, params);
}

static const OSSL_DISPATCH sha1_functions[] = {
        {OSSL_FUNC_DIGEST_NEWCTX, (void (*)(void))sha1_new},
        {OSSL_FUNC_DIGEST_FREECTX, (void (*)(void))sha1_free},
        {OSSL_FUNC_DIGEST_INIT, (void (*)(void))sha1_init},
        {OSSL_FUNC_DIGEST_UPDATE, (void (*)(void))sha1_update},
        {OSSL_FUNC_DIGEST_FINAL, (void (*)(void))sha1_final},
        {OSSL_FUNC_DIGEST_GET_PARAMS, (void (*)(void))sha1_params},
        {0, NULL},
};

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
	static const OSSL_ALGORITHM digests[] = {
	        {"SHA1:SHA-1:SSL3-SHA1", "provider=keyturn", sha1_functions, "SHA-1 of the usual context"},
	        {NULL, NULL, NULL, NULL},
	};

	(void)provctx;
	*no_cache = 0;
	return operation == OSSL_OP_DIGEST ? digests : NULL;
}

static int start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx)
{
	static const OSSL_DISPATCH functions[] = {
	        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
	        {0, NULL},
	};

	(void)handle;
	(void)in;
	*out = functions;
	*provctx = &library;
	return 1;
}

/* NULL where it can't be had: the certificate is read like any other then. */
static OSSL_LIB_CTX *bare_library(void)
{
	OSSL_LIB_CTX *found;

	pthread_mutex_lock(&lock);
	if (library == NULL && kt_pki_algs.sha1 != NULL && (library = OSSL_LIB_CTX_new()) != NULL) {
		if (OSSL_PROVIDER_add_builtin(library, "keyturn", start) == 1)
			provider = OSSL_PROVIDER_load(library, "keyturn");
		if (provider == NULL) {
			OSSL_LIB_CTX_free(library);
			library = NULL;
		}
	}
	found = library;
	pthread_mutex_unlock(&lock);
	return found;
}

void kt_pki_keyless_finish(void)
{
	if (provider != NULL)
		(void)OSSL_PROVIDER_unload(provider);
	OSSL_LIB_CTX_free(library);
	provider = NULL;
	library = NULL;
}

/* What the signature is over: the first element of the certificate. False for lengths that DER doesn't know. */
static bool find_signed(struct kt_view der, struct kt_view *ret)
{
	const unsigned char *p = (const unsigned char *)der.ptr, *from;
	long len;
	int tag, xclass;

	if ((ASN1_get_object(&p, &len, &tag, &xclass, (long)der.len) & 0x81) != 0 || tag != V_ASN1_SEQUENCE)
		return false;
	from = p;
	if ((ASN1_get_object(&p, &len, &tag, &xclass, len) & 0x81) != 0 || tag != V_ASN1_SEQUENCE)
		return false;
	*ret = (struct kt_view){(const char *)from, (size_t)(p - from) + (size_t)len};
	return true;
}

X509 *kt_pki_keyless_read(struct kt_view der, const struct kt_key *key)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	struct kt_view part;
	unsigned char *spki = NULL;
	OSSL_LIB_CTX *bare;
	X509 *x509;
	int len;
	bool ours;

	if (memmem(der.ptr, der.len, key->spki, key->spki_len) == NULL || !find_signed(der, &part) ||
	    (bare = bare_library()) == NULL || (x509 = X509_new_ex(bare, NULL)) == NULL)
		return NULL;
	/* x509 is NULL after a certificate that can't be read. */
	ours = d2i_X509(&x509, &p, (long)der.len) != NULL && p == (const unsigned char *)der.ptr + der.len;
	len = ours ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &spki) : 0;
	ours = len > 0 && (size_t)len == key->spki_len && memcmp(spki, key->spki, key->spki_len) == 0;
	OPENSSL_free(spki);
	if (ours)
		return x509;
	X509_free(x509);
	return NULL;
}

bool kt_pki_keyless_verify(const struct kt_cert *cert, EVP_PKEY *issuer)
{
	KT_AUTOSSL(ASN1_TYPE) part = NULL;
	const ASN1_BIT_STRING *signature;
	const unsigned char *p;
	const X509_ALGOR *alg;
	struct kt_view text;

	/* As X509_verify, which would look for its algorithms where there are none. */
	X509_get0_signature(&signature, &alg, cert->x509);
	if (X509_ALGOR_cmp(alg, X509_get0_tbs_sigalg(cert->x509)) != 0 || !find_signed(cert->der, &text))
		return false;
	p = (const unsigned char *)text.ptr;
	part = d2i_ASN1_TYPE(NULL, &p, (long)text.len); /* the bytes as they are */
	return part != NULL &&
	       ASN1_item_verify_ex(ASN1_ITEM_rptr(ASN1_ANY), alg, signature, part, NULL, issuer, NULL, NULL) == 1;
}
