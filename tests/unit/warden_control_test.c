/* The warden of a daemon: its control socket, reloads, and the change of its program in place. */
#include "warden_stage.h"

/* --- control, reload -------------------------------------------------------------------------------------------- */

static void daemon_takes_commands_on_its_socket(void **state)
{
	struct stat st;
	char expected[64];
	struct kt_err err;
	int again;

	(void)state;
	start(KT_MODE_DAEMON);
	(void)snprintf(expected, sizeof(expected), "who %u %u %u", getuid(), getgid(), (unsigned)getpid());
	assert_string_equal(ask("who"), expected);
	assert_int_equal(stat(socket_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Nobody takes the place of an agent that answers. */
	again = kt_local_listen(socket_path, (gid_t)-1, 4, &err);
	assert_int_equal(again, -1);
	assert_int_equal(err.code, KT_E_BUSY);
	/* While there is no keeper, who connects waits for the next. */
	tell("die");
	wait_for(pid_of(KT_ROOM_KEEPER) == 0);
	close(admin);
	admin = kt_warden_connect(socket_path, &err);
	assert_true(admin >= 0);
	assert_string_equal(ask("who"), expected);
	end(0);
	assert_true(gone(socket_path));
	assert_int_equal(kt_warden_connect(socket_path, &err), -1);
	assert_int_equal(err.code, KT_E_NOTFOUND);
}

static void others_may_not_command(void **state)
{
	struct pollfd poll_fd = {.events = POLLIN};
	struct kt_err err;
	pid_t pid;

	(void)state;
	if (getuid() != 0) {
		skip();
	}
	start(KT_MODE_DAEMON);
	assert_int_equal(chmod(socket_path, 0666), 0); /* even when the file would let them */
	assert_int_equal(seteuid(33), 0);
	poll_fd.fd = kt_warden_connect(socket_path, &err);
	assert_int_equal(seteuid(0), 0);
	assert_true(poll_fd.fd >= 0);
	turn(100);
	assert_int_equal(poll(&poll_fd, 1, 0), 1);
	assert_true((poll_fd.revents & POLLHUP) != 0);
	assert_non_null(strstr(logged, "uid 33"));
	close(poll_fd.fd);
	pid = pid_of(KT_ROOM_KEEPER);
	assert_int_not_equal(pid, 0);
	end(0);
}

static void socket_paths_are_defended(void **state)
{
	char deep[300];
	char target[128];
	struct kt_err err;
	int fd;

	(void)state;
	(void)snprintf(target, sizeof(target), "%s/target", dir);
	write_text(target, "precious");
	assert_int_equal(symlink(target, socket_path), 0);
	assert_int_equal(kt_local_listen(socket_path, (gid_t)-1, 4, &err), -1);
	assert_int_equal(err.code, KT_E_POLICY);
	assert_non_null(strstr(err.what, "symbolic link"));
	assert_int_equal(unlink(socket_path), 0);
	assert_int_equal(kt_local_listen(target, (gid_t)-1, 4, &err), -1);
	assert_int_equal(err.code, KT_E_POLICY);
	/* Stale: nobody listens any more. */
	fd = kt_local_listen(socket_path, (gid_t)-1, 4, &err);
	assert_true(fd >= 0);
	close(fd);
	fd = kt_local_listen(socket_path, getgid(), 4, &err);
	assert_true(fd >= 0);
	kt_local_remove(socket_path, fd);
	close(fd);
	assert_true(gone(socket_path));
	/* Longer than sun_path. */
	(void)snprintf(deep, sizeof(deep), "%s/%0120d/%s", dir, 7, "control.sock");
	fd = kt_local_listen(deep, (gid_t)-1, 4, &err);
	assert_true(fd >= 0);
	close(fd);
	/* In a folder of everybody's. */
	(void)snprintf(deep, sizeof(deep), "%s/open", dir);
	assert_int_equal(mkdir(deep, 0777), 0);
	assert_int_equal(chmod(deep, 0777), 0);
	(void)strcat(deep, "/control.sock");
	assert_int_equal(kt_local_listen(deep, (gid_t)-1, 4, &err), -1);
}

static void reload_is_all_or_nothing(void **state)
{
	uint32_t first;
	char line[64];
	pid_t keeper;

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: old}\nspec:\n"
	                     "  secrets: [web-tls]\n  notify: [{exec: {argv: [/bin/true]}}]\n");
	start(KT_MODE_DAEMON);
	first = warden->current->number;
	keeper = pid_of(KT_ROOM_KEEPER);
	/* A bad one is refused whole. */
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: new}\nspec:\n"
	                     "  secrits: [web-tls]\n");
	assert_non_null(strstr(ask("reload"), "error invalid"));
	assert_int_equal(warden->current->number, first);
	/* So is one that the keeper does not take. */
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: new}\nspec:\n"
	                     "  secrets: [web-tls]\n  notify: [{exec: {argv: [/bin/true]}}]\n");
	assert_string_equal(ask("refuse"), "refuse");
	assert_non_null(strstr(ask("reload"), "does not like them"));
	assert_int_equal(warden->current->number, first);
	assert_null(warden->pending);
	assert_string_equal(ask("accept"), "accept");
	/* A good one, by signal; hooks of both are known. */
	assert_int_equal(raise(SIGHUP), 0);
	wait_for(warden->current->number != first);
	assert_true(warden->current->number > first);
	(void)snprintf(line, sizeof(line), "hook old %d 0 %u", KT_HOOK_NOTIFY, first);
	assert_non_null(strstr(ask(line), "hooked 0"));
	(void)snprintf(line, sizeof(line), "hook new %d 0 %u", KT_HOOK_NOTIFY, warden->current->number);
	assert_non_null(strstr(ask(line), "hooked 0"));
	assert_int_equal(pid_of(KT_ROOM_KEEPER), keeper);
	/* A new folder behind Landlock: a new keeper. */
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: new}\nspec:\n"
	                     "  volumes: [{path: /run/elsewhere, sources: [{secret: {name: web-tls}}]}]\n");
	assert_string_equal(ask("reload"), "done");
	wait_for(pid_of(KT_ROOM_KEEPER) != 0 && pid_of(KT_ROOM_KEEPER) != keeper);
	assert_int_equal(warden->rooms[KT_ROOM_KEEPER].deaths, 0);
	end(0);
}

