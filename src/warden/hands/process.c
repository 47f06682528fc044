/* Processes of others: found by pid file or by executable and cgroup, known by start time, signalled by pidfd. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "warden/hands/process.h"

#define STAT_MAX     2048
#define PID_FILE_MAX 64

int kt_signal_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} table[] = {{"HUP", SIGHUP},   {"INT", SIGINT},     {"QUIT", SIGQUIT}, {"USR1", SIGUSR1},
	             {"USR2", SIGUSR2}, {"WINCH", SIGWINCH}, {"TERM", SIGTERM}, {"CONT", SIGCONT}};
	size_t i;

	if (kt_starts_with(name, "SIG")) {
		name += 3;
	}
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(table[i].name, name) == 0) {
			return table[i].number;
		}
	}
	return 0;
}

/* --- one process ----------------------------------------------------------------------------------------------- */

/* The whole of a small file below /proc/PID, NUL-terminated; its length, or -1. */
static ssize_t read_proc(pid_t pid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return -1;
	}
	n = read(fd, buf, size - 1);
	close(fd);
	if (n >= 0) {
		buf[n] = '\0';
	}
	return n;
}

/* State, parent and start time out of /proc/PID/stat (proc(5)); the name in it may hold anything, also ')'. */
static bool parse_stat(const char *text, char *ret_state, pid_t *ret_parent, uint64_t *ret_start)
{
	const char *at = strrchr(text, ')');
	int parent = 0;
	unsigned long long start = 0;

	if (at == NULL ||
	    sscanf(at + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", ret_state,
	           &parent, &start) != 3) {
		return false;
	}
	*ret_parent = parent;
	*ret_start = start;
	return true;
}

static bool read_uid(pid_t pid, uid_t *ret)
{
	char text[STAT_MAX];
	const char *line;
	unsigned uid;

	if (read_proc(pid, "status", text, sizeof(text)) < 0) {
		return false;
	}
	line = strstr(text, "\nUid:");
	if (line == NULL || sscanf(line + 5, "%u", &uid) != 1) {
		return false;
	}
	*ret = uid;
	return true;
}

/* False for a kernel thread or a process that is gone; "" when the kernel keeps it from us. */
static bool read_exe(struct kt_process *process)
{
	static const char deleted[] = " (deleted)";
	char link[64];
	struct stat st;
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/%d/exe", (int)process->pid);
	n = readlink(link, process->exe, sizeof(process->exe) - 1);
	if (n < 0) {
		return errno == EACCES || errno == EPERM;
	}
	process->exe[n] = '\0';
	if (kt_ends_with(process->exe, deleted)) {
		/* Upgraded on disk since: still the same consumer. */
		process->exe[(size_t)n - (sizeof(deleted) - 1)] = '\0';
	}
	if (stat(link, &st) == 0) {
		process->exe_dev = st.st_dev;
		process->exe_ino = st.st_ino;
	}
	return true;
}

enum kt_code kt_process_read(pid_t pid, struct kt_process *ret, struct kt_err *err)
{
	char text[STAT_MAX];
	char state = 0;

	memset(ret, 0, sizeof(*ret));
	ret->pid = pid;
	if (read_proc(pid, "stat", text, sizeof(text)) < 0 ||
	    !parse_stat(text, &state, &ret->parent, &ret->start_ticks) || state == 'Z' || state == 'X' ||
	    !read_uid(pid, &ret->uid)) {
		return kt_err_set(err, KT_E_NOTFOUND, "no process %d is running", (int)pid);
	}
	if (!read_exe(ret)) {
		return kt_err_set(err, KT_E_NOTFOUND, "process %d has no executable", (int)pid);
	}
	return KT_OK;
}

bool kt_process_same(const struct kt_process *a, const struct kt_process *b)
{
	return a->pid == b->pid && a->start_ticks == b->start_ticks && a->exe_dev == b->exe_dev &&
	       a->exe_ino == b->exe_ino;
}

