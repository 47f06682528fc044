/* The warden with rooms that do as they are told: starts, deaths, wires, requests, reloads, control socket, ends. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "warden/internal.h"

static struct kt_loop *loop;
static struct kt_warden *warden;
static char dir[] = "/tmp/kt-warden-XXXXXX";
static char rooms_dir[64];
static char state_dir[64];
static char secrets_dir[64];
static char socket_path[200];
static char manifest[64];
static char credentials[64]; /* what the Consumers of the tests use */
static int admin = -1;
static pid_t agent; /* one in a process of its own, while it runs */
static unsigned admins; /* streams that we were given */
static int finished;    /* -1: not yet */
static char logged[65536];

/* --- tools ------------------------------------------------------------------------------------------------------ */

static void on_log(enum kt_level level, const char *line, void *arg)
{
	(void)level, (void)arg;
	if (strlen(logged) + strlen(line) + 2 < sizeof(logged)) {
		(void)strcat(strcat(logged, line), "\n");
	}
}

static void on_admin(int fd, void *arg)
{
	(void)arg;
	if (admin >= 0) {
		close(admin);
	}
	admin = fd;
	admins++;
}

static void on_finished(int status, void *arg)
{
	(void)arg;
	finished = status;
}

static void on_tick(void *arg)
{
	*(bool *)arg = true;
}

/* Runs the loop until a condition of the caller's has a chance: at most so many ms. */
static void turn(kt_ms span)
{
	struct kt_timer *timer = NULL;
	bool over = false;

	assert_int_equal(kt_timer_create(loop, on_tick, &over, &timer, NULL), KT_OK);
	kt_timer_start(timer, span);
	while (!over) {
		kt_loop_run_once(loop, true);
	}
	kt_timer_destroy(timer);
}

#define wait_for(condition)                                                                                            \
	do {                                                                                                           \
		int turns_ = 0;                                                                                        \
		while (!(condition) && turns_++ < 1000) {                                                              \
			turn(10);                                                                                      \
		}                                                                                                      \
		if (!(condition)) {                                                                                    \
			fail_msg("%s does not come; log:\n%s", #condition, logged);                                    \
		}                                                                                                      \
	} while (0)

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static uint16_t free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	close(fd);
	return ntohs(address.sin_port);
}

static bool answers(uint16_t port)
{
	struct sockaddr_in address = {
	        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	bool ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

	close(fd);
	return ok;
}

static bool gone(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 && errno == ENOENT;
}

static struct kt_warden_options options_for(enum kt_run_mode mode)
{
	static const char *manifests[] = {credentials, manifest, NULL};

	return (struct kt_warden_options){.mode = mode,
	                                  .manifests = manifests,
	                                  .state_dir = state_dir,
	                                  .secrets_dir = secrets_dir,
	                                  .socket_path = socket_path,
	                                  .log_level = KT_LOG_INFO,
	                                  .no_sandbox = true,
	                                  .rooms_dir = rooms_dir};
}

static enum kt_code create(enum kt_run_mode mode, struct kt_err *err)
{
	struct kt_warden_options options = options_for(mode);
	struct kt_warden_events events = {.admin = on_admin, .finished = on_finished};

	finished = -1;
	admins = 0;
	logged[0] = '\0';
	kt_err_clear(err);
	return kt_warden_create(loop, &options, &events, &warden, err);
}

static void start(enum kt_run_mode mode)
{
	struct kt_err err;

	if (create(mode, &err) != KT_OK) {
		fail_msg("%s", err.what);
	}
	if (mode == KT_MODE_DAEMON) {
		wait_for(warden->was_ready && warden->control != NULL);
		admin = kt_warden_connect(socket_path, &err);
		if (admin < 0) {
			fail_msg("%s", err.what);
		}
	} else {
		wait_for(admins == 1);
	}
}

/* One line to the keeper, one line back. */
static const char *ask(const char *line)
{
	static char answer[8192];
	size_t len = 0;
	int turns = 0;

	(void)dprintf(admin, "%s\n", line);
	while ((len == 0 || answer[len - 1] != '\n') && turns++ < 1000) {
		ssize_t n = recv(admin, answer + len, sizeof(answer) - 1 - len, MSG_DONTWAIT);

		if (n > 0) {
			len += (size_t)n;
		} else if (n == 0) {
			break; /* the keeper has ended */
		} else {
			turn(10);
		}
	}
	answer[len > 0 ? len - 1 : 0] = '\0';
	return answer;
}

static void tell(const char *line)
{
	assert_int_equal(dprintf(admin, "%s\n", line), (int)strlen(line) + 1);
}

static void end(int status)
{
	kt_warden_stop(warden, status);
	wait_for(finished >= 0);
	assert_int_equal(finished, status);
	kt_warden_destroy(warden);
	warden = NULL;
	close(admin);
	admin = -1;
}

static pid_t pid_of(enum kt_room room)
{
	return kt_warden_room_pid(&warden->rooms[room]);
}

static int teardown_one(void **state)
{
	(void)state;
	if (agent > 0) { /* its test has failed */
		(void)kill(agent, SIGKILL);
		(void)waitpid(agent, NULL, 0);
		(void)unlink(socket_path);
		agent = 0;
	}
	kt_warden_destroy(warden);
	warden = NULL;
	if (admin >= 0) {
		close(admin);
	}
	admin = -1;
	write_text(manifest, "");
	return 0;
}

/* --- rooms ------------------------------------------------------------------------------------------------------ */

static void oneshot_ends_with_the_keepers_status(void **state)
{
	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("peers"), "peers 0 0");
	assert_int_equal(pid_of(KT_ROOM_COURIER), 0);
	tell("finish 5");
	wait_for(finished >= 0);
	assert_int_equal(finished, 5);
	assert_int_equal(pid_of(KT_ROOM_KEEPER), 0);
	/* No socket, no listener: a command is no agent. */
	assert_true(gone(socket_path));
}

