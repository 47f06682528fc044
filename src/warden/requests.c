/* What the keeper may ask of the warden; every request is checked as if a stranger had taken the keeper over. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "warden/internal.h"

/* A master key command that has not ended by then is killed. */
#define KEY_TIME_LIMIT (60 * KT_SECOND)

static struct kt_warden *warden_of(void *arg)
{
	return ((struct kt_warden_room *)arg)->warden;
}

static void refuse(struct kt_wire_in *in, enum kt_code code, const char *what)
{
	struct kt_err err;

	kt_err_clear(&err);
	(void)kt_err_set(&err, code, "%s", what);
	kt_wire_reply_err(in->wire, in->id, &err);
}

/* --- NEED ------------------------------------------------------------------------------------------------------- */

static void on_need(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_need *need = in->msg;
	struct kt_warden *warden = warden_of(arg);
	struct kt_msg_done done = {0};
	struct kt_warden_room *room;

	if (need->room != KT_ROOM_COURIER && need->room != KT_ROOM_DESK) {
		refuse(in, KT_E_INVALID, "only courier and desk can be asked for");
		return;
	}
	room = &warden->rooms[need->room];
	if (room->setup_done && !need->broken) {
		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
		return;
	}
	if (room->need_count == KT_NEEDS_MAX) {
		refuse(in, KT_E_LATER, "too many wait for this room already");
		return;
	}
	room->needs[room->need_count++] = in->id;
	if (need->broken) {
		kt_room_cut_off(room);
	} else {
		kt_room_want(room);
	}
}

/* --- OWNER ------------------------------------------------------------------------------------------------------ */

static void on_owner(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_owner *owner = in->msg;
	KT_AUTOFREE char *user = kt_strndup(owner->user.ptr, owner->user.len);
	KT_AUTOFREE char *group = kt_strndup(owner->group.ptr, owner->group.len);
	struct kt_msg_owned owned = {(uint32_t)-1, (uint32_t)-1};
	enum kt_code code = KT_OK;
	struct kt_err err;

	(void)arg;
	kt_err_clear(&err);
	if (user == NULL || group == NULL) {
		code = kt_err_set(&err, KT_E_NOMEM, "no memory to look an owner up");
	}
	if (code == KT_OK && user[0] != '\0') {
		code = kt_uid_resolve(user, &owned.uid, &err);
	}
	if (code == KT_OK && group[0] != '\0') {
		code = kt_gid_resolve(group, &owned.gid, &err);
	}
	if (code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
	} else {
		kt_wire_reply(in->wire, in->id, KT_OWNED, &owned, NULL, 0);
	}
}

/* --- HOOK ------------------------------------------------------------------------------------------------------- */

static void on_hook_done(const struct kt_hand_result *result, void *arg)
{
	struct kt_hook_call *call = arg;
	struct kt_warden *warden = call->warden;
	struct kt_hook_call **at = &warden->hook_calls;
	struct kt_msg_hooked msg = {.outcome = result->outcome,
	                            .status = (uint32_t)result->status,
	                            .in_namespace = result->in_namespace,
	                            .skipped = result->skipped,
	                            .what = kt_view_str(result->what),
	                            .output = result->output};
	struct kt_wire *keeper = warden->rooms[KT_ROOM_KEEPER].wire;

	while (*at != call) {
		at = &(*at)->next;
	}
	*at = call->next;
	if (call->id != 0 && keeper != NULL) {
		kt_wire_reply(keeper, call->id, KT_HOOKED, &msg, NULL, 0);
	}
	kt_free(call);
}

static const struct kt_generation *find_generation(const struct kt_warden *warden, uint32_t number)
{
	const struct kt_generation *known[] = {warden->current, warden->previous, warden->pending};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i] != NULL && known[i]->number == number) {
			return known[i];
		}
	}
	return NULL;
}

