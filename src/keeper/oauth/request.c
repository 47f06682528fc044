/* Asking an authorization server for a token: the request as JSON, the courier's job, its answer. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/flight.h"
#include "keeper/oauth/oauth.h"

#define MINT_TIMEOUT (60 * KT_SECOND)
#define TURN         (30 * KT_SECOND) /* of each whose turn at the server may come before */

int64_t kt_oauth_bounded_skew(int64_t seconds)
{
	const int64_t most = KT_DAY / KT_SECOND;

	return seconds > most ? most : seconds < -most ? -most : seconds;
}

/* --- JSON ------------------------------------------------------------------------------------------------------------------ */

int64_t kt_oauth_in_flight(const struct kt_keeper *keeper)
{
	return keeper->agent != NULL ? keeper->agent->agent.limits.per_issuer : 0;
}

enum kt_code kt_oauth_issuer_json(const struct kt_oauth2_issuer *oauth2, int64_t in_flight, struct kt_buf *out,
                                  struct kt_err *err)
{
	kt_buf_addf(out, "{\"audienceParam\":\"%s\",\"auth\":{\"method\":\"%s\"",
	            kt_audience_param_name(oauth2->audience_param), kt_auth_method_name(oauth2->auth.method));
	kt_buf_add_json_member(out, "clientID", oauth2->auth.client_id);
	kt_buf_addc(out, '}');
	kt_buf_add_json_member(out, "issuer", oauth2->issuer);
	kt_buf_add_json_member(out, "tokenURL", oauth2->token_url);
	kt_buf_add_json_member(out, "jwksURL", oauth2->jwks_url);
	if (oauth2->verify_tokens) {
		kt_buf_adds(out, ",\"verify\":true");
	}
	kt_buf_add_json_member(out, "profile", kt_oauth2_profile_name(oauth2->profile));
	if (in_flight > 0) {
		kt_buf_addf(out, ",\"inFlight\":%lld", (long long)in_flight);
	}
	if (oauth2->ca_bundle.len > 0) {
		kt_buf_adds(out, ",\"caBundle\":");
		kt_buf_add_json(out, (struct kt_view){(const char *)oauth2->ca_bundle.ptr, oauth2->ca_bundle.len});
	}
	kt_buf_addc(out, '}');
	return kt_buf_check(out, "issuer", err);
}

static bool is_given(const struct kt_token_source *source)
{
	return source->token_ref != NULL || source->secret.name != NULL;
}

enum kt_code kt_oauth_request_json(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec,
                                   struct kt_buf *out, struct kt_err *err)
{
	const struct kt_token_exchange *exchange = spec->grant.token_exchange;
	const char *type = exchange != NULL                      ? "token_exchange"
	                   : spec->grant.jwt_bearer != NULL    ? "jwt_bearer"
	                   : spec->grant.refresh_token != NULL ? "refresh_token"
	                                                       : "client_credentials";

	kt_buf_addf(out, "{\"grantType\":\"%s\",\"audiences\":", type);
	kt_buf_add_json_list(out, spec->audiences.items, spec->audiences.count);
	kt_buf_adds(out, ",\"scopes\":");
	kt_buf_add_json_list(out, spec->scopes.items, spec->scopes.count);
	if (exchange != NULL) {
		bool actor = is_given(&exchange->actor);

		kt_buf_add_json_member(out, "subjectTokenType", exchange->subject_type);
		kt_buf_add_json_member(out, "actorTokenType", actor ? exchange->actor_type : NULL);
		kt_buf_add_json_member(out, "requestedTokenType", exchange->requested_type);
		kt_buf_addf(out, ",\"actor\":%s", actor ? "true" : "false");
	}
	kt_buf_addf(out, ",\"dpop\":%s,\"certificate\":%s}", spec->dpop != NULL ? "true" : "false",
	            kt_oauth_certificate_ref(oauth2, spec) != NULL ? "true" : "false");
	return kt_buf_check(out, "token request", err);
}

