/* Files and sockets: whole reads, durable atomic writes, SCM_RIGHTS, directory walking that symlinks can't fool. */
#ifndef KT_IO_H
#define KT_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "kt/buf.h"
#include "kt/err.h"

/* Reads a whole regular file relative to dirfd (AT_FDCWD allowed) into buf, up to buf's max. path is for errors. */
enum kt_code kt_io_read_file(int dirfd, const char *path, struct kt_buf *buf, struct kt_err *err);
enum kt_code kt_io_read_fd(int fd, const char *name, struct kt_buf *buf, struct kt_err *err);
enum kt_code kt_io_write_all(int fd, const void *data, size_t len, const char *name, struct kt_err *err);

/*
 * Creates `name` in dirfd by a temporary file, fchmod, fchown (uid/gid of -1: leave), optional fsync, rename, and
 * optional fsync of the directory. A reader never sees a half-written file.
 */
enum kt_code kt_io_replace_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode, uid_t uid,
                                gid_t gid, bool durable, struct kt_err *err);

/* openat2(RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS); BENEATH as well when dirfd is a directory. */
int kt_io_open_nolinks(int dirfd, const char *path, int flags, mode_t mode, struct kt_err *err);

/* Opens dir, creating it and its missing parents (mode) without following symlinks. -1 on failure. */
int kt_io_open_dir_create(const char *path, mode_t mode, struct kt_err *err);

/* Refuses a path that others may write: it and every parent must belong to root or uid and have no write bit for
 * group or others (sticky directories are accepted for root-owned parents). */
enum kt_code kt_io_check_trusted(const char *path, uid_t uid, struct kt_err *err);

/*
 * As kt_io_check_trusted, for the volumes of a pod: what the kubelet makes is writable by everybody (an emptyDir has mode
 * 0777, with an fsGroup 2777), and only the containers that mount it see it. allow: bits of KT_TRUST_…. Owners are never
 * let off: all belongs to root or uid.
 */
enum {
	KT_TRUST_MOUNT = 1,       /* the path itself may be a mount point that others may write to */
	KT_TRUST_MOUNT_ABOVE = 2, /* so may a folder above it */
	KT_TRUST_READ_ONLY = 4,   /* folders on a mount that is read-only here (a ConfigMap) may have any mode */
};
enum kt_code kt_io_check_trusted_in_pod(const char *path, uid_t uid, unsigned allow, struct kt_err *err);

/*
 * Takes from group and others what they have on a folder of uid's and the plain files in it, as far as that can be done. At
 * every start of a pod with an fsGroup the kubelet gives a volume's files to that group, and lets it write.
 */
void kt_io_narrow(const char *path, uid_t uid);

/* True when name (relative to dirfd, not followed; "" for dirfd itself) is the root of a mount. */
bool kt_io_is_mount_root(int dirfd, const char *name);

/* True when fd lives on tmpfs or ramfs. */
bool kt_io_is_memory_backed(int fd);

/* Removes a directory tree below dirfd without following links. KT_OK when it does not exist. */
enum kt_code kt_io_remove_tree(int dirfd, const char *name, struct kt_err *err);

/* Sealed memfd with the data, for handing bytes to another room. -1 on failure. */
int kt_io_memfd(const char *name, const void *data, size_t len, struct kt_err *err);

#endif
