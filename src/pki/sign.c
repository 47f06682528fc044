/* Signature algorithms of certificates and requests, and a signer that keeps its contexts. */
#include "pki/pki_internal.h"

#include <openssl/rsa.h>
#include <string.h>

/* AlgorithmIdentifiers as DER. */
static const uint8_t alg_rsa256[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                     0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00};
static const uint8_t alg_rsa384[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                     0xf7, 0x0d, 0x01, 0x01, 0x0c, 0x05, 0x00};
static const uint8_t alg_rsa512[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                     0xf7, 0x0d, 0x01, 0x01, 0x0d, 0x05, 0x00};
static const uint8_t alg_ec256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const uint8_t alg_ec384[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03};
static const uint8_t alg_ec512[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04};
static const uint8_t alg_ed[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};

static const struct alg {
	const char *name; /* as manifests write it */
	enum kt_key_type type;
	unsigned hash;
	const uint8_t *der;
	size_t len;
} algs[] = {
        [KT_SIG_SHA256_RSA] = {"SHA256WithRSA", KT_KEY_RSA, 256, alg_rsa256, sizeof(alg_rsa256)},
        [KT_SIG_SHA384_RSA] = {"SHA384WithRSA", KT_KEY_RSA, 384, alg_rsa384, sizeof(alg_rsa384)},
        [KT_SIG_SHA512_RSA] = {"SHA512WithRSA", KT_KEY_RSA, 512, alg_rsa512, sizeof(alg_rsa512)},
        [KT_SIG_ECDSA_SHA256] = {"ECDSAWithSHA256", KT_KEY_ECDSA, 256, alg_ec256, sizeof(alg_ec256)},
        [KT_SIG_ECDSA_SHA384] = {"ECDSAWithSHA384", KT_KEY_ECDSA, 384, alg_ec384, sizeof(alg_ec384)},
        [KT_SIG_ECDSA_SHA512] = {"ECDSAWithSHA512", KT_KEY_ECDSA, 512, alg_ec512, sizeof(alg_ec512)},
        [KT_SIG_ED25519] = {"PureEd25519", KT_KEY_ED25519, 0, alg_ed, sizeof(alg_ed)},
};

enum kt_code kt_pki_signature_parse(const char *name, enum kt_signature *ret, struct kt_err *err)
{
	if (name == NULL || name[0] == '\0') {
		*ret = KT_SIG_DEFAULT;
		return KT_OK;
	}
	for (int i = KT_SIG_SHA256_RSA; i <= KT_SIG_ED25519; i++) {
		if (strcmp(name, algs[i].name) == 0) {
			*ret = (enum kt_signature)i;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID,
	                  "unknown signature algorithm \"%.60s\": SHA256WithRSA, SHA384WithRSA, SHA512WithRSA, "
	                  "ECDSAWithSHA256, ECDSAWithSHA384, ECDSAWithSHA512 or PureEd25519",
	                  name);
}

enum kt_code kt_pki_signature_for(const struct kt_key *key, enum kt_signature wanted, enum kt_signature *ret,
                                  struct kt_err *err)
{
	if (wanted != KT_SIG_DEFAULT) {
		if (algs[wanted].type != key->type)
			return kt_err_set(err, KT_E_INVALID, "signatureAlgorithm %s doesn't fit an %s key",
			                  algs[wanted].name, kt_pki_key_type_name(key->type));
		*ret = wanted;
		return KT_OK;
	}
	switch (key->type) {
	case KT_KEY_RSA:
		*ret = KT_SIG_SHA256_RSA;
		break;
	case KT_KEY_ED25519:
		*ret = KT_SIG_ED25519;
		break;
	case KT_KEY_ECDSA:
		*ret = key->bits == 256 ? KT_SIG_ECDSA_SHA256 : key->bits == 384 ? KT_SIG_ECDSA_SHA384 : KT_SIG_ECDSA_SHA512;
		break;
	}
	return KT_OK;
}

void kt_pki_signature_alg(struct kt_buf *out, enum kt_signature sig)
{
	kt_buf_add(out, algs[sig].der, algs[sig].len);
}

EVP_MD *kt_pki_signature_md(enum kt_signature sig)
{
	switch (algs[sig].hash) {
	case 256:
		return kt_pki_algs.sha256;
	case 384:
		return kt_pki_algs.sha384;
	case 512:
		return kt_pki_algs.sha512;
	default:
		return NULL;
	}
}

enum kt_code kt_signer_init(struct kt_signer *signer, const struct kt_key *key, enum kt_signature sig,
                            struct kt_err *err)
{
	EVP_MD *md = kt_pki_signature_md(sig);
	bool ok;

