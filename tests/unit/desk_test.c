/* The desk over real loopback sockets, with a keeper that the test plays and clients that are not always polite. */
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

/* What the keeper that the test plays does when it is asked. */
enum keeper_mode { ANSWERS, HOLDS, FAILS };

static struct {
	struct kt_loop *loop;
	struct kt_desk *desk;
	struct kt_wire *keeper;
	uint16_t ports[KT_DESK_KINDS];
	enum keeper_mode mode;
	unsigned asked;
	uint32_t held;
	unsigned done;
	struct kt_err last;
} t;

static int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void turn(void)
{
	for (int i = 0; i < 4; i++)
		kt_loop_run_once(t.loop, false);
	(void)poll(NULL, 0, 1);
}

static void turn_for(int64_t ms)
{
	int64_t end = clock_ms() + ms;

	while (clock_ms() < end)
		turn();
}

/* --- the keeper -------------------------------------------------------------------------------------------------- */

static void give_page(uint32_t id, unsigned number)
{
	char body[64];
	struct kt_msg_page_given given = {.status = 200};

	snprintf(body, sizeof(body), "answer %u\n", number);
	given.content_type = kt_view_str("text/plain; version=0.0.4");
	given.body = kt_view_str(body);
	kt_wire_reply(t.keeper, id, KT_PAGE_GIVEN, &given, NULL, 0);
}

static void on_page(struct kt_wire_in *in, void *arg)
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

static void keeper_starts(void)
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

static void keeper_dies(void)
{
	kt_wire_destroy(t.keeper);
	t.keeper = NULL;
	turn_for(20);
}

