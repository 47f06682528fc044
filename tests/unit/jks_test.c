/* JKS key stores: read back by a reader of their own here, byte for byte the same again; keytool and Java read them in tests/peers. */
#include "pki_helper.h"

#include <openssl/sha.h>
#include <openssl/x509.h>

#include "pki/pki_openssl.h"

/* ä, and a character that takes two UTF-16 units. */
#define PASSWORD "p\xc3\xa4ss \xf0\x9f\x94\x91"
static const uint8_t password_units[] = {0, 'p', 0, 0xe4, 0, 's', 0, 's', 0, ' ', 0xd8, 0x3d, 0xdd, 0x11};

static struct kt_key *key;
static struct kt_chain *chain; /* leaf, CA */
static struct kt_secret *password;

#define BEGINS (1700000000 * KT_SECOND)

static int setup(void **state)
{
	const struct kt_cert_request ca_request = {.common_name = "JKS CA", .is_ca = true, .not_before = 0, .not_after = KT_TIME_MAX};
	const struct kt_cert_request request = {.common_name = "leaf", .not_before = BEGINS, .not_after = 4000000000 * KT_SECOND};
	KT_AUTOKEY struct kt_key *ca_key = NULL;
	KT_AUTOCERT struct kt_cert *ca = NULL;
	struct kt_issuer *issuer = NULL;
	struct kt_buf KT_AUTOBUF both;
	struct kt_buf KT_AUTOBUF ca_der;

	if (pki_setup(state) != 0)
		return -1;
	kt_buf_init(&both, KT_PKI_DER_MAX);
	kt_buf_init(&ca_der, KT_PKI_DER_MAX);
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &ca_key, &err));
	ok(kt_pki_self_sign(&ca_request, ca_key, &ca_der, NULL, &err));
	ok(kt_pki_cert_from_der(kt_buf_view(&ca_der), &ca, &err));
	ok(kt_pki_issuer_create(ca, ca_key, &issuer, &err));
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err));
	ok(kt_pki_issue(issuer, &request, key, &both, NULL, &err));
	kt_buf_addv(&both, kt_buf_view(&ca_der));
	ok(kt_pki_chain_from_der(kt_buf_view(&both), &chain, &err));
	ok(kt_secret_create(PASSWORD, strlen(PASSWORD), &password, &err));
	kt_pki_issuer_destroy(issuer);
	return 0;
}

static int teardown(void **state)
{
	kt_pki_key_destroy(key);
	kt_pki_chain_destroy(chain);
	kt_secret_destroy(password);
	return pki_teardown(state);
}

/* --- the reader ------------------------------------------------------------------------------------------------------ */

struct reader {
	const uint8_t *at, *end;
};

static const uint8_t *take(struct reader *r, size_t len)
{
	const uint8_t *at = r->at;

	assert_true((size_t)(r->end - r->at) >= len);
	r->at += len;
	return at;
}

static uint64_t number(struct reader *r, size_t bytes)
{
	const uint8_t *at = take(r, bytes);
	uint64_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | *at++;
	return value;
}

static void text(struct reader *r, const char *wanted)
{
	size_t len = number(r, 2);

	assert_int_equal(len, strlen(wanted));
	assert_memory_equal(take(r, len), wanted, len);
}

static void certificate(struct reader *r, size_t nr)
{
	struct kt_view der = kt_pki_cert_der(kt_pki_chain_at(chain, nr));

	text(r, "X.509");
	assert_int_equal(number(r, 4), der.len);
	assert_memory_equal(take(r, der.len), der.ptr, der.len);
}

/* Checks the digest and leaves the reader at the first entry. */
static struct reader open_store(struct kt_view bytes, unsigned entries)
{
	struct reader r = {(const uint8_t *)bytes.ptr, (const uint8_t *)bytes.ptr + bytes.len - SHA_DIGEST_LENGTH};
	uint8_t sum[SHA_DIGEST_LENGTH], all[8192];
	size_t len = sizeof(password_units);

