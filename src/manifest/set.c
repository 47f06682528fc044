/* Checks across a whole set of manifests: duplicates, owners, references, consumers that contradict each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/manifest.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/node.h"

#define NEAREST_MAX 2000 /* names looked at for "did you mean" */

/*
 * One hash table holds everything, told apart by the first letter of the key:
 *   r<kind>/<ns>/<name>  a resource            s<ns>/<name>  a secret that something here provides
 *   k<ns>/<name>         a secret known of     n<ns>         a namespace that has secrets
 *   v<path>              a consumer's volume
 * and what is asked for, with the first place that asks and how many do:
 *   I<kind>/<ns>/<name>  an issuer             L…, A…        a TokenIssuer that must be local, must not be local
 *   S<ns>/<name>         a secret, a warning   C<ns>/<name>  a secret of a Certificate or Token, an error
 *   X<ns>/<name>         one of a Certificate  T<ns>/<name>  one of a Token
 *   W<kind>/<ns>/<name>  a TokenIssuer that must be aws, Z…, z…: must not be
 *   w<ns>/<name>         not asked for: the secret of an AWS session, which is no token
 *   O<kind>/<ns>/<name>  a TokenIssuer that must be oauth2; P…: whose client must not be a public one
 *   B<kind>/<ns>/<name>/<secret>  one that shows no other client certificate; c…: the one that it shows
 */
struct entry {
	struct entry *next; /* in the bucket */
	const char *file;
	uint32_t hash;
	uint32_t line;
	uint32_t count;
	enum kt_kind kind; /* of the resource that made it */
	bool local, aws;   /* of a TokenIssuer */
	bool by_tls;       /* of a TokenIssuer: its client shows a Certificate */
	bool public;       /* of a TokenIssuer: its client shows nothing */
	const char *what;  /* the asking field; a literal */
	char key[];
};

struct kt_set {
	struct kt_arena arena;
	struct entry **buckets;
	uint32_t bucket_count;
	uint32_t entry_count;
	uint32_t kinds[KT_RES_COUNT];
	const char *file; /* the last one, kept once */
	struct entry *agent;
	struct entry *listener;  /* an ACME issuer that needs our own listener */
	struct entry *alpn;      /* one that needs that of tls-alpn-01 */
	struct entry *asking;    /* a Consumer that asks for tokens at a listener */
	bool http01, tls_alpn01, tokens; /* the Agent has them */
	kt_set_look_fn *look;
	void *look_arg;
	bool looked;          /* the store was looked into */
	const char *unlooked; /* or why not */
};

/* FNV-1a: names come from manifests that only the administrator writes. */
static uint32_t hash_of(const char *key)
{
	uint32_t hash = 2166136261u;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * 16777619u;
	return hash;
}

static struct entry *find(const struct kt_set *set, const char *key)
{
	uint32_t hash = hash_of(key);
	struct entry *entry = set->bucket_count ? set->buckets[hash & (set->bucket_count - 1)] : NULL;

	while (entry && (entry->hash != hash || strcmp(entry->key, key) != 0))
		entry = entry->next;
	return entry;
}

static bool grow(struct kt_set *set)
{
	uint32_t count = set->bucket_count ? set->bucket_count * 2 : 256;
	struct entry **buckets = kt_calloc(count, sizeof(*buckets));

	if (!buckets)
		return false;
	for (uint32_t i = 0; i < set->bucket_count; i++) {
		for (struct entry *entry = set->buckets[i], *next; entry; entry = next) {
			next = entry->next;
			entry->next = buckets[entry->hash & (count - 1)];
			buckets[entry->hash & (count - 1)] = entry;
		}
	}
	kt_free(set->buckets);
	set->buckets = buckets;
	set->bucket_count = count;
	return true;
}

static const char *keep_file(struct kt_set *set, const char *file)
{
	if (!file)
		return NULL;
	if (!set->file || strcmp(set->file, file) != 0)
		set->file = kt_arena_str(&set->arena, file, strlen(file));
	return set->file;
}

