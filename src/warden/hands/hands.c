/* The queue of hands in use: starts what a manifest allows, a few at a time, and puts the outcome into words. */
#include "warden/hands/hands.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "warden/hands/process.h"

#define QUEUE_MAX   1024u
#define ENV_MAX     64u
#define MORE_MAX    16u
#define NOBODY      "nobody"
/* A process that started so shortly after the switch may be rounded to before it: signalling it once more is harmless. */
#define START_SLACK ((kt_ms)100)

struct call {
	struct call *next;
	struct kt_hands *hands;
	struct kt_hand hand;
	char **env;
	struct kt_mounts *mounts;
	struct kt_ids ids;
	bool as_nobody;
	kt_ms delivered_at;
	struct kt_err refused; /* code other than KT_OK: not even started */
	struct kt_run *run;
	struct kt_hand_result result;
	kt_hand_done_fn *done; /* NULL: forgotten */
	void *arg;
};

struct kt_hands {
	struct kt_loop *loop;
	struct kt_hands_config config;
	struct kt_timer *timer;
	struct call *queue;
	struct call **tail;
	unsigned waiting;
	struct call *running;
	unsigned running_count;
	kt_ms clock_changed; /* wall time; deliveries before it are of another clock */
};

/* --- lists of strings ------------------------------------------------------------------------------------------- */

static void strings_free(char **list)
{
	char **at;

	for (at = list; at != NULL && *at != NULL; at++) {
		kt_free(*at);
	}
	kt_free(list);
}

static char **strings_copy(char *const *list)
{
	size_t count = 0;
	char **copy;
	size_t i;

	while (list[count] != NULL) {
		count++;
	}
	copy = kt_calloc(count + 1, sizeof(*copy));
	for (i = 0; copy != NULL && i < count; i++) {
		copy[i] = kt_strdup(list[i]);
		if (copy[i] == NULL) {
			strings_free(copy);
			return NULL;
		}
	}
	return copy;
}

static bool copy_string(const char *from, char **to)
{
	*to = from != NULL ? kt_strdup(from) : NULL;
	return from == NULL || *to != NULL;
}

static bool copy_list(char *const *from, char ***to)
{
	*to = from != NULL ? strings_copy(from) : NULL;
	return from == NULL || *to != NULL;
}

enum kt_code kt_hand_copy(const struct kt_hand *hand, struct kt_hand *ret, struct kt_err *err)
{
	bool ok;

	memset(ret, 0, sizeof(*ret));
	ret->kind = hand->kind;
	ret->signum = hand->signum;
	ret->time_limit = hand->time_limit;
	ret->lock_at = hand->lock_at;
	ok = copy_list(hand->argv, &ret->argv) && copy_list(hand->env, &ret->env) &&
	     copy_string(hand->user, &ret->user) && copy_string(hand->group, &ret->group) &&
	     copy_string(hand->pid_file, &ret->pid_file) && copy_string(hand->exe, &ret->exe) &&
	     copy_string(hand->cgroup, &ret->cgroup) && copy_string(hand->unit, &ret->unit) &&
	     copy_string(hand->action, &ret->action) && copy_string(hand->path, &ret->path);
	if (!ok) {
		kt_hand_finish(ret);
		return kt_err_set(err, KT_E_NOMEM, "no memory for a hook");
	}
	return KT_OK;
}

void kt_hand_finish(struct kt_hand *hand)
{
	strings_free(hand->argv);
	strings_free(hand->env);
	kt_free(hand->user);
	kt_free(hand->group);
	kt_free(hand->pid_file);
	kt_free(hand->exe);
	kt_free(hand->cgroup);
	kt_free(hand->unit);
	kt_free(hand->action);
	kt_free(hand->path);
	memset(hand, 0, sizeof(*hand));
}

/* --- the environment -------------------------------------------------------------------------------------------- */

static bool add_env(char **env, size_t *count, const char *name, struct kt_view value)
{
	if (value.len > KT_PATH_MAX) {
		return false;
	}
	env[*count] = kt_asprintf("%s=%.*s", name, (int)value.len, value.len > 0 ? value.ptr : "");
	return env[*count] != NULL && ++*count > 0;
}

