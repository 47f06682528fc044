/* Credentials: where each stands in the pipeline, what is due next, and how many there are of each sort. */
#include "keeper/store/store_internal.h"

#include <stdio.h>
#include <string.h>

static const size_t texts[] = {
        offsetof(struct kt_store_cred, secret_name),
        offsetof(struct kt_store_cred, error_text),
        offsetof(struct kt_store_cred, trace_id),
        offsetof(struct kt_store_cred, cookie),
        offsetof(struct kt_store_cred, deliver_text),
};
static const struct kt_shape shape = {
        sizeof(struct kt_store_cred), offsetof(struct kt_store_cred, mem), texts, sizeof(texts) / sizeof(texts[0]), NULL, 0,
};

void kt_store_cred_finish(struct kt_store_cred *cred)
{
	kt_row_finish(cred, &shape);
}

const char *kt_step_name(enum kt_step step)
{
	static const char *const names[KT_STEP_COUNT] = {
	        "new",      "due",      "keyed",  "ordered", "obtained",    "staged", "validated",
	        "switched", "notified", "proved", "retired", "rolled-back",
	};

	return (unsigned)step < KT_STEP_COUNT ? names[step] : "unknown";
}

static enum kt_code error_from(const char *name)
{
	enum kt_code code = name[0] != '\0' ? kt_code_from_name(name) : KT_OK;

	return code < KT_CODE_COUNT ? code : KT_E_CORRUPT;
}

enum kt_code kt_cred_fetch(struct kt_query *query, int col, struct kt_store_cred *ret, struct kt_err *err)
{
	sqlite3_stmt *stmt = query->stmt;
	int64_t kind = sqlite3_column_int64(stmt, col + 1);
	int64_t step = sqlite3_column_int64(stmt, col + 3);
	int64_t proof = sqlite3_column_int64(stmt, col + 19);

	if (kind < 0 || kind >= KT_KIND_COUNT || step < 0 || step >= KT_STEP_COUNT || proof < 0 ||
	    proof > KT_PROOF_UPLOADED)
		return kt_store_odd(query->store, "a credential in a step or of a kind", err);
	*ret = (struct kt_store_cred){
	        .id = sqlite3_column_int64(stmt, col),
	        .kind = (enum kt_store_kind)kind,
	        .secret_name = kt_col_text(query, col + 2),
	        .step = (enum kt_step)step,
	        .step_at = sqlite3_column_int64(stmt, col + 4),
	        .due_at = sqlite3_column_int64(stmt, col + 5),
	        .expiry = sqlite3_column_int64(stmt, col + 6),
	        .active = sqlite3_column_int64(stmt, col + 7),
	        .candidate = sqlite3_column_int64(stmt, col + 8),
	        .revision = sqlite3_column_int64(stmt, col + 9),
	        .attempts = (unsigned)sqlite3_column_int64(stmt, col + 10),
	        .deaths = (unsigned)sqlite3_column_int64(stmt, col + 11),
	        .next_try = sqlite3_column_int64(stmt, col + 12),
	        .error = error_from(kt_col_text(query, col + 13)),
	        .error_text = kt_col_text(query, col + 14),
	        .error_at = sqlite3_column_int64(stmt, col + 15),
	        .trace_id = kt_col_text(query, col + 16),
	        .flags = (unsigned)sqlite3_column_int64(stmt, col + 17) & ~(unsigned)KT_CRED_ORPHAN,
	        .proof = (enum kt_store_proof)proof,
	        .delivered_at = sqlite3_column_int64(stmt, col + 20),
	        .proved_at = sqlite3_column_int64(stmt, col + 21),
	        .cookie = kt_col_text(query, col + 22),
	        .deliver_failures = (unsigned)sqlite3_column_int64(stmt, col + 23),
	        .deliver_at = sqlite3_column_int64(stmt, col + 24),
	        .deliver_error = error_from(kt_col_text(query, col + 25)),
	        .deliver_text = kt_col_text(query, col + 26),
	};
	if (sqlite3_column_int64(stmt, col + 18) != 0)
		ret->flags |= KT_CRED_ORPHAN;
	return kt_query_fetched(query, err);
}

