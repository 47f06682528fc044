/* The desk over real loopback sockets: what it answers, to whom, and what it leaves to the keeper. */
#include "desk_stage.h"

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

/* Several kinds on one socket: all their paths, and no others. */
static void test_shared_listener(void **state)
{
	static const char post[] = "POST /quit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	struct kt_err err;
	int fd = listener(&t.ports[KT_DESK_ACME]);

	(void)state;
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("acme+jwks+probes 127.0.0.1:1\n"), &fd, 1, &err), KT_OK);
	keeper_starts();
	assert_int_equal(serve("acme", CHALLENGE, "application/octet-stream", "yes", 0), KT_OK);
	assert_int_equal(serve("jwks", "/jwks.json", "application/json", "{}", 60), KT_OK);
	assert_string_equal(body_of(get(KT_DESK_ACME, CHALLENGE)), "yes");
	assert_string_equal(body_of(get(KT_DESK_ACME, "/jwks.json")), "{}");
	assert_int_equal(status_of(get(KT_DESK_ACME, "/livez")), 200);
	assert_int_equal(status_of(get(KT_DESK_ACME, "/status.json")), 404); /* of "metrics" only */
	assert_int_equal(status_of(get(KT_DESK_ACME, "/")), 404);
	assert_int_equal(status_of(get(KT_DESK_ACME, "/x")), 404);
	assert_non_null(strstr(request_from("127.0.0.1", KT_DESK_ACME, post, sizeof(post) - 1), "Allow: GET, HEAD\r\n"));
	fd = listener(&t.ports[KT_DESK_ACME]);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("acme+metrics+control 127.0.0.1:1\n"), &fd, 1, &err), KT_OK);
	assert_string_equal(body_of(get(KT_DESK_ACME, CHALLENGE)), "yes");
	assert_int_equal(status_of(get(KT_DESK_ACME, "/")), 200);
	assert_int_equal(status_of(get(KT_DESK_ACME, "/jwks.json")), 404);
	assert_int_equal(status_of(get(KT_DESK_ACME, "/quit")), 404);
	assert_int_equal(status_of(request_from("127.0.0.1", KT_DESK_ACME, post, sizeof(post) - 1)), 401);
	assert_non_null(strstr(get_host(KT_DESK_ACME, "PUT", "/quit", "localhost"), "Allow: GET, HEAD, POST\r\n"));
	fd = listener(&t.ports[KT_DESK_ACME]);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("acme+tlsAlpn01 x\n"), &fd, 1, &err), KT_E_UNSUPPORTED);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("jwks+tokens x\n"), &fd, 1, &err), KT_E_UNSUPPORTED);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("tokens 127.0.0.1:1\n"), &fd, 1, &err), KT_E_POLICY);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("acme+ x\n"), &fd, 1, &err), KT_E_UNSUPPORTED);
	close(fd);
}

/* A bulk of orders: each token is there, at its place only. */
static void test_many_tokens(void **state)
{
	char path[128];
	char body[64];

	(void)state;
	keeper_starts();
	for (int i = 0; i < 2000; i++) {
		snprintf(path, sizeof(path), "/.well-known/acme-challenge/token-%d", i);
		snprintf(body, sizeof(body), "token-%d.thumb", i);
		assert_int_equal(kt_desk_served_put(t.desk->served,
		                                    &(struct kt_msg_serve){KT_VIEW_LIT("acme"), kt_view_str(path),
		                                                           KT_VIEW_LIT("application/octet-stream"),
		                                                           kt_view_str(body), 0},
		                                    NULL),
		                 KT_OK);
	}
	for (int i = 0; i < 2000; i += 97) {
		snprintf(path, sizeof(path), "/.well-known/acme-challenge/token-%d", i);
		snprintf(body, sizeof(body), "token-%d.thumb", i);
		assert_string_equal(body_of(get_host(KT_DESK_ACME, "GET", path, "www.example.org")), body);
		assert_string_equal(body_of(get_host(KT_DESK_ACME, "HEAD", path, "www.example.org")), "");
	}
	assert_int_equal(status_of(get(KT_DESK_ACME, "/.well-known/acme-challenge/token-2000")), 404);
}

/* --- the program itself, behind its walls ------------------------------------------------------------------------ */

static void test_program(void **state)
{
	uint16_t old[2] = {t.ports[KT_DESK_METRICS], t.ports[KT_DESK_ACME]};
	int fds[2] = {listener(&t.ports[KT_DESK_METRICS]), listener(&t.ports[KT_DESK_ACME])};
	struct program program;

	(void)state;
	assert_int_not_equal(old[0], t.ports[KT_DESK_METRICS]);
	assert_int_not_equal(old[1], t.ports[KT_DESK_ACME]);
	program_starts(&program, "metrics x\nacme y\n", fds, 2);
	assert_int_equal(serve("acme", CHALLENGE, "application/octet-stream", "yes", 0), KT_OK);
	assert_string_equal(body_of(get(KT_DESK_ACME, CHALLENGE)), "yes");
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/")), 200);
	assert_int_equal(status_of(get(KT_DESK_METRICS, "/metrics")), 200);
	assert_int_equal(status_of(get_host(KT_DESK_METRICS, "POST", "/metrics", "localhost")), 405);
	program_ends(&program);
	/* The listening socket outlives the room: a connection is taken into its queue. */
	close(client("127.0.0.1", t.ports[KT_DESK_ACME]));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        LIVE(test_status_page),
	        LIVE(test_rebinding),
	        LIVE(test_exact_paths),
	        LIVE(test_requests_refused),
	        LIVE(test_long_requests),
	        LIVE(test_pages),
	        LIVE(test_keeper_dies),
	        LIVE(test_end_while_waiting),
	        LIVE(test_keep_alive),
	        LIVE(test_listeners_of_setup),
	        LIVE(test_shared_listener),
	        LIVE(test_many_tokens),
	        LIVE(test_program),
	};

	return desk_tests_start() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
