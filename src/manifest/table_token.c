/* The field tables of TokenIssuer and Token, and the checks across their fields. */
#include <string.h>

#include "manifest/rows.h"

#define WITH_TOKENS "it comes with the token release; use client_secret_basic or client_secret_post"
#define LATER       "it comes with the token release; leave it out for now"

static const struct kt_enum_name audience_params[] = {{"resource", KT_AUDIENCE_RESOURCE},
						      {"audience", KT_AUDIENCE_AUDIENCE},
						      {"scope", KT_AUDIENCE_SCOPE},
						      {"none", KT_AUDIENCE_NONE},
						      {NULL, 0}};
static const struct kt_enum_name methods[] = {
	{"client_secret_basic", KT_AUTH_SECRET_BASIC}, {"client_secret_post", KT_AUTH_SECRET_POST}, {NULL, 0}};
static const struct kt_enum_name algorithms[] = {{"ES256", KT_TOKEN_ES256}, {"RS256", KT_TOKEN_RS256}, {NULL, 0}};
static const struct kt_enum_name longer[] = {{"Warn", KT_LONGER_WARN}, {"Refuse", KT_LONGER_REFUSE}, {NULL, 0}};
static const struct kt_enum_name outputs[] = {
	{"raw", KT_TOKEN_OUTPUT_RAW}, {"header", KT_TOKEN_OUTPUT_HEADER}, {"json", KT_TOKEN_OUTPUT_JSON}, {NULL, 0}};
static const struct kt_enum_name issuer_kinds[] = {{"TokenIssuer", KT_RES_TOKEN_ISSUER}, {NULL, 0}};

const char *kt_audience_param_name(enum kt_audience_param param)
{
	return kt_enum_text(audience_params, (int)param);
}

const char *kt_auth_method_name(enum kt_auth_method method)
{
	return kt_enum_text(methods, (int)method);
}

const char *kt_token_alg_name(enum kt_token_alg alg)
{
	return kt_enum_text(algorithms, (int)alg);
}

/* --- TokenIssuer ----------------------------------------------------------------------------------------------------
 */

SECRET_REF_TABLE(client_secret_table, "client-secret");

/* Methods of the token release are refused by name, before the enumeration would call them unknown. */
static const char *check_method(const char *text)
{
	static const char *const later[] = {"private_key_jwt", "client_secret_jwt", "tls_client_auth",
					    "self_signed_tls_client_auth", "none"};

	for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
		if (!strcmp(text, later[i]))
			return "is not offered yet: " WITH_TOKENS;
	}
	return NULL;
}

static const struct kt_field auth_rows[] = {
	ROW("clientID", KT_F_STRING, struct kt_oauth2_auth, client_id, REQUIRED, .check = kt_value_printable,
	    .max = 1024, DOC "client_id at the server."),
	ROW("clientSecretRef", KT_F_STRUCT, struct kt_oauth2_auth, client_secret_ref, REQUIRED, OF(client_secret_table),
	    DOC "Where the client secret is kept; key `client-secret` when absent."),
	REFUSED("keySecretRef", WITH_TOKENS),
	ROW("method", KT_F_ENUM, struct kt_oauth2_auth, method, .def = KT_AUTH_SECRET_BASIC, .names = methods,
	    .check = check_method, DOC "How the client shows who it is (RFC 6749 2.3.1)."),
};
static const struct kt_table auth_table =
	TABLE("ClientAuth", struct kt_oauth2_auth, auth_rows, .doc = "Client authentication.");

