/* The plan: tables of cases, ten simulated years with outages, clocks that jump, and numbers at their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "keeper/plan/plan.h"

#define T0 ((kt_ms)1795392000000) /* 2026-11-23 in ms */
#define MIN KT_MINUTE
#define HOUR KT_HOUR
#define DAY KT_DAY

/* A certificate of `life` that began at T0. */
static struct kt_plan_state issued(kt_ms life)
{
	return (struct kt_plan_state){.has_material = true, .not_before = T0, .not_after = T0 + life, .issued_at = T0,
	                              .seed = kt_plan_seed("Certificate/default/web", 1)};
}

static const struct kt_plan_policy cert_policy = {.kind = KT_PLAN_CERTIFICATE};
static const struct kt_plan_policy token_policy = {.kind = KT_PLAN_TOKEN};

static struct kt_plan decide(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now)
{
	struct kt_plan plan, again;

	memset(&plan, 0, sizeof(plan));
	memset(&again, 0, sizeof(again));
	kt_plan_decide(policy, state, now, &plan);
	kt_plan_decide(policy, state, now, &again);
	assert_memory_equal(&plan.action, &again.action, offsetof(struct kt_plan, remove_at) + sizeof(plan.remove_at));
	assert_string_equal(plan.text, again.text);
	assert_true(strlen(plan.text) > 5);
	assert_null(strchr(plan.text, '\n'));
	return plan;
}

static void test_renewal_point(void **state)
{
	static const struct {
		struct kt_plan_policy policy;
		kt_ms life, low, high; /* where the point must lie, from the beginning of life */
	} cases[] = {
	        {{.kind = KT_PLAN_CERTIFICATE}, 90 * DAY, 60 * DAY - HOUR, 60 * DAY},
	        {{.kind = KT_PLAN_CERTIFICATE}, 10 * DAY, 160 * HOUR - HOUR, 160 * HOUR},
	        /* shorter than ten days: half */
	        {{.kind = KT_PLAN_CERTIFICATE}, 10 * DAY - 1, 120 * HOUR - HOUR, 120 * HOUR},
	        {{.kind = KT_PLAN_CERTIFICATE}, 6 * DAY, 71 * HOUR, 72 * HOUR},
	        {{.kind = KT_PLAN_CERTIFICATE}, 10 * KT_SECOND, 4700, 5000},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 30 * DAY}, 90 * DAY, 60 * DAY - HOUR, 60 * DAY},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 59 * MIN}, HOUR, 54 * KT_SECOND, MIN},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 2 * HOUR}, HOUR, 28 * MIN, 30 * MIN},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before_percentage = 25}, 100 * DAY, 75 * DAY - HOUR, 75 * DAY},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before_percentage = 99}, 10 * KT_SECOND, 1000, 1000},
	        {{.kind = KT_PLAN_TOKEN}, 5 * MIN, 135 * KT_SECOND, 165 * KT_SECOND},
	        {{.kind = KT_PLAN_TOKEN}, HOUR, 41 * MIN, 51 * MIN},
	        {{.kind = KT_PLAN_TOKEN, .renew_before = 3 * MIN}, 10 * MIN, 6 * MIN + 48 * KT_SECOND, 7 * MIN},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		kt_ms low = KT_TIME_MAX, high = 0;

		for (uint64_t seed = 0; seed < 500; seed++) {
			kt_ms at = kt_plan_renewal_point(&cases[i].policy, T0, T0 + cases[i].life, kt_plan_seed("x", seed)) - T0;

			low = at < low ? at : low;
			high = at > high ? at : high;
		}
		if (low < cases[i].low || high > cases[i].high)
			fail_msg("case %zu: %lld..%lld", i, (long long)low, (long long)high);
		/* It is spread, and over most of the room that it has. */
		assert_true((high - low) * 2 >= cases[i].high - cases[i].low || high - low > 30 * MIN);
	}
	assert_int_equal(kt_plan_renewal_point(&(struct kt_plan_policy){.renewal_disabled = true}, T0, T0 + DAY, 0),
	                 KT_TIME_MAX);
	assert_true(kt_plan_seed("a", 1) != kt_plan_seed("a", 2) && kt_plan_seed("a", 1) != kt_plan_seed("b", 1));
}

/* A client's key is made publishAhead before the one in force has served its time, and rests for that long. */
static void test_client_key(void **state)
{
	struct kt_plan_policy policy = {.kind = KT_PLAN_CLIENT, .rotation_interval = 30 * DAY, .publish_ahead = 2 * HOUR};
	struct kt_plan_state store = {
	        .has_material = true, .not_before = T0, .not_after = KT_TIME_MAX, .issued_at = T0, .seed = 7};
	kt_ms shown = T0 + 30 * DAY - 2 * HOUR;
	struct kt_plan plan;

	(void)state;
	kt_plan_decide(&policy, &store, T0 + DAY, &plan);
	assert_in_range(plan.renew_at - T0, 30 * DAY - 3 * HOUR, shown - T0);
	store.in_flight = true;
	kt_plan_decide(&policy, &store, shown, &plan); /* made, and shown nowhere yet */
	assert_int_equal(plan.action, KT_PLAN_RESUME);
	store.shown_at = shown;
	kt_plan_decide(&policy, &store, shown + 1, &plan);
	assert_int_equal(plan.action, KT_PLAN_WAIT);
	assert_int_equal(plan.reason, KT_WHY_SHOWN);
	assert_int_equal(plan.act_at, shown + 2 * HOUR);
	assert_int_equal(plan.due_at, shown + 2 * HOUR);
	assert_false(plan.alarm);
	store.forced = true; /* nobody's cache grows old by that */
	kt_plan_decide(&policy, &store, shown + 1, &plan);
	assert_int_equal(plan.reason, KT_WHY_SHOWN);
	kt_plan_decide(&policy, &store, shown + 2 * HOUR, &plan);
	assert_int_equal(plan.action, KT_PLAN_RESUME);
	kt_plan_decide(&policy, &store, shown - HOUR, &plan); /* the clock was set back: the flight counts anew */
	assert_int_equal(plan.action, KT_PLAN_RESUME);
	store.has_material = false; /* the very first one: nobody can have read a set without it */
	kt_plan_decide(&policy, &store, shown + 1, &plan);
	assert_int_equal(plan.action, KT_PLAN_RESUME);
	store.has_material = true;
	policy.publish_ahead = 0;
	kt_plan_decide(&policy, &store, shown + 1, &plan);
	assert_int_equal(plan.action, KT_PLAN_RESUME);
}

