/* The audit trail: what a record says, that the chain shows every tampering, reading by trace, and pruning. */
#include "store_helper.h"

#include <jansson.h>

struct seen {
	int count;
	int64_t first;
	int64_t last;
	char json[16384];
};

static bool see(const struct kt_audit_record *record, void *arg)
{
	struct seen *seen = arg;

	if (seen->count++ == 0)
		seen->first = record->seq;
	seen->last = record->seq;
	assert_true(record->json.len < sizeof(seen->json));
	memcpy(seen->json, record->json.ptr, record->json.len + 1);
	return true;
}

static void append(struct kt_store *store, struct kt_audit_event event, int count)
{
	struct kt_err err;

	ok(kt_store_begin(store, &err));
	for (int i = 0; i < count; i++) {
		if (event.time != 0)
			event.time++;
		ok(kt_audit_append(store, &event, &err));
	}
	ok(kt_store_commit(store, &err));
}

static void expect_text(json_t *root, const char *key, const char *text)
{
	json_t *value = json_object_get(root, key);

	assert_true(json_is_string(value));
	assert_string_equal(json_string_value(value), text);
}

static void test_record(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_audit_event event = event_of("proved", "failed");
	struct kt_audit_query query = {0};
	struct seen seen = {0};
	struct kt_err err;
	char span[17];
	char trace[33];
	char longest[3000];

	memset(longest, 'l', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	event.time = 1764000000122; /* append counts on */
	event.span_id = "00f067aa0ba902b7";
	event.reason = "a \"quote\", a \\, a line\nand \x1b[31m, bad \xff\xc0\xaf utf-8, good \xc3\xa9";
	event.error_type = "mismatch";
	event.serial = "0a1b";
	event.token_id = "jti-1";
	event.sha256 = "ab";
	event.issuer = "Issuer/default/ca";
	event.audience = "https://api";
	event.consumer = "default/edge";
	event.server_address = "127.0.0.1:8443";
	event.seen = longest;
	event.expected = "02";
	event.revision = 7;
	event.not_after = 1764000000000;
	append(store, event, 1);
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.count, 1);
	json_error_t where;
	json_t *root = json_loads(seen.json, JSON_REJECT_DUPLICATES, &where);
	if (root == NULL)
		fail_msg("%s: %s", where.text, seen.json);
	assert_int_equal(json_integer_value(json_object_get(root, "seq")), 1);
	expect_text(root, "time", "2025-11-24T16:00:00.123Z");
	expect_text(root, "trace_id", TRACE);
	expect_text(root, "span_id", "00f067aa0ba902b7");
	expect_text(root, "actor", "agent");
	expect_text(root, "resource", "Certificate/default/c0");
	expect_text(root, "step", "proved");
	expect_text(root, "outcome", "failed");
	expect_text(root, "reason",
	            "a \"quote\", a \\, a line\nand \x1b[31m, bad \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd utf-8, good "
	            "\xc3\xa9");
	expect_text(root, "error.type", "mismatch");
	expect_text(root, "serial", "0a1b");
	expect_text(root, "token_id", "jti-1");
	expect_text(root, "issuer", "Issuer/default/ca");
	expect_text(root, "audience", "https://api");
	expect_text(root, "consumer", "default/edge");
	expect_text(root, "server.address", "127.0.0.1:8443");
	expect_text(root, "not_after", "2025-11-24T16:00:00Z");
	assert_int_equal(strlen(json_string_value(json_object_get(root, "seen"))), 1024);
	assert_int_equal(strlen(json_string_value(json_object_get(root, "hash"))), 64);
	expect_text(root, "prev_hash", "0000000000000000000000000000000000000000000000000000000000000000");
	json_decref(root);

	ok(kt_store_begin(store, &err));
	event.trace_id = "short";
	fails(KT_E_INVALID, kt_audit_append(store, &event, &err));
	event.trace_id = TRACE;
	event.span_id = "00f067aa0ba902bZ";
	fails(KT_E_INVALID, kt_audit_append(store, &event, &err));
	event.span_id = NULL;
	event.actor = NULL;
	fails(KT_E_INVALID, kt_audit_append(store, &event, &err));
	kt_store_rollback(store);
	event.actor = "agent";
	fails(KT_E_INVALID, kt_audit_append(store, &event, &err));
	assert_int_equal(strlen(kt_audit_span_id(span)), 16);
	assert_int_equal(strlen(kt_audit_trace_id(1, trace)), 32);
	assert_memory_equal(trace, "000000000001", 12);
	kt_store_close(store);
}

static struct kt_audit_verdict verify(struct kt_store *store)
{
	struct kt_audit_verdict verdict;
	struct kt_err err;

