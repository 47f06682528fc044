/* The decision: what is due for one credential, when, and for which reason. */
#include "keeper/plan/plan_internal.h"

/* How far a certificate may begin in the future before a clock must be wrong. */
#define CLOCK_SLACK (5 * KT_MINUTE)
/* A server whose tokens have ended when they come is not asked without a pause. */
#define TOKEN_PAUSE (1 * KT_SECOND)
/* How often an issuer that is not ready is looked at without being told. */
#define NOT_READY_POLL (5 * KT_MINUTE)

/* The life of the material, bounded. */
struct life {
	kt_ms start, end;
};

static struct life life_of(const struct kt_plan_state *state)
{
	struct life life = {kt_plan_bound(state->not_before), kt_plan_bound(state->not_after)};
	kt_ms issued = kt_plan_bound(state->issued_at);

	/* Backdating is for other people's clocks; the life that we have to divide begins when we got it. */
	if (issued > life.start && issued < life.end)
		life.start = issued;
	return life;
}

/*
 * Whether it was made by a clock that is ahead of the one we have now. A token's end was reckoned by ours, so that a clock
 * that was set back a little makes a short one live too long.
 */
static bool is_from_the_future(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now)
{
	kt_ms from = kt_plan_bound(state->not_before), issued = kt_plan_bound(state->issued_at), slack = CLOCK_SLACK;

	if (policy->kind == KT_PLAN_TOKEN)
		slack = kt_plan_max(KT_SECOND, kt_plan_min(slack, (kt_plan_bound(state->not_after) - from) / 10));
	return from > kt_plan_add(now, slack) && issued > kt_plan_add(now, slack);
}

/* Bits of state that make the material unfit, the worst first. */
static enum kt_plan_reason reissue_reason(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now)
{
	if (state->revoked)
		return KT_WHY_REVOKED;
	if (state->material_corrupt)
		return KT_WHY_CORRUPT;
	if (state->key_mismatch)
		return KT_WHY_KEY_MISMATCH;
	if (state->request_changed)
		return KT_WHY_REQUEST_CHANGED;
	if (state->issuer_changed)
		return KT_WHY_ISSUER_CHANGED;
	if (state->binding_changed)
		return KT_WHY_BINDING_CHANGED;
	if (state->secret_deleted)
		return KT_WHY_SECRET_DELETED;
	if (state->forced)
		return KT_WHY_FORCED;
	if (state->refused)
		return KT_WHY_REFUSED;
	/* Made while our clock was ahead: valid only when that time has come. (Where the issuer's clock is the one that
	 * is ahead, another one would not be better: that is waited for.) */
	if (is_from_the_future(policy, state, now))
		return KT_WHY_CLOCK;
	return KT_WHY_NOT_DUE;
}

/* What is due by itself, before backoff, windows and flights have their say: action, reason, act_at. */
static void decide_cause(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                         struct kt_plan *ret)
{
	kt_ms end = kt_plan_bound(state->not_after);

	ret->act_at = now;
	if (!state->has_material) {
		ret->action = KT_PLAN_ISSUE;
		ret->reason = KT_WHY_NEVER_ISSUED;
		return;
	}
	ret->reason = reissue_reason(policy, state, now);
	if (ret->reason != KT_WHY_NOT_DUE) {
		ret->action = KT_PLAN_REISSUE;
		ret->new_key = ret->reason == KT_WHY_KEY_MISMATCH || ret->reason == KT_WHY_REVOKED ||
		               ret->reason == KT_WHY_CORRUPT;
		return;
	}
	ret->action = KT_PLAN_RENEW;
	if (policy->renewal_disabled) {
		ret->action = KT_PLAN_NONE;
		ret->reason = KT_WHY_DISABLED;
		ret->act_at = KT_TIME_MAX;
	} else if (now >= end && policy->kind == KT_PLAN_TOKEN && now < kt_plan_add(state->issued_at, TOKEN_PAUSE)) {
		ret->action = KT_PLAN_WAIT;
		ret->reason = KT_WHY_EXPIRED;
		ret->act_at = kt_plan_add(state->issued_at, TOKEN_PAUSE);
	} else if (now >= end) {
		ret->reason = KT_WHY_EXPIRED;
	} else if (now >= ret->renew_at) {
		ret->reason = ret->by_info ? KT_WHY_RENEWAL_INFO : KT_WHY_RENEWAL_POINT;
	} else {
		ret->action = KT_PLAN_WAIT;
		ret->act_at = ret->renew_at;
		if (kt_plan_bound(state->not_before) > kt_plan_add(now, CLOCK_SLACK)) {
			ret->reason = KT_WHY_CLOCK;
			ret->alarm = true;
		}
	}
}

