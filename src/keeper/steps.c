/*
 * One credential's way through the pipeline: what each stage commits and what effect follows.
 *
 * Every commit function writes the step that has been done, with its audit record, and chooses the next effect. What
 * a restart needs is in the rows alone: `step` of the credential, its candidate material (key, order URL, chain,
 * directory name). Stages that ask nobody share commits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/flight.h"

#define KEEP_PREVIOUS KT_MINUTE
#define MAX_DEATHS    3u

/* --- life of a flight ------------------------------------------------------------------------------------------------ */

static bool seen_consumer(const struct kt_flight *flight, int64_t id)
{
	size_t i;

	for (i = 0; i < flight->consumer_count; i++) {
		if (flight->consumers[i] == id) {
			return true;
		}
	}
	return false;
}

static enum kt_code find_consumers(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_link link = {"consumes", flight->resource.ns, flight->secret_name};
	size_t max = sizeof(flight->consumers) / sizeof(flight->consumers[0]);
	size_t count = max;
	int64_t found[64];
	enum kt_code code;
	size_t i;

	flight->consumer_count = 0;
	if (flight->secret_name[0] == '\0') {
		return KT_OK;
	}
	code = kt_store_linked(flight->keeper->store, &link, 0, found, &count, err);
	for (i = 0; i < count && code == KT_OK; i++) {
		if (!seen_consumer(flight, found[i])) {
			flight->consumers[flight->consumer_count++] = found[i];
		}
	}
	return code;
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
	kt_wire_forget(flight->keeper->courier, flight);
	kt_wire_forget(flight->keeper->ctx->warden, flight);
	kt_store_material_finish(&flight->material);
	kt_store_resource_finish(&flight->resource);
	kt_store_cred_finish(&flight->cred);
	kt_resource_destroy(flight->spec);
	kt_pki_key_destroy(flight->key);
	kt_free(flight->got.chain_pem);
	kt_free(flight->got.ca_pem);
	kt_secret_destroy(flight->got.token);
	kt_buf_finish(&flight->sealed_key);
	kt_buf_finish(&flight->sealed_token);
	kt_free(flight);
}

enum kt_code kt_flight_audit(struct kt_flight *flight, struct kt_audit_event *event, struct kt_err *err)
{
	bool token = flight->resource.kind[0] == 'T';

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
static enum kt_code put_step(struct kt_flight *flight, enum kt_step step, const char *reason, struct kt_err *err)
{
	struct kt_audit_event event = {.step = kt_step_name(step), .outcome = "ok", .reason = reason};
	enum kt_code code;

