/* Chains, the checks on receipt, and what else a certificate is asked for. */
#include "pki_ca.h"

#include <openssl/x509v3.h>

#include "kt/mem.h"
#include "pki/pki_openssl.h"

struct scene {
	struct ca root, sub;
	struct kt_key *key;
	struct kt_cert *leaf;
	struct kt_cert_request request;
	const struct kt_key *known; /* that a chain is read for */
};

static const char *const scene_names[] = {"www.example.org", "example.org"};

static struct scene new_scene(void)
{
	struct scene s = {.request = {.common_name = "www.example.org", .dns_names = {scene_names, 2}, .not_before = T0 - KT_HOUR,
	                              .not_after = T0 + 90 * KT_DAY}};

	s.root = new_ca("Root", NULL, KT_KEY_ECDSA, 256);
	s.sub = new_ca("Sub", &s.root, KT_KEY_ECDSA, 256);
	s.key = new_key(KT_KEY_ECDSA, 256);
	s.leaf = issue(s.sub.issuer, &s.request, s.key);
	return s;
}

static void free_scene(struct scene *s)
{
	free_ca(&s->root);
	free_ca(&s->sub);
	kt_pki_key_destroy(s->key);
	kt_pki_cert_destroy(s->leaf);
}

/* Read as a stranger's, or where `key` is given as one for it. */
static struct kt_chain *chain_for(const struct kt_key *key, const struct kt_cert *a, const struct kt_cert *b,
                                  const struct kt_cert *c)
{
	struct kt_buf KT_AUTOBUF pem;
	struct kt_chain *chain = NULL;

	kt_buf_init(&pem, KT_PKI_CHAIN_BYTES_MAX);
	ok(kt_pki_cert_pem(a, &pem, &err));
	if (b != NULL)
		ok(kt_pki_cert_pem(b, &pem, &err));
	if (c != NULL)
		ok(kt_pki_cert_pem(c, &pem, &err));
	ok(kt_pki_chain_parse_for(kt_buf_view(&pem), key, &chain, &err));
	return chain;
}

static struct kt_chain *chain_of(const struct kt_cert *a, const struct kt_cert *b, const struct kt_cert *c)
{
	return chain_for(NULL, a, b, c);
}

static void test_chain_parse(void **state)
{
	struct scene s = new_scene();
	struct kt_buf KT_AUTOBUF leaf;
	struct kt_buf KT_AUTOBUF text;
	struct kt_chain *chain = NULL;
	static const char *const bad[] = {
	        "<html><body>502</body></html>",
	        "",
	        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n",
	        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
	        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
	        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATES-----\n",
	        "-----BEGIN CERTIFICATE-----\nAAAA\n",
	        "-----BEGIN CERTIFICATE",
	};

	(void)state;
	kt_buf_init(&leaf, 65536);
	kt_buf_init(&text, KT_PKI_CHAIN_BYTES_MAX * 2);
	ok(kt_pki_cert_pem(s.leaf, &leaf, &err));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(kt_pki_chain_parse(kt_view_str(bad[i]), &chain, &err), KT_E_PROTO);
		/* The same behind a good certificate; nothing more there is no error. */
		kt_buf_reset(&text);
		kt_buf_addv(&text, kt_buf_view(&leaf));
		kt_buf_adds(&text, bad[i]);
		if (bad[i][0] != '\0')
			assert_int_equal(kt_pki_chain_parse(kt_buf_view(&text), &chain, &err), KT_E_PROTO);
	}
	kt_buf_reset(&text);
	kt_buf_adds(&text, "# a comment\n\r\n");
	for (size_t i = 0; i < KT_PKI_CHAIN_MAX; i++)
		kt_buf_addv(&text, kt_buf_view(&leaf));
	ok(kt_pki_chain_parse(kt_buf_view(&text), &chain, &err));
	assert_int_equal(kt_pki_chain_count(chain), KT_PKI_CHAIN_MAX);
	assert_null(kt_pki_chain_at(chain, KT_PKI_CHAIN_MAX));
	kt_pki_chain_destroy(chain);
	kt_buf_addv(&text, kt_buf_view(&leaf));
	refused(kt_pki_chain_parse(kt_buf_view(&text), &chain, &err), KT_E_LIMIT, "more than 16");
	while (text.len <= KT_PKI_CHAIN_BYTES_MAX)
		kt_buf_addv(&text, kt_buf_view(&leaf));
	refused(kt_pki_chain_parse(kt_buf_view(&text), &chain, &err), KT_E_LIMIT, "bytes");

	/* DER, one after the other; cut short at every byte it is refused. */
	kt_buf_reset(&text);
	kt_buf_addv(&text, kt_pki_cert_der(s.leaf));
	kt_buf_addv(&text, kt_pki_cert_der(s.sub.cert));
	ok(kt_pki_chain_from_der(kt_buf_view(&text), &chain, &err));
	assert_int_equal(kt_pki_chain_count(chain), 2);
	kt_pki_chain_destroy(chain);
	for (size_t len = 0; len < kt_pki_cert_der(s.leaf).len; len++)
		assert_int_equal(kt_pki_chain_from_der((struct kt_view){text.ptr, len}, &chain, &err), KT_E_PROTO);
	free_scene(&s);
}

