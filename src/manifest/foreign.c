/* Reads documents that are not ours: Istio's security resources, API Manager's policies, Flex Gateway's files. */
#include "kt/foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/node.h"

#define TREE_CHUNK ((size_t)16 * 1024)
#define ITEMS_MAX  1000u
#define DEPTH_MAX  2u

struct reader {
	const char *file;
	kt_foreign_fn *on_foreign;
	void *arg;
	struct kt_report *report, *quiet;
};

/* One document on its way. */
struct maker {
	struct kt_foreign *f;
	struct kt_arena *arena;
	struct kt_report *report;
	const char *file;
	unsigned errors;
};

/* --- which documents ---------------------------------------- */

static bool text_is(const struct kt_node *node, const char *text)
{
	return node && node->type == KT_NODE_STRING && !strcmp(node->text, text);
}

static bool has_prefix(const struct kt_node *node, const char *prefix)
{
	return node && node->type == KT_NODE_STRING && kt_starts_with(node->text, prefix);
}

static const char *text_of(const struct kt_node *node)
{
	return node && node->text && node->type != KT_NODE_NULL && node->type != KT_NODE_LIST &&
			       node->type != KT_NODE_MAP
		       ? node->text
		       : NULL;
}

/* The name of an API Manager policy in what its API and its exports say; NULL: none. */
static const char *policy_id(const struct kt_node *root)
{
	static const char *const keys[] = {"assetId", "policyTemplateId", "policyId", "templateId"};
	const struct kt_node *template = kt_node_get(root, "template");

	if (template && template->type == KT_NODE_MAP && text_of(kt_node_get(template, "assetId")))
		return text_of(kt_node_get(template, "assetId"));
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct kt_node *id = kt_node_get(root, keys[i]);

		if (id && id->type == KT_NODE_STRING)
			return id->text;
	}
	return NULL;
}

static const struct kt_node *policy_config(const struct kt_node *root, const char **ret_path)
{
	static const char *const keys[] = {"configurationData", "configuration", "config"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct kt_node *config = kt_node_get(root, keys[i]);

		if (config && config->type == KT_NODE_MAP) {
			*ret_path = keys[i];
			return config;
		}
	}
	return NULL;
}

/* Bare configuration of a policy that we look at. */
static bool bare_config(const struct kt_node *root)
{
	return kt_node_get(root, "jwtOrigin") || kt_node_get(root, "jwksUrl") ||
	       kt_node_get(root, "credentialsOriginHasHttpBasicAuthenticationHeader");
}

static bool is_policy(const struct kt_node *root)
{
	const char *path;

	if (root->type != KT_NODE_MAP || kt_node_get(root, "apiVersion") || kt_node_get(root, "kind"))
		return false;
	return bare_config(root) || (policy_config(root, &path) && policy_id(root));
}

/* What a list of policies is in: the list itself, or a member `policies`. */
static const struct kt_node *policy_list(const struct kt_node *root)
{
	const struct kt_node *list = root;

	if (root->type == KT_NODE_MAP && !kt_node_get(root, "apiVersion") && !kt_node_get(root, "kind"))
		list = kt_node_get(root, "policies");
	return list && list->type == KT_NODE_LIST && list->first && is_policy(list->first) ? list : NULL;
}

static enum kt_foreign_kind kind_of(const struct kt_node *root)
{
	static const struct {
		const char *group, *kind;
		enum kt_foreign_kind is;
	} rows[] = {
		{"security.istio.io/", "RequestAuthentication", KT_FOREIGN_REQUEST_AUTHENTICATION},
		{"security.istio.io/", "AuthorizationPolicy", KT_FOREIGN_AUTHORIZATION_POLICY},
		{"security.istio.io/", "PeerAuthentication", KT_FOREIGN_PEER_AUTHENTICATION},
		{"gateway.mulesoft.com/", "PolicyBinding", KT_FOREIGN_API_POLICY},
		{"gateway.mulesoft.com/", "ApiInstance", KT_FOREIGN_API_INSTANCE},
		{"gateway.mulesoft.com/", "Service", KT_FOREIGN_SERVICE},
		{"security.istio.io/", NULL, KT_FOREIGN_OTHER},
		{"gateway.mulesoft.com/", NULL, KT_FOREIGN_OTHER},
	};
	const struct kt_node *api = kt_node_get(root, "apiVersion"), *kind = kt_node_get(root, "kind");

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (has_prefix(api, rows[i].group) && (!rows[i].kind || text_is(kind, rows[i].kind)))
			return rows[i].is;
	}
	return root->type == KT_NODE_MAP && is_policy(root) ? KT_FOREIGN_API_POLICY : KT_FOREIGN_NONE;
}

