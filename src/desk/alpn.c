/* The tls-alpn-01 listeners (RFC 8737): a handshake that shows the certificate of a challenge, and nothing after it. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "desk/desk.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"

/*
 * A connection costs a few hundred bytes until the client has said something; then it takes one of a bounded number of
 * places, and OpenSSL's memory comes with the place. Where all are taken it waits unread. A place is lost after the
 * request's time, or sooner when others wait, so who holds them all with half a hello holds them for a second.
 *
 * What has been refused or has gone through is read on for the rest of its time, and what is read is thrown away: closing
 * with unread bytes would send a reset, which could overtake the alert.
 */

enum { ACCEPT_AT_ONCE = 32, TICK_MS = 250, OUT_MAX = 32 * 1024, PIECE = 4096 };

enum stage {
	STAGE_SILENT,  /* nothing has come yet */
	STAGE_WAITING, /* something has, but there is no place */
	STAGE_SHAKING, /* has a place */
	STAGE_ENDING,  /* what is left to send is sent, then read and forgotten */
};

struct conn {
	struct conn *prev, *next; /* by age, oldest first */
	struct kt_desk_alpn *alpn;
	int fd;
	struct kt_watch *watch;
	struct kt_tls_handshake *handshake; /* while STAGE_SHAKING */
	struct kt_buf head;                 /* of a local socket: what came until it is known from whom */
	struct kt_buf out;
	size_t sent;  /* of out */
	size_t ended; /* bytes thrown away */
	kt_ms since;  /* accepted */
	kt_ms placed; /* got its place */
	enum stage stage;
	bool headed; /* past the PROXY header, if any */
	bool shut;   /* our side is closed */
	uint8_t address[KT_DESK_ADDRESS];
};

struct listener {
	struct listener *next;
	struct kt_desk_alpn *alpn;
	int fd;
	bool local; /* a Unix socket: who comes in there may say for whom */
	struct kt_watch *watch; /* NULL: descriptors or memory have run out; tried again with the next tick */
};

struct kt_desk_alpn {
	struct kt_desk *desk;
	struct listener *listeners;
	struct kt_tls_server *server; /* NULL before the first handshake */
	struct conn *oldest, *newest;
	unsigned connections, handshakes, waiting;
	struct kt_timer *tick;
	bool deaf; /* a listener has no watch */
};

unsigned kt_desk_alpn_connections(const struct kt_desk_alpn *alpn)
{
	return alpn->connections;
}

unsigned kt_desk_alpn_handshakes(const struct kt_desk_alpn *alpn)
{
	return alpn->handshakes;
}

bool kt_desk_alpn_listens(const struct kt_desk_alpn *alpn)
{
	return alpn->listeners != NULL;
}

static kt_ms now(const struct kt_desk_alpn *alpn)
{
	return kt_clock_mono(kt_loop_clock(alpn->desk->loop));
}

/* --- places ------------------------------------------------------------------------------------------------------ */

static unsigned places_of(const struct kt_desk_alpn *alpn, const uint8_t address[KT_DESK_ADDRESS])
{
	unsigned count = 0;

	for (const struct conn *conn = alpn->oldest; conn; conn = conn->next)
		count += conn->stage == STAGE_SHAKING && kt_desk_address_same(conn->address, address);
	return count;
}

static bool has_room(const struct kt_desk_alpn *alpn, const struct conn *conn)
{
	return alpn->handshakes < KT_DESK_ALPN_HANDSHAKES && places_of(alpn, conn->address) < KT_DESK_ALPN_SHARE;
}

static void leave_place(struct conn *conn)
{
	if (conn->stage == STAGE_SHAKING)
		conn->alpn->handshakes--;
	else if (conn->stage == STAGE_WAITING)
		conn->alpn->waiting--;
	kt_tls_handshake_destroy(conn->handshake);
	conn->handshake = NULL;
}

static void conn_end(struct conn *conn)
{
	struct kt_desk_alpn *alpn = conn->alpn;

	leave_place(conn);
	*(conn->prev ? &conn->prev->next : &alpn->oldest) = conn->next;
	*(conn->next ? &conn->next->prev : &alpn->newest) = conn->prev;
	alpn->connections--;
	kt_watch_destroy(conn->watch);
	close(conn->fd);
	kt_buf_finish(&conn->head);
	kt_buf_finish(&conn->out);
	kt_free(conn);
}

