/* libmicrohttpd on the room's loop: listeners, connections, and the limits on both. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "desk/desk.h"
#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"

/*
 * libmicrohttpd's own time limit counts from the last byte, which a slow sender renews for ever; so connections stand
 * in a queue by the age of their request, and the head is cut off when its time is over. A connection is cut off by
 * shutdown(): libmicrohttpd sees the end of the stream and does the rest.
 *
 * It accepts through its own epoll descriptor, which the loop watches. Until the first connection the loop watches the
 * listening socket itself and no daemon exists.
 */

struct kt_desk_listener {
	struct kt_desk_listener *next;
	struct kt_desk_http *http;
	unsigned kinds; /* KT_DESK_BITs */
	bool local;
	int fd;
	struct MHD_Daemon *daemon; /* NULL before the first connection */
	struct kt_watch *watch;
	struct kt_timer *timer; /* what libmicrohttpd wants to be woken for, or the next try to start it */
};

struct kt_desk_http {
	struct kt_desk *desk;
	struct kt_desk_listener *listeners;
	struct kt_desk_conn *oldest, *newest;
	unsigned connections;
	struct kt_timer *deadline;
};

enum { RETRY_MS = 1000 };

unsigned kt_desk_http_kinds(const struct kt_desk_listener *listener)
{
	return listener->kinds;
}

unsigned kt_desk_http_connections(const struct kt_desk_http *http)
{
	return http->connections;
}

bool kt_desk_http_local(const struct kt_desk_listener *listener)
{
	return listener->local;
}

/* --- the queue of connections ------------------------------------------------------------------------------------ */

static kt_ms now(const struct kt_desk_http *http)
{
	return kt_clock_mono(kt_loop_clock(http->desk->loop));
}

static void arm_deadline(struct kt_desk_http *http)
{
	kt_ms left;

	if (!http->oldest) {
		kt_timer_stop(http->deadline);
		return;
	}
	left = http->oldest->since + http->desk->request_ms - now(http);
	kt_timer_start(http->deadline, left > 0 ? left : 0);
}

static void unlink_conn(struct kt_desk_http *http, struct kt_desk_conn *conn)
{
	*(conn->prev ? &conn->prev->next : &http->oldest) = conn->next;
	*(conn->next ? &conn->next->prev : &http->newest) = conn->prev;
	conn->prev = conn->next = NULL;
	http->connections--;
}

static void append_conn(struct kt_desk_http *http, struct kt_desk_conn *conn)
{
	conn->since = now(http);
	conn->prev = http->newest;
	conn->next = NULL;
	*(http->newest ? &http->newest->next : &http->oldest) = conn;
	http->newest = conn;
	http->connections++;
}

/* The request's time begins anew. */
static void renew(struct kt_desk_http *http, struct kt_desk_conn *conn)
{
	unlink_conn(http, conn);
	append_conn(http, conn);
}

