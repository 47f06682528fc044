/*
 * Signing keys of embedded token issuers.
 *
 * A key is made, published, and only signs `publishAhead` later, when every JWKS cache has had time to see it. It stays
 * published until the last token that it signed has ended and the caches have forgotten: next key's first use + longest
 * token + publishAhead; that moment is stored when the next key begins to sign, and does not move with what comes later.
 * Tokens of a time when maxTokenLifetime was longer count with that. Only the very first key of an issuer signs at once:
 * nobody can have cached a set before.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/jose.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/client/client.h"

#define JWKS_MAX  65536u
#define KEYS_KEPT 16u

struct key_row {
	char kid[64];
	kt_ms publish_from;
	kt_ms sign_from;
	kt_ms retire_at; /* 0: it signs, or will */
};

struct key_list {
	struct key_row at[KEYS_KEPT];
	size_t count;
	struct kt_buf *jwks; /* public halves, comma separated; NULL: not wanted */
	kt_ms now;
	kt_ms longer_until; /* tokens of a time when they could live longer have ended then; 0: there was none */
};

static bool collect(const struct kt_store_issuer_key *key, void *arg)
{
	struct key_list *list = arg;

	if (list->count < KEYS_KEPT) {
		struct key_row *row = &list->at[list->count++];

		(void)snprintf(row->kid, sizeof(row->kid), "%s", key->kid);
		row->publish_from = key->publish_from;
		row->sign_from = key->sign_from;
		row->retire_at = key->retire_at;
	}
	if (list->jwks != NULL && (key->retire_at == 0 || key->retire_at > list->now)) {
		kt_buf_adds(list->jwks, list->jwks->len > 0 ? "," : "");
		kt_buf_addv(list->jwks, key->public_jwk);
	}
	return true;
}

static struct kt_seal_id seal_id(const struct kt_issuer_entry *entry, const char *kid)
{
	return kt_store_issuer_key_seal_id(entry->ref, kid);
}

/* Makes and stores one more key. */
static enum kt_code add_key(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_ms now, kt_ms sign_from,
                            struct kt_err *err)
{
	bool rsa = entry->spec->token_issuer.local->algorithm == KT_TOKEN_RS256;
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_buf jwk KT_AUTOBUF = {0};
	char kid[KT_JOSE_THUMBPRINT];
	struct kt_store_issuer_key row = {.issuer = entry->ref,
	                                  .kid = kid,
	                                  .alg = rsa ? "RS256" : "ES256",
	                                  .created = now,
	                                  .publish_from = now,
	                                  .sign_from = sign_from};
	char trace[33];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(now, trace),
	                               .actor = "agent",
	                               .kind = "TokenIssuer",
	                               .ns = entry->spec->meta.ns,
	                               .name = entry->spec->meta.name,
	                               .step = "issuer-key.published",
	                               .outcome = "ok",
	                               .token_id = kid};
	struct kt_seal_id id;
	enum kt_code code;

	kt_buf_init(&sealed, 16384);
	kt_buf_init(&jwk, 8192);
	code = kt_pki_key_generate(rsa ? KT_KEY_RSA : KT_KEY_ECDSA, 0, &key, err);
	if (code == KT_OK) {
		code = kt_jose_thumbprint(key, kid, err);
	}
	if (code == KT_OK) {
		code = kt_jose_jwk_published(key, KT_JOSE_NONE, kid, &jwk, err);
	}
	if (code == KT_OK) {
		code = kt_pki_key_to_der(key, KT_KEY_PKCS8, &der, err);
	}
	if (code != KT_OK) {
		return code;
	}
	id = seal_id(entry, kid);
	code = kt_keys_seal(keeper->keys, &id, kt_secret_view(der), &sealed, err);
	row.sealed_key = kt_buf_view(&sealed);
	row.public_jwk = kt_buf_view(&jwk);
	if (code == KT_OK) {
		code = kt_store_issuer_key_put(keeper->store, &row, err);
	}
	return code == KT_OK ? kt_keeper_audit(keeper, &event, err) : code;
}

/* Row of the key that signs at `now`: the newest whose time has come. */
static const struct key_row *signing(const struct key_list *list)
{
	const struct key_row *best = NULL;
	size_t i;

	for (i = 0; i < list->count; i++) {
		if (list->at[i].sign_from <= list->now && (best == NULL || list->at[i].sign_from > best->sign_from)) {
			best = &list->at[i];
		}
	}
	return best;
}

static bool has_successor(const struct key_list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++) {
		if (list->at[i].sign_from > list->now) {
			return true;
		}
	}
	return false;
}

