/* Comparisons as the readers make them, and what is known of a token and a certificate. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "kt/text.h"

static const char *without_scheme(const char *text)
{
	return kt_starts_with(text, "https://") ? text + 8 : kt_starts_with(text, "http://") ? text + 7 : text;
}

static size_t without_slashes(const char *text)
{
	size_t len = strlen(text);

	while (len > 0 && text[len - 1] == '/') {
		len--;
	}
	return len;
}

bool kt_align_loosely(const char *a, const char *b)
{
	size_t len;

	if (a == NULL || b == NULL) {
		return false;
	}
	a = without_scheme(a);
	b = without_scheme(b);
	len = without_slashes(a);
	return len > 0 && len == without_slashes(b) && strncasecmp(a, b, len) == 0;
}

static size_t envoy_len(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && text[len - 1] == '/' ? len - 1 : len;
}

bool kt_align_envoy_audience(const char *a, const char *b)
{
	size_t len;

	a = without_scheme(a);
	b = without_scheme(b);
	len = envoy_len(a);
	return len == envoy_len(b) && memcmp(a, b, len) == 0;
}

enum kt_tri kt_align_pattern(const char *pattern, const char *value, bool open)
{
	size_t len = strlen(pattern);
	size_t known = strlen(value);

	if (strcmp(pattern, "*") == 0) {
		return known > 0 || open ? KT_YES : KT_NO;
	}
	if (len > 0 && pattern[len - 1] == '*') {
		if (known >= len - 1) {
			return strncmp(value, pattern, len - 1) == 0 ? KT_YES : KT_NO;
		}
		return open && strncmp(value, pattern, known) == 0 ? KT_MAYBE : KT_NO;
	}
	if (len > 0 && pattern[0] == '*') {
		return open ? KT_MAYBE : kt_ends_with(value, pattern + 1) ? KT_YES : KT_NO;
	}
	if (open) {
		return strncmp(value, pattern, known) == 0 ? KT_MAYBE : KT_NO;
	}
	return strcmp(value, pattern) == 0 ? KT_YES : KT_NO;
}

static const char *host_of(const char *url, size_t *ret_len)
{
	const char *host = strstr(url, "://");

	host = host != NULL ? host + 3 : url;
	*ret_len = strcspn(host, "/?#");
	return host;
}

bool kt_align_same_host(const char *a, const char *b)
{
	size_t x, y;
	const char *p = host_of(a, &x);
	const char *q = host_of(b, &y);

	return x == y && strncasecmp(p, q, x) == 0;
}

bool kt_align_same_path(const char *a, const char *b)
{
	size_t x, y;
	const char *p = host_of(a, &x);
	const char *q = host_of(b, &y);

	return strcmp(p + x, q + y) == 0;
}

const char *kt_align_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* --- tokens ---------------------------------------- */

bool kt_align_is_local(const struct kt_align_token *token)
{
	return token->issuer != NULL && token->issuer->token_issuer.local != NULL;
}

bool kt_align_is_opaque(const struct kt_align_token *token)
{
	return token->issuer != NULL && token->issuer->token_issuer.oauth2 != NULL &&
	       token->issuer->token_issuer.oauth2->profile == KT_PROFILE_ANYPOINT;
}

static void set_one(struct kt_values *v, const char *text)
{
	v->known = text != NULL;
	v->present = text != NULL;
	v->count = text != NULL ? 1 : 0;
	v->items[0] = text;
}

static bool audiences_known(const struct kt_align_token *token)
{
	return kt_align_is_local(token) || token->resource->token.audiences.count > 0;
}

/* What the embedded issuer writes itself; false: none of these. */
static bool local_claim(const struct kt_align_token *token, const char *name, struct kt_values *v)
{
	static const char *const others[] = {"exp", "iat", "jti", NULL};
	const struct kt_token_claims *claims = &token->resource->token.claims;

	for (int i = 0; others[i] != NULL; i++) {
		if (strcmp(name, others[i]) == 0) {
			*v = (struct kt_values){.known = false, .present = true};
			return true;
		}
	}
	v->known = true; /* everything that is in it is known */
	if (strcmp(name, "client_id") == 0) {
		set_one(v, claims->client_id != NULL ? claims->client_id : token->sub);
		return true;
	}
	if (strcmp(name, "scope") == 0) {
		v->present = token->scope != NULL;
		v->count = token->scope != NULL ? 1 : 0;
		v->items[0] = token->scope;
		return true;
	}
	if (kt_pairs_get(&claims->extra, name) != NULL) {
		set_one(v, kt_pairs_get(&claims->extra, name));
		return true;
	}
	return false;
}

void kt_align_claim(const struct kt_align_token *token, const char *name, struct kt_values *ret)
{
	const struct kt_strings *audiences = &token->resource->token.audiences;

	*ret = (struct kt_values){.count = 0};
	if (strcmp(name, "iss") == 0) {
		set_one(ret, token->iss);
	} else if (strcmp(name, "sub") == 0) {
		set_one(ret, token->sub);
	} else if (strcmp(name, "aud") == 0 && audiences_known(token)) {
		ret->known = true;
		ret->present = audiences->count > 0;
		for (uint32_t i = 0; i < audiences->count && ret->count < KT_VALUES_MAX; i++) {
			ret->items[ret->count++] = audiences->items[i];
		}
	} else if (kt_align_is_local(token)) {
		(void)local_claim(token, name, ret);
	}
}

enum kt_tri kt_align_jwks(const struct kt_align_token *token, const char *url)
{
	const struct kt_token_issuer_spec *spec = token->issuer != NULL ? &token->issuer->token_issuer : NULL;

	if (spec == NULL || token->jwks == NULL) {
		return KT_MAYBE;
	}
	if (strcmp(url, token->jwks) == 0) {
		return KT_YES;
	}
	if (spec->local != NULL) {
		/* The same path on another name is a listener behind something; a volume may be served anywhere. */
		return kt_align_same_path(url, token->jwks) ||
				       (spec->local->publish_jwks.volume != NULL && kt_ends_with(url, "/jwks.json"))
			       ? KT_MAYBE
			       : KT_NO;
	}
	return KT_NO;
}

/* --- certificates ---------------------------------------- */

const char *kt_align_spiffe(const struct kt_resource *certificate)
{
	const struct kt_strings *uris = certificate != NULL ? &certificate->certificate.uris : NULL;

	for (uint32_t i = 0; uris != NULL && i < uris->count; i++) {
		if (kt_starts_with(uris->items[i], "spiffe://")) {
			return uris->items[i] + 9;
		}
	}
	return NULL;
}

bool kt_align_client_usage(const struct kt_resource *certificate)
{
	uint32_t usages = certificate->certificate.usages;
	uint32_t extended = usages & ~(uint32_t)(KT_CERT_ANY - 1);

	return extended == 0 || (extended & (KT_CERT_ANY | KT_CERT_CLIENT_AUTH)) != 0;
}
