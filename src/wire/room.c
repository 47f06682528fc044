/* A room's main: hello to the warden, setup, walls, loop, orderly end. */
#include <fcntl.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/room.h"

#define HANDLERS_MAX 16
#define HEAP_SPARE   (512 * 1024) /* kept for the next request instead of asking the kernel each time */

struct room {
	const struct kt_room_ops *ops;
	struct kt_room_ctx ctx;
	struct kt_wire_handler handlers[HANDLERS_MAX];
	bool started;
	bool ending;
	int status;
};

static const char *const room_names[KT_ROOM_COUNT] = {"warden", "keeper", "courier", "desk"};

static void room_fail(struct room *room, const struct kt_err *err, const char *what)
{
	kt_log_err(KT_LOG_ERROR, err, "%s", what);
	room->status = 1;
	kt_loop_stop(room->ctx.loop);
}

void kt_room_end(struct kt_room_ctx *ctx, int status)
{
	struct room *room = (struct room *)((char *)ctx - offsetof(struct room, ctx));

	room->status = status;
	kt_loop_stop(ctx->loop);
}

static enum kt_code start(struct room *room, const struct kt_wire_in *in, struct kt_err *err)
{
	const struct kt_msg_setup *setup = in->msg;
	struct kt_sandbox box;
	enum kt_code code;

	memset(&box, 0, sizeof(box));
	kt_log_setup(room_names[room->ops->self], (enum kt_level)setup->log_level, setup->log_json);
	code = room->ops->start(&room->ctx, setup, in->fds, in->fd_count, &box, err);
	if (code == KT_OK && setup->sandbox) {
		code = kt_sandbox_prepare(&box, &room->ctx.walls, err);
	}
	if (code == KT_OK && room->ops->threads > 0) {
		code = kt_loop_start_threads(room->ctx.loop, err);
	}
	if (code == KT_OK && setup->sandbox) {
		code = kt_sandbox_close(&box, &room->ctx.walls, err);
	}
	if (code == KT_OK && room->ops->opened != NULL) {
		code = room->ops->opened(&room->ctx, err);
	}
	kt_mem_trim(); /* what only the start needed */
	(void)mallopt(M_TRIM_THRESHOLD, HEAP_SPARE);
	return code;
}

static void on_setup(struct kt_wire_in *in, void *arg)
{
	struct kt_room_ctx *ctx = arg;
	struct room *room = (struct room *)((char *)ctx - offsetof(struct room, ctx));
	struct kt_msg_done done = {0};
	struct kt_err err;

	kt_err_clear(&err);
	if (room->started) {
		(void)kt_err_set(&err, KT_E_PROTO, "this room is set up already");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	room->started = true;
	if (start(room, in, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		room_fail(room, &err, "this room can't start");
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}

static void on_peer(struct kt_wire_in *in, void *arg)
{
	struct kt_room_ctx *ctx = arg;
	struct room *room = (struct room *)((char *)ctx - offsetof(struct room, ctx));
	const struct kt_msg_peer *peer = in->msg;
	struct kt_msg_done done = {0};
	struct kt_err err;
	int fd;

	kt_err_clear(&err);
	if (room->ops->peer == NULL || in->fd_count != 1) {
		(void)kt_err_set(&err, KT_E_PROTO, "a peer needs one descriptor and a room that takes it");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	fd = in->fds[0];
	in->fds[0] = -1;
	if (room->ops->peer(ctx, (enum kt_room)peer->room, fd, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}

static void end(struct room *room)
{
	if (room->ending) {
		return;
	}
	room->ending = true;
	if (room->started && room->ops->shutdown != NULL) {
		room->ops->shutdown(&room->ctx);
	} else {
		kt_loop_stop(room->ctx.loop);
	}
}

static void on_shutdown(struct kt_wire_in *in, void *arg)
{
	struct kt_room_ctx *ctx = arg;

	(void)in;
	end((struct room *)((char *)ctx - offsetof(struct room, ctx)));
}

static void on_warden_gone(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	struct kt_room_ctx *ctx = arg;

	(void)wire;
	kt_log_err(KT_LOG_DEBUG, why, "the warden is gone");
	end((struct room *)((char *)ctx - offsetof(struct room, ctx)));
}

/*
 * No way back into what was under way: any step of an orderly end might want memory, and all that counts is in the store,
 * as after a kill.
 */
static void on_starved(void *arg)
{
	const struct room *room = arg;

	kt_log(KT_LOG_ERROR, "keyturn-%s is out of memory and ends; what it did is kept: give it more, or less to do",
	       room_names[room->ops->self]);
	_exit(KT_ROOM_STARVED);
}

static enum kt_code attach_warden(struct room *room, struct kt_err *err)
{
	struct kt_wire_config config = {.self = room->ops->self,
					.peer = KT_ROOM_WARDEN,
					.handlers = room->handlers,
					.closed = on_warden_gone,
					.arg = &room->ctx};
	const struct kt_wire_handler *row = room->ops->warden_handlers;
	unsigned count = 0;
	enum kt_code code;

	room->handlers[count++] = (struct kt_wire_handler){KT_SETUP, on_setup};
	room->handlers[count++] = (struct kt_wire_handler){KT_PEER, on_peer};
	room->handlers[count++] = (struct kt_wire_handler){KT_SHUTDOWN, on_shutdown};
	for (; row != NULL && row->type != KT_MSG_TYPE_NONE && count < HANDLERS_MAX - 1; row++) {
		room->handlers[count++] = *row;
	}
	code = kt_wire_create(room->ctx.loop, &config, &room->ctx.warden, err);
	if (code == KT_OK) {
		code = kt_wire_attach(room->ctx.warden, KT_ROOM_WARDEN_FD, err);
	}
	return code;
}

/* True when descriptor 3 is a SOCK_SEQPACKET socket, as the warden leaves it. */
static bool has_warden(void)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return getsockopt(KT_ROOM_WARDEN_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

int kt_room_main(const struct kt_room_ops *ops)
{
	struct room room = {.ops = ops};
	struct kt_err err;

	kt_err_clear(&err);
	kt_log_setup(room_names[ops->self], KT_LOG_INFO, false);
	if (!has_warden()) {
		kt_log(KT_LOG_ERROR, "keyturn-%s is a room of keyturn and is started by it: use 'keyturn run'",
		       room_names[ops->self]);
		return 2;
	}
	(void)setenv("UV_USE_IO_URING", "0", 1); /* seccomp has no place for it */
	kt_json_init();
	if (kt_secret_init(&err) != KT_OK || kt_loop_create(ops->threads, &room.ctx.loop, &err) != KT_OK ||
	    kt_loop_starved(room.ctx.loop, on_starved, &room, &err) != KT_OK || attach_warden(&room, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "this room can't start");
		return 1;
	}
	kt_loop_run(room.ctx.loop);
	if (ops->finish != NULL) {
		ops->finish(&room.ctx);
	}
	kt_wire_destroy(room.ctx.warden);
	kt_loop_destroy(room.ctx.loop);
	return room.status;
}
