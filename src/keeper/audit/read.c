/* Showing, verifying and pruning the audit trail. */
#include "keeper/audit/audit_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- showing ---------------------------------------------------------------------------------------------------------- */

static bool has_trace(struct kt_view body, const char *trace)
{
	static const char key[] = "\"trace_id\":\"";
	const char *at = memmem(body.ptr, body.len, key, sizeof(key) - 1);

	return at != NULL && body.len - (size_t)(at - body.ptr) > sizeof(key) + 31 &&
	       memcmp(at + sizeof(key) - 1, trace, 32) == 0;
}

/* body without its last brace, the hashes, the brace. */
static enum kt_code show(struct kt_store *store, struct kt_query *row, struct kt_buf *out, struct kt_err *err)
{
	struct kt_view hash = kt_col_view(row, 2);
	struct kt_view body = kt_col_view(row, 3);
	struct kt_view prev = kt_col_view(row, 4);
	uint8_t base[KT_STORE_HASH_LEN];
	int64_t base_seq;
	char hex[65];
	enum kt_code code = kt_query_fetched(row, err);

	if (code != KT_OK)
		return code;
	if (hash.len != KT_STORE_HASH_LEN || body.len < 2 || body.ptr[body.len - 1] != '}')
		return kt_store_odd(store, "an audit record", err);
	if (prev.len != KT_STORE_HASH_LEN) {
		if ((code = kt_meta_get_mark(store, "kt.audit_base", &base_seq, base, err)) != KT_OK)
			return code;
		prev = (struct kt_view){(const char *)base, sizeof(base)};
	}
	kt_buf_reset(out);
	kt_buf_add(out, body.ptr, body.len - 1);
	kt_audit_hex((const uint8_t *)prev.ptr, hex);
	kt_buf_adds(out, ",\"prev_hash\":\"");
	kt_buf_adds(out, hex);
	kt_audit_hex((const uint8_t *)hash.ptr, hex);
	kt_buf_adds(out, "\",\"hash\":\"");
	kt_buf_adds(out, hex);
	kt_buf_adds(out, "\"}");
	return kt_buf_check(out, "an audit record", err);
}

static enum kt_code open_query(struct kt_query *query, struct kt_store *store, const struct kt_audit_query *wanted,
                               struct kt_err *err)
{
	int64_t from = wanted->after_seq;
	int64_t trace_key = 0;
	enum kt_stmt slot = wanted->newest_first ? KT_STMT_AUDIT_EACH_BACK : KT_STMT_AUDIT_EACH;

	if (wanted->trace_id != NULL) {
		if (strnlen(wanted->trace_id, 33) != 32 || !kt_audit_trace_key(wanted->trace_id, &trace_key))
			return kt_err_set(err, KT_E_INVALID, "a trace id has 32 lower-case hex digits");
		slot = wanted->newest_first ? KT_STMT_AUDIT_TRACE_BACK : KT_STMT_AUDIT_TRACE;
	}
	enum kt_code code = kt_query_open(query, store, slot, err);
	if (code != KT_OK)
		return code;
	if (wanted->newest_first && from == 0)
		from = INT64_MAX;
	if (wanted->trace_id != NULL)
		kt_query_int(query, trace_key);
	kt_query_int(query, from);
	kt_query_int(query, wanted->since);
	if (wanted->trace_id == NULL)
		kt_query_int(query, wanted->limit != 0 ? wanted->limit : 1000);
	return KT_OK;
}

enum kt_code kt_audit_each(struct kt_store *store, const struct kt_audit_query *query,
                           bool (*fn)(const struct kt_audit_record *record, void *arg), void *arg,
                           struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query rows = {0};
	KT_AUTOBUF struct kt_buf out = {0};
	unsigned left = query->limit != 0 ? query->limit : 1000;
	bool row;

	kt_buf_init(&out, KT_STORE_VALUE_MAX);
	enum kt_code code = open_query(&rows, store, query, err);
	if (code != KT_OK)
		return code;
	while (left > 0 && (code = kt_query_step(&rows, &row, err)) == KT_OK && row) {
		if (query->trace_id != NULL && !has_trace(kt_col_view(&rows, 3), query->trace_id))
			continue;
		if ((code = show(store, &rows, &out, err)) != KT_OK)
			return code;
		struct kt_audit_record record = {
		        sqlite3_column_int64(rows.stmt, 0),
		        sqlite3_column_int64(rows.stmt, 1),
		        kt_buf_view(&out),
		};
		left--;
		if (!fn(&record, arg))
			break;
	}
	return code;
}

