/* A small DER writer over kt_buf: lengths are patched when a TLV is closed, failures stay in the buffer. */
#include "pki/pki_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

size_t kt_der_open(struct kt_buf *out, uint8_t tag)
{
	const uint8_t head[2] = {tag, 0};

	kt_buf_add(out, head, sizeof(head));
	return out->len;
}

/* Moves the contents up when the length needs more than the byte that was kept for it. */
void kt_der_close(struct kt_buf *out, size_t pos)
{
	size_t len, extra;
	uint8_t *at;

	if (out->failed != KT_OK)
		return;
	len = out->len - pos;
	if (len < 0x80) {
		out->ptr[pos - 1] = (char)len;
		return;
	}
	extra = len < 0x100 ? 1 : len < 0x10000 ? 2 : 3;
	if (kt_buf_extend(out, extra) == NULL)
		return;
	at = (uint8_t *)out->ptr + pos;
	memmove(at + extra, at, len);
	at[-1] = (uint8_t)(0x80 | extra);
	for (size_t i = 0; i < extra; i++)
		at[i] = (uint8_t)(len >> (8 * (extra - 1 - i)));
}

void kt_der_put(struct kt_buf *out, uint8_t tag, const void *data, size_t len)
{
	size_t pos = kt_der_open(out, tag);

	kt_buf_add(out, data, len);
	kt_der_close(out, pos);
}

void kt_der_uint(struct kt_buf *out, const uint8_t *bytes, size_t len)
{
	size_t pos;

	while (len > 1 && bytes[0] == 0) {
		bytes++;
		len--;
	}
	pos = kt_der_open(out, DER_INTEGER);
	if (len == 0 || (bytes[0] & 0x80) != 0)
		kt_buf_addc(out, 0);
	kt_buf_add(out, bytes, len);
	kt_der_close(out, pos);
}

void kt_der_small(struct kt_buf *out, unsigned value)
{
	const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
	                          (uint8_t)value};

	kt_der_uint(out, bytes, sizeof(bytes));
}

void kt_der_bool(struct kt_buf *out, bool value)
{
	const uint8_t tlv[3] = {DER_BOOLEAN, 1, value ? 0xff : 0};

	kt_buf_add(out, tlv, sizeof(tlv));
}

static void add_base128(struct kt_buf *out, uint64_t value)
{
	uint8_t bytes[10];
	size_t at = sizeof(bytes);

	bytes[--at] = (uint8_t)(value & 0x7f);
	while ((value >>= 7) != 0)
		bytes[--at] = (uint8_t)(0x80 | (value & 0x7f));
	kt_buf_add(out, bytes + at, sizeof(bytes) - at);
}

/* The next arc of a dotted OID: no leading zeros, at most 2^53. */
static bool next_arc(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t value = 0;

	if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (uint64_t)(*p - '0');
		if (value > (UINT64_C(1) << 53))
			return false;
	}
	*text = p;
	*ret = value;
	return true;
}

bool kt_der_oid(struct kt_buf *out, const char *dotted)
{
	uint64_t first, second, arc;
	size_t pos, arcs = 2;

	if (!next_arc(&dotted, &first) || *dotted++ != '.' || !next_arc(&dotted, &second))
		return false;
	if (first > 2 || (first < 2 && second > 39))
		return false;
	pos = kt_der_open(out, DER_OID);
	add_base128(out, first * 40 + second);
	while (*dotted == '.') {
		dotted++;
		if (!next_arc(&dotted, &arc) || ++arcs > 32)
			return false;
		add_base128(out, arc);
	}
	kt_der_close(out, pos);
	return *dotted == '\0';
}

void kt_der_time(struct kt_buf *out, kt_ms wall)
{
	time_t seconds = (time_t)((wall > KT_TIME_MAX ? KT_TIME_MAX : wall) / KT_SECOND);
	struct tm tm;
	char text[32];
	int len;

	if (wall < 0 || gmtime_r(&seconds, &tm) == NULL) {
		out->failed = KT_E_INVALID;
		return;
	}
	if (tm.tm_year < 150)
		len = snprintf(text, sizeof(text), "%02d%02d%02d%02d%02d%02dZ", tm.tm_year % 100, tm.tm_mon + 1,
		               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	else
		len = snprintf(text, sizeof(text), "%04d%02d%02d%02d%02d%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
		               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	kt_der_put(out, tm.tm_year < 150 ? DER_UTC_TIME : DER_GENERALIZED_TIME, text, (size_t)len);
}

void kt_der_named_bits(struct kt_buf *out, uint32_t bits)
{
	uint8_t body[5] = {0};
	size_t len = 1;

	for (unsigned i = 0; i < 32; i++) {
		if ((bits & (UINT32_C(1) << i)) == 0)
			continue;
		body[1 + i / 8] |= (uint8_t)(0x80 >> (i % 8));
		len = 2 + i / 8;
		body[0] = (uint8_t)(7 - i % 8);
	}
	kt_der_put(out, DER_BITS, body, len);
}
