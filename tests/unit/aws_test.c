/* Requests for AWS sessions: what is signed, beside what AWS's own client signs for the same certificates and moment. */
#include "pki_helper.h"

#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/text.h"
#include "keeper/aws/aws.h"

#define NOW  (INT64_C(1795417743) * KT_SECOND) /* 2026-11-23T07:09:03Z */
#define ROLE "arn:aws:iam::123456789012:role/orders"

static const char leaf_pem[] =
        "-----BEGIN CERTIFICATE-----\n"
        "MIIBMjCB2KADAgECAhN50Nlh6nL7A4wUnSWuNr9HyAkaMAoGCCqGSM49BAMCMA4x\n"
        "DDAKBgNVBAMMA3N1YjAgFw0yNjAxMDEwMDAwMDBaGA8yMDU2MDEwMTAwMDAwMFow\n"
        "ETEPMA0GA1UEAwwGb3JkZXJzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbESq\n"
        "NF5CpRGVg/u8COhtOCAsBgx3U+tatOpdL7PoNLTeSUgPtZj/150vjup2LO1WY7S9\n"
        "76TprXmkgAVYLb41CaMQMA4wDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNJADBG\n"
        "AiEA8N5iy3avh14iiL9B+hwndAJyw4eILkDgYh2Azg7G1/cCIQD7ccd6Hzy7En2p\n"
        "slVysnAAr1EDjmsNGosghNjrLtwEaw==\n"
        "-----END CERTIFICATE-----\n";
static const char sub_pem[] =
        "-----BEGIN CERTIFICATE-----\n"
        "MIIBIjCByaADAgECAgECMAoGCCqGSM49BAMCMBExDzANBgNVBAMMBmFuY2hvcjAg\n"
        "Fw0yNjAxMDEwMDAwMDBaGA8yMDU2MDEwMTAwMDAwMFowDjEMMAoGA1UEAwwDc3Vi\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3LFlFgkGB4ZK9PAgUslkO+YMGcTs\n"
        "4O/OejQ8cnUrm/WU9FnIN4IdsUcXrXEmJdn94dCScXFa/UqztqnPcacsPKMTMBEw\n"
        "DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBYy67KsV//vSyGPeMh\n"
        "VKgEOUupbBLoEz4NEn78rBaGYQIhALOT4/rBf3tT/5N+6s0KxhhmuKTq50tbnfQ3\n"
        "I5hHuhzA\n"
        "-----END CERTIFICATE-----\n";
static const char root_pem[] =
        "-----BEGIN CERTIFICATE-----\n"
        "MIIBJTCBzKADAgECAgEBMAoGCCqGSM49BAMCMBExDzANBgNVBAMMBmFuY2hvcjAg\n"
        "Fw0yNjAxMDEwMDAwMDBaGA8yMDU2MDEwMTAwMDAwMFowETEPMA0GA1UEAwwGYW5j\n"
        "aG9yMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhb2WKbVXIPnFT7FI8k7eMSWA\n"
        "GyiD9ThqQ3H0iPNIILzbMEX2UazZyDSFGKK3t5OB3MU1VlI8o2tMX1OTDnYb4aMT\n"
        "MBEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBqnOk+7xwsFrgj\n"
        "yne9UbCyQwSsOIxIxTnijYgLSq2IeQIhALchnF2eXR+kli9LlwV/31VwKoBgjC8U\n"
        "NxQCNko1tfBX\n"
        "-----END CERTIFICATE-----\n";

static struct kt_aws_roles_anywhere anywhere = {.trust_anchor_arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/0a1b",
                                                .profile_arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/2c3d",
                                                .certificate_ref = "orders-tls"};
static struct kt_aws_web_identity identity = {.token_ref = "id-token"};

static struct kt_aws_issuer by_certificate(void)
{
	return (struct kt_aws_issuer){
	        .roles_anywhere = &anywhere, .region = "eu-central-1", .role_arn = ROLE, .duration = KT_HOUR};
}

static struct kt_aws_issuer by_token(void)
{
	return (struct kt_aws_issuer){.web_identity = &identity, .region = "eu-central-1", .role_arn = ROLE, .duration = KT_HOUR};
}

