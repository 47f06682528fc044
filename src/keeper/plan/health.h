/* How issuers fare, and which of several is asked. Pure. */
#ifndef KEEPER_PLAN_HEALTH_H
#define KEEPER_PLAN_HEALTH_H

#include "keeper/plan/plan.h"

#define KT_HEALTH_FAILURES 3u /* in a row, of all credentials together: then an issuer counts as down */

/* Plain data; the zero value is an issuer that nothing is known of, which is a good one. */
struct kt_health {
	unsigned failures; /* in a row, of its own or on the way to it */
	kt_ms failed_at, ok_at;
	kt_ms retry_at; /* while it is down: not asked before then */
};

enum kt_health_state {
	KT_HEALTH_GOOD,
	KT_HEALTH_TRY,  /* it was down; its time has come to be tried */
	KT_HEALTH_DOWN,
};

/* Whether such a failure says something about the issuer: not one of ours, of the user or of a limit. */
bool kt_health_counts(enum kt_plan_fault fault);
/* A failure that counts. */
void kt_health_fail(struct kt_health *health, int64_t retry_after_s, kt_ms now);
void kt_health_ok(struct kt_health *health, kt_ms now);
/* One try is under way while it is KT_HEALTH_TRY: nobody else tries for a while. */
void kt_health_trying(struct kt_health *health, kt_ms now);
enum kt_health_state kt_health_state(const struct kt_health *health, kt_ms now);

/* One issuer of the list, as a credential sees it. */
struct kt_health_candidate {
	struct kt_health health;
	bool failed; /* the credential's last attempt failed there, by no fault of its own (network, peer, limit) */
};
/*
 * The issuer to ask: the first that is not down. pressing: nothing is in force or its end is near, so that the issuer
 * where the last attempt failed is passed over, too. 0 (its own) where none is any better.
 */
size_t kt_health_choose(const struct kt_health_candidate *list, size_t count, bool pressing, kt_ms now);

/* Whether the end is near enough for that: half of the time between renewal point and end has passed. */
bool kt_plan_is_pressing(bool has_material, kt_ms renew_at, kt_ms not_after, kt_ms now);

#endif
