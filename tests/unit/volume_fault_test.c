/* Secret volumes, killed at any writing call and with every such call failing: nothing torn, lost or stuck. */
#include "volume_helper.h"

/* ---- faults: the linker puts these in the place of the calls that write (see local.mk) ---- */

/* The n-th call from now on: dies there (fault_errno 0) or fails, once or for good. -1: off. */
static int fault_after = -1, fault_errno, fault_forever, fault_calls;

static int fault(void)
{
	fault_calls++;
	if (fault_after < 0 || fault_calls <= fault_after || (!fault_forever && fault_calls != fault_after + 1))
		return 0;
	if (fault_errno == 0)
		_exit(99);
	errno = fault_errno;
	return 1;
}

#define WRAP(type, name, params, args)                                                                                 \
	type __real_##name params;                                                                                     \
	type __wrap_##name params;                                                                                     \
	type __wrap_##name params                                                                                      \
	{                                                                                                              \
		return fault() ? (type)-1 : __real_##name args;                                                        \
	}
WRAP(int, mkdirat, (int fd, const char *p, mode_t m), (fd, p, m))
WRAP(int, openat, (int fd, const char *p, int flags, mode_t m), (fd, p, flags, m))
WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(int, fchmod, (int fd, mode_t m), (fd, m))
WRAP(int, fchown, (int fd, uid_t u, gid_t g), (fd, u, g))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, symlinkat, (const char *t, int fd, const char *p), (t, fd, p))
WRAP(int, renameat, (int fd, const char *p, int fd2, const char *p2), (fd, p, fd2, p2))
WRAP(int, unlinkat, (int fd, const char *p, int flags), (fd, p, flags))

static void faults_off(void)
{
	fault_after = -1;
	fault_calls = 0;
	fault_forever = 0;
}

/* How far rotate came. */
static enum { STAGING, SWITCHING, RETIRING } rotate_step;

/* One rotation from GEN_A to GEN_B and its end. What of it fails is told, nothing is asserted here. */
static enum kt_code rotate(struct kt_volume *vol, struct kt_err *err)
{
	char bytes[3][32];
	struct kt_volume_file files[3];
	enum kt_code code;

	make_set(bytes, files, "two");
	rotate_step = STAGING;
	code = kt_volume_stage(vol, GEN_B, files, 3, err);
	if (code == KT_OK) {
		rotate_step = SWITCHING;
		code = kt_volume_switch(vol, GEN_B, files, 3, NULL, err);
	}
	if (code == KT_OK) {
		rotate_step = RETIRING;
		code = kt_volume_retire(vol, GEN_A, err);
	}
	return code;
}

static void fresh_volume(struct kt_volume *vol, int n, bool memory)
{
	char name[32];

	snprintf(name, sizeof(name), "v%d%s", n, memory ? "" : "-disk");
	assert_int_equal(kt_volume_open(root, NULL, name, NULL, vol, NULL), KT_OK);
	vol->memory = memory;
	publish(vol, GEN_A, "one");
}

static void assert_whole(const struct kt_volume *vol)
{
	if (serves(vol, "two"))
		assert_serves(vol, "two");
	else
		assert_serves(vol, "one");
}