	memcpy(all, password_units, len);
	memcpy(all + len, "Mighty Aphrodite", 16);
	len += 16;
	assert_true(bytes.len > SHA_DIGEST_LENGTH && bytes.len < sizeof(all) - len);
	memcpy(all + len, bytes.ptr, bytes.len - SHA_DIGEST_LENGTH);
	SHA1(all, len + bytes.len - SHA_DIGEST_LENGTH, sum);
	assert_memory_equal(sum, r.end, SHA_DIGEST_LENGTH);
	assert_int_equal(number(&r, 4), 0xfeedfeed);
	assert_int_equal(number(&r, 4), 2);
	assert_int_equal(number(&r, 4), entries);
	return r;
}

/* Undoes the protector: the PKCS#8 form of the key. */
static EVP_PKEY *open_key(const uint8_t *bytes, size_t len)
{
	static const uint8_t oid[] = {0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00};
	const uint8_t *p = bytes, *octets;
	X509_SIG *sig = d2i_X509_SIG(NULL, &p, (long)len);
	const ASN1_OCTET_STRING *body = NULL;
	uint8_t stream[sizeof(password_units) + SHA_DIGEST_LENGTH], check[4096], *plain = check + sizeof(password_units);
	size_t plain_len;
	PKCS8_PRIV_KEY_INFO *info;
	EVP_PKEY *pkey;

	assert_non_null(sig);
	assert_ptr_equal(p, bytes + len);
	assert_non_null(memmem(bytes, len, oid, sizeof(oid)));
	X509_SIG_get0(sig, NULL, &body);
	octets = ASN1_STRING_get0_data(body);
	plain_len = (size_t)ASN1_STRING_length(body) - 2 * SHA_DIGEST_LENGTH;
	memcpy(stream, password_units, sizeof(password_units));
	memcpy(stream + sizeof(password_units), octets, SHA_DIGEST_LENGTH);
	memcpy(check, password_units, sizeof(password_units));
	assert_true(plain_len < sizeof(check) - sizeof(password_units));
	for (size_t i = 0; i < plain_len; i++) {
		if (i % SHA_DIGEST_LENGTH == 0)
			SHA1(stream, sizeof(stream), stream + sizeof(password_units));
		plain[i] = octets[SHA_DIGEST_LENGTH + i] ^ stream[sizeof(password_units) + i % SHA_DIGEST_LENGTH];
	}
	SHA1(check, sizeof(password_units) + plain_len, stream);
	assert_memory_equal(stream, octets + SHA_DIGEST_LENGTH + plain_len, SHA_DIGEST_LENGTH);
	p = plain;
	info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)plain_len);
	assert_non_null(info);
	assert_ptr_equal(p, plain + plain_len);
	pkey = EVP_PKCS82PKEY(info);
	PKCS8_PRIV_KEY_INFO_free(info);
	X509_SIG_free(sig);
	return pkey;
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

static void test_keystore(void **state)
{
	KT_AUTOSECRET struct kt_secret *store = NULL;
	struct reader r;
	EVP_PKEY *pkey;
	size_t len;

	(void)state;
	ok(kt_pki_jks_keystore(key, chain, "My Key", password, &store, &err));
	r = open_store(kt_secret_view(store), 1);
	assert_int_equal(number(&r, 4), 1);
	text(&r, "my key");
	assert_int_equal(number(&r, 8), BEGINS);
	len = number(&r, 4);
	pkey = open_key(take(&r, len), len);
	assert_int_equal(EVP_PKEY_eq(pkey, kt_pki_key_evp(key)), 1);
	EVP_PKEY_free(pkey);
	assert_int_equal(number(&r, 4), 2);
	certificate(&r, 0);
	certificate(&r, 1);
	assert_ptr_equal(r.at, r.end);
	assert_null(memmem(kt_secret_view(store).ptr, kt_secret_len(store), PASSWORD, strlen(PASSWORD)));
}

