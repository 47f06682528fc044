/* The hands with hooks that misbehave, systemd, files to touch and candidates to look at. */
#include "hands_stage.h"

/* --- exec ------------------------------------------------------------------------------------------------------- */

static void exec_says_what_happened(void **state)
{
	(void)state;
	sh("echo fine; echo oops >&2", 0);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_string_equal(output, "fine\noops\n");
	sh("exit 255", 0);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	assert_int_equal(last.status, 255);
	sh("kill -SEGV $$", 0);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	assert_int_equal(last.status, 128 + SIGSEGV);
	assert_non_null(strstr(last.what, "signal 11"));
	sh("printf 'a\\033[31m\\001b'", 0);
	assert_string_equal(output, "a\\x1b[31m\\x01b");
}

static void exec_of_nothing_is_refused(void **state)
{
	char *argv[] = {"/no/such/program", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL};

	(void)state;
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_non_null(strstr(last.what, "/no/such/program"));
	hand.kind = KT_HAND_NONE;
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
}

static void exec_uses_no_shell(void **state)
{
	char program[256];
	char *argv[] = {path_of("a hook;$(touch x) 'y", program), "two words", "$HOME", "", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL};

	(void)state;
	write_file(program, "#!/bin/sh\nfor a in \"$@\"; do echo \"<$a>\"; done\n", 0755);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_string_equal(output, "<two words>\n<$HOME>\n<>\n");
}

