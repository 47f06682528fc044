/* Inside the warden: the warden itself and its rooms. */
#ifndef KT_WARDEN_INTERNAL_H
#define KT_WARDEN_INTERNAL_H

#include "kt/wire.h"
#include "warden/hands/hands.h"
#include "warden/settings.h"
#include "warden/sockets.h"
#include "warden/warden.h"

#define KT_STOP_GRACE      (10 * KT_SECOND)
#define KT_BACKOFF_FIRST   ((kt_ms)100)
#define KT_BACKOFF_MAX     (30 * KT_SECOND)
#define KT_BACKOFF_RESET   (60 * KT_SECOND) /* alive so long: the next death is a first one again */
#define KT_QUICK_DEATH     (10 * KT_SECOND)
#define KT_ONESHOT_RETRIES 2u
#define KT_NEEDS_MAX       16u

/* One room that the warden minds. */
struct kt_warden_room {
	struct kt_warden *warden;
	enum kt_room self;
	int exec_fd;
	bool wanted;
	struct kt_child *child;
	struct kt_wire *wire;
	bool setup_done;        /* it has answered SETUP with DONE */
	bool restarting;        /* asked to end in order to be started again */
	struct kt_timer *timer; /* start again, or kill */
	kt_ms backoff;
	kt_ms started; /* monotonic */
	unsigned quick_deaths;
	unsigned deaths;
	uint32_t needs[KT_NEEDS_MAX]; /* ids of NEED requests that wait for this room */
	unsigned need_count;
};

/* A hook that the keeper waits for. */
struct kt_hook_call {
	struct kt_hook_call *next;
	struct kt_warden *warden;
	uint32_t id; /* 0: the keeper that asked is gone */
};

struct kt_warden {
	struct kt_loop *loop;
	struct kt_warden_options options; /* strings are copies */
	char **manifests;
	char **argv;
	char *program; /* path of our own executable, for `reload --exec` */
	struct kt_warden_events events;
	struct kt_warden_room rooms[KT_ROOM_COUNT]; /* [KT_ROOM_WARDEN] is not used */
	struct kt_generation *current;
	struct kt_generation *previous;
	struct kt_generation *pending; /* handed to the keeper, not accepted yet */
	uint32_t reload_id;            /* RELOAD request to answer; 0: SIGHUP */
	bool reload_exec;
	bool reload_again;
	bool restart_keeper;
	bool restart_courier;
	bool restart_desk;
	struct kt_bound_list bound;
	struct kt_bound_list pending_bound;
	int control_fd;
	gid_t control_gid;
	struct kt_control_socket *control;
	struct kt_hands *hands;
	struct kt_hands *renewals; /* commands of Watches, which may take long; NULL until there is one */
	int renewal_lock;          /* the file of their locks, while renewals is there */
	struct kt_hands *solvers; /* programs that write TXT records, one after another; NULL until there is one */
	struct kt_hook_call *hook_calls;
	struct kt_child *key_child;
	struct kt_timer *key_timer;
	struct kt_timer *end_timer;      /* calls events.finished */
	struct kt_timer *restart_timer;  /* a reload's restart of rooms, once its answer is out */
	struct kt_timer *watchdog;
	struct kt_wall_timer *clock_watch;
	bool was_ready;
	bool anchor_failing; /* the last head of the audit chain could not be written down */
	bool stopping;
	bool exec_at_end;
	bool own_signals;
	int status;
};

/* --- room.c ----------------------------------------------------------------------------------------------------- */

const char *kt_warden_room_name(enum kt_room room);
/* Their timers and numbers, before anything else. */
enum kt_code kt_rooms_init(struct kt_warden *warden, struct kt_err *err);
/* Opens the executables of all rooms. */
enum kt_code kt_rooms_open(struct kt_warden *warden, struct kt_err *err);
void kt_rooms_close(struct kt_warden *warden);
/* Starts it unless it runs; a failure is logged and tried again with backoff. */
void kt_room_want(struct kt_warden_room *room);
/* Asks it to end and starts it again at once when it has. */
void kt_room_restart(struct kt_warden_room *room);
/* The keeper's wire to it broke: unless it ends by itself it is killed; it is started again like any that died. */
void kt_room_cut_off(struct kt_warden_room *room);
/* Part of the end: SHUTDOWN, or SIGKILL when `hard`. */
void kt_room_shutdown(struct kt_warden_room *room, bool hard);
pid_t kt_warden_room_pid(const struct kt_warden_room *room); /* 0 when it does not run */

/* --- spawn.c ---------------------------------------------------------------------------------------------------- */

/* Starts the program of a room with fd as its end of the wire, under its own user where there is one. */
enum kt_code kt_room_spawn(struct kt_warden_room *room, int fd, void (*exited)(int status, void *arg),
                           struct kt_ids *ret_ids, struct kt_err *err);
/* True when the environment of tests (LD_PRELOAD and so on) may reach the rooms. */
bool kt_warden_test_env(void);

/* --- requests.c ------------------------------------------------------------------------------------------------- */

extern const struct kt_wire_handler kt_keeper_requests[]; /* arg is the room */
/* The keeper is gone: nobody waits for the hooks that still run. */
void kt_requests_orphan(struct kt_warden *warden);
void kt_requests_finish(struct kt_warden *warden);
/* Starts the command that prints the master key; *ret_fd: the end to read it from, which nobody here does (-1: there is
 * no command). */
enum kt_code kt_requests_start_key(struct kt_warden *warden, int *ret_fd, struct kt_err *err);
/* The master key command has had its time. */
void kt_requests_key_late(struct kt_warden *warden);

/* --- reload.c --------------------------------------------------------------------------------------------------- */

/* id: the request to answer, 0 for SIGHUP. */
void kt_warden_reload(struct kt_warden *warden, uint32_t id, bool exec);
/* The keeper died while it looked at new manifests. */
void kt_reload_abort(struct kt_warden *warden);
/* Replaces this process by its program on disk; returns only on failure, which is logged. */
void kt_warden_exec(struct kt_warden *warden);
/* Takes what kt_warden_exec left for us: the control socket and its path, or -1; listeners into `ret`. */
int kt_warden_inherit(struct kt_bound_list *ret, char **ret_path);
/* The number of the last generation before kt_warden_exec; 0 for a fresh start. */
uint32_t kt_warden_inherited_number(void);
/* For the restart timer; arg is the warden. */
void kt_reload_restarts(void *arg);

/* --- anchor.c --------------------------------------------------------------------------------------------------- */

/* Can spec.audit.file be appended to, and by nobody else? */
enum kt_code kt_anchor_check(const struct kt_generation *generation, struct kt_err *err);
/* Writes down the newest record of the audit chain, as the settings want it; failures are logged. */
void kt_warden_anchor(struct kt_warden *warden, int64_t seq, const char *hash);

/* --- warden.c --------------------------------------------------------------------------------------------------- */

/* After a room has ended: are we done? */
void kt_warden_check_end(struct kt_warden *warden);
/* The keeper can take connections; the keeper is gone. */
void kt_warden_keeper_up(struct kt_warden *warden);
void kt_warden_keeper_down(struct kt_warden *warden);
/* The keeper says READY. */
void kt_warden_ready(struct kt_warden *warden);
/* What a command exits with after this error. */
int kt_warden_status_of(const struct kt_err *err);
/* Complaints about manifests, a line each. */
void kt_warden_log_report(const struct kt_report *report);
/* A number that no generation of this state had before. */
uint32_t kt_warden_next_number(const struct kt_warden *warden);

#endif
