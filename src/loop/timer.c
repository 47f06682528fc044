/* Timers on monotonic time (a heap behind one timerfd) and on wall time (a list behind another). */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "kt/mem.h"
#include "loop/loop_internal.h"

/* How long to sleep towards a wall time before looking again; a clock that is being faked is looked at sooner. */
#define RECHECK      (60 * KT_SECOND)
#define RECHECK_FAKE (1 * KT_SECOND)
/* A change of wall minus monotonic time above this is a clock that was set, not slewed. */
#define JUMP (1 * KT_SECOND)

#define NOT_QUEUED SIZE_MAX

struct kt_timer {
	struct kt_loop *loop;
	void (*fn)(void *arg);
	void *arg;
	kt_ms due;
	uint64_t order; /* of starting: equal times fire in this order */
	size_t at;      /* index in the heap */
};

struct kt_wall_timer {
	struct kt_loop *loop;
	struct kt_wall_timer *next;
	void (*fn)(bool clock_changed, void *arg);
	void *arg;
	kt_ms at;
	bool armed;
	bool firing; /* chosen for this round */
};

/* --- the heap ---------------------------------------------------------------------------------------------------- */

static bool before(const struct kt_timer *a, const struct kt_timer *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void put(struct kt_loop *loop, size_t at, struct kt_timer *timer)
{
	loop->heap[at] = timer;
	timer->at = at;
}

static void sift_up(struct kt_loop *loop, size_t at, struct kt_timer *timer)
{
	while (at > 0 && before(timer, loop->heap[(at - 1) / 2])) {
		put(loop, at, loop->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	put(loop, at, timer);
}

static void sift_down(struct kt_loop *loop, size_t at, struct kt_timer *timer)
{
	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= loop->heap_len)
			break;
		if (child + 1 < loop->heap_len && before(loop->heap[child + 1], loop->heap[child]))
			child++;
		if (!before(loop->heap[child], timer))
			break;
		put(loop, at, loop->heap[child]);
		at = child;
	}
	put(loop, at, timer);
}

static void heap_remove(struct kt_timer *timer)
{
	struct kt_loop *loop = timer->loop;
	size_t at = timer->at;
	struct kt_timer *last;

	if (at == NOT_QUEUED)
		return;
	last = loop->heap[--loop->heap_len];
	timer->at = NOT_QUEUED;
	if (last == timer)
		return;
	if (at > 0 && before(last, loop->heap[(at - 1) / 2]))
		sift_up(loop, at, last);
	else
		sift_down(loop, at, last);
}

/* The loop waits for timers exactly while there are some. */
static void update_ref(struct kt_loop *loop)
{
	if (loop->fake || loop->closing)
		return;
	if (loop->heap_len > 0)
		uv_ref((uv_handle_t *)&loop->mono_poll);
	else
		uv_unref((uv_handle_t *)&loop->mono_poll);
}

kt_ms kt_loop_first_due(const struct kt_loop *loop)
{
	return loop->heap_len > 0 ? loop->heap[0]->due : -1;
}

void kt_loop_fire_timers(struct kt_loop *loop)
{
	kt_ms now = kt_clock_mono(&loop->clock);
	uint64_t limit = loop->next_order;

	while (loop->heap_len > 0) {
		struct kt_timer *timer = loop->heap[0];

		/* One that was started in this round waits, or a timer of no delay would shut everybody else out. */
		if (timer->due > now || timer->order >= limit || loop->stopped)
			break;
		heap_remove(timer);
		update_ref(loop);
		timer->fn(timer->arg); /* may destroy any timer */
	}
}

enum kt_code kt_timer_create(struct kt_loop *loop, void (*fn)(void *arg), void *arg, struct kt_timer **ret,
                             struct kt_err *err)
{
	struct kt_timer *timer;

	*ret = NULL;
	if (loop->timer_count == loop->heap_room) {
		size_t room = loop->heap_room > 0 ? loop->heap_room * 2 : 8;
		struct kt_timer **heap = kt_realloc(loop->heap, room * sizeof(*heap));

		if (!heap)
			return kt_err_set(err, KT_E_NOMEM, "timer: out of memory");
		loop->heap = heap;
		loop->heap_room = room;
	}
	timer = kt_calloc(1, sizeof(*timer));
	if (!timer)
		return kt_err_set(err, KT_E_NOMEM, "timer: out of memory");
	*timer = (struct kt_timer){.loop = loop, .fn = fn, .arg = arg, .at = NOT_QUEUED};
	loop->timer_count++;
	*ret = timer;
	return KT_OK;
}

void kt_timer_start(struct kt_timer *timer, kt_ms delay)
{
	struct kt_loop *loop = timer->loop;
	kt_ms now = kt_clock_mono(&loop->clock);

	heap_remove(timer);
	if (delay < 0)
		delay = 0;
	timer->due = delay > KT_TIME_MAX ? now + KT_TIME_MAX : now + delay;
	timer->order = loop->next_order++;
	sift_up(loop, loop->heap_len++, timer);
	update_ref(loop);
}

void kt_timer_stop(struct kt_timer *timer)
{
	if (!timer)
		return;
	heap_remove(timer);
	update_ref(timer->loop);
}

void kt_timer_destroy(struct kt_timer *timer)
{
	if (!timer)
		return;
	kt_timer_stop(timer);
	timer->loop->timer_count--;
	kt_free(timer);
}

/* --- wall time --------------------------------------------------------------------------------------------------- */

bool kt_loop_first_wall(const struct kt_loop *loop, kt_ms *ret)
{
	bool found = false;

	for (const struct kt_wall_timer *timer = loop->walls; timer; timer = timer->next) {
		if (timer->armed && (!found || timer->at < *ret)) {
			*ret = timer->at;
			found = true;
		}
	}
	return found;
}

static void update_wall_ref(struct kt_loop *loop)
{
	kt_ms first;

	loop->wall_dirty = true;
	if (!loop->wall_is_open || loop->closing)
		return;
	if (kt_loop_first_wall(loop, &first))
		uv_ref((uv_handle_t *)&loop->wall_poll);
	else
		uv_unref((uv_handle_t *)&loop->wall_poll);
}

void kt_loop_fire_walls(struct kt_loop *loop, bool clock_set)
{
	kt_ms wall = kt_clock_wall(&loop->clock);
	kt_ms offset = wall - kt_clock_mono(&loop->clock);
	kt_ms moved = offset - loop->wall_offset;
	struct kt_wall_timer *timer;

	if (moved > JUMP || moved < -JUMP)
		clock_set = true;
	loop->wall_offset = offset;
	for (timer = loop->walls; timer; timer = timer->next) {
		timer->firing = timer->armed && (clock_set || timer->at <= wall);
		if (timer->firing)
			timer->armed = false;
	}
	/* A callback may destroy any of them: start over after each. */
	do {
		for (timer = loop->walls; timer && !timer->firing; timer = timer->next)
			;
		if (timer) {
			timer->firing = false;
			timer->fn(clock_set, timer->arg);
		}
	} while (timer);
	update_wall_ref(loop);
}

enum kt_code kt_wall_timer_create(struct kt_loop *loop, void (*fn)(bool clock_changed, void *arg), void *arg,
                                  struct kt_wall_timer **ret, struct kt_err *err)
{
	struct kt_wall_timer *timer;
	enum kt_code code;

	*ret = NULL;
	if (!loop->fake && !loop->wall_is_open) {
		code = kt_loop_walls_open(loop, err);
		if (code != KT_OK)
			return code;
	}
	timer = kt_calloc(1, sizeof(*timer));
	if (!timer)
		return kt_err_set(err, KT_E_NOMEM, "wall timer: out of memory");
	*timer = (struct kt_wall_timer){.loop = loop, .next = loop->walls, .fn = fn, .arg = arg};
	loop->walls = timer;
	*ret = timer;
	return KT_OK;
}

void kt_wall_timer_start(struct kt_wall_timer *timer, kt_ms at_wall)
{
	at_wall = at_wall > KT_TIME_MAX ? KT_TIME_MAX : at_wall;
	timer->firing = false;
	if (timer->armed && timer->at == at_wall)
		return;
	timer->at = at_wall;
	timer->armed = true;
	update_wall_ref(timer->loop);
}

void kt_wall_timer_destroy(struct kt_wall_timer *timer)
{
	struct kt_wall_timer **at;

	if (!timer)
		return;
	for (at = &timer->loop->walls; *at != timer; at = &(*at)->next)
		;
	*at = timer->next;
	update_wall_ref(timer->loop);
	kt_free(timer);
}

/* --- timerfds of the real loop ----------------------------------------------------------------------------------- */

static struct timespec to_timespec(kt_ms span)
{
	return (struct timespec){.tv_sec = span / KT_SECOND, .tv_nsec = span % KT_SECOND * 1000000};
}

/* While it is there the loop does not block. */
static void on_idle(uv_idle_t *handle)
{
	(void)handle;
}

/*
 * Relative, never absolute: whoever fakes our clock (LD_PRELOAD) does not fake the kernel's, and a span is the same
 * in both. CLOCK_BOOTTIME goes on while the machine is suspended.
 */
static void set_mono(struct kt_loop *loop)
{
	kt_ms due = kt_loop_first_due(loop);
	struct itimerspec spec = {0};
	kt_ms left;

	/* One that is set for an earlier time wakes us, finds nothing, and is set again: cheaper than to set it each time. */
	if (due < 0 || (loop->mono_armed >= 0 && loop->mono_armed <= due))
		return;
	left = due - kt_clock_mono(&loop->clock);
	if (left <= 0) { /* nothing to wait for: look at the files and go on */
		uv_idle_start(&loop->idle, on_idle);
		return;
	}
	spec.it_value = to_timespec(left);
	if (timerfd_settime(loop->mono_fd, 0, &spec, NULL) == 0)
		loop->mono_armed = due;
}

/* Absolute on the kernel's own clock, so that TFD_TIMER_CANCEL_ON_SET tells when it is set or the machine resumes. */
static void set_wall(struct kt_loop *loop)
{
	struct itimerspec spec = {0};
	struct timespec raw = {0};
	kt_ms at = 0, wall, kernel, left, cap;

	if (!loop->wall_is_open || !loop->wall_dirty)
		return;
	loop->wall_dirty = false;
	if (kt_loop_first_wall(loop, &at)) {
		/* The system call itself: a faked clock_gettime would not tell the kernel's time. */
		syscall(SYS_clock_gettime, CLOCK_REALTIME, &raw);
		kernel = (kt_ms)raw.tv_sec * KT_SECOND + raw.tv_nsec / 1000000;
		wall = kt_clock_wall(&loop->clock);
		cap = wall - kernel > JUMP || kernel - wall > JUMP ? RECHECK_FAKE : RECHECK;
		left = at - wall;
		if (left > cap)
			left = cap;
		spec.it_value = to_timespec(left > 0 ? kernel + left : 0);
		if (left <= 0)
			spec.it_value.tv_nsec = 1; /* long past: fires at once */
	}
	/*
	 * The system call itself again: faketime would shift the time once more, to one long past, and we would spin.
	 * ECANCELED: the clock was set just now; the timer is armed all the same and the read will tell.
	 */
	syscall(SYS_timerfd_settime, loop->wall_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &spec, NULL);
}

static void on_prepare(uv_prepare_t *handle)
{
	struct kt_loop *loop = handle->loop->data;

	kt_loop_feel_hunger(loop);
	set_mono(loop);
	set_wall(loop);
}

static void on_check(uv_check_t *handle)
{
	struct kt_loop *loop = handle->loop->data;

	if (uv_is_active((uv_handle_t *)&loop->idle)) {
		uv_idle_stop(&loop->idle);
		kt_loop_fire_timers(loop);
	}
}

static void on_mono(uv_poll_t *poll, int status, int events)
{
	struct kt_loop *loop = poll->loop->data;
	uint64_t expired;

	(void)status;
	(void)events;
	(void)!read(loop->mono_fd, &expired, sizeof(expired));
	loop->mono_armed = -1;
	kt_loop_fire_timers(loop);
}

static void on_wall(uv_poll_t *poll, int status, int events)
{
	struct kt_loop *loop = poll->loop->data;
	uint64_t expired;
	ssize_t n = read(loop->wall_fd, &expired, sizeof(expired));

	(void)status;
	(void)events;
	kt_loop_fire_walls(loop, n < 0 && errno == ECANCELED);
}

static enum kt_code open_one(struct kt_loop *loop, clockid_t id, int *fd, uv_poll_t *poll, uv_poll_cb fn,
                             struct kt_err *err)
{
	int status;

	if (*fd < 0)
		*fd = timerfd_create(id, TFD_CLOEXEC | TFD_NONBLOCK);
	if (*fd < 0)
		return kt_err_sys(err, "timer");
	status = uv_poll_init(&loop->uv, poll, *fd);
	if (status < 0)
		goto fail;
	poll->data = NULL;
	status = uv_poll_start(poll, UV_READABLE, fn);
	uv_unref((uv_handle_t *)poll);
	if (status < 0)
		goto fail;
	return KT_OK;
fail:
	return kt_loop_uv_err(err, status, "timer"); /* the fd goes with the loop, as libuv may still know it */
}

enum kt_code kt_loop_timers_open(struct kt_loop *loop, struct kt_err *err)
{
	loop->uv.data = loop;
	uv_prepare_init(&loop->uv, &loop->prepare);
	loop->prepare.data = NULL;
	uv_prepare_start(&loop->prepare, on_prepare);
	uv_unref((uv_handle_t *)&loop->prepare);
	uv_check_init(&loop->uv, &loop->check);
	loop->check.data = NULL;
	uv_check_start(&loop->check, on_check);
	uv_unref((uv_handle_t *)&loop->check);
	uv_idle_init(&loop->uv, &loop->idle);
	loop->idle.data = NULL;
	uv_unref((uv_handle_t *)&loop->idle);
	return open_one(loop, CLOCK_BOOTTIME, &loop->mono_fd, &loop->mono_poll, on_mono, err);
}

enum kt_code kt_loop_walls_open(struct kt_loop *loop, struct kt_err *err)
{
	enum kt_code code = open_one(loop, CLOCK_REALTIME, &loop->wall_fd, &loop->wall_poll, on_wall, err);

	loop->wall_is_open = code == KT_OK;
	return code;
}
