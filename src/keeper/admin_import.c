/*
 * The command import: accounts, certificates with their keys, and secrets that another ACME client made become state.
 *
 * Nothing is ordered. An account is stored under the issuer that will use it; a certificate becomes the active material
 * of its credential. Where the manifests do not have the resource yet, it is adopted as one that is gone: when they
 * bring it, the credential comes to life with the material it has, and its volume is written from that. What is there
 * already stays: a second import changes nothing.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kt/jose.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/admin.h"

#define DOCUMENT_MAX ((size_t)64 << 20)
#define SEALED_MAX   32768u
#define TURN         16u /* objects at once, a transaction each */

/* What was made of one object. */
struct verdict {
	const char *kind, *ns, *name;
	char ns_text[254], name_text[254]; /* where they are parts of a reference */
	const char *outcome;               /* "imported", "unchanged", "refused" */
	char reason[512];
};

/* A command under way: some objects a turn, so that an agent goes on meanwhile. */
struct kt_admin_import {
	struct kt_session *session;
	struct kt_keeper *keeper;
	json_t *document;
	const char *client; /* "certbot", for the audit */
	json_t *specs;      /* "Kind/ns/name" to the canonical JSON of each Certificate */
	size_t list, at;    /* what comes next: of which list, and where in it */
	char trace[33];
	char actor[32];
	uint64_t imported, unchanged, refused;
};

static void say(struct kt_admin_import *import, const struct verdict *verdict)
{
	import->imported += verdict->outcome[0] == 'i';
	import->unchanged += verdict->outcome[0] == 'u';
	import->refused += verdict->outcome[0] == 'r';
	kt_session_row(import->session,
		       json_pack("{s:s,s:s,s:s,s:s,s:s}", "kind", verdict->kind, "namespace", verdict->ns, "name",
				 verdict->name, "outcome", verdict->outcome, "reason", verdict->reason));
}

static enum kt_code audit(struct kt_admin_import *import, struct kt_audit_event *event, struct kt_err *err)
{
	event->trace_id = import->trace;
	event->actor = import->actor;
	event->outcome = "ok";
	return kt_keeper_audit(import->keeper, event, err);
}

/* --- accounts -------------------------------------------------------------------------------------------------------
 */

static enum kt_code read_key(const json_t *object, struct kt_key **ret, struct kt_err *err)
{
	const char *text = kt_json_str(object, "key");
	const char *format = kt_json_str(object, "format");

	if (text == NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no key");
	}
	return format != NULL && strcmp(format, "jwk") == 0 ? kt_jose_jwk_private(kt_view_str(text), ret, err)
							    : kt_pki_key_from_pem(kt_view_str(text), ret, err);
}

static bool good_url(const char *url)
{
	return url != NULL && (kt_starts_with(url, "https://") || kt_starts_with(url, "http://")) &&
	       strlen(url) < 2000 && strpbrk(url, " \t\r\n\"<>\\") == NULL;
}

/* "Issuer/ns/name" into its parts; what they hold is checked where the manifests are parsed. */
static bool split_ref(const char *ref, char kind[32], char ns[254], char name[254])
{
	return ref != NULL && sscanf(ref, "%31[A-Za-z]/%253[a-z0-9.-]/%253[a-z0-9.-]", kind, ns, name) == 3;
}

/* KT_E_EXISTS with what is there; KT_OK with the same key: nothing to do (*ret_same). */
static enum kt_code compare_account(struct kt_admin_import *import, const struct kt_key *key, const char *ref,
				    const char *server, bool *ret_same, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_account_seal_id(ref, server);
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_key *known KT_AUTOKEY = NULL;
	struct kt_store_account row;
	enum kt_code code = kt_store_account_get(import->keeper->store, ref, server, &row, NULL);

	*ret_same = false;
	if (code == KT_E_NOTFOUND) {
		return KT_OK;
	}
	if (code != KT_OK) {
		return kt_err_set(err, code, "the accounts can't be read");
	}
	code = kt_keys_unseal(import->keeper->keys, &id, row.sealed_key, &der, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(der), &known, err);
	}
	if (code == KT_OK && !kt_pki_key_same_public(known, key)) {
		code = kt_err_set(err, KT_E_EXISTS, "%s has another account at %s already%s%.300s: it stays", ref,
				  server, row.account_url[0] != '\0' ? ", " : "", row.account_url);
	}
	*ret_same = code == KT_OK;
	kt_store_account_finish(&row);
	return code;
}

