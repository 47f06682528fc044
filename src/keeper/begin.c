/*
 * How a flight begins: the plan decides whether something new is issued, an interrupted flight goes on, a set is
 * delivered again, the previous one is put back, or what is over is taken away.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/client/client.h"
#include "keeper/fallback.h"
#include "keeper/refused.h"
#include "keeper/render.h"


/* Opens what a stored material holds into the flight. */
static enum kt_code open_material(struct kt_flight *flight, int64_t id, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	bool client = flight->spec->kind == KT_RES_CLIENT_CREDENTIAL;
	bool token = flight->spec->kind == KT_RES_TOKEN || client;
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
	if (client) {
		(void)snprintf(flight->cert_url, sizeof(flight->cert_url), "%s", flight->material.cert_url);
	}
	flight->got.not_before = flight->material.not_before;
	flight->got.not_after = flight->material.not_after;
	if (token && flight->material.sealed_token.len > 0) {
		const char *scope = kt_render_token_type(flight->material.cookie, flight->got.token_type);

		(void)snprintf(flight->got.scope, sizeof(flight->got.scope), "%s", scope);
		(void)snprintf(flight->bound_to, sizeof(flight->bound_to), "%s", flight->material.finalize_url);
		code = kt_keys_unseal(keeper->keys, &seal, flight->material.sealed_token, &flight->got.token, err);
	}
	if (code != KT_OK || flight->material.sealed_key.len == 0) {
		return code;
	}
	seal = kt_store_material_seal_id(&flight->resource, flight->material.revision, "key"); /* of a token: DPoP's */
	code = kt_keys_unseal(keeper->keys, &seal, flight->material.sealed_key, &secret, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(secret), &flight->key, err);
	}
	if (code == KT_OK && !token) {
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
	bool dropped = flight->cred.candidate != 0;
	enum kt_code code = dropped ? drop_candidate(flight, err) : KT_OK;

	if (code == KT_OK && flight->spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		code = kt_client_choose(flight, &flight->err);
		if (code != KT_OK) {
			return kt_flight_fail(flight, err);
		}
	}
	if (code != KT_OK) {
		return code;
	}
	/* Who said that the token was refused can follow what came of it. */
	if ((flight->cred.flags & KT_CRED_REFUSED) == 0 || flight->trace_id[0] == '\0') {
		(void)kt_audit_trace_id(now, flight->trace_id);
	}
	if (dropped || flight->cred.step != KT_STEP_DUE || flight->cred.revision == 0) {
		flight->cred.revision++; /* "due" without more: nothing was stored under the number yet */
	}
	flight->material = (struct kt_store_material){.credential = flight->id,
	                                              .revision = flight->cred.revision,
	                                              .state = KT_MATERIAL_PENDING,
	                                              .request_key = flight->resource.request_key,
	                                              .created = now};
	if (flight->spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		flight->material.order_url = flight->order_url;
	}
	flight->fresh_row = true;
	if (flight->plan.reason == KT_WHY_RENEWAL_INFO) { /* remembered: the CA may say the same of this one */
		(void)snprintf(flight->cookie, sizeof(flight->cookie), "{\"why\":\"renewal-info\"}");
		flight->material.cookie = flight->cookie;
	}
	code = kt_fallback_choose(flight, &flight->err);
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	flight->stage = KT_FLIGHT_KEY;
	return kt_flight_step(flight, KT_STEP_DUE, flight->plan.text, err);
}

