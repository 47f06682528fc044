/* The rounds: due credentials become flights, database parts share a transaction, effects follow the commit. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/flight.h"
#include "keeper/share.h"
#include "keeper/watch/watched.h"

#define ROUNDS_IN_A_ROW  16u           /* before the loop gets its turn */
#define PASS_OVER_MAX    512u          /* due at once, for those that a command does not name to be left alone */
#define COMMIT_RETRY_MIN (1 * KT_SECOND)
#define COMMIT_RETRY_MAX (60 * KT_SECOND)
#define DUE_LONGEST      KT_DAY
#define CROWD            32u /* flights */
#define LOOK_PAUSE       100 /* ms between two looks that nothing but the time asks for */

static void plan_round(struct kt_keeper *keeper, kt_ms delay)
{
	if (!keeper->round_planned || delay > 0) {
		keeper->round_planned = true;
		kt_timer_start(keeper->round_timer, delay);
	}
}

/* A round without a look at what is due. */
static void go_on(struct kt_keeper *keeper)
{
	if (!keeper->ending && keeper->rotating && keeper->round_timer != NULL) {
		plan_round(keeper, 0);
	}
}

void kt_rotate_kick(struct kt_keeper *keeper)
{
	keeper->look = true;
	go_on(keeper);
}

/* --- which flights there are ------------------------------------------------------------------------------------------ */

/* Where a flight's effect has ended or none has begun it is among the ready ones; rounds look at no others. */
static void set_ready(struct kt_flight *flight)
{
	struct kt_keeper *keeper = flight->keeper;

	flight->waiting = false;
	if (!flight->queued) {
		flight->queued = true;
		flight->next_ready = NULL;
		*(keeper->ready_last != NULL ? &keeper->ready_last->next_ready : &keeper->ready) = flight;
		keeper->ready_last = flight;
	}
}

static void add_flight(struct kt_keeper *keeper, struct kt_flight *flight)
{
	struct kt_flight **bucket = &keeper->by_id[(uint64_t)flight->id % KT_FLIGHTS_MAX];

	flight->next_by_id = *bucket;
	*bucket = flight;
	flight->previous = keeper->last_flight;
	*(keeper->last_flight != NULL ? &keeper->last_flight->next : &keeper->flights) = flight;
	keeper->last_flight = flight;
	keeper->flight_count++;
	kt_share_join(flight);
	set_ready(flight);
}

/* It is off the list of ready ones already. */
static void remove_flight(struct kt_flight *flight)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_flight **at = &keeper->by_id[(uint64_t)flight->id % KT_FLIGHTS_MAX];

	while (*at != flight) {
		at = &(*at)->next_by_id;
	}
	*at = flight->next_by_id;
	*(flight->previous != NULL ? &flight->previous->next : &keeper->flights) = flight->next;
	*(flight->next != NULL ? &flight->next->previous : &keeper->last_flight) = flight->previous;
	keeper->flight_count--;
	kt_share_leave(flight);
	kt_flight_destroy(flight);
}

struct kt_flight *kt_rotate_find(struct kt_keeper *keeper, int64_t id)
{
	struct kt_flight *flight = keeper->by_id[(uint64_t)id % KT_FLIGHTS_MAX];

	while (flight != NULL && flight->id != id) {
		flight = flight->next_by_id;
	}
	return flight;
}

/* --- jobs of the courier ------------------------------------------------------------------------------------------------ */

static struct kt_flight **job_bucket(struct kt_keeper *keeper, uint64_t job)
{
	return &keeper->by_job[job % KT_FLIGHTS_MAX];
}

void kt_rotate_begin_job(struct kt_flight *flight)
{
	struct kt_flight **bucket;

	kt_rotate_end_job(flight, false);
	flight->job = ++flight->keeper->next_job;
	bucket = job_bucket(flight->keeper, flight->job);
	flight->next_by_job = *bucket;
	*bucket = flight;
}

struct kt_flight *kt_rotate_find_job(struct kt_keeper *keeper, uint64_t job)
{
	struct kt_flight *flight = job == 0 ? NULL : *job_bucket(keeper, job);

	while (flight != NULL && flight->job != job) {
		flight = flight->next_by_job;
	}
	return flight;
}

void kt_rotate_end_job(struct kt_flight *flight, bool running)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_flight **at = job_bucket(keeper, flight->job);
	struct kt_msg_cancel msg = {flight->job};

	if (flight->job == 0) {
		return;
	}
	while (*at != flight) {
		at = &(*at)->next_by_job;
	}
	*at = flight->next_by_job;
	flight->job = 0;
	kt_answers_withdraw(keeper, msg.job);
	if (running && kt_wire_attached(keeper->courier)) {
		(void)kt_wire_notice(keeper->courier, KT_CANCEL, &msg, NULL, 0, NULL);
	}
}

