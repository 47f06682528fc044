/* ACME (RFC 8555, 9773): orders from names and CSR to the chain, accounts, revocation, renewal information. */
#ifndef KT_COURIER_ACME_H
#define KT_COURIER_ACME_H

#include "courier/courier.h"

/*
 * A walk through an order. KT_ACME becomes a job; jobs of one server (directory URL and trust) share its directory, its
 * nonces and a limit of KT_ACME_FLIGHTS at once, the others queue. A job has exactly one thing under way at any moment:
 * a request to the server (post.c), a question to the keeper, or a pause. Its steps, each a function that starts the
 * next thing:
 *
 *   directory -> account (newAccount once for all jobs of an issuer) -> order (resumed or new)
 *     -> read all authorizations -> have the keeper answer them, side by side -> tell the server
 *     -> poll the order until ready -> finalize -> poll until valid -> download -> ACME_DONE
 *
 * The keeper commits account, order and certificate URLs (ACME_SAVE) before the step that follows. Whatever the end,
 * answers that were presented are taken back.
 */
#define KT_ACME_FLIGHTS     8u /* when the issuer does not say otherwise (inFlight) */
#define KT_ACME_FLIGHTS_MAX 256u
#define KT_ACME_JOBS_MAX    4096u

enum kt_code kt_acme_create(struct kt_courier *courier, struct kt_acme **ret, struct kt_err *err);
void kt_acme_destroy(struct kt_acme *acme);
/* Handler of KT_ACME; arg is the struct kt_courier. */
void kt_acme_handle(struct kt_wire_in *in, void *arg);
/* Handlers of KT_ACME_ACCOUNT, KT_ACME_REVOKE and KT_ACME_INFO. */
void kt_acme_handle_account(struct kt_wire_in *in, void *arg);
void kt_acme_handle_revoke(struct kt_wire_in *in, void *arg);
void kt_acme_handle_info(struct kt_wire_in *in, void *arg);
/* True when such a job was there; it ends with KT_E_CANCELLED. */
bool kt_acme_cancel(struct kt_acme *acme, uint64_t job);
/* All jobs end without a reply. */
void kt_acme_drop(struct kt_acme *acme);

#endif
