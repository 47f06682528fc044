/* The judge of token responses: what is believed, what is refused, and what may be shown of it. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/text.h"

#define DETAIL_MAX 400u

/* --- errors ------------------------------------------------------------------------------------------------------ */

static const struct {
	const char *error;
	enum kt_code code;
} known[] = {
	{"invalid_client", KT_E_AUTH},
	{"unauthorized_client", KT_E_AUTH},
	{"access_denied", KT_E_DENIED},
	{"invalid_scope", KT_E_DENIED},
	{"invalid_target", KT_E_DENIED},
	{"invalid_grant", KT_E_DENIED},
	{"invalid_request", KT_E_DENIED},
	{"unsupported_grant_type", KT_E_DENIED},
	{"temporarily_unavailable", KT_E_LATER},
	{"server_error", KT_E_LATER},
	{"slow_down", KT_E_LATER},
};

/* Copies text to out with every occurrence of what replaced. */
static void redact_one(struct kt_view text, struct kt_view what, struct kt_buf *out)
{
	const char *at;

	while (what.len > 0 && (at = memmem(text.ptr, text.len, what.ptr, what.len)) != NULL) {
		kt_buf_add(out, text.ptr, (size_t)(at - text.ptr));
		kt_buf_adds(out, "[redacted]");
		text.len -= (size_t)(at - text.ptr) + what.len;
		text.ptr = at + what.len;
	}
	kt_buf_addv(out, text);
}

/* The secret in each form in which it was sent, so that a server may echo any. */
static void secret_forms(const struct grant_input *input, struct kt_buf forms[3])
{
	struct kt_buf authorization;

	for (unsigned i = 0; i < 3; i++) {
		kt_buf_init(&forms[i], 128u * 1024u);
	}
	if (input->client_secret == NULL || kt_secret_len(input->client_secret) == 0) {
		return;
	}
	kt_buf_addv(&forms[0], kt_secret_view(input->client_secret));
	kt_form_encode(&forms[1], kt_secret_view(input->client_secret));
	kt_buf_init(&authorization, 128u * 1024u);
	if (grant_client_secret_basic.apply(input, &forms[2], &authorization, NULL) == KT_OK) {
		kt_buf_add(&forms[2], authorization.ptr + 6, authorization.len - 6);
	}
	kt_buf_finish(&authorization);
}

/* A stranger's text, free of the secret, cut afterwards (never before: half a secret is one too). */
static void add_redacted(const struct grant_input *input, const char *text, struct kt_buf *out)
{
	struct kt_buf forms[3], from, to;

	secret_forms(input, forms);
	kt_buf_init(&from, 1024u * 1024u);
	kt_buf_adds(&from, text);
	for (unsigned i = 3; i-- > 0;) {
		kt_buf_init(&to, 1024u * 1024u);
		redact_one(kt_buf_view(&from), kt_buf_view(&forms[i]), &to);
		kt_buf_finish(&from);
		kt_buf_finish(&forms[i]);
		from = to;
	}
	if (from.failed == KT_OK) {
		kt_buf_add(out, from.ptr, from.len > DETAIL_MAX ? DETAIL_MAX : from.len);
		kt_buf_adds(out, from.len > DETAIL_MAX ? "..." : "");
	}
	kt_buf_finish(&from);
}

static bool plain_word(const char *text)
{
	size_t len = strnlen(text, 65);

	return len > 0 && len <= 64 &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == len;
}

static enum kt_code by_status(long status)
{
	if (status == 429 || status == 408 || status >= 500) {
		return KT_E_LATER;
	}
	if (status == 401) {
		return KT_E_AUTH;
	}
	return status >= 400 ? KT_E_DENIED : KT_E_PROTO;
}

static enum kt_code refusal(const struct kt_http_reply *reply, const json_t *json, const struct grant_input *input,
			    struct kt_err *err)
{
	const char *error = kt_json_str(json, "error"), *detail = kt_json_str(json, "error_description");
	enum kt_code code = by_status(reply->status);
	struct kt_buf word, text;

	kt_buf_init(&word, 4096);
	kt_buf_init(&text, 4096);
	if (error != NULL) {
		add_redacted(input, error, &word);
	}
	if (detail != NULL) {
		add_redacted(input, detail, &text);
	}
	error = word.len > 0 && plain_word(word.ptr) ? word.ptr : NULL;
	for (size_t i = 0; error != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(error, known[i].error) == 0 && (code != KT_E_LATER || reply->status < 500)) {
			code = reply->status == 429 ? KT_E_LATER : known[i].code;
		}
	}
	if (code == KT_E_PROTO && error != NULL) {
		code = KT_E_DENIED;
	}
	(void)kt_err_set(err, code, "the authorization server refuses: %s%s%s (HTTP %ld)",
			 error != NULL ? error : "no error code", text.len > 0 ? ": " : "",
			 text.len > 0 ? text.ptr : "", reply->status);
	if (err != NULL) {
		err->retry_after_s = code == KT_E_LATER ? reply->retry_after : 0;
		memcpy(err->problem_type, error != NULL ? error : "", error != NULL ? strlen(error) + 1 : 1);
	}
	kt_buf_finish(&word);
	kt_buf_finish(&text);
	return code;
}

/* --- tokens ------------------------------------------------------------------------------------------------------- */

static bool visible(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] >= 0x7f) {
			return false;
		}
	}
	return len > 0;
}

/* What is shown of an answer may hold what we sent, whichever member it stands in. */
static enum kt_code bad_answer(const struct grant_input *input, enum kt_code code, const char *what, const char *text,
			       const char *end, struct kt_err *err)
{
	struct kt_buf shown;

	kt_buf_init(&shown, 4096);
	add_redacted(input, text != NULL ? text : "", &shown);
	(void)kt_err_set(err, code, "%s '%s'%s", what, shown.len > 0 ? shown.ptr : "", end);
	kt_buf_finish(&shown);
	return code;
}

static enum kt_code take_token(const json_t *json, const struct grant_input *input, struct grant_token *ret,
			       struct kt_err *err)
{
	const json_t *value = json_object_get(json, "access_token");
	const char *type = kt_json_str(json, "token_type");
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
	if (type == NULL || !kt_ascii_ieq(kt_view_str(type), KT_VIEW_LIT("bearer"))) {
		return bad_answer(input, KT_E_PROTO, "the token's type is", type, ", not Bearer", err);
	}
	return kt_secret_create(json_string_value(value), len, &ret->token, err);
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

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words; (at = strstr(at, word)) != NULL; at += len) {
		if ((at == words || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' ')) {
			return true;
		}
	}
	return false;
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
		if (granted != NULL && !has_word(granted, asked)) {
			(void)bad_answer(input, KT_E_DENIED, "granted is", granted, "", err);
			return err == NULL ? KT_E_DENIED
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
		return refusal(reply, json, input, err);
	}
	if (json == NULL) {
		return bad_answer(input, KT_E_PROTO, "the token endpoint answered with",
				  reply->headers[KT_HTTP_CONTENT_TYPE], " instead of JSON", err);
	}
	code = take_life(json, ret, err);
	if (code == KT_OK) {
		code = take_scope(json, input, ret, err);
	}
	if (code == KT_OK) {
		code = take_token(json, input, ret, err);
	}
	if (code != KT_OK) {
		grant_token_finish(ret);
	}
	return code;
}

void grant_token_finish(struct grant_token *token)
{
	kt_secret_destroy(token->token);
	token->token = NULL;
}
