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

/* --- what is a key --------------------------------------------------------------------------------------------------- */

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"

/* Words as in camelCase, two letters each at least, with digits behind them only; or one letter and digits (p12). */
static bool is_humps(const char *part, size_t len)
{
	size_t at = 0, humps = 0, digits;

	while (at < len && strspn(part + at, DIGIT) == 0) {
		size_t word = (strchr(UPPER, part[at]) != NULL ? 1u : 0u);

		word += strspn(part + at + word, LOWER);
		if ((word < 2 && strspn(part + at + 1, DIGIT) + 1 < len) || ++humps > 4) {
			return false;
		}
		at += word;
	}
	digits = strspn(part + at, DIGIT);
	return humps > 0 && digits <= 4 && at + digits >= len;
}

/*
 * What a key is called as a rule: client-secret, tls.key, keystore.p12, clientSecret, API_TOKEN. Anything else that stands alone
 * is taken for a value that somebody gave by mistake, and is neither stored as a name nor shown.
 */
static bool is_key_name(const char *text)
{
	bool snake = strchr(text, '_') != NULL;
	size_t len = strlen(text);

	if (len == 0 || len > 63 || strspn(text, LOWER UPPER DIGIT "._-") != len) {
		return false;
	}
	for (const char *at = text; *at != '\0';) {
		size_t part = strcspn(at, "._-");
		size_t loud = strspn(at, UPPER);

		loud += strspn(at + loud, DIGIT);
		if (part == 0 && at != text) {
			return false;
		}
		if (part > 1 && !is_humps(at, part) && !(snake && loud >= part) && strspn(at, DIGIT) < part) {
			return false;
		}
		at += part + (at[part] != '\0');
	}
	return strspn(text, DIGIT "._-") < len;
}

/* How a key is spoken of: never by what might be a value. */
static const char *shown(const char *key)
{
	return is_key_name(key) ? key : "that key";
}

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
		return kt_err_sys(err, "the terminal can't be asked for %s of %s", shown(key), name);
	}
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	silent.c_lflag |= ECHONL;
	(void)dprintf(tty, "value for the key %s of %s (not shown): ", key, name);
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

#define SEEN "if it was the value itself, the shell's history and 'ps' had it: replace it"

/* The name of the file is not said: it may be the value that somebody gave in its place. */
static enum kt_code read_file(const char *key, const char *from, struct kt_buf *out, struct kt_err *err)
{
	struct kt_err why;

	kt_err_clear(&why);
	if (kt_io_read_file(AT_FDCWD, from, out, &why) == KT_OK) {
		return KT_OK;
	}
	if (why.code == KT_E_LIMIT) {
		return kt_err_set(err, KT_E_INVALID, "the file for %s is larger than a secret may be (%zu kB)", shown(key),
		                  VALUE_MAX / 1024);
	}
	return kt_err_set(err, KT_E_INVALID,
	                  "the file named for %s can't be read%s%s; after = comes a file or -, never a value: leave it out to be asked; " SEEN,
	                  shown(key), why.sys_errno != 0 ? ": " : "", why.sys_errno != 0 ? strerror(why.sys_errno) : "");
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
		code = read_file(key, from, out, err);
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
		kt_cli_complain("the value for %s is empty: nothing is stored", shown(key));
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
		(void)printf("%s of %s is set\n", shown(key), name);
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

	if (!kt_dns1123_subdomain(cli->args[0])) {
		kt_cli_complain("the word after 'secret set' is no name of a secret (a-z, 0-9, '-', '.'): it is the one that manifests refer to");
		return KT_EXIT_USAGE;
	}
	for (int i = 1; i < cli->arg_count; i++) {
		if (!split(cli->args[i], key, sizeof(key), &from)) {
			kt_cli_complain("word %d after the name is not KEY, KEY=FILE or KEY=- (a value never stands on the command line)", i);
			return KT_EXIT_USAGE;
		}
		if (from == NULL && !is_key_name(key)) {
			kt_cli_complain("word %d after the name does not look like a key (client-secret, tls.key, API_TOKEN): a value never stands on the "
			                "command line; if it is a key, write KEY=- or KEY=FILE; " SEEN,
			                i);
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
