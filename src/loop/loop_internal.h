/* The loop's insides, shared by its files: one heap of timers and a list of wall timers for both kinds of loop. */
#ifndef KT_LOOP_INTERNAL_H
#define KT_LOOP_INTERNAL_H

#include <uv.h>

#include "kt/loop.h"

struct work;

struct kt_loop {
	struct kt_clock clock;
	struct kt_clock_fake *fake; /* NULL: the real one */
	bool stopped;               /* fake only; the real one has uv_stop */

	/* Timers: a binary heap by (due, order). room >= number of timers that exist, so that starting can't fail. */
	struct kt_timer **heap;
	size_t heap_len;
	size_t heap_room;
	size_t timer_count;
	uint64_t next_order;

	/* Wall timers. wall_offset (wall - mono) tells a clock that was set from time that passed. */
	struct kt_wall_timer *walls;
	kt_ms wall_offset;
	bool wall_dirty; /* the timerfd is to be set again before we block */

	/* Whether memory ran out: see kt_loop_starved. */
	struct kt_timer *hunger;
	void (*starved)(void *arg);
	void *starved_arg;
	uint64_t failures_seen;
	unsigned hungry; /* looks in vain so far; 0: nothing has failed lately */

	/* Real loop only. */
	uv_loop_t uv;
	unsigned threads;
	struct work *works;
	bool closing;
	uv_prepare_t prepare; /* sets the timerfds once an iteration, just before blocking */
	uv_idle_t idle;       /* started by it when a timer is due already: then there is no blocking */
	uv_check_t check;     /* ... and those timers fire after the files were looked at */
	uv_poll_t mono_poll;
	uv_poll_t wall_poll;
	int mono_fd;
	int wall_fd;       /* -1 until the first wall timer */
	kt_ms mono_armed;  /* the due time that mono_fd is set for or an earlier one, or -1 */
	bool wall_is_open;
};

/* Every uv handle's data points to its close callback's argument; see kt_loop_handle_closed. */
struct handle_owner {
	void (*closed)(void *object); /* frees what the handle lies in; NULL: nothing */
	void *object;
};

/* Puts "<what>: <libuv's reason>" into err. */
enum kt_code kt_loop_uv_err(struct kt_err *err, int status, const char *what);
/* uv_close with the owner's `closed` called later. handle->data must be a struct handle_owner *. */
void kt_loop_close_handle(uv_handle_t *handle);

/* Before the loop blocks: starts looking once an allocation has failed. */
void kt_loop_feel_hunger(struct kt_loop *loop);
/* Due time of the first timer, or -1. */
kt_ms kt_loop_first_due(const struct kt_loop *loop);
/* Calls every timer that is due now, in order; those started meanwhile wait for the next round. */
void kt_loop_fire_timers(struct kt_loop *loop);
/* Earliest armed wall timer into *ret; false: none. */
bool kt_loop_first_wall(const struct kt_loop *loop, kt_ms *ret);
/* Calls wall timers that are due, or all armed ones when the clock was set. */
void kt_loop_fire_walls(struct kt_loop *loop, bool clock_set);
/* Opens and sets the timerfds of the real loop. */
enum kt_code kt_loop_timers_open(struct kt_loop *loop, struct kt_err *err);
enum kt_code kt_loop_walls_open(struct kt_loop *loop, struct kt_err *err);

#endif