/* "web", "default/web" or "Certificate/default/web" into namespace and name. */
static void split_resource(struct kt_view resource, struct kt_hand_env *env)
{
	const char *slash = resource.len > 0 ? memrchr(resource.ptr, '/', resource.len) : NULL;
	const char *before;
	size_t len;

	env->name = resource;
	if (slash == NULL) {
		return;
	}
	env->name.ptr = slash + 1;
	env->name.len = resource.len - (size_t)(slash + 1 - resource.ptr);
	len = (size_t)(slash - resource.ptr);
	before = memrchr(resource.ptr, '/', len);
	env->ns.ptr = before != NULL ? before + 1 : resource.ptr;
	env->ns.len = len - (size_t)(env->ns.ptr - resource.ptr);
}

/*
 * Commands of Watches have a queue of their own, too, so that no hook waits for one. Each locks its place in a file of the
 * state directory while it runs: so it is known, also to the warden after this one, that it does.
 */
static enum kt_code renewals_of(struct kt_warden *warden, const struct kt_generation *generation, struct kt_hands **ret,
                                struct kt_err *err)
{
	struct kt_hands_config config = {.parallel = 2, .lock_fd = -1};
	char path[KT_PATH_MAX];
	enum kt_code code = KT_OK;

	if (warden->renewals == NULL) {
		(void)snprintf(path, sizeof(path), "%s/watch.lock", generation->state_dir);
		config.lock_fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
		code = config.lock_fd < 0 ? kt_err_sys(err, "%s", path)
		                          : kt_hands_create(warden->loop, &config, &warden->renewals, err);
		if (code != KT_OK) {
			kt_cleanup_close(&config.lock_fd);
			return code;
		}
		warden->renewal_lock = config.lock_fd;
	}
	*ret = warden->renewals;
	return code;
}

