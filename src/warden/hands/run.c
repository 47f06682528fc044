/* One program run for a hook: its own session, nothing open, output capped, a time limit that holds. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "warden/hands/hands.h"

/* Read at most so much at a time, and after the program's end: a daemon that it left behind may go on writing. */
#define READ_CHUNK  16384u
#define READ_ROUNDS 16

/* In the child: mounts as long as it may make them, then the user. */
struct steps {
	struct kt_mounts *mounts;
	const struct kt_ids *ids;
};

struct kt_run {
	struct kt_loop *loop;
	struct kt_child *child;
	struct kt_watch *watch;
	struct kt_timer *timer;
	int out;
	char last[KT_HAND_OUTPUT_MAX]; /* of what it printed */
	size_t last_len;
	struct kt_buf output; /* escaped, at the end */
	bool cut;
	bool timed_out;
	bool killed;
	bool exited;
	void (*done)(const struct kt_run_result *result, void *arg);
	void *arg;
};

/* --- output ---------------------------------------------------------------------------------------------------- */

/* Of more than there is room for the end is kept: that is where programs say what went wrong. */
static void keep_output(struct kt_run *run, const char *data, size_t len)
{
	size_t room = sizeof(run->last);
	size_t old = run->last_len;

	if (len >= room) {
		run->cut = run->cut || old > 0 || len > room;
		memcpy(run->last, data + len - room, room);
		run->last_len = room;
		return;
	}
	if (old + len > room) {
		run->cut = true;
		memmove(run->last, run->last + (old + len - room), room - len);
		old = room - len;
	}
	memcpy(run->last + old, data, len);
	run->last_len = old + len;
}

/* Printable ASCII, tabs and line ends; the rest as \xNN. */
static struct kt_view escaped_output(struct kt_run *run)
{
	struct kt_view all;

