/* The courier's pure parts: URLs, JSON paths, directories, problem documents. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/probe/probe.h"
#include "courier/url.h"
#include "kt/mem.h"

static void urls(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		bool https;
		uint16_t port;
		enum kt_reach reach;
		const char *host;
	} cases[] = {
		{"https://Acme.Example/dir", true, true, 443, KT_REACH_ANY, "acme.example"},
		{"https://acme.example:8443/", true, true, 8443, KT_REACH_ANY, "acme.example"},
		{"http://127.0.0.1:80/x", true, false, 80, KT_REACH_LOOPBACK, "127.0.0.1"},
		{"http://127.1/", true, false, 80, KT_REACH_LOOPBACK, "127.0.0.1"},
		{"http://0x7f000001/", true, false, 80, KT_REACH_LOOPBACK, "127.0.0.1"},
		{"http://2130706433/", true, false, 80, KT_REACH_LOOPBACK, "127.0.0.1"},
		{"https://[::1]:14000/dir", true, true, 14000, KT_REACH_LOOPBACK, "::1"},
		{"https://[::ffff:127.0.0.1]/", true, true, 443, KT_REACH_LOOPBACK, NULL},
		{"https://[64:ff9b::169.254.169.254]/", true, true, 443, KT_REACH_LINK, NULL},
		{"https://localhost/", true, true, 443, KT_REACH_LOOPBACK, "localhost"},
		{"https://a.localhost/", true, true, 443, KT_REACH_LOOPBACK, "a.localhost"},
		{"https://localhost.example/", true, true, 443, KT_REACH_ANY, NULL},
		{"http://169.254.169.254/latest", true, false, 80, KT_REACH_LINK, NULL},
		{"https://[fe80::1]/", true, true, 443, KT_REACH_LINK, NULL},
		{"https://0.0.0.0/", true, true, 443, KT_REACH_NONE, NULL},
		{"https://224.0.0.1/", true, true, 443, KT_REACH_NONE, NULL},
		{"https://10.1.2.3/", true, true, 443, KT_REACH_ANY, NULL},
		{"", false, false, 0, 0, NULL},
		{"/acme/order", false, false, 0, 0, NULL},
		{"acme.example/dir", false, false, 0, 0, NULL},
		{"ftp://acme.example/", false, false, 0, 0, NULL},
		{"file:///etc/passwd", false, false, 0, 0, NULL},
		{"javascript:alert(1)", false, false, 0, 0, NULL},
		{"https://user@acme.example/", false, false, 0, 0, NULL},
		{"https://user:pw@acme.example/", false, false, 0, 0, NULL},
		{"https://acme.example/#x", false, false, 0, 0, NULL},
		{"https://acme.example/a b", false, false, 0, 0, NULL},
		{"https://acme.example/\r\nX: y", false, false, 0, 0, NULL},
		{"https://acme.example\\@evil.example/", false, false, 0, 0, NULL},
		{"https://\xc3\xa4.example/", false, false, 0, 0, NULL},
		{"https://acme.example:0/", false, false, 0, 0, NULL},
		{"https://acme.example:65536/", false, false, 0, 0, NULL},
		{"https://a%2fb.example/", false, false, 0, 0, NULL},
		{"https:///dir", false, false, 0, 0, NULL},
		{"https:/acme.example/dir", false, false, 0, 0, NULL},
		{"https:////acme.example/dir", false, false, 0, 0, NULL},
		{"https://acme.example./", false, false, 0, 0, NULL},
		{"https://acme.example%2e:8443/", false, false, 0, 0, NULL},
		{"https://localhost./", false, false, 0, 0, NULL},
		{"https://[fe80::1%25eth0]/", false, false, 0, 0, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_url url;
		struct kt_err err;
		enum kt_code code = kt_url_parse(cases[i].text, &url, &err);

		if ((code == KT_OK) != cases[i].ok) {
			fail_msg("%s: %s", cases[i].text, code == KT_OK ? "was accepted" : err.what);
		}
		if (code == KT_OK) {
			assert_int_equal(url.https, cases[i].https);
			assert_int_equal(url.port, cases[i].port);
			if (url.reach != cases[i].reach) {
				fail_msg("%s: reach %d", cases[i].text, (int)url.reach);
			}
			if (cases[i].host != NULL) {
				assert_string_equal(url.host, cases[i].host);
			}
		}
	}
	assert_int_equal(kt_url_parse(NULL, &(struct kt_url){0}, NULL), KT_E_INVALID);
}

static void origins(void **state)
{
	(void)state;
	assert_true(kt_url_text_same_origin("https://a.example/x", "https://A.example:443/y?z"));
	assert_false(kt_url_text_same_origin("https://a.example/x", "https://a.example:444/x"));
	assert_false(kt_url_text_same_origin("https://a.example/x", "http://a.example:443/x"));
	assert_false(kt_url_text_same_origin("https://a.example/x", "https://a.example.evil/x"));
	assert_false(kt_url_text_same_origin("https://a.example/x", "/x"));
}

static void addresses(void **state)
{
	static const char *const bad[] = {"",        ":",      ":80",   "host",     "host:",   "host:0", "host:65536",
					  "host:8o", "::1:80", "[::1]", "ho st:80", "host:-1", "a/b:80"};
	char host[256];
	uint16_t port;

	(void)state;
	assert_int_equal(kt_url_split_address(KT_VIEW_LIT("127.0.0.1:8443"), host, &port, NULL), KT_OK);
	assert_string_equal(host, "127.0.0.1");
	assert_int_equal(port, 8443);
	assert_int_equal(kt_url_split_address(KT_VIEW_LIT("[::1]:443"), host, &port, NULL), KT_OK);
	assert_string_equal(host, "::1");
	assert_int_equal(kt_url_split_address(KT_VIEW_LIT("Web.Example:1"), host, &port, NULL), KT_OK);
	assert_string_equal(host, "web.example");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (kt_url_split_address(kt_view_str(bad[i]), host, &port, NULL) != KT_E_INVALID) {
			fail_msg("'%s' was accepted", bad[i]);
		}
	}
}

static void json_paths(void **state)
{
	static const struct {
		const char *path;
		enum kt_code code;
		const char *value;
	} cases[] = {
		{".a.b[0].c", KT_OK, "x"},
		{".a.n", KT_OK, "42"},
		{".a.t", KT_OK, "true"},
		{".a.z", KT_OK, "null"},
		{".a.b[1]", KT_OK, "[1,2]"},
		{".a.b[1][1]", KT_OK, "2"},
		{".", KT_OK, NULL},
		{".a.q", KT_E_NOTFOUND, NULL},
		{".a.b[9]", KT_E_NOTFOUND, NULL},
		{".a[0]", KT_E_NOTFOUND, NULL},
		{".a.n.x", KT_E_NOTFOUND, NULL},
		{"", KT_E_INVALID, NULL},
		{"a.b", KT_E_INVALID, NULL},
		{"..a", KT_E_INVALID, NULL},
		{".a.", KT_E_INVALID, NULL},
		{".a.b[", KT_E_INVALID, NULL},
		{".a.b[]", KT_E_INVALID, NULL},
		{".a.b[-1]", KT_E_INVALID, NULL},
		{".a.b[0", KT_E_INVALID, NULL},
		{".a.b[0]c", KT_E_INVALID, NULL},
		{".a.b[99999999999999999999]", KT_E_INVALID, NULL},
	};
	KT_AUTOJSON json_t *root = NULL;

	(void)state;
	assert_int_equal(
		kt_json_parse(KT_VIEW_LIT("{\"a\":{\"b\":[{\"c\":\"x\"},[1,2]],\"n\":42,\"t\":true,\"z\":null}}"), 1000,
			      &root, NULL),
		KT_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_buf out;
		enum kt_code code;

		kt_buf_init(&out, 1000);
		code = kt_json_path(root, cases[i].path, &out, NULL);
		if (code != cases[i].code) {
			fail_msg("'%s' gives %s", cases[i].path, kt_code_name(code));
		}
		if (cases[i].value != NULL) {
			assert_string_equal(out.ptr, cases[i].value);
		}
		kt_buf_finish(&out);
	}
}

static enum kt_code problem(const char *text, long status, int64_t retry_after, struct kt_err *err)
{
	KT_AUTOJSON json_t *json = NULL;

	if (text != NULL) {
		assert_int_equal(kt_json_parse(kt_view_str(text), 1u << 20, &json, NULL), KT_OK);
	}
	kt_err_clear(err);
	return acme_problem(json, status, retry_after, err);
}

#define URN(name) "{\"type\":\"urn:ietf:params:acme:error:" name "\",\"detail\":\"the detail\"}"

static void problems(void **state)
{
	static const struct {
		const char *text;
		long status;
		enum kt_code code;
		const char *says;
	} cases[] = {
		{URN("badNonce"), 400, KT_E_LATER, "badNonce: the detail"},
		{URN("rateLimited"), 429, KT_E_LATER, "rateLimited: the detail"},
		{URN("rejectedIdentifier"), 403, KT_E_DENIED, "does not issue for this name: the detail"},
		{URN("accountDoesNotExist"), 400, KT_E_AUTH, "accountDoesNotExist"},
		{URN("externalAccountRequired"), 403, KT_E_AUTH, "external account binding"},
		{URN("userActionRequired"), 403, KT_E_AUTH, "userActionRequired"},
		{"{\"type\":\"urn:ietf:params:acme:error:userActionRequired\",\"detail\":\"new terms\",\"instance\":\"https://ca/tos\"}", 403,
		 KT_E_AUTH, "new terms - see https://ca/tos"},
		{URN("connection"), 0, KT_E_NET, "connection"},
		{URN("neverHeardOf"), 403, KT_E_DENIED, "neverHeardOf: the detail"},
		{URN("neverHeardOf"), 503, KT_E_LATER, "neverHeardOf"},
		{"{\"type\":\"about:blank\",\"detail\":\"d\"}", 401, KT_E_AUTH, "about:blank: d"},
		{"{\"type\":5,\"detail\":[]}", 400, KT_E_DENIED, "HTTP 400: the server gave no detail"},
		{"{}", 500, KT_E_LATER, "HTTP 500"},
		{NULL, 404, KT_E_NOTFOUND, "HTTP 404"},
		{NULL, 302, KT_E_PROTO, "HTTP 302"},
		{"[]", 400, KT_E_DENIED, "HTTP 400"},
	};
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum kt_code code = problem(cases[i].text, cases[i].status, 7, &err);

		if (code != cases[i].code || strstr(err.what, cases[i].says) == NULL) {
			fail_msg("case %zu: %s, '%s'", i, kt_code_name(code), err.what);
		}
		assert_int_equal(err.code, code);
		assert_int_equal(err.retry_after_s, 7);
	}
	(void)problem(URN("caa"), 403, 0, &err);
	assert_string_equal(err.problem_type, "urn:ietf:params:acme:error:caa");
	assert_true(acme_problem_is(&err, "caa"));
	assert_false(acme_problem_is(&err, "ca"));
	/* What is no URI could be one of our own words. */
	(void)problem("{\"type\":\"budget\",\"detail\":\"come back at once\"}", 403, 0, &err);
	assert_string_equal(err.problem_type, "");
	assert_non_null(strstr(err.what, "budget: come back at once"));
}

