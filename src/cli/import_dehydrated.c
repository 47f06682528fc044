/* import dehydrated: its folder with accounts/, certs/, config and domains.txt. The config is shell text, which is
 * never run. */
#include "cli/import.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define CONFIG_PLACE "/etc/dehydrated"

/* Takes settings of a file into conf; ${BASEDIR} and $BASEDIR, which its own config uses, are put in beforehand. */
static void take_settings(struct kt_import *import, json_t *conf, const char *file)
{
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_buf plain KT_AUTOBUF = {0};
	json_t *found KT_AUTOJSON = NULL;
	const char *at;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	kt_buf_init(&plain, KT_IMPORT_FILE_MAX);
	if (kt_import_elsewhere(import, file, &text, NULL) != KT_OK || text.len == 0 ||
	    memchr(text.ptr, '\0', text.len) != NULL) {
		return;
	}
	for (at = text.ptr; *at != '\0'; at++) {
		size_t len = kt_starts_with(at, "${BASEDIR}") ? 10 : kt_starts_with(at, "$BASEDIR/") ? 8 : 0;

		if (len > 0) {
			kt_buf_adds(&plain, import->path);
			at += len - 1;
		} else {
			kt_buf_addc(&plain, *at);
		}
	}
	if (plain.failed == KT_OK && kt_import_shell(kt_buf_view(&plain), &found, NULL) == KT_OK) {
		const char *name;
		json_t *value;

		json_object_foreach(found, name, value)
		{
			if (json_is_null(value)) {
				kt_import_lose(import, file, name, "only a shell could say what it is",
					       "see what it means for the manifests");
			}
		}
		(void)json_object_update(conf, found);
	}
}

/* config in the folder, or Debian's in /etc/dehydrated with its conf.d; --exec stands for HOOK. */
static json_t *settings(struct kt_import *import)
{
	json_t *conf = json_object();
	bool here = kt_import_exists(import, "config");

	take_settings(import, conf, here ? "config" : CONFIG_PLACE "/config");
	if (kt_json_str(conf, "CONFIG_D") != NULL) {
		kt_import_lose(import, here ? "config" : CONFIG_PLACE "/config", "CONFIG_D",
			       "further files of settings are not read", "look through %.200s for settings that matter",
			       kt_json_str(conf, "CONFIG_D"));
	}
	if (import->exec != NULL) {
		(void)json_object_set_new(conf, "HOOK", json_string(import->exec));
	}
	return conf;
}

/* --- accounts ---------------------------------------------------------------------------------------------- */

/* accounts/<base64url of the directory URL and a newline>/ */
static char *server_of(const char *path)
{
	struct kt_buf url KT_AUTOBUF = {0};
	const char *name = strrchr(path, '/');

	kt_buf_init(&url, 2048);
	if (name == NULL || kt_base64url_decode(kt_view_str(name + 1), &url, NULL) != KT_OK) {
		return NULL;
	}
	while (url.len > 0 && url.ptr[url.len - 1] == '\n') {
		url.ptr[--url.len] = '\0';
	}
	return url.len > 8 && memchr(url.ptr, '\0', url.len) == NULL && kt_starts_with(url.ptr, "http")
		       ? kt_buf_steal(&url, NULL)
		       : NULL;
}

static enum kt_code read_account(struct kt_import *import, const char *path, struct kt_err *err)
{
	char *key_file KT_AUTOFREE = kt_import_path(path, "account_key.pem", NULL);
	char *info_file KT_AUTOFREE = kt_import_path(path, "registration_info.json", NULL);
	char *id_file KT_AUTOFREE = kt_import_path(path, "account_id.json", NULL);
	char *server = server_of(path);
	json_t *info KT_AUTOJSON = NULL;
	json_t *id KT_AUTOJSON = NULL;
	struct kt_import_account *account;
	struct kt_secret *key = NULL;
	const char *contact;
	const char *url;
	struct kt_err why;

