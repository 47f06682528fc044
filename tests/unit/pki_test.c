/* Keys, requests, certificates, chains and the checks on receipt, each cross-checked with OpenSSL's own parsers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/pki.h"
#include "pki/pki_openssl.h"

#define T0 ((kt_ms)1790000000 * KT_SECOND)
#define STRS(...)                                                                                                      \
	{                                                                                                              \
		(const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)        \
	}

static struct kt_err err;

#define ok(call)                                                                                                       \
	do {                                                                                                           \
		enum kt_code code_ = (call);                                                                           \
		if (code_ != KT_OK)                                                                                    \
			fail_msg("%s: %s (%s)", #call, kt_code_name(code_), err.what);                                 \
	} while (0)
#define refused(call, code, text)                                                                                      \
	do {                                                                                                           \
		assert_int_equal((call), (code));                                                                      \
		if (strstr(err.what, (text)) == NULL)                                                                  \
			fail_msg("%s: \"%s\" lacks \"%s\"", #call, err.what, (text));                                  \
	} while (0)

static struct kt_key *new_key(enum kt_key_type type, unsigned bits)
{
	struct kt_key *key = NULL;

	ok(kt_pki_key_generate(type, bits, &key, &err));
	return key;
}

/* --- keys ----------------------------------------------------------------------------------------------------------- */

static const struct {
	enum kt_key_type type;
	unsigned bits;
	const char *pkcs1_label;
} key_cases[] = {
        {KT_KEY_ECDSA, 256, "-----BEGIN EC PRIVATE KEY-----\n"}, {KT_KEY_ECDSA, 384, "-----BEGIN EC PRIVATE KEY-----\n"},
        {KT_KEY_ECDSA, 521, "-----BEGIN EC PRIVATE KEY-----\n"}, {KT_KEY_RSA, 2048, "-----BEGIN RSA PRIVATE KEY-----\n"},
        {KT_KEY_ED25519, 0, "-----BEGIN PRIVATE KEY-----\n"},
};

/* OpenSSL reads what we wrote, and says byte for byte the same. */
static void check_with_openssl(const struct kt_key *key, struct kt_view pem, struct kt_view pkcs8)
{
	BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
	EVP_PKEY *theirs = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	PKCS8_PRIV_KEY_INFO *info;
	unsigned char *der = NULL;
	int len;

	assert_non_null(theirs);
	assert_int_equal(EVP_PKEY_eq(theirs, kt_pki_key_evp(key)), 1);
	len = i2d_PUBKEY(theirs, &der);
	assert_int_equal(len, kt_pki_key_public_der(key).len);
	assert_memory_equal(der, kt_pki_key_public_der(key).ptr, (size_t)len);
	OPENSSL_free(der);
	der = NULL;
	info = EVP_PKEY2PKCS8(theirs);
	len = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
	assert_int_equal(len, pkcs8.len);
	assert_memory_equal(der, pkcs8.ptr, (size_t)len);
	PKCS8_PRIV_KEY_INFO_free(info);
	OPENSSL_free(der);
	EVP_PKEY_free(theirs);
	BIO_free(bio);
}

