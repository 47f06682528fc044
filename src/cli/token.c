/* keyturn token: a valid token on standard output. */
#include "cli/cli.h"

#include <string.h>
#include <unistd.h>

#include "kt/io.h"

const struct kt_cli_option kt_cli_token_options[] = {
        {"format", 0, "FORMAT", "raw (default), header or json"},
        {NULL, 0, NULL, NULL},
};

static const char *const formats[] = {"raw", "header", "json", NULL};

static int format_of(const struct kt_cli *cli)
{
	const char *text = kt_cli_value(cli, "format");

	if (text == NULL) {
		return cli->format == KT_FORMAT_JSON ? 2 : 0;
	}
	for (int i = 0; formats[i] != NULL; i++) {
		if (strcmp(text, formats[i]) == 0) {
			return i;
		}
	}
	return -1;
}

/* As token.json in a secret volume has it, where the keeper's answer knows it. */
static void as_json(const struct kt_cli *cli, const json_t *result, struct kt_buf *out)
{
	const char *ends = kt_json_str(result, "expiresAt");
	const char *scope = kt_json_str(result, "scope");
	json_t *value KT_AUTOJSON =
	        json_pack("{s:s,s:s}", "access_token", kt_json_str(result, "token"), "token_type", "Bearer");
	kt_ms at;

	if (ends != NULL && kt_time_parse(kt_view_str(ends), &at, NULL) == KT_OK) {
		(void)json_object_set_new(value, "expires_in", json_integer((at - cli->now) / KT_SECOND));
		(void)json_object_set_new(value, "expires_at", json_string(ends));
	}
	if (scope != NULL && scope[0] != '\0') {
		(void)json_object_set_new(value, "scope", json_string(scope));
	}
	(void)kt_json_dump(value, out, NULL);
}

int kt_cli_token(struct kt_cli *cli)
{
	int format = format_of(cli);
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s}", "command", "token", "name", cli->args[0]);
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_answer answer;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (format < 0) {
		kt_cli_complain("--format takes raw, header or json, not '%s'", kt_cli_value(cli, "format"));
		return KT_EXIT_USAGE;
	}
	status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);
	kt_buf_init(&text, 1024u * 1024u);
	if (kt_json_str(answer.result, "token") != NULL) {
		if (format == 2) {
			as_json(cli, answer.result, &text);
		} else {
			kt_buf_addf(&text, "%s%s", format == 1 ? "Authorization: Bearer " : "", kt_json_str(answer.result, "token"));
		}
		/* No newline where a program reads it, as in the volume's files. */
		if (cli->out_tty || format == 2) {
			kt_buf_addc(&text, '\n');
		}
		if (kt_buf_check(&text, "the token", &err) != KT_OK ||
		    kt_io_write_all(STDOUT_FILENO, text.ptr, text.len, "standard output", &err) != KT_OK) {
			status = kt_cli_fail(&err);
		}
	}
	kt_answer_finish(&answer);
	return status;
}
