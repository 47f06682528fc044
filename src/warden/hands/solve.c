/*
 * How a program that writes TXT records is called: keyturn's own convention, and those for which hundreds of scripts were
 * written for other clients.
 */
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "warden/hands/hands.h"

#define ARGS_MAX 8u
#define ENV_SIZE 16u

static void strings_free(char **list)
{
	for (char **at = list; at != NULL && *at != NULL; at++) {
		kt_free(*at);
	}
	kt_free(list);
}

void kt_solve_call_finish(struct kt_solve_call *call)
{
	kt_hand_finish(&call->hand);
	strings_free(call->env);
	call->env = NULL;
}

void kt_solve_program_finish(struct kt_solve_program *program)
{
	kt_hand_finish(&program->hand);
	strings_free(program->cleanup);
	program->cleanup = NULL;
}

/* What is built: arguments after the manifest's own, and the environment. */
struct call {
	char *args[ARGS_MAX + 1];
	char *env[ENV_SIZE + 1];
	size_t arg_count, env_count;
	bool failed;
};

static void arg(struct call *call, const char *before, struct kt_view value, const char *after)
{
	char *text = kt_asprintf("%s%.*s%s", before, (int)value.len, value.len > 0 ? value.ptr : "", after);

	call->failed = call->failed || text == NULL || call->arg_count == ARGS_MAX;
	if (call->failed) {
		kt_free(text);
		return;
	}
	call->args[call->arg_count++] = text;
}

static void env(struct call *call, const char *name, struct kt_view value)
{
	char *text = kt_asprintf("%s=%.*s", name, (int)value.len, value.len > 0 ? value.ptr : "");

	call->failed = call->failed || text == NULL || call->env_count == ENV_SIZE;
	if (call->failed) {
		kt_free(text);
		return;
	}
	call->env[call->env_count++] = text;
}

static void call_finish(struct call *call)
{
	for (size_t i = 0; i < call->arg_count; i++) {
		kt_free(call->args[i]);
	}
	for (size_t i = 0; i < call->env_count; i++) {
		kt_free(call->env[i]);
	}
}

/* --- the conventions ------------------------------------------------------------------------------------------------ */

static void as_keyturn(struct call *call, const struct kt_solve_ask *ask)
{
	arg(call, ask->add ? "present" : "cleanup", KT_VIEW_LIT(""), "");
	arg(call, "", ask->record, "");
	arg(call, "", ask->value, "");
	env(call, "KEYTURN_RECORD", ask->record);
	env(call, "KEYTURN_VALUE", ask->value);
	env(call, "KEYTURN_DOMAIN", ask->domain);
	env(call, "KEYTURN_TOKEN", ask->token);
}

/* Of what it printed, certbot hands on without white space at the ends. */
static struct kt_view trim(struct kt_view text)
{
	while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL) {
		text.len--;
	}
	while (text.len > 0 && strchr(" \t\r\n", text.ptr[0]) != NULL) {
		text.ptr++;
		text.len--;
	}
	return text;
}

/* Each record stands for itself: none remains, so that a script that publishes with the last one does so with each. */
static void as_certbot(struct call *call, const struct kt_solve_ask *ask)
{
	env(call, "CERTBOT_DOMAIN", ask->domain);
	env(call, "CERTBOT_IDENTIFIER", ask->domain);
	env(call, "CERTBOT_VALIDATION", ask->value);
	env(call, "CERTBOT_TOKEN", ask->token);
	env(call, "CERTBOT_REMAINING_CHALLENGES", KT_VIEW_LIT("0"));
	env(call, "CERTBOT_ALL_DOMAINS", ask->domains);
	env(call, "CERTBOT_ALL_IDENTIFIERS", ask->domains);
	if (!ask->add) {
		env(call, "CERTBOT_AUTH_OUTPUT", trim(ask->auth_output));
	}
}

static void as_dehydrated(struct call *call, const struct kt_solve_ask *ask)
{
	arg(call, ask->add ? "deploy_challenge" : "clean_challenge", KT_VIEW_LIT(""), "");
	arg(call, "", ask->domain, "");
	arg(call, "", ask->token, "");
	arg(call, "", ask->value, "");
}