static void on_served(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
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
static enum kt_code serve(const char *listener, const char *path, const char *type, const char *body, uint32_t max_age)
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

static int client(const char *from, uint16_t port)
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

static void say(int fd, const char *text, size_t len)
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
static bool is_closed(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static char answer[256 * 1024];

/* The whole answer up to the end of the connection; fails the test when that doesn't come. */
static const char *hear(int fd, int64_t patience)
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

static const char *request_from(const char *from, enum kt_desk_kind kind, const char *text, size_t len)
{
	int fd = client(from, t.ports[kind]);

	say(fd, text, len);
	return hear(fd, 5000);
}

static const char *get_host(enum kt_desk_kind kind, const char *method, const char *path, const char *host)
{
	char text[2048];
	int len = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, path,
	                   host);

	return request_from("127.0.0.1", kind, text, (size_t)len);
}

static const char *get(enum kt_desk_kind kind, const char *path)
{
	return get_host(kind, "GET", path, "localhost");
}

static int status_of(const char *text)
{
	return strncmp(text, "HTTP/1.1 ", 9) == 0 ? (int)strtol(text + 9, NULL, 10) : 0;
}

static const char *body_of(const char *text)
{
	const char *end = strstr(text, "\r\n\r\n");

	return end ? end + 4 : "";
}

/* --- the stage --------------------------------------------------------------------------------------------------- */

static int listener(uint16_t *ret_port)
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

static int setup(void **state)
{
	struct kt_err err;
	int fds[KT_DESK_KINDS];

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(kt_loop_create(0, &t.loop, &err), KT_OK);
	assert_int_equal(kt_desk_create(t.loop, &t.desk, &err), KT_OK);
	for (unsigned i = 0; i < KT_DESK_KINDS; i++)
		fds[i] = listener(&t.ports[i]);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("metrics 127.0.0.1:1\nacme 127.0.0.1:2\njwks x\n"), fds,
	                                KT_DESK_KINDS, &err),
	                 KT_OK);
	for (unsigned i = 0; i < KT_DESK_KINDS; i++)
		assert_int_equal(fds[i], -1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kt_wire_destroy(t.keeper);
	kt_desk_destroy(t.desk);
	kt_loop_destroy(t.loop);
	return 0;
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static void test_status_page(void **state)
{
	const char *text = get(KT_DESK_METRICS, "/");
	const char *policy;
	unsigned long length;

	(void)state;
	assert_int_equal(status_of(text), 200);
	policy = strstr(text, "Content-Security-Policy: default-src 'none'; ");
	assert_non_null(policy);
	assert_non_null(strstr(policy, "script-src 'sha256-"));
	assert_non_null(strstr(policy, "style-src 'sha256-"));
	assert_null(strstr(text, "unsafe-inline"));
	assert_non_null(strstr(text, "X-Content-Type-Options: nosniff"));
	assert_null(strstr(text, "Server:"));
	assert_non_null(strstr(body_of(text), "<title>keyturn</title>"));
	/* Nothing from elsewhere. */
	assert_null(strstr(body_of(text), "https://"));
	length = strlen(body_of(text));
	text = get_host(KT_DESK_METRICS, "HEAD", "/", "localhost");
	assert_int_equal(status_of(text), 200);
	assert_int_equal(strlen(body_of(text)), 0);
	assert_int_equal(strtoul(strstr(text, "Content-Length: ") + 16, NULL, 10), length);
}

static void test_rebinding(void **state)
{
	static const struct {
		const char *host;
		int status;
	} cases[] = {
		{"localhost", 200},      {"LOCALHOST:9464", 200},  {"127.0.0.1:9464", 200}, {"[::1]:9464", 200},
		{"10.1.2.3", 200},       {"x.localhost:80", 200},  {"evil.example", 421},   {"evil.example:9464", 421},
		{"notlocalhost", 421},   {"127.0.0.1.evil.example", 421}, {"localhost.evil.example", 421}, {"", 421},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = status_of(get_host(KT_DESK_METRICS, "GET", "/", cases[i].host));

		if (status != cases[i].status)
			print_message("Host '%s' gave %d\n", cases[i].host, status);
		assert_int_equal(status, cases[i].status);
	}
	/* Prometheus may call the machine by any name. */
	keeper_starts();
	assert_int_equal(status_of(get_host(KT_DESK_METRICS, "GET", "/metrics", "node1.example:9464")), 200);
	assert_int_equal(status_of(get_host(KT_DESK_METRICS, "GET", "/status.json", "node1.example:9464")), 421);
}

static void test_exact_paths(void **state)
{
	static const char *const others[] = {
		"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge", CHALLENGE "/", CHALLENGE "x",
		CHALLENGE "?a=b", CHALLENGE "%00", CHALLENGE ";", "/" CHALLENGE, "/x/.." CHALLENGE,
		"/.well-known/acme-challenge/../acme-challenge/" TOKEN, "/.well-known/./acme-challenge/" TOKEN,
		"/.well-known/acme-challenge/..%2facme-challenge/" TOKEN, "/.well-known/acme%2dchallenge/" TOKEN,
		"/%2ewell-known/acme-challenge/" TOKEN, "/.well-known/acme-challenge/%65vaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA",
		"/.WELL-KNOWN/acme-challenge/" TOKEN, "/../../../../etc/passwd", "//etc/passwd", "/metrics", "/status.json",
		"http://localhost" CHALLENGE,
	};
	const char *text;

	(void)state;
	keeper_starts();
	assert_int_equal(status_of(get(KT_DESK_ACME, CHALLENGE)), 404);
	assert_int_equal(serve("acme", CHALLENGE, "application/octet-stream", TOKEN ".thumb", 0), KT_OK);
	text = get(KT_DESK_ACME, CHALLENGE);
	assert_int_equal(status_of(text), 200);
	assert_string_equal(body_of(text), TOKEN ".thumb");
	assert_non_null(strstr(text, "Content-Type: application/octet-stream\r\n"));
	assert_non_null(strstr(text, "Cache-Control: no-store\r\n"));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		int status = status_of(get(KT_DESK_ACME, others[i]));

		if (status != 404)
			print_message("%s gave %d\n", others[i], status);
		assert_int_equal(status, 404);
	}
	/* Each listener has its own. */
	assert_int_equal(status_of(get(KT_DESK_JWKS, CHALLENGE)), 404);
	assert_int_equal(status_of(get(KT_DESK_METRICS, CHALLENGE)), 404);
	assert_int_equal(serve("jwks", "/jwks.json", "application/json", "{\"keys\":[]}", 3600), KT_OK);
	text = get(KT_DESK_JWKS, "/jwks.json");
	assert_string_equal(body_of(text), "{\"keys\":[]}");
	assert_non_null(strstr(text, "Cache-Control: public, max-age=3600\r\n"));
	assert_int_equal(status_of(get(KT_DESK_ACME, "/jwks.json")), 404);
	/* Replaced, and taken away. */
	assert_int_equal(serve("acme", CHALLENGE, "text/plain", "again", 0), KT_OK);
	assert_string_equal(body_of(get(KT_DESK_ACME, CHALLENGE)), "again");
	assert_int_equal(serve("acme", CHALLENGE, "", "", 0), KT_OK);
	assert_int_equal(status_of(get(KT_DESK_ACME, CHALLENGE)), 404);
}