struct find_key {
	const char *kid;
	struct kt_keeper *keeper;
	struct kt_issuer_entry *entry;
	enum kt_code code;
	struct kt_err *err;
};

static bool open_key(const struct kt_store_issuer_key *row, void *arg)
{
	struct find_key *find = arg;
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_seal_id id = seal_id(find->entry, row->kid);

	if (strcmp(row->kid, find->kid) != 0) {
		return true;
	}
	find->code = kt_keys_unseal(find->keeper->keys, &id, row->sealed_key, &der, find->err);
	if (find->code == KT_OK) {
		kt_pki_key_destroy(find->entry->signing_key);
		find->entry->signing_key = NULL;
		find->code = kt_pki_key_from_der(kt_secret_view(der), &find->entry->signing_key, find->err);
	}
	return false;
}

struct find_row {
	const char *kid;
	struct kt_store_issuer_key row; /* its texts are in what follows */
	char alg[16];
	struct kt_buf sealed, jwk;
};

static bool copy_row(const struct kt_store_issuer_key *key, void *arg)
{
	struct find_row *find = arg;

	if (strcmp(key->kid, find->kid) != 0) {
		return true;
	}
	find->row = *key;
	(void)snprintf(find->alg, sizeof(find->alg), "%s", key->alg);
	kt_buf_addv(&find->sealed, key->sealed_key);
	kt_buf_addv(&find->jwk, key->public_jwk);
	return false;
}

static enum kt_code put_end(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *kid,
                            kt_ms retire_at, struct kt_err *err)
{
	struct find_row find = {.kid = kid};
	enum kt_code code;

	kt_buf_init(&find.sealed, 16384);
	kt_buf_init(&find.jwk, 8192);
	code = kt_store_issuer_key_each(keeper->store, entry->ref, copy_row, &find, err);
	if (code == KT_OK) {
		code = kt_buf_check(&find.sealed, "a signing key", err);
	}
	if (code == KT_OK) {
		code = kt_buf_check(&find.jwk, "a signing key", err);
	}
	if (code == KT_OK) {
		find.row.issuer = entry->ref;
		find.row.kid = kid;
		find.row.alg = find.alg;
		find.row.sealed_key = kt_buf_view(&find.sealed);
		find.row.public_jwk = kt_buf_view(&find.jwk);
		find.row.retire_at = retire_at;
		find.row.mem = NULL;
		code = kt_store_issuer_key_put(keeper->store, &find.row, err);
	}
	kt_buf_finish(&find.sealed);
	kt_buf_finish(&find.jwk);
	return code;
}

/* A key that another has taken over from: the last token that it signed ends, and who has that cached may verify it. */
static enum kt_code give_end(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const struct key_list *list,
                             const struct key_row *row, struct kt_err *err)
{
	const struct kt_local_issuer *local = entry->spec->token_issuer.local;
	kt_ms taken_over = KT_TIME_MAX;
	kt_ms ended;
	size_t i;

	for (i = 0; i < list->count; i++) {
		if (list->at[i].sign_from > row->sign_from && list->at[i].sign_from < taken_over) {
			taken_over = list->at[i].sign_from;
		}
	}
	ended = taken_over + local->max_token_lifetime;
	ended = ended < list->longer_until ? list->longer_until : ended;
	return put_end(keeper, entry, row->kid, ended + local->publish_ahead, err);
}

static enum kt_code remove_key(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const char *kid,
                               struct kt_err *err)
{
	char trace[33];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(kt_keeper_now(keeper), trace),
	                               .actor = "agent",
	                               .kind = "TokenIssuer",
	                               .ns = entry->spec->meta.ns,
	                               .name = entry->spec->meta.name,
	                               .step = "issuer-key.retired",
	                               .outcome = "ok",
	                               .token_id = kid};
	enum kt_code code = kt_store_issuer_key_delete(keeper->store, entry->ref, kid, err);

	return code == KT_OK ? kt_keeper_audit(keeper, &event, err) : code;
}

/* Gives an end to what was superseded and removes what is over. */
static enum kt_code tidy(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const struct key_list *list,
                         const struct key_row *now_signs, bool *ret_changed, struct kt_err *err)
{
	size_t i;
	enum kt_code code = KT_OK;

	for (i = 0; i < list->count && code == KT_OK; i++) {
		const struct key_row *row = &list->at[i];

		if (row->sign_from >= now_signs->sign_from) {
			continue;
		}
		if (row->retire_at == 0) {
			code = give_end(keeper, entry, list, row, err);
		} else if (row->retire_at <= list->now) {
			code = remove_key(keeper, entry, row->kid, err);
			*ret_changed = true;
		}
	}
	return code;
}

