/* The ledger: what was asked of each issuer and when, so that rate limits outlive a restart. */
#include "keeper/store/store_internal.h"

enum kt_code kt_store_ledger_spend(struct kt_store *store, const char *issuer, const char *what, const char *subject,
                                   kt_ms at, const char *outcome, kt_ms full_at, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_LEDGER_SPEND, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	kt_query_need(&query, what);
	kt_query_need(&query, subject);
	kt_query_int(&query, at);
	kt_query_need(&query, outcome);
	kt_query_int(&query, full_at);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_ledger_newest(struct kt_store *store, const char *issuer, const char *what, const char *subject,
                                    kt_ms *ret_at, kt_ms *ret_full_at, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_LEDGER_NEWEST, err);
	bool row;

	*ret_at = *ret_full_at = 0;
	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	kt_query_need(&query, what);
	kt_query_need(&query, subject);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK || !row)
		return code;
	*ret_at = sqlite3_column_int64(query.stmt, 0);
	*ret_full_at = sqlite3_column_int64(query.stmt, 1);
	return KT_OK;
}

enum kt_code kt_store_ledger_tight(struct kt_store *store, const char *issuer, const char *what, kt_ms now,
                                   unsigned limit,
                                   bool (*fn)(const char *subject, kt_ms at, kt_ms full_at, void *arg), void *arg,
                                   struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_LEDGER_TIGHT, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	kt_query_need(&query, what);
	kt_query_int(&query, now);
	kt_query_int(&query, limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if (!fn(kt_col_text(&query, 0), sqlite3_column_int64(query.stmt, 1), sqlite3_column_int64(query.stmt, 2), arg))
			break;
	}
	return code;
}

enum kt_code kt_store_ledger_prune(struct kt_store *store, kt_ms before, struct kt_err *err)
{
	return kt_query_run_one(store, KT_STMT_LEDGER_PRUNE, before, err);
}
