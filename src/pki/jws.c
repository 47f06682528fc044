/* JWS: algorithms, raw signatures as RFC 7518 wants them, and the flattened form that ACME speaks. */
#include "pki/jose_internal.h"

#include <openssl/rsa.h>
#include <string.h>

#define SIG_MAX (1024 + 64)
#define MAC_KEY_MIN 16u

static const struct alg {
	const char *name;
	enum kt_key_type type;
	unsigned bits; /* of the curve; 0: any */
	bool pss;
} algs[KT_JOSE_ALG_COUNT] = {
        [KT_JOSE_NONE] = {"none", KT_KEY_RSA, 0, false},
        [KT_JOSE_ES256] = {"ES256", KT_KEY_ECDSA, 256, false},
        [KT_JOSE_ES384] = {"ES384", KT_KEY_ECDSA, 384, false},
        [KT_JOSE_ES512] = {"ES512", KT_KEY_ECDSA, 521, false},
        [KT_JOSE_RS256] = {"RS256", KT_KEY_RSA, 0, false},
        [KT_JOSE_PS256] = {"PS256", KT_KEY_RSA, 0, true},
        [KT_JOSE_EDDSA] = {"EdDSA", KT_KEY_ED25519, 0, false},
};

const char *kt_jose_alg_name(enum kt_jose_alg alg)
{
	return (unsigned)alg < KT_JOSE_ALG_COUNT ? algs[alg].name : "unknown";
}

enum kt_jose_alg kt_jose_alg_parse(const char *name)
{
	for (int i = KT_JOSE_NONE + 1; name != NULL && i < KT_JOSE_ALG_COUNT; i++)
		if (strcmp(name, algs[i].name) == 0)
			return (enum kt_jose_alg)i;
	return KT_JOSE_NONE;
}

bool kt_jose_alg_fits(enum kt_jose_alg alg, const struct kt_key *key)
{
	return alg > KT_JOSE_NONE && alg < KT_JOSE_ALG_COUNT && algs[alg].type == key->type &&
	       (algs[alg].bits == 0 || algs[alg].bits == key->bits);
}

enum kt_jose_alg kt_jose_alg_default(const struct kt_key *key)
{
	for (int i = KT_JOSE_NONE + 1; i < KT_JOSE_ALG_COUNT; i++)
		if (kt_jose_alg_fits((enum kt_jose_alg)i, key))
			return (enum kt_jose_alg)i;
	return KT_JOSE_NONE;
}

static const char *digest_name(enum kt_jose_alg alg)
{
	switch (alg) {
	case KT_JOSE_ES384:
		return "SHA2-384";
	case KT_JOSE_ES512:
		return "SHA2-512";
	case KT_JOSE_EDDSA:
		return NULL;
	default:
		return "SHA2-256";
	}
}

static bool set_padding(EVP_PKEY_CTX *ctx, enum kt_jose_alg alg)
{
	if (!algs[alg].pss)
		return true;
	return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
	       EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

/* DER ECDSA-Sig-Value to r||s, RFC 7518 section 3.4. */
static bool ecdsa_to_raw(const uint8_t *der, size_t len, size_t width, uint8_t *raw)
{
	const unsigned char *p = der;
	KT_AUTOSSL(ECDSA_SIG) sig = d2i_ECDSA_SIG(NULL, &p, (long)len);

	return sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, (int)width) == (int)width &&
	       BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + width, (int)width) == (int)width;
}

static size_t ecdsa_from_raw(const uint8_t *raw, size_t width, uint8_t *der, size_t max)
{
	struct kt_buf KT_AUTOBUF out;
	size_t seq, len = 0;

	kt_buf_init(&out, max);
	seq = kt_der_open(&out, DER_SEQUENCE);
	kt_der_uint(&out, raw, width);
	kt_der_uint(&out, raw + width, width);
	kt_der_close(&out, seq);
	if (out.failed == KT_OK) {
		len = out.len;
		memcpy(der, out.ptr, len);
	}
	return len;
}

/*
 * ECDSA by contexts that are kept with the key: to set them up costs nearly as much as the signature, and an account's key
 * signs every request.
 */
static enum kt_code sign_ecdsa(const struct kt_key *key, struct kt_view data, struct kt_buf *out, struct kt_err *err)
{
	uint8_t sig[SIG_MAX], raw[2 * 66];
	size_t len = sizeof(sig), width = (key->bits + 7) / 8;
	enum kt_signature scheme = KT_SIG_DEFAULT;
	enum kt_code code = kt_pki_signature_for(key, KT_SIG_DEFAULT, &scheme, err);

	if (code == KT_OK && key->jose->md_ctx == NULL)
		code = kt_signer_init(key->jose, key, scheme, err);
	if (code == KT_OK)
		code = kt_signer_raw(key->jose, data.ptr, data.len, sig, &len, err);
	if (code == KT_OK && !ecdsa_to_raw(sig, len, width, raw))
		code = kt_pki_openssl_err(err, KT_E_CRYPTO, "signing");
	if (code == KT_OK)
		kt_base64url_encode(out, raw, 2 * width);
	return code;
}

