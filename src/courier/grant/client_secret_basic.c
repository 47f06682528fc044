/* client_secret_basic (RFC 6749 section 2.3.1): id and secret form-encoded, then base64. */
#include "courier/grant/grant_internal.h"
#include "kt/text.h"

static enum kt_code apply(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			  struct kt_err *err)
{
	struct kt_buf pair;
	enum kt_code code;

	(void)form;
	kt_buf_init(&pair, 65536);
	kt_form_encode(&pair, kt_view_str(input->client_id));
	kt_buf_addc(&pair, ':');
	kt_form_encode(&pair, kt_secret_view(input->secret[GRANT_CLIENT_SECRET]));
	code = kt_buf_check(&pair, "the client's credentials", err);
	if (code == KT_OK) {
		kt_buf_adds(authorization, "Basic ");
		kt_base64_encode(authorization, pair.ptr, pair.len);
		code = kt_buf_check(authorization, "the client's credentials", err);
	}
	kt_buf_finish(&pair);
	return code;
}

const struct grant_auth grant_client_secret_basic = {
	.name = "client_secret_basic", .needs_secret = true, .apply = apply};