static int conn_fd(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

int kt_desk_http_fd(const struct kt_desk_conn *conn)
{
	return conn_fd(conn->mhd);
}

/* Ends the oldest one; it goes to the end of the queue until libmicrohttpd has noticed. */
static void cut_oldest(struct kt_desk_http *http)
{
	struct kt_desk_conn *conn = http->oldest;

	(void)shutdown(conn_fd(conn->mhd), SHUT_RDWR);
	renew(http, conn);
}

static void on_deadline(void *arg)
{
	struct kt_desk_http *http = arg;
	kt_ms before = now(http) - http->desk->request_ms;

	while (http->oldest && http->oldest->since <= before)
		cut_oldest(http);
	arm_deadline(http);
}

/* May this one come in? */
static enum MHD_Result on_accept(void *cls, const struct sockaddr *addr, socklen_t addr_len)
{
	struct kt_desk_listener *listener = cls;
	struct kt_desk_http *http = listener->http;
	uint8_t from[KT_DESK_ADDRESS];
	unsigned same = 0;

	(void)addr_len;
	if (http->connections >= KT_DESK_CONNECTIONS_HARD)
		return MHD_NO;
	kt_desk_address(addr, from);
	for (const struct kt_desk_conn *conn = http->oldest; conn; conn = conn->next)
		same += kt_desk_address_same(conn->address, from);
	return same < KT_DESK_PER_ADDRESS ? MHD_YES : MHD_NO;
}

/* At a local socket only the connection itself tells who it is of: false when that user has enough of them already. */
static bool user_may(struct kt_desk_http *http, struct kt_desk_conn *conn)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	unsigned same = 0;

	if (getsockopt(conn_fd(conn->mhd), SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	kt_desk_address_user(cred.uid, conn->address);
	for (const struct kt_desk_conn *other = http->oldest; other; other = other->next)
		same += kt_desk_address_same(other->address, conn->address);
	return same < KT_DESK_PER_USER;
}

static void conn_started(struct kt_desk_listener *listener, struct MHD_Connection *mhd, void **socket_context)
{
	struct kt_desk_http *http = listener->http;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct kt_desk_conn *conn = kt_calloc(1, sizeof(*conn));

	*socket_context = conn;
	if (!conn) {
		(void)shutdown(conn_fd(mhd), SHUT_RDWR);
		return;
	}
	conn->mhd = mhd;
	conn->listener = listener;
	if (info && info->client_addr)
		kt_desk_address(info->client_addr, conn->address);
	if ((listener->kinds & KT_DESK_BIT(KT_DESK_TOKENS)) && !user_may(http, conn))
		(void)shutdown(conn_fd(mhd), SHUT_RDWR);
	else if (http->connections >= KT_DESK_CONNECTIONS_MAX)
		cut_oldest(http);
	append_conn(http, conn);
	if (http->oldest == conn)
		arm_deadline(http);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
	struct kt_desk_listener *listener = cls;
	struct kt_desk_conn *conn = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		conn_started(listener, mhd, socket_context);
	} else if (conn) {
		unlink_conn(listener->http, conn);
		kt_desk_given_destroy(conn->given);
		kt_free(conn);
		*socket_context = NULL;
	}
}

static struct kt_desk_conn *conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **req_cls,
                         enum MHD_RequestTerminationCode code)
{
	struct kt_desk_listener *listener = cls;
	struct kt_desk_conn *conn = conn_of(mhd);

	(void)req_cls;
	if (!conn || code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
		return;
	conn->resumed = false;
	renew(listener->http, conn);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *upload_data, size_t *upload_data_size,
                                  void **req_cls)
{
	struct kt_desk_listener *listener = cls;
	struct kt_desk_conn *conn = conn_of(mhd);

	(void)version;
	(void)upload_data;
	(void)upload_data_size;
	if (!conn)
		return MHD_NO;
	if (!*req_cls) {
		/* The head of the request is there. An answer given now ends the connection, as libmicrohttpd can't
		 * know whether a body would follow; all other answers wait for the second call. */
		*req_cls = conn;
		return kt_desk_route_check(conn, method, url);
	}
	return kt_desk_route(listener->http->desk, conn, url);
}

/* Escapes stay as they came: a path is what it is, byte for byte. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls;
	(void)mhd;
	return strlen(text);
}

/* --- libmicrohttpd and the loop ---------------------------------------------------------------------------------- */

static void run(struct kt_desk_listener *listener)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	(void)MHD_run(listener->daemon);
	if (MHD_get_timeout(listener->daemon, &timeout) == MHD_YES)
		kt_timer_start(listener->timer, timeout > KT_DESK_REQUEST_MS ? KT_DESK_REQUEST_MS : (kt_ms)timeout);
	else
		kt_timer_stop(listener->timer);
}

void kt_desk_http_wake(struct kt_desk_listener *listener)
{
	/* Not at once: this may be called from within MHD_run. */
	kt_timer_start(listener->timer, 0);
}

static void on_ready(int events, void *arg)
{
	(void)events;
	run(arg);
}

static enum kt_code start_daemon(struct kt_desk_listener *listener, struct kt_err *err)
{
	const union MHD_DaemonInfo *info;

	listener->daemon = MHD_start_daemon(
	        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, on_accept, listener, on_request, listener,
	        MHD_OPTION_LISTEN_SOCKET, listener->fd,
	        MHD_OPTION_CONNECTION_LIMIT, (unsigned)KT_DESK_CONNECTIONS_HARD,
	        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)KT_DESK_HEADERS_MAX,
	        MHD_OPTION_STRICT_FOR_CLIENT, 1,
	        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
	        MHD_OPTION_NOTIFY_CONNECTION, on_connection, listener,
	        MHD_OPTION_NOTIFY_COMPLETED, on_completed, listener, MHD_OPTION_END);
	if (!listener->daemon)
		return kt_err_sys(err, "the HTTP server can't start");
	info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return kt_err_set(err, KT_E_UNSUPPORTED, "libmicrohttpd was built without epoll");
	return kt_watch_create(listener->http->desk->loop, info->epoll_fd, KT_LOOP_READ, on_ready, listener,
	                       &listener->watch, err);
}

