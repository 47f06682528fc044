/* The store under faults: kill -9, no memory, migrations, and a database that was replaced, cut, flipped or aged. */
#include "store_helper.h"

#include <signal.h>
#include <sys/wait.h>

static enum kt_code try_open(const char *dir, struct kt_err *err)
{
	struct kt_store_open options = {.dir = dir};
	struct kt_store *store = NULL;
	enum kt_code code = kt_store_open(&options, &store, err);

	kt_store_close(store);
	return code;
}

/* One credential's step: row, material and audit record, as the pipeline writes them. */
static enum kt_code step_once(struct kt_store *store, int64_t id, struct kt_err *err)
{
	struct kt_store_cred cred;
	struct kt_audit_event event = event_of("keyed", "ok");
	enum kt_code code = kt_store_begin(store, err);

	if (code != KT_OK)
		return code;
	if ((code = kt_store_cred_get(store, id, &cred, err)) == KT_OK) {
		cred.revision++;
		cred.step = KT_STEP_KEYED;
		cred.due_at++;
		struct kt_store_material material = {
		        .credential = id, .revision = cred.revision, .sealed_key = KT_VIEW_LIT("sealed")};
		event.revision = cred.revision;
		if ((code = kt_store_material_insert(store, &material, err)) == KT_OK) {
			cred.candidate = material.id;
			if ((code = kt_store_cred_put(store, &cred, err)) == KT_OK)
				code = kt_audit_append(store, &event, err);
		}
		kt_store_cred_finish(&cred);
	}
	if (code == KT_OK)
		return kt_store_commit(store, err);
	kt_store_rollback(store);
	return code;
}

/* What one transaction wrote is there together or not at all. */
static int64_t check_consistent(struct kt_store *store)
{
	struct kt_audit_verdict verdict;
	struct kt_store_cred cred;
	struct kt_store_material material;
	struct kt_err err;

	ok(kt_audit_verify(store, &verdict, &err));
	if (!verdict.good)
		fail_msg("%s", verdict.what);
	ok(kt_store_cred_get(store, 1, &cred, &err));
	assert_int_equal(cred.revision, verdict.count);
	int64_t revision = cred.revision;
	if (revision != 0) {
		ok(kt_store_material_get(store, cred.candidate, &material, &err));
		assert_int_equal(material.revision, revision);
		kt_store_material_finish(&material);
	}
	kt_store_cred_finish(&cred);
	return revision;
}

static void test_kill(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	int64_t before = 0;

	fill(store, 1);
	kt_store_close(store);
	for (int round = 0; round < 25; round++) {
		int told[2];
		char byte;
		assert_int_equal(pipe(told), 0);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct kt_err err;
			store = open_store(place->state);
			for (;;) {
				if (step_once(store, 1, &err) != KT_OK || write(told[1], "x", 1) != 1)
					_exit(1);
			}
		}
		(void)close(told[1]);
		for (int i = 0; i <= round; i++)
			assert_int_equal(read(told[0], &byte, 1), 1);
		(void)usleep((useconds_t)(round * 37 % 500));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		int64_t told_of = before + round + 1;
		while (read(told[0], &byte, 1) == 1)
			told_of++;
		(void)close(told[0]);
		store = open_store(place->state);
		assert_int_equal(kt_store_notes(store) & KT_STORE_WAS_UNCLEAN, KT_STORE_WAS_UNCLEAN);
		int64_t now = check_consistent(store);
		assert_true(now >= told_of); /* nothing that was acknowledged is lost */
		before = now;
		kt_store_close(store);
	}
}

/* ---- no memory -------------------------------------------------------------------------------------------------------- */

static enum kt_code flow(const char *dir, struct kt_err *err)
{
	struct kt_store_open options = {.dir = dir};
	struct kt_store *store;
	struct kt_store_counts counts;
	struct kt_store_resource resource = {
	        .kind = "Certificate", .ns = "default", .name = "new", .spec = KT_VIEW_LIT("{}")};
	struct kt_store_link link = {"issuer", "default", "ca"};
	enum kt_store_change change;
	int64_t generation;
	int64_t ids[4];
	size_t count = 4;
	int64_t id;
	enum kt_code code = kt_store_open(&options, &store, err);

