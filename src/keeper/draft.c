/* Parsing a draft and comparing it with the store: what is new, what changed and where, what is still there. */
#include "keeper/draft.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kt/mem.h"
#include "kt/text.h"

#define AGENT_MAX   ((size_t)64 << 20)  /* bytes of new and changed manifests that an agent keeps for a command */
#define COMMAND_MAX ((size_t)512 << 20) /* and a command of its own */
#define PATHS_MAX   16u
#define PATH_DEPTH  32

/* "ns/secret" of each one that a new or changed Consumer has, and the Consumer. */
struct used {
	char *ns, *secret, *consumer;
};

struct kt_draft {
	struct kt_keeper *keeper;
	struct kt_draft_entry *entries;
	size_t count, room;
	struct used *used;
	size_t used_count, used_room;
	uint8_t *seen; /* a bit for each id */
	size_t seen_size;
	size_t bytes, most;
	struct kt_buf json;
	struct kt_report report;
	const struct kt_resource *consumer; /* while its links are taken */
};

/* --- differences ---------------------------------------------------------------------------------------------------- */

struct differences {
	struct kt_buf *out;
	unsigned count;
};

static void add_path(struct differences *found, const char *path)
{
	if (found->count < PATHS_MAX) {
		kt_buf_addf(found->out, "%s%s", found->count > 0 ? ", " : "", path);
	} else if (found->count == PATHS_MAX) {
		kt_buf_adds(found->out, " and more");
	}
	found->count++;
}

static void compare(const json_t *from, const json_t *to, const char *path, int depth, struct differences *found)
{
	const char *key;
	json_t *value;
	char below[512];
	size_t i;

	if (from != NULL && to != NULL && json_equal(from, to)) {
		return;
	}
	if (json_is_object(from) && json_is_object(to) && depth < PATH_DEPTH) {
		json_object_foreach((json_t *)from, key, value)
		{
			(void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] != '\0' ? "." : "", key);
			compare(value, json_object_get(to, key), below, depth + 1, found);
		}
		json_object_foreach((json_t *)to, key, value)
		{
			if (json_object_get(from, key) == NULL) {
				(void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] != '\0' ? "." : "", key);
				add_path(found, below);
			}
		}
	} else if (json_is_array(from) && json_is_array(to) && json_array_size(from) == json_array_size(to) &&
	           depth < PATH_DEPTH) {
		json_array_foreach(from, i, value)
		{
			(void)snprintf(below, sizeof(below), "%s[%zu]", path, i);
			compare(value, json_array_get(to, i), below, depth + 1, found);
		}
	} else {
		add_path(found, path);
	}
}

void kt_draft_differences(const json_t *from, const json_t *to, struct kt_buf *out)
{
	struct differences found = {out, 0};

	compare(from, to, "", 0, &found);
}

static char *changes_between(struct kt_view from, struct kt_view to)
{
	struct kt_buf text KT_AUTOBUF = {0};
	json_t *before KT_AUTOJSON = NULL;
	json_t *after KT_AUTOJSON = NULL;

	kt_buf_init(&text, 16384);
	if (kt_json_parse(from, KT_MANIFEST_DOC_MAX * 2, &before, NULL) != KT_OK ||
	    kt_json_parse(to, KT_MANIFEST_DOC_MAX * 2, &after, NULL) != KT_OK) {
		return kt_strdup("spec");
	}
	kt_draft_differences(before, after, &text);
	return kt_strdup(text.len > 0 && text.failed == KT_OK ? text.ptr : "spec");
}

/* --- what is kept ----------------------------------------------------------------------------------------------------- */

/* Room for one more item of a growing list. */
static bool grow(void *list, size_t count, size_t *room, size_t size)
{
	void **at = list;
	size_t more = *room == 0 ? 64 : *room * 2;
	void *bigger;

	if (count < *room) {
		return true;
	}
	bigger = kt_realloc(*at, more * size);
	if (bigger == NULL) {
		return false;
	}
	*at = bigger;
	*room = more;
	return true;
}

static bool mark_seen(struct kt_draft *draft, int64_t id)
{
	size_t byte = (size_t)id / 8;

	if (byte >= draft->seen_size) {
		size_t size = byte < 512 ? 1024 : byte * 2;
		uint8_t *bigger = kt_realloc(draft->seen, size);

		if (bigger == NULL) {
			return false;
		}
		memset(bigger + draft->seen_size, 0, size - draft->seen_size);
		draft->seen = bigger;
		draft->seen_size = size;
	}
	draft->seen[byte] |= (uint8_t)(1u << ((size_t)id % 8));
	return true;
}

bool kt_draft_has(const struct kt_draft *draft, int64_t id)
{
	size_t byte = (size_t)id / 8;

	return byte < draft->seen_size && (draft->seen[byte] & (1u << ((size_t)id % 8))) != 0;
}

static void entry_finish(struct kt_draft_entry *entry)
{
	kt_free((void *)(uintptr_t)entry->row.ns);
	kt_free((void *)(uintptr_t)entry->row.name);
	kt_free((void *)(uintptr_t)entry->row.file);
	kt_free((void *)(uintptr_t)entry->row.request_key);
	kt_free((void *)(uintptr_t)entry->row.spec.ptr);
	kt_free(entry->changes);
}

