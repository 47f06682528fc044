/*
 * Ten years by a clock of our own: plan, limits and health as the keeper uses them, against CAs that go down, fail at
 * random, refuse for a week and count what they allow with buckets of their own. Nothing may end that could have been
 * renewed, no limit may be exceeded, no delay may be below its floor, attempts are bounded.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/plan/health.h"
#include "keeper/plan/limits.h"

#define START INT64_C(1893456000000) /* 2030-01-01: 2038 lies within */
#define YEAR (365 * KT_DAY + 6 * KT_HOUR)
#define LE "https://acme-v02.api.letsencrypt.org/directory"
#define ITEMS_MAX 2000u
#define CAS 3u /* 0: the issuer; 1: its fallback; 2: that of tokens */
#define TOKENS 2u

struct span {
	kt_ms from, to;
};

/* What a CA has of one of its limits: exact, in fractions, by true time. */
struct counter {
	double level;
	kt_ms at;
	bool used;
};

struct ca {
	const struct kt_ca_limits *limits; /* NULL: none */
	struct span down[4], storm[4];
	unsigned flaky; /* of 1000 requests */
	struct counter orders, domain[ITEMS_MAX], set[ITEMS_MAX];
	unsigned issued, asked, limited;
};

struct item {
	struct kt_plan_policy policy;
	struct kt_plan_state state;
	kt_ms life;
	size_t ca, last_ca; /* last_ca: where the last attempt failed */
	unsigned domain;
	bool failed_there, ordered_before;
	kt_ms due;                  /* by our clock */
	kt_ms true_end, true_renew; /* by the true one */
	kt_ms floor_until;          /* by our clock, as it was then: no attempt before */
	kt_ms floor_offset;
	unsigned renewed, attempts, lost, revision;
	kt_ms lost_longest;
};

struct world {
	kt_ms now, offset; /* true time; ours is ahead by offset */
	struct span wrong[8]; /* the clock is wrong, or nothing runs */
	struct ca ca[CAS];
	struct kt_health health[CAS];
	struct kt_bucket orders[CAS], domain[CAS][ITEMS_MAX], set[CAS][ITEMS_MAX]; /* what we keep of it */
	struct item items[ITEMS_MAX];
	size_t count;
	bool fallback;
	uint64_t random;
	unsigned held, by_fallback;
};

static struct world *world;

static unsigned thousandth(struct world *w)
{
	w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(w->random >> 33) % 1000;
}

static bool in_any(const struct span *spans, size_t count, kt_ms at)
{
	for (size_t i = 0; i < count; i++) {
		if (at >= spans[i].from && at < spans[i].to)
			return true;
	}
	return false;
}

static kt_ms overlap(const struct span *spans, size_t count, kt_ms from, kt_ms to)
{
	kt_ms sum = 0;

	for (size_t i = 0; i < count; i++) {
		kt_ms a = spans[i].from > from ? spans[i].from : from, b = spans[i].to < to ? spans[i].to : to;

		sum += b > a ? b - a : 0;
	}
	return sum;
}

static kt_ms clock_of(const struct world *w)
{
	return w->now + w->offset;
}

/* ---- the CA's side --------------------------------------------------------------------------------------------------- */

static const struct kt_limit *row_of(const struct ca *ca, const char *what)
{
	for (size_t i = 0; ca->limits && i < ca->limits->count; i++) {
		if (strcmp(ca->limits->rows[i].what, what) == 0)
			return &ca->limits->rows[i];
	}
	return NULL;
}

/* False: refused for having asked too much, which only a clock that was wrong within the window excuses. */
static bool take(const struct world *w, struct counter *counter, const struct kt_limit *row, bool renewal)
{
	kt_ms now = w->now;

	if (!row || (renewal && row->renewals_free))
		return true;
	if (!counter->used)
		*counter = (struct counter){.level = row->limit, .at = now, .used = true};
	counter->level += (double)row->limit / (double)row->window * (double)(now - counter->at);
	if (counter->level > row->limit)
		counter->level = row->limit;
	counter->at = now;
	if (counter->level < 1 - 1e-6) {
		assert_true(overlap(w->wrong, 2, now - row->window, now + 1) > 0);
		return false;
	}
	counter->level -= 1;
	return true;
}

