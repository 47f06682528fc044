/* Reading and writing of whole files: bounded, durable, never half-written. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/base_internal.h"
#include "base/io_internal.h"
#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

enum { CHUNK = 16 * 1024 };

enum kt_code kt_base_io_err(struct kt_err *err, const char *what, const char *name)
{
	enum kt_code code = kt_err_sys(err, "%s %s", what, name);

	switch (errno) {
	case ENOENT:
		code = KT_E_NOTFOUND;
		break;
	case EEXIST:
		code = KT_E_EXISTS;
		break;
	case ELOOP:
		code = KT_E_POLICY; /* a symbolic link where none may be */
		break;
	default:
		break;
	}
	if (err)
		err->code = code;
	return code;
}

static ssize_t read_some(int fd, void *data, size_t len)
{
	ssize_t n;

	do {
		n = read(fd, data, len);
	} while (n < 0 && errno == EINTR);
	return n;
}

/* hint: how many bytes to expect. */
static enum kt_code read_all(int fd, const char *name, size_t hint, struct kt_buf *buf, struct kt_err *err)
{
	for (;;) {
		size_t left = buf->max - buf->len;
		char probe;
		ssize_t n;

		if (buf->failed != KT_OK)
			return kt_buf_check(buf, name, err);
		if (left == 0) {
			/* Full: one byte more would be one too many. */
			n = read_some(fd, &probe, 1);
			if (n > 0)
				kt_base_buf_fail(buf, KT_E_LIMIT);
		} else {
			size_t want = hint > buf->len ? hint - buf->len : CHUNK;

			if (want > left)
				want = left;
			if (!kt_base_buf_reserve(buf, want))
				continue;
			n = read_some(fd, buf->ptr + buf->len, want);
			if (n > 0) {
				buf->len += (size_t)n;
				buf->ptr[buf->len] = '\0';
			}
		}
		if (n < 0)
			return kt_base_io_err(err, "cannot read", name);
		if (n == 0)
			return KT_OK;
	}
}

enum kt_code kt_io_read_fd(int fd, const char *name, struct kt_buf *buf, struct kt_err *err)
{
	return read_all(fd, name, 0, buf, err);
}

enum kt_code kt_io_read_file(int dirfd, const char *path, struct kt_buf *buf, struct kt_err *err)
{
	/* O_NONBLOCK: a FIFO put there by somebody must not hold us. */
	KT_AUTOCLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	size_t size, hint = 0;

	if (fd < 0)
		return kt_base_io_err(err, "cannot open", path);
	if (fstat(fd, &st) < 0)
		return kt_base_io_err(err, "cannot stat", path);
	if (!S_ISREG(st.st_mode))
		return kt_err_set(err, KT_E_INVALID, "%s is not a regular file", path);
	size = st.st_size > 0 ? (size_t)st.st_size : 0;
	if (buf->failed == KT_OK && size > buf->max - buf->len) {
		kt_base_buf_fail(buf, KT_E_LIMIT);
		return kt_buf_check(buf, path, err);
	}
	if (size > 0)
		hint = buf->len + size + 1; /* + 1: so that the read that finds the end needs no more memory */
	return read_all(fd, path, hint, buf, err);
}

enum kt_code kt_io_write_all(int fd, const void *data, size_t len, const char *name, struct kt_err *err)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kt_base_io_err(err, "cannot write", name);
		at += n;
		len -= (size_t)n;
	}
	return KT_OK;
}

static enum kt_code sync_dir(int dirfd, const char *name, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = -1;

	if (dirfd >= 0 && fsync(dirfd) == 0)
		return KT_OK;
	if (dirfd >= 0 && errno != EBADF)
		return kt_base_io_err(err, "cannot fsync the directory of", name);
	/* AT_FDCWD or an O_PATH descriptor. */
	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return kt_base_io_err(err, "cannot fsync the directory of", name);
	return KT_OK;
}

/* Everything that happens to the temporary file before its rename. */
static enum kt_code fill_file(int fd, const char *name, const void *data, size_t len, mode_t mode, uid_t uid, gid_t gid,
                              bool durable, struct kt_err *err)
{
	enum kt_code code = kt_io_write_all(fd, data, len, name, err);

	if (code != KT_OK)
		return code;
	/* Owner first: fchown takes set-id bits away. */
	if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid) < 0)
		return kt_base_io_err(err, "cannot change the owner of", name);
	if (fchmod(fd, mode) < 0)
		return kt_base_io_err(err, "cannot change the mode of", name);
	if (durable && fsync(fd) < 0)
		return kt_base_io_err(err, "cannot fsync", name);
	return KT_OK;
}

enum kt_code kt_io_replace_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode, uid_t uid,
                                gid_t gid, bool durable, struct kt_err *err)
{
	char temp[32] = ".kt-";
	enum kt_code code;
	int fd;

	if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return kt_err_set(err, KT_E_INVALID, "'%s' is no file name", name);
	kt_rand_hex(temp + 4, 10);
	fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return kt_base_io_err(err, "cannot create a temporary file for", name);
	code = fill_file(fd, name, data, len, mode, uid, gid, durable, err);
	if (close(fd) < 0 && code == KT_OK)
		code = kt_base_io_err(err, "cannot close", name);
	if (code == KT_OK && renameat(dirfd, temp, dirfd, name) < 0)
		code = kt_base_io_err(err, "cannot rename to", name);
	if (code != KT_OK) {
		unlinkat(dirfd, temp, 0);
		return code;
	}
	return durable ? sync_dir(dirfd, name, err) : KT_OK;
}

bool kt_io_is_memory_backed(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	return (unsigned long)fs.f_type == TMPFS_MAGIC || (unsigned long)fs.f_type == RAMFS_MAGIC;
}

int kt_io_memfd(const char *name, const void *data, size_t len, struct kt_err *err)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) {
		kt_err_sys(err, "cannot create a memory file for %s", name);
		return -1;
	}
	if (kt_io_write_all(fd, data, len, name, err) != KT_OK)
		goto fail;
	if (lseek(fd, 0, SEEK_SET) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
		kt_err_sys(err, "cannot seal the memory file for %s", name);
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return -1;
}