static void test_chain_split(void **state)
{
	struct scene s = new_scene();
	KT_AUTOCHAIN struct kt_chain *chain = chain_of(s.leaf, s.sub.cert, s.root.cert);
	KT_AUTOCHAIN struct kt_chain *served = NULL;
	KT_AUTOCHAIN struct kt_chain *ca = NULL;
	KT_AUTOCHAIN struct kt_chain *lone = chain_of(s.leaf, NULL, NULL);
	struct kt_buf KT_AUTOBUF a;
	struct kt_buf KT_AUTOBUF b;

	(void)state;
	kt_buf_init(&a, 65536);
	kt_buf_init(&b, 65536);
	ok(kt_pki_chain_split(chain, &a, &b, &err));
	ok(kt_pki_chain_parse(kt_buf_view(&a), &served, &err));
	ok(kt_pki_chain_parse(kt_buf_view(&b), &ca, &err));
	assert_int_equal(kt_pki_chain_count(served), 2);
	assert_int_equal(kt_pki_chain_count(ca), 1);
	assert_true(kt_pki_cert_same(kt_pki_chain_at(ca, 0), s.root.cert));
	kt_buf_reset(&b);
	ok(kt_pki_chain_split(lone, NULL, &b, &err));
	assert_int_equal(b.len, 0);
	free_scene(&s);
}

static void test_check_issued_good(void **state)
{
	struct scene s = new_scene();
	const struct kt_key *key = *state != NULL ? s.key : NULL;
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .min_remaining = KT_DAY, .need_chain = true};
	KT_AUTOCHAIN struct kt_chain *chain = chain_for(key, s.root.cert, s.leaf, s.sub.cert); /* in the wrong order */
	KT_AUTOCHAIN struct kt_chain *two = chain_for(key, s.leaf, s.sub.cert, NULL);
	struct kt_buf KT_AUTOBUF pem;
	struct kt_trust *trust = NULL, *other = NULL;
	struct ca stranger = new_ca("Root", NULL, KT_KEY_ECDSA, 256);

	kt_buf_init(&pem, 65536);
	ok(kt_pki_check_issued(chain, &expect, &err));
	assert_true(kt_pki_cert_same(kt_pki_chain_at(chain, 0), s.leaf));
	assert_true(kt_pki_cert_same(kt_pki_chain_at(chain, 1), s.sub.cert));
	assert_true(kt_pki_cert_same(kt_pki_chain_at(chain, 2), s.root.cert));
	ok(kt_pki_check_issued(two, &expect, &err));
	kt_buf_adds(&pem, "Some CA\n=======\n");
	ok(kt_pki_cert_pem(s.root.cert, &pem, &err));
	ok(kt_pki_trust_create(kt_buf_view(&pem), &trust, &err));
	assert_int_equal(kt_pki_trust_count(trust), 1);
	assert_non_null(kt_pki_trust_store(trust));
	expect.roots = trust;
	ok(kt_pki_check_issued(two, &expect, &err));
	kt_buf_reset(&pem);
	ok(kt_pki_cert_pem(stranger.cert, &pem, &err));
	ok(kt_pki_trust_create(kt_buf_view(&pem), &other, &err));
	expect.roots = other;
	refused(kt_pki_check_issued(two, &expect, &err), KT_E_CRYPTO, "trusted root");
	kt_pki_trust_destroy(trust);
	trust = NULL;
	refused(kt_pki_trust_create(kt_view_str("nothing"), &trust, &err), KT_E_INVALID, "no certificate");
	kt_pki_trust_destroy(other);
	free_ca(&stranger);
	free_scene(&s);
}

