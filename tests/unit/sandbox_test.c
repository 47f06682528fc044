/* The walls of a room, tried from inside: a child closes them and does what it must, or must not, be able to do. */
#include "config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/sandbox.h"

/* What a child reports: its exit status, or that a wall killed it. */
enum { FINE = 0, WRONG = 1, WALLS_FAILED = 99, KILLED = 1000 };

static char dir[] = "/tmp/kt-sandbox-XXXXXX";
static char inside[64];  /* what the keeper may write to */
static char outside[64]; /* what no room may see */
static int listener = -1;
static int passed[2] = {-1, -1};
static struct sockaddr_in listener_addr;

static struct kt_sandbox keeper_box(struct kt_sandbox_path *path)
{
	*path = (struct kt_sandbox_path){inside, KT_SANDBOX_WRITE};
	return (struct kt_sandbox){.paths = path,
	                           .path_count = 1,
	                           .calls = KT_SANDBOX_FILES | KT_SANDBOX_PASSED,
	                           .no_network = true};
}

/* Runs act behind the walls of box; FINE, WRONG or KILLED, and the signal when it was another one. */
static int behind(const struct kt_sandbox *box, int (*act)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct kt_sandbox_report report;
		struct kt_err err;

		if (kt_sandbox_prepare(box, &report, &err) || kt_sandbox_close(box, &report, &err)) {
			fprintf(stderr, "%s\n", err.what);
			_exit(WALLS_FAILED);
		}
		_exit(act());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : WTERMSIG(status);
	return WEXITSTATUS(status);
}

static int as_keeper(int (*act)(void))
{
	struct kt_sandbox_path path;
	struct kt_sandbox box = keeper_box(&path);

	return behind(&box, act);
}

static int as_courier(int (*act)(void))
{
	static const struct kt_sandbox_path paths[] = {{"/etc", KT_SANDBOX_READ}, {"/nowhere", KT_SANDBOX_READ}};
	static const struct kt_sandbox box = {.paths = paths, .path_count = 2, .calls = KT_SANDBOX_INET};

	return behind(&box, act);
}

static int as_desk(int (*act)(void))
{
	static const struct kt_sandbox box = {.calls = KT_SANDBOX_ACCEPT, .no_network = true};

	return behind(&box, act);
}

static int as_everyone(int (*act)(void))
{
	int keeper = as_keeper(act), courier = as_courier(act), desk = as_desk(act);

	if (keeper != courier || keeper != desk)
		print_message("keeper %d, courier %d, desk %d\n", keeper, courier, desk);
	return keeper == courier && keeper == desk ? keeper : -1;
}

/* --- the report and what stands without seccomp ------------------------------------------------------------------ */

static int check_report(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	struct rlimit core;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
		return WRONG;
#ifndef KT_SANITIZERS
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		return WRONG;
#endif
	if (syscall(SYS_capget, &header, data) < 0)
		return WRONG;
	if (data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective | data[1].permitted)
		return WRONG;
	/* Nothing can be won back through the bounding set, unless we never had the right to empty it. */
	if (geteuid() == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) != 0)
		return WRONG;
	return FINE;
}

static void test_privileges_are_gone(void **state)
{
	(void)state;
	assert_int_equal(as_everyone(check_report), FINE);
}

static int only_chown_left(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return WRONG;
	return data[0].effective == 1u << CAP_CHOWN && data[1].effective == 0 ? FINE : WRONG;
}

static void test_kept_capabilities(void **state)
{
	struct kt_sandbox box = {.keep_caps = 1ull << CAP_CHOWN};

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(behind(&box, only_chown_left), FINE);
}

static void test_report(void **state)
{
	struct kt_sandbox_path path;
	struct kt_sandbox box = keeper_box(&path);
	struct kt_sandbox_report report, *shared;
	int status;
	pid_t pid;

	(void)state;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(kt_sandbox_prepare(&box, shared, NULL) || kt_sandbox_close(&box, shared, NULL) ? WRONG : FINE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == FINE);
	report = *shared;
	munmap(shared, sizeof(*shared));
	assert_true(report.no_new_privs && report.no_core && report.caps_dropped);
#ifdef KT_SANITIZERS
	assert_false(report.seccomp);
#else
	assert_true(report.seccomp);
#endif
	/* The kernel's own word, so that a machine without Landlock is not a failure. */
	assert_int_equal(report.landlock_abi > 0, syscall(444, NULL, (size_t)0, 1u) > 0);
}

