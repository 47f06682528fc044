/* The set that is aligned: our resources with their references resolved, foreign documents sorted into hops. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define ROOT_NAMESPACE "istio-system"

enum kt_code kt_align_create(struct kt_align **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for the alignment");
}

void kt_align_destroy(struct kt_align *align)
{
	if (align == NULL) {
		return;
	}
	for (uint32_t i = 0; i < align->token_count; i++) {
		kt_free(align->tokens[i].jwks);
		kt_free(align->tokens[i].sub);
		kt_free(align->tokens[i].scope);
	}
	for (uint32_t i = 0; i < align->hop_count; i++) {
		kt_free(align->hops[i].name);
		kt_free(align->hops[i].readers);
	}
	for (uint32_t i = 0; i < align->resource_count; i++) {
		kt_resource_destroy(align->resources[i]);
	}
	for (uint32_t i = 0; i < align->foreign_count; i++) {
		kt_foreign_destroy(align->foreigns[i]);
	}
	kt_free(align->tokens);
	kt_free(align->hops);
	kt_free(align->resources);
	kt_free(align->foreigns);
	kt_free(align);
}

uint32_t kt_align_foreign_count(const struct kt_align *align)
{
	return align->foreign_count;
}

/* Room for one more in an array that grows by doubling. */
static bool room(void **items, uint32_t count, size_t size)
{
	void *more;

	if (count != 0 && ((count & (count - 1)) != 0 || count < 8)) {
		return true;
	}
	more = kt_realloc(*items, (size_t)(count == 0 ? 8 : count * 2) * size);
	if (more == NULL) {
		return false;
	}
	*items = more;
	return true;
}

#define ROOM(items, count) room((void **)&(items), (count), sizeof(*(items)))

static enum kt_code add_token(struct kt_align *align, struct kt_resource *resource)
{
	if (!ROOM(align->tokens, align->token_count)) {
		return KT_E_NOMEM;
	}
	align->tokens[align->token_count++] =
		(struct kt_align_token){.resource = resource,
					.line_audiences = kt_resource_line(resource, "spec.audiences"),
					.line_duration = kt_resource_line(resource, "spec.duration")};
	return KT_OK;
}

enum kt_code kt_align_add(struct kt_align *align, struct kt_resource *resource, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	if (resource->kind != KT_RES_TOKEN && resource->kind != KT_RES_TOKEN_ISSUER &&
	    resource->kind != KT_RES_CERTIFICATE && resource->kind != KT_RES_CONSUMER &&
	    resource->kind != KT_RES_CLIENT_CREDENTIAL) {
		kt_resource_destroy(resource);
		return KT_OK;
	}
	if (!ROOM(align->resources, align->resource_count)) {
		kt_resource_destroy(resource);
		return kt_err_set(err, KT_E_NOMEM, "no memory for the alignment");
	}
	align->resources[align->resource_count++] = resource;
	/* An AWS session is nothing that a hop would look at. */
	if (resource->kind == KT_RES_TOKEN && (resource->token.outputs & ~KT_TOKEN_OUTPUTS_AWS) != 0) {
		code = add_token(align, resource);
	}
	resource->tree = NULL; /* it ends with the reading */
	return code == KT_OK ? KT_OK : kt_err_set(err, code, "no memory for the alignment");
}

enum kt_code kt_align_add_foreign(struct kt_align *align, struct kt_foreign *foreign, struct kt_err *err)
{
	if (!ROOM(align->foreigns, align->foreign_count)) {
		kt_foreign_destroy(foreign);
		return kt_err_set(err, KT_E_NOMEM, "no memory for the alignment");
	}
	align->foreigns[align->foreign_count++] = foreign;
	return KT_OK;
}

/* --- references of ours ---------------------------------------- */

/* Resources of one kind, sorted by namespace and the name that others say. */
struct index {
	const struct kt_resource **items;
	uint32_t count;
};

static const char *said_name(const struct kt_resource *resource)
{
	return resource->kind == KT_RES_CERTIFICATE         ? resource->certificate.secret_name
	       : resource->kind == KT_RES_CLIENT_CREDENTIAL ? resource->client.secret_name
							    : resource->meta.name;
}

