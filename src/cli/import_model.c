/* import: filling the model: accounts, certificates, solvers, and the list of what is not carried over. */
#include "cli/import.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"

/* --- rows -------------------------------------------------------------------------------------------------- */

/* One more item of an array that grows by doubling; NULL at the limit. */
static void *grow(void *items, size_t count, size_t size, size_t max)
{
	if (count >= max) {
		return NULL;
	}
	if (count == 0 || (count & (count - 1)) == 0) {
		return kt_realloc(items, (count == 0 ? 1 : 2 * count) * size);
	}
	return items;
}

struct kt_import_account *kt_import_add_account(struct kt_import *import, struct kt_err *err)
{
	struct kt_import_account *items =
		grow(import->accounts, import->account_count, sizeof(*items), KT_IMPORT_ACCOUNTS_MAX);

	if (items == NULL) {
		(void)kt_err_set(err, KT_E_LIMIT, "more than %u accounts", KT_IMPORT_ACCOUNTS_MAX);
		return NULL;
	}
	import->accounts = items;
	items += import->account_count++;
	*items = (struct kt_import_account){0};
	return items;
}

struct kt_import_cert *kt_import_add_cert(struct kt_import *import, const char *name, const char *from,
					  struct kt_err *err)
{
	struct kt_import_cert *items = grow(import->certs, import->cert_count, sizeof(*items), KT_IMPORT_CERTS_MAX);

	if (items == NULL) {
		(void)kt_err_set(err, KT_E_LIMIT, "more than %u certificates", KT_IMPORT_CERTS_MAX);
		return NULL;
	}
	import->certs = items;
	items += import->cert_count++;
	*items = (struct kt_import_cert){.name = kt_strdup(name),
					 .from = kt_strdup(from),
					 .account = KT_IMPORT_NO_ACCOUNT,
					 .acme = json_object(),
					 .annotations = json_object()};
	if (items->name == NULL || items->from == NULL || items->acme == NULL || items->annotations == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "no memory for a certificate");
		kt_import_drop_cert(import);
		return NULL;
	}
	return items;
}

static void cert_finish(struct kt_import_cert *cert)
{
	kt_free(cert->name);
	kt_free(cert->from);
	kt_secret_destroy(cert->key);
	kt_free(cert->chain);
	json_decref(cert->acme);
	json_decref(cert->annotations);
	kt_free(cert->hook);
}

void kt_import_drop_cert(struct kt_import *import)
{
	cert_finish(&import->certs[--import->cert_count]);
}

void kt_import_finish(struct kt_import *import)
{
	for (size_t i = 0; i < import->account_count; i++) {
		struct kt_import_account *account = &import->accounts[i];

		kt_free(account->server);
		kt_free(account->url);
		kt_free(account->email);
		kt_free(account->from);
		kt_secret_destroy(account->key);
	}
	for (size_t i = 0; i < import->cert_count; i++) {
		cert_finish(&import->certs[i]);
	}
	kt_free(import->accounts);
	kt_free(import->certs);
	json_decref(import->secrets);
	json_decref(import->lost);
	json_decref(import->notes);
	kt_free((char *)import->path);
	if (import->dir >= 0) {
		close(import->dir);
	}
	*import = (struct kt_import){.dir = -1};
}

/* --- what is not carried over ------------------------------------------------------------------------------ */

/* A text that was cut may end within a character: JSON would not take it. */
static void mend(char *text)
{
	size_t len = strlen(text);

	while (len > 0 && !kt_utf8_valid((struct kt_view){text, len})) {
		text[--len] = '\0';
	}
}

void kt_import_lose(struct kt_import *import, const char *file, const char *what, const char *reason, const char *fmt,
		    ...)
{
	struct kt_err text;
	char instead[768];
	va_list args;

	if (json_array_size(import->lost) >= KT_IMPORT_LOST_MAX) {
		import->lost_more++;
		return;
	}
	va_start(args, fmt);
	(void)vsnprintf(instead, sizeof(instead), fmt, args);
	va_end(args);
	mend(instead);
	kt_err_clear(&text);
	(void)kt_err_set(&text, KT_E_INVALID, "%s", instead); /* escapes what can't be printed */
	(void)json_array_append_new(import->lost, json_pack("{s:s,s:s,s:s,s:s}", "file", file, "what", what, "reason",
							    reason, "instead", text.what));
}

void kt_import_note(struct kt_import *import, const char *fmt, ...)
{
	char text[768];
	va_list args;
	json_t *old;
	size_t i;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	mend(text);
	json_array_foreach(import->notes, i, old)
	{
		if (strcmp(json_string_value(old), text) == 0) {
			return;
		}
	}
	if (i < KT_IMPORT_LOST_MAX) {
		(void)json_array_append_new(import->notes, json_string(text));
	}
}

void kt_import_credential(struct kt_import *import, const char *secret, const char *key, const char *value,
			  const char *file)
{
	json_t *old;
	size_t i;

	json_array_foreach(import->secrets, i, old)
	{
		if (strcmp(kt_json_str(old, "name"), secret) == 0 && strcmp(kt_json_str(old, "key"), key) == 0) {
			return;
		}
	}
	if (import->with_secrets && value != NULL && value[0] != '\0') {
		(void)json_array_append_new(import->secrets,
					    json_pack("{s:s,s:s,s:s}", "name", secret, "key", key, "value", value));
		return;
	}
	kt_import_note(import, "set the DNS provider's credential: keyturn secret set %s %s%s%s%s", secret, key,
		       file != NULL ? " (it is in " : "", file != NULL ? file : "",
		       file == NULL           ? ""
		       : import->with_secrets ? ", but was not found there)"
					      : "; --with-secrets takes it along)");
}