static void take_used(const char *secret, void *arg)
{
	struct kt_draft *draft = arg;
	struct used *used;

	if (!grow(&draft->used, draft->used_count, &draft->used_room, sizeof(*draft->used))) {
		draft->report.nomem = true;
		return;
	}
	used = &draft->used[draft->used_count++];
	used->ns = kt_strdup(draft->consumer->meta.ns);
	used->secret = kt_strdup(secret);
	used->consumer = kt_strdup(draft->consumer->meta.name);
	draft->report.nomem = draft->report.nomem || used->ns == NULL || used->secret == NULL || used->consumer == NULL;
}

/* Keeps a resource that is not as the store has it. before: the store's row, NULL when there is none. */
static enum kt_code keep(struct kt_draft *draft, const struct kt_resource *resource, const struct kt_store_resource *before,
                         struct kt_err *err)
{
	struct kt_view spec = kt_buf_view(&draft->json);
	struct kt_draft_entry entry = {.is_new = before == NULL || before->gone};
	char request_key[65];
	enum kt_code code = kt_spec_request_key(resource, request_key, err);

	if (code != KT_OK) {
		return code;
	}
	draft->bytes += spec.len + 512;
	if (draft->bytes > draft->most) {
		return kt_err_set(err, KT_E_LIMIT, "more than %zu MiB of new and changed manifests are too much to compare: 'keyturn "
		                  "check' them, then load them", draft->most >> 20);
	}
	entry.row = (struct kt_store_resource){.id = before != NULL ? before->id : 0,
	                                       .kind = kt_kind_name(resource->kind),
	                                       .ns = kt_strdup(resource->meta.ns),
	                                       .name = kt_strdup(resource->meta.name),
	                                       .file = kt_strdup(resource->file),
	                                       .line = resource->line,
	                                       .request_key = kt_strdup(request_key),
	                                       .spec = {kt_strndup(spec.ptr, spec.len), spec.len}};
	if (!entry.is_new) {
		entry.changes = changes_between(before->spec, spec);
	}
	if (entry.row.ns == NULL || entry.row.name == NULL || entry.row.file == NULL || entry.row.request_key == NULL ||
	    entry.row.spec.ptr == NULL || (!entry.is_new && entry.changes == NULL) ||
	    !grow(&draft->entries, draft->count, &draft->room, sizeof(*draft->entries))) {
		entry_finish(&entry);
		return kt_err_set(err, KT_E_NOMEM, "no memory to compare manifests");
	}
	draft->entries[draft->count++] = entry;
	if (resource->kind == KT_RES_CONSUMER) {
		draft->consumer = resource;
		kt_load_each_consumed(&resource->consumer, take_used, draft);
	}
	return KT_OK;
}

static enum kt_code look_at(struct kt_draft *draft, const struct kt_resource *resource, struct kt_err *err)
{
	struct kt_store *store = draft->keeper->store;
	struct kt_store_resource before = {0};
	struct kt_view spec;
	enum kt_code code;
	bool there = false;

	kt_buf_reset(&draft->json);
	code = kt_resource_to_json(resource, &draft->json, err);
	spec = kt_buf_view(&draft->json);
	if (code == KT_OK && store != NULL) {
		code = kt_store_resource_find(store, kt_kind_name(resource->kind), resource->meta.ns, resource->meta.name, &before,
		                              err);
		there = code == KT_OK;
		if (code == KT_E_NOTFOUND) {
			kt_err_clear(err);
			code = KT_OK;
		}
	}
	if (code == KT_OK && there && !mark_seen(draft, before.id)) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory to compare manifests");
	}
	if (code == KT_OK && (!there || before.gone || before.spec.len != spec.len ||
	                      memcmp(before.spec.ptr, spec.ptr, spec.len) != 0)) {
		code = keep(draft, resource, there ? &before : NULL, err);
	}
	kt_store_resource_finish(&before);
	return code;
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct kt_draft *draft = arg;
	enum kt_code code = KT_OK;

	/* Settings and Secrets are no rows of the store. */
	if (draft->report.errors == 0 && resource->kind != KT_RES_AGENT && resource->kind != KT_RES_SECRET) {
		code = look_at(draft, resource, err);
	}
	kt_resource_destroy(resource);
	return code;
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	const struct kt_draft_entry *x = a;
	const struct kt_draft_entry *y = b;

	return (x->row.id > y->row.id) - (x->row.id < y->row.id);
}

static int by_secret(const void *a, const void *b)
{
	const struct used *x = a;
	const struct used *y = b;
	int order = strcmp(x->ns, y->ns);

	return order != 0 ? order : strcmp(x->secret, y->secret);
}

static bool know_secret(const struct kt_store_secret *secret, void *arg)
{
	return kt_set_know_secret(arg, secret->ns, secret->name, NULL) == KT_OK;
}

static enum kt_code read_bundle(struct kt_draft *draft, struct kt_view bundle, struct kt_err *err)
{
	struct kt_set *set = NULL;
	enum kt_code code = kt_set_create(&set, err);

