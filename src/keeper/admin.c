/* Sessions of the commands: JSON lines over a passed socket, bounded, never blocking the keeper. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fcntl.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/acme.h"
#include "keeper/admin.h"

#define SESSIONS_MAX 64u

static const struct {
	const char *name;
	kt_command_fn *fn;
	enum { READS, WRITES, DRAFTS } needs; /* WRITES: not with a read-only store; DRAFTS: manifests do without a state */
} commands[] = {
        {"status", kt_command_status, READS},
        {"plan", kt_command_plan, DRAFTS},
        {"why", kt_command_why, DRAFTS},
        {"renew", kt_command_renew, WRITES},
        {"token", kt_command_token, WRITES},
        {"invalidate", kt_command_invalidate, WRITES},
        {"secret-set", kt_command_secret_set, WRITES},
        {"secret-list", kt_command_secret_list, READS},
        {"secret-rm", kt_command_secret_rm, WRITES},
        {"audit", kt_command_audit, READS},
        {"audit-verify", kt_command_audit_verify, READS},
        {"master-key-rotate", kt_command_master_key, WRITES},
        {"walls", kt_command_walls, READS},
        {"rehearse", kt_command_rehearse, DRAFTS},
        {"dns-record", kt_command_dns_record, WRITES},
        {"reload", kt_command_reload, WRITES},
        {"quit", kt_command_quit, READS},
        {"account", kt_command_account, WRITES},
        {"revoke", kt_command_revoke, WRITES},
        {"import", kt_command_import, WRITES},
};

int kt_admin_status(enum kt_code code)
{
	switch (code) {
	case KT_OK:
		return 0;
	case KT_E_INVALID:
	case KT_E_NOTFOUND:
		return 2;
	case KT_E_POLICY:
		return 4;
	case KT_E_MISMATCH:
		return 5;
	case KT_E_LATER:
	case KT_E_TIMEOUT:
	case KT_E_NET:
	case KT_E_BUSY:
	case KT_E_CLOSED:
	case KT_E_CANCELLED:
	case KT_E_PROTO:
		return 75;
	default:
		return 1;
	}
}

static int badness(int status)
{
	static const int order[] = {0, 75, 5, 1, 4};
	int i;

	for (i = 0; i < 5; i++) {
		if (order[i] == status) {
			return i;
		}
	}
	return 3;
}

int kt_admin_worse(int a, int b)
{
	return badness(a) >= badness(b) ? a : b;
}

const char *kt_session_arg(const struct kt_session *session, const char *name)
{
	return kt_json_str(session->request, name);
}

bool kt_session_room(const struct kt_session *session)
{
	return !session->ended && session->out.len - session->sent < KT_ADMIN_OUT_FULL;
}

void kt_session_line(struct kt_session *session, json_t *value)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (value != NULL && !session->broken && kt_json_dump(value, &session->out, &err) == KT_OK) {
		kt_buf_addc(&session->out, '\n');
	}
	json_decref(value);
}

void kt_session_row(struct kt_session *session, json_t *value)
{
	session->rows++;
	kt_session_line(session, json_pack("{s:o}", "row", value));
}

void kt_session_page(struct kt_session *session, struct kt_store_page *page)
{
	page->after_ns = session->seeded ? session->after_ns : NULL;
	page->after_name = session->seeded ? session->after_name : NULL;
	page->after_kind = session->seeded ? session->after_kind : NULL;
}

void kt_session_page_at(struct kt_session *session, const struct kt_store_resource *resource)
{
	(void)snprintf(session->after_ns, sizeof(session->after_ns), "%s", resource->ns);
	(void)snprintf(session->after_name, sizeof(session->after_name), "%s", resource->name);
	(void)snprintf(session->after_kind, sizeof(session->after_kind), "%s", resource->kind);
	session->seeded = true;
}

/* The last line. Without memory for it the connection ends: who waits for the answer sees that there is none. */
static void last_line(struct kt_session *session, int status, json_t *line)
{
	size_t before = session->out.len;

	kt_session_line(session, line);
	session->unsaid = session->out.len == before || kt_buf_check(&session->out, "answer", NULL) != KT_OK;
	session->broken = session->broken || session->unsaid;
	session->status = status;
	session->ended = true;
	session->more = NULL;
	session->progress = NULL;
	session->follow = false;
	kt_session_flush(session);
}

void kt_session_end(struct kt_session *session, int status, json_t *result)
{
	if (session->ended) {
		json_decref(result);
		return;
	}
	last_line(session, status, json_pack("{s:i,s:o?}", "status", status, "result", result));
}