static void conn_watch(struct conn *conn, int events)
{
	struct kt_err err;

	/* It can't fail for a descriptor that was watched before; if it does, the tick ends the connection. */
	if (kt_watch_set(conn->watch, events, &err) != KT_OK)
		kt_log_err(KT_LOG_DEBUG, &err, "a tls-alpn-01 connection is lost");
}

/* Those who wait get the places that are free now, the oldest first. */
static void admit(struct kt_desk_alpn *alpn)
{
	unsigned places = KT_DESK_ALPN_HANDSHAKES - alpn->handshakes;

	for (struct conn *conn = alpn->oldest; conn && places > 0 && alpn->waiting > 0; conn = conn->next) {
		if (conn->stage != STAGE_WAITING || !has_room(alpn, conn))
			continue;
		conn->stage = STAGE_SILENT; /* what waits to be read, or was read, takes the place */
		alpn->waiting--;
		places--;
		conn_watch(conn, conn->head.len > 0 ? KT_LOOP_READ | KT_LOOP_WRITE : KT_LOOP_READ);
	}
}

/* --- the handshake ------------------------------------------------------------------------------------------------ */

static bool find_name(const char *name, struct kt_tls_identity *ret, void *arg)
{
	const struct kt_desk_alpn *alpn = arg;
	struct kt_desk_entry entry;
	char lower[KT_NAME_MAX + 1];
	size_t len = strlen(name);

	if (len > KT_NAME_MAX)
		return false;
	for (size_t i = 0; i <= len; i++)
		lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + ('a' - 'A')) : name[i];
	if (!kt_desk_served_find(alpn->desk->served, KT_DESK_ALPN, lower, &entry) || !entry.key)
		return false;
	*ret = (struct kt_tls_identity){entry.body, entry.key};
	return true;
}

static bool take_place(struct conn *conn)
{
	struct kt_desk_alpn *alpn = conn->alpn;
	struct kt_err err;
	enum kt_code code = KT_OK;

	if (!alpn->server)
		code = kt_tls_server_create(find_name, alpn, &alpn->server, &err);
	if (code == KT_OK)
		code = kt_tls_handshake_create(alpn->server, &conn->handshake, &err);
	if (code) {
		kt_log_err(KT_LOG_WARN, &err, "a tls-alpn-01 handshake can't be answered");
		return false;
	}
	conn->stage = STAGE_SHAKING;
	conn->placed = now(alpn);
	alpn->handshakes++;
	return true;
}

/* Sends what there is to send; false when the connection is gone. */
static bool flush(struct conn *conn)
{
	while (conn->sent < conn->out.len) {
		ssize_t n = send(conn->fd, conn->out.ptr + conn->sent, conn->out.len - conn->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			conn_watch(conn, KT_LOOP_READ | KT_LOOP_WRITE);
			return true;
		}
		if (n < 0)
			return false;
		conn->sent += (size_t)n;
	}
	kt_buf_reset(&conn->out);
	conn->sent = 0;
	if (conn->stage == STAGE_ENDING && !conn->shut) {
		conn->shut = true;
		(void)shutdown(conn->fd, SHUT_WR);
	}
	conn_watch(conn, KT_LOOP_READ);
	return true;
}

/* False when the connection has to end at once. */
static bool feed(struct conn *conn, struct kt_view in)
{
	struct kt_err err;
	enum kt_tls_step step;

	kt_err_clear(&err);
	step = kt_tls_handshake_feed(conn->handshake, in, &conn->out, &err);
	if (kt_buf_check(&conn->out, "an answer", NULL) != KT_OK)
		return false;
	if (step == KT_TLS_REFUSED)
		kt_log_err(KT_LOG_DEBUG, &err, "a tls-alpn-01 handshake is refused");
	if (step != KT_TLS_MORE) {
		leave_place(conn);
		conn->stage = STAGE_ENDING;
	}
	return flush(conn);
}

/* Part of what the client sent; false when the connection has to end. */
static bool take(struct conn *conn, struct kt_view in)
{
	if (conn->stage == STAGE_ENDING) {
		conn->ended += in.len;
		return conn->ended <= KT_TLS_INPUT_MAX;
	}
	return (conn->stage == STAGE_SHAKING || take_place(conn)) && feed(conn, in);
}