static void test_requests_refused(void **state)
{
	static const struct {
		const char *text;
		int status; /* 0: no answer at all is fine too */
	} cases[] = {
		{"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405},
		{"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405},
		{"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 413},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", 413},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 413},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\n\r\n", 400},
		{"GET /\r\n\r\n", 0},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 0},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
	};
	static const char nul[] = "GET /x\0/../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

	(void)state;
	t.desk->request_ms = 300;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = status_of(request_from("127.0.0.1", KT_DESK_METRICS, cases[i].text, strlen(cases[i].text)));

		if (cases[i].status ? status != cases[i].status : status == 200)
			print_message("'%s' gave %d\n", cases[i].text, status);
		if (cases[i].status)
			assert_int_equal(status, cases[i].status);
		else
			assert_int_not_equal(status, 200);
	}
	assert_non_null(strstr(get_host(KT_DESK_METRICS, "POST", "/", "localhost"), "Allow: GET, HEAD\r\n"));
	/* To libmicrohttpd a NUL ends the path; what is behind it reaches nothing. */
	assert_int_equal(status_of(request_from("127.0.0.1", KT_DESK_METRICS, nul, sizeof(nul) - 1)), 404);
}

static void test_long_requests(void **state)
{
	static char text[64 * 1024];
	size_t len;
	int fd, status;

	(void)state;
	t.desk->request_ms = 1000;
	memset(text, 'a', sizeof(text));
	memcpy(text, "GET /", 5);
	len = 5 + KT_DESK_PATH_MAX;
	len += (size_t)snprintf(text + len, 100, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
	assert_int_equal(status_of(request_from("127.0.0.1", KT_DESK_ACME, text, len)), 414);
	/* One endless line, then endlessly many. */
	memset(text, 'a', sizeof(text));
	memcpy(text, "GET /", 5);
	status = status_of(request_from("127.0.0.1", KT_DESK_ACME, text, sizeof(text)));
	assert_true(status == 0 || (status >= 400 && status < 500));
	fd = client("127.0.0.1", t.ports[KT_DESK_ACME]);
	len = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: localhost\r\n");
	while (len + 8 < sizeof(text)) {
		memcpy(text + len, "X: y\r\n", 6);
		len += 6;
	}
	say(fd, text, len);
	status = status_of(hear(fd, 5000));
	assert_true(status == 0 || (status >= 400 && status < 500));
}

static void test_pages(void **state)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	int fds[20];
	const char *text;

	(void)state;
	/* No keeper yet. */
	text = get(KT_DESK_METRICS, "/readyz");
	assert_int_equal(status_of(text), 503);
	assert_non_null(strstr(text, "the keeper does not answer: "));
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/livez")), 503);
	keeper_starts();
	turn_for(KT_DESK_PAGE_FRESH_MS + 20);
	text = get(KT_DESK_METRICS, "/metrics");
	assert_int_equal(status_of(text), 200);
	assert_string_equal(body_of(text), "answer 1\n");
	assert_non_null(strstr(text, "Content-Type: text/plain; version=0.0.4\r\n"));
	/* Fresh enough for everybody. */
	assert_string_equal(body_of(get(KT_DESK_METRICS, "/metrics")), "answer 1\n");
	assert_int_equal(t.asked, 1);
	turn_for(KT_DESK_PAGE_FRESH_MS + 20);
	/* Many ask while the keeper thinks: one question. */
	t.mode = HOLDS;
	for (unsigned i = 0; i < 20; i++) {
		fds[i] = client("127.0.0.1", t.ports[KT_DESK_METRICS]);
		say(fds[i], request, sizeof(request) - 1);
	}
	turn_for(50);
	assert_int_equal(t.asked, 2);
	close(fds[19]); /* one of them loses patience */
	give_page(t.held, 77);
	for (unsigned i = 0; i < 19; i++)
		assert_string_equal(body_of(hear(fds[i], 5000)), "answer 77\n");
	/* An error of the keeper is not an answer. */
	t.mode = FAILS;
	text = get(KT_DESK_METRICS, "/status.json");
	assert_int_equal(status_of(text), 503);
	assert_non_null(strstr(text, "the store is busy"));
	assert_int_equal(status_of(get_host(KT_DESK_METRICS, "HEAD", "/status.json", "localhost")), 503);
}

