/* Paths and directories where others may plant links: opening, creating, trusting, removing. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io_internal.h"
#include "kt/io.h"
#include "kt/mem.h"

enum { LINKS_MAX = 40, DEPTH_MAX = 64, RACE_TRIES = 16 };

int kt_io_open_nolinks(int dirfd, const char *path, int flags, mode_t mode, struct kt_err *err)
{
	struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC),
		.mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? mode : 0,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (dirfd == AT_FDCWD ? 0 : RESOLVE_BENEATH),
	};
	long fd = -1;

	/* EAGAIN: a directory on the way was renamed while we looked. */
	for (int i = 0; i < RACE_TRIES; i++) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	if (fd >= 0)
		return (int)fd;
	if (errno == ENOSYS)
		kt_err_set(err, KT_E_UNSUPPORTED, "cannot open %s: this needs openat2, Linux 5.6 or later", path);
	else
		kt_base_io_err(err, "cannot open", path);
	return -1;
}

/* Makes the new entry of dir (which may be O_PATH) last; one that may be entered but not read is left to its owner. */
static int keep_entry(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return errno == EACCES ? 0 : -1;
	rc = fsync(fd);
	kt_cleanup_close(&fd);
	return rc < 0 && errno != EINVAL ? -1 : 0;
}

/* Opens component `name` of dir, or makes it. -1 with errno. */
static int enter(int dir, const char *name, mode_t mode, bool last)
{
	int flags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | (last ? O_RDONLY : O_PATH);
	int fd = openat(dir, name, flags);

	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (mkdirat(dir, name, mode) < 0) {
		/* Somebody else was faster: theirs is as good. */
		return errno == EEXIST ? openat(dir, name, flags) : -1;
	}
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* The umask does not decide, and a power cut does not take it away. */
	if (fd >= 0 && (fchmod(fd, mode) < 0 || keep_entry(dir) < 0)) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

int kt_io_open_dir_create(const char *path, mode_t mode, struct kt_err *err)
{
	char part[NAME_MAX + 1];
	const char *at = path;
	int dir;

	if (path[0] == '\0') {
		kt_err_set(err, KT_E_INVALID, "the path of a directory is empty");
		return -1;
	}
	/* Only the last one is read: Landlock lets a room pass through "/", not list it. */
	dir = open(path[0] == '/' ? "/" : ".",
	           (path[strspn(path, "/")] == '\0' ? O_RDONLY : O_PATH) | O_DIRECTORY | O_CLOEXEC);
	while (dir >= 0) {
		size_t len;
		int next;

		at += strspn(at, "/");
		if (*at == '\0')
			return dir;
		len = strcspn(at, "/");
		if (len > NAME_MAX || (len == 2 && at[0] == '.' && at[1] == '.')) {
			close(dir);
			kt_err_set(err, KT_E_INVALID, "%s: '..' and over-long names are refused", path);
			return -1;
		}
		memcpy(part, at, len);
		part[len] = '\0';
		at += len;
		next = enter(dir, part, mode, at[strspn(at, "/")] == '\0');
		kt_cleanup_close(&dir);
		dir = next;
	}
	kt_base_io_err(err, "cannot open or create directory", path);
	return -1;
}

/* --- trust ------------------------------------------------------------------------------------------------------- */

/* A walk along a path: `done` was checked, `rest` is still to come. */
struct walk {
	char done[PATH_MAX];
	char rest[PATH_MAX];
	int links;
	unsigned allow; /* KT_TRUST_… */
};

bool kt_io_is_mount_root(int dirfd, const char *name)
{
	struct statx st;

	return statx(dirfd, name, AT_SYMLINK_NOFOLLOW | (name[0] == '\0' ? AT_EMPTY_PATH : 0), STATX_TYPE, &st) == 0 &&
	       (st.stx_attributes_mask & st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* What the kubelet mounts into a pod is writable by everybody who mounts it; a mount that we can't write to ourselves was
 * filled by the kubelet. */
static bool is_pod_volume(const char *path, const struct stat *st, unsigned allow, bool last)
{
	struct statvfs fs;

	if (!S_ISDIR(st->st_mode))
		return false;
	if ((allow & KT_TRUST_READ_ONLY) != 0 && statvfs(path, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0)
		return true;
	return (allow & (last ? KT_TRUST_MOUNT : KT_TRUST_MOUNT_ABOVE)) != 0 && kt_io_is_mount_root(AT_FDCWD, path);
}

static enum kt_code check_one(const char *path, const struct stat *st, uid_t uid, unsigned allow, bool last,
                              struct kt_err *err)
{
	if (st->st_uid != 0 && st->st_uid != uid)
		return kt_err_set(err, KT_E_POLICY, "%s belongs to uid %lu, not to root or uid %lu", path,
		                  (unsigned long)st->st_uid, (unsigned long)uid);
	if (S_ISLNK(st->st_mode) || (st->st_mode & 022) == 0)
		return KT_OK;
	/* /tmp and the like: what lies in them can't be swapped by others, so its own owner decides. */
	if (!last && S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) && st->st_uid == 0)
		return KT_OK;
	if (is_pod_volume(path, st, allow, last))
		return KT_OK;
	return kt_err_set(err, KT_E_POLICY, "%s may be written by others (mode %04o): chmod go-w %s%s", path,
	                  (unsigned)st->st_mode & 07777u, path,
	                  S_ISDIR(st->st_mode) && kt_io_is_mount_root(AT_FDCWD, path)
	                          ? " (or use --sidecar where it is a volume of a pod)"
	                          : "");
}

static void drop_last(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == path)
		slash[1] = '\0';
	else if (slash)
		*slash = '\0';
}

/* Puts the target of the link walk->done in its place. */
static enum kt_code follow(struct walk *walk, struct kt_err *err)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t n = readlink(walk->done, target, sizeof(target) - 1);

	if (n < 0)
		return kt_base_io_err(err, "cannot read link", walk->done);
	target[n] = '\0';
	if (++walk->links > LINKS_MAX)
		return kt_err_set(err, KT_E_LIMIT, "%s: too many symbolic links", walk->done);
	if ((size_t)snprintf(joined, sizeof(joined), "%s/%s", target, walk->rest) >= sizeof(joined))
		return kt_err_set(err, KT_E_LIMIT, "%s: the path is too long", walk->done);
	memcpy(walk->rest, joined, strlen(joined) + 1);
	if (target[0] == '/')
		memcpy(walk->done, "/", 2);
	else
		drop_last(walk->done);
	return KT_OK;
}

/* Moves the next component from rest to done. False: nothing left. KT_E_LIMIT in *code: too long. */
static bool step(struct walk *walk, bool *ret_checked, enum kt_code *code, struct kt_err *err)
{
	size_t skip = strspn(walk->rest, "/");
	size_t len = strcspn(walk->rest + skip, "/");
	char part[NAME_MAX + 1];
	size_t used = strlen(walk->done);

	*ret_checked = true;
	if (len == 0)
		return false;
	if (len > NAME_MAX || used + len + 2 > sizeof(walk->done)) {
		*code = kt_err_set(err, KT_E_LIMIT, "%s: the path is too long", walk->done);
		return false;
	}
	memcpy(part, walk->rest + skip, len);
	part[len] = '\0';
	memmove(walk->rest, walk->rest + skip + len, strlen(walk->rest + skip + len) + 1);
	if (strcmp(part, ".") == 0)
		return true;
	if (strcmp(part, "..") == 0) {
		drop_last(walk->done);
		return true;
	}
	snprintf(walk->done + used, sizeof(walk->done) - used, "%s%s", used > 1 ? "/" : "", part);
	*ret_checked = false;
	return true;
}

static enum kt_code walk_trusted(struct walk *walk, uid_t uid, struct kt_err *err)
{
	enum kt_code code = KT_OK;
	struct stat st;
	bool checked;

	if (lstat("/", &st) < 0)
		return kt_base_io_err(err, "cannot stat", "/");
	code = check_one("/", &st, uid, 0, false, err);
	while (code == KT_OK && step(walk, &checked, &code, err)) {
		if (checked)
			continue;
		if (lstat(walk->done, &st) < 0)
			return kt_base_io_err(err, "cannot stat", walk->done);
		code = check_one(walk->done, &st, uid, walk->allow, walk->rest[strspn(walk->rest, "/")] == '\0', err);
		if (code == KT_OK && S_ISLNK(st.st_mode))
			code = follow(walk, err);
	}
	return code;
}

enum kt_code kt_io_check_trusted(const char *path, uid_t uid, struct kt_err *err)
{
	return kt_io_check_trusted_in_pod(path, uid, 0, err);
}

enum kt_code kt_io_check_trusted_in_pod(const char *path, uid_t uid, unsigned allow, struct kt_err *err)
{
	KT_AUTOFREE struct walk *walk = kt_calloc(1, sizeof(*walk));
	char cwd[PATH_MAX] = "";

	if (!walk)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
	if (path[0] == '\0')
		return kt_err_set(err, KT_E_INVALID, "an empty path");
	memcpy(walk->done, "/", 2);
	walk->allow = allow;
	if (path[0] != '/' && !getcwd(cwd, sizeof(cwd)))
		return kt_base_io_err(err, "cannot find the directory of", path);
	if ((size_t)snprintf(walk->rest, sizeof(walk->rest), "%s/%s", cwd, path) >= sizeof(walk->rest))
		return kt_err_set(err, KT_E_LIMIT, "%s: the path is too long", path);
	return walk_trusted(walk, uid, err);
}

void kt_io_narrow(const char *path, uid_t uid)
{
	struct kt_err err;
	int dir = kt_io_open_nolinks(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &err);
	DIR *list = dir >= 0 ? fdopendir(dir) : NULL;
	struct dirent *entry;
	struct stat st;
	bool ours = list && fstat(dir, &st) == 0 && st.st_uid == uid && (st.st_mode & 077) != 0 &&
	            fchmod(dir, 0700) == 0;

	/* Nobody else gets in from here on. */
	while (ours && (entry = readdir(list)) != NULL) {
		if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    st.st_uid == uid && st.st_nlink == 1 && (st.st_mode & 077) != 0)
			ours = fchmodat(dir, entry->d_name, st.st_mode & 0700, 0) == 0;
	}
	if (list)
		closedir(list);
	else if (dir >= 0)
		close(dir);
}

