/* The walls of a room: capabilities, Landlock, no_new_privs, seccomp, no core dumps; closed once, after start. */
#ifndef KT_SANDBOX_H
#define KT_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/err.h"

enum {
	KT_SANDBOX_READ = 1,  /* below this path: read files and list directories */
	KT_SANDBOX_WRITE = 2, /* below this path: create, write, rename, remove (implies read) */
};

struct kt_sandbox_path {
	const char *path;
	int access;
};

/* Which system calls beyond the common set a room needs. */
enum {
	KT_SANDBOX_FILES = 1,     /* keeper: opening and changing files */
	KT_SANDBOX_INET = 2,      /* courier: outbound sockets (AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM for DNS) */
	KT_SANDBOX_ACCEPT = 4,    /* desk: accept on inherited listeners; no socket(), no connect() */
	KT_SANDBOX_PASSED = 8,    /* keeper: read and write on passed stream sockets (admin connections) */
};

struct kt_sandbox {
	const struct kt_sandbox_path *paths; /* Landlock rules; what is not named is out of reach */
	unsigned path_count;
	int calls;
	bool no_network; /* Landlock: deny TCP connect where the kernel can (ABI 4); bind is always denied */
	/* Bits 1 << CAP_… that stay if the room has them: a keeper started as root keeps what chown of volumes needs.
	 * The bounding and ambient sets are emptied in any case. */
	uint64_t keep_caps;
};

/* Which walls stand, for `doctor` and the log. */
struct kt_sandbox_report {
	bool no_new_privs;
	bool no_core;
	bool caps_dropped;
	bool seccomp;
	int landlock_abi; /* 0: the kernel has none */
};

/* In order: non-dumpable and no core, capabilities, Landlock. Call before the loop's threads start. */
enum kt_code kt_sandbox_prepare(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err);
/* seccomp with TSYNC, no more clone. Call after the loop's threads exist. A forbidden call ends the process (SIGSYS). */
enum kt_code kt_sandbox_close(const struct kt_sandbox *box, struct kt_sandbox_report *ret, struct kt_err *err);

#endif
