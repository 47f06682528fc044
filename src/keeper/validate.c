/* Validation: every Consumer of a secret looks at the candidate before it is switched, or at once after it. */
#include <stdio.h>

#include "kt/mem.h"
#include "keeper/flight.h"

#define HOOK_TIMEOUT (10 * KT_MINUTE) /* the warden keeps the hook's own limit; this is the net below */

static enum kt_code load_consumer(struct kt_flight *flight, size_t index, struct kt_resource **ret, struct kt_err *err)
{
	struct kt_store_resource row;
	enum kt_code code = kt_store_resource_get(flight->keeper->store, flight->consumers[index], &row, err);

	if (code == KT_OK) {
		code = kt_load_spec(&row, ret, err);
		kt_store_resource_finish(&row);
	}
	return code;
}

bool kt_flight_has_validation(struct kt_flight *flight)
{
	size_t i;
	bool found = false;

	for (i = 0; i < flight->consumer_count && !found; i++) {
		struct kt_resource *consumer = NULL;

		if (load_consumer(flight, i, &consumer, NULL) == KT_OK) {
			found = consumer->consumer.validate.count > 0;
			kt_resource_destroy(consumer);
		}
	}
	return found;
}

static void next_consumer(struct kt_flight *flight)
{
	flight->next_hook_consumer++;
	flight->next_hook = 0;
}

static void on_hooked(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	const struct kt_msg_hooked *hooked = msg;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	kt_err_clear(&err);
	if (why->code != KT_OK) {
		err = *why;
	} else if (type != KT_HOOKED) {
		(void)kt_err_set(&err, KT_E_PROTO, "the warden gave a wrong answer");
	} else if (hooked->outcome == 0) {
		flight->next_hook++;
	} else if (hooked->outcome == 3 && flight->stage == KT_FLIGHT_VALIDATE) {
		flight->recheck = true;
		next_consumer(flight);
	} else {
		(void)kt_err_set(&err, KT_E_MISMATCH, "validation refuses the new set of %s, the old one stays: %.*s%s%.*s",
		                 flight->secret_name, (int)hooked->what.len, hooked->what.ptr,
		                 hooked->output.len > 0 ? ": " : "",
		                 (int)(hooked->output.len < 400 ? hooked->output.len : 400), hooked->output.ptr);
	}
	flight->again = true;
	kt_rotate_wake(flight, &err);
}

static enum kt_code run_hook(struct kt_flight *flight, const struct kt_resource *consumer, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_buf binds KT_AUTOBUF = {0};
	char resource[600];
	char secret_dir[4096];
	char traceparent[56];
	bool before = flight->stage == KT_FLIGHT_VALIDATE;
	struct kt_msg_hook msg = {.generation = keeper->generation,
	                          .consumer_ns = kt_view_str(consumer->meta.ns),
	                          .consumer = kt_view_str(consumer->meta.name),
	                          .phase = KT_HOOK_VALIDATE,
	                          .index = (uint32_t)flight->next_hook,
	                          .step = KT_VIEW_LIT("validate"),
	                          .not_after = flight->got.not_after,
	                          .fingerprint = kt_view_str(flight->got.sha256),
	                          .serial = kt_view_str(flight->got.serial)};
	enum kt_code code;

	kt_buf_init(&binds, 32768);
	if (before) {
		code = kt_publish_binds(flight, consumer, &binds, err);
		if (code == KT_E_NOTFOUND || (code == KT_OK && binds.len == 0)) {
			kt_err_clear(err);
			flight->recheck = true; /* the first set: there is nothing to lay the candidate over */
			next_consumer(flight);
			return KT_E_NOTFOUND;
		}
		if (code != KT_OK) {
			return code;
		}
	}
	(void)snprintf(resource, sizeof(resource), "%s/%s/%s", flight->resource.kind, flight->resource.ns,
	               flight->resource.name);
	kt_publish_path(keeper, flight->resource.ns, flight->secret_name, secret_dir, sizeof(secret_dir));
	msg.resource = kt_view_str(resource);
	msg.secret_dir = kt_view_str(secret_dir);
	msg.binds = kt_buf_view(&binds);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(keeper->ctx->warden, KT_HOOK, &msg, NULL, 0, HOOK_TIMEOUT, on_hooked, flight, err);
}

enum kt_effect kt_flight_validate(struct kt_flight *flight, struct kt_err *err)
{
	while (flight->next_hook_consumer < flight->consumer_count) {
		struct kt_resource *consumer = NULL;
		enum kt_code code = load_consumer(flight, flight->next_hook_consumer, &consumer, err);

		if (code == KT_OK && flight->next_hook >= consumer->consumer.validate.count) {
			kt_resource_destroy(consumer);
			next_consumer(flight);
			continue;
		}
		if (code == KT_OK) {
			code = run_hook(flight, consumer, err);
		}
		kt_resource_destroy(consumer);
		if (code == KT_E_NOTFOUND && err->code == KT_OK) {
			continue;
		}
		return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
	}
	return KT_EFFECT_DONE;
}
