/* Who answers which request, and the headers that every answer has. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/text.h"

enum { CONTENT_TOO_LARGE = 413 }; /* libmicrohttpd renamed its own constant between versions */

/* --- answers ----------------------------------------------------------------------------------------------------- */

struct MHD_Response *kt_desk_response(const char *type, struct kt_view body, uint32_t max_age)
{
	struct MHD_Response *response =
	        MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.ptr, MHD_RESPMEM_MUST_COPY);
	char cache[48] = "no-store";

	if (!response)
		return NULL;
	if (max_age)
		snprintf(cache, sizeof(cache), "public, max-age=%u", max_age);
	if (MHD_add_response_header(response, "Content-Type", type) != MHD_YES ||
	    MHD_add_response_header(response, "Cache-Control", cache) != MHD_YES ||
	    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") != MHD_YES) {
		MHD_destroy_response(response);
		return NULL;
	}
	return response;
}

struct MHD_Response *kt_desk_response_text(const char *text)
{
	return kt_desk_response("text/plain; charset=utf-8", kt_view_str(text), 0);
}

/* Sends a response made for this request alone. */
static enum MHD_Result send_once(struct kt_desk_conn *conn, unsigned status, struct MHD_Response *response)
{
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	result = MHD_queue_response(conn->mhd, status, response);
	MHD_destroy_response(response);
	return result;
}

static bool serves(const struct kt_desk_listener *listener, enum kt_desk_kind kind)
{
	return (kt_desk_http_kinds(listener) & KT_DESK_BIT(kind)) != 0;
}

static bool serves_pages(const struct kt_desk_listener *listener)
{
	return serves(listener, KT_DESK_METRICS) || serves(listener, KT_DESK_PROBES);
}

static const char *allowed_methods(const struct kt_desk_listener *listener)
{
	if (serves(listener, KT_DESK_TOKENS))
		return "GET, HEAD, POST";
	if (!serves(listener, KT_DESK_CONTROL))
		return "GET, HEAD";
	return kt_desk_http_kinds(listener) == KT_DESK_BIT(KT_DESK_CONTROL) ? "POST" : "GET, HEAD, POST";
}

/* What is wrong with the request itself: the connection ends after this answer. */
static enum MHD_Result refuse(struct kt_desk_conn *conn, unsigned status, const char *text)
{
	struct MHD_Response *response = kt_desk_response_text(text);

	if (response &&
	    (MHD_add_response_header(response, "Connection", "close") != MHD_YES ||
	     (status == MHD_HTTP_METHOD_NOT_ALLOWED &&
	      MHD_add_response_header(response, "Allow", allowed_methods(conn->listener)) != MHD_YES))) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	return send_once(conn, status, response);
}

/* --- questions --------------------------------------------------------------------------------------------------- */

static bool has_body(struct MHD_Connection *mhd)
{
	const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Content-Length");

	return (length && strcmp(length, "0") != 0) ||
	       MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Transfer-Encoding");
}

static bool is_address(const char *text, size_t len)
{
	unsigned char binary[16];
	char copy[INET6_ADDRSTRLEN + 1];

	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	return inet_pton(AF_INET, copy, binary) == 1 || inet_pton(AF_INET6, copy, binary) == 1;
}

/*
 * True for "localhost", "*.localhost" and addresses, with or without a port. A page on the web can make its own name
 * point to 127.0.0.1 and so read what a loopback listener shows (DNS rebinding); the name in Host gives it away.
 */
static bool is_local_host(const char *host)
{
	static const char localhost[] = "localhost";
	const size_t n = sizeof(localhost) - 1;
	const char *colon, *bracket;
	size_t len;

	if (!host)
		return true; /* HTTP/1.0: not a browser */
	colon = strrchr(host, ':');
	bracket = strrchr(host, ']');
	len = colon && (!bracket || colon > bracket) ? (size_t)(colon - host) : strlen(host);
	if (is_address(host, len))
		return true;
	if (len < n || !kt_ascii_ieq((struct kt_view){host + len - n, n}, (struct kt_view){localhost, n}))
		return false;
	return len == n || host[len - n - 1] == '.';
}

static enum MHD_Result route_metrics(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	bool page = strcmp(path, "/") == 0;
	/* A kubelet asks at an address that everybody in the cluster may reach: names of credentials are not for all of them. */
	bool named = page || strcmp(path, "/status.json") == 0;

	if (named && !serves(conn->listener, KT_DESK_METRICS))
		return send_once(conn, MHD_HTTP_NOT_FOUND, kt_desk_response_text("not found\n"));
	if (named && kt_desk_http_local(conn->listener) &&
	    !is_local_host(MHD_lookup_connection_value(conn->mhd, MHD_HEADER_KIND, "Host")))
		return refuse(conn, MHD_HTTP_MISDIRECTED_REQUEST,
		              "this listener is on loopback: ask for it as localhost or by its address\n");
	if (page)
		return send_once(conn, MHD_HTTP_OK, kt_desk_status_page());
	return kt_desk_pages_answer(desk->pages, conn, path);
}

/* A query makes it another resource, which is not there. */
static enum MHD_Result route_served(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	static const enum kt_desk_kind kinds[] = {KT_DESK_ACME, KT_DESK_JWKS};
	struct kt_desk_entry entry;
	bool asks = MHD_get_connection_values(conn->mhd, MHD_GET_ARGUMENT_KIND, NULL, NULL) != 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !asks; i++)
		if (serves(conn->listener, kinds[i]) && kt_desk_served_find(desk->served, kinds[i], path, &entry))
			return send_once(conn, MHD_HTTP_OK, kt_desk_response(entry.type, entry.body, entry.max_age));
	return send_once(conn, MHD_HTTP_NOT_FOUND, kt_desk_response_text("not found\n"));
}

enum MHD_Result kt_desk_route_check(struct kt_desk_conn *conn, const char *method, const char *path)
{
	const unsigned kinds = kt_desk_http_kinds(conn->listener);
	const unsigned control = KT_DESK_BIT(KT_DESK_CONTROL);
	const unsigned posts = control | KT_DESK_BIT(KT_DESK_TOKENS);
	bool reads = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;

	conn->post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
	if (kinds == control && !conn->post)
		return refuse(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "only POST\n");
	if (!reads && !(conn->post && (kinds & posts)))
		return refuse(conn, MHD_HTTP_METHOD_NOT_ALLOWED,
		              kinds & KT_DESK_BIT(KT_DESK_TOKENS) ? "only GET, HEAD and POST\n" : "only GET and HEAD\n");
	if (has_body(conn->mhd))
		return refuse(conn, CONTENT_TOO_LARGE, "a request has no body here\n");
	if (strnlen(path, KT_DESK_PATH_MAX + 1) > KT_DESK_PATH_MAX)
		return refuse(conn, MHD_HTTP_URI_TOO_LONG, "the path is too long\n");
	return MHD_YES;
}

enum MHD_Result kt_desk_route(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	if (serves(conn->listener, KT_DESK_TOKENS))
		return kt_desk_tokens_answer(desk, conn, path);
	if (conn->post)
		return kt_desk_control_answer(desk, conn, path);
	if (serves_pages(conn->listener) && (strcmp(path, "/") == 0 || kt_desk_pages_has(path)))
		return route_metrics(desk, conn, path);
	return route_served(desk, conn, path);
}
