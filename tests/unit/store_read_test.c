/* Certificates out of what others keep: PEM in any text, PKCS#12 and JKS stores of our own and of OpenSSL, and damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/pkcs12.h>

#include "kt/mem.h"
#include "kt/pki.h"

static struct kt_key *key;
static struct kt_cert *leaf, *other;
static struct kt_chain *chain;
static struct kt_secret *password, *wrong;

static struct kt_cert *make(const char *name, struct kt_key *own)
{
	struct kt_cert_request request = {.common_name = name, .not_before = 1700000000000, .not_after = 1800000000000};
	struct kt_buf der KT_AUTOBUF = {0};
	struct kt_cert *cert = NULL;
	struct kt_err err;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	assert_int_equal(kt_pki_self_sign(&request, own, &der, NULL, &err), KT_OK);
	assert_int_equal(kt_pki_cert_from_der(kt_buf_view(&der), &cert, &err), KT_OK);
	return cert;
}

static int set_up(void **state)
{
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_secret_init(&err), KT_OK);
	assert_int_equal(kt_pki_init(&err), KT_OK);
	assert_int_equal(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err), KT_OK);
	leaf = make("leaf", key);
	other = make("other", key);
	assert_int_equal(kt_pki_chain_from_der(kt_pki_cert_der(leaf), &chain, &err), KT_OK);
	assert_int_equal(kt_secret_create("changeit", 8, &password, &err), KT_OK);
	assert_int_equal(kt_secret_create("changed", 7, &wrong, &err), KT_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kt_pki_cert_destroy(leaf);
	kt_pki_cert_destroy(other);
	kt_pki_chain_destroy(chain);
	kt_pki_key_destroy(key);
	kt_secret_destroy(password);
	kt_secret_destroy(wrong);
	return 0;
}

static enum kt_code pem_of(struct kt_view text, const struct kt_cert *expected)
{
	struct kt_cert *cert = NULL;
	struct kt_err err;
	enum kt_code code = kt_pki_pem_first(text, &cert, &err);

	if (code == KT_OK) {
		assert_true(kt_pki_cert_same(cert, expected));
	}
	kt_pki_cert_destroy(cert);
	return code;
}

static void pem(void **state)
{
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_err err;
	size_t clean;

	(void)state;
	kt_buf_init(&text, 400000);
	assert_int_equal(pem_of(KT_VIEW_LIT(""), leaf), KT_E_PROTO);
	assert_int_equal(pem_of(KT_VIEW_LIT("<html>no</html>\n"), leaf), KT_E_PROTO);
	kt_buf_adds(&text, "kind: Configuration\nkey: |\n  -----BEGIN PRIVATE KEY-----\n  AAAA\n  -----END PRIVATE KEY-----\ncert: |\n");
	assert_int_equal(pem_of(kt_buf_view(&text), leaf), KT_E_PROTO);
	assert_int_equal(kt_pki_cert_pem(leaf, &text, &err), KT_OK);
	clean = text.len;
	assert_int_equal(kt_pki_cert_pem(other, &text, &err), KT_OK);
	assert_int_equal(pem_of(kt_buf_view(&text), leaf), KT_OK);
	for (size_t len = 0; len < clean - 5; len++) { /* half written: never something else than the certificate */
		assert_int_not_equal(pem_of((struct kt_view){text.ptr, len}, leaf), KT_OK);
	}
	while (text.len < 200000) {
		kt_buf_adds(&text, "# filler, filler, filler, filler, filler, filler, filler, filler\n");
	}
	assert_int_equal(pem_of(kt_buf_view(&text), leaf), KT_E_LIMIT);
}

static bool garbled; /* an encryption without a MAC that is looked at: what comes out may be another certificate */

