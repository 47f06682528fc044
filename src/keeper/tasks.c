/*
 * Consumers: the durable queue that makes each of them take a delivered material into use, and sees that it did.
 *
 * One task stands for one (material, Consumer). PENDING: its targets are uploaded to and its notifiers run one after
 * another, again and again until they succeed or newer material supersedes the task; when it may begin, in its turn and
 * in its window, is turn.c's to say. NOTIFIED: the proofs of this secret run, quickly at first, until `within` is over;
 * then the credential counts as not proved. A consumer that can't be reached, or still shows an older set of ours, is
 * looked at once more and notified again; one that shows something else gave a wrong answer, and the previous set is put
 * back if its onFailure says so. PROVED, UPLOADED and DELIVERED (nobody proves it) are the ends.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/flight.h"
#include "keeper/prove.h"
#include "keeper/target.h"

#define RUNS_MAX 64u
#define TASKS_MAX 100000u /* of a material */

/* What the cookie of an open task says. */
#define LATE "late" /* `within` is over, it is tried on patiently */
#define TURN "turn" /* waits for the consumers before it */
#define WINDOW "window" /* waits for its window */
#define AGAIN "again" /* what it may have is delivered once more: that is looked at before it is told */
#define ASKED "asked" /* waits for none: a person has asked for it */
#define BACK "back" /* nor does it: it is to get the previous set back, which it may have all the while */

static bool cookie_is(const struct kt_store_task *task, const char *what)
{
	return task->cookie != NULL && strcmp(task->cookie, what) == 0;
}

static bool is_open(const struct kt_store_task *task)
{
	return task->state == KT_TASK_PENDING || task->state == KT_TASK_NOTIFIED;
}

static struct kt_task_run *find_run(struct kt_keeper *keeper, int64_t id)
{
	struct kt_task_run *run = keeper->tasks;

	while (run != NULL && run->task.id != id) {
		run = run->next;
	}
	return run;
}

static void run_free(struct kt_task_run *run)
{
	kt_wire_forget(run->keeper->courier, run);
	kt_wire_forget(run->keeper->ctx->warden, run);
	kt_store_task_finish(&run->task);
	kt_store_material_finish(&run->material);
	kt_store_resource_finish(&run->resource);
	kt_resource_destroy(run->consumer);
	kt_free(run);
}

static void run_end(struct kt_task_run *run)
{
	struct kt_task_run **at = &run->keeper->tasks;
	struct kt_keeper *keeper = run->keeper;

	while (*at != run) {
		at = &(*at)->next;
	}
	*at = run->next;
	keeper->task_count--;
	run_free(run);
	kt_rotate_kick(keeper);
}

void kt_tasks_finish(struct kt_keeper *keeper)
{
	while (keeper->tasks != NULL) {
		struct kt_task_run *run = keeper->tasks;

		keeper->tasks = run->next;
		run_free(run);
	}
	keeper->task_count = 0;
}

/* --- what is written down ------------------------------------------------------------------------------------------- */

/* Names of the task in an audit record. */
static enum kt_code audit(struct kt_task_run *run, const char *step, const char *outcome, const char *reason,
                          struct kt_err *err)
{
	bool token = run->resource.kind[0] == 'T';
	struct kt_audit_event event = {.trace_id = run->task.trace_id,
	                               .actor = "agent",
	                               .kind = run->resource.kind,
	                               .ns = run->resource.ns,
	                               .name = run->resource.name,
	                               .step = step,
	                               .outcome = outcome,
	                               .reason = reason,
	                               .consumer = run->task.consumer_name,
	                               .sha256 = run->material.sha256,
	                               .revision = run->material.revision,
	                               .not_after = run->material.not_after,
	                               .seen = run->task.seen,
	                               .expected = run->task.expected};

	*(token ? &event.token_id : &event.serial) = run->material.serial;
	return kt_keeper_audit(run->keeper, &event, err);
}

struct tally {
	int64_t self;
	const struct kt_store_task *now; /* the run's own row as it will be */
	unsigned open, late, proved, uploaded;
	bool all_notified;
};

