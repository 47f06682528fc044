/* Runs a command and all that it starts under ptrace; lists, cuts off or fails the calls with which one program writes. */
#define USAGE                                                                                                          \
	"usage: killer [-p PROGRAM] [-c CLASSES] [-r REPORT] MODE command...\n"                                        \
	"  MODE  trace          every point, one a line\n"                                                             \
	"        before N       kill -9 of everything right before the N-th point\n"                                   \
	"        after N        ... right after it\n"                                                                  \
	"        room N         kill -9 of the program alone right before it; the rest goes on\n"                      \
	"        fail N ERRNO   the N-th point fails\n"                                                                \
	"        forever N ERRNO  it and every later one\n"                                                            \
	"        watch          nothing: only who dies of a signal\n"                                                  \
	"  CLASSES  w: calls that change files, o: opens that only read, m: messages, pipes and standard streams\n"      \
	"           (default wm)\n"                                                                                    \
	"The report has a line for each point that was listed or hit, \"count N\", and \"died SIGNAL PROGRAM\".\n"     \
	"Exit status: the command's; 137 after a kill of everything; 77 where this machine can't do it.\n"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define TASKS_MAX 256

#if defined(__x86_64__)
#define REG_NUMBER(r) ((r).orig_rax)
#define REG_RESULT(r) ((r).rax)
#define REG_ARG(r, n) (*((unsigned long long *[]){&(r).rdi, &(r).rsi, &(r).rdx, &(r).r10})[n])
#elif defined(__aarch64__)
#define REG_NUMBER(r) ((r).regs[8])
#define REG_RESULT(r) ((r).regs[0])
#define REG_ARG(r, n) ((r).regs[n])
#endif

enum mode { TRACE, BEFORE, AFTER, ROOM, FAIL, FOREVER, WATCH };

struct call {
	long number;
	const char *name;
	char target; /* f: argument 0 is a descriptor; 0..3: the path is that argument, relative to the one before */
	char path_arg;
};

static const struct call calls[] = {
#ifdef SYS_open
	{SYS_open, "open", 'p', 0},         {SYS_creat, "creat", 'p', 0},       {SYS_rename, "rename", 'p', 1},
	{SYS_mkdir, "mkdir", 'p', 0},       {SYS_rmdir, "rmdir", 'p', 0},       {SYS_unlink, "unlink", 'p', 0},
	{SYS_symlink, "symlink", 'p', 1},   {SYS_link, "link", 'p', 1},         {SYS_chmod, "chmod", 'p', 0},
	{SYS_chown, "chown", 'p', 0},
#endif
#ifdef SYS_renameat
	{SYS_renameat, "renameat", 'a', 3},
#endif
	{SYS_openat, "openat", 'a', 1},     {SYS_openat2, "openat2", 'a', 1},   {SYS_renameat2, "renameat2", 'a', 3},
	{SYS_mkdirat, "mkdirat", 'a', 1},   {SYS_unlinkat, "unlinkat", 'a', 1}, {SYS_symlinkat, "symlinkat", 'a', 2},
	{SYS_linkat, "linkat", 'a', 3},     {SYS_fchmodat, "fchmodat", 'a', 1}, {SYS_fchownat, "fchownat", 'a', 1},
	{SYS_utimensat, "utimensat", 'a', 1},
	{SYS_write, "write", 'f', 0},       {SYS_pwrite64, "pwrite64", 'f', 0}, {SYS_writev, "writev", 'f', 0},
	{SYS_pwritev, "pwritev", 'f', 0},   {SYS_fsync, "fsync", 'f', 0},       {SYS_fdatasync, "fdatasync", 'f', 0},
	{SYS_ftruncate, "ftruncate", 'f', 0}, {SYS_fallocate, "fallocate", 'f', 0}, {SYS_fchmod, "fchmod", 'f', 0},
	{SYS_fchown, "fchown", 'f', 0},     {SYS_sendmsg, "sendmsg", 'f', 0},   {SYS_sendto, "sendto", 'f', 0},
};

struct task {
	pid_t pid;
	bool watched;      /* belongs to the program */
	bool inside;       /* between the entry and the exit of a call */
	bool failing;      /* the call under way is to fail */
	bool point;        /* the call under way is the chosen point */
	bool fresh;        /* its first stop has not been seen */
	char program[64];
};

static struct task tasks[TASKS_MAX];
static const char *program = "keyturn-keeper", *classes = "wm";
static enum mode mode;
static long chosen, errnum, count;
static FILE *report;
static bool all_killed, room_killed;

static struct task *find(pid_t pid)
{
	struct task *empty = NULL;

