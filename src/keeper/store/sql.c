/* Prepared statements, binding and columns, and what SQLite's results mean to keyturn. */
#include "keeper/store/store_internal.h"

#include <errno.h>
#include <string.h>

static const char *const texts[KT_STMT_COUNT] = {
#define X(slot, text) [KT_STMT_##slot] = text,
        KT_STATEMENTS(X)
#undef X
};

static enum kt_code fail_sys(struct kt_err *err, int error, const char *what, const char *detail, const char *dir)
{
	if (err == NULL)
		return error == ENOMEM ? KT_E_NOMEM : KT_E_SYS;
	kt_err_set(err, KT_E_SYS, "%s: %s in %s", what, detail, dir);
	err->sys_errno = error;
	return KT_E_SYS;
}

/* An I/O error: the reason is in errno, where the disk is full it is that and nothing else. */
static enum kt_code fail_io(struct kt_store *store, int rc, const char *what, struct kt_err *err)
{
	int error = store->db != NULL ? sqlite3_system_errno(store->db) : 0;
	char detail[160];

	if (rc == SQLITE_IOERR_NOMEM)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", what);
	if (error == ENOSPC || error == EDQUOT)
		return fail_sys(err, error, what, "disk full: make room", store->dir);
	(void)snprintf(detail, sizeof(detail), "input/output error (%s%s%s)", sqlite3_errstr(rc),
	               error != 0 ? ", " : "", error != 0 ? strerrordesc_np(error) : "");
	return fail_sys(err, error != 0 ? error : EIO, what, detail, store->dir);
}

enum kt_code kt_store_fail(struct kt_store *store, int rc, const char *what, struct kt_err *err)
{
	const char *dir = store->dir != NULL ? store->dir : "";
	int extended = store->db != NULL ? sqlite3_extended_errcode(store->db) : rc;

	if ((extended & 0xff) != (rc & 0xff))
		extended = rc;
	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", what);
	case SQLITE_FULL:
		return fail_sys(err, ENOSPC, what, "disk full: make room", dir);
	case SQLITE_IOERR:
		return fail_io(store, extended, what, err);
	case SQLITE_CANTOPEN:
		return fail_sys(err, store->db != NULL ? sqlite3_system_errno(store->db) : 0, what,
		                "cannot open the database", dir);
	case SQLITE_READONLY:
		return fail_sys(err, EROFS, what, "the database can't be written (read-only file system or mode)",
		                dir);
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return fail_sys(err, EACCES, what, "no permission", dir);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return kt_err_set(err, KT_E_BUSY, "%s: another process has %s/" KT_STORE_DB " open and locked", what,
		                  dir);
	case SQLITE_TOOBIG:
		return kt_err_set(err, KT_E_LIMIT, "%s: a value is longer than %d bytes", what, KT_STORE_VALUE_MAX);
	case SQLITE_INTERRUPT:
	case SQLITE_ABORT:
		return kt_err_set(err, KT_E_CANCELLED, "%s: interrupted", what);
	case SQLITE_CONSTRAINT:
		if (extended == SQLITE_CONSTRAINT_UNIQUE || extended == SQLITE_CONSTRAINT_PRIMARYKEY ||
		    extended == SQLITE_CONSTRAINT_ROWID)
			return kt_err_set(err, KT_E_EXISTS, "%s: it is there already", what);
		return kt_err_set(err, KT_E_INVALID, "%s: %s", what,
		                  store->db != NULL ? sqlite3_errmsg(store->db) : sqlite3_errstr(rc));
	default:
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s: %s/" KT_STORE_DB " is damaged (%s): stop keyturn, move the file away and restore "
		                  "a backup of the whole directory",
		                  what, dir, store->db != NULL ? sqlite3_errmsg(store->db) : sqlite3_errstr(rc));
	}
}

enum kt_code kt_store_odd(struct kt_store *store, const char *what, struct kt_err *err)
{
	return kt_err_set(err, KT_E_CORRUPT,
	                  "%s/" KT_STORE_DB " holds %s that no keyturn wrote: restore a backup of the whole directory",
	                  store->dir, what);
}

