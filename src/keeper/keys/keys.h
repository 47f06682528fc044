/* The master key: where it comes from, sealing and opening under it, and its replacement. */
#ifndef KEEPER_KEYS_KEYS_H
#define KEEPER_KEYS_KEYS_H

#include <stdbool.h>

#include "kt/buf.h"
#include "kt/err.h"
#include "kt/secret.h"
#include "keeper/store/store.h"

/*
 * A blob is: format (1 byte, 1), key version (1 byte), nonce (24 bytes, random), XChaCha20-Poly1305 (IETF) text and
 * tag. Associated data: the first two bytes, the store's id and every field of struct kt_seal_id, each with its
 * length. So a blob can't be moved to another row, column, revision or store.
 */
enum { KT_KEYS_MASTER_LEN = 32, KT_KEYS_OVERHEAD = 2 + 24 + 16 };

struct kt_keys;

/* ---- where the master key comes from -------------------------------------------------------------------------- */

/* 32 raw bytes, or 64 hex digits with or without a newline (what a file or a command gives). KT_E_INVALID otherwise;
 * the error never shows the bytes. */
enum kt_code kt_keys_parse(struct kt_view text, struct kt_secret **ret, struct kt_err *err);

/* $CREDENTIALS_DIRECTORY/keyturn-master-key. KT_E_NOTFOUND when there is no such credential. */
enum kt_code kt_keys_from_systemd(struct kt_secret **ret, struct kt_err *err);

/*
 * From a file, which nobody else may read or write (KT_E_POLICY). When it is absent and create is set it is made,
 * 0600 and durable, and *ret_created says so: the caller then warns that this file must be kept apart from backups
 * of the state. path NULL: <state dir>/master-key. A replacement that was interrupted is finished or undone here (see
 * kt_keys_rotate_file). An absent file is never made when the store already has a key check: KT_E_NOTFOUND.
 */
enum kt_code kt_keys_from_file(struct kt_store *store, const char *path, bool create, struct kt_secret **ret,
                               bool *ret_created, struct kt_err *err);

/* ---- using it -------------------------------------------------------------------------------------------------- */

/*
 * Checks the master key against the store before anything is written (KT_E_CRYPTO: wrong key). A store that has no
 * key yet gets its check value, in a transaction of its own. master is copied. *ret: kt_keys_destroy.
 */
enum kt_code kt_keys_open(struct kt_store *store, const struct kt_secret *master, struct kt_keys **ret,
                          struct kt_err *err);
void kt_keys_destroy(struct kt_keys *keys); /* NULL is accepted */
unsigned kt_keys_version(const struct kt_keys *keys);

/* Appends the blob to out. Touches nothing but its arguments: may run on several threads. */
enum kt_code kt_keys_seal(const struct kt_keys *keys, const struct kt_seal_id *id, struct kt_view plain,
                          struct kt_buf *out, struct kt_err *err);
/* KT_E_CRYPTO when the blob is damaged, belongs elsewhere, or was sealed under another key. */
enum kt_code kt_keys_unseal(const struct kt_keys *keys, const struct kt_seal_id *id, struct kt_view blob,
                            struct kt_secret **ret, struct kt_err *err);

/* ---- replacing it ---------------------------------------------------------------------------------------------- */

/*
 * Seals everything anew under `master` in one transaction of its own, together with the check value; killed at any
 * moment, the store is wholly under the one or the other. On KT_OK keys is the new one. ret_count: blobs (may be
 * NULL). The caller has stored the new key durably before: this is for keys from systemd or a command.
 */
enum kt_code kt_keys_rotate(struct kt_store *store, struct kt_keys *keys, const struct kt_secret *master,
                            uint64_t *ret_count, struct kt_err *err);
/*
 * The same for a key file: writes <path>.new (0600, durable), rotates, renames it over <path>. Killed in between,
 * kt_keys_from_file takes whichever file the store answers to and tidies the other.
 */
enum kt_code kt_keys_rotate_file(struct kt_store *store, struct kt_keys *keys, const char *path, uint64_t *ret_count,
                                 struct kt_err *err);

#endif