static bool count_task(const struct kt_store_task *stored, void *arg)
{
	struct tally *tally = arg;
	const struct kt_store_task *task = stored->id == tally->self ? tally->now : stored;

	if (task->state == KT_TASK_PENDING && task->attempts == 0) {
		tally->all_notified = false;
	}
	tally->proved += task->state == KT_TASK_PROVED;
	tally->uploaded += task->state == KT_TASK_UPLOADED;
	tally->late += task->state == KT_TASK_FAILED || (is_open(task) && cookie_is(task, LATE));
	tally->open += is_open(task);
	return true;
}

static void apply_tally(struct kt_store_cred *cred, const struct tally *tally, kt_ms now)
{
	bool resting = cred->step == KT_STEP_SWITCHED || cred->step == KT_STEP_NOTIFIED || cred->step == KT_STEP_PROVED;

	if (tally->open > 0) {
		cred->proof = tally->late > 0 ? KT_PROOF_FAILED : KT_PROOF_WAITING;
		if (resting && (tally->all_notified || tally->late > 0)) { /* it rests until that one is mended: what alarms look at */
			cred->step = KT_STEP_NOTIFIED;
		}
		return;
	}
	cred->proof = tally->uploaded > 0 ? KT_PROOF_UPLOADED : KT_PROOF_NOBODY;
	if (tally->proved > 0) {
		cred->proof = KT_PROOF_PROVED;
	}
	if (cred->proof == KT_PROOF_PROVED) {
		cred->proved_at = now;
		if (resting && cred->next_try <= now) { /* else the failure is that of a renewal which is tried again */
			cred->attempts = 0;
			cred->error = KT_OK;
			cred->error_text = NULL;
			cred->cookie = NULL;
		}
	}
	if (resting) {
		/* A client's spec.drain can be shorter or longer: the plan knows. */
		kt_ms retire_at = cred->kind == KT_KIND_CLIENT ? now : cred->delivered_at + KT_KEEP_PREVIOUS;

		cred->step = cred->proof == KT_PROOF_PROVED ? KT_STEP_PROVED : KT_STEP_NOTIFIED;
		if (cred->due_at == 0 || retire_at < cred->due_at) {
			cred->due_at = retire_at;
		}
	}
}

/* Its end may be the turn of those behind it. */
static enum kt_code wake_line(struct kt_task_run *run, kt_ms now, struct kt_err *err)
{
	struct kt_store *store = run->keeper->store;
	enum kt_code code = kt_store_task_wake(store, run->task.credential, TURN, now, err);

	return code == KT_OK ? kt_store_task_wake(store, run->task.credential, ASKED, now, err) : code;
}

/* What the tasks of a material say together goes into the credential; a flight that holds a copy learns it too. */
static enum kt_code update_credential(struct kt_task_run *run, struct kt_err *err)
{
	struct kt_store *store = run->keeper->store;
	struct kt_flight *flight = kt_rotate_find(run->keeper, run->task.credential);
	struct tally tally = {.self = run->task.id, .now = &run->task, .all_notified = true};
	struct kt_store_cred cred;
	kt_ms now = kt_keeper_now(run->keeper);
	enum kt_code code = kt_store_task_each(store, run->task.material, TASKS_MAX, count_task, &tally, err);

	if (code == KT_OK) {
		code = kt_store_cred_get(store, run->task.credential, &cred, err);
	}
	if (code != KT_OK) {
		return code;
	}
	if (cred.active == run->task.material) {
		apply_tally(&cred, &tally, now);
		code = kt_store_cred_put(store, &cred, err);
		if (code == KT_OK && tally.open > 0 && !is_open(&run->task)) {
			code = wake_line(run, now, err);
		}
		if (flight != NULL && flight->cred.active == run->task.material) {
			flight->cred.proof = cred.proof;
			flight->cred.proved_at = cred.proved_at;
		}
	}
	kt_store_cred_finish(&cred);
	return code;
}