/* In a process of its own: what it is replaced by is this very program, which then is a daemon again. */
static void reload_exec_keeps_its_sockets(void **state)
{
	char text[512];
	char before[128];
	uint16_t port = free_port();
	struct kt_err err;
	const char *after;
	int status = 0;
	int tries = 0;
	pid_t pid;

	(void)state;
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  listeners: {metrics: \"127.0.0.1:%u\"}\n",
	               port);
	write_text(manifest, text);
	pid = agent = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "warden_test", "daemon", dir, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && admin < 0; i++) {
		turn(10);
		admin = kt_warden_connect(socket_path, &err);
	}
	assert_true(admin >= 0);
	(void)snprintf(before, sizeof(before), "%s", ask("generation"));
	assert_true(answers(port));
	assert_string_equal(ask("reload exec"), "done");
	/* Neither socket is ever closed, and the process is the same. */
	for (int i = 0; i < 40; i++) {
		int fd = kt_warden_connect(socket_path, &err);

		assert_true(fd >= 0);
		close(fd);
		assert_true(answers(port));
		turn(20);
	}
	/* Who still got the old keeper tries again. */
	do {
		close(admin);
		turn(100);
		admin = kt_warden_connect(socket_path, &err);
		assert_true(admin >= 0);
		after = ask("generation");
	} while ((!kt_starts_with(after, "generation") || strcmp(after, before) == 0) && tries++ < 100);
	assert_true(kt_starts_with(after, "generation"));
	assert_string_not_equal(after, before);
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	agent = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(gone(socket_path));
	assert_false(answers(port));
}

/* What reload_exec_keeps_its_sockets starts: an agent on the same places. */
static int daemon_main(char **argv)
{
	struct kt_warden_options options;

	(void)snprintf(dir, sizeof(dir), "%s", argv[2]);
	name_places();
	options = options_for(KT_MODE_DAEMON);
	options.log_level = KT_LOG_ERROR;
	options.argv = argv;
	return kt_warden_run(&options);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	        CASE(daemon_takes_commands_on_its_socket),
	        CASE(others_may_not_command),
	        CASE(socket_paths_are_defended),
	        CASE(reload_is_all_or_nothing),
	        CASE(reload_exec_keeps_its_sockets),
	};

	if (argc == 3 && strcmp(argv[1], "daemon") == 0) {
		return daemon_main(argv);
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
