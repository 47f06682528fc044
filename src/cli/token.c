/* keyturn token: a valid token on standard output. */
#include "cli/cli.h"

#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/text.h"

const struct kt_cli_option kt_cli_token_options[] = {
        {"dpop", 0, "METHOD", "header lines for one call of this method to URL: the token and a fresh DPoP proof"},
        {"nonce", 0, "NONCE", "with --dpop: the DPoP-Nonce that the server gave"},
        {"format", 0, "FORMAT", "raw (default), header, json, curl, env, envoy, flex or aws-web-identity"},
        {"invalidate", 0, NULL, "its server refused it (401): have another one minted, once"},
        {"sha256", 0, "HEX", "with --invalidate: SHA-256 of the refused one, so that a newer one stays"},
        {"timeout", 0, "D", "with --invalidate: wait no longer than this (default 1m)"},
        {NULL, 0, NULL, NULL},
};

/* The keeper writes them, as it writes the files of a secret volume. */
static const char *const formats[] = {"raw", "header", "json", "curl", "env", "envoy", "flex", "aws-web-identity", NULL};

static const char *format_of(const struct kt_cli *cli)
{
	const char *text = kt_cli_value(cli, "format");

	if (text == NULL) {
		return cli->format == KT_FORMAT_JSON ? "json" : "raw";
	}
	for (int i = 0; formats[i] != NULL; i++) {
		if (strcmp(text, formats[i]) == 0) {
			return formats[i];
		}
	}
	return NULL;
}

int kt_cli_token(struct kt_cli *cli)
{
	const char *format = format_of(cli);
	json_t *body KT_AUTOJSON = NULL;
	struct kt_answer answer;
	const char *token;
	struct kt_view text;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_flag(cli, "invalidate")) {
		return kt_cli_invalidate(cli);
	}
	if (format == NULL) {
		kt_cli_complain("--format takes raw, header, json, curl, env, envoy, flex or aws-web-identity, not '%s'",
		                kt_cli_value(cli, "format"));
		return KT_EXIT_USAGE;
	}
	if ((kt_cli_value(cli, "dpop") != NULL) != (cli->arg_count > 1) ||
	    (kt_cli_value(cli, "nonce") != NULL && kt_cli_value(cli, "dpop") == NULL)) {
		kt_cli_complain("a URL is given with --dpop METHOD, and --nonce with both: keyturn token NAME --dpop GET URL");
		return KT_EXIT_USAGE;
	}
	body = json_pack("{s:s,s:s,s:s}", "command", "token", "name", cli->args[0], "format", format);
	if (cli->arg_count > 1) {
		(void)json_object_set_new(body, "method", json_string(kt_cli_value(cli, "dpop")));
		(void)json_object_set_new(body, "url", json_string(cli->args[1]));
		if (kt_cli_value(cli, "nonce") != NULL) {
			(void)json_object_set_new(body, "nonce", json_string(kt_cli_value(cli, "nonce")));
		}
	}
	status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);
	token = kt_json_str(answer.result, "text");
	if (token != NULL) {
		text = kt_view_str(token);
		if (kt_io_write_all(STDOUT_FILENO, text.ptr, text.len, "standard output", &err) != KT_OK) {
			status = kt_cli_fail(&err);
		} else if (cli->out_tty && !kt_ends_with(token, "\n")) {
			/* Only for people: where a program reads it there is none, as in the volume's files. */
			(void)kt_io_write_all(STDOUT_FILENO, "\n", 1, "standard output", NULL);
		}
	}
	kt_answer_finish(&answer);
	return status;
}
