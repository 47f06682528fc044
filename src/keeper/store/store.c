/* Opening and closing the state, and its transactions. */
#include "keeper/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/text.h"

enum {
	CHECK_MS = 2000,          /* the quick check after an unclean end may take so long */
	CHECK_OPS = 20000,        /* virtual machine steps between two looks at the clock */
	WAL_PAGES = 2000,         /* checkpoint about every 8 MiB of log */
	SCRATCH_MAX = 256 * 1024, /* an audit record with every field at its limit, all escaped */
};

/* ---- the directory --------------------------------------------------------------------------------------------- */

static enum kt_code open_dir(struct kt_store *store, const struct kt_store_open *options, struct kt_err *err)
{
	struct stat st;

	if (options->read_only)
		store->dir_fd = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	else
		store->dir_fd = kt_io_open_dir_create(options->dir, 0700, err);
	if (store->dir_fd < 0 && options->read_only)
		return errno == ENOENT ? kt_err_set(err, KT_E_NOTFOUND, "%s: there is no state yet", options->dir)
		                       : kt_err_sys(err, "%s", options->dir);
	if (store->dir_fd < 0)
		return err != NULL && err->code != KT_OK ? err->code : KT_E_SYS;
	char *real = realpath(options->dir, NULL);
	store->dir = real != NULL ? kt_strdup(real) : NULL;
	free(real);
	if (store->dir == NULL)
		return kt_err_sys(err, "%s", options->dir);
	enum kt_code code =
		kt_io_check_trusted_in_pod(store->dir, geteuid(), options->in_pod ? KT_TRUST_MOUNT_ABOVE : 0, err);
	if (code != KT_OK)
		return code;
	if (fstat(store->dir_fd, &st) != 0)
		return kt_err_sys(err, "%s", store->dir);
	if ((st.st_mode & 077) != 0 && !options->read_only && fchmod(store->dir_fd, 0700) != 0)
		return kt_err_sys(err, "%s: close it to others (chmod 700)", store->dir);
	return KT_OK;
}

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* A file shorter than its header says has lost its end. Only meaningful when no log is waiting to be applied. */
static enum kt_code check_length(struct kt_store *store, off_t size, struct kt_err *err)
{
	uint8_t head[100];
	KT_AUTOCLOSE int fd = openat(store->dir_fd, KT_STORE_DB, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return kt_err_sys(err, "%s/" KT_STORE_DB, store->dir);
	ssize_t got = pread(fd, head, sizeof(head), 0);
	if (got < 0)
		return kt_err_sys(err, "read %s/" KT_STORE_DB, store->dir);
	if (got != (ssize_t)sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " is not a database: restore a backup of the whole directory",
		                  store->dir);
	uint32_t page = (uint32_t)head[16] << 8 | head[17];
	if (page == 1)
		page = 65536;
	if ((uint64_t)page * be32(head + 28) > (uint64_t)size)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " was cut off (%lld bytes of %llu): restore a backup of the whole "
		                  "directory",
		                  store->dir, (long long)size, (unsigned long long)page * be32(head + 28));
	return KT_OK;
}

/* Looks at the files before SQLite does: what is there, whose it is, whether the last holder closed it. */
static enum kt_code look_at_files(struct kt_store *store, const struct kt_anchor *anchor, struct kt_err *err)
{
	struct stat st;
	off_t size = 0;
	off_t log = 0;

	if (fstatat(store->dir_fd, KT_STORE_DB, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (st.st_mode & 022) != 0 ||
		    (st.st_uid != geteuid() && st.st_uid != 0))
			return kt_err_set(err, KT_E_POLICY,
			                  "%s/" KT_STORE_DB " must be a plain file with one name, owned by the agent's "
			                  "user and writable by nobody else",
			                  store->dir);
		size = st.st_size;
	} else if (errno != ENOENT) {
		return kt_err_sys(err, "%s/" KT_STORE_DB, store->dir);
	}
	if (fstatat(store->dir_fd, KT_STORE_DB "-wal", &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISREG(st.st_mode))
			return kt_err_set(err, KT_E_POLICY, "%s/" KT_STORE_DB "-wal is not a plain file", store->dir);
		log = st.st_size;
	}
	if (size == 0 && log == 0 && anchor->known)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " is %s, but %lld audit records were written: restore a backup of "
		                  "the directory, or remove %s/anchor to begin anew",
		                  store->dir, "missing or empty", (long long)anchor->seq, store->dir);
	if (size == 0 && log == 0)
		return store->read_only ? kt_err_set(err, KT_E_NOTFOUND, "%s: there is no state yet", store->dir)
		                        : KT_OK;
	if (log != 0)
		store->notes |= KT_STORE_WAS_UNCLEAN;
	return log == 0 ? check_length(store, size, err) : KT_OK;
}

