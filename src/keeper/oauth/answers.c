/* The courier's questions while it asks for a token: secrets, assertions, proofs, the client's certificate. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/client/client.h"
#include "keeper/oauth/oauth.h"

#define ASKED_MAX 64u /* questions of one job: a courier that goes round in circles gets nothing more */

static struct kt_flight *flight_of(struct kt_keeper *keeper, uint64_t job, struct kt_err *err)
{
	struct kt_flight *flight = kt_rotate_find_job(keeper, job);

	kt_err_clear(err);
	if (flight == NULL || flight->issuer == NULL || flight->issuer->ops != &kt_issuer_oauth2) {
		(void)kt_err_set(err, KT_E_CANCELLED, "that token is not being worked on any more");
		return NULL;
	}
	if (++flight->asked > ASKED_MAX) {
		(void)kt_err_set(err, KT_E_LIMIT, "the courier asks too much for one token");
		return NULL;
	}
	return flight;
}

/* Of what goes into the request: it is asked for when the request's turn has come. */
static struct kt_flight *flight_about_to_ask(struct kt_keeper *keeper, uint64_t job, struct kt_err *err)
{
	struct kt_flight *flight = flight_of(keeper, job, err);

	if (flight != NULL) {
		flight->sent_at = kt_keeper_now(keeper);
	}
	return flight;
}

static const struct kt_oauth2_issuer *oauth2_of(const struct kt_flight *flight)
{
	return flight->issuer->spec->token_issuer.oauth2;
}

/* What is missing has to be set by a person. */
static void refuse(struct kt_wire_in *in, struct kt_err *err)
{
	if (err->code == KT_E_NOTFOUND) {
		err->code = KT_E_AUTH;
	}
	kt_wire_reply_err(in->wire, in->id, err);
}

/* --- which client ------------------------------------------------------------------------------------------------------- */

enum kt_code kt_oauth_issuer_now(struct kt_flight *flight, struct kt_oauth2_issuer *ret, struct kt_err *err)
{
	const struct kt_oauth2_auth *auth = &oauth2_of(flight)->auth;
	bool by_key = auth->method == KT_AUTH_PRIVATE_KEY_JWT;
	const struct kt_secret_ref *ref = by_key ? &auth->key_secret_ref : &auth->client_secret_ref;
	const char *ns = flight->issuer->spec->meta.ns;
	struct kt_secret *id KT_AUTOSECRET = NULL;
	struct kt_view text;
	enum kt_code code;

	*ret = *oauth2_of(flight);
	flight->client_id[0] = '\0';
	if (ref->name == NULL || strcmp(ref->key, by_key ? "tls.key" : "client-secret") != 0 || !kt_client_owns(flight->keeper, ns, ref->name)) {
		return KT_OK;
	}
	code = kt_client_part(flight->keeper, ns, ref->name, false, &id, err);
	if (code != KT_OK) {
		return code;
	}
	text = kt_secret_view(id);
	(void)snprintf(flight->client_id, sizeof(flight->client_id), "%.*s", (int)text.len, text.ptr);
	ret->auth.client_id = flight->client_id;
	return KT_OK;
}

/* The secret that belongs to the client id that the request names. */
static enum kt_code client_secret(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err)
{
	const struct kt_secret_ref *ref = &oauth2_of(flight)->auth.client_secret_ref;
	const char *ns = flight->issuer->spec->meta.ns;
	struct kt_secret *pair KT_AUTOSECRET = NULL;
	struct kt_view id, secret;
	enum kt_code code;

	if (flight->client_id[0] == '\0') {
		return kt_issuers_secret(flight->keeper, ns, ref->name, ref->key, ret, err);
	}
	code = kt_client_pair_in_force(flight->keeper, ns, ref->name, &pair, err);
	if (code != KT_OK) {
		return code;
	}
	if (!kt_client_pair_split(pair, &id, &secret) || !kt_view_eq_str(id, flight->client_id)) {
		(void)kt_err_set(err, KT_E_LATER, "secret %s has another client now: the token is asked for anew", ref->name);
		(void)snprintf(err->problem_type, sizeof(err->problem_type), "secretRefused");
		return KT_E_LATER;
	}
	return kt_secret_create(secret.ptr, secret.len, ret, err);
}

