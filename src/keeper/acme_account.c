/*
 * Accounts at ACME servers: the key, sealed in the store before anybody sees its public half, the URL, and how one key
 * takes the place of another. A row of the store is named by issuer and server; a key that is about to take over has a row
 * of its own, whose server ends in "#next", until the CA has said yes.
 */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/acme.h"

#define SERVER_MAX 2100u

/* --- URLs --------------------------------------------------------------------------------------------------------------- */

/* "https://host:port" of a URL: its length, 0 when it has none. */
static size_t origin_len(struct kt_view url)
{
	size_t i = 0;

	if (url.len < 9 || (memcmp(url.ptr, "https://", 8) != 0 && memcmp(url.ptr, "http://", 7) != 0)) {
		return 0;
	}
	for (i = url.ptr[4] == 's' ? 8 : 7; i < url.len && url.ptr[i] != '/' && url.ptr[i] != '?'; i++) {
		if (url.ptr[i] == '@' || url.ptr[i] == '\\') {
			return 0;
		}
	}
	return i;
}

bool kt_acme_same_origin(struct kt_view a, struct kt_view b)
{
	size_t len = origin_len(a);

	return len > 0 && len == origin_len(b) && kt_ascii_ieq((struct kt_view){a.ptr, len}, (struct kt_view){b.ptr, len});
}

/* --- rows --------------------------------------------------------------------------------------------------------------- */

static const char *server_of(const struct kt_issuer_entry *entry)
{
	return entry->spec->issuer.acme->server;
}

static const char *next_server(const struct kt_issuer_entry *entry, char out[SERVER_MAX])
{
	(void)snprintf(out, SERVER_MAX, "%s#next", server_of(entry));
	return out;
}

/* In a transaction. */
static enum kt_code put_row(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *server,
                            const struct kt_key *key, const char *url, const char *status, struct kt_err *err)
{
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_seal_id id = kt_store_account_seal_id(entry->ref, server);
	struct kt_store_account row = {.issuer = entry->ref,
	                               .server_url = server,
	                               .account_url = url,
	                               .status = status,
	                               .created = kt_keeper_now(keeper)};
	enum kt_code code;

	kt_buf_init(&sealed, 16384);
	code = kt_pki_key_to_der(key, KT_KEY_PKCS8, &der, err);
	if (code == KT_OK) {
		code = kt_keys_seal(keeper->keys, &id, kt_secret_view(der), &sealed, err);
	}
	row.sealed_key = kt_buf_view(&sealed);
	return code == KT_OK ? kt_store_account_put(keeper->store, &row, err) : code;
}

static enum kt_code open_row(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *server,
                             struct kt_key **ret, char *url, size_t url_size, bool *ret_off, struct kt_err *err)
{
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_seal_id id = kt_store_account_seal_id(entry->ref, server);
	struct kt_store_account row;
	enum kt_code code = kt_store_account_get(keeper->store, entry->ref, server, &row, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_keys_unseal(keeper->keys, &id, row.sealed_key, &secret, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(secret), ret, err);
	}
	if (url != NULL) {
		(void)snprintf(url, url_size, "%s", row.account_url);
		*ret_off = strcmp(row.status, "deactivated") == 0;
	}
	kt_store_account_finish(&row);
	return code;
}

enum kt_code kt_acme_audit(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *step,
                           const char *actor, const char *reason, struct kt_err *err)
{
	char trace[33];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(kt_keeper_now(keeper), trace),
	                               .actor = actor != NULL && actor[0] != '\0' ? actor : "agent",
	                               .kind = kt_kind_name(entry->spec->kind),
	                               .ns = entry->spec->kind == KT_RES_CLUSTER_ISSUER ? "" : entry->spec->meta.ns,
	                               .name = entry->spec->meta.name,
	                               .step = step,
	                               .outcome = "ok",
	                               .reason = reason,
	                               .issuer = entry->ref,
	                               .server_address = server_of(entry)};

	return kt_keeper_audit(keeper, &event, err);
}

/* --- the cache ------------------------------------------------------------------------------------------------------------ */

static bool same_account(const struct kt_issuer_entry *a, const struct kt_issuer_entry *b)
{
	return a->ops == b->ops && strcmp(a->ref, b->ref) == 0 && strcmp(server_of(a), server_of(b)) == 0;
}

