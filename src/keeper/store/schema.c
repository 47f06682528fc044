/* The tables of the store and the steps that bring an older file up to date. */
#include "keeper/store/store_internal.h"

#include <string.h>

/*
 * What is where: names that change rarely are indexed; what the pipeline writes at every step (step, attempts,
 * error, trace) is in no index, so that a step costs one row. due_at and expiry are in partial indexes: the tick
 * and the health check read those and nothing else.
 *
 * A table WITHOUT ROWID lists its columns in the order of its key: quick_check of SQLite 3.40 (Debian 12) reports
 * NULLs that are not there otherwise, and the store would be taken for damaged.
 */
static const char step_1[] =
        "CREATE TABLE meta(name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE resource(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL,"
        " generation INTEGER NOT NULL, gone INTEGER NOT NULL, request_key TEXT, file TEXT, line INTEGER NOT NULL,"
        " spec TEXT NOT NULL);"
        "CREATE UNIQUE INDEX resource_name ON resource(ns, name, kind);"
        "CREATE INDEX resource_kind ON resource(gone, kind);"
        "CREATE TABLE link(rel TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, owner INTEGER NOT NULL,"
        " PRIMARY KEY(rel, ns, name, owner)) WITHOUT ROWID;"
        "CREATE INDEX link_owner ON link(owner);"
        "CREATE TABLE credential(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, secret_name TEXT NOT NULL,"
        " step INTEGER NOT NULL, step_at INTEGER NOT NULL, due_at INTEGER, expiry INTEGER,"
        " active INTEGER NOT NULL, candidate INTEGER NOT NULL, revision INTEGER NOT NULL,"
        " attempts INTEGER NOT NULL, deaths INTEGER NOT NULL, next_try INTEGER NOT NULL,"
        " error TEXT, error_text TEXT, error_at INTEGER NOT NULL, trace_id TEXT, flags INTEGER NOT NULL,"
        " orphan INTEGER NOT NULL, proof INTEGER NOT NULL, delivered_at INTEGER NOT NULL,"
        " proved_at INTEGER NOT NULL, cookie TEXT);"
        "CREATE INDEX credential_due ON credential(due_at, expiry) WHERE due_at IS NOT NULL;"
        "CREATE INDEX credential_expiry ON credential(expiry) WHERE expiry IS NOT NULL AND orphan = 0;"
        "CREATE INDEX credential_secret ON credential(secret_name);"
        "CREATE TABLE material(id INTEGER PRIMARY KEY, credential INTEGER NOT NULL, revision INTEGER NOT NULL,"
        " state INTEGER NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL,"
        " created INTEGER NOT NULL, issued INTEGER NOT NULL, sealed_key BLOB, sealed_token BLOB, request_key TEXT,"
        " serial TEXT, sha256 TEXT, csr BLOB, chain TEXT, ca TEXT, order_url TEXT, finalize_url TEXT,"
        " cert_url TEXT, cookie TEXT, dir TEXT);"
        "CREATE UNIQUE INDEX material_revision ON material(credential, revision);"
        "CREATE TABLE task(id INTEGER PRIMARY KEY, material INTEGER NOT NULL, credential INTEGER NOT NULL,"
        " consumer INTEGER NOT NULL, consumer_name TEXT NOT NULL, state INTEGER NOT NULL, step INTEGER NOT NULL,"
        " attempts INTEGER NOT NULL, next_try INTEGER, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
        " error TEXT, error_text TEXT, seen TEXT, expected TEXT, trace_id TEXT, cookie TEXT);"
        "CREATE UNIQUE INDEX task_once ON task(material, consumer);"
        "CREATE INDEX task_consumer ON task(consumer);"
        "CREATE INDEX task_open ON task(credential) WHERE state < 2;"
        "CREATE INDEX task_due ON task(next_try) WHERE next_try IS NOT NULL;"
        "CREATE TABLE account(issuer TEXT NOT NULL, server_url TEXT NOT NULL, account_url TEXT,"
        " sealed_key BLOB NOT NULL, status TEXT, cookie TEXT, created INTEGER NOT NULL,"
        " PRIMARY KEY(issuer, server_url));"
        "CREATE TABLE secret(ns TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, sealed BLOB NOT NULL,"
        " source INTEGER NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY(ns, name, key));"
        "CREATE TABLE ledger(id INTEGER PRIMARY KEY, issuer TEXT NOT NULL, what TEXT NOT NULL, at INTEGER NOT NULL,"
        " outcome TEXT NOT NULL);"
        "CREATE INDEX ledger_issuer ON ledger(issuer, what, at, outcome);"
        "CREATE TABLE issuer_key(issuer TEXT NOT NULL, kid TEXT NOT NULL, alg TEXT NOT NULL,"
        " sealed_key BLOB NOT NULL, public_jwk TEXT NOT NULL, created INTEGER NOT NULL,"
        " publish_from INTEGER NOT NULL, sign_from INTEGER NOT NULL, retire_at INTEGER NOT NULL,"
        " PRIMARY KEY(issuer, kid));"
        "CREATE TABLE audit(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, trace INTEGER NOT NULL,"
        " hash BLOB NOT NULL, body TEXT NOT NULL);"
        "CREATE INDEX audit_trace ON audit(trace);";

