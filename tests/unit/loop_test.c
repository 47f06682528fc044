/* Tests of the loop: virtual time, real timers, descriptors, work, signals and children. */
#include "config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/loop.h"
#include "kt/mem.h"

static struct kt_loop *the_loop;
static char trail[64]; /* what was called, in order */

static void note(char c)
{
	size_t len = strlen(trail);

	assert_true(len + 1 < sizeof(trail));
	trail[len] = c;
	trail[len + 1] = '\0';
}

static void on_timer(void *arg)
{
	note(*(const char *)arg);
}


struct wall_case {
	struct kt_wall_timer *timer;
	kt_ms again; /* re-armed at, once */
};

static void on_wall(bool changed, void *arg)
{
	struct wall_case *wall = arg;

	note(changed ? 'C' : 'W');
	if (wall->again > 0)
		kt_wall_timer_start(wall->timer, wall->again);
	wall->again = 0;
}

static void test_fake_order(void **state)
{
	struct kt_clock_fake fake = {.wall = 1000000, .mono = 50};
	struct kt_timer *timers[40];
	struct wall_case wall = {NULL, 1000000 + 90 * KT_DAY};

	(void)state;
	assert_int_equal(kt_loop_create_fake(&fake, &the_loop, NULL), KT_OK);
	static char names[] = "abcdefgh";
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(kt_timer_create(the_loop, on_timer, &names[i], &timers[i], NULL), KT_OK);
		kt_timer_start(timers[i], (kt_ms)(i * 37 % 8) * KT_HOUR);
	}
	kt_timer_stop(timers[3]);
	kt_timer_start(timers[0], 7 * KT_HOUR); /* after d's old place; ties go by the order of starting */
	assert_int_equal(kt_wall_timer_create(the_loop, on_wall, &wall, &wall.timer, NULL), KT_OK);
	kt_wall_timer_start(wall.timer, 1000000 + KT_MINUTE);
	kt_loop_run(the_loop);
	/* delays in hours: a7 b5 c2 d- e4 f1 g6 h3; the wall timer after a minute and after 90 days */
	assert_string_equal(trail, "WfchebgaW");
	assert_int_equal(fake.wall, 1000000 + 90 * KT_DAY);
	assert_int_equal(fake.mono, 50 + 90 * KT_DAY);

	/* The clock is set under an armed timer. */
	trail[0] = '\0';
	kt_wall_timer_start(wall.timer, fake.wall + KT_DAY);
	fake.wall -= KT_HOUR;
	kt_loop_run(the_loop);
	assert_string_equal(trail, "C");
	for (size_t i = 0; i < 8; i++)
		kt_timer_destroy(timers[i]);
	kt_wall_timer_destroy(wall.timer);
	kt_loop_destroy(the_loop);
}

static void work_fn(void *arg)
{
	__atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST);
}

static int works_done;

static void work_done(void *arg)
{
	(void)arg;
	works_done++;
}

static void test_heap(void **state)
{
	enum { N = 200 };
	struct kt_clock_fake fake = {0};
	struct kt_timer *timers[N];
	char c = '.';
	int ran = 0;

	(void)state;
	assert_int_equal(kt_loop_create_fake(&fake, &the_loop, NULL), KT_OK);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(kt_timer_create(the_loop, on_timer, &c, &timers[i], NULL), KT_OK);
		kt_timer_start(timers[i], (kt_ms)(i * 7919 % N) + 1);
	}
	for (size_t i = 0; i < N; i++)
		if (i % 5 != 0)
			kt_timer_stop(timers[i]);
	/* Each step jumps to the next delay that is left, in rising order. */
	for (kt_ms last = 0; ran < N / 5; ran++) {
		trail[0] = '\0';
		kt_loop_run_once(the_loop, true);
		assert_string_equal(trail, ".");
		assert_true(fake.mono > last);
		last = fake.mono;
	}
	for (size_t i = 0; i < N; i++)
		kt_timer_destroy(timers[i]);
	works_done = 0;
	ran = 0;
	assert_int_equal(kt_loop_work(the_loop, work_fn, work_done, &ran, NULL), KT_OK);
	assert_int_equal(ran, 1);
	assert_int_equal(works_done, 0); /* never within the call */
	kt_loop_run(the_loop);
	assert_int_equal(works_done, 1);
	kt_loop_destroy(the_loop);
}

