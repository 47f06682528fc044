/* The warden as a whole: create, signals, ready, orderly end. */
#include "warden/warden.h"

#include "config.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "warden/internal.h"

#define CONTROL_BACKLOG 64

/* Signals are the process's, and outlive a warden in the loop. */
static struct kt_warden *the_warden;

/* --- small things ----------------------------------------------------------------------------------------------- */

int kt_warden_status_of(const struct kt_err *err)
{
	if (kt_err_is_full(err)) {
		return 75;
	}
	switch (err->code) {
	case KT_OK:
		return 0;
	case KT_E_INVALID:
		return 2;
	case KT_E_POLICY:
		return 4;
	case KT_E_BUSY:
	case KT_E_LATER:
		return 75;
	default:
		return 1;
	}
}

uint32_t kt_warden_next_number(const struct kt_warden *warden)
{
	uint32_t now = (uint32_t)(kt_clock_wall(kt_loop_clock(warden->loop)) / KT_SECOND);
	uint32_t former = warden->current != NULL ? warden->current->number : kt_warden_inherited_number();

	/* The time, so that no number of an agent before us comes again with another meaning. */
	return now <= former ? former + 1 : now;
}

void kt_warden_log_report(const struct kt_report *report)
{
	for (uint32_t i = 0; i < report->count; i++) {
		const struct kt_complaint *complaint = &report->items[i];

		kt_log(complaint->severity == KT_COMPLAINT_ERROR ? KT_LOG_ERROR : KT_LOG_WARN, "%s:%u: %s", complaint->file,
		       complaint->line, complaint->text);
	}
}

static void free_list(char **list)
{
	for (char **at = list; at != NULL && *at != NULL; at++) {
		kt_free(*at);
	}
	kt_free(list);
}

static bool copy_list(const char *const *from, char ***ret)
{
	size_t count = 0;

	if (from == NULL) {
		return true;
	}
	while (from[count] != NULL) {
		count++;
	}
	*ret = kt_calloc(count + 1, sizeof(**ret));
	for (size_t i = 0; *ret != NULL && i < count; i++) {
		(*ret)[i] = kt_strdup(from[i]);
		if ((*ret)[i] == NULL) {
			return false;
		}
	}
	return *ret != NULL;
}

/* A copy, also of nothing; false when there is no memory. */
static bool copy_one(const char *from, const char **to)
{
	*to = from != NULL ? kt_strdup(from) : NULL;
	return from == NULL || *to != NULL;
}

static enum kt_code copy_options(struct kt_warden *warden, const struct kt_warden_options *options, struct kt_err *err)
{
	struct kt_warden_options *own = &warden->options;
	bool ok;

	*own = *options;
	own->report = NULL;
	ok = copy_one(options->state_dir, &own->state_dir);
	ok = copy_one(options->secrets_dir, &own->secrets_dir) && ok;
	ok = copy_one(options->socket_path, &own->socket_path) && ok;
	ok = copy_one(options->rooms_dir, &own->rooms_dir) && ok;
	ok = copy_one(options->probe_address, &own->probe_address) && ok;
	ok = copy_list(options->manifests, &warden->manifests) && ok;
	ok = copy_list((const char *const *)options->argv, &warden->argv) && ok;
	own->manifests = (const char *const *)warden->manifests;
	own->argv = warden->argv;
	return ok ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for the options");
}

/* Where our program is, while that can still be told: an upgrade puts a new file there. */
static void find_program(struct kt_warden *warden)
{
	char path[KT_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n > 0) {
		path[n] = '\0';
		warden->program = kt_strdup(path);
	}
}

/* --- control ---------------------------------------------------------------------------------------------------- */

static void hand_on(struct kt_warden *warden, int fd, const struct kt_control_peer *peer)
{
	struct kt_msg_admin msg = {.uid = peer->uid, .gid = peer->gid, .pid = (uint32_t)peer->pid};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_wire_notice(warden->rooms[KT_ROOM_KEEPER].wire, KT_ADMIN, &msg, &fd, 1, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a control connection is dropped");
	}
}

