/* The issuers: their table, the cache of decoded ones, the Secrets they refer to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "keeper/acme.h"
#include "keeper/client/client.h"

#define SECRET_MAX (256u * 1024u)
#define IDLE_MS    (60 * KT_SECOND)

static const struct kt_issuer_ops *ops_of(const struct kt_resource *spec)
{
	if (spec->kind == KT_RES_CLIENT_CREDENTIAL && spec->client.private_key != NULL) {
		return &kt_issuer_client_key;
	}
	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		return spec->client.issuer.fixed != NULL && spec->client.test == NULL ? &kt_issuer_client_static : &kt_issuer_client;
	}
	if (spec->kind == KT_RES_TOKEN_ISSUER) {
		return spec->token_issuer.local != NULL ? &kt_issuer_local
		       : spec->token_issuer.aws != NULL ? &kt_issuer_aws
		                                        : &kt_issuer_oauth2;
	}
	if (spec->issuer.acme != NULL) {
		return &kt_issuer_acme;
	}
	return spec->issuer.ca != NULL ? &kt_issuer_ca : &kt_issuer_self_signed;
}

static void entry_destroy(struct kt_issuer_entry *entry)
{
	kt_resource_destroy(entry->spec);
	kt_pki_issuer_destroy(entry->ca);
	kt_pki_key_destroy(entry->signing_key);
	kt_free(entry->ca_pem);
	kt_free(entry->chain_pem);
	kt_free(entry);
}

/* A flight may still point to an entry: only unused ones go. */
static bool entry_used(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry)
{
	const struct kt_flight *flight;

	for (flight = keeper->flights; flight != NULL; flight = flight->next) {
		if (flight->issuer == entry || flight->real == entry || flight->staging == entry) {
			return true;
		}
	}
	return kt_acme_job_uses(keeper, entry);
}

void kt_issuers_drop(struct kt_keeper *keeper, bool all)
{
	struct kt_issuer_entry **at = &keeper->issuers;
	kt_ms now = kt_clock_mono(keeper->clock);

	while (*at != NULL) {
		struct kt_issuer_entry *entry = *at;

		if ((all || now - entry->used_at > IDLE_MS) && !entry_used(keeper, entry)) {
			*at = entry->next;
			entry_destroy(entry);
		} else {
			if (all) { /* in use: what was prepared from an older CA goes */
				kt_pki_issuer_destroy(entry->ca);
				entry->ca = NULL;
				entry->signing_until = 0; /* ... and what the store may not hold is asked for again */
			}
			at = &entry->next;
		}
	}
}

enum kt_code kt_issuers_entry(struct kt_keeper *keeper, const char *kind, const char *ns, const char *name,
                              struct kt_issuer_entry **ret, struct kt_err *err)
{
	struct kt_store_resource row;
	struct kt_issuer_entry *entry;
	enum kt_code code = kt_store_resource_find(keeper->store, kind, ns, name, &row, err);

	if (code != KT_OK) {
		return code == KT_E_NOTFOUND
		               ? kt_err_set(err, code, "%s %s does not exist: add its manifest", kind, name)
		               : code;
	}
	if (row.gone) {
		kt_store_resource_finish(&row);
		return kt_err_set(err, KT_E_NOTFOUND, "%s %s was removed from the manifests", kind, name);
	}
	for (entry = keeper->issuers; entry != NULL; entry = entry->next) {
		if (entry->id == row.id && entry->generation == row.generation && !entry->staging) {
			goto found;
		}
	}
	entry = kt_calloc(1, sizeof(*entry));
	if (entry == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for an issuer");
		goto out;
	}
	code = kt_load_spec(&row, &entry->spec, err);
	if (code != KT_OK) {
		kt_free(entry);
		goto out;
	}
	entry->id = row.id;
	entry->generation = row.generation;
	entry->ops = ops_of(entry->spec);
	(void)snprintf(entry->ref, sizeof(entry->ref), "%s/%s/%s", kind, ns, name);
	entry->next = keeper->issuers;
	keeper->issuers = entry;
found:
	entry->used_at = kt_clock_mono(keeper->clock);
	*ret = entry;
out:
	kt_store_resource_finish(&row);
	return code;
}

enum kt_code kt_issuers_get(struct kt_keeper *keeper, const struct kt_resource *spec, struct kt_issuer_entry **ret,
                            struct kt_err *err)
{
	const struct kt_issuer_ref *ref =
	        spec->kind == KT_RES_TOKEN ? &spec->token.issuer_ref : &spec->certificate.issuer_ref;
	const char *ns;
	enum kt_code code;

	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) { /* which says itself where its clients are registered */
		return kt_issuers_entry(keeper, kt_kind_name(spec->kind), spec->meta.ns, spec->meta.name, ret, err);
	}
	ns = ref->kind == KT_RES_CLUSTER_ISSUER ? "" : spec->meta.ns;
	code = kt_issuers_entry(keeper, kt_kind_name(ref->kind), ns, ref->name, ret, err);
	if (code == KT_OK && (*ret)->ops->makes_tokens != (spec->kind == KT_RES_TOKEN)) {
		return kt_err_set(err, KT_E_INVALID, "%s can't issue a %s", (*ret)->ref, kt_kind_name(spec->kind));
	}
	return code;
}

/* --- Secrets ----------------------------------------------------------------------------------------------------- */