/* Commits the task as it stands in the run, with its audit record, and ends the run. */
static void settle(struct kt_task_run *run, const char *step, const char *outcome, const char *reason)
{
	struct kt_keeper *keeper = run->keeper;
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = kt_store_begin(keeper->store, &err);
	if (code == KT_OK) {
		code = kt_store_task_put(keeper->store, &run->task, &err);
		if (code == KT_OK && step != NULL) {
			code = audit(run, step, outcome, reason, &err);
		}
		if (code == KT_OK) {
			code = update_credential(run, &err);
		}
		if (code == KT_OK && run->roll_back) {
			code = kt_rotate_roll_back(keeper, run->task.credential, run->task.error_text, &err);
		}
		code = kt_store_end(keeper->store, code, &err);
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "what %s did can't be written down", run->task.consumer_name);
		kt_rotate_not_written(keeper);
	} else {
		keeper->commit_delay = 0;
	}
	run_end(run);
}

/* --- outcomes ------------------------------------------------------------------------------------------------------- */

static struct kt_plan_task_next schedule(struct kt_task_run *run, bool prove, kt_ms started_at, kt_ms now)
{
	struct kt_plan_task plan = {.prove = prove,
	                            .started_at = started_at,
	                            .within = run->consumer->consumer.within,
	                            .attempts = run->task.attempts,
	                            .last_attempt = now,
	                            .last_code = run->task.error,
	                            .retry_after_s = run->retry_after_s,
	                            .not_after = run->material.not_after,
	                            .seed = (uint64_t)run->task.id};
	struct kt_plan_task_next next;

	kt_plan_task_decide(&plan, now, &next);
	run->task.next_try = next.phase == KT_TASK_OVER ? 0 : next.next_at;
	return next;
}

static void remember(struct kt_task_run *run, const struct kt_err *why)
{
	(void)snprintf(run->error_text, sizeof(run->error_text), "%s", why->what);
	run->task.error = why->code;
	run->task.error_text = run->error_text;
	run->retry_after_s = why->retry_after_s;
	run->task.attempts++;
}

/* Who shows the old set yet is notified again; only where there is nobody to notify is it uploaded again. */
static int first_to_repeat(const struct kt_task_run *run)
{
	const struct kt_consumer_spec *spec = &run->consumer->consumer;
	bool read_back = run->task.step < (int)spec->prove.count && spec->prove.items[run->task.step].read_back != NULL;

	return read_back || spec->notify.count == 0 ? 0 : kt_target_count(run);
}

static void fail(struct kt_task_run *run, const struct kt_err *why, bool wrong_answer)
{
	kt_ms now = kt_keeper_now(run->keeper);
	bool proving = run->task.state == KT_TASK_NOTIFIED;
	bool was_late = cookie_is(&run->task, LATE);
	const char *step = proving ? "proved" : run->task.step < kt_target_count(run) ? "uploaded" : "notified";
	struct kt_plan_task_next next;

	if (!proving && why->code != KT_E_MISMATCH) { /* what an upload has shown is no answer to this */
		run->task.seen = run->task.expected = NULL;
	}
	remember(run, why);
	next = schedule(run, proving, run->task.updated, now);
	if (next.phase == KT_TASK_QUICK) {
		settle(run, NULL, NULL, NULL);
		return;
	}
	if (was_late) { /* each round is as patient as it has taken long since the delivery */
		(void)schedule(run, proving, run->task.created, now);
	}
	run->task.cookie = LATE;
	if (proving) {
		bool back = wrong_answer && run->consumer->consumer.on_failure == KT_ON_FAILURE_ROLLBACK;

		run->roll_back = back && !was_late;
		if (!wrong_answer) { /* unreachable, or still the old set: tell it again */
			run->task.state = KT_TASK_PENDING;
			run->task.step = first_to_repeat(run);
		}
	}
	if (!was_late) {
		kt_log(KT_LOG_WARN, "%s/%s is delivered but not proved: Consumer %s: %s", run->resource.ns,
		       run->resource.name, run->task.consumer_name, run->error_text);
		settle(run, step, "failed", run->error_text);
		return;
	}
	settle(run, NULL, NULL, NULL);
}

