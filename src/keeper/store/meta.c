/* Small named values of the store itself and of its users. */
#include "keeper/store/store_internal.h"

#include <string.h>

#include "kt/text.h"

enum kt_code kt_store_meta_get(struct kt_store *store, const char *name, struct kt_buf *out, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_META_GET, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_text(&query, name);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK)
		return code;
	if (!row)
		return kt_err_set(err, KT_E_NOTFOUND, "the store holds no %s", name);
	struct kt_view value = kt_col_view(&query, 0);
	if ((code = kt_query_fetched(&query, err)) != KT_OK)
		return code;
	kt_buf_add(out, value.ptr, value.len);
	return kt_buf_check(out, name, err);
}

enum kt_code kt_meta_put(struct kt_store *store, const char *name, struct kt_view value, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_store_may_write(store, err);

	if (code == KT_OK && value.len > KT_STORE_META_MAX)
		code = kt_err_set(err, KT_E_LIMIT, "%s is longer than %d bytes", name, KT_STORE_META_MAX);
	if (code != KT_OK || (code = kt_query_open(&query, store, KT_STMT_META_SET, err)) != KT_OK)
		return code;
	kt_query_text(&query, name);
	/* NOT NULL: an empty value is an empty blob. */
	if (value.len == 0)
		query.rc = sqlite3_bind_zeroblob(query.stmt, ++query.bound, 0);
	else
		kt_query_blob(&query, value);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_meta_set(struct kt_store *store, const char *name, struct kt_view value, struct kt_err *err)
{
	if (kt_starts_with(name, "kt."))
		return kt_err_set(err, KT_E_INVALID, "%s belongs to the store itself", name);
	return kt_meta_put(store, name, value, err);
}

enum kt_code kt_meta_put_int(struct kt_store *store, const char *name, int64_t value, struct kt_err *err)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%lld", (long long)value);

	return kt_meta_put(store, name, (struct kt_view){text, (size_t)len}, err);
}

/* KT_E_NOTFOUND becomes an empty buffer. */
static enum kt_code get_or_empty(struct kt_store *store, const char *name, struct kt_buf *buf, struct kt_err *err)
{
	enum kt_code code = kt_store_meta_get(store, name, buf, err);

	if (code != KT_E_NOTFOUND)
		return code;
	kt_err_clear(err);
	return KT_OK;
}

enum kt_code kt_meta_get_int(struct kt_store *store, const char *name, int64_t *ret, struct kt_err *err)
{
	struct kt_buf buf;

	*ret = 0;
	kt_buf_init(&buf, 64);
	enum kt_code code = get_or_empty(store, name, &buf, err);
	if (code == KT_OK && buf.len != 0 &&
	    kt_parse_i64(kt_buf_view(&buf), INT64_MIN, INT64_MAX, ret, NULL) != KT_OK)
		code = kt_store_odd(store, name, err);
	kt_buf_finish(&buf);
	return code;
}

enum kt_code kt_meta_put_mark(struct kt_store *store, const char *name, int64_t seq, const uint8_t *hash,
                              struct kt_err *err)
{
	uint8_t value[8 + KT_STORE_HASH_LEN];

	for (int i = 0; i < 8; i++)
		value[i] = (uint8_t)((uint64_t)seq >> (56 - 8 * i));
	memcpy(value + 8, hash, KT_STORE_HASH_LEN);
	return kt_meta_put(store, name, (struct kt_view){(const char *)value, sizeof(value)}, err);
}

enum kt_code kt_meta_get_mark(struct kt_store *store, const char *name, int64_t *seq, uint8_t *hash,
                              struct kt_err *err)
{
	struct kt_buf buf;
	uint64_t number = 0;

	*seq = 0;
	memset(hash, 0, KT_STORE_HASH_LEN);
	kt_buf_init(&buf, 64);
	enum kt_code code = get_or_empty(store, name, &buf, err);
	if (code == KT_OK && buf.len == 8 + KT_STORE_HASH_LEN) {
		for (int i = 0; i < 8; i++)
			number = number << 8 | (uint8_t)buf.ptr[i];
		*seq = (int64_t)number;
		memcpy(hash, buf.ptr + 8, KT_STORE_HASH_LEN);
	} else if (code == KT_OK && buf.len != 0) {
		code = kt_store_odd(store, name, err);
	}
	kt_buf_finish(&buf);
	return code;
}
