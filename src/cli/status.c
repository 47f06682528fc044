/* keyturn status: every credential in a table, or one with the whole chain from issuer to proof. */
#include "cli/cli.h"

#include <string.h>

const struct kt_cli_option kt_cli_status_options[] = {
        {"fail-within", 0, "D", "exit status 1 when a credential ends within D (24h), by its own life where that is shorter"},
        {NULL, 0, NULL, NULL},
};

/* --- the table ------------------------------------------------------------------------------------------------------ */

static void cell_name(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *ns = kt_json_str(row, "namespace");
	const char *name = kt_json_str(row, "name");

	(void)cli;
	if (ns != NULL && strcmp(ns, "default") != 0) {
		kt_buf_addf(out, "%s/", ns);
	}
	kt_buf_adds(out, name != NULL ? name : "?");
}

static void cell_until(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	kt_cli_when(cli, kt_json_str(row, "notAfter"), out);
}

static void cell_due(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *next = kt_json_str(row, "nextTry");

	if (next == NULL) {
		next = kt_json_str(row, "renewAt");
	}
	kt_cli_relative(cli, next != NULL ? next : kt_json_str(row, "due"), out);
}

static void cell_consumers(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	json_t *consumers = json_object_get(row, "consumers");
	json_t *consumer;
	unsigned proved = 0;
	size_t i;

	(void)cli;
	json_array_foreach(consumers, i, consumer)
	{
		const char *state = kt_json_str(consumer, "state");

		proved += state != NULL && strcmp(state, "proved") == 0;
	}
	if (json_array_size(consumers) > 0) {
		kt_buf_addf(out, "%u/%zu", proved, json_array_size(consumers));
	}
}

static void cell_id(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *serial = kt_json_str(row, "serial");
	const char *token = kt_json_str(row, "tokenId");

	(void)cli;
	kt_buf_adds(out, serial != NULL ? serial : token != NULL ? token : "-");
}

static const struct kt_column columns[] = {
        {"NAME", NULL, cell_name, 0},
        {"KIND", "kind", NULL, 0},
        {"STATE", "state", NULL, 0},
        {"ENDS", NULL, cell_until, 0},
        {"NEXT", NULL, cell_due, 0},
        {"PROVED", NULL, cell_consumers, KT_COLUMN_RIGHT},
        {"ROTATIONS", "rotations", NULL, KT_COLUMN_RIGHT},
        {"SECRET", "secretName", NULL, KT_COLUMN_WIDE},
        {"ISSUER", "issuer", NULL, KT_COLUMN_WIDE},
        {"STEP", "step", NULL, KT_COLUMN_WIDE},
        {"SERIAL OR ID", NULL, cell_id, KT_COLUMN_WIDE},
        {"TRACE", "traceId", NULL, KT_COLUMN_WIDE},
        {"ERROR", "lastError", NULL, KT_COLUMN_TRUNC},
        {NULL, NULL, NULL, 0},
};

/* On standard error, so that a table or JSON stays whole. */
static void say_soon(const struct kt_cli *cli, const json_t *row)
{
	const char *ns = kt_json_str(row, "namespace"), *error = kt_json_str(row, "lastError");
	struct kt_buf text KT_AUTOBUF = {0};

	kt_buf_init(&text, 4096);
	kt_buf_addf(&text, "%s/%s/%s: ", kt_json_str(row, "kind"), ns != NULL ? ns : "default", kt_json_str(row, "name"));
	if (kt_json_str(row, "notAfter") != NULL) {
		kt_buf_adds(&text, "ends ");
		kt_cli_when(cli, kt_json_str(row, "notAfter"), &text);
	} else {
		kt_buf_adds(&text, "there is none in force");
	}
	kt_buf_addf(&text, " and is not renewed yet%s%s", error != NULL ? ": " : "", error != NULL ? error : "");
	kt_cli_complain("%s", text.ptr != NULL ? text.ptr : "?");
}

