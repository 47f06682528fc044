/* Inside the warden: the sockets it opens: control socket, listeners of the desk, and systemd's notify socket. */
#ifndef KT_WARDEN_SOCKETS_H
#define KT_WARDEN_SOCKETS_H

#include <sys/types.h>

#include "kt/err.h"
#include "kt/loop.h"
#include "kt/manifest.h"

/* --- local sockets (local.c) ------------------------------------------------------------------------------------ */

/*
 * Binds and listens on a local stream socket of any length of path. The folder is made (0755; 0700 when not root)
 * and has to be trusted. A socket that nobody answers on is replaced; KT_E_BUSY when somebody does; KT_E_POLICY when something
 * else, a link for instance, is in its place. gid: (gid_t)-1 gives mode 0600, else 0660 and that group. -1 on failure.
 */
int kt_local_listen(const char *path, gid_t gid, int backlog, struct kt_err *err);
/* As above; in_pod: folders above it may be mount points that others may write to. */
int kt_local_listen_in_pod(const char *path, gid_t gid, int backlog, bool in_pod, struct kt_err *err);
/* As kt_local_listen, for everybody (mode 0666): who is there is asked of the kernel later. */
int kt_local_listen_open(const char *path, int backlog, struct kt_err *err);
/* Connects; KT_E_NOTFOUND when nobody listens. -1 on failure. */
int kt_local_connect(const char *path, struct kt_err *err);
/* Removes the socket if fd is still the one that is bound there. */
void kt_local_remove(const char *path, int fd);

/* --- the control socket (control.c) ------------------------------------------------------------------------------ */

struct kt_control_socket;

struct kt_control_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

/* fn gets each connection of root, our own user and members of gid; it takes fd. fd of listen stays the caller's. */
enum kt_code kt_control_socket_create(struct kt_loop *loop, int listen_fd, gid_t gid,
                                      void (*fn)(int fd, const struct kt_control_peer *peer, void *arg), void *arg,
                                      struct kt_control_socket **ret, struct kt_err *err);
void kt_control_socket_destroy(struct kt_control_socket *control);

/* --- listeners (listen.c) ---------------------------------------------------------------------------------------- */

#define KT_LISTENERS_MAX 7u

struct kt_bound {
	char *names;   /* "acme", "jwks", "metrics", "probes", "control", "tlsAlpn01", "tokens"; with "+" between those that share it */
	char *address; /* as in the settings */
	int fd;
};

struct kt_bound_list {
	struct kt_bound items[KT_LISTENERS_MAX];
	unsigned count;
};

/*
 * Opens what the settings ask for, an address once; of what `old` (may be NULL) has open at the same address a duplicate
 * is taken, so that no connection is lost. On failure nothing is changed.
 */
enum kt_code kt_bound_open(const struct kt_listeners *listeners, const struct kt_bound_list *old, struct kt_bound_list *ret,
                           struct kt_err *err);
/* Local sockets are removed, but for those that `keep` (may be NULL) has, too. */
void kt_bound_close(struct kt_bound_list *list, const struct kt_bound_list *keep);
/* True for "acme+jwks": names as a former program of ours may have left them. */
bool kt_bound_names_known(const char *names);
/* "host:port", ":port" (IPv6 and IPv4) or "unix:/path" (gid as for kt_local_listen); -1 on failure. */
int kt_listen_on(const char *address, gid_t gid, struct kt_err *err);

/* --- systemd (notify.c) ------------------------------------------------------------------------------------------ */

/* Sends lines such as "READY=1" to $NOTIFY_SOCKET (sd_notify(3)); nothing happens when it is not set. */
void kt_notify_systemd(const char *lines);
/* How often WATCHDOG=1 is due (half of WATCHDOG_USEC), or 0. */
kt_ms kt_notify_watchdog(void);

#endif