bool kt_foreign_is(const struct kt_node *root)
{
	return kind_of(root) != KT_FOREIGN_NONE || policy_list(root) != NULL;
}

/* --- pieces ---------------------------------------- */

__attribute__((format(printf, 3, 4))) static void wrong(struct maker *m, const struct kt_node *node, const char *fmt,
							...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	m->errors++;
	kt_report_add(m->report, KT_COMPLAINT_ERROR, m->file, node->line, "%s", text);
}

static const char *keep(struct maker *m, const struct kt_node *node)
{
	const char *text = text_of(node);

	return text ? kt_arena_str(m->arena, text, strlen(text)) : NULL;
}

static struct kt_foreign_text get_text(struct maker *m, const struct kt_node *map, const char *key)
{
	const struct kt_node *node = kt_node_get(map, key);

	if (node && (node->type == KT_NODE_LIST || node->type == KT_NODE_MAP))
		wrong(m, node, "%s must be a string, not %s", key, kt_node_type_name(node->type));
	return (struct kt_foreign_text){keep(m, node), node ? node->line : map->line};
}

/* API Manager writes booleans as texts here and there. */
static bool get_bool(const struct kt_node *map, const char *key)
{
	const struct kt_node *node = kt_node_get(map, key);

	return node && ((node->type == KT_NODE_BOOL && node->truth) || text_is(node, "true"));
}

static int64_t get_int(const struct kt_node *map, const char *key, int64_t absent)
{
	const char *text = text_of(kt_node_get(map, key));
	int64_t value;

	return text && kt_parse_i64(kt_view_str(text), -1000000, 1000000000, &value, NULL) == KT_OK ? value : absent;
}

/* A list within limits; NULL with a complaint when it is none. */
static const struct kt_node *get_list(struct maker *m, const struct kt_node *map, const char *key)
{
	const struct kt_node *node = kt_node_get(map, key);

	if (!node || node->type == KT_NODE_NULL)
		return NULL;
	if (node->type != KT_NODE_LIST) {
		wrong(m, node, "%s must be a list, not %s", key, kt_node_type_name(node->type));
		return NULL;
	}
	if (node->len > ITEMS_MAX) {
		wrong(m, node, "%s has %u items, at most %u are read", key, node->len, ITEMS_MAX);
		return NULL;
	}
	return node;
}

static void *make_items(struct maker *m, const struct kt_node *list, size_t size, uint32_t *ret_count)
{
	void *items = list && list->len ? kt_arena_alloc(m->arena, list->len * size) : NULL;

	*ret_count = items ? list->len : 0;
	return items;
}

static struct kt_foreign_texts get_texts(struct maker *m, const struct kt_node *map, const char *key)
{
	const struct kt_node *list = get_list(m, map, key);
	struct kt_foreign_texts texts = {.line = list ? list->line : map->line, .given = list != NULL};
	uint32_t i = 0;

	texts.items = make_items(m, list, sizeof(*texts.items), &texts.count);
	for (const struct kt_node *item = texts.count ? list->first : NULL; item; item = item->next) {
		if (!text_of(item)) {
			wrong(m, item, "%s[%u] must be a string, not %s", key, i, kt_node_type_name(item->type));
			texts.count--;
			continue;
		}
		texts.items[i++] = (struct kt_foreign_text){keep(m, item), item->line};
	}
	return texts;
}

/* A list, or one text with commas. */
static struct kt_foreign_texts get_commas(struct maker *m, const struct kt_node *map, const char *key)
{
	const struct kt_node *node = kt_node_get(map, key);
	struct kt_foreign_texts texts = {.line = node ? node->line : map->line, .given = node != NULL};
	const char *at = text_of(node);
	uint32_t count = 1;

