/* keyturn plan and keyturn why: what would be done, when, and the reason; both touch nothing. */
#include "cli/cli.h"

#include <string.h>
#include <unistd.h>

#include "kt/text.h"

/* --- plan ----------------------------------------------------------------------------------------------------------- */

static void cell_name(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *ns = kt_json_str(row, "namespace");

	(void)cli;
	if (ns != NULL && strcmp(ns, "default") != 0) {
		kt_buf_addf(out, "%s/", ns);
	}
	kt_buf_addf(out, "%s", kt_json_str(row, "name"));
}

static void cell_at(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *action = kt_json_str(row, "action");
	const char *key = action != NULL && strcmp(action, "wait") == 0 ? "renewAt" : "at";
	const char *text = kt_json_str(row, key);
	kt_ms at;

	if (action != NULL && strcmp(action, "none") == 0) {
		kt_buf_adds(out, "never");
	} else if (text == NULL && strcmp(key, "renewAt") == 0) {
		kt_cli_when(cli, kt_json_str(row, "at"), out);
	} else if (text == NULL || (kt_time_parse(kt_view_str(text), &at, NULL) == KT_OK && at <= cli->now)) {
		kt_buf_adds(out, "now");
	} else {
		kt_cli_when(cli, text, out);
	}
}

static void cell_until(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	kt_cli_when(cli, kt_json_str(row, "notAfter"), out);
}

static const struct kt_column columns[] = {
        {"NAME", NULL, cell_name, 0},
        {"KIND", "kind", NULL, 0},
        {"ACTION", "action", NULL, 0},
        {"WHEN", NULL, cell_at, 0},
        {"REASON", "reason", NULL, 0},
        {"ENDS", NULL, cell_until, KT_COLUMN_WIDE},
        {"ALARM", "alarm", NULL, KT_COLUMN_WIDE},
        {"MORE", "text", NULL, KT_COLUMN_TRUNC},
        {NULL, NULL, NULL, 0},
};

static void cell_manifest(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *manifest = kt_json_str(row, "manifest");
	const char *changes = kt_json_str(row, "changes");

	(void)cli;
	if (manifest != NULL) {
		kt_buf_addf(out, "%s%s%s", manifest, changes != NULL ? ": " : "", changes != NULL ? changes : "");
	}
}

/* With the manifests on disk: what is not in force yet. */
static const struct kt_column draft_columns[] = {
        {"NAME", NULL, cell_name, 0},
        {"KIND", "kind", NULL, 0},
        {"ACTION", "action", NULL, 0},
        {"WHEN", NULL, cell_at, 0},
        {"REASON", "reason", NULL, 0},
        {"MANIFEST", NULL, cell_manifest, 0},
        {"ENDS", NULL, cell_until, KT_COLUMN_WIDE},
        {"ALARM", "alarm", NULL, KT_COLUMN_WIDE},
        {"MORE", "text", NULL, KT_COLUMN_TRUNC},
        {NULL, NULL, NULL, 0},
};

/* A line for each CA whose limits are known, and for each issuer that does not fare well. */
static void print_issuers(const json_t *result)
{
	const json_t *row;
	size_t i;

	json_array_foreach(json_object_get(result, "budgets"), i, row)
	{
		(void)printf("%s: ", kt_json_str(row, "issuer"));
		kt_cli_print(stdout, kt_json_str(row, "text"));
		(void)printf("; %lld left\n", (long long)kt_json_int(row, "left", 0));
	}
	json_array_foreach(json_object_get(result, "issuers"), i, row)
	{
		const char *retry = kt_json_str(row, "retryAt");

		if (kt_json_int(row, "failures", 0) > 0) {
			(void)printf("%s is %s after %lld failure%s in a row%s%s: ", kt_json_str(row, "issuer"),
			             kt_json_str(row, "state"), (long long)kt_json_int(row, "failures", 0),
			             kt_json_int(row, "failures", 0) == 1 ? "" : "s",
			             retry != NULL ? ", tried again at " : "", retry != NULL ? retry : "");
			kt_cli_print(stdout, kt_json_str(row, "lastError"));
			(void)fputc('\n', stdout);
		}
	}
}

