/* What helps when an authorization server refuses: said with the refusal, by what the manifests have for this client
 * and grant. */
#include <stdio.h>
#include <string.h>

#include "keeper/oauth/oauth.h"

#define MORE "'keyturn why' and 'keyturn trace' say more"

static bool says(const struct kt_err *err, const char *word)
{
	return strcasestr(err->what, word) != NULL;
}

/* The client itself is refused. */
static void for_client(const struct kt_oauth2_auth *auth, char *out, size_t size)
{
	const char *certificate = auth->certificate_ref != NULL ? auth->certificate_ref : "";

	switch (auth->method) {
	case KT_AUTH_SECRET_BASIC:
	case KT_AUTH_SECRET_POST:
	case KT_AUTH_SECRET_JWT:
		(void)snprintf(
			out, size,
			"set the right secret with 'keyturn secret set %.100s', or mend auth.clientID and auth.method",
			auth->client_secret_ref.name != NULL ? auth->client_secret_ref.name : "");
		break;
	case KT_AUTH_PRIVATE_KEY_JWT:
		(void)snprintf(out, size,
			       "register the public half of the key in secret %.100s for this client at the server "
			       "(algorithm and "
			       "kid too), or set its key with 'keyturn secret set'",
			       auth->key_secret_ref.name != NULL ? auth->key_secret_ref.name : "");
		break;
	case KT_AUTH_TLS:
		(void)snprintf(
			out, size,
			"the server has to trust the CA of the certificate in %.100s, and expect its name for this "
			"client; " MORE,
			certificate);
		break;
	case KT_AUTH_SELF_SIGNED_TLS:
		(void)snprintf(out, size,
			       "register the certificate in %.100s itself for this client at the server; " MORE,
			       certificate);
		break;
	case KT_AUTH_SPIFFE_JWT:
		(void)snprintf(out, size,
			       "the server has to know the sub of the token in %.100s for this client, fetch the keys "
			       "that signed "
			       "it, and find itself in its aud; " MORE,
			       auth->token_ref != NULL ? auth->token_ref : "");
		break;
	case KT_AUTH_NONE:
		(void)snprintf(
			out, size,
			"the client has to be a public one there, or auth.method says how it shows who it is; " MORE);
		break;
	}
}

void kt_oauth_remedy(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec, struct kt_err *err)
{
	const char *word = err->problem_type;
	bool client = strcmp(word, "invalid_client") == 0 || strcmp(word, "unauthorized_client") == 0;
	bool assertion = oauth2->auth.method == KT_AUTH_PRIVATE_KEY_JWT || oauth2->auth.method == KT_AUTH_SECRET_JWT;
	const char *certificate = kt_oauth_certificate_ref(oauth2, spec);
	struct kt_err was = *err;
	char text[400] = "";

	if (err->code != KT_E_AUTH && err->code != KT_E_DENIED) {
		return;
	}
	if (strcmp(word, "invalid_target") == 0 || (client && says(err, "audience"))) {
		(void)snprintf(
			text, sizeof(text), "look at spec.audiences of the Token%s%s; " MORE,
			assertion ? ", and at auth.audience and profile of its issuer, which make aud of the assertion"
				  : "",
			oauth2->auth.method == KT_AUTH_SPIFFE_JWT ? " and of the JWT-SVID" : "");
	} else if (client && says(err, "certificate") && spec->grant.refresh_token != NULL && certificate != NULL) {
		(void)snprintf(
			text, sizeof(text),
			"a refresh token is bound to the certificate that got it: log in once more with the one in "
			"%.100s, and set what that gives with 'keyturn secret set %.100s'",
			certificate, spec->grant.refresh_token->secret.name);
	} else if (client && oauth2->auth.method == KT_AUTH_SPIFFE_JWT && says(err, "past")) {
		(void)snprintf(text, sizeof(text),
			       "the token in %.100s is older than the server allows: a shorter spec.duration renews it "
			       "sooner; " MORE,
			       oauth2->auth.token_ref != NULL ? oauth2->auth.token_ref : "");
	} else if (client) {
		for_client(&oauth2->auth, text, sizeof(text));
	} else if (strcmp(word, "invalid_scope") == 0) {
		(void)snprintf(text, sizeof(text),
			       "look at spec.scopes, and at what the client may ask for at the server; " MORE);
	} else if (strcmp(word, "invalid_grant") == 0 && spec->grant.refresh_token != NULL) {
		(void)snprintf(text, sizeof(text),
			       "log in once more, and set what that gives with 'keyturn secret set %.100s'",
			       spec->grant.refresh_token->secret.name);
	} else if (strcmp(word, "invalid_request") == 0 && says(err, "certificat") && certificate == NULL) {
		(void)snprintf(text, sizeof(text),
			       "spec.certificateRef of the Token says which Certificate is shown and bound to; " MORE);
	}
	if (text[0] != '\0') {
		(void)kt_err_set(err, was.code, "%s; %s", was.what, text);
		(void)snprintf(err->problem_type, sizeof(err->problem_type), "%s", was.problem_type);
		err->retry_after_s = was.retry_after_s;
	}
}
