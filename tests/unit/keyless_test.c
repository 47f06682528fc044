/* Certificates for a key that is known: read without decoding it, they must be what they are otherwise, or be refused. */
#include "pki_ca.h"

#include <openssl/x509v3.h>

#include "kt/mem.h"
#include "pki/pki_internal.h"

static const char *const names[] = {"www.example.org", "example.org"};
static const struct kt_cert_request request = {
        .common_name = "www.example.org", .dns_names = {names, 2}, .not_before = T0 - KT_HOUR, .not_after = T0 + 90 * KT_DAY,
        .usages = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_SERVER_AUTH};

static void check_same(const struct kt_cert *got, const struct kt_cert *want, const struct kt_key *key)
{
	KT_AUTOKEY struct kt_key *public = NULL;
	struct kt_buf KT_AUTOBUF a;
	struct kt_buf KT_AUTOBUF b;

	kt_buf_init(&a, 4096);
	kt_buf_init(&b, 4096);
	assert_true(kt_pki_cert_same(got, want));
	assert_string_equal(kt_pki_cert_serial(got), kt_pki_cert_serial(want));
	assert_string_equal(kt_pki_cert_sha256(got), kt_pki_cert_sha256(want));
	assert_string_equal(kt_pki_cert_subject(got), kt_pki_cert_subject(want));
	assert_string_equal(kt_pki_cert_issuer(got), kt_pki_cert_issuer(want));
	assert_string_equal(kt_pki_cert_common_name(got), kt_pki_cert_common_name(want));
	assert_int_equal(kt_pki_cert_name_count(got), kt_pki_cert_name_count(want));
	for (size_t i = 0; i < kt_pki_cert_name_count(want); i++)
		assert_string_equal(kt_pki_cert_name(got, i), kt_pki_cert_name(want, i));
	assert_true(kt_pki_cert_not_before(got) == kt_pki_cert_not_before(want));
	assert_true(kt_pki_cert_not_after(got) == kt_pki_cert_not_after(want));
	assert_int_equal(kt_pki_cert_usages(got), kt_pki_cert_usages(want));
	assert_int_equal(kt_pki_cert_is_ca(got), kt_pki_cert_is_ca(want));
	assert_int_equal(kt_pki_cert_key_type(got), kt_pki_cert_key_type(want));
	assert_int_equal(kt_pki_cert_key_bits(got), kt_pki_cert_key_bits(want));
	assert_false(got->broken);
	assert_int_equal(X509_get_extension_flags(got->x509), X509_get_extension_flags(want->x509));
	ok(kt_pki_cert_ari_id(got, &a, &err));
	ok(kt_pki_cert_ari_id(want, &b, &err));
	assert_true(kt_view_eq(kt_buf_view(&a), kt_buf_view(&b)));
	assert_true(kt_pki_cert_has_key(got, key));
	ok(kt_pki_cert_key(got, &public, &err));
	assert_true(kt_pki_key_same_public(public, key));
}

/* Every kind of key below every kind of issuer. */
static void test_kinds(void **state)
{
	static const struct {
		enum kt_key_type type;
		unsigned bits;
	} kinds[] = {{KT_KEY_RSA, 2048}, {KT_KEY_ECDSA, 256}, {KT_KEY_ECDSA, 384}, {KT_KEY_ECDSA, 521}, {KT_KEY_ED25519, 0}};
	enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
	struct ca cas[KINDS];
	struct kt_key *keys[KINDS];

	(void)state;
	for (size_t i = 0; i < KINDS; i++) {
		cas[i] = new_ca("CA", NULL, kinds[i].type, kinds[i].bits);
		keys[i] = new_key(kinds[i].type, kinds[i].bits);
	}
	for (size_t i = 0; i < KINDS * KINDS; i++) {
		const struct ca *ca = &cas[i / KINDS], *other = &cas[(i / KINDS + 1) % KINDS];
		const struct kt_key *key = keys[i % KINDS];
		KT_AUTOCERT struct kt_cert *plain = issue(ca->issuer, &request, key), *known = NULL;
		KT_AUTOSSL(X509) whole = NULL;

		ok(kt_pki_cert_for_key(kt_pki_cert_der(plain), key, &known, &err));
		assert_ptr_equal(known->own, key->pkey);
		assert_null(plain->own);
		assert_null(X509_get0_pubkey(known->x509)); /* else all this is in vain */
		check_same(known, plain, key);
		assert_false(kt_pki_cert_has_key(known, ca->key));
		assert_false(kt_pki_cert_has_key(known, keys[(i + 1) % KINDS]));
		assert_true(kt_pki_cert_issued_by(known, ca->cert));
		assert_false(kt_pki_cert_issued_by(known, other->cert)); /* the same name, another key */
		assert_int_equal(X509_check_issued(ca->cert->x509, known->x509), X509_V_OK);
		whole = kt_pki_cert_whole(known);
		assert_non_null(whole);
		assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(whole), key->pkey), 1);
	}
	for (size_t i = 0; i < KINDS; i++) {
		free_ca(&cas[i]);
		kt_pki_key_destroy(keys[i]);
	}
}

