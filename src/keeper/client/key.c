/* A client that shows itself by a key: made here, made known to its server, tried, and taken back when its time is over. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/budget.h"
#include "keeper/client/client.h"
#include "keeper/oauth/oauth.h"

#define KEYS_MAX  32768u
#define GONE_MAX  6u  /* keys that are taken away in one go */
#define LIST_MAX  64u /* keys of one application that are looked at */
#define REFUSALS  2u  /* of a key that the server has said to have: from then on its list is read first */

/* Where a flight is; each is entered anew after an answer. */
enum phase {
	PHASE_START = 0,
	PHASE_SHOW,       /* hosted: the set with the new key */
	PHASE_LIST,       /* Okta: kid by kid; the key of an answer that was lost is found here */
	PHASE_ID,         /* ... what the server calls the one that was found */
	PHASE_CHECK,      /* ... and whether it is that one: the list may have changed in between */
	PHASE_STATUS,     /* of the new one */
	PHASE_ACTIVATE,
	PHASE_DEACTIVATE, /* of one that nobody uses */
	PHASE_DELETE,
	PHASE_MAKE,
	PHASE_TRY,
	PHASE_DONE
};

static const struct kt_client_key *key_of(const struct kt_flight *flight)
{
	return flight->spec->client.private_key;
}

static const char *client_id_of(const struct kt_flight *flight)
{
	return flight->spec->client.clients.items[0].client_id;
}

void kt_client_key_kind(const struct kt_client_key *spec, enum kt_key_type *type, unsigned *bits)
{
	switch (spec->algorithm) {
	case KT_ASSERTION_EDDSA:
		*type = KT_KEY_ED25519;
		*bits = 0;
		break;
	case KT_ASSERTION_RS256:
	case KT_ASSERTION_PS256:
		*type = KT_KEY_RSA;
		*bits = 2048;
		break;
	default:
		*type = KT_KEY_ECDSA;
		*bits = spec->algorithm == KT_ASSERTION_ES384 ? 384 : 256;
		break;
	}
}

/* --- the keys that are stored ------------------------------------------------------------------------------------------ */

static enum kt_code open_key(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                             const struct kt_store_material *material, struct kt_key **ret, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(resource, material->revision, "key");
	struct kt_secret *der KT_AUTOSECRET = NULL;
	enum kt_code code = kt_keys_unseal(keeper->keys, &id, material->sealed_key, &der, err);

	return code == KT_OK ? kt_pki_key_from_der(kt_secret_view(der), ret, err) : code;
}

enum kt_code kt_client_key_in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_key **ret,
                                    enum kt_assertion_alg *ret_alg, struct kt_err *err)
{
	struct kt_store_resource resource = {0};
	struct kt_store_material material = {0};
	struct kt_resource *spec = NULL;
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_find_secret(keeper->store, ns, secret_name, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	code = cred.active != 0 ? kt_store_resource_get(keeper->store, cred.id, &resource, err)
	                        : kt_err_set(err, KT_E_LATER, "the ClientCredential with the secretName %s has no key yet", secret_name);
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, cred.active, &material, err);
	}
	if (code == KT_OK) {
		code = kt_load_spec(&resource, &spec, err);
	}
	if (code == KT_OK && (spec->kind != KT_RES_CLIENT_CREDENTIAL || material.sealed_key.len == 0)) {
		code = kt_err_set(err, KT_E_INVALID, "the ClientCredential with the secretName %s has a secret, and no key: set its "
		                  "spec.privateKey, or name it as clientSecretRef", secret_name);
	}
	if (code == KT_OK) {
		*ret_alg = spec->client.private_key != NULL ? spec->client.private_key->algorithm : KT_ASSERTION_DEFAULT;
		code = open_key(keeper, &resource, &material, ret, err);
	}
	kt_resource_destroy(spec);
	kt_store_material_finish(&material);
	kt_store_resource_finish(&resource);
	kt_store_cred_finish(&cred);
	return code;
}

