/* Asks one name server: a fresh socket, port and id for each try, so that only who sees the question can answer it. */
#include "courier/dns/query.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"

#define TRIES       3u
#define FIRST_WAIT  (1500 * KT_SECOND / 1000) /* doubled for each further try */
#define TCP_WAIT    (6 * KT_SECOND)
#define STRAYS_MAX  100u /* datagrams that answer something else, before the server is given up */

struct dns_query {
	struct kt_loop *loop;
	struct dns_server server;
	struct kt_timer *timer;
	struct kt_watch *watch;
	int fd;
	bool tcp, connected;
	unsigned tries, tried, strays;
	struct kt_buf plain, bare; /* with and without EDNS, id 0, unsigned */
	bool edns;
	const struct dns_tsig *tsig;
	struct dns_mac mac;
	struct kt_buf sent; /* as sent last */
	struct kt_buf frame; /* TCP: with its length before it */
	size_t written;
	struct kt_buf got;
	struct kt_err broken; /* what the timer is to report at once */
	dns_answer_fn *fn;
	void *arg;
};

/* --- servers -------------------------------------------------------------------------------------------------------- */

uint16_t dns_server_port(const struct dns_server *server)
{
	return server->at.ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)&server->at)->sin_port)
					       : ntohs(((const struct sockaddr_in6 *)&server->at)->sin6_port);
}

void dns_server_set(struct dns_server *server, const struct sockaddr_storage *address, uint16_t port)
{
	char text[INET6_ADDRSTRLEN] = "?";
	bool v6 = address->ss_family == AF_INET6;

	server->at = *address;
	if (v6) {
		struct sockaddr_in6 *at = (struct sockaddr_in6 *)&server->at;

		at->sin6_port = htons(port);
		(void)inet_ntop(AF_INET6, &at->sin6_addr, text, sizeof(text));
	} else {
		struct sockaddr_in *at = (struct sockaddr_in *)&server->at;

		at->sin_port = htons(port);
		(void)inet_ntop(AF_INET, &at->sin_addr, text, sizeof(text));
	}
	if (port == 53) {
		(void)snprintf(server->text, sizeof(server->text), "%s", text);
	} else {
		(void)snprintf(server->text, sizeof(server->text), v6 ? "[%s]:%u" : "%s:%u", text, port);
	}
}

bool dns_server_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	if (a->ss_family != b->ss_family) {
		return false;
	}
	if (a->ss_family == AF_INET) {
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	}
	return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
		      sizeof(struct in6_addr)) == 0;
}