/* --- material ---------------------------------------------------------------------------------------------- */

bool kt_import_material(struct kt_import *import, struct kt_import_cert *cert, const char *key_file,
			const char *chain_file)
{
	struct kt_buf chain KT_AUTOBUF = {0};
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&chain, KT_IMPORT_FILE_MAX);
	if (kt_import_elsewhere(import, chain_file, &chain, &err) == KT_OK &&
	    (chain.len == 0 || memchr(chain.ptr, '\0', chain.len) != NULL)) {
		(void)kt_err_set(&err, KT_E_INVALID, "%s holds no certificate", chain_file);
	}
	if (err.code == KT_OK && kt_import_secret(import, key_file, &cert->key, &err) == KT_OK) {
		cert->chain = kt_buf_steal(&chain, NULL);
	}
	if (cert->chain != NULL && cert->key != NULL) {
		return true;
	}
	kt_import_lose(import, cert->from, cert->name, err.what,
		       "write a Certificate for its names: it will be ordered anew, with the imported account");
	kt_import_drop_cert(import);
	return false;
}

/* --- accounts ---------------------------------------------------------------------------------------------- */

/* Host and path of a URL, without a slash at the end. */
static struct kt_view place_of(const char *url)
{
	const char *at = url != NULL ? strstr(url, "://") : NULL;
	struct kt_view place = kt_view_str(at != NULL ? at + 3 : url);

	while (place.len > 0 && place.ptr[place.len - 1] == '/') {
		place.len--;
	}
	return place;
}

size_t kt_import_account_for(const struct kt_import *import, const char *server, const char *hint)
{
	size_t found = KT_IMPORT_NO_ACCOUNT;

	for (size_t i = 0; i < import->account_count; i++) {
		const struct kt_import_account *account = &import->accounts[i];

		if (server != NULL && !kt_ascii_ieq(place_of(account->server), place_of(server))) {
			continue;
		}
		if (hint != NULL && strstr(account->from, hint) != NULL) {
			return i;
		}
		if (found == KT_IMPORT_NO_ACCOUNT) {
			found = i;
		}
	}
	return found;
}

const char *kt_import_known_server(const char *host)
{
	static const char *const known[] = {
		"https://acme-v02.api.letsencrypt.org/directory",
		"https://acme-staging-v02.api.letsencrypt.org/directory",
		"https://acme.zerossl.com/v2/DV90",
		"https://dv.acme-v02.api.pki.goog/directory",
		"https://dv.acme-v02.test-api.pki.goog/directory",
		"https://api.buypass.com/acme/directory",
		"https://api.test4.buypass.no/acme/directory",
		"https://acme.ssl.com/sslcom-dv-rsa",
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct kt_view place = place_of(known[i]);
		const char *slash = memchr(place.ptr, '/', place.len);

		if (kt_ascii_ieq((struct kt_view){place.ptr, (size_t)(slash - place.ptr)}, kt_view_str(host))) {
			return known[i];
		}
	}
	return NULL;
}

/* --- solvers ----------------------------------------------------------------------------------------------- */

static void add_solver(struct kt_import_cert *cert, json_t *solver)
{
	json_t *list = json_object_get(cert->acme, "solvers");
	json_t *old;
	size_t i;

	if (list == NULL) {
		list = json_array();
		(void)json_object_set_new(cert->acme, "solvers", list);
	}
	json_array_foreach(list, i, old)
	{
		if (json_equal(old, solver)) {
			json_decref(solver);
			return;
		}
	}
	(void)json_array_append_new(list, solver);
}

void kt_import_solve_http(struct kt_import_cert *cert, const char *webroot, json_t *names)
{
	json_t *solver = json_pack("{s:{s:{}}}", "http01", "ingress");

	if (names != NULL) {
		(void)json_object_set_new(solver, "selector", json_pack("{s:O}", "dnsNames", names));
	}
	if (webroot != NULL) {
		(void)json_object_set_new(cert->annotations, "keyturn.dev/http01-webroot", json_string(webroot));
	}
	add_solver(cert, solver);
}

void kt_import_solve_alpn(struct kt_import_cert *cert)
{
	add_solver(cert, json_pack("{s:{}}", "tlsAlpn01"));
}

void kt_import_solve_dns(struct kt_import_cert *cert, const char *provider, json_t *config, bool follow)
{
	json_t *dns = json_pack("{s:o}", provider, config);

	if (follow) {
		(void)json_object_set_new(dns, "cnameStrategy", json_string("Follow"));
	}
	add_solver(cert, json_pack("{s:o}", "dns01", dns));
}

void kt_import_solve_exec(struct kt_import_cert *cert, const char *convention, json_t *argv, json_t *cleanup)
{
	json_t *config = json_pack("{s:s,s:{s:o}}", "convention", convention, "exec", "argv", argv);

	if (cleanup != NULL) {
		(void)json_object_set_new(config, "cleanupArgv", cleanup);
	}
	kt_import_solve_dns(cert, "exec", config, false);
}

void kt_import_acme_text(struct kt_import_cert *cert, const char *field, const char *value)
{
	if (value != NULL && value[0] != '\0') {
		(void)json_object_set_new(cert->acme, field, json_string(value));
	}
}
