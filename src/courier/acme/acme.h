/* ACME (RFC 8555): one order from names and CSR to the chain; the keeper signs and stores, the courier walks. */
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
 *     -> per authorization: fetch, present the http-01 answer, tell the server
 *     -> poll the order until ready -> finalize -> poll until valid -> download -> ACME_DONE
 *
 * The keeper commits account, order and certificate URLs (ACME_SAVE) before the step that follows. Whatever the end,
 * answers that were presented are taken back.
 */
#define KT_ACME_FLIGHTS  8u
#define KT_ACME_JOBS_MAX 4096u

enum kt_code kt_acme_create(struct kt_courier *courier, struct kt_acme **ret, struct kt_err *err);
void kt_acme_destroy(struct kt_acme *acme);
/* Handler of KT_ACME; arg is the struct kt_courier. */
void kt_acme_handle(struct kt_wire_in *in, void *arg);
/* True when such a job was there; it ends with KT_E_CANCELLED. */
bool kt_acme_cancel(struct kt_acme *acme, uint64_t job);
/* All jobs end without a reply. */
void kt_acme_drop(struct kt_acme *acme);

#endif
