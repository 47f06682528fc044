/* Reads files of manifests document by document, and turns resources into their stored form and back. */
#include <string.h>

#include "kt/foreign.h"
#include "kt/json.h"
#include "kt/manifest.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/field.h"

#define TREE_CHUNK ((size_t)64 * 1024)
#define LIST_DEPTH 2 /* a List in a List is enough */

struct reader {
	const char *file;
	kt_manifest_fn *on_resource;
	void *arg;
	struct kt_report *report;
};

/* --- kinds ----------------------------------------------------------------------------------------------------------
 */

const char *kt_kind_name(enum kt_kind kind)
{
	return kind < KT_RES_COUNT ? kt_kind_infos[kind].name : "?";
}

const char *kt_kind_api_version(enum kt_kind kind)
{
	return kind < KT_RES_COUNT ? kt_kind_infos[kind].api_version : "";
}

bool kt_kind_namespaced(enum kt_kind kind)
{
	return kind < KT_RES_COUNT && kt_kind_infos[kind].namespaced;
}

enum kt_kind kt_kind_from_name(const char *name)
{
	for (int i = KT_RES_NONE + 1; i < KT_RES_COUNT; i++) {
		if (kt_ascii_ieq(kt_view_str(name), kt_view_str(kt_kind_infos[i].name)))
			return (enum kt_kind)i;
	}
	return KT_RES_NONE;
}

const char *kt_pairs_get(const struct kt_pairs *pairs, const char *key)
{
	for (uint32_t i = 0; pairs && i < pairs->count; i++) {
		if (!strcmp(pairs->items[i].key, key))
			return pairs->items[i].value;
	}
	return NULL;
}

uint32_t kt_resource_line(const struct kt_resource *resource, const char *path)
{
	return resource->tree ? kt_node_find(resource->tree, path)->line : resource->line;
}

/* --- resources -------------------------------------------------------------------------------------------------------
 */

void kt_resource_destroy(struct kt_resource *resource)
{
	struct kt_arena arena;

	if (!resource)
		return;
	/* The resource and the arena's own record lie in the arena. */
	arena = *resource->arena;
	kt_arena_finish(&arena);
}

/* A zeroed resource that lies in its own arena with room for `cost` more bytes. */
static struct kt_resource *resource_create(size_t cost, const char *file)
{
	struct kt_arena arena = {0};
	struct kt_resource *resource;

	kt_arena_reserve(&arena, sizeof(*resource) + sizeof(struct kt_arena) + cost + (file ? strlen(file) + 8 : 0));
	resource = kt_arena_alloc(&arena, sizeof(*resource));
	if (resource)
		resource->arena = kt_arena_alloc(&arena, sizeof(struct kt_arena));
	if (!resource || !resource->arena) {
		kt_arena_finish(&arena);
		return NULL;
	}
	*resource->arena = arena;
	resource->file = file ? kt_arena_str(resource->arena, file, strlen(file)) : NULL;
	return resource;
}

static void decode_top(struct kt_resource *resource, enum kt_kind kind, const struct kt_node *root, const char *file,
		       struct kt_report *report, unsigned *ret_errors)
{
	struct kt_decoder d = {
		.arena = resource->arena,
		.report = report,
		.file = file,
		.line = root ? root->line : 0,
		.resource = resource,
		.kind = &kt_kind_infos[kind],
	};
	struct kt_arena *arena = resource->arena;
	struct kt_resource keep;

	resource->kind = kind;
	resource->line = root ? root->line : 0;
	keep = *resource;
	kt_decode(&d, d.kind->top, root, resource);
	/* Defaults are set row by row, so nothing but rows was touched; these are none. */
	resource->kind = keep.kind;
	resource->arena = arena;
	*ret_errors = d.errors;
}

static void unknown_kind(const struct reader *r, const struct kt_node *root, const struct kt_node *api,
			 const struct kt_node *kind)
{
	const char *names[KT_RES_COUNT + 1], *near;
	size_t count = 0;
	static const char *const made[] = {"CertificateRequest", "CertificateSigningRequest", "Order", "Challenge",
					   NULL};

	for (size_t i = 0; made[i]; i++) {
		if (!strcmp(kind->text, made[i])) {
			kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, kind->line,
				      "kind (%s) is made by a controller, not written by hand; remove it, keyturn "
				      "keeps its own state",
				      kind->text);
			return;
		}
	}
	for (int i = KT_RES_NONE + 1; i < KT_RES_COUNT; i++)
		names[count++] = kt_kind_infos[i].name;
	names[count] = NULL;
	near = kt_nearest(kind->text, names);
	kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, root == kind ? root->line : kind->line,
		      "kind (%.64s) of apiVersion %.64s is not one that keyturn handles%s%s%s", kind->text, api->text,
		      near ? ", did you mean " : "; keep it in another folder", near ? near : "", near ? "?" : "");
}

