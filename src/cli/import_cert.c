/*
 * import: what a certificate says, as far as a manifest needs it: names, key, must-staple. A bounded walk over DER,
 * because the program `keyturn` has no X.509 library; whether the certificate is good is for the keeper, which has one.
 */
#include "cli/import.h"

#include <arpa/inet.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define NAMES_MAX 1000u

struct tlv {
	uint8_t tag;
	struct kt_view body;
};

/* Takes the next element off in; false at the end, and where it is not well formed. */
static bool next(struct kt_view *in, struct tlv *ret)
{
	const uint8_t *p = (const uint8_t *)in->ptr;
	size_t head = 2;
	size_t len;

	if (in->len < 2 || (p[0] & 0x1f) == 0x1f) {
		return false;
	}
	len = p[1];
	if (len >= 0x80) {
		size_t bytes = len & 0x7f;

		if (bytes == 0 || bytes > 3 || in->len < 2 + bytes) {
			return false;
		}
		len = 0;
		for (size_t i = 0; i < bytes; i++) {
			len = len << 8 | p[2 + i];
		}
		head += bytes;
	}
	if (len > in->len - head) {
		return false;
	}
	ret->tag = p[0];
	ret->body = (struct kt_view){in->ptr + head, len};
	in->ptr += head + len;
	in->len -= head + len;
	return true;
}

static bool expect(struct kt_view *in, uint8_t tag, struct tlv *ret)
{
	return next(in, ret) && ret->tag == tag;
}

static bool is_oid(struct kt_view body, const char *bytes, size_t len)
{
	return body.len == len && memcmp(body.ptr, bytes, len) == 0;
}
#define IS_OID(body, text) is_oid((body), (text), sizeof(text) - 1)

/* --- names ------------------------------------------------------------------------------------------------- */

/* Printable ASCII only: what is no name of a host becomes no name of a manifest. */
static json_t *plain(struct kt_view text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] <= 0x20 || text.ptr[i] >= 0x7f) {
			return NULL;
		}
	}
	return text.len > 0 && text.len < 1024 ? json_stringn(text.ptr, text.len) : NULL;
}

static json_t *address(struct kt_view bytes)
{
	char text[INET6_ADDRSTRLEN];

	if ((bytes.len != 4 && bytes.len != 16) ||
	    inet_ntop(bytes.len == 4 ? AF_INET : AF_INET6, bytes.ptr, text, sizeof(text)) == NULL) {
		return NULL;
	}
	return json_string(text);
}

static void take_names(struct kt_view octets, struct kt_import_facts *facts)
{
	struct tlv list, name;

	if (!expect(&octets, 0x30, &list)) {
		return;
	}
	for (unsigned n = 0; n < NAMES_MAX && next(&list.body, &name); n++) {
		if (name.tag == 0x82) {
			(void)json_array_append_new(facts->dns, plain(name.body));
		} else if (name.tag == 0x87) {
			(void)json_array_append_new(facts->ips, address(name.body));
		} else {
			(void)json_array_append_new(facts->others, name.tag == 0x81 || name.tag == 0x86
									   ? plain(name.body)
									   : json_string("?"));
		}
	}
}

static void take_subject(struct kt_view subject, struct kt_import_facts *facts)
{
	struct tlv set, pair, oid, value;

	while (expect(&subject, 0x31, &set)) {
		while (expect(&set.body, 0x30, &pair)) {
			if (expect(&pair.body, 0x06, &oid) && IS_OID(oid.body, "\x55\x04\x03") &&
			    next(&pair.body, &value) && facts->common_name[0] == '\0' &&
			    value.body.len < sizeof(facts->common_name)) {
				json_t *text = plain(value.body);

				if (text != NULL) {
					memcpy(facts->common_name, value.body.ptr, value.body.len);
				}
				json_decref(text);
			}
		}
	}
}

/* --- the key ----------------------------------------------------------------------------------------------- */

static unsigned rsa_bits(struct kt_view bits)
{
	struct tlv key, modulus;
	unsigned first, count;

	if (bits.len < 1) {
		return 0;
	}
	bits.ptr++; /* unused bits: none */
	bits.len--;
	if (!expect(&bits, 0x30, &key) || !expect(&key.body, 0x02, &modulus)) {
		return 0;
	}
	while (modulus.body.len > 0 && modulus.body.ptr[0] == 0) {
		modulus.body.ptr++;
		modulus.body.len--;
	}
	if (modulus.body.len == 0 || modulus.body.len > 4096) {
		return 0;
	}
	first = (uint8_t)modulus.body.ptr[0];
	for (count = 0; first > 0; first >>= 1) {
		count++;
	}
	return (unsigned)(modulus.body.len - 1) * 8 + count;
}

