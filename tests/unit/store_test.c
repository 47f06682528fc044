/* The store: transactions, the manifest set, the queues and indexes the pipeline lives on. */
#include "store_helper.h"

/* ---- opening -------------------------------------------------------------------------------------------------------- */

static void test_open_new(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct stat st;
	uint8_t id[16];
	char path[160];

	assert_int_equal(kt_store_notes(store), KT_STORE_IS_NEW);
	assert_int_equal(stat(place->state, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	path_in(place->state, "state.db", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	memcpy(id, kt_store_id(store), 16);
	kt_store_close(store);
	store = open_store(place->state);
	assert_int_equal(kt_store_notes(store), 0);
	assert_memory_equal(id, kt_store_id(store), 16);
	kt_store_close(store);
	kt_store_close(NULL);
}

static void test_lock(void **state)
{
	struct place *place = *state;
	struct kt_store_open options = {.dir = place->state};
	struct kt_store_open reader = {.dir = place->state, .read_only = true};
	struct kt_store_holder holder;
	struct kt_store *second = NULL;
	struct kt_store *third = NULL;
	struct kt_err err;

	ok(kt_store_holder(place->base, &holder, &err));
	assert_int_equal(holder.pid, 0);
	fails(KT_E_NOTFOUND, kt_store_open(&reader, &second, &err));

	struct kt_store *store = open_store(place->state);
	fails(KT_E_BUSY, kt_store_open(&options, &second, &err));
	assert_null(second);
	char pid[32];
	(void)snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
	assert_non_null(strstr(err.what, pid));
	assert_non_null(strstr(err.what, "/run/keyturn/control"));
	fails(KT_E_BUSY, kt_store_open(&reader, &second, &err));
	ok(kt_store_holder(place->state, &holder, &err));
	assert_int_equal(holder.pid, getpid());
	assert_false(holder.shared);
	assert_string_equal(holder.socket, "/run/keyturn/control");
	kt_store_close(store);

	ok(kt_store_holder(place->state, &holder, &err));
	assert_int_equal(holder.pid, 0);
	ok(kt_store_open(&reader, &second, &err));
	ok(kt_store_open(&reader, &third, &err));
	ok(kt_store_holder(place->state, &holder, &err));
	assert_true(holder.shared);
	fails(KT_E_BUSY, kt_store_open(&options, &store, &err));
	assert_non_null(strstr(err.what, "being read"));
	fails(KT_E_INVALID, kt_store_begin(second, &err));
	kt_store_close(second);
	kt_store_close(third);
	kt_store_close(open_store(place->state));
}

static void test_directory_of_others(void **state)
{
	struct place *place = *state;
	struct kt_store_open options = {.dir = place->state};
	struct kt_store *store;
	struct kt_err err;
	struct stat st;

	assert_int_equal(mkdir(place->state, 0700), 0);
	assert_int_equal(chmod(place->state, 0777), 0);
	fails(KT_E_POLICY, kt_store_open(&options, &store, &err));
	assert_int_equal(chmod(place->state, 0755), 0);
	ok(kt_store_open(&options, &store, &err));
	assert_int_equal(stat(place->state, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	kt_store_close(store);
}

/* ---- transactions ---------------------------------------------------------------------------------------------------- */

static void get_meta(struct kt_store *store, const char *name, char out[64])
{
	struct kt_buf buf;
	struct kt_err err;

	kt_buf_init(&buf, 63);
	out[0] = '\0';
	if (kt_store_meta_get(store, name, &buf, &err) == KT_OK)
		memcpy(out, buf.ptr, buf.len + 1);
	kt_buf_finish(&buf);
}

static void test_transactions(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	char text[64];

	fails(KT_E_INVALID, kt_store_meta_set(store, "a", KT_VIEW_LIT("1"), &err));
	fails(KT_E_INVALID, kt_store_commit(store, &err));
	ok(kt_store_begin(store, &err));
	fails(KT_E_INVALID, kt_store_begin(store, &err));
	fails(KT_E_INVALID, kt_store_meta_set(store, "kt.id", KT_VIEW_LIT("1"), &err));
	ok(kt_store_meta_set(store, "a", KT_VIEW_LIT("1"), &err));
	ok(kt_store_meta_set(store, "empty", KT_VIEW_LIT(""), &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_begin(store, &err));
	ok(kt_store_meta_set(store, "a", KT_VIEW_LIT("2"), &err));
	get_meta(store, "a", text);
	assert_string_equal(text, "2");
	kt_store_rollback(store);
	kt_store_rollback(store);
	get_meta(store, "a", text);
	assert_string_equal(text, "1");
	kt_store_close(store);
	store = open_store(place->state);
	get_meta(store, "a", text);
	assert_string_equal(text, "1");
	kt_store_close(store);
}

/* A write that failed must not leave the first half of a transaction to be committed. */
static void test_broken_transaction(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	char text[64];
	char *big = calloc(1, KT_STORE_VALUE_MAX + 1);

	fill(store, 1);
	ok(kt_store_begin(store, &err));
	ok(kt_store_meta_set(store, "a", KT_VIEW_LIT("1"), &err));
	struct kt_store_material material = {
	        .credential = 1, .revision = 1, .chain = {big, (size_t)KT_STORE_VALUE_MAX + 1}};
	fails(KT_E_LIMIT, kt_store_material_insert(store, &material, &err));
	fails(KT_E_LIMIT, kt_store_meta_set(store, "b", KT_VIEW_LIT("1"), &err));
	fails(KT_E_LIMIT, kt_store_commit(store, &err));
	assert_false(kt_store_in_transaction(store));
	get_meta(store, "a", text);
	assert_string_equal(text, "");
	free(big);
	kt_store_close(store);
}

static void test_disk_full(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	enum kt_code code = KT_OK;
	char blob[4096];

	fill(store, 1);
	memset(blob, 'x', sizeof(blob));
	assert_int_equal(sqlite3_exec(store->db, "PRAGMA max_page_count=80", NULL, NULL, NULL), SQLITE_OK);
	for (int i = 1; i < 200 && code == KT_OK; i++) {
		ok(kt_store_begin(store, &err));
		struct kt_store_material material = {
		        .credential = 1, .revision = i, .chain = {blob, sizeof(blob)}};
		code = kt_store_material_insert(store, &material, &err);
		if (code == KT_OK)
			code = kt_store_commit(store, &err);
	}
	assert_int_equal(code, KT_E_SYS);
	assert_int_equal(err.sys_errno, ENOSPC);
	assert_non_null(strstr(err.what, "disk full"));
	fails(KT_E_SYS, kt_store_commit(store, &err));
	/* There is room again: work goes on. */
	assert_int_equal(sqlite3_exec(store->db, "PRAGMA max_page_count=10000", NULL, NULL, NULL), SQLITE_OK);
	ok(kt_store_begin(store, &err));
	ok(kt_store_meta_set(store, "a", KT_VIEW_LIT("1"), &err));
	ok(kt_store_commit(store, &err));
	kt_store_close(store);
}

/* ---- the manifest set -------------------------------------------------------------------------------------------------- */

struct heard {
	int count;
	int orphans;
	char last[64];
};

static bool hear(const struct kt_store_resource *resource, bool orphan, void *arg)
{
	struct heard *heard = arg;

	heard->count++;
	heard->orphans += orphan;
	assert_true(resource->gone);
	(void)snprintf(heard->last, sizeof(heard->last), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	return true;
}

static void test_set(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct heard heard = {0};
	struct kt_store_resource got;
	struct kt_store_cred cred;
	struct kt_err err;
	int64_t generation;

	fill(store, 3);
	assert_int_equal(kt_store_generation(store), 1);
	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	assert_int_equal(generation, 2);
	fails(KT_E_INVALID, kt_store_set_begin(store, &generation, &err));
	int64_t c0 = put_resource(store, "Certificate", "default", "c0", "{}", KT_STORE_SAME);
	(void)put_resource(store, "Certificate", "default", "c1", "{\"a\":1}", KT_STORE_CHANGED);
	int64_t issuer = put_resource(store, "Issuer", "default", "ca", "{}", KT_STORE_ADDED);
	ok(kt_store_set_finish(store, hear, &heard, &err));
	ok(kt_store_commit(store, &err));
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.orphans, 1);
	assert_string_equal(heard.last, "Certificate/default/c2");

	ok(kt_store_resource_find(store, "Certificate", "default", "c1", &got, &err));
	assert_int_equal(got.generation, 2);
	assert_true(kt_view_eq_str(got.spec, "{\"a\":1}"));
	assert_string_equal(got.request_key, "r1");
	assert_string_equal(got.file, "a.yaml");
	assert_int_equal(got.line, 7);
	kt_store_resource_finish(&got);
	ok(kt_store_resource_get(store, c0, &got, &err));
	assert_int_equal(got.generation, 1);
	kt_store_resource_finish(&got);
	ok(kt_store_resource_find(store, "Certificate", "default", "c2", &got, &err));
	assert_true(got.gone);
	ok(kt_store_cred_get(store, got.id, &cred, &err));
	assert_true(cred.flags & KT_CRED_ORPHAN);
	assert_int_equal(cred.due_at, 0);
	int64_t c2 = got.id;
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&got);

	/* It comes back under its old id, with what it had; the issuer, which has no credential, is removed. */
	memset(&heard, 0, sizeof(heard));
	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	assert_int_equal(put_resource(store, "Certificate", "default", "c2", "{}", KT_STORE_RETURNED), c2);
	fails(KT_E_EXISTS, kt_store_set_put(store,
	                                    &(struct kt_store_resource){.kind = "Certificate",
	                                                                .ns = "default",
	                                                                .name = "c2",
	                                                                .spec = KT_VIEW_LIT("{}"),
	                                                                .file = "b.yaml"},
	                                    NULL, 0, &c2, &(enum kt_store_change){0}, &err));
	assert_non_null(strstr(err.what, "twice"));
	fails(KT_E_INVALID, kt_store_commit(store, &err)); /* not finished: the old set stays */
	assert_int_equal(kt_store_generation(store), 2);
	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	(void)put_resource(store, "Certificate", "default", "c2", "{}", KT_STORE_RETURNED);
	ok(kt_store_set_finish(store, hear, &heard, &err));
	ok(kt_store_commit(store, &err));
	assert_int_equal(heard.count, 3);
	assert_int_equal(heard.orphans, 2);
	ok(kt_store_cred_get(store, c2, &cred, &err));
	assert_false(cred.flags & KT_CRED_ORPHAN);
	assert_string_equal(cred.secret_name, "c2");
	kt_store_cred_finish(&cred);
	fails(KT_E_NOTFOUND, kt_store_resource_get(store, issuer, &got, &err));

	/* Deleting an orphan takes the resource with it. */
	ok(kt_store_begin(store, &err));
	ok(kt_store_cred_delete(store, c0, &err));
	ok(kt_store_commit(store, &err));
	fails(KT_E_NOTFOUND, kt_store_resource_get(store, c0, &got, &err));
	fails(KT_E_NOTFOUND, kt_store_cred_get(store, c0, &cred, &err));
	kt_store_close(store);
}

static bool count_resource(const struct kt_store_resource *resource, void *arg)
{
	int64_t *last = arg;

	assert_true(resource->id > last[0]);
	last[0] = resource->id;
	last[1]++;
	return true;
}

static void test_links_and_walks(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_link link = {"issuer", "default", "Issuer/ca"};
	struct kt_store_link twice[2] = {link, link};
	struct kt_err err;
	int64_t generation;
	int64_t ids[8];
	int64_t made[3];
	size_t count = 8;

	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	for (int i = 0; i < 3; i++) {
		const char *const kinds[] = {"Certificate", "Token", "Certificate"};
		char name[8];
		enum kt_store_change change;
		(void)snprintf(name, sizeof(name), "n%d", i);
		struct kt_store_resource resource = {
		        .kind = kinds[i], .ns = "default", .name = name, .spec = KT_VIEW_LIT("{}")};
		ok(kt_store_set_put(store, &resource, twice, i == 2 ? 2 : 1, &made[i], &change, &err));
	}
	ok(kt_store_set_finish(store, NULL, NULL, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_linked(store, &link, 0, ids, &count, &err));
	assert_int_equal(count, 3);
	count = 8;
	ok(kt_store_linked(store, &link, made[0], ids, &count, &err));
	assert_int_equal(count, 2);
	assert_int_equal(ids[0], made[1]);
	int64_t seen[2] = {0, 0};
	ok(kt_store_resource_each(store, "Certificate", 0, 100, count_resource, seen, &err));
	assert_int_equal(seen[1], 2);
	memset(seen, 0, sizeof(seen));
	ok(kt_store_resource_each(store, NULL, 0, 2, count_resource, seen, &err));
	assert_int_equal(seen[1], 2);
	ok(kt_store_resource_each(store, NULL, seen[0], 2, count_resource, seen, &err));
	assert_int_equal(seen[1], 3);
	kt_store_close(store);
}

/* ---- credentials ------------------------------------------------------------------------------------------------------ */

static void check_counts(struct kt_store *store)
{
	struct kt_store_counts kept;
	struct kt_store_counts fresh;
	struct kt_err err;

	ok(kt_store_counts(store, &kept, &err));
	store->now.counted = false;
	ok(kt_store_counts(store, &fresh, &err));
	assert_memory_equal(&kept, &fresh, sizeof(kept));
}

static void test_credentials(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_counts counts;
	struct kt_store_cred cred;
	struct kt_err err;

	fill(store, 3);
	check_counts(store);
	ok(kt_store_begin(store, &err));
	fails(KT_E_NOTFOUND, kt_store_cred_put(store, &(struct kt_store_cred){.id = 99}, &err));
	struct kt_store_cred full = {.id = 1,
	                             .kind = KT_KIND_TOKEN,
	                             .secret_name = "s",
	                             .step = KT_STEP_PROVED,
	                             .step_at = 5,
	                             .due_at = 6,
	                             .expiry = 7,
	                             .active = 8,
	                             .candidate = 9,
	                             .revision = 10,
	                             .attempts = 11,
	                             .deaths = 12,
	                             .next_try = 13,
	                             .error = KT_E_TIMEOUT,
	                             .error_text = "late",
	                             .error_at = 14,
	                             .trace_id = TRACE,
	                             .flags = KT_CRED_FORCED | 4,
	                             .proof = KT_PROOF_PROVED,
	                             .delivered_at = 15,
	                             .proved_at = 16,
	                             .cookie = "{}"};
	ok(kt_store_cred_put(store, &full, &err));
	ok(kt_store_commit(store, &err));
	check_counts(store);
	ok(kt_store_cred_get(store, 1, &cred, &err));
	assert_int_equal(cred.kind, full.kind);
	assert_string_equal(cred.secret_name, full.secret_name);
	assert_int_equal(cred.step, full.step);
	assert_int_equal(cred.step_at + cred.due_at + cred.expiry + cred.active, 5 + 6 + 7 + 8);
	assert_int_equal(cred.candidate, 9);
	assert_int_equal(cred.revision, 10);
	assert_int_equal(cred.attempts, 11);
	assert_int_equal(cred.deaths, 12);
	assert_int_equal(cred.next_try, 13);
	assert_int_equal(cred.error, KT_E_TIMEOUT);
	assert_string_equal(cred.error_text, "late");
	assert_int_equal(cred.error_at, 14);
	assert_string_equal(cred.trace_id, TRACE);
	assert_int_equal(cred.flags, full.flags);
	assert_int_equal(cred.proof, KT_PROOF_PROVED);
	assert_int_equal(cred.delivered_at, 15);
	assert_int_equal(cred.proved_at, 16);
	assert_string_equal(cred.cookie, "{}");
	kt_store_cred_finish(&cred);

	/* A rolled back step does not count. */
	ok(kt_store_begin(store, &err));
	full.step = KT_STEP_RETIRED;
	full.attempts = 0;
	ok(kt_store_cred_put(store, &full, &err));
	ok(kt_store_counts(store, &counts, &err));
	assert_int_equal(counts.step[KT_KIND_TOKEN][KT_STEP_RETIRED], 1);
	assert_int_equal(counts.failing[KT_KIND_TOKEN], 0);
	kt_store_rollback(store);
	ok(kt_store_counts(store, &counts, &err));
	assert_int_equal(counts.step[KT_KIND_TOKEN][KT_STEP_PROVED], 1);
	assert_int_equal(counts.failing[KT_KIND_TOKEN], 1);
	assert_int_equal(counts.total, 3);
	assert_int_equal(counts.unpublished[KT_KIND_CERT], 2);
	check_counts(store);
	ok(kt_store_cred_find_secret(store, "default", "c1", &cred, &err));
	assert_int_equal(cred.id, 2);
	kt_store_cred_finish(&cred);
	fails(KT_E_NOTFOUND, kt_store_cred_find_secret(store, "other", "c1", &cred, &err));
	kt_store_close(store);
	assert_string_equal(kt_step_name(KT_STEP_ROLLED_BACK), "rolled-back");
	assert_string_equal(kt_step_name((enum kt_step)77), "unknown");
}

static void test_due(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	int64_t ids[8];
	size_t count = 8;
	kt_ms next;
	uint64_t expiring;
	struct kt_err err;
	/* due_at, expiry: the one that ends soonest goes first; a new one as if it ended in ten minutes */
	const kt_ms rows[5][2] = {{1000, 9000000}, {1001, 0}, {1002, 500000}, {5000, 1}, {0, 0}};

	fill(store, 5);
	ok(kt_store_begin(store, &err));
	for (int i = 0; i < 5; i++)
		ok(kt_store_cred_put(store,
		                     &(struct kt_store_cred){
		                             .id = i + 1, .due_at = rows[i][0], .expiry = rows[i][1]},
		                     &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_cred_due(store, 2000, ids, &count, &err));
	assert_int_equal(count, 3);
	assert_int_equal(ids[0], 3);
	assert_int_equal(ids[1], 2);
	assert_int_equal(ids[2], 1);
	count = 1;
	ok(kt_store_cred_due(store, 2000, ids, &count, &err));
	assert_int_equal(count, 1);
	assert_int_equal(ids[0], 3);
	ok(kt_store_cred_next_due(store, -1, &next, &err));
	assert_int_equal(next, 1000);
	ok(kt_store_cred_next_due(store, 2000, &next, &err));
	assert_int_equal(next, 5000);
	ok(kt_store_cred_next_due(store, 5000, &next, &err));
	assert_int_equal(next, 0);
	ok(kt_store_cred_expiring(store, 500000, &expiring, &err));
	assert_int_equal(expiring, 2);
	ok(kt_store_begin(store, &err));
	ok(kt_store_cred_wake(store, 5, 7000, KT_CRED_FORCED, &err));
	fails(KT_E_NOTFOUND, kt_store_cred_wake(store, 55, 7000, 0, &err));
	ok(kt_store_commit(store, &err));
	ok(kt_store_cred_next_due(store, 5000, &next, &err));
	assert_int_equal(next, 7000);
	kt_store_close(store);
}

struct page_seen {
	int count;
	char last_ns[32];
	char last_name[32];
	char last_kind[32];
};

static bool see_page(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct page_seen *seen = arg;

	assert_int_equal(resource->id, cred->id);
	int order = strcmp(resource->ns, seen->last_ns);
	assert_true(order > 0 || (order == 0 && (strcmp(resource->name, seen->last_name) > 0 ||
	                                         (strcmp(resource->name, seen->last_name) == 0 &&
	                                          strcmp(resource->kind, seen->last_kind) > 0))));
	(void)snprintf(seen->last_ns, sizeof(seen->last_ns), "%s", resource->ns);
	(void)snprintf(seen->last_name, sizeof(seen->last_name), "%s", resource->name);
	(void)snprintf(seen->last_kind, sizeof(seen->last_kind), "%s", resource->kind);
	seen->count++;
	return true;
}

static void test_pages(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	int64_t generation;
	struct page_seen seen = {0};
	unsigned pages = 0;

	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	for (int i = 0; i < 30; i++) {
		char name[16];
		(void)snprintf(name, sizeof(name), "n%d", i / 2);
		int64_t id = put_resource(store, i % 2 ? "Token" : "Certificate", i % 3 ? "a" : "b", name, "{}",
		                          KT_STORE_ADDED);
		ok(kt_store_cred_put(store, &(struct kt_store_cred){.id = id}, &err));
	}
	(void)put_resource(store, "Issuer", "a", "n0", "{}", KT_STORE_ADDED);
	ok(kt_store_set_finish(store, NULL, NULL, &err));
	ok(kt_store_commit(store, &err));
	for (int before = -1; before != seen.count; pages++) {
		struct page_seen key = seen;
		struct kt_store_page page = {.limit = 7};
		before = seen.count;
		if (seen.count != 0) {
			page.after_ns = key.last_ns;
			page.after_name = key.last_name;
			page.after_kind = key.last_kind;
		}
		ok(kt_store_cred_page(store, &page, see_page, &seen, &err));
	}
	assert_int_equal(seen.count, 30);
	assert_int_equal(pages, 6);
	memset(&seen, 0, sizeof(seen));
	struct kt_store_page page = {.ns = "b", .limit = 100};
	ok(kt_store_cred_page(store, &page, see_page, &seen, &err));
	assert_int_equal(seen.count, 10);
	assert_string_equal(seen.last_ns, "b");
	page.after_ns = "c";
	page.after_name = page.after_kind = "";
	memset(&seen, 0, sizeof(seen));
	ok(kt_store_cred_page(store, &page, see_page, &seen, &err));
	assert_int_equal(seen.count, 0);
	kt_store_close(store);
}

struct walked {
	int64_t last;
	size_t count, stop;
};

static bool walk(int64_t id, void *arg)
{
	struct walked *walked = arg;

	assert_true(id > walked->last);
	walked->last = id;
	return ++walked->count != walked->stop;
}

static bool has_id(const int64_t *ids, size_t count, int64_t id)
{
	size_t i = 0;

	while (i < count && ids[i] != id)
		i++;
	return i < count;
}

/* More that refer to one than fit a page; and what is due without those that only wait for an issuer, and those alone. */
static void test_many_links(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_store_link links[2] = {{"issuer", "default", "TokenIssuer/a"}, {"issuer", "", "ClusterIssuer/b"}};
	int64_t generation, ids[400], last[2] = {0, 0};
	struct walked walked = {0, 0, 0};
	size_t count = 400;
	struct kt_err err;

	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	for (int i = 0; i < 300; i++) {
		char name[16];
		enum kt_store_change change;
		struct kt_store_resource resource = {.kind = "Token", .ns = "default", .name = name, .spec = KT_VIEW_LIT("{}")};
		struct kt_store_cred cred = {.kind = KT_KIND_TOKEN, .secret_name = name, .due_at = 1000 + i};

		(void)snprintf(name, sizeof(name), "n%d", i);
		cred.flags = i == 100 ? 0x100 : i == 102 ? 0x200 : 0; /* to be delivered again, to be put back */
		cred.step = i == 104 ? KT_STEP_SWITCHED : KT_STEP_RETIRED;
		ok(kt_store_set_put(store, &resource, &links[i % 2], 1, &cred.id, &change, &err));
		ok(kt_store_cred_put(store, &cred, &err));
		ids[i] = last[i % 2] = cred.id;
	}
	ok(kt_store_set_finish(store, NULL, NULL, &err));
	ok(kt_store_commit(store, &err));
	int64_t special[3] = {ids[100], ids[102], ids[104]};

	ok(kt_store_linked_each(store, &links[0], walk, &walked, &err));
	assert_int_equal(walked.count, 150);
	assert_int_equal(walked.last, last[0]);
	walked = (struct walked){0, 0, 70};
	ok(kt_store_linked_each(store, &links[1], walk, &walked, &err));
	assert_int_equal(walked.count, 70);

	ok(kt_store_cred_due_but(store, 2000, links, 1, ids, &count, &err));
	assert_int_equal(count, 153);
	for (int i = 0; i < 3; i++)
		assert_true(has_id(ids, count, special[i]));
	assert_true(has_id(ids, count, last[1]) && !has_id(ids, count, last[0]));
	count = 400;
	ok(kt_store_cred_due_but(store, 2000, links, 2, ids, &count, &err));
	assert_int_equal(count, 3);
	count = 400;
	ok(kt_store_cred_due_of(store, 1199, "", "ClusterIssuer/b", ids, &count, &err));
	assert_int_equal(count, 100);
	count = 10;
	ok(kt_store_cred_due_of(store, 2000, "default", "TokenIssuer/a", ids, &count, &err));
	assert_int_equal(count, 10);
	kt_store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_open_new),     CASE(test_lock),               CASE(test_directory_of_others),
	        CASE(test_transactions), CASE(test_broken_transaction), CASE(test_disk_full),
	        CASE(test_set),          CASE(test_links_and_walks),    CASE(test_credentials),
	        CASE(test_due),          CASE(test_pages),
	        CASE(test_many_links),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
