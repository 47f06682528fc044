/* Private keys as JWK (RFC 7517, RFC 7518 section 6), as other ACME clients keep their accounts' keys. */
#include "pki/jose_internal.h"

#include <string.h>

#include "kt/text.h"

#define JWK_MAX  (32u * 1024u)
#define PART_MAX 1100u /* bytes of one number: RSA of 8192 bits */

/* One member, decoded; adds to out (wiped by the caller's KT_AUTOBUF). */
static enum kt_code member(const json_t *jwk, const char *name, struct kt_buf *out, struct kt_err *err)
{
	const char *text = kt_json_str(jwk, name);

	kt_buf_init(out, PART_MAX);
	if (text == NULL)
		return kt_err_set(err, KT_E_CRYPTO, "the JWK has no member %s", name);
	if (kt_base64url_decode(kt_view_str(text), out, NULL) != KT_OK || out->len == 0)
		return kt_err_set(err, KT_E_CRYPTO, "member %s of the JWK is not base64url of a number", name);
	return KT_OK;
}

/* RFC 8017 A.1.2: version, n, e, d, p, q, dP, dQ, qInv. */
static enum kt_code rsa_der(const json_t *jwk, struct kt_buf *out, struct kt_err *err)
{
	static const char *const names[] = {"n", "e", "d", "p", "q", "dp", "dq", "qi"};
	size_t sequence = kt_der_open(out, DER_SEQUENCE);
	enum kt_code code = KT_OK;

	kt_der_small(out, 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && code == KT_OK; i++) {
		struct kt_buf KT_AUTOBUF part;

		code = member(jwk, names[i], &part, err);
		if (code == KT_OK)
			kt_der_uint(out, (const uint8_t *)part.ptr, part.len);
	}
	kt_der_close(out, sequence);
	return code == KT_OK ? kt_buf_check(out, "private key", err) : code;
}

/* RFC 5915: version, the number left-padded to the curve's size, the curve, the point. */
static enum kt_code ec_der(const json_t *jwk, struct kt_buf *out, struct kt_err *err)
{
	static const struct {
		const char *crv, *oid;
		size_t size;
	} curves[] = {
		{"P-256", "1.2.840.10045.3.1.7", 32}, {"P-384", "1.3.132.0.34", 48}, {"P-521", "1.3.132.0.35", 66}};
	static const uint8_t zeros[66] = {0};
	const char *crv = kt_json_str(jwk, "crv");
	struct kt_buf KT_AUTOBUF x;
	struct kt_buf KT_AUTOBUF y;
	struct kt_buf KT_AUTOBUF d;
	size_t i, sequence, part, bits;
	enum kt_code code;

	kt_buf_init(&y, PART_MAX);
	kt_buf_init(&d, PART_MAX);
	code = member(jwk, "x", &x, err);
	if (code == KT_OK)
		code = member(jwk, "y", &y, err);
	if (code == KT_OK)
		code = member(jwk, "d", &d, err);
	if (code != KT_OK)
		return code;
	for (i = 0; i < 3 && (crv == NULL || strcmp(crv, curves[i].crv) != 0); i++) {
	}
	if (i == 3)
		return kt_err_set(err, KT_E_CRYPTO, "the JWK is on a curve that is not P-256, P-384 or P-521");
	if (x.len > curves[i].size || y.len > curves[i].size || d.len > curves[i].size)
		return kt_err_set(err, KT_E_CRYPTO, "a number of the JWK is too great for %s", crv);
	sequence = kt_der_open(out, DER_SEQUENCE);
	kt_der_small(out, 1);
	part = kt_der_open(out, DER_OCTETS);
	kt_buf_add(out, zeros, curves[i].size - d.len);
	kt_buf_add(out, d.ptr, d.len);
	kt_der_close(out, part);
	part = kt_der_open(out, 0xa0);
	(void)kt_der_oid(out, curves[i].oid);
	kt_der_close(out, part);
	part = kt_der_open(out, 0xa1);
	bits = kt_der_open(out, DER_BITS);
	kt_buf_add(out, "\0\4", 2); /* no unused bits; an uncompressed point */
	kt_buf_add(out, zeros, curves[i].size - x.len);
	kt_buf_add(out, x.ptr, x.len);
	kt_buf_add(out, zeros, curves[i].size - y.len);
	kt_buf_add(out, y.ptr, y.len);
	kt_der_close(out, bits);
	kt_der_close(out, part);
	kt_der_close(out, sequence);
	return kt_buf_check(out, "private key", err);
}

enum kt_code kt_jose_jwk_private(struct kt_view text, struct kt_key **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	json_t *jwk KT_AUTOJSON = NULL;
	const char *kty;
	enum kt_code code;

	kt_buf_init(&der, JWK_MAX);
	code = kt_json_parse(text, JWK_MAX, &jwk, err);
	if (code != KT_OK)
		return code;
	kty = kt_json_str(jwk, "kty");
	if (kty != NULL && strcmp(kty, "RSA") == 0)
		code = rsa_der(jwk, &der, err);
	else if (kty != NULL && strcmp(kty, "EC") == 0)
		code = ec_der(jwk, &der, err);
	else
		code = kt_err_set(err, KT_E_CRYPTO, "the JWK is neither an RSA nor an EC key");
	/* By way of PEM, where the two halves are compared: the point is the JWK's word only. */
	if (code == KT_OK) {
		struct kt_buf KT_AUTOBUF pem;

		kt_buf_init(&pem, 2 * JWK_MAX);
		kt_pki_pem_encode(&pem, strcmp(kty, "RSA") == 0 ? "RSA PRIVATE KEY" : "EC PRIVATE KEY",
				  kt_buf_view(&der));
		code = kt_buf_check(&pem, "private key", err);
		if (code == KT_OK)
			code = kt_pki_key_from_pem(kt_buf_view(&pem), ret, err);
	}
	return code;
}
