/* One request to the keeper: over the control socket of an agent, or in rooms of our own for the length of it. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

#define LINE_MAX_BYTES (8u * 1024u * 1024u)
#define LOCK_PAUSE     ((kt_ms)200)
#define AGENT_WAIT     (30 * KT_SECOND) /* for an agent's keeper to come back */
#define AGENT_PAUSE    ((kt_ms)500)
#define TICK           ((kt_ms)250)

struct call {
	struct kt_cli *cli;
	const struct kt_request *request;
	struct kt_answer *answer;
	struct kt_loop *loop;
	struct kt_warden *warden;
	int fd;
	struct kt_watch *watch;
	struct kt_timer *ticker;
	struct kt_timer *pause;
	struct kt_buf in;
	bool agent;    /* the stream leads to an agent */
	bool streamed; /* a stream to the keeper was there */
	bool rows;     /* rows came: the request must not be sent again */
	bool done;     /* the last line came */
	bool said;     /* that it waits for the lock */
	kt_ms give_up; /* monotonic */
	kt_ms sent_at; /* when the request was sent first */
	int finished;  /* what the warden ended with */
	char *log;     /* last error line of the warden while the command waits */
};

/* --- the answer --------------------------------------------------------------------------------------------------- */

void kt_answer_finish(struct kt_answer *answer)
{
	json_decref(answer->result);
	kt_free(answer->what);
	*answer = (struct kt_answer){0};
}

int kt_answer_report(const struct kt_answer *answer)
{
	if (answer->what != NULL) {
		kt_cli_complain("%s", answer->what);
	}
	return answer->status;
}

static void set_error(struct kt_answer *answer, int status, enum kt_code code, const char *what)
{
	answer->status = status;
	answer->code = code;
	kt_free(answer->what);
	answer->what = kt_strdup(what);
}

static void set_err(struct kt_answer *answer, const struct kt_err *err)
{
	set_error(answer, kt_err_is_full(err) ? KT_EXIT_LATER : kt_cli_status_of(err->code), err->code, err->what);
}

/* --- the stream ----------------------------------------------------------------------------------------------------- */

static void stream_close(struct call *call)
{
	kt_watch_destroy(call->watch);
	call->watch = NULL;
	if (call->fd >= 0) {
		close(call->fd);
		call->fd = -1;
	}
	kt_buf_reset(&call->in);
}

/* The command has its answer, or will have none. */
static void end(struct call *call)
{
	call->done = true;
	if (call->warden != NULL) {
		kt_warden_stop(call->warden, call->answer->status);
	} else {
		kt_loop_stop(call->loop);
	}
}

static void take_last(struct call *call, json_t *line)
{
	json_t *error = json_object_get(line, "error");
	const char *what = kt_json_str(error, "what");

	call->answer->status = (int)kt_json_int(line, "status", KT_EXIT_FAILED);
	if (error != NULL) {
		const char *name = kt_json_str(error, "code");

		set_error(call->answer, call->answer->status, name != NULL ? kt_code_from_name(name) : KT_E_PROTO,
		          what != NULL ? what : "the keeper gave no reason");
	}
	if (json_is_object(json_object_get(line, "result"))) {
		call->answer->result = json_incref(json_object_get(line, "result"));
	}
	end(call);
}

static void take_line(struct call *call, struct kt_view text)
{
	const struct kt_request *request = call->request;
	json_t *line KT_AUTOJSON = NULL;
	struct kt_err err;
	json_t *part;

	kt_err_clear(&err);
	if (kt_json_parse(text, LINE_MAX_BYTES, &line, &err) != KT_OK) {
		(void)kt_err_prefix(&err, "the keeper's answer is not understood");
		set_err(call->answer, &err);
		end(call);
	} else if ((part = json_object_get(line, "row")) != NULL) {
		call->rows = true;
		if (request->row != NULL && json_is_object(part)) {
			request->row(part, request->arg);
		}
	} else if ((part = json_object_get(line, "event")) != NULL) {
		if (request->event != NULL) {
			request->event(part, request->arg);
		}
	} else if (json_object_get(line, "status") != NULL) {
		take_last(call, line);
	}
}

static void take_lines(struct call *call)
{
	size_t used = 0;
	char *newline;

	while (!call->done && used < call->in.len &&
	       (newline = memchr(call->in.ptr + used, '\n', call->in.len - used)) != NULL) {
		size_t start = used;

		used = (size_t)(newline - call->in.ptr) + 1;
		take_line(call, (struct kt_view){call->in.ptr + start, used - 1 - start});
	}
	if (used > 0 && call->in.len > 0) {
		memmove(call->in.ptr, call->in.ptr + used, call->in.len - used);
		call->in.len -= used;
		call->in.ptr[call->in.len] = '\0';
	}
}

