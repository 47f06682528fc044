/* import certbot: /etc/letsencrypt with accounts/, renewal/, live/ and archive/. */
#include "cli/import.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

/* --- accounts ---------------------------------------------------------------------------------------------- */

static char *email_of(const json_t *body)
{
	const char *contact = json_string_value(json_array_get(json_object_get(body, "contact"), 0));

	return contact != NULL && kt_starts_with(contact, "mailto:") ? kt_strdup(contact + 7) : NULL;
}

/* accounts/<host>/<path of the directory>/<id>: the folder names the server, for certbot always by https. */
static enum kt_code read_account(struct kt_import *import, const char *path, struct kt_err *err)
{
	char *key_file KT_AUTOFREE = kt_import_path(path, "private_key.json", NULL);
	char *regr_file KT_AUTOFREE = kt_import_path(path, "regr.json", NULL);
	json_t *regr KT_AUTOJSON = NULL;
	const char *id = strrchr(path, '/');
	struct kt_import_account *account;
	struct kt_secret *key = NULL;
	struct kt_err why;

	kt_err_clear(&why);
	if (id == NULL || id - path <= (ptrdiff_t)sizeof("accounts/") - 1) {
		return KT_OK;
	}
	if (kt_import_secret(import, key_file, &key, &why) != KT_OK ||
	    kt_import_json(import, regr_file, &regr, &why) != KT_OK) {
		kt_secret_destroy(key);
		kt_import_lose(import, path, "account", why.what, "an account is made anew at the first order");
		return KT_OK;
	}
	account = kt_import_add_account(import, err);
	if (account == NULL) {
		kt_secret_destroy(key);
		return err->code;
	}
	account->key = key;
	account->jwk = true;
	account->from = kt_strdup(key_file);
	account->server = kt_asprintf("https://%.*s", (int)(id - path - 9), path + 9);
	account->url = kt_json_str(regr, "uri") != NULL ? kt_strdup(kt_json_str(regr, "uri")) : NULL;
	account->email = email_of(json_object_get(regr, "body"));
	return account->from != NULL && account->server != NULL
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOMEM, "no memory for an account");
}

/* --- DNS plugins ------------------------------------------------------------------------------------------- */

/* The plugin's file of credentials; NULL (and a note later) when it can't be read. */
static json_t *credentials(const struct kt_import *import, const char *file)
{
	struct kt_buf text KT_AUTOBUF = {0};
	json_t *ini KT_AUTOJSON = NULL;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	if (file == NULL || kt_import_elsewhere(import, file, &text, NULL) != KT_OK ||
	    kt_import_ini(kt_buf_view(&text), &ini, NULL) != KT_OK) {
		return NULL;
	}
	return json_incref(json_object_get(ini, ""));
}

static void cloudflare(struct kt_import *import, struct kt_import_cert *cert, const char *file)
{
	json_t *found KT_AUTOJSON = credentials(import, file);
	const char *key = kt_json_str(found, "dns_cloudflare_api_key");
	const char *email = kt_json_str(found, "dns_cloudflare_email");

	if (key != NULL && email != NULL) {
		kt_import_credential(import, "cloudflare", "api-key", key, file);
		kt_import_solve_dns(cert, "cloudflare",
				    json_pack("{s:s,s:{s:s,s:s}}", "email", email, "apiKeySecretRef", "name",
					      "cloudflare", "key", "api-key"),
				    false);
		return;
	}
	kt_import_credential(import, "cloudflare", "api-token", kt_json_str(found, "dns_cloudflare_api_token"), file);
	kt_import_solve_dns(cert, "cloudflare",
			    json_pack("{s:{s:s,s:s}}", "apiTokenSecretRef", "name", "cloudflare", "key", "api-token"),
			    false);
}

static void digitalocean(struct kt_import *import, struct kt_import_cert *cert, const char *file)
{
	json_t *found KT_AUTOJSON = credentials(import, file);

	kt_import_credential(import, "digitalocean", "access-token", kt_json_str(found, "dns_digitalocean_token"),
			     file);
	kt_import_solve_dns(cert, "digitalocean",
			    json_pack("{s:{s:s,s:s}}", "tokenSecretRef", "name", "digitalocean", "key", "access-token"),
			    false);
}

/* HMAC-SHA512 of certbot is HMACSHA512 of cert-manager. */
static const char *tsig_algorithm(const char *text)
{
	return text == NULL                       ? "HMACMD5" /* certbot's default */
	       : strcmp(text, "HMAC-SHA256") == 0 ? "HMACSHA256"
	       : strcmp(text, "HMAC-SHA512") == 0 ? "HMACSHA512"
	       : strcmp(text, "HMAC-SHA1") == 0   ? "HMACSHA1"
						  : "HMACMD5";
}

