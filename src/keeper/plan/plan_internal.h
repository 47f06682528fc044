/* What the files of plan share: bounded arithmetic and the one source of jitter. */
#ifndef KEEPER_PLAN_INTERNAL_H
#define KEEPER_PLAN_INTERNAL_H

#include "keeper/plan/plan.h"

/* Times outside are taken as the bound: strangers send any number, and sums of two bounded ones can't overflow. */
static inline kt_ms kt_plan_bound(kt_ms t)
{
	return t > KT_TIME_MAX ? KT_TIME_MAX : t < -KT_TIME_MAX ? -KT_TIME_MAX : t;
}

static inline kt_ms kt_plan_add(kt_ms a, kt_ms b)
{
	return kt_plan_bound(kt_plan_bound(a) + kt_plan_bound(b));
}

static inline kt_ms kt_plan_min(kt_ms a, kt_ms b)
{
	return a < b ? a : b;
}

static inline kt_ms kt_plan_max(kt_ms a, kt_ms b)
{
	return a > b ? a : b;
}

/* Where jitter is drawn: the same seed must not give the same place on every scale. */
enum kt_plan_salt {
	KT_SALT_RENEW = 1,
	KT_SALT_WINDOW,
	KT_SALT_RETRY,
	KT_SALT_ASKED,
	KT_SALT_FLOOR,
	KT_SALT_TASK,
	KT_SALT_INFO,
	KT_SALT_LIMIT,
};

/* Certificates that live less are renewed at half of their life. */
#define KT_PLAN_SHORT_LIFE (10 * KT_DAY)

/* Tokens of ten minutes are not short ones; the whole seconds of exp and the way of the answer take something off. */
#define KT_PLAN_TOKEN_SHORT_LIFE (10 * KT_MINUTE - 15 * KT_SECOND)

/* Evenly in [0, span], from seed and salt only (splitmix64); 0 for a span below 1. */
kt_ms kt_plan_jitter(uint64_t seed, uint64_t salt, kt_ms span);

#endif
