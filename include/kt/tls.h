/* The server half of a TLS handshake that proves control of a name (RFC 8737), without OpenSSL's types and without sockets. */
#ifndef KT_TLS_H
#define KT_TLS_H

#include <stdbool.h>

#include "kt/buf.h"
#include "kt/err.h"
#include "kt/secret.h"

/*
 * The program is not linked with OpenSSL for this: kt_tls_load opens the libraries, so a room that never answers such a
 * handshake does not pay for them. It has to be called before the walls of the room close.
 */

#define KT_TLS_ALPN_ACME "acme-tls/1"
#define KT_TLS_INPUT_MAX (16u * 1024u) /* bytes that one handshake may take in */

/* Opens libssl and libcrypto and puts kt_malloc & co behind them. Idempotent. KT_E_UNSUPPORTED when they are missing. */
enum kt_code kt_tls_load(struct kt_err *err);

/* What is shown for one server name. Borrowed for the call. */
struct kt_tls_identity {
	struct kt_view certificate;  /* one certificate, DER */
	const struct kt_secret *key; /* PKCS#8 DER */
};

/* KT_E_CRYPTO when one of them can't be read or they don't belong together; needs kt_tls_load. */
enum kt_code kt_tls_check(const struct kt_tls_identity *identity, struct kt_err *err);

/* What all handshakes share. */
struct kt_tls_server;

/* name: NUL-terminated, as the client wrote it, without a NUL inside. False: not served. */
typedef bool kt_tls_find_fn(const char *name, struct kt_tls_identity *ret, void *arg);

/*
 * TLS 1.2 and 1.3. A handshake goes through only when the client offers "acme-tls/1" and nothing else, and a server name
 * that `find` knows; the rest is refused with an alert, before any key is used. No tickets, no resumption, no early
 * data, no renegotiation.
 */
enum kt_code kt_tls_server_create(kt_tls_find_fn *find, void *arg, struct kt_tls_server **ret, struct kt_err *err);
void kt_tls_server_destroy(struct kt_tls_server *server); /* after its handshakes; NULL accepted */

/* One handshake. */
struct kt_tls_handshake;

enum kt_tls_step {
	KT_TLS_MORE,    /* send `out`, then wait for more */
	KT_TLS_DONE,    /* it went through: send `out` (close_notify is in it), then close */
	KT_TLS_REFUSED, /* send `out` (an alert, or nothing), then close; err says why */
};

enum kt_code kt_tls_handshake_create(struct kt_tls_server *server, struct kt_tls_handshake **ret, struct kt_err *err);
/* Takes what the client sent, adds to out what it must get. Not to be called again after DONE or REFUSED. */
enum kt_tls_step kt_tls_handshake_feed(struct kt_tls_handshake *handshake, struct kt_view in, struct kt_buf *out,
                                       struct kt_err *err);
void kt_tls_handshake_destroy(struct kt_tls_handshake *handshake); /* NULL accepted */

#endif
