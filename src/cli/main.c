/* The program `keyturn`: main. */
#include "cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/secret.h"

static void surroundings(struct kt_cli *cli)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	cli->out_tty = isatty(STDOUT_FILENO) == 1;
	cli->err_tty = isatty(STDERR_FILENO) == 1;
	cli->color = cli->out_tty && (no_color == NULL || no_color[0] == '\0') &&
	             (term == NULL || strcmp(term, "dumb") != 0);
	cli->now = kt_clock_wall(&kt_clock_system);
}

/* What could not be written must not look like success. */
static int flush_out(int status)
{
	if (fflush(stdout) == 0 && ferror(stdout) == 0) {
		return status;
	}
	if (errno != EPIPE) {
		kt_cli_complain("standard output can't be written: %s", strerror(errno));
	}
	return status == KT_EXIT_OK ? KT_EXIT_FAILED : status;
}

int main(int argc, char **argv)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct kt_cli cli = {0};
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	kt_json_init();
	(void)setlocale(LC_CTYPE, "");
	(void)sigaction(SIGPIPE, &ignore, NULL);
	surroundings(&cli);
	kt_log_setup("keyturn", KT_LOG_WARN, false);
	if (kt_secret_init(&err) != KT_OK || kt_cli_parse(&cli, argc, argv, &err) != KT_OK) {
		status = kt_cli_fail(&err);
		kt_cli_finish(&cli);
		return status;
	}
	if (cli.help) {
		kt_cli_help(&cli, stdout);
		status = KT_EXIT_OK;
	} else {
		status = cli.command->run(&cli);
	}
	kt_cli_finish(&cli);
	return flush_out(status);
}
