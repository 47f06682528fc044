/* One signed request (RFC 8555 section 6): nonce, signature by the keeper, answer; sent again for good reason. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/text.h"

#define RETRY_FIRST     ((kt_ms)250)
#define RETRY_AFTER_MAX 30 /* seconds that a request waits by itself; longer: the keeper's plan decides */

static void again(struct acme_job *job);

void acme_post_finish(struct acme_job *job)
{
	kt_free(job->post.url);
	job->post.url = NULL;
	kt_buf_finish(&job->post.payload);
	kt_buf_finish(&job->post.jws);
}

static void answer(struct acme_job *job, struct kt_err *err, const struct acme_answer *with)
{
	acme_answered_fn *answered = job->post.answered;

	acme_post_finish(job);
	answered(job, err, with);
}

/* Sends the request once more after a growing, jittered pause; false when it has been tried often enough. */
static bool later(struct acme_job *job, const struct kt_err *err)
{
	kt_ms delay = RETRY_FIRST << job->post.server_tries;

	if (job->post.server_tries >= ACME_SERVER_TRIES || err->retry_after_s > RETRY_AFTER_MAX) {
		return false;
	}
	job->post.server_tries++;
	delay = delay / 2 + (kt_ms)kt_rand_below((uint64_t)delay);
	if (delay < err->retry_after_s * KT_SECOND) {
		delay = err->retry_after_s * KT_SECOND;
	}
	acme_job_pause(job, delay, again);
	return true;
}

/* A 4xx or 5xx (or 3xx: redirects are not followed). */
static void refused(struct acme_job *job, const struct acme_answer *with)
{
	struct kt_err err;
	long status = with->http->status;

	kt_err_clear(&err);
	(void)acme_problem(with->json, status, with->http->retry_after, &err);
	if (acme_problem_is(&err, "badNonce") && job->post.nonce_tries < ACME_NONCE_TRIES) {
		job->post.nonce_tries++;
		/* The others are as old; what came with the refusal is fresh. */
		acme_server_forget_nonces(job->server);
		acme_server_take_nonce(job->server, with->http);
		again(job);
		return;
	}
	if (status >= 500 && later(job, &err)) {
		return;
	}
	if (acme_problem_is(&err, "accountDoesNotExist") && !job->post.by_jwk) {
		acme_post_finish(job);
		acme_account_lost(job, &err);
		return;
	}
	answer(job, &err, with);
}

static void judge(struct acme_job *job, const struct kt_http_reply *reply)
{
	struct acme_answer with = {.http = reply};
	bool good = reply->status >= 200 && reply->status <= 299, is_json = kt_http_is_type(reply, "json");
	struct kt_err err;

	kt_err_clear(&err);
	acme_server_take_nonce(job->server, reply);
	if (reply->body.len > 0 && is_json && !(good && job->post.pem)) {
		(void)kt_http_json(reply, &with.json, &err);
	}
	if (!good) {
		refused(job, &with);
	} else if (err.code != KT_OK) {
		answer(job, &err, NULL);
	} else if (!job->post.pem && !is_json && reply->body.len > 0) {
		(void)kt_err_set(&err, KT_E_PROTO, "the CA answered with '%.60s' instead of JSON",
				 reply->headers[KT_HTTP_CONTENT_TYPE] != NULL ? reply->headers[KT_HTTP_CONTENT_TYPE]
									      : "");
		answer(job, &err, NULL);
	} else {
		answer(job, &err, &with);
	}
	json_decref(with.json);
}

static void on_reply(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct acme_job *job = arg;
	struct kt_err why = *err;

	job->call = NULL;
	if (why.code == KT_OK) {
		judge(job, reply);
	} else if (!job->post.repeatable || (why.code != KT_E_NET && why.code != KT_E_TIMEOUT) || !later(job, &why)) {
		answer(job, &why, NULL);
	}
}

