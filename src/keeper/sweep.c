/*
 * The sweep: a slow walk over all credentials that looks whether their volumes are as they were delivered.
 *
 * A few at a time, so that its cost does not grow with their number; what drifted is delivered again. After a start
 * the first walk goes without pauses: secretsDir is usually a tmpfs and may be empty after a reboot.
 */
#include "kt/log.h"
#include "keeper/keeper.h"

#define BATCH       32u
#define PAUSE       (15 * KT_SECOND)
#define FIRST_PAUSE 0 /* ms between batches of the first walk */

struct batch {
	struct kt_keeper *keeper;
	int64_t ids[BATCH];
	unsigned count;
};

static bool take(const struct kt_store_resource *resource, void *arg)
{
	struct batch *batch = arg;

	batch->ids[batch->count++] = resource->id;
	return batch->count < BATCH;
}

/*
 * One that failed while the clock was ahead waits for a time of that clock, years away maybe. A failure that is yet to come says
 * so; the plan knows it, but is asked only of what is due.
 */
static enum kt_code forget_wrong_clock(struct kt_keeper *keeper, int64_t id, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(keeper);
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_get(keeper->store, id, &cred, err);
	bool wrong = code == KT_OK && cred.attempts > 0 && cred.error_at > now + KT_MINUTE && cred.due_at > now;

	if (code != KT_OK) {
		return code == KT_E_NOTFOUND ? KT_OK : code;
	}
	if (wrong) {
		kt_log(KT_LOG_WARN, "a credential failed by a clock that was ahead: it is tried again now");
		cred.due_at = now;
		cred.next_try = 0;
		code = kt_store_begin(keeper->store, err);
	}
	if (wrong && code == KT_OK) {
		code = kt_store_cred_put(keeper->store, &cred, err);
		code = kt_store_end(keeper->store, code, err);
		kt_rotate_kick(keeper);
	}
	kt_store_cred_finish(&cred);
	return code;
}

/* False: what has to be mended can't be written down now. */
static bool look(struct kt_keeper *keeper, int64_t id)
{
	struct kt_err err;
	bool drifted = false;
	enum kt_code code;

	kt_err_clear(&err);
	if (kt_rotate_find(keeper, id) != NULL) {
		return true;
	}
	if (forget_wrong_clock(keeper, id, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a wait by a wrong clock can't be ended now");
		return false;
	}
	code = kt_publish_check(keeper, id, &drifted, &err);
	if (code == KT_E_NOTFOUND) {
		return true; /* no credential of its own */
	}
	if (code != KT_OK) { /* the delivery meets the same obstacle, or it is over: the credential shows it */
		kt_log_err(KT_LOG_WARN, &err, "a volume can't be looked at");
		kt_err_clear(&err);
	} else if (!drifted) {
		return true;
	}
	code = kt_store_begin(keeper->store, &err);
	if (code == KT_OK) {
		code = kt_store_cred_wake(keeper->store, id, kt_keeper_now(keeper), KT_CRED_REDELIVER, &err);
		code = kt_store_end(keeper->store, code, &err);
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a drifted volume can't be mended now");
		return false;
	}
	kt_rotate_kick(keeper);
	return true;
}

/* The same batch once more, as soon as the store may be of use again. */
static void again(struct kt_keeper *keeper)
{
	kt_timer_start(keeper->sweep_timer, KT_SECOND);
	kt_rotate_not_written(keeper);
	kt_admin_progress(keeper);
}

static void on_sweep(void *arg)
{
	struct kt_keeper *keeper = arg;
	struct batch batch = {.keeper = keeper};
	struct kt_err err;
	unsigned i;

	kt_err_clear(&err);
	if (keeper->sweep_after == 0) {
		keeper->swept_at = kt_keeper_now(keeper);
	}

	if (kt_store_resource_each(keeper->store, NULL, keeper->sweep_after, BATCH, take, &batch, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "the volumes to look at can't be read");
		again(keeper);
		return;
	}
	for (i = 0; i < batch.count; i++) {
		if (!look(keeper, batch.ids[i])) {
			again(keeper);
			return;
		}
	}
	keeper->sweep_after = batch.count > 0 ? batch.ids[batch.count - 1] : 0;
	if (batch.count < BATCH) {
		keeper->sweep_after = 0;
		keeper->swept = true;
		kt_admin_progress(keeper);
	}
	kt_timer_start(keeper->sweep_timer, keeper->swept ? PAUSE : FIRST_PAUSE);
}

enum kt_code kt_sweep_start(struct kt_keeper *keeper, struct kt_err *err)
{
	return kt_timer_create(keeper->loop, on_sweep, keeper, &keeper->sweep_timer, err);
}

void kt_sweep_go(struct kt_keeper *keeper)
{
	/* With a store that was made just now, nothing can have drifted yet. */
	keeper->swept = (kt_store_notes(keeper->store) & KT_STORE_IS_NEW) != 0;
	kt_timer_start(keeper->sweep_timer, keeper->swept ? PAUSE : 0);
}

void kt_sweep_finish(struct kt_keeper *keeper)
{
	kt_timer_destroy(keeper->sweep_timer);
	keeper->sweep_timer = NULL;
}
