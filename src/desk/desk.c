/* The desk as a room: listeners from the warden, content and answers from the keeper. */
#include <fcntl.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/log.h"
#include "kt/mem.h"

/* --- the wire to the keeper -------------------------------------------------------------------------------------- */

static void on_serve(struct kt_wire_in *in, void *arg)
{
	struct kt_desk *desk = arg;
	struct kt_msg_done done = {0};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_desk_served_put(desk->served, in->msg, &err)) {
		if (in->id)
			kt_wire_reply_err(in->wire, in->id, &err);
		else
			kt_log_err(KT_LOG_WARN, &err, "the keeper's page is not served");
	} else if (in->id) {
		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
	}
}

void kt_desk_check_memory(struct kt_desk *desk, uint64_t failures)
{
	if (kt_mem_failures() == failures || !desk->starved)
		return;
	kt_log(KT_LOG_WARN, "memory was missing for a handshake: the desk starts anew");
	desk->starved(desk->starved_arg);
}

static void on_serve_alpn(struct kt_wire_in *in, void *arg)
{
	struct kt_desk *desk = arg;
	struct kt_msg_done done = {0};
	uint64_t failures = kt_mem_failures();
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	if (kt_desk_alpn_listens(desk->alpn))
		code = kt_desk_served_put_alpn(desk->served, in->msg, &err);
	else
		code = kt_err_set(&err, KT_E_UNSUPPORTED, "tls-alpn-01 needs spec.listeners.tlsAlpn01 of kind Agent");
	kt_desk_check_memory(desk, failures);
	if (!in->id)
		return;
	if (code)
		kt_wire_reply_err(in->wire, in->id, &err);
	else
		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}

static void on_keeper_ready(struct kt_wire *wire, void *arg)
{
	struct kt_desk *desk = arg;

	(void)wire;
	kt_desk_served_new_keeper(desk->served);
}

static void on_keeper_gone(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	(void)wire;
	(void)arg;
	kt_log_err(KT_LOG_DEBUG, why, "the keeper is gone");
}

static const struct kt_wire_handler keeper_handlers[] = {
	{KT_SERVE, on_serve},
	{KT_SERVE_ALPN, on_serve_alpn},
	{KT_MSG_TYPE_NONE, NULL},
};

enum kt_code kt_desk_attach(struct kt_desk *desk, int fd, struct kt_err *err)
{
	return kt_wire_attach(desk->keeper, fd, err);
}

/* --- listeners --------------------------------------------------------------------------------------------------- */

const char *const kt_desk_kind_names[KT_DESK_KINDS + 1] = {"metrics", "acme", "jwks", "probes", "control", "tokens", "aws",
                                                     "tlsAlpn01"};

/* The kinds that "name+name" names, as bits; 0 when one is unknown. */
static unsigned kinds_from_names(struct kt_view names)
{
	unsigned kinds = 0, kind;

	for (;;) {
		const char *plus = memchr(names.ptr, '+', names.len);
		struct kt_view name = {names.ptr, plus ? (size_t)(plus - names.ptr) : names.len};

		for (kind = 0; kind <= KT_DESK_KINDS && !kt_view_eq_str(name, kt_desk_kind_names[kind]); kind++)
			;
		if (kind > KT_DESK_KINDS)
			return 0;
		kinds |= KT_DESK_BIT(kind);
		if (!plus)
			return kinds;
		names.len -= name.len + 1;
		names.ptr = plus + 1;
	}
}

static enum kt_code listen_on(struct kt_desk *desk, struct kt_view line, int *fd, struct kt_err *err)
{
	const char *space = memchr(line.ptr, ' ', line.len);
	struct kt_view names = {line.ptr, space ? (size_t)(space - line.ptr) : line.len};
	unsigned kinds = kinds_from_names(names);
	enum kt_code code;
	int flags;

