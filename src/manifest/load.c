/* Finds manifest files, puts them into one bundle, reads a bundle, and the checks that look at this machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/manifest.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/node.h"

#define MAGIC      "KTB1"
#define FOLDER_MAX 100000u /* files of one folder */

/* --- the bundle -----------------------------------------------------------------------------------------------------
 */

static size_t get_u32(const char *at)
{
	const unsigned char *bytes = (const unsigned char *)at;

	return (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
}

void kt_bundle_begin(struct kt_buf *bundle)
{
	kt_buf_add(bundle, MAGIC, 4);
}

void kt_bundle_add(struct kt_buf *bundle, const char *path, struct kt_view content)
{
	size_t len = strlen(path);

	kt_buf_add_u32(bundle, (uint32_t)len);
	kt_buf_add_u32(bundle, (uint32_t)content.len);
	kt_buf_add(bundle, path, len + 1);
	kt_buf_addv(bundle, content);
}

enum kt_code kt_bundle_next(struct kt_view bundle, size_t *offset, struct kt_view *ret_path,
			    struct kt_view *ret_content, struct kt_err *err)
{
	size_t path, content, left;

	if (!*offset) {
		if (bundle.len < 4 || memcmp(bundle.ptr, MAGIC, 4) != 0)
			return kt_err_set(err, KT_E_CORRUPT, "not a bundle of manifests");
		*offset = 4;
	}
	if (*offset == bundle.len)
		return KT_E_NOTFOUND;
	left = *offset < bundle.len ? bundle.len - *offset : 0;
	if (left < 8)
		return kt_err_set(err, KT_E_CORRUPT, "the bundle of manifests is cut off");
	path = get_u32(bundle.ptr + *offset);
	content = get_u32(bundle.ptr + *offset + 4);
	left -= 8;
	if (path + 1 > left || content > left - path - 1 || bundle.ptr[*offset + 8 + path])
		return kt_err_set(err, KT_E_CORRUPT, "the bundle of manifests is cut off");
	*ret_path = (struct kt_view){bundle.ptr + *offset + 8, path};
	*ret_content = (struct kt_view){bundle.ptr + *offset + 8 + path + 1, content};
	*offset += 8 + path + 1 + content;
	return KT_OK;
}

struct adding {
	struct kt_set *set;
	kt_manifest_fn *on_resource;
	void *arg;
	struct kt_report *report;
};

static enum kt_code add_to_set(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	const struct adding *a = arg;
	enum kt_code code = a->set ? kt_set_add(a->set, resource, a->report, err) : KT_OK;

	if (code == KT_OK && a->on_resource)
		return a->on_resource(a->arg, resource, err);
	kt_resource_destroy(resource);
	return code;
}

enum kt_code kt_manifest_read_bundle(struct kt_view bundle, struct kt_set *set, kt_manifest_fn *on_resource, void *arg,
				     struct kt_report *report, struct kt_err *err)
{
	struct adding a = {.set = set, .on_resource = on_resource, .arg = arg, .report = report};
	struct kt_view path, content;
	size_t offset = 0;
	enum kt_code code;

	while ((code = kt_bundle_next(bundle, &offset, &path, &content, err)) == KT_OK) {
		code = kt_manifest_read(content, path.ptr, add_to_set, &a, report, err);
		if (code != KT_OK)
			return code;
	}
	if (code != KT_E_NOTFOUND)
		return code;
	return set ? kt_set_check(set, report, err) : KT_OK;
}

/* --- files -----------------------------------------------------------------------------------------------------------
 */

struct loading {
	const struct kt_load_options *options;
	struct kt_buf *bundle;
	struct kt_report *report;
	size_t total;
};

static void complain(struct loading *l, const char *path, const char *what)
{
	kt_report_add(l->report, KT_COMPLAINT_ERROR, path, 0, "%s", what);
}

/* The complaint begins with the path: what repeats it there is left out. */
static void complain_why(struct loading *l, const char *path, const char *what)
{
	size_t len = strlen(path);
	bool again = strncmp(what, path, len) == 0 && (what[len] == ' ' || what[len] == ':');

	complain(l, path, again ? what + len + (what[len] == ':' ? 2 : 1) : what);
}

static enum kt_code load_file(struct loading *l, const char *path, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf content = {0};
	struct kt_err why = {0};
	enum kt_code code;

	kt_buf_init(&content, KT_MANIFEST_FILE_MAX);
	if (l->options->check_trust && kt_io_check_trusted_in_pod(path, l->options->uid, l->options->in_pod ? KT_TRUST_READ_ONLY : 0,
							      &why) != KT_OK) {
		complain_why(l, path, why.what);
		return KT_OK;
	}
	code = kt_io_read_file(AT_FDCWD, path, &content, &why);
	if (code == KT_E_NOMEM)
		return kt_err_set(err, code, "%s: out of memory", path);
	if (code != KT_OK) {
		complain_why(l, path, code == KT_E_LIMIT ? "the file is larger than 64 MiB; split it" : why.what);
		return KT_OK;
	}
	l->total += content.len;
	if (l->total > KT_MANIFEST_TOTAL_MAX) {
		complain(l, path, "the manifests are larger than 1 GiB together");
		return KT_OK;
	}
	kt_bundle_add(l->bundle, path, kt_buf_view(&content));
	return kt_buf_check(l->bundle, "the bundle of manifests", err);
}

static bool is_manifest(const char *name)
{
	return name[0] != '.' &&
	       (kt_ends_with(name, ".yaml") || kt_ends_with(name, ".yml") || kt_ends_with(name, ".json"));
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
	char **items;
	size_t count;
};

static bool add_name(struct names *names, const char *name)
{
	if (!(names->count & (names->count - 1))) {
		size_t cap = names->count ? names->count * 2 : 1;
		char **items = kt_realloc(names->items, cap * sizeof(*items));

		if (!items)
			return false;
		names->items = items;
	}
	names->items[names->count] = kt_strdup(name);
	return names->items[names->count++] != NULL;
}

static enum kt_code list_folder(struct loading *l, const char *path, struct names *names, struct kt_err *err)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	enum kt_code code = KT_OK;

	if (!folder) {
		if (errno != ENOENT || !l->options->missing_is_ok) {
			struct kt_err why = {0};

			(void)kt_err_sys(&why, "the folder can't be read");
			complain(l, path, why.what);
		}
		return KT_OK;
	}
	while (code == KT_OK && (entry = readdir(folder))) {
		if (!is_manifest(entry->d_name))
			continue;
		if (names->count >= FOLDER_MAX) {
			complain(l, path, "the folder has more than 100,000 manifests; put several into one file");
			break;
		}
		if (!add_name(names, entry->d_name))
			code = kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
	}
	(void)closedir(folder);
	return code;
}

