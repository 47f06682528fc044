/* What Istio answers to a call at one workload: mTLS, RequestAuthentication, AuthorizationPolicy, in Envoy's order. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "kt/text.h"

#define ISSUER_UNKNOWN "Jwt issuer is not configured"
#define AUDIENCE_WRONG "Audiences in Jwt are not allowed"
#define KEY_UNKNOWN    "Jwks doesn't have key to match kid or alg from Jwt"
#define EXPIRED        "Jwt is expired"
#define NOT_A_JWT      "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
#define RBAC           "RBAC: access denied"

struct mesh {
	const struct kt_align_hop *hop;
	const struct kt_call *call;
	struct kt_answers *answers;
	bool authenticated;
	bool stopped; /* a reader has refused */
};

static struct kt_answer_row *answer(struct mesh *m, const struct kt_foreign *reader, uint32_t line)
{
	return kt_align_answer(m->answers, reader, line);
}

/* --- mTLS ---------------------------------------- */

static void judge_peer(struct mesh *m, const struct kt_foreign *strict, bool wanted)
{
	const struct kt_resource *certificate = m->call->certificate;
	struct kt_answer_row *row;

	if (strict != NULL && certificate == NULL) {
		row = answer(m, strict, strict->strict_line);
		(void)snprintf(row->field, sizeof(row->field), "spec.mtls.mode");
		kt_align_refuse(row, 0, "is STRICT, and the call has no client certificate");
		kt_align_mend(
			row,
			"give the caller a Certificate with client auth and put it beside the Token in its Consumer");
		m->stopped = true;
	} else if (certificate != NULL && (strict != NULL || wanted) && !kt_align_client_usage(certificate)) {
		row = answer(m, strict != NULL ? strict : m->hop->readers[0], strict != NULL ? strict->strict_line : 0);
		(void)snprintf(row->field, sizeof(row->field), "spec");
		kt_align_refuse(row, 0, "needs a client certificate, and Certificate %s/%s is not for clients",
				certificate->meta.ns, certificate->meta.name);
		kt_align_mend(row, "add client auth to spec.usages of Certificate %s", certificate->meta.name);
		m->stopped = true;
	} else if (strict != NULL) {
		row = answer(m, strict, strict->strict_line);
		kt_align_pass(row, "client certificate %s/%s", certificate->meta.ns, certificate->meta.name);
	}
}

/* --- RequestAuthentication ---------------------------------------- */

/* Whether the rule looks where the token is: Authorization, after "Bearer " or "DPoP ". */
static bool sees(const struct kt_foreign_jwt_rule *rule, const struct kt_align_token *token)
{
	bool dpop = token->resource->token.dpop != NULL;
	const char *scheme = dpop ? "DPoP " : "Bearer ";

	if (!rule->elsewhere) {
		return !dpop;
	}
	for (uint32_t i = 0; i < rule->header_count; i++) {
		const struct kt_foreign_header *header = &rule->headers[i];

		if (header->name != NULL && strcasecmp(header->name, "authorization") == 0 && header->prefix != NULL &&
		    strcmp(header->prefix, scheme) == 0) {
			return true;
		}
	}
	return false;
}

static void refuse_audience(struct kt_answer_row *row, const struct kt_foreign_jwt_rule *rule,
			    const struct kt_align_token *token)
{
	const struct kt_strings *audiences = &token->resource->token.audiences;

	row->line = rule->audiences.line;
	(void)snprintf(row->field, sizeof(row->field), "spec.jwtRules[%u].audiences", rule->index);
	if (audiences->count > 0) {
		kt_align_refuse(row, 403,
				"(\"%.100s\"%s) has none of the token's audiences (\"%.100s\"%s): " AUDIENCE_WRONG,
				rule->audiences.items[0].text, rule->audiences.count > 1 ? ", ..." : "",
				audiences->items[0], audiences->count > 1 ? ", ..." : "");
		kt_align_mend(row, "write \"%.120s\" here, or the audience of the API into spec.audiences of the Token",
			      audiences->items[0]);
	} else {
		kt_align_refuse(row, 403, "(\"%.100s\") is asked for, and the token has no audience: " AUDIENCE_WRONG,
				rule->audiences.items[0].text);
		kt_align_mend(row, "set spec.audiences of the Token to [\"%.120s\"]", rule->audiences.items[0].text);
	}
}

