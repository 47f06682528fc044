/* Switching: stable links, then one rename over ..data; and what the served generation is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keeper/deliver/deliver_internal.h"

#define LINK_PREFIX KT_DATA_LINK "/"
#define LINK_MAX (KT_VOLUME_PATH_MAX + sizeof(LINK_PREFIX))

enum kt_code kt_volume_current(const struct kt_volume *vol, char ret[KT_GENERATION_MAX], struct kt_err *err)
{
	enum kt_fs_link found;
	enum kt_code code = kt_fs_readlink(vol->fd, KT_DATA_LINK, ret, KT_GENERATION_MAX, vol->name, &found, err);

	if (code != KT_OK)
		return code;
	if (found == KT_FS_LINK_NONE)
		return kt_err_set(err, KT_E_NOTFOUND, "%s: nothing is served", vol->name);
	if (found == KT_FS_LINK_OTHER || !kt_volume_generation_valid(ret)) {
		ret[0] = '\0';
		return kt_err_set(err, KT_E_POLICY, "%s: " KT_DATA_LINK " is not a link to a generation; remove it",
		                  vol->name);
	}
	return KT_OK;
}

bool kt_volume_has(const struct kt_volume *vol, const char *generation)
{
	struct stat st;
	bool exists;

	return kt_volume_generation_valid(generation) &&
	       kt_fs_stat(vol->fd, generation, vol->name, &st, &exists, NULL) == KT_OK && exists && S_ISDIR(st.st_mode);
}

/* A link of that name that points elsewhere is replaced by a rename, so that a reader never misses it. */
static enum kt_code replace_link(struct kt_volume *vol, const char *target, const char *name, struct kt_err *err)
{
	bool exists;
	enum kt_code code = kt_fs_unlink(vol->fd, KT_LINK_TMP, vol->name, err);

	if (code == KT_OK)
		code = kt_fs_symlink(vol->fd, target, KT_LINK_TMP, vol->name, &exists, err);
	if (code == KT_OK)
		code = kt_fs_rename(vol->fd, KT_LINK_TMP, name, vol->name, err);
	if (code != KT_OK)
		unlinkat(vol->fd, KT_LINK_TMP, 0);
	return code;
}

static enum kt_code make_link(struct kt_volume *vol, const char *name, bool expect, struct kt_err *err)
{
	char target[LINK_MAX], there[LINK_MAX];
	enum kt_fs_link found = KT_FS_LINK_NONE;
	bool exists = false;
	enum kt_code code;

	snprintf(target, sizeof(target), LINK_PREFIX "%s", name);
	/* Ask in the order that is most likely answered at once: a renewal has its links, a first issue has none. */
	if (expect) {
		code = kt_fs_readlink(vol->fd, name, there, sizeof(there), vol->name, &found, err);
		if (code != KT_OK)
			return code;
	}
	if (found == KT_FS_LINK_NONE) {
		code = kt_fs_symlink(vol->fd, target, name, vol->name, &exists, err);
		if (code != KT_OK || !exists)
			return code;
		code = kt_fs_readlink(vol->fd, name, there, sizeof(there), vol->name, &found, err);
		if (code != KT_OK)
			return code;
	}
	if (found == KT_FS_LINK_IS)
		return strcmp(there, target) == 0 ? KT_OK : replace_link(vol, target, name, err);
	/* L2: a file, folder or device that somebody put there is not ours to take away. */
	return kt_err_set(err, KT_E_POLICY, "%s: %s is in the way of a link (it is no link); remove it", vol->name, name);
}

enum kt_code kt_deliver_links(struct kt_volume *vol, const struct kt_volume_file *files, size_t count, bool expect,
                              struct kt_err *err)
{
	char name[KT_VOLUME_PATH_MAX];

	for (size_t i = 0; i < count; i++) {
		enum kt_code code;

		if (kt_deliver_path_check(files[i].path, err) != KT_OK)
			return KT_E_INVALID;
		if (kt_deliver_top_seen(files, i))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)kt_deliver_top_len(files[i].path), files[i].path);
		code = make_link(vol, name, expect, err);
		if (code != KT_OK)
			return code;
	}
	return KT_OK;
}

/* The same for a generation whose files are only on disk: its names are in list. */
static enum kt_code links_of_list(struct kt_volume *vol, const struct kt_buf *list, struct kt_err *err)
{
	size_t pos = 0;
	char type;
	const char *name;
	enum kt_code code = KT_OK;

	while (code == KT_OK && (name = kt_fs_list_next(list, &pos, &type)) != NULL) {
		code = kt_deliver_path_check(name, err);
		if (code == KT_OK)
			code = make_link(vol, name, true, err);
	}
	return code;
}

