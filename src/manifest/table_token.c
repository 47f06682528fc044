/* The field tables of TokenIssuer and Token, and the checks across their fields. */
#include <string.h>

#include "manifest/rows.h"

static const struct kt_enum_name audience_params[] = {{"resource", KT_AUDIENCE_RESOURCE},
						      {"audience", KT_AUDIENCE_AUDIENCE},
						      {"scope", KT_AUDIENCE_SCOPE},
						      {"none", KT_AUDIENCE_NONE},
						      {NULL, 0}};
static const struct kt_enum_name methods[] = {{"client_secret_basic", KT_AUTH_SECRET_BASIC},
					      {"client_secret_post", KT_AUTH_SECRET_POST},
					      {"client_secret_jwt", KT_AUTH_SECRET_JWT},
					      {"private_key_jwt", KT_AUTH_PRIVATE_KEY_JWT},
					      {"tls_client_auth", KT_AUTH_TLS},
					      {"self_signed_tls_client_auth", KT_AUTH_SELF_SIGNED_TLS},
					      {"spiffe_jwt", KT_AUTH_SPIFFE_JWT},
					      {"none", KT_AUTH_NONE},
					      {NULL, 0}};
const struct kt_enum_name kt_assertion_algs[] = {{"ES256", KT_ASSERTION_ES256}, {"ES384", KT_ASSERTION_ES384},
						     {"RS256", KT_ASSERTION_RS256}, {"PS256", KT_ASSERTION_PS256},
						     {"EdDSA", KT_ASSERTION_EDDSA}, {NULL, 0}};
static const struct kt_enum_name profiles[] = {{"Generic", KT_PROFILE_GENERIC},   {"Anypoint", KT_PROFILE_ANYPOINT},
					       {"Okta", KT_PROFILE_OKTA},         {"Keycloak", KT_PROFILE_KEYCLOAK},
					       {"Entra", KT_PROFILE_ENTRA},       {NULL, 0}};
static const struct kt_enum_name algorithms[] = {{"ES256", KT_TOKEN_ES256}, {"RS256", KT_TOKEN_RS256}, {NULL, 0}};
static const struct kt_enum_name longer[] = {{"Warn", KT_LONGER_WARN}, {"Refuse", KT_LONGER_REFUSE}, {NULL, 0}};
static const struct kt_enum_name outputs[] = {
	{"raw", KT_TOKEN_OUTPUT_RAW},   {"header", KT_TOKEN_OUTPUT_HEADER}, {"json", KT_TOKEN_OUTPUT_JSON},
	{"curl", KT_TOKEN_OUTPUT_CURL}, {"env", KT_TOKEN_OUTPUT_ENV},       {"envoy", KT_TOKEN_OUTPUT_ENVOY},
	{"flex", KT_TOKEN_OUTPUT_FLEX}, {"awsProcess", KT_TOKEN_OUTPUT_AWS_PROCESS},
	{"awsCredentials", KT_TOKEN_OUTPUT_AWS_CREDENTIALS}, {"awsEndpoint", KT_TOKEN_OUTPUT_AWS_ENDPOINT}, {NULL, 0}};
static const struct kt_enum_name issuer_kinds[] = {{"TokenIssuer", KT_RES_TOKEN_ISSUER}, {NULL, 0}};

const char *kt_audience_param_name(enum kt_audience_param param)
{
	return kt_enum_text(audience_params, (int)param);
}

const char *kt_auth_method_name(enum kt_auth_method method)
{
	return kt_enum_text(methods, (int)method);
}

const char *kt_assertion_alg_name(enum kt_assertion_alg alg)
{
	return kt_enum_text(kt_assertion_algs, (int)alg);
}

const char *kt_oauth2_profile_name(enum kt_oauth2_profile profile)
{
	return kt_enum_text(profiles, (int)profile);
}

const char *kt_token_alg_name(enum kt_token_alg alg)
{
	return kt_enum_text(algorithms, (int)alg);
}

/* --- TokenIssuer ----------------------------------------------------------------------------------------------------
 */

SECRET_REF_TABLE(client_secret_table, "client-secret");

SECRET_REF_TABLE(client_key_table, "tls.key");
SECRET_REF_TABLE(refresh_table, "refresh-token");
SECRET_REF_TABLE(source_table, "token");

