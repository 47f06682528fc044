/* Child processes: started in a defined order of steps, watched and signalled by pidfd. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/mem.h"
#include "loop/loop_internal.h"

struct kt_child {
	uv_poll_t poll;
	struct handle_owner owner;
	struct kt_loop *loop;
	void (*exited)(int status, void *arg);
	void *arg;
	pid_t pid;
	int pidfd;
	bool ended;    /* a zombie, kept until destroy so that neither its pid nor its group's is given away */
	bool detached; /* destroyed while it ran: reaped in silence */
};

/* Where starting failed; the order is the order of the steps in the child. */
enum step { STEP_SESSION, STEP_CWD, STEP_GROUPS, STEP_IDS, STEP_DEATH, STEP_HOOK, STEP_FDS, STEP_LOCK, STEP_EXEC };

static const char *const step_names[] = {
	[STEP_SESSION] = "new session",
	[STEP_CWD] = "working directory",
	[STEP_GROUPS] = "groups",
	[STEP_IDS] = "user and group",
	[STEP_DEATH] = "parent death signal",
	[STEP_HOOK] = "walls",
	[STEP_FDS] = "descriptors",
	[STEP_LOCK] = "lock",
	[STEP_EXEC] = "exec",
};

struct report {
	int error;
	int step;
};

/* --- in the child: async-signal-safe calls only ------------------------------------------------------------------ */

struct launch {
	const struct kt_spawn *spawn;
	int report_fd;
	int null_fd;
	pid_t parent;
};

static void reset_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	/* Ignored signals would outlive the exec. */
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int set_ids(const struct kt_spawn *spawn, enum step *step)
{
	if (!spawn->set_ids)
		return 0;
	*step = STEP_GROUPS;
	if (setgroups(spawn->group_count, spawn->groups) < 0)
		return errno;
	*step = STEP_IDS;
	if (setresgid(spawn->gid, spawn->gid, spawn->gid) < 0 || setresuid(spawn->uid, spawn->uid, spawn->uid) < 0)
		return errno;
	return 0;
}

/* After the change of user, which clears it. */
static int set_parent_death(const struct launch *launch)
{
	if (!launch->spawn->parent_death)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return errno;
	return getppid() == launch->parent ? 0 : ESRCH; /* it died before we asked */
}

/*
 * Lays out the descriptors: 0 .. slots-1 as asked for, then the report pipe and the executable (close-on-exec), and
 * nothing else. All sources are lifted above the slots first, so that no dup2 hits one that is still needed.
 */
static int lay_out_fds(struct launch *launch, int *exec_fd)
{
	const struct kt_spawn *spawn = launch->spawn;
	int slots = spawn->fd_count > 3 ? (int)spawn->fd_count : 3;
	int base = slots + 2;
	int lifted[KT_SPAWN_FD_MAX];
	int report, exec = -1;

	for (int i = 0; i < slots; i++) {
		int from = i < (int)spawn->fd_count ? spawn->fds[i] : -1;

		if (from < 0 && i < 3)
			from = launch->null_fd;
		lifted[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, base);
		if (from >= 0 && lifted[i] < 0)
			return errno;
	}
	report = fcntl(launch->report_fd, F_DUPFD_CLOEXEC, base);
	if (report < 0)
		return errno;
	if (*exec_fd >= 0) {
		exec = fcntl(*exec_fd, F_DUPFD_CLOEXEC, base);
		if (exec < 0)
			return errno;
	}
	for (int i = 0; i < slots; i++) {
		if (lifted[i] < 0)
			close(i);
		else if (dup2(lifted[i], i) < 0)
			return errno;
	}
	if (dup3(report, slots, O_CLOEXEC) < 0)
		return errno;
	launch->report_fd = slots;
	if (exec >= 0) {
		if (dup3(exec, slots + 1, O_CLOEXEC) < 0)
			return errno;
		*exec_fd = slots + 1;
	} else {
		close(slots + 1);
	}
	return close_range((unsigned)base, ~0u, 0) < 0 ? errno : 0;
}

/* When all else is closed: closing any descriptor of the file would end the lock. */
static int take_lock(const struct kt_spawn *spawn)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = spawn->lock_at, .l_len = 1};

	return spawn->lock_slot > 0 && fcntl((int)spawn->lock_slot, F_SETLK, &lock) < 0 ? errno : 0;
}

