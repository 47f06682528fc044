/* The servers that clients are registered at: which call does what, and where a secret is tried. */
#include <stdio.h>
#include <string.h>

#include "keeper/client/client.h"

#define URL_MAX 2048

const char *kt_client_issuer_name(const struct kt_client_credential_spec *spec)
{
	return spec->issuer.anypoint != NULL ? "anypoint"
	       : spec->issuer.okta != NULL   ? "okta"
	       : spec->issuer.hosted != NULL ? "hosted"
	                                     : "static";
}

bool kt_client_overlaps(const struct kt_client_credential_spec *spec)
{
	return spec->issuer.okta != NULL || spec->issuer.hosted != NULL;
}

static const char *id_of(const struct kt_client *client)
{
	return client->id != NULL ? client->id : client->client_id;
}

/* Without a slash at its end. */
static int origin_len(const char *url)
{
	size_t len = strlen(url);

	while (len > 0 && url[len - 1] == '/') {
		len--;
	}
	return (int)len;
}

/* Access Management's PATCH with resetSecret, Exchange's POST without a body. */
static int anypoint(const struct kt_client_anypoint *spec, const struct kt_client_ask *ask, struct kt_client_call *ret)
{
	int len = origin_len(spec->url);

	ret->ca_bundle = spec->ca_bundle;
	ret->token_ref = spec->token_ref;
	ret->method = "PATCH";
	ret->body = "{}";
	ret->secret_path = ".client_secret";
	switch (spec->kind) {
	case KT_ANYPOINT_ENVIRONMENT_CLIENT:
		return snprintf(ret->url, URL_MAX, "%.*s/accounts/api/organizations/%s/clients/%s?resetSecret=true", len, spec->url,
		                spec->organization, id_of(ask->client));
	case KT_ANYPOINT_APPLICATION_CONTRACT:
		ret->method = "POST";
		ret->body = NULL;
		ret->secret_path = ".clientSecret";
		return snprintf(ret->url, URL_MAX, "%.*s/exchange/api/v2/organizations/%s/applications/%s/secret/reset", len,
		                spec->url, spec->organization, id_of(ask->client));
	default:
		break;
	}
	if (spec->organization != NULL) {
		return snprintf(ret->url, URL_MAX, "%.*s/accounts/api/organizations/%s/connectedApplications/%s?resetSecret=true",
		                len, spec->url, spec->organization, id_of(ask->client));
	}
	return snprintf(ret->url, URL_MAX, "%.*s/accounts/api/connectedApplications/%s?resetSecret=true", len, spec->url,
	                id_of(ask->client));
}

/* At most two secrets; one must be inactive before it can be deleted. */
static int okta(const struct kt_client_okta *spec, const struct kt_client_ask *ask, struct kt_client_call *ret)
{
	int len = origin_len(spec->org_url);
	char base[URL_MAX];
	int n = snprintf(base, sizeof(base), "%.*s/api/v1/apps/%s/credentials/secrets", len, spec->org_url, id_of(ask->client));

	ret->ca_bundle = spec->ca_bundle;
	ret->token_ref = spec->token_ref;
	if (n < 0 || n >= (int)sizeof(base) - 512) {
		return URL_MAX;
	}
	switch (ask->what) {
	case KT_CLIENT_LIST:
		ret->method = "GET";
		(void)snprintf(ret->json_path, sizeof(ret->json_path), "[%u].id", ask->index);
		return snprintf(ret->url, URL_MAX, "%s", base);
	case KT_CLIENT_DEACTIVATE:
		ret->method = "POST";
		return snprintf(ret->url, URL_MAX, "%s/%.128s/lifecycle/deactivate", base, ask->id);
	case KT_CLIENT_DELETE:
		ret->method = "DELETE";
		return snprintf(ret->url, URL_MAX, "%s/%.128s", base, ask->id);
	case KT_CLIENT_MAKE:
	default:
		break;
	}
	ret->method = "POST";
	ret->body = "{}";
	ret->secret_path = ".client_secret";
	(void)snprintf(ret->json_path, sizeof(ret->json_path), ".id");
	return snprintf(ret->url, URL_MAX, "%s", base);
}