/* HOSTILE.md A17: each row changes one thing about what the CA made of the request. */
static void test_check_issued_names_dates(void **state)
{
	static const char *const upper[] = {"EXAMPLE.org", "WWW.example.ORG"};
	static const char *const extra[] = {"www.example.org", "example.org", "evil.example"};
	static const char *const swapped[] = {"www.example.org", "evil.example"};
	const struct {
		struct kt_strs names;
		const char *cn;
		kt_ms before, after;
		bool ca;
		const char *text; /* NULL: accepted */
	} cases[] = {
	        {{upper, 2}, "www.example.org", -KT_HOUR, 90 * KT_DAY, false, NULL},
	        {{scene_names, 2}, NULL, -KT_HOUR, 90 * KT_DAY, false, NULL},
	        {{scene_names, 2}, "example.org", -KT_HOUR, 90 * KT_DAY, false, NULL},
	        {{scene_names, 2}, "www.example.org", 2 * KT_MINUTE, 90 * KT_DAY, false, NULL},
	        {{extra, 3}, "www.example.org", -KT_HOUR, 90 * KT_DAY, false, "not requested: dns:evil.example"},
	        {{swapped, 2}, "www.example.org", -KT_HOUR, 90 * KT_DAY, false, "not requested: dns:evil.example"},
	        {{scene_names, 1}, "www.example.org", -KT_HOUR, 90 * KT_DAY, false, "lacks the requested name dns:example.org"},
	        {{NULL, 0}, "www.example.org", -KT_HOUR, 90 * KT_DAY, false, "lacks the requested name"},
	        {{scene_names, 2}, "evil.example", -KT_HOUR, 90 * KT_DAY, false, "common name"},
	        {{scene_names, 2}, "www.example.org", -KT_DAY, -1000, false, "expired"},
	        {{scene_names, 2}, "www.example.org", KT_HOUR, 90 * KT_DAY, false, "not valid yet"},
	        {{scene_names, 2}, "www.example.org", -KT_HOUR, KT_HOUR, false, "too early"},
	        {{scene_names, 2}, "www.example.org", -KT_HOUR, 90 * KT_DAY, true, "CA certificate"},
	};
	struct scene s = new_scene();
	const struct kt_key *key = *state != NULL ? s.key : NULL;
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .min_remaining = KT_DAY};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_cert_request given = {.common_name = cases[i].cn, .dns_names = cases[i].names, .is_ca = cases[i].ca,
		                                .not_before = T0 + cases[i].before, .not_after = T0 + cases[i].after};
		KT_AUTOCERT struct kt_cert *leaf = issue(s.sub.issuer, &given, s.key);
		KT_AUTOCHAIN struct kt_chain *chain = chain_for(key, leaf, s.sub.cert, NULL);

		if (cases[i].text == NULL)
			ok(kt_pki_check_issued(chain, &expect, &err));
		else
			refused(kt_pki_check_issued(chain, &expect, &err), KT_E_POLICY, cases[i].text);
	}
	free_scene(&s);
}

/* A certificate by OpenSSL's own functions, for what our writer doesn't make. */
static struct kt_cert *weak_cert(const struct scene *s, const EVP_MD *md, EVP_PKEY *subject, EVP_PKEY *signer)
{
	X509 *x = X509_new();
	unsigned char *der = NULL;
	struct kt_cert *cert = NULL;
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	int len;

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 77);
	X509_set_issuer_name(x, X509_get_subject_name(kt_pki_cert_x509(s->sub.cert)));
	ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(T0 / KT_SECOND - 60));
	ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(T0 / KT_SECOND + 86400 * 30));
	X509_set_pubkey(x, subject);
	for (int i = 0; i < 2; i++) {
		GENERAL_NAME *name = GENERAL_NAME_new();
		ASN1_IA5STRING *text = ASN1_IA5STRING_new();

		ASN1_STRING_set(text, scene_names[i], -1);
		GENERAL_NAME_set0_value(name, GEN_DNS, text);
		sk_GENERAL_NAME_push(names, name);
	}
	X509_add1_ext_i2d(x, NID_subject_alt_name, names, 1, 0);
	GENERAL_NAMES_free(names);
	assert_int_not_equal(X509_sign(x, signer, md), 0);
	len = i2d_X509(x, &der);
	ok(kt_pki_cert_from_der((struct kt_view){(char *)der, (size_t)len}, &cert, &err));
	OPENSSL_free(der);
	X509_free(x);
	return cert;
}

