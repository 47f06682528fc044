/* The wire between two rooms: framed requests and replies over a SOCK_SEQPACKET pair, bounded in every direction. */
#ifndef KT_WIRE_H
#define KT_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/err.h"
#include "kt/loop.h"
#include "kt/msg.h"

/* Which build this is; two ends of a wire must have the same. */
extern const char kt_build_id[];

/* Descriptors that came with a frame, at most KT_WIRE_FDS_MAX; those not taken (set to -1) are closed after the
 * handler. */
#define KT_WIRE_FDS_MAX 16
/* Frames that may wait for the peer. */
#define KT_WIRE_QUEUE_MAX 1024
/*
 * Requests of the peer that we take on at once; announced in hello, the peer holds back the rest, in their order: more than
 * the keeper has in work, or those to a server that never answers would hold up all others.
 */
#define KT_WIRE_CREDIT 512

struct kt_wire;

/* A request or notice that arrived. Valid while the handler runs, except id, which a late reply needs. */
struct kt_wire_in {
	struct kt_wire *wire;
	enum kt_msg_type type;
	uint32_t id;     /* 0 for a notice: no reply is expected */
	void *msg;       /* struct kt_msg_<name> of the type */
	int *fds;
	unsigned fd_count;
};

/* One row of a room's dispatch table for one peer: what is not in the table is refused and ends the wire. */
struct kt_wire_handler {
	enum kt_msg_type type;
	void (*fn)(struct kt_wire_in *in, void *arg);
};

/* A reply. err->code is KT_OK, or what failed (KT_E_CLOSED: the peer died, KT_E_TIMEOUT). msg has reply_type. A secret
 * member may be taken by setting it to NULL. */
typedef void kt_wire_reply_fn(const struct kt_err *err, enum kt_msg_type reply_type, void *msg, int *fds,
                              unsigned fd_count, void *arg);

struct kt_wire_config {
	enum kt_room self;
	enum kt_room peer;
	const struct kt_wire_handler *handlers; /* ends with type KT_MSG_TYPE_NONE */
	void (*ready)(struct kt_wire *wire, void *arg);                              /* hello received; may be NULL */
	void (*closed)(struct kt_wire *wire, const struct kt_err *why, void *arg); /* peer gone; may be NULL */
	void *arg;
};

/* A wire without an end yet: requests wait (bounded) until kt_wire_attach. config is copied. */
enum kt_code kt_wire_create(struct kt_loop *loop, const struct kt_wire_config *config, struct kt_wire **ret,
                            struct kt_err *err);
/* Gives it an end (takes the fd) and says hello. A former end is closed, its open requests fail with KT_E_CLOSED. */
enum kt_code kt_wire_attach(struct kt_wire *wire, int fd, struct kt_err *err);
void kt_wire_detach(struct kt_wire *wire);
bool kt_wire_attached(const struct kt_wire *wire);
void kt_wire_destroy(struct kt_wire *wire);

/*
 * Sends a request; fn gets the reply exactly once (not called when this returns an error). msg is encoded
 * at once and not kept. timeout in ms (0: none). fds are duplicated by the kernel, they stay the caller's.
 * KT_E_LATER when KT_WIRE_QUEUE_MAX frames are waiting already.
 */
enum kt_code kt_wire_call(struct kt_wire *wire, enum kt_msg_type type, const void *msg, const int *fds,
                          unsigned fd_count, kt_ms timeout, kt_wire_reply_fn *fn, void *arg, struct kt_err *err);
/* A message without a reply. */
enum kt_code kt_wire_notice(struct kt_wire *wire, enum kt_msg_type type, const void *msg, const int *fds,
                            unsigned fd_count, struct kt_err *err);
/* Answers request id; nothing happens when the peer is gone meanwhile. */
void kt_wire_reply(struct kt_wire *wire, uint32_t id, enum kt_msg_type type, const void *msg, const int *fds,
                   unsigned fd_count);
void kt_wire_reply_err(struct kt_wire *wire, uint32_t id, const struct kt_err *why);
/* Forgets every open call whose arg is this one: its fn will not be called. */
void kt_wire_forget(struct kt_wire *wire, const void *arg);
/* True while frames or calls are in the air. */
bool kt_wire_pending(const struct kt_wire *wire);

/* --- the codec by itself (also the fuzz target) ---------------------------------------------------------------- */

struct kt_frame {
	enum kt_msg_type type;
	bool reply;
	bool failed; /* body is a struct kt_err */
	uint32_t id;
	uint32_t deadline_ms;
};

/* Largest struct of the table, in bytes: what a decoder needs. */
union kt_msg_any {
#define KT_MSG_MEMBER(ID, name) struct kt_msg_##name name;
	KT_MESSAGES(KT_MSG_MEMBER)
#undef KT_MSG_MEMBER
	struct kt_err err;
};

const char *kt_msg_name(enum kt_msg_type type);
enum kt_code kt_wire_encode(const struct kt_frame *frame, const void *msg, struct kt_buf *out, struct kt_err *err);
/* Views in msg point into data; secrets are owned by the caller: kt_wire_release. */
enum kt_code kt_wire_decode(struct kt_view data, struct kt_frame *frame, union kt_msg_any *msg, struct kt_err *err);
void kt_wire_release(const struct kt_frame *frame, union kt_msg_any *msg);

#endif
