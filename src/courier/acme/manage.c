/*
 * Work with an ACME server that is no order: the account (RFC 8555 sections 7.3.2 to 7.3.6), revocation (section 7.6) and
 * renewal information (RFC 9773).
 */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/url.h"
#include "kt/text.h"

/* --- the account ------------------------------------------------------------------------------------------------------ */

static void finish(struct acme_job *job, const json_t *object)
{
	char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (text != NULL) {
		kt_buf_adds(&job->result, text);
		kt_free(text);
	}
	if (kt_buf_check(&job->result, "what the CA says", &err) != KT_OK) {
		acme_job_fail(job, &err);
		return;
	}
	acme_job_done(job);
}

static void on_managed(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	finish(job, answer->json);
}

static void update(struct acme_job *job)
{
	KT_AUTOBUF struct kt_buf payload = {0};
	KT_AUTOBUF struct kt_buf contact = {0};

	kt_buf_init(&payload, 8192);
	kt_buf_init(&contact, 4096);
	kt_buf_adds(&payload, "{\"contact\":[");
	if (job->new_email[0] != '\0') {
		kt_buf_addf(&contact, "mailto:%s", job->new_email);
		kt_buf_add_json(&payload, kt_buf_view(&contact));
	}
	kt_buf_adds(&payload, "]}");
	acme_post(job, job->account_url, kt_buf_view(&payload), ACME_POST_REPEAT, on_managed);
}

static void send_rollover(struct acme_job *job, struct kt_view inner)
{
	acme_post(job, job->server->directory.key_change, inner, 0, on_managed);
}

void acme_manage_step(struct acme_job *job)
{
	const char *op = job->op;

	job->step = "the account";
	if (strcmp(op, "directory") == 0) {
		finish(job, job->server->directory.object);
	} else if (strcmp(op, "register") == 0 || strcmp(op, "show") == 0) {
		acme_post(job, job->account_url, KT_VIEW_LIT(""), 0, on_managed);
	} else if (strcmp(op, "update") == 0) {
		update(job);
	} else if (strcmp(op, "deactivate") == 0) {
		job->step = "deactivating the account";
		acme_post(job, job->account_url, KT_VIEW_LIT("{\"status\":\"deactivated\"}"), 0, on_managed);
	} else if (job->server->directory.key_change == NULL) {
		acme_job_failf(job, KT_E_UNSUPPORTED, "the CA's directory has no keyChange");
	} else {
		job->step = "changing the account's key";
		acme_job_inner(job, "rollover", job->server->directory.key_change, send_rollover);
	}
}

static enum kt_code take_account(struct acme_job *job, struct kt_view url, struct kt_err *err)
{
	enum kt_code code = kt_courier_copy(url, &job->account_url, err);

	if (code == KT_OK && job->account_url[0] != '\0' && !acme_server_owns(job->server, job->account_url)) {
		code = kt_err_set(err, KT_E_INVALID, "the account's URL lies elsewhere: '%.200s'", job->account_url);
	}
	job->account_known = code == KT_OK && job->account_url[0] != '\0';
	return code;
}

void kt_acme_handle_account(struct kt_wire_in *in, void *arg)
{
	static const char *const ops[] = {"register", "show", "update", "deactivate", "rollover", "directory"};
	const struct kt_msg_acme_account *msg = in->msg;
	struct kt_err err;
	struct acme_job *job;
	bool known = false;

	kt_err_clear(&err);
	job = acme_job_create(in, arg, ACME_MANAGE, msg->job, &err);
	if (job != NULL && acme_job_take_issuer(job, msg->issuer, &err) == KT_OK &&
	    take_account(job, msg->account_url, &err) == KT_OK && kt_courier_copy(msg->op, &job->op, &err) == KT_OK &&
	    kt_courier_copy(msg->email, &job->new_email, &err) == KT_OK) {
		for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
			known = known || strcmp(job->op, ops[i]) == 0;
		}
		if (known) {
			acme_job_trace(job, msg->traceparent);
			acme_job_enqueue(job);
			return;
		}
		(void)kt_err_set(&err, KT_E_UNSUPPORTED, "no such work on an account: '%.40s'", job->op);
	}
	kt_wire_reply_err(in->wire, in->id, &err);
	acme_job_destroy(job);
}

/* --- revocation --------------------------------------------------------------------------------------------------------- */

static void on_revoked(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	(void)answer;
	if (err->code != KT_OK && !acme_problem_is(err, "alreadyRevoked")) {
		acme_job_fail(job, err);
		return;
	}
	acme_job_done(job);
}

void acme_revoke_step(struct acme_job *job)
{
	KT_AUTOBUF struct kt_buf payload = {0};

	job->step = "revoking the certificate";
	if (job->server->directory.revoke_cert == NULL) {
		acme_job_failf(job, KT_E_UNSUPPORTED, "the CA's directory has no revokeCert");
		return;
	}
	kt_buf_init(&payload, 65536);
	kt_buf_adds(&payload, "{\"certificate\":\"");
	kt_base64url_encode(&payload, job->csr.ptr, job->csr.len);
	kt_buf_addf(&payload, "\",\"reason\":%u}", job->reason);
	acme_post(job, job->server->directory.revoke_cert, kt_buf_view(&payload),
		  ACME_POST_REPEAT | (job->account_url[0] == '\0' ? ACME_POST_JWK : 0), on_revoked);
}