static void test_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(key_cases) / sizeof(key_cases[0]); i++) {
		KT_AUTOKEY struct kt_key *key = new_key(key_cases[i].type, key_cases[i].bits);
		KT_AUTOKEY struct kt_key *other = new_key(KT_KEY_ECDSA, 256);
		KT_AUTOKEY struct kt_key *public = NULL;
		KT_AUTOSECRET struct kt_secret *pkcs8 = NULL;

		ok(kt_pki_key_to_der(key, KT_KEY_PKCS8, &pkcs8, &err));
		assert_false(kt_pki_key_same_public(key, other));
		for (int encoding = KT_KEY_PKCS1; encoding <= KT_KEY_PKCS8; encoding++) {
			KT_AUTOSECRET struct kt_secret *pem = NULL;
			KT_AUTOSECRET struct kt_secret *der = NULL;
			KT_AUTOKEY struct kt_key *back = NULL;
			KT_AUTOKEY struct kt_key *from_der = NULL;
			const char *label = encoding == KT_KEY_PKCS8 ? "-----BEGIN PRIVATE KEY-----\n"
			                                             : key_cases[i].pkcs1_label;

			ok(kt_pki_key_to_pem(key, (enum kt_key_encoding)encoding, &pem, &err));
			assert_memory_equal(kt_secret_view(pem).ptr, label, strlen(label));
			check_with_openssl(key, kt_secret_view(pem), kt_secret_view(pkcs8));
			ok(kt_pki_key_from_pem(kt_secret_view(pem), &back, &err));
			ok(kt_pki_key_to_der(key, (enum kt_key_encoding)encoding, &der, &err));
			ok(kt_pki_key_from_der(kt_secret_view(der), &from_der, &err));
			assert_true(kt_pki_key_same_public(key, back));
			assert_true(kt_pki_key_same_public(key, from_der));
			assert_true(kt_pki_key_is_private(back));
			assert_int_equal(kt_pki_key_type(back), key_cases[i].type);
			assert_int_equal(kt_pki_key_bits(back), key_cases[i].bits ? key_cases[i].bits : 256);
		}
		ok(kt_pki_key_from_public(kt_pki_key_public_der(key), &public, &err));
		assert_true(kt_pki_key_same_public(key, public));
		assert_false(kt_pki_key_is_private(public));
		refused(kt_pki_key_to_der(public, KT_KEY_PKCS8, &pkcs8, &err), KT_E_INVALID, "public key");
	}
}

