/* Usages by name, and the extensions that a certificate and its request share. */
#include "pki/pki_internal.h"

#include <string.h>

#define KEY_USAGE_BITS 0x1ffu
#define EXT_VALUE_MAX (48u * 1024u)

static const uint8_t oid_basic[] = {0x55, 0x1d, 0x13};
static const uint8_t oid_usage[] = {0x55, 0x1d, 0x0f};
static const uint8_t oid_extended[] = {0x55, 0x1d, 0x25};
static const uint8_t oid_san[] = {0x55, 0x1d, 0x11};
static const uint8_t oid_tls_feature[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18};
static const uint8_t oid_constraints[] = {0x55, 0x1d, 0x1e};

static const struct usage {
	const char *name;
	uint32_t bit;
} usages[] = {
        {"digital signature", KT_USAGE_DIGITAL_SIGNATURE},
        {"signing", KT_USAGE_DIGITAL_SIGNATURE},
        {"content commitment", KT_USAGE_CONTENT_COMMITMENT},
        {"key encipherment", KT_USAGE_KEY_ENCIPHERMENT},
        {"data encipherment", KT_USAGE_DATA_ENCIPHERMENT},
        {"key agreement", KT_USAGE_KEY_AGREEMENT},
        {"cert sign", KT_USAGE_CERT_SIGN},
        {"crl sign", KT_USAGE_CRL_SIGN},
        {"encipher only", KT_USAGE_ENCIPHER_ONLY},
        {"decipher only", KT_USAGE_DECIPHER_ONLY},
        {"any", KT_USAGE_ANY},
        {"server auth", KT_USAGE_SERVER_AUTH},
        {"client auth", KT_USAGE_CLIENT_AUTH},
        {"code signing", KT_USAGE_CODE_SIGNING},
        {"email protection", KT_USAGE_EMAIL_PROTECTION},
        {"s/mime", KT_USAGE_EMAIL_PROTECTION},
        {"ipsec end system", KT_USAGE_IPSEC_END_SYSTEM},
        {"ipsec tunnel", KT_USAGE_IPSEC_TUNNEL},
        {"ipsec user", KT_USAGE_IPSEC_USER},
        {"timestamping", KT_USAGE_TIMESTAMPING},
        {"ocsp signing", KT_USAGE_OCSP_SIGNING},
        {"microsoft sgc", KT_USAGE_MICROSOFT_SGC},
        {"netscape sgc", KT_USAGE_NETSCAPE_SGC},
};

/* Contents of the OIDs of extended usages. */
#define KP(n) {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, (n)}, 8
static const struct eku {
	uint32_t bit;
	uint8_t oid[12];
	size_t len;
} ekus[] = {
        {KT_USAGE_ANY, {0x55, 0x1d, 0x25, 0x00}, 4},
        {KT_USAGE_SERVER_AUTH, KP(1)},
        {KT_USAGE_CLIENT_AUTH, KP(2)},
        {KT_USAGE_CODE_SIGNING, KP(3)},
        {KT_USAGE_EMAIL_PROTECTION, KP(4)},
        {KT_USAGE_IPSEC_END_SYSTEM, KP(5)},
        {KT_USAGE_IPSEC_TUNNEL, KP(6)},
        {KT_USAGE_IPSEC_USER, KP(7)},
        {KT_USAGE_TIMESTAMPING, KP(8)},
        {KT_USAGE_OCSP_SIGNING, KP(9)},
        {KT_USAGE_MICROSOFT_SGC, {0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x03, 0x03}, 10},
        {KT_USAGE_NETSCAPE_SGC, {0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x04, 0x01}, 9},
};

uint32_t kt_pki_usage_parse(const char *name)
{
	for (size_t i = 0; name != NULL && i < sizeof(usages) / sizeof(usages[0]); i++)
		if (strcmp(usages[i].name, name) == 0)
			return usages[i].bit;
	return 0;
}

const char *kt_pki_usage_name(uint32_t bit)
{
	for (size_t i = 0; i < sizeof(usages) / sizeof(usages[0]); i++)
		if (usages[i].bit == bit)
			return usages[i].name;
	return NULL;
}

uint32_t kt_pki_eku_bit(const uint8_t *oid, size_t len)
{
	for (size_t i = 0; i < sizeof(ekus) / sizeof(ekus[0]); i++)
		if (ekus[i].len == len && memcmp(ekus[i].oid, oid, len) == 0)
			return ekus[i].bit;
	return 0;
}

struct kt_ext_mark kt_pki_ext_open(struct kt_buf *out, const uint8_t *oid, size_t oid_len, bool critical)
{
	struct kt_ext_mark mark;