	ok(kt_audit_verify(store, &verdict, &err));
	return verdict;
}

static void test_chain(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_audit_event event = event_of("due", "ok");
	struct kt_err err;
	int64_t seq;
	char head[65];

	assert_true(verify(store).good);
	append(store, event, 2500);
	struct kt_audit_verdict verdict = verify(store);
	assert_true(verdict.good);
	assert_int_equal(verdict.count, 2500);
	kt_audit_head(store, &seq, head);
	assert_int_equal(seq, 2500);
	assert_string_equal(head, verdict.head);
	/* What is rolled back was never there; within a transaction the chain is whole too. */
	ok(kt_store_begin(store, &err));
	ok(kt_audit_append(store, &event, &err));
	assert_true(verify(store).good);
	assert_int_equal(verify(store).count, 2501);
	kt_store_rollback(store);
	kt_store_close(store);
	store = open_store(place->state);
	append(store, event, 1);
	assert_true(verify(store).good);
	assert_int_equal(verify(store).last_seq, 2501);
	kt_store_close(store);
}

static void test_tampering(void **state)
{
	struct place *place = *state;
	static const struct {
		const char *sql;
		int64_t bad;
		const char *what;
	} cases[] = {
	        {"UPDATE audit SET body=replace(body,'\"ok\"','\"no\"') WHERE seq=7", 7, "changed"},
	        {"UPDATE audit SET hash=randomblob(32) WHERE seq=9", 9, "changed"},
	        {"UPDATE audit SET hash=x'00' WHERE seq=9", 9, "changed"},
	        {"UPDATE audit SET at=at+1 WHERE seq=3", 3, "changed"},
	        {"UPDATE audit SET trace=1 WHERE seq=4", 4, "changed"},
	        {"UPDATE audit SET body='' WHERE seq=4", 4, "changed"},
	        {"DELETE FROM audit WHERE seq=5", 5, "record 5 is missing"},
	        {"DELETE FROM audit WHERE seq BETWEEN 5 AND 8", 5, "records 5 to 8 are missing"},
	        {"DELETE FROM audit WHERE seq=1", 1, "record 1 is missing"},
	        {"DELETE FROM audit WHERE seq>18", 19, "missing at the end"},
	        {"DELETE FROM audit", 1, "missing at the end"},
	        {"UPDATE audit SET seq=-6 WHERE seq=6; UPDATE audit SET seq=6 WHERE seq=7;"
	         "UPDATE audit SET seq=7 WHERE seq=-6",
	         6, "another's place"},
	        {"INSERT INTO audit SELECT 21, at, trace, hash, body FROM audit WHERE seq=20", 21, "changed"},
	};
	struct kt_store *store = open_store(place->state);

	append(store, event_of("due", "ok"), 20);
	kt_store_close(store);
	copy_dir(place->state, place->copy);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		copy_dir(place->copy, place->state);
		store = open_store(place->state);
		assert_int_equal(sqlite3_exec(store->db, cases[i].sql, NULL, NULL, NULL), SQLITE_OK);
		struct kt_audit_verdict verdict = verify(store);
		assert_false(verdict.good);
		assert_int_equal(verdict.bad_seq, cases[i].bad);
		if (strstr(verdict.what, cases[i].what) == NULL)
			fail_msg("%s: %s", cases[i].sql, verdict.what);
		kt_store_close(store);
	}
}

static void test_queries(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_audit_event event = event_of("due", "ok");
	struct kt_audit_query query = {0};
	struct seen seen = {0};
	struct kt_err err;

	event.time = 1000;
	append(store, event, 10); /* times 1001 to 1010 */
	event.trace_id = "0123456789abcdef0000000000000000"; /* the same first half */
	append(store, event, 3);
	query.limit = 4;
	query.after_seq = 2;
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.count, 4);
	assert_int_equal(seen.first, 3);
	memset(&seen, 0, sizeof(seen));
	query = (struct kt_audit_query){.newest_first = true, .limit = 2};
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.first, 13);
	assert_int_equal(seen.last, 12);
	memset(&seen, 0, sizeof(seen));
	query = (struct kt_audit_query){.trace_id = event.trace_id};
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.first, 11);
	memset(&seen, 0, sizeof(seen));
	query.newest_first = true;
	query.limit = 1;
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.first, 13);
	memset(&seen, 0, sizeof(seen));
	query = (struct kt_audit_query){.since = 1009};
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_int_equal(seen.count, 2);
	query.trace_id = "zz";
	fails(KT_E_INVALID, kt_audit_each(store, &query, see, &seen, &err));
	kt_store_close(store);
}

