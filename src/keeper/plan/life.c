/* Lives: when a certificate or token is renewed within its life, and how long a token's life is. */
#include "keeper/plan/plan_internal.h"

/*
 * A server that gives the same token for most of its life, with what is left of it, must not be asked ever faster: not for
 * five seconds, where that leaves two for the request, and never within one.
 */
#define TOKEN_LEAST (5 * KT_SECOND)
#define TOKEN_GRACE (2 * KT_SECOND)

kt_ms kt_plan_jitter(uint64_t seed, uint64_t salt, kt_ms span)
{
	uint64_t x = seed + salt * UINT64_C(0x9e3779b97f4a7c15);

	if (span < 1)
		return 0;
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return (kt_ms)(x % ((uint64_t)span + 1));
}

uint64_t kt_plan_seed(const char *resource, uint64_t revision)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (const char *p = resource; p && *p; p++)
		hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	for (int i = 0; i < 8; i++)
		hash = (hash ^ ((revision >> (8 * i)) & 0xff)) * UINT64_C(0x100000001b3);
	return hash;
}

bool kt_plan_before_is_too_long(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after)
{
	return policy->kind != KT_PLAN_CLIENT && policy->renew_before > 0 && not_after > not_before &&
	       policy->renew_before >= kt_plan_bound(not_after) - kt_plan_bound(not_before);
}

/* How long before the end the manifest wants the renewal; 0 when it leaves that to the default. */
static kt_ms wanted_before(const struct kt_plan_policy *policy, kt_ms life)
{
	/* As cert-manager: a renewBefore that the life cannot hold (a CA gave less than was asked) counts as not set. */
	if (policy->renew_before > 0)
		return policy->renew_before < life ? policy->renew_before : 0;
	if (policy->renew_before_percentage >= 1 && policy->renew_before_percentage <= 99)
		return life / 100 * policy->renew_before_percentage + life % 100 * policy->renew_before_percentage / 100;
	return 0;
}

kt_ms kt_plan_renewal_point(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after, uint64_t seed)
{
	kt_ms start = kt_plan_bound(not_before), end = kt_plan_bound(not_after), life = end - start, before, offset, span;

	if (policy->renewal_disabled)
		return KT_TIME_MAX;
	if (policy->kind == KT_PLAN_CLIENT) {
		span = kt_plan_min(policy->rotation_interval / 50, KT_HOUR);
		/* A key is changed when its time is over: the next one is made, and shown, before that. */
		span = kt_plan_min(policy->publish_ahead, policy->rotation_interval) + kt_plan_jitter(seed, KT_SALT_RENEW, span);
		return kt_plan_add(start, kt_plan_max(policy->rotation_interval - span, 0));
	}
	if (life <= 0)
		return end;
	before = wanted_before(policy, life);
	if (policy->kind == KT_PLAN_TOKEN && before == 0) {
		/* Half of a short life, 77 % of a longer one; 10 % of that to both sides. */
		offset = life < KT_PLAN_TOKEN_SHORT_LIFE ? life / 2 : life / 100 * 77;
		span = offset / 10;
		offset += kt_plan_jitter(seed, KT_SALT_RENEW, 2 * span) - span;
		return start + kt_plan_max(offset, kt_plan_max(kt_plan_min(TOKEN_LEAST, life - TOKEN_GRACE), kt_plan_min(KT_SECOND, life)));
	}
	if (before)
		offset = life - before;
	else
		offset = life < KT_PLAN_SHORT_LIFE ? life / 2 : life / 3 * 2 + life % 3 * 2 / 3;
	/* Never later than promised: what was issued together is spread towards the earlier side, a little. */
	span = kt_plan_min(kt_plan_min(life / 50, KT_HOUR), offset / 10);
	offset -= kt_plan_jitter(seed, KT_SALT_RENEW, span);
	/* 99 % of ten seconds left must not become a loop. */
	return start + kt_plan_max(offset, kt_plan_min(KT_SECOND, life / 2));
}

kt_ms kt_plan_info_moment(const struct kt_plan_state *state, kt_ms start, kt_ms end, kt_ms renewal_point, kt_ms alarm_at)
{
	kt_ms from = kt_plan_bound(state->ari_start), until = kt_plan_bound(state->ari_end), life = end - start, at;

	if (state->ari_start == 0 || from >= until || until - from > life || from >= end)
		return 0;
	at = from + kt_plan_jitter(state->seed, KT_SALT_INFO, until - from);
	if (state->ari_again) {
		kt_ms rest = kt_plan_max(KT_HOUR, kt_plan_min(KT_DAY, life / 10));

		at = kt_plan_max(at, kt_plan_min(start + rest, renewal_point));
	}
	return kt_plan_min(at, renewal_point + kt_plan_max(0, alarm_at - renewal_point) / 4 * 3);
}

kt_ms kt_plan_token_life(const struct kt_plan_token_answer *answer, bool *ret_longer)
{
	kt_ms now = kt_plan_bound(answer->now), sent = answer->sent ? kt_plan_bound(answer->sent) : now;
	kt_ms end = KT_TIME_MAX, capped;

	if (ret_longer)
		*ret_longer = false;
	if (sent > now)
		sent = now; /* the clock was set back while we waited */
	if (answer->expires_in_s > 0)
		end = answer->expires_in_s > KT_TIME_MAX / 1000 ? KT_TIME_MAX
		                                                : kt_plan_add(sent, answer->expires_in_s * 1000);
	/* exp is on the issuer's clock; ours is what the plan lives by. */
	if (answer->exp != 0)
		end = kt_plan_min(end, kt_plan_add(answer->exp, -kt_plan_bound(answer->skew)));
	if (answer->expires_in_s <= 0 && answer->exp == 0)
		end = kt_plan_add(now, answer->fallback > 0 ? answer->fallback : 5 * KT_MINUTE);
	if (answer->cap > 0) {
		capped = kt_plan_add(sent, answer->cap);
		/* Servers round; a second more is not what onLongerLifetime is about. */
		if (ret_longer && end > kt_plan_add(capped, KT_SECOND))
			*ret_longer = true;
		end = kt_plan_min(end, capped);
	}
	return kt_plan_max(end, now);
}