static void take_key(struct kt_view spki, struct kt_import_facts *facts)
{
	struct tlv algorithm, oid, curve, bits;

	if (!expect(&spki, 0x30, &algorithm) || !expect(&algorithm.body, 0x06, &oid) || !expect(&spki, 0x03, &bits)) {
		return;
	}
	if (IS_OID(oid.body, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01")) {
		facts->algorithm = "RSA";
		facts->size = rsa_bits(bits.body);
	} else if (IS_OID(oid.body, "\x2b\x65\x70")) {
		facts->algorithm = "Ed25519";
	} else if (IS_OID(oid.body, "\x2a\x86\x48\xce\x3d\x02\x01") && expect(&algorithm.body, 0x06, &curve)) {
		facts->algorithm = "ECDSA";
		facts->size = IS_OID(curve.body, "\x2a\x86\x48\xce\x3d\x03\x01\x07") ? 256
			      : IS_OID(curve.body, "\x2b\x81\x04\x00\x22")           ? 384
			      : IS_OID(curve.body, "\x2b\x81\x04\x00\x23")           ? 521
										     : 0;
	}
}

/* --- the whole --------------------------------------------------------------------------------------------- */

static void take_extensions(struct kt_view explicit, struct kt_import_facts *facts)
{
	struct tlv list, extension, oid, value;

	if (!expect(&explicit, 0x30, &list)) {
		return;
	}
	for (unsigned n = 0; n < 100 && expect(&list.body, 0x30, &extension); n++) {
		if (!expect(&extension.body, 0x06, &oid) || !next(&extension.body, &value)) {
			return;
		}
		if (value.tag == 0x01 && !next(&extension.body, &value)) { /* critical */
			return;
		}
		if (IS_OID(oid.body, "\x55\x1d\x11")) {
			take_names(value.body, facts);
		} else if (IS_OID(oid.body, "\x2b\x06\x01\x05\x05\x07\x01\x18")) {
			facts->must_staple = true;
		} else if (IS_OID(oid.body, "\x55\x1d\x13")) {
			struct tlv constraints, ca;

			facts->is_ca = expect(&value.body, 0x30, &constraints) &&
				       expect(&constraints.body, 0x01, &ca) && ca.body.len == 1 && ca.body.ptr[0] != 0;
		}
	}
}

static bool take_certificate(struct kt_view der, struct kt_import_facts *facts)
{
	struct tlv outer, tbs, part;

	if (!expect(&der, 0x30, &outer) || !expect(&outer.body, 0x30, &tbs) || !next(&tbs.body, &part)) {
		return false;
	}
	if (part.tag == 0xa0 && !next(&tbs.body, &part)) { /* version, then the serial */
		return false;
	}
	/* signature algorithm, issuer, validity, subject, key */
	if (part.tag != 0x02 || !expect(&tbs.body, 0x30, &part) || !expect(&tbs.body, 0x30, &part) ||
	    !expect(&tbs.body, 0x30, &part) || !expect(&tbs.body, 0x30, &part)) {
		return false;
	}
	take_subject(part.body, facts);
	if (!expect(&tbs.body, 0x30, &part)) {
		return false;
	}
	take_key(part.body, facts);
	while (next(&tbs.body, &part)) {
		if (part.tag == 0xa3) {
			take_extensions(part.body, facts);
		}
	}
	return true;
}

/* The base64 of the first CERTIFICATE block, decoded into der. */
static bool first_block(struct kt_view pem, struct kt_buf *der)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----";
	static const char end[] = "-----END CERTIFICATE-----";
	struct kt_buf text KT_AUTOBUF = {0};
	const char *from = pem.len > 0 ? memmem(pem.ptr, pem.len, begin, sizeof(begin) - 1) : NULL;
	const char *to;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	if (from == NULL) {
		return false;
	}
	from += sizeof(begin) - 1;
	to = memmem(from, pem.len - (size_t)(from - pem.ptr), end, sizeof(end) - 1);
	if (to == NULL) {
		return false;
	}
	for (; from < to; from++) {
		if (*from != '\n' && *from != '\r' && *from != ' ' && *from != '\t') {
			kt_buf_addc(&text, *from);
		}
	}
	return text.failed == KT_OK && kt_base64_decode(kt_buf_view(&text), der, NULL) == KT_OK;
}

enum kt_code kt_import_facts(struct kt_view pem, struct kt_import_facts *ret, struct kt_err *err)
{
	struct kt_buf der KT_AUTOBUF = {0};

	*ret = (struct kt_import_facts){.dns = json_array(), .ips = json_array(), .others = json_array()};
	kt_buf_init(&der, KT_IMPORT_FILE_MAX);
	if (!first_block(pem, &der) || !take_certificate(kt_buf_view(&der), ret)) {
		return kt_err_set(err, KT_E_PROTO, "there is no certificate in it");
	}
	return KT_OK;
}

void kt_import_facts_finish(struct kt_import_facts *facts)
{
	json_decref(facts->dns);
	json_decref(facts->ips);
	json_decref(facts->others);
	*facts = (struct kt_import_facts){0};
}