static void test_keeper_dies(void **state)
{
	static const char request[] = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	int fds[5];

	(void)state;
	keeper_starts();
	t.mode = HOLDS;
	for (unsigned i = 0; i < 5; i++) {
		fds[i] = client("127.0.0.1", t.ports[KT_DESK_METRICS]);
		say(fds[i], request, sizeof(request) - 1);
	}
	turn_for(30);
	assert_int_equal(t.asked, 1);
	keeper_dies();
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(status_of(hear(fds[i], 2000)), 503);
	/* The next keeper is asked anew. */
	t.mode = ANSWERS;
	keeper_starts();
	turn_for(KT_DESK_PAGE_FRESH_MS + 20);
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/livez")), 200);
}

/* The desk ends while somebody waits: no crash, and an answer or an end. */
static void test_end_while_waiting(void **state)
{
	static const char request[] = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	int fd, status;

	(void)state;
	keeper_starts();
	t.mode = HOLDS;
	fd = client("127.0.0.1", t.ports[KT_DESK_METRICS]);
	say(fd, request, sizeof(request) - 1);
	turn_for(30);
	assert_int_equal(t.asked, 1);
	kt_desk_destroy(t.desk);
	t.desk = NULL;
	status = status_of(hear(fd, 1000));
	assert_true(status == 0 || status == 503);
}

static void test_keep_alive(void **state)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
	int fd;

	(void)state;
	keeper_starts();
	fd = client("127.0.0.1", t.ports[KT_DESK_METRICS]);
	for (int i = 0; i < 3; i++) {
		ssize_t n;

		say(fd, request, sizeof(request) - 1);
		turn_for(30);
		n = recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT);
		assert_true(n > 0);
		answer[n] = '\0';
		assert_int_equal(status_of(answer), 200);
		assert_false(is_closed(fd));
	}
	close(fd);
}