/* What a manifest adds comes first in line for PATH and LANG, never for what the agent itself says. */
static bool add_own_env(char **env, size_t *count, char *const *own)
{
	for (; own != NULL && *own != NULL && *count < ENV_MAX; own++) {
		if (kt_starts_with(*own, "KEYTURN_") || kt_starts_with(*own, "TRACEPARENT=") || strchr(*own, '=') == NULL) {
			continue;
		}
		env[*count] = kt_strdup(*own);
		if (env[(*count)++] == NULL) {
			return false;
		}
	}
	return true;
}

static bool has_env(char *const *env, const char *prefix)
{
	for (; *env != NULL; env++) {
		if (kt_starts_with(*env, prefix)) {
			return true;
		}
	}
	return false;
}

static char **make_env(const struct kt_hand_env *say, char *const *own)
{
	char **env = kt_calloc(ENV_MAX + MORE_MAX + 12, sizeof(*env));
	char when[32] = "";
	size_t n = 0, i;
	bool ok;

	if (env == NULL) {
		return NULL;
	}
	if (say->not_after > 0) {
		(void)kt_time_format(say->not_after, when);
	}
	ok = add_own_env(env, &n, own) &&
	     (has_env(env, "PATH=") || add_env(env, &n, "PATH", KT_VIEW_LIT(KT_HAND_PATH))) &&
	     (has_env(env, "LANG=") || add_env(env, &n, "LANG", KT_VIEW_LIT("C.UTF-8"))) &&
	     add_env(env, &n, "KEYTURN_NAME", say->name) && add_env(env, &n, "KEYTURN_NAMESPACE", say->ns) &&
	     add_env(env, &n, "KEYTURN_SECRET_DIR", say->secret_dir) && add_env(env, &n, "KEYTURN_STEP", say->step) &&
	     add_env(env, &n, "KEYTURN_NOT_AFTER", kt_view_str(when)) &&
	     add_env(env, &n, "KEYTURN_FINGERPRINT", say->fingerprint) &&
	     add_env(env, &n, "KEYTURN_SERIAL", say->serial) && add_env(env, &n, "TRACEPARENT", say->traceparent);
	for (i = 0; ok && say->more != NULL && say->more[i] != NULL && i < MORE_MAX; i++) {
		env[n] = kt_strdup(say->more[i]);
		ok = env[n++] != NULL;
	}
	if (!ok) {
		strings_free(env);
		return NULL;
	}
	return env;
}

/* --- outcomes --------------------------------------------------------------------------------------------------- */

static void call_destroy(struct call *call)
{
	kt_run_destroy(call->run);
	kt_hand_finish(&call->hand);
	strings_free(call->env);
	kt_mounts_destroy(call->mounts);
	kt_ids_finish(&call->ids);
	kt_free(call);
}