static void reconnect_later(struct call *call)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(call->loop));

	if (call->give_up == 0) {
		call->give_up = now + AGENT_WAIT;
	}
	if (call->request->resumes && now >= call->give_up) {
		set_error(call->answer, KT_EXIT_NO_AGENT, KT_E_CLOSED, "the agent has ended and has not come back for 30 s");
		end(call);
		return;
	}
	if ((call->rows && !call->request->resumes) || now >= call->give_up) {
		set_error(call->answer, KT_EXIT_LATER, KT_E_CLOSED,
		          "the agent ended in the middle of its answer: ask again; its log says why");
		end(call);
		return;
	}
	kt_timer_start(call->pause, AGENT_PAUSE);
}

static void stream_lost(struct call *call)
{
	stream_close(call);
	if (call->agent) {
		reconnect_later(call);
	} else if (call->rows) {
		set_error(call->answer, KT_EXIT_LATER, KT_E_CLOSED, "keyturn-keeper died in the middle of its answer: ask again");
		end(call);
	}
	/* Else the warden starts a new keeper and calls on_admin, or gives up and calls on_finished. */
}

/* False when there is nothing to read now, or never again. */
static bool take_some(struct call *call)
{
	char chunk[16384];
	ssize_t n = read(call->fd, chunk, sizeof(chunk));

	if (n < 0 && errno == EINTR) {
		return true;
	}
	if (n < 0 && errno == EAGAIN) {
		return false;
	}
	if (n <= 0) {
		stream_lost(call);
		return false;
	}
	kt_buf_add(&call->in, chunk, (size_t)n);
	kt_wipe(chunk, (size_t)n);
	if (call->in.failed != KT_OK) {
		set_error(call->answer, KT_EXIT_FAILED, KT_E_LIMIT, "the keeper's answer is too long");
		end(call);
		return false;
	}
	take_lines(call);
	if (call->done) {
		stream_close(call);
	}
	return !call->done;
}

static void on_ready(int events, void *arg)
{
	(void)events;
	(void)take_some(arg);
}

/* The request line; the bundle goes with its first byte. */
static enum kt_code send_request(int fd, const struct kt_buf *line, int bundle, struct kt_err *err)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.space = {0}};
	struct iovec piece = {line->ptr, 1};
	struct msghdr msg = {
	        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
	struct cmsghdr *part = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	if (bundle <= 0) {
		return kt_io_write_all(fd, line->ptr, line->len, "the stream to the keeper", err);
	}
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(part), &bundle, sizeof(bundle));
	do {
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == 1 ? kt_io_write_all(fd, line->ptr + 1, line->len - 1, "the stream to the keeper", err)
	              : kt_err_sys(err, "the stream to the keeper");
}

/* Sends the request on a fresh stream; fd is ours. */
static enum kt_code stream_open(struct call *call, int fd, struct kt_err *err)
{
	struct kt_buf line KT_AUTOBUF = {0};
	enum kt_code code;

	stream_close(call);
	call->fd = fd;
	call->streamed = true;
	kt_buf_init(&line, 1024u * 1024u);
	if (call->sent_at == 0) {
		call->sent_at = kt_clock_wall(kt_loop_clock(call->loop));
	} else { /* the keeper of before may have done it, all but the answer */
		(void)json_object_set_new(call->request->body, "sentAt", json_integer(call->sent_at));
	}
	code = kt_json_dump(call->request->body, &line, err);
	kt_buf_addc(&line, '\n');
	if (code == KT_OK) {
		code = kt_buf_check(&line, "the request", err);
	}
	if (code == KT_OK) {
		code = send_request(fd, &line, call->request->bundle, err);
	}
	if (code == KT_OK) {
		code = kt_watch_create(call->loop, fd, KT_LOOP_READ, on_ready, call, &call->watch, err);
	}
	return code;
}

static void on_tick(void *arg)
{
	struct call *call = arg;

	if (call->request->tick != NULL) {
		call->request->tick(call->request->arg);
		kt_timer_start(call->ticker, TICK);
	}
}

/* --- an agent --------------------------------------------------------------------------------------------------------- */