static bool is_raw(const struct kt_hand *hand)
{
	for (char *const *at = hand->env; at != NULL && *at != NULL; at++) {
		if (strcmp(*at, "EXEC_MODE=RAW") == 0) {
			return true;
		}
	}
	return false;
}

static void as_lego(struct call *call, const struct kt_solve_ask *ask, bool raw)
{
	arg(call, ask->add ? "present" : "cleanup", KT_VIEW_LIT(""), "");
	if (raw) {
		arg(call, "--", KT_VIEW_LIT(""), "");
		arg(call, "", ask->domain, "");
		arg(call, "", ask->token, "");
		arg(call, "", ask->key_authorization, "");
	} else {
		arg(call, "", ask->record, ".");
		arg(call, "", ask->value, "");
	}
}

/* --- one call --------------------------------------------------------------------------------------------------------- */

/* Names and texts of challenges, as a keeper that was taken over might send them: nothing that a shell script would choke on. */
static bool harmless(struct kt_view text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
		    (c == '\0' || strchr("-_.=+/:*,", c) == NULL)) {
			return false;
		}
	}
	return text.len == 0 || text.ptr[0] != '-';
}

/* A value may begin with '-': base64url has it in its alphabet. */
static bool harmless_value(struct kt_view text)
{
	while (text.len > 0 && text.ptr[0] == '-') {
		text.ptr++;
		text.len--;
	}
	return harmless(text);
}

static enum kt_code join(char *const *argv, struct call *call, const struct kt_hand *like, struct kt_hand *ret,
                         struct kt_err *err)
{
	struct kt_hand hand = *like;
	char **whole;
	size_t count = 0;
	enum kt_code code;

	while (argv[count] != NULL) {
		count++;
	}
	whole = kt_calloc(count + call->arg_count + 1, sizeof(*whole));
	if (whole == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a program");
	}
	memcpy(whole, argv, count * sizeof(*whole));
	memcpy(whole + count, call->args, call->arg_count * sizeof(*whole));
	hand.argv = whole;
	code = kt_hand_copy(&hand, ret, err);
	kt_free(whole);
	return code;
}

enum kt_code kt_solve_call_init(const struct kt_solve_program *program, const struct kt_solve_ask *ask,
                                struct kt_solve_call *ret, struct kt_err *err)
{
	bool certbot = program->convention == KT_SOLVE_CERTBOT;
	struct call call = {.failed = false};
	enum kt_code code = KT_OK;

	memset(ret, 0, sizeof(*ret));
	ret->hand.kind = KT_HAND_NONE;
	if (!harmless(ask->domain) || !harmless(ask->record) || !harmless_value(ask->value) || !harmless_value(ask->token) ||
	    !harmless_value(ask->key_authorization) || !harmless(ask->domains) || ask->domain.len == 0) {
		return kt_err_set(err, KT_E_INVALID, "the names of a challenge have characters that no name has");
	}
	if (certbot && !ask->add && program->cleanup == NULL) {
		return KT_OK;
	}
	switch (program->convention) {
	case KT_SOLVE_KEYTURN:
		as_keyturn(&call, ask);
		break;
	case KT_SOLVE_CERTBOT:
		as_certbot(&call, ask);
		break;
	case KT_SOLVE_DEHYDRATED:
		as_dehydrated(&call, ask);
		break;
	case KT_SOLVE_LEGO:
		as_lego(&call, ask, is_raw(&program->hand));
		break;
	}
	ret->env = kt_calloc(ENV_SIZE + 1, sizeof(*ret->env));
	if (call.failed || ret->env == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for a program");
	} else {
		code = join(certbot && !ask->add ? program->cleanup : program->hand.argv, &call, &program->hand, &ret->hand, err);
	}
	if (code == KT_OK) {
		memcpy(ret->env, call.env, call.env_count * sizeof(*ret->env));
		call.env_count = 0;
	}
	call_finish(&call);
	if (code != KT_OK) {
		kt_solve_call_finish(ret);
		ret->hand.kind = KT_HAND_NONE;
	}
	return code;
}
