/* The life of a room as the warden sees it: start, setup, wires to the others, death, backoff, end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/room.h"
#include "warden/internal.h"

/* A wire that broke without the room's end being seen: time for its exit status to come in. */
#define BROKEN_GRACE (2 * KT_SECOND)

static const char *const names[KT_ROOM_COUNT] = {"warden", "keeper", "courier", "desk"};

const char *kt_warden_room_name(enum kt_room room)
{
	return names[room];
}

pid_t kt_warden_room_pid(const struct kt_warden_room *room)
{
	return room->child != NULL ? kt_child_pid(room->child) : 0;
}

/* --- executables ------------------------------------------------------------------------------------------------ */

static enum kt_code open_program(struct kt_warden_room *room, const char *dir, bool trusted, struct kt_err *err)
{
	KT_AUTOFREE char *path = kt_asprintf("%s/keyturn-%s", dir, names[room->self]);
	enum kt_code code;

	if (path == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the path of a room");
	}
	if (!trusted) {
		code = kt_io_check_trusted(path, geteuid(), err);
		if (code != KT_OK) {
			return err == NULL || err->sys_errno != ENOENT
			               ? code
			               : kt_err_set(err, code, "there is no %s: install keyturn, or name the folder of its rooms in "
			                            "KEYTURN_LIBEXECDIR", path);
		}
	}
	room->exec_fd = open(path, O_RDONLY | O_CLOEXEC);
	return room->exec_fd >= 0 ? KT_OK
	                          : kt_err_sys(err, "%s (KEYTURN_LIBEXECDIR names another folder)", path);
}

enum kt_code kt_rooms_open(struct kt_warden *warden, struct kt_err *err)
{
	const char *env = getauxval(AT_SECURE) == 0 ? getenv("KEYTURN_LIBEXECDIR") : NULL;
	const char *named = warden->options.rooms_dir != NULL ? warden->options.rooms_dir : env;
	enum kt_code code = KT_OK;

	for (int i = KT_ROOM_KEEPER; i < KT_ROOM_COUNT && code == KT_OK; i++) {
		/* A folder that somebody names is theirs to trust: a build tree, for instance. */
		code = open_program(&warden->rooms[i], named != NULL ? named : KT_LIBEXECDIR, named != NULL, err);
	}
	return code;
}

/* --- wires between rooms ---------------------------------------------------------------------------------------- */

static void answer_needs(struct kt_warden_room *room, const struct kt_err *why)
{
	struct kt_wire *keeper = room->warden->rooms[KT_ROOM_KEEPER].wire;
	struct kt_msg_done done = {0};

	for (unsigned i = 0; i < room->need_count && keeper != NULL; i++) {
		if (why != NULL) {
			kt_wire_reply_err(keeper, room->needs[i], why);
		} else {
			kt_wire_reply(keeper, room->needs[i], KT_DONE, &done, NULL, 0);
		}
	}
	room->need_count = 0;
}

static void on_peer_taken(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                          void *arg)
{
	const struct kt_warden_room *room = arg;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	if (err->code != KT_OK && err->code != KT_E_CLOSED) {
		kt_log_err(KT_LOG_WARN, err, "keyturn-%s does not take its wire", names[room->self]);
	}
}

static enum kt_code send_peer(struct kt_warden_room *room, enum kt_room peer, int fd, struct kt_err *err)
{
	struct kt_msg_peer msg = {.room = peer};

	return kt_wire_call(room->wire, KT_PEER, &msg, &fd, 1, 0, on_peer_taken, room, err);
}

/* A fresh pair between the keeper and another room, when both are up. */
static void join(struct kt_warden *warden, struct kt_warden_room *other)
{
	struct kt_warden_room *keeper = &warden->rooms[KT_ROOM_KEEPER];
	struct kt_err err;
	int pair[2];

	kt_err_clear(&err);
	if (!keeper->setup_done || !other->setup_done) {
		return;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		(void)kt_err_sys(&err, "no wire between keeper and %s", names[other->self]);
	} else {
		/* The keeper first: it must have its end before it hears that what it needs is there. */
		if (send_peer(keeper, other->self, pair[0], &err) == KT_OK) {
			(void)send_peer(other, KT_ROOM_KEEPER, pair[1], &err);
		}
		close(pair[0]);
		close(pair[1]);
	}
	if (err.code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "keeper and %s can't be joined", names[other->self]);
	}
	answer_needs(other, err.code != KT_OK ? &err : NULL);
}

