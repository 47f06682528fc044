/* import lego: .lego with accounts/ and certificates/, as versions 4 and 5 lay them out. */
#include "cli/import.h"

#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

/* --- accounts ---------------------------------------------------------------------------------------------- */

/* Version 4 names the folder after the server's host, with '_' for ':'; its directory URL stands nowhere. */
static bool is_host(const char *url, const char *folder)
{
	const char *host = url != NULL ? strstr(url, "://") : NULL;

	if (host == NULL) {
		return false;
	}
	for (host += 3; *host != '\0' && *host != '/'; host++, folder++) {
		if (*folder != *host && !(*host == ':' && *folder == '_')) {
			return false;
		}
	}
	return *folder == '\0';
}

static const char *server_of(const struct kt_import *import, const json_t *file, const char *folder)
{
	const char *server = kt_json_str(file, "server"); /* version 5 */

	if (server != NULL && server[0] != '\0') {
		return server;
	}
	return is_host(import->server, folder) ? import->server : kt_import_known_server(folder);
}

/* Version 5 keeps the URL in registration.accountURL, version 4 in registration.uri. */
static const char *url_of(const json_t *file)
{
	const json_t *registration = json_object_get(file, "registration");
	const char *url = kt_json_str(registration, "accountURL");

	return url != NULL ? url : kt_json_str(registration, "uri");
}

/* keys/<id>.key in version 4, <id>.key beside account.json in version 5. */
static char *key_file_of(const struct kt_import *import, const char *path)
{
	const char *id = strrchr(path, '/');
	char *name KT_AUTOFREE = id != NULL ? kt_asprintf("%s.key", id + 1) : NULL;
	char *file = name != NULL ? kt_import_path(path, "keys", name, NULL) : NULL;

	if (file != NULL && !kt_import_exists(import, file)) {
		kt_free(file);
		file = kt_import_path(path, name, NULL);
	}
	return file;
}

static enum kt_code read_account(struct kt_import *import, const char *path, struct kt_err *err)
{
	char *file KT_AUTOFREE = kt_import_path(path, "account.json", NULL);
	char *key_file KT_AUTOFREE = key_file_of(import, path);
	json_t *json KT_AUTOJSON = NULL;
	json_t *parts KT_AUTOJSON = kt_import_split(path, "/");
	const char *folder = json_string_value(json_array_get(parts, 1));
	struct kt_import_account *account;
	struct kt_secret *key = NULL;
	const char *server;
	const char *email;
	struct kt_err why;

	kt_err_clear(&why);
	if (folder == NULL || json_array_size(parts) < 3) {
		return KT_OK;
	}
	if (kt_import_json(import, file, &json, &why) != KT_OK ||
	    kt_import_secret(import, key_file, &key, &why) != KT_OK) {
		kt_import_lose(import, file, "account", why.what, "an account is made anew at the first order");
		return KT_OK;
	}
	server = server_of(import, json, folder);
	if (server == NULL) {
		kt_secret_destroy(key);
		kt_import_lose(import, file, "account", "lego does not write down the directory URL of this server",
			       "give it by --server https://%.200s/…", folder);
		return KT_OK;
	}
	account = kt_import_add_account(import, err);
	if (account == NULL) {
		kt_secret_destroy(key);
		return err->code;
	}
	email = kt_json_str(json, "email");
	account->key = key;
	account->from = kt_strdup(key_file);
	account->server = kt_strdup(server);
	account->url = url_of(json) != NULL ? kt_strdup(url_of(json)) : NULL;
	account->email = email != NULL && email[0] != '\0' ? kt_strdup(email) : NULL;
	return account->from != NULL && account->server != NULL
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOMEM, "no memory for an account");
}

/* --- certificates ------------------------------------------------------------------------------------------ */

/* lego does not write down which account ordered a certificate: the one at the host of its URL. */
static size_t account_of(const struct kt_import *import, const char *cert_url)
{
	const char *host = cert_url != NULL ? strstr(cert_url, "://") : NULL;
	size_t len = host != NULL ? strcspn(host + 3, "/") : 0;

	for (size_t i = 0; len > 0 && i < import->account_count; i++) {
		const char *known = strstr(import->accounts[i].server, "://");

		if (known != NULL && strncmp(known + 3, host + 3, len) == 0 &&
		    (known[3 + len] == '/' || known[3 + len] == '\0')) {
			return i;
		}
	}
	return import->account_count == 1 ? 0 : KT_IMPORT_NO_ACCOUNT;
}

static void solver(struct kt_import *import, struct kt_import_cert *cert)
{
	if (import->exec != NULL) {
		kt_import_solve_exec(cert, "Lego", json_pack("[s]", import->exec), NULL);
		return;
	}
	kt_import_solve_http(cert, NULL, NULL);
	kt_import_lose(import, cert->from, "challenge",
		       "lego does not write down how names were proved: http-01 is assumed",
		       "solvers of the Issuer; --exec PROGRAM for a script of lego's exec provider");
}

static enum kt_code read_certificate(struct kt_import *import, const char *name, struct kt_err *err)
{
	char *base KT_AUTOFREE = kt_strndup(name, strlen(name) - 5);
	char *file KT_AUTOFREE = kt_import_path("certificates", name, NULL);
	char *key KT_AUTOFREE = kt_asprintf("certificates/%s.key", base);
	char *chain KT_AUTOFREE = kt_asprintf("certificates/%s.crt", base);
	json_t *json KT_AUTOJSON = NULL;
	struct kt_import_cert *cert;
	const char *id;
	struct kt_err why;

	kt_err_clear(&why);
	if (kt_import_json(import, file, &json, &why) != KT_OK) {
		kt_import_lose(import, file, base, why.what, "write a Certificate for it");
		return KT_OK;
	}
	id = kt_json_str(json, "domain") != NULL ? kt_json_str(json, "domain") : kt_json_str(json, "id");
	cert = kt_import_add_cert(import, id != NULL ? id : base, file, err);
	if (cert == NULL) {
		return err->code;
	}
	if (kt_import_material(import, cert, key, chain)) {
		cert->account = account_of(import, kt_json_str(json, "certUrl"));
		solver(import, cert);
	}
	return KT_OK;
}

static enum kt_code read_all(struct kt_import *import, struct kt_err *err)
{
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code = kt_import_find(import, "accounts", "account.json", read_account, err);

	if (code != KT_OK || kt_import_list(import, "certificates", &names, NULL) != KT_OK) {
		return code;
	}
	json_array_foreach(names, i, name)
	{
		if (code == KT_OK && kt_ends_with(json_string_value(name), ".json") && json_string_length(name) > 5) {
			code = read_certificate(import, json_string_value(name), err);
		}
	}
	if (import->cert_count > 0) {
		kt_import_note(import, "lego's --deploy-hook, --run-hook and --renew-hook stand in its command line (a "
				       "cron job or timer): write "
				       "a Consumer for each; see docs/import.md");
	}
	return code;
}

const struct kt_import_source kt_import_lego = {"lego", ".lego", read_all};
