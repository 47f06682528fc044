/* keyturn renew: does what is due now, or what is named, with progress, and says what came of it. */
#include "cli/cli.h"

#include <string.h>

#include "kt/mem.h"

#define BAR_WIDTH    24
#define LINE_SECONDS 5 /* without a terminal: a line so often */
#define SEEN_MAX     1000000u

const struct kt_cli_option kt_cli_renew_options[] = {
        {"force", 'f', NULL, "also what is not due yet"},
        {"timeout", 0, "D", "wait no longer than this (30s, 10m); what is not done then goes on where it stopped"},
        {"now", 0, NULL, "with names: their consumers do not wait for windows"},
        {"no-wait", 0, NULL, "with an agent: return at once, without waiting for the outcome"},
        {NULL, 0, NULL, NULL},
};

struct renewal {
	struct kt_cli *cli;
	json_t *seen; /* "Kind/ns/name" -> last step: what is under way and what is over */
	uint64_t begun, over;
	char last[256]; /* what happened last */
	char waits[512]; /* what a consumer's last try came to */
	kt_ms started, said;
	bool bar; /* a bar stands in the last line of the terminal */
	json_t *failed;
	json_t *revoked; /* what was revoked before */
	uint64_t failures;
};

/* --- progress ------------------------------------------------------------------------------------------------------- */

static void clear_bar(struct renewal *renewal)
{
	if (renewal->bar) {
		(void)fputs("\r\033[K", stderr);
		(void)fflush(stderr);
		renewal->bar = false;
	}
}

/* Everything is switched and the command goes on: consumers have to take it, and to prove it. */
static void say_waiting(const struct renewal *renewal, const char *after)
{
	char text[1024];

	(void)snprintf(text, sizeof(text), "keyturn: %llu of %llu switched after %s; waiting for the consumers to take it and prove it",
	               (unsigned long long)renewal->over, (unsigned long long)renewal->begun, after);
	(void)fputs(text, stderr);
	if (renewal->waits[0] != '\0') {
		(void)fputs("; last: ", stderr);
		kt_cli_print(stderr, renewal->waits);
	}
	(void)fputc('\n', stderr);
}

static void draw(struct renewal *renewal)
{
	char bar[BAR_WIDTH + 1];
	int full = renewal->begun > 0 ? (int)(renewal->over * BAR_WIDTH / renewal->begun) : 0;

	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', (size_t)(full > BAR_WIDTH ? BAR_WIDTH : full));
	bar[BAR_WIDTH] = '\0';
	(void)fprintf(stderr, "\r\033[K[%s] %llu of %llu  %.40s", bar, (unsigned long long)renewal->over,
	              (unsigned long long)renewal->begun,
	              renewal->begun > 0 && renewal->over == renewal->begun ? "waiting for consumers" : renewal->last);
	(void)fflush(stderr);
	renewal->bar = true;
}

static void on_tick(void *arg)
{
	struct renewal *renewal = arg;
	kt_ms now = kt_clock_mono(&kt_clock_system);
	char text[32];

	if (renewal->cli->quiet || renewal->cli->verbose > 0 || now - renewal->started < KT_SECOND / 2) {
		return;
	}
	if (renewal->cli->err_tty) {
		draw(renewal);
	} else if (now - renewal->said >= LINE_SECONDS * KT_SECOND) {
		renewal->said = now;
		(void)kt_duration_format((now - renewal->started) / 1000 * 1000, text);
		if (renewal->begun > 0 && renewal->over == renewal->begun) {
			say_waiting(renewal, text);
			return;
		}
		(void)fprintf(stderr, "keyturn: %llu of %llu done after %s%s%s\n", (unsigned long long)renewal->over,
		              (unsigned long long)renewal->begun, text,
		              renewal->last[0] != '\0' ? "; last: " : "", renewal->last);
	}
}

/*
 * Steps after which nothing more is waited for, as far as is known then: a credential without consumers ends with the
 * switch; where there are some, "notified" follows and it counts as under way again until the proof.
 */
static bool is_last(const char *step, const char *outcome)
{
	static const char *const last[] = {"switched", "uploaded", "proved", "retired", "rolled-back", "watch.read", "watch.proved"};
	bool ok = outcome == NULL || strcmp(outcome, "ok") == 0;

	for (size_t i = 0; ok && i < sizeof(last) / sizeof(last[0]); i++) {
		if (strcmp(step, last[i]) == 0) {
			return true;
		}
	}
	return outcome != NULL && (strcmp(outcome, "failed") == 0 || strcmp(outcome, "rolled-back") == 0);
}