static enum kt_code refuse(struct ca *ca, int64_t retry_after_s, struct kt_err *err)
{
	ca->limited++;
	(void)kt_err_set(err, KT_E_LATER, "too many");
	(void)snprintf(err->problem_type, sizeof(err->problem_type), "urn:ietf:params:acme:error:rateLimited");
	err->retry_after_s = retry_after_s;
	return err->code;
}

/* ---- our side --------------------------------------------------------------------------------------------------------- */

static struct kt_bucket *bucket_of(struct world *w, size_t ca, const struct kt_limit *row, size_t index)
{
	switch (row->scope) {
	case KT_LIMIT_ACCOUNT:
		return &w->orders[ca];
	case KT_LIMIT_DOMAIN:
		return &w->domain[ca][w->items[index].domain];
	case KT_LIMIT_NAMES:
		return &w->set[ca][index];
	default:
		return NULL;
	}
}

/* A request goes out: what it may cost is written down before. */
static void spend(struct world *w, size_t ca, size_t index, bool renewal, bool order)
{
	for (size_t i = 0; w->ca[ca].limits && i < w->ca[ca].limits->count; i++) {
		const struct kt_limit *row = &w->ca[ca].limits->rows[i];
		struct kt_bucket *bucket = bucket_of(w, ca, row, index);

		if (bucket && !(renewal && row->renewals_free) && (row->scope == KT_LIMIT_ACCOUNT) == order)
			kt_limit_spend(row, bucket, clock_of(w));
	}
}

/* When the limits of that CA let the item go. */
static kt_ms limits(struct world *w, size_t ca, size_t index, bool renewal, bool urgent)
{
	struct kt_plan_state *state = &w->items[index].state;
	kt_ms now = clock_of(w), latest = now;

	state->limit_spread = 0;

	for (size_t i = 0; w->ca[ca].limits && i < w->ca[ca].limits->count; i++) {
		const struct kt_limit *row = &w->ca[ca].limits->rows[i];
		struct kt_bucket *bucket = bucket_of(w, ca, row, index);
		kt_ms next;

		if (!bucket || (renewal && row->renewals_free))
			continue;
		next = kt_limit_next(row, bucket, now, urgent);
		if (next > latest) {
			latest = next;
			state->limit_spread = urgent ? 0 : kt_limit_spread(row);
		}
	}
	return latest;
}

static size_t choose(struct world *w, const struct item *item, bool pressing)
{
	struct kt_health_candidate list[2] = {
	        {w->health[0], item->failed_there && item->last_ca == 0},
	        {w->health[1], item->failed_there && item->last_ca == 1},
	};

	return item->ca == 0 && w->fallback ? kt_health_choose(list, 2, pressing, clock_of(w)) : item->ca;
}

/* It is renewed after its end: was there really no way before? */
static void judge(struct world *w, struct item *item)
{
	const struct ca *ca = &w->ca[item->ca];
	kt_ms from = item->true_renew, to = item->true_end, open = to - from, waited, last = to;

	open -= overlap(ca->down, 4, from, to) + overlap(ca->storm, 4, from, to) + overlap(w->wrong, 8, from, to);
	if (open > (to - from) / 4 + 2 * KT_MINUTE) {
		print_error("a life of %lld s ended, though %lld of %lld s were there to renew it\n", (long long)item->life / 1000,
		            (long long)open / 1000, (long long)(to - from) / 1000);
		fail();
	}
	for (size_t i = 0; i < 4; i++) { /* and once there is a way, not long after it */
		last = ca->down[i].to <= w->now && ca->down[i].to > last ? ca->down[i].to : last;
		last = ca->storm[i].from <= w->now && ca->storm[i].to > last ? ca->storm[i].to : last;
	}
	for (size_t i = 0; i < 8; i++)
		last = w->wrong[i].from <= w->now && w->wrong[i].to > last ? w->wrong[i].to : last;
	waited = w->now - last;
	if (waited > 30 * KT_MINUTE)
		print_error("life %lld s: ended at %lld, renewed %lld s after the way was open, at %lld, %u failures, code %d %s\n",
		            (long long)item->life / 1000, (long long)(to - START) / 1000, (long long)waited / 1000,
		            (long long)(w->now - START) / 1000, item->state.failures, item->state.last_code, item->state.last_problem);
	assert_true(waited <= 30 * KT_MINUTE);
	item->lost++;
	item->lost_longest = w->now - to > item->lost_longest ? w->now - to : item->lost_longest;
}