/* When the next try after a failure may be made. A clock that was set back far must not freeze it. */
static kt_ms after_failure(kt_ms last, kt_ms delay, kt_ms now)
{
	last = kt_plan_bound(last);
	if (last > kt_plan_add(now, delay))
		return now;
	return kt_plan_add(last, delay);
}

static kt_ms retry_at(const struct kt_plan_state *state, kt_ms now, const struct kt_plan_retry **ret_row)
{
	kt_ms left = KT_TIME_MAX, last = kt_plan_bound(state->last_attempt);

	*ret_row = NULL;
	if (state->failures == 0 || state->cause_changed)
		return -KT_TIME_MAX;
	*ret_row = kt_plan_retry_find(state->last_code, state->last_problem);
	if (state->announced > last) /* what was told is what counts: jitter is not drawn twice */
		return after_failure(last, kt_plan_bound(state->announced) - last, now);
	if (state->has_material)
		left = kt_plan_bound(state->not_after) - last;
	return after_failure(
	        last, kt_plan_retry_delay(*ret_row, state->failures, state->retry_after_s, left, state->seed), now);
}

static bool is_work(enum kt_plan_action action)
{
	return action == KT_PLAN_ISSUE || action == KT_PLAN_RENEW || action == KT_PLAN_REISSUE ||
	       action == KT_PLAN_RESUME;
}

/* Puts work off until `at`, for `reason`; what is due at all is kept in pending. */
static void put_off(struct kt_plan *ret, kt_ms at, enum kt_plan_reason reason)
{
	ret->action = KT_PLAN_WAIT;
	ret->reason = reason;
	ret->act_at = at;
}

/*
 * Windows hold renewals back, nothing else. Not where the next one opens so late that the certificate would end before
 * it or in it: then the hard floor counts.
 */
static void apply_windows(const struct kt_plan_policy *policy, const struct kt_plan_state *state, struct life life,
                          kt_ms now, kt_ms retry, struct kt_plan *ret)
{
	kt_ms ready = kt_plan_max(ret->renew_at, retry), last, opens, end;

	if (policy->window_count == 0 || (ret->pending != KT_WHY_RENEWAL_POINT && ret->pending != KT_WHY_RENEWAL_INFO &&
	                                  ret->pending != KT_WHY_NOT_DUE))
		return;
	last = life.end - kt_plan_min((life.end - life.start) / 20, 6 * KT_HOUR);
	/* The CA may revoke it when its own window is over. */
	if (ret->by_info)
		last = kt_plan_min(last, kt_plan_max(ret->renew_at, kt_plan_bound(state->ari_end)));
	opens = kt_plan_window_next(policy->windows, policy->window_count, ready, &end);
	/* What waits for a window does not all begin in its first second. */
	if (opens > ready)
		opens = kt_plan_min(kt_plan_add(opens, kt_plan_jitter(state->seed, KT_SALT_WINDOW,
		                                                     kt_plan_min((end - opens) / 4, 10 * KT_MINUTE))),
		                    KT_TIME_MAX);
	if (opens < now)
		opens = kt_plan_window_next(policy->windows, policy->window_count, now, NULL);
	if (opens > last)
		opens = kt_plan_max(kt_plan_max(ret->by_info ? ready : ret->alarm_at, ready), ret->renew_at);
	if (opens > now && opens > ret->act_at)
		put_off(ret, opens, ret->pending == KT_WHY_NOT_DUE ? KT_WHY_NOT_DUE : KT_WHY_WINDOW);
	else if (opens <= now && ret->action == KT_PLAN_RENEW &&
	         kt_plan_window_next(policy->windows, policy->window_count, now, NULL) > now)
		ret->reason = ret->pending = KT_WHY_FLOOR;
}

