/* The hands with signals: hostile pid files, processes that have changed, and whom a signal must never reach. */
#include "hands_stage.h"

static void pid_file_signals_the_right_one(void **state)
{
	char path[256];
	char text[32];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("c.pid", path)};
	pid_t pid = consumer();

	(void)state;
	(void)snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_file(path, text, 0644);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_false(last.skipped);
	assert_int_equal(end_of(pid), 42);
	/* Now nobody has that number. */
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
}

static void pid_file_with_another_program(void **state)
{
	char path[256];
	char text[32];
	struct kt_hand hand = {
	        .kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("d.pid", path), .exe = "/usr/sbin/nginx"};
	pid_t pid = consumer();

	(void)state;
	(void)snprintf(text, sizeof(text), "%d", (int)pid);
	write_file(path, text, 0644);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	assert_non_null(strstr(last.what, "not /usr/sbin/nginx"));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(end_of(pid), -1);
}

static bool ours_is_called(pid_t pid, void *arg)
{
	return pid == *(pid_t *)arg;
}

static void pid_file_attacks(void **state)
{
	static const char *const texts[] = {"0", "-1", "1", "", "\n", "abc", "12 34", "99999999999999999999", " 5", "0x10"};
	char path[256];
	char other[256];
	char text[32];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("evil.pid", path)};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_file(path, texts[i], 0644);
		use(&hand);
		assert_int_equal(last.outcome, KT_HAND_CANNOT);
	}
	/* The agent itself; the default action of SIGUSR1 would end this test. */
	(void)snprintf(text, sizeof(text), "%d\n", (int)getpid());
	write_file(path, text, 0644);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	/* Others may write it. */
	write_file(path, "2\n", 0666);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_non_null(strstr(last.what, "written by others"));
	write_file(path, "2\n", 0664);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	/* A link, a second name, a FIFO, a folder, nothing. */
	write_file(path, text, 0644);
	hand.pid_file = path_of("link.pid", other);
	assert_int_equal(symlink(path, other), 0);
	use(&hand);
	assert_int_not_equal(last.outcome, KT_HAND_OK);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(link(path, other), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(mkfifo(other, 0600), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_int_equal(unlink(other), 0);
	hand.pid_file = dir;
	use(&hand);
	assert_int_not_equal(last.outcome, KT_HAND_OK);
	hand.pid_file = other;
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
}

/* CVE-2018-16888: a daemon that may write its pid file must not get root to signal another's process. */
static void pid_file_of_a_daemon_names_a_process_of_root(void **state)
{
	char path[256];
	char text[32];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("daemon.pid", path)};
	pid_t pid;

	(void)state;
	if (getuid() != 0) {
		skip();
	}
	pid = consumer();
	(void)snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_file(path, text, 0644);
	assert_int_equal(chown(path, 33, 33), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_non_null(strstr(last.what, "uid 33"));
	assert_int_equal(kill(pid, 0), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(end_of(pid), -1);
}

static void rooms_are_never_signalled(void **state)
{
	pid_t pid = consumer();
	struct kt_hands_config config = {.is_ours = ours_is_called, .arg = &pid};
	struct kt_hands *own = NULL;
	struct kt_hands *kept = hands;
	char path[256];
	char text[32];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("room.pid", path)};

	(void)state;
	assert_int_equal(kt_hands_create(loop, &config, &own, NULL), KT_OK);
	hands = own;
	(void)snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_file(path, text, 0644);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	hands = kept;
	kt_hands_destroy(own);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(end_of(pid), -1);
}

static void younger_process_needs_no_signal(void **state)
{
	struct kt_hand_env env = {0};
	char path[256];
	char text[32];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGUSR1, .pid_file = path_of("young.pid", path)};
	kt_ms before = now_wall() - 5000;
	pid_t pid = consumer();
	struct kt_process process;

	(void)state;
	assert_int_equal(kt_process_read(pid, &process, NULL), KT_OK);
	assert_true(llabs((long long)(kt_process_started(&process, kt_loop_clock(loop)) - now_wall())) < 1500);
	(void)snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_file(path, text, 0644);
	use_with(&hand, &env, "", NULL, before);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_true(last.skipped);
	assert_int_equal(kill(pid, 0), 0);
	/* The wall clock was set since: its readings from before say nothing. */
	kt_hands_clock_changed(hands, now_wall());
	use_with(&hand, &env, "", NULL, before);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_false(last.skipped);
	assert_int_equal(end_of(pid), 42);
	kt_hands_clock_changed(hands, 0);
	/* Older than the switch. */
	pid = consumer();
	(void)snprintf(text, sizeof(text), "%d\n", (int)pid);
	write_file(path, text, 0644);
	use_with(&hand, &env, "", NULL, now_wall());
	assert_false(last.skipped);
	assert_int_equal(end_of(pid), 42);
}

