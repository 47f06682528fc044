/* OAuth in the courier: how requests are built, which metadata and which answers are believed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
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
		.client_id = "me:too", .audiences = audiences, .scopes = scopes, .secret[GRANT_CLIENT_SECRET] = secret};
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
	assert_null(grant_auth_find("other"));
	assert_null(grant_type_find(""));
}

static void each_grant(void **state)
{
	static const struct {
		const char *name, *form;
	} cases[] = {
		{"client_credentials", "grant_type=client_credentials&audience=api&scope=read+write"},
		{"token_exchange",
		 "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=sub.j%25ct"
		 "&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=api&scope=read+"
		 "write"},
		{"jwt_bearer", "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=as%26ser"
			       "&audience=api&scope=read+write"},
		{"refresh_token", "grant_type=refresh_token&refresh_token=re%3Dfresh&audience=api&scope=read+write"},
	};
	KT_AUTOSECRET struct kt_secret *subject = NULL, *actor = NULL, *bearer = NULL, *refresh = NULL;
	KT_AUTOJSON json_t *api = json_pack("[s]", "api");
	struct grant_input one = input;
	KT_AUTOBUF struct kt_buf form;

	(void)state;
	kt_buf_init(&form, 4096);
	assert_int_equal(kt_secret_create("sub.j%ct", 8, &subject, NULL), KT_OK);
	assert_int_equal(kt_secret_create("act or", 6, &actor, NULL), KT_OK);
	assert_int_equal(kt_secret_create("as&ser", 6, &bearer, NULL), KT_OK);
	assert_int_equal(kt_secret_create("re=fresh", 8, &refresh, NULL), KT_OK);
	one.audiences = api;
	one.audience_param = GRANT_AUDIENCE_AUDIENCE;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct grant_type *type = grant_type_find(cases[i].name);

		assert_non_null(type);
		memset(one.secret, 0, sizeof(one.secret));
		kt_buf_reset(&form);
		assert_int_equal(type->build(&one, &form, NULL), type->needs == 0 ? KT_OK : KT_E_INVALID);
		one.secret[GRANT_SUBJECT] = subject;
		one.secret[GRANT_BEARER] = bearer;
		one.secret[GRANT_REFRESH] = refresh;
		kt_buf_reset(&form);
		assert_int_equal(type->build(&one, &form, NULL), KT_OK);
		assert_string_equal(form.ptr, cases[i].form);
	}
	one.secret[GRANT_ACTOR] = actor;
	one.subject_type = "urn:s";
	one.actor_type = "urn:a";
	one.requested_type = "urn:r";
	kt_buf_reset(&form);
	assert_int_equal(grant_token_exchange.build(&one, &form, NULL), KT_OK);
	assert_string_equal(
		form.ptr,
		"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=sub.j%25ct"
		"&subject_token_type=urn%3As&actor_token=act+or&actor_token_type=urn%3Aa"
		"&requested_token_type=urn%3Ar&audience=api&scope=read+write");
}

static void each_authentication(void **state)
{
	static const struct {
		const char *name, *client_id, *form;
		bool secret, assertion, key;
	} cases[] = {
		{"client_secret_post", "me:too", "client_id=me%3Atoo&client_secret=s3cr%2Bet%2Fx+y", true, false,
		 false},
		{"client_secret_jwt", "me:too",
		 "client_id=me%3Atoo&client_assertion_type=urn%3At&client_assertion=a.b.c", false, true, false},
		{"private_key_jwt", "me:too", "client_id=me%3Atoo&client_assertion_type=urn%3At&client_assertion=a.b.c",
		 false, true, false},
		{"spiffe_jwt", "me", "client_id=me&client_assertion_type=urn%3At&client_assertion=a.b.c", false, true,
		 false},
		{"spiffe_jwt", "spiffe://td/me", "client_assertion_type=urn%3At&client_assertion=a.b.c", false, true,
		 false},
		{"tls_client_auth", "me", "client_id=me", false, false, true},
		{"self_signed_tls_client_auth", "me", "client_id=me", false, false, true},
		{"none", "me", "client_id=me", false, false, false},
	};
	KT_AUTOSECRET struct kt_secret *assertion = NULL;
	KT_AUTOBUF struct kt_buf form, authorization;
	struct grant_input one = input;

	(void)state;
	kt_buf_init(&form, 4096);
	kt_buf_init(&authorization, 4096);
	assert_int_equal(kt_secret_create("a.b.c", 5, &assertion, NULL), KT_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct grant_auth *auth = grant_auth_find(cases[i].name);

		assert_non_null(auth);
		assert_int_equal(auth->needs_secret, cases[i].secret);
		assert_int_equal(auth->needs_assertion, cases[i].assertion);
		assert_int_equal(auth->needs_key, cases[i].key);
		one.client_id = cases[i].client_id;
		one.assertion_type = NULL;
		one.secret[GRANT_CLIENT_ASSERTION] = NULL;
		kt_buf_reset(&form);
		assert_int_equal(auth->apply(&one, &form, &authorization, NULL),
				 cases[i].assertion ? KT_E_INVALID : KT_OK);
		one.assertion_type = "urn:t";
		one.secret[GRANT_CLIENT_ASSERTION] = assertion;
		kt_buf_reset(&form);
		assert_int_equal(auth->apply(&one, &form, &authorization, NULL), KT_OK);
		assert_string_equal(form.ptr, cases[i].form);
		assert_int_equal(authorization.len, 0);
	}
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
		struct grant_endpoints at;
		struct kt_err err;
		enum kt_code code;

		reply.headers[KT_HTTP_CONTENT_TYPE] = cases[i].type;
		code = grant_metadata_parse(&reply, "https://as.example/t", &at, &err);
		grant_endpoints_finish(&at);
		if (code != cases[i].code) {
			fail_msg("case %zu: %s", i, kt_code_name(code));
		}
	}
}

static void endpoints(void **state)
{
	static const char body[] =
		"{\"issuer\":\"https://as.example\",\"token_endpoint\":\"https://as.example/t\","
		"\"revocation_endpoint\":\"https://as.example/r\",\"introspection_endpoint\":\"http://as.example/i\","
		"\"mtls_endpoint_aliases\":{\"token_endpoint\":\"https://mtls.example/t\",\"revocation_endpoint\":7,"
		"\"introspection_endpoint\":\"ftp://mtls.example\"}}";
	struct kt_http_reply reply = {.status = 200, .body = KT_VIEW_LIT(body)};
	struct grant_endpoints at;

	(void)state;
	reply.headers[KT_HTTP_CONTENT_TYPE] = "application/json";
	assert_int_equal(grant_metadata_parse(&reply, "https://as.example", &at, NULL), KT_OK);
	assert_string_equal(at.plain[GRANT_TOKEN_ENDPOINT], "https://as.example/t");
	assert_string_equal(at.mtls[GRANT_TOKEN_ENDPOINT], "https://mtls.example/t");
	assert_string_equal(at.plain[GRANT_REVOCATION], "https://as.example/r");
	assert_null(at.mtls[GRANT_REVOCATION]);
	assert_null(at.plain[GRANT_INTROSPECTION]); /* not https: as good as none */
	assert_null(at.mtls[GRANT_INTROSPECTION]);
	grant_endpoints_finish(&at);
	reply.body = KT_VIEW_LIT("{\"issuer\":\"https://as.example\",\"token_endpoint\":\"https://as.example/t\","
				 "\"mtls_endpoint_aliases\":[]}");
	assert_int_equal(grant_metadata_parse(&reply, "https://as.example", &at, NULL), KT_OK);
	assert_null(at.mtls[GRANT_TOKEN_ENDPOINT]);
	grant_endpoints_finish(&at);
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

