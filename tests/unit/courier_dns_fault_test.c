/* dns-01 without memory: every allocation on the way of a record fails once; each job ends, and nothing leaks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "courier/courier.h"
#include "courier/dns/dns_internal.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/pki.h"

#define NAME "_acme-challenge.example.test"

/* A name server on the loop, which serves the zone example.test and believes every update. */
static struct {
	struct kt_loop *loop;
	struct kt_watch *watch;
	int fd;
	uint16_t port;
	bool has;
	bool ended;
	struct kt_err last;
} t;

/* By ldns and malloc only: the faults are for the courier. */
static void push(ldns_pkt *pkt, ldns_pkt_section section, const char *text)
{
	ldns_rr *rr;

	assert_int_equal(ldns_rr_new_frm_str(&rr, text, 60, NULL, NULL), LDNS_STATUS_OK);
	ldns_pkt_push_rr(pkt, section, rr);
}

static void fill(ldns_pkt *pkt)
{
	ldns_rr *question = ldns_rr_list_rr(ldns_pkt_question(pkt), 0);

	if (ldns_pkt_get_opcode(pkt) == LDNS_PACKET_UPDATE) {
		t.has = ldns_rr_get_class(ldns_rr_list_rr(ldns_pkt_authority(pkt), 0)) == LDNS_RR_CLASS_IN;
		ldns_pkt_set_nscount(pkt, 0);
		ldns_rr_list_deep_free(ldns_pkt_authority(pkt));
		ldns_pkt_set_authority(pkt, ldns_rr_list_new());
		return;
	}
	switch (ldns_rr_get_type(question)) {
	case LDNS_RR_TYPE_NS:
		push(pkt, LDNS_SECTION_ANSWER, "example.test. 60 IN NS ns1.example.test.");
		break;
	case LDNS_RR_TYPE_A:
		push(pkt, LDNS_SECTION_ANSWER, "ns1.example.test. 60 IN A 127.0.0.1");
		break;
	case LDNS_RR_TYPE_TXT:
		if (t.has) {
			push(pkt, LDNS_SECTION_ANSWER, NAME ". 60 IN TXT \"v\"");
			break;
		}
		/* fall through */
	default:
		push(pkt, LDNS_SECTION_AUTHORITY, "example.test. 1 IN SOA ns1.example.test. h.example.test. 1 1 1 1 1");
		break;
	}
}

static void on_question(int events, void *arg)
{
	struct sockaddr_in peer;
	socklen_t size = sizeof(peer);
	uint8_t wire[2048], *bytes;
	ssize_t len = recvfrom(t.fd, wire, sizeof(wire), 0, (struct sockaddr *)&peer, &size);
	ldns_pkt *pkt;
	size_t out;

	(void)events, (void)arg;
	if (len <= 0) {
		return;
	}
	assert_int_equal(ldns_wire2pkt(&pkt, wire, (size_t)len), LDNS_STATUS_OK);
	ldns_pkt_set_qr(pkt, true);
	ldns_pkt_set_aa(pkt, true);
	fill(pkt);
	assert_int_equal(ldns_pkt2wire(&bytes, pkt, &out), LDNS_STATUS_OK);
	(void)sendto(t.fd, bytes, out, 0, (struct sockaddr *)&peer, size);
	LDNS_FREE(bytes);
	ldns_pkt_free(pkt);
}

static void on_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)type, (void)msg, (void)fds, (void)fd_count, (void)arg;
	t.last = *err;
	t.ended = true;
}

