/* Key pairs: generation, reading, the public half as SubjectPublicKeyInfo built without OpenSSL's slow encoders. */
#include "pki/jose_internal.h"

#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <string.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192
#define SPKI_MAX 2048

static const uint8_t alg_p256[] = {0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                                   0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t alg_p384[] = {0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                   0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};
static const uint8_t alg_p521[] = {0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                   0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23};
static const uint8_t alg_ed25519[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};
static const uint8_t alg_rsa[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                  0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};

/* One kind of key: its AlgorithmIdentifier, and for curves OpenSSL's name and where the curve's OID stands in it. */
static const struct kind {
	enum kt_key_type type;
	unsigned bits; /* 0: any */
	const char *group;
	const uint8_t *alg;
	size_t alg_len, oid_at;
} kinds[] = {
        {KT_KEY_ECDSA, 256, "prime256v1", alg_p256, sizeof(alg_p256), 11},
        {KT_KEY_ECDSA, 384, "secp384r1", alg_p384, sizeof(alg_p384), 11},
        {KT_KEY_ECDSA, 521, "secp521r1", alg_p521, sizeof(alg_p521), 11},
        {KT_KEY_ED25519, 0, NULL, alg_ed25519, sizeof(alg_ed25519), 0},
        {KT_KEY_RSA, 0, NULL, alg_rsa, sizeof(alg_rsa), 0},
};

static const char *const type_names[] = {
        [KT_KEY_RSA] = "RSA", [KT_KEY_ECDSA] = "ECDSA", [KT_KEY_ED25519] = "Ed25519"};

static const struct kind *kind_of_type(enum kt_key_type type, unsigned bits)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].type == type && (kinds[i].bits == 0 || kinds[i].bits == bits))
			return &kinds[i];
	return NULL;
}

static const struct kind *kind_of(const struct kt_key *key)
{
	return kind_of_type(key->type, key->bits);
}

enum kt_code kt_pki_key_type_parse(const char *name, enum kt_key_type *ret, struct kt_err *err)
{
	for (int i = KT_KEY_RSA; name != NULL && i <= KT_KEY_ED25519; i++) {
		if (strcmp(name, type_names[i]) == 0) {
			*ret = (enum kt_key_type)i;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID, "unknown key algorithm \"%s\": RSA, ECDSA or Ed25519", name ? name : "");
}

const char *kt_pki_key_type_name(enum kt_key_type type)
{
	return (unsigned)type <= KT_KEY_ED25519 ? type_names[type] : "unknown";
}

static void put_bn(struct kt_buf *out, const EVP_PKEY *pkey, const char *param)
{
	KT_AUTOSSL(BIGNUM) bn = NULL;
	uint8_t bytes[RSA_BITS_MAX / 8 + 1];
	int len;

	if (EVP_PKEY_get_bn_param(pkey, param, &bn) != 1 || BN_num_bytes(bn) > (int)sizeof(bytes)) {
		out->failed = KT_E_CRYPTO;
		return;
	}
	len = BN_bn2bin(bn, bytes);
	kt_der_uint(out, bytes, (size_t)len);
}

/* The subjectPublicKey of the key. */
static void put_public_bits(struct kt_buf *out, const struct kt_key *key)
{
	uint8_t point[160];
	size_t len = sizeof(point), seq;

	switch (key->type) {
	case KT_KEY_RSA:
		seq = kt_der_open(out, DER_SEQUENCE);
		put_bn(out, key->pkey, OSSL_PKEY_PARAM_RSA_N);
		put_bn(out, key->pkey, OSSL_PKEY_PARAM_RSA_E);
		kt_der_close(out, seq);
		return;
	case KT_KEY_ECDSA:
		/* "encoded-pub-key" follows the key's point format; a key read in compressed form is refused below. */
		if (EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point, sizeof(point),
		                                    &len) != 1 ||
		    point[0] != 4)
			out->failed = KT_E_CRYPTO;
		break;
	case KT_KEY_ED25519:
		if (EVP_PKEY_get_raw_public_key(key->pkey, point, &len) != 1)
			out->failed = KT_E_CRYPTO;
		break;
	}
	if (out->failed == KT_OK)
		kt_buf_add(out, point, len);
}