static void problems_are_shown_safely(void **state)
{
	KT_AUTOBUF struct kt_buf text;
	struct kt_err err;

	(void)state;
	(void)problem("{\"type\":\"urn:ietf:params:acme:error:dns\",\"detail\":\"\\u001b[31m%s%n\\r\\nX: y\"}", 400, 0,
		      &err);
	assert_non_null(strstr(err.what, "%s%n"));
	for (const char *c = err.what; *c != '\0'; c++) {
		assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
	}
	kt_buf_init(&text, 1u << 20);
	kt_buf_adds(&text, "{\"type\":\"a b\\u0007\",\"detail\":\"");
	for (int i = 0; i < 100000; i++) {
		kt_buf_adds(&text, "\xc3\xa4");
	}
	kt_buf_adds(&text, "\",\"subproblems\":[");
	for (int i = 0; i < 1000; i++) {
		kt_buf_addf(&text, "%s{\"detail\":\"d%d\",\"identifier\":{\"value\":\"n%d\"}}", i > 0 ? "," : "", i, i);
	}
	kt_buf_adds(&text, "]}");
	(void)problem(text.ptr, 400, 0, &err);
	assert_true(strlen(err.what) < sizeof(err.what));
	assert_null(strchr(err.problem_type, ' '));
	assert_null(strchr(err.problem_type, '\a'));
	(void)problem("{\"type\":\"urn:ietf:params:acme:error:compound\",\"detail\":\"two\",\"subproblems\":[{\"type\":"
		      "\"urn:ietf:"
		      "params:acme:error:caa\",\"identifier\":{\"type\":\"dns\",\"value\":\"a.example\"}},7,{"
		      "\"detail\":\"no\"}]}",
		      400, 0, &err);
	assert_non_null(strstr(err.what, "two (a.example: caa; a name: no detail; a name: no)"));
}