/* --- removal ----------------------------------------------------------------------------------------------------- */

static enum kt_code remove_entry(int dir, const char *name, int depth, struct kt_err *err);

static enum kt_code remove_contents(int fd, const char *name, int depth, struct kt_err *err)
{
	DIR *list = fdopendir(fd);
	enum kt_code code = KT_OK;

	if (!list) {
		code = kt_base_io_err(err, "cannot list", name);
		close(fd);
		return code;
	}
	while (code == KT_OK) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(list);
		if (!entry) {
			if (errno != 0)
				code = kt_base_io_err(err, "cannot list", name);
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		code = remove_entry(dirfd(list), entry->d_name, depth + 1, err);
	}
	closedir(list);
	return code;
}

static enum kt_code remove_entry(int dir, const char *name, int depth, struct kt_err *err)
{
	enum kt_code code;
	int fd;

	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return KT_OK;
	if (errno != EISDIR && errno != EPERM)
		return kt_base_io_err(err, "cannot remove", name);
	if (depth > DEPTH_MAX)
		return kt_err_set(err, KT_E_LIMIT, "cannot remove %s: nested deeper than %d", name, DEPTH_MAX);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? KT_OK : kt_base_io_err(err, "cannot remove", name);
	code = remove_contents(fd, name, depth, err);
	if (code == KT_OK && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		code = kt_base_io_err(err, "cannot remove", name);
	return code;
}

enum kt_code kt_io_remove_tree(int dirfd, const char *name, struct kt_err *err)
{
	const char *slash = strrchr(name, '/');
	const char *leaf = slash ? slash + 1 : name;
	KT_AUTOFREE char *parent = NULL;
	KT_AUTOCLOSE int fd = -1;
	struct kt_err local;

	if (leaf[0] == '\0' || strcmp(leaf, ".") == 0 || strcmp(leaf, "..") == 0)
		return kt_err_set(err, KT_E_INVALID, "cannot remove '%s'", name);
	if (!slash)
		return remove_entry(dirfd, name, 0, err);
	parent = kt_strndup(name, slash == name ? 1 : (size_t)(slash - name));
	if (!parent)
		return kt_err_set(err, KT_E_NOMEM, "cannot remove %s: out of memory", name);
	fd = kt_io_open_nolinks(dirfd, parent, O_PATH | O_DIRECTORY, 0, &local);
	if (fd < 0) {
		if (local.code == KT_E_NOTFOUND)
			return KT_OK;
		if (err)
			*err = local;
		return local.code;
	}
	return remove_entry(fd, leaf, 0, err);
}
