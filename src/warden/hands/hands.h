/* The hands: everything that touches a consumer from outside: exec, signals, systemd, touch, and candidates' mounts. */
#ifndef KT_HANDS_H
#define KT_HANDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kt/buf.h"
#include "kt/err.h"
#include "kt/loop.h"
#include "kt/msg.h"

#define KT_HAND_OUTPUT_MAX  4096u         /* of a hook's output that is kept, after escaping */
#define KT_HAND_TIME_LIMIT  (30 * KT_SECOND)
#define KT_HAND_GRACE       (5 * KT_SECOND) /* between SIGTERM and SIGKILL */
#define KT_HAND_PARALLEL    4u
#define KT_HAND_PATH        "/usr/sbin:/usr/bin:/sbin:/bin"

/* What a manifest allows the agent to do to a consumer. Strings belong to the generation that it is part of. */
enum kt_hand_kind { KT_HAND_EXEC, KT_HAND_SIGNAL, KT_HAND_SYSTEMD, KT_HAND_TOUCH, KT_HAND_NONE };

struct kt_hand {
	enum kt_hand_kind kind;
	/* exec */
	char **argv;      /* NULL-terminated; argv[0] absolute */
	char **env;       /* NULL or NULL-terminated "NAME=value", on top of the fixed environment */
	char *user;       /* NULL: the agent's own user; nobody when that is root: as root only what says root */
	char *group;      /* NULL: the user's own */
	kt_ms time_limit; /* 0: KT_HAND_TIME_LIMIT */
	/* signal: one of pid_file, unit, exe */
	int signum;
	char *pid_file;
	char *exe;    /* also narrows pid_file and unit down when given */
	char *cgroup; /* with exe: only processes in or below this cgroup */
	char *unit;   /* signal: whose main pid; systemd: which unit */
	char *action; /* systemd: reload, restart, … */
	int64_t lock_at; /* exec, 0: none: never twice at once, by a lock at this place of the hands' file */
	/* touch */
	char *path;
};

/* A copy of its own / the end of it. */
enum kt_code kt_hand_copy(const struct kt_hand *hand, struct kt_hand *ret, struct kt_err *err);
void kt_hand_finish(struct kt_hand *hand);

/* What a hook is told; all borrowed. "" and 0 for what does not apply. */
struct kt_hand_env {
	struct kt_view name;
	struct kt_view ns;
	struct kt_view secret_dir;
	struct kt_view step;
	kt_ms not_after;
	struct kt_view fingerprint;
	struct kt_view serial;
	struct kt_view traceparent;
	char *const *more; /* further NAME=value, NULL-terminated; NULL: none */
};

enum kt_hand_outcome { KT_HAND_OK = 0, KT_HAND_FAILED, KT_HAND_TIMED_OUT, KT_HAND_CANNOT, KT_HAND_BUSY };

struct kt_hand_result {
	enum kt_hand_outcome outcome;
	int status;        /* exit status, or 128 + signal */
	bool in_namespace; /* the candidate was mounted over the live set */
	bool skipped;      /* the process is younger than the delivery */
	char what[1024];   /* one line for people */
	struct kt_view output;
};

typedef void kt_hand_done_fn(const struct kt_hand_result *result, void *arg);

struct kt_hands_config {
	unsigned parallel;                     /* hooks running at once, more wait; 0: KT_HAND_PARALLEL */
	int lock_fd;                           /* for hands with lock_at; stays the caller's */
	const char *systemctl;                 /* NULL: /usr/bin/systemctl or /bin/systemctl */
	bool (*is_ours)(pid_t pid, void *arg); /* never signalled: the agent's own processes */
	void *arg;
};

struct kt_hands;

enum kt_code kt_hands_create(struct kt_loop *loop, const struct kt_hands_config *config, struct kt_hands **ret,
                             struct kt_err *err);
/* Kills what runs (process groups, SIGKILL) without calling back. */
void kt_hands_destroy(struct kt_hands *hands);
/* The wall clock was set at this (new) time: deliveries before it can't be compared with the age of a process. */
void kt_hands_clock_changed(struct kt_hands *hands, kt_ms wall);
bool kt_hands_busy(const struct kt_hands *hands);

/*
 * Uses a hand; done is called exactly once, never before this returns. roots: directories below which binds
 * may be (NULL-terminated); binds: lines "staged\tlive\n" (validate on the candidate). delivered_at: wall ms, 0 when nothing was switched.
 */
void kt_hands_run(struct kt_hands *hands, const struct kt_hand *hand, const struct kt_hand_env *env,
                  struct kt_view binds, const char *const *roots, kt_ms delivered_at, kt_hand_done_fn *done,
                  void *arg);
/* The answer is of no interest any more: done is not called for calls with this arg. They run on. */
void kt_hands_forget(struct kt_hands *hands, const void *arg);

/* --- exec solvers (solve.c) ------------------------------------------------------------------------------------ */