/* --- CLIENT_SECRET ------------------------------------------------------------------------------------------------------- */

static enum kt_code source_of(struct kt_flight *flight, const struct kt_token_source *source, struct kt_secret **ret,
                              struct kt_err *err)
{
	if (source->token_ref != NULL) {
		return kt_oauth_token_of(flight->keeper, flight->resource.ns, source->token_ref, ret, err);
	}
	if (source->secret.name == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the courier asks for a token that the manifest does not name");
	}
	return kt_issuers_secret(flight->keeper, flight->resource.ns, source->secret.name, source->secret.key, ret, err);
}

static enum kt_code secret_for(struct kt_flight *flight, struct kt_view what, struct kt_secret **ret, struct kt_err *err)
{
	const struct kt_oauth2_auth *auth = &oauth2_of(flight)->auth;
	const struct kt_token_grant *grant = &flight->spec->token.grant;

	if (kt_view_eq_str(what, "client_secret") && auth->client_secret_ref.name != NULL) {
		return client_secret(flight, ret, err);
	}
	if (kt_view_eq_str(what, "subject_token") && grant->token_exchange != NULL) {
		return source_of(flight, &grant->token_exchange->subject, ret, err);
	}
	if (kt_view_eq_str(what, "actor_token") && grant->token_exchange != NULL) {
		return source_of(flight, &grant->token_exchange->actor, ret, err);
	}
	if (kt_view_eq_str(what, "assertion") && grant->jwt_bearer != NULL) {
		return source_of(flight, &grant->jwt_bearer->assertion, ret, err);
	}
	if (kt_view_eq_str(what, "refresh_token") && grant->refresh_token != NULL) {
		return kt_oauth_refresh_get(flight, ret, err);
	}
	return kt_err_set(err, KT_E_PROTO, "the courier asks for a secret that this token has no use for");
}

void kt_oauth_on_client_secret(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_client_secret *ask = in->msg;
	struct kt_err err;
	struct kt_flight *flight = kt_rotate_find_job(arg, ask->job);
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_msg_client_secret_given given;

	kt_err_clear(&err);
	if (flight != NULL && kt_view_eq_str(ask->what, "client_secret") && kt_client_trying(flight, &secret, &err)) {
		given.secret = secret;
		if (secret == NULL) {
			refuse(in, &err);
		} else {
			kt_wire_reply(in->wire, in->id, KT_CLIENT_SECRET_GIVEN, &given, NULL, 0);
		}
		return;
	}
	flight = flight_about_to_ask(arg, ask->job, &err);
	if (flight == NULL || secret_for(flight, ask->what, &secret, &err) != KT_OK) {
		refuse(in, &err);
		return;
	}
	given.secret = secret;
	kt_wire_reply(in->wire, in->id, KT_CLIENT_SECRET_GIVEN, &given, NULL, 0);
}

/* --- ASSERTION ----------------------------------------------------------------------------------------------------------- */

/* The key in force of a ClientCredential brings its kid and algorithm along. */
static enum kt_code assert_rotated(struct kt_flight *flight, const struct kt_oauth_moment *moment, struct kt_secret **ret,
                                   struct kt_err *err)
{
	struct kt_oauth2_issuer own = *oauth2_of(flight);
	struct kt_key *key KT_AUTOKEY = NULL;
	enum kt_code code = kt_client_key_in_force(flight->keeper, flight->issuer->spec->meta.ns, own.auth.key_secret_ref.name, &key,
	                                           &own.auth.algorithm, err);

	own.auth.client_id = flight->client_id;
	own.auth.key_id = NULL;
	return code == KT_OK ? kt_oauth_assertion(&own, key, (struct kt_view){NULL, 0}, moment, ret, err) : code;
}

