/* A client's id and secret as one secret: "id\nsecret". */
#include <string.h>

#include "keeper/client/client.h"

#define ID_MAX     127u
#define SECRET_MAX 4096u

static bool fits(struct kt_view part, size_t max)
{
	return part.len > 0 && part.len <= max && memchr(part.ptr, '\n', part.len) == NULL &&
	       memchr(part.ptr, '\r', part.len) == NULL && memchr(part.ptr, '\0', part.len) == NULL;
}

enum kt_code kt_client_pair_make(struct kt_view id, struct kt_view secret, struct kt_secret **ret, struct kt_err *err)
{
	enum kt_code code;
	char *at;

	if (!fits(id, ID_MAX) || !fits(secret, SECRET_MAX)) {
		return kt_err_set(err, KT_E_PROTO, "a client's id or secret is empty, too long, or has more than one line");
	}
	code = kt_secret_alloc(id.len + 1 + secret.len, ret, err);
	if (code != KT_OK) {
		return code;
	}
	at = kt_secret_edit(*ret);
	memcpy(at, id.ptr, id.len);
	at[id.len] = '\n';
	memcpy(at + id.len + 1, secret.ptr, secret.len);
	return KT_OK;
}

bool kt_client_pair_split(const struct kt_secret *pair, struct kt_view *ret_id, struct kt_view *ret_secret)
{
	struct kt_view all = pair != NULL ? kt_secret_view(pair) : (struct kt_view){NULL, 0};
	const char *end = all.len > 0 ? memchr(all.ptr, '\n', all.len) : NULL;

	if (end == NULL) {
		return false;
	}
	*ret_id = (struct kt_view){all.ptr, (size_t)(end - all.ptr)};
	*ret_secret = (struct kt_view){end + 1, all.len - ret_id->len - 1};
	return true;
}

struct find_newer {
	kt_ms than;
	bool found;
};

static bool is_newer(const struct kt_store_secret *secret, void *arg)
{
	struct find_newer *find = arg;

	find->found = find->found || secret->updated >= find->than;
	return !find->found;
}

/* Its manifest is gone, and somebody has set a secret under its name since. */
static bool is_replaced(struct kt_keeper *keeper, const char *ns, const char *secret_name, const struct kt_store_cred *cred)
{
	struct find_newer find = {.than = cred->delivered_at};
	struct kt_store_resource resource;

	if (kt_store_resource_get(keeper->store, cred->id, &resource, NULL) != KT_OK) {
		return false;
	}
	if (resource.gone) {
		(void)kt_store_secret_each(keeper->store, ns, secret_name, is_newer, &find, NULL);
	}
	kt_store_resource_finish(&resource);
	return find.found;
}

/* The credential with that secretName, where it is a ClientCredential's. */
static enum kt_code find(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_store_cred *ret,
                         struct kt_err *err)
{
	enum kt_code code = kt_store_cred_find_secret(keeper->store, ns, secret_name, ret, err);

	if (code == KT_OK && (ret->kind != KT_KIND_CLIENT || is_replaced(keeper, ns, secret_name, ret))) {
		kt_store_cred_finish(ret);
		code = kt_err_set(err, KT_E_NOTFOUND, "no ClientCredential has the secretName %s", secret_name);
	}
	return code;
}

bool kt_client_owns(struct kt_keeper *keeper, const char *ns, const char *secret_name)
{
	struct kt_store_cred cred;

	if (find(keeper, ns, secret_name, &cred, NULL) != KT_OK) {
		return false;
	}
	kt_store_cred_finish(&cred);
	return true;
}

/* ret_key: it is a client's id and the kid of its key. */
static enum kt_code in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_secret **ret,
                             bool *ret_key, struct kt_err *err)
{
	struct kt_store_resource resource;
	struct kt_store_material material;
	struct kt_store_cred cred;
	struct kt_seal_id id;
	int64_t active;
	enum kt_code code = find(keeper, ns, secret_name, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	active = cred.active;
	code = kt_store_resource_get(keeper->store, cred.id, &resource, err);
	kt_store_cred_finish(&cred);
	if (code != KT_OK) {
		return code;
	}
	code = active != 0 ? kt_store_material_get(keeper->store, active, &material, err)
	                   : kt_err_set(err, KT_E_LATER, "the ClientCredential with the secretName %s has no secret yet",
	                                secret_name);
	if (code == KT_OK) {
		id = kt_store_material_seal_id(&resource, material.revision, "token");
		code = kt_keys_unseal(keeper->keys, &id, material.sealed_token, ret, err);
		*ret_key = material.sealed_key.len > 0;
		kt_store_material_finish(&material);
	}
	kt_store_resource_finish(&resource);
	return code;
}

static enum kt_code no_secret(const char *secret_name, struct kt_err *err)
{
	return kt_err_set(err, KT_E_INVALID, "the ClientCredential with the secretName %s has a key and no secret: name it as "
	                  "keySecretRef", secret_name);
}

enum kt_code kt_client_pair_in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name,
                                     struct kt_secret **ret, struct kt_err *err)
{
	bool key = false;
	enum kt_code code = in_force(keeper, ns, secret_name, ret, &key, err);

	if (code == KT_OK && key) {
		kt_secret_destroy(*ret);
		*ret = NULL;
		code = no_secret(secret_name, err);
	}
	return code;
}

enum kt_code kt_client_part(struct kt_keeper *keeper, const char *ns, const char *secret_name, bool secret,
                            struct kt_secret **ret, struct kt_err *err)
{
	struct kt_secret *pair KT_AUTOSECRET = NULL;
	struct kt_view id, value;
	bool key = false;
	enum kt_code code = in_force(keeper, ns, secret_name, &pair, &key, err);

	if (code == KT_OK && !kt_client_pair_split(pair, &id, &value)) {
		code = kt_err_set(err, KT_E_CORRUPT, "what is stored for secret %s is no client's id and secret", secret_name);
	}
	if (code == KT_OK && secret && key) {
		code = no_secret(secret_name, err);
	}
	if (code != KT_OK) {
		return code;
	}
	return secret ? kt_secret_create(value.ptr, value.len, ret, err) : kt_secret_create(id.ptr, id.len, ret, err);
}
