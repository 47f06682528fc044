/* The HTTP client: judges a request, has its host looked up, runs it, and tells its owner. */
#include <string.h>

#include "courier/http_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

#define TIDY_EVERY (31 * KT_SECOND)

static kt_ms now(const struct kt_http *http)
{
	return kt_clock_mono(kt_loop_clock(http->loop));
}

static void on_idle(void *arg)
{
	struct kt_http *http = arg;

	if (http_trust_tidy(http)) {
		kt_timer_start(http->idle, TIDY_EVERY);
	}
}

enum kt_code kt_http_create(struct kt_loop *loop, struct kt_http **ret, struct kt_err *err)
{
	struct kt_http *http = kt_calloc(1, sizeof(*http));
	enum kt_code code;

	if (http == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for the HTTP client");
	}
	http->loop = loop;
	code = kt_timer_create(loop, on_idle, http, &http->idle, err);
	if (code == KT_OK) {
		code = kt_resolver_create(loop, &http->resolver, err);
	}
	if (code != KT_OK) {
		kt_http_destroy(http);
		return code;
	}
	*ret = http;
	return KT_OK;
}

struct kt_resolver *kt_http_resolver(struct kt_http *http)
{
	return http->resolver;
}

/* Off the list and out of the multi handle, but not freed. */
static void unlink_call(struct kt_http_call *call)
{
	struct kt_http *http = call->http;
	struct kt_http_call **at = &http->calls;

	while (*at != NULL && *at != call) {
		at = &(*at)->next;
	}
	if (*at == NULL) {
		return;
	}
	*at = call->next;
	http->call_count--;
	call->trust->calls--;
	call->trust->used = now(http);
	if (call->running) {
		call->running = false;
		(void)curl_multi_remove_handle(call->trust->multi, call->easy);
	}
	kt_timer_start(http->idle, TIDY_EVERY);
}

void kt_http_cancel(struct kt_http_call *call)
{
	if (call != NULL) {
		unlink_call(call);
		http_call_destroy(call);
	}
}

void kt_http_destroy(struct kt_http *http)
{
	if (http == NULL) {
		return;
	}
	while (http->calls != NULL) {
		kt_http_cancel(http->calls);
	}
	while (http->trusts != NULL) {
		struct http_trust *trust = http->trusts;

		http->trusts = trust->next;
		http_trust_destroy(trust);
	}
	kt_resolver_destroy(http->resolver);
	kt_timer_destroy(http->idle);
	kt_free(http);
}

static void finish(struct kt_http_call *call, const struct kt_err *err)
{
	struct kt_http_reply reply;

	unlink_call(call);
	if (err->code == KT_OK) {
		http_call_reply(call, &reply);
		call->fn(err, &reply, call->arg);
	} else {
		call->fn(err, NULL, call->arg);
	}
	http_call_destroy(call);
}

void http_reap(struct http_trust *trust)
{
	CURLMsg *msg;
	int left;

	trust->calls++; /* keeps the set alive whatever the callbacks do */
	while (trust->multi != NULL && (msg = curl_multi_info_read(trust->multi, &left)) != NULL) {
		struct kt_http_call *call = NULL;
		struct kt_err err;
		CURLcode result = msg->data.result;

		if (msg->msg != CURLMSG_DONE) {
			continue;
		}
		(void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&call);
		kt_err_clear(&err);
		if (result == CURLE_OK) {
			http_call_check(call);
		}
		if (result != CURLE_OK || call->broken.code != KT_OK) {
			http_call_error(call, result, &err);
		}
		finish(call, &err);
	}
	trust->calls--;
}

static void on_resolved(const struct kt_err *err, const struct kt_addresses *addresses, void *arg)
{
	struct kt_http_call *call = arg;
	struct kt_err why = *err;

	call->lookup = NULL;
	if (why.code == KT_OK && http_call_pin(call, addresses, &why) == KT_OK &&
	    http_trust_multi(call->trust, &why) == KT_OK) {
		if (curl_multi_add_handle(call->trust->multi, call->easy) == CURLM_OK) {
			call->running = true;
			return;
		}
		(void)kt_err_set(&why, KT_E_NOMEM, "libcurl can't take a request");
	}
	(void)kt_err_prefix(&why, "%s %.300s", call->method, call->url_text);
	finish(call, &why);
}