#define URN GRANT_TYPE_URN

/* What a binding and an exchange ask of the answer. */
static void bound_answers(void **state)
{
	static const struct {
		bool dpop, exchange;
		const char *requested, *body, *type, *issued;
		enum kt_code code;
	} cases[] = {
		{true, false, NULL, "\"token_type\":\"dpop\"", "DPoP", "", KT_OK},
		{true, false, NULL, "\"token_type\":\"Bearer\"", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"DPoP\"", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"N_A\"", NULL, NULL, KT_E_PROTO},
		{false, true, NULL, "\"token_type\":\"Bearer\"", NULL, NULL, KT_E_PROTO},
		{false, true, NULL, "\"token_type\":\"Bearer\",\"issued_token_type\":7", NULL, NULL, KT_E_PROTO},
		{false, true, NULL, "\"token_type\":\"Bearer\",\"issued_token_type\":\"a b\"", NULL, NULL, KT_E_PROTO},
		{false, true, NULL, "\"token_type\":\"BEARER\",\"issued_token_type\":\"" URN "jwt\"", "Bearer",
		 URN "jwt", KT_OK},
		{true, true, URN "jwt", "\"token_type\":\"DPoP\",\"issued_token_type\":\"" URN "jwt\"", "DPoP",
		 URN "jwt", KT_OK},
		{false, true, URN "jwt", "\"token_type\":\"Bearer\",\"issued_token_type\":\"" URN "access_token\"",
		 NULL, NULL, KT_E_PROTO},
		{false, true, URN "saml2", "\"token_type\":\"N_A\",\"issued_token_type\":\"" URN "saml2\"", "N_A",
		 URN "saml2", KT_OK},
		{false, true, URN "access_token",
		 "\"token_type\":\"N_A\",\"issued_token_type\":\"" URN "access_token\"", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"Bearer\",\"refresh_token\":\"new\"", "Bearer", "", KT_OK},
		{false, false, NULL, "\"token_type\":\"Bearer\",\"refresh_token\":\"n w\"", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"Bearer\",\"refresh_token\":\"\"", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"Bearer\",\"refresh_token\":5", NULL, NULL, KT_E_PROTO},
		{false, false, NULL, "\"token_type\":\"mac\",\"refresh_token\":\"new\"", NULL, NULL, KT_E_PROTO},
	};
	const struct grant_input before = input;
	struct grant_token token;
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		KT_AUTOFREE char *body = kt_asprintf("{\"access_token\":\"abc.def\",%s}", cases[i].body);
		enum kt_code code;

		input.dpop = cases[i].dpop;
		input.exchange = cases[i].exchange;
		input.requested_type = cases[i].requested;
		code = judge(200, "application/json", kt_view_str(body), &token, &err);
		if (code != cases[i].code) {
			fail_msg("case %zu (%s): %s %s", i, body, kt_code_name(code), err.what);
		}
		if (code == KT_OK) {
			assert_string_equal(token.token_type, cases[i].type);
			assert_string_equal(token.issued_type, cases[i].issued);
		}
		/* What was rotated is there whatever else is wrong. */
		assert_int_equal(token.refresh != NULL, strstr(body, "\"new\"") != NULL);
		grant_token_finish(&token);
	}
	input = before;
}

