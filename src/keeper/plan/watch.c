/* What to do about a watched credential, after it was looked at: a pure function, as the rest of the plan. */
#include <string.h>

#include "keeper/plan/plan.h"

#define READ_LEAST (1 * KT_MINUTE)
#define READ_MOST  (1 * KT_HOUR)
#define READ_PART  64 /* of the time left: so often a certificate that somebody else renews is looked at */

static void plan_state(const struct kt_plan_watch *watch, struct kt_plan_state *state)
{
	memset(state, 0, sizeof(*state));
	state->has_material = watch->not_after != 0;
	state->not_before = watch->not_before;
	state->not_after = watch->not_after;
	state->forced = watch->forced;
	state->failures = watch->failures;
	state->last_attempt = watch->last_attempt;
	state->last_code = watch->last_code;
	state->announced = watch->announced;
	state->cause_changed = watch->cause_changed;
	state->seed = watch->seed;
}

kt_ms kt_plan_watch_warn_at(const struct kt_plan_watch *watch)
{
	struct kt_plan_policy policy = watch->policy;
	kt_ms point;

	if (watch->not_after == 0) {
		return 0;
	}
	if (watch->warn_before > 0) {
		return watch->not_after - watch->warn_before;
	}
	policy.renewal_disabled = false;
	point = kt_plan_renewal_point(&policy, watch->not_before, watch->not_after, watch->seed);
	return point + (watch->not_after - point) / 2;
}

/* When the source is read again although nothing is to be done. */
static kt_ms next_read(const struct kt_plan_watch *watch, kt_ms warn_at, kt_ms now)
{
	kt_ms left = watch->not_after > now ? watch->not_after - now : READ_MOST * READ_PART;
	kt_ms span = left / READ_PART;
	kt_ms at = now + (span < READ_LEAST ? READ_LEAST : span > READ_MOST ? READ_MOST : span);

	at = warn_at > now && warn_at < at ? warn_at : at;
	return watch->not_after > now && watch->not_after < at ? watch->not_after : at;
}

static void decide_idle(const struct kt_plan_watch *watch, kt_ms now, struct kt_plan_watch_next *ret)
{
	kt_ms read_at = next_read(watch, ret->warn_at, now);
	bool due;

	if (!watch->readable) { /* what can't be read is no reason to run anything, unless somebody wants it */
		ret->action = watch->forced && watch->has_command ? KT_WATCH_RUN : KT_WATCH_WAIT;
		ret->due_at = watch->announced > now ? watch->announced : now + READ_LEAST;
		return;
	}
	due = ret->plan.action == KT_PLAN_RENEW || ret->plan.action == KT_PLAN_REISSUE;
	if (due && watch->has_command) {
		ret->action = KT_WATCH_RUN;
		ret->due_at = now;
		return;
	}
	ret->action = KT_WATCH_WAIT;
	ret->due_at = watch->has_command && ret->plan.due_at > now && ret->plan.due_at < read_at ? ret->plan.due_at : read_at;
}

static void decide_proving(const struct kt_plan_watch *watch, kt_ms now, struct kt_plan_watch_next *ret)
{
	struct kt_plan_task task = {.prove = true,
	                            .started_at = watch->ended_at,
	                            .within = watch->within,
	                            .attempts = watch->looks,
	                            .last_attempt = now,
	                            .last_code = KT_E_LATER,
	                            .seed = watch->seed};
	struct kt_plan_task_next next;

	kt_plan_task_decide(&task, now, &next);
	ret->action = next.phase == KT_TASK_QUICK ? KT_WATCH_WAIT : KT_WATCH_LATE;
	ret->due_at = next.phase == KT_TASK_QUICK ? next.next_at : now;
}

void kt_plan_watch_decide(const struct kt_plan_watch *watch, kt_ms now, struct kt_plan_watch_next *ret)
{
	struct kt_plan_policy policy = watch->policy;
	struct kt_plan_state state;

	memset(ret, 0, sizeof(*ret));
	policy.renewal_disabled = !watch->has_command;
	plan_state(watch, &state);
	kt_plan_decide(&policy, &state, now, &ret->plan);
	ret->warn_at = kt_plan_watch_warn_at(watch);
	ret->warn = watch->not_after != 0 && now >= ret->warn_at;
	if (watch->phase != KT_WATCH_IDLE && watch->readable && watch->not_after > watch->was_not_after) {
		ret->action = KT_WATCH_PROVED;
		ret->due_at = now;
	} else if (watch->phase == KT_WATCH_RENEWING) { /* nobody knows whether it ran to its end */
		ret->action = watch->has_command ? KT_WATCH_RUN : KT_WATCH_LATE;
		ret->due_at = now;
	} else if (watch->phase == KT_WATCH_PROVING) {
		decide_proving(watch, now, ret);
	} else {
		decide_idle(watch, now, ret);
	}
}

kt_ms kt_plan_watch_retry(const struct kt_plan_watch *watch, enum kt_code code, bool ran, kt_ms now)
{
	/* A command that asks somebody for a credential is not run every few seconds, whatever it failed of. */
	const struct kt_plan_retry *row = kt_plan_retry_find(ran ? KT_E_PROTO : code, NULL);
	kt_ms left = watch->not_after == 0 ? KT_TIME_MAX : watch->not_after > now ? watch->not_after - now : 0;
	kt_ms wait;

	if (!ran && (row->needs_change || row->cap > READ_MOST)) { /* a look costs nothing */
		row = kt_plan_retry_find(KT_E_PROTO, NULL);
	}
	wait = kt_plan_retry_delay(row, watch->failures, 0, left, watch->seed ^ (uint64_t)now);
	return now + wait;
}