/* Reading takes OpenSSL ten times as long as signing: so the issuer keeps the key for as long as the text is the same. */
static enum kt_code read_key(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_secret_ref *ref = &oauth2_of(flight)->auth.key_secret_ref;
	struct kt_issuer_entry *entry = flight->issuer;
	struct kt_secret *text KT_AUTOSECRET = NULL;
	struct kt_view view;
	char sha256[KT_SHA256_HEX];
	enum kt_code code = kt_issuers_secret(flight->keeper, flight->issuer->spec->meta.ns, ref->name, ref->key, &text, err);

	if (code != KT_OK) {
		return code;
	}
	view = kt_secret_view(text); /* PEM; the key of a Certificate of ours comes as it is stored */
	kt_sha256_hex(view.ptr, view.len, sha256);
	if (entry->signing_key != NULL && strcmp(sha256, entry->read_from) == 0) {
		return KT_OK;
	}
	kt_pki_key_destroy(entry->signing_key);
	entry->signing_key = NULL;
	code = view.len > 0 && view.ptr[0] == '\x30' ? kt_pki_key_from_der(view, &entry->signing_key, err)
	                                             : kt_pki_key_from_pem(view, &entry->signing_key, err);
	if (code != KT_OK) {
		return kt_err_prefix(err, "the client's key (secret %s, %s)", ref->name, ref->key);
	}
	memcpy(entry->read_from, sha256, sizeof(sha256));
	return KT_OK;
}

static enum kt_code assert_client(struct kt_flight *flight, const struct kt_oauth_moment *moment, struct kt_secret **ret,
                                  struct kt_err *err)
{
	const struct kt_oauth2_issuer *oauth2 = oauth2_of(flight);
	const struct kt_oauth2_auth *auth = &oauth2->auth;
	struct kt_oauth2_issuer own = *oauth2;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	enum kt_code code;

	switch (auth->method) {
	case KT_AUTH_SPIFFE_JWT:
		return kt_oauth_token_of(flight->keeper, flight->issuer->spec->meta.ns, auth->token_ref, ret, err);
	case KT_AUTH_PRIVATE_KEY_JWT:
		if (flight->client_id[0] != '\0') {
			return assert_rotated(flight, moment, ret, err);
		}
		code = read_key(flight, err);
		return code == KT_OK ? kt_oauth_assertion(oauth2, flight->issuer->signing_key, (struct kt_view){NULL, 0}, moment,
		                                          ret, err)
		                     : code;
	case KT_AUTH_SECRET_JWT:
		code = client_secret(flight, &secret, err);
		if (flight->client_id[0] != '\0') {
			own.auth.client_id = flight->client_id;
		}
		return code == KT_OK ? kt_oauth_assertion(&own, NULL, kt_secret_view(secret), moment, ret, err) : code;
	default:
		return kt_err_set(err, KT_E_PROTO, "the courier asks for an assertion that method %s does not have",
		                  kt_auth_method_name(auth->method));
	}
}

void kt_oauth_on_assertion(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_assertion *ask = in->msg;
	struct kt_keeper *keeper = arg;
	struct kt_err err;
	struct kt_flight *flight = kt_rotate_find_job(keeper, ask->job);
	bool key = flight != NULL && kt_client_tries_key(flight);
	char *endpoint KT_AUTOFREE = kt_strndup(ask->endpoint.len > 0 ? ask->endpoint.ptr : "", ask->endpoint.len);
	char *issuer KT_AUTOFREE = kt_strndup(ask->issuer.len > 0 ? ask->issuer.ptr : "", ask->issuer.len);
	struct kt_secret *assertion KT_AUTOSECRET = NULL;
	struct kt_oauth_moment moment = {.now = kt_keeper_now(keeper), .endpoint = endpoint, .issuer = issuer};
	struct kt_msg_assertion_given given;

	kt_err_clear(&err);
	flight = key ? flight : flight_about_to_ask(keeper, ask->job, &err);
	if (flight != NULL && (endpoint == NULL || issuer == NULL)) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for an assertion");
	} else if (flight != NULL) {
		moment.skew = kt_oauth_bounded_skew(ask->skew); /* it has seen a Date later than we have */
		(void)(key ? kt_client_key_assert(flight, &moment, &assertion, &err)
		           : assert_client(flight, &moment, &assertion, &err));
	}
	if (err.code != KT_OK) {
		refuse(in, &err);
		return;
	}
	given.assertion = assertion;
	given.type = !key && flight->issuer->spec->token_issuer.oauth2->auth.method == KT_AUTH_SPIFFE_JWT
	                     ? KT_VIEW_LIT(KT_OAUTH_JWT_SPIFFE)
	                     : KT_VIEW_LIT(KT_OAUTH_JWT_BEARER);
	kt_wire_reply(in->wire, in->id, KT_ASSERTION_GIVEN, &given, NULL, 0);
}

