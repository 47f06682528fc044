/* What DNS providers with an HTTP interface share: requests of a job, and what their refusals mean. */
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/text.h"

#define DETAIL_MAX 200u

void dns_api_url(const struct dns_job *job, struct kt_buf *url, const char *named, const char *fallback)
{
	const char *base = kt_json_str(job->solver, named);
	size_t len;

	base = base == NULL || base[0] == '\0' ? fallback : base;
	len = strlen(base);
	while (len > 0 && base[len - 1] == '/') {
		len--;
	}
	kt_buf_init(url, KT_URL_MAX);
	kt_buf_add(url, base, len);
}

static void on_reply(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct dns_job *job = arg;

	job->call = NULL;
	if (err->code != KT_OK) {
		dns_job_fail(job, err);
	} else {
		job->then(job, reply);
	}
}

void dns_api_send(struct dns_job *job, struct kt_http_request *request, struct kt_buf *url, const char *named,
		  dns_api_fn *then)
{
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	request->url = url->ptr;
	request->named = kt_json_str(job->solver, named);
	request->ca_bundle = kt_view_str(kt_json_str(job->solver, "caBundle"));
	request->traceparent = kt_view_str(job->traceparent);
	job->then = then;
	code = kt_buf_check(url, "a URL", &err);
	job->touched = job->touched || strcmp(request->method, "GET") != 0;
	if (code == KT_OK) {
		code = kt_http_send(job->dns->courier->http, request, on_reply, job, &job->call, &err);
	}
	kt_buf_finish(url);
	if (code != KT_OK) {
		dns_job_fail(job, &err);
	}
}

/* A stranger's text may hold what we sent. */
static bool holds_secret(const struct dns_job *job, const char *text)
{
	KT_AUTOJSON json_t *all = NULL;
	const char *member;
	json_t *value;

	if (job->secret == NULL || kt_json_parse(kt_secret_view(job->secret), 65536, &all, NULL) != KT_OK) {
		return job->secret != NULL;
	}
	json_object_foreach(all, member, value) {
		const char *secret = json_string_value(value);

		if (secret != NULL && strlen(secret) >= 4 && strstr(text, secret) != NULL) {
			return true;
		}
	}
	return false;
}

void dns_api_refused(struct dns_job *job, const struct kt_http_reply *reply, const char *doing, const char *detail)
{
	enum kt_code code = KT_E_DENIED;
	const char *advice = "";
	struct kt_err err;

	if (reply->status == 429 || reply->status == 408 || reply->status >= 500) {
		code = KT_E_LATER;
	} else if (reply->status == 401 || reply->status == 403) {
		code = KT_E_AUTH;
		advice = ": check the credential of the solver and what it may do";
	} else if (reply->status < 400) {
		code = KT_E_PROTO;
	}
	if (detail != NULL && (strlen(detail) == 0 || holds_secret(job, detail))) {
		detail = NULL;
	}
	(void)kt_err_set(&err, code, "%s answers %ld to %s%s%.*s%s%s", job->provider->name, reply->status, doing,
			 detail == NULL ? "" : " (", (int)DETAIL_MAX, detail == NULL ? "" : detail,
			 detail == NULL ? "" : ")", advice);
	err.retry_after_s = reply->retry_after;
	dns_job_fail(job, &err);
}

json_t *dns_api_json(struct dns_job *job, const struct kt_http_reply *reply, const char *doing)
{
	json_t *body = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_http_json(reply, &body, &err) == KT_OK && json_is_object(body)) {
		return body;
	}
	json_decref(body);
	if (reply->status >= 400) {
		dns_api_refused(job, reply, doing, NULL);
	} else {
		dns_job_failf(job, KT_E_PROTO, "%s gives no JSON object as answer to %s", job->provider->name, doing);
	}
	return NULL;
}

bool dns_api_id(const json_t *value, char ret[64])
{
	const char *text = json_string_value(value);
	size_t len = text == NULL ? 0 : strlen(text);

	if (len == 0 || len > 63 ||
	    strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != len) {
		return false;
	}
	memcpy(ret, text, len + 1);
	return true;
}