/* The lock file of a state names the socket of its agent, which may have been started with a --socket of its own. */
static int connect_by_lock(const char *state_dir, const char *known, struct kt_err *err)
{
	char *path KT_AUTOFREE = kt_asprintf("%s/lock", state_dir);
	struct kt_buf text KT_AUTOBUF = {0};
	const char *socket;

	kt_buf_init(&text, 8192);
	if (path == NULL || kt_io_read_file(AT_FDCWD, path, &text, NULL) != KT_OK || text.len == 0) {
		return -1;
	}
	socket = strchr(text.ptr, '\n');
	if (socket == NULL || *++socket != '/') {
		return -1;
	}
	text.ptr[strcspn(socket, "\n") + (size_t)(socket - text.ptr)] = '\0';
	return strcmp(socket, known) != 0 ? kt_warden_connect(socket, err) : -1;
}

/* Where things are. Manifests that are wrong now don't keep anybody from an agent that runs on those from before. */
static enum kt_code find_places(struct kt_cli *cli, struct kt_warden_places *places, struct kt_err *err)
{
	struct kt_warden_options options;
	enum kt_code code;

	kt_cli_warden_options(cli, KT_MODE_READONLY, &options);
	code = kt_warden_places(&options, places, err);
	if (code != KT_OK && code != KT_E_NOMEM) {
		options.manifests = NULL;
		kt_err_clear(err);
		code = kt_warden_places(&options, places, err);
	}
	return code;
}

static int connect_at(const struct kt_warden_places *places, struct kt_err *err)
{
	int fd = kt_warden_connect(places->socket_path, err);

	if (fd < 0 && err->code == KT_E_NOTFOUND) {
		struct kt_err other;

		kt_err_clear(&other);
		fd = connect_by_lock(places->state_dir, places->socket_path, &other);
	}
	if (fd >= 0) {
		kt_err_clear(err);
	}
	return fd;
}

int kt_client_connect(struct kt_cli *cli, struct kt_err *err)
{
	struct kt_warden_places places = {0};
	int fd = find_places(cli, &places, err) == KT_OK ? connect_at(&places, err) : -1;

	kt_warden_places_finish(&places);
	return fd;
}

static void on_pause(void *arg)
{
	struct call *call = arg;
	struct kt_err err;
	int fd;

	if (call->warden != NULL || !call->agent) { /* the pause between two tries to get the lock */
		kt_loop_stop(call->loop);
		return;
	}
	kt_err_clear(&err);
	fd = kt_client_connect(call->cli, &err);
	if (fd < 0 || stream_open(call, fd, &err) != KT_OK) {
		stream_close(call);
		reconnect_later(call);
	} else if (call->request->resumes) {
		call->give_up = 0;
	}
}

static void ask_agent(struct call *call, int fd)
{
	struct kt_err err;

	kt_err_clear(&err);
	call->agent = true;
	if (stream_open(call, fd, &err) != KT_OK) {
		stream_close(call);
		reconnect_later(call);
	}
	if (!call->done) {
		kt_loop_run(call->loop);
	}
}

/* --- rooms of our own ----------------------------------------------------------------------------------------------------- */

static void on_admin(int fd, void *arg)
{
	struct call *call = arg;
	struct kt_err err;

	kt_err_clear(&err);
	if (call->done) {
		close(fd);
		return;
	}
	if (stream_open(call, fd, &err) != KT_OK) {
		stream_close(call); /* the keeper is gone again: the next one brings a new stream */
	}
}

static void on_finished(int status, void *arg)
{
	struct call *call = arg;

	call->finished = status;
	kt_loop_stop(call->loop);
}

/* What a log line says, without its time, level and process. */
static const char *text_of(const char *line)
{
	const char *at = line[0] != '{' ? strstr(line, "]: ") : NULL;

	return at != NULL ? at + 3 : line;
}

/* Lines of the warden in this process: warnings are shown, the last error is kept for the end. */
static void on_log(enum kt_level level, const char *line, void *arg)
{
	struct call *call = arg;

	if (level != KT_LOG_ERROR && call->request->aside) {
		return;
	}
	if (level == KT_LOG_ERROR) {
		kt_free(call->log);
		call->log = kt_strdup(text_of(line));
	} else {
		kt_cli_complain("%s%s", level == KT_LOG_WARN ? "warning: " : "", text_of(line));
	}
}

/* Manifests that the keeper refused as a whole: shows every complaint. True when there was one. */
static bool show_complaints(struct call *call)
{
	struct kt_check check;
	struct kt_err err;
	bool found = false;

	kt_err_clear(&err);
	if (kt_check_manifests(call->cli->manifests, call->cli->manifest_count, true, call->cli->sidecar, call->cli->manifests_default, NULL,
	                       NULL, NULL, &check, &err) == KT_OK &&
	    check.report.errors > 0) {
		kt_check_print(&check, false);
		found = true;
	}
	kt_check_finish(&check);
	return found;
}