/* Stops the daemon but not the socket, which other processes hold too. */
static void stop_daemon(struct kt_desk_listener *listener)
{
	if (!listener->daemon)
		return;
	(void)MHD_quiesce_daemon(listener->daemon);
	MHD_stop_daemon(listener->daemon);
	listener->daemon = NULL;
}

static void on_first(int events, void *arg);

static enum kt_code watch_first(struct kt_desk_listener *listener, struct kt_err *err)
{
	return kt_watch_create(listener->http->desk->loop, listener->fd, KT_LOOP_READ, on_first, listener,
	                       &listener->watch, err);
}

/* Somebody knocks at this listener for the first time. */
static void on_first(int events, void *arg)
{
	struct kt_desk_listener *listener = arg;
	struct kt_err err;

	(void)events;
	kt_watch_destroy(listener->watch);
	listener->watch = NULL;
	errno = 0;
	if (start_daemon(listener, &err)) {
		kt_log_err(KT_LOG_ERROR, &err, "a listener waits");
		stop_daemon(listener);
		kt_timer_start(listener->timer, RETRY_MS);
		return;
	}
	run(listener);
}

static void on_timer(void *arg)
{
	struct kt_desk_listener *listener = arg;
	struct kt_err err;

	if (listener->daemon) {
		run(listener);
	} else if (watch_first(listener, &err)) {
		kt_timer_start(listener->timer, RETRY_MS);
	}
}

/* --- what others call -------------------------------------------------------------------------------------------- */

static bool is_local(int fd)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return false;
	if (addr.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&addr)->sin_addr.s_addr) >> 24 == 127;
	if (addr.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&addr)->sin6_addr);
	return addr.ss_family == AF_UNIX;
}

/* Only there is known who is at the other end. */
static bool is_unix(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

enum kt_code kt_desk_http_listen(struct kt_desk_http *http, unsigned kinds, int fd, struct kt_err *err)
{
	struct kt_desk_listener *listener;
	enum kt_code code;

	if ((kinds & KT_DESK_BIT(KT_DESK_TOKENS)) && !is_unix(fd))
		return kt_err_set(err, KT_E_POLICY, "tokens are given at a local socket only");
	listener = kt_calloc(1, sizeof(*listener));
	if (!listener)
		return kt_err_set(err, KT_E_NOMEM, "no memory for a listener");
	*listener = (struct kt_desk_listener){.http = http, .kinds = kinds, .fd = fd, .local = is_local(fd)};
	code = kt_timer_create(http->desk->loop, on_timer, listener, &listener->timer, err);
	if (!code)
		code = watch_first(listener, err);
	if (code) {
		kt_timer_destroy(listener->timer);
		kt_free(listener);
		return code;
	}
	listener->next = http->listeners;
	http->listeners = listener;
	return KT_OK;
}

enum kt_code kt_desk_http_create(struct kt_desk *desk, struct kt_desk_http **ret, struct kt_err *err)
{
	struct kt_desk_http *http = kt_calloc(1, sizeof(*http));
	enum kt_code code;

	*ret = NULL;
	if (!http)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the HTTP server");
	http->desk = desk;
	code = kt_timer_create(desk->loop, on_deadline, http, &http->deadline, err);
	if (code) {
		kt_free(http);
		return code;
	}
	*ret = http;
	return KT_OK;
}

void kt_desk_http_destroy(struct kt_desk_http *http)
{
	struct kt_desk_listener *listener;

	if (!http)
		return;
	while ((listener = http->listeners) != NULL) {
		http->listeners = listener->next;
		kt_watch_destroy(listener->watch);
		if (listener->daemon)
			(void)MHD_run(listener->daemon); /* the last answers of those who were woken just now */
		stop_daemon(listener);
		kt_timer_destroy(listener->timer);
		close(listener->fd);
		kt_free(listener);
	}
	kt_timer_destroy(http->deadline);
	kt_free(http);
}