/* Another flight than this one, of the secret "namespace/name". */
static struct kt_flight *find_secret(const struct kt_flight *flight, const char *wanted)
{
	struct kt_flight *other;
	char name[520];

	for (other = flight->keeper->flights; other != NULL && wanted[0] != '\0'; other = other->next) {
		(void)snprintf(name, sizeof(name), "%s/%s", other->resource.ns, other->secret_name);
		if (other != flight && strcmp(name, wanted) == 0) {
			return other;
		}
	}
	return NULL;
}

bool kt_rotate_wait_for(struct kt_flight *flight)
{
	struct kt_flight *other = find_secret(flight, flight->waiting_for);
	const struct kt_flight *last = other;
	char own[520];
	size_t hops;

	(void)snprintf(own, sizeof(own), "%s/%s", flight->resource.ns, flight->secret_name);
	for (hops = 0; last != NULL && last->waiting && hops <= flight->keeper->flight_count; hops++) {
		if (strcmp(last->waiting_for, own) == 0) { /* it waits for this one: both would for ever */
			return false;
		}
		last = find_secret(last, last->waiting_for);
	}
	if (other != NULL) {
		flight->waiting = true;
		flight->again = true;
	}
	return other != NULL;
}

void kt_rotate_release(struct kt_flight *of)
{
	struct kt_flight *flight;
	char name[520];

	if (!of->keeper->tokens_depend && (of->spec->kind != KT_RES_CERTIFICATE || !of->spec->certificate.is_ca)) {
		return;
	}
	(void)snprintf(name, sizeof(name), "%s/%s", of->resource.ns, of->secret_name);
	for (flight = of->keeper->flights; flight != NULL; flight = flight->next) {
		if (flight->waiting && strcmp(name, flight->waiting_for) == 0) {
			flight->waiting_for[0] = '\0';
			set_ready(flight);
		}
	}
}

void kt_rotate_wake(struct kt_flight *flight, const struct kt_err *err)
{
	if (err != NULL && err->code != KT_OK) {
		flight->failed = true;
		flight->err = *err;
	}
	set_ready(flight);
	go_on(flight->keeper);
}

/*
 * The next batch of due ids. Asking costs as much as there is due, so a large batch is kept and used up; what becomes
 * due meanwhile is seen with the next one.
 */
static bool refill(struct kt_keeper *keeper, struct kt_err *err)
{
	size_t count = KT_DUE_BATCH;

	if (keeper->due == NULL) {
		keeper->due = kt_calloc(KT_DUE_BATCH, sizeof(*keeper->due));
	}
	if (keeper->due == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "no memory for what is due");
		return false;
	}
	keeper->due_at = keeper->due_count = 0;
	keeper->passed_over = false;
	keeper->looked_at = kt_keeper_now(keeper);
	if (kt_share_due(keeper, keeper->due, &count, err) != KT_OK) {
		return false;
	}
	keeper->due_count = count;
	return true;
}

/* One that can't be taken in stays due, and nothing else may come up that would have us look at it again. */
static void look_again(struct kt_keeper *keeper, const struct kt_err *err)
{
	kt_ms at = kt_keeper_now(keeper) + (err->code == KT_E_NOMEM ? KT_SECOND : KT_MINUTE);

	keeper->look_again = keeper->look_again == 0 || at < keeper->look_again ? at : keeper->look_again;
}

static bool has_place(const struct kt_keeper *keeper)
{
	return keeper->flight_count < KT_FLIGHTS_MAX && (keeper->flights == NULL || !keeper->flights->alone);
}

enum taking {
	TAKING_ON,
	TAKING_LATER,   /* this one flies alone, when the others have ended */
	TAKING_CROWDED, /* its issuer has had its share: others are to be looked for */
};

static enum taking take_in(struct kt_keeper *keeper, int64_t id)
{
	struct kt_flight *flight;
	struct kt_err err;
	bool crowded;

