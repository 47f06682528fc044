/* Drift: is what is served still what should be, and if not, mend it. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"

#include "keeper/deliver/deliver_internal.h"

__attribute__((format(printf, 4, 5))) static void found(struct kt_drift_report *report, unsigned drift, size_t index,
                                                        const char *fmt, ...)
{
	va_list ap;

	if (report->drift == 0) {
		va_start(ap, fmt);
		vsnprintf(report->text, sizeof(report->text), fmt, ap);
		va_end(ap);
		report->first = index;
	}
	report->drift |= drift;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* Reads the file piecewise against what it should be; no copy of it is ever whole in memory. */
static enum kt_code compare(int genfd, const struct kt_volume *vol, const struct kt_volume_file *file, bool *ret_equal,
                            struct kt_err *err)
{
	char block[1024];
	size_t at = 0;
	ssize_t n;
	enum kt_code code = KT_OK;
	struct kt_err detail;
	int fd;

	*ret_equal = false;
	kt_err_clear(&detail);
	fd = kt_io_open_nolinks(genfd, file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, &detail);
	if (fd < 0) {
		int why = detail.sys_errno;

		if (detail.code != KT_E_NOMEM && why != EMFILE && why != ENFILE && why != EIO)
			return KT_OK; /* gone or unreadable since it was looked at: it differs */
		if (err)
			*err = detail;
		return detail.code;
	}
	for (;;) {
		n = read(fd, block, sizeof(block));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			code = kt_err_sys(err, "%s: cannot read %s", vol->name, file->path);
		if (n <= 0)
			break;
		if ((size_t)n > file->bytes.len - at || memcmp(file->bytes.ptr + at, block, (size_t)n) != 0)
			break;
		at += (size_t)n;
	}
	*ret_equal = n == 0 && at == file->bytes.len;
	kt_wipe(block, sizeof(block));
	close(fd);
	return code;
}

/* What a stat shows. ret_touched: changed after the generation was closed, so its bytes have to be read. */
static void check_stat(const struct kt_volume_file *file, size_t index, const struct stat *st, const struct stat *gen,
                       struct kt_drift_report *report, bool *ret_touched)
{
	mode_t mode = file->mode ? file->mode : 0600;

	if ((st->st_mode & 07777) != mode)
		found(report, KT_DRIFT_MODE, index, "%s has mode %04o, not %04o", file->path,
		      (unsigned)(st->st_mode & 07777), (unsigned)mode);
	if ((file->uid != KT_OWNER_KEEP && st->st_uid != file->uid) ||
	    (file->gid != (gid_t)KT_OWNER_KEEP && st->st_gid != file->gid))
		found(report, KT_DRIFT_OWNER, index, "%s belongs to %u:%u", file->path, (unsigned)st->st_uid,
		      (unsigned)st->st_gid);
	if ((file->bytes.ptr || file->bytes.len) && (uint64_t)st->st_size != file->bytes.len)
		found(report, KT_DRIFT_CONTENT, index, "%s has %lld bytes, not %zu", file->path, (long long)st->st_size,
		      file->bytes.len);
	*ret_touched = later(st->st_ctim, gen->st_ctim);
}

static enum kt_code check_file(const struct kt_volume *vol, int genfd, const struct kt_volume_file *file, size_t index,
                               const struct stat *gen, bool deep, struct kt_drift_report *report, struct kt_err *err)
{
	struct stat st;
	bool exists, touched = false, equal = true;
	enum kt_code code = kt_fs_stat(genfd, file->path, vol->name, &st, &exists, err);

	if (code != KT_OK)
		return code;
	if (!exists || !S_ISREG(st.st_mode) || st.st_nlink != 1) {
		found(report, KT_DRIFT_MISSING, index, "%s %s", file->path,
		      !exists               ? "is missing"
		      : S_ISREG(st.st_mode) ? "has another name (hard link)"
		                            : "is not a plain file");
		return KT_OK;
	}
	check_stat(file, index, &st, gen, report, &touched);
	if ((report->drift & KT_DRIFT_CONTENT) || !(touched || deep))
		return KT_OK;
	if (!file->bytes.ptr) {
		found(report, KT_DRIFT_TOUCHED, index, "%s was changed after it was delivered", file->path);
		return KT_OK;
	}
	code = compare(genfd, vol, file, &equal, err);
	if (code == KT_OK && !equal)
		found(report, KT_DRIFT_CONTENT, index, "%s has other contents", file->path);
	return code;
}

static enum kt_code check_links(const struct kt_volume *vol, const struct kt_volume_file *files, size_t count,
                                struct kt_drift_report *report, struct kt_err *err)
{
	char name[KT_VOLUME_PATH_MAX], there[KT_VOLUME_PATH_MAX + 8];