static void test_truststore(void **state)
{
	struct kt_buf KT_AUTOBUF store;
	struct reader r;

	(void)state;
	kt_buf_init(&store, 65536);
	kt_buf_adds(&store, "before"); /* it adds, and digests only what is its own */
	ok(kt_pki_jks_truststore(chain, password, &store, &err));
	r = open_store((struct kt_view){store.ptr + 6, store.len - 6}, 2);
	assert_int_equal(number(&r, 4), 2);
	text(&r, "ca");
	assert_int_equal(number(&r, 8), BEGINS);
	certificate(&r, 0);
	assert_int_equal(number(&r, 4), 2);
	text(&r, "ca-1");
	assert_int_equal(number(&r, 8), 0);
	certificate(&r, 1);
	assert_ptr_equal(r.at, r.end);
}

/* Written again it is the same file; with another password the whole stream of the key is another one. */
static void test_same_bytes(void **state)
{
	KT_AUTOSECRET struct kt_secret *one = NULL, *again = NULL, *other = NULL, *changed = NULL;
	const uint8_t *a, *b;
	size_t salt_at;

	(void)state;
	ok(kt_secret_create("changeit", 8, &other, &err));
	ok(kt_pki_jks_keystore(key, chain, NULL, password, &one, &err));
	ok(kt_pki_jks_keystore(key, chain, "certificate", password, &again, &err));
	assert_true(kt_view_eq(kt_secret_view(one), kt_secret_view(again)));
	ok(kt_pki_jks_keystore(key, chain, NULL, other, &changed, &err));
	a = (const uint8_t *)kt_secret_view(one).ptr;
	b = (const uint8_t *)kt_secret_view(changed).ptr;
	assert_int_equal(kt_secret_len(one), kt_secret_len(changed));
	/* head 12, tag 4, alias 2 + 11, date 8, length 4, SEQUENCE 3, AlgorithmIdentifier 16, OCTET STRING 3 */
	salt_at = 12 + 4 + 13 + 8 + 4 + 3 + 16 + 3;
	assert_memory_equal(a, b, salt_at);
	assert_memory_not_equal(a + salt_at, b + salt_at, SHA_DIGEST_LENGTH);
	assert_memory_not_equal(a + salt_at + SHA_DIGEST_LENGTH, b + salt_at + SHA_DIGEST_LENGTH, SHA_DIGEST_LENGTH);
}

static void test_refused(void **state)
{
	KT_AUTOKEY struct kt_key *stranger = NULL;
	KT_AUTOSECRET struct kt_secret *binary = NULL;
	struct kt_buf KT_AUTOBUF trust;
	struct kt_secret *store = NULL;
	char alias[252];

	(void)state;
	kt_buf_init(&trust, 65536);
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &stranger, &err));
	ok(kt_secret_create("\xff\xfe", 2, &binary, &err));
	memset(alias, 'a', sizeof(alias));
	alias[251] = '\0';
	refused(kt_pki_jks_keystore(stranger, chain, NULL, password, &store, &err), KT_E_CRYPTO, "another key");
	refused(kt_pki_jks_keystore(key, chain, NULL, binary, &store, &err), KT_E_INVALID, "no UTF-8");
	refused(kt_pki_jks_truststore(chain, binary, &trust, &err), KT_E_INVALID, "no UTF-8");
	refused(kt_pki_jks_keystore(key, chain, alias, password, &store, &err), KT_E_INVALID, "1 to 250");
	refused(kt_pki_jks_keystore(key, chain, "", password, &store, &err), KT_E_INVALID, "1 to 250");
	refused(kt_pki_jks_keystore(key, chain, "\xc3\xa4", password, &store, &err), KT_E_INVALID, "printable ASCII");
	assert_null(store);
	alias[250] = '\0';
	ok(kt_pki_jks_keystore(key, chain, alias, password, &store, &err));
	kt_secret_destroy(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_keystore),
	        cmocka_unit_test(test_truststore),
	        cmocka_unit_test(test_same_bytes),
	        cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
