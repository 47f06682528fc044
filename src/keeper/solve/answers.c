/*
 * The answers that are out: presented when their place is free, told to the courier, taken back when their order is over,
 * by the next process if need be. What outlives this one is in the store before it is presented.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/solve/solve.h"

#define LEFT_OVER_MAX 1024u
#define GIVE_UP       (7 * KT_DAY) /* what can't be taken back for so long is left where it is, and said */
#define TRIES_LASTING 6u           /* from here on the pauses are an hour and more */
#define HOPEFUL_TRIES 2u           /* a command does not wait for more */

/* After so many failures it is tried again at the last interval. */
static const kt_ms backoff[] = {2 * KT_SECOND, 10 * KT_SECOND, 30 * KT_SECOND, 2 * KT_MINUTE, 10 * KT_MINUTE, KT_HOUR, 6 * KT_HOUR};

static void kick(struct kt_keeper *keeper);

/* --- one answer ---------------------------------------------------------------------------------------------------- */

enum kt_code kt_answer_text(char **to, struct kt_view from, struct kt_err *err)
{
	char *copy = kt_strndup(from.ptr != NULL ? from.ptr : "", from.len);

	if (copy == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	kt_free(*to);
	*to = copy;
	return KT_OK;
}

void kt_answer_destroy(struct kt_answer *answer)
{
	if (answer == NULL) {
		return;
	}
	kt_free(answer->issuer);
	kt_free(answer->name);
	kt_free(answer->token);
	kt_free(answer->authorization);
	kt_free(answer->place);
	kt_free(answer->record);
	kt_free(answer->value);
	kt_free(answer->effective);
	kt_free(answer->config);
	kt_free(answer->handle);
	kt_free(answer);
}

struct kt_view kt_answer_traceparent(const struct kt_answer *answer, char out[56])
{
	return answer->trace_id[0] != '\0' ? kt_view_str(kt_keeper_traceparent(answer->trace_id, out)) : KT_VIEW_LIT("");
}

/* For people: where the answer is. */
static const char *where(const struct kt_answer *answer)
{
	return answer->effective != NULL ? answer->effective : answer->record != NULL ? answer->record : answer->place;
}

static void drop(struct kt_answer *answer)
{
	struct kt_keeper *keeper = answer->keeper;
	struct kt_answer **at = &keeper->answers;

	while (*at != answer) {
		at = &(*at)->next;
	}
	*at = answer->next;
	kt_wire_forget(keeper->courier, answer);
	kt_wire_forget(keeper->desk, answer);
	kt_wire_forget(keeper->ctx->warden, answer);
	kt_answer_destroy(answer);
	kick(keeper); /* somebody may wait for its place */
}

static void reply(struct kt_answer *answer, const struct kt_err *why)
{
	struct kt_msg_challenged done = {.type = kt_view_str(kt_challenge_name(answer->ops->challenge))};
	uint32_t id = answer->reply_to;

	answer->reply_to = 0;
	if (id == 0) {
		return;
	}
	if (why->code != KT_OK) {
		kt_wire_reply_err(answer->keeper->courier, id, why);
	} else {
		kt_wire_reply(answer->keeper->courier, id, KT_CHALLENGED, &done, NULL, 0);
	}
}

/* --- its row --------------------------------------------------------------------------------------------------------- */

static enum kt_code insert_row(struct kt_answer *answer, struct kt_err *err)
{
	struct kt_keeper *keeper = answer->keeper;
	struct kt_store_challenge row = {.credential = answer->credential,
	                                 .issuer = answer->issuer,
	                                 .type = kt_challenge_name(answer->ops->challenge),
	                                 .solver = answer->solver,
	                                 .name = answer->name,
	                                 .record = answer->record,
	                                 .value = answer->value,
	                                 .token = answer->token,
	                                 .config = answer->config,
	                                 .created = answer->created};
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code == KT_OK) {
		code = kt_store_end(keeper->store, kt_store_challenge_insert(keeper->store, &row, err), err);
	}
	answer->row = code == KT_OK ? row.id : 0;
	return code;
}

static enum kt_code delete_row(struct kt_answer *answer, struct kt_err *err)
{
	struct kt_keeper *keeper = answer->keeper;
	enum kt_code code = answer->row != 0 ? kt_store_begin(keeper->store, err) : KT_OK;

	if (code == KT_OK && answer->row != 0) {
		code = kt_store_end(keeper->store, kt_store_challenge_delete(keeper->store, answer->row, err), err);
	}
	answer->row = code == KT_OK ? 0 : answer->row;
	return code;
}