/* How a program that writes a TXT record wants to be called: docs/exec-solver.md. */
enum kt_solve_convention { KT_SOLVE_KEYTURN, KT_SOLVE_CERTBOT, KT_SOLVE_DEHYDRATED, KT_SOLVE_LEGO };

struct kt_solve_program {
	enum kt_solve_convention convention;
	struct kt_hand hand;  /* adds, and removes where cleanup is NULL */
	char **cleanup;       /* certbot: argv of the clean-up hook; NULL: nothing is run */
};

/* One record; all borrowed. */
struct kt_solve_ask {
	bool add; /* else: remove */
	struct kt_view domain, record, value, token, key_authorization;
	struct kt_view domains;     /* all names of the order, with commas */
	struct kt_view auth_output; /* what adding has printed */
};

/* A program as it is to be run for this record. */
struct kt_solve_call {
	struct kt_hand hand; /* kind KT_HAND_NONE: nothing is to be run */
	char **env;          /* NAME=value, for kt_hand_env.more */
};

/* KT_E_INVALID for what can't stand in an argument. */
enum kt_code kt_solve_call_init(const struct kt_solve_program *program, const struct kt_solve_ask *ask,
                                struct kt_solve_call *ret, struct kt_err *err);
void kt_solve_call_finish(struct kt_solve_call *call);
void kt_solve_program_finish(struct kt_solve_program *program);

/* --- signals and processes (process.c) ------------------------------------------------------------------------- */

/* "HUP" or "SIGHUP" to a number; 0 for a name that consumers have no use for. */
int kt_signal_number(const char *name);

/* A process as it was when it was looked at; pid alone says nothing. */
struct kt_process {
	pid_t pid;
	pid_t parent;
	uid_t uid;
	uint64_t start_ticks; /* since boot */
	dev_t exe_dev;
	ino_t exe_ino;
	char exe[1024]; /* "" when it may not be read */
};

enum kt_code kt_process_read(pid_t pid, struct kt_process *ret, struct kt_err *err);
/* Wall ms at which it was started, by the clocks as they are now. */
kt_ms kt_process_started(const struct kt_process *process, const struct kt_clock *clock);
/* The pid in a pid file that only root, the agent's user or a non-root daemon may write; *ret_owner is its owner. */
enum kt_code kt_pid_file_read(const char *path, pid_t *ret, uid_t *ret_owner, struct kt_err *err);

/* --- candidates (mounts.c) ------------------------------------------------------------------------------------- */

/* Mounts to make in a child's own namespace; checked by the parent, made between fork and exec. */
struct kt_mounts;

/* KT_E_NOTFOUND: nothing live yet; KT_E_POLICY: a path outside roots. may_userns: the child keeps our ids. */
enum kt_code kt_mounts_create(struct kt_view binds, const char *const *roots, bool may_userns, struct kt_mounts **ret,
                              struct kt_err *err);
void kt_mounts_destroy(struct kt_mounts *mounts);
/* For kt_spawn.in_child; arg is the struct kt_mounts. */
int kt_mounts_enter(void *arg);
/* After a failed spawn: the step that failed in the child, or NULL when it was not about mounts. */
const char *kt_mounts_failed(const struct kt_mounts *mounts, int *ret_errno);

/* --- programs (run.c) ------------------------------------------------------------------------------------------ */

/* A named user's ids with all its groups. */
struct kt_ids {
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	unsigned group_count;
	char *home;
};

/* KT_E_NOTFOUND when there is no such user. group: NULL for the user's own. Names or numbers. */
enum kt_code kt_ids_resolve(const char *user, const char *group, struct kt_ids *ret, struct kt_err *err);
/* A user's or group's number by name or decimal number. */
enum kt_code kt_uid_resolve(const char *user, uid_t *ret, struct kt_err *err);
enum kt_code kt_gid_resolve(const char *group, gid_t *ret, struct kt_err *err);
void kt_ids_finish(struct kt_ids *ids);

struct kt_run_request {
	char *const *argv;
	char *const *envp;
	const struct kt_ids *ids;  /* NULL: as we are */
	struct kt_mounts *mounts;  /* NULL: none; stays the caller's and must outlive the start */
	int lock_fd;               /* with lock_at: what the child locks while it lives (struct kt_spawn) */
	int64_t lock_at;           /* 0: nothing */
	kt_ms time_limit;
};

struct kt_run_result {
	bool timed_out;
	int wait_status; /* as waitpid gives it */
	struct kt_view output;
	bool cut; /* there was more output */
};

struct kt_run;

/* Starts it: no shell, stdin /dev/null, stdout and stderr captured, nothing else open, a session of its own. */
enum kt_code kt_run_start(struct kt_loop *loop, const struct kt_run_request *request,
                           void (*done)(const struct kt_run_result *result, void *arg), void *arg,
                           struct kt_run **ret, struct kt_err *err);
/* Kills its group when it still runs. NULL accepted; safe in done. */
void kt_run_destroy(struct kt_run *run);

#endif
