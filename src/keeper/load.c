/* Manifests into the store: a bundle becomes the new set of resources, whole or not at all. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/flight.h"

#define GONE_MAX 256u

struct load {
	struct kt_keeper *keeper;
	struct kt_set *set;
	struct kt_report report;
	struct kt_resource *agent;
	struct kt_buf json;
	kt_ms now;
	int64_t gone[GONE_MAX]; /* Watches that the new set has not; more of them stay as rows that do nothing */
	size_t gone_count;
	enum kt_code woken; /* whether what waits for Consumers that are gone could be woken */
	struct kt_err *err;
};

/* References of a resource; names live in `text`. */
struct links {
	struct kt_store_link *at;
	size_t count, room;
	bool failed; /* no memory */
	const char *ns;
	char issuer[300];
};

static void link_add(struct links *links, const char *rel, const char *ns, const char *name)
{
	size_t i;

	for (i = 0; i < links->count; i++) {
		if (strcmp(links->at[i].rel, rel) == 0 && strcmp(links->at[i].name, name) == 0) {
			return;
		}
	}
	if (links->count == links->room) {
		size_t room = links->room > 0 ? links->room * 2 : 16;
		struct kt_store_link *at = kt_realloc(links->at, room * sizeof(*at));

		if (at == NULL) {
			links->failed = true;
			return;
		}
		links->at = at;
		links->room = room;
	}
	links->at[links->count++] = (struct kt_store_link){rel, ns, name};
}

static void link_issuer(struct links *links, const struct kt_issuer_ref *ref, const char *ns)
{
	(void)snprintf(links->issuer, sizeof(links->issuer), "%s/%s", kt_kind_name(ref->kind), ref->name);
	link_add(links, "issuer", ref->kind == KT_RES_CLUSTER_ISSUER ? "" : ns, links->issuer);
}

void kt_load_each_consumed(const struct kt_consumer_spec *consumer, void (*fn)(const char *secret, void *arg), void *arg)
{
	uint32_t i, j;

	for (i = 0; i < consumer->volumes.count; i++) {
		const struct kt_consumer_volume_sources *sources = &consumer->volumes.items[i].sources;

		for (j = 0; j < sources->count; j++) {
			fn(sources->items[j].secret.name, arg);
		}
	}
	for (i = 0; i < consumer->secrets.count; i++) {
		fn(consumer->secrets.items[i], arg);
	}
	for (i = 0; consumer->socket != NULL && i < consumer->socket->secrets.count; i++) {
		fn(consumer->socket->secrets.items[i], arg);
	}
	for (i = 0; i < consumer->targets.count; i++) {
		fn(consumer->targets.items[i].secret, arg);
	}
	for (i = 0; i < consumer->prove.count; i++) {
		fn(consumer->prove.items[i].secret, arg);
	}
}

static void link_secret(const char *secret, void *arg)
{
	struct links *links = arg;

	link_add(links, "consumes", links->ns, secret);
}

static void link_needed(struct links *links, const char *secret)
{
	if (secret != NULL) {
		link_add(links, "needs", links->ns, secret);
	}
}

/* Other secrets of ours without which a Token can't be asked for; "bound": it is asked for again when that one changes. */
static void link_token(struct links *links, const struct kt_token_spec *token)
{
	const struct kt_token_exchange *exchange = token->grant.token_exchange;

	link_needed(links, token->certificate_ref);
	if (token->certificate_ref != NULL) {
		link_add(links, "bound", links->ns, token->certificate_ref);
	}
	if (exchange != NULL) {
		link_needed(links, exchange->subject.token_ref);
		link_needed(links, exchange->actor.token_ref);
	}
	if (token->grant.jwt_bearer != NULL) {
		link_needed(links, token->grant.jwt_bearer->assertion.token_ref);
	}
}

/* The Token that resets the secrets; "source": what the store has is delivered, and again when it is set anew. */
static void link_client(struct links *links, const struct kt_client_credential_spec *client)
{
	link_needed(links, client->issuer.anypoint != NULL ? client->issuer.anypoint->token_ref : NULL);
	link_needed(links, client->issuer.okta != NULL ? client->issuer.okta->token_ref : NULL);
	if (client->issuer.fixed != NULL && client->clients.items[0].secret.name != NULL) {
		link_add(links, "source", links->ns, client->clients.items[0].secret.name);
	}
}

static bool is_made_of_others(const struct links *links)
{
	size_t i;

	for (i = 0; i < links->count; i++) {
		if (strcmp(links->at[i].rel, "needs") == 0) {
			return true;
		}
	}
	return false;
}

