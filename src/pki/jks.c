/* JKS key stores and trust stores: Java's first format, for readers that take nothing else. The same material gives the same bytes. */
#include "pki/pki_internal.h"

#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

/*
 * A store is a list of entries between a head and a digest; numbers are big-endian:
 *
 *   u4 0xfeedfeed, u4 version 2, u4 number of entries
 *   entry: u4 1 (a key) or 2 (a trusted certificate), text alias, u8 made at (milliseconds since 1970), then
 *     key:  u4 length, EncryptedPrivateKeyInfo (RFC 5208 section 6) by Java's own protector, u4 length of the chain, certificates
 *     both: certificate = text "X.509", u4 length, DER
 *   SHA-1 over the password (UTF-16), "Mighty Aphrodite" and all of the above
 *
 * A text is a u2 length and bytes. The protector (1.3.6.1.4.1.42.2.17.1.1) is a stream cipher out of SHA-1: the blocks of the
 * stream are d1 = SHA-1(password, salt), d2 = SHA-1(password, d1), ...; it gives salt, key xor stream, SHA-1(password, key).
 * None of that holds up against who guesses passwords: what protects the key is the mode of the file.
 */
#define JKS_MAX     (512u * 1024u)
#define MAGIC       0xfeedfeedu
#define VERSION     2u
#define ENTRY_KEY   1u
#define ENTRY_CERT  2u
#define SHA1_LEN    20u
#define ALIAS_MAX   250u
#define WHITENER    "Mighty Aphrodite"
#define SALT_LABEL  "keyturn: salt of a JKS key entry"
#define PASSWORD_MAX 8192u

static const uint8_t oid_protector[] = {0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01};

/* --- parts ------------------------------------------------------------------------------------------------------------- */

static void put_number(struct kt_buf *out, uint64_t value, unsigned bytes)
{
	while (bytes-- > 0)
		kt_buf_addc(out, (char)(value >> (8 * bytes) & 0xff));
}

static void put_text(struct kt_buf *out, const char *text)
{
	size_t len = strlen(text);

	put_number(out, len, 2);
	kt_buf_add(out, text, len);
}

static void put_cert(struct kt_buf *out, const struct kt_cert *cert)
{
	put_text(out, "X.509");
	put_number(out, cert->der.len, 4);
	kt_buf_addv(out, cert->der);
}

static void put_unit(struct kt_buf *out, uint32_t unit)
{
	put_number(out, unit, 2);
}

/* The password as Java digests it: UTF-16, the high byte first. It is UTF-8 that was found valid. */
static enum kt_code password_utf16(const struct kt_secret *password, struct kt_buf *out, struct kt_err *err)
{
	struct kt_view text = kt_secret_view(password);
	const uint8_t *at = (const uint8_t *)text.ptr, *end = at + text.len;

	if (text.len == 0 || !kt_utf8_valid(text))
		return kt_err_set(err, KT_E_INVALID, "the key store's password is no UTF-8 text");
	while (at < end) {
		unsigned more = *at < 0x80 ? 0 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : 3;
		uint32_t point = more == 0 ? *at : *at & (0x3fu >> more);

		for (at++; more > 0; more--)
			point = point << 6 | (*at++ & 0x3fu);
		if (point < 0x10000) {
			put_unit(out, point);
		} else {
			put_unit(out, 0xd800 + ((point - 0x10000) >> 10));
			put_unit(out, 0xdc00 + ((point - 0x10000) & 0x3ff));
		}
	}
	return kt_buf_check(out, "the key store's password", err);
}

/* SHA-1 over up to three pieces. */
static enum kt_code digest(struct kt_view a, struct kt_view b, struct kt_view c, uint8_t ret[SHA1_LEN], struct kt_err *err)
{
	EVP_MD_CTX *ctx = kt_pki_algs.sha1 != NULL ? EVP_MD_CTX_new() : NULL;
	bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, kt_pki_algs.sha1, NULL) == 1 &&
	          EVP_DigestUpdate(ctx, a.ptr, a.len) == 1 && EVP_DigestUpdate(ctx, b.ptr, b.len) == 1 &&
	          EVP_DigestUpdate(ctx, c.ptr, c.len) == 1 && EVP_DigestFinal_ex(ctx, ret, NULL) == 1;

	EVP_MD_CTX_free(ctx);
	return ok ? KT_OK
	          : kt_pki_openssl_err(err, KT_E_UNSUPPORTED, "JKS needs SHA-1, which OpenSSL here doesn't offer: use pkcs12");
}