static void succeed(struct kt_task_run *run)
{
	kt_ms now = kt_keeper_now(run->keeper);
	bool notified = run->task.state == KT_TASK_PENDING;
	int uploads = kt_target_count(run);
	const char *step = notified && run->task.step < uploads ? "uploaded" : notified ? "notified" : "proved";

	run->task.step++;
	run->task.attempts = 0;
	run->task.next_try = now;
	if (notified && run->task.step < kt_prove_steps(run)) {
		settle(run, run->task.step <= uploads ? step : NULL, "ok", NULL);
		return;
	}
	if (notified) {
		run->task.state = kt_prove_next(run, 0) >= 0 ? KT_TASK_NOTIFIED : uploads > 0 ? KT_TASK_UPLOADED : KT_TASK_DELIVERED;
		run->task.step = 0;
		run->task.updated = now;
	} else if (kt_prove_next(run, run->task.step) < 0) {
		run->task.state = KT_TASK_PROVED;
		run->task.updated = now;
	} else {
		settle(run, NULL, NULL, NULL);
		return;
	}
	run->task.error = KT_OK;
	run->task.error_text = NULL;
	if (run->task.state != KT_TASK_NOTIFIED) {
		run->task.next_try = 0;
		run->task.cookie = NULL;
	}
	settle(run, step, "ok", NULL);
}

/* Whether one look shows what the consumer uses: that a token is accepted, or lies somewhere, does not. */
static bool shows_what_it_uses(const struct kt_task_run *run)
{
	int first = kt_prove_next(run, 0);
	const struct kt_prove *prove = first >= 0 ? &run->consumer->consumer.prove.items[first] : NULL;

	return kt_target_count(run) == 0 && prove != NULL && (prove->tls != NULL || prove->observed != NULL);
}

/*
 * Whether to look before it is told: a late one that has taken it meanwhile (its restart took longer than `within`, or a person has
 * mended it) is not disturbed again; nor is one that is told in turn or in a window, since that costs it something, when only its
 * files are put back.
 */
static bool may_have_it(const struct kt_task_run *run)
{
	const struct kt_rollout *rollout = &run->consumer->consumer.rollout;
	bool careful = rollout->max_unavailable > 0 || rollout->windows.count > 0;

	return run->task.state == KT_TASK_PENDING && shows_what_it_uses(run) &&
	       (cookie_is(&run->task, LATE) || (careful && (cookie_is(&run->task, AGAIN) || cookie_is(&run->task, BACK))));
}

/* It has not taken it meanwhile: it is told again, if it may be. */
static void tell_again(struct kt_task_run *run, const struct kt_err *why)
{
	struct kt_err err;

	kt_err_clear(&err);
	run->looks_first = false;
	run->task.state = KT_TASK_PENDING;
	run->task.step = first_to_repeat(run);
	if (!cookie_is(&run->task, LATE)) { /* like any other now, in its turn */
		run->task.step = 0;
		run->task.cookie = cookie_is(&run->task, BACK) ? ASKED : NULL;
		run->task.next_try = kt_keeper_now(run->keeper);
		settle(run, NULL, NULL, NULL);
		return;
	}
	if (run->window_at != 0) {
		remember(run, why);
		(void)schedule(run, false, run->task.created, kt_keeper_now(run->keeper));
		settle(run, NULL, NULL, NULL);
		return;
	}
	if (kt_prove_notify(run, &err) != KT_OK) {
		fail(run, &err, false);
	}
}

void kt_task_done(struct kt_task_run *run, const struct kt_err *why, bool wrong_answer)
{
	if (why == NULL || why->code == KT_OK) {
		run->looks_first = false;
		succeed(run);
	} else if (run->looks_first) {
		tell_again(run, why);
	} else {
		fail(run, why, wrong_answer);
	}
}

/* --- starting ------------------------------------------------------------------------------------------------------- */

/* A window was closed, or others were first: the time to take it begins now. */
static void begin_turn(struct kt_task_run *run, kt_ms now)
{
	if (cookie_is(&run->task, TURN) || cookie_is(&run->task, WINDOW)) {
		run->task.cookie = NULL;
		run->task.updated = now;
	}
}

