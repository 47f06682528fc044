/* Delivery formats: every member of the table from real material, modes, names, collisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "keeper/deliver/deliver.h"
#include "kt/json.h"
#include "kt/mem.h"

static struct kt_buf chain;
static struct kt_secret *key_pem, *password, *token;
static struct kt_key *key;

static int setup(void **state)
{
	static const char *const names[] = {"web.example"};
	struct kt_cert_request request = {.dns_names = {.at = names, .count = 1}};
	struct kt_buf der;
	struct kt_cert *cert = NULL;
	struct kt_issued info;
	struct kt_err err;

	(void)state;
	kt_buf_init(&chain, 64 << 10);
	kt_buf_init(&der, 64 << 10);
	if (kt_pki_init(&err) != KT_OK || kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err) != KT_OK ||
	    kt_pki_key_to_pem(key, KT_KEY_PKCS1, &key_pem, &err) != KT_OK ||
	    kt_secret_create("changeit", 8, &password, &err) != KT_OK ||
	    kt_secret_create("eyJ.abc.def", 11, &token, &err) != KT_OK)
		fail_msg("%s", err.what);
	request.not_before = kt_time_civil(2026, 1, 1, 0, 0, 0);
	request.not_after = kt_time_civil(2027, 1, 1, 0, 0, 0);
	if (kt_pki_self_sign(&request, key, &der, &info, &err) != KT_OK ||
	    kt_pki_cert_from_der(kt_buf_view(&der), &cert, &err) != KT_OK ||
	    kt_pki_cert_pem(cert, &chain, &err) != KT_OK)
		fail_msg("%s", err.what);
	kt_pki_cert_destroy(cert);
	kt_buf_finish(&der);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kt_buf_finish(&chain);
	kt_secret_destroy(key_pem);
	kt_secret_destroy(password);
	kt_secret_destroy(token);
	kt_pki_key_destroy(key);
	return 0;
}

static struct kt_material_view certificate(void)
{
	return (struct kt_material_view){.kind = KT_MATERIAL_CERTIFICATE, .chain_pem = kt_buf_view(&chain),
	                                 .ca_pem = kt_buf_view(&chain), .key_pem = key_pem, .pkcs12_password = password,
	                                 .pkcs12_profile = KT_P12_MODERN_2023, .jks_password = password, .jks_alias = "web"};
}

static struct kt_material_view a_token(void)
{
	static const char *const audiences[] = {"https://payments.example/api", "b\"\n"};

	return (struct kt_material_view){.kind = KT_MATERIAL_TOKEN, .token = token, .token_type = "bearer",
	                                 .issued_at = kt_time_civil(2026, 11, 23, 7, 0, 0),
	                                 .expires_at = kt_time_civil(2026, 11, 23, 7, 10, 0), .scope = "payments.write",
	                                 .audiences = audiences, .audience_count = 2, .issuer = "https://issuer",
	                                 .client_id = NULL};
}

static const struct kt_volume_file *need(const struct kt_fileset *set, const char *path)
{
	const struct kt_volume_file *file = kt_fileset_find(set, path);

	if (!file)
		fail_msg("%s is missing", path);
	return file;
}

static void test_standard(void **state)
{
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_material_view m = certificate();
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	assert_int_equal(kt_format_render_set(&m, NULL, 0, NULL, &set, &err), KT_OK);
	assert_int_equal(set.count, 3);
	assert_true(kt_view_eq(need(&set, "tls.crt")->bytes, kt_buf_view(&chain)));
	assert_true(kt_view_eq(need(&set, "tls.key")->bytes, kt_secret_view(key_pem)));
	assert_int_equal(need(&set, "tls.crt")->mode, 0644);
	assert_int_equal(need(&set, "tls.key")->mode, 0600);
	assert_int_equal(need(&set, "ca.crt")->mode, 0644);
	kt_fileset_finish(&set);
	/* no CA: no ca.crt, no trust store; modes and owner as asked */
	m.ca_pem.len = 0;
	const char *names[] = {"PKCS12", "JKS"};
	struct kt_render_options options = {.uid = 7, .gid = 8, .mode_public = 0444, .mode_secret = 0440};
	assert_int_equal(kt_format_render_set(&m, names, 2, &options, &set, &err), KT_OK);
	assert_int_equal(set.count, 4);
	assert_null(kt_fileset_find(&set, "ca.crt"));
	assert_null(kt_fileset_find(&set, "truststore.p12"));
	assert_null(kt_fileset_find(&set, "truststore.jks"));
	assert_int_equal(need(&set, "keystore.jks")->mode, 0440);
	assert_int_equal(need(&set, "keystore.p12")->mode, 0440);
	assert_int_equal(need(&set, "tls.crt")->mode, 0444);
	assert_int_equal(need(&set, "tls.crt")->uid, 7);
	assert_int_equal(need(&set, "tls.crt")->gid, 8);
}