static void test_prune(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_audit_event event = event_of("due", "ok");
	struct kt_audit_query query = {.limit = 1};
	struct seen seen = {0};
	struct kt_err err;
	uint64_t removed;

	event.time = 1000;
	append(store, event, 20);
	ok(kt_store_begin(store, &err));
	ok(kt_audit_prune(store, 1011, 5, 100, TRACE, &removed, &err));
	assert_int_equal(removed, 10);
	ok(kt_store_commit(store, &err));
	struct kt_audit_verdict verdict = verify(store);
	if (!verdict.good)
		fail_msg("%s", verdict.what);
	assert_int_equal(verdict.first_seq, 11);
	assert_int_equal(verdict.last_seq, 21);
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_null(strstr(seen.json, "\"prev_hash\":\"000000000000"));
	query = (struct kt_audit_query){.newest_first = true, .limit = 1};
	ok(kt_audit_each(store, &query, see, &seen, &err));
	assert_non_null(strstr(seen.json, "audit.pruned"));
	/* Never the newest ones, and no more than asked at a time. */
	ok(kt_store_begin(store, &err));
	ok(kt_audit_prune(store, 5000, 5, 3, TRACE, &removed, &err));
	assert_int_equal(removed, 3);
	ok(kt_audit_prune(store, INT64_MAX, 5, 100, TRACE, &removed, &err));
	ok(kt_store_commit(store, &err));
	assert_true(verify(store).count >= 5);
	assert_true(verify(store).good);
	kt_store_close(store);
	store = open_store(place->state);
	assert_true(verify(store).good);
	/* The records behind the base can't be put back, nor can more be taken away. */
	assert_int_equal(sqlite3_exec(store->db, "DELETE FROM audit WHERE seq=(SELECT min(seq) FROM audit)", NULL, NULL,
	                              NULL),
	                 SQLITE_OK);
	assert_false(verify(store).good);
	kt_store_close(store);
}

/* Three records, a page of them, their trace, the oldest pruned, and all verified. */
static enum kt_code flow(const char *dir, struct kt_err *err)
{
	struct kt_store_open options = {.dir = dir};
	struct kt_audit_query all = {.limit = 10}, one = {.trace_id = TRACE};
	struct kt_audit_event event = event_of("due", "ok");
	struct kt_audit_verdict verdict = {0};
	struct kt_store *store = NULL;
	struct seen seen = {0};
	uint64_t removed;
	enum kt_code code;

	kt_err_clear(err);
	code = kt_store_open(&options, &store, err);
	if (code == KT_OK)
		code = kt_store_begin(store, err);
	for (int i = 0; i < 3 && code == KT_OK; i++)
		code = kt_audit_append(store, &event, err);
	if (code == KT_OK)
		code = kt_audit_prune(store, INT64_MAX, 5, 2, TRACE, &removed, err);
	if (code == KT_OK)
		code = kt_store_commit(store, err);
	else if (store != NULL)
		kt_store_rollback(store);
	if (code == KT_OK)
		code = kt_audit_each(store, &all, see, &seen, err);
	if (code == KT_OK)
		code = kt_audit_each(store, &one, see, &seen, err);
	if (code == KT_OK)
		code = kt_audit_verify(store, &verdict, err);
	kt_store_close(store);
	/* Never a word about tampering where only memory was missing. */
	assert_true(code != KT_OK || verdict.good);
	return code;
}

static void test_no_memory(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_err err;
	unsigned failed = 0;

	append(store, event_of("due", "ok"), 10);
	kt_store_close(store);
	uint64_t before = kt_mem_count();
	ok(flow(place->state, &err));
	int64_t total = (int64_t)(kt_mem_count() - before);
	for (int64_t n = 0; n < 2 * total; n++) {
		kt_mem_fail_after(n / 2, n & 1);
		enum kt_code code = flow(place->state, &err);
		kt_mem_fail_after(-1, 0);
		if (code != KT_OK && code != KT_E_NOMEM)
			fail_msg("allocation %lld: %s: %s", (long long)(n / 2), kt_code_name(code), err.what);
		failed += code != KT_OK;
		if (n % 16 == 0) {
			store = open_store(place->state);
			struct kt_audit_verdict verdict = verify(store);
			if (!verdict.good)
				fail_msg("after allocation %lld: %s", (long long)(n / 2), verdict.what);
			kt_store_close(store);
		}
	}
	assert_true(failed > 50);
	print_message("%lld allocations, each failed once and for good: %u errors\n", (long long)total, failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_record), CASE(test_chain), CASE(test_tampering), CASE(test_queries), CASE(test_prune),
	        CASE(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
