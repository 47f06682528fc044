/* The JWT bearer grant (RFC 7523 section 2.1): somebody's assertion for a token. */
#include "courier/grant/grant_internal.h"

static enum kt_code build(const struct grant_input *input, struct kt_buf *form, struct kt_err *err)
{
	enum kt_code code;

	grant_form_add(form, "grant_type", KT_VIEW_LIT("urn:ietf:params:oauth:grant-type:jwt-bearer"));
	code = grant_form_secret(form, "assertion", input, GRANT_BEARER, err);
	return code == KT_OK ? grant_form_target(form, input, err) : code;
}

const struct grant_type grant_jwt_bearer = {.name = "jwt_bearer", .needs = 1u << GRANT_BEARER, .build = build};
