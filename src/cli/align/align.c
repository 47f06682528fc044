/* Findings and predictions: every call that is meant for a hop is tried, and what the hop refuses is said. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define ISTIO_JWKS_MINUTES 20 /* how often istiod fetches keys (PILOT_JWT_PUB_KEY_REFRESH_INTERVAL) */

/* --- answers ---------------------------------------- */

struct kt_answer_row *kt_align_answer(struct kt_answers *answers, const struct kt_foreign *reader, uint32_t line)
{
	struct kt_answer_row *row =
		&answers->rows[answers->count < KT_ANSWERS_MAX ? answers->count++ : KT_ANSWERS_MAX - 1];

	*row = (struct kt_answer_row){.reader = reader, .line = line, .status = 200, .certain = true};
	return row;
}

void kt_align_refuse(struct kt_answer_row *row, int status, const char *fmt, ...)
{
	va_list args;

	row->status = status;
	va_start(args, fmt);
	(void)vsnprintf(row->why, sizeof(row->why), fmt, args);
	va_end(args);
}

void kt_align_pass(struct kt_answer_row *row, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(row->why, sizeof(row->why), fmt, args);
	va_end(args);
}

void kt_align_mend(struct kt_answer_row *row, const char *fmt, ...)
{
	char text[sizeof(row->mend)];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	memcpy(row->mend, text, sizeof(text));
}

void kt_align_judge(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret)
{
	ret->count = 0;
	if (hop->mesh) {
		kt_align_judge_mesh(hop, call, ret);
	} else {
		kt_align_judge_api(hop, call, ret);
	}
}

/* A refusal that is certain, else one that is not. */
const struct kt_answer_row *kt_align_refusal(const struct kt_answers *answers)
{
	const struct kt_answer_row *soft = NULL;

	for (uint32_t i = 0; i < answers->count; i++) {
		if (answers->rows[i].status != 200 && answers->rows[i].certain) {
			return &answers->rows[i];
		}
		soft = soft == NULL && answers->rows[i].status != 200 ? &answers->rows[i] : soft;
	}
	return soft;
}

/* --- findings ---------------------------------------- */

struct finding {
	bool error;
	const char *file;
	uint32_t line;
	const struct kt_align_token *token;
	const struct kt_resource *certificate;
	const struct kt_align_hop *hop;
	const struct kt_foreign *reader;
	int status; /* -1: none */
	char field[200], why[420], mend[320];
};

struct finder {
	const struct kt_align *align;
	json_t *out;
	struct kt_answers answers;
	bool failed;
};

static void reader_name(const struct kt_foreign *reader, char *out, size_t size)
{
	if (strcmp(reader->kind_name, "API policy") == 0) {
		(void)snprintf(out, size, "API policy %.200s", reader->name);
	} else {
		(void)snprintf(out, size, "%.100s %.100s/%.200s", reader->kind_name, reader->ns, reader->name);
	}
}

static void resource_name(const struct kt_resource *resource, char *out, size_t size)
{
	(void)snprintf(out, size, "%.100s/%.250s", resource->meta.ns, resource->meta.name);
}

static void answer_name(int status, char *out, size_t size)
{
	if (status == 0) {
		(void)snprintf(out, size, "refused");
	} else {
		(void)snprintf(out, size, "%d", status);
	}
}

/* "<field> <why>; <reader> would answer 401 to Token a/b; <mend>" */
static void compose(const struct finding *f, const char *reader, const char *token, const char *certificate,
		    struct kt_buf *out)
{
	kt_buf_addf(out, "%s%s%s", f->field, f->field[0] != '\0' ? " " : "", f->why);
	if (f->status == 0) {
		kt_buf_addf(out, "; %s would refuse the connection", reader);
	} else if (f->status > 0) {
		kt_buf_addf(out, "; %s would answer %d", reader, f->status);
	}
	if (f->status >= 0 && f->token != NULL) {
		kt_buf_addf(out, " to Token %s", token);
	}
	if (f->status >= 0 && f->certificate != NULL) {
		kt_buf_addf(out, " %s Certificate %s", f->token != NULL ? "with" : "to", certificate);
	}
	if (f->mend[0] != '\0') {
		kt_buf_addf(out, "; %s", f->mend);
	}
}