static void say(struct call *call, enum kt_hand_outcome outcome, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

static void say(struct call *call, enum kt_hand_outcome outcome, const char *fmt, ...)
{
	va_list ap;

	call->result.outcome = outcome;
	va_start(ap, fmt);
	(void)vsnprintf(call->result.what, sizeof(call->result.what), fmt, ap);
	va_end(ap);
}

/* A refusal is for good, anything else may go better next time. */
static void say_err(struct call *call, const struct kt_err *err)
{
	bool refused = err->code == KT_E_POLICY || err->code == KT_E_UNSUPPORTED || err->code == KT_E_INVALID;

	say(call, refused ? KT_HAND_CANNOT : KT_HAND_FAILED, "%s", err->what);
}

/* Takes the call out of the running, tells the one who asked, and makes room for the next. */
static void finish(struct call *call)
{
	struct kt_hands *hands = call->hands;
	struct call **at = &hands->running;

	while (*at != call) {
		at = &(*at)->next;
	}
	*at = call->next;
	hands->running_count--;
	kt_timer_start(hands->timer, 0);
	if (call->done != NULL) {
		call->done(&call->result, call->arg);
	}
	call_destroy(call);
}

/* --- exec ------------------------------------------------------------------------------------------------------- */

static void on_exec_done(const struct kt_run_result *result, void *arg)
{
	struct call *call = arg;
	const char *program = call->hand.argv[0];
	const char *note = call->as_nobody ? " (ran as nobody: exec.user names nobody else)" : "";

	call->result.output = result->output;
	call->result.in_namespace = call->mounts != NULL;
	if (WIFEXITED(result->wait_status)) {
		call->result.status = WEXITSTATUS(result->wait_status);
	} else {
		call->result.status = 128 + WTERMSIG(result->wait_status);
	}
	if (result->timed_out) {
		say(call, KT_HAND_TIMED_OUT, "%s did not end within %lld s and was killed%s", program,
		    (long long)(call->hand.time_limit / KT_SECOND), note);
	} else if (!WIFEXITED(result->wait_status)) {
		say(call, KT_HAND_FAILED, "%s was ended by signal %d (%s)%s", program, WTERMSIG(result->wait_status),
		    strsignal(WTERMSIG(result->wait_status)), note);
	} else if (call->result.status != 0) {
		say(call, KT_HAND_FAILED, "%s ended with exit status %d%s", program, call->result.status, note);
	} else {
		say(call, KT_HAND_OK, "%s ended with exit status 0%s", program,
		    call->result.in_namespace ? ", with the candidate in place" : "");
	}
	finish(call);
}

/* As whom: the user that is named; without a name ourselves, but root only where the manifest says so. */
static enum kt_code resolve_user(struct call *call, struct kt_err *err)
{
	const char *user = call->hand.user;
	enum kt_code code;

	if (user == NULL && geteuid() != 0) {
		return KT_OK;
	}
	if (user == NULL) {
		user = NOBODY;
		call->as_nobody = true;
	}
	code = kt_ids_resolve(user, call->hand.group, &call->ids, err);
	if (code == KT_OK && geteuid() != 0) {
		bool same = call->ids.uid == geteuid();

		kt_ids_finish(&call->ids);
		if (!same) {
			return kt_err_set(err, KT_E_POLICY, "%s can't be run as %s: the agent itself is not root",
			                  call->hand.argv[0], user);
		}
	}
	return code;
}

/* Whether it runs already: started by us, or by a warden that is no more. */
static bool still_runs(const struct call *call)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = call->hand.lock_at, .l_len = 1};

	return call->hand.lock_at != 0 && fcntl(call->hands->config.lock_fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Could not start: a namespace that is refused is told apart from everything else. */
static void say_not_started(struct call *call, const struct kt_err *err)
{
	int failed = 0;
	const char *step = call->mounts != NULL ? kt_mounts_failed(call->mounts, &failed) : NULL;

	if (step != NULL) {
		say(call, KT_HAND_CANNOT, "cannot validate before the switch: %s: %s", step, strerror(failed));
	} else {
		say(call, KT_HAND_CANNOT, "%s could not be run: %s", call->hand.argv[0], err->what);
	}
}

static bool start_exec(struct call *call)
{
	struct kt_run_request request = {.argv = call->hand.argv,
	                                 .envp = call->env,
	                                 .mounts = call->mounts,
	                                 .lock_fd = call->hands->config.lock_fd,
	                                 .lock_at = call->hand.lock_at,
	                                 .time_limit = call->hand.time_limit};
	struct kt_err err;

	kt_err_clear(&err);
	if (still_runs(call)) {
		say(call, KT_HAND_BUSY, "%s still runs", call->hand.argv[0]);
		return false;
	}
	if (resolve_user(call, &err) != KT_OK) {
		say(call, KT_HAND_CANNOT, "%s could not be run: %s", call->hand.argv[0], err.what);
		return false;
	}
	request.ids = call->ids.home != NULL ? &call->ids : NULL;
	if (kt_run_start(call->hands->loop, &request, on_exec_done, call, &call->run, &err) != KT_OK) {
		say_not_started(call, &err);
		return false;
	}
	return true;
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

/* Needs no signal: it was started after the switch and has read the new set. */
static bool younger(const struct call *call, const struct kt_process *process)
{
	return call->delivered_at > 0 && call->delivered_at > call->hands->clock_changed &&
	       kt_process_started(process, kt_loop_clock(call->hands->loop)) > call->delivered_at + START_SLACK;
}

static bool is_ours(const struct kt_hands *hands, pid_t pid)
{
	return pid == getpid() || (hands->config.is_ours != NULL && hands->config.is_ours(pid, hands->config.arg));
}

/* Signals one process after the last checks; false when call->result says why not. */
static bool signal_one(struct call *call, const struct kt_process *process)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (is_ours(call->hands, process->pid)) {
		say(call, KT_HAND_CANNOT, "process %d is the agent itself, which is never signalled", (int)process->pid);
		return false;
	}
	if (younger(call, process)) {
		call->result.skipped = true;
		say(call, KT_HAND_OK, "process %d (%s) was started after the switch and needs no signal",
		    (int)process->pid, process->exe);
		return true;
	}
	if (kt_process_signal(process, call->hand.signum, &err) != KT_OK) {
		say_err(call, &err);
		return false;
	}
	call->result.skipped = false;
	say(call, KT_HAND_OK, "SIG%s sent to process %d (%s)", sigabbrev_np(call->hand.signum), (int)process->pid,
	    process->exe);
	return true;
}

/* owner: of the pid file; 0 for anybody's process. */
static void signal_pid(struct call *call, pid_t pid, const char *from, uid_t owner)
{
	struct kt_process process;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_process_read(pid, &process, &err) != KT_OK) {
		say(call, KT_HAND_FAILED, "%s: %s", from, err.what);
		return;
	}
	/*
	 * A daemon that writes its own pid file must not make root signal for it what it may not signal itself. Asked of the
	 * very process that is compared once more before the signal, not of one that had the number a moment before.
	 */
	if (owner != 0 && process.uid != owner) {
		say(call, KT_HAND_CANNOT, "pid file %s belongs to uid %u but names process %d of uid %u", from, owner, (int)pid,
		    process.uid);
		return;
	}
	if (call->hand.exe != NULL && strcmp(process.exe, call->hand.exe) != 0) {
		say(call, KT_HAND_FAILED, "%s names process %d, which runs %s and not %s", from, (int)pid,
		    process.exe[0] != '\0' ? process.exe : "something hidden", call->hand.exe);
		return;
	}
	(void)signal_one(call, &process);
}

