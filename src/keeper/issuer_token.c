/* The issuers of tokens: oauth2 (the courier asks an authorization server) and local (signed here, RFC 9068). */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/keeper.h"

#define MINT_TIMEOUT (60 * KT_SECOND)

/* --- common ------------------------------------------------------------------------------------------------------- */

static void join(struct kt_buf *out, const struct kt_strings *list)
{
	uint32_t i;

	for (i = 0; i < list->count; i++) {
		kt_buf_addf(out, "%s%s", i > 0 ? " " : "", list->items[i]);
	}
}

static void add_list(struct kt_buf *out, const struct kt_strings *list)
{
	uint32_t i;

	kt_buf_addc(out, '[');
	for (i = 0; i < list->count; i++) {
		if (i > 0) {
			kt_buf_addc(out, ',');
		}
		kt_buf_add_json(out, kt_view_str(list->items[i]));
	}
	kt_buf_addc(out, ']');
}

static void identify(struct kt_flight *flight, const char *jti)
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

/* --- oauth2 ------------------------------------------------------------------------------------------------------- */

static enum kt_code issuer_json(const struct kt_oauth2_issuer *oauth2, struct kt_buf *out, struct kt_err *err)
{
	kt_buf_addf(out, "{\"audienceParam\":\"%s\",\"auth\":{\"method\":\"%s\",\"clientID\":",
	            kt_audience_param_name(oauth2->audience_param), kt_auth_method_name(oauth2->auth.method));
	kt_buf_add_json(out, kt_view_str(oauth2->auth.client_id));
	kt_buf_addc(out, '}');
	if (oauth2->issuer != NULL) {
		kt_buf_adds(out, ",\"issuer\":");
		kt_buf_add_json(out, kt_view_str(oauth2->issuer));
	}
	if (oauth2->token_url != NULL) {
		kt_buf_adds(out, ",\"tokenURL\":");
		kt_buf_add_json(out, kt_view_str(oauth2->token_url));
	}
	if (oauth2->ca_bundle.len > 0) {
		kt_buf_adds(out, ",\"caBundle\":");
		kt_buf_add_json(out, (struct kt_view){(const char *)oauth2->ca_bundle.ptr, oauth2->ca_bundle.len});
	}
	kt_buf_addc(out, '}');
	return kt_buf_check(out, "issuer", err);
}

/* A JWT's own claims against what was asked for; an opaque token has none. exp in seconds, 0 when not said. */
static enum kt_code look_inside(struct kt_flight *flight, kt_ms now, int64_t *ret_exp, char jti[128], struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	const struct kt_oauth2_issuer *oauth2 = flight->issuer->spec->token_issuer.oauth2;
	struct kt_jwt jwt;
	enum kt_code code = KT_OK;

	*ret_exp = 0;
	jti[0] = '\0';
	if (kt_jose_jwt_peek(kt_secret_view(flight->got.token), &jwt, NULL) != KT_OK) {
		return KT_OK;
	}
	*ret_exp = jwt.exp;
	if (jwt.jti != NULL) {
		(void)snprintf(jti, 128, "%s", jwt.jti);
	}
	if (jwt.exp != 0 && jwt.exp * 1000 <= now) {
		code = kt_err_set(err, KT_E_PROTO, "the server gave a token that has expired already");
	} else if (jwt.nbf != 0 && jwt.nbf * 1000 > now + 5 * KT_MINUTE) {
		code = kt_err_set(err, KT_E_PROTO, "the server gave a token that is not valid yet (nbf)");
	} else if (jwt.iss != NULL && oauth2->issuer != NULL && strcmp(jwt.iss, oauth2->issuer) != 0) {
		code = kt_err_set(err, KT_E_PROTO, "the token's iss is %.200s, spec.oauth2.issuer %s", jwt.iss,
		                  oauth2->issuer);
	} else if (spec->audiences.count > 0 && json_object_get(jwt.claims, "aud") != NULL) {
		json_t *aud = json_object_get(jwt.claims, "aud");
		uint32_t i;

		for (i = 0; i < spec->audiences.count && code == KT_OK; i++) {
			bool found = json_is_string(aud) && strcmp(json_string_value(aud), spec->audiences.items[i]) == 0;
			size_t k;

			for (k = 0; k < json_array_size(aud) && !found; k++) {
				const char *one = json_string_value(json_array_get(aud, k));

				found = one != NULL && strcmp(one, spec->audiences.items[i]) == 0;
			}
			if (!found) {
				code = kt_err_set(err, KT_E_PROTO, "the token is not for the audience %s (spec.audiences)",
				                  spec->audiences.items[i]);
			}
		}
	}
	kt_jose_jwt_finish(&jwt);
	return code;
}

/* Whatever number the courier said, it can be reckoned with. */
static kt_ms skew_ms(int64_t seconds)
{
	const int64_t most = KT_TIME_MAX / KT_SECOND;

	return (seconds > most ? most : seconds < -most ? -most : seconds) * KT_SECOND;
}

/* RFC 6749 appendix A: what a header can carry; so that nothing comes in that would end the line and begin another one. */
static bool visible(struct kt_view text, char from)
{
	size_t i;

	for (i = 0; i < text.len; i++) {
		if (text.ptr[i] < from || text.ptr[i] >= 0x7f) {
			return false;
		}
	}
	return true;
}

