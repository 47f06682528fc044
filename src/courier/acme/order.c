/* The order (RFC 8555 section 7.4): resumed or placed, checked against what was asked for, polled. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/log.h"
#include "kt/text.h"

#define FLIPS_MAX 11u /* polls that may still say "ready" after finalize */

static void place(struct acme_job *job);

/* --- checks ------------------------------------------------------------------------------------------------------- */

static bool tick_off(struct acme_job *job, const char *type, const char *value)
{
	for (size_t i = 0; i < job->name_count; i++) {
		struct acme_name *name = &job->names[i];

		if (!name->seen && strcmp(name->type, type) == 0 &&
		    kt_ascii_ieq(kt_view_str(name->value), kt_view_str(value))) {
			name->seen = true;
			return true;
		}
	}
	return false;
}

/* The order must be for exactly the names that were asked for. */
static enum kt_code check_names(struct acme_job *job, const json_t *order, struct kt_err *err)
{
	const json_t *list = json_object_get(order, "identifiers");

	if (json_array_size(list) != job->name_count) {
		return kt_err_set(err, KT_E_PROTO, "the CA's order has %zu names, asked for were %zu",
				  json_array_size(list), job->name_count);
	}
	for (size_t i = 0; i < job->name_count; i++) {
		job->names[i].seen = false;
	}
	for (size_t i = 0; i < job->name_count; i++) {
		const char *type = kt_json_str(json_array_get(list, i), "type");
		const char *value = kt_json_str(json_array_get(list, i), "value");

		if (type == NULL || value == NULL || !tick_off(job, type, value)) {
			return kt_err_set(err, KT_E_PROTO,
					  "the CA's order has the name '%.100s', which nobody asked for",
					  value != NULL ? value : "");
		}
	}
	return KT_OK;
}

static enum kt_code take_authzs(struct acme_job *job, const json_t *order, struct kt_err *err)
{
	const json_t *list = json_object_get(order, "authorizations");
	size_t count = json_array_size(list);

	if (count == 0 || count > job->name_count) {
		return kt_err_set(err, KT_E_PROTO, "the CA's order has %zu authorizations for %zu names", count,
				  job->name_count);
	}
	job->authzs = kt_calloc(count, sizeof(*job->authzs));
	if (job->authzs == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
	}
	job->authz_count = count;
	for (size_t i = 0; i < count; i++) {
		const char *url = json_string_value(json_array_get(list, i));

		if (!acme_server_owns(job->server, url)) {
			return kt_err_set(err, KT_E_PROTO, "the CA's order names an authorization elsewhere: '%.200s'",
					  url != NULL ? url : "");
		}
		for (size_t k = 0; k < i; k++) {
			if (strcmp(job->authzs[k].url, url) == 0) {
				return kt_err_set(err, KT_E_PROTO, "the CA's order names an authorization twice");
			}
		}
		job->authzs[i].job = job;
		job->authzs[i].url = kt_strdup(url);
		if (job->authzs[i].url == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
		}
	}
	return KT_OK;
}

static enum kt_code take_url(struct acme_job *job, const json_t *order, const char *key, char **ret, struct kt_err *err)
{
	const char *url = kt_json_str(order, key);

	if (!acme_server_owns(job->server, url)) {
		return kt_err_set(err, KT_E_PROTO, "the CA's order has no %s URL, or one elsewhere: '%.200s'", key,
				  url != NULL ? url : "");
	}
	kt_free(*ret);
	*ret = kt_strdup(url);
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
}

/* --- judging -------------------------------------------------------------------------------------------------------
 */

void acme_order_forget(struct acme_job *job)
{
	acme_authzs_withdraw(job);
	acme_authzs_clear(job);
	kt_free(job->order_url);
	kt_free(job->finalize_url);
	job->order_url = job->finalize_url = NULL;
	job->resumed = job->inherited = job->finalized = false;
	job->flips = 0;
	acme_order_wait(job);
}

static void start_over(struct acme_job *job, const char *why)
{
	kt_log(KT_LOG_WARN, "ACME job %llu: the order %.200s %s; a new one is placed", (unsigned long long)job->id,
	       job->order_url, why);
	acme_order_forget(job);
	acme_job_restart_clock(job, 0);
	place(job);
}

static struct acme_pace *pace_of(const struct acme_job *job)
{
	struct acme_pace *pace = &job->server->pace[job->finalized ? 1 : 0];

	if (pace->first == 0) {
		pace->first = ACME_POLL_FIRST;
	}
	return pace;
}

/* A first look that was in vain: the next ones come later, but not later than at first; enough that were not: earlier. */
static void learn(struct acme_job *job, bool in_vain)
{
	struct acme_pace *pace = pace_of(job);

	if (in_vain) {
		pace->first += pace->first < ACME_POLL_FIRST ? 1 : 0;
		pace->streak = 0;
	} else if (++pace->streak == ACME_PACE_STREAK) {
		pace->first -= pace->first > 1 ? 1 : 0;
		pace->streak = 0;
	}
}

/* What was waited for has come. */
static void come(struct acme_job *job)
{
	if (job->early == 1 && !job->server->slow) {
		learn(job, false);
	}
	job->early = 0;
}

