/* The effects of a flight: what it does outside the store between two commits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/client/client.h"
#include "keeper/flight.h"

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

struct find_key {
	struct kt_flight *flight;
	enum kt_key_type type;
	unsigned bits;
};

/* The newest key of a Token that is of the kind that is asked for. */
static bool take_key(const struct kt_store_material *material, void *arg)
{
	struct find_key *find = arg;
	struct kt_flight *flight = find->flight;
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_seal_id id = kt_store_material_seal_id(&flight->resource, material->revision, "key");

	if (material->sealed_key.len == 0 || material->state == KT_MATERIAL_REVOKED ||
	    kt_keys_unseal(flight->keeper->keys, &id, material->sealed_key, &der, NULL) != KT_OK ||
	    kt_pki_key_from_der(kt_secret_view(der), &flight->key, NULL) != KT_OK) {
		return true;
	}
	if (kt_pki_key_type(flight->key) == find->type &&
	    (find->bits == 0 || kt_pki_key_bits(flight->key) == find->bits)) {
		return false;
	}
	kt_pki_key_destroy(flight->key);
	flight->key = NULL;
	return false; /* an older one of the right kind was given up on purpose */
}

/* A Token's DPoP key stays over all its renewals: whoever makes proofs by it has read it once. */
static bool reuse_dpop_key(struct kt_flight *flight, enum kt_key_type type, unsigned bits)
{
	struct find_key find = {flight, type, bits};

	if (!flight->plan.new_key) {
		(void)kt_store_material_each(flight->keeper->store, flight->id, 8, take_key, &find, NULL);
	}
	return flight->key != NULL;
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
	if (active.state != KT_MATERIAL_REVOKED && kt_keys_unseal(flight->keeper->keys, &id, active.sealed_key, &der, NULL) == KT_OK) {
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

/* --- keys made ahead ------------------------------------------------------------------------------------------- */

/*
 * While a long queue is worked off, a thread of the pool makes the P-256 keys that will be asked for next, so that the
 * keeper's own thread has its time for the store and the volumes. What is left over is destroyed when it is idle.
 */
struct stash_work {
	struct kt_keeper *keeper;
	unsigned count;
	struct kt_key *keys[KT_STASH_BATCH];
};

static void make_keys(void *arg)
{
	struct stash_work *work = arg;

	while (work->count < KT_STASH_BATCH &&
	       kt_pki_key_generate(KT_KEY_ECDSA, 256, &work->keys[work->count], NULL) == KT_OK) {
		work->count++;
	}
}

static void keys_made(void *arg)
{
	struct stash_work *work = arg;
	struct kt_keeper *keeper = work->keeper;

	keeper->stash_making = false;
	while (work->count > 0) {
		struct kt_key *key = work->keys[--work->count];

		if (keeper->stash_count < KT_STASH_MAX) {
			keeper->stash[keeper->stash_count++] = key;
		} else {
			kt_pki_key_destroy(key);
		}
	}
	kt_free(work);
}

static void fill_stash(struct kt_keeper *keeper)
{
	struct stash_work *work;

	if (keeper->stash_making || keeper->stash_count + KT_STASH_BATCH > KT_STASH_MAX ||
	    keeper->due_count - keeper->due_at < KT_STASH_MAX) {
		return;
	}
	if (keeper->stash == NULL) {
		keeper->stash = kt_calloc(KT_STASH_MAX, sizeof(keeper->stash[0]));
	}
	work = keeper->stash != NULL ? kt_calloc(1, sizeof(*work)) : NULL;
	if (work == NULL) {
		return; /* each flight makes its own then */
	}
	work->keeper = keeper;
	keeper->stash_making = kt_loop_work(keeper->loop, make_keys, keys_made, work, NULL) == KT_OK;
	if (!keeper->stash_making) {
		kt_free(work);
	}
}

void kt_effect_drop_stash(struct kt_keeper *keeper)
{
	while (keeper->stash_count > 0) {
		kt_pki_key_destroy(keeper->stash[--keeper->stash_count]);
	}
	kt_free(keeper->stash);
	keeper->stash = NULL;
}

static bool take_from_stash(struct kt_flight *flight, enum kt_key_type type, unsigned bits)
{
	struct kt_keeper *keeper = flight->keeper;

	if (type != KT_KEY_ECDSA || bits != 256) {
		return false;
	}
	fill_stash(keeper);
	if (keeper->stash_count > 0) {
		flight->key = keeper->stash[--keeper->stash_count];
	}
	return flight->key != NULL;
}

/* Whether the flight needs a key, and of which kind. */
static bool wants_key(const struct kt_flight *flight, enum kt_key_type *type, unsigned *bits)
{
	static const enum kt_key_type types[] = {KT_KEY_RSA, KT_KEY_ECDSA, KT_KEY_ED25519};

	if (flight->spec->kind == KT_RES_TOKEN && flight->spec->token.dpop != NULL) {
		enum kt_assertion_alg alg = flight->spec->token.dpop->algorithm;

		*type = alg == KT_ASSERTION_EDDSA                                  ? KT_KEY_ED25519
		        : alg == KT_ASSERTION_RS256 || alg == KT_ASSERTION_PS256 ? KT_KEY_RSA
		                                                                 : KT_KEY_ECDSA;
		*bits = *type == KT_KEY_RSA ? 2048 : *type == KT_KEY_ED25519 ? 0 : alg == KT_ASSERTION_ES384 ? 384 : 256;
		return true;
	}
	if (flight->spec->kind == KT_RES_CLIENT_CREDENTIAL && flight->spec->client.private_key != NULL) {
		kt_client_key_kind(flight->spec->client.private_key, type, bits);
		return true;
	}
	if (flight->spec->kind != KT_RES_CERTIFICATE) {
		return false;
	}
	*type = types[flight->spec->certificate.private_key.algorithm];
	*bits = (unsigned)flight->spec->certificate.private_key.size;
	return true;
}

static enum kt_effect effect_key(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_key_type type;
	unsigned bits;
	struct key_work *work;
	enum kt_code code;

	if (flight->key != NULL || !wants_key(flight, &type, &bits) ||
	    (flight->spec->kind == KT_RES_TOKEN && reuse_dpop_key(flight, type, bits)) ||
	    (flight->spec->kind == KT_RES_CERTIFICATE && reuse_key(flight, type, bits)) ||
	    take_from_stash(flight, type, bits)) {
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
	bool wait = false;

	/* It asks a server: before the turn at the volumes is taken, for which others wait. */
	if (flight->stage == KT_FLIGHT_RETIRE && !flight->holds_volume &&
	    kt_oauth_revoke_superseded(flight) == KT_EFFECT_PENDING) {
		return KT_EFFECT_PENDING;
	}
	if ((flight->stage == KT_FLIGHT_STAGE || flight->stage == KT_FLIGHT_RETIRE) && !flight->holds_volume) {
		if (kt_publish_must_wait(flight, &wait, err) != KT_OK) {
			return KT_EFFECT_FAILED;
		}
		if (wait) {
			flight->again = true;
			return KT_EFFECT_PENDING;
		}
	}
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
		if (kt_client_clean_up(flight) == KT_EFFECT_PENDING) {
			return KT_EFFECT_PENDING;
		}
		return kt_publish_retire(flight, err) == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
	default:
		return KT_EFFECT_DONE;
	}
}
