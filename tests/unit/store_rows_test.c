/* The store row by row: materials, tasks, the smaller tables, and walks within walks. */
#include "store_helper.h"

/* ---- materials and tasks ------------------------------------------------------------------------------------------------ */

static bool collect_revision(const struct kt_store_material *material, void *arg)
{
	char *out = arg;
	size_t len = strlen(out);

	(void)snprintf(out + len, 64 - len, "%lld ", (long long)material->revision);
	return true;
}

static void test_materials(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_material full = {.credential = 1,
	                                 .revision = 1,
	                                 .state = KT_MATERIAL_PENDING,
	                                 .sealed_key = {"k\0ey", 4},
	                                 .sealed_token = KT_VIEW_LIT("tok"),
	                                 .request_key = "rk",
	                                 .csr = {"\x30\x00\xff", 3},
	                                 .chain = KT_VIEW_LIT("CHAIN"),
	                                 .ca = KT_VIEW_LIT("CA"),
	                                 .serial = "0a",
	                                 .sha256 = "ff",
	                                 .not_before = 1,
	                                 .not_after = 2,
	                                 .order_url = "o",
	                                 .finalize_url = "f",
	                                 .cert_url = "c",
	                                 .cookie = "{}",
	                                 .dir = "..d",
	                                 .created = 3,
	                                 .issued = 4};
	struct kt_store_material got;
	struct kt_err err;
	char revisions[64] = "";
	int64_t last = 0;

	fill(store, 1);
	ok(kt_store_begin(store, &err));
	ok(kt_store_material_insert(store, &full, &err));
	fails(KT_E_EXISTS, kt_store_material_insert(store, &full, &err));
	for (int i = 2; i <= 6; i++) {
		struct kt_store_material more = {.credential = 1, .revision = i};
		ok(kt_store_material_insert(store, &more, &err));
		last = more.id;
		ok(kt_store_material_mark(store, more.id, i < 5 ? KT_MATERIAL_RETIRED : KT_MATERIAL_CURRENT, "..x",
		                          &err));
	}
	ok(kt_store_material_urls(store, full.id, NULL, NULL, "c2", NULL, &err));
	fails(KT_E_NOTFOUND, kt_store_material_mark(store, 77, KT_MATERIAL_FAILED, NULL, &err));
	ok(kt_store_commit(store, &err)); /* EXISTS and NOTFOUND don't spoil a transaction */
	ok(kt_store_material_get(store, full.id, &got, &err));
	assert_true(kt_view_eq(got.sealed_key, full.sealed_key));
	assert_true(kt_view_eq(got.sealed_token, full.sealed_token));
	assert_true(kt_view_eq(got.csr, full.csr));
	assert_true(kt_view_eq(got.chain, full.chain));
	assert_true(kt_view_eq(got.ca, full.ca));
	assert_string_equal(got.request_key, "rk");
	assert_string_equal(got.serial, "0a");
	assert_string_equal(got.sha256, "ff");
	assert_string_equal(got.order_url, "o");
	assert_string_equal(got.finalize_url, "f");
	assert_string_equal(got.cert_url, "c2");
	assert_string_equal(got.cookie, "{}");
	assert_string_equal(got.dir, "..d");
	assert_int_equal(got.not_before * 1000 + got.not_after * 100 + got.created * 10 + got.issued, 1234);
	got.state = KT_MATERIAL_FAILED;
	got.chain = (struct kt_view){NULL, 0};
	ok(kt_store_begin(store, &err));
	ok(kt_store_material_put(store, &got, &err));
	ok(kt_store_material_each(store, 1, 3, collect_revision, revisions, &err));
	assert_string_equal(revisions, "6 5 4 ");
	revisions[0] = '\0';
	ok(kt_store_material_prune(store, 1, 1, &err)); /* 4, 3, 2 retired and 1 failed: 4 is the newest of them */
	ok(kt_store_material_each(store, 1, 30, collect_revision, revisions, &err));
	assert_string_equal(revisions, "6 5 4 ");
	kt_store_material_finish(&got);
	/* What was revoked stays that, whatever else happens to it. */
	ok(kt_store_material_mark(store, last, KT_MATERIAL_REVOKED, NULL, &err));
	ok(kt_store_material_mark(store, last, KT_MATERIAL_PREVIOUS, "..e", &err));
	ok(kt_store_material_get(store, last, &got, &err));
	assert_int_equal(got.state, KT_MATERIAL_REVOKED);
	assert_string_equal(got.dir, "..e");
	ok(kt_store_commit(store, &err));
	kt_store_material_finish(&got);
	fails(KT_E_NOTFOUND, kt_store_material_get(store, full.id, &got, &err));
	kt_store_close(store);
}

