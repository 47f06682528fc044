/* Errors, times and text for people. */
#include "cli/cli.h"

#include <stdarg.h>
#include <string.h>

#include "kt/buf.h"

void kt_cli_print(FILE *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)(text != NULL ? text : "");

	for (; *at != '\0'; at++) {
		/* C1 controls in UTF-8 are 0xc2 0x80..0x9f. */
		if (*at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)) {
			(void)fprintf(out, "\\x%02x", *at);
		} else {
			(void)fputc(*at, out);
		}
	}
}

void kt_cli_complain(const char *fmt, ...)
{
	char text[4096];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	(void)fflush(stdout);
	(void)fputs("keyturn: ", stderr);
	kt_cli_print(stderr, text);
	(void)fputc('\n', stderr);
}

int kt_cli_status_of(enum kt_code code)
{
	switch (code) {
	case KT_OK:
		return KT_EXIT_OK;
	case KT_E_INVALID:
	case KT_E_NOTFOUND:
		return KT_EXIT_USAGE;
	case KT_E_POLICY:
		return KT_EXIT_POLICY;
	case KT_E_MISMATCH:
		return KT_EXIT_UNPROVED;
	case KT_E_BUSY:
	case KT_E_LATER:
	case KT_E_TIMEOUT:
	case KT_E_NET:
	case KT_E_CLOSED:
		return KT_EXIT_LATER;
	default:
		return KT_EXIT_FAILED;
	}
}

int kt_cli_fail(const struct kt_err *err)
{
	kt_cli_complain("%s", err->what);
	return kt_err_is_full(err) ? KT_EXIT_LATER : kt_cli_status_of(err->code);
}

static int badness(int status)
{
	static const int order[] = {KT_EXIT_OK, KT_EXIT_LATER, KT_EXIT_UNPROVED, KT_EXIT_FAILED, KT_EXIT_POLICY};

	for (int i = 0; i < 5; i++) {
		if (order[i] == status) {
			return i;
		}
	}
	return 3;
}

int kt_cli_worse(int a, int b)
{
	return badness(a) >= badness(b) ? a : b;
}

/* --- times -------------------------------------------------------------------------------------------------------- */

static bool parse(const char *rfc3339, kt_ms *ret)
{
	return rfc3339 != NULL && kt_time_parse(kt_view_str(rfc3339), ret, NULL) == KT_OK;
}

void kt_cli_relative(const struct kt_cli *cli, const char *rfc3339, struct kt_buf *out)
{
	char span[32];
	kt_ms at;

	if (!parse(rfc3339, &at)) {
		kt_buf_addc(out, '-');
	} else if (at >= cli->now) {
		kt_buf_addf(out, "in %s", kt_duration_format(at - cli->now, span));
	} else {
		kt_buf_addf(out, "%s ago", kt_duration_format(cli->now - at, span));
	}
}

void kt_cli_when(const struct kt_cli *cli, const char *rfc3339, struct kt_buf *out)
{
	char text[32];
	kt_ms at;

	kt_cli_relative(cli, rfc3339, out);
	if (parse(rfc3339, &at)) {
		(void)kt_time_format(at, text); /* 2026-11-23T14:02:11Z */
		/* Seconds only where they can matter. */
		bool near = at - cli->now < KT_HOUR && cli->now - at < KT_HOUR;

		kt_buf_addf(out, " (%.10s %.*sZ)", text, near ? 8 : 5, text + 11);
	}
}

/* --- colours -------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *state, *escape;
} colors[] = {
        {"proved", "\033[32m"},      {"ok", "\033[32m"},       {"ready", "\033[32m"},      {"waiting", "\033[33m"},
        {"issuing", "\033[33m"},     {"retry", "\033[33m"},    {"failing", "\033[31m"},    {"failed", "\033[31m"},
        {"not proved", "\033[31m"},  {"expired", "\033[31m"},  {"missing", "\033[33m"},    {"refused", "\033[31m"},
        {"rolled back", "\033[31m"}, {"warning", "\033[33m"},
};

const char *kt_cli_color(const struct kt_cli *cli, const char *state)
{
	for (size_t i = 0; cli->color && state != NULL && i < sizeof(colors) / sizeof(colors[0]); i++) {
		if (strcmp(colors[i].state, state) == 0) {
			return colors[i].escape;
		}
	}
	return "";
}

const char *kt_cli_plain(const struct kt_cli *cli)
{
	return cli->color ? "\033[0m" : "";
}
