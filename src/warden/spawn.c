/* A room's process: its program, its few variables, its user, its end of the wire. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/room.h"
#include "kt/text.h"
#include "warden/internal.h"

#define ENV_MAX 48

/* What the child needs between fork and exec to become another user and keep a few capabilities. */
struct become {
	const struct kt_ids *ids;
	uint64_t caps;
};

/* --- environment ------------------------------------------------------------------------------------------------ */

/* Everybody's; then what only one room has a use for. */
static const char *const common_env[] = {"TZ", NULL};
static const char *const keeper_env[] = {"CREDENTIALS_DIRECTORY", NULL}; /* the master key as a systemd credential */
static const char *const courier_env[] = {"SSL_CERT_FILE", "SSL_CERT_DIR", NULL};
static const char *const test_env[] = {"LD_PRELOAD",  "FAKETIME",     "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                       "LSAN_OPTIONS", "LLVM_PROFILE_FILE", NULL};

bool kt_warden_test_env(void)
{
	const char *on = getenv("KEYTURN_TEST_ENV");

	return getauxval(AT_SECURE) == 0 && on != NULL && strcmp(on, "1") == 0;
}

static void add_named(char **env, unsigned *count, const char *const *names)
{
	for (; *names != NULL && *count < ENV_MAX; names++) {
		const char *value = getenv(*names);

		if (value != NULL) {
			env[*count] = kt_asprintf("%s=%s", *names, value);
			*count += env[*count] != NULL;
		}
	}
}

/* FAKETIME_…, KEYTURN_TEST_…: whatever a test sets. */
static void add_prefixed(char **env, unsigned *count, const char *prefix)
{
	char **at;

	for (at = environ; *at != NULL && *count < ENV_MAX; at++) {
		if (kt_starts_with(*at, prefix)) {
			env[*count] = kt_strdup(*at);
			*count += env[*count] != NULL;
		}
	}
}

static void make_env(enum kt_room room, char **env)
{
	unsigned count = 0;

	env[count] = kt_strdup("LANG=C.UTF-8");
	count += env[count] != NULL;
	env[count] = kt_strdup("PATH=" KT_HAND_PATH);
	count += env[count] != NULL;
	add_named(env, &count, common_env);
	if (room == KT_ROOM_KEEPER) {
		add_named(env, &count, keeper_env);
	} else if (room == KT_ROOM_COURIER) {
		add_named(env, &count, courier_env);
	}
	if (kt_warden_test_env()) {
		add_named(env, &count, test_env);
		add_prefixed(env, &count, "FAKETIME_");
		add_prefixed(env, &count, "KEYTURN_TEST_");
	}
	env[count] = NULL;
}

/* --- users ------------------------------------------------------------------------------------------------------ */

/* The user that a room gets; false when it stays with ours. */
static enum kt_code room_user(const struct kt_warden_room *room, struct kt_ids *ret, bool *ret_found,
                              struct kt_err *err)
{
	const struct kt_rooms *users = &room->warden->current->agent->agent.users;
	const char *const named[KT_ROOM_COUNT] = {
	        [KT_ROOM_KEEPER] = users->keeper, [KT_ROOM_COURIER] = users->courier, [KT_ROOM_DESK] = users->desk};
	const char *name = named[room->self];
	char fallback[32] = "keyturn-";
	enum kt_code code;

	*ret_found = false;
	memset(ret, 0, sizeof(*ret));
	if (geteuid() != 0) {
		return KT_OK;
	}
	if (name != NULL) {
		code = kt_ids_resolve(name, NULL, ret, err);
		*ret_found = code == KT_OK;
		return code;
	}
	(void)strncat(fallback, kt_warden_room_name(room->self), sizeof(fallback) - strlen(fallback) - 1);
	*ret_found = kt_ids_resolve(fallback, NULL, ret, NULL) == KT_OK;
	return KT_OK;
}

/* The keeper gives files to their owners, wherever the volumes are: what root could do and it no longer may by itself. */
static uint64_t room_caps(enum kt_room room)
{
	return room != KT_ROOM_KEEPER ? 0
	                              : 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID;
}

/* In the child: system calls only. */
static int become_user(void *arg)
{
	const struct become *become = arg;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}, {0}};
	uint32_t caps = (uint32_t)become->caps;

	/* Only while we are root; the first number that the kernel doesn't know ends the list. */
	for (unsigned long cap = 0; cap < 64; cap++) {
		if ((become->caps >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			break;
		}
	}
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_setgroups, (size_t)become->ids->group_count, become->ids->groups) < 0 ||
	    syscall(SYS_setresgid, become->ids->gid, become->ids->gid, become->ids->gid) < 0 ||
	    syscall(SYS_setresuid, become->ids->uid, become->ids->uid, become->ids->uid) < 0) {
		return errno;
	}
	if (syscall(SYS_capget, &header, data) < 0) {
		return errno;
	}
	data[0].permitted &= caps;
	data[0].effective = data[0].inheritable = data[0].permitted;
	data[1].permitted = data[1].effective = data[1].inheritable = 0;
	if (syscall(SYS_capset, &header, data) < 0) {
		return errno;
	}
	for (unsigned long cap = 0; cap < 32; cap++) {
		if ((data[0].permitted & (1u << cap)) != 0) {
			(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
		}
	}
	/* A change of user has cleared it. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? errno : 0;
}

/* A directory that must be the keeper's: made, and handed over while it is still root's. */
static enum kt_code own_dir(const char *path, mode_t mode, const struct kt_ids *ids, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = kt_io_open_dir_create(path, mode, err);
	struct stat st;

	if (fd < 0) {
		return err->code;
	}
	if (fstat(fd, &st) < 0 ||
	    (st.st_uid == 0 && fchownat(fd, "", ids->uid, ids->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)) {
		return kt_err_sys(err, "%s can't be given to the keeper", path);
	}
	return KT_OK;
}

static enum kt_code own_dirs(const struct kt_warden_room *room, const struct kt_ids *ids, struct kt_err *err)
{
	const struct kt_generation *current = room->warden->current;
	enum kt_code code = own_dir(current->state_dir, 0700, ids, err);

	return code == KT_OK ? own_dir(current->secrets_dir, 0755, ids, err) : code;
}

/* --- start ------------------------------------------------------------------------------------------------------ */

enum kt_code kt_room_spawn(struct kt_warden_room *room, int fd, void (*exited)(int status, void *arg),
                           struct kt_ids *ret_ids, struct kt_err *err)
{
	char name[32] = "keyturn-";
	char *argv[] = {name, NULL};
	char *env[ENV_MAX + 1];
	int fds[] = {-1, -1, STDERR_FILENO, fd};
	struct become become = {ret_ids, room_caps(room->self)};
	struct kt_spawn spawn = {.exec_fd = room->exec_fd,
	                         .argv = argv,
	                         .envp = env,
	                         .fds = fds,
	                         .fd_count = KT_ROOM_WARDEN_FD + 1,
	                         .cwd_fd = -1,
	                         .new_session = true, /* Ctrl-C at the terminal is for the warden, which ends the rooms */
	                         .parent_death = true};
	bool own_user = false;
	enum kt_code code = room_user(room, ret_ids, &own_user, err);

	if (code == KT_OK && own_user && room->self == KT_ROOM_KEEPER) {
		code = own_dirs(room, ret_ids, err);
	}
	if (code != KT_OK) {
		return code;
	}
	if (own_user) {
		spawn.in_child = become_user;
		spawn.in_child_arg = &become;
	} else {
		ret_ids->uid = geteuid();
		ret_ids->gid = getegid();
	}
	(void)strncat(name, kt_warden_room_name(room->self), sizeof(name) - strlen(name) - 1);
	make_env(room->self, env);
	code = kt_child_spawn(room->warden->loop, &spawn, exited, room, &room->child, err);
	for (char **at = env; *at != NULL; at++) {
		kt_free(*at);
	}
	return code;
}
