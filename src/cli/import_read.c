/* import: reading files of a foreign folder, bounded, and never by a link that leads out of it. */
#include "cli/import.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"

#define DEPTH_MAX 8
#define FIND_MAX  2000u /* folders looked at in one walk */

/* RESOLVE_BENEATH: links are followed as long as they stay inside. -1 with errno. */
static int open_beneath(const struct kt_import *import, const char *file, int flags)
{
	/* With O_PATH openat2 refuses flags that are of no use. */
	struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | ((flags & O_PATH) != 0 ? 0 : O_NONBLOCK | O_NOCTTY)),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd = -1;

	for (int i = 0; i < 16; i++) {
		fd = syscall(SYS_openat2, import->dir, file, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
			break;
		}
	}
	return (int)fd;
}

enum kt_code kt_import_open(struct kt_import *import, const char *path, struct kt_err *err)
{
	char *full = realpath(path, NULL); /* what settings name by an absolute path is found in it again */

	import->path = full != NULL ? kt_strdup(full) : NULL;
	free(full);
	import->dir = import->path != NULL ? open(import->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	import->secrets = json_array();
	import->lost = json_array();
	import->notes = json_array();
	if (import->dir < 0) {
		enum kt_code code = errno == ENOENT ? KT_E_NOTFOUND : KT_E_SYS;

		(void)kt_err_sys(err, "the folder %s can't be read", path);
		err->code = code;
		return code;
	}
	return import->secrets != NULL && import->lost != NULL && import->notes != NULL
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOMEM, "no memory for an import");
}

static enum kt_code take(int fd, const char *name, struct kt_buf *out, struct kt_err *err)
{
	struct stat info;

	if (fd < 0) {
		enum kt_code code = errno == ENOENT || errno == ENOTDIR ? KT_E_NOTFOUND
				    : errno == EXDEV                    ? KT_E_POLICY
									: KT_E_SYS;

		if (code == KT_E_POLICY) {
			return kt_err_set(err, code, "%s: its link leads out of the folder", name);
		}
		(void)kt_err_sys(err, "%s can't be read", name);
		if (err != NULL) {
			err->code = code;
		}
		return code;
	}
	if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
		return kt_err_set(err, KT_E_INVALID, "%s is not a regular file", name);
	}
	return kt_io_read_fd(fd, name, out, err);
}

enum kt_code kt_import_file(const struct kt_import *import, const char *file, struct kt_buf *out, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = file != NULL ? open_beneath(import, file, O_RDONLY) : -1;

	return take(fd, file != NULL ? file : "?", out, err);
}

enum kt_code kt_import_elsewhere(const struct kt_import *import, const char *path, struct kt_buf *out,
				 struct kt_err *err)
{
	size_t len = strlen(import->path);
	KT_AUTOCLOSE int fd = -1;

