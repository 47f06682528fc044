/* What the files of the OAuth client share: the plug-in tables, jobs, what is known of servers, the judge of answers.
 */
#ifndef KT_COURIER_GRANT_INTERNAL_H
#define KT_COURIER_GRANT_INTERNAL_H

#include "courier/grant/grant.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/msg.h"
#include "kt/pki.h"
#include "kt/secret.h"

#define GRANT_SCOPES_MAX  128u                 /* as manifests may have */
#define GRANT_TOKEN_MAX   32768u
#define GRANT_LIFE_MAX    (3650 * (int64_t)86400)
#define GRANT_FORM_MAX    (192u * 1024u)
#define GRANT_NONCE_MAX   512u
#define GRANT_TYPE_MAX    255u                 /* of a token type URI */
#define GRANT_SKEW_MAX    (24 * (int64_t)3600) /* a Date further off is nonsense, not a clock */
#define GRANT_SKEW_RETRY  ((int64_t)2)         /* seconds that make a difference to who looks at iat and exp */
#define GRANT_SERVERS_MAX 64u
#define GRANT_PAUSES_MAX  16u
#define GRANT_PAUSE_MAX   KT_MINUTE

#define GRANT_TYPE_URN "urn:ietf:params:oauth:token-type:"

/* How audiences travel: spec.oauth2.audienceParam. */
enum grant_audience { GRANT_AUDIENCE_RESOURCE, GRANT_AUDIENCE_AUDIENCE, GRANT_AUDIENCE_SCOPE, GRANT_AUDIENCE_NONE };

/* The secrets that may go into a request; grant_secret_names has what the keeper calls them. */
enum grant_secret {
	GRANT_CLIENT_SECRET,
	GRANT_SUBJECT,
	GRANT_ACTOR,
	GRANT_BEARER, /* the assertion of jwt_bearer */
	GRANT_REFRESH,
	GRANT_CLIENT_ASSERTION, /* not asked for by name: fresh for each try */
	GRANT_TOKEN,            /* what is revoked or introspected */
	GRANT_SECRET_COUNT
};

/* What a request is built from: borrowed. */
struct grant_input {
	const char *client_id;
	const json_t *audiences; /* arrays of strings, or NULL */
	const json_t *scopes;
	enum grant_audience audience_param;
	const struct kt_secret *secret[GRANT_SECRET_COUNT];     /* NULL where none is needed */
	const char *assertion_type;                             /* of the client's assertion */
	const char *subject_type, *actor_type, *requested_type; /* token exchange; NULL: not said */
	bool exchange, dpop;                                    /* what the answer must look like */
};

/* A grant: adds its parameters to the form. */
struct grant_type {
	const char *name;
	unsigned needs; /* bits of enum grant_secret that the keeper must have */
	enum kt_code (*build)(const struct grant_input *input, struct kt_buf *form, struct kt_err *err);
};

/* A client authentication: adds parameters to the form, or fills the value of the Authorization header. */
struct grant_auth {
	const char *name;
	bool needs_secret, needs_assertion, needs_key;
	enum kt_code (*apply)(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			      struct kt_err *err);
};

extern const struct grant_type grant_client_credentials;
extern const struct grant_type grant_token_exchange;
extern const struct grant_type grant_jwt_bearer;
extern const struct grant_type grant_refresh_token;
extern const struct grant_auth grant_client_secret_basic;
extern const struct grant_auth grant_client_secret_post;
extern const struct grant_auth grant_client_secret_jwt;
extern const struct grant_auth grant_private_key_jwt;
extern const struct grant_auth grant_spiffe_jwt;
extern const struct grant_auth grant_tls_client_auth;
extern const struct grant_auth grant_self_signed_tls_client_auth;
extern const struct grant_auth grant_none;

/* By name, NULL when unknown. */
const struct grant_type *grant_type_find(const char *name);
const struct grant_auth *grant_auth_find(const char *name);

/* form.c: "&name=value", both form-encoded ("&" left out at the start). */
void grant_form_add(struct kt_buf *form, const char *name, struct kt_view value);
/* A secret that must be there: KT_E_INVALID else. */
enum kt_code grant_form_secret(struct kt_buf *form, const char *name, const struct grant_input *input,
			       enum grant_secret which, struct kt_err *err);