static int compare(const void *a, const void *b)
{
	const struct kt_resource *x = *(const struct kt_resource *const *)a;
	const struct kt_resource *y = *(const struct kt_resource *const *)b;
	int order = strcmp(x->meta.ns, y->meta.ns);

	return order != 0 ? order : strcmp(said_name(x), said_name(y));
}

static bool make_index(const struct kt_align *align, enum kt_kind kind, struct index *ret)
{
	*ret = (struct index){.items = kt_calloc(align->resource_count + 1, sizeof(struct kt_resource *))};
	for (uint32_t i = 0; ret->items != NULL && i < align->resource_count; i++) {
		if (align->resources[i]->kind == kind) {
			ret->items[ret->count++] = align->resources[i];
		}
	}
	if (ret->count > 0) {
		qsort(ret->items, ret->count, sizeof(*ret->items), compare);
	}
	return ret->items != NULL;
}

/* The first one that is not before (ns, name). */
static uint32_t lower(const struct index *index, const char *ns, const char *name)
{
	uint32_t from = 0;
	uint32_t to = index->count;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		int order = strcmp(index->items[mid]->meta.ns, ns);

		order = order != 0 ? order : strcmp(said_name(index->items[mid]), name);
		if (order < 0) {
			from = mid + 1;
		} else {
			to = mid;
		}
	}
	return from;
}

static const struct kt_resource *find(const struct index *index, const char *ns, const char *name)
{
	uint32_t at = lower(index, ns, name);

	return at < index->count && strcmp(index->items[at]->meta.ns, ns) == 0 &&
			       strcmp(said_name(index->items[at]), name) == 0
		       ? index->items[at]
		       : NULL;
}

/* The only Certificate with a SPIFFE identity of a namespace. */
static const struct kt_resource *only_identity(const struct index *certificates, const char *ns)
{
	const struct kt_resource *found = NULL;

	for (uint32_t i = lower(certificates, ns, ""); i < certificates->count; i++) {
		const struct kt_resource *one = certificates->items[i];

		if (strcmp(one->meta.ns, ns) != 0) {
			break;
		}
		if (kt_align_spiffe(one) != NULL && found != NULL) {
			return NULL;
		}
		found = kt_align_spiffe(one) != NULL ? one : found;
	}
	return found;
}

/* --- tokens ---------------------------------------- */

static size_t without_slash(const char *url)
{
	size_t len = strlen(url);

	return len > 0 && url[len - 1] == '/' ? len - 1 : len;
}

/* Where the keys are, as far as the make of server tells. */
static bool find_jwks(struct kt_align_token *token)
{
	const struct kt_token_issuer_spec *spec = &token->issuer->token_issuer;
	const char *tail = NULL;
	size_t len;

	if (token->iss == NULL) {
		return true;
	}
	len = without_slash(token->iss);
	if (spec->local != NULL) {
		tail = "/jwks.json";
	} else if (spec->oauth2->profile == KT_PROFILE_OKTA) {
		tail = "/v1/keys";
	} else if (spec->oauth2->profile == KT_PROFILE_KEYCLOAK) {
		tail = "/protocol/openid-connect/certs";
	} else if (spec->oauth2->profile == KT_PROFILE_ENTRA && len > 5 &&
		   memcmp(token->iss + len - 5, "/v2.0", 5) == 0) {
		tail = "/discovery/v2.0/keys";
		len -= 5;
	}
	if (tail == NULL) {
		return true;
	}
	token->jwks = kt_asprintf("%.*s%s", (int)len, token->iss, tail);
	return token->jwks != NULL;
}