/* Manifests that are wrong are somebody else's concern there, and the state is known. */
static void set_aside(struct kt_warden_options *options, const char *state_dir, struct kt_report *report, struct kt_err *err)
{
	options->manifests = NULL;
	options->state_dir = state_dir;
	kt_report_finish(report);
	kt_report_init(report);
	kt_err_clear(err);
}

/* Starts the rooms once and waits for their end. */
static enum kt_code run_rooms(struct call *call, const char *state_dir, struct kt_err *err)
{
	struct kt_warden_events events = {.admin = on_admin, .finished = on_finished, .arg = call};
	struct kt_warden_options options;
	struct kt_report report;
	enum kt_code code;

	kt_report_init(&report);
	kt_cli_warden_options(call->cli, call->request->mode, &options);
	options.report = &report;
	options.manifests_needed = call->request->needs_manifests;
	kt_log_setup("keyturn", options.log_level, options.log_json);
	code = kt_warden_create(call->loop, &options, &events, &call->warden, err);
	if (code != KT_OK && call->request->aside && report.errors > 0) {
		set_aside(&options, state_dir, &report, err);
		code = kt_warden_create(call->loop, &options, &events, &call->warden, err);
	}
	if (code == KT_OK) {
		kt_loop_run(call->loop);
		while (call->fd >= 0 && !call->done && take_some(call)) {
			/* The rooms have ended; the rest of a long answer still lies in the stream. */
		}
		stream_close(call);
		kt_warden_destroy(call->warden);
		call->warden = NULL;
	} else if (report.errors > 0) {
		struct kt_check check = {.report = report};

		kt_check_print(&check, false);
		err->what[0] = '\0';
	}
	kt_report_finish(&report);
	return code;
}

/* "keyturn-keeper can't start: the reason" without its beginning. */
static const char *reason_of(const char *line)
{
	static const char start[] = "keyturn-keeper can't start: ";
	const char *at = strstr(line, start);

	return at != NULL ? at + sizeof(start) - 1 : line;
}

static void no_stream(struct call *call)
{
	int status = call->finished != 0 ? call->finished : KT_EXIT_FAILED;

	if (status == KT_EXIT_USAGE && !call->request->aside && show_complaints(call)) {
		call->answer->status = status;
		call->answer->code = KT_E_INVALID;
		return;
	}
	set_error(call->answer, status, status == KT_EXIT_LATER ? KT_E_BUSY : KT_E_SYS,
	          call->log != NULL ? reason_of(call->log) : "interrupted");
}

static void say_waiting(struct call *call, const char *state_dir, int64_t pid)
{
	char who[KT_LOCK_NAME_SIZE];

	if (call->said || call->cli->quiet) {
		return;
	}
	call->said = true;
	kt_cli_complain("waiting for %s, which works on %s", kt_lock_holder_name(pid, who), state_dir);
}

/* Waits for another command to end; true when the answer is there: it was in vain, or an agent has come up. */
static bool wait_for_lock(struct call *call, const char *state_dir)
{
	bool read_only = call->request->mode == KT_MODE_READONLY;
	struct kt_err err;
	int64_t pid;

	while ((pid = kt_lock_holder(state_dir, read_only)) != 0) {
		int fd;

		if (call->request->aside || kt_clock_mono(kt_loop_clock(call->loop)) >= call->give_up) {
			char text[512];
			char who[KT_LOCK_NAME_SIZE];

			(void)snprintf(text, sizeof(text), "%s %s in use by %s%s", state_dir, call->request->aside ? "is" : "has been",
			               kt_lock_holder_name(pid, who),
			               call->request->aside ? "" : " for 30 s: try again when it has ended");
			set_error(call->answer, KT_EXIT_LATER, KT_E_BUSY, text);
			return true;
		}
		say_waiting(call, state_dir, pid);
		kt_timer_start(call->pause, LOCK_PAUSE);
		kt_loop_run(call->loop);
		kt_err_clear(&err);
		fd = kt_client_connect(call->cli, &err);
		if (fd >= 0) {
			call->give_up = 0;
			ask_agent(call, fd);
			return true;
		}
	}
	return false;
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 || errno != ENOENT;
}

