/* Small commands about the agent as a whole: reload, quit, master-key rotate, rehearse, version. */
#include "cli/cli.h"

#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"

const struct kt_cli_option kt_cli_reload_options[] = {
        {"exec", 0, NULL, "also replace the agent's program by the one on disk, keeping its sockets"},
        {NULL, 0, NULL, NULL},
};
const struct kt_cli_option kt_cli_rehearse_options[] = {
        {"days", 0, "N", "how far (default 90)"},
        {NULL, 0, NULL, NULL},
};

int kt_cli_reload(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON =
	        json_pack("{s:s,s:b}", "command", "reload", "exec", kt_cli_flag(cli, "exec"));
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_DAEMON, &answer);

	if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON && answer.result != NULL) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (status == KT_EXIT_OK && !cli->quiet) {
		(void)puts("the new manifests are in force");
	}
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_quit(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "quit");
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_DAEMON, &answer);

	if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON && answer.result != NULL) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (status == KT_EXIT_OK && !cli->quiet) {
		(void)puts("the agent is ending");
	}
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_master_key(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "master-key-rotate");
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);

	if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON && answer.result != NULL) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (status == KT_EXIT_OK && !cli->quiet) {
		(void)printf("%lld secrets are sealed under a new master key\n",
		             (long long)kt_json_int(answer.result, "resealed", 0));
	}
	kt_answer_finish(&answer);
	return status;
}

/* --- rehearse ------------------------------------------------------------------------------------------------------- */

static void cell_at(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	kt_cli_when(cli, kt_json_str(row, "at"), out);
}

static const struct kt_column columns[] = {
        {"WHEN", NULL, cell_at, 0},      {"NAMESPACE", "namespace", NULL, KT_COLUMN_WIDE}, {"NAME", "name", NULL, 0},
        {"KIND", "kind", NULL, 0},       {"ACTION", "action", NULL, 0},                    {"REASON", "reason", NULL, 0},
        {NULL, NULL, NULL, 0},
};

static void on_row(const json_t *row, void *arg)
{
	(void)json_array_append(arg, (json_t *)row);
}

static int by_time(const void *a, const void *b)
{
	const json_t *const *x = a;
	const json_t *const *y = b;
	int order = strcmp(kt_json_str(*x, "at"), kt_json_str(*y, "at"));

	return order != 0 ? order : strcmp(kt_json_str(*x, "name"), kt_json_str(*y, "name"));
}

/* The keeper plays one credential after the other; people read a schedule in the order of time. */
static int show_schedule(struct kt_cli *cli, json_t *rows, const json_t *result)
{
	size_t count = json_array_size(rows);
	json_t **sorted = kt_calloc(count + 1, sizeof(*sorted));
	struct kt_listing *listing = NULL;
	struct kt_err err;
	int status = KT_EXIT_OK;

	kt_err_clear(&err);
	if (sorted == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for the schedule");
		return kt_cli_fail(&err);
	}
	for (size_t i = 0; i < count; i++) {
		sorted[i] = json_array_get(rows, i);
	}
	qsort(sorted, count, sizeof(*sorted), by_time);
	if (kt_listing_create(cli, stdout, "issuances", columns, NULL, &listing, &err) != KT_OK) {
		status = kt_cli_fail(&err);
	} else {
		for (size_t i = 0; i < count; i++) {
			kt_listing_row(listing, sorted[i]);
		}
		(void)kt_listing_end(listing, result);
	}
	kt_listing_destroy(listing);
	kt_free(sorted);
	return status;
}

static void rehearse_summary(const json_t *result, uint64_t days)
{
	const char *issuer;
	json_t *count;

	long long credentials = (long long)kt_json_int(result, "credentials", 0);

	(void)printf("%lld credential%s, %lld issuances in %llu days, at most %lld an hour; %lld would have expired\n",
	             credentials, credentials == 1 ? "" : "s", (long long)kt_json_int(result, "issuances", 0),
	             (unsigned long long)days, (long long)kt_json_int(result, "peakPerHour", 0),
	             (long long)kt_json_int(result, "expired", 0));
	json_object_foreach(json_object_get(result, "perIssuer"), issuer, count)
	{
		(void)fputs("  ", stdout);
		kt_cli_print(stdout, issuer);
		(void)printf(": %lld\n", (long long)json_integer_value(count));
	}
}

int kt_cli_rehearse(struct kt_cli *cli)
{
	struct kt_request request = {.mode = KT_MODE_READONLY, .stateless = true, .row = on_row};
	json_t *rows KT_AUTOJSON = json_array();
	struct kt_answer answer;
	uint64_t days = 90;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_number(cli, "days", 3650, &days, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	status = kt_check_bundle(cli, &request.bundle);
	if (status != KT_EXIT_OK) {
		return status;
	}
	request.body = json_pack("{s:s,s:I}", "command", "rehearse", "days", (json_int_t)days);
	request.arg = rows;
	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (answer.result != NULL) {
		status = kt_cli_worse(status, show_schedule(cli, rows, answer.result));
		if (cli->format <= KT_FORMAT_WIDE && !cli->quiet) {
			rehearse_summary(answer.result, days);
		}
	}
	kt_answer_finish(&answer);
	if (request.bundle > 0) {
		close(request.bundle);
	}
	json_decref(request.body);
	return status;
}

/* --- version -------------------------------------------------------------------------------------------------------- */

int kt_cli_version(struct kt_cli *cli)
{
	json_t *value KT_AUTOJSON = json_pack("{s:s}", "version", PACKAGE_VERSION);

	if (cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, value);
	} else {
		(void)puts(PACKAGE_NAME " " PACKAGE_VERSION);
	}
	return KT_EXIT_OK;
}