	mark.seq = kt_der_open(out, DER_SEQUENCE);
	kt_der_put(out, DER_OID, oid, oid_len);
	if (critical)
		kt_der_bool(out, true);
	mark.octets = kt_der_open(out, DER_OCTETS);
	return mark;
}

void kt_pki_ext_close(struct kt_buf *out, struct kt_ext_mark mark)
{
	kt_der_close(out, mark.octets);
	kt_der_close(out, mark.seq);
}

static uint32_t effective_usages(const struct kt_cert_request *request)
{
	uint32_t bits = request->usages;

	if (bits == 0)
		bits = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_KEY_ENCIPHERMENT;
	return request->is_ca ? bits | KT_USAGE_CERT_SIGN : bits;
}

static void put_usages(uint32_t bits, bool critical, struct kt_buf *out)
{
	struct kt_ext_mark mark;
	size_t seq;

	if ((bits & KEY_USAGE_BITS) != 0) {
		mark = kt_pki_ext_open(out, oid_usage, sizeof(oid_usage), critical);
		kt_der_named_bits(out, bits & KEY_USAGE_BITS);
		kt_pki_ext_close(out, mark);
	}
	if ((bits & ~KEY_USAGE_BITS) == 0)
		return;
	mark = kt_pki_ext_open(out, oid_extended, sizeof(oid_extended), false);
	seq = kt_der_open(out, DER_SEQUENCE);
	for (size_t i = 0; i < sizeof(ekus) / sizeof(ekus[0]); i++)
		if ((bits & ekus[i].bit) != 0)
			kt_der_put(out, DER_OID, ekus[i].oid, ekus[i].len);
	kt_der_close(out, seq);
	kt_pki_ext_close(out, mark);
}

static void put_basic(const struct kt_cert_request *request, struct kt_buf *out)
{
	struct kt_ext_mark mark = kt_pki_ext_open(out, oid_basic, sizeof(oid_basic), true);
	size_t seq = kt_der_open(out, DER_SEQUENCE);

	if (request->is_ca) {
		kt_der_bool(out, true);
		if (request->has_path_len)
			kt_der_small(out, request->path_len);
	}
	kt_der_close(out, seq);
	kt_pki_ext_close(out, mark);
}

/* RFC 7633: a SEQUENCE of the TLS extensions that the server promises; 5 is status_request (OCSP stapling). */
static void put_tls_feature(struct kt_buf *out)
{
	struct kt_ext_mark mark = kt_pki_ext_open(out, oid_tls_feature, sizeof(oid_tls_feature), false);
	size_t seq = kt_der_open(out, DER_SEQUENCE);

	kt_der_small(out, 5);
	kt_der_close(out, seq);
	kt_pki_ext_close(out, mark);
}

enum kt_code kt_pki_extensions_encode(const struct kt_cert_request *request, bool empty_subject, bool for_csr,
                                      struct kt_buf *out, struct kt_err *err)
{
	struct kt_ext_mark mark;
	enum kt_code code = KT_OK;
	size_t before;

	if (request->has_path_len && (!request->is_ca || request->path_len > 255))
		return kt_err_set(err, KT_E_INVALID, "a path length is for CA certificates, and at most 255");
	if (empty_subject && !kt_pki_has_names(request))
		return kt_err_set(err, KT_E_INVALID, "a certificate needs a common name, a subject or alternative names");
	put_usages(effective_usages(request), !request->usages_critical_off, out);
	if (!for_csr || request->is_ca)
		put_basic(request, out);
	if (kt_pki_has_names(request)) {
		mark = kt_pki_ext_open(out, oid_san, sizeof(oid_san), empty_subject);
		code = kt_pki_san_encode(request, out, err);
		if (code != KT_OK)
			return code;
		kt_pki_ext_close(out, mark);
	}
	if (request->must_staple)
		put_tls_feature(out);
	before = out->len;
	mark = kt_pki_ext_open(out, oid_constraints, sizeof(oid_constraints), request->constraints_critical);
	code = kt_pki_constraints_encode(request, out, err);
	if (code != KT_OK)
		return code;
	kt_pki_ext_close(out, mark);
	/* Nothing was constrained: an extension without a value would be an error. */
	if (out->failed == KT_OK && out->len == mark.octets) {
		out->len = before;
		out->ptr[before] = '\0';
	}
	return kt_buf_check(out, "certificate", err);
}

enum kt_code kt_pki_request_check(const struct kt_cert_request *request, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code;
	bool empty;

	kt_buf_init(&out, EXT_VALUE_MAX);
	code = kt_pki_dn_encode(request, &out, &empty, err);
	if (code == KT_OK)
		code = kt_pki_extensions_encode(request, empty, false, &out, err);
	return code;
}
