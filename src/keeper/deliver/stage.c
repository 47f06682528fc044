/* Staging: a complete generation beside the served one, seen by nobody until the switch. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/text.h"

#include "keeper/deliver/deliver_internal.h"

char *kt_volume_generation_name(kt_ms wall, char out[KT_GENERATION_MAX])
{
	char rfc3339[32]; /* 2026-11-23T07:09:03.123Z */

	if (wall < 0)
		wall = 0;
	kt_time_format_ms(wall > KT_TIME_MAX ? KT_TIME_MAX : wall, rfc3339);
	snprintf(out, KT_GENERATION_MAX, "..%.4s_%.2s_%.2s_%.2s_%.2s_%.2s.%.3s%06u", rfc3339, rfc3339 + 5, rfc3339 + 8,
	         rfc3339 + 11, rfc3339 + 14, rfc3339 + 17, rfc3339 + 20, (unsigned)kt_rand_below(1000000));
	return out;
}

bool kt_volume_generation_valid(const char *name)
{
	static const char form[] = "..dddd_dd_dd_dd_dd_dd.ddddddddd";
	size_t i;

	for (i = 0; form[i]; i++) {
		if (form[i] == 'd' ? name[i] < '0' || name[i] > '9' : name[i] != form[i])
			return false;
	}
	return name[i] == '\0';
}

enum kt_code kt_deliver_path_check(const char *path, struct kt_err *err)
{
	size_t len = path ? strnlen(path, KT_VOLUME_PATH_MAX) : 0, part = 0;

	if (len == 0 || len >= KT_VOLUME_PATH_MAX)
		return kt_err_set(err, KT_E_INVALID, "a file's path in a volume must have 1 to %d bytes",
		                  KT_VOLUME_PATH_MAX - 1);
	for (size_t i = 0; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		/* The writer's own names begin with ".." and no component may mean "here". */
		if (i == part || (i - part == 1 && path[part] == '.') || strncmp(path + part, "..", 2) == 0)
			return kt_err_set(err, KT_E_INVALID,
			                  "%s: a path in a volume is relative, without empty parts, \".\" or names that "
			                  "begin with \"..\"",
			                  path);
		part = i + 1;
	}
	return KT_OK;
}

size_t kt_deliver_top_len(const char *path)
{
	return strcspn(path, "/");
}

bool kt_deliver_top_seen(const struct kt_volume_file *files, size_t i)
{
	size_t len = kt_deliver_top_len(files[i].path);

	if (files[i].path[len] == '\0')
		return false; /* a plain file has its name for itself */
	for (size_t j = 0; j < i; j++) {
		if (strncmp(files[j].path, files[i].path, len) == 0 && files[j].path[len] == '/')
			return true;
	}
	return false;
}

static enum kt_code check_set(const struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                              size_t count, struct kt_err *err)
{
	if (!kt_volume_generation_valid(generation))
		return kt_err_set(err, KT_E_INVALID, "%s: %s is no generation's name", vol->name, generation);
	if (count == 0 || count > KT_VOLUME_FILES_MAX)
		return kt_err_set(err, KT_E_INVALID, "%s: a volume must have 1 to %d files, not %zu", vol->name,
		                  KT_VOLUME_FILES_MAX, count);
	for (size_t i = 0; i < count; i++) {
		if (kt_deliver_path_check(files[i].path, err) != KT_OK)
			return KT_E_INVALID;
		if (files[i].mode & ~(mode_t)0777)
			return kt_err_set(err, KT_E_INVALID, "%s: mode %04o of %s is not acceptable", vol->name,
			                  (unsigned)files[i].mode, files[i].path);
		if (files[i].bytes.len && !files[i].bytes.ptr)
			return kt_err_set(err, KT_E_INVALID, "%s: no bytes for %s", vol->name, files[i].path);
	}
	return KT_OK;
}

/*
 * Calls visit for every folder inside the generation that files need: parents before children, and each once if the
 * files of a folder stand together (a repeated call does no harm).
 */
static enum kt_code each_folder(const struct kt_volume *vol, int genfd, const struct kt_volume_file *files, size_t count,
                                enum kt_code (*visit)(const struct kt_volume *vol, int genfd, const char *folder,
                                                      struct kt_err *err),
                                struct kt_err *err)
{
	char folder[KT_VOLUME_PATH_MAX], last[KT_VOLUME_PATH_MAX] = "";
	enum kt_code code;

	for (size_t i = 0; i < count; i++) {
		const char *path = files[i].path;

		for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
			size_t len = (size_t)(slash - path);

			if (strncmp(last, path, len) == 0 && (last[len] == '\0' || last[len] == '/'))
				continue;
			memcpy(folder, path, len);
			folder[len] = '\0';
			code = visit(vol, genfd, folder, err);
			if (code != KT_OK)
				return code;
			memcpy(last, folder, len + 1);
		}
	}
	return KT_OK;
}

static enum kt_code make_folder(const struct kt_volume *vol, int genfd, const char *folder, struct kt_err *err)
{
	bool made;

	return kt_fs_mkdir(genfd, folder, 0700, vol->name, &made, err);
}