static void collect_links(const struct kt_resource *resource, struct links *links)
{
	const char *ns = resource->meta.ns;

	memset(links, 0, sizeof(*links));
	links->ns = ns;
	switch (resource->kind) {
	case KT_RES_CERTIFICATE:
		link_issuer(links, &resource->certificate.issuer_ref, ns);
		break;
	case KT_RES_TOKEN:
		link_issuer(links, &resource->token.issuer_ref, ns);
		link_token(links, &resource->token);
		break;
	case KT_RES_CLIENT_CREDENTIAL:
		link_client(links, &resource->client);
		break;
	case KT_RES_TOKEN_ISSUER:
		if (resource->token_issuer.oauth2 != NULL) {
			if (resource->token_issuer.oauth2->auth.client_secret_ref.name != NULL) {
				link_add(links, "client", ns, resource->token_issuer.oauth2->auth.client_secret_ref.name);
			}
			if (resource->token_issuer.oauth2->auth.key_secret_ref.name != NULL) {
				link_add(links, "client", ns, resource->token_issuer.oauth2->auth.key_secret_ref.name);
			}
			link_needed(links, resource->token_issuer.oauth2->auth.certificate_ref);
			link_needed(links, resource->token_issuer.oauth2->auth.token_ref);
		}
		if (resource->token_issuer.aws != NULL && resource->token_issuer.aws->web_identity != NULL) {
			link_needed(links, resource->token_issuer.aws->web_identity->token_ref);
		}
		if (resource->token_issuer.aws != NULL && resource->token_issuer.aws->roles_anywhere != NULL) {
			link_needed(links, resource->token_issuer.aws->roles_anywhere->certificate_ref);
		}
		break;
	case KT_RES_ISSUER:
	case KT_RES_CLUSTER_ISSUER:
		if (resource->issuer.ca != NULL) {
			link_add(links, "ca-secret", ns[0] != '\0' ? ns : "default", resource->issuer.ca->secret_name);
		}
		break;
	case KT_RES_CONSUMER:
		kt_load_each_consumed(&resource->consumer, link_secret, links);
		break;
	default:
		break;
	}
}

/* A v1 Secret: each value is sealed into the store; the resource itself is not kept. */
static enum kt_code load_secret(struct load *load, const struct kt_resource *resource, struct kt_err *err)
{
	const struct kt_secret_items *data = &resource->secret.data;
	struct kt_buf sealed KT_AUTOBUF = {0};
	uint32_t i;

	kt_buf_init(&sealed, KT_MANIFEST_DOC_MAX);
	for (i = 0; i < data->count; i++) {
		const struct kt_secret_item *item = &data->items[i];
		struct kt_seal_id id = kt_store_secret_seal_id(resource->meta.ns, resource->meta.name, item->key);
		struct kt_store_secret row = {.ns = resource->meta.ns,
		                              .name = resource->meta.name,
		                              .key = item->key,
		                              .source = KT_SECRET_MANIFEST,
		                              .updated = load->now};
		enum kt_code code;

		kt_buf_reset(&sealed);
		code = kt_keys_seal(load->keeper->keys, &id,
		                    (struct kt_view){(const char *)item->value.ptr, item->value.len}, &sealed, err);
		if (code == KT_OK) {
			row.sealed = kt_buf_view(&sealed);
			code = kt_store_secret_put(load->keeper->store, &row, err);
		}
		if (code != KT_OK) {
			return code;
		}
	}
	return KT_OK;
}

/* True for resources that have a life of their own in the pipeline. */
static bool credential_kind(const struct kt_resource *resource, enum kt_store_kind *ret)
{
	switch (resource->kind) {
	case KT_RES_CERTIFICATE:
		*ret = KT_KIND_CERT;
		return true;
	case KT_RES_TOKEN:
		*ret = KT_KIND_TOKEN;
		return true;
	case KT_RES_CLIENT_CREDENTIAL:
		*ret = KT_KIND_CLIENT;
		return true;
	case KT_RES_TOKEN_ISSUER:
		*ret = KT_KIND_JWKS;
		return resource->token_issuer.local != NULL;
	case KT_RES_WATCH:
		*ret = KT_KIND_WATCH;
		return true;
	default:
		return false;
	}
}