static enum kt_code p12_of(struct kt_view bytes, const char *alias, const struct kt_secret *word)
{
	struct kt_cert *cert = NULL;
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = kt_pki_p12_certificate(bytes, alias, word, &cert, &err);
	if (code == KT_OK && !garbled) {
		assert_true(kt_pki_cert_same(cert, leaf));
	}
	kt_pki_cert_destroy(cert);
	return code;
}

static void pkcs12(void **state)
{
	static const enum kt_p12_profile profiles[] = {KT_P12_LEGACY_RC2, KT_P12_LEGACY_DES, KT_P12_MODERN_2023, KT_P12_MODERN_2026};
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct kt_secret *store = NULL;
		struct kt_view bytes;
		struct kt_buf copy KT_AUTOBUF = {0};

		if (kt_pki_p12_keystore(key, chain, "Mule-Agent", password, profiles[i], &store, &err) == KT_E_UNSUPPORTED) {
			continue; /* no legacy provider here */
		}
		bytes = kt_secret_view(store);
		assert_int_equal(p12_of(bytes, NULL, password), KT_OK);
		assert_int_equal(p12_of(bytes, "mule-agent", password), KT_OK);
		assert_int_equal(p12_of(bytes, "nobody", password), KT_E_NOTFOUND);
		assert_int_equal(p12_of(bytes, NULL, wrong), KT_E_AUTH);
		assert_int_equal(p12_of(bytes, NULL, NULL), KT_E_AUTH);
		for (size_t len = 0; len < bytes.len; len += 7) {
			assert_int_not_equal(p12_of((struct kt_view){bytes.ptr, len}, NULL, password), KT_OK);
		}
		kt_buf_init(&copy, bytes.len);
		for (size_t at = 0; at < bytes.len; at += 5) { /* no crash, no other certificate */
			kt_buf_reset(&copy);
			kt_buf_addv(&copy, bytes);
			copy.ptr[at] = (char)(copy.ptr[at] ^ 0x55);
			garbled = profiles[i] == KT_P12_MODERN_2026;
			(void)p12_of(kt_buf_view(&copy), NULL, password);
			garbled = false;
		}
		kt_secret_destroy(store);
	}
	assert_int_equal(p12_of(KT_VIEW_LIT("\xfe\xed\xfe\xed\0\0\0\2\0\0\0\0"), NULL, password), KT_E_PROTO);
}

/* The writer of the file chooses how long opening it takes, up to a limit. */
static void iterations(void **state)
{
	static const int counts[] = {1, 2048, 600000, 600001, 2000000000};
	const unsigned char *der = (const unsigned char *)kt_pki_cert_der(leaf).ptr;
	X509 *x509 = d2i_X509(NULL, &der, (long)kt_pki_cert_der(leaf).len);

	(void)state;
	assert_non_null(x509);
	for (size_t i = 0; i < 5; i++) {
		int made_with = counts[i] > 600000 ? 1 : counts[i];
		PKCS12 *p12 = PKCS12_create("changeit", "x", NULL, x509, NULL, -1, NID_aes_256_cbc, made_with, -1, 0);
		unsigned char *bytes = NULL;
		int len = i2d_PKCS12(p12, &bytes);

		assert_true(len > 0);
		if (counts[i] == made_with) {
			assert_int_equal(p12_of((struct kt_view){(char *)bytes, (size_t)len}, NULL, password), KT_OK);
		} else {
			/* The count as another one is written: PBKDF2-params end in INTEGER 1, then the PRF or the end. */
			STACK_OF(PKCS7) *safes = PKCS12_unpack_authsafes(p12);
			X509_ALGOR *algor = sk_PKCS7_value(safes, 0)->d.encrypted->enc_data->algorithm;
			PBE2PARAM *pbe2 = ASN1_item_unpack(algor->parameter->value.sequence, ASN1_ITEM_rptr(PBE2PARAM));
			PBKDF2PARAM *kdf = ASN1_item_unpack(pbe2->keyfunc->parameter->value.sequence, ASN1_ITEM_rptr(PBKDF2PARAM));
			ASN1_STRING *packed;

			assert_int_equal(ASN1_INTEGER_set(kdf->iter, counts[i]), 1);
			packed = ASN1_item_pack(kdf, ASN1_ITEM_rptr(PBKDF2PARAM), NULL);
			ASN1_TYPE_set(pbe2->keyfunc->parameter, V_ASN1_SEQUENCE, packed);
			packed = ASN1_item_pack(pbe2, ASN1_ITEM_rptr(PBE2PARAM), NULL);
			ASN1_TYPE_set(algor->parameter, V_ASN1_SEQUENCE, packed);
			assert_int_equal(PKCS12_pack_authsafes(p12, safes), 1);
			OPENSSL_free(bytes);
			bytes = NULL;
			len = i2d_PKCS12(p12, &bytes);
			assert_int_equal(p12_of((struct kt_view){(char *)bytes, (size_t)len}, NULL, password), KT_E_LIMIT);
			PBKDF2PARAM_free(kdf);
			PBE2PARAM_free(pbe2);
			sk_PKCS7_pop_free(safes, PKCS7_free);
		}
		OPENSSL_free(bytes);
		PKCS12_free(p12);
	}
	X509_free(x509);
}