/* The entry of a key, made if need be; *ret_new says which. NULL when memory ran out. */
static struct entry *put(struct kt_set *set, const char *key, const struct kt_resource *resource, uint32_t line,
			 bool *ret_new)
{
	struct entry *entry = find(set, key);
	size_t len = strlen(key);

	*ret_new = !entry;
	if (entry) {
		entry->count++;
		return entry;
	}
	if (set->entry_count >= set->bucket_count && !grow(set))
		return NULL;
	entry = kt_arena_alloc(&set->arena, sizeof(*entry) + len + 1);
	if (!entry)
		return NULL;
	memcpy(entry->key, key, len + 1);
	entry->hash = hash_of(key);
	entry->count = 1;
	entry->line = line;
	entry->kind = resource ? resource->kind : KT_RES_NONE;
	entry->file = resource ? keep_file(set, resource->file) : NULL;
	entry->next = set->buckets[entry->hash & (set->bucket_count - 1)];
	set->buckets[entry->hash & (set->bucket_count - 1)] = entry;
	set->entry_count++;
	return entry;
}

enum kt_code kt_set_create(struct kt_set **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	return *ret ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory");
}

void kt_set_destroy(struct kt_set *set)
{
	if (!set)
		return;
	kt_arena_finish(&set->arena);
	kt_free(set->buckets);
	kt_free(set);
}

uint32_t kt_set_count(const struct kt_set *set, enum kt_kind kind)
{
	uint32_t n = 0;

	if (kind != KT_RES_NONE)
		return set->kinds[kind];
	for (int i = 0; i < KT_RES_COUNT; i++)
		n += set->kinds[i];
	return n;
}

/* --- adding ------------------------------------------------------------------------------------------------------- */

/* Room for a letter, a kind, a namespace and a name of 253 bytes, or a path of 4,095. */
#define KEY_MAX 4200

struct adding {
	struct kt_set *set;
	const struct kt_resource *resource;
	struct kt_report *report;
	bool failed;
};

__attribute__((format(printf, 3, 4))) static struct entry *add(struct adding *a, const char *path, const char *fmt, ...)
{
	char key[KEY_MAX];
	struct entry *entry;
	va_list args;
	bool made;

	va_start(args, fmt);
	(void)vsnprintf(key, sizeof(key), fmt, args);
	va_end(args);
	entry = put(a->set, key, a->resource, kt_resource_line(a->resource, path), &made);
	if (!entry) {
		a->failed = true;
		return NULL;
	}
	if (!made)
		return entry;
	entry->what = path;
	return entry;
}

/* What is asked for; the check comes at the end, when all is known. */
#define ask(a, path, ...) ((void)add(a, path, __VA_ARGS__))

static const char *place(const struct entry *entry, char out[512])
{
	(void)snprintf(out, 512, "%s:%u", entry->file ? entry->file : "-", entry->line);
	return out;
}

static void add_owner(struct adding *a, const char *path, const char *ns, const char *name)
{
	struct entry *entry = add(a, path, "s%s/%s", ns, name);
	char where[512], key[KEY_MAX];
	uint32_t line = kt_resource_line(a->resource, path);

	if (!entry)
		return;
	if (entry->count > 1) {
		kt_report_add(a->report, KT_COMPLAINT_ERROR, a->resource->file, line,
			      "%s (%s) has an owner already: %s at %s; one secret has one owner, choose another name",
			      path, name, kt_kind_name(entry->kind), place(entry, where));
		return;
	}
	/* Namespaces other than default have a folder beside the secrets of default: the names must differ. */
	(void)snprintf(key, sizeof(key), "n%s", name);
	if (!strcmp(ns, "default") && find(a->set, key))
		kt_report_add(a->report, KT_COMPLAINT_ERROR, a->resource->file, line,
			      "%s (%s) is also the folder of namespace %s; choose another name", path, name, name);
	if (!strcmp(ns, "default"))
		return;
	ask(a, path, "n%s", ns);
	(void)snprintf(key, sizeof(key), "sdefault/%s", ns);
	entry = find(a->set, key);
	if (entry)
		kt_report_add(a->report, KT_COMPLAINT_ERROR, a->resource->file, line,
			      "metadata.namespace (%s) is also the folder of the secret at %s; choose another name", ns,
			      place(entry, where));
}

