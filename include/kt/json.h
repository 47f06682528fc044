/* JSON from strangers: jansson with size, depth and duplicate-key limits, and typed getters that explain. */
#ifndef KT_JSON_H
#define KT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/err.h"

/* Puts the wiping allocator behind jansson; call once at start of a program. */
void kt_json_init(void);

/*
 * Parses one complete value of at most max bytes; duplicate keys, trailing data, NULs in strings and nesting
 * above 64 are refused. *ret is owned by the caller: json_decref.
 */
enum kt_code kt_json_parse(struct kt_view text, size_t max, json_t **ret, struct kt_err *err);

/* Compact, keys sorted (canonical for hashing). Appends to out. KT_E_NOMEM or KT_E_LIMIT on failure. */
enum kt_code kt_json_dump(const json_t *value, struct kt_buf *out, struct kt_err *err);

/* Member as string / integer / bool; NULL, fallback when absent or of another type. Borrowed from object. */
const char *kt_json_str(const json_t *object, const char *key);
int64_t kt_json_int(const json_t *object, const char *key, int64_t fallback);
bool kt_json_bool(const json_t *object, const char *key, bool fallback);

static inline void kt_cleanup_json(json_t **p)
{
	json_decref(*p);
}
#define KT_AUTOJSON __attribute__((cleanup(kt_cleanup_json)))

#endif
