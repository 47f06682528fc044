/* The head of the audit chain, told to the warden, who writes it down outside the store (spec.audit.anchor). */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "keeper/keeper.h"

/* A busy agent commits a hundred times a second; each head stands for all records before it. */
#define PAUSE KT_SECOND

static void tell(struct kt_keeper *keeper)
{
	struct kt_msg_anchor msg;
	struct kt_err err;
	char hash[65];
	int64_t seq;

	kt_err_clear(&err);
	kt_audit_head(keeper->store, &seq, hash);
	if (seq == keeper->head_told || keeper->ctx->warden == NULL) {
		return;
	}
	msg = (struct kt_msg_anchor){.seq = seq, .hash = kt_view_str(hash)};
	keeper->head_told = seq;
	keeper->head_at = kt_clock_mono(keeper->clock);
	if (kt_wire_notice(keeper->ctx->warden, KT_ANCHOR, &msg, NULL, 0, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the head of the audit chain can't be handed on");
	}
}

static void on_time(void *arg)
{
	tell(arg);
}

/* After a commit with records in it. */
static void on_committed(void *arg)
{
	struct kt_keeper *keeper = arg;
	kt_ms left;

	if (keeper->agent->agent.audit.anchor == KT_ANCHOR_NONE) {
		return;
	}
	left = keeper->head_told != 0 ? keeper->head_at + PAUSE - kt_clock_mono(keeper->clock) : 0;
	if (left <= 0 || keeper->head_timer == NULL) {
		kt_timer_stop(keeper->head_timer);
		tell(keeper);
	} else {
		kt_timer_start(keeper->head_timer, left);
	}
}

enum kt_code kt_head_start(struct kt_keeper *keeper, struct kt_err *err)
{
	kt_store_on_audit(keeper->store, on_committed, keeper);
	return kt_timer_create(keeper->loop, on_time, keeper, &keeper->head_timer, err);
}

void kt_head_flush(struct kt_keeper *keeper)
{
	if (keeper->head_timer != NULL && keeper->agent->agent.audit.anchor != KT_ANCHOR_NONE) {
		kt_timer_stop(keeper->head_timer);
		tell(keeper);
	}
}

void kt_head_finish(struct kt_keeper *keeper)
{
	kt_timer_destroy(keeper->head_timer);
	keeper->head_timer = NULL;
}