/* Puts a task off that may not be told yet. False: it may, or it is late, and there is something to be looked at meanwhile. */
static bool must_wait(struct kt_task_run *run)
{
	kt_ms now = kt_keeper_now(run->keeper);
	kt_ms at = now;
	bool asked = cookie_is(&run->task, ASKED) || cookie_is(&run->task, BACK);
	struct kt_err err;

	kt_err_clear(&err);
	if (run->task.state != KT_TASK_PENDING || (!cookie_is(&run->task, LATE) && may_have_it(run))) {
		return false;
	}
	if (!asked && kt_turn_window(run, now, &at, &err) != KT_OK) {
		fail(run, &err, false);
		return true;
	}
	if (at > now) {
		bool failed = cookie_is(&run->task, LATE) || run->task.error != KT_OK;

		run->window_at = at;
		run->task.cookie = failed ? LATE : WINDOW;
		if (failed && shows_what_it_uses(run)) {
			return false;
		}
		run->task.next_try = at;
		settle(run, NULL, NULL, NULL);
		return true;
	}
	at = kt_turn_at(run, now);
	if (at > now) {
		run->task.next_try = at;
		run->task.cookie = asked ? ASKED : TURN;
		settle(run, NULL, NULL, NULL);
		return true;
	}
	begin_turn(run, now);
	return false;
}

struct uses {
	const char *secret;
	bool found;
};

static void find_use(const char *secret, void *arg)
{
	struct uses *uses = arg;

	uses->found = uses->found || (secret != NULL && strcmp(secret, uses->secret) == 0);
}

/* Its Consumer is gone (its id may be that of another resource by now), or uses the credential no more. */
static enum kt_code load_consumer(struct kt_task_run *run, bool *ret_over, struct kt_err *err)
{
	struct kt_store_resource row = {0};
	struct uses uses = {.secret = run->secret_name};
	char name[520];
	enum kt_code code = kt_store_resource_get(run->keeper->store, run->task.consumer, &row, err);

	*ret_over = code == KT_E_NOTFOUND;
	if (code == KT_OK) {
		(void)snprintf(name, sizeof(name), "%s/%s", row.ns, row.name);
		*ret_over = row.gone || strcmp(row.kind, "Consumer") != 0 || strcmp(name, run->task.consumer_name) != 0;
	}
	if (code == KT_OK && !*ret_over) {
		code = kt_load_spec(&row, &run->consumer, err);
		if (code == KT_OK) {
			kt_load_each_consumed(&run->consumer->consumer, find_use, &uses);
			*ret_over = !uses.found;
		}
	}
	kt_store_resource_finish(&row);
	return *ret_over ? KT_OK : code;
}

static enum kt_code load_run(struct kt_keeper *keeper, int64_t id, struct kt_task_run *run, bool *ret_over,
                             struct kt_err *err)
{
	struct kt_store_cred cred = {0};
	enum kt_code code = kt_store_task_get(keeper->store, id, &run->task, err);

	*ret_over = false;
	if (code == KT_OK) {
		code = kt_store_cred_get(keeper->store, run->task.credential, &cred, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, run->task.material, &run->material, err);
	}
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, run->task.credential, &run->resource, err);
	}
	(void)snprintf(run->secret_name, sizeof(run->secret_name), "%s", cred.secret_name != NULL ? cred.secret_name : "");
	if (code == KT_OK) {
		*ret_over = cred.active != run->task.material;
		code = *ret_over ? KT_OK : load_consumer(run, ret_over, err);
	}
	run->delivered_at = cred.delivered_at;
	run->proved_at = cred.proved_at;
	kt_store_cred_finish(&cred);
	return code;
}