static void signal_pid_file(struct call *call)
{
	const char *path = call->hand.pid_file;
	struct kt_err err;
	uid_t owner = 0;
	pid_t pid = 0;

	kt_err_clear(&err);
	if (kt_pid_file_read(path, &pid, &owner, &err) != KT_OK) {
		say_err(call, &err);
		return;
	}
	signal_pid(call, pid, path, owner);
}

static void signal_found(struct call *call)
{
	struct kt_process *found = NULL;
	struct kt_err err;
	unsigned count = 0;
	unsigned sent = 0;
	unsigned skipped = 0;
	unsigned i;
	bool ok = true;

	kt_err_clear(&err);
	if (kt_process_find(call->hand.exe, call->hand.cgroup, &found, &count, &err) != KT_OK) {
		say_err(call, &err);
		return;
	}
	if (count == 0) {
		say(call, KT_HAND_FAILED, "no process runs %s%s%s", call->hand.exe,
		    call->hand.cgroup != NULL ? " in cgroup " : "", call->hand.cgroup != NULL ? call->hand.cgroup : "");
	}
	for (i = 0; i < count && ok; i++) {
		ok = signal_one(call, &found[i]);
		skipped += ok && call->result.skipped;
		sent += ok && !call->result.skipped;
	}
	kt_free(found);
	call->result.skipped = skipped > 0 && sent == 0;
	if (ok && count > 1) {
		say(call, KT_HAND_OK, "SIG%s sent to %u processes of %s, %u were started after the switch",
		    sigabbrev_np(call->hand.signum), sent, call->hand.exe, skipped);
	}
}

/* --- systemd ---------------------------------------------------------------------------------------------------- */

static const char *systemctl(const struct kt_hands *hands)
{
	struct stat st;

	if (hands->config.systemctl != NULL) {
		return hands->config.systemctl;
	}
	return stat("/usr/bin/systemctl", &st) == 0 ? "/usr/bin/systemctl"
	       : stat("/bin/systemctl", &st) == 0   ? "/bin/systemctl"
	                                            : NULL;
}

