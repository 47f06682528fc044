/* Secret volumes: layout, idempotency when killed at any call, every call failing, hostile neighbours, readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper/deliver/deliver.h"
#include "kt/io.h"
#include "kt/mem.h"

#define GEN_A "..2026_11_23_07_09_03.123456789"
#define GEN_B "..2026_11_23_07_10_03.123456789"
#define GEN_C "..2026_11_23_07_11_03.123456789"

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

/* ---- a place and sets to put there ---- */

static char base[512];
static struct kt_volume_root *root;
static struct kt_volume_policy policy;

static int setup(void **state)
{
	struct kt_err err;
	char path[PATH_MAX];

	(void)state;
	faults_off();
	/* In memory where there is such a place: a thousand rotations with fsync are slow on a disk. */
	snprintf(base, sizeof(base), "/dev/shm/kt-volume-XXXXXX");
	if (!mkdtemp(base)) {
		snprintf(base, sizeof(base), "/tmp/kt-volume-XXXXXX");
		assert_non_null(mkdtemp(base));
	}
	snprintf(path, sizeof(path), "%s/secrets", base);
	policy = KT_VOLUME_POLICY_DEFAULT;
	policy.allow_persistent = true;
	if (kt_volume_root_create(path, &policy, &root, &err) != KT_OK)
		fail_msg("%s", err.what);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	faults_off();
	kt_volume_root_destroy(root);
	root = NULL;
	return kt_io_remove_tree(AT_FDCWD, base, NULL) == KT_OK ? 0 : -1;
}

static void open_web(struct kt_volume *vol)
{
	struct kt_err err;

	if (kt_volume_open(root, NULL, "web-tls", NULL, vol, &err) != KT_OK)
		fail_msg("%s", err.what);
}

/* Three files that all carry the same mark, so that a mixture shows. */
static void make_set(char bytes[3][32], struct kt_volume_file files[3], const char *mark)
{
	static const char *const paths[] = {"tls.crt", "tls.key", "certs/ca.crt"};

	for (size_t i = 0; i < 3; i++) {
		snprintf(bytes[i], 32, "%s %zu", mark, i);
		files[i] = (struct kt_volume_file){.path = paths[i], .bytes = kt_view_str(bytes[i]),
		                                   .mode = i == 1 ? 0600 : 0644, .uid = KT_OWNER_KEEP,
		                                   .gid = (gid_t)KT_OWNER_KEEP};
	}
}

