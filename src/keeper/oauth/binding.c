/* What a token is made of and bound to beside the client's secret: Certificates and other Tokens of the namespace. */
#include <stdio.h>
#include <string.h>

#include "keeper/client/client.h"
#include "keeper/oauth/oauth.h"
#include "keeper/render.h"

const char *kt_oauth_certificate_ref(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec)
{
	bool by_tls = oauth2->auth.method == KT_AUTH_TLS || oauth2->auth.method == KT_AUTH_SELF_SIGNED_TLS;

	return by_tls ? oauth2->auth.certificate_ref : spec->certificate_ref;
}

/* The material in force of a credential of this kind. *resource and *material: finish both after KT_OK. */
static enum kt_code in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name, enum kt_store_kind kind,
                             struct kt_store_resource *resource, struct kt_store_material *material, struct kt_err *err)
{
	const char *what = kind == KT_KIND_TOKEN ? "Token" : kind == KT_KIND_CLIENT ? "ClientCredential" : "Certificate";
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_find_secret(keeper->store, ns, secret_name, &cred, err);

	if (code == KT_E_NOTFOUND || (code == KT_OK && cred.kind != kind)) {
		if (code == KT_OK) {
			kt_store_cred_finish(&cred);
		}
		return kt_err_set(err, KT_E_INVALID, "no %s of namespace %s has the secretName %s: add its manifest", what, ns,
		                  secret_name);
	}
	if (code != KT_OK) {
		return code;
	}
	if (cred.active == 0 || (kind == KT_KIND_TOKEN && cred.expiry <= kt_keeper_now(keeper))) {
		code = kt_err_set(err, KT_E_LATER, "the %s with the secretName %s is not issued yet", what, secret_name);
	}
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, cred.id, resource, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, cred.active, material, err);
		if (code != KT_OK) {
			kt_store_resource_finish(resource);
		}
	}
	kt_store_cred_finish(&cred);
	return code;
}

enum kt_code kt_oauth_certificate(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_buf *chain,
                                  struct kt_secret **key, char sha256[72], struct kt_err *err)
{
	struct kt_store_resource resource;
	struct kt_store_material material;
	struct kt_seal_id id;
	enum kt_code code = in_force(keeper, ns, secret_name, KT_KIND_CERT, &resource, &material, err);

	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(sha256, 72, "%s", material.sha256);
	if (chain != NULL) {
		kt_buf_addv(chain, material.chain);
		code = kt_buf_check(chain, "a certificate", err);
	}
	if (code == KT_OK && key != NULL) {
		id = kt_store_material_seal_id(&resource, material.revision, "key");
		code = kt_keys_unseal(keeper->keys, &id, material.sealed_key, key, err);
	}
	kt_store_material_finish(&material);
	kt_store_resource_finish(&resource);
	return code;
}

enum kt_code kt_oauth_token_of(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_secret **ret,
                               struct kt_err *err)
{
	struct kt_store_resource resource;
	struct kt_store_material material;
	struct kt_seal_id id;
	char type[KT_TOKEN_TYPE_SIZE];
	enum kt_code code = in_force(keeper, ns, secret_name, KT_KIND_TOKEN, &resource, &material, err);

	if (code != KT_OK) {
		return code;
	}
	id = kt_store_material_seal_id(&resource, material.revision, "token");
	(void)kt_render_token_type(material.cookie, type);
	if (strcmp(type, "AWS") == 0) {
		code = kt_err_set(err, KT_E_INVALID, "the Token with the secretName %s is a session of AWS, which is no token",
		                  secret_name);
	} else {
		code = kt_keys_unseal(keeper->keys, &id, material.sealed_token, ret, err);
	}
	kt_store_material_finish(&material);
	kt_store_resource_finish(&resource);
	return code;
}

/* --- waiting ------------------------------------------------------------------------------------------------------------ */

enum kt_code kt_oauth_need(struct kt_flight *flight, const char *secret_name, enum kt_store_kind kind, struct kt_err *err)
{
	struct kt_store_resource resource;
	struct kt_store_material material;
	enum kt_code code;

	if (secret_name == NULL) {
		return KT_OK;
	}
	code = in_force(flight->keeper, flight->resource.ns, secret_name, kind, &resource, &material, err);
	if (code == KT_OK) {
		kt_store_material_finish(&material);
		kt_store_resource_finish(&resource);
	} else if (code == KT_E_LATER) {
		(void)snprintf(flight->waiting_for, sizeof(flight->waiting_for), "%s/%s", flight->resource.ns, secret_name);
	}
	return code;
}