	if (node && node->type == KT_NODE_LIST)
		return get_texts(m, map, key);
	for (const char *comma = at; comma && (comma = strchr(comma, ',')) != NULL; comma++)
		count++;
	if (count > ITEMS_MAX)
		wrong(m, node, "%s has %u items, at most %u are read", key, count, ITEMS_MAX);
	texts.items = at && count <= ITEMS_MAX ? kt_arena_alloc(m->arena, count * sizeof(*texts.items)) : NULL;
	while (texts.items && at) {
		const char *end = strchr(at, ',');
		size_t len;

		at += strspn(at, " \t");
		len = end ? (size_t)(end > at ? end - at : 0) : strlen(at);
		while (len && (at[len - 1] == ' ' || at[len - 1] == '\t'))
			len--;
		if (len)
			texts.items[texts.count++] =
				(struct kt_foreign_text){kt_arena_str(m->arena, at, len), texts.line};
		at = end ? end + 1 : NULL;
	}
	return texts;
}

static int compare_texts(const void *a, const void *b)
{
	const struct kt_foreign_text *x = a, *y = b;

	return strcmp(x->text ? x->text : "", y->text ? y->text : "");
}

static const char *join(struct maker *m, const char *a, const char *sep, const char *b)
{
	KT_AUTOFREE char *text = kt_asprintf("%s%s%s", a ? a : "", sep, b ? b : "");

	m->arena->failed |= !text;
	return text ? kt_arena_str(m->arena, text, strlen(text)) : NULL;
}

static void get_selector(struct maker *m, const struct kt_node *spec)
{
	const struct kt_node *labels = kt_node_get(kt_node_get(spec, "selector"), "matchLabels");
	const struct kt_node *refs = get_list(m, spec, "targetRefs"), *ref = kt_node_get(spec, "targetRef");
	kt_foreign_selector *s = &m->f->selector;
	uint32_t room = (labels && labels->type == KT_NODE_MAP ? labels->len : 0) + (refs ? refs->len : 0) + 1;

	if (room > ITEMS_MAX)
		return wrong(m, labels ? labels : refs, "the selector has more than %u labels", ITEMS_MAX);
	s->items = kt_arena_alloc(m->arena, room * sizeof(*s->items));
	if (!s->items)
		return;
	for (const struct kt_node *at = labels && labels->type == KT_NODE_MAP ? labels->first : NULL; at; at = at->next)
		s->items[s->count++] = (struct kt_foreign_text){join(m, at->key, "=", text_of(at)), at->line};
	for (const struct kt_node *at = refs ? refs->first : ref; at; at = refs ? at->next : NULL) {
		const char *kind = text_of(kt_node_get(at, "kind")), *name = text_of(kt_node_get(at, "name"));
		KT_AUTOFREE char *both = kt_asprintf("%s/%s", kind ? kind : "?", name ? name : "?");

		s->items[s->count++] = (struct kt_foreign_text){join(m, "targetRef", "=", both), at->line};
	}
	qsort(s->items, s->count, sizeof(*s->items), compare_texts);
}

/* --- Istio ---------------------------------------- */

static void get_headers(struct maker *m, const struct kt_node *map, struct kt_foreign_jwt_rule *rule)
{
	const struct kt_node *list = get_list(m, map, "fromHeaders");
	uint32_t i = 0;

	rule->from_line = list ? list->line : map->line;
	rule->elsewhere = list || kt_node_get(map, "fromParams") || kt_node_get(map, "fromCookies");
	rule->headers = make_items(m, list, sizeof(*rule->headers), &rule->header_count);
	for (const struct kt_node *item = rule->header_count ? list->first : NULL; item; item = item->next) {
		rule->headers[i].name = keep(m, kt_node_get(item, "name"));
		rule->headers[i++].prefix = keep(m, kt_node_get(item, "prefix"));
	}
}