/* systemd.unit(5): what a name may hold; a leading '-' would be an option. */
static bool unit_name_ok(const char *unit)
{
	return unit[0] != '\0' && unit[0] != '-' && strlen(unit) < 256 &&
	       unit[strspn(unit, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.@-\\")] == '\0';
}

static void on_main_pid(const struct kt_run_result *result, void *arg)
{
	struct call *call = arg;
	struct kt_view text = result->output;
	char cgroup[300];
	uint64_t pid = 0;

	while (text.len > 0 && text.ptr[text.len - 1] == '\n') {
		text.len--;
	}
	if (result->timed_out || !WIFEXITED(result->wait_status) || WEXITSTATUS(result->wait_status) != 0 ||
	    kt_parse_u64(text, 1u << 22, &pid, NULL) != KT_OK) {
		say(call, KT_HAND_FAILED, "systemctl does not tell the main process of %s", call->hand.unit);
		call->result.output = result->output;
	} else if (pid <= 1) {
		say(call, KT_HAND_FAILED, "unit %s has no main process: it does not run", call->hand.unit);
	} else {
		(void)snprintf(cgroup, sizeof(cgroup), "main process of %s", call->hand.unit);
		signal_pid(call, (pid_t)pid, cgroup, 0);
	}
	finish(call);
}

static void on_systemctl_done(const struct kt_run_result *result, void *arg)
{
	struct call *call = arg;
	int status = WIFEXITED(result->wait_status) ? WEXITSTATUS(result->wait_status) : 255;

	call->result.output = result->output;
	call->result.status = status;
	if (result->timed_out) {
		say(call, KT_HAND_TIMED_OUT, "systemctl %s %s did not end in time", call->hand.action, call->hand.unit);
	} else if (status != 0) {
		say(call, KT_HAND_FAILED, "systemctl %s %s ended with exit status %d", call->hand.action, call->hand.unit,
		    status);
	} else {
		say(call, KT_HAND_OK, "systemctl %s %s done", call->hand.action, call->hand.unit);
	}
	finish(call);
}

static bool start_systemctl(struct call *call, bool ask_pid)
{
	const char *program = systemctl(call->hands);
	char *show[] = {(char *)program, "show", "--property=MainPID", "--value", "--", call->hand.unit, NULL};
	char *act[] = {(char *)program, "--no-ask-password", call->hand.action, "--", call->hand.unit, NULL};
	struct kt_run_request request = {
	        .argv = ask_pid ? show : act, .envp = call->env, .time_limit = call->hand.time_limit};
	struct kt_err err;

	kt_err_clear(&err);
	if (program == NULL) {
		say(call, KT_HAND_CANNOT, "there is no systemctl on this machine, so unit %s is out of reach",
		    call->hand.unit);
		return false;
	}
	if (!unit_name_ok(call->hand.unit)) {
		say(call, KT_HAND_CANNOT, "\"%.64s\" is not the name of a unit", call->hand.unit);
		return false;
	}
	if (kt_run_start(call->hands->loop, &request, ask_pid ? on_main_pid : on_systemctl_done, call, &call->run,
	                 &err) != KT_OK) {
		say(call, KT_HAND_CANNOT, "%s", err.what);
		return false;
	}
	return true;
}

/* --- touch ------------------------------------------------------------------------------------------------------ */

static enum kt_code touch(const char *path, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	KT_AUTOCLOSE int file = -1;
	struct stat st;
	char again[64];

	if (fd < 0) {
		return kt_err_sys(err, "touch %s", path);
	}
	if (fstat(fd, &st) < 0) {
		return kt_err_sys(err, "touch %s", path);
	}
	if (!S_ISREG(st.st_mode)) {
		return kt_err_set(err, KT_E_POLICY, "touch %s: not a plain file", path);
	}
	(void)snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
	/* Opened for writing, so that a watcher for IN_CLOSE_WRITE notices as well as one for IN_ATTRIB. */
	file = open(again, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (file < 0 || futimens(file, NULL) < 0) {
		return kt_err_sys(err, "touch %s", path);
	}
	return KT_OK;
}

static void start_touch(struct call *call)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (touch(call->hand.path, &err) != KT_OK) {
		say_err(call, &err);
	} else {
		say(call, KT_HAND_OK, "%s touched", call->hand.path);
	}
}

/* --- the queue -------------------------------------------------------------------------------------------------- */

/* True when an answer will come later. */
static bool start(struct call *call)
{
	if (call->refused.code != KT_OK) {
		say(call, KT_HAND_CANNOT, "%s", call->refused.what);
		return false;
	}
	switch (call->hand.kind) {
	case KT_HAND_EXEC:
		return start_exec(call);
	case KT_HAND_SYSTEMD:
		return start_systemctl(call, false);
	case KT_HAND_SIGNAL:
		if (call->hand.unit != NULL) {
			return start_systemctl(call, true);
		}
		if (call->hand.pid_file != NULL) {
			signal_pid_file(call);
		} else {
			signal_found(call);
		}
		return false;
	case KT_HAND_TOUCH:
		start_touch(call);
		return false;
	case KT_HAND_NONE:
		break;
	}
	say(call, KT_HAND_CANNOT, "this hook is not one of the warden's");
	return false;
}

static void on_timer(void *arg)
{
	struct kt_hands *hands = arg;

	while (hands->queue != NULL && hands->running_count < hands->config.parallel) {
		struct call *call = hands->queue;

		hands->queue = call->next;
		if (hands->queue == NULL) {
			hands->tail = &hands->queue;
		}
		hands->waiting--;
		call->next = hands->running;
		hands->running = call;
		hands->running_count++;
		if (!start(call)) {
			finish(call);
		}
	}
}

enum kt_code kt_hands_create(struct kt_loop *loop, const struct kt_hands_config *config, struct kt_hands **ret,
                             struct kt_err *err)
{
	struct kt_hands *hands = kt_calloc(1, sizeof(*hands));
	enum kt_code code;

	if (hands == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the hands");
	}
	hands->loop = loop;
	hands->config = *config;
	hands->tail = &hands->queue;
	if (hands->config.parallel == 0) {
		hands->config.parallel = KT_HAND_PARALLEL;
	}
	code = kt_timer_create(loop, on_timer, hands, &hands->timer, err);
	if (code != KT_OK) {
		kt_free(hands);
		return code;
	}
	*ret = hands;
	return KT_OK;
}

static void list_destroy(struct call *call)
{
	while (call != NULL) {
		struct call *next = call->next;

		call_destroy(call);
		call = next;
	}
}

void kt_hands_destroy(struct kt_hands *hands)
{
	if (hands == NULL) {
		return;
	}
	list_destroy(hands->running);
	list_destroy(hands->queue);
	kt_timer_destroy(hands->timer);
	kt_free(hands);
}

void kt_hands_clock_changed(struct kt_hands *hands, kt_ms wall)
{
	hands->clock_changed = wall;
}

bool kt_hands_busy(const struct kt_hands *hands)
{
	return hands->queue != NULL || hands->running != NULL;
}

/* The candidate's mounts; what can't be mounted is said as the keeper needs it. */
static void prepare_mounts(struct call *call, struct kt_view binds, const char *const *roots)
{
	struct kt_err err;
	bool may_userns = geteuid() != 0; /* as root ids other than ours would be lost in one */

	if (binds.len == 0) {
		return;
	}
	kt_err_clear(&err);
	if (call->hand.kind != KT_HAND_EXEC) {
		(void)kt_err_set(&call->refused, KT_E_INVALID, "only a program can look at a candidate");
	} else if (kt_mounts_create(binds, roots, may_userns, &call->mounts, &err) != KT_OK) {
		(void)kt_err_set(&call->refused, err.code, "cannot validate before the switch: %s", err.what);
	}
}

void kt_hands_run(struct kt_hands *hands, const struct kt_hand *hand, const struct kt_hand_env *env,
                  struct kt_view binds, const char *const *roots, kt_ms delivered_at, kt_hand_done_fn *done, void *arg)
{
	struct call *call = kt_calloc(1, sizeof(*call));
	struct kt_hand_result none = {.outcome = KT_HAND_CANNOT, .what = "no memory for a hook"};

	if (call == NULL) {
		done(&none, arg); /* the one case in which the answer can't wait */
		return;
	}
	call->hands = hands;
	call->done = done;
	call->arg = arg;
	call->delivered_at = delivered_at;
	kt_err_clear(&call->refused);
	call->env = make_env(env, hand->env);
	if (hands->waiting >= QUEUE_MAX) {
		(void)kt_err_set(&call->refused, KT_E_LATER, "%u hooks wait already", QUEUE_MAX);
	} else if (call->env == NULL || kt_hand_copy(hand, &call->hand, NULL) != KT_OK) {
		(void)kt_err_set(&call->refused, KT_E_NOMEM, "no memory for a hook");
	} else {
		if (call->hand.time_limit <= 0) {
			call->hand.time_limit = KT_HAND_TIME_LIMIT;
		}
		prepare_mounts(call, binds, roots);
	}
	*hands->tail = call;
	hands->tail = &call->next;
	hands->waiting++;
	kt_timer_start(hands->timer, 0);
}

void kt_hands_forget(struct kt_hands *hands, const void *arg)
{
	struct call *call;

	for (call = hands->queue; call != NULL; call = call->next) {
		if (call->arg == arg) {
			call->done = NULL;
		}
	}
	for (call = hands->running; call != NULL; call = call->next) {
		if (call->arg == arg) {
			call->done = NULL;
		}
	}
}
