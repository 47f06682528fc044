/* The life of a flight, its audit records, and its plan: what the store says about one credential. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/budget.h"
#include "keeper/fallback.h"
#include "keeper/refused.h"
#include "keeper/watch/watched.h"

struct finding {
	struct kt_flight *flight;
	bool failed; /* no memory */
};

static bool add_consumer(int64_t id, void *arg)
{
	struct finding *finding = arg;
	struct kt_flight *flight = finding->flight;
	int64_t *all = kt_realloc(flight->consumers, (flight->consumer_count + 1) * sizeof(*all));

	finding->failed = all == NULL;
	if (all != NULL) {
		all[flight->consumer_count++] = id;
		flight->consumers = all;
	}
	return all != NULL;
}

static enum kt_code find_consumers(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_link link = {"consumes", flight->resource.ns, flight->secret_name};
	struct finding finding = {flight, false};
	enum kt_code code = KT_OK;

	if (flight->secret_name[0] != '\0') {
		code = kt_store_linked_each(flight->keeper->store, &link, add_consumer, &finding, err);
	}
	return code == KT_OK && finding.failed ? kt_err_set(err, KT_E_NOMEM, "no memory for a credential in work") : code;
}

enum kt_code kt_flight_create(struct kt_keeper *keeper, int64_t id, struct kt_flight **ret, struct kt_err *err)
{
	struct kt_flight *flight = kt_calloc(1, sizeof(*flight));
	enum kt_code code;

	if (flight == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a credential in work");
	}
	flight->keeper = keeper;
	flight->id = id;
	kt_buf_init(&flight->sealed_key, 65536);
	kt_buf_init(&flight->sealed_token, 131072);
	code = kt_store_cred_get(keeper->store, id, &flight->cred, err);
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, id, &flight->resource, err);
	}
	if (code == KT_OK) {
		code = kt_load_spec(&flight->resource, &flight->spec, err);
	}
	if (code == KT_OK) {
		(void)snprintf(flight->secret_name, sizeof(flight->secret_name), "%s", flight->cred.secret_name);
		(void)snprintf(flight->trace_id, sizeof(flight->trace_id), "%s", flight->cred.trace_id);
		code = find_consumers(flight, err);
	}
	if (code != KT_OK) {
		kt_flight_destroy(flight);
		return code;
	}
	*ret = flight;
	return KT_OK;
}

void kt_flight_destroy(struct kt_flight *flight)
{
	if (flight == NULL) {
		return;
	}
	kt_oauth_forget(flight);
	kt_wire_forget(flight->keeper->courier, flight);
	kt_wire_forget(flight->keeper->desk, flight);
	kt_rotate_end_job(flight, true);
	kt_wire_forget(flight->keeper->ctx->warden, flight);
	kt_store_material_finish(&flight->material);
	kt_store_resource_finish(&flight->resource);
	kt_store_cred_finish(&flight->cred);
	kt_resource_destroy(flight->spec);
	kt_pki_key_destroy(flight->key);
	kt_free(flight->consumers);
	kt_free(flight->got.chain_pem);
	kt_free(flight->got.ca_pem);
	kt_secret_destroy(flight->got.token);
	kt_secret_destroy(flight->trying);
	kt_buf_finish(&flight->sealed_key);
	kt_buf_finish(&flight->sealed_token);
	kt_free(flight);
}

enum kt_code kt_flight_audit(struct kt_flight *flight, struct kt_audit_event *event, struct kt_err *err)
{
	bool token = strcmp(flight->resource.kind, "Certificate") != 0;

	event->trace_id = flight->trace_id;
	event->actor = event->actor != NULL ? event->actor : "agent";
	event->kind = flight->resource.kind;
	event->ns = flight->resource.ns;
	event->name = flight->resource.name;
	event->revision = flight->material.revision;
	event->issuer = flight->issuer != NULL ? flight->issuer->ref : event->issuer;
	if (flight->got.serial[0] != '\0') {
		*(token ? &event->token_id : &event->serial) = flight->got.serial;
		event->sha256 = flight->got.sha256;
		event->not_after = flight->got.not_after;
	}
	return kt_keeper_audit(flight->keeper, event, err);
}

/* Writes the step into the credential and the audit trail. */
enum kt_code kt_flight_step(struct kt_flight *flight, enum kt_step step, const char *reason, struct kt_err *err)
{
	struct kt_audit_event event = {.step = kt_step_name(step), .outcome = "ok", .reason = reason};
	enum kt_code code;

	flight->cred.step = step;
	flight->cred.step_at = kt_keeper_now(flight->keeper);
	flight->cred.trace_id = flight->trace_id;
	code = kt_flight_audit(flight, &event, err);
	return code == KT_OK ? kt_store_cred_put(flight->keeper->store, &flight->cred, err) : code;
}

