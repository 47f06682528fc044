/* The client_credentials grant (RFC 6749 section 4.4). */
#include "courier/grant/grant_internal.h"

static enum kt_code build(const struct grant_input *input, struct kt_buf *form, struct kt_err *err)
{
	grant_form_add(form, "grant_type", KT_VIEW_LIT("client_credentials"));
	return grant_form_target(form, input, err);
}

const struct grant_type grant_client_credentials = {.name = "client_credentials", .build = build};