	flight->cred.step = step;
	flight->cred.step_at = kt_keeper_now(flight->keeper);
	flight->cred.trace_id = flight->trace_id;
	code = kt_flight_audit(flight, &event, err);
	return code == KT_OK ? kt_store_cred_put(flight->keeper->store, &flight->cred, err) : code;
}

static enum kt_code end_at(struct kt_flight *flight, kt_ms due_at, struct kt_err *err)
{
	flight->stage = KT_FLIGHT_END;
	flight->cred.due_at = due_at == KT_TIME_MAX ? 0 : due_at;
	return kt_store_cred_put(flight->keeper->store, &flight->cred, err);
}

/* --- the plan --------------------------------------------------------------------------------------------------------- */

static void plan_state(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                       const struct kt_store_material *active, const struct kt_store_material *candidate,
                       kt_ms now, struct kt_plan_state *state)
{
	char identity[600];

	memset(state, 0, sizeof(*state));
	state->has_material = cred->active != 0;
	state->not_before = active->not_before;
	state->not_after = active->not_after;
	state->issued_at = active->issued;
	state->request_changed =
	        cred->active != 0 && strcmp(active->request_key, resource->request_key) != 0;
	state->forced = (cred->flags & KT_CRED_FORCED) != 0;
	state->disk = (cred->flags & KT_CRED_REDELIVER) != 0 ? KT_PLAN_DISK_OUTDATED : KT_PLAN_DISK_OK;
	state->in_flight = cred->candidate != 0;
	state->flight_stale =
	        cred->candidate != 0 && strcmp(candidate->request_key, resource->request_key) != 0;
	state->flight_step = kt_step_name(cred->step);
	state->failures = cred->attempts;
	state->last_attempt = cred->error_at;
	state->last_code = cred->error;
	if (cred->attempts > 0) { /* "seconds problem": what the peer said (kt_flight_fail writes it) */
		char *end;

		state->retry_after_s = strtoll(cred->cookie, &end, 10);
		(void)snprintf(state->last_problem, sizeof(state->last_problem), "%s", *end == ' ' ? end + 1 : "");
	}
	state->cause_changed = cred->attempts > 0 && cred->next_try <= now;
	state->orphan = resource->gone || (cred->flags & KT_CRED_ORPHAN) != 0;
	(void)snprintf(identity, sizeof(identity), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	state->seed = kt_plan_seed(identity, (uint64_t)cred->revision);
}

enum kt_code kt_rotate_plan(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, const struct kt_resource *spec, bool quick,
                            struct kt_plan *ret, struct kt_err *err)
{
	struct kt_store_material active = {.request_key = ""};
	struct kt_store_material candidate = {.request_key = ""};
	struct kt_spec_policy policy;
	struct kt_plan_state state;
	enum kt_code code = kt_spec_policy_init(spec, &policy, err);

	if (code == KT_OK && cred->active != 0) {
		code = kt_store_material_get(keeper->store, cred->active, &active, err);
	}
	if (code == KT_OK && cred->candidate != 0) {
		code = kt_store_material_get(keeper->store, cred->candidate, &candidate, err);
	}
	if (code == KT_OK) {
		kt_ms now = kt_keeper_now(keeper);

		plan_state(resource, cred, &active, &candidate, now, &state);
		if (quick) {
			kt_plan_decide_quick(&policy.plan, &state, now, ret);
		} else {
			kt_plan_decide(&policy.plan, &state, now, ret);
		}
		/* The store's next_try is the one that was announced; the plan's jitter is drawn anew. */
		if (cred->attempts > 0 && cred->next_try > now && (cred->flags & KT_CRED_FORCED) == 0 &&
		    ret->action != KT_PLAN_NONE) {
			ret->action = KT_PLAN_WAIT;
			ret->due_at = cred->next_try;
		}
	}
	kt_store_material_finish(&active);
	kt_store_material_finish(&candidate);
	kt_spec_policy_finish(&policy);
	return code;
}

/* --- begin -------------------------------------------------------------------------------------------------------------- */

/* Opens what a stored material holds into the flight. */
static enum kt_code open_material(struct kt_flight *flight, int64_t id, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	bool token = flight->spec->kind == KT_RES_TOKEN;
	struct kt_seal_id seal;
	enum kt_code code;

	kt_store_material_finish(&flight->material);
	code = kt_store_material_get(keeper->store, id, &flight->material, err);
	if (code != KT_OK) {
		return code;
	}
	flight->fresh_row = false;
	seal = kt_store_material_seal_id(&flight->resource, flight->material.revision, token ? "token" : "key");
	(void)snprintf(flight->order_url, sizeof(flight->order_url), "%s", flight->material.order_url);
	(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%s", flight->material.serial);
	(void)snprintf(flight->got.sha256, sizeof(flight->got.sha256), "%s", flight->material.sha256);
	(void)snprintf(flight->dir, sizeof(flight->dir), "%s", flight->material.dir);
	flight->got.not_before = flight->material.not_before;
	flight->got.not_after = flight->material.not_after;
	if (token && flight->material.sealed_token.len > 0) {
		(void)snprintf(flight->got.token_type, sizeof(flight->got.token_type), "Bearer");
		(void)snprintf(flight->got.scope, sizeof(flight->got.scope), "%s", flight->material.cookie);
		return kt_keys_unseal(keeper->keys, &seal, flight->material.sealed_token, &flight->got.token, err);
	}
	if (token || flight->material.sealed_key.len == 0) {
		return KT_OK;
	}
	code = kt_keys_unseal(keeper->keys, &seal, flight->material.sealed_key, &secret, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(secret), &flight->key, err);
	}
	if (code == KT_OK) {
		code = kt_issuers_take_chain(flight, flight->material.chain, flight->material.ca, err);
	}
	return code;
}

static enum kt_code drop_candidate(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code =
	        kt_store_material_mark(flight->keeper->store, flight->cred.candidate, KT_MATERIAL_FAILED, NULL, err);

	flight->cred.candidate = 0;
	return code;
}

/* A new revision: a trace id of its own, step "due". */
static enum kt_code begin_new(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code = flight->cred.candidate != 0 ? drop_candidate(flight, err) : KT_OK;

	if (code != KT_OK) {
		return code;
	}
	(void)kt_audit_trace_id(now, flight->trace_id);
	flight->cred.revision++;
	flight->cred.deaths = 0;
	flight->material = (struct kt_store_material){.credential = flight->id,
	                                              .revision = flight->cred.revision,
	                                              .state = KT_MATERIAL_PENDING,
	                                              .request_key = flight->resource.request_key,
	                                              .created = now};
	flight->fresh_row = true;
	code = kt_issuers_get(keeper, flight->spec, &flight->issuer, &flight->err);
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	flight->stage = KT_FLIGHT_KEY;
	return put_step(flight, KT_STEP_DUE, flight->plan.text, err);
}

/* Goes on from the last committed step. */
static enum kt_code begin_resume(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	enum kt_step step = flight->cred.step;
	enum kt_code code;

	flight->retrial = step == KT_STEP_ROLLED_BACK;
	if (flight->cred.attempts == 0 && ++flight->cred.deaths > MAX_DEATHS) {
		flight->cred.deaths = 0;
		(void)kt_err_set(&flight->err, KT_E_CANCELLED,
		                 "this credential was in work at %u sudden ends in a row: its next try waits", MAX_DEATHS);
		return kt_flight_fail(flight, err);
	}
	code = open_material(flight, flight->cred.candidate, &flight->err);
	if (code == KT_OK) {
		code = kt_issuers_get(keeper, flight->spec, &flight->issuer, &flight->err);
	}
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	if (step == KT_STEP_KEYED || step == KT_STEP_ORDERED || flight->got.serial[0] == '\0') {
		flight->stage = KT_FLIGHT_OBTAIN;
	} else if (step == KT_STEP_VALIDATED) {
		flight->validated = true;
		flight->stage = KT_FLIGHT_STAGE; /* staging what is staged already costs little and is always right */
	} else {
		flight->stage = KT_FLIGHT_STAGE;
	}
	return kt_store_cred_put(keeper->store, &flight->cred, err);
}

/* The material in force is written again, under a new directory name. */
static enum kt_code begin_redelivery(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code = open_material(flight, flight->cred.active, &flight->err);

	if (code == KT_OK) {
		code = kt_issuers_get(flight->keeper, flight->spec, &flight->issuer, &flight->err);
	}
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	(void)kt_audit_trace_id(kt_keeper_now(flight->keeper), flight->trace_id);
	flight->redelivery = true;
	(void)kt_volume_generation_name(kt_keeper_now(flight->keeper), flight->dir);
	flight->stage = KT_FLIGHT_STAGE;
	return KT_OK;
}

struct find_previous {
	kt_ms now;
	int64_t id;
};

static bool good_previous(const struct kt_store_material *material, void *arg)
{
	struct find_previous *find = arg;

	if (material->state == KT_MATERIAL_PREVIOUS && material->not_after > find->now + KT_SECOND) {
		find->id = material->id;
	}
	return find->id == 0;
}

/* Back to the material before, where it is still good; else the refused one stays and its consumers are tried on. */
static enum kt_code begin_rollback(struct kt_flight *flight, struct kt_err *err)
{
	struct find_previous find = {.now = kt_keeper_now(flight->keeper)};
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_ROLLED_BACK),
	                               .outcome = "refused",
	                               .reason = "there is no earlier set that is still good: the new one stays"};
	enum kt_code code = kt_store_material_each(flight->keeper->store, flight->id, 64, good_previous, &find, err);

