/* Materials: keys, certificates and tokens, sealed, with what is needed to resume an order. */
#include "keeper/store/store_internal.h"

#include <string.h>

#define AT(field) offsetof(struct kt_store_material, field)
static const size_t texts[] = {
        AT(request_key), AT(serial), AT(sha256), AT(order_url), AT(finalize_url), AT(cert_url), AT(cookie), AT(dir),
};
static const size_t views[] = {AT(sealed_key), AT(sealed_token), AT(csr), AT(chain), AT(ca)};
static const struct kt_shape shape = {sizeof(struct kt_store_material), AT(mem), texts, 8, views, 5};

void kt_store_material_finish(struct kt_store_material *material)
{
	kt_row_finish(material, &shape);
}

static enum kt_code fetch(struct kt_query *query, struct kt_store_material *ret, struct kt_err *err)
{
	sqlite3_stmt *stmt = query->stmt;
	int64_t state = sqlite3_column_int64(stmt, 3);

	if (state < 0 || state > KT_MATERIAL_REVOKED)
		return kt_store_odd(query->store, "a material in a state", err);
	*ret = (struct kt_store_material){
	        .id = sqlite3_column_int64(stmt, 0),
	        .credential = sqlite3_column_int64(stmt, 1),
	        .revision = sqlite3_column_int64(stmt, 2),
	        .state = (enum kt_material_state)state,
	        .not_before = sqlite3_column_int64(stmt, 4),
	        .not_after = sqlite3_column_int64(stmt, 5),
	        .created = sqlite3_column_int64(stmt, 6),
	        .issued = sqlite3_column_int64(stmt, 7),
	        .sealed_key = kt_col_view(query, 8),
	        .sealed_token = kt_col_view(query, 9),
	        .request_key = kt_col_text(query, 10),
	        .serial = kt_col_text(query, 11),
	        .sha256 = kt_col_text(query, 12),
	        .csr = kt_col_view(query, 13),
	        .chain = kt_col_view(query, 14),
	        .ca = kt_col_view(query, 15),
	        .order_url = kt_col_text(query, 16),
	        .finalize_url = kt_col_text(query, 17),
	        .cert_url = kt_col_text(query, 18),
	        .cookie = kt_col_text(query, 19),
	        .dir = kt_col_text(query, 20),
	};
	return kt_query_fetched(query, err);
}

/* From state to dir, in the order of both statements. */
static void bind_row(struct kt_query *query, const struct kt_store_material *material)
{
	kt_query_int(query, material->state);
	kt_query_int(query, material->not_before);
	kt_query_int(query, material->not_after);
	kt_query_int(query, material->created);
	kt_query_int(query, material->issued);
	kt_query_blob(query, material->sealed_key);
	kt_query_blob(query, material->sealed_token);
	kt_query_text(query, material->request_key);
	kt_query_text(query, material->serial);
	kt_query_text(query, material->sha256);
	kt_query_blob(query, material->csr);
	kt_query_view(query, material->chain);
	kt_query_view(query, material->ca);
	kt_query_text(query, material->order_url);
	kt_query_text(query, material->finalize_url);
	kt_query_text(query, material->cert_url);
	kt_query_text(query, material->cookie);
	kt_query_text(query, material->dir);
}

enum kt_code kt_store_material_insert(struct kt_store *store, struct kt_store_material *material, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_INSERT, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, material->credential);
	kt_query_int(&query, material->revision);
	bind_row(&query, material);
	code = kt_query_run(&query, NULL, err);
	if (code == KT_OK)
		material->id = sqlite3_last_insert_rowid(store->db);
	return code;
}

enum kt_code kt_store_material_put(struct kt_store *store, const struct kt_store_material *material,
                                   struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_PUT, err);

	if (code != KT_OK)
		return code;
	bind_row(&query, material);
	kt_query_int(&query, material->id);
	return kt_query_change(&query, "no such material", err);
}

enum kt_code kt_store_material_mark(struct kt_store *store, int64_t id, enum kt_material_state state, const char *dir,
                                    struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_MARK, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, state);
	kt_query_text(&query, dir);
	kt_query_int(&query, id);
	return kt_query_change(&query, "no such material", err);
}

enum kt_code kt_store_material_urls(struct kt_store *store, int64_t id, const char *order_url,
                                    const char *finalize_url, const char *cert_url, const char *cookie,
                                    struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_URLS, err);

	if (code != KT_OK)
		return code;
	kt_query_text(&query, order_url);
	kt_query_text(&query, finalize_url);
	kt_query_text(&query, cert_url);
	kt_query_text(&query, cookie);
	kt_query_int(&query, id);
	return kt_query_change(&query, "no such material", err);
}

enum kt_code kt_store_material_get(struct kt_store *store, int64_t id, struct kt_store_material *ret,
                                   struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_GET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_int(&query, id);
	if ((code = kt_query_row(&query, "no such material", err)) == KT_OK && (code = fetch(&query, ret, err)) == KT_OK)
		code = kt_row_own(ret, &shape, err);
	return code;
}

enum kt_code kt_store_material_each(struct kt_store *store, int64_t credential, unsigned limit,
                                    bool (*fn)(const struct kt_store_material *material, void *arg), void *arg,
                                    struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_material material;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_MAT_EACH, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_int(&query, credential);
	kt_query_int(&query, limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = fetch(&query, &material, err)) != KT_OK)
			return code;
		if (!fn(&material, arg))
			break;
	}
	return code;
}

enum kt_code kt_store_material_prune(struct kt_store *store, int64_t credential, unsigned keep, struct kt_err *err)
{
	int64_t ids[64];
	size_t count;
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK)
		return code;
	do {
		KT_AUTOQUERY struct kt_query query = {0};
		count = 64;
		if ((code = kt_query_open(&query, store, KT_STMT_MAT_OLD, err)) != KT_OK)
			return code;
		kt_query_int(&query, credential);
		kt_query_int(&query, keep);
		code = kt_query_ids(&query, ids, &count, err);
		for (size_t i = 0; code == KT_OK && i < count; i++) {
			code = kt_query_run_one(store, KT_STMT_TASK_DELETE_OF_MAT, ids[i], err);
			if (code == KT_OK)
				code = kt_query_run_one(store, KT_STMT_MAT_DELETE, ids[i], err);
		}
	} while (code == KT_OK && count == 64);
	return kt_store_break(store, code, err);
}
