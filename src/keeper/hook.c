/* Asking the warden to run a Consumer's hook, and reading its verdict: for validation, notification and proof. */
#include <stdio.h>

#include "keeper/hook.h"

#define HOOK_TIMEOUT (10 * KT_MINUTE) /* the warden keeps the hook's own limit; this is the net below */
#define OUTPUT_SHOWN 400

enum kt_code kt_hook_run(struct kt_keeper *keeper, const struct kt_hook_call *call, kt_wire_reply_fn *fn, void *arg,
                         struct kt_err *err)
{
	static const char *const steps[] = {"validate", "notify", "prove"};
	char resource[600];
	char secret_dir[4096];
	char traceparent[56];
	struct kt_msg_hook msg = {.generation = keeper->generation,
	                          .consumer_ns = kt_view_str(call->consumer->meta.ns),
	                          .consumer = kt_view_str(call->consumer->meta.name),
	                          .phase = (uint32_t)call->phase,
	                          .index = call->index,
	                          .step = kt_view_str(steps[call->phase]),
	                          .not_after = call->not_after,
	                          .fingerprint = kt_view_str(call->sha256),
	                          .serial = kt_view_str(call->serial),
	                          .binds = call->binds,
	                          .delivered_at = call->delivered_at};

	(void)snprintf(resource, sizeof(resource), "%s/%s/%s", call->resource->kind, call->resource->ns,
	               call->resource->name);
	kt_publish_path(keeper, call->resource->ns, call->secret_name, secret_dir, sizeof(secret_dir));
	msg.resource = kt_view_str(resource);
	msg.secret_dir = kt_view_str(secret_dir);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(call->trace_id, traceparent));
	return kt_wire_call(keeper->ctx->warden, KT_HOOK, &msg, NULL, 0, HOOK_TIMEOUT, fn, arg, err);
}

enum kt_hook_verdict kt_hook_judge(const struct kt_err *why, enum kt_msg_type type, const struct kt_msg_hooked *hooked,
                                   struct kt_err *ret)
{
	size_t shown;

	kt_err_clear(ret);
	if (why->code != KT_OK) {
		*ret = *why;
		return KT_HOOK_NOT_RUN;
	}
	if (type != KT_HOOKED) {
		(void)kt_err_set(ret, KT_E_PROTO, "the warden gave a wrong answer");
		return KT_HOOK_NOT_RUN;
	}
	if (hooked->outcome == 0) {
		return KT_HOOK_GOOD;
	}
	shown = hooked->output.len < OUTPUT_SHOWN ? hooked->output.len : OUTPUT_SHOWN;
	(void)kt_err_set(ret, KT_E_MISMATCH, "%.*s%s%.*s", (int)hooked->what.len, hooked->what.ptr,
	                 shown > 0 ? ": " : "", (int)shown, hooked->output.ptr);
	return hooked->outcome == 1 ? KT_HOOK_REFUSED : hooked->outcome == 3 ? KT_HOOK_NOT_RUN : KT_HOOK_LATE;
}
