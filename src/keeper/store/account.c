/* Accounts at certificate authorities, and the signing keys of our own token issuers. */
#include "keeper/store/store_internal.h"

#include <string.h>

static const size_t account_texts[] = {
        offsetof(struct kt_store_account, issuer), offsetof(struct kt_store_account, server_url),
        offsetof(struct kt_store_account, account_url), offsetof(struct kt_store_account, status),
        offsetof(struct kt_store_account, cookie),
};
static const size_t account_views[] = {offsetof(struct kt_store_account, sealed_key)};
static const struct kt_shape account_shape = {
        sizeof(struct kt_store_account), offsetof(struct kt_store_account, mem), account_texts, 5, account_views, 1,
};

static const size_t key_texts[] = {
        offsetof(struct kt_store_issuer_key, issuer),
        offsetof(struct kt_store_issuer_key, kid),
        offsetof(struct kt_store_issuer_key, alg),
};
static const size_t key_views[] = {
        offsetof(struct kt_store_issuer_key, sealed_key),
        offsetof(struct kt_store_issuer_key, public_jwk),
};
static const struct kt_shape key_shape = {
        sizeof(struct kt_store_issuer_key), offsetof(struct kt_store_issuer_key, mem), key_texts, 3, key_views, 2,
};

void kt_store_account_finish(struct kt_store_account *account)
{
	kt_row_finish(account, &account_shape);
}

void kt_store_issuer_key_finish(struct kt_store_issuer_key *key)
{
	kt_row_finish(key, &key_shape);
}

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

static enum kt_code fetch_account(struct kt_query *query, struct kt_store_account *ret, struct kt_err *err)
{
	*ret = (struct kt_store_account){
	        .issuer = kt_col_text(query, 0),
	        .server_url = kt_col_text(query, 1),
	        .account_url = kt_col_text(query, 2),
	        .sealed_key = kt_col_view(query, 3),
	        .status = kt_col_text(query, 4),
	        .cookie = kt_col_text(query, 5),
	        .created = sqlite3_column_int64(query->stmt, 6),
	};
	return kt_query_fetched(query, err);
}

enum kt_code kt_store_account_get(struct kt_store *store, const char *issuer, const char *server_url,
                                  struct kt_store_account *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_ACC_GET, err);
	bool row;

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	kt_query_need(&query, server_url);
	if ((code = kt_query_step(&query, &row, err)) != KT_OK)
		return code;
	if (!row)
		return kt_err_set(err, KT_E_NOTFOUND, "%s has no account at %s", issuer, server_url);
	code = fetch_account(&query, ret, err);
	return code == KT_OK ? kt_row_own(ret, &account_shape, err) : code;
}

enum kt_code kt_store_account_put(struct kt_store *store, const struct kt_store_account *account, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_ACC_PUT, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, account->issuer);
	kt_query_need(&query, account->server_url);
	kt_query_text(&query, account->account_url);
	kt_query_blob(&query, account->sealed_key);
	kt_query_text(&query, account->status);
	kt_query_text(&query, account->cookie);
	kt_query_int(&query, account->created);
	return kt_query_run(&query, NULL, err);
}

static enum kt_code delete_pair(struct kt_store *store, enum kt_stmt slot, const char *a, const char *b,
                                struct kt_err *err)
{
	struct kt_query query;
	int64_t changes;
	enum kt_code code = kt_query_open(&query, store, slot, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, a);
	kt_query_need(&query, b);
	if ((code = kt_query_run(&query, &changes, err)) != KT_OK)
		return code;
	return changes != 0 ? KT_OK : kt_err_set(err, KT_E_NOTFOUND, "%s: nothing stored for %s", a, b);
}

enum kt_code kt_store_account_delete(struct kt_store *store, const char *issuer, const char *server_url,
                                     struct kt_err *err)
{
	return delete_pair(store, KT_STMT_ACC_DELETE, issuer, server_url, err);
}

enum kt_code kt_store_account_each(struct kt_store *store,
                                   bool (*fn)(const struct kt_store_account *account, void *arg), void *arg,
                                   struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	struct kt_store_account account;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_ACC_EACH, err);
	bool row;

	if (code != KT_OK)
		return code;
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = fetch_account(&query, &account, err)) != KT_OK)
			return code;
		if (!fn(&account, arg))
			break;
	}
	return code;
}

/* ---- signing keys -------------------------------------------------------------------------------------------------- */

enum kt_code kt_store_issuer_key_put(struct kt_store *store, const struct kt_store_issuer_key *key,
                                     struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_IKEY_PUT, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, key->issuer);
	kt_query_need(&query, key->kid);
	kt_query_need(&query, key->alg);
	kt_query_blob(&query, key->sealed_key);
	kt_query_view(&query, key->public_jwk);
	kt_query_int(&query, key->created);
	kt_query_int(&query, key->publish_from);
	kt_query_int(&query, key->sign_from);
	kt_query_int(&query, key->retire_at);
	return kt_query_run(&query, NULL, err);
}

enum kt_code kt_store_issuer_key_each(struct kt_store *store, const char *issuer,
                                      bool (*fn)(const struct kt_store_issuer_key *key, void *arg), void *arg,
                                      struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_IKEY_EACH, err);
	bool row;

	if (code != KT_OK)
		return code;
	kt_query_need(&query, issuer);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		struct kt_store_issuer_key key = {
		        .issuer = kt_col_text(&query, 0),
		        .kid = kt_col_text(&query, 1),
		        .alg = kt_col_text(&query, 2),
		        .sealed_key = kt_col_view(&query, 3),
		        .public_jwk = kt_col_view(&query, 4),
		        .created = sqlite3_column_int64(query.stmt, 5),
		        .publish_from = sqlite3_column_int64(query.stmt, 6),
		        .sign_from = sqlite3_column_int64(query.stmt, 7),
		        .retire_at = sqlite3_column_int64(query.stmt, 8),
		};
		if ((code = kt_query_fetched(&query, err)) != KT_OK)
			return code;
		if (!fn(&key, arg))
			break;
	}
	return code;
}

enum kt_code kt_store_issuer_key_delete(struct kt_store *store, const char *issuer, const char *kid,
                                        struct kt_err *err)
{
	return delete_pair(store, KT_STMT_IKEY_DELETE, issuer, kid, err);
}