void kt_acme_handle_revoke(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_revoke *msg = in->msg;
	struct kt_err err;
	struct acme_job *job;

	kt_err_clear(&err);
	job = acme_job_create(in, arg, ACME_REVOKE, msg->job, &err);
	if (job == NULL || acme_job_take_issuer(job, msg->issuer, &err) != KT_OK ||
	    take_account(job, msg->account_url, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		acme_job_destroy(job);
		return;
	}
	job->account_known = true; /* with the certificate's own key none is needed */
	job->reason = msg->reason;
	kt_buf_addv(&job->csr, msg->certificate);
	acme_job_trace(job, msg->traceparent);
	acme_job_enqueue(job);
}

/* --- renewal information -------------------------------------------------------------------------------------------------- */

static enum kt_code take_window(struct acme_job *job, const json_t *object, struct kt_err *err)
{
	const json_t *window = json_object_get(object, "suggestedWindow");
	const char *start = kt_json_str(window, "start"), *end = kt_json_str(window, "end");
	const char *explanation = kt_json_str(object, "explanationURL");
	struct kt_url parsed;

	if (start == NULL || end == NULL || kt_time_parse(kt_view_str(start), &job->info_start, err) != KT_OK ||
	    kt_time_parse(kt_view_str(end), &job->info_end, err) != KT_OK || job->info_start >= job->info_end) {
		job->info_start = job->info_end = 0;
		return kt_err_set(err, KT_E_PROTO, "the CA's renewal information has no window with a start before its end");
	}
	/* Shown to people, never fetched: only what is plainly a page. */
	if (explanation != NULL && strlen(explanation) < KT_URL_MAX &&
	    kt_url_parse(explanation, &parsed, NULL) == KT_OK && parsed.https) {
		job->explanation = kt_strdup(explanation);
	}
	return KT_OK;
}

static void on_info(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct acme_job *job = arg;
	struct kt_err why = *err;
	KT_AUTOJSON json_t *object = NULL;

	job->call = NULL;
	if (why.code == KT_OK && reply->status != 200) {
		if (kt_http_is_type(reply, "json")) {
			(void)kt_http_json(reply, &object, NULL);
		}
		(void)acme_problem(object, reply->status, reply->retry_after, &why);
	} else if (why.code == KT_OK && !kt_http_is_type(reply, "json")) {
		(void)kt_err_set(&why, KT_E_PROTO, "the CA's renewal information is not JSON");
	} else if (why.code == KT_OK && kt_http_json(reply, &object, &why) == KT_OK) {
		job->info_retry_after = reply->retry_after;
		(void)take_window(job, object, &why);
	}
	if (why.code != KT_OK) {
		acme_job_fail(job, &why);
		return;
	}
	acme_job_done(job);
}

void acme_info_step(struct acme_job *job)
{
	struct kt_http_request request = {.method = "GET",
					  .named = job->server->url,
					  .ca_bundle = kt_view_str(job->server->ca_bundle),
					  .insecure = job->server->insecure,
					  .http2 = true,
					  .accept = "application/json",
					  .traceparent = kt_view_str(job->traceparent)};
	const char *base = job->server->directory.renewal_info;
	KT_AUTOBUF struct kt_buf url = {0};
	struct kt_err err;

	job->step = "asking for renewal information";
	if (base == NULL) {
		acme_job_done(job); /* start and end are 0: it has none */
		return;
	}
	kt_err_clear(&err);
	kt_buf_init(&url, KT_URL_MAX);
	kt_buf_addf(&url, "%s%s%s", base, base[strlen(base) - 1] == '/' ? "" : "/", job->cert_id);
	request.url = url.ptr;
	if (kt_buf_check(&url, "a URL", &err) != KT_OK ||
	    kt_http_send(job->acme->courier->http, &request, on_info, job, &job->call, &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

void kt_acme_handle_info(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_info *msg = in->msg;
	struct kt_err err;
	struct acme_job *job;

	kt_err_clear(&err);
	job = acme_job_create(in, arg, ACME_INFO, 0, &err);
	if (job != NULL && acme_job_take_issuer(job, msg->issuer, &err) == KT_OK &&
	    kt_courier_copy(msg->cert_id, &job->cert_id, &err) == KT_OK) {
		if (strspn(job->cert_id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") ==
		    strlen(job->cert_id)) {
			acme_job_trace(job, msg->traceparent);
			acme_job_enqueue(job);
			return;
		}
		(void)kt_err_set(&err, KT_E_INVALID, "not the id of a certificate");
	}
	kt_wire_reply_err(in->wire, in->id, &err);
	acme_job_destroy(job);
}
