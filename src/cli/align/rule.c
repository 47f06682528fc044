/* Whether a rule of an Istio AuthorizationPolicy takes a call, as far as the manifests tell. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>

#include "kt/text.h"

/* What a field of a rule is compared with. */
struct subject {
	struct kt_values values;
	bool open;        /* the (one) value goes on unknown */
	char text[1400];  /* room for a value that is put together */
	const char *what; /* for people */
};

static enum kt_tri worse(enum kt_tri a, enum kt_tri b)
{
	return a < b ? a : b;
}

static enum kt_tri better(enum kt_tri a, enum kt_tri b)
{
	return a > b ? a : b;
}

static enum kt_tri inverse(enum kt_tri a)
{
	return a == KT_YES ? KT_NO : a == KT_NO ? KT_YES : KT_MAYBE;
}

/* Istio takes cluster.local for the trust domain of the mesh, whatever that is called. */
static enum kt_tri mesh_domain(const char *pattern, const char *value)
{
	const char *path = strchr(value, '/');

	if (!kt_starts_with(pattern, "cluster.local/") || path == NULL) {
		return KT_NO;
	}
	return kt_align_pattern(pattern + strlen("cluster.local/"), path + 1, false) == KT_YES ? KT_MAYBE : KT_NO;
}

static enum kt_tri any_of(const struct kt_foreign_texts *patterns, const struct subject *s, bool principals)
{
	enum kt_tri best = KT_NO;

	for (uint32_t i = 0; i < patterns->count; i++) {
		const char *pattern = patterns->items[i].text;

		if (pattern == NULL) {
			continue;
		}
		if (!s->values.known) {
			best = better(best, s->values.present && strcmp(pattern, "*") == 0 ? KT_YES : KT_MAYBE);
		}
		for (uint32_t k = 0; k < s->values.count; k++) {
			best = better(best, kt_align_pattern(pattern, s->values.items[k], s->open));
			if (principals) {
				best = better(best, mesh_domain(pattern, s->values.items[k]));
			}
		}
	}
	return best;
}

/* --- subjects ---------------------------------------- */

static void one(struct subject *s, const char *text)
{
	s->values.known = true;
	s->values.present = text != NULL;
	s->values.count = text != NULL ? 1 : 0;
	s->values.items[0] = text;
}

static void request_principal(const struct kt_rule_call *c, struct subject *s)
{
	const struct kt_align_token *token = c->call->token;

	s->what = "the token's iss/sub";
	one(s, NULL);
	if (!c->authenticated || token == NULL) {
		return;
	}
	if (token->iss == NULL) {
		s->values.known = false;
		s->values.present = true;
		return;
	}
	(void)snprintf(s->text, sizeof(s->text), "%s/%s", token->iss, token->sub != NULL ? token->sub : "");
	one(s, s->text);
	s->open = token->sub == NULL;
}

static void claim(const struct kt_rule_call *c, const char *name, struct subject *s)
{
	s->what = "the token's claim";
	one(s, NULL);
	if (c->authenticated && c->call->token != NULL) {
		kt_align_claim(c->call->token, name, &s->values);
	}
}

/* Of ".../ns/NAMESPACE/sa/ACCOUNT": the namespace, or "NAMESPACE/ACCOUNT". */
static void workload(const struct kt_rule_call *c, bool account, struct subject *s)
{
	const char *principal = kt_align_spiffe(c->call->certificate);
	const char *ns = principal != NULL ? strstr(principal, "/ns/") : NULL;
	const char *sa = ns != NULL ? strstr(ns + 4, "/sa/") : NULL;

	s->what = account ? "the certificate's service account" : "the certificate's namespace";
	one(s, NULL);
	if (sa == NULL) {
		return;
	}
	(void)snprintf(s->text, sizeof(s->text), "%.*s%s%s", (int)(sa - ns - 4), ns + 4, account ? "/" : "",
		       account ? sa + 4 : "");
	one(s, s->text);
}

static void peer(const struct kt_rule_call *c, struct subject *s)
{
	s->what = "the certificate's SPIFFE identity";
	one(s, kt_align_spiffe(c->call->certificate));
}

static void unknown(struct subject *s)
{
	s->what = "the request";
	s->values.known = false;
	s->values.present = true;
}