/* --- setup ------------------------------------------------------------------------------------------------------ */

/* A first setup that the keeper refuses is the end; later ones are tried again, like any death. */
static void refused(struct kt_warden_room *room, const struct kt_err *err)
{
	struct kt_warden *warden = room->warden;

	kt_log_err(KT_LOG_ERROR, err, "keyturn-%s can't start", names[room->self]);
	answer_needs(room, err);
	if (room->self == KT_ROOM_KEEPER && !warden->was_ready) {
		kt_warden_stop(warden, kt_warden_status_of(err));
	} else {
		kt_timer_start(room->timer, BROKEN_GRACE); /* it ends by itself, unless only its answer went wrong */
	}
}

static void on_setup_done(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                          void *arg)
{
	struct kt_warden_room *room = arg;
	struct kt_warden *warden = room->warden;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	if (err->code != KT_OK) {
		if (err->code != KT_E_CLOSED) {
			refused(room, err);
		}
		return;
	}
	room->setup_done = true;
	if (room->self != KT_ROOM_KEEPER) {
		join(warden, room);
		return;
	}
	for (int i = KT_ROOM_COURIER; i < KT_ROOM_COUNT; i++) {
		join(warden, &warden->rooms[i]);
	}
	kt_warden_keeper_up(warden);
}

/* The lines of SETUP.listeners and the descriptors that go with them. */
static enum kt_code name_listeners(const struct kt_bound_list *bound, struct kt_buf *lines, int *fds,
                                   unsigned *ret_count, struct kt_err *err)
{
	for (unsigned i = 0; i < bound->count; i++) {
		kt_buf_addf(lines, "%s %s\n", bound->items[i].names, bound->items[i].address);
		fds[i] = bound->items[i].fd;
	}
	*ret_count = bound->count;
	return kt_buf_check(lines, "the listeners", err);
}

static enum kt_code send_setup(struct kt_warden_room *room, const struct kt_ids *ids, struct kt_err *err)
{
	struct kt_warden *warden = room->warden;
	const struct kt_generation *current = warden->current;
	struct kt_msg_setup msg = {.mode = warden->options.mode,
	                           .log_level = warden->options.log_level,
	                           .log_json = warden->options.log_json,
	                           .sandbox = !warden->options.no_sandbox,
	                           .generation = current->number,
	                           .uid = ids->uid,
	                           .gid = ids->gid,
	                           .settings = kt_view_str(current->settings),
	                           .state_dir = kt_view_str(current->state_dir),
	                           .secrets_dir = kt_view_str(current->secrets_dir),
	                           .socket_path = kt_view_str(current->socket_path)};
	struct kt_buf lines KT_AUTOBUF = {0};
	int fds[KT_LISTENERS_MAX];
	unsigned fd_count = 0;
	int key = -1;
	enum kt_code code = KT_OK;

	kt_buf_init(&lines, 4096);
	if (room->self == KT_ROOM_KEEPER) {
		fds[fd_count++] = current->bundle;
		code = warden->options.mode != KT_MODE_READONLY ? kt_requests_start_key(warden, &key, err) : KT_OK;
		if (key >= 0) {
			fds[fd_count++] = key;
		}
	} else if (room->self == KT_ROOM_DESK) {
		code = name_listeners(&warden->bound, &lines, fds, &fd_count, err);
		msg.listeners = kt_buf_view(&lines);
	}
	if (code == KT_OK) {
		code = kt_wire_call(room->wire, KT_SETUP, &msg, fds, fd_count, 0, on_setup_done, room, err);
	}
	if (key >= 0) {
		close(key);
	}
	return code;
}

/* --- death ------------------------------------------------------------------------------------------------------ */

static void describe_end(int status, char *out, size_t size)
{
	if (WIFEXITED(status)) {
		(void)snprintf(out, size, "exit status %d%s", WEXITSTATUS(status),
		               WEXITSTATUS(status) == KT_ROOM_STARVED ? " (out of memory)" : "");
	} else {
		(void)snprintf(out, size, "signal %d (%s%s)", WTERMSIG(status), strsignal(WTERMSIG(status)),
		               WTERMSIG(status) == SIGSYS ? ": a system call that its sandbox forbids" : "");
	}
}