/* --- the answer ------------------------------------------------------------------------------------------------------------ */

/* Whatever number the courier said, it can be reckoned with. */
static kt_ms skew_ms(int64_t seconds)
{
	const int64_t most = KT_TIME_MAX / KT_SECOND;

	return (seconds > most ? most : seconds < -most ? -most : seconds) * KT_SECOND;
}

/* A token of the other kind is of no use to the caller, who would send it the other way. */
static enum kt_code check_type(const struct kt_token_spec *spec, struct kt_view type, struct kt_err *err)
{
	bool dpop = kt_ascii_ieq(type, KT_VIEW_LIT("DPoP"));

	if (spec->dpop != NULL && !dpop) {
		return kt_err_set(err, KT_E_POLICY, "the server gave a token of type %.*s, although DPoP was asked for",
		                  (int)(type.len > 64 ? 64 : type.len), type.ptr);
	}
	if (spec->dpop == NULL && dpop) {
		return kt_err_set(err, KT_E_POLICY, "the server gave a token of type DPoP, which nobody asked for");
	}
	return KT_OK;
}

/* skew: what its claims say of time is on the server's clock. */
static enum kt_code check(struct kt_flight *flight, kt_ms skew, int64_t *ret_exp, char jti[128], struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	const struct kt_oauth2_issuer *oauth2 = flight->issuer->spec->token_issuer.oauth2;
	char jkt[KT_JOSE_THUMBPRINT];
	char x5t[44];
	struct kt_oauth_wanted wanted = {.now = kt_keeper_now(flight->keeper) + skew,
	                                 .issuer = oauth2->issuer,
	                                 .audiences = kt_spec_strs(&spec->audiences),
	                                 .bound = spec->certificate_ref != NULL};
	enum kt_code code = KT_OK;

	if (spec->dpop != NULL) {
		code = kt_jose_thumbprint(flight->key, jkt, err);
		wanted.jkt = jkt;
	}
	if (code == KT_OK && flight->bound_to[0] != '\0') {
		code = kt_oauth_x5t(flight->bound_to, x5t, err);
		wanted.x5t = x5t;
	} else if (code == KT_OK && wanted.bound) {
		code = kt_err_set(err, KT_E_PROTO, "the token was asked for without the certificate that it is bound to");
	}
	return code == KT_OK ? kt_oauth_check_token(kt_secret_view(flight->got.token), &wanted, ret_exp, jti, err) : code;
}

static enum kt_code take_minted(struct kt_flight *flight, struct kt_msg_minted *msg, struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	kt_ms now = kt_keeper_now(flight->keeper);
	struct kt_plan_token_answer answer = {.now = now,
	                                      .sent = flight->sent_at,
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
	if (!kt_oauth_visible(kt_secret_view(msg->token), '!') || !kt_oauth_visible(msg->token_type, '!') ||
	    !kt_oauth_visible(msg->scope, ' ')) {
		return kt_err_set(err, KT_E_PROTO, "the token, its type or its scope holds characters that no header can carry");
	}
	kt_secret_destroy(flight->got.token);
	flight->got.token = msg->token;
	msg->token = NULL;
	(void)snprintf(flight->got.token_type, sizeof(flight->got.token_type), "%.*s", (int)msg->token_type.len,
	               msg->token_type.ptr);
	(void)snprintf(flight->got.scope, sizeof(flight->got.scope), "%.*s", (int)msg->scope.len, msg->scope.ptr);
	code = check_type(spec, msg->token_type, err);
	if (code == KT_OK) {
		code = kt_oauth_check_scope(&spec->scopes, msg->scope, err);
	}
	if (code == KT_OK) {
		code = check(flight, answer.skew, &exp, jti, err);
	}
	if (code != KT_OK) {
		return code;
	}
	answer.exp = exp * 1000;
	flight->got.not_before = now;
	flight->got.not_after = kt_plan_token_life(&answer, &longer);
	if (flight->got.not_after <= now) {
		return kt_err_set(err, KT_E_PROTO, "the server gave a token that has expired already");
	}
	if (longer && spec->on_longer_lifetime == KT_LONGER_REFUSE) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the token lives longer than spec.maxLifetime and spec.onLongerLifetime is Refuse");
	}
	if (longer) {
		kt_log(KT_LOG_WARN, "Token %s/%s: the server's token lives longer than spec.maxLifetime",
		       flight->resource.ns, flight->resource.name);
	}
	kt_token_identify(flight, jti);
	return KT_OK;
}