static void exec_environment_is_fixed(void **state)
{
	char *argv[] = {"/usr/bin/env", NULL};
	char *own[] = {"FOO=bar", "KEYTURN_NAME=forged", "LD_AUDIT_X=1", "LANG=de_DE.UTF-8", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL};
	struct kt_hand_env env = {.name = KT_VIEW_LIT("web"),
	                          .ns = KT_VIEW_LIT("default"),
	                          .secret_dir = KT_VIEW_LIT("/run/keyturn/secrets/web-tls"),
	                          .step = KT_VIEW_LIT("notify"),
	                          .not_after = 1764000000000,
	                          .fingerprint = KT_VIEW_LIT("ab12"),
	                          .serial = KT_VIEW_LIT("0f"),
	                          .traceparent = KT_VIEW_LIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")};

	(void)state;
	assert_int_equal(setenv("SECRET_OF_THE_AGENT", "x", 1), 0);
	use_with(&hand, &env, "", NULL, 0);
	assert_string_equal(output, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\nLANG=C.UTF-8\nKEYTURN_NAME=web\n"
	                            "KEYTURN_NAMESPACE=default\nKEYTURN_SECRET_DIR=/run/keyturn/secrets/web-tls\n"
	                            "KEYTURN_STEP=notify\nKEYTURN_NOT_AFTER=2025-11-24T16:00:00Z\n"
	                            "KEYTURN_FINGERPRINT=ab12\nKEYTURN_SERIAL=0f\n"
	                            "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n");
	hand.env = own;
	use_with(&hand, &env, "", NULL, 0);
	assert_non_null(strstr(output, "FOO=bar\n"));
	assert_non_null(strstr(output, "LANG=de_DE.UTF-8\n"));
	assert_null(strstr(output, "LANG=C.UTF-8"));
	assert_null(strstr(output, "forged"));
	assert_null(strstr(output, "SECRET_OF_THE_AGENT"));
}

static void exec_has_nothing_open(void **state)
{
	int fd = open("/etc/passwd", O_RDONLY); /* without O_CLOEXEC, on purpose */

	(void)state;
	assert_true(fd >= 0);
	sh("ls -l /proc/self/fd", 0);
	assert_null(strstr(output, "passwd"));
	assert_null(strstr(output, "eventpoll"));
	assert_non_null(strstr(output, "0 -> /dev/null"));
	close(fd);
	sh("pwd; umask; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leader", 0);
	assert_non_null(strstr(output, "/\n"));
	assert_non_null(strstr(output, "leader"));
}

static void exec_that_hangs_is_killed(void **state)
{
	kt_ms start = now_mono();
	struct kt_process process;

	(void)state;
	sh("sleep 100", 300);
	assert_int_equal(last.outcome, KT_HAND_TIMED_OUT);
	assert_true(now_mono() - start < 3000);
	/* Deaf to SIGTERM, with a child in the group. */
	start = now_mono();
	sh("trap '' TERM; sleep 101 & echo $!; wait; sleep 101", 300);
	assert_int_equal(last.outcome, KT_HAND_TIMED_OUT);
	assert_true(now_mono() - start >= KT_HAND_GRACE && now_mono() - start < KT_HAND_GRACE + 3000);
	pause_ms(50);
	/* Gone, or a zombie that nobody has collected yet. */
	assert_int_equal(kt_process_read((pid_t)strtol(output, NULL, 10), &process, NULL), KT_E_NOTFOUND);
}

static void exec_leaves_its_daemon_alone(void **state)
{
	kt_ms start = now_mono();
	pid_t pid;

	(void)state;
	/* Holds our pipe open and goes on writing to it. */
	sh("(trap '' PIPE; while sleep 0.05; do echo noise; done) & echo $!; exit 0", 0);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_true(now_mono() - start < 2000);
	pid = (pid_t)strtol(output, NULL, 10);
	assert_true(pid > 1);
	assert_int_equal(kill(pid, 0), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
}

static void exec_output_is_capped(void **state)
{
	(void)state;
	sh("head -c 1000000000 /dev/zero; echo end", 0);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_true(strlen(output) <= KT_HAND_OUTPUT_MAX && strlen(output) > KT_HAND_OUTPUT_MAX - 8);
	/* Of the end, where programs say what went wrong. */
	assert_string_equal(output + strlen(output) - 8, "\\x00end\n");
}

static void exec_takes_turns(void **state)
{
	char *argv[] = {"/bin/sleep", "0.2", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL};
	struct kt_hand_env env = {0};
	kt_ms start = now_mono();

	(void)state;
	for (int i = 0; i < 6; i++) {
		kt_hands_run(hands, &hand, &env, (struct kt_view){NULL, 0}, NULL, 0, on_done, &hand);
	}
	while (kt_hands_busy(hands)) {
		kt_loop_run_once(loop, true);
	}
	/* Two at a time (see setup): three rounds. */
	assert_true(now_mono() - start >= 550);
	assert_true(now_mono() - start < 3000);
}

static void exec_runs_as_the_named_user(void **state)
{
	char *argv[] = {"/usr/bin/id", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = "www-data"};

	(void)state;
	if (getuid() != 0) {
		use(&hand);
		assert_int_equal(last.outcome, KT_HAND_CANNOT);
		assert_non_null(strstr(last.what, "not root"));
		return;
	}
	use(&hand);
	assert_string_equal(output, "uid=33(www-data) gid=33(www-data) groups=33(www-data)\n");
	hand.group = "daemon";
	use(&hand);
	assert_non_null(strstr(output, "uid=33(www-data) gid=1(daemon)"));
	hand.group = NULL;
	hand.user = "4711";
	use(&hand);
	assert_non_null(strstr(output, "uid=4711 gid=4711"));
	hand.user = NULL;
	use(&hand);
	assert_non_null(strstr(output, "(nobody)"));
	assert_null(strstr(output, "root"));
	hand.user = "root";
	use(&hand);
	assert_non_null(strstr(output, "uid=0(root)"));
	hand.user = "no-such-user";
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_non_null(strstr(last.what, "no-such-user"));
}

/* --- systemd ---------------------------------------------------------------------------------------------------- */

static void systemd_by_systemctl(void **state)
{
	char program[256];
	char script[512];
	struct kt_hands_config config = {.systemctl = path_of("systemctl", program)};
	struct kt_hands *own = NULL;
	struct kt_hands *kept = hands;
	struct kt_hand hand = {.kind = KT_HAND_SYSTEMD, .unit = "nginx.service", .action = "reload"};
	pid_t pid = consumer();

	(void)state;
	assert_int_equal(kt_hands_create(loop, &config, &own, NULL), KT_OK);
	hands = own;
	(void)snprintf(script, sizeof(script),
	               "#!/bin/sh\necho \"$@\"\nlast=$5; [ \"$1\" = show ] || exit 0\nexec >&2\n");
	write_file(program, script, 0755);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_string_equal(output, "--no-ask-password reload -- nginx.service\n");
	hand.unit = "--force";
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	hand.unit = "nginx.service";
	write_file(program, "#!/bin/sh\necho 'Unit not found' >&2; exit 5\n", 0755);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	assert_int_equal(last.status, 5);
	assert_string_equal(output, "Unit not found\n");
	/* The main pid of a unit. */
	hand = (struct kt_hand){.kind = KT_HAND_SIGNAL, .unit = "nginx.service", .signum = SIGUSR1};
	write_file(program, "#!/bin/sh\necho 0\n", 0755);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
	(void)snprintf(script, sizeof(script), "#!/bin/sh\necho %d\n", (int)pid);
	write_file(program, script, 0755);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_int_equal(end_of(pid), 42);
	hands = kept;
	kt_hands_destroy(own);
}

/* --- touch ------------------------------------------------------------------------------------------------------ */

static void touch_only_plain_files(void **state)
{
	char path[256];
	char other[256];
	struct timespec old[2] = {{1000000, 0}, {1000000, 0}};
	struct kt_hand hand = {.kind = KT_HAND_TOUCH, .path = path_of("touched", path)};
	struct stat st;

	(void)state;
	write_file(path, "contents", 0644);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_mtime > 1000000);
	assert_int_equal(st.st_size, 8);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	hand.path = path_of("touch-link", other);
	assert_int_equal(symlink(path, other), 0);
	use(&hand);
	assert_int_not_equal(last.outcome, KT_HAND_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mtime, 1000000);
	hand.path = path_of("touch-fifo", other);
	assert_int_equal(mkfifo(other, 0600), 0);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	hand.path = path_of("missing", other);
	use(&hand);
	assert_int_equal(last.outcome, KT_HAND_FAILED);
}

/* --- candidates ------------------------------------------------------------------------------------------------- */

/* A volume with one generation in place and one staged. */
static void make_volume(const char *name, uid_t uid)
{
	char path[256];
	char file[300];
	static const char *const folders[] = {"", "/..old", "/..new"};

	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s%s", dir, name, folders[i]);
		assert_int_equal(mkdir(path, 0755), 0);
		if (i > 0) {
			(void)snprintf(file, sizeof(file), "%s/tls.crt", path);
			write_file(file, i == 1 ? "old" : "new", 0644);
			assert_int_equal(chown(file, uid, uid), 0);
		}
		assert_int_equal(chown(path, uid, uid), 0);
	}
	(void)snprintf(path, sizeof(path), "%s/%s/..data", dir, name);
	assert_int_equal(symlink("..old", path), 0);
	(void)snprintf(path, sizeof(path), "%s/%s/tls.crt", dir, name);
	assert_int_equal(symlink("..data/tls.crt", path), 0);
}

