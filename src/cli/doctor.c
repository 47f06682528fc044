/* keyturn doctor: what works on this machine, line by line, and what it means where it does not. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/secret.h"

struct doctor {
	struct kt_cli *cli;
	struct kt_listing *listing;
	unsigned missing, wrong;
};

static void __attribute__((format(printf, 4, 5)))
say(struct doctor *doctor, const char *check, const char *verdict, const char *fmt, ...)
{
	json_t *row KT_AUTOJSON = NULL;
	char text[1024];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	doctor->missing += strcmp(verdict, "missing") == 0;
	doctor->wrong += strcmp(verdict, "failed") == 0;
	row = json_pack("{s:s,s:s,s:s}", "check", check, "verdict", verdict, "text", text);
	if (row != NULL) {
		kt_listing_row(doctor->listing, row);
	}
}

/* --- the kernel ------------------------------------------------------------------------------------------------------- */

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

static void check_walls(struct doctor *doctor)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1u /* LANDLOCK_CREATE_RULESET_VERSION */);
	unsigned action = SECCOMP_RET_KILL_PROCESS;
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (abi >= 4) {
		say(doctor, "landlock", "ok", "ABI %ld: rooms see only their own folders and ports", abi);
	} else if (abi > 0) {
		say(doctor, "landlock", "ok", "ABI %ld: rooms see only their own folders (ports from ABI 4 on)", abi);
	} else {
		say(doctor, "landlock", "missing", "the kernel has none (%s): a room that is taken over sees the files of its user",
		    strerror(errno));
	}
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0) {
		say(doctor, "seccomp", "ok", "each room has only the system calls that it needs");
	} else {
		say(doctor, "seccomp", "missing", "filters are refused (%s): rooms keep every system call", strerror(errno));
	}
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0) {
		say(doctor, "no_new_privs", "ok", "no room can gain rights by a set-user-id program");
	} else {
		say(doctor, "no_new_privs", "missing", "the kernel does not know it");
	}
	if (pidfd >= 0) {
		close(pidfd);
		say(doctor, "pidfd", "ok", "signals reach the process that was checked, never a later one with its number");
	} else {
		say(doctor, "pidfd", "missing", "%s: consumers can't be signalled; use exec or systemd to notify", strerror(errno));
	}
}

static void check_namespace(struct doctor *doctor)
{
	const char *how = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_warden_probe_namespace(&how, &err) == KT_OK) {
		say(doctor, "validate", "ok", "sees the candidate before the switch: %s", how != NULL ? how : "mount namespace");
	} else {
		say(doctor, "validate", "missing", "runs right after the switch, before notify (%s); a failure switches back",
		    err.what);
	}
}

static void check_memory(struct doctor *doctor)
{
	struct rlimit limit = {0};
	unsigned long long bytes;

	(void)getrlimit(RLIMIT_MEMLOCK, &limit);
	bytes = limit.rlim_cur == RLIM_INFINITY ? 0 : (unsigned long long)limit.rlim_cur;
	if (kt_secret_locked()) {
		say(doctor, "memory", "ok", "secrets are locked in memory and never swapped");
	} else {
		say(doctor, "memory", "missing", "secrets can't be locked in memory (limit %llu KiB): raise LimitMEMLOCK", bytes / 1024);
	}
}

static void check_clock(struct doctor *doctor)
{
	struct timex timex = {0};
	int state = adjtimex(&timex);
	kt_ms now = kt_clock_wall(&kt_clock_system);
	char text[32];

	/* No build of this program is older than its first release. */
	if (now < kt_time_civil(2026, 1, 1, 0, 0, 0)) {
		say(doctor, "clock", "failed", "it says %s: certificates would count as not valid yet", kt_time_format(now, text));
	} else if (state < 0 || state == TIME_ERROR || (timex.status & STA_UNSYNC) != 0) {
		say(doctor, "clock", "missing", "nothing keeps it in step (no NTP): lifetimes of minutes need a right clock");
	} else {
		say(doctor, "clock", "ok", "kept in step; estimated error %ld ms", timex.esterror / 1000);
	}
}

static void check_systemd(struct doctor *doctor)
{
	struct stat st;

	if (stat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode)) {
		say(doctor, "systemd", "ok", "units can be reloaded, their main processes signalled");
	} else {
		say(doctor, "systemd", "missing", "it does not run here: notify by signal with pidFile, exec, touch or http");
	}
}

