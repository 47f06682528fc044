/* Options of the program and of its commands, from the environment and the command line, and the help they make. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"

#define OPTIONS_MAX 32

const struct kt_cli_option kt_cli_globals[] = {
        {"config", 'c', "PATH", "manifests: a file or a folder; may be repeated (default " KT_SYSCONFDIR ")"},
        {"state-dir", 0, "DIR", "where the state is kept (default " KT_STATEDIR ")"},
        {"secrets-dir", 0, "DIR", "where secret volumes are made (default /run/keyturn/secrets)"},
        {"socket", 0, "PATH", "control socket of the agent"},
        {"output", 'o', "FORMAT", "json, yaml, wide or table"},
        {"verbose", 'v', NULL, "say more; twice: still more"},
        {"quiet", 'q', NULL, "errors only"},
        {"help", 'h', NULL, "this text"},
        {NULL, 0, NULL, NULL},
};
enum { G_CONFIG, G_STATE, G_SECRETS, G_SOCKET, G_OUTPUT, G_VERBOSE, G_QUIET, G_HELP, G_COUNT };

/* --- values ------------------------------------------------------------------------------------------------------- */

static int find_option(const struct kt_command *command, const char *name)
{
	for (int i = 0; command->options != NULL && command->options[i].name != NULL; i++) {
		if (strcmp(command->options[i].name, name) == 0) {
			return i;
		}
	}
	return -1;
}

const char *kt_cli_value(const struct kt_cli *cli, const char *option)
{
	int index = find_option(cli->command, option);

	return index >= 0 ? cli->values[index] : NULL;
}

bool kt_cli_flag(const struct kt_cli *cli, const char *option)
{
	return kt_cli_value(cli, option) != NULL;
}

enum kt_code kt_cli_duration(const struct kt_cli *cli, const char *option, kt_ms *ret, struct kt_err *err)
{
	const char *text = kt_cli_value(cli, option);

	if (text == NULL) {
		return KT_OK;
	}
	if (kt_duration_parse(kt_view_str(text), ret, NULL) != KT_OK || *ret <= 0) {
		return kt_err_set(err, KT_E_INVALID, "--%s takes a duration such as 30s, 10m or 24h, not '%s'", option, text);
	}
	return KT_OK;
}

enum kt_code kt_cli_number(const struct kt_cli *cli, const char *option, uint64_t max, uint64_t *ret,
                           struct kt_err *err)
{
	const char *text = kt_cli_value(cli, option);

	if (text == NULL) {
		return KT_OK;
	}
	if (kt_parse_u64(kt_view_str(text), max, ret, NULL) != KT_OK || *ret == 0) {
		return kt_err_set(err, KT_E_INVALID, "--%s takes a number from 1 to %llu, not '%s'", option,
		                  (unsigned long long)max, text);
	}
	return KT_OK;
}

enum kt_level kt_cli_level(const struct kt_cli *cli, enum kt_level usual)
{
	int level = (int)usual + cli->verbose;

	if (cli->quiet) {
		return KT_LOG_ERROR;
	}
	return level > KT_LOG_TRACE ? KT_LOG_TRACE : (enum kt_level)level;
}

void kt_cli_warden_options(const struct kt_cli *cli, enum kt_run_mode mode, struct kt_warden_options *ret)
{
	*ret = (struct kt_warden_options){
	        .mode = mode,
	        .manifests = cli->manifests,
	        .manifests_optional = cli->manifests_default,
	        .state_dir = cli->state_dir,
	        .secrets_dir = cli->secrets_dir,
	        .socket_path = cli->socket_path,
	        .log_level = kt_cli_level(cli, mode == KT_MODE_DAEMON ? KT_LOG_INFO : KT_LOG_WARN),
	        .log_json = cli->log_json,
	        .no_sandbox = cli->no_sandbox,
	        .sidecar = cli->sidecar,
	        .argv = cli->argv,
	};
}

/* --- environment ---------------------------------------------------------------------------------------------------- */

static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

static enum kt_code take_format(struct kt_cli *cli, const char *text, struct kt_err *err)
{
	static const char *const names[] = {"table", "wide", "json", "yaml", NULL};
	const char *near;

