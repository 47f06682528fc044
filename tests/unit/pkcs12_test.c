/* PKCS#12: every profile is read back by OpenSSL, and by Java's keytool where there is one. */
#include "pki_helper.h"

#include <fcntl.h>
#include <openssl/pkcs12.h>
#include <openssl/provider.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pki/pki_openssl.h"

#define PASSWORD "p\xc3\xa4ss word"

extern char **environ;

static struct kt_key *key;
static struct kt_chain *chain; /* leaf, CA */
static struct kt_chain *cas;   /* CA, CA: two entries */
static struct kt_secret *password, *ascii;

static void make_material(void)
{
	const struct kt_cert_request ca_request = {.common_name = "P12 CA", .is_ca = true, .not_before = 0, .not_after = KT_TIME_MAX};
	const struct kt_cert_request request = {.common_name = "leaf", .not_before = 0, .not_after = 4000000000 * KT_SECOND};
	KT_AUTOKEY struct kt_key *ca_key = NULL;
	KT_AUTOCERT struct kt_cert *ca = NULL;
	struct kt_issuer *issuer = NULL;
	struct kt_buf KT_AUTOBUF der;
	struct kt_buf KT_AUTOBUF both;
	struct kt_buf KT_AUTOBUF ca_der;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	kt_buf_init(&both, KT_PKI_DER_MAX);
	kt_buf_init(&ca_der, KT_PKI_DER_MAX);
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &ca_key, &err));
	ok(kt_pki_self_sign(&ca_request, ca_key, &ca_der, NULL, &err));
	ok(kt_pki_cert_from_der(kt_buf_view(&ca_der), &ca, &err));
	ok(kt_pki_issuer_create(ca, ca_key, &issuer, &err));
	ok(kt_pki_key_generate(KT_KEY_RSA, 2048, &key, &err));
	ok(kt_pki_issue(issuer, &request, key, &both, NULL, &err));
	kt_buf_addv(&both, kt_buf_view(&ca_der));
	ok(kt_pki_chain_from_der(kt_buf_view(&both), &chain, &err));
	ok(kt_pki_self_sign(&ca_request, key, &ca_der, NULL, &err));
	ok(kt_pki_chain_from_der(kt_buf_view(&ca_der), &cas, &err));
	ok(kt_secret_create(PASSWORD, strlen(PASSWORD), &password, &err));
	ok(kt_secret_create("changeit", 8, &ascii, &err));
	kt_pki_issuer_destroy(issuer);
}

static void parse_with_openssl(struct kt_view p12, bool mac_known)
{
	const unsigned char *p = (const unsigned char *)p12.ptr;
	PKCS12 *file = d2i_PKCS12(NULL, &p, (long)p12.len);
	STACK_OF(X509) *others = NULL;
	EVP_PKEY *pkey = NULL;
	X509 *leaf = NULL;

	assert_non_null(file);
	assert_ptr_equal(p, p12.ptr + p12.len);
	if (mac_known) {
		assert_int_equal(PKCS12_verify_mac(file, "wrong", -1), 0);
		assert_int_equal(PKCS12_verify_mac(file, PASSWORD, -1), 1);
		assert_int_equal(PKCS12_parse(file, PASSWORD, &pkey, &leaf, &others), 1);
		assert_int_equal(EVP_PKEY_eq(pkey, kt_pki_key_evp(key)), 1);
		assert_int_equal(X509_cmp(leaf, kt_pki_cert_x509(kt_pki_chain_at(chain, 0))), 0);
		assert_int_equal(sk_X509_num(others), 1);
		assert_string_equal((const char *)X509_alias_get0(leaf, NULL), "my-alias");
	}
	sk_X509_pop_free(others, X509_free);
	X509_free(leaf);
	EVP_PKEY_free(pkey);
	PKCS12_free(file);
}