static void split(struct subject *s, const char *words)
{
	char *at = s->text;

	(void)snprintf(s->text, sizeof(s->text), "%s", words);
	s->values.count = 0;
	while (at != NULL && s->values.count < KT_VALUES_MAX) {
		char *word = strsep(&at, " ");

		if (word[0] != '\0') {
			s->values.items[s->values.count++] = word;
		}
	}
}

/* "request.auth.claims[NAME]": Istio splits scope and permission at spaces. Deeper claims are none of ours. */
static void claim_key(const struct kt_rule_call *c, const char *key, struct subject *s)
{
	const char *name = key + strlen("request.auth.claims[");
	size_t len = strcspn(name, "]");
	char text[256];

	if (len >= sizeof(text) || name[len] != ']') {
		unknown(s);
		return;
	}
	memcpy(text, name, len);
	text[len] = '\0';
	claim(c, text, s);
	if (name[len + 1] == '[' && s->values.known) {
		one(s, NULL);
	} else if (s->values.count == 1 && (strcmp(text, "scope") == 0 || strcmp(text, "permission") == 0)) {
		split(s, s->values.items[0]);
	}
}

static void find_subject(const struct kt_rule_call *c, const char *field, struct subject *s)
{
	s->open = false;
	if (strcmp(field, "principals") == 0 || strcmp(field, "source.principal") == 0) {
		peer(c, s);
	} else if (strcmp(field, "requestPrincipals") == 0 || strcmp(field, "request.auth.principal") == 0) {
		request_principal(c, s);
	} else if (strcmp(field, "namespaces") == 0 || strcmp(field, "source.namespace") == 0) {
		workload(c, false, s);
	} else if (strcmp(field, "serviceAccounts") == 0 || strcmp(field, "source.serviceAccount") == 0) {
		workload(c, true, s);
	} else if (strcmp(field, "request.auth.audiences") == 0) {
		claim(c, "aud", s);
		s->what = "the token's audience";
	} else if (strcmp(field, "request.auth.presenter") == 0) {
		claim(c, "azp", s);
	} else if (kt_starts_with(field, "request.auth.claims[")) {
		claim_key(c, field, s);
	} else if (strcmp(field, "methods") == 0 && c->call->method != NULL) {
		one(s, c->call->method);
	} else if (strcmp(field, "paths") == 0 && c->call->path != NULL) {
		one(s, c->call->path);
	} else if (strcmp(field, "hosts") == 0 && c->call->host != NULL) {
		one(s, c->call->host);
	} else {
		unknown(s);
	}
}

/* --- matching ---------------------------------------- */

static bool is_principals(const char *field)
{
	return strcmp(field, "principals") == 0 || strcmp(field, "source.principal") == 0;
}

static void note(struct kt_rule_miss *miss, unsigned depth, const char *path, const struct kt_foreign_match *match,
		 const struct subject *s, bool negative)
{
	const struct kt_foreign_texts *texts = negative ? &match->not_values : &match->values;
	const char *first = texts->count > 0 ? texts->items[0].text : "";
	const char *actual = s->values.count > 0 ? s->values.items[0] : NULL;

	if (miss == NULL || (miss->line != 0 && depth <= miss->depth)) {
		return;
	}
	miss->depth = depth;
	miss->line = texts->count > 0 ? texts->items[0].line : texts->line;
	(void)snprintf(miss->field, sizeof(miss->field), "%s", path);
	if (negative) {
		(void)snprintf(miss->why, sizeof(miss->why), "rules out %s (%.120s)", s->what,
			       actual != NULL ? actual : "");
		(void)snprintf(miss->mend, sizeof(miss->mend), "take \"%.120s\" out", first);
	} else if (actual != NULL) {
		(void)snprintf(miss->why, sizeof(miss->why), "has \"%.80s\"%s where %s is %.120s%s", first,
			       texts->count > 1 ? " and others" : "", s->what, actual, s->open ? "..." : "");
		(void)snprintf(miss->mend, sizeof(miss->mend), "add \"%.120s%s\"", actual, s->open ? "*" : "");
	} else {
		(void)snprintf(miss->why, sizeof(miss->why), "wants \"%.80s\", and %s is not there", first, s->what);
		miss->mend[0] = '\0';
	}
}