static void test_keys_refused(void **state)
{
	static const char encrypted[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
	struct kt_buf KT_AUTOBUF pem;
	struct kt_key *key = NULL;
	EVP_PKEY *small = EVP_RSA_gen(1024), *k1 = EVP_EC_gen("secp256k1");
	unsigned char *der = NULL;
	int len;

	(void)state;
	refused(kt_pki_key_generate(KT_KEY_RSA, 1024, &key, &err), KT_E_INVALID, "1024");
	refused(kt_pki_key_generate(KT_KEY_ECDSA, 255, &key, &err), KT_E_INVALID, "255");
	refused(kt_pki_key_from_pem(kt_view_str("hello"), &key, &err), KT_E_CRYPTO, "no private key");
	refused(kt_pki_key_from_pem(kt_view_str(encrypted), &key, &err), KT_E_UNSUPPORTED, "encrypted");
	len = i2d_PrivateKey(small, &der);
	refused(kt_pki_key_from_der((struct kt_view){(char *)der, (size_t)len}, &key, &err), KT_E_CRYPTO, "1024 bits");
	OPENSSL_free(der);
	der = NULL;
	len = i2d_PrivateKey(k1, &der);
	refused(kt_pki_key_from_der((struct kt_view){(char *)der, (size_t)len}, &key, &err), KT_E_CRYPTO, "secp256k1");
	OPENSSL_free(der);
	EVP_PKEY_free(small);
	EVP_PKEY_free(k1);
	assert_null(key);

	/* A public half that isn't the private's: the last byte of the point in a SEC1 key is flipped. */
	kt_buf_init(&pem, 4096);
	{
		KT_AUTOKEY struct kt_key *a = new_key(KT_KEY_ECDSA, 256);
		KT_AUTOKEY struct kt_key *b = new_key(KT_KEY_ECDSA, 256);
		KT_AUTOSECRET struct kt_secret *da = NULL;
		KT_AUTOSECRET struct kt_secret *db = NULL;
		char mixed[256];

		ok(kt_pki_key_to_der(a, KT_KEY_PKCS1, &da, &err));
		ok(kt_pki_key_to_der(b, KT_KEY_PKCS1, &db, &err));
		memcpy(mixed, kt_secret_view(da).ptr, kt_secret_len(da));
		memcpy(mixed + 40, kt_secret_view(db).ptr + 40, kt_secret_len(da) - 40);
		kt_pki_pem_encode(&pem, "EC PRIVATE KEY", (struct kt_view){mixed, kt_secret_len(da)});
		assert_int_not_equal(kt_pki_key_from_pem(kt_buf_view(&pem), &key, &err), KT_OK);
	}
}

/* --- certificates ---------------------------------------------------------------------------------------------------- */

struct ca {
	struct kt_key *key;
	struct kt_cert *cert;
	struct kt_issuer *issuer;
};

static struct kt_cert *parse(struct kt_buf *der)
{
	struct kt_cert *cert = NULL;

	ok(kt_pki_cert_from_der(kt_buf_view(der), &cert, &err));
	return cert;
}

static struct kt_cert *issue(struct kt_issuer *issuer, const struct kt_cert_request *request, const struct kt_key *key)
{
	struct kt_buf KT_AUTOBUF der;
	struct kt_issued info;
	struct kt_cert *cert;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	if (issuer != NULL)
		ok(kt_pki_issue(issuer, request, key, &der, &info, &err));
	else
		ok(kt_pki_self_sign(request, key, &der, &info, &err));
	cert = parse(&der);
	assert_string_equal(info.serial, kt_pki_cert_serial(cert));
	assert_string_equal(info.sha256, kt_pki_cert_sha256(cert));
	assert_true(info.not_before == kt_pki_cert_not_before(cert));
	assert_true(info.not_after == kt_pki_cert_not_after(cert));
	return cert;
}

static struct ca new_ca(const char *cn, struct ca *parent, enum kt_key_type type, unsigned bits)
{
	struct kt_cert_request request = {.common_name = cn, .is_ca = true, .usages = KT_USAGE_CERT_SIGN | KT_USAGE_CRL_SIGN,
	                                  .not_before = T0 - KT_DAY, .not_after = T0 + 3650 * KT_DAY};
	struct ca ca = {.key = new_key(type, bits)};

	ca.cert = issue(parent != NULL ? parent->issuer : NULL, &request, ca.key);
	ok(kt_pki_issuer_create(ca.cert, ca.key, &ca.issuer, &err));
	return ca;
}

static void free_ca(struct ca *ca)
{
	kt_pki_issuer_destroy(ca->issuer);
	kt_pki_cert_destroy(ca->cert);
	kt_pki_key_destroy(ca->key);
}

/* What `openssl x509 -text` prints for one extension ("" when it is missing). */
static const char *ext_text(const struct kt_cert *cert, int nid, bool *critical)
{
	static char text[4096];
	X509 *x = kt_pki_cert_x509(cert);
	int at = X509_get_ext_by_NID(x, nid, -1), len;
	BIO *bio;

	text[0] = '\0';
	if (at < 0)
		return text;
	assert_int_equal(X509_get_ext_by_NID(x, nid, at), -1);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(X509V3_EXT_print(bio, X509_get_ext(x, at), 0, 0), 1);
	len = BIO_read(bio, text, sizeof(text) - 1);
	text[len > 0 ? len : 0] = '\0';
	BIO_free(bio);
	if (critical != NULL)
		*critical = X509_EXTENSION_get_critical(X509_get_ext(x, at)) == 1;
	return text;
}

static void test_leaf_in_full(void **state)
{
	static const struct kt_cert_attr subject[] = {{"C", "DE"}, {"O", "Example GmbH"}, {"OU", "R\xc3\xbc"}, {"2.5.4.97", "x"}};
	static const struct kt_cert_other_name other = {"1.3.6.1.4.1.311.20.2.3", "upn@example.org"};
	struct kt_cert_request request = {
	        .subject = subject,
	        .subject_count = 4,
	        .common_name = "a.example.org",
	        .dns_names = STRS("a.example.org", "*.b.example.org"),
	        .ip_addresses = STRS("192.0.2.7", "2001:db8::1"),
	        .uris = STRS("spiffe://example.org/x"),
	        .emails = STRS("me@example.org"),
	        .other_names = &other,
	        .other_name_count = 1,
	        .usages = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_KEY_AGREEMENT | KT_USAGE_DECIPHER_ONLY | KT_USAGE_SERVER_AUTH |
	                  KT_USAGE_CLIENT_AUTH | KT_USAGE_NETSCAPE_SGC,
	        .not_before = T0 + 999,
	        .not_after = kt_time_civil(2055, 1, 2, 3, 4, 5),
	        .crl_urls = STRS("http://crl.example.org/a.crl", "http://crl.example.org/b.crl"),
	        .ocsp_urls = STRS("http://ocsp.example.org"),
	        .issuer_urls = STRS("http://ca.example.org/ca.der"),
	};
	struct ca ca = new_ca("Test CA", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 384);
	KT_AUTOCERT struct kt_cert *cert = issue(ca.issuer, &request, key);
	X509 *x = kt_pki_cert_x509(cert);
	bool critical = false;

	(void)state;
	assert_int_equal(X509_verify(x, kt_pki_key_evp(ca.key)), 1);
	assert_int_equal(X509_get_version(x), 2);
	assert_int_equal(X509_check_issued(kt_pki_cert_x509(ca.cert), x), X509_V_OK);
	assert_true(kt_pki_cert_issued_by(cert, ca.cert));
	assert_false(kt_pki_cert_issued_by(ca.cert, cert));
	assert_true(kt_pki_cert_has_key(cert, key));
	assert_string_equal(kt_pki_cert_subject(cert), "CN=a.example.org,organizationIdentifier=x,OU=R\\C3\\BC,O=Example GmbH,C=DE");
	assert_string_equal(kt_pki_cert_issuer(cert), "CN=Test CA");
	assert_int_equal(strlen(kt_pki_cert_serial(cert)), 32);
	assert_true(kt_pki_cert_not_before(cert) == T0);
	assert_true(kt_pki_cert_not_after(cert) == kt_time_civil(2055, 1, 2, 3, 4, 5));
	assert_string_equal(ext_text(cert, NID_subject_alt_name, &critical),
	                    "DNS:a.example.org, DNS:*.b.example.org, email:me@example.org, IP Address:192.0.2.7, "
	                    "IP Address:2001:DB8:0:0:0:0:0:1, URI:spiffe://example.org/x, "
	                    "othername: UPN::upn@example.org");
	assert_false(critical);
	assert_string_equal(ext_text(cert, NID_key_usage, &critical), "Digital Signature, Key Agreement, Decipher Only");
	assert_true(critical);
	assert_string_equal(ext_text(cert, NID_ext_key_usage, &critical),
	                    "TLS Web Server Authentication, TLS Web Client Authentication, Netscape Server Gated Crypto");
	assert_string_equal(ext_text(cert, NID_basic_constraints, &critical), "CA:FALSE");
	assert_true(critical);
	assert_non_null(strstr(ext_text(cert, NID_crl_distribution_points, NULL), "URI:http://crl.example.org/b.crl"));
	assert_string_equal(ext_text(cert, NID_info_access, NULL),
	                    "OCSP - URI:http://ocsp.example.org\nCA Issuers - URI:http://ca.example.org/ca.der");
	assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(x), X509_get0_subject_key_id(kt_pki_cert_x509(ca.cert))), 0);
	assert_int_equal(kt_pki_cert_usages(cert), request.usages);
	assert_int_equal(kt_pki_cert_name_count(cert), 7);
	assert_string_equal(kt_pki_cert_name(cert, 4), "ip:2001:db8::1");
	assert_string_equal(kt_pki_cert_name(cert, 6), "other:1.3.6.1.4.1.311.20.2.3:upn@example.org");
	assert_int_equal(kt_pki_cert_key_bits(cert), 384);
	free_ca(&ca);
}

