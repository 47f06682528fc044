/* Resources: the manifest set, its replacement as a whole, and who refers to whom. */
#include "keeper/store/store_internal.h"

#include <string.h>

enum { MAX_ID = 1 << 26 }; /* one bit each while a set is replaced: 8 MiB at the very most */
enum { LINKED_PAGE = 64 };

static const size_t texts[] = {
        offsetof(struct kt_store_resource, kind), offsetof(struct kt_store_resource, ns),
        offsetof(struct kt_store_resource, name), offsetof(struct kt_store_resource, request_key),
        offsetof(struct kt_store_resource, file),
};
static const size_t views[] = {offsetof(struct kt_store_resource, spec)};
static const struct kt_shape shape = {
        sizeof(struct kt_store_resource), offsetof(struct kt_store_resource, mem), texts, 5, views, 1,
};

void kt_store_resource_finish(struct kt_store_resource *resource)
{
	kt_row_finish(resource, &shape);
}

enum kt_code kt_resource_fetch(struct kt_query *query, int col, struct kt_store_resource *ret, struct kt_err *err)
{
	*ret = (struct kt_store_resource){
	        .id = sqlite3_column_int64(query->stmt, col),
	        .kind = kt_col_text(query, col + 1),
	        .ns = kt_col_text(query, col + 2),
	        .name = kt_col_text(query, col + 3),
	        .generation = sqlite3_column_int64(query->stmt, col + 4),
	        .gone = sqlite3_column_int64(query->stmt, col + 5) != 0,
	        .request_key = kt_col_text(query, col + 6),
	        .file = kt_col_text(query, col + 7),
	        .line = sqlite3_column_int64(query->stmt, col + 8),
	        .spec = kt_col_view(query, col + 9),
	};
	return kt_query_fetched(query, err);
}

static enum kt_code fetch_one(struct kt_query *query, struct kt_store_resource *ret, struct kt_err *err)
{
	enum kt_code code = kt_query_row(query, "no such resource", err);

	if (code == KT_OK && (code = kt_resource_fetch(query, 0, ret, err)) == KT_OK)
		code = kt_row_own(ret, &shape, err);
	return code;
}

enum kt_code kt_store_resource_get(struct kt_store *store, int64_t id, struct kt_store_resource *ret,
                                   struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_RES_GET, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK)
		return code;
	kt_query_int(&query, id);
	return fetch_one(&query, ret, err);
}

static enum kt_code find_open(struct kt_query *query, struct kt_store *store, const char *kind, const char *ns,
                              const char *name, struct kt_err *err)
{
	enum kt_code code = kt_query_open(query, store, KT_STMT_RES_FIND, err);

	if (code != KT_OK)
		return code;
	kt_query_need(query, ns);
	kt_query_need(query, name);
	kt_query_need(query, kind);
	return KT_OK;
}

enum kt_code kt_store_resource_find(struct kt_store *store, const char *kind, const char *ns, const char *name,
                                    struct kt_store_resource *ret, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = find_open(&query, store, kind, ns, name, err);

	memset(ret, 0, sizeof(*ret));
	return code == KT_OK ? fetch_one(&query, ret, err) : code;
}

enum kt_code kt_store_resource_each(struct kt_store *store, const char *kind, int64_t after_id, unsigned limit,
                                    bool (*fn)(const struct kt_store_resource *resource, void *arg), void *arg,
                                    struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, kind != NULL ? KT_STMT_RES_EACH_KIND : KT_STMT_RES_EACH, err);
	struct kt_store_resource resource;
	bool row;

	if (code != KT_OK)
		return code;
	if (kind != NULL)
		kt_query_text(&query, kind);
	kt_query_int(&query, after_id);
	kt_query_int(&query, limit);
	while ((code = kt_query_step(&query, &row, err)) == KT_OK && row) {
		if ((code = kt_resource_fetch(&query, 0, &resource, err)) != KT_OK)
			return code;
		if (!fn(&resource, arg))
			break;
	}
	return code;
}