static void count(struct renewal *renewal, const char *id, const char *step, const char *outcome)
{
	json_t *known = json_object_get(renewal->seen, id);
	bool over = is_last(step, outcome);

	if (known == NULL && json_object_size(renewal->seen) >= SEEN_MAX) {
		return;
	}
	renewal->begun += known == NULL;
	if (over && !json_is_true(known)) {
		renewal->over++;
	} else if (!over && json_is_true(known)) {
		renewal->over--; /* tried again */
	}
	(void)json_object_set_new(renewal->seen, id, json_boolean(over));
}

static void say_event(const char *id, const json_t *event)
{
	const char *consumer = kt_json_str(event, "consumer");
	const char *outcome = kt_json_str(event, "outcome");
	const char *reason = kt_json_str(event, "reason");

	kt_cli_print(stderr, id);
	(void)fputs(": ", stderr);
	kt_cli_print(stderr, kt_json_str(event, "step"));
	if (consumer != NULL) {
		(void)fputs(" by ", stderr);
		kt_cli_print(stderr, consumer);
	}
	if (outcome != NULL && strcmp(outcome, "ok") != 0) {
		(void)fputs(": ", stderr);
		kt_cli_print(stderr, outcome);
	}
	if (reason != NULL) {
		(void)fputs(": ", stderr);
		kt_cli_print(stderr, reason);
	}
	(void)fputc('\n', stderr);
}

static void on_event(const json_t *event, void *arg)
{
	struct renewal *renewal = arg;
	const char *kind = kt_json_str(event, "kind");
	const char *step = kt_json_str(event, "step");
	const char *name = kt_json_str(event, "name");
	const char *ns = kt_json_str(event, "namespace");
	char id[600];

	if (step == NULL || name == NULL || kind == NULL ||
	    (strcmp(kind, "Certificate") != 0 && strcmp(kind, "Token") != 0 && strcmp(kind, "Watch") != 0 &&
	     strcmp(kind, "ClientCredential") != 0)) {
		return;
	}
	(void)snprintf(id, sizeof(id), "%s/%s/%s", kind, ns != NULL ? ns : "", name);
	count(renewal, id, step, kt_json_str(event, "outcome"));
	(void)snprintf(renewal->last, sizeof(renewal->last), "%.180s %.60s", name, step);
	if (kt_json_str(event, "consumer") != NULL && kt_json_str(event, "reason") != NULL) {
		(void)snprintf(renewal->waits, sizeof(renewal->waits), "%.120s: %.300s", kt_json_str(event, "consumer"),
		               kt_json_str(event, "reason"));
	}
	if (renewal->cli->verbose > 0) {
		say_event(id, event);
	}
}

/* --- what failed ---------------------------------------------------------------------------------------------------- */

/* The cause, for one that was delivered but is not proved. */
static void unproved(const json_t *row, struct kt_buf *out)
{
	json_t *consumers = json_object_get(row, "consumers");
	json_t *consumer;
	size_t i;

	json_array_foreach(consumers, i, consumer)
	{
		const char *state = kt_json_str(consumer, "state");
		const char *seen = kt_json_str(consumer, "seen");
		const char *expected = kt_json_str(consumer, "expected");
		const char *error = kt_json_str(consumer, "lastError");

		if (state == NULL || strcmp(state, "proved") == 0 || strcmp(state, "delivered") == 0 ||
		    strcmp(state, "uploaded") == 0 ||
		    strcmp(state, "superseded") == 0) {
			continue;
		}
		kt_buf_addf(out, "%sconsumer %s: ", out->len > 0 ? ", " : "", kt_json_str(consumer, "name"));
		if (seen != NULL && expected != NULL) {
			kt_buf_addf(out, "seen: %s; expected: %s", seen, expected);
		} else {
			kt_buf_adds(out, error != NULL ? error : state);
		}
	}
}

static void on_revoked(struct renewal *renewal, const json_t *row)
{
	json_decref(renewal->revoked);
	renewal->revoked = json_deep_copy(row);
	if (renewal->cli->format < KT_FORMAT_JSON && !renewal->cli->quiet) {
		(void)printf("revoked %s/%s/%s, serial %s (%s)\n", kt_json_str(row, "kind"), kt_json_str(row, "namespace"),
		             kt_json_str(row, "name"), kt_json_str(row, "serial"), kt_json_str(row, "reason"));
		(void)fflush(stdout);
	}
}