/* --- one request for all who ask for the same -------------------------------------------------------------------------------- */

/* A flight that is asking for the very same at this moment, or NULL. */
static struct kt_flight *leader_of(struct kt_flight *flight)
{
	struct kt_flight *other;

	for (other = flight->keeper->flights; other != NULL && flight->request_hash[0] != '\0'; other = other->next) {
		if (other != flight && other->job != 0 && strcmp(other->request_hash, flight->request_hash) == 0) {
			return other;
		}
	}
	return NULL;
}

/* What comes may be shared: it belongs to no key or refresh token of one Token, and nobody revokes it under the others. */
static void hash_request(struct kt_flight *flight, const struct kt_buf *issuer, const struct kt_buf *request)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	struct kt_buf all KT_AUTOBUF = {0};

	flight->request_hash[0] = '\0';
	if (spec->dpop != NULL || spec->grant.token_exchange != NULL || spec->grant.jwt_bearer != NULL ||
	    spec->grant.refresh_token != NULL || flight->issuer->spec->token_issuer.oauth2->revoke_superseded) {
		return;
	}
	kt_buf_init(&all, 262144);
	kt_buf_addf(&all, "%s\n%s\n", flight->issuer->ref, spec->certificate_ref != NULL ? spec->certificate_ref : "");
	kt_buf_addv(&all, kt_buf_view(issuer));
	kt_buf_addv(&all, kt_buf_view(request));
	if (kt_buf_check(&all, "token request", NULL) == KT_OK) {
		kt_sha256_hex(all.ptr, all.len, flight->request_hash);
	}
}

/* The leader's answer, or its failure, is that of those who wait for it. msg NULL: it failed with *why. */
static void tell_followers(struct kt_flight *leader, const struct kt_msg_minted *msg, const struct kt_err *why)
{
	struct kt_flight *flight;

	for (flight = leader->keeper->flights; flight != NULL && leader->followers > 0; flight = flight->next) {
		struct kt_msg_minted copy;
		struct kt_err err = *why;

		if (flight->follows != leader->id) {
			continue;
		}
		flight->follows = 0;
		leader->followers--;
		if (msg != NULL) {
			struct kt_view token = {NULL, 0};

			if (msg->token != NULL) {
				token = kt_secret_view(msg->token);
			}
			kt_err_clear(&err);
			copy = *msg;
			copy.token = NULL;
			memcpy(flight->bound_to, leader->bound_to, sizeof(flight->bound_to));
			flight->sent_at = leader->sent_at;
			if (token.len == 0 || kt_secret_create(token.ptr, token.len, &copy.token, &err) == KT_OK) {
				(void)take_minted(flight, &copy, &err); /* which refuses an answer without a token */
			}
			kt_secret_destroy(copy.token);
		}
		kt_rotate_wake(flight, &err);
	}
}

void kt_oauth_forget(struct kt_flight *leader)
{
	struct kt_flight *flight = leader->keeper->ending ? NULL : leader->keeper->flights;

	for (; flight != NULL && leader->followers > 0; flight = flight->next) {
		if (flight != leader && flight->follows == leader->id) {
			flight->follows = 0;
			leader->followers--;
			flight->again = true; /* it asks by itself */
			kt_rotate_wake(flight, NULL);
		}
	}
}

/* --- asking ---------------------------------------------------------------------------------------------------------------- */

