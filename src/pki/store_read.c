/* Reading what others keep: the certificate of a PEM file, a PKCS#12 store or a JKS store. Nothing of a private key is opened. */
#include "pki/pki_internal.h"

#include <openssl/pkcs12.h>
#include <string.h>
#include <strings.h>

#define STORE_MAX      (192u * 1024u)
#define SAFES_MAX      16
#define BAGS_MAX       256
#define ITERATIONS_MAX 600000 /* of a whole store: what takes about a second; Java writes 10000, OpenSSL 2048 */
#define ENTRIES_MAX    1000u
#define CHAIN_MAX      64u
#define JKS_MAGIC      0xfeedfeedu
#define JKS_KEY        1u
#define JKS_CERT       2u

static enum kt_code check_size(struct kt_view bytes, struct kt_err *err)
{
	if (bytes.len == 0)
		return kt_err_set(err, KT_E_PROTO, "the file is empty");
	return bytes.len > STORE_MAX ? kt_err_set(err, KT_E_LIMIT, "the file is larger than %u KiB", STORE_MAX / 1024) : KT_OK;
}

/* --- PEM ---------------------------------------------------------------------------------------------------------------- */

enum kt_code kt_pki_pem_first(struct kt_view text, struct kt_cert **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	struct kt_pem block;
	enum kt_code code = check_size(text, err);

	kt_buf_init(&der, KT_PKI_DER_MAX);
	while (code == KT_OK) {
		code = kt_pem_next(&text, false, &block, err);
		if (code == KT_OK && kt_view_eq_str(block.label, "CERTIFICATE")) {
			code = kt_pem_decode(&block, &der, err);
			return code == KT_OK ? kt_pki_cert_from_der(kt_buf_view(&der), ret, err) : code;
		}
	}
	return code == KT_E_NOTFOUND ? kt_err_set(err, KT_E_PROTO, "there is no PEM certificate in the file") : code;
}

/* --- PKCS#12 ------------------------------------------------------------------------------------------------------------ */

KT_SSL_CLEANUP(PKCS12, PKCS12_free)
KT_SSL_CLEANUP(PBEPARAM, PBEPARAM_free)
KT_SSL_CLEANUP(PBE2PARAM, PBE2PARAM_free)
KT_SSL_CLEANUP(PBKDF2PARAM, PBKDF2PARAM_free)

/* What was found in the bags. */
struct store {
	const char *alias;
	STACK_OF(PKCS12_SAFEBAG) *bags[SAFES_MAX];
	int safe_count;
	int bag_count;
	int64_t iterations; /* that are left of ITERATIONS_MAX */
};

static void store_finish(struct store *store)
{
	for (int i = 0; i < store->safe_count; i++)
		sk_PKCS12_SAFEBAG_pop_free(store->bags[i], PKCS12_SAFEBAG_free);
}

/* How often the password is hashed: the writer's choice, so it has a limit. -1: not known. */
static int64_t iterations_of(const X509_ALGOR *algor)
{
	const ASN1_OBJECT *oid;
	const void *value;
	int type;
	int64_t count = -1;

	X509_ALGOR_get0(&oid, &type, &value, algor);
	if (type != V_ASN1_SEQUENCE)
		return -1;
	if (OBJ_obj2nid(oid) == NID_pbes2) {
		KT_AUTOSSL(PBE2PARAM) pbe2 = ASN1_item_unpack(value, ASN1_ITEM_rptr(PBE2PARAM));
		KT_AUTOSSL(PBKDF2PARAM) kdf = NULL;

		if (pbe2 != NULL && OBJ_obj2nid(pbe2->keyfunc->algorithm) == NID_id_pbkdf2 && pbe2->keyfunc->parameter != NULL &&
		    pbe2->keyfunc->parameter->type == V_ASN1_SEQUENCE)
			kdf = ASN1_item_unpack(pbe2->keyfunc->parameter->value.sequence, ASN1_ITEM_rptr(PBKDF2PARAM));
		if (kdf == NULL || ASN1_INTEGER_get_int64(&count, kdf->iter) != 1)
			return -1;
	} else {
		KT_AUTOSSL(PBEPARAM) pbe = ASN1_item_unpack(value, ASN1_ITEM_rptr(PBEPARAM));

		if (pbe == NULL || ASN1_INTEGER_get_int64(&count, pbe->iter) != 1)
			return -1;
	}
	return count;
}