/* Audiences and scopes, as every grant says them: RFC 8707 resources, or however the server wants them. */
enum kt_code grant_form_target(struct kt_buf *form, const struct grant_input *input, struct kt_err *err);

/* --- answers (answer.c, refusal.c) --- */

/* What came back, judged. */
struct grant_token {
	struct kt_secret *token;   /* owned: grant_token_finish */
	struct kt_secret *refresh; /* NULL: none came */
	int64_t expires_in;        /* -1: not said */
	char scope[8192];          /* as granted: what was asked for when the server said nothing */
	char issued_type[GRANT_TYPE_MAX + 1];
	const char *token_type; /* "Bearer", "DPoP" or "N_A" (RFC 8693 section 2.2.1) */
};
/*
 * A token response (RFC 6749 section 5) into a token, or into an error that says why not: KT_E_AUTH, KT_E_DENIED,
 * KT_E_LATER (with retry_after), KT_E_PROTO. The secrets never show up in the error, whatever the server echoes.
 * ret->refresh may be there beside an error: what the server has rotated must be kept whatever else it said.
 */
enum kt_code grant_answer(const struct kt_http_reply *reply, const struct grant_input *input, struct grant_token *ret,
			  struct kt_err *err);
void grant_token_finish(struct grant_token *token);
/* Gives the problem server_error to an answer with a status that only a server at fault has; else leaves err alone. */
void grant_is_broken(long status, struct kt_err *err);
/* An error response of any endpoint; json may be NULL. problem_type is the OAuth error code where it is a plain word.
 */
enum kt_code grant_refusal(const struct kt_http_reply *reply, const json_t *json, const struct grant_input *input,
			   struct kt_err *err);
/* "what 'text'end", of text that may hold what we sent, whichever member it stands in. */
enum kt_code grant_bad_answer(const struct grant_input *input, enum kt_code code, const char *what, const char *text,
			      const char *end, struct kt_err *err);

/* --- metadata (discovery.c, metadata.c) --- */

enum grant_endpoint { GRANT_TOKEN_ENDPOINT, GRANT_REVOCATION, GRANT_INTROSPECTION, GRANT_ENDPOINT_COUNT };

/* Endpoints as the metadata has them: NULL where it has none. */
struct grant_endpoints {
	char *plain[GRANT_ENDPOINT_COUNT];
	char *mtls[GRANT_ENDPOINT_COUNT]; /* mtls_endpoint_aliases (RFC 8705 section 5) */
	char *keys;                       /* jwks_uri, where it is on the issuer's own host */
};

/* Metadata that was read, bounded in number and time. */
struct grant_metadata {
	struct grant_metadata *next;
	uint8_t hash[KT_SHA256_LEN]; /* of issuer and CA bundle */
	struct grant_endpoints at;
	kt_ms until;
};
/* Well-known URLs of an issuer; which: 0 RFC 8414, 1 OIDC. KT_E_NOTFOUND past the last. */
enum kt_code grant_well_known(const char *issuer, unsigned which, struct kt_buf *out, struct kt_err *err);
/* Checks metadata against the issuer; *ret has fresh strings also on failure: grant_endpoints_finish. */
enum kt_code grant_metadata_parse(const struct kt_http_reply *reply, const char *issuer, struct grant_endpoints *ret,
				  struct kt_err *err);
void grant_endpoints_finish(struct grant_endpoints *endpoints);

/* --- what is remembered of a server (server.c) --- */

/* One per endpoint URL, the one used last in front, the one used longest ago forgotten first. */
struct grant_server {
	struct grant_server *next;
	uint8_t hash[KT_SHA256_LEN]; /* of the URL */
	char *nonce;                 /* for DPoP proofs; NULL: none yet */
	int64_t skew;                /* its clock minus ours, seconds */
};
/* NULL without memory. */
struct grant_server *grant_server_get(struct kt_grant *grant, const char *url);
/* Learns clock and nonce from any answer. */
void grant_server_learn(struct grant_server *server, const struct kt_http_reply *reply);
/* The offset that a Date tells, 0 for nonsense and for less than a Date can tell. */
int64_t grant_skew(int64_t date_skew);
void grant_servers_destroy(struct kt_grant *grant);

/* --- jobs --- */

/* A client that its server told to wait. */
struct grant_pause {
	uint8_t hash[KT_SHA256_LEN]; /* of the endpoint's URL and the client's id */
	kt_ms until;
};

