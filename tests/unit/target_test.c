/* What is uploaded to a secret group, and how what it shows is compared. */
#include "pki_helper.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "keeper/target.h"

#define CERT "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
#define ROOT "-----BEGIN CERTIFICATE-----\nWFla\n-----END CERTIFICATE-----\n"

static const struct kt_anypoint_secret_group group = {.api.name = "ingress", .type = KT_STORE_PEM};

static struct kt_key *new_key(void)
{
	struct kt_key *key = NULL;

	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err));
	return key;
}

/* The value of a field: where it begins; *len: up to the next boundary. */
static const char *field(const struct kt_secret *form, const char *boundary, const char *name, size_t *len)
{
	struct kt_view all = kt_secret_view(form);
	char head[64], end[64];
	const char *at, *stop;

	(void)snprintf(head, sizeof(head), "form-data; name=\"%s\"", name);
	(void)snprintf(end, sizeof(end), "\r\n--%s", boundary);
	at = memmem(all.ptr, all.len, head, strlen(head));
	if (at == NULL)
		return NULL;
	at = strstr(at, "\r\n\r\n") + 4;
	stop = memmem(at, all.len - (size_t)(at - all.ptr), end, strlen(end));
	assert_non_null(stop);
	*len = (size_t)(stop - at);
	return at;
}

static void test_pem(void **state)
{
	struct kt_key *key = new_key();
	struct kt_secret *form = NULL, *again = NULL;
	char boundary[KT_TARGET_BOUNDARY], other[KT_TARGET_BOUNDARY], password[64] = "";
	const char *at;
	EVP_PKEY *read;
	BIO *bio;
	size_t len;

	(void)state;
	ok(kt_target_form(&group, key, kt_view_str(CERT CERT), kt_view_str(ROOT), boundary, &form, &err));
	at = field(form, boundary, "certificate", &len);
	assert_true(len == strlen(CERT) && memcmp(at, CERT, len) == 0);
	at = field(form, boundary, "capath", &len);
	assert_true(len == strlen(CERT ROOT) && memcmp(at, CERT ROOT, len) == 0);
	at = field(form, boundary, "keyPassphrase", &len);
	assert_int_equal(len, 48);
	memcpy(password, at, len);
	at = field(form, boundary, "key", &len);
	assert_true(strncmp(at, "-----BEGIN ENCRYPTED PRIVATE KEY-----", 37) == 0);
	bio = BIO_new_mem_buf(at, (int)len);
	read = PEM_read_bio_PrivateKey(bio, NULL, NULL, password);
	assert_non_null(read);
	assert_int_equal(EVP_PKEY_get_bits(read), 256);
	EVP_PKEY_free(read);
	BIO_free(bio);
	/* A root that is in the chain already is not sent twice; no chain, no field. */
	ok(kt_target_form(&group, key, kt_view_str(CERT ROOT), kt_view_str(ROOT), other, &again, &err));
	assert_string_not_equal(boundary, other);
	(void)field(again, other, "capath", &len);
	assert_int_equal(len, strlen(ROOT));
	assert_true(memmem(kt_secret_view(again).ptr, kt_secret_len(again), password, 48) == NULL);
	kt_secret_destroy(again);
	ok(kt_target_form(&group, key, kt_view_str(CERT), kt_view_str(""), other, &again, &err));
	assert_null(field(again, other, "capath", &len));
	kt_secret_destroy(again);
	kt_secret_destroy(form);
	kt_pki_key_destroy(key);
}

static void test_limits(void **state)
{
	static char big[40000];
	struct kt_key *key = new_key();
	struct kt_secret *form = NULL;
	char boundary[KT_TARGET_BOUNDARY];

	(void)state;
	memset(big, 'A', sizeof(big) - 1);
	refused(kt_target_form(&group, key, (struct kt_view){big, 4097}, kt_view_str(""), boundary, &form, &err), KT_E_LIMIT,
	        "field certificate has 4097 bytes");
	refused(kt_target_form(&group, key, kt_view_str(CERT), (struct kt_view){big, 28673}, boundary, &form, &err), KT_E_LIMIT,
	        "field capath has 28673 bytes");
	ok(kt_target_form(&group, key, (struct kt_view){big, 4096}, (struct kt_view){big, 28672}, boundary, &form, &err));
	kt_secret_destroy(form);
	kt_pki_key_destroy(key);
}

