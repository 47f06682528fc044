/*
 * The desk: what strangers may ask for over HTTP, and handshakes that prove a name, within limits. Nothing here makes a
 * connection, or holds a key but those that are made for one challenge.
 */
#ifndef KT_DESK_DESK_H
#define KT_DESK_DESK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <microhttpd.h>
#include <sys/socket.h>

#include "kt/err.h"
#include "kt/loop.h"
#include "kt/msg.h"
#include "kt/room.h"
#include "kt/tls.h"
#include "kt/wire.h"

/*
 * A request's way: http.c accepts it (libmicrohttpd on the room's loop, one daemon a listener) and keeps the limits;
 * route.c decides who answers: page.c (the status page), pages.c (what the keeper says, fetched when somebody asks)
 * or served.c (paths that the keeper put there before: http-01 answers, JWKS). What local processes ask at the listener
 * "tokens" is passed on by tokens.c with who they are, what AWS SDKs ask at "aws" with their token. A handshake's way: alpn.c accepts it and
 * keeps its limits, pki's kt_tls_handshake speaks TLS, and served.c has the certificate for the server name.
 */

/* What a listener may serve; their names in SETUP are kt_desk_kind_names. Those that speak HTTP may share one. */
enum kt_desk_kind {
	KT_DESK_METRICS = 0,
	KT_DESK_ACME,
	KT_DESK_JWKS,
	KT_DESK_PROBES,
	KT_DESK_CONTROL,
	KT_DESK_TOKENS,               /* alone */
	KT_DESK_AWS,                  /* alone */
	KT_DESK_KINDS,                /* of HTTP */
	KT_DESK_ALPN = KT_DESK_KINDS, /* TLS, and alone */
};
extern const char *const kt_desk_kind_names[KT_DESK_KINDS + 1];
/* Several kinds at once. */
#define KT_DESK_BIT(kind) (1u << (kind))

/* Limits on strangers. */
enum {
	KT_DESK_CONNECTIONS_MAX = 384,      /* of the room; one more, and the longest-waiting one is dropped */
	KT_DESK_CONNECTIONS_HARD = 512,     /* never above, while dropped ones are still being closed */
	KT_DESK_PER_ADDRESS = 160,          /* of an IPv4 address or an IPv6 /64: a CA looks at every name of an order at once */
	KT_DESK_PER_USER = 32,              /* of a local user at the listener "tokens" */
	KT_DESK_GROUPS_MAX = 1024,          /* of such a user, that are looked at */
	KT_DESK_HEADERS_MAX = 16 * 1024,    /* bytes of request line and headers, and of what answers them */
	KT_DESK_PATH_MAX = 512,             /* bytes */
	KT_DESK_REQUEST_MS = 10000,         /* from accept, or the answer before, to the end of the answer */
	KT_DESK_SERVED_MAX = 10000,         /* paths */
	KT_DESK_SERVED_BYTES = 16 << 20,    /* of all of them */
	KT_DESK_SERVED_STALE_MS = 600000,   /* what a keeper that is gone left behind stays this long */
	KT_DESK_PAGE_FRESH_MS = 1000,       /* a page of the keeper is given to everybody who asks this soon */
	KT_DESK_PAGE_DEADLINE_MS = 5000,    /* for the keeper to produce it */
	KT_DESK_ALPN_CONNECTIONS = 384,     /* of all tls-alpn-01 listeners together */
	KT_DESK_ALPN_PER_ADDRESS = 160,     /* a CA that validates many names of an order at once; two such leave room for others */
	KT_DESK_ALPN_HANDSHAKES = 64,       /* at once; other connections wait until one has ended */
	KT_DESK_ALPN_SHARE = 32,            /* of them, that one address may have */
	KT_DESK_ALPN_CROWDED_MS = 1000,     /* while others wait, a handshake gets so long; else KT_DESK_REQUEST_MS */
	KT_DESK_PROXY_MAX = 1024,           /* bytes of a PROXY header */
};

struct kt_desk;
struct kt_desk_listener;

/* --- address.c -------------------------------------------------------------------------------------------------- */

/* Whom limits are kept for: family and IPv4 address or IPv6 /64. All zero when that is not known (a local socket). */
enum { KT_DESK_ADDRESS = 9 };

void kt_desk_address(const struct sockaddr *addr, uint8_t ret[KT_DESK_ADDRESS]);
/* The same for a local user. */
void kt_desk_address_user(uint32_t uid, uint8_t ret[KT_DESK_ADDRESS]);
/* False for addresses that are not known: everybody behind a proxy would count as one. */
bool kt_desk_address_same(const uint8_t a[KT_DESK_ADDRESS], const uint8_t b[KT_DESK_ADDRESS]);

