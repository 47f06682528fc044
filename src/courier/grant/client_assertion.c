/* Client assertions (RFC 7521 section 4.2, RFC 7523 section 2.2): made by the keeper, they differ in what signs them.
 */
#include <string.h>

#include "courier/grant/grant_internal.h"

static enum kt_code apply(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			  struct kt_err *err)
{
	(void)authorization;
	if (input->assertion_type == NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no assertion to send");
	}
	/* The parameter may be left out, and must name whom the assertion names where it is there. A SPIFFE identity as
	 * client id is what the assertion says already, in its sub. */
	if (strncmp(input->client_id, "spiffe://", 9) != 0) {
		grant_form_add(form, "client_id", kt_view_str(input->client_id));
	}
	grant_form_add(form, "client_assertion_type", kt_view_str(input->assertion_type));
	return grant_form_secret(form, "client_assertion", input, GRANT_CLIENT_ASSERTION, err);
}

const struct grant_auth grant_client_secret_jwt = {
	.name = "client_secret_jwt", .needs_assertion = true, .apply = apply};
const struct grant_auth grant_private_key_jwt = {.name = "private_key_jwt", .needs_assertion = true, .apply = apply};
const struct grant_auth grant_spiffe_jwt = {.name = "spiffe_jwt", .needs_assertion = true, .apply = apply};
