/* Text helpers: base64, hex, numbers, names, URL encodings, the nearest word, random text. */
#include "config.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "kt/text.h"

/* libsodium's codecs take the same time whatever the bytes are: private keys pass through here. */
static void base64_encode(struct kt_buf *out, const void *data, size_t len, int variant)
{
	size_t need;
	char *at;

	if (len == 0)
		return;
	if (len > SIZE_MAX / 2) {
		kt_buf_extend(out, SIZE_MAX); /* marks it as too large */
		return;
	}
	need = sodium_base64_encoded_len(len, variant) - 1;
	at = kt_buf_extend(out, need);
	if (at)
		sodium_bin2base64(at, need + 1, data, len, variant);
}

static enum kt_code base64_decode(struct kt_view text, struct kt_buf *out, int variant, struct kt_err *err)
{
	size_t room, len = 0, old = out->len;
	const char *end = NULL;
	unsigned char *at;

	if (text.len == 0)
		return kt_buf_check(out, "base64", err);
	/* libsodium takes a byte above 127 for the last letter of the alphabet where char is signed. */
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.ptr[i] >= 0x80)
			return kt_err_set(err, KT_E_INVALID, "base64: malformed");
	/* Exact, so that a limit of exactly the decoded size holds. */
	room = text.len / 4 * 3 + text.len % 4 * 3 / 4;
	if (variant == sodium_base64_VARIANT_ORIGINAL && text.ptr[text.len - 1] == '=' && room > 0)
		room -= text.len > 1 && text.ptr[text.len - 2] == '=' && room > 1 ? 2 : 1;
	at = kt_buf_extend(out, room);
	if (!at)
		return kt_buf_check(out, "base64", err);
	if (sodium_base642bin(at, room, text.ptr, text.len, NULL, &len, &end, variant) != 0 ||
	    end != text.ptr + text.len) {
		sodium_memzero(at, room);
		out->len = old;
		out->ptr[old] = '\0';
		return kt_err_set(err, KT_E_INVALID, "base64: malformed");
	}
	out->len = old + len;
	out->ptr[out->len] = '\0';
	return KT_OK;
}

void kt_base64_encode(struct kt_buf *out, const void *data, size_t len)
{
	base64_encode(out, data, len, sodium_base64_VARIANT_ORIGINAL);
}

void kt_base64url_encode(struct kt_buf *out, const void *data, size_t len)
{
	base64_encode(out, data, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

enum kt_code kt_base64_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err)
{
	return base64_decode(text, out, sodium_base64_VARIANT_ORIGINAL, err);
}

enum kt_code kt_base64url_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err)
{
	return base64_decode(text, out, sodium_base64_VARIANT_URLSAFE_NO_PADDING, err);
}

void kt_hex_encode(struct kt_buf *out, const void *data, size_t len)
{
	char *at;

	if (len == 0)
		return;
	at = kt_buf_extend(out, len > SIZE_MAX / 2 ? SIZE_MAX : 2 * len);
	if (at)
		sodium_bin2hex(at, 2 * len + 1, data, len);
}

enum kt_code kt_hex_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err)
{
	size_t len = 0, old = out->len;
	unsigned char *at;

	if (text.len % 2 != 0)
		return kt_err_set(err, KT_E_INVALID, "hex: an odd number of digits");
	if (text.len == 0)
		return kt_buf_check(out, "hex", err);
	at = kt_buf_extend(out, text.len / 2);
	if (!at)
		return kt_buf_check(out, "hex", err);
	if (sodium_hex2bin(at, text.len / 2, text.ptr, text.len, NULL, &len, NULL) != 0 || len != text.len / 2) {
		sodium_memzero(at, text.len / 2);
		out->len = old;
		out->ptr[old] = '\0';
		return kt_err_set(err, KT_E_INVALID, "hex: malformed");
	}
	return KT_OK;
}

enum kt_code kt_parse_u64(struct kt_view text, uint64_t max, uint64_t *ret, struct kt_err *err)
{
	uint64_t value = 0;

	if (text.len == 0)
		return kt_err_set(err, KT_E_INVALID, "a number is missing");
	for (size_t i = 0; i < text.len; i++) {
		unsigned digit = (unsigned char)text.ptr[i] - (unsigned)'0';

		if (digit > 9)
			return kt_err_set(err, KT_E_INVALID, "not a whole number");
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value) ||
		    value > max)
			return kt_err_set(err, KT_E_LIMIT, "number above the limit of %llu", (unsigned long long)max);
	}
	*ret = value;
	return KT_OK;
}

enum kt_code kt_parse_i64(struct kt_view text, int64_t min, int64_t max, int64_t *ret, struct kt_err *err)
{
	bool negative = text.len > 0 && text.ptr[0] == '-';
	uint64_t size = 0;
	int64_t value;
	enum kt_code code;

	if (negative)
		text = (struct kt_view){text.ptr + 1, text.len - 1};
	code = kt_parse_u64(text, (uint64_t)INT64_MAX + (negative ? 1 : 0), &size, err);
	if (code == KT_E_LIMIT)
		goto range;
	if (code != KT_OK)
		return code;
	value = negative ? (int64_t)(0 - size) : (int64_t)size;
	if (value < min || value > max)
		goto range;
	*ret = value;
	return KT_OK;
range:
	return kt_err_set(err, KT_E_LIMIT, "number outside %lld to %lld", (long long)min, (long long)max);
}

bool kt_starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool kt_ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text), tail = strlen(suffix);

	return len >= tail && memcmp(text + len - tail, suffix, tail) == 0;
}

