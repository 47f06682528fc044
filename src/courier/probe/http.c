/* One HTTP exchange on behalf of a manifest: notify, observed, accepted, and the calls of a management API. */
#include <string.h>

#include "courier/probe/probe_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

#define BODY_MAX (128u * 1024u)

struct http_probe {
	struct probe_item item;
	struct kt_http_call *call;
	char *json_path;
	char *secret_path;
	struct kt_secret *bearer; /* api: what may not be shown of an answer */
	bool api;
};

static void destroy(struct probe_item *item)
{
	struct http_probe *probe = (struct http_probe *)item;

	kt_http_cancel(probe->call);
	kt_free(probe->json_path);
	kt_free(probe->secret_path);
	kt_secret_destroy(probe->bearer);
	kt_free(probe);
}

static enum kt_code extract(const struct http_probe *probe, const struct kt_http_reply *reply, struct kt_buf *out,
			    struct kt_err *err)
{
	KT_AUTOJSON json_t *json = NULL;

	if (probe->json_path[0] == '\0') {
		kt_buf_addv(out, reply->body);
		return kt_buf_check(out, "an answer", err);
	}
	if (reply->status < 200 || reply->status > 299) {
		return KT_OK; /* the status says enough */
	}
	if (kt_http_json(reply, &json, err) != KT_OK) {
		return kt_err_prefix(err, "the answer is not JSON");
	}
	return kt_json_path(json, probe->json_path, out, err);
}

/* --- management APIs ------------------------------------------------------------------------------------------------ */

/* What the API says of itself, unless it repeats what was sent: Anypoint's `message`, Okta's `errorSummary`. */
static void add_message(const struct http_probe *probe, const struct kt_http_reply *reply, struct kt_buf *out)
{
	static const char *const members[] = {"message", "errorSummary", "error_description", "error"};
	KT_AUTOJSON json_t *json = NULL;
	struct kt_view sent = probe->bearer != NULL ? kt_secret_view(probe->bearer) : (struct kt_view){NULL, 0};
	const char *text = NULL;
	char shown[304];

	if (kt_http_json(reply, &json, NULL) != KT_OK) {
		return;
	}
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]) && text == NULL; i++) {
		text = kt_json_str(json, members[i]);
	}
	if (text != NULL && (sent.len == 0 || memmem(text, strlen(text), sent.ptr, sent.len) == NULL)) {
		kt_text_hide(text, NULL, shown, sizeof(shown)); /* a secret that the API has just made is not known here */
		kt_buf_addf(out, ": %s", shown);
	}
}

static enum kt_code refusal(const struct http_probe *probe, const struct kt_http_reply *reply, struct kt_err *err)
{
	enum kt_code code = reply->status == 401                                                   ? KT_E_AUTH
			    : reply->status == 408 || reply->status == 429 || reply->status >= 500 ? KT_E_LATER
			    : reply->status >= 400                                                 ? KT_E_DENIED
												   : KT_E_PROTO;
	struct kt_buf text;

	kt_buf_init(&text, 4096);
	add_message(probe, reply, &text);
	(void)kt_err_set(err, code, "the API answers with HTTP %ld%s", reply->status, text.len > 0 ? text.ptr : "");
	err->retry_after_s = code == KT_E_LATER ? reply->retry_after : 0;
	kt_buf_finish(&text);
	return code;
}

/* The body is never shown: it may hold a secret. */
static enum kt_code find(json_t *json, const char *path, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code = path[0] != '\0' ? kt_json_path(json, path, out, err) : KT_OK;

	return code == KT_E_NOTFOUND ? kt_err_set(err, KT_E_PROTO, "the API's answer has nothing at %.200s", path) : code;
}

static enum kt_code take(const struct http_probe *probe, const struct kt_http_reply *reply, struct kt_buf *value,
			 struct kt_secret **secret, struct kt_err *err)
{
	KT_AUTOJSON json_t *json = NULL;
	json_t *at = NULL;
	struct kt_buf found;
	enum kt_code code;

	if (reply->status < 200 || reply->status > 299) {
		return refusal(probe, reply, err);
	}
	if (probe->json_path[0] == '\0' && probe->secret_path[0] == '\0') {
		return KT_OK;
	}
	if (kt_http_json(reply, &json, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_PROTO, "the API's answer (HTTP %ld) is not JSON", reply->status);
	}
	kt_buf_init(&found, 65535);
	if (find(json, probe->json_path, value, NULL) != KT_OK) {
		kt_buf_reset(value);
	}
	code = find(json, probe->secret_path, &found, err);
	if (code == KT_OK && probe->secret_path[0] != '\0' &&
	    (kt_json_at(json, probe->secret_path, &at, err) != KT_OK || !json_is_string(at))) {
		code = kt_err_set(err, KT_E_PROTO, "the API's answer has no text at %.200s", probe->secret_path);
	}
	if (code == KT_OK && probe->secret_path[0] != '\0') {
		code = found.len > 0 ? kt_secret_create(found.ptr, found.len, secret, err)
				     : kt_err_set(err, KT_E_PROTO, "the API's answer has an empty %.200s", probe->secret_path);
	}
	if (found.len > 0) {
		kt_wipe(found.ptr, found.len);
	}
	kt_buf_finish(&found);
	return code;
}

