/* import: manifests of what was found: JSON documents first, each checked by the manifest parser, then YAML with
 * comments. */
#include "cli/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "kt/manifest.h"
#include "kt/mem.h"
#include "kt/text.h"

#define YAML_MAX     ((size_t)16 << 20)
#define DURATION_MAX (2160 * KT_HOUR) /* spec.duration's default: renewBefore must be shorter */

/* One document: what it says, and where it came from. */
struct document {
	json_t *value;
	char *comment;
	bool bad; /* refused by the parser: left out */
};

struct making {
	struct kt_import *import;
	const char *ns;
	const char *ca_bundle;
	struct document *items;
	size_t count, room;
	json_t *taken;   /* names that are in use, "Kind/name" */
	json_t *issuers; /* group key: name */
	json_t *hooks;   /* command line: index of its Consumer's document */
	struct kt_import_docs *ret;
};

/* --- names ------------------------------------------------------------------------------------------------- */

/* As Kubernetes wants a name, of at most 60 characters, and not yet in use for the kind. Into out (64 bytes). */
static const char *name_for(struct making *m, const char *kind, const char *text, char out[64])
{
	size_t len = 0;
	char key[128];

	if (kt_starts_with(text, "*.")) {
		len = (size_t)snprintf(out, 64, "wildcard.");
		text += 2;
	}
	for (; *text != '\0' && len < 50; text++) {
		char c = *text >= 'A' && *text <= 'Z' ? (char)(*text + 32) : *text;

		bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			     (c == '.' && len > 0 && out[len - 1] != '.');

		out[len++] = plain ? c : '-';
	}
	while (len > 0 && (out[len - 1] == '-' || out[len - 1] == '.')) {
		len--;
	}
	out[len] = '\0';
	if (!kt_dns1123_subdomain(out)) {
		len = (size_t)snprintf(out, 64, "imported");
	}
	(void)snprintf(key, sizeof(key), "%s/%s", kind, out);
	for (unsigned n = 2; json_object_get(m->taken, key) != NULL; n++) {
		(void)snprintf(out + len, 64 - len, "-%u", n);
		(void)snprintf(key, sizeof(key), "%s/%s", kind, out);
	}
	(void)json_object_set_new(m->taken, key, json_true());
	return out;
}

/* What people call the CA behind a directory URL. */
static void server_name(const char *server, char out[64])
{
	static const struct {
		const char *part, *name;
	} known[] = {{"acme-staging", "letsencrypt-staging"},
		     {"letsencrypt.org", "letsencrypt"},
		     {"zerossl", "zerossl"},
		     {"pki.goog", "google"},
		     {"buypass", "buypass"},
		     {"ssl.com", "ssl-com"}};
	const char *host = strstr(server, "://");
	size_t len;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strstr(server, known[i].part) != NULL) {
			(void)snprintf(out, 64, "%s", known[i].name);
			return;
		}
	}
	host = host != NULL ? host + 3 : server;
	len = strcspn(host, "/:");
	(void)snprintf(out, 64, "%.*s", (int)(len < 50 ? len : 50), host);
}

/* --- documents --------------------------------------------------------------------------------------------- */

static struct document *add(struct making *m, const char *api, const char *kind, const char *name, json_t *annotations,
			    json_t *spec, char *comment)
{
	struct document *item;

	if (m->count == m->room) {
		size_t room = m->room > 0 ? 2 * m->room : 16;
		struct document *items = kt_realloc(m->items, room * sizeof(*items));

		if (items == NULL) {
			json_decref(spec);
			kt_free(comment);
			return NULL;
		}
		m->items = items;
		m->room = room;
	}
	item = &m->items[m->count++];
	*item = (struct document){.comment = comment};
	item->value = json_pack("{s:s,s:s,s:{s:s},s:o}", "apiVersion", api, "kind", kind, "metadata", "name", name,
				"spec", spec);
	if (item->value == NULL) {
		m->count--;
		kt_free(comment);
		return NULL;
	}
	if (strcmp(m->ns, "default") != 0) {
		(void)json_object_set_new(json_object_get(item->value, "metadata"), "namespace", json_string(m->ns));
	}
	if (json_object_size(annotations) > 0) {
		(void)json_object_set(json_object_get(item->value, "metadata"), "annotations", annotations);
	}
	return item;
}

