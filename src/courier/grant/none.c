/* A public client (RFC 6749 section 3.2.1): it says who it is and shows nothing. */
#include "courier/grant/grant_internal.h"

static enum kt_code apply(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			  struct kt_err *err)
{
	(void)authorization;
	grant_form_add(form, "client_id", kt_view_str(input->client_id));
	return kt_buf_check(form, "a token request", err);
}

const struct grant_auth grant_none = {.name = "none", .apply = apply};