/* Goes on from the last committed step. */
static enum kt_code begin_resume(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	enum kt_step step = flight->cred.step;
	enum kt_code code;

	flight->retrial = step == KT_STEP_ROLLED_BACK;
	code = open_material(flight, flight->cred.candidate, &flight->err);
	if (code == KT_OK) {
		code = kt_fallback_choose(flight, &flight->err);
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

/*
 * Marks the credential as in work, which kt_flight_end takes back: what is marked at the next start was in work when the
 * keeper died. After two such deaths collect() lets it fly alone, so that the third, if it comes, has one culprit.
 */
static bool is_poison(struct kt_flight *flight)
{
	unsigned deaths = kt_flight_deaths(flight);

	flight->cred.deaths = deaths + 1;
	if (deaths < KT_DEATHS_MAX) {
		return false;
	}
	(void)kt_err_set(&flight->err, KT_E_CANCELLED,
	                 "the keeper died %u times in a row while this credential was in work: its next try waits", deaths);
	(void)snprintf(flight->err.problem_type, sizeof(flight->err.problem_type), "sudden-ends");
	return true;
}

/* The material in force is written again, under a new directory name. */
static enum kt_code begin_redelivery(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code;

	flight->redelivery = true;
	code = open_material(flight, flight->cred.active, &flight->err);
	if (code == KT_OK) {
		code = kt_issuers_get(flight->keeper, flight->spec, &flight->issuer, &flight->err);
	}
	if (code != KT_OK) {
		return kt_flight_fail(flight, err);
	}
	code = kt_store_cred_put(flight->keeper->store, &flight->cred, err); /* that it is in work */
	if (code != KT_OK) {
		return code;
	}
	if (flight->cred.candidate == 0) { /* else it belongs to the renewal that is under way */
		(void)kt_audit_trace_id(kt_keeper_now(flight->keeper), flight->trace_id);
	}
	(void)kt_volume_generation_name(kt_keeper_now(flight->keeper), flight->dir);
	flight->stage = KT_FLIGHT_STAGE;
	return KT_OK;
}

struct find_previous {
	kt_ms now;
	bool endless;    /* a client's secret has no end */
	char reset[300]; /* the client whose secrets before the one in force are refused; "" none */
	int64_t id;
};

static bool good_previous(const struct kt_store_material *material, void *arg)
{
	struct find_previous *find = arg;

	if (material->state == KT_MATERIAL_PREVIOUS && (material->not_after > find->now + KT_SECOND || find->endless) &&
	    (find->reset[0] == '\0' || strcmp(material->order_url, find->reset) != 0)) {
		find->id = material->id;
	}
	return find->id == 0;
}

/* A reset without overlap has ended the client's secrets before it. */
static enum kt_code find_reset(struct kt_flight *flight, struct find_previous *find, struct kt_err *err)
{
	struct kt_store_material active;
	enum kt_code code;

	if (flight->spec->kind != KT_RES_CLIENT_CREDENTIAL || flight->spec->client.issuer.anypoint == NULL) {
		return KT_OK;
	}
	code = kt_store_material_get(flight->keeper->store, flight->cred.active, &active, err);
	if (code == KT_OK) {
		(void)snprintf(find->reset, sizeof(find->reset), "%s", active.order_url);
		kt_store_material_finish(&active);
	}
	return code;
}

/* Back to the material before, where it is still good; else the refused one stays and its consumers are tried on. */
static enum kt_code begin_rollback(struct kt_flight *flight, struct kt_err *err)
{
	struct find_previous find = {.now = kt_keeper_now(flight->keeper), .endless = flight->cred.kind == KT_KIND_CLIENT};
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_ROLLED_BACK),
	                               .outcome = "refused",
	                               .reason = "there is no earlier set that is still good: the new one stays"};
	enum kt_code code = find_reset(flight, &find, err);

	if (code == KT_OK) {
		code = kt_store_material_each(flight->keeper->store, flight->id, 64, good_previous, &find, err);
	}
	if (code != KT_OK) {
		return code;
	}
	if (find.id == 0) {
		flight->cred.flags &= ~KT_CRED_ROLL_BACK;
		code = kt_flight_audit(flight, &event, err);
		return code == KT_OK ? kt_flight_end(flight, find.now + KT_SECOND, err) : code;
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

	*ret_at = cred->delivered_at + kt_flight_keep_previous(flight);
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
	return kt_flight_end(flight, next, err);
}

/* What could not be begun is not wanted any more: nothing is failing then. */
static void forget_failure(struct kt_flight *flight, kt_ms now)
{
	struct kt_store_cred *cred = &flight->cred;

	if (cred->attempts > 0 && cred->next_try <= now && cred->candidate == 0 && cred->active != 0 &&
	    flight->plan.renew_at > now) {
		cred->attempts = 0;
		cred->error = KT_OK;
		cred->error_text = NULL;
		cred->next_try = 0;
		cred->flags &= ~(unsigned)KT_CRED_FAILED;
	}
}

enum kt_code kt_flight_begin(struct kt_flight *flight, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(flight->keeper);
	kt_ms retire_at;
	enum kt_code code;

	if (flight->resource.gone) {
		return kt_flight_end(flight, 0, err);
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
	if (flight->plan.action >= KT_PLAN_ISSUE && is_poison(flight)) {
		flight->redelivery = flight->plan.action == KT_PLAN_REDELIVER;
		return kt_flight_fail(flight, err);
	}
	/* What is to be rotated next may be what was in use before: that is put away first. */
	if (flight->cred.kind == KT_KIND_CLIENT && flight->plan.action >= KT_PLAN_ISSUE &&
	    flight->plan.action <= KT_PLAN_REISSUE && flight->cred.candidate == 0 && kt_client_has_previous(flight) &&
	    may_retire(flight, now, &retire_at)) {
		flight->retire_first = true;
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
	forget_failure(flight, now);
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
	return kt_flight_end(flight, retire_at < flight->plan.due_at ? retire_at : flight->plan.due_at, err);
}
