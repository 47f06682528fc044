/* JWK, JWS, JWT and JWK sets: RFC vectors, round trips in every algorithm, and what must be refused. */
#include "pki_helper.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "kt/jose.h"
#include "kt/json.h"
#include "kt/text.h"

#define T0 ((int64_t)1790000000)

static const struct {
	enum kt_jose_alg alg;
	enum kt_key_type type;
	unsigned bits;
} algs[] = {
        {KT_JOSE_ES256, KT_KEY_ECDSA, 256}, {KT_JOSE_ES384, KT_KEY_ECDSA, 384}, {KT_JOSE_ES512, KT_KEY_ECDSA, 521},
        {KT_JOSE_RS256, KT_KEY_RSA, 2048},  {KT_JOSE_PS256, KT_KEY_RSA, 2048},  {KT_JOSE_EDDSA, KT_KEY_ED25519, 0},
};

static struct kt_key *keys[6];
static struct kt_jwks *set;

/* RFC 7638 section 3.1. */
#define RFC_N                                                                                                          \
	"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"   \
	"jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6q" \
	"MQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awap" \
	"JzKnqDKgw"

static void test_thumbprint(void **state)
{
	static const char text[] = "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RFC_N "\",\"e\":\"AQAB\",\"kid\":\"2011-04-29\"}]}";
	struct kt_jwks *rfc = NULL;
	struct kt_buf KT_AUTOBUF jwk;
	char out[KT_JOSE_THUMBPRINT];

	(void)state;
	ok(kt_jose_jwks_parse(KT_VIEW_LIT(text), &rfc, &err));
	assert_int_equal(kt_jose_jwks_count(rfc), 1);
	assert_string_equal(kt_jose_jwks_kid(rfc, 0), "2011-04-29");
	ok(kt_jose_thumbprint(kt_jose_jwks_key(rfc, 0), out, &err));
	assert_string_equal(out, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
	kt_buf_init(&jwk, 4096);
	ok(kt_jose_jwk(kt_jose_jwks_key(rfc, 0), &jwk, &err));
	assert_string_equal(jwk.ptr, "{\"e\":\"AQAB\",\"kty\":\"RSA\",\"n\":\"" RFC_N "\"}");
	kt_jose_jwks_destroy(rfc);
}

/* RFC 8037 appendix A.4 (Ed25519) and RFC 7515 appendix A.3 (ES256). */
static void test_vectors(void **state)
{
	static const char text[] =
	        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"},"
	        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
	        "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}";
	struct kt_jwks *rfc = NULL;
	char out[KT_JOSE_THUMBPRINT];

	(void)state;
	ok(kt_jose_jwks_parse(KT_VIEW_LIT(text), &rfc, &err));
	ok(kt_jose_thumbprint(kt_jose_jwks_key(rfc, 0), out, &err));
	assert_string_equal(out, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
	ok(kt_jose_verify(kt_jose_jwks_key(rfc, 0), KT_JOSE_EDDSA,
	                  KT_VIEW_LIT("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"),
	                  KT_VIEW_LIT("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_"
	                              "MuM0KAg"),
	                  &err));
	ok(kt_jose_verify(kt_jose_jwks_key(rfc, 1), KT_JOSE_ES256,
	                  KT_VIEW_LIT("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG"
	                              "FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"),
	                  KT_VIEW_LIT("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6N"
	                              "U1Q"),
	                  &err));
	kt_jose_jwks_destroy(rfc);
}

static struct kt_secret *mint(size_t which, const struct kt_jwt_claims *claims)
{
	struct kt_secret *token = NULL;

	ok(kt_jose_jwt_sign(keys[which], algs[which].alg, claims, &token, &err));
	return token;
}

static const char *const auds[] = {"api", "other"};

static struct kt_jwt_claims plain_claims(void)
{
	return (struct kt_jwt_claims){.typ = "at+jwt", .iss = "https://is", .sub = "me", .aud = {auds, 2}, .jti = "1",
	                              .iat = T0, .nbf = T0, .exp = T0 + 300};
}

static const struct kt_jwt_rules plain_rules = {.now = T0 * KT_SECOND, .typ = "AT+JWT", .iss = "https://is", .aud = "api",
                                                .need_exp = true};

static void test_jwt_each_alg(void **state)
{
	struct kt_jwt_claims claims = plain_claims();

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		KT_AUTOSECRET struct kt_secret *token = mint(i, &claims);
		struct kt_view view = kt_secret_view(token);
		struct kt_jwt_rules rules = plain_rules;
		struct kt_jwt jwt;
		char *copy;

		ok(kt_jose_jwt_verify(view, set, &rules, &jwt, &err));
		assert_string_equal(jwt.sub, "me");
		assert_true(jwt.exp == T0 + 300);
		kt_jose_jwt_finish(&jwt);
		rules.algs = UINT32_C(1) << algs[(i + 1) % 6].alg;
		assert_int_equal(kt_jose_jwt_verify(view, set, &rules, NULL, &err), KT_E_CRYPTO);
		/* Every single bit of the token matters. */
		copy = kt_secret_edit(token);
		for (size_t bit = 0; bit < view.len * 8; bit += algs[i].type == KT_KEY_RSA ? 37 : 5) {
			copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
			if (kt_jose_jwt_verify(view, set, &plain_rules, NULL, &err) == KT_OK)
				fail_msg("%s: bit %zu doesn't matter", kt_jose_alg_name(algs[i].alg), bit);
			copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
		}
		ok(kt_jose_jwt_verify(view, set, &plain_rules, NULL, &err));
	}
}

static void test_jwt_rules(void **state)
{
	const struct {
		struct kt_jwt_rules rules;
		enum kt_code code;
	} cases[] = {
	        {{.now = T0 * KT_SECOND}, KT_OK},
	        {{.now = (T0 + 300) * KT_SECOND}, KT_E_TIMEOUT},
	        {{.now = (T0 + 300) * KT_SECOND, .leeway = 5 * KT_SECOND}, KT_OK},
	        {{.now = (T0 + 3600) * KT_SECOND, .leeway = KT_DAY}, KT_E_TIMEOUT}, /* leeway is capped */
	        {{.now = (T0 - 10) * KT_SECOND}, KT_E_LATER},
	        {{.now = (T0 - 10) * KT_SECOND, .leeway = 10 * KT_SECOND}, KT_OK},
	        {{.now = T0 * KT_SECOND, .iss = "https://evil"}, KT_E_POLICY},
	        {{.now = T0 * KT_SECOND, .aud = "nobody"}, KT_E_POLICY},
	        {{.now = T0 * KT_SECOND, .aud = "other"}, KT_OK},
	        {{.now = T0 * KT_SECOND, .typ = "JWT"}, KT_E_POLICY},
	        {{.now = T0 * KT_SECOND, .max_life = KT_MINUTE}, KT_E_POLICY},
	};
	struct kt_jwt_claims claims = plain_claims();
	KT_AUTOSECRET struct kt_secret *token = mint(0, &claims);
	KT_AUTOSECRET struct kt_secret *endless = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (kt_jose_jwt_verify(kt_secret_view(token), set, &cases[i].rules, NULL, &err) != cases[i].code)
			fail_msg("case %zu: %s", i, err.what);
	claims.exp = 0;
	endless = mint(0, &claims);
	assert_int_equal(kt_jose_jwt_verify(kt_secret_view(endless), set, &plain_rules, NULL, &err), KT_E_POLICY);
}

/* header.claims signed by the ES256 key, whatever they are. */
static void sign_raw(const char *header, const char *claims, struct kt_buf *out)
{
	struct kt_buf KT_AUTOBUF sig;

	kt_buf_init(&sig, 1024);
	kt_buf_reset(out);
	kt_base64url_encode(out, header, strlen(header));
	kt_buf_addc(out, '.');
	kt_base64url_encode(out, claims, strlen(claims));
	ok(kt_jose_sign(keys[0], KT_JOSE_ES256, kt_buf_view(out), &sig, &err));
	kt_buf_addc(out, '.');
	kt_buf_addv(out, kt_buf_view(&sig));
}

static void test_jwt_malformed(void **state)
{
	static const struct {
		const char *header, *claims;
		enum kt_code code;
	} cases[] = {
	        {"{\"alg\":\"ES256\"}", "{\"exp\":1790000001}", KT_OK},
	        {"{\"alg\":\"ES256\"}", "{\"exp\":1790000001.5,\"aud\":\"x\"}", KT_OK},
	        {"{\"alg\":\"none\"}", "{}", KT_E_CRYPTO},
	        {"{\"alg\":\"HS256\"}", "{}", KT_E_CRYPTO},
	        {"{\"alg\":\"RS256\"}", "{}", KT_E_CRYPTO},
	        {"{\"alg\":1}", "{}", KT_E_PROTO},
	        {"{}", "{}", KT_E_PROTO},
	        {"[]", "{}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"b64\":false}", "{}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\",\"alg\":\"ES256\"}", "{}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\",\"kid\":7}", "{}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\",\"kid\":\"unknown\"}", "{}", KT_E_CRYPTO},
	        {"{\"alg\":\"ES256\"}", "{\"exp\":\"1790000001\"}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"exp\":-1}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"exp\":1e300}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"aud\":{}}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"aud\":[1]}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"iss\":true}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "{\"exp\":1,\"exp\":1}", KT_E_PROTO},
	        {"{\"alg\":\"ES256\"}", "7", KT_E_PROTO},
	};
	static const char *const texts[] = {"", "a", "a.b", "a.b.c.d", "..", "e30.e30.", "e30=.e30.AA"};
	const struct kt_jwt_rules rules = {.now = T0 * KT_SECOND};
	struct kt_buf KT_AUTOBUF token;
	static char huge[KT_JOSE_JWT_MAX + 1];

	(void)state;
	kt_buf_init(&token, 8192);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		sign_raw(cases[i].header, cases[i].claims, &token);
		if (kt_jose_jwt_verify(kt_buf_view(&token), set, &rules, NULL, &err) != cases[i].code)
			fail_msg("%s %s: %s", cases[i].header, cases[i].claims, err.what);
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(kt_jose_jwt_verify(kt_view_str(texts[i]), set, &rules, NULL, &err), KT_E_PROTO);
	memset(huge, 'a', sizeof(huge));
	assert_int_equal(kt_jose_jwt_verify((struct kt_view){huge, sizeof(huge)}, set, &rules, NULL, &err), KT_E_LIMIT);
	sign_raw("{\"alg\":\"ES256\"}", "{}", &token);
	kt_buf_adds(&token, "=");
	assert_int_equal(kt_jose_jwt_verify(kt_buf_view(&token), set, &rules, NULL, &err), KT_E_PROTO);
}

static void test_claims_extra(void **state)
{
	KT_AUTOJSON json_t *extra = json_pack("{s:s, s:s}", "scope", "read write", "client_id", "c");
	KT_AUTOJSON json_t *bad = json_pack("{s:i}", "exp", 1);
	struct kt_jwt_claims claims = plain_claims();
	KT_AUTOSECRET struct kt_secret *token = NULL;
	struct kt_secret *none = NULL;
	struct kt_jwt jwt;

	(void)state;
	claims.extra = extra;
	token = mint(0, &claims);
	ok(kt_jose_jwt_peek(kt_secret_view(token), &jwt, &err));
	assert_string_equal(kt_json_str(jwt.claims, "scope"), "read write");
	kt_jose_jwt_finish(&jwt);
	claims.extra = bad;
	assert_int_equal(kt_jose_jwt_sign(keys[0], KT_JOSE_ES256, &claims, &none, &err), KT_E_INVALID);
	claims.extra = NULL;
	assert_int_equal(kt_jose_jwt_sign(keys[0], KT_JOSE_RS256, &claims, &none, &err), KT_E_INVALID);
}

static void test_acme(void **state)
{
	struct kt_jws_header header = {.nonce = "n\"1", .url = "https://ca/new"};
	struct kt_buf KT_AUTOBUF out;
	struct kt_buf KT_AUTOBUF head;
	struct kt_buf KT_AUTOBUF input;
	struct kt_buf KT_AUTOBUF auth;
	char thumbprint[KT_JOSE_THUMBPRINT];

	(void)state;
	kt_buf_init(&out, 65536);
	kt_buf_init(&head, 65536);
	kt_buf_init(&input, 65536);
	kt_buf_init(&auth, 1024);
	for (int by_kid = 0; by_kid < 2; by_kid++) {
		KT_AUTOJSON json_t *jws = NULL;
		KT_AUTOJSON json_t *protected = NULL;

		kt_buf_reset(&out);
		kt_buf_reset(&head);
		kt_buf_reset(&input);
		header.kid = by_kid ? "https://ca/acct/1" : NULL;
		ok(kt_jose_jws_acme(keys[0], &header, by_kid ? kt_view_str("") : kt_view_str("{}"), &out, &err));
		ok(kt_json_parse(kt_buf_view(&out), 65536, &jws, &err));
		assert_int_equal(json_object_size(jws), 3);
		assert_string_equal(kt_json_str(jws, "payload"), by_kid ? "" : "e30");
		ok(kt_base64url_decode(kt_view_str(kt_json_str(jws, "protected")), &head, &err));
		ok(kt_json_parse(kt_buf_view(&head), 65536, &protected, &err));
		assert_string_equal(kt_json_str(protected, "alg"), "ES256");
		assert_string_equal(kt_json_str(protected, "nonce"), "n\"1");
		assert_string_equal(kt_json_str(protected, "url"), "https://ca/new");
		assert_int_equal(json_object_get(protected, "jwk") != NULL, !by_kid);
		assert_int_equal(kt_json_str(protected, "kid") != NULL, by_kid);
		kt_buf_addf(&input, "%s.%s", kt_json_str(jws, "protected"), kt_json_str(jws, "payload"));
		ok(kt_jose_verify(keys[0], KT_JOSE_ES256, kt_buf_view(&input), kt_view_str(kt_json_str(jws, "signature")), &err));
	}
	ok(kt_jose_thumbprint(keys[0], thumbprint, &err));
	ok(kt_jose_key_authorization(keys[0], "tok-en_1", &auth, &err));
	assert_memory_equal(auth.ptr, "tok-en_1.", 9);
	assert_string_equal(auth.ptr + 9, thumbprint);
	assert_int_equal(kt_jose_key_authorization(keys[0], "../etc", &auth, &err), KT_E_PROTO);
	assert_int_equal(kt_jose_key_authorization(keys[0], "", &auth, &err), KT_E_PROTO);
}

#define X256 "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define Y256 "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define GOOD "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X256 "\",\"y\":\"" Y256 "\"}"

/* External account binding (RFC 8555 section 7.3.4); the tags were computed by Python's hmac. */
static void test_mac(void **state)
{
	static const char jwk[] = "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"" X256 "\",\"y\":\"" Y256 "\"}";
	static const char *const tags[] = {
	        "lFz0JJzKmeG50iWhkBhHH-pzvscOnXoTVVJ1jSgXEMM",
	        "cIGvtlJ7-sZnn_QqQ04_9OvK_BNXuUEgq1UOWTH-k8Uuau4F9-Wi78cVTOOKUrjq",
	        "PwyxatXvHRNqzXFzlO3GPcQIc35093djmUgeS6WGeAjKFI6VHgGbBmo_4i7sd1g91CDGrvTMBrcvSDdxuBfbRw",
	};
	struct kt_view url = KT_VIEW_LIT("https://ca.example/acme/new-account");
	struct kt_buf KT_AUTOBUF out;
	struct kt_buf KT_AUTOBUF head;
	char key[32];

	(void)state;
	kt_buf_init(&out, 65536);
	kt_buf_init(&head, 65536);
	for (int i = 0; i < 32; i++)
		key[i] = (char)i;
	for (int mac = 0; mac < 3; mac++) {
		KT_AUTOJSON json_t *jws = NULL;
		KT_AUTOJSON json_t *protected = NULL;

		kt_buf_reset(&out);
		kt_buf_reset(&head);
		ok(kt_jose_jws_mac((enum kt_jose_mac)mac, (struct kt_view){key, 32}, "kid-1", url.ptr, kt_view_str(jwk), &out,
		                   &err));
		ok(kt_json_parse(kt_buf_view(&out), 65536, &jws, &err));
		assert_string_equal(kt_json_str(jws, "signature"), tags[mac]);
		ok(kt_base64url_decode(kt_view_str(kt_json_str(jws, "protected")), &head, &err));
		ok(kt_json_parse(kt_buf_view(&head), 65536, &protected, &err));
		assert_int_equal(json_object_size(protected), 3);
		assert_string_equal(kt_json_str(protected, "kid"), "kid-1");
		assert_string_equal(kt_json_str(protected, "url"), url.ptr);
		kt_buf_reset(&head);
		ok(kt_base64url_decode(kt_view_str(kt_json_str(jws, "payload")), &head, &err));
		assert_string_equal(head.ptr, jwk);
	}
	assert_int_equal(kt_jose_jws_mac(KT_JOSE_HS256, (struct kt_view){key, 15}, "k", "u", kt_view_str(jwk), &out, &err),
	                 KT_E_INVALID);
	assert_int_equal(kt_jose_jws_mac((enum kt_jose_mac)3, (struct kt_view){key, 32}, "k", "u", kt_view_str(jwk), &out, &err),
	                 KT_E_INVALID);
}

/* A JWT with a MAC, against OpenSSL by itself; and the public key in the header of a proof. */
static void test_jwt_mac_and_jwk(void **state)
{
	struct kt_jwt_claims claims = plain_claims();
	KT_AUTOSECRET struct kt_secret *token = NULL;
	KT_AUTOSECRET struct kt_secret *again = NULL;
	KT_AUTOSECRET struct kt_secret *proof = NULL;
	struct kt_buf KT_AUTOBUF mac;
	struct kt_buf KT_AUTOBUF jwk;
	struct kt_buf KT_AUTOBUF head;
	struct kt_view view;
	const char *dot;
	char want[EVP_MAX_MD_SIZE];
	size_t len = 0;

	(void)state;
	kt_buf_init(&mac, 256);
	ok(kt_jose_jwt_mac(KT_JOSE_HS256, KT_VIEW_LIT("a secret of more than 16"), &claims, &token, &err));
	view = kt_secret_view(token);
	dot = memrchr(view.ptr, '.', view.len);
	assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA2-256", NULL, "a secret of more than 16", 24,
	                          (const unsigned char *)view.ptr, (size_t)(dot - view.ptr), (unsigned char *)want,
	                          sizeof(want), &len));
	kt_base64url_encode(&mac, want, len);
	assert_true(kt_view_eq((struct kt_view){dot + 1, view.len - (size_t)(dot + 1 - view.ptr)}, kt_buf_view(&mac)));
	assert_int_equal(kt_jose_jwt_verify(view, set, &plain_rules, NULL, &err), KT_E_CRYPTO);
	assert_int_equal(kt_jose_jwt_mac(KT_JOSE_HS256, KT_VIEW_LIT("short"), &claims, &again, &err), KT_E_INVALID);
	assert_null(again);
	claims.jwk = true;
	claims.typ = "dpop+jwt";
	proof = mint(0, &claims);
	kt_buf_init(&jwk, 4096);
	kt_buf_init(&head, 4096);
	ok(kt_jose_jwk(keys[0], &jwk, &err));
	view = kt_secret_view(proof);
	ok(kt_base64url_decode((struct kt_view){view.ptr, (size_t)((const char *)memchr(view.ptr, '.', view.len) - view.ptr)},
	                       &head, &err));
	assert_non_null(strstr(head.ptr, jwk.ptr));
	assert_null(strstr(head.ptr, "\"d\""));
}