/* By OpenSSL's own functions: with any bytes as the key, and others in a comment. */
static struct kt_buf odd_cert(const struct ca *ca, struct kt_view spki, struct kt_view comment)
{
	KT_AUTOSSL(X509) x = X509_new();
	X509_PUBKEY *in = X509_get_X509_PUBKEY(x);
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	const unsigned char *p = (const unsigned char *)spki.ptr;
	unsigned char *der = NULL;
	struct kt_buf out;
	int len;

	kt_buf_init(&out, KT_PKI_DER_MAX);
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 77);
	X509_set_issuer_name(x, X509_get_subject_name(ca->cert->x509));
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)names[0], -1, -1, 0);
	ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(T0 / KT_SECOND - 60));
	ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(T0 / KT_SECOND + 86400 * 30));
	assert_non_null(d2i_X509_PUBKEY(&in, &p, (long)spki.len));
	ASN1_STRING_set(text, comment.ptr, (int)comment.len);
	X509_add1_ext_i2d(x, NID_netscape_comment, text, 0, 0);
	ASN1_IA5STRING_free(text);
	assert_int_not_equal(X509_sign(x, ca->key->pkey, EVP_sha256()), 0);
	len = i2d_X509(x, &der);
	kt_buf_add(&out, der, (size_t)len);
	OPENSSL_free(der);
	ERR_clear_error();
	return out;
}

/* Whether it passes for one for the key, and by which way it was read. */
static bool passes(const struct ca *ca, const struct kt_key *key, struct kt_view der, bool *ret_keyless)
{
	KT_AUTOCERT struct kt_cert *cert = NULL;

	*ret_keyless = false;
	if (kt_pki_cert_for_key(der, key, &cert, &err) != KT_OK)
		return false;
	*ret_keyless = cert->own != NULL;
	return kt_pki_cert_has_key(cert, key) && !cert->broken && kt_pki_cert_issued_by(cert, ca->cert);
}

static void test_other_keys(void **state)
{
	struct ca ca = new_ca("CA", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256), *other = new_key(KT_KEY_ECDSA, 256);
	struct kt_view ours = kt_pki_key_public_der(key), theirs = kt_pki_key_public_der(other);
	struct kt_buf KT_AUTOBUF good = odd_cert(&ca, ours, KT_VIEW_LIT("x"));
	struct kt_buf KT_AUTOBUF for_other = odd_cert(&ca, theirs, KT_VIEW_LIT("x"));
	struct kt_buf KT_AUTOBUF hidden = odd_cert(&ca, theirs, ours); /* our key's bytes, but not as the key */
	struct kt_buf KT_AUTOBUF both = odd_cert(&ca, ours, theirs);
	struct kt_buf KT_AUTOBUF off_curve;
	struct kt_buf KT_AUTOBUF hidden_off_curve;
	struct kt_buf KT_AUTOBUF point;
	bool keyless;

	(void)state;
	assert_true(passes(&ca, key, kt_buf_view(&good), &keyless));
	assert_true(keyless);
	assert_true(passes(&ca, key, kt_buf_view(&both), &keyless));
	assert_true(keyless);
	assert_false(passes(&ca, key, kt_buf_view(&for_other), &keyless));
	assert_false(keyless);
	assert_false(passes(&ca, key, kt_buf_view(&hidden), &keyless));
	assert_false(keyless);
	assert_true(passes(&ca, other, kt_buf_view(&hidden), &keyless));
	assert_true(keyless);
	/* A point that is not on the curve, alone and with our key beside it. */
	kt_buf_init(&point, 1024);
	kt_buf_addv(&point, ours);
	point.ptr[point.len - 1] = (char)(point.ptr[point.len - 1] ^ 1);
	off_curve = odd_cert(&ca, kt_buf_view(&point), KT_VIEW_LIT("x"));
	hidden_off_curve = odd_cert(&ca, kt_buf_view(&point), ours);
	assert_false(passes(&ca, key, kt_buf_view(&off_curve), &keyless));
	assert_false(keyless);
	assert_false(passes(&ca, key, kt_buf_view(&hidden_off_curve), &keyless));
	assert_false(keyless);
	free_ca(&ca);
}

