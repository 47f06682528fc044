/* What the files of the OAuth client share: the plug-in tables, discovery, and the judge of answers. */
#ifndef KT_COURIER_GRANT_INTERNAL_H
#define KT_COURIER_GRANT_INTERNAL_H

#include "courier/grant/grant.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/secret.h"

#define GRANT_SCOPES_MAX 64u
#define GRANT_TOKEN_MAX  32768u
#define GRANT_LIFE_MAX   (3650 * (int64_t)86400)

/* How audiences travel: spec.oauth2.audienceParam. */
enum grant_audience { GRANT_AUDIENCE_RESOURCE, GRANT_AUDIENCE_AUDIENCE, GRANT_AUDIENCE_SCOPE, GRANT_AUDIENCE_NONE };

/* What a request is built from: borrowed. */
struct grant_input {
	const char *client_id;
	const json_t *audiences; /* arrays of strings, or NULL */
	const json_t *scopes;
	enum grant_audience audience_param;
	const struct kt_secret *client_secret; /* NULL when the method needs none */
};

/* A grant: adds its parameters to the form. */
struct grant_type {
	const char *name;
	enum kt_code (*build)(const struct grant_input *input, struct kt_buf *form, struct kt_err *err);
};

/* A client authentication: adds parameters to the form, or fills the value of the Authorization header. */
struct grant_auth {
	const char *name;
	bool needs_secret;
	enum kt_code (*apply)(const struct grant_input *input, struct kt_buf *form, struct kt_buf *authorization,
			      struct kt_err *err);
};

extern const struct grant_type grant_client_credentials;
extern const struct grant_auth grant_client_secret_basic;
extern const struct grant_auth grant_client_secret_post;

/* By name, NULL when unknown. */
const struct grant_type *grant_type_find(const char *name);
const struct grant_auth *grant_auth_find(const char *name);

/* "&name=value", both form-encoded ("&" left out at the start). */
void grant_form_add(struct kt_buf *form, const char *name, struct kt_view value);

/* What came back, judged. */
struct grant_token {
	struct kt_secret *token; /* owned: grant_token_finish */
	int64_t expires_in;      /* -1: not said */
	char scope[8192];        /* as granted: what was asked for when the server said nothing */
};
/*
 * A token response (RFC 6749 section 5) into a token, or into an error that says why not: KT_E_AUTH, KT_E_DENIED,
 * KT_E_LATER (with retry_after), KT_E_PROTO. The secret never shows up in the error, whatever the server echoes.
 */
enum kt_code grant_answer(const struct kt_http_reply *reply, const struct grant_input *input, struct grant_token *ret,
			  struct kt_err *err);
void grant_token_finish(struct grant_token *token);

/* --- discovery --- */
/* Token endpoints that were discovered, bounded in number and time. */
struct grant_metadata {
	struct grant_metadata *next;
	uint8_t hash[32]; /* of issuer and CA bundle */
	char *token_endpoint;
	kt_ms until;
};
/* Well-known URLs of an issuer; which: 0 RFC 8414, 1 OIDC. KT_E_NOTFOUND past the last. */
enum kt_code grant_well_known(const char *issuer, unsigned which, struct kt_buf *out, struct kt_err *err);
/* Checks metadata against the issuer; *ret_endpoint is a fresh string. */
enum kt_code grant_metadata_parse(const struct kt_http_reply *reply, const char *issuer, char **ret_endpoint,
				  struct kt_err *err);

#endif