static void test_slow_clients(void **state)
{
	enum { SLOW = 40 };
	int fds[SLOW], idle, drip, open_ones = 0;
	int64_t began;

	(void)state;
	t.desk->request_ms = 400;
	idle = client("127.0.0.1", t.ports[KT_DESK_ACME]);
	drip = client("127.0.0.3", t.ports[KT_DESK_ACME]);
	for (unsigned i = 0; i < SLOW; i++) {
		fds[i] = client("127.0.0.1", t.ports[KT_DESK_ACME]);
		say(fds[i], "GET /", 5);
	}
	say(drip, "GET / HTTP/1.1\r\n", 16);
	began = clock_ms();
	while (clock_ms() < began + 300) { /* a byte now and then does not buy time */
		(void)send(drip, "X", 1, MSG_NOSIGNAL);
		turn_for(20);
	}
	for (unsigned i = 0; i < SLOW; i++)
		open_ones += !is_closed(fds[i]);
	assert_int_equal(open_ones, SLOW);
	assert_false(is_closed(drip));
	/* Meanwhile others are served. */
	assert_int_equal(status_of(get(KT_DESK_ACME, "/x")), 404);
	while (clock_ms() < began + 900) {
		(void)send(drip, "X", 1, MSG_NOSIGNAL);
		turn_for(20);
	}
	assert_true(is_closed(idle));
	assert_true(is_closed(drip));
	close(idle);
	close(drip);
	for (unsigned i = 0; i < SLOW; i++) {
		assert_true(is_closed(fds[i]));
		close(fds[i]);
	}
	assert_int_equal(kt_desk_http_connections(t.desk->http), 0);
}

/* A client that asks for something large and does not read it. */
static void test_slow_reader(void **state)
{
	static const char request[] = "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n";
	static char body[60001];
	int fd, small = 1024;

	(void)state;
	memset(body, 'x', sizeof(body) - 1);
	keeper_starts();
	assert_int_equal(serve("jwks", "/big", "application/json", body, 0), KT_OK);
	t.desk->request_ms = 300;
	fd = client("127.0.0.1", t.ports[KT_DESK_JWKS]);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	for (int i = 0; i < 200; i++) /* pipelined, so that no socket buffer can hold the answers */
		(void)send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	turn_for(200);
	assert_int_equal(kt_desk_http_connections(t.desk->http), 1);
	turn_for(1000);
	assert_int_equal(kt_desk_http_connections(t.desk->http), 0);
	close(fd);
}

static void more_descriptors(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < 3000)
		skip();
}

static void test_thousand_connections(void **state)
{
	enum { MANY = 1000 };
	static const char request[] = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
	static int fds[MANY];
	unsigned open_ones = 0;

	(void)state;
	more_descriptors();
	for (unsigned i = 0; i < MANY; i++) {
		fds[i] = client("127.0.0.1", t.ports[KT_DESK_ACME]);
		turn();
	}
	turn_for(100);
	for (unsigned i = 0; i < MANY; i++)
		open_ones += !is_closed(fds[i]);
	assert_int_equal(open_ones, KT_DESK_PER_ADDRESS);
	assert_int_equal(kt_desk_http_connections(t.desk->http), KT_DESK_PER_ADDRESS);
	/* Somebody else gets through at once. */
	assert_int_equal(status_of(request_from("127.0.0.2", KT_DESK_ACME, request, sizeof(request) - 1)), 404);
	for (unsigned i = 0; i < MANY; i++)
		close(fds[i]);
	turn_for(100);
	assert_int_equal(kt_desk_http_connections(t.desk->http), 0);
}

static void test_thousand_addresses(void **state)
{
	enum { MANY = 1000 };
	static int fds[MANY];
	unsigned most = 0;
	char from[32];

	(void)state;
	more_descriptors();
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(from, sizeof(from), "127.0.%u.%u", 1 + i / 250, 1 + i % 250);
		fds[i] = client(from, t.ports[i % KT_DESK_KINDS]);
		turn();
		if (kt_desk_http_connections(t.desk->http) > most)
			most = kt_desk_http_connections(t.desk->http);
	}
	assert_true(most >= KT_DESK_CONNECTIONS_MAX && most <= KT_DESK_CONNECTIONS_HARD);
	/* The longest-waiting ones make room. */
	assert_true(is_closed(fds[0]));
	assert_false(is_closed(fds[MANY - 1]));
	assert_int_equal(status_of(get(KT_DESK_ACME, "/x")), 404);
	for (unsigned i = 0; i < MANY; i++)
		close(fds[i]);
	turn_for(100);
	assert_int_equal(kt_desk_http_connections(t.desk->http), 0);
}