static json_t *acme_of(const struct making *m, const struct kt_import_account *account, const char *name, json_t *more)
{
	char key[80];
	json_t *acme = json_pack("{s:s}", "server", account->server);

	(void)snprintf(key, sizeof(key), "%s-account", name);
	if (account->email != NULL) {
		(void)json_object_set_new(acme, "email", json_string(account->email));
	}
	(void)json_object_set_new(acme, "privateKeySecretRef", json_pack("{s:s}", "name", key));
	if (m->ca_bundle != NULL) {
		(void)json_object_set_new(acme, "caBundle", json_string(m->ca_bundle));
	}
	if (more != NULL) {
		(void)json_object_update(acme, more);
	}
	if (json_object_get(acme, "solvers") == NULL) {
		(void)json_object_set_new(acme, "solvers", json_pack("[{s:{s:{}}}]", "http01", "ingress"));
	}
	return acme;
}

/* True where the keeper's own listener has to answer. */
static void note_listeners(struct kt_import *import, const json_t *acme, bool webroot)
{
	json_t *solver;
	size_t i;

	json_array_foreach(json_object_get(acme, "solvers"), i, solver)
	{
		if (json_object_get(solver, "http01") != NULL && !webroot) {
			kt_import_note(import, "challenges are answered by keyturn itself: the Agent needs "
					       "spec.listeners.http01 (\":80\")");
		}
		if (json_object_get(solver, "tlsAlpn01") != NULL) {
			kt_import_note(import, "challenges are answered by keyturn itself: the Agent needs "
					       "spec.listeners.tlsAlpn01 (\":443\")");
		}
	}
}

/* The issuer of one way to prove names with one account; NULL without memory. The name is owned by m->issuers. */
static const char *issuer_for(struct making *m, size_t index, const struct kt_import_cert *cert)
{
	struct kt_import_account *account = index != KT_IMPORT_NO_ACCOUNT ? &m->import->accounts[index] : NULL;
	struct kt_buf group KT_AUTOBUF = {0};
	char ref[400], name[64], base[64];
	const char *known;
	json_t *spec;

	kt_buf_init(&group, 65536);
	kt_buf_addf(&group, "%zu ", index);
	if (cert != NULL) {
		(void)kt_json_dump(cert->acme, &group, NULL);
		(void)kt_json_dump(cert->annotations, &group, NULL);
	}
	if (kt_buf_check(&group, "issuer", NULL) != KT_OK) {
		return NULL;
	}
	known = kt_json_str(m->issuers, group.ptr);
	if (known != NULL) {
		return known;
	}
	if (account != NULL) {
		server_name(account->server, base);
	} else {
		(void)snprintf(base, sizeof(base), "self-signed");
	}
	(void)name_for(m, "Issuer", base, name);
	spec = account != NULL ? json_pack("{s:o}", "acme", acme_of(m, account, name, cert != NULL ? cert->acme : NULL))
			       : json_pack("{s:{}}", "selfSigned");
	if (add(m, "cert-manager.io/v1", "Issuer", name, cert != NULL ? cert->annotations : NULL, spec,
		account == NULL
			? NULL
			: kt_asprintf("account %s, key from %s", account->url != NULL ? account->url : "without URL",
				      account->from)) == NULL) {
		return NULL;
	}
	if (account != NULL) {
		note_listeners(m->import, json_object_get(spec, "acme"),
			       cert != NULL && json_object_size(cert->annotations) > 0);
		(void)snprintf(ref, sizeof(ref), "Issuer/%s/%s", m->ns, name);
		(void)json_array_append_new(m->ret->accounts, json_pack("{s:s,s:s,s:I}", "issuer", ref, "name", name,
									"account", (json_int_t)index));
	}
	(void)json_object_set_new(m->issuers, group.ptr, json_string(name));
	return kt_json_str(m->issuers, group.ptr);
}

static json_t *private_key(const struct kt_import_cert *cert, const struct kt_import_facts *facts)
{
	const char *algorithm = cert->algorithm != NULL ? cert->algorithm : facts->algorithm;
	unsigned size = cert->algorithm != NULL && cert->size != 0 ? cert->size
			: cert->algorithm != NULL                  ? 0
								   : facts->size;
	json_t *key = json_pack("{s:s}", "algorithm", algorithm != NULL ? algorithm : "ECDSA");

	if (size != 0 && strcmp(algorithm, "Ed25519") != 0) {
		(void)json_object_set_new(key, "size", json_integer(size));
	}
	(void)json_object_set_new(key, "rotationPolicy", json_string(cert->keep_key ? "Never" : "Always"));
	return key;
}

/* The common name counts only where it is none of the names. */
static bool own_common_name(const struct kt_import_facts *facts)
{
	const json_t *lists[] = {facts->dns, facts->ips};
	json_t *name;
	size_t i;

	for (size_t l = 0; l < 2; l++) {
		json_array_foreach(lists[l], i, name)
		{
			if (kt_ascii_ieq(kt_view_str(json_string_value(name)), kt_view_str(facts->common_name))) {
				return false;
			}
		}
	}
	return facts->common_name[0] != '\0';
}

