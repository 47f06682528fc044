/* The walls that stand before a room's threads start: no core dumps, no capabilities, no new privileges, Landlock. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/sandbox.h"

/* --- Landlock's interface, written out: the headers of a build machine are often older than the kernel ---------- */

#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#define __NR_landlock_add_rule 445
#define __NR_landlock_restrict_self 446
#endif

enum {
	LL_CREATE_VERSION = 1 << 0,
	LL_RULE_PATH_BENEATH = 1,
};

#define LL_FS_EXECUTE     (1ull << 0)
#define LL_FS_WRITE_FILE  (1ull << 1)
#define LL_FS_READ_FILE   (1ull << 2)
#define LL_FS_READ_DIR    (1ull << 3)
#define LL_FS_REMOVE_DIR  (1ull << 4)
#define LL_FS_REMOVE_FILE (1ull << 5)
#define LL_FS_MAKE_DIR    (1ull << 7)
#define LL_FS_MAKE_REG    (1ull << 8)
#define LL_FS_MAKE_SYM    (1ull << 12)
#define LL_FS_ABI1        ((1ull << 13) - 1)
#define LL_FS_REFER       (1ull << 13) /* ABI 2 */
#define LL_FS_TRUNCATE    (1ull << 14) /* ABI 3 */
#define LL_FS_IOCTL_DEV   (1ull << 15) /* ABI 5 */
#define LL_NET_BIND_TCP   (1ull << 0)  /* ABI 4 */
#define LL_NET_CONNECT    (1ull << 1)
#define LL_SCOPE_ABSTRACT (1ull << 0)  /* ABI 6 */
#define LL_SCOPE_SIGNAL   (1ull << 1)

#define LL_READ  (LL_FS_READ_FILE | LL_FS_READ_DIR)
#define LL_WRITE (LL_READ | LL_FS_WRITE_FILE | LL_FS_REMOVE_DIR | LL_FS_REMOVE_FILE | LL_FS_MAKE_DIR |         \
                  LL_FS_MAKE_REG | LL_FS_MAKE_SYM | LL_FS_REFER | LL_FS_TRUNCATE)
/* The rights that make sense for a rule on something that is not a directory. */
#define LL_ON_FILE (LL_FS_EXECUTE | LL_FS_WRITE_FILE | LL_FS_READ_FILE | LL_FS_TRUNCATE | LL_FS_IOCTL_DEV)

struct ll_ruleset {
	uint64_t fs;
	uint64_t net;
	uint64_t scoped;
};

struct ll_path {
	uint64_t allowed;
	int32_t parent_fd;
} __attribute__((packed));