	memset(signer, 0, sizeof(*signer));
	if (!key->private)
		return kt_err_set(err, KT_E_INVALID, "a public key can't sign");
	signer->sig = sig;
	signer->md_ctx = EVP_MD_CTX_new();
	ok = signer->md_ctx != NULL && EVP_PKEY_up_ref(key->pkey) == 1;
	if (ok)
		signer->pkey = key->pkey;
	if (ok && md != NULL) {
		signer->ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
		ok = signer->ctx != NULL && EVP_PKEY_sign_init(signer->ctx) == 1 &&
		     (key->type != KT_KEY_RSA || EVP_PKEY_CTX_set_rsa_padding(signer->ctx, RSA_PKCS1_PADDING) == 1) &&
		     EVP_PKEY_CTX_set_signature_md(signer->ctx, md) == 1;
	}
	if (ok)
		return KT_OK;
	kt_signer_finish(signer);
	return kt_pki_openssl_err(err, KT_E_CRYPTO, "preparing to sign");
}

void kt_signer_finish(struct kt_signer *signer)
{
	EVP_PKEY_CTX_free(signer->ctx);
	EVP_MD_CTX_free(signer->md_ctx);
	EVP_PKEY_free(signer->pkey);
	memset(signer, 0, sizeof(*signer));
}

enum kt_code kt_signer_raw(struct kt_signer *signer, const void *data, size_t len, uint8_t *sig, size_t *sig_len,
                           struct kt_err *err)
{
	EVP_MD *md = kt_pki_signature_md(signer->sig);
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned digest_len = 0;
	bool ok;

	if (md != NULL)
		ok = EVP_DigestInit_ex2(signer->md_ctx, md, NULL) == 1 &&
		     EVP_DigestUpdate(signer->md_ctx, data, len) == 1 &&
		     EVP_DigestFinal_ex(signer->md_ctx, digest, &digest_len) == 1 &&
		     EVP_PKEY_sign(signer->ctx, sig, sig_len, digest, digest_len) == 1;
	else
		ok = EVP_MD_CTX_reset(signer->md_ctx) == 1 &&
		     EVP_DigestSignInit_ex(signer->md_ctx, NULL, NULL, NULL, NULL, signer->pkey, NULL) == 1 &&
		     EVP_DigestSign(signer->md_ctx, sig, sig_len, data, len) == 1;
	return ok ? KT_OK : kt_pki_openssl_err(err, KT_E_CRYPTO, "signing");
}

enum kt_code kt_signer_sign(struct kt_signer *signer, const void *data, size_t len, struct kt_buf *out,
                            struct kt_err *err)
{
	uint8_t sig[1024 + 64];
	size_t sig_len = sizeof(sig), pos;
	enum kt_code code = kt_signer_raw(signer, data, len, sig, &sig_len, err);

	if (code != KT_OK)
		return code;
	pos = kt_der_open(out, DER_BITS);
	kt_buf_addc(out, 0);
	kt_buf_add(out, sig, sig_len);
	kt_der_close(out, pos);
	return kt_buf_check(out, "signature", err);
}

enum kt_code kt_pki_sign_sha256(const struct kt_key *key, struct kt_view data, struct kt_buf *out, struct kt_err *err)
{
	struct kt_signer signer;
	uint8_t sig[1024 + 64];
	size_t len = sizeof(sig);
	enum kt_code code;

	if (key->type != KT_KEY_RSA && key->type != KT_KEY_ECDSA)
		return kt_err_set(err, KT_E_UNSUPPORTED, "an %s key can't sign here: RSA or ECDSA is needed",
		                  kt_pki_key_type_name(key->type));
	code = kt_signer_init(&signer, key, key->type == KT_KEY_RSA ? KT_SIG_SHA256_RSA : KT_SIG_ECDSA_SHA256, err);
	if (code != KT_OK)
		return code;
	code = kt_signer_raw(&signer, data.ptr, data.len, sig, &len, err);
	kt_signer_finish(&signer);
	if (code == KT_OK) {
		kt_buf_add(out, sig, len);
		code = kt_buf_check(out, "signature", err);
	}
	return code;
}