/* ---- the database ---------------------------------------------------------------------------------------------- */

static const char pragmas_writer[] = "PRAGMA locking_mode=EXCLUSIVE;"
                                     "PRAGMA journal_mode=WAL;"
                                     "PRAGMA synchronous=FULL;"
                                     "PRAGMA journal_size_limit=8388608;"
                                     "PRAGMA secure_delete=ON;";
static const char pragmas_all[] = "PRAGMA cache_size=-8192;"
                                  "PRAGMA mmap_size=0;"
                                  "PRAGMA temp_store=MEMORY;"
                                  "PRAGMA trusted_schema=OFF;"
                                  "PRAGMA cell_size_check=ON;";

static enum kt_code open_db(struct kt_store *store, struct kt_err *err)
{
	KT_AUTOFREE char *path = kt_asprintf("%s/" KT_STORE_DB, store->dir);
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_PRIVATECACHE;

	if (path == NULL)
		return kt_err_set(err, KT_E_NOMEM, "open the store: out of memory");
	flags |= SQLITE_OPEN_READWRITE | (store->read_only ? 0 : SQLITE_OPEN_CREATE);
	mode_t mask = umask(077);
	int rc = sqlite3_open_v2(path, &store->db, flags, NULL);
	if (rc == SQLITE_OK) {
		(void)sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH, KT_STORE_VALUE_MAX + 65536);
		(void)sqlite3_limit(store->db, SQLITE_LIMIT_ATTACHED, 0);
		(void)sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		(void)sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		(void)sqlite3_db_config(store->db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
		(void)sqlite3_db_config(store->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
		rc = sqlite3_exec(store->db, pragmas_all, NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, store->read_only ? "PRAGMA query_only=ON" : pragmas_writer, NULL, NULL,
		                  NULL);
	/* Reads the first page and the log, under the umask: -wal and -shm are made here. */
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
	(void)umask(mask);
	if (rc == SQLITE_OK)
		(void)sqlite3_wal_autocheckpoint(store->db, WAL_PAGES);
	return rc == SQLITE_OK ? KT_OK : kt_store_fail(store, rc, "open the store", err);
}

struct check_clock {
	struct kt_store *store;
	kt_ms end;
};

static int check_time(void *arg)
{
	struct check_clock *limit = arg;

	return kt_clock_mono(limit->store->clock) > limit->end;
}

/* PRAGMA quick_check, for at most CHECK_MS: reading all of a big store would keep the credentials waiting. */
static enum kt_code quick_check(struct kt_store *store, struct kt_err *err)
{
	struct check_clock limit = {store, kt_clock_mono(store->clock) + CHECK_MS};
	uint64_t failures = kt_mem_failures();
	sqlite3_stmt *stmt = NULL;
	enum kt_code code = KT_OK;

	sqlite3_progress_handler(store->db, CHECK_OPS, check_time, &limit);
	int rc = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW) {
		const char *found = (const char *)sqlite3_column_text(stmt, 0);
		if ((found == NULL || strcmp(found, "ok") != 0) && kt_mem_failures() != failures) /* it calls that damage */
			code = kt_err_set(err, KT_E_NOMEM, "check the store: out of memory");
		else if (found == NULL || strcmp(found, "ok") != 0)
			code = kt_err_set(err, KT_E_CORRUPT,
			                  "%s/" KT_STORE_DB " is damaged (%s): restore a backup of the whole directory",
			                  store->dir, found != NULL ? found : "unreadable");
	} else if ((rc & 0xff) == SQLITE_INTERRUPT) {
		store->notes |= KT_STORE_CHECK_CUT;
	} else {
		code = kt_store_fail(store, rc, "check the store", err);
	}
	(void)sqlite3_finalize(stmt);
	sqlite3_progress_handler(store->db, 0, NULL, NULL);
	return code;
}

static enum kt_code make_identity(struct kt_store *store, struct kt_err *err)
{
	enum kt_code code = kt_store_begin(store, err);

