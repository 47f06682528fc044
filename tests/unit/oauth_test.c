/* Tokens of authorization servers: what is asked for, what the client signs, and what of an answer is taken. */
#include "pki_helper.h"

#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/text.h"
#include "keeper/oauth/oauth.h"

#define NOW (INT64_C(1790000000) * KT_SECOND)

static struct kt_key *ec, *rsa;

static int make_keys(void **state)
{
	assert_int_equal(pki_setup(state), 0);
	ok(kt_secret_init(&err));
	ok(kt_pki_key_generate(KT_KEY_ECDSA, 256, &ec, &err));
	ok(kt_pki_key_generate(KT_KEY_RSA, 2048, &rsa, &err));
	return 0;
}

static int drop_keys(void **state)
{
	kt_pki_key_destroy(ec);
	kt_pki_key_destroy(rsa);
	return pki_teardown(state);
}

/* A JWT with these claims, by the EC key; nobody looks at its signature. */
static struct kt_secret *jwt(const char *claims)
{
	KT_AUTOJSON json_t *all = json_loads(claims, 0, NULL);
	struct kt_secret *token = NULL;
	struct kt_buf KT_AUTOBUF text;
	struct kt_buf KT_AUTOBUF out;

	assert_non_null(all);
	kt_buf_init(&text, 4096);
	kt_buf_init(&out, 8192);
	ok(kt_json_dump(all, &text, &err));
	kt_buf_adds(&out, "eyJhbGciOiJFUzI1NiJ9.");
	kt_base64url_encode(&out, text.ptr, text.len);
	kt_buf_adds(&out, ".AAAA");
	ok(kt_secret_create(out.ptr, out.len, &token, &err));
	return token;
}

static const char *const both[] = {"https://a", "https://b"};