	if (kinds == 0 || ((kinds & KT_DESK_BIT(KT_DESK_ALPN)) && kinds != KT_DESK_BIT(KT_DESK_ALPN)) ||
	    ((kinds & KT_DESK_BIT(KT_DESK_TOKENS)) && kinds != KT_DESK_BIT(KT_DESK_TOKENS)) ||
	    ((kinds & KT_DESK_BIT(KT_DESK_AWS)) && kinds != KT_DESK_BIT(KT_DESK_AWS)))
		return kt_err_set(err, KT_E_UNSUPPORTED, "the desk has no listener called '%.*s'", (int)names.len,
		                  names.ptr);
	flags = fcntl(*fd, F_GETFL);
	if (flags < 0 || fcntl(*fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return kt_err_sys(err, "listener %.*s", (int)line.len, line.ptr);
	code = kinds == KT_DESK_BIT(KT_DESK_ALPN) ? kt_desk_alpn_listen(desk->alpn, *fd, err)
	                                          : kt_desk_http_listen(desk->http, kinds, *fd, err);
	if (code)
		return code;
	*fd = -1;
	return KT_OK;
}

enum kt_code kt_desk_listen(struct kt_desk *desk, struct kt_view lines, int *fds, unsigned fd_count,
                            struct kt_err *err)
{
	unsigned i = 0;

	while (lines.len > 0) {
		const char *end = memchr(lines.ptr, '\n', lines.len);
		size_t len = end ? (size_t)(end - lines.ptr) : lines.len;
		enum kt_code code;

		if (i >= fd_count || fds[i] < 0)
			return kt_err_set(err, KT_E_PROTO, "more listeners are named than came: %u", fd_count);
		code = listen_on(desk, (struct kt_view){lines.ptr, len}, &fds[i++], err);
		if (code)
			return code;
		len += end != NULL;
		lines.ptr += len;
		lines.len -= len;
	}
	return i == fd_count ? KT_OK
	                     : kt_err_set(err, KT_E_PROTO, "%u listeners are named and %u came", i, fd_count);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

enum kt_code kt_desk_create(struct kt_loop *loop, struct kt_desk **ret, struct kt_err *err)
{
	struct kt_desk *desk = kt_calloc(1, sizeof(*desk));
	struct kt_wire_config config = {.self = KT_ROOM_DESK,
	                                .peer = KT_ROOM_KEEPER,
	                                .handlers = keeper_handlers,
	                                .ready = on_keeper_ready,
	                                .closed = on_keeper_gone,
	                                .arg = desk};
	enum kt_code code;

	*ret = NULL;
	if (!desk)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the desk");
	desk->loop = loop;
	desk->request_ms = KT_DESK_REQUEST_MS;
	code = kt_wire_create(loop, &config, &desk->keeper, err);
	if (!code)
		code = kt_desk_served_create(loop, &desk->served, err);
	if (!code)
		code = kt_desk_pages_create(desk, &desk->pages, err);
	if (!code)
		code = kt_desk_http_create(desk, &desk->http, err);
	if (!code)
		code = kt_desk_alpn_create(desk, &desk->alpn, err);
	if (code) {
		kt_desk_destroy(desk);
		return code;
	}
	*ret = desk;
	return KT_OK;
}

void kt_desk_destroy(struct kt_desk *desk)
{
	if (!desk)
		return;
	kt_desk_pages_finish(desk->pages);
	kt_desk_ask_finish(desk);
	kt_desk_alpn_destroy(desk->alpn);
	kt_desk_http_destroy(desk->http);
	kt_desk_pages_destroy(desk->pages);
	kt_desk_served_destroy(desk->served);
	kt_wire_destroy(desk->keeper);
	kt_free(desk);
}

/* --- the room ---------------------------------------------------------------------------------------------------- */

static void on_starved(void *arg)
{
	kt_room_end(arg, KT_ROOM_STARVED);
}

static enum kt_code room_start(struct kt_room_ctx *ctx, const struct kt_msg_setup *setup, int *fds, unsigned fd_count,
                               struct kt_sandbox *box, struct kt_err *err)
{
	struct kt_desk *desk;
	enum kt_code code = kt_desk_create(ctx->loop, &desk, err);

	if (code)
		return code;
	ctx->state = desk;
	desk->starved = on_starved;
	desk->starved_arg = ctx;
	code = kt_desk_listen(desk, setup->listeners, fds, fd_count, err);
	if (code)
		return code;
	/* No path at all, no socket of its own; connections come from the listeners. */
	box->calls = KT_SANDBOX_ACCEPT;
	box->no_network = true;
	return KT_OK;
}

static enum kt_code room_opened(struct kt_room_ctx *ctx, struct kt_err *err)
{
	(void)ctx;
	(void)err;
	kt_mem_trim(); /* libmicrohttpd brings GnuTLS along, which is set up and then never used */
	return KT_OK;
}

static enum kt_code room_peer(struct kt_room_ctx *ctx, enum kt_room peer, int fd, struct kt_err *err)
{
	if (peer != KT_ROOM_KEEPER || !ctx->state) {
		KT_AUTOCLOSE int unwanted = fd;

		(void)unwanted;
		return kt_err_set(err, KT_E_PROTO, "the desk talks to the keeper only");
	}
	return kt_desk_attach(ctx->state, fd, err);
}

static void room_shutdown(struct kt_room_ctx *ctx)
{
	kt_loop_stop(ctx->loop);
}

static void room_finish(struct kt_room_ctx *ctx)
{
	kt_desk_destroy(ctx->state);
	ctx->state = NULL;
}

const struct kt_room_ops kt_desk_ops = {
	.self = KT_ROOM_DESK,
	.threads = 0,
	.start = room_start,
	.opened = room_opened,
	.peer = room_peer,
	.shutdown = room_shutdown,
	.finish = room_finish,
};
