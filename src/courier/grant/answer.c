/* The judge of token responses: what is believed and what is refused. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/text.h"

static bool visible(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] >= 0x7f) {
			return false;
		}
	}
	return len > 0;
}

/*
 * The type says how the token may be used, so one that nobody asked for is refused: a DPoP token sent as Bearer would
 * be refused by its consumer, and a Bearer token where DPoP was asked for is not bound to the key. What an exchange
 * gives may be no access token at all: then its type is N_A.
 */
static enum kt_code take_type(const json_t *json, const struct grant_input *input, struct grant_token *ret,
			      struct kt_err *err)
{
	const char *type = kt_json_str(json, "token_type"), *wanted = input->dpop ? "DPoP" : "Bearer";
	bool other = input->exchange && input->requested_type != NULL &&
		     strcmp(input->requested_type, GRANT_TYPE_URN "access_token") != 0;

	ret->token_type = wanted;
	if (type != NULL && kt_ascii_ieq(kt_view_str(type), kt_view_str(wanted))) {
		return KT_OK;
	}
	if (type != NULL && other && kt_ascii_ieq(kt_view_str(type), KT_VIEW_LIT("N_A"))) {
		ret->token_type = "N_A";
		return KT_OK;
	}
	return grant_bad_answer(input, KT_E_PROTO, "the token's type is", type,
				input->dpop ? ", not DPoP" : ", not Bearer", err);
}

static enum kt_code take_token(const json_t *json, const struct grant_input *input, struct grant_token *ret,
			       struct kt_err *err)
{
	const json_t *value = json_object_get(json, "access_token");
	size_t len = json_string_length(value);

	if (!json_is_string(value) || len == 0) {
		return kt_err_set(err, KT_E_PROTO, "the authorization server's answer holds no access_token");
	}
	if (len > GRANT_TOKEN_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the access token is larger than %u bytes", GRANT_TOKEN_MAX);
	}
	if (!visible(json_string_value(value), len)) {
		return kt_err_set(err, KT_E_PROTO, "the access token holds characters that no header can carry");
	}
	if (take_type(json, input, ret, err) != KT_OK) {
		return KT_E_PROTO;
	}
	return kt_secret_create(json_string_value(value), len, &ret->token, err);
}

/*
 * A new refresh token, before anything else of the answer is judged: where the server has rotated it, the one that was
 * sent is worth nothing any more.
 */
static enum kt_code take_refresh(const json_t *json, struct grant_token *ret, struct kt_err *err)
{
	const json_t *value = json_object_get(json, "refresh_token");
	size_t len = json_string_length(value);

	if (value == NULL || json_is_null(value)) {
		return KT_OK;
	}
	if (!json_is_string(value) || len > GRANT_TOKEN_MAX || !visible(json_string_value(value), len)) {
		return kt_err_set(err, len > GRANT_TOKEN_MAX ? KT_E_LIMIT : KT_E_PROTO,
				  "the refresh_token of the answer is none that could be sent");
	}
	return kt_secret_create(json_string_value(value), len, &ret->refresh, err);
}

/* RFC 8693 section 2.2.1: what was issued must be said, and be what was asked for. */
static enum kt_code take_issued_type(const json_t *json, const struct grant_input *input, struct grant_token *ret,
				     struct kt_err *err)
{
	const char *issued = kt_json_str(json, "issued_token_type");
	size_t len = issued != NULL ? strlen(issued) : 0;

	if (!input->exchange) {
		return KT_OK;
	}
	if (len == 0 || len > GRANT_TYPE_MAX || !visible(issued, len)) {
		return grant_bad_answer(input, KT_E_PROTO, "the issued_token_type of the exchange is", issued, "", err);
	}
	if (input->requested_type != NULL && strcmp(issued, input->requested_type) != 0) {
		return grant_bad_answer(input, KT_E_PROTO, "the server issued a token of type", issued,
					", which is not the one asked for", err);
	}
	memcpy(ret->issued_type, issued, len + 1);
	return KT_OK;
}

static enum kt_code take_life(const json_t *json, struct grant_token *ret, struct kt_err *err)
{
	const json_t *value = json_object_get(json, "expires_in");
	int64_t life = 0;