/* https everywhere, but plain http to a loopback host that the manifest itself names; local hosts only if it names
 * them. */
static enum kt_code judge_url(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err)
{
	bool named;

	if (kt_url_parse(request->url, &call->url, err) != KT_OK) {
		return KT_E_INVALID;
	}
	named = request->named != NULL && kt_url_text_same_origin(request->url, request->named);
	if (!call->url.https && !(named && call->url.reach == KT_REACH_LOOPBACK)) {
		return kt_err_set(err, KT_E_POLICY, "the URL '%.200s' must be https", request->url);
	}
	if (call->url.reach == KT_REACH_NONE || (call->url.reach != KT_REACH_ANY && !named)) {
		return kt_err_set(err, KT_E_POLICY, "the URL '%.200s' points at this host, which no manifest names",
				  request->url);
	}
	call->allow_local = call->url.reach != KT_REACH_ANY;
	return KT_OK;
}

enum kt_code kt_http_send(struct kt_http *http, const struct kt_http_request *request, kt_http_fn *fn, void *arg,
			  struct kt_http_call **ret, struct kt_err *err)
{
	struct kt_http_call *call;
	enum kt_code code;

	if (http->call_count >= KT_HTTP_CALLS_MAX) {
		return kt_err_set(err, KT_E_LATER, "too many requests are under way already");
	}
	call = kt_calloc(1, sizeof(*call));
	if (call == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a request");
	}
	call->http = http;
	call->fn = fn;
	call->arg = arg;
	call->started = now(http);
	call->timeout = request->timeout > 0 && request->timeout < KT_HTTP_TIMEOUT ? request->timeout : KT_HTTP_TIMEOUT;
	call->url_text = kt_strdup(request->url == NULL ? "" : request->url);
	code = call->url_text == NULL ? kt_err_set(err, KT_E_NOMEM, "out of memory for a request")
				      : judge_url(call, request, err);
	if (code == KT_OK) {
		code = http_trust_get(http, request->ca_bundle, request->insecure, &call->trust, err);
	}
	if (code == KT_OK && request->client_key != NULL) {
		code = http_cert_take(call, request, err);
	}
	if (code == KT_OK) {
		code = http_call_prepare(call, request, err);
	}
	if (code == KT_OK) {
		kt_ms limit = call->timeout < KT_HTTP_CONNECT_TIMEOUT ? call->timeout : KT_HTTP_CONNECT_TIMEOUT;

		code = kt_resolve(http->resolver, call->url.host, call->allow_local, limit, on_resolved, call,
				  &call->lookup, err);
	}
	if (code != KT_OK) {
		http_call_destroy(call);
		return code;
	}
	call->trust->calls++;
	call->next = http->calls;
	http->calls = call;
	http->call_count++;
	*ret = call;
	return KT_OK;
}

bool kt_http_is_type(const struct kt_http_reply *reply, const char *type)
{
	const char *value = reply->headers[KT_HTTP_CONTENT_TYPE];
	struct kt_view media;

	if (value == NULL) {
		return false;
	}
	media = (struct kt_view){value, strcspn(value, "; \t")};
	if (strcmp(type, "json") != 0) {
		return kt_ascii_ieq(media, kt_view_str(type));
	}
	if (kt_ascii_ieq(media, KT_VIEW_LIT("application/json"))) {
		return true;
	}
	return media.len > 17 && kt_ascii_ieq((struct kt_view){media.ptr, 12}, KT_VIEW_LIT("application/")) &&
	       kt_ascii_ieq((struct kt_view){media.ptr + media.len - 5, 5}, KT_VIEW_LIT("+json"));
}

enum kt_code kt_http_json(const struct kt_http_reply *reply, json_t **ret, struct kt_err *err)
{
	enum kt_code code = kt_json_parse(reply->body, KT_HTTP_BODY_MAX, ret, err);

	if (code == KT_E_INVALID) {
		code = KT_E_PROTO;
		if (err != NULL) {
			err->code = code;
		}
	}
	return code;
}
