/* The warden: starts and minds the rooms, reads the manifests, keeps the hands; called by src/cli. */
#ifndef KT_WARDEN_H
#define KT_WARDEN_H

#include <stdbool.h>

#include "kt/err.h"
#include "kt/log.h"
#include "kt/loop.h"
#include "kt/manifest.h"
#include "kt/msg.h"

/*
 * A walk through it. kt_warden_create reads the manifests (refused when others may write them), opens the rooms'
 * executables, binds the listeners and the control socket (daemon) and starts the keeper. The keeper asks for the other rooms
 * when it needs them (the desk is started at once where listeners are configured). A room that dies is started again
 * with backoff; a survivor gets a fresh wire to it. The end comes by SIGTERM or SIGINT, by kt_warden_stop, or (not in
 * daemon mode) when the keeper says KT_FINISHED: the rooms get 10 s to finish, then SIGKILL, then `finished` is called.
 *
 * One warden a process (signals, notify socket and lock are the process's).
 */
struct kt_warden;

#define KT_PROBE_ADDRESS ":9403" /* of a sidecar: all addresses, because the kubelet asks from outside the pod */

struct kt_warden_options {
	enum kt_run_mode mode;
	const char *const *manifests; /* files and directories, NULL-terminated; NULL or empty: no manifests at all */
	bool manifests_optional;      /* a path that does not exist is an empty folder (the default /etc/keyturn) */
	bool manifests_needed;        /* nothing in them at all is an error: KT_E_INVALID */
	struct kt_report *report;     /* gets every complaint about them at create; may be NULL */
	/* NULL: what kind Agent says, else the default (CONTRACT.md). */
	const char *state_dir;
	const char *secrets_dir;
	const char *socket_path;
	enum kt_level log_level;
	bool log_json;
	bool sidecar;          /* in a pod: volumes that others may write to are accepted, see kt_io_check_trusted_in_pod */
	const char *probe_address; /* of the listener "probes", wins over kind Agent; "none": there is none; NULL: not given */
	const char *probe_default; /* ... where kind Agent names none either; NULL: none; a literal */
	bool no_sandbox;       /* rooms stay open: for debugging only; logged as a warning */
	const char *rooms_dir; /* NULL: $KEYTURN_LIBEXECDIR (ignored when setuid), else KT_LIBEXECDIR */
	/* argv of the program, for `reload --exec`; NULL: that is refused. */
	char *const *argv;
};

struct kt_warden_events {
	/*
	 * ONESHOT and READONLY: a fresh stream to the keeper on which the admin protocol is spoken, as over the control
	 * socket; fd is the callee's. Called once for each start of the keeper: after a death the former stream is
	 * closed by the other end and the request has to be sent again on the new one. May be NULL (daemon).
	 */
	void (*admin)(int fd, void *arg);
	/* Everything has ended; status is what the process exits with. kt_warden_destroy may be called in here. */
	void (*finished)(int status, void *arg);
	void *arg;
};

/*
 * Starts it on a loop (which the caller runs). options and events are copied; the strings are, too. An error is a
 * wrong manifest or setting (KT_E_INVALID: exit 2), a refused file (KT_E_POLICY: exit 4), an agent that runs already
 * (KT_E_BUSY), or a failed system call; `finished` is not called then.
 */
enum kt_code kt_warden_create(struct kt_loop *loop, const struct kt_warden_options *options,
                              const struct kt_warden_events *events, struct kt_warden **ret, struct kt_err *err);
/* Orderly end with this exit status; harmless when it is on its way already. */
void kt_warden_stop(struct kt_warden *warden, int status);
/* A signal asked for the end, perhaps while no warden was there to hear it. */
bool kt_warden_stop_wanted(void);
/* Kills what is left, closes everything. NULL accepted. */
void kt_warden_destroy(struct kt_warden *warden);

/* The daemon (`keyturn run`): its own loop, create, run, destroy. Returns the exit status; errors are logged. */
int kt_warden_run(const struct kt_warden_options *options);

/* --- for the commands ------------------------------------------------------------------------------------------ */

/* Where things are, from options and kind Agent together, without starting anything. Strings live until finish. */
struct kt_warden_places {
	char *state_dir;
	char *secrets_dir;
	char *socket_path;
};
enum kt_code kt_warden_places(const struct kt_warden_options *options, struct kt_warden_places *ret,
                              struct kt_err *err);
void kt_warden_places_finish(struct kt_warden_places *places);

/* Connects to an agent's control socket (any length of path). -1: KT_E_NOTFOUND nobody there, KT_E_POLICY refused. */
int kt_warden_connect(const char *socket_path, struct kt_err *err);

/* Can validate see the candidate before the switch (private mount namespace)? KT_OK and how, or why not in err. */
enum kt_code kt_warden_probe_namespace(const char **ret_how, struct kt_err *err);

#endif