/* The kind of a document; KT_RES_NONE after a complaint. */
static enum kt_kind find_kind(const struct reader *r, const struct kt_node *root)
{
	const struct kt_node *api = kt_node_get(root, "apiVersion"), *kind = kt_node_get(root, "kind");
	enum kt_kind found;

	if (!api || api->type != KT_NODE_STRING || !api->len) {
		kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, api ? api->line : root->line,
			      "apiVersion is required, such as cert-manager.io/v1");
		return KT_RES_NONE;
	}
	if (!kind || kind->type != KT_NODE_STRING || !kind->len) {
		kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, kind ? kind->line : root->line,
			      "kind is required, such as Certificate");
		return KT_RES_NONE;
	}
	found = kt_kind_from_name(kind->text);
	if (found == KT_RES_NONE || strcmp(kt_kind_infos[found].name, kind->text) != 0) {
		unknown_kind(r, root, api, kind);
		return KT_RES_NONE;
	}
	if (strcmp(kt_kind_infos[found].api_version, api->text) != 0) {
		kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, api->line,
			      "apiVersion (%.64s) must be %s for kind %s", api->text, kt_kind_infos[found].api_version,
			      kind->text);
		return KT_RES_NONE;
	}
	return found;
}

static enum kt_code read_one(struct reader *r, const struct kt_node *root, struct kt_err *err)
{
	enum kt_kind kind = find_kind(r, root);
	struct kt_resource *resource;
	unsigned errors = 0;
	enum kt_code code;

	if (kind == KT_RES_NONE)
		return KT_OK;
	resource = resource_create(kt_node_cost(root), r->file);
	if (!resource)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", r->file);
	decode_top(resource, kind, root, r->file, r->report, &errors);
	if (resource->arena->failed || !resource->file) {
		kt_resource_destroy(resource);
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", r->file);
	}
	if (errors) {
		kt_resource_destroy(resource);
		return KT_OK;
	}
	resource->tree = root;
	code = r->on_resource(r->arg, resource, err);
	return code;
}

static enum kt_code read_tree(struct reader *r, const struct kt_node *root, unsigned depth, struct kt_err *err)
{
	const struct kt_node *kind = kt_node_get(root, "kind"), *items = kt_node_get(root, "items");
	enum kt_code code = KT_OK;

	if (root->type == KT_NODE_NULL || kt_foreign_is(root))
		return KT_OK; /* nothing, or what only `check` reads, for itself */
	if (root->type != KT_NODE_MAP) {
		kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, root->line,
			      "a document must be an object with apiVersion and kind, not %s",
			      kt_node_type_name(root->type));
		return KT_OK;
	}
	if (!kind || kind->type != KT_NODE_STRING || strcmp(kind->text, "List") != 0)
		return read_one(r, root, err);
	if (depth >= LIST_DEPTH || !items || items->type != KT_NODE_LIST) {
		kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, kind->line,
			      "a List must have items, and no Lists within Lists");
		return KT_OK;
	}
	for (const struct kt_node *field = root->first; field; field = field->next) {
		if (strcmp(field->key, "apiVersion") && strcmp(field->key, "kind") && strcmp(field->key, "items") &&
		    strcmp(field->key, "metadata"))
			kt_report_add(r->report, KT_COMPLAINT_ERROR, r->file, field->line,
				      "%.64s is not a field of a List; remove it", field->key);
	}
	for (const struct kt_node *item = items->first; item && code == KT_OK; item = item->next)
		code = read_tree(r, item, depth + 1, err);
	return code;
}

static enum kt_code on_document(void *arg, const struct kt_node *root, struct kt_err *err)
{
	return read_tree(arg, root, 0, err);
}

enum kt_code kt_manifest_read(struct kt_view text, const char *file, kt_manifest_fn *on_resource, void *arg,
			      struct kt_report *report, struct kt_err *err)
{
	struct reader r = {.file = file, .on_resource = on_resource, .arg = arg, .report = report};
	struct kt_arena arena = {0};
	enum kt_code code = KT_OK;
	uint32_t line = 1;

	if (text.len > KT_MANIFEST_FILE_MAX) {
		kt_report_add(report, KT_COMPLAINT_ERROR, file, 0,
			      "the file has %zu bytes, at most %zu are accepted; split it", text.len,
			      KT_MANIFEST_FILE_MAX);
		return KT_OK;
	}
	if (text.len >= 3 && !memcmp(text.ptr, "\xef\xbb\xbf", 3)) {
		text.ptr += 3;
		text.len -= 3;
	}
	kt_arena_reserve(&arena, TREE_CHUNK);
	while (text.len && code == KT_OK) {
		size_t len = kt_yaml_document_len(text);

		code = kt_yaml_slice((struct kt_view){text.ptr, len}, line, file, &arena, on_document, &r, report, err);
		for (const char *at = text.ptr, *end = text.ptr + len; (at = memchr(at, '\n', (size_t)(end - at)));
		     at++)
			line++;
		text.ptr += len;
		text.len -= len;
	}
	kt_arena_finish(&arena);
	return code;
}