static bool rfc2136(struct kt_import *import, struct kt_import_cert *cert, const char *file)
{
	json_t *found KT_AUTOJSON = credentials(import, file);
	const char *server = kt_json_str(found, "dns_rfc2136_server");
	const char *port = kt_json_str(found, "dns_rfc2136_port");
	const char *name = kt_json_str(found, "dns_rfc2136_name");
	char *address KT_AUTOFREE = NULL;
	size_t len = name != NULL ? strlen(name) : 0;

	if (server == NULL || name == NULL) {
		kt_import_lose(
			import, cert->from, "authenticator dns-rfc2136", "its file of credentials can't be read",
			"solvers: [{dns01: {rfc2136: {nameserver, tsigKeyName, tsigAlgorithm, tsigSecretSecretRef}}}]");
		return false;
	}
	address = strchr(server, ':') != NULL ? kt_asprintf("[%s]:%s", server, port != NULL ? port : "53")
					      : kt_asprintf("%s:%s", server, port != NULL ? port : "53");
	while (len > 0 && name[len - 1] == '.') {
		len--;
	}
	kt_import_credential(import, "rfc2136", "tsig-secret", kt_json_str(found, "dns_rfc2136_secret"), file);
	kt_import_solve_dns(cert, "rfc2136",
			    json_pack("{s:s,s:s%,s:s,s:{s:s,s:s}}", "nameserver", address, "tsigKeyName", name, len,
				      "tsigAlgorithm", tsig_algorithm(kt_json_str(found, "dns_rfc2136_algorithm")),
				      "tsigSecretSecretRef", "name", "rfc2136", "key", "tsig-secret"),
			    false);
	return true;
}

static void route53(struct kt_import *import, struct kt_import_cert *cert)
{
	kt_import_note(import, "certbot found its Route 53 credentials in the environment or ~/.aws/credentials: "
			       "keyturn secret set route53 access-key-id secret-access-key");
	kt_import_solve_dns(cert, "route53",
			    json_pack("{s:{s:s,s:s},s:{s:s,s:s}}", "accessKeyIDSecretRef", "name", "route53", "key",
				      "access-key-id", "secretAccessKeySecretRef", "name", "route53", "key",
				      "secret-access-key"),
			    false);
}

/* --- authenticators ---------------------------------------------------------------------------------------- */

/* webroot_path = /var/www, and [[webroot_map]] name = folder: keyturn has one folder for an issuer. */
static void webroot(struct kt_import *import, struct kt_import_cert *cert, const json_t *params, const json_t *map)
{
	json_t *paths KT_AUTOJSON = kt_import_split(kt_json_str(params, "webroot_path"), ",");
	const char *path = json_string_value(json_array_get(paths, 0));
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)map, name, value)
	{
		const char *folder = json_string_value(value);

		path = path != NULL ? path : folder;
		if (folder != NULL && strcmp(folder, path) != 0) {
			kt_import_lose(import, cert->from, "webroot_map", "an issuer has one webroot",
				       "serve /.well-known/acme-challenge/ of %s from %s too, or answer by keyturn's "
				       "own listener",
				       name, path);
		}
	}
	kt_import_solve_http(cert, path, NULL);
}

static void manual(struct kt_import *import, struct kt_import_cert *cert, const json_t *params)
{
	const char *auth = kt_json_str(params, "manual_auth_hook");
	const char *cleanup = kt_json_str(params, "manual_cleanup_hook");
	const char *challenges = kt_json_str(params, "pref_challs");
	json_t *argv = NULL;
	json_t *undo = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (challenges != NULL && strstr(challenges, "dns") == NULL) {
		kt_import_lose(import, cert->from, "manual_auth_hook", "only a hook of dns-01 can be called",
			       "keyturn's own listener or a webroot answers http-01");
		kt_import_solve_http(cert, NULL, NULL);
	} else if (auth == NULL || kt_import_argv(auth, &argv, &err) != KT_OK) {
		kt_import_lose(import, cert->from, "manual_auth_hook",
			       auth == NULL ? "there is none: it was done by hand" : err.what,
			       "solvers: [{dns01: {exec: {convention: Certbot, exec: {argv: [/path]}}}}]");
	} else {
		if (cleanup != NULL && kt_import_argv(cleanup, &undo, &err) != KT_OK) {
			kt_import_lose(import, cert->from, "manual_cleanup_hook", err.what,
				       "cleanupArgv of that solver");
		}
		kt_import_solve_exec(cert, "Certbot", argv, undo);
	}
}

