/* The local issuer of tokens: signed here (RFC 9068). Those that an authorization server gives are in oauth/. */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/keeper.h"

/* --- common ------------------------------------------------------------------------------------------------------- */

static void join(struct kt_buf *out, const struct kt_strings *list)
{
	uint32_t i;

	for (i = 0; i < list->count; i++) {
		kt_buf_addf(out, "%s%s", i > 0 ? " " : "", list->items[i]);
	}
}

void kt_token_identify(struct kt_flight *flight, const char *jti)
{
	struct kt_view token = kt_secret_view(flight->got.token);

	kt_sha256_hex(token.ptr, token.len, flight->got.sha256);
	/* A token is named by its jti, or by its fingerprint: never by itself. */
	if (jti != NULL && jti[0] != '\0' && strlen(jti) < sizeof(flight->got.serial)) {
		(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%s", jti);
	} else {
		(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "sha256:%.32s", flight->got.sha256);
	}
}

/* --- local -------------------------------------------------------------------------------------------------------- */

static enum kt_code extra_claims(const struct kt_token_spec *spec, const char *client_id, json_t **ret,
                                 struct kt_err *err)
{
	struct kt_buf scope KT_AUTOBUF = {0};
	json_t *extra = json_object();
	uint32_t i;
	int bad = extra == NULL ? -1 : 0;

	kt_buf_init(&scope, 65536);
	join(&scope, &spec->scopes);
	if (bad == 0 && scope.len > 0) {
		bad |= json_object_set_new(extra, "scope", json_stringn(scope.ptr, scope.len));
	}
	if (bad == 0) {
		bad |= json_object_set_new(extra, "client_id", json_string(client_id));
	}
	for (i = 0; i < spec->claims.extra.count && bad == 0; i++) {
		bad |= json_object_set_new(extra, spec->claims.extra.items[i].key,
		                           json_string(spec->claims.extra.items[i].value));
	}
	if (bad != 0) {
		json_decref(extra);
		return kt_err_set(err, KT_E_NOMEM, "no memory for claims");
	}
	*ret = extra;
	return KT_OK;
}

static enum kt_effect obtain_local(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	struct kt_issuer_entry *entry = flight->issuer;
	const struct kt_local_issuer *local = entry->spec->token_issuer.local;
	json_t *extra KT_AUTOJSON = NULL;
	char subject[600];
	char jti[33];
	kt_ms next;
	kt_ms now = kt_keeper_now(keeper);
	kt_ms life = spec->duration;
	struct kt_jwt_claims claims = {.typ = "at+jwt", .iss = local->issuer_url, .jti = jti};
	enum kt_code code = kt_jwks_ensure(keeper, entry, &next, err);

	if (code != KT_OK) {
		return KT_EFFECT_FAILED;
	}
	life = spec->max_lifetime > 0 && life > spec->max_lifetime ? spec->max_lifetime : life;
	life = life > local->max_token_lifetime ? local->max_token_lifetime : life;
	(void)snprintf(subject, sizeof(subject), "%s/%s", flight->resource.ns, flight->resource.name);
	kt_rand_hex(jti, 16);
	claims.kid = entry->kid;
	claims.sub = spec->claims.subject != NULL ? spec->claims.subject : subject;
	claims.aud = (struct kt_strs){(const char *const *)spec->audiences.items, spec->audiences.count};
	claims.iat = now / 1000;
	claims.exp = (now + life) / 1000;
	code = extra_claims(spec, spec->claims.client_id != NULL ? spec->claims.client_id : claims.sub, &extra, err);
	if (code == KT_OK) {
		claims.extra = extra;
		kt_secret_destroy(flight->got.token);
		flight->got.token = NULL;
		code = kt_jose_jwt_sign(entry->signing_key, KT_JOSE_NONE, &claims, &flight->got.token, err);
	}
	if (code != KT_OK) {
		return KT_EFFECT_FAILED;
	}
	(void)snprintf(flight->got.token_type, sizeof(flight->got.token_type), "Bearer");
	flight->got.scope[0] = '\0';
	flight->got.not_before = now;
	flight->got.not_after = claims.exp * 1000;
	kt_token_identify(flight, jti);
	return KT_EFFECT_DONE;
}

const struct kt_issuer_ops kt_issuer_local = {.name = "local", .makes_tokens = true, .obtain = obtain_local};
