/* The last wall: a seccomp allow-list per room; what is not on it ends the process. */
#include "config.h"

#include "kt/sandbox.h"

#ifdef KT_SANITIZERS

/* The sanitizers' runtime clones, ptraces and maps at will; the report says that this wall is missing. */
enum kt_code kt_sandbox_close(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err)
{
	(void)box;
	(void)err;
	ret->seccomp = false;
	return KT_OK;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALLOW SCMP_ACT_ALLOW
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * What glibc, libuv and a wire between rooms need. Three kinds of calls are missing on purpose and handled below:
 * those with a filter on their arguments; those that libraries try and can live without (they get an errno); and
 * those that only an intruder would make: clone, fork, execve, ptrace, process_vm_*, pidfd_getfd, mount, bpf, …
 */
static const int common_calls[] = {
	/* memory */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock), SCMP_SYS(mlock2),
	SCMP_SYS(munlock), SCMP_SYS(msync), SCMP_SYS(membarrier), SCMP_SYS(mincore),
	/* descriptors that are open already */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(close),
	SCMP_SYS(close_range), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(lseek),
	SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx),
	/* waiting */
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(epoll_create),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2), SCMP_SYS(eventfd), SCMP_SYS(eventfd2), SCMP_SYS(pipe), SCMP_SYS(pipe2),
	SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(timerfd_gettime), SCMP_SYS(signalfd4),
	/* time */
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(times), SCMP_SYS(getrusage),
	/* signals to ourselves; kill and tgkill are filtered */
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigpending),
	SCMP_SYS(rt_sigtimedwait), SCMP_SYS(rt_sigsuspend), SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall),
	/* threads that exist already */
	SCMP_SYS(futex), SCMP_SYS(futex_waitv), SCMP_SYS(set_robust_list), SCMP_SYS(get_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu), SCMP_SYS(gettid),
	SCMP_SYS(set_tid_address),
	/* who and where we are */
	SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid),
	SCMP_SYS(getresuid), SCMP_SYS(getresgid), SCMP_SYS(getgroups), SCMP_SYS(getpgid), SCMP_SYS(getpgrp),
	SCMP_SYS(getsid), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrlimit), SCMP_SYS(capget),
	SCMP_SYS(getrandom), SCMP_SYS(exit), SCMP_SYS(exit_group),
	/* wires between rooms */
	SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(shutdown), SCMP_SYS(getsockopt),
	SCMP_SYS(getsockname), SCMP_SYS(getpeername),
};

/*
 * The keeper: SQLite, secret volumes. Landlock says where, but not for owners, modes and times: these are changed only of
 * files that are open, so that Landlock was asked, and never by path (which a keeper of root could do to any file).
 */
static const int files_calls[] = {
	SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(creat), SCMP_SYS(access), SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd),
	SCMP_SYS(chdir), SCMP_SYS(fchdir), SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(rmdir), SCMP_SYS(unlink),
	SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(symlink),
	SCMP_SYS(symlinkat), SCMP_SYS(link), SCMP_SYS(linkat), SCMP_SYS(fchmod), SCMP_SYS(fchown), SCMP_SYS(truncate),
	SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range),
	SCMP_SYS(syncfs), SCMP_SYS(flock), SCMP_SYS(statfs),
	SCMP_SYS(fstatfs), SCMP_SYS(umask), SCMP_SYS(fadvise64), SCMP_SYS(copy_file_range), SCMP_SYS(sendfile),
	SCMP_SYS(inotify_init1), SCMP_SYS(inotify_add_watch), SCMP_SYS(inotify_rm_watch), SCMP_SYS(memfd_create),
};

/* The courier, besides socket(), which is filtered: what libcurl, OpenSSL and getaddrinfo do. */
static const int inet_calls[] = {
	SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(setsockopt), SCMP_SYS(sendto), SCMP_SYS(sendmmsg),
	SCMP_SYS(recvmmsg), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink),
	SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(getcwd),
};

/* The desk: libmicrohttpd on listeners that were handed over. */
static const int accept_calls[] = {
	SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(setsockopt), SCMP_SYS(sendto), SCMP_SYS(sendfile),
};

/* The keeper on administrators' connections. */
static const int passed_calls[] = {
	SCMP_SYS(setsockopt), SCMP_SYS(sendto),
};

