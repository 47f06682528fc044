/* Opening volumes: under the secretsDir or at a Consumer's own path, without links, and only where nobody else writes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

#include "keeper/deliver/deliver_internal.h"

struct kt_volume_root {
	int fd;
	bool memory;
	dev_t dev;
	struct kt_volume_policy policy;
	char *path;
};

static mode_t dir_mode(const struct kt_volume_policy *policy)
{
	return policy->dir_mode ? policy->dir_mode : 0755;
}

/* L4: what others can write to, they can make us publish. Fills st. */
static enum kt_code check_dir(int fd, const struct kt_volume_policy *policy, const char *label, struct stat *st,
                              struct kt_err *err)
{
	if (fstat(fd, st) != 0)
		return kt_err_sys(err, "%s: cannot look at the folder", label);
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return kt_err_set(err, KT_E_POLICY, "%s belongs to uid %u: give it to the agent", label,
		                  (unsigned)st->st_uid);
	if ((st->st_mode & 022) == 0)
		return KT_OK;
	if (!kt_io_is_mount_root(fd, ""))
		return kt_err_set(err, KT_E_POLICY, "%s is writable by others (mode %04o): chmod go-w it", label,
		                  (unsigned)(st->st_mode & 07777));
	if (policy->allow_shared)
		return KT_OK; /* the kubelet made it so; what is made in it belongs to us alone */
	return kt_err_set(err, KT_E_POLICY,
	                  "%s is writable by others (mode %04o): chmod go-w it, or say allowShared: true where it is a volume "
	                  "of a pod",
	                  label, (unsigned)(st->st_mode & 07777));
}

static enum kt_code check_memory(bool memory, const struct kt_volume_policy *policy, const char *label,
                                 struct kt_err *err)
{
	if (memory || policy->allow_persistent)
		return KT_OK;
	return kt_err_set(err, KT_E_POLICY,
	                  "%s is not on a memory-backed file system: use a tmpfs, or set allowPersistent: true (in spec of kind Agent for "
	                  "secretsDir, in spec.volumes[] of a Consumer for a volume of its own)",
	                  label);
}

/* The folder of an absolute path with all its rules; -1 on failure. */
static int open_path(const char *path, const struct kt_volume_policy *policy, bool *ret_made, bool *ret_memory,
                     dev_t *ret_dev, struct kt_err *err)
{
	struct kt_err detail;
	struct stat st;
	int fd;

	*ret_made = false;
	kt_err_clear(&detail);
	if (path[0] != '/') {
		kt_err_set(err, KT_E_INVALID, "%s: the path of a volume must be absolute", path);
		return -1;
	}
	fd = kt_io_open_nolinks(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, &detail);
	if (fd < 0 && (detail.code == KT_E_NOTFOUND || detail.sys_errno == ENOENT)) {
		fd = kt_io_open_dir_create(path, dir_mode(policy), err);
		*ret_made = fd >= 0;
		/* The umask had its say: what was asked for counts. */
		if (fd >= 0 && fchmod(fd, dir_mode(policy)) != 0) {
			kt_err_sys(err, "%s: cannot set the mode", path);
			goto fail;
		}
	} else if (fd < 0 && err) {
		*err = detail;
	}
	if (fd < 0)
		return -1;
	if (check_dir(fd, policy, path, &st, err) != KT_OK)
		goto fail;
	if (kt_io_check_trusted_in_pod(path, geteuid(), policy->allow_shared ? KT_TRUST_MOUNT | KT_TRUST_MOUNT_ABOVE : 0,
	                               err) != KT_OK)
		goto fail;
	*ret_memory = kt_io_is_memory_backed(fd);
	*ret_dev = st.st_dev;
	if (check_memory(*ret_memory, policy, path, err) != KT_OK)
		goto fail;
	return fd;
fail:
	if (fd >= 0)
		close(fd);
	return -1;
}

enum kt_code kt_volume_root_create(const char *path, const struct kt_volume_policy *policy,
                                   struct kt_volume_root **ret, struct kt_err *err)
{
	struct kt_volume_policy strict = KT_VOLUME_POLICY_DEFAULT;
	struct kt_volume_root *root;
	struct kt_err detail;
	bool made;

	*ret = NULL;
	root = kt_calloc(1, sizeof(*root));
	if (!root)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
	root->fd = -1;
	root->policy = policy ? *policy : strict;
	root->path = kt_strdup(path);
	if (!root->path) {
		kt_volume_root_destroy(root);
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
	}
	kt_err_clear(&detail);
	root->fd = open_path(path, &root->policy, &made, &root->memory, &root->dev, &detail);
	if (root->fd < 0) {
		kt_volume_root_destroy(root);
		if (err)
			*err = detail;
		return detail.code;
	}
	*ret = root;
	return KT_OK;
}

void kt_volume_root_destroy(struct kt_volume_root *root)
{
	if (!root)
		return;
	if (root->fd >= 0)
		close(root->fd);
	kt_free(root->path);
	kt_free(root);
}

const char *kt_volume_root_path(const struct kt_volume_root *root)
{
	return root->path;
}