/* --- places ------------------------------------------------------------------------------------------------------------- */

/* The folder itself, or the nearest one above it that exists. */
static int open_nearest(const char *path)
{
	char *copy KT_AUTOFREE = kt_strdup(path);
	int fd;

	if (copy == NULL) {
		return -1;
	}
	while ((fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 && errno == ENOENT) {
		char *slash = strrchr(copy, '/');

		if (slash == NULL || slash == copy) {
			return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		}
		*slash = '\0';
	}
	return fd;
}

static void check_secrets_dir(struct doctor *doctor, const char *path)
{
	KT_AUTOCLOSE int fd = open_nearest(path);
	unsigned allow = doctor->cli->sidecar ? KT_TRUST_MOUNT | KT_TRUST_MOUNT_ABOVE : 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (fd < 0) {
		say(doctor, "secretsDir", "failed", "%s: %s", path, strerror(errno));
	} else if (kt_io_check_trusted_in_pod(path, geteuid(), allow, &err) != KT_OK && err.sys_errno != ENOENT) {
		say(doctor, "secretsDir", "failed", "%s", err.what);
	} else if (kt_io_is_memory_backed(fd)) {
		say(doctor, "secretsDir", "ok", "%s is in memory only", path);
	} else {
		say(doctor, "secretsDir", "missing", "%s is on a disk: keys would stay there; mount a tmpfs, or say spec.allowPersistent: true in kind Agent",
		    path);
	}
}

static void check_state_dir(struct doctor *doctor, const char *path)
{
	struct stat st;
	struct kt_err err;

	kt_err_clear(&err);
	if (stat(path, &st) != 0) {
		say(doctor, "stateDir", "ok", "%s is made by the first run", path);
	} else if (kt_io_check_trusted_in_pod(path, geteuid(), doctor->cli->sidecar ? KT_TRUST_MOUNT_ABOVE : 0, &err) != KT_OK) {
		say(doctor, "stateDir", "failed", "%s", err.what);
	} else if ((st.st_mode & 077) != 0) {
		say(doctor, "stateDir", "missing", "%s is readable by others (mode %03o): chmod 700", path, st.st_mode & 0777);
	} else {
		say(doctor, "stateDir", "ok", "%s belongs to us alone", path);
	}
}

static void check_rooms(struct doctor *doctor)
{
	static const char *const rooms[] = {"keeper", "courier", "desk"};
	const char *env = getenv("KEYTURN_LIBEXECDIR");
	const char *dir = env != NULL ? env : KT_LIBEXECDIR;

	for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		char *path KT_AUTOFREE = kt_asprintf("%s/keyturn-%s", dir, rooms[i]);
		struct stat st;

		if (path == NULL || stat(path, &st) != 0) {
			say(doctor, rooms[i], "failed", "%s/keyturn-%s: %s", dir, rooms[i], strerror(errno));
		} else if (!S_ISREG(st.st_mode) || (st.st_mode & 0111) == 0) {
			say(doctor, rooms[i], "failed", "%s is not executable", path);
		} else {
			say(doctor, rooms[i], "ok", "%s", path);
		}
	}
}

/* --- the agent ------------------------------------------------------------------------------------------------------------ */

static const char *yes_no(const json_t *result, const char *key)
{
	return kt_json_bool(result, key, false) ? "yes" : "NO";
}

static bool agent_runs(struct doctor *doctor, struct kt_err *ret_why_not)
{
	int fd;

	kt_err_clear(ret_why_not);
	fd = kt_client_connect(doctor->cli, ret_why_not);
	if (fd >= 0) {
		close(fd);
	}
	return fd >= 0;
}

