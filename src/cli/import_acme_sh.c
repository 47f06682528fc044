/* import acme.sh: ~/.acme.sh with ca/, a folder a domain and account.conf. Its settings are shell text, which is never
 * run. */
#include "cli/import.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define WRAP_START "__ACME_BASE64__START_"
#define WRAP_END   "__ACME_BASE64__END_"

/* Settings of one file; an empty object when there is none. */
static json_t *settings(const struct kt_import *import, const char *file)
{
	char *text KT_AUTOFREE = kt_import_text(import, file, NULL);
	json_t *found = NULL;

	if (text == NULL || kt_import_shell(kt_view_str(text), &found, NULL) != KT_OK) {
		return json_object();
	}
	return found;
}

/* The text of a value, unwrapped where acme.sh wrapped it in base64; NULL when absent, empty or "no". kt_free it. */
static char *value_of(const json_t *conf, const char *key)
{
	const char *text = kt_json_str(conf, key);
	struct kt_buf out KT_AUTOBUF = {0};
	size_t len;

	if (text == NULL || text[0] == '\0' || strcmp(text, "no") == 0) {
		return NULL;
	}
	len = strlen(text);
	if (!kt_starts_with(text, WRAP_START) || !kt_ends_with(text, WRAP_END) ||
	    len < sizeof(WRAP_START WRAP_END) - 1) {
		return kt_strdup(text);
	}
	kt_buf_init(&out, KT_IMPORT_FILE_MAX);
	if (kt_base64_decode((struct kt_view){text + sizeof(WRAP_START) - 1, len - (sizeof(WRAP_START WRAP_END) - 1)},
			     &out, NULL) != KT_OK ||
	    out.len == 0 || memchr(out.ptr, '\0', out.len) != NULL || !kt_utf8_valid(kt_buf_view(&out))) {
		return NULL;
	}
	return kt_buf_steal(&out, NULL);
}

/* --- accounts ---------------------------------------------------------------------------------------------- */

/* ca/<host>/<path of the directory>/account.key: the folder names the server. */
static enum kt_code read_account(struct kt_import *import, const char *path, struct kt_err *err)
{
	char *key_file KT_AUTOFREE = kt_import_path(path, "account.key", NULL);
	char *conf_file KT_AUTOFREE = kt_import_path(path, "ca.conf", NULL);
	json_t *conf KT_AUTOJSON = settings(import, conf_file);
	json_t *global KT_AUTOJSON = settings(import, "account.conf");
	struct kt_import_account *account;
	struct kt_secret *key = NULL;
	struct kt_err why;

	kt_err_clear(&why);
	if (strlen(path) < sizeof("ca/x")) {
		return KT_OK;
	}
	if (kt_import_secret(import, key_file, &key, &why) != KT_OK) {
		kt_import_lose(import, key_file, "account", why.what, "an account is made anew at the first order");
		return KT_OK;
	}
	account = kt_import_add_account(import, err);
	if (account == NULL) {
		kt_secret_destroy(key);
		return err->code;
	}
	account->key = key;
	account->from = kt_strdup(key_file);
	account->server = kt_asprintf("https://%s", path + 3);
	account->url = value_of(conf, "ACCOUNT_URL");
	account->email = value_of(conf, "CA_EMAIL");
	if (account->email == NULL) {
		account->email = value_of(global, "ACCOUNT_EMAIL");
	}
	return account->from != NULL && account->server != NULL
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOMEM, "no memory for an account");
}

/* --- DNS providers ----------------------------------------------------------------------------------------- */

static void cloudflare(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf, bool follow)
{
	char *token KT_AUTOFREE = value_of(conf, "SAVED_CF_Token");
	char *key KT_AUTOFREE = value_of(conf, "SAVED_CF_Key");
	char *email KT_AUTOFREE = value_of(conf, "SAVED_CF_Email");

	if (token == NULL && key != NULL && email != NULL) {
		kt_import_credential(import, "cloudflare", "api-key", key, "account.conf");
		kt_import_solve_dns(cert, "cloudflare",
				    json_pack("{s:s,s:{s:s,s:s}}", "email", email, "apiKeySecretRef", "name",
					      "cloudflare", "key", "api-key"),
				    follow);
		return;
	}
	kt_import_credential(import, "cloudflare", "api-token", token, "account.conf");
	kt_import_solve_dns(cert, "cloudflare",
			    json_pack("{s:{s:s,s:s}}", "apiTokenSecretRef", "name", "cloudflare", "key", "api-token"),
			    follow);
}

