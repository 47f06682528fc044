/* Notify and prove: quick looks while the consumer has time to take it, then patiently until superseded. */
#include "keeper/plan/plan_internal.h"

#define WITHIN_DEFAULT (30 * KT_SECOND)
#define WITHIN_MAX KT_DAY
#define LATE_FIRST (5 * KT_SECOND)
#define LATE_CAP (5 * KT_MINUTE)

/* What comes before attempt number `attempts` inside `within`. A hook is dearer than a handshake. */
static kt_ms quick_delay(const struct kt_plan_task *task)
{
	kt_ms delay = task->prove ? 50 : 500, cap = task->prove ? 2 * KT_SECOND : 10 * KT_SECOND;

	for (unsigned i = 1; i < task->attempts && delay < cap; i++)
		delay *= 2;
	return kt_plan_min(delay, cap);
}

/* More attempts than `within` can hold: the clock was set back, and `within` would last as long as the jump. */
static bool quick_is_spent(const struct kt_plan_task *task, kt_ms within)
{
	return task->attempts > 16 + (uint64_t)(within / (2 * KT_SECOND));
}

/* A delay that grows with the time since the deadline: by half of it, so that no counter is needed. */
static kt_ms late_delay(const struct kt_plan_task *task, kt_ms deadline, kt_ms last)
{
	kt_ms delay = kt_plan_max(LATE_FIRST, kt_plan_min((last - deadline) / 2, LATE_CAP));

	return delay - kt_plan_jitter(task->seed + task->attempts, KT_SALT_TASK, delay / 10);
}

void kt_plan_task_decide(const struct kt_plan_task *task, kt_ms now, struct kt_plan_task_next *ret)
{
	kt_ms within = task->within > 0 ? kt_plan_min(task->within, WITHIN_MAX) : WITHIN_DEFAULT;
	kt_ms start, last;

	now = kt_plan_bound(now);
	start = kt_plan_bound(task->started_at);
	if (start > now)
		start = now; /* the clock was set back */
	last = task->attempts ? kt_plan_bound(task->last_attempt) : 0;
	*ret = (struct kt_plan_task_next){.deadline = kt_plan_add(start, within)};
	if (task->superseded || (task->not_after != 0 && now >= task->not_after)) {
		ret->phase = KT_TASK_OVER;
		ret->next_at = KT_TIME_MAX;
		ret->just_late = task->attempts && now >= ret->deadline;
		return;
	}
	if (task->attempts == 0) {
		/* A server needs a moment after its signal; a notification does not. */
		ret->next_at = kt_plan_add(start, task->prove ? 50 : 0);
	} else if (last > kt_plan_add(now, LATE_CAP)) {
		ret->next_at = now; /* the clock was set back: once more now, then by the new time */
	} else if (last < ret->deadline && !quick_is_spent(task, within)) {
		/* One look exactly at the deadline, so that the verdict is not older than it. */
		ret->next_at = kt_plan_min(kt_plan_add(last, quick_delay(task)), ret->deadline);
	} else {
		ret->next_at = kt_plan_add(last, late_delay(task, kt_plan_min(ret->deadline, last), last));
	}
	if (task->retry_after_s > 0 && task->attempts) {
		kt_ms asked = (task->retry_after_s > 86400 ? 86400 : task->retry_after_s) * KT_SECOND;

		ret->next_at = kt_plan_max(ret->next_at, kt_plan_add(kt_plan_min(last, now), asked));
	}
	/* Not late before it was tried once: the agent may have been down all the while. */
	ret->just_late = task->attempts &&
	                 (now >= ret->deadline || ret->next_at > ret->deadline || quick_is_spent(task, within));
	ret->phase = ret->just_late ? KT_TASK_LATE : KT_TASK_QUICK;
	if (task->not_after != 0 && ret->next_at >= task->not_after)
		ret->next_at = task->not_after; /* to be told that it is over */
}
