/* A new secret for a client: chosen, made, stored, tried; and what a kill or a lost answer left behind is mended. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/client/client.h"

#define CALL_TIMEOUT  (20 * KT_SECOND)
#define TRY_TIMEOUT   (30 * KT_SECOND)
#define REFUSED_MAX   2u /* tries at which a secret of ours is refused before another one is made */
#define STILL_IN_USE  "stillInUse"
#define CLEAN_MAX     6u /* secrets that are taken away in one go */

/* Where a flight is; each is entered anew after an answer. */
enum phase {
	PHASE_START = 0,
	PHASE_LOOK,       /* does the secret that is stored for this client still work? */
	PHASE_LIST,       /* which secrets does the server have? */
	PHASE_DEACTIVATE, /* one that nobody uses */
	PHASE_DELETE,
	PHASE_MAKE,
	PHASE_TRY,
	PHASE_DONE
};

/* --- which client ---------------------------------------------------------------------------------------------------- */

static const struct kt_client *client_named(const struct kt_client_credential_spec *spec, const char *client_id)
{
	uint32_t i;

	for (i = 0; i < spec->clients.count; i++) {
		if (strcmp(spec->clients.items[i].client_id, client_id) == 0) {
			return &spec->clients.items[i];
		}
	}
	return NULL;
}

/* The flight's: chosen when it began. */
static const struct kt_client *client_of(const struct kt_flight *flight)
{
	return client_named(&flight->spec->client, flight->order_url);
}

static bool is_previous(const struct kt_store_material *material, void *arg)
{
	bool *found = arg;

	*found = *found || material->state == KT_MATERIAL_PREVIOUS;
	return !*found;
}

bool kt_client_has_previous(struct kt_flight *flight)
{
	bool found = false;

	(void)kt_store_material_each(flight->keeper->store, flight->id, 64, is_previous, &found, NULL);
	return found;
}

static enum kt_code must_wait(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_store_cred *cred = &flight->cred;
	kt_ms now = kt_keeper_now(flight->keeper);
	kt_ms at = cred->delivered_at + flight->spec->client.drain;
	bool proved = cred->proof != KT_PROOF_WAITING && cred->proof != KT_PROOF_FAILED;

	(void)kt_err_set(err, KT_E_LATER, "the secret before this one may still be in use: %s",
	                 proved ? "spec.drain is not over" : "not all consumers have proved the newer one");
	if (err != NULL) {
		(void)snprintf(err->problem_type, sizeof(err->problem_type), STILL_IN_USE);
		err->retry_after_s = proved && at > now ? (at - now) / KT_SECOND + 1 : 60;
	}
	return KT_E_LATER;
}

bool kt_client_must_wait(const struct kt_store_cred *cred)
{
	const char *problem;

	(void)kt_flight_peer_said(cred, &problem);
	return cred->attempts > 0 && strcmp(problem, STILL_IN_USE) == 0;
}

void kt_client_forget_wait(struct kt_store_cred *cred)
{
	if (kt_client_must_wait(cred)) {
		cred->attempts = 0;
		cred->error = KT_OK;
		cred->error_text = NULL;
		cred->cookie = NULL;
	}
}

enum kt_code kt_client_choose(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_client_credential_spec *spec = &flight->spec->client;
	const struct kt_client *chosen = &spec->clients.items[0];
	struct kt_store_material active;
	bool two = spec->strategy == KT_CLIENT_ALTERNATE;
	enum kt_code code;

	if (flight->cred.active != 0 && two) {
		code = kt_store_material_get(flight->keeper->store, flight->cred.active, &active, err);
		if (code != KT_OK) {
			return code;
		}
		if (strcmp(active.order_url, chosen->client_id) == 0) {
			chosen = &spec->clients.items[1];
		}
		kt_store_material_finish(&active);
	}
	if (flight->cred.active != 0 && (two || kt_client_overlaps(spec)) && kt_client_has_previous(flight)) {
		return must_wait(flight, err);
	}
	kt_client_forget_wait(&flight->cred);
	(void)snprintf(flight->order_url, sizeof(flight->order_url), "%s", chosen->client_id);
	flight->client_begun = true;
	return KT_OK;
}

