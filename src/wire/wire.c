/*
 * One end of a wire: queues, open calls, deadlines and dispatch.
 *
 * A frame that can't be sent at once waits in one of two queues: `plain` (replies and notices), which is only held
 * back by a full socket, and `requests`, which also waits for credit: the peer said in its hello how many requests it
 * takes on at once. So a flood of requests never keeps a reply from getting through, and two rooms that ask each
 * other can't block one another. A frame that was never sent survives the death of the peer; a request that was sent
 * fails with KT_E_CLOSED and is the pipeline's to issue again.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fcntl.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/wire.h"

/* Replies that a peer asks for and never reads: a thousand small ones, or as many large ones as fit in this. */
#define PLAIN_BYTES_MAX (8u * 1024u * 1024u)

/* A frame on its way out. */
struct out {
	struct out *next;
	uint32_t id; /* of a request; 0 otherwise */
	int fds[KT_WIRE_FDS_MAX];
	unsigned fd_count;
	size_t len;
	char data[];
};

struct queue {
	struct out *head;
	struct out **tail;
	unsigned count;
	size_t bytes;
};

/* A request of ours that has no reply yet. */
struct call {
	struct call *next;
	uint32_t id;
	bool sent;
	kt_ms deadline; /* monotonic; 0: none */
	kt_wire_reply_fn *fn;
	void *arg;
};

struct kt_wire {
	struct kt_loop *loop;
	struct kt_wire_config config;
	int fd;
	struct kt_watch *watch;
	struct kt_timer *timer;
	bool said_hello; /* the peer did */
	uint32_t credit; /* what the peer takes on at once */
	uint32_t open;   /* our requests that were sent and have no reply */
	uint32_t next_id;
	struct queue plain;
	struct queue requests;
	struct call *calls;
	unsigned depth; /* of handlers running: destruction waits for them */
	bool destroyed;
};

static void queue_init(struct queue *queue)
{
	queue->head = NULL;
	queue->tail = &queue->head;
	queue->count = 0;
	queue->bytes = 0;
}

static void out_destroy(struct out *out)
{
	unsigned i;

	for (i = 0; i < out->fd_count; i++) {
		close(out->fds[i]);
	}
	kt_free(out);
}

static struct out *queue_pop(struct queue *queue)
{
	struct out *out = queue->head;

	queue->head = out->next;
	if (queue->head == NULL) {
		queue->tail = &queue->head;
	}
	queue->count--;
	queue->bytes -= out->len;
	return out;
}

static void queue_push(struct queue *queue, struct out *out)
{
	out->next = NULL;
	*queue->tail = out;
	queue->tail = &out->next;
	queue->count++;
	queue->bytes += out->len;
}

static void queue_clear(struct queue *queue)
{
	while (queue->head != NULL) {
		out_destroy(queue_pop(queue));
	}
}

enum kt_code kt_wire_create(struct kt_loop *loop, const struct kt_wire_config *config, struct kt_wire **ret,
			    struct kt_err *err)
{
	struct kt_wire *wire = kt_calloc(1, sizeof(*wire));

	if (wire == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a wire");
	}
	wire->loop = loop;
	wire->config = *config;
	wire->fd = -1;
	wire->next_id = 1;
	queue_init(&wire->plain);
	queue_init(&wire->requests);
	*ret = wire;
	return KT_OK;
}

/* Ends a call with an error; the list has let go of it. */
static void call_fail(struct call *call, enum kt_code code, const char *what)
{
	struct kt_err why;

	kt_err_clear(&why);
	(void)kt_err_set(&why, code, "%s", what);
	call->fn(&why, KT_MSG_TYPE_NONE, NULL, NULL, 0, call->arg);
	kt_free(call);
}

static struct call *call_take(struct kt_wire *wire, uint32_t id)
{
	struct call **at;

	for (at = &wire->calls; *at != NULL; at = &(*at)->next) {
		if ((*at)->id == id) {
			struct call *call = *at;

			*at = call->next;
			if (call->sent) {
				wire->open--;
			}
			return call;
		}
	}
	return NULL;
}

/* Fails every call that was sent (or all of them). Calls made by the callbacks themselves are not touched. */
static void calls_fail(struct kt_wire *wire, bool all, enum kt_code code, const char *what)
{
	struct call *failed = NULL;
	struct call **at = &wire->calls;

	while (*at != NULL) {
		struct call *call = *at;

		if (all || call->sent) {
			*at = call->next;
			call->next = failed;
			failed = call;
		} else {
			at = &call->next;
		}
	}
	wire->open = 0;
	while (failed != NULL) {
		struct call *call = failed;

		failed = call->next;
		call_fail(call, code, what);
	}
}

