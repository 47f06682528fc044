/* keyturn token NAME --invalidate: a token was refused by its server; another one is minted. */
#include "cli/cli.h"

#include <string.h>

struct invalidation {
	const struct kt_cli *cli;
	json_t *said;  /* what the keeper made of it */
	bool failed;
};

static void on_row(const json_t *row, void *arg)
{
	struct invalidation *it = arg;
	const char *error = kt_json_str(row, "lastError");
	json_t *said = json_object_get(row, "invalidated");

	if (said != NULL) {
		json_decref(it->said);
		it->said = json_deep_copy(said);
		return;
	}
	it->failed = true;
	kt_cli_complain("%s/%s/%s: %s", kt_json_str(row, "kind"), kt_json_str(row, "namespace"), kt_json_str(row, "name"),
	                error != NULL ? error : "no new token came in time");
}

static void print(const struct kt_cli *cli, const struct invalidation *it, bool minted)
{
	json_t *value KT_AUTOJSON = json_deep_copy(it->said);

	if (value != NULL && cli->format >= KT_FORMAT_JSON) {
		if (minted) {
			(void)json_object_set_new(value, "outcome", json_string("minted"));
			(void)json_object_set_new(value, "message", json_string("another token is in place"));
			(void)json_object_del(value, "sha256"); /* of the one before */
			(void)json_object_del(value, "mintedAt");
		}
		kt_cli_print_value(cli, stdout, value);
	} else if (value != NULL && !cli->quiet) {
		(void)puts(minted ? "another token is in place" : kt_json_str(value, "message"));
	}
}

int kt_cli_invalidate(struct kt_cli *cli)
{
	const char *sha256 = kt_cli_value(cli, "sha256");
	struct invalidation it = {.cli = cli};
	struct kt_request request = {.mode = KT_MODE_ONESHOT, .row = on_row, .arg = &it};
	json_t *body KT_AUTOJSON = NULL;
	struct kt_answer answer;
	kt_ms timeout = KT_MINUTE;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_duration(cli, "timeout", &timeout, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	body = json_pack("{s:s,s:s,s:s*,s:I}", "command", "invalidate", "name", cli->args[0], "sha256", sha256, "timeout",
	                 (json_int_t)timeout);
	request.body = body;
	kt_client_call(cli, &request, &answer);
	if (answer.code == KT_OK && answer.what == NULL) {
		bool waited = it.said != NULL;

		if (!waited && answer.result != NULL) {
			it.said = json_incref(answer.result);
		}
		print(cli, &it, waited && answer.status == KT_EXIT_OK && !it.failed);
	}
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	json_decref(it.said);
	return status;
}