/* --- audit ----------------------------------------------------------------------------------------------------------- */

void kt_client_tell(struct kt_flight *flight, const char *step, const char *outcome, const char *reason)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_audit_event event = {.step = step, .outcome = outcome, .reason = reason};
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = kt_store_begin(store, &err);
	if (code == KT_OK) {
		code = kt_store_end(store, kt_flight_audit(flight, &event, &err), &err);
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "what became of a client's secret is not in the audit trail");
	}
	kt_log(KT_LOG_WARN, "%s %s/%s: %s", flight->resource.kind, flight->resource.ns, flight->resource.name, reason);
}

/* --- trying a secret --------------------------------------------------------------------------------------------------- */

bool kt_client_trying(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_view id, secret;

	if (flight->spec->kind != KT_RES_CLIENT_CREDENTIAL || !kt_client_pair_split(flight->trying, &id, &secret)) {
		return false;
	}
	(void)kt_secret_create(secret.ptr, secret.len, ret, err);
	return true;
}

static void go_on(struct kt_flight *flight, enum phase phase)
{
	flight->client_phase = phase;
	flight->again = true;
	kt_rotate_wake(flight, NULL);
}

/* A secret that does not work now. One of ours that has just been made may only not be known everywhere yet. */
static void on_refused(struct kt_flight *flight, const struct kt_err *why)
{
	struct kt_err err = *why;

	if (flight->client_phase == PHASE_LOOK) {
		kt_client_tell(flight, "reset.lost", "repaired",
		     "the secret that is stored for this client is refused: the answer to a reset was lost; it is reset once more");
		go_on(flight, PHASE_LIST);
		return;
	}
	if (flight->material.sealed_token.len == 0) { /* a person's */
		(void)kt_err_prefix(&err, "the secret that was given for client %s", flight->order_url);
	} else if (flight->cred.attempts >= REFUSED_MAX) {
		kt_client_tell(flight, "reset.lost", "repaired", "the stored secret of this client is refused: it is reset once more");
		kt_secret_destroy(flight->got.token);
		flight->got.token = NULL;
		go_on(flight, PHASE_LIST);
		return;
	} else {
		(void)kt_err_prefix(&err, "the new secret of client %s is refused as yet", flight->order_url);
		err.code = KT_E_LATER;
		(void)snprintf(err.problem_type, sizeof(err.problem_type), "secretRefused");
	}
	kt_rotate_wake(flight, &err);
}

static void on_tried(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_err err = *why;

	(void)msg;
	(void)fds;
	(void)fd_count;
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	kt_secret_destroy(flight->trying);
	flight->trying = NULL;
	if (err.code == KT_OK && type != KT_MINTED) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		go_on(flight, flight->client_phase == PHASE_LOOK ? PHASE_LIST : PHASE_DONE);
	} else if (err.code == KT_E_AUTH) {
		on_refused(flight, &err);
	} else {
		(void)kt_err_prefix(&err, "client %s can't be tried", flight->order_url);
		kt_rotate_wake(flight, &err);
	}
}

enum kt_code kt_client_try(struct kt_flight *flight, kt_wire_reply_fn *tried, struct kt_err *err)
{
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_buf request KT_AUTOBUF = {0};
	struct kt_oauth2_issuer oauth2;
	struct kt_token_spec wanted;
	struct kt_msg_mint msg = {0};
	char traceparent[56];
	char url[2048];
	enum kt_code code;

