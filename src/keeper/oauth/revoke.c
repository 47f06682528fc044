/*
 * Superseded tokens are taken back at their server (RFC 7009).
 *
 * When the generation before is retired, its tokens are revoked first: so a kill in between begins again here. What fails
 * is tried a few times and then left to its end: nobody waits for it.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "keeper/flight.h"
#include "keeper/oauth/oauth.h"

#define TRIES_MAX      3u
#define REVOKE_TIMEOUT (20 * KT_SECOND)
#define AT_ONCE_MAX    8u /* tokens of one credential */

struct find {
	kt_ms now;
	int64_t active, after;
	char in_force[72]; /* SHA-256 of the active one */
	int64_t id;
};

/* The oldest one that is newer than the last one done. A server may have given the token that is in force once more. */
static bool superseded(const struct kt_store_material *material, void *arg)
{
	struct find *find = arg;

	if (material->id != find->active && material->id > find->after && material->state == KT_MATERIAL_PREVIOUS &&
	    material->not_after > find->now && material->sealed_token.len > 0 &&
	    strcmp(material->sha256, find->in_force) != 0) {
		find->id = material->id;
	}
	return true;
}

static void audit(struct kt_flight *flight, const struct kt_err *why)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_store_material material;
	struct kt_audit_event event = {.trace_id = flight->trace_id,
	                               .actor = "agent",
	                               .kind = flight->resource.kind,
	                               .ns = flight->resource.ns,
	                               .name = flight->resource.name,
	                               .issuer = flight->issuer->ref,
	                               .step = "revoked",
	                               .outcome = why->code == KT_OK ? "ok" : "failed",
	                               .reason = why->code == KT_OK ? "superseded" : why->what,
	                               .error_type = why->code == KT_OK ? NULL : kt_code_name(why->code)};
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = kt_store_material_get(store, flight->revoking, &material, &err);
	if (code == KT_OK) {
		event.token_id = material.serial;
		event.sha256 = material.sha256;
		event.revision = material.revision;
		code = kt_store_begin(store, &err);
		if (code == KT_OK) {
			code = kt_store_end(store, kt_keeper_audit(flight->keeper, &event, &err), &err);
		}
		kt_store_material_finish(&material);
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "the revocation of a token is not in the audit trail");
	}
}

/* Whether the same may go better in a moment. */
static bool may_pass(const struct kt_err *why)
{
	return why->code == KT_E_NET || why->code == KT_E_TIMEOUT || why->code == KT_E_LATER || why->code == KT_E_PROTO ||
	       why->code == KT_E_CLOSED;
}

/* The next token is due or asked for: until this flight ends nobody asks for it. */
static bool is_pressing(const struct kt_flight *flight)
{
	return flight->forced || flight->refused[0] != '\0' || flight->plan.due_at <= kt_keeper_now(flight->keeper);
}

static void on_revoked(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_err err = *why;

	(void)msg;
	(void)fds;
	(void)fd_count;
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (err.code == KT_OK && type != KT_TOKEN_OP_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK || !may_pass(&err) || ++flight->revoke_tries >= TRIES_MAX || is_pressing(flight)) {
		audit(flight, &err);
		if (err.code != KT_OK) {
			kt_log_err(KT_LOG_WARN, &err, "Token %s/%s: its superseded token is not revoked", flight->resource.ns,
			           flight->resource.name);
		}
		flight->revoked = flight->revoking;
		flight->revoked_count++;
		flight->revoke_tries = 0;
	}
	flight->again = true; /* the next one, or what is left of retiring */
	kt_rotate_wake(flight, NULL);
}

static enum kt_code ask(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_store_material material;
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_oauth2_issuer oauth2;
	struct kt_msg_token_op msg = {.op = KT_VIEW_LIT("revoke")};
	struct kt_seal_id id;
	char traceparent[56];
	enum kt_code code = kt_store_material_get(keeper->store, flight->revoking, &material, err);

	if (code != KT_OK) {
		return code;
	}
	id = kt_store_material_seal_id(&flight->resource, material.revision, "token");
	code = kt_keys_unseal(keeper->keys, &id, material.sealed_token, &token, err);
	kt_store_material_finish(&material);
	kt_buf_init(&issuer, 65536);
	if (code == KT_OK) {
		code = kt_oauth_issuer_now(flight, &oauth2, err);
	}
	if (code == KT_OK) {
		code = kt_oauth_issuer_json(&oauth2, kt_oauth_in_flight(keeper), &issuer, err);
	}
	if (code != KT_OK) {
		return code;
	}
	kt_rotate_begin_job(flight);
	flight->asked = 0;
	msg.job = flight->job;
	msg.issuer = kt_buf_view(&issuer);
	msg.token = token;
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(keeper), KT_TOKEN_OP, &msg, NULL, 0, kt_oauth_patience(keeper, REVOKE_TIMEOUT), on_revoked,
	                    flight, err);
}

static enum kt_code look(const struct kt_flight *flight, struct find *find, struct kt_err *err)
{
	struct kt_store_material active;
	enum kt_code code = kt_store_material_get(flight->keeper->store, flight->cred.active, &active, err);

	if (code == KT_OK) {
		(void)snprintf(find->in_force, sizeof(find->in_force), "%s", active.sha256);
		kt_store_material_finish(&active);
		code = kt_store_material_each(flight->keeper->store, flight->id, 64, superseded, find, err);
	}
	return code;
}

enum kt_effect kt_oauth_revoke_superseded(struct kt_flight *flight)
{
	struct find find = {.now = kt_keeper_now(flight->keeper), .active = flight->cred.active, .after = flight->revoked};
	struct kt_err err;

	kt_err_clear(&err);
	if (flight->spec->kind != KT_RES_TOKEN || flight->withdraw || flight->revoked_count >= AT_ONCE_MAX ||
	    kt_issuers_get(flight->keeper, flight->spec, &flight->issuer, &err) != KT_OK ||
	    flight->issuer->ops != &kt_issuer_oauth2 || !flight->issuer->spec->token_issuer.oauth2->revoke_superseded) {
		return KT_EFFECT_DONE;
	}
	if (look(flight, &find, &err) != KT_OK || find.id == 0) {
		return KT_EFFECT_DONE;
	}
	flight->revoking = find.id;
	if (ask(flight, &err) == KT_OK) {
		return KT_EFFECT_PENDING;
	}
	kt_rotate_end_job(flight, false);
	kt_log_err(KT_LOG_WARN, &err, "Token %s/%s: its superseded token is not revoked", flight->resource.ns,
	           flight->resource.name);
	audit(flight, &err);
	flight->revoked_count = AT_ONCE_MAX; /* said once, also when the effect begins again */
	return KT_EFFECT_DONE;
}