/* Tried by libraries that have another way when it fails. */
static const struct {
	int call;
	uint16_t errnum;
} refused_calls[] = {
	{SCMP_SYS(io_uring_setup), ENOSYS},
	{SCMP_SYS(sched_setaffinity), EPERM},
	{SCMP_SYS(sched_getscheduler), EPERM},
	{SCMP_SYS(sched_getparam), EPERM},
};

/* In rooms without files a library that looks for one (time zone, locale, CPU count) doesn't find it. */
static const int path_calls[] = {
	SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(access), SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
};

/* The rules in the making; the first failure stays. */
struct rules {
	scmp_filter_ctx ctx;
	int rc; /* negative errno of the first failure */
};

static struct scmp_arg_cmp equals(unsigned arg, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){arg, SCMP_CMP_EQ, value, 0};
}

static struct scmp_arg_cmp masked(unsigned arg, scmp_datum_t mask, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){arg, SCMP_CMP_MASKED_EQ, mask, value};
}

#define RULE(rules, action, call, ...)                                                                                 \
	note((rules), seccomp_rule_add_array((rules)->ctx, (action), (call),                                           \
	                                     sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp), \
	                                     (struct scmp_arg_cmp[]){__VA_ARGS__}))

static void note(struct rules *rules, int rc)
{
	/* -EDOM, -EFAULT: a call that this architecture never had (open on arm64, …). */
	if (rc < 0 && rc != -EDOM && rc != -EFAULT && !rules->rc)
		rules->rc = rc;
}

static void plain(struct rules *rules, uint32_t action, int call)
{
	note(rules, seccomp_rule_add_array(rules->ctx, action, call, 0, NULL));
}

static void allow_all(struct rules *rules, const int *calls, size_t count)
{
	for (size_t i = 0; i < count; i++)
		plain(rules, ALLOW, calls[i]);
}

/* A call may be in two sets; libseccomp takes the second one as done already. */
static void allow_filtered(struct rules *rules)
{
	static const unsigned long ioctls[] = {FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TIOCGWINSZ};
	static const int prctls[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_CAPBSET_READ};
	/* Not F_SETOWN and F_SETSIG, by which the kernel sends any signal to any process of our user. */
	static const int fcntls[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW,
	                             F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_ADD_SEALS, F_GET_SEALS};
	const scmp_datum_t self = (scmp_datum_t)getpid();

	RULE(rules, ALLOW, SCMP_SYS(kill), equals(0, self));
	RULE(rules, ALLOW, SCMP_SYS(tgkill), equals(0, self));
	/* Reading our own limits, not setting them and not those of others. */
	RULE(rules, ALLOW, SCMP_SYS(prlimit64), equals(0, 0), equals(2, 0));
	for (size_t i = 0; i < COUNT(ioctls); i++)
		RULE(rules, ALLOW, SCMP_SYS(ioctl), equals(1, ioctls[i]));
	for (size_t i = 0; i < COUNT(fcntls); i++)
		RULE(rules, ALLOW, SCMP_SYS(fcntl), equals(1, (scmp_datum_t)fcntls[i]));
	for (size_t i = 0; i < COUNT(prctls); i++)
		RULE(rules, ALLOW, SCMP_SYS(prctl), equals(0, (scmp_datum_t)prctls[i]));
	/* isatty() on a log that is a file or a terminal. */
	RULE(rules, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), equals(1, 0x5401 /* TCGETS */));
}

/* No new code at run time; the courier's resolver may load a name-service module. */
static void allow_mappings(struct rules *rules, bool exec)
{
	static const int calls[] = {SCMP_SYS(mmap), SCMP_SYS(mmap2), SCMP_SYS(mprotect)};

	for (size_t i = 0; i < COUNT(calls); i++) {
		if (exec) {
			plain(rules, ALLOW, calls[i]);
			continue;
		}
		RULE(rules, ALLOW, calls[i], masked(2, PROT_EXEC, 0));
		RULE(rules, SCMP_ACT_ERRNO(EACCES), calls[i], masked(2, PROT_EXEC, PROT_EXEC));
	}
}