	for (int i = 0; names[i] != NULL; i++) {
		if (strcmp(names[i], text) == 0) {
			cli->format = (enum kt_format)i;
			return KT_OK;
		}
	}
	near = kt_nearest(text, names);
	return kt_err_set(err, KT_E_INVALID, "-o takes json, yaml, wide or table, not '%s'%s%s%s", text,
	                  near != NULL ? ": did you mean " : "", near != NULL ? near : "", near != NULL ? "?" : "");
}

static enum kt_code add_path(struct kt_cli *cli, const char *path, struct kt_err *err)
{
	if (path[0] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "-c takes a file or a folder, not an empty text");
	}
	if (cli->manifest_count == KT_CLI_PATHS_MAX) {
		return kt_err_set(err, KT_E_INVALID, "-c may be given %u times at most: name the folder instead",
		                  KT_CLI_PATHS_MAX);
	}
	cli->manifests[cli->manifest_count++] = path;
	return KT_OK;
}

static enum kt_code take_env(struct kt_cli *cli, struct kt_err *err)
{
	const char *log = env("KEYTURN_LOG");
	const char *sandbox = env("KEYTURN_SANDBOX");
	const char *format = env("KEYTURN_OUTPUT");
	const char *sidecar = env("KEYTURN_SIDECAR");

	cli->state_dir = env("KEYTURN_STATE_DIR");
	cli->secrets_dir = env("KEYTURN_SECRETS_DIR");
	cli->socket_path = env("KEYTURN_SOCKET");
	cli->quiet = env("KEYTURN_QUIET") != NULL;
	cli->verbose = env("KEYTURN_VERBOSE") != NULL;
	if (log != NULL && strcmp(log, "json") != 0 && strcmp(log, "text") != 0) {
		return kt_err_set(err, KT_E_INVALID, "KEYTURN_LOG is text or json, not '%s'", log);
	}
	cli->log_json = log != NULL && strcmp(log, "json") == 0;
	cli->sidecar = sidecar != NULL && strcmp(sidecar, "0") != 0;
	cli->no_sandbox = sandbox != NULL && strcmp(sandbox, "off") == 0;
	return format != NULL ? take_format(cli, format, err) : KT_OK;
}

/* KEYTURN_CONFIG counts only where no -c is given; paths are separated by colons. */
static enum kt_code default_paths(struct kt_cli *cli, struct kt_err *err)
{
	const char *paths = env("KEYTURN_CONFIG");
	enum kt_code code = KT_OK;
	char *rest;

	if (cli->manifest_count > 0) {
		return KT_OK;
	}
	if (paths == NULL) {
		cli->manifests_default = true;
		return add_path(cli, KT_SYSCONFDIR, err);
	}
	cli->manifests_env = kt_strdup(paths);
	if (cli->manifests_env == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for KEYTURN_CONFIG");
	}
	rest = cli->manifests_env;
	while (code == KT_OK && rest != NULL) {
		char *path = strsep(&rest, ":");

		code = path[0] != '\0' ? add_path(cli, path, err) : KT_OK;
	}
	return code;
}

/* --- the command line ------------------------------------------------------------------------------------------------- */

static enum kt_code take_global(struct kt_cli *cli, int which, const char *value, struct kt_err *err)
{
	switch (which) {
	case G_CONFIG:
		return add_path(cli, value, err);
	case G_STATE:
		cli->state_dir = value;
		return KT_OK;
	case G_SECRETS:
		cli->secrets_dir = value;
		return KT_OK;
	case G_SOCKET:
		cli->socket_path = value;
		return KT_OK;
	case G_OUTPUT:
		return take_format(cli, value, err);
	case G_VERBOSE:
		cli->verbose++;
		return KT_OK;
	case G_QUIET:
		cli->quiet = true;
		return KT_OK;
	default:
		cli->help = true;
		return KT_OK;
	}
}

/* Global options and those of a command as getopt wants them; val is the index, the command's from G_COUNT on. */
struct merged {
	struct option list[OPTIONS_MAX];
	const char *names[OPTIONS_MAX];
	char letters[2 * OPTIONS_MAX + 4];
	unsigned count;
};

static void merge(struct merged *merged, const struct kt_cli_option *options, int base)
{
	for (int i = 0; options != NULL && options[i].name != NULL && merged->count < OPTIONS_MAX - 1; i++) {
		size_t end = strlen(merged->letters);

		merged->list[merged->count] = (struct option){
		        options[i].name, options[i].value != NULL ? required_argument : no_argument, NULL, 256 + base + i};
		merged->names[merged->count++] = options[i].name;
		if (options[i].letter != 0) {
			merged->letters[end] = options[i].letter;
			merged->letters[end + 1] = options[i].value != NULL ? ':' : '\0';
			merged->letters[end + 2] = '\0';
		}
	}
}

