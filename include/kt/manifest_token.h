/* The typed form of TokenIssuer, Token and ClientCredential. */
#ifndef KT_MANIFEST_TOKEN_H
#define KT_MANIFEST_TOKEN_H

#include "kt/manifest_parts.h"

/* --- TokenIssuer, Token ----------------------------------------------------------------------------------------- */

enum kt_audience_param { KT_AUDIENCE_AUDIENCE = 0, KT_AUDIENCE_RESOURCE, KT_AUDIENCE_SCOPE, KT_AUDIENCE_NONE };
enum kt_auth_method {
	KT_AUTH_SECRET_BASIC = 0,
	KT_AUTH_SECRET_POST,
	KT_AUTH_SECRET_JWT,      /* client_secret_jwt (OpenID Connect Core section 9) */
	KT_AUTH_PRIVATE_KEY_JWT, /* RFC 7523 */
	KT_AUTH_TLS,             /* tls_client_auth (RFC 8705) */
	KT_AUTH_SELF_SIGNED_TLS, /* self_signed_tls_client_auth */
	KT_AUTH_SPIFFE_JWT,      /* a JWT-SVID as client assertion */
	KT_AUTH_NONE             /* a public client */
};
enum kt_token_alg { KT_TOKEN_ES256 = 0, KT_TOKEN_RS256 };
/* Signature of client assertions and DPoP proofs; DEFAULT: what the key can do (EC by its curve, RS256, EdDSA). */
enum kt_assertion_alg {
	KT_ASSERTION_DEFAULT = 0,
	KT_ASSERTION_ES256,
	KT_ASSERTION_ES384,
	KT_ASSERTION_RS256,
	KT_ASSERTION_PS256,
	KT_ASSERTION_EDDSA
};
/* What a server of this make does differently from the RFCs; see docs/profiles.md. */
enum kt_oauth2_profile {
	KT_PROFILE_GENERIC = 0,
	KT_PROFILE_ANYPOINT,
	KT_PROFILE_OKTA,
	KT_PROFILE_KEYCLOAK,
	KT_PROFILE_ENTRA
};
enum kt_longer_lifetime { KT_LONGER_WARN = 0, KT_LONGER_REFUSE };

struct kt_oauth2_auth {
	enum kt_auth_method method;
	const char *client_id;
	struct kt_secret_ref client_secret_ref; /* key default client-secret; name NULL: not given */
	struct kt_secret_ref key_secret_ref;    /* private_key_jwt: key default tls.key; name NULL: not given */
	const char *key_id;                     /* kid of the assertion; NULL: the key's RFC 7638 thumbprint */
	enum kt_assertion_alg algorithm;
	const char *certificate_ref; /* tls methods: secretName of a Certificate in the namespace; NULL: not given */
	const char *token_ref;       /* spiffe_jwt: secretName of the Token that is the assertion; NULL: not given */
	const char *audience;        /* aud of the assertion; NULL: by the profile (token endpoint, or issuer) */
	kt_ms assertion_lifetime;    /* 60 s when absent */
};

struct kt_oauth2_issuer {
	const char *issuer;    /* its metadata is read (RFC 8414, OIDC discovery); or */
	const char *token_url; /* the token endpoint itself */
	enum kt_audience_param audience_param;
	enum kt_oauth2_profile profile;
	struct kt_oauth2_auth auth;
	bool verify_tokens;   /* only a JWT that the server's keys verify is delivered */
	const char *jwks_url; /* where those are; NULL: its metadata's jwks_uri */
	bool revoke_superseded; /* tokens that a newer one has replaced are revoked (RFC 7009) where the server can */
	struct kt_bytes ca_bundle; /* PEM */
};

struct kt_publish_volume {
	const char *path; /* directory; jwks.json and openid-configuration are replaced in it */
};

struct kt_publish_jwks {
	bool listener; /* serve on the Agent's listener `jwks`; true when absent */
	struct kt_publish_volume *volume;
};

struct kt_local_issuer {
	const char *issuer_url;
	enum kt_token_alg algorithm;
	kt_ms key_rotation;       /* 30 days when absent */
	kt_ms publish_ahead;      /* a new key is published this long before it signs; 60 min when absent, may be 0 */
	kt_ms max_token_lifetime; /* 1 h when absent */
	struct kt_publish_jwks publish_jwks;
};

