/* The life of a token request: endpoint, secret, one exchange, one reply. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "courier/url.h"
#include "kt/log.h"
#include "kt/pki.h"
#include "kt/text.h"

#define METADATA_MAX 16u
#define METADATA_FOR (10 * KT_MINUTE)
#define KEEPER_TIME  (30 * KT_SECOND)
#define SKEW_WARN    ((int64_t)300)

struct grant_job {
	struct kt_grant *grant;
	struct grant_job *next;
	uint64_t id;
	uint32_t reply_to;
	json_t *issuer, *request;
	const char *named; /* issuer or tokenURL as the manifest has it */
	const char *ca_bundle;
	uint8_t hash[KT_SHA256_LEN];
	char *endpoint;
	unsigned well_known;
	const struct grant_type *type;
	const struct grant_auth *auth;
	struct grant_input input;
	struct kt_secret *secret;
	struct kt_http_call *call;
	char traceparent[KT_TRACE_MAX + 1];
};

struct kt_grant {
	struct kt_courier *courier;
	struct grant_job *jobs;
	unsigned job_count;
	struct grant_metadata *metadata;
};

static void job_destroy(struct grant_job *job)
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
	kt_secret_destroy(job->secret);
	json_decref(job->issuer);
	json_decref(job->request);
	kt_free(job->endpoint);
	kt_free(job);
}

static void fail(struct grant_job *job, const struct kt_err *err)
{
	struct kt_err why = *err;

	if (job->named == NULL || strstr(why.what, job->named) == NULL) { /* the request may have named it */
		(void)kt_err_prefix(&why, "token from %.200s", job->named != NULL ? job->named : "an issuer");
	}
	kt_wire_reply_err(job->grant->courier->keeper, job->reply_to, &why);
	job_destroy(job);
}

/* --- the exchange --------------------------------------------------------------------------------------------------
 */

static void on_token(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_job *job = arg;
	struct kt_msg_minted minted = {0};
	struct grant_token token = {0};
	struct kt_err why = *err;

	job->call = NULL;
	if (why.code != KT_OK || grant_answer(reply, &job->input, &token, &why) != KT_OK) {
		fail(job, &why);
		return;
	}
	if (reply->date_skew > SKEW_WARN || reply->date_skew < -SKEW_WARN) {
		kt_log(KT_LOG_WARN, "the clock of %.200s and ours differ by %lld s", job->named,
		       (long long)reply->date_skew);
	}
	minted.token = token.token;
	minted.token_type = KT_VIEW_LIT("Bearer");
	minted.expires_in = token.expires_in;
	minted.scope = kt_view_str(token.scope);
	minted.date_skew = reply->date_skew;
	kt_wire_reply(job->grant->courier->keeper, job->reply_to, KT_MINTED, &minted, NULL, 0);
	grant_token_finish(&token);
	job_destroy(job);
}

static enum kt_code exchange(struct grant_job *job, struct kt_err *err)
{
	struct kt_http_request request = {.method = "POST",
					  .url = job->endpoint,
					  .named = job->named,
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = "application/json",
					  .content_type = "application/x-www-form-urlencoded",
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_buf form, authorization;
	enum kt_code code;