/* --- DPOP_PROOF ---------------------------------------------------------------------------------------------------------- */

void kt_oauth_on_dpop_proof(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_dpop_proof *ask = in->msg;
	struct kt_keeper *keeper = arg;
	struct kt_err err;
	struct kt_flight *flight = flight_about_to_ask(keeper, ask->job, &err);
	struct kt_secret *proof KT_AUTOSECRET = NULL;
	struct kt_oauth_proof want = {.method = ask->method, .url = ask->url, .nonce = ask->nonce};
	struct kt_msg_dpop_proof_given given;

	if (flight != NULL && (flight->spec->token.dpop == NULL || flight->key == NULL)) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier asks for a DPoP proof of a token without a key");
	} else if (flight != NULL) {
		int64_t skew = kt_oauth_bounded_skew(ask->skew); /* it has seen a Date later than we have */

		want.now = kt_keeper_now(keeper) + skew * KT_SECOND;
		(void)kt_oauth_proof(flight->key, flight->spec->token.dpop->algorithm, &want, &proof, &err);
	}
	if (err.code != KT_OK) {
		refuse(in, &err);
		return;
	}
	given.proof = kt_secret_view(proof);
	kt_wire_reply(in->wire, in->id, KT_DPOP_PROOF_GIVEN, &given, NULL, 0);
}

/* --- CLIENT_KEY ---------------------------------------------------------------------------------------------------------- */

void kt_oauth_on_client_key(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_client_key *ask = in->msg;
	struct kt_keeper *keeper = arg;
	struct kt_err err;
	struct kt_flight *flight = flight_about_to_ask(keeper, ask->job, &err);
	const char *ref = flight != NULL ? kt_oauth_certificate_ref(oauth2_of(flight), &flight->spec->token) : NULL;
	struct kt_buf chain KT_AUTOBUF = {0};
	struct kt_secret *key KT_AUTOSECRET = NULL;
	struct kt_msg_client_key_given given;

	kt_buf_init(&chain, 65536);
	if (flight != NULL && ref == NULL) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier asks for a certificate of a token that has none");
	} else if (flight != NULL) {
		(void)kt_oauth_certificate(keeper, flight->resource.ns, ref, &chain, &key, flight->bound_to, &err);
	}
	if (err.code != KT_OK) {
		refuse(in, &err);
		return;
	}
	given.chain = kt_buf_view(&chain);
	given.key = key;
	kt_wire_reply(in->wire, in->id, KT_CLIENT_KEY_GIVEN, &given, NULL, 0);
}

/* --- SAVE_REFRESH -------------------------------------------------------------------------------------------------------- */

void kt_oauth_on_save_refresh(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_save_refresh *ask = in->msg;
	struct kt_err err;
	struct kt_flight *flight = flight_of(arg, ask->job, &err);
	struct kt_msg_done done = {0};

	if (flight != NULL && ask->token == NULL) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier wants to keep an empty refresh token");
	} else if (flight != NULL) {
		(void)kt_oauth_refresh_save(flight, kt_secret_view(ask->token), &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}
