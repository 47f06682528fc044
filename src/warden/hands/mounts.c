/* Candidates: the staged generation mounted over the live one, seen by one child only. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "warden/hands/hands.h"
#include "warden/warden.h"

#define MOUNTS_MAX 64

/* A directory by its canonical path, and what was found there when it was checked. */
struct place {
	char *path;
	dev_t dev;
	ino_t ino;
};

struct mount_pair {
	struct place staged;
	struct place live;
};

/* Shared with the child, which says here how far it got. */
struct report {
	int failed_errno;
	const char *step; /* a string constant: the same address in both */
};

struct kt_mounts {
	bool may_userns;
	unsigned count;
	struct mount_pair pairs[MOUNTS_MAX];
	char uid_map[64];
	char gid_map[64];
	struct report *report;
};

/* --- checking in the parent ------------------------------------------------------------------------------------- */

/* The part of path below root, or NULL: "" when they are the same. */
static const char *below(const char *path, const char *root)
{
	size_t len = strlen(root);

	while (len > 1 && root[len - 1] == '/') {
		len--;
	}
	if (strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0')) {
		return NULL;
	}
	path += len;
	while (*path == '/') {
		path++;
	}
	return path;
}

/* Opens path below one of the roots; the root itself may be reached by links, what is below may not. */
static int open_below(const char *path, const char *const *roots, struct kt_err *err)
{
	for (; roots != NULL && *roots != NULL; roots++) {
		const char *rest = below(path, *roots);
		int root;
		int fd;

		if (rest == NULL) {
			continue;
		}
		root = open(*roots, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (root < 0) {
			(void)kt_err_sys(err, "%s", *roots);
			return -1;
		}
		if (*rest == '\0') {
			return root;
		}
		fd = kt_io_open_nolinks(root, rest, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, err);
		close(root);
		return fd;
	}
	(void)kt_err_set(err, KT_E_POLICY, "%s is in no secret volume of the manifests", path);
	return -1;
}

static enum kt_code place_take(int fd, struct place *ret, struct kt_err *err)
{
	char link[64];
	char path[KT_PATH_MAX];
	struct stat st;
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || fstat(fd, &st) < 0) {
		return kt_err_sys(err, "a directory of a candidate can't be examined");
	}
	path[n] = '\0';
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	ret->path = kt_strdup(path);
	return ret->path == NULL ? kt_err_set(err, KT_E_NOMEM, "no memory for a candidate") : KT_OK;
}

/* From a volume to the generation that its ..data names; from any other directory to itself. Takes fd. */
static int live_generation(int fd, const char *path, struct kt_err *err)
{
	char name[256];
	ssize_t n = readlinkat(fd, "..data", name, sizeof(name) - 1);
	int found;

	if (n < 0) {
		if (errno == ENOENT) {
			return fd;
		}
		(void)kt_err_sys(err, "%s/..data can't be read", path);
		close(fd);
		return -1;
	}
	name[n] = '\0';
	if (n == 0 || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		(void)kt_err_set(err, KT_E_POLICY, "%s/..data leads out of its volume", path);
		close(fd);
		return -1;
	}
	found = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (found < 0) {
		(void)kt_err_sys(err, "%s/%s can't be opened", path, name);
	}
	close(fd);
	return found;
}

static enum kt_code check_path(const char *path, struct kt_err *err)
{
	const char *at = path;

	if (path[0] != '/' || strlen(path) >= KT_PATH_MAX) {
		return kt_err_set(err, KT_E_POLICY, "a candidate's directory must be an absolute path");
	}
	while ((at = strstr(at, "/..")) != NULL) {
		at += 3;
		if (*at == '/' || *at == '\0') {
			return kt_err_set(err, KT_E_POLICY, "%s leads upwards", path);
		}
	}
	return KT_OK;
}

static enum kt_code place_open(const char *path, const char *const *roots, bool live, struct place *ret,
                               struct kt_err *err)
{
	enum kt_code code = check_path(path, err);
	struct kt_err why;
	int fd;