	kt_err_clear(&why);
	if (server == NULL || kt_import_secret(import, key_file, &key, &why) != KT_OK) {
		kt_import_lose(import, key_file, "account",
			       server == NULL ? "its folder does not name a server" : why.what,
			       "an account is made anew at the first order");
		kt_free(server);
		return KT_OK;
	}
	(void)kt_import_json(import, info_file, &info, NULL);
	(void)kt_import_json(import, id_file, &id, NULL);
	account = kt_import_add_account(import, err);
	if (account == NULL) {
		kt_free(server);
		kt_secret_destroy(key);
		return err->code;
	}
	contact = json_string_value(json_array_get(json_object_get(info, "contact"), 0));
	url = kt_json_str(id, "url") != NULL ? kt_json_str(id, "url") : kt_json_str(info, "url");
	account->server = server;
	account->key = key;
	account->from = kt_strdup(key_file);
	account->url = url != NULL ? kt_strdup(url) : NULL;
	account->email = contact != NULL && kt_starts_with(contact, "mailto:") ? kt_strdup(contact + 7) : NULL;
	return account->from != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for an account");
}

/* --- certificates ------------------------------------------------------------------------------------------ */

/* CA is a URL or one of dehydrated's own names. */
static const char *server_for(const json_t *conf)
{
	static const struct {
		const char *name, *host;
	} known[] = {{"letsencrypt", "acme-v02.api.letsencrypt.org"},
		     {"letsencrypt-test", "acme-staging-v02.api.letsencrypt.org"},
		     {"zerossl", "acme.zerossl.com"},
		     {"buypass", "api.buypass.com"},
		     {"google", "dv.acme-v02.api.pki.goog"}};
	const char *ca = kt_json_str(conf, "CA");

	for (size_t i = 0; ca != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(ca, known[i].name) == 0) {
			return kt_import_known_server(known[i].host);
		}
	}
	return ca; /* NULL: where there is one account only, that */
}

static void solver(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf)
{
	const char *type = kt_json_str(conf, "CHALLENGETYPE");
	const char *hook = kt_json_str(conf, "HOOK");
	const char *folder = kt_json_str(conf, "WELLKNOWN");
	json_t *argv = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (type != NULL && strcmp(type, "dns-01") == 0) {
		if (hook != NULL && kt_import_argv(hook, &argv, &err) == KT_OK) {
			kt_import_solve_exec(cert, "Dehydrated", argv, NULL);
		} else {
			kt_import_lose(import, cert->from, "HOOK",
				       hook == NULL ? "there is no hook for dns-01" : err.what,
				       "solvers: [{dns01: {exec: {convention: Dehydrated, exec: {argv: [/path]}}}}]");
		}
		return;
	}
	if (type != NULL && strcmp(type, "tls-alpn-01") == 0) {
		kt_import_solve_alpn(cert);
		return;
	}
	/* WELLKNOWN is the folder of the tokens themselves; a webroot is the folder above .well-known/acme-challenge.
	 */
	if (folder != NULL && kt_ends_with(folder, "/.well-known/acme-challenge")) {
		char *root KT_AUTOFREE = kt_strndup(folder, strlen(folder) - strlen("/.well-known/acme-challenge"));

		kt_import_solve_http(cert, root, NULL);
		return;
	}
	kt_import_solve_http(cert, NULL, NULL);
	kt_import_lose(import, cert->from, "WELLKNOWN",
		       "a webroot holds .well-known/acme-challenge/, this folder holds the answers themselves",
		       "annotation keyturn.dev/http01-webroot with a folder that is served as a whole, or keyturn's "
		       "own listener");
}

static void hook(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf)
{
	const char *line = kt_json_str(conf, "HOOK");

	if (line != NULL && line[0] != '\0') {
		kt_import_lose(
			import, cert->from, "HOOK deploy_cert", "it is called with dehydrated's operations and paths",
			"a Consumer with notify.exec for a script of its own, or a signal (so far %.200s)", line);
	}
}

static void key_settings(struct kt_import_cert *cert, const json_t *conf)
{
	const char *algo = kt_json_str(conf, "KEY_ALGO");
	const char *size = kt_json_str(conf, "KEYSIZE");
	const char *renew = kt_json_str(conf, "PRIVATE_KEY_RENEW");
	const char *days = kt_json_str(conf, "RENEW_DAYS");
	uint64_t number = 4096;

	if (algo != NULL && strcmp(algo, "rsa") == 0) {
		cert->algorithm = "RSA";
		cert->size = size != NULL && kt_parse_u64(kt_view_str(size), 8192, &number, NULL) != KT_OK
				     ? 4096
				     : (unsigned)number;
	} else if (algo != NULL) {
		cert->algorithm = "ECDSA";
		cert->size = strcmp(algo, "secp384r1") == 0 ? 384 : strcmp(algo, "secp521r1") == 0 ? 521 : 256;
	}
	cert->keep_key = renew != NULL && strcmp(renew, "no") == 0;
	if (days != NULL && kt_parse_u64(kt_view_str(days), 80, &number, NULL) == KT_OK) {
		cert->renew_before = (kt_ms)number * 24 * KT_HOUR;
	}
	cert->must_staple = kt_import_true(kt_json_str(conf, "OCSP_MUST_STAPLE"));
}