	for (size_t i = 0; i < run->last_len; i++) {
		unsigned char c = (unsigned char)run->last[i];

		if ((c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t') {
			kt_buf_addc(&run->output, (char)c);
		} else {
			kt_buf_addf(&run->output, "\\x%02x", c);
		}
	}
	all = kt_buf_view(&run->output);
	if (all.len > KT_HAND_OUTPUT_MAX) {
		run->cut = true;
		all.ptr += all.len - KT_HAND_OUTPUT_MAX;
		all.len = KT_HAND_OUTPUT_MAX;
	}
	return all;
}

/* Reads what is there, keeping the last of it; false at the end of the pipe. */
static bool drain(struct kt_run *run, int rounds)
{
	char chunk[READ_CHUNK];

	while (rounds-- > 0) {
		ssize_t n = read(run->out, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return errno == EAGAIN || errno == EWOULDBLOCK;
		}
		if (n == 0) {
			return false;
		}
		keep_output(run, chunk, (size_t)n);
	}
	return true;
}

static void on_output(int events, void *arg)
{
	struct kt_run *run = arg;

	(void)events;
	if (!drain(run, READ_ROUNDS)) {
		/* The end of the output is not the end of the program. */
		kt_watch_destroy(run->watch);
		run->watch = NULL;
	}
}

/* --- life ------------------------------------------------------------------------------------------------------- */

static void finish(struct kt_run *run, int wait_status)
{
	struct kt_run_result result;

	if (run->watch != NULL) {
		(void)drain(run, READ_ROUNDS);
	}
	kt_watch_destroy(run->watch);
	run->watch = NULL;
	kt_timer_stop(run->timer);
	result = (struct kt_run_result){.timed_out = run->timed_out, .wait_status = wait_status, .output = escaped_output(run)};
	result.cut = run->cut;
	run->done(&result, run->arg);
}

static void on_exit(int status, void *arg)
{
	struct kt_run *run = arg;

	run->exited = true;
	if (run->timed_out) {
		/* Whatever it left in its group had its chance with the SIGTERM. */
		kt_child_kill(run->child, SIGKILL, true);
	}
	finish(run, status);
}

static void on_time(void *arg)
{
	struct kt_run *run = arg;

	if (!run->timed_out) {
		run->timed_out = true;
		kt_child_kill(run->child, SIGTERM, true);
		kt_timer_start(run->timer, KT_HAND_GRACE);
	} else if (!run->killed) {
		run->killed = true;
		kt_child_kill(run->child, SIGKILL, true);
		kt_timer_start(run->timer, KT_HAND_GRACE);
	} else {
		/* SIGKILL does not reach a program that hangs in the kernel (a dead NFS server): go on without it. */
		finish(run, SIGKILL);
	}
}

static int take_steps(void *arg)
{
	const struct steps *steps = arg;
	int rc = kt_mounts_enter(steps->mounts);

	if (rc != 0 || steps->ids == NULL) {
		return rc;
	}
	return setgroups(steps->ids->group_count, steps->ids->groups) < 0 ||
	                       setresgid(steps->ids->gid, steps->ids->gid, steps->ids->gid) < 0 ||
	                       setresuid(steps->ids->uid, steps->ids->uid, steps->ids->uid) < 0
	               ? errno
	               : 0;
}

static enum kt_code spawn(struct kt_run *run, const struct kt_run_request *request, struct kt_err *err)
{
	struct kt_spawn spawn = {.exec_fd = -1,
	                         .path = request->argv[0],
	                         .argv = request->argv,
	                         .envp = request->envp,
	                         .cwd_fd = -1,
	                         .new_session = true};
	struct steps steps = {request->mounts, request->ids};
	int ends[2];
	int fds[4];
	enum kt_code code;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return kt_err_sys(err, "no pipe for the output of %s", request->argv[0]);
	}
	run->out = ends[0];
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		code = kt_err_sys(err, "the output of %s can't be read", request->argv[0]);
		close(ends[1]);
		return code;
	}
	fds[0] = -1;
	fds[1] = fds[2] = ends[1];
	spawn.fds = fds;
	spawn.fd_count = 3;
	if (request->lock_at != 0) {
		fds[3] = request->lock_fd;
		spawn.fd_count = 4;
		spawn.lock_slot = 3;
		spawn.lock_at = request->lock_at;
	}
	if (request->mounts != NULL) {
		spawn.in_child = take_steps;
		spawn.in_child_arg = &steps;
	} else if (request->ids != NULL) {
		spawn.set_ids = true;
		spawn.uid = request->ids->uid;
		spawn.gid = request->ids->gid;
		spawn.groups = request->ids->groups;
		spawn.group_count = request->ids->group_count;
	}
	code = kt_child_spawn(run->loop, &spawn, on_exit, run, &run->child, err);
	close(ends[1]);
	return code;
}

enum kt_code kt_run_start(struct kt_loop *loop, const struct kt_run_request *request,
                           void (*done)(const struct kt_run_result *result, void *arg), void *arg,
                           struct kt_run **ret, struct kt_err *err)
{
	struct kt_run *run = kt_calloc(1, sizeof(*run));
	enum kt_code code;

	if (run == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory to run %s", request->argv[0]);
	}
	run->loop = loop;
	run->out = -1;
	run->done = done;
	run->arg = arg;
	kt_buf_init(&run->output, 4 * KT_HAND_OUTPUT_MAX + 1);
	code = kt_timer_create(loop, on_time, run, &run->timer, err);
	if (code == KT_OK) {
		code = spawn(run, request, err);
	}
	if (code == KT_OK) {
		code = kt_watch_create(loop, run->out, KT_LOOP_READ, on_output, run, &run->watch, err);
	}
	if (code != KT_OK) {
		kt_run_destroy(run);
		return code;
	}
	kt_timer_start(run->timer, request->time_limit > 0 ? request->time_limit : KT_HAND_TIME_LIMIT);
	*ret = run;
	return KT_OK;
}

void kt_run_destroy(struct kt_run *run)
{
	if (run == NULL) {
		return;
	}
	if (run->child != NULL && !run->exited) {
		kt_child_kill(run->child, SIGKILL, true);
	}
	kt_child_destroy(run->child);
	kt_watch_destroy(run->watch);
	kt_timer_destroy(run->timer);
	if (run->out >= 0) {
		close(run->out);
	}
	kt_buf_finish(&run->output);
	kt_free(run);
}