static void on_row(const json_t *row, void *arg)
{
	struct renewal *renewal = arg;
	const char *error = kt_json_str(row, "lastError");
	const char *mend = kt_json_str(row, "mend");
	bool prove = error == NULL && kt_json_int(row, "exitStatus", 0) == KT_EXIT_UNPROVED;
	struct kt_buf cause KT_AUTOBUF = {0};

	clear_bar(renewal);
	if (kt_json_bool(row, "revoked", false)) {
		on_revoked(renewal, row);
		return;
	}
	renewal->failures++;
	if (renewal->failed != NULL) {
		(void)json_array_append(renewal->failed, (json_t *)row);
	}
	kt_buf_init(&cause, 8192);
	if (error != NULL) {
		kt_buf_adds(&cause, error);
	} else {
		unproved(row, &cause);
	}
	mend = mend != NULL ? mend : "'keyturn why' says more";
	if (mend[0] == '\0' || (cause.len > 0 && strstr(cause.ptr, ": set it with 'keyturn ") != NULL)) {
		mend = NULL; /* the cause says how */
	}
	kt_cli_complain("%s/%s/%s: %s%s: %s%s%s", kt_json_str(row, "kind"), kt_json_str(row, "namespace"),
	                kt_json_str(row, "name"), prove ? "" : "at step ", prove ? "prove" : kt_json_str(row, "step"),
	                cause.len > 0 ? cause.ptr : "not finished", mend != NULL ? "; " : "", mend != NULL ? mend : "");
}

static void close_line(const struct renewal *renewal, const struct kt_answer *answer)
{
	uint64_t ok = (uint64_t)kt_json_int(answer->result, "ok", 0);
	uint64_t failed = (uint64_t)kt_json_int(answer->result, "failed", 0);
	uint64_t waiting = (uint64_t)kt_json_int(answer->result, "waiting", 0);
	uint64_t resting = (uint64_t)kt_json_int(answer->result, "resting", 0);
	char text[32];

	if (renewal->cli->quiet) {
		return;
	}
	if (answer->result == NULL) {
		(void)puts("the agent has been told; 'keyturn status' shows how it goes");
		return;
	}
	if (waiting > 0) {
		(void)printf("%llu of them: consumers wait for their windows; 'keyturn status NAME' shows until when\n", (unsigned long long)waiting);
	}
	if (resting > 0) {
		(void)printf("%llu of them: the new key is shown and goes into force when servers have read it; 'keyturn why NAME' says when\n",
		             (unsigned long long)resting);
	}
	(void)printf("%llu credential%s in order, %llu not%s; took %s\n", (unsigned long long)ok, ok == 1 ? "" : "s",
	             (unsigned long long)failed,
	             kt_json_bool(answer->result, "timedOut", false) ? " (the time was up)" : "",
	             kt_duration_format(kt_clock_mono(&kt_clock_system) - renewal->started, text));
}

static void print_value(const struct renewal *renewal, const struct kt_answer *answer)
{
	json_t *value KT_AUTOJSON =
	        json_pack("{s:O,s:i,s:O*,s:O*}", "failed", renewal->failed, "status", answer->status, "summary", answer->result,
	                  "revoked", renewal->revoked);

	kt_cli_print_value(renewal->cli, stdout, value);
}

static json_t *request_body(struct kt_cli *cli, kt_ms timeout)
{
	json_t *names = json_array();

	for (int i = 0; i < cli->arg_count; i++) {
		(void)json_array_append_new(names, json_string(cli->args[i]));
	}
	return json_pack("{s:s,s:o,s:b,s:b,s:b,s:I}", "command", "renew", "names", names, "force", kt_cli_flag(cli, "force"), "now",
	                 kt_cli_flag(cli, "now"), "wait", !kt_cli_flag(cli, "no-wait"), "timeout", (json_int_t)timeout);
}

int kt_cli_follow(struct kt_cli *cli, json_t *body)
{
	struct renewal renewal = {.cli = cli, .started = kt_clock_mono(&kt_clock_system)};
	struct kt_request request = {
	        .mode = KT_MODE_ONESHOT, .row = on_row, .event = on_event, .tick = on_tick, .arg = &renewal};
	const char *command = kt_json_str(body, "command");
	struct kt_answer answer;
	int status;

	request.needs_manifests = command != NULL && strcmp(command, "renew") == 0;
	renewal.said = renewal.started;
	renewal.seen = json_object();
	renewal.failed = cli->format >= KT_FORMAT_JSON ? json_array() : NULL;
	request.body = body;
	kt_client_call(cli, &request, &answer);
	clear_bar(&renewal);
	if (answer.code == KT_OK && cli->format >= KT_FORMAT_JSON) {
		print_value(&renewal, &answer);
	} else if (answer.code == KT_OK && answer.what == NULL) {
		close_line(&renewal, &answer);
	}
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	json_decref(renewal.seen);
	json_decref(renewal.failed);
	json_decref(renewal.revoked);
	return status;
}

int kt_cli_renew(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = NULL;
	kt_ms timeout = 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_cli_duration(cli, "timeout", &timeout, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	body = request_body(cli, timeout);
	return kt_cli_follow(cli, body);
}
