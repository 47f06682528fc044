/*
 * The http-01 answers that are out: kept for as long as the courier wants them served, so that the desk gets them again
 * when it was started anew, and so that none outlives its order. Files in a webroot would outlive even this process:
 * which ones there are is in the store before they are written.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/keeper.h"

#define CHALLENGE_PATH "/.well-known/acme-challenge/"
#define FILES_ROW      "acme.webroot" /* per file: token, NUL, webroot, NUL */
#define FILES_MAX      60000u
#define SERVE_TRIES    3u
#define SERVE_TIME     (10 * KT_SECOND)

struct kt_answer {
	struct kt_answer *next;
	uint64_t job;
	char *webroot; /* NULL: our own listener */
	char *token;
	char *body;
};

static void answer_destroy(struct kt_answer *answer)
{
	if (answer != NULL) {
		kt_free(answer->webroot);
		kt_free(answer->token);
		kt_free(answer->body);
		kt_free(answer);
	}
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

/* Which files are out, in a transaction of its own. What no longer fits in is not noted: it is removed all the same. */
static enum kt_code note_files(struct kt_keeper *keeper, struct kt_err *err)
{
	struct kt_buf list KT_AUTOBUF = {0};
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	kt_buf_init(&list, FILES_MAX);
	for (const struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (answer->webroot != NULL &&
		    list.len + strlen(answer->token) + strlen(answer->webroot) + 2 < FILES_MAX) {
			kt_buf_add(&list, answer->token, strlen(answer->token) + 1);
			kt_buf_add(&list, answer->webroot, strlen(answer->webroot) + 1);
		}
	}
	code = kt_buf_check(&list, "challenge files", err);
	if (code == KT_OK) {
		code = kt_store_meta_set(keeper->store, FILES_ROW, kt_buf_view(&list), err);
	}
	if (code != KT_OK) {
		kt_store_rollback(keeper->store);
		return code;
	}
	return kt_store_commit(keeper->store, err);
}

static void remove_file(const char *webroot, const char *token)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_challenge_remove(webroot, token, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "the challenge file %s in %s stays", token, webroot);
	}
}

void kt_answers_clean(struct kt_keeper *keeper)
{
	struct kt_buf list KT_AUTOBUF = {0};
	struct kt_err err;
	size_t at = 0;

	kt_err_clear(&err);
	kt_buf_init(&list, FILES_MAX + 1);
	if (kt_store_meta_get(keeper->store, FILES_ROW, &list, NULL) != KT_OK || list.len == 0) {
		return;
	}
	kt_buf_addc(&list, '\0'); /* so that each text ends within */
	while (at < list.len - 1) {
		const char *token = list.ptr + at;
		const char *webroot = token + strlen(token) + 1;

		if ((size_t)(webroot - list.ptr) >= list.len) {
			break;
		}
		remove_file(webroot, token);
		at = (size_t)(webroot - list.ptr) + strlen(webroot) + 1;
	}
	if (note_files(keeper, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "that challenge files were removed can't be written down");
	}
}

/* --- our own listener ----------------------------------------------------------------------------------------------- */

/* A CHALLENGE of the courier whose reply waits for the desk. */
struct serving {
	struct kt_keeper *keeper;
	uint32_t reply_to;
	uint64_t job;
	unsigned tries;
	char token[257];
};

static enum kt_code ask_desk(struct kt_keeper *keeper, const char *token, const char *body, kt_wire_reply_fn *fn,
                             void *arg, struct kt_err *err)
{
	char path[512];
	struct kt_msg_serve msg = {.listener = KT_VIEW_LIT("acme"),
	                           .content_type = body != NULL ? KT_VIEW_LIT("application/octet-stream") : KT_VIEW_LIT(""),
	                           .body = body != NULL ? kt_view_str(body) : KT_VIEW_LIT("")};

	(void)snprintf(path, sizeof(path), CHALLENGE_PATH "%s", token);
	msg.path = kt_view_str(path);
	return kt_wire_call(kt_keeper_desk(keeper), KT_SERVE, &msg, NULL, 0, SERVE_TIME, fn, arg, err);
}

static struct kt_answer *find(struct kt_keeper *keeper, uint64_t job, const char *token)
{
	struct kt_answer *answer = keeper->answers;

	while (answer != NULL && (answer->job != job || strcmp(answer->token, token) != 0)) {
		answer = answer->next;
	}
	return answer;
}