static void say_all_soon(const struct kt_cli *cli, const json_t *summary)
{
	const json_t *named = json_object_get(summary, "endsSoon");
	uint64_t count = (uint64_t)kt_json_int(summary, "expiring", 0);
	const json_t *row;
	size_t i;

	json_array_foreach(named, i, row)
	{
		say_soon(cli, row);
	}
	if (count > json_array_size(named)) {
		kt_cli_complain("and %llu more end within %s", (unsigned long long)(count - json_array_size(named)),
		                kt_cli_value(cli, "fail-within"));
	}
}

static int status_all(struct kt_cli *cli, kt_ms within)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:I}", "command", "status", "within", (json_int_t)within);
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY};
	struct kt_answer answer;
	uint64_t rows = 0;
	int status;

	if (cli->quiet && within > 0) {
		kt_client_call(cli, &request, &answer); /* for monitoring: the exit status says it */
	} else {
		rows = kt_client_list(cli, &request, "credentials", columns, "state", &answer);
	}
	if (answer.code == KT_OK && answer.what == NULL && answer.result != NULL) {
		if (rows == 0 && cli->format <= KT_FORMAT_WIDE && !cli->quiet) {
			(void)puts("no Certificate, Token, ClientCredential or Watch: 'keyturn check' says what the manifests hold");
		}
		if (within > 0 && !cli->quiet) {
			say_all_soon(cli, answer.result);
		}
	}
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	return status;
}

/* --- one, with its chain -------------------------------------------------------------------------------------------- */

static void line(const char *label, const char *text)
{
	(void)printf("%-10s ", label);
	kt_cli_print(stdout, text != NULL ? text : "-");
	(void)fputc('\n', stdout);
}

static void line_time(const struct kt_cli *cli, const char *label, const char *before, const json_t *row, const char *key)
{
	struct kt_buf text KT_AUTOBUF = {0};

	kt_buf_init(&text, 256);
	kt_buf_adds(&text, before);
	kt_cli_when(cli, kt_json_str(row, key), &text);
	line(label, text.ptr);
}

static void show_consumer(const struct kt_cli *cli, const json_t *consumer)
{
	const char *state = kt_json_str(consumer, "state");
	const char *error = kt_json_str(consumer, "lastError");
	const char *seen = kt_json_str(consumer, "seen");
	const char *expected = kt_json_str(consumer, "expected");

	(void)printf("%-10s ", "consumer");
	kt_cli_print(stdout, kt_json_str(consumer, "name"));
	(void)printf(": %s%s%s", kt_cli_color(cli, state), state != NULL ? state : "?", kt_cli_plain(cli));
	if (kt_json_str(consumer, "waitsFor") != NULL) {
		(void)printf(", waits for its %s", kt_json_str(consumer, "waitsFor"));
	}
	(void)printf(" after %lld attempt(s)\n", (long long)kt_json_int(consumer, "attempts", 0));
	if (error != NULL) {
		line("", error);
	}
	if (kt_json_str(consumer, "mend") != NULL) {
		line("  do", kt_json_str(consumer, "mend"));
	}
	if (seen != NULL) {
		line("  seen", seen);
	}
	if (expected != NULL && (seen == NULL || strcmp(seen, expected) != 0)) {
		line("  expected", expected);
	}
	if (kt_json_str(consumer, "nextTry") != NULL) {
		line_time(cli, "", "next try ", consumer, "nextTry");
	}
}

/* What is watched is not ours: where it is seen, and what was seen. */
static void show_watched(const struct kt_cli *cli, const json_t *row)
{
	line("source", kt_json_str(row, "source"));
	if (kt_json_str(row, "readAt") != NULL) {
		line_time(cli, "read", "", row, "readAt");
		line("subject", kt_json_str(row, "subject"));
		line("serial", kt_json_str(row, "serial"));
		line("sha256", kt_json_str(row, "sha256"));
		line_time(cli, "valid", "from ", row, "notBefore");
		line_time(cli, "", "until ", row, "notAfter");
		line_time(cli, "warning", "from ", row, "warnAt");
	}
	if (!kt_json_bool(row, "hasCommand", false)) {
		line("renewal", "by nobody that is told here");
	} else if (kt_json_str(row, "ranAt") != NULL) {
		line_time(cli, "command", "last run ", row, "ranAt");
	}
}

