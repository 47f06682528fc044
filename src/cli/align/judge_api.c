/* What API Manager's policies and Flex Gateway answer to a call at one API, in the order of the policies. */
#include "cli/align/align_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "kt/text.h"

struct api {
	const struct kt_call *call;
	const struct kt_foreign *policy;
	struct kt_answer_row *row;
};

__attribute__((format(printf, 3, 4))) static void field(struct api *a, uint32_t line, const char *fmt, ...)
{
	const char *path = a->policy->config_path;
	size_t len;
	va_list args;

	a->row->line = line;
	(void)snprintf(a->row->field, sizeof(a->row->field), "%s%s", path, path[0] != '\0' ? "." : "");
	len = strlen(a->row->field);
	va_start(args, fmt);
	(void)vsnprintf(a->row->field + len, sizeof(a->row->field) - len, fmt, args);
	va_end(args);
}

/* --- DataWeave, as far as policies use it ---------------------------------------- */

/* The inside of "#[...]", trimmed; what is no expression is a literal. */
static bool unwrap(const char *text, char *out, size_t size)
{
	size_t len = strlen(text);
	const char *from = text + 2;

	if (len < 3 || text[0] != '#' || text[1] != '[' || text[len - 1] != ']') {
		return false;
	}
	len -= 3;
	while (len > 0 && isspace((unsigned char)*from)) {
		from++;
		len--;
	}
	while (len > 0 && isspace((unsigned char)from[len - 1])) {
		len--;
	}
	(void)snprintf(out, size, "%.*s", (int)(len < size ? len : size - 1), from);
	return true;
}

/* The name in vars.claimSet.NAME, vars.claimSet['NAME']; false: another expression. */
static bool claim_name(const char *inner, char *out, size_t size)
{
	const char *at = inner;
	size_t len;
	char quote;

	if (!kt_starts_with(at, "vars.claimSet")) {
		return false;
	}
	at += strlen("vars.claimSet");
	if (*at == '?') {
		at++;
	}
	if (*at == '.') {
		at++;
		len = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
		if (len == 0 || at[len] != '\0') {
			return false;
		}
	} else if (at[0] == '[' && (at[1] == '\'' || at[1] == '"')) {
		quote = at[1];
		at += 2;
		len = strcspn(at, quote == '\'' ? "'" : "\"");
		if (at[len] != quote || strcmp(at + len + 1, "]") != 0) {
			return false;
		}
	} else {
		return false;
	}
	(void)snprintf(out, size, "%.*s", (int)(len < size ? len : size - 1), at);
	return true;
}

static bool literal(const char *inner, char *out, size_t size)
{
	size_t len = strlen(inner);

	if (len < 2 || (inner[0] != '\'' && inner[0] != '"') || inner[len - 1] != inner[0] ||
	    memchr(inner + 1, inner[0], len - 2) != NULL) {
		return false;
	}
	(void)snprintf(out, size, "%.*s", (int)(len - 2 < size ? len - 2 : size - 1), inner + 1);
	return true;
}

/* --- the JWT policy: each check says true when it refused ---------------------------------------- */

/* Whether the policy finds the token; KT_MAYBE: an expression of its own. */
static enum kt_tri finds(const struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	char inner[512];

	if (a->call->token == NULL) {
		return KT_NO;
	}
	if (c->origin.text == NULL || strcmp(c->origin.text, "customExpression") != 0) {
		return a->call->token->resource->token.dpop != NULL ? KT_NO : KT_YES;
	}
	if (c->expression.text == NULL || !unwrap(c->expression.text, inner, sizeof(inner))) {
		return KT_NO;
	}
	return strcasestr(inner, "authorization") != NULL || strcasestr(inner, "header") == NULL ? KT_MAYBE : KT_NO;
}