enum kt_code kt_query_open(struct kt_query *query, struct kt_store *store, enum kt_stmt slot, struct kt_err *err)
{
	sqlite3_stmt *kept = store->stmts[slot];

	*query = (struct kt_query){.store = store, .slot = slot, .rc = SQLITE_OK};
	if (kept != NULL && !sqlite3_stmt_busy(kept)) {
		query->stmt = kept;
		return KT_OK;
	}
	query->temporary = kept != NULL;
	int rc = sqlite3_prepare_v3(store->db, texts[slot], -1, query->temporary ? 0 : SQLITE_PREPARE_PERSISTENT,
	                            &query->stmt, NULL);
	if (rc != SQLITE_OK)
		return kt_store_break(store, kt_store_fail(store, rc, "prepare a statement", err), err);
	if (!query->temporary)
		store->stmts[slot] = query->stmt;
	return KT_OK;
}

void kt_query_close(struct kt_query *query)
{
	if (query->stmt == NULL)
		return;
	if (query->temporary)
		(void)sqlite3_finalize(query->stmt);
	else
		(void)sqlite3_reset(query->stmt);
	query->stmt = NULL;
}

static void bound(struct kt_query *query, int rc)
{
	if (query->rc == SQLITE_OK)
		query->rc = rc;
}

void kt_query_int(struct kt_query *query, int64_t value)
{
	bound(query, sqlite3_bind_int64(query->stmt, ++query->bound, value));
}

void kt_query_time(struct kt_query *query, kt_ms value)
{
	if (value == 0)
		bound(query, sqlite3_bind_null(query->stmt, ++query->bound));
	else
		kt_query_int(query, value);
}

void kt_query_text(struct kt_query *query, const char *text)
{
	bound(query, sqlite3_bind_text(query->stmt, ++query->bound, text, -1, SQLITE_STATIC));
}

void kt_query_need(struct kt_query *query, const char *text)
{
	kt_query_text(query, text != NULL ? text : "");
}

void kt_query_view(struct kt_query *query, struct kt_view text)
{
	if (text.len > KT_STORE_VALUE_MAX)
		bound(query, SQLITE_TOOBIG);
	else
		bound(query, sqlite3_bind_text(query->stmt, ++query->bound, text.len != 0 ? text.ptr : NULL,
		                               (int)text.len, SQLITE_STATIC));
}

void kt_query_blob(struct kt_query *query, struct kt_view data)
{
	if (data.len > KT_STORE_VALUE_MAX)
		bound(query, SQLITE_TOOBIG);
	else
		bound(query, sqlite3_bind_blob(query->stmt, ++query->bound, data.len != 0 ? data.ptr : NULL,
		                               (int)data.len, SQLITE_STATIC));
}

enum kt_code kt_query_step(struct kt_query *query, bool *ret_row, struct kt_err *err)
{
	int rc = query->rc;

	*ret_row = false;
	if (rc == SQLITE_OK)
		rc = sqlite3_step(query->stmt);
	if (rc == SQLITE_ROW) {
		*ret_row = true;
		return KT_OK;
	}
	if (rc == SQLITE_DONE)
		return KT_OK;
	return kt_store_fail(query->store, rc, "read the store", err);
}

enum kt_code kt_query_row(struct kt_query *query, const char *missing, struct kt_err *err)
{
	bool row;
	enum kt_code code = kt_query_step(query, &row, err);

	return code == KT_OK && !row ? kt_err_set(err, KT_E_NOTFOUND, "%s", missing) : code;
}