/* A client's secret is rotated by its age and ends never. */
static void test_client(void **state)
{
	struct kt_plan_policy policy = {.kind = KT_PLAN_CLIENT, .rotation_interval = 30 * DAY};
	struct kt_plan_state store = {
	        .has_material = true, .not_before = T0, .not_after = KT_TIME_MAX, .issued_at = T0, .seed = 7};
	struct kt_plan plan;

	(void)state;
	kt_plan_decide(&policy, &store, T0 + DAY, &plan);
	assert_int_equal(plan.action, KT_PLAN_WAIT);
	assert_in_range(plan.renew_at - T0, 30 * DAY - HOUR, 30 * DAY);
	assert_int_equal(plan.due_at, plan.renew_at);
	assert_int_equal(plan.remove_at, KT_TIME_MAX);
	assert_null(strstr(plan.text, "expires"));
	kt_plan_decide(&policy, &store, T0 + 30 * DAY, &plan);
	assert_int_equal(plan.action, KT_PLAN_RENEW);
	assert_false(plan.alarm);
	kt_plan_decide(&policy, &store, T0 + 38 * DAY, &plan);
	assert_true(plan.alarm);
	assert_false(plan.remove);
	policy.renewal_disabled = true;
	kt_plan_decide(&policy, &store, T0 + 400 * DAY, &plan);
	assert_int_equal(plan.action, KT_PLAN_NONE);
	store.forced = true;
	kt_plan_decide(&policy, &store, T0 + 400 * DAY, &plan);
	assert_int_equal(plan.action, KT_PLAN_REISSUE);
}

static void test_life_cycle(void **state)
{
	struct kt_plan_state none = {0}, s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	p = decide(&cert_policy, &none, T0);
	assert_int_equal(p.action, KT_PLAN_ISSUE);
	assert_int_equal(p.reason, KT_WHY_NEVER_ISSUED);
	assert_true(p.due_at <= T0);
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.reason, KT_WHY_NOT_DUE);
	assert_int_equal(p.due_at, p.renew_at);
	assert_non_null(strstr(p.text, "2/3"));
	assert_int_equal(decide(&cert_policy, &s, p.renew_at - 1).action, KT_PLAN_WAIT);
	p = decide(&cert_policy, &s, p.renew_at);
	assert_int_equal(p.action, KT_PLAN_RENEW);
	assert_int_equal(p.reason, KT_WHY_RENEWAL_POINT);
	assert_false(p.alarm);
	assert_true(decide(&cert_policy, &s, p.alarm_at).alarm);
	assert_true(p.alarm_at > p.renew_at && p.alarm_at < T0 + 90 * DAY);
	p = decide(&cert_policy, &s, T0 + 91 * DAY);
	assert_int_equal(p.reason, KT_WHY_EXPIRED);
	assert_false(p.remove); /* an old certificate is better than a server that cannot start */
	assert_int_equal(p.remove_at, KT_TIME_MAX);
	/* Backdating does not shorten the life that is divided: ten seconds stay ten seconds. */
	s.not_before = T0 - HOUR;
	s.not_after = T0 + 10 * KT_SECOND;
	p = decide(&cert_policy, &s, T0);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_true(p.due_at > T0 + 4 * KT_SECOND);
	/* Disabled: told, never done. */
	s = issued(90 * DAY);
	p = decide(&(struct kt_plan_policy){.renewal_disabled = true}, &s, T0 + 89 * DAY);
	assert_int_equal(p.action, KT_PLAN_NONE);
	assert_int_equal(p.reason, KT_WHY_DISABLED);
	assert_true(p.alarm);
	s.orphan = true;
	s.in_flight = true;
	p = decide(&cert_policy, &s, T0 + 89 * DAY);
	assert_int_equal(p.action, KT_PLAN_NONE);
	assert_int_equal(p.reason, KT_WHY_ORPHAN);
	assert_true(p.abandon);
}

/* What is said of the rule is the one that was used: a renewBefore that the life can't hold was not. */
static void test_rule(void **state)
{
	static const struct {
		struct kt_plan_policy policy;
		kt_ms life;
		const char *text;
	} cases[] = {
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 30 * DAY}, 90 * DAY, "(renewBefore 30d)"},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 30 * DAY}, 30 * DAY,
	         "(at 2/3 of its life: renewBefore 30d is not shorter than its whole life, 30d)"},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before = 30 * DAY}, 6 * DAY,
	         "(at half of its life: renewBefore 30d is not shorter than its whole life, 6d)"},
	        {{.kind = KT_PLAN_CERTIFICATE, .renew_before_percentage = 25}, 6 * DAY, "(with 25 % of its life left)"},
	        {{.kind = KT_PLAN_CERTIFICATE}, 6 * DAY, "(at half of its life)"},
	        {{.kind = KT_PLAN_TOKEN}, HOUR, "(at 77 % of its life)"},
	        {{.kind = KT_PLAN_TOKEN}, 5 * MIN, "(at half of its life)"},
	        {{.kind = KT_PLAN_TOKEN, .renew_before = 10 * MIN}, HOUR, "(renewBefore 10m)"},
	        {{.kind = KT_PLAN_TOKEN, .renew_before = HOUR}, 5 * MIN,
	         "(at half of its life: renewBefore 1h is not shorter than its whole life, 5m)"},
	        {{.kind = KT_PLAN_TOKEN, .renew_before = 2 * HOUR}, HOUR,
	         "(at 77 % of its life: renewBefore 2h is not shorter than its whole life, 1h)"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_plan_state s = issued(cases[i].life);
		bool too_long = strstr(cases[i].text, "not shorter") != NULL;
		struct kt_plan p = decide(&cases[i].policy, &s, T0 + 1);

		if (strstr(p.text, cases[i].text) == NULL)
			fail_msg("%s is not in: %s", cases[i].text, p.text);
		assert_int_equal(too_long, kt_plan_before_is_too_long(&cases[i].policy, T0, T0 + cases[i].life));
		p = decide(&cases[i].policy, &s, p.renew_at); /* due: why so early or late is still said */
		assert_int_equal(p.action, KT_PLAN_RENEW);
		assert_int_equal(too_long, strstr(p.text, cases[i].text) != NULL);
	}
}