static enum kt_tri audience_fits(const struct kt_foreign_jwt_rule *rule, const struct kt_align_token *token)
{
	struct kt_values aud;

	kt_align_claim(token, "aud", &aud);
	if (rule->audiences.count == 0) {
		return KT_YES;
	}
	for (uint32_t i = 0; i < rule->audiences.count; i++) {
		for (uint32_t k = 0; k < aud.count; k++) {
			if (kt_align_envoy_audience(rule->audiences.items[i].text, aud.items[k])) {
				return KT_YES;
			}
		}
	}
	return aud.known ? KT_NO : KT_MAYBE;
}

/* A rule whose issuer is the token's. Envoy looks at times, then the audience, then fetches keys. */
static void judge_rule(struct mesh *m, const struct kt_foreign *ra, const struct kt_foreign_jwt_rule *rule)
{
	const struct kt_align_token *token = m->call->token;
	struct kt_answer_row *row = answer(m, ra, rule->line);
	enum kt_tri audience = audience_fits(rule, token);

	if (m->call->expired) {
		kt_align_refuse(row, 401, "the token is past its end: " EXPIRED);
	} else if (audience == KT_NO) {
		refuse_audience(row, rule, token);
	} else if (rule->jwks_uri.text != NULL && kt_align_jwks(token, rule->jwks_uri.text) == KT_NO) {
		row->line = rule->jwks_uri.line;
		(void)snprintf(row->field, sizeof(row->field), "spec.jwtRules[%u].jwksUri", rule->index);
		kt_align_refuse(row, 401, "(%.120s) is not where the issuer shows its keys: " KEY_UNKNOWN,
				rule->jwks_uri.text);
		kt_align_mend(row, "write %.200s", token->jwks);
	} else {
		kt_align_pass(row, "issuer%s taken", rule->audiences.count > 0 ? " and audience" : ", any audience");
		row->certain = audience == KT_YES;
		m->authenticated = true;
		return;
	}
	m->stopped = true;
}

static const struct kt_foreign_jwt_rule *find_rule(const struct mesh *m, bool loosely, const struct kt_foreign **ret_ra)
{
	const char *iss = m->call->token->iss;

	for (uint32_t i = 0; i < m->hop->reader_count; i++) {
		const struct kt_foreign *ra = m->hop->readers[i];

		for (uint32_t k = 0; k < ra->jwt_rule_count; k++) {
			const char *issuer = ra->jwt_rules[k].issuer.text;

			if (iss == NULL ? loosely
			    : loosely   ? kt_align_loosely(issuer, iss)
					: strcmp(issuer, iss) == 0) {
				*ret_ra = ra;
				return &ra->jwt_rules[k];
			}
		}
	}
	return NULL;
}

static void refuse_issuer(struct mesh *m, const struct kt_foreign *ra, const struct kt_foreign_jwt_rule *rule)
{
	const char *iss = m->call->token->iss;
	struct kt_answer_row *row = answer(m, ra, rule->issuer.line);

	(void)snprintf(row->field, sizeof(row->field), "spec.jwtRules[%u].issuer", rule->index);
	if (iss == NULL) {
		kt_align_pass(row, "the token's issuer is not in the manifests");
		row->certain = false;
		m->authenticated = true;
		return;
	}
	kt_align_refuse(row, 401, "(%.150s) is not the token's issuer (%.150s)%s: " ISSUER_UNKNOWN, rule->issuer.text,
			iss, kt_align_loosely(rule->issuer.text, iss) ? ", which is compared letter by letter" : "");
	kt_align_mend(row, "write %.250s", iss);
	m->stopped = true;
}