/* Killed at the n-th writing call, for every n: what is served is whole, and the same again leads to the end. */
static void kill_everywhere(bool memory)
{
	int n, died = 0;

	for (n = 0;; n++) {
		struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
		struct kt_err err;
		int status;
		pid_t pid;

		fresh_volume(&vol, n, memory);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			faults_off();
			fault_errno = 0;
			fault_after = n;
			_exit(rotate(&vol, &err) == KT_OK ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_whole(&vol);
		if (n % 2) { /* with and without the cleanup of a start */
			const char *keep[] = {GEN_B};

			assert_int_equal(kt_volume_cleanup(&vol, keep, 1, NULL, &err), KT_OK);
			assert_whole(&vol);
		}
		if (rotate(&vol, &err) != KT_OK)
			fail_msg("after a kill at call %d: %s", n, err.what);
		assert_serves(&vol, "two");
		assert_false(exists(&vol, "..data_tmp"));
		assert_false(kt_volume_has(&vol, GEN_A));
		assert_int_equal(kt_volume_cleanup(&vol, NULL, 0, NULL, &err), KT_OK);
		assert_serves(&vol, "two");
		if (WEXITSTATUS(status) == 0)
			break;
		assert_int_equal(WEXITSTATUS(status), 99);
		died++;
	}
	assert_true(died > 10);
}

static void test_kill_memory(void **state)
{
	(void)state;
	kill_everywhere(true);
}

static void test_kill_disk(void **state)
{
	(void)state;
	kill_everywhere(false);
}

/* The n-th writing call fails, once or for good, for every n: an error, a whole set, and the next try succeeds. */
static void test_fail_everywhere(void **state)
{
	static const int errnos[] = {ENOSPC, EIO, EROFS, EMFILE};
	int count = 0, staging = 0, later = 0;

	(void)state;
	for (int variant = 0; variant < 16; variant++) {
		for (int n = 0;; n++) {
			struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
			struct kt_err err;
			enum kt_code code;
			bool reached;

			fresh_volume(&vol, count++, variant & 8);
			faults_off();
			fault_errno = errnos[variant & 3];
			fault_forever = variant & 4;
			fault_after = n;
			kt_err_clear(&err);
			code = rotate(&vol, &err);
			reached = fault_calls > n;
			faults_off();
			assert_true(!reached || code != KT_OK || !(variant & 4));
			if (code != KT_OK) {
				assert_int_equal(err.code, code);
				assert_true(strlen(err.what) > 10);
			}
			assert_whole(&vol);
			/* A failed stage leaves nothing, unless removing failed as well; a failed flip no ..data_tmp. */
			if (code != KT_OK && !(variant & 4)) {
				assert_false(rotate_step == STAGING && exists(&vol, GEN_B));
				assert_false(exists(&vol, "..data_tmp"));
				if (rotate_step == STAGING)
					staging++;
				else
					later++;
			}
			if (rotate(&vol, &err) != KT_OK)
				fail_msg("after call %d failed with %s: %s", n, strerror(errnos[variant & 3]), err.what);
			assert_serves(&vol, "two");
			assert_false(kt_volume_has(&vol, GEN_A));
			if (!reached)
				break;
		}
	}
	assert_true(count > 300 && staging > 60 && later > 20);
	print_message("%d failing calls\n", count);
}

/* One volume's life with no memory for the n-th allocation, or for it and all after it. */
static enum kt_code rotate_anew(int count, struct kt_err *err)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char name[32];
	enum kt_code code;

	snprintf(name, sizeof(name), "v%d", count);
	code = kt_volume_open(root, NULL, name, NULL, &vol, err);
	return code == KT_OK ? rotate(&vol, err) : code;
}

static void test_no_memory(void **state)
{
	int count = 10000, failed = 0;
	int64_t total = 0;

	(void)state;
	for (int64_t n = -1; n < 2 * total; n++) {
		struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
		uint64_t before;
		struct kt_err err;
		enum kt_code code;

		fresh_volume(&vol, count, true);
		kt_err_clear(&err);
		before = kt_mem_count();
		kt_mem_fail_after(n < 0 ? -1 : n / 2, n & 1);
		code = rotate_anew(count, &err);
		kt_mem_fail_after(-1, 0);
		if (n < 0)
			total = (int64_t)(kt_mem_count() - before);
		if (code != KT_OK && (code != KT_E_NOMEM || n < 0))
			fail_msg("allocation %d: %s: %s", (int)n, kt_code_name(code), err.what);
		failed += code != KT_OK;
		assert_whole(&vol);
		if (rotate_anew(count++, &err) != KT_OK)
			fail_msg("after allocation %d failed: %s", (int)n, err.what);
		assert_serves(&vol, "two");
		assert_false(exists(&vol, "..data_tmp"));
	}
	assert_true(total > 0 && failed > 0);
	print_message("%d allocations, each failed once and for good: %d errors\n", (int)total, failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_kill_memory),
	        CASE(test_kill_disk),
	        CASE(test_fail_everywhere),
	        CASE(test_no_memory),
	};

	umask(022);
	return cmocka_run_group_tests_name("volume faults", tests, NULL, NULL);
}
