/* What the keeper put out for strangers: http-01 answers and key sets by exact path, tls-alpn-01 answers by server name. */
#include <sodium.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

#define ACME_PREFIX "/.well-known/acme-challenge/"

enum { BUCKETS_MIN = 16 };

/* One path (or server name), in one piece of memory: text is path NUL type NUL body (or certificate). */
struct entry {
	struct entry *next;
	uint64_t hash;
	size_t size; /* what it counts for in the limit */
	size_t body_len;
	const char *type;
	const char *body;
	struct kt_secret *key; /* of the certificate; else NULL */
	uint32_t max_age;
	uint32_t keeper; /* the keeper that said so last */
	enum kt_desk_kind kind;
	char text[];
};

struct kt_desk_served {
	struct entry **buckets; /* NULL while empty */
	size_t bucket_count;    /* a power of two */
	size_t count;
	size_t bytes;
	uint32_t keeper;
	struct kt_timer *sweep;
	unsigned char key[crypto_shorthash_KEYBYTES]; /* paths hold tokens of a CA's choice */
};

static uint64_t hash_path(const struct kt_desk_served *served, enum kt_desk_kind kind, struct kt_view path)
{
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "one number");
	crypto_shorthash((unsigned char *)&hash, (const unsigned char *)path.ptr, path.len, served->key);
	return hash + (uint64_t)kind;
}

static struct entry **find(const struct kt_desk_served *served, enum kt_desk_kind kind, struct kt_view path,
                           uint64_t hash)
{
	struct entry **at;

	if (served->bucket_count == 0)
		return NULL;
	for (at = &served->buckets[hash & (served->bucket_count - 1)]; *at; at = &(*at)->next)
		if ((*at)->hash == hash && (*at)->kind == kind && kt_view_eq_str(path, (*at)->text))
			return at;
	return NULL;
}

static void entry_destroy(struct entry *entry)
{
	kt_secret_destroy(entry->key);
	kt_free(entry);
}

static void drop(struct kt_desk_served *served, struct entry **at)
{
	struct entry *entry = *at;

	*at = entry->next;
	served->count--;
	served->bytes -= entry->size;
	entry_destroy(entry);
	if (served->count == 0) {
		kt_free(served->buckets);
		served->buckets = NULL;
		served->bucket_count = 0;
	}
}

static enum kt_code grow(struct kt_desk_served *served, struct kt_err *err)
{
	size_t count = served->bucket_count ? 2 * served->bucket_count : BUCKETS_MIN;
	struct entry **buckets, *entry;

	if (served->count < served->bucket_count)
		return KT_OK;
	buckets = kt_calloc(count, sizeof(struct entry *));
	if (!buckets)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the paths that are served");
	for (size_t i = 0; i < served->bucket_count; i++) {
		while ((entry = served->buckets[i]) != NULL) {
			served->buckets[i] = entry->next;
			entry->next = buckets[entry->hash & (count - 1)];
			buckets[entry->hash & (count - 1)] = entry;
		}
	}
	kt_free(served->buckets);
	served->buckets = buckets;
	served->bucket_count = count;
	return KT_OK;
}

/* --- what may be put out ---------------------------------------------------------------------------------------- */

static bool is_base64url(const char *text, size_t len)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (size_t i = 0; i < len; i++)
		if (!text[i] || !strchr(letters, text[i]))
			return false;
	return len > 0;
}

/* True when every client sends this path as it is: no escapes, no query, no empty or dot segments. */
static bool is_plain_path(struct kt_view path)
{
	size_t start = 1;

	if (path.len < 2 || path.len > KT_DESK_PATH_MAX || path.ptr[0] != '/')
		return false;
	for (size_t i = 0; i < path.len; i++)
		if (path.ptr[i] <= ' ' || path.ptr[i] >= 0x7f || strchr("%?#\\\"<>", path.ptr[i]))
			return false;
	for (size_t i = 1; i <= path.len; i++) {
		struct kt_view part = {path.ptr + start, i - start};

		if (i < path.len && path.ptr[i] != '/')
			continue;
		if (part.len == 0 || kt_view_eq_str(part, ".") || kt_view_eq_str(part, ".."))
			return false;
		start = i + 1;
	}
	return true;
}