void acme_order_wait(struct acme_job *job)
{
	job->poll_next = pace_of(job)->first;
	job->early = 0;
}

void acme_order_refused(struct acme_job *job, const struct kt_err *err)
{
	if (job->inherited) {
		start_over(job, "could not be validated while nobody answered");
	} else {
		acme_job_fail(job, err);
	}
}

/*
 * Many CAs ask to come back in seconds for what they have done in milliseconds. So the first looks come early, at the time
 * that was enough before; where all of them were in vain once, the server is taken at its word from then on.
 */
void acme_order_poll_later(struct acme_job *job, int64_t retry_after)
{
	kt_ms delay = job->poll_next;

	if (job->early == 1 && !job->server->slow) {
		learn(job, true);
	}
	job->poll_next = job->poll_next * 2 > ACME_POLL_MAX ? ACME_POLL_MAX : job->poll_next * 2;
	if (retry_after > 0 && job->early >= ACME_EARLY_LOOKS) {
		job->server->slow = true;
	}
	if (retry_after > 0 && (job->server->slow || delay > retry_after * KT_SECOND)) {
		delay = retry_after * KT_SECOND;
	}
	job->early++;
	if (delay <= ACME_SIGN_AHEAD && job->server->nonce_count > 0) {
		job->hold = kt_clock_mono(kt_loop_clock(job->acme->courier->loop)) + delay;
		acme_order_poll(job);
	} else {
		acme_job_pause(job, delay, acme_order_poll);
	}
}

static void pending(struct acme_job *job, const json_t *order, int64_t retry_after)
{
	struct kt_err err;
	kt_ms expires;

	kt_err_clear(&err);
	if (job->finalized) {
		acme_job_failf(job, KT_E_PROTO, "the CA's order went back to 'pending' after it was ready");
		return;
	}
	if (job->authzs != NULL) {
		acme_order_poll_later(job, retry_after);
		return;
	}
	if (job->resumed && kt_json_str(order, "expires") != NULL &&
	    kt_time_parse(kt_view_str(kt_json_str(order, "expires")), &expires, NULL) == KT_OK &&
	    expires < kt_clock_wall(kt_loop_clock(job->acme->courier->loop))) {
		start_over(job, "has expired");
		return;
	}
	if (take_authzs(job, order, &err) != KT_OK) {
		acme_job_fail(job, &err);
		return;
	}
	job->inherited = job->resumed;
	job->resumed = false; /* from here on its fate is ours to explain */
	acme_authz_step(job);
}

static void ready(struct acme_job *job, int64_t retry_after)
{
	if (!job->finalized) {
		come(job);
		acme_finalize_step(job);
	} else if (++job->flips > FLIPS_MAX) {
		acme_job_failf(job, KT_E_PROTO, "the CA's order stays 'ready' after it was finalized");
	} else {
		acme_order_poll_later(job, retry_after);
	}
}

static void invalid(struct acme_job *job, const json_t *order)
{
	json_t *problem = json_object_get(order, "error");
	struct kt_err err;

	if (job->resumed || job->inherited) {
		start_over(job, "is invalid by now");
	} else if (json_is_object(problem)) {
		kt_err_clear(&err);
		(void)acme_problem(problem, 0, 0, &err);
		if (err.code == KT_E_PROTO) {
			err.code = KT_E_DENIED;
		}
		if (job->authzs != NULL && !job->finalized && json_object_get(problem, "subproblems") == NULL) {
			acme_authz_explain(job); /* which name it was stands in the authorizations */
		} else {
			acme_job_fail(job, &err);
		}
	} else {
		acme_authz_explain(job);
	}
}

void acme_order_judge(struct acme_job *job, const struct acme_answer *answer)
{
	const char *status = kt_json_str(answer->json, "status");
	const json_t *order = answer->json;
	struct kt_err err;

	kt_err_clear(&err);
	if (status == NULL) {
		acme_job_failf(job, KT_E_PROTO, "the CA's answer is not an order with a status");
		return;
	}
	if (strcmp(status, "invalid") == 0) {
		invalid(job, order);
		return;
	}
	if (job->finalize_url == NULL && (check_names(job, order, &err) != KT_OK ||
					  take_url(job, order, "finalize", &job->finalize_url, &err) != KT_OK)) {
		if (job->resumed) {
			start_over(job, "is for other names");
		} else {
			acme_job_fail(job, &err);
		}
	} else if (strcmp(status, "pending") == 0) {
		pending(job, order, answer->http->retry_after);
	} else if (strcmp(status, "ready") == 0) {
		ready(job, answer->http->retry_after);
	} else if (strcmp(status, "processing") == 0) {
		job->finalized = true;
		acme_order_poll_later(job, answer->http->retry_after);
	} else if (strcmp(status, "valid") == 0) {
		come(job);
		if (take_url(job, order, "certificate", &job->cert_url, &err) != KT_OK) {
			acme_job_fail(job, &err);
		} else {
			acme_download_step(job); /* the order names it: a resumed one finds it again */
		}
	} else {
		acme_job_failf(job, KT_E_PROTO, "the CA's order has the unknown status '%.40s'", status);
	}
}