static void get_request_authentication(struct maker *m, const struct kt_node *spec)
{
	const struct kt_node *list = get_list(m, spec, "jwtRules");
	struct kt_foreign *f = m->f;
	uint32_t i = 0;

	f->jwt_rules = make_items(m, list, sizeof(*f->jwt_rules), &f->jwt_rule_count);
	for (const struct kt_node *item = f->jwt_rule_count ? list->first : NULL; item; item = item->next, i++) {
		struct kt_foreign_jwt_rule *rule = &f->jwt_rules[i];

		rule->line = item->line;
		rule->index = i;
		rule->issuer = get_text(m, item, "issuer");
		rule->jwks_uri = get_text(m, item, "jwksUri");
		rule->jwks = get_text(m, item, "jwks");
		rule->audiences = get_texts(m, item, "audiences");
		rule->forward = get_bool(item, "forwardOriginalToken");
		get_headers(m, item, rule);
		if (!rule->issuer.text || !*rule->issuer.text)
			wrong(m, item, "spec.jwtRules[%u].issuer is required", i);
	}
}

static void get_match(struct maker *m, const struct kt_node *map, const char *field, const char *not_field,
		      struct kt_foreign_match *match)
{
	match->field = field;
	match->values = get_texts(m, map, field);
	match->not_values = get_texts(m, map, not_field);
}

static void get_sources(struct maker *m, const struct kt_node *map, struct kt_foreign_rule *rule)
{
	static const char *const fields[KT_FOREIGN_SOURCE_FIELDS][2] = {
		{"principals", "notPrincipals"}, {"requestPrincipals", "notRequestPrincipals"},
		{"namespaces", "notNamespaces"}, {"serviceAccounts", "notServiceAccounts"},
		{"ipBlocks", "notIpBlocks"},     {"remoteIpBlocks", "notRemoteIpBlocks"}};
	const struct kt_node *list = get_list(m, map, "from");
	uint32_t n = 0;

	rule->from = make_items(m, list, sizeof(*rule->from), &rule->from_count);
	for (const struct kt_node *item = rule->from_count ? list->first : NULL; item; item = item->next, n++) {
		const struct kt_node *source = kt_node_get(item, "source");

		for (size_t i = 0; i < KT_FOREIGN_SOURCE_FIELDS; i++)
			get_match(m, source ? source : item, fields[i][0], fields[i][1], &rule->from[n].fields[i]);
	}
}

static void get_operations(struct maker *m, const struct kt_node *map, struct kt_foreign_rule *rule)
{
	static const char *const fields[KT_FOREIGN_TARGET_FIELDS][2] = {
		{"hosts", "notHosts"}, {"ports", "notPorts"}, {"methods", "notMethods"}, {"paths", "notPaths"}};
	const struct kt_node *list = get_list(m, map, "to");
	uint32_t n = 0;

	rule->to = make_items(m, list, sizeof(*rule->to), &rule->to_count);
	for (const struct kt_node *item = rule->to_count ? list->first : NULL; item; item = item->next, n++) {
		const struct kt_node *operation = kt_node_get(item, "operation");

		for (size_t i = 0; i < KT_FOREIGN_TARGET_FIELDS; i++)
			get_match(m, operation ? operation : item, fields[i][0], fields[i][1], &rule->to[n].fields[i]);
	}
}

static void get_conditions(struct maker *m, const struct kt_node *map, struct kt_foreign_rule *rule)
{
	const struct kt_node *list = get_list(m, map, "when");
	uint32_t n = 0;

	rule->when = make_items(m, list, sizeof(*rule->when), &rule->when_count);
	for (const struct kt_node *item = rule->when_count ? list->first : NULL; item; item = item->next, n++) {
		struct kt_foreign_match *match = &rule->when[n];

		match->field = keep(m, kt_node_get(item, "key"));
		match->values = get_texts(m, item, "values");
		match->not_values = get_texts(m, item, "notValues");
		if (!match->field) {
			match->field = "";
			wrong(m, item, "when[%u].key is required", n);
		}
	}
}