static struct kt_chain *chain_of(const char *a, const char *b, const char *c)
{
	struct kt_buf KT_AUTOBUF pem;
	struct kt_chain *chain = NULL;

	kt_buf_init(&pem, 65536);
	kt_buf_adds(&pem, a);
	kt_buf_adds(&pem, b);
	kt_buf_adds(&pem, c);
	ok(kt_pki_chain_parse(kt_buf_view(&pem), &chain, &err));
	return chain;
}

static const char *text_of(const struct kt_buf *buf)
{
	return buf->len > 0 ? buf->ptr : "";
}

/* A root at the end of a chain is the trust anchor itself: it is not sent. */
static void test_string_to_sign(void **state)
{
	static const struct {
		const char *a, *b, *c, *hash;
	} cases[] = {
	        {leaf_pem, sub_pem, "", "004e942a1703dd4a1c3b63377bfe9c75dca05a7a8ab88c6697a337dbbfcfcab1"},
	        {leaf_pem, sub_pem, root_pem, "004e942a1703dd4a1c3b63377bfe9c75dca05a7a8ab88c6697a337dbbfcfcab1"},
	        {leaf_pem, "", "", "cce033781a2b1f835c51fb4c9eb6c50e084bbbf94426739e1722d7c6e44a0086"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_chain *chain KT_AUTOCHAIN = chain_of(cases[i].a, cases[i].b, cases[i].c);
		struct kt_aws_issuer aws = by_certificate();
		struct kt_buf KT_AUTOBUF text;
		char expected[300];

		kt_buf_init(&text, 4096);
		ok(kt_aws_string_to_sign(&aws, chain, NOW, &text, &err));
		(void)snprintf(expected, sizeof(expected),
		               "AWS4-X509-ECDSA-SHA256\n20261123T070903Z\n20261123/eu-central-1/rolesanywhere/aws4_request\n%s",
		               cases[i].hash);
		assert_string_equal(text_of(&text), expected);
	}
}

/* The headers, with a signature that verifies; a key of another kind can't sign. */
static void test_signed(void **state)
{
	struct kt_chain *chain KT_AUTOCHAIN = chain_of(leaf_pem, sub_pem, "");
	struct kt_aws_issuer aws = by_certificate();
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_key *ed KT_AUTOKEY = NULL;
	struct kt_aws_request request;

	(void)state;
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err));
	ok(kt_pki_key_generate(KT_KEY_ED25519, 0, &ed, &err));
	kt_aws_request_init(&request);
	ok(kt_aws_roles_anywhere(&aws, chain, key, NOW, &request, &err));
	assert_string_equal(text_of(&request.body),
	                    "{\"durationSeconds\": 3600, \"profileArn\": \"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/2c3d\", "
	                    "\"roleArn\": \"" ROLE "\", \"trustAnchorArn\": "
	                    "\"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/0a1b\"}");
	assert_int_equal(request.hidden, 0);
	assert_non_null(strstr(request.headers.ptr, "Host: rolesanywhere.eu-central-1.amazonaws.com\n"));
	assert_non_null(strstr(request.headers.ptr, "X-Amz-Date: 20261123T070903Z\n"));
	assert_non_null(strstr(request.headers.ptr, "X-Amz-X509: MIIBMjCB2KADAgECAhN50Nlh6nL7A4wUnSWuNr9HyAkaMAoG"));
	assert_non_null(strstr(request.headers.ptr, "X-Amz-X509-Chain: MIIBIjCByaADAgECAgEC"));
	assert_non_null(strstr(request.headers.ptr,
	                       "\nAuthorization: AWS4-X509-ECDSA-SHA256 Credential=2716583495922078513170289932293006260517210394/"
	                       "20261123/eu-central-1/rolesanywhere/aws4_request, "
	                       "SignedHeaders=content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain, Signature=30"));
	kt_aws_request_finish(&request);
	kt_aws_request_init(&request);
	assert_int_equal(kt_aws_roles_anywhere(&aws, chain, ed, NOW, &request, &err), KT_E_UNSUPPORTED);
	kt_aws_request_finish(&request);
}