/* --- the set that is shown --------------------------------------------------------------------------------------------- */

struct collect {
	struct kt_keeper *keeper;
	const struct kt_store_resource *resource;
	const struct kt_client_key *key;
	int64_t active, candidate;
	struct kt_buf *out;
	enum kt_code code;
	struct kt_err *err;
};

/* In force, in use until a moment ago, or about to be. */
static bool collect_key(const struct kt_store_material *material, void *arg)
{
	struct collect *collect = arg;
	struct kt_key *key KT_AUTOKEY = NULL;
	enum kt_jose_alg alg = kt_oauth_alg(collect->key->algorithm);

	if (material->sealed_key.len == 0 || (material->id != collect->active && material->id != collect->candidate &&
	                                      material->state != KT_MATERIAL_PREVIOUS)) {
		return true;
	}
	collect->code = open_key(collect->keeper, collect->resource, material, &key, collect->err);
	if (collect->code == KT_OK) {
		kt_buf_adds(collect->out, collect->out->len > 0 ? "," : "");
		/* One of before spec.privateKey.algorithm was changed keeps its own. */
		collect->code = kt_jose_jwk_published(key, kt_jose_alg_fits(alg, key) ? alg : KT_JOSE_NONE, NULL, collect->out,
		                                      collect->err);
	}
	return collect->code == KT_OK;
}

enum kt_code kt_client_keys_show(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                                 const struct kt_resource *spec, const struct kt_store_cred *cred, kt_wire_reply_fn *shown,
                                 void *arg, bool *ret_pending, struct kt_err *err)
{
	const struct kt_client_hosted *hosted = spec->client.issuer.hosted;
	struct kt_buf keys KT_AUTOBUF = {0};
	struct collect collect = {.keeper = keeper,
	                          .resource = resource,
	                          .key = spec->client.private_key,
	                          .active = cred->active,
	                          .candidate = cred->candidate,
	                          .out = &keys,
	                          .err = err};
	struct kt_jwks_place place = {.publish = &hosted->publish_jwks,
	                              .url = hosted->jwks_url,
	                              .max_age = spec->client.private_key->publish_ahead};
	enum kt_code code;

	*ret_pending = false;
	kt_buf_init(&keys, KEYS_MAX);
	code = kt_store_material_each(keeper->store, resource->id, 64, collect_key, &collect, err);
	code = code == KT_OK ? collect.code : code;
	if (code == KT_OK) {
		code = kt_buf_check(&keys, "key set", err);
	}
	return code == KT_OK ? kt_jwks_show(keeper, &place, kt_buf_view(&keys), shown, arg, ret_pending, err) : code;
}

static bool show_one(const struct kt_store_resource *row, void *arg)
{
	struct kt_keeper *keeper = arg;
	struct kt_resource *spec = NULL;
	struct kt_store_cred cred;
	struct kt_err err;
	bool pending;

	kt_err_clear(&err);
	if (row->gone || kt_load_spec(row, &spec, &err) != KT_OK) {
		return true;
	}
	if (spec->client.issuer.hosted != NULL && kt_store_cred_get(keeper->store, row->id, &cred, &err) == KT_OK) {
		if (kt_client_keys_show(keeper, row, spec, &cred, NULL, NULL, &pending, &err) != KT_OK) {
			kt_log_err(KT_LOG_WARN, &err, "%s/%s: the client's keys are not shown", row->ns, row->name);
		}
		kt_store_cred_finish(&cred);
	}
	kt_resource_destroy(spec);
	return true;
}

void kt_client_keys_show_all(struct kt_keeper *keeper)
{
	(void)kt_store_resource_each(keeper->store, "ClientCredential", 0, 1000, show_one, keeper, NULL);
}

enum kt_code kt_client_key_retired(struct kt_flight *flight, struct kt_err *err)
{
	bool pending;