static void test_missing_place_to_write(void **state)
{
	static const struct kt_sandbox_path path = {"/nowhere/at/all", KT_SANDBOX_WRITE};
	struct kt_sandbox box = {.paths = &path, .path_count = 1};

	(void)state;
	if (syscall(444, NULL, (size_t)0, 1u) < 1)
		skip();
	assert_int_equal(behind(&box, check_report), WALLS_FAILED);
}

/* --- Landlock ---------------------------------------------------------------------------------------------------- */

static int file_io(void)
{
	char path[128], other[128];
	int fd;

	snprintf(path, sizeof(path), "%s/a", inside);
	snprintf(other, sizeof(other), "%s/sub/b", inside);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "12345678", 8) != 8 || ftruncate(fd, 4) < 0 || fsync(fd) < 0 || fdatasync(fd) < 0)
		return WRONG;
	if (fallocate(fd, 0, 0, 4096) < 0 && errno != EOPNOTSUPP)
		return WRONG;
	if (fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK}) < 0 || fchmod(fd, 0640) < 0 || close(fd) < 0)
		return WRONG;
	snprintf(other, sizeof(other), "%s/sub", inside);
	if (mkdir(other, 0700) < 0 && errno != EEXIST)
		return WRONG;
	snprintf(other, sizeof(other), "%s/sub/b", inside);
	if (rename(path, other) < 0 || symlink("sub/b", path) < 0 || unlink(path) < 0 || unlink(other) < 0)
		return WRONG;
	return FINE;
}

static int read_passwd(void)
{
	int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);

	return fd >= 0 ? WRONG : errno == EACCES ? FINE : WRONG;
}

static int write_outside(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/x", outside);
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EACCES ? FINE : WRONG;
}

/* A link inside that leads outside changes nothing. */
static int follow_link_outside(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/link/known", inside);
	return open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES ? FINE : WRONG;
}

static void test_files(void **state)
{
	(void)state;
	assert_int_equal(as_keeper(file_io), FINE);
	if (syscall(444, NULL, (size_t)0, 1u) < 1)
		skip();
	assert_int_equal(as_keeper(read_passwd), FINE);
	assert_int_equal(as_keeper(write_outside), FINE);
	assert_int_equal(as_keeper(follow_link_outside), FINE);
	assert_int_equal(as_desk(read_passwd), FINE);
}

static int courier_reads_config(void)
{
	int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	char c;

	return fd >= 0 && read(fd, &c, 1) == 1 ? FINE : WRONG;
}

static int courier_connects(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&listener_addr, sizeof(listener_addr)) < 0)
		return WRONG;
	return FINE;
}

static int courier_resolves(void)
{
	static const struct addrinfo hints = {.ai_flags = AI_ADDRCONFIG, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;

	if (getaddrinfo("localhost", "443", &hints, &found) != 0 || !found)
		return WRONG;
	freeaddrinfo(found);
	/* No such name: the resolver went through all its ways and came back. */
	if (getaddrinfo("no-such-name.invalid", "443", &hints, &found) == 0)
		return WRONG;
	return FINE;
}

#ifndef KT_SANITIZERS
static int courier_reaches_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EACCES ? FINE : WRONG;
}
#endif

static void test_courier_works(void **state)
{
	(void)state;
	assert_int_equal(as_courier(courier_reads_config), FINE);
	assert_int_equal(as_courier(courier_connects), FINE);
	assert_int_equal(as_courier(courier_resolves), FINE);
#ifndef KT_SANITIZERS
	assert_int_equal(as_courier(courier_reaches_unix), FINE);
#endif
}

/* --- what works behind seccomp ----------------------------------------------------------------------------------- */

static int everyday(void)
{
	struct itimerspec soon = {.it_value = {.tv_nsec = 1000000}};
	int ep = epoll_create1(EPOLL_CLOEXEC), ev = eventfd(0, EFD_CLOEXEC), timer = timerfd_create(CLOCK_BOOTTIME, 0);
	struct epoll_event event = {.events = EPOLLIN};
	char *block = malloc(8u << 20);
	uint64_t count;
	char text[16];

	if (!block || ep < 0 || ev < 0 || timer < 0)
		return WRONG;
	memset(block, 1, 8u << 20);
	free(block);
	if (timerfd_settime(timer, 0, &soon, NULL) < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, timer, &event) < 0)
		return WRONG;
	if (epoll_wait(ep, &event, 1, 5000) != 1 || read(timer, &count, sizeof(count)) != sizeof(count))
		return WRONG;
	if (syscall(SYS_getrandom, text, sizeof(text), 0) != sizeof(text))
		return WRONG;
	if (send(passed[0], "x", 1, MSG_NOSIGNAL) != 1 || recv(passed[1], text, 1, 0) != 1)
		return WRONG;
	(void)isatty(2);
	kt_mem_trim(); /* and all goes on */
	return snprintf(text, sizeof(text), "%d", 42) == 2 ? FINE : WRONG;
}

