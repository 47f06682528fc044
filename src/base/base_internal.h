/* What the files of base share among themselves: escaping of hostile bytes and room in a buffer. */
#ifndef KT_BASE_INTERNAL_H
#define KT_BASE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"

static inline bool kt_base_leap_year(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/*
 * Length in bytes (1..4) of the well-formed UTF-8 sequence at text, or 0 when there is none (Unicode table 3-7: no
 * surrogates, no overlong forms). *ret_point, when not NULL, receives the code point.
 */
size_t kt_base_utf8_next(const char *text, size_t len, unsigned *ret_point);

/*
 * Copies text to out (cap bytes, NUL included) with everything that is not printable as \xNN: controls, malformed
 * UTF-8, line separators and the marks that turn the direction of text. Too long a text is cut with "...".
 * Returns the length written.
 */
size_t kt_base_escape(const char *text, size_t len, char *out, size_t cap);

/* Makes room for `more` bytes after len (and the NUL) without changing len; false: the buffer has failed. */
bool kt_base_buf_reserve(struct kt_buf *buf, size_t more);
/* Marks the buffer as failed and drops what it held. */
void kt_base_buf_fail(struct kt_buf *buf, enum kt_code code);

#endif