static json_t *certificate_spec(const struct kt_import_cert *cert, const struct kt_import_facts *facts,
				const char *secret, const char *issuer)
{
	json_t *spec =
		json_pack("{s:s,s:{s:s,s:s}}", "secretName", secret, "issuerRef", "kind", "Issuer", "name", issuer);
	char text[32];

	if (own_common_name(facts)) {
		(void)json_object_set_new(spec, "commonName", json_string(facts->common_name));
	}
	if (json_array_size(facts->dns) > 0) {
		(void)json_object_set(spec, "dnsNames", facts->dns);
	}
	if (json_array_size(facts->ips) > 0) {
		(void)json_object_set(spec, "ipAddresses", facts->ips);
	}
	if (cert->renew_before > 0 && cert->renew_before < DURATION_MAX) {
		(void)snprintf(text, sizeof(text), "%lldh", (long long)(cert->renew_before / KT_HOUR));
		(void)json_object_set_new(spec, "renewBefore", json_string(text));
	}
	(void)json_object_set_new(spec, "privateKey", private_key(cert, facts));
	return spec;
}

/* --- hooks ------------------------------------------------------------------------------------------------- */

/* "systemctl reload UNIT" is a job of systemd; everything else a program. */
static json_t *notifier(const json_t *argv)
{
	const char *program = json_string_value(json_array_get(argv, 0));
	const char *verb = json_string_value(json_array_get(argv, 1));
	const char *unit = json_string_value(json_array_get(argv, 2));
	const char *action = verb == NULL                             ? NULL
			     : strcmp(verb, "reload") == 0            ? "Reload"
			     : strcmp(verb, "restart") == 0           ? "Restart"
			     : strcmp(verb, "reload-or-restart") == 0 ? "ReloadOrRestart"
								      : NULL;
	json_t *exec;

	if (kt_ends_with(program, "/systemctl") && action != NULL && unit != NULL && json_array_size(argv) == 3) {
		char *full KT_AUTOFREE = kt_asprintf("%s%s", unit, strchr(unit, '.') == NULL ? ".service" : "");

		return json_pack("{s:{s:s,s:s}}", "systemd", "unit", full, "action", action);
	}
	exec = json_pack("{s:O}", "argv", argv);
	if (geteuid() == 0) { /* as it was run so far */
		(void)json_object_set_new(exec, "user", json_string("root"));
	}
	return json_pack("{s:o}", "exec", exec);
}

/* The Consumer that does what the hook did: one for all certificates with the same command line. */
static void add_hook(struct making *m, const struct kt_import_cert *cert, const char *secret)
{
	json_t *known = json_object_get(m->hooks, cert->hook);
	json_t *argv KT_AUTOJSON = NULL;
	struct kt_err err;
	char name[64];

	kt_err_clear(&err);
	if (known != NULL) {
		json_t *spec = json_object_get(m->items[json_integer_value(known)].value, "spec");

		(void)json_array_append_new(json_object_get(spec, "secrets"), json_string(secret));
		return;
	}
	if (kt_import_argv(cert->hook, &argv, &err) != KT_OK) {
		kt_import_lose(
			m->import, cert->from, cert->hook_field, err.what,
			"a Consumer of secret %s with notify.exec and the absolute path of a script, for: %.300s",
			secret, cert->hook);
		return;
	}
	(void)json_object_set_new(m->hooks, cert->hook, json_integer((json_int_t)m->count));
	(void)add(m, "keyturn.dev/v1alpha1", "Consumer", name_for(m, "Consumer", "after-renewal", name), NULL,
		  json_pack("{s:[s],s:[o]}", "secrets", secret, "notify", notifier(argv)),
		  kt_asprintf("%s of %s, without the variables that %s set for it", cert->hook_field, cert->from,
			      m->import->client));
}

/* --- certificates ------------------------------------------------------------------------------------------ */

static enum kt_code add_certificate(struct making *m, size_t index, struct kt_err *err)
{
	struct kt_import_cert *cert = &m->import->certs[index];
	struct kt_import_facts facts;
	const char *issuer = NULL;
	json_t *annotations KT_AUTOJSON = NULL;
	char name[64], secret[64], text[72];
	struct kt_err why;
	enum kt_code code = KT_OK;

