/* Header lines for one call with a token that is bound to a DPoP key: the key itself does not leave. */
#include <string.h>

#include "keeper/oauth/oauth.h"

static enum kt_code open_part(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                              const struct kt_store_material *material, const char *part, struct kt_view sealed,
                              struct kt_secret **ret, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(resource, material->revision, part);

	return kt_keys_unseal(keeper->keys, &id, sealed, ret, err);
}

enum kt_code kt_oauth_headers(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                              const struct kt_store_material *material, const char *method, const char *url,
                              const char *nonce, struct kt_buf *out, struct kt_err *err)
{
	struct kt_resource *spec = NULL;
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_secret *proof KT_AUTOSECRET = NULL;
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_oauth_proof want = {.method = kt_view_str(method),
	                              .url = kt_view_str(url),
	                              .nonce = kt_view_str(nonce),
	                              .now = kt_keeper_now(keeper)};
	enum kt_code code;

	if (material->sealed_key.len == 0) {
		return kt_err_set(err, KT_E_INVALID, "Token %s is bound to no key of its own: there is no spec.dpop",
		                  resource->name);
	}
	code = kt_load_spec(resource, &spec, err);
	if (code == KT_OK) {
		code = open_part(keeper, resource, material, "token", material->sealed_token, &token, err);
	}
	if (code == KT_OK) {
		code = open_part(keeper, resource, material, "key", material->sealed_key, &der, err);
	}
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(der), &key, err);
	}
	if (code == KT_OK) {
		enum kt_assertion_alg alg = spec->token.dpop != NULL ? spec->token.dpop->algorithm : KT_ASSERTION_DEFAULT;

		/* The manifest may ask for another one already: then the key in force goes by what it is. */
		alg = kt_jose_alg_fits(kt_oauth_alg(alg), key) ? alg : KT_ASSERTION_DEFAULT;
		want.token = kt_secret_view(token);
		code = kt_oauth_proof(key, alg, &want, &proof, err);
	}
	if (code == KT_OK) {
		kt_buf_adds(out, "Authorization: DPoP ");
		kt_buf_addv(out, kt_secret_view(token));
		kt_buf_adds(out, "\nDPoP: ");
		kt_buf_addv(out, kt_secret_view(proof));
		kt_buf_addc(out, '\n');
		code = kt_buf_check(out, "the headers", err);
	}
	kt_resource_destroy(spec);
	return code;
}