static void test_check_issued_crypto(void **state)
{
	struct scene s = new_scene();
	const struct kt_key *key = *state != NULL ? s.key : NULL;
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .need_chain = true};
	KT_AUTOKEY struct kt_key *other_key = new_key(KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *for_other = issue(s.sub.issuer, &s.request, other_key);
	struct ca impostor = new_ca("Sub", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *forged = issue(impostor.issuer, &s.request, s.key);
	KT_AUTOCERT struct kt_cert *sha1 = weak_cert(&s, EVP_sha1(), kt_pki_key_evp(s.key), kt_pki_key_evp(s.sub.key));
	KT_AUTOCHAIN struct kt_chain *c1 = chain_for(key, for_other, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c2 = chain_for(key, forged, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c3 = chain_for(key, s.leaf, NULL, NULL);
	KT_AUTOCHAIN struct kt_chain *c4 = chain_for(key, s.leaf, s.sub.cert, impostor.cert);
	KT_AUTOCHAIN struct kt_chain *c5 = chain_for(key, s.leaf, for_other, NULL);
	KT_AUTOCHAIN struct kt_chain *c6 = chain_for(key, sha1, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c7 = chain_for(key, s.leaf, s.sub.cert, NULL);

	refused(kt_pki_check_issued(c1, &expect, &err), KT_E_CRYPTO, "another key");
	refused(kt_pki_check_issued(c2, &expect, &err), KT_E_CRYPTO, "chain is broken");
	refused(kt_pki_check_issued(c3, &expect, &err), KT_E_PROTO, "without the chain");
	refused(kt_pki_check_issued(c4, &expect, &err), KT_E_CRYPTO, "chain is broken");
	refused(kt_pki_check_issued(c5, &expect, &err), KT_E_CRYPTO, "chain is broken");
	refused(kt_pki_check_issued(c6, &expect, &err), KT_E_CRYPTO, "SHA1");
	expect.now = T0 + 80 * KT_DAY;
	ok(kt_pki_check_issued(c7, &expect, &err));
	free_ca(&impostor);
	free_scene(&s);
}

static void test_issuer_refused(void **state)
{
	struct scene s = new_scene();
	struct kt_issuer *issuer = NULL;
	struct kt_buf KT_AUTOBUF der;
	struct kt_cert_request backwards = s.request;

	(void)state;
	kt_buf_init(&der, KT_PKI_DER_MAX);
	refused(kt_pki_issuer_create(s.leaf, s.key, &issuer, &err), KT_E_POLICY, "no CA");
	refused(kt_pki_issuer_create(s.sub.cert, s.key, &issuer, &err), KT_E_CRYPTO, "private key");
	backwards.not_after = backwards.not_before;
	refused(kt_pki_issue(s.sub.issuer, &backwards, s.key, &der, NULL, &err), KT_E_INVALID, "before it begins");
	free_scene(&s);
}

static void test_small_things(void **state)
{
	struct scene s = new_scene();
	struct kt_buf KT_AUTOBUF id;
	struct kt_sha256 sha;
	uint8_t digest[KT_SHA256_LEN], again[KT_SHA256_LEN];
	char hex[KT_SHA256_HEX];

	(void)state;
	kt_sha256_hex("abc", 3, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	kt_sha256("abc", 3, digest);
	ok(kt_sha256_init(&sha, &err));
	kt_sha256_add(&sha, "a", 1);
	kt_sha256_add(&sha, "bc", 2);
	kt_sha256_finish(&sha, again);
	assert_memory_equal(digest, again, sizeof(digest));
	for (uint32_t bit = 1; bit <= KT_USAGE_NETSCAPE_SGC; bit <<= 1)
		assert_int_equal(kt_pki_usage_parse(kt_pki_usage_name(bit)), bit);
	assert_int_equal(kt_pki_usage_parse("signing"), KT_USAGE_DIGITAL_SIGNATURE);
	assert_int_equal(kt_pki_usage_parse("s/mime"), KT_USAGE_EMAIL_PROTECTION);
	assert_int_equal(kt_pki_usage_parse("Server Auth"), 0);
	kt_buf_init(&id, 256);
	ok(kt_pki_cert_ari_id(s.leaf, &id, &err));
	assert_int_equal(id.len, 27 + 1 + 22); /* 20 and 16 bytes in base64url */
	free_scene(&s);
}

/* A key made, written and read. */
static enum kt_code key_flow(struct scene *s, struct kt_view pem)
{
	struct kt_secret *text KT_AUTOSECRET = NULL;
	struct kt_key *fresh = NULL, *same = NULL;
	enum kt_code code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &fresh, &err);

	(void)s, (void)pem;
	if (code == KT_OK)
		code = kt_pki_key_to_pem(fresh, KT_KEY_PKCS8, &text, &err);
	if (code == KT_OK)
		code = kt_pki_key_from_pem(kt_secret_view(text), &same, &err);
	kt_pki_key_destroy(fresh);
	kt_pki_key_destroy(same);
	return code;
}

/* A certificate issued, one with its chain read and checked. */
static enum kt_code issue_flow(struct scene *s, struct kt_view pem)
{
	struct kt_issue_expect expect = {.key = s->key, .request = &s->request, .now = T0};
	struct kt_chain *chain = NULL;
	struct kt_buf KT_AUTOBUF der;
	enum kt_code code;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	code = kt_pki_issue(s->sub.issuer, &s->request, s->key, &der, NULL, &err);
	if (code == KT_OK)
		code = kt_pki_chain_parse_for(pem, s->known, &chain, &err);
	if (code == KT_OK)
		code = kt_pki_check_issued(chain, &expect, &err);
	kt_pki_chain_destroy(chain);
	return code;
}

static enum kt_code known_flow(struct scene *s, struct kt_view pem)
{
	s->known = s->key;
	return issue_flow(s, pem);
}

/* Each allocation fails in turn: that it was for want of memory is said, nothing leaks (the sanitizer looks), nothing crashes. */
static void out_of_memory(enum kt_code (*flow)(struct scene *s, struct kt_view pem), const char *name)
{
	struct scene s = new_scene();
	struct kt_buf KT_AUTOBUF pem;
	int64_t total = 0;
	int failures = 0;

	kt_buf_init(&pem, 65536);
	ok(kt_pki_cert_pem(s.leaf, &pem, &err));
	ok(kt_pki_cert_pem(s.sub.cert, &pem, &err));
	ok(flow(&s, kt_buf_view(&pem))); /* what is allocated once for all */
	for (int64_t n = -1; n < total; n++) {
		uint64_t before = kt_mem_count();
		enum kt_code code;

		kt_mem_fail_after(n, 0);
		code = flow(&s, kt_buf_view(&pem));
		kt_mem_fail_after(-1, 0);
		if (n < 0)
			total = (int64_t)(kt_mem_count() - before);
		if (code != KT_OK && (code != KT_E_NOMEM || n < 0))
			fail_msg("allocation %lld of %lld: %s: %s", (long long)n, (long long)total, kt_code_name(code), err.what);
		failures += code != KT_OK;
	}
	assert_true(failures > 20);
	print_message("%s: %lld allocations, each failed: %d errors\n", name, (long long)total, failures);
	free_scene(&s);
}

static void test_out_of_memory(void **state)
{
	(void)state;
	out_of_memory(key_flow, "keys");
	out_of_memory(issue_flow, "certificates");
	out_of_memory(known_flow, "certificates for a known key");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_chain_parse),
	        cmocka_unit_test(test_chain_split),
	        cmocka_unit_test(test_check_issued_good),
	        cmocka_unit_test_prestate(test_check_issued_good, "known key"),
	        cmocka_unit_test(test_check_issued_names_dates),
	        cmocka_unit_test_prestate(test_check_issued_names_dates, "known key"),
	        cmocka_unit_test(test_check_issued_crypto),
	        cmocka_unit_test_prestate(test_check_issued_crypto, "known key"),
	        cmocka_unit_test(test_issuer_refused),
	        cmocka_unit_test(test_small_things),
	        cmocka_unit_test(test_out_of_memory),
	};

	return cmocka_run_group_tests(tests, pki_setup, pki_teardown);
}