static void test_openssl(void **state)
{
	static const char *const names[] = {"LegacyRC2", "LegacyDES", "Modern2023", "Modern2026"};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		KT_AUTOSECRET struct kt_secret *p12 = NULL;
		enum kt_p12_profile profile;
		enum kt_code code;

		ok(kt_pki_p12_profile_parse(names[i], &profile, &err));
		code = kt_pki_p12_keystore(key, chain, "my-alias", password, profile, &p12, &err);
		if (profile == KT_P12_LEGACY_RC2 && code == KT_E_UNSUPPORTED) {
			assert_non_null(strstr(err.what, "legacy provider"));
			continue;
		}
		assert_int_equal(code, KT_OK);
		/* The default context knows no RC2, and OpenSSL before 3.4 no PBMAC1: then the structure alone is read. */
		parse_with_openssl(kt_secret_view(p12), profile == KT_P12_LEGACY_DES || profile == KT_P12_MODERN_2023);
	}
}

static void test_refused(void **state)
{
	enum kt_p12_profile profile;
	struct kt_secret *p12 = NULL;
	KT_AUTOKEY struct kt_key *other = NULL;

	(void)state;
	ok(kt_pki_p12_profile_parse(NULL, &profile, &err));
	assert_int_equal(profile, KT_P12_LEGACY_RC2);
	assert_int_equal(kt_pki_p12_profile_parse("Modern", &profile, &err), KT_E_INVALID);
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &other, &err));
	assert_int_equal(kt_pki_p12_keystore(other, chain, NULL, ascii, KT_P12_MODERN_2023, &p12, &err), KT_E_CRYPTO);
	assert_null(p12);
}

/* keytool -list over the bytes; its output, or "" when it failed. */
static const char *keytool(struct kt_view p12)
{
	static char text[16384];
	char path[] = "/tmp/kt-p12-XXXXXX", *argv[] = {"keytool", "-J-Duser.language=en", "-list", "-v", "-keystore", path,
	                                              "-storetype", "PKCS12", "-storepass", "changeit", NULL};
	posix_spawn_file_actions_t actions;
	int fd = mkstemp(path), ends[2], status = 0;
	size_t len = 0;
	ssize_t got;
	pid_t pid;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p12.ptr, p12.len), p12.len);
	close(fd);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	assert_int_equal(posix_spawnp(&pid, "keytool", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	while ((got = read(ends[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)got;
	text[len] = '\0';
	close(ends[0]);
	waitpid(pid, &status, 0);
	unlink(path);
	if (status != 0)
		print_message("%s\n", text);
	return status == 0 ? text : "";
}

static bool have_keytool(void)
{
	return access("/usr/bin/keytool", X_OK) == 0;
}

static void test_keytool(void **state)
{
	static const enum kt_p12_profile profiles[] = {KT_P12_LEGACY_RC2, KT_P12_LEGACY_DES, KT_P12_MODERN_2023};

	(void)state;
	if (!have_keytool())
		skip();
	for (size_t i = 0; i < 3; i++) {
		KT_AUTOSECRET struct kt_secret *p12 = NULL;
		struct kt_buf KT_AUTOBUF trust;
		const char *text;

		kt_buf_init(&trust, 65536);
		if (kt_pki_p12_prepare(profiles[i], &err) == KT_E_UNSUPPORTED)
			continue;
		ok(kt_pki_p12_keystore(key, chain, "my-alias", ascii, profiles[i], &p12, &err));
		text = keytool(kt_secret_view(p12));
		assert_non_null(strstr(text, "contains 1 entry"));
		assert_non_null(strstr(text, "Alias name: my-alias"));
		assert_non_null(strstr(text, "PrivateKeyEntry"));
		assert_non_null(strstr(text, "Certificate chain length: 2"));
		ok(kt_pki_p12_truststore(cas, ascii, profiles[i], &trust, &err));
		text = keytool(kt_buf_view(&trust));
		assert_non_null(strstr(text, "contains 2 entries"));
		assert_non_null(strstr(text, "Alias name: ca-1"));
		assert_non_null(strstr(text, "trustedCertEntry"));
		assert_null(strstr(text, "PrivateKeyEntry"));
	}
}

static int setup(void **state)
{
	(void)state;
	if (kt_pki_init(&err) != KT_OK)
		return -1;
	make_material();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kt_pki_key_destroy(key);
	kt_pki_chain_destroy(chain);
	kt_pki_chain_destroy(cas);
	kt_secret_destroy(password);
	kt_secret_destroy(ascii);
	kt_pki_finish();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_openssl),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_keytool),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
