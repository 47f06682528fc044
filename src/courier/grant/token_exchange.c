/* Token exchange (RFC 8693): a token for another, by itself or on behalf of somebody. */
#include "courier/grant/grant_internal.h"

static void add_type(struct kt_buf *form, const char *name, const char *type)
{
	grant_form_add(form, name, kt_view_str(type != NULL ? type : GRANT_TYPE_URN "access_token"));
}

static enum kt_code build(const struct grant_input *input, struct kt_buf *form, struct kt_err *err)
{
	enum kt_code code;

	grant_form_add(form, "grant_type", KT_VIEW_LIT("urn:ietf:params:oauth:grant-type:token-exchange"));
	code = grant_form_secret(form, "subject_token", input, GRANT_SUBJECT, err);
	if (code != KT_OK) {
		return code;
	}
	add_type(form, "subject_token_type", input->subject_type);
	if (input->secret[GRANT_ACTOR] != NULL) {
		code = grant_form_secret(form, "actor_token", input, GRANT_ACTOR, err);
		add_type(form, "actor_token_type", input->actor_type);
	}
	if (input->requested_type != NULL) {
		grant_form_add(form, "requested_token_type", kt_view_str(input->requested_type));
	}
	return code == KT_OK ? grant_form_target(form, input, err) : code;
}

const struct grant_type grant_token_exchange = {.name = "token_exchange", .needs = 1u << GRANT_SUBJECT, .build = build};
