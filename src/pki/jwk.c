/* Public keys as JWK, thumbprints, and JWK sets from strangers. */
#include "pki/jose_internal.h"

#include <string.h>

#define KID_MAX 256

static const char *curve_name(unsigned bits)
{
	return bits == 256 ? "P-256" : bits == 384 ? "P-384" : "P-521";
}

static struct kt_view public_bits(const struct kt_key *key)
{
	return (struct kt_view){(const char *)key->spki + key->bits_at, key->spki_len - key->bits_at};
}

/* The members of RFC 7638 section 3.2 without the braces, in lexical order. */
static enum kt_code put_members(const struct kt_key *key, struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF n;
	struct kt_buf KT_AUTOBUF e;
	struct kt_view bits = public_bits(key);
	enum kt_code code;
	size_t half;

	kt_buf_init(&n, 2048);
	kt_buf_init(&e, 2048);
	switch (key->type) {
	case KT_KEY_RSA:
		code = kt_pki_rsa_public(key, &n, &e, err);
		if (code != KT_OK)
			return code;
		kt_buf_adds(out, "\"e\":\"");
		kt_base64url_encode(out, e.ptr, e.len);
		kt_buf_adds(out, "\",\"kty\":\"RSA\",\"n\":\"");
		kt_base64url_encode(out, n.ptr, n.len);
		break;
	case KT_KEY_ECDSA:
		half = (bits.len - 1) / 2; /* after the 04 of an uncompressed point */
		kt_buf_addf(out, "\"crv\":\"%s\",\"kty\":\"EC\",\"x\":\"", curve_name(key->bits));
		kt_base64url_encode(out, bits.ptr + 1, half);
		kt_buf_adds(out, "\",\"y\":\"");
		kt_base64url_encode(out, bits.ptr + 1 + half, half);
		break;
	case KT_KEY_ED25519:
		kt_buf_adds(out, "\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"");
		kt_base64url_encode(out, bits.ptr, bits.len);
		break;
	}
	kt_buf_addc(out, '"');
	return kt_buf_check(out, "JWK", err);
}

enum kt_code kt_jose_jwk(const struct kt_key *key, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code;

	kt_buf_addc(out, '{');
	code = put_members(key, out, err);
	kt_buf_addc(out, '}');
	return code == KT_OK ? kt_buf_check(out, "JWK", err) : code;
}

enum kt_code kt_jose_jwk_published(const struct kt_key *key, enum kt_jose_alg alg, const char *kid, struct kt_buf *out,
                                   struct kt_err *err)
{
	char thumbprint[KT_JOSE_THUMBPRINT];
	enum kt_code code = KT_OK;

	alg = alg != KT_JOSE_NONE ? alg : kt_jose_alg_default(key);
	if (!kt_jose_alg_fits(alg, key))
		return kt_err_set(err, KT_E_INVALID, "algorithm %s doesn't fit an %s key", kt_jose_alg_name(alg),
		                  kt_pki_key_type_name(key->type));
	if (kid == NULL)
		code = kt_jose_thumbprint(key, thumbprint, err);
	if (code != KT_OK)
		return code;
	kt_buf_addf(out, "{\"alg\":\"%s\",\"kid\":", kt_jose_alg_name(alg));
	kt_buf_add_json(out, kt_view_str(kid != NULL ? kid : thumbprint));
	kt_buf_addc(out, ',');
	code = put_members(key, out, err);
	kt_buf_adds(out, ",\"use\":\"sig\"}");
	return code == KT_OK ? kt_buf_check(out, "JWK", err) : code;
}

enum kt_code kt_jose_thumbprint(const struct kt_key *key, char out[KT_JOSE_THUMBPRINT], struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF jwk;
	struct kt_buf KT_AUTOBUF text;
	uint8_t digest[KT_SHA256_LEN];
	enum kt_code code;

	kt_buf_init(&jwk, 4096);
	kt_buf_init(&text, 64);
	code = kt_jose_jwk(key, &jwk, err);
	if (code != KT_OK)
		return code;
	kt_sha256(jwk.ptr, jwk.len, digest);
	kt_base64url_encode(&text, digest, sizeof(digest));
	code = kt_buf_check(&text, "thumbprint", err);
	if (code == KT_OK)
		memcpy(out, text.ptr, KT_JOSE_THUMBPRINT);
	return code;
}

/* --- sets --------------------------------------------------------------------------------------------------------------- */

static enum kt_code decode_member(const json_t *jwk, const char *name, struct kt_buf *out, struct kt_err *err)
{
	const char *text = kt_json_str(jwk, name);

	if (text == NULL || text[0] == '\0' || kt_base64url_decode(kt_view_str(text), out, NULL) != KT_OK)
		return kt_err_set(err, KT_E_CRYPTO, "JWKS: a key's \"%s\" is missing or no base64url", name);
	return KT_OK;
}

static enum kt_code rsa_key(const json_t *jwk, struct kt_key **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF n;
	struct kt_buf KT_AUTOBUF e;
	struct kt_buf KT_AUTOBUF bits;
	struct kt_buf KT_AUTOBUF spki;
	enum kt_code code;
	size_t seq;

	kt_buf_init(&n, 1025);
	kt_buf_init(&e, 16);
	kt_buf_init(&bits, 2048);
	kt_buf_init(&spki, 2048);
	code = decode_member(jwk, "n", &n, err);
	if (code == KT_OK)
		code = decode_member(jwk, "e", &e, err);
	if (code != KT_OK)
		return code;
	seq = kt_der_open(&bits, DER_SEQUENCE);
	kt_der_uint(&bits, (const uint8_t *)n.ptr, n.len);
	kt_der_uint(&bits, (const uint8_t *)e.ptr, e.len);
	kt_der_close(&bits, seq);
	kt_pki_spki_write(&spki, KT_KEY_RSA, 0, kt_buf_view(&bits));
	code = kt_buf_check(&spki, "JWK", err);
	return code == KT_OK ? kt_pki_key_from_public(kt_buf_view(&spki), ret, err) : code;
}

static enum kt_code ec_key(const json_t *jwk, unsigned size, struct kt_key **ret, struct kt_err *err)
{
	size_t width = (size + 7) / 8;
	struct kt_buf KT_AUTOBUF point;
	struct kt_buf KT_AUTOBUF spki;
	enum kt_code code;

	kt_buf_init(&point, 2 * width + 1);
	kt_buf_init(&spki, 512);
	kt_buf_addc(&point, 4);
	code = decode_member(jwk, "x", &point, err);
	if (code == KT_OK && point.len != 1 + width)
		code = kt_err_set(err, KT_E_CRYPTO, "JWKS: a coordinate of the wrong length");
	if (code == KT_OK)
		code = decode_member(jwk, "y", &point, err);
	if (code == KT_OK && point.len != 1 + 2 * width)
		code = kt_err_set(err, KT_E_CRYPTO, "JWKS: a coordinate of the wrong length");
	if (code != KT_OK)
		return code;
	kt_pki_spki_write(&spki, KT_KEY_ECDSA, size, kt_buf_view(&point));
	code = kt_buf_check(&spki, "JWK", err);
	return code == KT_OK ? kt_pki_key_from_public(kt_buf_view(&spki), ret, err) : code;
}

static enum kt_code okp_key(const json_t *jwk, struct kt_key **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF x;
	struct kt_buf KT_AUTOBUF spki;
	enum kt_code code;

	kt_buf_init(&x, 64);
	kt_buf_init(&spki, 128);
	code = decode_member(jwk, "x", &x, err);
	if (code == KT_OK && x.len != 32)
		code = kt_err_set(err, KT_E_CRYPTO, "JWKS: an Ed25519 key of the wrong length");
	if (code != KT_OK)
		return code;
	kt_pki_spki_write(&spki, KT_KEY_ED25519, 256, kt_buf_view(&x));
	code = kt_buf_check(&spki, "JWK", err);
	return code == KT_OK ? kt_pki_key_from_public(kt_buf_view(&spki), ret, err) : code;
}

/* Members that only a private or symmetric key has (RFC 7518 sections 6.2.2, 6.3.2, 6.4). */
static bool is_private(const json_t *jwk)
{
	static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (json_object_get(jwk, members[i]) != NULL)
			return true;
	return false;
}

/* False for keys that are meant for something else than verifying. */
static bool for_verifying(const json_t *jwk)
{
	const json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops"), *op;
	size_t i;

	if (use != NULL && (!json_is_string(use) || strcmp(json_string_value(use), "sig") != 0))
		return false;
	if (ops == NULL)
		return true;
	json_array_foreach(ops, i, op)
		if (json_is_string(op) && strcmp(json_string_value(op), "verify") == 0)
			return true;
	return false;
}

/* Makes the key; *ret stays NULL when its kind is unknown here. */
static enum kt_code make_key(const json_t *jwk, struct kt_key **ret, struct kt_err *err)
{
	const char *kty = kt_json_str(jwk, "kty"), *crv = kt_json_str(jwk, "crv");

	if (kty == NULL)
		return kt_err_set(err, KT_E_PROTO, "JWKS: a key without \"kty\"");
	if (strcmp(kty, "oct") == 0)
		return kt_err_set(err, KT_E_CRYPTO, "JWKS: a symmetric key (oct) has no place in a published set");
	if (is_private(jwk))
		return kt_err_set(err, KT_E_CRYPTO, "JWKS: the set publishes a private key");
	if (!for_verifying(jwk))
		return KT_OK;
	if (strcmp(kty, "RSA") == 0)
		return rsa_key(jwk, ret, err);
	if (strcmp(kty, "EC") == 0 && crv != NULL) {
		static const unsigned sizes[] = {256, 384, 521};

		for (size_t i = 0; i < 3; i++)
			if (strcmp(crv, curve_name(sizes[i])) == 0)
				return ec_key(jwk, sizes[i], ret, err);
	}
	if (strcmp(kty, "OKP") == 0 && crv != NULL && strcmp(crv, "Ed25519") == 0)
		return okp_key(jwk, ret, err);
	return KT_OK;
}

static enum kt_code add_entry(struct kt_jwks *set, const json_t *jwk, struct kt_err *err)
{
	const json_t *kid = json_object_get(jwk, "kid"), *alg = json_object_get(jwk, "alg");
	struct kt_jwks_entry *entry = &set->at[set->count];
	enum kt_code code;

	if (!json_is_object(jwk))
		return kt_err_set(err, KT_E_PROTO, "JWKS: a key that is no object");
	if ((kid != NULL && !json_is_string(kid)) || (alg != NULL && !json_is_string(alg)))
		return kt_err_set(err, KT_E_PROTO, "JWKS: \"kid\" or \"alg\" is no string");
	if (kid != NULL && json_string_length(kid) > KID_MAX)
		return kt_err_set(err, KT_E_LIMIT, "JWKS: a kid of more than %d bytes", KID_MAX);
	entry->key = NULL;
	code = make_key(jwk, &entry->key, err);
	if (code != KT_OK || entry->key == NULL)
		return code;
	entry->alg = kt_jose_alg_parse(json_string_value(alg));
	/* RS512 and the like: a key for an algorithm that isn't verified here. */
	if ((alg != NULL && entry->alg == KT_JOSE_NONE) ||
	    (entry->alg != KT_JOSE_NONE && !kt_jose_alg_fits(entry->alg, entry->key))) {
		kt_pki_key_destroy(entry->key);
		return KT_OK;
	}
	entry->kid = kt_strdup(kid != NULL ? json_string_value(kid) : "");
	if (entry->kid == NULL) {
		kt_pki_key_destroy(entry->key);
		return kt_err_set(err, KT_E_NOMEM, "JWKS: out of memory");
	}
	set->count++;
	return KT_OK;
}

enum kt_code kt_jose_jwks_parse(struct kt_view text, struct kt_jwks **ret, struct kt_err *err)
{
	KT_AUTOJSON json_t *root = NULL;
	struct kt_jwks *set;
	const json_t *keys, *jwk;
	enum kt_code code;
	size_t i;

	code = kt_json_parse(text, KT_JOSE_JWKS_BYTES_MAX, &root, err);
	if (code != KT_OK)
		return err != NULL ? kt_err_prefix(err, "JWKS") : code;
	keys = json_object_get(root, "keys");
	if (!json_is_array(keys))
		return kt_err_set(err, KT_E_PROTO, "JWKS: there is no array \"keys\"");
	set = kt_calloc(1, sizeof(*set));
	if (set == NULL)
		return kt_err_set(err, KT_E_NOMEM, "JWKS: out of memory");
	json_array_foreach(keys, i, jwk) {
		if (set->count == KT_JOSE_JWKS_MAX)
			break;
		code = add_entry(set, jwk, err);
		if (code != KT_OK)
			break;
	}
	if (code == KT_OK && set->count == 0)
		code = kt_err_set(err, KT_E_NOTFOUND, "JWKS: none of the %zu keys can be used to verify",
		                  json_array_size(keys));
	if (code != KT_OK) {
		kt_jose_jwks_destroy(set);
		return code;
	}
	*ret = set;
	return KT_OK;
}

void kt_jose_jwks_destroy(struct kt_jwks *set)
{
	if (set == NULL)
		return;
	for (size_t i = 0; i < set->count; i++) {
		kt_free(set->at[i].kid);
		kt_pki_key_destroy(set->at[i].key);
	}
	kt_free(set);
}

size_t kt_jose_jwks_count(const struct kt_jwks *set)
{
	return set->count;
}

const char *kt_jose_jwks_kid(const struct kt_jwks *set, size_t index)
{
	return index < set->count ? set->at[index].kid : NULL;
}

const struct kt_key *kt_jose_jwks_key(const struct kt_jwks *set, size_t index)
{
	return index < set->count ? set->at[index].key : NULL;
}
