/* keyturn account: ACME accounts, shown as their server has them, and changed there. */
#include "cli/cli.h"

#include <string.h>

const struct kt_cli_option kt_cli_account_register_options[] = {
        {"new-key", 0, NULL, "a new account with a new key, also where there is one"},
        {NULL, 0, NULL, NULL},
};
const struct kt_cli_option kt_cli_account_update_options[] = {
        {"email", 0, "ADDRESS", "the contact; '' for none"},
        {NULL, 0, NULL, NULL},
};

/* What servers say is escaped. */
static void line(const char *label, const char *text)
{
	(void)printf("%-18s ", label);
	kt_cli_print(stdout, text != NULL && text[0] != '\0' ? text : "-");
	(void)fputc('\n', stdout);
}

static void texts(const char *label, const json_t *list)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item) {
		line(i == 0 ? label : "", json_string_value(item));
	}
	if (json_array_size(list) == 0) {
		line(label, NULL);
	}
}

static void show_account(const json_t *result)
{
	const json_t *account = json_object_get(result, "account");

	line("issuer", kt_json_str(result, "issuer"));
	line("server", kt_json_str(result, "server"));
	line("account", kt_json_str(result, "accountURL"));
	if (json_is_object(account)) {
		line("status", kt_json_str(account, "status"));
		texts("contact", json_object_get(account, "contact"));
	}
}

static void show_directory(json_t *directory)
{
	json_t *profiles = json_object_get(directory, "profiles");
	const char *name, *label = "profiles";
	json_t *text;

	line("terms of service", kt_json_str(directory, "termsOfService"));
	line("EAB required", kt_json_bool(directory, "externalAccountRequired", false) ? "yes" : "no");
	line("renewal info", kt_json_str(directory, "renewalInfo"));
	if (json_object_size(profiles) == 0) {
		line(label, NULL);
	}
	json_object_foreach(profiles, name, text)
	{
		(void)printf("%-18s ", label);
		kt_cli_print(stdout, name);
		if (json_is_string(text) && json_string_value(text)[0] != '\0') {
			(void)fputs(": ", stdout);
			kt_cli_print(stdout, json_string_value(text));
		}
		(void)fputc('\n', stdout);
		label = "";
	}
}

int kt_cli_account(struct kt_cli *cli)
{
	const char *op = strchr(cli->command->name, ' ') + 1;
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s,s:s,s:s*,s:b}", "command", "account", "op", op, "issuer", cli->args[0],
	                                     "email", kt_cli_value(cli, "email"), "newKey",
	                                     kt_cli_flag(cli, "new-key"));
	struct kt_answer answer;
	int status;

	if (strcmp(op, "update") == 0 && kt_cli_value(cli, "email") == NULL) {
		kt_cli_complain("account update needs --email");
		return KT_EXIT_USAGE;
	}
	status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);
	if (status == KT_EXIT_OK && answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (status == KT_EXIT_OK && answer.result != NULL && !cli->quiet) {
		show_account(answer.result);
		if (json_is_object(json_object_get(answer.result, "directory"))) {
			show_directory(json_object_get(answer.result, "directory"));
		}
	}
	kt_answer_finish(&answer);
	return status;
}