	if (flight->spec->kind != KT_RES_CLIENT_CREDENTIAL || flight->spec->client.issuer.hosted == NULL) {
		return KT_OK;
	}
	return kt_client_keys_show(flight->keeper, &flight->resource, flight->spec, &flight->cred, NULL, NULL, &pending, err);
}

/* --- steps of a flight --------------------------------------------------------------------------------------------------- */

static void go_on(struct kt_flight *flight, enum phase phase)
{
	flight->client_phase = phase;
	flight->again = true;
	kt_rotate_wake(flight, NULL);
}

static bool retiring(const struct kt_flight *flight)
{
	return flight->stage == KT_FLIGHT_RETIRE;
}

/* The server knows the key, or can: from here on it may be tried. */
static enum kt_code known(struct kt_flight *flight, const char *reason, struct kt_err *err)
{
	char kid[KT_JOSE_THUMBPRINT];
	struct kt_secret *pair = NULL;
	enum kt_code code = kt_jose_thumbprint(flight->key, kid, err);

	if (code == KT_OK) {
		code = kt_client_pair_make(kt_view_str(client_id_of(flight)), kt_view_str(kid), &pair, err);
	}
	if (code != KT_OK) {
		return code;
	}
	kt_secret_destroy(flight->got.token);
	flight->got.token = pair;
	flight->got.not_before = flight->material.not_before = kt_keeper_now(flight->keeper);
	return kt_client_store(flight, reason, err);
}

static void on_shown(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;

	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	if (why->code == KT_OK) {
		go_on(flight, PHASE_TRY);
	} else {
		kt_rotate_wake(flight, why);
	}
}

/* The new key is out; servers that have read the set just before see it when their copy has grown old. */
static enum kt_effect wait_until_seen(struct kt_flight *flight, struct kt_err *err)
{
	kt_ms now = kt_keeper_now(flight->keeper);
	bool first = flight->got.token == NULL || flight->got.not_before > now; /* or the clock was set back: counted anew */
	kt_ms at;

	if (first && known(flight, "the new key is shown, and not used yet", err) != KT_OK) {
		return KT_EFFECT_FAILED;
	}
	at = flight->got.not_before + key_of(flight)->publish_ahead;
	if (flight->cred.active == 0 || at <= now) { /* before the very first one nobody can have read a set */
		return KT_EFFECT_DONE;
	}
	(void)kt_err_set(err, KT_E_LATER, "the new key is shown; it is used when every server has had time to read it");
	(void)snprintf(err->problem_type, sizeof(err->problem_type), KT_BUDGET_PROBLEM);
	flight->held_until = at;
	return KT_EFFECT_FAILED;
}

/* --- trying ------------------------------------------------------------------------------------------------------------------ */

bool kt_client_tries_key(const struct kt_flight *flight)
{
	return flight->spec->kind == KT_RES_CLIENT_CREDENTIAL && flight->spec->client.private_key != NULL && flight->key != NULL &&
	       flight->stage == KT_FLIGHT_OBTAIN && flight->client_phase == PHASE_TRY;
}

enum kt_code kt_client_key_assert(struct kt_flight *flight, const struct kt_oauth_moment *moment, struct kt_secret **ret,
                                  struct kt_err *err)
{
	struct kt_oauth2_issuer oauth2;
	struct kt_token_spec request;
	char url[2048];

	if (++flight->asked > KT_CLIENT_ASKED_MAX ||
	    !kt_client_test_of(&flight->spec->client, &flight->spec->client.clients.items[0], url, &oauth2, &request)) {
		return kt_err_set(err, KT_E_LIMIT, "the courier asks too much for one try");
	}
	return kt_oauth_assertion(&oauth2, flight->key, (struct kt_view){NULL, 0}, moment, ret, err);
}