/* --- requests ------------------------------------------------------------------------------------------------------
 */

static void on_polled(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	if (err->code == KT_OK) {
		acme_order_judge(job, answer);
	} else if (job->resumed && answer != NULL &&
		   (answer->http->status == 404 || answer->http->status == 410 || answer->http->status == 403 ||
		    acme_problem_is(err, "malformed") || acme_problem_is(err, "unauthorized"))) {
		start_over(job, "is unknown to the CA by now");
	} else {
		acme_job_fail(job, err);
	}
}

void acme_order_poll(struct acme_job *job)
{
	job->step = job->finalized ? "waiting for the certificate" : "waiting for the order";
	acme_post(job, job->order_url, KT_VIEW_LIT(""), 0, on_polled);
}

static void on_saved(struct acme_job *job)
{
	struct kt_http_reply http = {0};
	struct acme_answer answer = {.http = &http};
	json_t *order = job->new_order;

	job->new_order = NULL;
	answer.json = order;
	acme_order_judge(job, &answer);
	json_decref(order);
}

static void on_placed(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	const char *location;

	if (err->code != KT_OK && job->replaces != NULL && answer != NULL && answer->http->status < 500 &&
	    err->code != KT_E_LATER && err->code != KT_E_AUTH) {
		/* What it would replace may be replaced already, or be another CA's: no reason to go without (RFC 9773). */
		kt_log_err(KT_LOG_WARN, err, "ACME job %llu: the order is placed without 'replaces'",
			   (unsigned long long)job->id);
		kt_free(job->replaces);
		job->replaces = NULL;
		job->replaces_dropped = true;
		place(job);
		return;
	}
	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	location = answer->http->headers[KT_HTTP_LOCATION];
	if (!acme_server_owns(job->server, location)) {
		acme_job_failf(job, KT_E_PROTO, "the CA gave no order URL, or one elsewhere: '%.200s'",
			       location != NULL ? location : "");
		return;
	}
	job->order_url = kt_strdup(location);
	if (job->order_url == NULL) {
		acme_job_failf(job, KT_E_NOMEM, "out of memory for an order");
		return;
	}
	json_decref(job->new_order);
	job->new_order = json_incref(answer->json);
	acme_job_save(job, "order", job->order_url, on_saved);
}

/* A profile that the CA does not list is a mistake in the manifest, and said so before an order is spent on it. */
static bool check_profile(struct acme_job *job)
{
	KT_AUTOBUF struct kt_buf listed = {0};

	kt_buf_init(&listed, 2048);
	if (job->profile == NULL || acme_directory_profile(&job->server->directory, job->profile, &listed)) {
		return true;
	}
	acme_job_failf(job, KT_E_INVALID, "the CA has no profile '%.64s'; %s%.300s", job->profile,
		       listed.len > 0 ? "it lists " : "it lists none, remove spec.acme.profile",
		       listed.len > 0 ? listed.ptr : "");
	return false;
}

static void place(struct acme_job *job)
{
	KT_AUTOBUF struct kt_buf payload = {0};
	char when[32];

	job->step = "placing the order";
	if (!check_profile(job)) {
		return;
	}
	kt_buf_init(&payload, 65536);
	kt_buf_adds(&payload, "{\"identifiers\":[");
	for (size_t i = 0; i < job->name_count; i++) {
		kt_buf_adds(&payload, i > 0 ? ",{\"type\":" : "{\"type\":");
		kt_buf_add_json(&payload, kt_view_str(job->names[i].type));
		kt_buf_adds(&payload, ",\"value\":");
		kt_buf_add_json(&payload, kt_view_str(job->names[i].value));
		kt_buf_adds(&payload, "}");
	}
	kt_buf_adds(&payload, "]");
	if (job->not_before != 0) {
		kt_buf_addf(&payload, ",\"notBefore\":\"%s\"", kt_time_format(job->not_before, when));
	}
	if (job->not_after != 0) {
		kt_buf_addf(&payload, ",\"notAfter\":\"%s\"", kt_time_format(job->not_after, when));
	}
	if (job->profile != NULL) {
		kt_buf_adds(&payload, ",\"profile\":");
		kt_buf_add_json(&payload, kt_view_str(job->profile));
	}
	if (job->replaces != NULL && job->server->directory.renewal_info != NULL) {
		kt_buf_adds(&payload, ",\"replaces\":");
		kt_buf_add_json(&payload, kt_view_str(job->replaces));
	}
	kt_buf_adds(&payload, "}");
	if (payload.failed != KT_OK) {
		acme_job_failf(job, payload.failed, "the order is too large");
	} else {
		acme_post(job, job->server->directory.new_order, kt_buf_view(&payload), 0, on_placed);
	}
}

void acme_order_step(struct acme_job *job)
{
	acme_order_wait(job);
	job->finalized = false;
	if (job->order_url == NULL) {
		place(job);
		return;
	}
	job->step = "resuming the order";
	acme_post(job, job->order_url, KT_VIEW_LIT(""), 0, on_polled);
}