	if (code == KT_OK && draft->keeper->store != NULL) {
		code = kt_store_secret_each(draft->keeper->store, NULL, NULL, know_secret, set, err);
	}
	if (code == KT_OK) {
		code = kt_manifest_read_bundle(bundle, set, on_resource, draft, &draft->report, err);
	}
	if (code == KT_OK) {
		code = kt_report_check(&draft->report, err);
	}
	if (code == KT_OK && draft->report.nomem) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory to compare manifests");
	}
	kt_set_destroy(set);
	return code;
}

/* Only what nobody can shorten under our eyes is mapped. */
static enum kt_code map_bundle(int fd, void **ret, size_t *size, struct kt_err *err)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat info;

	if (seals < 0 || (seals & wanted) != wanted || fstat(fd, &info) != 0) {
		return kt_err_set(err, KT_E_INVALID, "manifests are handed over in a sealed memory file");
	}
	if (info.st_size <= 0 || (uint64_t)info.st_size > KT_MANIFEST_TOTAL_MAX) {
		return kt_err_set(err, KT_E_INVALID, "a bundle of manifests has 4 bytes to 1 GiB, not %lld", (long long)info.st_size);
	}
	*size = (size_t)info.st_size;
	*ret = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
	return *ret != MAP_FAILED ? KT_OK : kt_err_sys(err, "the manifests can't be read");
}

enum kt_code kt_draft_create(struct kt_keeper *keeper, int fd, struct kt_draft **ret, struct kt_err *err)
{
	struct kt_draft *draft = kt_calloc(1, sizeof(*draft));
	size_t size = 0;
	void *map = NULL;
	enum kt_code code;

	if (draft == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory to compare manifests");
	}
	draft->keeper = keeper;
	draft->most = keeper->mode == KT_MODE_DAEMON ? AGENT_MAX : COMMAND_MAX;
	kt_report_init(&draft->report);
	kt_buf_init(&draft->json, KT_MANIFEST_DOC_MAX * 2);
	code = map_bundle(fd, &map, &size, err);
	if (code == KT_OK) {
		code = read_bundle(draft, (struct kt_view){map, size}, err);
		munmap(map, size);
	}
	kt_buf_finish(&draft->json);
	kt_report_finish(&draft->report);
	if (code != KT_OK) {
		kt_draft_destroy(draft);
		return code;
	}
	if (draft->count > 1) {
		qsort(draft->entries, draft->count, sizeof(*draft->entries), by_id);
	}
	if (draft->used_count > 1) {
		qsort(draft->used, draft->used_count, sizeof(*draft->used), by_secret);
	}
	*ret = draft;
	return KT_OK;
}

void kt_draft_destroy(struct kt_draft *draft)
{
	size_t i;

	if (draft == NULL) {
		return;
	}
	for (i = 0; i < draft->count; i++) {
		entry_finish(&draft->entries[i]);
	}
	for (i = 0; i < draft->used_count; i++) {
		kt_free(draft->used[i].ns);
		kt_free(draft->used[i].secret);
		kt_free(draft->used[i].consumer);
	}
	kt_free(draft->entries);
	kt_free(draft->used);
	kt_free(draft->seen);
	kt_free(draft);
}

/* --- looking up ------------------------------------------------------------------------------------------------------- */

struct kt_draft_entry *kt_draft_find(struct kt_draft *draft, int64_t id)
{
	struct kt_draft_entry key = {.row = {.id = id}};

	return id > 0 && draft->count > 0 ? bsearch(&key, draft->entries, draft->count, sizeof(key), by_id) : NULL;
}

static bool is_named(const struct kt_store_resource *row, const char *name)
{
	char full[600];
	size_t kind = strlen(row->kind) + 1;

	(void)snprintf(full, sizeof(full), "%s/%s/%s", row->kind, row->ns, row->name);
	return strcmp(name, full) == 0 || strcmp(name, full + kind) == 0 || strcmp(name, row->name) == 0;
}

struct kt_draft_entry *kt_draft_find_new(struct kt_draft *draft, const char *name)
{
	size_t i;

	for (i = 0; i < draft->count; i++) {
		const struct kt_store_resource *row = &draft->entries[i].row;

		if (draft->entries[i].is_new && kt_keeper_rotates(row->kind) &&
		    is_named(row, name)) {
			return &draft->entries[i];
		}
	}
	return NULL;
}

const char *kt_draft_consumer_of(const struct kt_draft *draft, const char *ns, const char *secret_name)
{
	struct used key = {.ns = (char *)(uintptr_t)ns, .secret = (char *)(uintptr_t)secret_name};
	const struct used *found =
	        draft->used_count > 0 ? bsearch(&key, draft->used, draft->used_count, sizeof(key), by_secret) : NULL;

	return found != NULL ? found->consumer : NULL;
}

size_t kt_draft_count(const struct kt_draft *draft)
{
	return draft->count;
}

struct kt_draft_entry *kt_draft_at(struct kt_draft *draft, size_t index)
{
	return index < draft->count ? &draft->entries[index] : NULL;
}
