/* A dynamic byte buffer with a mandatory maximum, and borrowed views of bytes. */
#ifndef KT_BUF_H
#define KT_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/err.h"

/* A borrowed view: len bytes at ptr, not NUL-terminated. ptr may be NULL when len is 0. */
struct kt_view {
	const char *ptr;
	size_t len;
};

#define KT_VIEW_LIT(s) ((struct kt_view){(s), sizeof(s) - 1})
struct kt_view kt_view_str(const char *text); /* NULL gives the empty view */
bool kt_view_eq(struct kt_view a, struct kt_view b);
bool kt_view_eq_str(struct kt_view a, const char *text);

/*
 * Grows up to max bytes; a write past it sets `failed` (KT_E_LIMIT or KT_E_NOMEM) and drops the data, and all
 * later writes do nothing: check once at the end with kt_buf_check. Contents are always followed by a NUL that
 * is not counted. Wiped when finished.
 */
struct kt_buf {
	char *ptr;
	size_t len;
	size_t cap;
	size_t max;
	enum kt_code failed;
};

void kt_buf_init(struct kt_buf *buf, size_t max); /* no allocation yet; max in bytes, must not be 0 */
void kt_buf_finish(struct kt_buf *buf);           /* wipes and frees; may be used again after kt_buf_init */
void kt_buf_reset(struct kt_buf *buf);            /* wipes the contents, keeps the memory, clears failed */

void kt_buf_add(struct kt_buf *buf, const void *data, size_t len);
void kt_buf_adds(struct kt_buf *buf, const char *text);
void kt_buf_addv(struct kt_buf *buf, struct kt_view view);
void kt_buf_addc(struct kt_buf *buf, char c);
void kt_buf_add_u32(struct kt_buf *buf, uint32_t value); /* four bytes, little-endian */
void kt_buf_addf(struct kt_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds text as a JSON string with quotes, escaping what RFC 8259 section 7 asks for. */
void kt_buf_add_json(struct kt_buf *buf, struct kt_view text);
/* Adds `,"name":"text"`, or nothing when text is NULL. */
void kt_buf_add_json_member(struct kt_buf *buf, const char *name, const char *text);
/* Adds `["text","text"]`. */
void kt_buf_add_json_list(struct kt_buf *buf, const char *const *texts, size_t count);
/* Makes room for len bytes and returns where to write them (len is added), or NULL. */
void *kt_buf_extend(struct kt_buf *buf, size_t len);

/* KT_OK, or the first failure, put into err with `name` (what the buffer held). */
enum kt_code kt_buf_check(const struct kt_buf *buf, const char *name, struct kt_err *err);
struct kt_view kt_buf_view(const struct kt_buf *buf);
/* Takes the NUL-terminated contents out (never NULL unless failed); the buffer is empty after. kt_free it. */
char *kt_buf_steal(struct kt_buf *buf, size_t *ret_len);

#define KT_AUTOBUF __attribute__((cleanup(kt_buf_finish)))

#endif