/* RFC 9773, and what hostile servers say (the renewal point of 90 days is T0 + 60 d, the alarm at T0 + 83 d). */
static void test_renewal_info(void **state)
{
	static const struct {
		kt_ms start, end; /* from T0 */
		bool again;
		kt_ms low, high; /* where the moment must lie; both 0: the window is not believed */
	} cases[] = {
	        {55 * DAY, 57 * DAY, false, 55 * DAY, 57 * DAY},
	        {65 * DAY, 67 * DAY, false, 65 * DAY, 67 * DAY},
	        {-2 * DAY, -1 * DAY, false, -2 * DAY, -1 * DAY},          /* in the past: now */
	        {10 * DAY, 80 * DAY, false, 10 * DAY, 77 * DAY + 6 * HOUR + 1},
	        {85 * DAY, 86 * DAY, false, 77 * DAY, 77 * DAY + 6 * HOUR + 1}, /* never later than that */
	        {57 * DAY, 55 * DAY, false, 0, 0},                        /* ends before it begins */
	        {57 * DAY, 57 * DAY, false, 0, 0},
	        {DAY, 36500 * DAY, false, 0, 0},                          /* a hundred years wide */
	        {-36500 * DAY, 30 * DAY, false, 0, 0},
	        {90 * DAY, 91 * DAY, false, 0, 0},                        /* begins when it has expired */
	        {INT64_MIN / 2, INT64_MAX / 2, false, 0, 0},
	        {-2 * DAY, -1 * DAY, true, DAY, DAY},                     /* again and again: once a day */
	        {5 * DAY, 6 * DAY, true, 5 * DAY, 6 * DAY},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		kt_ms low = KT_TIME_MAX, high = -KT_TIME_MAX;

		for (uint64_t seed = 0; seed < 300; seed++) {
			struct kt_plan_state s = issued(90 * DAY);
			struct kt_plan p;
			kt_ms at;

			s.ari_start = T0 + cases[i].start;
			s.ari_end = T0 + cases[i].end;
			s.ari_again = cases[i].again;
			s.seed = kt_plan_seed("Certificate/default/web", seed);
			p = decide(&cert_policy, &s, T0 + HOUR);
			at = p.renew_at - T0;
			assert_true(p.renew_at < p.alarm_at && p.alarm_at < T0 + 90 * DAY);
			assert_int_equal(p.by_info, cases[i].high != 0);
			if (!p.by_info) {
				assert_in_range(at, 60 * DAY - HOUR, 60 * DAY);
				continue;
			}
			low = at < low ? at : low;
			high = at > high ? at : high;
			p = decide(&cert_policy, &s, p.renew_at > T0 ? p.renew_at : T0);
			assert_int_equal(p.action, KT_PLAN_RENEW);
			assert_int_equal(p.reason, KT_WHY_RENEWAL_INFO);
			assert_non_null(strstr(p.text, "renewal information"));
			assert_false(p.alarm);
		}
		if (cases[i].high != 0 && (low < cases[i].low || high > cases[i].high))
			fail_msg("case %zu: %lld..%lld", i, (long long)low, (long long)high);
		/* All over the window. */
		if (cases[i].high != 0 && cases[i].high - cases[i].low == cases[i].end - cases[i].start)
			assert_true((high - low) * 10 > (cases[i].high - cases[i].low) * 9);
	}
}

/* What holds for renewal in general holds for one that the CA suggests. */
static void test_renewal_info_and_others(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan_window window = {.duration = HOUR};
	struct kt_plan_policy policy = {.kind = KT_PLAN_CERTIFICATE, .windows = &window, .window_count = 1};
	struct kt_plan p;

	(void)state;
	s.ari_start = T0 - 2 * DAY;
	s.ari_end = T0 - DAY;
	p = decide(&(struct kt_plan_policy){.renewal_disabled = true}, &s, T0 + DAY);
	assert_int_equal(p.reason, KT_WHY_DISABLED);
	assert_int_equal(p.renew_at, 0);
	p = decide(&token_policy, &s, T0 + HOUR);
	assert_false(p.by_info);
	s.revoked = true;
	assert_int_equal(decide(&cert_policy, &s, T0 + DAY).reason, KT_WHY_REVOKED);
	s.revoked = false;
	s.failures = 3;
	s.last_attempt = T0 + DAY;
	s.last_code = KT_E_NET;
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_int_equal(p.reason, KT_WHY_BACKOFF);
	assert_int_equal(p.pending, KT_WHY_RENEWAL_INFO);
	s.failures = 0;
	/* A window of the manifest that opens too late for the CA's is no reason to wait; one in time is. */
	assert_null(kt_cron_parse("0 3 * * *", &window.cron));
	p = decide(&policy, &s, T0 + DAY);
	assert_int_equal(p.action, KT_PLAN_RENEW);
	s.ari_start = T0 + DAY;
	s.ari_end = T0 + 10 * DAY;
	p = decide(&policy, &s, T0 + HOUR);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_true(p.act_at >= p.renew_at && p.act_at <= s.ari_end);
	assert_in_range((p.act_at % DAY), 3 * HOUR, 4 * HOUR);
	assert_non_null(strstr(decide(&cert_policy, &s, T0 + HOUR).text, "its CA suggests"));
}

/* What the CA allows is used up: everything that needs an order waits, with what is due kept, and files are mended. */
static void test_limit(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	s.limit_text = "300 of 300 orders in 3h used at letsencrypt";
	s.limit_at = T0 + 62 * DAY;
	p = decide(&cert_policy, &s, T0 + 10 * DAY);
	assert_int_equal(p.reason, KT_WHY_NOT_DUE);
	p = decide(&cert_policy, &s, T0 + 61 * DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.reason, KT_WHY_LIMIT);
	assert_int_equal(p.pending, KT_WHY_RENEWAL_POINT);
	assert_true(p.act_at == s.limit_at && p.due_at == s.limit_at);
	assert_non_null(strstr(p.text, "300 of 300 orders"));
	s.disk = KT_PLAN_DISK_DRIFTED;
	assert_int_equal(decide(&cert_policy, &s, T0 + 61 * DAY).action, KT_PLAN_REDELIVER);
	s.disk = KT_PLAN_DISK_OK;
	assert_int_equal(decide(&cert_policy, &s, s.limit_at).action, KT_PLAN_RENEW);
	s.limit_at = INT64_MAX;
	assert_int_equal(decide(&cert_policy, &s, T0 + 61 * DAY).action, KT_PLAN_WAIT);
	assert_string_equal(kt_plan_reason_name(KT_WHY_LIMIT), "limit");
}