static void send_signed(struct acme_job *job, struct kt_view jws)
{
	const struct acme_server *server = job->server;
	struct kt_http_request request = {.method = "POST",
					  .url = job->post.url,
					  .named = server->url,
					  .ca_bundle = kt_view_str(server->ca_bundle),
					  .insecure = server->insecure,
					  .accept = job->post.pem ? "application/pem-certificate-chain"
								  : "application/json",
					  .content_type = "application/jose+json",
					  .http2 = true,
					  .body = jws,
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_http_send(job->acme->courier->http, &request, on_reply, job, &job->call, &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

static void send_held(struct acme_job *job)
{
	send_signed(job, kt_buf_view(&job->post.jws));
}

/* Signed ahead of its time: see acme_order_poll_later. */
static void hold(struct acme_job *job, struct kt_view jws, kt_ms delay)
{
	struct kt_err err;

	kt_buf_addv(&job->post.jws, jws);
	if (kt_buf_check(&job->post.jws, "a request", &err) != KT_OK) {
		acme_job_fail(job, &err);
	} else {
		acme_job_pause(job, delay, send_held);
	}
}

static void on_signed(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
		      void *arg)
{
	struct acme_job *job = arg;
	const struct kt_msg_acme_signed *reply = msg;
	kt_ms early = job->hold - kt_clock_mono(kt_loop_clock(job->acme->courier->loop));

	(void)fds;
	(void)fd_count;
	job->hold = 0;
	if (err->code != KT_OK) {
		acme_job_fail(job, err);
	} else if (type != KT_ACME_SIGNED) {
		acme_job_failf(job, KT_E_PROTO, "the keeper gave no signature");
	} else if (early > 0) {
		hold(job, reply->jws, early);
	} else {
		send_signed(job, reply->jws);
	}
}

static void sign(struct acme_job *job, const char *nonce)
{
	struct kt_msg_acme_sign ask = {.job = job->id,
				       .url = kt_view_str(job->post.url),
				       .nonce = kt_view_str(nonce),
				       .by_jwk = job->post.by_jwk,
				       .payload = kt_buf_view(&job->post.payload)};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_wire_call(job->acme->courier->keeper, KT_ACME_SIGN, &ask, NULL, 0, ACME_KEEPER_TIME, on_signed, job,
			 &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

static void on_nonce(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct acme_job *job = arg;
	struct kt_err why = *err;
	char *nonce;

	job->call = NULL;
	if (why.code == KT_OK && reply->status >= 400) {
		(void)acme_problem(NULL, reply->status, reply->retry_after, &why);
	} else if (why.code == KT_OK) {
		acme_server_take_nonce(job->server, reply);
		nonce = acme_server_nonce(job->server);
		if (nonce != NULL) {
			sign(job, nonce);
			kt_free(nonce);
			return;
		}
		(void)kt_err_set(&why, KT_E_PROTO, "the CA gave no usable nonce");
	}
	if ((why.code != KT_E_NET && why.code != KT_E_LATER) || !later(job, &why)) {
		(void)kt_err_prefix(&why, "asking for a nonce");
		answer(job, &why, NULL);
	}
}

static void again(struct acme_job *job)
{
	const struct acme_server *server = job->server;
	struct kt_http_request request = {.method = "HEAD",
					  .url = server->directory.new_nonce,
					  .http2 = true,
					  .named = server->url,
					  .ca_bundle = kt_view_str(server->ca_bundle),
					  .insecure = server->insecure,
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_err err;
	char *nonce = acme_server_nonce(job->server);

	if (nonce != NULL) {
		sign(job, nonce);
		kt_free(nonce);
		return;
	}
	kt_err_clear(&err);
	if (kt_http_send(job->acme->courier->http, &request, on_nonce, job, &job->call, &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

void acme_post(struct acme_job *job, const char *url, struct kt_view payload, int flags, acme_answered_fn *answered)
{
	char *copy = kt_strdup(url);

	acme_post_finish(job);
	memset(&job->post, 0, sizeof(job->post));
	kt_buf_init(&job->post.payload, 65536);
	kt_buf_init(&job->post.jws, 131072);
	kt_buf_addv(&job->post.payload, payload);
	job->post.url = copy;
	job->post.by_jwk = (flags & ACME_POST_JWK) != 0;
	job->post.repeatable = (flags & ACME_POST_REPEAT) != 0 || payload.len == 0;
	job->post.pem = (flags & ACME_POST_PEM) != 0;
	job->post.answered = answered;
	if (copy == NULL || job->post.payload.failed != KT_OK) {
		acme_job_failf(job, copy == NULL ? KT_E_NOMEM : job->post.payload.failed, "a request is too large");
		return;
	}
	again(job);
}