/* Size of struct ll_ruleset as ABI 1, 4 and 6 knew it. */
static size_t ruleset_size(int abi)
{
	return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static struct ll_ruleset ruleset_for(int abi, const struct kt_sandbox *box)
{
	struct ll_ruleset rules = {.fs = LL_FS_ABI1};

	if (abi >= 2)
		rules.fs |= LL_FS_REFER;
	if (abi >= 3)
		rules.fs |= LL_FS_TRUNCATE;
	if (abi >= 4) {
		/* No room ever binds a port: listeners are handed over by the warden. */
		rules.net = LL_NET_BIND_TCP;
		if (box->no_network)
			rules.net |= LL_NET_CONNECT;
	}
	if (abi >= 5)
		rules.fs |= LL_FS_IOCTL_DEV;
	if (abi >= 6)
		rules.scoped = LL_SCOPE_ABSTRACT | LL_SCOPE_SIGNAL;
	return rules;
}

static enum kt_code landlock_allow(int ruleset, uint64_t handled, const struct kt_sandbox_path *path,
                                   struct kt_err *err)
{
	KT_AUTOCLOSE int fd = -1;
	struct ll_path rule = {0};
	struct stat st;

	fd = open(path->path, O_PATH | O_CLOEXEC);
	if (fd < 0) {
		/* A file that a library might read (resolv.conf, …) may be missing; a place to write to may not. */
		if (!(path->access & KT_SANDBOX_WRITE) && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
			return KT_OK;
		return kt_err_sys(err, "sandbox: %s can't be opened", path->path);
	}
	if (fstat(fd, &st) < 0)
		return kt_err_sys(err, "sandbox: %s can't be examined", path->path);
	rule.allowed = (path->access & KT_SANDBOX_WRITE) ? LL_WRITE : LL_READ;
	rule.allowed &= handled;
	if (!S_ISDIR(st.st_mode))
		rule.allowed &= LL_ON_FILE;
	rule.parent_fd = fd;
	if (syscall(__NR_landlock_add_rule, ruleset, LL_RULE_PATH_BENEATH, &rule, 0u) < 0)
		return kt_err_sys(err, "sandbox: Landlock refuses a rule for %s", path->path);
	return KT_OK;
}

static enum kt_code close_landlock(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err)
{
	long abi = syscall(__NR_landlock_create_ruleset, NULL, (size_t)0, (uint32_t)LL_CREATE_VERSION);
	KT_AUTOCLOSE int ruleset = -1;
	struct ll_ruleset rules;
	enum kt_code code;

	if (abi < 1)
		return KT_OK; /* ENOSYS, EOPNOTSUPP, or a container's seccomp: the report says 0 */
	rules = ruleset_for((int)abi, box);
	ruleset = (int)syscall(__NR_landlock_create_ruleset, &rules, ruleset_size((int)abi), 0u);
	if (ruleset < 0)
		return kt_err_sys(err, "sandbox: Landlock (ABI %ld) refuses the rule set", abi);
	for (unsigned i = 0; i < box->path_count; i++) {
		code = landlock_allow(ruleset, rules.fs, &box->paths[i], err);
		if (code)
			return code;
	}
#ifdef KT_SANITIZERS
	/* The leak checker reads /proc/self at exit. */
	code = landlock_allow(ruleset, rules.fs, &(struct kt_sandbox_path){"/proc", KT_SANDBOX_READ}, err);
	if (code)
		return code;
#endif
	if (syscall(__NR_landlock_restrict_self, ruleset, 0u) < 0)
		return kt_err_sys(err, "sandbox: Landlock can't be turned on");
	ret->landlock_abi = (int)abi;
	return KT_OK;
}

/* --- capabilities ----------------------------------------------------------------------------------------------- */

static enum kt_code drop_capabilities(uint64_t keep, struct kt_sandbox_report *ret, struct kt_err *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}, {0}};

	/* The bounding set needs CAP_SETPCAP; without it there is nothing that an exec could win either, because of
	 * no_new_privs. The first number that the kernel doesn't know ends the list. */
	for (unsigned long cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			break;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &header, data) < 0)
		return kt_err_sys(err, "sandbox: the capabilities can't be read");
	for (unsigned i = 0; i < 2; i++) {
		uint32_t mask = (uint32_t)(keep >> (32 * i));

		data[i].permitted &= mask;
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return kt_err_sys(err, "sandbox: the capabilities can't be dropped");
	ret->caps_dropped = true;
	return KT_OK;
}

/* --- the order -------------------------------------------------------------------------------------------------- */

static enum kt_code forbid_core(struct kt_sandbox_report *ret, struct kt_err *err)
{
	static const struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return kt_err_sys(err, "sandbox: core dumps can't be turned off");
#ifndef KT_SANITIZERS
	/* Also closes /proc/self and ptrace to processes of the same user; the leak checker would need them. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return kt_err_sys(err, "sandbox: the process can't be made undumpable");
#endif
	ret->no_core = true;
	return KT_OK;
}

enum kt_code kt_sandbox_prepare(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err)
{
	enum kt_code code;

	*ret = (struct kt_sandbox_report){0};
	code = forbid_core(ret, err);
	if (code)
		return code;
	code = drop_capabilities(box->keep_caps, ret, err);
	if (code)
		return code;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return kt_err_sys(err, "sandbox: no_new_privs can't be set");
	ret->no_new_privs = true;
	return close_landlock(box, ret, err);
}
