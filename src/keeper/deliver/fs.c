/* The system calls of delivery, one place each. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"

#include "keeper/deliver/deliver_internal.h"

enum kt_code kt_fs_mkdir(int dirfd, const char *name, mode_t mode, const char *label, bool *ret_made,
                         struct kt_err *err)
{
	*ret_made = false;
	if (mkdirat(dirfd, name, mode) == 0) {
		*ret_made = true;
		return KT_OK;
	}
	return errno == EEXIST ? KT_OK : kt_err_sys(err, "%s: cannot create folder %s", label, name);
}

int kt_fs_open_dir(int dirfd, const char *name, const char *label, struct kt_err *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == ELOOP || errno == ENOTDIR)
		kt_err_set(err, KT_E_POLICY, "%s: %s is a link or a file where a folder must be; remove it", label, name);
	else if (errno == ENOENT)
		kt_err_set(err, KT_E_NOTFOUND, "%s: folder %s does not exist", label, name);
	else
		kt_err_sys(err, "%s: cannot open folder %s", label, name);
	return -1;
}

enum kt_code kt_fs_own(int fd, uid_t uid, gid_t gid, mode_t mode, const char *name, const char *label,
                       struct kt_err *err)
{
	if (uid == geteuid())
		uid = KT_OWNER_KEEP; /* it is ours already */
	if ((uid != KT_OWNER_KEEP || gid != (gid_t)KT_OWNER_KEEP) && fchown(fd, uid, gid) != 0)
		return kt_err_sys(err, "%s: cannot give %s to uid %ld, gid %ld", label, name, (long)(int)uid,
		                  (long)(int)gid);
	/* Never left to the umask; after fchown, which takes bits away. */
	if (fchmod(fd, mode) != 0)
		return kt_err_sys(err, "%s: cannot set mode %04o of %s", label, (unsigned)mode, name);
	return KT_OK;
}

enum kt_code kt_fs_sync(int fd, const char *name, const char *label, struct kt_err *err)
{
	/* Never repeated after EIO: the kernel may have dropped the pages, a second success would be a lie. */
	while (fsync(fd) != 0) {
		if (errno != EINTR)
			return kt_err_sys(err, "%s: cannot make %s durable", label, name);
	}
	return KT_OK;
}

enum kt_code kt_fs_write_file(int dirfd, const struct kt_volume_file *file, bool durable, const char *label,
                              struct kt_err *err)
{
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(dirfd, file->path, flags, 0600);
	enum kt_code code;

	if (fd < 0) {
		if (errno == EEXIST || errno == ENOTDIR || errno == EISDIR)
			return kt_err_set(err, KT_E_INVALID, "%s: two files of the set have the path %s", label, file->path);
		return kt_err_sys(err, "%s: cannot create %s", label, file->path);
	}
	code = kt_io_write_all(fd, file->bytes.ptr, file->bytes.len, file->path, err);
	if (code != KT_OK && err)
		kt_err_prefix(err, "%s", label);
	if (code == KT_OK)
		code = kt_fs_own(fd, file->uid, file->gid, file->mode ? file->mode : 0600, file->path, label, err);
	if (code == KT_OK && durable)
		code = kt_fs_sync(fd, file->path, label, err);
	/* Some file systems tell of a full quota only here. */
	if (close(fd) != 0 && code == KT_OK)
		code = kt_err_sys(err, "%s: cannot close %s", label, file->path);
	if (code != KT_OK)
		unlinkat(dirfd, file->path, 0);
	return code;
}

enum kt_code kt_fs_symlink(int dirfd, const char *target, const char *name, const char *label, bool *ret_exists,
                           struct kt_err *err)
{
	*ret_exists = false;
	if (symlinkat(target, dirfd, name) == 0)
		return KT_OK;
	if (errno != EEXIST)
		return kt_err_sys(err, "%s: cannot make the link %s", label, name);
	*ret_exists = true;
	return KT_OK;
}

enum kt_code kt_fs_rename(int dirfd, const char *from, const char *to, const char *label, struct kt_err *err)
{
	if (renameat(dirfd, from, dirfd, to) == 0)
		return KT_OK;
	if (errno == EISDIR || errno == ENOTEMPTY || errno == EEXIST)
		return kt_err_set(err, KT_E_POLICY, "%s: a folder lies where the link %s must be; remove it", label, to);
	return kt_err_sys(err, "%s: cannot rename %s to %s", label, from, to);
}

enum kt_code kt_fs_unlink(int dirfd, const char *name, const char *label, struct kt_err *err)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return KT_OK;
	if (errno == EISDIR)
		return kt_err_set(err, KT_E_POLICY, "%s: %s is a folder that is not ours; remove it", label, name);
	return kt_err_sys(err, "%s: cannot remove %s", label, name);
}

enum kt_code kt_fs_readlink(int dirfd, const char *name, char *buf, size_t size, const char *label,
                            enum kt_fs_link *ret, struct kt_err *err)
{
	ssize_t n = readlinkat(dirfd, name, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	*ret = n >= 0 ? KT_FS_LINK_IS : errno == ENOENT ? KT_FS_LINK_NONE : KT_FS_LINK_OTHER;
	if (n >= 0 || errno == ENOENT || errno == EINVAL)
		return KT_OK;
	return kt_err_sys(err, "%s: cannot read the link %s", label, name);
}

enum kt_code kt_fs_stat(int dirfd, const char *name, const char *label, struct stat *st, bool *ret_exists,
                        struct kt_err *err)
{
	*ret_exists = fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
	if (*ret_exists || errno == ENOENT || errno == ENOTDIR)
		return KT_OK;
	return kt_err_sys(err, "%s: cannot look at %s", label, name);
}

enum kt_code kt_fs_list(int fd, const char *label, struct kt_buf *out, struct kt_err *err)
{
	/* The system call itself: readdir would need a descriptor of its own and 32 KiB for what is mostly ten names. */
	_Alignas(struct dirent64) char block[2048];
	long n;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return kt_err_sys(err, "%s: cannot read the folder", label);
	while ((n = syscall(SYS_getdents64, fd, block, sizeof(block))) > 0) {
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(void *)(block + at);

			at += entry->d_reclen;
			if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
				continue;
			kt_buf_addc(out, entry->d_type == DT_LNK ? 'L' : entry->d_type == DT_DIR ? 'D' : '?');
			kt_buf_add(out, entry->d_name, strlen(entry->d_name) + 1);
		}
	}
	if (n < 0)
		return kt_err_sys(err, "%s: cannot read the folder", label);
	return kt_buf_check(out, "names in a volume", err);
}

const char *kt_fs_list_next(const struct kt_buf *list, size_t *pos, char *ret_type)
{
	const char *name;

	if (*pos >= list->len)
		return NULL;
	*ret_type = list->ptr[*pos];
	name = list->ptr + *pos + 1;
	*pos += strlen(name) + 2;
	return name;
}