static enum kt_code fetch_one(struct kt_query *query, struct kt_store_cred *ret, struct kt_err *err)
{
	enum kt_code code = kt_query_row(query, "no such credential", err);

	if (code == KT_OK && (code = kt_cred_fetch(query, 0, ret, err)) == KT_OK)
		code = kt_row_own(ret, &shape, err);
	return code;
}

enum kt_code kt_store_cred_get(struct kt_store *store, int64_t id, struct kt_store_cred *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CRED_GET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_int(&query, id);
	return fetch_one(&query, ret, err);
}

enum kt_code kt_store_cred_find_secret(struct kt_store *store, const char *ns, const char *secret_name,
                                       struct kt_store_cred *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CRED_FIND_SECRET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_need(&query, secret_name);
	kt_query_need(&query, ns);
	return fetch_one(&query, ret, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* The columns that the pipeline changes at every step, in the order of CRED_STEP; id last. */
static void bind_step(struct kt_query *query, const struct kt_store_cred *cred)
{
	kt_query_int(query, cred->step);
	kt_query_int(query, cred->step_at);
	kt_query_int(query, cred->active);
	kt_query_int(query, cred->candidate);
	kt_query_int(query, cred->revision);
	kt_query_int(query, cred->attempts);
	kt_query_int(query, cred->deaths);
	kt_query_int(query, cred->next_try);
	kt_query_text(query, cred->error != KT_OK ? kt_code_name(cred->error) : NULL);
	kt_query_text(query, cred->error_text);
	kt_query_int(query, cred->error_at);
	kt_query_text(query, cred->trace_id);
	kt_query_int(query, cred->flags & ~(unsigned)KT_CRED_ORPHAN);
	kt_query_int(query, cred->proof);
	kt_query_int(query, cred->delivered_at);
	kt_query_int(query, cred->proved_at);
	kt_query_text(query, cred->cookie);
	kt_query_int(query, cred->deliver_failures);
	kt_query_int(query, cred->deliver_at);
	kt_query_text(query, cred->deliver_error != KT_OK ? kt_code_name(cred->deliver_error) : NULL);
	kt_query_text(query, cred->deliver_text);
	kt_query_int(query, cred->id);
}

/* Whether what stands in indexes is as it was: then those stay untouched. */
static bool same_keys(const struct kt_store_cred *a, const struct kt_store_cred *b)
{
	return a->kind == b->kind && a->due_at == b->due_at && a->expiry == b->expiry &&
	       ((a->flags ^ b->flags) & KT_CRED_ORPHAN) == 0 && kt_same_text(a->secret_name, b->secret_name);
}

static enum kt_code resource_exists(struct kt_store *store, int64_t id, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_RES_GET, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_int(&query, id);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK)
		return code;
	return row ? KT_OK : kt_err_set(err, KT_E_NOTFOUND, "no resource %lld for the credential", (long long)id);
}

static enum kt_code write_row(struct kt_store *store, const struct kt_store_cred *cred, enum kt_stmt slot,
                              struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, slot, err);

	if (code != KT_OK)
		return code;
	if (slot != KT_STMT_CRED_STEP) {
		kt_query_int(&query, cred->kind);
		kt_query_need(&query, cred->secret_name);
		kt_query_time(&query, cred->due_at);
		kt_query_time(&query, cred->expiry);
		kt_query_int(&query, (cred->flags & KT_CRED_ORPHAN) != 0);
	}
	bind_step(&query, cred);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_cred_put(struct kt_store *store, const struct kt_store_cred *cred, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_cred old;
	enum kt_stmt slot = KT_STMT_CRED_INSERT;
	enum kt_code code = kt_store_may_write(store, err);
	bool row;

	if (code != KT_OK)
		return code;
	if ((unsigned)cred->kind >= KT_KIND_COUNT || (unsigned)cred->step >= KT_STEP_COUNT)
		return kt_err_set(err, KT_E_INVALID, "a credential of unknown kind or step");
	if ((code = kt_query_open(&query, store, KT_STMT_CRED_GET, err)) != KT_OK)
		return code;
	kt_query_int(&query, cred->id);
	code = kt_query_step(&query, &row, err);
	if (code == KT_OK && row && (code = kt_cred_fetch(&query, 0, &old, err)) == KT_OK)
		slot = same_keys(&old, cred) ? KT_STMT_CRED_STEP : KT_STMT_CRED_FULL;
	if (code != KT_OK)
		return kt_store_break(store, code, err);
	/* The read must end before the row is written, or SQLite works with two cursors on it. */
	kt_query_close(&query);
	if (!row && (code = resource_exists(store, cred->id, err)) != KT_OK)
		return code;
	if ((code = write_row(store, cred, slot, err)) != KT_OK)
		return code;
	if (store->now.counted) {
		if (row)
			kt_counts_move(&store->now.counts, &old, -1);
		kt_counts_move(&store->now.counts, cred, 1);
	}
	return KT_OK;
}

enum kt_code kt_store_cred_delete(struct kt_store *store, int64_t id, struct kt_err *err)
{
	struct kt_store_cred old;
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK || (code = kt_store_cred_get(store, id, &old, err)) != KT_OK)
		return code;
	if ((code = kt_query_run_one(store, KT_STMT_TASK_DELETE_OF_CRED, id, err)) == KT_OK &&
	    (code = kt_query_run_one(store, KT_STMT_MAT_DELETE_OF, id, err)) == KT_OK &&
	    (code = kt_query_run_one(store, KT_STMT_INFO_DELETE, id, err)) == KT_OK &&
	    (code = kt_query_run_one(store, KT_STMT_CRED_DELETE, id, err)) == KT_OK &&
	    (code = kt_query_run_one(store, KT_STMT_RES_DELETE_GONE, id, err)) == KT_OK && store->now.counted)
		kt_counts_move(&store->now.counts, &old, -1);
	kt_store_cred_finish(&old);
	return kt_store_break(store, code, err);
}

