/* keyturn audit: what was done, by whom, and how it ended; also while it happens. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT_MAX     1000000u
#define LIMIT_DEFAULT 50u

const struct kt_cli_option kt_cli_audit_options[] = {
        {"verify", 0, NULL, "walk the whole chain: exit status 1 when a record was changed, is missing or reordered"},
        {"since", 0, "WHEN", "records from then on: a time (2026-11-23T09:00:00Z) or a duration back (24h)"},
        {"number", 'n', "N", "so many: the last 50 without --since, all with it"},
        {"resource", 'r', "NAME", "only of this resource: NAME, namespace/NAME or Kind/namespace/NAME"},
        {"trace", 't', "ID", "only of this trace"},
        {"follow", 'f', NULL, "then wait for more, until interrupted; needs an agent"},
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

void kt_cli_audit_what(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
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
        {"WHAT", NULL, kt_cli_audit_what, KT_COLUMN_TRUNC},             {NULL, NULL, NULL, 0},
};

static void keep(const json_t *row, void *arg)
{
	(void)json_array_append(arg, (json_t *)row);
}

int kt_cli_audit_list(struct kt_cli *cli, json_t *rows, bool backwards)
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

/* --- following along ---------------------------------------------------------------------------------------------------- */

static void print_line(const struct kt_cli *cli, const json_t *row)
{
	const char *consumer = kt_json_str(row, "consumer");
	const char *outcome = kt_json_str(row, "outcome");
	const char *resource = kt_json_str(row, "resource");
	struct kt_buf what KT_AUTOBUF = {0};

	kt_buf_init(&what, 16384);
	kt_cli_audit_what(cli, row, &what);
	kt_cli_print(stdout, kt_json_str(row, "time"));
	(void)fputs("  ", stdout);
	kt_cli_print(stdout, resource != NULL ? resource : "-");
	(void)printf("  %s%s%s  %s", kt_cli_color(cli, outcome), kt_json_str(row, "step"), kt_cli_plain(cli),
	             outcome != NULL ? outcome : "-");
	if (consumer != NULL) {
		(void)fputs("  ", stdout);
		kt_cli_print(stdout, consumer);
	}
	if (what.len > 0) {
		(void)fputs("  ", stdout);
		kt_cli_print(stdout, what.ptr);
	}
	(void)fputc('\n', stdout);
}

struct following {
	struct kt_cli *cli;
	json_t *body;
};

/* One record, one line, at once; a reader that is gone ends us. */
static void show_now(const json_t *row, void *arg)
{
	struct following *following = arg;

	if (following->cli->format == KT_FORMAT_JSON) {
		(void)json_dumpf(row, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
	} else if (following->cli->format == KT_FORMAT_YAML) {
		(void)fputs("---\n", stdout);
		kt_cli_yaml(stdout, row, 0);
	} else {
		print_line(following->cli, row);
	}
	if (fflush(stdout) != 0) {
		exit(KT_EXIT_FAILED);
	}
	(void)json_object_set_new(following->body, "after", json_integer((json_int_t)kt_json_int(row, "seq", 0)));
}

/* What was there has been shown up to record `last`. */
static int follow(struct kt_cli *cli, json_t *body)
{
	struct following following = {cli, body};
	struct kt_request request = {
	        .body = body, .mode = KT_MODE_DAEMON, .resumes = true, .row = show_now, .arg = &following};
	struct kt_answer answer;
	int status;

	(void)json_object_set_new(body, "follow", json_true());
	(void)json_object_del(body, "limit");
	(void)json_object_del(body, "newestFirst");
	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	return status;
}

/* --- the command --------------------------------------------------------------------------------------------------------- */

static enum kt_code filters(const struct kt_cli *cli, json_t *body, struct kt_err *err)
{
	const char *trace = kt_cli_value(cli, "trace");
	const char *resource = kt_cli_value(cli, "resource");
	char text[32];

	if (trace != NULL && (strlen(trace) != 32 || strspn(trace, "0123456789abcdef") != 32)) {
		return kt_err_set(err, KT_E_INVALID, "--trace takes 32 lower-case hex digits, not '%s'", trace);
	}
	if (kt_cli_flag(cli, "since")) {
		if (since_text(cli, text, err) != KT_OK) {
			return err->code;
		}
		(void)json_object_set_new(body, "since", json_string(text));
	}
	if (trace != NULL) {
		(void)json_object_set_new(body, "traceId", json_string(trace));
	}
	if (resource != NULL) {
		(void)json_object_set_new(body, "resource", json_string(resource));
	}
	return KT_OK;
}

/* What is there; with --follow, shown as what comes will be. */
static int show_past(struct kt_cli *cli, json_t *body, bool backwards, bool lines)
{
	json_t *rows KT_AUTOJSON = json_array();
	struct kt_request request = {
	        .body = body, .mode = lines ? KT_MODE_DAEMON : KT_MODE_READONLY, .row = keep, .arg = rows};
	struct kt_answer answer;
	int status;

	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK && !lines) {
		status = kt_cli_audit_list(cli, rows, backwards);
	} else if (status == KT_EXIT_OK) {
		struct following following = {cli, body};
		size_t count = json_array_size(rows);

		(void)json_object_set_new(body, "after", json_integer((json_int_t)kt_json_int(answer.result, "head", 0)));
		for (size_t i = 0; i < count; i++) {
			show_now(json_array_get(rows, backwards ? count - 1 - i : i), &following);
		}
	}
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_audit(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "audit");
	bool backwards = !kt_cli_flag(cli, "since") || kt_cli_flag(cli, "number");
	bool lines = kt_cli_flag(cli, "follow");
	uint64_t limit = backwards ? LIMIT_DEFAULT : LIMIT_MAX;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_flag(cli, "verify")) {
		return verify(cli);
	}
	if (kt_cli_number(cli, "number", LIMIT_MAX, &limit, &err) != KT_OK || filters(cli, body, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	(void)json_object_set_new(body, "limit", json_integer((json_int_t)limit));
	(void)json_object_set_new(body, "newestFirst", json_boolean(backwards));
	status = show_past(cli, body, backwards, lines);
	return status == KT_EXIT_OK && lines ? follow(cli, body) : status;
}