static void test_what_came(void **state)
{
	static const struct {
		const char *claims;
		struct kt_oauth_wanted wanted;
		enum kt_code code;
		const char *says;
	} cases[] = {
	        {"{\"exp\":1790000060,\"jti\":\"j\"}", {.now = NOW}, KT_OK, NULL},
	        {"{\"exp\":1790000000}", {.now = NOW}, KT_E_PROTO, "expired"},
	        {"{\"nbf\":1790000301}", {.now = NOW}, KT_E_PROTO, "nbf"},
	        {"{\"nbf\":1790000300}", {.now = NOW}, KT_OK, NULL},
	        {"{\"iss\":\"https://is\"}", {.now = NOW, .issuer = "https://is"}, KT_OK, NULL},
	        {"{\"iss\":\"https://is/\"}", {.now = NOW, .issuer = "https://is"}, KT_E_PROTO, "iss"},
	        {"{\"aud\":[\"https://b\",\"https://a\"]}", {.now = NOW, .audiences = {both, 2}}, KT_OK, NULL},
	        {"{\"aud\":\"https://a\"}", {.now = NOW, .audiences = {both, 1}}, KT_OK, NULL},
	        {"{\"aud\":\"https://a\"}", {.now = NOW, .audiences = {both, 2}}, KT_E_PROTO, "https://b"},
	        {"{\"aud\":[]}", {.now = NOW, .audiences = {both, 1}}, KT_E_PROTO, "https://a"},
	        /* bindings: what is not ours is of no use to us, and what is unbound would be of use to anybody */
	        {"{\"cnf\":{\"jkt\":\"K\"}}", {.now = NOW, .jkt = "K"}, KT_OK, NULL},
	        {"{\"cnf\":{\"jkt\":\"L\"}}", {.now = NOW, .jkt = "K"}, KT_E_POLICY, "another key"},
	        {"{}", {.now = NOW, .jkt = "K"}, KT_E_POLICY, "cnf.jkt"},
	        {"{\"cnf\":\"K\"}", {.now = NOW, .jkt = "K"}, KT_E_POLICY, "cnf.jkt"},
	        {"{\"cnf\":{\"x5t#S256\":\"X\"}}", {.now = NOW, .x5t = "X", .bound = true}, KT_OK, NULL},
	        {"{\"cnf\":{\"x5t#S256\":\"Y\"}}", {.now = NOW, .x5t = "X", .bound = true}, KT_E_POLICY, "another certificate"},
	        {"{\"cnf\":{\"x5t#S256\":\"Y\"}}", {.now = NOW, .x5t = "X"}, KT_E_POLICY, "another certificate"},
	        {"{}", {.now = NOW, .x5t = "X", .bound = true}, KT_E_POLICY, "x5t#S256"},
	        {"{}", {.now = NOW, .x5t = "X"}, KT_OK, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		KT_AUTOSECRET struct kt_secret *token = jwt(cases[i].claims);
		int64_t exp;
		char jti[128];

		kt_err_clear(&err);
		if (kt_oauth_check_token(kt_secret_view(token), &cases[i].wanted, &exp, jti, &err) != cases[i].code)
			fail_msg("%s: %s", cases[i].claims, err.what);
		if (cases[i].says != NULL)
			assert_non_null(strstr(err.what, cases[i].says));
		if (i == 0) {
			assert_true(exp == 1790000060);
			assert_string_equal(jti, "j");
		}
	}
}

static void test_opaque_and_scope(void **state)
{
	static const char *words[] = {"pay.write", "read"};
	const struct kt_strings asked = {words, 2};
	struct kt_oauth_wanted wanted = {.now = NOW, .jkt = "K", .issuer = "https://is"};
	int64_t exp;
	char jti[128];

	(void)state;
	ok(kt_oauth_check_token(KT_VIEW_LIT("opaque"), &wanted, &exp, jti, &err));
	assert_true(exp == 0 && jti[0] == '\0');
	ok(kt_oauth_check_scope(&asked, KT_VIEW_LIT(""), &err)); /* not said: as asked for (RFC 6749 section 5.1) */
	ok(kt_oauth_check_scope(&asked, KT_VIEW_LIT("read  more pay.write"), &err));
	assert_int_equal(kt_oauth_check_scope(&asked, KT_VIEW_LIT("read pay.writer"), &err), KT_E_DENIED);
	assert_non_null(strstr(err.what, "pay.write"));
	assert_int_equal(kt_oauth_check_scope(&asked, KT_VIEW_LIT("pay.write"), &err), KT_E_DENIED);
	assert_true(kt_oauth_visible(KT_VIEW_LIT("a~!"), '!') && kt_oauth_visible(KT_VIEW_LIT("a b"), ' '));
	assert_false(kt_oauth_visible(KT_VIEW_LIT("a b"), '!') || kt_oauth_visible(KT_VIEW_LIT("a\nb"), ' '));
	assert_true(kt_oauth_bounded_skew(INT64_MAX) == 86400 && kt_oauth_bounded_skew(INT64_MIN) == -86400);
}

static void test_x5t(void **state)
{
	char out[44];

	(void)state;
	/* SHA-256 of nothing, RFC 6234. */
	ok(kt_oauth_x5t("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", out, &err));
	assert_string_equal(out, "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
	assert_int_equal(kt_oauth_x5t("e3b0", out, &err), KT_E_CORRUPT);
}

static struct kt_oauth2_issuer plain_issuer(void)
{
	return (struct kt_oauth2_issuer){
	        .issuer = "https://is",
	        .auth = {.client_id = "me", .method = KT_AUTH_PRIVATE_KEY_JWT, .assertion_lifetime = 60 * KT_SECOND}};
}

static void test_assertion_audience(void **state)
{
	struct kt_oauth2_issuer issuer = plain_issuer();
	struct kt_oauth_moment moment = {.now = NOW, .endpoint = "https://is/token", .issuer = "https://meta"};

	(void)state;
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://is/token");
	issuer.profile = KT_PROFILE_OKTA;
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://is/token");
	issuer.profile = KT_PROFILE_KEYCLOAK;
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://is");
	issuer.issuer = NULL;
	issuer.token_url = "https://is/named";
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://meta");
	issuer.profile = KT_PROFILE_GENERIC; /* the manifest's own word counts more than what the courier heard */
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://is/named");
	issuer.auth.audience = "https://wanted";
	assert_string_equal(kt_oauth_assertion_aud(&issuer, &moment), "https://wanted");
}

static void test_assertion(void **state)
{
	struct kt_oauth2_issuer issuer = plain_issuer();
	struct kt_oauth_moment moment = {.now = NOW, .skew = 100, .endpoint = "https://is/token", .issuer = ""};
	KT_AUTOSECRET struct kt_secret *one = NULL;
	KT_AUTOSECRET struct kt_secret *two = NULL;
	KT_AUTOSECRET struct kt_secret *mac = NULL;
	char kid[KT_JOSE_THUMBPRINT];
	struct kt_jwt a, b;

	(void)state;
	ok(kt_oauth_assertion(&issuer, ec, (struct kt_view){NULL, 0}, &moment, &one, &err));
	ok(kt_oauth_assertion(&issuer, ec, (struct kt_view){NULL, 0}, &moment, &two, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(one), &a, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(two), &b, &err));
	ok(kt_jose_thumbprint(ec, kid, &err));
	assert_string_equal(a.kid, kid);
	assert_string_equal(kt_json_str(a.header, "alg"), "ES256");
	assert_string_equal(a.iss, "me");
	assert_string_equal(a.sub, "me");
	assert_string_equal(kt_json_str(a.claims, "aud"), "https://is/token");
	assert_true(a.iat == 1790000095 && a.exp == 1790000155 && a.nbf == 0);
	assert_string_not_equal(a.jti, b.jti);
	kt_jose_jwt_finish(&a);
	kt_jose_jwt_finish(&b);
	kt_secret_destroy(one);
	one = NULL;
	issuer.auth.algorithm = KT_ASSERTION_PS256;
	issuer.auth.key_id = "mine";
	assert_int_equal(kt_oauth_assertion(&issuer, ec, (struct kt_view){NULL, 0}, &moment, &one, &err), KT_E_INVALID);
	ok(kt_oauth_assertion(&issuer, rsa, (struct kt_view){NULL, 0}, &moment, &one, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(one), &a, &err));
	assert_string_equal(a.kid, "mine");
	assert_string_equal(kt_json_str(a.header, "alg"), "PS256");
	kt_jose_jwt_finish(&a);
	ok(kt_oauth_assertion(&issuer, NULL, KT_VIEW_LIT("0123456789abcdef0123456789abcdef"), &moment, &mac, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(mac), &a, &err));
	assert_string_equal(kt_json_str(a.header, "alg"), "HS256");
	kt_jose_jwt_finish(&a);
}

static void test_proof(void **state)
{
	struct kt_oauth_proof want = {.method = KT_VIEW_LIT("POST"),
	                              .url = KT_VIEW_LIT("https://api/x?q=1#f"),
	                              .nonce = KT_VIEW_LIT("n1"),
	                              .token = KT_VIEW_LIT("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"),
	                              .now = NOW};
	KT_AUTOSECRET struct kt_secret *proof = NULL;
	KT_AUTOSECRET struct kt_secret *bare = NULL;
	struct kt_jwt jwt;

	(void)state;
	ok(kt_oauth_proof(ec, KT_ASSERTION_ES256, &want, &proof, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(proof), &jwt, &err));
	assert_string_equal(kt_json_str(jwt.header, "typ"), "dpop+jwt");
	assert_string_equal(kt_json_str(json_object_get(jwt.header, "jwk"), "kty"), "EC");
	assert_null(json_object_get(json_object_get(jwt.header, "jwk"), "d"));
	assert_string_equal(kt_json_str(jwt.claims, "htm"), "POST");
	assert_string_equal(kt_json_str(jwt.claims, "htu"), "https://api/x");
	assert_string_equal(kt_json_str(jwt.claims, "nonce"), "n1");
	/* RFC 9449 section 7.1: the access token and the ath of its example. */
	assert_string_equal(kt_json_str(jwt.claims, "ath"), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
	assert_true(jwt.iat == NOW / 1000 && jwt.jti != NULL);
	kt_jose_jwt_finish(&jwt);
	want.nonce = want.token = (struct kt_view){NULL, 0};
	ok(kt_oauth_proof(rsa, KT_ASSERTION_RS256, &want, &bare, &err));
	ok(kt_jose_jwt_peek(kt_secret_view(bare), &jwt, &err));
	assert_null(json_object_get(jwt.claims, "ath"));
	assert_null(json_object_get(jwt.claims, "nonce"));
	kt_jose_jwt_finish(&jwt);
	want.method = KT_VIEW_LIT("GET /\r\n");
	assert_int_equal(kt_oauth_proof(ec, KT_ASSERTION_ES256, &want, &bare, &err), KT_E_INVALID);
}

static void test_request(void **state)
{
	static const char *scopes[] = {"a\"b"};
	struct kt_token_exchange exchange = {.subject = {.token_ref = "s"}, .subject_type = "urn:x", .actor_type = "urn:y"};
	struct kt_oauth2_issuer issuer = plain_issuer();
	struct kt_token_spec spec = {.scopes = {scopes, 1}};
	struct kt_buf KT_AUTOBUF out;

	(void)state;
	kt_buf_init(&out, 8192);
	ok(kt_oauth_request_json(&issuer, &spec, &out, &err));
	assert_string_equal(out.ptr, "{\"grantType\":\"client_credentials\",\"audiences\":[],\"scopes\":[\"a\\\"b\"],"
	                             "\"dpop\":false,\"certificate\":false}");
	kt_buf_reset(&out);
	spec.grant.token_exchange = &exchange;
	spec.certificate_ref = "cert";
	ok(kt_oauth_request_json(&issuer, &spec, &out, &err));
	assert_string_equal(out.ptr, "{\"grantType\":\"token_exchange\",\"audiences\":[],\"scopes\":[\"a\\\"b\"],"
	                             "\"subjectTokenType\":\"urn:x\",\"actor\":false,\"dpop\":false,\"certificate\":true}");
	kt_buf_reset(&out);
	exchange.actor.secret.name = "actor";
	ok(kt_oauth_request_json(&issuer, &spec, &out, &err));
	assert_non_null(strstr(out.ptr, "\"actorTokenType\":\"urn:y\",\"actor\":true"));
	kt_buf_reset(&out);
	ok(kt_oauth_issuer_json(&issuer, 0, &out, &err));
	assert_string_equal(out.ptr, "{\"audienceParam\":\"audience\",\"auth\":{\"method\":\"private_key_jwt\",\"clientID\":"
	                             "\"me\"},\"issuer\":\"https://is\",\"profile\":\"Generic\"}");
	kt_buf_reset(&out);
	ok(kt_oauth_issuer_json(&issuer, 8, &out, &err));
	assert_non_null(strstr(out.ptr, ",\"inFlight\":8}"));
	issuer.auth.method = KT_AUTH_TLS;
	issuer.auth.certificate_ref = "own";
	assert_string_equal(kt_oauth_certificate_ref(&issuer, &spec), "own");
}

static void mended(const struct kt_oauth2_issuer *issuer, const struct kt_token_spec *spec, enum kt_code code,
                   const char *word, const char *detail, const char *wanted)
{
	struct kt_err own;

	(void)kt_err_set(&own, code, "the authorization server refuses: %s: %s", word, detail);
	(void)snprintf(own.problem_type, sizeof(own.problem_type), "%s", word);
	kt_oauth_remedy(issuer, spec, &own);
	assert_int_equal(own.code, code);
	assert_string_equal(own.problem_type, word);
	assert_non_null(strstr(own.what, detail));
	if (wanted != NULL && strstr(own.what, wanted) == NULL) {
		fail_msg("%s: no '%s' in: %s", word, wanted, own.what);
	}
	assert_true(wanted != NULL || strchr(own.what, ';') == NULL);
}

static void test_remedy(void **state)
{
	static const struct {
		enum kt_auth_method method;
		const char *wanted;
	} by_method[] = {
	        {KT_AUTH_SECRET_BASIC, "keyturn secret set orders'"}, {KT_AUTH_SECRET_POST, "keyturn secret set orders'"},
	        {KT_AUTH_SECRET_JWT, "keyturn secret set orders'"},   {KT_AUTH_PRIVATE_KEY_JWT, "the key in secret signer"},
	        {KT_AUTH_TLS, "the CA of the certificate in own"},    {KT_AUTH_SELF_SIGNED_TLS, "the certificate in own itself"},
	        {KT_AUTH_SPIFFE_JWT, "the sub of the token in svid"}, {KT_AUTH_NONE, "a public one"},
	};
	struct kt_oauth2_issuer issuer = plain_issuer();
	struct kt_token_spec spec = {0};
	struct kt_refresh_grant refresh = {.secret = {"mailbox", "refresh-token"}};
	size_t i;

	(void)state;
	issuer.auth.client_secret_ref.name = "orders";
	issuer.auth.key_secret_ref.name = "signer";
	issuer.auth.token_ref = "svid";
	for (i = 0; i < sizeof(by_method) / sizeof(by_method[0]); i++) {
		issuer.auth.method = by_method[i].method;
		issuer.auth.certificate_ref = "own";
		mended(&issuer, &spec, KT_E_AUTH, "invalid_client", "no", by_method[i].wanted);
		mended(&issuer, &spec, KT_E_AUTH, "unauthorized_client", "no", by_method[i].wanted);
		mended(&issuer, &spec, KT_E_LATER, "temporarily_unavailable", "no", NULL);
	}
	issuer.auth.method = KT_AUTH_SPIFFE_JWT;
	mended(&issuer, &spec, KT_E_AUTH, "invalid_client", "issued too far in the past", "a shorter spec.duration");
	issuer.auth.certificate_ref = NULL;
	issuer.auth.method = KT_AUTH_SECRET_POST;
	mended(&issuer, &spec, KT_E_AUTH, "invalid_client", "Audience not found", "look at spec.audiences of the Token; ");
	issuer.auth.method = KT_AUTH_PRIVATE_KEY_JWT;
	mended(&issuer, &spec, KT_E_AUTH, "invalid_client", "Invalid token audience", "auth.audience and profile");
	mended(&issuer, &spec, KT_E_DENIED, "invalid_target", "no", "spec.audiences");
	mended(&issuer, &spec, KT_E_DENIED, "invalid_scope", "no", "spec.scopes");
	mended(&issuer, &spec, KT_E_DENIED, "invalid_grant", "no", NULL);
	mended(&issuer, &spec, KT_E_DENIED, "invalid_request", "Client Certification missing", "spec.certificateRef");
	mended(&issuer, &spec, KT_E_DENIED, "invalid_request", "no", NULL);
	spec.certificate_ref = "own";
	mended(&issuer, &spec, KT_E_DENIED, "invalid_request", "Client Certification missing", NULL);
	spec.grant.refresh_token = &refresh;
	mended(&issuer, &spec, KT_E_DENIED, "invalid_grant", "no", "keyturn secret set mailbox'");
	mended(&issuer, &spec, KT_E_AUTH, "unauthorized_client", "Client certificate missing", "with the one in own");
}

/* Who waits for its turn is waited for, whatever is asked. */
static void test_patience(void **state)
{
	static struct kt_resource agent;
	static struct kt_keeper keeper;

	(void)state;
	keeper.flight_count = 100;
	assert_int_equal(kt_oauth_patience(&keeper, 20 * KT_SECOND), 20 * KT_SECOND);
	agent.agent.limits.per_issuer = 4;
	keeper.agent = &agent;
	assert_true(kt_oauth_patience(&keeper, 20 * KT_SECOND) >= (20 + 100 / 4 * 20) * KT_SECOND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_what_came),  cmocka_unit_test(test_opaque_and_scope),
	        cmocka_unit_test(test_x5t),        cmocka_unit_test(test_assertion_audience),
	        cmocka_unit_test(test_assertion),  cmocka_unit_test(test_proof),
	        cmocka_unit_test(test_request),    cmocka_unit_test(test_remedy),
	        cmocka_unit_test(test_patience),
	};

	return cmocka_run_group_tests(tests, make_keys, drop_keys);
}