static void test_listeners_of_setup(void **state)
{
	struct kt_err err;
	int fds[2] = {-1, -1};
	uint16_t port;

	(void)state;
	fds[0] = listener(&port);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("gopher 127.0.0.1:70\n"), fds, 1, &err), KT_E_UNSUPPORTED);
	assert_non_null(strstr(err.what, "gopher"));
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("acme a\nacme b\n"), fds, 1, &err), KT_E_PROTO);
	assert_int_equal(fds[0], -1); /* the first one was fine, and is taken */
	fds[0] = listener(&port);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT(""), fds, 1, &err), KT_E_PROTO);
	close(fds[0]);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT(""), fds, 0, &err), KT_OK);
}

/* --- the table of paths, on a fake clock ------------------------------------------------------------------------- */

static enum kt_code put(struct kt_desk_served *served, const char *listener_name, const char *path, const char *type,
                        struct kt_view body)
{
	struct kt_msg_serve msg = {kt_view_str(listener_name), kt_view_str(path), kt_view_str(type), body, 0};
	struct kt_err err;

	return kt_desk_served_put(served, &msg, &err);
}

static void test_served_paths(void **state)
{
	static const struct {
		const char *listener;
		const char *path;
		enum kt_code code;
	} cases[] = {
		{"jwks", "/.well-known/openid-configuration", KT_OK},
		{"jwks", "/a/b.json", KT_OK},
		{"acme", CHALLENGE, KT_OK},
		{"acme", "/jwks.json", KT_E_INVALID},
		{"acme", "/.well-known/acme-challenge/", KT_E_INVALID},
		{"acme", "/.well-known/acme-challenge/../x", KT_E_INVALID},
		{"acme", "/.well-known/acme-challenge/a/b", KT_E_INVALID},
		{"acme", "/.well-known/acme-challenge/a b", KT_E_INVALID},
		{"metrics", "/metrics", KT_E_INVALID},
		{"", "/x", KT_E_INVALID},
		{"jwks", "", KT_E_INVALID},
		{"jwks", "/", KT_E_INVALID},
		{"jwks", "x", KT_E_INVALID},
		{"jwks", "/a//b", KT_E_INVALID},
		{"jwks", "/a/", KT_E_INVALID},
		{"jwks", "/./a", KT_E_INVALID},
		{"jwks", "/a/..", KT_E_INVALID},
		{"jwks", "/a?b", KT_E_INVALID},
		{"jwks", "/a%20b", KT_E_INVALID},
		{"jwks", "/a\r\nX: y", KT_E_INVALID},
		{"jwks", "/\xc3\xa4", KT_E_INVALID},
	};
	struct kt_clock_fake clock = {0};
	struct kt_desk_served *served;
	struct kt_loop *loop;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_loop_create_fake(&clock, &loop, &err), KT_OK);
	assert_int_equal(kt_desk_served_create(loop, &served, &err), KT_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum kt_code code = put(served, cases[i].listener, cases[i].path, "text/plain", KT_VIEW_LIT("x"));

		if (code != cases[i].code)
			print_message("%s '%s' gave %s\n", cases[i].listener, cases[i].path, kt_code_name(code));
		assert_int_equal(code, cases[i].code);
	}
	assert_int_equal(put(served, "jwks", "/t", "text/html\r\nX-Evil: 1", KT_VIEW_LIT("x")), KT_E_INVALID);
	assert_int_equal(kt_desk_served_count(served), 3);
	kt_desk_served_destroy(served);
	kt_loop_destroy(loop);
}