static void on_control(int fd, const struct kt_control_peer *peer, void *arg)
{
	hand_on(arg, fd, peer);
	close(fd);
}

/* One-shot: a stream between the command in this process and the keeper. */
static void connect_command(struct kt_warden *warden)
{
	struct kt_control_peer self = {geteuid(), getegid(), getpid()};
	int pair[2];

	if (warden->events.admin == NULL) {
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		kt_log(KT_LOG_ERROR, "no stream to the keeper: %m");
		kt_warden_stop(warden, 1);
		return;
	}
	hand_on(warden, pair[0], &self);
	close(pair[0]);
	warden->events.admin(pair[1], warden->events.arg);
}

void kt_warden_keeper_up(struct kt_warden *warden)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (warden->options.mode != KT_MODE_DAEMON) {
		connect_command(warden);
	} else if (warden->control == NULL && kt_control_socket_create(warden->loop, warden->control_fd, warden->control_gid,
	                                                               on_control, warden, &warden->control, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the control socket can't be served");
	}
}

void kt_warden_keeper_down(struct kt_warden *warden)
{
	/* Connections wait in the backlog for the next keeper. */
	kt_control_socket_destroy(warden->control);
	warden->control = NULL;
	kt_requests_orphan(warden);
	kt_reload_abort(warden);
}