	kt_err_clear(&err);
	if (kt_rotate_find(keeper, id) != NULL) {
		return TAKING_ON;
	}
	if (kt_flight_create(keeper, id, &flight, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "a credential can't be worked on");
		look_again(keeper, &err);
		return TAKING_ON;
	}
	if (flight->cred.kind == KT_KIND_WATCH) { /* it does not fly */
		kt_flight_destroy(flight);
		kt_watched_start(keeper, id);
		return TAKING_ON;
	}
	/* They stay due and come again with each batch: so only where that holds all there are, and not too many. */
	if (keeper->due_count < PASS_OVER_MAX && kt_admin_passes_over(keeper, flight)) {
		kt_flight_destroy(flight);
		keeper->passed_over = true;
		return TAKING_ON;
	}
	flight->alone = kt_flight_deaths(flight) >= KT_DEATHS_ALONE;
	if (flight->alone && keeper->flight_count > 0) {
		kt_flight_destroy(flight);
		return TAKING_LATER;
	}
	if (kt_share_holds(flight, &crowded)) {
		kt_flight_destroy(flight);
		keeper->passed_over = true;
		return crowded ? TAKING_CROWDED : TAKING_ON;
	}
	add_flight(keeper, flight);
	return TAKING_ON;
}

/* Those that waited for their issuer to have room. */
static enum taking take_waiting(struct kt_keeper *keeper)
{
	struct kt_share *share;
	int64_t id;

	while (has_place(keeper) && kt_share_next(keeper, &share, &id)) {
		if (take_in(keeper, id) == TAKING_LATER) {
			share->at--;
			return TAKING_LATER;
		}
	}
	return TAKING_ON;
}

static enum taking take_batch(struct kt_keeper *keeper)
{
	enum taking taking = TAKING_ON;

	while (taking == TAKING_ON && keeper->due_at < keeper->due_count && has_place(keeper)) {
		taking = take_in(keeper, keeper->due[keeper->due_at++]);
	}
	if (taking == TAKING_LATER) {
		keeper->due_at--;
	} else if (taking == TAKING_CROWDED) { /* the rest may be that issuer's alone */
		keeper->due_at = keeper->due_count;
		keeper->look = true;
	}
	return taking;
}

/* Takes due credentials in, the soonest to expire first, each issuer's up to its share. */
static enum kt_code collect(struct kt_keeper *keeper, struct kt_err *err)
{
	kt_ms since = kt_clock_mono(keeper->clock);
	unsigned batches = 0;

	if (keeper->draining || !has_place(keeper) || take_waiting(keeper) == TAKING_LATER) {
		return KT_OK;
	}
	while (has_place(keeper) && batches <= KT_DUE_BUT_MAX) {
		if (keeper->due_at == keeper->due_count) {
			if (!keeper->look || (batches == 0 && kt_share_too_soon(keeper))) {
				break;
			}
			if (!refill(keeper, err)) {
				return err->code;
			}
			keeper->look = keeper->due_count == KT_DUE_BATCH;
			batches++;
		}
		if (take_batch(keeper) == TAKING_LATER) {
			break;
		}
	}
	if (batches > 0) {
		kt_share_looked(keeper, since);
	}
	kt_share_drop(keeper, false);
	return KT_OK;
}

static bool ready(const struct kt_flight *flight)
{
	return !flight->waiting && flight->stage != KT_FLIGHT_END;
}

static bool any_ready(const struct kt_keeper *keeper)
{
	const struct kt_flight *flight;

	for (flight = keeper->ready; flight != NULL; flight = flight->next_ready) {
		if (ready(flight)) {
			return true;
		}
	}
	return false;
}

/* Removes flights: those that ended, or (after a failed commit) all that are ready: memory is ahead of the store then. */
static void sweep_flights(struct kt_keeper *keeper, bool all_ready)
{
	struct kt_flight *flight = keeper->ready;
	struct kt_flight *left;
	kt_ms now = kt_keeper_now(keeper);
	bool freed = false;

	keeper->ready = keeper->ready_last = NULL;
	while (flight != NULL) {
		struct kt_flight *next = flight->next_ready;

		flight->queued = false;
		if (flight->stage == KT_FLIGHT_END || (all_ready && ready(flight))) {
			kt_rotate_release(flight); /* whoever waits for it looks again, and fails by itself if need be */
			keeper->dates_changed = true;
			/* In a crowd asking what is due is dear, so there an end asks only where it leaves something due. */
			keeper->look = keeper->look || keeper->passed_over || all_ready || keeper->flight_count <= CROWD ||
			               (flight->cred.due_at != 0 && flight->cred.due_at <= now);
			freed = freed || flight->holds_volume;
			remove_flight(flight);
		} else if (!flight->waiting) {
			set_ready(flight);
		}
		flight = next;
	}
	for (left = keeper->flights; left != NULL && freed; left = left->next) {
		if (left->waits_volume) { /* its turn has come, or it looks again */
			left->waits_volume = false;
			set_ready(left);
		}
	}
}

