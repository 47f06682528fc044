/* One request to an endpoint, and what its answer leads to: a reply, another try, a refresh token to be kept first. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "courier/url.h"
#include "kt/log.h"

#define KEEPER_TIME (30 * KT_SECOND)
#define SKEW_WARN   ((int64_t)300)

/* --- another try --- */

static bool is_word(const struct kt_err *err, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(err->problem_type, *words) == 0) {
			return true;
		}
	}
	return false;
}

/* RFC 9449 section 8: the server wants its nonce in the proof, and has sent it along. */
static bool wants_nonce(const struct grant_job *job, const struct kt_http_reply *reply, const struct kt_err *err)
{
	static const char *const words[] = {"use_dpop_nonce", NULL};

	return job->input.dpop && !job->nonce_tried && (reply->status == 400 || reply->status == 401) &&
	       reply->headers[KT_HTTP_DPOP_NONCE] != NULL && is_word(err, words);
}

/*
 * Servers have no word of their own for an assertion or a proof whose time does not suit them, and no two say it alike.
 * So the clocks decide: a refusal of what was signed by another clock than the server's is tried by that one, once.
 */
static bool wants_time(const struct grant_job *job, const struct kt_http_reply *reply, const struct kt_err *err)
{
	static const char *const words[] = {"invalid_client",
					    "unauthorized_client",
					    "invalid_grant",
					    "invalid_request",
					    "invalid_dpop_proof",
					    "",
					    NULL};
	int64_t apart = grant_skew(reply->date_skew) - job->skew;

	return (job->auth->needs_assertion || job->input.dpop) && !job->skew_tried &&
	       (err->code == KT_E_AUTH || err->code == KT_E_DENIED) && reply->headers[KT_HTTP_DATE] != NULL &&
	       (apart >= GRANT_SKEW_RETRY || apart <= -GRANT_SKEW_RETRY) && is_word(err, words);
}

static bool try_again(struct grant_job *job, const struct kt_http_reply *reply, const struct kt_err *err)
{
	if (wants_nonce(job, reply, err)) {
		job->nonce_tried = true;
	} else if (wants_time(job, reply, err)) {
		job->skew_tried = true;
		kt_log(KT_LOG_INFO, "%.200s refuses what our clock has dated, trying by its own: %lld s apart",
		       job->named, (long long)reply->date_skew);
	} else {
		return false;
	}
	grant_job_try(job);
	return true;
}

/* --- pauses --- */

static void client_hash(const struct grant_job *job, uint8_t hash[KT_SHA256_LEN])
{
	struct kt_sha256 sha;

	memset(hash, 0, KT_SHA256_LEN);
	if (kt_sha256_init(&sha, NULL) == KT_OK) {
		kt_sha256_add(&sha, job->url, strlen(job->url) + 1);
		kt_sha256_add(&sha, job->input.client_id, strlen(job->input.client_id));
		kt_sha256_finish(&sha, hash);
	}
}

/* What one request of a client was told goes for all of that client; each asks itself again when a minute has passed. */
static void pause_client(const struct grant_job *job, int64_t seconds)
{
	struct kt_grant *grant = job->grant;
	kt_ms now = kt_clock_mono(kt_loop_clock(grant->courier->loop));
	kt_ms wait = seconds * KT_SECOND < GRANT_PAUSE_MAX ? seconds * KT_SECOND : GRANT_PAUSE_MAX;
	struct grant_pause *pause = &grant->pauses[0];

	for (unsigned i = 0; i < GRANT_PAUSES_MAX; i++) { /* the one that ends first makes room */
		pause = grant->pauses[i].until < pause->until ? &grant->pauses[i] : pause;
	}
	client_hash(job, pause->hash);
	pause->until = now + wait;
}

/* Milliseconds that this client is to wait yet. */
static kt_ms paused_for(const struct grant_job *job)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(job->grant->courier->loop));
	uint8_t hash[KT_SHA256_LEN];
	kt_ms left = 0;

	client_hash(job, hash);
	for (unsigned i = 0; i < GRANT_PAUSES_MAX; i++) {
		const struct grant_pause *pause = &job->grant->pauses[i];

		if (pause->until - now > left && memcmp(pause->hash, hash, sizeof(hash)) == 0) {
			left = pause->until - now;
		}
	}
	return left;
}

/* --- the answer --- */

