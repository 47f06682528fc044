/* DNS messages: questions and updates to wire, answers from strangers to few plain records. */
#ifndef KT_COURIER_DNS_PACKET_H
#define KT_COURIER_DNS_PACKET_H

#include <ldns/ldns.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "kt/buf.h"
#include "kt/err.h"

#define DNS_NAME_SIZE   256u /* a name as text, without the last dot, and a NUL */
#define DNS_MESSAGE_MAX 16384u
#define DNS_RECORDS_MAX 128u /* kept of a message */
#define DNS_UDP_SIZE    1232u

/* A record of a type that somebody here reads; owner and target are lower case and of [a-z0-9_-.] only. */
struct dns_record {
	char owner[DNS_NAME_SIZE];
	ldns_rr_type type; /* A, AAAA, CNAME, NS, SOA, TXT */
	ldns_pkt_section section;
	uint32_t ttl;
	char target[DNS_NAME_SIZE];      /* CNAME, NS */
	struct sockaddr_storage address; /* A, AAAA; port 0 */
	uint32_t serial, minimum;        /* SOA */
	char *text;                      /* TXT: the strings put together, may hold anything; NUL-terminated */
	size_t text_len;
};

struct dns_answer {
	unsigned rcode;
	bool aa, tc, ra;
	unsigned count;
	struct dns_record *records;
};

/*
 * A name as people and messages write it into text of at least DNS_NAME_SIZE: lower case, no last dot, labels of at most
 * 63 of [a-z0-9_-]; "" and "." are the root. KT_E_INVALID.
 */
enum kt_code dns_name(struct kt_view text, char *ret, struct kt_err *err);
/* The name without its first label; "" when there was one only. */
const char *dns_name_parent(const char *name);
/* name is zone or below it. */
bool dns_name_within(const char *name, const char *zone);

/* A question with id 0; edns: with an OPT record that offers DNS_UDP_SIZE. */
enum kt_code dns_packet_query(const char *name, ldns_rr_type type, bool recurse, bool edns, struct kt_buf *wire,
			      struct kt_err *err);
/* An update (RFC 2136) with id 0 that adds or removes exactly this TXT record. */
enum kt_code dns_packet_update(const char *zone, const char *name, struct kt_view value, bool add, uint32_t ttl,
			       struct kt_buf *wire, struct kt_err *err);
void dns_packet_set_id(struct kt_buf *wire, uint16_t id);
/*
 * Whether got can be an answer to asked (both whole messages): id, direction, operation, and the question, which may be
 * missing in failures and in answers to an update.
 */
bool dns_packet_answers(struct kt_view got, struct kt_view asked);
/* Fills ret (dns_answer_finish it) from at most DNS_MESSAGE_MAX bytes. KT_E_PROTO, KT_E_LIMIT. */
enum kt_code dns_packet_read(struct kt_view wire, struct dns_answer *ret, struct kt_err *err);
void dns_answer_finish(struct dns_answer *answer);
/* The next record of a type (of any owner where owner is NULL) in a section, after `after` (NULL: the first). */
const struct dns_record *dns_answer_find(const struct dns_answer *answer, ldns_pkt_section section, ldns_rr_type type,
					 const char *owner, const struct dns_record *after);
/* "REFUSED" and the like. */
const char *dns_rcode_name(unsigned rcode);

/* The place after the name at `at` (a pointer ends a name); 0 when there is none. */
size_t dns_wire_skip_name(struct kt_view wire, size_t at);

#endif