	if (code != KT_OK) {
		return code;
	}
	if (find.id == 0) {
		flight->cred.flags &= ~KT_CRED_ROLL_BACK;
		code = kt_flight_audit(flight, &event, err);
		return code == KT_OK ? end_at(flight, find.now + KT_SECOND, err) : code;
	}
	code = open_material(flight, find.id, &flight->err);
	if (code == KT_OK) {
		code = kt_issuers_get(flight->keeper, flight->spec, &flight->issuer, &flight->err);
	}
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	flight->rollback = true;
	flight->redelivery = true;
	(void)kt_volume_generation_name(find.now, flight->dir);
	flight->stage = KT_FLIGHT_STAGE;
	return KT_OK;
}

/* True when the generation before may go: its successor is in use, or nobody says, and a minute has passed. */
static bool may_retire(const struct kt_flight *flight, kt_ms now, kt_ms *ret_at)
{
	const struct kt_store_cred *cred = &flight->cred;
	bool resting = cred->step == KT_STEP_SWITCHED || cred->step == KT_STEP_NOTIFIED || cred->step == KT_STEP_PROVED;

	*ret_at = cred->delivered_at + KEEP_PREVIOUS;
	if (!resting || cred->proof == KT_PROOF_WAITING || cred->proof == KT_PROOF_FAILED) {
		*ret_at = KT_TIME_MAX;
		return false;
	}
	return *ret_at <= now;
}

static enum kt_code begin_jwks(struct kt_flight *flight, struct kt_err *err)
{
	kt_ms next = 0;
	enum kt_code code = kt_issuers_entry(flight->keeper, flight->resource.kind, flight->resource.ns,
	                                     flight->resource.name, &flight->issuer, &flight->err);

