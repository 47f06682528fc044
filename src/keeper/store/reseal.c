/* Every sealed column there is: what each blob belongs to, and their replacement under a new master key. */
#include "keeper/store/store_internal.h"

#include <string.h>

struct kt_seal_id kt_store_material_seal_id(const struct kt_store_resource *resource, int64_t revision,
                                            const char *part)
{
	return (struct kt_seal_id){"material", resource->kind, resource->ns, resource->name, part, revision};
}

struct kt_seal_id kt_store_account_seal_id(const char *issuer, const char *server_url)
{
	return (struct kt_seal_id){"account", "", server_url, issuer, "key", 0};
}

struct kt_seal_id kt_store_secret_seal_id(const char *ns, const char *name, const char *key)
{
	return (struct kt_seal_id){"secret", "", ns, name, key, 0};
}

struct kt_seal_id kt_store_issuer_key_seal_id(const char *issuer, const char *kid)
{
	return (struct kt_seal_id){"issuer_key", "", "", issuer, kid, 0};
}

struct reseal {
	struct kt_store *store;
	enum kt_code (*fn)(const struct kt_seal_id *id, struct kt_view old, struct kt_buf *fresh, void *arg,
	                   struct kt_err *err);
	void *arg;
	struct kt_buf fresh[2];
	uint64_t count;
	struct kt_err *err;
};

/* One blob: `old` sealed anew into the buffer; an absent one stays absent. */
static enum kt_code one(struct reseal *job, struct kt_seal_id id, struct kt_view old, struct kt_buf *fresh)
{
	kt_buf_reset(fresh);
	if (old.len == 0)
		return KT_OK;
	enum kt_code code = job->fn(&id, old, fresh, job->arg, job->err);
	if (code == KT_OK)
		code = kt_buf_check(fresh, "a sealed value", job->err);
	job->count += code == KT_OK;
	return code;
}

static enum kt_code material(struct reseal *job, struct kt_query *row)
{
	struct kt_seal_id id = {"material",           kt_col_text(row, 1), kt_col_text(row, 2), kt_col_text(row, 3), "key",
	                        sqlite3_column_int64(row->stmt, 4)};
	struct kt_query query;
	enum kt_code code;

	if (id.kind[0] == '\0')
		return kt_store_odd(job->store, "a material without its resource", job->err);
	if ((code = one(job, id, kt_col_view(row, 5), &job->fresh[0])) != KT_OK)
		return code;
	id.part = "token";
	if ((code = one(job, id, kt_col_view(row, 6), &job->fresh[1])) != KT_OK ||
	    (code = kt_query_open(&query, job->store, KT_STMT_SEAL_MAT_PUT, job->err)) != KT_OK)
		return code;
	kt_query_blob(&query, kt_buf_view(&job->fresh[0]));
	kt_query_blob(&query, kt_buf_view(&job->fresh[1]));
	kt_query_int(&query, sqlite3_column_int64(row->stmt, 0));
	return kt_query_run(&query, NULL, job->err);
}

static enum kt_code single(struct reseal *job, struct kt_query *row, struct kt_seal_id id, int col, enum kt_stmt put)
{
	struct kt_query query;
	enum kt_code code = one(job, id, kt_col_view(row, col), &job->fresh[0]);

	if (code != KT_OK || (code = kt_query_open(&query, job->store, put, job->err)) != KT_OK)
		return code;
	kt_query_blob(&query, kt_buf_view(&job->fresh[0]));
	kt_query_int(&query, sqlite3_column_int64(row->stmt, 0));
	return kt_query_run(&query, NULL, job->err);
}

static enum kt_code account(struct reseal *job, struct kt_query *row)
{
	return single(job, row, kt_store_account_seal_id(kt_col_text(row, 1), kt_col_text(row, 2)), 3,
	              KT_STMT_SEAL_ACC_PUT);
}

static enum kt_code secret(struct reseal *job, struct kt_query *row)
{
	return single(job, row,
	              kt_store_secret_seal_id(kt_col_text(row, 1), kt_col_text(row, 2), kt_col_text(row, 3)), 4,
	              KT_STMT_SEAL_SEC_PUT);
}

static enum kt_code issuer_key(struct reseal *job, struct kt_query *row)
{
	return single(job, row, kt_store_issuer_key_seal_id(kt_col_text(row, 1), kt_col_text(row, 2)), 3,
	              KT_STMT_SEAL_IKEY_PUT);
}

/* Rows are replaced while the walk stands on them: their row ids stay, so each is met once. */
static enum kt_code table(struct reseal *job, enum kt_stmt slot,
                          enum kt_code (*row_fn)(struct reseal *job, struct kt_query *row))
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, job->store, slot, job->err);
	bool row;

	if (code != KT_OK)
		return code;
	while ((code = kt_query_step(&query, &row, job->err)) == KT_OK && row)
		if ((code = row_fn(job, &query)) != KT_OK || (code = kt_query_fetched(&query, job->err)) != KT_OK)
			return code;
	return code;
}

enum kt_code kt_store_reseal(struct kt_store *store,
                             enum kt_code (*fn)(const struct kt_seal_id *id, struct kt_view old, struct kt_buf *fresh,
                                                void *arg, struct kt_err *err),
                             void *arg, uint64_t *ret_count, struct kt_err *err)
{
	struct reseal job = {.store = store, .fn = fn, .arg = arg, .err = err};
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK)
		return code;
	kt_buf_init(&job.fresh[0], KT_STORE_VALUE_MAX);
	kt_buf_init(&job.fresh[1], KT_STORE_VALUE_MAX);
	if ((code = table(&job, KT_STMT_SEAL_MAT, material)) == KT_OK &&
	    (code = table(&job, KT_STMT_SEAL_ACC, account)) == KT_OK &&
	    (code = table(&job, KT_STMT_SEAL_SEC, secret)) == KT_OK)
		code = table(&job, KT_STMT_SEAL_IKEY, issuer_key);
	kt_buf_finish(&job.fresh[0]);
	kt_buf_finish(&job.fresh[1]);
	if (ret_count != NULL)
		*ret_count = job.count;
	return kt_store_break(store, code, err);
}