static STACK_OF(PKCS12_SAFEBAG) *decrypt(struct store *store, const PKCS7 *safe, struct kt_view password, struct kt_err *err)
{
	const PKCS7_ENC_CONTENT *content = safe->d.encrypted != NULL ? safe->d.encrypted->enc_data : NULL;
	int64_t count = content != NULL && content->algorithm != NULL ? iterations_of(content->algorithm) : -1;
	STACK_OF(PKCS12_SAFEBAG) *bags;
	OSSL_LIB_CTX *legacy = NULL;

	if (content == NULL || content->enc_data == NULL || count < 1 || count > store->iterations) {
		(void)kt_err_set(err, count > store->iterations ? KT_E_LIMIT : KT_E_PROTO,
				 "the PKCS#12 store is encrypted in a way that is not read here%s",
				 count > store->iterations ? ": too many iterations" : "");
		return NULL;
	}
	store->iterations -= count;
	bags = PKCS12_item_decrypt_d2i_ex(content->algorithm, ASN1_ITEM_rptr(PKCS12_SAFEBAGS), password.ptr, (int)password.len,
					  content->enc_data, 1, NULL, NULL);
	/* RC2, as Java 8 and OpenSSL 1 wrote it, where the legacy provider is there. */
	if (bags == NULL && kt_pki_p12_legacy(&legacy, NULL) == KT_OK)
		bags = PKCS12_item_decrypt_d2i_ex(content->algorithm, ASN1_ITEM_rptr(PKCS12_SAFEBAGS), password.ptr,
						  (int)password.len, content->enc_data, 1, legacy, NULL);
	ERR_clear_error();
	if (bags == NULL)
		(void)kt_err_set(err, KT_E_AUTH, "the PKCS#12 store does not open with this password");
	return bags;
}

static enum kt_code unpack(struct store *store, const PKCS12 *p12, struct kt_view password, struct kt_err *err)
{
	STACK_OF(PKCS7) *safes = PKCS12_unpack_authsafes(p12);
	enum kt_code code = KT_OK;

	if (safes == NULL || sk_PKCS7_num(safes) > SAFES_MAX)
		code = kt_err_set(err, KT_E_PROTO, "the PKCS#12 store has no contents that can be read");
	for (int i = 0; code == KT_OK && i < sk_PKCS7_num(safes); i++) {
		PKCS7 *safe = sk_PKCS7_value(safes, i);
		STACK_OF(PKCS12_SAFEBAG) *bags;

		if (PKCS7_type_is_data(safe))
			bags = PKCS12_unpack_p7data(safe);
		else if (PKCS7_type_is_encrypted(safe))
			bags = decrypt(store, safe, password, err);
		else
			continue;
		if (bags == NULL) {
			code = err != NULL && err->code != KT_OK
				       ? err->code
				       : kt_err_set(err, KT_E_PROTO, "the PKCS#12 store has contents that can't be read");
			break;
		}
		store->bags[store->safe_count++] = bags;
		store->bag_count += sk_PKCS12_SAFEBAG_num(bags);
		if (store->bag_count > BAGS_MAX)
			code = kt_err_set(err, KT_E_LIMIT, "the PKCS#12 store has more than %d entries", BAGS_MAX);
	}
	sk_PKCS7_pop_free(safes, PKCS7_free);
	ERR_clear_error();
	return code;
}

/* The store's MAC, so that a damaged store is not taken for another certificate; a PBMAC1 (RFC 9579) is passed over. */
static enum kt_code check_mac(struct store *store, PKCS12 *p12, struct kt_view password, struct kt_err *err)
{
	const X509_ALGOR *algor = NULL;
	const ASN1_INTEGER *count = NULL;
	int64_t iterations = 1;

	PKCS12_get0_mac(NULL, &algor, NULL, &count, p12);
	if (algor == NULL || EVP_get_digestbynid(OBJ_obj2nid(algor->algorithm)) == NULL)
		return KT_OK;
	if (count != NULL && (ASN1_INTEGER_get_int64(&iterations, count) != 1 || iterations > store->iterations))
		return kt_err_set(err, KT_E_LIMIT, "the PKCS#12 store asks for too many iterations");
	store->iterations -= iterations;
	if (PKCS12_verify_mac(p12, password.ptr, (int)password.len) == 1 ||
	    (password.len == 0 && PKCS12_verify_mac(p12, NULL, 0) == 1))
		return KT_OK;
	ERR_clear_error();
	return kt_err_set(err, KT_E_AUTH, "the PKCS#12 store does not open with this password");
}

/* Java looks aliases up without regard to case. */
static bool is_named(const PKCS12_SAFEBAG *bag, const char *alias)
{
	char *name = PKCS12_get_friendlyname((PKCS12_SAFEBAG *)(uintptr_t)bag);
	bool same = name != NULL && strcasecmp(name, alias) == 0;

	OPENSSL_free(name);
	return same;
}