static void test_served_limits(void **state)
{
	static char big[64 * 1024];
	struct kt_clock_fake clock = {0};
	struct kt_desk_served *served;
	struct kt_desk_entry entry;
	struct kt_loop *loop;
	struct kt_err err;
	char path[64];
	unsigned i;

	(void)state;
	assert_int_equal(kt_loop_create_fake(&clock, &loop, &err), KT_OK);
	assert_int_equal(kt_desk_served_create(loop, &served, &err), KT_OK);
	for (i = 0; i < KT_DESK_SERVED_MAX; i++) {
		snprintf(path, sizeof(path), "/p/%u", i);
		assert_int_equal(put(served, "jwks", path, "text/plain", kt_view_str(path)), KT_OK);
	}
	assert_int_equal(put(served, "jwks", "/one/more", "text/plain", KT_VIEW_LIT("x")), KT_E_LIMIT);
	assert_int_equal(put(served, "jwks", "/p/7", "text/plain", KT_VIEW_LIT("y")), KT_OK); /* replacing is no more */
	assert_int_equal(put(served, "jwks", "/p/8", "", KT_VIEW_LIT("")), KT_OK);
	assert_int_equal(put(served, "jwks", "/one/more", "text/plain", KT_VIEW_LIT("x")), KT_OK);
	assert_true(kt_desk_served_find(served, KT_DESK_JWKS, "/p/7", &entry));
	assert_true(kt_view_eq_str(entry.body, "y"));
	assert_false(kt_desk_served_find(served, KT_DESK_JWKS, "/p/8", &entry));
	assert_true(kt_desk_served_find(served, KT_DESK_JWKS, "/p/9999", &entry));
	assert_true(kt_view_eq_str(entry.body, "/p/9999"));
	for (i = 0; i < KT_DESK_SERVED_MAX; i++) {
		snprintf(path, sizeof(path), "/p/%u", i);
		assert_int_equal(put(served, "jwks", path, "", KT_VIEW_LIT("")), KT_OK);
	}
	assert_int_equal(kt_desk_served_count(served), 1);
	for (i = 0; put(served, "jwks", (snprintf(path, sizeof(path), "/b/%u", i), path), "a/b",
	                (struct kt_view){big, sizeof(big)}) == KT_OK; i++)
		assert_true(i < KT_DESK_SERVED_BYTES / sizeof(big));
	assert_true(i > KT_DESK_SERVED_BYTES / sizeof(big) - 16);
	kt_desk_served_destroy(served);
	kt_loop_destroy(loop);
}

static void test_served_stale(void **state)
{
	struct kt_clock_fake clock = {0};
	struct kt_desk_served *served;
	struct kt_desk_entry entry;
	struct kt_loop *loop;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_loop_create_fake(&clock, &loop, &err), KT_OK);
	assert_int_equal(kt_desk_served_create(loop, &served, &err), KT_OK);
	assert_int_equal(put(served, "jwks", "/said-again", "a/b", KT_VIEW_LIT("1")), KT_OK);
	assert_int_equal(put(served, "jwks", "/forgotten", "a/b", KT_VIEW_LIT("1")), KT_OK);
	kt_desk_served_new_keeper(served);
	assert_int_equal(put(served, "jwks", "/said-again", "a/b", KT_VIEW_LIT("2")), KT_OK);
	assert_true(kt_desk_served_find(served, KT_DESK_JWKS, "/forgotten", &entry));
	kt_loop_run(loop);
	assert_int_equal(clock.mono, KT_DESK_SERVED_STALE_MS);
	assert_false(kt_desk_served_find(served, KT_DESK_JWKS, "/forgotten", &entry));
	assert_true(kt_desk_served_find(served, KT_DESK_JWKS, "/said-again", &entry));
	kt_desk_served_destroy(served);
	kt_loop_destroy(loop);
}

/* --- the program itself, behind its walls ------------------------------------------------------------------------ */

