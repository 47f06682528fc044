/* The keeper's life: settings, store, keys and manifests at start; wires to the other rooms; the sandbox; the end. */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/refused.h"
#include "keeper/watch/watched.h"

#define GONE_GRACE KT_SECOND /* for a fresh end of a wire */
#define PATHS_MAX 512u
#define NEED_TRIES 3u

kt_ms kt_keeper_now(const struct kt_keeper *keeper)
{
	return kt_clock_wall(keeper->clock);
}

char *kt_keeper_traceparent(const char *trace_id, char out[56])
{
	char span[17];

	(void)snprintf(out, 56, "00-%.32s-%s-01", trace_id, kt_audit_span_id(span));
	return out;
}

enum kt_code kt_keeper_audit(struct kt_keeper *keeper, struct kt_audit_event *event, struct kt_err *err)
{
	enum kt_code code = kt_audit_append(keeper->store, event, err);

	if (code == KT_OK && keeper->sessions != NULL) {
		kt_admin_event(keeper, event);
	}
	return code;
}

/* --- other rooms -------------------------------------------------------------------------------------------------------- */

static const struct kt_wire_handler courier_handlers[] = {
        {KT_ACME_SIGN, kt_acme_on_sign},
        {KT_ACME_INNER, kt_acme_on_inner},
        {KT_ACME_SAVE, kt_acme_on_save},
        {KT_CHALLENGE, kt_acme_on_challenge},
        {KT_CLIENT_SECRET, kt_oauth_on_client_secret},
        {KT_ASSERTION, kt_oauth_on_assertion},
        {KT_DPOP_PROOF, kt_oauth_on_dpop_proof},
        {KT_CLIENT_KEY, kt_oauth_on_client_key},
        {KT_SAVE_REFRESH, kt_oauth_on_save_refresh},
        {KT_AWS_REQUEST, kt_aws_on_request},
        {KT_MSG_TYPE_NONE, NULL},
};
static const struct kt_wire_handler desk_handlers[] = {
        {KT_PAGE, kt_pages_serve},
        {KT_COMMAND, kt_quit_on_command},
        {KT_TOKEN_ASK, kt_token_on_ask},
        {KT_AWS_ASK, kt_aws_on_ask},
        {KT_MSG_TYPE_NONE, NULL},
};

static void on_needed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	if (why->code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, why, "the %s can't be started", (const char *)arg);
	}
}

/* What is asked of the room waits in its wire: memory that was missing for a moment must not leave it there. */
static void need(struct kt_keeper *keeper, enum kt_room room, const char *name, bool broken)
{
	struct kt_msg_need msg = {(uint32_t)room, broken};
	enum kt_code code = KT_E_NOMEM;
	struct kt_err err;

	for (unsigned i = 0; i < NEED_TRIES && code == KT_E_NOMEM; i++) {
		kt_err_clear(&err);
		code = kt_wire_call(keeper->ctx->warden, KT_NEED, &msg, NULL, 0, 30 * KT_SECOND, on_needed, (void *)(uintptr_t)name,
		                    &err);
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "the %s can't be asked for", name);
	}
}

struct kt_wire *kt_keeper_courier(struct kt_keeper *keeper)
{
	if (!keeper->courier_asked && !kt_wire_attached(keeper->courier)) {
		keeper->courier_asked = true;
		need(keeper, KT_ROOM_COURIER, "courier", false);
	}
	return keeper->courier;
}

struct kt_wire *kt_keeper_desk(struct kt_keeper *keeper)
{
	if (!keeper->desk_asked && !kt_wire_attached(keeper->desk)) {
		keeper->desk_asked = true;
		need(keeper, KT_ROOM_DESK, "desk", false);
	}
	return keeper->desk;
}

/* A room that ended gets a successor in less; one that lives on was cut off for what it sent, or cut itself off. */
static void on_still_gone(void *arg)
{
	struct kt_keeper *keeper = arg;

	if (keeper->courier_asked && !kt_wire_attached(keeper->courier)) {
		need(keeper, KT_ROOM_COURIER, "courier", true);
	}
	if (keeper->desk_asked && !kt_wire_attached(keeper->desk)) {
		need(keeper, KT_ROOM_DESK, "desk", true);
	}
}

