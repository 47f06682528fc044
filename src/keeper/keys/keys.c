/* Sealing under the master key with libsodium, the check value that tells a wrong key, and key replacement. */
#include "keeper/keys/keys_internal.h"

#include <sodium.h>
#include <string.h>

#include "keeper/store/store_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

enum {
	FORMAT = 1,
	NONCE_LEN = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
	TAG_LEN = crypto_aead_xchacha20poly1305_ietf_ABYTES,
	HEAD_LEN = 2 + NONCE_LEN,
	AD_MAX = 2048, /* names are at most 253 bytes each; a CA's URL may be longer */
};
_Static_assert(KT_KEYS_OVERHEAD == HEAD_LEN + TAG_LEN, "the header says what a blob costs");
_Static_assert((int)KT_KEYS_MASTER_LEN == (int)crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "key length");

#define CHECK_NAME "kt.key_check"
static const char check_text[] = "keyturn key check";
static const struct kt_seal_id check_id = {"meta", "", "", CHECK_NAME, "check", 0};

struct kt_keys {
	struct kt_secret *master;
	uint8_t version;
	uint8_t store_id[16];
};

/* ---- sealing ------------------------------------------------------------------------------------------------------------ */

struct ad {
	uint8_t bytes[AD_MAX];
	size_t len;
	bool full;
};

static void ad_add(struct ad *ad, const void *data, size_t len)
{
	if (ad->full || len > sizeof(ad->bytes) - ad->len) {
		ad->full = true;
		return;
	}
	memcpy(ad->bytes + ad->len, data, len);
	ad->len += len;
}

/* Each text with its length before it, so that no two identities give the same bytes. */
static void ad_text(struct ad *ad, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;
	uint8_t size[2] = {(uint8_t)(len >> 8), (uint8_t)len};

	if (len > UINT16_MAX)
		ad->full = true;
	ad_add(ad, size, sizeof(size));
	ad_add(ad, text != NULL ? text : "", len);
}

static enum kt_code ad_build(struct ad *ad, const struct kt_keys *keys, uint8_t version, const struct kt_seal_id *id,
                             struct kt_err *err)
{
	uint8_t head[2] = {FORMAT, version};
	uint8_t revision[8];

	ad->len = 0;
	ad->full = false;
	for (int i = 0; i < 8; i++)
		revision[i] = (uint8_t)((uint64_t)id->revision >> (56 - 8 * i));
	ad_add(ad, head, sizeof(head));
	ad_add(ad, keys->store_id, sizeof(keys->store_id));
	ad_text(ad, id->table);
	ad_text(ad, id->kind);
	ad_text(ad, id->ns);
	ad_text(ad, id->name);
	ad_text(ad, id->part);
	ad_add(ad, revision, sizeof(revision));
	return ad->full ? kt_err_set(err, KT_E_LIMIT, "names of more than %d bytes can't be sealed", AD_MAX) : KT_OK;
}

enum kt_code kt_keys_seal(const struct kt_keys *keys, const struct kt_seal_id *id, struct kt_view plain,
                          struct kt_buf *out, struct kt_err *err)
{
	struct ad ad;
	enum kt_code code = ad_build(&ad, keys, keys->version, id, err);

	if (code != KT_OK)
		return code;
	if (plain.len > KT_STORE_VALUE_MAX - KT_KEYS_OVERHEAD)
		return kt_err_set(err, KT_E_LIMIT, "a secret of more than %d bytes can't be stored", KT_STORE_VALUE_MAX);
	uint8_t *blob = kt_buf_extend(out, HEAD_LEN + plain.len + TAG_LEN);
	if (blob == NULL)
		return kt_buf_check(out, "a sealed value", err);
	blob[0] = FORMAT;
	blob[1] = keys->version;
	randombytes_buf(blob + 2, NONCE_LEN);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(
	        blob + HEAD_LEN, NULL, (const unsigned char *)plain.ptr, plain.len, ad.bytes, ad.len, NULL, blob + 2,
	        (const unsigned char *)kt_secret_view(keys->master).ptr);
	return KT_OK;
}