static mode_t generation_mode(const struct kt_volume *vol)
{
	return vol->policy.generation_mode ? vol->policy.generation_mode : 0750;
}

/* Owner and mode last, so that a folder is complete when others can enter it; then its names are made durable. */
static enum kt_code close_folder(const struct kt_volume *vol, int fd, const char *name, struct kt_err *err)
{
	enum kt_code code = kt_fs_own(fd, vol->policy.uid, vol->policy.gid, generation_mode(vol), name, vol->name, err);

	return code == KT_OK && !vol->memory ? kt_fs_sync(fd, name, vol->name, err) : code;
}

static enum kt_code finish_folder(const struct kt_volume *vol, int genfd, const char *folder, struct kt_err *err)
{
	/* Everything below genfd was made a moment ago by us, in folders that nobody else can enter yet. */
	int fd = kt_fs_open_dir(genfd, folder, vol->name, err);
	enum kt_code code;

	if (fd < 0)
		return err ? err->code : KT_E_SYS;
	code = close_folder(vol, fd, folder, err);
	close(fd);
	return code;
}

/* Takes back what a failed stage made; needs no new descriptor, because EMFILE may be why it failed. */
static void undo(const struct kt_volume *vol, int genfd, const char *generation, const struct kt_volume_file *files,
                 size_t count)
{
	char folder[KT_VOLUME_PATH_MAX];

	for (size_t i = 0; genfd >= 0 && i < count; i++)
		unlinkat(genfd, files[i].path, 0);
	for (size_t i = 0; genfd >= 0 && i < count; i++) {
		snprintf(folder, sizeof(folder), "%s", files[i].path);
		for (char *slash = strrchr(folder, '/'); slash; slash = strrchr(folder, '/')) {
			*slash = '\0';
			unlinkat(genfd, folder, AT_REMOVEDIR);
		}
	}
	unlinkat(vol->fd, generation, AT_REMOVEDIR);
}

/* The name is taken: by the served generation (fine if equal) or by the rest of an interrupted try (made anew). */
static enum kt_code take_over(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                              size_t count, bool *ret_done, struct kt_err *err)
{
	char current[KT_GENERATION_MAX];
	struct kt_drift_report report;
	bool made;
	enum kt_code code = kt_volume_current(vol, current, err);

	*ret_done = false;
	if (code != KT_OK && code != KT_E_NOTFOUND)
		return code;
	if (code == KT_OK && strcmp(current, generation) == 0) {
		code = kt_volume_check(vol, generation, files, count, true, &report, err);
		if (code != KT_OK)
			return code;
		if (report.drift & ~(unsigned)KT_DRIFT_LINK)
			return kt_err_set(err, KT_E_EXISTS, "%s: %s is served and differs: %s", vol->name, generation,
			                  report.text);
		*ret_done = true;
		return KT_OK;
	}
	code = kt_io_remove_tree(vol->fd, generation, err);
	if (code == KT_OK)
		code = kt_fs_mkdir(vol->fd, generation, 0700, vol->name, &made, err);
	if (code == KT_OK && !made)
		code = kt_err_set(err, KT_E_BUSY, "%s: somebody else writes %s", vol->name, generation);
	return code;
}

static enum kt_code fill(const struct kt_volume *vol, int genfd, const char *generation,
                         const struct kt_volume_file *files, size_t count, struct kt_err *err)
{
	struct stat st;
	enum kt_code code;

	/* In a shared folder somebody could have put a directory of his own in the place of the one just made. */
	if (vol->policy.allow_shared && (fstat(genfd, &st) != 0 || st.st_uid != geteuid()))
		return kt_err_set(err, KT_E_POLICY, "%s: %s was replaced by somebody else", vol->name, generation);
	code = each_folder(vol, genfd, files, count, make_folder, err);
	for (size_t i = 0; code == KT_OK && i < count; i++)
		code = kt_fs_write_file(genfd, &files[i], !vol->memory, vol->name, err);
	if (code == KT_OK)
		code = each_folder(vol, genfd, files, count, finish_folder, err);
	if (code == KT_OK)
		code = close_folder(vol, genfd, generation, err);
	if (code == KT_OK && !vol->memory)
		code = kt_fs_sync(vol->fd, "the volume", vol->name, err);
	return code;
}

enum kt_code kt_volume_stage(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                             size_t count, struct kt_err *err)
{
	struct kt_err detail;
	bool made = false, done = false;
	int genfd = -1;
	enum kt_code code;

	kt_err_clear(&detail);
	code = check_set(vol, generation, files, count, &detail);
	if (code == KT_OK)
		code = kt_fs_mkdir(vol->fd, generation, 0700, vol->name, &made, &detail);
	if (code == KT_OK && !made)
		code = take_over(vol, generation, files, count, &done, &detail);
	if (code == KT_OK && !done) {
		genfd = kt_fs_open_dir(vol->fd, generation, vol->name, &detail);
		code = genfd < 0 ? detail.code : fill(vol, genfd, generation, files, count, &detail);
		if (code != KT_OK)
			undo(vol, genfd, generation, files, count);
	}
	if (genfd >= 0)
		close(genfd);
	if (code != KT_OK && err)
		*err = detail;
	return code;
}