static int by_letter(const struct kt_cli_option *options, int letter)
{
	for (int i = 0; options != NULL && options[i].name != NULL; i++) {
		if (options[i].letter == letter) {
			return i;
		}
	}
	return -1;
}

/* "--raw, -n/--namespace NS": what a command takes by itself; "" when nothing. */
static void list_options(const struct kt_cli_option *options, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (; options != NULL && options->name != NULL && used < size; options++) {
		char letter[4] = {'-', options->letter, '/', '\0'};
		int n = snprintf(out + used, size - used, "%s%s--%s%s%s", used > 0 ? ", " : "", options->letter != 0 ? letter : "",
		                 options->name, options->value != NULL ? " " : "", options->value != NULL ? options->value : "");

		used += n > 0 ? (size_t)n : 0;
	}
}

/* The command that does take this option ("--raw" or "-n"), of those that begin with this word (NULL: any). */
static const struct kt_command *taker_of(const char *option, const char *first)
{
	size_t len = first != NULL ? strlen(first) : 0;

	for (const struct kt_command *at = kt_commands; at->name != NULL; at++) {
		if (first != NULL && (strncmp(at->name, first, len) != 0 || at->name[len] != ' ')) {
			continue;
		}
		for (const struct kt_cli_option *own = at->options; own != NULL && own->name != NULL; own++) {
			if (option[1] == '-' ? strcmp(option + 2, own->name) == 0 : option[1] == own->letter && option[2] == '\0') {
				return at;
			}
		}
	}
	return NULL;
}

/* What is not repeated: it may be a secret that was given in the wrong place. */
static bool may_hold_secret(const struct kt_cli *cli)
{
	return cli->command != NULL && kt_starts_with(cli->command->name, "secret ");
}

/* No option of this command, and not nearly one. */
static enum kt_code unknown_option(const struct kt_cli *cli, const char *name, struct kt_err *err)
{
	const struct kt_command *taker = taker_of(name, NULL);
	char own[400];

	if (cli->command == NULL && taker != NULL) {
		return kt_err_set(err, KT_E_INVALID, "%s is an option of a command and stands behind it: keyturn %s %s", name,
		                  taker->name, name);
	}
	if (cli->command == NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no option %s before a command: 'keyturn --help' lists them", name);
	}
	list_options(cli->command->options, own, sizeof(own));
	return kt_err_set(err, KT_E_INVALID,
	                  "there is no option %s of keyturn %s, which takes %s%sthose of every command: see 'keyturn %s --help'",
	                  may_hold_secret(cli) && taker == NULL ? "like that" : name, cli->command->name, own,
	                  own[0] != '\0' ? " and " : "only ", cli->command->name);
}

static enum kt_code wrong_option(const struct kt_cli *cli, const struct merged *merged, int got, const char *word,
                                 struct kt_err *err)
{
	const char *command = cli->command != NULL ? cli->command->name : "";
	const char *space = cli->command != NULL ? " " : "";
	const char *near = NULL;
	char name[64];

	if (got == ':') {
		return kt_err_set(err, KT_E_INVALID, "%s needs a value: see 'keyturn %s%s--help'", word, command, space);
	}
	if (kt_starts_with(word, "--")) {
		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
		near = kt_nearest(name, merged->names);
		if (near != NULL && strcmp(near, name) == 0) {
			return kt_err_set(err, KT_E_INVALID, "--%s takes no value", name);
		}
		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
	} else {
		(void)snprintf(name, sizeof(name), "-%c", optopt);
	}
	if (near != NULL && may_hold_secret(cli)) {
		return kt_err_set(err, KT_E_INVALID, "there is no option like that of keyturn %s: did you mean --%s?", command, near);
	}
	if (near != NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no option %s%s%s: did you mean --%s?", name,
		                  cli->command != NULL ? " of keyturn " : "", command, near);
	}
	return unknown_option(cli, name, err);
}

/* mode "+:" stops at the first word, ":" takes options anywhere. *ret_index: the first word. */
static enum kt_code take_options(struct kt_cli *cli, int argc, char **argv, const char *mode, int *ret_index,
                                 struct kt_err *err)
{
	const struct kt_cli_option *own = cli->command != NULL ? cli->command->options : NULL;
	struct merged merged = {.count = 0};
	enum kt_code code = KT_OK;
	int got;