static enum kt_code refuse_blob(const struct kt_seal_id *id, const char *why, struct kt_err *err)
{
	return kt_err_set(err, KT_E_CRYPTO, "the sealed %s of %s %s%s%s in the store %s", id->part, id->table, id->ns,
	                  id->ns[0] != '\0' ? "/" : "", id->name, why);
}

enum kt_code kt_keys_unseal(const struct kt_keys *keys, const struct kt_seal_id *id, struct kt_view blob,
                            struct kt_secret **ret, struct kt_err *err)
{
	const uint8_t *bytes = (const uint8_t *)blob.ptr;
	struct ad ad;

	*ret = NULL;
	if (blob.len == 0)
		return kt_err_set(err, KT_E_NOTFOUND, "%s %s has no sealed %s", id->table, id->name, id->part);
	if (blob.len <= KT_KEYS_OVERHEAD || bytes[0] != FORMAT)
		return refuse_blob(id, "is damaged", err);
	if (bytes[1] != keys->version)
		return refuse_blob(id, "is sealed under another master key", err);
	size_t len = blob.len - KT_KEYS_OVERHEAD;
	enum kt_code code = ad_build(&ad, keys, bytes[1], id, err);
	if (code != KT_OK || (code = kt_secret_alloc(len, ret, err)) != KT_OK)
		return code;
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(kt_secret_edit(*ret), NULL, NULL, bytes + HEAD_LEN,
	                                               len + TAG_LEN, ad.bytes, ad.len, bytes + 2,
	                                               (const unsigned char *)kt_secret_view(keys->master).ptr) != 0) {
		kt_secret_destroy(*ret);
		*ret = NULL;
		return refuse_blob(id, "is damaged or was moved there from elsewhere", err);
	}
	return KT_OK;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------- */

static enum kt_code make(struct kt_store *store, const struct kt_secret *master, uint8_t version,
                         struct kt_keys **ret, struct kt_err *err)
{
	*ret = NULL;
	if (kt_secret_len(master) != KT_KEYS_MASTER_LEN)
		return kt_err_set(err, KT_E_INVALID, "a master key has %d bytes, this one has %zu", KT_KEYS_MASTER_LEN,
		                  kt_secret_len(master));
	struct kt_keys *keys = kt_calloc(1, sizeof(*keys));
	if (keys == NULL)
		return kt_err_set(err, KT_E_NOMEM, "open the master key: out of memory");
	struct kt_view bytes = kt_secret_view(master);
	enum kt_code code = kt_secret_create(bytes.ptr, bytes.len, &keys->master, err);
	if (code != KT_OK) {
		kt_free(keys);
		return code;
	}
	keys->version = version;
	memcpy(keys->store_id, kt_store_id(store), sizeof(keys->store_id));
	*ret = keys;
	return KT_OK;
}

void kt_keys_destroy(struct kt_keys *keys)
{
	if (keys == NULL)
		return;
	kt_secret_destroy(keys->master);
	kt_free(keys);
}

unsigned kt_keys_version(const struct kt_keys *keys)
{
	return keys->version;
}

/* Writes the check value in the caller's transaction. */
static enum kt_code put_check(struct kt_store *store, const struct kt_keys *keys, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf blob = {0};

	kt_buf_init(&blob, 256);
	enum kt_code code = kt_keys_seal(keys, &check_id, KT_VIEW_LIT(check_text), &blob, err);
	return code == KT_OK ? kt_meta_put(store, CHECK_NAME, kt_buf_view(&blob), err) : code;
}

/* The version of the check value in `blob`, or 0 when it is not one. */
static uint8_t check_version(const struct kt_buf *blob)
{
	return blob->len > KT_KEYS_OVERHEAD && blob->ptr[0] == FORMAT ? (uint8_t)blob->ptr[1] : 0;
}