/* Entries of older manifests may be in use by orders: they hold the same account. */
static void tell_entries(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *url, bool off)
{
	struct kt_issuer_entry *each;

	for (each = keeper->issuers; each != NULL; each = each->next) {
		if (each->ops == entry->ops && same_account(each, entry)) {
			if (url != each->account_url) { /* it may be told what it holds */
				(void)snprintf(each->account_url, sizeof(each->account_url), "%s", url);
			}
			each->account_off = off;
		}
	}
}

static void take_key(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const struct kt_key *key)
{
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_issuer_entry *each;

	if (kt_pki_key_to_der(key, KT_KEY_PKCS8, &der, NULL) != KT_OK) {
		return; /* no memory: the CA refuses the old key until the idle entry is dropped and read again */
	}
	for (each = keeper->issuers; each != NULL; each = each->next) {
		struct kt_key *copy = NULL;

		if (each->ops == entry->ops && same_account(each, entry) && each->signing_key != NULL &&
		    kt_pki_key_from_der(kt_secret_view(der), &copy, NULL) == KT_OK) {
			kt_pki_key_destroy(each->signing_key);
			each->signing_key = copy;
		}
	}
}

static void set_moves(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, bool moves)
{
	struct kt_issuer_entry *each;

	for (each = keeper->issuers; each != NULL; each = each->next) {
		if (each->ops == entry->ops && same_account(each, entry)) {
			each->account_moves = moves;
		}
	}
}

/* --- loading and storing ---------------------------------------------------------------------------------------------------- */

static bool has_next(struct kt_keeper *keeper, const struct kt_issuer_entry *entry)
{
	struct kt_store_account row;
	char server[SERVER_MAX];

	if (kt_store_account_get(keeper->store, entry->ref, next_server(entry, server), &row, NULL) != KT_OK) {
		return false;
	}
	kt_store_account_finish(&row);
	return true;
}

enum kt_code kt_acme_account_store(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const char *url,
                                   const char *status, struct kt_err *err)
{
	bool new_url = url[0] != '\0' && strcmp(url, entry->account_url) != 0;
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = put_row(keeper, entry, server_of(entry), entry->signing_key, url, status, err);
	if (code == KT_OK && new_url) {
		code = kt_acme_audit(keeper, entry, "account.registered", NULL, url, err);
	}
	code = kt_store_end(keeper->store, code, err);
	if (code == KT_OK) {
		tell_entries(keeper, entry, url, strcmp(status, "deactivated") == 0);
	}
	return code;
}

enum kt_code kt_acme_account_load(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err)
{
	const struct kt_acme *acme = entry->spec->issuer.acme;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	enum kt_code code;

	if (entry->signing_key != NULL) {
		return KT_OK;
	}
	code = open_row(keeper, entry, acme->server, &entry->signing_key, entry->account_url, sizeof(entry->account_url),
	                &entry->account_off, err);
	if (code == KT_OK) {
		entry->account_moves = has_next(keeper, entry);
	}
	if (code != KT_E_NOTFOUND) {
		return code;
	}
	kt_err_clear(err);
	entry->account_url[0] = '\0';
	code = kt_issuers_secret(keeper, entry->spec->meta.ns, acme->private_key_ref.name, acme->private_key_ref.key,
	                         &secret, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_pem(kt_secret_view(secret), &entry->signing_key, err);
	} else if (acme->disable_account_key_generation) {
		return kt_err_prefix(err, "%s: spec.acme.disableAccountKeyGeneration is set", entry->ref);
	} else {
		kt_err_clear(err);
		code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &entry->signing_key, err);
	}
	if (code == KT_OK) {
		code = kt_acme_account_store(keeper, entry, "", "new", err);
	}
	if (code != KT_OK) { /* what is not in the store is not used */
		kt_pki_key_destroy(entry->signing_key);
		entry->signing_key = NULL;
	}
	return code;
}

/* --- a new key ------------------------------------------------------------------------------------------------------------ */

