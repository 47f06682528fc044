/* client_secret_post (RFC 6749 section 2.3.1): id and secret as parameters of the form. */
#include "courier/grant/grant_internal.h"

static enum kt_code apply(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			  struct kt_err *err)
{
	(void)authorization;
	grant_form_add(form, "client_id", kt_view_str(input->client_id));
	return grant_form_secret(form, "client_secret", input, GRANT_CLIENT_SECRET, err);
}

const struct grant_auth grant_client_secret_post = {.name = "client_secret_post", .needs_secret = true, .apply = apply};
