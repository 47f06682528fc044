/* What CAs allow, counted in the ledger: whether an order may be placed now, and what is left. */
#ifndef KEEPER_BUDGET_H
#define KEEPER_BUDGET_H

#include <jansson.h>

#include "keeper/keeper.h"
#include "keeper/plan/limits.h"

/* What an order would count for. Borrowed. */
struct kt_budget_ask {
	const struct kt_issuer_entry *issuer;
	const struct kt_certificate_spec *spec;
	bool renewal;  /* of the exact set, which that CA has issued before */
	bool replaces; /* names the certificate that it replaces (RFC 9773) */
	bool urgent;   /* may take from what is kept for renewals near their end */
};

/* A renewal of what is in force (NULL: nothing is), and whether it can't wait. renew_at: of the plan. */
void kt_budget_ask_init(struct kt_budget_ask *ask, const struct kt_issuer_entry *issuer,
                        const struct kt_store_resource *resource, const struct kt_resource *spec,
                        const struct kt_store_material *active, kt_ms renew_at, kt_ms now);

/* Puts what holds such an order back into limit_at, limit_spread and limit_text (into text) of the plan's state. */
enum kt_code kt_budget_look(struct kt_keeper *keeper, const struct kt_budget_ask *ask, kt_ms now,
                            struct kt_plan_state *state, char text[256], struct kt_err *err);

/*
 * A request is about to be signed, for the flight or (NULL) for a command: what it costs is committed to the ledger before,
 * once a try. KT_E_LATER with the problem "budget" when there is none left: others were faster.
 */
enum kt_code kt_budget_request(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, struct kt_flight *flight,
                               struct kt_view payload, bool by_jwk, struct kt_err *err);
#define KT_BUDGET_PROBLEM "budget"

/* The order failed with flight->err: validations that failed count by name. And: it went well. In a transaction. */
enum kt_code kt_budget_failed(struct kt_flight *flight, struct kt_err *err);
enum kt_code kt_budget_obtained(struct kt_flight *flight, struct kt_err *err);

/* For plan: what is left at each issuer; a JSON array. */
json_t *kt_budget_json(struct kt_keeper *keeper);

/* What the ledger has no use for any more goes, once in a few hours; who writes to it calls this. In a transaction. */
enum kt_code kt_budget_prune(struct kt_keeper *keeper, kt_ms now, struct kt_err *err);

#endif