/* AssumeRoleWithWebIdentity at STS: a JWT for a session. */
struct kt_aws_web_identity {
	const char *token_ref; /* secretName of the Token (a JWT) in the namespace */
};

/* CreateSession at IAM Roles Anywhere: a certificate, and a signature by its key, for a session. */
struct kt_aws_roles_anywhere {
	const char *trust_anchor_arn, *profile_arn;
	const char *certificate_ref; /* secretName of the Certificate in the namespace */
};

/* Sessions of an AWS role. Exactly one of the two ways is set. */
struct kt_aws_issuer {
	struct kt_aws_web_identity *web_identity;
	struct kt_aws_roles_anywhere *roles_anywhere;
	const char *region, *role_arn;
	const char *endpoint;      /* NULL: the region's own */
	const char *session_name;  /* NULL: the Token's name (webIdentity), not said (rolesAnywhere) */
	kt_ms duration;            /* 1 h when absent */
	struct kt_bytes ca_bundle; /* PEM */
};

/* Exactly one of these is set. */
struct kt_token_issuer_spec {
	struct kt_oauth2_issuer *oauth2;
	struct kt_local_issuer *local;
	struct kt_aws_issuer *aws;
};

enum kt_token_output {
	KT_TOKEN_OUTPUT_RAW = 1,
	KT_TOKEN_OUTPUT_HEADER = 2,
	KT_TOKEN_OUTPUT_JSON = 4,
	KT_TOKEN_OUTPUT_CURL = 8,   /* curl.conf: header = "Authorization: Bearer ..." */
	KT_TOKEN_OUTPUT_ENV = 16,   /* token.env: ACCESS_TOKEN=... */
	KT_TOKEN_OUTPUT_ENVOY = 32, /* envoy.yaml: a DiscoveryResponse with one generic Secret */
	KT_TOKEN_OUTPUT_FLEX = 64,  /* flex.yaml: a Flex Gateway resource that holds the token */
	/* Of a session (aws issuer), which takes no other ones. */
	KT_TOKEN_OUTPUT_AWS_PROCESS = 128,     /* aws-process.json: what a credential_process prints */
	KT_TOKEN_OUTPUT_AWS_CREDENTIALS = 256, /* aws-credentials: a shared credentials file */
	KT_TOKEN_OUTPUT_AWS_ENDPOINT = 512     /* aws-endpoint-token: what the Agent's listener `aws` wants to hear */
};
#define KT_TOKEN_OUTPUTS_AWS                                                                                           \
	((uint32_t)KT_TOKEN_OUTPUT_AWS_PROCESS | (uint32_t)KT_TOKEN_OUTPUT_AWS_CREDENTIALS | (uint32_t)KT_TOKEN_OUTPUT_AWS_ENDPOINT)

/* Where a token that goes into a request comes from: exactly one of the two is set. */
struct kt_token_source {
	const char *token_ref;       /* secretName of another Token in the namespace, its newest */
	struct kt_secret_ref secret; /* or a value of the store; name NULL: not given */
};

enum kt_grant_type { KT_GRANT_CLIENT_CREDENTIALS = 0, KT_GRANT_TOKEN_EXCHANGE, KT_GRANT_JWT_BEARER, KT_GRANT_REFRESH_TOKEN };

/* Which grant, and what it takes; the type is derived from which of the objects is there. */
struct kt_token_exchange { /* RFC 8693 */
	struct kt_token_source subject, actor; /* actor: neither set when absent */
	const char *subject_type, *actor_type; /* urn:ietf:params:oauth:token-type:access_token when absent */
	const char *requested_type;            /* NULL: the server's choice */
};
struct kt_jwt_bearer { /* RFC 7523 section 2.1 */
	struct kt_token_source assertion;
};
struct kt_refresh_grant { /* RFC 6749 section 6; what the server rotates is kept in the store under the same name */
	struct kt_secret_ref secret; /* key default refresh-token */
};
struct kt_token_grant {
	struct kt_token_exchange *token_exchange;
	struct kt_jwt_bearer *jwt_bearer;
	struct kt_refresh_grant *refresh_token;
};

/* RFC 9449: a key of the Token's own, in dpop.key beside the token; every proof is made by the keeper. */
struct kt_token_dpop {
	enum kt_assertion_alg algorithm; /* ES256 when absent */
};

/* What the embedded issuer writes into a token besides iss, aud, exp, iat, jti and scope. */
struct kt_token_claims {
	const char *subject;   /* default: <namespace>/<name> of the Token */
	const char *client_id; /* default: the subject */
	struct kt_pairs extra; /* further string claims */
};

