/* Mutual TLS (RFC 8705 section 2): the connection shows the certificate, the form says whose it is. */
#include "courier/grant/grant_internal.h"

static enum kt_code apply(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			  struct kt_err *err)
{
	(void)authorization;
	grant_form_add(form, "client_id", kt_view_str(input->client_id));
	return kt_buf_check(form, "a token request", err);
}

const struct grant_auth grant_tls_client_auth = {.name = "tls_client_auth", .needs_key = true, .apply = apply};
const struct grant_auth grant_self_signed_tls_client_auth = {
	.name = "self_signed_tls_client_auth", .needs_key = true, .apply = apply};