static void rooms_start_when_needed_and_again_when_dead(void **state)
{
	pid_t first;

	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("need courier"), "done");
	assert_string_equal(ask("peers"), "peers 1 0");
	assert_string_equal(ask("ping"), "pong");
	assert_string_equal(ask("need courier"), "done");
	assert_string_equal(ask("peers"), "peers 1 0");
	first = pid_of(KT_ROOM_COURIER);
	assert_int_equal(kill(first, SIGKILL), 0);
	wait_for(pid_of(KT_ROOM_COURIER) != 0 && pid_of(KT_ROOM_COURIER) != first);
	wait_for(warden->rooms[KT_ROOM_COURIER].setup_done);
	assert_non_null(strstr(logged, "keyturn-courier"));
	assert_non_null(strstr(logged, "signal 9"));
	assert_string_equal(ask("ping"), "pong");
	assert_string_equal(ask("peers"), "peers 2 0");
	assert_int_equal(admins, 1);
	assert_non_null(strstr(ask("need warden"), "error"));
	end(0);
}

static void keeper_comes_back_to_the_same_courier(void **state)
{
	pid_t keeper;
	pid_t courier;

	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("need courier"), "done");
	keeper = pid_of(KT_ROOM_KEEPER);
	courier = pid_of(KT_ROOM_COURIER);
	tell("die");
	wait_for(admins == 2);
	assert_int_not_equal(pid_of(KT_ROOM_KEEPER), keeper);
	assert_int_equal(pid_of(KT_ROOM_COURIER), courier);
	wait_for(strcmp(ask("peers"), "peers 1 0") == 0);
	assert_string_equal(ask("ping"), "pong");
	/* The third death of a command's keeper is the last. */
	tell("die");
	wait_for(admins == 3);
	tell("die");
	wait_for(finished >= 0);
	assert_int_equal(finished, 1);
	assert_non_null(strstr(logged, "3 times in a row"));
	assert_int_equal(pid_of(KT_ROOM_COURIER), 0);
}

static void broken_wire_is_a_death(void **state)
{
	pid_t keeper;

	(void)state;
	start(KT_MODE_DAEMON);
	keeper = pid_of(KT_ROOM_KEEPER);
	tell("garbage");
	wait_for(pid_of(KT_ROOM_KEEPER) != 0 && pid_of(KT_ROOM_KEEPER) != keeper);
	assert_non_null(strstr(logged, "keyturn-keeper"));
	end(0);
}

