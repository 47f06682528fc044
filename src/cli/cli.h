/* The commands of `keyturn`: what they share. One file a command (or small family); main.c has the table. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "kt/clock.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/msg.h"
#include "warden/warden.h"

/* Exit statuses (CONTRACT.md). */
enum {
	KT_EXIT_OK = 0,
	KT_EXIT_FAILED = 1,
	KT_EXIT_USAGE = 2,
	KT_EXIT_NO_AGENT = 3,
	KT_EXIT_POLICY = 4,
	KT_EXIT_UNPROVED = 5,
	KT_EXIT_LATER = 75,
};

enum kt_format { KT_FORMAT_TABLE = 0, KT_FORMAT_WIDE, KT_FORMAT_JSON, KT_FORMAT_YAML };

#define KT_CLI_VALUES_MAX 16u
#define KT_CLI_PATHS_MAX  256u

struct kt_command;

/* One invocation. */
struct kt_cli {
	const struct kt_command *command;
	char *const *argv; /* of the program */
	/* global options */
	const char *manifests[KT_CLI_PATHS_MAX + 1]; /* NULL-terminated */
	unsigned manifest_count;
	bool manifests_default; /* nobody named any: the default folder, which need not exist */
	char *manifests_env;    /* KEYTURN_CONFIG, cut at its colons */
	const char *state_dir, *secrets_dir, *socket_path;
	int verbose;
	bool quiet;
	bool log_json;
	bool no_sandbox;
	bool sidecar; /* run --sidecar or KEYTURN_SIDECAR: volumes are those of a pod */
	enum kt_format format;
	bool help;
	/* the command's own, by their place in its table; a flag's value is "" */
	const char *values[KT_CLI_VALUES_MAX];
	char *const *args; /* what is neither option nor command; NULL-terminated */
	int arg_count;
	/* surroundings */
	bool out_tty, err_tty;
	bool color; /* of standard output */
	kt_ms now;  /* wall time at start: relative times count from it */
};

struct kt_cli_option {
	const char *name;  /* long */
	char letter;       /* 0: none */
	const char *value; /* what it takes, for the help; NULL: a flag */
	const char *line;  /* help */
};

struct kt_command {
	const char *name; /* "secret set": words are separated by one space */
	const char *args; /* for the help: "[NAME...]" */
	const char *line; /* one line of help */
	const struct kt_cli_option *options; /* ends with a NULL name; NULL: none */
	int min_args, max_args;              /* max -1: any number */
	int (*run)(struct kt_cli *cli);      /* returns the exit status */
};

/* All commands, in the order of the help; ends with a NULL name. */
extern const struct kt_command kt_commands[];

int kt_cli_invalidate(struct kt_cli *cli); /* token --invalidate */
int kt_cli_account(struct kt_cli *cli), kt_cli_revoke(struct kt_cli *cli);
int kt_cli_run(struct kt_cli *cli), kt_cli_renew(struct kt_cli *cli), kt_cli_plan(struct kt_cli *cli),
        kt_cli_why(struct kt_cli *cli), kt_cli_status(struct kt_cli *cli), kt_cli_check(struct kt_cli *cli),
        kt_cli_token(struct kt_cli *cli), kt_cli_secret_set(struct kt_cli *cli), kt_cli_secret_list(struct kt_cli *cli),
        kt_cli_secret_rm(struct kt_cli *cli), kt_cli_audit(struct kt_cli *cli), kt_cli_trace(struct kt_cli *cli),
        kt_cli_reload(struct kt_cli *cli), kt_cli_doctor(struct kt_cli *cli), kt_cli_master_key(struct kt_cli *cli),
        kt_cli_rehearse(struct kt_cli *cli), kt_cli_dns_record(struct kt_cli *cli), kt_cli_quit(struct kt_cli *cli), kt_cli_version(struct kt_cli *cli),
        kt_cli_import(struct kt_cli *cli), kt_cli_init(struct kt_cli *cli);
extern const struct kt_cli_option kt_cli_account_register_options[], kt_cli_account_update_options[],
        kt_cli_revoke_options[];
extern const struct kt_cli_option kt_cli_run_options[], kt_cli_renew_options[], kt_cli_status_options[],
        kt_cli_check_options[], kt_cli_token_options[], kt_cli_secret_set_options[], kt_cli_secret_list_options[],
        kt_cli_secret_rm_options[], kt_cli_audit_options[], kt_cli_trace_options[], kt_cli_reload_options[], kt_cli_rehearse_options[],
        kt_cli_import_options[], kt_cli_init_options[];

