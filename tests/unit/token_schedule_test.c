/*
 * A thousand tokens for 24 hours by a clock of our own: lives, renewal points, retries and damping as the keeper uses them,
 * against authorization servers that go down, refuse, limit, answer nonsense and have another time than we. No token may end
 * that could have been renewed, nobody is asked before the time that he named, and not many more are minted than must be.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/plan/plan.h"

#define START     INT64_C(1893456000000)
#define TOKENS    1000u
#define SERVERS   8u
#define IN_FLIGHT 8u /* requests at once at one server */
#define SPANS     6u
#define HOURS     24u
#define TOLD      64u
#define PATIENCE  (10 * KT_SECOND) /* with a server that does not answer */

enum way { DOWN_REFUSED, DOWN_SILENT, DOWN_EMPTY_503, DOWN_503_LATER };

struct span {
	kt_ms from, to;
	enum way way;
};

struct server {
	kt_ms clock;                       /* its clock minus the true one */
	bool undated;                      /* sends no Date */
	kt_ms rtt;
	unsigned flaky;                    /* of 1000 requests */
	unsigned rate;                     /* tokens in a minute; 0: any number */
	struct span down[SPANS];
	struct span locked;                /* our secret is no longer the one that it wants */
	kt_ms minute;
	unsigned in_minute, open, most_open;
	unsigned asked, minted, limited, told_wrong;
	unsigned first, last;              /* of those that wait for their turn, 1 + index; 0: none */
};

/* What a server says of a token's life. */
enum saying { SAYS_BOTH, SAYS_EXPIRES_IN, SAYS_EXP, SAYS_NOTHING, SAYS_TOO_MUCH, SAYS_WHAT_IS_LEFT, SAYINGS };

struct token {
	struct kt_plan_policy policy;
	struct kt_plan_state state;
	struct server *server;
	enum saying saying;
	kt_ms life, cap;
	/* as events */
	kt_ms at;
	bool asking, queued;
	unsigned next;                     /* in the queue of its server */
	/* the request that is under way */
	kt_ms sent, true_sent;
	enum kt_code code;
	char problem[32];
	int64_t retry_after, expires_in;
	kt_ms exp, end, date;
	bool has_date;
	/* what is in place */
	bool placed;
	kt_ms true_end, true_renew;
	/* why it may have ended */
	struct span told[TOLD];
	unsigned told_count;
	kt_ms not_before, offset_then;     /* no request before */
	kt_ms damped_until;
	kt_ms begin;                       /* in the manifests from then on */
	kt_ms cached_end;                  /* the server gives the same one until then */
	unsigned revision, asked, minted, gaps;
	unsigned limited, limited_then;    /* refused for a limit; what it was when this one came */
	kt_ms gap_longest, expired_longest;
};

struct world {
	kt_ms now, offset;
	struct span asleep[SPANS];         /* the agent does not run */
	struct server servers[SERVERS];
	struct token tokens[TOKENS];
	unsigned heap[TOKENS], place[TOKENS], count;
	uint64_t random;
	unsigned minted[HOURS];
	double least[HOURS];
	unsigned lost, chance;             /* minted, and the answer never came; ended by bad luck alone */
};

static struct world *world;

static unsigned thousandth(struct world *w)
{
	w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(w->random >> 33) % 1000;
}

static kt_ms clock_of(const struct world *w)
{
	return w->now + w->offset;
}

static const struct span *within(const struct span *spans, size_t count, kt_ms at)
{
	for (size_t i = 0; i < count; i++) {
		if (at >= spans[i].from && at < spans[i].to)
			return &spans[i];
	}
	return NULL;
}

/* ---- events: a heap by true time --------------------------------------------------------------------------------------- */

static void put(struct world *w, unsigned at, unsigned index)
{
	w->heap[at] = index;
	w->place[index] = at;
}