int kt_cli_plan(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "plan");
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .stateless = true};
	struct kt_answer answer;
	int status = kt_check_bundle(cli, &request.bundle);
	uint64_t rows;

	if (status != KT_EXIT_OK) {
		return status;
	}
	rows = kt_client_list(cli, &request, "plan", request.bundle > 0 ? draft_columns : columns, NULL, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK && rows == 0 && cli->format <= KT_FORMAT_WIDE && !cli->quiet) {
		(void)puts("nothing to plan: there is no Certificate, Token, ClientCredential or Watch");
	}
	if (answer.result != NULL && cli->format <= KT_FORMAT_WIDE && !cli->quiet) {
		print_issuers(answer.result);
	}
	kt_answer_finish(&answer);
	if (request.bundle > 0) {
		close(request.bundle);
	}
	return status;
}

/* --- why ------------------------------------------------------------------------------------------------------------ */

static void sentence_mend(const char *before, const json_t *row)
{
	const char *mend = kt_json_str(row, "mend");

	if (mend != NULL) {
		(void)fputs(before, stdout);
		kt_cli_print(stdout, mend);
		(void)fputc('\n', stdout);
	}
}

static void sentence_consumer(const struct kt_cli *cli, const json_t *consumer)
{
	const char *state = kt_json_str(consumer, "state");
	const char *error = kt_json_str(consumer, "lastError");
	const char *seen = kt_json_str(consumer, "seen");
	const char *expected = kt_json_str(consumer, "expected");

	(void)printf("Consumer ");
	kt_cli_print(stdout, kt_json_str(consumer, "name"));
	if (state != NULL && strcmp(state, "proved") == 0) {
		(void)printf(" is %sproved%s to use it", kt_cli_color(cli, state), kt_cli_plain(cli));
	} else if (state != NULL && strcmp(state, "delivered") == 0) {
		(void)printf(" has it; it names no proof");
	} else if (state != NULL && strcmp(state, "uploaded") == 0) {
		(void)printf(" has uploaded it and read it back; it names no proof that it is in use");
	} else if (kt_json_str(consumer, "waitsFor") != NULL) {
		(void)printf(" has the files and waits for its %s, until %s", kt_json_str(consumer, "waitsFor"),
		             kt_json_str(consumer, "nextTry") != NULL ? kt_json_str(consumer, "nextTry") : "it opens");
	} else {
		(void)printf(" is %snot proved%s to use it (%s, %lld attempts)", kt_cli_color(cli, "not proved"),
		             kt_cli_plain(cli), state != NULL ? state : "?",
		             (long long)kt_json_int(consumer, "attempts", 0));
	}
	(void)puts(".");
	if (seen != NULL) {
		(void)printf("  seen:     ");
		kt_cli_print(stdout, seen);
		(void)fputc('\n', stdout);
	}
	if (expected != NULL) {
		(void)printf("  expected: ");
		kt_cli_print(stdout, expected);
		(void)fputc('\n', stdout);
	}
	if (error != NULL) {
		(void)printf("  because:  ");
		kt_cli_print(stdout, error);
		(void)fputc('\n', stdout);
	}
	sentence_mend("  do:       ", consumer);
}

static void sentence_time(const struct kt_cli *cli, const char *before, const char *rfc3339, const char *after)
{
	struct kt_buf text KT_AUTOBUF = {0};

	if (rfc3339 == NULL) {
		return;
	}
	kt_buf_init(&text, 128);
	kt_cli_when(cli, rfc3339, &text);
	(void)printf("%s%s%s\n", before, text.ptr != NULL ? text.ptr : rfc3339, after);
}

/* What differs between the manifests on disk and those in force. */
static void sentence_manifest(const json_t *plan)
{
	const char *manifest = kt_json_str(plan, "manifest");
	const char *changes = kt_json_str(plan, "changes");

	if (manifest == NULL) {
		return;
	}
	if (strcmp(manifest, "affected") == 0) {
		(void)printf("Its manifest is in force, but on disk ");
		kt_cli_print(stdout, changes);
		(void)printf(" has changed");
	} else {
		(void)printf("Its manifest on disk is %s", manifest);
		if (changes != NULL) {
			(void)printf(" (");
			kt_cli_print(stdout, changes);
			(void)printf(")");
		}
	}
	(void)puts(": the plan is what loading it would do. 'keyturn reload' or 'keyturn renew' does.");
}

