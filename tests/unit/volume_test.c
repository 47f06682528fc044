/* Secret volumes: layout, idempotency, hostile neighbours, drift, readers; http-01 by webroot. */
#include <stdatomic.h>
#include <sys/mman.h>

#include "volume_helper.h"

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
	/* only a mount point may be shared, and this is none */
	policy.allow_shared = true;
	assert_int_equal(kt_volume_open(root, NULL, "evil", &policy, &vol, &err), KT_E_POLICY);
	assert_int_equal(kt_volume_open_path(path, &policy, &vol, &err), KT_E_POLICY);
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
	assert_non_null(strstr(err.what, "kind Agent"));
	assert_non_null(strstr(err.what, "spec.volumes[] of a Consumer"));
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

/* Reads key and certificate through one open of ..data until killed, and counts; exits with 1 on a mixture or a hole. */
static void read_forever(const struct kt_volume *vol, atomic_uint *turns)
{
	for (;; atomic_fetch_add(turns, 1)) {
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
	static unsigned begun[500]; /* turns of the reader when the generation was put in place */
	atomic_uint *turns = mmap(NULL, sizeof(*turns), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char mark[16];
	int status = 0, retired = 0;
	pid_t pid;

	(void)state;
	assert_ptr_not_equal(turns, MAP_FAILED);
	open_web(&vol);
	publish(&vol, GEN_A, "0");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		read_forever(&vol, turns);
	for (int i = 0; i < 500; i++) {
		snprintf(mark, sizeof(mark), "%d", i + 1);
		publish(&vol, kt_volume_generation_name(1000 + i, names[i]), mark);
		begun[i] = atomic_load(turns);
		/* An old generation outlives the switch until nobody can be within it any more: in life, a minute. */
		while (retired < i && atomic_load(turns) >= begun[retired + 1] + 2)
			assert_int_equal(kt_volume_retire(&vol, names[retired++], NULL), KT_OK);
	}
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	(void)munmap(turns, sizeof(*turns));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_layout),
	        CASE(test_names),
	        CASE(test_paths_refused),
	        CASE(test_switch_links),
	        CASE(test_restage),
	        CASE(test_withdraw_and_cleanup),
	        CASE(test_stale_tmp_does_not_block),
	        CASE(test_hostile),
	        CASE(test_not_memory_backed),
	        CASE(test_umask),
	        CASE(test_owner),
	        CASE(test_drift),
	        CASE(test_reader),
	        CASE(test_challenge),
	};

	umask(022);
	return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