	if (!kt_client_test_of(&flight->spec->client, client_of(flight), url, &oauth2, &wanted)) {
		return kt_err_set(err, KT_E_NOTFOUND, "spec.test does not say where it is tried");
	}
	kt_buf_init(&issuer, 65536);
	kt_buf_init(&request, 65536);
	code = kt_oauth_issuer_json(&oauth2, kt_oauth_in_flight(flight->keeper), &issuer, err);
	if (code == KT_OK) {
		code = kt_oauth_request_json(&oauth2, &wanted, &request, err);
	}
	if (code != KT_OK) {
		return code;
	}
	kt_rotate_begin_job(flight);
	flight->asked = 0;
	msg.job = flight->job;
	msg.issuer = kt_buf_view(&issuer);
	msg.request = kt_buf_view(&request);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(flight->keeper), KT_MINT, &msg, NULL, 0,
	                    kt_oauth_patience(flight->keeper, TRY_TIMEOUT), tried, flight, err);
}

/* Asks for a token with the pair. DONE: there is nowhere to. */
static enum kt_effect try_pair(struct kt_flight *flight, const struct kt_secret *pair, struct kt_err *err)
{
	struct kt_view all = kt_secret_view(pair);
	enum kt_code code;

	kt_secret_destroy(flight->trying);
	flight->trying = NULL;
	code = kt_secret_create(all.ptr, all.len, &flight->trying, err);
	if (code == KT_OK) {
		code = kt_client_try(flight, on_tried, err);
	}
	if (code == KT_E_NOTFOUND) {
		kt_err_clear(err);
		return KT_EFFECT_DONE;
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

struct find_stored {
	struct kt_flight *flight;
	struct kt_secret *pair;
};

/* The newest one of the flight's client. */
static bool take_stored(const struct kt_store_material *material, void *arg)
{
	struct find_stored *find = arg;
	struct kt_seal_id id = kt_store_material_seal_id(&find->flight->resource, material->revision, "token");

	if (material->sealed_token.len > 0 && strcmp(material->order_url, find->flight->order_url) == 0) {
		(void)kt_keys_unseal(find->flight->keeper->keys, &id, material->sealed_token, &find->pair, NULL);
	}
	return find->pair == NULL;
}

/* DONE: nothing is stored for this client, or there is nowhere to try it. */
static enum kt_effect look(struct kt_flight *flight, struct kt_err *err)
{
	struct find_stored find = {flight, NULL};
	enum kt_effect effect = KT_EFFECT_DONE;

	if (kt_store_material_each(flight->keeper->store, flight->id, 64, take_stored, &find, err) != KT_OK) {
		return KT_EFFECT_FAILED;
	}
	if (find.pair != NULL) {
		effect = try_pair(flight, find.pair, err);
		kt_secret_destroy(find.pair);
	}
	return effect;
}

/* --- calls of the management API ------------------------------------------------------------------------------------------ */

/* Committed before its first use: from here on a kill costs nothing. */
enum kt_code kt_client_store(struct kt_flight *flight, const char *reason, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_seal_id id = kt_store_material_seal_id(&flight->resource, flight->material.revision, "token");
	enum kt_code code;

	kt_buf_reset(&flight->sealed_token);
	code = kt_keys_seal(flight->keeper->keys, &id, kt_secret_view(flight->got.token), &flight->sealed_token, err);
	if (code == KT_OK) {
		code = kt_store_begin(store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	flight->material.sealed_token = kt_buf_view(&flight->sealed_token);
	flight->material.order_url = flight->order_url;
	flight->material.cert_url = flight->cert_url;
	code = kt_store_material_put(store, &flight->material, err);
	if (code == KT_OK) {
		code = kt_flight_step(flight, KT_STEP_ORDERED, reason, err);
	}
	return kt_store_end(store, code, err);
}

static enum kt_code take_made(struct kt_flight *flight, const struct kt_msg_http_done *done, struct kt_err *err)
{
	struct kt_secret *pair = NULL;
	enum kt_code code;

	if (done->secret == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the answer holds no secret");
	}
	code = kt_client_pair_make(kt_view_str(flight->order_url), kt_secret_view(done->secret), &pair, err);
	if (code != KT_OK) {
		return code;
	}
	kt_secret_destroy(flight->got.token);
	flight->got.token = pair;
	(void)snprintf(flight->cert_url, sizeof(flight->cert_url), "%.*s", (int)done->value.len, done->value.ptr);
	return kt_client_store(flight, "the new secret is stored, and not used yet", err);
}

/* The id of the secret that is in force, as its server calls it; "" when not known. */
static enum kt_code in_force_id(struct kt_flight *flight, char out[256], struct kt_err *err)
{
	struct kt_store_material active;
	enum kt_code code = KT_OK;

	out[0] = '\0';
	if (flight->cred.active != 0) {
		code = kt_store_material_get(flight->keeper->store, flight->cred.active, &active, err);
		if (code == KT_OK) {
			(void)snprintf(out, 256, "%s", active.cert_url);
			kt_store_material_finish(&active);
		}
	}
	return code;
}

/* The server's secrets one by one: the one in force stays, all others go. */
static enum kt_code take_listed(struct kt_flight *flight, struct kt_view id, enum phase *ret, struct kt_err *err)
{
	char keep[256];
	enum kt_code code = in_force_id(flight, keep, err);

	*ret = PHASE_LIST;
	if (code != KT_OK) {
		return code;
	}
	if (id.len == 0) { /* the end of the list */
		*ret = flight->stage == KT_FLIGHT_RETIRE ? PHASE_DONE : PHASE_MAKE;
		return KT_OK;
	}
	if (keep[0] == '\0' && flight->cred.active != 0 && flight->client_index > 0) {
		return kt_err_set(err, KT_E_POLICY,
		                  "client %s has more than one secret, and it is not known which one is in use: delete the "
		                  "other one at its server", flight->order_url);
	}
	if (kt_view_eq_str(id, keep) || (keep[0] == '\0' && flight->cred.active != 0)) {
		flight->client_index++;
		return KT_OK;
	}
	if (id.len >= sizeof(flight->client_other) || memchr(id.ptr, '/', id.len) != NULL || ++flight->client_gone > CLEAN_MAX) {
		return kt_err_set(err, KT_E_PROTO, "the list of secrets of client %s can't be understood", flight->order_url);
	}
	(void)snprintf(flight->client_other, sizeof(flight->client_other), "%.*s", (int)id.len, id.ptr);
	*ret = PHASE_DEACTIVATE;
	return KT_OK;
}

static enum kt_code after_call(struct kt_flight *flight, const struct kt_msg_http_done *done, enum phase *ret,
                               struct kt_err *err)
{
	switch ((enum phase)flight->client_phase) {
	case PHASE_LIST:
		return take_listed(flight, done->value, ret, err);
	case PHASE_DEACTIVATE:
		*ret = PHASE_DELETE;
		return KT_OK;
	case PHASE_DELETE:
		kt_client_tell(flight, "secret.deleted", "ok", "a secret of this client that nobody uses is deleted at its server");
		*ret = PHASE_LIST;
		return KT_OK;
	default:
		*ret = PHASE_TRY;
		return take_made(flight, done, err);
	}
}

static void on_called(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_err err = *why;
	enum phase next = PHASE_DONE;
	enum phase phase = (enum phase)flight->client_phase;

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && type != KT_HTTP_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (phase == PHASE_DEACTIVATE && err.code == KT_E_DENIED) { /* it was inactive: its deletion says whether all is well */
		go_on(flight, PHASE_DELETE);
		return;
	}
	if (err.code == KT_OK && after_call(flight, msg, &next, &err) == KT_OK) {
		go_on(flight, next);
		return;
	}
	if (phase == PHASE_MAKE && (err.code == KT_E_NET || err.code == KT_E_TIMEOUT || err.code == KT_E_CLOSED)) {
		(void)snprintf(err.problem_type, sizeof(err.problem_type), "lostAnswer");
	}
	(void)kt_err_prefix(&err, "client %s at %s", flight->order_url, kt_client_issuer_name(&flight->spec->client));
	if (flight->stage == KT_FLIGHT_RETIRE) { /* the next rotation begins with the same */
		kt_log_err(KT_LOG_WARN, &err, "ClientCredential %s/%s: a secret that nobody uses is not deleted yet", flight->resource.ns,
		           flight->resource.name);
		go_on(flight, PHASE_DONE);
		return;
	}
	kt_rotate_wake(flight, &err);
}

/* The Token that may do this; waited for where it is not there yet. */
static enum kt_code bearer_of(struct kt_flight *flight, const char *token_ref, struct kt_secret **ret, struct kt_err *err)
{
	enum kt_code code = kt_oauth_token_of(flight->keeper, flight->resource.ns, token_ref, ret, err);

	flight->waiting_for[0] = '\0';
	if (code == KT_E_LATER && flight->stage != KT_FLIGHT_RETIRE) {
		(void)snprintf(flight->waiting_for, sizeof(flight->waiting_for), "%s/%s", flight->resource.ns, token_ref);
	}
	return code;
}

enum kt_code kt_client_send(struct kt_flight *flight, const struct kt_client_call *wanted, kt_wire_reply_fn *called,
                            struct kt_err *err)
{
	struct kt_secret *bearer KT_AUTOSECRET = NULL;
	struct kt_msg_http msg = {.timeout_ms = CALL_TIMEOUT / 2, .api = true};
	char traceparent[56];
	enum kt_code code = bearer_of(flight, wanted->token_ref, &bearer, err);

	if (code != KT_OK) {
		return code;
	}
	msg.method = kt_view_str(wanted->method);
	msg.url = kt_view_str(wanted->url);
	msg.body = kt_view_str(wanted->body);
	msg.content_type = kt_view_str(wanted->body != NULL ? "application/json" : NULL);
	msg.json_path = kt_view_str(wanted->json_path);
	msg.secret_path = kt_view_str(wanted->secret_path);
	msg.ca_bundle = (struct kt_view){(const char *)wanted->ca_bundle.ptr, wanted->ca_bundle.len};
	msg.token = bearer;
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(flight->keeper), KT_HTTP, &msg, NULL, 0, CALL_TIMEOUT, called, flight, err);
}

static enum kt_code call(struct kt_flight *flight, enum kt_client_what what, struct kt_err *err)
{
	struct kt_client_ask ask = {.what = what,
	                            .client = client_of(flight),
	                            .id = flight->client_other,
	                            .index = flight->client_index};
	struct kt_client_call wanted;
	enum kt_code code = kt_client_call_init(&flight->spec->client, &ask, &wanted, err);

	return code == KT_OK ? kt_client_send(flight, &wanted, on_called, err) : code;
}

static enum kt_effect call_effect(struct kt_flight *flight, enum kt_client_what what, struct kt_err *err)
{
	return call(flight, what, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------ */

/* The secret that a person gave is the one that is delivered: always with static, else only as the very first. */
static bool is_given(const struct kt_flight *flight)
{
	const struct kt_client_credential_spec *spec = &flight->spec->client;

	return client_of(flight)->secret.name != NULL && (spec->issuer.fixed != NULL || flight->cred.active == 0);
}

static enum kt_code take_given(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_secret_ref *ref = &client_of(flight)->secret;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	enum kt_code code = kt_issuers_secret(flight->keeper, flight->resource.ns, ref->name, ref->key, &secret, err);

	kt_secret_destroy(flight->got.token);
	flight->got.token = NULL;
	return code == KT_OK ? kt_client_pair_make(kt_view_str(flight->order_url), kt_secret_view(secret), &flight->got.token, err)
	                     : code;
}

/* What is known of a secret that works: it is named by its client's id and its fingerprint. */
static enum kt_code finish(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_view id, secret;

	if (!kt_client_pair_split(flight->got.token, &id, &secret)) {
		return kt_err_set(err, KT_E_CORRUPT, "what is stored is no client's id and secret");
	}
	kt_sha256_hex(secret.ptr, secret.len, flight->got.sha256);
	(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%.*s", (int)id.len, id.ptr);
	flight->got.not_before = kt_keeper_now(flight->keeper);
	flight->got.not_after = 0;
	return KT_OK;
}

static enum kt_effect start(struct kt_flight *flight, struct kt_err *err)
{
	if (client_of(flight) == NULL) { /* a candidate of other manifests; the plan drops it */
		(void)kt_err_set(err, KT_E_INVALID, "client %s is not in spec.clients any more", flight->order_url);
		return KT_EFFECT_FAILED;
	}
	flight->client_index = flight->client_gone = 0;
	if (flight->got.token != NULL) {
		flight->client_phase = PHASE_TRY;
	} else if (is_given(flight)) {
		if (take_given(flight, err) != KT_OK) {
			return KT_EFFECT_FAILED;
		}
		flight->client_phase = PHASE_TRY;
	} else {
		flight->client_phase = flight->client_begun ? PHASE_LIST : PHASE_LOOK;
	}
	return KT_EFFECT_DONE;
}

static enum kt_effect obtain(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	enum kt_effect effect = KT_EFFECT_DONE;

	(void)keeper;
	if (flight->client_phase == PHASE_START && start(flight, err) != KT_EFFECT_DONE) {
		return KT_EFFECT_FAILED;
	}
	if (flight->client_phase == PHASE_LOOK) {
		effect = look(flight, err);
		if (effect != KT_EFFECT_DONE) {
			return effect;
		}
		flight->client_phase = PHASE_LIST;
	}
	if (flight->client_phase == PHASE_LIST) {
		if (kt_client_overlaps(&flight->spec->client)) {
			return call_effect(flight, KT_CLIENT_LIST, err);
		}
		flight->client_phase = PHASE_MAKE;
	}
	switch ((enum phase)flight->client_phase) {
	case PHASE_DEACTIVATE:
		return call_effect(flight, KT_CLIENT_DEACTIVATE, err);
	case PHASE_DELETE:
		return call_effect(flight, KT_CLIENT_DELETE, err);
	case PHASE_MAKE:
		return call_effect(flight, KT_CLIENT_MAKE, err);
	case PHASE_TRY:
		effect = try_pair(flight, flight->got.token, err);
		break;
	default:
		break;
	}
	if (effect == KT_EFFECT_DONE && finish(flight, err) != KT_OK) {
		effect = KT_EFFECT_FAILED;
	}
	return effect;
}

enum kt_effect kt_client_clean_up(struct kt_flight *flight)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (flight->spec->kind == KT_RES_CLIENT_CREDENTIAL && flight->spec->client.private_key != NULL) {
		return kt_client_key_clean_up(flight);
	}
	if (flight->spec->kind != KT_RES_CLIENT_CREDENTIAL || !kt_client_overlaps(&flight->spec->client) || flight->withdraw ||
	    flight->client_phase == PHASE_DONE || !kt_client_has_previous(flight)) {
		return KT_EFFECT_DONE;
	}
	if (flight->client_phase == PHASE_START) {
		flight->client_phase = PHASE_LIST;
		(void)snprintf(flight->order_url, sizeof(flight->order_url), "%s", flight->spec->client.clients.items[0].client_id);
	}
	if (call(flight, flight->client_phase == PHASE_DEACTIVATE ? KT_CLIENT_DEACTIVATE
	                 : flight->client_phase == PHASE_DELETE   ? KT_CLIENT_DELETE
	                                                          : KT_CLIENT_LIST, &err) == KT_OK) {
		return KT_EFFECT_PENDING;
	}
	kt_log_err(KT_LOG_WARN, &err, "ClientCredential %s/%s: a secret that nobody uses is not deleted yet", flight->resource.ns,
	           flight->resource.name);
	return KT_EFFECT_DONE;
}

const struct kt_issuer_ops kt_issuer_client = {.name = "client", .remote = true, .obtain = obtain};
const struct kt_issuer_ops kt_issuer_client_static = {.name = "client", .obtain = obtain};
