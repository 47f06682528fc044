/* What an authorization server gave, against what was asked for. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/text.h"
#include "keeper/oauth/oauth.h"

#define NBF_LEEWAY (5 * KT_MINUTE)

bool kt_oauth_visible(struct kt_view text, char from)
{
	size_t i;

	for (i = 0; i < text.len; i++) {
		if (text.ptr[i] < from || text.ptr[i] >= 0x7f) {
			return false;
		}
	}
	return true;
}

enum kt_code kt_oauth_x5t(const char *hex, char out[44], struct kt_err *err)
{
	struct kt_buf raw KT_AUTOBUF = {0};
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;

	out[0] = '\0';
	kt_buf_init(&raw, 64);
	kt_buf_init(&text, 64);
	code = kt_hex_decode(kt_view_str(hex), &raw, err);
	if (code == KT_OK && raw.len != 32) {
		code = kt_err_set(err, KT_E_CORRUPT, "the fingerprint of a certificate has %zu bytes", raw.len);
	}
	if (code == KT_OK) {
		kt_base64url_encode(&text, raw.ptr, raw.len);
		code = kt_buf_check(&text, "fingerprint", err);
	}
	if (code == KT_OK) {
		(void)snprintf(out, 44, "%s", text.ptr);
	}
	return code;
}

static bool is_for(const json_t *aud, const char *audience)
{
	const char *one = json_string_value(aud);
	size_t i;

	if (one != NULL) {
		return strcmp(one, audience) == 0;
	}
	for (i = 0; i < json_array_size(aud); i++) {
		one = json_string_value(json_array_get(aud, i));
		if (one != NULL && strcmp(one, audience) == 0) {
			return true;
		}
	}
	return false;
}

static enum kt_code check_audiences(const json_t *aud, const struct kt_strs *audiences, struct kt_err *err)
{
	size_t i;

	for (i = 0; aud != NULL && i < audiences->count; i++) {
		if (!is_for(aud, audiences->at[i])) {
			return kt_err_set(err, KT_E_PROTO, "the token is not for the audience %s (spec.audiences)",
			                  audiences->at[i]);
		}
	}
	return KT_OK;
}

/* The confirmation (RFC 7800): whoever has the token alone has nothing, and so it must be ours. */
static enum kt_code check_binding(const json_t *claims, const struct kt_oauth_wanted *wanted, struct kt_err *err)
{
	const json_t *cnf = json_object_get(claims, "cnf");
	const char *x5t = kt_json_str(cnf, "x5t#S256");
	const char *jkt = kt_json_str(cnf, "jkt");

	if (wanted->jkt != NULL && jkt == NULL) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the token is not bound to our key: it has no cnf.jkt (is DPoP switched on at the server?)");
	}
	if (wanted->jkt != NULL && strcmp(jkt, wanted->jkt) != 0) {
		return kt_err_set(err, KT_E_POLICY, "the token is bound to another key (cnf.jkt %.64s, ours is %s)", jkt,
		                  wanted->jkt);
	}
	if (wanted->bound && x5t == NULL) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the token is not bound to our certificate: it has no cnf.x5t#S256 (are certificate-bound "
		                  "tokens switched on at the server?)");
	}
	if (wanted->x5t != NULL && x5t != NULL && strcmp(x5t, wanted->x5t) != 0) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the token is bound to another certificate (cnf.x5t#S256 %.64s, ours is %s)", x5t,
		                  wanted->x5t);
	}
	return KT_OK;
}

enum kt_code kt_oauth_check_token(struct kt_view token, const struct kt_oauth_wanted *wanted, int64_t *ret_exp,
                                  char jti[128], struct kt_err *err)
{
	struct kt_jwt jwt;
	enum kt_code code = KT_OK;

	*ret_exp = 0;
	jti[0] = '\0';
	if (kt_jose_jwt_peek(token, &jwt, NULL) != KT_OK) {
		return KT_OK;
	}
	*ret_exp = jwt.exp;
	if (jwt.jti != NULL) {
		(void)snprintf(jti, 128, "%s", jwt.jti);
	}
	if (jwt.exp != 0 && jwt.exp * 1000 <= wanted->now) {
		code = kt_err_set(err, KT_E_PROTO, "the server gave a token that has expired already");
	} else if (jwt.nbf != 0 && jwt.nbf * 1000 > wanted->now + NBF_LEEWAY) {
		code = kt_err_set(err, KT_E_PROTO, "the server gave a token that is not valid yet (nbf)");
	} else if (jwt.iss != NULL && wanted->issuer != NULL && strcmp(jwt.iss, wanted->issuer) != 0) {
		code = kt_err_set(err, KT_E_PROTO, "the token's iss is %.200s, spec.oauth2.issuer %s", jwt.iss,
		                  wanted->issuer);
	} else {
		code = check_audiences(json_object_get(jwt.claims, "aud"), &wanted->audiences, err);
	}
	if (code == KT_OK) {
		code = check_binding(jwt.claims, wanted, err);
	}
	kt_jose_jwt_finish(&jwt);
	return code;
}

enum kt_code kt_oauth_check_scope(const struct kt_strings *asked, struct kt_view granted, struct kt_err *err)
{
	uint32_t i;

	for (i = 0; granted.len > 0 && i < asked->count; i++) {
		if (!kt_has_word(granted, asked->items[i])) {
			return kt_err_set(err, KT_E_DENIED, "the server gave fewer scopes than were asked for: %s is missing",
			                  asked->items[i]);
		}
	}
	return KT_OK;
}