static void end_close(struct kt_wire *wire)
{
	kt_watch_destroy(wire->watch);
	wire->watch = NULL;
	if (wire->fd >= 0) {
		close(wire->fd);
	}
	wire->fd = -1;
	wire->said_hello = false;
	wire->credit = 0;
}

void kt_wire_detach(struct kt_wire *wire)
{
	if (wire == NULL || wire->fd < 0) {
		return;
	}
	end_close(wire);
	wire->depth++;
	calls_fail(wire, false, KT_E_CLOSED, "the other room was restarted");
	wire->depth--;
}

bool kt_wire_attached(const struct kt_wire *wire)
{
	return wire->fd >= 0;
}

bool kt_wire_pending(const struct kt_wire *wire)
{
	return wire->calls != NULL || wire->plain.head != NULL || wire->requests.head != NULL;
}

static void wire_free(struct kt_wire *wire)
{
	queue_clear(&wire->plain);
	queue_clear(&wire->requests);
	while (wire->calls != NULL) {
		struct call *call = wire->calls;

		wire->calls = call->next;
		kt_free(call);
	}
	kt_timer_destroy(wire->timer);
	kt_free(wire);
}

void kt_wire_destroy(struct kt_wire *wire)
{
	if (wire == NULL || wire->destroyed) {
		return;
	}
	wire->destroyed = true;
	end_close(wire);
	if (wire->depth == 0) {
		wire_free(wire);
	}
}

/* The peer is gone or broke the rules. */
static void wire_lost(struct kt_wire *wire, const struct kt_err *why)
{
	if (wire->fd < 0) {
		return;
	}
	wire->depth++;
	kt_wire_detach(wire);
	if (wire->config.closed != NULL && !wire->destroyed) {
		wire->config.closed(wire, why, wire->config.arg);
	}
	wire->depth--;
}

/* Sends one frame; KT_E_LATER when the socket is full. */
static enum kt_code send_frame(struct kt_wire *wire, struct out *out, struct kt_err *err)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * KT_WIRE_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {out->data, out->len};
	struct msghdr msg;

	memset(&msg, 0, sizeof(msg));
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	if (out->fd_count > 0) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * out->fd_count);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * out->fd_count);
		memcpy(CMSG_DATA(cmsg), out->fds, sizeof(int) * out->fd_count);
	}
	while (sendmsg(wire->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno == EINTR) {
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
			return KT_E_LATER;
		}
		return kt_err_sys(err, "the wire to another room broke");
	}
	return KT_OK;
}

static void mark_sent(struct kt_wire *wire, uint32_t id)
{
	struct call *call;

	for (call = wire->calls; call != NULL; call = call->next) {
		if (call->id == id) {
			call->sent = true;
			wire->open++;
			return;
		}
	}
}

/* Sends what may be sent; watches for room in the socket when it is full. */
static void flush(struct kt_wire *wire)
{
	struct kt_err err;
	bool full = false;

	kt_err_clear(&err);
	while (wire->fd >= 0 && wire->said_hello && !full) {
		bool request = wire->plain.head == NULL;
		struct queue *queue = request ? &wire->requests : &wire->plain;
		enum kt_code code;

		if (queue->head == NULL || (request && wire->open >= wire->credit)) {
			break;
		}
		code = send_frame(wire, queue->head, &err);
		if (code == KT_E_LATER) {
			full = true;
		} else if (code != KT_OK) {
			wire_lost(wire, &err);
			return;
		} else {
			struct out *out = queue_pop(queue);

			if (out->id != 0) {
				mark_sent(wire, out->id);
			}
			out_destroy(out);
		}
	}
	if (wire->watch != NULL) {
		(void)kt_watch_set(wire->watch, full ? KT_LOOP_READ | KT_LOOP_WRITE : KT_LOOP_READ, NULL);
	}
}

/* Encodes a frame, with duplicates of the descriptors. */
static enum kt_code out_create(const struct kt_frame *frame, const void *msg, const int *fds, unsigned fd_count,
			       struct out **ret, struct kt_err *err)
{
	struct kt_buf buf KT_AUTOBUF = {0};
	struct out *out;
	enum kt_code code;

