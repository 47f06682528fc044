/* Local sockets by path, of any length, made so that nobody else's file is ever taken for ours. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "warden/sockets.h"
#include "warden/warden.h"

/* A socket's folder, open, and its name in there. */
struct spot {
	int dir;
	char name[NAME_MAX + 1];
	struct sockaddr_un address; /* through /proc/self/fd, so that the length of the path does not matter */
};

static enum kt_code spot_open(const char *path, bool create, struct spot *spot, struct kt_err *err)
{
	KT_AUTOFREE char *copy = kt_strdup(path);
	KT_AUTOFREE char *base = kt_strdup(path);
	char *folder;
	char *real;
	const char *name;

	spot->dir = -1;
	if (copy == NULL || base == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for socket %s", path);
	}
	folder = dirname(copy);
	name = basename(base);
	if (path[0] != '/' || strlen(name) > NAME_MAX || name[0] == '.' || name[0] == '/') {
		return kt_err_set(err, KT_E_INVALID, "%s is not the absolute path of a socket", path);
	}
	memcpy(spot->name, name, strlen(name) + 1);
	real = realpath(folder, NULL);
	if (real == NULL && errno == ENOENT && create) {
		spot->dir = kt_io_open_dir_create(folder, geteuid() == 0 ? 0755 : 0700, err);
		if (spot->dir < 0 && err != NULL && err->sys_errno == EACCES) {
			(void)kt_err_set(err, KT_E_SYS, "uid %u can't make %s: run as root, or name folders of your own with "
			                 "--state-dir and --secrets-dir", geteuid(), folder);
		}
	} else if (real == NULL) {
		(void)kt_err_sys(err, "the folder of socket %s", path);
	} else {
		spot->dir = kt_io_open_nolinks(AT_FDCWD, real, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, err);
	}
	free(real);
	if (spot->dir < 0) {
		return err != NULL ? err->code : KT_E_SYS;
	}
	memset(&spot->address, 0, sizeof(spot->address));
	spot->address.sun_family = AF_UNIX;
	if (snprintf(spot->address.sun_path, sizeof(spot->address.sun_path), "/proc/self/fd/%d/%s", spot->dir,
	             spot->name) >= (int)sizeof(spot->address.sun_path)) {
		close(spot->dir);
		spot->dir = -1;
		return kt_err_set(err, KT_E_INVALID, "the name of socket %s is too long", path);
	}
	return KT_OK;
}

/* The folder has to be trusted as manifests are: else anybody could put a socket of their own in our place. */
static enum kt_code check_folder(const struct spot *spot, bool in_pod, struct kt_err *err)
{
	char link[64];
	char real[PATH_MAX];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", spot->dir);
	n = readlink(link, real, sizeof(real) - 1);
	if (n < 0) {
		return kt_err_sys(err, "the folder of a socket can't be examined");
	}
	real[n] = '\0';
	return kt_io_check_trusted_in_pod(real, geteuid(), in_pod ? KT_TRUST_MOUNT_ABOVE : 0, err);
}