static void on_served(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct serving *serving = arg;
	struct kt_keeper *keeper = serving->keeper;
	struct kt_answer *answer = find(keeper, serving->job, serving->token);
	struct kt_msg_challenged done = {.type = KT_VIEW_LIT("http-01")};

	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	/* The desk died over it: the next one is asked. */
	if (why->code == KT_E_CLOSED && answer != NULL && !keeper->ending && ++serving->tries < SERVE_TRIES &&
	    ask_desk(keeper, answer->token, answer->body, on_served, serving, NULL) == KT_OK) {
		return;
	}
	if (why->code != KT_OK) {
		kt_wire_reply_err(keeper->courier, serving->reply_to, why);
	} else {
		kt_wire_reply(keeper->courier, serving->reply_to, KT_CHALLENGED, &done, NULL, 0);
	}
	kt_free(serving);
}

static void on_again(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	(void)arg;
	if (why->code != KT_OK && why->code != KT_E_CLOSED) {
		kt_log_err(KT_LOG_WARN, why, "a challenge can't be served");
	}
}

void kt_answers_serve_again(struct kt_keeper *keeper)
{
	struct kt_err err;

	kt_err_clear(&err);
	for (const struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (answer->webroot == NULL &&
		    ask_desk(keeper, answer->token, answer->body, on_again, NULL, &err) != KT_OK) {
			kt_log_err(KT_LOG_WARN, &err, "a challenge can't be served again");
		}
	}
}

/* --- both ----------------------------------------------------------------------------------------------------------- */

static enum kt_code remember(struct kt_keeper *keeper, uint64_t job, const char *webroot, const char *token,
                             struct kt_view body, struct kt_answer **ret, struct kt_err *err)
{
	struct kt_answer *answer = kt_calloc(1, sizeof(*answer));

	if (answer == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	answer->job = job;
	answer->webroot = webroot != NULL ? kt_strdup(webroot) : NULL;
	answer->token = kt_strdup(token);
	answer->body = kt_strndup(body.ptr, body.len);
	if ((webroot != NULL && answer->webroot == NULL) || answer->token == NULL || answer->body == NULL) {
		answer_destroy(answer);
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	answer->next = keeper->answers;
	keeper->answers = answer;
	*ret = answer;
	return KT_OK;
}

enum kt_code kt_answers_present(struct kt_keeper *keeper, const struct kt_msg_challenge *ask, uint32_t reply_to,
                                const char *webroot, const char *token, struct kt_view body, bool *ret_wait,
                                struct kt_err *err)
{
	struct kt_answer *answer = NULL;
	struct serving *serving;
	enum kt_code code;

	*ret_wait = false;
	if (strlen(token) >= sizeof(serving->token)) {
		return kt_err_set(err, KT_E_PROTO, "the challenge token is too long");
	}
	kt_answers_withdraw(keeper, ask->job, token);
	code = remember(keeper, ask->job, webroot, token, body, &answer, err);
	if (code != KT_OK) {
		return code;
	}
	if (webroot != NULL) {
		code = note_files(keeper, err);
		return code == KT_OK ? kt_challenge_write(webroot, token, body, err) : code;
	}
	serving = kt_calloc(1, sizeof(*serving));
	if (serving == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	serving->keeper = keeper;
	serving->reply_to = reply_to;
	serving->job = ask->job;
	(void)snprintf(serving->token, sizeof(serving->token), "%s", token);
	code = ask_desk(keeper, token, answer->body, on_served, serving, err);
	*ret_wait = code == KT_OK;
	if (code != KT_OK) {
		kt_free(serving);
	}
	return code;
}

void kt_answers_withdraw(struct kt_keeper *keeper, uint64_t job, const char *token)
{
	struct kt_answer **at = &keeper->answers;
	struct kt_err err;
	bool files = false;

	kt_err_clear(&err);
	while (*at != NULL) {
		struct kt_answer *answer = *at;

		if (answer->job != job || (token != NULL && strcmp(answer->token, token) != 0)) {
			at = &answer->next;
			continue;
		}
		*at = answer->next;
		if (answer->webroot != NULL) {
			remove_file(answer->webroot, answer->token);
			files = true;
		} else if (kt_wire_attached(keeper->desk)) { /* a desk that is not there serves nothing */
			(void)ask_desk(keeper, answer->token, NULL, on_again, NULL, NULL);
		}
		answer_destroy(answer);
	}
	if (files && note_files(keeper, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "that a challenge file was removed can't be written down");
	}
}

void kt_answers_finish(struct kt_keeper *keeper)
{
	while (keeper->answers != NULL) {
		struct kt_answer *answer = keeper->answers;

		keeper->answers = answer->next;
		answer_destroy(answer);
	}
}
