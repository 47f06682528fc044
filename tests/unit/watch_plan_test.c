/* What the plan makes of a watched credential: on a clock of the test's own, look after look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "keeper/plan/plan.h"

#define T0 ((kt_ms)1800000000000)

static struct kt_plan_watch a_watch(kt_ms life)
{
	return (struct kt_plan_watch){.has_command = true,
	                              .within = 30 * KT_SECOND,
	                              .readable = true,
	                              .not_before = T0,
	                              .not_after = T0 + life,
	                              .seed = 7};
}

static struct kt_plan_watch_next decide(const struct kt_plan_watch *watch, kt_ms now)
{
	struct kt_plan_watch_next next;

	kt_plan_watch_decide(watch, now, &next);
	return next;
}

/* Walks from look to look, as the keeper does, until something is to be done. */
static kt_ms walk_to(const struct kt_plan_watch *watch, kt_ms now, enum kt_plan_watch_action action, unsigned *ret_looks)
{
	*ret_looks = 0;
	for (;;) {
		struct kt_plan_watch_next next = decide(watch, now);

		if (next.action == action) {
			return now;
		}
		assert_int_equal(next.action, KT_WATCH_WAIT);
		assert_true(next.due_at > now);
		now = next.due_at;
		assert_true(++*ret_looks < 100000);
	}
}

static void runs_at_the_renewal_point(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);
	unsigned looks;
	kt_ms at;

	(void)state;
	watch.policy.renew_before = 10 * KT_DAY;
	at = walk_to(&watch, T0, KT_WATCH_RUN, &looks);
	assert_in_range(at - T0, 79 * KT_DAY, 80 * KT_DAY + KT_HOUR);
	assert_in_range(looks, 60 * 24, 90 * 24 + 10); /* about every hour */
	watch.policy.renew_before = 0;
	watch.policy.renew_before_percentage = 50;
	at = walk_to(&watch, T0, KT_WATCH_RUN, &looks);
	assert_in_range(at - T0, 44 * KT_DAY, 45 * KT_DAY + KT_HOUR);
	watch.policy.renew_before_percentage = 0;
	at = walk_to(&watch, T0, KT_WATCH_RUN, &looks);
	assert_in_range(at - T0, 57 * KT_DAY, 63 * KT_DAY);
}

static void short_lives_are_looked_at_in_time(void **state)
{
	struct kt_plan_watch watch = a_watch(10 * KT_SECOND);
	unsigned looks;
	kt_ms at;

	(void)state;
	watch.policy.renew_before = 4 * KT_SECOND;
	at = walk_to(&watch, T0, KT_WATCH_RUN, &looks);
	assert_true(at <= T0 + 7 * KT_SECOND);
	assert_true(looks < 5);
}

static void without_a_command_it_is_never_run(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);
	struct kt_plan_watch_next next;
	kt_ms now = T0;
	bool warned = false;

	(void)state;
	watch.has_command = false;
	watch.warn_before = 20 * KT_DAY;
	while (now < T0 + 100 * KT_DAY) {
		next = decide(&watch, now);
		assert_int_equal(next.action, KT_WATCH_WAIT);
		if (next.warn && !warned) { /* the very moment is looked at */
			assert_int_equal(now, T0 + 70 * KT_DAY);
			warned = true;
		}
		now = next.due_at;
	}
	assert_true(warned);
	watch.warn_before = 0; /* halfway from two thirds of the life to its end */
	assert_in_range(kt_plan_watch_warn_at(&watch) - T0, 73 * KT_DAY, 77 * KT_DAY);
	watch.not_after = 0;
	assert_int_equal(kt_plan_watch_warn_at(&watch), 0);
	watch.readable = false;
	watch.forced = true;
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_WAIT);
}

static void proved_by_a_later_end(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);

	(void)state;
	watch.phase = KT_WATCH_PROVING;
	watch.was_not_after = watch.not_after;
	watch.ended_at = T0 + KT_HOUR;
	assert_int_equal(decide(&watch, watch.ended_at).action, KT_WATCH_WAIT);
	watch.not_after += 1000;
	assert_int_equal(decide(&watch, watch.ended_at).action, KT_WATCH_PROVED);
	watch.readable = false; /* half written just now */
	assert_int_equal(decide(&watch, watch.ended_at).action, KT_WATCH_WAIT);
	watch.readable = true;
	watch.not_after -= 2 * KT_DAY; /* another one, but not a later one */
	assert_int_equal(decide(&watch, watch.ended_at).action, KT_WATCH_WAIT);
}