static void test_shown(void **state)
{
	kt_ms at = 0;

	(void)state;
	assert_true(kt_target_same_serial("E93E2F47200ED6DC", "e93e2f47200ed6dc"));
	assert_true(kt_target_same_serial("00:E9:3E", "e93e"));
	assert_true(kt_target_same_serial("e93e", "0e93e"));
	assert_false(kt_target_same_serial("e93e", "e93e00"));
	assert_false(kt_target_same_serial("e93e00", "e93e"));
	assert_false(kt_target_same_serial("", ""));
	assert_false(kt_target_same_serial("00", "0"));
	ok(kt_target_time("2018-07-04 21:00:00", &at, &err));
	assert_true(at == 1530738000000);
	ok(kt_target_time("2018-07-04T21:00:00Z", &at, &err));
	assert_true(at == 1530738000000);
	refused(kt_target_time("2018-07-04", &at, &err), KT_E_PROTO, "is not a time");
	refused(kt_target_time("yesterday", &at, &err), KT_E_PROTO, "is not a time");
	refused(kt_target_time("2018-07-04 21:00:xx", &at, &err), KT_E_PROTO, "is not a time");
	assert_true(kt_target_is_serial("00:E9:3E") && kt_target_is_serial("e93e2f47200ed6dce93e2f47200ed6dce93e2f47"));
	assert_false(kt_target_is_serial("") || kt_target_is_serial(": :") || kt_target_is_serial("e93g"));
	assert_false(kt_target_is_serial("e93e2f47200ed6dce93e2f47200ed6dce93e2f4700"));
	assert_true(kt_target_is_day("2018-07-04") && kt_target_is_day("2018-07-04T21:00:00Z"));
	assert_false(kt_target_is_day("2018-07-0") || kt_target_is_day("") || kt_target_is_day("canary-day"));
}

static const char *reason(const char *body, const struct kt_secret *sent)
{
	static char out[320];

	kt_target_reason(kt_view_str(body), "a-name-of-more-than-24x24lettersanddigits", sent, out, sizeof(out));
	return out;
}

static void test_reasons(void **state)
{
	struct kt_secret *sent = NULL;

	(void)state;
	ok(kt_secret_create("7f3a-uuid", 9, &sent, &err));
	assert_string_equal(reason("", sent), "no reason given");
	assert_string_equal(reason("{\"message\":[]}", sent), "no reason given");
	assert_string_equal(reason("{\"message\":\"Unauthorized\"}", sent), "Unauthorized");
	assert_string_equal(reason("{\"message\":\"x\",\"errors\":[{\"code\":\"RB-1008\",\"message\":\"Limit exceeded\","
	                           "\"field\":\"certificate\"}]}", sent), "Limit exceeded, RB-1008, field certificate");
	assert_string_equal(reason("{\"message\":\"no token 7f3a-uuid here\"}", sent), "[it quotes what must not be shown]");
	assert_string_equal(reason("{\"message\":\"passphrase 0123456789abcdef0123456789abcdef is too long\"}", sent),
	                    "passphrase [...] is too long");
	assert_string_equal(reason("{\"message\":\"24x24lettersanddigits is taken\"}", NULL), "24x24lettersanddigits is taken");
	kt_secret_destroy(sent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_pem),
	        cmocka_unit_test(test_limits),
	        cmocka_unit_test(test_shown),
	        cmocka_unit_test(test_reasons),
	};

	return cmocka_run_group_tests(tests, pki_setup, pki_teardown);
}