/* What is not there, or what we may not read, is not for a room of ours to complain about in its log. */
static bool not_ours(struct call *call, const char *state_dir)
{
	char *path KT_AUTOFREE = kt_asprintf("%s/state.db", state_dir);
	int fd = path != NULL && call->request->aside ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
	struct kt_err err;

	if (fd >= 0) {
		close(fd);
	}
	if (fd >= 0 || !call->request->aside || path == NULL) {
		return false;
	}
	kt_err_clear(&err);
	if (errno == ENOENT) {
		(void)kt_err_set(&err, KT_E_NOTFOUND, "there is no state yet in %s", state_dir);
	} else {
		(void)kt_err_sys(&err, "%s can't be read", path);
	}
	set_err(call->answer, &err);
	return true;
}

/* A reader has nothing to look at where nothing was ever done. */
static bool no_state(struct call *call, const char *state_dir)
{
	char text[512];

	if (call->request->mode != KT_MODE_READONLY || exists(state_dir) ||
	    (call->request->stateless && call->request->bundle > 0)) {
		return false;
	}
	(void)snprintf(text, sizeof(text), "there is no state yet in %.400s: run 'keyturn renew' first", state_dir);
	set_error(call->answer, KT_EXIT_USAGE, KT_E_NOTFOUND, text);
	return true;
}

static void ask_rooms(struct call *call, const char *state_dir)
{
	struct kt_err err;

	call->give_up = kt_clock_mono(kt_loop_clock(call->loop)) + KT_LOCK_WAIT;
	while (!not_ours(call, state_dir) && !no_state(call, state_dir) && !wait_for_lock(call, state_dir)) {
		kt_err_clear(&err);
		call->finished = 0;
		if (run_rooms(call, state_dir, &err) != KT_OK) {
			set_err(call->answer, &err);
			if (err.what[0] == '\0') { /* every complaint has been shown */
				kt_free(call->answer->what);
				call->answer->what = NULL;
			}
			return;
		}
		if (call->done) {
			return;
		}
		/* Between our look at the lock and the keeper's somebody else may have taken it: once more. */
		if (call->streamed || call->finished != KT_EXIT_LATER || kt_lock_holder(state_dir, false) == 0) {
			no_stream(call);
			return;
		}
	}
}

/* --- the call ---------------------------------------------------------------------------------------------------------------- */

static enum kt_code prepare(struct call *call, struct kt_err *err)
{
	enum kt_code code = kt_loop_create(0, &call->loop, err);

	kt_buf_init(&call->in, LINE_MAX_BYTES);
	if (code == KT_OK) {
		code = kt_timer_create(call->loop, on_tick, call, &call->ticker, err);
	}
	if (code == KT_OK) {
		code = kt_timer_create(call->loop, on_pause, call, &call->pause, err);
	}
	return code;
}

static void ask(struct call *call)
{
	struct kt_warden_places places = {0};
	struct kt_err err;
	bool found;
	int fd;

	kt_err_clear(&err);
	if (call->request->tick != NULL) {
		kt_timer_start(call->ticker, TICK);
	}
	found = find_places(call->cli, &places, &err) == KT_OK;
	fd = found ? connect_at(&places, &err) : -1;
	if (fd >= 0) {
		ask_agent(call, fd);
	} else if (call->request->mode == KT_MODE_DAEMON && err.code == KT_E_NOTFOUND) {
		set_error(call->answer, KT_EXIT_NO_AGENT, err.code, err.what);
	} else if (err.code != KT_E_NOTFOUND || !found) {
		set_err(call->answer, &err);
	} else {
		ask_rooms(call, places.state_dir);
	}
	kt_warden_places_finish(&places);
}

void kt_client_call(struct kt_cli *cli, const struct kt_request *request, struct kt_answer *ret)
{
	struct call call = {.cli = cli, .request = request, .answer = ret, .fd = -1};
	struct kt_err err;

	*ret = (struct kt_answer){0};
	kt_err_clear(&err);
	kt_log_capture(on_log, &call);
	if (request->body == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for the request");
		set_err(ret, &err);
	} else if (prepare(&call, &err) != KT_OK) {
		set_err(ret, &err);
	} else {
		ask(&call);
	}
	stream_close(&call);
	kt_buf_finish(&call.in);
	kt_timer_destroy(call.ticker);
	kt_timer_destroy(call.pause);
	if (call.loop != NULL) {
		kt_loop_destroy(call.loop);
	}
	kt_log_capture(NULL, NULL);
	kt_free(call.log);
}

int kt_client_simple(struct kt_cli *cli, json_t *body, enum kt_run_mode mode, struct kt_answer *ret)
{
	struct kt_request request = {.body = body, .mode = mode};

	kt_client_call(cli, &request, ret);
	return kt_answer_report(ret);
}
