/* keyturn run: the agent itself, on a host or beside an application. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"

#define LOCK_PAUSE (500)
#define ASK_PAUSE  (100)
#define AGAIN_PAUSE (KT_SECOND)

const struct kt_cli_option kt_cli_run_options[] = {
        {"sidecar", 0, NULL, "beside an application in a pod: probes, JSON logs, volumes as the kubelet makes them"},
        {"probe-address", 0, "ADDRESS", "probes are answered here, or none (with --sidecar default :9403)"},
        {"until", 0, "WHAT", "delivered: end when everything due is delivered"},
        {"timeout", 0, "D", "with --until: try again until it is done or so much time is over"},
        {"no-sandbox", 0, NULL, "leave the rooms' walls open; for debugging only"},
        {NULL, 0, NULL, NULL},
};

struct daemon_run {
	struct kt_cli *cli;
	struct kt_loop *loop;
	struct kt_warden *warden;
	struct kt_timer *timer; /* the pause before another start, or before the next try to ask */
	char *socket_path;
	bool until;
	kt_ms deadline; /* monotonic, of --until; 0: none */
	bool answered;  /* --until has its status: whatever it is, the agent is not started again */
	/* the request of --until */
	int fd;
	struct kt_watch *watch;
	struct kt_buf in;
	bool ended;
	int status;
};

static void on_finished(int status, void *arg)
{
	struct daemon_run *run = arg;

	run->ended = true;
	run->status = status;
	kt_loop_stop(run->loop);
}

/* --- --until delivered: our own agent is asked to renew, and ends with the answer ----------------------------------- */

/* Time left for --until; none without --timeout. */
static kt_ms left(const struct daemon_run *run)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(run->loop));

	return run->deadline > now ? run->deadline - now : 0;
}

static void stop_asking(struct daemon_run *run)
{
	kt_watch_destroy(run->watch);
	run->watch = NULL;
	if (run->fd >= 0) {
		close(run->fd);
		run->fd = -1;
	}
	kt_buf_reset(&run->in);
}

/* Only the last line counts: {"status": ...}. */
static void take_lines(struct daemon_run *run)
{
	char *newline;

	while (run->in.len > 0 && (newline = memchr(run->in.ptr, '\n', run->in.len)) != NULL) {
		size_t len = (size_t)(newline - run->in.ptr);
		json_t *line KT_AUTOJSON = NULL;

		if (kt_json_parse((struct kt_view){run->in.ptr, len}, run->in.max, &line, NULL) == KT_OK &&
		    json_object_get(line, "status") != NULL) {
			int status = (int)kt_json_int(line, "status", KT_EXIT_FAILED);

			stop_asking(run);
			if (status == KT_EXIT_LATER && left(run) > AGAIN_PAUSE) {
				kt_timer_start(run->timer, AGAIN_PAUSE);
				return;
			}
			run->answered = true;
			kt_log(KT_LOG_INFO, "%s (status %d): ending",
			       status == KT_EXIT_OK ? "everything is delivered" : "not everything is delivered", status);
			kt_warden_stop(run->warden, status);
			return;
		}
		memmove(run->in.ptr, newline + 1, run->in.len - len - 1);
		run->in.len -= len + 1;
	}
}

static void on_answer(int events, void *arg)
{
	struct daemon_run *run = arg;
	char chunk[8192];
	ssize_t n = read(run->fd, chunk, sizeof(chunk));

	(void)events;
	if (n > 0) {
		kt_buf_add(&run->in, chunk, (size_t)n);
	}
	if (n == 0 || run->in.failed != KT_OK) {
		stop_asking(run);
		kt_timer_start(run->timer, ASK_PAUSE);
		return;
	}
	take_lines(run);
}

static void on_timer(void *arg)
{
	struct daemon_run *run = arg;
	char request[128];
	struct kt_err err;

	if (run->warden == NULL) { /* the pause between two starts */
		kt_loop_stop(run->loop);
		return;
	}
	if (!run->until || run->fd >= 0) {
		return;
	}
	if (run->deadline != 0 && left(run) == 0) {
		run->answered = true;
		kt_log(KT_LOG_ERROR, "not everything is delivered within --timeout (status %d): ending", KT_EXIT_LATER);
		kt_warden_stop(run->warden, KT_EXIT_LATER);
		return;
	}
	kt_err_clear(&err);
	(void)snprintf(request, sizeof(request), "{\"command\":\"renew\",\"until\":\"delivered\",\"timeout\":%lld}\n",
	               (long long)left(run));
	run->fd = kt_warden_connect(run->socket_path, &err);
	if (run->fd < 0 || kt_io_write_all(run->fd, request, strlen(request), "the request", &err) != KT_OK ||
	    kt_watch_create(run->loop, run->fd, KT_LOOP_READ, on_answer, run, &run->watch, &err) != KT_OK) {
		stop_asking(run);
		kt_timer_start(run->timer, ASK_PAUSE);
	}
}

/* --- start ------------------------------------------------------------------------------------------------------------ */

static enum kt_code start(struct daemon_run *run, struct kt_warden_options *options, struct kt_err *err)
{
	struct kt_warden_events events = {.finished = on_finished, .arg = run};
	struct kt_warden_places places = {0};
	enum kt_code code = KT_OK;