	ret->expires_in = -1;
	if (value == NULL || json_is_null(value)) {
		return KT_OK;
	}
	if (json_is_integer(value)) {
		life = json_integer_value(value);
	} else if (!json_is_string(value) ||
		   kt_parse_i64(kt_view_str(json_string_value(value)), INT64_MIN, INT64_MAX, &life, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_PROTO, "expires_in is not a number of seconds");
	}
	if (life <= 0) {
		return kt_err_set(err, KT_E_PROTO, "the token has expired already: expires_in is %lld",
				  (long long)life);
	}
	ret->expires_in = life > GRANT_LIFE_MAX ? GRANT_LIFE_MAX : life;
	return KT_OK;
}

static enum kt_code take_scope(const json_t *json, const struct grant_input *input, struct grant_token *ret,
			       struct kt_err *err)
{
	const json_t *value = json_object_get(json, "scope");
	const char *granted = json_string_value(value), *asked;
	size_t used = 0, len;

	if (value != NULL && !json_is_null(value) && granted == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the scope of the answer is not text");
	}
	if (granted != NULL && strlen(granted) >= sizeof(ret->scope)) {
		return kt_err_set(err, KT_E_LIMIT, "the scope of the answer is too long");
	}
	for (size_t i = 0; i < json_array_size(input->scopes); i++) {
		asked = json_string_value(json_array_get(input->scopes, i));
		len = strlen(asked);
		if (granted != NULL && !kt_has_word(kt_view_str(granted), asked)) {
			(void)grant_bad_answer(input, KT_E_DENIED, "granted is", granted, "", err);
			return err == NULL
				       ? KT_E_DENIED
				       : kt_err_prefix(err, "the scope was narrowed: '%.100s' was asked for", asked);
		}
		if (granted == NULL && used + len + 2 < sizeof(ret->scope)) {
			used += used > 0 ? (ret->scope[used] = ' ', 1) : 0;
			memcpy(ret->scope + used, asked, len + 1);
			used += len;
		}
	}
	if (granted != NULL) {
		memcpy(ret->scope, granted, strlen(granted) + 1);
	}
	return KT_OK;
}

enum kt_code grant_answer(const struct kt_http_reply *reply, const struct grant_input *input, struct grant_token *ret,
			  struct kt_err *err)
{
	KT_AUTOJSON json_t *json = NULL;
	enum kt_code code;

	memset(ret, 0, sizeof(*ret));
	if (reply->status >= 300 && reply->status < 400) {
		return kt_err_set(err, KT_E_PROTO, "the token endpoint redirects (HTTP %ld), which is not followed",
				  reply->status);
	}
	if (kt_http_is_type(reply, "json")) {
		code = kt_http_json(reply, &json, err);
		if (code != KT_OK && reply->status == 200) {
			return kt_err_set(err, code == KT_E_LIMIT ? KT_E_LIMIT : KT_E_PROTO,
					  "the authorization server's answer is not acceptable JSON");
		}
	}
	if (reply->status != 200 || kt_json_str(json, "error") != NULL) {
		return grant_refusal(reply, json, input, err);
	}
	if (json == NULL) {
		return grant_bad_answer(input, KT_E_PROTO, "the token endpoint answered with",
					reply->headers[KT_HTTP_CONTENT_TYPE], " instead of JSON", err);
	}
	code = take_refresh(json, ret, err);
	if (code == KT_OK) {
		code = take_life(json, ret, err);
	}
	if (code == KT_OK) {
		code = take_issued_type(json, input, ret, err);
	}
	if (code == KT_OK) {
		code = take_scope(json, input, ret, err);
	}
	if (code == KT_OK) {
		code = take_token(json, input, ret, err);
	}
	if (code != KT_OK) {
		kt_secret_destroy(ret->token);
		ret->token = NULL;
	}
	return code;
}

void grant_token_finish(struct grant_token *token)
{
	kt_secret_destroy(token->token);
	kt_secret_destroy(token->refresh);
	token->token = NULL;
	token->refresh = NULL;
}
