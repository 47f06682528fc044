/* Asking AWS for a session: the courier's job, its question for the request, its answer. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/aws/aws.h"
#include "keeper/flight.h"
#include "keeper/oauth/oauth.h"

#define SESSION_TIMEOUT (60 * KT_SECOND)
#define ASKED_MAX       8u /* requests of one job */
#define SESSION_MAX     65536u

static const struct kt_aws_issuer *aws_of(const struct kt_flight *flight)
{
	return flight->issuer->spec->token_issuer.aws;
}

/* --- the courier's question ---------------------------------------------------------------------------------------------- */

static enum kt_code write_web_identity(struct kt_flight *flight, struct kt_aws_request *request, struct kt_err *err)
{
	const struct kt_aws_issuer *aws = aws_of(flight);
	struct kt_secret *token KT_AUTOSECRET = NULL;
	enum kt_code code = kt_oauth_token_of(flight->keeper, flight->issuer->spec->meta.ns, aws->web_identity->token_ref, &token, err);

	return code == KT_OK ? kt_aws_web_identity(aws, flight->resource.name, kt_secret_view(token), request, err) : code;
}

static enum kt_code write_roles_anywhere(struct kt_flight *flight, kt_ms now, struct kt_aws_request *request,
                                         struct kt_err *err)
{
	const struct kt_aws_issuer *aws = aws_of(flight);
	struct kt_buf pem KT_AUTOBUF = {0};
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	char sha256[72];
	enum kt_code code;

	kt_buf_init(&pem, 262144);
	code = kt_oauth_certificate(flight->keeper, flight->issuer->spec->meta.ns, aws->roles_anywhere->certificate_ref, &pem,
	                            &der, sha256, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(der), &key, err);
	}
	if (code == KT_OK) {
		code = kt_pki_chain_parse(kt_buf_view(&pem), &chain, err);
	}
	if (code == KT_OK) {
		code = kt_aws_roles_anywhere(aws, chain, key, now, request, err);
	}
	return code == KT_OK ? code
	                     : kt_err_prefix(err, "the Certificate of the secret %s", aws->roles_anywhere->certificate_ref);
}

static enum kt_code write_request(struct kt_keeper *keeper, const struct kt_msg_aws_request *ask,
                                  struct kt_aws_request *request, struct kt_err *err)
{
	struct kt_flight *flight = kt_rotate_find_job(keeper, ask->job);

	if (flight == NULL || flight->issuer == NULL || flight->issuer->ops != &kt_issuer_aws) {
		return kt_err_set(err, KT_E_CANCELLED, "that session is not being worked on any more");
	}
	if (++flight->asked > ASKED_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the courier asks too much for one session");
	}
	if (aws_of(flight)->web_identity != NULL) {
		return write_web_identity(flight, request, err);
	}
	return write_roles_anywhere(flight, kt_keeper_now(keeper) + kt_oauth_bounded_skew(ask->skew) * KT_SECOND, request, err);
}

void kt_aws_on_request(struct kt_wire_in *in, void *arg)
{
	struct kt_aws_request request;
	struct kt_secret *body KT_AUTOSECRET = NULL;
	struct kt_msg_aws_request_given given = {0};
	struct kt_err err;

	kt_err_clear(&err);
	kt_aws_request_init(&request);
	if (write_request(arg, in->msg, &request, &err) == KT_OK && kt_secret_from_buf(&request.body, &body, &err) == KT_OK) {
		given.headers = kt_buf_view(&request.headers);
		given.body = body;
		given.hidden = (uint32_t)request.hidden;
		kt_wire_reply(in->wire, in->id, KT_AWS_REQUEST_GIVEN, &given, NULL, 0);
	} else {
		kt_wire_reply_err(in->wire, in->id, &err);
	}
	kt_aws_request_finish(&request);
}

/* --- the answer ---------------------------------------------------------------------------------------------------------- */

/* All three texts are there, of characters that no file's line ends at. key_id: AccessKeyId, by which CloudTrail knows it. */
static enum kt_code check_session(struct kt_view text, char key_id[128], struct kt_err *err)
{
	static const char *const members[] = {"AccessKeyId", "SecretAccessKey", "SessionToken"};
	json_t *json KT_AUTOJSON = NULL;
	struct kt_err why;
	size_t i;