static void test_all_certificate_formats(void **state)
{
	static const char *const names[] = {"CombinedPEM", "DER", "PKCS12", "keystore.p12", "JKS"};
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_material_view m = certificate();
	struct kt_key *parsed = NULL;
	struct kt_chain *parsed_chain = NULL;
	struct kt_view combined;
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	if (kt_format_render_set(&m, names, 5, NULL, &set, &err) != KT_OK)
		fail_msg("%s", err.what);
	assert_int_equal(set.count, 9);
	/* key, then chain, and nothing else */
	combined = need(&set, "tls-combined.pem")->bytes;
	assert_int_equal(combined.len, kt_secret_len(key_pem) + chain.len);
	assert_memory_equal(combined.ptr, kt_secret_view(key_pem).ptr, kt_secret_len(key_pem));
	assert_memory_equal(combined.ptr + kt_secret_len(key_pem), chain.ptr, chain.len);
	assert_int_equal(need(&set, "tls-combined.pem")->mode, 0600);
	if (kt_pki_key_from_der(need(&set, "key.der")->bytes, &parsed, &err) != KT_OK)
		fail_msg("%s", err.what);
	assert_true(kt_pki_key_same_public(parsed, key));
	kt_pki_key_destroy(parsed);
	/* SEQUENCE of a PKCS#12, DER */
	assert_int_equal((unsigned char)need(&set, "keystore.p12")->bytes.ptr[0], 0x30);
	assert_int_equal(need(&set, "keystore.p12")->mode, 0600);
	assert_int_equal((unsigned char)need(&set, "truststore.p12")->bytes.ptr[0], 0x30);
	assert_int_equal(need(&set, "truststore.p12")->mode, 0644);
	assert_memory_equal(need(&set, "keystore.jks")->bytes.ptr, "\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\1\0\3web", 21);
	assert_int_equal(need(&set, "keystore.jks")->mode, 0600);
	assert_memory_equal(need(&set, "truststore.jks")->bytes.ptr, "\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\2\0\2ca", 20);
	assert_int_equal(need(&set, "truststore.jks")->mode, 0644);
	if (kt_pki_chain_parse(need(&set, "tls.crt")->bytes, &parsed_chain, &err) != KT_OK)
		fail_msg("%s", err.what);
	kt_pki_chain_destroy(parsed_chain);
}

