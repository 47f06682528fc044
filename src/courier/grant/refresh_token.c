/* The refresh_token grant (RFC 6749 section 6). */
#include "courier/grant/grant_internal.h"

static enum kt_code build(const struct grant_input *input, struct kt_buf *form, struct kt_err *err)
{
	enum kt_code code;

	grant_form_add(form, "grant_type", KT_VIEW_LIT("refresh_token"));
	code = grant_form_secret(form, "refresh_token", input, GRANT_REFRESH, err);
	return code == KT_OK ? grant_form_target(form, input, err) : code;
}

const struct grant_type grant_refresh_token = {.name = "refresh_token", .needs = 1u << GRANT_REFRESH, .build = build};