static bool namespaces(void)
{
	const char *how = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_warden_probe_namespace(&how, &err) == KT_OK) {
		return true;
	}
	print_message("no namespaces here: %s\n", err.what);
	return false;
}

static void check_candidate(const char *name, const char *user)
{
	char path[256];
	char binds[600];
	char text[16] = "";
	const char *roots[] = {"/no/such/root", dir, NULL};
	char *argv[] = {"/bin/cat", NULL, NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = (char *)user};
	struct kt_hand_env env = {0};
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s/tls.crt", dir, name);
	(void)snprintf(binds, sizeof(binds), "%s/%s/..new\t%s/%s\n", dir, name, dir, name);
	argv[1] = path;
	use_with(&hand, &env, binds, roots, 0);
	assert_string_equal(last.what, "/bin/cat ended with exit status 0, with the candidate in place");
	assert_int_equal(last.outcome, KT_HAND_OK);
	assert_true(last.in_namespace);
	assert_string_equal(output, "new");
	/* Nobody else has seen it. */
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text) - 1), 3);
	close(fd);
	assert_string_equal(text, "old");
}

static void validate_sees_the_candidate(void **state)
{
	(void)state;
	if (!namespaces()) {
		skip();
	}
	make_volume("vol", getuid());
	check_candidate("vol", getuid() == 0 ? "root" : NULL);
	if (getuid() == 0) {
		check_candidate("vol", "www-data");
	}
}