static void show_material(const struct kt_cli *cli, const json_t *row)
{
	const char *serial = kt_json_str(row, "serial");
	const char *token = kt_json_str(row, "tokenId");

	if (kt_json_str(row, "source") != NULL) {
		show_watched(cli, row);
		return;
	}

	if (serial == NULL && token == NULL) {
		line("material", "none yet");
		return;
	}
	line(serial != NULL ? "serial" : "token id", serial != NULL ? serial : token);
	line("sha256", kt_json_str(row, "sha256"));
	line_time(cli, "valid", "from ", row, "notBefore");
	line_time(cli, "", "until ", row, "notAfter");
	line("volume", kt_json_str(row, "volume"));
	line("", kt_json_str(row, "generation"));
	line_time(cli, "delivered", "", row, "deliveredAt");
}

/* resource -> issuer -> order -> material -> volume -> consumer -> proof */
static void show(const struct kt_cli *cli, const json_t *row)
{
	const json_t *manifest = json_object_get(row, "manifest");
	const char *state = kt_json_str(row, "state");
	const char *error = kt_json_str(row, "lastError");
	json_t *consumer;
	size_t i;

	(void)printf("%s/%s/%s: %s%s%s\n", kt_json_str(row, "kind"), kt_json_str(row, "namespace"), kt_json_str(row, "name"),
	             kt_cli_color(cli, state), state != NULL ? state : "?", kt_cli_plain(cli));
	if (kt_json_str(manifest, "file") != NULL) {
		(void)printf("%-10s ", "manifest");
		kt_cli_print(stdout, kt_json_str(manifest, "file"));
		(void)printf(":%lld\n", (long long)kt_json_int(manifest, "line", 0));
	}
	if (kt_json_str(row, "source") == NULL) {
		line("issuer", kt_json_str(row, "issuer"));
	}
	if (kt_json_str(row, "orderURL") != NULL) {
		line("order", kt_json_str(row, "orderURL"));
	}
	line("step", kt_json_str(row, "step"));
	show_material(cli, row);
	json_array_foreach(json_object_get(row, "consumers"), i, consumer)
	{
		show_consumer(cli, consumer);
	}
	line("proof", kt_json_str(row, "proof"));
	if (kt_json_str(row, "provedAt") != NULL) {
		line_time(cli, "", "", row, "provedAt");
	}
	line_time(cli, "next", "", row, kt_json_str(row, "nextTry") != NULL   ? "nextTry"
	                                    : kt_json_str(row, "renewAt") != NULL ? "renewAt"
	                                                                          : "due");
	if (error != NULL) {
		line("error", error);
	}
	if (kt_json_str(row, "mend") != NULL) {
		line("do", kt_json_str(row, "mend"));
	}
	line("trace", kt_json_str(row, "traceId"));
}

static int status_one(struct kt_cli *cli, const char *name, kt_ms within)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s,s:I}", "command", "status", "name", name, "within", (json_int_t)within);
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_READONLY, &answer);

	if (answer.result != NULL && cli->quiet && within > 0) {
		kt_answer_finish(&answer);
		return status;
	}
	if (answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (answer.result != NULL) {
		show(cli, answer.result);
	}
	if (answer.result != NULL && kt_json_bool(answer.result, "endsSoon", false)) {
		say_soon(cli, answer.result);
	}
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_status(struct kt_cli *cli)
{
	kt_ms within = 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_cli_duration(cli, "fail-within", &within, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	return cli->arg_count > 0 ? status_one(cli, cli->args[0], within) : status_all(cli, within);
}
