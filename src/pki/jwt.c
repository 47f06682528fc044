/* JWT: minting, and verifying with rules that leave nothing to the token's own say-so. */
#include "pki/jose_internal.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define LEEWAY_MAX (5 * KT_MINUTE)
#define AUD_MAX 64

/* --- minting -------------------------------------------------------------------------------------------------------------- */

static int put_str(json_t *object, const char *name, const char *value)
{
	return value == NULL ? 0 : json_object_set_new(object, name, json_string(value));
}

static int put_time(json_t *object, const char *name, int64_t value)
{
	return value == 0 ? 0 : json_object_set_new(object, name, json_integer(value));
}

static int put_aud(json_t *object, const struct kt_strs *aud)
{
	json_t *list;
	int failed = 0;

	if (aud->count == 0)
		return 0;
	if (aud->count == 1)
		return put_str(object, "aud", aud->at[0]);
	list = json_array();
	for (size_t i = 0; i < aud->count; i++)
		failed |= json_array_append_new(list, json_string(aud->at[i]));
	failed |= json_object_set_new(object, "aud", list);
	return failed;
}

static enum kt_code fill_claims(json_t *object, const struct kt_jwt_claims *claims, struct kt_err *err)
{
	const char *name;
	json_t *value;
	int failed = 0;

	failed |= put_str(object, "iss", claims->iss) | put_str(object, "sub", claims->sub);
	failed |= put_str(object, "jti", claims->jti) | put_aud(object, &claims->aud);
	failed |= put_time(object, "iat", claims->iat) | put_time(object, "nbf", claims->nbf);
	failed |= put_time(object, "exp", claims->exp);
	json_object_foreach((json_t *)(uintptr_t)claims->extra, name, value) {
		static const char *const own[] = {"iss", "sub", "aud", "jti", "iat", "nbf", "exp"};

		for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
			if (strcmp(own[i], name) == 0)
				return kt_err_set(err, KT_E_INVALID, "the extra claims may not contain \"%s\"", name);
		failed |= json_object_set(object, name, value);
	}
	if (failed != 0)
		return kt_err_set(err, KT_E_INVALID, "a claim is no UTF-8 text, or out of memory");
	return KT_OK;
}

/* "header.claims" into token. key: goes into the header where the claims say so. */
static enum kt_code put_input(const char *alg, const struct kt_key *key, const struct kt_jwt_claims *claims,
                              struct kt_buf *token, struct kt_err *err)
{
	KT_AUTOJSON json_t *object = json_object();
	struct kt_buf KT_AUTOBUF header;
	struct kt_buf KT_AUTOBUF body;
	enum kt_code code;

	kt_buf_init(&header, 8192);
	kt_buf_init(&body, KT_JOSE_JWT_MAX);
	if (object == NULL)
		return kt_err_set(err, KT_E_NOMEM, "JWT: out of memory");
	code = fill_claims(object, claims, err);
	if (code == KT_OK)
		code = kt_json_dump(object, &body, err);
	if (code != KT_OK)
		return code;
	kt_buf_addf(&header, "{\"alg\":\"%s\"", alg);
	if (claims->jwk && key != NULL) {
		kt_buf_adds(&header, ",\"jwk\":");
		code = kt_jose_jwk(key, &header, err);
	}
	if (claims->kid != NULL) {
		kt_buf_adds(&header, ",\"kid\":");
		kt_buf_add_json(&header, kt_view_str(claims->kid));
	}
	if (claims->typ != NULL) {
		kt_buf_adds(&header, ",\"typ\":");
		kt_buf_add_json(&header, kt_view_str(claims->typ));
	}
	kt_buf_addc(&header, '}');
	if (code == KT_OK)
		code = kt_buf_check(&header, "JWT header", err);
	if (code != KT_OK)
		return code;
	kt_base64url_encode(token, header.ptr, header.len);
	kt_buf_addc(token, '.');
	kt_base64url_encode(token, body.ptr, body.len);
	return kt_buf_check(token, "JWT", err);
}

static enum kt_code put_signature(struct kt_buf *token, const struct kt_buf *signature, struct kt_secret **ret,
                                  struct kt_err *err)
{
	enum kt_code code;

	kt_buf_addc(token, '.');
	kt_buf_addv(token, kt_buf_view(signature));
	code = kt_buf_check(token, "JWT", err);
	return code == KT_OK ? kt_secret_from_buf(token, ret, err) : code;
}