static const struct kt_field oauth2_rows[] = {
	ROW("audienceParam", KT_F_ENUM, struct kt_oauth2_issuer, audience_param, .def = KT_AUDIENCE_AUDIENCE,
	    .names = audience_params,
	    DOC "How the server wants to hear the audience: parameter `resource` (RFC 8707), parameter `audience`, as "
		"scopes, or not at all."),
	ROW("auth", KT_F_STRUCT, struct kt_oauth2_issuer, auth, REQUIRED, OF(auth_table), DOC "Client authentication."),
	ROW("caBundle", KT_F_BYTES, struct kt_oauth2_issuer, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("issuer", KT_F_STRING, struct kt_oauth2_issuer, issuer, CHOICE, .check = kt_value_url,
	    DOC "Issuer identifier; its metadata names the token endpoint (RFC 8414, OIDC discovery) and tokens are "
		"checked against it."),
	ROW("tokenURL", KT_F_STRING, struct kt_oauth2_issuer, token_url, CHOICE, .check = kt_value_url,
	    DOC "The token endpoint itself."),
};
static const struct kt_table oauth2_table =
	TABLE("OAuth2", struct kt_oauth2_issuer, oauth2_rows, .choice_min = 1, .choice_max = 2,
	      .doc = "client_credentials at an authorization server (RFC 6749 4.4).");

static const struct kt_field volume_rows[] = {
	ROW("path", KT_F_STRING, struct kt_publish_volume, path, REQUIRED, .check = kt_value_path,
	    DOC "Folder in which jwks.json and openid-configuration are replaced."),
};
static const struct kt_table volume_table =
	TABLE("JWKSVolume", struct kt_publish_volume, volume_rows, .doc = "A folder for the JWKS.");

static const struct kt_field publish_rows[] = {
	ROW("listener", KT_F_BOOL, struct kt_publish_jwks, listener, .def = 1,
	    DOC "Serve it on the Agent's listener `jwks`."),
	ROW("volume", KT_F_OBJECT, struct kt_publish_jwks, volume, OF(volume_table), DOC "Write it into a folder."),
};
static const struct kt_table publish_table = TABLE("PublishJWKS", struct kt_publish_jwks, publish_rows,
						   .doc = "Where public keys and discovery document are shown.");

static const struct kt_field local_rows[] = {
	ROW("algorithm", KT_F_ENUM, struct kt_local_issuer, algorithm, .def = KT_TOKEN_ES256, .names = algorithms,
	    DOC "Signature of the tokens."),
	ROW("issuerURL", KT_F_STRING, struct kt_local_issuer, issuer_url, REQUIRED, .check = kt_value_url,
	    DOC "`iss` of the tokens; the discovery document is looked for below it."),
	ROW("keyRotation", KT_F_DURATION, struct kt_local_issuer, key_rotation, .def = 30 * KT_DAY,
	    .min = 5 * KT_SECOND, .max = 3660 * KT_DAY, DOC "How long a key signs."),
	ROW("maxTokenLifetime", KT_F_DURATION, struct kt_local_issuer, max_token_lifetime, .def = KT_HOUR,
	    .min = 5 * KT_SECOND, .max = 30 * KT_DAY,
	    DOC "No token lives longer; an old key stays in the JWKS so long."),
	ROW("publishAhead", KT_F_DURATION, struct kt_local_issuer, publish_ahead, .def = KT_HOUR, .min = 0,
	    .max = 30 * KT_DAY,
	    DOC "A new key is shown so long before it signs: at least the longest time that a verifier keeps the JWKS "
		"(API Manager: 60 min)."),
	ROW("publishJWKS", KT_F_STRUCT, struct kt_local_issuer, publish_jwks, OF(publish_table),
	    DOC "Where the public keys are shown."),
};

static void check_local(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_local_issuer *local = object;

	if (!local->publish_jwks.listener && !local->publish_jwks.volume)
		kt_warn(d, node, "publishJWKS", "shows the keys nowhere: nobody can verify the tokens");
}

static const struct kt_table local_table =
	TABLE("LocalIssuer", struct kt_local_issuer, local_rows, .check = check_local,
	      .doc = "The embedded issuer: signed JWTs (RFC 9068).");

static const struct kt_field issuer_rows[] = {
	REFUSED("anypoint", "it comes with the token release; use oauth2 with tokenURL", .flags = KT_F_CHOICE),
	ROW("local", KT_F_OBJECT, struct kt_token_issuer_spec, local, CHOICE, OF(local_table),
	    DOC "The embedded issuer."),
	ROW("oauth2", KT_F_OBJECT, struct kt_token_issuer_spec, oauth2, CHOICE, OF(oauth2_table),
	    DOC "An OAuth 2.0 authorization server."),
};
static const struct kt_table issuer_table =
	TABLE("TokenIssuerSpec", struct kt_token_issuer_spec, issuer_rows, .choice_min = 1, .choice_max = 1,
	      .doc = "Exactly one source of tokens.");

static const struct kt_field issuer_top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "TokenIssuer"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, token_issuer, REQUIRED, OF(issuer_table),
	    DOC "How tokens are had."),
	STATUS_ROW,
};

const struct kt_table kt_table_token_issuer =
	TABLE("TokenIssuer", struct kt_resource, issuer_top_rows, .doc = "Where tokens come from.");

/* --- Token
 * --------------------------------------------------------------------------------------------------------------- */

typedef struct kt_token_spec token;

static const struct kt_field claims_rows[] = {
	ROW("clientID", KT_F_STRING, struct kt_token_claims, client_id, .check = kt_value_printable, .max = 1024,
	    DOC "`client_id`; the subject when absent."),
	ROW("extra", KT_F_PAIRS, struct kt_token_claims, extra, .check_key = kt_value_claim_name,
	    .check = kt_value_printable, .max = 32, DOC "Further claims with text as value."),
	ROW("subject", KT_F_STRING, struct kt_token_claims, subject, .check = kt_value_printable, .max = 1024,
	    DOC "`sub`; `<namespace>/<name>` of the Token when absent."),
};
static const struct kt_table claims_table =
	TABLE("Claims", struct kt_token_claims, claims_rows, .doc = "What the embedded issuer writes into the token.");

