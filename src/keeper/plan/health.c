/* How issuers fare, and which of several is asked. */
#include "keeper/plan/health.h"
#include "keeper/plan/plan_internal.h"

#define RETRY_FIRST (5 * KT_MINUTE)
#define RETRY_CAP (2 * KT_HOUR)
#define TRY_WITHIN (5 * KT_MINUTE)

bool kt_health_counts(enum kt_plan_fault fault)
{
	return fault == KT_FAULT_NETWORK || fault == KT_FAULT_PEER;
}

void kt_health_fail(struct kt_health *health, int64_t retry_after_s, kt_ms now)
{
	kt_ms delay = RETRY_FIRST, asked;

	now = kt_plan_bound(now);
	if (health->failures < UINT32_MAX)
		health->failures++;
	health->failed_at = now;
	if (health->failures < KT_HEALTH_FAILURES) {
		health->retry_at = 0;
		return;
	}
	for (unsigned i = KT_HEALTH_FAILURES; i < health->failures && delay < RETRY_CAP; i++)
		delay *= 2;
	asked = (retry_after_s > 86400 ? 86400 : kt_plan_max(retry_after_s, 0)) * KT_SECOND;
	health->retry_at = kt_plan_add(now, kt_plan_max(kt_plan_min(delay, RETRY_CAP), asked));
}

void kt_health_ok(struct kt_health *health, kt_ms now)
{
	*health = (struct kt_health){.ok_at = kt_plan_bound(now)};
}

void kt_health_trying(struct kt_health *health, kt_ms now)
{
	health->retry_at = kt_plan_add(now, TRY_WITHIN);
	health->failed_at = kt_plan_bound(now);
}

enum kt_health_state kt_health_state(const struct kt_health *health, kt_ms now)
{
	now = kt_plan_bound(now);
	if (health->failures < KT_HEALTH_FAILURES)
		return KT_HEALTH_GOOD;
	/* A clock that was set back does not keep an issuer down. */
	return health->retry_at <= now || health->failed_at > now ? KT_HEALTH_TRY : KT_HEALTH_DOWN;
}

size_t kt_health_choose(const struct kt_health_candidate *list, size_t count, bool pressing, kt_ms now)
{
	for (size_t i = 0; i < count; i++) {
		if (kt_health_state(&list[i].health, now) != KT_HEALTH_DOWN && !(pressing && list[i].failed))
			return i;
	}
	for (size_t i = 0; i < count; i++) { /* the only ones left are where it has just failed */
		if (kt_health_state(&list[i].health, now) != KT_HEALTH_DOWN)
			return i;
	}
	return 0;
}

bool kt_plan_is_pressing(bool has_material, kt_ms renew_at, kt_ms not_after, kt_ms now)
{
	kt_ms end = kt_plan_bound(not_after), from = kt_plan_bound(renew_at);

	if (!has_material || from <= 0 || from >= end)
		return !has_material || now >= end;
	return now >= from + (end - from) / 2;
}