static void test_reissue(void **state)
{
	static const struct {
		size_t flag;
		enum kt_plan_reason reason;
		bool new_key;
	} cases[] = {
	        {offsetof(struct kt_plan_state, request_changed), KT_WHY_REQUEST_CHANGED, false},
	        {offsetof(struct kt_plan_state, issuer_changed), KT_WHY_ISSUER_CHANGED, false},
	        {offsetof(struct kt_plan_state, material_corrupt), KT_WHY_CORRUPT, true},
	        {offsetof(struct kt_plan_state, key_mismatch), KT_WHY_KEY_MISMATCH, true},
	        {offsetof(struct kt_plan_state, revoked), KT_WHY_REVOKED, true},
	        {offsetof(struct kt_plan_state, binding_changed), KT_WHY_BINDING_CHANGED, false},
	        {offsetof(struct kt_plan_state, secret_deleted), KT_WHY_SECRET_DELETED, false},
	        {offsetof(struct kt_plan_state, forced), KT_WHY_FORCED, false},
	        {offsetof(struct kt_plan_state, refused), KT_WHY_REFUSED, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_plan_state s = issued(90 * DAY);
		struct kt_plan p;

		*(bool *)((char *)&s + cases[i].flag) = true;
		p = decide(&cert_policy, &s, T0 + DAY);
		assert_int_equal(p.action, KT_PLAN_REISSUE);
		assert_int_equal(p.reason, cases[i].reason);
		assert_int_equal(p.new_key, cases[i].new_key);
		/* windows and Disabled are about renewal, not about what is wrong */
		p = decide(&(struct kt_plan_policy){.renewal_disabled = true}, &s, T0 + DAY);
		assert_int_equal(p.action, KT_PLAN_REISSUE);
	}
}

static void test_flight(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	s.in_flight = true;
	s.flight_step = "ordered";
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_int_equal(p.action, KT_PLAN_RESUME);
	assert_non_null(strstr(p.text, "ordered"));
	s.not_ready = "no CA";
	assert_int_equal(decide(&cert_policy, &s, T0 + DAY).action, KT_PLAN_RESUME);
	s.flight_stale = true;
	s.request_changed = true;
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_true(p.abandon);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.reason, KT_WHY_ISSUER_NOT_READY);
	assert_int_equal(p.pending, KT_WHY_REQUEST_CHANGED);
	s.not_ready = NULL;
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_true(p.abandon);
	assert_int_equal(p.action, KT_PLAN_REISSUE);
}

static void test_backoff(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	s.failures = 3;
	s.last_attempt = T0 + 61 * DAY;
	s.last_code = KT_E_NET;
	p = decide(&cert_policy, &s, s.last_attempt);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.reason, KT_WHY_BACKOFF);
	assert_int_equal(p.pending, KT_WHY_RENEWAL_POINT);
	assert_in_range(p.due_at - s.last_attempt, 10 * KT_SECOND, 20 * KT_SECOND);
	assert_int_equal(decide(&cert_policy, &s, p.due_at).action, KT_PLAN_RENEW);
	assert_int_equal(decide(&cert_policy, &s, p.due_at - 1).action, KT_PLAN_WAIT);
	/* asked to wait: never earlier */
	s.last_code = KT_E_LATER;
	s.retry_after_s = 7200;
	p = decide(&cert_policy, &s, s.last_attempt);
	assert_in_range(p.due_at - s.last_attempt, 2 * HOUR, 2 * HOUR + MIN);
	/* and not much later, also where our own first delay is longer */
	s.failures = 1;
	s.retry_after_s = 5;
	p = decide(&cert_policy, &s, s.last_attempt);
	assert_in_range(p.due_at - s.last_attempt, 5 * KT_SECOND, 6 * KT_SECOND);
	/* refused: a long time, unless something changed */
	s.failures = 3;
	s.last_code = KT_E_AUTH;
	s.retry_after_s = 0;
	snprintf(s.last_problem, sizeof(s.last_problem), "invalid_client");
	p = decide(&cert_policy, &s, s.last_attempt);
	assert_int_equal(p.reason, KT_WHY_NEEDS_CHANGE);
	assert_true(p.alarm);
	assert_true(p.due_at - s.last_attempt >= HOUR);
	assert_non_null(strstr(p.text, "invalid_client"));
	s.cause_changed = true;
	assert_int_equal(decide(&cert_policy, &s, s.last_attempt).action, KT_PLAN_RENEW);
	/* a token of five minutes is not asked for twelve times in its last minute */
	s = issued(5 * MIN);
	s.failures = 1;
	s.last_code = KT_E_AUTH;
	s.last_attempt = T0 + 3 * MIN;
	p = decide(&token_policy, &s, s.last_attempt);
	assert_int_equal(p.due_at, T0 + 5 * MIN - 30 * KT_SECOND); /* to say so, not to try */
	assert_true(p.act_at >= s.last_attempt + HOUR);
}