static void test_token_formats(void **state)
{
	static const char *const names[] = {"raw", "header", "json"};
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_material_view m = a_token();
	const json_t *audience;
	json_t *json KT_AUTOJSON = NULL;
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	assert_int_equal(kt_format_render_set(&m, NULL, 0, NULL, &set, &err), KT_OK);
	assert_int_equal(set.count, 1);
	assert_true(kt_view_eq_str(need(&set, "token")->bytes, "eyJ.abc.def"));
	kt_fileset_finish(&set);
	assert_int_equal(kt_format_render_set(&m, names, 3, NULL, &set, &err), KT_OK);
	assert_int_equal(set.count, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(set.files[i].mode, 0600);
	assert_true(kt_view_eq_str(need(&set, "header")->bytes, "Authorization: Bearer eyJ.abc.def"));
	if (kt_json_parse(need(&set, "token.json")->bytes, 4096, &json, &err) != KT_OK)
		fail_msg("%s", err.what);
	assert_string_equal(kt_json_str(json, "access_token"), "eyJ.abc.def");
	assert_string_equal(kt_json_str(json, "token_type"), "bearer");
	assert_string_equal(kt_json_str(json, "expires_at"), "2026-11-23T07:10:00Z");
	assert_string_equal(kt_json_str(json, "issued_at"), "2026-11-23T07:00:00Z");
	assert_int_equal(kt_json_int(json, "exp", 0), kt_time_civil(2026, 11, 23, 7, 10, 0) / 1000);
	assert_string_equal(kt_json_str(json, "scope"), "payments.write");
	assert_string_equal(kt_json_str(json, "issuer"), "https://issuer");
	assert_null(kt_json_str(json, "client_id"));
	audience = json_object_get(json, "audience");
	assert_int_equal(json_array_size(audience), 2);
	assert_string_equal(json_string_value(json_array_get(audience, 1)), "b\"\n");
}

/* One file of a token, as text that the set owns. */
static struct kt_view render_one(struct kt_fileset *set, const struct kt_material_view *m, const char *format)
{
	const struct kt_format *found = kt_format_find(KT_MATERIAL_TOKEN, format);
	struct kt_err err;

	kt_fileset_init(set);
	assert_non_null(found);
	if (kt_format_render(found, m, NULL, set, &err) != KT_OK)
		fail_msg("%s: %s", format, err.what);
	assert_int_equal(set->count, 1);
	assert_string_equal(set->files[0].path, found->file);
	assert_int_equal(set->files[0].mode, 0600);
	return set->files[0].bytes;
}

static void assert_renders(const struct kt_material_view *m, const char *format, const char *expected)
{
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_view bytes = render_one(&set, m, format);

	if (!kt_view_eq_str(bytes, expected))
		fail_msg("%s gives\n%.*s\nnot\n%s", format, (int)bytes.len, bytes.ptr, expected);
}

static void assert_holds(struct kt_view bytes, const char *part)
{
	if (!memmem(bytes.ptr, bytes.len, part, strlen(part)))
		fail_msg("%.*s\nhas no %s", (int)bytes.len, bytes.ptr, part);
}

static void test_token_readers(void **state)
{
	struct kt_material_view m = a_token();
	char digest[KT_SHA256_HEX], envoy[512];

	(void)state;
	m.secret_name = "orders-token";
	assert_renders(&m, "curl", "header = \"Authorization: Bearer eyJ.abc.def\"\n");
	assert_renders(&m, "env",
	               "ACCESS_TOKEN=\"eyJ.abc.def\"\nTOKEN_TYPE=\"Bearer\"\nEXPIRES_AT=\"2026-11-23T07:10:00Z\"\n");
	kt_sha256_hex("eyJ.abc.def", 11, digest);
	snprintf(envoy, sizeof(envoy),
	         "version_info: \"%.16s\"\nresources:\n"
	         "- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n"
	         "  name: \"orders-token\"\n  generic_secret:\n    secret:\n"
	         "      inline_string: \"Bearer eyJ.abc.def\"\n",
	         digest);
	assert_renders(&m, "envoy", envoy);
	assert_renders(&m, "flex",
	               "---\napiVersion: gateway.mulesoft.com/v1alpha1\nkind: PolicyBinding\nmetadata:\n"
	               "  name: \"orders-token-remove\"\nspec:\n  targetRef:\n    kind: Selector\n    selector:\n"
	               "      kind: ApiInstance\n      labels:\n        keyturn.dev/token: \"orders-token\"\n"
	               "  policyRef:\n    name: header-removal-flex\n    namespace: default\n  order: 900\n"
	               "  config:\n    inboundHeaders:\n    - authorization\n"
	               "---\napiVersion: gateway.mulesoft.com/v1alpha1\nkind: PolicyBinding\nmetadata:\n"
	               "  name: \"orders-token-inject\"\nspec:\n  targetRef:\n    kind: Selector\n    selector:\n"
	               "      kind: ApiInstance\n      labels:\n        keyturn.dev/token: \"orders-token\"\n"
	               "  policyRef:\n    name: header-injection-flex\n    namespace: default\n  order: 901\n"
	               "  config:\n    inboundHeaders:\n    - key: authorization\n      value: \"Bearer eyJ.abc.def\"\n");
}

/* token_type decides the scheme, in the spelling that resource servers know. */
static void test_token_types(void **state)
{
	static const struct {
		const char *type, *scheme;
	} rows[] = {{NULL, "Bearer"}, {"", "Bearer"}, {"BEARER", "Bearer"}, {"dpop", "DPoP"}, {"DPoP", "DPoP"},
	            {"N_A", "Bearer"}, {"mac", "mac"}};
	char expected[128];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kt_material_view m = a_token();

		m.token_type = rows[i].type;
		snprintf(expected, sizeof(expected), "Authorization: %s eyJ.abc.def", rows[i].scheme);
		assert_renders(&m, "header", expected);
		snprintf(expected, sizeof(expected), "header = \"Authorization: %s eyJ.abc.def\"\n", rows[i].scheme);
		assert_renders(&m, "curl", expected);
	}
}

