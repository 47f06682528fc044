/* Keys, requests and certificates, each cross-checked with OpenSSL's own parsers. */
#include "pki_ca.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "kt/mem.h"
#include "pki/pki_openssl.h"

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

/* RFC 7633; addresses alone make a request without a subject (RFC 8738). */
static void test_csr_must_staple_and_address(void **state)
{
	struct kt_cert_request request = {.ip_addresses = STRS("192.0.2.1", "2001:db8::1"), .must_staple = true};
	KT_AUTOKEY struct kt_key *key = new_key(KT_KEY_ECDSA, 256);
	struct kt_buf KT_AUTOBUF der;
	STACK_OF(X509_EXTENSION) *exts;
	const unsigned char *at;
	ASN1_OCTET_STRING *value;
	GENERAL_NAMES *names;
	X509_REQ *req;
	int index;

	(void)state;
	kt_buf_init(&der, KT_PKI_DER_MAX);
	for (int with = 0; with < 2; with++) {
		request.must_staple = with != 0;
		kt_buf_reset(&der);
		ok(kt_pki_csr_der(&request, key, &der, &err));
		at = (const unsigned char *)der.ptr;
		req = d2i_X509_REQ(NULL, &at, (long)der.len);
		assert_non_null(req);
		assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(req)), 0);
		exts = X509_REQ_get_extensions(req);
		index = X509v3_get_ext_by_NID(exts, NID_tlsfeature, -1);
		assert_int_equal(index >= 0, with);
		if (with) {
			value = X509_EXTENSION_get_data(sk_X509_EXTENSION_value(exts, index));
			assert_int_equal(ASN1_STRING_length(value), 5);
			assert_memory_equal(ASN1_STRING_get0_data(value), "\x30\x03\x02\x01\x05", 5);
		}
		names = X509V3_get_d2i(exts, NID_subject_alt_name, NULL, NULL);
		assert_int_equal(sk_GENERAL_NAME_num(names), 2);
		assert_int_equal(sk_GENERAL_NAME_value(names, 0)->type, GEN_IPADD);
		GENERAL_NAMES_free(names);
		sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
		X509_REQ_free(req);
	}
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
	        cmocka_unit_test(test_csr_must_staple_and_address),
	        cmocka_unit_test(test_request_errors),
	        cmocka_unit_test(test_literal_subject),
	};

	return cmocka_run_group_tests(tests, pki_setup, pki_teardown);
}