/* Keys: one must be inactive before it can be deleted, as a secret. */
static int okta_key(const struct kt_client_okta *spec, const struct kt_client_ask *ask, struct kt_client_call *ret)
{
	static const char *const paths[] = {[KT_CLIENT_KEY_KID] = ".kid", [KT_CLIENT_KEY_STATUS] = ".status"};
	int len = origin_len(spec->org_url);
	char base[URL_MAX];
	int n = snprintf(base, sizeof(base), "%.*s/api/v1/apps/%s/credentials/jwks", len, spec->org_url, id_of(ask->client));

	ret->ca_bundle = spec->ca_bundle;
	ret->token_ref = spec->token_ref;
	if (n < 0 || n >= (int)sizeof(base) - 512) {
		return URL_MAX;
	}
	ret->method = "POST";
	switch (ask->what) {
	case KT_CLIENT_KEY_LIST:
	case KT_CLIENT_KEY_ID:
		ret->method = "GET";
		(void)snprintf(ret->json_path, sizeof(ret->json_path), "[%u].%s", ask->index,
		               ask->what == KT_CLIENT_KEY_ID ? "id" : "kid");
		return snprintf(ret->url, URL_MAX, "%s", base);
	case KT_CLIENT_KEY_KID:
	case KT_CLIENT_KEY_STATUS:
		ret->method = "GET";
		(void)snprintf(ret->json_path, sizeof(ret->json_path), "%s", paths[ask->what]);
		return snprintf(ret->url, URL_MAX, "%s/%.128s", base, ask->id);
	case KT_CLIENT_KEY_ACTIVATE:
		return snprintf(ret->url, URL_MAX, "%s/%.128s/lifecycle/activate", base, ask->id);
	case KT_CLIENT_KEY_DEACTIVATE:
		return snprintf(ret->url, URL_MAX, "%s/%.128s/lifecycle/deactivate", base, ask->id);
	case KT_CLIENT_KEY_DELETE:
		ret->method = "DELETE";
		return snprintf(ret->url, URL_MAX, "%s/%.128s", base, ask->id);
	default: /* MAKE */
		(void)snprintf(ret->json_path, sizeof(ret->json_path), ".id");
		return snprintf(ret->url, URL_MAX, "%s", base);
	}
}

enum kt_code kt_client_call_init(const struct kt_client_credential_spec *spec, const struct kt_client_ask *ask,
                                 struct kt_client_call *ret, struct kt_err *err)
{
	int n;

	memset(ret, 0, sizeof(*ret));
	if (spec->issuer.anypoint != NULL && ask->what == KT_CLIENT_MAKE) {
		n = anypoint(spec->issuer.anypoint, ask, ret);
	} else if (spec->issuer.okta != NULL && ask->what >= KT_CLIENT_KEY_MAKE) {
		n = okta_key(spec->issuer.okta, ask, ret);
	} else if (spec->issuer.okta != NULL) {
		n = okta(spec->issuer.okta, ask, ret);
	} else {
		return kt_err_set(err, KT_E_UNSUPPORTED, "%s has no such call", kt_client_issuer_name(spec));
	}
	return n < 0 || n >= URL_MAX ? kt_err_set(err, KT_E_LIMIT, "a URL of the management API is too long") : KT_OK;
}

bool kt_client_test_of(const struct kt_client_credential_spec *spec, const struct kt_client *client, char *url,
                       struct kt_oauth2_issuer *oauth2, struct kt_token_spec *request)
{
	const struct kt_client_anypoint *anypoint = spec->issuer.anypoint;
	const struct kt_client_test *test = spec->test;

	memset(oauth2, 0, sizeof(*oauth2));
	memset(request, 0, sizeof(*request));
	oauth2->audience_param = KT_AUDIENCE_NONE;
	oauth2->auth.client_id = client->client_id;
	oauth2->auth.method = test != NULL ? test->method : KT_AUTH_SECRET_POST;
	oauth2->profile = anypoint != NULL ? KT_PROFILE_ANYPOINT : spec->issuer.okta != NULL ? KT_PROFILE_OKTA : KT_PROFILE_GENERIC;
	oauth2->token_url = url;
	if (anypoint != NULL) {
		oauth2->ca_bundle = anypoint->ca_bundle;
	} else if (spec->issuer.okta != NULL) {
		oauth2->ca_bundle = spec->issuer.okta->ca_bundle;
	}
	if (spec->private_key != NULL && test != NULL) {
		oauth2->auth.method = KT_AUTH_PRIVATE_KEY_JWT;
		oauth2->auth.algorithm = spec->private_key->algorithm;
		oauth2->auth.audience = test->audience;
		oauth2->auth.assertion_lifetime = KT_MINUTE;
	}
	if (test != NULL) {
		(void)snprintf(url, URL_MAX, "%s", test->token_url);
		request->scopes = test->scopes;
		oauth2->ca_bundle = test->ca_bundle.len > 0 ? test->ca_bundle : oauth2->ca_bundle;
		return true;
	}
	if (anypoint == NULL || anypoint->kind != KT_ANYPOINT_CONNECTED_APP) {
		return false;
	}
	(void)snprintf(url, URL_MAX, "%.*s/accounts/api/v2/oauth2/token", origin_len(anypoint->url), anypoint->url);
	return true;
}
