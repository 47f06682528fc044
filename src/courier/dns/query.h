/* One question or update to one name server, without ever blocking: UDP with repeats, TCP where UDP is too small. */
#ifndef KT_COURIER_DNS_QUERY_H
#define KT_COURIER_DNS_QUERY_H

#include "courier/dns/packet.h"
#include "courier/dns/tsig.h"
#include "kt/loop.h"

struct dns_server {
	struct sockaddr_storage at;
	char text[72]; /* "192.0.2.1", "[2001:db8::1]:5353": the port where it is not 53 */
};

/* address with this port; text is made. */
void dns_server_set(struct dns_server *server, const struct sockaddr_storage *address, uint16_t port);
uint16_t dns_server_port(const struct dns_server *server);
bool dns_server_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

/* What to send: an update when zone is set, a question else. Borrowed for the length of dns_ask, tsig until the end. */
struct dns_ask {
	const struct dns_server *server;
	const char *name;
	ldns_rr_type type;
	bool recurse;
	bool tcp;       /* no UDP at all */
	unsigned tries; /* by UDP; 0: three */
	const struct dns_tsig *tsig; /* NULL: unsigned */
	const char *zone; /* update: add or remove value as TXT of name */
	struct kt_view value;
	bool add;
	uint32_t ttl;
};

/* What is known of the answer's signature, for who asked with one. */
struct dns_verdict {
	unsigned error; /* TSIG error field */
	int64_t skew;   /* seconds that the server's clock is ahead, with BADTIME */
};

struct dns_query;
/*
 * err->code KT_OK and an answer (borrowed; whatever its rcode), else KT_E_TIMEOUT, KT_E_NET, KT_E_PROTO, KT_E_LIMIT with a
 * text that names the server. An answer to a signed message is signed as well or tells of a failure.
 */
typedef void dns_answer_fn(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
			   void *arg);

/* fn is called once, from the loop, unless this fails (no memory, bad name) or the query is cancelled. */
enum kt_code dns_ask(struct kt_loop *loop, const struct dns_ask *ask, dns_answer_fn *fn, void *arg,
		     struct dns_query **ret, struct kt_err *err);
void dns_cancel(struct dns_query *query); /* NULL accepted */

#endif