static void route53(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf, bool follow)
{
	char *id KT_AUTOFREE = value_of(conf, "SAVED_AWS_ACCESS_KEY_ID");
	char *secret KT_AUTOFREE = value_of(conf, "SAVED_AWS_SECRET_ACCESS_KEY");

	kt_import_credential(import, "route53", "access-key-id", id, "account.conf");
	kt_import_credential(import, "route53", "secret-access-key", secret, "account.conf");
	kt_import_solve_dns(cert, "route53",
			    json_pack("{s:{s:s,s:s},s:{s:s,s:s}}", "accessKeyIDSecretRef", "name", "route53", "key",
				      "access-key-id", "secretAccessKeySecretRef", "name", "route53", "key",
				      "secret-access-key"),
			    follow);
}

static void dns(struct kt_import *import, struct kt_import_cert *cert, const char *hook, const json_t *conf,
		bool follow)
{
	char *token KT_AUTOFREE = value_of(conf, "SAVED_DO_API_KEY");

	if (strcmp(hook, "dns_cf") == 0) {
		cloudflare(import, cert, conf, follow);
	} else if (strcmp(hook, "dns_aws") == 0) {
		route53(import, cert, conf, follow);
	} else if (strcmp(hook, "dns_dgon") == 0) {
		kt_import_credential(import, "digitalocean", "access-token", token, "account.conf");
		kt_import_solve_dns(
			cert, "digitalocean",
			json_pack("{s:{s:s,s:s}}", "tokenSecretRef", "name", "digitalocean", "key", "access-token"),
			follow);
	} else {
		kt_import_lose(
			import, cert->from, hook, "acme.sh's hooks are functions of its own shell, not programs",
			strcmp(hook, "dns_nsupdate") == 0
				? "solvers: [{dns01: {rfc2136: {nameserver, tsigKeyName, tsigSecretSecretRef}}}]"
				: "a solver of the same provider, or dns01.exec with a script that writes the record");
	}
}

/* Le_Webroot: one way for all names, or one for each: "no" (standalone), a folder, "dns_cf", "nginx:…", "apache", … */
static void solvers(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf, const json_t *global)
{
	const char *text = kt_json_str(conf, "Le_Webroot");
	char *alias KT_AUTOFREE = value_of(conf, "Le_ChallengeAlias");
	char *domain_alias KT_AUTOFREE = value_of(conf, "Le_DomainAlias");
	json_t *ways KT_AUTOJSON = kt_import_split(text != NULL ? text : "no", ",");
	bool follow = alias != NULL || domain_alias != NULL;
	const char *root = NULL;
	json_t *way;
	size_t i;

	json_array_foreach(ways, i, way)
	{
		const char *name = json_string_value(way);

		if (strcmp(name, "no") == 0) {
			kt_import_solve_http(cert, NULL, NULL);
		} else if (kt_starts_with(name, "dns")) {
			dns(import, cert, name, global, follow);
		} else if (strcmp(name, "alpn") == 0) {
			kt_import_solve_alpn(cert);
		} else if (name[0] == '/' && (root == NULL || strcmp(root, name) == 0)) {
			root = name;
			kt_import_solve_http(cert, root, NULL);
		} else if (name[0] == '/') {
			kt_import_lose(import, cert->from, "Le_Webroot", "an issuer has one webroot",
				       "serve the challenges of all names from %s", root);
		} else {
			kt_import_lose(
				import, cert->from, name, "keyturn does not edit the configuration of a web server",
				"let it serve /.well-known/acme-challenge/ from a folder and name that in annotation "
				"keyturn.dev/http01-webroot");
			kt_import_solve_http(cert, NULL, NULL);
		}
	}
	if (follow) {
		kt_import_note(import,
			       "%s: a CNAME from _acme-challenge to the alias is followed (cnameStrategy: Follow); "
			       "check that it is there",
			       cert->name);
	}
}

/* --- a certificate ----------------------------------------------------------------------------------------- */

static void key_settings(struct kt_import_cert *cert, const json_t *conf)
{
	char *length KT_AUTOFREE = value_of(conf, "Le_Keylength");
	char *fresh KT_AUTOFREE = value_of(conf, "Le_ForceNewDomainKey");
	uint64_t bits = 0;

	if (length != NULL && kt_starts_with(length, "ec-") &&
	    kt_parse_u64(kt_view_str(length + 3), 521, &bits, NULL) == KT_OK) {
		cert->algorithm = "ECDSA";
	} else if (length != NULL && kt_parse_u64(kt_view_str(length), 8192, &bits, NULL) == KT_OK) {
		cert->algorithm = "RSA";
	}
	cert->size = (unsigned)bits;
	cert->keep_key = fresh == NULL || strcmp(fresh, "1") != 0; /* acme.sh keeps the key unless told otherwise */
}