static void keeper_that_never_starts(void **state)
{
	struct kt_err err;

	(void)state;
	assert_int_equal(setenv("KEYTURN_TEST_DIE", "1", 1), 0);
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	wait_for(finished >= 0);
	assert_int_equal(unsetenv("KEYTURN_TEST_DIE"), 0);
	assert_int_equal(finished, 1);
	assert_int_equal(warden->rooms[KT_ROOM_KEEPER].deaths, 3);
	assert_non_null(strstr(logged, "exit status 9"));
}

static void keeper_that_refuses_to_start(void **state)
{
	struct kt_err err;

	(void)state;
	assert_int_equal(setenv("KEYTURN_TEST_BUSY", "1", 1), 0);
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	wait_for(finished >= 0);
	assert_int_equal(unsetenv("KEYTURN_TEST_BUSY"), 0);
	assert_int_equal(finished, 75);
	assert_int_equal(admins, 0);
	assert_non_null(strstr(logged, "somebody else has the state"));
}

static void second_sigterm_does_not_wait(void **state)
{
	(void)state;
	start(KT_MODE_ONESHOT);
	assert_string_equal(ask("deaf"), "deaf");
	assert_int_equal(raise(SIGTERM), 0);
	turn(200);
	assert_int_equal(finished, -1);
	assert_int_equal(raise(SIGTERM), 0);
	wait_for(finished >= 0);
	assert_int_equal(finished, 128 + SIGTERM);
}

static void environment_of_rooms_is_small(void **state)
{
	const char *env;

	(void)state;
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", "canary", 1), 0);
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	start(KT_MODE_ONESHOT);
	env = ask("env");
	assert_null(strstr(env, "canary"));
	assert_non_null(strstr(env, "TZ=UTC,"));
	assert_non_null(strstr(env, "LANG=C.UTF-8,"));
	assert_non_null(strstr(env, "KEYTURN_TEST_MARK=1,"));
	end(0);
	assert_int_equal(unsetenv("KEYTURN_TEST_ENV"), 0);
	start(KT_MODE_ONESHOT);
	env = ask("env");
	assert_null(strstr(env, "KEYTURN_TEST_MARK"));
	end(0);
	assert_int_equal(setenv("KEYTURN_TEST_ENV", "1", 1), 0);
}

static void rooms_get_users_of_their_own(void **state)
{
	struct stat st;

	(void)state;
	if (getuid() != 0) {
		skip();
	}
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	                     "  users: {keeper: www-data, courier: daemon}\n");
	start(KT_MODE_ONESHOT);
	/* CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID and no other. */
	assert_string_equal(ask("id"), "id 33 33 000000000000001b");
	assert_int_equal(stat(state_dir, &st), 0);
	assert_int_equal(st.st_uid, 33);
	end(0);
	assert_int_equal(chown(state_dir, 0, 0), 0);
	assert_int_equal(chown(secrets_dir, 0, 0), 0);
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static void requests_of_the_keeper(void **state)
{
	char text[2048];
	char path[128];
	char line[256];
	uint32_t generation;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/touch.me", dir);
	write_text(path, "");
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  masterKey: {command: [/bin/echo, the-key]}\n---\n"
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: edge}\nspec:\n"
	               "  secrets: [web-tls]\n"
	               "  validate: [{exec: {argv: [/usr/bin/env], user: root}}]\n"
	               "  notify:\n  - touch: {path: %s}\n  - http: {url: \"https://a.example/\"}\n"
	               "  prove: [{secret: web-tls, exec: {argv: [/bin/false], user: root}}]\n",
	               path);
	write_text(manifest, text);
	start(KT_MODE_ONESHOT);
	generation = warden->current->number;
	assert_string_equal(ask("owner"), "owned 0 1");
	assert_non_null(strstr(ask("stranger"), "error not"));
	assert_string_equal(ask("key"), "key the-key");
	(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "hooked 0"));
	(void)snprintf(line, sizeof(line), "hook edge %d 1 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "hooked 3"));
	(void)snprintf(line, sizeof(line), "hook edge %d 2 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edgy %d 0 %u", KT_HOOK_NOTIFY, generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edge 7 0 %u", generation);
	assert_non_null(strstr(ask(line), "no such hook"));
	(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_NOTIFY, generation + 1);
	assert_non_null(strstr(ask(line), "not known any more"));
	if (getuid() == 0) {
		(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_PROVE, generation);
		assert_non_null(strstr(ask(line), "hooked 1"));
		(void)snprintf(line, sizeof(line), "hook edge %d 0 %u", KT_HOOK_VALIDATE, generation);
		assert_non_null(strstr(ask(line), "PATH="));
	}
	end(0);
}

static void orphaned_hook_does_no_harm(void **state)
{
	char line[64];

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: slow}\nspec:\n"
	                     "  secrets: [web-tls]\n  notify: [{exec: {argv: [/bin/sleep, \"0.3\"]}}]\n");
	start(KT_MODE_ONESHOT);
	(void)snprintf(line, sizeof(line), "hook slow %d 0 %u", KT_HOOK_NOTIFY, warden->current->number);
	tell(line);
	wait_for(warden->hook_calls != NULL);
	tell("die");
	wait_for(admins == 2);
	wait_for(warden->hook_calls == NULL);
	assert_string_equal(ask("peers"), "peers 0 0");
	end(0);
}

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