	if (code != KT_OK)
		return code;
	kt_rand_bytes(store->id, sizeof(store->id));
	code = kt_meta_put(store, "kt.id", (struct kt_view){(const char *)store->id, sizeof(store->id)}, err);
	if (code == KT_OK)
		code = kt_meta_put_int(store, "kt.created", kt_clock_wall(store->clock), err);
	return kt_store_end(store, code, err);
}

static enum kt_code load_identity(struct kt_store *store, struct kt_err *err)
{
	struct kt_buf id;

	kt_buf_init(&id, KT_STORE_META_MAX);
	enum kt_code code = kt_store_meta_get(store, "kt.id", &id, err);
	if (code == KT_E_NOTFOUND && !store->read_only) {
		code = make_identity(store, err);
	} else if (code == KT_OK && id.len == sizeof(store->id)) {
		memcpy(store->id, id.ptr, sizeof(store->id));
	} else if (code == KT_OK || code == KT_E_NOTFOUND) {
		code = kt_store_odd(store, "no identity", err);
	}
	kt_buf_finish(&id);
	if (code == KT_OK)
		code = kt_meta_get_int(store, "kt.generation", &store->now.generation, err);
	if (code == KT_OK)
		code = kt_meta_get_mark(store, "kt.audit_head", &store->now.audit_seq, store->now.audit_hash, err);
	return code;
}

static enum kt_code open_all(struct kt_store *store, const struct kt_store_open *options, struct kt_err *err)
{
	struct kt_anchor anchor;
	enum kt_code code;

	if ((code = open_dir(store, options, err)) != KT_OK || (code = kt_lock_take(store, options, err)) != KT_OK ||
	    (code = kt_anchor_read(store, &anchor, err)) != KT_OK ||
	    (code = look_at_files(store, &anchor, err)) != KT_OK || (code = kt_store_setup_sqlite(err)) != KT_OK ||
	    (code = open_db(store, err)) != KT_OK)
		return code;
	if ((store->notes & KT_STORE_WAS_UNCLEAN) && (code = quick_check(store, err)) != KT_OK)
		return code;
	if ((code = kt_store_migrate(store, kt_migrations, kt_migration_count, err)) != KT_OK ||
	    (code = load_identity(store, err)) != KT_OK || (code = kt_anchor_compare(store, &anchor, err)) != KT_OK)
		return code;
	kt_anchor_write(store);
	return KT_OK;
}

enum kt_code kt_store_open(const struct kt_store_open *options, struct kt_store **ret, struct kt_err *err)
{
	struct kt_err local;
	struct kt_store *store = kt_calloc(1, sizeof(*store));

