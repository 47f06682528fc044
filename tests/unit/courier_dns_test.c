/* dns-01 without a network: names, messages, hostile answers, signatures against ldns's own, XML, resolv.conf. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"

static struct kt_view view(const void *data, size_t len)
{
	return (struct kt_view){data, len};
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static void names(void **state)
{
	char name[DNS_NAME_SIZE], longest[255];

	(void)state;
	assert_int_equal(dns_name(kt_view_str("_ACME-Challenge.Example.ORG."), name, NULL), KT_OK);
	assert_string_equal(name, "_acme-challenge.example.org");
	assert_int_equal(dns_name(kt_view_str("."), name, NULL), KT_OK);
	assert_string_equal(name, "");
	assert_int_equal(dns_name(kt_view_str("a..b"), name, NULL), KT_E_INVALID);
	assert_int_equal(dns_name(kt_view_str("a.."), name, NULL), KT_E_INVALID);
	assert_int_equal(dns_name(kt_view_str(".a"), name, NULL), KT_E_INVALID);
	assert_int_equal(dns_name(kt_view_str("a b"), name, NULL), KT_E_INVALID);
	assert_int_equal(dns_name(kt_view_str("a\\046b"), name, NULL), KT_E_INVALID);
	assert_int_equal(dns_name(kt_view_str("*.example"), name, NULL), KT_E_INVALID);
	memset(longest, 'a', sizeof(longest));
	assert_int_equal(dns_name(view(longest, 64), name, NULL), KT_E_INVALID);
	for (size_t i = 63; i < sizeof(longest); i += 64) {
		longest[i] = '.';
	}
	assert_int_equal(dns_name(view(longest, 253), name, NULL), KT_OK);
	assert_int_equal(dns_name(view(longest, 254), name, NULL), KT_E_INVALID);
	assert_true(dns_name_within("a.example", "example"));
	assert_true(dns_name_within("example", "example"));
	assert_true(dns_name_within("example", ""));
	assert_false(dns_name_within("badexample", "example"));
	assert_string_equal(dns_name_parent("a.b"), "b");
	assert_string_equal(dns_name_parent("b"), "");
}

/* --- messages ----------------------------------------------------------------------------------------------------- */

static void query(struct kt_buf *wire)
{
	kt_buf_init(wire, DNS_MESSAGE_MAX);
	assert_int_equal(dns_packet_query("_acme-challenge.example.org", LDNS_RR_TYPE_TXT, true, true, wire, NULL), KT_OK);
	dns_packet_set_id(wire, 0x1234);
}

/* An answer with records in master-file form to the question of asked. */
static void answer(struct kt_view asked, const char *const *records, struct kt_buf *wire)
{
	ldns_pkt *pkt;
	uint8_t *bytes;
	size_t len;

	assert_int_equal(ldns_wire2pkt(&pkt, (const uint8_t *)asked.ptr, asked.len), LDNS_STATUS_OK);
	ldns_pkt_set_qr(pkt, true);
	ldns_pkt_set_aa(pkt, true);
	for (; *records != NULL; records++) {
		ldns_rr *rr;

		assert_int_equal(ldns_rr_new_frm_str(&rr, *records, 60, NULL, NULL), LDNS_STATUS_OK);
		ldns_pkt_push_rr(pkt, ldns_rr_get_type(rr) == LDNS_RR_TYPE_SOA ? LDNS_SECTION_AUTHORITY : LDNS_SECTION_ANSWER, rr);
	}
	assert_int_equal(ldns_pkt2wire(&bytes, pkt, &len), LDNS_STATUS_OK);
	kt_buf_init(wire, 65536);
	kt_buf_add(wire, bytes, len);
	LDNS_FREE(bytes);
	ldns_pkt_free(pkt);
}

