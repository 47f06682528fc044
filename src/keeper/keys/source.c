/* Where the master key comes from: a systemd credential, a file, or bytes that a command printed. */
#include "keeper/keys/keys_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

enum { FILE_MAX = 4096 };
#define CREDENTIAL   "keyturn-master-key"
#define DEFAULT_FILE "master-key"

enum kt_code kt_keys_parse(struct kt_view text, struct kt_secret **ret, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf bytes = {0};
	struct kt_view hex = text;

	*ret = NULL;
	kt_buf_init(&bytes, KT_KEYS_MASTER_LEN);
	if (text.len == KT_KEYS_MASTER_LEN)
		return kt_secret_create(text.ptr, text.len, ret, err);
	if (hex.len != 0 && hex.ptr[hex.len - 1] == '\n')
		hex.len--;
	if (hex.len != 2 * KT_KEYS_MASTER_LEN || kt_hex_decode(hex, &bytes, NULL) != KT_OK)
		return kt_err_set(err, KT_E_INVALID,
		                  "a master key is %d bytes, or %d hex digits and perhaps a newline; these are %zu bytes",
		                  KT_KEYS_MASTER_LEN, 2 * KT_KEYS_MASTER_LEN, text.len);
	return kt_secret_from_buf(&bytes, ret, err);
}

enum kt_code kt_keys_from_systemd(struct kt_secret **ret, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf text = {0};
	const char *dir = getenv("CREDENTIALS_DIRECTORY");

	*ret = NULL;
	kt_buf_init(&text, FILE_MAX);
	if (dir == NULL || dir[0] != '/')
		return kt_err_set(err, KT_E_NOTFOUND, "no systemd credentials were passed");
	KT_AUTOFREE char *path = kt_asprintf("%s/" CREDENTIAL, dir);
	if (path == NULL)
		return kt_err_set(err, KT_E_NOMEM, "read the master key: out of memory");
	KT_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return kt_err_set(err, KT_E_NOTFOUND, "no systemd credential " CREDENTIAL " was passed");
	if (fd < 0)
		return kt_err_sys(err, "%s", path);
	enum kt_code code = kt_io_read_fd(fd, path, &text, err);
	if (code == KT_OK)
		code = kt_keys_parse(kt_buf_view(&text), ret, err);
	if (code == KT_E_INVALID && err != NULL)
		kt_err_prefix(err, "%s", path);
	return code;
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

/* A key file by its folder and name; its replacement is <name>.new beside it. */
struct key_file {
	int dir_fd;
	char *path;
	const char *name; /* within path */
	char *new_name;
};

static void key_file_finish(struct key_file *file)
{
	kt_cleanup_close(&file->dir_fd);
	kt_free(file->path);
	kt_free(file->new_name);
}
#define AUTOFILE __attribute__((cleanup(key_file_finish)))

static enum kt_code key_file_init(struct key_file *file, struct kt_store *store, const char *path, struct kt_err *err)
{
	*file = (struct key_file){.dir_fd = -1};
	file->path = path != NULL ? kt_strdup(path) : kt_asprintf("%s/" DEFAULT_FILE, kt_store_dir(store));
	if (file->path == NULL)
		return kt_err_set(err, KT_E_NOMEM, "find the master key: out of memory");
	char *slash = strrchr(file->path, '/');
	file->name = slash != NULL ? slash + 1 : file->path;
	if (file->name[0] == '\0')
		return kt_err_set(err, KT_E_INVALID, "%s is no name for a master key file", file->path);
	file->new_name = kt_asprintf("%s.new", file->name);
	KT_AUTOFREE char *dir = slash == NULL           ? kt_strdup(".")
	                        : slash == file->path ? kt_strdup("/")
	                                              : kt_strndup(file->path, (size_t)(slash - file->path));
	if (file->new_name == NULL || dir == NULL)
		return kt_err_set(err, KT_E_NOMEM, "find the master key: out of memory");
	file->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file->dir_fd < 0)
		return kt_err_sys(err, "%s", dir);
	return KT_OK;
}

/* KT_E_NOTFOUND when it is absent, KT_E_POLICY when others may read or write it. */
static enum kt_code read_key(const struct key_file *file, const char *name, struct kt_secret **ret,
                             struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf text = {0};
	struct stat st;
	KT_AUTOCLOSE int fd = openat(file->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);

	*ret = NULL;
	kt_buf_init(&text, FILE_MAX);
	if (fd < 0 && errno == ENOENT)
		return kt_err_set(err, KT_E_NOTFOUND, "there is no master key file %s", file->path);
	if (fd < 0 || fstat(fd, &st) != 0)
		return kt_err_sys(err, "%s", file->path);
	if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 077) != 0)
		return kt_err_set(err, KT_E_POLICY,
		                  "%s must be a plain file that belongs to the agent's user and that nobody else may "
		                  "read (chmod 600)",
		                  file->path);
	enum kt_code code = kt_io_read_fd(fd, file->path, &text, err);
	if (code == KT_OK)
		code = kt_keys_parse(kt_buf_view(&text), ret, err);
	if (code == KT_E_INVALID && err != NULL)
		kt_err_prefix(err, "%s", file->path);
	return code;
}