	*ret = NULL;
	if (store == NULL)
		return kt_err_set(err, KT_E_NOMEM, "open the store: out of memory");
	if (err == NULL)
		err = &local;
	kt_err_clear(err);
	store->dir_fd = store->lock_fd = store->anchor_fd = -1;
	store->read_only = options->read_only;
	store->clock = options->clock != NULL ? options->clock : &kt_clock_system;
	kt_buf_init(&store->scratch, SCRATCH_MAX);
	enum kt_code code = open_all(store, options, err);
	if (code != KT_OK) {
		kt_store_close(store);
		return code;
	}
	*ret = store;
	return KT_OK;
}

void kt_store_close(struct kt_store *store)
{
	if (store == NULL)
		return;
	kt_store_rollback(store);
	for (size_t i = 0; i < KT_STMT_COUNT; i++)
		(void)sqlite3_finalize(store->stmts[i]);
	if (store->db != NULL)
		(void)sqlite3_close(store->db);
	kt_lock_release(store);
	kt_cleanup_close(&store->anchor_fd);
	kt_cleanup_close(&store->dir_fd);
	kt_buf_finish(&store->scratch);
	kt_free(store->set.seen);
	kt_free(store->dir);
	kt_free(store);
}

void kt_store_on_audit(struct kt_store *store, void (*fn)(void *arg), void *arg)
{
	store->on_audit = fn;
	store->on_audit_arg = arg;
}

unsigned kt_store_notes(const struct kt_store *store)
{
	return store->notes;
}

const char *kt_store_dir(const struct kt_store *store)
{
	return store->dir;
}

const uint8_t *kt_store_id(const struct kt_store *store)
{
	return store->id;
}

bool kt_store_is_read_only(const struct kt_store *store)
{
	return store->read_only;
}

void kt_store_trim(struct kt_store *store)
{
	if (store->in_transaction)
		return;
	for (size_t i = 0; i < KT_STMT_COUNT; i++) {
		if (store->stmts[i] == NULL || sqlite3_stmt_busy(store->stmts[i]))
			continue;
		(void)sqlite3_finalize(store->stmts[i]);
		store->stmts[i] = NULL;
	}
	(void)sqlite3_db_release_memory(store->db);
	kt_buf_finish(&store->scratch);
	kt_buf_init(&store->scratch, SCRATCH_MAX);
	(void)malloc_trim(0);
}

void kt_store_checkpoint(struct kt_store *store)
{
	(void)sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

bool kt_store_in_transaction(const struct kt_store *store)
{
	return store->in_transaction;
}

/* Some errors have rolled back already. */
static void roll_back(struct kt_store *store)
{
	sqlite3_stmt *stmt = store->stmts[KT_STMT_ROLLBACK];

	if (sqlite3_get_autocommit(store->db) != 0 || stmt == NULL)
		return;
	(void)sqlite3_step(stmt);
	(void)sqlite3_reset(stmt);
}

enum kt_code kt_store_begin(struct kt_store *store, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};

	if (store->read_only)
		return kt_err_set(err, KT_E_INVALID, "the store was opened for reading only");
	if (store->in_transaction)
		return kt_err_set(err, KT_E_INVALID, "a transaction is open already");
	/* ROLLBACK is prepared ahead: it must work when memory is short. */
	enum kt_code code = kt_query_open(&query, store, KT_STMT_ROLLBACK, err);
	kt_query_close(&query);
	if (code != KT_OK || (code = kt_query_open(&query, store, KT_STMT_BEGIN, err)) != KT_OK)
		return code;
	roll_back(store); /* one that failed to, earlier */
	int rc = sqlite3_step(query.stmt);
	if (rc != SQLITE_DONE)
		return kt_store_fail(store, rc, "begin a transaction", err);
	store->in_transaction = true;
	kt_err_clear(&store->broken);
	store->now.audit_dirty = false;
	store->saved = store->now;
	return KT_OK;
}

void kt_store_rollback(struct kt_store *store)
{
	if (!store->in_transaction)
		return;
	roll_back(store);
	store->in_transaction = false;
	store->now = store->saved;
	store->set.open = false;
	kt_free(store->set.seen);
	store->set.seen = NULL;
}

enum kt_code kt_store_end(struct kt_store *store, enum kt_code code, struct kt_err *err)
{
	if (code == KT_OK)
		return kt_store_commit(store, err);
	kt_store_rollback(store);
	return code;
}

enum kt_code kt_store_commit(struct kt_store *store, struct kt_err *err)
{
	struct kt_query query = {0};
	enum kt_code code = kt_store_may_write(store, err);

	if (code == KT_OK && store->set.open)
		code = kt_err_set(err, KT_E_INVALID, "a manifest set was begun and not finished");
	if (code == KT_OK && store->now.audit_dirty)
		code = kt_meta_put_mark(store, "kt.audit_head", store->now.audit_seq, store->now.audit_hash, err);
	if (code == KT_OK)
		code = kt_query_open(&query, store, KT_STMT_COMMIT, err);
	if (code == KT_OK) {
		int rc = sqlite3_step(query.stmt);
		if (rc != SQLITE_DONE)
			code = kt_store_fail(store, rc, "commit to the store", err);
		kt_query_close(&query);
	}
	if (code != KT_OK) {
		kt_store_rollback(store);
		return code;
	}
	store->in_transaction = false;
	if (store->now.audit_dirty) {
		kt_anchor_write(store);
		if (store->on_audit != NULL)
			store->on_audit(store->on_audit_arg);
	}
	return KT_OK;
}
