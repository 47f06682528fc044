/* One agent on one state: an OFD lock whose file names the holder and its control socket. */
#include "keeper/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/text.h"

#define LOCK_NAME "lock"

/* The file: "<pid>\n<socket>\n"; empty while nobody writes. */
static void parse_holder(const char *text, size_t len, struct kt_store_holder *ret)
{
	const char *end = memchr(text, '\n', len);
	uint64_t pid;

	if (end == NULL || kt_parse_u64((struct kt_view){text, (size_t)(end - text)}, INT32_MAX, &pid, NULL) != KT_OK)
		return;
	ret->pid = (int64_t)pid;
	const char *socket = end + 1;
	size_t left = len - (size_t)(socket - text);
	end = memchr(socket, '\n', left);
	size_t size = end != NULL ? (size_t)(end - socket) : 0;
	if (size < sizeof(ret->socket)) {
		memcpy(ret->socket, socket, size);
		ret->socket[size] = '\0';
	}
}

static enum kt_code look(int fd, struct kt_store_holder *ret, struct kt_err *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[256];

	memset(ret, 0, sizeof(*ret));
	if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
		return kt_err_sys(err, "ask who holds the lock");
	if (lock.l_type == F_UNLCK)
		return KT_OK;
	ret->shared = lock.l_type == F_RDLCK;
	ret->pid = -1;
	if (!ret->shared) {
		ssize_t got = pread(fd, text, sizeof(text), 0);
		if (got > 0)
			parse_holder(text, (size_t)got, ret);
	}
	return KT_OK;
}

enum kt_code kt_store_holder(const char *dir, struct kt_store_holder *ret, struct kt_err *err)
{
	KT_AUTOCLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	KT_AUTOCLOSE int fd = dir_fd < 0 ? -1 : openat(dir_fd, LOCK_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	memset(ret, 0, sizeof(*ret));
	if (fd < 0 && errno == ENOENT)
		return KT_OK;
	if (fd < 0)
		return kt_err_sys(err, "%s/" LOCK_NAME, dir);
	return look(fd, ret, err);
}

static enum kt_code refuse(struct kt_store *store, int fd, struct kt_err *err)
{
	struct kt_store_holder holder;
	enum kt_code code = look(fd, &holder, err);

	if (code != KT_OK)
		return code;
	if (holder.shared)
		return kt_err_set(err, KT_E_BUSY,
		                  "%s is being read by another keyturn command: try again when it has ended",
		                  store->dir);
	if (holder.pid <= 0)
		return kt_err_set(err, KT_E_BUSY, "%s is in use by another keyturn: try again when it has ended",
		                  store->dir);
	return kt_err_set(err, KT_E_BUSY, "%s is in use by keyturn with pid %lld%s%s: stop it, or ask it%s", store->dir,
	                  (long long)holder.pid, holder.socket[0] != '\0' ? " on " : "", holder.socket,
	                  holder.socket[0] != '\0' ? " over that socket" : "");
}

/* True when the locked file is still the one that the name leads to. */
static bool still_there(struct kt_store *store, int fd)
{
	struct stat held;
	struct stat named;

	return fstat(fd, &held) == 0 && fstatat(store->dir_fd, LOCK_NAME, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

static enum kt_code write_holder(struct kt_store *store, const struct kt_store_open *options, struct kt_err *err)
{
	char text[256];
	int len = snprintf(text, sizeof(text), "%lld\n%s\n",
	                   (long long)(options->pid != 0 ? options->pid : (int64_t)getpid()),
	                   options->socket_path != NULL && strlen(options->socket_path) < 128 ? options->socket_path
	                                                                                      : "");

	if (ftruncate(store->lock_fd, 0) != 0 || pwrite(store->lock_fd, text, (size_t)len, 0) != len) {
		int error = errno;

		if (error != ENOSPC && error != EDQUOT)
			return kt_err_sys(err, "write %s/" LOCK_NAME, store->dir);
		kt_err_set(err, KT_E_SYS, "%s: there is no space left for the state: make room there", store->dir);
		if (err != NULL)
			err->sys_errno = error;
		return KT_E_SYS;
	}
	return KT_OK;
}

static bool is_missing(struct kt_store *store, const char *name)
{
	struct stat info;

	return fstatat(store->dir_fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
}

enum kt_code kt_lock_take(struct kt_store *store, const struct kt_store_open *options, struct kt_err *err)
{
	struct flock lock = {.l_type = store->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	enum kt_code code = KT_E_BUSY;

	for (int tries = 0; tries < 8; tries++) {
		int fd;

		if (store->read_only && is_missing(store, LOCK_NAME) && is_missing(store, KT_STORE_DB))
			return kt_err_set(err, KT_E_NOTFOUND, "there is no state in %s", store->dir); /* and none is made */
		fd = openat(store->dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
		if (fd < 0 && store->read_only && (errno == EROFS || errno == EACCES))
			fd = openat(store->dir_fd, LOCK_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
		if (fd < 0)
			return kt_err_sys(err, "%s/" LOCK_NAME, store->dir);
		if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
			code = errno == EAGAIN || errno == EACCES ? refuse(store, fd, err)
			                                          : kt_err_sys(err, "lock %s", store->dir);
			(void)close(fd);
			return code;
		}
		if (still_there(store, fd)) {
			store->lock_fd = fd;
			return store->read_only ? KT_OK : write_holder(store, options, err);
		}
		(void)close(fd);
	}
	return kt_err_set(err, code, "%s/" LOCK_NAME " is replaced again and again by somebody", store->dir);
}

void kt_lock_release(struct kt_store *store)
{
	if (store->lock_fd < 0)
		return;
	if (!store->read_only && ftruncate(store->lock_fd, 0) != 0)
		errno = 0; /* a stale name without a lock misleads nobody */
	(void)close(store->lock_fd);
	store->lock_fd = -1;
}
