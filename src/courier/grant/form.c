/* The form of a request: parameters, and how audiences and scopes are said in every grant. */
#include "courier/grant/grant_internal.h"
#include "kt/text.h"

void grant_form_add(struct kt_buf *form, const char *name, struct kt_view value)
{
	if (form->len > 0) {
		kt_buf_addc(form, '&');
	}
	kt_form_encode(form, kt_view_str(name));
	kt_buf_addc(form, '=');
	kt_form_encode(form, value);
}

enum kt_code grant_form_secret(struct kt_buf *form, const char *name, const struct grant_input *input,
			       enum grant_secret which, struct kt_err *err)
{
	if (input->secret[which] == NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no %s to send", name);
	}
	grant_form_add(form, name, kt_secret_view(input->secret[which]));
	return kt_buf_check(form, "a token request", err);
}

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

enum kt_code grant_form_target(struct kt_buf *form, const struct grant_input *input, struct kt_err *err)
{
	struct kt_buf scope;
	enum kt_code code;

	kt_buf_init(&scope, 8192);
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
	return code == KT_OK ? kt_buf_check(form, "a token request", err) : code;
}
