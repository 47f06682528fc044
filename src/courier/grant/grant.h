/* OAuth 2.0: one token from an authorization server, by a grant and a client authentication taken from tables. */
#ifndef KT_COURIER_GRANT_H
#define KT_COURIER_GRANT_H

#include "courier/courier.h"

/*
 * KT_MINT becomes a job: find the token endpoint (tokenURL, or metadata by RFC 8414 with OIDC discovery behind it, kept
 * for 10 minutes; for a connection that shows a certificate its mtls_endpoint_aliases), ask the keeper for the secrets,
 * the assertion, the key and the proof that the client authentication, the grant and the binding need, send the
 * request, judge the answer, have a rotated refresh token kept, wipe it all. One try, and one more where the server
 * wants its nonce in the DPoP proof, or refuses what was dated by another clock than its own. When to try again is the
 * keeper's business. KT_TOKEN_OP goes the same way to the revocation or introspection endpoint.
 */
#define KT_GRANT_JOBS_MAX 1024u

enum kt_code kt_grant_create(struct kt_courier *courier, struct kt_grant **ret, struct kt_err *err);
void kt_grant_destroy(struct kt_grant *grant);
/* Handler of KT_MINT; arg is the struct kt_courier. */
void kt_grant_handle(struct kt_wire_in *in, void *arg);
/* Of KT_TOKEN_OP. */
void kt_grant_handle_op(struct kt_wire_in *in, void *arg);
/* Handler of KT_AWS_SESSION: a session of an AWS role instead of a token. */
void kt_grant_handle_aws(struct kt_wire_in *in, void *arg);
bool kt_grant_cancel(struct kt_grant *grant, uint64_t job);
void kt_grant_drop(struct kt_grant *grant);

#endif
