/* http-01 by webroot: one small file below .well-known/acme-challenge, written and removed without following links. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"

#include "keeper/deliver/deliver_internal.h"

/* RFC 8555 section 8.3: base64url only. Anything else from a CA is an attempt to write or run something elsewhere. */
static enum kt_code check_token(const char *token, struct kt_err *err)
{
	size_t len = strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");

	if (len < 16 || len > 256 || token[len] != '\0')
		return kt_err_set(err, KT_E_PROTO, "the challenge token is not 16 to 256 base64url characters: refused");
	return KT_OK;
}

/* Opens (makes) one folder of the way; a made one is readable by the web server whatever the umask. */
static int step_down(int dirfd, const char *name, bool create, const char *label, struct kt_err *err)
{
	bool made = false;
	int fd;

	if (create && kt_fs_mkdir(dirfd, name, 0755, label, &made, err) != KT_OK)
		return -1;
	fd = kt_fs_open_dir(dirfd, name, label, err);
	if (fd >= 0 && made && fchmod(fd, 0755) != 0) {
		kt_err_sys(err, "%s: cannot set the mode of %s", label, name);
		close(fd);
		fd = -1;
	}
	return fd;
}

static int open_folder(const char *webroot, bool create, struct kt_err *err)
{
	int root, well_known, folder;

	root = kt_io_open_nolinks(AT_FDCWD, webroot, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, err);
	if (root < 0)
		return -1;
	well_known = step_down(root, ".well-known", create, webroot, err);
	close(root);
	if (well_known < 0)
		return -1;
	folder = step_down(well_known, "acme-challenge", create, webroot, err);
	close(well_known);
	return folder;
}

enum kt_code kt_challenge_write(const char *webroot, const char *token, struct kt_view key_authorization,
                                struct kt_err *err)
{
	struct kt_err detail;
	enum kt_code code;
	int fd;

	kt_err_clear(&detail);
	code = check_token(token, &detail);
	if (code == KT_OK) {
		fd = open_folder(webroot, true, &detail);
		code = detail.code;
		if (fd >= 0) {
			code = kt_io_replace_file(fd, token, key_authorization.ptr, key_authorization.len, 0644,
			                          KT_OWNER_KEEP, (gid_t)KT_OWNER_KEEP, false, &detail);
			if (code != KT_OK)
				kt_err_prefix(&detail, "%s/.well-known/acme-challenge", webroot);
			close(fd);
		}
	}
	if (code != KT_OK && err)
		*err = detail;
	return code;
}

enum kt_code kt_challenge_remove(const char *webroot, const char *token, struct kt_err *err)
{
	struct kt_err detail;
	enum kt_code code;
	int fd;

	kt_err_clear(&detail);
	code = check_token(token, &detail);
	if (code == KT_OK) {
		fd = open_folder(webroot, false, &detail);
		code = fd < 0 ? detail.code : kt_fs_unlink(fd, token, webroot, &detail);
		if (fd >= 0)
			close(fd);
		else if (code == KT_E_NOTFOUND || (code == KT_E_SYS && detail.sys_errno == ENOENT))
			return KT_OK;
	}
	if (code != KT_OK && err)
		*err = detail;
	return code;
}