static enum kt_code read_certificate(struct kt_import *import, const json_t *common, const char *name,
				     struct kt_err *err)
{
	char *folder KT_AUTOFREE = kt_import_path("certs", name, NULL);
	char *key KT_AUTOFREE = kt_import_path("certs", name, "privkey.pem", NULL);
	char *chain KT_AUTOFREE = kt_import_path("certs", name, "fullchain.pem", NULL);
	char *own KT_AUTOFREE = kt_import_path("certs", name, "config", NULL);
	json_t *conf KT_AUTOJSON = json_copy((json_t *)common);
	struct kt_import_cert *cert;

	if (!kt_import_exists(import, key)) { /* asked for, but never had */
		return KT_OK;
	}
	if (kt_import_exists(import, own)) {
		take_settings(import, conf, own);
	}
	cert = kt_import_add_cert(import, name, folder, err);
	if (cert == NULL) {
		return err->code;
	}
	if (!kt_import_material(import, cert, key, chain)) {
		return KT_OK;
	}
	cert->account = kt_import_account_for(import, server_for(conf), NULL);
	solver(import, cert, conf);
	hook(import, cert, conf);
	key_settings(cert, conf);
	kt_import_acme_text(cert, "preferredChain", kt_json_str(conf, "PREFERRED_CHAIN"));
	kt_import_acme_text(cert, "profile", kt_json_str(conf, "ACME_PROFILE"));
	return KT_OK;
}

/* Certificates that domains.txt asks for, and that were never issued. */
static void look_at_domains(struct kt_import *import, const json_t *conf)
{
	const char *file = kt_json_str(conf, "DOMAINS_TXT");
	struct kt_buf text KT_AUTOBUF = {0};
	json_t *lines KT_AUTOJSON = NULL;
	json_t *line;
	size_t i;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	file = file != NULL                              ? file
	       : kt_import_exists(import, "domains.txt") ? "domains.txt"
							 : CONFIG_PLACE "/domains.txt";
	if (kt_import_elsewhere(import, file, &text, NULL) != KT_OK || !kt_utf8_valid(kt_buf_view(&text)) ||
	    text.len == 0) {
		return;
	}
	lines = kt_import_split(text.ptr, "\n");
	json_array_foreach(lines, i, line)
	{
		const char *row = json_string_value(line);
		json_t *words KT_AUTOJSON = row[0] != '#' ? kt_import_split(row, " \t\r>") : NULL;
		bool alias = row[0] != '#' && strchr(row, '>') != NULL;
		const char *name = json_string_value(json_array_get(words, alias ? json_array_size(words) - 1 : 0));
		char *key KT_AUTOFREE = name != NULL ? kt_import_path("certs", name, "privkey.pem", NULL) : NULL;

		if (name != NULL && !kt_import_exists(import, key)) {
			kt_import_lose(import, file, name, "dehydrated has not issued it yet",
				       "a Certificate with the names of that line");
		}
	}
}

static enum kt_code read_all(struct kt_import *import, struct kt_err *err)
{
	json_t *conf KT_AUTOJSON = settings(import);
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code = kt_import_find(import, "accounts", "account_key.pem", read_account, err);
	const char *email = kt_json_str(conf, "CONTACT_EMAIL");

	for (i = 0; i < import->account_count && email != NULL; i++) {
		if (import->accounts[i].email == NULL) {
			import->accounts[i].email = kt_strdup(email);
		}
	}
	if (code != KT_OK || kt_import_list(import, "certs", &names, NULL) != KT_OK) {
		return code;
	}
	json_array_foreach(names, i, name)
	{
		code = code == KT_OK ? read_certificate(import, conf, json_string_value(name), err) : code;
	}
	look_at_domains(import, conf);
	return code;
}

const struct kt_import_source kt_import_dehydrated = {"dehydrated", "/var/lib/dehydrated", read_all};