static void test_session_name_in_the_body(void **state)
{
	struct kt_chain *chain KT_AUTOCHAIN = chain_of(leaf_pem, "", "");
	struct kt_aws_issuer aws = by_certificate();
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_aws_request request;

	(void)state;
	aws.session_name = "nightly";
	aws.endpoint = "http://127.0.0.1:8080/";
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err));
	kt_aws_request_init(&request);
	ok(kt_aws_roles_anywhere(&aws, chain, key, NOW, &request, &err));
	assert_non_null(strstr(request.body.ptr, ", \"roleSessionName\": \"nightly\"}"));
	assert_non_null(strstr(request.headers.ptr, "Host: 127.0.0.1:8080\n"));
	kt_aws_request_finish(&request);
}

static void test_urls(void **state)
{
	static const struct {
		bool token;
		const char *region, *endpoint, *url;
	} cases[] = {
	        {true, "eu-central-1", NULL, "https://sts.eu-central-1.amazonaws.com/"},
	        {true, "cn-north-1", NULL, "https://sts.cn-north-1.amazonaws.com.cn/"},
	        {false, "us-gov-west-1", NULL, "https://rolesanywhere.us-gov-west-1.amazonaws.com/sessions"},
	        {false, "eu-west-1", "https://vpce-1.rolesanywhere.eu-west-1.vpce.amazonaws.com",
	         "https://vpce-1.rolesanywhere.eu-west-1.vpce.amazonaws.com/sessions"},
	        {false, "eu-west-1", "https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/sessions"},
	        {true, "eu-west-1", "http://127.0.0.1:5000/", "http://127.0.0.1:5000/"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_aws_issuer aws = cases[i].token ? by_token() : by_certificate();
		struct kt_buf KT_AUTOBUF url;

		aws.region = cases[i].region;
		aws.endpoint = cases[i].endpoint;
		kt_buf_init(&url, 2048);
		ok(kt_aws_url(&aws, &url, &err));
		assert_string_equal(text_of(&url), cases[i].url);
	}
}

static void test_decimal(void **state)
{
	static const struct {
		const char *hex, *decimal;
	} cases[] = {{"", "0"},
	             {"0", "0"},
	             {"a", "10"},
	             {"ff", "255"},
	             {"0100", "256"},
	             {"ffffffffffffffff", "18446744073709551615"},
	             {"7fffffffffffffffffffffffffffffffffffffff", "730750818665451459101842416358141509827966271487"},
	             {"ffffffffffffffffffffffffffffffffffffffff", "1461501637330902918203684832716283019655932542975"}};
	char out[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ok(kt_aws_decimal(cases[i].hex, out, &err));
		assert_string_equal(out, cases[i].decimal);
	}
	assert_int_equal(kt_aws_decimal("xyz", out, &err), KT_E_INVALID);
	assert_int_equal(kt_aws_decimal("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", out, &err), KT_E_LIMIT);
}

static void test_web_identity(void **state)
{
	struct kt_aws_issuer aws = by_token();
	struct kt_aws_request request;

	(void)state;
	kt_aws_request_init(&request);
	ok(kt_aws_web_identity(&aws, "s", KT_VIEW_LIT("a.b+c"), &request, &err));
	assert_string_equal(text_of(&request.body),
	                    "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&DurationSeconds=3600"
	                    "&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Forders&RoleSessionName=s--&WebIdentityToken=a.b%2Bc");
	assert_int_equal(request.hidden, strlen("a.b%2Bc"));
	kt_aws_request_finish(&request);
	/* A Token's name may be longer than a session's. */
	kt_aws_request_init(&request);
	ok(kt_aws_web_identity(&aws, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbb", KT_VIEW_LIT("t"), &request,
	                       &err));
	assert_non_null(strstr(request.body.ptr, "aaaa&WebIdentityToken=t"));
	kt_aws_request_finish(&request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_string_to_sign), cmocka_unit_test(test_signed),  cmocka_unit_test(test_session_name_in_the_body),
	        cmocka_unit_test(test_urls),           cmocka_unit_test(test_decimal), cmocka_unit_test(test_web_identity),
	};

	return cmocka_run_group_tests_name("aws", tests, pki_setup, pki_teardown);
}