void kt_warden_ready(struct kt_warden *warden)
{
	if (warden->options.mode != KT_MODE_DAEMON || warden->stopping) {
		warden->was_ready = true;
		return;
	}
	if (!warden->was_ready) {
		kt_log(KT_LOG_INFO, "ready; commands go to %s", warden->current->socket_path);
	}
	warden->was_ready = true;
	kt_notify_systemd("READY=1\nSTATUS=Minding credentials");
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static void on_end(void *arg)
{
	struct kt_warden *warden = arg;

	if (warden->exec_at_end && warden->status == 0) {
		kt_warden_exec(warden);
		warden->status = 1;
	}
	if (warden->events.finished != NULL) {
		warden->events.finished(warden->status, warden->events.arg);
	}
}

void kt_warden_check_end(struct kt_warden *warden)
{
	for (int i = KT_ROOM_KEEPER; i < KT_ROOM_COUNT; i++) {
		if (warden->rooms[i].child != NULL) {
			return;
		}
	}
	kt_timer_start(warden->end_timer, 0);
}

void kt_warden_stop(struct kt_warden *warden, int status)
{
	if (warden->stopping) {
		return;
	}
	warden->stopping = true;
	warden->status = status;
	if (warden->options.mode == KT_MODE_DAEMON) {
		kt_notify_systemd(warden->exec_at_end ? "RELOADING=1" : "STOPPING=1");
	}
	kt_control_socket_destroy(warden->control);
	warden->control = NULL;
	for (int i = KT_ROOM_KEEPER; i < KT_ROOM_COUNT; i++) {
		kt_room_shutdown(&warden->rooms[i], false);
	}
	kt_warden_check_end(warden);
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

static bool stop_wanted;

bool kt_warden_stop_wanted(void)
{
	return stop_wanted;
}

static void on_stop_signal(int signum, void *arg)
{
	stop_wanted = true;
	struct kt_warden *warden = the_warden;

	(void)arg;
	if (warden == NULL) {
		return;
	}
	if (warden->stopping) {
		/* Asked twice: whoever it is does not want to wait. */
		for (int i = KT_ROOM_KEEPER; i < KT_ROOM_COUNT; i++) {
			kt_room_shutdown(&warden->rooms[i], true);
		}
		return;
	}
	kt_log(KT_LOG_INFO, "SIG%s: ending", sigabbrev_np(signum));
	kt_warden_stop(warden, warden->options.mode == KT_MODE_DAEMON ? 0 : 128 + signum);
}

/* For a daemon: read the manifests again. For a command: its terminal is gone. */
static void on_hangup(int signum, void *arg)
{
	if (the_warden == NULL || the_warden->options.mode != KT_MODE_DAEMON) {
		on_stop_signal(signum, arg);
	} else {
		kt_warden_reload(the_warden, 0, false);
	}
}

static enum kt_code catch_signals(struct kt_warden *warden, struct kt_err *err)
{
	static struct kt_loop *caught_on;
	enum kt_code code = KT_OK;

	the_warden = warden;
	if (caught_on == warden->loop) {
		return KT_OK;
	}
	caught_on = warden->loop;
	code = kt_loop_signal(warden->loop, SIGTERM, on_stop_signal, NULL, err);
	if (code == KT_OK) {
		code = kt_loop_signal(warden->loop, SIGINT, on_stop_signal, NULL, err);
	}
	if (code == KT_OK) {
		code = kt_loop_signal(warden->loop, SIGHUP, on_hangup, NULL, err);
	}
	return code;
}

/* --- timers ----------------------------------------------------------------------------------------------------- */

static void on_watchdog(void *arg)
{
	struct kt_warden *warden = arg;

	kt_notify_systemd("WATCHDOG=1");
	kt_timer_start(warden->watchdog, kt_notify_watchdog());
}

static void on_clock(bool changed, void *arg)
{
	struct kt_warden *warden = arg;

	if (changed) {
		kt_hands_clock_changed(warden->hands, kt_clock_wall(kt_loop_clock(warden->loop)));
	}
	kt_wall_timer_start(warden->clock_watch, KT_TIME_MAX);
}

static void on_key_time(void *arg)
{
	kt_requests_key_late(arg);
}

static enum kt_code make_timers(struct kt_warden *warden, struct kt_err *err)
{
	enum kt_code code = kt_timer_create(warden->loop, on_end, warden, &warden->end_timer, err);

	if (code == KT_OK) {
		code = kt_timer_create(warden->loop, kt_reload_restarts, warden, &warden->restart_timer, err);
	}
	if (code == KT_OK) {
		code = kt_timer_create(warden->loop, on_key_time, warden, &warden->key_timer, err);
	}
	if (code == KT_OK) {
		code = kt_wall_timer_create(warden->loop, on_clock, warden, &warden->clock_watch, err);
	}
	if (code == KT_OK) {
		kt_wall_timer_start(warden->clock_watch, KT_TIME_MAX);
	}
	if (code == KT_OK && warden->options.mode == KT_MODE_DAEMON && kt_notify_watchdog() > 0) {
		code = kt_timer_create(warden->loop, on_watchdog, warden, &warden->watchdog, err);
		if (code == KT_OK) {
			kt_timer_start(warden->watchdog, kt_notify_watchdog());
		}
	}
	return code;
}

/* --- create ----------------------------------------------------------------------------------------------------- */

static bool is_ours(pid_t pid, void *arg)
{
	const struct kt_warden *warden = arg;

	for (int i = KT_ROOM_KEEPER; i < KT_ROOM_COUNT; i++) {
		if (kt_warden_room_pid(&warden->rooms[i]) == pid) {
			return true;
		}
	}
	return false;
}

static enum kt_code load_manifests(struct kt_warden *warden, struct kt_report *report, struct kt_err *err)
{
	struct kt_report own;
	struct kt_report *to = report != NULL ? report : &own;
	enum kt_code code;

	kt_report_init(&own);
	code = kt_generation_load(&warden->options, kt_warden_next_number(warden), to, &warden->current, err);
	if (report == NULL) {
		kt_warden_log_report(&own);
	}
	kt_report_finish(&own);
	/* What the reading took is not needed again. */
	kt_mem_trim();
	return code;
}

/* The daemon's sockets: those that a former program left us, or new ones. */
static enum kt_code open_sockets(struct kt_warden *warden, struct kt_err *err)
{
	const struct kt_agent_spec *agent = &warden->current->agent->agent;
	struct kt_bound_list left;
	KT_AUTOFREE char *left_path = NULL;
	int left_fd = kt_warden_inherit(&left, &left_path);
	enum kt_code code = KT_OK;

	warden->control_gid = (gid_t)-1;
	if (agent->control.group != NULL) {
		code = kt_gid_resolve(agent->control.group, &warden->control_gid, err);
	}
	if (code == KT_OK && left_fd >= 0 && left_path != NULL && strcmp(left_path, warden->current->socket_path) == 0) {
		warden->control_fd = left_fd;
	} else if (code == KT_OK) {
		warden->control_fd = kt_local_listen_in_pod(warden->current->socket_path, warden->control_gid, CONTROL_BACKLOG,
		                                            agent->allow_shared, err);
		code = warden->control_fd < 0 ? err->code : KT_OK;
	}
	if (left_fd >= 0 && left_fd != warden->control_fd) {
		close(left_fd);
	}
	if (code == KT_OK) {
		code = kt_bound_open(&agent->listeners, &left, &warden->bound, err);
	}
	kt_bound_close(&left, &warden->bound);
	return code;
}

static void say_users(const struct kt_warden *warden)
{
	const struct kt_rooms *users = &warden->current->agent->agent.users;
	struct kt_ids ids;

	if (geteuid() != 0 || warden->options.mode != KT_MODE_DAEMON || users->keeper != NULL || users->courier != NULL ||
	    users->desk != NULL) {
		return;
	}
	if (kt_ids_resolve("keyturn-keeper", NULL, &ids, NULL) != KT_OK) {
		kt_log(KT_LOG_INFO, "all rooms run as root: there are no users keyturn-keeper, keyturn-courier and keyturn-desk");
		return;
	}
	kt_ids_finish(&ids);
}

static enum kt_code open_all(struct kt_warden *warden, struct kt_report *report, struct kt_err *err)
{
	struct kt_hands_config hands = {.is_ours = is_ours, .arg = warden};
	enum kt_code code = load_manifests(warden, report, err);

	if (code == KT_OK && warden->current->agent->agent.allow_shared && warden->options.mode != KT_MODE_READONLY) {
		kt_io_narrow(warden->current->state_dir, geteuid());
	}
	if (code == KT_OK && warden->options.mode != KT_MODE_READONLY) {
		code = kt_anchor_check(warden->current, err);
	}
	if (code == KT_OK) {
		code = kt_rooms_open(warden, err);
	}
	if (code == KT_OK) {
		hands.parallel = (unsigned)warden->current->agent->agent.limits.hooks;
		code = kt_hands_create(warden->loop, &hands, &warden->hands, err);
	}
	if (code == KT_OK) {
		code = make_timers(warden, err);
	}
	if (code == KT_OK && warden->options.mode == KT_MODE_DAEMON) {
		code = open_sockets(warden, err);
	}
	return code == KT_OK ? catch_signals(warden, err) : code;
}

enum kt_code kt_warden_create(struct kt_loop *loop, const struct kt_warden_options *options,
                              const struct kt_warden_events *events, struct kt_warden **ret, struct kt_err *err)
{
	struct kt_warden *warden = kt_calloc(1, sizeof(*warden));
	struct kt_err own;
	enum kt_code code;

	if (err == NULL) {
		kt_err_clear(&own);
		err = &own;
	}
	if (warden == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the warden");
	}
	warden->loop = loop;
	warden->events = *events;
	warden->control_fd = -1;
	find_program(warden);
#ifndef KT_SANITIZERS
	/* Under one user with the courier and the desk: closes ptrace and /proc/self to them. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
	code = copy_options(warden, options, err);
	/* Also after a failure, so that destroying finds everything in order. */
	if (kt_rooms_init(warden, code == KT_OK ? err : NULL) != KT_OK && code == KT_OK) {
		code = err->code;
	}
	if (code == KT_OK) {
		code = open_all(warden, options->report, err);
	}
	if (code != KT_OK) {
		kt_warden_destroy(warden);
		return code;
	}
	say_users(warden);
	if (options->no_sandbox) {
		kt_log(KT_LOG_WARN, "the rooms run without their walls (no sandbox)");
	}
	kt_room_want(&warden->rooms[KT_ROOM_KEEPER]);
	if (warden->bound.count > 0) {
		kt_room_want(&warden->rooms[KT_ROOM_DESK]);
	}
	*ret = warden;
	return KT_OK;
}

void kt_warden_destroy(struct kt_warden *warden)
{
	if (warden == NULL) {
		return;
	}
	if (the_warden == warden) {
		the_warden = NULL;
	}
	kt_control_socket_destroy(warden->control);
	kt_rooms_close(warden);
	kt_requests_finish(warden);
	kt_hands_destroy(warden->hands);
	if (warden->control_fd >= 0) {
		kt_local_remove(warden->current->socket_path, warden->control_fd);
		close(warden->control_fd);
	}
	kt_bound_close(&warden->pending_bound, &warden->bound);
	kt_bound_close(&warden->bound, NULL);
	kt_timer_destroy(warden->end_timer);
	kt_timer_destroy(warden->restart_timer);
	kt_timer_destroy(warden->key_timer);
	kt_timer_destroy(warden->watchdog);
	kt_wall_timer_destroy(warden->clock_watch);
	kt_generation_destroy(warden->current);
	kt_generation_destroy(warden->previous);
	kt_generation_destroy(warden->pending);
	free_list(warden->manifests);
	free_list(warden->argv);
	kt_free(warden->program);
	kt_free((char *)warden->options.state_dir);
	kt_free((char *)warden->options.secrets_dir);
	kt_free((char *)warden->options.probe_address);
	kt_free((char *)warden->options.socket_path);
	kt_free((char *)warden->options.rooms_dir);
	kt_free(warden);
}

/* --- the daemon ------------------------------------------------------------------------------------------------- */

struct daemon_run {
	struct kt_loop *loop;
	int status;
};

static void on_finished(int status, void *arg)
{
	struct daemon_run *run = arg;

	run->status = status;
	kt_loop_stop(run->loop);
}

int kt_warden_run(const struct kt_warden_options *options)
{
	struct daemon_run run = {.status = 1};
	struct kt_warden_events events = {.finished = on_finished, .arg = &run};
	struct kt_warden *warden = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	kt_json_init();
	kt_log_setup("warden", options->log_level, options->log_json);
	if (kt_loop_create(0, &run.loop, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the agent can't start");
		return 1;
	}
	if (kt_warden_create(run.loop, options, &events, &warden, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the agent can't start");
		kt_loop_destroy(run.loop);
		return kt_warden_status_of(&err);
	}
	kt_loop_run(run.loop);
	kt_warden_destroy(warden);
	kt_loop_destroy(run.loop);
	return run.status;
}

/* --- places ----------------------------------------------------------------------------------------------------- */

enum kt_code kt_warden_places(const struct kt_warden_options *options, struct kt_warden_places *ret,
                              struct kt_err *err)
{
	struct kt_generation *generation = NULL;
	struct kt_report report;
	enum kt_code code;

	memset(ret, 0, sizeof(*ret));
	kt_report_init(&report);
	code = kt_generation_load(options, 0, &report, &generation, err);
	kt_report_finish(&report);
	if (code != KT_OK) {
		return code;
	}
	ret->state_dir = generation->state_dir;
	ret->secrets_dir = generation->secrets_dir;
	ret->socket_path = generation->socket_path;
	generation->state_dir = generation->secrets_dir = generation->socket_path = NULL;
	kt_generation_destroy(generation);
	return KT_OK;
}

void kt_warden_places_finish(struct kt_warden_places *places)
{
	kt_free(places->state_dir);
	kt_free(places->secrets_dir);
	kt_free(places->socket_path);
	memset(places, 0, sizeof(*places));
}