static void answers_are_read(void **state)
{
	static const char *const records[] = {
		"_acme-challenge.example.org. 30 IN CNAME X.Deleg.Example.",
		"x.deleg.example. 20 IN TXT \"one\" \"two\"",
		"x.deleg.example. 20 IN TXT \"three\"",
		"x.deleg.example. 20 IN A 192.0.2.1",
		"x.deleg.example. 20 IN AAAA 2001:db8::1",
		"b\\.ad.example. 20 IN TXT \"of nobody\"",
		"deleg.example. 300 IN SOA ns1.deleg.example. h.deleg.example. 7 1 2 3 43",
		NULL};
	KT_AUTOBUF struct kt_buf asked, got;
	const struct dns_record *at;
	struct dns_answer read;
	char text[64];

	(void)state;
	query(&asked);
	answer(kt_buf_view(&asked), records, &got);
	assert_true(dns_packet_answers(kt_buf_view(&got), kt_buf_view(&asked)));
	assert_int_equal(dns_packet_read(kt_buf_view(&got), &read, NULL), KT_OK);
	assert_true(read.aa);
	assert_int_equal(read.count, 6);
	at = dns_answer_find(&read, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_CNAME, "_acme-challenge.example.org", NULL);
	assert_non_null(at);
	assert_string_equal(at->target, "x.deleg.example");
	at = dns_answer_find(&read, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_TXT, "x.deleg.example", NULL);
	assert_non_null(at);
	assert_string_equal(at->text, "onetwo");
	at = dns_answer_find(&read, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_TXT, "x.deleg.example", at);
	assert_non_null(at);
	assert_string_equal(at->text, "three");
	assert_null(dns_answer_find(&read, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_TXT, "x.deleg.example", at));
	at = dns_answer_find(&read, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_SOA, NULL, NULL);
	assert_non_null(at);
	assert_int_equal(at->serial, 7);
	assert_int_equal(at->minimum, 43);
	at = dns_answer_find(&read, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_AAAA, NULL, NULL);
	assert_non_null(at);
	assert_non_null(inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&at->address)->sin6_addr, text, sizeof(text)));
	assert_string_equal(text, "2001:db8::1");
	dns_answer_finish(&read);
}

static void only_our_answer_is_taken(void **state)
{
	static const char *const none[] = {NULL};
	KT_AUTOBUF struct kt_buf asked, got;
	struct kt_view q, g;

	(void)state;
	query(&asked);
	answer(kt_buf_view(&asked), none, &got);
	q = kt_buf_view(&asked);
	g = kt_buf_view(&got);
	assert_true(dns_packet_answers(g, q));
	got.ptr[1] ^= 1; /* another id */
	assert_false(dns_packet_answers(g, q));
	got.ptr[1] ^= 1;
	got.ptr[2] ^= (char)0x80; /* a question */
	assert_false(dns_packet_answers(g, q));
	got.ptr[2] ^= (char)0x80;
	got.ptr[2] ^= 0x28; /* another operation */
	assert_false(dns_packet_answers(g, q));
	got.ptr[2] ^= 0x28;
	got.ptr[13] = 'x'; /* another name */
	assert_false(dns_packet_answers(g, q));
	got.ptr[13] = '_';
	assert_true(dns_packet_answers(g, q));
	got.ptr[14] = 'A'; /* the same in another case */
	assert_true(dns_packet_answers(g, q));
	assert_false(dns_packet_answers(view(g.ptr, 11), q));
	assert_false(dns_packet_answers(view(g.ptr, 30), q));
	got.ptr[5] = 0; /* no question: fine for a failure only */
	assert_false(dns_packet_answers(view(g.ptr, 12), q));
	got.ptr[3] |= LDNS_RCODE_FORMERR;
	assert_true(dns_packet_answers(view(g.ptr, 12), q));
}

