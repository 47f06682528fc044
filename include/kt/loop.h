/* The event loop: fds, timers, wall timers, children and background work over libuv; a fake one for tests. */
#ifndef KT_LOOP_H
#define KT_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kt/clock.h"
#include "kt/err.h"

struct kt_loop;
struct kt_watch;
struct kt_timer;
struct kt_wall_timer;
struct kt_child;

enum { KT_LOOP_READ = 1, KT_LOOP_WRITE = 2, KT_LOOP_HANGUP = 4 };

/* One loop a process; real clock. threads: size of the work pool (0: none is ever started). */
enum kt_code kt_loop_create(unsigned threads, struct kt_loop **ret, struct kt_err *err);
/* Virtual time: kt_loop_run jumps from timer to timer; `fake` is moved along. No fds, no children. */
enum kt_code kt_loop_create_fake(struct kt_clock_fake *fake, struct kt_loop **ret, struct kt_err *err);
/* Waits for running work; done() is not called any more. Destroy timers, watches and children before. */
void kt_loop_destroy(struct kt_loop *loop);
/* Starts the pool's threads now: they must exist before seccomp forbids clone. */
enum kt_code kt_loop_start_threads(struct kt_loop *loop, struct kt_err *err);
/* Runs until kt_loop_stop, or (fake, or idle==true) until nothing is left to wait for. */
void kt_loop_run(struct kt_loop *loop);
/* One iteration; blocks for at most until the next event when `block`. */
void kt_loop_run_once(struct kt_loop *loop, bool block);
void kt_loop_stop(struct kt_loop *loop);
const struct kt_clock *kt_loop_clock(struct kt_loop *loop);
/* The uv_loop_t * behind it, for the libraries that want it (NULL for the fake). */
void *kt_loop_uv(struct kt_loop *loop);

/* Calls fn when fd is ready for `events` (level-triggered; an error of the fd reads as all of them and HANGUP). The fd
 * stays the caller's, becomes non-blocking, and has one watch at most; no regular files. */
enum kt_code kt_watch_create(struct kt_loop *loop, int fd, int events, void (*fn)(int events, void *arg), void *arg,
                             struct kt_watch **ret, struct kt_err *err);
enum kt_code kt_watch_set(struct kt_watch *watch, int events, struct kt_err *err);
void kt_watch_destroy(struct kt_watch *watch); /* NULL accepted; safe within fn */

/* One-shot timers on monotonic time (CLOCK_BOOTTIME); starting again replaces the old time. delay in ms. */
enum kt_code kt_timer_create(struct kt_loop *loop, void (*fn)(void *arg), void *arg, struct kt_timer **ret,
                             struct kt_err *err);
void kt_timer_start(struct kt_timer *timer, kt_ms delay);
void kt_timer_stop(struct kt_timer *timer);
void kt_timer_destroy(struct kt_timer *timer);

/*
 * Fires at a wall time and whenever the wall clock is set (timerfd, TFD_TIMER_CANCEL_ON_SET) or a suspend ended;
 * fn re-arms it.
 */
enum kt_code kt_wall_timer_create(struct kt_loop *loop, void (*fn)(bool clock_changed, void *arg), void *arg,
                                  struct kt_wall_timer **ret, struct kt_err *err);
void kt_wall_timer_start(struct kt_wall_timer *timer, kt_ms at_wall);
void kt_wall_timer_destroy(struct kt_wall_timer *timer);

/*
 * Calls fn once when memory has run out for good: an allocation failed, and a small one has gone on failing for a second.
 * Needs none itself. One fn a loop.
 */
enum kt_code kt_loop_starved(struct kt_loop *loop, void (*fn)(void *arg), void *arg, struct kt_err *err);

/* Runs fn on a pool thread, then done on the loop. fn must touch only arg. Runs fn at once when there is no pool. */
enum kt_code kt_loop_work(struct kt_loop *loop, void (*fn)(void *arg), void (*done)(void *arg), void *arg,
                          struct kt_err *err);

/* Calls fn on the loop when the signal arrives (signalfd-like; SIGHUP, SIGTERM, ...). Lives as long as the loop. */
enum kt_code kt_loop_signal(struct kt_loop *loop, int signum, void (*fn)(int signum, void *arg), void *arg,
                            struct kt_err *err);

enum { KT_SPAWN_FD_MAX = 32 };

/*
 * What to start. Arrays are NULL-terminated. fds[i] becomes descriptor i in the child (-1: /dev/null for 0..2, closed
 * above). Everything else is closed. Order in the child: signals to default, session, working directory, groups and
 * ids, parent death signal, in_child (still with the parent's descriptors), descriptors, exec.
 */
struct kt_spawn {
	int exec_fd;      /* executable opened before (fexecve), or -1 */
	const char *path; /* absolute; used when exec_fd is -1 */
	char *const *argv;
	char *const *envp;
	const int *fds;
	unsigned fd_count;
	int cwd_fd;            /* -1: "/" */
	bool set_ids;          /* then uid, gid, groups are set */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	unsigned group_count;
	bool new_session;      /* setsid, so that the whole group can be killed */
	bool parent_death;     /* PR_SET_PDEATHSIG SIGKILL */
	/* Called in the child between fork and exec; async-signal-safe calls only. 0, or an errno that is reported. */
	int (*in_child)(void *arg);
	void *in_child_arg;
	/*
	 * Of fds, not 0: a file that the child locks (a POSIX read lock over one byte at lock_at) as long as it lives, also
	 * without us: the lock survives the exec, and what the child starts does not have it.
	 */
	unsigned lock_slot;
	int64_t lock_at;
};

/*
 * Returns after the exec; what failed before it is in err. exited(status as waitpid gives it). The child is not killed
 * by destroy unless kill is called; one that runs on is reaped in silence. Its zombie stays until destroy, so that
 * kt_child_kill(group) after the exit can't hit strangers.
 */
enum kt_code kt_child_spawn(struct kt_loop *loop, const struct kt_spawn *spawn, void (*exited)(int status, void *arg),
                            void *arg, struct kt_child **ret, struct kt_err *err);
pid_t kt_child_pid(const struct kt_child *child);
/* By pidfd; group: the whole process group of a new_session child. */
void kt_child_kill(struct kt_child *child, int signum, bool group);
void kt_child_destroy(struct kt_child *child);

#endif
