/* What the files of store/, keys/ and audit/ share: the struct, prepared statements, rows. */
#ifndef KEEPER_STORE_STORE_INTERNAL_H
#define KEEPER_STORE_STORE_INTERNAL_H

#include <sqlite3.h>
#include <stdio.h>

#include "keeper/store/statements.h"
#include "keeper/store/store.h"
#include "kt/mem.h"

#define KT_STORE_DB          "state.db"
#define KT_STORE_APP_ID      0x6b74726e /* "ktrn" */
#define KT_STORE_APP_ID_TEXT "1802793582"

enum {
	KT_STORE_HASH_LEN = 32,
	KT_STORE_VALUE_MAX = 4 * 1024 * 1024, /* bytes of one value or row */
	KT_STORE_META_MAX = 64 * 1024,
};

/* What is kept in memory beside the database; goes back to `saved` on rollback. */
struct kt_mirror {
	int64_t generation;
	int64_t audit_seq;
	uint8_t audit_hash[KT_STORE_HASH_LEN];
	bool audit_dirty; /* grew in this transaction */
	bool counted;     /* counts are loaded */
	struct kt_store_counts counts;
};

struct kt_set_walk {
	bool open;
	uint8_t *seen; /* one bit for each id that was there at the start */
	int64_t max_id;
};

struct kt_store {
	sqlite3 *db;
	char *dir;
	int dir_fd;
	int lock_fd;
	int anchor_fd;
	bool read_only;
	unsigned notes;
	const struct kt_clock *clock;
	uint8_t id[16];
	bool in_transaction;
	struct kt_err broken; /* the first failed write of the transaction; code KT_OK while all is well */
	struct kt_mirror now;
	struct kt_mirror saved;
	struct kt_set_walk set;
	struct kt_buf scratch; /* for audit records */
	void (*on_audit)(void *arg);
	void *on_audit_arg;
	sqlite3_stmt *stmts[KT_STMT_COUNT];
};

/* ---- sql.c: statements ---------------------------------------------------------------------------------------- */

/* Maps an SQLite result to a kt_code with a text that says what to do; `what`: what was being done. */
enum kt_code kt_store_fail(struct kt_store *store, int rc, const char *what, struct kt_err *err);

struct kt_query {
	struct kt_store *store;
	sqlite3_stmt *stmt;
	enum kt_stmt slot;
	int bound; /* parameters bound so far */
	int rc;    /* the first failed bind */
	bool temporary;
};

/* Takes the kept statement of the slot (or a second one, when a walk is using it just now). */
enum kt_code kt_query_open(struct kt_query *query, struct kt_store *store, enum kt_stmt slot, struct kt_err *err);
void kt_query_close(struct kt_query *query);
#define KT_AUTOQUERY __attribute__((cleanup(kt_query_close)))

/* Bind the next parameter. The memory must stay until the query is run or closed. */
void kt_query_int(struct kt_query *query, int64_t value);
void kt_query_time(struct kt_query *query, kt_ms value);             /* 0 becomes NULL */
void kt_query_text(struct kt_query *query, const char *text);        /* NULL stays NULL */
void kt_query_need(struct kt_query *query, const char *text);        /* NULL becomes "" */
void kt_query_view(struct kt_query *query, struct kt_view text);     /* text; NULL when empty */
void kt_query_blob(struct kt_query *query, struct kt_view data);     /* blob; NULL when empty */

enum kt_code kt_query_step(struct kt_query *query, bool *ret_row, struct kt_err *err);
/* For a row that must be there: KT_E_NOTFOUND with `missing` ("no such task") when it is not. */
enum kt_code kt_query_row(struct kt_query *query, const char *missing, struct kt_err *err);
/* A write: checks that a transaction is open and sound; marks it broken on failure. ret_changes may be NULL. */
enum kt_code kt_query_run(struct kt_query *query, int64_t *ret_changes, struct kt_err *err);
/* As kt_query_run; KT_E_NOTFOUND with `missing` when no row was there to be changed. */
enum kt_code kt_query_change(struct kt_query *query, const char *missing, struct kt_err *err);
/* A write whose only parameter is an id (or a time). */
enum kt_code kt_query_run_one(struct kt_store *store, enum kt_stmt slot, int64_t param, struct kt_err *err);
/* For several writes that belong together: KT_OK when writing is allowed now. */
enum kt_code kt_store_may_write(struct kt_store *store, struct kt_err *err);
/* Marks the transaction broken; returns code. */
enum kt_code kt_store_break(struct kt_store *store, enum kt_code code, const struct kt_err *err);