kt_ms kt_process_started(const struct kt_process *process, const struct kt_clock *clock)
{
	long hz = sysconf(_SC_CLK_TCK);
	kt_ms since_boot = (kt_ms)(process->start_ticks * 1000 / (uint64_t)(hz > 0 ? hz : 100));

	return kt_clock_wall(clock) - (kt_clock_mono(clock) - since_boot);
}

bool kt_process_in_cgroup(pid_t pid, const char *cgroup)
{
	char text[8192];
	char *line = text;
	size_t len;

	if (read_proc(pid, "cgroup", text, sizeof(text)) < 0) {
		return false;
	}
	if (kt_starts_with(cgroup, "/sys/fs/cgroup/")) {
		cgroup += strlen("/sys/fs/cgroup");
	}
	while (*cgroup == '/') {
		cgroup++;
	}
	len = strlen(cgroup);
	while (len > 0 && cgroup[len - 1] == '/') {
		len--;
	}
	while (line != NULL && *line != '\0') {
		char *next = strchr(line, '\n');
		char *path = strstr(line, ":/");

		if (next != NULL) {
			*next++ = '\0';
			path = strstr(line, ":/");
		}
		if (path != NULL && strncmp(path + 2, cgroup, len) == 0 && (path[2 + len] == '/' || path[2 + len] == '\0')) {
			return true;
		}
		line = next;
	}
	return false;
}

/* --- pid files -------------------------------------------------------------------------------------------------- */

/* Opens a pid file through its folder's real path, so that /var/run works and a swapped link does not. */
static int open_pid_file(const char *path, struct kt_err *err)
{
	KT_AUTOFREE char *copy = kt_strdup(path);
	KT_AUTOFREE char *base = kt_strdup(path);
	char *folder;
	int dir;
	int fd;

	if (copy == NULL || base == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "no memory for %s", path);
		return -1;
	}
	folder = realpath(dirname(copy), NULL);
	if (folder == NULL) {
		(void)kt_err_sys(err, "the folder of pid file %s", path);
		return -1;
	}
	dir = kt_io_open_nolinks(AT_FDCWD, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, err);
	free(folder);
	if (dir < 0) {
		return -1;
	}
	fd = openat(dir, basename(base), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		(void)kt_err_sys(err, "pid file %s", path);
	}
	close(dir);
	return fd;
}

/* Who may have written it: root, the agent's user, or one daemon's user, and nobody else. */
static enum kt_code check_pid_file(int fd, const char *path, uid_t *ret_owner, struct kt_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		return kt_err_sys(err, "pid file %s", path);
	}
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1) {
		return kt_err_set(err, KT_E_POLICY, "pid file %s is not a plain file of its own", path);
	}
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
		return kt_err_set(err, KT_E_POLICY, "pid file %s can be written by others (mode %04o): chmod go-w it", path,
		                  (unsigned)(st.st_mode & 07777));
	}
	*ret_owner = st.st_uid;
	return KT_OK;
}

enum kt_code kt_pid_file_read(const char *path, pid_t *ret, uid_t *ret_owner, struct kt_err *err)
{
	char text[PID_FILE_MAX];
	struct kt_view view = {text, 0};
	KT_AUTOCLOSE int fd = open_pid_file(path, err);
	uint64_t pid = 0;
	enum kt_code code;
	ssize_t n;

	if (fd < 0) {
		return err != NULL ? err->code : KT_E_SYS;
	}
	code = check_pid_file(fd, path, ret_owner, err);
	if (code != KT_OK) {
		return code;
	}
	n = read(fd, text, sizeof(text));
	if (n < 0) {
		return kt_err_sys(err, "pid file %s", path);
	}
	/* The first line counts: PostgreSQL and others write more after it. */
	while (view.len < (size_t)n && text[view.len] != '\n') {
		view.len++;
	}
	while (view.len > 0 && (text[view.len - 1] == ' ' || text[view.len - 1] == '\r')) {
		view.len--;
	}
	if (kt_parse_u64(view, 1u << 22, &pid, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_POLICY, "pid file %s does not hold the number of a process", path);
	}
	if (pid <= 1) {
		return kt_err_set(err, KT_E_POLICY, "pid file %s names process %d, which is never signalled", path,
		                  (int)pid);
	}
	*ret = (pid_t)pid;
	return KT_OK;
}