	if (path[0] != '/') {
		return kt_import_file(import, path, out, err);
	}
	if (strncmp(path, import->path, len) == 0 && path[len] == '/') {
		return kt_import_file(import, path + len + 1, out, err);
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	return take(fd, path, out, err);
}

char *kt_import_text(const struct kt_import *import, const char *file, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	if (kt_import_file(import, file, &text, err) != KT_OK) {
		return NULL;
	}
	if (text.len == 0 || memchr(text.ptr, '\0', text.len) != NULL) {
		(void)kt_err_set(err, KT_E_INVALID, "%s is %s", file, text.len == 0 ? "empty" : "no text");
		return NULL;
	}
	return kt_buf_steal(&text, NULL);
}

enum kt_code kt_import_secret(const struct kt_import *import, const char *file, struct kt_secret **ret,
			      struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	code = kt_import_elsewhere(import, file, &text, err);
	if (code == KT_OK && (text.len == 0 || memchr(text.ptr, '\0', text.len) != NULL)) {
		code = kt_err_set(err, KT_E_INVALID, "%s is %s", file, text.len == 0 ? "empty" : "no text");
	}
	return code == KT_OK ? kt_secret_from_buf(&text, ret, err) : code;
}

enum kt_code kt_import_json(const struct kt_import *import, const char *file, json_t **ret, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	code = kt_import_file(import, file, &text, err);
	if (code == KT_OK) {
		code = kt_json_parse(kt_buf_view(&text), KT_IMPORT_FILE_MAX, ret, err);
	}
	if (code == KT_OK && !json_is_object(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		code = kt_err_set(err, KT_E_PROTO, "%s is not a JSON object", file);
	}
	return code;
}

bool kt_import_exists(const struct kt_import *import, const char *file)
{
	KT_AUTOCLOSE int fd = file != NULL ? open_beneath(import, file, O_PATH) : -1;

	return fd >= 0;
}

/* --- folders ----------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum kt_code read_names(DIR *dir, char **names, size_t *count, const char *folder, struct kt_err *err)
{
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.') {
			continue;
		}
		if (*count == KT_IMPORT_NAMES_MAX) {
			return kt_err_set(err, KT_E_LIMIT, "%s has more than %u entries", folder, KT_IMPORT_NAMES_MAX);
		}
		names[*count] = kt_strdup(entry->d_name);
		if (names[(*count)++] == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for the names in %s", folder);
		}
	}
	return KT_OK;
}

enum kt_code kt_import_list(const struct kt_import *import, const char *folder, json_t **ret, struct kt_err *err)
{
	int fd = folder != NULL ? open_beneath(import, folder, O_RDONLY | O_DIRECTORY) : -1;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char **names = kt_calloc(KT_IMPORT_NAMES_MAX, sizeof(*names));
	size_t count = 0;
	enum kt_code code = KT_OK;

	*ret = json_array();
	if (dir == NULL) {
		code = kt_err_set(err, errno == ENOENT || errno == ENOTDIR ? KT_E_NOTFOUND : KT_E_SYS,
				  "the folder %s can't be read: %s", folder != NULL ? folder : "?", strerror(errno));
		kt_cleanup_close(&fd);
	} else if (names == NULL || *ret == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for the names in %s", folder);
	} else {
		code = read_names(dir, names, &count, folder, err);
		qsort(names, count, sizeof(*names), by_name);
	}
	for (size_t i = 0; i < count; i++) {
		json_t *name = json_string(names[i]); /* NULL for what is not UTF-8: passed over */

		if (name != NULL) {
			(void)json_array_append_new(*ret, name);
		}
		kt_free(names[i]);
	}
	kt_free(names);
	if (dir != NULL) {
		(void)closedir(dir);
	}
	if (code != KT_OK) {
		json_decref(*ret);
		*ret = NULL;
	}
	return code;
}

char *kt_import_path(const char *first, ...)
{
	struct kt_buf path KT_AUTOBUF = {0};
	const char *part;
	va_list parts;

	kt_buf_init(&path, 4096);
	va_start(parts, first);
	for (part = first; part != NULL; part = va_arg(parts, const char *)) {
		kt_buf_addf(&path, "%s%s", path.len > 0 ? "/" : "", part);
	}
	va_end(parts);
	return kt_buf_check(&path, "path", NULL) == KT_OK ? kt_buf_steal(&path, NULL) : NULL;
}

struct walk {
	struct kt_import *import;
	const char *file;
	enum kt_code (*fn)(struct kt_import *import, const char *path, struct kt_err *err);
	unsigned seen;
};

static enum kt_code walk(struct walk *w, const char *folder, int depth, struct kt_err *err)
{
	char *file KT_AUTOFREE = kt_import_path(folder, w->file, NULL);
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code;

	if (depth > DEPTH_MAX || ++w->seen > FIND_MAX) {
		return KT_OK;
	}
	if (kt_import_exists(w->import, file)) {
		return w->fn(w->import, folder, err);
	}
	code = kt_import_list(w->import, folder, &names, err);
	if (code != KT_OK) { /* no folder, or one that leads away */
		kt_err_clear(err);
		return code == KT_E_NOMEM ? kt_err_set(err, KT_E_NOMEM, "no memory for an import") : KT_OK;
	}
	json_array_foreach(names, i, name)
	{
		char *below KT_AUTOFREE = kt_import_path(folder, json_string_value(name), NULL);

		code = below != NULL ? walk(w, below, depth + 1, err) : KT_OK;
		if (code != KT_OK) {
			return code;
		}
	}
	return KT_OK;
}

enum kt_code kt_import_find(struct kt_import *import, const char *folder, const char *file,
			    enum kt_code (*fn)(struct kt_import *import, const char *path, struct kt_err *err),
			    struct kt_err *err)
{
	struct walk w = {import, file, fn, 0};

	return walk(&w, folder, 0, err);
}