static void test_ca_extensions(void **state)
{
	struct kt_cert_request request = {
	        .common_name = "Constrained CA",
	        .is_ca = true,
	        .has_path_len = true,
	        .path_len = 0,
	        .permitted = {.dns = STRS("example.org"), .ips = STRS("10.1.2.3/12", "fd00::/8")},
	        .excluded = {.emails = STRS("bad@example.org"), .uris = STRS(".evil.example")},
	        .constraints_critical = true,
	        .not_before = T0,
	        .not_after = T0 + KT_DAY,
	};
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_RSA, 2048);
	KT_AUTOCERT struct kt_cert *cert = issue(NULL, &request, key);
	struct kt_issuer *issuer = NULL;
	struct kt_buf KT_AUTOBUF der;
	bool critical = false;

	(void)state;
	kt_buf_init(&der, KT_PKI_DER_MAX);
	assert_true(kt_pki_cert_is_ca(cert));
	assert_string_equal(ext_text(cert, NID_basic_constraints, &critical), "CA:TRUE, pathlen:0");
	assert_true(critical);
	assert_string_equal(ext_text(cert, NID_key_usage, NULL), "Digital Signature, Key Encipherment, Certificate Sign");
	assert_string_equal(ext_text(cert, NID_name_constraints, &critical),
	                    "Permitted:\n  DNS:example.org\n  IP:10.0.0.0/255.240.0.0\n"
	                    "  IP:FD00:0:0:0:0:0:0:0/FF00:0:0:0:0:0:0:0\n"
	                    "Excluded:\n  email:bad@example.org\n  URI:.evil.example");
	assert_true(critical);
	ok(kt_pki_issuer_create(cert, key, &issuer, &err));
	assert_int_equal(kt_pki_issuer_path_len(issuer), 0);
	assert_true(kt_pki_issuer_not_after(issuer) == T0 + KT_DAY);
	refused(kt_pki_issue(issuer, &request, key, &der, NULL, &err), KT_E_POLICY, "path length");
	kt_pki_issuer_destroy(issuer);
}