static enum kt_code load_folder(struct loading *l, const char *path, struct kt_err *err)
{
	struct names names = {0};
	size_t len = strlen(path);
	enum kt_code code = list_folder(l, path, &names, err);

	if (names.count)
		qsort(names.items, names.count, sizeof(*names.items), compare_names);
	for (size_t i = 0; i < names.count && code == KT_OK; i++) {
		KT_AUTOFREE char *file =
			kt_asprintf("%s%s%s", path, len && path[len - 1] == '/' ? "" : "/", names.items[i]);
		struct stat st;

		if (!file)
			code = kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
		else if (stat(file, &st) == 0 && S_ISDIR(st.st_mode))
			continue;
		else
			code = load_file(l, file, err);
	}
	for (size_t i = 0; i < names.count; i++)
		kt_free(names.items[i]);
	kt_free(names.items);
	return code;
}

enum kt_code kt_manifest_load_paths(const char *const *paths, size_t count, const struct kt_load_options *options,
				    struct kt_buf *bundle, struct kt_report *report, struct kt_err *err)
{
	struct loading l = {.options = options, .bundle = bundle, .report = report};
	enum kt_code code;

	kt_bundle_begin(bundle);
	code = kt_buf_check(bundle, "the bundle of manifests", err);
	for (size_t i = 0; i < count && code == KT_OK; i++) {
		struct stat st;

		/* What can't be looked at is named by the reading below. */
		if (stat(paths[i], &st) != 0 && errno == ENOENT && options->missing_is_ok)
			continue;
		code = stat(paths[i], &st) == 0 && S_ISDIR(st.st_mode) ? load_folder(&l, paths[i], err)
								       : load_file(&l, paths[i], err);
	}
	return code;
}

