/* What the files of keys/ share. */
#ifndef KEEPER_KEYS_KEYS_INTERNAL_H
#define KEEPER_KEYS_KEYS_INTERNAL_H

#include "keeper/keys/keys.h"

/* Whether the master key is the store's: KT_OK, KT_E_CRYPTO (another's), KT_E_NOTFOUND (the store has none yet). */
enum kt_code kt_keys_try(struct kt_store *store, const struct kt_secret *master, struct kt_err *err);

#endif