static void authenticator(struct kt_import *import, struct kt_import_cert *cert, const json_t *params,
			  const json_t *map)
{
	const char *name = kt_json_str(params, "authenticator");
	const char *file;

	name = name != NULL ? name : "";
	if (strcmp(name, "standalone") == 0) {
		kt_import_solve_http(cert, NULL, NULL);
	} else if (strcmp(name, "webroot") == 0) {
		webroot(import, cert, params, map);
	} else if (strcmp(name, "manual") == 0) {
		manual(import, cert, params);
	} else if (strcmp(name, "dns-cloudflare") == 0) {
		cloudflare(import, cert, kt_json_str(params, "dns_cloudflare_credentials"));
	} else if (strcmp(name, "dns-digitalocean") == 0) {
		digitalocean(import, cert, kt_json_str(params, "dns_digitalocean_credentials"));
	} else if (strcmp(name, "dns-route53") == 0) {
		route53(import, cert);
	} else if (strcmp(name, "dns-rfc2136") == 0) {
		file = kt_json_str(params, "dns_rfc2136_credentials");
		(void)rfc2136(import, cert, file);
	} else if (strcmp(name, "nginx") == 0 || strcmp(name, "apache") == 0) {
		kt_import_lose(import, cert->from, name, "keyturn does not edit the configuration of a web server",
			       "let it serve /.well-known/acme-challenge/ from a folder and name that in annotation "
			       "keyturn.dev/http01-webroot; point it at the files of the secret");
		kt_import_solve_http(cert, NULL, NULL);
	} else {
		kt_import_lose(import, cert->from, name[0] != '\0' ? name : "authenticator",
			       "there is no such solver here",
			       "solvers: [{dns01: {exec: {convention: Certbot, exec: {argv: [/path]}}}}] with a script "
			       "that writes the record");
	}
}

/* --- a lineage --------------------------------------------------------------------------------------------- */

static void key_settings(struct kt_import_cert *cert, const json_t *params)
{
	const char *type = kt_json_str(params, "key_type");
	const char *curve = kt_json_str(params, "elliptic_curve");
	const char *bits = kt_json_str(params, "rsa_key_size");
	uint64_t size = 2048;

	if (type != NULL && strcmp(type, "ecdsa") == 0) {
		cert->algorithm = "ECDSA";
		cert->size = curve == NULL                     ? 256
			     : strcmp(curve, "secp384r1") == 0 ? 384
			     : strcmp(curve, "secp521r1") == 0 ? 521
							       : 256;
	} else if (type != NULL && strcmp(type, "rsa") == 0) {
		if (bits != NULL) {
			(void)kt_parse_u64(kt_view_str(bits), 8192, &size, NULL);
		}
		cert->algorithm = "RSA";
		cert->size = (unsigned)size;
	}
	cert->keep_key = kt_import_true(kt_json_str(params, "reuse_key"));
	cert->must_staple = kt_import_true(kt_json_str(params, "must_staple"));
}

/* "30 days"; other units are rare and listed. */
static void renewal_time(struct kt_import *import, struct kt_import_cert *cert, const json_t *top)
{
	const char *text = kt_json_str(top, "renew_before_expiry");
	unsigned days = 0;
	char end = '\0';

	if (text == NULL) {
		return;
	}
	if (sscanf(text, "%3u day%c", &days, &end) >= 1 && days > 0 && strstr(text, "day") != NULL) {
		cert->renew_before = (kt_ms)days * 24 * KT_HOUR;
	} else {
		kt_import_lose(import, cert->from, "renew_before_expiry", "only days are understood",
			       "spec.renewBefore of the Certificate");
	}
}

static void hooks(struct kt_import *import, struct kt_import_cert *cert, const json_t *params)
{
	static const char *const around[] = {"pre_hook", "post_hook"};
	const char *deploy = kt_json_str(params, "renew_hook");

	if (deploy != NULL && deploy[0] != '\0') {
		cert->hook = kt_strdup(deploy);
		cert->hook_field = "renew_hook";
	}
	for (size_t i = 0; i < 2; i++) {
		const char *line = kt_json_str(params, around[i]);

		if (line != NULL && line[0] != '\0') {
			kt_import_lose(import, cert->from, around[i],
				       "nothing has to stop while a certificate is renewed",
				       "nothing where it only made room for port 80; a Consumer's notify where it "
				       "reloads a server (%.200s)",
				       line);
		}
	}
}

