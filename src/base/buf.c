/* The dynamic byte buffer with a mandatory maximum. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "base/base_internal.h"
#include "kt/mem.h"

enum { FIRST_CAP = 64 };

struct kt_view kt_view_str(const char *text)
{
	return text ? (struct kt_view){text, strlen(text)} : (struct kt_view){NULL, 0};
}

bool kt_view_eq(struct kt_view a, struct kt_view b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool kt_view_eq_str(struct kt_view a, const char *text)
{
	return kt_view_eq(a, kt_view_str(text));
}

void kt_buf_init(struct kt_buf *buf, size_t max)
{
	*buf = (struct kt_buf){.max = max};
}

void kt_buf_finish(struct kt_buf *buf)
{
	if (!buf)
		return;
	kt_free(buf->ptr);
	*buf = (struct kt_buf){.max = buf->max};
}

void kt_buf_reset(struct kt_buf *buf)
{
	if (buf->ptr) {
		explicit_bzero(buf->ptr, buf->len);
		buf->ptr[0] = '\0';
	}
	buf->len = 0;
	buf->failed = KT_OK;
}

void kt_base_buf_fail(struct kt_buf *buf, enum kt_code code)
{
	kt_buf_finish(buf);
	buf->failed = code;
}

bool kt_base_buf_reserve(struct kt_buf *buf, size_t more)
{
	size_t need, cap;
	char *fresh;

	if (buf->failed != KT_OK)
		return false;
	if (more > buf->max - buf->len) {
		kt_base_buf_fail(buf, KT_E_LIMIT);
		return false;
	}
	need = buf->len + more;
	if (need < buf->cap)
		return true;
	/* cap counts the NUL; it doubles, and never passes max + 1. */
	cap = buf->cap > 0 ? buf->cap : FIRST_CAP;
	while (cap <= need)
		cap = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2;
	if (buf->max < SIZE_MAX && cap > buf->max + 1)
		cap = buf->max + 1;
	fresh = kt_realloc(buf->ptr, cap);
	if (!fresh) {
		kt_base_buf_fail(buf, KT_E_NOMEM);
		return false;
	}
	buf->ptr = fresh;
	buf->cap = cap;
	buf->ptr[buf->len] = '\0';
	return true;
}

void *kt_buf_extend(struct kt_buf *buf, size_t len)
{
	char *at;

	if (!kt_base_buf_reserve(buf, len))
		return NULL;
	at = buf->ptr + buf->len;
	buf->len += len;
	buf->ptr[buf->len] = '\0';
	return at;
}

void kt_buf_add(struct kt_buf *buf, const void *data, size_t len)
{
	void *at = kt_buf_extend(buf, len);

	if (at && len > 0)
		memcpy(at, data, len);
}

void kt_buf_adds(struct kt_buf *buf, const char *text)
{
	kt_buf_add(buf, text, strlen(text));
}

void kt_buf_addv(struct kt_buf *buf, struct kt_view view)
{
	kt_buf_add(buf, view.ptr, view.len);
}

void kt_buf_addc(struct kt_buf *buf, char c)
{
	kt_buf_add(buf, &c, 1);
}

void kt_buf_add_u32(struct kt_buf *buf, uint32_t value)
{
	unsigned char bytes[4] = {(unsigned char)value, (unsigned char)(value >> 8), (unsigned char)(value >> 16),
				  (unsigned char)(value >> 24)};

	kt_buf_add(buf, bytes, sizeof(bytes));
}

void kt_buf_addf(struct kt_buf *buf, const char *fmt, ...)
{
	va_list args, again;
	int len;
	char *at;

	va_start(args, fmt);
	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, args);
	if (len < 0) {
		if (buf->failed == KT_OK)
			kt_base_buf_fail(buf, KT_E_LIMIT);
	} else {
		at = kt_buf_extend(buf, (size_t)len);
		if (at)
			vsnprintf(at, (size_t)len + 1, fmt, again);
	}
	va_end(again);
	va_end(args);
}

/* The short escape of RFC 8259 section 7 for c, or NULL. */
static const char *json_escape(unsigned char c)
{
	switch (c) {
	case '"':
		return "\\\"";
	case '\\':
		return "\\\\";
	case '\b':
		return "\\b";
	case '\f':
		return "\\f";
	case '\n':
		return "\\n";
	case '\r':
		return "\\r";
	case '\t':
		return "\\t";
	default:
		return NULL;
	}
}

void kt_buf_add_json(struct kt_buf *buf, struct kt_view text)
{
	size_t plain = 0; /* start of the run that can be copied as it is */
	size_t at = 0;

	kt_buf_addc(buf, '"');
	while (at < text.len) {
		unsigned char c = (unsigned char)text.ptr[at];
		size_t n = kt_base_utf8_next(text.ptr + at, text.len - at, NULL);
		const char *escape = json_escape(c);

		if (n > 0 && !escape && c >= 0x20) {
			at += n;
			continue;
		}
		kt_buf_add(buf, text.ptr + plain, at - plain);
		if (n == 0)
			kt_buf_adds(buf, "\xef\xbf\xbd"); /* malformed UTF-8 must not leave as JSON */
		else if (escape)
			kt_buf_adds(buf, escape);
		else
			kt_buf_addf(buf, "\\u%04x", c);
		plain = ++at;
	}
	if (text.len > plain)
		kt_buf_add(buf, text.ptr + plain, text.len - plain);
	kt_buf_addc(buf, '"');
}

void kt_buf_add_json_member(struct kt_buf *buf, const char *name, const char *text)
{
	if (!text)
		return;
	kt_buf_addf(buf, ",\"%s\":", name);
	kt_buf_add_json(buf, kt_view_str(text));
}

void kt_buf_add_json_list(struct kt_buf *buf, const char *const *texts, size_t count)
{
	kt_buf_addc(buf, '[');
	for (size_t i = 0; i < count; i++) {
		if (i)
			kt_buf_addc(buf, ',');
		kt_buf_add_json(buf, kt_view_str(texts[i]));
	}
	kt_buf_addc(buf, ']');
}

enum kt_code kt_buf_check(const struct kt_buf *buf, const char *name, struct kt_err *err)
{
	switch (buf->failed) {
	case KT_OK:
		return KT_OK;
	case KT_E_NOMEM:
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", name);
	default:
		return kt_err_set(err, buf->failed, "%s: larger than the limit of %zu bytes", name, buf->max);
	}
}

struct kt_view kt_buf_view(const struct kt_buf *buf)
{
	return (struct kt_view){buf->ptr ? buf->ptr : "", buf->len};
}

char *kt_buf_steal(struct kt_buf *buf, size_t *ret_len)
{
	char *text = NULL;
	size_t len = 0;

	if (kt_base_buf_reserve(buf, 0)) {
		text = buf->ptr;
		len = buf->len;
		*buf = (struct kt_buf){.max = buf->max};
	}
	if (ret_len)
		*ret_len = len;
	return text;
}
