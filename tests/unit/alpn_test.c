/* The certificate of tls-alpn-01, read back by OpenSSL's own eyes. */
#include "pki_helper.h"

#include <openssl/x509v3.h>

#include "kt/text.h"
#include "kt/mem.h"

#define NOW ((kt_ms)1795000000000)

static const char authorization[] = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

static X509 *make(const char *name, EVP_PKEY **ret_key)
{
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf out KT_AUTOBUF = {0};
	const unsigned char *at;
	struct kt_view key;
	X509 *cert;

	kt_buf_init(&out, 8192);
	ok(kt_pki_acme_alpn(name, kt_view_str(authorization), NOW, &out, &der, &err));
	at = (const unsigned char *)out.ptr;
	cert = d2i_X509(NULL, &at, (long)out.len);
	assert_non_null(cert);
	assert_ptr_equal(at, out.ptr + out.len);
	key = kt_secret_view(der);
	at = (const unsigned char *)key.ptr;
	*ret_key = d2i_AutoPrivateKey(NULL, &at, (long)key.len);
	assert_non_null(*ret_key);
	return cert;
}

/* The text that `openssl x509 -text` prints. */
static void print(X509 *cert, char *out, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long len;

	assert_int_equal(X509_print_ex(bio, cert, 0, 0), 1);
	len = BIO_get_mem_data(bio, &text);
	assert_true(len > 0 && (size_t)len < size);
	memcpy(out, text, (size_t)len);
	out[len] = '\0';
	BIO_free(bio);
}

static void check_digest(X509 *cert)
{
	ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
	int at = X509_get_ext_by_OBJ(cert, oid, -1);
	X509_EXTENSION *ext = X509_get_ext(cert, at);
	const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(ext);
	uint8_t digest[KT_SHA256_LEN];

	assert_true(at >= 0);
	assert_int_equal(X509_get_ext_by_OBJ(cert, oid, at), -1);
	assert_true(X509_EXTENSION_get_critical(ext));
	/* OCTET STRING (SIZE (32)) within the extension's own octets */
	kt_sha256(authorization, strlen(authorization), digest);
	assert_int_equal(ASN1_STRING_length(value), 34);
	assert_memory_equal(ASN1_STRING_get0_data(value), "\x04\x20", 2);
	assert_memory_equal(ASN1_STRING_get0_data(value) + 2, digest, sizeof(digest));
	ASN1_OBJECT_free(oid);
}

static void test_certificate(void **state)
{
	static const struct {
		const char *name, *shown;
	} cases[] = {
	        {"www.example.org", "DNS:www.example.org"},
	        {"192.0.2.7", "IP Address:192.0.2.7"},
	        {"2001:db8::1", "IP Address:2001:DB8:0:0:0:0:0:1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		EVP_PKEY *key = NULL;
		X509 *cert = make(cases[i].name, &key);
		GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
		char text[8192];
		time_t when = NOW / 1000;

		assert_non_null(names);
		assert_int_equal(sk_GENERAL_NAME_num(names), 1);
		GENERAL_NAMES_free(names);
		print(cert, text, sizeof(text));
		if (strstr(text, cases[i].shown) == NULL || strstr(text, "1.3.6.1.5.5.7.1.31: critical") == NULL)
			fail_msg("%s", text);
		check_digest(cert);
		assert_int_equal(X509_check_private_key(cert, key), 1);
		assert_int_equal(X509_verify(cert, key), 1);
		assert_int_equal(X509_cmp_time(X509_get0_notBefore(cert), &when), -1);
		assert_int_equal(X509_cmp_time(X509_get0_notAfter(cert), &when), 1);
		EVP_PKEY_free(key);
		X509_free(cert);
	}
}

static void test_refused(void **state)
{
	struct kt_secret *key KT_AUTOSECRET = NULL;
	struct kt_buf out KT_AUTOBUF = {0};

	(void)state;
	kt_buf_init(&out, 8192);
	refused(kt_pki_acme_alpn("not a name", kt_view_str(authorization), NOW, &out, &key, &err), KT_E_INVALID, "not a name");
	assert_null(key);
}

static void test_server_names(void **state)
{
	static const struct {
		const char *name, *sni;
	} cases[] = {
	        {"www.example.org", "www.example.org"},
	        {"192.0.2.7", "7.2.0.192.in-addr.arpa"},
	        {"2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[256];

		kt_pki_acme_alpn_sni(cases[i].name, out);
		assert_string_equal(out, cases[i].sni);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_certificate),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_server_names),
	};

	return cmocka_run_group_tests(tests, pki_setup, pki_teardown);
}
