/* OAuth in the courier: how requests are built, which metadata and which answers are believed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/mem.h"

#define SECRET "s3cr+et/x y"

static struct grant_input input;
static json_t *scopes, *audiences;
static struct kt_secret *secret;

static int setup(void **state)
{
	(void)state;
	kt_json_init();
	if (kt_secret_init(NULL) != KT_OK || kt_secret_create(SECRET, strlen(SECRET), &secret, NULL) != KT_OK) {
		return -1;
	}
	scopes = json_pack("[ss]", "read", "write");
	audiences = json_pack("[ss]", "https://a.example/x", "b c");
	input = (struct grant_input){
		.client_id = "me:too", .audiences = audiences, .scopes = scopes, .client_secret = secret};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	json_decref(scopes);
	json_decref(audiences);
	kt_secret_destroy(secret);
	return 0;
}

static void requests(void **state)
{
	static const char *const forms[] = {
		"grant_type=client_credentials&resource=https%3A%2F%2Fa.example%2Fx&resource=b+c&scope=read+write",
		"grant_type=client_credentials&audience=https%3A%2F%2Fa.example%2Fx&audience=b+c&scope=read+write",
		"grant_type=client_credentials&scope=https%3A%2F%2Fa.example%2Fx+b+c+read+write",
		"grant_type=client_credentials&scope=read+write",
	};
	KT_AUTOBUF struct kt_buf form, authorization;

	(void)state;
	kt_buf_init(&form, 4096);
	kt_buf_init(&authorization, 4096);
	for (unsigned i = 0; i < 4; i++) {
		input.audience_param = (enum grant_audience)i;
		kt_buf_reset(&form);
		assert_int_equal(grant_client_credentials.build(&input, &form, NULL), KT_OK);
		assert_string_equal(form.ptr, forms[i]);
	}
	assert_int_equal(grant_client_secret_post.apply(&input, &form, &authorization, NULL), KT_OK);
	assert_string_equal(form.ptr,
			    "grant_type=client_credentials&scope=read+write&client_id=me%3Atoo&client_secret=s3cr%"
			    "2Bet%2Fx+y");
	assert_int_equal(authorization.len, 0);
	assert_int_equal(grant_client_secret_basic.apply(&input, &form, &authorization, NULL), KT_OK);
	/* base64("me%3Atoo:s3cr%2Bet%2Fx+y") */
	assert_string_equal(authorization.ptr, "Basic bWUlM0F0b286czNjciUyQmV0JTJGeCt5");
	assert_ptr_equal(grant_auth_find("client_secret_basic"), &grant_client_secret_basic);
	assert_ptr_equal(grant_type_find("client_credentials"), &grant_client_credentials);
	assert_null(grant_auth_find("none"));
	assert_null(grant_type_find(""));
}

static void well_known(void **state)
{
	static const struct {
		const char *issuer, *first, *second;
	} cases[] = {
		{"https://as.example", "https://as.example/.well-known/oauth-authorization-server",
		 "https://as.example/.well-known/openid-configuration"},
		{"https://as.example/", "https://as.example/.well-known/oauth-authorization-server",
		 "https://as.example/.well-known/openid-configuration"},
		{"https://as.example/oauth2/aus1",
		 "https://as.example/.well-known/oauth-authorization-server/oauth2/aus1",
		 "https://as.example/oauth2/aus1/.well-known/openid-configuration"},
		{"https://as.example:8443/t/", "https://as.example:8443/.well-known/oauth-authorization-server/t",
		 "https://as.example:8443/t/.well-known/openid-configuration"},
	};
	KT_AUTOBUF struct kt_buf out;

	(void)state;
	kt_buf_init(&out, 4096);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		kt_buf_reset(&out);
		assert_int_equal(grant_well_known(cases[i].issuer, 0, &out, NULL), KT_OK);
		assert_string_equal(out.ptr, cases[i].first);
		kt_buf_reset(&out);
		assert_int_equal(grant_well_known(cases[i].issuer, 1, &out, NULL), KT_OK);
		assert_string_equal(out.ptr, cases[i].second);
		assert_int_equal(grant_well_known(cases[i].issuer, 2, &out, NULL), KT_E_NOTFOUND);
	}
	assert_int_equal(grant_well_known("https://as.example/?x", 0, &out, NULL), KT_E_INVALID);
	assert_int_equal(grant_well_known("as.example", 0, &out, NULL), KT_E_INVALID);
}