static int abort_works(void)
{
	abort();
}

static int desk_accepts(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return errno == EAGAIN ? FINE : WRONG;
	return FINE;
}

static void test_everyday(void **state)
{
	(void)state;
	assert_int_equal(as_everyone(everyday), FINE);
	assert_int_equal(as_everyone(abort_works), SIGABRT);
	assert_int_equal(as_desk(desk_accepts), FINE);
}

/* --- what dies --------------------------------------------------------------------------------------------------- */

#ifndef KT_SANITIZERS

static void *idle(void *arg)
{
	return arg;
}

static int do_fork(void)
{
	return fork() < 0 ? FINE : WRONG;
}

static int do_thread(void)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, idle, NULL) ? FINE : WRONG;
}

static int do_exec(void)
{
	char *argv[] = {(char *)(uintptr_t)"/bin/true", NULL}, *envp[] = {NULL};

	execve(argv[0], argv, envp);
	return WRONG;
}

static int do_ptrace(void)
{
	(void)syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, getppid(), 0, 0);
	return WRONG;
}

static int do_vm_read(void)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {&byte, 1};

	(void)process_vm_readv(getppid(), &here, 1, &there, 1, 0);
	return WRONG;
}

static int do_pidfd_getfd(void)
{
	(void)syscall(438 /* pidfd_getfd */, passed[0], 0, 0);
	return WRONG;
}

static int do_pidfd_open(void)
{
	(void)syscall(434 /* pidfd_open */, getppid(), 0);
	return WRONG;
}

static int do_kill_other(void)
{
	(void)kill(getppid(), 0);
	return WRONG;
}

static int do_kill_all(void)
{
	(void)kill(0, 0);
	return WRONG;
}

static int do_setuid(void)
{
	return setuid(12345) ? WRONG : WRONG + 1;
}

static int do_mount(void)
{
	(void)syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL);
	return WRONG;
}

static int do_raw_socket(void)
{
	(void)socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	return WRONG;
}

static int do_packet_socket(void)
{
	(void)socket(AF_PACKET, SOCK_DGRAM, 0);
	return WRONG;
}

static int do_limit(void)
{
	struct rlimit limit = {1024, 1024};

	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return WRONG;
}

static int do_dumpable(void)
{
	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	return WRONG;
}

/* The kernel would send what F_SETSIG says to whom F_SETOWN names: kill() by another name. */
static int do_own_other(void)
{
	(void)fcntl(passed[0], F_SETOWN, getppid());
	return WRONG;
}

static int do_own_signal(void)
{
	(void)fcntl(passed[0], F_SETSIG, SIGKILL);
	return WRONG;
}

static int do_chmod(void)
{
	(void)chmod(outside, 0777);
	return WRONG;
}

static int do_chmod_at(void)
{
	(void)syscall(SYS_fchmodat, AT_FDCWD, outside, 0777);
	return WRONG;
}

static int do_chown(void)
{
	return chown(outside, 0, 0) ? WRONG : WRONG + 1;
}

static int do_chown_at(void)
{
	return fchownat(open(outside, O_PATH | O_CLOEXEC), "", 0, 0, AT_EMPTY_PATH) ? WRONG : WRONG + 1;
}

static void test_nobody(void **state)
{
	static int (*const acts[])(void) = {do_fork,     do_thread,     do_exec,      do_ptrace,     do_vm_read,
	                                    do_pidfd_getfd, do_pidfd_open, do_kill_other, do_kill_all, do_setuid,
	                                    do_mount,    do_raw_socket, do_packet_socket, do_limit, do_dumpable,
	                                    do_own_other, do_own_signal, do_chmod, do_chmod_at, do_chown, do_chown_at};

	(void)state;
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
		int seen = as_everyone(acts[i]);

		if (seen != KILLED)
			print_message("act %zu was not killed\n", i);
		assert_int_equal(seen, KILLED);
	}
}