static bool no_token(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	enum kt_tri found = finds(a);

	if (found != KT_NO) {
		return false;
	}
	if (a->call->token == NULL) {
		field(a, c->origin.line, "jwtOrigin");
		kt_align_refuse(a->row, 400, "wants a token, and the call has none");
	} else if (c->origin.text != NULL && strcmp(c->origin.text, "customExpression") == 0) {
		field(a, c->expression.text != NULL ? c->expression.line : c->origin.line, "jwtExpression");
		kt_align_refuse(a->row, 400,
				"(%.100s) does not look at the Authorization header, where our outputs put the token",
				c->expression.text != NULL ? c->expression.text : "");
		a->row->certain = false;
		kt_align_mend(a->row,
			      "set jwtOrigin to httpBearerAuthenticationHeader, or let the caller send that header");
	} else {
		field(a, c->origin.line, "jwtOrigin");
		kt_align_refuse(a->row, 400, "looks for a Bearer token, and this one is bound by DPoP");
		kt_align_mend(a->row, "take spec.dpop out of the Token");
	}
	return true;
}

static bool wrong_algorithm(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	const char *method = c->signing_method.text != NULL ? c->signing_method.text : "rsa";
	const char *bits = c->key_length.text != NULL ? c->key_length.text : "256";
	const struct kt_align_token *token = a->call->token;
	const char *family = strcasecmp(method, "rsa") == 0 ? "RS" : strcasecmp(method, "hmac") == 0 ? "HS" : "ES";
	const char *alg;
	char wanted[16];

	if (strcasecmp(method, "none") == 0) {
		return false;
	}
	(void)snprintf(wanted, sizeof(wanted), "%s%.3s", family, bits);
	alg = kt_align_is_local(token) ? kt_token_alg_name(token->issuer->token_issuer.local->algorithm) : NULL;
	if (alg == NULL ? strcmp(family, "HS") != 0 : strcmp(alg, wanted) == 0) {
		return false;
	}
	field(a, c->signing_method.text != NULL ? c->signing_method.line : c->line, "signingMethod");
	kt_align_refuse(a->row, 401, "asks for %s, and the issuer signs with %s", wanted,
			alg != NULL ? alg : "a key pair");
	if (alg != NULL) {
		kt_align_mend(a->row,
			      "write signingMethod: %s and signingKeyLength: 256, or algorithm: %s in the TokenIssuer",
			      strcmp(alg, "ES256") == 0 ? "es" : "rsa", strcmp(family, "RS") == 0 ? "RS256" : "ES256");
	} else {
		kt_align_mend(a->row, "write signingMethod: rsa and jwtKeyOrigin: jwks");
	}
	return true;
}

static bool wrong_keys(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	enum kt_tri best = KT_NO;

	if (c->key_origin.text == NULL || strcmp(c->key_origin.text, "jwks") != 0) {
		if (c->jwks_urls.count == 0) {
			return false; /* a fixed key: align.c warns */
		}
	}
	for (uint32_t i = 0; i < c->jwks_urls.count; i++) {
		enum kt_tri one = kt_align_jwks(a->call->token, c->jwks_urls.items[i].text);

		best = one > best ? one : best;
	}
	if (best != KT_NO) {
		return false;
	}
	field(a, c->jwks_urls.line, "jwksUrl");
	if (c->jwks_urls.count == 0) {
		kt_align_refuse(a->row, 401, "is missing, so no signature can be verified");
	} else {
		kt_align_refuse(a->row, 401,
				"(%.150s) is not where the issuer shows its keys: no signature can be verified",
				c->jwks_urls.items[0].text);
	}
	if (a->call->token->jwks != NULL) {
		kt_align_mend(a->row, "write %.200s", a->call->token->jwks);
	}
	return true;
}

static bool wrong_audience(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	struct kt_values aud;

	kt_align_claim(a->call->token, "aud", &aud);
	if (!c->validate_aud || !aud.known || (!aud.present && !c->mandatory_aud)) {
		return false;
	}
	for (uint32_t i = 0; i < c->audiences.count; i++) {
		for (uint32_t k = 0; k < aud.count; k++) {
			if (strcmp(c->audiences.items[i].text, aud.items[k]) == 0) {
				return false;
			}
		}
	}
	field(a, c->audiences.line, "supportedAudiences");
	if (!aud.present) {
		kt_align_refuse(a->row, 401, "(\"%.120s\") is asked for, and the token has no audience",
				c->audiences.count > 0 ? c->audiences.items[0].text : "");
		kt_align_mend(a->row, "set spec.audiences of the Token to [\"%.120s\"]",
			      c->audiences.count > 0 ? c->audiences.items[0].text : "...");
		return true;
	}
	kt_align_refuse(a->row, 401, "(\"%.100s\"%s) has none of the token's audiences (\"%.100s\"%s)%s",
			c->audiences.count > 0 ? c->audiences.items[0].text : "", c->audiences.count > 1 ? ", ..." : "",
			aud.items[0], aud.count > 1 ? ", ..." : "",
			c->audiences.count > 0 && kt_align_loosely(c->audiences.items[0].text, aud.items[0])
				? ", which are compared letter by letter"
				: "");
	kt_align_mend(a->row, "write \"%.120s\" here, or the audience of the API into spec.audiences of the Token",
		      aud.items[0]);
	return true;
}