enum kt_code kt_oauth_needs(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	const struct kt_oauth2_issuer *oauth2 = flight->issuer->spec->token_issuer.oauth2;
	const struct kt_token_grant *grant = &spec->grant;
	enum kt_code code;

	flight->waiting_for[0] = '\0';
	code = kt_oauth_need(flight, spec->certificate_ref, KT_KIND_CERT, err);
	if (code == KT_OK) {
		const char *shown = kt_oauth_certificate_ref(oauth2, spec);

		if (spec->certificate_ref != NULL && strcmp(shown, spec->certificate_ref) != 0) {
			return kt_err_set(err, KT_E_INVALID,
			                  "spec.certificateRef (%s) can't bind the token: the client shows the Certificate %s "
			                  "(auth.certificateRef of %s)",
			                  spec->certificate_ref, shown, flight->issuer->ref);
		}
		code = kt_oauth_need(flight, shown, KT_KIND_CERT, err);
	}
	if (code == KT_OK) {
		code = kt_oauth_need(flight, oauth2->auth.token_ref, KT_KIND_TOKEN, err);
	}
	if (code == KT_OK && oauth2->auth.client_secret_ref.name != NULL &&
	    kt_client_owns(flight->keeper, flight->resource.ns, oauth2->auth.client_secret_ref.name)) {
		code = kt_oauth_need(flight, oauth2->auth.client_secret_ref.name, KT_KIND_CLIENT, err);
	}
	if (code == KT_OK && oauth2->auth.key_secret_ref.name != NULL &&
	    kt_client_owns(flight->keeper, flight->resource.ns, oauth2->auth.key_secret_ref.name)) {
		code = kt_oauth_need(flight, oauth2->auth.key_secret_ref.name, KT_KIND_CLIENT, err);
	}
	if (code == KT_OK && grant->token_exchange != NULL) {
		code = kt_oauth_need(flight, grant->token_exchange->subject.token_ref, KT_KIND_TOKEN, err);
	}
	if (code == KT_OK && grant->token_exchange != NULL) {
		code = kt_oauth_need(flight, grant->token_exchange->actor.token_ref, KT_KIND_TOKEN, err);
	}
	if (code == KT_OK && grant->jwt_bearer != NULL) {
		code = kt_oauth_need(flight, grant->jwt_bearer->assertion.token_ref, KT_KIND_TOKEN, err);
	}
	return code;
}

/* --- what is in force changes ------------------------------------------------------------------------------------------- */

/* Whom it is told to. */
enum wake {
	WAKE_WAITING, /* Tokens that failed because this was not there */
	WAKE_BOUND,   /* Tokens that are bound to it: the plan decides */
	WAKE_REFUSED  /* Tokens that failed for whatever reason: their client has another secret */
};

/* They go on, or are looked at. */
static enum kt_code wake_token(struct kt_keeper *keeper, int64_t id, enum wake wake, struct kt_err *err)
{
	struct kt_store_cred cred;
	const char *problem;
	bool waits;
	enum kt_code code = KT_OK;

	if (kt_rotate_find(keeper, id) != NULL || kt_store_cred_get(keeper->store, id, &cred, NULL) != KT_OK) {
		return KT_OK; /* one that is in work asks the plan at its end */
	}
	/* A client's reset waits for its Token, or was refused with the one before; a Token for what it is made of. A pause that the
	 * server asked for, or a reason that it gave, is none that this ends. */
	waits = cred.attempts > 0 && (wake == WAKE_REFUSED || (cred.kind == KT_KIND_CLIENT && cred.error == KT_E_AUTH) ||
	                              (cred.error == KT_E_LATER && kt_flight_peer_said(&cred, &problem) == 0 && problem[0] == '\0'));
	if ((cred.kind == KT_KIND_TOKEN || cred.kind == KT_KIND_CLIENT) && (waits || wake == WAKE_BOUND)) {
		if (waits) {
			cred.flags &= ~(unsigned)KT_CRED_FAILED;
			cred.attempts = 0;
			cred.next_try = 0;
		}
		cred.due_at = kt_keeper_now(keeper);
		keeper->look = true;
		code = kt_store_cred_put(keeper->store, &cred, err);
	}
	kt_store_cred_finish(&cred);
	return code;
}

struct waking {
	struct kt_keeper *keeper;
	enum wake wake;
	bool through; /* an issuer that holds the link has its users woken */
	enum kt_code code;
	struct kt_err *err;
};