/* Opens name below dirfd, making it where `create`. -1 on failure (KT_E_NOTFOUND when it is not there). */
static int open_below(int dirfd, const char *name, bool create, bool durable, const struct kt_volume_policy *policy,
                      const char *label, bool *ret_made, struct kt_err *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	*ret_made = false;
	if (fd < 0 && (errno != ENOENT || !create)) {
		fd = kt_fs_open_dir(dirfd, name, label, err);
		/* What stood in the way of the first look is gone, and so there is nothing yet: that is no error. */
		if (fd < 0 && create && err && err->code == KT_E_NOTFOUND)
			kt_err_clear(err);
		else
			return fd;
	}
	if (fd >= 0)
		return fd;
	if (kt_fs_mkdir(dirfd, name, dir_mode(policy), label, ret_made, err) != KT_OK)
		return -1;
	fd = kt_fs_open_dir(dirfd, name, label, err);
	if (fd >= 0 && *ret_made && fchmod(fd, dir_mode(policy)) != 0) {
		kt_err_sys(err, "%s: cannot set the mode", label);
		close(fd);
		fd = -1;
	}
	/* A volume that is filled but whose own name is lost after a power cut would not be served. */
	if (fd >= 0 && *ret_made && durable && kt_fs_sync(dirfd, "the folder above", label, err) != KT_OK) {
		close(fd);
		fd = -1;
	}
	if (fd < 0 && *ret_made)
		unlinkat(dirfd, name, AT_REMOVEDIR);
	return fd;
}

/* The folder of a namespace; refused when it is a secret's volume. *ret_fd is the root's own for the default one. */
static enum kt_code open_namespace(struct kt_volume_root *root, const char *ns, bool create, int *ret_fd,
                                   struct kt_err *err)
{
	char label[512], link[KT_GENERATION_MAX];
	struct stat st;
	enum kt_fs_link found;
	bool made;
	enum kt_code code;

	*ret_fd = root->fd;
	if (!ns || !*ns || strcmp(ns, "default") == 0)
		return KT_OK;
	if (!kt_dns1123_subdomain(ns))
		return kt_err_set(err, KT_E_INVALID, "%s is no valid namespace", ns);
	snprintf(label, sizeof(label), "%s/%s", root->path, ns);
	*ret_fd = open_below(root->fd, ns, create, !root->memory, &root->policy, label, &made, err);
	if (*ret_fd < 0)
		return err ? err->code : KT_E_SYS;
	if (made)
		return KT_OK;
	code = check_dir(*ret_fd, &root->policy, label, &st, err);
	if (code == KT_OK)
		code = kt_fs_readlink(*ret_fd, KT_DATA_LINK, link, sizeof(link), label, &found, err);
	if (code == KT_OK && found != KT_FS_LINK_NONE)
		code = kt_err_set(err, KT_E_POLICY, "%s is the volume of a secret and cannot be a namespace too", label);
	if (code != KT_OK) {
		close(*ret_fd);
		*ret_fd = -1;
	}
	return code;
}

static enum kt_code open_volume(struct kt_volume_root *root, const char *ns, const char *secret_name,
                                const struct kt_volume_policy *policy, bool create, struct kt_volume *vol,
                                struct kt_err *err)
{
	struct stat st;
	struct kt_err detail;
	int dirfd = -1;
	enum kt_code code;

	*vol = KT_VOLUME_CLOSED;
	kt_err_clear(&detail);
	vol->policy = policy ? *policy : root->policy;
	if (!kt_dns1123_subdomain(secret_name))
		return kt_err_set(err, KT_E_INVALID, "%s is no valid secret name", secret_name);
	code = open_namespace(root, ns, create, &dirfd, &detail);
	if (code != KT_OK)
		goto out;
	snprintf(vol->name, sizeof(vol->name), "%s%s%s/%s", root->path, dirfd == root->fd ? "" : "/",
	         dirfd == root->fd ? "" : ns, secret_name);
	vol->fd = open_below(dirfd, secret_name, create, !root->memory, &vol->policy, vol->name, &vol->fresh, &detail);
	code = detail.code;
	if (vol->fd < 0)
		goto out;
	code = check_dir(vol->fd, &vol->policy, vol->name, &st, &detail);
	if (code != KT_OK)
		goto out;
	vol->memory = st.st_dev == root->dev ? root->memory : kt_io_is_memory_backed(vol->fd);
	code = check_memory(vol->memory, &vol->policy, vol->name, &detail);
out:
	if (dirfd >= 0 && dirfd != root->fd)
		close(dirfd);
	if (code != KT_OK) {
		kt_volume_close(vol);
		if (err)
			*err = detail;
	}
	return code;
}

enum kt_code kt_volume_open(struct kt_volume_root *root, const char *ns, const char *secret_name,
                            const struct kt_volume_policy *policy, struct kt_volume *vol, struct kt_err *err)
{
	return open_volume(root, ns, secret_name, policy, true, vol, err);
}

enum kt_code kt_volume_open_existing(struct kt_volume_root *root, const char *ns, const char *secret_name,
                                     const struct kt_volume_policy *policy, struct kt_volume *vol,
                                     struct kt_err *err)
{
	return open_volume(root, ns, secret_name, policy, false, vol, err);
}

enum kt_code kt_volume_open_path(const char *path, const struct kt_volume_policy *policy, struct kt_volume *vol,
                                 struct kt_err *err)
{
	struct kt_volume_policy strict = KT_VOLUME_POLICY_DEFAULT;
	struct kt_err detail;
	dev_t dev;

	*vol = KT_VOLUME_CLOSED;
	vol->policy = policy ? *policy : strict;
	kt_err_clear(&detail);
	snprintf(vol->name, sizeof(vol->name), "%s", path);
	vol->fd = open_path(path, &vol->policy, &vol->fresh, &vol->memory, &dev, &detail);
	if (vol->fd >= 0)
		return KT_OK;
	if (err)
		*err = detail;
	return detail.code;
}

void kt_volume_close(struct kt_volume *vol)
{
	if (vol->fd >= 0)
		close(vol->fd);
	vol->fd = -1;
}
