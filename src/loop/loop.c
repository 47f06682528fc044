/* Making, running and ending a loop; signals and background work; virtual time for tests. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "loop/loop_internal.h"

struct work {
	uv_work_t req;
	struct kt_loop *loop;
	struct work *next;
	void (*fn)(void *arg);
	void (*done)(void *arg);
	void *arg;
	struct kt_timer *timer; /* delivers done when there is no pool */
};

struct signal_watch {
	uv_signal_t handle;
	struct handle_owner owner;
	void (*fn)(int signum, void *arg);
	void *arg;
};

enum kt_code kt_loop_uv_err(struct kt_err *err, int status, const char *what)
{
	char reason[96];

	uv_strerror_r(status, reason, sizeof(reason));
	kt_err_set(err, status == UV_ENOMEM ? KT_E_NOMEM : KT_E_SYS, "%s: %s", what, reason);
	if (err)
		err->sys_errno = -status; /* libuv's codes are negated errno values */
	return status == UV_ENOMEM ? KT_E_NOMEM : KT_E_SYS;
}

static void handle_closed(uv_handle_t *handle)
{
	struct handle_owner *owner = handle->data;

	if (owner && owner->closed)
		owner->closed(owner->object);
}

void kt_loop_close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

static struct kt_loop *loop_alloc(void)
{
	struct kt_loop *loop = kt_calloc(1, sizeof(*loop));

	if (loop) {
		loop->mono_fd = -1;
		loop->wall_fd = -1;
		loop->mono_armed = -1;
	}
	return loop;
}

enum kt_code kt_loop_create(unsigned threads, struct kt_loop **ret, struct kt_err *err)
{
	struct kt_loop *loop;
	char count[16];
	enum kt_code code;
	int status;

	*ret = NULL;
	uv_replace_allocator(kt_malloc, kt_realloc, kt_calloc, kt_free);
	if (threads > 0) {
		/* libuv reads it when the pool starts. */
		snprintf(count, sizeof(count), "%u", threads);
		if (setenv("UV_THREADPOOL_SIZE", count, 1) < 0)
			return kt_err_sys(err, "event loop: setenv");
	}
	loop = loop_alloc();
	if (!loop)
		return kt_err_set(err, KT_E_NOMEM, "event loop: out of memory");
	loop->clock = kt_clock_system;
	loop->threads = threads;
	loop->wall_offset = kt_clock_wall(&loop->clock) - kt_clock_mono(&loop->clock);
	status = uv_loop_init(&loop->uv);
	if (status < 0) {
		kt_free(loop);
		return kt_loop_uv_err(err, status, "event loop");
	}
	code = kt_loop_timers_open(loop, err);
	if (code != KT_OK) {
		kt_loop_destroy(loop);
		return code;
	}
	*ret = loop;
	return KT_OK;
}

enum kt_code kt_loop_create_fake(struct kt_clock_fake *fake, struct kt_loop **ret, struct kt_err *err)
{
	struct kt_loop *loop = loop_alloc();

	*ret = NULL;
	if (!loop)
		return kt_err_set(err, KT_E_NOMEM, "event loop: out of memory");
	loop->fake = fake;
	loop->clock = kt_clock_from_fake(fake);
	loop->wall_offset = fake->wall - fake->mono;
	*ret = loop;
	return KT_OK;
}

static void close_each(uv_handle_t *handle, void *arg)
{
	(void)arg;
	kt_loop_close_handle(handle);
}

void kt_loop_destroy(struct kt_loop *loop)
{
	if (!loop)
		return;
	loop->closing = true;
	kt_timer_destroy(loop->hunger);
	if (!loop->fake) {
		for (struct work *work = loop->works; work; work = work->next)
			if (!work->timer)
				uv_cancel((uv_req_t *)&work->req);
		uv_walk(&loop->uv, close_each, NULL);
		/* Waits for the work that is running; its done() is not called any more. */
		while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0)
			;
		uv_loop_close(&loop->uv);
		kt_cleanup_close(&loop->mono_fd);
		kt_cleanup_close(&loop->wall_fd);
	}
	while (loop->works) {
		struct work *work = loop->works;

		loop->works = work->next;
		kt_timer_destroy(work->timer);
		kt_free(work);
	}
	kt_free(loop->heap);
	kt_free(loop);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

/* One step of virtual time. False: nothing is left to wait for. */
static bool fake_step(struct kt_loop *loop, bool may_jump)
{
	struct kt_clock_fake *fake = loop->fake;
	kt_ms due = kt_loop_first_due(loop);
	kt_ms wall, delta = -1;
	bool set = fake->wall - fake->mono != loop->wall_offset;
	bool has_wall = kt_loop_first_wall(loop, &wall);

	if (due < 0 && !has_wall)
		return false;
	if (set && has_wall)
		delta = 0; /* somebody set the clock: that comes before time goes on */
	if (due >= 0 && delta < 0)
		delta = due > fake->mono ? due - fake->mono : 0;
	if (has_wall) {
		kt_ms left = wall > fake->wall ? wall - fake->wall : 0;

		if (delta < 0 || left < delta)
			delta = left;
	}
	if (delta > 0 && !may_jump)
		return true;
	fake->mono += delta;
	fake->wall += delta;
	kt_loop_fire_timers(loop);
	kt_loop_fire_walls(loop, false);
	return true;
}

void kt_loop_run(struct kt_loop *loop)
{
	if (!loop->fake) {
		uv_run(&loop->uv, UV_RUN_DEFAULT);
		return;
	}
	while (!loop->stopped && fake_step(loop, true))
		;
	loop->stopped = false;
}