void grant_job_verified(struct grant_job *job)
{
	struct kt_msg_minted minted = {.token = job->token.token,
				       .token_type = kt_view_str(job->token.token_type),
				       .expires_in = job->token.expires_in,
				       .scope = kt_view_str(job->token.scope),
				       .date_skew = job->date_skew,
				       .issued_type = kt_view_str(job->token.issued_type)};

	if (job->verdict.code != KT_OK) {
		grant_job_fail(job, &job->verdict);
		return;
	}
	kt_wire_reply(job->grant->courier->keeper, job->reply_to, KT_MINTED, &minted, NULL, 0);
	grant_job_destroy(job);
}

static void reply_minted(struct grant_job *job)
{
	if (job->verdict.code == KT_OK && job->token.token != NULL && kt_json_bool(job->issuer, "verify", false)) {
		grant_job_verify(job);
	} else {
		grant_job_verified(job);
	}
}

static void on_saved(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct grant_job *job = arg;
	struct kt_err why = *err;

	(void)msg, (void)fds, (void)fd_count;
	if (why.code == KT_OK && type != KT_DONE) {
		(void)kt_err_set(&why, KT_E_PROTO, "the keeper answered with something else");
	}
	if (why.code != KT_OK) {
		(void)kt_err_prefix(&why, "keeping the new refresh token");
		grant_job_fail(job, &why);
		return;
	}
	reply_minted(job);
}

/*
 * A refresh token that the server has rotated is the only one that works from now on, whatever else is wrong with the
 * answer: it is committed before anything else happens. Other grants ask again with what they have: what came
 * unasked is thrown away.
 */
static void finish_token(struct grant_job *job)
{
	struct kt_msg_save_refresh save = {.job = job->id, .token = job->token.refresh};
	struct kt_err err;

	if (job->type != &grant_refresh_token || save.token == NULL ||
	    kt_secret_eq(save.token, job->input.secret[GRANT_REFRESH])) {
		reply_minted(job);
	} else if (kt_wire_call(job->grant->courier->keeper, KT_SAVE_REFRESH, &save, NULL, 0, KEEPER_TIME, on_saved,
				job, &err) != KT_OK) {
		grant_job_fail(job, &err);
	}
}

static void on_token(struct grant_job *job, const struct kt_http_reply *reply)
{
	struct kt_err err;

	kt_err_clear(&err);
	grant_token_finish(&job->token);
	(void)grant_answer(reply, &job->input, &job->token, &err);
	if (err.code != KT_OK && job->token.refresh == NULL && try_again(job, reply, &err)) {
		return;
	}
	job->verdict = err;
	job->date_skew = reply->date_skew;
	finish_token(job);
}

static void on_op(struct grant_job *job, const struct kt_http_reply *reply)
{
	struct kt_msg_token_op_done done = {{NULL, 0}};
	struct kt_err err;

	kt_err_clear(&err);
	if (grant_op_answer(reply, job->op, &job->input, &done.body, &err) == KT_OK) {
		kt_wire_reply(job->grant->courier->keeper, job->reply_to, KT_TOKEN_OP_DONE, &done, NULL, 0);
		grant_job_destroy(job);
	} else if (!try_again(job, reply, &err)) {
		grant_job_fail(job, &err);
	}
}

static void on_answer(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_job *job = arg;

	job->call = NULL;
	if (err->code == KT_OK && reply->retry_after > 0 && (reply->status == 429 || reply->status == 503)) {
		pause_client(job, reply->retry_after);
	}
	grant_job_pass_turn(job);
	if (err->code != KT_OK) {
		grant_job_fail(job, err);
		return;
	}
	grant_server_learn(grant_server_get(job->grant, job->url), reply);
	if (reply->date_skew > SKEW_WARN || reply->date_skew < -SKEW_WARN) {
		kt_log(KT_LOG_WARN, "the clock of %.200s and ours differ by %lld s", job->named,
		       (long long)reply->date_skew);
	}
	if (job->op == NULL) {
		on_token(job, reply);
	} else {
		on_op(job, reply);
	}
}

/* --- the request --- */

/*
 * An alias for mutual TLS is often the same host at another port. Where that is this very machine the manifest has
 * named it with the issuer.
 */
static const char *named(const struct grant_job *job)
{
	struct kt_url issuer, url;

	if (job->mtls && job->by_metadata && kt_url_parse(job->named, &issuer, NULL) == KT_OK &&
	    kt_url_parse(job->url, &url, NULL) == KT_OK && issuer.https && url.https &&
	    strcmp(issuer.host, url.host) == 0) {
		return job->url;
	}
	return job->named;
}