/* What came while it was not known from whom, without the PROXY header. */
static bool take_head(struct conn *conn)
{
	bool ok = take(conn, kt_buf_view(&conn->head));

	kt_buf_finish(&conn->head);
	kt_buf_init(&conn->head, 1);
	return ok;
}

/* True when it has to wait for a place. */
static bool waits(struct conn *conn)
{
	if (conn->stage != STAGE_SILENT || has_room(conn->alpn, conn))
		return false;
	conn->stage = STAGE_WAITING;
	conn->alpn->waiting++;
	conn_watch(conn, 0);
	return true;
}

/* The start of what a proxy hands over: is there a PROXY header? */
static bool read_head(struct conn *conn, struct kt_view in)
{
	struct kt_buf *head = &conn->head;
	size_t len;

	kt_buf_addv(head, in);
	if (kt_buf_check(head, "a PROXY header", NULL) != KT_OK)
		return false;
	switch (kt_desk_proxy_read(kt_buf_view(head), &len, conn->address)) {
	case KT_DESK_PROXY_MORE:
		return true;
	case KT_DESK_PROXY_BAD:
		return false;
	case KT_DESK_PROXY_NONE:
	case KT_DESK_PROXY_FOUND:
		break;
	}
	conn->headed = true;
	memmove(head->ptr, head->ptr + len, head->len - len);
	head->len -= len;
	return head->len == 0 || waits(conn) || take_head(conn);
}

/* False when the connection has to end. */
static bool read_some(struct conn *conn)
{
	char piece[PIECE];
	ssize_t n;

	if (conn->headed && waits(conn))
		return true;
	if (conn->headed && conn->head.len > 0)
		return take_head(conn);
	n = recv(conn->fd, piece, sizeof(piece), 0);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	return conn->headed ? take(conn, (struct kt_view){piece, (size_t)n})
	                    : read_head(conn, (struct kt_view){piece, (size_t)n});
}

static void on_ready(int events, void *arg)
{
	struct conn *conn = arg;
	struct kt_desk_alpn *alpn = conn->alpn;
	unsigned before = alpn->handshakes;
	uint64_t failures = kt_mem_failures();
	bool goes_on = true;

	if ((events & KT_LOOP_WRITE) && conn->out.len > 0)
		goes_on = flush(conn);
	if (goes_on && ((events & KT_LOOP_READ) || conn->head.len > 0))
		goes_on = read_some(conn);
	if (!goes_on)
		conn_end(conn);
	if (alpn->waiting > 0 && alpn->handshakes < before)
		admit(alpn);
	kt_desk_check_memory(alpn->desk, failures);
}

/* --- accepting ---------------------------------------------------------------------------------------------------- */

static void sweep(struct kt_desk_alpn *alpn)
{
	const kt_ms limit = alpn->desk->request_ms;
	struct conn *conn = alpn->oldest, *next;
	kt_ms at = now(alpn);

	for (; conn; conn = next) {
		next = conn->next;
		if (at - conn->since >= limit || (alpn->waiting > 0 && conn->stage == STAGE_SHAKING &&
		                                  at - conn->placed >= KT_DESK_ALPN_CROWDED_MS))
			conn_end(conn);
	}
	if (alpn->waiting > 0)
		admit(alpn);
}

static unsigned count_of(const struct kt_desk_alpn *alpn, const uint8_t address[KT_DESK_ADDRESS])
{
	unsigned count = 0;

	for (const struct conn *conn = alpn->oldest; conn; conn = conn->next)
		count += kt_desk_address_same(conn->address, address);
	return count;
}

/* One more may come in, for the oldest one where there is no room else and its time to be polite is over. */
static bool make_room(struct kt_desk_alpn *alpn, const uint8_t address[KT_DESK_ADDRESS])
{
	if (count_of(alpn, address) >= KT_DESK_ALPN_PER_ADDRESS)
		return false;
	if (alpn->connections < KT_DESK_ALPN_CONNECTIONS)
		return true;
	if (now(alpn) - alpn->oldest->since < KT_DESK_ALPN_CROWDED_MS)
		return false;
	conn_end(alpn->oldest);
	return true;
}

