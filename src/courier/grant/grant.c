/* The life of a token request: what the keeper asks for is read, becomes a job, and ends with one reply. */
#include <string.h>

#include "courier/grant/grant_internal.h"

void grant_job_destroy(struct grant_job *job)
{
	struct grant_job **at = &job->grant->jobs;

	while (*at != NULL && *at != job) {
		at = &(*at)->next;
	}
	if (*at != NULL) {
		*at = job->next;
		job->grant->job_count--;
	}
	kt_http_cancel(job->call);
	kt_wire_forget(job->grant->courier->keeper, job);
	grant_metadata_pass_on(job);
	grant_job_pass_turn(job);
	for (unsigned i = 0; i < GRANT_SECRET_COUNT; i++) {
		kt_secret_destroy(job->secrets[i]);
	}
	kt_secret_destroy(job->key);
	kt_free(job->assertion_type);
	kt_buf_finish(&job->chain);
	kt_buf_finish(&job->proof);
	grant_token_finish(&job->token);
	grant_endpoints_finish(&job->at);
	json_decref(job->issuer);
	json_decref(job->request);
	kt_free(job);
}

void grant_job_fail(struct grant_job *job, const struct kt_err *err)
{
	struct kt_err why = *err;

	if (job->named == NULL || strstr(why.what, job->named) == NULL) { /* the request may have named it */
		(void)kt_err_prefix(&why, "token from %.200s", job->named != NULL ? job->named : "an issuer");
	}
	kt_wire_reply_err(job->grant->courier->keeper, job->reply_to, &why);
	grant_job_destroy(job);
}

/* --- what is asked for ------------------------------------------------------------------------------------------- */

static bool strings_only(const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (!json_is_string(json_array_get(list, i))) {
			return false;
		}
	}
	return list == NULL || (json_is_array(list) && json_array_size(list) <= GRANT_SCOPES_MAX);
}

static enum kt_code take_audience_param(struct grant_job *job, struct kt_err *err)
{
	static const char *const names[] = {"resource", "audience", "scope", "none"};
	const char *name = kt_json_str(job->request, "audienceParam");

	if (name == NULL || name[0] == '\0') {
		name = kt_json_str(job->issuer, "audienceParam");
	}
	for (unsigned i = 0; i < 4; i++) {
		if (strcmp(name != NULL && name[0] != '\0' ? name : "resource", names[i]) == 0) {
			job->input.audience_param = (enum grant_audience)i;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID, "audienceParam '%.40s' is not resource, audience, scope or none", name);
}

static enum kt_code take_client(struct grant_job *job, struct kt_err *err)
{
	const json_t *auth = json_object_get(job->issuer, "auth");
	const char *method = kt_json_str(auth, "method");

	job->input.client_id = kt_json_str(auth, "clientID");
	if (job->input.client_id == NULL) {
		return kt_err_set(err, KT_E_INVALID, "spec.oauth2.auth.clientID is missing");
	}
	job->auth = grant_auth_find(method != NULL ? method : "client_secret_basic");
	if (job->auth == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "the client authentication '%.60s' is not offered here",
				  method);
	}
	job->asks |= job->auth->needs_secret ? 1u << GRANT_CLIENT_SECRET : 0;
	job->mtls = job->auth->needs_key;
	return KT_OK;
}

/* Where the server is and how the client is known there: of tokens and of what is done with them. */
static enum kt_code take_issuer(struct grant_job *job, struct kt_view text, struct kt_err *err)
{
	const char *issuer, *token_url;
	struct kt_sha256 sha;

	if (kt_json_parse(text, 65536, &job->issuer, err) != KT_OK) {
		return err->code;
	}
	issuer = kt_json_str(job->issuer, "issuer");
	token_url = kt_json_str(job->issuer, "tokenURL");
	job->by_metadata = token_url == NULL || token_url[0] == '\0';
	job->named = job->by_metadata ? issuer : token_url;
	job->ca_bundle = kt_json_str(job->issuer, "caBundle");
	job->ca_bundle = job->ca_bundle != NULL ? job->ca_bundle : "";
	job->in_flight = kt_json_int(job->issuer, "inFlight", 0);
	if (job->named == NULL) {
		return kt_err_set(err, KT_E_INVALID, "spec.oauth2 needs issuer or tokenURL");
	}
	if (kt_sha256_init(&sha, err) != KT_OK) {
		return KT_E_NOMEM;
	}
	kt_sha256_add(&sha, job->named, strlen(job->named) + 1);
	kt_sha256_add(&sha, job->ca_bundle, strlen(job->ca_bundle) + 1);
	kt_sha256_finish(&sha, job->hash);
	return take_client(job, err);
}

static const char *text_or_null(const json_t *object, const char *key)
{
	const char *text = kt_json_str(object, key);

	return text != NULL && text[0] != '\0' ? text : NULL;
}

static enum kt_code take_grant(struct grant_job *job, struct kt_err *err)
{
	const char *name = text_or_null(job->request, "grantType");

	job->type = grant_type_find(name != NULL ? name : grant_client_credentials.name);
	if (job->type == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "the grant '%.60s' is not offered here", name);
	}
	job->asks |= job->type->needs;
	job->input.exchange = job->type == &grant_token_exchange;
	if (job->input.exchange) {
		job->asks |= kt_json_bool(job->request, "actor", false) ? 1u << GRANT_ACTOR : 0;
		job->input.subject_type = text_or_null(job->request, "subjectTokenType");
		job->input.actor_type = text_or_null(job->request, "actorTokenType");
		job->input.requested_type = text_or_null(job->request, "requestedTokenType");
	}
	job->input.dpop = kt_json_bool(job->request, "dpop", false);
	job->mtls = job->mtls || kt_json_bool(job->request, "certificate", false);
	return KT_OK;
}

