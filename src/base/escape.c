/* UTF-8 sequences, and the escaping of bytes that must not reach a terminal or a log. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/base_internal.h"
#include "kt/text.h"

static bool is_cont(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

size_t kt_base_utf8_next(const char *text, size_t len, unsigned *ret_point)
{
	const unsigned char *p = (const unsigned char *)text;
	unsigned point, least;
	size_t need;

	if (len == 0)
		return 0;
	if (p[0] < 0x80) {
		if (ret_point)
			*ret_point = p[0];
		return 1;
	}
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		need = 2;
		point = p[0] & 0x1fu;
		least = 0x80;
	} else if ((p[0] & 0xf0) == 0xe0) {
		need = 3;
		point = p[0] & 0x0fu;
		least = 0x800;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		need = 4;
		point = p[0] & 0x07u;
		least = 0x10000;
	} else {
		return 0;
	}
	if (len < need)
		return 0;
	for (size_t i = 1; i < need; i++) {
		if (!is_cont(p[i]))
			return 0;
		point = point << 6 | (p[i] & 0x3fu);
	}
	if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	if (ret_point)
		*ret_point = point;
	return need;
}

bool kt_utf8_valid(struct kt_view text)
{
	for (size_t at = 0; at < text.len;) {
		size_t n = kt_base_utf8_next(text.ptr + at, text.len - at, NULL);
		if (n == 0)
			return false;
		at += n;
	}
	return true;
}

static bool is_printable(unsigned point)
{
	if (point < 0x20 || (point >= 0x7f && point <= 0x9f))
		return false;
	/* Line and paragraph separators, bidirectional marks: they make a log line read as another. */
	if (point >= 0x2028 && point <= 0x202e)
		return false;
	if (point >= 0x2066 && point <= 0x2069)
		return false;
	return point != 0x200e && point != 0x200f && point != 0xfeff;
}

size_t kt_base_escape(const char *text, size_t len, char *out, size_t cap)
{
	static const char digits[] = "0123456789abcdef";
	size_t used = 0;
	size_t safe = 0; /* where "..." may still be put */

	for (size_t at = 0; at < len;) {
		unsigned point = 0;
		size_t n = kt_base_utf8_next(text + at, len - at, &point);
		bool plain = n > 0 && is_printable(point);
		size_t take = n > 0 ? n : 1;
		size_t need = plain ? n : 4 * take;

		if (used + 4 <= cap)
			safe = used;
		if (used + need + 1 > cap) {
			if (cap >= 4) {
				memcpy(out + safe, "...", 3);
				used = safe + 3;
			}
			break;
		}
		if (plain) {
			memcpy(out + used, text + at, n);
		} else {
			for (size_t i = 0; i < take; i++) {
				unsigned char c = (unsigned char)text[at + i];
				char hex[4] = {'\\', 'x', digits[c >> 4], digits[c & 15]};
				memcpy(out + used + 4 * i, hex, 4);
			}
		}
		used += need;
		at += take;
	}
	if (cap > 0)
		out[used] = '\0';
	return used;
}
