/* Authorization server metadata (RFC 8414, OpenID Connect Discovery 1.0): where it lies and what of it is believed. */
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "courier/url.h"

/* RFC 8414 puts its well-known part between host and path, OpenID Connect puts its own after the path. */
enum kt_code grant_well_known(const char *issuer, unsigned which, struct kt_buf *out, struct kt_err *err)
{
	const char *host = strstr(issuer, "://"), *path;
	size_t len = strlen(issuer), path_len;

	if (host == NULL || strchr(issuer, '?') != NULL) {
		return kt_err_set(err, KT_E_INVALID, "'%.200s' can't be an issuer: it must be a URL without a query",
				  issuer);
	}
	while (len > 0 && issuer[len - 1] == '/') {
		len--;
	}
	path = strchr(host + 3, '/');
	if (path == NULL || path > issuer + len) {
		path = issuer + len;
	}
	path_len = len - (size_t)(path - issuer);
	if (which == 0) {
		kt_buf_add(out, issuer, (size_t)(path - issuer));
		kt_buf_adds(out, "/.well-known/oauth-authorization-server");
		kt_buf_add(out, path, path_len);
	} else if (which == 1) {
		kt_buf_add(out, issuer, len);
		kt_buf_adds(out, "/.well-known/openid-configuration");
	} else {
		return kt_err_set(err, KT_E_NOTFOUND, "the issuer %.200s publishes no metadata", issuer);
	}
	return kt_buf_check(out, "a metadata URL", err);
}

void grant_endpoints_finish(struct grant_endpoints *endpoints)
{
	for (unsigned i = 0; i < GRANT_ENDPOINT_COUNT; i++) {
		kt_free(endpoints->plain[i]);
		kt_free(endpoints->mtls[i]);
		endpoints->plain[i] = endpoints->mtls[i] = NULL;
	}
	kt_free(endpoints->keys);
	endpoints->keys = NULL;
}

/* Where a client may send its secrets to: https, or the very origin that the manifest names. */
static bool acceptable(const char *endpoint, const char *issuer, struct kt_err *err)
{
	struct kt_url url;

	return kt_url_parse(endpoint, &url, err) == KT_OK && (url.https || kt_url_text_same_origin(endpoint, issuer));
}

/* An endpoint that nobody may be sent to is as good as none: its alias or nothing stands in for it. */
static enum kt_code take(const json_t *from, const char *name, const char *issuer, char **ret, struct kt_err *err)
{
	const char *endpoint = kt_json_str(from, name);

	if (endpoint != NULL && acceptable(endpoint, issuer, NULL) && (*ret = kt_strdup(endpoint)) == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for metadata");
	}
	return KT_OK;
}

/* Keys of another host than the issuer's are taken from there only where the manifest says so (spec.oauth2.jwksURL). */
static enum kt_code take_keys(const json_t *metadata, const char *issuer, char **ret, struct kt_err *err)
{
	const char *keys = kt_json_str(metadata, "jwks_uri");
	struct kt_url at, home;

	if (keys == NULL || !acceptable(keys, issuer, NULL) || kt_url_parse(keys, &at, NULL) != KT_OK ||
	    kt_url_parse(issuer, &home, NULL) != KT_OK || strcmp(at.host, home.host) != 0) {
		return KT_OK;
	}
	*ret = kt_strdup(keys);
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory for metadata");
}

static enum kt_code from_json(const json_t *metadata, const char *issuer, struct grant_endpoints *ret,
			      struct kt_err *err)
{
	static const char *const names[GRANT_ENDPOINT_COUNT] = {"token_endpoint", "revocation_endpoint",
								"introspection_endpoint"};
	const char *says = kt_json_str(metadata, "issuer"), *endpoint = kt_json_str(metadata, names[0]);
	const json_t *aliases = json_object_get(metadata, "mtls_endpoint_aliases");
	enum kt_code code = KT_OK;

	if (says == NULL || strcmp(says, issuer) != 0) {
		return kt_err_set(err, KT_E_PROTO, "the metadata says its issuer is '%.200s', not '%.200s'",
				  says != NULL ? says : "", issuer);
	}
	if (!acceptable(endpoint, issuer, err)) {
		return kt_err_set(err, KT_E_PROTO, "the metadata of '%.200s' has no https token_endpoint: '%.200s'",
				  issuer, endpoint != NULL ? endpoint : "");
	}
	for (unsigned i = 0; i < GRANT_ENDPOINT_COUNT && code == KT_OK; i++) {
		code = take(metadata, names[i], issuer, &ret->plain[i], err);
		if (code == KT_OK) {
			code = take(aliases, names[i], issuer, &ret->mtls[i], err);
		}
	}
	return code == KT_OK ? take_keys(metadata, issuer, &ret->keys, err) : code;
}

enum kt_code grant_metadata_parse(const struct kt_http_reply *reply, const char *issuer, struct grant_endpoints *ret,
				  struct kt_err *err)
{
	KT_AUTOJSON json_t *metadata = NULL;

	memset(ret, 0, sizeof(*ret));
	if (reply->status == 429 || reply->status >= 500) {
		(void)kt_err_set(err, KT_E_LATER, "the metadata of '%.200s' can't be read now: HTTP %ld", issuer,
				 reply->status);
		err->retry_after_s = reply->retry_after;
		grant_is_broken(reply->status, err);
		return KT_E_LATER;
	}
	if (reply->status != 200) {
		return kt_err_set(err, KT_E_NOTFOUND, "the issuer '%.200s' publishes no metadata: HTTP %ld", issuer,
				  reply->status);
	}
	if (!kt_http_is_type(reply, "json")) {
		const char *type = reply->headers[KT_HTTP_CONTENT_TYPE];

		return kt_err_set(err, KT_E_NOTFOUND, "the issuer '%.200s' answered with '%.60s' instead of metadata",
				  issuer, type != NULL ? type : "");
	}
	if (kt_http_json(reply, &metadata, err) != KT_OK) {
		return kt_err_prefix(err, "the metadata of '%.200s'", issuer);
	}
	return from_json(metadata, issuer, ret, err);
}