	if (code != KT_OK) {
		return code;
	}
	kt_err_clear(&why);
	fd = open_below(path, roots, &why);
	if (fd >= 0 && live) {
		fd = live_generation(fd, path, &why);
	}
	if (fd < 0) {
		if (why.sys_errno == ENOENT) {
			return kt_err_set(err, KT_E_NOTFOUND, "%s does not exist yet", path);
		}
		return kt_err_set(err, why.code, "%s", why.what);
	}
	code = place_take(fd, ret, err);
	close(fd);
	return code;
}

static enum kt_code add_pair(struct kt_mounts *mounts, char *line, const char *const *roots, struct kt_err *err)
{
	char *tab = strchr(line, '\t');
	struct mount_pair *pair;
	enum kt_code code;

	if (tab == NULL || mounts->count == MOUNTS_MAX) {
		return tab == NULL ? kt_err_set(err, KT_E_PROTO, "a candidate needs a staged and a live directory")
		                   : kt_err_set(err, KT_E_LIMIT, "more than %d candidates at once", MOUNTS_MAX);
	}
	*tab = '\0';
	pair = &mounts->pairs[mounts->count++];
	code = place_open(line, roots, false, &pair->staged, err);
	if (code == KT_OK) {
		code = place_open(tab + 1, roots, true, &pair->live, err);
	}
	return code;
}

static enum kt_code parse(struct kt_mounts *mounts, struct kt_view binds, const char *const *roots,
                          struct kt_err *err)
{
	KT_AUTOFREE char *text = kt_strndup(binds.ptr, binds.len);
	enum kt_code code = KT_OK;
	char *line = text;

	if (text == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a candidate");
	}
	while (code == KT_OK && *line != '\0') {
		char *end = strchr(line, '\n');

		if (end != NULL) {
			*end = '\0';
		}
		if (*line != '\0') {
			code = add_pair(mounts, line, roots, err);
		}
		if (end == NULL) {
			break;
		}
		line = end + 1;
	}
	return code;
}

enum kt_code kt_mounts_create(struct kt_view binds, const char *const *roots, bool may_userns, struct kt_mounts **ret,
                              struct kt_err *err)
{
	struct kt_mounts *mounts = kt_calloc(1, sizeof(*mounts));
	enum kt_code code;

	if (mounts == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a candidate");
	}
	mounts->may_userns = may_userns;
	(void)snprintf(mounts->uid_map, sizeof(mounts->uid_map), "%u %u 1\n", geteuid(), geteuid());
	(void)snprintf(mounts->gid_map, sizeof(mounts->gid_map), "%u %u 1\n", getegid(), getegid());
	mounts->report = mmap(NULL, sizeof(*mounts->report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mounts->report == MAP_FAILED) {
		mounts->report = NULL;
		code = kt_err_sys(err, "no memory for a candidate");
	} else {
		code = parse(mounts, binds, roots, err);
	}
	if (code != KT_OK) {
		kt_mounts_destroy(mounts);
		return code;
	}
	*ret = mounts;
	return KT_OK;
}

void kt_mounts_destroy(struct kt_mounts *mounts)
{
	unsigned i;

	if (mounts == NULL) {
		return;
	}
	for (i = 0; i < mounts->count; i++) {
		kt_free(mounts->pairs[i].staged.path);
		kt_free(mounts->pairs[i].live.path);
	}
	if (mounts->report != NULL) {
		(void)munmap(mounts->report, sizeof(*mounts->report));
	}
	kt_free(mounts);
}

const char *kt_mounts_failed(const struct kt_mounts *mounts, int *ret_errno)
{
	*ret_errno = mounts->report->failed_errno;
	return mounts->report->step;
}

/* --- in the child: async-signal-safe calls only ----------------------------------------------------------------- */

static int fail(struct kt_mounts *mounts, const char *step)
{
	mounts->report->failed_errno = errno != 0 ? errno : EINVAL;
	mounts->report->step = step;
	return mounts->report->failed_errno;
}

static bool write_text(const char *path, const char *text)
{
	size_t len = strlen(text);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0) {
		return false;
	}
	ok = write(fd, text, len) == (ssize_t)len;
	close(fd);
	return ok;
}

