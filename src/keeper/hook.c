/* Asking the warden to run a Consumer's hook, and reading its verdict: for validation, notification and proof. */
#include <stdio.h>
#include <string.h>

#include "kt/buf.h"
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

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/*
 * What a program printed, as one line: its lines with " | " between them; of more than is shown the last ones, since that is
 * where most say what went wrong. Control characters other than line ends are escaped already, and once more in kt_err_set.
 */
static void one_line(struct kt_view output, char out[OUTPUT_SHOWN + 1])
{
	struct kt_buf text KT_AUTOBUF = {0};
	size_t from = 0;

	out[0] = '\0';
	kt_buf_init(&text, 64u * 1024u);
	while (output.len > 0) {
		const char *end = memchr(output.ptr, '\n', output.len);
		size_t len = end != NULL ? (size_t)(end - output.ptr) : output.len;
		size_t next = end != NULL ? len + 1 : len;
		struct kt_view line = {output.ptr, len};

		if (line.len >= 4 && memcmp(line.ptr + line.len - 4, "\\x0d", 4) == 0) { /* a carriage return, escaped */
			line.len -= 4;
		}
		while (line.len > 0 && is_blank(line.ptr[line.len - 1])) {
			line.len--;
		}
		while (line.len > 0 && is_blank(line.ptr[0])) {
			line.ptr++;
			line.len--;
		}
		if (line.len > 0) {
			kt_buf_adds(&text, text.len > 0 ? " | " : "");
			kt_buf_addv(&text, line);
		}
		output.ptr += next;
		output.len -= next;
	}
	if (text.failed != KT_OK || text.len == 0) {
		return;
	}
	if (text.len > OUTPUT_SHOWN) {
		const char *bar;

		from = text.len - OUTPUT_SHOWN + 3;
		bar = strstr(text.ptr + from, " | ");
		from = bar != NULL ? (size_t)(bar + 3 - text.ptr) : from;
	}
	(void)snprintf(out, OUTPUT_SHOWN + 1, "%s%s", from > 0 ? "..." : "", text.ptr + from);
}

enum kt_hook_verdict kt_hook_judge(const struct kt_err *why, enum kt_msg_type type, const struct kt_msg_hooked *hooked,
                                   struct kt_err *ret)
{
	char shown[OUTPUT_SHOWN + 1];

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
	one_line(hooked->output, shown);
	(void)kt_err_set(ret, KT_E_MISMATCH, "%.*s%s%s", (int)hooked->what.len, hooked->what.ptr, shown[0] != '\0' ? ": " : "", shown);
	return hooked->outcome == 1 ? KT_HOOK_REFUSED : hooked->outcome == 3 ? KT_HOOK_NOT_RUN : KT_HOOK_LATE;
}