static int real_setup(void **state)
{
	(void)state;
	trail[0] = '\0';
	return kt_loop_create(2, &the_loop, NULL) == KT_OK ? 0 : -1;
}

static int real_teardown(void **state)
{
	(void)state;
	kt_loop_destroy(the_loop);
	trail[0] = '\0';
	return 0;
}

static void test_real_timers(void **state)
{
	struct kt_timer *a, *b;
	struct wall_case wall = {NULL, 0};
	char na = 'a', nb = 'b';
	const struct kt_clock *clock = kt_loop_clock(the_loop);
	kt_ms start = kt_clock_mono(clock);

	(void)state;
	assert_int_equal(kt_timer_create(the_loop, on_timer, &na, &a, NULL), KT_OK);
	assert_int_equal(kt_timer_create(the_loop, on_timer, &nb, &b, NULL), KT_OK);
	assert_int_equal(kt_wall_timer_create(the_loop, on_wall, &wall, &wall.timer, NULL), KT_OK);
	kt_timer_start(a, 60);
	kt_timer_start(b, 0);
	kt_wall_timer_start(wall.timer, kt_clock_wall(clock) + 20);
	kt_loop_run(the_loop); /* ends by itself: nothing is left */
	assert_string_equal(trail, "bWa");
	assert_true(kt_clock_mono(clock) - start >= 60);
	kt_timer_destroy(a);
	kt_timer_destroy(b);
	kt_wall_timer_destroy(wall.timer);
}

struct watch_case {
	struct kt_watch *watch;
	int fd;
};

static void on_fd(int events, void *arg)
{
	struct watch_case *watched = arg;
	char c;
	ssize_t n = read(watched->fd, &c, 1);

	if (n == 1) {
		note(c);
		return;
	}
	note(events & KT_LOOP_HANGUP ? 'H' : 'E');
	kt_watch_destroy(watched->watch); /* from within */
	close(watched->fd);
}

static void test_watch(void **state)
{
	struct watch_case watched;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	watched.fd = pair[0];
	assert_int_equal(kt_watch_create(the_loop, pair[0], KT_LOOP_READ | KT_LOOP_HANGUP, on_fd, &watched,
	                                 &watched.watch, NULL),
	                 KT_OK);
	assert_int_equal(write(pair[1], "xy", 2), 2);
	close(pair[1]);
	kt_loop_run(the_loop);
	assert_string_equal(trail, "xyH");
}

static void test_work(void **state)
{
	int ran = 0;

	(void)state;
	works_done = 0;
	assert_int_equal(kt_loop_start_threads(the_loop, NULL), KT_OK);
	for (int i = 0; i < 50; i++)
		assert_int_equal(kt_loop_work(the_loop, work_fn, work_done, &ran, NULL), KT_OK);
	kt_loop_run(the_loop);
	assert_int_equal(ran, 50);
	assert_int_equal(works_done, 50);
	/* Left to destroy: waited for, done() not called. */
	assert_int_equal(kt_loop_work(the_loop, work_fn, work_done, &ran, NULL), KT_OK);
}

static void on_signal(int signum, void *arg)
{
	(void)arg;
	note(signum == SIGHUP ? 'h' : '?');
	kt_loop_stop(the_loop);
}

static void test_signal(void **state)
{
	(void)state;
	assert_int_equal(kt_loop_signal(the_loop, SIGHUP, on_signal, NULL, NULL), KT_OK);
	raise(SIGHUP);
	kt_loop_run(the_loop);
	assert_string_equal(trail, "h");
}

static int last_status;

static void on_exited(int status, void *arg)
{
	(void)arg;
	last_status = status;
	kt_loop_stop(the_loop);
}