static void test_clock(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	/* back by 400 days: made in what is now the future */
	p = decide(&cert_policy, &s, T0 - 400 * DAY);
	assert_int_equal(p.action, KT_PLAN_REISSUE);
	assert_int_equal(p.reason, KT_WHY_CLOCK);
	/* the issuer's clock is ahead: another one would not be better */
	s.issued_at = T0 - 400 * DAY;
	p = decide(&cert_policy, &s, T0 - 400 * DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_true(p.alarm);
	/* a few minutes are life */
	s = issued(90 * DAY);
	assert_int_equal(decide(&cert_policy, &s, T0 - MIN).action, KT_PLAN_WAIT);
	assert_false(decide(&cert_policy, &s, T0 - MIN).alarm);
	/* forward: renewed */
	assert_int_equal(decide(&cert_policy, &s, T0 + 400 * DAY).reason, KT_WHY_EXPIRED);
	/* the ledger's last attempt lies in the future: neither frozen nor free of all delay after it */
	s.failures = 5;
	s.last_code = KT_E_NET;
	s.last_attempt = T0 + 500 * DAY;
	p = decide(&cert_policy, &s, T0 + 70 * DAY);
	assert_int_equal(p.action, KT_PLAN_RENEW);
	s.last_attempt = T0 + 70 * DAY + KT_SECOND;
	p = decide(&cert_policy, &s, T0 + 70 * DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
}

static void test_disk(void **state)
{
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p;

	(void)state;
	for (int disk = KT_PLAN_DISK_DRIFTED; disk <= KT_PLAN_DISK_STALE; disk++) {
		s.disk = (enum kt_plan_disk)disk;
		p = decide(&cert_policy, &s, T0 + DAY);
		assert_int_equal(p.action, KT_PLAN_REDELIVER);
		assert_true(p.due_at <= T0 + DAY);
	}
	/* also while a renewal is due or waits for the CA */
	assert_int_equal(decide(&cert_policy, &s, T0 + 70 * DAY).action, KT_PLAN_REDELIVER);
	s.in_flight = true;
	assert_int_equal(decide(&cert_policy, &s, T0 + 70 * DAY).action, KT_PLAN_REDELIVER);
	/* writing fails: the renewal goes on, and writing waits its own time */
	s.in_flight = false;
	s.deliver_failures = 8;
	s.deliver_code = KT_E_SYS;
	s.deliver_last = T0 + 70 * DAY;
	assert_int_equal(decide(&cert_policy, &s, T0 + 70 * DAY).action, KT_PLAN_RENEW);
	s.deliver_last = T0 + DAY;
	p = decide(&cert_policy, &s, T0 + DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.pending, KT_WHY_DRIFT);
	assert_in_range(p.due_at - s.deliver_last, KT_SECOND, 5 * MIN);
	/* nothing unusable is written */
	s.deliver_failures = 0;
	s.revoked = true;
	assert_int_equal(decide(&cert_policy, &s, T0 + DAY).action, KT_PLAN_REISSUE);
	s.revoked = false;
	assert_int_equal(decide(&cert_policy, &s, T0 + 91 * DAY).action, KT_PLAN_RENEW);
}

static void test_token(void **state)
{
	struct kt_plan_state s = issued(10 * MIN);
	struct kt_plan p;

	(void)state;
	p = decide(&token_policy, &s, T0);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.remove_at, T0 + 10 * MIN);
	assert_false(p.remove);
	/* the CA is down: the moment to take it away is never slept through */
	s.failures = 9;
	s.last_code = KT_E_LATER;
	s.retry_after_s = 86400;
	s.last_attempt = T0 + 9 * MIN + 30 * KT_SECOND;
	p = decide(&token_policy, &s, s.last_attempt);
	assert_int_equal(p.due_at, T0 + 10 * MIN);
	p = decide(&token_policy, &s, T0 + 10 * MIN);
	assert_true(p.remove);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_true(p.due_at <= T0 + 10 * MIN);
	s.disk = KT_PLAN_DISK_MISSING;
	p = decide(&token_policy, &s, T0 + 10 * MIN);
	assert_false(p.remove);
	assert_int_equal(p.action, KT_PLAN_WAIT); /* and an expired one is not put back */
	s = issued(10 * MIN);
	s.revoked = true;
	assert_true(decide(&token_policy, &s, T0).remove);
}

static void test_token_life(void **state)
{
	static const struct {
		struct kt_plan_token_answer answer;
		kt_ms life;
		bool longer;
	} cases[] = {
	        {{.now = T0, .expires_in_s = 600}, 600 * KT_SECOND, false},
	        {{.now = T0, .exp = T0 + 500 * KT_SECOND}, 500 * KT_SECOND, false},
	        {{.now = T0, .expires_in_s = 600, .exp = T0 + 500 * KT_SECOND}, 500 * KT_SECOND, false},
	        {{.now = T0, .expires_in_s = 400, .exp = T0 + 500 * KT_SECOND}, 400 * KT_SECOND, false},
	        {{.now = T0, .expires_in_s = 3600, .cap = 10 * MIN}, 10 * MIN, true},
	        {{.now = T0, .expires_in_s = 600, .cap = 10 * MIN}, 10 * MIN, false},
	        {{.now = T0}, 5 * MIN, false},
	        {{.now = T0, .fallback = HOUR}, HOUR, false},
	        {{.now = T0, .fallback = HOUR, .cap = 10 * MIN}, 10 * MIN, true},
	        {{.now = T0, .expires_in_s = 600, .sent = T0 - 9 * KT_SECOND}, 591 * KT_SECOND, false},
	        {{.now = T0, .expires_in_s = 600, .sent = T0 + 400 * DAY}, 600 * KT_SECOND, false},
	        {{.now = T0, .exp = T0 + 500 * KT_SECOND, .skew = 100 * KT_SECOND}, 400 * KT_SECOND, false},
	        {{.now = T0, .exp = T0 - HOUR}, 0, false},
	        {{.now = T0, .expires_in_s = INT64_MAX}, KT_TIME_MAX - T0, false},
	        {{.now = T0, .expires_in_s = INT64_MIN}, 5 * MIN, false},
	        {{.now = T0, .exp = INT64_MAX, .skew = INT64_MIN}, KT_TIME_MAX - T0, false},
	        {{.now = T0, .exp = INT64_MIN, .skew = INT64_MAX}, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool longer;
		kt_ms end = kt_plan_token_life(&cases[i].answer, &longer);

		if (end - T0 != cases[i].life || longer != cases[i].longer)
			fail_msg("case %zu: %lld, %d", i, (long long)(end - T0), longer);
		assert_int_equal(kt_plan_token_life(&cases[i].answer, NULL), end);
	}
}

static void test_retry_table(void **state)
{
	const struct kt_plan_retry *row;

	(void)state;
	for (int code = 0; code < KT_CODE_COUNT; code++) {
		row = kt_plan_retry_find((enum kt_code)code, NULL);
		assert_int_equal(row->code, code);
		assert_true(row->first >= KT_SECOND && row->floor >= KT_SECOND && row->cap >= row->first);
		assert_true(row->growth >= 100 && row->floor <= row->cap);
		for (unsigned failures = 0; failures < 200; failures++) {
			for (int left = -1; left < 50; left++) {
				kt_ms life = left < 0 ? KT_TIME_MAX : (kt_ms)1 << left;
				kt_ms delay = kt_plan_retry_delay(row, failures, 0, life, failures * 31U);

				assert_true(delay >= row->floor);
				assert_true(delay <= row->cap + row->floor / 4);
				/* at most an eighth of what is left, but for the floor */
				assert_true(delay <= life / 8 || delay <= row->floor + row->floor / 4);
			}
		}
	}
	assert_int_equal(kt_plan_retry_find((enum kt_code)999, NULL)->code, KT_E_PROTO);
	row = kt_plan_retry_find(KT_E_LATER, "urn:ietf:params:acme:error:rateLimited");
	assert_string_equal(row->problem, "rateLimited");
	assert_int_equal(row->fault, KT_FAULT_LIMIT);
	assert_true(kt_plan_retry_find(KT_E_PROTO, "invalid_scope")->needs_change);
	assert_int_equal(kt_plan_retry_find(KT_E_NET, "what-is-this")->code, KT_E_NET);
	assert_int_equal(kt_plan_retry_delay(row, UINT32_MAX, INT64_MAX, INT64_MIN, 1) / DAY, 1);
	assert_int_equal(kt_plan_retry_delay(row, UINT32_MAX, INT64_MIN, INT64_MAX, 1) / DAY, 0);
	/* what passes by itself: after about 1, 2, 4 s, and a command waits for three of them */
	row = kt_plan_retry_find(KT_E_LATER, "urn:ietf:params:acme:error:badNonce");
	for (unsigned failures = 1; failures < 5; failures++) {
		kt_ms delay = kt_plan_retry_delay(row, failures, 0, KT_TIME_MAX, failures);

		assert_in_range(delay, failures == 1 ? 1000 : 500 << (failures - 1), failures == 1 ? 1250 : 1000 << (failures - 1));
		assert_int_equal(kt_plan_retry_is_near(row, failures, 0, delay), failures < 4);
	}
	assert_int_equal(kt_plan_retry_find(KT_E_LATER, "serverInternal")->first, KT_SECOND);
	assert_false(kt_plan_retry_find(KT_E_NET, NULL)->near);
	assert_true(kt_plan_retry_find_resumed(KT_E_NET, "")->near);
	assert_int_equal(kt_plan_retry_find_resumed(KT_E_NET, "")->first, KT_SECOND);
	assert_ptr_equal(kt_plan_retry_find_resumed(KT_E_NET, "connection"), kt_plan_retry_find(KT_E_NET, "connection"));
	row = kt_plan_retry_find(KT_E_LATER, NULL);
	assert_false(kt_plan_retry_is_near(row, 1, 0, 2 * KT_SECOND));
	assert_true(kt_plan_retry_is_near(row, 1, 3, 3 * KT_SECOND));
	assert_false(kt_plan_retry_is_near(row, 1, 30, 30 * KT_SECOND));
	assert_false(kt_plan_retry_is_near(row, 0, 3, 3 * KT_SECOND));
	/* "Retry-After: 0" or a date in the past, which arrive as one second: our own delay, and nobody waits for it. */
	assert_false(kt_plan_retry_is_near(row, 1, 1, KT_SECOND));
	assert_int_equal(kt_plan_retry_delay(row, 1, 1, KT_TIME_MAX, 7), kt_plan_retry_delay(row, 1, 0, KT_TIME_MAX, 7));
	assert_true(kt_plan_retry_delay(row, 1, 1, KT_TIME_MAX, 7) >= 30 * KT_SECOND);
	assert_in_range(kt_plan_retry_delay(row, 1, 2, KT_TIME_MAX, 7), 2 * KT_SECOND, 3 * KT_SECOND);
	/* grows and spreads */
	row = kt_plan_retry_find(KT_E_NET, NULL);
	assert_true(kt_plan_retry_delay(row, 1, 0, KT_TIME_MAX, 1) < kt_plan_retry_delay(row, 5, 0, KT_TIME_MAX, 1));
	assert_true(kt_plan_retry_delay(row, 9, 0, KT_TIME_MAX, 1) != kt_plan_retry_delay(row, 9, 0, KT_TIME_MAX, 2));
}

/* ---- windows ---- */

static struct kt_plan_window window(const char *cron, kt_ms duration, const struct kt_zone *zone)
{
	struct kt_plan_window w = {.duration = duration, .zone = zone};
	const char *problem = kt_cron_parse(cron, &w.cron);

	if (problem)
		fail_msg("%s %s", cron, problem);
	return w;
}

static void test_windows(void **state)
{
	(void)state;
	/* February 30th never comes, and that is found out in bounded time */
	struct kt_plan_window never = window("0 0 30 2 *", HOUR, NULL);
	assert_int_equal(kt_plan_window_next(&never, 1, T0, NULL), KT_TIME_MAX);
	/* inside, and its end */
	struct kt_plan_window night[2] = {window("0 2 * * *", 4 * HOUR, NULL), window("0 3 * * *", HOUR, NULL)};
	kt_ms end, at = kt_time_civil(2026, 11, 23, 3, 30, 0);
	assert_int_equal(kt_plan_window_next(night, 2, at, &end), at);
	assert_int_equal(end, kt_time_civil(2026, 11, 23, 6, 0, 0));
	assert_int_equal(kt_plan_window_next(night, 2, end, NULL), kt_time_civil(2026, 11, 24, 2, 0, 0));
	assert_int_equal(kt_plan_window_next(NULL, 0, at, NULL), at);
	assert_int_equal(kt_plan_window_next(night, 2, INT64_MAX, NULL), KT_TIME_MAX);
	(void)kt_plan_window_next(night, 2, INT64_MIN, NULL);
}

static void test_windows_hold_renewals(void **state)
{
	struct kt_plan_window saturday = window("0 2 * * 6", 4 * HOUR, NULL), yearly = window("@yearly", HOUR, NULL);
	struct kt_plan_policy weekly = {.windows = &saturday, .window_count = 1}, rare = {.windows = &yearly, .window_count = 1};
	struct kt_plan_state s = issued(90 * DAY);
	struct kt_plan p, due;
	kt_ms opens;

	(void)state;
	p = decide(&weekly, &s, T0);
	opens = kt_plan_window_next(&saturday, 1, p.renew_at, NULL);
	assert_true(opens > p.renew_at);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_in_range(p.act_at, opens, opens + 10 * MIN);
	due = decide(&weekly, &s, p.renew_at + HOUR);
	assert_int_equal(due.action, KT_PLAN_WAIT);
	assert_int_equal(due.reason, KT_WHY_WINDOW);
	assert_int_equal(due.act_at, p.act_at);
	assert_int_equal(decide(&weekly, &s, p.act_at).action, KT_PLAN_RENEW);
	assert_int_equal(decide(&weekly, &s, p.act_at - 1).action, KT_PLAN_WAIT);
	/* missed (the agent was down): the next Saturday */
	due = decide(&weekly, &s, opens + 5 * HOUR);
	assert_int_equal(due.reason, KT_WHY_WINDOW);
	assert_int_equal(kt_plan_window_next(&saturday, 1, due.act_at, NULL), due.act_at);
	/* a failure in the window is retried in a window */
	s.failures = 1;
	s.last_code = KT_E_NET;
	s.last_attempt = opens + 4 * HOUR - KT_SECOND;
	due = decide(&weekly, &s, s.last_attempt);
	assert_int_equal(due.action, KT_PLAN_WAIT);
	assert_true(due.act_at >= opens + 7 * DAY);
	s.failures = 0;
	/* none before the end of life: at the floor, outside, and it says so */
	s.not_after = T0 + 20 * DAY;
	p = decide(&rare, &s, T0 + 15 * DAY);
	assert_int_equal(p.action, KT_PLAN_WAIT);
	assert_int_equal(p.act_at, p.alarm_at);
	due = decide(&rare, &s, p.alarm_at);
	assert_int_equal(due.action, KT_PLAN_RENEW);
	assert_int_equal(due.reason, KT_WHY_FLOOR);
	assert_true(p.alarm_at < s.not_after);
	/* expired: no window is waited for */
	assert_int_equal(decide(&rare, &s, T0 + 21 * DAY).action, KT_PLAN_RENEW);
}

static void test_windows_hold_notifications(void **state)
{
	struct kt_plan_window night = window("0 2 * * *", 2 * HOUR, NULL), yearly = window("@yearly", HOUR, NULL);
	kt_ms noon = kt_time_civil(2026, 11, 24, 12, 0, 0), opens = kt_time_civil(2026, 11, 25, 2, 0, 0), start = noon - 80 * DAY;

	(void)state;
	assert_int_equal(kt_plan_window_tell(NULL, 0, start, start + 90 * DAY, noon), noon);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, start + 90 * DAY, noon), opens);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, start + 90 * DAY, opens), opens);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, start + 90 * DAY, opens + 2 * HOUR - 1), opens + 2 * HOUR - 1);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, start + 90 * DAY, opens + 2 * HOUR), opens + DAY);
	/* what is in use would end before the next one: when a tenth of its life is left, a week at most */
	assert_int_equal(kt_plan_window_tell(&yearly, 1, start, noon + 10 * DAY, noon), noon + 3 * DAY);
	assert_int_equal(kt_plan_window_tell(&yearly, 1, noon - 9 * DAY, noon + 11 * DAY, noon), noon + 9 * DAY);
	assert_int_equal(kt_plan_window_tell(&yearly, 1, start, noon + DAY, noon), noon);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, opens + 5 * HOUR, noon), noon);
	assert_int_equal(kt_plan_window_tell(&night, 1, start, opens + 7 * HOUR, noon), opens);
	/* it has ended, or its times are nonsense */
	assert_int_equal(kt_plan_window_tell(&night, 1, start, noon - DAY, noon), noon);
	assert_int_equal(kt_plan_window_tell(&night, 1, noon, 0, noon), noon);
	assert_int_equal(kt_plan_window_tell(&night, 1, INT64_MIN, INT64_MAX, noon), opens);
}