static void get_authorization_policy(struct maker *m, const struct kt_node *spec)
{
	static const char *const actions[] = {"ALLOW", "DENY", "AUDIT", "CUSTOM"};
	const struct kt_node *action = kt_node_get(spec, "action"), *list = get_list(m, spec, "rules");
	struct kt_foreign *f = m->f;
	uint32_t n = 0;
	size_t i;

	for (i = 0; action && i < 4 && !text_is(action, actions[i]); i++)
		;
	if (action && i == 4)
		wrong(m, action, "spec.action must be ALLOW, DENY, AUDIT or CUSTOM");
	f->action = action && i < 4 ? (enum kt_foreign_action)i : KT_FOREIGN_ALLOW;
	f->rules = make_items(m, list, sizeof(*f->rules), &f->rule_count);
	for (const struct kt_node *item = f->rule_count ? list->first : NULL; item; item = item->next, n++) {
		f->rules[n].line = item->line;
		f->rules[n].index = n;
		get_sources(m, item, &f->rules[n]);
		get_operations(m, item, &f->rules[n]);
		get_conditions(m, item, &f->rules[n]);
	}
}

static void get_peer_authentication(struct maker *m, const struct kt_node *spec)
{
	const struct kt_node *mode = kt_node_get(kt_node_get(spec, "mtls"), "mode");

	m->f->strict = text_is(mode, "STRICT");
	m->f->strict_line = mode ? mode->line : m->f->line;
}

/* --- MuleSoft ---------------------------------------- */

static void get_claims(struct maker *m, const struct kt_node *map, struct kt_foreign_config *c)
{
	const struct kt_node *lists[] = {get_list(m, map, "mandatoryCustomClaims"),
					 get_list(m, map, "nonMandatoryCustomClaims")};
	uint32_t room = (lists[0] ? lists[0]->len : 0) + (lists[1] ? lists[1]->len : 0);

	c->claims = room ? kt_arena_alloc(m->arena, room * sizeof(*c->claims)) : NULL;
	for (size_t i = 0; i < 2 && c->claims; i++) {
		for (const struct kt_node *item = lists[i] ? lists[i]->first : NULL; item; item = item->next) {
			const char *key = keep(m, kt_node_get(item, "key")),
				   *value = keep(m, kt_node_get(item, "value"));

			if (!key) {
				wrong(m, item, "a custom claim needs a key");
				continue;
			}
			c->claims[c->claim_count++] = (struct kt_foreign_claim){key, value, item->line, i == 0};
		}
	}
}

static void get_config(struct maker *m, const struct kt_node *map)
{
	struct kt_foreign_config *c = &m->f->config;
	const struct kt_node *ttl = kt_node_get(map, "jwksServiceTimeToLive");
	const struct kt_node *nbf = kt_node_get(map, "mandatoryNbfClaim");
	const struct kt_node *basic = kt_node_get(map, "credentialsOriginHasHttpBasicAuthenticationHeader");

	c->line = map->line;
	c->origin = get_text(m, map, basic ? "credentialsOriginHasHttpBasicAuthenticationHeader" : "jwtOrigin");
	c->expression = get_text(m, map, "jwtExpression");
	c->signing_method = get_text(m, map, "signingMethod");
	c->key_length = get_text(m, map, "signingKeyLength");
	c->key_origin = get_text(m, map, "jwtKeyOrigin");
	c->text_key = get_text(m, map, "textKey");
	c->jwks_urls = get_commas(m, map, "jwksUrl");
	c->jwks_minutes = get_int(map, "jwksServiceTimeToLive", 60);
	c->jwks_minutes_line = ttl ? ttl->line : map->line;
	c->skip_client_id = get_bool(map, "skipClientIdValidation");
	c->client_id = get_text(m, map, "clientIdExpression");
	c->validate_aud = get_bool(map, "validateAudClaim");
	c->mandatory_aud = get_bool(map, "mandatoryAudClaim");
	c->mandatory_exp = get_bool(map, "mandatoryExpClaim");
	c->mandatory_nbf = get_bool(map, "mandatoryNbfClaim");
	c->mandatory_nbf_line = nbf ? nbf->line : map->line;
	c->validate_custom = get_bool(map, "validateCustomClaim");
	c->audiences = get_commas(m, map, "supportedAudiences");
	c->client_certificate = get_bool(map, "requireClientCertificate");
	get_claims(m, map, c);
}