enum kt_code kt_store_linked(struct kt_store *store, const struct kt_store_link *link, int64_t after_id, int64_t *ids,
                             size_t *count, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_query_open(&query, store, KT_STMT_LINKED, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, link->rel);
	kt_query_need(&query, link->ns);
	kt_query_need(&query, link->name);
	kt_query_int(&query, after_id);
	kt_query_int(&query, (int64_t)*count);
	return kt_query_ids(&query, ids, count, err);
}

enum kt_code kt_store_linked_each(struct kt_store *store, const struct kt_store_link *link,
                                  bool (*fn)(int64_t id, void *arg), void *arg, struct kt_err *err)
{
	int64_t ids[LINKED_PAGE];
	size_t count = LINKED_PAGE;
	int64_t after = 0;

	while (count == LINKED_PAGE) {
		enum kt_code code = kt_store_linked(store, link, after, ids, &count, err);

		if (code != KT_OK)
			return code;
		for (size_t i = 0; i < count; i++) {
			after = ids[i];
			if (!fn(after, arg))
				return KT_OK;
		}
	}
	return KT_OK;
}

int64_t kt_store_generation(struct kt_store *store)
{
	return store->in_transaction ? store->saved.generation : store->now.generation;
}

/* ---- replacing the set ------------------------------------------------------------------------------------------ */

enum kt_code kt_store_set_begin(struct kt_store *store, int64_t *ret_generation, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_store_may_write(store, err);
	bool row;

	if (code != KT_OK)
		return code;
	if (store->set.open)
		return kt_err_set(err, KT_E_INVALID, "a manifest set was begun already");
	if ((code = kt_query_open(&query, store, KT_STMT_RES_MAX, err)) != KT_OK ||
	    (code = kt_query_step(&query, &row, err)) != KT_OK)
		return code;
	int64_t max = row ? sqlite3_column_int64(query.stmt, 0) : 0;
	kt_query_close(&query);
	if (max < 0 || max >= MAX_ID)
		return kt_err_set(err, KT_E_LIMIT, "the store counts more than %d resources", MAX_ID);
	store->set.seen = kt_calloc(1, (size_t)max / 8 + 1);
	if (store->set.seen == NULL)
		return kt_err_set(err, KT_E_NOMEM, "replace the manifest set: out of memory");
	store->set.max_id = max;
	store->now.generation++;
	code = kt_meta_put_int(store, "kt.generation", store->now.generation, err);
	if (code != KT_OK) {
		kt_free(store->set.seen);
		store->set.seen = NULL;
		return code;
	}
	store->set.open = true;
	*ret_generation = store->now.generation;
	return KT_OK;
}

static bool was_seen(const struct kt_set_walk *set, int64_t id)
{
	return id > set->max_id || (set->seen[id / 8] >> (id % 8) & 1) != 0;
}

static void mark_seen(struct kt_set_walk *set, int64_t id)
{
	if (id <= set->max_id)
		set->seen[id / 8] |= (uint8_t)(1 << (id % 8));
}

static enum kt_code put_links(struct kt_store *store, int64_t id, bool is_new, const struct kt_store_link *links,
                              size_t count, struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code;

	if (!is_new && (code = kt_query_run_one(store, KT_STMT_LINK_CLEAR, id, err)) != KT_OK)
		return code;
	for (size_t i = 0; i < count; i++) {
		if ((code = kt_query_open(&query, store, KT_STMT_LINK_ADD, err)) != KT_OK)
			return code;
		kt_query_int(&query, id);
		kt_query_need(&query, links[i].rel);
		kt_query_need(&query, links[i].ns);
		kt_query_need(&query, links[i].name);
		if ((code = kt_query_run(&query, NULL, err)) != KT_OK)
			return code;
	}
	return KT_OK;
}

