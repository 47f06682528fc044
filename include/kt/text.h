/* Text: base64, hex, numbers, identifiers, edit distance; all bounded, none depends on the locale. */
#ifndef KT_TEXT_H
#define KT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/err.h"

/* RFC 4648: standard with padding, url without. Decoders refuse padding errors, white space, stray bits. */
void kt_base64_encode(struct kt_buf *out, const void *data, size_t len);
void kt_base64url_encode(struct kt_buf *out, const void *data, size_t len);
enum kt_code kt_base64_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err);
enum kt_code kt_base64url_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err);
void kt_hex_encode(struct kt_buf *out, const void *data, size_t len); /* lower case */
enum kt_code kt_hex_decode(struct kt_view text, struct kt_buf *out, struct kt_err *err);

/* Whole decimal number, no white space, no sign (u64) or optional '-' (i64). */
enum kt_code kt_parse_u64(struct kt_view text, uint64_t max, uint64_t *ret, struct kt_err *err);
enum kt_code kt_parse_i64(struct kt_view text, int64_t min, int64_t max, int64_t *ret, struct kt_err *err);

bool kt_starts_with(const char *text, const char *prefix);
bool kt_ends_with(const char *text, const char *suffix);
/* Whether one of the words, which single spaces part, is this one. */
bool kt_has_word(struct kt_view words, const char *word);
bool kt_utf8_valid(struct kt_view text);
/* Case-insensitive for ASCII. */
bool kt_ascii_ieq(struct kt_view a, struct kt_view b);

/* RFC 1123 label / subdomain as Kubernetes checks metadata.name (at most 253 bytes). */
bool kt_dns1123_subdomain(const char *name);

/* application/x-www-form-urlencoded (RFC 6749 appendix B); adds to out. */
void kt_form_encode(struct kt_buf *out, struct kt_view text);
/* RFC 3986 percent-encoding of everything outside unreserved. */
void kt_percent_encode(struct kt_buf *out, struct kt_view text);

/*
 * A text of somebody else's that may quote a secret, for people: in out each run of 24 letters and digits or more, or of 36
 * of base64's characters, that is no part of `known` (NULL: nothing is) is "[...]".
 */
void kt_text_hide(const char *text, const char *known, char *out, size_t size);

/* The nearest of `names` (NULL-terminated) within a third of its length, or NULL: for "did you mean". */
const char *kt_nearest(const char *name, const char *const *names);

/* Lower-case hex of n random bytes into out (2 n + 1 bytes): trace ids (16), span ids (8), names. */
void kt_rand_hex(char *out, size_t n);
void kt_rand_bytes(void *out, size_t n);
/* Uniform in [0, bound). */
uint64_t kt_rand_below(uint64_t bound);

#endif