enum kt_desk_proxy { KT_DESK_PROXY_NONE, KT_DESK_PROXY_MORE, KT_DESK_PROXY_BAD, KT_DESK_PROXY_FOUND };

/* Is there a PROXY header (version 1 or 2) at the start of `in`? FOUND: its length, and the source where it names one. */
enum kt_desk_proxy kt_desk_proxy_read(struct kt_view in, size_t *ret_len, uint8_t ret[KT_DESK_ADDRESS]);

/* One connection; made and freed by http.c. */
struct kt_desk_conn {
	struct MHD_Connection *mhd;
	struct kt_desk_listener *listener;
	struct kt_desk *desk; /* ask.c: whose, while it waits */
	struct kt_desk_conn *prev, *next; /* by age of the request, oldest first */
	struct kt_desk_conn *waiting;     /* next one that waits for the same page, or for the keeper */
	kt_ms since;                      /* when this request's time began */
	uint8_t address[KT_DESK_ADDRESS];
	bool resumed;                     /* the page that it waited for is there */
	bool post;                        /* the request's method */
	unsigned command_status;          /* control.c: the keeper's answer to its command */
	struct kt_desk_given *given;      /* tokens.c: the keeper's answer; NULL: none */
};

/* --- http.c ----------------------------------------------------------------------------------------------------- */

struct kt_desk_http;

enum kt_code kt_desk_http_create(struct kt_desk *desk, struct kt_desk_http **ret, struct kt_err *err);
/* Adds a listening socket (takes fd on success). libmicrohttpd is started at the first connection. kinds: KT_DESK_BITs. */
enum kt_code kt_desk_http_listen(struct kt_desk_http *http, unsigned kinds, int fd, struct kt_err *err);
/* No connection may be suspended: kt_desk_pages_finish first. Listening sockets are closed, not shut down, because the
 * warden keeps them for the next desk. */
void kt_desk_http_destroy(struct kt_desk_http *http);
/* A connection of this listener was resumed. */
void kt_desk_http_wake(struct kt_desk_listener *listener);
unsigned kt_desk_http_connections(const struct kt_desk_http *http);
unsigned kt_desk_http_kinds(const struct kt_desk_listener *listener);
/* Bound to a loopback address or a local socket. */
bool kt_desk_http_local(const struct kt_desk_listener *listener);
int kt_desk_http_fd(const struct kt_desk_conn *conn); /* borrowed; -1: none */

/* --- route.c ---------------------------------------------------------------------------------------------------- */

/* Refuses what no listener takes (methods, bodies, long paths); MHD_YES without an answer when all is well. */
enum MHD_Result kt_desk_route_check(struct kt_desk_conn *conn, const char *method, const char *path);
/* Answers, or suspends, one request. MHD_NO closes the connection. */
enum MHD_Result kt_desk_route(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path);
/* A response with the headers that all have; the body is copied. max_age in seconds, 0: no-store. NULL: no memory. */
struct MHD_Response *kt_desk_response(const char *type, struct kt_view body, uint32_t max_age);
struct MHD_Response *kt_desk_response_text(const char *text);

/* --- page.c ----------------------------------------------------------------------------------------------------- */

/* The status page (data/status.html) with a policy that allows its own script and style only. The caller owns it. */
struct MHD_Response *kt_desk_status_page(void);

/* --- pages.c ---------------------------------------------------------------------------------------------------- */

struct kt_desk_pages;

enum kt_code kt_desk_pages_create(struct kt_desk *desk, struct kt_desk_pages **ret, struct kt_err *err);
bool kt_desk_pages_has(const char *path);
/* Answers from what is fresh, or suspends until the keeper has spoken. */
enum MHD_Result kt_desk_pages_answer(struct kt_desk_pages *pages, struct kt_desk_conn *conn, const char *path);
/* Wakes everybody who waits, and asks no more. */
void kt_desk_pages_finish(struct kt_desk_pages *pages);
void kt_desk_pages_destroy(struct kt_desk_pages *pages);

/* --- ask.c ------------------------------------------------------------------------------------------------------ */

/* Asks the keeper and suspends the connection until fn (with the connection as arg) or kt_desk_ask_finish; false: it can't be asked. */
bool kt_desk_ask(struct kt_desk *desk, struct kt_desk_conn *conn, enum kt_msg_type type, const void *msg, kt_wire_reply_fn *fn);
/* fn begins so: false when the connection waits no more. Then it takes the answer, and resumes. */
bool kt_desk_asked(struct kt_desk_conn *conn);
void kt_desk_resume(struct kt_desk_conn *conn);
/* Resumes everybody who waits, without an answer, and asks no more. */
void kt_desk_ask_finish(struct kt_desk *desk);