	kt_buf_init(&form, 128u * 1024u);
	kt_buf_init(&authorization, 128u * 1024u);
	job->input.client_secret = job->secret;
	code = job->type->build(&job->input, &form, err);
	if (code == KT_OK) {
		code = job->auth->apply(&job->input, &form, &authorization, err);
	}
	if (code == KT_OK) {
		code = kt_buf_check(&form, "a token request", err);
	}
	if (code == KT_OK) {
		request.body = kt_buf_view(&form);
		if (authorization.len > 0) {
			request.header_name = "Authorization";
			request.header_value = kt_buf_view(&authorization);
		}
		code = kt_http_send(job->grant->courier->http, &request, on_token, job, &job->call, err);
	}
	kt_buf_finish(&form);
	kt_buf_finish(&authorization);
	return code;
}

static void on_secret(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
		      void *arg)
{
	struct grant_job *job = arg;
	struct kt_msg_client_secret_given *given = msg;
	struct kt_err why = *err;

	(void)fds;
	(void)fd_count;
	if (why.code == KT_OK && (type != KT_CLIENT_SECRET_GIVEN || given->secret == NULL)) {
		(void)kt_err_set(&why, KT_E_NOTFOUND, "the keeper has no client secret");
	}
	if (why.code == KT_OK) {
		job->secret = given->secret;
		given->secret = NULL;
		(void)exchange(job, &why);
	}
	if (why.code != KT_OK) {
		fail(job, &why);
	}
}

static void authenticate(struct grant_job *job)
{
	struct kt_msg_client_secret ask = {.job = job->id};
	struct kt_err err;

	kt_err_clear(&err);
	if (!job->auth->needs_secret) {
		if (exchange(job, &err) != KT_OK) {
			fail(job, &err);
		}
	} else if (kt_wire_call(job->grant->courier->keeper, KT_CLIENT_SECRET, &ask, NULL, 0, KEEPER_TIME, on_secret,
				job, &err) != KT_OK) {
		fail(job, &err);
	}
}

/* --- discovery -----------------------------------------------------------------------------------------------------
 */

static void metadata_destroy(struct grant_metadata *entry)
{
	if (entry != NULL) {
		kt_free(entry->token_endpoint);
		kt_free(entry);
	}
}

/* Forgets what is too old, and the oldest of too many. */
static void metadata_tidy(struct kt_grant *grant)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(grant->courier->loop));
	unsigned count = 0;

	for (struct grant_metadata **at = &grant->metadata; *at != NULL;) {
		struct grant_metadata *entry = *at;

		if (entry->until <= now || ++count > METADATA_MAX) {
			*at = entry->next;
			metadata_destroy(entry);
		} else {
			at = &entry->next;
		}
	}
}

static void metadata_keep(struct grant_job *job)
{
	struct kt_grant *grant = job->grant;
	struct grant_metadata *entry = kt_calloc(1, sizeof(*entry));

	if (entry == NULL || (entry->token_endpoint = kt_strdup(job->endpoint)) == NULL) {
		metadata_destroy(entry);
		return;
	}
	memcpy(entry->hash, job->hash, sizeof(entry->hash));
	entry->until = kt_clock_mono(kt_loop_clock(grant->courier->loop)) + METADATA_FOR;
	entry->next = grant->metadata;
	grant->metadata = entry;
}

static void discover(struct grant_job *job, const struct kt_err *last);

static void on_metadata(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_job *job = arg;
	struct kt_err why = *err;

	job->call = NULL;
	if (why.code == KT_OK && grant_metadata_parse(reply, job->named, &job->endpoint, &why) == KT_OK) {
		metadata_keep(job);
		authenticate(job);
	} else if (why.code == KT_E_NOTFOUND) {
		job->well_known++;
		discover(job, &why);
	} else {
		fail(job, &why);
	}
}

/* Asks at the next well-known place; last is what the one before said. */
static void discover(struct grant_job *job, const struct kt_err *last)
{
	struct kt_http_request request = {.method = "GET",
					  .named = job->named,
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = "application/json",
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_buf url;
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&url, KT_URL_MAX + 64);
	if (grant_well_known(job->named, job->well_known, &url, &err) == KT_OK) {
		request.url = url.ptr;
		(void)kt_http_send(job->grant->courier->http, &request, on_metadata, job, &job->call, &err);
	} else if (err.code == KT_E_NOTFOUND && last != NULL) {
		err = *last;
		err.code = KT_E_PROTO;
	}
	kt_buf_finish(&url);
	if (err.code != KT_OK) {
		fail(job, &err);
	}
}

static void find_endpoint(struct grant_job *job)
{
	const char *token_url = kt_json_str(job->issuer, "tokenURL");
	struct kt_err err;

	metadata_tidy(job->grant);
	if (token_url != NULL && token_url[0] != '\0') {
		job->endpoint = kt_strdup(token_url);
	} else {
		for (struct grant_metadata *entry = job->grant->metadata; entry != NULL && job->endpoint == NULL;
		     entry = entry->next) {
			if (memcmp(entry->hash, job->hash, sizeof(entry->hash)) == 0) {
				job->endpoint = kt_strdup(entry->token_endpoint);
			}
		}
		if (job->endpoint == NULL) {
			discover(job, NULL);
			return;
		}
	}
	if (job->endpoint == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for a token request");
		fail(job, &err);
		return;
	}
	authenticate(job);
}

