/* What is done with a token at its server: revocation (RFC 7009) and introspection (RFC 7662). */
#include <string.h>

#include "courier/grant/grant_internal.h"

#define BODY_MAX 65536u /* as TOKEN_OP_DONE carries it */

void grant_op_build(const struct grant_job *job, struct kt_buf *form)
{
	grant_form_add(form, "token", kt_secret_view(job->input.secret[GRANT_TOKEN]));
	grant_form_add(form, "token_type_hint", KT_VIEW_LIT("access_token"));
}

static enum kt_code introspected(const struct kt_http_reply *reply, const json_t *json, struct kt_view *ret_body,
				 struct kt_err *err)
{
	if (!json_is_boolean(json_object_get(json, "active"))) {
		return kt_err_set(err, KT_E_PROTO,
				  "the introspection endpoint does not say whether the token is active");
	}
	if (reply->body.len > BODY_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the introspection endpoint says more than %u bytes", BODY_MAX);
	}
	*ret_body = reply->body;
	return KT_OK;
}

enum kt_code grant_op_answer(const struct kt_http_reply *reply, const char *op, const struct grant_input *input,
			     struct kt_view *ret_body, struct kt_err *err)
{
	KT_AUTOJSON json_t *json = NULL;
	bool revoke = strcmp(op, "revoke") == 0;

	*ret_body = (struct kt_view){NULL, 0};
	if (reply->status >= 300 && reply->status < 400) {
		return kt_err_set(err, KT_E_PROTO, "the endpoint redirects (HTTP %ld), which is not followed",
				  reply->status);
	}
	/* A revocation is done when the status says so: the body means nothing (RFC 7009 section 2.2). */
	if (revoke && (reply->status == 200 || reply->status == 204)) {
		return KT_OK;
	}
	if (kt_http_is_type(reply, "json")) {
		(void)kt_http_json(reply, &json, NULL);
	}
	if (reply->status != 200 || kt_json_str(json, "error") != NULL) {
		return grant_refusal(reply, json, input, err);
	}
	if (json == NULL) {
		return grant_bad_answer(input, KT_E_PROTO, "the introspection endpoint answered with",
					reply->headers[KT_HTTP_CONTENT_TYPE], " instead of JSON", err);
	}
	return introspected(reply, json, ret_body, err);
}
