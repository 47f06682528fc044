/* URLs: libcurl's own parser (so that what is judged is what is fetched) under stricter rules. */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <string.h>

#include "courier/url.h"
#include "kt/mem.h"
#include "kt/msg.h"
#include "kt/text.h"

enum kt_code kt_courier_curl(struct kt_err *err)
{
	static bool loaded;

	if (!loaded) {
		if (curl_global_init_mem(CURL_GLOBAL_SSL, kt_malloc, kt_free, kt_realloc, kt_strdup, kt_calloc) !=
		    CURLE_OK) {
			return kt_err_set(err, KT_E_NOMEM, "libcurl can't be loaded");
		}
		loaded = true;
	}
	return KT_OK;
}

static enum kt_reach reach_of_v4(uint32_t host_order)
{
	if (host_order >> 24 == 127) {
		return KT_REACH_LOOPBACK;
	}
	if (host_order >> 16 == 0xa9fe) {
		return KT_REACH_LINK;
	}
	if (host_order >> 24 == 0 || host_order >> 28 >= 0xe) {
		return KT_REACH_NONE;
	}
	return KT_REACH_ANY;
}

static enum kt_reach reach_of_v6(const struct in6_addr *addr)
{
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
	uint32_t last;

	memcpy(&last, addr->s6_addr + 12, sizeof(last));
	if (IN6_IS_ADDR_LOOPBACK(addr)) {
		return KT_REACH_LOOPBACK;
	}
	if (IN6_IS_ADDR_LINKLOCAL(addr)) {
		return KT_REACH_LINK;
	}
	if (IN6_IS_ADDR_UNSPECIFIED(addr) || IN6_IS_ADDR_MULTICAST(addr)) {
		return KT_REACH_NONE;
	}
	if (IN6_IS_ADDR_V4MAPPED(addr) || IN6_IS_ADDR_V4COMPAT(addr) || memcmp(addr->s6_addr, nat64, 12) == 0) {
		return reach_of_v4(ntohl(last));
	}
	return KT_REACH_ANY;
}

enum kt_reach kt_reach_of_address(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, address, sizeof(in));
		return reach_of_v4(ntohl(in.sin_addr.s_addr));
	}
	if (address->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, address, sizeof(in6));
		return reach_of_v6(&in6.sin6_addr);
	}
	return KT_REACH_NONE;
}

enum kt_reach kt_reach_of_name(const char *host, bool *ret_numeric)
{
	struct in_addr v4;
	struct in6_addr v6;

	*ret_numeric = true;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		return reach_of_v4(ntohl(v4.s_addr));
	}
	if (inet_pton(AF_INET6, host, &v6) == 1) {
		return reach_of_v6(&v6);
	}
	*ret_numeric = false;
	if (strcmp(host, "localhost") == 0 || kt_ends_with(host, ".localhost")) {
		return KT_REACH_LOOPBACK;
	}
	return KT_REACH_ANY;
}

/* Copies a host without brackets and without a trailing dot, in lower case. */
static bool copy_host(struct kt_view from, char host[256])
{
	if (from.len >= 2 && from.ptr[0] == '[' && from.ptr[from.len - 1] == ']') {
		from.ptr++;
		from.len -= 2;
	}
	if (from.len > 1 && from.ptr[from.len - 1] == '.') {
		from.len--;
	}
	if (from.len == 0 || from.len > 253) {
		return false;
	}
	for (size_t i = 0; i < from.len; i++) {
		char c = from.ptr[i];

		host[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
		if (host[i] == '\0' || strchr("abcdefghijklmnopqrstuvwxyz0123456789.-_:", host[i]) == NULL) {
			return false;
		}
	}
	host[from.len] = '\0';
	return true;
}

static bool plain_text(const char *text)
{
	size_t len = strnlen(text, KT_URL_MAX + 1);

	if (len == 0 || len > KT_URL_MAX) {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] >= 0x7f || text[i] == '\\' || text[i] == '"' || text[i] == '<' ||
		    text[i] == '>') {
			return false;
		}
	}
	return true;
}

static bool part(CURLU *url, CURLUPart what, unsigned flags, char **ret)
{
	return curl_url_get(url, what, ret, flags) == CURLUE_OK;
}

