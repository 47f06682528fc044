/* What name servers and DNS providers answer: the first byte chooses a message, XML, resolv.conf or a name. */
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "fuzz.h"
#include "kt/mem.h"

static struct dns_tsig tsig;
static struct kt_buf asked;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	FUZZ_MUST(kt_secret_init(NULL) == KT_OK);
	FUZZ_MUST(dns_tsig_init(&tsig, "kt", "HMACSHA256", KT_VIEW_LIT("MTIzNDU2Nzg5MDEyMzQ1Ng=="), NULL) == KT_OK);
	kt_buf_init(&asked, DNS_MESSAGE_MAX);
	FUZZ_MUST(dns_packet_query("_acme-challenge.example.org", LDNS_RR_TYPE_TXT, true, true, &asked, NULL) == KT_OK);
	return 0;
}

static void name_is_plain(const char *name)
{
	char again[DNS_NAME_SIZE];

	FUZZ_MUST(strlen(name) <= 253);
	FUZZ_MUST(dns_name(kt_view_str(name), again, NULL) == KT_OK && strcmp(name, again) == 0);
}

static void message(struct kt_view wire)
{
	struct dns_mac mac = {.len = 32};
	struct dns_answer answer;
	unsigned error;
	int64_t skew;

	(void)dns_packet_answers(wire, kt_buf_view(&asked));
	/* Nobody guesses an HMAC. */
	FUZZ_MUST(dns_tsig_verify(&tsig, 1800000000000, &mac, wire, &error, &skew) != DNS_SIGNED);
	if (dns_packet_read(wire, &answer, NULL) != KT_OK) {
		return;
	}
	FUZZ_MUST(answer.count <= DNS_RECORDS_MAX);
	for (unsigned i = 0; i < answer.count; i++) {
		name_is_plain(answer.records[i].owner);
		name_is_plain(answer.records[i].target);
		FUZZ_MUST(answer.records[i].type != LDNS_RR_TYPE_TXT || answer.records[i].text != NULL);
		FUZZ_MUST(answer.records[i].text_len <= wire.len);
	}
	dns_answer_finish(&answer);
}

static void document(struct kt_view text)
{
	enum kt_xml_event event;
	struct kt_xml xml;
	size_t events = 0;

	kt_xml_init(&xml, text);
	while ((event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		FUZZ_MUST(++events <= 2 * text.len + 2);
		FUZZ_MUST(event == KT_XML_TEXT || xml.depth > 0);
		FUZZ_MUST(event != KT_XML_TEXT || (xml.text.ptr != NULL && xml.text.len <= 4096));
		(void)kt_xml_at(&xml, "ChangeInfo/Id");
	}
	kt_xml_finish(&xml);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view rest = {(const char *)data + 1, size - 1};
	struct dns_server servers[3];
	char name[DNS_NAME_SIZE];

	if (size == 0) {
		return 0;
	}
	switch (data[0] % 4) {
	case 0:
		message(rest);
		break;
	case 1:
		document(rest);
		break;
	case 2:
		FUZZ_MUST(dns_resolv_conf(rest, servers, 3) <= 3);
		break;
	default:
		if (dns_name(rest, name, NULL) == KT_OK) {
			name_is_plain(name);
		}
		break;
	}
	return 0;
}