enum kt_code kt_jose_sign(const struct kt_key *key, enum kt_jose_alg alg, struct kt_view data, struct kt_buf *out,
                          struct kt_err *err)
{
	KT_AUTOSSL(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
	uint8_t sig[SIG_MAX];
	size_t len = sizeof(sig);
	EVP_PKEY_CTX *pctx = NULL;
	enum kt_code code;

	alg = alg != KT_JOSE_NONE ? alg : kt_jose_alg_default(key);
	if (!key->private || !kt_jose_alg_fits(alg, key))
		return kt_err_set(err, KT_E_INVALID, "this key can't sign with %s", kt_jose_alg_name(alg));
	if (key->type == KT_KEY_ECDSA) {
		code = sign_ecdsa(key, data, out, err);
		return code == KT_OK ? kt_buf_check(out, "JWS", err) : code;
	}
	if (ctx == NULL ||
	    EVP_DigestSignInit_ex(ctx, &pctx, digest_name(alg), NULL, NULL, key->pkey, NULL) != 1 ||
	    !set_padding(pctx, alg) ||
	    EVP_DigestSign(ctx, sig, &len, (const unsigned char *)data.ptr, data.len) != 1)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "signing with %s", kt_jose_alg_name(alg));
	kt_base64url_encode(out, sig, len);
	return kt_buf_check(out, "JWS", err);
}

enum kt_code kt_jose_verify(const struct kt_key *key, enum kt_jose_alg alg, struct kt_view data,
                            struct kt_view signature, struct kt_err *err)
{
	KT_AUTOSSL(EVP_MD_CTX) ctx = EVP_MD_CTX_new();
	struct kt_buf KT_AUTOBUF raw;
	uint8_t der[2 * 66 + 16];
	const uint8_t *sig;
	size_t len, width = (key->bits + 7) / 8;
	EVP_PKEY_CTX *pctx = NULL;
	bool good;

	kt_buf_init(&raw, SIG_MAX);
	if (!kt_jose_alg_fits(alg, key))
		return kt_err_set(err, KT_E_CRYPTO, "algorithm %s doesn't fit an %s key", kt_jose_alg_name(alg),
		                  kt_pki_key_type_name(key->type));
	if (kt_base64url_decode(signature, &raw, NULL) != KT_OK)
		return kt_err_set(err, KT_E_PROTO, "the signature is no base64url");
	sig = (const uint8_t *)raw.ptr;
	len = raw.len;
	if (key->type == KT_KEY_ECDSA) {
		if (len != 2 * width)
			return kt_err_set(err, KT_E_CRYPTO, "the signature has the wrong length");
		len = ecdsa_from_raw(sig, width, der, sizeof(der));
		sig = der;
	}
	good = ctx != NULL && len > 0 &&
	       EVP_DigestVerifyInit_ex(ctx, &pctx, digest_name(alg), NULL, NULL, key->pkey, NULL) == 1 &&
	       set_padding(pctx, alg) &&
	       EVP_DigestVerify(ctx, sig, len, (const unsigned char *)data.ptr, data.len) == 1;
	ERR_clear_error();
	return good ? KT_OK : kt_err_set(err, KT_E_CRYPTO, "the signature is wrong");
}

/* --- ACME --------------------------------------------------------------------------------------------------------------- */

/* "protected.payload" into input; returns the length of the first part. */
static size_t put_input(const struct kt_buf *protected, struct kt_view payload, struct kt_buf *input)
{
	size_t head;

	kt_base64url_encode(input, protected->ptr, protected->len);
	head = input->len;
	kt_buf_addc(input, '.');
	kt_base64url_encode(input, payload.ptr, payload.len);
	return head;
}

static enum kt_code put_flattened(const struct kt_buf *input, size_t head, const struct kt_buf *signature,
                                  struct kt_buf *out, struct kt_err *err)
{
	kt_buf_adds(out, "{\"protected\":\"");
	kt_buf_add(out, input->ptr, head);
	kt_buf_adds(out, "\",\"payload\":\"");
	kt_buf_add(out, input->ptr + head + 1, input->len - head - 1);
	kt_buf_adds(out, "\",\"signature\":\"");
	kt_buf_addv(out, kt_buf_view(signature));
	kt_buf_adds(out, "\"}");
	return kt_buf_check(out, "JWS", err);
}

enum kt_code kt_jose_jws_acme(const struct kt_key *key, const struct kt_jws_header *header, struct kt_view payload,
                              struct kt_buf *out, struct kt_err *err)
{
	enum kt_jose_alg alg = header->alg != KT_JOSE_NONE ? header->alg : kt_jose_alg_default(key);
	struct kt_buf KT_AUTOBUF protected;
	struct kt_buf KT_AUTOBUF input;
	struct kt_buf KT_AUTOBUF signature;
	enum kt_code code = KT_OK;
	size_t head;