/* --- the protected key --------------------------------------------------------------------------------------------------- */

/*
 * A salt that only who has the key could compute, and that differs for each password and certificate: with it a store that is
 * written again has the same bytes.
 */
static enum kt_code make_salt(struct kt_view plain, struct kt_view password, const struct kt_cert *leaf, uint8_t ret[SHA1_LEN],
                              struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF text;
	uint8_t mac[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	enum kt_code code;

	kt_buf_init(&text, JKS_MAX);
	kt_buf_adds(&text, SALT_LABEL);
	put_number(&text, password.len, 4);
	kt_buf_addv(&text, password);
	kt_buf_addv(&text, leaf->der);
	code = kt_buf_check(&text, "JKS", err);
	if (code != KT_OK)
		return code;
	if (HMAC(kt_pki_algs.sha256, plain.ptr, (int)plain.len, (const uint8_t *)text.ptr, text.len, mac, &len) == NULL ||
	    len < SHA1_LEN)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "the salt of a JKS key entry");
	memcpy(ret, mac, SHA1_LEN);
	return KT_OK;
}

/* salt, key xor stream, check: what stands in the OCTET STRING. */
static enum kt_code protect(struct kt_view plain, struct kt_view password, const uint8_t salt[SHA1_LEN], struct kt_buf *out,
                            struct kt_err *err)
{
	static const struct kt_view none = {NULL, 0};
	uint8_t block[SHA1_LEN];
	enum kt_code code = KT_OK;

	memcpy(block, salt, SHA1_LEN);
	kt_buf_add(out, salt, SHA1_LEN);
	for (size_t i = 0; code == KT_OK && i < plain.len; i++) {
		if (i % SHA1_LEN == 0)
			code = digest(password, (struct kt_view){(const char *)block, SHA1_LEN}, none, block, err);
		if (code == KT_OK)
			kt_buf_addc(out, (char)((uint8_t)plain.ptr[i] ^ block[i % SHA1_LEN]));
	}
	if (code == KT_OK)
		code = digest(password, plain, none, block, err);
	if (code == KT_OK)
		kt_buf_add(out, block, SHA1_LEN);
	kt_wipe(block, sizeof(block));
	return code;
}

static enum kt_code put_key(struct kt_buf *out, const struct kt_key *key, const struct kt_cert *leaf, struct kt_view password,
                            struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF plain;
	struct kt_buf KT_AUTOBUF body;
	struct kt_buf KT_AUTOBUF info;
	uint8_t salt[SHA1_LEN];
	enum kt_code code;
	size_t seq, alg;

	kt_buf_init(&plain, 16384);
	kt_buf_init(&body, 20480);
	kt_buf_init(&info, 20480);
	code = kt_pki_key_add_private(key, KT_KEY_PKCS8, &plain, err);
	if (code == KT_OK)
		code = kt_buf_check(&plain, "JKS", err);
	if (code == KT_OK)
		code = make_salt(kt_buf_view(&plain), password, leaf, salt, err);
	if (code == KT_OK)
		code = protect(kt_buf_view(&plain), password, salt, &body, err);
	if (code != KT_OK)
		return code;
	seq = kt_der_open(&info, DER_SEQUENCE);
	alg = kt_der_open(&info, DER_SEQUENCE);
	kt_der_put(&info, DER_OID, oid_protector, sizeof(oid_protector));
	kt_der_put(&info, DER_NULL, NULL, 0);
	kt_der_close(&info, alg);
	kt_der_put(&info, DER_OCTETS, body.ptr, body.len);
	kt_der_close(&info, seq);
	code = kt_buf_check(&info, "JKS", err);
	put_number(out, info.len, 4);
	kt_buf_addv(out, kt_buf_view(&info));
	return code;
}