static enum kt_code put_account(struct kt_admin_import *import, const json_t *object, const struct kt_key *key,
				struct kt_err *err)
{
	struct kt_keeper *keeper = import->keeper;
	const char *ref = kt_json_str(object, "issuer");
	const char *server = kt_json_str(object, "server");
	const char *url = kt_json_str(object, "url");
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_seal_id id = kt_store_account_seal_id(ref, server);
	struct kt_store_account row = {.issuer = ref,
				       .server_url = server,
				       .account_url = url != NULL ? url : "",
				       .status = url != NULL ? "valid" : "new",
				       .created = kt_keeper_now(keeper)};
	char kind[32], ns[254], name[254];
	char reason[300];
	struct kt_audit_event event = {.kind = kind,
				       .ns = ns,
				       .name = name,
				       .step = "account.imported",
				       .reason = reason,
				       .server_address = server};
	enum kt_code code;

	(void)split_ref(ref, kind, ns, name);
	(void)snprintf(reason, sizeof(reason), "from %s, account %.200s", import->client,
		       url != NULL ? url : "without URL");
	kt_buf_init(&sealed, SEALED_MAX);
	code = kt_pki_key_to_der(key, KT_KEY_PKCS8, &der, err);
	if (code == KT_OK) {
		code = kt_keys_seal(keeper->keys, &id, kt_secret_view(der), &sealed, err);
	}
	if (code == KT_OK) {
		row.sealed_key = kt_buf_view(&sealed);
		code = kt_store_account_put(keeper->store, &row, err);
	}
	return code == KT_OK ? audit(import, &event, err) : code;
}

static enum kt_code import_account(struct kt_admin_import *import, const json_t *object, struct verdict *ret,
				   struct kt_err *err)
{
	const char *ref = kt_json_str(object, "issuer");
	const char *server = kt_json_str(object, "server");
	const char *url = kt_json_str(object, "url");
	struct kt_key *key KT_AUTOKEY = NULL;
	char kind[32];
	bool same = false;
	enum kt_code code;

	if (!split_ref(ref, kind, ret->ns_text, ret->name_text)) {
		return kt_err_set(err, KT_E_INVALID, "an account names no issuer");
	}
	ret->kind = "Account";
	ret->ns = ret->ns_text;
	ret->name = ret->name_text;
	if (!good_url(server) || (url != NULL && !good_url(url))) {
		return kt_err_set(err, KT_E_INVALID, "the URL of the server or of the account is none");
	}
	code = read_key(object, &key, err);
	if (code == KT_OK) {
		code = compare_account(import, key, ref, server, &same, err);
	}
	if (code == KT_OK && !same) {
		code = put_account(import, object, key, err);
	}
	if (code == KT_OK) {
		ret->outcome = same ? "unchanged" : "imported";
		(void)snprintf(ret->reason, sizeof(ret->reason), "%.400s",
			       url != NULL ? url : "the CA is asked for its URL by the key");
	}
	return code;
}

/* --- certificates ------------------------------------------------------------------------------------------ */

/* What is to be stored, once it has been checked. */
struct pair {
	struct kt_key *key;
	struct kt_chain *chain;
	const struct kt_cert *leaf; /* of the chain */
	struct kt_buf chain_pem, root_pem;
};

static void pair_finish(struct pair *pair)
{
	kt_pki_key_destroy(pair->key);
	kt_pki_chain_destroy(pair->chain);
	kt_buf_finish(&pair->chain_pem);
	kt_buf_finish(&pair->root_pem);
}

/* Key and certificate belong together, its names are those of the manifest, its dates are good, the chain holds. */
static enum kt_code check_pair(struct kt_admin_import *import, const json_t *object, const struct kt_resource *spec,
			       struct pair *pair, struct kt_err *err)
{
	struct kt_spec_request request;
	struct kt_issue_expect expect = {.now = kt_keeper_now(import->keeper), .min_remaining = KT_MINUTE};
	const char *chain = kt_json_str(object, "chain");
	enum kt_code code = read_key(object, &pair->key, err);