enum kt_code kt_answer_save(struct kt_answer *answer, struct kt_view effective, struct kt_view handle, struct kt_err *err)
{
	struct kt_keeper *keeper = answer->keeper;
	enum kt_code code = KT_OK;

	if (effective.len > 0) {
		code = kt_answer_text(&answer->effective, effective, err);
	}
	if (code == KT_OK && handle.len > 0) {
		code = kt_answer_text(&answer->handle, handle, err);
	}
	if (code != KT_OK || answer->row == 0 || effective.len + handle.len == 0) {
		return code;
	}
	code = kt_store_begin(keeper->store, err);
	return code == KT_OK ? kt_store_end(keeper->store,
	                                    kt_store_challenge_written(keeper->store, answer->row, answer->effective,
	                                                               answer->handle, err),
	                                    err)
	                     : code;
}

/* --- presenting ------------------------------------------------------------------------------------------------------ */

void kt_answer_presented(struct kt_answer *answer, const struct kt_err *why)
{
	struct kt_err err = *why;

	answer->state = KT_ANSWER_THERE;
	answer->tries = 0;
	answer->call = 0;
	if (err.code == KT_OK && !answer->wanted) {
		(void)kt_err_set(&err, KT_E_CANCELLED, "the order of %s is over", answer->name);
	}
	reply(answer, &err);
	if (err.code != KT_OK) { /* something of it may be there */
		answer->wanted = false;
		kick(answer->keeper);
	}
}

/* It could not be taken back, and who knows when it can. */
static bool is_stuck(const struct kt_answer *answer)
{
	return !answer->wanted && answer->state == KT_ANSWER_THERE && answer->tries > 0;
}

/* Another one that has to be gone first. */
static bool place_taken(const struct kt_answer *answer)
{
	const struct kt_answer *other;

	for (other = answer->keeper->answers; other != NULL; other = other->next) {
		if (other != answer && other->begun && other->ops == answer->ops && strcmp(other->place, answer->place) == 0 &&
		    !is_stuck(other)) {
			return true;
		}
	}
	return false;
}

static void present(struct kt_answer *answer)
{
	enum kt_effect effect = KT_EFFECT_FAILED;
	struct kt_err err;

	if (place_taken(answer)) {
		return;
	}
	kt_err_clear(&err);
	if (!answer->ops->durable || answer->row != 0 || insert_row(answer, &err) == KT_OK) {
		answer->begun = true;
		answer->state = KT_ANSWER_PRESENTING;
		effect = answer->ops->present(answer, &err);
	}
	if (effect != KT_EFFECT_PENDING) {
		kt_answer_presented(answer, &err);
	}
}

/* An answer of an earlier process, or of an order that was called off, that is the very same and about to go. */
static bool adopt(struct kt_answer *answer)
{
	struct kt_answer *other = answer->keeper->answers;

	while (other != NULL && (other == answer || other->wanted || other->row == 0 || other->ops != answer->ops ||
	                         other->state != KT_ANSWER_THERE || strcmp(other->place, answer->place) != 0 ||
	                         strcmp(other->config, answer->config) != 0)) {
		other = other->next;
	}
	if (other == NULL) {
		return false;
	}
	answer->row = other->row;
	other->row = 0;
	if (other->handle != NULL && answer->handle == NULL) {
		answer->handle = other->handle;
		other->handle = NULL;
	}
	drop(other);
	return true;
}

void kt_answers_add(struct kt_keeper *keeper, struct kt_answer *answer)
{
	answer->next = keeper->answers;
	keeper->answers = answer;
	answer->inherited = adopt(answer);
	present(answer);
}

/* --- taking back ------------------------------------------------------------------------------------------------------ */

void kt_answer_withdrawn(struct kt_answer *answer, const struct kt_err *why)
{
	struct kt_keeper *keeper = answer->keeper;
	struct kt_err err = *why;

	answer->state = KT_ANSWER_THERE;
	answer->call = 0;
	if (err.code == KT_OK && delete_row(answer, &err) == KT_OK) {
		drop(answer);
		return;
	}
	if (kt_keeper_now(keeper) - answer->created > GIVE_UP) {
		kt_log_err(KT_LOG_ERROR, &err, "%s: the answer to a challenge at %s could not be taken back for a week: remove it by hand",
		           answer->issuer, where(answer));
		(void)delete_row(answer, NULL);
		drop(answer);
		return;
	}
	answer->next_try = kt_clock_mono(keeper->clock) +
	                   backoff[answer->tries < sizeof(backoff) / sizeof(backoff[0]) ? answer->tries
	                                                                                : sizeof(backoff) / sizeof(backoff[0]) - 1];
	answer->tries++;
	/* Told once, and then where it has lasted: not with every try in between. */
	kt_log_err(answer->tries == 1 ? KT_LOG_WARN : answer->tries < TRIES_LASTING ? KT_LOG_INFO : KT_LOG_ERROR, &err,
	           "%s: the answer to a challenge at %s can't be taken back yet; it is tried again", answer->issuer, where(answer));
	kick(keeper);
}

