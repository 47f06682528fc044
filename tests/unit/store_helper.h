/* What the tests of store, keys and audit share: a state directory of their own, and short forms. */
#ifndef TESTS_UNIT_STORE_HELPER_H
#define TESTS_UNIT_STORE_HELPER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/audit/audit.h"
#include "keeper/keys/keys.h"
#include "keeper/store/store.h"
#include "keeper/store/store_internal.h"
#include "kt/io.h"
#include "kt/mem.h"
#include "kt/secret.h"

#define TRACE "0123456789abcdef0123456789abcdef"

struct place {
	char base[64];
	char state[80];
	char copy[80];
};

static inline int place_setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	if (place == NULL || kt_secret_init(NULL) != KT_OK)
		return -1;
	/* In memory where that is possible: thousands of databases are made, and none needs a disk. */
	(void)snprintf(place->base, sizeof(place->base), "%s/kt-store-test-XXXXXX",
	               faccessat(AT_FDCWD, "/dev/shm", W_OK, 0) == 0 ? "/dev/shm" : "/tmp");
	if (mkdtemp(place->base) == NULL)
		return -1;
	(void)snprintf(place->state, sizeof(place->state), "%s/state", place->base);
	(void)snprintf(place->copy, sizeof(place->copy), "%s/copy", place->base);
	*state = place;
	return 0;
}

static inline int place_teardown(void **state)
{
	struct place *place = *state;
	char *name = strrchr(place->base, '/') + 1;

	name[-1] = '\0';
	int fd = open(place->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	kt_mem_fail_after(-1, 0);
	enum kt_code code = kt_io_remove_tree(fd, name, NULL);
	(void)close(fd);
	free(place);
	return code == KT_OK ? 0 : -1;
}

/* A test in a place of its own. */
#define CASE(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

/* Fails the test with the error's own text. */
#define ok(call)                                                                                                    \
	do {                                                                                                         \
		kt_err_clear(&err);                                                                                  \
		enum kt_code code_ = (call);                                                                         \
		if (code_ != KT_OK)                                                                                  \
			fail_msg("%s: %s: %s", #call, kt_code_name(code_), err.what);                                \
	} while (0)
#define fails(wanted, call) assert_string_equal(kt_code_name(call), kt_code_name(wanted))

static inline struct kt_store *open_store(const char *dir)
{
	struct kt_store_open options = {.dir = dir, .socket_path = "/run/keyturn/control"};
	struct kt_store *store = NULL;
	struct kt_err err;

	ok(kt_store_open(&options, &store, &err));
	return store;
}

/* Adds one resource with a credential, in the caller's transaction and set. */
static inline int64_t put_resource(struct kt_store *store, const char *kind, const char *ns, const char *name,
                                   const char *spec, enum kt_store_change wanted)
{
	struct kt_store_resource resource = {.kind = kind,
	                                     .ns = ns,
	                                     .name = name,
	                                     .spec = kt_view_str(spec),
	                                     .request_key = "r1",
	                                     .file = "a.yaml",
	                                     .line = 7};
	struct kt_store_link link = {"issuer", ns, "Issuer/ca"};
	enum kt_store_change change;
	int64_t id = 0;
	struct kt_err err;

	ok(kt_store_set_put(store, &resource, &link, 1, &id, &change, &err));
	assert_int_equal(change, wanted);
	assert_true(id > 0);
	return id;
}

/* A set of `count` certificates c0, c1, ... with a credential each; ids from 1 in a fresh store. */
static inline void fill(struct kt_store *store, int count)
{
	struct kt_err err;
	int64_t generation;

	ok(kt_store_begin(store, &err));
	ok(kt_store_set_begin(store, &generation, &err));
	for (int i = 0; i < count; i++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "c%d", i);
		int64_t id = put_resource(store, "Certificate", "default", name, "{}", KT_STORE_ADDED);
		struct kt_store_cred cred = {.id = id, .secret_name = name, .due_at = 1000 + i, .trace_id = TRACE};
		ok(kt_store_cred_put(store, &cred, &err));
	}
	ok(kt_store_set_finish(store, NULL, NULL, &err));
	ok(kt_store_commit(store, &err));
}

static inline struct kt_audit_event event_of(const char *step, const char *outcome)
{
	return (struct kt_audit_event){.trace_id = TRACE,
	                               .actor = "agent",
	                               .kind = "Certificate",
	                               .ns = "default",
	                               .name = "c0",
	                               .step = step,
	                               .outcome = outcome};
}

/* Copies all files of a directory (no folders in it), replacing what is there. */
static inline void copy_dir(const char *from, const char *to)
{
	DIR *dir = opendir(from);
	struct dirent *entry;
	struct kt_err err;
	KT_AUTOCLOSE int to_fd = kt_io_open_dir_create(to, 0700, &err);

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		struct kt_buf data;
		if (entry->d_name[0] == '.')
			continue;
		kt_buf_init(&data, 64 << 20);
		ok(kt_io_read_file(dirfd(dir), entry->d_name, &data, &err));
		ok(kt_io_replace_file(to_fd, entry->d_name, data.ptr, data.len, 0600, (uid_t)-1, (gid_t)-1, false,
		                      &err));
		kt_buf_finish(&data);
	}
	(void)closedir(dir);
}

static inline void path_in(const char *dir, const char *name, char out[160])
{
	(void)snprintf(out, 160, "%s/%s", dir, name);
}

#endif