static const struct kt_field auth_rows[] = {
	ROW("algorithm", KT_F_ENUM, struct kt_oauth2_auth, algorithm, .def = KT_ASSERTION_DEFAULT,
	    .names = kt_assertion_algs, DOC "Signature of the assertion; when absent what fits the key (RSA: RS256)."),
	ROW("assertionLifetime", KT_F_DURATION, struct kt_oauth2_auth, assertion_lifetime, .def = 60 * KT_SECOND,
	    .min = 5 * KT_SECOND, .max = KT_HOUR, DOC "Life of an assertion."),
	ROW("audience", KT_F_STRING, struct kt_oauth2_auth, audience, .check = kt_value_printable, .max = 1024,
	    DOC "`aud` of the assertion; when absent the token endpoint, or what the profile wants."),
	ROW("certificateRef", KT_F_STRING, struct kt_oauth2_auth, certificate_ref, .check = kt_value_name,
	    DOC "tls_client_auth, self_signed_tls_client_auth: secretName of the Certificate that the connection shows "
		"(RFC 8705)."),
	ROW("clientID", KT_F_STRING, struct kt_oauth2_auth, client_id, REQUIRED, .check = kt_value_printable,
	    .max = 1024, DOC "client_id at the server."),
	ROW("clientSecretRef", KT_F_STRUCT, struct kt_oauth2_auth, client_secret_ref, .flags = KT_F_OPTIONAL,
	    OF(client_secret_table), DOC "Where the client secret is kept; key `client-secret` when absent."),
	ROW("keyID", KT_F_STRING, struct kt_oauth2_auth, key_id, .check = kt_value_printable, .max = 256,
	    DOC "`kid` of the assertion; when absent the thumbprint of the key (RFC 7638)."),
	ROW("keySecretRef", KT_F_STRUCT, struct kt_oauth2_auth, key_secret_ref, .flags = KT_F_OPTIONAL,
	    OF(client_key_table), DOC "private_key_jwt: where the private key (PEM) is kept; key `tls.key` when absent."),
	ROW("method", KT_F_ENUM, struct kt_oauth2_auth, method, .def = KT_AUTH_SECRET_BASIC, .names = methods,
	    DOC "How the client shows who it is (RFC 6749 2.3.1, RFC 7523, RFC 8705)."),
	ROW("tokenRef", KT_F_STRING, struct kt_oauth2_auth, token_ref, .check = kt_value_name,
	    DOC "spiffe_jwt: secretName of the Token (a JWT-SVID) that is the assertion."),
};

/* Each method has what it needs, and nothing that it would not look at. */
static void check_auth(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_oauth2_auth *auth = object;
	enum kt_auth_method method = auth->method;
	bool by_secret = method == KT_AUTH_SECRET_BASIC || method == KT_AUTH_SECRET_POST || method == KT_AUTH_SECRET_JWT;
	bool by_tls = method == KT_AUTH_TLS || method == KT_AUTH_SELF_SIGNED_TLS;
	const struct {
		const char *field;
		bool given, needed;
	} rows[] = {{"clientSecretRef", auth->client_secret_ref.name != NULL, by_secret},
		    {"keySecretRef", auth->key_secret_ref.name != NULL, method == KT_AUTH_PRIVATE_KEY_JWT},
		    {"certificateRef", auth->certificate_ref != NULL, by_tls},
		    {"tokenRef", auth->token_ref != NULL, method == KT_AUTH_SPIFFE_JWT}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].needed && !rows[i].given)
			kt_complain(d, node, rows[i].field, "is needed for method %s", kt_auth_method_name(method));
		else if (rows[i].given && !rows[i].needed)
			kt_complain(d, node, rows[i].field, "is of no use to method %s", kt_auth_method_name(method));
	}
}

static const struct kt_table auth_table = TABLE("ClientAuth", struct kt_oauth2_auth, auth_rows, .check = check_auth,
						.doc = "Client authentication.");

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
	ROW("jwksURL", KT_F_STRING, struct kt_oauth2_issuer, jwks_url, .check = kt_value_url,
	    DOC "verifyTokens: where the server's keys are; when absent its metadata's jwks_uri, where that is on the issuer's "
		"own host."),
	ROW("profile", KT_F_ENUM, struct kt_oauth2_issuer, profile, .def = KT_PROFILE_GENERIC, .names = profiles,
	    DOC "What make of server it is: its ways beside the RFCs (rate-limit headers, `aud` of assertions, nonces)."),
	ROW("revokeSuperseded", KT_F_BOOL, struct kt_oauth2_issuer, revoke_superseded,
	    DOC "Revoke a token at the server once a newer one has taken its place (RFC 7009)."),
	ROW("tokenURL", KT_F_STRING, struct kt_oauth2_issuer, token_url, CHOICE, .check = kt_value_url,
	    DOC "The token endpoint itself."),
	ROW("verifyTokens", KT_F_BOOL, struct kt_oauth2_issuer, verify_tokens,
	    DOC "Deliver a token only when it is a JWT that the server's published keys verify, as its readers will do."),
};