static bool resolve(struct kt_align_token *token)
{
	const struct kt_token_spec *spec = &token->resource->token;
	const struct kt_meta *meta = &token->resource->meta;
	const struct kt_local_issuer *local = token->issuer != NULL ? token->issuer->token_issuer.local : NULL;

	if (token->issuer == NULL) {
		return true;
	}
	if (token->issuer->token_issuer.aws != NULL) {
		return true;
	}
	token->iss = local != NULL ? local->issuer_url : token->issuer->token_issuer.oauth2->issuer;
	if (local != NULL) {
		token->sub = spec->claims.subject != NULL ? kt_strdup(spec->claims.subject)
							  : kt_asprintf("%s/%s", meta->ns, meta->name);
		if (token->sub == NULL) {
			return false;
		}
		if (spec->scopes.count > 0) {
			struct kt_buf scope KT_AUTOBUF = {0};

			kt_buf_init(&scope, 65536);
			for (uint32_t i = 0; i < spec->scopes.count; i++) {
				kt_buf_adds(&scope, i > 0 ? " " : "");
				kt_buf_adds(&scope, spec->scopes.items[i]);
			}
			token->scope = scope.failed == KT_OK ? kt_buf_steal(&scope, NULL) : NULL;
			if (token->scope == NULL) {
				return false;
			}
		}
	}
	return find_jwks(token);
}

/* --- which certificate goes with which token ---------------------------------------- */

static int by_secret(const void *a, const void *b)
{
	const struct kt_resource *x = ((const struct kt_align_token *)a)->resource;
	const struct kt_resource *y = ((const struct kt_align_token *)b)->resource;
	int order = strcmp(x->meta.ns, y->meta.ns);

	return order != 0 ? order : strcmp(x->token.secret_name, y->token.secret_name);
}

static struct kt_align_token *token_of(struct kt_align *align, const char *ns, const char *secret)
{
	uint32_t from = 0;
	uint32_t to = align->token_count;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		const struct kt_resource *one = align->tokens[mid].resource;
		int order = strcmp(one->meta.ns, ns);

		order = order != 0 ? order : strcmp(one->token.secret_name, secret);
		if (order == 0) {
			return &align->tokens[mid];
		}
		from = order < 0 ? mid + 1 : from;
		to = order < 0 ? to : mid;
	}
	return NULL;
}

/* What a secret may be of. */
struct secrets {
	struct index certificates, clients;
};

/* Of the secrets of one Consumer: its only client identity and its first client's pair go with its tokens. */
static void pair_consumer(struct kt_align *align, const struct secrets *secrets, const struct kt_resource *consumer,
			  const char *const *names, uint32_t count)
{
	const struct kt_resource *certificate = NULL;
	const struct kt_resource *client = NULL;

	for (uint32_t i = 0; i < count; i++) {
		const struct kt_resource *one = find(&secrets->certificates, consumer->meta.ns, names[i]);

		client = client != NULL ? client : find(&secrets->clients, consumer->meta.ns, names[i]);
		if (one != NULL && (certificate == NULL || kt_align_spiffe(certificate) == NULL)) {
			certificate = one;
		}
	}
	for (uint32_t i = 0; (certificate != NULL || client != NULL) && i < count; i++) {
		struct kt_align_token *token = token_of(align, consumer->meta.ns, names[i]);

		if (token != NULL && certificate != NULL && !token->paired) {
			token->certificate = certificate;
			token->paired = true;
		}
		if (token != NULL && token->client == NULL) {
			token->client = client;
		}
	}
}

static bool pair(struct kt_align *align, const struct secrets *secrets, const struct kt_resource *resource)
{
	const struct kt_consumer_spec *consumer = &resource->consumer;
	uint32_t count = consumer->secrets.count;
	const char **names;

	for (uint32_t i = 0; i < consumer->volumes.count; i++) {
		count += consumer->volumes.items[i].sources.count;
	}
	names = kt_calloc(count + 1, sizeof(*names));
	if (names == NULL) {
		return false;
	}
	count = 0;
	for (uint32_t i = 0; i < consumer->secrets.count; i++) {
		names[count++] = consumer->secrets.items[i];
	}
	for (uint32_t i = 0; i < consumer->volumes.count; i++) {
		for (uint32_t k = 0; k < consumer->volumes.items[i].sources.count; k++) {
			names[count++] = consumer->volumes.items[i].sources.items[k].secret.name;
		}
	}
	pair_consumer(align, secrets, resource, names, count);
	kt_free(names);
	return true;
}