static void read_under(const struct kt_volume *vol, const char *path, char out[64])
{
	int fd = openat(vol->fd, path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 63);

	out[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

/* What is served through the stable links is one whole set with this mark. */
static void assert_serves(const struct kt_volume *vol, const char *mark)
{
	char bytes[3][32], got[64];
	struct kt_volume_file files[3];

	make_set(bytes, files, mark);
	for (size_t i = 0; i < 3; i++) {
		read_under(vol, files[i].path, got);
		assert_string_equal(got, bytes[i]);
	}
}

static bool serves(const struct kt_volume *vol, const char *mark)
{
	char want[64], got[64];

	read_under(vol, "tls.crt", got);
	snprintf(want, sizeof(want), "%s 0", mark);
	return strcmp(got, want) == 0;
}

static bool exists(const struct kt_volume *vol, const char *name)
{
	struct stat st;

	return fstatat(vol->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void publish(struct kt_volume *vol, const char *generation, const char *mark)
{
	char bytes[3][32];
	struct kt_volume_file files[3];
	struct kt_err err;

	make_set(bytes, files, mark);
	if (kt_volume_stage(vol, generation, files, 3, &err) != KT_OK ||
	    kt_volume_switch(vol, generation, files, 3, NULL, &err) != KT_OK)
		fail_msg("%s", err.what);
}

/* ---- the tests ---- */

static void test_layout(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char name[KT_GENERATION_MAX], link[64] = "";
	struct stat st;

	(void)state;
	open_web(&vol);
	assert_true(vol.fresh);
	assert_int_equal(kt_volume_current(&vol, name, NULL), KT_E_NOTFOUND);
	publish(&vol, GEN_A, "one");
	assert_serves(&vol, "one");
	assert_int_equal(kt_volume_current(&vol, name, NULL), KT_OK);
	assert_string_equal(name, GEN_A);
	assert_true(readlinkat(vol.fd, "tls.crt", link, sizeof(link) - 1) > 0);
	assert_string_equal(link, "..data/tls.crt");
	memset(link, 0, sizeof(link));
	assert_true(readlinkat(vol.fd, "certs", link, sizeof(link) - 1) > 0);
	assert_string_equal(link, "..data/certs");
	assert_int_equal(fstatat(vol.fd, GEN_A, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(fstatat(vol.fd, GEN_A "/certs", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(fstatat(vol.fd, "tls.key", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(vol.fd, "tls.crt", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_false(exists(&vol, "..data_tmp"));
}

static void test_names(void **state)
{
	char name[KT_GENERATION_MAX], other[KT_GENERATION_MAX];
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_err err;

	(void)state;
	kt_volume_generation_name(kt_time_civil(2026, 11, 23, 7, 9, 3) + 123, name);
	assert_int_equal(strncmp(name, "..2026_11_23_07_09_03.123", 25), 0);
	assert_true(kt_volume_generation_valid(name));
	assert_true(kt_volume_generation_valid(kt_volume_generation_name(KT_TIME_MAX, other)));
	assert_true(kt_volume_generation_valid(kt_volume_generation_name(-1, other)));
	assert_false(kt_volume_generation_valid("..data"));
	assert_false(kt_volume_generation_valid("../../etc/passwd"));
	assert_false(kt_volume_generation_valid(GEN_A "x"));
	assert_int_equal(kt_volume_open(root, NULL, "../x", NULL, &vol, &err), KT_E_INVALID);
	assert_int_equal(kt_volume_open(root, "a/b", "x", NULL, &vol, &err), KT_E_INVALID);
	assert_int_equal(kt_volume_open_existing(root, "prod", "x", NULL, &vol, &err), KT_E_NOTFOUND);
	assert_int_equal(kt_volume_open(root, "prod", "x", NULL, &vol, &err), KT_OK);
	kt_volume_close(&vol);
	/* A namespace that has a secret's name is refused. */
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	kt_volume_close(&vol);
	assert_int_equal(kt_volume_open(root, "web-tls", "x", NULL, &vol, &err), KT_E_POLICY);
}

static void test_paths_refused(void **state)
{
	static const char *const bad[] = {"", "/etc/x", "..", "../x", "a/../b", "a//b", "./a", "a/", "..data", "a/..b"};
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_err err;

	(void)state;
	open_web(&vol);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct kt_volume_file file = {.path = bad[i], .bytes = KT_VIEW_LIT("x"), .uid = KT_OWNER_KEEP,
		                              .gid = (gid_t)KT_OWNER_KEEP};

		assert_int_equal(kt_volume_stage(&vol, GEN_A, &file, 1, &err), KT_E_INVALID);
		assert_false(exists(&vol, GEN_A));
	}
	struct kt_volume_file twice[2] = {{.path = "a", .uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP},
	                                  {.path = "a", .uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP}};
	assert_int_equal(kt_volume_stage(&vol, GEN_A, twice, 2, &err), KT_E_INVALID);
	assert_false(exists(&vol, GEN_A));
	twice[1].path = "a/b";
	assert_int_not_equal(kt_volume_stage(&vol, GEN_A, twice, 2, &err), KT_OK);
	assert_false(exists(&vol, GEN_A));
	twice[0].mode = 04755;
	assert_int_equal(kt_volume_stage(&vol, GEN_A, twice, 1, &err), KT_E_INVALID);
}

static void test_switch_links(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_volume_file two[2] = {
	        {.path = "tls.crt", .bytes = KT_VIEW_LIT("two 0"), .uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP},
	        {.path = "extra", .bytes = KT_VIEW_LIT("more"), .uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP}};
	char previous[KT_GENERATION_MAX];
	struct kt_err err;

	(void)state;
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	assert_int_equal(kt_volume_stage(&vol, GEN_B, two, 2, &err), KT_OK);
	assert_serves(&vol, "one");
	assert_int_equal(kt_volume_switch(&vol, GEN_B, two, 2, previous, &err), KT_OK);
	assert_string_equal(previous, GEN_A);
	assert_true(exists(&vol, "extra"));
	assert_false(exists(&vol, "tls.key"));
	assert_false(exists(&vol, "certs"));
	/* again: nothing changes, and there is no previous one */
	assert_int_equal(kt_volume_switch(&vol, GEN_B, two, 2, previous, &err), KT_OK);
	assert_string_equal(previous, "");
	/* back, with the names from the old generation itself */
	assert_int_equal(kt_volume_switch(&vol, GEN_A, NULL, 0, previous, &err), KT_OK);
	assert_string_equal(previous, GEN_B);
	assert_serves(&vol, "one");
	assert_false(exists(&vol, "extra"));
	assert_int_equal(kt_volume_retire(&vol, GEN_A, &err), KT_E_BUSY);
	assert_int_equal(kt_volume_retire(&vol, GEN_B, &err), KT_OK);
	assert_int_equal(kt_volume_retire(&vol, GEN_B, &err), KT_OK);
	assert_false(kt_volume_has(&vol, GEN_B));
	assert_int_equal(kt_volume_switch(&vol, GEN_B, two, 2, NULL, &err), KT_E_NOTFOUND);
	assert_int_equal(kt_volume_switch(&vol, GEN_B, NULL, 0, NULL, &err), KT_E_NOTFOUND);
	assert_serves(&vol, "one");
}

static void test_restage(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char bytes[3][32];
	struct kt_volume_file files[3];
	struct kt_err err;

	(void)state;
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	make_set(bytes, files, "one");
	assert_int_equal(kt_volume_stage(&vol, GEN_A, files, 3, &err), KT_OK);
	make_set(bytes, files, "two");
	assert_int_equal(kt_volume_stage(&vol, GEN_A, files, 3, &err), KT_E_EXISTS);
	assert_serves(&vol, "one");
	/* the rest of an interrupted try, with a stranger's file in it */
	assert_int_equal(mkdirat(vol.fd, GEN_B, 0700), 0);
	close(openat(vol.fd, GEN_B "/rubbish", O_CREAT | O_WRONLY, 0600));
	assert_int_equal(kt_volume_stage(&vol, GEN_B, files, 3, &err), KT_OK);
	assert_false(exists(&vol, GEN_B "/rubbish"));
}

static void test_withdraw_and_cleanup(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	const char *keep[] = {GEN_B};
	char bytes[3][32];
	struct kt_volume_file files[3];
	struct kt_err err;
	size_t removed = 0;

	(void)state;
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	make_set(bytes, files, "two");
	assert_int_equal(kt_volume_stage(&vol, GEN_B, files, 3, &err), KT_OK);
	assert_int_equal(kt_volume_stage(&vol, GEN_C, files, 3, &err), KT_OK);
	assert_int_equal(symlinkat("..nowhere", vol.fd, "..data_tmp"), 0);
	assert_int_equal(symlinkat("..data/never-made", vol.fd, "never-made"), 0);
	close(openat(vol.fd, "not-ours", O_CREAT | O_WRONLY, 0600));
	assert_int_equal(kt_volume_cleanup(&vol, keep, 1, &removed, &err), KT_OK);
	assert_int_equal(removed, 3);
	assert_false(exists(&vol, "..data_tmp"));
	assert_false(exists(&vol, "never-made"));
	assert_false(exists(&vol, GEN_C));
	assert_true(kt_volume_has(&vol, GEN_B));
	assert_serves(&vol, "one");
	assert_int_equal(kt_volume_withdraw(&vol, &err), KT_OK);
	assert_int_equal(kt_volume_withdraw(&vol, &err), KT_OK);
	assert_false(exists(&vol, "..data"));
	assert_false(exists(&vol, "tls.key"));
	assert_false(exists(&vol, GEN_A));
	assert_true(exists(&vol, "not-ours"));
	/* a volume that was emptied can be filled again */
	publish(&vol, GEN_A, "three");
	assert_serves(&vol, "three");
}

static void test_stale_tmp_does_not_block(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;

	(void)state;
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	assert_int_equal(symlinkat("..2020_01_01_00_00_00.000000000", vol.fd, "..data_tmp"), 0);
	publish(&vol, GEN_B, "two");
	assert_serves(&vol, "two");
}

/* L1, L2, L4: what lies in the way is never followed and never destroyed. */
static void test_hostile(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char bytes[3][32], path[PATH_MAX + 32];
	struct kt_volume_file files[3];
	struct kt_err err;
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/secrets/evil", base);
	assert_int_equal(symlink("/etc", path), 0);
	assert_int_equal(kt_volume_open(root, NULL, "evil", NULL, &vol, &err), KT_E_POLICY);
	assert_non_null(strstr(err.what, "evil"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(kt_volume_open(root, NULL, "evil", NULL, &vol, &err), KT_E_POLICY);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(kt_volume_open(root, NULL, "evil", NULL, &vol, &err), KT_E_POLICY);
	policy.allow_shared = true;
	assert_int_equal(kt_volume_open(root, NULL, "evil", &policy, &vol, &err), KT_OK);
	publish(&vol, GEN_A, "one");
	kt_volume_close(&vol);
	policy.allow_shared = false;
	if (geteuid() == 0) {
		assert_int_equal(chmod(path, 0755), 0);
		assert_int_equal(chown(path, 12345, 12345), 0);
		assert_int_equal(kt_volume_open(root, NULL, "evil", &policy, &vol, &err), KT_E_POLICY);
	}
	/* a path whose middle is a link */
	snprintf(path, sizeof(path), "%s/link", base);
	assert_int_equal(symlink("secrets", path), 0);
	snprintf(path, sizeof(path), "%s/link/mine", base);
	assert_int_not_equal(kt_volume_open_path(path, &policy, &vol, &err), KT_OK);
	assert_int_not_equal(stat(path, &st), 0);
	assert_int_equal(kt_volume_open_path("relative", &policy, &vol, &err), KT_E_INVALID);

	/* in the way of a link: a file, a fifo, a folder; ..data as a folder and as a file */
	open_web(&vol);
	publish(&vol, GEN_A, "one");
	make_set(bytes, files, "two");
	assert_int_equal(kt_volume_stage(&vol, GEN_B, files, 3, &err), KT_OK);
	assert_int_equal(unlinkat(vol.fd, "tls.key", 0), 0);
	assert_int_equal(mkfifoat(vol.fd, "tls.key", 0600), 0);
	assert_int_equal(kt_volume_switch(&vol, GEN_B, files, 3, NULL, &err), KT_E_POLICY);
	assert_non_null(strstr(err.what, "tls.key"));
	assert_true(serves(&vol, "one"));
	assert_int_equal(unlinkat(vol.fd, "tls.key", 0), 0);
	/* a link that leads elsewhere is ours to mend */
	assert_int_equal(symlinkat("/etc/passwd", vol.fd, "tls.key"), 0);
	assert_int_equal(kt_volume_switch(&vol, GEN_B, files, 3, NULL, &err), KT_OK);
	assert_serves(&vol, "two");
	assert_int_equal(unlinkat(vol.fd, "..data", 0), 0);
	assert_int_equal(mkdirat(vol.fd, "..data", 0700), 0);
	assert_int_equal(kt_volume_switch(&vol, GEN_B, files, 3, NULL, &err), KT_E_POLICY);
	assert_int_equal(kt_volume_retire(&vol, GEN_A, &err), KT_E_POLICY);
	assert_int_equal(kt_volume_cleanup(&vol, NULL, 0, NULL, &err), KT_E_POLICY);
	assert_true(kt_volume_has(&vol, GEN_A));
	assert_int_equal(unlinkat(vol.fd, "..data", AT_REMOVEDIR), 0);
	assert_int_equal(symlinkat("/etc", vol.fd, "..data"), 0);
	assert_int_equal(kt_volume_switch(&vol, GEN_B, files, 3, NULL, &err), KT_E_POLICY);
}

static void test_not_memory_backed(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_err err;
	char path[PATH_MAX + 16];

	(void)state;
	snprintf(path, sizeof(path), "/tmp/kt-volume-disk-%d", (int)getpid());
	policy.allow_persistent = false;
	if (kt_volume_open_path(path, &policy, &vol, &err) == KT_OK) {
		assert_true(kt_io_is_memory_backed(vol.fd));
		rmdir(path);
		skip();
	}
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(err.code, KT_E_POLICY);
	assert_non_null(strstr(err.what, "allowPersistent"));
}

static void test_umask(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	static const mode_t masks[] = {000, 077, 0777};
	struct stat st;
	mode_t before = umask(0);

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		char name[16], generation[KT_GENERATION_MAX];

		snprintf(name, sizeof(name), "umask-%zu", i);
		umask(masks[i] == 0777 && geteuid() != 0 ? 077 : masks[i]);
		assert_int_equal(kt_volume_open(root, NULL, name, NULL, &vol, NULL), KT_OK);
		publish(&vol, kt_volume_generation_name(1000, generation), "one");
		umask(before);
		assert_int_equal(fstat(vol.fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0755);
		assert_int_equal(fstatat(vol.fd, "tls.crt", &st, 0), 0);
		assert_int_equal(st.st_mode & 07777, 0644);
		assert_int_equal(fstatat(vol.fd, "tls.key", &st, 0), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		assert_int_equal(fstatat(vol.fd, "..data/certs", &st, 0), 0);
		assert_int_equal(st.st_mode & 07777, 0750);
		kt_volume_close(&vol);
	}
	umask(before);
}

static void test_owner(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_volume_file file = {.path = "f", .bytes = KT_VIEW_LIT("x"), .mode = 0440, .uid = 12345, .gid = 12346};
	struct kt_drift_report report;
	struct kt_err err;
	struct stat st;

	(void)state;
	if (geteuid() != 0)
		skip();
	policy.uid = 0;
	policy.gid = 12346;
	assert_int_equal(kt_volume_open(root, NULL, "owned", &policy, &vol, &err), KT_OK);
	assert_int_equal(kt_volume_stage(&vol, GEN_A, &file, 1, &err), KT_OK);
	assert_int_equal(kt_volume_switch(&vol, GEN_A, &file, 1, NULL, &err), KT_OK);
	assert_int_equal(fstatat(vol.fd, "f", &st, 0), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_gid, 12346);
	assert_int_equal(st.st_mode & 07777, 0440);
	assert_int_equal(fstatat(vol.fd, GEN_A, &st, 0), 0);
	assert_int_equal(st.st_gid, 12346);
	assert_int_equal(kt_volume_check(&vol, GEN_A, &file, 1, false, &report, &err), KT_OK);
	assert_int_equal(report.drift, 0);
	assert_int_equal(fchownat(vol.fd, "..data/f", 0, 12346, 0), 0);
	assert_int_equal(kt_volume_check(&vol, GEN_A, &file, 1, false, &report, &err), KT_OK);
	assert_int_equal(report.drift, KT_DRIFT_OWNER);
}

static void nap(void)
{
	/* Longer than the kernel's coarse clock, by which file times are kept. */
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static unsigned drift_of(struct kt_volume *vol, const struct kt_volume_file *files, bool deep)
{
	struct kt_drift_report report;
	struct kt_err err;

	if (kt_volume_check(vol, NULL, files, 3, deep, &report, &err) != KT_OK)
		fail_msg("%s", err.what);
	assert_true((report.drift == 0) == (report.text[0] == '\0'));
	return report.drift;
}

static void overwrite(struct kt_volume *vol, const char *path, const char *text)
{
	int fd = openat(vol->fd, path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void test_drift(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char bytes[3][32], served[KT_GENERATION_MAX], generation[KT_GENERATION_MAX];
	struct kt_volume_file files[3], blind[3];
	struct kt_drift_report report;
	struct kt_err err;
	kt_ms now = 1000;

	(void)state;
	open_web(&vol);
	make_set(bytes, files, "one");
	make_set(bytes, blind, "one");
	for (size_t i = 0; i < 3; i++)
		blind[i].bytes = (struct kt_view){NULL, 0};
	assert_int_equal(drift_of(&vol, files, false), KT_DRIFT_GONE);
	publish(&vol, GEN_A, "one");
	assert_int_equal(drift_of(&vol, files, false), 0);
	assert_int_equal(drift_of(&vol, files, true), 0);
	assert_int_equal(kt_volume_check(&vol, GEN_B, files, 3, false, &report, &err), KT_OK);
	assert_int_equal(report.drift, KT_DRIFT_GENERATION);
	nap();

	for (int what = 0; what < 7; what++) {
		static const unsigned expected[] = {KT_DRIFT_CONTENT, KT_DRIFT_CONTENT, KT_DRIFT_MISSING, KT_DRIFT_MODE,
		                                    KT_DRIFT_LINK,    KT_DRIFT_MISSING, KT_DRIFT_GONE};

		switch (what) {
		case 0: /* same length: only the time of change tells */
			overwrite(&vol, "tls.key", "eno 1");
			assert_int_equal(drift_of(&vol, blind, false), KT_DRIFT_TOUCHED);
			break;
		case 1:
			overwrite(&vol, "tls.key", "");
			break;
		case 2:
			assert_int_equal(unlinkat(vol.fd, "..data/certs/ca.crt", 0), 0);
			break;
		case 3:
			assert_int_equal(fchmodat(vol.fd, "..data/tls.key", 0644, 0), 0);
			break;
		case 4:
			assert_int_equal(unlinkat(vol.fd, "tls.crt", 0), 0);
			break;
		case 5: /* a second name for the key */
			assert_int_equal(linkat(vol.fd, "..data/tls.key", vol.fd, "stolen", 0), 0);
			break;
		case 6:
			assert_int_equal(kt_volume_current(&vol, served, &err), KT_OK);
			assert_int_equal(kt_io_remove_tree(vol.fd, served, &err), KT_OK);
			break;
		}
		assert_int_equal(drift_of(&vol, files, false) & ~(unsigned)KT_DRIFT_TOUCHED, expected[what]);
		kt_volume_generation_name(now += 1000, generation);
		if (kt_volume_heal(&vol, generation, files, 3, &report, served, &err) != KT_OK)
			fail_msg("%s", err.what);
		assert_int_equal(drift_of(&vol, files, true), 0);
		assert_serves(&vol, "one");
		assert_int_equal(strcmp(served, generation) == 0, what != 4);
		if (what == 5)
			unlinkat(vol.fd, "stolen", 0);
		nap();
	}
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

/* Reads key and certificate through one open of ..data until killed; exits with 1 on a mixture or a hole. */
static void read_forever(const struct kt_volume *vol)
{
	for (;;) {
		char crt[64] = "", key[64] = "";
		int dir = openat(vol->fd, "..data", O_RDONLY | O_DIRECTORY), fd;
		struct kt_volume view = {.fd = dir};

		if (dir < 0)
			_exit(2);
		read_under(&view, "tls.crt", crt);
		read_under(&view, "tls.key", key);
		close(dir);
		if (!*crt || strcspn(crt, " ") != strcspn(key, " ") || strncmp(crt, key, strcspn(crt, " ")) != 0)
			_exit(1);
		/* a stable link never misses */
		fd = openat(vol->fd, "tls.key", O_RDONLY);
		if (fd < 0)
			_exit(3);
		close(fd);
	}
}

static void test_reader(void **state)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	static char names[500][KT_GENERATION_MAX];
	char mark[16];
	int status = 0;
	pid_t pid;

	(void)state;
	open_web(&vol);
	publish(&vol, GEN_A, "0");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		read_forever(&vol);
	for (int i = 0; i < 500; i++) {
		snprintf(mark, sizeof(mark), "%d", i + 1);
		publish(&vol, kt_volume_generation_name(1000 + i, names[i]), mark);
		/* As in life an old generation outlives the switch for a while. */
		if (i >= 100)
			assert_int_equal(kt_volume_retire(&vol, names[i - 100], NULL), KT_OK);
	}
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void test_challenge(void **state)
{
	static const char *const bad[] = {"short", "../../../../etc/cron.d/x", "aaaaaaaaaaaaaaaa/b", "aaaaaaaaaaaaaaaa b",
	                                  "$(id)aaaaaaaaaaaaaaaaaaa", ""};
	static const char token[] = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
	char path[PATH_MAX + 128], got[64] = "";
	struct kt_err err;
	struct stat st;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(kt_challenge_write(base, bad[i], KT_VIEW_LIT("x"), &err), KT_E_PROTO);
	assert_int_equal(kt_challenge_remove(base, token, &err), KT_OK);
	umask(077);
	if (kt_challenge_write(base, token, KT_VIEW_LIT("token.thumbprint"), &err) != KT_OK)
		fail_msg("%s", err.what);
	umask(022);
	snprintf(path, sizeof(path), "%s/.well-known/acme-challenge/%s", base, token);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, got, sizeof(got) - 1), 16);
	assert_string_equal(got, "token.thumbprint");
	close(fd);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(kt_challenge_remove(base, token, &err), KT_OK);
	assert_int_equal(kt_challenge_remove(base, token, &err), KT_OK);
	assert_int_not_equal(stat(path, &st), 0);
	snprintf(path, sizeof(path), "%s/.well-known/acme-challenge", base);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("/tmp", path), 0);
	assert_int_equal(kt_challenge_write(base, token, KT_VIEW_LIT("x"), &err), KT_E_POLICY);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_layout),        CASE(test_names),       CASE(test_paths_refused),
	        CASE(test_switch_links),  CASE(test_restage),     CASE(test_withdraw_and_cleanup),
	        CASE(test_stale_tmp_does_not_block), CASE(test_hostile), CASE(test_not_memory_backed),
	        CASE(test_umask),         CASE(test_owner),       CASE(test_drift),
	        CASE(test_kill_memory),   CASE(test_kill_disk),   CASE(test_fail_everywhere),
	        CASE(test_reader),        CASE(test_challenge),
	};

	umask(022);
	return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
