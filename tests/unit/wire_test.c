/* Wires: the codec's limits, calls and replies over a real socket pair, deadlines, deaths, credit, what is not permitted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/wire.h"

struct pair {
	struct kt_loop *loop;
	struct kt_wire *left;  /* the keeper */
	struct kt_wire *right; /* the courier */
	unsigned asked;        /* requests that arrived at the right */
	unsigned held;         /* of these, not answered */
	uint32_t last_id;
	unsigned replies, failures;
	enum kt_code last;
	char text[64];
	bool lost;
};

static void on_http(struct kt_wire_in *in, void *arg)
{
	struct pair *pair = arg;
	const struct kt_msg_http *msg = in->msg;
	struct kt_msg_http_done done = {.status = 200, .value = msg->url};
	struct kt_err why;

	pair->asked++;
	pair->last_id = in->id;
	if (kt_view_eq_str(msg->url, "hold")) {
		pair->held++;
	} else if (kt_view_eq_str(msg->url, "fail")) {
		kt_err_clear(&why);
		(void)kt_err_set(&why, KT_E_AUTH, "no");
		why.retry_after_s = 7;
		kt_wire_reply_err(in->wire, in->id, &why);
	} else {
		kt_wire_reply(in->wire, in->id, KT_HTTP_DONE, &done, NULL, 0);
	}
}

static const struct kt_wire_handler courier_rows[] = {{KT_HTTP, on_http}, {KT_MSG_TYPE_NONE, NULL}};
static const struct kt_wire_handler keeper_rows[] = {{KT_MSG_TYPE_NONE, NULL}};

static void on_closed(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	struct pair *pair = arg;

	(void)wire;
	(void)why;
	pair->lost = true;
}

static void on_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct pair *pair = arg;

	(void)fds;
	(void)fd_count;
	pair->replies++;
	pair->last = err->code;
	pair->failures += err->code != KT_OK;
	if (type == KT_HTTP_DONE) {
		const struct kt_msg_http_done *done = msg;

		(void)snprintf(pair->text, sizeof(pair->text), "%.*s", (int)done->value.len, done->value.ptr);
	}
}

static void connect_pair(struct pair *pair)
{
	struct kt_err err;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(kt_wire_attach(pair->left, ends[0], &err), KT_OK);
	assert_int_equal(kt_wire_attach(pair->right, ends[1], &err), KT_OK);
}

static int setup(void **state)
{
	struct pair *pair = kt_calloc(1, sizeof(*pair));
	struct kt_wire_config left = {KT_ROOM_KEEPER, KT_ROOM_COURIER, keeper_rows, NULL, on_closed, pair};
	struct kt_wire_config right = {KT_ROOM_COURIER, KT_ROOM_KEEPER, courier_rows, NULL, on_closed, pair};
	struct kt_err err;

	assert_int_equal(kt_secret_init(&err), KT_OK);
	assert_int_equal(kt_loop_create(0, &pair->loop, &err), KT_OK);
	assert_int_equal(kt_wire_create(pair->loop, &left, &pair->left, &err), KT_OK);
	assert_int_equal(kt_wire_create(pair->loop, &right, &pair->right, &err), KT_OK);
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	kt_wire_destroy(pair->left);
	kt_wire_destroy(pair->right);
	kt_loop_destroy(pair->loop);
	kt_free(pair);
	return 0;
}

static void turn(struct pair *pair, unsigned times)
{
	while (times-- > 0) {
		kt_loop_run_once(pair->loop, false);
	}
}

static void ask(struct pair *pair, const char *url, kt_ms timeout)
{
	struct kt_msg_http msg = {.url = kt_view_str(url)};
	struct kt_err err;

	assert_int_equal(kt_wire_call(pair->left, KT_HTTP, &msg, NULL, 0, timeout, on_reply, pair, &err), KT_OK);
}

