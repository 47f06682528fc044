/* The control socket: who may command is decided here by SO_PEERCRED; what is said on a connection is the keeper's. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "warden/sockets.h"

/*
 * A connection is handed on at once and the keeper limits how many it has; here only the pace is limited: a burst, then so
 * many a second, so that a peer that connects without end keeps neither the warden nor the wire busy.
 */
#define BURST       64
#define PER_SECOND  64
#define GROUPS_MAX  1024

struct kt_control_socket {
	struct kt_loop *loop;
	int listen_fd;
	gid_t gid;
	struct kt_watch *watch;
	struct kt_timer *timer;
	int tokens;
	kt_ms filled; /* monotonic */
	bool refused_before;
	void (*fn)(int fd, const struct kt_control_peer *peer, void *arg);
	void *arg;
};

/* A member by its supplementary groups, as the kernel had them at connect. */
static bool in_group(int fd, gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	socklen_t len = sizeof(groups);
	size_t i;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0) {
		return false;
	}
	for (i = 0; i < len / sizeof(groups[0]); i++) {
		if (groups[i] == gid) {
			return true;
		}
	}
	return false;
}

static bool may_command(const struct kt_control_socket *control, int fd, struct kt_control_peer *ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		return false;
	}
	*ret = (struct kt_control_peer){cred.uid, cred.gid, cred.pid};
	return cred.uid == 0 || cred.uid == geteuid() ||
	       (control->gid != (gid_t)-1 && (cred.gid == control->gid || in_group(fd, control->gid)));
}

/* Stops listening to the socket for a while. */
static void pause_for(struct kt_control_socket *control, kt_ms delay)
{
	(void)kt_watch_set(control->watch, 0, NULL);
	kt_timer_start(control->timer, delay);
}

static void on_timer(void *arg)
{
	struct kt_control_socket *control = arg;

	(void)kt_watch_set(control->watch, KT_LOOP_READ, NULL);
}

static bool take_token(struct kt_control_socket *control)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(control->loop));
	kt_ms more = (now - control->filled) * PER_SECOND / KT_SECOND;

	if (more > 0) {
		control->tokens = more > BURST - control->tokens ? BURST : control->tokens + (int)more;
		control->filled = now;
	}
	if (control->tokens == 0) {
		return false;
	}
	control->tokens--;
	return true;
}

static void on_connection(int events, void *arg)
{
	struct kt_control_socket *control = arg;
	struct kt_control_peer peer = {0};
	int fd;

	(void)events;
	if (!take_token(control)) {
		pause_for(control, KT_SECOND / 4);
		return;
	}
	fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			kt_log(KT_LOG_WARN, "no descriptor left for a control connection; trying again in 1 s");
			pause_for(control, KT_SECOND);
		}
		return;
	}
	if (!may_command(control, fd, &peer)) {
		if (!control->refused_before) {
			kt_log(KT_LOG_WARN, "uid %u (pid %d) may not command this agent; further refusals are not logged",
			       peer.uid, (int)peer.pid);
			control->refused_before = true;
		}
		close(fd);
		return;
	}
	control->fn(fd, &peer, control->arg);
}

enum kt_code kt_control_socket_create(struct kt_loop *loop, int listen_fd, gid_t gid,
                                      void (*fn)(int fd, const struct kt_control_peer *peer, void *arg), void *arg,
                                      struct kt_control_socket **ret, struct kt_err *err)
{
	struct kt_control_socket *control = kt_calloc(1, sizeof(*control));
	enum kt_code code;

	if (control == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the control socket");
	}
	control->loop = loop;
	control->listen_fd = listen_fd;
	control->gid = gid;
	control->fn = fn;
	control->arg = arg;
	control->tokens = BURST;
	control->filled = kt_clock_mono(kt_loop_clock(loop));
	code = kt_timer_create(loop, on_timer, control, &control->timer, err);
	if (code == KT_OK) {
		code = kt_watch_create(loop, listen_fd, KT_LOOP_READ, on_connection, control, &control->watch, err);
	}
	if (code != KT_OK) {
		kt_control_socket_destroy(control);
		return code;
	}
	*ret = control;
	return KT_OK;
}

void kt_control_socket_destroy(struct kt_control_socket *control)
{
	if (control == NULL) {
		return;
	}
	kt_watch_destroy(control->watch);
	kt_timer_destroy(control->timer);
	kt_free(control);
}