static enum kt_tri match_field(const struct kt_rule_call *c, const struct kt_foreign_match *match, const char *path,
			       unsigned depth, struct kt_rule_miss *miss)
{
	struct subject s = {.what = ""};
	enum kt_tri result = KT_YES;
	enum kt_tri negative;

	if (match->values.count == 0 && match->not_values.count == 0) {
		return KT_YES;
	}
	find_subject(c, match->field, &s);
	if (match->values.count > 0) {
		result = any_of(&match->values, &s, is_principals(match->field));
		if (result == KT_NO) {
			note(miss, depth, path, match, &s, false);
		}
	}
	if (match->not_values.count > 0) {
		negative = inverse(any_of(&match->not_values, &s, is_principals(match->field)));
		if (negative == KT_NO) {
			note(miss, depth, path, match, &s, true);
		}
		result = worse(result, negative);
	}
	return result;
}

static enum kt_tri match_from(const struct kt_rule_call *c, const struct kt_foreign_rule *rule,
			      struct kt_rule_miss *miss)
{
	enum kt_tri best = rule->from_count == 0 ? KT_YES : KT_NO;
	char path[200];

	for (uint32_t n = 0; n < rule->from_count; n++) {
		enum kt_tri all = KT_YES;

		for (uint32_t i = 0; i < KT_FOREIGN_SOURCE_FIELDS; i++) {
			const struct kt_foreign_match *match = &rule->from[n].fields[i];

			(void)snprintf(path, sizeof(path), "spec.rules[%u].from[%u].source.%s", rule->index, n,
				       match->field);
			all = worse(all, match_field(c, match, path, i, miss));
		}
		best = better(best, all);
	}
	return best;
}

static enum kt_tri match_to(const struct kt_rule_call *c, const struct kt_foreign_rule *rule, struct kt_rule_miss *miss)
{
	enum kt_tri best = rule->to_count == 0 ? KT_YES : KT_NO;
	char path[200];

	for (uint32_t n = 0; n < rule->to_count; n++) {
		enum kt_tri all = KT_YES;

		for (uint32_t i = 0; i < KT_FOREIGN_TARGET_FIELDS; i++) {
			const struct kt_foreign_match *match = &rule->to[n].fields[i];

			(void)snprintf(path, sizeof(path), "spec.rules[%u].to[%u].operation.%s", rule->index, n,
				       match->field);
			all = worse(all, match_field(c, match, path, 10 + i, miss));
		}
		best = better(best, all);
	}
	return best;
}

enum kt_tri kt_align_rule(const struct kt_rule_call *c, const struct kt_foreign_rule *rule, struct kt_rule_miss *miss)
{
	enum kt_tri from = match_from(c, rule, miss);
	enum kt_tri result = worse(from, match_to(c, rule, from == KT_NO ? NULL : miss));
	char path[200];

	for (uint32_t i = 0; i < rule->when_count; i++) {
		(void)snprintf(path, sizeof(path), "spec.rules[%u].when[%u] %.100s", rule->index, i,
			       rule->when[i].field);
		result = worse(result, match_field(c, &rule->when[i], path, 20 + i, from == KT_NO ? NULL : miss));
	}
	return result;
}

/* --- what a policy asks for ---------------------------------------- */

static bool is_given(const struct kt_foreign_match *match)
{
	return match->values.count > 0 || match->not_values.count > 0;
}

static bool asks(const struct kt_foreign *policy, const char *const *source, const char *key)
{
	for (uint32_t r = 0; r < policy->rule_count; r++) {
		const struct kt_foreign_rule *rule = &policy->rules[r];

		for (uint32_t n = 0; n < rule->from_count; n++) {
			for (uint32_t i = 0; i < KT_FOREIGN_SOURCE_FIELDS; i++) {
				const struct kt_foreign_match *match = &rule->from[n].fields[i];

				for (int k = 0; source[k] != NULL; k++) {
					if (is_given(match) && strcmp(match->field, source[k]) == 0) {
						return true;
					}
				}
			}
		}
		for (uint32_t i = 0; i < rule->when_count; i++) {
			if (kt_starts_with(rule->when[i].field, key)) {
				return true;
			}
		}
	}
	return false;
}

bool kt_align_wants_peer(const struct kt_foreign *policy)
{
	static const char *const fields[] = {"principals", "namespaces", "serviceAccounts", NULL};
	static const char *const none[] = {NULL};

	return asks(policy, fields, "source.principal") || asks(policy, none, "source.namespace") ||
	       asks(policy, none, "source.serviceAccount");
}

bool kt_align_wants_request(const struct kt_foreign *policy)
{
	static const char *const fields[] = {"requestPrincipals", NULL};

	return asks(policy, fields, "request.auth.");
}