	if (code != KT_OK)
		return code;
	if ((code = kt_store_counts(store, &counts, err)) == KT_OK &&
	    (code = kt_store_cred_due(store, INT64_MAX, ids, &count, err)) == KT_OK &&
	    (code = step_once(store, 1, err)) == KT_OK && (code = kt_store_begin(store, err)) == KT_OK) {
		if ((code = kt_store_set_begin(store, &generation, err)) == KT_OK &&
		    (code = kt_store_set_put(store, &resource, &link, 1, &id, &change, err)) == KT_OK &&
		    (code = kt_store_set_finish(store, NULL, NULL, err)) == KT_OK)
			code = kt_store_commit(store, err);
		kt_store_rollback(store);
	}
	if (code == KT_OK) {
		struct kt_audit_verdict verdict;
		code = kt_audit_verify(store, &verdict, err);
	}
	kt_store_close(store);
	return code;
}

/* Every allocation in turn: SQLite does without some of them, so a run that succeeds is not the end. */
static void torture(struct place *place, int forever)
{
	struct kt_err err;
	unsigned failed = 0;

	copy_dir(place->copy, place->state);
	uint64_t before = kt_mem_count();
	ok(flow(place->state, &err));
	int64_t total = (int64_t)(kt_mem_count() - before);
	for (int64_t n = 0; n < total; n += forever ? 7 : 1) {
		copy_dir(place->copy, place->state);
		kt_mem_fail_after(n, forever);
		enum kt_code code = flow(place->state, &err);
		kt_mem_fail_after(-1, 0);
		if (code != KT_OK && code != KT_E_NOMEM)
			fail_msg("allocation %lld: %s: %s", (long long)n, kt_code_name(code), err.what);
		failed += code != KT_OK;
		struct kt_store *store = open_store(place->state);
		(void)check_consistent(store);
		kt_store_close(store);
	}
	assert_true(failed > 50);
}

static void test_no_memory(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);

	fill(store, 1);
	kt_store_close(store);
	copy_dir(place->state, place->copy);
	torture(place, 0);
	torture(place, 1);
}

/* The very first opening, which makes the tables. */
static void test_no_memory_at_first(void **state)
{
	struct place *place = *state;
	struct kt_err err;
	char dir[160];

	(void)snprintf(dir, sizeof(dir), "%s/first", place->base);
	uint64_t before = kt_mem_count();
	ok(try_open(dir, &err));
	int64_t total = (int64_t)(kt_mem_count() - before);
	for (int64_t n = 0; n < total; n++) {
		(void)snprintf(dir, sizeof(dir), "%s/%lld", place->base, (long long)n);
		kt_mem_fail_after(n, 0);
		enum kt_code code = try_open(dir, &err);
		kt_mem_fail_after(-1, 0);
		if (code != KT_OK && code != KT_E_NOMEM)
			fail_msg("allocation %lld: %s: %s", (long long)n, kt_code_name(code), err.what);
		ok(try_open(dir, &err));
	}
}

/* ---- migrations -------------------------------------------------------------------------------------------------------- */

static int64_t version_of(struct kt_store *store)
{
	sqlite3_stmt *stmt;

	assert_int_equal(sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	int64_t version = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	return version;
}

static void test_migrations(void **state)
{
	struct place *place = *state;
	struct kt_migration steps[3];
	struct kt_store *store = open_store(place->state);
	struct kt_store_open reader = {.dir = place->state, .read_only = true};
	struct kt_err err;
	int last = kt_migrations[kt_migration_count - 1].version;

	fill(store, 2);
	assert_int_equal(version_of(store), last);
	steps[0] = kt_migrations[kt_migration_count - 1];
	steps[1] = (struct kt_migration){last + 1, "ALTER TABLE credential ADD COLUMN colour TEXT"};
	steps[2] = (struct kt_migration){last + 2, "CREATE TABLE t(a); INSERT INTO nowhere VALUES(1)"};
	/* The second step fails: the first one stays, nothing of the second does. */
	assert_int_not_equal(kt_store_migrate(store, steps, 3, &err), KT_OK);
	assert_int_equal(version_of(store), last + 1);
	steps[2].sql = "CREATE TABLE t(a)";
	ok(kt_store_migrate(store, steps, 3, &err));
	assert_int_equal(version_of(store), last + 2);
	assert_true(kt_store_notes(store) & KT_STORE_MIGRATED);
	kt_store_close(store);
	/* And now this program is the older one. */
	fails(KT_E_UNSUPPORTED, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "newer keyturn"));
	fails(KT_E_UNSUPPORTED, kt_store_open(&reader, &store, &err));
}