static void check_oauth2(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_oauth2_issuer *oauth2 = object;

	if (oauth2->jwks_url != NULL && !oauth2->verify_tokens)
		kt_complain(d, node, "jwksURL", "is of no use without verifyTokens");
	else if (oauth2->verify_tokens && oauth2->jwks_url == NULL && oauth2->token_url != NULL)
		kt_complain(d, node, "verifyTokens", "needs jwksURL where tokenURL is given: no metadata is read then");
}

static const struct kt_table oauth2_table =
	TABLE("OAuth2", struct kt_oauth2_issuer, oauth2_rows, .choice_min = 1, .choice_max = 2, .check = check_oauth2,
	      .doc = "An authorization server (RFC 6749); client_credentials when the Token names no other grant.");

static const struct kt_field volume_rows[] = {
	ROW("path", KT_F_STRING, struct kt_publish_volume, path, REQUIRED, .check = kt_value_path,
	    DOC "Folder in which jwks.json (and an issuer's openid-configuration) is replaced."),
};
static const struct kt_table volume_table =
	TABLE("JWKSVolume", struct kt_publish_volume, volume_rows, .doc = "A folder for the JWKS.");

static const struct kt_field publish_rows[] = {
	ROW("listener", KT_F_BOOL, struct kt_publish_jwks, listener, .def = 1,
	    DOC "Serve it on the Agent's listener `jwks`."),
	ROW("volume", KT_F_OBJECT, struct kt_publish_jwks, volume, OF(volume_table), DOC "Write it into a folder."),
};
const struct kt_table kt_table_publish_jwks = TABLE("PublishJWKS", struct kt_publish_jwks, publish_rows,
						    .doc = "Where public keys (and an issuer's discovery document) are shown.");

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
	ROW("publishJWKS", KT_F_STRUCT, struct kt_local_issuer, publish_jwks, OF(kt_table_publish_jwks),
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

static const struct kt_field web_identity_rows[] = {
	ROW("tokenRef", KT_F_STRING, struct kt_aws_web_identity, token_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Token, a JWT, that STS is shown; its `aud` must be one that the role's identity provider "
		"knows."),
};
static const struct kt_table web_identity_table =
	TABLE("AWSWebIdentity", struct kt_aws_web_identity, web_identity_rows,
	      .doc = "A JWT for a session: AssumeRoleWithWebIdentity of STS.");

static const struct kt_field anywhere_rows[] = {
	ROW("certificateRef", KT_F_STRING, struct kt_aws_roles_anywhere, certificate_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Certificate (RSA or ECDSA) whose key signs the request; the key stays in the keeper."),
	ROW("profileARN", KT_F_STRING, struct kt_aws_roles_anywhere, profile_arn, REQUIRED, .check = kt_value_arn,
	    DOC "ARN of the profile."),
	ROW("trustAnchorARN", KT_F_STRING, struct kt_aws_roles_anywhere, trust_anchor_arn, REQUIRED, .check = kt_value_arn,
	    DOC "ARN of the trust anchor that knows the certificate's CA."),
};
static const struct kt_table anywhere_table =
	TABLE("AWSRolesAnywhere", struct kt_aws_roles_anywhere, anywhere_rows,
	      .doc = "A certificate for a session: CreateSession of IAM Roles Anywhere.");

static const struct kt_field aws_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_aws_issuer, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("duration", KT_F_DURATION, struct kt_aws_issuer, duration, .def = KT_HOUR, .min = 15 * KT_MINUTE,
	    .max = 12 * KT_HOUR, DOC "Life of a session; the role (and the profile) may allow less."),
	ROW("endpoint", KT_F_STRING, struct kt_aws_issuer, endpoint, .check = kt_value_url,
	    DOC "Where to ask instead of the region's own endpoint, such as a VPC endpoint or a FIPS one; without a path."),
	ROW("region", KT_F_STRING, struct kt_aws_issuer, region, REQUIRED, .check = kt_value_region,
	    DOC "Region, such as `eu-central-1`; goes into the endpoint's name and into the signature."),
	ROW("roleARN", KT_F_STRING, struct kt_aws_issuer, role_arn, REQUIRED, .check = kt_value_arn, DOC "ARN of the role."),
	ROW("rolesAnywhere", KT_F_OBJECT, struct kt_aws_issuer, roles_anywhere, CHOICE, OF(anywhere_table),
	    DOC "By a certificate of ours."),
	ROW("sessionName", KT_F_STRING, struct kt_aws_issuer, session_name, .check = kt_value_session_name,
	    DOC "Name of the session in CloudTrail. When absent: webIdentity the Token's name; rolesAnywhere none, AWS takes "
		"the certificate's serial number (a profile has to allow another one)."),
	ROW("webIdentity", KT_F_OBJECT, struct kt_aws_issuer, web_identity, CHOICE, OF(web_identity_table),
	    DOC "By a token of ours or of another issuer."),
};

static void check_aws(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_aws_issuer *aws = object;
	const char *host = aws->endpoint ? strstr(aws->endpoint, "//") : NULL;
	const char *path = host ? strpbrk(host + 2, "/?#") : NULL;

	if (path && strcmp(path, "/") != 0)
		kt_complain(d, node, "endpoint", "(%.128s) must end after host and port", aws->endpoint);
}

static const struct kt_table aws_table =
	TABLE("AWS", struct kt_aws_issuer, aws_rows, .choice_min = 1, .choice_max = 1, .check = check_aws,
	      .doc = "Sessions (temporary security credentials) of an AWS role; a Token of it has only the outputs awsProcess, "
		     "awsCredentials and awsEndpoint.");

static const struct kt_field issuer_rows[] = {
	REFUSED("anypoint", "use oauth2 with profile: Anypoint", .flags = KT_F_CHOICE),
	ROW("aws", KT_F_OBJECT, struct kt_token_issuer_spec, aws, CHOICE, OF(aws_table), DOC "Sessions of an AWS role."),
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

static const struct kt_field source_rows[] = {
	ROW("secretRef", KT_F_STRUCT, struct kt_token_source, secret, .flags = KT_F_CHOICE | KT_F_OPTIONAL,
	    OF(source_table), DOC "A value of the store; key `token` when absent."),
	ROW("tokenRef", KT_F_STRING, struct kt_token_source, token_ref, CHOICE, .check = kt_value_name,
	    DOC "secretName of another Token in the namespace: its newest."),
};
static const struct kt_table token_source_table = TABLE("TokenSource", struct kt_token_source, source_rows, .choice_min = 1,
							.choice_max = 1, .doc = "A token that goes into the request.");

#define ACCESS_TOKEN_TYPE "urn:ietf:params:oauth:token-type:access_token"

static const struct kt_field exchange_rows[] = {
	ROW("actor", KT_F_STRUCT, struct kt_token_exchange, actor, .flags = KT_F_OPTIONAL, OF(token_source_table),
	    DOC "Who acts for the subject (`act`)."),
	ROW("actorTokenType", KT_F_STRING, struct kt_token_exchange, actor_type, .def_text = ACCESS_TOKEN_TYPE,
	    .check = kt_value_printable, .max = 256, DOC "What the actor token is."),
	ROW("requestedTokenType", KT_F_STRING, struct kt_token_exchange, requested_type, .check = kt_value_printable,
	    .max = 256, DOC "What is wanted; the server's choice when absent."),
	ROW("subject", KT_F_STRUCT, struct kt_token_exchange, subject, REQUIRED, OF(token_source_table),
	    DOC "For whom the token is."),
	ROW("subjectTokenType", KT_F_STRING, struct kt_token_exchange, subject_type, .def_text = ACCESS_TOKEN_TYPE,
	    .check = kt_value_printable, .max = 256, DOC "What the subject token is."),
};
static const struct kt_table exchange_table =
	TABLE("TokenExchange", struct kt_token_exchange, exchange_rows, .doc = "Token exchange (RFC 8693).");

static const struct kt_field bearer_rows[] = {
	ROW("assertion", KT_F_STRUCT, struct kt_jwt_bearer, assertion, REQUIRED, OF(token_source_table),
	    DOC "The JWT that is the grant."),
};
static const struct kt_table bearer_table =
	TABLE("JWTBearer", struct kt_jwt_bearer, bearer_rows, .doc = "JWT bearer grant (RFC 7523 section 2.1).");

static const struct kt_field refresh_rows[] = {
	ROW("secretRef", KT_F_STRUCT, struct kt_refresh_grant, secret, REQUIRED, OF(refresh_table),
	    DOC "Where the first refresh token is kept, and each that the server gives in its place; key `refresh-token` "
		"when absent."),
};
static const struct kt_table refresh_grant_table =
	TABLE("RefreshToken", struct kt_refresh_grant, refresh_rows, .doc = "Refresh token (RFC 6749 section 6).");

static const struct kt_field grant_rows[] = {
	ROW("jwtBearer", KT_F_OBJECT, struct kt_token_grant, jwt_bearer, CHOICE, OF(bearer_table),
	    DOC "A JWT is the grant."),
	ROW("refreshToken", KT_F_OBJECT, struct kt_token_grant, refresh_token, CHOICE, OF(refresh_grant_table),
	    DOC "A refresh token is the grant; the server may rotate it."),
	ROW("tokenExchange", KT_F_OBJECT, struct kt_token_grant, token_exchange, CHOICE, OF(exchange_table),
	    DOC "One token for another."),
};
static const struct kt_table grant_table = TABLE("Grant", struct kt_token_grant, grant_rows, .choice_min = 0,
						 .choice_max = 1, .doc = "At most one; client_credentials when none.");

static const struct kt_field dpop_rows[] = {
	ROW("algorithm", KT_F_ENUM, struct kt_token_dpop, algorithm, .def = KT_ASSERTION_ES256, .names = kt_assertion_algs,
	    DOC "Signature of the proofs; the key is made accordingly."),
};
static const struct kt_table dpop_table =
	TABLE("DPoP", struct kt_token_dpop, dpop_rows, .doc = "Proof of possession (RFC 9449).");

static const struct kt_field token_rows[] = {
	ROW("audiences", KT_F_STRINGS, token, audiences, .check = kt_value_printable, .max = 32,
	    DOC "For whom the token is (`aud`)."),
	ROW("awsProfile", KT_F_STRING, token, aws_profile, .def_text = "default", .check = kt_value_session_name,
	    DOC "Name of the profile in `aws-credentials`."),
	ROW("certificateRef", KT_F_STRING, token, certificate_ref, .check = kt_value_name,
	    DOC "secretName of the Certificate that the token is bound to (RFC 8705): minted again when that rotates."),
	ROW("claims", KT_F_STRUCT, token, claims, OF(claims_table),
	    DOC "Only with the embedded issuer: what it writes into the token."),
	ROW("defaultLifetime", KT_F_DURATION, token, default_lifetime, .def = 5 * KT_MINUTE, .min = KT_SECOND,
	    .max = 366 * KT_DAY, DOC "Life of an opaque token whose answer had no expires_in."),
	ROW("dpop", KT_F_OBJECT, token, dpop, OF(dpop_table),
	    DOC "The token is bound to a key of its own (RFC 9449); `keyturn token NAME --dpop METHOD URL` makes proofs."),
	ROW("duration", KT_F_DURATION, token, duration, .def = 10 * KT_MINUTE, .min = 5 * KT_SECOND, .max = 30 * KT_DAY,
	    DOC "Only with the embedded issuer: life of the token. A server elsewhere decides itself."),
	ROW("grant", KT_F_STRUCT, token, grant, OF(grant_table),
	    DOC "Only with an authorization server: another grant than client_credentials."),
	ROW("issuerRef", KT_F_STRUCT, token, issuer_ref, REQUIRED, OF(issuer_ref_table), DOC "Which issuer."),
	ROW("maxLifetime", KT_F_DURATION, token, max_lifetime, .min = KT_SECOND, .max = 366 * KT_DAY,
	    DOC "A token counts as expired after so long, whatever the server says."),
	ROW("onLongerLifetime", KT_F_ENUM, token, on_longer_lifetime, .def = KT_LONGER_WARN, .names = longer,
	    DOC "What to do when the server gives a token that lives longer than maxLifetime."),
	ROW("outputs", KT_F_FLAGS, token, outputs, .def = KT_TOKEN_OUTPUT_RAW, .names = outputs,
	    DOC "Files: raw writes `token` (no newline), header `header` (`Authorization: Bearer ...`), json `token.json`, "
		"curl `curl.conf`, env `token.env`, envoy `envoy.yaml` (a generic secret), flex `flex.yaml` (Flex Gateway). Of an aws issuer: awsProcess "
		"`aws-process.json`, awsCredentials `aws-credentials`, awsEndpoint `aws-endpoint-token`."),
	ROW("renewBefore", KT_F_DURATION, token, renew_before, .min = KT_SECOND, .max = 366 * KT_DAY,
	    DOC "Renew so long before the end; when absent, or where the server gave a life that is not longer, at half of a life "
		"under 10 min, else at 77 % of it, jittered."),
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

	if (t->certificate_ref != NULL && t->dpop != NULL)
		kt_complain(d, node, "dpop", "and spec.certificateRef can't both bind the token; give one of them");
	if (t->dpop != NULL && (t->outputs & (KT_TOKEN_OUTPUT_ENVOY | KT_TOKEN_OUTPUT_FLEX)))
		kt_warn(d, node, "outputs", "has envoy or flex, which send no proof: servers refuse a token of spec.dpop "
			"without one");
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
