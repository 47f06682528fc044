/* Transaction signatures (RFC 8945): ldns has them too, but frees the decoded key unwiped and never looks at the time. */
#include "courier/dns/tsig.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "kt/text.h"

#define TYPE_TSIG  250u
#define CLASS_ANY  255u
#define HEADER     12u

static const struct {
	const char *name, *algorithm, *digest;
} algorithms[] = {
	{"HMACMD5", "hmac-md5.sig-alg.reg.int", "MD5"},
	{"HMACSHA1", "hmac-sha1", "SHA1"},
	{"HMACSHA256", "hmac-sha256", "SHA256"},
	{"HMACSHA512", "hmac-sha512", "SHA512"},
};

enum kt_code dns_tsig_init(struct dns_tsig *tsig, const char *name, const char *algorithm, struct kt_view secret,
			   struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf key;

	memset(tsig, 0, sizeof(*tsig));
	for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
		if (strcmp(algorithms[i].name, algorithm) == 0) {
			tsig->algorithm = algorithms[i].algorithm;
			tsig->digest = algorithms[i].digest;
		}
	}
	if (tsig->algorithm == NULL) {
		return kt_err_set(err, KT_E_INVALID, "tsigAlgorithm '%.40s' is not known", algorithm);
	}
	if (dns_name(kt_view_str(name), tsig->name, err) != KT_OK) {
		return kt_err_set(err, KT_E_INVALID, "tsigKeyName is no DNS name");
	}
	while (secret.len > 0 && (secret.ptr[secret.len - 1] == '\n' || secret.ptr[secret.len - 1] == '\r' ||
				  secret.ptr[secret.len - 1] == ' ')) {
		secret.len--;
	}
	kt_buf_init(&key, 1024);
	if (kt_base64_decode(secret, &key, NULL) != KT_OK || key.len == 0) {
		return kt_err_set(err, KT_E_INVALID,
				  "the TSIG secret of key '%s' is not base64: give it as in the key file (secret \"...\")",
				  tsig->name);
	}
	return kt_secret_from_buf(&key, &tsig->key, err);
}

void dns_tsig_finish(struct dns_tsig *tsig)
{
	kt_secret_destroy(tsig->key);
	memset(tsig, 0, sizeof(*tsig));
}

static void add16(struct kt_buf *out, unsigned value)
{
	kt_buf_addc(out, (char)(value >> 8 & 0xff));
	kt_buf_addc(out, (char)(value & 0xff));
}

static void add48(struct kt_buf *out, uint64_t value)
{
	for (int shift = 40; shift >= 0; shift -= 8) {
		kt_buf_addc(out, (char)(value >> shift & 0xff));
	}
}

/* The name in wire form, uncompressed; it is lower case already, as the canonical form asks for. */
static void add_name(struct kt_buf *out, const char *name)
{
	while (name[0] != '\0') {
		size_t len = strcspn(name, ".");

		kt_buf_addc(out, (char)len);
		kt_buf_add(out, name, len);
		name += len + (name[len] == '.' ? 1 : 0);
	}
	kt_buf_addc(out, '\0');
}

/* The fields of section 4.3.3 that are neither message nor MAC. */
struct variables {
	uint64_t time;
	unsigned fudge, error;
	struct kt_view other;
};

/* mac over request's MAC (section 4.3.1; for answers), the message and the variables. */
static bool digest(const struct dns_tsig *tsig, const struct dns_mac *request, struct kt_view message,
		   const struct variables *v, struct dns_mac *ret)
{
	const EVP_MD *md = EVP_get_digestbyname(tsig->digest);
	struct kt_view key = kt_secret_view(tsig->key);
	KT_AUTOBUF struct kt_buf in;
	unsigned len = 0;

	kt_buf_init(&in, DNS_MESSAGE_MAX + 2048);
	if (request != NULL) {
		add16(&in, (unsigned)request->len);
		kt_buf_add(&in, request->bytes, request->len);
	}
	kt_buf_addv(&in, message);
	add_name(&in, tsig->name);
	add16(&in, CLASS_ANY);
	kt_buf_add(&in, "\0\0\0\0", 4);
	add_name(&in, tsig->algorithm);
	add48(&in, v->time);
	add16(&in, v->fudge);
	add16(&in, v->error);
	add16(&in, (unsigned)v->other.len);
	kt_buf_addv(&in, v->other);
	if (in.failed != KT_OK || md == NULL || EVP_MD_get_size(md) > (int)sizeof(ret->bytes) ||
	    HMAC(md, key.ptr, (int)key.len, (const unsigned char *)in.ptr, in.len, ret->bytes, &len) == NULL) {
		return false;
	}
	ret->len = len;
	return true;
}

enum kt_code dns_tsig_sign(const struct dns_tsig *tsig, kt_ms wall, struct kt_buf *wire, struct dns_mac *mac,
			   struct kt_err *err)
{
	struct variables v = {.time = (uint64_t)(wall / KT_SECOND), .fudge = DNS_TSIG_FUDGE};
	size_t algorithm = strlen(tsig->algorithm) + 2, additional;