	kt_buf_init(&protected, 16384);
	kt_buf_init(&input, 2 * KT_JOSE_PAYLOAD_MAX);
	kt_buf_init(&signature, 2 * SIG_MAX);
	if (payload.len > KT_JOSE_PAYLOAD_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a JWS payload of %zu bytes", payload.len);
	kt_buf_addf(&protected, "{\"alg\":\"%s\"", kt_jose_alg_name(alg));
	kt_buf_add_json_member(&protected, "kid", header->kid);
	if (header->kid == NULL) {
		kt_buf_adds(&protected, ",\"jwk\":");
		code = kt_jose_jwk(key, &protected, err);
	}
	kt_buf_add_json_member(&protected, "nonce", header->nonce);
	kt_buf_add_json_member(&protected, "url", header->url);
	kt_buf_addc(&protected, '}');
	if (code == KT_OK)
		code = kt_buf_check(&protected, "JWS header", err);
	if (code != KT_OK)
		return code;
	head = put_input(&protected, payload, &input);
	code = kt_buf_check(&input, "JWS", err);
	if (code == KT_OK)
		code = kt_jose_sign(key, alg, kt_buf_view(&input), &signature, err);
	return code == KT_OK ? put_flattened(&input, head, &signature, out, err) : code;
}

static const struct {
	const char *name, *digest;
} macs[] = {{"HS256", "SHA2-256"}, {"HS384", "SHA2-384"}, {"HS512", "SHA2-512"}};

const char *kt_jose_mac_name(enum kt_jose_mac mac)
{
	return (size_t)mac < sizeof(macs) / sizeof(macs[0]) ? macs[mac].name : NULL;
}

enum kt_code kt_jose_mac(enum kt_jose_mac mac, struct kt_view mac_key, struct kt_view data, struct kt_buf *out,
                         struct kt_err *err)
{
	unsigned char tag[EVP_MAX_MD_SIZE];
	size_t len = 0;

	if (kt_jose_mac_name(mac) == NULL || mac_key.len < MAC_KEY_MIN)
		return kt_err_set(err, KT_E_INVALID, "a MAC key needs %u bytes at least", MAC_KEY_MIN);
	if (EVP_Q_mac(NULL, "HMAC", NULL, macs[mac].digest, NULL, mac_key.ptr, mac_key.len,
	              (const unsigned char *)data.ptr, data.len, tag, sizeof(tag), &len) == NULL)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "a MAC with %s", macs[mac].name);
	kt_base64url_encode(out, tag, len);
	return KT_OK;
}

enum kt_code kt_jose_jws_mac(enum kt_jose_mac mac, struct kt_view mac_key, const char *kid, const char *url,
                             struct kt_view payload, struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF protected;
	struct kt_buf KT_AUTOBUF input;
	struct kt_buf KT_AUTOBUF signature;
	const char *name = kt_jose_mac_name(mac);
	size_t head;
	enum kt_code code;

	kt_buf_init(&protected, 16384);
	kt_buf_init(&input, 2 * KT_JOSE_PAYLOAD_MAX);
	kt_buf_init(&signature, 2 * EVP_MAX_MD_SIZE);
	if (name == NULL || mac_key.len < MAC_KEY_MIN)
		return kt_err_set(err, KT_E_INVALID, "a MAC key needs %u bytes at least", MAC_KEY_MIN);
	kt_buf_addf(&protected, "{\"alg\":\"%s\"", name);
	kt_buf_add_json_member(&protected, "kid", kid);
	kt_buf_add_json_member(&protected, "url", url);
	kt_buf_addc(&protected, '}');
	code = kt_buf_check(&protected, "JWS header", err);
	if (code != KT_OK)
		return code;
	head = put_input(&protected, payload, &input);
	code = kt_buf_check(&input, "JWS", err);
	if (code == KT_OK)
		code = kt_jose_mac(mac, mac_key, kt_buf_view(&input), &signature, err);
	return code == KT_OK ? put_flattened(&input, head, &signature, out, err) : code;
}

enum kt_code kt_jose_key_authorization(const struct kt_key *account, const char *token, struct kt_buf *out,
                                       struct kt_err *err)
{
	size_t len = strlen(token);
	char thumbprint[KT_JOSE_THUMBPRINT];
	enum kt_code code;

	if (len == 0 || len > 256 ||
	    strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != len)
		return kt_err_set(err, KT_E_PROTO, "the challenge's token is no base64url text of at most 256 characters");
	code = kt_jose_thumbprint(account, thumbprint, err);
	if (code != KT_OK)
		return code;
	kt_buf_addf(out, "%s.%s", token, thumbprint);
	return kt_buf_check(out, "key authorization", err);
}