	for (size_t i = 0; i < TASKS_MAX; i++) {
		if (tasks[i].pid == pid)
			return &tasks[i];
		if (tasks[i].pid == 0 && !empty)
			empty = &tasks[i];
	}
	if (!empty) {
		fputs("killer: too many processes\n", stderr);
		exit(99);
	}
	*empty = (struct task){.pid = pid, .fresh = true};
	return empty;
}

static void name_of(struct task *task)
{
	char link[64], path[PATH_MAX];
	const char *base;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)task->pid);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	base = strrchr(path, '/');
	snprintf(task->program, sizeof(task->program), "%.63s", base ? base + 1 : path);
	task->program[strcspn(task->program, " ")] = '\0'; /* "... (deleted)" */
	task->watched = strcmp(task->program, program) == 0;
}

static const struct call *find_call(long number)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (calls[i].number == number)
			return &calls[i];
	}
	return NULL;
}

static size_t read_memory(pid_t pid, uint64_t at, void *to, size_t size)
{
	size_t got = 0;

	/* Word by word: it stops at the end of a page that is followed by none. */
	while (got < size) {
		long word;

		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)(at + got), NULL);
		if (errno != 0)
			break;
		memcpy((char *)to + got, &word, size - got < sizeof(word) ? size - got : sizeof(word));
		got += size - got < sizeof(word) ? size - got : sizeof(word);
		if (memchr(&word, 0, sizeof(word)) && size > 64)
			break;
	}
	return got;
}

static void describe(const struct task *task, const struct call *call, const struct __ptrace_syscall_info *info,
                     char *out, size_t size, char *ret_class)
{
	char link[64], path[200] = "";
	ssize_t n = -1;

	*ret_class = 'w';
	if (call->target == 'f') {
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)task->pid, (int)info->entry.args[0]);
		n = readlink(link, path, sizeof(path) - 1);
		path[n > 0 ? n : 0] = '\0';
		if ((int)info->entry.args[0] <= 2 || path[0] != '/' || strncmp(path, "/dev/", 5) == 0)
			*ret_class = strncmp(path, "/dev/shm/", 9) == 0 && (int)info->entry.args[0] > 2 ? 'w' : 'm';
	} else {
		size_t got = read_memory(task->pid, info->entry.args[(size_t)call->path_arg], path, sizeof(path) - 1);

		path[got] = '\0';
		if (call->number == SYS_openat || (call->target == 'p' && strcmp(call->name, "open") == 0)) {
			uint64_t flags = info->entry.args[call->path_arg + 1];

			*ret_class = (flags & (O_CREAT | O_TRUNC)) != 0 || (flags & O_ACCMODE) != O_RDONLY ? 'w' : 'o';
		} else if (call->number == SYS_openat2) {
			struct open_how how = {0};

			read_memory(task->pid, info->entry.args[2], &how, 8);
			*ret_class = (how.flags & O_CREAT) != 0 || (how.flags & O_ACCMODE) != O_RDONLY ? 'w' : 'o';
		}
	}
	for (char *c = path; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	snprintf(out, size, "%s %s", call->name, path);
}

#ifdef REG_NUMBER
static bool get_regs(pid_t pid, struct user_regs_struct *regs)
{
	struct iovec io = {regs, sizeof(*regs)};

	return ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &io) == 0;
}

static void set_regs(pid_t pid, struct user_regs_struct *regs)
{
	struct iovec io = {regs, sizeof(*regs)};

	ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &io);
}

/* Another call in its place that does nothing and that every filter lets through: read(-1, …). */
static void defuse(struct task *task)
{
	struct user_regs_struct regs;

	if (!get_regs(task->pid, &regs))
		return;
	REG_ARG(regs, 0) = (unsigned long long)-1;
	REG_NUMBER(regs) = SYS_read;
	set_regs(task->pid, &regs);
#ifdef __aarch64__
	int number = SYS_read;
	struct iovec io = {&number, sizeof(number)};

	ptrace(PTRACE_SETREGSET, task->pid, (void *)NT_ARM_SYSTEM_CALL, &io);
#endif
	task->failing = true;
}

static void give_error(struct task *task)
{
	struct user_regs_struct regs;

	if (get_regs(task->pid, &regs)) {
		REG_RESULT(regs) = (unsigned long long)-errnum;
		set_regs(task->pid, &regs);
	}
	task->failing = false;
}
#endif

static void kill_all(void)
{
	all_killed = true;
	for (size_t i = 0; i < TASKS_MAX; i++) {
		if (tasks[i].pid > 0)
			kill(tasks[i].pid, SIGKILL);
	}
}