/* No byte of a certificate for our key may change: not one that passes is another one. */
static void test_each_byte(void **state)
{
	struct ca ca = new_ca("CA", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *leaf = issue(ca.issuer, &request, key);
	struct kt_view der = kt_pki_cert_der(leaf);
	struct kt_buf KT_AUTOBUF copy;
	bool keyless;

	(void)state;
	kt_buf_init(&copy, KT_PKI_DER_MAX);
	for (size_t i = 0; i < der.len; i++) {
		for (int bit = 1; bit < 256; bit <<= 1) {
			kt_buf_reset(&copy);
			kt_buf_addv(&copy, der);
			copy.ptr[i] = (char)(copy.ptr[i] ^ bit);
			assert_false(passes(&ca, key, kt_buf_view(&copy), &keyless));
		}
		kt_buf_reset(&copy);
		kt_buf_add(&copy, der.ptr, i);
		assert_false(passes(&ca, key, kt_buf_view(&copy), &keyless));
	}
	kt_buf_reset(&copy);
	kt_buf_addv(&copy, der);
	kt_buf_addc(&copy, 0);
	assert_false(passes(&ca, key, kt_buf_view(&copy), &keyless));
	free_ca(&ca);
}

/* X.690 8.1.3.6: a length that only two zero bytes end. What the signature is over is left to OpenSSL then. */
static void test_indefinite_length(void **state)
{
	struct ca ca = new_ca("CA", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *leaf = issue(ca.issuer, &request, key);
	struct kt_view der = kt_pki_cert_der(leaf);
	struct kt_buf KT_AUTOBUF copy;
	bool keyless;

	(void)state;
	kt_buf_init(&copy, KT_PKI_DER_MAX);
	assert_int_equal((unsigned char)der.ptr[1], 0x82);
	kt_buf_add(&copy, "\x30\x80", 2);
	kt_buf_add(&copy, der.ptr + 4, der.len - 4);
	kt_buf_add(&copy, "\0\0", 2);
	(void)passes(&ca, key, kt_buf_view(&copy), &keyless);
	assert_false(keyless);
	free_ca(&ca);
}

/* A self-signed certificate is its own issuer: the key that verifies it is the one we know. */
static void test_self_signed(void **state)
{
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *plain = issue(NULL, &request, key), *known = NULL;
	struct kt_issue_expect expect = {.key = key, .request = &request, .now = T0};
	KT_AUTOCHAIN struct kt_chain *chain = NULL;
	struct kt_buf KT_AUTOBUF pem;

	(void)state;
	kt_buf_init(&pem, 65536);
	ok(kt_pki_cert_for_key(kt_pki_cert_der(plain), key, &known, &err));
	assert_non_null(known->own);
	assert_true(kt_pki_cert_issued_by(known, known));
	assert_true(kt_pki_cert_issued_by(known, plain));
	assert_true(kt_pki_cert_issued_by(plain, known));
	ok(kt_pki_cert_pem(plain, &pem, &err));
	ok(kt_pki_chain_parse_for(kt_buf_view(&pem), key, &chain, &err));
	ok(kt_pki_check_issued(chain, &expect, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_kinds),      cmocka_unit_test(test_other_keys),  cmocka_unit_test(test_each_byte),
	        cmocka_unit_test(test_indefinite_length), cmocka_unit_test(test_self_signed),
	};

	return cmocka_run_group_tests(tests, pki_setup, pki_teardown);
}