static int run_exec(const struct kt_spawn *spawn, int exec_fd)
{
	if (exec_fd < 0) {
		execve(spawn->path, spawn->argv, spawn->envp);
		return errno;
	}
	syscall(SYS_execveat, exec_fd, "", spawn->argv, spawn->envp, AT_EMPTY_PATH);
	if (errno == ENOENT && fcntl(exec_fd, F_SETFD, 0) == 0)
		/* A script: its interpreter opens the descriptor again by name, so that it has to stay open. */
		syscall(SYS_execveat, exec_fd, "", spawn->argv, spawn->envp, AT_EMPTY_PATH);
	return errno;
}

static int prepare_and_exec(struct launch *launch, enum step *step)
{
	const struct kt_spawn *spawn = launch->spawn;
	int exec_fd = spawn->exec_fd;
	int error;

	reset_signals();
	*step = STEP_SESSION;
	if (spawn->new_session && setsid() < 0)
		return errno;
	*step = STEP_CWD;
	if ((spawn->cwd_fd >= 0 ? fchdir(spawn->cwd_fd) : chdir("/")) < 0)
		return errno;
	error = set_ids(spawn, step);
	if (error != 0)
		return error;
	*step = STEP_DEATH;
	error = set_parent_death(launch);
	if (error != 0)
		return error;
	*step = STEP_HOOK;
	if (spawn->in_child) {
		error = spawn->in_child(spawn->in_child_arg);
		if (error != 0)
			return error;
	}
	*step = STEP_FDS;
	error = lay_out_fds(launch, &exec_fd);
	if (error != 0)
		return error;
	*step = STEP_LOCK;
	error = take_lock(spawn);
	if (error != 0)
		return error;
	*step = STEP_EXEC;
	return run_exec(spawn, exec_fd);
}

static _Noreturn void child_main(struct launch *launch)
{
	enum step step = STEP_SESSION;
	struct report report;

	report.error = prepare_and_exec(launch, &step);
	report.step = (int)step;
	/* A report that can't be written shows as an exit status of 127. */
	(void)!write(launch->report_fd, &report, sizeof(report));
	_exit(127);
}

/* --- in the parent ----------------------------------------------------------------------------------------------- */

static void child_free(void *object)
{
	struct kt_child *child = object;

	kt_cleanup_close(&child->pidfd);
	kt_free(child);
}

static void reap(struct kt_child *child)
{
	siginfo_t info;

	while (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0 && errno == EINTR)
		;
}

static int wait_status(const siginfo_t *info)
{
	switch (info->si_code) {
	case CLD_EXITED:
		return (info->si_status & 0xff) << 8;
	case CLD_DUMPED:
		return (info->si_status & 0x7f) | 0x80;
	default:
		return info->si_status & 0x7f;
	}
}

static void on_exit_ready(uv_poll_t *poll, int status, int events)
{
	struct handle_owner *owner = poll->data;
	struct kt_child *child = owner->object;
	siginfo_t info = {0};

	(void)status;
	(void)events;
	if (child->detached) {
		reap(child);
		kt_loop_close_handle((uv_handle_t *)poll);
		return;
	}
	if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
		if (errno == EINTR || errno == EAGAIN)
			return;
		/* Somebody else reaped it: how it ended is lost, which must not read as success. */
		info.si_code = CLD_EXITED;
		info.si_status = 127;
	} else if (info.si_pid == 0) {
		return;
	}
	uv_poll_stop(poll);
	child->ended = true;
	if (child->exited)
		child->exited(wait_status(&info), child->arg);
}

/* Forks with all signals blocked, so that none of the parent's handlers runs in the child. */
static pid_t fork_child(struct launch *launch)
{
	sigset_t all, old;
	pid_t pid;
	int saved;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_main(launch);
	saved = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = saved;
	return pid;
}

/* Blocks until the child has executed (the pipe closes) or failed. */
static enum kt_code read_report(int fd, const struct kt_spawn *spawn, struct kt_err *err)
{
	struct report report = {0};
	ssize_t n;