	kt_buf_init(&pair->chain_pem, KT_PKI_CHAIN_BYTES_MAX);
	kt_buf_init(&pair->root_pem, KT_PKI_CHAIN_BYTES_MAX);
	if (code == KT_OK) {
		code = kt_pki_chain_parse(kt_view_str(chain), &pair->chain, err);
	}
	if (code != KT_OK) {
		return code;
	}
	code = kt_spec_request_init(&spec->certificate, &request, err);
	if (code == KT_OK) {
		request.request.subject_count = 0; /* the CA decides on it */
		request.request.literal_subject = NULL;
		expect.key = pair->key;
		expect.request = &request.request;
		code = kt_pki_check_issued(pair->chain, &expect, err);
	}
	kt_spec_request_finish(&request);
	if (code == KT_OK) {
		code = kt_pki_chain_split(pair->chain, &pair->chain_pem, &pair->root_pem, err);
	}
	pair->leaf = kt_pki_chain_at(pair->chain, 0);
	return code;
}

/* The material as the first of its credential; *cred is that row, to be written by the caller. */
static enum kt_code put_material(struct kt_admin_import *import, const struct kt_store_resource *resource,
				 const struct pair *pair, struct kt_store_cred *cred, struct kt_err *err)
{
	struct kt_keeper *keeper = import->keeper;
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_seal_id id;
	struct kt_store_material row = {.credential = resource->id,
					.revision = ++cred->revision,
					.state = KT_MATERIAL_CURRENT,
					.request_key = resource->request_key,
					.chain = kt_buf_view(&pair->chain_pem),
					.ca = kt_buf_view(&pair->root_pem),
					.serial = kt_pki_cert_serial(pair->leaf),
					.sha256 = kt_pki_cert_sha256(pair->leaf),
					.not_before = kt_pki_cert_not_before(pair->leaf),
					.not_after = kt_pki_cert_not_after(pair->leaf),
					.created = kt_keeper_now(keeper)};
	enum kt_code code;

	row.issued = row.not_before < row.created ? row.not_before : row.created;
	kt_buf_init(&sealed, SEALED_MAX);
	id = kt_store_material_seal_id(resource, row.revision, "key");
	code = kt_pki_key_to_der(pair->key, KT_KEY_PKCS8, &der, err);
	if (code == KT_OK) {
		code = kt_keys_seal(keeper->keys, &id, kt_secret_view(der), &sealed, err);
	}
	if (code == KT_OK) {
		row.sealed_key = kt_buf_view(&sealed);
		code = kt_store_material_insert(keeper->store, &row, err);
	}
	cred->active = row.id;
	cred->expiry = row.not_after;
	return code;
}

/* Writes credential, material and record. The resource is in the store. */
static enum kt_code put_certificate(struct kt_admin_import *import, const struct kt_store_resource *resource,
				    const char *secret_name, const struct pair *pair, struct kt_store_cred *cred,
				    struct kt_err *err)
{
	char reason[64];
	struct kt_audit_event event = {.kind = resource->kind,
				       .ns = resource->ns,
				       .name = resource->name,
				       .step = "imported",
				       .reason = reason,
				       .serial = kt_pki_cert_serial(pair->leaf),
				       .sha256 = kt_pki_cert_sha256(pair->leaf),
				       .not_after = kt_pki_cert_not_after(pair->leaf)};
	enum kt_code code;

	(void)snprintf(reason, sizeof(reason), "from %.32s", import->client);
	cred->id = resource->id;
	cred->kind = KT_KIND_CERT;
	cred->secret_name = secret_name;
	cred->flags = KT_CRED_REDELIVER | (resource->gone ? KT_CRED_ORPHAN : 0);
	cred->due_at = resource->gone ? 0 : kt_keeper_now(import->keeper);
	cred->step = KT_STEP_RETIRED;
	cred->step_at = kt_keeper_now(import->keeper);
	cred->attempts = 0;
	cred->next_try = 0;
	cred->error = KT_OK;
	cred->error_text = NULL;
	code = kt_store_cred_put(import->keeper->store, cred, err); /* before its material */
	if (code == KT_OK) {
		code = put_material(import, resource, pair, cred, err);
	}
	if (code == KT_OK) {
		code = kt_store_cred_put(import->keeper->store, cred, err);
	}
	event.revision = cred->revision;
	return code == KT_OK ? audit(import, &event, err) : code;
}