/* --- control.c -------------------------------------------------------------------------------------------------- */

/* Hands a POST and its bearer token to the keeper, who decides. May suspend. */
enum MHD_Result kt_desk_control_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path);

/* --- tokens.c --------------------------------------------------------------------------------------------------- */

struct kt_desk_given;

/* Asks the keeper for a token, or says that one was refused, in the name of who is at the other end. May suspend. */
enum MHD_Result kt_desk_tokens_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path);
/* The same for what AWS SDKs ask at the listener "aws". */
enum MHD_Result kt_desk_aws_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path);
void kt_desk_given_destroy(struct kt_desk_given *given);

/* --- served.c --------------------------------------------------------------------------------------------------- */

struct kt_desk_served;

struct kt_desk_entry {
	const char *type;
	struct kt_view body;
	uint32_t max_age;
	const struct kt_secret *key; /* KT_DESK_ALPN only */
};

enum kt_code kt_desk_served_create(struct kt_loop *loop, struct kt_desk_served **ret, struct kt_err *err);
void kt_desk_served_destroy(struct kt_desk_served *served);
/* Stores, replaces or (empty content_type) removes. KT_E_INVALID for a path that clients would spell differently, or
 * that the listener does not serve; KT_E_LIMIT. */
enum kt_code kt_desk_served_put(struct kt_desk_served *served, const struct kt_msg_serve *msg, struct kt_err *err);
/* The same for tls-alpn-01: certificate and key for a server name. They must fit together: KT_E_CRYPTO. */
enum kt_code kt_desk_served_put_alpn(struct kt_desk_served *served, const struct kt_msg_serve_alpn *msg, struct kt_err *err);
/* The entry of exactly this path (of KT_DESK_ALPN: this name, in lower case); valid until the next put. */
bool kt_desk_served_find(const struct kt_desk_served *served, enum kt_desk_kind kind, const char *path,
                         struct kt_desk_entry *ret);
/* Another keeper speaks from now on: what it does not repeat goes after KT_DESK_SERVED_STALE_MS. */
void kt_desk_served_new_keeper(struct kt_desk_served *served);
size_t kt_desk_served_count(const struct kt_desk_served *served);

/* --- alpn.c ----------------------------------------------------------------------------------------------------- */

struct kt_desk_alpn;

enum kt_code kt_desk_alpn_create(struct kt_desk *desk, struct kt_desk_alpn **ret, struct kt_err *err);
/* Adds a listening socket (takes fd on success) and loads OpenSSL, which has to be before the walls close. */
enum kt_code kt_desk_alpn_listen(struct kt_desk_alpn *alpn, int fd, struct kt_err *err);
bool kt_desk_alpn_listens(const struct kt_desk_alpn *alpn);
unsigned kt_desk_alpn_connections(const struct kt_desk_alpn *alpn);
unsigned kt_desk_alpn_handshakes(const struct kt_desk_alpn *alpn);
void kt_desk_alpn_destroy(struct kt_desk_alpn *alpn);

/* --- desk.c ----------------------------------------------------------------------------------------------------- */

struct kt_desk {
	struct kt_loop *loop;
	struct kt_wire *keeper;
	struct kt_desk_http *http;
	struct kt_desk_pages *pages;
	struct kt_desk_served *served;
	struct kt_desk_alpn *alpn;
	struct kt_desk_conn *asking; /* ask.c: those that wait for the keeper, by `waiting` */
	bool ending;
	void (*starved)(void *arg); /* asked for a fresh process; may be NULL */
	void *starved_arg;
	kt_ms request_ms; /* KT_DESK_REQUEST_MS; tests are less patient */
};

enum kt_code kt_desk_create(struct kt_loop *loop, struct kt_desk **ret, struct kt_err *err);
/* Takes the listeners that `lines` names ("name address\n" or "name+name address\n", in the order of fds); taken fds are
 * set to -1. */
enum kt_code kt_desk_listen(struct kt_desk *desk, struct kt_view lines, int *fds, unsigned fd_count,
                            struct kt_err *err);
/*
 * After work for OpenSSL; failures: kt_mem_failures() before it. What memory was missing for when it was needed for the
 * first time OpenSSL takes for unsupported from then on, so only a fresh process answers handshakes again.
 */
void kt_desk_check_memory(struct kt_desk *desk, uint64_t failures);
/* The wire to a (new) keeper; takes fd. */
enum kt_code kt_desk_attach(struct kt_desk *desk, int fd, struct kt_err *err);
void kt_desk_destroy(struct kt_desk *desk);

extern const struct kt_room_ops kt_desk_ops;

#endif