/* The explanation is the CA's: shown, never opened. */
static void sentence_window(const struct kt_cli *cli, const json_t *info)
{
	const char *start = kt_json_str(info, "start"), *end = kt_json_str(info, "end");

	if (start == NULL || end == NULL) {
		return;
	}
	(void)printf("Its CA suggests renewal between %s and %s%s", start, end,
	             kt_json_bool(info, "followed", false) ? "" : ", which is not believed");
	if (kt_json_str(info, "explanation") != NULL) {
		(void)fputs("; it explains that at ", stdout);
		kt_cli_print(stdout, kt_json_str(info, "explanation"));
	}
	(void)puts(".");
	sentence_time(cli, "It is asked again ", kt_json_str(info, "nextCheck"), ".");
}

static void explain(const struct kt_cli *cli, const json_t *row)
{
	const json_t *plan = json_object_get(row, "plan");
	const json_t *manifest = json_object_get(row, "manifest");
	const char *error = kt_json_str(row, "lastError");
	const char *state = kt_json_str(row, "state");
	const char *action = kt_json_str(plan, "action");
	json_t *consumer;
	size_t i;

	(void)printf("%s/%s/%s is %s%s%s", kt_json_str(row, "kind"), kt_json_str(row, "namespace"), kt_json_str(row, "name"),
	             kt_cli_color(cli, state), state != NULL ? state : "?", kt_cli_plain(cli));
	if (kt_json_str(manifest, "file") != NULL) {
		(void)printf(" (");
		kt_cli_print(stdout, kt_json_str(manifest, "file"));
		(void)printf(":%lld)", (long long)kt_json_int(manifest, "line", 0));
	}
	(void)puts(".");
	if (action != NULL) {
		(void)printf("Plan: %s, because of %s", action, kt_json_str(plan, "reason"));
		if (kt_json_str(plan, "text") != NULL && kt_json_str(plan, "text")[0] != '\0') {
			(void)fputs(": ", stdout);
			kt_cli_print(stdout, kt_json_str(plan, "text"));
		}
		(void)puts(".");
	}
	sentence_manifest(plan);
	if (kt_json_str(row, "issuedBy") != NULL) {
		(void)printf("It was issued by %s.\n", kt_json_str(row, "issuedBy"));
	}
	if (kt_json_bool(row, "certificateRevoked", false)) {
		(void)puts("It was revoked: 'keyturn renew --force' puts another one in its place, where that is not planned.");
	}
	sentence_time(cli, "It ends ", kt_json_str(row, "notAfter"), ".");
	sentence_time(cli, "It is renewed ", kt_json_str(plan, "renewAt"), ".");
	sentence_window(cli, json_object_get(plan, "renewalInfo"));
	if (error != NULL) {
		(void)printf("The last attempt failed at step %s (%lld in a row): ", kt_json_str(row, "step"),
		             (long long)kt_json_int(row, "attempts", 0));
		kt_cli_print(stdout, error);
		(void)fputc('\n', stdout);
		sentence_mend("What to do: ", row);
		sentence_time(cli, "The next attempt is ", kt_json_str(row, "nextTry"), ".");
	}
	json_array_foreach(json_object_get(row, "consumers"), i, consumer)
	{
		sentence_consumer(cli, consumer);
	}
	if (kt_json_str(row, "traceId") != NULL && kt_json_str(row, "traceId")[0] != '\0') {
		(void)printf("'keyturn trace %s' shows every step.\n", kt_json_str(row, "traceId"));
	}
}

int kt_cli_why(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s}", "command", "why", "name", cli->args[0]);
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .stateless = true};
	struct kt_answer answer;
	int status = kt_check_bundle(cli, &request.bundle);

	if (status != KT_EXIT_OK) {
		request.mode = KT_MODE_DAEMON; /* an agent has others in force; there is no room without one */
	}
	kt_client_call(cli, &request, &answer);
	if (status != KT_EXIT_OK && answer.code == KT_E_NOTFOUND && answer.status == KT_EXIT_NO_AGENT) {
		kt_answer_finish(&answer);
		return status;
	}
	if (status != KT_EXIT_OK) {
		kt_cli_complain("the manifests on disk can't be loaded; this is why with those in force");
	}
	if (request.bundle > 0) {
		close(request.bundle);
	}
	status = kt_cli_worse(status, kt_answer_report(&answer));

	if (answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (answer.result != NULL) {
		explain(cli, answer.result);
	}
	kt_answer_finish(&answer);
	return status;
}