static enum kt_foreign_policy policy_of(const char *id, const struct kt_node *config)
{
	if (id && strstr(id, "jwt-validation"))
		return KT_FOREIGN_POLICY_JWT;
	if (id && strstr(id, "client-id-enforcement"))
		return KT_FOREIGN_POLICY_CLIENT_ID;
	if (id && (!strcmp(id, "tls") || kt_starts_with(id, "tls-") || kt_starts_with(id, "mtls")))
		return KT_FOREIGN_POLICY_TLS;
	if (id)
		return KT_FOREIGN_POLICY_OTHER;
	return kt_node_get(config, "credentialsOriginHasHttpBasicAuthenticationHeader") ? KT_FOREIGN_POLICY_CLIENT_ID
											: KT_FOREIGN_POLICY_JWT;
}

static void get_binding(struct maker *m, const struct kt_node *spec)
{
	const struct kt_node *target = kt_node_get(spec, "targetRef"), *config = kt_node_get(spec, "config");
	const struct kt_node *ref = kt_node_get(spec, "policyRef");

	m->f->config_path = "spec.config";
	m->f->order = get_int(spec, "order", 0);
	m->f->target_kind = target && target->type == KT_NODE_MAP ? get_text(m, target, "kind")
								  : (struct kt_foreign_text){NULL, spec->line};
	m->f->target = target && target->type == KT_NODE_MAP ? get_text(m, target, "name")
							     : (struct kt_foreign_text){NULL, spec->line};
	if (config && config->type == KT_NODE_MAP)
		get_config(m, config);
	m->f->config.policy = policy_of(text_of(kt_node_get(ref, "name")), config);
	if (!ref || !text_of(kt_node_get(ref, "name")))
		m->f->config.policy = KT_FOREIGN_POLICY_OTHER;
	m->f->config.line = config ? config->line : spec->line;
}

static void get_policy(struct maker *m, const struct kt_node *root)
{
	const char *path = "", *id = policy_id(root);
	const struct kt_node *config = policy_config(root, &path);

	m->f->kind_name = "API policy";
	m->f->config_path = kt_arena_str(m->arena, path, strlen(path));
	m->f->name = id ? kt_arena_str(m->arena, id, strlen(id)) : NULL;
	m->f->order = get_int(root, "order", 0);
	m->f->disabled = get_bool(root, "disabled");
	get_config(m, config ? config : root);
	m->f->config.policy = policy_of(id, config ? config : root);
	if (!m->f->name)
		m->f->name = m->f->config.policy == KT_FOREIGN_POLICY_JWT ? "jwt-validation" : "client-id-enforcement";
}

/* --- one document ---------------------------------------- */

void kt_foreign_destroy(struct kt_foreign *foreign)
{
	struct kt_arena arena;

	if (!foreign)
		return;
	arena = *foreign->arena;
	kt_arena_finish(&arena);
}

static struct kt_foreign *create(const char *file)
{
	struct kt_arena arena = {0};
	struct kt_foreign *f = kt_arena_alloc(&arena, sizeof(*f));
	struct kt_arena *own = kt_arena_alloc(&arena, sizeof(*own));
	const char *copy = kt_arena_str(&arena, file, strlen(file));

	if (!f || !own || !copy) {
		kt_arena_finish(&arena);
		return NULL;
	}
	f->arena = own;
	f->file = copy;
	*own = arena;
	return f;
}

static void fill(struct maker *m, const struct kt_node *root)
{
	const struct kt_node *meta = kt_node_get(root, "metadata"), *spec = kt_node_get(root, "spec");
	static const struct kt_node nothing = {.type = KT_NODE_MAP, .line = 0};
	const struct kt_node *body = spec && spec->type == KT_NODE_MAP ? spec : &nothing;
	struct kt_foreign *f = m->f;

	f->ns = keep(m, kt_node_get(meta, "namespace"));
	f->ns = f->ns && *f->ns ? f->ns : "default";
	if (f->kind == KT_FOREIGN_API_POLICY && !kt_node_get(root, "apiVersion"))
		return get_policy(m, root);
	f->kind_name = keep(m, kt_node_get(root, "kind"));
	f->name = keep(m, kt_node_get(meta, "name"));
	if (!f->kind_name || !f->name || !*f->name)
		return wrong(m, meta ? meta : root, "kind and metadata.name are required");
	if (spec && spec->type != KT_NODE_MAP && spec->type != KT_NODE_NULL)
		return wrong(m, spec, "spec must be an object, not %s", kt_node_type_name(spec->type));
	get_selector(m, body);
	if (f->kind == KT_FOREIGN_REQUEST_AUTHENTICATION)
		get_request_authentication(m, body);
	else if (f->kind == KT_FOREIGN_AUTHORIZATION_POLICY)
		get_authorization_policy(m, body);
	else if (f->kind == KT_FOREIGN_PEER_AUTHENTICATION)
		get_peer_authentication(m, body);
	else if (f->kind == KT_FOREIGN_API_POLICY)
		get_binding(m, body);
	else if (f->kind == KT_FOREIGN_API_INSTANCE || f->kind == KT_FOREIGN_SERVICE)
		f->address = keep(m, kt_node_get(body, "address"));
}