/* The resource as it is in force, or adopted from the manifest that came along. *ret_spec: kt_resource_destroy. */
static enum kt_code find_resource(struct kt_admin_import *import, const char *ns, const char *name,
				  struct kt_store_resource *ret, struct kt_resource **ret_spec, char request_key[65],
				  struct kt_err *err)
{
	char *ref KT_AUTOFREE = kt_asprintf("Certificate/%s/%s", ns, name);
	const char *json = ref != NULL ? kt_json_str(import->specs, ref) : NULL;
	enum kt_code code = kt_store_resource_find(import->keeper->store, "Certificate", ns, name, ret, err);

	if (code == KT_OK) {
		return kt_load_spec(ret, ret_spec, err);
	}
	if (code != KT_E_NOTFOUND) {
		return code;
	}
	kt_err_clear(err);
	if (json == NULL) {
		return kt_err_set(err, KT_E_INVALID, "no manifest has it");
	}
	code = kt_resource_from_json(KT_RES_CERTIFICATE, kt_view_str(json), ret_spec, err);
	if (code == KT_OK) {
		code = kt_spec_request_key(*ret_spec, request_key, err);
	}
	*ret = (struct kt_store_resource){.kind = "Certificate",
					  .ns = ns,
					  .name = name,
					  .spec = kt_view_str(json),
					  .request_key = request_key,
					  .gone = true};
	return code;
}

/* KT_OK: there is nothing in place yet. KT_E_EXISTS: it has its own, and *ret says whether it is this very one. */
static enum kt_code look_at_credential(struct kt_admin_import *import, const struct kt_store_resource *resource,
				       const struct pair *pair, struct kt_store_cred *cred, bool *ret_same,
				       struct kt_err *err)
{
	struct kt_store *store = import->keeper->store;
	struct kt_store_material active;
	enum kt_code code = resource->id != 0 ? kt_store_cred_get(store, resource->id, cred, NULL) : KT_E_NOTFOUND;

	*ret_same = false;
	if (code == KT_E_NOTFOUND) {
		*cred = (struct kt_store_cred){0};
		return KT_OK;
	}
	if (code != KT_OK) {
		return kt_err_set(err, code, "its credential can't be read");
	}
	if (kt_rotate_find(import->keeper, resource->id) != NULL || cred->candidate != 0) {
		return kt_err_set(err, KT_E_LATER, "it is being issued just now: its own certificate comes");
	}
	if (cred->active == 0) {
		return KT_OK;
	}
	code = kt_store_material_get(store, cred->active, &active, err);
	if (code == KT_OK) {
		*ret_same = strcmp(active.sha256, kt_pki_cert_sha256(pair->leaf)) == 0;
		kt_store_material_finish(&active);
		code = kt_err_set(err, KT_E_EXISTS, "it has a certificate of its own already: that stays");
	}
	return code;
}

static enum kt_code import_certificate(struct kt_admin_import *import, const json_t *object, struct verdict *ret,
				       struct kt_err *err)
{
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	struct kt_resource *spec = NULL;
	struct pair pair = {0};
	char request_key[65];
	bool same = false;
	enum kt_code code;

	ret->kind = "Certificate";
	ret->ns = kt_json_str(object, "namespace");
	ret->name = kt_json_str(object, "name");
	code = find_resource(import, ret->ns, ret->name, &resource, &spec, request_key, err);
	if (code == KT_OK) {
		code = check_pair(import, object, spec, &pair, err);
	}
	if (code == KT_OK) {
		code = look_at_credential(import, &resource, &pair, &cred, &same, err);
	}
	if (code == KT_OK && resource.id == 0) {
		code = kt_store_resource_adopt(import->keeper->store, &resource, &resource.id, err);
	}
	if (code == KT_OK) {
		code = put_certificate(import, &resource, spec->certificate.secret_name, &pair, &cred, err);
	}
	if (code == KT_OK || code == KT_E_EXISTS) { /* a later renewal of our own is no failure of a second import */
		ret->outcome = code == KT_OK ? "imported" : "unchanged";
		(void)snprintf(ret->reason, sizeof(ret->reason), "%.400s",
			       code == KT_OK || same ? kt_pki_cert_serial(pair.leaf) : err->what);
		kt_err_clear(err);
		code = KT_OK;
	}
	pair_finish(&pair);
	kt_resource_destroy(spec);
	kt_store_cred_finish(&cred);
	if (resource.mem != NULL) {
		kt_store_resource_finish(&resource);
	}
	return code;
}