/*
 * When the flight's new key may be used: servers that read the set just before it was in there have it read anew by then. Now,
 * where there was no key before, or where the clock was set back (the flight counts from now, then).
 */
static kt_ms usable_at(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now)
{
	kt_ms shown = kt_plan_bound(state->shown_at);

	return state->has_material && shown > 0 && shown <= now ? kt_plan_add(shown, policy->publish_ahead) : now;
}

/* Backoff, an issuer that is not ready, and windows. */
static void apply_obstacles(const struct kt_plan_policy *policy, const struct kt_plan_state *state, struct life life,
                            kt_ms now, struct kt_plan *ret)
{
	const struct kt_plan_retry *row;
	kt_ms retry = retry_at(state, now, &row);

	if (row && row->alarm)
		ret->alarm = true;
	if (is_work(ret->action) && retry > now)
		put_off(ret, retry, row->needs_change ? KT_WHY_NEEDS_CHANGE : KT_WHY_BACKOFF);
	if (is_work(ret->action) && ret->action != KT_PLAN_RESUME && state->not_ready)
		put_off(ret, kt_plan_add(now, NOT_READY_POLL), KT_WHY_ISSUER_NOT_READY);
	if (ret->action == KT_PLAN_RESUME && usable_at(policy, state, now) > now)
		put_off(ret, usable_at(policy, state, now), KT_WHY_SHOWN);
	/* An order that is placed goes on: it is counted already. Whoever sets limit_at knows of that. */
	if (is_work(ret->action) && kt_plan_bound(state->limit_at) > now)
		put_off(ret, kt_plan_add(state->limit_at, kt_plan_jitter(state->seed, KT_SALT_LIMIT, state->limit_spread)), KT_WHY_LIMIT);
	if (ret->reason != KT_WHY_CLOCK && ret->reason != KT_WHY_ISSUER_NOT_READY && ret->reason != KT_WHY_LIMIT)
		apply_windows(policy, state, life, now, retry, ret);
}

/* Files that are gone or wrong are written again from what the store has, whatever else is waited for. */
static void apply_disk(const struct kt_plan_state *state, struct life life, kt_ms now, struct kt_plan *ret)
{
	kt_ms at = now;
	bool usable = state->has_material && now < life.end && !state->revoked && !state->material_corrupt &&
	              !state->key_mismatch && !state->secret_deleted;

	if (!usable || state->disk == KT_PLAN_DISK_OK || state->disk == KT_PLAN_DISK_UNKNOWN)
		return;
	if (state->deliver_failures) {
		const struct kt_plan_retry *row = kt_plan_retry_find(state->deliver_code, NULL);
		kt_ms left = life.end - kt_plan_bound(state->deliver_last);

		at = after_failure(state->deliver_last,
		                   kt_plan_retry_delay(row, state->deliver_failures, 0, left, state->seed), now);
		ret->alarm = ret->alarm || row->alarm;
	}
	if (at <= now) {
		/* First: it takes a moment, and issuing may take days. */
		ret->action = KT_PLAN_REDELIVER;
		ret->reason = KT_WHY_DRIFT;
		ret->pending = KT_WHY_DRIFT;
		ret->act_at = now;
	} else if (!is_work(ret->action) && at < ret->act_at) {
		put_off(ret, at, KT_WHY_BACKOFF);
		ret->pending = KT_WHY_DRIFT;
	}
}