/* Whether what the flight was begun for is still what is wanted, by the newest manifests. */
static bool is_wanted(const struct kt_flight *flight)
{
	struct kt_store_resource now = {0};
	struct kt_store_resource issuer = {0};
	struct kt_store *store = flight->keeper->store;
	bool same = kt_store_resource_get(store, flight->id, &now, NULL) == KT_OK && !now.gone &&
	            strcmp(now.request_key, flight->resource.request_key) == 0;

	if (same && flight->issuer != NULL) {
		same = kt_store_resource_get(store, flight->issuer->id, &issuer, NULL) == KT_OK && !issuer.gone &&
		       issuer.generation == flight->issuer->generation;
	}
	kt_store_resource_finish(&now);
	kt_store_resource_finish(&issuer);
	return same;
}

void kt_rotate_reconsider(struct kt_keeper *keeper)
{
	struct kt_flight *flight;

	for (flight = keeper->flights; flight != NULL; flight = flight->next) {
		if (flight->job != 0 && flight->waiting && !is_wanted(flight)) { /* what needs nobody else is over in a moment */
			set_ready(flight);
			flight->stage = KT_FLIGHT_END;
		}
	}
	sweep_flights(keeper, false);
}

static enum kt_code commit_all(struct kt_keeper *keeper, struct kt_err *err)
{
	struct kt_flight *flight;
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	for (flight = keeper->ready; flight != NULL && code == KT_OK; flight = flight->next_ready) {
		if (!ready(flight)) {
			continue;
		}
		code = flight->failed ? kt_flight_fail(flight, err) : kt_flight_commit(flight, err);
	}
	return kt_store_end(keeper->store, code, err);
}

/* Of those up to `last`: what becomes ready meanwhile is committed first. */
static void run_effects(struct kt_keeper *keeper, const struct kt_flight *last)
{
	struct kt_flight *flight;
	bool more = true;

	for (flight = keeper->ready; flight != NULL && more; flight = flight->next_ready) {
		uint64_t failures = kt_mem_failures();
		struct kt_err err;
		enum kt_effect effect;

		more = flight != last;
		if (!ready(flight)) {
			continue;
		}
		kt_err_clear(&err);
		flight->waiting = true; /* so that an answer that comes at once is not lost */
		effect = kt_flight_effect(flight, &err);
		if (effect == KT_EFFECT_FAILED && err.code != KT_E_NOMEM && kt_mem_failures() != failures) {
			/* No verdict on anything: what was looked at may have been incomplete. */
			(void)kt_err_prefix(&err, "out of memory");
			err.code = KT_E_NOMEM;
		}
		if (effect == KT_EFFECT_PENDING || (effect == KT_EFFECT_FAILED && kt_rotate_wait_for(flight))) {
			continue;
		}
		flight->waiting = false;
		if (effect == KT_EFFECT_FAILED) {
			flight->failed = true;
			flight->err = err;
		}
	}
}

/* Sleeps until the next credential is due: also one that came due after the last look, however little. */
static void arm_due(struct kt_keeper *keeper)
{
	kt_ms now = kt_keeper_now(keeper);
	kt_ms seen = keeper->look || keeper->looked_at > now ? now : keeper->looked_at;
	kt_ms tasks_seen = keeper->tasks_looked_at > now ? now : keeper->tasks_looked_at;
	kt_ms next = 0;
	kt_ms task = 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_store_cred_next_due(keeper->store, seen, &next, &err) != KT_OK ||
	    kt_store_task_next_due(keeper->store, tasks_seen, &task, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the next due time can't be read");
		next = now + KT_MINUTE;
	}
	if (next != 0 && next <= now) {
		next = seen + LOOK_PAUSE;
	}
	if (task != 0 && task <= now) {
		task = tasks_seen + LOOK_PAUSE;
	}
	if (task != 0 && (next == 0 || task < next)) {
		next = task;
	}
	if (next == 0 || next > now + DUE_LONGEST) {
		next = now + DUE_LONGEST;
	}
	if (keeper->look_again != 0 && keeper->look_again < next) {
		next = keeper->look_again;
	}
	kt_wall_timer_start(keeper->due_timer, next);
}

/* Nothing goes on before the delay is over: kicks are ignored while a round is planned. */
void kt_rotate_not_written(struct kt_keeper *keeper)
{
	keeper->commit_failures++;
	keeper->commit_delay = keeper->commit_delay == 0 ? COMMIT_RETRY_MIN : keeper->commit_delay * 2;
	if (keeper->commit_delay > COMMIT_RETRY_MAX) {
		keeper->commit_delay = COMMIT_RETRY_MAX;
	}
	plan_round(keeper, keeper->commit_delay);
}