static enum kt_code insert(struct kt_store *store, const struct kt_store_resource *resource, int64_t *ret_id,
                           struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_RES_INSERT, err);

	if (code != KT_OK)
		return code;
	kt_query_need(&query, resource->kind);
	kt_query_need(&query, resource->ns);
	kt_query_need(&query, resource->name);
	kt_query_int(&query, store->now.generation);
	kt_query_text(&query, resource->request_key);
	kt_query_text(&query, resource->file);
	kt_query_int(&query, resource->line);
	kt_query_view(&query, resource->spec);
	code = kt_query_run(&query, NULL, err);
	if (code == KT_OK)
		*ret_id = sqlite3_last_insert_rowid(store->db);
	return code;
}

static enum kt_code change(struct kt_store *store, int64_t id, const struct kt_store_resource *resource,
                           struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_RES_CHANGE, err);

	if (code != KT_OK)
		return code;
	kt_query_int(&query, store->now.generation);
	kt_query_text(&query, resource->request_key);
	kt_query_text(&query, resource->file);
	kt_query_int(&query, resource->line);
	kt_query_view(&query, resource->spec);
	kt_query_int(&query, id);
	return kt_query_run(&query, NULL, err);
}

static enum kt_code move(struct kt_store *store, int64_t id, const struct kt_store_resource *resource,
                         struct kt_err *err)
{
	struct kt_query query;
	enum kt_code code = kt_query_open(&query, store, KT_STMT_RES_MOVED, err);

	if (code != KT_OK)
		return code;
	kt_query_text(&query, resource->file);
	kt_query_int(&query, resource->line);
	kt_query_int(&query, id);
	return kt_query_run(&query, NULL, err);
}

/* An orphan's credential comes back to life, or a live one becomes an orphan. */
static enum kt_code set_orphan(struct kt_store *store, int64_t id, bool orphan, bool *ret_had, struct kt_err *err)
{
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_get(store, id, &cred, err);

	*ret_had = code == KT_OK;
	if (code == KT_E_NOTFOUND) {
		kt_err_clear(err);
		return KT_OK;
	}
	if (code != KT_OK)
		return code;
	if (orphan) {
		cred.flags |= KT_CRED_ORPHAN;
		cred.due_at = 0;
	} else {
		cred.flags &= ~(unsigned)KT_CRED_ORPHAN;
	}
	code = kt_store_cred_put(store, &cred, err);
	kt_store_cred_finish(&cred);
	return code;
}

/* What became of a row that is there already. */
static enum kt_code put_known(struct kt_store *store, struct kt_query *query,
                              const struct kt_store_resource *resource, int64_t *ret_id,
                              enum kt_store_change *ret_change, struct kt_err *err)
{
	struct kt_store_resource old;
	enum kt_code code = kt_resource_fetch(query, 0, &old, err);
	bool had;

	if (code != KT_OK)
		return code;
	*ret_id = old.id;
	if (was_seen(&store->set, old.id)) /* ids above max_id were made by this very set */
		return kt_err_set(err, KT_E_EXISTS, "%s %s/%s is there twice (%s:%lld and %s:%lld)", resource->kind,
		                  resource->ns, resource->name, old.file, (long long)old.line,
		                  resource->file != NULL ? resource->file : "", (long long)resource->line);
	mark_seen(&store->set, old.id);
	if (old.gone || !kt_view_eq(old.spec, resource->spec) || !kt_same_text(old.request_key, resource->request_key)) {
		*ret_change = old.gone ? KT_STORE_RETURNED : KT_STORE_CHANGED;
		code = change(store, old.id, resource, err);
		if (code == KT_OK && *ret_change == KT_STORE_RETURNED)
			code = set_orphan(store, *ret_id, false, &had, err);
		return code;
	}
	*ret_change = KT_STORE_SAME;
	if (old.line != resource->line || !kt_same_text(old.file, resource->file))
		return move(store, old.id, resource, err);
	return KT_OK;
}