static void withdraw(struct kt_answer *answer)
{
	enum kt_effect effect = KT_EFFECT_DONE;
	struct kt_err err;

	kt_err_clear(&err);
	answer->state = KT_ANSWER_WITHDRAWING;
	if (answer->ops->withdraw != NULL) {
		effect = answer->ops->withdraw(answer, &err);
	}
	if (effect != KT_EFFECT_PENDING) {
		kt_answer_withdrawn(answer, &err);
	}
}

/* From now on it is to go; the work begins with the next look. */
static void let_go(struct kt_answer *answer)
{
	bool was = answer->wanted;

	answer->wanted = false;
	if (was && answer->state == KT_ANSWER_PRESENTING && answer->ops->interrupt != NULL) {
		answer->ops->interrupt(answer);
	}
	kick(answer->keeper);
}

void kt_answers_withdraw(struct kt_keeper *keeper, uint64_t job)
{
	for (struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (job != 0 && answer->job == job) {
			answer->job = 0;
			answer->reply_to = 0; /* who asked is not interested any more */
			let_go(answer);
		}
	}
}

unsigned kt_answers_withdraw_name(struct kt_keeper *keeper, uint64_t job, struct kt_view name, bool wildcard)
{
	unsigned challenge = 0;

	for (struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (job != 0 && answer->job == job && answer->wildcard == wildcard && kt_view_eq_str(name, answer->name)) {
			challenge = answer->ops->challenge;
			let_go(answer);
		}
	}
	return challenge;
}

/* --- the look at all of them ------------------------------------------------------------------------------------------- */

static void look_at(struct kt_answer *answer, kt_ms now)
{
	struct kt_err err;

	if (answer->state == KT_ANSWER_PRESENTING || answer->state == KT_ANSWER_WITHDRAWING) {
		return;
	}
	if (answer->wanted) {
		if (answer->state == KT_ANSWER_WAITING) {
			present(answer);
		}
		return;
	}
	if (!answer->begun && answer->row == 0) {
		kt_err_clear(&err);
		(void)kt_err_set(&err, KT_E_CANCELLED, "the order of %s is over", answer->name);
		reply(answer, &err);
		drop(answer);
	} else if (answer->next_try <= now) {
		withdraw(answer);
	}
}

static void on_look(void *arg)
{
	struct kt_keeper *keeper = arg;
	kt_ms now = kt_clock_mono(keeper->clock);
	kt_ms soonest = KT_TIME_MAX;

	for (struct kt_answer *answer = keeper->answers, *next; answer != NULL; answer = next) {
		next = answer->next;
		look_at(answer, now);
	}
	for (const struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (!answer->wanted && answer->state == KT_ANSWER_THERE && answer->next_try < soonest) {
			soonest = answer->next_try;
		}
	}
	if (soonest != KT_TIME_MAX) {
		kt_timer_start(keeper->answer_timer, soonest > now ? soonest - now : 0);
	}
}

/* Soon: what is called from inside a transaction must not begin another one. */
static void kick(struct kt_keeper *keeper)
{
	struct kt_err err;

	/* What an earlier process has left waits for one that works on credentials. */
	if (keeper->ending || !keeper->rotating || keeper->answers == NULL) {
		return;
	}
	kt_err_clear(&err);
	if (keeper->answer_timer == NULL && kt_timer_create(keeper->loop, on_look, keeper, &keeper->answer_timer, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "answers to challenges can't be taken back");
		return;
	}
	kt_timer_start(keeper->answer_timer, 0);
}

bool kt_answers_busy(const struct kt_keeper *keeper)
{
	for (const struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (!answer->wanted && answer->begun && answer->tries < HOPEFUL_TRIES) {
			return true;
		}
	}
	return false;
}

void kt_answers_serve_again(struct kt_keeper *keeper)
{
	for (struct kt_answer *answer = keeper->answers; answer != NULL; answer = answer->next) {
		if (answer->wanted && answer->state == KT_ANSWER_THERE && answer->ops->serve_again != NULL) {
			answer->ops->serve_again(answer);
		}
	}
}