void kt_pki_spki_write(struct kt_buf *out, enum kt_key_type type, unsigned bits, struct kt_view public_bits)
{
	const struct kind *kind = kind_of_type(type, bits);
	size_t seq = kt_der_open(out, DER_SEQUENCE), pos;

	kt_buf_add(out, kind->alg, kind->alg_len);
	pos = kt_der_open(out, DER_BITS);
	kt_buf_addc(out, 0);
	kt_buf_addv(out, public_bits);
	kt_der_close(out, pos);
	kt_der_close(out, seq);
}

static enum kt_code build_spki(struct kt_key *key, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF buf;
	struct kt_buf KT_AUTOBUF inner;

	kt_buf_init(&buf, SPKI_MAX);
	kt_buf_init(&inner, SPKI_MAX);
	put_public_bits(&inner, key);
	kt_pki_spki_write(&buf, key->type, key->bits, kt_buf_view(&inner));
	if (inner.failed != KT_OK || buf.failed != KT_OK) {
		if (inner.failed == KT_E_NOMEM || buf.failed == KT_E_NOMEM)
			return kt_err_set(err, KT_E_NOMEM, "public key: out of memory");
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "the public key can't be written");
	}
	key->bits_at = buf.len - inner.len;
	key->spki = (uint8_t *)kt_buf_steal(&buf, &key->spki_len);
	return key->spki != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "public key: out of memory");
}

/* Which kind of key it is; refuses what we don't handle. */
static enum kt_code classify(struct kt_key *key, struct kt_err *err)
{
	char group[64] = "";
	size_t len = 0;

	key->bits = (unsigned)EVP_PKEY_get_bits(key->pkey);
	if (EVP_PKEY_is_a(key->pkey, "RSA")) {
		key->type = KT_KEY_RSA;
		if (key->bits < RSA_BITS_MIN || key->bits > RSA_BITS_MAX)
			return kt_err_set(err, KT_E_CRYPTO, "an RSA key of %u bits: only %d to %d are accepted",
			                  key->bits, RSA_BITS_MIN, RSA_BITS_MAX);
		return KT_OK;
	}
	if (EVP_PKEY_is_a(key->pkey, "ED25519")) {
		key->type = KT_KEY_ED25519;
		key->bits = 256;
		return KT_OK;
	}
	key->type = KT_KEY_ECDSA;
	if (EVP_PKEY_is_a(key->pkey, "EC") &&
	    EVP_PKEY_get_utf8_string_param(key->pkey, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group), &len) == 1) {
		const struct kind *kind = kind_of(key);

		if (kind != NULL && strcmp(kind->group, group) == 0)
			return KT_OK;
		return kt_err_set(err, KT_E_CRYPTO, "a key on curve %s: only P-256, P-384 and P-521 are accepted", group);
	}
	return kt_pki_openssl_err(err, KT_E_CRYPTO, "only RSA, ECDSA and Ed25519 keys are accepted");
}

enum kt_code kt_pki_key_wrap(EVP_PKEY *pkey, bool private, struct kt_key **ret, struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();
	struct kt_key *key = kt_calloc(1, sizeof(*key));
	enum kt_code code;

	if (key == NULL) {
		EVP_PKEY_free(pkey);
		return kt_err_set(err, KT_E_NOMEM, "key: out of memory");
	}
	key->pkey = pkey;
	key->private = private;
	key->jose = kt_calloc(1, sizeof(*key->jose));
	code = key->jose != NULL ? classify(key, err) : kt_err_set(err, KT_E_NOMEM, "key: out of memory");
	if (code == KT_OK)
		code = build_spki(key, err);
	if (code != KT_OK) {
		kt_pki_key_destroy(key);
		return kt_pki_settle(code, failures, err);
	}
	*ret = key;
	return KT_OK;
}