static void directories(void **state)
{
	static const struct {
		const char *text;
		bool ok;
	} cases[] = {
		{"{\"newNonce\":\"https://ca.example/n\",\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"https:/"
		 "/ca.example:443/o\","
		 "\"meta\":{\"externalAccountRequired\":\"perhaps\",\"profiles\":7}}",
		 true},
		{"{\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"https://ca.example/o\"}", false},
		{"{\"newNonce\":7,\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"https://ca.example/o\"}",
		 false},
		{"{\"newNonce\":\"/n\",\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"https://ca.example/o\"}",
		 false},
		{"{\"newNonce\":\"http://ca.example/n\",\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"https://"
		 "ca.example/o\"}",
		 false},
		{"{\"newNonce\":\"https://ca.example/n\",\"newAccount\":\"https://evil.example/"
		 "a\",\"newOrder\":\"https://ca.example/o\"}",
		 false},
		{"{\"newNonce\":\"https://ca.example/n\",\"newAccount\":\"https://ca.example/a\",\"newOrder\":\"file://"
		 "/o\"}",
		 false},
		{"[]", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		KT_AUTOJSON json_t *json = NULL;
		struct acme_directory found = {0};
		struct kt_err err;

		assert_int_equal(kt_json_parse(kt_view_str(cases[i].text), 10000, &json, NULL), KT_OK);
		if ((acme_directory_parse(json, "https://ca.example/dir", &found, &err) == KT_OK) != cases[i].ok) {
			fail_msg("case %zu: %s", i, cases[i].ok ? err.what : "was accepted");
		}
		acme_directory_finish(&found);
	}
}

/* What is not needed is taken where it is good; a profile is known when the directory lists it. */
static void directory_extras(void **state)
{
	static const char text[] =
		"{\"newNonce\":\"https://ca.example/n\",\"newAccount\":\"https://ca.example/a\",\"newOrder\":"
		"\"https://ca.example/o\",\"revokeCert\":\"https://ca.example/r\",\"keyChange\":\"http://ca.example/k\","
		"\"renewalInfo\":\"https://evil.example/i\",\"meta\":{\"externalAccountRequired\":true,"
		"\"profiles\":{\"tlsserver\":\"x\",\"shortlived\":\"y\"}}}";
	KT_AUTOJSON json_t *json = NULL;
	KT_AUTOBUF struct kt_buf listed = {0};
	struct acme_directory found = {0};
	struct kt_err err;

	(void)state;
	kt_buf_init(&listed, 2048);
	assert_int_equal(kt_json_parse(kt_view_str(text), 10000, &json, NULL), KT_OK);
	assert_int_equal(acme_directory_parse(json, "https://ca.example/dir", &found, &err), KT_OK);
	assert_string_equal(found.revoke_cert, "https://ca.example/r");
	assert_null(found.key_change);
	assert_null(found.renewal_info);
	assert_true(found.binding_required);
	assert_true(acme_directory_profile(&found, "shortlived", &listed));
	kt_buf_reset(&listed);
	assert_false(acme_directory_profile(&found, "longlived", &listed));
	assert_string_equal(listed.ptr, "tlsserver, shortlived");
	acme_directory_finish(&found);
}

static void nonces_and_tokens(void **state)
{
	char text[600];

	(void)state;
	assert_true(acme_nonce_ok("abc-_9"));
	assert_false(acme_nonce_ok(NULL));
	assert_false(acme_nonce_ok(""));
	assert_false(acme_nonce_ok("a b"));
	assert_false(acme_nonce_ok("a="));
	memset(text, 'x', sizeof(text));
	text[513] = '\0';
	assert_false(acme_nonce_ok(text));
	text[512] = '\0';
	assert_true(acme_nonce_ok(text));
	assert_false(acme_token_ok(text));
	text[257] = '\0';
	assert_false(acme_token_ok(text));
	text[256] = '\0';
	assert_true(acme_token_ok(text));
	text[16] = '\0';
	assert_true(acme_token_ok(text));
	text[15] = '\0';
	assert_false(acme_token_ok(text));
	assert_false(acme_token_ok(NULL));
	assert_false(acme_token_ok("aaaaaaaaaaaaaaaa/../etc"));
	assert_false(acme_token_ok("aaaaaaaaaaaaaaaa%00"));
	assert_false(acme_token_ok("aaaaaaaaaaaaaaaa b"));
	assert_false(acme_token_ok("$(id)aaaaaaaaaaaaaaaa"));
	assert_false(acme_token_ok("aaaaaaaaaaaaaaa\xc3\xa4"));
}

static void media_types(void **state)
{
	struct kt_http_reply reply = {0};

	(void)state;
	assert_false(kt_http_is_type(&reply, "json"));
	reply.headers[KT_HTTP_CONTENT_TYPE] = "Application/JSON; charset=utf-8";
	assert_true(kt_http_is_type(&reply, "json"));
	reply.headers[KT_HTTP_CONTENT_TYPE] = "application/problem+json";
	assert_true(kt_http_is_type(&reply, "json"));
	reply.headers[KT_HTTP_CONTENT_TYPE] = "text/html";
	assert_false(kt_http_is_type(&reply, "json"));
	reply.headers[KT_HTTP_CONTENT_TYPE] = "application/jsonp";
	assert_false(kt_http_is_type(&reply, "json"));
	reply.headers[KT_HTTP_CONTENT_TYPE] = "application/pem-certificate-chain";
	assert_true(kt_http_is_type(&reply, "application/pem-certificate-chain"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls),        cmocka_unit_test(origins),
		cmocka_unit_test(addresses),   cmocka_unit_test(json_paths),
		cmocka_unit_test(problems),    cmocka_unit_test(problems_are_shown_safely),
		cmocka_unit_test(directories), cmocka_unit_test(directory_extras), cmocka_unit_test(nonces_and_tokens),
		cmocka_unit_test(media_types),
	};

	kt_json_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