struct kt_grant {
	struct kt_courier *courier;
	struct grant_pause pauses[GRANT_PAUSES_MAX];
	struct grant_job *jobs;
	unsigned job_count;
	struct grant_metadata *metadata;
	struct grant_server *servers;
	struct grant_keys *keys;    /* verify.c: the one used last in front */
	struct grant_aws *aws_jobs; /* aws.c: they count as jobs */
	bool dropping;              /* all jobs end: none takes the place of another */
};

/* What is still to be asked of the keeper before the request can go: bits above those of enum grant_secret. */
#define GRANT_ASK_KEY       (1u << GRANT_SECRET_COUNT)
#define GRANT_ASK_ASSERTION (1u << (GRANT_SECRET_COUNT + 1))
#define GRANT_ASK_PROOF     (1u << (GRANT_SECRET_COUNT + 2))

struct grant_job {
	struct kt_grant *grant;
	struct grant_job *next;
	uint64_t id;
	uint32_t reply_to;
	json_t *issuer, *request;
	const char *named; /* issuer or tokenURL as the manifest has it */
	const char *ca_bundle;
	bool by_metadata;
	uint8_t hash[KT_SHA256_LEN];
	struct grant_endpoints at;
	unsigned well_known;
	bool discovers;                /* it reads the metadata, for others of the same issuer too */
	bool waits;                    /* for one that does */
	int64_t in_flight;             /* requests at once at this issuer (0: as many as there are connections) */
	bool queued;                   /* for its turn */
	bool under_way;                /* it has it */
	const struct grant_type *type; /* NULL: not a token is wanted but op */
	const struct grant_auth *auth;
	const char *op; /* "revoke", "introspect" */
	bool mtls;      /* the connection shows a certificate */
	const char *url;
	struct grant_input input;
	unsigned asks;
	struct kt_secret *secrets[GRANT_SECRET_COUNT];
	char *assertion_type;
	struct kt_buf chain;
	struct kt_secret *key;
	struct kt_buf proof;
	int64_t skew;                 /* used in the last try */
	bool nonce_tried, skew_tried; /* each is a reason for one more try */
	struct grant_token token;
	int64_t date_skew;
	struct kt_err verdict; /* of an answer whose refresh token is being saved, or whose token is being verified */
	const char *keys_url, *keys_named;
	struct grant_keys *keys; /* that it waits for; NULL: for none */
	struct kt_http_call *call;
	char traceparent[KT_TRACE_MAX + 1];
};

/* aws.c: true when there was a job of that id; all of them end. */
bool grant_aws_cancel(struct kt_grant *grant, uint64_t id);
void grant_aws_drop(struct kt_grant *grant);
/* grant.c: answers with the error and ends the job. */
void grant_job_fail(struct grant_job *job, const struct kt_err *err);
void grant_job_destroy(struct grant_job *job);
/* metadata.c: finds the endpoint, then goes on with grant_job_try. */
void grant_job_locate(struct grant_job *job);
/* A job that read metadata is gone: another one that waited for it does so. */
void grant_metadata_pass_on(const struct grant_job *gone);
void grant_metadata_destroy(struct grant_metadata *entry);
/* ask.c: asks the keeper for all that job->asks has, then goes on with grant_job_exchange. */
void grant_job_ask(struct grant_job *job);
/* exchange.c: as soon as the job has its turn begins a try, the first one or another, with a fresh assertion and proof. */
void grant_job_try(struct grant_job *job);
/* One request, and what comes of it. */
void grant_job_exchange(struct grant_job *job);
/* The job's turn is over: the next one's request goes out. */
void grant_job_pass_turn(struct grant_job *job);
/* verify.c: holds the token against its server's keys, asking for them where that is needed; then job->verdict is what came out. */
void grant_job_verify(struct grant_job *job);
void grant_job_verified(struct grant_job *job); /* exchange.c */
void grant_keys_destroy(struct kt_grant *grant);
/* op.c: the form of a revocation or introspection, and the reply to its answer. */
void grant_op_build(const struct grant_job *job, struct kt_buf *form);
enum kt_code grant_op_answer(const struct kt_http_reply *reply, const char *op, const struct grant_input *input,
			     struct kt_view *ret_body, struct kt_err *err);

#endif