	(void)snprintf(merged.letters, sizeof(merged.letters), "%s", mode);
	merge(&merged, kt_cli_globals, 0);
	merge(&merged, own, G_COUNT);
	opterr = 0;
	optind = 0; /* glibc: start again */
	while (code == KT_OK && (got = getopt_long(argc, argv, merged.letters, merged.list, NULL)) != -1) {
		int which;

		if (got == '?' || got == ':') {
			const char *word = optind > 0 ? argv[optind - 1] : "";

			return wrong_option(cli, &merged, got, word, err);
		}
		if (got < 256) {
			which = by_letter(own, got);
			which = which >= 0 ? G_COUNT + which : by_letter(kt_cli_globals, got);
		} else {
			which = got - 256;
		}
		if (which < G_COUNT) {
			code = take_global(cli, which, optarg, err);
		} else {
			cli->values[which - G_COUNT] = optarg != NULL ? optarg : "";
		}
	}
	*ret_index = optind;
	return code;
}

/* --- commands ----------------------------------------------------------------------------------------------------------- */

/* "secret set" for "secret", "set"; *ret_words says how many words it took. */
static const struct kt_command *find_command(char *const *words, int count, int *ret_words)
{
	for (const struct kt_command *at = kt_commands; at->name != NULL; at++) {
		size_t len = strlen(words[0]);

		if (strncmp(at->name, words[0], len) != 0) {
			continue;
		}
		if (at->name[len] == '\0') {
			*ret_words = 1;
			return at;
		}
		if (at->name[len] == ' ' && count > 1 && strcmp(at->name + len + 1, words[1]) == 0) {
			*ret_words = 2;
			return at;
		}
	}
	return NULL;
}

/* What might have been meant, or which second words there are. */
static enum kt_code no_command(char *const *words, int count, struct kt_err *err)
{
	const char *names[64] = {NULL};
	char firsts[64][32];
	char seconds[256] = "";
	size_t len = strlen(words[0]);
	unsigned n = 0;
	const char *near;

	for (const struct kt_command *at = kt_commands; at->name != NULL && n < 62; at++) {
		if (strncmp(at->name, words[0], len) == 0 && at->name[len] == ' ') {
			size_t used = strlen(seconds);

			(void)snprintf(seconds + used, sizeof(seconds) - used, "%s%s", used > 0 ? ", " : "", at->name + len + 1);
		}
		(void)snprintf(firsts[n], sizeof(firsts[n]), "%.*s", (int)strcspn(at->name, " "), at->name);
		names[n] = firsts[n];
		n++;
	}
	if (seconds[0] != '\0' && count > 1 && words[1][0] == '-') {
		char option[64];
		const struct kt_command *taker;

		(void)snprintf(option, sizeof(option), "%.*s", (int)strcspn(words[1], "="), words[1]);
		taker = taker_of(option, words[0]);
		return taker != NULL ? kt_err_set(err, KT_E_INVALID, "%s stands behind the second word: keyturn %s %s", option,
		                                  taker->name, option)
		                     : kt_err_set(err, KT_E_INVALID,
		                                  "options stand behind the second word of keyturn %s, which is one of %s", words[0],
		                                  seconds);
	}
	if (seconds[0] != '\0' && count > 1 && strcmp(words[0], "secret") == 0 &&
	    words[1][strspn(words[1], "abcdefghijklmnopqrstuvwxyz")] != '\0') { /* it may be one */
		return kt_err_set(err, KT_E_INVALID, "keyturn secret takes one of %s: keyturn secret set NAME KEY", seconds);
	}
	if (seconds[0] != '\0' && count > 1) {
		return kt_err_set(err, KT_E_INVALID, "there is no 'keyturn %s %s': %s takes %s", words[0], words[1], words[0],
		                  seconds);
	}
	if (seconds[0] != '\0') {
		return kt_err_set(err, KT_E_INVALID, "keyturn %s takes one of %s", words[0], seconds);
	}
	near = kt_nearest(words[0], names);
	if (near != NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no command '%s': did you mean %s?", words[0], near);
	}
	return kt_err_set(err, KT_E_INVALID, "there is no command '%s': 'keyturn --help' lists them", words[0]);
}

static enum kt_code check_args(const struct kt_cli *cli, struct kt_err *err)
{
	const struct kt_command *command = cli->command;

