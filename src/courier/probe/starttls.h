/* What is said in the clear before a TLS handshake on ports that begin without it: SMTP, IMAP, LDAP, PostgreSQL. */
#ifndef KT_COURIER_PROBE_STARTTLS_H
#define KT_COURIER_PROBE_STARTTLS_H

#include "kt/buf.h"
#include "kt/err.h"

/* Opaque: one conversation. It opens no socket: bytes go in, what is to be said comes out. */
struct kt_starttls_talk;

/* name: "smtp" (RFC 3207), "imap" (RFC 9051), "ldap" (RFC 4511 section 4.14) or "postgres". KT_E_INVALID: another. */
enum kt_code kt_starttls_create(struct kt_view name, struct kt_starttls_talk **ret, struct kt_err *err);
void kt_starttls_destroy(struct kt_starttls_talk *talk); /* NULL is accepted */

/* What the client says first; empty where the server speaks first. */
struct kt_view kt_starttls_hello(const struct kt_starttls_talk *talk);

/*
 * Takes what the server sent. KT_OK with *ret_ready: the handshake begins now; else *ret_say is what to send (empty:
 * wait for more). KT_E_PROTO: no such server, or it has no TLS, or it said more than it was asked: bytes behind its
 * agreement are never taken into the session (CVE-2011-0411). KT_E_NET: it has no time. KT_E_LIMIT: it doesn't come to
 * an end. After an error the talk is over.
 */
enum kt_code kt_starttls_feed(struct kt_starttls_talk *talk, struct kt_view bytes, struct kt_view *ret_say,
			      bool *ret_ready, struct kt_err *err);

#endif