static bool wake_owner(int64_t id, void *arg);

static enum kt_code wake_linked(struct kt_keeper *keeper, const struct kt_store_link *link, enum wake wake, bool through,
                                struct kt_err *err)
{
	struct waking waking = {keeper, wake, through, KT_OK, err};
	enum kt_code code = kt_store_linked_each(keeper->store, link, wake_owner, &waking, err);

	return code == KT_OK ? waking.code : code;
}

static bool wake_owner(int64_t id, void *arg)
{
	struct waking *waking = arg;
	struct kt_store_resource owner;
	struct kt_store_link users = {"issuer", NULL, NULL};
	char name[300];

	waking->code = kt_store_resource_get(waking->keeper->store, id, &owner, waking->err);
	if (waking->code != KT_OK) {
		return false;
	}
	if (strcmp(owner.kind, "TokenIssuer") == 0 && waking->through) {
		(void)snprintf(name, sizeof(name), "%s/%s", owner.kind, owner.name);
		users.ns = owner.ns;
		users.name = name;
		waking->code = wake_linked(waking->keeper, &users, waking->wake, false, waking->err);
	} else {
		waking->code = wake_token(waking->keeper, id, waking->wake, waking->err);
	}
	kt_store_resource_finish(&owner);
	return waking->code == KT_OK;
}

enum kt_code kt_oauth_changed(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store_link needs = {"needs", flight->resource.ns, flight->secret_name};
	struct kt_store_link bound = {"bound", flight->resource.ns, flight->secret_name};
	struct kt_store_link client = {"client", flight->resource.ns, flight->secret_name};
	enum kt_code code;

	if (!flight->keeper->tokens_depend) {
		return KT_OK;
	}
	if (flight->spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		kt_issuers_drop(flight->keeper, true);
		return wake_linked(flight->keeper, &client, WAKE_REFUSED, true, err);
	}
	code = wake_linked(flight->keeper, &needs, WAKE_WAITING, true, err);
	return code == KT_OK ? wake_linked(flight->keeper, &bound, WAKE_BOUND, false, err) : code;
}

bool kt_oauth_binding_changed(struct kt_keeper *keeper, const struct kt_resource *spec, const char *bound_to)
{
	struct kt_err err;
	char now[72];

	kt_err_clear(&err);
	return spec->kind == KT_RES_TOKEN && spec->token.certificate_ref != NULL && keeper->store != NULL &&
	       kt_oauth_certificate(keeper, spec->meta.ns, spec->token.certificate_ref, NULL, NULL, now, &err) == KT_OK &&
	       strcmp(now, bound_to) != 0;
}

/* --- sets ------------------------------------------------------------------------------------------------------------------ */

/* A Token in force that is bound to the flight's Certificate, but to an earlier one than the flight has. */
static bool is_behind(struct kt_flight *flight, const char *secret_name)
{
	struct kt_store_resource resource;
	struct kt_store_material material;
	struct kt_resource *spec = NULL;
	struct kt_err err;
	bool behind;

	kt_err_clear(&err);
	if (in_force(flight->keeper, flight->resource.ns, secret_name, KT_KIND_TOKEN, &resource, &material, &err) != KT_OK) {
		return false;
	}
	behind = kt_load_spec(&resource, &spec, &err) == KT_OK && spec->token.certificate_ref != NULL &&
	         strcmp(spec->token.certificate_ref, flight->secret_name) == 0 &&
	         strcmp(material.finalize_url, flight->got.sha256) != 0;
	kt_resource_destroy(spec);
	kt_store_material_finish(&material);
	kt_store_resource_finish(&resource);
	return behind;
}

bool kt_oauth_set_incomplete(struct kt_flight *flight, const struct kt_consumer_volume *volume)
{
	uint32_t i;

	if (!flight->keeper->tokens_depend) {
		return false;
	}
	for (i = 0; i < volume->sources.count; i++) {
		const char *other = volume->sources.items[i].secret.name;

		if (strcmp(other, flight->secret_name) == 0) {
			continue;
		}
		if (flight->spec->kind == KT_RES_CERTIFICATE && is_behind(flight, other)) {
			return true;
		}
		if (flight->spec->kind == KT_RES_TOKEN && flight->spec->token.certificate_ref != NULL &&
		    strcmp(other, flight->spec->token.certificate_ref) == 0 &&
		    kt_oauth_binding_changed(flight->keeper, flight->spec, flight->bound_to)) {
			return true;
		}
	}
	return false;
}