/* When to come again: the successor's making, its first use, an old key's end. */
static kt_ms next_turn(const struct kt_local_issuer *local, const struct key_list *list, const struct key_row *signs)
{
	kt_ms next = signs->sign_from + local->key_rotation - local->publish_ahead;
	size_t i;

	for (i = 0; i < list->count; i++) {
		kt_ms end = list->at[i].retire_at;

		if (list->at[i].sign_from > list->now && (next <= list->now || list->at[i].sign_from < next)) {
			next = list->at[i].sign_from;
		} else if (list->at[i].sign_from < signs->sign_from && end > list->now && end < next) {
			next = end;
		}
	}
	return next > list->now ? next : list->now + KT_SECOND;
}

/*
 * What may be signed is shorter than before: what was signed until now lives on. The store holds the lifetime that was in
 * force last, and until when tokens of a longer one may live.
 */
static enum kt_code note_lifetime(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct key_list *list,
                                  struct kt_err *err)
{
	kt_ms life = entry->spec->token_issuer.local->max_token_lifetime;
	struct kt_buf text KT_AUTOBUF = {0};
	long long was = 0, until = 0;
	char name[640], line[64];
	enum kt_code code;

	(void)snprintf(name, sizeof(name), "token-life/%s", entry->ref);
	kt_buf_init(&text, sizeof(line) - 1);
	code = kt_store_meta_get(keeper->store, name, &text, err);
	if (code == KT_E_NOTFOUND) {
		kt_err_clear(err);
	} else if (code != KT_OK) {
		return code;
	} else {
		(void)snprintf(line, sizeof(line), "%.*s", (int)text.len, text.len > 0 ? text.ptr : "");
		if (sscanf(line, "%lld %lld", &was, &until) != 2) {
			was = until = 0;
		}
	}
	if (life < was && until < list->now + was) {
		until = list->now + was;
	}
	list->longer_until = until;
	if (life == was) {
		return KT_OK;
	}
	(void)snprintf(line, sizeof(line), "%lld %lld", (long long)life, until);
	return kt_store_meta_set(keeper->store, name, kt_view_str(line), err);
}

static enum kt_code turn(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct key_list *list,
                         bool *ret_changed, struct kt_err *err)
{
	const struct kt_local_issuer *local = entry->spec->token_issuer.local;
	const struct key_row *signs = signing(list);
	enum kt_code code = note_lifetime(keeper, entry, list, err);

	if (code != KT_OK) {
		return code;
	}
	if (signs == NULL) {
		code = add_key(keeper, entry, list->now, list->now, err);
		*ret_changed = true;
	} else if (!has_successor(list) && list->count < KEYS_KEPT && /* else when the oldest has gone */
	           list->now >= signs->sign_from + local->key_rotation - local->publish_ahead) {
		code = add_key(keeper, entry, list->now, list->now + local->publish_ahead, err);
		*ret_changed = true;
	}
	if (code == KT_OK && signs != NULL) {
		code = tidy(keeper, entry, list, signs, ret_changed, err);
	}
	if (code == KT_OK) {
		list->count = 0;
		code = kt_store_issuer_key_each(keeper->store, entry->ref, collect, list, err);
	}
	return code;
}

enum kt_code kt_jwks_ensure(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_ms *ret_next,
                            struct kt_err *err)
{
	struct key_list list = {.now = kt_keeper_now(keeper)};
	const struct key_row *signs;
	struct find_key find = {.keeper = keeper, .entry = entry, .err = err, .code = KT_OK};
	bool changed = false;
	bool own = !kt_store_in_transaction(keeper->store);
	enum kt_code code;

	*ret_next = entry->signing_until;
	if (entry->signing_key != NULL && list.now < entry->signing_until) {
		return KT_OK;
	}
	code = kt_store_issuer_key_each(keeper->store, entry->ref, collect, &list, err);
	if (code == KT_OK && own) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	code = turn(keeper, entry, &list, &changed, err);
	if (own) {
		code = kt_store_end(keeper->store, code, err);
	}
	signs = signing(&list);
	if (code != KT_OK || signs == NULL) {
		return code != KT_OK ? code : kt_err_set(err, KT_E_CORRUPT, "%s has no signing key", entry->ref);
	}
	if (entry->signing_key == NULL || strcmp(entry->kid, signs->kid) != 0) {
		find.kid = signs->kid;
		find.code = KT_E_NOTFOUND;
		code = kt_store_issuer_key_each(keeper->store, entry->ref, open_key, &find, err);
		code = code == KT_OK ? find.code : code;
		(void)snprintf(entry->kid, sizeof(entry->kid), "%s", signs->kid);
		changed = true;
	}
	entry->signing_until = *ret_next = next_turn(entry->spec->token_issuer.local, &list, signs);
	if (code == KT_OK && changed) {
		code = kt_jwks_publish(keeper, entry, err);
	}
	if (code != KT_OK) { /* nothing is signed before its key is out: the next one begins here again */
		kt_pki_key_destroy(entry->signing_key);
		entry->signing_key = NULL;
	}
	return code;
}