/* --- start and end --------------------------------------------------------------------------------------------------- */

static const struct kt_solver_ops *ops_of_row(const struct kt_store_challenge *row)
{
	switch (kt_challenge_from_name(row->type)) {
	case KT_CHALLENGE_HTTP01:
		return &kt_solve_webroot;
	case KT_CHALLENGE_DNS01:
		/* Only a program has it; in a text of the JSON the quotes would be escaped. */
		return strstr(row->config, "\"argv\":[") != NULL ? &kt_solve_exec : &kt_solve_dns;
	default:
		return NULL;
	}
}

static enum kt_code text_or_null(char **to, const char *from, struct kt_err *err)
{
	return from != NULL && from[0] != '\0' ? kt_answer_text(to, kt_view_str(from), err) : KT_OK;
}

static enum kt_code copy_row(struct kt_answer *answer, const struct kt_store_challenge *row, struct kt_err *err)
{
	enum kt_code code = kt_answer_text(&answer->issuer, kt_view_str(row->issuer), err);

	if (code == KT_OK) {
		code = kt_answer_text(&answer->name, kt_view_str(row->name), err);
	}
	if (code == KT_OK) {
		code = kt_answer_text(&answer->token, kt_view_str(row->token), err);
	}
	if (code == KT_OK) {
		code = kt_answer_text(&answer->config, kt_view_str(row->config), err);
	}
	if (code == KT_OK) {
		code = text_or_null(&answer->value, row->value, err);
	}
	if (code == KT_OK) {
		code = text_or_null(&answer->effective, row->record, err);
	}
	if (code == KT_OK) {
		code = text_or_null(&answer->handle, row->handle, err);
	}
	return code;
}

struct left_over {
	struct kt_keeper *keeper;
	enum kt_code code;
	struct kt_err *err;
};

/* What an earlier process has left, or the state of another agent that was copied: it is to go. */
static bool take_left_over(const struct kt_store_challenge *row, void *arg)
{
	struct left_over *left = arg;
	struct kt_answer *answer = kt_calloc(1, sizeof(*answer));

	if (answer == NULL) {
		left->code = kt_err_set(left->err, KT_E_NOMEM, "no memory for challenges");
		return false;
	}
	answer->keeper = left->keeper;
	answer->ops = ops_of_row(row);
	answer->state = KT_ANSWER_THERE;
	answer->begun = true;
	answer->row = row->id;
	answer->credential = row->credential;
	answer->created = row->created;
	answer->solver = row->solver;
	left->code = answer->ops != NULL ? copy_row(answer, row, left->err) : KT_OK;
	if (left->code == KT_OK && answer->ops == &kt_solve_webroot) {
		answer->place = kt_asprintf("%s/%s", answer->config, answer->token);
	} else if (left->code == KT_OK && answer->ops != NULL) {
		answer->record = kt_asprintf("_acme-challenge.%s", answer->name);
		answer->place = kt_asprintf("_acme-challenge.%s %s", answer->name, answer->value != NULL ? answer->value : "");
	}
	if (left->code != KT_OK || answer->place == NULL) {
		kt_answer_destroy(answer);
		return left->code == KT_OK;
	}
	answer->next = left->keeper->answers;
	left->keeper->answers = answer;
	return true;
}

void kt_answers_clean(struct kt_keeper *keeper)
{
	struct kt_err err;
	struct left_over left = {keeper, KT_OK, &err};

	kt_err_clear(&err);
	if (kt_store_challenge_each(keeper->store, 0, LEFT_OVER_MAX, take_left_over, &left, &err) != KT_OK || left.code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "answers to challenges that an earlier process has left can't be read");
	}
	/* Files go now: the walls may leave out a webroot that no issuer names any more. */
	for (struct kt_answer *answer = keeper->answers, *next; answer != NULL; answer = next) {
		next = answer->next;
		if (answer->ops->at_once) {
			withdraw(answer);
		}
	}
}

void kt_answers_go(struct kt_keeper *keeper)
{
	kick(keeper);
}

void kt_answers_finish(struct kt_keeper *keeper)
{
	keeper->ending = true;
	while (keeper->answers != NULL) {
		struct kt_answer *answer = keeper->answers;
		struct kt_err err;

		kt_err_clear(&err);
		if (answer->ops->at_once && answer->begun && answer->ops->withdraw(answer, &err) == KT_EFFECT_DONE) {
			(void)delete_row(answer, NULL);
		}
		drop(answer);
	}
	kt_timer_destroy(keeper->answer_timer);
	keeper->answer_timer = NULL;
}