/* --- the desk --------------------------------------------------------------------------------------------------- */

static void listeners_are_bound_for_the_desk(void **state)
{
	char text[512];
	uint16_t port = free_port();
	uint16_t other = free_port();
	pid_t desk;

	(void)state;
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  listeners: {metrics: \"127.0.0.1:%u\"}\n",
	               port);
	write_text(manifest, text);
	start(KT_MODE_DAEMON);
	wait_for(warden->rooms[KT_ROOM_DESK].setup_done);
	assert_true(answers(port));
	desk = pid_of(KT_ROOM_DESK);
	(void)snprintf(text, sizeof(text),
	               "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	               "  listeners: {metrics: \"127.0.0.1:%u\", http01: \"127.0.0.1:%u\"}\n",
	               port, other);
	write_text(manifest, text);
	assert_string_equal(ask("reload"), "done");
	wait_for(pid_of(KT_ROOM_DESK) != desk && warden->rooms[KT_ROOM_DESK].setup_done);
	assert_true(answers(port));
	assert_true(answers(other));
	end(0);
	assert_false(answers(port));
}

static void listener_addresses(void **state)
{
	static const char *const wrong[] = {"", "8080", "host:", "127.0.0.1:http", "::1:80", "127.0.0.1:99999x"};
	struct kt_err err;
	char text[64];
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(kt_listen_on(wrong[i], &err), -1);
	}
	(void)snprintf(text, sizeof(text), ":%u", free_port());
	fd = kt_listen_on(text, &err);
	assert_true(fd >= 0);
	close(fd);
}

static void systemd_is_told(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[256] = "";
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	(void)state;
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
	assert_int_equal(setenv("WATCHDOG_USEC", "100000", 1), 0);
	start(KT_MODE_DAEMON);
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	while (!kt_starts_with(text, "READY=1")) {
		memset(text, 0, sizeof(text));
		assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	}
	turn(120);
	memset(text, 0, sizeof(text));
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "WATCHDOG=1");
	end(0);
	for (memset(text, 0, sizeof(text)); !kt_starts_with(text, "STOPPING=1"); memset(text, 0, sizeof(text))) {
		assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
		if (kt_starts_with(text, "STOPPING=1")) {
			break;
		}
	}
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
	close(fd);
}

/* --- settings --------------------------------------------------------------------------------------------------- */

static void wrong_manifests_are_refused(void **state)
{
	struct kt_err err;

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: x}\nspec:\n"
	                     "  notify: [{signal: {name: HUP, pidfile: /run/x.pid}}]\n");
	assert_int_equal(create(KT_MODE_ONESHOT, &err), KT_E_INVALID);
	assert_non_null(strstr(err.what, "pidfile"));
	write_text(manifest, "");
	assert_int_equal(chmod(manifest, 0666), 0);
	assert_int_not_equal(create(KT_MODE_ONESHOT, &err), KT_OK);
	assert_int_equal(chmod(manifest, 0600), 0);
}