enum kt_code kt_store_may_write(struct kt_store *store, struct kt_err *err)
{
	if (store->read_only)
		return kt_err_set(err, KT_E_INVALID, "the store was opened for reading only");
	if (!store->in_transaction)
		return kt_err_set(err, KT_E_INVALID, "a write to the store stands outside a transaction");
	/* SQLite rolls back by itself when a statement (also one that reads) runs out of memory or disk: what is written
	 * after that would be committed statement by statement. */
	if (store->broken.code == KT_OK && sqlite3_get_autocommit(store->db) != 0)
		kt_err_set(&store->broken, KT_E_NOMEM, "the transaction was rolled back by SQLite: memory or disk ran out");
	if (store->broken.code != KT_OK) {
		if (err != NULL)
			*err = store->broken;
		return store->broken.code;
	}
	return KT_OK;
}

enum kt_code kt_store_break(struct kt_store *store, enum kt_code code, const struct kt_err *err)
{
	if (code == KT_OK || code == KT_E_EXISTS || code == KT_E_NOTFOUND || !store->in_transaction ||
	    store->broken.code != KT_OK)
		return code;
	if (err != NULL && err->code == code)
		store->broken = *err;
	else
		kt_err_set(&store->broken, code, "an earlier write of the transaction failed (%s)",
		           kt_code_name(code));
	return code;
}

enum kt_code kt_query_run(struct kt_query *query, int64_t *ret_changes, struct kt_err *err)
{
	struct kt_store *store = query->store;
	enum kt_code code = kt_store_may_write(store, err);

	if (code == KT_OK) {
		int rc = query->rc;
		if (rc == SQLITE_OK)
			rc = sqlite3_step(query->stmt);
		if (rc != SQLITE_DONE)
			code = kt_store_break(store, kt_store_fail(store, rc, "write the store", err), err);
		else if (ret_changes != NULL)
			*ret_changes = sqlite3_changes64(store->db);
	}
	kt_query_close(query);
	return code;
}

enum kt_code kt_query_change(struct kt_query *query, const char *missing, struct kt_err *err)
{
	int64_t changes;
	enum kt_code code = kt_query_run(query, &changes, err);

	return code == KT_OK && changes == 0 ? kt_err_set(err, KT_E_NOTFOUND, "%s", missing) : code;
}

enum kt_code kt_query_run_one(struct kt_store *store, enum kt_stmt slot, int64_t param, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, slot, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, param);
	return kt_query_run(&query, NULL, err);
}

const char *kt_col_text(struct kt_query *query, int col)
{
	const unsigned char *text = sqlite3_column_text(query->stmt, col);

	return text != NULL ? (const char *)text : "";
}

struct kt_view kt_col_view(struct kt_query *query, int col)
{
	struct kt_view view = {sqlite3_column_blob(query->stmt, col), 0};

	if (view.ptr != NULL)
		view.len = (size_t)sqlite3_column_bytes(query->stmt, col);
	return view;
}

enum kt_code kt_query_fetched(struct kt_query *query, struct kt_err *err)
{
	if (sqlite3_errcode(query->store->db) == SQLITE_NOMEM)
		return kt_err_set(err, KT_E_NOMEM, "read the store: out of memory");
	return KT_OK;
}

enum kt_code kt_query_ids(struct kt_query *query, int64_t *ids, size_t *count, struct kt_err *err)
{
	size_t room = *count;
	bool row;
	enum kt_code code;

	*count = 0;
	while ((code = kt_query_step(query, &row, err)) == KT_OK && row && *count < room)
		ids[(*count)++] = sqlite3_column_int64(query->stmt, 0);
	kt_query_close(query);
	return code;
}

enum kt_code kt_query_due(struct kt_store *store, enum kt_stmt slot, kt_ms now, int64_t *ids, size_t *count,
                          struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, slot, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, now);
	kt_query_int(&query, (int64_t)*count);
	return kt_query_ids(&query, ids, count, err);
}

enum kt_code kt_query_number(struct kt_store *store, enum kt_stmt slot, int64_t param, int64_t *ret,
                             struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, slot, err);
	bool row;

	*ret = 0;
	if (code != KT_OK)
		return code;
	kt_query_int(&query, param);
	if ((code = kt_query_step(&query, &row, err)) == KT_OK && row)
		*ret = sqlite3_column_int64(query.stmt, 0);
	return code;
}