static void succeed(struct world *w, struct item *item, size_t ca)
{
	kt_ms ours = clock_of(w);
	bool token = item->policy.kind == KT_PLAN_TOKEN;
	struct kt_plan plan;

	if (item->renewed && w->now > item->true_end)
		judge(w, item);
	/* A CA writes its own time into a certificate; a token lives by ours. */
	item->state = (struct kt_plan_state){.has_material = true,
	                                     .not_before = token ? ours : w->now - KT_HOUR,
	                                     .not_after = (token ? ours : w->now) + item->life,
	                                     .issued_at = ours,
	                                     .seed = kt_plan_seed("Certificate/default/x", ++item->revision * 7919 + item->domain)};
	item->true_end = w->now + item->life;
	kt_plan_decide_quick(&item->policy, &item->state, ours, &plan);
	item->true_renew = plan.act_at - w->offset;
	item->renewed++;
	item->failed_there = false;
	item->ordered_before = true;
	item->floor_until = 0;
	kt_health_ok(&w->health[ca], ours);
	w->by_fallback += ca == 1;
}

/* One attempt: KT_OK, or the error as the courier would give it. */
static enum kt_code ask(struct world *w, size_t which, size_t index, bool renewal, struct kt_err *err)
{
	struct ca *ca = &w->ca[which];
	struct item *item = &w->items[index];
	unsigned luck = thousandth(w);

	kt_err_clear(err);
	ca->asked++;
	if (in_any(ca->down, 4, w->now))
		return kt_err_set(err, luck < 300 ? KT_E_TIMEOUT : KT_E_NET, "down");
	spend(w, which, index, renewal, true);
	if (in_any(ca->storm, 4, w->now) && luck < 700)
		return refuse(ca, luck % 2 ? 3600 : 0, err);
	if (luck < ca->flaky / 2) {
		(void)snprintf(err->problem_type, sizeof(err->problem_type), "%s",
		               luck % 2 ? "urn:ietf:params:acme:error:badNonce" : "urn:ietf:params:acme:error:serverInternal");
		return kt_err_set(err, KT_E_LATER, "flaky"), err->code;
	}
	if (!take(w, &ca->orders, row_of(ca, KT_LIMIT_ORDER), renewal))
		return refuse(ca, 60, err);
	if (luck < ca->flaky)
		return kt_err_set(err, KT_E_NET, "broken off");
	spend(w, which, index, renewal, false);
	if (!take(w, &ca->domain[item->domain], row_of(ca, KT_LIMIT_CERTIFICATE), renewal) ||
	    !take(w, &ca->set[index], row_of(ca, KT_LIMIT_SET), renewal))
		return refuse(ca, 86400, err);
	/* What we get must be good by our clock, else it is refused, though it counts. */
	if (item->policy.kind == KT_PLAN_CERTIFICATE && w->now + item->life <= clock_of(w))
		return kt_err_set(err, KT_E_CRYPTO, "it has ended already");
	ca->issued++;
	return KT_OK;
}

static void attempt(struct world *w, size_t index, size_t ca, bool renewal)
{
	struct item *item = &w->items[index];
	kt_ms now = clock_of(w), left = KT_TIME_MAX, delay;
	const struct kt_plan_retry *row;
	struct kt_err err;

	assert_true(now >= item->floor_until || item->floor_offset != w->offset);
	item->attempts++;
	if (ask(w, ca, index, renewal, &err) == KT_OK) {
		succeed(w, item, ca);
		return;
	}
	row = kt_plan_retry_find(err.code, err.problem_type);
	if (kt_health_counts(row->fault))
		kt_health_fail(&w->health[ca], err.retry_after_s, now);
	item->failed_there = kt_health_counts(row->fault) || row->fault == KT_FAULT_LIMIT;
	item->last_ca = ca;
	item->state.failures++;
	item->state.last_attempt = now;
	item->state.last_code = err.code;
	(void)snprintf(item->state.last_problem, sizeof(item->state.last_problem), "%s", err.problem_type);
	item->state.retry_after_s = err.retry_after_s;
	if (item->state.has_material)
		left = item->state.not_after > now ? item->state.not_after - now : 0;
	delay = kt_plan_retry_delay(row, item->state.failures, err.retry_after_s, left, item->state.seed);
	assert_true(delay >= row->floor && delay <= 25 * KT_HOUR);
	item->state.announced = now + delay;
	item->floor_until = now + delay;
	item->floor_offset = w->offset;
}