static int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* One job in a courier of its own, the n-th allocation failing; true when that many were not made. */
static bool job(enum kt_dns01_action action, const char *solver, int64_t n)
{
	static const struct kt_wire_handler none[] = {{KT_MSG_TYPE_NONE, NULL}};
	struct kt_wire_config config = {.self = KT_ROOM_KEEPER, .peer = KT_ROOM_COURIER, .handlers = none};
	struct kt_msg_dns01 msg = {.job = 1,
				   .action = action,
				   .record = KT_VIEW_LIT(NAME "."),
				   .value = KT_VIEW_LIT("v"),
				   .solver = kt_view_str(solver)};
	struct kt_courier *courier;
	struct kt_wire *keeper;
	struct kt_err err;
	uint64_t failures = kt_mem_failures();
	int64_t end = clock_ms() + 10000;
	char settings[200];
	int pair[2];

	(void)snprintf(settings, sizeof(settings), "{\"recursiveNameservers\":[\"127.0.0.1:%u\"],\"propagationTimeoutMs\":100}",
		       t.port);
	msg.dns = kt_view_str(settings);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(kt_courier_create(t.loop, &courier, &err), KT_OK);
	assert_int_equal(kt_wire_create(t.loop, &config, &keeper, &err), KT_OK);
	assert_int_equal(kt_wire_attach(courier->keeper, pair[0], &err), KT_OK);
	assert_int_equal(kt_wire_attach(keeper, pair[1], &err), KT_OK);
	for (unsigned i = 0; i < 20; i++) {
		kt_loop_run_once(t.loop, false); /* hellos */
	}
	t.ended = false;
	assert_int_equal(kt_wire_call(keeper, KT_DNS01, &msg, NULL, 0, 0, on_reply, NULL, &err), KT_OK);
	kt_mem_fail_after(n, 0);
	while (!t.ended && clock_ms() < end) {
		kt_loop_run_once(t.loop, false);
		(void)poll(NULL, 0, 0);
	}
	kt_mem_fail_after(-1, 0);
	if (!t.ended) {
		fail_msg("allocation %lld: no reply", (long long)n);
	}
	kt_wire_destroy(keeper);
	kt_courier_destroy(courier);
	for (unsigned i = 0; i < 5; i++) {
		kt_loop_run_once(t.loop, false);
	}
	return kt_mem_failures() == failures;
}

static void each_allocation(enum kt_dns01_action action, const char *solver, bool before)
{
	int64_t n = 0, worked = 0;

	for (;; n++) {
		t.has = before;
		if (job(action, solver, n)) {
			break;
		}
		worked += t.last.code == KT_OK ? 1 : 0;
		assert_true(n < 5000);
	}
	assert_int_equal(t.last.code, KT_OK);
	assert_true(n > 50);
	assert_true(worked < n); /* the faults were felt */
	assert_int_equal(t.has, action != KT_DNS01_REMOVE);
}

static void adding(void **state)
{
	char solver[200];

	(void)state;
	(void)snprintf(solver, sizeof(solver), "{\"provider\":\"rfc2136\",\"nameserver\":\"127.0.0.1:%u\"}", t.port);
	each_allocation(KT_DNS01_ADD, solver, false);
}

static void removing(void **state)
{
	char solver[200];

	(void)state;
	(void)snprintf(solver, sizeof(solver), "{\"provider\":\"rfc2136\",\"nameserver\":\"127.0.0.1:%u\",\"followCNAME\":true}",
		       t.port);
	each_allocation(KT_DNS01_REMOVE, solver, true);
}

static void looking(void **state)
{
	(void)state;
	each_allocation(KT_DNS01_CHECK, "{\"provider\":\"none\"}", true);
}

static int set_up(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	struct kt_err err;

	(void)state;
	t.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return t.fd < 0 || bind(t.fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
			       getsockname(t.fd, (struct sockaddr *)&at, &size) != 0 ||
			       (t.port = ntohs(at.sin_port), kt_loop_create(1, &t.loop, &err)) != KT_OK ||
			       kt_watch_create(t.loop, t.fd, KT_LOOP_READ, on_question, NULL, &t.watch, &err) != KT_OK
		       ? -1
		       : 0;
}

static int tear_down(void **state)
{
	(void)state;
	kt_watch_destroy(t.watch);
	(void)close(t.fd);
	kt_loop_destroy(t.loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adding),
		cmocka_unit_test(removing),
		cmocka_unit_test(looking),
	};
	struct kt_err err;

	kt_log_setup("test", KT_LOG_ERROR, false);
	kt_json_init();
	assert_int_equal(kt_pki_init(&err), KT_OK);
	assert_int_equal(kt_secret_init(&err), KT_OK);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