static void changed_process_is_not_signalled(void **state)
{
	pid_t pid = consumer();
	struct kt_process process;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_process_read(pid, &process, NULL), KT_OK);
	process.start_ticks--; /* as if the number had been given away in between */
	assert_int_equal(kt_process_signal(&process, SIGUSR1, &err), KT_E_NOTFOUND);
	process.start_ticks++;
	process.exe_ino++;
	assert_int_equal(kt_process_signal(&process, SIGUSR1, &err), KT_E_NOTFOUND);
	process.exe_ino--;
	assert_int_equal(kt_process_signal(&process, SIGUSR1, &err), KT_OK);
	assert_int_equal(end_of(pid), 42);
	assert_int_equal(kt_process_signal(&process, SIGUSR1, &err), KT_E_NOTFOUND);
}

static pid_t start_program(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		execl(path, path, "60", (char *)NULL);
		_exit(127);
	}
	assert_true(pid > 0);
	pause_ms(150);
	return pid;
}

static void processes_are_found_by_executable(void **state)
{
	char path[256];
	char command[600];
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL, .signum = SIGTERM, .exe = path_of("consumerd", path)};
	pid_t first;
	pid_t second;

	(void)state;
	(void)snprintf(command, sizeof(command), "cp /bin/sleep %s", path);
	sh(command, 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	assert_non_null(strstr(last.what, "no process runs"));
	first = start_program(path);
	second = start_program(path);
	hand.cgroup = "/no/such.slice";
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	hand.cgroup = NULL;
	/* Upgraded on disk meanwhile. */
	assert_int_equal(unlink(path), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_non_null(strstr(last.what, "2 processes"));
	assert_int_equal(end_of(first), -1);
	assert_int_equal(end_of(second), -1);
}

static void masters_are_told_workers_are_not(void **state)
{
	struct kt_process *found = NULL;
	unsigned count = 0;
	bool self = false;
	char exe[1024];
	pid_t pid = consumer(); /* runs the same program as this test, its parent */
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	(void)state;
	assert_true(n > 0);
	exe[n] = '\0';
	assert_int_equal(kt_process_find(exe, NULL, &found, &count, NULL), KT_OK);
	for (unsigned i = 0; i < count; i++) {
		assert_int_not_equal(found[i].pid, pid);
		self = self || found[i].pid == getpid();
	}
	assert_true(self);
	kt_free(found);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(end_of(pid), -1);
}

static void signal_names(void **state)
{
	(void)state;
	assert_int_equal(kt_signal_number("HUP"), SIGHUP);
	assert_int_equal(kt_signal_number("SIGUSR2"), SIGUSR2);
	assert_int_equal(kt_signal_number("KILL"), 0);
	assert_int_equal(kt_signal_number("9"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(pid_file_signals_the_right_one),
	        cmocka_unit_test(pid_file_with_another_program),
	        cmocka_unit_test(pid_file_attacks),
	        cmocka_unit_test(pid_file_of_a_daemon_names_a_process_of_root),
	        cmocka_unit_test(rooms_are_never_signalled),
	        cmocka_unit_test(younger_process_needs_no_signal),
	        cmocka_unit_test(changed_process_is_not_signalled),
	        cmocka_unit_test(processes_are_found_by_executable),
	        cmocka_unit_test(masters_are_told_workers_are_not),
	        cmocka_unit_test(signal_names),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