static void add_listeners(struct adding *a, const struct kt_acme *acme)
{
	bool http = !acme->solvers.count, alpn = false;

	for (uint32_t i = 0; i < acme->solvers.count; i++) {
		http = http || acme->solvers.items[i].http01;
		alpn = alpn || acme->solvers.items[i].tls_alpn01;
	}
	if (http && !acme->webroot && !a->set->listener)
		a->set->listener = add(a, "spec.acme.solvers", "h");
	if (alpn && !a->set->alpn)
		a->set->alpn = add(a, "spec.acme.solvers", "t");
}

static void add_issuer(struct adding *a)
{
	const struct kt_issuer_spec *spec = &a->resource->issuer;
	const char *ns = kt_kind_namespaced(a->resource->kind) ? a->resource->meta.ns : "default";

	if (spec->ca)
		ask(a, "spec.ca.secretName", "S%s/%s", ns, spec->ca->secret_name);
	if (spec->acme && spec->acme->disable_account_key_generation)
		ask(a, "spec.acme.privateKeySecretRef.name", "S%s/%s", ns, spec->acme->private_key_ref.name);
	if (spec->acme)
		add_listeners(a, spec->acme);
}

static void add_token_issuer(struct adding *a, struct entry *entry)
{
	const struct kt_resource *resource = a->resource;
	const char *ns = resource->meta.ns;
	const struct kt_aws_issuer *aws = resource->token_issuer.aws;
	const struct kt_oauth2_auth *auth;

	entry->local = resource->token_issuer.local != NULL;
	entry->aws = aws != NULL;
	if (aws && aws->web_identity)
		ask(a, "spec.aws.webIdentity.tokenRef", "T%s/%s", ns, aws->web_identity->token_ref);
	if (aws && aws->roles_anywhere)
		ask(a, "spec.aws.rolesAnywhere.certificateRef", "X%s/%s", ns, aws->roles_anywhere->certificate_ref);
	if (!resource->token_issuer.oauth2)
		return;
	auth = &resource->token_issuer.oauth2->auth;
	entry->by_tls = auth->certificate_ref != NULL;
	entry->public = auth->method == KT_AUTH_NONE;
	if (auth->client_secret_ref.name)
		ask(a, "spec.oauth2.auth.clientSecretRef.name", "S%s/%s", ns, auth->client_secret_ref.name);
	if (auth->key_secret_ref.name)
		ask(a, "spec.oauth2.auth.keySecretRef.name", "S%s/%s", ns, auth->key_secret_ref.name);
	if (auth->token_ref)
		ask(a, "spec.oauth2.auth.tokenRef", "T%s/%s", ns, auth->token_ref);
	if (auth->certificate_ref) {
		ask(a, "spec.oauth2.auth.certificateRef", "X%s/%s", ns, auth->certificate_ref);
		ask(a, "spec.oauth2.auth.certificateRef", "c%d/%s/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns,
		    resource->meta.name, auth->certificate_ref);
	}
}

static void ask_source(struct adding *a, const char *ref, const char *secret, const struct kt_token_source *source)
{
	const char *ns = a->resource->meta.ns;

	if (source->token_ref)
		ask(a, ref, "T%s/%s", ns, source->token_ref);
	if (source->secret.name)
		ask(a, secret, "S%s/%s", ns, source->secret.name);
}

