/* Secrets that the operator or a manifest gave us, sealed. */
#include "keeper/store/store_internal.h"

#include <string.h>

static const size_t texts[] = {
        offsetof(struct kt_store_secret, ns),
        offsetof(struct kt_store_secret, name),
        offsetof(struct kt_store_secret, key),
};
static const size_t views[] = {offsetof(struct kt_store_secret, sealed)};
static const struct kt_shape shape = {
        sizeof(struct kt_store_secret), offsetof(struct kt_store_secret, mem), texts, 3, views, 1,
};

void kt_store_secret_finish(struct kt_store_secret *secret)
{
	kt_row_finish(secret, &shape);
}

static enum kt_code fetch(struct kt_query *query, struct kt_store_secret *ret, struct kt_err *err)
{
	*ret = (struct kt_store_secret){
	        .ns = kt_col_text(query, 0),
	        .name = kt_col_text(query, 1),
	        .key = kt_col_text(query, 2),
	        .sealed = kt_col_view(query, 3),
	        .source = sqlite3_column_int64(query->stmt, 4) != 0 ? KT_SECRET_MANIFEST : KT_SECRET_COMMAND,
	        .updated = sqlite3_column_int64(query->stmt, 5),
	};
	return kt_query_fetched(query, err);
}

enum kt_code kt_store_secret_get(struct kt_store *store, const char *ns, const char *name, const char *key,
                                 struct kt_store_secret *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_SEC_GET, err);
	bool row;

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_need(&query, ns);
	kt_query_need(&query, name);
	kt_query_need(&query, key);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK)
		return code;
	if (!row)
		return kt_err_set(err, KT_E_NOTFOUND, "secret %s/%s has no key %s in the store", ns, name, key);
	code = fetch(&query, ret, err);
	return code == KT_OK ? kt_row_own(ret, &shape, err) : code;
}

enum kt_code kt_store_secret_put(struct kt_store *store, const struct kt_store_secret *secret, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_SEC_PUT, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, secret->ns);
	kt_query_need(&query, secret->name);
	kt_query_need(&query, secret->key);
	kt_query_blob(&query, secret->sealed);
	kt_query_int(&query, secret->source);
	kt_query_int(&query, secret->updated);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_secret_delete(struct kt_store *store, const char *ns, const char *name, const char *key,
                                    struct kt_err *err)
{
	struct kt_query query;
	int64_t changes;
	enum kt_code code = kt_query_open(&query, store, key != NULL ? KT_STMT_SEC_DELETE : KT_STMT_SEC_DELETE_ALL, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, ns);
	kt_query_need(&query, name);
	if (key != NULL)
		kt_query_text(&query, key);
	if ((code = kt_query_run(&query, &changes, err)) != KT_OK)
		return code;
	if (changes == 0)
		return kt_err_set(err, KT_E_NOTFOUND, "there is no secret %s/%s%s%s in the store", ns, name,
		                  key != NULL ? " with key " : "", key != NULL ? key : "");
	return KT_OK;
}

enum kt_code kt_store_secret_each(struct kt_store *store, const char *ns, const char *name,
                                  bool (*fn)(const struct kt_store_secret *secret, void *arg), void *arg,
                                  struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_secret secret;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_SEC_EACH, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_text(&query, ns);
	kt_query_text(&query, name);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = fetch(&query, &secret, err)) != KT_OK)
			return code;
		if (!fn(&secret, arg))
			break;
	}
	return code;
}

enum kt_code kt_store_secret_drop_stale(struct kt_store *store, kt_ms before, struct kt_err *err)
{
	return kt_query_run_one(store, KT_STMT_SEC_STALE, before, err);
}