/* A new or changed resource with a life: its credential is due. */
static enum kt_code touch_credential(struct load *load, const struct kt_resource *resource, int64_t id,
                                     enum kt_store_kind kind, enum kt_store_change change, struct kt_err *err)
{
	struct kt_store *store = load->keeper->store;
	const char *secret_name = kt_spec_secret_name(resource);
	struct kt_store_cred cred;
	enum kt_code code;

	if (change == KT_STORE_ADDED) {
		memset(&cred, 0, sizeof(cred));
		cred.id = id;
		cred.kind = kind;
		cred.secret_name = secret_name;
		cred.step = KT_STEP_NEW;
		cred.step_at = cred.due_at = load->now;
		return kt_store_cred_put(store, &cred, err);
	}
	code = kt_store_cred_get(store, id, &cred, err);
	if (code != KT_OK) {
		return code == KT_E_NOTFOUND ? touch_credential(load, resource, id, kind, KT_STORE_ADDED, err) : code;
	}
	cred.secret_name = secret_name;
	cred.due_at = load->now;
	cred.next_try = 0;
	cred.attempts = 0;
	cred.deaths = 0;
	kt_flight_forget_deliveries(&cred);
	cred.flags &= ~(unsigned)(KT_CRED_FAILED | KT_CRED_ORPHAN);
	cred.flags |= KT_CRED_REDELIVER;
	code = kt_store_cred_put(store, &cred, err);
	kt_store_cred_finish(&cred);
	return code;
}

/* Credentials that a changed Consumer uses are delivered again, into its volumes. */
static enum kt_code touch_consumed(struct load *load, const struct links *links, struct kt_err *err)
{
	size_t i;

	for (i = 0; i < links->count; i++) {
		struct kt_store_cred cred;
		enum kt_code code = kt_store_cred_find_secret(load->keeper->store, links->at[i].ns, links->at[i].name,
		                                              &cred, err);

		if (code == KT_E_NOTFOUND) {
			continue;
		}
		if (code == KT_OK) {
			cred.due_at = load->now;
			cred.flags |= KT_CRED_REDELIVER;
			kt_flight_forget_deliveries(&cred);
			code = kt_store_cred_put(load->keeper->store, &cred, err);
			kt_store_cred_finish(&cred);
		}
		if (code != KT_OK) {
			return code;
		}
	}
	return KT_OK;
}

static enum kt_code put_resource(struct load *load, const struct kt_resource *resource, struct kt_err *err)
{
	struct kt_store_resource row;
	struct links links;
	enum kt_store_change change;
	enum kt_store_kind kind;
	char request_key[65];
	int64_t id;
	enum kt_code code;

	kt_buf_reset(&load->json);
	code = kt_resource_to_json(resource, &load->json, err);
	if (code != KT_OK) {
		return code;
	}
	code = kt_spec_request_key(resource, request_key, err);
	if (code != KT_OK) {
		return code;
	}
	memset(&row, 0, sizeof(row));
	row.kind = kt_kind_name(resource->kind);
	row.ns = resource->meta.ns;
	row.name = resource->meta.name;
	row.spec = kt_buf_view(&load->json);
	row.request_key = request_key;
	row.file = resource->file;
	row.line = resource->line;
	collect_links(resource, &links);
	load->keeper->tokens_depend = load->keeper->tokens_depend || is_made_of_others(&links) || resource->kind == KT_RES_CLIENT_CREDENTIAL;
	code = links.failed ? kt_err_set(err, KT_E_NOMEM, "no memory for manifests")
	                    : kt_store_set_put(load->keeper->store, &row, links.at, links.count, &id, &change, err);
	if (code != KT_OK || change == KT_STORE_SAME) {
		goto out;
	}
	if (credential_kind(resource, &kind)) {
		code = touch_credential(load, resource, id, kind, change, err);
	} else if (resource->kind == KT_RES_CONSUMER) {
		code = kt_store_task_wake_consumer(load->keeper->store, id, load->now, err); /* what it uses no more is over */
		code = code == KT_OK ? touch_consumed(load, &links, err) : code;
	}
out:
	kt_free(links.at);
	return code;
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct load *load = arg;
	enum kt_code code = KT_OK;

	if (load->report.errors > 0) { /* the set is refused: only look for more complaints */
		kt_resource_destroy(resource);
		return KT_OK;
	}
	if (resource->kind == KT_RES_CERTIFICATE && resource->certificate.keystores.pkcs12 != NULL) {
		load->keeper->needs_pkcs12 = true;
	}
	if (resource->kind == KT_RES_WATCH && resource->watch.source.file != NULL &&
	    resource->watch.source.file->format == KT_WATCH_PKCS12) {
		load->keeper->needs_pkcs12 = true;
	}
	if (resource->kind == KT_RES_AGENT) {
		kt_resource_destroy(load->agent);
		load->agent = resource;
		return KT_OK;
	}
	code = resource->kind == KT_RES_SECRET ? load_secret(load, resource, err) : put_resource(load, resource, err);
	kt_resource_destroy(resource);
	return code;
}