/* Delivering again fails for other reasons than issuing does, and is tried again by itself. */
static const char step_2[] = "ALTER TABLE credential ADD COLUMN deliver_failures INTEGER NOT NULL DEFAULT 0;"
                             "ALTER TABLE credential ADD COLUMN deliver_at INTEGER NOT NULL DEFAULT 0;"
                             "ALTER TABLE credential ADD COLUMN deliver_error TEXT;"
                             "ALTER TABLE credential ADD COLUMN deliver_text TEXT;";

/* Renewal information, the health of issuers, answers to challenges that must be taken back, whom an entry counts for. */
static const char step_3[] =
        "ALTER TABLE ledger ADD COLUMN subject TEXT NOT NULL DEFAULT '';"
        "CREATE TABLE renewal_info(credential INTEGER PRIMARY KEY, material INTEGER NOT NULL, window_start INTEGER NOT"
        " NULL, window_end INTEGER NOT NULL, check_at INTEGER, asked_at INTEGER NOT NULL, explanation TEXT);"
        "CREATE INDEX renewal_info_check ON renewal_info(check_at) WHERE check_at IS NOT NULL;"
        "CREATE TABLE issuer_health(issuer TEXT PRIMARY KEY NOT NULL, failures INTEGER NOT NULL,"
        " failed_at INTEGER NOT NULL, ok_at INTEGER NOT NULL, retry_at INTEGER NOT NULL, error TEXT, error_text TEXT)"
        " WITHOUT ROWID;"
        "CREATE TABLE challenge(id INTEGER PRIMARY KEY, credential INTEGER NOT NULL, issuer TEXT NOT NULL,"
        " type TEXT NOT NULL, solver INTEGER NOT NULL, name TEXT NOT NULL, record TEXT, value TEXT, token TEXT,"
        " config TEXT, handle TEXT, created INTEGER NOT NULL);"
        "CREATE INDEX challenge_credential ON challenge(credential);";

/* When a bucket is full again after an entry: the newest entry of each is its state. */
static const char step_4[] = "ALTER TABLE ledger ADD COLUMN full_at INTEGER NOT NULL DEFAULT 0;"
                             "CREATE INDEX ledger_bucket ON ledger(issuer, what, subject);"
                             "DROP INDEX ledger_issuer;";

const struct kt_migration kt_migrations[] = {
        {1, step_1},
        {2, step_2},
        {3, step_3},
        {4, step_4},
};
const size_t kt_migration_count = sizeof(kt_migrations) / sizeof(kt_migrations[0]);

static enum kt_code pragma_int(struct kt_store *store, const char *sql, int64_t *ret, struct kt_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(store->db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		*ret = sqlite3_column_int64(stmt, 0);
		rc = SQLITE_OK;
	}
	enum kt_code code = rc == SQLITE_OK ? KT_OK : kt_store_fail(store, rc, "read the schema", err);
	sqlite3_finalize(stmt);
	return code;
}

/* One step: its statements and the new version in one transaction, so that a kill leaves the old file or the new. */
static enum kt_code run_step(struct kt_store *store, const struct kt_migration *step, struct kt_err *err)
{
	char version[64];
	int rc;

	(void)snprintf(version, sizeof(version), "PRAGMA user_version=%d", step->version);
	rc = sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, step->sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, version, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, "PRAGMA application_id=" KT_STORE_APP_ID_TEXT, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK) {
		enum kt_code code = kt_store_fail(store, rc, "bring the schema up to date", err);
		if (sqlite3_get_autocommit(store->db) == 0)
			(void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
		return code;
	}
	return KT_OK;
}

enum kt_code kt_store_migrate(struct kt_store *store, const struct kt_migration *steps, size_t count,
                              struct kt_err *err)
{
	int64_t version = 0;
	int64_t app = 0;
	int64_t tables = 0;
	enum kt_code code;

	if ((code = pragma_int(store, "PRAGMA user_version", &version, err)) != KT_OK ||
	    (code = pragma_int(store, "PRAGMA application_id", &app, err)) != KT_OK ||
	    (code = pragma_int(store, "SELECT count(*) FROM sqlite_schema", &tables, err)) != KT_OK)
		return code;
	if ((tables > 0 || version != 0) && app != KT_STORE_APP_ID)
		return kt_err_set(err, KT_E_CORRUPT,
		                  "%s/" KT_STORE_DB " is an SQLite database of something else, not a keyturn store: "
		                  "move it away, or name another --state-dir",
		                  store->dir);
	if (version > steps[count - 1].version)
		return kt_err_set(err, KT_E_UNSUPPORTED,
		                  "%s/" KT_STORE_DB " has schema %lld, this keyturn knows up to %d: a newer keyturn "
		                  "wrote it; install that version again",
		                  store->dir, (long long)version, steps[count - 1].version);
	if (store->read_only) {
		if (version < steps[count - 1].version)
			return kt_err_set(err, KT_E_UNSUPPORTED,
			                  "%s/" KT_STORE_DB " has the older schema %lld: start the agent, or any command "
			                  "that writes, once to bring it up to date",
			                  store->dir, (long long)version);
		return KT_OK;
	}
	if (tables == 0)
		store->notes |= KT_STORE_IS_NEW;
	else if (version < steps[count - 1].version)
		store->notes |= KT_STORE_MIGRATED;
	for (size_t i = 0; i < count; i++)
		if (steps[i].version > version && (code = run_step(store, &steps[i], err)) != KT_OK)
			return code;
	return KT_OK;
}