/* Every cut of a good answer, pointers that go round or ahead, counts that lie, records in masses. */
static void hostile_answers(void **state)
{
	static const char *const records[] = {"_acme-challenge.example.org. 30 IN TXT \"v\"", NULL};
	/* One question whose name points at itself; one that points at a pointer at it; one that points ahead. */
	static const uint8_t self[] = {0, 1, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 16, 0, 1};
	static const uint8_t pair[] = {0, 1, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0xc0, 14, 0xc0, 12, 0, 16, 0, 1};
	static const uint8_t ahead[] = {0, 1, 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 255, 0, 16, 0, 1};
	KT_AUTOBUF struct kt_buf asked, got, many;
	struct dns_answer read;
	struct kt_err err;

	(void)state;
	query(&asked);
	answer(kt_buf_view(&asked), records, &got);
	for (size_t len = 0; len < got.len; len++) {
		KT_AUTOFREE char *exact = kt_malloc(len + 1);

		memcpy(exact, got.ptr, len);
		(void)dns_packet_answers(view(exact, len), kt_buf_view(&asked));
		assert_int_equal(dns_packet_read(view(exact, len), &read, &err), KT_E_PROTO);
	}
	assert_int_equal(dns_packet_read(view(self, sizeof(self)), &read, &err), KT_E_PROTO);
	assert_int_equal(dns_packet_read(view(pair, sizeof(pair)), &read, &err), KT_E_PROTO);
	assert_int_equal(dns_packet_read(view(ahead, sizeof(ahead)), &read, &err), KT_E_PROTO);
	kt_buf_init(&many, 1u << 20);
	kt_buf_add(&many, "\0\1\x84\0\0\1\x03\xe8\0\0\0\0\1a\0\0\x10\0\1", 19);
	for (unsigned i = 0; i < 1000; i++) {
		kt_buf_add(&many, "\xc0\x0c\0\x10\0\1\0\0\0\1\0\2\1v", 14);
	}
	assert_int_equal(dns_packet_read(kt_buf_view(&many), &read, &err), KT_E_LIMIT);
	many.ptr[6] = 0, many.ptr[7] = 100;
	many.len = 19 + 14 * 100;
	assert_int_equal(dns_packet_read(kt_buf_view(&many), &read, &err), KT_OK);
	assert_int_equal(read.count, 100);
	dns_answer_finish(&read);
	kt_buf_finish(&many);
	kt_buf_init(&many, 1u << 20);
	assert_non_null(kt_buf_extend(&many, DNS_MESSAGE_MAX + 1));
	assert_int_equal(dns_packet_read(kt_buf_view(&many), &read, &err), KT_E_LIMIT);
}

static void updates(void **state)
{
	char value[301];
	KT_AUTOBUF struct kt_buf wire;
	ldns_pkt *pkt;
	const ldns_rr *rr;

	(void)state;
	memset(value, 'v', 300);
	value[300] = '\0';
	kt_buf_init(&wire, DNS_MESSAGE_MAX);
	assert_int_equal(dns_packet_update("example.org", "a.example.org", kt_view_str(value), false, 60, &wire, NULL), KT_OK);
	assert_int_equal(ldns_wire2pkt(&pkt, (const uint8_t *)wire.ptr, wire.len), LDNS_STATUS_OK);
	assert_int_equal(ldns_pkt_get_opcode(pkt), LDNS_PACKET_UPDATE);
	assert_int_equal(ldns_pkt_nscount(pkt), 1);
	rr = ldns_rr_list_rr(ldns_pkt_authority(pkt), 0);
	assert_int_equal(ldns_rr_get_class(rr), LDNS_RR_CLASS_NONE); /* exactly this record, not all of them */
	assert_int_equal(ldns_rr_ttl(rr), 0);
	assert_int_equal(ldns_rr_rd_count(rr), 2);
	assert_int_equal(ldns_rdf_size(ldns_rr_rdf(rr, 0)), 256);
	assert_int_equal(ldns_rdf_size(ldns_rr_rdf(rr, 1)), 46);
	ldns_pkt_free(pkt);
}

/* --- signatures --------------------------------------------------------------------------------------------------- */

#define SECRET "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="

static const struct {
	const char *ours, *theirs;
} algorithms[] = {
	{"HMACMD5", "hmac-md5.sig-alg.reg.int."},
	{"HMACSHA1", "hmac-sha1."},
	{"HMACSHA256", "hmac-sha256."},
	{"HMACSHA512", "hmac-sha512."},
};