/* ---- L11: what may happen to the file ---------------------------------------------------------------------------------- */

static void write_at(const char *dir, const char *name, off_t at, const void *data, size_t len)
{
	char path[160];

	path_in(dir, name, path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, at), len);
	(void)close(fd);
}

static off_t size_of(const char *dir, const char *name)
{
	struct stat st;
	char path[160];

	path_in(dir, name, path);
	return stat(path, &st) == 0 ? st.st_size : -1;
}

static void test_truncated_or_foreign(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	sqlite3 *db;
	char path[160];

	fill(store, 50);
	ok(step_once(store, 1, &err));
	kt_store_close(store);
	copy_dir(place->state, place->copy);
	path_in(place->state, "state.db", path);
	for (off_t len = size_of(place->copy, "state.db") - 1; len >= 0; len = len > 4096 ? len - 4096 : len - 1365) {
		copy_dir(place->copy, place->state);
		assert_int_equal(truncate(path, len), 0);
		fails(KT_E_CORRUPT, try_open(place->state, &err));
		assert_int_equal(size_of(place->state, "state.db"), len);
	}
	copy_dir(place->copy, place->state);
	assert_int_equal(unlink(path), 0);
	fails(KT_E_CORRUPT, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "missing or empty"));
	assert_int_equal(size_of(place->state, "state.db"), -1);

	copy_dir(place->copy, place->state);
	write_at(place->state, "state.db", 0, "This is no database", 19);
	fails(KT_E_CORRUPT, try_open(place->state, &err));

	assert_int_equal(unlink(path), 0);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE photos(a)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(chmod(path, 0600), 0);
	fails(KT_E_CORRUPT, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "something else"));

	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("/dev/null", path), 0);
	fails(KT_E_POLICY, try_open(place->state, &err));
}

static void test_older_copy_or_another(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	char path[160];

	fill(store, 1);
	ok(step_once(store, 1, &err));
	kt_store_close(store);
	copy_dir(place->state, place->copy);
	store = open_store(place->state);
	ok(step_once(store, 1, &err));
	kt_store_close(store);

	/* The database of yesterday under the anchor of today. */
	path_in(place->copy, "anchor", path);
	assert_int_equal(unlink(path), 0);
	copy_dir(place->copy, place->state);
	fails(KT_E_CORRUPT, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "older copy"));
	fails(KT_E_CORRUPT, try_open(place->state, &err)); /* and refused again: nothing was written */
	/* Restored on purpose: said once, then the new line goes on. */
	path_in(place->state, "anchor", path);
	assert_int_equal(unlink(path), 0);
	store = open_store(place->state);
	assert_true(kt_store_notes(store) & KT_STORE_NO_ANCHOR);
	ok(step_once(store, 1, &err));
	ok(step_once(store, 1, &err));
	kt_store_close(store);
	store = open_store(place->state);
	assert_int_equal(kt_store_notes(store), 0);
	kt_store_close(store);

	/* The same store, but two histories from the same copy on. */
	store = open_store(place->copy);
	struct kt_audit_event event = event_of("other", "ok");
	for (int i = 0; i < 4; i++) {
		ok(kt_store_begin(store, &err));
		ok(kt_audit_append(store, &event, &err));
		ok(kt_store_commit(store, &err));
	}
	kt_store_close(store);
	path_in(place->copy, "anchor", path);
	assert_int_equal(unlink(path), 0);
	copy_dir(place->copy, place->state);
	fails(KT_E_CORRUPT, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "another history"));

	/* Another store altogether. */
	char other[80];
	(void)snprintf(other, sizeof(other), "%s/other", place->base);
	store = open_store(other);
	kt_store_close(store);
	path_in(other, "anchor", path);
	assert_int_equal(unlink(path), 0);
	copy_dir(other, place->state);
	fails(KT_E_CORRUPT, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "not the store"));
}