/* A key is not made anew for that: who reads a set or a list late takes it the next time. */
static void on_refused(struct kt_flight *flight, const struct kt_err *why)
{
	struct kt_err err = *why;

	(void)kt_err_prefix(&err, "the new key of client %s is refused as yet", client_id_of(flight));
	err.code = KT_E_LATER;
	(void)snprintf(err.problem_type, sizeof(err.problem_type), "secretRefused");
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
	if (err.code == KT_OK && type != KT_MINTED) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		go_on(flight, PHASE_DONE);
	} else if (err.code == KT_E_AUTH || strcmp(err.problem_type, "invalid_client") == 0) {
		on_refused(flight, &err);
	} else {
		(void)kt_err_prefix(&err, "client %s can't be tried", client_id_of(flight));
		kt_rotate_wake(flight, &err);
	}
}

/* --- Okta ------------------------------------------------------------------------------------------------------------------- */

struct find_kid {
	struct kt_flight *flight;
	struct kt_view kid;
	bool ours, gone;
};

static bool match_kid(const struct kt_store_material *material, void *arg)
{
	struct find_kid *find = arg;
	const struct kt_store_cred *cred = &find->flight->cred;
	struct kt_key *key KT_AUTOKEY = NULL;
	char kid[KT_JOSE_THUMBPRINT];

	if (material->sealed_key.len == 0 || open_key(find->flight->keeper, &find->flight->resource, material, &key, NULL) != KT_OK ||
	    kt_jose_thumbprint(key, kid, NULL) != KT_OK || !kt_view_eq_str(find->kid, kid)) {
		return true;
	}
	find->ours = true;
	find->gone = material->id != cred->active && material->id != cred->candidate && material->state != KT_MATERIAL_CURRENT &&
	             (material->state != KT_MATERIAL_PREVIOUS || retiring(find->flight));
	return false;
}

/* A kid of the server's list: the new one, one of ours whose time is over, or one that is none of our business. */
static enum kt_code take_listed(struct kt_flight *flight, struct kt_view kid, enum phase *ret, struct kt_err *err)
{
	struct find_kid find = {.flight = flight, .kid = kid};
	char own[KT_JOSE_THUMBPRINT] = "";
	enum kt_code code = flight->key != NULL ? kt_jose_thumbprint(flight->key, own, err) : KT_OK;

	if (code != KT_OK) {
		return code;
	}
	if (kid.len == 0) { /* the end of the list */
		*ret = retiring(flight) ? PHASE_DONE : PHASE_MAKE;
		return KT_OK;
	}
	*ret = PHASE_LIST;
	flight->client_take = !retiring(flight) && kt_view_eq_str(kid, own);
	if (!flight->client_take) {
		code = kt_store_material_each(flight->keeper->store, flight->id, 64, match_kid, &find, err);
		if (code != KT_OK || !find.ours || !find.gone) {
			flight->client_index++;
			return code != KT_OK ? code
			       : flight->client_index < LIST_MAX
			               ? KT_OK
			               : kt_err_set(err, KT_E_LIMIT, "the application has more than %u keys", LIST_MAX);
		}
		if (++flight->client_gone > GONE_MAX) {
			return kt_err_set(err, KT_E_PROTO, "keys that were deleted are still in the list");
		}
	}
	if (kid.len >= sizeof(flight->client_kid)) {
		return kt_err_set(err, KT_E_PROTO, "the list of keys can't be understood");
	}
	(void)snprintf(flight->client_kid, sizeof(flight->client_kid), "%.*s", (int)kid.len, kid.ptr);
	*ret = PHASE_ID;
	return KT_OK;
}

/* The server's name of a key goes into URLs. */
static enum kt_code take_id(struct kt_flight *flight, struct kt_view id, struct kt_err *err)
{
	if (id.len == 0 || id.len >= sizeof(flight->client_other) || memchr(id.ptr, '/', id.len) != NULL) {
		return kt_err_set(err, KT_E_PROTO, "the server's id of a key can't be understood");
	}
	(void)snprintf(flight->client_other, sizeof(flight->client_other), "%.*s", (int)id.len, id.ptr);
	return KT_OK;
}