static const ASN1_TYPE *key_id(const PKCS12_SAFEBAG *bag)
{
	return PKCS12_SAFEBAG_get0_attr(bag, NID_localKeyID);
}

static bool is_cert(const PKCS12_SAFEBAG *bag)
{
	return PKCS12_SAFEBAG_get_nid(bag) == NID_certBag && PKCS12_SAFEBAG_get_bag_nid(bag) == NID_x509Certificate;
}

static bool is_key(const PKCS12_SAFEBAG *bag)
{
	int nid = PKCS12_SAFEBAG_get_nid(bag);

	return nid == NID_keyBag || nid == NID_pkcs8ShroudedKeyBag;
}

static const PKCS12_SAFEBAG *bag_at(const struct store *store, int index)
{
	for (int i = 0; i < store->safe_count; i++) {
		int count = sk_PKCS12_SAFEBAG_num(store->bags[i]);

		if (index < count)
			return sk_PKCS12_SAFEBAG_value(store->bags[i], index);
		index -= count;
	}
	return NULL;
}

/* The certificate that belongs to this key. */
static const PKCS12_SAFEBAG *cert_of_key(const struct store *store, const PKCS12_SAFEBAG *key)
{
	const ASN1_TYPE *id = key_id(key);

	for (int i = 0; id != NULL && i < store->bag_count; i++) {
		const PKCS12_SAFEBAG *bag = bag_at(store, i);
		const ASN1_TYPE *other = is_cert(bag) ? key_id(bag) : NULL;

		if (other != NULL && ASN1_TYPE_cmp(id, other) == 0)
			return bag;
	}
	return NULL;
}

/* By alias that of the entry; else that of the first key; else the first there is. */
static const PKCS12_SAFEBAG *choose(const struct store *store)
{
	const PKCS12_SAFEBAG *found = NULL;

	for (int i = 0; found == NULL && i < store->bag_count; i++) {
		const PKCS12_SAFEBAG *bag = bag_at(store, i);

		if (is_key(bag) && (store->alias == NULL || is_named(bag, store->alias)))
			found = cert_of_key(store, bag);
	}
	for (int i = 0; found == NULL && i < store->bag_count; i++) {
		const PKCS12_SAFEBAG *bag = bag_at(store, i);

		if (is_cert(bag) && (store->alias == NULL || is_named(bag, store->alias)))
			found = bag;
	}
	return found;
}

static enum kt_code take_bag(const PKCS12_SAFEBAG *bag, struct kt_cert **ret, struct kt_err *err)
{
	KT_AUTOSSL(X509) x509 = PKCS12_SAFEBAG_get1_cert(bag);
	unsigned char *der = NULL;
	int len = x509 != NULL ? i2d_X509(x509, &der) : -1;
	enum kt_code code;

	if (len <= 0)
		return kt_pki_openssl_err(err, KT_E_PROTO, "the PKCS#12 store has no certificate that can be read");
	code = kt_pki_cert_from_der((struct kt_view){(const char *)der, (size_t)len}, ret, err);
	OPENSSL_free(der);
	return code;
}

static enum kt_code no_entry(const char *what, const char *alias, struct kt_err *err)
{
	return alias != NULL ? kt_err_set(err, KT_E_NOTFOUND, "the %s store has no certificate under alias %.128s", what, alias)
			     : kt_err_set(err, KT_E_PROTO, "the %s store has no certificate", what);
}

enum kt_code kt_pki_p12_certificate(struct kt_view bytes, const char *alias, const struct kt_secret *password,
				    struct kt_cert **ret, struct kt_err *err)
{
	const unsigned char *at = (const unsigned char *)bytes.ptr;
	struct kt_view word = password != NULL ? kt_secret_view(password) : (struct kt_view){"", 0};
	struct store store = {.alias = alias, .iterations = ITERATIONS_MAX};
	uint64_t failures = kt_mem_failures();
	const PKCS12_SAFEBAG *bag;
	enum kt_code code = check_size(bytes, err);

	if (code != KT_OK)
		return code;
	KT_AUTOSSL(PKCS12) p12 = d2i_PKCS12(NULL, &at, (long)bytes.len);