static void judge_token(struct mesh *m, const struct kt_foreign *first)
{
	const struct kt_align_token *token = m->call->token;
	const struct kt_foreign *ra = first;
	const struct kt_foreign_jwt_rule *rule;
	struct kt_answer_row *row;

	if (token == NULL) {
		kt_align_pass(answer(m, first, first->line), "no token: passed on without a request principal");
		return;
	}
	rule = find_rule(m, false, &ra);
	if (rule == NULL) {
		rule = find_rule(m, true, &ra);
	}
	if (!sees(rule != NULL ? rule : &first->jwt_rules[0], token)) {
		rule = rule != NULL ? rule : &first->jwt_rules[0];
		row = answer(m, ra, rule->from_line);
		(void)snprintf(row->field, sizeof(row->field), "spec.jwtRules[%u].fromHeaders", rule->index);
		kt_align_pass(row,
			      "does not look for the token after \"Authorization: %s\": passed on without a request "
			      "principal",
			      token->resource->token.dpop != NULL ? "DPoP" : "Bearer");
		kt_align_mend(row, token->resource->token.dpop != NULL
					   ? "add {name: Authorization, prefix: \"DPoP \"} to fromHeaders, or take "
					     "spec.dpop out of the Token"
					   : "add {name: Authorization, prefix: \"Bearer \"} to fromHeaders");
		return;
	}
	if (kt_align_is_opaque(token)) {
		row = answer(m, first, first->jwt_rules[0].line);
		(void)snprintf(row->field, sizeof(row->field), "spec.jwtRules");
		kt_align_refuse(row, 401, "wants a JWT, and the tokens of Anypoint's platform are none: " NOT_A_JWT);
		kt_align_mend(row, "take the token from the authorization server whose tokens the API accepts");
		m->stopped = true;
	} else if (rule != NULL && token->iss != NULL && strcmp(rule->issuer.text, token->iss) == 0) {
		judge_rule(m, ra, rule);
	} else {
		refuse_issuer(m, ra, rule != NULL ? rule : &first->jwt_rules[0]);
	}
}

/* --- AuthorizationPolicy ---------------------------------------- */

static void judge_deny(struct mesh *m, const struct kt_foreign *policy)
{
	struct kt_rule_call call = {.call = m->call, .authenticated = m->authenticated, .policy = policy};
	struct kt_answer_row *row = answer(m, policy, policy->line);
	bool maybe = false;

	for (uint32_t i = 0; i < policy->rule_count; i++) {
		enum kt_tri hit = kt_align_rule(&call, &policy->rules[i], NULL);

		maybe |= hit == KT_MAYBE;
		if (hit == KT_YES) {
			row->line = policy->rules[i].line;
			(void)snprintf(row->field, sizeof(row->field), "spec.rules[%u]", i);
			kt_align_refuse(row, 403, "is a DENY rule that hits the call: " RBAC);
			kt_align_mend(row, "narrow the rule, or leave this caller out of it");
			m->stopped = true;
			return;
		}
	}
	kt_align_pass(row, maybe ? "DENY hits some requests only" : "no DENY rule hits");
	row->certain = !maybe;
}

