/* The plan in words: names for JSON, and one line for people. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "keeper/plan/plan_internal.h"

const char *kt_plan_action_name(enum kt_plan_action action)
{
	static const char *const names[] = {
	        [KT_PLAN_NONE] = "none",       [KT_PLAN_WAIT] = "wait",     [KT_PLAN_ISSUE] = "issue",
	        [KT_PLAN_RENEW] = "renew",     [KT_PLAN_REISSUE] = "reissue", [KT_PLAN_RESUME] = "resume",
	        [KT_PLAN_REDELIVER] = "redeliver",
	};

	_Static_assert(sizeof(names) / sizeof(names[0]) == KT_PLAN_ACTION_COUNT, "a name for each action");
	return (size_t)action < KT_PLAN_ACTION_COUNT ? names[action] : "unknown";
}

/* Per reason: its stable name, and what it says of something that is to be done. */
static const struct {
	const char *name, *text;
} reasons[] = {
        [KT_WHY_NOT_DUE] = {"not-due", "nothing is due"},
        [KT_WHY_NEVER_ISSUED] = {"never-issued", "it was never issued"},
        [KT_WHY_RENEWAL_POINT] = {"renewal-point", "its renewal point has passed"},
        [KT_WHY_FLOOR] = {"floor", "no renewal window opens before its end: renewed outside of them"},
        [KT_WHY_EXPIRED] = {"expired", "it has expired"},
        [KT_WHY_REQUEST_CHANGED] = {"request-changed", "the manifest asks for something else now"},
        [KT_WHY_ISSUER_CHANGED] = {"issuer-changed", "its issuer has another key or certificate"},
        [KT_WHY_CORRUPT] = {"corrupt", "what is stored does not check out"},
        [KT_WHY_KEY_MISMATCH] = {"key-mismatch", "key and certificate do not belong together"},
        [KT_WHY_REVOKED] = {"revoked", "it was revoked or reset"},
        [KT_WHY_BINDING_CHANGED] = {"binding-changed", "the certificate or key that it is bound to has rotated"},
        [KT_WHY_SECRET_DELETED] = {"secret-deleted", "its secret was deleted"},
        [KT_WHY_FORCED] = {"forced", "asked for by command"},
        [KT_WHY_CLOCK] = {"clock", "it is not valid yet by this clock: the clock was or is wrong"},
        [KT_WHY_IN_FLIGHT] = {"in-flight", "a rotation was begun"},
        [KT_WHY_DRIFT] = {"drift", "the files on disk are not what they should be"},
        [KT_WHY_BACKOFF] = {"backoff", "the last attempt failed"},
        [KT_WHY_NEEDS_CHANGE] = {"needs-change", "refused: a key, secret or manifest must change"},
        [KT_WHY_WINDOW] = {"window", "the renewal window is closed"},
        [KT_WHY_DISABLED] = {"disabled", "renewal.policy is Disabled"},
        [KT_WHY_ORPHAN] = {"orphan", "no manifest asks for it any more"},
        [KT_WHY_ISSUER_NOT_READY] = {"issuer-not-ready", "its issuer is not ready"},
        [KT_WHY_RENEWAL_INFO] = {"renewal-info", "the CA's renewal information asks for it"},
        [KT_WHY_LIMIT] = {"limit", "the CA's limit is reached"},
        [KT_WHY_REFUSED] = {"refused", "a consumer saw it refused"},
        [KT_WHY_SHOWN] = {"shown", "the new key is shown, and used when every server has had time to read it"},
};
_Static_assert(sizeof(reasons) / sizeof(reasons[0]) == KT_WHY_COUNT, "a line for each reason");

const char *kt_plan_reason_name(enum kt_plan_reason reason)
{
	return (size_t)reason < KT_WHY_COUNT ? reasons[reason].name : "unknown";
}

/* One line that is cut where it is full. */
struct line {
	char *text;
	size_t size, len;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line->text + line->len, line->size - line->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		line->len = (size_t)n < line->size - line->len ? line->len + (size_t)n : line->size - 1;
}

/* "in 2h10m" or "3m ago". */
static void add_when(struct line *line, kt_ms at, kt_ms now)
{
	char span[32];

	if (at >= KT_TIME_MAX)
		add(line, "never");
	else if (at > now)
		add(line, "in %s", kt_duration_format(at - now, span));
	else
		add(line, "%s ago", kt_duration_format(now - at, span));
}

static void add_cause(struct line *line, const struct kt_plan_state *state, enum kt_plan_reason reason)
{
	add(line, "%s", reasons[reason].text);
	if (reason == KT_WHY_IN_FLIGHT && state->flight_step)
		add(line, " and is %s", state->flight_step);
	if (reason == KT_WHY_ISSUER_NOT_READY && state->not_ready)
		add(line, " (%s)", state->not_ready);
	if (reason == KT_WHY_LIMIT && state->limit_text)
		add(line, ": %s", state->limit_text);
}