static bool ready_tokens(struct kt_align *align)
{
	struct index issuers = {0};
	struct secrets secrets = {0};
	bool good = make_index(align, KT_RES_TOKEN_ISSUER, &issuers) &&
		    make_index(align, KT_RES_CERTIFICATE, &secrets.certificates) &&
		    make_index(align, KT_RES_CLIENT_CREDENTIAL, &secrets.clients);

	if (align->token_count > 1) {
		qsort(align->tokens, align->token_count, sizeof(*align->tokens), by_secret);
	}
	for (uint32_t i = 0; good && i < align->token_count; i++) {
		struct kt_align_token *token = &align->tokens[i];
		const struct kt_resource *resource = token->resource;

		token->issuer = find(&issuers, resource->meta.ns, resource->token.issuer_ref.name);
		good = resolve(token);
		if (resource->token.certificate_ref != NULL) {
			token->certificate =
				find(&secrets.certificates, resource->meta.ns, resource->token.certificate_ref);
			token->paired = token->certificate != NULL;
		}
	}
	for (uint32_t i = 0; good && i < align->resource_count; i++) {
		good = align->resources[i]->kind != KT_RES_CONSUMER || pair(align, &secrets, align->resources[i]);
	}
	for (uint32_t i = 0; good && i < align->token_count; i++) {
		if (!align->tokens[i].paired) {
			align->tokens[i].certificate =
				only_identity(&secrets.certificates, align->tokens[i].resource->meta.ns);
		}
	}
	kt_free(issuers.items);
	kt_free(secrets.certificates.items);
	kt_free(secrets.clients.items);
	return good;
}

/* --- hops ---------------------------------------- */

static bool is_mesh(const struct kt_foreign *f)
{
	return f->kind == KT_FOREIGN_REQUEST_AUTHENTICATION || f->kind == KT_FOREIGN_AUTHORIZATION_POLICY ||
	       f->kind == KT_FOREIGN_PEER_AUTHENTICATION;
}

static bool has_label(const kt_foreign_selector *selector, const char *label)
{
	for (uint32_t i = 0; i < selector->count; i++) {
		if (strcmp(selector->items[i].text, label) == 0) {
			return true;
		}
	}
	return false;
}

static bool covers(const kt_foreign_selector *policy, const kt_foreign_selector *workload)
{
	for (uint32_t i = 0; i < policy->count; i++) {
		if (!has_label(workload, policy->items[i].text)) {
			return false;
		}
	}
	return true;
}

static bool holds(const struct kt_foreign *f, const struct kt_align_hop *hop)
{
	bool root = strcmp(f->ns, ROOT_NAMESPACE) == 0 && f->selector.count == 0;

	return is_mesh(f) && (root || (strcmp(f->ns, hop->ns) == 0 && covers(&f->selector, hop->selector)));
}

static struct kt_align_hop *new_hop(struct kt_align *align, bool mesh, char *name)
{
	struct kt_align_hop *hop;

	if (name == NULL || !ROOM(align->hops, align->hop_count)) {
		kt_free(name);
		return NULL;
	}
	hop = &align->hops[align->hop_count++];
	*hop = (struct kt_align_hop){.mesh = mesh, .name = name};
	return hop;
}

static bool add_reader(struct kt_align_hop *hop, const struct kt_foreign *f)
{
	if (!ROOM(hop->readers, hop->reader_count)) {
		return false;
	}
	hop->readers[hop->reader_count++] = f;
	return true;
}

static bool hop_exists(const struct kt_align *align, const char *ns, const kt_foreign_selector *selector)
{
	for (uint32_t i = 0; i < align->hop_count; i++) {
		const struct kt_align_hop *hop = &align->hops[i];

		if (hop->mesh && strcmp(hop->ns, ns) == 0 && covers(hop->selector, selector) &&
		    covers(selector, hop->selector)) {
			return true;
		}
	}
	return false;
}