/* ---- consumers ---- */

static void test_tasks(void **state)
{
	struct kt_plan_task t = {.prove = true, .started_at = T0, .within = 30 * KT_SECOND};
	struct kt_plan_task_next n;
	kt_ms now = T0, last = 0;
	unsigned quick = 0, late = 0;

	(void)state;
	for (now = T0; now < T0 + DAY; now = n.next_at) {
		kt_plan_task_decide(&t, now, &n);
		assert_true(n.next_at > last);
		if (now < T0 + 30 * KT_SECOND) {
			assert_int_equal(n.phase, KT_TASK_QUICK);
			assert_true(n.next_at - now <= 2 * KT_SECOND);
			quick++;
		} else {
			assert_int_equal(n.phase, KT_TASK_LATE);
			assert_true(n.just_late);
			assert_in_range(n.next_at - now, 4500, 5 * MIN);
			late++;
		}
		t.attempts++;
		last = t.last_attempt = n.next_at;
		t.last_code = KT_E_MISMATCH;
	}
	assert_in_range(quick, 10, 25);
	assert_in_range(late, 280, 340);
	t.superseded = true;
	kt_plan_task_decide(&t, now, &n);
	assert_int_equal(n.phase, KT_TASK_OVER);
	assert_int_equal(n.next_at, KT_TIME_MAX);
	/* ends with the credential */
	t = (struct kt_plan_task){.prove = true, .started_at = T0, .not_after = T0 + MIN, .attempts = 9,
	                          .last_attempt = T0 + 58 * KT_SECOND};
	kt_plan_task_decide(&t, T0 + 58 * KT_SECOND, &n);
	assert_int_equal(n.next_at, T0 + MIN);
	kt_plan_task_decide(&t, T0 + MIN, &n);
	assert_int_equal(n.phase, KT_TASK_OVER);
	/* the agent was down: tried before it is called late */
	t = (struct kt_plan_task){.started_at = T0};
	kt_plan_task_decide(&t, T0 + DAY, &n);
	assert_true(n.next_at <= T0 + DAY);
	assert_false(n.just_late);
	/* a clock set back by 400 days neither freezes it nor makes it frantic */
	t = (struct kt_plan_task){.prove = true, .started_at = T0, .attempts = 4, .last_attempt = T0 + KT_SECOND};
	now = T0 - 400 * DAY;
	for (unsigned i = 0; i < 1000; i++) {
		kt_plan_task_decide(&t, now, &n);
		assert_true(n.next_at <= now + 5 * MIN);
		assert_true(n.next_at >= now + 50 || i == 0);
		now = n.next_at;
		t.attempts++;
		t.last_attempt = now;
	}
	assert_true(now - (T0 - 400 * DAY) > HOUR);
	assert_int_equal(n.phase, KT_TASK_LATE);
	/* asked to wait */
	t = (struct kt_plan_task){.started_at = T0, .attempts = 1, .last_attempt = T0, .retry_after_s = 60};
	kt_plan_task_decide(&t, T0, &n);
	assert_int_equal(n.next_at, T0 + MIN);
	t.retry_after_s = INT64_MAX;
	t.within = INT64_MAX;
	kt_plan_task_decide(&t, INT64_MAX, &n);
	kt_plan_task_decide(&t, INT64_MIN, &n);
}

