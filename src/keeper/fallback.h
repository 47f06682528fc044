/* Several issuers for one certificate: how they fare, which one is asked, and whether what a fallback gave is trusted. */
#ifndef KEEPER_FALLBACK_H
#define KEEPER_FALLBACK_H

#include <jansson.h>

#include "keeper/flight.h"

/*
 * Sets flight->issuer: the one that the manifest names, or a fallback of it where that is down, or where its last attempt
 * failed and the end is near. A flight that goes on stays with the issuer that has its order, unless that is down. In a
 * transaction; KT_E_NOTFOUND and others are about the issuer, not about the store.
 */
enum kt_code kt_fallback_choose(struct kt_flight *flight, struct kt_err *err);

/* Whether the end is near and a fallback of the issuer could be asked, where the issuer's own limits hold the order back. */
bool kt_fallback_has_room(struct kt_keeper *keeper, struct kt_issuer_entry *issuer,
                          const struct kt_store_resource *resource, const struct kt_resource *spec,
                          const struct kt_store_material *active, kt_ms renew_at, kt_ms now);
/* The attempt at flight->issuer failed with flight->err, or went well. In a transaction. */
enum kt_code kt_fallback_failed(struct kt_flight *flight, const struct kt_plan_retry *row, struct kt_err *err);
enum kt_code kt_fallback_obtained(struct kt_flight *flight, struct kt_err *err);
/* Whether another issuer would be asked by the next attempt: then it need not wait. held: this one was a matter of limits. */
bool kt_fallback_is_other(struct kt_flight *flight, bool held);

/*
 * Whether consumers trust what a fallback gave: it leads to a root that was delivered with what is in force, or both are
 * public, or the manifest says not to check. KT_E_CRYPTO.
 */
enum kt_code kt_fallback_check(struct kt_flight *flight, const struct kt_chain *chain, bool is_public, struct kt_err *err);
/* The issuer that a material came from, by its row; "" when the row does not say. out: 600 bytes. */
const char *kt_fallback_issuer_of(const struct kt_store_material *material, char out[600]);

/* The issuer at its staging server, with an account of its own there. Cached as other entries are. */
enum kt_code kt_fallback_staging(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, struct kt_issuer_entry **ret,
                                 struct kt_err *err);
/* Whether the next try goes to staging first: validation failed, and there is one. */
bool kt_fallback_rehearses(const struct kt_flight *flight);

/* For status and plan: what is known of an issuer; NULL: nothing, or nothing bad. */
json_t *kt_fallback_health_json(struct kt_keeper *keeper, const char *issuer);

#endif
