/* The anchor: a small file that remembers the newest audit record, so that an old copy of the store is noticed. */
#include "keeper/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kt/text.h"

/*
 * <state>/anchor is one line, "keyturn-anchor 1 <store id> <seq> <hash>\n", written over in place after each commit
 * that added to the audit trail, without fsync: after a power cut it may lag behind, never run ahead, because the
 * commit was on disk before. So an anchor ahead of the store means that the store is an older copy, and a hash that
 * differs means another history.
 */
#define ANCHOR_NAME   "anchor"
#define ANCHOR_FORMAT "keyturn-anchor 1 %s %020lld %s\n"
enum { ANCHOR_LEN = 17 + 32 + 1 + 20 + 1 + 64 + 1 };

static bool parse(const char *text, struct kt_anchor *ret)
{
	struct kt_buf bytes;
	uint64_t seq;
	bool good = false;

	kt_buf_init(&bytes, 64);
	if (memcmp(text, "keyturn-anchor 1 ", 17) == 0 && text[49] == ' ' && text[70] == ' ' && text[135] == '\n' &&
	    kt_hex_decode((struct kt_view){text + 17, 32}, &bytes, NULL) == KT_OK &&
	    kt_parse_u64((struct kt_view){text + 50, 20}, INT64_MAX, &seq, NULL) == KT_OK &&
	    kt_hex_decode((struct kt_view){text + 71, 64}, &bytes, NULL) == KT_OK && bytes.len == 48) {
		memcpy(ret->id, bytes.ptr, 16);
		memcpy(ret->hash, bytes.ptr + 16, KT_STORE_HASH_LEN);
		ret->seq = (int64_t)seq;
		good = true;
	}
	kt_buf_finish(&bytes);
	return good;
}

enum kt_code kt_anchor_read(struct kt_store *store, struct kt_anchor *ret, struct kt_err *err)
{
	int flags = store->read_only ? O_RDONLY : O_RDWR | O_CREAT;
	char text[ANCHOR_LEN + 1] = "";

	memset(ret, 0, sizeof(*ret));
	store->anchor_fd = openat(store->dir_fd, ANCHOR_NAME, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	if (store->anchor_fd < 0 && errno == ENOENT && store->read_only)
		return KT_OK;
	if (store->anchor_fd < 0)
		return kt_err_sys(err, "%s/" ANCHOR_NAME, store->dir);
	ssize_t got = pread(store->anchor_fd, text, ANCHOR_LEN, 0);
	if (got < 0)
		return kt_err_sys(err, "read %s/" ANCHOR_NAME, store->dir);
	ret->known = got == ANCHOR_LEN && parse(text, ret);
	return KT_OK;
}

/* The hash that the store has for that record: the head, the base of a pruned chain, or the row. */
static enum kt_code hash_at(struct kt_store *store, int64_t seq, uint8_t *hash, bool *ret_known, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	int64_t base;
	enum kt_code code = kt_meta_get_mark(store, "kt.audit_base", &base, hash, err);
	bool row;

	*ret_known = code == KT_OK && seq == base;
	if (code != KT_OK || seq <= base)
		return code;
	if ((code = kt_query_open(&query, store, KT_STMT_AUDIT_HASH, err)) != KT_OK)
		return code;
	kt_query_int(&query, seq);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK || !row)
		return code;
	struct kt_view found = kt_col_view(&query, 0);
	if (found.len == KT_STORE_HASH_LEN) {
		memcpy(hash, found.ptr, KT_STORE_HASH_LEN);
		*ret_known = true;
	}
	return kt_query_fetched(&query, err);
}

enum kt_code kt_anchor_compare(struct kt_store *store, const struct kt_anchor *anchor, struct kt_err *err)
{
	uint8_t hash[KT_STORE_HASH_LEN];
	bool known;

	if (!anchor->known) {
		if (!(store->notes & KT_STORE_IS_NEW))
			store->notes |= KT_STORE_NO_ANCHOR;
		return KT_OK;
	}
	if (memcmp(anchor->id, store->id, sizeof(store->id)) != 0)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " is not the store that was here before: restore the right one, or "
		                  "remove %s/" ANCHOR_NAME " if you replaced it on purpose",
		                  store->dir, store->dir);
	if (anchor->seq > store->now.audit_seq)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " is an older copy: it ends with audit record %lld, but %lld was "
		                  "written already; restore the newest copy, or remove %s/" ANCHOR_NAME
		                  " to go on with this one (keys and orders made since are lost)",
		                  store->dir, (long long)store->now.audit_seq, (long long)anchor->seq, store->dir);
	enum kt_code code = hash_at(store, anchor->seq, hash, &known, err);
	if (code != KT_OK)
		return code;
	if (known && memcmp(hash, anchor->hash, sizeof(hash)) != 0)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " has another history: its audit record %lld is not the one that was "
		                  "written here; restore the right copy, or remove %s/" ANCHOR_NAME
		                  " to go on with this one",
		                  store->dir, (long long)anchor->seq, store->dir);
	return KT_OK;
}

void kt_anchor_write(struct kt_store *store)
{
	static const char digits[] = "0123456789abcdef";
	char id[33];
	char hash[65];
	char text[ANCHOR_LEN + 1];

	if (store->anchor_fd < 0 || store->read_only)
		return;
	for (size_t i = 0; i < sizeof(store->id); i++) {
		id[2 * i] = digits[store->id[i] >> 4];
		id[2 * i + 1] = digits[store->id[i] & 15];
	}
	for (size_t i = 0; i < KT_STORE_HASH_LEN; i++) {
		hash[2 * i] = digits[store->now.audit_hash[i] >> 4];
		hash[2 * i + 1] = digits[store->now.audit_hash[i] & 15];
	}
	id[32] = hash[64] = '\0';
	int len = snprintf(text, sizeof(text), ANCHOR_FORMAT, id, (long long)store->now.audit_seq, hash);
	if (len == ANCHOR_LEN && pwrite(store->anchor_fd, text, ANCHOR_LEN, 0) != ANCHOR_LEN)
		errno = 0;
}