static enum kt_code build(struct grant_job *job, struct kt_buf *form, struct kt_buf *authorization, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	if (job->op == NULL) {
		code = job->type->build(&job->input, form, err);
	} else {
		grant_op_build(job, form);
	}
	if (code == KT_OK) {
		code = job->auth->apply(&job->input, form, authorization, err);
	}
	return code == KT_OK ? kt_buf_check(form, "a token request", err) : code;
}

static enum kt_code send_request(struct grant_job *job, struct kt_err *err)
{
	struct kt_http_request request = {.method = "POST",
					  .url = job->url,
					  .named = named(job),
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = "application/json",
					  .content_type = "application/x-www-form-urlencoded",
					  .client_key = job->key,
					  .client_chain = kt_buf_view(&job->chain),
					  .traceparent = kt_view_str(job->traceparent)};
	KT_AUTOBUF struct kt_buf form, authorization;
	enum kt_code code;

	kt_buf_init(&form, GRANT_FORM_MAX);
	kt_buf_init(&authorization, GRANT_FORM_MAX);
	if (build(job, &form, &authorization, err) != KT_OK) {
		return err->code;
	}
	request.body = kt_buf_view(&form);
	if (authorization.len > 0) {
		request.header_name = "Authorization";
		request.header_value = kt_buf_view(&authorization);
	}
	if (job->input.dpop) {
		request.extra_name = "DPoP";
		request.extra_value = kt_buf_view(&job->proof);
	}
	code = kt_http_send(job->grant->courier->http, &request, on_answer, job, &job->call, err);
	kt_secret_destroy(job->key); /* the request has its own for as long as the handshake takes */
	job->key = NULL;
	return code;
}

/* --- turns: spec.limits.perIssuer --- */

static bool must_queue(const struct grant_job *job)
{
	int64_t under_way = 0;

	if (job->in_flight <= 0 || job->under_way) {
		return false;
	}
	for (const struct grant_job *other = job->grant->jobs; other != NULL; other = other->next) {
		under_way += other->under_way && memcmp(other->hash, job->hash, sizeof(job->hash)) == 0 ? 1 : 0;
	}
	return under_way >= job->in_flight;
}

/* Takes the turn; false: the client is to wait, and the job is gone. */
static bool set_out(struct grant_job *job)
{
	const struct grant_server *server;
	kt_ms left = paused_for(job);
	struct kt_err err;

	if (left > 0) {
		(void)kt_err_set(&err, KT_E_LATER, "it has told another request of this client to wait");
		err.retry_after_s = (left + KT_SECOND - 1) / KT_SECOND;
		grant_job_fail(job, &err);
		return false;
	}
	job->under_way = true;
	server = grant_server_get(job->grant, job->url);
	job->skew = server != NULL ? server->skew : 0;
	job->asks |= job->mtls ? GRANT_ASK_KEY : 0;
	job->asks |= job->auth->needs_assertion ? GRANT_ASK_ASSERTION : 0;
	job->asks |= job->input.dpop ? GRANT_ASK_PROOF : 0;
	grant_job_ask(job);
	return true;
}

/* The turn comes before the questions: what is dated must not grow old in the queue. */
void grant_job_try(struct grant_job *job)
{
	job->queued = must_queue(job);
	if (!job->queued) {
		(void)set_out(job);
	}
}

/* The one that has waited longest for a turn at this issuer, or NULL. */
static struct grant_job *next_queued(const struct grant_job *of)
{
	struct grant_job *first = NULL;

	for (struct grant_job *job = of->grant->jobs; job != NULL && !of->grant->dropping; job = job->next) {
		if (job->queued && memcmp(job->hash, of->hash, sizeof(job->hash)) == 0) {
			first = job; /* the last one on the list */
		}
	}
	return first;
}

void grant_job_pass_turn(struct grant_job *job)
{
	struct grant_job *next;

	if (!job->under_way) {
		return;
	}
	job->under_way = false;
	while ((next = next_queued(job)) != NULL) {
		next->queued = false;
		if (set_out(next)) {
			return;
		}
	}
}

void grant_job_exchange(struct grant_job *job)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (send_request(job, &err) != KT_OK) {
		grant_job_fail(job, &err);
	}
}
