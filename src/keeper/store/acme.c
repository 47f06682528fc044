/* What ACME needs beside accounts and orders: renewal information, the health of issuers, answers to challenges. */
#include "keeper/store/store_internal.h"

#include <string.h>

/* ---- renewal information ------------------------------------------------------------------------------------------ */

static const size_t info_texts[] = {offsetof(struct kt_store_renewal_info, explanation)};
static const struct kt_shape info_shape = {
        sizeof(struct kt_store_renewal_info), offsetof(struct kt_store_renewal_info, mem), info_texts, 1, NULL, 0,
};

void kt_store_renewal_info_finish(struct kt_store_renewal_info *info)
{
	kt_row_finish(info, &info_shape);
}

enum kt_code kt_store_renewal_info_put(struct kt_store *store, const struct kt_store_renewal_info *info,
                                       struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_INFO_PUT, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, info->credential);
	kt_query_int(&query, info->material);
	kt_query_int(&query, info->window_start);
	kt_query_int(&query, info->window_end);
	kt_query_time(&query, info->check_at);
	kt_query_int(&query, info->asked_at);
	kt_query_text(&query, info->explanation);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_renewal_info_get(struct kt_store *store, int64_t credential, struct kt_store_renewal_info *ret,
                                       struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_INFO_GET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_int(&query, credential);
	if ((code = kt_query_row(&query, "no renewal information", err)) != KT_OK)
		return code;
	*ret = (struct kt_store_renewal_info){
	        .credential = sqlite3_column_int64(query.stmt, 0),
	        .material = sqlite3_column_int64(query.stmt, 1),
	        .window_start = sqlite3_column_int64(query.stmt, 2),
	        .window_end = sqlite3_column_int64(query.stmt, 3),
	        .check_at = sqlite3_column_int64(query.stmt, 4),
	        .asked_at = sqlite3_column_int64(query.stmt, 5),
	        .explanation = kt_col_text(&query, 6),
	};
	code = kt_query_fetched(&query, err);
	return code == KT_OK ? kt_row_own(ret, &info_shape, err) : code;
}

enum kt_code kt_store_renewal_info_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count,
                                       struct kt_err *err)
{
	return kt_query_due(store, KT_STMT_INFO_DUE, now, ids, count, err);
}

enum kt_code kt_store_renewal_info_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err)
{
	return kt_query_number(store, KT_STMT_INFO_NEXT_DUE, after, ret, err);
}

enum kt_code kt_store_renewal_info_delete(struct kt_store *store, int64_t credential, struct kt_err *err)
{
	return kt_query_run_one(store, KT_STMT_INFO_DELETE, credential, err);
}

/* ---- health --------------------------------------------------------------------------------------------------------- */

static const size_t health_texts[] = {
        offsetof(struct kt_store_health, issuer),
        offsetof(struct kt_store_health, error_text),
};
static const struct kt_shape health_shape = {
        sizeof(struct kt_store_health), offsetof(struct kt_store_health, mem), health_texts, 2, NULL, 0,
};

void kt_store_health_finish(struct kt_store_health *health)
{
	kt_row_finish(health, &health_shape);
}

enum kt_code kt_store_health_put(struct kt_store *store, const struct kt_store_health *health, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_HEALTH_PUT, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, health->issuer);
	kt_query_int(&query, health->failures);
	kt_query_int(&query, health->failed_at);
	kt_query_int(&query, health->ok_at);
	kt_query_int(&query, health->retry_at);
	kt_query_text(&query, health->error != KT_OK ? kt_code_name(health->error) : NULL);
	kt_query_text(&query, health->error_text);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_health_get(struct kt_store *store, const char *issuer, struct kt_store_health *ret,
                                 struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_HEALTH_GET, err);
	const char *error;

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	if ((code = kt_query_row(&query, "nothing known about that issuer", err)) != KT_OK)
		return code;
	error = kt_col_text(&query, 5);
	*ret = (struct kt_store_health){
	        .issuer = kt_col_text(&query, 0),
	        .failures = (unsigned)sqlite3_column_int64(query.stmt, 1),
	        .failed_at = sqlite3_column_int64(query.stmt, 2),
	        .ok_at = sqlite3_column_int64(query.stmt, 3),
	        .retry_at = sqlite3_column_int64(query.stmt, 4),
	        .error = error[0] != '\0' ? kt_code_from_name(error) : KT_OK,
	        .error_text = kt_col_text(&query, 6),
	};
	if (ret->error == KT_CODE_COUNT)
		ret->error = KT_E_CORRUPT;
	code = kt_query_fetched(&query, err);
	return code == KT_OK ? kt_row_own(ret, &health_shape, err) : code;
}

/* ---- challenges ------------------------------------------------------------------------------------------------------ */

enum kt_code kt_store_challenge_insert(struct kt_store *store, struct kt_store_challenge *challenge,
                                       struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CHAL_INSERT, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, challenge->credential);
	kt_query_need(&query, challenge->issuer);
	kt_query_need(&query, challenge->type);
	kt_query_int(&query, challenge->solver);
	kt_query_need(&query, challenge->name);
	kt_query_text(&query, challenge->record);
	kt_query_text(&query, challenge->value);
	kt_query_text(&query, challenge->token);
	kt_query_text(&query, challenge->config);
	kt_query_text(&query, challenge->handle);
	kt_query_int(&query, challenge->created);
	code = kt_query_run(&query, NULL, err);
	if (code == KT_OK)
		challenge->id = sqlite3_last_insert_rowid(store->db);
	return code;
}

enum kt_code kt_store_challenge_written(struct kt_store *store, int64_t id, const char *record, const char *handle,
                                        struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CHAL_HANDLE, err);

	if (code != KT_OK)
		return code;
	kt_query_text(&query, record);
	kt_query_text(&query, handle);
	kt_query_int(&query, id);
	return kt_query_change(&query, "no such challenge", err);
}

enum kt_code kt_store_challenge_delete(struct kt_store *store, int64_t id, struct kt_err *err)
{
	return kt_query_run_one(store, KT_STMT_CHAL_DELETE, id, err);
}

enum kt_code kt_store_challenge_each(struct kt_store *store, int64_t credential, unsigned limit,
                                     bool (*fn)(const struct kt_store_challenge *challenge, void *arg), void *arg,
                                     struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CHAL_EACH, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_int(&query, credential);
	kt_query_int(&query, limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		struct kt_store_challenge found = {
		        .id = sqlite3_column_int64(query.stmt, 0),
		        .credential = sqlite3_column_int64(query.stmt, 1),
		        .issuer = kt_col_text(&query, 2),
		        .type = kt_col_text(&query, 3),
		        .solver = (int)sqlite3_column_int64(query.stmt, 4),
		        .name = kt_col_text(&query, 5),
		        .record = kt_col_text(&query, 6),
		        .value = kt_col_text(&query, 7),
		        .token = kt_col_text(&query, 8),
		        .config = kt_col_text(&query, 9),
		        .handle = kt_col_text(&query, 10),
		        .created = sqlite3_column_int64(query.stmt, 11),
		};
		if ((code = kt_query_fetched(&query, err)) != KT_OK || !fn(&found, arg))
			break;
	}
	return code;
}