void kt_loop_run_once(struct kt_loop *loop, bool block)
{
	if (loop->fake)
		fake_step(loop, block);
	else
		uv_run(&loop->uv, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void kt_loop_stop(struct kt_loop *loop)
{
	if (loop->fake)
		loop->stopped = true;
	else
		uv_stop(&loop->uv);
}

const struct kt_clock *kt_loop_clock(struct kt_loop *loop)
{
	return &loop->clock;
}

void *kt_loop_uv(struct kt_loop *loop)
{
	return loop->fake ? NULL : &loop->uv;
}

/* --- memory that ran out ----------------------------------------------------------------------------------------- */

#define HUNGER_LOOKS 4u                 /* in vain: then it is for good */
#define HUNGER_PAUSE (KT_SECOND / 4)
#define HUNGER_MEAL  ((size_t)4096)     /* who can't have this can do nothing at all */

void kt_loop_feel_hunger(struct kt_loop *loop)
{
	uint64_t failures = kt_mem_failures();

	if (!loop->hunger || loop->hungry > 0 || failures == loop->failures_seen)
		return;
	loop->failures_seen = failures;
	loop->hungry = 1;
	kt_timer_start(loop->hunger, HUNGER_PAUSE);
}

static void on_hunger(void *arg)
{
	struct kt_loop *loop = arg;
	void *meal = kt_malloc(HUNGER_MEAL);

	kt_free(meal);
	if (meal) {
		loop->hungry = 0;
	} else if (loop->hungry++ < HUNGER_LOOKS) {
		kt_timer_start(loop->hunger, HUNGER_PAUSE);
	} else {
		loop->starved(loop->starved_arg);
	}
}

enum kt_code kt_loop_starved(struct kt_loop *loop, void (*fn)(void *arg), void *arg, struct kt_err *err)
{
	loop->starved = fn;
	loop->starved_arg = arg;
	loop->failures_seen = kt_mem_failures();
	return loop->hunger ? KT_OK : kt_timer_create(loop, on_hunger, loop, &loop->hunger, err);
}

/* --- background work --------------------------------------------------------------------------------------------- */

static void work_unlink(struct work *work)
{
	struct work **at = &work->loop->works;

	while (*at != work)
		at = &(*at)->next;
	*at = work->next;
}

static void work_run(uv_work_t *req)
{
	struct work *work = req->data;

	if (work->fn)
		work->fn(work->arg);
}

static void work_finish(struct work *work, bool deliver)
{
	void (*done)(void *arg) = work->done;
	void *arg = work->arg;

	work_unlink(work);
	kt_timer_destroy(work->timer);
	kt_free(work);
	if (deliver && done)
		done(arg);
}

static void work_after(uv_work_t *req, int status)
{
	struct work *work = req->data;

	work_finish(work, status == 0 && !work->loop->closing);
}

static void work_inline_done(void *arg)
{
	work_finish(arg, true);
}

/* No pool: fn now, done through a timer of no delay, so that callers see the same order of events. */
static enum kt_code work_inline(struct work *work, struct kt_err *err)
{
	enum kt_code code = kt_timer_create(work->loop, work_inline_done, work, &work->timer, err);

	if (code != KT_OK)
		return code;
	work_run(&work->req);
	kt_timer_start(work->timer, 0);
	return KT_OK;
}

enum kt_code kt_loop_work(struct kt_loop *loop, void (*fn)(void *arg), void (*done)(void *arg), void *arg,
                          struct kt_err *err)
{
	struct work *work = kt_calloc(1, sizeof(*work));
	enum kt_code code = KT_OK;
	int status;

	if (!work)
		return kt_err_set(err, KT_E_NOMEM, "background work: out of memory");
	*work = (struct work){.loop = loop, .fn = fn, .done = done, .arg = arg};
	work->req.data = work;
	if (loop->fake || loop->threads == 0) {
		/* Linked before fn runs: it may ask for more work. */
		work->next = loop->works;
		loop->works = work;
		code = work_inline(work, err);
		if (code != KT_OK)
			work_finish(work, false);
		return code;
	}
	status = uv_queue_work(&loop->uv, &work->req, work_run, work_after);
	if (status < 0) {
		kt_free(work);
		return kt_loop_uv_err(err, status, "background work");
	}
	work->next = loop->works;
	loop->works = work;
	return KT_OK;
}

enum kt_code kt_loop_start_threads(struct kt_loop *loop, struct kt_err *err)
{
	if (loop->fake || loop->threads == 0)
		return KT_OK;
	/* The first work makes libuv start all threads of the pool and wait until each one runs. */
	return kt_loop_work(loop, NULL, NULL, NULL, err);
}

/* --- signals ----------------------------------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *handle, int signum)
{
	struct handle_owner *owner = handle->data;
	struct signal_watch *watch = owner->object;

	watch->fn(signum, watch->arg);
}

enum kt_code kt_loop_signal(struct kt_loop *loop, int signum, void (*fn)(int signum, void *arg), void *arg,
                            struct kt_err *err)
{
	struct signal_watch *watch;
	int status;

	if (loop->fake)
		return kt_err_set(err, KT_E_UNSUPPORTED, "virtual time has no signals");
	watch = kt_calloc(1, sizeof(*watch));
	if (!watch)
		return kt_err_set(err, KT_E_NOMEM, "signal: out of memory");
	watch->fn = fn;
	watch->arg = arg;
	watch->owner = (struct handle_owner){.closed = kt_free, .object = watch};
	status = uv_signal_init(&loop->uv, &watch->handle);
	if (status < 0) {
		kt_free(watch);
		return kt_loop_uv_err(err, status, "signal");
	}
	watch->handle.data = &watch->owner;
	status = uv_signal_start(&watch->handle, on_signal, signum);
	if (status < 0) {
		kt_loop_close_handle((uv_handle_t *)&watch->handle);
		return kt_loop_uv_err(err, status, "signal");
	}
	return KT_OK;
}