/* --- secrets ----------------------------------------------------------------------------------------------- */

static enum kt_code import_secret(struct kt_admin_import *import, const json_t *object, struct verdict *ret,
				  struct kt_err *err)
{
	struct kt_keeper *keeper = import->keeper;
	const char *key = kt_json_str(object, "key");
	const char *value = kt_json_str(object, "value");
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_store_secret row = {.key = key, .source = KT_SECRET_COMMAND, .updated = kt_keeper_now(keeper)};
	struct kt_audit_event event = {.kind = "Secret", .step = "secret.set", .reason = key};
	struct kt_seal_id id;
	enum kt_code code;

	ret->kind = "Secret";
	ret->ns = row.ns = event.ns = kt_json_str(object, "namespace");
	ret->name = row.name = event.name = kt_json_str(object, "name");
	if (key == NULL || value == NULL || value[0] == '\0' || !kt_dns1123_subdomain(ret->name)) {
		return kt_err_set(err, KT_E_INVALID, "a secret needs a name, a key and a value");
	}
	(void)snprintf(ret->reason, sizeof(ret->reason), "%.250s", key);
	code = kt_store_secret_get(keeper->store, row.ns, row.name, key, &row, NULL);
	kt_store_secret_finish(&row);
	if (code == KT_OK) {
		ret->outcome = "unchanged";
		return KT_OK;
	}
	row = (struct kt_store_secret){.ns = ret->ns,
				       .name = ret->name,
				       .key = key,
				       .source = KT_SECRET_COMMAND,
				       .updated = kt_keeper_now(keeper)};
	kt_buf_init(&sealed, KT_ADMIN_REQUEST_MAX);
	id = kt_store_secret_seal_id(row.ns, row.name, key);
	code = kt_keys_seal(keeper->keys, &id, kt_view_str(value), &sealed, err);
	if (code == KT_OK) {
		row.sealed = kt_buf_view(&sealed);
		code = kt_store_secret_put(keeper->store, &row, err);
	}
	ret->outcome = "imported";
	return code == KT_OK ? audit(import, &event, err) : code;
}

/* --- the command ------------------------------------------------------------------------------------------- */

typedef enum kt_code import_fn(struct kt_admin_import *import, const json_t *object, struct verdict *ret,
			       struct kt_err *err);

/* One object in a transaction of its own: what is wrong with it holds up no other. */
static enum kt_code import_one(struct kt_admin_import *import, import_fn *fn, const json_t *object, struct kt_err *err)
{
	struct kt_store *store = import->keeper->store;
	struct verdict verdict = {.kind = "?", .ns = "", .name = "", .outcome = "refused"};
	enum kt_code code = kt_store_begin(store, err);

	if (code != KT_OK) {
		return code;
	}
	code = fn(import, object, &verdict, err);
	code = kt_store_end(store, code, err);
	if (code == KT_E_NOMEM || code == KT_E_SYS || code == KT_E_CORRUPT) { /* not the fault of the object */
		return code;
	}
	if (code != KT_OK) {
		verdict.outcome = "refused";
		(void)snprintf(verdict.reason, sizeof(verdict.reason), "%.500s", err->what);
		kt_err_clear(err);
	}
	verdict.ns = verdict.ns != NULL ? verdict.ns : "";
	verdict.name = verdict.name != NULL ? verdict.name : "";
	say(import, &verdict);
	return KT_OK;
}

static enum kt_code keep_spec(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct kt_admin_import *import = arg;
	char *ref KT_AUTOFREE =
		kt_asprintf("%s/%s/%s", kt_kind_name(resource->kind), resource->meta.ns, resource->meta.name);
	struct kt_buf json KT_AUTOBUF = {0};
	enum kt_code code = KT_OK;

	kt_buf_init(&json, KT_MANIFEST_DOC_MAX * 2);
	if (resource->kind == KT_RES_CERTIFICATE) {
		code = kt_resource_to_json(resource, &json, err);
	}
	if (code == KT_OK && resource->kind == KT_RES_CERTIFICATE &&
	    (ref == NULL || json_object_set_new(import->specs, ref, json_stringn(json.ptr, json.len)) != 0)) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for the manifests");
	}
	kt_resource_destroy(resource);
	return code;
}