static void test_jwks(void **state)
{
	static const struct {
		const char *key; /* stands before GOOD */
		enum kt_code code;
		size_t count;
	} cases[] = {
	        {"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AA\",\"y\":\"AA\"}", KT_OK, 1},
	        {"{\"kty\":\"new\"}", KT_OK, 1},
	        {"{\"kty\":\"RSA\",\"use\":\"enc\",\"n\":\"AQ\",\"e\":\"AQ\"}", KT_OK, 1},
	        {"{\"kty\":\"RSA\",\"key_ops\":[\"encrypt\"]}", KT_OK, 1},
	        {GOOD, KT_OK, 2},
	        {"{\"kty\":\"oct\",\"k\":\"AAAA\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X256 "\",\"y\":\"" Y256 "\",\"d\":\"AA\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" Y256 "\",\"y\":\"" X256 "\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"RSA\",\"n\":\"" RFC_N "\",\"e\":\"AQAA\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"RSA\",\"n\":\"" RFC_N "\",\"e\":\"AQ\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"RSA\",\"n\":\"" RFC_N "\",\"e\":\"AQAAAAE\"}", KT_E_CRYPTO, 0},
	        {"{\"kty\":\"RSA\",\"n\":\"!\",\"e\":\"AQAB\"}", KT_E_CRYPTO, 0},
	        {"{\"kid\":\"x\"}", KT_E_PROTO, 0},
	        {"7", KT_E_PROTO, 0},
	        {"{\"kty\":\"new\",\"kid\":7}", KT_E_PROTO, 0},
	};
	struct kt_buf KT_AUTOBUF text;
	struct kt_jwks *got = NULL;

	(void)state;
	kt_buf_init(&text, KT_JOSE_JWKS_BYTES_MAX);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum kt_code code;

		kt_buf_reset(&text);
		kt_buf_addf(&text, "{\"keys\":[%s,%s]}", cases[i].key, GOOD);
		code = kt_jose_jwks_parse(kt_buf_view(&text), &got, &err);
		if (code != cases[i].code)
			fail_msg("%s: %s", cases[i].key, err.what);
		if (code == KT_OK) {
			assert_int_equal(kt_jose_jwks_count(got), cases[i].count);
			kt_jose_jwks_destroy(got);
		}
	}
	assert_int_equal(kt_jose_jwks_parse(KT_VIEW_LIT("{\"keys\":[]}"), &got, &err), KT_E_NOTFOUND);
	assert_int_equal(kt_jose_jwks_parse(KT_VIEW_LIT("{\"keys\":{}}"), &got, &err), KT_E_PROTO);
	assert_int_not_equal(kt_jose_jwks_parse(KT_VIEW_LIT("{\"keys\":[" GOOD "]"), &got, &err), KT_OK);
	kt_buf_reset(&text);
	kt_buf_adds(&text, "{\"keys\":[" GOOD);
	for (size_t i = 0; i < KT_JOSE_JWKS_MAX + 10; i++)
		kt_buf_adds(&text, "," GOOD);
	kt_buf_adds(&text, "]}");
	ok(kt_jose_jwks_parse(kt_buf_view(&text), &got, &err));
	assert_int_equal(kt_jose_jwks_count(got), KT_JOSE_JWKS_MAX);
	kt_jose_jwks_destroy(got);
}

