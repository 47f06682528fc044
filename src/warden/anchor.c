/* The head of the audit chain, written down where the keeper can't reach: a file that is appended to, or the system's log. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "warden/internal.h"

#define SYSLOG_SOCKET   "/dev/log"
#define SYSLOG_PRIORITY "<86>" /* authpriv, info (RFC 3164) */

/* What `keyturn audit --verify --anchor` reads: state= last, for a path may hold blanks. */
static int format(const struct kt_warden *warden, int64_t seq, const char *hash, char *out, size_t size)
{
	char time[32];

	return snprintf(out, size, "audit anchor seq=%lld hash=%s time=%s state=%s", (long long)seq, hash,
	                kt_time_format_ms(kt_clock_wall(kt_loop_clock(warden->loop)), time), warden->current->state_dir);
}

/* --- a file --------------------------------------------------------------------------------------------------------- */

static enum kt_code sync_folder(const char *path, struct kt_err *err)
{
	char folder[KT_PATH_MAX];
	char *slash;

	(void)snprintf(folder, sizeof(folder), "%s", path);
	slash = strrchr(folder, '/');
	if (slash == NULL || slash == folder) {
		return KT_OK;
	}
	*slash = '\0';
	KT_AUTOCLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && fsync(fd) == 0 ? KT_OK : kt_err_sys(err, "%s", folder);
}

/* Opened anew for each line: rotating the file needs no word to us. -1 on failure. */
static int open_file(const char *path, struct kt_err *err)
{
	const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
	int fd = open(path, flags);
	bool made = fd < 0 && errno == ENOENT;
	struct stat info;

	if (made) {
		fd = open(path, flags | O_CREAT, 0640);
	}
	if (fd < 0) {
		(void)kt_err_sys(err, "spec.audit.file %s", path);
	} else if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
		(void)kt_err_set(err, KT_E_POLICY, "spec.audit.file %s is no regular file: name another one", path);
	} else if (!made || sync_folder(path, err) == KT_OK) {
		return fd;
	}
	if (fd >= 0) {
		close(fd);
	}
	return -1;
}

static enum kt_code write_file(const char *path, const char *line, size_t len, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = open_file(path, err);

	if (fd < 0) {
		return err->code;
	}
	/* One write: a line is there whole, or not at all unless the disk is full. */
	if (write(fd, line, len) != (ssize_t)len) {
		return kt_err_sys(err, "spec.audit.file %s", path);
	}
	return fdatasync(fd) == 0 ? KT_OK : kt_err_sys(err, "spec.audit.file %s", path);
}

/* --- the system's log ------------------------------------------------------------------------------------------------- */

static enum kt_code write_syslog(const char *text, struct kt_err *err)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = SYSLOG_SOCKET};
	KT_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char line[KT_PATH_MAX + 256];
	int len = snprintf(line, sizeof(line), SYSLOG_PRIORITY "keyturn[%lld]: %s", (long long)getpid(), text);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0 ||
	    send(fd, line, (size_t)len, MSG_NOSIGNAL) != len) {
		return kt_err_sys(err, "spec.audit.anchor: Syslog: " SYSLOG_SOCKET);
	}
	return KT_OK;
}

/* --- both --------------------------------------------------------------------------------------------------------------- */

enum kt_code kt_anchor_check(const struct kt_generation *generation, struct kt_err *err)
{
	const struct kt_audit_settings *audit = &generation->agent->agent.audit;
	enum kt_code code = KT_OK;
	int fd;

	if (audit->anchor != KT_ANCHOR_FILE) {
		return KT_OK; /* a log daemon may come up after us */
	}
	fd = open_file(audit->file, err);
	if (fd < 0) {
		return err->code;
	}
	close(fd);
	code = kt_io_check_trusted(audit->file, geteuid(), err);
	return code == KT_OK ? KT_OK : kt_err_prefix(err, "spec.audit.file");
}

void kt_warden_anchor(struct kt_warden *warden, int64_t seq, const char *hash)
{
	const struct kt_audit_settings *audit = &warden->current->agent->agent.audit;
	char line[KT_PATH_MAX + 256];
	int len = format(warden, seq, hash, line, sizeof(line) - 1);
	enum kt_code code = KT_OK;
	struct kt_err err;

	kt_err_clear(&err);
	if (audit->anchor == KT_ANCHOR_SYSLOG) {
		code = write_syslog(line, &err);
	} else if (audit->anchor == KT_ANCHOR_FILE) {
		line[len] = '\n';
		code = write_file(audit->file, line, (size_t)len + 1, &err);
	}
	if (code != KT_OK && !warden->anchor_failing) { /* said once; the next head stands for this one, too */
		kt_log_err(KT_LOG_ERROR, &err, "the head of the audit chain is not written down outside; it is tried with the next records");
	} else if (code == KT_OK && warden->anchor_failing) {
		kt_log(KT_LOG_INFO, "the head of the audit chain is written down outside again");
	}
	warden->anchor_failing = code != KT_OK;
}