static void at_entry(struct task *task, const struct __ptrace_syscall_info *info)
{
	const struct call *call = find_call((long)info->entry.nr);
	char text[300], class;
	bool hit;

	task->point = false;
	if (!call)
		return;
	describe(task, call, info, text, sizeof(text), &class);
	if (!strchr(classes, class))
		return;
	count++;
	hit = mode == FOREVER ? count >= chosen : count == chosen;
	if (mode == TRACE || hit)
		fprintf(report, "point %ld %c %s\n", count, class, text);
	if (!hit || mode == TRACE || mode == WATCH)
		return;
	switch (mode) {
	case BEFORE:
		kill_all();
		break;
	case ROOM:
		room_killed = true;
		kill(task->pid, SIGKILL);
		break;
	case AFTER:
		task->point = true;
		break;
	default:
		defuse(task);
	}
}

/* A stop at a call's entry or exit. */
static void at_call(struct task *task)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, task->pid, sizeof(info), &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		at_entry(task, &info);
	} else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
		if (task->failing)
			give_error(task);
		if (task->point)
			kill_all();
		task->point = false;
	}
}

static void go_on(struct task *task, int signum)
{
	/* A task that is gone meanwhile is heard of by waitpid. */
	(void)ptrace(task->watched && !all_killed && mode != WATCH ? PTRACE_SYSCALL : PTRACE_CONT, task->pid, NULL,
	             (void *)(long)signum);
}

static void at_stop(struct task *task, int status)
{
	int signum = WSTOPSIG(status);
	int event = status >> 16;
	unsigned long message = 0;

	if (signum == (SIGTRAP | 0x80)) {
		at_call(task);
		signum = 0;
	} else if (event == PTRACE_EVENT_EXEC) {
		/* A thread's exec takes the pid of its process; the others are gone. */
		name_of(task);
		signum = 0;
	} else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
		if (ptrace(PTRACE_GETEVENTMSG, task->pid, NULL, &message) == 0) {
			struct task *child = find((pid_t)message);

			memcpy(child->program, task->program, sizeof(child->program));
			child->watched = task->watched;
		}
		signum = 0;
	} else if (event == PTRACE_EVENT_STOP || (task->fresh && signum == SIGSTOP)) {
		signum = 0;
	} else if (event != 0) {
		signum = 0;
	}
	task->fresh = false;
	go_on(task, signum);
}

static bool is_leader(pid_t pid)
{
	char path[64], line[256];
	FILE *file;
	int tgid = pid;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return true;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			break;
	}
	fclose(file);
	return tgid == pid;
}

static int follow(pid_t main_pid)
{
	int status, result = 99;
	pid_t pid;

	while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
		struct task *task;

		if (pid < 0)
			continue;
		task = find(pid);
		if (WIFSTOPPED(status)) {
			at_stop(task, status);
			continue;
		}
		if (WIFSIGNALED(status) && !all_killed && is_leader(pid) &&
		    !(room_killed && WTERMSIG(status) == SIGKILL))
			fprintf(report, "died %d %s\n", WTERMSIG(status), task->program);
		if (pid == main_pid)
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		task->pid = 0;
		if (all_killed)
			kill_all(); /* what was being started meanwhile */
	}
	return result;
}

static pid_t start(char **argv)
{
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
	               PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		raise(SIGSTOP);
		execv(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status)) {
		perror("killer: fork");
		exit(99);
	}
	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)options) < 0) {
		perror("killer: ptrace");
		kill(pid, SIGKILL);
		exit(77);
	}
	find(pid);
	kill(pid, SIGCONT);
	return pid;
}

static void usage(void)
{
	fputs(USAGE, stderr);
	exit(99);
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"trace", "before", "after", "room", "fail", "forever", "watch"};
	int option, result;
	pid_t pid;

#ifndef REG_NUMBER
	fputs("killer: not for this architecture\n", stderr);
	return 77;
#endif
	report = stderr;
	while ((option = getopt(argc, argv, "+p:c:r:")) != -1) {
		if (option == 'p')
			program = optarg;
		else if (option == 'c')
			classes = optarg;
		else if (option != 'r' || !(report = fopen(optarg, "we")))
			usage();
	}
	argv += optind;
	while (mode <= WATCH && argv[0] && strcmp(argv[0], modes[mode]) != 0)
		mode++;
	if (mode > WATCH || !*argv++)
		usage();
	if (mode != TRACE && mode != WATCH)
		chosen = *argv ? strtol(*argv++, NULL, 10) : 0;
	if (mode == FAIL || mode == FOREVER)
		errnum = *argv ? strtol(*argv++, NULL, 10) : 0;
	if (!*argv)
		usage();
	pid = start(argv);
	result = follow(pid);
	fprintf(report, "count %ld\n", count);
	fclose(report);
	return all_killed ? 137 : result;
}
