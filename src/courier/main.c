/* keyturn-courier: the room that does all outbound network, and nothing else. */
#include <unistd.h>

#include "courier/courier.h"
#include "kt/mem.h"
#include "kt/room.h"

/* What name resolution and trust need to read; nothing can be written, nothing else be read. */
static const struct kt_sandbox_path paths[] = {
	{"/etc/resolv.conf", KT_SANDBOX_READ},
	{"/etc/hosts", KT_SANDBOX_READ},
	{"/etc/host.conf", KT_SANDBOX_READ},
	{"/etc/nsswitch.conf", KT_SANDBOX_READ},
	{"/etc/gai.conf", KT_SANDBOX_READ},
	{"/etc/services", KT_SANDBOX_READ},
	{"/etc/ld.so.cache", KT_SANDBOX_READ},
	{"/etc/localtime", KT_SANDBOX_READ},
	{"/etc/ssl", KT_SANDBOX_READ},
	{"/etc/pki", KT_SANDBOX_READ},
	{"/etc/ca-certificates", KT_SANDBOX_READ},
	{"/usr/lib/ssl", KT_SANDBOX_READ},
	{"/usr/share/ca-certificates", KT_SANDBOX_READ},
	{"/usr/local/share/ca-certificates", KT_SANDBOX_READ},
	{"/lib", KT_SANDBOX_READ}, /* name service modules */
	{"/lib64", KT_SANDBOX_READ},
	{"/usr/lib", KT_SANDBOX_READ},
	{"/run/systemd/resolve", KT_SANDBOX_READ}, /* where resolv.conf may really be */
	{"/run/resolvconf", KT_SANDBOX_READ},
	{"/run/NetworkManager", KT_SANDBOX_READ},
	{"/dev/urandom", KT_SANDBOX_READ},
};

static enum kt_code start(struct kt_room_ctx *ctx, const struct kt_msg_setup *setup, int *fds, unsigned fd_count,
			  struct kt_sandbox *box, struct kt_err *err)
{
	struct kt_courier *courier;

	(void)setup;
	(void)fds;
	(void)fd_count;
	box->paths = paths;
	box->path_count = sizeof(paths) / sizeof(paths[0]);
	box->calls = KT_SANDBOX_INET;
	if (kt_courier_create(ctx->loop, &courier, err) != KT_OK) {
		return err->code;
	}
	ctx->state = courier;
	return KT_OK;
}

/* A fresh end means that the keeper started anew: what the former one asked for is void. */
static enum kt_code peer(struct kt_room_ctx *ctx, enum kt_room room, int fd, struct kt_err *err)
{
	struct kt_courier *courier = ctx->state;

	if (room != KT_ROOM_KEEPER || courier == NULL) {
		kt_cleanup_close(&fd);
		return kt_err_set(err, KT_E_PROTO, "the courier speaks to the keeper only");
	}
	kt_courier_drop(courier);
	return kt_wire_attach(courier->keeper, fd, err);
}

static void shut_down(struct kt_room_ctx *ctx)
{
	kt_loop_stop(ctx->loop);
}

static void finish(struct kt_room_ctx *ctx)
{
	struct kt_courier *courier = ctx->state;

	/* A silent name server would hold up the end for as long as it pleases the resolver. */
	if (courier != NULL && kt_resolver_busy(kt_http_resolver(courier->http))) {
		_exit(0);
	}
	kt_courier_destroy(courier);
}

int main(void)
{
	static const struct kt_room_ops ops = {.self = KT_ROOM_COURIER,
					       .threads = 2,
					       .start = start,
					       .peer = peer,
					       .shutdown = shut_down,
					       .finish = finish};

	return kt_room_main(&ops);
}