enum kt_code kt_store_cred_wake(struct kt_store *store, int64_t id, kt_ms due_at, unsigned add_flags,
                                struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK)
		return code;
	if (add_flags & (KT_CRED_ORPHAN | KT_CRED_FAILED))
		return kt_err_set(err, KT_E_INVALID, "these flags are set with the whole credential");
	if ((code = kt_query_open(&query, store, KT_STMT_CRED_WAKE, err)) != KT_OK)
		return code;
	kt_query_time(&query, due_at);
	kt_query_int(&query, add_flags);
	kt_query_int(&query, id);
	return kt_query_change(&query, "no such credential", err);
}

/* ---- what is due ---------------------------------------------------------------------------------------------------- */

enum kt_code kt_store_cred_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count, struct kt_err *err)
{
	return kt_query_due(store, KT_STMT_CRED_DUE, now, ids, count, err);
}

enum kt_code kt_store_cred_due_but(struct kt_store *store, kt_ms now, const struct kt_store_link *links, size_t link_count,
                                   int64_t *ids, size_t *count, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	char names[KT_DUE_BUT_MAX][800];
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CRED_DUE_BUT, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, now);
	for (size_t i = 0; i < KT_DUE_BUT_MAX; i++) {
		if (i < link_count)
			(void)snprintf(names[i], sizeof(names[i]), "%s\n%s", links[i].ns, links[i].name);
		kt_query_text(&query, i < link_count ? names[i] : NULL);
	}
	kt_query_int(&query, (int64_t)*count);
	return kt_query_ids(&query, ids, count, err);
}

enum kt_code kt_store_cred_due_of(struct kt_store *store, kt_ms now, const char *ns, const char *name, int64_t *ids,
                                  size_t *count, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CRED_DUE_OF, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, now);
	kt_query_need(&query, ns);
	kt_query_need(&query, name);
	kt_query_int(&query, (int64_t)*count);
	return kt_query_ids(&query, ids, count, err);
}