	kt_buf_init(&buf, KT_WIRE_FRAME_MAX);
	code = kt_wire_encode(frame, msg, &buf, err);
	if (code != KT_OK) {
		return code;
	}
	out = kt_calloc(1, sizeof(*out) + buf.len);
	if (out == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a message");
	}
	memcpy(out->data, buf.ptr, buf.len);
	out->len = buf.len;
	for (; out->fd_count < fd_count && out->fd_count < KT_WIRE_FDS_MAX; out->fd_count++) {
		int copy = fcntl(fds[out->fd_count], F_DUPFD_CLOEXEC, 3);

		if (copy < 0) {
			code = kt_err_sys(err, "a descriptor for another room can't be duplicated");
			out_destroy(out);
			return code;
		}
		out->fds[out->fd_count] = copy;
	}
	*ret = out;
	return KT_OK;
}

static void on_deadline(void *arg);

/* Arms the timer for the earliest deadline. */
static enum kt_code arm(struct kt_wire *wire, struct kt_err *err)
{
	kt_ms now = kt_clock_mono(kt_loop_clock(wire->loop));
	kt_ms first = 0;
	const struct call *call;

	for (call = wire->calls; call != NULL; call = call->next) {
		if (call->deadline != 0 && (first == 0 || call->deadline < first)) {
			first = call->deadline;
		}
	}
	if (first == 0) {
		if (wire->timer != NULL) {
			kt_timer_stop(wire->timer);
		}
		return KT_OK;
	}
	if (wire->timer == NULL) {
		enum kt_code code = kt_timer_create(wire->loop, on_deadline, wire, &wire->timer, err);

		if (code != KT_OK) {
			return code;
		}
	}
	kt_timer_start(wire->timer, first > now ? first - now : 0);
	return KT_OK;
}

static void on_deadline(void *arg)
{
	struct kt_wire *wire = arg;
	kt_ms now = kt_clock_mono(kt_loop_clock(wire->loop));
	struct call *late = NULL;
	struct call **at = &wire->calls;

	while (*at != NULL) {
		struct call *call = *at;

		if (call->deadline != 0 && call->deadline <= now) {
			*at = call->next;
			if (call->sent) {
				wire->open--;
			}
			call->next = late;
			late = call;
		} else {
			at = &call->next;
		}
	}
	wire->depth++;
	while (late != NULL) {
		struct call *call = late;

		late = call->next;
		call_fail(call, KT_E_TIMEOUT, "another room did not answer in time");
	}
	wire->depth--;
	if (wire->destroyed && wire->depth == 0) {
		wire_free(wire);
		return;
	}
	flush(wire);
	(void)arm(wire, NULL);
}

enum kt_code kt_wire_call(struct kt_wire *wire, enum kt_msg_type type, const void *msg, const int *fds,
			  unsigned fd_count, kt_ms timeout, kt_wire_reply_fn *fn, void *arg, struct kt_err *err)
{
	struct kt_frame frame = {.type = type, .deadline_ms = (uint32_t)timeout};
	struct call *call;
	struct out *out;
	enum kt_code code;

	if (wire->requests.count >= KT_WIRE_QUEUE_MAX) {
		return kt_err_set(err, KT_E_LATER, "too many requests wait for another room");
	}
	frame.id = wire->next_id++;
	if (wire->next_id == 0) {
		wire->next_id = 1;
	}
	code = out_create(&frame, msg, fds, fd_count, &out, err);
	if (code != KT_OK) {
		return code;
	}
	call = kt_calloc(1, sizeof(*call));
	if (call == NULL) {
		out_destroy(out);
		return kt_err_set(err, KT_E_NOMEM, "no memory for a request");
	}
	call->id = out->id = frame.id;
	call->fn = fn;
	call->arg = arg;
	call->deadline = timeout > 0 ? kt_clock_mono(kt_loop_clock(wire->loop)) + timeout : 0;
	call->next = wire->calls;
	wire->calls = call;
	code = call->deadline != 0 ? arm(wire, err) : KT_OK;
	if (code != KT_OK) {
		wire->calls = call->next;
		kt_free(call);
		out_destroy(out);
		return code;
	}
	queue_push(&wire->requests, out);
	flush(wire);
	return KT_OK;
}

static enum kt_code send_plain(struct kt_wire *wire, const struct kt_frame *frame, const void *msg, const int *fds,
			       unsigned fd_count, struct kt_err *err)
{
	struct out *out;
	enum kt_code code;

	if (wire->plain.count >= KT_WIRE_QUEUE_MAX || wire->plain.bytes >= PLAIN_BYTES_MAX) {
		return kt_err_set(err, KT_E_LATER, "too many messages wait for another room");
	}
	code = out_create(frame, msg, fds, fd_count, &out, err);
	if (code != KT_OK) {
		return code;
	}
	queue_push(&wire->plain, out);
	flush(wire);
	return KT_OK;
}