/* --- options.c -------------------------------------------------------------------------------------------------- */

extern const struct kt_cli_option kt_cli_globals[];

/*
 * Reads environment and arguments: finds the command and its options. Returns KT_OK with cli->command set (NULL with
 * cli->help: help of the program), or KT_E_INVALID with a line for people in err (exit status 2).
 */
enum kt_code kt_cli_parse(struct kt_cli *cli, int argc, char **argv, struct kt_err *err);
void kt_cli_finish(struct kt_cli *cli);
void kt_cli_help(const struct kt_cli *cli, FILE *out);
/* Value of an option of the command; NULL when not given. A flag that is given has "". */
const char *kt_cli_value(const struct kt_cli *cli, const char *option);
bool kt_cli_flag(const struct kt_cli *cli, const char *option);
/* A duration in ms; KT_E_INVALID names the option. *ret is left alone when it was not given. */
enum kt_code kt_cli_duration(const struct kt_cli *cli, const char *option, kt_ms *ret, struct kt_err *err);
enum kt_code kt_cli_number(const struct kt_cli *cli, const char *option, uint64_t max, uint64_t *ret,
                           struct kt_err *err);
/* Level of our own and the rooms' log: -q, -v, -vv around `usual`. */
enum kt_level kt_cli_level(const struct kt_cli *cli, enum kt_level usual);
/* What the warden needs to know, from the options. */
void kt_cli_warden_options(const struct kt_cli *cli, enum kt_run_mode mode, struct kt_warden_options *ret);

/* --- say.c: errors, times and text for people ---------------------------------------------------------------------- */

/* "keyturn: <what>" on standard error; control characters are escaped. */
void kt_cli_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* As kt_cli_complain with err->what; returns the exit status that goes with err->code. */
int kt_cli_fail(const struct kt_err *err);
int kt_cli_status_of(enum kt_code code);
/* The worse of two exit statuses: 4, 1, 5, 75, others. */
int kt_cli_worse(int a, int b);
/* Prints what strangers may have written: control characters become \xNN. */
void kt_cli_print(FILE *out, const char *text);
/* "in 2h10m (2026-11-23 14:02Z)", "3m ago (...)"; "-" for NULL or what is no time. Adds to out. */
void kt_cli_when(const struct kt_cli *cli, const char *rfc3339, struct kt_buf *out);
/* Only "in 2h10m" or "3m ago". */
void kt_cli_relative(const struct kt_cli *cli, const char *rfc3339, struct kt_buf *out);
/* Colours for standard output; "" when there is none. */
const char *kt_cli_color(const struct kt_cli *cli, const char *state);
const char *kt_cli_plain(const struct kt_cli *cli);

/* --- renew.c, for revoke ---------------------------------------------------------------------------------------------- */

/* Sends body and shows the renewal that follows, as renew does; a row with "revoked" comes before it. */
int kt_cli_follow(struct kt_cli *cli, json_t *body);

/* --- audit.c, for trace ------------------------------------------------------------------------------------------------ */

/* What a record says besides who, when and how it ended. Adds to out. */
void kt_cli_audit_what(const struct kt_cli *cli, const json_t *row, struct kt_buf *out);
/* Audit records as a table, JSON or YAML. */
int kt_cli_audit_list(struct kt_cli *cli, json_t *rows, bool backwards);

/* --- listing.c: rows as a table, JSON or YAML ------------------------------------------------------------------------- */

enum { KT_COLUMN_RIGHT = 1, KT_COLUMN_WIDE = 2 /* only with -o wide */, KT_COLUMN_TRUNC = 4 };

struct kt_column {
	const char *title;
	const char *key; /* member of the row that is shown, if there is no function */
	void (*cell)(const struct kt_cli *cli, const json_t *row, struct kt_buf *out);
	int flags;
};

struct kt_listing;

/*
 * name: the member of the JSON object that holds the rows ("credentials"). columns end with a NULL title. color_key:
 * the member whose value (a state) gives a row its colour; NULL: none.
 */
enum kt_code kt_listing_create(const struct kt_cli *cli, FILE *out, const char *name, const struct kt_column *columns,
                               const char *color_key, struct kt_listing **ret, struct kt_err *err);
