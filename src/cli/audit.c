/* keyturn audit and keyturn trace: what was done, by whom, and how it ended. */
#include "cli/cli.h"

#include <string.h>

#define LIMIT_MAX     1000000u
#define LIMIT_DEFAULT 50u

const struct kt_cli_option kt_cli_audit_options[] = {
        {"verify", 0, NULL, "walk the whole chain: exit status 1 when a record was changed, is missing or reordered"},
        {"since", 0, "WHEN", "records from then on: a time (2026-11-23T09:00:00Z) or a duration back (24h)"},
        {"number", 'n', "N", "so many: the last 50 without --since, all with it"},
        {NULL, 0, NULL, NULL},
};

/* --- verify --------------------------------------------------------------------------------------------------------- */

static int verify(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "audit-verify");
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_READONLY, &answer);

	if (answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (answer.result != NULL && kt_json_bool(answer.result, "good", false)) {
		(void)printf("the chain is whole: %lld records, %lld to %lld\nhead %s\n",
		             (long long)kt_json_int(answer.result, "count", 0), (long long)kt_json_int(answer.result, "first", 0),
		             (long long)kt_json_int(answer.result, "last", 0), kt_json_str(answer.result, "head"));
	} else if (answer.result != NULL) {
		kt_cli_complain("the audit trail is not as it was written: %s (record %lld)",
		                kt_json_str(answer.result, "what"), (long long)kt_json_int(answer.result, "badSeq", 0));
	}
	kt_answer_finish(&answer);
	return status;
}

/* --- records -------------------------------------------------------------------------------------------------------- */

static void cell_time(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *time = kt_json_str(row, "time");

	(void)cli;
	kt_buf_adds(out, time != NULL ? time : "-");
}

static void cell_what(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	static const char *const keys[] = {"reason", "seen", "expected", "serial", "token_id"};
	static const char *const names[] = {"", "seen ", "expected ", "serial ", "token "};

	(void)cli;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *text = kt_json_str(row, keys[i]);

		if (text != NULL && text[0] != '\0') {
			kt_buf_addf(out, "%s%s%s", out->len > 0 ? "; " : "", names[i], text);
		}
	}
}

static const struct kt_column columns[] = {
        {"TIME", NULL, cell_time, 0},       {"RESOURCE", "resource", NULL, 0},
        {"STEP", "step", NULL, 0},          {"OUTCOME", "outcome", NULL, 0},
        {"CONSUMER", "consumer", NULL, 0},  {"ACTOR", "actor", NULL, KT_COLUMN_WIDE},
        {"SEQ", "seq", NULL, KT_COLUMN_WIDE | KT_COLUMN_RIGHT}, {"TRACE", "trace_id", NULL, KT_COLUMN_WIDE},
        {"WHAT", NULL, cell_what, KT_COLUMN_TRUNC},             {NULL, NULL, NULL, 0},
};

static void keep(const json_t *row, void *arg)
{
	(void)json_array_append(arg, (json_t *)row);
}

static int list(struct kt_cli *cli, json_t *rows, bool backwards)
{
	struct kt_listing *listing = NULL;
	size_t count = json_array_size(rows);
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_listing_create(cli, stdout, "records", columns, "outcome", &listing, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	for (size_t i = 0; i < count; i++) {
		kt_listing_row(listing, json_array_get(rows, backwards ? count - 1 - i : i));
	}
	(void)kt_listing_end(listing, NULL);
	kt_listing_destroy(listing);
	return KT_EXIT_OK;
}

/* "24h" is that long ago; anything else has to be a time. */
static enum kt_code since_text(const struct kt_cli *cli, char out[32], struct kt_err *err)
{
	const char *text = kt_cli_value(cli, "since");
	kt_ms at;

	if (kt_duration_parse(kt_view_str(text), &at, NULL) == KT_OK) {
		at = cli->now - at;
	} else if (kt_time_parse(kt_view_str(text), &at, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_INVALID, "--since takes a time such as 2026-11-23T09:00:00Z or a duration such as "
		                  "24h, not '%s'", text);
	}
	(void)kt_time_format_ms(at, out);
	return KT_OK;
}

int kt_cli_audit(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "audit");
	json_t *rows KT_AUTOJSON = json_array();
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .row = keep, .arg = rows};
	bool since = kt_cli_flag(cli, "since");
	uint64_t limit = since ? LIMIT_MAX : LIMIT_DEFAULT;
	struct kt_answer answer;
	struct kt_err err;
	char text[32];
	int status;

	kt_err_clear(&err);
	if (kt_cli_flag(cli, "verify")) {
		return verify(cli);
	}
	if (kt_cli_number(cli, "number", LIMIT_MAX, &limit, &err) != KT_OK ||
	    (since && since_text(cli, text, &err) != KT_OK)) {
		return kt_cli_fail(&err);
	}
	(void)json_object_set_new(body, "limit", json_integer((json_int_t)limit));
	(void)json_object_set_new(body, "newestFirst", json_boolean(!since));
	if (since) {
		(void)json_object_set_new(body, "since", json_string(text));
	}
	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK) {
		status = list(cli, rows, !since);
	}
	kt_answer_finish(&answer);
	return status;
}

/* --- trace ---------------------------------------------------------------------------------------------------------- */

/* One line of time: since the start, since the line before, what, how it ended. */
static void draw(const struct kt_cli *cli, json_t *rows)
{
	kt_ms first = 0;
	kt_ms before = 0;
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *time = kt_json_str(row, "time");
		const char *outcome = kt_json_str(row, "outcome");
		const char *consumer = kt_json_str(row, "consumer");
		struct kt_buf what KT_AUTOBUF = {0};
		char span[32];
		kt_ms at = before;

		kt_buf_init(&what, 8192);
		(void)kt_time_parse(kt_view_str(time), &at, NULL);
		if (i == 0) {
			first = at;
			(void)printf("%s  ", time);
			kt_cli_print(stdout, kt_json_str(row, "resource"));
			(void)fputc('\n', stdout);
		}
		(void)printf("%10s  %s%-12s%s %-10s ", kt_duration_format(at - first, span), kt_cli_color(cli, outcome),
		             kt_json_str(row, "step"), kt_cli_plain(cli), outcome != NULL ? outcome : "");
		if (consumer != NULL) {
			kt_cli_print(stdout, consumer);
			(void)fputs("  ", stdout);
		}
		cell_what(cli, row, &what);
		kt_cli_print(stdout, what.ptr);
		(void)fputc('\n', stdout);
		before = at;
	}
}

int kt_cli_trace(struct kt_cli *cli)
{
	const char *id = cli->args[0];
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s,s:i}", "command", "audit", "traceId", id, "limit", 10000);
	json_t *rows KT_AUTOJSON = json_array();
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .row = keep, .arg = rows};
	struct kt_answer answer;
	int status;

	if (strlen(id) != 32 || strspn(id, "0123456789abcdef") != 32) {
		kt_cli_complain("'%s' is not a trace id (32 lower-case hex digits): 'keyturn status -o wide' shows them", id);
		return KT_EXIT_USAGE;
	}
	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK && json_array_size(rows) == 0) {
		kt_cli_complain("there is no record of trace %s", id);
		status = KT_EXIT_USAGE;
	} else if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON) {
		status = list(cli, rows, false);
	} else if (status == KT_EXIT_OK) {
		draw(cli, rows);
	}
	kt_answer_finish(&answer);
	return status;
}