static void hooks(struct kt_import *import, struct kt_import_cert *cert, const json_t *conf)
{
	static const char *const around[] = {"Le_PreHook", "Le_PostHook"};
	static const char *const copies[] = {"Le_RealCertPath", "Le_RealKeyPath", "Le_RealCACertPath",
					     "Le_RealFullChainPath"};
	char *reload = value_of(conf, "Le_ReloadCmd");
	char *renew KT_AUTOFREE = value_of(conf, "Le_RenewHook");
	char *deploy KT_AUTOFREE = value_of(conf, "Le_DeployHook");

	cert->hook = reload;
	cert->hook_field = "Le_ReloadCmd";
	for (size_t i = 0; i < 2; i++) {
		char *line KT_AUTOFREE = value_of(conf, around[i]);

		if (line != NULL) {
			kt_import_lose(import, cert->from, around[i],
				       "nothing has to stop while a certificate is renewed",
				       "nothing where it only made room for port 80 (%.200s)", line);
		}
	}
	if (renew != NULL) {
		kt_import_lose(import, cert->from, "Le_RenewHook", "only one command is taken over",
			       "another notify of a Consumer: %.200s", renew);
	}
	if (deploy != NULL) {
		kt_import_lose(import, cert->from, "Le_DeployHook",
			       "acme.sh's deploy hooks are functions of its own shell",
			       "a Consumer with volumes and notify (%.200s)", deploy);
	}
	for (size_t i = 0; i < 4; i++) {
		char *path KT_AUTOFREE = value_of(conf, copies[i]);

		if (path != NULL) {
			kt_import_lose(
				import, cert->from, copies[i], "files are written as a volume, all at once",
				"a Consumer with a volume, and that path in its server's configuration (so far %.200s)",
				path);
			break;
		}
	}
}

static void other_settings(struct kt_import_cert *cert, const json_t *conf)
{
	char *chain KT_AUTOFREE = value_of(conf, "Le_Preferred_Chain");
	char *profile KT_AUTOFREE = value_of(conf, "Le_CertificateProfile");
	char *staple KT_AUTOFREE = value_of(conf, "Le_OCSP_Staple");

	kt_import_acme_text(cert, "preferredChain", chain);
	kt_import_acme_text(cert, "profile", profile);
	cert->must_staple = staple != NULL && strcmp(staple, "1") == 0;
}

static enum kt_code read_domain(struct kt_import *import, const char *folder, const char *domain, struct kt_err *err)
{
	char *file KT_AUTOFREE = kt_asprintf("%s/%s.conf", folder, domain);
	char *key KT_AUTOFREE = kt_asprintf("%s/%s.key", folder, domain);
	char *chain KT_AUTOFREE = kt_import_path(folder, "fullchain.cer", NULL);
	json_t *conf KT_AUTOJSON = NULL;
	json_t *global KT_AUTOJSON = settings(import, "account.conf");
	char *server KT_AUTOFREE = NULL;
	struct kt_import_cert *cert;

	if (!kt_import_exists(import, file)) {
		return KT_OK;
	}
	conf = settings(import, file);
	cert = kt_import_add_cert(import, domain, file, err);
	if (cert == NULL) {
		return err->code;
	}
	if (!kt_import_material(import, cert, key, chain)) {
		return KT_OK;
	}
	server = value_of(conf, "Le_API");
	cert->account = kt_import_account_for(import, server, NULL);
	solvers(import, cert, conf, global);
	key_settings(cert, conf);
	hooks(import, cert, conf);
	other_settings(cert, conf);
	return KT_OK;
}

static enum kt_code read_all(struct kt_import *import, struct kt_err *err)
{
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code = kt_import_find(import, "ca", "account.key", read_account, err);

	if (code == KT_OK) {
		code = kt_import_list(import, ".", &names, err);
	}
	json_array_foreach(names, i, name)
	{
		const char *folder = json_string_value(name);
		char *domain KT_AUTOFREE = kt_strdup(folder);

		if (code == KT_OK && domain != NULL && kt_ends_with(domain, "_ecc")) {
			domain[strlen(domain) - 4] = '\0';
		}
		code = code == KT_OK && domain != NULL ? read_domain(import, folder, domain, err) : code;
	}
	return code;
}

const struct kt_import_source kt_import_acme_sh = {"acme.sh", "~/.acme.sh", read_all};