/* --- the search ------------------------------------------------------------------------------------------------- */

static bool matches(pid_t pid, const char *exe, const char *cgroup, struct kt_process *ret)
{
	return kt_process_read(pid, ret, NULL) == KT_OK && strcmp(ret->exe, exe) == 0 &&
	       (cgroup == NULL || kt_process_in_cgroup(pid, cgroup));
}

static bool among(const struct kt_process *found, unsigned count, pid_t pid)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		if (found[i].pid == pid) {
			return true;
		}
	}
	return false;
}

/* Leaves only those whose parent is not one of them: the master, not its workers. */
static unsigned keep_masters(struct kt_process *found, unsigned count)
{
	KT_AUTOFREE struct kt_process *all = kt_calloc(count > 0 ? count : 1, sizeof(*all));
	unsigned kept = 0;
	unsigned i;

	if (all == NULL) {
		return count;
	}
	memcpy(all, found, count * sizeof(*all));
	for (i = 0; i < count; i++) {
		if (!among(all, count, all[i].parent)) {
			found[kept++] = all[i];
		}
	}
	return kept;
}

/* Makes room for one more; the last place is scratch. */
static enum kt_code make_room(struct kt_process **found, unsigned count, unsigned *cap, struct kt_err *err)
{
	struct kt_process *more;

	if (count < *cap) {
		return KT_OK;
	}
	if (count >= KT_PROCESS_FOUND_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "more than %u processes match: name a cgroup or a pid file",
		                  KT_PROCESS_FOUND_MAX);
	}
	*cap = *cap == 0 ? 8 : *cap * 2;
	more = kt_realloc(*found, *cap * sizeof(*more));
	if (more == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory to look for a process");
	}
	*found = more;
	return KT_OK;
}

enum kt_code kt_process_find(const char *exe, const char *cgroup, struct kt_process **ret, unsigned *ret_count,
                             struct kt_err *err)
{
	struct kt_process *found = NULL;
	enum kt_code code = KT_OK;
	const struct dirent *entry;
	unsigned count = 0;
	unsigned cap = 0;
	DIR *dir = opendir("/proc");

	if (dir == NULL) {
		return kt_err_sys(err, "/proc can't be read");
	}
	while ((entry = readdir(dir)) != NULL && code == KT_OK) {
		uint64_t pid = 0;

		if (kt_parse_u64(kt_view_str(entry->d_name), INT32_MAX, &pid, NULL) != KT_OK || pid == 0) {
			continue;
		}
		code = make_room(&found, count, &cap, err);
		if (code == KT_OK && matches((pid_t)pid, exe, cgroup, &found[count])) {
			count++;
		}
	}
	closedir(dir);
	if (code != KT_OK) {
		kt_free(found);
		return code;
	}
	*ret_count = keep_masters(found, count);
	*ret = found;
	return KT_OK;
}

/* --- the signal ------------------------------------------------------------------------------------------------- */

enum kt_code kt_process_signal(const struct kt_process *process, int signum, struct kt_err *err)
{
	KT_AUTOCLOSE int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
	struct kt_process now;
	enum kt_code code;

	if (pidfd < 0) {
		return errno == ESRCH ? kt_err_set(err, KT_E_NOTFOUND, "process %d has ended", (int)process->pid)
		                      : kt_err_sys(err, "process %d can't be opened", (int)process->pid);
	}
	/* From here on the number can't come to mean another process; make sure that it did not before. */
	code = kt_process_read(process->pid, &now, err);
	if (code != KT_OK) {
		return code;
	}
	if (!kt_process_same(process, &now)) {
		return kt_err_set(err, KT_E_NOTFOUND, "process %d was replaced by another one", (int)process->pid);
	}
	if (syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, 0) < 0) {
		return kt_err_sys(err, "process %d (%s) can't be signalled", (int)process->pid, process->exe);
	}
	return KT_OK;
}