/* Which walls stand around a keeper that really runs; it also shows that a room starts and is of the same build. */
static void check_keeper(struct doctor *doctor)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "walls");
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY};
	struct kt_answer answer;
	struct kt_err err;
	bool agent = agent_runs(doctor, &err);

	kt_client_call(doctor->cli, &request, &answer);
	if (answer.result != NULL) {
		bool whole = kt_json_bool(answer.result, "noNewPrivs", false) && kt_json_bool(answer.result, "noCore", false) &&
		             kt_json_bool(answer.result, "seccomp", false);

		say(doctor, "keeper's walls", whole ? "ok" : "missing",
		    "%s: no_new_privs %s, no core %s, capabilities dropped %s, seccomp %s, Landlock ABI %lld, locked memory %s",
		    agent ? "in the agent" : "in a trial run", yes_no(answer.result, "noNewPrivs"),
		    yes_no(answer.result, "noCore"), yes_no(answer.result, "capsDropped"), yes_no(answer.result, "seccomp"),
		    (long long)kt_json_int(answer.result, "landlockABI", 0), yes_no(answer.result, "lockedMemory"));
	} else if (answer.code == KT_E_NOTFOUND && answer.what != NULL && strstr(answer.what, "no state yet") != NULL) {
		say(doctor, "keeper's walls", "ok", "there is no state yet to try them on");
	} else {
		say(doctor, "keeper's walls", "failed", "%s", answer.what != NULL ? answer.what : "no keeper could be asked");
	}
	kt_answer_finish(&answer);
}

static void check_agent(struct doctor *doctor)
{
	struct kt_err err;

	if (agent_runs(doctor, &err)) {
		say(doctor, "agent", "ok", "one runs and answers");
	} else {
		say(doctor, "agent", err.code == KT_E_NOTFOUND ? "missing" : "failed", "%s", err.what);
	}
}

static const struct kt_column columns[] = {
        {"CHECK", "check", NULL, 0},
        {"", "verdict", NULL, 0},
        {"MEANING", "text", NULL, 0},
        {NULL, NULL, NULL, 0},
};

/* What `keyturn check` would say, in one line. */
static void check_manifests(struct doctor *doctor)
{
	const struct kt_cli *cli = doctor->cli;
	struct kt_check check;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_check_manifests(cli->manifests, cli->manifest_count, true, cli->sidecar, cli->manifests_default, NULL, NULL,
	                       doctor->cli, &check, &err) != KT_OK) {
		say(doctor, "manifests", "failed", "%s", err.what);
	} else if (check.report.count > 0) {
		const struct kt_complaint *first = &check.report.items[0];
		unsigned others = check.report.errors + check.report.warnings - 1;

		for (uint32_t i = 1; i < check.report.count && first->severity != KT_COMPLAINT_ERROR; i++) {
			first = check.report.items[i].severity == KT_COMPLAINT_ERROR ? &check.report.items[i] : first;
		}
		say(doctor, "manifests", check.report.errors > 0 ? "failed" : "missing", "%s:%u: %s%s", first->file, first->line,
		    first->text, others > 0 ? " (and more: keyturn check)" : "");
	} else if (check.resources == 0) {
		(void)kt_manifest_none(cli->manifests, cli->manifest_count, &err);
		say(doctor, "manifests", "missing", "%s", err.what);
	} else {
		say(doctor, "manifests", "ok", "%u resources, nothing to say about them", check.resources);
	}
	kt_check_finish(&check);
}

int kt_cli_doctor(struct kt_cli *cli)
{
	struct doctor doctor = {.cli = cli};
	struct kt_warden_places places = {0};
	struct kt_warden_options options;
	json_t *summary KT_AUTOJSON = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_listing_create(cli, stdout, "checks", columns, "verdict", &doctor.listing, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	check_walls(&doctor);
	check_namespace(&doctor);
	check_memory(&doctor);
	check_clock(&doctor);
	check_systemd(&doctor);
	check_rooms(&doctor);
	kt_cli_warden_options(cli, KT_MODE_READONLY, &options);
	if (kt_warden_places(&options, &places, &err) == KT_OK) {
		check_manifests(&doctor);
		check_state_dir(&doctor, places.state_dir);
		check_secrets_dir(&doctor, places.secrets_dir);
		check_agent(&doctor);
		check_keeper(&doctor);
	} else {
		say(&doctor, "manifests", "failed", "%s", err.what);
	}
	kt_warden_places_finish(&places);
	summary = json_pack("{s:i,s:i}", "missing", (int)doctor.missing, "failed", (int)doctor.wrong);
	(void)kt_listing_end(doctor.listing, summary);
	kt_listing_destroy(doctor.listing);
	return doctor.wrong > 0 ? KT_EXIT_FAILED : KT_EXIT_OK;
}
