/* DNS messages by ldns: questions and updates to wire, answers from strangers to few plain records. */
#include "courier/dns/packet.h"

#include <netinet/in.h>
#include <string.h>

#include "kt/mem.h"

#define HEADER 12u

/* --- names -------------------------------------------------------------------------------------------------------- */

enum kt_code dns_name(struct kt_view text, char *ret, struct kt_err *err)
{
	size_t label = 0, len = text.len;

	if (len > 0 && text.ptr[len - 1] == '.') {
		len--;
	}
	if (len >= DNS_NAME_SIZE - 2) {
		return kt_err_set(err, KT_E_INVALID, "a DNS name is longer than 253 characters");
	}
	for (size_t i = 0; i < len; i++) {
		char c = text.ptr[i];

		c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
		label = c == '.' ? 0 : label + 1;
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.') ||
		    label > 63 || (c == '.' && (i == 0 || i + 1 == len || text.ptr[i - 1] == '.'))) {
			return kt_err_set(err, KT_E_INVALID, "'%.*s' is no DNS name that can be asked for",
					  (int)(len < 253 ? len : 253), text.ptr);
		}
		ret[i] = c;
	}
	ret[len] = '\0';
	return KT_OK;
}

const char *dns_name_parent(const char *name)
{
	const char *dot = strchr(name, '.');

	return dot == NULL ? "" : dot + 1;
}

bool dns_name_within(const char *name, const char *zone)
{
	size_t len = strlen(name), tail = strlen(zone);

	if (tail == 0) {
		return true;
	}
	return len >= tail && strcmp(name + len - tail, zone) == 0 && (len == tail || name[len - tail - 1] == '.');
}

/* --- what goes out -------------------------------------------------------------------------------------------------- */

static enum kt_code out_of_memory(struct kt_err *err)
{
	return kt_err_set(err, KT_E_NOMEM, "out of memory for a DNS message");
}

static ldns_rdf *to_dname(const char *name)
{
	return ldns_dname_new_frm_str(name[0] == '\0' ? "." : name);
}

/* Takes pkt (NULL accepted). */
static enum kt_code to_wire(ldns_pkt *pkt, struct kt_buf *wire, struct kt_err *err)
{
	uint8_t *bytes = NULL;
	size_t len = 0;
	bool done = pkt != NULL && ldns_pkt2wire(&bytes, pkt, &len) == LDNS_STATUS_OK;

	ldns_pkt_free(pkt);
	if (done) {
		kt_buf_add(wire, bytes, len);
	}
	LDNS_FREE(bytes);
	return done ? kt_buf_check(wire, "a DNS message", err) : out_of_memory(err);
}

enum kt_code dns_packet_query(const char *name, ldns_rr_type type, bool recurse, bool edns, struct kt_buf *wire,
			      struct kt_err *err)
{
	ldns_rdf *owner = to_dname(name);
	ldns_pkt *pkt;

	if (owner == NULL) {
		return out_of_memory(err);
	}
	pkt = ldns_pkt_query_new(owner, type, LDNS_RR_CLASS_IN, recurse ? LDNS_RD : 0);
	if (pkt == NULL) {
		ldns_rdf_deep_free(owner);
		return out_of_memory(err);
	}
	ldns_pkt_set_id(pkt, 0);
	if (edns) {
		ldns_pkt_set_edns_udp_size(pkt, DNS_UDP_SIZE);
	}
	return to_wire(pkt, wire, err);
}

/* Character strings of at most 255 bytes each (RFC 1035 section 3.3). */
static bool push_text(ldns_rr *rr, struct kt_view value)
{
	uint8_t string[256];

	do {
		size_t len = value.len > 255 ? 255 : value.len;
		ldns_rdf *rdf;

		string[0] = (uint8_t)len;
		memcpy(string + 1, value.ptr, len);
		value.ptr += len;
		value.len -= len;
		rdf = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_STR, len + 1, string);
		if (rdf == NULL || !ldns_rr_push_rdf(rr, rdf)) {
			ldns_rdf_deep_free(rdf);
			return false;
		}
	} while (value.len > 0);
	return true;
}