enum kt_code kt_store_set_put(struct kt_store *store, const struct kt_store_resource *resource,
                              const struct kt_store_link *links, size_t link_count, int64_t *ret_id,
                              enum kt_store_change *ret_change, struct kt_err *err)
{
	KT_AUTOQUERY struct kt_query query = {0};
	enum kt_code code = kt_store_may_write(store, err);
	bool row;

	if (code != KT_OK)
		return code;
	if (!store->set.open)
		return kt_err_set(err, KT_E_INVALID, "no manifest set was begun");
	code = find_open(&query, store, resource->kind, resource->ns, resource->name, err);
	if (code != KT_OK || (code = kt_query_step(&query, &row, err)) != KT_OK)
		return kt_store_break(store, code, err);
	if (row) {
		code = put_known(store, &query, resource, ret_id, ret_change, err);
	} else {
		*ret_change = KT_STORE_ADDED;
		code = insert(store, resource, ret_id, err);
	}
	if (code == KT_OK && *ret_change != KT_STORE_SAME)
		code = put_links(store, *ret_id, *ret_change == KT_STORE_ADDED, links, link_count, err);
	return kt_store_break(store, code, err);
}

enum kt_code kt_store_resource_adopt(struct kt_store *store, const struct kt_store_resource *resource, int64_t *ret_id,
                                     struct kt_err *err)
{
	struct kt_store_resource known;
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK)
		return code;
	code = kt_store_resource_find(store, resource->kind, resource->ns, resource->name, &known, NULL);
	kt_store_resource_finish(&known);
	if (code == KT_OK)
		return kt_err_set(err, KT_E_EXISTS, "there is a %s %s/%s already", resource->kind, resource->ns, resource->name);
	code = insert(store, resource, ret_id, err);
	if (code == KT_OK)
		code = kt_query_run_one(store, KT_STMT_RES_GONE, *ret_id, err);
	return kt_store_break(store, code, err);
}

static enum kt_code remove_one(struct kt_store *store, int64_t id,
                               bool (*removed)(const struct kt_store_resource *resource, bool orphan, void *arg),
                               void *arg, struct kt_err *err)
{
	struct kt_store_resource resource;
	bool orphan;
	enum kt_code code = kt_store_resource_get(store, id, &resource, err);

	if (code == KT_E_NOTFOUND) { /* a gap in the ids */
		kt_err_clear(err);
		return KT_OK;
	}
	if (code != KT_OK || resource.gone) {
		kt_store_resource_finish(&resource);
		return code;
	}
	if ((code = set_orphan(store, id, true, &orphan, err)) != KT_OK ||
	    (code = kt_query_run_one(store, orphan ? KT_STMT_RES_GONE : KT_STMT_RES_DELETE, id, err)) != KT_OK ||
	    (code = kt_query_run_one(store, KT_STMT_LINK_CLEAR, id, err)) != KT_OK)
		goto out;
	if (removed != NULL) {
		resource.gone = true;
		(void)removed(&resource, orphan, arg);
	}
out:
	kt_store_resource_finish(&resource);
	return code;
}

enum kt_code kt_store_set_finish(struct kt_store *store,
                                 bool (*removed)(const struct kt_store_resource *resource, bool orphan, void *arg),
                                 void *arg, struct kt_err *err)
{
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK)
		return code;
	if (!store->set.open)
		return kt_err_set(err, KT_E_INVALID, "no manifest set was begun");
	for (int64_t id = 1; code == KT_OK && id <= store->set.max_id; id++)
		if (!was_seen(&store->set, id))
			code = remove_one(store, id, removed, arg, err);
	if (code == KT_OK) {
		store->set.open = false;
		kt_free(store->set.seen);
		store->set.seen = NULL;
	}
	return kt_store_break(store, code, err);
}
