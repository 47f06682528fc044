/* One HTTP exchange on behalf of a manifest: notify, observed, accepted. */
#include <string.h>

#include "courier/probe/probe_internal.h"
#include "kt/mem.h"

#define BODY_MAX (128u * 1024u)

struct http_probe {
	struct probe_item item;
	struct kt_http_call *call;
	char *json_path;
};

static void destroy(struct probe_item *item)
{
	struct http_probe *probe = (struct http_probe *)item;

	kt_http_cancel(probe->call);
	kt_free(probe->json_path);
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

static void on_reply(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct http_probe *probe = arg;
	struct kt_msg_http_done done = {0};
	struct kt_err why = *err;
	struct kt_buf value;

	probe->call = NULL;
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
	    kt_courier_copy(msg->json_path, &probe->json_path, err) != KT_OK) {
		return err->code;
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
