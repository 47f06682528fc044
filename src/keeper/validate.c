/* Validation: every Consumer of a secret looks at the candidate before it is switched, or at once after it. */
#include "kt/mem.h"
#include "keeper/flight.h"
#include "keeper/hook.h"

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
	struct kt_err err;
	enum kt_hook_verdict verdict = kt_hook_judge(why, type, msg, &err);
	bool answered = why->code == KT_OK && type == KT_HOOKED;

	(void)fds;
	(void)fd_count;
	if (verdict == KT_HOOK_GOOD) {
		flight->next_hook++;
	} else if (verdict == KT_HOOK_NOT_RUN && answered && flight->stage == KT_FLIGHT_VALIDATE) {
		kt_err_clear(&err);
		flight->recheck = true; /* not possible before the switch: at once after it */
		next_consumer(flight);
	} else if (answered) {
		(void)kt_err_prefix(&err, "validation refuses the new set of %s, the old one stays", flight->secret_name);
	}
	flight->again = true;
	kt_rotate_wake(flight, &err);
}

static enum kt_code run_hook(struct kt_flight *flight, const struct kt_resource *consumer, struct kt_err *err)
{
	struct kt_buf binds KT_AUTOBUF = {0};
	struct kt_hook_call call = {.consumer = consumer,
	                            .phase = KT_HOOK_VALIDATE,
	                            .index = (uint32_t)flight->next_hook,
	                            .resource = &flight->resource,
	                            .secret_name = flight->secret_name,
	                            .serial = flight->got.serial,
	                            .sha256 = flight->got.sha256,
	                            .trace_id = flight->trace_id,
	                            .not_after = flight->got.not_after};
	enum kt_code code;

	kt_buf_init(&binds, 32768);
	if (flight->stage == KT_FLIGHT_VALIDATE) {
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
	call.binds = kt_buf_view(&binds);
	return kt_hook_run(flight->keeper, &call, on_hooked, flight, err);
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