static const struct kt_field issuer_ref_rows[] = {
	ROW("group", KT_F_STRING, struct kt_issuer_ref, group, .def_text = "keyturn.dev", DOC "Only keyturn.dev."),
	ROW("kind", KT_F_ENUM, struct kt_issuer_ref, kind, .def = KT_RES_TOKEN_ISSUER, .names = issuer_kinds,
	    DOC "Kind of the issuer."),
	ROW("name", KT_F_STRING, struct kt_issuer_ref, name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the TokenIssuer, in the namespace of the Token."),
};

static void check_ref(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_issuer_ref *ref = object;

	if (strcmp(ref->group, "keyturn.dev") != 0)
		kt_complain(d, node, "group", "(%.128s) must be keyturn.dev", ref->group);
}

static const struct kt_table issuer_ref_table =
	TABLE("TokenIssuerRef", struct kt_issuer_ref, issuer_ref_rows, .check = check_ref, .doc = "Which issuer.");

static const struct kt_field token_rows[] = {
	ROW("audiences", KT_F_STRINGS, token, audiences, .check = kt_value_printable, .max = 32,
	    DOC "For whom the token is (`aud`)."),
	REFUSED("certificateRef", LATER),
	ROW("claims", KT_F_STRUCT, token, claims, OF(claims_table),
	    DOC "Only with the embedded issuer: what it writes into the token."),
	ROW("defaultLifetime", KT_F_DURATION, token, default_lifetime, .def = 5 * KT_MINUTE, .min = KT_SECOND,
	    .max = 366 * KT_DAY, DOC "Life of an opaque token whose answer had no expires_in."),
	ROW("duration", KT_F_DURATION, token, duration, .def = 10 * KT_MINUTE, .min = 5 * KT_SECOND, .max = 30 * KT_DAY,
	    DOC "Only with the embedded issuer: life of the token. A server elsewhere decides itself."),
	ROW("issuerRef", KT_F_STRUCT, token, issuer_ref, REQUIRED, OF(issuer_ref_table), DOC "Which issuer."),
	ROW("maxLifetime", KT_F_DURATION, token, max_lifetime, .min = KT_SECOND, .max = 366 * KT_DAY,
	    DOC "A token counts as expired after so long, whatever the server says."),
	ROW("onLongerLifetime", KT_F_ENUM, token, on_longer_lifetime, .def = KT_LONGER_WARN, .names = longer,
	    DOC "What to do when the server gives a token that lives longer than maxLifetime."),
	ROW("outputs", KT_F_FLAGS, token, outputs, .def = KT_TOKEN_OUTPUT_RAW, .names = outputs,
	    DOC "Files: raw writes `token` (no newline), header writes `header` (`Authorization: Bearer ...`), json "
		"writes `token.json`."),
	ROW("renewBefore", KT_F_DURATION, token, renew_before, .min = KT_SECOND, .max = 366 * KT_DAY,
	    DOC "Renew so long before the end; when absent at half of a life under 10 min, else with a fifth left, "
		"jittered."),
	ROW("scopes", KT_F_STRINGS, token, scopes, .check = kt_value_scope, .max = 128,
	    DOC "Scopes asked for; fewer are refused."),
	ROW("secretName", KT_F_STRING, token, secret_name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the secret volume; one owner each."),
};

static void check_token(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const token *t = object;
	char a[32], b[32], c[32];
	const char *before = kt_written(node, "renewBefore", t->renew_before, a);
	const char *life = kt_written(node, "duration", t->duration, b);
	const char *max = kt_written(node, "maxLifetime", t->max_lifetime, c);
	bool has_duration = kt_node_get(node, "duration") != NULL;

	if (t->max_lifetime && t->renew_before >= t->max_lifetime)
		kt_complain(d, node, "renewBefore", "(%s) must be shorter than spec.maxLifetime (%s)", before, max);
	else if (has_duration && t->renew_before >= t->duration)
		kt_complain(d, node, "renewBefore", "(%s) must be shorter than spec.duration (%s)", before, life);
	if (t->max_lifetime && has_duration && t->duration > t->max_lifetime)
		kt_complain(d, node, "duration", "(%s) must not be longer than spec.maxLifetime (%s)", life, max);
}

static const struct kt_table token_table =
	TABLE("TokenSpec", token, token_rows, .check = check_token, .doc = "What is wanted.");

static const struct kt_field token_top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "Token"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, token, REQUIRED, OF(token_table), DOC "What is wanted."),
	STATUS_ROW,
};

const struct kt_table kt_table_token = TABLE("Token", struct kt_resource, token_top_rows, .doc = "A token.");