static void start(struct kt_keeper *keeper, int64_t id)
{
	struct kt_task_run *run = kt_calloc(1, sizeof(*run));
	struct kt_err err;
	bool over = false;

	kt_err_clear(&err);
	if (run == NULL) { /* it stays due */
		kt_rotate_not_written(keeper);
		return;
	}
	run->keeper = keeper;
	run->next = keeper->tasks;
	keeper->tasks = run;
	keeper->task_count++;
	if (load_run(keeper, id, run, &over, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "a consumer's task can't be read");
		if (err.code == KT_E_NOMEM) {
			kt_rotate_not_written(keeper);
		}
		run_end(run);
		return;
	}
	if (over) {
		run->task.state = KT_TASK_SUPERSEDED;
		run->task.next_try = 0;
		settle(run, NULL, NULL, NULL);
		return;
	}
	if (must_wait(run)) {
		return;
	}
	run->looks_first = may_have_it(run);
	if (run->looks_first) {
		run->task.state = KT_TASK_NOTIFIED;
		run->task.step = 0;
	} else if (run->task.state == KT_TASK_PENDING && run->task.step >= kt_prove_steps(run)) {
		run->task.step = kt_prove_steps(run) - 1;
		succeed(run); /* nobody is to be told */
		return;
	}
	if ((run->task.state == KT_TASK_PENDING ? kt_prove_notify(run, &err) : kt_prove_look(run, &err)) != KT_OK) {
		kt_task_done(run, &err, err.code == KT_E_MISMATCH && run->wrong_answer);
	}
}

void kt_tasks_run(struct kt_keeper *keeper)
{
	int64_t ids[RUNS_MAX * 2];
	size_t count = sizeof(ids) / sizeof(ids[0]);
	unsigned failures = keeper->commit_failures;
	struct kt_err err;
	size_t i;

	keeper->tasks_looked_at = kt_keeper_now(keeper);
	if (keeper->ending || keeper->draining || keeper->task_count >= RUNS_MAX) {
		return;
	}
	kt_err_clear(&err);
	if (kt_store_task_due(keeper->store, keeper->tasks_looked_at, ids, &count, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "due tasks can't be read");
		kt_rotate_not_written(keeper);
		return;
	}
	for (i = 0; i < count && keeper->task_count < RUNS_MAX && keeper->commit_failures == failures; i++) {
		if (find_run(keeper, ids[i]) == NULL) {
			start(keeper, ids[i]);
		}
	}
}

/* --- waiting ------------------------------------------------------------------------------------------------------- */

struct stuck {
	kt_ms now;
	bool found;
};

/* Late, or waiting for a window; one that is due is looked at in a moment: its window may have opened, its Consumer be gone. */
static bool is_stuck(const struct kt_store_task *task, kt_ms now)
{
	return cookie_is(task, LATE) || (cookie_is(task, WINDOW) && task->next_try > now);
}

static bool find_stuck(const struct kt_store_task *task, void *arg)
{
	struct stuck *stuck = arg;

	stuck->found = stuck->found || (is_open(task) && is_stuck(task, stuck->now));
	return !stuck->found;
}

/* Whether it is worth to wait for: not what is late or waits for its window, nor what stands in line behind that. */
static bool is_hopeful(struct kt_keeper *keeper, const struct kt_store_task *task)
{
	struct stuck stuck = {.now = kt_keeper_now(keeper)};

	if (!is_open(task) || is_stuck(task, stuck.now)) {
		return false;
	}
	if (cookie_is(task, TURN) || cookie_is(task, ASKED)) {
		(void)kt_store_task_each(keeper->store, task->material, TASKS_MAX, find_stuck, &stuck, NULL);
	}
	return !stuck.found;
}

enum kt_code kt_tasks_renew(struct kt_keeper *keeper, int64_t credential, bool whenever, struct kt_err *err)
{
	return kt_store_task_renew(keeper->store, credential, LATE, whenever ? ASKED : NULL, kt_keeper_now(keeper), err);
}

struct held {
	unsigned window, behind, other;
};

static bool find_held(const struct kt_store_task *task, void *arg)
{
	struct held *held = arg;

	held->window += is_open(task) && cookie_is(task, WINDOW);
	held->behind += is_open(task) && cookie_is(task, TURN);
	held->other += is_open(task) && !cookie_is(task, WINDOW) && !cookie_is(task, TURN);
	return true;
}

bool kt_tasks_held(struct kt_keeper *keeper, int64_t material)
{
	struct held held = {0};

	return kt_store_task_each(keeper->store, material, TASKS_MAX, find_held, &held, NULL) == KT_OK && held.window > 0 &&
	       held.other == 0;
}

