/* Asking AWS for a session: the request comes whole from the keeper, is sent, and once more by the server's clock. */
#include <string.h>

#include "courier/grant/aws.h"
#include "courier/grant/grant_internal.h"
#include "kt/log.h"

#define KEEPER_TIME (30 * KT_SECOND)

struct grant_aws {
	struct grant_aws *next;
	struct kt_grant *grant;
	uint64_t id;
	uint32_t reply_to;
	bool sts; /* else IAM Roles Anywhere */
	char *url, *named, *ca_bundle;
	char traceparent[KT_TRACE_MAX + 1];
	struct kt_buf headers;
	struct kt_secret *body;
	size_t hidden;   /* bytes at the end of body */
	int64_t skew;    /* used in the last try */
	bool skew_tried; /* a reason for one more */
	struct kt_http_call *call;
};

static void destroy(struct grant_aws *job)
{
	struct grant_aws **at = &job->grant->aws_jobs;

	while (*at != NULL && *at != job) {
		at = &(*at)->next;
	}
	if (*at != NULL) {
		*at = job->next;
		job->grant->job_count--;
	}
	kt_http_cancel(job->call);
	kt_wire_forget(job->grant->courier->keeper, job);
	kt_secret_destroy(job->body);
	kt_buf_finish(&job->headers);
	kt_free(job->url);
	kt_free(job->named);
	kt_free(job->ca_bundle);
	kt_free(job);
}

static void fail(struct grant_aws *job, const struct kt_err *err)
{
	struct kt_err why = *err;

	if (job->url == NULL || strstr(why.what, job->url) == NULL) {
		(void)kt_err_prefix(&why, "session from %.200s", job->url != NULL ? job->url : "AWS");
	}
	kt_wire_reply_err(job->grant->courier->keeper, job->reply_to, &why);
	destroy(job);
}

/* --- the answer ---------------------------------------------------------------------------------------------------- */

static void ask(struct grant_aws *job);

static struct kt_view hidden_of(const struct grant_aws *job)
{
	struct kt_view body = kt_secret_view(job->body);

	return (struct kt_view){body.ptr + (body.len - job->hidden), job->hidden};
}

/* As for OAuth: what was signed by another clock than the server's is signed once more by that one. */
static bool try_again(struct grant_aws *job, const struct kt_http_reply *reply)
{
	int64_t apart = grant_skew(reply->date_skew) - job->skew;

	if (job->sts || job->skew_tried || reply->status < 400 || reply->status >= 500 || reply->status == 429 ||
	    reply->headers[KT_HTTP_DATE] == NULL || (apart < GRANT_SKEW_RETRY && apart > -GRANT_SKEW_RETRY)) {
		return false;
	}
	job->skew_tried = true;
	kt_log(KT_LOG_INFO, "%.200s refuses what our clock has signed, trying by its own: %lld s apart", job->url,
	       (long long)reply->date_skew);
	ask(job);
	return true;
}

static enum kt_code judge(struct grant_aws *job, const struct kt_http_reply *reply, struct kt_secret **ret,
			  int64_t *ret_seconds, struct kt_err *err)
{
	kt_ms now = kt_clock_wall(kt_loop_clock(job->grant->courier->loop)) + grant_skew(reply->date_skew) * KT_SECOND;
	struct aws_texts texts;
	enum kt_code code;
	bool read;

	aws_texts_init(&texts);
	read = job->sts ? aws_read_xml(reply->body, &texts) : aws_read_json(reply->body, &texts);
	if (reply->status < 200 || reply->status > 299) {
		code = aws_refusal(&texts, reply->status, reply->retry_after, hidden_of(job), err);
	} else if (!read) {
		code = kt_err_set(err, KT_E_PROTO, "the answer of AWS is not %s", job->sts ? "XML" : "JSON");
	} else {
		code = aws_session(&texts, now, ret, ret_seconds, err);
	}
	aws_texts_finish(&texts);
	return code;
}

static void on_answer(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_aws *job = arg;
	struct kt_msg_minted minted = {.token_type = KT_VIEW_LIT("AWS")};
	struct kt_secret *session = NULL;
	struct kt_err why = *err;

	job->call = NULL;
	if (why.code == KT_OK) {
		grant_server_learn(grant_server_get(job->grant, job->url), reply);
		if (judge(job, reply, &session, &minted.expires_in, &why) != KT_OK && try_again(job, reply)) {
			return;
		}
	}
	if (why.code != KT_OK) {
		fail(job, &why);
		return;
	}
	minted.token = session;
	minted.date_skew = reply->date_skew;
	kt_wire_reply(job->grant->courier->keeper, job->reply_to, KT_MINTED, &minted, NULL, 0);
	kt_secret_destroy(session);
	destroy(job);
}

