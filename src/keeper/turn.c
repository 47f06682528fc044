/* When a consumer may be told: when those before it are proved, and in one of its windows. */
#include "keeper/prove.h"

#define TURN_WAIT (500)       /* ms until a consumer whose turn has not come looks again */
#define TURN_MOST (KT_MINUTE) /* the same when nothing happens before it for long; its end wakes those behind */
#define TASKS_MAX 100000u     /* of a material */
#define MATERIALS_MAX 64u     /* of a credential; few are kept */

struct turn {
	int64_t self;
	unsigned unavailable;
	kt_ms next; /* when the first of those before does anything */
};

static bool before_me(const struct kt_store_task *task, void *arg)
{
	struct turn *turn = arg;

	if (task->id < turn->self && (task->state == KT_TASK_PENDING || task->state == KT_TASK_NOTIFIED ||
	                              task->state == KT_TASK_FAILED)) {
		turn->unavailable++;
		turn->next = task->next_try < turn->next ? task->next_try : turn->next;
	}
	return true;
}

kt_ms kt_turn_at(struct kt_task_run *run, kt_ms now)
{
	struct turn turn = {.self = run->task.id, .next = now + TURN_MOST};
	int64_t max = run->consumer->consumer.rollout.max_unavailable;

	if (max <= 0) {
		return now;
	}
	if (kt_store_task_each(run->keeper->store, run->task.material, TASKS_MAX, before_me, &turn, NULL) != KT_OK) {
		return now + TURN_WAIT; /* not known */
	}
	if ((int64_t)turn.unavailable < max) {
		return now;
	}
	return turn.next < now + TURN_WAIT ? now + TURN_WAIT : turn.next;
}

/* --- windows ---------------------------------------------------------------------------------------------------------- */

/* What a consumer uses of a credential: the newest that it took, or else the oldest that it was to take. */
struct used {
	struct kt_task_run *run;
	bool asked, taken; /* of the material that is looked at: it was to take it, it did */
	bool known, good;
	kt_ms start, end;
};

static bool find_own(const struct kt_store_task *task, void *arg)
{
	struct used *used = arg;

	if (task->consumer != used->run->task.consumer || task->id == used->run->task.id) {
		return true;
	}
	used->asked = true;
	used->taken = task->state == KT_TASK_PROVED || task->state == KT_TASK_UPLOADED || task->state == KT_TASK_DELIVERED;
	return false;
}

static bool find_used(const struct kt_store_material *material, void *arg)
{
	struct used *used = arg;

	used->asked = used->taken = false;
	(void)kt_store_task_each(used->run->keeper->store, material->id, TASKS_MAX, find_own, used, NULL);
	if (used->asked) {
		used->known = true;
		used->good = material->state != KT_MATERIAL_REVOKED;
		used->start = material->not_before;
		used->end = material->not_after;
	}
	return !used->taken;
}

/* The life of what the consumer still uses, as far as is known. False: it is of no use any more, so nothing is waited for. */
static bool life_in_use(struct kt_task_run *run, kt_ms *ret_start, kt_ms *ret_end)
{
	struct used used = {.run = run};

	*ret_start = run->material.not_before;
	*ret_end = run->material.not_after;
	/* This very one was proved before: its files are only put back. */
	if (run->proved_at != 0 && run->proved_at >= run->material.created) {
		return true;
	}
	(void)kt_store_material_each(run->keeper->store, run->task.credential, MATERIALS_MAX, find_used, &used, NULL);
	if (used.known) {
		*ret_start = used.start;
		*ret_end = used.end;
	}
	return !used.known || used.good;
}

enum kt_code kt_turn_window(struct kt_task_run *run, kt_ms now, kt_ms *ret, struct kt_err *err)
{
	struct kt_spec_policy policy;
	enum kt_code code;
	kt_ms start, end;

	*ret = now;
	if (run->consumer->consumer.rollout.windows.count == 0 || !life_in_use(run, &start, &end)) {
		return KT_OK;
	}
	code = kt_spec_policy_init(run->consumer, &policy, err);
	if (code == KT_OK) {
		*ret = kt_plan_window_tell(policy.windows, policy.count, start, end > 0 ? end : KT_TIME_MAX, now);
	}
	kt_spec_policy_finish(&policy);
	return code;
}
