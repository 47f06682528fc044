/* PKCS#12 key stores and trust stores (RFC 7292, RFC 9579) with the four profiles that cert-manager offers. */
#include "pki/pki_internal.h"

#include <openssl/core_names.h>
#include <openssl/hmac.h>
#include <openssl/pkcs12.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define P12_MAX (512u * 1024u)
#define ITERATIONS 2048
#define SALT_MAX 16
#define MAC_MAX 32
#define ALIAS_MAX 256

KT_SSL_CLEANUP(X509_ALGOR, X509_ALGOR_free)

static const uint8_t oid_data[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01};
static const uint8_t oid_encrypted_data[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06};
static const uint8_t oid_key_bag[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02};
static const uint8_t oid_cert_bag[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03};
static const uint8_t oid_x509[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01};
static const uint8_t oid_friendly_name[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14};
static const uint8_t oid_local_key[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x15};
static const uint8_t oid_pbkdf2[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c};
static const uint8_t oid_pbmac1[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0e};
static const uint8_t oid_hmac_sha256[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09};
static const uint8_t oid_sha1[] = {0x2b, 0x0e, 0x03, 0x02, 0x1a};
static const uint8_t oid_sha256[] = {0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
/* 2.16.840.1.113894.746875.1.1 with anyExtendedKeyUsage: Java's mark of a trusted certificate. */
#define OID_JAVA_TRUSTED "2.16.840.1.113894.746875.1.1"
#define OID_ANY_USAGE "2.5.29.37.0"

enum mac { MAC_SHA1, MAC_SHA256, MAC_PBMAC1 };

static const struct profile {
	const char *name;
	int cert_nid, key_nid; /* PBES1 algorithms; 0: PBES2 with AES-256-CBC and HMAC-SHA-256 */
	enum mac mac;
	int mac_iterations;
	size_t salt_len;
	bool legacy;
} profiles[] = {
        [KT_P12_LEGACY_RC2] = {"LegacyRC2", NID_pbe_WithSHA1And40BitRC2_CBC,
                               NID_pbe_WithSHA1And3_Key_TripleDES_CBC, MAC_SHA1, 1, 8, true},
        [KT_P12_LEGACY_DES] = {"LegacyDES", NID_pbe_WithSHA1And3_Key_TripleDES_CBC,
                               NID_pbe_WithSHA1And3_Key_TripleDES_CBC, MAC_SHA1, 1, 8, false},
        [KT_P12_MODERN_2023] = {"Modern2023", 0, 0, MAC_SHA256, ITERATIONS, 16, false},
        [KT_P12_MODERN_2026] = {"Modern2026", 0, 0, MAC_PBMAC1, ITERATIONS, 16, false},
};

/* What one file is made with. */
struct maker {
	const struct profile *profile;
	OSSL_LIB_CTX *lib;
	struct kt_view password;
};

enum kt_code kt_pki_p12_profile_parse(const char *name, enum kt_p12_profile *ret, struct kt_err *err)
{
	if (name == NULL || name[0] == '\0') {
		*ret = KT_P12_LEGACY_RC2;
		return KT_OK;
	}
	for (int i = KT_P12_LEGACY_RC2; i <= KT_P12_MODERN_2026; i++) {
		if (strcmp(name, profiles[i].name) == 0) {
			*ret = (enum kt_p12_profile)i;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID,
	                  "unknown PKCS#12 profile \"%.60s\": LegacyRC2, LegacyDES, Modern2023 or Modern2026", name);
}

/* RC2 lives in the legacy provider. It is loaded into a context of its own, so that nothing else can pick it. */
static pthread_mutex_t legacy_lock = PTHREAD_MUTEX_INITIALIZER;
static OSSL_LIB_CTX *legacy_ctx;
static OSSL_PROVIDER *legacy_providers[2];

void kt_pki_p12_finish(void)
{
	for (size_t i = 0; i < 2; i++)
		if (legacy_providers[i] != NULL)
			OSSL_PROVIDER_unload(legacy_providers[i]);
	memset(legacy_providers, 0, sizeof(legacy_providers));
	OSSL_LIB_CTX_free(legacy_ctx);
	legacy_ctx = NULL;
}

enum kt_code kt_pki_p12_legacy(OSSL_LIB_CTX **ret, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	pthread_mutex_lock(&legacy_lock);
	if (legacy_ctx == NULL) {
		legacy_ctx = OSSL_LIB_CTX_new();
		if (legacy_ctx != NULL) {
			legacy_providers[0] = OSSL_PROVIDER_load(legacy_ctx, "legacy");
			legacy_providers[1] = OSSL_PROVIDER_load(legacy_ctx, "default");
		}
		if (legacy_providers[0] == NULL || legacy_providers[1] == NULL) {
			kt_pki_p12_finish();
			ERR_clear_error();
			code = kt_err_set(err, KT_E_UNSUPPORTED,
			                  "PKCS#12 profile LegacyRC2 needs OpenSSL's legacy provider (legacy.so, package "
			                  "libssl3 or openssl-provider-legacy), which can't be loaded: use LegacyDES or Modern2023");
		}
	}
	*ret = legacy_ctx;
	pthread_mutex_unlock(&legacy_lock);
	return code;
}

enum kt_code kt_pki_p12_prepare(enum kt_p12_profile profile, struct kt_err *err)
{
	OSSL_LIB_CTX *lib = NULL;

	return profiles[profile].legacy ? kt_pki_p12_legacy(&lib, err) : KT_OK;
}

static enum kt_code maker_init(struct maker *maker, enum kt_p12_profile profile, const struct kt_secret *password,
                               struct kt_err *err)
{
	maker->profile = &profiles[profile];
	maker->lib = NULL;
	maker->password = kt_secret_view(password);
	if (!kt_utf8_valid(maker->password))
		return kt_err_set(err, KT_E_INVALID, "the key store's password is no UTF-8 text");
	return maker->profile->legacy ? kt_pki_p12_legacy(&maker->lib, err) : KT_OK;
}

/* --- encryption -------------------------------------------------------------------------------------------------------- */

/* Encrypts plain; adds the AlgorithmIdentifier and then the ciphertext under `tag` to out. */
static enum kt_code encrypt(const struct maker *maker, int nid, const struct kt_buf *plain, uint8_t tag,
                            struct kt_buf *out, struct kt_err *err)
{
	KT_AUTOSSL(X509_ALGOR) algor = NULL;
	uint8_t salt[SALT_MAX], *cipher = NULL, *der = NULL;
	int salt_len = (int)maker->profile->salt_len, cipher_len = 0, der_len;

	kt_rand_bytes(salt, sizeof(salt));
	if (nid != 0)
		algor = PKCS5_pbe_set_ex(nid, ITERATIONS, salt, salt_len, maker->lib);
	else
		algor = PKCS5_pbe2_set_iv_ex(EVP_aes_256_cbc(), ITERATIONS, salt, salt_len, NULL, NID_hmacWithSHA256,
		                             maker->lib);
	if (algor == NULL ||
	    PKCS12_pbe_crypt_ex(algor, maker->password.ptr, (int)maker->password.len, (const uint8_t *)plain->ptr,
	                        (int)plain->len, &cipher, &cipher_len, 1, maker->lib, NULL) == NULL)
		return kt_pki_openssl_err(err, KT_E_UNSUPPORTED, "PKCS#12 profile %s: OpenSSL here can't encrypt with it",
		                          maker->profile->name);
	der_len = i2d_X509_ALGOR(algor, &der);
	if (der_len > 0) {
		kt_buf_add(out, der, (size_t)der_len);
		kt_der_put(out, tag, cipher, (size_t)cipher_len);
	}
	OPENSSL_free(der);
	OPENSSL_free(cipher);
	return der_len > 0 ? kt_buf_check(out, "PKCS#12", err) : kt_pki_openssl_err(err, KT_E_NOMEM, "PKCS#12");
}

/* --- bags -------------------------------------------------------------------------------------------------------------- */

struct bag_attrs {
	const char *alias;      /* NULL: none */
	const uint8_t *key_id;  /* 20 bytes, or NULL */
	bool java_trusted;
};

static enum kt_code put_alias(struct kt_buf *out, const char *alias, struct kt_err *err)
{
	size_t seq = kt_der_open(out, DER_SEQUENCE), set;
	unsigned char *bmp = NULL;
	int len = 0;

	if (strlen(alias) > ALIAS_MAX || !kt_utf8_valid(kt_view_str(alias)) ||
	    OPENSSL_utf82uni(alias, (int)strlen(alias), &bmp, &len) == NULL)
		return kt_err_set(err, KT_E_INVALID, "the key store's alias is too long or no text");
	kt_der_put(out, DER_OID, oid_friendly_name, sizeof(oid_friendly_name));
	set = kt_der_open(out, DER_SET);
	kt_der_put(out, DER_BMP, bmp, (size_t)len - 2); /* without the closing zero */
	kt_der_close(out, set);
	kt_der_close(out, seq);
	OPENSSL_free(bmp);
	return KT_OK;
}

static void put_key_id(struct kt_buf *out, const uint8_t *key_id)
{
	size_t seq = kt_der_open(out, DER_SEQUENCE), set;

	kt_der_put(out, DER_OID, oid_local_key, sizeof(oid_local_key));
	set = kt_der_open(out, DER_SET);
	kt_der_put(out, DER_OCTETS, key_id, 20);
	kt_der_close(out, set);
	kt_der_close(out, seq);
}

static void put_java_trusted(struct kt_buf *out)
{
	size_t seq = kt_der_open(out, DER_SEQUENCE), set;

	kt_der_oid(out, OID_JAVA_TRUSTED);
	set = kt_der_open(out, DER_SET);
	kt_der_oid(out, OID_ANY_USAGE);
	kt_der_close(out, set);
	kt_der_close(out, seq);
}

/* DER sorts the members of a SET: the shorter encoding comes first here, since lengths stand in front. */
static enum kt_code put_attrs(struct kt_buf *out, const struct bag_attrs *attrs, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF alias;
	struct kt_buf KT_AUTOBUF other;
	enum kt_code code = KT_OK;
	size_t set;
	bool alias_first;

	kt_buf_init(&alias, 2048);
	kt_buf_init(&other, 2048);
	if (attrs->alias != NULL)
		code = put_alias(&alias, attrs->alias, err);
	if (attrs->key_id != NULL)
		put_key_id(&other, attrs->key_id);
	if (attrs->java_trusted)
		put_java_trusted(&other);
	if (code == KT_OK)
		code = kt_buf_check(&alias, "PKCS#12", err);
	if (code == KT_OK)
		code = kt_buf_check(&other, "PKCS#12", err);
	if (code != KT_OK || alias.len + other.len == 0)
		return code;
	alias_first = other.len == 0 || (alias.len > 0 && alias.len < other.len) ||
	              (alias.len == other.len && memcmp(alias.ptr, other.ptr, alias.len) < 0);
	set = kt_der_open(out, DER_SET);
	if (alias_first && alias.len > 0)
		kt_buf_add(out, alias.ptr, alias.len);
	if (other.len > 0)
		kt_buf_add(out, other.ptr, other.len);
	if (!alias_first && alias.len > 0)
		kt_buf_add(out, alias.ptr, alias.len);
	kt_der_close(out, set);
	return KT_OK;
}

static enum kt_code put_cert_bag(struct kt_buf *out, const struct kt_cert *cert, const struct bag_attrs *attrs,
                                 struct kt_err *err)
{
	size_t bag = kt_der_open(out, DER_SEQUENCE), value, seq, content;
	enum kt_code code;

	kt_der_put(out, DER_OID, oid_cert_bag, sizeof(oid_cert_bag));
	value = kt_der_open(out, DER_CONTEXT_CONS(0));
	seq = kt_der_open(out, DER_SEQUENCE);
	kt_der_put(out, DER_OID, oid_x509, sizeof(oid_x509));
	content = kt_der_open(out, DER_CONTEXT_CONS(0));
	kt_der_put(out, DER_OCTETS, cert->der.ptr, cert->der.len);
	kt_der_close(out, content);
	kt_der_close(out, seq);
	kt_der_close(out, value);
	code = put_attrs(out, attrs, err);
	kt_der_close(out, bag);
	return code;
}

static enum kt_code put_key_bag(const struct maker *maker, struct kt_buf *out, const struct kt_key *key,
                                const struct bag_attrs *attrs, struct kt_err *err)
{
	size_t bag = kt_der_open(out, DER_SEQUENCE), value, seq;
	struct kt_buf KT_AUTOBUF plain;
	enum kt_code code;

	kt_buf_init(&plain, 16384);
	kt_der_put(out, DER_OID, oid_key_bag, sizeof(oid_key_bag));
	value = kt_der_open(out, DER_CONTEXT_CONS(0));
	seq = kt_der_open(out, DER_SEQUENCE);
	code = kt_pki_key_add_private(key, KT_KEY_PKCS8, &plain, err);
	if (code == KT_OK)
		code = encrypt(maker, maker->profile->key_nid, &plain, DER_OCTETS, out, err);
	if (code != KT_OK)
		return code;
	kt_der_close(out, seq);
	kt_der_close(out, value);
	code = put_attrs(out, attrs, err);
	kt_der_close(out, bag);
	return code;
}

/* --- contents and MAC --------------------------------------------------------------------------------------------------- */

/* ContentInfo of type encryptedData around the bags. */
static enum kt_code put_encrypted(const struct maker *maker, const struct kt_buf *bags, struct kt_buf *out,
                                  struct kt_err *err)
{
	size_t info = kt_der_open(out, DER_SEQUENCE), content, data, inner;
	enum kt_code code;

	kt_der_put(out, DER_OID, oid_encrypted_data, sizeof(oid_encrypted_data));
	content = kt_der_open(out, DER_CONTEXT_CONS(0));
	data = kt_der_open(out, DER_SEQUENCE);
	kt_der_small(out, 0);
	inner = kt_der_open(out, DER_SEQUENCE);
	kt_der_put(out, DER_OID, oid_data, sizeof(oid_data));
	code = encrypt(maker, maker->profile->cert_nid, bags, DER_CONTEXT(0), out, err);
	kt_der_close(out, inner);
	kt_der_close(out, data);
	kt_der_close(out, content);
	kt_der_close(out, info);
	return code;
}

static void put_data(const void *bytes, size_t len, struct kt_buf *out)
{
	size_t info = kt_der_open(out, DER_SEQUENCE), content;

	kt_der_put(out, DER_OID, oid_data, sizeof(oid_data));
	content = kt_der_open(out, DER_CONTEXT_CONS(0));
	kt_der_put(out, DER_OCTETS, bytes, len);
	kt_der_close(out, content);
	kt_der_close(out, info);
}

static void put_hmac_alg(struct kt_buf *out)
{
	size_t seq = kt_der_open(out, DER_SEQUENCE);

	kt_der_put(out, DER_OID, oid_hmac_sha256, sizeof(oid_hmac_sha256));
	kt_der_put(out, DER_NULL, NULL, 0);
	kt_der_close(out, seq);
}

/* PBMAC1-params of RFC 9579 section 4. */
static void put_pbmac1(struct kt_buf *out, const uint8_t *salt, size_t salt_len)
{
	size_t params = kt_der_open(out, DER_SEQUENCE), kdf = kt_der_open(out, DER_SEQUENCE), pbkdf2;

	kt_der_put(out, DER_OID, oid_pbkdf2, sizeof(oid_pbkdf2));
	pbkdf2 = kt_der_open(out, DER_SEQUENCE);
	kt_der_put(out, DER_OCTETS, salt, salt_len);
	kt_der_small(out, ITERATIONS);
	kt_der_small(out, MAC_MAX);
	put_hmac_alg(out);
	kt_der_close(out, pbkdf2);
	kt_der_close(out, kdf);
	put_hmac_alg(out);
	kt_der_close(out, params);
}

static bool compute_mac(const struct maker *maker, const uint8_t *salt, const struct kt_buf *content,
                        uint8_t mac[MAC_MAX], size_t *mac_len)
{
	const struct profile *p = maker->profile;
	const EVP_MD *md = p->mac == MAC_SHA1 ? kt_pki_algs.sha1 : kt_pki_algs.sha256;
	uint8_t key[MAC_MAX] = {0};
	unsigned len = 0;
	bool ok;

	if (md == NULL)
		return false;
	*mac_len = (size_t)EVP_MD_get_size(md);
	if (p->mac == MAC_PBMAC1)
		ok = PKCS5_PBKDF2_HMAC(maker->password.ptr, (int)maker->password.len, salt, (int)p->salt_len, ITERATIONS,
		                       md, (int)*mac_len, key) == 1;
	else
		ok = PKCS12_key_gen_utf8_ex(maker->password.ptr, (int)maker->password.len, (unsigned char *)(uintptr_t)salt,
		                            (int)p->salt_len, PKCS12_MAC_ID, p->mac_iterations, (int)*mac_len, key, md,
		                            NULL, NULL) == 1;
	ok = ok && HMAC(md, key, (int)*mac_len, (const uint8_t *)content->ptr, content->len, mac, &len) != NULL &&
	     len == *mac_len;
	kt_wipe(key, sizeof(key));
	return ok;
}

static enum kt_code put_mac(const struct maker *maker, const struct kt_buf *content, struct kt_buf *out,
                            struct kt_err *err)
{
	const struct profile *p = maker->profile;
	uint8_t salt[SALT_MAX], mac[MAC_MAX];
	size_t data, info, alg, mac_len = 0;

	kt_rand_bytes(salt, sizeof(salt));
	if (!compute_mac(maker, salt, content, mac, &mac_len))
		return kt_pki_openssl_err(err, KT_E_UNSUPPORTED, "PKCS#12 profile %s: OpenSSL here can't make its MAC",
		                          p->name);
	data = kt_der_open(out, DER_SEQUENCE);
	info = kt_der_open(out, DER_SEQUENCE);
	alg = kt_der_open(out, DER_SEQUENCE);
	if (p->mac == MAC_PBMAC1) {
		kt_der_put(out, DER_OID, oid_pbmac1, sizeof(oid_pbmac1));
		put_pbmac1(out, salt, p->salt_len);
	} else {
		if (p->mac == MAC_SHA1)
			kt_der_put(out, DER_OID, oid_sha1, sizeof(oid_sha1));
		else
			kt_der_put(out, DER_OID, oid_sha256, sizeof(oid_sha256));
		kt_der_put(out, DER_NULL, NULL, 0);
	}
	kt_der_close(out, alg);
	kt_der_put(out, DER_OCTETS, mac, mac_len);
	kt_der_close(out, info);
	kt_der_put(out, DER_OCTETS, salt, p->salt_len);
	if (p->mac_iterations != 1) /* DEFAULT 1 */
		kt_der_small(out, (unsigned)p->mac_iterations);
	kt_der_close(out, data);
	return KT_OK;
}

/* The PFX around the contents. key_bags may be NULL. */
static enum kt_code put_pfx(const struct maker *maker, const struct kt_buf *cert_bags, const struct kt_buf *key_bags,
                            struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF safe;
	enum kt_code code;
	size_t pos;

	kt_buf_init(&safe, P12_MAX);
	pos = kt_der_open(&safe, DER_SEQUENCE);
	code = put_encrypted(maker, cert_bags, &safe, err);
	if (code != KT_OK)
		return code;
	if (key_bags != NULL)
		put_data(key_bags->ptr, key_bags->len, &safe);
	kt_der_close(&safe, pos);
	code = kt_buf_check(&safe, "PKCS#12", err);
	if (code != KT_OK)
		return code;
	pos = kt_der_open(out, DER_SEQUENCE);
	kt_der_small(out, 3);
	put_data(safe.ptr, safe.len, out);
	code = put_mac(maker, &safe, out, err);
	kt_der_close(out, pos);
	return code == KT_OK ? kt_buf_check(out, "PKCS#12", err) : code;
}

/* --- stores --------------------------------------------------------------------------------------------------------------- */

enum kt_code kt_pki_p12_keystore(const struct kt_key *key, const struct kt_chain *chain, const char *alias,
                                 const struct kt_secret *password, enum kt_p12_profile profile, struct kt_secret **ret,
                                 struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF certs;
	struct kt_buf KT_AUTOBUF keys;
	struct kt_buf KT_AUTOBUF out;
	struct bag_attrs attrs = {.alias = alias != NULL ? alias : "certificate"};
	uint8_t key_id[KT_SHA256_LEN];
	struct maker maker;
	enum kt_code code;
	size_t pos;

	kt_buf_init(&certs, P12_MAX);
	kt_buf_init(&keys, P12_MAX);
	kt_buf_init(&out, P12_MAX);
	if (!kt_pki_cert_has_key(chain->at[0], key))
		return kt_err_set(err, KT_E_CRYPTO, "key store: the certificate is for another key");
	code = maker_init(&maker, profile, password, err);
	if (code != KT_OK)
		return code;
	kt_sha256(chain->at[0]->der.ptr, chain->at[0]->der.len, key_id); /* its first 20 bytes tie key and leaf together */
	attrs.key_id = key_id;
	pos = kt_der_open(&certs, DER_SEQUENCE);
	for (size_t i = 0; code == KT_OK && i < chain->count; i++) {
		static const struct bag_attrs none = {NULL, NULL, false};

		code = put_cert_bag(&certs, chain->at[i], i == 0 ? &attrs : &none, err);
	}
	kt_der_close(&certs, pos);
	pos = kt_der_open(&keys, DER_SEQUENCE);
	if (code == KT_OK)
		code = put_key_bag(&maker, &keys, key, &attrs, err);
	kt_der_close(&keys, pos);
	if (code == KT_OK)
		code = kt_buf_check(&certs, "PKCS#12", err);
	if (code == KT_OK)
		code = kt_buf_check(&keys, "PKCS#12", err);
	if (code == KT_OK)
		code = put_pfx(&maker, &certs, &keys, &out, err);
	return code == KT_OK ? kt_secret_from_buf(&out, ret, err) : code;
}

enum kt_code kt_pki_p12_truststore(const struct kt_chain *cas, const struct kt_secret *password,
                                   enum kt_p12_profile profile, struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF certs;
	struct maker maker;
	enum kt_code code;
	char alias[32];
	size_t pos;

	kt_buf_init(&certs, P12_MAX);
	code = maker_init(&maker, profile, password, err);
	pos = kt_der_open(&certs, DER_SEQUENCE);
	for (size_t i = 0; code == KT_OK && i < cas->count; i++) {
		struct bag_attrs attrs = {.alias = alias, .java_trusted = true};

		if (i == 0)
			memcpy(alias, "ca", 3);
		else
			snprintf(alias, sizeof(alias), "ca-%zu", i);
		code = put_cert_bag(&certs, cas->at[i], &attrs, err);
	}
	kt_der_close(&certs, pos);
	if (code == KT_OK)
		code = kt_buf_check(&certs, "PKCS#12", err);
	return code == KT_OK ? put_pfx(&maker, &certs, NULL, out, err) : code;
}

/* --- a key alone --------------------------------------------------------------------------------------------------------- */

enum kt_code kt_pki_key_to_encrypted_pem(const struct kt_key *key, const struct kt_secret *password,
                                         struct kt_secret **ret, struct kt_err *err)
{
	static const char label[] = "ENCRYPTED PRIVATE KEY";
	const struct maker maker = {.profile = &profiles[KT_P12_MODERN_2023], .password = kt_secret_view(password)};
	struct kt_buf KT_AUTOBUF plain;
	struct kt_buf KT_AUTOBUF der;
	enum kt_code code;
	size_t pos;

	kt_buf_init(&plain, 16384);
	kt_buf_init(&der, 20480);
	code = kt_pki_key_add_private(key, KT_KEY_PKCS8, &plain, err);
	pos = kt_der_open(&der, DER_SEQUENCE);
	if (code == KT_OK)
		code = encrypt(&maker, maker.profile->key_nid, &plain, DER_OCTETS, &der, err);
	kt_der_close(&der, pos);
	if (code == KT_OK)
		code = kt_buf_check(&der, "an encrypted key", err);
	if (code == KT_OK)
		code = kt_secret_alloc(kt_pem_size(label, der.len), ret, err);
	if (code == KT_OK)
		kt_pem_write(kt_secret_edit(*ret), label, der.ptr, der.len);
	return code;
}