/* Tables are printed at the end; JSON and YAML flow at once. */
void kt_listing_row(struct kt_listing *listing, const json_t *row);
/* Prints what is left; result (may be NULL) becomes the member `summary` of JSON and YAML. Returns the number of rows. */
uint64_t kt_listing_end(struct kt_listing *listing, const json_t *result);
void kt_listing_destroy(struct kt_listing *listing); /* NULL accepted */
/* One value as JSON (indented) or YAML, by cli->format. */
void kt_cli_print_value(const struct kt_cli *cli, FILE *out, const json_t *value);
/* The simple YAML of a value, at this depth. */
void kt_cli_yaml(FILE *out, const json_t *value, int depth);

/* --- client.c: one request to the keeper --------------------------------------------------------------------------------- */

struct kt_request {
	json_t *body;          /* {"command": ...}; borrowed */
	enum kt_run_mode mode; /* without an agent: what kind of one-shot; KT_MODE_DAEMON: the agent is needed */
	int bundle;            /* manifests that go along (kt_check_bundle); 0: none */
	bool resumes;          /* after a lost connection it is asked again, though rows came: the caller keeps body up to date */
	bool needs_manifests;  /* without an agent: nothing in them at all is an error */
	bool aside;            /* beside what the command is about: says nothing by itself, waits for nobody, minds no manifests */
	bool stateless;        /* it can be answered from the bundle where there is no state yet */
	void (*row)(const json_t *row, void *arg);
	void (*event)(const json_t *event, void *arg);
	void (*tick)(void *arg); /* four times a second while waiting */
	void *arg;
};

struct kt_answer {
	int status;        /* exit status */
	json_t *result;    /* may be NULL */
	enum kt_code code; /* of the error; KT_OK: none */
	char *what;        /* its text; NULL: none, or printed already */
};

/*
 * Asks the agent, or does the work in rooms of our own. Everything that goes wrong is in the answer; nothing has been
 * printed about it unless answer->what is NULL and the status is not 0.
 */
void kt_client_call(struct kt_cli *cli, const struct kt_request *request, struct kt_answer *ret);
void kt_answer_finish(struct kt_answer *answer);
/* Prints the error, if there is one; returns the status. */
int kt_answer_report(const struct kt_answer *answer);
/* Request without rows; the result is printed by the caller. */
int kt_client_simple(struct kt_cli *cli, json_t *body, enum kt_run_mode mode, struct kt_answer *ret);
/* kt_client_call with its rows shown on standard output (kt_listing_create); returns how many they were. */
uint64_t kt_client_list(struct kt_cli *cli, struct kt_request *request, const char *name,
                        const struct kt_column *columns, const char *color_key, struct kt_answer *ret);
/* Connects to the agent of this state: -1 with KT_E_NOTFOUND when there is none. */
int kt_client_connect(struct kt_cli *cli, struct kt_err *err);

/* --- lock.c ----------------------------------------------------------------------------------------------------------------- */

#define KT_LOCK_WAIT (30 * KT_SECOND) /* for whoever holds the state to end */
#define KT_LOCK_NAME_SIZE 48

/* Who holds the lock of the state against us: 0 nobody, -1 somebody unknown (readers, for instance), else a pid. */
int64_t kt_lock_holder(const char *state_dir, bool read_only);
/* For people: "keyturn with pid 12". Returns `out`. */
const char *kt_lock_holder_name(int64_t pid, char out[KT_LOCK_NAME_SIZE]);

/* --- check.c ---------------------------------------------------------------------------------------------------------------- */

/* What a reading of manifests found. */
struct kt_check {
	struct kt_report report;
	uint32_t resources;
	uint32_t foreign; /* documents that only check reads */
};
/* Reads and checks; on_resource (may be NULL) sees each good resource. trust: as the agent would, on this machine; in_pod:
 * as with --sidecar. cli: the store of its state is looked into for secrets that are missing otherwise; NULL: it is not. */
enum kt_code kt_check_manifests(const char *const *paths, size_t count, bool trust, bool in_pod,
                                bool missing_is_ok, void (*on_resource)(const struct kt_resource *resource, void *arg), void *arg,
                                struct kt_cli *cli, struct kt_check *ret, struct kt_err *err);
void kt_check_finish(struct kt_check *check);
/*
 * The manifests on disk, for a request to the keeper: *ret is a descriptor of the caller's, or 0 when there are none (the
 * default folder is empty, or can't be used). Complaints about manifests that were named are printed; returns the exit
 * status that goes with them, 0 when there are none.
 */
int kt_check_bundle(const struct kt_cli *cli, int *ret);
/* Complaints on standard error: "file:line: text". */
void kt_check_print(const struct kt_check *check, bool warnings);

#endif
