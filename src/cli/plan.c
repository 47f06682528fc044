/* keyturn plan and keyturn why: what would be done, when, and the reason; both touch nothing. */
#include "cli/cli.h"

#include <string.h>

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

static void on_row(const json_t *row, void *arg)
{
	kt_listing_row(arg, row);
}

/* Where nothing was ever done the manifests say what is to come: everything is issued now. */
static void on_resource(const struct kt_resource *resource, void *arg)
{
	json_t *row KT_AUTOJSON = NULL;

	if (resource->kind != KT_RES_CERTIFICATE && resource->kind != KT_RES_TOKEN) {
		return;
	}
	row = json_pack("{s:s,s:s,s:s,s:s,s:s,s:n,s:n,s:n,s:s,s:b}", "namespace", resource->meta.ns, "name",
	                resource->meta.name, "kind", kt_kind_name(resource->kind), "action", "issue", "reason",
	                "never-issued", "at", "renewAt", "notAfter", "text", "there is no state yet: it is issued at once",
	                "alarm", 0);
	if (row != NULL) {
		kt_listing_row(arg, row);
	}
}

static int plan_manifests(struct kt_cli *cli, struct kt_listing *listing)
{
	struct kt_check check;
	struct kt_err err;
	int status = KT_EXIT_OK;

	kt_err_clear(&err);
	if (kt_check_manifests(cli->manifests, cli->manifest_count, true, cli->manifests_default, on_resource, listing, &check,
	                       &err) != KT_OK) {
		status = kt_cli_fail(&err);
	} else if (check.report.errors > 0) {
		kt_check_print(&check, false);
		status = KT_EXIT_USAGE;
	} else {
		(void)kt_listing_end(listing, NULL);
	}
	kt_check_finish(&check);
	return status;
}

int kt_cli_plan(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "plan");
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .row = on_row};
	struct kt_listing *listing = NULL;
	struct kt_answer answer;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_listing_create(cli, stdout, "plan", columns, NULL, &listing, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	request.arg = listing;
	kt_client_call(cli, &request, &answer);
	if (answer.code == KT_E_NOTFOUND) {
		status = plan_manifests(cli, listing);
	} else {
		status = kt_answer_report(&answer);
		if (answer.code == KT_OK && answer.what == NULL && answer.result != NULL &&
		    kt_listing_end(listing, answer.result) == 0 && cli->format <= KT_FORMAT_WIDE && !cli->quiet) {
			(void)puts("nothing to plan: the state holds no Certificate and no Token");
		}
	}
	kt_answer_finish(&answer);
	kt_listing_destroy(listing);
	return status;
}

/* --- why ------------------------------------------------------------------------------------------------------------ */

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
	sentence_time(cli, "It ends ", kt_json_str(row, "notAfter"), ".");
	sentence_time(cli, "It is renewed ", kt_json_str(plan, "renewAt"), ".");
	if (error != NULL) {
		(void)printf("The last attempt failed at step %s (%lld in a row): ", kt_json_str(row, "step"),
		             (long long)kt_json_int(row, "attempts", 0));
		kt_cli_print(stdout, error);
		(void)fputc('\n', stdout);
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
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_READONLY, &answer);

	if (answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (answer.result != NULL) {
		explain(cli, answer.result);
	}
	kt_answer_finish(&answer);
	return status;
}
