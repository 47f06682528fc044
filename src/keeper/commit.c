/*
 * What each stage of a flight commits.
 *
 * Every function writes the step that has been done, with its audit record, and chooses the next effect. What a
 * restart needs is in the rows alone: `step` of the credential, its candidate material (key, order URL, chain,
 * directory name). Stages that ask nobody share commits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/admin.h"
#include "keeper/budget.h"
#include "keeper/client/client.h"
#include "keeper/fallback.h"
#include "keeper/refused.h"

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
	return code == KT_OK ? kt_flight_step(flight, KT_STEP_KEYED, NULL, err) : code;
}

static enum kt_code seal_token(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(&flight->resource, flight->material.revision, "token");

	kt_buf_reset(&flight->sealed_token);
	if (flight->spec->kind == KT_RES_TOKEN) {
		flight->material.cookie = flight->got.scope;
	}
	if (flight->spec->kind == KT_RES_TOKEN &&
	    !kt_ascii_ieq(kt_view_str(flight->got.token_type), KT_VIEW_LIT("bearer"))) {
		(void)snprintf(flight->cookie, sizeof(flight->cookie), "%s\t%s", flight->got.token_type, flight->got.scope);
		flight->material.cookie = flight->cookie;
	}
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
	if (flight->spec->kind == KT_RES_TOKEN) {
		material->finalize_url = flight->bound_to;
	}
	code = put_material(flight, err);
	flight->stage = KT_FLIGHT_STAGE;
	if (code == KT_OK && flight->issuer->ops->obtained != NULL) {
		code = flight->issuer->ops->obtained(flight, err);
	}
	return code == KT_OK ? kt_flight_step(flight, KT_STEP_OBTAINED, NULL, err) : code;
}

static enum kt_code commit_staged(struct kt_flight *flight, struct kt_err *err)
{
	bool validate = !flight->validated && !flight->rollback && kt_flight_has_validation(flight);

	flight->stage = validate ? KT_FLIGHT_VALIDATE : KT_FLIGHT_SWITCH;
	return flight->redelivery ? KT_OK : kt_flight_step(flight, KT_STEP_STAGED, NULL, err);
}

static enum kt_code commit_validated(struct kt_flight *flight, struct kt_err *err)
{
	flight->stage = KT_FLIGHT_SWITCH;
	return flight->redelivery ? KT_OK
	                          : kt_flight_step(flight, KT_STEP_VALIDATED,
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
	if (!flight->redelivery || cred->candidate == flight->material.id) { /* else a renewal is under way: it goes on */
		cred->candidate = 0;
	}
	kt_flight_forget_deliveries(cred);
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
	if (!tasks && flight->previous_dir[0] == '\0' && !flight->redelivery && flight->keeper->commit_failures == 0) {
		cred->step = KT_STEP_RETIRED; /* nothing to prove; nothing to remove, also of what was staged and never committed */
	} else if (!tasks && cred->delivered_at + kt_flight_keep_previous(flight) < flight->plan.due_at) {
		flight->plan.due_at = cred->delivered_at + kt_flight_keep_previous(flight);
	}
	if (flight->plan.due_at <= now) { /* a set that was only put back or taken away is followed by its successor at once */
		flight->plan.due_at = flight->redelivery || flight->withdraw || flight->retire_first ? now : now + KT_SECOND;
	}
	return kt_flight_end(flight, flight->plan.due_at, err);
}