static void commit_failed(struct kt_keeper *keeper, const struct kt_err *err)
{
	kt_log_err(KT_LOG_ERROR, err, "the state can't be written: nothing goes on until it can");
	sweep_flights(keeper, true);
	kt_issuers_drop(keeper, true);
	kt_rotate_not_written(keeper);
	kt_admin_progress(keeper);
}

static void rounds(struct kt_keeper *keeper)
{
	unsigned failures = keeper->commit_failures;
	bool looked = false;
	unsigned turn;

	keeper->look_again = 0;
	for (turn = 0; turn < ROUNDS_IN_A_ROW; turn++) {
		const struct kt_flight *last;
		struct kt_err err;

		kt_err_clear(&err);
		looked = looked || keeper->look;
		if (collect(keeper, &err) != KT_OK) {
			kt_log_err(KT_LOG_ERROR, &err, "due credentials can't be read");
			kt_rotate_not_written(keeper);
			kt_admin_progress(keeper);
			return;
		}
		if (!any_ready(keeper)) {
			break;
		}
		last = keeper->ready_last;
		if (commit_all(keeper, &err) != KT_OK) {
			commit_failed(keeper, &err);
			return;
		}
		keeper->commit_delay = 0;
		run_effects(keeper, last);
		sweep_flights(keeper, false);
	}
	kt_tasks_run(keeper);
	if (keeper->commit_failures == failures && keeper->flight_count == 0 && keeper->task_count == 0) {
		keeper->commit_delay = 0; /* nothing is left that could not be written */
	}
	if (any_ready(keeper) || turn == ROUNDS_IN_A_ROW) {
		plan_round(keeper, 0);
	}
	if (looked || keeper->look || keeper->dates_changed) { /* an answer alone changes no date */
		keeper->dates_changed = false;
		arm_due(keeper);
	}
	kt_admin_progress(keeper);
	kt_timer_start(keeper->trim_timer, 5 * KT_SECOND);
}

static void on_round(void *arg)
{
	struct kt_keeper *keeper = arg;

	keeper->round_planned = false;
	if (!keeper->ending) {
		rounds(keeper);
	}
}

static void on_due(bool clock_changed, void *arg)
{
	struct kt_keeper *keeper = arg;

	if (clock_changed) {
		kt_log(KT_LOG_WARN, "the clock was set or the machine slept: looking at what is due again");
	}
	kt_rotate_kick(keeper);
	arm_due(keeper);
}

/* After a burst: memory goes back to the system. */
static void on_trim(void *arg)
{
	struct kt_keeper *keeper = arg;

	if (keeper->flight_count == 0) {
		kt_issuers_drop(keeper, false);
		kt_free(keeper->due);
		keeper->due = NULL;
		keeper->due_at = keeper->due_count = 0;
		kt_effect_drop_stash(keeper);
		kt_store_trim(keeper->store);
		kt_mem_trim();
	}
}

enum kt_code kt_rotate_start(struct kt_keeper *keeper, struct kt_err *err)
{
	enum kt_code code = kt_timer_create(keeper->loop, on_round, keeper, &keeper->round_timer, err);

	if (code == KT_OK) {
		code = kt_wall_timer_create(keeper->loop, on_due, keeper, &keeper->due_timer, err);
	}
	if (code == KT_OK) {
		code = kt_timer_create(keeper->loop, on_trim, keeper, &keeper->trim_timer, err);
	}
	return code;
}

void kt_rotate_go(struct kt_keeper *keeper)
{
	keeper->rotating = true;
	kt_sweep_go(keeper);
	kt_renewal_info_go(keeper);
	kt_answers_go(keeper);
	kt_rotate_kick(keeper);
}

void kt_rotate_finish(struct kt_keeper *keeper)
{
	keeper->ending = true;
	keeper->ready = keeper->ready_last = NULL;
	while (keeper->flights != NULL) {
		remove_flight(keeper->flights);
	}
	kt_share_drop(keeper, true);
	kt_free(keeper->due);
	keeper->due = NULL;
	kt_effect_drop_stash(keeper);
	kt_timer_destroy(keeper->round_timer);
	kt_timer_destroy(keeper->trim_timer);
	kt_wall_timer_destroy(keeper->due_timer);
	keeper->round_timer = NULL;
	keeper->due_timer = NULL;
	keeper->trim_timer = NULL;
}