void kt_session_fail(struct kt_session *session, const struct kt_err *err)
{
	int status = kt_err_is_full(err) ? 75 : kt_admin_status(err->code);

	if (!session->ended) {
		last_line(session, status,
		          json_pack("{s:i,s:{s:s,s:s}}", "status", status, "error", "code", kt_code_name(err->code), "what",
		                    err->what));
	}
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

bool kt_admin_waited_for(const struct kt_keeper *keeper)
{
	const struct kt_session *session = keeper->sessions;

	while (session != NULL && session->ended && session->out.len == 0) {
		session = session->next;
	}
	return session != NULL;
}

static void session_close(struct kt_session *session)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_session **at = &keeper->sessions;
	struct kt_msg_finished finished = {(uint32_t)session->status};
	bool done, lost;

	while (*at != session) {
		at = &(*at)->next;
	}
	*at = session->next;
	done = session->ended && !session->unsaid;
	lost = !done && !keeper->ending;
	kt_acme_jobs_leave(keeper, session);
	kt_watch_destroy(session->watch);
	kt_timer_destroy(session->timer);
	close(session->fd);
	kt_buf_finish(&session->in);
	kt_buf_finish(&session->out);
	json_decref(session->request);
	json_decref(session->tally);
	json_decref(session->soon);
	kt_draft_destroy(session->draft);
	kt_admin_import_destroy(session->import);
	if (session->passed_fd >= 0) {
		close(session->passed_fd);
	}
	kt_free(session->ids);
	kt_free(session);
	if (keeper->mode == KT_MODE_DAEMON) {
		return;
	}
	kt_head_flush(keeper);
	/* A one-shot keeper lives for its command: another one gets it where this one can't take it or answer. */
	if (lost || (done && kt_wire_notice(keeper->ctx->warden, KT_FINISHED, &finished, NULL, 0, NULL) != KT_OK)) {
		kt_room_end(keeper->ctx, 1);
	}
}

/* Writes what it can; watches for room otherwise. Closing happens in on_ready or here at the end of the last line. */
void kt_session_flush(struct kt_session *session)
{
	while (session->sent < session->out.len && !session->broken) {
		ssize_t n = send(session->fd, session->out.ptr + session->sent, session->out.len - session->sent,
		                 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			break;
		}
		if (n <= 0) {
			session->broken = true;
			break;
		}
		session->sent += (size_t)n;
	}
	if (session->sent == session->out.len || session->broken) {
		kt_buf_reset(&session->out);
		session->sent = 0;
	}
	if (session->watch != NULL) {
		(void)kt_watch_set(session->watch, KT_LOOP_READ | (session->out.len > 0 || session->ended || session->more != NULL
		                                                           ? KT_LOOP_WRITE
		                                                           : 0),
		                   NULL);
	}
}

static void dispatch(struct kt_session *session)
{
	const char *name = kt_session_arg(session, "command");
	struct kt_err err;
	size_t i;

	kt_err_clear(&err);
	for (i = 0; name != NULL && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(name, commands[i].name) != 0) {
			continue;
		}
		if (session->keeper->store == NULL && (commands[i].needs != DRAFTS || session->passed_fd < 0)) {
			(void)kt_err_set(&err, KT_E_NOTFOUND, "there is no state yet in %s: run 'keyturn renew' first",
			                 session->keeper->state_dir);
		} else if (commands[i].needs == WRITES && kt_store_is_read_only(session->keeper->store)) {
			(void)kt_err_set(&err, KT_E_POLICY, "the state is open for reading only");
		} else {
			commands[i].fn(session);
			return;
		}
		kt_session_fail(session, &err);
		return;
	}
	(void)kt_err_set(&err, KT_E_INVALID, "the agent does not know the command %.64s", name != NULL ? name : "(none)");
	kt_session_fail(session, &err);
}