static void metadata(void **state)
{
	static const struct {
		long status;
		const char *type, *body;
		enum kt_code code;
	} cases[] = {
		{200, "application/json",
		 "{\"issuer\":\"https://as.example/t\",\"token_endpoint\":\"https://tok.example/t\"}", KT_OK},
		{200, "application/json",
		 "{\"issuer\":\"https://as.example/t/\",\"token_endpoint\":\"https://tok.example/t\"}", KT_E_PROTO},
		{200, "application/json", "{\"issuer\":\"https://as.example/t\"}", KT_E_PROTO},
		{200, "application/json",
		 "{\"issuer\":\"https://as.example/t\",\"token_endpoint\":\"http://as.example/t\"}", KT_E_PROTO},
		{200, "application/json", "{\"issuer\":\"https://as.example/t\",\"token_endpoint\":\"file:///t\"}",
		 KT_E_PROTO},
		{200, "application/json",
		 "{\"issuer\":\"https://as.example/t\",\"issuer\":\"https://as.example/t\",\"token_endpoint\":\"https:/"
		 "/tok.example/t\"}",
		 KT_E_PROTO},
		{200, "text/html", "<html>", KT_E_NOTFOUND},
		{404, "text/html", "<html>", KT_E_NOTFOUND},
		{302, NULL, "", KT_E_NOTFOUND},
		{503, NULL, "", KT_E_LATER},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_http_reply reply = {.status = cases[i].status, .body = kt_view_str(cases[i].body)};
		KT_AUTOFREE char *endpoint = NULL;
		struct kt_err err;
		enum kt_code code;

		reply.headers[KT_HTTP_CONTENT_TYPE] = cases[i].type;
		code = grant_metadata_parse(&reply, "https://as.example/t", &endpoint, &err);
		if (code != cases[i].code) {
			fail_msg("case %zu: %s", i, kt_code_name(code));
		}
	}
}

static enum kt_code judge(long status, const char *type, struct kt_view body, struct grant_token *token,
			  struct kt_err *err)
{
	struct kt_http_reply reply = {.status = status, .body = body, .retry_after = status >= 400 ? 17 : 0};

	kt_err_clear(err);
	reply.headers[KT_HTTP_CONTENT_TYPE] = type;
	return grant_answer(&reply, &input, token, err);
}

#define GOOD "\"access_token\":\"abc.def\",\"token_type\":\"bEARER\""

static void answers(void **state)
{
	static const struct {
		long status;
		const char *body;
		enum kt_code code;
		int64_t expires_in;
		const char *scope;
	} cases[] = {
		{200, "{" GOOD ",\"expires_in\":3600}", KT_OK, 3600, "read write"},
		{200, "{" GOOD ",\"expires_in\":\"60\",\"scope\":\"more write read\"}", KT_OK, 60, "more write read"},
		{200, "{" GOOD "}", KT_OK, -1, "read write"},
		{200, "{" GOOD ",\"expires_in\":null,\"scope\":null}", KT_OK, -1, "read write"},
		{200, "{" GOOD ",\"expires_in\":9000000000}", KT_OK, GRANT_LIFE_MAX, "read write"},
		{200, "{" GOOD ",\"expires_in\":0}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"expires_in\":-5}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"expires_in\":\"soon\"}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"expires_in\":1e400}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"expires_in\":9223372036854775808}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"expires_in\":1.5}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"scope\":\"read\"}", KT_E_DENIED, 0, NULL},
		{200, "{" GOOD ",\"scope\":\"read writer\"}", KT_E_DENIED, 0, NULL},
		{200, "{" GOOD ",\"scope\":\"\"}", KT_E_DENIED, 0, NULL},
		{200, "{" GOOD ",\"scope\":[\"read\"]}", KT_E_PROTO, 0, NULL},
		{200, "{\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"\",\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":7,\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":[\"a\"],\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a\\r\\nX: y\",\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a\\u0000b\",\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a b\",\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a\",\"token_type\":\"mac\"}", KT_E_PROTO, 0, NULL},
		{200, "{\"access_token\":\"a\",\"access_token\":\"b\",\"token_type\":\"Bearer\"}", KT_E_PROTO, 0, NULL},
		{200, "{" GOOD ",\"error\":\"invalid_scope\"}", KT_E_DENIED, 0, NULL},
		{200, "[]", KT_E_PROTO, 0, NULL},
		{200, "", KT_E_PROTO, 0, NULL},
		{401, "{\"error\":\"invalid_client\"}", KT_E_AUTH, 0, NULL},
		{400, "{\"error\":\"unauthorized_client\"}", KT_E_AUTH, 0, NULL},
		{400, "{\"error\":\"invalid_scope\"}", KT_E_DENIED, 0, NULL},
		{400, "{\"error\":\"invalid_target\"}", KT_E_DENIED, 0, NULL},
		{400, "{\"error\":\"slow_down\"}", KT_E_LATER, 0, NULL},
		{400, "{", KT_E_DENIED, 0, NULL},
		{401, "", KT_E_AUTH, 0, NULL},
		{403, "{}", KT_E_DENIED, 0, NULL},
		{429, "{\"error\":\"invalid_request\"}", KT_E_LATER, 0, NULL},
		{503, "", KT_E_LATER, 0, NULL},
		{500, "{\"error\":\"invalid_client\"}", KT_E_LATER, 0, NULL},
		{307, "", KT_E_PROTO, 0, NULL},
	};
	struct grant_token token;
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum kt_code code =
			judge(cases[i].status, "application/json", kt_view_str(cases[i].body), &token, &err);

		if (code != cases[i].code || (code != KT_OK && err.code != code)) {
			fail_msg("case %zu (%s): %s %s", i, cases[i].body, kt_code_name(code), err.what);
		}
		if (code == KT_OK) {
			assert_int_equal(token.expires_in, cases[i].expires_in);
			assert_string_equal(token.scope, cases[i].scope);
			assert_true(kt_view_eq_str(kt_secret_view(token.token), "abc.def"));
			grant_token_finish(&token);
		} else {
			assert_null(token.token);
			assert_int_equal(err.retry_after_s, code == KT_E_LATER ? 17 : 0);
		}
	}
	assert_int_equal(judge(200, "text/html", KT_VIEW_LIT("<html>"), &token, &err), KT_E_PROTO);
	assert_int_equal(judge(200, NULL, KT_VIEW_LIT("{" GOOD "}"), &token, &err), KT_E_PROTO);
}