enum kt_code kt_jose_jwt_sign(const struct kt_key *key, enum kt_jose_alg alg, const struct kt_jwt_claims *claims,
                              struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF token;
	struct kt_buf KT_AUTOBUF signature;
	enum kt_code code;

	kt_buf_init(&token, KT_JOSE_JWT_MAX);
	kt_buf_init(&signature, 4096);
	alg = alg != KT_JOSE_NONE ? alg : kt_jose_alg_default(key);
	code = put_input(kt_jose_alg_name(alg), key, claims, &token, err);
	if (code == KT_OK)
		code = kt_jose_sign(key, alg, kt_buf_view(&token), &signature, err);
	return code == KT_OK ? put_signature(&token, &signature, ret, err) : code;
}

enum kt_code kt_jose_jwt_mac(enum kt_jose_mac mac, struct kt_view mac_key, const struct kt_jwt_claims *claims,
                             struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF token;
	struct kt_buf KT_AUTOBUF signature;
	const char *name = kt_jose_mac_name(mac);
	enum kt_code code;

	kt_buf_init(&token, KT_JOSE_JWT_MAX);
	kt_buf_init(&signature, 4096);
	if (name == NULL)
		return kt_err_set(err, KT_E_INVALID, "no such MAC");
	code = put_input(name, NULL, claims, &token, err);
	if (code == KT_OK)
		code = kt_jose_mac(mac, mac_key, kt_buf_view(&token), &signature, err);
	return code == KT_OK ? put_signature(&token, &signature, ret, err) : code;
}

/* --- taking apart ----------------------------------------------------------------------------------------------------------- */

struct parts {
	struct kt_view header, claims, signature, signed_part;
};

static enum kt_code split(struct kt_view token, struct parts *parts, struct kt_err *err)
{
	const char *first, *second, *end = token.ptr + token.len;

	if (token.len == 0 || token.len > KT_JOSE_JWT_MAX)
		return kt_err_set(err, token.len == 0 ? KT_E_PROTO : KT_E_LIMIT, "a JWT of %zu bytes", token.len);
	first = memchr(token.ptr, '.', token.len);
	second = first != NULL ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
	if (second == NULL || memchr(second + 1, '.', (size_t)(end - second - 1)) != NULL)
		return kt_err_set(err, KT_E_PROTO, "not a JWT: it doesn't have three parts");
	parts->header = (struct kt_view){token.ptr, (size_t)(first - token.ptr)};
	parts->claims = (struct kt_view){first + 1, (size_t)(second - first - 1)};
	parts->signature = (struct kt_view){second + 1, (size_t)(end - second - 1)};
	parts->signed_part = (struct kt_view){token.ptr, (size_t)(second - token.ptr)};
	return KT_OK;
}

static enum kt_code decode_json(struct kt_view part, const char *name, json_t **ret, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF text;
	enum kt_code code;

	kt_buf_init(&text, KT_JOSE_JWT_MAX);
	if (kt_base64url_decode(part, &text, NULL) != KT_OK)
		return kt_err_set(err, KT_E_PROTO, "JWT: the %s is no base64url", name);
	code = kt_json_parse(kt_buf_view(&text), KT_JOSE_JWT_MAX, ret, NULL);
	if (code == KT_E_NOMEM)
		return kt_err_set(err, code, "JWT: out of memory");
	if (code != KT_OK || !json_is_object(*ret))
		return kt_err_set(err, KT_E_PROTO, "JWT: the %s is no proper JSON object", name);
	return KT_OK;
}

static enum kt_code take_str(const json_t *object, const char *name, const char **ret, struct kt_err *err)
{
	const json_t *value = json_object_get(object, name);

	if (value != NULL && !json_is_string(value))
		return kt_err_set(err, KT_E_PROTO, "JWT: \"%s\" is no string", name);
	*ret = json_string_value(value);
	return KT_OK;
}

/* NumericDate, RFC 7519 section 2: fractions are allowed and dropped. */
static enum kt_code take_time(const json_t *object, const char *name, int64_t *ret, struct kt_err *err)
{
	const json_t *value = json_object_get(object, name);
	const double max = (double)(KT_TIME_MAX / KT_SECOND);
	double number;

	*ret = 0;
	if (value == NULL)
		return KT_OK;
	number = json_is_number(value) ? json_number_value(value) : -1.0;
	if (!(number >= 1.0) || number > max)
		return kt_err_set(err, KT_E_PROTO, "JWT: \"%s\" is no date", name);
	*ret = (int64_t)floor(number);
	return KT_OK;
}