static void settle(struct world *w, unsigned index)
{
	unsigned at = w->place[index];
	kt_ms key = w->tokens[index].at;

	while (at > 0 && w->tokens[w->heap[(at - 1) / 2]].at > key) {
		put(w, at, w->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		unsigned child = 2 * at + 1;

		if (child + 1 < w->count && w->tokens[w->heap[child + 1]].at < w->tokens[w->heap[child]].at)
			child++;
		if (child >= w->count || w->tokens[w->heap[child]].at >= key)
			break;
		put(w, at, w->heap[child]);
		at = child;
	}
	put(w, at, index);
}

static void set_at(struct world *w, struct token *t, kt_ms at)
{
	t->at = at;
	settle(w, (unsigned)(t - w->tokens));
}

/* ---- the server's side ------------------------------------------------------------------------------------------------- */

/* What it gives at `now`, on its own clock, in whole seconds. */
static void mint(struct world *w, struct token *t, kt_ms now)
{
	struct server *s = t->server;
	kt_ms iat = (now + s->clock) / 1000 * 1000;
	unsigned hour = (unsigned)((now - START) / KT_HOUR);

	t->exp = t->expires_in = 0;
	if (t->saying == SAYS_WHAT_IS_LEFT && t->cached_end - now > t->life / 10) {
		t->end = t->cached_end;
		t->expires_in = (t->end - now) / 1000;
		return;
	}
	t->end = t->cached_end = iat + t->life - s->clock;
	s->minted++;
	t->minted++;
	if (hour < HOURS)
		w->minted[hour]++;
	if (t->saying != SAYS_NOTHING && t->saying != SAYS_EXP)
		t->expires_in = (t->saying == SAYS_TOO_MUCH ? 3 * t->life : t->life) / 1000;
	if (t->saying == SAYS_BOTH || t->saying == SAYS_EXP || t->saying == SAYS_TOO_MUCH)
		t->exp = iat + t->life;
}

static kt_ms answer(struct token *t, enum kt_code code, const char *problem, int64_t retry_after, kt_ms took)
{
	t->code = code;
	(void)snprintf(t->problem, sizeof(t->problem), "%s", problem);
	t->retry_after = retry_after;
	return took;
}

/* How long the answer takes; it is in the token. */
static kt_ms serve(struct world *w, struct token *t)
{
	struct server *s = t->server;
	const struct span *down = within(s->down, SPANS, w->now);
	unsigned luck = thousandth(w);
	kt_ms rtt = s->rtt + s->rtt * thousandth(w) / 1000, there = w->now + rtt / 2;

	s->asked++;
	t->asked++;
	t->has_date = !s->undated;
	t->date = (there + s->clock) / 1000 * 1000;
	if (down && down->way == DOWN_REFUSED)
		return answer(t, KT_E_NET, "", 0, 2);
	if (down && down->way == DOWN_SILENT)
		return answer(t, KT_E_TIMEOUT, "", 0, PATIENCE);
	if (down)
		return answer(t, KT_E_LATER, "", down->way == DOWN_503_LATER ? 120 : 0, rtt);
	if (w->now >= s->locked.from && w->now < s->locked.to) {
		s->told_wrong++;
		return answer(t, KT_E_AUTH, "invalid_client", 0, rtt);
	}
	if (s->rate && there / KT_MINUTE != s->minute) {
		s->minute = there / KT_MINUTE;
		s->in_minute = 0;
	}
	if (s->rate && s->in_minute++ >= s->rate) {
		s->limited++;
		t->limited++;
		/* X-RateLimit-Reset is an epoch by its own clock, and counts from its own Date. */
		return answer(t, KT_E_LATER, luck % 2 ? "slow_down" : "",
		              (((s->minute + 1) * KT_MINUTE + s->clock + 999) / 1000) - t->date / 1000, rtt);
	}
	if (luck < s->flaky / 4)
		return answer(t, KT_E_PROTO, "", 0, rtt);
	if (luck < s->flaky / 4 * 2)
		return answer(t, KT_E_LATER, luck % 2 ? "temporarily_unavailable" : "server_error", 0, rtt);
	mint(w, t, there);
	if (luck < s->flaky / 4 * 3) {
		w->lost++;
		return answer(t, KT_E_NET, "", 0, rtt);
	}
	return answer(t, KT_OK, "", 0, luck < s->flaky ? 3 * KT_SECOND : rtt);
}

/* ---- our side ---------------------------------------------------------------------------------------------------------- */

static void send(struct world *w, struct token *t)
{
	struct server *s = t->server;

	assert_true(clock_of(w) >= t->not_before || t->offset_then != w->offset);
	s->open++;
	s->most_open = s->open > s->most_open ? s->open : s->most_open;
	assert_true(s->open <= IN_FLIGHT);
	t->asking = true;
	t->sent = clock_of(w);
	t->true_sent = w->now;
	set_at(w, t, w->now + serve(w, t));
}

static void ask(struct world *w, struct token *t)
{
	struct server *s = t->server;
	unsigned self = 1 + (unsigned)(t - w->tokens);

	if (s->open < IN_FLIGHT) {
		send(w, t);
		return;
	}
	t->queued = true;
	t->next = 0;
	if (s->last)
		w->tokens[s->last - 1].next = self;
	else
		s->first = self;
	s->last = self;
	set_at(w, t, t->placed ? t->state.not_after - w->offset : KT_TIME_MAX); /* its end is not slept through */
}

static void next_turn(struct world *w, struct server *s)
{
	struct token *t = s->first ? &w->tokens[s->first - 1] : NULL;

	s->open--;
	if (!t)
		return;
	s->first = t->next;
	s->last = s->first ? s->last : 0;
	t->queued = false;
	send(w, t);
}

/* Since the renewal point nothing could be done in that time, by no fault of the plan. */
static void excuse(struct token *t, kt_ms from, kt_ms to)
{
	if (t->told_count == TOLD) /* two that meet or are next to each other are told apart no longer */
		memmove(t->told, t->told + 1, --t->told_count * sizeof(t->told[0]));
	t->told[t->told_count++] = (struct span){.from = from, .to = to};
}

static kt_ms past(const struct span *spans, size_t count, kt_ms at, kt_ms slack)
{
	for (size_t i = 0; i < count; i++) {
		if (at >= spans[i].from && at < spans[i].to + slack)
			at = spans[i].to + slack;
	}
	return at;
}

/* The end of what excuses us at `at`, `at` where nothing does. */
static kt_ms excused_until(const struct world *w, const struct token *t, kt_ms at)
{
	const struct server *s = t->server;
	kt_ms before;

	do {
		before = at;
		for (size_t i = 0; i < SPANS; i++) /* who was asked while it was silent is waited for */
			at = past(&s->down[i], 1, at, s->down[i].way == DOWN_SILENT ? PATIENCE : 0);
		at = past(&s->locked, 1, at, 0);
		at = past(w->asleep, SPANS, at, 0);
		at = past(t->told, t->told_count, at, 0);
	} while (at != before);
	return at;
}

static kt_ms next_excuse(const struct world *w, const struct token *t, kt_ms at)
{
	kt_ms next = KT_TIME_MAX;

	for (size_t i = 0; i < SPANS; i++) {
		if (t->server->down[i].from > at && t->server->down[i].from < next)
			next = t->server->down[i].from;
		if (w->asleep[i].from > at && w->asleep[i].from < next)
			next = w->asleep[i].from;
	}
	for (unsigned i = 0; i < t->told_count; i++) {
		if (t->told[i].from > at && t->told[i].from < next)
			next = t->told[i].from;
	}
	return t->server->locked.from > at && t->server->locked.from < next ? t->server->locked.from : next;
}

static bool meets(const struct span *spans, size_t count, kt_ms from, kt_ms to)
{
	for (size_t i = 0; i < count; i++) {
		if (spans[i].from < to && spans[i].to + PATIENCE > from)
			return true;
	}
	return false;
}

/*
 * It ended at `to`, and was to be renewed from `from` on. A try is a zero-length excuse, so what is left are times in which
 * the server was there and nobody asked it: none may be longer than an eighth of the life that was left, or than the
 * shortest of delays.
 */
static void judge(struct world *w, struct token *t, kt_ms from, kt_ms to)
{
	kt_ms late, last = excused_until(w, t, to);
	bool luck = !meets(t->server->down, SPANS, from, to) && !meets(&t->server->locked, 1, from, to) &&
	            !meets(w->asleep, SPANS, from, to) && t->limited == t->limited_then;

	for (kt_ms at = from; at < to;) {
		kt_ms open = excused_until(w, t, at), until = next_excuse(w, t, open), most = (to - open) / 8;

		until = until < to ? until : to;
		most = (most > 6250 ? most : 6250) + 2 * KT_SECOND;
		if (until - open > most) {
			print_error("a life of %lld s (server %u, saying %d) ended at %lld, though the server was there for %lld of the last %lld s and not asked\n",
			            (long long)t->life / 1000, (unsigned)(t->server - w->servers), t->saying, (long long)(to - START) / 1000, (long long)(until - open) / 1000, (long long)(to - from) / 1000);
			fail();
		}
		at = until > open ? until : open + 1;
		if (at == until && excused_until(w, t, at) == at)
			at++;
	}
	for (kt_ms next; last < w->now && (next = next_excuse(w, t, last)) < t->true_sent; )
		last = excused_until(w, t, next) > last ? excused_until(w, t, next) : last + 1;
	late = w->now - last;
	if (late > 6 * KT_MINUTE)
		print_error("a life of %lld s: minted again only %lld s after that was possible, %u failures, %d %s\n",
		            (long long)t->life / 1000, (long long)late / 1000, t->state.failures, t->state.last_code, t->state.last_problem);
	assert_true(late <= 6 * KT_MINUTE);
	w->chance += luck;
	t->gaps++;
	t->gap_longest = w->now - to > t->gap_longest ? w->now - to : t->gap_longest;
}

/* Whoever read it in [true_end, now] read an expired one, unless nobody was there to take it away. */
static void note_expired(struct world *w, struct token *t)
{
	kt_ms from = past(w->asleep, SPANS, t->true_end, 0);

	if (t->placed && w->now - from > t->expired_longest)
		t->expired_longest = w->now - from;
}

static void succeed(struct world *w, struct token *t)
{
	struct kt_plan_token_answer said = {.now = clock_of(w),
	                                    .sent = t->sent,
	                                    .expires_in_s = t->expires_in,
	                                    .exp = t->exp,
	                                    .cap = t->cap,
	                                    .skew = t->has_date ? (t->date - clock_of(w)) / KT_SECOND * KT_SECOND : 0};
	kt_ms now = clock_of(w), ends;
	struct kt_plan plan;
	char name[32];

	note_expired(w, t);
	ends = t->true_end < t->state.not_after - w->offset ? t->true_end : t->state.not_after - w->offset;
	if (t->revision && w->now > ends)
		judge(w, t, t->true_renew, ends);
	(void)snprintf(name, sizeof(name), "Token/default/t%u", (unsigned)(t - w->tokens));
	t->state = (struct kt_plan_state){.has_material = true,
	                                  .not_before = now,
	                                  .not_after = kt_plan_token_life(&said, NULL),
	                                  .issued_at = now,
	                                  .seed = kt_plan_seed(name, ++t->revision)};
	t->placed = true;
	t->true_end = t->end;
	kt_plan_decide_quick(&t->policy, &t->state, now, &plan);
	t->true_renew = plan.act_at - w->offset;
	t->told_count = 0;
	t->limited_then = t->limited;
	t->not_before = 0;
	set_at(w, t, plan.due_at - w->offset > w->now ? plan.due_at - w->offset : w->now);
}

/* As kt_flight_fail and plan_state do. */
static void fail_once(struct world *w, struct token *t)
{
	const struct kt_plan_retry *row = kt_plan_retry_find(t->code, t->problem);
	struct kt_plan_state *state = &t->state;
	kt_ms now = clock_of(w), left = !state->has_material ? KT_TIME_MAX : state->not_after > now ? state->not_after - now : 0;
	kt_ms delay;

	state->failures++;
	state->last_attempt = now;
	state->last_code = t->code;
	(void)snprintf(state->last_problem, sizeof(state->last_problem), "%s", t->problem);
	state->retry_after_s = t->retry_after;
	delay = kt_plan_retry_delay(row, state->failures, t->retry_after, left, (uint64_t)(t - w->tokens) ^ (uint64_t)now);
	assert_true(delay >= row->floor || t->retry_after > 1);
	assert_true(!row->needs_change || delay >= KT_HOUR);
	assert_true(delay >= t->retry_after * KT_SECOND || t->retry_after < 2);
	state->announced = now + delay;
	t->not_before = now + (t->retry_after > 1 ? t->retry_after * KT_SECOND : row->floor);
	t->offset_then = w->offset;
	excuse(t, t->true_sent, t->retry_after > 1 ? w->now + delay : w->now);
	set_at(w, t, w->now);
}

static void look(struct world *w, struct token *t)
{
	struct kt_plan plan;
	kt_ms now = clock_of(w);

	if (t->asking) {
		struct server *s = t->server;

		t->asking = false;
		if (t->code == KT_OK)
			succeed(w, t);
		else
			fail_once(w, t);
		next_turn(w, s);
		return;
	}
	t->state.cause_changed = t->state.failures > 0 && t->state.announced <= now;
	kt_plan_decide_quick(&t->policy, &t->state, now, &plan);
	if (plan.remove && t->placed) {
		note_expired(w, t);
		t->placed = false;
		t->state.disk = KT_PLAN_DISK_MISSING;
		kt_plan_decide_quick(&t->policy, &t->state, now, &plan);
	}
	if (t->queued) {
		set_at(w, t, KT_TIME_MAX);
	} else if (plan.action != KT_PLAN_WAIT && plan.action != KT_PLAN_NONE) {
		ask(w, t);
	} else {
		set_at(w, t, (plan.due_at > now ? plan.due_at : now + KT_SECOND) - w->offset);
	}
}

/* Runs to `until`, in true time. */
static void run(struct world *w, kt_ms until)
{
	while (w->count && w->tokens[w->heap[0]].at < until) {
		struct token *t = &w->tokens[w->heap[0]];

		w->now = t->at > w->now ? t->at : w->now;
		look(w, t);
	}
	w->now = until > w->now ? until : w->now;
}

/* Everything is looked at: the agent starts, a person asks, or the clock was set. */
static void look_at_all(struct world *w, const struct server *of, bool forget)
{
	for (unsigned i = 0; i < w->count; i++) {
		struct token *t = &w->tokens[i];

		if (t->asking || t->queued || w->now < t->begin || (of && t->server != of))
			continue;
		if (forget && t->state.failures) {
			t->state.announced = clock_of(w); /* what a changed secret does */
			t->not_before = 0;
		}
		set_at(w, t, w->now);
	}
}

/* The agent dies: what is under way is forgotten, and what was minted is lost. */
static void die(struct world *w, kt_ms until)
{
	for (unsigned i = 0; i < w->count; i++) {
		struct token *t = &w->tokens[i];

		w->lost += t->asking && t->code == KT_OK;
		if (t->asking)
			excuse(t, t->true_sent, w->now);
		t->asking = t->queued = false;
	}
	for (unsigned i = 0; i < SERVERS; i++)
		w->servers[i].open = w->servers[i].first = w->servers[i].last = 0;
	w->now = until;
	look_at_all(w, NULL, false);
}

static struct world *new_world(void)
{
	free(world);
	world = calloc(1, sizeof(*world));
	assert_non_null(world);
	world->now = START;
	world->random = 4711;
	for (unsigned i = 0; i < SERVERS; i++)
		world->servers[i].rtt = 40 + 30 * i;
	return world;
}

static struct token *add(struct world *w, unsigned server, kt_ms life, enum saying saying)
{
	struct token *t = &w->tokens[w->count];

	assert_true(w->count < TOKENS);
	t->policy.kind = KT_PLAN_TOKEN;
	t->server = &w->servers[server];
	t->life = life;
	t->saying = saying;
	t->begin = w->now;
	t->state.seed = w->count;
	t->at = w->now;
	put(w, w->count, w->count);
	settle(w, w->count++);
	return t;
}

/* ---- the least that must be minted ------------------------------------------------------------------------------------- */

/* From one token to the next where it is renewed at its renewal point, without jitter, by what was said of its life. */
static kt_ms cycle(const struct token *t)
{
	kt_ms life = t->saying == SAYS_NOTHING ? 5 * KT_MINUTE : t->life;

	life = t->cap && t->cap < life ? t->cap : life;
	if (t->saying == SAYS_WHAT_IS_LEFT)
		return life - life / 10; /* it gives no other one before */
	if (t->policy.renew_before)
		return life - t->policy.renew_before;
	return life < 10 * KT_MINUTE ? life / 2 : life / 100 * 77;
}

/* As if one knew when the server is there: at the renewal point, or at the first moment after it at which it can be had. */
static unsigned least(struct world *w, const struct token *t)
{
	unsigned count = 0;

	for (kt_ms at = t->begin;; at += cycle(t)) {
		kt_ms before;

		do {
			before = at;
			at = past(t->server->down, SPANS, at, 0);
			at = past(&t->server->locked, 1, at, 0);
			at = past(w->asleep, SPANS, at, 0);
		} while (at != before);
		if (at >= START + KT_DAY)
			return count;
		w->least[(at - START) / KT_HOUR] += 1;
		count++;
	}
}

/* ---- a day --------------------------------------------------------------------------------------------------------------- */

static const kt_ms lives[] = {30 * KT_SECOND, KT_MINUTE,      2 * KT_MINUTE, 5 * KT_MINUTE, 10 * KT_MINUTE, 15 * KT_MINUTE,
                              30 * KT_MINUTE, KT_HOUR,        2 * KT_HOUR,   8 * KT_HOUR,   12 * KT_HOUR,   24 * KT_HOUR};
#define LIVES (sizeof(lives) / sizeof(lives[0]))

static void thousand(struct world *w)
{
	for (unsigned i = 0; i < TOKENS; i++) {
		kt_ms life = lives[i % 3 ? i * 7 % LIVES : LIVES - 1 - i / 3 % 8];
		enum saying saying = (enum saying)(i / 5 % SAYINGS);
		struct token *t;

		/* who says nothing lives ten minutes at least: five is what is taken then */
		if (saying == SAYS_NOTHING && life < 10 * KT_MINUTE)
			life = 10 * KT_MINUTE;
		/* in the last tenth of its life there must be room for more than one request */
		if (saying == SAYS_WHAT_IS_LEFT && life < 5 * KT_MINUTE)
			saying = SAYS_BOTH;
		t = add(w, (i + i / 96) % SERVERS, life, saying);
		if (i % 11 == 3 && life >= 2 * KT_HOUR)
			t->cap = KT_HOUR;
		if (i % 13 == 5 && life >= 30 * KT_MINUTE && saying != SAYS_WHAT_IS_LEFT && saying != SAYS_NOTHING && !t->cap)
			t->policy.renew_before = life / 10;
		if (i >= TOKENS - 50) { /* new in the manifests while its server is down */
			t->server = &w->servers[4];
			t->begin = START + 9 * KT_HOUR;
			set_at(w, t, t->begin);
		}
	}
}

static void servers(struct world *w)
{
	struct server *s = w->servers;

	s[1].clock = 90 * KT_SECOND;
	s[2].clock = -90 * KT_SECOND;
	s[5].clock = 1500;
	s[6].clock = -700;
	s[1].flaky = s[3].flaky = s[7].flaky = 20;
	s[0].undated = true;
	s[3].rate = 100;
	s[6].rate = 60;
	s[1].down[0] = (struct span){START + 2 * KT_HOUR, START + 2 * KT_HOUR + KT_MINUTE, DOWN_REFUSED};
	s[1].down[1] = (struct span){START + 5 * KT_HOUR, START + 5 * KT_HOUR + 20 * KT_MINUTE, DOWN_503_LATER};
	s[2].down[0] = (struct span){START + 3 * KT_HOUR, START + 3 * KT_HOUR + 10 * KT_MINUTE, DOWN_SILENT};
	s[2].down[1] = (struct span){START + 15 * KT_HOUR, START + 17 * KT_HOUR, DOWN_SILENT};
	s[4].down[0] = (struct span){START + 8 * KT_HOUR, START + 14 * KT_HOUR, DOWN_EMPTY_503};
	s[5].down[0] = (struct span){START + 4 * KT_HOUR, START + 10 * KT_HOUR, DOWN_REFUSED};
	for (unsigned i = 0; i < SPANS; i++) /* up and down all the time */
		s[7].down[i] = (struct span){START + 18 * KT_HOUR + i * 6 * KT_MINUTE, START + 18 * KT_HOUR + (i * 6 + 3) * KT_MINUTE, i % 3};
	s[6].locked = (struct span){START + 11 * KT_HOUR, START + 13 * KT_HOUR + 30 * KT_MINUTE, DOWN_REFUSED};
}

static void day(struct world *w)
{
	kt_ms at = START + 6 * KT_HOUR;

	w->asleep[0] = (struct span){at, at + 3 * KT_MINUTE, DOWN_REFUSED};
	w->asleep[1] = (struct span){START + 20 * KT_HOUR, START + 20 * KT_HOUR + 45 * KT_MINUTE, DOWN_REFUSED};
	run(w, at);
	die(w, w->asleep[0].to);
	run(w, w->servers[6].locked.to);
	look_at_all(w, &w->servers[6], true);
	run(w, START + 19 * KT_HOUR);
	for (unsigned i = 0; i < 10; i++) { /* it dies again and again */
		run(w, w->now + 700);
		die(w, w->now + 300);
	}
	run(w, w->asleep[1].from);
	die(w, w->asleep[1].to);
	run(w, START + KT_DAY);
}

static void test_day(void **state)
{
	struct world *w = new_world();
	unsigned minted = 0, asked = 0, gaps = 0;
	double total = 0;

	(void)state;
	servers(w);
	thousand(w);
	day(w);
	for (unsigned i = 0; i < w->count; i++) {
		struct token *t = &w->tokens[i];
		unsigned must = least(w, t);

		if (t->minted > must + must / 10 + 14)
			print_error("life %lld s, server %u, saying %d: %u minted, %u must be\n", (long long)t->life / 1000,
			            (unsigned)(t->server - w->servers), t->saying, t->minted, must);
		assert_true(t->minted <= must + must / 10 + 14);
		assert_true(t->revision > 0);
		minted += t->minted;
		asked += t->asked;
		gaps += t->gaps;
		total += must;
		/* Removed at its end: what is left is the time that a request takes, and what Date rounds away. */
		if (t->expired_longest > PATIENCE + 3 * KT_SECOND)
			print_error("life %lld s, server %u, saying %d: expired for %lld ms\n", (long long)t->life / 1000,
			            (unsigned)(t->server - w->servers), t->saying, (long long)t->expired_longest);
		assert_true(t->expired_longest <= PATIENCE + 3 * KT_SECOND);
	}
	print_message("%u minted (%u lost), %.0f must be; %u asked; %u ended for want of a server, %u by chance\n", minted, w->lost, total, asked,
	              gaps, w->chance);
	for (unsigned i = 0; i < HOURS; i++) {
		print_message("hour %2u: %6u minted, %6.0f must be: %+.1f %%\n", i, w->minted[i], w->least[i], 100 * (w->minted[i] / w->least[i] - 1));
		assert_true(w->minted[i] <= 1.1 * w->least[i]);
	}
	for (unsigned i = 0; i < SERVERS; i++)
		print_message("server %u: %6u asked, %6u minted, %5u refused for a limit, %u for a secret\n", i, w->servers[i].asked,
		              w->servers[i].minted, w->servers[i].limited, w->servers[i].told_wrong);
	assert_true(minted <= 1.1 * total && minted >= 0.95 * total);
	assert_true(gaps > 0);
	assert_true(w->chance <= minted / 50000);
}

/* ---- our clock is set ---------------------------------------------------------------------------------------------------- */

static void jump(struct world *w, kt_ms by)
{
	w->offset += by;
	look_at_all(w, NULL, false);
	run(w, w->now + 2 * KT_HOUR + 7 * KT_SECOND);
}

/*
 * A minute and a half back or ahead, twice, under tokens of all lives. Behind: what was made a moment ago would be kept for
 * longer than it lives. (One that is older than the jump and lives about twice as long as it, 163 to 200 s, can't be told
 * from a good one; none of these does.)
 */
static void test_clock(void **state)
{
	struct world *w = new_world();

	(void)state;
	for (unsigned i = 0; i < 240; i++)
		(void)add(w, i % SERVERS, lives[i % LIVES], (enum saying)(i / LIVES % SAYS_NOTHING));
	run(w, START + 3 * KT_HOUR);
	jump(w, -90 * KT_SECOND);
	jump(w, 90 * KT_SECOND);
	jump(w, 90 * KT_SECOND);
	jump(w, -90 * KT_SECOND);
	for (unsigned i = 0; i < w->count; i++) {
		struct token *t = &w->tokens[i];

		if (t->expired_longest > KT_SECOND)
			print_error("life %lld s, saying %d: expired for %lld ms\n", (long long)t->life / 1000, t->saying,
			            (long long)t->expired_longest);
		assert_true(t->expired_longest <= KT_SECOND);
		assert_true(t->minted <= least(w, t) + 6);
	}
}

/* ---- consumers that see their token refused ------------------------------------------------------------------------------ */

/* As kt_token_refused does: once, and then not before the damping is over. */
static void complain(struct world *w, struct token *t)
{
	kt_ms now = clock_of(w);

	if (!t->state.has_material || t->state.refused || t->asking || t->queued || now < t->damped_until)
		return;
	t->state.refused = true;
	t->damped_until = kt_plan_refusal_until(t->state.not_before, t->state.issued_at, t->state.not_after, now);
	set_at(w, t, w->now);
}

/* For ten minutes whatever is sent is refused, five times a second. */
static void test_refused(void **state)
{
	struct world *w = new_world();
	kt_ms from = START + KT_HOUR, to = from + 10 * KT_MINUTE;
	unsigned before[120];

	(void)state;
	for (unsigned i = 0; i < 120; i++)
		(void)add(w, i % SERVERS, lives[i % LIVES], SAYS_BOTH);
	run(w, from);
	for (unsigned i = 0; i < w->count; i++)
		before[i] = w->tokens[i].minted;
	for (; w->now < to; run(w, w->now + 200)) {
		for (unsigned i = 0; i < w->count; i++)
			complain(w, &w->tokens[i]);
	}
	for (unsigned i = 0; i < w->count; i++) {
		struct token *t = &w->tokens[i];
		kt_ms pause = t->life / 10 > KT_PLAN_REFUSAL_PAUSE ? t->life / 10 : KT_PLAN_REFUSAL_PAUSE;
		unsigned more = t->minted - before[i];

		assert_true(more >= 1);
		assert_true(more <= (to - from) / pause + (to - from) / cycle(t) + 3);
	}
}

/* ---- the edges of lives --------------------------------------------------------------------------------------------------- */

static void test_edges(void **state)
{
	static const struct kt_plan_policy policy = {.kind = KT_PLAN_TOKEN};
	struct kt_plan_state s = {.has_material = true, .not_before = START, .issued_at = START};
	struct kt_plan plan;

	(void)state;
	for (uint64_t seed = 0; seed < 1000; seed++) {
		for (kt_ms life = 0; life < 20 * KT_SECOND; life += 250) {
			kt_ms at = kt_plan_renewal_point(&policy, START, START + life, seed) - START;

			assert_true(at <= life && (at >= KT_SECOND || at == life));
			assert_true(at >= 5 * KT_SECOND || life < 7 * KT_SECOND);
		}
		/* ten minutes, of which exp or the way took something, are not a short life */
		assert_true(kt_plan_renewal_point(&policy, START, START + 10 * KT_MINUTE - 3 * KT_SECOND, seed) - START >= 6 * KT_MINUTE);
		assert_true(kt_plan_renewal_point(&policy, START, START + 9 * KT_MINUTE, seed) - START <= 5 * KT_MINUTE);
	}
	/* one that has ended when it comes: no stream of them */
	s.not_after = START;
	kt_plan_decide_quick(&policy, &s, START, &plan);
	assert_int_equal(plan.action, KT_PLAN_WAIT);
	assert_int_equal(plan.act_at, START + KT_SECOND);
	kt_plan_decide_quick(&policy, &s, START + KT_SECOND, &plan);
	assert_int_equal(plan.action, KT_PLAN_RENEW);
	/* the clock was set back: by how much matters as much as the life is short */
	s.not_after = START + KT_MINUTE;
	kt_plan_decide_quick(&policy, &s, START - 5 * KT_SECOND, &plan);
	assert_int_equal(plan.action, KT_PLAN_WAIT);
	kt_plan_decide_quick(&policy, &s, START - 7 * KT_SECOND, &plan);
	assert_int_equal(plan.reason, KT_WHY_CLOCK);
	assert_int_equal(plan.action, KT_PLAN_REISSUE);
	s.not_after = START + 12 * KT_HOUR;
	kt_plan_decide_quick(&policy, &s, START - 4 * KT_MINUTE, &plan);
	assert_int_equal(plan.action, KT_PLAN_WAIT);
	kt_plan_decide_quick(&policy, &s, START - 6 * KT_MINUTE, &plan);
	assert_int_equal(plan.reason, KT_WHY_CLOCK);
	/* bounds */
	assert_true(kt_plan_refusal_until(INT64_MIN, INT64_MIN, INT64_MAX, INT64_MAX) <= KT_TIME_MAX);
	assert_int_equal(kt_plan_refusal_until(START, START, START + 30 * KT_SECOND, START + 7), START + 7 + 10 * KT_SECOND);
	assert_int_equal(kt_plan_refusal_until(START, START, START + KT_HOUR, START), START + 6 * KT_MINUTE);
	assert_int_equal(kt_plan_refusal_until(START, START, START - KT_HOUR, START), START + 10 * KT_SECOND);
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
	        cmocka_unit_test(test_edges),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_clock),
	        cmocka_unit_test(test_day),
	};

	return cmocka_run_group_tests_name("token schedule", tests, NULL, end);
}
