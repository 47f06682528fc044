/* What the files of the HTTP client share: trust sets, calls, and how a call's easy handle is set up. */
#ifndef KT_COURIER_HTTP_INTERNAL_H
#define KT_COURIER_HTTP_INTERNAL_H

#include <curl/curl.h>
#include <openssl/types.h>

#include "courier/http.h"
#include "courier/url.h"
#include "kt/pki.h"

/* One set of trusted CAs with the connections that were made under it. */
struct http_trust {
	struct kt_http *http;
	struct http_trust *next;
	uint8_t hash[KT_SHA256_LEN];
	bool insecure;
	struct kt_trust *trust;  /* NULL when insecure, and in sets with a base */
	struct http_trust *base; /* of a set for one client certificate: whose CAs it trusts; alive as long as this */
	uint8_t shown[KT_SHA256_LEN]; /* of that certificate */
	CURLM *multi;           /* NULL between bursts */
	struct socket_watch *sockets; /* trust.c */
	struct kt_timer *timer; /* libcurl's */
	unsigned calls; /* and sets that have this one as their base */
	kt_ms used; /* monotonic: end of the last call */
};

struct kt_http {
	struct kt_loop *loop;
	struct kt_resolver *resolver;
	struct http_trust *trusts;
	struct kt_http_call *calls;
	unsigned call_count;
	struct kt_timer *idle;
};

struct kt_http_call {
	struct kt_http *http;
	struct kt_http_call *next;
	struct http_trust *trust;
	struct kt_chain *client_chain; /* NULL: none; see http_cert.c */
	struct kt_key *client_key;
	struct kt_url url;
	char *url_text;
	bool allow_local;
	kt_ms started, timeout;
	struct kt_lookup *lookup;
	CURL *easy;
	bool running; /* in the multi handle */
	struct curl_slist *headers, *pins;
	struct kt_buf body; /* of the request: wiped with it */
	bool has_body;
	char method[16];
	kt_http_fn *fn;
	void *arg;

	struct kt_buf answer;
	unsigned header_count;
	size_t header_bytes;
	char *found[KT_HTTP_HEADER_COUNT];
	int64_t content_length; /* -1: not said */
	bool chunked;
	struct kt_err broken;   /* why a callback ended the transfer */
	char curl_error[CURL_ERROR_SIZE];
};

/* trust.c */
enum kt_code http_trust_get(struct kt_http *http, struct kt_view ca_bundle, bool insecure, struct http_trust **ret,
			    struct kt_err *err);
/* The set for connections that show this certificate, under the CAs of base. */
enum kt_code http_trust_get_shown(struct http_trust *base, const uint8_t shown[KT_SHA256_LEN], struct http_trust **ret,
				  struct kt_err *err);
enum kt_code http_trust_multi(struct http_trust *trust, struct kt_err *err);
void http_trust_destroy(struct http_trust *trust);
/* Closes connections unused for a while and forgets trust sets unused for long; true when something is left to close.
 */
bool http_trust_tidy(struct kt_http *http);
/* Applied to each SSL_CTX that libcurl makes for a call (arg): our store, level 2, no renegotiation, a bound on depth,
 * the client certificate. */
CURLcode http_trust_apply(CURL *easy, void *ssl_ctx, void *arg);
/* Closes a socket of a set's (arg) for libcurl: as close(2). */
int http_trust_close_socket(void *arg, curl_socket_t fd);

/* http_cert.c */
/* Takes certificate and key of a request, and puts the call into the set that belongs to that certificate. */
enum kt_code http_cert_take(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err);
void http_cert_forget(struct kt_http_call *call);
/* Offers them to the handshake of the call's connection, and forgets them after it; false without memory. */
bool http_cert_apply(struct kt_http_call *call, SSL_CTX *ctx);

/* http_call.c */
enum kt_code http_call_prepare(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err);
enum kt_code http_call_pin(struct kt_http_call *call, const struct kt_addresses *addresses, struct kt_err *err);
void http_call_destroy(struct kt_http_call *call);
/* After a transfer that libcurl takes for whole: refuses an answer that may have been cut. */
void http_call_check(struct kt_http_call *call);
void http_call_reply(struct kt_http_call *call, struct kt_http_reply *ret);
/* Maps libcurl's verdict to ours. */
void http_call_error(struct kt_http_call *call, CURLcode result, struct kt_err *err);
/* http.c: takes the finished ones off a multi handle and tells their owners. */
void http_reap(struct http_trust *trust);

#endif