static void ops(void **state)
{
	static const struct {
		const char *op;
		long status;
		const char *type, *body;
		enum kt_code code;
	} cases[] = {
		{"revoke", 200, NULL, "", KT_OK},
		{"revoke", 200, "text/html", "<html>", KT_OK},
		{"revoke", 204, NULL, "", KT_OK},
		{"revoke", 302, NULL, "", KT_E_PROTO},
		{"revoke", 400, "application/json", "{\"error\":\"unsupported_token_type\"}", KT_E_UNSUPPORTED},
		{"revoke", 401, "application/json", "{\"error\":\"invalid_client\"}", KT_E_AUTH},
		{"revoke", 503, NULL, "", KT_E_LATER},
		{"introspect", 200, "application/json", "{\"active\":true,\"sub\":\"x\"}", KT_OK},
		{"introspect", 200, "application/json", "{\"active\":false}", KT_OK},
		{"introspect", 200, "application/json", "{\"active\":\"true\"}", KT_E_PROTO},
		{"introspect", 200, "application/json", "{}", KT_E_PROTO},
		{"introspect", 200, "application/json", "{\"error\":\"invalid_client\"}", KT_E_AUTH},
		{"introspect", 200, "text/html", "<html>", KT_E_PROTO},
		{"introspect", 204, NULL, "", KT_E_PROTO},
		{"introspect", 429, NULL, "", KT_E_LATER},
	};
	struct kt_view body;
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_http_reply reply = {.status = cases[i].status, .body = kt_view_str(cases[i].body)};

		reply.headers[KT_HTTP_CONTENT_TYPE] = cases[i].type;
		kt_err_clear(&err);
		if (grant_op_answer(&reply, cases[i].op, &input, &body, &err) != cases[i].code) {
			fail_msg("case %zu: %s %s", i, kt_code_name(err.code), err.what);
		}
		assert_int_equal(body.len > 0, cases[i].code == KT_OK && cases[i].op[0] == 'i');
	}
}