static void test_empty_subject(void **state)
{
	struct kt_cert_request request = {.uris = STRS("spiffe://td/w"), .not_before = T0, .not_after = T0 + KT_HOUR};
	struct ca ca = new_ca("CA", NULL, KT_KEY_ED25519, 0);
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ED25519, 0);
	KT_AUTOCERT struct kt_cert *cert = issue(ca.issuer, &request, key);
	struct kt_buf KT_AUTOBUF der;
	bool critical = false;

	(void)state;
	assert_string_equal(ext_text(cert, NID_subject_alt_name, &critical), "URI:spiffe://td/w");
	assert_true(critical);
	assert_string_equal(kt_pki_cert_subject(cert), "");
	assert_null(kt_pki_cert_common_name(cert));
	kt_buf_init(&der, KT_PKI_DER_MAX);
	request.uris.count = 0;
	refused(kt_pki_issue(ca.issuer, &request, key, &der, NULL, &err), KT_E_INVALID, "needs a common name");
	free_ca(&ca);
}

/* Every key of a CA with every signature algorithm that fits. */
static void test_signatures(void **state)
{
	static const struct {
		const char *name;
		enum kt_key_type type;
		unsigned bits;
		int nid;
	} cases[] = {
	        {"", KT_KEY_RSA, 2048, NID_sha256WithRSAEncryption},
	        {"SHA384WithRSA", KT_KEY_RSA, 2048, NID_sha384WithRSAEncryption},
	        {"SHA512WithRSA", KT_KEY_RSA, 2048, NID_sha512WithRSAEncryption},
	        {"", KT_KEY_ECDSA, 256, NID_ecdsa_with_SHA256},
	        {"", KT_KEY_ECDSA, 384, NID_ecdsa_with_SHA384},
	        {"", KT_KEY_ECDSA, 521, NID_ecdsa_with_SHA512},
	        {"ECDSAWithSHA512", KT_KEY_ECDSA, 256, NID_ecdsa_with_SHA512},
	        {"PureEd25519", KT_KEY_ED25519, 0, NID_ED25519},
	};
	struct kt_buf KT_AUTOBUF out;

	(void)state;
	kt_buf_init(&out, KT_PKI_DER_MAX);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_cert_request request = {.common_name = "x", .not_before = T0, .not_after = T0 + KT_DAY};
		KT_AUTOKEY struct kt_key *key = new_key(cases[i].type, cases[i].bits);
		KT_AUTOCERT struct kt_cert *cert = NULL;
		const unsigned char *p;
		X509_REQ *req;

		ok(kt_pki_signature_parse(cases[i].name, &request.signature, &err));
		cert = issue(NULL, &request, key);
		assert_int_equal(X509_get_signature_nid(kt_pki_cert_x509(cert)), cases[i].nid);
		assert_int_equal(X509_verify(kt_pki_cert_x509(cert), kt_pki_key_evp(key)), 1);
		kt_buf_reset(&out);
		ok(kt_pki_csr_der(&request, key, &out, &err));
		p = (const unsigned char *)out.ptr;
		req = d2i_X509_REQ(NULL, &p, (long)out.len);
		assert_non_null(req);
		assert_int_equal(X509_REQ_verify(req, kt_pki_key_evp(key)), 1);
		assert_int_equal(X509_REQ_get_signature_nid(req), cases[i].nid);
		X509_REQ_free(req);
		request.signature = cases[i].type == KT_KEY_RSA ? KT_SIG_ED25519 : KT_SIG_SHA256_RSA;
		refused(kt_pki_csr_der(&request, key, &out, &err), KT_E_INVALID, "doesn't fit");
	}
	{
		enum kt_signature sig;

		refused(kt_pki_signature_parse("MD5WithRSA", &sig, &err), KT_E_INVALID, "MD5WithRSA");
	}
}