/* The warden brings a dead room back and passes a fresh end: requests wait until then. */
static void on_courier_gone(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	struct kt_keeper *keeper = arg;

	(void)wire;
	if (keeper->mode != KT_MODE_DAEMON && !kt_admin_waited_for(keeper)) {
		return; /* the command has its answer, and every room ends */
	}
	kt_log_err(KT_LOG_WARN, why, "the courier is gone");
	kt_timer_start(keeper->gone, GONE_GRACE);
}

static void on_desk_gone(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	struct kt_keeper *keeper = arg;

	(void)wire;
	kt_token_asks_forget(keeper);
	if (keeper->mode != KT_MODE_DAEMON && !kt_admin_waited_for(keeper)) {
		return;
	}
	kt_log_err(KT_LOG_WARN, why, "the desk is gone");
	kt_timer_start(keeper->gone, GONE_GRACE);
}

static enum kt_code make_wires(struct kt_keeper *keeper, struct kt_err *err)
{
	struct kt_wire_config config = {.self = KT_ROOM_KEEPER,
	                                .peer = KT_ROOM_COURIER,
	                                .handlers = courier_handlers,
	                                .closed = on_courier_gone,
	                                .arg = keeper};
	enum kt_code code = kt_timer_create(keeper->loop, on_still_gone, keeper, &keeper->gone, err);

	if (code == KT_OK) {
		code = kt_wire_create(keeper->loop, &config, &keeper->courier, err);
	}
	config.peer = KT_ROOM_DESK;
	config.handlers = desk_handlers;
	config.closed = on_desk_gone;
	return code == KT_OK ? kt_wire_create(keeper->loop, &config, &keeper->desk, err) : code;
}

static enum kt_code peer(struct kt_room_ctx *ctx, enum kt_room room, int fd, struct kt_err *err)
{
	struct kt_keeper *keeper = ctx->state;
	enum kt_code code;

	if (room != KT_ROOM_COURIER && room != KT_ROOM_DESK) {
		close(fd);
		return kt_err_set(err, KT_E_PROTO, "the keeper has no wire to room %d", (int)room);
	}
	if (room == KT_ROOM_DESK) {
		kt_token_asks_forget(keeper); /* numbers of the desk before */
	}
	code = kt_wire_attach(room == KT_ROOM_COURIER ? keeper->courier : keeper->desk, fd, err);
	if (code != KT_OK) { /* no memory for it: another one is asked for in a moment */
		*(room == KT_ROOM_COURIER ? &keeper->courier_asked : &keeper->desk_asked) = true;
		kt_timer_start(keeper->gone, GONE_GRACE);
	}
	if (code == KT_OK && room == KT_ROOM_DESK && keeper->store != NULL) {
		keeper->desk_asked = true;
		kt_jwks_publish_all(keeper);
		kt_answers_serve_again(keeper);
	}
	return code;
}

/* --- start ---------------------------------------------------------------------------------------------------------------- */

static enum kt_code take_settings(struct kt_keeper *keeper, const struct kt_msg_setup *setup, struct kt_err *err)
{
	enum kt_code code;

	keeper->mode = (enum kt_run_mode)setup->mode;
	keeper->generation = setup->generation;
	keeper->state_dir = kt_strndup(setup->state_dir.ptr, setup->state_dir.len);
	keeper->secrets_dir = kt_strndup(setup->secrets_dir.ptr, setup->secrets_dir.len);
	keeper->socket_path = kt_strndup(setup->socket_path.ptr, setup->socket_path.len);
	if (keeper->state_dir == NULL || keeper->secrets_dir == NULL || keeper->socket_path == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for settings");
	}
	code = setup->settings.len > 0 ? kt_resource_from_json(KT_RES_AGENT, setup->settings, &keeper->agent, err)
	                               : kt_resource_default(KT_RES_AGENT, "", "default", &keeper->agent, err);
	if (code == KT_OK && keeper->agent->agent.listeners.control.token_file != NULL) {
		keeper->quit_token = kt_strdup(keeper->agent->agent.listeners.control.token_file);
		code = keeper->quit_token == NULL ? kt_err_set(err, KT_E_NOMEM, "no memory for settings") : KT_OK;
	}
	return code;
}