/* The credential is due: what the keeper does with it. */
static void look(struct world *w, size_t index)
{
	struct item *item = &w->items[index];
	kt_ms now = clock_of(w);
	bool pressing, renewal = item->ordered_before && item->state.has_material;
	struct kt_plan plan;
	size_t ca;

	item->state.limit_at = 0;
	kt_plan_decide_quick(&item->policy, &item->state, now, &plan);
	if (plan.action != KT_PLAN_WAIT && plan.action != KT_PLAN_NONE) {
		pressing = kt_plan_is_pressing(item->state.has_material, plan.renew_at, item->state.not_after, now);
		ca = choose(w, item, pressing);
		item->state.limit_at = limits(w, ca, index, renewal, pressing && item->state.has_material);
		kt_plan_decide_quick(&item->policy, &item->state, now, &plan);
		if (plan.action != KT_PLAN_WAIT && plan.action != KT_PLAN_NONE) {
			attempt(w, index, ca, renewal);
			item->state.limit_at = 0;
			kt_plan_decide_quick(&item->policy, &item->state, now, &plan);
		} else {
			assert_int_equal(plan.reason, KT_WHY_LIMIT);
			w->held++;
		}
	}
	item->due = plan.due_at > now ? plan.due_at : now + KT_SECOND;
}

/* Runs to `until` (true time). */
static void run(struct world *w, kt_ms until)
{
	for (;;) {
		size_t next = 0;
		kt_ms at;

		for (size_t i = 1; i < w->count; i++) {
			/* at the same time the one that ends first comes first, as the store orders them */
			if (w->items[i].due < w->items[next].due)
				next = i;
		}
		at = w->items[next].due - w->offset;
		if (at >= until)
			break;
		w->now = at > w->now ? at : w->now;
		look(w, next);
	}
	w->now = until > w->now ? until : w->now;
}

/* The clock is set; the agent sees it and looks at everything again. */
static void jump(struct world *w, kt_ms by)
{
	w->offset += by;
	for (size_t i = 0; i < w->count; i++)
		w->items[i].due = clock_of(w);
}

static struct world *new_world(void)
{
	free(world);
	world = calloc(1, sizeof(*world));
	assert_non_null(world);
	world->now = START;
	world->random = 42;
	return world;
}

static struct item *add(struct world *w, size_t ca, kt_ms life)
{
	struct item *item = &w->items[w->count];

	assert_true(w->count < ITEMS_MAX);
	item->life = life;
	item->ca = ca;
	item->policy.kind = ca == TOKENS ? KT_PLAN_TOKEN : KT_PLAN_CERTIFICATE;
	item->domain = (unsigned)w->count / 5;
	item->due = w->now;
	item->state.seed = w->count++;
	return item;
}

/* ---- ten years --------------------------------------------------------------------------------------------------------- */

static void fifty(struct world *w, const struct kt_plan_window *window)
{
	for (unsigned i = 0; i < 50; i++) {
		struct item *item = add(w, i < 45 ? 0 : TOKENS, i < 20 ? 90 * KT_DAY : i < 35 ? 45 * KT_DAY : i < 45 ? 6 * KT_DAY : KT_HOUR);

		if (i % 5 == 1 && i < 35) {
			item->policy.windows = window;
			item->policy.window_count = 1;
		}
	}
	w->ca[0].limits = kt_limits_of(LE);
	w->ca[1].limits = kt_limits_of(LE);
	w->ca[0].flaky = w->ca[2].flaky = 50;
	w->ca[0].down[0] = (struct span){START + 2 * YEAR, START + 2 * YEAR + 31 * KT_DAY};
	w->ca[0].down[1] = (struct span){START + 5 * YEAR, START + 5 * YEAR + 9 * KT_HOUR};
	w->ca[0].storm[0] = (struct span){START + 3 * YEAR, START + 3 * YEAR + 7 * KT_DAY};
	w->ca[0].storm[1] = (struct span){START + 8 * YEAR + 20 * KT_DAY, START + 8 * YEAR + 27 * KT_DAY}; /* over 2038-01-19 */
	w->ca[2].down[0] = (struct span){START + 4 * YEAR, START + 4 * YEAR + 3 * KT_HOUR};
}