enum kt_code kt_pki_key_generate(enum kt_key_type type, unsigned bits, struct kt_key **ret, struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();
	EVP_PKEY *pkey = NULL;

	switch (type) {
	case KT_KEY_RSA:
		bits = bits != 0 ? bits : RSA_BITS_MIN;
		if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX || bits % 8 != 0)
			return kt_err_set(err, KT_E_INVALID, "RSA keys have %d to %d bits, not %u", RSA_BITS_MIN,
			                  RSA_BITS_MAX, bits);
		pkey = EVP_RSA_gen(bits);
		break;
	case KT_KEY_ECDSA:
		if (bits != 0 && bits != 256 && bits != 384 && bits != 521)
			return kt_err_set(err, KT_E_INVALID, "ECDSA keys have 256, 384 or 521 bits, not %u", bits);
		pkey = EVP_EC_gen(bits == 384 ? "P-384" : bits == 521 ? "P-521" : "P-256");
		break;
	case KT_KEY_ED25519:
		pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
		break;
	}
	if (pkey == NULL)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "generating a key");
	return kt_pki_settle(kt_pki_key_wrap(pkey, true, ret, err), failures, err);
}

void kt_pki_key_destroy(struct kt_key *key)
{
	if (key == NULL)
		return;
	if (key->jose != NULL)
		kt_signer_finish(key->jose);
	kt_free(key->jose);
	EVP_PKEY_free(key->pkey);
	kt_free(key->spki);
	kt_free(key);
}

enum kt_key_type kt_pki_key_type(const struct kt_key *key)
{
	return key->type;
}

unsigned kt_pki_key_bits(const struct kt_key *key)
{
	return key->bits;
}

bool kt_pki_key_is_private(const struct kt_key *key)
{
	return key->private;
}

EVP_PKEY *kt_pki_key_evp(const struct kt_key *key)
{
	return key->pkey;
}

struct kt_view kt_pki_key_public_der(const struct kt_key *key)
{
	return (struct kt_view){(const char *)key->spki, key->spki_len};
}

bool kt_pki_key_same_public(const struct kt_key *a, const struct kt_key *b)
{
	return kt_view_eq(kt_pki_key_public_der(a), kt_pki_key_public_der(b));
}

static void add_bn(struct kt_buf *out, const EVP_PKEY *pkey, const char *param)
{
	KT_AUTOSSL(BIGNUM) bn = NULL;
	uint8_t bytes[RSA_BITS_MAX / 8];

	if (EVP_PKEY_get_bn_param(pkey, param, &bn) == 1 && BN_num_bytes(bn) <= (int)sizeof(bytes))
		kt_buf_add(out, bytes, (size_t)BN_bn2bin(bn, bytes));
	else
		out->failed = KT_E_CRYPTO;
}

enum kt_code kt_pki_rsa_public(const struct kt_key *key, struct kt_buf *n, struct kt_buf *e, struct kt_err *err)
{
	enum kt_code code;

	add_bn(n, key->pkey, OSSL_PKEY_PARAM_RSA_N);
	add_bn(e, key->pkey, OSSL_PKEY_PARAM_RSA_E);
	ERR_clear_error();
	code = kt_buf_check(n, "RSA modulus", err);
	return code == KT_OK ? kt_buf_check(e, "RSA exponent", err) : code;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_ec_private(const struct kt_key *key, bool with_curve, struct kt_buf *out)
{
	const struct kind *kind = kind_of(key);
	size_t width = (key->bits + 7) / 8, seq, tag, bits;
	KT_AUTOSSL(BIGNUM) d = NULL;
	uint8_t bytes[66];

	if (EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_PRIV_KEY, &d) != 1 ||
	    BN_bn2binpad(d, bytes, (int)width) < 0) {
		out->failed = KT_E_CRYPTO;
		return;
	}
	seq = kt_der_open(out, DER_SEQUENCE);
	kt_der_small(out, 1);
	kt_der_put(out, DER_OCTETS, bytes, width);
	if (with_curve) {
		tag = kt_der_open(out, DER_CONTEXT_CONS(0));
		kt_buf_add(out, kind->alg + kind->oid_at, kind->alg_len - kind->oid_at);
		kt_der_close(out, tag);
	}
	tag = kt_der_open(out, DER_CONTEXT_CONS(1));
	bits = kt_der_open(out, DER_BITS);
	kt_buf_addc(out, 0);
	kt_buf_add(out, key->spki + key->bits_at, key->spki_len - key->bits_at);
	kt_der_close(out, bits);
	kt_der_close(out, tag);
	kt_der_close(out, seq);
	kt_wipe(bytes, sizeof(bytes));
}