static unsigned char lower(char c)
{
	unsigned char u = (unsigned char)c;

	return u >= 'A' && u <= 'Z' ? (unsigned char)(u | 0x20) : u;
}

bool kt_has_word(struct kt_view words, const char *word)
{
	size_t len = strlen(word);
	size_t at = 0;

	while (at < words.len) {
		const char *space = memchr(words.ptr + at, ' ', words.len - at);
		size_t end = space != NULL ? (size_t)(space - words.ptr) : words.len;

		if (end - at == len && memcmp(words.ptr + at, word, len) == 0)
			return true;
		at = end + 1;
	}
	return false;
}

bool kt_ascii_ieq(struct kt_view a, struct kt_view b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (lower(a.ptr[i]) != lower(b.ptr[i]))
			return false;
	return true;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z');
}

bool kt_dns1123_subdomain(const char *name)
{
	size_t len = strlen(name);
	char before = '.';

	if (len == 0 || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (c == '-' || c == '.') {
			/* A label neither starts nor ends with '-', and is not empty. */
			if (before == '.' || (c == '.' && before == '-'))
				return false;
		} else if (!is_digit(c) && !(c >= 'a' && c <= 'z')) {
			return false;
		}
		before = c;
	}
	return before != '-' && before != '.';
}

static void encode(struct kt_buf *out, struct kt_view text, const char *also_plain, bool space_is_plus)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		unsigned char u = (unsigned char)c;

		if (is_alnum(c) || (c != '\0' && strchr(also_plain, c))) {
			kt_buf_addc(out, c);
		} else if (c == ' ' && space_is_plus) {
			kt_buf_addc(out, '+');
		} else {
			char escape[3] = {'%', digits[u >> 4], digits[u & 15]};
			kt_buf_add(out, escape, sizeof(escape));
		}
	}
}

#define HIDE_FROM   24u /* a UUID's longest run has 12, an id's about 20, a secret's 32 */
#define HIDE_BASE64 36u /* AWS's have 40 */

/* How long the run of base64's characters is; whether it is one that could be a secret. */
static size_t run_of(const char *text, bool *ret_long)
{
	size_t len = 0, word = 0, longest = 0;
	bool big = false, small = false, digit = false;

	for (; is_alnum(text[len]) || text[len] == '+' || text[len] == '/'; len++) {
		word = is_alnum(text[len]) ? word + 1 : 0;
		longest = word > longest ? word : longest;
		big = big || (text[len] >= 'A' && text[len] <= 'Z');
		small = small || (text[len] >= 'a' && text[len] <= 'z');
		digit = digit || (text[len] >= '0' && text[len] <= '9');
	}
	*ret_long = longest >= HIDE_FROM || (len >= HIDE_BASE64 && big && small && digit);
	return len;
}

void kt_text_hide(const char *text, const char *known, char *out, size_t size)
{
	size_t used = 0, len;

	if (size == 0)
		return;
	out[0] = '\0';
	for (; *text != '\0' && used + 1 < size; text += len) {
		bool hidden, shown;

		len = run_of(text, &hidden);
		shown = !hidden || (known && memmem(known, strlen(known), text, len));
		len = len > 0 ? len : 1;
		(void)snprintf(out + used, size - used, "%.*s", shown ? (int)len : 5, shown ? text : "[...]");
		used += strlen(out + used);
	}
}


void kt_form_encode(struct kt_buf *out, struct kt_view text)
{
	encode(out, text, "*-._", true);
}

void kt_percent_encode(struct kt_buf *out, struct kt_view text)
{
	encode(out, text, "-._~", false);
}

enum { NEAREST_MAX = 64 };

/* Optimal string alignment: insert, delete, replace, swap of neighbours each cost 1. */
static size_t distance(const char *a, size_t alen, const char *b, size_t blen)
{
	size_t rows[3][NEAREST_MAX + 1];
	size_t *before = rows[0], *last = rows[1], *now = rows[2];

	for (size_t j = 0; j <= blen; j++)
		last[j] = j;
	for (size_t i = 1; i <= alen; i++) {
		size_t *spare = before;

		now[0] = i;
		for (size_t j = 1; j <= blen; j++) {
			size_t best = last[j - 1] + (lower(a[i - 1]) != lower(b[j - 1]));

			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			now[j] = best;
		}
		before = last;
		last = now;
		now = spare;
	}
	return last[blen];
}

const char *kt_nearest(const char *name, const char *const *names)
{
	size_t len = strlen(name);
	size_t best = len / 3 > 0 ? len / 3 : 1;
	const char *found = NULL;

	if (len == 0 || len > NEAREST_MAX)
		return NULL;
	for (; *names; names++) {
		size_t other = strlen(*names);
		size_t d;

		if (other > NEAREST_MAX)
			continue;
		d = distance(name, len, *names, other);
		if (d < best || (d == best && !found)) {
			best = d;
			found = *names;
		}
	}
	return found;
}

void kt_rand_bytes(void *out, size_t n)
{
	randombytes_buf(out, n);
}

void kt_rand_hex(char *out, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	/* The random bytes lie in the upper half of out and are spread from the front. */
	randombytes_buf(out + n, n);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)out[n + i];

		out[2 * i] = digits[c >> 4];
		out[2 * i + 1] = digits[c & 15];
	}
	out[2 * n] = '\0';
}

uint64_t kt_rand_below(uint64_t bound)
{
	uint64_t value, least;

	if (bound < 2)
		return 0;
	least = (0 - bound) % bound; /* values below would make small results likelier */
	do {
		randombytes_buf(&value, sizeof(value));
	} while (value < least);
	return value % bound;
}