static void big_tokens(void **state)
{
	KT_AUTOBUF struct kt_buf body;
	struct grant_token token;
	struct kt_err err;

	(void)state;
	kt_buf_init(&body, 1u << 20);
	kt_buf_adds(&body, "{\"token_type\":\"Bearer\",\"access_token\":\"");
	for (unsigned i = 0; i <= GRANT_TOKEN_MAX; i++) {
		kt_buf_addc(&body, 'x');
	}
	kt_buf_adds(&body, "\"}");
	assert_int_equal(judge(200, "application/json", kt_buf_view(&body), &token, &err), KT_E_LIMIT);
}

static void secrets_are_redacted(void **state)
{
	static const char body[] = "{\"error\":\"invalid_client\",\"error_description\":\"bad " SECRET
				   "! s3cr%2Bet%2Fx+y! bWUlM0F0b286czNjciUyQmV0JTJGeCt5! \\u001b[2J\"}";
	static const char as_error[] = "{\"error\":\"" SECRET "\"}";
	struct grant_token token;
	struct kt_err err;

	(void)state;
	assert_int_equal(judge(401, "application/json", KT_VIEW_LIT(body), &token, &err), KT_E_AUTH);
	assert_non_null(strstr(err.what, "invalid_client: bad [redacted]! [redacted]! [redacted]! "));
	assert_null(strstr(err.what, "s3cr"));
	assert_null(strchr(err.what, 0x1b));
	assert_string_equal(err.problem_type, "invalid_client");
	assert_int_equal(judge(400, "application/json", KT_VIEW_LIT(as_error), &token, &err), KT_E_DENIED);
	assert_null(strstr(err.what, "s3cr"));
	assert_null(strstr(err.problem_type, "s3cr"));
}

/* Whatever allocation fails: no crash, no leak (under the sanitizers), no token beside an error. */
static void allocations_fail(void **state)
{
	struct grant_token token;
	struct kt_err err;
	bool ended = false;

	(void)state;
	for (int64_t n = 0; n < 200 && !ended; n++) {
		kt_mem_fail_after(n, 0);
		ended = judge(200, "application/json",
			      KT_VIEW_LIT("{" GOOD ",\"expires_in\":9,\"scope\":\"read write\"}"), &token,
			      &err) == KT_OK;
		kt_mem_fail_after(-1, 0);
		if (ended) {
			assert_non_null(token.token);
			grant_token_finish(&token);
		} else {
			assert_null(token.token);
		}
	}
	assert_true(ended);
	for (int64_t n = 0; n < 60; n++) {
		kt_mem_fail_after(n, 1);
		assert_int_not_equal(
			judge(401, "application/json",
			      KT_VIEW_LIT("{\"error\":\"invalid_client\",\"error_description\":\"" SECRET "\"}"),
			      &token, &err),
			KT_OK);
		kt_mem_fail_after(-1, 0);
		assert_null(strstr(err.what, "s3cr"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),         cmocka_unit_test(well_known),
		cmocka_unit_test(metadata),         cmocka_unit_test(answers),
		cmocka_unit_test(big_tokens),       cmocka_unit_test(secrets_are_redacted),
		cmocka_unit_test(allocations_fail),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