enum kt_code kt_wire_notice(struct kt_wire *wire, enum kt_msg_type type, const void *msg, const int *fds,
			    unsigned fd_count, struct kt_err *err)
{
	struct kt_frame frame = {.type = type};

	return send_plain(wire, &frame, msg, fds, fd_count, err);
}

void kt_wire_reply(struct kt_wire *wire, uint32_t id, enum kt_msg_type type, const void *msg, const int *fds,
		   unsigned fd_count)
{
	struct kt_frame frame = {.type = type, .reply = true, .id = id};
	struct kt_err err;

	kt_err_clear(&err);
	if (id == 0 || wire->fd < 0) {
		return;
	}
	if (send_plain(wire, &frame, msg, fds, fd_count, &err) != KT_OK) {
		kt_wire_reply_err(wire, id, &err);
	}
}

void kt_wire_reply_err(struct kt_wire *wire, uint32_t id, const struct kt_err *why)
{
	struct kt_frame frame = {.reply = true, .failed = true, .id = id};
	struct kt_err err;

	kt_err_clear(&err);
	if (id == 0 || wire->fd < 0) {
		return;
	}
	if (send_plain(wire, &frame, why, NULL, 0, &err) != KT_OK) {
		wire_lost(wire, &err);
	}
}

void kt_wire_forget(struct kt_wire *wire, const void *arg)
{
	struct call **at;

	if (wire == NULL) {
		return;
	}
	at = &wire->calls;
	while (*at != NULL) {
		struct call *call = *at;

		if (call->arg == arg) {
			*at = call->next;
			if (call->sent) {
				wire->open--;
			}
			kt_free(call);
		} else {
			at = &call->next;
		}
	}
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

struct incoming {
	char *data;
	size_t len;
	int fds[KT_WIRE_FDS_MAX];
	unsigned fd_count;
};

static void take_fds(struct msghdr *msg, struct incoming *in)
{
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t count;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (in->fd_count < KT_WIRE_FDS_MAX) {
				in->fds[in->fd_count++] = fd;
			} else {
				close(fd);
			}
		}
	}
}

/* One frame: KT_OK, KT_E_LATER when there is none, KT_E_CLOSED at the end. */
static enum kt_code receive(struct kt_wire *wire, struct incoming *in, struct kt_err *err)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * KT_WIRE_FDS_MAX)];
		struct cmsghdr align;
	} control;
	static char room[KT_WIRE_FRAME_MAX]; /* of the loop's one thread; only pages that were ever filled cost anything */
	struct iovec iov = {room, sizeof(room)};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.bytes,
	                     .msg_controllen = sizeof(control.bytes)};
	ssize_t n = recvmsg(wire->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	memset(in, 0, sizeof(*in));
	if (n < 0) {
		return errno == EAGAIN || errno == EINTR ? KT_E_LATER : kt_err_sys(err, "the wire broke");
	}
	if (n == 0) {
		return kt_err_set(err, KT_E_CLOSED, "the other room ended");
	}
	take_fds(&msg, in);
	if ((msg.msg_flags & MSG_TRUNC) != 0) {
		explicit_bzero(room, sizeof(room));
		return kt_err_set(err, KT_E_PROTO, "a frame of more than %u bytes", KT_WIRE_FRAME_MAX);
	}
	in->len = (size_t)n;
	in->data = kt_malloc(in->len);
	if (in->data != NULL) {
		memcpy(in->data, room, in->len);
	}
	explicit_bzero(room, in->len);
	return in->data != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for a frame");
}

static void incoming_finish(struct incoming *in)
{
	unsigned i;

	for (i = 0; i < in->fd_count; i++) {
		if (in->fds[i] >= 0) {
			close(in->fds[i]);
		}
	}
	kt_free(in->data);
}

static enum kt_code take_hello(struct kt_wire *wire, const struct kt_frame *frame, const union kt_msg_any *msg,
			       struct kt_err *err)
{
	const struct kt_msg_hello *hello = &msg->hello;