static void allow_sockets(struct rules *rules)
{
	static const int domains[] = {AF_INET, AF_INET6};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	static const int protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP};
	const scmp_datum_t kind = ~(scmp_datum_t)(SOCK_NONBLOCK | SOCK_CLOEXEC) & UINT32_MAX;

	for (size_t d = 0; d < COUNT(domains); d++)
		for (size_t t = 0; t < COUNT(types); t++)
			for (size_t p = 0; p < COUNT(protocols); p++)
				RULE(rules, ALLOW, SCMP_SYS(socket),
				     equals(0, (scmp_datum_t)domains[d]),
				     masked(1, kind, (scmp_datum_t)types[t]),
				     equals(2, (scmp_datum_t)protocols[p]));
	/* getaddrinfo asks which address families this host has (NETLINK_ROUTE). */
	RULE(rules, ALLOW, SCMP_SYS(socket), equals(0, AF_NETLINK), equals(2, 0));
	/* ... and looks for nscd, which is not worth a way to other local services. */
	RULE(rules, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), equals(0, AF_UNIX));
	/* libcurl wakes itself through a pair. */
	RULE(rules, ALLOW, SCMP_SYS(socketpair), equals(0, AF_UNIX));
}

/* Reading only: no open that writes or creates. */
static void allow_read_only(struct rules *rules)
{
	const scmp_datum_t writes = O_ACCMODE | O_CREAT | O_TRUNC;

	RULE(rules, ALLOW, SCMP_SYS(open), masked(1, writes, O_RDONLY));
	RULE(rules, ALLOW, SCMP_SYS(openat), masked(2, writes, O_RDONLY));
	plain(rules, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2));
}

static void add_rules(struct rules *rules, int calls)
{
	allow_all(rules, common_calls, COUNT(common_calls));
	allow_filtered(rules);
	allow_mappings(rules, (calls & KT_SANDBOX_INET) != 0);
	if (calls & KT_SANDBOX_FILES)
		allow_all(rules, files_calls, COUNT(files_calls));
	if (calls & KT_SANDBOX_INET) {
		allow_all(rules, inet_calls, COUNT(inet_calls));
		allow_sockets(rules);
	}
	if (calls & KT_SANDBOX_ACCEPT)
		allow_all(rules, accept_calls, COUNT(accept_calls));
	if (calls & KT_SANDBOX_PASSED)
		allow_all(rules, passed_calls, COUNT(passed_calls));
	/* send() on a connected socket where sending to an address is not for this room. */
	if (!(calls & (KT_SANDBOX_INET | KT_SANDBOX_ACCEPT | KT_SANDBOX_PASSED)))
		RULE(rules, ALLOW, SCMP_SYS(sendto), equals(4, 0));
	if (!(calls & KT_SANDBOX_FILES)) {
		if (calls & KT_SANDBOX_INET)
			allow_read_only(rules);
		else
			for (size_t i = 0; i < COUNT(path_calls); i++)
				plain(rules, SCMP_ACT_ERRNO(EACCES), path_calls[i]);
	}
	for (size_t i = 0; i < COUNT(refused_calls); i++)
		plain(rules, SCMP_ACT_ERRNO(refused_calls[i].errnum), refused_calls[i].call);
}

static enum kt_code failed(struct kt_err *err, int rc, const char *what)
{
	errno = -rc;
	return kt_err_sys(err, "sandbox: seccomp: %s", what);
}

enum kt_code kt_sandbox_close(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err)
{
	struct rules rules = {seccomp_init(SCMP_ACT_KILL_PROCESS), 0};
	enum kt_code code = KT_OK;

	if (!rules.ctx)
		return kt_err_set(err, KT_E_NOMEM, "sandbox: seccomp: no memory for the filter");
	note(&rules, seccomp_attr_set(rules.ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
	/* Threads of the pool exist already and must stand behind the same wall. */
	note(&rules, seccomp_attr_set(rules.ctx, SCMP_FLTATR_CTL_TSYNC, 1));
	/* A search tree instead of a list: fewer comparisons on every call. */
	note(&rules, seccomp_attr_set(rules.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2));
	add_rules(&rules, box->calls);
	if (rules.rc < 0) {
		code = failed(err, rules.rc, "the rules don't fit together");
		goto out;
	}
	rules.rc = seccomp_load(rules.ctx);
	if (rules.rc < 0)
		code = failed(err, rules.rc, "the kernel refuses the filter");
	else
		ret->seccomp = true;
out:
	seccomp_release(rules.ctx);
	malloc_trim(0); /* the filter in the making was the largest thing on many a room's heap */
	return code;
}

#endif