static enum kt_code open_store(struct kt_keeper *keeper, struct kt_err *err)
{
	struct kt_store_open options = {.dir = keeper->state_dir,
	                                .in_pod = keeper->agent->agent.allow_shared,
	                                .read_only = keeper->mode == KT_MODE_READONLY,
	                                .pid = getppid(),
	                                .socket_path = keeper->mode == KT_MODE_DAEMON ? keeper->socket_path : NULL,
	                                .clock = keeper->clock};
	enum kt_code code = kt_store_open(&options, &keeper->store, err);
	unsigned notes;

	if (code == KT_E_NOTFOUND && options.read_only) {
		kt_err_clear(err);
		return KT_OK; /* nothing was ever done: commands say so */
	}
	if (code != KT_OK) {
		return code;
	}
	notes = kt_store_notes(keeper->store);
	keeper->died = (notes & KT_STORE_WAS_UNCLEAN) != 0 && keeper->mode == KT_MODE_DAEMON;
	if ((notes & KT_STORE_WAS_UNCLEAN) != 0) {
		kt_log(KT_LOG_INFO, "the state was not closed in order the last time; it is sound");
	}
	if ((notes & KT_STORE_NO_ANCHOR) != 0) {
		kt_log(KT_LOG_WARN, "%s/anchor is missing: nobody can say whether this is the newest copy of the state",
		       keeper->state_dir);
	}
	return KT_OK;
}

/* What the master key command prints; it has 60 s, which the warden minds. */
static enum kt_code read_master_key(int fd, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&text, 4096);
	code = kt_io_read_fd(fd, "the master key command's output", &text, err);
	return code == KT_OK ? kt_keys_parse(kt_buf_view(&text), ret, err) : code;
}

static enum kt_code open_keys(struct kt_keeper *keeper, int command_fd, struct kt_err *err)
{
	struct kt_secret *master KT_AUTOSECRET = NULL;
	const struct kt_master_key *settings = &keeper->agent->agent.master_key;
	bool created = false;
	enum kt_code code = KT_E_NOTFOUND;

	if (command_fd >= 0) {
		code = read_master_key(command_fd, &master, err);
	} else if (settings->file == NULL) {
		code = kt_keys_from_systemd(&master, err);
	}
	keeper->master_given = code == KT_OK;
	if (code == KT_E_NOTFOUND && command_fd < 0) {
		kt_err_clear(err);
		code = kt_keys_from_file(keeper->store, settings->file, true, &master, &created, err);
	}
	if (code == KT_OK && created) {
		kt_log(KT_LOG_WARN,
		       "a master key was made in %s%s: keep it apart from backups of the state, or use a systemd credential",
		       settings->file != NULL ? settings->file : keeper->state_dir,
		       settings->file != NULL ? "" : "/master-key");
	}
	return code == KT_OK ? kt_keys_open(keeper->store, master, &keeper->keys, err) : code;
}

static enum kt_code open_secrets(struct kt_keeper *keeper, struct kt_err *err)
{
	const struct kt_agent_spec *agent = &keeper->agent->agent;
	uint64_t gid = 0;

	/* From SETUP, which has the command line's part; the set that is loaded later has not. */
	keeper->volume_policy = KT_VOLUME_POLICY_DEFAULT;
	keeper->volume_policy.allow_persistent = agent->allow_persistent;
	keeper->volume_policy.allow_shared = agent->allow_shared;
	if (agent->secrets_group != NULL) { /* a number: the warden has looked it up */
		if (kt_parse_u64(kt_view_str(agent->secrets_group), UINT32_MAX - 1, &gid, err) != KT_OK) {
			return KT_E_PROTO;
		}
		keeper->volume_policy.gid = (gid_t)gid;
	}
	keeper->secrets_mode = agent->secrets_mode != KT_FILE_MODE_UNSET ? (mode_t)agent->secrets_mode
	                       : agent->secrets_group != NULL            ? 0640
	                                                                 : 0600;
	return kt_volume_root_create(keeper->secrets_dir, &keeper->volume_policy, &keeper->root, err);
}