/* The previous set is in place again; the refused one waits as candidate: a retry orders nothing anew. */
static enum kt_code commit_rolled_back(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	const struct kt_plan_retry *row = kt_plan_retry_find(KT_E_MISMATCH, NULL);
	kt_ms now = kt_keeper_now(flight->keeper);
	int64_t refused = cred->active;
	size_t tasks = 0;
	int64_t newer = cred->candidate; /* of a renewal that is under way */
	enum kt_code code = swap_materials(flight, err);

	cred->candidate = newer != 0 ? newer : refused;
	if (code == KT_OK && newer != 0 && newer != refused) {
		code = kt_store_material_mark(flight->keeper->store, refused, KT_MATERIAL_FAILED, NULL, err);
	}
	cred->attempts++;
	cred->error_at = now;
	cred->flags &= ~(unsigned)(KT_CRED_ROLL_BACK | KT_CRED_REDELIVER | KT_CRED_FORCED | KT_CRED_REFUSED);
	cred->next_try = now + kt_plan_retry_delay(row, cred->attempts, 0,
	                                           cred->expiry > now ? cred->expiry - now : KT_TIME_MAX, (uint64_t)now);
	if (code == KT_OK) {
		code = kt_tasks_add(flight, &tasks, err);
	}
	cred->proof = tasks > 0 ? KT_PROOF_WAITING : KT_PROOF_NOBODY;
	if (code == KT_OK) {
		(void)snprintf(flight->error_text, sizeof(flight->error_text), "%s", cred->error_text);
		code = kt_flight_step(flight, KT_STEP_ROLLED_BACK, flight->error_text, err);
	}
	if (code == KT_OK) {
		code = kt_oauth_changed(flight, err);
	}
	return code == KT_OK ? kt_flight_end(flight, cred->next_try, err) : code;
}

