/* A room that does as it is told over the admin stream: what warden_test starts in place of keeper, courier and desk. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/room.h"
#include "kt/text.h"

static struct kt_room_ctx *the_ctx;
static enum kt_room self;
static unsigned peers[KT_ROOM_COUNT];
static struct kt_wire *others[KT_ROOM_COUNT];
static uint32_t generation;
static bool deaf;
static bool refuse;
static unsigned listeners;
static struct kt_msg_admin who;
static struct kt_watch *admin_watch;
static int admin_fd = -1;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vdprintf(admin_fd, fmt, ap);
	va_end(ap);
	(void)!write(admin_fd, "\n", 1);
}

static char master_key[128];

static void on_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)arg, (void)fds, (void)fd_count;
	if (err->code != KT_OK) {
		say("error %s: %s", kt_code_name(err->code), err->what);
	} else if (type == KT_OWNED) {
		say("owned %u %u", ((struct kt_msg_owned *)msg)->uid, ((struct kt_msg_owned *)msg)->gid);
	} else if (type == KT_HOOKED) {
		const struct kt_msg_hooked *hooked = msg;

		say("hooked %u %.*s|%.*s", hooked->outcome, (int)hooked->what.len, hooked->what.ptr, (int)hooked->output.len,
		    hooked->output.len > 0 ? hooked->output.ptr : "");
	} else if (type == KT_PROBED_TLS) {
		say("pong");
	} else {
		say("done");
	}
}

static void call(struct kt_wire *wire, enum kt_msg_type type, const void *msg)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_wire_call(wire, type, msg, NULL, 0, 20000, on_reply, NULL, &err) != KT_OK) {
		say("error %s", err.what);
	}
}

static void run_hook(char *args)
{
	char consumer[128];
	struct kt_msg_hook hook = {.consumer_ns = KT_VIEW_LIT("default"),
	                           .consumer = {consumer, 0},
	                           .resource = KT_VIEW_LIT("Certificate/default/web"),
	                           .step = KT_VIEW_LIT("notify")};

	if (sscanf(args, "%127s %u %u %u", consumer, &hook.phase, &hook.index, &hook.generation) == 4) {
		hook.consumer.len = strlen(consumer);
		call(the_ctx->warden, KT_HOOK, &hook);
	}
}

static void show_env(void)
{
	char text[4096] = "";

	for (char **at = environ; *at != NULL; at++) {
		(void)strncat(text, *at, sizeof(text) - strlen(text) - 2);
		(void)strcat(text, ",");
	}
	say("env %s", text);
}

static void show_id(void)
{
	char line[256];
	FILE *status = fopen("/proc/self/status", "r");
	char caps[64] = "";

	while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
		(void)sscanf(line, "CapEff: %63s", caps);
	}
	if (status != NULL) {
		fclose(status);
	}
	say("id %u %u %s", geteuid(), getegid(), caps);
}

static void obey(char *line)
{
	struct kt_msg_need need = {KT_ROOM_COURIER, false};
	struct kt_msg_owner owner = {KT_VIEW_LIT("root"), KT_VIEW_LIT("daemon")};
	struct kt_msg_owner stranger = {KT_VIEW_LIT("no-such-user"), KT_VIEW_LIT("")};
	struct kt_msg_probe_tls probe = {.timeout_ms = 1};
	struct kt_msg_reload reload = {false};

	if (strcmp(line, "peers") == 0) {
		say("peers %u %u", peers[KT_ROOM_COURIER], peers[KT_ROOM_DESK]);
	} else if (strcmp(line, "need courier") == 0) {
		call(the_ctx->warden, KT_NEED, &need);
	} else if (strcmp(line, "need warden") == 0) {
		need.room = KT_ROOM_WARDEN;
		call(the_ctx->warden, KT_NEED, &need);
	} else if (strcmp(line, "ping") == 0) {
		call(others[KT_ROOM_COURIER], KT_PROBE_TLS, &probe);
	} else if (strcmp(line, "owner") == 0) {
		call(the_ctx->warden, KT_OWNER, &owner);
	} else if (strcmp(line, "stranger") == 0) {
		call(the_ctx->warden, KT_OWNER, &stranger);
	} else if (strcmp(line, "key") == 0) {
		say("key %s", master_key);
	} else if (kt_starts_with(line, "reload")) {
		reload.exec = strcmp(line, "reload exec") == 0;
		call(the_ctx->warden, KT_RELOAD, &reload);
	} else if (strcmp(line, "generation") == 0) {
		say("generation %u", generation);
	} else if (strcmp(line, "who") == 0) {
		say("who %u %u %u", who.uid, who.gid, who.pid);
	} else if (strcmp(line, "env") == 0) {
		show_env();
	} else if (strcmp(line, "id") == 0) {
		show_id();
	} else if (strcmp(line, "deaf") == 0) {
		deaf = true;
		say("deaf");
	} else if (strcmp(line, "refuse") == 0 || strcmp(line, "accept") == 0) {
		refuse = line[0] == 'r';
		say("%s", line);
	} else if (kt_starts_with(line, "hook ")) {
		run_hook(line + 5);
	} else if (kt_starts_with(line, "finish ")) {
		struct kt_msg_finished finished = {(uint32_t)strtoul(line + 7, NULL, 10)};

		(void)kt_wire_notice(the_ctx->warden, KT_FINISHED, &finished, NULL, 0, NULL);
	} else if (strcmp(line, "die") == 0) {
		(void)raise(SIGKILL);
	} else if (strcmp(line, "garbage") == 0) {
		(void)!write(KT_ROOM_WARDEN_FD, "garbage", 7);
	} else {
		say("what?");
	}
}

static void on_line(int events, void *arg)
{
	char text[512];
	ssize_t n = read(admin_fd, text, sizeof(text) - 1);

	(void)events, (void)arg;
	if (n <= 0) {
		kt_watch_destroy(admin_watch);
		admin_watch = NULL;
		return;
	}
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	obey(text);
}

static void on_admin(struct kt_wire_in *in, void *arg)
{
	(void)arg;
	kt_watch_destroy(admin_watch);
	admin_watch = NULL;
	if (admin_fd >= 0) {
		close(admin_fd);
	}
	who = *(struct kt_msg_admin *)in->msg;
	admin_fd = in->fds[0];
	in->fds[0] = -1;
	(void)fcntl(admin_fd, F_SETFL, 0);
	(void)kt_watch_create(the_ctx->loop, admin_fd, KT_LOOP_READ, on_line, NULL, &admin_watch, NULL);
}

static void on_manifests(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_manifests *manifests = in->msg;
	struct kt_msg_done done = {0};
	struct kt_err err;

	(void)arg;
	if (refuse || in->fd_count != 1) {
		kt_err_clear(&err);
		(void)kt_err_set(&err, KT_E_INVALID, "the keeper does not like them");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	generation = manifests->generation;
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}

static void on_probe(struct kt_wire_in *in, void *arg)
{
	struct kt_msg_probed_tls probed = {.not_after = 1};

	(void)arg;
	kt_wire_reply(in->wire, in->id, KT_PROBED_TLS, &probed, NULL, 0);
}

static const struct kt_wire_handler probe_handlers[] = {{KT_PROBE_TLS, on_probe}, {KT_MSG_TYPE_NONE, NULL}};

static enum kt_code start(struct kt_room_ctx *ctx, const struct kt_msg_setup *setup, int *fds, unsigned fd_count,
                          struct kt_sandbox *box, struct kt_err *err)
{
	const char *dying = getenv("KEYTURN_TEST_DIE");

	(void)box;
	the_ctx = ctx;
	generation = setup->generation;
	listeners = self == KT_ROOM_DESK ? fd_count : 0;
	if (self == KT_ROOM_KEEPER && dying != NULL) {
		_exit(9);
	}
	if (self == KT_ROOM_KEEPER && getenv("KEYTURN_TEST_BUSY") != NULL) {
		return kt_err_set(err, KT_E_BUSY, "somebody else has the state");
	}
	if (self == KT_ROOM_KEEPER && fd_count == 2) {
		(void)!read(fds[1], master_key, sizeof(master_key) - 1);
		master_key[strcspn(master_key, "\n")] = '\0';
	} else if (self == KT_ROOM_KEEPER && fd_count != 1) {
		return kt_err_set(err, KT_E_PROTO, "where is the bundle?");
	}
	if (self == KT_ROOM_DESK && (fd_count == 0) != (setup->listeners.len == 0)) {
		return kt_err_set(err, KT_E_PROTO, "where are the listeners?");
	}
	return KT_OK;
}

static enum kt_code opened(struct kt_room_ctx *ctx, struct kt_err *err)
{
	struct kt_msg_ready ready = {generation};

	return self == KT_ROOM_KEEPER ? kt_wire_notice(ctx->warden, KT_READY, &ready, NULL, 0, err) : KT_OK;
}

static enum kt_code take_peer(struct kt_room_ctx *ctx, enum kt_room room, int fd, struct kt_err *err)
{
	struct kt_wire_config config = {.self = self, .peer = room, .handlers = probe_handlers};
	enum kt_code code = KT_OK;

	peers[room]++;
	if (others[room] == NULL) {
		code = kt_wire_create(ctx->loop, &config, &others[room], err);
	}
	return code == KT_OK ? kt_wire_attach(others[room], fd, err) : code;
}

static void end(struct kt_room_ctx *ctx)
{
	if (!deaf) {
		kt_loop_stop(ctx->loop);
	}
}

static void finish(struct kt_room_ctx *ctx)
{
	(void)ctx;
	kt_watch_destroy(admin_watch);
	for (int i = 0; i < KT_ROOM_COUNT; i++) {
		kt_wire_destroy(others[i]);
	}
}

static const struct kt_wire_handler keeper_handlers[] = {
        {KT_ADMIN, on_admin}, {KT_MANIFESTS, on_manifests}, {KT_MSG_TYPE_NONE, NULL}};

int main(int argc, char **argv)
{
	struct kt_room_ops ops = {.start = start, .opened = opened, .peer = take_peer, .shutdown = end, .finish = finish};

	if (argc != 1) {
		return 2;
	}
	self = strcmp(argv[0], "keyturn-keeper") == 0    ? KT_ROOM_KEEPER
	       : strcmp(argv[0], "keyturn-courier") == 0 ? KT_ROOM_COURIER
	                                                 : KT_ROOM_DESK;
	ops.self = self;
	ops.warden_handlers = self == KT_ROOM_KEEPER ? keeper_handlers : NULL;
	return kt_room_main(&ops);
}