/* What settings hold that has no place here. */
static void other_settings(struct kt_import *import, struct kt_import_cert *cert, const json_t *params)
{
	static const struct {
		const char *key, *reason, *instead;
	} known[] = {
		{"no_verify_ssl", "the CA's server is always verified", "--ca-bundle FILE with its root"},
		{"http01_port", "the port of the listener is the Agent's", "spec.listeners.http01 of the Agent"},
		{"allow_subset_of_names", "a certificate always has all of its names",
		 "one Certificate for each name that may be missing"},
		{"preferred_profile", "a profile is asked for or not", "spec.acme.profile of the Issuer"},
	};
	const char *installer = kt_json_str(params, "installer");

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const char *value = kt_json_str(params, known[i].key);

		if (value != NULL && strcmp(value, "None") != 0 && strcmp(value, "False") != 0 &&
		    !(strcmp(known[i].key, "http01_port") == 0 && strcmp(value, "80") == 0)) {
			kt_import_lose(import, cert->from, known[i].key, known[i].reason, "%s", known[i].instead);
		}
	}
	if (installer != NULL && strcmp(installer, "None") != 0) {
		kt_import_lose(import, cert->from, installer,
			       "the configuration that it made of the web server stays as it is",
			       "point the web server at the files of the secret, and write a Consumer that reloads it");
	}
}

static enum kt_code read_renewal(struct kt_import *import, const char *file, struct kt_err *err)
{
	char *conf KT_AUTOFREE = kt_import_path("renewal", file, NULL);
	char *text KT_AUTOFREE = NULL;
	char *name KT_AUTOFREE = kt_strndup(file, strlen(file) - 5);
	char *key KT_AUTOFREE = kt_import_path("live", name, "privkey.pem", NULL);
	char *chain KT_AUTOFREE = kt_import_path("live", name, "fullchain.pem", NULL);
	json_t *ini KT_AUTOJSON = NULL;
	const json_t *params;
	struct kt_import_cert *cert;
	struct kt_err why;

	kt_err_clear(&why);
	text = kt_import_text(import, conf, &why);
	if (text == NULL || kt_import_ini(kt_view_str(text), &ini, &why) != KT_OK) {
		kt_import_lose(import, conf, name, why.what, "write a Certificate for it");
		return KT_OK;
	}
	params = json_object_get(ini, "renewalparams");
	cert = kt_import_add_cert(import, name, conf, err);
	if (cert == NULL) {
		return err->code;
	}
	if (!kt_import_material(import, cert, key, chain)) {
		return KT_OK;
	}
	cert->account = kt_import_account_for(import, kt_json_str(params, "server"), kt_json_str(params, "account"));
	authenticator(import, cert, params, json_object_get(ini, "webroot_map"));
	key_settings(cert, params);
	renewal_time(import, cert, json_object_get(ini, ""));
	kt_import_acme_text(cert, "preferredChain", kt_json_str(params, "preferred_chain"));
	kt_import_acme_text(cert, "profile", kt_json_str(params, "required_profile"));
	hooks(import, cert, params);
	other_settings(import, cert, params);
	if (kt_json_str(params, "autorenew") != NULL && !kt_import_true(kt_json_str(params, "autorenew"))) {
		kt_import_lose(import, conf, "autorenew", "what has a Certificate is renewed",
			       "spec.renewal.policy: Disabled of the Certificate");
	}
	return KT_OK;
}

/* renewal-hooks/: scripts that read certbot's own variables. */
static void hook_folders(struct kt_import *import)
{
	static const char *const folders[] = {"deploy", "pre", "post"};

	for (size_t i = 0; i < 3; i++) {
		char *folder KT_AUTOFREE = kt_import_path("renewal-hooks", folders[i], NULL);
		json_t *names KT_AUTOJSON = NULL;
		json_t *name;
		size_t n;

		if (kt_import_list(import, folder, &names, NULL) != KT_OK) {
			continue;
		}
		json_array_foreach(names, n, name)
		{
			char *file KT_AUTOFREE = kt_import_path(folder, json_string_value(name), NULL);

			kt_import_lose(
				import, file, folders[i],
				i == 0 ? "it may read RENEWED_LINEAGE and RENEWED_DOMAINS, which only certbot sets"
				       : "nothing has to stop while a certificate is renewed",
				"%s",
				i == 0 ? "a Consumer with notify.exec for a script that reads KEYTURN_ variables"
				       : "nothing");
		}
	}
}

static enum kt_code read_all(struct kt_import *import, struct kt_err *err)
{
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code = kt_import_find(import, "accounts", "private_key.json", read_account, err);

	if (code != KT_OK || kt_import_list(import, "renewal", &names, NULL) != KT_OK) {
		return code;
	}
	json_array_foreach(names, i, name)
	{
		if (code == KT_OK && kt_ends_with(json_string_value(name), ".conf") && json_string_length(name) > 5) {
			code = read_renewal(import, json_string_value(name), err);
		}
	}
	hook_folders(import);
	return code;
}

const struct kt_import_source kt_import_certbot = {"certbot", "/etc/letsencrypt", read_all};