/* Section 2.5.1: add with the class of the zone; 2.5.4: remove one with class NONE and TTL 0. */
static ldns_rr *update_record(const char *name, struct kt_view value, bool add, uint32_t ttl)
{
	ldns_rr *rr = ldns_rr_new();
	ldns_rdf *owner = to_dname(name);

	if (rr == NULL || owner == NULL) {
		ldns_rdf_deep_free(owner);
		ldns_rr_free(rr);
		return NULL;
	}
	ldns_rr_set_owner(rr, owner);
	ldns_rr_set_type(rr, LDNS_RR_TYPE_TXT);
	ldns_rr_set_class(rr, add ? LDNS_RR_CLASS_IN : LDNS_RR_CLASS_NONE);
	ldns_rr_set_ttl(rr, add ? ttl : 0);
	if (!push_text(rr, value)) {
		ldns_rr_free(rr);
		return NULL;
	}
	return rr;
}

enum kt_code dns_packet_update(const char *zone, const char *name, struct kt_view value, bool add, uint32_t ttl,
			       struct kt_buf *wire, struct kt_err *err)
{
	ldns_rdf *apex = to_dname(zone);
	ldns_pkt *pkt = apex == NULL ? NULL : ldns_pkt_query_new(apex, LDNS_RR_TYPE_SOA, LDNS_RR_CLASS_IN, 0);
	ldns_rr *rr;

	if (pkt == NULL) {
		ldns_rdf_deep_free(apex);
		return out_of_memory(err);
	}
	ldns_pkt_set_opcode(pkt, LDNS_PACKET_UPDATE);
	ldns_pkt_set_id(pkt, 0);
	rr = update_record(name, value, add, ttl);
	if (rr == NULL || !ldns_pkt_push_rr(pkt, LDNS_SECTION_AUTHORITY, rr)) {
		ldns_rr_free(rr);
		ldns_pkt_free(pkt);
		return out_of_memory(err);
	}
	return to_wire(pkt, wire, err);
}

void dns_packet_set_id(struct kt_buf *wire, uint16_t id)
{
	if (wire->failed == KT_OK && wire->len >= 2) {
		wire->ptr[0] = (char)(id >> 8);
		wire->ptr[1] = (char)(id & 0xff);
	}
}

/* --- what comes back ------------------------------------------------------------------------------------------------ */

static unsigned byte_at(struct kt_view wire, size_t at)
{
	return (unsigned char)wire.ptr[at];
}

size_t dns_wire_skip_name(struct kt_view wire, size_t at)
{
	while (at < wire.len) {
		unsigned len = byte_at(wire, at);

		if (len == 0) {
			return at + 1;
		}
		if (len >= 0xc0) {
			return at + 2 <= wire.len ? at + 2 : 0;
		}
		if (len > 63) {
			return 0;
		}
		at += len + 1;
	}
	return 0;
}

/* The question of a message with exactly one and an uncompressed name; empty else. */
static struct kt_view question_of(struct kt_view wire)
{
	struct kt_view none = {NULL, 0};
	size_t at = HEADER;

	if (wire.len < HEADER || byte_at(wire, 4) != 0 || byte_at(wire, 5) != 1) {
		return none;
	}
	while (at < wire.len && byte_at(wire, at) != 0) {
		if (byte_at(wire, at) > 63) {
			return none;
		}
		at += byte_at(wire, at) + 1;
	}
	at += 5;
	return at <= wire.len ? (struct kt_view){wire.ptr + HEADER, at - HEADER} : none;
}

static bool same_question(struct kt_view a, struct kt_view b)
{
	if (a.len == 0 || a.len != b.len) {
		return false;
	}
	for (size_t i = 0; i < a.len; i++) {
		unsigned x = byte_at(a, i), y = byte_at(b, i);

		x = i + 4 < a.len && x >= 'A' && x <= 'Z' ? x + 32 : x;
		y = i + 4 < a.len && y >= 'A' && y <= 'Z' ? y + 32 : y;
		if (x != y) {
			return false;
		}
	}
	return true;
}