static void on_api_reply(struct http_probe *probe, const struct kt_err *err, const struct kt_http_reply *reply)
{
	struct kt_msg_http_done done = {0};
	struct kt_err why = *err;
	struct kt_buf value;

	kt_buf_init(&value, BODY_MAX);
	if (why.code != KT_OK || take(probe, reply, &value, &done.secret, &why) != KT_OK) {
		probe_fail(&probe->item, &why);
	} else {
		done.status = (uint32_t)reply->status;
		done.value = kt_buf_view(&value);
		kt_wire_reply(probe->item.courier->keeper, probe->item.reply_to, KT_HTTP_DONE, &done, NULL, 0);
		kt_secret_destroy(done.secret);
		probe_end(&probe->item);
	}
	kt_buf_finish(&value);
}

static void on_reply(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct http_probe *probe = arg;
	struct kt_msg_http_done done = {0};
	struct kt_err why = *err;
	struct kt_buf value;

	probe->call = NULL;
	if (probe->api) {
		on_api_reply(probe, err, reply);
		return;
	}
	kt_buf_init(&value, BODY_MAX);
	if (why.code != KT_OK || extract(probe, reply, &value, &why) != KT_OK) {
		probe_fail(&probe->item, &why);
	} else {
		done.status = (uint32_t)reply->status;
		done.retry_after = reply->retry_after;
		done.value = kt_buf_view(&value);
		kt_wire_reply(probe->item.courier->keeper, probe->item.reply_to, KT_HTTP_DONE, &done, NULL, 0);
		probe_end(&probe->item);
	}
	kt_buf_finish(&value);
}

/* The texts of a message, as the NUL-terminated strings that the client wants. */
struct texts {
	char *method, *url, *content_type, *header_name, *header_prefix;
};

static void texts_finish(struct texts *texts)
{
	kt_free(texts->method);
	kt_free(texts->url);
	kt_free(texts->content_type);
	kt_free(texts->header_name);
	kt_free(texts->header_prefix);
}

static bool method_ok(const char *method)
{
	static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(method, known[i]) == 0) {
			return true;
		}
	}
	return false;
}

static enum kt_code start(struct http_probe *probe, const struct kt_msg_http *msg, struct texts *texts,
			  struct kt_err *err)
{
	struct kt_http_request request = {.ca_bundle = msg->ca_bundle,
					  .body = msg->body,
					  .traceparent = msg->traceparent,
					  .timeout = msg->timeout_ms,
					  .body_max = BODY_MAX};

	if (kt_courier_copy(msg->method, &texts->method, err) != KT_OK ||
	    kt_courier_copy(msg->url, &texts->url, err) != KT_OK ||
	    kt_courier_copy(msg->content_type, &texts->content_type, err) != KT_OK ||
	    kt_courier_copy(msg->header_name, &texts->header_name, err) != KT_OK ||
	    kt_courier_copy(msg->header_prefix, &texts->header_prefix, err) != KT_OK ||
	    kt_courier_copy(msg->json_path, &probe->json_path, err) != KT_OK ||
	    kt_courier_copy(msg->secret_path, &probe->secret_path, err) != KT_OK) {
		return err->code;
	}
	probe->api = msg->api;
	if (probe->api) {
		struct kt_view bearer = msg->token != NULL ? kt_secret_view(msg->token) : (struct kt_view){NULL, 0};

		request.accept = "application/json";
		request.once = strcmp(texts->method, "GET") != 0; /* a secret that is made twice is lost once */
		if (bearer.len > 0 && kt_secret_create(bearer.ptr, bearer.len, &probe->bearer, err) != KT_OK) {
			return err->code;
		}
	}
	if (!method_ok(texts->method)) {
		return kt_err_set(err, KT_E_INVALID, "'%.16s' is not an HTTP method that is offered here",
				  texts->method);
	}
	if (msg->secret_body != NULL && kt_secret_len(msg->secret_body) > 0) {
		request.body = kt_secret_view(msg->secret_body);
	}
	request.method = texts->method;
	request.url = texts->url;
	request.named = texts->url; /* it comes from the manifest as it is */
	request.content_type = texts->content_type[0] != '\0' ? texts->content_type : NULL;
	if (msg->token != NULL && kt_secret_len(msg->token) > 0) {
		request.header_name = texts->header_name;
		request.header_prefix = texts->header_prefix;
		if (texts->header_name[0] == '\0') {
			request.header_name = "Authorization";
			request.header_prefix = texts->header_prefix[0] != '\0' ? texts->header_prefix : "Bearer ";
		}
		request.header_value = kt_secret_view(msg->token);
	}
	return kt_http_send(probe->item.courier->http, &request, on_reply, probe, &probe->call, err);
}

void kt_probe_handle_http(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct http_probe *probe = kt_calloc(1, sizeof(*probe));
	struct texts texts = {0};
	struct kt_err err;

	(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for a request");
	if (probe == NULL || probe_add(courier, &probe->item, in->id, &err) != KT_OK) {
		kt_free(probe);
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	probe->item.destroy = destroy;
	kt_err_clear(&err);
	if (start(probe, in->msg, &texts, &err) != KT_OK) {
		probe_fail(&probe->item, &err);
	}
	texts_finish(&texts);
}