static void add_failure(struct line *line, const struct kt_plan_state *state, bool delivery, kt_ms now)
{
	const char *problem = delivery ? "" : state->last_problem;
	enum kt_code code = delivery ? state->deliver_code : state->last_code;
	unsigned failures = delivery ? state->deliver_failures : state->failures;
	kt_ms last = delivery ? state->deliver_last : state->last_attempt;

	if (failures == 0)
		return;
	add(line, "; %u %s%s failed, the last ", failures, delivery ? "deliver" : "attempt",
	    delivery ? failures == 1 ? "y" : "ies" : failures == 1 ? "" : "s");
	add_when(line, kt_plan_min(kt_plan_bound(last), now), now);
	add(line, " (%s, fault: %s)", problem[0] ? problem : kt_code_name(code),
	    kt_plan_fault_name(kt_plan_retry_find(code, problem)->fault));
}

/* A token's rule depends on its life as that of a certificate does, see kt_plan_renewal_point. */
static const char *default_rule(const struct kt_plan_policy *policy, kt_ms life)
{
	if (policy->kind == KT_PLAN_TOKEN)
		return life < KT_PLAN_TOKEN_SHORT_LIFE ? "at half of its life" : "at 77 % of its life";
	return life < KT_PLAN_SHORT_LIFE ? "at half of its life" : "at 2/3 of its life";
}

const char *kt_plan_rule(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after, char out[KT_PLAN_RULE_SIZE])
{
	kt_ms life = kt_plan_bound(not_after) - kt_plan_bound(not_before);
	char before[32], all[32];

	if (kt_plan_before_is_too_long(policy, not_before, not_after))
		snprintf(out, KT_PLAN_RULE_SIZE, "%s: renewBefore %s is not shorter than its whole life, %s",
		         default_rule(policy, life), kt_duration_format(policy->renew_before, before),
		         kt_duration_format(life / 1000 * 1000, all));
	else if (policy->renew_before > 0)
		snprintf(out, KT_PLAN_RULE_SIZE, "renewBefore %s", kt_duration_format(policy->renew_before, before));
	else if (policy->renew_before_percentage >= 1 && policy->renew_before_percentage <= 99)
		snprintf(out, KT_PLAN_RULE_SIZE, "with %d %% of its life left", policy->renew_before_percentage);
	else
		snprintf(out, KT_PLAN_RULE_SIZE, "%s", default_rule(policy, life));
	return out;
}

/* How the renewal point came about: for what waits for it, and where it is another one than the manifest says. */
static void add_life(struct line *line, const struct kt_plan_policy *policy, const struct kt_plan_state *state,
                     kt_ms now, const struct kt_plan *plan)
{
	kt_ms from = kt_plan_bound(state->not_before), issued = kt_plan_bound(state->issued_at);
	kt_ms until = kt_plan_bound(state->not_after);
	char rule[KT_PLAN_RULE_SIZE];

	if (!state->has_material || policy->kind == KT_PLAN_CLIENT)
		return;
	from = issued > from && issued < until ? issued : from; /* as kt_plan_decide has it */
	add(line, "; %s ", until > now ? "expires" : "expired");
	add_when(line, until, now);
	if (plan->by_info && plan->action == KT_PLAN_WAIT && plan->reason == KT_WHY_NOT_DUE)
		add(line, " (in the window that its CA suggests)");
	else if ((plan->action == KT_PLAN_WAIT && plan->reason == KT_WHY_NOT_DUE) ||
	         (plan->reason == KT_WHY_RENEWAL_POINT && kt_plan_before_is_too_long(policy, from, until)))
		add(line, " (%s)", kt_plan_rule(policy, from, until, rule));
}

void kt_plan_explain(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                     struct kt_plan *plan)
{
	struct line line = {plan->text, sizeof(plan->text), 0};

	now = kt_plan_bound(now);
	plan->text[0] = '\0';
	if (plan->action == KT_PLAN_NONE) {
		add_cause(&line, state, plan->reason);
	} else if (plan->action != KT_PLAN_WAIT) {
		add(&line, "%s now: ", kt_plan_action_name(plan->action));
		add_cause(&line, state, plan->reason);
		add_failure(&line, state, plan->pending == KT_WHY_DRIFT, now);
	} else if (plan->reason == KT_WHY_NOT_DUE) {
		add(&line, "renews ");
		add_when(&line, plan->act_at, now);
	} else if (plan->reason == KT_WHY_CLOCK) {
		add_cause(&line, state, plan->reason);
	} else {
		if (plan->pending != plan->reason) {
			add_cause(&line, state, plan->pending);
			add(&line, "; ");
		}
		add_cause(&line, state, plan->reason);
		add_failure(&line, state, plan->pending == KT_WHY_DRIFT, now);
		add(&line, "; next try ");
		add_when(&line, plan->act_at, now);
	}
	add_life(&line, policy, state, now, plan);
	if (plan->remove)
		add(&line, "; it is taken off the disk");
}
