/* The end that somebody asks for: by a command, by HTTP on the control socket, or with a token through the desk. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/admin.h"

#define GRACE     (10 * KT_SECOND)
#define LOOK      ((kt_ms)100) /* the first look comes after the answer is out */
#define TOKEN_MIN 16u
#define TOKEN_MAX 4096u

/* --- the end ------------------------------------------------------------------------------------------------------------ */

static void on_timer(void *arg)
{
	struct kt_keeper *keeper = arg;
	struct kt_msg_finished finished = {0};
	struct kt_err err;

	if ((keeper->flight_count > 0 || keeper->task_count > 0 || keeper->watched_count > 0 || kt_answers_busy(keeper)) &&
	    kt_clock_mono(keeper->clock) < keeper->quit_deadline) {
		kt_timer_start(keeper->quit_timer, LOOK);
		return;
	}
	if (keeper->flight_count > 0 || keeper->task_count > 0) {
		kt_log(KT_LOG_WARN, "%u rotations and %u hooks or proofs are not over: they go on after the next start",
		       keeper->flight_count, keeper->task_count);
	}
	kt_err_clear(&err);
	if (kt_wire_notice(keeper->ctx->warden, KT_FINISHED, &finished, NULL, 0, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the warden can't be told to end");
		kt_timer_start(keeper->quit_timer, KT_SECOND);
	}
}

enum kt_code kt_quit_begin(struct kt_keeper *keeper, const char *who, struct kt_err *err)
{
	enum kt_code code;

	if (keeper->draining) {
		return KT_OK;
	}
	if (keeper->mode != KT_MODE_DAEMON) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "only an agent can be asked to end");
	}
	code = kt_timer_create(keeper->loop, on_timer, keeper, &keeper->quit_timer, err);
	if (code != KT_OK) {
		return code;
	}
	kt_log(KT_LOG_INFO, "%s asks for the end: what is in flight is finished first", who);
	keeper->draining = true;
	keeper->quit_deadline = kt_clock_mono(keeper->clock) + GRACE;
	kt_timer_start(keeper->quit_timer, LOOK);
	return KT_OK;
}

void kt_quit_finish(struct kt_keeper *keeper)
{
	kt_timer_destroy(keeper->quit_timer);
	keeper->quit_timer = NULL;
}

void kt_command_quit(struct kt_session *session)
{
	struct kt_err err;
	char who[64];

	kt_err_clear(&err);
	(void)snprintf(who, sizeof(who), "uid %u (pid %u)", session->uid, session->pid);
	if (kt_quit_begin(session->keeper, who, &err) != KT_OK) {
		kt_session_fail(session, &err);
	} else {
		kt_session_end(session, 0, NULL);
	}
}

/* --- with a token, through the desk --------------------------------------------------------------------------------------- */

/* The token as it is now, since a kubelet replaces the file when the Secret changes; without white space at its end. */
static enum kt_code read_token(const char *path, struct kt_secret **ret, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct kt_buf text KT_AUTOBUF = {0};
	struct stat st;
	enum kt_code code;

	if (fd < 0 || fstat(fd, &st) < 0) {
		return kt_err_sys(err, "tokenFile %s", path);
	}
	if (!S_ISREG(st.st_mode) || (st.st_mode & 022) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())) {
		return kt_err_set(err, KT_E_POLICY, "tokenFile %s must be a plain file of root or the agent's user that nobody else "
		                  "may write", path);
	}
	kt_buf_init(&text, TOKEN_MAX);
	code = kt_io_read_fd(fd, path, &text, err);
	while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL) {
		text.len--;
	}
	if (code == KT_OK && text.len < TOKEN_MIN) {
		code = kt_err_set(err, KT_E_POLICY, "the token in %s is shorter than %u bytes", path, TOKEN_MIN);
	}
	return code == KT_OK ? kt_secret_from_buf(&text, ret, err) : code;
}

void kt_quit_on_command(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_command *command = in->msg;
	struct kt_msg_page_given given = {.status = 200, .content_type = KT_VIEW_LIT("text/plain; charset=utf-8"),
	                                  .body = KT_VIEW_LIT("the agent is ending\n")};
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (keeper->quit_token == NULL || !kt_view_eq_str(command->path, "/quit")) {
		given.status = 404;
		given.body = KT_VIEW_LIT("not found\n");
	} else if (read_token(keeper->quit_token, &token, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "nobody can quit by token");
		given.status = 503;
		given.body = KT_VIEW_LIT("the agent can't read its token\n");
	} else if (command->token == NULL || !kt_secret_eq(token, command->token)) {
		kt_log(KT_LOG_WARN, "somebody asks for the end with a wrong token");
		given.status = 401;
		given.body = KT_VIEW_LIT("the token is not the right one\n");
	} else if (kt_quit_begin(keeper, "who has the token", &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_PAGE_GIVEN, &given, NULL, 0);
}