static void emit(struct finder *finder, const struct finding *f)
{
	struct kt_buf text KT_AUTOBUF = {0};
	char reader[600] = "", token[400] = "", certificate[400] = "";
	json_t *value;

	kt_buf_init(&text, 8192);
	if (f->reader != NULL) {
		reader_name(f->reader, reader, sizeof(reader));
	}
	if (f->token != NULL) {
		resource_name(f->token->resource, token, sizeof(token));
	}
	if (f->certificate != NULL) {
		resource_name(f->certificate, certificate, sizeof(certificate));
	}
	compose(f, reader, token, certificate, &text);
	value = json_pack("{s:s,s:s,s:I,s:s,s:s?,s:s?,s:s?,s:s?,s:s,s:s?,s:s}", "severity",
			  f->error ? "error" : "warning", "file", f->file, "line", (json_int_t)f->line, "field",
			  f->field, "token", f->token != NULL ? token : NULL, "certificate",
			  f->certificate != NULL ? certificate : NULL, "hop", f->hop != NULL ? f->hop->name : NULL,
			  "reader", f->reader != NULL ? reader : NULL, "why", f->why, "mend",
			  f->mend[0] != '\0' ? f->mend : NULL, "text", text.len > 0 ? text.ptr : "");
	if (value != NULL && f->status >= 0) {
		(void)json_object_set_new(value, "status", json_integer(f->status));
	}
	finder->failed |= value == NULL || json_array_append_new(finder->out, value) != 0;
}

static void report(struct finder *finder, const struct kt_align_hop *hop, const struct kt_call *call,
		   const struct kt_answer_row *row, bool error)
{
	struct finding f = {.error = error && row->certain,
			    .file = row->reader->file,
			    .line = row->line > 0 ? row->line : row->reader->line,
			    .token = call->token,
			    .certificate = call->certificate,
			    .hop = hop,
			    .reader = row->reader,
			    .status = row->status};

	(void)snprintf(f.field, sizeof(f.field), "%s", row->field);
	(void)snprintf(f.why, sizeof(f.why), "%s", row->why);
	(void)snprintf(f.mend, sizeof(f.mend), "%s", row->mend);
	emit(finder, &f);
}

__attribute__((format(printf, 7, 8))) static void warn(struct finder *finder, const struct kt_align_hop *hop,
						       const struct kt_foreign *reader, uint32_t line,
						       const char *field, const char *mend, const char *fmt, ...)
{
	struct finding f = {.file = reader->file,
			    .line = line > 0 ? line : reader->line,
			    .hop = hop,
			    .reader = reader,
			    .status = -1};
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(f.why, sizeof(f.why), fmt, args);
	va_end(args);
	(void)snprintf(f.field, sizeof(f.field), "%s", field);
	(void)snprintf(f.mend, sizeof(f.mend), "%s", mend);
	emit(finder, &f);
}

/* --- which calls a hop is meant for ---------------------------------------- */

static bool is_jwt_policy(const struct kt_foreign *f)
{
	return f->kind == KT_FOREIGN_API_POLICY && f->config.policy == KT_FOREIGN_POLICY_JWT && !f->disabled;
}

static bool reads_tokens(const struct kt_align_hop *hop)
{
	for (uint32_t i = 0; i < hop->reader_count; i++) {
		if (hop->readers[i]->jwt_rule_count > 0 || is_jwt_policy(hop->readers[i])) {
			return true;
		}
	}
	return false;
}

