/* OAuth 2.0: one token from an authorization server, by a grant and a client authentication taken from tables. */
#ifndef KT_COURIER_GRANT_H
#define KT_COURIER_GRANT_H

#include "courier/courier.h"

/*
 * KT_MINT becomes a job: find the token endpoint (tokenURL, or metadata by RFC 8414 with OIDC discovery behind it, kept
 * for 10 minutes), ask the keeper for the client secret, send one request, wipe the secret, judge the answer. One try;
 * when to try again is the keeper's business.
 */
#define KT_GRANT_JOBS_MAX 1024u

enum kt_code kt_grant_create(struct kt_courier *courier, struct kt_grant **ret, struct kt_err *err);
void kt_grant_destroy(struct kt_grant *grant);
/* Handler of KT_MINT; arg is the struct kt_courier. */
void kt_grant_handle(struct kt_wire_in *in, void *arg);
bool kt_grant_cancel(struct kt_grant *grant, uint64_t job);
void kt_grant_drop(struct kt_grant *grant);

#endif