/* --- publishing ----------------------------------------------------------------------------------------------------- */

/* The path of a URL without a trailing slash; "" for none. */
static void url_path(const char *url, char *out, size_t size)
{
	const char *host = strstr(url, "://");
	const char *path = host != NULL ? strchr(host + 3, '/') : NULL;
	size_t len;

	(void)snprintf(out, size, "%s", path != NULL ? path : "");
	len = strlen(out);
	while (len > 0 && out[len - 1] == '/') {
		out[--len] = '\0';
	}
}

static void metadata(const struct kt_local_issuer *local, struct kt_buf *out)
{
	size_t len = strlen(local->issuer_url);
	struct kt_buf uri KT_AUTOBUF = {0};

	kt_buf_init(&uri, 4096);
	kt_buf_add(&uri, local->issuer_url, len > 0 && local->issuer_url[len - 1] == '/' ? len - 1 : len);
	kt_buf_adds(&uri, "/jwks.json");
	kt_buf_adds(out, "{\"issuer\":");
	kt_buf_add_json(out, kt_view_str(local->issuer_url));
	kt_buf_adds(out, ",\"jwks_uri\":");
	kt_buf_add_json(out, kt_buf_view(&uri));
	out->failed = out->failed != KT_OK ? out->failed : uri.failed;
	kt_buf_addf(out,
	            ",\"response_types_supported\":[\"token\"],\"grant_types_supported\":[],"
	            "\"subject_types_supported\":[\"public\"],\"id_token_signing_alg_values_supported\":[\"%s\"]}",
	            kt_token_alg_name(local->algorithm));
}

static void on_served(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	(void)arg;
	if (why->code != KT_OK && why->code != KT_E_CLOSED) {
		kt_log_err(KT_LOG_WARN, why, "the key set can't be served");
	}
}

/* A page of the listener: its path is made of three parts. served (or NULL): called when the desk has it. */
struct page {
	const char *base, *suffix, *tail;
	struct kt_view body;
	kt_ms max_age;
	kt_wire_reply_fn *served;
	void *arg;
};

static enum kt_code serve(struct kt_keeper *keeper, const struct page *page, struct kt_err *err)
{
	char path[512];
	struct kt_msg_serve msg = {.listener = KT_VIEW_LIT("jwks"), .content_type = KT_VIEW_LIT("application/json")};

	(void)snprintf(path, sizeof(path), "%s%s%s", page->base, page->suffix, page->tail);
	msg.path = kt_view_str(path);
	msg.body = page->body;
	msg.max_age = (uint32_t)(page->max_age / 1000);
	return kt_wire_call(kt_keeper_desk(keeper), KT_SERVE, &msg, NULL, 0, 10 * KT_SECOND,
	                    page->served != NULL ? page->served : on_served, page->arg, err);
}

/* meta: empty where there is none. */
static enum kt_code to_volume(const char *path, struct kt_view jwks, struct kt_view meta, struct kt_err *err)
{
	int fd KT_AUTOCLOSE = kt_io_open_dir_create(path, 0755, err);
	bool durable;
	enum kt_code code;

	if (fd < 0) {
		return err != NULL ? err->code : KT_E_SYS;
	}
	durable = !kt_io_is_memory_backed(fd);
	code = kt_io_replace_file(fd, "jwks.json", jwks.ptr, jwks.len, 0644, (uid_t)-1, (gid_t)-1, durable, err);
	if (code == KT_OK && meta.len > 0) {
		code = kt_io_replace_file(fd, "openid-configuration", meta.ptr, meta.len, 0644, (uid_t)-1, (gid_t)-1,
		                          durable, err);
	}
	return code;
}

static bool has_listener(const struct kt_keeper *keeper, const struct kt_publish_jwks *publish)
{
	return publish->listener && keeper->agent != NULL && keeper->agent->agent.listeners.jwks != NULL;
}

/* keys: comma separated. */
static enum kt_code wrap(struct kt_view keys, struct kt_buf *out, struct kt_err *err)
{
	kt_buf_adds(out, "{\"keys\":[");
	kt_buf_addv(out, keys);
	kt_buf_adds(out, "]}");
	return kt_buf_check(out, "key set", err);
}