static bool shares_audience(const struct kt_foreign_texts *audiences, const struct kt_align_token *token)
{
	const struct kt_strings *own = &token->resource->token.audiences;

	for (uint32_t i = 0; i < audiences->count; i++) {
		for (uint32_t k = 0; k < own->count; k++) {
			if (kt_align_loosely(audiences->items[i].text, own->items[k])) {
				return true;
			}
		}
	}
	return false;
}

/* How near a token is to what a hop reads: 8 an audience, 4 the issuer, 2 its host, 1 its namespace. */
static unsigned nearness(const struct kt_align_hop *hop, const struct kt_align_token *token)
{
	unsigned near = strcmp(hop->ns, token->resource->meta.ns) == 0 ? 1 : 0;

	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		for (uint32_t k = 0; k < f->jwt_rule_count; k++) {
			near |= shares_audience(&f->jwt_rules[k].audiences, token) ? 8 : 0;
			if (token->iss != NULL) {
				near |= kt_align_loosely(f->jwt_rules[k].issuer.text, token->iss) ? 4 : 0;
				near |= kt_align_same_host(f->jwt_rules[k].issuer.text, token->iss) ? 2 : 0;
			}
		}
		if (!is_jwt_policy(f)) {
			continue;
		}
		near |= shares_audience(&f->config.audiences, token) ? 8 : 0;
		for (uint32_t k = 0; k < f->config.jwks_urls.count; k++) {
			near |= token->jwks != NULL && strcmp(f->config.jwks_urls.items[k].text, token->jwks) == 0 ? 4
														   : 0;
			near |= token->iss != NULL && kt_align_same_host(f->config.jwks_urls.items[k].text, token->iss)
					? 2
					: 0;
		}
	}
	return near;
}

static struct kt_call call_of(const struct kt_align_token *token)
{
	return (struct kt_call){.token = token, .certificate = token->certificate};
}

/* Tokens whose audience the hop has are meant for it; where none of those passes, the nearest one is. */
static void try_tokens(struct finder *finder, const struct kt_align_hop *hop)
{
	const struct kt_align *align = finder->align;
	const struct kt_align_token *best = NULL;
	unsigned best_near = 0;
	bool passed = false;
	bool said = false;

	for (uint32_t i = 0; i < align->token_count; i++) {
		const struct kt_align_token *token = &align->tokens[i];
		struct kt_call call = call_of(token);
		unsigned near = nearness(hop, token);
		const struct kt_answer_row *row;

		kt_align_judge(hop, &call, &finder->answers);
		row = kt_align_refusal(&finder->answers);
		if (row == NULL) {
			passed = true;
		} else if (near & 8) {
			report(finder, hop, &call, row, true);
			said = true;
		} else if (best == NULL || near > best_near) {
			best = token;
			best_near = near;
		}
	}
	if (passed || said) {
		return;
	}
	if (best != NULL && best_near >= 2) {
		struct kt_call call = call_of(best);

		kt_align_judge(hop, &call, &finder->answers);
		report(finder, hop, &call, kt_align_refusal(&finder->answers), true);
	} else if (best != NULL) {
		struct kt_call call = call_of(best);

		kt_align_judge(hop, &call, &finder->answers);
		report(finder, hop, &call, kt_align_refusal(&finder->answers), false);
	} else {
		warn(finder, hop, hop->readers[0], 0, "", "", "reads tokens, and there is no Token here");
	}
}

/* Hops that look at identities only. */
static void try_certificates(struct finder *finder, const struct kt_align_hop *hop)
{
	const struct kt_align *align = finder->align;
	struct kt_call best = {.token = NULL};
	bool found = false;

	for (uint32_t i = 0; i < align->token_count; i++) {
		struct kt_call call = call_of(&align->tokens[i]);

		kt_align_judge(hop, &call, &finder->answers);
		if (kt_align_refusal(&finder->answers) == NULL) {
			return;
		}
		if (!found && call.certificate != NULL) {
			best = call;
			found = true;
		}
	}
	for (uint32_t i = 0; i < align->resource_count; i++) {
		struct kt_call call = {.certificate = align->resources[i]};

		if (align->resources[i]->kind != KT_RES_CERTIFICATE || kt_align_spiffe(align->resources[i]) == NULL) {
			continue;
		}
		kt_align_judge(hop, &call, &finder->answers);
		if (kt_align_refusal(&finder->answers) == NULL) {
			return;
		}
		if (!found) {
			best = call;
			found = true;
		}
	}
	if (!found && align->token_count > 0) {
		best = call_of(&align->tokens[0]);
		found = true;
	}
	if (found) {
		kt_align_judge(hop, &best, &finder->answers);
		report(finder, hop, &best, kt_align_refusal(&finder->answers), true);
	}
}

