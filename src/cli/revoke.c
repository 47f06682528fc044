/* keyturn revoke: the CA is told that a certificate must not be trusted any more, and another one takes its place. */
#include "cli/cli.h"

const struct kt_cli_option kt_cli_revoke_options[] = {
        {"reason", 0, "REASON", "why, by RFC 5280: keyCompromise, superseded, cessationOfOperation, ... (default unspecified)"},
        {"by-key", 0, NULL, "by the certificate's own key instead of the account"},
        {"no-renew", 0, NULL, "put nothing in its place until that is asked for or its time comes"},
        {"timeout", 0, "D", "wait no longer than this for the successor (30s, 10m)"},
        {NULL, 0, NULL, NULL},
};

int kt_cli_revoke(struct kt_cli *cli)
{
	const char *reason = kt_cli_value(cli, "reason");
	bool renew = !kt_cli_flag(cli, "no-renew");
	json_t *body KT_AUTOJSON = NULL;
	struct kt_answer answer;
	kt_ms timeout = 0;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_duration(cli, "timeout", &timeout, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	body = json_pack("{s:s,s:[s],s:s*,s:b,s:b,s:I}", "command", "revoke", "names", cli->args[0], "reason", reason, "byKey",
	                 kt_cli_flag(cli, "by-key"), "renew", renew, "timeout", (json_int_t)timeout);
	if (renew) {
		return kt_cli_follow(cli, body);
	}
	status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);
	if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON && answer.result != NULL) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (status == KT_EXIT_OK && !cli->quiet) {
		(void)printf("revoked %s/%s/%s, serial %s (%s); it stays in place until it is renewed\n",
		             kt_json_str(answer.result, "kind"), kt_json_str(answer.result, "namespace"),
		             kt_json_str(answer.result, "name"), kt_json_str(answer.result, "serial"),
		             kt_json_str(answer.result, "reason"));
	}
	kt_answer_finish(&answer);
	return status;
}