	kt_err_clear(&why); /* what a parser says may quote the text */
	if (kt_json_parse(text, SESSION_MAX, &json, &why) != KT_OK) {
		return kt_err_set(err, KT_E_PROTO, "the courier gave no session");
	}
	for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		const char *value = kt_json_str(json, members[i]);

		if (value == NULL || *value == '\0' || !kt_oauth_visible(kt_view_str(value), '!')) {
			return kt_err_set(err, KT_E_PROTO, "AWS gave a session without a usable %s", members[i]);
		}
	}
	(void)snprintf(key_id, 128, "%s", kt_json_str(json, members[0]));
	return KT_OK;
}

static enum kt_code take_session(struct kt_flight *flight, struct kt_msg_minted *msg, struct kt_err *err)
{
	const struct kt_token_spec *spec = &flight->spec->token;
	kt_ms now = kt_keeper_now(flight->keeper);
	struct kt_plan_token_answer answer = {.now = now, .expires_in_s = msg->expires_in, .cap = spec->max_lifetime};
	char key_id[128];
	bool longer = false;

	if (msg->token == NULL || msg->expires_in <= 0) {
		return kt_err_set(err, KT_E_PROTO, "the courier gave no session, or one that has ended");
	}
	if (check_session(kt_secret_view(msg->token), key_id, err) != KT_OK) {
		return err->code;
	}
	kt_secret_destroy(flight->got.token);
	flight->got.token = msg->token;
	msg->token = NULL;
	(void)snprintf(flight->got.token_type, sizeof(flight->got.token_type), "%s", KT_AWS_TOKEN_TYPE);
	flight->got.scope[0] = '\0';
	flight->got.not_before = now;
	flight->got.not_after = kt_plan_token_life(&answer, &longer);
	if (longer && spec->on_longer_lifetime == KT_LONGER_REFUSE) {
		return kt_err_set(err, KT_E_POLICY,
		                  "the session lives longer than spec.maxLifetime and spec.onLongerLifetime is Refuse");
	}
	if (longer) {
		kt_log(KT_LOG_WARN, "Token %s/%s: the session lives longer than spec.maxLifetime", flight->resource.ns,
		       flight->resource.name);
	}
	kt_token_identify(flight, key_id);
	return KT_OK;
}

static void on_minted(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	struct kt_err err = *why;

	(void)fds;
	(void)fd_count;
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (err.code == KT_OK && type != KT_MINTED) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		(void)take_session(flight, msg, &err);
	}
	kt_rotate_wake(flight, &err);
}

static enum kt_code ask(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_aws_issuer *aws = aws_of(flight);
	struct kt_buf url KT_AUTOBUF = {0};
	struct kt_msg_aws_session msg = {.service = aws->roles_anywhere != NULL ? KT_VIEW_LIT("rolesanywhere") : KT_VIEW_LIT("sts"),
	                                 .named = kt_view_str(aws->endpoint),
	                                 .ca_bundle = {(const char *)aws->ca_bundle.ptr, aws->ca_bundle.len}};
	char traceparent[56];

	kt_buf_init(&url, KT_URL_MAX);
	if (kt_aws_url(aws, &url, err) != KT_OK) {
		return err->code;
	}
	kt_rotate_begin_job(flight);
	flight->asked = 0;
	flight->bound_to[0] = '\0';
	msg.job = flight->job;
	msg.url = kt_buf_view(&url);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(flight->keeper), KT_AWS_SESSION, &msg, NULL, 0, SESSION_TIMEOUT, on_minted, flight,
	                    err);
}

static enum kt_effect obtain(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_aws_issuer *aws = aws_of(flight);
	enum kt_code code;

	(void)keeper;
	flight->waiting_for[0] = '\0';
	flight->request_hash[0] = '\0';
	code = aws->web_identity != NULL
	               ? kt_oauth_need(flight, aws->web_identity->token_ref, KT_KIND_TOKEN, err)
	               : kt_oauth_need(flight, aws->roles_anywhere->certificate_ref, KT_KIND_CERT, err);
	if (code == KT_OK) {
		code = ask(flight, err);
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_issuer_ops kt_issuer_aws = {.name = "aws", .makes_tokens = true, .remote = true, .obtain = obtain};