enum kt_code kt_tasks_hurry(struct kt_keeper *keeper, int64_t credential, int64_t material, struct kt_err *err)
{
	struct held held = {0};
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code = kt_store_task_each(keeper->store, material, TASKS_MAX, find_held, &held, err);

	if (code != KT_OK || held.window == 0) {
		return code;
	}
	code = kt_store_begin(keeper->store, err);
	if (code == KT_OK) {
		code = kt_store_task_renew(keeper->store, credential, WINDOW, ASKED, now, err);
		if (code == KT_OK) {
			code = kt_store_task_renew(keeper->store, credential, TURN, ASKED, now, err);
		}
		code = kt_store_end(keeper->store, code, err);
	}
	kt_rotate_kick(keeper);
	return code;
}

bool kt_tasks_is_held(const struct kt_store_task *task)
{
	return is_open(task) && cookie_is(task, WINDOW);
}

bool kt_tasks_hopeful(struct kt_keeper *keeper, int64_t credential, kt_ms before)
{
	int64_t ids[512];
	size_t count = sizeof(ids) / sizeof(ids[0]);
	bool found = false;
	size_t i;

	for (const struct kt_task_run *run = keeper->tasks; run != NULL; run = run->next) {
		if ((credential == 0 || run->task.credential == credential) && is_hopeful(keeper, &run->task)) {
			return true;
		}
	}
	if (kt_store_task_due(keeper->store, before, ids, &count, NULL) != KT_OK) {
		return true; /* not known: asked again */
	}
	for (i = 0; i < count && !found; i++) {
		struct kt_store_task task;

		if (kt_store_task_get(keeper->store, ids[i], &task, NULL) == KT_OK) {
			found = (credential == 0 || task.credential == credential) && is_hopeful(keeper, &task);
			kt_store_task_finish(&task);
		}
	}
	return found; /* with hundreds of late ones in front the verdict is clear */
}

/* --- adding --------------------------------------------------------------------------------------------------------- */

struct find_task {
	int64_t consumer;
	int64_t id;
};

static bool same_consumer(const struct kt_store_task *task, void *arg)
{
	struct find_task *find = arg;

	find->id = task->consumer == find->consumer ? task->id : find->id;
	return find->id == 0;
}

static enum kt_code add_one(struct kt_flight *flight, int64_t consumer, kt_ms now, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_store_resource row;
	char name[520];
	struct find_task find = {.consumer = consumer};
	struct kt_store_task task = {.material = flight->material.id,
	                             .credential = flight->id,
	                             .consumer = consumer,
	                             .consumer_name = name,
	                             .state = KT_TASK_PENDING,
	                             .next_try = now,
	                             .created = now,
	                             .updated = now,
	                             .trace_id = flight->trace_id,
	                             .cookie = flight->rollback ? BACK : flight->redelivery ? AGAIN : NULL};
	enum kt_code code = kt_store_resource_get(store, consumer, &row, err);

	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(name, sizeof(name), "%s/%s", row.ns, row.name);
	kt_store_resource_finish(&row);
	/* Delivered again, or put back by a rollback: the task of this material begins anew. */
	code = kt_store_task_each(store, task.material, TASKS_MAX, same_consumer, &find, err);
	if (code != KT_OK) {
		return code;
	}
	if (find.id != 0) {
		task.id = find.id;
		return kt_store_task_put(store, &task, err);
	}
	return kt_store_task_insert(store, &task, err);
}

enum kt_code kt_tasks_add(struct kt_flight *flight, size_t *ret_count, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(flight->keeper);
	enum kt_code code = KT_OK;
	size_t i;

	*ret_count = 0;
	for (i = 0; i < flight->consumer_count && code == KT_OK; i++) {
		code = add_one(flight, flight->consumers[i], now, err);
		*ret_count += 1;
	}
	if (code == KT_OK && flight->cred.revision > 1) {
		code = kt_store_task_supersede(flight->keeper->store, flight->id, flight->material.id, NULL, err);
	}
	return code;
}