	kt_err_clear(&why);
	if (kt_import_facts(kt_view_str(cert->chain), &facts, &why) != KT_OK) {
		kt_import_lose(m->import, cert->from, cert->name, why.what, "write a Certificate for its names");
	} else if (facts.is_ca || json_array_size(facts.others) > 0 ||
		   (json_array_size(facts.dns) == 0 && json_array_size(facts.ips) == 0 &&
		    facts.common_name[0] == '\0')) {
		kt_import_lose(m->import, cert->from, cert->name,
			       facts.is_ca ? "it is the certificate of a CA"
					   : "it has names that are neither DNS names nor addresses",
			       "write a Certificate with all its fields; see keyturn-manifests(5)");
	} else if (cert->account == KT_IMPORT_NO_ACCOUNT && !cert->self_signed) {
		kt_import_lose(m->import, cert->from, cert->name, "no account of its CA was found",
			       "write an Issuer for the CA and a Certificate for its names");
	} else if ((issuer = issuer_for(m, cert->self_signed ? KT_IMPORT_NO_ACCOUNT : cert->account, cert)) == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
	} else {
		(void)name_for(m, "Certificate", cert->name, name);
		(void)snprintf(text, sizeof(text), "%s-tls", name);
		(void)name_for(m, "Secret", text, secret);
		annotations = cert->must_staple || facts.must_staple
				      ? json_pack("{s:s}", "keyturn.dev/must-staple", "true")
				      : NULL;
		(void)add(m, "cert-manager.io/v1", "Certificate", name, annotations,
			  certificate_spec(cert, &facts, secret, issuer),
			  kt_asprintf("%s, %s", cert->name, cert->from));
		(void)json_array_append_new(m->ret->certs, json_pack("{s:s,s:s,s:I}", "namespace", m->ns, "name", name,
								     "cert", (json_int_t)index));
		if (cert->hook != NULL) {
			add_hook(m, cert, secret);
		}
	}
	kt_import_facts_finish(&facts);
	return code;
}

/* --- the file ---------------------------------------------------------------------------------------------- */

