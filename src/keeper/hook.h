/* A Consumer's hooks as the keeper asks for them. */
#ifndef KEEPER_HOOK_H
#define KEEPER_HOOK_H

#include "keeper/keeper.h"

/* What the hook is told; everything is borrowed for the call. */
struct kt_hook_call {
	const struct kt_resource *consumer;
	enum kt_hook_phase phase;
	uint32_t index;
	const struct kt_store_resource *resource; /* of the credential */
	const char *secret_name;
	const char *serial, *sha256;
	const char *trace_id;
	kt_ms not_after;
	kt_ms delivered_at;   /* of the switch; 0 before it */
	struct kt_view binds; /* kt_publish_binds, or empty */
};

enum kt_hook_verdict {
	KT_HOOK_GOOD,
	KT_HOOK_REFUSED, /* it ran and said no */
	KT_HOOK_LATE,    /* it ran out of its time */
	KT_HOOK_NOT_RUN, /* it could not be run, or the warden did not answer */
};

/* The reply goes to fn(arg), which gives it to kt_hook_judge. */
enum kt_code kt_hook_run(struct kt_keeper *keeper, const struct kt_hook_call *call, kt_wire_reply_fn *fn, void *arg,
                         struct kt_err *err);
/* ret: KT_OK for a good one, else what it was and what it printed. */
enum kt_hook_verdict kt_hook_judge(const struct kt_err *why, enum kt_msg_type type, const struct kt_msg_hooked *hooked,
                                   struct kt_err *ret);

#endif