/* As recv(); a descriptor that comes along is kept, of several the first one. */
static ssize_t receive(struct kt_session *session, char *chunk, size_t size)
{
	union {
		char space[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control = {.space = {0}};
	struct iovec piece = {chunk, size};
	struct msghdr msg = {
	        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
	ssize_t n = recvmsg(session->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *part;

	for (part = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; part != NULL; part = CMSG_NXTHDR(&msg, part)) {
		size_t count = part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS
		                       ? (part->cmsg_len - CMSG_LEN(0)) / sizeof(int)
		                       : 0;

		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
			if (session->passed_fd < 0 && session->request == NULL) {
				session->passed_fd = fd;
			} else {
				close(fd);
			}
		}
	}
	return n;
}

/* Reads the request line; anything after it is ignored. */
static void session_read(struct kt_session *session)
{
	char chunk[4096];
	struct kt_err err;
	char *end;
	ssize_t n = receive(session, chunk, sizeof(chunk));

	kt_err_clear(&err);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		session->broken = true;
		return;
	}
	if (n < 0 || session->request != NULL || session->ended) {
		kt_wipe(chunk, sizeof(chunk));
		return;
	}
	kt_buf_add(&session->in, chunk, (size_t)n);
	kt_wipe(chunk, sizeof(chunk));
	if (kt_buf_check(&session->in, "request", &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	end = memchr(session->in.ptr, '\n', session->in.len);
	if (end == NULL) {
		return;
	}
	if (kt_admin_is_http((struct kt_view){session->in.ptr, (size_t)(end - session->in.ptr)})) {
		kt_admin_http(session);
		return;
	}
	if (kt_json_parse((struct kt_view){session->in.ptr, (size_t)(end - session->in.ptr)}, KT_ADMIN_REQUEST_MAX,
	                  &session->request, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_buf_finish(&session->in);
	kt_buf_init(&session->in, KT_ADMIN_REQUEST_MAX);
	dispatch(session);
}

static void on_ready(int events, void *arg)
{
	struct kt_session *session = arg;

	if ((events & (KT_LOOP_READ | KT_LOOP_HANGUP)) != 0) {
		session_read(session);
	}
	if (session->more != NULL && !session->broken && kt_session_room(session)) {
		session->more(session);
	}
	kt_session_flush(session);
	if (session->broken || (session->ended && session->out.len == 0)) {
		session_close(session);
	}
}

enum kt_code kt_admin_accept(struct kt_keeper *keeper, int fd, uint32_t uid, uint32_t gid, uint32_t pid,
                             struct kt_err *err)
{
	struct kt_session *session;
	struct kt_session *other;
	unsigned count = 0;
	enum kt_code code;

	for (other = keeper->sessions; other != NULL; other = other->next) {
		count++;
	}
	session = count < SESSIONS_MAX ? kt_calloc(1, sizeof(*session)) : NULL;
	if (session == NULL) {
		close(fd);
		return kt_err_set(err, KT_E_LIMIT, "too many commands at once");
	}
	session->keeper = keeper;
	session->fd = fd;
	session->passed_fd = -1;
	session->uid = uid;
	session->gid = gid;
	session->pid = pid;
	kt_buf_init(&session->in, KT_ADMIN_REQUEST_MAX);
	kt_buf_init(&session->out, KT_ADMIN_OUT_MAX);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	code = kt_watch_create(keeper->loop, fd, KT_LOOP_READ, on_ready, session, &session->watch, err);
	if (code != KT_OK) {
		close(fd);
		kt_free(session);
		return code;
	}
	session->next = keeper->sessions;
	keeper->sessions = session;
	return KT_OK;
}

/* What a command that follows along is told unless it asks for every step. */
static bool milestone(const struct kt_audit_event *event)
{
	return strcmp(event->outcome, "ok") != 0 || strcmp(event->step, "switched") == 0 ||
	       strcmp(event->step, "proved") == 0;
}

void kt_admin_event(struct kt_keeper *keeper, const struct kt_audit_event *event)
{
	struct kt_session *session;

	for (session = keeper->sessions; session != NULL; session = session->next) {
		if (!session->follow || session->out.len > KT_ADMIN_OUT_FULL || (!session->every_step && !milestone(event))) {
			continue; /* a slow reader misses events, never holds anything up */
		}
		kt_session_line(session,
		                json_pack("{s:{s:s,s:s*,s:s*,s:s*,s:s,s:s*,s:s*,s:s*}}", "event", "step", event->step, "kind",
		                          event->kind, "namespace", event->ns, "name", event->name, "outcome", event->outcome,
		                          "reason", event->reason, "consumer", event->consumer, "traceId", event->trace_id));
	}
}

void kt_admin_progress(struct kt_keeper *keeper)
{
	struct kt_session *session = keeper->sessions;

	while (session != NULL) {
		struct kt_session *next = session->next;

		if (session->progress != NULL) {
			session->progress(session);
		}
		kt_session_flush(session);
		session = next;
	}
}

void kt_admin_finish(struct kt_keeper *keeper)
{
	while (keeper->sessions != NULL) {
		struct kt_session *session = keeper->sessions;

		session->ended = false; /* nothing more is announced */
		session_close(session);
	}
}