static bool no_start(struct api *a)
{
	if (!a->policy->config.mandatory_nbf || !kt_align_is_local(a->call->token)) {
		return false;
	}
	field(a, a->policy->config.mandatory_nbf_line, "mandatoryNbfClaim");
	kt_align_refuse(a->row, 401, "wants nbf, which tokens of the embedded issuer don't have");
	kt_align_mend(a->row, "write mandatoryNbfClaim: false");
	return true;
}

static bool no_client(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	const char *text = c->client_id.text != NULL ? c->client_id.text : "#[vars.claimSet.client_id]";
	struct kt_values values;
	char inner[512], name[128];

	if (c->skip_client_id) {
		return false;
	}
	if (!unwrap(text, inner, sizeof(inner)) || !claim_name(inner, name, sizeof(name))) {
		a->row->certain = false;
		return false;
	}
	kt_align_claim(a->call->token, name, &values);
	if (!values.known || values.present) {
		a->row->certain &= values.known;
		return false;
	}
	field(a, c->client_id.line, "clientIdExpression");
	kt_align_refuse(a->row, 401, "takes the client id from claim %.60s, which the token does not have", name);
	kt_align_mend(a->row, "write #[vars.claimSet.client_id], or spec.claims.extra.%.60s into the Token", name);
	return true;
}

static bool wrong_claim(struct api *a, uint32_t index)
{
	const struct kt_foreign_claim *claim = &a->policy->config.claims[index];
	char inner[512], text[512];
	struct kt_values values;

	kt_align_claim(a->call->token, claim->key, &values);
	if (values.known && !values.present && claim->mandatory) {
		field(a, claim->line, "mandatoryCustomClaims[%u]", index);
		kt_align_refuse(a->row, 401, "wants claim %.60s, which the token does not have", claim->key);
		kt_align_mend(a->row, "add %.60s to spec.claims.extra of the Token", claim->key);
		return true;
	}
	if (!values.known || !values.present || claim->value == NULL) {
		a->row->certain &= values.known;
		return false;
	}
	if (!unwrap(claim->value, inner, sizeof(inner))) {
		(void)snprintf(text, sizeof(text), "%s", claim->value);
	} else if (claim_name(inner, text, sizeof(text)) && strcmp(text, claim->key) == 0) {
		return false; /* equal to itself */
	} else if (!literal(inner, text, sizeof(text))) {
		a->row->certain = false;
		return false;
	}
	for (uint32_t k = 0; k < values.count; k++) {
		if (strcmp(values.items[k], text) == 0) {
			return false;
		}
	}
	field(a, claim->line, "%s[%u]", claim->mandatory ? "mandatoryCustomClaims" : "nonMandatoryCustomClaims", index);
	kt_align_refuse(a->row, 401, "wants claim %.60s to be \"%.100s\", and the token has \"%.100s\"", claim->key,
			text, values.items[0]);
	kt_align_mend(a->row, "make the two equal");
	return true;
}

static bool wrong_claims(struct api *a)
{
	for (uint32_t i = 0; a->policy->config.validate_custom && i < a->policy->config.claim_count; i++) {
		if (wrong_claim(a, i)) {
			return true;
		}
	}
	return false;
}

