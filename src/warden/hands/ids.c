/* Users and groups of the machine: names or numbers to ids, with all the groups that a user is in. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "warden/hands/hands.h"

#define GROUPS_MAX     1024
#define LOOKUP_BUF_MAX (1024u * 1024u)

/* A passwd entry with the memory behind it. */
struct user {
	struct passwd pwd;
	struct passwd *found;
	char *buf;
};

static bool is_number(const char *name, uint32_t *ret)
{
	uint64_t number = 0;

	if (kt_parse_u64(kt_view_str(name), UINT32_MAX - 1, &number, NULL) != KT_OK) {
		return false;
	}
	*ret = (uint32_t)number;
	return true;
}

/* found stays NULL when there is none: not an error here, since numbers need no entry. */
static enum kt_code find_user(const char *name, struct user *user, struct kt_err *err)
{
	size_t size = 1024;
	uint32_t uid;
	bool number = is_number(name, &uid);
	int rc;

	memset(user, 0, sizeof(*user));
	do {
		kt_free(user->buf);
		size *= 2;
		user->buf = kt_malloc(size);
		if (user->buf == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory to look user %s up", name);
		}
		rc = number ? getpwuid_r(uid, &user->pwd, user->buf, size, &user->found)
		            : getpwnam_r(name, &user->pwd, user->buf, size, &user->found);
	} while (rc == ERANGE && size < LOOKUP_BUF_MAX);
	if (rc != 0 && rc != ENOENT && rc != ESRCH) {
		kt_free(user->buf);
		user->buf = NULL;
		errno = rc;
		return kt_err_sys(err, "user %s can't be looked up", name);
	}
	return KT_OK;
}

enum kt_code kt_uid_resolve(const char *name, uid_t *ret, struct kt_err *err)
{
	struct user user;
	uint32_t number;
	enum kt_code code;

	if (is_number(name, &number)) {
		*ret = number;
		return KT_OK;
	}
	code = find_user(name, &user, err);
	if (code != KT_OK) {
		return code;
	}
	if (user.found == NULL) {
		code = kt_err_set(err, KT_E_NOTFOUND, "there is no user %s on this machine", name);
	} else {
		*ret = user.pwd.pw_uid;
	}
	kt_free(user.buf);
	return code;
}

enum kt_code kt_gid_resolve(const char *name, gid_t *ret, struct kt_err *err)
{
	size_t size = 1024;
	struct group group;
	struct group *found = NULL;
	char *buf = NULL;
	uint32_t number;
	int rc;

	if (is_number(name, &number)) {
		*ret = number;
		return KT_OK;
	}
	do {
		kt_free(buf);
		size *= 2;
		buf = kt_malloc(size);
		if (buf == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory to look group %s up", name);
		}
		rc = getgrnam_r(name, &group, buf, size, &found);
	} while (rc == ERANGE && size < LOOKUP_BUF_MAX);
	if (found != NULL) {
		*ret = group.gr_gid;
	}
	kt_free(buf);
	if (found == NULL && rc != 0 && rc != ENOENT && rc != ESRCH) {
		errno = rc;
		return kt_err_sys(err, "group %s can't be looked up", name);
	}
	return found != NULL ? KT_OK : kt_err_set(err, KT_E_NOTFOUND, "there is no group %s on this machine", name);
}

/* All groups that the user is in. */
static enum kt_code groups_of(const char *name, gid_t gid, struct kt_ids *ids, struct kt_err *err)
{
	int count = 32;

	for (;;) {
		int wanted = count;
		gid_t *groups = kt_calloc((size_t)count, sizeof(*groups));

		if (groups == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for the groups of %s", name);
		}
		if (getgrouplist(name, gid, groups, &wanted) >= 0) {
			ids->groups = groups;
			ids->group_count = (unsigned)wanted;
			return KT_OK;
		}
		kt_free(groups);
		if (wanted <= count || wanted > GROUPS_MAX) {
			return kt_err_set(err, KT_E_LIMIT, "user %s is in more than %d groups", name, GROUPS_MAX);
		}
		count = wanted;
	}
}

/* A number without an entry: that id, the group of the same number, nothing else. */
static enum kt_code bare_number(const char *name, struct kt_ids *ids, struct kt_err *err)
{
	uint32_t number;

	if (!is_number(name, &number)) {
		return kt_err_set(err, KT_E_NOTFOUND, "there is no user %s on this machine", name);
	}
	ids->uid = number;
	ids->gid = number;
	ids->home = kt_strdup("/");
	return ids->home != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory to look user %s up", name);
}

enum kt_code kt_ids_resolve(const char *name, const char *group, struct kt_ids *ret, struct kt_err *err)
{
	struct user user;
	enum kt_code code = find_user(name, &user, err);

	memset(ret, 0, sizeof(*ret));
	if (code != KT_OK) {
		return code;
	}
	if (user.found == NULL) {
		code = bare_number(name, ret, err);
	} else {
		ret->uid = user.pwd.pw_uid;
		ret->gid = user.pwd.pw_gid;
		ret->home = kt_strdup(user.pwd.pw_dir);
		code = ret->home == NULL ? kt_err_set(err, KT_E_NOMEM, "no memory to look user %s up", name)
		                         : groups_of(user.pwd.pw_name, user.pwd.pw_gid, ret, err);
	}
	kt_free(user.buf);
	if (code == KT_OK && group != NULL) {
		code = kt_gid_resolve(group, &ret->gid, err);
	}
	if (code != KT_OK) {
		kt_ids_finish(ret);
	}
	return code;
}

void kt_ids_finish(struct kt_ids *ids)
{
	kt_free(ids->groups);
	kt_free(ids->home);
	memset(ids, 0, sizeof(*ids));
}