static int do_socket(void)
{
	(void)socket(AF_INET, SOCK_STREAM, 0);
	return WRONG;
}

static int do_unix_socket(void)
{
	(void)socket(AF_UNIX, SOCK_STREAM, 0);
	return WRONG;
}

static int do_connect(void)
{
	(void)connect(passed[0], (struct sockaddr *)&listener_addr, sizeof(listener_addr));
	return WRONG;
}

static int do_bind(void)
{
	(void)bind(passed[0], (struct sockaddr *)&listener_addr, sizeof(listener_addr));
	return WRONG;
}

static int do_accept(void)
{
	(void)accept4(listener, NULL, NULL, 0);
	return WRONG;
}

static int do_unlink(void)
{
	(void)unlink("/tmp/kt-nothing");
	return WRONG;
}

static int do_open_write(void)
{
	(void)open("/tmp/kt-nothing", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return WRONG;
}

static void test_each_room_its_own(void **state)
{
	(void)state;
	assert_int_equal(as_keeper(do_socket), KILLED);
	assert_int_equal(as_keeper(do_unix_socket), KILLED);
	assert_int_equal(as_keeper(do_connect), KILLED);
	assert_int_equal(as_keeper(do_bind), KILLED);
	assert_int_equal(as_keeper(do_accept), KILLED);
	assert_int_equal(as_desk(do_socket), KILLED);
	assert_int_equal(as_desk(do_unix_socket), KILLED);
	assert_int_equal(as_desk(do_connect), KILLED);
	assert_int_equal(as_desk(do_bind), KILLED);
	assert_int_equal(as_desk(do_unlink), KILLED);
	assert_int_equal(as_courier(do_accept), KILLED);
	assert_int_equal(as_courier(do_unlink), KILLED);
	assert_int_equal(as_courier(do_open_write), KILLED);
}

static int map_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0 || errno != EACCES)
		return WRONG;
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? FINE : WRONG;
}

static void test_no_new_code(void **state)
{
	(void)state;
	assert_int_equal(as_keeper(map_code), FINE);
	assert_int_equal(as_desk(map_code), FINE);
}

/* A thread that was there before the wall stands behind it too. */
static pthread_barrier_t barrier;

static void *forbidden_in_thread(void *arg)
{
	pthread_barrier_wait(&barrier);
	(void)syscall(SYS_ptrace, 16, getppid(), 0, 0);
	return arg;
}

static void test_threads_too(void **state)
{
	struct kt_sandbox box = {.calls = KT_SANDBOX_FILES};
	struct kt_sandbox_report report;
	pthread_t thread;
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pthread_barrier_init(&barrier, NULL, 2);
		if (kt_sandbox_prepare(&box, &report, NULL) ||
		    pthread_create(&thread, NULL, forbidden_in_thread, NULL) || kt_sandbox_close(&box, &report, NULL))
			_exit(WALLS_FAILED);
		pthread_barrier_wait(&barrier);
		pthread_join(thread, NULL);
		_exit(WRONG);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

#endif

static int setup(void **state)
{
	socklen_t len = sizeof(listener_addr);
	char path[128];
	int fd;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(inside, sizeof(inside), "%s/inside", dir);
	snprintf(outside, sizeof(outside), "%s/outside", dir);
	if (mkdir(inside, 0700) < 0 || mkdir(outside, 0700) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/known", outside);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	close(fd);
	snprintf(path, sizeof(path), "%s/link", inside);
	if (symlink(outside, path) < 0)
		return -1;
	listener_addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&listener_addr, len) < 0 || listen(listener, 8) < 0 ||
	    getsockname(listener, (struct sockaddr *)&listener_addr, &len) < 0)
		return -1;
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, passed);
}

static int teardown(void **state)
{
	static const char *const left[] = {"outside/known", "outside/x", "inside/link", "inside/sub/b", "inside/sub",
	                                   "inside/a",      "inside",    "outside"};
	char path[160];

	(void)state;
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, left[i]);
		(void)remove(path);
	}
	close(listener);
	close(passed[0]);
	close(passed[1]);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_privileges_are_gone),
		cmocka_unit_test(test_kept_capabilities),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_missing_place_to_write),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_courier_works),
		cmocka_unit_test(test_everyday),
#ifndef KT_SANITIZERS
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_each_room_its_own),
		cmocka_unit_test(test_no_new_code),
		cmocka_unit_test(test_threads_too),
#endif
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