static int try_connect(const struct spot *spot)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int saved;

	if (fd < 0) {
		return -1;
	}
	if (connect(fd, (const struct sockaddr *)&spot->address, sizeof(spot->address)) == 0) {
		return fd;
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* Makes room for our socket: removes a stale one, refuses everything else. */
static enum kt_code clear_spot(const struct spot *spot, const char *path, struct kt_err *err)
{
	struct stat st;
	int fd;

	if (fstatat(spot->dir, spot->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? KT_OK : kt_err_sys(err, "socket %s", path);
	}
	if (!S_ISSOCK(st.st_mode)) {
		return kt_err_set(err, KT_E_POLICY, "%s is in the way: it is %s, not a socket; remove it, or name another place with --socket", path,
		                  S_ISLNK(st.st_mode) ? "a symbolic link" : "a file");
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		return kt_err_set(err, KT_E_POLICY, "%s is a socket of uid %u", path, st.st_uid);
	}
	fd = try_connect(spot);
	if (fd >= 0 || errno == EAGAIN) {
		if (fd >= 0) {
			close(fd);
		}
		return kt_err_set(err, KT_E_BUSY, "another agent answers on %s", path);
	}
	if (errno != ECONNREFUSED) {
		return kt_err_sys(err, "socket %s", path);
	}
	return unlinkat(spot->dir, spot->name, 0) < 0 && errno != ENOENT ? kt_err_sys(err, "stale socket %s", path)
	                                                                 : KT_OK;
}

static int listen_at(const char *path, gid_t gid, mode_t mode, int backlog, bool in_pod, struct kt_err *err)
{
	struct spot spot;
	enum kt_code code = spot_open(path, true, &spot, err);
	bool grouped = gid != (gid_t)-1;
	mode_t mask;
	int fd = -1;
	int rc;

	if (code == KT_OK) {
		code = check_folder(&spot, in_pod, err);
	}
	if (code == KT_OK) {
		code = clear_spot(&spot, path, err);
	}
	if (code == KT_OK) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		mask = umask(0177);
		rc = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&spot.address, sizeof(spot.address));
		(void)umask(mask);
		if (rc < 0) {
			code = kt_err_sys(err, "socket %s", path);
		} else if ((grouped && fchownat(spot.dir, spot.name, (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) < 0) ||
		           (mode != 0600 && fchmodat(spot.dir, spot.name, mode, 0) < 0) || listen(fd, backlog) < 0) {
			code = kt_err_sys(err, "socket %s", path);
			(void)unlinkat(spot.dir, spot.name, 0);
		}
	}
	if (code != KT_OK && fd >= 0) {
		close(fd);
		fd = -1;
	}
	if (spot.dir >= 0) {
		close(spot.dir);
	}
	return fd;
}

int kt_local_listen_in_pod(const char *path, gid_t gid, int backlog, bool in_pod, struct kt_err *err)
{
	return listen_at(path, gid, gid != (gid_t)-1 ? 0660 : 0600, backlog, in_pod, err);
}

int kt_local_listen(const char *path, gid_t gid, int backlog, struct kt_err *err)
{
	return kt_local_listen_in_pod(path, gid, backlog, false, err);
}

int kt_local_listen_open(const char *path, int backlog, struct kt_err *err)
{
	return listen_at(path, (gid_t)-1, 0666, backlog, false, err);
}

static void no_agent(const char *path, struct kt_err *err)
{
	(void)kt_err_set(err, KT_E_NOTFOUND,
	                 "no agent listens on %s: start one with 'keyturn run', or name its socket with --socket", path);
}

int kt_local_connect(const char *path, struct kt_err *err)
{
	struct spot spot;
	int fd;

	if (spot_open(path, false, &spot, err) != KT_OK) {
		if (err != NULL && err->sys_errno == ENOENT) {
			no_agent(path, err);
		}
		return -1;
	}
	fd = try_connect(&spot);
	if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED)) {
		no_agent(path, err);
	} else if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		(void)kt_err_set(err, KT_E_POLICY, "%s: only root, the agent's user and the group of the settings may command",
		                 path);
	} else if (fd < 0 && errno == EAGAIN) {
		(void)kt_err_set(err, KT_E_LATER, "the agent on %s is too busy to answer", path);
	} else if (fd < 0) {
		(void)kt_err_sys(err, "socket %s", path);
	} else {
		(void)fcntl(fd, F_SETFL, 0);
	}
	close(spot.dir);
	return fd;
}

int kt_warden_connect(const char *socket_path, struct kt_err *err)
{
	return kt_local_connect(socket_path, err);
}

void kt_local_remove(const char *path, int fd)
{
	struct spot spot;
	struct kt_err err;
	int peer;

	kt_err_clear(&err);
	if (fd < 0 || spot_open(path, false, &spot, &err) != KT_OK) {
		return;
	}
	/* Ours when nobody answers any more once we have stopped listening. */
	(void)shutdown(fd, SHUT_RDWR);
	peer = try_connect(&spot);
	if (peer >= 0) {
		close(peer);
	} else if (errno == ECONNREFUSED) {
		(void)unlinkat(spot.dir, spot.name, 0);
	}
	close(spot.dir);
}