/* Every character that a header can carry, and what each reader would make of it: none ends its string or is evaluated. */
static void test_hostile_tokens(void **state)
{
	static const char nasty[] = "\"\\'`$(x)${Y};&|<>!#{}%s:-@*,/?=+~";
	struct kt_secret *hostile = NULL;
	struct kt_material_view m = a_token();
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_view bytes;
	struct kt_err err;
	size_t lines = 0;

	(void)state;
	assert_int_equal(kt_secret_create(nasty, sizeof(nasty) - 1, &hostile, &err), KT_OK);
	m.token = hostile;
	m.secret_name = "s";
	assert_renders(&m, "raw", nasty);
	assert_renders(&m, "curl",
	               "header = \"Authorization: Bearer \\\"\\\\'`$(x)${Y};&|<>!#{}%s:-@*,/?=+~\"\n");
	bytes = render_one(&set, &m, "env");
	assert_holds(bytes, "ACCESS_TOKEN=\"\\\"\\\\'\\`\\$(x)\\${Y};&|<>!#{}%s:-@*,/?=+~\"\n");
	kt_fileset_finish(&set);
	bytes = render_one(&set, &m, "envoy");
	assert_holds(bytes, "inline_string: \"Bearer \\\"\\\\'`$(x)");
	for (size_t i = 0; i < bytes.len; i++)
		lines += bytes.ptr[i] == '\n';
	assert_int_equal(lines, 7);
	kt_fileset_finish(&set);
	/* Flex Gateway has no way to write $ and #[ literally, so such a token is not written; others are */
	kt_fileset_init(&set);
	assert_int_equal(kt_format_render(kt_format_find(KT_MATERIAL_TOKEN, "flex"), &m, NULL, &set, &err), KT_E_INVALID);
	assert_non_null(strstr(err.what, "Flex Gateway would evaluate"));
	assert_null(strstr(err.what, "${Y}"));
	assert_int_equal(set.count, 0);
	kt_secret_destroy(hostile);
	assert_int_equal(kt_secret_create("a#[1]", 5, &hostile, &err), KT_OK);
	m.token = hostile;
	assert_int_equal(kt_format_render(kt_format_find(KT_MATERIAL_TOKEN, "flex"), &m, NULL, &set, &err), KT_E_INVALID);
	kt_secret_destroy(hostile);
	assert_int_equal(kt_secret_create("a#\"[", 4, &hostile, &err), KT_OK);
	m.token = hostile;
	bytes = render_one(&set, &m, "flex");
	assert_holds(bytes, "value: \"Bearer a#\\\"[\"\n");
	kt_secret_destroy(hostile);
}

/* A token as long as any that the keeper takes, of nothing but what has to be quoted. */
static void test_long_tokens(void **state)
{
	static const char *const names[] = {"raw", "header", "json", "curl", "env", "envoy", "flex"};
	static char text[60 << 10];
	struct kt_material_view m = a_token();
	struct kt_secret *hostile = NULL;
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	memset(text, '\\', sizeof(text));
	assert_int_equal(kt_secret_create(text, sizeof(text), &hostile, &err), KT_OK);
	m.token = hostile;
	m.secret_name = "s";
	if (kt_format_render_set(&m, names, 7, NULL, &set, &err) != KT_OK)
		fail_msg("%s", err.what);
	assert_int_equal(set.count, 7);
	assert_true(need(&set, "curl.conf")->bytes.len > 2 * sizeof(text));
	kt_secret_destroy(hostile);
}

static void test_web_identity(void **state)
{
	/* {"alg":"none"} . {"sub":"a"} */
	static const char jwt[] = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.AAAA";
	struct kt_material_view m = a_token();
	struct kt_secret *secret = NULL;
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	assert_int_equal(kt_format_render(kt_format_find(KT_MATERIAL_TOKEN, "aws-web-identity"), &m, NULL, &set, &err),
	                 KT_E_INVALID);
	assert_non_null(strstr(err.what, "no JWT"));
	assert_int_equal(kt_secret_create(jwt, sizeof(jwt) - 1, &secret, &err), KT_OK);
	m.token = secret;
	assert_renders(&m, "aws-web-identity", jwt);
	kt_secret_destroy(secret);
	/* the relative time is of the command's JSON only */
	m = a_token();
	m.now = m.expires_at - 90 * KT_SECOND - 1;
	assert_holds(render_one(&set, &m, "json"), "\"expires_in\":90,");
}

