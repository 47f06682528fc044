/* What the tests of volumes share: a place, sets of three files with one mark, and what is served. */
#ifndef TESTS_VOLUME_HELPER_H
#define TESTS_VOLUME_HELPER_H

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

#define MAYBE_UNUSED __attribute__((unused))

static char base[512];
static struct kt_volume_root *root;
static struct kt_volume_policy policy;

MAYBE_UNUSED static int setup(void **state)
{
	struct kt_err err;
	char path[PATH_MAX];

	(void)state;
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

MAYBE_UNUSED static int teardown(void **state)
{
	(void)state;
	kt_volume_root_destroy(root);
	root = NULL;
	return kt_io_remove_tree(AT_FDCWD, base, NULL) == KT_OK ? 0 : -1;
}

MAYBE_UNUSED static void open_web(struct kt_volume *vol)
{
	struct kt_err err;

	if (kt_volume_open(root, NULL, "web-tls", NULL, vol, &err) != KT_OK)
		fail_msg("%s", err.what);
}

/* Three files that all carry the same mark, so that a mixture shows. */
MAYBE_UNUSED static void make_set(char bytes[3][32], struct kt_volume_file files[3], const char *mark)
{
	static const char *const paths[] = {"tls.crt", "tls.key", "certs/ca.crt"};

	for (size_t i = 0; i < 3; i++) {
		snprintf(bytes[i], 32, "%s %zu", mark, i);
		files[i] = (struct kt_volume_file){.path = paths[i], .bytes = kt_view_str(bytes[i]),
		                                   .mode = i == 1 ? 0600 : 0644, .uid = KT_OWNER_KEEP,
		                                   .gid = (gid_t)KT_OWNER_KEEP};
	}
}

MAYBE_UNUSED static void read_under(const struct kt_volume *vol, const char *path, char out[64])
{
	int fd = openat(vol->fd, path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 63);

	out[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

/* What is served through the stable links is one whole set with this mark. */
MAYBE_UNUSED static void assert_serves(const struct kt_volume *vol, const char *mark)
{
	char bytes[3][32], got[64];
	struct kt_volume_file files[3];

	make_set(bytes, files, mark);
	for (size_t i = 0; i < 3; i++) {
		read_under(vol, files[i].path, got);
		assert_string_equal(got, bytes[i]);
	}
}

MAYBE_UNUSED static bool serves(const struct kt_volume *vol, const char *mark)
{
	char want[64], got[64];

	read_under(vol, "tls.crt", got);
	snprintf(want, sizeof(want), "%s 0", mark);
	return strcmp(got, want) == 0;
}

MAYBE_UNUSED static bool exists(const struct kt_volume *vol, const char *name)
{
	struct stat st;

	return fstatat(vol->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

MAYBE_UNUSED static void publish(struct kt_volume *vol, const char *generation, const char *mark)
{
	char bytes[3][32];
	struct kt_volume_file files[3];
	struct kt_err err;

	make_set(bytes, files, mark);
	if (kt_volume_stage(vol, generation, files, 3, &err) != KT_OK ||
	    kt_volume_switch(vol, generation, files, 3, NULL, &err) != KT_OK)
		fail_msg("%s", err.what);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