static void test_program(void **state)
{
	struct kt_wire_config config = {.self = KT_ROOM_WARDEN, .peer = KT_ROOM_DESK,
	                                .handlers = &keeper_handlers[1]};
	struct kt_msg_setup msg = {.mode = KT_MODE_DAEMON, .log_level = KT_LOG_INFO, .sandbox = true,
	                           .settings = KT_VIEW_LIT("{}"), .listeners = KT_VIEW_LIT("metrics x\nacme y\n")};
	struct kt_msg_peer peer = {KT_ROOM_DESK};
	struct kt_wire_config keeper_config = {.self = KT_ROOM_KEEPER, .peer = KT_ROOM_DESK,
	                                       .handlers = keeper_handlers};
	struct kt_wire *warden;
	struct kt_err err;
	int ends[2], wire[2], fds[2], status, old[2];
	int64_t limit = clock_ms() + 10000;
	pid_t pid;

	(void)state;
	peer.room = KT_ROOM_KEEPER;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (ends[1] == 3)
			(void)fcntl(3, F_SETFD, 0);
		else
			(void)dup2(ends[1], 3);
		execl("./keyturn-desk", "keyturn-desk", (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(kt_wire_create(t.loop, &config, &warden, &err), KT_OK);
	assert_int_equal(kt_wire_attach(warden, ends[0], &err), KT_OK);
	old[0] = t.ports[KT_DESK_METRICS];
	old[1] = t.ports[KT_DESK_ACME];
	fds[0] = listener(&t.ports[KT_DESK_METRICS]);
	fds[1] = listener(&t.ports[KT_DESK_ACME]);
	assert_int_not_equal(old[0], t.ports[KT_DESK_METRICS]);
	assert_int_not_equal(old[1], t.ports[KT_DESK_ACME]);
	assert_int_equal(kt_wire_call(warden, KT_SETUP, &msg, fds, 2, 5000, on_served, &t, &err), KT_OK);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, wire), 0);
	assert_int_equal(kt_wire_call(warden, KT_PEER, &peer, &wire[0], 1, 5000, on_served, &t, &err), KT_OK);
	while (t.done < 2 && clock_ms() < limit)
		turn();
	assert_int_equal(t.done, 2);
	assert_int_equal(t.last.code, KT_OK);
	close(wire[0]);
	assert_int_equal(kt_wire_create(t.loop, &keeper_config, &t.keeper, &err), KT_OK);
	assert_int_equal(kt_wire_attach(t.keeper, wire[1], &err), KT_OK);
	assert_int_equal(serve("acme", CHALLENGE, "application/octet-stream", "yes", 0), KT_OK);
	assert_string_equal(body_of(get(KT_DESK_ACME, CHALLENGE)), "yes");
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/")), 200);
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/metrics")), 200);
	assert_int_equal(status_of(get_host(KT_DESK_METRICS, "POST", "/metrics", "localhost")), 405);
	assert_int_equal(kt_wire_notice(warden, KT_SHUTDOWN, &(struct kt_msg_shutdown){0}, NULL, 0, &err), KT_OK);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		assert_true(clock_ms() < limit);
		turn();
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* The listening socket outlives the room: a connection is taken into its queue. */
	close(client("127.0.0.1", t.ports[KT_DESK_ACME]));
	kt_wire_destroy(warden);
	close(fds[0]);
	close(fds[1]);
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_served_paths),
		cmocka_unit_test(test_served_limits),
		cmocka_unit_test(test_served_stale),
		LIVE(test_status_page),
		LIVE(test_rebinding),
		LIVE(test_exact_paths),
		LIVE(test_requests_refused),
		LIVE(test_long_requests),
		LIVE(test_pages),
		LIVE(test_keeper_dies),
		LIVE(test_end_while_waiting),
		LIVE(test_keep_alive),
		LIVE(test_slow_clients),
		LIVE(test_slow_reader),
		LIVE(test_thousand_connections),
		LIVE(test_thousand_addresses),
		LIVE(test_listeners_of_setup),
		LIVE(test_program),
	};
	struct kt_err err;

	kt_json_init();
	if (kt_secret_init(&err))
		return 1;
	kt_log_setup("desk", KT_LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
