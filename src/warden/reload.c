/* A new set of manifests, taken as a whole or not at all; and the warden replaced by its program on disk. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "warden/internal.h"

#define INHERIT_ENV "KEYTURN_INHERITED"
#define NUMBER_ENV  "KEYTURN_GENERATION"
/* Between the answer to a reload and the restart of rooms: the answer has to get to whom it may concern. */
#define RESTART_DELAY ((kt_ms)200)

static void notify_reloading(const struct kt_warden *warden)
{
	char lines[96];

	(void)snprintf(lines, sizeof(lines), "RELOADING=1\nMONOTONIC_USEC=%lld",
	               (long long)kt_clock_mono(kt_loop_clock(warden->loop)) * 1000);
	kt_notify_systemd(lines);
}

/* The end of a reload, good or bad: whoever asked is told, and systemd. */
static void answer(struct kt_warden *warden, uint32_t id, const struct kt_err *err)
{
	struct kt_wire *keeper = warden->rooms[KT_ROOM_KEEPER].wire;
	struct kt_msg_done done = {0};

	if (err->code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, err, "reload refused, everything stays as it was");
	} else {
		kt_log(KT_LOG_INFO, "reload: the new manifests are in force");
	}
	if (warden->was_ready) {
		kt_notify_systemd("READY=1");
	}
	if (id == 0 || keeper == NULL) {
		return;
	}
	if (err->code != KT_OK) {
		kt_wire_reply_err(keeper, id, err);
	} else {
		kt_wire_reply(keeper, id, KT_DONE, &done, NULL, 0);
	}
}

static void drop_pending(struct kt_warden *warden)
{
	kt_generation_destroy(warden->pending);
	warden->pending = NULL;
	kt_bound_close(&warden->pending_bound, &warden->bound);
	warden->reload_id = 0;
	warden->reload_exec = false;
}

static bool same_listeners(const struct kt_bound_list *a, const struct kt_bound_list *b)
{
	if (a->count != b->count) {
		return false;
	}
	for (unsigned i = 0; i < a->count; i++) {
		if (strcmp(a->items[i].names, b->items[i].names) != 0 || strcmp(a->items[i].address, b->items[i].address) != 0) {
			return false;
		}
	}
	return true;
}

/* Which rooms have to be started again for what has changed: walls can't be widened, and SETUP comes once. */
static void plan_restarts(struct kt_warden *warden, const struct kt_generation *old, bool listeners_changed)
{
	const struct kt_generation *now = warden->current;
	bool settings = strcmp(old->settings, now->settings) != 0 || strcmp(old->state_dir, now->state_dir) != 0 ||
	                strcmp(old->secrets_dir, now->secrets_dir) != 0;

	warden->restart_keeper = settings || old->paths != now->paths;
	warden->restart_courier = settings;
	warden->restart_desk = settings || listeners_changed;
	if (warden->restart_keeper || warden->restart_courier || warden->restart_desk || warden->exec_at_end) {
		kt_timer_start(warden->restart_timer, RESTART_DELAY);
	}
}

void kt_reload_restarts(void *arg)
{
	struct kt_warden *warden = arg;

	if (warden->exec_at_end) {
		kt_warden_stop(warden, 0);
		return;
	}
	if (warden->restart_keeper) {
		kt_log(KT_LOG_INFO, "keyturn-keeper is started again for the new settings or volumes");
		kt_room_restart(&warden->rooms[KT_ROOM_KEEPER]);
	}
	if (warden->restart_courier) {
		kt_room_restart(&warden->rooms[KT_ROOM_COURIER]);
	}
	if (warden->restart_desk) {
		struct kt_warden_room *desk = &warden->rooms[KT_ROOM_DESK];

		kt_room_restart(desk);
		if (warden->bound.count > 0) {
			kt_room_want(desk);
		}
	}
	warden->restart_keeper = warden->restart_courier = warden->restart_desk = false;
}

/* The keeper has taken them: from here on they are ours, too. */
static void accept_pending(struct kt_warden *warden)
{
	struct kt_generation *old = warden->current;
	bool listeners_changed = !same_listeners(&warden->bound, &warden->pending_bound);

	kt_generation_destroy(warden->previous);
	warden->previous = old;
	warden->current = warden->pending;
	warden->pending = NULL;
	kt_bound_close(&warden->bound, &warden->pending_bound);
	warden->bound = warden->pending_bound;
	memset(&warden->pending_bound, 0, sizeof(warden->pending_bound));
	/* Where the control socket is, is settled at the start. */
	if (strcmp(old->socket_path, warden->current->socket_path) != 0) {
		char *path = kt_strdup(old->socket_path);

		kt_log(KT_LOG_WARN, "the control socket stays at %s until the agent is started anew", old->socket_path);
		if (path != NULL) {
			kt_free(warden->current->socket_path);
			warden->current->socket_path = path;
		}
	}
	plan_restarts(warden, old, listeners_changed);
}

static void on_taken(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_warden *warden = arg;
	uint32_t id = warden->reload_id;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	if (warden->pending == NULL) {
		return;
	}
	if (err->code == KT_OK) {
		warden->exec_at_end = warden->reload_exec;
		accept_pending(warden);
	}
	drop_pending(warden);
	answer(warden, id, err);
	if (warden->reload_again) {
		warden->reload_again = false;
		kt_warden_reload(warden, 0, false);
	}
}

void kt_reload_abort(struct kt_warden *warden)
{
	struct kt_err err;

	if (warden->pending == NULL) {
		return;
	}
	kt_err_clear(&err);
	(void)kt_err_set(&err, KT_E_CLOSED, "keyturn-keeper ended while it looked at them");
	drop_pending(warden);
	answer(warden, 0, &err);
}

