/* keyturn dns-record: what is to be published in the DNS once, as lines of a zone file. */
#include "cli/cli.h"

#include <string.h>

#include "kt/mem.h"

#define PIECE 255u /* a character-string of a TXT record, RFC 1035 section 3.3.14 */

struct records {
	const struct kt_cli *cli;
	json_t *list;
	unsigned count;
};

/* "a" "b": quoted as in a zone file, in pieces that fit. */
static void print_text(const char *text)
{
	size_t len = strlen(text);

	for (size_t at = 0; at == 0 || at < len; at += PIECE) {
		(void)printf(" \"");
		for (size_t i = at; i < len && i < at + PIECE; i++) {
			unsigned char c = (unsigned char)text[i];

			if (c < 0x20 || c >= 0x7f) {
				(void)printf("\\%03u", c);
			} else {
				(void)printf("%s%c", c == '"' || c == '\\' ? "\\" : "", c);
			}
		}
		(void)printf("\"");
	}
}

static void on_row(const json_t *row, void *arg)
{
	struct records *records = arg;
	const char *record = kt_json_str(row, "record"), *type = kt_json_str(row, "type"), *value = kt_json_str(row, "value");
	const char *text = kt_json_str(row, "text");

	records->count++;
	if (records->cli->format >= KT_FORMAT_JSON) {
		(void)json_array_append(records->list, (json_t *)(uintptr_t)row);
		return;
	}
	if (record == NULL || type == NULL) {
		return;
	}
	(void)printf("; ");
	kt_cli_print(stdout, text != NULL ? text : "");
	(void)printf("\n%s", value == NULL ? "; " : "");
	kt_cli_print(stdout, record);
	(void)printf(". IN %s", strcmp(type, "TXT") == 0 ? "TXT" : "CNAME");
	if (value != NULL && strcmp(type, "TXT") == 0) {
		print_text(value);
	} else {
		(void)printf(" ");
		kt_cli_print(stdout, value != NULL ? value : "...");
	}
	(void)printf("\n");
}

int kt_cli_dns_record(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s}", "command", "dns-record", "name", cli->args[0]);
	struct records records = {.cli = cli, .list = json_array()};
	struct kt_request request = {.body = body, .mode = KT_MODE_ONESHOT, .row = on_row, .arg = &records};
	json_t *value KT_AUTOJSON = NULL;
	struct kt_answer answer;
	int status;

	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK && !cli->quiet && kt_json_bool(answer.result, "registered", false)) {
		kt_cli_complain("note: an account was registered for it: %s", kt_json_str(answer.result, "account"));
	}
	if (status == KT_EXIT_OK && cli->format >= KT_FORMAT_JSON) {
		value = json_pack("{s:O,s:O*}", "records", records.list, "summary", answer.result);
		kt_cli_print_value(cli, stdout, value);
	} else if (status == KT_EXIT_OK && records.count == 0 && !cli->quiet) {
		kt_cli_complain("nothing is to be published for it: no name is proved by dns-persist-01 or by a delegated dns-01");
	}
	json_decref(records.list);
	kt_answer_finish(&answer);
	return status;
}