static bool is_header_text(struct kt_view text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.ptr[i] < ' ' || text.ptr[i] >= 0x7f)
			return false;
	return true;
}

static enum kt_code check(const struct kt_msg_serve *msg, enum kt_desk_kind *ret, struct kt_err *err)
{
	static const size_t prefix = sizeof(ACME_PREFIX) - 1;
	bool fits;

	if (kt_view_eq_str(msg->listener, kt_desk_kind_names[KT_DESK_ACME]))
		*ret = KT_DESK_ACME;
	else if (kt_view_eq_str(msg->listener, kt_desk_kind_names[KT_DESK_JWKS]))
		*ret = KT_DESK_JWKS;
	else
		return kt_err_set(err, KT_E_INVALID, "serve: no such listener '%.*s'", (int)msg->listener.len,
		                  msg->listener.ptr);
	if (*ret == KT_DESK_ACME)
		fits = msg->path.len > prefix && msg->path.len <= KT_DESK_PATH_MAX &&
		       memcmp(msg->path.ptr, ACME_PREFIX, prefix) == 0 &&
		       is_base64url(msg->path.ptr + prefix, msg->path.len - prefix);
	else
		fits = is_plain_path(msg->path);
	if (!fits)
		return kt_err_set(err, KT_E_INVALID, "serve: '%.*s' can't be a path on the %s listener",
		                  (int)msg->path.len, msg->path.ptr, kt_desk_kind_names[*ret]);
	if (!is_header_text(msg->content_type))
		return kt_err_set(err, KT_E_INVALID, "serve: the content type is not printable");
	return KT_OK;
}

static struct entry *entry_create(const struct kt_msg_serve *msg)
{
	size_t size = sizeof(struct entry) + msg->path.len + msg->content_type.len + msg->body.len + 3;
	struct entry *entry = kt_calloc(1, size);
	char *at;

	if (!entry)
		return NULL;
	at = entry->text;
	memcpy(at, msg->path.ptr, msg->path.len);
	at += msg->path.len + 1;
	entry->type = at;
	memcpy(at, msg->content_type.ptr, msg->content_type.len);
	at += msg->content_type.len + 1;
	entry->body = at;
	if (msg->body.len)
		memcpy(at, msg->body.ptr, msg->body.len);
	entry->body_len = msg->body.len;
	entry->max_age = msg->max_age;
	entry->size = size;
	return entry;
}

/* Stores, replaces, or (empty content_type) removes; the key is copied. */
static enum kt_code put(struct kt_desk_served *served, enum kt_desk_kind kind, const struct kt_msg_serve *msg,
                        const struct kt_secret *key, struct kt_err *err)
{
	uint64_t hash = hash_path(served, kind, msg->path);
	struct entry **old = find(served, kind, msg->path, hash), *entry;
	size_t freed = old ? (*old)->size : 0;
	enum kt_code code = KT_OK;

	if (msg->content_type.len == 0) {
		if (old)
			drop(served, old);
		return KT_OK;
	}
	if (!old && served->count >= KT_DESK_SERVED_MAX)
		return kt_err_set(err, KT_E_LIMIT, "serve: %d paths are served already", KT_DESK_SERVED_MAX);
	entry = entry_create(msg);
	if (!entry)
		return kt_err_set(err, KT_E_NOMEM, "serve: no memory for %zu bytes", msg->body.len);
	if (key)
		code = kt_secret_create(kt_secret_view(key).ptr, kt_secret_len(key), &entry->key, err);
	if (code == KT_OK && served->bytes - freed + entry->size > KT_DESK_SERVED_BYTES)
		code = kt_err_set(err, KT_E_LIMIT, "serve: more than %d bytes would be served", KT_DESK_SERVED_BYTES);
	if (code == KT_OK) {
		if (old)
			drop(served, old);
		code = grow(served, err);
	}
	if (code) {
		entry_destroy(entry);
		return code;
	}
	entry->hash = hash;
	entry->kind = kind;
	entry->keeper = served->keeper;
	entry->next = served->buckets[hash & (served->bucket_count - 1)];
	served->buckets[hash & (served->bucket_count - 1)] = entry;
	served->count++;
	served->bytes += entry->size;
	return KT_OK;
}

/* --- what others call ------------------------------------------------------------------------------------------- */