static void learn(struct kt_grant *grant, const char *url, const char *nonce, const char *date, int64_t skew)
{
	struct kt_http_reply reply = {.date_skew = skew};

	reply.headers[KT_HTTP_DPOP_NONCE] = nonce;
	reply.headers[KT_HTTP_DATE] = date;
	grant_server_learn(grant_server_get(grant, url), &reply);
}

static void servers(void **state)
{
	struct kt_grant grant = {.servers = NULL};
	char long_nonce[GRANT_NONCE_MAX + 2], url[64];

	(void)state;
	learn(&grant, "https://a/t", "one", "x", 40);
	learn(&grant, "https://b/t", NULL, "x", 1);
	assert_string_equal(grant_server_get(&grant, "https://a/t")->nonce, "one");
	assert_int_equal(grant_server_get(&grant, "https://a/t")->skew, 40);
	assert_null(grant_server_get(&grant, "https://b/t")->nonce);
	assert_int_equal(grant_server_get(&grant, "https://b/t")->skew, 0); /* a Date has whole seconds */
	memset(long_nonce, 'x', sizeof(long_nonce) - 1);
	long_nonce[sizeof(long_nonce) - 1] = '\0';
	learn(&grant, "https://a/t", long_nonce, NULL, 0);
	learn(&grant, "https://a/t", "a\"b", NULL, 0);
	learn(&grant, "https://a/t", "a b", NULL, 0);
	learn(&grant, "https://a/t", "", NULL, 0);
	assert_string_equal(grant_server_get(&grant, "https://a/t")->nonce, "one");
	assert_int_equal(grant_server_get(&grant, "https://a/t")->skew, 40); /* no Date says nothing */
	learn(&grant, "https://a/t", "two", "x", GRANT_SKEW_MAX + 1);
	assert_string_equal(grant_server_get(&grant, "https://a/t")->nonce, "two");
	assert_int_equal(grant_server_get(&grant, "https://a/t")->skew, 0);
	for (unsigned i = 0; i < 3 * GRANT_SERVERS_MAX; i++) {
		(void)snprintf(url, sizeof(url), "https://s%u/t", i);
		learn(&grant, url, "n", "x", 7);
		if (i % 8 == 0) {
			assert_string_equal(grant_server_get(&grant, "https://a/t")->nonce, "two"); /* in use */
		}
	}
	unsigned count = 0;
	for (const struct grant_server *at = grant.servers; at != NULL; at = at->next) {
		count++;
	}
	assert_int_equal(count, GRANT_SERVERS_MAX);
	assert_null(grant_server_get(&grant, "https://b/t")->nonce);
	grant_servers_destroy(&grant);
	assert_null(grant.servers);
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

/* Every secret of a request, whatever it is. */
static void every_secret_is_redacted(void **state)
{
	struct grant_input before = input;

	(void)state;
	for (unsigned which = 0; which < GRANT_SECRET_COUNT; which++) {
		KT_AUTOSECRET struct kt_secret *mine = NULL;
		struct grant_token token;
		struct kt_err err;

		assert_int_equal(kt_secret_create("can&ary", 7, &mine, NULL), KT_OK);
		memset(input.secret, 0, sizeof(input.secret));
		input.secret[which] = mine;
		assert_int_equal(
			judge(400, "application/json",
			      KT_VIEW_LIT("{\"error\":\"invalid_grant\",\"error_description\":\"can&ary can%26ary\"}"),
			      &token, &err),
			KT_E_DENIED);
		assert_non_null(strstr(err.what, "invalid_grant: [redacted] [redacted] (HTTP 400)"));
	}
	input = before;
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
		cmocka_unit_test(requests),
		cmocka_unit_test(well_known),
		cmocka_unit_test(each_grant),
		cmocka_unit_test(each_authentication),
		cmocka_unit_test(endpoints),
		cmocka_unit_test(bound_answers),
		cmocka_unit_test(ops),
		cmocka_unit_test(servers),
		cmocka_unit_test(every_secret_is_redacted),
		cmocka_unit_test(metadata),
		cmocka_unit_test(answers),
		cmocka_unit_test(big_tokens),
		cmocka_unit_test(secrets_are_redacted),
		cmocka_unit_test(allocations_fail),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