static void ask_grant(struct adding *a, const struct kt_token_grant *grant)
{
	const struct kt_token_exchange *exchange = grant->token_exchange;

	if (exchange) {
		ask_source(a, "spec.grant.tokenExchange.subject.tokenRef",
			   "spec.grant.tokenExchange.subject.secretRef.name", &exchange->subject);
		ask_source(a, "spec.grant.tokenExchange.actor.tokenRef",
			   "spec.grant.tokenExchange.actor.secretRef.name", &exchange->actor);
	}
	if (grant->jwt_bearer)
		ask_source(a, "spec.grant.jwtBearer.assertion.tokenRef",
			   "spec.grant.jwtBearer.assertion.secretRef.name", &grant->jwt_bearer->assertion);
	if (grant->refresh_token)
		ask(a, "spec.grant.refreshToken.secretRef.name", "S%s/%s", a->resource->meta.ns,
		    grant->refresh_token->secret.name);
}

static void add_token(struct adding *a)
{
	const struct kt_token_spec *token = &a->resource->token;
	const struct kt_token_grant *grant = &token->grant;
	const char *ns = a->resource->meta.ns, *issuer = token->issuer_ref.name;

	add_owner(a, "spec.secretName", ns, token->secret_name);
	ask(a, "spec.issuerRef.name", "I%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->claims.subject || token->claims.client_id || token->claims.extra.count)
		ask(a, "spec.claims", "L%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (!(token->outputs & ~KT_TOKEN_OUTPUTS_AWS))
		ask(a, "spec.secretName", "w%s/%s", ns, token->secret_name);
	if (token->outputs & KT_TOKEN_OUTPUTS_AWS)
		ask(a, "spec.outputs", "W%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->outputs & ~KT_TOKEN_OUTPUTS_AWS)
		ask(a, "spec.outputs", "Z%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->audiences.count)
		ask(a, "spec.audiences", "z%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->scopes.count)
		ask(a, "spec.scopes", "z%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (!token->audiences.count)
		ask(a, "spec.audiences", "A%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (grant->token_exchange || grant->jwt_bearer || grant->refresh_token)
		ask(a, "spec.grant", "O%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	else
		ask(a, "spec.issuerRef.name", "P%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->dpop)
		ask(a, "spec.dpop", "O%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
	if (token->certificate_ref) {
		ask(a, "spec.certificateRef", "O%d/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer);
		ask(a, "spec.certificateRef", "X%s/%s", ns, token->certificate_ref);
		ask(a, "spec.certificateRef", "B%d/%s/%s/%s", (int)KT_RES_TOKEN_ISSUER, ns, issuer,
		    token->certificate_ref);
	}
	ask_grant(a, grant);
}

static void add_client(struct adding *a)
{
	const struct kt_client_credential_spec *spec = &a->resource->client;
	const char *ns = a->resource->meta.ns;

	add_owner(a, "spec.secretName", ns, spec->secret_name);
	for (uint32_t i = 0; i < spec->clients.count; i++) {
		if (spec->clients.items[i].secret.name)
			ask(a, "spec.clients", "S%s/%s", ns, spec->clients.items[i].secret.name);
	}
	if (spec->issuer.anypoint)
		ask(a, "spec.issuer.anypoint.tokenRef", "T%s/%s", ns, spec->issuer.anypoint->token_ref);
	if (spec->issuer.okta)
		ask(a, "spec.issuer.okta.tokenRef", "T%s/%s", ns, spec->issuer.okta->token_ref);
}

static void add_certificate(struct adding *a)
{
	const struct kt_certificate_spec *cert = &a->resource->certificate;
	const struct kt_pkcs12 *p12 = cert->keystores.pkcs12;
	const struct kt_jks *jks = cert->keystores.jks;
	const char *ns = a->resource->meta.ns;

	add_owner(a, "spec.secretName", ns, cert->secret_name);
	ask(a, "spec.issuerRef.name", "I%d/%s/%s", (int)cert->issuer_ref.kind,
	    cert->issuer_ref.kind == KT_RES_CLUSTER_ISSUER ? "" : ns, cert->issuer_ref.name);
	if (p12 && p12->create && p12->password_ref)
		ask(a, "spec.keystores.pkcs12.passwordSecretRef.name", "S%s/%s", ns, p12->password_ref->name);
	if (jks && jks->create && jks->password_ref)
		ask(a, "spec.keystores.jks.passwordSecretRef.name", "S%s/%s", ns, jks->password_ref->name);
}

static void add_consumer(struct adding *a)
{
	const struct kt_consumer_spec *consumer = &a->resource->consumer;
	const char *ns = a->resource->meta.ns;

	for (uint32_t i = 0; i < consumer->secrets.count; i++)
		ask(a, "spec.secrets", "C%s/%s", ns, consumer->secrets.items[i]);
	for (uint32_t i = 0; consumer->socket && i < consumer->socket->secrets.count; i++)
		ask(a, "spec.socket.secrets", "T%s/%s", ns, consumer->socket->secrets.items[i]);
	for (uint32_t i = 0; i < consumer->targets.count; i++) {
		const struct kt_target *target = &consumer->targets.items[i];

		ask(a, "spec.targets.secret", "C%s/%s", ns, target->secret);
		if (target->secret_group)
			ask(a, "spec.targets.anypointSecretGroup.tokenRef", "T%s/%s", ns, target->secret_group->api.token_ref);
		if (target->private_space)
			ask(a, "spec.targets.anypointPrivateSpace.tokenRef", "T%s/%s", ns, target->private_space->api.token_ref);
	}
	if (consumer->socket && !a->set->asking)
		a->set->asking = add(a, "spec.socket", "q");
	for (uint32_t i = 0; i < consumer->volumes.count; i++) {
		const struct kt_consumer_volume *volume = &consumer->volumes.items[i];
		size_t len = strlen(volume->path);
		struct entry *entry;
		char where[512];

		while (len > 1 && volume->path[len - 1] == '/')
			len--;
		entry = add(a, "spec.volumes", "v%.*s", (int)len, volume->path);
		if (entry && entry->count > 1)
			kt_report_add(a->report, KT_COMPLAINT_ERROR, a->resource->file,
				      kt_resource_line(a->resource, "spec.volumes"),
				      "spec.volumes path (%s) is the volume of the Consumer at %s already; each needs "
				      "its own",
				      volume->path, place(entry, where));
		for (uint32_t k = 0; k < volume->sources.count; k++)
			ask(a, "spec.volumes", "C%s/%s", ns, volume->sources.items[k].secret.name);
	}
}

static void add_watch(struct adding *a)
{
	const struct kt_watch_file *file = a->resource->watch.source.file;

	if (file && file->password_ref)
		ask(a, "spec.source.file.passwordSecretRef.name", "S%s/%s", a->resource->meta.ns, file->password_ref->name);
}

static void add_agent(struct adding *a)
{
	struct entry *first = a->set->agent;
	char where[512];

	if (first) {
		kt_report_add(a->report, KT_COMPLAINT_ERROR, a->resource->file, a->resource->line,
			      "kind Agent is given a second time, the first is at %s; put the settings together",
			      place(first, where));
		return;
	}
	a->set->agent = add(a, "", "a");
	a->set->http01 = a->resource->agent.listeners.http01 != NULL;
	a->set->tls_alpn01 = a->resource->agent.listeners.tls_alpn01 != NULL;
	a->set->tokens = a->resource->agent.listeners.tokens != NULL;
}

enum kt_code kt_set_know_secret(struct kt_set *set, const char *ns, const char *name, struct kt_err *err)
{
	char key[KEY_MAX];
	bool made;

	(void)snprintf(key, sizeof(key), "k%s/%s", ns, name);
	return put(set, key, NULL, 0, &made) ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory");
}

void kt_set_look_with(struct kt_set *set, kt_set_look_fn *look, void *arg)
{
	set->look = look;
	set->look_arg = arg;
}

enum kt_code kt_set_add(struct kt_set *set, const struct kt_resource *resource, struct kt_report *report,
			struct kt_err *err)
{
	struct adding a = {.set = set, .resource = resource, .report = report};
	struct entry *entry =
		add(&a, "metadata.name", "r%d/%s/%s", (int)resource->kind, resource->meta.ns, resource->meta.name);
	char where[512];

	if (!entry)
		return kt_err_set(err, KT_E_NOMEM, "out of memory");
	if (entry->count > 1) {
		kt_report_add(report, KT_COMPLAINT_ERROR, resource->file, kt_resource_line(resource, "metadata.name"),
			      "metadata.name (%s) is taken: another %s of this name is at %s", resource->meta.name,
			      kt_kind_name(resource->kind), place(entry, where));
		return KT_OK;
	}
	set->kinds[resource->kind]++;
	switch (resource->kind) {
	case KT_RES_ISSUER:
	case KT_RES_CLUSTER_ISSUER:
		add_issuer(&a);
		break;
	case KT_RES_CERTIFICATE:
		add_certificate(&a);
		break;
	case KT_RES_SECRET:
		add_owner(&a, "metadata.name", resource->meta.ns, resource->meta.name);
		break;
	case KT_RES_TOKEN_ISSUER:
		add_token_issuer(&a, entry);
		break;
	case KT_RES_TOKEN:
		add_token(&a);
		break;
	case KT_RES_CLIENT_CREDENTIAL:
		add_client(&a);
		break;
	case KT_RES_CONSUMER:
		add_consumer(&a);
		break;
	case KT_RES_AGENT:
		add_agent(&a);
		break;
	case KT_RES_WATCH:
		add_watch(&a);
		break;
	case KT_RES_NONE:
	case KT_RES_COUNT:
	default:
		break;
	}
	return a.failed ? kt_err_set(err, KT_E_NOMEM, "out of memory") : KT_OK;
}

/* --- the whole ------------------------------------------------------------------------------------------------------
 */

/* The name nearest to that of `wanted` among the keys that differ from it in the last part only. */
static const char *nearest(const struct kt_set *set, char letter, const char *wanted)
{
	const char *name = strrchr(wanted, '/'), *found = NULL, **names;
	size_t prefix = (size_t)(name + 1 - wanted), count = 0;

	names = kt_calloc(NEAREST_MAX + 1, sizeof(*names));
	if (!names)
		return NULL;
	for (uint32_t i = 0; i < set->bucket_count; i++) {
		for (const struct entry *entry = set->buckets[i]; entry && count < NEAREST_MAX; entry = entry->next) {
			if (entry->key[0] == letter && !strncmp(entry->key + 1, wanted + 1, prefix - 1))
				names[count++] = entry->key + prefix;
		}
	}
	found = kt_nearest(name + 1, names);
	kt_free(names);
	return found;
}

/* Whether something here provides the secret; by its first letter: anything, a Certificate (X), a Token (T), one of
 * both (C). */
static bool provided(const struct kt_set *set, const char *wanted)
{
	char key[KEY_MAX], letter = wanted[0];
	const struct entry *entry;

	(void)snprintf(key, sizeof(key), "s%s", wanted + 1);
	entry = find(set, key);
	if (entry)
		return letter == 'S' || (entry->kind == KT_RES_CERTIFICATE && letter != 'T') ||
		       (entry->kind == KT_RES_TOKEN && letter != 'X') ||
		       (entry->kind == KT_RES_CLIENT_CREDENTIAL && letter == 'C');
	key[0] = 'k';
	return letter == 'S' && find(set, key);
}

static bool is_session(const struct kt_set *set, const char *wanted)
{
	char key[KEY_MAX];

	(void)snprintf(key, sizeof(key), "w%s", wanted + 1);
	return find(set, key) != NULL;
}

static void complain(struct kt_report *report, enum kt_severity severity, const struct entry *asked, const char *name,
		     const char *problem, const char *near)
{
	char more[48] = "";

	if (asked->count > 1)
		(void)snprintf(more, sizeof(more), " (asked for %u times)", asked->count);
	kt_report_add(report, severity, asked->file, asked->line, "%s (%s) %s%s%s%s%s", asked->what, name, problem,
		      near ? ", did you mean " : "", near ? near : "", near ? "?" : "", more);
}

static void check_issuer(const struct kt_set *set, const struct entry *asked, struct kt_report *report)
{
	const char *name = strrchr(asked->key, '/') + 1;
	int kind = asked->key[1] - '0';
	char key[KEY_MAX], problem[128], letter = asked->key[0];
	const struct entry *issuer;

	(void)snprintf(key, sizeof(key), "r%s", asked->key + 1);
	issuer = find(set, key);
	if (letter == 'L' && issuer && !issuer->local)
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 issuer->aws ? "has a meaning only with a local TokenIssuer, this one is aws; remove it"
				     : "has a meaning only with a local TokenIssuer, this one is oauth2; remove it",
			 NULL);
	else if (letter == 'A' && issuer && issuer->local)
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 "must not be empty: this TokenIssuer is local and writes aud into each token", NULL);
	else if (letter == 'O' && issuer && (issuer->local || issuer->aws))
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 issuer->aws ? "has a meaning only with an oauth2 TokenIssuer, this one is aws; remove it"
				     : "has a meaning only with an oauth2 TokenIssuer, this one is local; remove it",
			 NULL);
	else if (letter == 'W' && issuer && !issuer->aws)
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 "gives no AWS session: awsProcess, awsCredentials and awsEndpoint belong to an aws TokenIssuer", NULL);
	else if (letter == 'Z' && issuer && issuer->aws)
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 "gives AWS sessions, not tokens: its outputs are awsProcess, awsCredentials and awsEndpoint (raw when "
			 "none is named)", NULL);
	else if (letter == 'z' && issuer && issuer->aws)
		complain(report, KT_COMPLAINT_ERROR, asked, name,
			 "gives AWS sessions, which have none of that; remove it", NULL);
	else if (letter == 'P' && issuer && issuer->public)
		complain(
			report, KT_COMPLAINT_ERROR, asked, name,
			"has a public client (method none), which can't use client_credentials (RFC 6749 section 4.4); "
			"give it a credential, or the Token a spec.grant",
			NULL);
	if (letter != 'I' || issuer)
		return;
	(void)snprintf(problem, sizeof(problem), "names %s %s that is not there", kind == KT_RES_ISSUER ? "an" : "a",
		       kt_kind_name((enum kt_kind)kind));
	complain(report, KT_COMPLAINT_ERROR, asked, name, problem, nearest(set, 'r', asked->key));
}

/* One connection shows one certificate: that of the client authentication is also the one that the token is bound to.
 */
static void check_one_certificate(const struct kt_set *set, const struct entry *asked, struct kt_report *report)
{
	char key[KEY_MAX], *name;
	const struct entry *issuer;

	(void)snprintf(key, sizeof(key), "r%s", asked->key + 1);
	name = strrchr(key, '/');
	*name = '\0';
	issuer = find(set, key);
	*name = '/';
	key[0] = 'c';
	if (issuer && issuer->by_tls && !find(set, key))
		complain(report, KT_COMPLAINT_ERROR, asked, name + 1,
			 "is another certificate than the one in auth.certificateRef of its TokenIssuer; a connection "
			 "shows one",
			 NULL);
}

static void check_volume(const struct kt_set *set, const struct entry *volume, struct kt_report *report)
{
	char key[KEY_MAX], where[512];
	char *slash;

	(void)snprintf(key, sizeof(key), "%s", volume->key);
	while ((slash = strrchr(key, '/')) && slash > key + 1) {
		const struct entry *outer;

		*slash = '\0';
		outer = find(set, key);
		if (outer)
			kt_report_add(report, KT_COMPLAINT_ERROR, volume->file, volume->line,
				      "spec.volumes path (%s) lies inside the volume of the Consumer at %s; volumes "
				      "can't be nested",
				      volume->key + 1, place(outer, where));
	}
}

/* A warning: it may come later, or from a mounted folder. */
static void complain_secret(const struct kt_set *set, const struct entry *asked, struct kt_report *report)
{
	char problem[512];

	if (set->looked)
		(void)snprintf(problem, sizeof(problem), "names a secret that neither the manifests nor the store have; set it with "
			       "keyturn secret set, or mount its folder");
	else
		(void)snprintf(problem, sizeof(problem), "names a secret that nothing here provides%s%.300s%s; it must come from the "
			       "store (keyturn secret set) or a mounted folder",
			       set->unlooked ? ", and the store could not be looked into (" : "",
			       set->unlooked ? set->unlooked : "", set->unlooked ? ")" : "");
	complain(report, KT_COMPLAINT_WARNING, asked, strrchr(asked->key, '/') + 1, problem, nearest(set, 's', asked->key));
}

/* The store is asked only where that makes a difference. */
static void look(struct kt_set *set)
{
	bool missing = false;

	for (uint32_t i = 0; set->look && i < set->bucket_count && !missing; i++) {
		for (const struct entry *entry = set->buckets[i]; entry && !missing; entry = entry->next)
			missing = entry->key[0] == 'S' && !provided(set, entry->key);
	}
	if (!missing)
		return;
	set->unlooked = set->look(set, set->look_arg);
	set->looked = !set->unlooked;
	set->look = NULL;
}

static void check_entry(const struct kt_set *set, const struct entry *entry, struct kt_report *report)
{
	switch (entry->key[0]) {
	case 'I':
	case 'L':
	case 'A':
	case 'O':
	case 'P':
	case 'W':
	case 'Z':
	case 'z':
		check_issuer(set, entry, report);
		break;
	case 'B':
		check_one_certificate(set, entry, report);
		break;
	case 'S':
		if (!provided(set, entry->key))
			complain_secret(set, entry, report);
		break;
	case 'C':
	case 'X':
	case 'T':
		if (!provided(set, entry->key))
			complain(report, KT_COMPLAINT_ERROR, entry, strrchr(entry->key, '/') + 1,
				 entry->key[0] == 'X'   ? "names a secret that no Certificate has as its secretName"
				 : entry->key[0] == 'T' ? "names a secret that no Token has as its secretName"
							: "names a secret that no Certificate, Token or "
							  "ClientCredential has as its secretName",
				 nearest(set, 's', entry->key));
		else if (entry->key[0] == 'T' && is_session(set, entry->key))
			complain(report, KT_COMPLAINT_ERROR, entry, strrchr(entry->key, '/') + 1,
				 "is a session of AWS, which is no token", NULL);
		break;
	case 'v':
		check_volume(set, entry, report);
		break;
	default:
		break;
	}
}

static int compare_complaints(const void *a, const void *b)
{
	const struct kt_complaint *x = a, *y = b;
	int order = strcmp(x->file, y->file);

	return order ? order : x->line < y->line ? -1 : x->line > y->line;
}

enum kt_code kt_set_check(struct kt_set *set, struct kt_report *report, struct kt_err *err)
{
	uint32_t before = report->count;

	(void)err;
	look(set);
	for (uint32_t i = 0; i < set->bucket_count; i++) {
		for (const struct entry *entry = set->buckets[i]; entry; entry = entry->next)
			check_entry(set, entry, report);
	}
	/* The table has no order of its own. */
	if (report->count > before)
		qsort(report->items + before, report->count - before, sizeof(*report->items), compare_complaints);
	if (set->listener && !set->http01)
		kt_report_add(report, KT_COMPLAINT_WARNING, set->listener->file, set->listener->line,
			      "spec.acme.solvers can't be answered: no Agent has spec.listeners.http01 (such as "
			      "\":80\"), and no annotation "
			      "keyturn.dev/http01-webroot names a folder");
	if (set->alpn && !set->tls_alpn01)
		kt_report_add(report, KT_COMPLAINT_WARNING, set->alpn->file, set->alpn->line,
			      "spec.acme.solvers has tls-alpn-01, which can't be answered: no Agent has "
			      "spec.listeners.tlsAlpn01 (such as \":443\")");
	if (set->asking && !set->tokens)
		kt_report_add(report, KT_COMPLAINT_WARNING, set->asking->file, set->asking->line,
			      "spec.socket is of no use: no Agent has spec.listeners.tokens (such as "
			      "\"unix:/run/keyturn/tokens.sock\")");
	return KT_OK;
}