kt_ms kt_flight_keep_previous(const struct kt_flight *flight)
{
	bool client = flight->spec->kind == KT_RES_CLIENT_CREDENTIAL && flight->spec->client.issuer.fixed == NULL;

	return client ? flight->spec->client.drain : KT_KEEP_PREVIOUS;
}

unsigned kt_flight_deaths(const struct kt_flight *flight)
{
	/* Where nothing could be written the mark may be of this very life. */
	return flight->keeper->died && flight->keeper->commit_failures == 0 ? flight->cred.deaths : 0;
}

enum kt_code kt_flight_end(struct kt_flight *flight, kt_ms due_at, struct kt_err *err)
{
	flight->stage = KT_FLIGHT_END;
	flight->cred.deaths = 0;
	if (flight->forced) {
		flight->cred.flags |= KT_CRED_FORCED;
		due_at = kt_keeper_now(flight->keeper);
	}
	if (flight->refused[0] != '\0' && (flight->cred.flags & KT_CRED_REFUSED) != 0) {
		flight->cred.trace_id = flight->refused;
		due_at = kt_keeper_now(flight->keeper);
	}
	if (flight->roll_back) {
		flight->cred.flags |= KT_CRED_ROLL_BACK;
		due_at = kt_keeper_now(flight->keeper);
	}
	flight->cred.due_at = due_at == KT_TIME_MAX ? 0 : due_at;
	return kt_store_cred_put(flight->keeper->store, &flight->cred, err);
}

int64_t kt_flight_peer_said(const struct kt_store_cred *cred, const char **ret_problem)
{
	char *end; /* "seconds problem", as kt_flight_fail writes it */
	int64_t seconds = cred->cookie != NULL ? strtoll(cred->cookie, &end, 10) : 0;

	*ret_problem = cred->cookie != NULL && *end == ' ' ? end + 1 : "";
	return seconds;
}

const struct kt_plan_retry *kt_flight_retry_row(const struct kt_store_cred *cred, enum kt_code code,
                                                const char *problem)
{
	bool ordered = cred->candidate != 0 && cred->step == KT_STEP_ORDERED;

	return ordered ? kt_plan_retry_find_resumed(code, problem) : kt_plan_retry_find(code, problem);
}