static enum kt_code take_minted(struct kt_flight *flight, struct kt_msg_minted *msg, struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	kt_ms now = kt_keeper_now(flight->keeper);
	struct kt_plan_token_answer answer = {.now = now,
	                                      .skew = skew_ms(msg->date_skew),
	                                      .expires_in_s = msg->expires_in > 0 ? msg->expires_in : 0,
	                                      .cap = spec->max_lifetime,
	                                      .fallback = spec->default_lifetime};
	int64_t exp = 0;
	char jti[128];
	bool longer = false;
	enum kt_code code;

	if (msg->token == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the server gave no access_token");
	}
	if (!visible(kt_secret_view(msg->token), '!') || !visible(msg->token_type, '!') || !visible(msg->scope, ' ')) {
		return kt_err_set(err, KT_E_PROTO, "the token, its type or its scope holds characters that no header can carry");
	}
	kt_secret_destroy(flight->got.token);
	flight->got.token = msg->token;
	msg->token = NULL;
	(void)snprintf(flight->got.token_type, sizeof(flight->got.token_type), "%.*s", (int)msg->token_type.len,
	               msg->token_type.ptr);
	(void)snprintf(flight->got.scope, sizeof(flight->got.scope), "%.*s", (int)msg->scope.len, msg->scope.ptr);
	code = look_inside(flight, now, &exp, jti, err);
	if (code != KT_OK) {
		return code;
	}
	answer.exp = exp * 1000;
	flight->got.not_before = now;
	flight->got.not_after = kt_plan_token_life(&answer, &longer);
	if (longer && spec->on_longer_lifetime == KT_LONGER_REFUSE) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the token lives longer than spec.maxLifetime and spec.onLongerLifetime is Refuse");
	}
	if (longer) {
		kt_log(KT_LOG_WARN, "Token %s/%s: the server's token lives longer than spec.maxLifetime",
		       flight->resource.ns, flight->resource.name);
	}
	identify(flight, jti);
	return KT_OK;
}

static void on_minted(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	kt_err_clear(&err);
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (why->code != KT_OK) {
		err = *why;
	} else if (type != KT_MINTED) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	} else if (take_minted(flight, msg, &err) != KT_OK) {
		const struct kt_oauth2_issuer *oauth2 = flight->issuer->spec->token_issuer.oauth2;

		const char *url = oauth2->token_url != NULL ? oauth2->token_url : oauth2->issuer;

		if (strstr(err.what, url) == NULL) { /* the courier may have named it */
			(void)kt_err_prefix(&err, "token from %s", url);
		}
	}
	kt_rotate_wake(flight, &err);
}

static enum kt_effect obtain_oauth2(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_buf request KT_AUTOBUF = {0};
	char traceparent[56];
	struct kt_msg_mint msg = {0};
	enum kt_code code;

	kt_buf_init(&issuer, 65536);
	kt_buf_init(&request, 65536);
	code = issuer_json(flight->issuer->spec->token_issuer.oauth2, &issuer, err);
	kt_buf_adds(&request, "{\"audiences\":");
	add_list(&request, &flight->spec->token.audiences);
	kt_buf_adds(&request, ",\"scopes\":");
	add_list(&request, &flight->spec->token.scopes);
	kt_buf_addc(&request, '}');
	if (code == KT_OK) {
		code = kt_buf_check(&request, "token request", err);
	}
	if (code == KT_OK) {
		kt_rotate_begin_job(flight);
		msg.job = flight->job;
		msg.issuer = kt_buf_view(&issuer);
		msg.request = kt_buf_view(&request);
		msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
		code = kt_wire_call(kt_keeper_courier(keeper), KT_MINT, &msg, NULL, 0, MINT_TIMEOUT, on_minted, flight, err);
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

void kt_oauth_on_client_secret(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_client_secret *ask = in->msg;
	struct kt_flight *flight = kt_rotate_find_job(keeper, ask->job);
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_msg_client_secret_given given;
	struct kt_err err;

	kt_err_clear(&err);
	if (flight == NULL || flight->issuer == NULL || flight->issuer->ops != &kt_issuer_oauth2) {
		(void)kt_err_set(&err, KT_E_CANCELLED, "that token is not being worked on any more");
	} else {
		const struct kt_secret_ref *ref = &flight->issuer->spec->token_issuer.oauth2->auth.client_secret_ref;

		(void)kt_issuers_secret(keeper, flight->issuer->spec->meta.ns, ref->name, ref->key, &secret, &err);
	}
	if (err.code != KT_OK) {
		if (err.code == KT_E_NOTFOUND) {
			err.code = KT_E_AUTH; /* a person has to set it */
		}
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	given.secret = secret;
	kt_wire_reply(in->wire, in->id, KT_CLIENT_SECRET_GIVEN, &given, NULL, 0);
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
	identify(flight, jti);
	return KT_EFFECT_DONE;
}

const struct kt_issuer_ops kt_issuer_oauth2 = {
        .name = "oauth2", .makes_tokens = true, .remote = true, .obtain = obtain_oauth2};
const struct kt_issuer_ops kt_issuer_local = {.name = "local", .makes_tokens = true, .obtain = obtain_local};