static enum kt_code read_one(struct reader *r, const struct kt_node *root, enum kt_foreign_kind kind,
			     struct kt_err *err)
{
	struct maker m = {.f = create(r->file), .report = r->report, .file = r->file};

	if (!m.f)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", r->file);
	m.arena = m.f->arena;
	m.f->kind = kind;
	m.f->line = root->line;
	fill(&m, root);
	if (m.arena->failed) {
		kt_foreign_destroy(m.f);
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", r->file);
	}
	if (m.errors) {
		kt_foreign_destroy(m.f);
		return KT_OK;
	}
	return r->on_foreign(r->arg, m.f, err);
}

static enum kt_code read_tree(struct reader *r, const struct kt_node *root, unsigned depth, struct kt_err *err)
{
	const struct kt_node *list = policy_list(root), *items = kt_node_get(root, "items");
	enum kt_foreign_kind kind = kind_of(root);
	enum kt_code code = KT_OK;

	if (kind != KT_FOREIGN_NONE)
		return read_one(r, root, kind, err);
	if (!list && text_is(kt_node_get(root, "kind"), "List") && items && items->type == KT_NODE_LIST &&
	    depth < DEPTH_MAX)
		list = items;
	for (const struct kt_node *item = list ? list->first : NULL; item && code == KT_OK; item = item->next)
		code = read_tree(r, item, depth + 1, err);
	return code;
}

static enum kt_code on_document(void *arg, const struct kt_node *root, struct kt_err *err)
{
	return read_tree(arg, root, 0, err);
}

enum kt_code kt_foreign_read(struct kt_view text, const char *file, kt_foreign_fn *on_foreign, void *arg,
			     struct kt_report *report, struct kt_err *err)
{
	struct kt_report quiet; /* what does not parse is complained about by kt_manifest_read */
	struct reader r = {.file = file, .on_foreign = on_foreign, .arg = arg, .report = report, .quiet = &quiet};
	struct kt_arena arena = {0};
	enum kt_code code = KT_OK;
	uint32_t line = 1;

	if (text.len > KT_MANIFEST_FILE_MAX)
		return KT_OK;
	if (text.len >= 3 && !memcmp(text.ptr, "\xef\xbb\xbf", 3)) {
		text.ptr += 3;
		text.len -= 3;
	}
	kt_report_init(&quiet);
	kt_arena_reserve(&arena, TREE_CHUNK);
	while (text.len && code == KT_OK) {
		size_t len = kt_yaml_document_len(text);

		code = kt_yaml_slice((struct kt_view){text.ptr, len}, line, file, &arena, on_document, &r, &quiet, err);
		for (const char *at = text.ptr, *end = text.ptr + len; (at = memchr(at, '\n', (size_t)(end - at)));
		     at++)
			line++;
		text.ptr += len;
		text.len -= len;
	}
	report->nomem |= quiet.nomem;
	kt_report_finish(&quiet);
	kt_arena_finish(&arena);
	return code;
}

enum kt_code kt_foreign_read_bundle(struct kt_view bundle, kt_foreign_fn *on_foreign, void *arg,
				    struct kt_report *report, struct kt_err *err)
{
	struct kt_view path, content;
	size_t offset = 0;
	enum kt_code code;

	while ((code = kt_bundle_next(bundle, &offset, &path, &content, err)) == KT_OK) {
		code = kt_foreign_read(content, path.ptr, on_foreign, arg, report, err);
		if (code != KT_OK)
			return code;
	}
	return code == KT_E_NOTFOUND ? KT_OK : code;
}
