/* What the tests of the desk share: a desk on loopback sockets, the keeper that they play, and clients. */
#ifndef TESTS_UNIT_DESK_STAGE_H
#define TESTS_UNIT_DESK_STAGE_H

#include "config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "desk/desk.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"

#define TOKEN "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"
#define CHALLENGE "/.well-known/acme-challenge/" TOKEN

/* Those that may listen on TCP. */
enum { STAGE_KINDS = KT_DESK_TOKENS };

/* What the keeper that the test plays does when it is asked. */
enum keeper_mode { ANSWERS, HOLDS, FAILS };

static struct {
	struct kt_loop *loop;
	struct kt_desk *desk;
	struct kt_wire *keeper;
	uint16_t ports[STAGE_KINDS];
	enum keeper_mode mode;
	unsigned asked;
	uint32_t held;
	unsigned done;
	struct kt_err last;
} t;

static inline int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static inline void turn(void)
{
	for (int i = 0; i < 4; i++)
		kt_loop_run_once(t.loop, false);
	(void)poll(NULL, 0, 1);
}

static inline void turn_for(int64_t ms)
{
	int64_t end = clock_ms() + ms;

	while (clock_ms() < end)
		turn();
}

/* --- the keeper -------------------------------------------------------------------------------------------------- */

static inline void give_page(uint32_t id, unsigned number)
{
	char body[64];
	struct kt_msg_page_given given = {.status = 200};

	snprintf(body, sizeof(body), "answer %u\n", number);
	given.content_type = kt_view_str("text/plain; version=0.0.4");
	given.body = kt_view_str(body);
	kt_wire_reply(t.keeper, id, KT_PAGE_GIVEN, &given, NULL, 0);
}

static inline void on_page(struct kt_wire_in *in, void *arg)
{
	struct kt_err err;

	(void)arg;
	t.asked++;
	if (t.mode == ANSWERS) {
		give_page(in->id, t.asked);
	} else if (t.mode == HOLDS) {
		t.held = in->id;
	} else {
		(void)kt_err_set(&err, KT_E_LATER, "the store is busy");
		kt_wire_reply_err(in->wire, in->id, &err);
	}
}

static const struct kt_wire_handler keeper_handlers[] = {{KT_PAGE, on_page}, {KT_MSG_TYPE_NONE, NULL}};

static inline void keeper_starts(void)
{
	struct kt_wire_config config = {.self = KT_ROOM_KEEPER, .peer = KT_ROOM_DESK, .handlers = keeper_handlers};
	struct kt_err err;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	assert_int_equal(kt_wire_create(t.loop, &config, &t.keeper, &err), KT_OK);
	assert_int_equal(kt_wire_attach(t.keeper, ends[1], &err), KT_OK);
	assert_int_equal(kt_desk_attach(t.desk, ends[0], &err), KT_OK);
	turn_for(20);
}

static inline void keeper_dies(void)
{
	kt_wire_destroy(t.keeper);
	t.keeper = NULL;
	turn_for(20);
}

static inline void on_served(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                      void *arg)
{
	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	(void)arg;
	t.done++;
	t.last = *err;
}

/* As the keeper does it; the code of the reply. */
static inline enum kt_code serve(const char *listener, const char *path, const char *type, const char *body, uint32_t max_age)
{
	struct kt_msg_serve msg = {kt_view_str(listener), kt_view_str(path), kt_view_str(type), kt_view_str(body),
	                           max_age};
	unsigned before = t.done;
	int64_t end = clock_ms() + 5000;
	struct kt_err err;

	assert_int_equal(kt_wire_call(t.keeper, KT_SERVE, &msg, NULL, 0, 5000, on_served, &t, &err), KT_OK);
	while (t.done == before && clock_ms() < end)
		turn();
	assert_int_equal(t.done, before + 1);
	return t.last.code;
}

/* --- clients ----------------------------------------------------------------------------------------------------- */

static inline int client(const char *from, uint16_t port)
{
	struct sockaddr_in source = {.sin_family = AF_INET}, dest = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(inet_pton(AF_INET, from, &source.sin_addr), 1);
	dest.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&source, sizeof(source)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&dest, sizeof(dest)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static inline void say(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* the desk has heard enough */
		turn();
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
}

/* True when the other side has ended it. */
static inline bool is_closed(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static char answer[256 * 1024];

/* The whole answer up to the end of the connection; fails the test when that doesn't come. */
static inline const char *hear(int fd, int64_t patience)
{
	int64_t end = clock_ms() + patience;
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, answer + len, sizeof(answer) - 1 - len, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		if (n > 0)
			len += (size_t)n;
		assert_true(clock_ms() < end);
		turn();
	}
	answer[len] = '\0';
	close(fd);
	return answer;
}

static inline const char *request_from(const char *from, enum kt_desk_kind kind, const char *text, size_t len)
{
	int fd = client(from, t.ports[kind]);

	say(fd, text, len);
	return hear(fd, 5000);
}

static inline const char *get_host(enum kt_desk_kind kind, const char *method, const char *path, const char *host)
{
	char text[2048];
	int len = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, path,
	                   host);

	return request_from("127.0.0.1", kind, text, (size_t)len);
}