static void test_csr_extensions(void **state)
{
	struct kt_cert_request request = {.common_name = "a.example", .dns_names = STRS("a.example", "b.example"),
	                                  .usages = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_SERVER_AUTH};
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);
	struct kt_buf KT_AUTOBUF pem;
	STACK_OF(X509_EXTENSION) *exts;
	GENERAL_NAMES *names;
	X509_REQ *req;
	BIO *bio;

	(void)state;
	kt_buf_init(&pem, KT_PKI_DER_MAX);
	ok(kt_pki_csr_pem(&request, key, &pem, &err));
	bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
	req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
	assert_non_null(req);
	exts = X509_REQ_get_extensions(req);
	assert_int_equal(sk_X509_EXTENSION_num(exts), 3);
	names = X509V3_get_d2i(exts, NID_subject_alt_name, NULL, NULL);
	assert_int_equal(sk_GENERAL_NAME_num(names), 2);
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	X509_REQ_free(req);
	BIO_free(bio);
}

static void test_request_errors(void **state)
{
	const struct {
		struct kt_cert_request request;
		const char *text;
	} cases[] = {
	        {{.common_name = "this common name has more than sixty-four bytes, which RFC 5280 forbids"}, "64 bytes"},
	        {{.common_name = ""}, "empty"},
	        {{.dns_names = STRS("a b")}, "dnsNames: \"a b\""},
	        {{.dns_names = STRS("a..b")}, "dnsNames"},
	        {{.dns_names = STRS("-a.b")}, "dnsNames"},
	        {{.dns_names = STRS("a.*.b")}, "dnsNames"},
	        {{.dns_names = STRS("a.b.")}, "dnsNames"},
	        {{.ip_addresses = STRS("1.2.3")}, "ipAddresses"},
	        {{.uris = STRS("noscheme")}, "uris"},
	        {{.uris = STRS("a:b c")}, "uris"},
	        {{.emails = STRS("nobody")}, "emailAddresses"},
	        {{.other_names = &(struct kt_cert_other_name){"1.2.x", "v"}, .other_name_count = 1}, "otherNames"},
	        {{.other_names = &(struct kt_cert_other_name){"1.2.3", ""}, .other_name_count = 1}, "otherNames"},
	        {{.subject = &(struct kt_cert_attr){"NOPE", "x"}, .subject_count = 1}, "NOPE"},
	        {{.subject = &(struct kt_cert_attr){"O", "\xff"}, .subject_count = 1}, "UTF-8"},
	        {{.common_name = "x", .has_path_len = true}, "path length"},
	        {{.common_name = "x", .permitted = {.dns = STRS("a.b")}}, "isCA"},
	        {{.common_name = "x", .is_ca = true, .permitted = {.ips = STRS("10.0.0.0/33")}}, "prefix"},
	        {{.common_name = "x", .is_ca = true, .permitted = {.ips = STRS("10.0.0.0")}}, "range"},
	        {{.literal_subject = "CN=a", .common_name = "x"}, "excludes"},
	        {{.is_ca = false}, "needs a common name"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused(kt_pki_request_check(&cases[i].request, &err), KT_E_INVALID, cases[i].text);
	{
		static const char *many[KT_PKI_NAMES_MAX + 1];
		struct kt_cert_request request = {.dns_names = {many, KT_PKI_NAMES_MAX + 1}};

		for (size_t i = 0; i <= KT_PKI_NAMES_MAX; i++)
			many[i] = "a.example";
		refused(kt_pki_request_check(&request, &err), KT_E_LIMIT, "1001");
		request.dns_names.count = KT_PKI_NAMES_MAX;
		ok(kt_pki_request_check(&request, &err));
	}
}

static void test_literal_subject(void **state)
{
	static const struct {
		const char *literal, *shown; /* shown NULL: refused */
	} cases[] = {
	        {"CN=a,OU=b,O=c", "CN=a,OU=b,O=c"},
	        {"CN=a, O=b c ", "CN=a,O=b c"},
	        {"cn=a,dc=example,dc=org", "CN=a,DC=example,DC=org"},
	        {"CN=a+UID=u,O=x", "UID=u+CN=a,O=x"}, /* shown from the end of the sorted set */
	        {"CN=Last\\, First,O=x\\+y", "CN=Last\\, First,O=x\\+y"},
	        {"CN=\\41\\42,O=x", "CN=AB,O=x"},
	        {"CN=x,1.2.3.4=#0c026869", "CN=x,1.2.3.4=hi"},
	        {"O=\\20x\\20", "O=\\ x\\ "},
	        {"OID.2.5.4.10=org", "O=org"},
	        {"", NULL},
	        {"CN", NULL},
	        {"CN=a,", NULL},
	        {"CN=a,,O=b", NULL},
	        {"CN=", NULL},
	        {"XX=1", NULL},
	        {"CN=a\\", NULL},
	        {"CN=a\\q", NULL},
	        {"CN=a;O=b", NULL},
	        {"CN=#0", NULL},
	        {"CN=#0c0568", NULL},
	        {"1.2.=x", NULL},
	        {"CN=\\00", NULL},
	};
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_cert_request request = {.literal_subject = cases[i].literal, .not_before = T0, .not_after = T0 + KT_DAY};
		enum kt_code code = kt_pki_dn_check(cases[i].literal, &err);

		if (cases[i].shown == NULL) {
			if (code != KT_E_INVALID)
				fail_msg("\"%s\" was accepted", cases[i].literal);
			continue;
		}
		if (code != KT_OK)
			fail_msg("\"%s\": %s", cases[i].literal, err.what);
		{
			KT_AUTOCERT struct kt_cert *cert = issue(NULL, &request, key);
			char *text;
			BIO *bio = BIO_new(BIO_s_mem());
			long len;

			X509_NAME_print_ex(bio, X509_get_subject_name(kt_pki_cert_x509(cert)), 0,
			                   XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_DUMP_UNKNOWN & ~(unsigned long)XN_FLAG_DUMP_UNKNOWN_FIELDS);
			len = BIO_get_mem_data(bio, &text);
			assert_int_equal(len, strlen(cases[i].shown));
			assert_memory_equal(text, cases[i].shown, (size_t)len);
			BIO_free(bio);
		}
	}
}

/* --- chains and the checks on receipt ------------------------------------------------------------------------------------ */

struct scene {
	struct ca root, sub;
	struct kt_key *key;
	struct kt_cert *leaf;
	struct kt_cert_request request;
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

static struct kt_chain *chain_of(const struct kt_cert *a, const struct kt_cert *b, const struct kt_cert *c)
{
	struct kt_buf KT_AUTOBUF pem;
	struct kt_chain *chain = NULL;

	kt_buf_init(&pem, KT_PKI_CHAIN_BYTES_MAX);
	ok(kt_pki_cert_pem(a, &pem, &err));
	if (b != NULL)
		ok(kt_pki_cert_pem(b, &pem, &err));
	if (c != NULL)
		ok(kt_pki_cert_pem(c, &pem, &err));
	ok(kt_pki_chain_parse(kt_buf_view(&pem), &chain, &err));
	return chain;
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
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .min_remaining = KT_DAY, .need_chain = true};
	KT_AUTOCHAIN struct kt_chain *chain = chain_of(s.root.cert, s.leaf, s.sub.cert); /* in the wrong order */
	KT_AUTOCHAIN struct kt_chain *two = chain_of(s.leaf, s.sub.cert, NULL);
	struct kt_buf KT_AUTOBUF pem;
	struct kt_trust *trust = NULL, *other = NULL;
	struct ca stranger = new_ca("Root", NULL, KT_KEY_ECDSA, 256);

	(void)state;
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
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .min_remaining = KT_DAY};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_cert_request given = {.common_name = cases[i].cn, .dns_names = cases[i].names, .is_ca = cases[i].ca,
		                                .not_before = T0 + cases[i].before, .not_after = T0 + cases[i].after};
		KT_AUTOCERT struct kt_cert *leaf = issue(s.sub.issuer, &given, s.key);
		KT_AUTOCHAIN struct kt_chain *chain = chain_of(leaf, s.sub.cert, NULL);

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
	struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0, .need_chain = true};
	KT_AUTOKEY struct kt_key *other_key = new_key(KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *for_other = issue(s.sub.issuer, &s.request, other_key);
	struct ca impostor = new_ca("Sub", NULL, KT_KEY_ECDSA, 256);
	KT_AUTOCERT struct kt_cert *forged = issue(impostor.issuer, &s.request, s.key);
	KT_AUTOCERT struct kt_cert *sha1 = weak_cert(&s, EVP_sha1(), kt_pki_key_evp(s.key), kt_pki_key_evp(s.sub.key));
	KT_AUTOCHAIN struct kt_chain *c1 = chain_of(for_other, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c2 = chain_of(forged, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c3 = chain_of(s.leaf, NULL, NULL);
	KT_AUTOCHAIN struct kt_chain *c4 = chain_of(s.leaf, s.sub.cert, impostor.cert);
	KT_AUTOCHAIN struct kt_chain *c5 = chain_of(s.leaf, for_other, NULL);
	KT_AUTOCHAIN struct kt_chain *c6 = chain_of(sha1, s.sub.cert, NULL);
	KT_AUTOCHAIN struct kt_chain *c7 = chain_of(s.leaf, s.sub.cert, NULL);

	(void)state;
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

/* Each allocation fails in turn: an error comes back, nothing leaks (the sanitizer looks) and nothing crashes. */
static void test_out_of_memory(void **state)
{
	struct scene s = new_scene();
	struct kt_buf KT_AUTOBUF pem;
	int failures = 0;

	(void)state;
	kt_buf_init(&pem, 65536);
	ok(kt_pki_cert_pem(s.leaf, &pem, &err));
	ok(kt_pki_cert_pem(s.sub.cert, &pem, &err));
	for (int n = 0; n < 2000; n++) {
		struct kt_issue_expect expect = {.key = s.key, .request = &s.request, .now = T0};
		struct kt_chain *chain = NULL;
		struct kt_buf KT_AUTOBUF der;
		enum kt_code code;

		kt_buf_init(&der, KT_PKI_DER_MAX);
		kt_mem_fail_after(n, 0);
		code = kt_pki_issue(s.sub.issuer, &s.request, s.key, &der, NULL, &err);
		if (code == KT_OK)
			code = kt_pki_chain_parse(kt_buf_view(&pem), &chain, &err);
		if (code == KT_OK)
			code = kt_pki_check_issued(chain, &expect, &err);
		kt_mem_fail_after(-1, 0);
		kt_pki_chain_destroy(chain);
		if (code == KT_OK && n > 1500)
			break;
		failures += code != KT_OK;
	}
	assert_true(failures > 20);
	free_scene(&s);
}

static int setup(void **state)
{
	(void)state;
	return kt_pki_init(&err) == KT_OK ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	kt_pki_finish();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_keys),
	        cmocka_unit_test(test_keys_refused),
	        cmocka_unit_test(test_leaf_in_full),
	        cmocka_unit_test(test_ca_extensions),
	        cmocka_unit_test(test_empty_subject),
	        cmocka_unit_test(test_signatures),
	        cmocka_unit_test(test_csr_extensions),
	        cmocka_unit_test(test_request_errors),
	        cmocka_unit_test(test_literal_subject),
	        cmocka_unit_test(test_chain_parse),
	        cmocka_unit_test(test_chain_split),
	        cmocka_unit_test(test_check_issued_good),
	        cmocka_unit_test(test_check_issued_names_dates),
	        cmocka_unit_test(test_check_issued_crypto),
	        cmocka_unit_test(test_issuer_refused),
	        cmocka_unit_test(test_small_things),
	        cmocka_unit_test(test_out_of_memory),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