/* A fresh key under `name`, on disk before this returns. */
static enum kt_code write_key(const struct key_file *file, const char *name, struct kt_secret **ret,
                              struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf text = {0};
	enum kt_code code = kt_secret_alloc(KT_KEYS_MASTER_LEN, ret, err);

	kt_buf_init(&text, 2 * KT_KEYS_MASTER_LEN + 1);
	if (code != KT_OK)
		return code;
	kt_rand_bytes(kt_secret_edit(*ret), KT_KEYS_MASTER_LEN);
	kt_hex_encode(&text, kt_secret_view(*ret).ptr, KT_KEYS_MASTER_LEN);
	kt_buf_addc(&text, '\n');
	code = kt_buf_check(&text, "the master key", err);
	if (code == KT_OK)
		code = kt_io_replace_file(file->dir_fd, name, text.ptr, text.len, 0600, (uid_t)-1, (gid_t)-1, true,
		                          err);
	if (code != KT_OK) {
		kt_secret_destroy(*ret);
		*ret = NULL;
	}
	return code;
}

static enum kt_code put_in_place(const struct key_file *file, struct kt_err *err)
{
	if (renameat(file->dir_fd, file->new_name, file->dir_fd, file->name) != 0 || fsync(file->dir_fd) != 0)
		return kt_err_sys(err, "put the new master key in place of %s", file->path);
	return KT_OK;
}

/*
 * After an interrupted replacement there are two files, and the store answers to one of them. The store is asked,
 * not the times: its transaction is what decides.
 */
static enum kt_code settle(struct kt_store *store, const struct key_file *file, struct kt_secret **ret,
                           struct kt_err *err)
{
	KT_AUTOSECRET struct kt_secret *fresh = NULL;
	enum kt_code code = read_key(file, file->new_name, &fresh, err);

	if (code == KT_E_NOTFOUND)
		return KT_OK;
	if (code != KT_OK)
		return code;
	code = kt_keys_try(store, fresh, err);
	if (code == KT_OK) {
		if (!kt_store_is_read_only(store) && (code = put_in_place(file, err)) != KT_OK)
			return code;
		kt_secret_destroy(*ret);
		*ret = fresh;
		fresh = NULL;
		return KT_OK;
	}
	if (code != KT_E_CRYPTO && code != KT_E_NOTFOUND)
		return code;
	if (*ret != NULL && kt_keys_try(store, *ret, err) == KT_OK && !kt_store_is_read_only(store) &&
	    unlinkat(file->dir_fd, file->new_name, 0) != 0 && errno != ENOENT)
		return kt_err_sys(err, "remove %s.new", file->path);
	return KT_OK;
}

enum kt_code kt_keys_from_file(struct kt_store *store, const char *path, bool create, struct kt_secret **ret,
                               bool *ret_created, struct kt_err *err)
{
	AUTOFILE struct key_file file;
	struct kt_err local;
	struct kt_buf check;

	if (err == NULL)
		err = &local;
	*ret = NULL;
	*ret_created = false;
	enum kt_code code = key_file_init(&file, store, path, err);
	if (code != KT_OK)
		return code;
	code = read_key(&file, file.name, ret, err);
	if (code != KT_OK && code != KT_E_NOTFOUND)
		return code;
	if ((code = settle(store, &file, ret, err)) != KT_OK) {
		kt_secret_destroy(*ret);
		*ret = NULL;
		return code;
	}
	if (*ret != NULL) {
		kt_err_clear(err);
		return KT_OK;
	}
	kt_buf_init(&check, 4096);
	code = kt_store_meta_get(store, "kt.key_check", &check, err);
	kt_buf_finish(&check);
	if (code == KT_OK)
		return kt_err_set(err, KT_E_NOTFOUND,
		                  "%s is missing, and the state in %s is sealed under the key in it: put it back",
		                  file.path, kt_store_dir(store));
	if (code != KT_E_NOTFOUND)
		return code;
	if (!create)
		return kt_err_set(err, KT_E_NOTFOUND, "there is no master key file %s", file.path);
	kt_err_clear(err);
	code = write_key(&file, file.name, ret, err);
	*ret_created = code == KT_OK;
	return code;
}

enum kt_code kt_keys_rotate_file(struct kt_store *store, struct kt_keys *keys, const char *path, uint64_t *ret_count,
                                 struct kt_err *err)
{
	AUTOFILE struct key_file file;
	KT_AUTOSECRET struct kt_secret *fresh = NULL;
	enum kt_code code = key_file_init(&file, store, path, err);

	if (code != KT_OK || (code = write_key(&file, file.new_name, &fresh, err)) != KT_OK)
		return code;
	if ((code = kt_keys_rotate(store, keys, fresh, ret_count, err)) != KT_OK) {
		/* A commit whose answer was an error may still have happened: only a key that the store refuses goes. */
		if (kt_keys_try(store, fresh, NULL) == KT_E_CRYPTO)
			(void)unlinkat(file.dir_fd, file.new_name, 0);
		return code;
	}
	return put_in_place(&file, err);
}