	do {
		n = read(fd, &report, sizeof(report));
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return KT_OK;
	if (n != (ssize_t)sizeof(report) || report.step < 0 || report.step > STEP_EXEC)
		return kt_err_set(err, KT_E_SYS, "cannot start %s", spawn->argv[0]);
	errno = report.error;
	return kt_err_sys(err, "cannot start %s: %s", spawn->argv[0], step_names[report.step]);
}

static void kill_and_reap(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static enum kt_code start(const struct kt_spawn *spawn, pid_t *ret_pid, struct kt_err *err)
{
	KT_AUTOCLOSE int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	KT_AUTOCLOSE int read_end = -1;
	KT_AUTOCLOSE int write_end = -1;
	int ends[2];
	struct launch launch;
	enum kt_code code;

	if (null_fd < 0)
		return kt_err_sys(err, "cannot open /dev/null");
	if (pipe2(ends, O_CLOEXEC) < 0)
		return kt_err_sys(err, "cannot start %s: pipe", spawn->argv[0]);
	read_end = ends[0];
	write_end = ends[1];
	launch = (struct launch){.spawn = spawn, .report_fd = write_end, .null_fd = null_fd, .parent = getpid()};
	*ret_pid = fork_child(&launch);
	if (*ret_pid < 0)
		return kt_err_sys(err, "cannot start %s: fork", spawn->argv[0]);
	close(write_end);
	write_end = -1;
	code = read_report(read_end, spawn, err);
	if (code != KT_OK)
		kill_and_reap(*ret_pid);
	return code;
}

enum kt_code kt_child_spawn(struct kt_loop *loop, const struct kt_spawn *spawn, void (*exited)(int status, void *arg),
                            void *arg, struct kt_child **ret, struct kt_err *err)
{
	struct kt_child *child;
	enum kt_code code;
	int status;

	*ret = NULL;
	if (loop->fake)
		return kt_err_set(err, KT_E_UNSUPPORTED, "virtual time has no children");
	if (spawn->fd_count > KT_SPAWN_FD_MAX)
		return kt_err_set(err, KT_E_LIMIT, "cannot start %s: more than %d descriptors", spawn->argv[0],
		                  KT_SPAWN_FD_MAX);
	child = kt_calloc(1, sizeof(*child));
	if (!child)
		return kt_err_set(err, KT_E_NOMEM, "cannot start %s: out of memory", spawn->argv[0]);
	child->loop = loop;
	child->exited = exited;
	child->arg = arg;
	child->pidfd = -1;
	child->owner = (struct handle_owner){.closed = child_free, .object = child};
	code = start(spawn, &child->pid, err);
	if (code != KT_OK) {
		kt_free(child);
		return code;
	}
	child->pidfd = pidfd_open(child->pid, 0); /* close-on-exec by itself */
	if (child->pidfd < 0) {
		code = kt_err_sys(err, "cannot watch %s", spawn->argv[0]);
		kill_and_reap(child->pid);
		kt_free(child);
		return code;
	}
	status = uv_poll_init(&loop->uv, &child->poll, child->pidfd);
	if (status < 0) {
		kill_and_reap(child->pid);
		child_free(child);
		return kt_loop_uv_err(err, status, "cannot watch a child");
	}
	child->poll.data = &child->owner;
	status = uv_poll_start(&child->poll, UV_READABLE, on_exit_ready);
	if (status < 0) {
		kill_and_reap(child->pid);
		kt_loop_close_handle((uv_handle_t *)&child->poll);
		return kt_loop_uv_err(err, status, "cannot watch a child");
	}
	*ret = child;
	return KT_OK;
}

pid_t kt_child_pid(const struct kt_child *child)
{
	return child->pid;
}

void kt_child_kill(struct kt_child *child, int signum, bool group)
{
	/* The group may outlive its leader; the leader's zombie keeps its number ours until destroy. */
	if (group)
		kill(-child->pid, signum);
	else if (!child->ended)
		pidfd_send_signal(child->pidfd, signum, NULL, 0);
}

void kt_child_destroy(struct kt_child *child)
{
	if (!child || child->detached)
		return;
	child->detached = true;
	child->exited = NULL;
	if (child->ended) {
		reap(child);
		kt_loop_close_handle((uv_handle_t *)&child->poll);
	} else {
		/* Runs on: stays in the loop to be reaped, without keeping the loop alive. */
		uv_unref((uv_handle_t *)&child->poll);
	}
}