enum kt_code kt_desk_served_put(struct kt_desk_served *served, const struct kt_msg_serve *msg, struct kt_err *err)
{
	enum kt_desk_kind kind = KT_DESK_ACME;
	enum kt_code code = check(msg, &kind, err);

	return code ? code : put(served, kind, msg, NULL, err);
}

/* Letters, digits and "-_" between dots; what the name has to be beyond that is the keeper's business. */
static bool is_server_name(struct kt_view name)
{
	bool label = false;

	for (size_t i = 0; i < name.len; i++) {
		char c = name.ptr[i];

		if (c == '.' && !label)
			return false;
		if (c != '.' && c != '-' && c != '_' && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
		    !(c >= '0' && c <= '9'))
			return false;
		label = c != '.';
	}
	return label && name.len <= KT_NAME_MAX;
}

static void to_lower(char *text, struct kt_view name)
{
	for (size_t i = 0; i < name.len; i++)
		text[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + ('a' - 'A')) : name.ptr[i];
}

enum kt_code kt_desk_served_put_alpn(struct kt_desk_served *served, const struct kt_msg_serve_alpn *msg, struct kt_err *err)
{
	char name[KT_NAME_MAX];
	/* A type that is not empty says that it is to be served. */
	struct kt_msg_serve put_out = {.path = {name, msg->name.len}, .body = msg->certificate};
	struct kt_tls_identity identity = {msg->certificate, msg->key};
	enum kt_code code;

	if (!is_server_name(msg->name))
		return kt_err_set(err, KT_E_INVALID, "serve: '%.*s' is not a server name", (int)msg->name.len, msg->name.ptr);
	to_lower(name, msg->name);
	if (!msg->present)
		return put(served, KT_DESK_ALPN, &put_out, NULL, err);
	if (!msg->key)
		return kt_err_set(err, KT_E_INVALID, "serve: the key of a challenge is missing");
	code = kt_tls_check(&identity, err);
	if (code)
		return code;
	put_out.content_type = KT_VIEW_LIT("pkix-cert");
	return put(served, KT_DESK_ALPN, &put_out, msg->key, err);
}

bool kt_desk_served_find(const struct kt_desk_served *served, enum kt_desk_kind kind, const char *path,
                         struct kt_desk_entry *ret)
{
	struct kt_view view = kt_view_str(path);
	struct entry **at;

	if (view.len > KT_DESK_PATH_MAX)
		return false;
	at = find(served, kind, view, hash_path(served, kind, view));
	if (!at)
		return false;
	*ret = (struct kt_desk_entry){(*at)->type, {(*at)->body, (*at)->body_len}, (*at)->max_age, (*at)->key};
	return true;
}

static void sweep(void *arg)
{
	struct kt_desk_served *served = arg;

	for (size_t i = 0; i < served->bucket_count; i++) {
		struct entry **at = &served->buckets[i];

		while (served->bucket_count && *at) {
			if ((*at)->keeper == served->keeper)
				at = &(*at)->next;
			else
				drop(served, at);
		}
	}
}

void kt_desk_served_new_keeper(struct kt_desk_served *served)
{
	served->keeper++;
	if (served->count)
		kt_timer_start(served->sweep, KT_DESK_SERVED_STALE_MS);
}

size_t kt_desk_served_count(const struct kt_desk_served *served)
{
	return served->count;
}

enum kt_code kt_desk_served_create(struct kt_loop *loop, struct kt_desk_served **ret, struct kt_err *err)
{
	struct kt_desk_served *served = kt_calloc(1, sizeof(*served));
	enum kt_code code;

	*ret = NULL;
	if (!served)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the paths that are served");
	kt_rand_bytes(served->key, sizeof(served->key));
	code = kt_timer_create(loop, sweep, served, &served->sweep, err);
	if (code) {
		kt_free(served);
		return code;
	}
	*ret = served;
	return KT_OK;
}

void kt_desk_served_destroy(struct kt_desk_served *served)
{
	if (!served)
		return;
	for (size_t i = 0; served->count && i < served->bucket_count; i++)
		while (served->count && served->buckets[i])
			drop(served, &served->buckets[i]);
	kt_free(served->buckets);
	kt_timer_destroy(served->sweep);
	kt_free(served);
}