/* The same without root, in a user namespace; refused there, the test is of the refusal. */
static void validate_without_root(void **state)
{
	const char *how = NULL;
	int status = 0;
	pid_t pid;

	(void)state;
	if (getuid() != 0) {
		skip();
	}
	make_volume("plain", 33);
	pid = fork();
	if (pid == 0) {
		struct kt_hands_config config = {0};
		struct kt_err err;

		kt_err_clear(&err);
		if (setresgid(33, 33, 33) < 0 || setresuid(33, 33, 33) < 0 || kt_loop_create(0, &loop, NULL) != KT_OK ||
		    kt_hands_create(loop, &config, &hands, NULL) != KT_OK) {
			_exit(1);
		}
		if (kt_warden_probe_namespace(&how, &err) != KT_OK) {
			(void)dprintf(2, "no user namespaces here: %s\n", err.what);
			_exit(77);
		}
		check_candidate("plain", NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void refuse_bind(const char *staged, const char *live, const char *reason)
{
	char binds[900];
	const char *roots[] = {dir, NULL};
	char *argv[] = {"/bin/true", NULL};
	struct kt_hand hand = {.kind = KT_HAND_EXEC, .argv = argv, .user = getuid() == 0 ? "root" : NULL};
	struct kt_hand_env env = {0};

	(void)snprintf(binds, sizeof(binds), "%s\t%s\n", staged, live);
	use_with(&hand, &env, binds, roots, 0);
	assert_int_equal(last.outcome, KT_HAND_CANNOT);
	assert_non_null(strstr(last.what, "cannot validate before the switch: "));
	if (strstr(last.what, reason) == NULL) {
		fail_msg("%s", last.what);
	}
}

static void candidates_elsewhere_are_refused(void **state)
{
	char staged[256];
	char live[256];
	char link[256];
	char odd[300];

	(void)state;
	make_volume("w", getuid());
	path_of("w/..new", staged);
	refuse_bind(staged, path_of("w-later", live), "does not exist yet");
	refuse_bind(staged, "/etc", "in no secret volume");
	refuse_bind("/etc", path_of("w", live), "in no secret volume");
	(void)snprintf(odd, sizeof(odd), "%s/../../etc", dir);
	refuse_bind(staged, odd, "upwards");
	(void)snprintf(odd, sizeof(odd), "%sx", dir);
	refuse_bind(staged, odd, "in no secret volume");
	refuse_bind("relative", live, "absolute");
	assert_int_equal(symlink("/etc", path_of("w-link", link)), 0);
	refuse_bind(staged, link, "");
	/* ..data that leads out. */
	assert_int_equal(unlink(path_of("w/..data", link)), 0);
	assert_int_equal(symlink("/etc", link), 0);
	refuse_bind(staged, path_of("w", live), "leads out");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(exec_says_what_happened),
	        cmocka_unit_test(exec_of_nothing_is_refused),
	        cmocka_unit_test(exec_uses_no_shell),
	        cmocka_unit_test(exec_environment_is_fixed),
	        cmocka_unit_test(exec_has_nothing_open),
	        cmocka_unit_test(exec_that_hangs_is_killed),
	        cmocka_unit_test(exec_leaves_its_daemon_alone),
	        cmocka_unit_test(exec_output_is_capped),
	        cmocka_unit_test(exec_takes_turns),
	        cmocka_unit_test(exec_runs_as_the_named_user),
	        cmocka_unit_test(systemd_by_systemctl),
	        cmocka_unit_test(touch_only_plain_files),
	        cmocka_unit_test(validate_sees_the_candidate),
	        cmocka_unit_test(validate_without_root),
	        cmocka_unit_test(candidates_elsewhere_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