/* --- stores ---------------------------------------------------------------------------------------------------------------- */

static void put_head(struct kt_buf *out, size_t entries)
{
	put_number(out, MAGIC, 4);
	put_number(out, VERSION, 4);
	put_number(out, entries, 4);
}

/* When an entry was made is when its certificate begins, so that it doesn't depend on when this runs. */
static void put_entry(struct kt_buf *out, uint32_t kind, const char *alias, const struct kt_cert *cert)
{
	put_number(out, kind, 4);
	put_text(out, alias);
	put_number(out, cert->not_before > 0 ? (uint64_t)cert->not_before : 0, 8);
}

static enum kt_code put_digest(struct kt_buf *out, size_t start, struct kt_view password, struct kt_err *err)
{
	uint8_t sum[SHA1_LEN];
	enum kt_code code = kt_buf_check(out, "JKS", err);

	if (code == KT_OK)
		code = digest(password, KT_VIEW_LIT(WHITENER), (struct kt_view){out->ptr + start, out->len - start}, sum, err);
	if (code != KT_OK)
		return code;
	kt_buf_add(out, sum, sizeof(sum));
	return kt_buf_check(out, "JKS", err);
}

/* Java looks aliases up in small letters, and finds none that was stored otherwise. */
static enum kt_code lower_alias(const char *alias, char ret[ALIAS_MAX + 1], struct kt_err *err)
{
	size_t len = strlen(alias);

	if (len == 0 || len > ALIAS_MAX)
		return kt_err_set(err, KT_E_INVALID, "the key store's alias must have 1 to %u characters", ALIAS_MAX);
	for (size_t i = 0; i <= len; i++) {
		if (i < len && (alias[i] < 0x20 || alias[i] > 0x7e))
			return kt_err_set(err, KT_E_INVALID, "the key store's alias must be printable ASCII");
		ret[i] = (char)(alias[i] >= 'A' && alias[i] <= 'Z' ? alias[i] - 'A' + 'a' : alias[i]);
	}
	return KT_OK;
}

enum kt_code kt_pki_jks_keystore(const struct kt_key *key, const struct kt_chain *chain, const char *alias,
                                 const struct kt_secret *password, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF utf16;
	struct kt_buf KT_AUTOBUF out;
	char name[ALIAS_MAX + 1];
	enum kt_code code;

	kt_buf_init(&utf16, PASSWORD_MAX);
	kt_buf_init(&out, JKS_MAX);
	if (!kt_pki_cert_has_key(chain->at[0], key))
		return kt_err_set(err, KT_E_CRYPTO, "key store: the certificate is for another key");
	code = lower_alias(alias != NULL ? alias : "certificate", name, err);
	if (code == KT_OK)
		code = password_utf16(password, &utf16, err);
	if (code != KT_OK)
		return code;
	put_head(&out, 1);
	put_entry(&out, ENTRY_KEY, name, chain->at[0]);
	code = put_key(&out, key, chain->at[0], kt_buf_view(&utf16), err);
	put_number(&out, chain->count, 4);
	for (size_t i = 0; i < chain->count; i++)
		put_cert(&out, chain->at[i]);
	if (code == KT_OK)
		code = put_digest(&out, 0, kt_buf_view(&utf16), err);
	return code == KT_OK ? kt_secret_from_buf(&out, ret, err) : code;
}

enum kt_code kt_pki_jks_truststore(const struct kt_chain *cas, const struct kt_secret *password, struct kt_buf *out,
                                   struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF utf16;
	size_t start = out->len;
	char alias[32] = "ca";
	enum kt_code code;

	kt_buf_init(&utf16, PASSWORD_MAX);
	code = password_utf16(password, &utf16, err);
	if (code != KT_OK)
		return code;
	put_head(out, cas->count);
	for (size_t i = 0; i < cas->count; i++) {
		if (i > 0)
			snprintf(alias, sizeof(alias), "ca-%zu", i);
		put_entry(out, ENTRY_CERT, alias, cas->at[i]);
		put_cert(out, cas->at[i]);
	}
	return put_digest(out, start, kt_buf_view(&utf16), err);
}