static enum kt_code read_manifests(struct kt_admin_import *import, const char *text, struct kt_err *err)
{
	struct kt_report report;
	enum kt_code code;

	kt_report_init(&report);
	code = kt_manifest_read(kt_view_str(text), "import", keep_spec, import, &report, err);
	if (code == KT_OK) {
		code = kt_report_check(&report, err);
	}
	kt_report_finish(&report);
	return code;
}

/* The document behind the descriptor: {"client", "manifests", "accounts", "certificates", "secrets"}. */
static enum kt_code read_document(int fd, json_t **ret, struct kt_err *err)
{
	struct stat info;
	enum kt_code code;
	void *map;

	if (fd < 0 || fstat(fd, &info) != 0 || info.st_size <= 0 || (size_t)info.st_size > DOCUMENT_MAX) {
		return kt_err_set(err, KT_E_INVALID, "import needs a document of at most %zu MiB", DOCUMENT_MAX >> 20);
	}
	if ((fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE)) {
		return kt_err_set(err, KT_E_INVALID, "the document of an import is a sealed memory file");
	}
	map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED) {
		return kt_err_sys(err, "the document of the import can't be read");
	}
	code = kt_json_parse((struct kt_view){map, (size_t)info.st_size}, DOCUMENT_MAX, ret, err);
	munmap(map, (size_t)info.st_size);
	return code;
}

/* Secrets and accounts come before the certificates that need them. */
static const struct {
	const char *name;
	import_fn *fn;
} lists[] = {{"secrets", import_secret}, {"accounts", import_account}, {"certificates", import_certificate}};
#define LISTS (sizeof(lists) / sizeof(lists[0]))

static void more_import(struct kt_session *session)
{
	struct kt_admin_import *import = session->import;
	unsigned done = 0;
	struct kt_err err;

	kt_err_clear(&err);
	while (import->list < LISTS && done < TURN && kt_session_room(session)) {
		const json_t *list = json_object_get(import->document, lists[import->list].name);

		if (import->at >= json_array_size(list)) {
			import->list++;
			import->at = 0;
		} else if (import_one(import, lists[import->list].fn, json_array_get(list, import->at++), &err) !=
			   KT_OK) {
			kt_session_fail(session, &err);
			return;
		} else {
			done++;
		}
	}
	if (import->list < LISTS) {
		return; /* the rest at the next turn */
	}
	kt_rotate_kick(session->keeper); /* what is in force already is delivered now */
	kt_session_end(session, import->refused > 0 ? 1 : 0,
		       json_pack("{s:I,s:I,s:I}", "imported", (json_int_t)import->imported, "unchanged",
				 (json_int_t)import->unchanged, "refused", (json_int_t)import->refused));
}

void kt_admin_import_destroy(struct kt_admin_import *import)
{
	if (import != NULL) {
		json_decref(import->document);
		json_decref(import->specs);
		kt_free(import);
	}
}

static enum kt_code begin(struct kt_session *session, struct kt_err *err)
{
	struct kt_admin_import *import = kt_calloc(1, sizeof(*import));
	const char *manifests;
	enum kt_code code;

	if (import == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an import");
	}
	session->import = import; /* goes with the session */
	import->session = session;
	import->keeper = session->keeper;
	import->specs = json_object();
	(void)kt_audit_trace_id(kt_keeper_now(session->keeper), import->trace);
	(void)snprintf(import->actor, sizeof(import->actor), "uid:%u", session->uid);
	code = read_document(session->passed_fd, &import->document, err);
	if (code != KT_OK) {
		return code;
	}
	import->client = kt_json_str(import->document, "client");
	manifests = kt_json_str(import->document, "manifests");
	if (import->client == NULL || manifests == NULL || import->specs == NULL) {
		return kt_err_set(err, KT_E_INVALID, "the document of the import lacks a member");
	}
	return read_manifests(import, manifests, err);
}

void kt_command_import(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (begin(session, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	session->more = more_import;
	more_import(session);
}