/* A comment on lines of its own; what can't be printed is replaced, so that it stays a comment. */
static void comment(FILE *out, const char *start, const char *text)
{
	(void)fputs(start, out);
	for (; text != NULL && *text != '\0'; text++) {
		(void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
	}
	(void)fputc('\n', out);
}

static void write_document(FILE *out, const struct document *item)
{
	(void)fputs("---\n", out);
	if (item->comment != NULL) {
		comment(out, "# ", item->comment);
	}
	kt_cli_yaml(out, item->value, 0);
}

static enum kt_code seen(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	(void)arg;
	(void)err;
	kt_resource_destroy(resource);
	return KT_OK;
}

/* What the manifest parser says to one document: "" when it takes it. */
static enum kt_code check(const struct document *item, char what[512], struct kt_err *err)
{
	struct kt_report report;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	enum kt_code code;

	what[0] = '\0';
	if (out == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
	}
	write_document(out, item);
	(void)fclose(out);
	kt_report_init(&report);
	code = kt_manifest_read((struct kt_view){text, len}, "import", seen, NULL, &report, err);
	for (uint32_t i = 0; i < report.count && what[0] == '\0'; i++) {
		if (report.items[i].severity == KT_COMPLAINT_ERROR) {
			(void)snprintf(what, 512, "%.500s", report.items[i].text);
		}
	}
	kt_report_finish(&report);
	free(text);
	return code;
}

/* True when the document needs an issuer that was left out. */
static bool orphaned(const struct making *m, const struct document *item)
{
	const char *issuer = kt_json_str(json_object_get(json_object_get(item->value, "spec"), "issuerRef"), "name");

	for (size_t i = 0; issuer != NULL && i < m->count; i++) {
		const json_t *value = m->items[i].value;

		if (m->items[i].bad && strcmp(kt_json_str(value, "kind"), "Issuer") == 0 &&
		    strcmp(kt_json_str(json_object_get(value, "metadata"), "name"), issuer) == 0) {
			return true;
		}
	}
	return false;
}

/* Leaves out state whose manifest was left out. */
static void drop_state(struct kt_import_docs *docs, const char *kind, const char *name)
{
	json_t *list = strcmp(kind, "Issuer") == 0 ? docs->accounts : docs->certs;

	for (size_t i = json_array_size(list); i > 0; i--) {
		if (strcmp(kt_json_str(json_array_get(list, i - 1), "name"), name) == 0) {
			(void)json_array_remove(list, i - 1);
		}
	}
}

static enum kt_code check_all(struct making *m, struct kt_err *err)
{
	char what[512];
	enum kt_code code = KT_OK;

	for (size_t i = 0; i < m->count && code == KT_OK; i++) {
		struct document *item = &m->items[i];
		const char *kind = kt_json_str(item->value, "kind");
		const char *name = kt_json_str(json_object_get(item->value, "metadata"), "name");
		char ref[128];

		code = check(item, what, err);
		if (code == KT_OK && what[0] == '\0' && orphaned(m, item)) {
			(void)snprintf(what, sizeof(what), "its Issuer is not carried over");
		}
		(void)snprintf(ref, sizeof(ref), "%s/%s", kind, name);
		if (code == KT_OK && what[0] != '\0') {
			item->bad = true;
			kt_import_lose(m->import, item->comment != NULL ? item->comment : "", ref, what,
				       "write this manifest by hand");
			if (strcmp(kind, "Consumer") != 0) {
				drop_state(m->ret, kind, name);
			}
		} else if (code == KT_OK) {
			(void)json_array_append_new(m->ret->names, json_string(ref));
		}
	}
	return code;
}

static void write_rest(FILE *out, const struct kt_import *import)
{
	json_t *item;
	size_t i;

	if (json_array_size(import->notes) > 0) {
		(void)fputs("#\n# To do:\n", out);
	}
	json_array_foreach(import->notes, i, item)
	{
		comment(out, "# - ", json_string_value(item));
	}
	if (json_array_size(import->lost) > 0) {
		(void)fputs("#\n# Not carried over:\n", out);
	}
	json_array_foreach(import->lost, i, item)
	{
		char *text KT_AUTOFREE = kt_asprintf("%s: %s: %s", kt_json_str(item, "file"), kt_json_str(item, "what"),
						     kt_json_str(item, "reason"));

		comment(out, "# - ", text);
		if (kt_json_str(item, "instead")[0] != '\0') {
			comment(out, "#   instead: ", kt_json_str(item, "instead"));
		}
	}
	if (import->lost_more > 0) {
		(void)fprintf(out, "# - and %llu more\n", (unsigned long long)import->lost_more);
	}
}

static enum kt_code write_all(struct making *m, struct kt_err *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	bool failed;

	if (out == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
	}
	(void)fprintf(out, "# Made by 'keyturn import %s'. Nothing was ordered for it.\n", m->import->client);
	comment(out, "# From ", m->import->path);
	write_rest(out, m->import);
	for (size_t i = 0; i < m->count; i++) {
		if (!m->items[i].bad) {
			write_document(out, &m->items[i]);
		}
	}
	failed = ferror(out) != 0;
	failed = fclose(out) != 0 || failed || len > YAML_MAX;
	m->ret->yaml = failed ? NULL : kt_strndup(text, len);
	free(text);
	return m->ret->yaml != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
}

enum kt_code kt_import_documents(struct kt_import *import, const char *ns, const char *ca_bundle, json_t *taken,
				 struct kt_import_docs *ret, struct kt_err *err)
{
	struct making m = {.import = import, .ns = ns, .ca_bundle = ca_bundle, .ret = ret};
	bool *used = kt_calloc(import->account_count + 1, sizeof(*used));
	enum kt_code code = KT_OK;

	*ret = (struct kt_import_docs){.accounts = json_array(), .certs = json_array(), .names = json_array()};
	m.taken = taken != NULL ? json_incref(taken) : json_object();
	m.issuers = json_object();
	m.hooks = json_object();
	if (used == NULL || m.taken == NULL || m.issuers == NULL || m.hooks == NULL || ret->accounts == NULL ||
	    ret->certs == NULL || ret->names == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
	}
	for (size_t i = 0; i < import->cert_count && code == KT_OK; i++) {
		code = add_certificate(&m, i, err);
		if (import->certs[i].account != KT_IMPORT_NO_ACCOUNT) {
			used[import->certs[i].account] = true;
		}
	}
	for (size_t i = 0; i < import->account_count && code == KT_OK;
	     i++) { /* one without a certificate is of use too */
		if (!used[i] && issuer_for(&m, i, NULL) == NULL) {
			code = kt_err_set(err, KT_E_NOMEM, "no memory for manifests");
		}
	}
	if (code == KT_OK) {
		code = check_all(&m, err);
	}
	if (code == KT_OK) {
		code = write_all(&m, err);
	}
	for (size_t i = 0; i < m.count; i++) {
		json_decref(m.items[i].value);
		kt_free(m.items[i].comment);
	}
	kt_free(m.items);
	kt_free(used);
	json_decref(m.taken);
	json_decref(m.issuers);
	json_decref(m.hooks);
	return code;
}

void kt_import_docs_finish(struct kt_import_docs *docs)
{
	kt_free(docs->yaml);
	json_decref(docs->accounts);
	json_decref(docs->certs);
	json_decref(docs->names);
	*docs = (struct kt_import_docs){0};
}