	run->ended = false;
	if (run->until && run->socket_path == NULL) {
		code = kt_warden_places(options, &places, err);
		run->socket_path = places.socket_path;
		places.socket_path = NULL;
		kt_warden_places_finish(&places);
	}
	if (code == KT_OK) {
		code = kt_warden_create(run->loop, options, &events, &run->warden, err);
	}
	if (code == KT_OK && run->until) {
		kt_timer_start(run->timer, ASK_PAUSE);
	}
	return code;
}

static void pause_a_moment(struct daemon_run *run)
{
	kt_timer_start(run->timer, LOCK_PAUSE);
	kt_loop_run(run->loop);
}

/* Until nobody holds the state any more, or the time is up: both are said once, since whoever looks at the log must know. */
static void wait_for_state(struct daemon_run *run, const struct kt_warden_options *options, kt_ms give_up)
{
	struct kt_warden_places places = {0};
	char who[KT_LOCK_NAME_SIZE];
	bool said = false;
	int64_t pid;

	pause_a_moment(run);
	if (kt_warden_places(options, &places, NULL) != KT_OK) {
		return; /* the next start says what is wrong with them */
	}
	while (!kt_warden_stop_wanted() && (pid = kt_lock_holder(places.state_dir, false)) != 0) {
		if (kt_clock_mono(kt_loop_clock(run->loop)) >= give_up) {
			kt_log(KT_LOG_ERROR, "%s has been in use by %s for 30 s: ending", places.state_dir,
			       kt_lock_holder_name(pid, who));
			break;
		}
		if (!said) {
			kt_log(KT_LOG_INFO, "waiting up to 30 s for %s, which works on %s", kt_lock_holder_name(pid, who),
			       places.state_dir);
			said = true;
		}
		pause_a_moment(run);
	}
	kt_warden_places_finish(&places);
}

/* Somebody else on the same state, a one-shot command or an agent that is ending, is waited for; nothing else is tried twice. */
static int run_agent(struct daemon_run *run, struct kt_warden_options *options)
{
	kt_ms give_up = kt_clock_mono(kt_loop_clock(run->loop)) + KT_LOCK_WAIT;
	struct kt_err err;

	for (;;) {
		kt_ms started = kt_clock_mono(kt_loop_clock(run->loop));
		struct kt_report report;
		enum kt_code code;

		kt_err_clear(&err);
		kt_report_init(&report);
		options->report = &report;
		code = start(run, options, &err);
		if (code == KT_OK && !run->ended) {
			struct kt_check check = {.report = report};

			kt_check_print(&check, true);
			kt_report_finish(&report);
			kt_loop_run(run->loop);
			stop_asking(run);
			kt_warden_destroy(run->warden);
			run->warden = NULL;
		} else {
			struct kt_check check = {.report = report};

			kt_check_print(&check, true);
			if (report.errors == 0) {
				kt_cli_complain("%s", err.what);
			}
			kt_report_finish(&report);
			return kt_cli_status_of(code);
		}
		if (run->status != KT_EXIT_LATER || run->answered || kt_warden_stop_wanted() || kt_clock_mono(kt_loop_clock(run->loop)) >= give_up ||
		    kt_clock_mono(kt_loop_clock(run->loop)) - started > 5 * KT_SECOND) {
			return run->status;
		}
		wait_for_state(run, options, give_up);
		if (kt_warden_stop_wanted() || kt_clock_mono(kt_loop_clock(run->loop)) >= give_up) {
			return run->status;
		}
	}
}

int kt_cli_run(struct kt_cli *cli)
{
	const char *until = kt_cli_value(cli, "until");
	struct daemon_run run = {.cli = cli, .fd = -1, .until = until != NULL};
	struct kt_warden_options options;
	struct kt_err err;
	kt_ms timeout = 0;
	int status;

	kt_err_clear(&err);
	if (until != NULL && strcmp(until, "delivered") != 0) {
		kt_cli_complain("--until takes delivered, not '%s'", until);
		return KT_EXIT_USAGE;
	}
	if (kt_cli_duration(cli, "timeout", &timeout, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	if (timeout > 0 && until == NULL) {
		kt_cli_complain("--timeout goes with --until delivered");
		return KT_EXIT_USAGE;
	}
	cli->sidecar = cli->sidecar || kt_cli_flag(cli, "sidecar");
	cli->log_json = cli->log_json || cli->sidecar;
	kt_cli_warden_options(cli, KT_MODE_DAEMON, &options);
	options.probe_address = kt_cli_value(cli, "probe-address");
	if (options.probe_address == NULL && cli->sidecar) {
		options.probe_default = until == NULL ? KT_PROBE_ADDRESS : NULL; /* nobody probes an init container */
	}
	options.no_sandbox = options.no_sandbox || kt_cli_flag(cli, "no-sandbox");
	kt_log_setup("warden", options.log_level, options.log_json);
	kt_buf_init(&run.in, 8u * 1024u * 1024u);
	if (kt_loop_create(0, &run.loop, &err) != KT_OK || kt_timer_create(run.loop, on_timer, &run, &run.timer, &err) != KT_OK) {
		status = kt_cli_fail(&err);
	} else {
		run.deadline = timeout > 0 ? kt_clock_mono(kt_loop_clock(run.loop)) + timeout : 0;
		status = run_agent(&run, &options);
	}
	kt_timer_destroy(run.timer);
	kt_buf_finish(&run.in);
	if (run.loop != NULL) {
		kt_loop_destroy(run.loop);
	}
	kt_free(run.socket_path);
	return status;
}