static enum kt_code check_aud_type(const json_t *aud, struct kt_err *err)
{
	const json_t *one;
	size_t i;

	if (aud == NULL || json_is_string(aud))
		return KT_OK;
	if (!json_is_array(aud) || json_array_size(aud) > AUD_MAX)
		return kt_err_set(err, KT_E_PROTO, "JWT: \"aud\" is neither a string nor a short array of them");
	json_array_foreach(aud, i, one)
		if (!json_is_string(one))
			return kt_err_set(err, KT_E_PROTO, "JWT: \"aud\" is neither a string nor a short array of them");
	return KT_OK;
}

static enum kt_code take_members(struct kt_jwt *jwt, struct kt_err *err)
{
	enum kt_code code = take_str(jwt->header, "kid", &jwt->kid, err);
	const char *typ;

	if (code == KT_OK)
		code = take_str(jwt->header, "typ", &typ, err);
	if (code == KT_OK)
		code = take_str(jwt->claims, "iss", &jwt->iss, err);
	if (code == KT_OK)
		code = take_str(jwt->claims, "sub", &jwt->sub, err);
	if (code == KT_OK)
		code = take_str(jwt->claims, "jti", &jwt->jti, err);
	if (code == KT_OK)
		code = take_time(jwt->claims, "exp", &jwt->exp, err);
	if (code == KT_OK)
		code = take_time(jwt->claims, "nbf", &jwt->nbf, err);
	if (code == KT_OK)
		code = take_time(jwt->claims, "iat", &jwt->iat, err);
	return code == KT_OK ? check_aud_type(json_object_get(jwt->claims, "aud"), err) : code;
}

enum kt_code kt_jose_jwt_peek(struct kt_view token, struct kt_jwt *ret, struct kt_err *err)
{
	struct parts parts;
	enum kt_code code;

	memset(ret, 0, sizeof(*ret));
	code = split(token, &parts, err);
	if (code == KT_OK)
		code = decode_json(parts.header, "header", &ret->header, err);
	if (code == KT_OK)
		code = decode_json(parts.claims, "body", &ret->claims, err);
	if (code == KT_OK)
		code = take_members(ret, err);
	if (code != KT_OK)
		kt_jose_jwt_finish(ret);
	return code;
}

void kt_jose_jwt_finish(struct kt_jwt *jwt)
{
	json_decref(jwt->header);
	json_decref(jwt->claims);
	memset(jwt, 0, sizeof(*jwt));
}

/* --- verifying ---------------------------------------------------------------------------------------------------------------- */

static enum kt_code header_alg(const struct kt_jwt *jwt, const struct kt_jwt_rules *rules, enum kt_jose_alg *ret,
                               struct kt_err *err)
{
	const json_t *alg = json_object_get(jwt->header, "alg");

	if (json_object_get(jwt->header, "crit") != NULL || json_object_get(jwt->header, "b64") != NULL)
		return kt_err_set(err, KT_E_PROTO, "JWT: it demands extensions (crit) that aren't understood");
	if (!json_is_string(alg))
		return kt_err_set(err, KT_E_PROTO, "JWT: \"alg\" is missing or no string");
	*ret = kt_jose_alg_parse(json_string_value(alg));
	if (*ret == KT_JOSE_NONE)
		return kt_err_set(err, KT_E_CRYPTO, "JWT: algorithm \"%.40s\" is not accepted", json_string_value(alg));
	if (rules->algs != 0 && (rules->algs & (UINT32_C(1) << *ret)) == 0)
		return kt_err_set(err, KT_E_CRYPTO, "JWT: algorithm %s is not allowed here", kt_jose_alg_name(*ret));
	return KT_OK;
}