static enum kt_code from_store(struct kt_keeper *keeper, const char *ns, const char *name, const char *key,
                               struct kt_secret **ret, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_secret_seal_id(ns, name, key);
	struct kt_store_secret row;
	enum kt_code code = kt_store_secret_get(keeper->store, ns, name, key, &row, err);

	if (code == KT_OK) {
		code = kt_keys_unseal(keeper->keys, &id, row.sealed, ret, err);
		kt_store_secret_finish(&row);
	}
	return code;
}

/* The active material of the credential that owns a secret name. */
static enum kt_code from_credential(struct kt_keeper *keeper, const char *ns, const char *name, const char *key,
                                    struct kt_secret **ret, struct kt_err *err)
{
	struct kt_store_resource resource = {0};
	struct kt_store_material material = {0};
	struct kt_store_cred cred;
	struct kt_seal_id id;
	struct kt_view view = {NULL, 0};
	enum kt_code code = kt_store_cred_find_secret(keeper->store, ns, name, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	if (cred.active == 0) {
		code = kt_err_set(err, KT_E_LATER, "secret %s is not issued yet", name);
		goto out;
	}
	code = kt_store_resource_get(keeper->store, cred.id, &resource, err);
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, cred.active, &material, err);
	}
	if (code != KT_OK) {
		goto out;
	}
	if (strcmp(key, "tls.crt") == 0) {
		view = material.chain;
	} else if (strcmp(key, "ca.crt") == 0) {
		view = material.ca;
	} else if (strcmp(key, "tls.key") == 0 || strcmp(key, "token") == 0) {
		bool token = key[1] == 'o';

		id = kt_store_material_seal_id(&resource, material.revision, token ? "token" : "key");
		code = kt_keys_unseal(keeper->keys, &id, token ? material.sealed_token : material.sealed_key, ret, err);
		goto out;
	}
	code = view.len > 0 ? kt_secret_create(view.ptr, view.len, ret, err)
	                    : kt_err_set(err, KT_E_NOTFOUND, "secret %s has no key %s", name, key);
out:
	kt_store_material_finish(&material);
	kt_store_resource_finish(&resource);
	kt_store_cred_finish(&cred);
	return code;
}

static enum kt_code from_file(const char *path, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf buf KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&buf, SECRET_MAX);
	code = kt_io_read_file(AT_FDCWD, path, &buf, err);
	return code == KT_OK ? kt_secret_from_buf(&buf, ret, err) : code;
}

static enum kt_code from_mounts(struct kt_keeper *keeper, const char *ns, const char *name, const char *key,
                                struct kt_secret **ret, struct kt_err *err)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	bool plain = ns[0] == '\0' || strcmp(ns, "default") == 0;
	char path[4096];
	enum kt_code code;

	(void)snprintf(path, sizeof(path), "%s/%s%s%s/%s", keeper->secrets_dir, plain ? "" : ns, plain ? "" : "/", name,
	               key);
	code = from_file(path, ret, err);
	if (code == KT_OK || credentials == NULL) {
		return code;
	}
	(void)snprintf(path, sizeof(path), "%s/%s.%s", credentials, name, key);
	code = from_file(path, ret, err);
	if (code != KT_OK) {
		(void)snprintf(path, sizeof(path), "%s/%s", credentials, name);
		code = from_file(path, ret, err);
	}
	return code;
}

enum kt_code kt_issuers_secret(struct kt_keeper *keeper, const char *ns, const char *name, const char *key,
                               struct kt_secret **ret, struct kt_err *err)
{
	const char *real_ns = ns[0] != '\0' ? ns : "default";
	bool pair = strcmp(key, "client-secret") == 0 || strcmp(key, "client-id") == 0;
	enum kt_code code = KT_E_NOTFOUND;

	*ret = NULL;
	if (pair) { /* what is rotated is what counts, whatever was set under that name before */
		code = kt_client_part(keeper, real_ns, name, key[7] == 's', ret, err);
	}
	if (code == KT_E_NOTFOUND) {
		code = from_store(keeper, real_ns, name, key, ret, err);
	}
	*ret = code == KT_OK ? *ret : NULL;
	if (code == KT_E_NOTFOUND) {
		code = from_credential(keeper, real_ns, name, key, ret, err);
	}
	if (code == KT_E_NOTFOUND) {
		code = from_mounts(keeper, real_ns, name, key, ret, err);
		if (code != KT_OK) {
			return kt_err_set(err, KT_E_NOTFOUND,
			                  "secret %s/%s has no key %s in the store, in %s or among the systemd "
			                  "credentials: set it with 'keyturn secret set %s %s'",
			                  real_ns, name, key, keeper->secrets_dir, name, key);
		}
	}
	if (code == KT_OK) { /* that it was not in the first place is nobody's error */
		kt_err_clear(err);
	}
	return code;
}

/* --- what came from an issuer -------------------------------------------------------------------------------------- */

static char *dup_view(struct kt_view view)
{
	return view.len > 0 ? kt_strndup(view.ptr, view.len) : NULL;
}

enum kt_code kt_issuers_take_chain(struct kt_flight *flight, struct kt_view chain_pem, struct kt_view ca_pem,
                                   struct kt_err *err)
{
	struct kt_obtained *got = &flight->got;

	kt_free(got->chain_pem);
	kt_free(got->ca_pem);
	got->chain_pem = dup_view(chain_pem);
	got->ca_pem = dup_view(ca_pem);
	if ((got->chain_pem == NULL) != (chain_pem.len == 0) || (got->ca_pem == NULL) != (ca_pem.len == 0)) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a chain");
	}
	return KT_OK;
}