static enum kt_code take_mint(struct grant_job *job, const struct kt_msg_mint *msg, struct kt_err *err)
{
	if (take_issuer(job, msg->issuer, err) != KT_OK ||
	    kt_json_parse(msg->request, 65536, &job->request, err) != KT_OK) {
		return err->code;
	}
	job->input.audiences = json_object_get(job->request, "audiences");
	job->input.scopes = json_object_get(job->request, "scopes");
	if (!strings_only(job->input.audiences) || !strings_only(job->input.scopes)) {
		return kt_err_set(err, KT_E_INVALID, "audiences and scopes must be lists of at most %u texts",
				  GRANT_SCOPES_MAX);
	}
	if (take_grant(job, err) != KT_OK) {
		return err->code;
	}
	return take_audience_param(job, err);
}

static enum kt_code take_op(struct grant_job *job, struct kt_msg_token_op *msg, struct kt_err *err)
{
	static const char *const ops[] = {"revoke", "introspect"};

	for (unsigned i = 0; i < 2; i++) {
		job->op = kt_view_eq_str(msg->op, ops[i]) ? ops[i] : job->op;
	}
	if (job->op == NULL || msg->token == NULL || kt_secret_len(msg->token) == 0) {
		return kt_err_set(err, KT_E_INVALID, "a token can be revoked or introspected, nothing else");
	}
	job->secrets[GRANT_TOKEN] = msg->token;
	job->input.secret[GRANT_TOKEN] = msg->token;
	msg->token = NULL;
	return take_issuer(job, msg->issuer, err);
}

/* --- jobs ----------------------------------------------------------------------------------------------------------
 */

static struct grant_job *add_job(struct kt_grant *grant, uint64_t id, uint32_t reply_to, struct kt_view traceparent,
				 struct kt_err *err)
{
	struct grant_job *job = NULL;

	if (grant->job_count >= KT_GRANT_JOBS_MAX) {
		(void)kt_err_set(err, KT_E_LATER, "too many tokens are being asked for at once");
		return NULL;
	}
	job = kt_calloc(1, sizeof(*job));
	if (job == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "out of memory for a token request");
		return NULL;
	}
	job->grant = grant;
	job->id = id;
	job->reply_to = reply_to;
	kt_buf_init(&job->chain, 65536);
	kt_buf_init(&job->proof, 16384);
	if (traceparent.len > 0 && traceparent.len <= KT_TRACE_MAX) {
		memcpy(job->traceparent, traceparent.ptr, traceparent.len);
	}
	job->next = grant->jobs;
	grant->jobs = job;
	grant->job_count++;
	return job;
}

/* The job sets out, unless there is none or its message was no good. */
static void set_out(const struct kt_wire_in *in, struct grant_job *job, const struct kt_err *err)
{
	if (job == NULL) {
		kt_wire_reply_err(in->wire, in->id, err);
	} else if (err->code != KT_OK) {
		grant_job_fail(job, err);
	} else {
		grant_job_locate(job);
	}
}

void kt_grant_handle(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	const struct kt_msg_mint *msg = in->msg;
	struct kt_err err;
	struct grant_job *job;

	kt_err_clear(&err);
	job = add_job(courier->grant, msg->job, in->id, msg->traceparent, &err);
	if (job != NULL) {
		(void)take_mint(job, msg, &err);
	}
	set_out(in, job, &err);
}

void kt_grant_handle_op(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct kt_msg_token_op *msg = in->msg;
	struct kt_err err;
	struct grant_job *job;

	kt_err_clear(&err);
	job = add_job(courier->grant, msg->job, in->id, msg->traceparent, &err);
	if (job != NULL) {
		(void)take_op(job, msg, &err);
	}
	set_out(in, job, &err);
}

bool kt_grant_cancel(struct kt_grant *grant, uint64_t id)
{
	struct kt_err err;

	for (struct grant_job *job = grant->jobs; job != NULL; job = job->next) {
		if (job->id == id) {
			(void)kt_err_set(&err, KT_E_CANCELLED, "called off");
			grant_job_fail(job, &err);
			return true;
		}
	}
	return grant_aws_cancel(grant, id);
}

void kt_grant_drop(struct kt_grant *grant)
{
	grant->dropping = true;
	while (grant->jobs != NULL) {
		grant_job_destroy(grant->jobs);
	}
	grant_aws_drop(grant);
	grant->dropping = false;
}

enum kt_code kt_grant_create(struct kt_courier *courier, struct kt_grant **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	if (*ret == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for tokens");
	}
	(*ret)->courier = courier;
	return KT_OK;
}

void kt_grant_destroy(struct kt_grant *grant)
{
	if (grant == NULL) {
		return;
	}
	kt_grant_drop(grant);
	while (grant->metadata != NULL) {
		struct grant_metadata *entry = grant->metadata;

		grant->metadata = entry->next;
		grant_metadata_destroy(entry);
	}
	grant_servers_destroy(grant);
	grant_keys_destroy(grant);
	kt_free(grant);
}