enum kt_code kt_jwks_show(struct kt_keeper *keeper, const struct kt_jwks_place *place, struct kt_view keys,
                          kt_wire_reply_fn *shown, void *arg, bool *ret_pending, struct kt_err *err)
{
	struct kt_buf jwks KT_AUTOBUF = {0};
	struct page page = {.suffix = "", .tail = "", .max_age = place->max_age, .served = shown, .arg = arg};
	char path[256];
	enum kt_code code;

	*ret_pending = false;
	kt_buf_init(&jwks, JWKS_MAX);
	code = wrap(keys, &jwks, err);
	if (code == KT_OK && place->publish->volume != NULL) {
		code = to_volume(place->publish->volume->path, kt_buf_view(&jwks), (struct kt_view){NULL, 0}, err);
	}
	if (code == KT_OK && place->publish->volume == NULL && !has_listener(keeper, place->publish)) {
		code = kt_err_set(err, KT_E_INVALID, "nothing shows the keys: give the Agent spec.listeners.jwks, or publishJWKS.volume");
	}
	if (code != KT_OK || !has_listener(keeper, place->publish)) {
		return code;
	}
	url_path(place->url, path, sizeof(path));
	page.base = path;
	page.body = kt_buf_view(&jwks);
	code = serve(keeper, &page, err);
	*ret_pending = code == KT_OK && shown != NULL;
	return code;
}

static enum kt_code serve_all(struct kt_keeper *keeper, const struct kt_local_issuer *local, struct kt_view jwks,
                              struct kt_view meta, struct kt_err *err)
{
	char base[256];
	struct page keys = {.base = base, .suffix = "/jwks.json", .tail = "", .body = jwks, .max_age = local->publish_ahead};
	struct page openid = {
	        .base = base, .suffix = "/.well-known/openid-configuration", .tail = "", .body = meta, .max_age = KT_HOUR};
	/* RFC 8414 section 3.1: the well-known part goes before the path */
	struct page oauth = {
	        .base = "", .suffix = "/.well-known/oauth-authorization-server", .tail = base, .body = meta, .max_age = KT_HOUR};
	enum kt_code code;

	url_path(local->issuer_url, base, sizeof(base));
	code = serve(keeper, &keys, err);
	if (code == KT_OK) {
		code = serve(keeper, &openid, err);
	}
	return code == KT_OK ? serve(keeper, &oauth, err) : code;
}

enum kt_code kt_jwks_publish(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err)
{
	const struct kt_local_issuer *local = entry->spec->token_issuer.local;
	const struct kt_publish_jwks *publish = &local->publish_jwks;
	struct kt_buf keys KT_AUTOBUF = {0};
	struct kt_buf jwks KT_AUTOBUF = {0};
	struct kt_buf meta KT_AUTOBUF = {0};
	struct key_list list = {.now = kt_keeper_now(keeper), .jwks = &keys};
	enum kt_code code;

	kt_buf_init(&keys, JWKS_MAX);
	kt_buf_init(&jwks, JWKS_MAX);
	kt_buf_init(&meta, 8192);
	code = kt_store_issuer_key_each(keeper->store, entry->ref, collect, &list, err);
	if (code != KT_OK) {
		return code;
	}
	metadata(local, &meta);
	code = kt_buf_check(&keys, "key set", err);
	if (code == KT_OK) {
		code = wrap(kt_buf_view(&keys), &jwks, err);
	}
	if (code == KT_OK) {
		code = kt_buf_check(&meta, "discovery document", err);
	}
	if (code == KT_OK && publish->volume != NULL) {
		code = to_volume(publish->volume->path, kt_buf_view(&jwks), kt_buf_view(&meta), err);
	}
	return code == KT_OK && has_listener(keeper, publish)
	               ? serve_all(keeper, local, kt_buf_view(&jwks), kt_buf_view(&meta), err)
	               : code;
}

static bool publish_one(const struct kt_store_resource *row, void *arg)
{
	struct kt_keeper *keeper = arg;
	struct kt_issuer_entry *entry;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_issuers_entry(keeper, row->kind, row->ns, row->name, &entry, &err) == KT_OK &&
	    entry->ops == &kt_issuer_local && kt_jwks_publish(keeper, entry, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "%s: the key set is not published", entry->ref);
	}
	return true;
}

void kt_jwks_publish_all(struct kt_keeper *keeper)
{
	(void)kt_store_resource_each(keeper->store, "TokenIssuer", 0, 1000, publish_one, keeper, NULL);
	kt_client_keys_show_all(keeper);
}