static bool wanted(const char *name, const struct kt_volume_file *files, size_t count, const struct kt_buf *list)
{
	size_t pos = 0, len = strlen(name);
	char type;
	const char *other;

	for (size_t i = 0; i < count; i++) {
		if (kt_deliver_top_len(files[i].path) == len && strncmp(files[i].path, name, len) == 0)
			return true;
	}
	while ((other = kt_fs_list_next(list, &pos, &type)) != NULL) {
		if (strcmp(other, name) == 0)
			return true;
	}
	return false;
}

/* Links of ours whose file is not in the set any more; after the flip, because until then readers need them. */
static enum kt_code drop_stale_links(struct kt_volume *vol, const struct kt_volume_file *files, size_t count,
                                     const struct kt_buf *list, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF names;
	char there[LINK_MAX], type;
	size_t pos = 0;
	const char *name;
	enum kt_code code;

	kt_buf_init(&names, 1 << 20);
	code = kt_fs_list(vol->fd, vol->name, &names, err);
	while (code == KT_OK && (name = kt_fs_list_next(&names, &pos, &type)) != NULL) {
		enum kt_fs_link found;

		if (type == 'D' || strncmp(name, "..", 2) == 0 || wanted(name, files, count, list))
			continue;
		code = kt_fs_readlink(vol->fd, name, there, sizeof(there), vol->name, &found, err);
		if (code == KT_OK && found == KT_FS_LINK_IS && strncmp(there, LINK_PREFIX, strlen(LINK_PREFIX)) == 0)
			code = kt_fs_unlink(vol->fd, name, vol->name, err);
	}
	return code;
}

/* The one moment: ..data_tmp, then rename. A ..data_tmp left by a kill is ours and is taken away first. */
static enum kt_code flip(struct kt_volume *vol, const char *generation, struct kt_err *err)
{
	bool exists;
	enum kt_code code = kt_fs_symlink(vol->fd, generation, KT_DATA_TMP, vol->name, &exists, err);

	if (code == KT_OK && exists) {
		code = kt_fs_unlink(vol->fd, KT_DATA_TMP, vol->name, err);
		if (code == KT_OK)
			code = kt_fs_symlink(vol->fd, generation, KT_DATA_TMP, vol->name, &exists, err);
		if (code == KT_OK && exists)
			code = kt_err_set(err, KT_E_BUSY, "%s: somebody else writes " KT_DATA_TMP, vol->name);
	}
	if (code != KT_OK)
		return code;
	code = kt_fs_rename(vol->fd, KT_DATA_TMP, KT_DATA_LINK, vol->name, err);
	if (code != KT_OK)
		unlinkat(vol->fd, KT_DATA_TMP, 0);
	return code;
}

/* Everything before the flip; *ret_same: the generation is served already. */
static enum kt_code prepare(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                            size_t count, char previous[KT_GENERATION_MAX], struct kt_buf *list, struct kt_err *err)
{
	enum kt_code code;
	int fd;

	if (!kt_volume_generation_valid(generation))
		return kt_err_set(err, KT_E_INVALID, "%s: %s is no generation's name", vol->name, generation);
	/* Something other than our link is noticed here: renaming over it would destroy it. */
	previous[0] = '\0';
	code = kt_volume_current(vol, previous, err);
	if (code != KT_OK && code != KT_E_NOTFOUND)
		return code;
	if (files) {
		if (!kt_volume_has(vol, generation))
			return kt_err_set(err, KT_E_NOTFOUND, "%s: there is no generation %s", vol->name, generation);
		return kt_deliver_links(vol, files, count, previous[0] != '\0', err);
	}
	fd = kt_fs_open_dir(vol->fd, generation, vol->name, err);
	if (fd < 0)
		return err->code;
	code = kt_fs_list(fd, vol->name, list, err);
	close(fd);
	return code == KT_OK ? links_of_list(vol, list, err) : code;
}

enum kt_code kt_volume_switch(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                              size_t count, char ret_previous[KT_GENERATION_MAX], struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF list;
	char previous[KT_GENERATION_MAX];
	struct kt_err detail;
	bool same;
	enum kt_code code;

	kt_buf_init(&list, 1 << 20);
	kt_err_clear(&detail);
	if (ret_previous)
		ret_previous[0] = '\0';
	code = prepare(vol, generation, files, count, previous, &list, &detail);
	same = strcmp(previous, generation) == 0;
	if (code == KT_OK && !vol->memory)
		code = kt_fs_sync(vol->fd, "the links", vol->name, &detail);
	if (code == KT_OK && !same) {
		code = flip(vol, generation, &detail);
		if (code == KT_OK && ret_previous)
			memcpy(ret_previous, previous, sizeof(previous));
	}
	if (code == KT_OK && !vol->memory)
		code = kt_fs_sync(vol->fd, "the switch", vol->name, &detail);
	if (code == KT_OK && previous[0])
		code = drop_stale_links(vol, files, count, &list, &detail);
	if (code != KT_OK && err)
		*err = detail;
	return code;
}
