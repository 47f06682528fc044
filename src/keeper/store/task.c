/* Tasks: which consumer still has to take which material into use. */
#include "keeper/store/store_internal.h"

#include <string.h>

#define AT(field) offsetof(struct kt_store_task, field)
static const size_t texts[] = {
        AT(consumer_name), AT(error_text), AT(seen), AT(expected), AT(trace_id), AT(cookie),
};
static const struct kt_shape shape = {sizeof(struct kt_store_task), AT(mem), texts, 6, NULL, 0};

void kt_store_task_finish(struct kt_store_task *task)
{
	kt_row_finish(task, &shape);
}

static enum kt_code fetch(struct kt_query *query, struct kt_store_task *ret, struct kt_err *err)
{
	sqlite3_stmt *stmt = query->stmt;
	int64_t state = sqlite3_column_int64(stmt, 5);
	const char *error = kt_col_text(query, 11);

	if (state < 0 || state > KT_TASK_UPLOADED)
		return kt_store_odd(query->store, "a task in a state", err);
	*ret = (struct kt_store_task){
	        .id = sqlite3_column_int64(stmt, 0),
	        .material = sqlite3_column_int64(stmt, 1),
	        .credential = sqlite3_column_int64(stmt, 2),
	        .consumer = sqlite3_column_int64(stmt, 3),
	        .consumer_name = kt_col_text(query, 4),
	        .state = (enum kt_task_state)state,
	        .step = (int)sqlite3_column_int64(stmt, 6),
	        .attempts = (unsigned)sqlite3_column_int64(stmt, 7),
	        .next_try = sqlite3_column_int64(stmt, 8),
	        .created = sqlite3_column_int64(stmt, 9),
	        .updated = sqlite3_column_int64(stmt, 10),
	        .error = error[0] != '\0' ? kt_code_from_name(error) : KT_OK,
	        .error_text = kt_col_text(query, 12),
	        .seen = kt_col_text(query, 13),
	        .expected = kt_col_text(query, 14),
	        .trace_id = kt_col_text(query, 15),
	        .cookie = kt_col_text(query, 16),
	};
	if (ret->error == KT_CODE_COUNT)
		ret->error = KT_E_CORRUPT;
	return kt_query_fetched(query, err);
}

/* From consumer_name to cookie, in the order of both statements. */
static void bind_row(struct kt_query *query, const struct kt_store_task *task)
{
	kt_query_need(query, task->consumer_name);
	kt_query_int(query, task->state);
	kt_query_int(query, task->step);
	kt_query_int(query, task->attempts);
	kt_query_time(query, task->next_try);
	kt_query_int(query, task->created);
	kt_query_int(query, task->updated);
	kt_query_text(query, task->error != KT_OK ? kt_code_name(task->error) : NULL);
	kt_query_text(query, task->error_text);
	kt_query_text(query, task->seen);
	kt_query_text(query, task->expected);
	kt_query_text(query, task->trace_id);
	kt_query_text(query, task->cookie);
}

enum kt_code kt_store_task_insert(struct kt_store *store, struct kt_store_task *task, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_INSERT, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, task->material);
	kt_query_int(&query, task->credential);
	kt_query_int(&query, task->consumer);
	bind_row(&query, task);
	code = kt_query_run(&query, NULL, err);
	if (code == KT_OK)
		task->id = sqlite3_last_insert_rowid(store->db);
	return code;
}

enum kt_code kt_store_task_put(struct kt_store *store, const struct kt_store_task *task, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_PUT, err);

	if (code != KT_OK)
		return code;
	bind_row(&query, task);
	kt_query_int(&query, task->id);
	return kt_query_change(&query, "no such task", err);
}

enum kt_code kt_store_task_get(struct kt_store *store, int64_t id, struct kt_store_task *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_GET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_int(&query, id);
	if ((code = kt_query_row(&query, "no such task", err)) == KT_OK && (code = fetch(&query, ret, err)) == KT_OK)
		code = kt_row_own(ret, &shape, err);
	return code;
}

static enum kt_code each(struct kt_store *store, enum kt_stmt slot, int64_t key, unsigned limit,
                         bool (*fn)(const struct kt_store_task *task, void *arg), void *arg, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_task task;
	enum kt_code code = kt_query_open(&query, store, slot, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_int(&query, key);
	kt_query_int(&query, limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = fetch(&query, &task, err)) != KT_OK)
			return code;
		if (!fn(&task, arg))
			break;
	}
	return code;
}

enum kt_code kt_store_task_each(struct kt_store *store, int64_t material, unsigned limit,
                                bool (*fn)(const struct kt_store_task *task, void *arg), void *arg,
                                struct kt_err *err)
{
	return each(store, KT_STMT_TASK_EACH, material, limit, fn, arg, err);
}

enum kt_code kt_store_task_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count, struct kt_err *err)
{
	return kt_query_due(store, KT_STMT_TASK_DUE, now, ids, count, err);
}

enum kt_code kt_store_task_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err)
{
	return kt_query_number(store, KT_STMT_TASK_NEXT_DUE, after, ret, err);
}

enum kt_code kt_store_task_renew(struct kt_store *store, int64_t credential, const char *cookie, const char *next,
                                 kt_ms at, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_RENEW, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, at);
	kt_query_int(&query, credential);
	kt_query_text(&query, cookie);
	kt_query_text(&query, next);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_task_wake(struct kt_store *store, int64_t credential, const char *cookie, kt_ms at, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_WAKE, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, at);
	kt_query_int(&query, credential);
	kt_query_text(&query, cookie);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_task_wake_consumer(struct kt_store *store, int64_t consumer, kt_ms at, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_WAKE_CONSUMER, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, at);
	kt_query_int(&query, consumer);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_task_supersede(struct kt_store *store, int64_t credential, int64_t newest_material,
                                     unsigned *ret_count, struct kt_err *err)
{
	struct kt_query query;
	int64_t changes = 0;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_TASK_SUPERSEDE, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, kt_clock_wall(store->clock));
	kt_query_int(&query, credential);
	kt_query_int(&query, newest_material);
	code = kt_query_run(&query, &changes, err);
	if (ret_count != NULL)
		*ret_count = (unsigned)changes;
	return code;
}
