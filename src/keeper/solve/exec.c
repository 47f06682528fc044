/*
 * dns-01 by a program that writes the record: the warden runs it (it alone may run programs, and keeps the manifest's argv),
 * the courier looks whether the record is seen.
 */
#include <string.h>

#include "kt/mem.h"
#include "keeper/hook.h"
#include "keeper/solve/solve.h"

#define RUN_TIME    (14 * KT_MINUTE) /* the warden minds the program's own limit; others may be before it */
#define DOMAINS_MAX 16000u

/* --- what is kept of it ---------------------------------------------------------------------------------------------------- */

/* NULL without memory: half of it would be no program that is found again. */
static json_t *argv_json(const struct kt_dns_exec *exec)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list != NULL && i < exec->exec.argv.count; i++) {
		if (json_array_append_new(list, json_string(exec->exec.argv.items[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static bool same_argv(const struct kt_dns_exec *exec, const json_t *argv)
{
	if (json_array_size(argv) != exec->exec.argv.count) {
		return false;
	}
	for (uint32_t i = 0; i < exec->exec.argv.count; i++) {
		const char *text = json_string_value(json_array_get(argv, i));

		if (text == NULL || strcmp(text, exec->exec.argv.items[i]) != 0) {
			return false;
		}
	}
	return true;
}

/* Every name of the order, with commas, as far as they fit. */
static enum kt_code domains_of(const struct kt_certificate_spec *spec, struct kt_buf *out, struct kt_err *err)
{
	for (uint32_t i = 0; i < spec->dns_names.count && out->len + strlen(spec->dns_names.items[i]) + 2 < DOMAINS_MAX; i++) {
		kt_buf_addf(out, "%s%s", i > 0 ? "," : "", spec->dns_names.items[i]);
	}
	return kt_buf_check(out, "names", err);
}

static enum kt_code prepare(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const struct kt_resource *issuer = order->flight->issuer->spec;
	const struct kt_store_resource *resource = &order->flight->resource;
	struct kt_buf domains KT_AUTOBUF = {0};
	struct kt_buf text KT_AUTOBUF = {0};
	KT_AUTOJSON json_t *config = NULL;
	char who[600];
	enum kt_code code = kt_solve_dns_record(answer, err);

	kt_buf_init(&domains, DOMAINS_MAX);
	kt_buf_init(&text, 65536);
	if (code == KT_OK) {
		code = domains_of(&order->flight->spec->certificate, &domains, err);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(who, sizeof(who), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	config = json_pack("{s:i,s:s,s:s,s:o,s:s,s:s,s:s}", "kind", (int)issuer->kind, "ns", issuer->meta.ns, "name",
	                   issuer->meta.name, "argv", argv_json(order->solver->dns01->exec), "keyAuthorization",
	                   answer->authorization, "domains", domains.len > 0 ? domains.ptr : "", "resource", who);
	if (config == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	code = kt_json_dump(config, &text, err);
	return code == KT_OK ? kt_answer_text(&answer->config, kt_buf_view(&text), err) : code;
}

/* --- asking the warden ------------------------------------------------------------------------------------------------------- */

/* Where the program stands in the manifests as they are now: they may have been changed since the record was written. */
static enum kt_code find_solver(struct kt_answer *answer, const json_t *config, uint32_t *ret, struct kt_err *err)
{
	enum kt_kind kind = (enum kt_kind)kt_json_int(config, "kind", 0);
	const char *ns = kt_json_str(config, "ns"), *name = kt_json_str(config, "name");
	struct kt_issuer_entry *entry;
	enum kt_code code;

	if (ns == NULL || name == NULL || (kind != KT_RES_ISSUER && kind != KT_RES_CLUSTER_ISSUER)) {
		return kt_err_set(err, KT_E_CORRUPT, "what is known of a challenge is not sound");
	}
	code = kt_issuers_entry(answer->keeper, kt_kind_name(kind), ns, name, &entry, err);
	if (code != KT_OK) {
		return code;
	}
	for (uint32_t i = 0; entry->spec->issuer.acme != NULL && i < entry->spec->issuer.acme->solvers.count; i++) {
		const struct kt_dns01_solver *dns = entry->spec->issuer.acme->solvers.items[i].dns01;

		if (dns != NULL && dns->exec != NULL && same_argv(dns->exec, json_object_get(config, "argv"))) {
			*ret = i;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_NOTFOUND, "%s has no exec solver with this program any more", entry->ref);
}

static enum kt_code run(struct kt_answer *answer, enum kt_dns01_action action, kt_wire_reply_fn *fn, struct kt_err *err)
{
	KT_AUTOJSON json_t *config = NULL;
	char traceparent[56];
	struct kt_msg_solve msg = {.generation = answer->keeper->generation,
	                           .action = (uint32_t)action,
	                           .domain = kt_view_str(answer->name),
	                           .record = kt_view_str(answer->record),
	                           .value = kt_view_str(answer->value),
	                           .token = kt_view_str(answer->token),
	                           .auth_output = kt_view_str(answer->handle != NULL ? answer->handle : ""),
	                           .traceparent = kt_answer_traceparent(answer, traceparent)};
	const char *authorization, *domains, *resource;
	enum kt_code code = kt_json_parse(kt_view_str(answer->config), 65536, &config, err);

	if (code == KT_OK) {
		code = find_solver(answer, config, &msg.solver, err);
	}
	if (code == KT_E_NOTFOUND && answer->generation != 0) { /* the warden may still have the set that it was run from */
		msg.generation = answer->generation;
		msg.solver = answer->found_at;
		kt_err_clear(err);
	} else if (code != KT_OK) {
		return code;
	}
	answer->generation = msg.generation;
	answer->found_at = msg.solver;
	authorization = kt_json_str(config, "keyAuthorization");
	domains = kt_json_str(config, "domains");
	resource = kt_json_str(config, "resource");
	msg.issuer_kind = (uint32_t)kt_json_int(config, "kind", 0);
	msg.issuer_ns = kt_view_str(kt_json_str(config, "ns"));
	msg.issuer = kt_view_str(kt_json_str(config, "name"));
	msg.key_authorization = kt_view_str(authorization != NULL ? authorization : "");
	msg.domains = kt_view_str(domains != NULL ? domains : "");
	msg.resource = kt_view_str(resource != NULL ? resource : "");
	return kt_wire_call(answer->keeper->ctx->warden, KT_SOLVE, &msg, NULL, 0, RUN_TIME, fn, answer, err);
}

/* --- presenting ---------------------------------------------------------------------------------------------------------------- */

static void on_seen(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;
	const struct kt_msg_dns01_done *done = msg;
	struct kt_err err = *why;

	(void)fds, (void)fd_count;
	if (err.code == KT_OK && type == KT_DNS01_DONE) {
		(void)kt_answer_save(answer, done->effective, (struct kt_view){NULL, 0}, &err);
	}
	kt_answer_presented(answer, &err);
}

/* The program says that the record is there: is it? */
static enum kt_code look(struct kt_answer *answer, struct kt_err *err)
{
	KT_AUTOJSON json_t *solver = json_pack("{s:s,s:b}", "provider", "none", "followCNAME", 1);
	struct kt_dns_ask question = {KT_DNS01_ADD, solver, NULL, "", NULL, NULL, true};

	return solver != NULL ? kt_solve_dns_ask(answer, &question, on_seen, err)
	                      : kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
}

static void on_run(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;
	const struct kt_msg_hooked *hooked = msg;
	struct kt_err err;

	(void)fds, (void)fd_count;
	if (kt_hook_judge(why, type, hooked, &err) == KT_HOOK_GOOD) {
		(void)kt_answer_save(answer, (struct kt_view){NULL, 0}, hooked->output, &err);
	}
	if (err.code == KT_OK && !answer->wanted) {
		(void)kt_err_set(&err, KT_E_CANCELLED, "the order of %s is over", answer->name);
	}
	if (err.code != KT_OK || look(answer, &err) != KT_OK) {
		kt_answer_presented(answer, &err);
	}
}

static void on_cleaned(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_err err;

	(void)fds, (void)fd_count;
	(void)kt_hook_judge(why, type, msg, &err);
	kt_answer_withdrawn(arg, &err);
}

static enum kt_effect present(struct kt_answer *answer, struct kt_err *err)
{
	return run(answer, KT_DNS01_ADD, on_run, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

static enum kt_effect withdraw(struct kt_answer *answer, struct kt_err *err)
{
	return run(answer, KT_DNS01_REMOVE, on_cleaned, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_solver_ops kt_solve_exec = {.name = "dns-01 by a program",
                                            .challenge = KT_CHALLENGE_DNS01,
                                            .durable = true,
                                            .prepare = prepare,
                                            .present = present,
                                            .interrupt = kt_solve_dns_interrupt,
                                            .withdraw = withdraw};