/* --- what no call shows ---------------------------------------- */

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

static void check_ahead(struct finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *reader,
			uint32_t line, const char *field, const struct kt_align_token *token, int64_t minutes)
{
	kt_ms ahead = token != NULL ? token->issuer->token_issuer.local->publish_ahead : 0;
	char mend[320], text[32];

	if (token == NULL || ahead >= minutes * KT_MINUTE) {
		return;
	}
	(void)snprintf(mend, sizeof(mend), "write publishAhead: %lldm into TokenIssuer %.100s", (long long)minutes,
		       token->issuer->meta.name);
	warn(finder, hop, reader, line, field, mend,
	     "keeps keys for %lld min, and TokenIssuer %.100s shows a new key only %s before it signs: after each "
	     "change of key "
	     "tokens get 401 for a while",
	     (long long)minutes, token->issuer->meta.name, kt_duration_format(ahead, text));
}

static void check_jwt_rule(struct finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *ra,
			   const struct kt_foreign_jwt_rule *rule)
{
	const struct kt_align_token *token = local_of(finder->align, rule->issuer.text, NULL);
	char field[96];

	if (rule->audiences.count == 0) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].audiences", rule->index);
		warn(finder, hop, ra, rule->line, field, "name the audience of the API",
		     "is missing, which means any: tokens of this issuer for every other API pass here too");
	}
	if (token == NULL) {
		return;
	}
	if (rule->jwks.text != NULL) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].jwks", rule->index);
		warn(finder, hop, ra, rule->jwks.line, field, "use jwksUri",
		     "is fixed, and the keys of TokenIssuer %.100s change: after the next change tokens get 401",
		     token->issuer->meta.name);
		return;
	}
	if (rule->jwks_uri.text != NULL && kt_align_jwks(token, rule->jwks_uri.text) == KT_MAYBE &&
	    !kt_align_same_host(rule->jwks_uri.text, token->jwks) &&
	    token->issuer->token_issuer.local->publish_jwks.volume == NULL) {
		(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].jwksUri", rule->index);
		warn(finder, hop, ra, rule->jwks_uri.line, field, "",
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

			for (uint32_t k = 0; is_jwt_policy(f) && k < f->config.audiences.count; k++) {
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

static void check_forward(struct finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *ra,
			  const struct kt_foreign_jwt_rule *rule)
{
	const struct kt_foreign *next = rule->forward ? NULL : next_reader(finder->align, rule);
	char field[96], name[600];

	if (next == NULL) {
		return;
	}
	reader_name(next, name, sizeof(name));
	(void)snprintf(field, sizeof(field), "spec.jwtRules[%u].forwardOriginalToken", rule->index);
	warn(finder, hop, ra, rule->line, field, "write forwardOriginalToken: true",
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

static void check_mesh(struct finder *finder, const struct kt_align_hop *hop)
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
			warn(finder, hop, f, 0, "spec", "add an AuthorizationPolicy with requestPrincipals",
			     "refuses bad tokens only: a call without one passes, as no AuthorizationPolicy for %.100s "
			     "asks for it",
			     hop->name);
		}
	}
	for (uint32_t i = 0; wants_peer && i < finder->align->token_count; i++) {
		const struct kt_resource *certificate = finder->align->tokens[i].certificate;

		if (certificate != NULL && certificate->certificate.uris.count > 1 &&
		    kt_align_spiffe(certificate) != NULL) {
			struct finding f = {.file = certificate->file,
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
			emit(finder, &f);
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

static void check_jwt_policy(struct finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *f)
{
	const struct kt_foreign_config *c = &f->config;
	const struct kt_align_token *token = local_of(finder->align, NULL, &c->jwks_urls);
	const char *dot = f->config_path[0] != '\0' ? "." : "";
	char field[96];

	if (!c->validate_aud) {
		(void)snprintf(field, sizeof(field), "%s%svalidateAudClaim", f->config_path, dot);
		warn(finder, hop, f, c->line, field, "write validateAudClaim: true and supportedAudiences",
		     "is not true: tokens of this issuer for every other API pass here too");
	}
	if (c->jwks_urls.count == 0 && (c->key_origin.text == NULL || strcmp(c->key_origin.text, "jwks") != 0)) {
		(void)snprintf(field, sizeof(field), "%s%stextKey", f->config_path, dot);
		warn(finder, hop, f, c->text_key.line, field, "use jwtKeyOrigin: jwks with jwksUrl",
		     "is fixed: after the issuer's next change of key tokens get 401");
	}
	(void)snprintf(field, sizeof(field), "%s%sjwksServiceTimeToLive", f->config_path, dot);
	check_ahead(finder, hop, f, c->jwks_minutes_line, field, token, c->jwks_minutes);
	for (uint32_t i = 0; token != NULL && !c->skip_client_id && i < finder->align->token_count; i++) {
		const struct kt_align_token *one = &finder->align->tokens[i];

		if (shares_audience(&c->audiences, one) && kt_align_is_local(one) &&
		    one->resource->token.claims.client_id == NULL) {
			(void)snprintf(field, sizeof(field), "%s%sskipClientIdValidation", f->config_path, dot);
			warn(finder, hop, f, c->client_id.line, field,
			     "set spec.claims.clientID of the Token to the client application's id, or "
			     "skipClientIdValidation: true",
			     "is not true, and claim client_id of Token %.100s/%.200s is \"%.100s\", hardly that of a "
			     "client application: 401",
			     one->resource->meta.ns, one->resource->meta.name, one->sub);
		}
	}
}

static void check_api(struct finder *finder, const struct kt_align_hop *hop)
{
	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		if (f->target.text != NULL && !instance_exists(finder->align, f)) {
			warn(finder, hop, f, f->target.line, "spec.targetRef.name",
			     "name the ApiInstance that it is to guard",
			     "(%.100s) is no ApiInstance or Service here: the policy would guard nothing",
			     f->target.text);
		}
		if (is_jwt_policy(f)) {
			check_jwt_policy(finder, hop, f);
		}
	}
}

/* A Token that asks its embedded issuer for more than it gives. */
static void check_tokens(struct finder *finder)
{
	for (uint32_t i = 0; i < finder->align->token_count; i++) {
		const struct kt_align_token *token = &finder->align->tokens[i];
		const struct kt_local_issuer *local =
			kt_align_is_local(token) ? token->issuer->token_issuer.local : NULL;
		char a[32], b[32];

		if (local != NULL && token->resource->token.duration > local->max_token_lifetime) {
			struct finding f = {.file = token->resource->file,
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
			emit(finder, &f);
		}
	}
}

json_t *kt_align_findings(const struct kt_align *align)
{
	struct finder *finder = kt_calloc(1, sizeof(*finder));
	json_t *out = json_array();

	if (finder == NULL || out == NULL) {
		kt_free(finder);
		json_decref(out);
		return NULL;
	}
	finder->align = align;
	finder->out = out;
	for (uint32_t h = 0; h < align->hop_count; h++) {
		const struct kt_align_hop *hop = &align->hops[h];

		if (reads_tokens(hop)) {
			try_tokens(finder, hop);
		} else {
			try_certificates(finder, hop);
		}
		if (hop->mesh) {
			check_mesh(finder, hop);
		} else {
			check_api(finder, hop);
		}
	}
	if (align->foreign_count > 0) {
		check_tokens(finder);
	}
	if (finder->failed) {
		json_decref(out);
		out = NULL;
	}
	kt_free(finder);
	return out;
}

/* --- predictions ---------------------------------------- */

static bool is_named(const struct kt_resource *resource, const char *name)
{
	const char *slash = strchr(name, '/');

	if (slash == NULL) {
		return strcmp(resource->meta.name, name) == 0;
	}
	return strcmp(resource->meta.name, slash + 1) == 0 && strlen(resource->meta.ns) == (size_t)(slash - name) &&
	       memcmp(resource->meta.ns, name, (size_t)(slash - name)) == 0;
}

static enum kt_code find_call(const struct kt_align *align, const struct kt_align_call *wanted, struct kt_call *ret,
			      struct kt_err *err)
{
	*ret = (struct kt_call){
		.method = wanted->method, .path = wanted->path, .host = wanted->host, .expired = wanted->expired};
	for (uint32_t i = 0; wanted->token != NULL && i < align->token_count && ret->token == NULL; i++) {
		ret->token = is_named(align->tokens[i].resource, wanted->token) ? &align->tokens[i] : NULL;
	}
	if (wanted->token != NULL && ret->token == NULL) {
		return kt_err_set(err, KT_E_NOTFOUND, "there is no Token %s", wanted->token);
	}
	if (wanted->certificate == NULL) {
		ret->certificate = ret->token != NULL ? ret->token->certificate : NULL;
		return KT_OK;
	}
	for (uint32_t i = 0; strcmp(wanted->certificate, "-") != 0 && i < align->resource_count; i++) {
		if (align->resources[i]->kind == KT_RES_CERTIFICATE &&
		    is_named(align->resources[i], wanted->certificate)) {
			ret->certificate = align->resources[i];
			return KT_OK;
		}
	}
	return strcmp(wanted->certificate, "-") == 0
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOTFOUND, "there is no Certificate %s", wanted->certificate);
}

static json_t *row_value(const struct kt_align_hop *hop, const struct kt_answer_row *row)
{
	char reader[600], answer[16], why[700];

	reader_name(row->reader, reader, sizeof(reader));
	answer_name(row->status, answer, sizeof(answer));
	(void)snprintf(why, sizeof(why), "%s%s%s", row->field, row->field[0] != '\0' ? " " : "", row->why);
	return json_pack("{s:s,s:s,s:i,s:b,s:s,s:s,s:s,s:I}", "hop", hop->name, "reader", reader, "status", row->status,
			 "certain", row->certain, "answer", answer, "why", why, "file", row->reader->file, "line",
			 (json_int_t)row->line);
}

enum kt_code kt_align_predict(const struct kt_align *align, const struct kt_align_call *wanted, json_t **ret_rows,
			      int *ret_status, struct kt_err *err)
{
	struct kt_answers *answers = kt_calloc(1, sizeof(*answers));
	json_t *rows = json_array();
	bool failed = answers == NULL || rows == NULL;
	struct kt_call call;
	enum kt_code code = find_call(align, wanted, &call, err);

	*ret_status = 200;
	for (uint32_t h = 0; code == KT_OK && !failed && h < align->hop_count; h++) {
		kt_align_judge(&align->hops[h], &call, answers);
		for (uint32_t i = 0; i < answers->count; i++) {
			const struct kt_answer_row *row = &answers->rows[i];

			failed |= json_array_append_new(rows, row_value(&align->hops[h], row)) != 0;
			if (row->status != 200 && row->certain && *ret_status == 200) {
				*ret_status = row->status;
			}
		}
	}
	kt_free(answers);
	if (code == KT_OK && failed) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for a prediction");
	}
	if (code != KT_OK) {
		json_decref(rows);
		rows = NULL;
	}
	*ret_rows = rows;
	return code;
}