/* Tries the keys that the token may mean: by kid, among those whose type and algorithm fit. */
static enum kt_code check_signature(const struct kt_jwt *jwt, const struct parts *parts, enum kt_jose_alg alg,
                                    const struct kt_jwks *keys, struct kt_err *err)
{
	bool tried = false;

	for (size_t i = 0; i < keys->count; i++) {
		const struct kt_jwks_entry *entry = &keys->at[i];
		enum kt_code code;

		if (jwt->kid != NULL && entry->kid[0] != '\0' && strcmp(jwt->kid, entry->kid) != 0)
			continue;
		if ((entry->alg != KT_JOSE_NONE && entry->alg != alg) || !kt_jose_alg_fits(alg, entry->key))
			continue;
		tried = true;
		code = kt_jose_verify(entry->key, alg, parts->signed_part, parts->signature, err);
		if (code == KT_OK || code == KT_E_PROTO)
			return code;
	}
	if (!tried)
		return kt_err_set(err, KT_E_CRYPTO, "JWT: no key for kid \"%.100s\" and algorithm %s",
		                  jwt->kid != NULL ? jwt->kid : "", kt_jose_alg_name(alg));
	return kt_err_set(err, KT_E_CRYPTO, "JWT: the signature is wrong");
}

static bool typ_matches(const char *have, const char *want)
{
	if (have == NULL)
		return false;
	if (strncasecmp(have, "application/", 12) == 0)
		have += 12;
	return strcasecmp(have, want) == 0;
}

static bool aud_has(const json_t *aud, const char *want)
{
	const json_t *one;
	size_t i;

	if (json_is_string(aud))
		return strcmp(json_string_value(aud), want) == 0;
	json_array_foreach(aud, i, one)
		if (strcmp(json_string_value(one), want) == 0)
			return true;
	return false;
}

static enum kt_code check_times(const struct kt_jwt *jwt, const struct kt_jwt_rules *rules, struct kt_err *err)
{
	kt_ms leeway = rules->leeway < 0 ? 0 : rules->leeway > LEEWAY_MAX ? LEEWAY_MAX : rules->leeway;

	if (jwt->exp == 0 && rules->need_exp)
		return kt_err_set(err, KT_E_POLICY, "JWT: it has no end (exp)");
	if (jwt->exp != 0 && jwt->exp * KT_SECOND + leeway <= rules->now)
		return kt_err_set(err, KT_E_TIMEOUT, "JWT: it has expired");
	if (jwt->nbf != 0 && jwt->nbf * KT_SECOND - leeway > rules->now)
		return kt_err_set(err, KT_E_LATER, "JWT: it is not valid yet (nbf)");
	if (jwt->iat != 0 && jwt->iat * KT_SECOND - leeway > rules->now)
		return kt_err_set(err, KT_E_LATER, "JWT: it was issued in the future (iat)");
	if (rules->max_life > 0 && (jwt->exp == 0 || jwt->exp * KT_SECOND - rules->now > rules->max_life + leeway))
		return kt_err_set(err, KT_E_POLICY, "JWT: it lives longer than allowed");
	return KT_OK;
}

static enum kt_code check_rules(const struct kt_jwt *jwt, const struct kt_jwt_rules *rules, struct kt_err *err)
{
	if (rules->typ != NULL && !typ_matches(kt_json_str(jwt->header, "typ"), rules->typ))
		return kt_err_set(err, KT_E_POLICY, "JWT: its type (typ) is not %s", rules->typ);
	if (rules->iss != NULL && (jwt->iss == NULL || strcmp(jwt->iss, rules->iss) != 0))
		return kt_err_set(err, KT_E_POLICY, "JWT: it was issued by \"%.200s\", not by %s",
		                  jwt->iss != NULL ? jwt->iss : "", rules->iss);
	if (rules->aud != NULL && !aud_has(json_object_get(jwt->claims, "aud"), rules->aud))
		return kt_err_set(err, KT_E_POLICY, "JWT: it is not meant for %s (aud)", rules->aud);
	return check_times(jwt, rules, err);
}

enum kt_code kt_jose_jwt_verify(struct kt_view token, const struct kt_jwks *keys, const struct kt_jwt_rules *rules,
                                struct kt_jwt *ret, struct kt_err *err)
{
	enum kt_jose_alg alg = KT_JOSE_NONE;
	struct parts parts;
	struct kt_jwt jwt;
	enum kt_code code;

	code = kt_jose_jwt_peek(token, &jwt, err);
	if (code != KT_OK)
		return code;
	code = split(token, &parts, err);
	if (code == KT_OK)
		code = header_alg(&jwt, rules, &alg, err);
	if (code == KT_OK)
		code = check_signature(&jwt, &parts, alg, keys, err);
	if (code == KT_OK)
		code = check_rules(&jwt, rules, err);
	if (code == KT_OK && ret != NULL)
		*ret = jwt;
	else
		kt_jose_jwt_finish(&jwt);
	return code;
}