/* Publishes all keys as a set: what we write, we read. */
static int setup(void **state)
{
	struct kt_buf KT_AUTOBUF text;

	(void)state;
	if (kt_pki_init(&err) != KT_OK)
		return -1;
	kt_buf_init(&text, 65536);
	kt_buf_adds(&text, "{\"keys\":[");
	for (size_t i = 0; i < 6; i++) {
		if (kt_pki_key_generate(algs[i].type, algs[i].bits, &keys[i], &err) != KT_OK)
			return -1;
		if (i > 0)
			kt_buf_addc(&text, ',');
		if (kt_jose_jwk_published(keys[i], algs[i].alg, NULL, &text, &err) != KT_OK)
			return -1;
	}
	kt_buf_adds(&text, "]}");
	return kt_jose_jwks_parse(kt_buf_view(&text), &set, &err) == KT_OK ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < 6; i++)
		kt_pki_key_destroy(keys[i]);
	kt_jose_jwks_destroy(set);
	kt_pki_finish();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_thumbprint), cmocka_unit_test(test_vectors),       cmocka_unit_test(test_jwt_each_alg),
	        cmocka_unit_test(test_jwt_rules),  cmocka_unit_test(test_jwt_malformed), cmocka_unit_test(test_claims_extra),
	        cmocka_unit_test(test_acme),       cmocka_unit_test(test_jwks),       cmocka_unit_test(test_mac),
	        cmocka_unit_test(test_jwt_mac_and_jwk),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