enum kt_code kt_acme_next_make(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_key **ret,
                               struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	char server[SERVER_MAX];
	enum kt_code code;

	if (entry->spec->issuer.acme->disable_account_key_generation) {
		return kt_err_set(err, KT_E_POLICY, "%s: spec.acme.disableAccountKeyGeneration is set: no new key is made",
		                  entry->ref);
	}
	code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, err);
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	code = put_row(keeper, entry, next_server(entry, server), key, "", "next", err);
	code = kt_store_end(keeper->store, code, err);
	if (code == KT_OK) {
		set_moves(keeper, entry, true);
		*ret = key;
		key = NULL;
	}
	return code;
}

enum kt_code kt_acme_next_load(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_key **ret,
                               struct kt_err *err)
{
	char server[SERVER_MAX];

	return open_row(keeper, entry, next_server(entry, server), ret, NULL, 0, NULL, err);
}

enum kt_code kt_acme_next_promote(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const struct kt_key *key,
                                  const char *url, const char *actor, struct kt_err *err)
{
	bool same = strcmp(url, entry->account_url) == 0;
	char server[SERVER_MAX];
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = put_row(keeper, entry, server_of(entry), key, url, "valid", err);
	if (code == KT_OK) {
		code = kt_store_account_delete(keeper->store, entry->ref, next_server(entry, server), err);
		code = code == KT_E_NOTFOUND ? KT_OK : code;
	}
	if (code == KT_OK) {
		code = kt_acme_audit(keeper, entry, same ? "account.key-changed" : "account.registered", actor, url, err);
	}
	code = kt_store_end(keeper->store, code, err);
	if (code == KT_OK) {
		tell_entries(keeper, entry, url, false);
		take_key(keeper, entry, key);
		set_moves(keeper, entry, false);
	}
	return code;
}

enum kt_code kt_acme_next_drop(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err)
{
	char server[SERVER_MAX];
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_store_account_delete(keeper->store, entry->ref, next_server(entry, server), err);
	code = kt_store_end(keeper->store, code == KT_E_NOTFOUND ? KT_OK : code, err);
	if (code == KT_OK) {
		set_moves(keeper, entry, false);
	}
	return code;
}

/* --- what the courier is told ------------------------------------------------------------------------------------------------ */

enum kt_code kt_acme_issuer_json(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_buf *out,
                                 struct kt_err *err)
{
	const struct kt_acme *acme = entry->spec->issuer.acme;
	int64_t in_flight = keeper->agent != NULL ? keeper->agent->agent.limits.per_issuer : 0;

	/* "account" tells the courier two accounts at one server apart. */
	kt_buf_adds(out, "{\"account\":");
	kt_buf_add_json(out, kt_view_str(entry->ref));
	kt_buf_adds(out, ",\"server\":");
	kt_buf_add_json(out, kt_view_str(acme->server));
	kt_buf_adds(out, ",\"termsOfServiceAgreed\":true");
	if (acme->email != NULL) {
		kt_buf_adds(out, ",\"email\":");
		kt_buf_add_json(out, kt_view_str(acme->email));
	}
	if (acme->eab != NULL) {
		kt_buf_adds(out, ",\"externalAccountBinding\":true");
	}
	if (in_flight > 0) {
		kt_buf_addf(out, ",\"inFlight\":%lld", (long long)in_flight);
	}
	if (acme->ca_bundle.len > 0) {
		kt_buf_adds(out, ",\"caBundle\":");
		kt_buf_add_json(out, (struct kt_view){(const char *)acme->ca_bundle.ptr, acme->ca_bundle.len});
	}
	kt_buf_addf(out, ",\"skipTLSVerify\":%s}", acme->skip_tls_verify ? "true" : "false");
	return kt_buf_check(out, "issuer", err);
}

void kt_acme_explain(const struct kt_issuer_entry *entry, struct kt_err *err)
{
	bool refused = err->code == KT_E_AUTH || strstr(err->problem_type, "unauthorized") != NULL;
	char what[sizeof(err->what)];

	/* RFC 8555 has no problem type for it; CAs say it in the detail. */
	if (!refused || (strstr(err->what, "deactivated") == NULL && strstr(err->what, "Deactivated") == NULL)) {
		return;
	}
	(void)snprintf(what, sizeof(what), "%.460s; 'keyturn account register --new-key %.250s' makes a new one", err->what,
	               entry->ref);
	(void)snprintf(err->what, sizeof(err->what), "%s", what);
	err->code = KT_E_AUTH;
}