struct kt_token_spec {
	const char *secret_name;
	struct kt_issuer_ref issuer_ref;
	struct kt_strings audiences;
	struct kt_strings scopes;
	struct kt_token_claims claims; /* local issuer only */
	struct kt_token_grant grant;   /* oauth2 only; none set: client_credentials */
	const char *certificate_ref;   /* secretName of the Certificate that the token is bound to (RFC 8705); NULL: none */
	struct kt_token_dpop *dpop;    /* NULL: a bearer token */
	kt_ms duration;                /* local issuer only; 10 min when absent */
	kt_ms max_lifetime;            /* cap; 0: none */
	enum kt_longer_lifetime on_longer_lifetime;
	kt_ms renew_before;     /* 0: not given (half of a life under 10 min, else a fifth, jittered) */
	kt_ms default_lifetime; /* of an opaque token without expires_in; 5 min when absent */
	uint32_t outputs;       /* enum kt_token_output bits; raw when absent */
	const char *aws_profile; /* of the shared credentials file; "default" when absent */
};

/* --- ClientCredential --------------------------------------------------------------------------------------------- */

/* One registered client: an id and a secret at its server. */
struct kt_client {
	const char *client_id;
	const char *id;              /* its name in the management API; NULL: client_id */
	struct kt_secret_ref secret; /* the secret that it has now; key default client-secret; name NULL: not given */
};

struct kt_clients {
	struct kt_client *items;
	uint32_t count;
};

enum kt_client_strategy { KT_CLIENT_IN_PLACE = 0, KT_CLIENT_ALTERNATE };
enum kt_anypoint_kind { KT_ANYPOINT_CONNECTED_APP = 0, KT_ANYPOINT_ENVIRONMENT_CLIENT, KT_ANYPOINT_APPLICATION_CONTRACT };

/* Values of the store, only delivered. */
struct kt_client_static {
	const char *source; /* "store": only there so that the object has a member */
};

/* A reset at Anypoint answers with one new secret; the old one is refused from then on. */
struct kt_client_anypoint {
	const char *url;          /* origin; https://anypoint.mulesoft.com when absent */
	const char *organization; /* NULL: not given; only a connected app can do without */
	enum kt_anypoint_kind kind;
	const char *token_ref; /* secretName of the Token that may reset */
	struct kt_bytes ca_bundle;
};

/* Two secrets of an application may be active side by side. */
struct kt_client_okta {
	const char *org_url;
	const char *token_ref; /* secretName of the Token that may manage the application */
	struct kt_bytes ca_bundle;
};

/* The public keys of the client are shown at a URL of ours, which its server reads (jwks_uri of RFC 7591). */
struct kt_client_hosted {
	const char *jwks_url; /* its path is that at the Agent's listener */
	struct kt_publish_jwks publish_jwks;
};

/* Exactly one of these is set. */
struct kt_client_issuer {
	struct kt_client_static *fixed;
	struct kt_client_anypoint *anypoint;
	struct kt_client_okta *okta;
	struct kt_client_hosted *hosted; /* with private_key only */
};

/* The client shows itself by a key (private_key_jwt) in place of a secret. */
struct kt_client_key {
	enum kt_assertion_alg algorithm; /* ES256 when absent */
	kt_ms publish_ahead; /* hosted: a new key is shown this long before its first use; 1 h when absent, may be 0 */
};

/* Where a secret is tried before anybody gets it: client_credentials at a token endpoint. */
struct kt_client_test {
	const char *token_url;
	enum kt_auth_method method; /* client_secret_post when absent, or client_secret_basic; not looked at with a key */
	const char *audience;       /* aud of the assertion with a key; NULL: token_url */
	struct kt_strings scopes;
	struct kt_bytes ca_bundle; /* PEM; absent: that of the issuer */
};

struct kt_client_credential_spec {
	const char *secret_name;
	struct kt_clients clients; /* one, or two with AlternateClients */
	struct kt_client_issuer issuer;
	enum kt_client_strategy strategy;
	struct kt_client_key *private_key; /* NULL: it has a secret */
	kt_ms rotation_interval; /* 30 days when absent */
	kt_ms drain;             /* how long the secret before is left alone after the switch; 10 min when absent */
	struct kt_client_test *test; /* NULL: Anypoint's own endpoint for a connected app, else none */
};

#endif
