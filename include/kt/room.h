/* What every room's main does: the wire to the warden, setup, the sandbox, the loop, an orderly end. */
#ifndef KT_ROOM_H
#define KT_ROOM_H

#include "kt/loop.h"
#include "kt/sandbox.h"
#include "kt/wire.h"

/* The descriptor on which a room finds its end of the wire to the warden. */
#define KT_ROOM_WARDEN_FD 3
/* How a room ends that can get no memory any more: a fresh one has a better chance. */
#define KT_ROOM_STARVED 71

struct kt_room_ctx {
	struct kt_loop *loop;
	struct kt_wire *warden;
	struct kt_sandbox_report walls;
	void *state; /* the room's own */
};

struct kt_room_ops {
	enum kt_room self;
	unsigned threads;                              /* of the loop's pool */
	const struct kt_wire_handler *warden_handlers; /* besides SETUP, PEER and SHUTDOWN; arg is the ctx */
	/* Before the walls close: open what needs opening, say in *box what stays open. fds not taken are closed. */
	enum kt_code (*start)(struct kt_room_ctx *ctx, const struct kt_msg_setup *setup, int *fds, unsigned fd_count,
	                      struct kt_sandbox *box, struct kt_err *err);
	/* After they closed. */
	enum kt_code (*opened)(struct kt_room_ctx *ctx, struct kt_err *err);
	/* A fresh wire to another room (takes fd). NULL where a room has none. */
	enum kt_code (*peer)(struct kt_room_ctx *ctx, enum kt_room peer, int fd, struct kt_err *err);
	/* Asked to end, or the warden is gone: call kt_loop_stop when done. */
	void (*shutdown)(struct kt_room_ctx *ctx);
	void (*finish)(struct kt_room_ctx *ctx); /* last: free everything */
};

/* Ends the room with this status, for what only a fresh one can mend. ops->finish is called. */
void kt_room_end(struct kt_room_ctx *ctx, int status);

/* The whole life of a room; returns main's exit status. Started by hand (no descriptor 3) it says so and returns 2. */
int kt_room_main(const struct kt_room_ops *ops);

#endif
