/* What the client signs: assertions by which it shows who it is (RFC 7523), and DPoP proofs (RFC 9449). */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/text.h"
#include "keeper/oauth/oauth.h"

#define BACKDATE 5 /* seconds: a server whose clock is a little behind takes it as well */

enum kt_jose_alg kt_oauth_alg(enum kt_assertion_alg alg)
{
	switch (alg) {
	case KT_ASSERTION_ES256:
		return KT_JOSE_ES256;
	case KT_ASSERTION_ES384:
		return KT_JOSE_ES384;
	case KT_ASSERTION_RS256:
		return KT_JOSE_RS256;
	case KT_ASSERTION_PS256:
		return KT_JOSE_PS256;
	case KT_ASSERTION_EDDSA:
		return KT_JOSE_EDDSA;
	default:
		return KT_JOSE_NONE;
	}
}

/* The algorithm that is asked for, or the key's own. */
static enum kt_code choose_alg(const struct kt_key *key, enum kt_assertion_alg asked, enum kt_jose_alg *ret,
                               struct kt_err *err)
{
	*ret = asked == KT_ASSERTION_DEFAULT ? kt_jose_alg_default(key) : kt_oauth_alg(asked);
	if (*ret == KT_JOSE_NONE || !kt_jose_alg_fits(*ret, key)) {
		return kt_err_set(err, KT_E_INVALID, "%s can't be signed with this key (%s, %u bits)",
		                  asked == KT_ASSERTION_DEFAULT ? "nothing" : kt_assertion_alg_name(asked),
		                  kt_pki_key_type_name(kt_pki_key_type(key)), kt_pki_key_bits(key));
	}
	return KT_OK;
}

const char *kt_oauth_assertion_aud(const struct kt_oauth2_issuer *oauth2, const struct kt_oauth_moment *moment)
{
	if (oauth2->auth.audience != NULL) {
		return oauth2->auth.audience;
	}
	if (oauth2->profile == KT_PROFILE_KEYCLOAK) {
		return oauth2->issuer != NULL       ? oauth2->issuer
		       : moment->issuer[0] != '\0' ? moment->issuer
		                                   : moment->endpoint;
	}
	/* Okta takes the whole token URL and nothing else; it is what RFC 7523 section 3 names first as well. */
	return oauth2->token_url != NULL ? oauth2->token_url : moment->endpoint;
}

enum kt_code kt_oauth_assertion(const struct kt_oauth2_issuer *oauth2, const struct kt_key *key, struct kt_view secret,
                                const struct kt_oauth_moment *moment, struct kt_secret **ret, struct kt_err *err)
{
	const struct kt_oauth2_auth *auth = &oauth2->auth;
	const char *aud = kt_oauth_assertion_aud(oauth2, moment);
	int64_t iat = moment->now / KT_SECOND + moment->skew - BACKDATE;
	char jti[33];
	char kid[KT_JOSE_THUMBPRINT];
	struct kt_jwt_claims claims = {.typ = "JWT",
	                               .kid = auth->key_id,
	                               .iss = auth->client_id,
	                               .sub = auth->client_id,
	                               .jti = jti,
	                               .aud = {&aud, 1},
	                               .iat = iat,
	                               .exp = iat + auth->assertion_lifetime / KT_SECOND};
	enum kt_jose_alg alg;
	enum kt_code code;

	kt_rand_hex(jti, 16);
	if (aud[0] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "nobody says for whom the assertion is: set auth.audience");
	}
	if (key == NULL) {
		code = kt_jose_jwt_mac(KT_JOSE_HS256, secret, &claims, ret, err);
		return code == KT_OK ? code : kt_err_prefix(err, "the client secret");
	}
	code = choose_alg(key, auth->algorithm, &alg, err);
	if (code == KT_OK && claims.kid == NULL) {
		code = kt_jose_thumbprint(key, kid, err);
		claims.kid = kid;
	}
	return code == KT_OK ? kt_jose_jwt_sign(key, alg, &claims, ret, err) : code;
}

/* Without query and fragment (RFC 9449 section 4.2). */
static struct kt_view bare(struct kt_view url)
{
	size_t len = 0;

	while (len < url.len && url.ptr[len] != '?' && url.ptr[len] != '#') {
		len++;
	}
	return (struct kt_view){url.ptr, len};
}

static json_t *text_of(struct kt_view view)
{
	return json_stringn(view.len > 0 ? view.ptr : "", view.len);
}

enum kt_code kt_oauth_proof(const struct kt_key *key, enum kt_assertion_alg asked, const struct kt_oauth_proof *proof,
                            struct kt_secret **ret, struct kt_err *err)
{
	json_t *extra KT_AUTOJSON = json_object();
	struct kt_buf ath KT_AUTOBUF = {0};
	struct kt_view url = bare(proof->url);
	uint8_t hash[KT_SHA256_LEN];
	char jti[33];
	struct kt_jwt_claims claims = {
	        .typ = "dpop+jwt", .jwk = true, .jti = jti, .iat = proof->now / KT_SECOND, .extra = extra};
	enum kt_jose_alg alg;
	enum kt_code code = choose_alg(key, asked, &alg, err);
	int bad;

	if (code != KT_OK) {
		return code;
	}
	if (proof->method.len == 0 || !kt_oauth_visible(proof->method, '!') || url.len == 0 || !kt_oauth_visible(url, '!') ||
	    !kt_oauth_visible(proof->nonce, '!')) {
		return kt_err_set(err, KT_E_INVALID, "a DPoP proof is for a method and a URL without spaces");
	}
	kt_rand_hex(jti, 16);
	bad = extra == NULL ? -1 : json_object_set_new(extra, "htm", text_of(proof->method));
	bad = bad != 0 ? bad : json_object_set_new(extra, "htu", text_of(url));
	if (bad == 0 && proof->nonce.len > 0) {
		bad = json_object_set_new(extra, "nonce", text_of(proof->nonce));
	}
	if (bad == 0 && proof->token.len > 0) {
		kt_buf_init(&ath, 64);
		kt_sha256(proof->token.ptr, proof->token.len, hash);
		kt_base64url_encode(&ath, hash, sizeof(hash));
		bad = json_object_set_new(extra, "ath", text_of(kt_buf_view(&ath)));
	}
	if (bad != 0) {
		return kt_err_set(err, KT_E_INVALID, "a DPoP proof needs a URL in UTF-8");
	}
	return kt_jose_jwt_sign(key, alg, &claims, ret, err);
}