static bool collect_task(const struct kt_store_task *task, void *arg)
{
	char *out = arg;
	size_t len = strlen(out);

	(void)snprintf(out + len, 64 - len, "%s=%d ", task->consumer_name, task->state);
	return true;
}

static void test_tasks(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_task task = {.material = 10,
	                             .credential = 1,
	                             .consumer = 20,
	                             .consumer_name = "default/edge",
	                             .step = 2,
	                             .attempts = 3,
	                             .next_try = 100,
	                             .created = 1,
	                             .updated = 2,
	                             .error = KT_E_MISMATCH,
	                             .error_text = "old one served",
	                             .seen = "01",
	                             .expected = "02",
	                             .trace_id = TRACE,
	                             .cookie = "[]"};
	struct kt_store_task got;
	struct kt_err err;
	int64_t ids[4];
	size_t count = 4;
	unsigned changed;
	kt_ms next;
	char list[64] = "";

	ok(kt_store_begin(store, &err));
	ok(kt_store_task_insert(store, &task, &err));
	int64_t first = task.id;
	fails(KT_E_EXISTS, kt_store_task_insert(store, &task, &err));
	task.consumer = 21;
	task.consumer_name = "default/api";
	task.next_try = 50;
	ok(kt_store_task_insert(store, &task, &err));
	task.material = 11;
	task.next_try = 200;
	ok(kt_store_task_insert(store, &task, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_task_get(store, first, &got, &err));
	assert_int_equal(got.error, KT_E_MISMATCH);
	assert_string_equal(got.error_text, "old one served");
	assert_string_equal(got.seen, "01");
	assert_string_equal(got.expected, "02");
	assert_string_equal(got.trace_id, TRACE);
	assert_string_equal(got.cookie, "[]");
	assert_int_equal(got.step * 10 + (int)got.attempts, 23);
	kt_store_task_finish(&got);
	ok(kt_store_task_due(store, 150, ids, &count, &err));
	assert_int_equal(count, 2);
	assert_int_equal(ids[1], first);
	ok(kt_store_task_next_due(store, -1, &next, &err));
	assert_int_equal(next, 50);
	ok(kt_store_begin(store, &err));
	ok(kt_store_task_supersede(store, 1, 11, &changed, &err));
	assert_int_equal(changed, 2);
	task.state = KT_TASK_PROVED;
	task.next_try = 0;
	ok(kt_store_task_put(store, &task, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_task_next_due(store, -1, &next, &err));
	assert_int_equal(next, 0);
	ok(kt_store_task_each(store, 10, 10, collect_task, list, &err));
	assert_string_equal(list, "default/edge=4 default/api=4 ");
	kt_store_close(store);
}

/* ---- the smaller tables --------------------------------------------------------------------------------------------------- */

static bool count_secret(const struct kt_store_secret *secret, void *arg)
{
	assert_int_equal(secret->sealed.len, 0);
	++*(int *)arg;
	return true;
}

static bool count_account(const struct kt_store_account *account, void *arg)
{
	assert_string_equal(account->issuer, "Issuer/default/le");
	++*(int *)arg;
	return true;
}

static bool see_key(const struct kt_store_issuer_key *key, void *arg)
{
	char *out = arg;

	(void)snprintf(out + strlen(out), 32 - strlen(out), "%s ", key->kid);
	assert_true(kt_view_eq_str(key->sealed_key, "sealed"));
	assert_true(kt_view_eq_str(key->public_jwk, "{}"));
	return true;
}

static void test_small_tables(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_account account = {.issuer = "Issuer/default/le",
	                                   .server_url = "https://ca/dir",
	                                   .account_url = "https://ca/a/1",
	                                   .sealed_key = KT_VIEW_LIT("sealed"),
	                                   .status = "valid",
	                                   .created = 5};
	struct kt_store_secret secret = {.ns = "default", .name = "okta", .key = "a", .sealed = KT_VIEW_LIT("s"),
	                                 .updated = 9};
	struct kt_store_issuer_key key = {.issuer = "T", .kid = "k2", .alg = "ES256",
	                                  .sealed_key = KT_VIEW_LIT("sealed"), .public_jwk = KT_VIEW_LIT("{}"),
	                                  .sign_from = 20};
	struct kt_err err;
	int count = 0;
	kt_ms at, full_at;
	char kids[32] = "";

	ok(kt_store_begin(store, &err));
	ok(kt_store_account_put(store, &account, &err));
	account.status = "deactivated";
	ok(kt_store_account_put(store, &account, &err));
	ok(kt_store_secret_put(store, &secret, &err));
	secret.key = "b";
	secret.source = KT_SECRET_MANIFEST;
	ok(kt_store_secret_put(store, &secret, &err));
	ok(kt_store_issuer_key_put(store, &key, &err));
	key.kid = "k1";
	key.sign_from = 10;
	ok(kt_store_issuer_key_put(store, &key, &err));
	for (int i = 1; i <= 5; i++)
		ok(kt_store_ledger_spend(store, "le", "order", i < 4 ? "a" : "b", i * 10, "placed", i * 10, &err));
	ok(kt_store_commit(store, &err));

	struct kt_store_account got;
	ok(kt_store_account_get(store, "Issuer/default/le", "https://ca/dir", &got, &err));
	assert_string_equal(got.status, "deactivated");
	assert_true(kt_view_eq_str(got.sealed_key, "sealed"));
	kt_store_account_finish(&got);
	ok(kt_store_account_each(store, count_account, &count, &err));
	assert_int_equal(count, 1);
	struct kt_store_secret got_secret;
	ok(kt_store_secret_get(store, "default", "okta", "b", &got_secret, &err));
	assert_int_equal(got_secret.source, KT_SECRET_MANIFEST);
	kt_store_secret_finish(&got_secret);
	count = 0;
	ok(kt_store_secret_each(store, NULL, NULL, count_secret, &count, &err));
	ok(kt_store_secret_each(store, "other", NULL, count_secret, &count, &err));
	ok(kt_store_secret_each(store, "default", "okta", count_secret, &count, &err));
	assert_int_equal(count, 4);
	ok(kt_store_issuer_key_each(store, "T", see_key, kids, &err));
	assert_string_equal(kids, "k1 k2 ");
	ok(kt_store_ledger_newest(store, "le", "order", "a", &at, &full_at, &err));
	assert_int_equal(at, 30);

	ok(kt_store_begin(store, &err));
	ok(kt_store_ledger_prune(store, 40, &err));
	ok(kt_store_secret_drop_stale(store, 10, &err));
	fails(KT_E_NOTFOUND, kt_store_secret_delete(store, "default", "okta", "b", &err));
	ok(kt_store_secret_delete(store, "default", "okta", NULL, &err));
	ok(kt_store_issuer_key_delete(store, "T", "k1", &err));
	ok(kt_store_account_delete(store, "Issuer/default/le", "https://ca/dir", &err));
	fails(KT_E_NOTFOUND, kt_store_account_delete(store, "Issuer/default/le", "https://ca/dir", &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_ledger_newest(store, "le", "order", "a", &at, &full_at, &err));
	assert_int_equal(at, 0);
	ok(kt_store_ledger_newest(store, "le", "order", "b", &at, &full_at, &err));
	assert_int_equal(at, 50);
	fails(KT_E_NOTFOUND, kt_store_account_get(store, "x", "y", &got, &err));
	kt_store_close(store);
}

/* A walk may use the store, the same walk included, and write what it stands on. */
static bool inner(const struct kt_store_resource *resource, void *arg)
{
	(void)resource;
	++*(int *)arg;
	return true;
}

struct nest {
	struct kt_store *store;
	int inner;
	int outer;
};

static bool outer(const struct kt_store_resource *resource, void *arg)
{
	struct nest *nest = arg;
	struct kt_err err;
	char name[32];

	(void)snprintf(name, sizeof(name), "%s", resource->name);
	ok(kt_store_resource_each(nest->store, NULL, 0, 100, inner, &nest->inner, &err));
	ok(kt_store_cred_put(nest->store, &(struct kt_store_cred){.id = resource->id, .step = KT_STEP_DUE}, &err));
	kt_store_trim(nest->store);
	assert_string_equal(resource->name, name);
	nest->outer++;
	return true;
}

static void test_walk_within_walk(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct nest nest = {.store = store};
	struct kt_store_counts counts;
	struct kt_err err;

	fill(store, 4);
	ok(kt_store_begin(store, &err));
	ok(kt_store_resource_each(store, NULL, 0, 100, outer, &nest, &err));
	ok(kt_store_commit(store, &err));
	assert_int_equal(nest.outer, 4);
	assert_int_equal(nest.inner, 16);
	kt_store_trim(store);
	ok(kt_store_counts(store, &counts, &err));
	assert_int_equal(counts.step[KT_KIND_CERT][KT_STEP_DUE], 4);
	kt_store_close(store);
}

/* A resource that no set has yet: it survives sets without it, and comes to life with the one that brings it. */
static void test_adopted(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_resource row = {
	        .kind = "Certificate", .ns = "default", .name = "moved", .spec = KT_VIEW_LIT("{}"), .request_key = "r"};
	struct kt_store_resource got;
	struct kt_store_cred cred;
	enum kt_store_change change;
	int64_t id, again, generation;
	struct kt_err err;

	fails(KT_E_INVALID, kt_store_resource_adopt(store, &row, &id, &err));
	ok(kt_store_begin(store, &err));
	ok(kt_store_resource_adopt(store, &row, &id, &err));
	fails(KT_E_EXISTS, kt_store_resource_adopt(store, &row, &again, &err));
	ok(kt_store_cred_put(store, &(struct kt_store_cred){.id = id, .secret_name = "moved-tls", .flags = KT_CRED_ORPHAN}, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_resource_get(store, id, &got, &err));
	assert_true(got.gone);
	kt_store_resource_finish(&got);
	for (int with = 0; with < 2; with++) {
		ok(kt_store_begin(store, &err));
		ok(kt_store_set_begin(store, &generation, &err));
		if (with) {
			ok(kt_store_set_put(store, &row, NULL, 0, &again, &change, &err));
			assert_int_equal(change, KT_STORE_RETURNED);
			assert_int_equal(again, id);
		}
		ok(kt_store_set_finish(store, NULL, NULL, &err));
		ok(kt_store_commit(store, &err));
		ok(kt_store_cred_get(store, id, &cred, &err));
		assert_int_equal((cred.flags & KT_CRED_ORPHAN) != 0, !with);
		kt_store_cred_finish(&cred);
	}
	kt_store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_materials),
	        CASE(test_tasks),
	        CASE(test_small_tables),
	        CASE(test_walk_within_walk),
	        CASE(test_adopted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