static int refuse(void *arg)
{
	(void)arg;
	return EPERM;
}

static struct kt_spawn shell(char *const *argv, const int *fds, unsigned fd_count)
{
	static char *const envp[] = {(char *)"A=b", NULL};

	return (struct kt_spawn){.exec_fd = -1, .path = "/bin/sh", .argv = argv, .envp = envp, .fds = fds,
	                         .fd_count = fd_count, .cwd_fd = -1};
}

static void test_child_fds(void **state)
{
	char *const argv[] = {(char *)"sh", (char *)"-c",
	                      (char *)"echo $A $PWD; cat <&3; ls /proc/self/fd | wc -l; exit 7", NULL};
	int out[2], in[2], far;
	struct kt_child *child;
	struct kt_err err;
	char text[128] = "";
	ssize_t n;

	(void)state;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	far = fcntl(STDERR_FILENO, F_DUPFD, 100); /* not close-on-exec, and yet not inherited */
	/* Descriptor 3 comes from what may be anything: the slots overlap the sources. */
	int fds[] = {-1, out[1], STDERR_FILENO, in[0]};
	struct kt_spawn spawn = shell(argv, fds, 4);
	assert_int_equal(write(in[1], "hi\n", 3), 3);
	close(in[1]);
	assert_int_equal(kt_child_spawn(the_loop, &spawn, on_exited, NULL, &child, &err), KT_OK);
	close(in[0]);
	close(out[1]);
	kt_loop_run(the_loop);
	assert_true(WIFEXITED(last_status));
	assert_int_equal(WEXITSTATUS(last_status), 7);
	kt_child_destroy(child);
	n = read(out[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	assert_string_equal(text, "b /\nhi\n5\n"); /* 0, 1, 2, 3 and ls's own */
	close(out[0]);
	close(far);
}

static void test_child_ends(void **state)
{
	char *const sleeper[] = {(char *)"sh", (char *)"-c", (char *)"sleep 100 & wait", NULL};
	char *const script_argv[] = {(char *)"script", NULL};
	struct kt_spawn spawn = shell(sleeper, NULL, 0);
	struct kt_child *child;
	struct kt_err err;
	char path[] = "/tmp/kt-loop-XXXXXX";
	int fd;
	pid_t pid;

	(void)state;
	spawn.new_session = true;
	spawn.parent_death = true;
	assert_int_equal(kt_child_spawn(the_loop, &spawn, on_exited, NULL, &child, &err), KT_OK);
	pid = kt_child_pid(child);
	assert_int_equal(getsid(pid), pid);
	kt_child_kill(child, SIGTERM, true);
	kt_loop_run(the_loop);
	assert_true(WIFSIGNALED(last_status));
	assert_int_equal(WTERMSIG(last_status), SIGTERM);
	kt_child_destroy(child);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); /* reaped */

	/* What fails before the exec is told with its step. */
	spawn.path = "/nonexistent";
	assert_int_equal(kt_child_spawn(the_loop, &spawn, on_exited, NULL, &child, &err), KT_E_SYS);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_non_null(strstr(err.what, "exec"));
	spawn.in_child = refuse;
	assert_int_equal(kt_child_spawn(the_loop, &spawn, on_exited, NULL, &child, &err), KT_E_SYS);
	assert_int_equal(err.sys_errno, EPERM);

	/* A script, by descriptor. */
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "#!/bin/sh\nexit 3\n", 17), 17);
	assert_int_equal(fchmod(fd, 0700), 0);
	close(fd);
	spawn = shell(script_argv, NULL, 0);
	spawn.exec_fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(kt_child_spawn(the_loop, &spawn, on_exited, NULL, &child, &err), KT_OK);
	kt_loop_run(the_loop);
	assert_int_equal(WEXITSTATUS(last_status), 3);
	kt_child_destroy(child);
	close(spawn.exec_fd);
	unlink(path);
}