static enum kt_code commit_switched(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	enum kt_step step = cred->step;
	size_t tasks = 0;
	enum kt_code code;

	if (flight->rollback) {
		return commit_rolled_back(flight, err);
	}
	code = swap_materials(flight, err);
	if (!flight->redelivery) { /* what was refused meanwhile is not in place any more */
		flight->roll_back = false;
		cred->flags &= ~(unsigned)KT_CRED_ROLL_BACK;
	}
	if (code == KT_OK && !flight->redelivery) {
		code = kt_renewal_info_begin(flight, err);
	}
	/* With a candidate this was a delivery in between: its step, its failures and its next try stay. */
	if (!flight->retrial && cred->candidate == 0) {
		cred->attempts = 0;
		cred->error = KT_OK;
		cred->error_text = NULL;
		cred->next_try = 0;
		cred->cookie = NULL;
	}
	/* A set that is only put back does not fulfil a renewal that was asked for: that follows. */
	cred->flags &= ~(unsigned)((flight->redelivery ? 0 : KT_CRED_FORCED | KT_CRED_REFUSED | KT_CRED_HELD) | KT_CRED_REDELIVER |
	                           KT_CRED_FAILED);
	if (code == KT_OK) {
		code = kt_flight_step(flight, KT_STEP_SWITCHED, flight->redelivery ? "delivered again" : NULL, err);
	}
	if (cred->candidate != 0) {
		cred->step = step;
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
	if (code == KT_OK && !flight->redelivery) {
		code = kt_oauth_changed(flight, err);
	}
	if (!flight->redelivery) {
		flight->keeper->rotations++;
	}
	return code == KT_OK ? rest(flight, tasks > 0, err) : code;
}

static enum kt_code commit_rechecked(struct kt_flight *flight, struct kt_err *err)
{
	size_t tasks = 0;
	enum kt_code code = kt_flight_step(flight, KT_STEP_SWITCHED, "validated after the switch", err);

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
	                : flight->spec->kind == KT_RES_CLIENT_CREDENTIAL ? 4 /* the other client's is among them */
	                                                                 : 1;
	struct kt_err why;
	enum kt_code code = kt_store_material_each(store, flight->id, 64, mark_retired, &marks, err);

	code = code == KT_OK ? marks.code : code;
	kt_client_forget_wait(&flight->cred);
	if (flight->withdraw) {
		flight->cred.active = 0;
		flight->cred.expiry = 0;
	}
	kt_err_clear(&why);
	if (code == KT_OK && kt_client_key_retired(flight, &why) != KT_OK) { /* no fault of the store's, whose transaction this is */
		kt_log_err(KT_LOG_WARN, &why, "%s %s/%s: the set without the old key can't be shown", flight->resource.kind,
		           flight->resource.ns, flight->resource.name);
		if (!flight->withdraw) {
			return kt_flight_end(flight, kt_keeper_now(flight->keeper) + KT_MINUTE, err);
		}
	}
	if (code == KT_OK) {
		code = kt_flight_step(flight, KT_STEP_RETIRED, flight->withdraw ? "expired: taken off the disk" : NULL, err);
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
		return kt_flight_begin(flight, err);
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

struct waking {
	struct kt_keeper *keeper;
	enum kt_code code;
	struct kt_err *err;
};

static bool wake_user(int64_t id, void *arg)
{
	struct waking *waking = arg;
	struct kt_store *store = waking->keeper->store;
	struct kt_store_cred cred;

	/* Only those that wait for it: the others renew in their own time. */
	if (kt_store_cred_get(store, id, &cred, NULL) != KT_OK) {
		return true;
	}
	if (cred.error == KT_E_LATER && (cred.active == 0 || cred.attempts > 0)) {
		cred.attempts = 0;
		cred.next_try = 0;
		cred.due_at = kt_keeper_now(waking->keeper);
		waking->keeper->look = true;
		waking->code = kt_store_cred_put(store, &cred, waking->err);
	}
	kt_store_cred_finish(&cred);
	return waking->code == KT_OK;
}

static bool wake_users(int64_t id, void *arg)
{
	struct waking *waking = arg;
	struct kt_store *store = waking->keeper->store;
	struct kt_store_resource issuer;
	struct kt_store_link users = {"issuer", NULL, NULL};
	char name[300];
	enum kt_code code = kt_store_resource_get(store, id, &issuer, waking->err);

	if (code == KT_OK) {
		(void)snprintf(name, sizeof(name), "%s/%s", issuer.kind, issuer.name);
		users.ns = issuer.ns;
		users.name = name;
		code = kt_store_linked_each(store, &users, wake_user, waking, waking->err);
		kt_store_resource_finish(&issuer);
	}
	waking->code = waking->code == KT_OK ? code : waking->code;
	return waking->code == KT_OK;
}

enum kt_code kt_flight_wake_dependents(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_link link = {"ca-secret", flight->resource.ns, flight->secret_name};
	struct waking waking = {flight->keeper, KT_OK, err};
	enum kt_code code;

	kt_issuers_drop(flight->keeper, true);
	code = kt_store_linked_each(flight->keeper->store, &link, wake_users, &waking, err);
	return code == KT_OK ? waking.code : code;
}

void kt_flight_forget_deliveries(struct kt_store_cred *cred)
{
	cred->deliver_failures = 0;
	cred->deliver_at = 0;
	cred->deliver_error = KT_OK;
	cred->deliver_text = NULL;
}

static enum kt_level level_of(const struct kt_flight *flight, const struct kt_plan_retry *row)
{
	return kt_admin_will_report(flight->keeper, flight->id) ? KT_LOG_INFO : row->alarm ? KT_LOG_ERROR : KT_LOG_WARN;
}

/* What is in force could not be delivered again: that is tried at its own pace, and holds up nothing else. */
static enum kt_code fail_delivery(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_cred *cred = &flight->cred;
	const struct kt_plan_retry *row = kt_plan_retry_find(flight->err.code, NULL);
	struct kt_audit_event event = {.step = "delivered",
	                               .outcome = row->needs_change ? "failed" : "retry",
	                               .reason = flight->error_text,
	                               .error_type = kt_code_name(flight->err.code)};
	enum kt_code code;

	(void)snprintf(flight->error_text, sizeof(flight->error_text), "%s", flight->err.what);
	flight->failed = false;
	cred->deliver_failures++;
	cred->deliver_at = kt_keeper_now(flight->keeper);
	cred->deliver_error = flight->err.code;
	cred->deliver_text = flight->error_text;
	flight->keeper->failures++;
	kt_log(level_of(flight, row), "%s %s/%s can't be delivered again: %s", flight->resource.kind,
	       flight->resource.ns, flight->resource.name, flight->error_text);
	code = kt_flight_audit(flight, &event, err);
	if (code == KT_OK) {
		code = kt_rotate_plan(flight->keeper, &flight->resource, cred, flight->spec, true, &flight->plan, err);
	}
	return code == KT_OK ? kt_flight_end(flight, flight->plan.due_at, err) : code;
}

/* What the CA allows is used up, which is no failure: the plan says so, and when it is tried again. */
static enum kt_code hold_back(struct kt_flight *flight, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(flight->keeper);

	flight->failed = false;
	if (kt_fallback_is_other(flight, true)) { /* which has room */
		return kt_flight_end(flight, now, err);
	}
	return kt_flight_end(flight, flight->held_until, err);
}

enum kt_code kt_flight_fail(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_store_cred *cred = &flight->cred;
	const struct kt_plan_retry *row = kt_flight_retry_row(cred, flight->err.code, flight->err.problem_type);
	kt_ms now = kt_keeper_now(keeper);
	/* Nothing yet: no hurry. Over: 0, which is the greatest. */
	kt_ms left = cred->expiry == 0 ? KT_TIME_MAX : cred->expiry > now ? cred->expiry - now : 0;
	struct kt_audit_event event = {.step = kt_step_name(cred->step == KT_STEP_NEW ? KT_STEP_DUE : cred->step),
	                               .outcome = row->needs_change ? "failed" : "retry",
	                               .reason = flight->error_text,
	                               .error_type = flight->err.problem_type[0] != '\0'
	                                                     ? flight->err.problem_type
	                                                     : kt_code_name(flight->err.code)};
	char cookie[160];
	enum kt_code code;

	if (flight->redelivery && !flight->rollback && flight->stage != KT_FLIGHT_RECHECK) {
		return fail_delivery(flight, err);
	}
	/* The courier brings it back to us; that we said so is what counts. */
	if (flight->held_until != 0 && strcmp(flight->err.problem_type, KT_BUDGET_PROBLEM) == 0) {
		return hold_back(flight, err);
	}
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
		kt_log(level_of(flight, row), "%s %s/%s: %s", flight->resource.kind,
		       flight->resource.ns, flight->resource.name, flight->error_text);
	}
	if (row->needs_change) {
		cred->flags |= KT_CRED_FAILED;
	}
	if (flight->stage == KT_FLIGHT_RECHECK) { /* it is in place already: back */
		cred->flags |= KT_CRED_ROLL_BACK;
		cred->next_try = now;
	}
	if (cred->candidate != 0 || (flight->err.code != KT_E_NOMEM && flight->err.code != KT_E_SYS)) {
		cred->flags &= ~(unsigned)KT_CRED_FORCED; /* else nothing has been begun, and it still is what somebody wants */
	}
	keeper->failures++;
	if (flight->trace_id[0] == '\0') {
		(void)kt_audit_trace_id(now, flight->trace_id);
	}
	code = flight->waiting_for[0] != '\0' && cred->attempts > 1 ? KT_OK : kt_flight_audit(flight, &event, err);
	if (code == KT_OK) {
		code = kt_budget_failed(flight, err);
	}
	if (code == KT_OK) {
		code = kt_fallback_failed(flight, row, err);
	}
	if (code == KT_OK && kt_fallback_is_other(flight, false)) {
		cred->next_try = now + KT_SECOND; /* it has not failed there yet */
		cred->flags |= KT_CRED_ELSEWHERE;
	}
	return code == KT_OK ? kt_flight_end(flight, cred->next_try, err) : code;
}

enum kt_code kt_rotate_roll_back(struct kt_keeper *keeper, int64_t credential, const char *reason,
                                 struct kt_err *err)
{
	struct kt_flight *flight = kt_rotate_find(keeper, credential);
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_get(keeper->store, credential, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	cred.flags |= KT_CRED_ROLL_BACK;
	cred.error = KT_E_MISMATCH;
	cred.error_text = reason;
	cred.due_at = kt_keeper_now(keeper);
	keeper->look = true;
	code = kt_store_cred_put(keeper->store, &cred, err);
	if (code == KT_OK && flight != NULL && !flight->rollback && flight->cred.active == cred.active) {
		flight->roll_back = true; /* what it writes next would take the flag back */
		flight->cred.flags |= KT_CRED_ROLL_BACK;
	}
	kt_store_cred_finish(&cred);
	return code;
}