static void judge_jwt(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;

	if (no_token(a)) {
		return;
	}
	if (kt_align_is_opaque(a->call->token)) {
		field(a, c->line, "jwtOrigin");
		kt_align_refuse(a->row, 401, "wants a JWT, and the tokens of Anypoint's platform are none");
		kt_align_mend(a->row, "take the token from the authorization server whose tokens the API accepts");
		return;
	}
	if (a->call->expired) {
		field(a, c->line, "jwtOrigin");
		kt_align_refuse(a->row, 401, "gets a token that is past its end");
		return;
	}
	if (wrong_algorithm(a) || wrong_keys(a) || wrong_audience(a) || no_start(a) || wrong_claims(a) ||
	    no_client(a)) {
		return;
	}
	kt_align_pass(a->row, "signature%s%s taken", c->validate_aud ? ", audience" : ", any audience",
		      c->validate_custom && c->claim_count > 0 ? ", claims" : "");
}

/* Whether a caller's pair is good until it has the next one. */
static bool overlaps(const struct kt_client_credential_spec *client)
{
	return client->strategy == KT_CLIENT_ALTERNATE || client->issuer.anypoint == NULL;
}

static void judge_client_id(struct api *a)
{
	const struct kt_foreign_config *c = &a->policy->config;
	const struct kt_resource *client = a->call->client;

	if (c->origin.text != NULL && strcmp(c->origin.text, "httpBasicAuthenticationHeader") == 0 &&
	    a->call->token != NULL) {
		field(a, c->origin.line, "credentialsOriginHasHttpBasicAuthenticationHeader");
		kt_align_refuse(a->row, 401,
				"wants client id and secret in the Authorization header, where the token is");
		kt_align_mend(a->row, "write customExpression with #[attributes.headers['client_id']] and "
				      "#[attributes.headers['client_secret']]");
		return;
	}
	if (client != NULL) { /* whether it has a contract with the API stands in no manifest */
		kt_align_pass(a->row, "id and secret of ClientCredential %s/%s%s", client->meta.ns, client->meta.name,
			      overlaps(&client->client) ? ""
							: "; 401 from each reset until the caller has the new one "
							  "(AlternateClients has no such gap)");
		a->row->certain = false;
		return;
	}
	field(a, c->origin.line, "clientIdExpression");
	kt_align_refuse(a->row, 401, "wants a client id and secret besides the token, which no manifest here delivers");
	kt_align_mend(a->row,
		      "put a ClientCredential beside the Token in its Consumer, let the caller send client_id and "
		      "client_secret, or leave the client id to the JWT policy");
	a->row->certain = a->call->no_client;
}

static void judge_tls(struct api *a)
{
	const struct kt_resource *certificate = a->call->certificate;

	field(a, a->policy->config.line, "requireClientCertificate");
	if (certificate == NULL) {
		kt_align_refuse(a->row, 0, "wants a client certificate, and the call has none");
		kt_align_mend(a->row, "put a Certificate with client auth beside the Token in its Consumer");
	} else if (!kt_align_client_usage(certificate)) {
		kt_align_refuse(a->row, 0, "wants a client certificate, and Certificate %s/%s is not for clients",
				certificate->meta.ns, certificate->meta.name);
		kt_align_mend(a->row, "add client auth to spec.usages of Certificate %s", certificate->meta.name);
	} else {
		kt_align_pass(a->row, "client certificate %s/%s", certificate->meta.ns, certificate->meta.name);
	}
}

void kt_align_judge_api(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret)
{
	struct api a = {.call = call};

	for (uint32_t i = 0; i < hop->reader_count; i++) {
		a.policy = hop->readers[i];
		if (a.policy->disabled || a.policy->config.policy == KT_FOREIGN_POLICY_OTHER ||
		    (a.policy->config.policy == KT_FOREIGN_POLICY_TLS && !a.policy->config.client_certificate)) {
			continue;
		}
		a.row = kt_align_answer(ret, a.policy, a.policy->line);
		if (a.policy->config.policy == KT_FOREIGN_POLICY_JWT) {
			judge_jwt(&a);
		} else if (a.policy->config.policy == KT_FOREIGN_POLICY_CLIENT_ID) {
			judge_client_id(&a);
		} else {
			judge_tls(&a);
		}
		if (a.row->status != 200 && a.row->certain) {
			return;
		}
	}
}