static bool namespace_has_hop(const struct kt_align *align, const char *ns)
{
	for (uint32_t i = 0; i < align->hop_count; i++) {
		if (align->hops[i].mesh && (ns == NULL || strcmp(align->hops[i].ns, ns) == 0)) {
			return true;
		}
	}
	return false;
}

static bool add_mesh_hop(struct kt_align *align, const struct kt_foreign *f)
{
	struct kt_buf name KT_AUTOBUF = {0};
	struct kt_align_hop *hop;

	kt_buf_init(&name, 1u << 20);
	kt_buf_addf(&name, "mesh %s", f->ns);
	for (uint32_t i = 0; i < f->selector.count; i++) {
		kt_buf_addf(&name, "%s%s", i > 0 ? "," : " ", f->selector.items[i].text);
	}
	hop = name.failed == KT_OK ? new_hop(align, true, kt_buf_steal(&name, NULL)) : NULL;
	if (hop == NULL) {
		return false;
	}
	hop->ns = f->ns;
	hop->selector = &f->selector;
	return true;
}

/* Three rounds: workloads that are named, whole namespaces that have none, the whole mesh if there is nothing else. */
static bool ready_mesh(struct kt_align *align)
{
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < align->foreign_count; i++) {
			const struct kt_foreign *f = align->foreigns[i];
			bool root = strcmp(f->ns, ROOT_NAMESPACE) == 0;
			bool named = f->selector.count > 0;

			if (!is_mesh(f) || (round == 0 ? !named : named) ||
			    (round == 1 && (root || namespace_has_hop(align, f->ns))) ||
			    (round == 2 && namespace_has_hop(align, NULL)) || hop_exists(align, f->ns, &f->selector)) {
				continue;
			}
			if (!add_mesh_hop(align, f)) {
				return false;
			}
		}
	}
	for (uint32_t h = 0; h < align->hop_count; h++) {
		for (uint32_t i = 0; i < align->foreign_count; i++) {
			if (holds(align->foreigns[i], &align->hops[h]) &&
			    !add_reader(&align->hops[h], align->foreigns[i])) {
				return false;
			}
		}
	}
	return true;
}

static char *api_name(const struct kt_foreign *f)
{
	if (f->target.text != NULL) {
		return kt_asprintf("%s %s", f->target_kind.text != NULL ? f->target_kind.text : "ApiInstance",
				   f->target.text);
	}
	return kt_asprintf("API of %s", kt_align_file_name(f->file));
}

static int by_order(const void *a, const void *b)
{
	const struct kt_foreign *x = *(const struct kt_foreign *const *)a;
	const struct kt_foreign *y = *(const struct kt_foreign *const *)b;

	return x->order != y->order ? (x->order < y->order ? -1 : 1) : x->line < y->line ? -1 : x->line > y->line;
}

static bool ready_api(struct kt_align *align)
{
	uint32_t first = align->hop_count;

	for (uint32_t i = 0; i < align->foreign_count; i++) {
		const struct kt_foreign *f = align->foreigns[i];
		struct kt_align_hop *hop = NULL;
		char *name;

		if (f->kind != KT_FOREIGN_API_POLICY) {
			continue;
		}
		name = api_name(f);
		for (uint32_t h = first; name != NULL && h < align->hop_count && hop == NULL; h++) {
			hop = strcmp(align->hops[h].name, name) == 0 ? &align->hops[h] : NULL;
		}
		if (hop != NULL) {
			kt_free(name);
		} else {
			hop = new_hop(align, false, name);
		}
		if (hop == NULL || !add_reader(hop, f)) {
			return false;
		}
		hop->ns = f->ns;
		hop->selector = &f->selector;
	}
	for (uint32_t h = first; h < align->hop_count; h++) {
		qsort(align->hops[h].readers, align->hops[h].reader_count, sizeof(*align->hops[h].readers), by_order);
	}
	return true;
}

enum kt_code kt_align_ready(struct kt_align *align, struct kt_err *err)
{
	if (align->foreign_count == 0) {
		return KT_OK;
	}
	if (!ready_tokens(align) || !ready_mesh(align) || !ready_api(align)) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the alignment");
	}
	return KT_OK;
}