static void on_hook(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_hook *hook = in->msg;
	struct kt_warden *warden = warden_of(arg);
	const struct kt_generation *generation = find_generation(warden, hook->generation);
	const struct kt_hand *hand = generation == NULL ? NULL
	                                                : kt_generation_hand(generation, hook->consumer_ns, hook->consumer,
	                                                                     hook->phase, hook->index);
	struct kt_hand_env env = {.secret_dir = hook->secret_dir,
	                          .step = hook->step,
	                          .not_after = hook->not_after,
	                          .fingerprint = hook->fingerprint,
	                          .serial = hook->serial,
	                          .traceparent = hook->traceparent};
	struct kt_hands *hands = warden->hands;
	struct kt_hook_call *call;
	struct kt_err err;

	kt_err_clear(&err);
	if (hand == NULL) {
		refuse(in, KT_E_NOTFOUND, generation == NULL ? "these manifests are not known any more"
		                                             : "no such hook in these manifests");
		return;
	}
	if (hook->binds.len > 0 && hook->phase != KT_HOOK_VALIDATE) {
		refuse(in, KT_E_POLICY, "only validate looks at candidates");
		return;
	}
	if (hook->phase == KT_HOOK_RENEW && renewals_of(warden, generation, &hands, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	call = kt_calloc(1, sizeof(*call));
	if (call == NULL) {
		refuse(in, KT_E_NOMEM, "no memory for a hook");
		return;
	}
	split_resource(hook->resource, &env);
	call->warden = warden;
	call->id = in->id;
	call->next = warden->hook_calls;
	warden->hook_calls = call;
	kt_hands_run(hands, hand, &env, hook->binds, (const char *const *)generation->roots, hook->delivered_at,
	             on_hook_done, call);
}

/* --- SOLVE ------------------------------------------------------------------------------------------------------ */

/* Programs that write TXT records have a queue of their own: they may take minutes, and are written to run one by one. */
static enum kt_code solvers_of(struct kt_warden *warden, struct kt_hands **ret, struct kt_err *err)
{
	struct kt_hands_config config = {.parallel = 1};
	enum kt_code code = warden->solvers == NULL ? kt_hands_create(warden->loop, &config, &warden->solvers, err) : KT_OK;

	*ret = warden->solvers;
	return code;
}

static enum kt_code solve(struct kt_warden *warden, struct kt_wire_in *in, const struct kt_solve_program *program,
                          bool *ret_none, struct kt_err *err)
{
	const struct kt_msg_solve *msg = in->msg;
	struct kt_solve_ask ask = {.add = msg->action == KT_DNS01_ADD,
	                           .domain = msg->domain,
	                           .record = msg->record,
	                           .value = msg->value,
	                           .token = msg->token,
	                           .key_authorization = msg->key_authorization,
	                           .domains = msg->domains,
	                           .auth_output = msg->auth_output};
	struct kt_hand_env env = {.step = KT_VIEW_LIT("solve"), .traceparent = msg->traceparent};
	struct kt_hook_call *call = NULL;
	struct kt_solve_call run;
	struct kt_hands *hands;
	enum kt_code code = kt_solve_call_init(program, &ask, &run, err);

	*ret_none = code == KT_OK && run.hand.kind == KT_HAND_NONE;
	if (code == KT_OK && !*ret_none) {
		code = solvers_of(warden, &hands, err);
	}
	if (code == KT_OK && !*ret_none) {
		call = kt_calloc(1, sizeof(*call));
		code = call == NULL ? kt_err_set(err, KT_E_NOMEM, "no memory for a solver") : KT_OK;
	}
	if (code == KT_OK && !*ret_none) {
		split_resource(msg->resource, &env);
		env.more = run.env;
		call->warden = warden;
		call->id = in->id;
		call->next = warden->hook_calls;
		warden->hook_calls = call;
		kt_hands_run(hands, &run.hand, &env, (struct kt_view){NULL, 0}, NULL, 0, on_hook_done, call);
	}
	kt_solve_call_finish(&run);
	return code;
}

static void on_solve(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_solve *msg = in->msg;
	struct kt_warden *warden = warden_of(arg);
	const struct kt_generation *generation = find_generation(warden, msg->generation);
	const struct kt_solve_program *program =
	        generation == NULL ? NULL
	                           : kt_generation_program(generation, msg->issuer_kind, msg->issuer_ns, msg->issuer, msg->solver);
	struct kt_msg_hooked none = {.what = KT_VIEW_LIT("there is no clean-up hook")};
	struct kt_err err;
	bool nothing;

	kt_err_clear(&err);
	if (program == NULL) {
		refuse(in, KT_E_NOTFOUND, generation == NULL ? "these manifests are not known any more"
		                                             : "no such solver in these manifests");
	} else if (msg->action != KT_DNS01_ADD && msg->action != KT_DNS01_REMOVE) {
		refuse(in, KT_E_INVALID, "a solver adds or removes");
	} else if (solve(warden, in, program, &nothing, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
	} else if (nothing) {
		kt_wire_reply(in->wire, in->id, KT_HOOKED, &none, NULL, 0);
	}
}

void kt_requests_orphan(struct kt_warden *warden)
{
	for (struct kt_hook_call *call = warden->hook_calls; call != NULL; call = call->next) {
		call->id = 0;
	}
}

/* --- the master key ------------------------------------------------------------------------------------------------- */

static void forget_key_child(struct kt_warden *warden)
{
	kt_child_destroy(warden->key_child);
	warden->key_child = NULL;
	kt_timer_stop(warden->key_timer);
}

static void on_key_ended(int status, void *arg)
{
	struct kt_warden *warden = arg;

	if (WIFSIGNALED(status)) {
		kt_log(KT_LOG_ERROR, "the master key command was ended by signal %d", WTERMSIG(status));
	} else if (WEXITSTATUS(status) != 0) {
		kt_log(KT_LOG_ERROR, "the master key command ended with exit status %d", WEXITSTATUS(status));
	}
	forget_key_child(warden);
}

enum kt_code kt_requests_start_key(struct kt_warden *warden, int *ret_fd, struct kt_err *err)
{
	const struct kt_strings *command = &warden->current->agent->agent.master_key.command;
	char path[] = "PATH=" KT_HAND_PATH;
	char lang[] = "LANG=C.UTF-8";
	char *env[] = {path, lang, NULL};
	KT_AUTOFREE char **argv = kt_calloc(command->count + 1, sizeof(*argv));
	struct kt_spawn spawn = {.exec_fd = -1, .envp = env, .cwd_fd = -1, .new_session = true, .parent_death = true};
	int fds[3] = {-1, -1, STDERR_FILENO};
	enum kt_code code;
	int ends[2];

	*ret_fd = -1;
	if (command->count == 0) {
		return KT_OK;
	}
	if (argv == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the master key command");
	}
	if (warden->key_child != NULL) { /* a keeper that died asked for it: its answer is lost */
		kt_child_kill(warden->key_child, SIGKILL, true);
		forget_key_child(warden);
	}
	for (uint32_t i = 0; i < command->count; i++) {
		argv[i] = (char *)command->items[i];
	}
	if (pipe2(ends, O_CLOEXEC) < 0) {
		return kt_err_sys(err, "no pipe for the master key command");
	}
	fds[1] = ends[1];
	spawn.path = argv[0];
	spawn.argv = argv;
	spawn.fds = fds;
	spawn.fd_count = 3;
	code = kt_child_spawn(warden->loop, &spawn, on_key_ended, warden, &warden->key_child, err);
	close(ends[1]);
	if (code != KT_OK) {
		close(ends[0]);
		return code;
	}
	kt_timer_start(warden->key_timer, KEY_TIME_LIMIT);
	*ret_fd = ends[0];
	return KT_OK;
}

void kt_requests_finish(struct kt_warden *warden)
{
	if (warden->key_child != NULL) {
		kt_child_kill(warden->key_child, SIGKILL, true);
		forget_key_child(warden);
	}
	kt_hands_destroy(warden->solvers);
	warden->solvers = NULL;
	if (warden->renewals != NULL) {
		kt_hands_destroy(warden->renewals);
		warden->renewals = NULL;
		close(warden->renewal_lock);
	}
	while (warden->hook_calls != NULL) {
		struct kt_hook_call *call = warden->hook_calls;

		warden->hook_calls = call->next;
		kt_free(call);
	}
}

void kt_requests_key_late(struct kt_warden *warden)
{
	if (warden->key_child != NULL) {
		kt_log(KT_LOG_ERROR, "the master key command did not end within 60 s and is killed");
		kt_child_kill(warden->key_child, SIGKILL, true);
	}
}

/* --- FINISHED, READY, RELOAD ------------------------------------------------------------------------------------ */

static void on_finished(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_finished *finished = in->msg;
	struct kt_warden *warden = warden_of(arg);

	if (in->id != 0) {
		struct kt_msg_done done = {0};

		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
	}
	kt_warden_stop(warden, (int)(finished->status & 0xff));
}

static void on_ready(struct kt_wire_in *in, void *arg)
{
	if (in->id != 0) {
		struct kt_msg_done done = {0};

		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
	}
	kt_warden_ready(warden_of(arg));
}

static void on_reload(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_reload *reload = in->msg;

	kt_warden_reload(warden_of(arg), in->id, reload->exec);
}

static void on_anchor(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_anchor *anchor = in->msg;
	char hash[65];

	if (anchor->seq <= 0 || anchor->hash.len != 64) {
		return;
	}
	memcpy(hash, anchor->hash.ptr, 64);
	hash[64] = '\0';
	if (strspn(hash, "0123456789abcdef") == 64) { /* nothing but digits gets into the file or the log */
		kt_warden_anchor(warden_of(arg), anchor->seq, hash);
	}
}

const struct kt_wire_handler kt_keeper_requests[] = {
        {KT_NEED, on_need},
        {KT_OWNER, on_owner},
        {KT_HOOK, on_hook},
        {KT_SOLVE, on_solve},
        {KT_FINISHED, on_finished},
        {KT_READY, on_ready},
        {KT_RELOAD, on_reload},
        {KT_ANCHOR, on_anchor},
        {KT_MSG_TYPE_NONE, NULL},
};
