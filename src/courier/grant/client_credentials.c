/* The client_credentials grant (RFC 6749 section 4.4), with audiences as RFC 8707 resources or however the server wants
 * them. */
#include "courier/grant/grant_internal.h"

static void add_each(const json_t *list, const char *name, struct kt_buf *form)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		grant_form_add(form, name, kt_view_str(json_string_value(json_array_get(list, i))));
	}
}

static void add_words(const json_t *list, struct kt_buf *words)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (words->len > 0) {
			kt_buf_addc(words, ' ');
		}
		kt_buf_adds(words, json_string_value(json_array_get(list, i)));
	}
}

static enum kt_code build(const struct grant_input *input, struct kt_buf *form, struct kt_err *err)
{
	struct kt_buf scope;
	enum kt_code code;

	kt_buf_init(&scope, 8192);
	grant_form_add(form, "grant_type", KT_VIEW_LIT("client_credentials"));
	if (input->audience_param == GRANT_AUDIENCE_RESOURCE) {
		add_each(input->audiences, "resource", form);
	} else if (input->audience_param == GRANT_AUDIENCE_AUDIENCE) {
		add_each(input->audiences, "audience", form);
	} else if (input->audience_param == GRANT_AUDIENCE_SCOPE) {
		add_words(input->audiences, &scope);
	}
	add_words(input->scopes, &scope);
	if (scope.len > 0) {
		grant_form_add(form, "scope", kt_buf_view(&scope));
	}
	code = kt_buf_check(&scope, "the scopes of a token", err);
	kt_buf_finish(&scope);
	return code;
}

const struct grant_type grant_client_credentials = {.name = "client_credentials", .build = build};
