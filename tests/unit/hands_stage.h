/* What the tests of the hands share: a loop, hands with a folder of their own, and consumers to reach for. */
#ifndef TESTS_UNIT_HANDS_STAGE_H
#define TESTS_UNIT_HANDS_STAGE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kt/mem.h"
#include "warden/hands/hands.h"
#include "warden/hands/process.h"
#include "warden/warden.h"

static struct kt_loop *loop;
static struct kt_hands *hands;
static char dir[] = "/tmp/kt-hands-XXXXXX";

/* What the last call ended with; the output is a copy. */
static struct kt_hand_result last;
static char output[8192];
static bool answered;

static inline void on_done(const struct kt_hand_result *result, void *arg)
{
	(void)arg;
	last = *result;
	memcpy(output, result->output.len > 0 ? result->output.ptr : "", result->output.len);
	output[result->output.len] = '\0';
	answered = true;
}

static inline void use_with(const struct kt_hand *hand, const struct kt_hand_env *env, const char *binds,
                     const char *const *roots, kt_ms delivered_at)
{
	answered = false;
	kt_hands_run(hands, hand, env, kt_view_str(binds), roots, delivered_at, on_done, NULL);
	assert_false(answered);
	while (!answered) {
		kt_loop_run_once(loop, true);
	}
}

static inline void use(const struct kt_hand *hand)
{
	struct kt_hand_env env = {0};

	use_with(hand, &env, "", NULL, 0);
}

/* Runs a shell command as a hook of root's. */
static inline void sh(const char *command, kt_ms limit)
{
	char *argv[] = {"/bin/sh", "-c", (char *)command, NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL, .time_limit = limit};

	use(&hand);
}

static inline char *path_of(const char *name, char buf[256])
{
	(void)snprintf(buf, 256, "%s/%s", dir, name);
	return buf;
}

static inline void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static inline kt_ms now_mono(void)
{
	return kt_clock_mono(kt_loop_clock(loop));
}

static inline kt_ms now_wall(void)
{
	return kt_clock_wall(kt_loop_clock(loop));
}

static inline void pause_ms(long ms)
{
	struct timespec span = {ms / 1000, (ms % 1000) * 1000000};

	while (nanosleep(&span, &span) < 0 && errno == EINTR) {
		continue;
	}
}

/* --- consumers -------------------------------------------------------------------------------------------------- */

static inline void on_usr1(int signum)
{
	(void)signum;
	_exit(42);
}

/* A consumer that ends with 42 when it is told. */
static inline pid_t consumer(void)
{
	struct sigaction action = {.sa_handler = on_usr1};
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		sigaction(SIGUSR1, &action, NULL);
		(void)!write(ready[1], "x", 1);
		for (;;) {
			pause();
		}
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static inline int end_of(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- before and after ------------------------------------------------------------------------------------------- */

static inline int setup(void **state)
{
	struct kt_hands_config config = {.parallel = 2};

	(void)state;
	if (mkdtemp(dir) == NULL || chmod(dir, 0755) < 0) {
		return -1;
	}
	return kt_loop_create(0, &loop, NULL) == KT_OK && kt_hands_create(loop, &config, &hands, NULL) == KT_OK ? 0 : -1;
}

static inline int teardown(void **state)
{
	char command[300];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	sh(command, 0);
	kt_hands_destroy(hands);
	kt_loop_destroy(loop);
	return 0;
}

#endif