	if (p12 == NULL) {
		ERR_clear_error();
		code = bytes.len > 4 && memcmp(bytes.ptr, "\xfe\xed\xfe\xed", 4) == 0
			       ? kt_err_set(err, KT_E_PROTO, "the file is a JKS store: say format: JKS")
			       : kt_err_set(err, KT_E_PROTO, "the file is no PKCS#12 store");
		return kt_pki_settle(code, failures, err);
	}
	code = check_mac(&store, p12, word, err);
	if (code == KT_OK)
		code = unpack(&store, p12, word, err);
	if (code == KT_OK) {
		bag = choose(&store);
		code = bag != NULL ? take_bag(bag, ret, err) : no_entry("PKCS#12", alias, err);
	}
	store_finish(&store);
	ERR_clear_error();
	return kt_pki_settle(code, failures, err);
}

/* --- JKS ---------------------------------------------------------------------------------------------------------------- */

/* Takes from the front; `bad` stays set when there was not enough. */
struct cursor {
	struct kt_view rest;
	bool bad;
};

static struct kt_view take(struct cursor *cursor, size_t len)
{
	struct kt_view part = {cursor->rest.ptr, len};

	if (cursor->bad || len > cursor->rest.len) {
		cursor->bad = true;
		return (struct kt_view){"", 0};
	}
	cursor->rest.ptr += len;
	cursor->rest.len -= len;
	return part;
}

static uint64_t take_number(struct cursor *cursor, size_t bytes)
{
	struct kt_view part = take(cursor, bytes);
	uint64_t value = 0;

	for (size_t i = 0; i < part.len; i++)
		value = value << 8 | (unsigned char)part.ptr[i];
	return value;
}

static struct kt_view take_text(struct cursor *cursor)
{
	return take(cursor, (size_t)take_number(cursor, 2));
}

static struct kt_view take_cert(struct cursor *cursor, uint64_t version)
{
	if (version == 2)
		(void)take_text(cursor); /* its type, X.509 */
	return take(cursor, (size_t)take_number(cursor, 4));
}

/* The leaf of an entry; *ret_kind JKS_KEY or JKS_CERT. */
static struct kt_view take_entry(struct cursor *cursor, uint64_t version, struct kt_view *ret_alias, uint64_t *ret_kind)
{
	struct kt_view leaf = {NULL, 0};
	uint64_t count = 1;

	*ret_kind = take_number(cursor, 4);
	*ret_alias = take_text(cursor);
	(void)take_number(cursor, 8);
	if (*ret_kind == JKS_KEY) {
		(void)take(cursor, (size_t)take_number(cursor, 4));
		count = take_number(cursor, 4);
	} else if (*ret_kind != JKS_CERT) {
		cursor->bad = true;
	}
	cursor->bad = cursor->bad || count > CHAIN_MAX;
	for (uint64_t i = 0; i < count && !cursor->bad; i++) {
		struct kt_view der = take_cert(cursor, version);

		leaf = i == 0 ? der : leaf;
	}
	return leaf;
}

static bool same_alias(struct kt_view alias, const char *wanted)
{
	return alias.len == strlen(wanted) && strncasecmp(alias.ptr, wanted, alias.len) == 0;
}

enum kt_code kt_pki_jks_certificate(struct kt_view bytes, const char *alias, struct kt_cert **ret, struct kt_err *err)
{
	struct cursor cursor = {bytes, false};
	struct kt_view first = {NULL, 0}, found = {NULL, 0}, name;
	enum kt_code code = check_size(bytes, err);
	uint64_t magic, version, count, kind;

	if (code != KT_OK)
		return code;
	magic = take_number(&cursor, 4);
	version = take_number(&cursor, 4);
	count = take_number(&cursor, 4);
	if (magic != JKS_MAGIC || version < 1 || version > 2 || cursor.bad)
		return kt_err_set(err, KT_E_PROTO, "the file is no JKS store%s",
				  bytes.ptr[0] == 0x30 ? ": it looks like PKCS12, which Java writes by default; say format: PKCS12"
						       : "");
	if (count > ENTRIES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "the JKS store has more than %u entries", ENTRIES_MAX);
	for (uint64_t i = 0; i < count && !cursor.bad; i++) {
		struct kt_view leaf = take_entry(&cursor, version, &name, &kind);

		first = first.ptr == NULL ? leaf : first;
		if (found.ptr == NULL && leaf.len > 0 && (alias != NULL ? same_alias(name, alias) : kind == JKS_KEY))
			found = leaf;
	}
	if (cursor.bad)
		return kt_err_set(err, KT_E_PROTO, "the JKS store is cut off or damaged");
	if (found.ptr == NULL && alias == NULL)
		found = first;
	return found.len > 0 ? kt_pki_cert_from_der(found, ret, err) : no_entry("JKS", alias, err);
}
