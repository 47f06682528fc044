/* The one HTTP client: https, no redirects, no cookies, no proxies, every size and time bounded. */
#ifndef KT_COURIER_HTTP_H
#define KT_COURIER_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "courier/resolve.h"
#include "kt/buf.h"
#include "kt/err.h"
#include "kt/json.h"
#include "kt/loop.h"
#include "kt/secret.h"

/*
 * A walk through a request. kt_http_send judges the URL, finds (or makes) the trust set the request belongs to,
 * has the host looked up, and then hands an easy handle with pinned addresses to the trust set's multi handle.
 * Connections are therefore reused per origin, but never across trust sets: what one issuer's CA vouches for says
 * nothing about another's. 30 s after the last request connections go, and 10 minutes after it the trust set itself.
 * A client certificate makes a trust set of its own: a connection that has shown one is never used by requests that
 * show another or none, and goes with its certificate when that is replaced.
 */
#define KT_HTTP_CONNECT_TIMEOUT (5 * KT_SECOND)
#define KT_HTTP_TIMEOUT         (10 * KT_SECOND) /* the longest a request may take, look-up included */
#define KT_HTTP_BODY_MAX        (256u * 1024u)
#define KT_HTTP_HEADERS_MAX     100u          /* lines */
#define KT_HTTP_HEADER_BYTES    (32u * 1024u) /* all of them together */
#define KT_HTTP_CALLS_MAX       256u

struct kt_http;
struct kt_http_call;

/* The response headers that somebody here reads. */
enum kt_http_header {
	KT_HTTP_CONTENT_TYPE,
	KT_HTTP_LOCATION,
	KT_HTTP_REPLAY_NONCE,
	KT_HTTP_RETRY_AFTER,
	KT_HTTP_DATE,
	KT_HTTP_LINK, /* all of them, with ", " between */
	KT_HTTP_DPOP_NONCE,      /* DPoP-Nonce (RFC 9449) */
	KT_HTTP_RATE_RESET,      /* X-RateLimit-Reset */
	KT_HTTP_RATE_RESET_OKTA, /* X-Rate-Limit-Reset */
	KT_HTTP_HEADER_COUNT
};

/* What to send. Everything is copied before kt_http_send returns. */
struct kt_http_request {
	const char *method; /* "GET", "HEAD", "POST", ... */
	const char *url;
	/* The URL in the manifest that led here: on its origin, and there only, loopback and link-local hosts and
	 * (loopback) plain http are allowed. NULL: never. */
	const char *named;
	struct kt_view ca_bundle; /* PEM, or base64 of PEM; empty: the system's */
	bool insecure;            /* the manifest asks not to verify the server */
	bool http2;               /* HTTP/2 where the server has it: many requests on one connection */
	const char *accept;       /* NULL: none */
	const char *content_type; /* NULL: none */
	struct kt_view body;
	const char *header_name; /* one more header, which may hold a secret; NULL: none */
	const char *header_prefix;
	struct kt_view header_value;
	const char *extra_name; /* and one beside it; NULL: none */
	struct kt_view extra_value;
	/* "aws:amz:<region>:<service>": signed as AWS wants it (Signature Version 4) by this key; NULL: not. The query of
	 * the URL must be sorted. */
	const char *sigv4;
	const char *sigv4_id;
	struct kt_view sigv4_secret; /* followed by a NUL */
	/* Certificate (PEM, leaf first) and key (PKCS#8 DER) that the connection shows; NULL: it shows none. The key is
	 * forgotten when the handshake is over. */
	struct kt_view client_chain;
	const struct kt_secret *client_key;
	struct kt_view traceparent; /* empty: none */
	kt_ms timeout;              /* 0: KT_HTTP_TIMEOUT */
	size_t body_max;            /* of the answer; 0: KT_HTTP_BODY_MAX */
};

/* What came back, for the length of the callback. */
struct kt_http_reply {
	long status;
	struct kt_view body;
	const char *headers[KT_HTTP_HEADER_COUNT]; /* NULL when absent */
	int64_t retry_after; /* seconds, clamped to [1 s, 24 h], of Retry-After, else of a rate limit's reset, times
				reckoned from the server's Date; 0: not said */
	int64_t date_skew;   /* server's Date minus our clock, seconds; 0 when absent or nonsense */
};

/* err->code KT_OK and reply for any complete answer whatever its status; else what failed and reply NULL. */
typedef void kt_http_fn(const struct kt_err *err, const struct kt_http_reply *reply, void *arg);

enum kt_code kt_http_create(struct kt_loop *loop, struct kt_http **ret, struct kt_err *err);
/* Calls that are open end without their callback. */
void kt_http_destroy(struct kt_http *http);
struct kt_resolver *kt_http_resolver(struct kt_http *http);

/* fn is called once, from the loop, unless this fails or the call is cancelled. */
enum kt_code kt_http_send(struct kt_http *http, const struct kt_http_request *request, kt_http_fn *fn, void *arg,
			  struct kt_http_call **ret, struct kt_err *err);
void kt_http_cancel(struct kt_http_call *call); /* NULL accepted */

/* True when the media type of Content-Type is this one, or (for "json") application/json or application/<x>+json. */
bool kt_http_is_type(const struct kt_http_reply *reply, const char *type);
/* The body as JSON (kt_json_parse's limits); what is wrong with it is the peer's fault: KT_E_PROTO or KT_E_LIMIT. */
enum kt_code kt_http_json(const struct kt_http_reply *reply, json_t **ret, struct kt_err *err);

#endif
