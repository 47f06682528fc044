/* keyturn secret set, list, rm: values come from files, standard input or the terminal, never from the command line. */
#include "cli/cli.h"

#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

#define VALUE_MAX ((size_t)256 * 1024)

const struct kt_cli_option kt_cli_secret_set_options[] = {
        {"namespace", 'n', "NS", "namespace of the secret (default: default)"},
        {"raw", 0, NULL, "keep the newline at the end of a value of one line"},
        {NULL, 0, NULL, NULL},
};
const struct kt_cli_option kt_cli_secret_list_options[] = {
        {"namespace", 'n', "NS", "only this namespace"},
        {NULL, 0, NULL, NULL},
};
const struct kt_cli_option kt_cli_secret_rm_options[] = {
        {"namespace", 'n', "NS", "namespace of the secret (default: default)"},
        {NULL, 0, NULL, NULL},
};

/* --- values --------------------------------------------------------------------------------------------------------- */

/* Asks on the terminal without echo. */
static enum kt_code prompt(const char *name, const char *key, struct kt_buf *out, struct kt_err *err)
{
	KT_AUTOCLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before;
	struct termios silent;
	char c;
	ssize_t n;

	if (tty < 0 || tcgetattr(tty, &before) != 0) {
		return kt_err_sys(err, "the terminal can't be asked for %s of %s", key, name);
	}
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	silent.c_lflag |= ECHONL;
	(void)dprintf(tty, "%s of %s: ", key, name);
	if (tcsetattr(tty, TCSAFLUSH, &silent) != 0) {
		return kt_err_sys(err, "the terminal's echo can't be turned off");
	}
	while ((n = read(tty, &c, 1)) == 1 && c != '\n') {
		kt_buf_addc(out, c);
	}
	(void)tcsetattr(tty, TCSAFLUSH, &before);
	c = 0;
	return n < 0 ? kt_err_sys(err, "the terminal can't be read") : kt_buf_check(out, "the value", err);
}

/* A value of one line loses its newline: `echo` and editors put one there that no server knows. */
static void trim(struct kt_buf *value)
{
	char *newline = value->len > 0 ? memchr(value->ptr, '\n', value->len) : NULL;

	if (newline != NULL && newline == value->ptr + value->len - 1) {
		value->len--;
		if (value->len > 0 && value->ptr[value->len - 1] == '\r') {
			value->len--;
		}
		value->ptr[value->len] = '\0';
	}
}

static enum kt_code read_value(const struct kt_cli *cli, const char *name, const char *key, const char *from,
                               struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code;

	if (from == NULL && isatty(STDIN_FILENO) == 1) {
		return prompt(name, key, out, err);
	}
	if (from == NULL || strcmp(from, "-") == 0) {
		code = kt_io_read_fd(STDIN_FILENO, "standard input", out, err);
	} else {
		code = kt_io_read_file(AT_FDCWD, from, out, err);
	}
	if (code == KT_OK && !kt_cli_flag(cli, "raw")) {
		trim(out);
	}
	return code;
}

/* --- set -------------------------------------------------------------------------------------------------------------- */

static int set_one(struct kt_cli *cli, const char *name, const char *key, const char *from)
{
	const char *ns = kt_cli_value(cli, "namespace");
	json_t *body KT_AUTOJSON = NULL;
	struct kt_buf value KT_AUTOBUF = {0};
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_answer answer;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	kt_buf_init(&value, VALUE_MAX);
	kt_buf_init(&text, 2 * VALUE_MAX);
	if (read_value(cli, name, key, from, &value, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	if (value.len == 0) {
		kt_cli_complain("the value of %s is empty: nothing is stored", key);
		return KT_EXIT_USAGE;
	}
	kt_base64_encode(&text, value.ptr, value.len);
	if (kt_buf_check(&text, "the value", &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	body = json_pack("{s:s,s:s,s:s,s:s,s:s}", "command", "secret-set", "namespace", ns != NULL ? ns : "default", "name",
	                 name, "key", key, "value", text.ptr);
	status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);
	kt_answer_finish(&answer);
	if (status == KT_EXIT_OK && !cli->quiet) {
		(void)printf("%s of %s is set\n", key, name);
	}
	return status;
}

/* KEY=FILE: a KEY may have dots and dashes, never a '='. */
static bool split(const char *arg, char *key, size_t size, const char **ret_from)
{
	const char *equals = strchr(arg, '=');
	size_t len = equals != NULL ? (size_t)(equals - arg) : strlen(arg);

	*ret_from = equals != NULL ? equals + 1 : NULL;
	if (len == 0 || len >= size || (equals != NULL && equals[1] == '\0')) {
		return false;
	}
	memcpy(key, arg, len);
	key[len] = '\0';
	return strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int kt_cli_secret_set(struct kt_cli *cli)
{
	bool piped = isatty(STDIN_FILENO) != 1;
	int from_stdin = 0;
	int status = KT_EXIT_OK;
	const char *from;
	char key[254];

	for (int i = 1; i < cli->arg_count; i++) {
		if (!split(cli->args[i], key, sizeof(key), &from)) {
			kt_cli_complain("'%.*s' is not KEY, KEY=FILE or KEY=- (a value never stands on the command line)",
			                (int)strcspn(cli->args[i], "="), cli->args[i]);
			return KT_EXIT_USAGE;
		}
		from_stdin += (from == NULL && piped) || (from != NULL && strcmp(from, "-") == 0);
	}
	if (from_stdin > 1) {
		kt_cli_complain("only one key can be read from standard input: name files for the others (KEY=FILE)");
		return KT_EXIT_USAGE;
	}
	for (int i = 1; i < cli->arg_count && status == KT_EXIT_OK; i++) {
		(void)split(cli->args[i], key, sizeof(key), &from);
		status = set_one(cli, cli->args[0], key, from);
	}
	return status;
}

/* --- list and rm ------------------------------------------------------------------------------------------------------ */

static void cell_updated(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	kt_cli_when(cli, kt_json_str(row, "updated"), out);
}

static const struct kt_column columns[] = {
        {"NAMESPACE", "namespace", NULL, 0}, {"NAME", "name", NULL, 0},         {"KEY", "key", NULL, 0},
        {"SOURCE", "source", NULL, 0},       {"UPDATED", NULL, cell_updated, 0}, {NULL, NULL, NULL, 0},
};

int kt_cli_secret_list(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON =
	        json_pack("{s:s,s:s*}", "command", "secret-list", "namespace", kt_cli_value(cli, "namespace"));
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY};
	struct kt_answer answer;
	int status;

	(void)kt_client_list(cli, &request, "secrets", columns, NULL, &answer);
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_secret_rm(struct kt_cli *cli)
{
	const char *ns = kt_cli_value(cli, "namespace");
	json_t *body KT_AUTOJSON =
	        json_pack("{s:s,s:s,s:s,s:s*}", "command", "secret-rm", "namespace", ns != NULL ? ns : "default", "name",
	                  cli->args[0], "key", cli->arg_count > 1 ? cli->args[1] : NULL);
	struct kt_answer answer;
	int status = kt_client_simple(cli, body, KT_MODE_ONESHOT, &answer);

	kt_answer_finish(&answer);
	return status;
}
