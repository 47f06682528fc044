/* What no single call shows: keys that outlive caches, tokens that any API takes, policies that guard nothing. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>

#include "kt/text.h"

#define ISTIO_JWKS_MINUTES 20 /* how often istiod fetches keys (PILOT_JWT_PUB_KEY_REFRESH_INTERVAL) */

/* The first local token that a reader takes keys of, for what depends on how keys rotate. */
static const struct kt_align_token *local_of(const struct kt_align *align, const char *issuer,
					     const struct kt_foreign_texts *urls)
{
	for (uint32_t i = 0; i < align->token_count; i++) {
		const struct kt_align_token *token = &align->tokens[i];

		if (!kt_align_is_local(token)) {
			continue;
		}
		if (issuer != NULL && strcmp(issuer, token->iss) == 0) {
			return token;
		}
		for (uint32_t k = 0; urls != NULL && k < urls->count; k++) {
			if (kt_align_jwks(token, urls->items[k].text) != KT_NO) {
				return token;
			}
		}
	}
	return NULL;
}

static void check_ahead(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *reader,
			uint32_t line, const char *field, const struct kt_align_token *token, int64_t minutes)
{
	kt_ms ahead = token != NULL ? token->issuer->token_issuer.local->publish_ahead : 0;
	char mend[320], text[32];

	if (token == NULL || ahead >= minutes * KT_MINUTE) {
		return;
	}
	(void)snprintf(mend, sizeof(mend), "write publishAhead: %lldm into TokenIssuer %.100s", (long long)minutes,
		       token->issuer->meta.name);
	kt_align_warn(
		finder, hop, reader, line, field, mend,
		"keeps keys for %lld min, and TokenIssuer %.100s shows a new key only %s before it signs: after each "
		"change of key "
		"tokens get 401 for a while",
		(long long)minutes, token->issuer->meta.name, kt_duration_format(ahead, text));
}

static void check_jwt_rule(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *ra,
			   const struct kt_foreign_jwt_rule *rule)
{
	const struct kt_align_token *token = local_of(finder->align, rule->issuer.text, NULL);
	char field[96];

	if (rule->audiences.count == 0) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].audiences", rule->index);
		kt_align_warn(finder, hop, ra, rule->line, field, "name the audience of the API",
			      "is missing, which means any: tokens of this issuer for every other API pass here too");
	}
	if (token == NULL) {
		return;
	}
	if (rule->jwks.text != NULL) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].jwks", rule->index);
		kt_align_warn(
			finder, hop, ra, rule->jwks.line, field, "use jwksUri",
			"is fixed, and the keys of TokenIssuer %.100s change: after the next change tokens get 401",
			token->issuer->meta.name);
		return;
	}
	if (rule->jwks_uri.text != NULL && kt_align_jwks(token, rule->jwks_uri.text) == KT_MAYBE &&
	    !kt_align_same_host(rule->jwks_uri.text, token->jwks) &&
	    token->issuer->token_issuer.local->publish_jwks.volume == NULL) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].jwksUri", rule->index);
		kt_align_warn(
			finder, hop, ra, rule->jwks_uri.line, field, "",
			"is on another host than the issuer (%.120s): right only if that leads to the agent's listener",
			token->jwks);
	}
	(void)snprintf(field, sizeof(field), "spec.jwtRules[%u]", rule->index);
	check_ahead(finder, hop, ra, rule->line, field, token, ISTIO_JWKS_MINUTES);
}

/* The first API policy that wants the token which a rule takes away. */
static const struct kt_foreign *next_reader(const struct kt_align *align, const struct kt_foreign_jwt_rule *rule)
{
	for (uint32_t h = 0; h < align->hop_count; h++) {
		for (uint32_t i = 0; !align->hops[h].mesh && i < align->hops[h].reader_count; i++) {
			const struct kt_foreign *f = align->hops[h].readers[i];

			for (uint32_t k = 0; kt_align_is_jwt_policy(f) && k < f->config.audiences.count; k++) {
				for (uint32_t a = 0; a < rule->audiences.count; a++) {
					if (kt_align_loosely(f->config.audiences.items[k].text,
							     rule->audiences.items[a].text)) {
						return f;
					}
				}
			}
		}
	}
	return NULL;
}

static void check_forward(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *ra,
			  const struct kt_foreign_jwt_rule *rule)
{
	const struct kt_foreign *next = rule->forward ? NULL : next_reader(finder->align, rule);
	char field[96], name[600];

	if (next == NULL) {
		return;
	}
	kt_align_reader_name(next, name, sizeof(name));
	(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].forwardOriginalToken", rule->index);
	kt_align_warn(finder, hop, ra, rule->line, field, "write forwardOriginalToken: true",
		      "is not set: the token ends here, and %.200s behind it would answer 400", name);
}

static bool demands_token(const struct kt_align_hop *hop)
{
	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		if (f->kind == KT_FOREIGN_AUTHORIZATION_POLICY && kt_align_wants_request(f)) {
			return true;
		}
	}
	return false;
}

