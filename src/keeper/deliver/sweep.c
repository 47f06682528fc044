/* Taking away: old generations, expired sets, and what an interrupted writer left behind. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"

#include "keeper/deliver/deliver_internal.h"

enum kt_code kt_volume_retire(struct kt_volume *vol, const char *generation, struct kt_err *err)
{
	char current[KT_GENERATION_MAX];
	struct kt_err detail;
	enum kt_code code;

	if (!kt_volume_generation_valid(generation))
		return kt_err_set(err, KT_E_INVALID, "%s: %s is no generation's name", vol->name, generation);
	kt_err_clear(&detail);
	code = kt_volume_current(vol, current, &detail);
	if (code == KT_OK && strcmp(current, generation) == 0)
		return kt_err_set(err, KT_E_BUSY, "%s: %s is served and stays", vol->name, generation);
	if (code != KT_OK && code != KT_E_NOTFOUND) {
		if (err)
			*err = detail;
		return code;
	}
	return kt_io_remove_tree(vol->fd, generation, err);
}

/* True for a link in the volume that the writer made: its target is below ..data. */
static bool is_stable_link(const struct kt_volume *vol, const char *name)
{
	char there[KT_VOLUME_PATH_MAX + sizeof(KT_DATA_LINK "/")];
	enum kt_fs_link found;

	return kt_fs_readlink(vol->fd, name, there, sizeof(there), vol->name, &found, NULL) == KT_OK &&
	       found == KT_FS_LINK_IS && strncmp(there, KT_DATA_LINK "/", strlen(KT_DATA_LINK "/")) == 0;
}

enum kt_code kt_volume_withdraw(struct kt_volume *vol, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF names;
	const char *name;
	size_t pos = 0;
	char type;
	enum kt_code code;

	kt_buf_init(&names, 1 << 20);
	/* ..data first: from here on nothing is served, wherever this is interrupted. */
	code = kt_fs_unlink(vol->fd, KT_DATA_LINK, vol->name, err);
	if (code == KT_OK)
		code = kt_fs_unlink(vol->fd, KT_DATA_TMP, vol->name, err);
	if (code == KT_OK)
		code = kt_fs_list(vol->fd, vol->name, &names, err);
	while (code == KT_OK && (name = kt_fs_list_next(&names, &pos, &type)) != NULL) {
		if (kt_volume_generation_valid(name))
			code = kt_io_remove_tree(vol->fd, name, err);
		else if (type != 'D' && strncmp(name, "..", 2) != 0 && is_stable_link(vol, name))
			code = kt_fs_unlink(vol->fd, name, vol->name, err);
	}
	if (code == KT_OK && !vol->memory)
		code = kt_fs_sync(vol->fd, "the volume", vol->name, err);
	return code;
}

static bool kept(const char *name, const char *current, const char *const *keep, size_t keep_count)
{
	if (strcmp(name, current) == 0)
		return true;
	for (size_t i = 0; i < keep_count; i++) {
		if (keep[i] && strcmp(name, keep[i]) == 0)
			return true;
	}
	return false;
}

/* A stable link without a file behind it: made before a flip that never came. */
static bool is_dangling(const struct kt_volume *vol, const char *name)
{
	struct stat st;

	return is_stable_link(vol, name) && fstatat(vol->fd, name, &st, 0) != 0;
}

enum kt_code kt_volume_cleanup(struct kt_volume *vol, const char *const *keep, size_t keep_count,
                               size_t *ret_removed, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF names;
	char current[KT_GENERATION_MAX], type;
	struct kt_err detail;
	const char *name;
	size_t pos = 0, removed = 0;
	enum kt_code code;

	kt_buf_init(&names, 1 << 20);
	kt_err_clear(&detail);
	code = kt_volume_current(vol, current, &detail);
	if (code == KT_E_NOTFOUND)
		code = KT_OK; /* current is "" then */
	if (code == KT_OK)
		code = kt_fs_list(vol->fd, vol->name, &names, &detail);
	while (code == KT_OK && (name = kt_fs_list_next(&names, &pos, &type)) != NULL) {
		if (strcmp(name, KT_DATA_TMP) == 0 || strcmp(name, KT_LINK_TMP) == 0 ||
		    (type != 'D' && strncmp(name, "..", 2) != 0 && is_dangling(vol, name)))
			code = kt_fs_unlink(vol->fd, name, vol->name, &detail);
		else if (kt_volume_generation_valid(name) && !kept(name, current, keep, keep_count))
			code = kt_io_remove_tree(vol->fd, name, &detail);
		else
			continue;
		removed++;
	}
	if (ret_removed)
		*ret_removed = removed;
	if (code != KT_OK && err)
		*err = detail;
	return code;
}
