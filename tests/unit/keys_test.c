/* The master key: sources, sealing bound to its row, wrong keys, and replacement that survives kill -9 and no memory. */
#include "store_helper.h"

#include <signal.h>
#include <sys/wait.h>

static const struct kt_seal_id some_id = {"material", "Certificate", "default", "c0", "key", 1};

static struct kt_keys *open_keys(struct kt_store *store, bool *created)
{
	struct kt_secret *master = NULL;
	struct kt_keys *keys = NULL;
	struct kt_err err;

	ok(kt_keys_from_file(store, NULL, true, &master, created, &err));
	ok(kt_keys_open(store, master, &keys, &err));
	kt_secret_destroy(master);
	return keys;
}

static void test_parse(void **state)
{
	struct kt_secret *key = NULL;
	struct kt_err err;
	const char hex[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

	(void)state;
	ok(kt_keys_parse(kt_view_str(hex), &key, &err));
	assert_int_equal(kt_secret_len(key), 32);
	assert_int_equal(kt_secret_view(key).ptr[31], 0x1f);
	kt_secret_destroy(key);
	ok(kt_keys_parse((struct kt_view){hex, 32}, &key, &err));
	kt_secret_destroy(key);
	fails(KT_E_INVALID, kt_keys_parse((struct kt_view){hex, 63}, &key, &err));
	assert_null(strstr(err.what, "00010203"));
	fails(KT_E_INVALID, kt_keys_parse(KT_VIEW_LIT(""), &key, &err));
	fails(KT_E_INVALID, kt_keys_parse(KT_VIEW_LIT("zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"
	                                              "1f"),
	                                  &key, &err));
}

static void test_systemd(void **state)
{
	struct place *place = *state;
	struct kt_secret *key = NULL;
	struct kt_err err;
	int fd = open(place->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)unsetenv("CREDENTIALS_DIRECTORY");
	fails(KT_E_NOTFOUND, kt_keys_from_systemd(&key, &err));
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", place->base, 1), 0);
	fails(KT_E_NOTFOUND, kt_keys_from_systemd(&key, &err));
	ok(kt_io_replace_file(fd, "keyturn-master-key", "0123456789abcdef0123456789abcdef", 32, 0400, (uid_t)-1,
	                      (gid_t)-1, false, &err));
	ok(kt_keys_from_systemd(&key, &err));
	kt_secret_destroy(key);
	(void)close(fd);
	(void)unsetenv("CREDENTIALS_DIRECTORY");
}

static void test_seal(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	bool created;
	struct kt_keys *keys = open_keys(store, &created);
	struct kt_secret *plain = NULL;
	struct kt_buf blob;
	struct kt_buf again;
	struct kt_err err;

	assert_true(created);
	kt_buf_init(&blob, 4096);
	kt_buf_init(&again, 4096);
	ok(kt_keys_seal(keys, &some_id, KT_VIEW_LIT("canary"), &blob, &err));
	ok(kt_keys_seal(keys, &some_id, KT_VIEW_LIT("canary"), &again, &err));
	assert_int_equal(blob.len, 6 + KT_KEYS_OVERHEAD);
	assert_memory_not_equal(blob.ptr + 2, again.ptr + 2, 24);
	ok(kt_keys_unseal(keys, &some_id, kt_buf_view(&blob), &plain, &err));
	assert_true(kt_view_eq_str(kt_secret_view(plain), "canary"));
	kt_secret_destroy(plain);
	/* Not one field of the identity may differ. */
	const struct kt_seal_id others[] = {
	        {"account", "Certificate", "default", "c0", "key", 1}, {"material", "Token", "default", "c0", "key", 1},
	        {"material", "Certificate", "other", "c0", "key", 1},  {"material", "Certificate", "default", "c1", "key", 1},
	        {"material", "Certificate", "default", "c0", "token", 1},
	        {"material", "Certificate", "default", "c0", "key", 2},
	        {"material", "Certificate", "defaultc", "0", "key", 1},
	};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		fails(KT_E_CRYPTO, kt_keys_unseal(keys, &others[i], kt_buf_view(&blob), &plain, &err));
	for (size_t i = 0; i < blob.len * 8; i++) {
		blob.ptr[i / 8] ^= (char)(1 << (i % 8));
		fails(KT_E_CRYPTO, kt_keys_unseal(keys, &some_id, kt_buf_view(&blob), &plain, &err));
		blob.ptr[i / 8] ^= (char)(1 << (i % 8));
	}
	for (size_t len = 1; len < blob.len; len++)
		fails(KT_E_CRYPTO, kt_keys_unseal(keys, &some_id, (struct kt_view){blob.ptr, len}, &plain, &err));
	fails(KT_E_NOTFOUND, kt_keys_unseal(keys, &some_id, KT_VIEW_LIT(""), &plain, &err));
	char *name = calloc(1, 4000);
	memset(name, 'n', 3999);
	struct kt_seal_id longest = some_id;
	longest.name = name;
	fails(KT_E_LIMIT, kt_keys_seal(keys, &longest, KT_VIEW_LIT("x"), &blob, &err));
	free(name);
	kt_buf_finish(&blob);
	kt_buf_finish(&again);
	kt_keys_destroy(keys);
	kt_keys_destroy(NULL);
	kt_store_close(store);
}

static void test_wrong_key(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_secret *wrong = NULL;
	struct kt_secret *right = NULL;
	struct kt_keys *keys;
	struct kt_err err;
	bool created;
	char path[160];

	kt_keys_destroy(open_keys(store, &created));
	kt_keys_destroy(open_keys(store, &created));
	assert_false(created);
	ok(kt_secret_create("0123456789abcdef0123456789abcdef", 32, &wrong, &err));
	fails(KT_E_CRYPTO, kt_keys_open(store, wrong, &keys, &err));
	assert_null(keys);
	assert_non_null(strstr(err.what, place->state));
	assert_null(strstr(err.what, "0123456789"));
	kt_secret_destroy(wrong);
	ok(kt_secret_create("short", 5, &wrong, &err));
	fails(KT_E_INVALID, kt_keys_open(store, wrong, &keys, &err));
	kt_secret_destroy(wrong);
	/* The file is gone: a fresh key would be a wrong one. */
	path_in(place->state, "master-key", path);
	assert_int_equal(unlink(path), 0);
	fails(KT_E_NOTFOUND, kt_keys_from_file(store, NULL, true, &right, &created, &err));
	assert_non_null(strstr(err.what, "put it back"));
	assert_int_equal(faccessat(AT_FDCWD, path, F_OK, 0), -1);
	kt_store_close(store);
}

static void test_file_of_others(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	struct kt_secret *key = NULL;
	struct kt_err err;
	struct stat st;
	bool created;
	char path[160];

	fails(KT_E_NOTFOUND, kt_keys_from_file(store, NULL, false, &key, &created, &err));
	kt_keys_destroy(open_keys(store, &created));
	path_in(place->state, "master-key", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(chmod(path, 0640), 0);
	fails(KT_E_POLICY, kt_keys_from_file(store, NULL, true, &key, &created, &err));
	assert_int_equal(chmod(path, 0600), 0);
	kt_store_close(store);
}

/* ---- replacing --------------------------------------------------------------------------------------------------------- */

static void seal_into(const struct kt_keys *keys, struct kt_seal_id id, const char *text, struct kt_buf *out)
{
	struct kt_err err;

	kt_buf_reset(out);
	ok(kt_keys_seal(keys, &id, kt_view_str(text), out, &err));
}

/* One of everything that is sealed, and some materials. */
static void seal_some(struct kt_store *store, struct kt_keys *keys, int materials)
{
	struct kt_store_resource resource = {.kind = "Certificate", .ns = "default", .name = "c0"};
	struct kt_buf blob;
	struct kt_buf token;
	struct kt_err err;

	kt_buf_init(&blob, 4096);
	kt_buf_init(&token, 4096);
	fill(store, 1);
	ok(kt_store_begin(store, &err));
	for (int i = 1; i <= materials; i++) {
		seal_into(keys, kt_store_material_seal_id(&resource, i, "key"), "private", &blob);
		seal_into(keys, kt_store_material_seal_id(&resource, i, "token"), "bearer", &token);
		struct kt_store_material material = {.credential = 1,
		                                     .revision = i,
		                                     .sealed_key = kt_buf_view(&blob),
		                                     .sealed_token = i % 2 ? kt_buf_view(&token) : KT_VIEW_LIT("")};
		ok(kt_store_material_insert(store, &material, &err));
	}
	seal_into(keys, kt_store_account_seal_id("le", "https://ca"), "account", &blob);
	struct kt_store_account account = {
	        .issuer = "le", .server_url = "https://ca", .sealed_key = kt_buf_view(&blob)};
	ok(kt_store_account_put(store, &account, &err));
	seal_into(keys, kt_store_secret_seal_id("default", "okta", "pw"), "secret", &blob);
	struct kt_store_secret secret = {.ns = "default", .name = "okta", .key = "pw", .sealed = kt_buf_view(&blob)};
	ok(kt_store_secret_put(store, &secret, &err));
	seal_into(keys, kt_store_issuer_key_seal_id("T", "k1"), "signing", &blob);
	struct kt_store_issuer_key key = {.issuer = "T", .kid = "k1", .sealed_key = kt_buf_view(&blob),
	                                  .public_jwk = KT_VIEW_LIT("{}")};
	ok(kt_store_issuer_key_put(store, &key, &err));
	ok(kt_store_commit(store, &err));
	kt_buf_finish(&blob);
	kt_buf_finish(&token);
}

static void expect(struct kt_keys *keys, struct kt_seal_id id, struct kt_view blob, const char *text)
{
	struct kt_secret *plain = NULL;
	struct kt_err err;

	ok(kt_keys_unseal(keys, &id, blob, &plain, &err));
	assert_true(kt_view_eq_str(kt_secret_view(plain), text));
	kt_secret_destroy(plain);
}

struct opened {
	struct kt_keys *keys;
	int count;
};

static bool expect_material(const struct kt_store_material *material, void *arg)
{
	struct kt_store_resource resource = {.kind = "Certificate", .ns = "default", .name = "c0"};
	struct opened *opened = arg;

	expect(opened->keys, kt_store_material_seal_id(&resource, material->revision, "key"), material->sealed_key,
	       "private");
	assert_int_equal(material->sealed_token.len != 0, material->revision % 2);
	if (material->sealed_token.len != 0)
		expect(opened->keys, kt_store_material_seal_id(&resource, material->revision, "token"),
		       material->sealed_token, "bearer");
	opened->count++;
	return true;
}

static bool expect_issuer_key(const struct kt_store_issuer_key *key, void *arg)
{
	expect(arg, kt_store_issuer_key_seal_id("T", "k1"), key->sealed_key, "signing");
	return true;
}

static void open_some(struct kt_store *store, struct kt_keys *keys, int materials)
{
	struct kt_store_account account;
	struct kt_store_secret secret;
	struct opened opened = {keys, 0};
	struct kt_err err;

	ok(kt_store_material_each(store, 1, 100000, expect_material, &opened, &err));
	assert_int_equal(opened.count, materials);
	ok(kt_store_account_get(store, "le", "https://ca", &account, &err));
	expect(keys, kt_store_account_seal_id("le", "https://ca"), account.sealed_key, "account");
	kt_store_account_finish(&account);
	ok(kt_store_secret_get(store, "default", "okta", "pw", &secret, &err));
	expect(keys, kt_store_secret_seal_id("default", "okta", "pw"), secret.sealed, "secret");
	kt_store_secret_finish(&secret);
	ok(kt_store_issuer_key_each(store, "T", expect_issuer_key, keys, &err));
}

static void test_rotate(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	bool created;
	struct kt_keys *keys = open_keys(store, &created);
	struct kt_secret *old = NULL;
	uint64_t count;
	struct kt_err err;

	seal_some(store, keys, 10);
	ok(kt_keys_from_file(store, NULL, false, &old, &created, &err));
	ok(kt_keys_rotate_file(store, keys, NULL, &count, &err));
	assert_int_equal(count, 10 + 5 + 3);
	assert_int_equal(kt_keys_version(keys), 2);
	open_some(store, keys, 10);
	kt_keys_destroy(keys);
	fails(KT_E_CRYPTO, kt_keys_open(store, old, &keys, &err));
	kt_secret_destroy(old);
	kt_store_close(store);
	store = open_store(place->state);
	keys = open_keys(store, &created);
	open_some(store, keys, 10);
	kt_keys_destroy(keys);
	kt_store_close(store);
}

/* Killed anywhere while keys are replaced again and again: the store opens under the file that is there. */
static void test_rotate_killed(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	bool created;
	struct kt_keys *keys = open_keys(store, &created);
	unsigned first = kt_keys_version(keys);
	char path[160];

	path_in(place->state, "master-key.new", path);
	seal_some(store, keys, 200);
	kt_keys_destroy(keys);
	kt_store_close(store);
	for (int round = 0; round < 30; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct kt_err err;
			store = open_store(place->state);
			keys = open_keys(store, &created);
			while (kt_keys_rotate_file(store, keys, NULL, NULL, &err) == KT_OK)
				continue;
			_exit(1);
		}
		(void)usleep((useconds_t)(1500 + round * 911));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		store = open_store(place->state);
		keys = open_keys(store, &created);
		assert_false(created);
		open_some(store, keys, 200);
		assert_int_equal(faccessat(AT_FDCWD, path, F_OK, 0), -1);
		first |= kt_keys_version(keys) > 1;
		kt_keys_destroy(keys);
		kt_store_close(store);
	}
	assert_true(first);
}

static void test_rotate_without_memory(void **state)
{
	struct place *place = *state;
	struct kt_store *store = open_store(place->state);
	bool created;
	struct kt_keys *keys = open_keys(store, &created);
	int64_t total;
	unsigned failed = 0;
	struct kt_err err;

	seal_some(store, keys, 3);
	uint64_t before = kt_mem_count();
	ok(kt_keys_rotate_file(store, keys, NULL, NULL, &err));
	total = (int64_t)(kt_mem_count() - before) + 200; /* statements that are prepared anew */
	kt_keys_destroy(keys);
	kt_store_close(store);
	for (int64_t n = 0; n < total; n++) {
		store = open_store(place->state);
		keys = open_keys(store, &created);
		kt_mem_fail_after(n, 0);
		enum kt_code code = kt_keys_rotate_file(store, keys, NULL, NULL, &err);
		kt_mem_fail_after(-1, 0);
		if (code != KT_OK)
			assert_int_equal(code, KT_E_NOMEM);
		failed += code != KT_OK;
		open_some(store, keys, 3); /* whichever key it is: this one opens everything */
		kt_keys_destroy(keys);
		kt_store_close(store);
		store = open_store(place->state);
		keys = open_keys(store, &created);
		open_some(store, keys, 3);
		kt_keys_destroy(keys);
		kt_store_close(store);
	}
	assert_true(failed > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_parse),          CASE(test_systemd), CASE(test_seal),          CASE(test_wrong_key),
	        CASE(test_file_of_others), CASE(test_rotate),  CASE(test_rotate_killed), CASE(test_rotate_without_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