/* ---- verifying -------------------------------------------------------------------------------------------------------- */

struct walk {
	int64_t seq; /* of the record before */
	uint8_t hash[KT_STORE_HASH_LEN];
	struct kt_audit_verdict *verdict;
};

static void __attribute__((format(printf, 3, 4))) bad(struct walk *walk, int64_t seq, const char *fmt, ...)
{
	va_list args;

	walk->verdict->good = false;
	walk->verdict->bad_seq = seq;
	va_start(args, fmt);
	(void)vsnprintf(walk->verdict->what, sizeof(walk->verdict->what), fmt, args);
	va_end(args);
}

/* "seq", "time" and "trace_id" as the body says them must be what the row's own columns say. */
static bool columns_agree(struct kt_query *row, struct kt_view body, int64_t seq)
{
	static const char key[] = "\"trace_id\":\"";
	char start[48];
	char time[32];
	int len = snprintf(start, sizeof(start), "{\"seq\":%lld,\"time\":\"", (long long)seq);
	const char *trace = memmem(body.ptr, body.len, key, sizeof(key) - 1);
	int64_t trace_key;

	if (body.len <= (size_t)len + 32 || memcmp(body.ptr, start, (size_t)len) != 0)
		return false;
	kt_time_format_ms(sqlite3_column_int64(row->stmt, 1), time);
	if (memcmp(body.ptr + len, time, strnlen(time, 31)) != 0)
		return false;
	return trace != NULL && (size_t)(body.ptr + body.len - trace) > sizeof(key) + 32 &&
	       kt_audit_trace_key(trace + sizeof(key) - 1, &trace_key) &&
	       trace_key == sqlite3_column_int64(row->stmt, 2);
}

/* False when the walk need not go on. */
static bool check_row(struct walk *walk, struct kt_query *row)
{
	int64_t seq = sqlite3_column_int64(row->stmt, 0);
	struct kt_view hash = kt_col_view(row, 3);
	struct kt_view body = kt_col_view(row, 4);
	uint8_t expected[KT_STORE_HASH_LEN];

	if (seq > walk->seq + 2)
		bad(walk, walk->seq + 1, "records %lld to %lld are missing", (long long)walk->seq + 1,
		    (long long)seq - 1);
	else if (seq > walk->seq + 1)
		bad(walk, walk->seq + 1, "record %lld is missing", (long long)seq - 1);
	if (!walk->verdict->good)
		return false;
	kt_audit_hash(walk->hash, body, expected);
	if (hash.len != sizeof(expected) || memcmp(expected, hash.ptr, sizeof(expected)) != 0 ||
	    !columns_agree(row, body, seq)) {
		bad(walk, seq, "record %lld was changed, or stands in another's place", (long long)seq);
		return false;
	}
	walk->seq = seq;
	memcpy(walk->hash, expected, sizeof(expected));
	if (walk->verdict->first_seq == 0)
		walk->verdict->first_seq = seq;
	walk->verdict->last_seq = seq;
	walk->verdict->count++;
	return true;
}

static void check_end(struct walk *walk, int64_t head_seq, const uint8_t *head)
{
	if (!walk->verdict->good)
		return;
	if (walk->seq < head_seq)
		bad(walk, walk->seq + 1, "records %lld to %lld are missing at the end", (long long)walk->seq + 1,
		    (long long)head_seq);
	else if (walk->seq > head_seq)
		bad(walk, head_seq + 1, "record %lld was added behind the last one, %lld", (long long)head_seq + 1,
		    (long long)head_seq);
	else if (memcmp(walk->hash, head, KT_STORE_HASH_LEN) != 0)
		bad(walk, walk->seq, "record %lld is not the last one that was written", (long long)walk->seq);
}

enum kt_code kt_audit_verify(struct kt_store *store, struct kt_audit_verdict *ret, struct kt_err *err)
{
	struct walk walk = {.verdict = ret};
	uint8_t head[KT_STORE_HASH_LEN];
	int64_t head_seq;
	enum kt_code code;
	bool row = true;