static void test_refused(void **state)
{
	static const char *const wrong[] = {"CombinedPem"}, *const p12[] = {"PKCS12"}, *const jks[] = {"JKS"}, *const der[] = {"key.der"};
	struct kt_fileset set KT_AUTOFILESET;
	struct kt_material_view m = certificate();
	struct kt_err err;

	(void)state;
	kt_fileset_init(&set);
	assert_int_equal(kt_format_render_set(&m, wrong, 1, NULL, &set, &err), KT_E_INVALID);
	assert_non_null(strstr(err.what, "did you mean CombinedPEM?"));
	assert_int_equal(set.count, 0);
	m.pkcs12_password = NULL;
	assert_int_equal(kt_format_render_set(&m, p12, 1, NULL, &set, &err), KT_E_INVALID);
	kt_fileset_finish(&set);
	m.jks_password = NULL;
	assert_int_equal(kt_format_render_set(&m, jks, 1, NULL, &set, &err), KT_E_INVALID);
	kt_fileset_finish(&set);
	m.key_pem = token;
	assert_int_equal(kt_format_render_set(&m, der, 1, NULL, &set, &err), KT_E_CORRUPT);
	assert_null(strstr(err.what, "eyJ"));
	kt_fileset_finish(&set);
	m.key_pem = NULL;
	assert_int_equal(kt_format_render_set(&m, NULL, 0, NULL, &set, &err), KT_E_INVALID);
	assert_null(kt_format_find(KT_MATERIAL_TOKEN, "CombinedPEM"));
	assert_string_equal(kt_format_find(KT_MATERIAL_CERTIFICATE, "tls-combined.pem")->name, "CombinedPEM");
}

/* What a Consumer's volume does: items of several secrets under one path. */
static void test_projected(void **state)
{
	struct kt_fileset web KT_AUTOFILESET, pay KT_AUTOFILESET, all KT_AUTOFILESET;
	struct kt_material_view m = certificate(), t = a_token();
	char path[] = "certs/tls.crt";
	struct kt_err err;

	(void)state;
	kt_fileset_init(&web);
	kt_fileset_init(&pay);
	kt_fileset_init(&all);
	assert_int_equal(kt_format_render_set(&m, NULL, 0, NULL, &web, &err), KT_OK);
	assert_int_equal(kt_format_render_set(&t, NULL, 0, NULL, &pay, &err), KT_OK);
	assert_int_equal(kt_fileset_add(&all, path, need(&web, "tls.crt")->bytes, 0440, 1, 2, &err), KT_OK);
	path[0] = 'X'; /* the path was copied */
	assert_int_equal(kt_fileset_add(&all, "auth", need(&pay, "token")->bytes, 0440, 1, 2, &err), KT_OK);
	assert_int_equal(kt_fileset_add(&all, "auth", need(&pay, "token")->bytes, 0440, 1, 2, &err), KT_E_EXISTS);
	assert_int_equal(kt_fileset_add(&all, "../auth", need(&pay, "token")->bytes, 0440, 1, 2, &err), KT_E_INVALID);
	assert_int_equal(all.count, 2);
	assert_non_null(kt_fileset_find(&all, "certs/tls.crt"));
	for (int i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		assert_int_equal(kt_fileset_add(&all, name, KT_VIEW_LIT("x"), 0, KT_OWNER_KEEP, (gid_t)KT_OWNER_KEEP, &err),
		                 KT_OK);
	}
	assert_non_null(kt_fileset_find(&all, "f99"));
}

/* Every allocation fails in turn: an error and nothing lost (the leak checker of sanitized builds looks on). */
static void test_allocations(void **state)
{
	static const char *const names[] = {"CombinedPEM", "DER"}, *const outputs[] = {"raw", "header", "json", "curl", "env", "envoy", "flex"};
	bool failed = true;
	int n;

	(void)state;
	for (n = 0; failed; n++) {
		struct kt_fileset set KT_AUTOFILESET, tokens KT_AUTOFILESET;
		struct kt_material_view m = certificate(), t = a_token();
		struct kt_err err;

		t.secret_name = "orders-token";
		kt_fileset_init(&set);
		kt_fileset_init(&tokens);
		kt_mem_fail_after(n, 0);
		failed = kt_format_render_set(&m, names, 2, NULL, &set, &err) != KT_OK ||
		         kt_format_render_set(&t, outputs, 7, NULL, &tokens, &err) != KT_OK;
		kt_mem_fail_after(-1, 0);
		if (failed)
			assert_true(err.code == KT_E_NOMEM);
	}
	assert_true(n > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_standard),     cmocka_unit_test(test_all_certificate_formats),
	        cmocka_unit_test(test_token_formats), cmocka_unit_test(test_token_readers),
	        cmocka_unit_test(test_token_types),   cmocka_unit_test(test_hostile_tokens),
	        cmocka_unit_test(test_long_tokens),   cmocka_unit_test(test_web_identity),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_projected),    cmocka_unit_test(test_allocations),
	};

	return cmocka_run_group_tests_name("formats", tests, setup, teardown);
}