bool dns_packet_answers(struct kt_view got, struct kt_view asked)
{
	bool update;

	if (got.len < HEADER || asked.len < HEADER || memcmp(got.ptr, asked.ptr, 2) != 0 ||
	    (byte_at(got, 2) & 0x80) == 0 || ((byte_at(got, 2) ^ byte_at(asked, 2)) & 0x78) != 0) {
		return false;
	}
	update = (byte_at(asked, 2) & 0x78) == (LDNS_PACKET_UPDATE << 3);
	if (byte_at(got, 4) == 0 && byte_at(got, 5) == 0) {
		return update || (byte_at(got, 3) & 0x0f) != LDNS_RCODE_NOERROR;
	}
	return same_question(question_of(got), question_of(asked));
}

/* A name in a record; false for one that nobody here could use. */
static bool take_name(const ldns_rdf *rdf, char *ret)
{
	char *text;
	bool good;

	if (rdf == NULL || ldns_rdf_get_type(rdf) != LDNS_RDF_TYPE_DNAME) {
		return false;
	}
	text = ldns_rdf2str(rdf);
	good = text != NULL && dns_name(kt_view_str(text), ret, NULL) == KT_OK;
	LDNS_FREE(text);
	return good;
}

static bool take_address(const ldns_rdf *rdf, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	if (rdf != NULL && ldns_rdf_get_type(rdf) == LDNS_RDF_TYPE_A && ldns_rdf_size(rdf) == 4) {
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_addr, ldns_rdf_data(rdf), 4);
		return true;
	}
	if (rdf != NULL && ldns_rdf_get_type(rdf) == LDNS_RDF_TYPE_AAAA && ldns_rdf_size(rdf) == 16) {
		v6->sin6_family = AF_INET6;
		memcpy(&v6->sin6_addr, ldns_rdf_data(rdf), 16);
		return true;
	}
	return false;
}

static bool take_text(const ldns_rr *rr, struct dns_record *ret)
{
	struct kt_buf text;

	kt_buf_init(&text, DNS_MESSAGE_MAX);
	kt_buf_adds(&text, "");
	for (size_t i = 0; i < ldns_rr_rd_count(rr); i++) {
		const ldns_rdf *rdf = ldns_rr_rdf(rr, i);
		const uint8_t *data = ldns_rdf_data(rdf);
		size_t size = ldns_rdf_size(rdf);

		if (size > 1 && (size_t)data[0] + 1 <= size) {
			kt_buf_add(&text, data + 1, data[0]);
		}
	}
	ret->text = kt_buf_steal(&text, &ret->text_len);
	kt_buf_finish(&text);
	return ret->text != NULL;
}

/* False: a record that nobody reads. */
static bool take_record(const ldns_rr *rr, struct dns_record *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->type = ldns_rr_get_type(rr);
	ret->ttl = ldns_rr_ttl(rr);
	if (ldns_rr_get_class(rr) != LDNS_RR_CLASS_IN || !take_name(ldns_rr_owner(rr), ret->owner)) {
		return false;
	}
	switch (ret->type) {
	case LDNS_RR_TYPE_A:
	case LDNS_RR_TYPE_AAAA:
		return take_address(ldns_rr_rdf(rr, 0), &ret->address);
	case LDNS_RR_TYPE_NS:
	case LDNS_RR_TYPE_CNAME:
		return take_name(ldns_rr_rdf(rr, 0), ret->target);
	case LDNS_RR_TYPE_SOA:
		if (ldns_rr_rd_count(rr) < 7) {
			return false;
		}
		ret->serial = ldns_rdf2native_int32(ldns_rr_rdf(rr, 2));
		ret->minimum = ldns_rdf2native_int32(ldns_rr_rdf(rr, 6));
		return true;
	case LDNS_RR_TYPE_TXT:
		return take_text(rr, ret);
	default:
		return false;
	}
}