/* Both jumps of the clock, six hours long, and a night in which the machine sleeps. */
static void incidents(struct world *w)
{
	kt_ms ahead = START + 6 * YEAR, behind = ahead + 90 * KT_DAY, asleep = ahead + 180 * KT_DAY;

	w->wrong[0] = (struct span){ahead, ahead + 6 * KT_HOUR};
	w->wrong[1] = (struct span){behind, behind + 6 * KT_HOUR};
	w->wrong[2] = (struct span){asleep, asleep + 8 * KT_HOUR};
	run(w, ahead);
	jump(w, 400 * KT_DAY);
	run(w, ahead + 6 * KT_HOUR);
	jump(w, -400 * KT_DAY);
	run(w, behind);
	jump(w, -400 * KT_DAY);
	run(w, behind + 6 * KT_HOUR);
	jump(w, 400 * KT_DAY);
	run(w, asleep);
	w->now += 8 * KT_HOUR;
	run(w, START + 10 * YEAR);
}

static void count_up(const struct world *w, bool fallback)
{
	for (size_t i = 0; i < w->count; i++) {
		const struct item *item = &w->items[i];
		const struct ca *ca = &w->ca[item->ca];
		kt_ms bad = overlap(ca->down, 4, START, START + 10 * YEAR) + overlap(ca->storm, 4, START, START + 10 * YEAR);

		assert_true(item->renewed >= (unsigned)(10 * YEAR / item->life));
		assert_true(item->attempts <= item->renewed + item->renewed / 5 + 100 + 400 * (unsigned)(bad / KT_DAY + 1));
		if (item->life == 90 * KT_DAY || (fallback && item->ca == 0))
			assert_true(item->lost_longest <= (fallback ? 0 : 2 * KT_DAY));
	}
}

static void test_ten_years(void **state)
{
	struct kt_plan_window window = {.duration = 3 * KT_HOUR};
	struct kt_zone *zone = NULL;
	struct world *w = new_world();
	unsigned lost = 0;

	(void)state;
	assert_null(kt_cron_parse("30 1 * * *", &window.cron));
	if (kt_zone_read("Europe/Berlin", &zone, NULL) == KT_OK) /* half past one does not exist, or comes twice */
		window.zone = zone;
	fifty(w, &window);
	incidents(w);
	count_up(w, false);
	for (size_t i = 0; i < w->count; i++)
		lost += w->items[i].lost;
	print_message("without fallback: %u and %u certificates and tokens, %u ended for want of a CA\n", w->ca[0].issued,
	              w->ca[2].issued, lost);
	assert_true(lost > 0); /* 31 days are more than a life: the test would see it */

	w = new_world();
	w->fallback = true;
	fifty(w, &window);
	incidents(w);
	count_up(w, true);
	print_message("with it: %u and %u, %u of the first by the fallback\n", w->ca[0].issued + w->ca[1].issued,
	              w->ca[2].issued, w->by_fallback);
	assert_true(w->by_fallback > 30);
	/* Back to the first one when it is well again: the fallback has few in the quiet years. */
	assert_true(w->ca[0].issued > 10 * w->ca[1].issued);
	kt_zone_destroy(zone);
}

/* ---- in bulk ------------------------------------------------------------------------------------------------------------ */

/* What the CA wants replaced within a day, where that counts against 300 orders in three hours: a pace, not a storm. */
static void test_mass_revocation(void **state)
{
	static struct kt_ca_limits strict;
	struct world *w = new_world();
	unsigned late = 0;
	kt_ms asked;

	(void)state;
	strict = *kt_limits_of(LE);
	strict.rows[0].renewals_free = false;
	strict.count = 1;
	w->ca[0].limits = NULL;
	for (unsigned i = 0; i < ITEMS_MAX; i++)
		(void)add(w, 0, 90 * KT_DAY);
	run(w, START + 20 * KT_DAY);
	w->ca[0].limits = &strict;
	w->ca[0].flaky = 50;
	asked = w->now;
	for (size_t i = 0; i < w->count; i++) {
		w->items[i].state.ari_start = asked;
		w->items[i].state.ari_end = asked + 24 * KT_HOUR;
		w->items[i].due = clock_of(w);
	}
	run(w, asked + 26 * KT_HOUR);
	for (size_t i = 0; i < w->count; i++)
		late += w->items[i].renewed < 2;
	assert_int_equal(late, 0);
	assert_true(w->ca[0].asked < 3 * ITEMS_MAX);
}

