/* The plug-in tables of the OAuth client: adding a grant or a client authentication is a file and a line here. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/text.h"

static const struct grant_type *const types[] = {&grant_client_credentials};
static const struct grant_auth *const auths[] = {&grant_client_secret_basic, &grant_client_secret_post};

const struct grant_type *grant_type_find(const char *name)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i]->name, name) == 0) {
			return types[i];
		}
	}
	return NULL;
}

const struct grant_auth *grant_auth_find(const char *name)
{
	for (size_t i = 0; i < sizeof(auths) / sizeof(auths[0]); i++) {
		if (strcmp(auths[i]->name, name) == 0) {
			return auths[i];
		}
	}
	return NULL;
}

void grant_form_add(struct kt_buf *form, const char *name, struct kt_view value)
{
	if (form->len > 0) {
		kt_buf_addc(form, '&');
	}
	kt_form_encode(form, kt_view_str(name));
	kt_buf_addc(form, '=');
	kt_form_encode(form, value);
}