/* --- what stays open behind Landlock --------------------------------------------------------------------------------------- */

struct paths {
	struct kt_sandbox_path *at;
	unsigned count;
	bool failed;
};

static void add_path(struct paths *paths, const char *path, int access)
{
	char *copy = kt_strdup(path);

	if (copy == NULL || paths->count == PATHS_MAX) {
		kt_free(copy);
		paths->failed = true;
		return;
	}
	paths->at[paths->count++] = (struct kt_sandbox_path){copy, access};
}

/* Landlock needs what exists: a volume's directory is made now, where that is possible. */
static void add_dir(struct paths *paths, const char *path)
{
	int fd = kt_io_open_dir_create(path, 0755, NULL);

	if (fd >= 0) {
		close(fd);
		add_path(paths, path, KT_SANDBOX_READ | KT_SANDBOX_WRITE);
	}
}

/* Of a file that may be replaced: its folder. */
static void add_folder(struct paths *paths, const char *file)
{
	char *copy KT_AUTOFREE = kt_strdup(file);
	char *slash = copy != NULL ? strrchr(copy, '/') : NULL;

	if (slash != NULL && slash != copy) {
		*slash = '\0';
		add_path(paths, copy, KT_SANDBOX_READ);
	}
}

static bool resource_paths(const struct kt_store_resource *row, void *arg)
{
	struct paths *paths = arg;
	struct kt_resource *spec = NULL;
	uint32_t i;

	if (kt_load_spec(row, &spec, NULL) != KT_OK) {
		return true;
	}
	switch (spec->kind) {
	case KT_RES_CONSUMER:
		for (i = 0; i < spec->consumer.volumes.count; i++) {
			add_dir(paths, spec->consumer.volumes.items[i].path);
		}
		for (i = 0; i < spec->consumer.prove.count; i++) {
			const struct kt_observed *observed = spec->consumer.prove.items[i].observed;

			if (observed != NULL && observed->access_log != NULL) { /* logs are rotated */
				add_folder(paths, observed->access_log->path);
			}
		}
		break;
	case KT_RES_WATCH:
		if (spec->watch.source.file != NULL) { /* what renews it may put another in its place */
			add_folder(paths, spec->watch.source.file->path);
		}
		break;
	case KT_RES_ISSUER:
	case KT_RES_CLUSTER_ISSUER:
		if (spec->issuer.acme != NULL && spec->issuer.acme->webroot != NULL) {
			if (access(spec->issuer.acme->webroot, F_OK) == 0) {
				add_path(paths, spec->issuer.acme->webroot, KT_SANDBOX_READ | KT_SANDBOX_WRITE);
			} else { /* its own orders fail then, with their own words; nobody else's */
				kt_log(KT_LOG_WARN, "%s %s: the webroot %s does not exist: make it, then reload", row->kind, row->name,
				       spec->issuer.acme->webroot);
			}
		}
		break;
	case KT_RES_TOKEN_ISSUER:
		if (spec->token_issuer.local != NULL && spec->token_issuer.local->publish_jwks.volume != NULL) {
			add_dir(paths, spec->token_issuer.local->publish_jwks.volume->path);
		}
		break;
	case KT_RES_CLIENT_CREDENTIAL:
		if (spec->client.issuer.hosted != NULL && spec->client.issuer.hosted->publish_jwks.volume != NULL) {
			add_dir(paths, spec->client.issuer.hosted->publish_jwks.volume->path);
		}
		break;
	default:
		break;
	}
	kt_resource_destroy(spec);
	return !paths->failed;
}

static enum kt_code describe_box(struct kt_keeper *keeper, struct kt_sandbox *box, struct kt_err *err)
{
	static const char *const kinds[] = {"Consumer", "Issuer", "ClusterIssuer", "TokenIssuer", "ClientCredential", "Watch"};
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	/* Who only looks writes nowhere, and finds nothing there yet on a fresh machine. */
	bool read_only = keeper->mode == KT_MODE_READONLY;
	struct paths paths = {0};
	size_t i;