/* Reads and hands over; what fails here has changed nothing. */
static enum kt_code hand_over(struct kt_warden *warden, struct kt_err *err)
{
	struct kt_warden_room *keeper = &warden->rooms[KT_ROOM_KEEPER];
	struct kt_msg_manifests msg;
	struct kt_report report;
	enum kt_code code;

	kt_report_init(&report);
	code = kt_generation_load(&warden->options, kt_warden_next_number(warden), &report, &warden->pending, err);
	kt_warden_log_report(&report);
	kt_report_finish(&report);
	if (code == KT_OK) {
		code = kt_anchor_check(warden->pending, err);
	}
	if (code == KT_OK && warden->options.mode == KT_MODE_DAEMON) {
		code = kt_bound_open(&warden->pending->agent->agent.listeners, &warden->bound, &warden->pending_bound, err);
	}
	if (code == KT_OK) {
		msg.generation = warden->pending->number;
		code = kt_wire_call(keeper->wire, KT_MANIFESTS, &msg, &warden->pending->bundle, 1, 0, on_taken, warden, err);
	}
	return code;
}

void kt_warden_reload(struct kt_warden *warden, uint32_t id, bool exec)
{
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	if (warden->pending != NULL && id == 0) {
		warden->reload_again = true;
		return;
	}
	notify_reloading(warden);
	if (warden->pending != NULL) {
		code = kt_err_set(&err, KT_E_BUSY, "another reload is under way");
		answer(warden, id, &err);
		return;
	}
	if (exec && (warden->argv == NULL || warden->program == NULL)) {
		code = kt_err_set(&err, KT_E_UNSUPPORTED, "this agent can't be replaced while it runs");
	} else if (!warden->rooms[KT_ROOM_KEEPER].setup_done || warden->stopping) {
		code = kt_err_set(&err, KT_E_LATER, "keyturn-keeper is just being started; try again");
	} else {
		warden->reload_id = id;
		warden->reload_exec = exec;
		code = hand_over(warden, &err);
	}
	if (code != KT_OK) {
		drop_pending(warden);
		answer(warden, id, &err);
	}
}

/* --- reload --exec ---------------------------------------------------------------------------------------------- */

/* Keeps fd open over an exec and writes it down. */
static void leave(struct kt_buf *list, const char *name, const char *address, int fd)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags >= 0 && fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) == 0) {
		kt_buf_addf(list, "%d %s %s\n", fd, name, address);
	}
}

void kt_warden_exec(struct kt_warden *warden)
{
	struct kt_buf list KT_AUTOBUF = {0};
	char number[16];

	kt_buf_init(&list, 16384);
	(void)snprintf(number, sizeof(number), "%u", warden->current->number);
	if (warden->control_fd >= 0) {
		leave(&list, "control", warden->current->socket_path, warden->control_fd);
	}
	for (unsigned i = 0; i < warden->bound.count; i++) {
		leave(&list, warden->bound.items[i].names, warden->bound.items[i].address, warden->bound.items[i].fd);
	}
	if (kt_buf_check(&list, "the listeners", NULL) != KT_OK ||
	    setenv(INHERIT_ENV, list.ptr != NULL ? list.ptr : "", 1) < 0 || setenv(NUMBER_ENV, number, 1) < 0) {
		kt_log(KT_LOG_ERROR, "no memory to hand the listeners over");
		return;
	}
	kt_log(KT_LOG_INFO, "replacing this agent by %s", warden->program);
	execv(warden->program, warden->argv);
	kt_log(KT_LOG_ERROR, "%s can't be executed: %m", warden->program);
}

uint32_t kt_warden_inherited_number(void)
{
	const char *text = getenv(NUMBER_ENV);
	uint64_t number = 0;

	if (text != NULL) {
		(void)kt_parse_u64(kt_view_str(text), UINT32_MAX - 1, &number, NULL);
		(void)unsetenv(NUMBER_ENV);
	}
	return (uint32_t)number;
}

static bool is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on != 0 &&
	       fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* One line "fd name address"; the control socket's descriptor goes to *control. */
static void take_line(char *line, struct kt_bound_list *ret, int *control, char **ret_path)
{
	char *name = strchr(line, ' ');
	char *address = name != NULL ? strchr(name + 1, ' ') : NULL;
	uint64_t fd = 0;

	if (address == NULL) {
		return;
	}
	*name++ = '\0';
	*address++ = '\0';
	if (kt_parse_u64(kt_view_str(line), 1u << 20, &fd, NULL) != KT_OK || fd < 3 || !is_listening((int)fd)) {
		return;
	}
	if (strcmp(name, "control") == 0 && *control < 0) {
		*control = (int)fd;
		*ret_path = kt_strdup(address);
		return;
	}
	if (ret->count < KT_LISTENERS_MAX && kt_bound_names_known(name)) {
		struct kt_bound bound = {kt_strdup(name), kt_strdup(address), (int)fd};

		if (bound.names != NULL && bound.address != NULL) {
			ret->items[ret->count++] = bound;
			return;
		}
		kt_free(bound.names);
		kt_free(bound.address);
	}
	close((int)fd);
}

int kt_warden_inherit(struct kt_bound_list *ret, char **ret_path)
{
	const char *value = getenv(INHERIT_ENV);
	KT_AUTOFREE char *text = value != NULL ? kt_strdup(value) : NULL;
	char *line = text;
	int control = -1;

	memset(ret, 0, sizeof(*ret));
	*ret_path = NULL;
	(void)unsetenv(INHERIT_ENV);
	while (line != NULL && *line != '\0') {
		char *end = strchr(line, '\n');

		if (end == NULL) {
			break;
		}
		*end = '\0';
		take_line(line, ret, &control, ret_path);
		line = end + 1;
	}
	return control;
}