/* ---- ten years ---- */

/* A CA that is down for 31 days out of every 40 or so, at places that the seed chooses. */
static bool down(kt_ms at, uint64_t seed)
{
	kt_ms period = 40 * DAY, shift = (kt_ms)(seed * 7919 % 57600) * MIN;

	return (at - T0 + shift) % period < 31 * DAY;
}

/* Whether the CA was up long enough between two moments that a renewal had to succeed. */
static bool was_up(kt_ms from, kt_ms to, kt_ms enough, uint64_t seed)
{
	kt_ms up = 0;

	for (kt_ms at = from; at < to; at += HOUR / 4) {
		up = down(at, seed) ? 0 : up + HOUR / 4;
		if (up >= enough)
			return true;
	}
	return false;
}

static void simulate(const struct kt_plan_policy *policy, kt_ms life, enum kt_code outage, kt_ms enough, uint64_t seed)
{
	const struct kt_plan_retry *row = kt_plan_retry_find(outage, NULL);
	struct kt_plan_state s = issued(life);
	struct kt_plan p;
	unsigned steps = 0, renewed = 0;
	kt_ms now = T0, last_try = 0;
	bool lost = false;

	s.seed = kt_plan_seed("sim", seed);
	while (now < T0 + 3653 * DAY) {
		kt_plan_decide_quick(policy, &s, now, &p);
		assert_true(++steps < 4000000);
		if (now >= s.not_after && !lost) {
			/* It expired: only where the CA never was up long enough. */
			lost = true;
			if (was_up(p.renew_at, s.not_after, enough, seed))
				fail_msg("life %lld, seed %llu: expired for nothing", (long long)life, (unsigned long long)seed);
		}
		if (p.action != KT_PLAN_RENEW) {
			assert_int_equal(p.action, KT_PLAN_WAIT);
			assert_true(p.due_at > now || p.remove);
			if (p.remove)
				s.disk = KT_PLAN_DISK_MISSING;
			else
				now = p.due_at;
			continue;
		}
		/* Not before the floor. */
		assert_true(s.failures == 0 || now - last_try >= row->floor);
		last_try = now;
		if (down(now, seed)) {
			s.failures++;
			s.last_attempt = now;
			s.last_code = outage;
			continue;
		}
		s.not_before = s.issued_at = now;
		s.not_after = now + life;
		s.failures = 0;
		s.disk = KT_PLAN_DISK_OK;
		s.seed = kt_plan_seed("sim", seed * 100000 + ++renewed);
		lost = false;
	}
	assert_true(renewed >= (unsigned)(3653 * DAY / (life + 31 * DAY)));
}