/* --- beginning -------------------------------------------------------------------------------------------------------
 */

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
	const char *method = kt_json_str(auth, "method"), *grant = kt_json_str(job->issuer, "grantType");

	job->input.client_id = kt_json_str(auth, "clientID");
	if (job->input.client_id == NULL) {
		return kt_err_set(err, KT_E_INVALID, "spec.oauth2.auth.clientID is missing");
	}
	job->type = grant_type_find(grant != NULL ? grant : "client_credentials");
	job->auth = grant_auth_find(method != NULL ? method : "client_secret_basic");
	if (job->type == NULL || job->auth == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "%s '%.60s' is not offered here",
				  job->type == NULL ? "the grant" : "the client authentication",
				  job->type == NULL ? grant : method);
	}
	return KT_OK;
}

static enum kt_code take(struct grant_job *job, const struct kt_msg_mint *msg, struct kt_err *err)
{
	const char *issuer, *token_url;
	struct kt_sha256 sha;

	if (kt_json_parse(msg->issuer, 65536, &job->issuer, err) != KT_OK ||
	    kt_json_parse(msg->request, 65536, &job->request, err) != KT_OK) {
		return err->code;
	}
	issuer = kt_json_str(job->issuer, "issuer");
	token_url = kt_json_str(job->issuer, "tokenURL");
	job->named = token_url != NULL && token_url[0] != '\0' ? token_url : issuer;
	job->ca_bundle = kt_json_str(job->issuer, "caBundle");
	job->ca_bundle = job->ca_bundle != NULL ? job->ca_bundle : "";
	job->input.audiences = json_object_get(job->request, "audiences");
	job->input.scopes = json_object_get(job->request, "scopes");
	if (job->named == NULL) {
		return kt_err_set(err, KT_E_INVALID, "spec.oauth2 needs issuer or tokenURL");
	}
	if (!strings_only(job->input.audiences) || !strings_only(job->input.scopes)) {
		return kt_err_set(err, KT_E_INVALID, "audiences and scopes must be lists of at most %u texts",
				  GRANT_SCOPES_MAX);
	}
	if (msg->traceparent.len <= KT_TRACE_MAX) {
		memcpy(job->traceparent, msg->traceparent.len > 0 ? msg->traceparent.ptr : "", msg->traceparent.len);
	}
	if (kt_sha256_init(&sha, err) != KT_OK) {
		return err->code;
	}
	kt_sha256_add(&sha, job->named, strlen(job->named) + 1);
	kt_sha256_add(&sha, job->ca_bundle, strlen(job->ca_bundle) + 1);
	kt_sha256_finish(&sha, job->hash);
	return take_audience_param(job, err) == KT_OK ? take_client(job, err) : err->code;
}

void kt_grant_handle(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct kt_grant *grant = courier->grant;
	const struct kt_msg_mint *msg = in->msg;
	struct grant_job *job;
	struct kt_err err;

	kt_err_clear(&err);
	job = grant->job_count < KT_GRANT_JOBS_MAX ? kt_calloc(1, sizeof(*job)) : NULL;
	if (job == NULL) {
		(void)kt_err_set(&err, KT_E_LATER, "too many tokens are being asked for already");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	job->grant = grant;
	job->id = msg->job;
	job->reply_to = in->id;
	job->next = grant->jobs;
	grant->jobs = job;
	grant->job_count++;
	if (take(job, msg, &err) != KT_OK) {
		fail(job, &err);
		return;
	}
	find_endpoint(job);
}

bool kt_grant_cancel(struct kt_grant *grant, uint64_t id)
{
	struct kt_err err;

	for (struct grant_job *job = grant->jobs; job != NULL; job = job->next) {
		if (job->id == id) {
			(void)kt_err_set(&err, KT_E_CANCELLED, "called off");
			fail(job, &err);
			return true;
		}
	}
	return false;
}

void kt_grant_drop(struct kt_grant *grant)
{
	while (grant->jobs != NULL) {
		job_destroy(grant->jobs);
	}
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
		metadata_destroy(entry);
	}
	kt_free(grant);
}