/* The row of a refusal by all ALLOW policies: what came nearest. */
static void refuse_allow(struct mesh *m, const struct kt_foreign *policy, const struct kt_rule_miss *miss, bool has_ra)
{
	struct kt_answer_row *row = answer(m, policy, miss->line > 0 ? miss->line : policy->line);

	m->stopped = true;
	if (miss->line == 0) {
		(void)snprintf(row->field, sizeof(row->field), "spec.rules");
		kt_align_refuse(row, 403, "has no rule, so nothing is allowed: " RBAC);
		kt_align_mend(row, "add a rule for the caller");
		return;
	}
	(void)snprintf(row->field, sizeof(row->field), "%s", miss->field);
	kt_align_refuse(row, 403, "%s: " RBAC, miss->why);
	kt_align_mend(row, "%s", miss->mend);
	if (!has_ra && kt_align_wants_request(policy) && m->call->token != NULL) {
		kt_align_mend(
			row,
			"add a RequestAuthentication for the same workload: without one no request has a principal");
	} else if (!m->authenticated && kt_align_wants_request(policy) && m->answers->count > 1 &&
		   m->answers->rows[m->answers->count - 2].mend[0] != '\0') {
		kt_align_mend(row, "%s", m->answers->rows[m->answers->count - 2].mend);
	}
}

static void judge_allow(struct mesh *m, bool has_ra)
{
	const struct kt_foreign *nearest = NULL;
	const struct kt_foreign *allowed = NULL;
	struct kt_rule_miss best = {.depth = 0};
	enum kt_tri result = KT_NO;
	struct kt_answer_row *row;

	for (uint32_t i = 0; i < m->hop->reader_count; i++) {
		const struct kt_foreign *policy = m->hop->readers[i];
		struct kt_rule_call call = {.call = m->call, .authenticated = m->authenticated, .policy = policy};

		if (policy->kind != KT_FOREIGN_AUTHORIZATION_POLICY || policy->action != KT_FOREIGN_ALLOW) {
			continue;
		}
		nearest = nearest != NULL ? nearest : policy;
		for (uint32_t r = 0; r < policy->rule_count; r++) {
			struct kt_rule_miss miss = {.depth = 0};
			enum kt_tri hit = kt_align_rule(&call, &policy->rules[r], &miss);

			if (hit > result) {
				result = hit;
				allowed = policy;
			}
			if (hit == KT_NO && (best.line == 0 || miss.depth > best.depth)) {
				best = miss;
				nearest = policy;
			}
		}
	}
	if (nearest == NULL) {
		return; /* no ALLOW policy: everything may pass */
	}
	if (result == KT_NO) {
		refuse_allow(m, nearest, &best, has_ra);
		return;
	}
	row = answer(m, allowed, allowed->line);
	kt_align_pass(row, result == KT_YES ? "an ALLOW rule takes the call" : "an ALLOW rule takes some requests");
	row->certain = result == KT_YES;
}

/* --- the whole ---------------------------------------- */

void kt_align_judge_mesh(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret)
{
	struct mesh m = {.hop = hop, .call = call, .answers = ret};
	const struct kt_foreign *strict = NULL;
	const struct kt_foreign *ra = NULL;
	bool wants_peer = false;

	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		strict = f->kind == KT_FOREIGN_PEER_AUTHENTICATION && f->strict ? f : strict;
		ra = ra == NULL && f->kind == KT_FOREIGN_REQUEST_AUTHENTICATION && f->jwt_rule_count > 0 ? f : ra;
		wants_peer |= f->kind == KT_FOREIGN_AUTHORIZATION_POLICY && kt_align_wants_peer(f);
	}
	judge_peer(&m, strict, wants_peer);
	if (!m.stopped && ra != NULL) {
		judge_token(&m, ra);
	}
	for (uint32_t i = 0; i < hop->reader_count && !m.stopped; i++) {
		const struct kt_foreign *f = hop->readers[i];

		if (f->kind == KT_FOREIGN_AUTHORIZATION_POLICY && f->action == KT_FOREIGN_CUSTOM) {
			struct kt_answer_row *row = answer(&m, f, f->line);

			kt_align_pass(row, "an external authorizer decides");
			row->certain = false;
		} else if (f->kind == KT_FOREIGN_AUTHORIZATION_POLICY && f->action == KT_FOREIGN_DENY) {
			judge_deny(&m, f);
		}
	}
	if (!m.stopped) {
		judge_allow(&m, ra != NULL);
	}
}