	if (code == KT_OK) {
		code = kt_jwks_ensure(flight->keeper, flight->issuer, &next, &flight->err);
	}
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	flight->cred.step = KT_STEP_RETIRED;
	flight->cred.attempts = 0;
	flight->cred.flags &= ~KT_CRED_REDELIVER;
	return end_at(flight, next, err);
}

static enum kt_code begin(struct kt_flight *flight, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(flight->keeper);
	kt_ms retire_at;
	enum kt_code code;

	if (flight->resource.gone) {
		return end_at(flight, 0, err);
	}
	if (flight->cred.kind == KT_KIND_JWKS) {
		return begin_jwks(flight, err);
	}
	if ((flight->cred.flags & KT_CRED_ROLL_BACK) != 0) {
		return begin_rollback(flight, err);
	}
	code = kt_rotate_plan(flight->keeper, &flight->resource, &flight->cred, flight->spec, true, &flight->plan,
	                      &flight->err);
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	if (flight->plan.remove && flight->cred.active != 0) {
		flight->withdraw = true;
		flight->stage = KT_FLIGHT_RETIRE;
		return KT_OK;
	}
	switch (flight->plan.action) {
	case KT_PLAN_ISSUE:
	case KT_PLAN_RENEW:
	case KT_PLAN_REISSUE:
		(void)snprintf(flight->plan.text, sizeof(flight->plan.text), "%s",
		               kt_plan_reason_name(flight->plan.reason));
		return begin_new(flight, err);
	case KT_PLAN_RESUME:
		return begin_resume(flight, err);
	case KT_PLAN_REDELIVER:
		return begin_redelivery(flight, err);
	default:
		break;
	}
	if (may_retire(flight, now, &retire_at)) {
		flight->stage = KT_FLIGHT_RETIRE;
		return KT_OK;
	}
	if (flight->plan.due_at <= now) { /* never spin on a plan that names the past */
		flight->plan.due_at = now + KT_SECOND;
	}
	if (flight->plan.remove_at > now && flight->plan.remove_at < flight->plan.due_at) {
		flight->plan.due_at = flight->plan.remove_at;
	}
	return end_at(flight, retire_at < flight->plan.due_at ? retire_at : flight->plan.due_at, err);
}

/* --- commits ------------------------------------------------------------------------------------------------------------ */

static enum kt_code seal_key(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_seal_id id = kt_store_material_seal_id(&flight->resource, flight->material.revision, "key");
	enum kt_code code = kt_pki_key_to_der(flight->key, KT_KEY_PKCS8, &der, err);

	kt_buf_reset(&flight->sealed_key);
	if (code == KT_OK) {
		code = kt_keys_seal(flight->keeper->keys, &id, kt_secret_view(der), &flight->sealed_key, err);
	}
	flight->material.sealed_key = kt_buf_view(&flight->sealed_key);
	return code;
}

static enum kt_code put_material(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code = flight->fresh_row ? kt_store_material_insert(flight->keeper->store, &flight->material, err)
	                                      : kt_store_material_put(flight->keeper->store, &flight->material, err);

	if (code == KT_OK) {
		flight->fresh_row = false;
		flight->cred.candidate = flight->material.id;
	}
	return code;
}

/* The key is sealed; where the issuer is asked elsewhere it is committed before that. */
static enum kt_code commit_keyed(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code = flight->key != NULL && flight->material.sealed_key.len == 0 ? seal_key(flight, err) : KT_OK;

	if (code == KT_OK) {
		code = put_material(flight, err);
	}
	flight->stage = KT_FLIGHT_OBTAIN;
	return code == KT_OK ? put_step(flight, KT_STEP_KEYED, NULL, err) : code;
}

static enum kt_code seal_token(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(&flight->resource, flight->material.revision, "token");

	kt_buf_reset(&flight->sealed_token);
	flight->material.cookie = flight->got.scope;
	return kt_keys_seal(flight->keeper->keys, &id, kt_secret_view(flight->got.token), &flight->sealed_token, err);
}

static enum kt_code commit_obtained(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_material *material = &flight->material;
	const struct kt_obtained *got = &flight->got;
	struct kt_audit_event keyed = {.step = kt_step_name(KT_STEP_KEYED), .outcome = "ok"};
	enum kt_code code = KT_OK;

	if (flight->fresh_row && flight->key != NULL) { /* nobody was asked: key and certificate share this commit */
		code = seal_key(flight, err);
		if (code == KT_OK) {
			code = kt_flight_audit(flight, &keyed, err);
		}
	}
	if (code == KT_OK && got->token != NULL) {
		code = seal_token(flight, err);
		material->sealed_token = kt_buf_view(&flight->sealed_token);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)kt_volume_generation_name(kt_keeper_now(flight->keeper), flight->dir);
	material->chain = kt_view_str(got->chain_pem);
	material->ca = kt_view_str(got->ca_pem);
	material->serial = got->serial;
	material->sha256 = got->sha256;
	material->not_before = got->not_before;
	material->not_after = got->not_after;
	material->issued = kt_keeper_now(flight->keeper);
	material->dir = flight->dir;
	code = put_material(flight, err);
	flight->stage = KT_FLIGHT_STAGE;
	return code == KT_OK ? put_step(flight, KT_STEP_OBTAINED, NULL, err) : code;
}