	for (size_t i = 0; i < count; i++) {
		enum kt_fs_link what;
		enum kt_code code;

		if (kt_deliver_top_seen(files, i))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)kt_deliver_top_len(files[i].path), files[i].path);
		code = kt_fs_readlink(vol->fd, name, there, sizeof(there), vol->name, &what, err);
		if (code != KT_OK)
			return code;
		if (what != KT_FS_LINK_IS || strncmp(there, KT_DATA_LINK "/", 7) != 0 || strcmp(there + 7, name) != 0)
			found(report, KT_DRIFT_LINK, i, "the link %s is missing or leads elsewhere", name);
	}
	return KT_OK;
}

static void check_generation(const struct kt_volume *vol, const struct stat *st, size_t count,
                             struct kt_drift_report *report)
{
	mode_t mode = vol->policy.generation_mode ? vol->policy.generation_mode : 0750;

	if ((st->st_mode & 07777) != mode)
		found(report, KT_DRIFT_MODE, count, "the generation has mode %04o, not %04o",
		      (unsigned)(st->st_mode & 07777), (unsigned)mode);
	if ((vol->policy.uid != KT_OWNER_KEEP && st->st_uid != vol->policy.uid) ||
	    (vol->policy.gid != (gid_t)KT_OWNER_KEEP && st->st_gid != vol->policy.gid))
		found(report, KT_DRIFT_OWNER, count, "the generation belongs to %u:%u", (unsigned)st->st_uid,
		      (unsigned)st->st_gid);
}

/* Opens the generation that is served; -1 with drift set when there is none. */
static enum kt_code open_served(const struct kt_volume *vol, const char *generation, size_t count, int *ret_fd,
                                struct kt_drift_report *report, struct kt_err *err)
{
	char current[KT_GENERATION_MAX];
	struct kt_err detail;
	enum kt_code code;

	kt_err_clear(&detail);
	*ret_fd = -1;
	code = kt_volume_current(vol, current, &detail);
	if (code == KT_E_NOTFOUND) {
		found(report, KT_DRIFT_GONE, count, "nothing is served");
		return KT_OK;
	}
	if (code == KT_OK && generation && strcmp(current, generation) != 0) {
		found(report, KT_DRIFT_GENERATION, count, "%s is served, not %s", current, generation);
		return KT_OK;
	}
	if (code == KT_OK) {
		*ret_fd = kt_fs_open_dir(vol->fd, current, vol->name, &detail);
		code = *ret_fd < 0 ? detail.code : KT_OK;
	}
	if (code == KT_E_NOTFOUND) {
		found(report, KT_DRIFT_GONE, count, "the generation %s is missing", current);
		return KT_OK;
	}
	if (code != KT_OK && err)
		*err = detail;
	return code;
}

enum kt_code kt_volume_check(const struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                             size_t count, bool deep, struct kt_drift_report *report, struct kt_err *err)
{
	struct stat gen;
	int genfd;
	enum kt_code code;

	*report = (struct kt_drift_report){.first = count};
	for (size_t i = 0; i < count; i++) {
		if (kt_deliver_path_check(files[i].path, err) != KT_OK)
			return KT_E_INVALID;
	}
	code = open_served(vol, generation, count, &genfd, report, err);
	if (code != KT_OK || genfd < 0)
		return code;
	if (fstat(genfd, &gen) != 0)
		code = kt_err_sys(err, "%s: cannot look at the generation", vol->name);
	if (code == KT_OK)
		check_generation(vol, &gen, count, report);
	for (size_t i = 0; code == KT_OK && i < count; i++)
		code = check_file(vol, genfd, &files[i], i, &gen, deep, report, err);
	if (code == KT_OK)
		code = check_links(vol, files, count, report, err);
	close(genfd);
	return code;
}

enum kt_code kt_volume_heal(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                            size_t count, struct kt_drift_report *report, char ret_served[KT_GENERATION_MAX],
                            struct kt_err *err)
{
	enum kt_code code;

	ret_served[0] = '\0';
	code = kt_volume_check(vol, NULL, files, count, true, report, err);
	if (code != KT_OK)
		return code;
	if (!(report->drift & ~(unsigned)KT_DRIFT_LINK)) {
		if (report->drift)
			code = kt_deliver_links(vol, files, count, true, err);
		if (code == KT_OK && report->drift && !vol->memory)
			code = kt_fs_sync(vol->fd, "the links", vol->name, err);
		return code == KT_OK ? kt_volume_current(vol, ret_served, err) : code;
	}
	code = kt_volume_stage(vol, generation, files, count, err);
	if (code == KT_OK)
		code = kt_volume_switch(vol, generation, files, count, NULL, err);
	if (code == KT_OK)
		snprintf(ret_served, KT_GENERATION_MAX, "%s", generation);
	return code;
}