	paths.at = kt_calloc(PATHS_MAX, sizeof(*paths.at));
	if (paths.at == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the sandbox");
	}
	add_path(&paths, keeper->state_dir, keeper->store != NULL ? KT_SANDBOX_READ | KT_SANDBOX_WRITE : KT_SANDBOX_READ);
	add_path(&paths, keeper->secrets_dir, read_only ? KT_SANDBOX_READ : KT_SANDBOX_READ | KT_SANDBOX_WRITE);
	add_path(&paths, "/usr/share/zoneinfo", KT_SANDBOX_READ);
	if (keeper->quit_token != NULL) {
		add_folder(&paths, keeper->quit_token);
	}
	if (credentials != NULL) {
		add_path(&paths, credentials, KT_SANDBOX_READ);
	}
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && keeper->store != NULL && !read_only; i++) {
		enum kt_code code =
		        kt_store_resource_each(keeper->store, kinds[i], 0, 100000, resource_paths, &paths, err);

		if (code != KT_OK) {
			return code;
		}
	}
	if (paths.failed) {
		return kt_err_set(err, KT_E_LIMIT, "more than %u paths are named by Consumers, Watches and issuers", PATHS_MAX);
	}
	box->paths = paths.at;
	box->path_count = paths.count;
	box->calls = KT_SANDBOX_FILES | KT_SANDBOX_PASSED;
	box->no_network = true;
	/* Volumes belong to other users. What of this we have: all as root, what the warden left us as a user of our own. */
	box->keep_caps = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER;
	keeper->box_paths = paths.at;
	keeper->box_path_count = paths.count;
	return KT_OK;
}

static enum kt_code start(struct kt_room_ctx *ctx, const struct kt_msg_setup *setup, int *fds, unsigned fd_count,
                          struct kt_sandbox *box, struct kt_err *err)
{
	struct kt_keeper *keeper = kt_calloc(1, sizeof(*keeper));
	enum kt_code code;