static bool see_resource(const struct kt_store_resource *resource, void *arg)
{
	*(size_t *)arg += strlen(resource->name) + resource->spec.len;
	return true;
}

static bool see_material(const struct kt_store_material *material, void *arg)
{
	*(size_t *)arg += material->chain.len + strlen(material->dir);
	return true;
}

/* Reads all there is; whatever the bytes, the answer is data or an error. */
static void read_all(struct kt_store *store)
{
	struct kt_store_counts counts;
	struct kt_audit_verdict verdict;
	struct kt_store_cred cred;
	size_t sum = 0;
	int64_t ids[16];
	size_t count = 16;

	(void)kt_store_resource_each(store, NULL, 0, 1000, see_resource, &sum, NULL);
	(void)kt_store_counts(store, &counts, NULL);
	(void)kt_store_cred_due(store, INT64_MAX, ids, &count, NULL);
	(void)kt_audit_verify(store, &verdict, NULL);
	for (int64_t id = 1; id <= 20; id++) {
		if (kt_store_cred_get(store, id, &cred, NULL) == KT_OK)
			kt_store_cred_finish(&cred);
		(void)kt_store_material_each(store, id, 100, see_material, &sum, NULL);
	}
}

static void test_flipped_bits(void **state)
{
	struct place *place = *state;
	struct kt_store_open options = {.dir = place->state};
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	unsigned refused = 0;

	fill(store, 20);
	for (int i = 0; i < 20; i++)
		ok(step_once(store, 1, &err));
	kt_store_close(store);
	copy_dir(place->state, place->copy);
	off_t size = size_of(place->copy, "state.db");
	for (off_t at = 0; at < size; at += at < 4096 ? 31 : 809) {
		unsigned char byte = (unsigned char)(0x55 + at);
		copy_dir(place->copy, place->state);
		write_at(place->state, "state.db", at, &byte, 1);
		enum kt_code code = kt_store_open(&options, &store, &err);
		if (code != KT_OK) {
			if (code != KT_E_CORRUPT && code != KT_E_UNSUPPORTED && code != KT_E_SYS)
				fail_msg("byte %lld: %s: %s", (long long)at, kt_code_name(code), err.what);
			refused++;
			continue;
		}
		read_all(store);
		(void)step_once(store, 1, &err);
		kt_store_close(store);
	}
	assert_true(refused > 0);
}

static void test_damage_found_after_unclean_end(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	unsigned char page[4096];

	fill(store, 500);
	kt_store_checkpoint(store);
	ok(step_once(store, 1, &err));
	copy_dir(place->state, place->copy); /* as a power cut leaves it: with a log */
	kt_store_close(store);
	assert_true(size_of(place->copy, "state.db-wal") > 0);
	memset(page, 0xee, sizeof(page));
	for (off_t at = 40960; at < size_of(place->copy, "state.db"); at += 4096)
		write_at(place->copy, "state.db", at, page, sizeof(page));
	fails(KT_E_CORRUPT, try_open(place->copy, &err));
}

static void test_locked_by_another_program(void **state)
{
	struct place *place = *state;
	struct kt_err err;
	sqlite3 *db;
	char path[160];

	kt_store_close(open_store(place->state));
	path_in(place->state, "state.db", path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; UPDATE meta SET value=value",
	                              NULL, NULL, NULL),
	                 SQLITE_OK);
	fails(KT_E_BUSY, try_open(place->state, &err));
	assert_non_null(strstr(err.what, "another process"));
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	ok(try_open(place->state, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_kill),
	        CASE(test_no_memory),
	        CASE(test_no_memory_at_first),
	        CASE(test_migrations),
	        CASE(test_truncated_or_foreign),
	        CASE(test_older_copy_or_another),
	        CASE(test_flipped_bits),
	        CASE(test_damage_found_after_unclean_end),
	        CASE(test_locked_by_another_program),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
