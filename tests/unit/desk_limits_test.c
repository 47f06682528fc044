/* The limits of the desk: clients that are not always polite or too many, and the table of what it serves. */
#include "desk_stage.h"

static void test_slow_clients(void **state)
{
	enum { SLOW = 40 };
	int fds[SLOW], idle, drip, open_ones = 0;
	int64_t began;

	(void)state;
	t.desk->request_ms = 1500; /* 40 connections may take a while on a busy machine */
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
	while (clock_ms() < began + 2500) {
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
		fds[i] = client(from, t.ports[i % STAGE_KINDS]);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_served_paths),
	        cmocka_unit_test(test_served_limits),
	        cmocka_unit_test(test_served_stale),
	        LIVE(test_slow_clients),
	        LIVE(test_slow_reader),
	        LIVE(test_thousand_connections),
	        LIVE(test_thousand_addresses),
	};

	return desk_tests_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