	if (wire->failed != KT_OK || wire->len < HEADER || !digest(tsig, NULL, kt_buf_view(wire), &v, mac)) {
		return kt_err_set(err, KT_E_CRYPTO, "a DNS message can't be signed with %s", tsig->digest);
	}
	additional = ((size_t)(unsigned char)wire->ptr[10] << 8 | (unsigned char)wire->ptr[11]) + 1;
	wire->ptr[10] = (char)(additional >> 8);
	wire->ptr[11] = (char)(additional & 0xff);
	add_name(wire, tsig->name);
	add16(wire, TYPE_TSIG);
	add16(wire, CLASS_ANY);
	kt_buf_add(wire, "\0\0\0\0", 4);
	add16(wire, (unsigned)(algorithm + 16 + mac->len));
	add_name(wire, tsig->algorithm);
	add48(wire, v.time);
	add16(wire, v.fudge);
	add16(wire, (unsigned)mac->len);
	kt_buf_add(wire, mac->bytes, mac->len);
	kt_buf_add(wire, wire->ptr, 2); /* original id */
	add16(wire, 0);
	add16(wire, 0);
	return kt_buf_check(wire, "a signed DNS message", err);
}

/* --- what comes back ------------------------------------------------------------------------------------------------ */

static unsigned get16(struct kt_view wire, size_t at)
{
	return (unsigned)((unsigned char)wire.ptr[at] << 8 | (unsigned char)wire.ptr[at + 1]);
}

static uint64_t get48(struct kt_view wire, size_t at)
{
	return (uint64_t)get16(wire, at) << 32 | (uint64_t)get16(wire, at + 2) << 16 | get16(wire, at + 4);
}

/* Where the last record starts when it is a TSIG; 0 else. */
static size_t find(struct kt_view wire)
{
	size_t at = HEADER, start = 0;
	unsigned questions, records;

	if (wire.len < HEADER || get16(wire, 10) == 0) {
		return 0;
	}
	questions = get16(wire, 4);
	records = get16(wire, 6) + get16(wire, 8) + get16(wire, 10);
	while (questions-- > 0) {
		at = dns_wire_skip_name(wire, at);
		if (at == 0 || at + 4 > wire.len) {
			return 0;
		}
		at += 4;
	}
	while (records-- > 0) {
		start = at;
		at = dns_wire_skip_name(wire, at);
		if (at == 0 || at + 10 > wire.len) {
			return 0;
		}
		if (records == 0 && (get16(wire, at) != TYPE_TSIG || get16(wire, at + 2) != CLASS_ANY ||
				     get16(wire, at + 4) != 0 || get16(wire, at + 6) != 0)) {
			return 0;
		}
		at += 10 + get16(wire, at + 8);
	}
	return at == wire.len ? start : 0;
}

/* The name at `at` is this one, written in full. */
static bool name_is(struct kt_view wire, size_t at, const char *name, size_t *end)
{
	KT_AUTOBUF struct kt_buf want;

	kt_buf_init(&want, 512);
	add_name(&want, name);
	if (want.failed != KT_OK || at + want.len > wire.len ||
	    !kt_ascii_ieq((struct kt_view){wire.ptr + at, want.len}, kt_buf_view(&want))) {
		return false;
	}
	*end = at + want.len;
	return true;
}

static bool mac_matches(const struct dns_tsig *tsig, const struct dns_mac *request, struct kt_view wire, size_t start,
			unsigned original_id, const struct variables *v, struct kt_view mac)
{
	KT_AUTOBUF struct kt_buf message;
	struct dns_mac want;
	unsigned additional = get16(wire, 10) - 1;

	kt_buf_init(&message, DNS_MESSAGE_MAX);
	kt_buf_add(&message, wire.ptr, start);
	if (message.failed != KT_OK) {
		return false;
	}
	dns_packet_set_id(&message, (uint16_t)original_id);
	message.ptr[10] = (char)(additional >> 8);
	message.ptr[11] = (char)(additional & 0xff);
	return digest(tsig, request, kt_buf_view(&message), v, &want) && want.len == mac.len &&
	       CRYPTO_memcmp(want.bytes, mac.ptr, mac.len) == 0;
}

enum dns_signed dns_tsig_verify(const struct dns_tsig *tsig, kt_ms wall, const struct dns_mac *request,
				struct kt_view wire, unsigned *error, int64_t *skew)
{
	size_t start = find(wire), at, end, data;
	int64_t now = wall / KT_SECOND;
	struct variables v;
	struct kt_view mac;
	unsigned original_id;

	*error = 0;
	*skew = 0;
	if (start == 0) {
		return DNS_UNSIGNED;
	}
	if (!name_is(wire, start, tsig->name, &at) || at + 10 > wire.len) {
		return DNS_FORGED;
	}
	data = at + 10;
	end = data + get16(wire, at + 8);
	if (!name_is(wire, data, tsig->algorithm, &at) || at + 10 > end) {
		return DNS_FORGED;
	}
	v.time = get48(wire, at);
	v.fudge = get16(wire, at + 6);
	mac = (struct kt_view){wire.ptr + at + 10, get16(wire, at + 8)};
	at += 10 + mac.len;
	if (at + 6 > end) {
		return DNS_FORGED;
	}
	original_id = get16(wire, at);
	v.error = get16(wire, at + 2);
	v.other = (struct kt_view){wire.ptr + at + 6, get16(wire, at + 4)};
	if (at + 6 + v.other.len != end) {
		return DNS_FORGED;
	}
	*error = v.error;
	if (v.error == DNS_BADTIME && v.other.len == 6) {
		*skew = (int64_t)get48(v.other, 0) - now;
	}
	if (mac.len == 0) {
		return v.error != 0 ? DNS_UNSIGNED : DNS_FORGED;
	}
	if (!mac_matches(tsig, request, wire, start, original_id, &v, mac)) {
		return DNS_FORGED;
	}
	return (int64_t)v.time - now <= (int64_t)v.fudge && now - (int64_t)v.time <= (int64_t)v.fudge ? DNS_SIGNED
												     : DNS_FORGED;
}