/* KT_OK: keys fit the store. KT_E_CRYPTO: they don't. KT_E_NOTFOUND: the store has no key yet. */
static enum kt_code check(struct kt_store *store, const struct kt_secret *master, struct kt_keys **ret,
                          struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf blob = {0};
	KT_AUTOSECRET struct kt_secret *plain = NULL;

	*ret = NULL;
	kt_buf_init(&blob, KT_STORE_META_MAX);
	enum kt_code code = kt_store_meta_get(store, CHECK_NAME, &blob, err);
	if (code != KT_OK)
		return code;
	if (check_version(&blob) == 0)
		return kt_store_odd(store, "a key check", err);
	if ((code = make(store, master, check_version(&blob), ret, err)) != KT_OK)
		return code;
	code = kt_keys_unseal(*ret, &check_id, kt_buf_view(&blob), &plain, err);
	if (code != KT_OK) {
		kt_keys_destroy(*ret);
		*ret = NULL;
	}
	if (code == KT_E_CRYPTO)
		return kt_err_set(err, KT_E_CRYPTO,
		                  "this master key is not the one that the state in %s was sealed with: give the right "
		                  "one; nothing was changed",
		                  kt_store_dir(store));
	return code;
}

enum kt_code kt_keys_open(struct kt_store *store, const struct kt_secret *master, struct kt_keys **ret,
                          struct kt_err *err)
{
	struct kt_err local;
	enum kt_code code = check(store, master, ret, err != NULL ? err : &local);

	if (code != KT_E_NOTFOUND)
		return code;
	kt_err_clear(err);
	if ((code = make(store, master, 1, ret, err)) != KT_OK)
		return code;
	if ((code = kt_store_begin(store, err)) == KT_OK) {
		if ((code = put_check(store, *ret, err)) == KT_OK)
			code = kt_store_commit(store, err);
		else
			kt_store_rollback(store);
	}
	if (code != KT_OK) {
		kt_keys_destroy(*ret);
		*ret = NULL;
	}
	return code;
}

/* ---- replacing ---------------------------------------------------------------------------------------------------------- */

struct change {
	const struct kt_keys *old;
	const struct kt_keys *fresh;
};

static enum kt_code reseal(const struct kt_seal_id *id, struct kt_view old, struct kt_buf *out, void *arg,
                           struct kt_err *err)
{
	const struct change *change = arg;
	KT_AUTOSECRET struct kt_secret *plain = NULL;
	enum kt_code code = kt_keys_unseal(change->old, id, old, &plain, err);

	return code == KT_OK ? kt_keys_seal(change->fresh, id, kt_secret_view(plain), out, err) : code;
}

enum kt_code kt_keys_rotate(struct kt_store *store, struct kt_keys *keys, const struct kt_secret *master,
                            uint64_t *ret_count, struct kt_err *err)
{
	struct kt_keys *fresh;
	uint8_t version = keys->version == UINT8_MAX ? 1 : (uint8_t)(keys->version + 1);
	enum kt_code code = make(store, master, version, &fresh, err);

	if (code != KT_OK)
		return code;
	struct change change = {keys, fresh};
	if ((code = kt_store_begin(store, err)) == KT_OK) {
		if ((code = kt_store_reseal(store, reseal, &change, ret_count, err)) == KT_OK &&
		    (code = put_check(store, fresh, err)) == KT_OK)
			code = kt_store_commit(store, err);
		else
			kt_store_rollback(store);
	}
	if (code == KT_OK) {
		struct kt_secret *old = keys->master;
		keys->master = fresh->master;
		keys->version = version;
		fresh->master = old;
		kt_store_checkpoint(store); /* what was sealed under the old key leaves the log too */
	}
	kt_keys_destroy(fresh);
	return code;
}

enum kt_code kt_keys_try(struct kt_store *store, const struct kt_secret *master, struct kt_err *err)
{
	struct kt_keys *keys;
	enum kt_code code = check(store, master, &keys, err);

	kt_keys_destroy(keys);
	return code;
}