static enum kt_code take_section(const ldns_pkt *pkt, ldns_pkt_section section, struct dns_answer *ret,
				 struct kt_err *err)
{
	const ldns_rr_list *list = section == LDNS_SECTION_ANSWER      ? ldns_pkt_answer(pkt)
				   : section == LDNS_SECTION_AUTHORITY ? ldns_pkt_authority(pkt)
								       : ldns_pkt_additional(pkt);

	for (size_t i = 0; i < ldns_rr_list_rr_count(list); i++) {
		if (ret->count >= DNS_RECORDS_MAX) {
			return kt_err_set(err, KT_E_LIMIT, "a DNS answer has more than %u records", DNS_RECORDS_MAX);
		}
		if (take_record(ldns_rr_list_rr(list, i), &ret->records[ret->count])) {
			ret->records[ret->count++].section = section;
		}
	}
	return KT_OK;
}

static size_t records_in(struct kt_view wire)
{
	size_t count = 0;

	for (size_t at = 6; at < HEADER; at += 2) {
		count += byte_at(wire, at) << 8 | byte_at(wire, at + 1);
	}
	return count < DNS_RECORDS_MAX ? count : DNS_RECORDS_MAX;
}

enum kt_code dns_packet_read(struct kt_view wire, struct dns_answer *ret, struct kt_err *err)
{
	ldns_pkt *pkt = NULL;
	enum kt_code code = KT_OK;
	size_t count;

	memset(ret, 0, sizeof(*ret));
	if (wire.len > DNS_MESSAGE_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "a DNS answer is larger than %u bytes", DNS_MESSAGE_MAX);
	}
	if (wire.len < HEADER || ldns_wire2pkt(&pkt, (const uint8_t *)wire.ptr, wire.len) != LDNS_STATUS_OK) {
		return kt_err_set(err, KT_E_PROTO, "a DNS answer can't be read");
	}
	ret->rcode = ldns_pkt_get_rcode(pkt);
	ret->aa = ldns_pkt_aa(pkt);
	ret->tc = ldns_pkt_tc(pkt);
	ret->ra = ldns_pkt_ra(pkt);
	count = records_in(wire);
	if (count > 0) {
		ret->records = kt_calloc(count, sizeof(*ret->records));
		code = ret->records == NULL ? out_of_memory(err) : KT_OK;
	}
	for (int section = LDNS_SECTION_ANSWER; code == KT_OK && section <= LDNS_SECTION_ADDITIONAL; section++) {
		code = take_section(pkt, (ldns_pkt_section)section, ret, err);
	}
	ldns_pkt_free(pkt);
	if (code != KT_OK) {
		dns_answer_finish(ret);
	}
	return code;
}

void dns_answer_finish(struct dns_answer *answer)
{
	for (unsigned i = 0; i < answer->count; i++) {
		kt_free(answer->records[i].text);
	}
	kt_free(answer->records);
	memset(answer, 0, sizeof(*answer));
}

const struct dns_record *dns_answer_find(const struct dns_answer *answer, ldns_pkt_section section, ldns_rr_type type,
					 const char *owner, const struct dns_record *after)
{
	unsigned i = after == NULL ? 0 : (unsigned)(after - answer->records) + 1;

	for (; i < answer->count; i++) {
		const struct dns_record *at = &answer->records[i];

		if (at->section == section && at->type == type && (owner == NULL || strcmp(at->owner, owner) == 0)) {
			return at;
		}
	}
	return NULL;
}

const char *dns_rcode_name(unsigned rcode)
{
	static const char *const names[] = {"NOERROR", "FORMERR",  "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
					    "YXDOMAIN", "YXRRSET", "NXRRSET",  "NOTAUTH",  "NOTZONE"};

	return rcode < sizeof(names) / sizeof(names[0]) ? names[rcode] : "an unknown failure";
}
