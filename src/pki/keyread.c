/* Reading keys: PKCS#1, SEC1, PKCS#8 and SubjectPublicKeyInfo, as PEM or DER, with a check that the halves belong together. */
#include "pki/pki_internal.h"

#include <openssl/core_names.h>
#include <string.h>

#define KEY_TEXT_MAX (64u * 1024u)

enum kt_code kt_pki_key_from_der(struct kt_view der, struct kt_key **ret, struct kt_err *err)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	EVP_PKEY *pkey;

	if (der.len == 0 || der.len > KEY_TEXT_MAX)
		return kt_err_set(err, KT_E_CRYPTO, "a private key of %zu bytes", der.len);
	pkey = d2i_AutoPrivateKey(NULL, &p, (long)der.len);
	if (pkey == NULL)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "not a private key in PKCS#1, SEC1 or PKCS#8");
	if (p != (const unsigned char *)der.ptr + der.len) {
		EVP_PKEY_free(pkey);
		return kt_err_set(err, KT_E_CRYPTO, "bytes follow the private key");
	}
	ERR_clear_error(); /* the decoders that did not match leave their complaints */
	return kt_pki_key_wrap(pkey, true, ret, err);
}

/* Signs and verifies once: much cheaper than proving the primes, and finds a public half that isn't the private's. */
static bool halves_match(EVP_PKEY *pkey)
{
	static const unsigned char data[32] = "keyturn checks the two halves";
	KT_AUTOSSL(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
	EVP_MD *md = EVP_PKEY_is_a(pkey, "ED25519") ? NULL : kt_pki_algs.sha256;
	unsigned char sig[1024 + 64];
	size_t len = sizeof(sig);
	bool same;

	same = ctx != NULL &&
	       EVP_DigestSignInit_ex(ctx, NULL, md != NULL ? EVP_MD_get0_name(md) : NULL, NULL, NULL, pkey, NULL) == 1 &&
	       EVP_DigestSign(ctx, sig, &len, data, sizeof(data)) == 1 && EVP_MD_CTX_reset(ctx) == 1 &&
	       EVP_DigestVerifyInit_ex(ctx, NULL, md != NULL ? EVP_MD_get0_name(md) : NULL, NULL, NULL, pkey, NULL) == 1 &&
	       EVP_DigestVerify(ctx, sig, len, data, sizeof(data)) == 1;
	ERR_clear_error();
	return same;
}

static enum kt_code key_from_pem(struct kt_view pem, struct kt_key **ret, struct kt_err *err)
{
	static const char *const labels[] = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"};
	struct kt_buf KT_AUTOBUF der;
	struct kt_key *key = NULL;
	struct kt_pem block;
	enum kt_code code;

	if (pem.len > KT_PKI_CHAIN_BYTES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "%zu bytes are too many for a private key", pem.len);
	kt_buf_init(&der, KEY_TEXT_MAX);
	for (;;) {
		bool wanted = false;

		code = kt_pem_next(&pem, false, &block, err);
		if (code == KT_E_NOTFOUND)
			return kt_err_set(err, KT_E_CRYPTO, "no private key in this PEM text");
		if (code != KT_OK)
			return code;
		if (kt_view_eq_str(block.label, "ENCRYPTED PRIVATE KEY"))
			return kt_err_set(err, KT_E_UNSUPPORTED, "the private key is encrypted: store it without passphrase");
		for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++)
			wanted = wanted || kt_view_eq_str(block.label, labels[i]);
		if (wanted)
			break;
	}
	code = kt_pem_decode(&block, &der, err);
	if (code == KT_OK)
		code = kt_pki_key_from_der(kt_buf_view(&der), &key, err);
	if (code == KT_OK && !halves_match(key->pkey)) {
		kt_pki_key_destroy(key);
		code = kt_err_set(err, KT_E_CRYPTO, "the private key is inconsistent: its halves don't belong together");
	}
	if (code == KT_OK)
		*ret = key;
	return code;
}

enum kt_code kt_pki_key_from_pem(struct kt_view pem, struct kt_key **ret, struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();

	return kt_pki_settle(key_from_pem(pem, ret, err), failures, err);
}

/* RFC 8017 asks for an odd e; below 3 nothing is encrypted, and huge ones only cost time. */
static bool exponent_fits(const EVP_PKEY *pkey)
{
	KT_AUTOSSL(BIGNUM) e = NULL;

	return EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_odd(e) && !BN_is_one(e) &&
	       BN_num_bits(e) <= 32;
}

static bool point_fits(EVP_PKEY *pkey)
{
	KT_AUTOSSL(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);

	return ctx != NULL && EVP_PKEY_public_check(ctx) == 1;
}

static enum kt_code public_from_der(struct kt_view der, struct kt_key **ret, struct kt_err *err)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &p, (long)der.len);

	if (pkey == NULL)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "not a public key");
	if (p != (const unsigned char *)der.ptr + der.len) {
		EVP_PKEY_free(pkey);
		return kt_err_set(err, KT_E_CRYPTO, "bytes follow the public key");
	}
	ERR_clear_error();
	if (EVP_PKEY_is_a(pkey, "RSA") && !exponent_fits(pkey)) {
		EVP_PKEY_free(pkey);
		return kt_err_set(err, KT_E_CRYPTO, "an RSA exponent that is even, below 3 or above 2^32");
	}
	if (EVP_PKEY_is_a(pkey, "EC") && !point_fits(pkey)) {
		EVP_PKEY_free(pkey);
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "a point that is not on its curve");
	}
	return kt_pki_key_wrap(pkey, false, ret, err);
}

enum kt_code kt_pki_key_from_public(struct kt_view data, struct kt_key **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	struct kt_pem block;
	enum kt_code code;

	if (data.len == 0 || data.len > KEY_TEXT_MAX)
		return kt_err_set(err, KT_E_CRYPTO, "a public key of %zu bytes", data.len);
	kt_buf_init(&der, KEY_TEXT_MAX);
	if (data.ptr[0] == DER_SEQUENCE)
		return public_from_der(data, ret, err);
	code = kt_pem_next(&data, false, &block, err);
	if (code != KT_OK)
		return code == KT_E_NOTFOUND ? kt_err_set(err, KT_E_CRYPTO, "not a public key") : code;
	if (!kt_view_eq_str(block.label, "PUBLIC KEY"))
		return kt_err_set(err, KT_E_CRYPTO, "this PEM block is no PUBLIC KEY");
	code = kt_pem_decode(&block, &der, err);
	return code == KT_OK ? public_from_der(kt_buf_view(&der), ret, err) : code;
}