	memset(ret, 0, sizeof(*ret));
	ret->good = true;
	if ((code = kt_meta_get_mark(store, "kt.audit_base", &walk.seq, walk.hash, err)) != KT_OK ||
	    (code = kt_meta_get_mark(store, "kt.audit_head", &head_seq, head, err)) != KT_OK)
		return code;
	if (store->now.audit_dirty && store->in_transaction) { /* the head is written with the commit */
		head_seq = store->now.audit_seq;
		memcpy(head, store->now.audit_hash, sizeof(head));
	}
	while (ret->good && row) {
		KT_AUTOQUERY struct kt_query rows = {0};
		unsigned count = 0;
		if ((code = kt_query_open(&rows, store, KT_STMT_AUDIT_WALK, err)) != KT_OK)
			return code;
		kt_query_int(&rows, walk.seq);
		while ((code = kt_query_step(&rows, &row, err)) == KT_OK && row && check_row(&walk, &rows))
			count++;
		if (code != KT_OK || (code = kt_query_fetched(&rows, err)) != KT_OK)
			return code;
		row = count != 0;
	}
	check_end(&walk, head_seq, head);
	kt_audit_hex(walk.hash, ret->head);
	return KT_OK;
}

/* ---- pruning ------------------------------------------------------------------------------------------------------------ */

/* The last record of the leading run that is old enough: seq and hash; count of the run. */
static enum kt_code find_last_old(struct kt_store *store, kt_ms before, int64_t top, uint64_t max_rows, int64_t *seq,
                                  uint8_t *hash, uint64_t *count, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query rows = {0};
	enum kt_code code = kt_query_open(&rows, store, KT_STMT_AUDIT_OLD, err);
	bool row;

	*count = 0;
	if (code != KT_OK)
		return code;
	kt_query_int(&rows, top);
	kt_query_int(&rows, max_rows < INT64_MAX ? (int64_t)max_rows : INT64_MAX);
	while ((code = kt_query_step(&rows, &row, err)) == KT_OK && row &&
	       sqlite3_column_int64(rows.stmt, 1) < before) {
		struct kt_view found = kt_col_view(&rows, 2);
		if (found.len != KT_STORE_HASH_LEN)
			return kt_store_odd(store, "an audit record", err);
		*seq = sqlite3_column_int64(rows.stmt, 0);
		memcpy(hash, found.ptr, KT_STORE_HASH_LEN);
		(*count)++;
	}
	return code;
}

enum kt_code kt_audit_prune(struct kt_store *store, kt_ms before, uint64_t keep, uint64_t max_rows,
                            const char *trace_id, uint64_t *ret_removed, struct kt_err *err)
{
	uint8_t hash[KT_STORE_HASH_LEN];
	struct kt_query query;
	char reason[160];
	char hex[65];
	int64_t seq = 0;
	uint64_t count;
	enum kt_code code = kt_store_may_write(store, err);

	if (ret_removed != NULL)
		*ret_removed = 0;
	if (code != KT_OK || keep >= (uint64_t)store->now.audit_seq)
		return code;
	code = find_last_old(store, before, store->now.audit_seq - (int64_t)keep, max_rows, &seq, hash, &count, err);
	if (code != KT_OK || count == 0)
		return code;
	kt_audit_hex(hash, hex);
	(void)snprintf(reason, sizeof(reason), "%llu records up to %lld removed; the chain goes on from %s",
	               (unsigned long long)count, (long long)seq, hex);
	struct kt_audit_event event = {
	        .trace_id = trace_id, .actor = "agent", .step = "audit.pruned", .outcome = "ok", .reason = reason};
	if ((code = kt_audit_append(store, &event, err)) != KT_OK ||
	    (code = kt_meta_put_mark(store, "kt.audit_base", seq, hash, err)) != KT_OK ||
	    (code = kt_query_open(&query, store, KT_STMT_AUDIT_DELETE, err)) != KT_OK)
		return kt_store_break(store, code, err);
	kt_query_int(&query, seq);
	if ((code = kt_query_run(&query, NULL, err)) == KT_OK && ret_removed != NULL)
		*ret_removed = count;
	return code;
}