/* ldns's answer to a request that we signed. */
static void signed_answer(const struct dns_mac *mac, struct kt_view asked, const char *algorithm, struct kt_buf *wire)
{
	uint8_t *with_len = malloc(mac->len + 2), *bytes;
	ldns_rdf *query_mac;
	ldns_pkt *pkt;
	size_t len;

	with_len[0] = 0;
	with_len[1] = (uint8_t)mac->len;
	memcpy(with_len + 2, mac->bytes, mac->len);
	query_mac = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_INT16_DATA, mac->len + 2, with_len);
	free(with_len);
	assert_int_equal(ldns_wire2pkt(&pkt, (const uint8_t *)asked.ptr, asked.len), LDNS_STATUS_OK);
	ldns_rr_free(ldns_pkt_tsig(pkt));
	ldns_pkt_set_tsig(pkt, NULL);
	ldns_pkt_set_qr(pkt, true);
	assert_int_equal(ldns_pkt_tsig_sign(pkt, "kt.example.", SECRET, 300, algorithm, query_mac), LDNS_STATUS_OK);
	assert_int_equal(ldns_pkt2wire(&bytes, pkt, &len), LDNS_STATUS_OK);
	kt_buf_init(wire, DNS_MESSAGE_MAX);
	kt_buf_add(wire, bytes, len);
	LDNS_FREE(bytes);
	ldns_rdf_deep_free(query_mac);
	ldns_pkt_free(pkt);
}

static void signatures(void **state)
{
	const kt_ms now = (kt_ms)time(NULL) * KT_SECOND;

	(void)state;
	for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
		KT_AUTOBUF struct kt_buf asked, got;
		struct dns_mac mac;
		struct dns_tsig tsig;
		struct kt_view g;
		ldns_pkt *pkt;
		unsigned error;
		int64_t skew;

		query(&asked);
		assert_int_equal(dns_tsig_init(&tsig, "KT.example.", algorithms[i].ours, kt_view_str(SECRET "\n"), NULL), KT_OK);
		assert_int_equal(dns_tsig_sign(&tsig, now, &asked, &mac, NULL), KT_OK);
		assert_int_equal(ldns_wire2pkt(&pkt, (const uint8_t *)asked.ptr, asked.len), LDNS_STATUS_OK);
		assert_true(ldns_pkt_tsig_verify(pkt, (const uint8_t *)asked.ptr, asked.len, "kt.example.", SECRET, NULL));
		ldns_pkt_free(pkt);
		signed_answer(&mac, kt_buf_view(&asked), algorithms[i].theirs, &got);
		g = kt_buf_view(&got);
		assert_int_equal(dns_tsig_verify(&tsig, now, &mac, g, &error, &skew), DNS_SIGNED);
		assert_int_equal(dns_tsig_verify(&tsig, now + 400 * KT_SECOND, &mac, g, &error, &skew), DNS_FORGED);
		for (size_t at = 2; at < got.len; at++) { /* no byte may change but the id, which is compared elsewhere */
			got.ptr[at] ^= 1;
			assert_int_not_equal(dns_tsig_verify(&tsig, now, &mac, g, &error, &skew), DNS_SIGNED);
			got.ptr[at] ^= 1;
		}
		for (size_t len = 0; len < got.len; len++) {
			KT_AUTOFREE char *exact = kt_malloc(len + 1);

			memcpy(exact, got.ptr, len);
			assert_int_not_equal(dns_tsig_verify(&tsig, now, &mac, view(exact, len), &error, &skew), DNS_SIGNED);
		}
		mac.bytes[0] ^= 1; /* an answer to another request */
		assert_int_equal(dns_tsig_verify(&tsig, now, &mac, g, &error, &skew), DNS_FORGED);
		dns_tsig_finish(&tsig);
	}
}

static void keys(void **state)
{
	struct dns_tsig tsig;
	struct kt_err err;

	(void)state;
	assert_int_equal(dns_tsig_init(&tsig, "kt", "HMACSHA256", kt_view_str("not base64!secret"), &err), KT_E_INVALID);
	assert_null(strstr(err.what, "secret\" not"));
	assert_null(strstr(err.what, "not base64!"));
	dns_tsig_finish(&tsig);
	assert_int_equal(dns_tsig_init(&tsig, "kt", "HMACSHA3", kt_view_str(SECRET), &err), KT_E_INVALID);
	dns_tsig_finish(&tsig);
	assert_int_equal(dns_tsig_init(&tsig, "k t", "HMACMD5", kt_view_str(SECRET), &err), KT_E_INVALID);
	dns_tsig_finish(&tsig);
}

/* --- the rest ------------------------------------------------------------------------------------------------------- */

static void values(void **state)
{
	(void)state;
	assert_true(dns_value_matches("abc", kt_view_str("abc")));
	assert_false(dns_value_matches("abc", kt_view_str("abcd")));
	assert_true(dns_value_matches("ca.example; accounturi=x;", kt_view_str("ca.example; accounturi=x; policy=wildcard")));
	assert_false(dns_value_matches("ca.example; accounturi=x;", kt_view_str("ca.example; accounturi=y; policy=wildcard")));
	assert_false(dns_value_matches("ca.example;", kt_view_str("ca")));
}