static enum kt_code key_is_there(struct kt_flight *flight, struct kt_err *err)
{
	(void)snprintf(flight->cert_url, sizeof(flight->cert_url), "%s", flight->client_other);
	return known(flight, "its server has the new key, which is not used yet", err);
}

static enum kt_code after_call(struct kt_flight *flight, const struct kt_msg_http_done *done, enum phase *ret, struct kt_err *err)
{
	enum kt_code code;

	switch ((enum phase)flight->client_phase) {
	case PHASE_LIST:
		return take_listed(flight, done->value, ret, err);
	case PHASE_ID:
		*ret = PHASE_CHECK;
		return take_id(flight, done->value, err);
	case PHASE_CHECK:
		*ret = flight->client_take ? PHASE_STATUS : PHASE_DEACTIVATE;
		return kt_view_eq_str(done->value, flight->client_kid)
		               ? KT_OK
		               : kt_err_set(err, KT_E_BUSY, "somebody else changes the application's keys at the same time");
	case PHASE_STATUS:
		*ret = kt_view_eq_str(done->value, "ACTIVE") ? PHASE_TRY : PHASE_ACTIVATE;
		return *ret == PHASE_TRY ? key_is_there(flight, err) : KT_OK;
	case PHASE_DEACTIVATE:
		*ret = PHASE_DELETE;
		return KT_OK;
	case PHASE_DELETE:
		kt_client_tell(flight, "key.deleted", "ok", "a key of this client that nobody uses is deleted at its server");
		*ret = PHASE_LIST;
		return KT_OK;
	case PHASE_MAKE:
		code = take_id(flight, done->value, err);
		*ret = PHASE_TRY;
		return code == KT_OK ? key_is_there(flight, err) : code;
	default: /* ACTIVATE */
		*ret = PHASE_TRY;
		return key_is_there(flight, err);
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
	(void)kt_err_prefix(&err, "client %s at okta", client_id_of(flight));
	if (retiring(flight)) { /* the next rotation begins with the same */
		kt_log_err(KT_LOG_WARN, &err, "ClientCredential %s/%s: a key that nobody uses is not deleted yet", flight->resource.ns,
		           flight->resource.name);
		go_on(flight, PHASE_DONE);
		return;
	}
	kt_rotate_wake(flight, &err);
}

static const enum kt_client_what calls[] = {
        [PHASE_LIST] = KT_CLIENT_KEY_LIST,         [PHASE_ID] = KT_CLIENT_KEY_ID,
        [PHASE_CHECK] = KT_CLIENT_KEY_KID,         [PHASE_STATUS] = KT_CLIENT_KEY_STATUS,
        [PHASE_ACTIVATE] = KT_CLIENT_KEY_ACTIVATE, [PHASE_DEACTIVATE] = KT_CLIENT_KEY_DEACTIVATE,
        [PHASE_DELETE] = KT_CLIENT_KEY_DELETE,     [PHASE_MAKE] = KT_CLIENT_KEY_MAKE};

/* The public key as the request has it: a JWK that is active at once. */
static enum kt_code make_body(const struct kt_flight *flight, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code = kt_jose_jwk_published(flight->key, kt_oauth_alg(key_of(flight)->algorithm), NULL, out, err);

	if (code != KT_OK) {
		return code;
	}
	out->len--; /* the closing brace */
	kt_buf_adds(out, ",\"status\":\"ACTIVE\"}");
	return kt_buf_check(out, "a public key", err);
}

static enum kt_code call(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_client_ask ask = {.what = calls[flight->client_phase],
	                            .client = &flight->spec->client.clients.items[0],
	                            .id = flight->client_other,
	                            .index = flight->client_index};
	struct kt_buf body KT_AUTOBUF = {0};
	struct kt_client_call wanted;
	enum kt_code code = kt_client_call_init(&flight->spec->client, &ask, &wanted, err);

	kt_buf_init(&body, 8192);
	if (code == KT_OK && ask.what == KT_CLIENT_KEY_MAKE) {
		code = make_body(flight, &body, err);
		wanted.body = body.ptr;
	}
	return code == KT_OK ? kt_client_send(flight, &wanted, on_called, err) : code;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------- */

/* What is known of a key that works: it is named by its thumbprint, which is its kid as well. */
static enum kt_code finish(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_buf raw KT_AUTOBUF = {0};
	struct kt_buf hex KT_AUTOBUF = {0};
	char kid[KT_JOSE_THUMBPRINT];
	enum kt_code code = kt_jose_thumbprint(flight->key, kid, err);

	kt_buf_init(&raw, KT_JOSE_THUMBPRINT);
	kt_buf_init(&hex, sizeof(flight->got.sha256));
	if (code == KT_OK) {
		code = kt_base64url_decode(kt_view_str(kid), &raw, err);
	}
	if (code == KT_OK) {
		kt_hex_encode(&hex, raw.ptr, raw.len);
		code = kt_buf_check(&hex, "a key's thumbprint", err);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(flight->got.sha256, sizeof(flight->got.sha256), "%.*s", (int)hex.len, hex.ptr);
	(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%s", kid);
	flight->got.not_after = 0;
	return KT_OK;
}

static enum kt_effect show(struct kt_flight *flight, struct kt_err *err)
{
	bool pending;

	if (kt_client_keys_show(flight->keeper, &flight->resource, flight->spec, &flight->cred, on_shown, flight, &pending, err) !=
	    KT_OK) {
		return KT_EFFECT_FAILED;
	}
	if (pending) {
		return KT_EFFECT_PENDING;
	}
	flight->client_phase = PHASE_TRY;
	return KT_EFFECT_DONE;
}

static enum kt_effect obtain(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	bool hosted = flight->spec->client.issuer.hosted != NULL;
	bool known_there;

	(void)keeper;
	if (flight->key == NULL) {
		(void)kt_err_set(err, KT_E_CORRUPT, "the client's new key is not there");
		return KT_EFFECT_FAILED;
	}
	if (flight->client_phase == PHASE_START) {
		flight->client_index = flight->client_gone = 0;
		/* Refused more than once: somebody may have taken it away at the server. */
		known_there = flight->got.token != NULL && flight->cred.attempts < REFUSALS;
		flight->client_phase = hosted ? PHASE_SHOW : known_there ? PHASE_TRY : PHASE_LIST;
	}
	if (flight->client_phase == PHASE_SHOW) {
		enum kt_effect effect = show(flight, err);

		if (effect != KT_EFFECT_DONE) {
			return effect;
		}
	}
	if (flight->client_phase == PHASE_TRY) {
		if (hosted && wait_until_seen(flight, err) != KT_EFFECT_DONE) {
			return KT_EFFECT_FAILED;
		}
		return kt_client_try(flight, on_tried, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
	}
	if (flight->client_phase != PHASE_DONE) {
		return call(flight, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
	}
	return finish(flight, err) == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
}

enum kt_effect kt_client_key_clean_up(struct kt_flight *flight)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (flight->spec->client.issuer.okta == NULL || flight->withdraw || flight->client_phase == PHASE_DONE ||
	    !kt_client_has_previous(flight)) {
		return KT_EFFECT_DONE;
	}
	if (flight->client_phase == PHASE_START) {
		flight->client_phase = PHASE_LIST;
	}
	if (call(flight, &err) == KT_OK) {
		return KT_EFFECT_PENDING;
	}
	kt_log_err(KT_LOG_WARN, &err, "ClientCredential %s/%s: a key that nobody uses is not deleted yet", flight->resource.ns,
	           flight->resource.name);
	return KT_EFFECT_DONE;
}

const struct kt_issuer_ops kt_issuer_client_key = {.name = "client", .remote = true, .obtain = obtain};