/* 2,000 names of 40 domains all at once, first issues: what the CA allows is used and not more, none is forgotten. */
static void test_first_issues(void **state)
{
	struct world *w = new_world();
	unsigned done = 0;

	(void)state;
	w->ca[0].limits = kt_limits_of(LE);
	w->ca[0].flaky = 50;
	for (unsigned i = 0; i < ITEMS_MAX; i++)
		add(w, 0, 90 * KT_DAY)->domain = i % 40;
	run(w, START + 3 * KT_HOUR);
	for (size_t i = 0; i < w->count; i++)
		done += w->items[i].renewed;
	assert_in_range(done, 480, 570); /* a tenth of 300 is kept for renewals; 100 an hour come back */
	run(w, START + 8 * KT_DAY);
	for (size_t i = done = 0; i < w->count; i++)
		done += w->items[i].renewed > 0;
	assert_int_equal(done, ITEMS_MAX);
	assert_true(w->held < 200 * ITEMS_MAX);
}

/* ---- health --------------------------------------------------------------------------------------------------------------- */

static void test_health(void **state)
{
	struct kt_health_candidate list[3] = {{{0}, false}, {{0}, false}, {{0}, false}};
	struct kt_health *first = &list[0].health;
	kt_ms now = START;

	(void)state;
	assert_int_equal(kt_health_choose(list, 3, true, now), 0);
	kt_health_fail(first, 0, now);
	kt_health_fail(first, 0, now);
	assert_int_equal(kt_health_choose(list, 3, false, now), 0);
	list[0].failed = true;
	assert_int_equal(kt_health_choose(list, 3, false, now), 0);
	assert_int_equal(kt_health_choose(list, 3, true, now), 1);
	list[0].failed = false;
	kt_health_fail(first, 0, now);
	assert_int_equal(kt_health_state(first, now), KT_HEALTH_DOWN);
	assert_int_equal(kt_health_choose(list, 3, false, now), 1);
	for (unsigned i = 0; i < 3; i++)
		kt_health_fail(&list[1].health, 600, now);
	assert_int_equal(kt_health_choose(list, 3, false, now), 2);
	assert_int_equal(kt_health_choose(list, 2, false, now), 0);
	assert_int_equal(kt_health_choose(list, 1, true, now), 0);
	/* its time comes, one tries, the others go on elsewhere meanwhile */
	now += 6 * KT_MINUTE;
	assert_int_equal(kt_health_state(first, now), KT_HEALTH_TRY);
	assert_int_equal(kt_health_state(&list[1].health, now), KT_HEALTH_DOWN);
	assert_int_equal(kt_health_choose(list, 3, false, now), 0);
	kt_health_trying(first, now);
	assert_int_equal(kt_health_choose(list, 3, false, now), 2);
	kt_health_ok(first, now);
	assert_int_equal(kt_health_choose(list, 3, false, now), 0);
	assert_true(first->ok_at == now);
	/* bounds: a long outage, huge Retry-After, clocks */
	for (unsigned i = 0; i < 100; i++)
		kt_health_fail(first, i % 2 ? INT64_MAX : INT64_MIN, now);
	assert_true(first->retry_at - now <= KT_DAY);
	assert_int_equal(kt_health_state(first, now - 400 * KT_DAY), KT_HEALTH_TRY);
	assert_int_equal(kt_health_state(first, INT64_MIN), KT_HEALTH_TRY);
	assert_int_equal(kt_health_state(first, INT64_MAX), KT_HEALTH_TRY);
	first->failures = UINT32_MAX;
	kt_health_fail(first, 0, INT64_MAX);
	assert_int_equal(first->failures, UINT32_MAX);
	assert_true(kt_plan_is_pressing(false, 0, 0, now));
	assert_false(kt_plan_is_pressing(true, now, now + 10, now + 4));
	assert_true(kt_plan_is_pressing(true, now, now + 10, now + 5));
	assert_false(kt_plan_is_pressing(true, 0, now + 10, now));
	assert_true(kt_plan_is_pressing(true, 0, now, now));
	assert_true(kt_health_counts(kt_plan_retry_find(KT_E_NET, NULL)->fault));
	assert_false(kt_health_counts(kt_plan_retry_find(KT_E_DENIED, "caa")->fault));
	assert_false(kt_health_counts(kt_plan_retry_find(KT_E_LATER, "rateLimited")->fault));
}

static int end(void **state)
{
	(void)state;
	free(world);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_health),
	        cmocka_unit_test(test_first_issues),
	        cmocka_unit_test(test_mass_revocation),
	        cmocka_unit_test(test_ten_years),
	};

	return cmocka_run_group_tests_name("schedule", tests, NULL, end);
}