static socklen_t address_len(const struct dns_query *query)
{
	return query->server.at.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

static void disconnect(struct dns_query *query)
{
	kt_watch_destroy(query->watch);
	query->watch = NULL;
	kt_cleanup_close(&query->fd);
	query->fd = -1;
	query->connected = false;
}

void dns_cancel(struct dns_query *query)
{
	if (query == NULL) {
		return;
	}
	disconnect(query);
	kt_timer_destroy(query->timer);
	kt_buf_finish(&query->plain);
	kt_buf_finish(&query->bare);
	kt_buf_finish(&query->sent);
	kt_buf_finish(&query->frame);
	kt_buf_finish(&query->got);
	kt_free(query);
}

static void finish(struct dns_query *query, const struct kt_err *err, const struct dns_answer *answer,
		   const struct dns_verdict *verdict)
{
	dns_answer_fn *fn = query->fn;
	void *arg = query->arg;

	dns_cancel(query);
	fn(err, answer, verdict, arg);
}

static void fail(struct dns_query *query, const struct kt_err *why)
{
	struct dns_verdict verdict = {0};
	struct kt_err err = *why;

	(void)kt_err_prefix(&err, "name server %s", query->server.text);
	finish(query, &err, NULL, &verdict);
}

/* --- an answer -------------------------------------------------------------------------------------------------------- */

static void start_try(struct dns_query *query);

/* False: no answer to us, go on waiting. */
static bool take(struct dns_query *query, struct kt_view wire)
{
	struct dns_verdict verdict = {0};
	enum dns_signed sign = DNS_SIGNED;
	struct dns_answer answer;
	struct kt_err err;
	unsigned rcode;

	if (!dns_packet_answers(wire, kt_buf_view(&query->sent))) {
		return false;
	}
	rcode = (unsigned char)wire.ptr[3] & 0x0fu;
	if (query->tsig != NULL) {
		sign = dns_tsig_verify(query->tsig, kt_clock_wall(kt_loop_clock(query->loop)), &query->mac, wire,
				       &verdict.error, &verdict.skew);
		/* Whoever forges a failure gains nothing that silence would not give as well. */
		if (sign == DNS_FORGED || (sign == DNS_UNSIGNED && rcode == LDNS_RCODE_NOERROR)) {
			return false;
		}
	}
	if (((unsigned char)wire.ptr[2] & 0x02) != 0 && !query->tcp) {
		query->tcp = true;
		start_try(query);
		return true;
	}
	if ((rcode == LDNS_RCODE_FORMERR || rcode == LDNS_RCODE_NOTIMPL) && query->edns && query->bare.len > 0) {
		query->edns = false; /* an old server that doesn't know EDNS (RFC 6891 section 6.2.2) */
		start_try(query);
		return true;
	}
	kt_err_clear(&err);
	if (dns_packet_read(wire, &answer, &err) != KT_OK) {
		fail(query, &err);
		return true;
	}
	finish(query, &err, &answer, &verdict);
	dns_answer_finish(&answer);
	return true;
}

/* --- UDP -------------------------------------------------------------------------------------------------------------- */

static void on_datagram(int events, void *arg)
{
	struct dns_query *query = arg;
	struct kt_err err;
	ssize_t len;

	(void)events;
	for (;;) {
		kt_buf_reset(&query->got);
		if (kt_buf_extend(&query->got, DNS_MESSAGE_MAX) == NULL) {
			(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for an answer");
			fail(query, &err);
			return;
		}
		len = recv(query->fd, query->got.ptr, DNS_MESSAGE_MAX, 0);
		if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
			return;
		}
		if (len < 0) {
			(void)kt_err_sys(&err, "asking by UDP");
			err.code = KT_E_NET;
			fail(query, &err);
			return;
		}
		if (take(query, (struct kt_view){query->got.ptr, (size_t)len})) {
			return;
		}
		if (++query->strays > STRAYS_MAX) {
			(void)kt_err_set(&err, KT_E_PROTO, "answers of somebody else keep coming: a forger is at work, or "
							   "the server is broken");
			fail(query, &err);
			return;
		}
	}
}

static enum kt_code send_datagram(struct dns_query *query, struct kt_err *err)
{
	if (connect(query->fd, (struct sockaddr *)&query->server.at, address_len(query)) != 0 ||
	    send(query->fd, query->sent.ptr, query->sent.len, MSG_NOSIGNAL) < 0) {
		(void)kt_err_sys(err, "asking by UDP");
		err->code = KT_E_NET;
		return KT_E_NET;
	}
	kt_timer_start(query->timer, FIRST_WAIT << (query->tried - 1));
	return kt_watch_create(query->loop, query->fd, KT_LOOP_READ, on_datagram, query, &query->watch, err);
}

/* --- TCP -------------------------------------------------------------------------------------------------------------- */

/* True when a whole message was taken, or the query has ended. */
static bool read_stream(struct dns_query *query, struct kt_err *err)
{
	char chunk[2048];
	size_t want;
	ssize_t len = recv(query->fd, chunk, sizeof(chunk), 0);

	if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (len <= 0) {
		(void)kt_err_set(err, KT_E_NET, "the connection was closed before the answer");
		fail(query, err);
		return true;
	}
	kt_buf_add(&query->got, chunk, (size_t)len);
	if (query->got.failed != KT_OK) {
		(void)kt_err_set(err, query->got.failed, "the answer is too large");
		fail(query, err);
		return true;
	}
	if (query->got.len < 2) {
		return false;
	}
	want = (size_t)(unsigned char)query->got.ptr[0] << 8 | (unsigned char)query->got.ptr[1];
	if (want > DNS_MESSAGE_MAX) {
		(void)kt_err_set(err, KT_E_LIMIT, "the answer is larger than %u bytes", DNS_MESSAGE_MAX);
		fail(query, err);
		return true;
	}
	if (query->got.len < want + 2) {
		return false;
	}
	if (!take(query, (struct kt_view){query->got.ptr + 2, want})) {
		(void)kt_err_set(err, KT_E_PROTO, "%s", query->tsig == NULL
								? "the answer is to another question"
								: "the answer is to another question, or not signed by our key");
		fail(query, err);
	}
	return true;
}

static void on_stream(int events, void *arg)
{
	struct dns_query *query = arg;
	int error = 0;
	socklen_t size = sizeof(error);
	struct kt_err err;

	(void)events;
	if (!query->connected) {
		(void)getsockopt(query->fd, SOL_SOCKET, SO_ERROR, &error, &size);
		if (error != 0) {
			errno = error;
			(void)kt_err_sys(&err, "asking by TCP");
			err.code = KT_E_NET;
			fail(query, &err);
			return;
		}
		query->connected = true;
	}
	if (query->written < query->frame.len) {
		ssize_t len = send(query->fd, query->frame.ptr + query->written, query->frame.len - query->written,
				   MSG_NOSIGNAL);

		if (len < 0 && errno != EAGAIN && errno != EINTR) {
			(void)kt_err_sys(&err, "asking by TCP");
			err.code = KT_E_NET;
			fail(query, &err);
			return;
		}
		query->written += len > 0 ? (size_t)len : 0;
		if (query->written == query->frame.len && kt_watch_set(query->watch, KT_LOOP_READ, &err) != KT_OK) {
			fail(query, &err);
		}
		return;
	}
	(void)read_stream(query, &err);
}

static enum kt_code connect_stream(struct dns_query *query, struct kt_err *err)
{
	int one = 1;

	kt_buf_reset(&query->frame);
	kt_buf_addc(&query->frame, (char)(query->sent.len >> 8));
	kt_buf_addc(&query->frame, (char)(query->sent.len & 0xff));
	kt_buf_addv(&query->frame, kt_buf_view(&query->sent));
	query->written = 0;
	kt_buf_reset(&query->got);
	if (kt_buf_check(&query->frame, "a DNS message", err) != KT_OK) {
		return err->code;
	}
	(void)setsockopt(query->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(query->fd, (struct sockaddr *)&query->server.at, address_len(query)) != 0 && errno != EINPROGRESS) {
		(void)kt_err_sys(err, "asking by TCP");
		err->code = KT_E_NET;
		return KT_E_NET;
	}
	kt_timer_start(query->timer, TCP_WAIT);
	return kt_watch_create(query->loop, query->fd, KT_LOOP_WRITE, on_stream, query, &query->watch, err);
}

/* --- tries ------------------------------------------------------------------------------------------------------------ */

/* The message as it goes out this time: a fresh id, and therefore a fresh signature. */
static enum kt_code prepare(struct dns_query *query, struct kt_err *err)
{
	uint16_t id;

	kt_rand_bytes(&id, sizeof(id));
	kt_buf_reset(&query->sent);
	kt_buf_addv(&query->sent, kt_buf_view(query->edns ? &query->plain : &query->bare));
	dns_packet_set_id(&query->sent, id);
	if (query->tsig != NULL) {
		return dns_tsig_sign(query->tsig, kt_clock_wall(kt_loop_clock(query->loop)), &query->sent, &query->mac,
				     err);
	}
	return kt_buf_check(&query->sent, "a DNS message", err);
}

static enum kt_code try_once(struct dns_query *query, struct kt_err *err)
{
	int type = (query->tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;

	disconnect(query);
	if (prepare(query, err) != KT_OK) {
		return err->code;
	}
	query->fd = socket(query->server.at.ss_family, type, 0);
	if (query->fd < 0) {
		(void)kt_err_sys(err, "a socket");
		err->code = KT_E_NET;
		return KT_E_NET;
	}
	query->tried += query->tcp ? 0 : 1;
	return query->tcp ? connect_stream(query, err) : send_datagram(query, err);
}

static void start_try(struct dns_query *query)
{
	kt_err_clear(&query->broken);
	if (try_once(query, &query->broken) != KT_OK) {
		disconnect(query);
		kt_timer_start(query->timer, 0); /* told from the loop, never from within the call */
	}
}

static void on_timer(void *arg)
{
	struct dns_query *query = arg;
	struct kt_err err;

	if (query->broken.code != KT_OK) {
		err = query->broken;
		fail(query, &err);
	} else if (!query->tcp && query->tried < query->tries) {
		start_try(query);
	} else {
		(void)kt_err_set(&err, KT_E_TIMEOUT, "no answer%s", query->strays > 0 ? ", but what answers another question" : "");
		fail(query, &err);
	}
}

enum kt_code dns_ask(struct kt_loop *loop, const struct dns_ask *ask, dns_answer_fn *fn, void *arg,
		     struct dns_query **ret, struct kt_err *err)
{
	struct dns_query *query = kt_calloc(1, sizeof(*query));
	enum kt_code code;

	if (query == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a DNS query");
	}
	query->loop = loop;
	query->server = *ask->server;
	query->fd = -1;
	query->tcp = ask->tcp;
	query->tries = ask->tries > 0 ? ask->tries : TRIES;
	query->tsig = ask->tsig;
	query->edns = true;
	query->fn = fn;
	query->arg = arg;
	kt_buf_init(&query->plain, DNS_MESSAGE_MAX);
	kt_buf_init(&query->bare, DNS_MESSAGE_MAX);
	kt_buf_init(&query->sent, DNS_MESSAGE_MAX);
	kt_buf_init(&query->frame, DNS_MESSAGE_MAX + 2);
	kt_buf_init(&query->got, DNS_MESSAGE_MAX + 4096);
	code = kt_timer_create(loop, on_timer, query, &query->timer, err);
	if (code == KT_OK && ask->zone != NULL) {
		code = dns_packet_update(ask->zone, ask->name, ask->value, ask->add, ask->ttl, &query->plain, err);
	} else if (code == KT_OK) {
		code = dns_packet_query(ask->name, ask->type, ask->recurse, true, &query->plain, err);
		if (code == KT_OK) {
			code = dns_packet_query(ask->name, ask->type, ask->recurse, false, &query->bare, err);
		}
	}
	if (code != KT_OK) {
		dns_cancel(query);
		return code;
	}
	start_try(query);
	*ret = query;
	return KT_OK;
}