/* --- stored form
 * ------------------------------------------------------------------------------------------------------- */

enum kt_code kt_resource_from_json(enum kt_kind kind, struct kt_view json, struct kt_resource **ret, struct kt_err *err)
{
	KT_AUTOJSON json_t *value = NULL;
	struct kt_resource *resource = NULL;
	struct kt_arena arena = {0};
	struct kt_report report;
	struct kt_node *root;
	unsigned errors = 0;
	enum kt_code code;

	*ret = NULL;
	kt_report_init(&report);
	if (kind == KT_RES_SECRET || kind <= KT_RES_NONE || kind >= KT_RES_COUNT)
		return kt_err_set(err, KT_E_UNSUPPORTED, "kind %s has no stored form", kt_kind_name(kind));
	code = kt_json_parse(json, KT_MANIFEST_DOC_MAX * 2, &value, err);
	if (code != KT_OK)
		return code == KT_E_NOMEM
			       ? code
			       : kt_err_set(err, KT_E_CORRUPT, "stored %s is not readable", kt_kind_name(kind));
	root = kt_node_from_json(value, &arena, 0);
	resource = root ? resource_create(kt_node_cost(root), NULL) : NULL;
	if (!resource) {
		code = arena.failed || root
			       ? kt_err_set(err, KT_E_NOMEM, "out of memory")
			       : kt_err_set(err, KT_E_CORRUPT, "stored %s is too deep", kt_kind_name(kind));
		goto out;
	}
	decode_top(resource, kind, root, kt_kind_name(kind), &report, &errors);
	if (resource->arena->failed) {
		code = kt_err_set(err, KT_E_NOMEM, "out of memory");
	} else if (errors) {
		code = kt_err_set(err, KT_E_CORRUPT, "stored %s is not right: %s", kt_kind_name(kind),
				  report.count ? report.items[0].text : "?");
	} else {
		*ret = resource;
		resource = NULL;
	}
out:
	kt_resource_destroy(resource);
	kt_arena_finish(&arena);
	kt_report_finish(&report);
	return code;
}

enum kt_code kt_resource_default(enum kt_kind kind, const char *ns, const char *name, struct kt_resource **ret,
				 struct kt_err *err)
{
	struct kt_resource *resource = resource_create(512, NULL);
	struct kt_report report;
	unsigned errors = 0;

	*ret = NULL;
	if (!resource)
		return kt_err_set(err, KT_E_NOMEM, "out of memory");
	kt_report_init(&report);
	decode_top(resource, kind, NULL, "-", &report, &errors);
	kt_report_finish(&report);
	resource->meta.name = kt_arena_str(resource->arena, name, strlen(name));
	resource->meta.ns = kt_arena_str(resource->arena, ns ? ns : "", ns ? strlen(ns) : 0);
	if (!resource->meta.name || !resource->meta.ns) {
		kt_resource_destroy(resource);
		return kt_err_set(err, KT_E_NOMEM, "out of memory");
	}
	*ret = resource;
	return KT_OK;
}

/* --- what makes a new credential necessary
 * ---------------------------------------------------------------------------- */

static void key_text(struct kt_buf *out, const char *name, const char *text)
{
	if (!text)
		return;
	kt_buf_adds(out, name);
	kt_buf_addc(out, '=');
	kt_buf_add_json(out, kt_view_str(text));
	kt_buf_addc(out, '\n');
}

static void key_list(struct kt_buf *out, const char *name, const struct kt_strings *list)
{
	for (uint32_t i = 0; i < list->count; i++)
		key_text(out, name, list->items[i]);
}

static void key_names(struct kt_buf *out, const char *which, const struct kt_name_set *set)
{
	kt_buf_addf(out, "%s:\n", which);
	key_list(out, "dns", &set->dns_domains);
	key_list(out, "ip", &set->ip_ranges);
	key_list(out, "email", &set->email_addresses);
	key_list(out, "uri", &set->uri_domains);
}

static void key_issuer(struct kt_buf *out, const struct kt_issuer_ref *ref)
{
	kt_buf_addf(out, "issuer=%s/%s/%s\n", ref->group, kt_kind_name(ref->kind), ref->name);
}