static void plan_state(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                       const struct kt_store_material *active, const struct kt_store_material *candidate,
                       kt_ms now, struct kt_plan_state *state)
{
	char identity[600];

	memset(state, 0, sizeof(*state));
	state->has_material = cred->active != 0;
	state->not_before = active->not_before;
	state->not_after = active->not_after;
	if (cred->kind == KT_KIND_CLIENT && cred->active != 0) {
		state->not_after = KT_TIME_MAX;
	}
	state->issued_at = active->issued;
	state->request_changed =
	        cred->active != 0 && strcmp(active->request_key, resource->request_key) != 0;
	state->forced = (cred->flags & KT_CRED_FORCED) != 0;
	state->refused = (cred->flags & KT_CRED_REFUSED) != 0;
	state->revoked = cred->active != 0 && active->state == KT_MATERIAL_REVOKED && (cred->flags & KT_CRED_HELD) == 0;
	state->disk = (cred->flags & KT_CRED_REDELIVER) != 0 ? KT_PLAN_DISK_OUTDATED : KT_PLAN_DISK_OK;
	state->in_flight = cred->candidate != 0;
	state->flight_stale =
	        cred->candidate != 0 && strcmp(candidate->request_key, resource->request_key) != 0;
	state->flight_step = kt_step_name(cred->step);
	state->failures = cred->attempts;
	state->last_attempt = cred->error_at;
	state->last_code = cred->error;
	if (cred->attempts > 0) {
		const char *problem;

		state->retry_after_s = kt_flight_peer_said(cred, &problem);
		state->announced = cred->next_try;
		(void)snprintf(state->last_problem, sizeof(state->last_problem), "%s", problem);
	}
	state->deliver_failures = cred->deliver_failures;
	state->deliver_last = cred->deliver_at;
	state->deliver_code = cred->deliver_error;
	state->cause_changed = cred->attempts > 0 && cred->next_try <= now;
	if (cred->kind == KT_KIND_CLIENT && cred->candidate != 0 && candidate->sealed_key.len > 0) {
		state->shown_at = candidate->not_before;
	}
	state->orphan = resource->gone || (cred->flags & KT_CRED_ORPHAN) != 0;
	(void)snprintf(identity, sizeof(identity), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	state->seed = kt_plan_seed(identity, (uint64_t)cred->revision);
}

/* What the CA said of the certificate in force, if it came from one that says anything. */
static void add_renewal_info(struct kt_keeper *keeper, const struct kt_store_cred *cred,
                             const struct kt_store_material *active, struct kt_plan_state *state)
{
	struct kt_store_renewal_info info;

	if (cred->active == 0 || active->cert_url[0] == '\0' || active->state == KT_MATERIAL_REVOKED ||
	    kt_store_renewal_info_get(keeper->store, cred->id, &info, NULL) != KT_OK) {
		return;
	}
	if (info.material == cred->active) {
		state->ari_start = info.window_start;
		state->ari_end = info.window_end;
		state->ari_again = strstr(active->cookie, "\"renewal-info\"") != NULL;
	}
	kt_store_renewal_info_finish(&info);
}

/*
 * What the CA allows, where the plan would have an order placed: with that the plan decides once more. An order that is
 * placed goes on, and one whose end is near goes to a fallback that has room.
 */
static enum kt_code look_at_limits(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                                   const struct kt_store_cred *cred, const struct kt_resource *spec,
                                   const struct kt_store_material *active, const struct kt_store_material *candidate,
                                   const struct kt_plan *plan, struct kt_plan_state *state, char text[256],
                                   struct kt_err *err)
{
	struct kt_issuer_entry *issuer;
	struct kt_budget_ask ask;
	enum kt_code code;
	bool placed = plan->action == KT_PLAN_RESUME && (candidate->serial[0] != '\0' || candidate->order_url[0] != '\0');
	bool orders = plan->action == KT_PLAN_ISSUE || plan->action == KT_PLAN_RENEW || plan->action == KT_PLAN_REISSUE ||
	              plan->action == KT_PLAN_RESUME;

	/* Without a store (a plan of manifests alone) nothing was spent. */
	if (!orders || placed || spec->kind != KT_RES_CERTIFICATE || keeper->store == NULL ||
	    kt_issuers_get(keeper, spec, &issuer, NULL) != KT_OK || issuer->ops != &kt_issuer_acme) {
		return KT_OK;
	}
	kt_budget_ask_init(&ask, issuer, resource, spec, cred->active != 0 ? active : NULL, plan->renew_at,
	                   kt_keeper_now(keeper));
	code = kt_budget_look(keeper, &ask, kt_keeper_now(keeper), state, text, err);
	if (code == KT_OK && state->limit_at != 0 &&
	    kt_fallback_has_room(keeper, issuer, resource, spec, cred->active != 0 ? active : NULL, plan->renew_at,
	                         kt_keeper_now(keeper))) {
		state->limit_at = 0;
	}
	return code;
}

enum kt_code kt_rotate_plan(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, const struct kt_resource *spec, bool quick,
                            struct kt_plan *ret, struct kt_err *err)
{
	struct kt_store_material active = {.request_key = ""};
	struct kt_store_material candidate = {.request_key = ""};
	struct kt_spec_policy policy;
	struct kt_plan_state state;
	char limit_text[256];
	enum kt_code code;

	if (spec->kind == KT_RES_WATCH) {
		return kt_watched_plan(keeper, resource, cred, spec, ret, err);
	}
	code = kt_spec_policy_init(spec, &policy, err);
	if (code == KT_OK && cred->active != 0) {
		code = kt_store_material_get(keeper->store, cred->active, &active, err);
	}
	if (code == KT_OK && cred->candidate != 0) {
		code = kt_store_material_get(keeper->store, cred->candidate, &candidate, err);
	}
	if (code == KT_OK) {
		kt_ms now = kt_keeper_now(keeper);

		plan_state(resource, cred, &active, &candidate, now, &state);
		add_renewal_info(keeper, cred, &active, &state);
		state.binding_changed = cred->active != 0 && kt_oauth_binding_changed(keeper, spec, active.finalize_url);
		kt_plan_decide_quick(&policy.plan, &state, now, ret);
		code = look_at_limits(keeper, resource, cred, spec, &active, &candidate, ret, &state, limit_text, err);
		if (state.limit_at != 0) {
			kt_plan_decide_quick(&policy.plan, &state, now, ret);
		}
		if (!quick) {
			kt_plan_explain(&policy.plan, &state, now, ret);
		}
		/* The store's next_try is the one that was announced; the plan's jitter is drawn anew. */
		if (cred->attempts > 0 && cred->next_try > now && (cred->flags & KT_CRED_FORCED) == 0 &&
		    ret->action != KT_PLAN_NONE && ret->action != KT_PLAN_REDELIVER) {
			bool sooner = ret->action == KT_PLAN_WAIT && ret->pending == KT_WHY_DRIFT && ret->due_at < cred->next_try;

			ret->action = KT_PLAN_WAIT;
			ret->due_at = sooner ? ret->due_at : cred->next_try;
		}
	}
	kt_store_material_finish(&active);
	kt_store_material_finish(&candidate);
	kt_spec_policy_finish(&policy);
	return code;
}