enum kt_code kt_manifest_none(const char *const *paths, size_t count, struct kt_err *err)
{
	return kt_err_set(err, KT_E_INVALID,
			  "no manifests in %s%s: put *.yaml, *.yml or *.json files there (folders below it are not looked into), "
			  "or name others with -c",
			  count ? paths[0] : "-", count > 1 ? " and the others that are named" : "");
}

/* --- this machine
 * ------------------------------------------------------------------------------------------------------ */

static void check_program(const struct kt_resource *resource, const char *field, const char *program, uid_t uid,
			  struct kt_report *report)
{
	uint32_t line = kt_resource_line(resource, field);
	struct kt_err why = {0};
	struct stat st;

	if (stat(program, &st) != 0)
		kt_report_add(report, KT_COMPLAINT_ERROR, resource->file, line, "%s (%s) can't be run: %s", field,
			      program, errno == ENOENT ? "there is no such file" : "it can't be reached");
	else if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		kt_report_add(report, KT_COMPLAINT_ERROR, resource->file, line,
			      "%s (%s) can't be run: it is not an executable file", field, program);
	else if (kt_io_check_trusted(program, uid, &why) != KT_OK)
		kt_report_add(report, KT_COMPLAINT_ERROR, resource->file, line, "%s (%s) is not safe to run: %s", field,
			      program, why.what);
}

#define CHECK_EXEC(list, name)                                                                                         \
	for (uint32_t i = 0; i < (list).count; i++) {                                                                  \
		char field[64];                                                                                        \
                                                                                                                       \
		if (!(list).items[i].exec)                                                                             \
			continue;                                                                                      \
		(void)snprintf(field, sizeof(field), "spec." name "[%u].exec.argv[0]", i);                             \
		check_program(resource, field, (list).items[i].exec->argv.items[0], uid, report);                      \
	}

static void check_solvers(const struct kt_resource *resource, uid_t uid, struct kt_report *report)
{
	const struct kt_acme *acme = resource->issuer.acme;

	for (uint32_t i = 0; acme && i < acme->solvers.count; i++) {
		const struct kt_dns_exec *exec = acme->solvers.items[i].dns01 ? acme->solvers.items[i].dns01->exec : NULL;
		char path[64];

		if (!exec)
			continue;
		(void)snprintf(path, sizeof(path), "spec.acme.solvers[%u].dns01.exec.exec.argv[0]", i);
		check_program(resource, path, exec->exec.argv.items[0], uid, report);
		(void)snprintf(path, sizeof(path), "spec.acme.solvers[%u].dns01.exec.cleanupArgv[0]", i);
		if (exec->cleanup_argv.count)
			check_program(resource, path, exec->cleanup_argv.items[0], uid, report);
	}
}

void kt_manifest_check_host(const struct kt_resource *resource, uid_t uid, struct kt_report *report)
{
	const struct kt_consumer_spec *consumer = &resource->consumer;

	if (resource->kind == KT_RES_AGENT && resource->agent.master_key.command.count)
		check_program(resource, "spec.masterKey.command[0]", resource->agent.master_key.command.items[0], uid,
			      report);
	if (resource->kind == KT_RES_ISSUER || resource->kind == KT_RES_CLUSTER_ISSUER)
		check_solvers(resource, uid, report);
	if (resource->kind == KT_RES_WATCH && resource->watch.renew)
		check_program(resource, "spec.renew.exec.argv[0]", resource->watch.renew->exec->argv.items[0], uid, report);
	if (resource->kind != KT_RES_CONSUMER)
		return;
	CHECK_EXEC(consumer->validate, "validate")
	CHECK_EXEC(consumer->notify, "notify")
	CHECK_EXEC(consumer->prove, "prove")
}