void kt_certificate_request_key(const struct kt_certificate_spec *c, struct kt_buf *out)
{
	kt_buf_adds(out, "certificate 1\n");
	key_issuer(out, &c->issuer_ref);
	key_text(out, "cn", c->common_name);
	key_text(out, "literal", c->literal_subject);
	key_list(out, "o", &c->subject.organizations);
	key_list(out, "c", &c->subject.countries);
	key_list(out, "ou", &c->subject.organizational_units);
	key_list(out, "l", &c->subject.localities);
	key_list(out, "st", &c->subject.provinces);
	key_list(out, "street", &c->subject.street_addresses);
	key_list(out, "postal", &c->subject.postal_codes);
	key_text(out, "serial", c->subject.serial_number);
	key_list(out, "dns", &c->dns_names);
	key_list(out, "ip", &c->ip_addresses);
	key_list(out, "uri", &c->uris);
	key_list(out, "email", &c->email_addresses);
	for (uint32_t i = 0; i < c->other_names.count; i++) {
		key_text(out, "other", c->other_names.items[i].oid);
		key_text(out, "value", c->other_names.items[i].utf8_value);
	}
	kt_buf_addf(out, "duration=%lld\nusages=%u,%d\nca=%d\nkey=%d,%lld\nsignature=%d\n", (long long)c->duration,
		    c->usages, c->encode_usages_in_request, c->is_ca, (int)c->private_key.algorithm,
		    (long long)c->private_key.size, (int)c->signature_algorithm);
	if (c->must_staple)
		kt_buf_adds(out, "must-staple\n");
	if (c->name_constraints) {
		kt_buf_addf(out, "constraints=%d\n", c->name_constraints->critical);
		key_names(out, "permitted", &c->name_constraints->permitted);
		key_names(out, "excluded", &c->name_constraints->excluded);
	}
}

static void key_source(struct kt_buf *out, const char *name, const struct kt_token_source *source)
{
	kt_buf_addf(out, "source=%s\n", name);
	key_text(out, "token", source->token_ref);
	key_text(out, "secret", source->secret.name);
	key_text(out, "key", source->secret.name != NULL ? source->secret.key : NULL);
}

void kt_token_request_key(const struct kt_token_spec *t, struct kt_buf *out)
{
	kt_buf_adds(out, "token 1\n");
	key_issuer(out, &t->issuer_ref);
	key_list(out, "aud", &t->audiences);
	key_list(out, "scope", &t->scopes);
	key_text(out, "sub", t->claims.subject);
	key_text(out, "client", t->claims.client_id);
	for (uint32_t i = 0; i < t->claims.extra.count; i++) {
		key_text(out, "claim", t->claims.extra.items[i].key);
		key_text(out, "value", t->claims.extra.items[i].value);
	}
	kt_buf_addf(out, "duration=%lld\n", (long long)t->duration);
	key_text(out, "certificate", t->certificate_ref);
	if (t->dpop != NULL)
		kt_buf_addf(out, "dpop=%s\n", kt_assertion_alg_name(t->dpop->algorithm));
	if (t->grant.token_exchange != NULL) {
		key_source(out, "subject", &t->grant.token_exchange->subject);
		key_source(out, "actor", &t->grant.token_exchange->actor);
		key_text(out, "subject-type", t->grant.token_exchange->subject_type);
		key_text(out, "actor-type", t->grant.token_exchange->actor_type);
		key_text(out, "requested-type", t->grant.token_exchange->requested_type);
	}
	if (t->grant.jwt_bearer != NULL)
		key_source(out, "assertion", &t->grant.jwt_bearer->assertion);
	if (t->grant.refresh_token != NULL) {
		key_text(out, "refresh", t->grant.refresh_token->secret.name);
		key_text(out, "refresh-key", t->grant.refresh_token->secret.key);
	}
}

void kt_client_request_key(const struct kt_client_credential_spec *c, struct kt_buf *out)
{
	static const char *const kinds[] = {"ConnectedApp", "EnvironmentClient", "ApplicationContract"};
	const struct kt_client_anypoint *anypoint = c->issuer.anypoint;

	kt_buf_adds(out, "client 1\n");
	if (anypoint != NULL) {
		key_text(out, "anypoint", anypoint->url);
		key_text(out, "organization", anypoint->organization);
		key_text(out, "kind", kinds[anypoint->kind]);
	}
	if (c->issuer.okta != NULL)
		key_text(out, "okta", c->issuer.okta->org_url);
	if (c->issuer.hosted != NULL)
		key_text(out, "hosted", c->issuer.hosted->jwks_url);
	if (c->private_key != NULL)
		key_text(out, "privateKey", kt_assertion_alg_name(c->private_key->algorithm));
	for (uint32_t i = 0; i < c->clients.count; i++) {
		key_text(out, "client", c->clients.items[i].client_id);
		key_text(out, "id", c->clients.items[i].id);
		if (c->issuer.fixed != NULL) {
			key_text(out, "secret", c->clients.items[i].secret.name);
			key_text(out, "key", c->clients.items[i].secret.key);
		}
	}
}