	if (keeper == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the keeper");
	}
	ctx->state = keeper;
	keeper->ctx = ctx;
	keeper->loop = ctx->loop;
	keeper->clock = kt_loop_clock(ctx->loop);
	keeper->started_at = kt_keeper_now(keeper);
	code = kt_pki_init(err);
	if (code == KT_OK) {
		code = take_settings(keeper, setup, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = kt_pki_warm(err);
	}
	if (code == KT_OK) {
		code = make_wires(keeper, err);
	}
	if (code == KT_OK) {
		code = open_store(keeper, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = open_keys(keeper, fd_count > 1 ? fds[1] : -1, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = open_secrets(keeper, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY && fd_count > 0) {
		code = kt_load_bundle(keeper, fds[0], err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		kt_answers_clean(keeper);
	}
	if (code == KT_OK && keeper->needs_pkcs12) {
		(void)kt_pki_p12_prepare(KT_P12_LEGACY_RC2, NULL); /* its algorithms may be modules on disk, out of reach later */
	}
	return code == KT_OK ? describe_box(keeper, box, err) : code;
}

static enum kt_code opened(struct kt_room_ctx *ctx, struct kt_err *err)
{
	struct kt_keeper *keeper = ctx->state;
	struct kt_msg_ready ready = {keeper->generation};
	enum kt_code code = KT_OK;

	kt_log(KT_LOG_DEBUG, "walls: no_new_privs %d, seccomp %d, Landlock ABI %d", ctx->walls.no_new_privs,
	       ctx->walls.seccomp, ctx->walls.landlock_abi);
	if (keeper->mode != KT_MODE_READONLY) {
		code = kt_rotate_start(keeper, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = kt_sweep_start(keeper, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = kt_renewal_info_start(keeper, err);
	}
	if (code == KT_OK && keeper->mode != KT_MODE_READONLY) {
		code = kt_head_start(keeper, err);
		kt_head_flush(keeper);
	}
	if (code == KT_OK && keeper->mode == KT_MODE_DAEMON) {
		kt_rotate_go(keeper);
	}
	return code == KT_OK ? kt_wire_notice(ctx->warden, KT_READY, &ready, NULL, 0, err) : code;
}

/* --- the warden's requests ---------------------------------------------------------------------------------------------------- */

static void on_admin(struct kt_wire_in *in, void *arg)
{
	struct kt_room_ctx *ctx = arg;
	struct kt_keeper *keeper = ctx->state;
	const struct kt_msg_admin *msg = in->msg;
	struct kt_err err;
	int fd;

	kt_err_clear(&err);
	if (in->fd_count != 1 || keeper == NULL) {
		return;
	}
	fd = in->fds[0];
	in->fds[0] = -1;
	if (kt_admin_accept(keeper, fd, msg->uid, msg->gid, msg->pid, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a command is turned away");
		if (keeper->mode != KT_MODE_DAEMON) { /* it was the only one */
			kt_room_end(ctx, 1);
		}
	}
}

static void on_manifests(struct kt_wire_in *in, void *arg)
{
	struct kt_room_ctx *ctx = arg;
	struct kt_keeper *keeper = ctx->state;
	const struct kt_msg_manifests *msg = in->msg;
	struct kt_msg_done done = {0};
	struct kt_err err;

	kt_err_clear(&err);
	if (in->fd_count != 1 || keeper == NULL || keeper->mode == KT_MODE_READONLY) {
		(void)kt_err_set(&err, KT_E_PROTO, "no manifests can be taken now");
	} else if (kt_load_bundle(keeper, in->fds[0], &err) == KT_OK) {
		keeper->generation = msg->generation;
		kt_rotate_reconsider(keeper);
		kt_issuers_drop(keeper, true);
		kt_rotate_kick(keeper);
		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
		return;
	}
	kt_wire_reply_err(in->wire, in->id, &err);
}

static void end(struct kt_room_ctx *ctx)
{
	struct kt_keeper *keeper = ctx->state;

	if (keeper != NULL) {
		kt_head_flush(keeper);
		keeper->ending = true;
	}
	kt_loop_stop(ctx->loop);
}

static void finish(struct kt_room_ctx *ctx)
{
	struct kt_keeper *keeper = ctx->state;
	unsigned i;

	if (keeper == NULL) {
		return;
	}
	kt_quit_finish(keeper);
	keeper->ending = true;
	kt_tasks_finish(keeper);
	kt_watched_finish(keeper);
	kt_rotate_finish(keeper);
	kt_sweep_finish(keeper);
	kt_head_finish(keeper);
	kt_admin_finish(keeper);
	kt_acme_jobs_finish(keeper);
	kt_renewal_info_finish(keeper);
	kt_answers_finish(keeper);
	kt_issuers_drop(keeper, true);
	kt_token_asks_finish(keeper);
	kt_owners_finish(keeper);
	kt_timer_destroy(keeper->gone);
	kt_wire_destroy(keeper->courier);
	kt_wire_destroy(keeper->desk);
	kt_keys_destroy(keeper->keys);
	kt_volume_root_destroy(keeper->root);
	kt_store_close(keeper->store);
	kt_resource_destroy(keeper->agent);
	for (i = 0; i < keeper->box_path_count; i++) {
		kt_free((void *)(uintptr_t)keeper->box_paths[i].path);
	}
	kt_free(keeper->box_paths);
	kt_free(keeper->state_dir);
	kt_free(keeper->secrets_dir);
	kt_free(keeper->quit_token);
	kt_free(keeper->socket_path);
	kt_free(keeper);
}

static const struct kt_wire_handler warden_handlers[] = {
        {KT_ADMIN, on_admin},
        {KT_MANIFESTS, on_manifests},
        {KT_MSG_TYPE_NONE, NULL},
};

const struct kt_room_ops kt_keeper_ops = {.self = KT_ROOM_KEEPER,
                                          .threads = 2,
                                          .warden_handlers = warden_handlers,
                                          .start = start,
                                          .opened = opened,
                                          .peer = peer,
                                          .shutdown = end,
                                          .finish = finish};