void kt_align_lint_mesh(struct kt_finder *finder, const struct kt_align_hop *hop)
{
	bool wants_peer = false;

	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		wants_peer |= f->kind == KT_FOREIGN_AUTHORIZATION_POLICY && kt_align_wants_peer(f);
		for (uint32_t k = 0; k < f->jwt_rule_count; k++) {
			check_jwt_rule(finder, hop, f, &f->jwt_rules[k]);
			check_forward(finder, hop, f, &f->jwt_rules[k]);
		}
		if (f->jwt_rule_count > 0 && !demands_token(hop)) {
			kt_align_warn(finder, hop, f, 0, "spec", "add an AuthorizationPolicy with requestPrincipals",
				      "refuses bad tokens only: a call without one passes, as no AuthorizationPolicy "
				      "for %.100s "
				      "asks for it",
				      hop->name);
		}
	}
	for (uint32_t i = 0; wants_peer && i < finder->align->token_count; i++) {
		const struct kt_resource *certificate = finder->align->tokens[i].certificate;

		if (certificate != NULL && certificate->certificate.uris.count > 1 &&
		    kt_align_spiffe(certificate) != NULL) {
			struct kt_finding f = {.file = certificate->file,
					       .line = certificate->line,
					       .token = &finder->align->tokens[i],
					       .certificate = certificate,
					       .hop = hop,
					       .status = -1};

			(void)snprintf(f.field, sizeof(f.field), "spec.uris");
			(void)snprintf(f.why, sizeof(f.why),
				       "has %u URIs: a SPIFFE certificate has exactly one, others are refused by "
				       "strict readers",
				       certificate->certificate.uris.count);
			(void)snprintf(f.mend, sizeof(f.mend), "leave only the spiffe:// one");
			kt_align_emit(finder, &f);
			return;
		}
	}
}

static bool instance_exists(const struct kt_align *align, const struct kt_foreign *binding)
{
	enum kt_foreign_kind kind =
		binding->target_kind.text != NULL && strcmp(binding->target_kind.text, "Service") == 0
			? KT_FOREIGN_SERVICE
			: KT_FOREIGN_API_INSTANCE;

	for (uint32_t i = 0; i < align->foreign_count; i++) {
		if (align->foreigns[i]->kind == kind && strcmp(align->foreigns[i]->name, binding->target.text) == 0) {
			return true;
		}
	}
	return false;
}

static void check_jwt_policy(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *f)
{
	const struct kt_foreign_config *c = &f->config;
	const struct kt_align_token *token = local_of(finder->align, NULL, &c->jwks_urls);
	const char *dot = f->config_path[0] != '\0' ? "." : "";
	char field[96];

	if (!c->validate_aud) {
		(void)snprintf(field, sizeof(field), "%s%svalidateAudClaim", f->config_path, dot);
		kt_align_warn(finder, hop, f, c->line, field, "write validateAudClaim: true and supportedAudiences",
			      "is not true: tokens of this issuer for every other API pass here too");
	}
	if (c->jwks_urls.count == 0 && (c->key_origin.text == NULL || strcmp(c->key_origin.text, "jwks") != 0)) {
		(void)snprintf(field, sizeof(field), "%s%stextKey", f->config_path, dot);
		kt_align_warn(finder, hop, f, c->text_key.line, field, "use jwtKeyOrigin: jwks with jwksUrl",
			      "is fixed: after the issuer's next change of key tokens get 401");
	}
	(void)snprintf(field, sizeof(field), "%s%sjwksServiceTimeToLive", f->config_path, dot);
	check_ahead(finder, hop, f, c->jwks_minutes_line, field, token, c->jwks_minutes);
	for (uint32_t i = 0; token != NULL && !c->skip_client_id && i < finder->align->token_count; i++) {
		const struct kt_align_token *one = &finder->align->tokens[i];

		if (kt_align_shares_audience(&c->audiences, one) && kt_align_is_local(one) &&
		    one->resource->token.claims.client_id == NULL) {
			(void)snprintf(field, sizeof(field), "%s%sskipClientIdValidation", f->config_path, dot);
			kt_align_warn(finder, hop, f, c->client_id.line, field,
				      "set spec.claims.clientID of the Token to the client application's id, or "
				      "skipClientIdValidation: true",
				      "is not true, and claim client_id of Token %.100s/%.200s is \"%.100s\", hardly "
				      "that of a "
				      "client application: 401",
				      one->resource->meta.ns, one->resource->meta.name, one->sub);
		}
	}
}

void kt_align_lint_api(struct kt_finder *finder, const struct kt_align_hop *hop)
{
	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		if (f->target.text != NULL && !instance_exists(finder->align, f)) {
			kt_align_warn(finder, hop, f, f->target.line, "spec.targetRef.name",
				      "name the ApiInstance that it is to guard",
				      "(%.100s) is no ApiInstance or Service here: the policy would guard nothing",
				      f->target.text);
		}
		if (kt_align_is_jwt_policy(f)) {
			check_jwt_policy(finder, hop, f);
		}
	}
}

/* A Token that asks its embedded issuer for more than it gives. */
void kt_align_lint_tokens(struct kt_finder *finder)
{
	for (uint32_t i = 0; i < finder->align->token_count; i++) {
		const struct kt_align_token *token = &finder->align->tokens[i];
		const struct kt_local_issuer *local =
			kt_align_is_local(token) ? token->issuer->token_issuer.local : NULL;
		char a[32], b[32];

		if (local != NULL && token->resource->token.duration > local->max_token_lifetime) {
			struct kt_finding f = {.file = token->resource->file,
					       .line = token->line_duration,
					       .token = token,
					       .status = -1};

			(void)snprintf(f.field, sizeof(f.field), "spec.duration");
			(void)snprintf(f.why, sizeof(f.why),
				       "(%s) is longer than TokenIssuer %.100s allows (maxTokenLifetime %s): the token "
				       "is cut to that",
				       kt_duration_format(token->resource->token.duration, a), token->issuer->meta.name,
				       kt_duration_format(local->max_token_lifetime, b));
			(void)snprintf(f.mend, sizeof(f.mend), "write spec.duration: %s",
				       kt_duration_format(local->max_token_lifetime, b));
			kt_align_emit(finder, &f);
		}
	}
}