static void not_proved_within(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);
	struct kt_plan_watch_next next;
	kt_ms now = T0 + KT_HOUR, first = 0;

	(void)state;
	watch.phase = KT_WATCH_PROVING;
	watch.was_not_after = watch.not_after;
	watch.ended_at = now;
	for (;;) {
		next = decide(&watch, now);
		if (next.action == KT_WATCH_LATE) {
			break;
		}
		assert_int_equal(next.action, KT_WATCH_WAIT);
		first = first == 0 ? next.due_at - now : first;
		assert_in_range(next.due_at - now, 1, 3 * KT_SECOND);
		now = next.due_at;
		watch.looks++;
	}
	assert_true(first <= 100);
	assert_in_range(now - watch.ended_at, 25 * KT_SECOND, 31 * KT_SECOND);
}

static void after_a_crash(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);

	(void)state;
	watch.phase = KT_WATCH_RENEWING;
	watch.was_not_after = watch.not_after;
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_RUN); /* nobody knows whether it ran */
	watch.readable = false;
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_RUN);
	watch.readable = true;
	watch.not_after += KT_DAY;
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_PROVED); /* it did */
	watch.not_after -= KT_DAY;
	watch.has_command = false; /* the manifest has changed meanwhile */
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_LATE);
}

static void what_cannot_be_read_is_not_renewed(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);
	struct kt_plan_watch_next next;

	(void)state;
	watch.readable = false;
	watch.failures = 3;
	watch.last_code = KT_E_NOTFOUND;
	watch.announced = T0 + 89 * KT_DAY + KT_MINUTE;
	next = decide(&watch, T0 + 89 * KT_DAY);
	assert_int_equal(next.action, KT_WATCH_WAIT);
	assert_int_equal(next.due_at, watch.announced);
	watch.forced = true; /* somebody says that it is to be */
	assert_int_equal(decide(&watch, T0 + 89 * KT_DAY).action, KT_WATCH_RUN);
	watch.not_after = watch.not_before = 0;
	assert_int_equal(decide(&watch, T0).action, KT_WATCH_RUN);
}

static void backoff(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);
	kt_ms now = T0 + 85 * KT_DAY;
	kt_ms longest = 0;

	(void)state;
	watch.policy.renew_before = 10 * KT_DAY;
	watch.last_code = KT_E_MISMATCH;
	watch.last_attempt = now;
	for (watch.failures = 1; watch.failures < 12; watch.failures++) {
		kt_ms at = kt_plan_watch_retry(&watch, KT_E_MISMATCH, true, now);

		assert_in_range(at - now, 30 * KT_SECOND, KT_HOUR + KT_MINUTE);
		longest = at - now > longest ? at - now : longest;
	}
	assert_true(longest > 25 * KT_MINUTE);
	watch.failures = 2;
	watch.announced = now + 5 * KT_MINUTE;
	assert_int_equal(decide(&watch, now + KT_MINUTE).action, KT_WATCH_WAIT);
	assert_int_equal(decide(&watch, now + 5 * KT_MINUTE).action, KT_WATCH_RUN);
	watch.cause_changed = true; /* renew by command */
	assert_int_equal(decide(&watch, now + KT_MINUTE).action, KT_WATCH_RUN);
	/* A look costs nothing: not a day, whatever it failed of. */
	watch.failures = 20;
	assert_true(kt_plan_watch_retry(&watch, KT_E_AUTH, false, now) <= now + KT_HOUR + KT_MINUTE);
}

static void forced_and_expired(void **state)
{
	struct kt_plan_watch watch = a_watch(90 * KT_DAY);

	(void)state;
	watch.forced = true;
	assert_int_equal(decide(&watch, T0 + KT_DAY).action, KT_WATCH_RUN);
	watch.forced = false;
	assert_int_equal(decide(&watch, T0 + KT_DAY).action, KT_WATCH_WAIT);
	assert_int_equal(decide(&watch, T0 + 200 * KT_DAY).action, KT_WATCH_RUN);
	assert_true(decide(&watch, T0 + 200 * KT_DAY).warn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(runs_at_the_renewal_point),
	        cmocka_unit_test(short_lives_are_looked_at_in_time),
	        cmocka_unit_test(without_a_command_it_is_never_run),
	        cmocka_unit_test(proved_by_a_later_end),
	        cmocka_unit_test(not_proved_within),
	        cmocka_unit_test(after_a_crash),
	        cmocka_unit_test(what_cannot_be_read_is_not_renewed),
	        cmocka_unit_test(backoff),
	        cmocka_unit_test(forced_and_expired),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