/* Whatever the table holds goes through the codec and comes back, and no shorter or longer frame does. */
static void test_codec(void **state)
{
	struct kt_frame frame = {.type = KT_PROBED_TLS, .reply = true, .id = 9};
	struct kt_msg_probed_tls msg = {KT_VIEW_LIT("0a"), KT_VIEW_LIT("ff"), -5, KT_VIEW_LIT("CN=x"), KT_VIEW_LIT("")};
	struct kt_frame back;
	union kt_msg_any any;
	struct kt_buf buf;
	struct kt_err err;
	size_t len;

	(void)state;
	kt_buf_init(&buf, KT_WIRE_FRAME_MAX);
	assert_int_equal(kt_wire_encode(&frame, &msg, &buf, &err), KT_OK);
	assert_int_equal(kt_wire_decode(kt_buf_view(&buf), &back, &any, &err), KT_OK);
	assert_int_equal(back.type, KT_PROBED_TLS);
	assert_true(back.reply);
	assert_int_equal(back.id, 9);
	assert_true(kt_view_eq_str(any.probed_tls.serial, "0a"));
	assert_int_equal(any.probed_tls.not_after, -5);
	for (len = 0; len < buf.len; len++) {
		assert_int_equal(kt_wire_decode((struct kt_view){buf.ptr, len}, &back, &any, &err), KT_E_PROTO);
	}
	kt_buf_addc(&buf, 'x');
	assert_int_equal(kt_wire_decode(kt_buf_view(&buf), &back, &any, &err), KT_E_PROTO);
	kt_buf_finish(&buf);
}

static void test_limits(void **state)
{
	struct kt_frame frame = {.type = KT_ACME_SIGN};
	char nonce[600];
	struct kt_msg_acme_sign msg = {.nonce = {nonce, sizeof(nonce)}};
	struct kt_buf buf;
	struct kt_err err;

	(void)state;
	memset(nonce, 'n', sizeof(nonce));
	kt_buf_init(&buf, KT_WIRE_FRAME_MAX);
	assert_int_equal(kt_wire_encode(&frame, &msg, &buf, &err), KT_E_LIMIT);
	frame.type = KT_MSG_TYPE_COUNT;
	assert_int_equal(kt_wire_encode(&frame, &msg, &buf, &err), KT_E_INVALID);
	kt_buf_finish(&buf);
}

static void test_secret_is_handed_over(void **state)
{
	struct kt_frame frame = {.type = KT_CLIENT_SECRET_GIVEN, .reply = true, .id = 1};
	struct kt_msg_client_secret_given msg;
	struct kt_frame back;
	union kt_msg_any any;
	struct kt_buf buf;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_secret_create("hush", 4, &msg.secret, &err), KT_OK);
	kt_buf_init(&buf, KT_WIRE_FRAME_MAX);
	assert_int_equal(kt_wire_encode(&frame, &msg, &buf, &err), KT_OK);
	assert_int_equal(kt_wire_decode(kt_buf_view(&buf), &back, &any, &err), KT_OK);
	assert_true(kt_secret_eq(msg.secret, any.client_secret_given.secret));
	kt_wire_release(&back, &any);
	assert_null(any.client_secret_given.secret);
	kt_secret_destroy(msg.secret);
	kt_buf_finish(&buf);
}

static void test_call_and_reply(void **state)
{
	struct pair *pair = *state;

	ask(pair, "before the other end is there", 0);
	connect_pair(pair);
	turn(pair, 20);
	assert_int_equal(pair->replies, 1);
	assert_string_equal(pair->text, "before the other end is there");
	ask(pair, "fail", 0);
	turn(pair, 20);
	assert_int_equal(pair->last, KT_E_AUTH);
	assert_false(kt_wire_pending(pair->left));
}

static void test_deadline(void **state)
{
	struct pair *pair = *state;
	struct kt_msg_http_done done = {.status = 1};

	connect_pair(pair);
	ask(pair, "hold", 20);
	while (pair->replies == 0) {
		kt_loop_run_once(pair->loop, true);
	}
	assert_int_equal(pair->last, KT_E_TIMEOUT);
	kt_wire_reply(pair->right, pair->last_id, KT_HTTP_DONE, &done, NULL, 0); /* too late: nothing happens */
	turn(pair, 20);
	assert_int_equal(pair->replies, 1);
	assert_false(pair->lost);
}