static const char *fill(CURLU *url, const char *text, struct kt_url *ret)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *unwanted = NULL;
	const char *why = NULL, *slashes = strstr(text, "://");
	uint64_t number = 0;

	/* libcurl forgives a slash too few or too many. */
	if (slashes == NULL || slashes[3] == '/' ||
	    curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
	    !part(url, CURLUPART_SCHEME, 0, &scheme) || !part(url, CURLUPART_HOST, 0, &host)) {
		why = "is not an absolute URL";
	} else if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0) {
		why = "must be https";
	} else if (part(url, CURLUPART_USER, 0, &unwanted) || part(url, CURLUPART_PASSWORD, 0, &unwanted) ||
		   part(url, CURLUPART_ZONEID, 0, &unwanted)) {
		why = "must not hold a user, a password or a zone";
	} else if (strchr(text, '#') != NULL) {
		why = "must not have a fragment";
	} else if (!part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT, &port) ||
		   kt_parse_u64(kt_view_str(port), 65535, &number, NULL) != KT_OK || number == 0) {
		why = "has no usable port";
	} else if (host[strlen(host) - 1] == '.') {
		/* libcurl would look for an address under the name with its dot, not under the one that is judged and pinned. */
		why = "must not have a host that ends with a dot";
	} else if (!copy_host(kt_view_str(host), ret->host)) {
		why = "has no usable host";
	} else {
		ret->https = strcmp(scheme, "https") == 0;
		ret->port = (uint16_t)number;
		ret->reach = kt_reach_of_name(ret->host, &ret->numeric);
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(unwanted);
	return why;
}

enum kt_code kt_url_parse(const char *text, struct kt_url *ret, struct kt_err *err)
{
	const char *why = "holds characters that a URL can't have, or is empty or too long";
	const char *mark = text != NULL ? strstr(text, ":/") : NULL;
	CURLU *url;

	memset(ret, 0, sizeof(*ret));
	if (text == NULL) {
		return kt_err_set(err, KT_E_INVALID, "a URL is missing");
	}
	if (mark != NULL && (mark[2] != '/' || mark[3] == '/')) {
		why = "has no // behind its scheme, or more of them"; /* libcurl would mend it; others read it otherwise */
	} else if (plain_text(text)) {
		if (kt_courier_curl(err) != KT_OK) {
			return KT_E_NOMEM;
		}
		url = curl_url();
		if (url == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "out of memory for a URL");
		}
		why = fill(url, text, ret);
		curl_url_cleanup(url);
	}
	return why == NULL ? KT_OK : kt_err_set(err, KT_E_INVALID, "the URL '%.200s' %s", text, why);
}

bool kt_url_same_origin(const struct kt_url *a, const struct kt_url *b)
{
	return a->https == b->https && a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Length of scheme and authority where these hold nothing but plain characters, else 0. */
static size_t plain_origin(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789.-:[]";
	size_t scheme = kt_starts_with(text, "https://") ? 8 : kt_starts_with(text, "http://") ? 7 : 0;
	size_t len = scheme == 0 ? 0 : strspn(text + scheme, plain);

	return len > 0 && text[scheme + len] == '/' ? scheme + len : 0;
}

bool kt_url_text_same_origin(const char *a, const char *b)
{
	struct kt_url first, second;
	size_t len = plain_origin(a);

	if (len > 0 && len == plain_origin(b) && memcmp(a, b, len) == 0) { /* as it nearly always is */
		return true;
	}
	return kt_url_parse(a, &first, NULL) == KT_OK && kt_url_parse(b, &second, NULL) == KT_OK &&
	       kt_url_same_origin(&first, &second);
}

enum kt_code kt_url_split_address(struct kt_view text, char host[256], uint16_t *port, struct kt_err *err)
{
	size_t colon = text.len;
	uint64_t number = 0;
	struct kt_view name, digits;

	while (colon > 0 && text.ptr[colon - 1] != ':') {
		colon--;
	}
	if (colon > 1) {
		name = (struct kt_view){text.ptr, colon - 1};
		digits = (struct kt_view){text.ptr + colon, text.len - colon};
		if ((name.ptr[0] == '[' || memchr(name.ptr, ':', name.len) == NULL) && copy_host(name, host) &&
		    kt_parse_u64(digits, 65535, &number, NULL) == KT_OK && number > 0) {
			*port = (uint16_t)number;
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID, "'%.*s' is not an address: write host:port or [::1]:port",
			  (int)(text.len > 200 ? 200 : text.len), text.len > 0 ? text.ptr : "");
}