/* Lets go of everything that belonged to the process that ended. */
static void bury(struct kt_warden_room *room)
{
	kt_child_destroy(room->child);
	room->child = NULL;
	kt_wire_destroy(room->wire);
	room->wire = NULL;
	room->setup_done = false;
	kt_timer_stop(room->timer);
	if (room->self == KT_ROOM_KEEPER) {
		for (int i = KT_ROOM_COURIER; i < KT_ROOM_COUNT; i++) {
			room->warden->rooms[i].need_count = 0;
		}
		kt_warden_keeper_down(room->warden);
	}
}

static void start_later(struct kt_warden_room *room)
{
	kt_timer_start(room->timer, room->backoff);
	room->backoff = room->backoff * 2 > KT_BACKOFF_MAX ? KT_BACKOFF_MAX : room->backoff * 2;
}

/* Keeps count of a death that nobody asked for, and says so. */
static void count_death(struct kt_warden_room *room, int status)
{
	kt_ms lived = kt_clock_mono(kt_loop_clock(room->warden->loop)) - room->started;
	char end[128];
	char text[32];

	describe_end(status, end, sizeof(end));
	room->deaths++;
	room->quick_deaths = lived < KT_QUICK_DEATH ? room->quick_deaths + 1 : 0;
	if (lived >= KT_BACKOFF_RESET) {
		room->backoff = KT_BACKOFF_FIRST;
	}
	if (room->quick_deaths >= 3) {
		kt_log(KT_LOG_ERROR, "keyturn-%s died %u times in a row, last by %s; next start in %lld ms",
		       names[room->self], room->quick_deaths, end, (long long)room->backoff);
	} else {
		kt_log(KT_LOG_WARN, "keyturn-%s ended after %s by %s; it is started again in %lld ms", names[room->self],
		       kt_duration_format(lived, text), end, (long long)room->backoff);
	}
}

static void on_ended(int status, void *arg)
{
	struct kt_warden_room *room = arg;
	struct kt_warden *warden = room->warden;
	bool asked = room->restarting;

	room->restarting = false;
	if (!warden->stopping && !asked) {
		count_death(room, status);
	} else if (warden->stopping && status != 0) {
		char end[128];

		describe_end(status, end, sizeof(end));
		kt_log(KT_LOG_DEBUG, "keyturn-%s ended by %s", names[room->self], end);
	}
	bury(room);
	if (warden->stopping) {
		kt_warden_check_end(warden);
	} else if (asked) {
		kt_room_want(room);
	} else if (room->self == KT_ROOM_KEEPER && warden->options.mode != KT_MODE_DAEMON &&
	           room->deaths > KT_ONESHOT_RETRIES) {
		kt_log(KT_LOG_ERROR, "giving up: keyturn-keeper died %u times", room->deaths);
		kt_warden_stop(warden, 1);
	} else {
		start_later(room);
	}
}

static void on_wire_closed(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	struct kt_warden_room *room = arg;

	(void)wire;
	if (!room->warden->stopping && !room->restarting && why->code != KT_E_CLOSED) {
		kt_log_err(KT_LOG_ERROR, why, "the wire to keyturn-%s broke", names[room->self]);
	}
	room->setup_done = false;
	if (!room->warden->stopping && !room->restarting) {
		kt_timer_start(room->timer, BROKEN_GRACE);
	}
}

/* --- start ------------------------------------------------------------------------------------------------------ */

/*
 * A command that works on the state itself answers http-01 and tls-alpn-01 as the agent would; it opens those ports only once an order
 * needs it. Key sets and pages are the agent's alone.
 */
static enum kt_code listen_for_challenges(struct kt_warden *warden, struct kt_err *err)
{
	const struct kt_listeners *all = &warden->current->agent->agent.listeners;
	const struct kt_listeners only = {
	        .http01 = all->http01, .tls_alpn01 = all->tls_alpn01, .socket_group = all->socket_group};

	if (warden->options.mode != KT_MODE_ONESHOT || warden->bound.count > 0) {
		return KT_OK;
	}
	return kt_bound_open(&only, NULL, &warden->bound, err);
}

static enum kt_code start(struct kt_warden_room *room, struct kt_err *err)
{
	struct kt_wire_config config = {.self = KT_ROOM_WARDEN,
	                                .peer = room->self,
	                                .handlers = room->self == KT_ROOM_KEEPER ? kt_keeper_requests : NULL,
	                                .closed = on_wire_closed,
	                                .arg = room};
	struct kt_ids ids = {0};
	enum kt_code code = room->self == KT_ROOM_DESK ? listen_for_challenges(room->warden, err) : KT_OK;
	int pair[2];