/* Of what is not ours nothing has to stay. */
static bool on_removed(const struct kt_store_resource *resource, bool orphan, void *arg)
{
	struct load *load = arg;

	if (orphan && strcmp(resource->kind, "Watch") == 0 && load->gone_count < GONE_MAX) {
		load->gone[load->gone_count++] = resource->id;
	}
	if (strcmp(resource->kind, "Consumer") == 0 && load->woken == KT_OK) {
		load->woken = kt_store_task_wake_consumer(load->keeper->store, resource->id, load->now, load->err);
	}
	return true;
}

static bool know_secret(const struct kt_store_secret *secret, void *arg)
{
	struct load *load = arg;

	return kt_set_know_secret(load->set, secret->ns, secret->name, NULL) == KT_OK;
}

/* Everything within one transaction. */
static enum kt_code load_set(struct load *load, struct kt_view bundle, struct kt_err *err)
{
	struct kt_store *store = load->keeper->store;
	char trace[33];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(load->now, trace),
	                               .actor = "manifest",
	                               .step = "manifest.loaded",
	                               .outcome = "ok"};
	int64_t generation;
	enum kt_code code = kt_store_secret_each(store, NULL, NULL, know_secret, load, err);

	if (code == KT_OK) {
		code = kt_store_set_begin(store, &generation, err);
	}
	if (code == KT_OK) {
		code = kt_manifest_read_bundle(bundle, load->set, on_resource, load, &load->report, err);
	}
	if (code == KT_OK) {
		code = kt_report_check(&load->report, err);
	}
	if (code == KT_OK) {
		load->err = err;
		code = kt_store_set_finish(store, on_removed, load, err);
		code = code == KT_OK ? load->woken : code;
	}
	while (code == KT_OK && load->gone_count > 0) {
		code = kt_store_cred_delete(store, load->gone[--load->gone_count], err);
	}
	if (code == KT_OK) {
		code = kt_store_secret_drop_stale(store, load->now, err);
	}
	return code == KT_OK ? kt_audit_append(store, &event, err) : code;
}

enum kt_code kt_load_bundle(struct kt_keeper *keeper, int fd, struct kt_err *err)
{
	struct load load = {.keeper = keeper, .now = kt_keeper_now(keeper)};
	struct stat info;
	void *map = NULL;
	enum kt_code code;

	kt_report_init(&load.report);
	kt_buf_init(&load.json, KT_MANIFEST_DOC_MAX * 2);
	if (fstat(fd, &info) != 0) {
		code = kt_err_sys(err, "the manifests can't be read");
		goto out;
	}
	map = info.st_size > 0 ? mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
	if (map == MAP_FAILED) {
		map = NULL;
		code = kt_err_sys(err, "the manifests can't be read");
		goto out;
	}
	code = kt_set_create(&load.set, err);
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code != KT_OK) {
		goto out;
	}
	code = load_set(&load, (struct kt_view){map, (size_t)info.st_size}, err);
	if (code == KT_OK && load.agent == NULL) { /* a set without settings: the defaults are in force */
		code = kt_resource_default(KT_RES_AGENT, "", "default", &load.agent, err);
	}
	code = kt_store_end(keeper->store, code, err);
	if (code == KT_OK) {
		kt_resource_destroy(keeper->agent);
		keeper->agent = load.agent;
		load.agent = NULL;
	}
out:
	if (map != NULL) {
		munmap(map, (size_t)info.st_size);
	}
	kt_resource_destroy(load.agent);
	kt_set_destroy(load.set);
	kt_buf_finish(&load.json);
	kt_report_finish(&load.report);
	return code;
}

enum kt_code kt_load_spec(const struct kt_store_resource *row, struct kt_resource **ret, struct kt_err *err)
{
	enum kt_code code = kt_resource_from_json(kt_kind_from_name(row->kind), row->spec, ret, err);

	if (code != KT_OK && err != NULL) { /* some callers only want to know whether it can be read */
		(void)kt_err_prefix(err, "%s/%s/%s in the store", row->kind, row->ns, row->name);
	}
	return code;
}
