/* Renewal information, health of issuers, challenges and the ledger's buckets; and the steps from schema 1. */
#include "store_helper.h"

static void test_renewal_info(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_renewal_info info = {.credential = 1, .material = 9, .window_start = 100, .window_end = 200,
	                                     .check_at = 50, .asked_at = 7, .explanation = "https://ca.example/why"};
	struct kt_store_renewal_info got;
	struct kt_err err;
	int64_t ids[4];
	size_t count = 4;
	kt_ms next;

	fails(KT_E_NOTFOUND, kt_store_renewal_info_get(store, 1, &got, &err));
	ok(kt_store_begin(store, &err));
	ok(kt_store_renewal_info_put(store, &info, &err));
	info.credential = 2;
	info.check_at = 0;
	ok(kt_store_renewal_info_put(store, &info, &err));
	info.credential = 3;
	info.check_at = 60;
	ok(kt_store_renewal_info_put(store, &info, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_renewal_info_get(store, 1, &got, &err));
	assert_int_equal(got.material, 9);
	assert_int_equal(got.window_end, 200);
	assert_string_equal(got.explanation, "https://ca.example/why");
	kt_store_renewal_info_finish(&got);
	ok(kt_store_renewal_info_due(store, 55, ids, &count, &err));
	assert_int_equal(count, 1);
	assert_int_equal(ids[0], 1);
	ok(kt_store_renewal_info_next_due(store, 55, &next, &err));
	assert_int_equal(next, 60);
	ok(kt_store_renewal_info_next_due(store, 60, &next, &err));
	assert_int_equal(next, 0);
	ok(kt_store_begin(store, &err));
	ok(kt_store_renewal_info_delete(store, 3, &err));
	ok(kt_store_commit(store, &err));
	fails(KT_E_NOTFOUND, kt_store_renewal_info_get(store, 3, &got, &err));
	kt_store_close(store);
}

static void test_health(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_health health = {.issuer = "Issuer/default/le", .failures = 3, .failed_at = 5, .retry_at = 9,
	                                 .error = KT_E_LATER, .error_text = "busy"};
	struct kt_store_health got;
	struct kt_err err;

	fails(KT_E_NOTFOUND, kt_store_health_get(store, "Issuer/default/le", &got, &err));
	ok(kt_store_begin(store, &err));
	ok(kt_store_health_put(store, &health, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_health_get(store, "Issuer/default/le", &got, &err));
	assert_int_equal(got.failures, 3);
	assert_int_equal(got.error, KT_E_LATER);
	assert_string_equal(got.error_text, "busy");
	kt_store_health_finish(&got);
	kt_store_close(store);
}

static bool note_challenge(const struct kt_store_challenge *challenge, void *arg)
{
	(void)snprintf(arg, 200, "%s %s %s %s %s", challenge->type, challenge->name, challenge->record, challenge->value,
	               challenge->handle);
	return true;
}

static void test_challenges(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_challenge challenge = {.credential = 4, .issuer = "Issuer/default/le", .type = "dns-01", .solver = 1,
	                                       .name = "a.example", .record = "_acme-challenge.a.example", .value = "v",
	                                       .token = "t", .config = "{}", .created = 1};
	struct kt_err err;
	char seen[200] = "";

	ok(kt_store_begin(store, &err));
	ok(kt_store_challenge_insert(store, &challenge, &err));
	ok(kt_store_challenge_written(store, challenge.id, "_acme-challenge.b.example", "id-7", &err));
	fails(KT_E_NOTFOUND, kt_store_challenge_written(store, 99, NULL, NULL, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_challenge_each(store, 5, 10, note_challenge, seen, &err));
	assert_string_equal(seen, "");
	ok(kt_store_challenge_each(store, 0, 10, note_challenge, seen, &err));
	assert_string_equal(seen, "dns-01 a.example _acme-challenge.b.example v id-7");
	ok(kt_store_begin(store, &err));
	ok(kt_store_challenge_delete(store, challenge.id, &err));
	ok(kt_store_commit(store, &err));
	seen[0] = '\0';
	ok(kt_store_challenge_each(store, 4, 10, note_challenge, seen, &err));
	assert_string_equal(seen, "");
	kt_store_close(store);
}

static bool note_bucket(const char *subject, kt_ms at, kt_ms full_at, void *arg)
{
	char *text = arg;

	(void)snprintf(text + strlen(text), 200 - strlen(text), "%s %d %d;", subject, (int)at, (int)full_at);
	return true;
}

static void test_buckets(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	char seen[200] = "";
	kt_ms at, full_at;

	ok(kt_store_ledger_newest(store, "le", "order", "", &at, &full_at, &err));
	assert_true(at == 0 && full_at == 0);
	ok(kt_store_begin(store, &err));
	ok(kt_store_ledger_spend(store, "le", "order", "a", 100, "placed", 500, &err));
	ok(kt_store_ledger_spend(store, "le", "order", "b", 110, "placed", 900, &err));
	ok(kt_store_ledger_spend(store, "le", "order", "c", 120, "placed", 130, &err));
	ok(kt_store_ledger_spend(store, "le", "order", "a", 50, "placed", 510, &err)); /* the clock was set back */
	ok(kt_store_ledger_spend(store, "le", "other", "a", 60, "placed", 9999, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_ledger_newest(store, "le", "order", "a", &at, &full_at, &err));
	assert_true(at == 50 && full_at == 510);
	ok(kt_store_ledger_tight(store, "le", "order", 200, 10, note_bucket, seen, &err));
	assert_string_equal(seen, "b 110 900;a 50 510;");
	seen[0] = '\0';
	ok(kt_store_ledger_tight(store, "le", "order", 200, 1, note_bucket, seen, &err));
	assert_string_equal(seen, "b 110 900;");
	ok(kt_store_begin(store, &err));
	ok(kt_store_ledger_prune(store, 600, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_ledger_newest(store, "le", "order", "a", &at, &full_at, &err));
	assert_true(at == 0 && full_at == 0);
	ok(kt_store_ledger_newest(store, "le", "order", "b", &at, &full_at, &err));
	assert_true(at == 110 && full_at == 900);
	kt_store_close(store);
}

/* A store as the first release wrote it keeps what it has. */
static void test_from_schema_1(void **state)
{
	struct place *place = *state;
	struct kt_err err;
	struct kt_store *store;
	char path[160];
	sqlite3 *db;
	kt_ms at, full_at;

	assert_int_equal(mkdir(place->state, 0700), 0);
	path_in(place->state, KT_STORE_DB, path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, kt_migrations[0].sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=1; PRAGMA application_id=" KT_STORE_APP_ID_TEXT
	                              "; INSERT INTO ledger(issuer, what, at, outcome) VALUES('le','order',5,'placed')",
	                              NULL, NULL, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(chmod(path, 0600), 0);
	store = open_store(place->state);
	assert_true(kt_store_notes(store) & KT_STORE_MIGRATED);
	ok(kt_store_ledger_newest(store, "le", "order", "", &at, &full_at, &err));
	assert_true(at == 5 && full_at == 0);
	kt_store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(test_renewal_info, place_setup, place_teardown),
	        cmocka_unit_test_setup_teardown(test_health, place_setup, place_teardown),
	        cmocka_unit_test_setup_teardown(test_challenges, place_setup, place_teardown),
	        cmocka_unit_test_setup_teardown(test_buckets, place_setup, place_teardown),
	        cmocka_unit_test_setup_teardown(test_from_schema_1, place_setup, place_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