static void resolv_conf(void **state)
{
	struct dns_server servers[3];
	struct kt_view text = KT_VIEW_LIT("# nameserver 192.0.2.9\n; x\nsearch example.org\nnameserver 192.0.2.1\r\n"
					  "nameserver\t2001:db8::53 # two\nnameserver bad\nnameserver fe80::1%eth0\n"
					  "nameserver 192.0.2.3\nnameserver 192.0.2.4");

	(void)state;
	assert_int_equal(dns_resolv_conf(text, servers, 3), 3);
	assert_string_equal(servers[0].text, "192.0.2.1");
	assert_string_equal(servers[1].text, "2001:db8::53");
	assert_string_equal(servers[2].text, "192.0.2.3");
	assert_int_equal(dns_server_port(&servers[2]), 53);
	assert_int_equal(dns_resolv_conf(KT_VIEW_LIT("nameserver"), servers, 3), 0);
	assert_int_equal(dns_resolv_conf(KT_VIEW_LIT(""), servers, 3), 0);
}

static enum kt_xml_event last_of(const char *document, const char *path, char *ret, size_t size)
{
	enum kt_xml_event event;
	struct kt_xml xml;

	ret[0] = '\0';
	kt_xml_init(&xml, kt_view_str(document));
	while ((event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		if (event == KT_XML_TEXT && kt_xml_at(&xml, path)) {
			(void)snprintf(ret, size, "%s", xml.text.ptr);
		}
	}
	kt_xml_finish(&xml);
	return event;
}

static void xml(void **state)
{
	static const char *const bad[] = {
		"<a>", "</a>", "<a></b>", "<a>&unknown;</a>", "<a>&#0;</a>", "<a>&#x110000;</a>", "<a>&#;</a>", "<a b='></a>", "<a",
		"<", "x<a/>", "<a><", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<a><![CDATA[x]]></a>", "<a>&#12345678;</a>",
		"<a><b><c><d><e><f><g><h><i><j><k><l><m><n><o><p><q></q></p></o></n></m></l></k></j></i></h></g></f></e></d></c></b></a>",
		"<a>&amp</a>", "<?xml", "<!-- x"};
	char text[64];

	(void)state;
	assert_int_equal(last_of("<?xml version=\"1.0\"?>\n<!-- x --><r xmlns='u>'><e/><Change><Id a=\"/\"> /change/C1 </Id>"
				 "<Value>&quot;a&lt;&#65;&#x42;&quot;</Value></Change></r>\n",
				 "Change/Value", text, sizeof(text)),
			 KT_XML_DONE);
	assert_string_equal(text, "\"a<AB\"");
	assert_int_equal(last_of("<r><Value>1</Value><Value2>2</Value2></r>", "r/Value", text, sizeof(text)), KT_XML_DONE);
	assert_string_equal(text, "1");
	assert_int_equal(last_of("<r><a/><b>x</b></r>", "r/b", text, sizeof(text)), KT_XML_DONE);
	assert_string_equal(text, "x");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (last_of(bad[i], "a", text, sizeof(text)) != KT_XML_BAD) {
			fail_msg("taken: %s", bad[i]);
		}
	}
}

static void providers(void **state)
{
	static const char *const all[] = {"none", "rfc2136", "acmeDNS", "cloudflare", "digitalocean", "route53"};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_non_null(dns_provider(all[i]));
		assert_string_equal(dns_provider(all[i])->name, all[i]);
	}
	assert_null(dns_provider("exec"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),       cmocka_unit_test(answers_are_read), cmocka_unit_test(only_our_answer_is_taken),
		cmocka_unit_test(hostile_answers), cmocka_unit_test(updates),      cmocka_unit_test(signatures),
		cmocka_unit_test(keys),        cmocka_unit_test(values),           cmocka_unit_test(resolv_conf),
		cmocka_unit_test(xml),         cmocka_unit_test(providers),
	};

	kt_json_init();
	assert_int_equal(kt_secret_init(NULL), KT_OK);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