/* The algorithm's own form: PKCS#1, SEC1 (curve inside or, within PKCS#8, beside), CurvePrivateKey. */
static void put_private(const struct kt_key *key, bool with_curve, struct kt_buf *out)
{
	uint8_t raw[32], *der = NULL;
	size_t len = sizeof(raw);
	int der_len;

	switch (key->type) {
	case KT_KEY_RSA:
		der_len = i2d_PrivateKey(key->pkey, &der);
		if (der_len <= 0)
			out->failed = KT_E_CRYPTO;
		else
			kt_buf_add(out, der, (size_t)der_len);
		OPENSSL_clear_free(der, der_len > 0 ? (size_t)der_len : 0);
		break;
	case KT_KEY_ECDSA:
		put_ec_private(key, with_curve, out);
		break;
	case KT_KEY_ED25519:
		if (EVP_PKEY_get_raw_private_key(key->pkey, raw, &len) != 1)
			out->failed = KT_E_CRYPTO;
		else
			kt_der_put(out, DER_OCTETS, raw, len);
		kt_wipe(raw, sizeof(raw));
		break;
	}
}

enum kt_code kt_pki_key_add_private(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_buf *out,
                                    struct kt_err *err)
{
	const struct kind *kind = kind_of(key);
	size_t seq, octets;

	if (!key->private)
		return kt_err_set(err, KT_E_INVALID, "this is a public key: it has no private half to write");
	if (encoding == KT_KEY_PKCS1 && key->type != KT_KEY_ED25519) {
		put_private(key, true, out);
	} else {
		seq = kt_der_open(out, DER_SEQUENCE);
		kt_der_small(out, 0);
		kt_buf_add(out, kind->alg, kind->alg_len);
		octets = kt_der_open(out, DER_OCTETS);
		put_private(key, false, out);
		kt_der_close(out, octets);
		kt_der_close(out, seq);
	}
	if (out->failed == KT_E_CRYPTO)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "the private key can't be written");
	return kt_buf_check(out, "private key", err);
}

enum kt_code kt_pki_key_to_der(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_secret **ret,
                               struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	enum kt_code code;

	kt_buf_init(&der, 8192);
	code = kt_pki_key_add_private(key, encoding, &der, err);
	return code == KT_OK ? kt_secret_from_buf(&der, ret, err) : code;
}

enum kt_code kt_pki_key_to_pem(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_secret **ret,
                               struct kt_err *err)
{
	const char *label = "PRIVATE KEY";
	struct kt_buf KT_AUTOBUF der;
	enum kt_code code;

	if (encoding == KT_KEY_PKCS1 && key->type == KT_KEY_RSA)
		label = "RSA PRIVATE KEY";
	else if (encoding == KT_KEY_PKCS1 && key->type == KT_KEY_ECDSA)
		label = "EC PRIVATE KEY";
	kt_buf_init(&der, 8192);
	code = kt_pki_key_add_private(key, encoding, &der, err);
	if (code == KT_OK)
		code = kt_secret_alloc(kt_pem_size(label, der.len), ret, err);
	if (code == KT_OK)
		kt_pem_write(kt_secret_edit(*ret), label, der.ptr, der.len);
	return code;
}

enum kt_code kt_pki_key_public_pem(const struct kt_key *key, struct kt_buf *out, struct kt_err *err)
{
	kt_pki_pem_encode(out, "PUBLIC KEY", kt_pki_key_public_der(key));
	return kt_buf_check(out, "public key", err);
}
