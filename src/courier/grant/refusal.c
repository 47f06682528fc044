/* Refusals of a server: what they mean to whoever retries, and what may be shown of them. */
#include <stdio.h>
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/text.h"

#define SERVER_ERROR "server_error"
#define DETAIL_MAX 400u

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
	{"unsupported_token_type", KT_E_UNSUPPORTED},
	{"invalid_dpop_proof", KT_E_DENIED},
	{"use_dpop_nonce", KT_E_LATER}, /* a nonce was tried already, or none came */
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

/* What a secret looks like in a request: as it is, form-encoded, and in the value of a Basic header. */
#define FORMS 3u

static void secret_forms(const struct grant_input *input, enum grant_secret which, struct kt_buf forms[FORMS])
{
	const struct kt_secret *secret = input->secret[which];
	struct kt_buf authorization;

	for (unsigned i = 0; i < FORMS; i++) {
		kt_buf_init(&forms[i], GRANT_FORM_MAX);
	}
	if (secret == NULL || kt_secret_len(secret) == 0) {
		return;
	}
	kt_buf_addv(&forms[0], kt_secret_view(secret));
	kt_form_encode(&forms[1], kt_secret_view(secret));
	if (which != GRANT_CLIENT_SECRET) {
		return;
	}
	kt_buf_init(&authorization, GRANT_FORM_MAX);
	if (grant_client_secret_basic.apply(input, &forms[2], &authorization, NULL) == KT_OK) {
		kt_buf_add(&forms[2], authorization.ptr + 6, authorization.len - 6);
	} else {
		forms[2].failed = KT_E_NOMEM;
	}
	kt_buf_finish(&authorization);
}

/* A stranger's text, free of the secrets, cut afterwards (never before: half a secret is one too). */
static void add_redacted(const struct grant_input *input, const char *text, struct kt_buf *out)
{
	struct kt_buf forms[FORMS], from, to;
	bool sure = true; /* nothing is shown of what may not have been searched for everything */

	kt_buf_init(&from, 1024u * 1024u);
	kt_buf_adds(&from, text);
	for (unsigned which = 0; which < GRANT_SECRET_COUNT; which++) {
		secret_forms(input, (enum grant_secret)which, forms);
		for (unsigned i = FORMS; i-- > 0;) {
			kt_buf_init(&to, 1024u * 1024u);
			redact_one(kt_buf_view(&from), kt_buf_view(&forms[i]), &to);
			sure = sure && from.failed == KT_OK && to.failed == KT_OK && forms[i].failed == KT_OK;
			kt_buf_finish(&from);
			kt_buf_finish(&forms[i]);
			from = to;
		}
	}
	if (sure) {
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

/* No limit, which is how an empty 503 was seen: the server has failed by itself. */
static bool is_broken(long status)
{
	return status >= 500 && status != 503;
}

void grant_is_broken(long status, struct kt_err *err)
{
	if (err != NULL && is_broken(status)) {
		(void)snprintf(err->problem_type, sizeof(err->problem_type), SERVER_ERROR);
	}
}

enum kt_code grant_refusal(const struct kt_http_reply *reply, const json_t *json, const struct grant_input *input,
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
	if (error == NULL && is_broken(reply->status)) {
		(void)kt_err_set(err, code, "the authorization server has an error of its own%s%s (HTTP %ld)",
				 text.len > 0 ? ": " : "", text.len > 0 ? text.ptr : "", reply->status);
		error = SERVER_ERROR;
	} else {
		(void)kt_err_set(err, code, "the authorization server refuses: %s%s%s (HTTP %ld)",
				 error != NULL ? error : "no error code", text.len > 0 ? ": " : "",
				 text.len > 0 ? text.ptr : "", reply->status);
	}
	if (err != NULL) {
		err->retry_after_s = code == KT_E_LATER ? reply->retry_after : 0;
		memcpy(err->problem_type, error != NULL ? error : "", error != NULL ? strlen(error) + 1 : 1);
	}
	kt_buf_finish(&word);
	kt_buf_finish(&text);
	return code;
}

/* What is shown of an answer may hold what we sent, whichever member it stands in. */
enum kt_code grant_bad_answer(const struct grant_input *input, enum kt_code code, const char *what, const char *text,
			      const char *end, struct kt_err *err)
{
	struct kt_buf shown;

	kt_buf_init(&shown, 4096);
	add_redacted(input, text != NULL ? text : "", &shown);
	(void)kt_err_set(err, code, "%s '%s'%s", what, shown.len > 0 ? shown.ptr : "", end);
	kt_buf_finish(&shown);
	return code;
}