	if (code != KT_OK) {
		return code;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return kt_err_sys(err, "no wire for keyturn-%s", names[room->self]);
	}
	room->started = kt_clock_mono(kt_loop_clock(room->warden->loop));
	code = kt_wire_create(room->warden->loop, &config, &room->wire, err);
	if (code != KT_OK) {
		close(pair[0]);
	} else {
		code = kt_wire_attach(room->wire, pair[0], err);
	}
	if (code == KT_OK) {
		code = kt_room_spawn(room, pair[1], on_ended, &ids, err);
	}
	close(pair[1]);
	if (code == KT_OK) {
		code = send_setup(room, &ids, err);
	}
	kt_ids_finish(&ids);
	return code;
}

void kt_room_want(struct kt_warden_room *room)
{
	struct kt_err err;

	room->wanted = true;
	if (room->child != NULL || room->warden->stopping) {
		return;
	}
	kt_err_clear(&err);
	if (start(room, &err) == KT_OK) {
		return;
	}
	kt_log_err(KT_LOG_ERROR, &err, "keyturn-%s can't be started", names[room->self]);
	if (room->child != NULL) {
		kt_child_kill(room->child, SIGKILL, true); /* its end is seen by on_ended */
		return;
	}
	bury(room);
	answer_needs(room, &err);
	if (room->self == KT_ROOM_KEEPER && !room->warden->was_ready) {
		kt_warden_stop(room->warden, kt_warden_status_of(&err));
	} else {
		start_later(room);
	}
}

/* It did not end in time, or it is time to start it. */
static void on_timer(void *arg)
{
	struct kt_warden_room *room = arg;

	if (room->child == NULL) {
		if (room->wanted) {
			kt_room_want(room);
		}
		return;
	}
	kt_log(KT_LOG_WARN, "keyturn-%s does not end by itself and is killed", names[room->self]);
	kt_child_kill(room->child, SIGKILL, true);
}

void kt_room_cut_off(struct kt_warden_room *room)
{
	if (room->child == NULL || !room->setup_done || room->restarting || room->warden->stopping) {
		return; /* its end was seen, and it is on its way back */
	}
	room->setup_done = false;
	kt_timer_start(room->timer, BROKEN_GRACE);
}

/* --- end -------------------------------------------------------------------------------------------------------- */

static void ask_to_end(struct kt_warden_room *room)
{
	struct kt_msg_shutdown msg = {0};

	if (room->wire == NULL || !kt_wire_attached(room->wire) ||
	    kt_wire_notice(room->wire, KT_SHUTDOWN, &msg, NULL, 0, NULL) != KT_OK) {
		kt_child_kill(room->child, SIGTERM, false);
	}
	kt_timer_start(room->timer, KT_STOP_GRACE);
}

void kt_room_restart(struct kt_warden_room *room)
{
	if (room->child == NULL || room->restarting || room->warden->stopping) {
		return;
	}
	room->restarting = true;
	ask_to_end(room);
}

void kt_room_shutdown(struct kt_warden_room *room, bool hard)
{
	room->wanted = false;
	if (room->child == NULL) {
		kt_timer_stop(room->timer);
	} else if (hard) {
		kt_child_kill(room->child, SIGKILL, true);
	} else {
		ask_to_end(room);
	}
}

/* For kt_warden_create: the timers, before anything can need them. */
enum kt_code kt_rooms_init(struct kt_warden *warden, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	for (int i = 0; i < KT_ROOM_COUNT; i++) {
		struct kt_warden_room *room = &warden->rooms[i];

		room->warden = warden;
		room->self = (enum kt_room)i;
		room->exec_fd = -1;
		room->backoff = KT_BACKOFF_FIRST;
		if (code == KT_OK) {
			code = kt_timer_create(warden->loop, on_timer, room, &room->timer, err);
		}
	}
	return code;
}

void kt_rooms_close(struct kt_warden *warden)
{
	for (int i = 0; i < KT_ROOM_COUNT; i++) {
		struct kt_warden_room *room = &warden->rooms[i];

		if (room->child != NULL) {
			kt_child_kill(room->child, SIGKILL, true);
		}
		kt_child_destroy(room->child);
		room->child = NULL;
		kt_wire_destroy(room->wire);
		room->wire = NULL;
		kt_timer_destroy(room->timer);
		if (room->exec_fd >= 0) {
			close(room->exec_fd);
		}
	}
}
