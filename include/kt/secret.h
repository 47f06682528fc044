/* Secret bytes: a type of its own, which no log, error or JSON function accepts. */
#ifndef KT_SECRET_H
#define KT_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "kt/buf.h"
#include "kt/err.h"

/*
 * Opaque. Memory comes from one locked arena (sodium_malloc once, not per secret: guard pages per secret would
 * exhaust vm.max_map_count), excluded from core dumps, zeroed on destroy. Where locking is refused
 * the arena works unlocked and kt_secret_locked() says so.
 */
struct kt_secret;

/* Calls sodium_init and makes the arena; must run before any other function here. Idempotent. */
enum kt_code kt_secret_init(struct kt_err *err);
bool kt_secret_locked(void);

/* Copies len bytes (1 B to 256 KiB) in. *ret is owned by the caller: kt_secret_destroy. */
enum kt_code kt_secret_create(const void *data, size_t len, struct kt_secret **ret, struct kt_err *err);
/* len zero bytes to be filled through kt_secret_edit. */
enum kt_code kt_secret_alloc(size_t len, struct kt_secret **ret, struct kt_err *err);
/* As kt_secret_create, then wipes the buffer it came from, whatever the outcome. */
enum kt_code kt_secret_from_buf(struct kt_buf *buf, struct kt_secret **ret, struct kt_err *err);
void kt_secret_destroy(struct kt_secret *secret); /* NULL is accepted */

/* The bytes, for the moment of use; a NUL follows them. Never copy them into a log, error or JSON. */
struct kt_view kt_secret_view(const struct kt_secret *secret);
void *kt_secret_edit(struct kt_secret *secret);
size_t kt_secret_len(const struct kt_secret *secret);
/* Shortens (len <= current). */
void kt_secret_truncate(struct kt_secret *secret, size_t len);
/* Constant-time comparison. */
bool kt_secret_eq(const struct kt_secret *a, const struct kt_secret *b);

/* Wipes memory in a way the compiler keeps. */
void kt_wipe(void *ptr, size_t len);

void kt_cleanup_secret(struct kt_secret **p);
#define KT_AUTOSECRET __attribute__((cleanup(kt_cleanup_secret)))

#endif
