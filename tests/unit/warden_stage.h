/* What the tests of the warden share: rooms that do as they are told, an agent among them, and places of its own. */
#ifndef TESTS_UNIT_WARDEN_STAGE_H
#define TESTS_UNIT_WARDEN_STAGE_H

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

static inline void on_log(enum kt_level level, const char *line, void *arg)
{
	(void)level, (void)arg;
	if (strlen(logged) + strlen(line) + 2 < sizeof(logged)) {
		(void)strcat(strcat(logged, line), "\n");
	}
}

static inline void on_admin(int fd, void *arg)
{
	(void)arg;
	if (admin >= 0) {
		close(admin);
	}
	admin = fd;
	admins++;
}

static inline void on_finished(int status, void *arg)
{
	(void)arg;
	finished = status;
}

static inline void on_tick(void *arg)
{
	*(bool *)arg = true;
}

/* Runs the loop until a condition of the caller's has a chance: at most so many ms. */
static inline void turn(kt_ms span)
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

static inline void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static inline uint16_t free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	close(fd);
	return ntohs(address.sin_port);
}

static inline bool answers(uint16_t port)
{
	struct sockaddr_in address = {
	        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	bool ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

	close(fd);
	return ok;
}

static inline bool gone(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 && errno == ENOENT;
}

static inline struct kt_warden_options options_for(enum kt_run_mode mode)
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

static inline enum kt_code create(enum kt_run_mode mode, struct kt_err *err)
{
	struct kt_warden_options options = options_for(mode);
	struct kt_warden_events events = {.admin = on_admin, .finished = on_finished};

	finished = -1;
	admins = 0;
	logged[0] = '\0';
	kt_err_clear(err);
	return kt_warden_create(loop, &options, &events, &warden, err);
}

static inline void start(enum kt_run_mode mode)
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
static inline const char *ask(const char *line)
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

static inline void tell(const char *line)
{
	assert_int_equal(dprintf(admin, "%s\n", line), (int)strlen(line) + 1);
}

static inline void end(int status)
{
	kt_warden_stop(warden, status);
	wait_for(finished >= 0);
	assert_int_equal(finished, status);
	kt_warden_destroy(warden);
	warden = NULL;
	close(admin);
	admin = -1;
}

static inline pid_t pid_of(enum kt_room room)
{
	return kt_warden_room_pid(&warden->rooms[room]);
}

static inline int teardown_one(void **state)
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

/* --- before and after --------------------------------------------------------------------------------------------- */

static inline void name_places(void)
{
	(void)snprintf(rooms_dir, sizeof(rooms_dir), "%s/rooms", dir);
	(void)snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
	(void)snprintf(secrets_dir, sizeof(secrets_dir), "%s/secrets", dir);
	(void)snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
	(void)snprintf(manifest, sizeof(manifest), "%s/m.yaml", dir);
	(void)snprintf(credentials, sizeof(credentials), "%s/c.yaml", dir);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
	(void)state;
	kt_loop_destroy(loop);
	(void)kt_io_remove_tree(AT_FDCWD, dir, NULL);
	return 0;
}

#define CASE(name) cmocka_unit_test_teardown(name, teardown_one)

#endif
