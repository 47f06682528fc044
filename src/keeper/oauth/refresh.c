/*
 * Refresh tokens: the newest, and the one before until the newest has worked.
 *
 * A server that rotates them may have done so although its answer never came, or came and was not used any more when the
 * power went. So what was used last is kept under the key "<key>.previous", and both are tried, the newest first, until
 * one works. What a manifest gives (kind Secret) comes again with each load, so what came in its place stands under
 * "<key>.rotated".
 */
#include <stdio.h>
#include <string.h>

#include "keeper/flight.h"
#include "keeper/oauth/oauth.h"

#define KEPT_MAX 3u

/* The keys under which one may be, in the order in which they are tried. */
struct kept {
	const char *ns, *name;
	char rotated[300], previous[300];
	const char *order[KEPT_MAX];
	const char *newest; /* where a new one goes */
	unsigned count;
};

static bool is_there(struct kt_keeper *keeper, const struct kept *kept, const char *key, enum kt_secret_source *ret_source)
{
	struct kt_store_secret row;

	if (kt_store_secret_get(keeper->store, kept->ns, kept->name, key, &row, NULL) != KT_OK) {
		return false;
	}
	*ret_source = row.source;
	kt_store_secret_finish(&row);
	return true;
}

static void look(const struct kt_flight *flight, struct kept *kept)
{
	const struct kt_secret_ref *ref = &flight->spec->token.grant.refresh_token->secret;
	enum kt_secret_source source = KT_SECRET_COMMAND, unused;
	bool by_manifest;

	memset(kept, 0, sizeof(*kept));
	kept->ns = flight->resource.ns;
	kept->name = ref->name;
	(void)snprintf(kept->rotated, sizeof(kept->rotated), "%s.rotated", ref->key);
	(void)snprintf(kept->previous, sizeof(kept->previous), "%s.previous", ref->key);
	by_manifest = is_there(flight->keeper, kept, ref->key, &source) && source == KT_SECRET_MANIFEST;
	kept->newest = by_manifest ? kept->rotated : ref->key;
	if (by_manifest && is_there(flight->keeper, kept, kept->rotated, &unused)) {
		kept->order[kept->count++] = kept->rotated;
	} else {
		kept->order[kept->count++] = ref->key;
	}
	if (is_there(flight->keeper, kept, kept->previous, &unused)) {
		kept->order[kept->count++] = kept->previous;
	}
	if (kept->order[0] != ref->key) {
		kept->order[kept->count++] = ref->key;
	}
}

enum kt_code kt_oauth_refresh_get(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err)
{
	struct kept kept;

	look(flight, &kept);
	if (flight->refresh_at >= kept.count) {
		return kt_err_set(err, KT_E_NOTFOUND, "no refresh token is left in secret %s", kept.name);
	}
	return kt_issuers_secret(flight->keeper, kept.ns, kept.name, kept.order[flight->refresh_at], ret, err);
}

bool kt_oauth_refresh_older(struct kt_flight *flight)
{
	struct kept kept;

	if (flight->spec->token.grant.refresh_token == NULL || flight->refresh_saved) {
		return false;
	}
	look(flight, &kept);
	if (flight->refresh_at + 1 >= kept.count) {
		return false;
	}
	flight->refresh_at++;
	return true;
}

static enum kt_code put(struct kt_flight *flight, const struct kept *kept, const char *key, struct kt_view token,
                        struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_seal_id id = kt_store_secret_seal_id(kept->ns, kept->name, key);
	struct kt_store_secret row = {.ns = kept->ns,
	                              .name = kept->name,
	                              .key = key,
	                              .source = KT_SECRET_COMMAND,
	                              .updated = kt_keeper_now(keeper)};
	struct kt_buf sealed KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&sealed, 131072);
	code = kt_keys_seal(keeper->keys, &id, token, &sealed, err);
	row.sealed = kt_buf_view(&sealed);
	return code == KT_OK ? kt_store_secret_put(keeper->store, &row, err) : code;
}

enum kt_code kt_oauth_refresh_save(struct kt_flight *flight, struct kt_view token, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_audit_event event = {.step = "refresh-token.rotated", .outcome = "ok"};
	struct kt_secret *used KT_AUTOSECRET = NULL;
	struct kept kept;
	enum kt_code code;

	if (flight->spec->token.grant.refresh_token == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the courier wants to keep a refresh token that nobody asked for");
	}
	look(flight, &kept);
	code = kt_oauth_refresh_get(flight, &used, err);
	if (code == KT_OK && kt_view_eq(kt_secret_view(used), token)) {
		return KT_OK; /* the server said the same one again */
	}
	if (code == KT_OK && flight->refresh_saved) { /* the next one would push out the one that was used */
		code = kt_err_set(err, KT_E_PROTO, "the courier wants to keep a second refresh token of one answer");
	}
	if (code == KT_OK) {
		code = kt_store_begin(store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	code = put(flight, &kept, kept.previous, kt_secret_view(used), err);
	if (code == KT_OK) {
		code = put(flight, &kept, kept.newest, token, err);
	}
	if (code == KT_OK) {
		code = kt_flight_audit(flight, &event, err);
	}
	code = kt_store_end(store, code, err);
	if (code == KT_OK) {
		flight->refresh_saved = true;
		flight->refresh_at = 0;
	}
	return code;
}

enum kt_code kt_oauth_refresh_worked(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_store *store = flight->keeper->store;
	struct kt_secret *used KT_AUTOSECRET = NULL;
	enum kt_secret_source unused;
	struct kept kept;
	enum kt_code code = KT_OK;

	/* The new one is not proved yet: the old one stays beside it until it has been used. */
	if (flight->spec->token.grant.refresh_token == NULL || flight->refresh_saved) {
		return KT_OK;
	}
	look(flight, &kept);
	if (flight->refresh_at == 0 && !is_there(flight->keeper, &kept, kept.previous, &unused)) {
		return KT_OK;
	}
	code = kt_oauth_refresh_get(flight, &used, err);
	if (code == KT_OK) {
		code = kt_store_begin(store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	if (flight->refresh_at > 0) {
		code = put(flight, &kept, kept.newest, kt_secret_view(used), err);
	}
	if (code == KT_OK && is_there(flight->keeper, &kept, kept.previous, &unused)) {
		code = kt_store_secret_delete(store, kept.ns, kept.name, kept.previous, err);
	}
	code = kt_store_end(store, code, err);
	flight->refresh_at = code == KT_OK ? 0 : flight->refresh_at;
	return code;
}