/* A request that was sent fails with the peer; one that was not goes to its successor. */
static void test_death(void **state)
{
	struct pair *pair = *state;

	connect_pair(pair);
	ask(pair, "hold", 0);
	turn(pair, 20);
	assert_int_equal(pair->held, 1);
	kt_wire_detach(pair->right);
	turn(pair, 20);
	assert_true(pair->lost);
	assert_int_equal(pair->last, KT_E_CLOSED);
	ask(pair, "for the successor", 0);
	connect_pair(pair);
	turn(pair, 20);
	assert_string_equal(pair->text, "for the successor");
}

static void test_credit_and_queue(void **state)
{
	struct pair *pair = *state;
	struct kt_msg_http msg = {.url = KT_VIEW_LIT("hold")};
	struct kt_err err;
	unsigned i;
	enum kt_code code = KT_OK;

	connect_pair(pair);
	turn(pair, 10);
	for (i = 0; code == KT_OK && i < 2 * KT_WIRE_QUEUE_MAX; i++) {
		code = kt_wire_call(pair->left, KT_HTTP, &msg, NULL, 0, 0, on_reply, pair, &err);
	}
	assert_int_equal(code, KT_E_LATER);
	turn(pair, 50);
	assert_int_equal(pair->asked, KT_WIRE_CREDIT);
	kt_wire_forget(pair->left, pair);
}

static void test_forget(void **state)
{
	struct pair *pair = *state;

	connect_pair(pair);
	ask(pair, "hold", 0);
	turn(pair, 10);
	kt_wire_forget(pair->left, pair);
	kt_wire_detach(pair->right);
	turn(pair, 10);
	assert_int_equal(pair->replies, 0);
}

/* What the table of the other end does not list ends the wire. */
static void test_not_permitted(void **state)
{
	struct pair *pair = *state;
	struct kt_msg_client_secret msg = {1, KT_VIEW_LIT("client_secret")};
	struct kt_err err;

	connect_pair(pair);
	turn(pair, 10);
	assert_int_equal(kt_wire_notice(pair->left, KT_CLIENT_SECRET, &msg, NULL, 0, &err), KT_OK);
	turn(pair, 10);
	assert_true(pair->lost);
	assert_false(kt_wire_attached(pair->right));
}

static void test_descriptors(void **state)
{
	struct pair *pair = *state;
	struct kt_msg_http msg = {.url = KT_VIEW_LIT("x")};
	struct kt_err err;
	int fds[1] = {open("/dev/null", O_RDONLY | O_CLOEXEC)};

	connect_pair(pair);
	assert_int_equal(kt_wire_call(pair->left, KT_HTTP, &msg, fds, 1, 0, on_reply, pair, &err), KT_OK);
	turn(pair, 20);
	assert_int_equal(pair->replies, 1); /* the one that came along was closed: no leak under the sanitizers' eyes */
	close(fds[0]);
}

static void test_wrong_build(void **state)
{
	struct pair *pair = *state;
	struct kt_frame frame = {.type = KT_HELLO};
	struct kt_msg_hello hello = {KT_VIEW_LIT("another"), KT_ROOM_COURIER, 1, 8};
	struct kt_buf buf;
	struct kt_err err;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(kt_wire_attach(pair->left, ends[0], &err), KT_OK);
	kt_buf_init(&buf, KT_WIRE_FRAME_MAX);
	assert_int_equal(kt_wire_encode(&frame, &hello, &buf, &err), KT_OK);
	assert_int_equal(send(ends[1], buf.ptr, buf.len, MSG_NOSIGNAL), (ssize_t)buf.len);
	turn(pair, 10);
	assert_true(pair->lost);
	close(ends[1]);
	kt_buf_finish(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(test_codec, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_secret_is_handed_over, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_call_and_reply, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_death, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_credit_and_queue, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_not_permitted, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
	        cmocka_unit_test_setup_teardown(test_wrong_build, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