/* The three moments of a life. */
static void set_moments(const struct kt_plan_policy *policy, const struct kt_plan_state *state, struct life life,
                        kt_ms now, struct kt_plan *ret)
{
	kt_ms last_part;

	ret->remove_at = KT_TIME_MAX;
	if (!state->has_material)
		return;
	ret->renew_at = kt_plan_renewal_point(policy, life.start, life.end, state->seed);
	/* A tenth of life is left, a week at most, and half of what the manifest leaves for renewal at least. */
	last_part = kt_plan_max(0, kt_plan_min((life.end - life.start) / 10, 7 * KT_DAY));
	ret->alarm_at = life.end - last_part;
	if (ret->renew_at < life.end)
		ret->alarm_at = kt_plan_max(ret->alarm_at, ret->renew_at + (life.end - ret->renew_at) / 2);
	if (policy->kind == KT_PLAN_CLIENT && !policy->renewal_disabled) /* overdue */
		ret->alarm_at = kt_plan_add(ret->renew_at + policy->publish_ahead,
		                            kt_plan_min(policy->rotation_interval / 4, 7 * KT_DAY));
	if (policy->renewal_disabled) {
		ret->renew_at = 0;
	} else if (policy->kind == KT_PLAN_CERTIFICATE) {
		kt_ms at = kt_plan_info_moment(state, life.start, life.end, ret->renew_at, ret->alarm_at);

		ret->by_info = at != 0;
		ret->renew_at = at != 0 ? at : ret->renew_at;
	}
	ret->alarm = now >= ret->alarm_at;
	if (policy->kind == KT_PLAN_TOKEN) {
		ret->remove_at = state->revoked ? now : life.end;
		ret->remove = now >= ret->remove_at && state->disk != KT_PLAN_DISK_MISSING;
	}
}

/* When to look again: earlier than act_at where something is to be said or taken away before. */
static void set_due(struct kt_plan *ret, kt_ms now)
{
	if (ret->remove || is_work(ret->action) || ret->action == KT_PLAN_REDELIVER) {
		ret->due_at = now;
		return;
	}
	ret->due_at = ret->act_at;
	if (ret->alarm_at > now)
		ret->due_at = kt_plan_min(ret->due_at, ret->alarm_at);
	if (ret->remove_at > now)
		ret->due_at = kt_plan_min(ret->due_at, ret->remove_at);
}

kt_ms kt_plan_refusal_until(kt_ms not_before, kt_ms issued_at, kt_ms not_after, kt_ms now)
{
	kt_ms from = kt_plan_max(kt_plan_bound(issued_at), kt_plan_bound(not_before));

	return kt_plan_add(now, kt_plan_max(kt_plan_add(not_after, -from) / 10, KT_PLAN_REFUSAL_PAUSE));
}

void kt_plan_decide_quick(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                          struct kt_plan *ret)
{
	struct life life = life_of(state);

	/* Field by field: the text is a quarter of a kilobyte that nobody asked for. */
	ret->text[0] = '\0';
	ret->renew_at = ret->alarm_at = 0;
	ret->alarm = ret->remove = ret->new_key = ret->by_info = false;
	now = kt_plan_bound(now);
	set_moments(policy, state, life, now, ret);
	ret->abandon = state->in_flight && (state->flight_stale || state->orphan);
	if (state->orphan) {
		ret->action = KT_PLAN_NONE;
		ret->reason = ret->pending = KT_WHY_ORPHAN;
		ret->act_at = KT_TIME_MAX;
		ret->alarm = false;
		ret->due_at = ret->remove || ret->abandon ? now : ret->remove_at;
		return;
	}
	decide_cause(policy, state, now, ret);
	if (state->in_flight && !state->flight_stale) {
		ret->action = KT_PLAN_RESUME;
		ret->reason = KT_WHY_IN_FLIGHT;
		ret->act_at = now;
	}
	ret->pending = ret->reason;
	apply_obstacles(policy, state, life, now, ret);
	apply_disk(state, life, now, ret);
	set_due(ret, now);
	if (ret->abandon)
		ret->due_at = now;
}

void kt_plan_decide(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                    struct kt_plan *ret)
{
	kt_plan_decide_quick(policy, state, now, ret);
	kt_plan_explain(policy, state, now, ret);
}