/* --- the request --------------------------------------------------------------------------------------------------- */

static enum kt_code send_request(struct grant_aws *job, struct kt_err *err)
{
	struct kt_http_request request = {.method = "POST",
					  .url = job->url,
					  .named = job->named[0] != '\0' ? job->named : NULL,
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = job->sts ? "text/xml" : "application/json",
					  .body = kt_secret_view(job->body),
					  .header_lines = kt_buf_view(&job->headers),
					  .traceparent = kt_view_str(job->traceparent)};

	return kt_http_send(job->grant->courier->http, &request, on_answer, job, &job->call, err);
}

static enum kt_code take_request(struct grant_aws *job, struct kt_msg_aws_request_given *given, struct kt_err *err)
{
	if (given->body == NULL || given->headers.len == 0 || given->hidden > kt_secret_len(given->body)) {
		return kt_err_set(err, KT_E_PROTO, "the keeper gave no request");
	}
	kt_secret_destroy(job->body);
	job->body = given->body;
	given->body = NULL;
	job->hidden = given->hidden;
	kt_buf_reset(&job->headers);
	kt_buf_addv(&job->headers, given->headers);
	return kt_buf_check(&job->headers, "a request", err);
}

static void on_request(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct grant_aws *job = arg;
	struct kt_err why = *err;

	(void)fds, (void)fd_count;
	if (why.code == KT_OK && type != KT_AWS_REQUEST_GIVEN) {
		(void)kt_err_set(&why, KT_E_PROTO, "the keeper answered with something else");
	}
	if (why.code == KT_OK && take_request(job, msg, &why) == KT_OK) {
		(void)send_request(job, &why);
	}
	if (why.code != KT_OK) {
		fail(job, &why);
	}
}

/* The request is made by the server's clock as it was seen last. */
static void ask(struct grant_aws *job)
{
	const struct grant_server *server = grant_server_get(job->grant, job->url);
	struct kt_msg_aws_request msg = {.job = job->id, .skew = server != NULL ? server->skew : 0};
	struct kt_err err;

	kt_err_clear(&err);
	job->skew = msg.skew;
	if (kt_wire_call(job->grant->courier->keeper, KT_AWS_REQUEST, &msg, NULL, 0, KEEPER_TIME, on_request, job, &err) !=
	    KT_OK) {
		fail(job, &err);
	}
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static enum kt_code take(struct grant_aws *job, const struct kt_msg_aws_session *msg, struct kt_err *err)
{
	job->sts = kt_view_eq_str(msg->service, "sts");
	if (!job->sts && !kt_view_eq_str(msg->service, "rolesanywhere")) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "there are sessions of sts and rolesanywhere");
	}
	if (msg->traceparent.len > 0 && msg->traceparent.len <= KT_TRACE_MAX) {
		memcpy(job->traceparent, msg->traceparent.ptr, msg->traceparent.len);
	}
	if (kt_courier_copy(msg->url, &job->url, err) != KT_OK || kt_courier_copy(msg->named, &job->named, err) != KT_OK) {
		return err->code;
	}
	return kt_courier_copy(msg->ca_bundle, &job->ca_bundle, err);
}

void kt_grant_handle_aws(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct kt_grant *grant = courier->grant;
	const struct kt_msg_aws_session *msg = in->msg;
	struct grant_aws *job = grant->job_count < KT_GRANT_JOBS_MAX ? kt_calloc(1, sizeof(*job)) : NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (job == NULL) {
		(void)kt_err_set(&err, KT_E_LATER, "too many tokens are being asked for at once");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	job->grant = grant;
	job->id = msg->job;
	job->reply_to = in->id;
	kt_buf_init(&job->headers, 65536);
	job->next = grant->aws_jobs;
	grant->aws_jobs = job;
	grant->job_count++;
	if (take(job, msg, &err) != KT_OK) {
		fail(job, &err);
	} else {
		ask(job);
	}
}

bool grant_aws_cancel(struct kt_grant *grant, uint64_t id)
{
	struct kt_err err;

	for (struct grant_aws *job = grant->aws_jobs; job != NULL; job = job->next) {
		if (job->id == id) {
			(void)kt_err_set(&err, KT_E_CANCELLED, "called off");
			fail(job, &err);
			return true;
		}
	}
	return false;
}

void grant_aws_drop(struct kt_grant *grant)
{
	while (grant->aws_jobs != NULL) {
		destroy(grant->aws_jobs);
	}
}
