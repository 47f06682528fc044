/* The plug-in tables of the OAuth client: adding a grant or a client authentication is a file and a line here. */
#include <string.h>

#include "courier/grant/grant_internal.h"

static const struct grant_type *const types[] = {&grant_client_credentials, &grant_token_exchange, &grant_jwt_bearer,
						 &grant_refresh_token};
static const struct grant_auth *const auths[] = {&grant_client_secret_basic,
						 &grant_client_secret_post,
						 &grant_client_secret_jwt,
						 &grant_private_key_jwt,
						 &grant_spiffe_jwt,
						 &grant_tls_client_auth,
						 &grant_self_signed_tls_client_auth,
						 &grant_none};

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