static void places_come_from_options_and_settings(void **state)
{
	struct kt_warden_options options = options_for(KT_MODE_READONLY);
	struct kt_warden_places places;
	struct kt_err err;

	(void)state;
	write_text(manifest, "apiVersion: keyturn.dev/v1alpha1\nkind: Agent\nmetadata: {name: agent}\nspec:\n"
	                     "  stateDir: /srv/state\n  secretsDir: /srv/secrets\n");
	assert_int_equal(kt_warden_places(&options, &places, &err), KT_OK);
	assert_string_equal(places.state_dir, state_dir);
	kt_warden_places_finish(&places);
	options.state_dir = options.secrets_dir = options.socket_path = NULL;
	assert_int_equal(kt_warden_places(&options, &places, &err), KT_OK);
	assert_string_equal(places.state_dir, "/srv/state");
	assert_string_equal(places.secrets_dir, "/srv/secrets");
	assert_string_equal(places.socket_path, "/srv/state/control.sock");
	kt_warden_places_finish(&places);
}

/* --- all of it -------------------------------------------------------------------------------------------------- */

static void name_places(void)
{
	(void)snprintf(rooms_dir, sizeof(rooms_dir), "%s/rooms", dir);
	(void)snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
	(void)snprintf(secrets_dir, sizeof(secrets_dir), "%s/secrets", dir);
	(void)snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
	(void)snprintf(manifest, sizeof(manifest), "%s/m.yaml", dir);
	(void)snprintf(credentials, sizeof(credentials), "%s/c.yaml", dir);
}

static int setup(void **state)
{
	static const char *const rooms[] = {"keeper", "courier", "desk"};
	char program[PATH_MAX];
	char path[256];
	char *slash;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 20);

	(void)state;
	if (n <= 0 || mkdtemp(dir) == NULL) {
		return -1;
	}
	program[n] = '\0';
	slash = strrchr(program, '/');
	memcpy(slash, "/fake_room", sizeof("/fake_room"));
	name_places();
	write_text(credentials,
	           "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n---\n"
	           "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: web}\nspec:\n"
	           "  {secretName: web-tls, dnsNames: [web.example], issuerRef: {name: self}}\n");
	write_text(manifest, "");
	if (mkdir(rooms_dir, 0755) < 0 || chmod(dir, 0755) < 0) {
		return -1;
	}
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/keyturn-%s", rooms_dir, rooms[i]);
		if (symlink(program, path) < 0) {
			return -1;
		}
	}
	(void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
	(void)setenv("KEYTURN_TEST_ENV", "1", 1);
	(void)setenv("KEYTURN_TEST_MARK", "1", 1);
	kt_json_init();
	kt_log_capture(on_log, NULL);
	return kt_loop_create(0, &loop, NULL) == KT_OK ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	kt_loop_destroy(loop);
	(void)kt_io_remove_tree(AT_FDCWD, dir, NULL);
	return 0;
}

#define CASE(name) cmocka_unit_test_teardown(name, teardown_one)

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
	        CASE(oneshot_ends_with_the_keepers_status),
	        CASE(rooms_start_when_needed_and_again_when_dead),
	        CASE(keeper_comes_back_to_the_same_courier),
	        CASE(broken_wire_is_a_death),
	        CASE(keeper_that_never_starts),
	        CASE(keeper_that_refuses_to_start),
	        CASE(second_sigterm_does_not_wait),
	        CASE(environment_of_rooms_is_small),
	        CASE(rooms_get_users_of_their_own),
	        CASE(requests_of_the_keeper),
	        CASE(orphaned_hook_does_no_harm),
	        CASE(daemon_takes_commands_on_its_socket),
	        CASE(others_may_not_command),
	        CASE(socket_paths_are_defended),
	        CASE(reload_is_all_or_nothing),
	        CASE(reload_exec_keeps_its_sockets),
	        CASE(listeners_are_bound_for_the_desk),
	        CASE(listener_addresses),
	        CASE(systemd_is_told),
	        CASE(wrong_manifests_are_refused),
	        CASE(places_come_from_options_and_settings),
	};

	if (argc == 3 && strcmp(argv[1], "daemon") == 0) {
		return daemon_main(argv);
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