static enum kt_code jks_of(struct kt_view bytes, const char *alias)
{
	struct kt_cert *cert = NULL;
	struct kt_err err;
	enum kt_code code = kt_pki_jks_certificate(bytes, alias, &cert, &err);

	if (code == KT_OK) {
		assert_true(kt_pki_cert_same(cert, leaf));
	}
	kt_pki_cert_destroy(cert);
	return code;
}

static void jks(void **state)
{
	struct kt_secret *store = NULL;
	struct kt_buf trust KT_AUTOBUF = {0};
	struct kt_buf copy KT_AUTOBUF = {0};
	struct kt_view bytes;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_pki_jks_keystore(key, chain, "Mule-Agent", password, &store, &err), KT_OK);
	bytes = kt_secret_view(store);
	assert_int_equal(jks_of(bytes, NULL), KT_OK);
	assert_int_equal(jks_of(bytes, "MULE-agent"), KT_OK);
	assert_int_equal(jks_of(bytes, "mule"), KT_E_NOTFOUND);
	for (size_t len = 0; len < bytes.len - 20; len++) { /* all but the digest, which needs the password */
		assert_int_not_equal(jks_of((struct kt_view){bytes.ptr, len}, NULL), KT_OK);
	}
	kt_buf_init(&copy, bytes.len);
	for (size_t at = 0; at < 24; at++) {
		for (unsigned value = 0; value < 256; value += 15) {
			kt_buf_reset(&copy);
			kt_buf_addv(&copy, bytes);
			copy.ptr[at] = (char)value;
			(void)jks_of(kt_buf_view(&copy), NULL);
		}
	}
	kt_buf_init(&trust, 65536);
	assert_int_equal(kt_pki_jks_truststore(chain, password, &trust, &err), KT_OK);
	assert_int_equal(jks_of(kt_buf_view(&trust), NULL), KT_OK);
	assert_int_equal(jks_of(kt_buf_view(&trust), "ca"), KT_OK);
	assert_int_equal(jks_of(KT_VIEW_LIT("\xfe\xed\xfe\xed\0\0\0\2\0\0\0\0"), NULL), KT_E_PROTO);
	assert_int_equal(jks_of(KT_VIEW_LIT("\xfe\xed\xfe\xed\0\0\0\2\x7f\xff\xff\xff"), NULL), KT_E_LIMIT);
	assert_int_equal(jks_of(KT_VIEW_LIT("0\x82\x01\x02 looks like PKCS12"), NULL), KT_E_PROTO);
	kt_secret_destroy(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(pem),
	        cmocka_unit_test(pkcs12),
	        cmocka_unit_test(iterations),
	        cmocka_unit_test(jks),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