	if (frame->type != KT_HELLO || frame->reply) {
		return kt_err_set(err, KT_E_PROTO, "the other room did not say hello but %s", kt_msg_name(frame->type));
	}
	if (!kt_view_eq_str(hello->build, kt_build_id)) {
		return kt_err_set(err, KT_E_PROTO,
				  "the other room is of build %.*s, this one of %s: install them together",
				  (int)hello->build.len, hello->build.ptr, kt_build_id);
	}
	if (hello->room != (uint32_t)wire->config.peer) {
		return kt_err_set(err, KT_E_PROTO, "the wrong room is at the other end (%u)", hello->room);
	}
	wire->said_hello = true;
	wire->credit = hello->credit < KT_WIRE_QUEUE_MAX ? hello->credit : KT_WIRE_QUEUE_MAX;
	if (wire->config.ready != NULL) {
		wire->config.ready(wire, wire->config.arg);
	}
	return KT_OK;
}

static void take_reply(struct kt_wire *wire, const struct kt_frame *frame, union kt_msg_any *msg, struct incoming *in)
{
	struct call *call = call_take(wire, frame->id);
	struct kt_err none;

	if (call == NULL) {
		return; /* forgotten or too late */
	}
	kt_err_clear(&none);
	if (frame->failed) {
		call->fn(&msg->err, KT_MSG_TYPE_NONE, NULL, NULL, 0, call->arg);
	} else {
		call->fn(&none, frame->type, msg, in->fds, in->fd_count, call->arg);
	}
	kt_free(call);
}

static enum kt_code take_request(struct kt_wire *wire, const struct kt_frame *frame, union kt_msg_any *msg,
				 struct incoming *in, struct kt_err *err)
{
	const struct kt_wire_handler *row;
	struct kt_wire_in request = {wire, frame->type, frame->id, msg, in->fds, in->fd_count};

	for (row = wire->config.handlers; row != NULL && row->type != KT_MSG_TYPE_NONE; row++) {
		if (row->type == frame->type) {
			row->fn(&request, wire->config.arg);
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_PROTO, "the other room may not send %s", kt_msg_name(frame->type));
}

/* Handles one frame; false when there is none left or the wire is gone. */
static bool take_frame(struct kt_wire *wire)
{
	struct kt_err err;
	struct incoming in;
	struct kt_frame frame;
	union kt_msg_any msg;
	enum kt_code code;

	kt_err_clear(&err);
	code = receive(wire, &in, &err);
	if (code == KT_E_LATER) {
		return false;
	}
	if (code == KT_OK) {
		code = kt_wire_decode((struct kt_view){in.data, in.len}, &frame, &msg, &err);
		if (code == KT_OK) {
			if (!wire->said_hello) {
				code = take_hello(wire, &frame, &msg, &err);
			} else if (frame.reply) {
				take_reply(wire, &frame, &msg, &in);
			} else {
				code = take_request(wire, &frame, &msg, &in, &err);
			}
			kt_wire_release(&frame, &msg);
		}
	}
	incoming_finish(&in);
	if (code != KT_OK && !wire->destroyed) {
		wire_lost(wire, &err);
	}
	return code == KT_OK && !wire->destroyed && wire->fd >= 0;
}

static void on_ready(int events, void *arg)
{
	struct kt_wire *wire = arg;
	unsigned budget = 64; /* frames in one go, so that nobody else on the loop starves */

	wire->depth++;
	if ((events & (KT_LOOP_READ | KT_LOOP_HANGUP)) != 0) {
		while (budget-- > 0 && take_frame(wire)) {
		}
	}
	if (!wire->destroyed) {
		flush(wire);
	}
	wire->depth--;
	if (wire->destroyed && wire->depth == 0) {
		wire_free(wire);
	}
}

enum kt_code kt_wire_attach(struct kt_wire *wire, int fd, struct kt_err *err)
{
	static const int buffer = 212992; /* doubled by the kernel: room for a frame of KT_WIRE_FRAME_MAX */
	struct kt_frame frame = {.type = KT_HELLO};
	struct kt_msg_hello hello = {kt_view_str(kt_build_id), (uint32_t)wire->config.self, (uint32_t)getpid(),
				     KT_WIRE_CREDIT};
	struct out *out;
	enum kt_code code;

	kt_wire_detach(wire);
	wire->fd = fd;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
		code = kt_err_sys(err, "the wire can't be set up");
		goto out;
	}
	code = out_create(&frame, &hello, NULL, 0, &out, err);
	if (code != KT_OK) {
		goto out;
	}
	code = send_frame(wire, out, err);
	out_destroy(out);
	if (code != KT_OK) {
		goto out;
	}
	code = kt_watch_create(wire->loop, fd, KT_LOOP_READ, on_ready, wire, &wire->watch, err);
out:
	if (code != KT_OK) {
		end_close(wire);
	}
	return code;
}