static void test_ten_years(void **state)
{
	struct kt_plan_window nights = window("0 1 * * *", 5 * HOUR, NULL);
	struct kt_plan_policy windowed = {.windows = &nights, .window_count = 1};
	static const kt_ms lives[] = {365 * DAY, 90 * DAY, 45 * DAY, 6 * DAY, DAY};

	(void)state;
	for (uint64_t seed = 0; seed < 6; seed++) {
		for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++)
			simulate(&cert_policy, lives[i], KT_E_NET, HOUR / 2, seed);
		simulate(&cert_policy, 90 * DAY, KT_E_PROTO, 3 * HOUR, seed);
		simulate(&(struct kt_plan_policy){.renew_before_percentage = 50}, 90 * DAY, KT_E_TIMEOUT, HOUR / 2, seed);
		simulate(&windowed, 90 * DAY, KT_E_NET, 2 * DAY, seed);
	}
	/* Many places where the end of an outage and the end of a life nearly meet. */
	for (uint64_t seed = 30; seed < 45; seed++)
		simulate(&cert_policy, 6 * DAY, KT_E_NET, HOUR / 2, seed);
	simulate(&token_policy, HOUR, KT_E_NET, HOUR, 3);
}

/* Numbers at their bounds: under the sanitizers an overflow ends the test. */
static void test_bounds(void **state)
{
	static const kt_ms extremes[] = {INT64_MIN, -KT_TIME_MAX, -1, 0, 1, T0, (kt_ms)1 << 31, ((kt_ms)1 << 31) * 1000,
	                                 KT_TIME_MAX, INT64_MAX};
	const size_t n = sizeof(extremes) / sizeof(extremes[0]);
	struct kt_plan_window w = window("0 1 * * *", INT64_MAX, NULL);
	struct kt_plan p;

	(void)state;
	for (size_t i = 0; i < n * n * n * n; i++) {
		struct kt_plan_state s = {.has_material = true, .not_before = extremes[i % n], .not_after = extremes[i / n % n],
		                          .issued_at = extremes[(i * 7 + 3) % n], .failures = (unsigned)(i % 3),
		                          .last_attempt = extremes[i / n / n % n], .last_code = (enum kt_code)(i % 25),
		                          .retry_after_s = extremes[(i * 3) % n], .seed = i};
		struct kt_plan_policy policy = {.kind = i % 2 ? KT_PLAN_TOKEN : KT_PLAN_CERTIFICATE,
		                                .renew_before = extremes[(i / 5) % n],
		                                .renew_before_percentage = (int)(i % 300) - 100};
		kt_ms now = extremes[i / n / n / n % n];

		if (i % 97 == 0) {
			policy.windows = &w;
			policy.window_count = 1;
		}
		kt_plan_decide(&policy, &s, now, &p);
		assert_true(p.due_at <= KT_TIME_MAX && p.due_at >= -KT_TIME_MAX);
		assert_true(p.renew_at <= KT_TIME_MAX && p.alarm_at <= KT_TIME_MAX);
	}
	for (int i = 0; i < KT_WHY_COUNT; i++)
		assert_true(strlen(kt_plan_reason_name((enum kt_plan_reason)i)) > 3);
	assert_string_equal(kt_plan_action_name(KT_PLAN_REDELIVER), "redeliver");
	assert_string_equal(kt_plan_fault_name(KT_FAULT_CONSUMER), "consumer");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_renewal_point), cmocka_unit_test(test_rule), cmocka_unit_test(test_renewal_info),
	        cmocka_unit_test(test_renewal_info_and_others),
	        cmocka_unit_test(test_limit),         cmocka_unit_test(test_life_cycle),
	        cmocka_unit_test(test_client),
	        cmocka_unit_test(test_client_key),
	        cmocka_unit_test(test_reissue),       cmocka_unit_test(test_flight),
	        cmocka_unit_test(test_backoff),       cmocka_unit_test(test_clock),
	        cmocka_unit_test(test_disk),          cmocka_unit_test(test_token),
	        cmocka_unit_test(test_token_life),    cmocka_unit_test(test_retry_table),
	        cmocka_unit_test(test_windows),
	        cmocka_unit_test(test_windows_hold_renewals), cmocka_unit_test(test_windows_hold_notifications), cmocka_unit_test(test_tasks),
	        cmocka_unit_test(test_ten_years),     cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