const char *kt_col_text(struct kt_query *query, int col); /* "" for NULL */
struct kt_view kt_col_view(struct kt_query *query, int col);
/* After the columns of a row were fetched: whether memory ran out meanwhile. */
enum kt_code kt_query_fetched(struct kt_query *query, struct kt_err *err);
enum kt_code kt_store_odd(struct kt_store *store, const char *what, struct kt_err *err); /* KT_E_CORRUPT */

/* Ids of a prepared and bound query into ids; *count: room in, number out. */
enum kt_code kt_query_ids(struct kt_query *query, int64_t *ids, size_t *count, struct kt_err *err);
/* The same of a statement whose parameters are a time and how many. */
enum kt_code kt_query_due(struct kt_store *store, enum kt_stmt slot, kt_ms now, int64_t *ids, size_t *count,
                          struct kt_err *err);
/* The number that a statement of one parameter answers; 0 without a row. */
enum kt_code kt_query_number(struct kt_store *store, enum kt_stmt slot, int64_t param, int64_t *ret,
                             struct kt_err *err);

/* ---- row.c: records --------------------------------------------------------------------------------------------- */

/* Where a record keeps its texts and views, so that one function can copy them all. */
struct kt_shape {
	size_t size;
	size_t mem;
	const size_t *texts;
	size_t text_count;
	const size_t *views;
	size_t view_count;
};
enum kt_code kt_row_own(void *record, const struct kt_shape *shape, struct kt_err *err);
void kt_row_finish(void *record, const struct kt_shape *shape);
/* In a column NULL and "" are one. */
bool kt_same_text(const char *a, const char *b);

/* From and to columns: resource.c, cred.c. `col` is the first column. */
enum kt_code kt_resource_fetch(struct kt_query *query, int col, struct kt_store_resource *ret, struct kt_err *err);
enum kt_code kt_cred_fetch(struct kt_query *query, int col, struct kt_store_cred *ret, struct kt_err *err);
/* Adds (+1) or takes away (-1) a credential from the counts. */
void kt_counts_move(struct kt_store_counts *counts, const struct kt_store_cred *cred, int by);

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

struct kt_migration {
	int version;
	const char *sql;
};
extern const struct kt_migration kt_migrations[];
extern const size_t kt_migration_count;
/* Checks that the file is a store and runs the steps above its version; sets notes. */
enum kt_code kt_store_migrate(struct kt_store *store, const struct kt_migration *steps, size_t count,
                              struct kt_err *err);

/* Puts kt_malloc behind SQLite and turns off what we don't use; once for the process. */
enum kt_code kt_store_setup_sqlite(struct kt_err *err);

enum kt_code kt_lock_take(struct kt_store *store, const struct kt_store_open *options, struct kt_err *err);
void kt_lock_release(struct kt_store *store);

struct kt_anchor {
	bool known;
	uint8_t id[16];
	int64_t seq;
	uint8_t hash[KT_STORE_HASH_LEN];
};
enum kt_code kt_anchor_read(struct kt_store *store, struct kt_anchor *ret, struct kt_err *err);
/* KT_E_CORRUPT when the database is another one, or older, than the anchor saw. */
enum kt_code kt_anchor_compare(struct kt_store *store, const struct kt_anchor *anchor, struct kt_err *err);
/* Writes the present head; failures are ignored (an anchor that lags is a valid one). */
void kt_anchor_write(struct kt_store *store);

/* As kt_store_meta_set, names in "kt." included. */
enum kt_code kt_meta_put(struct kt_store *store, const char *name, struct kt_view value, struct kt_err *err);
enum kt_code kt_meta_put_int(struct kt_store *store, const char *name, int64_t value, struct kt_err *err);
enum kt_code kt_meta_get_int(struct kt_store *store, const char *name, int64_t *ret, struct kt_err *err);
/* "<seq> <64 hex digits>": the head and the base of the audit chain. Absent: 0 and zeros. */
enum kt_code kt_meta_put_mark(struct kt_store *store, const char *name, int64_t seq, const uint8_t *hash,
                              struct kt_err *err);
enum kt_code kt_meta_get_mark(struct kt_store *store, const char *name, int64_t *seq, uint8_t *hash,
                              struct kt_err *err);
/* Moves what the WAL holds into the database and empties it, so that old pages don't linger. */
void kt_store_checkpoint(struct kt_store *store);

#endif