/* Opens the directory again in the new namespace (mounts can't be made from the old one's) and compares. */
static int place_reopen(const struct place *place)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
	                       .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	struct stat st;
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, place->path, &how, sizeof(how));

	if (fd < 0) {
		return -1;
	}
	if (fstat(fd, &st) < 0 || st.st_dev != place->dev || st.st_ino != place->ino) {
		close(fd);
		errno = ESTALE;
		return -1;
	}
	return fd;
}

/* "/proc/self/fd/N" without snprintf. */
static void fd_path(int fd, char out[32])
{
	char digits[12];
	unsigned n = 0;

	memcpy(out, "/proc/self/fd/", 14);
	out += 14;
	do {
		digits[n++] = (char)('0' + fd % 10);
		fd /= 10;
	} while (fd > 0);
	while (n > 0) {
		*out++ = digits[--n];
	}
	*out = '\0';
}

static int enter_namespace(struct kt_mounts *mounts)
{
	if (unshare(CLONE_NEWNS) == 0) {
		return 0;
	}
	if (errno != EPERM || !mounts->may_userns) {
		return fail(mounts, "a private mount namespace is refused");
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		return fail(mounts, "a user namespace is refused");
	}
	/* An undumpable process may not write its own maps; the exec to come sets this anew. */
	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", mounts->uid_map) ||
	    !write_text("/proc/self/gid_map", mounts->gid_map)) {
		return fail(mounts, "the ids of a user namespace can't be set");
	}
	return 0;
}

static int bind_pair(struct kt_mounts *mounts, const struct mount_pair *pair)
{
	char from[32];
	char to[32];
	int staged = place_reopen(&pair->staged);
	int live = staged < 0 ? -1 : place_reopen(&pair->live);
	int rc;

	if (live < 0) {
		rc = fail(mounts, "a directory was replaced meanwhile");
		if (staged >= 0) {
			close(staged);
		}
		return rc;
	}
	fd_path(staged, from);
	fd_path(live, to);
	rc = mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0 ? fail(mounts, "the bind mount is refused") : 0;
	close(staged);
	close(live);
	return rc;
}

int kt_mounts_enter(void *arg)
{
	struct kt_mounts *mounts = arg;
	unsigned i;
	int rc = enter_namespace(mounts);

	if (rc != 0) {
		return rc;
	}
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return fail(mounts, "mounts can't be made private");
	}
	for (i = 0; i < mounts->count; i++) {
		rc = bind_pair(mounts, &mounts->pairs[i]);
		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

/* --- for doctor ------------------------------------------------------------------------------------------------- */

enum kt_code kt_warden_probe_namespace(const char **ret_how, struct kt_err *err)
{
	struct kt_mounts *mounts = NULL;
	const char *const roots[] = {"/proc", NULL};
	enum kt_code code;
	const char *step;
	int status = 0;
	int failed = 0;
	pid_t pid;

	/* A bind mount of one empty-handed directory over another, in a child that ends at once. */
	code = kt_mounts_create(KT_VIEW_LIT("/proc/sys\t/proc/tty\n"), roots, true, &mounts, err);
	if (code != KT_OK) {
		return code;
	}
	pid = fork();
	if (pid == 0) {
		_exit(kt_mounts_enter(mounts) == 0 ? 0 : 1);
	}
	if (pid < 0) {
		code = kt_err_sys(err, "no child to try a mount namespace with");
	} else {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
			continue;
		}
		step = kt_mounts_failed(mounts, &failed);
		if (step != NULL) {
			errno = failed;
			code = kt_err_sys(err, "%s", step);
		} else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
			code = kt_err_set(err, KT_E_UNSUPPORTED, "a mount namespace could not be tried");
		}
	}
	kt_mounts_destroy(mounts);
	*ret_how = geteuid() == 0 ? "in a private mount namespace, as root" : "in a user and mount namespace";
	return code;
}