enum kt_code kt_store_cred_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err)
{
	return kt_query_number(store, KT_STMT_CRED_NEXT_DUE, after, ret, err);
}

enum kt_code kt_store_cred_expiring(struct kt_store *store, kt_ms limit, uint64_t *ret, struct kt_err *err)
{
	int64_t count;
	enum kt_code code = kt_query_number(store, KT_STMT_CRED_EXPIRING, limit, &count, err);

	*ret = (uint64_t)count;
	return code;
}

/* ---- pages and counts ------------------------------------------------------------------------------------------------ */

enum kt_code kt_store_cred_page(struct kt_store *store, const struct kt_store_page *page,
                                bool (*fn)(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                                           void *arg),
                                void *arg, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_resource resource;
	struct kt_store_cred cred;
	enum kt_code code =
	        kt_query_open(&query, store, page->ns != NULL ? KT_STMT_CRED_PAGE_NS : KT_STMT_CRED_PAGE, err);
	bool row;

	if (code != KT_OK)
		return code;
	/* Within one namespace the rows after an earlier one are all of them, after a later one none. */
	int order = page->ns != NULL && page->after_ns != NULL ? strcmp(page->after_ns, page->ns) : 0;
	if (order > 0)
		return KT_OK;
	kt_query_need(&query, page->ns != NULL ? page->ns : page->after_ns);
	kt_query_need(&query, order == 0 ? page->after_name : NULL);
	kt_query_need(&query, order == 0 ? page->after_kind : NULL);
	kt_query_int(&query, page->limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = kt_resource_fetch(&query, 0, &resource, err)) != KT_OK ||
		    (code = kt_cred_fetch(&query, 10, &cred, err)) != KT_OK)
			return code;
		if (!fn(&resource, &cred, arg))
			break;
	}
	return code;
}

void kt_counts_move(struct kt_store_counts *counts, const struct kt_store_cred *cred, int by)
{
	uint64_t add = (uint64_t)by; /* modulo 2^64: taking away is adding */

	counts->total += add;
	if (cred->flags & KT_CRED_ORPHAN) {
		counts->orphans += add;
		return;
	}
	counts->step[cred->kind][cred->step] += add;
	if (cred->attempts > 0 || cred->deliver_failures > 0 || (cred->flags & KT_CRED_FAILED))
		counts->failing[cred->kind] += add;
	if (cred->active == 0)
		counts->unpublished[cred->kind] += add;
}

static enum kt_code count_all(struct kt_store *store, struct kt_store_counts *counts, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_CRED_COUNT, err);
	bool row;

	memset(counts, 0, sizeof(*counts));
	if (code != KT_OK)
		return code;
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		int64_t kind = sqlite3_column_int64(query.stmt, 0);
		int64_t step = sqlite3_column_int64(query.stmt, 1);
		uint64_t n = (uint64_t)sqlite3_column_int64(query.stmt, 5);
		if (kind < 0 || kind >= KT_KIND_COUNT || step < 0 || step >= KT_STEP_COUNT)
			return kt_store_odd(store, "a credential in a step or of a kind", err);
		counts->total += n;
		if (sqlite3_column_int64(query.stmt, 2) != 0) {
			counts->orphans += n;
			continue;
		}
		counts->step[kind][step] += n;
		counts->failing[kind] += sqlite3_column_int64(query.stmt, 3) != 0 ? n : 0;
		counts->unpublished[kind] += sqlite3_column_int64(query.stmt, 4) != 0 ? n : 0;
	}
	return code;
}

enum kt_code kt_store_counts(struct kt_store *store, struct kt_store_counts *ret, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	if (!store->now.counted) {
		code = count_all(store, &store->now.counts, err);
		store->now.counted = code == KT_OK;
	}
	*ret = store->now.counts;
	return code;
}