static enum kt_code commit_staged(struct kt_flight *flight, struct kt_err *err)
{
	bool validate = !flight->validated && !flight->rollback && kt_flight_has_validation(flight);

	flight->stage = validate ? KT_FLIGHT_VALIDATE : KT_FLIGHT_SWITCH;
	return flight->redelivery ? KT_OK : put_step(flight, KT_STEP_STAGED, NULL, err);
}

static enum kt_code commit_validated(struct kt_flight *flight, struct kt_err *err)
{
	flight->stage = KT_FLIGHT_SWITCH;
	return flight->redelivery ? KT_OK
	                          : put_step(flight, KT_STEP_VALIDATED,
	                                     flight->recheck ? "not all could be validated before the switch" : NULL,
	                                     err);
}

/* What was in place becomes the previous, this the current. */
static enum kt_code swap_materials(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_store_cred *cred = &flight->cred;
	enum kt_code code = KT_OK;

	if (cred->active != 0 && cred->active != flight->material.id) {
		/* After a rollback the newer one waits as candidate for its next try. */
		code = kt_store_material_mark(store, cred->active,
		                              flight->rollback ? KT_MATERIAL_PENDING : KT_MATERIAL_PREVIOUS, NULL, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_mark(store, flight->material.id, KT_MATERIAL_CURRENT, flight->dir, err);
	}
	cred->active = flight->material.id;
	cred->candidate = 0;
	cred->expiry = flight->material.not_after;
	cred->delivered_at = kt_keeper_now(flight->keeper);
	return code;
}

/* When the credential is to be looked at next, after the switch. */
static enum kt_code rest(struct kt_flight *flight, bool tasks, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	kt_ms now = kt_keeper_now(flight->keeper);
	enum kt_code code = kt_rotate_plan(flight->keeper, &flight->resource, cred, flight->spec, true, &flight->plan, err);

	if (code != KT_OK) {
		return code;
	}
	if (flight->plan.remove_at > now && flight->plan.remove_at < flight->plan.due_at) {
		flight->plan.due_at = flight->plan.remove_at;
	}
	if (!tasks && flight->previous_dir[0] == '\0') {
		cred->step = KT_STEP_RETIRED; /* nothing to prove, nothing to remove */
	} else if (!tasks && cred->delivered_at + KEEP_PREVIOUS < flight->plan.due_at) {
		flight->plan.due_at = cred->delivered_at + KEEP_PREVIOUS;
	}
	if (flight->plan.due_at <= now) {
		flight->plan.due_at = now + KT_SECOND;
	}
	return end_at(flight, flight->plan.due_at, err);
}

/* The previous set is in place again; the refused one waits as candidate: a retry orders nothing anew. */
static enum kt_code commit_rolled_back(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	const struct kt_plan_retry *row = kt_plan_retry_find(KT_E_MISMATCH, NULL);
	kt_ms now = kt_keeper_now(flight->keeper);
	int64_t refused = cred->active;
	size_t tasks = 0;
	enum kt_code code = swap_materials(flight, err);

	cred->candidate = refused;
	cred->attempts++;
	cred->error_at = now;
	cred->flags &= ~(unsigned)(KT_CRED_ROLL_BACK | KT_CRED_REDELIVER | KT_CRED_FORCED);
	cred->next_try = now + kt_plan_retry_delay(row, cred->attempts, 0,
	                                           cred->expiry > now ? cred->expiry - now : KT_TIME_MAX, (uint64_t)now);
	if (code == KT_OK) {
		code = kt_tasks_add(flight, &tasks, err);
	}
	cred->proof = tasks > 0 ? KT_PROOF_WAITING : KT_PROOF_NOBODY;
	if (code == KT_OK) {
		(void)snprintf(flight->error_text, sizeof(flight->error_text), "%s", cred->error_text);
		code = put_step(flight, KT_STEP_ROLLED_BACK, flight->error_text, err);
	}
	return code == KT_OK ? end_at(flight, cred->next_try, err) : code;
}

static enum kt_code commit_switched(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	size_t tasks = 0;
	enum kt_code code;

	if (flight->rollback) {
		return commit_rolled_back(flight, err);
	}
	code = swap_materials(flight, err);
	cred->deaths = 0;
	if (!flight->retrial) {
		cred->attempts = 0;
		cred->error = KT_OK;
		cred->error_text = NULL;
		cred->next_try = 0;
		cred->cookie = NULL;
	}
	cred->flags &= ~(unsigned)(KT_CRED_FORCED | KT_CRED_REDELIVER | KT_CRED_FAILED);
	if (code == KT_OK) {
		code = put_step(flight, KT_STEP_SWITCHED, flight->redelivery ? "delivered again" : NULL, err);
	}
	if (code == KT_OK && flight->recheck) {
		flight->stage = KT_FLIGHT_RECHECK;
		flight->next_hook = flight->next_hook_consumer = 0;
		return KT_OK;
	}
	if (code == KT_OK) {
		code = kt_tasks_add(flight, &tasks, err);
	}
	cred->proof = tasks > 0 ? KT_PROOF_WAITING : KT_PROOF_NOBODY;
	if (code == KT_OK && flight->spec->kind == KT_RES_CERTIFICATE && flight->spec->certificate.is_ca) {
		code = kt_flight_wake_dependents(flight, err);
	}
	if (!flight->redelivery) {
		flight->keeper->rotations++;
	}
	return code == KT_OK ? rest(flight, tasks > 0, err) : code;
}

static enum kt_code commit_rechecked(struct kt_flight *flight, struct kt_err *err)
{
	size_t tasks = 0;
	enum kt_code code = put_step(flight, KT_STEP_SWITCHED, "validated after the switch", err);

	if (code == KT_OK) {
		code = kt_tasks_add(flight, &tasks, err);
	}
	flight->cred.proof = tasks > 0 ? KT_PROOF_WAITING : KT_PROOF_NOBODY;
	flight->keeper->rotations++;
	return code == KT_OK ? rest(flight, tasks > 0, err) : code;
}

struct retire_marks {
	struct kt_keeper *keeper;
	int64_t active;
	enum kt_code code;
	struct kt_err *err;
};

static bool mark_retired(const struct kt_store_material *material, void *arg)
{
	struct retire_marks *marks = arg;

	if (material->id != marks->active &&
	    (material->state == KT_MATERIAL_PREVIOUS || material->state == KT_MATERIAL_CURRENT)) {
		marks->code = kt_store_material_mark(marks->keeper->store, material->id, KT_MATERIAL_RETIRED, NULL, marks->err);
	}
	return marks->code == KT_OK;
}

static enum kt_code commit_retired(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct retire_marks marks = {flight->keeper, flight->withdraw ? 0 : flight->cred.active, KT_OK, err};
	unsigned keep = flight->spec->kind == KT_RES_CERTIFICATE
	                        ? (unsigned)flight->spec->certificate.revision_history_limit
	                        : 1;
	enum kt_code code = kt_store_material_each(store, flight->id, 64, mark_retired, &marks, err);

	code = code == KT_OK ? marks.code : code;
	if (flight->withdraw) {
		flight->cred.active = 0;
		flight->cred.expiry = 0;
	}
	if (code == KT_OK) {
		code = put_step(flight, KT_STEP_RETIRED, flight->withdraw ? "expired: taken off the disk" : NULL, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_prune(store, flight->id, keep, err);
	}
	return code == KT_OK ? rest(flight, false, err) : code;
}

enum kt_code kt_flight_commit(struct kt_flight *flight, struct kt_err *err)
{
	if (flight->again) {
		flight->again = false;
		return KT_OK;
	}
	switch (flight->stage) {
	case KT_FLIGHT_BEGIN:
		return begin(flight, err);
	case KT_FLIGHT_KEY: /* its effect has ended: the key is there, and for local issuers the certificate too */
		return flight->got.serial[0] != '\0' ? commit_obtained(flight, err) : commit_keyed(flight, err);
	case KT_FLIGHT_OBTAIN:
		return commit_obtained(flight, err);
	case KT_FLIGHT_STAGE:
		return commit_staged(flight, err);
	case KT_FLIGHT_VALIDATE:
		return commit_validated(flight, err);
	case KT_FLIGHT_SWITCH:
		return commit_switched(flight, err);
	case KT_FLIGHT_RECHECK:
		return commit_rechecked(flight, err);
	case KT_FLIGHT_RETIRE:
		return commit_retired(flight, err);
	default:
		flight->stage = KT_FLIGHT_END;
		return KT_OK;
	}
}

enum kt_code kt_flight_wake_dependents(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_store_link link = {"ca-secret", flight->resource.ns, flight->secret_name};
	int64_t issuers[64];
	size_t count = sizeof(issuers) / sizeof(issuers[0]);
	enum kt_code code = kt_store_linked(store, &link, 0, issuers, &count, err);
	size_t i;

	kt_issuers_drop(flight->keeper, true);
	for (i = 0; i < count && code == KT_OK; i++) {
		struct kt_store_resource issuer;
		struct kt_store_link users = {"issuer", NULL, NULL};
		char name[300];
		int64_t ids[512];
		size_t found = sizeof(ids) / sizeof(ids[0]);
		size_t k;

		code = kt_store_resource_get(store, issuers[i], &issuer, err);
		if (code != KT_OK) {
			break;
		}
		(void)snprintf(name, sizeof(name), "%s/%s", issuer.kind, issuer.name);
		users.ns = issuer.ns;
		users.name = name;
		code = kt_store_linked(store, &users, 0, ids, &found, err);
		for (k = 0; k < found && code == KT_OK; k++) {
			struct kt_store_cred cred;

			/* Only those that have nothing yet: the others renew in their own time. */
			if (kt_store_cred_get(store, ids[k], &cred, NULL) != KT_OK) {
				continue;
			}
			if (cred.active == 0 && cred.error == KT_E_LATER) {
				cred.attempts = 0;
				cred.next_try = 0;
				cred.due_at = kt_keeper_now(flight->keeper);
				code = kt_store_cred_put(store, &cred, err);
			}
			kt_store_cred_finish(&cred);
		}
		kt_store_resource_finish(&issuer);
	}
	return code;
}

/* --- failure -------------------------------------------------------------------------------------------------------------- */

enum kt_code kt_flight_fail(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_store_cred *cred = &flight->cred;
	const struct kt_plan_retry *row = kt_plan_retry_find(flight->err.code, flight->err.problem_type);
	kt_ms now = kt_keeper_now(keeper);
	kt_ms left = cred->expiry > now ? cred->expiry - now : KT_TIME_MAX;
	struct kt_audit_event event = {.step = kt_step_name(cred->step == KT_STEP_NEW ? KT_STEP_DUE : cred->step),
	                               .outcome = row->needs_change ? "failed" : "retry",
	                               .reason = flight->error_text,
	                               .error_type = flight->err.problem_type[0] != '\0'
	                                                     ? flight->err.problem_type
	                                                     : kt_code_name(flight->err.code)};
	char cookie[160];
	enum kt_code code;

	(void)snprintf(flight->error_text, sizeof(flight->error_text), "%s", flight->err.what);
	flight->failed = false;
	cred->attempts++;
	cred->error = flight->err.code;
	cred->error_text = flight->error_text;
	cred->error_at = now;
	cred->trace_id = flight->trace_id;
	(void)snprintf(cookie, sizeof(cookie), "%lld %s", (long long)flight->err.retry_after_s, flight->err.problem_type);
	cred->cookie = cookie;
	if (flight->waiting_for[0] != '\0') {
		cred->next_try = now + 250; /* woken when the CA comes; this is only the net below */
		cred->next_try += (kt_ms)cred->attempts * 250 < KT_MINUTE ? (kt_ms)cred->attempts * 250 : KT_MINUTE;
	} else {
		cred->next_try = now + kt_plan_retry_delay(row, cred->attempts, flight->err.retry_after_s, left,
		                                           (uint64_t)flight->id ^ (uint64_t)now);
		kt_log(row->alarm ? KT_LOG_ERROR : KT_LOG_WARN, "%s %s/%s: %s", flight->resource.kind,
		       flight->resource.ns, flight->resource.name, flight->error_text);
	}
	if (row->needs_change) {
		cred->flags |= KT_CRED_FAILED;
	}
	if (flight->stage == KT_FLIGHT_RECHECK) { /* it is in place already: back */
		cred->flags |= KT_CRED_ROLL_BACK;
		cred->next_try = now;
	}
	cred->flags &= ~(unsigned)KT_CRED_FORCED;
	keeper->failures++;
	if (flight->trace_id[0] == '\0') {
		(void)kt_audit_trace_id(now, flight->trace_id);
	}
	code = flight->waiting_for[0] != '\0' && cred->attempts > 1 ? KT_OK : kt_flight_audit(flight, &event, err);
	return code == KT_OK ? end_at(flight, cred->next_try, err) : code;
}

enum kt_code kt_rotate_roll_back(struct kt_keeper *keeper, int64_t credential, const char *reason,
                                 struct kt_err *err)
{
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_get(keeper->store, credential, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	cred.flags |= KT_CRED_ROLL_BACK;
	cred.error = KT_E_MISMATCH;
	cred.error_text = reason;
	cred.due_at = kt_keeper_now(keeper);
	code = kt_store_cred_put(keeper->store, &cred, err);
	kt_store_cred_finish(&cred);
	return code;
}

/* --- effects ---------------------------------------------------------------------------------------------------------------- */

struct key_work {
	struct kt_keeper *keeper;
	int64_t flight;
	enum kt_key_type type;
	unsigned bits;
	struct kt_key *key;
	struct kt_err err;
};

static void make_key(void *arg)
{
	struct key_work *work = arg;

	(void)kt_pki_key_generate(work->type, work->bits, &work->key, &work->err);
}

static void key_made(void *arg)
{
	struct key_work *work = arg;
	struct kt_flight *flight = kt_rotate_find(work->keeper, work->flight);

	if (flight != NULL && flight->waiting && flight->key == NULL) {
		flight->key = work->key;
		work->key = NULL;
		flight->again = work->err.code == KT_OK; /* then the effect goes on: a local issuer signs */
		kt_rotate_wake(flight, &work->err);
	}
	kt_pki_key_destroy(work->key);
	kt_free(work);
}

/* rotationPolicy Never: the key that is in use stays, as long as it is of the kind that is asked for. */
static bool reuse_key(struct kt_flight *flight, enum kt_key_type type, unsigned bits)
{
	struct kt_store_material active = {0};
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_seal_id id;

	if (flight->spec->certificate.private_key.rotation_policy != KT_ROTATION_NEVER || flight->cred.active == 0 ||
	    flight->plan.new_key || kt_store_material_get(flight->keeper->store, flight->cred.active, &active, NULL) != KT_OK) {
		return false;
	}
	id = kt_store_material_seal_id(&flight->resource, active.revision, "key");
	if (kt_keys_unseal(flight->keeper->keys, &id, active.sealed_key, &der, NULL) == KT_OK) {
		(void)kt_pki_key_from_der(kt_secret_view(der), &flight->key, NULL);
	}
	kt_store_material_finish(&active);
	if (flight->key != NULL &&
	    (kt_pki_key_type(flight->key) != type || (bits != 0 && kt_pki_key_bits(flight->key) != bits))) {
		kt_pki_key_destroy(flight->key);
		flight->key = NULL;
	}
	return flight->key != NULL;
}

static enum kt_effect effect_key(struct kt_flight *flight, struct kt_err *err)
{
	static const enum kt_key_type types[] = {KT_KEY_RSA, KT_KEY_ECDSA, KT_KEY_ED25519};
	const struct kt_private_key *wanted = &flight->spec->certificate.private_key;
	enum kt_key_type type = types[wanted->algorithm];
	unsigned bits = (unsigned)wanted->size;
	struct key_work *work;
	enum kt_code code;

	if (flight->key != NULL || flight->spec->kind != KT_RES_CERTIFICATE || reuse_key(flight, type, bits)) {
		return KT_EFFECT_DONE;
	}
	if (type != KT_KEY_RSA) { /* 40 µs: not worth another thread */
		code = kt_pki_key_generate(type, bits, &flight->key, err);
		return code == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
	}
	work = kt_calloc(1, sizeof(*work));
	if (work == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "no memory for a key");
		return KT_EFFECT_FAILED;
	}
	*work = (struct key_work){.keeper = flight->keeper, .flight = flight->id, .type = type, .bits = bits};
	code = kt_loop_work(flight->keeper->loop, make_key, key_made, work, err);
	if (code != KT_OK) {
		kt_free(work);
		return KT_EFFECT_FAILED;
	}
	return KT_EFFECT_PENDING;
}

enum kt_effect kt_flight_effect(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_effect effect;

	switch (flight->stage) {
	case KT_FLIGHT_KEY:
		effect = effect_key(flight, err);
		if (effect != KT_EFFECT_DONE || flight->issuer->ops->remote) {
			return effect;
		}
		return flight->issuer->ops->obtain(flight->keeper, flight, err);
	case KT_FLIGHT_OBTAIN:
		return flight->issuer->ops->obtain(flight->keeper, flight, err);
	case KT_FLIGHT_STAGE:
		effect = kt_publish_stage(flight, err);
		flight->again = effect == KT_EFFECT_PENDING;
		return effect;
	case KT_FLIGHT_VALIDATE:
	case KT_FLIGHT_RECHECK:
		return kt_flight_validate(flight, err);
	case KT_FLIGHT_SWITCH:
		return kt_publish_switch(flight, err) == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
	case KT_FLIGHT_RETIRE:
		return kt_publish_retire(flight, err) == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
	default:
		return KT_EFFECT_DONE;
	}
}