	if (cli->help) {
		return KT_OK;
	}
	if (cli->arg_count < command->min_args) {
		return kt_err_set(err, KT_E_INVALID, "keyturn %s needs %s: see 'keyturn %s --help'", command->name, command->args,
		                  command->name);
	}
	if (command->max_args >= 0 && cli->arg_count > command->max_args && may_hold_secret(cli)) {
		return kt_err_set(err, KT_E_INVALID, "keyturn %s takes no more than %s: see 'keyturn %s --help'", command->name,
		                  command->args[0] != '\0' ? command->args : "options", command->name);
	}
	if (command->max_args >= 0 && cli->arg_count > command->max_args) {
		return kt_err_set(err, KT_E_INVALID, "keyturn %s does not take '%s': see 'keyturn %s --help'", command->name,
		                  cli->args[command->max_args], command->name);
	}
	return KT_OK;
}

enum kt_code kt_cli_parse(struct kt_cli *cli, int argc, char **argv, struct kt_err *err)
{
	enum kt_code code = take_env(cli, err);
	int index = 0;
	int words = 0;

	cli->argv = argv;
	if (code == KT_OK && argc > 1 && strcmp(argv[1], "--version") == 0) {
		static char name[] = "version";

		argv[1] = name;
	}
	if (code == KT_OK) {
		code = take_options(cli, argc, argv, "+:", &index, err);
	}
	if (code != KT_OK || (cli->help && index == argc)) {
		return code;
	}
	if (index == argc) {
		return kt_err_set(err, KT_E_INVALID, "a command is missing: 'keyturn --help' lists them");
	}
	if (strcmp(argv[index], "help") == 0) {
		cli->help = true;
		if (++index == argc) {
			return KT_OK;
		}
	}
	cli->command = find_command(argv + index, argc - index, &words);
	if (cli->command == NULL) {
		return no_command(argv + index, argc - index, err);
	}
	/* getopt takes the word before the first one for the program's name. */
	argv += index + words - 1;
	argc -= index + words - 1;
	code = take_options(cli, argc, argv, ":", &index, err);
	if (code != KT_OK) {
		return code;
	}
	cli->args = argv + index;
	cli->arg_count = argc - index;
	code = check_args(cli, err);
	return code == KT_OK ? default_paths(cli, err) : code;
}

void kt_cli_finish(struct kt_cli *cli)
{
	kt_free(cli->manifests_env);
	cli->manifests_env = NULL;
}

/* --- help ------------------------------------------------------------------------------------------------------------------ */

static void help_options(const struct kt_cli_option *options, FILE *out)
{
	for (; options != NULL && options->name != NULL; options++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "%c%c%s--%s%s%s", options->letter != 0 ? '-' : ' ',
		               options->letter != 0 ? options->letter : ' ', options->letter != 0 ? ", " : "  ", options->name,
		               options->value != NULL ? " " : "", options->value != NULL ? options->value : "");
		(void)fprintf(out, "  %-26s %s\n", left, options->line);
	}
}

void kt_cli_help(const struct kt_cli *cli, FILE *out)
{
	const struct kt_command *at;

	if (cli->command != NULL) {
		at = cli->command;
		(void)fprintf(out, "keyturn %s%s%s%s\n%s.\n", at->name, at->options != NULL ? " [options]" : "",
		              at->args[0] != '\0' ? " " : "", at->args, at->line);
		if (at->options != NULL) {
			(void)fputs("\nOptions:\n", out);
			help_options(at->options, out);
		}
		(void)fputs("\nOptions of every command:\n", out);
		help_options(kt_cli_globals, out);
		(void)fprintf(out, "\nmanual: keyturn-%.*s(1)\n",
		              (int)(kt_starts_with(at->name, "secret ") ? 6 : strcspn(at->name, " ")), at->name);
		return;
	}
	(void)fputs("keyturn COMMAND [options] [arguments]\n"
	            "Issues and renews certificates and tokens, delivers them, and proves that they are in use.\n\nCommands:\n",
	            out);
	for (at = kt_commands; at->name != NULL; at++) {
		(void)fprintf(out, "  %-18s %s\n", at->name, at->line);
	}
	(void)fputs("\nOptions of every command:\n", out);
	help_options(kt_cli_globals, out);
	(void)fputs("\n'keyturn COMMAND --help' says more; manual: keyturn(1)\n", out);
}