static void on_accepted(struct listener *listener, int fd, const struct sockaddr *from)
{
	struct kt_desk_alpn *alpn = listener->alpn;
	struct conn *conn;
	uint8_t address[KT_DESK_ADDRESS];

	kt_desk_address(from, address);
	conn = make_room(alpn, address) ? kt_calloc(1, sizeof(*conn)) : NULL;
	if (!conn) {
		close(fd);
		return;
	}
	*conn = (struct conn){.alpn = alpn, .fd = fd, .since = now(alpn), .headed = !listener->local};
	memcpy(conn->address, address, sizeof(address));
	kt_buf_init(&conn->head, KT_DESK_PROXY_MAX + PIECE);
	kt_buf_init(&conn->out, OUT_MAX);
	if (kt_watch_create(alpn->desk->loop, fd, KT_LOOP_READ, on_ready, conn, &conn->watch, NULL) != KT_OK) {
		close(fd);
		kt_free(conn);
		return;
	}
	conn->prev = alpn->newest;
	*(alpn->newest ? &alpn->newest->next : &alpn->oldest) = conn;
	alpn->newest = conn;
	if (alpn->connections++ == 0)
		kt_timer_start(alpn->tick, TICK_MS);
}

static void on_knock(int events, void *arg)
{
	struct listener *listener = arg;
	struct sockaddr_storage from;

	(void)events;
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		socklen_t len = sizeof(from);
		int fd;

		memset(&from, 0, sizeof(from));
		fd = accept4(listener->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			on_accepted(listener, fd, (const struct sockaddr *)&from);
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO || errno == EPERM)
			continue;
		/* No descriptors, no memory: better deaf for a moment than busy for nothing. */
		kt_watch_destroy(listener->watch);
		listener->watch = NULL;
		listener->alpn->deaf = true;
		kt_timer_start(listener->alpn->tick, TICK_MS);
		return;
	}
}

static enum kt_code listener_watch(struct listener *listener, struct kt_err *err)
{
	return kt_watch_create(listener->alpn->desk->loop, listener->fd, KT_LOOP_READ, on_knock, listener,
	                       &listener->watch, err);
}

static void on_tick(void *arg)
{
	struct kt_desk_alpn *alpn = arg;

	sweep(alpn);
	if (alpn->deaf) {
		alpn->deaf = false;
		for (struct listener *listener = alpn->listeners; listener; listener = listener->next)
			if (!listener->watch && listener_watch(listener, NULL) != KT_OK)
				alpn->deaf = true;
	}
	if (alpn->connections > 0 || alpn->deaf)
		kt_timer_start(alpn->tick, TICK_MS);
}

/* --- what others call --------------------------------------------------------------------------------------------- */

enum kt_code kt_desk_alpn_listen(struct kt_desk_alpn *alpn, int fd, struct kt_err *err)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	struct listener *listener;
	enum kt_code code = kt_tls_load(err);

	if (code)
		return code;
	listener = kt_calloc(1, sizeof(*listener));
	if (!listener)
		return kt_err_set(err, KT_E_NOMEM, "no memory for a listener");
	*listener = (struct listener){.alpn = alpn, .fd = fd};
	listener->local = getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.ss_family == AF_UNIX;
	code = listener_watch(listener, err);
	if (code) {
		kt_free(listener);
		return code;
	}
	listener->next = alpn->listeners;
	alpn->listeners = listener;
	return KT_OK;
}

enum kt_code kt_desk_alpn_create(struct kt_desk *desk, struct kt_desk_alpn **ret, struct kt_err *err)
{
	struct kt_desk_alpn *alpn = kt_calloc(1, sizeof(*alpn));
	enum kt_code code;

	*ret = NULL;
	if (!alpn)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the TLS server");
	alpn->desk = desk;
	code = kt_timer_create(desk->loop, on_tick, alpn, &alpn->tick, err);
	if (code) {
		kt_free(alpn);
		return code;
	}
	*ret = alpn;
	return KT_OK;
}

void kt_desk_alpn_destroy(struct kt_desk_alpn *alpn)
{
	struct listener *listener;

	if (!alpn)
		return;
	while (alpn->oldest)
		conn_end(alpn->oldest);
	while ((listener = alpn->listeners) != NULL) {
		alpn->listeners = listener->next;
		kt_watch_destroy(listener->watch);
		close(listener->fd);
		kt_free(listener);
	}
	kt_tls_server_destroy(alpn->server);
	kt_timer_destroy(alpn->tick);
	kt_free(alpn);
}