static enum kt_code ask(struct kt_flight *flight, struct kt_err *err);

/* The name of the server goes before what it said, unless the courier has named it. */
static void name_server(const struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_oauth2_issuer *oauth2 = flight->issuer->spec->token_issuer.oauth2;
	const char *url = oauth2->token_url != NULL ? oauth2->token_url : oauth2->issuer;

	if (strstr(err->what, url) == NULL) {
		(void)kt_err_prefix(err, "token from %s", url);
	}
}

static void on_minted(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_msg_minted *minted = type == KT_MINTED ? msg : NULL;
	struct kt_err err = *why;

	(void)fds;
	(void)fd_count;
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (why->code != KT_OK) {
		struct kt_err again;

		kt_err_clear(&again);
		if (strcmp(why->problem_type, "invalid_grant") == 0 && kt_oauth_refresh_older(flight) &&
		    ask(flight, &again) == KT_OK) {
			return;
		}
		kt_oauth_remedy(flight->issuer->spec->token_issuer.oauth2, &flight->spec->token, &err);
		tell_followers(flight, NULL, &err);
	} else if (minted == NULL) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
		tell_followers(flight, NULL, &err);
	} else {
		tell_followers(flight, minted, &err);
		if (take_minted(flight, minted, &err) != KT_OK) {
			name_server(flight, &err);
		} else if (kt_oauth_refresh_worked(flight, &err) != KT_OK) {
			(void)kt_err_prefix(&err, "the refresh token");
		}
	}
	kt_rotate_wake(flight, &err);
}

/* The courier ends each request in time by itself; what is known here is how many may stand in its queue. */
kt_ms kt_oauth_patience(const struct kt_keeper *keeper, kt_ms alone)
{
	int64_t in_flight = kt_oauth_in_flight(keeper);

	return alone + (in_flight > 0 ? (kt_ms)keeper->flight_count / in_flight * TURN : 0);
}

static enum kt_code ask(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_oauth2_issuer oauth2;
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_buf request KT_AUTOBUF = {0};
	char traceparent[56];
	struct kt_flight *leader;
	struct kt_msg_mint msg = {0};
	enum kt_code code;

	kt_buf_init(&issuer, 65536);
	kt_buf_init(&request, 65536);
	code = kt_oauth_issuer_now(flight, &oauth2, err);
	if (code == KT_OK) {
		code = kt_oauth_issuer_json(&oauth2, kt_oauth_in_flight(flight->keeper), &issuer, err);
	}
	if (code == KT_OK) {
		code = kt_oauth_request_json(&oauth2, &flight->spec->token, &request, err);
	}
	if (code != KT_OK) {
		return code;
	}
	hash_request(flight, &issuer, &request);
	leader = leader_of(flight);
	if (leader != NULL) {
		flight->follows = leader->id;
		leader->followers++;
		return KT_OK;
	}
	kt_rotate_begin_job(flight);
	flight->asked = 0;
	flight->bound_to[0] = '\0';
	flight->sent_at = kt_keeper_now(flight->keeper);
	msg.job = flight->job;
	msg.issuer = kt_buf_view(&issuer);
	msg.request = kt_buf_view(&request);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(flight->keeper), KT_MINT, &msg, NULL, 0,
	                    kt_oauth_patience(flight->keeper, MINT_TIMEOUT), on_minted, flight, err);
}

static enum kt_effect obtain(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code = kt_oauth_needs(flight, err);

	(void)keeper;
	flight->refresh_at = 0;
	flight->refresh_saved = false;
	if (code == KT_OK) {
		code = ask(flight, err);
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

static enum kt_code obtained(struct kt_flight *flight, struct kt_err *err)
{
	(void)err;
	flight->request_hash[0] = '\0';
	return KT_OK;
}

const struct kt_issuer_ops kt_issuer_oauth2 = {
        .name = "oauth2", .makes_tokens = true, .remote = true, .obtain = obtain, .obtained = obtained};