/* Virtual time only: libuv itself aborts when its table of watchers can't grow. */
static void test_torture(void **state)
{
	int64_t n;

	(void)state;
	for (n = 0; n < 200; n++) {
		struct kt_clock_fake fake = {0};
		struct kt_loop *loop = NULL;
		struct kt_timer *timers[12] = {NULL};
		struct kt_wall_timer *wall = NULL;
		struct wall_case walled = {NULL, 0};
		char c = 't';
		int ran = 0;
		enum kt_code code;

		trail[0] = '\0';
		works_done = 0;
		kt_mem_fail_after(n, 1);
		code = kt_loop_create_fake(&fake, &loop, NULL);
		for (int i = 0; i < 12 && code == KT_OK; i++)
			code = kt_timer_create(loop, on_timer, &c, &timers[i], NULL);
		if (code == KT_OK)
			code = kt_wall_timer_create(loop, on_wall, &walled, &wall, NULL);
		if (code == KT_OK)
			code = kt_loop_work(loop, work_fn, work_done, &ran, NULL);
		if (code == KT_OK) {
			for (int i = 0; i < 12; i++)
				kt_timer_start(timers[i], i);
			kt_wall_timer_start(wall, 99);
			kt_loop_run(loop);
			assert_string_equal(trail, "ttttttttttttW");
			assert_int_equal(works_done, 1);
		}
		kt_mem_fail_after(-1, 0);
		for (int i = 0; i < 12; i++)
			kt_timer_destroy(timers[i]);
		kt_wall_timer_destroy(wall);
		kt_loop_destroy(loop);
		if (code == KT_OK)
			break;
		assert_int_equal(code, KT_E_NOMEM);
		assert_int_equal(ran, 0);
	}
	assert_in_range(n, 15, 199);
	trail[0] = '\0';
}

static void on_starved(void *arg)
{
	*(bool *)arg = true;
	kt_loop_stop(the_loop);
}

static void on_enough(void *arg)
{
	(void)arg;
	kt_mem_fail_after(-1, 0);
}

static void on_nothing(void *arg)
{
	(void)arg;
}

/* Memory that is away for good is told after a second; a failure or a short famine is not. */
static void test_starved(void **state)
{
	const struct kt_clock *clock = kt_loop_clock(the_loop);
	struct kt_timer *relief, *longer;
	bool starved = false;
	kt_ms start;

	(void)state;
	assert_int_equal(kt_loop_starved(the_loop, on_starved, &starved, NULL), KT_OK);
	assert_int_equal(kt_timer_create(the_loop, on_enough, NULL, &relief, NULL), KT_OK);
	assert_int_equal(kt_timer_create(the_loop, on_nothing, NULL, &longer, NULL), KT_OK);
	kt_mem_fail_after(0, 0);
	assert_null(kt_malloc(1));
	kt_timer_start(longer, 300);
	kt_loop_run(the_loop); /* one failure: looks once more, and nothing is left to wait for */
	assert_false(starved);
	kt_mem_fail_after(0, 1);
	assert_null(kt_malloc(1));
	kt_timer_start(relief, 400);
	kt_loop_run(the_loop);
	assert_false(starved);
	kt_mem_fail_after(0, 1);
	assert_null(kt_malloc(1));
	start = kt_clock_mono(clock);
	kt_timer_start(longer, 10 * KT_SECOND);
	kt_loop_run(the_loop);
	kt_mem_fail_after(-1, 0);
	assert_true(starved);
	assert_in_range(kt_clock_mono(clock) - start, 900, 9000);
	kt_timer_destroy(relief);
	kt_timer_destroy(longer);
}

static int clear_trail(void **state)
{
	(void)state;
	trail[0] = '\0';
	return 0;
}

#define REAL(f) cmocka_unit_test_setup_teardown(f, real_setup, real_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_fake_order, clear_trail),
		cmocka_unit_test_setup(test_heap, clear_trail),
		REAL(test_real_timers),
		REAL(test_watch),
		REAL(test_work),
		REAL(test_signal),
		REAL(test_child_fds),
		REAL(test_child_ends),
		REAL(test_starved),
		cmocka_unit_test(test_torture),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