static inline const char *get(enum kt_desk_kind kind, const char *path)
{
	return get_host(kind, "GET", path, "localhost");
}

static inline int status_of(const char *text)
{
	return strncmp(text, "HTTP/1.1 ", 9) == 0 ? (int)strtol(text + 9, NULL, 10) : 0;
}

static inline const char *body_of(const char *text)
{
	const char *end = strstr(text, "\r\n\r\n");

	return end ? end + 4 : "";
}

/* --- the stage --------------------------------------------------------------------------------------------------- */

static inline int listener(uint16_t *ret_port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(fd, 4096), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	*ret_port = ntohs(addr.sin_port);
	return fd;
}

static inline int setup(void **state)
{
	struct kt_err err;
	int fds[STAGE_KINDS];

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(kt_loop_create(0, &t.loop, &err), KT_OK);
	assert_int_equal(kt_desk_create(t.loop, &t.desk, &err), KT_OK);
	for (unsigned i = 0; i < STAGE_KINDS; i++)
		fds[i] = listener(&t.ports[i]);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("metrics 127.0.0.1:1\nacme 127.0.0.1:2\njwks x\nprobes :3\n"
	                                                     "control 127.0.0.1:4\n"), fds,
	                                STAGE_KINDS, &err),
	                 KT_OK);
	for (unsigned i = 0; i < STAGE_KINDS; i++)
		assert_int_equal(fds[i], -1);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	kt_wire_destroy(t.keeper);
	kt_desk_destroy(t.desk);
	kt_loop_destroy(t.loop);
	return 0;
}

/* --- the program itself, behind its walls ------------------------------------------------------------------------ */

struct program {
	pid_t pid;
	struct kt_wire *warden;
};

/* With listeners as in SETUP; the test keeps its descriptors. Its keeper is t.keeper. */
static inline void program_starts(struct program *ret, const char *lines, const int *fds, unsigned count)
{
	struct kt_wire_config config = {.self = KT_ROOM_WARDEN, .peer = KT_ROOM_DESK, .handlers = &keeper_handlers[1]};
	struct kt_wire_config keeper_config = {.self = KT_ROOM_KEEPER, .peer = KT_ROOM_DESK, .handlers = keeper_handlers};
	struct kt_msg_setup msg = {.mode = KT_MODE_DAEMON, .log_level = KT_LOG_INFO, .sandbox = true,
	                           .settings = KT_VIEW_LIT("{}"), .listeners = kt_view_str(lines)};
	struct kt_msg_peer peer = {KT_ROOM_KEEPER};
	int64_t limit = clock_ms() + 10000;
	struct kt_err err;
	int ends[2], wire[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	ret->pid = fork();
	assert_true(ret->pid >= 0);
	if (ret->pid == 0) {
		if (ends[1] == 3)
			(void)fcntl(3, F_SETFD, 0);
		else
			(void)dup2(ends[1], 3);
		execl("./keyturn-desk", "keyturn-desk", (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(kt_wire_create(t.loop, &config, &ret->warden, &err), KT_OK);
	assert_int_equal(kt_wire_attach(ret->warden, ends[0], &err), KT_OK);
	assert_int_equal(kt_wire_call(ret->warden, KT_SETUP, &msg, fds, count, 5000, on_served, &t, &err), KT_OK);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, wire), 0);
	assert_int_equal(kt_wire_call(ret->warden, KT_PEER, &peer, &wire[0], 1, 5000, on_served, &t, &err), KT_OK);
	while (t.done < 2 && clock_ms() < limit)
		turn();
	assert_int_equal(t.done, 2);
	assert_int_equal(t.last.code, KT_OK);
	close(wire[0]);
	assert_int_equal(kt_wire_create(t.loop, &keeper_config, &t.keeper, &err), KT_OK);
	assert_int_equal(kt_wire_attach(t.keeper, wire[1], &err), KT_OK);
}

static inline void program_ends(struct program *program)
{
	int64_t limit = clock_ms() + 10000;
	struct kt_err err;
	int status;

	assert_int_equal(kt_wire_notice(program->warden, KT_SHUTDOWN, &(struct kt_msg_shutdown){0}, NULL, 0, &err), KT_OK);
	while (waitpid(program->pid, &status, WNOHANG) == 0) {
		assert_true(clock_ms() < limit);
		turn();
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	kt_wire_destroy(program->warden);
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static inline int desk_tests_start(void)
{
	struct kt_err err;

	kt_json_init();
	if (kt_secret_init(&err))
		return 1;
	kt_log_setup("desk", KT_LOG_ERROR, false);
	return 0;
}

#endif
