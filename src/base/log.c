/* Log lines, each one write to standard error. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base_internal.h"
#include "kt/clock.h"
#include "kt/log.h"

enum { LINE_MAX_BYTES = 2048, TEXT_MAX = 1600 };

static struct {
	const char *room;
	enum kt_level level;
	bool json;
	void (*sink)(enum kt_level level, const char *line, void *arg);
	void *sink_arg;
} state = {.room = "keyturn", .level = KT_LOG_INFO};

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void kt_log_setup(const char *room, enum kt_level level, bool json)
{
	state.room = room;
	state.level = level;
	state.json = json;
}

enum kt_level kt_log_level(void)
{
	return state.level;
}

void kt_log_capture(void (*sink)(enum kt_level level, const char *line, void *arg), void *arg)
{
	state.sink = sink;
	state.sink_arg = arg;
}

/* As a JSON string without its quotes. text is escaped already, so only quotes and backslashes are left. */
static size_t json_quote(const char *text, char *out, size_t cap)
{
	size_t used = 0;

	for (; *text; text++) {
		/* Stops before a character, never within one. */
		if (((unsigned char)*text & 0xc0) != 0x80 && used + 6 > cap)
			break;
		if (*text == '"' || *text == '\\')
			out[used++] = '\\';
		out[used++] = *text;
	}
	out[used] = '\0';
	return used;
}

static void write_line(const char *line, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, line, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody to tell */
		line += n;
		len -= (size_t)n;
	}
}

static void emit(enum kt_level level, const char *raw)
{
	char text[TEXT_MAX];
	char line[LINE_MAX_BYTES];
	char stamp[32];
	int saved = errno;
	int len;

	kt_base_escape(raw, strlen(raw), text, sizeof(text));
	kt_time_format_ms(kt_clock_wall(&kt_clock_system), stamp);
	if (state.json) {
		/* Cut here, so that the line stays whole JSON. */
		char quoted[LINE_MAX_BYTES - 160];

		json_quote(text, quoted, sizeof(quoted));
		len = snprintf(line, sizeof(line),
		               "{\"time\":\"%s\",\"level\":\"%s\",\"room\":\"%.32s\",\"pid\":%d,\"msg\":\"%s\"}\n", stamp,
		               level_names[level], state.room, (int)getpid(), quoted);
	} else {
		len = snprintf(line, sizeof(line), "%s %-5s %.32s[%d]: %s\n", stamp, level_names[level], state.room,
		               (int)getpid(), text);
	}
	if (state.sink) {
		line[len - 1] = '\0';
		state.sink(level, line, state.sink_arg);
	} else {
		write_line(line, (size_t)len);
	}
	errno = saved;
}

void kt_log(enum kt_level level, const char *fmt, ...)
{
	char raw[TEXT_MAX + 16];
	va_list args;

	if (level > state.level)
		return;
	va_start(args, fmt);
	if (vsnprintf(raw, sizeof(raw), fmt, args) < 0)
		raw[0] = '\0';
	va_end(args);
	emit(level, raw);
}

void kt_log_err(enum kt_level level, const struct kt_err *err, const char *fmt, ...)
{
	char raw[TEXT_MAX + 16];
	size_t len;
	va_list args;

	if (level > state.level)
		return;
	va_start(args, fmt);
	/* Leaves room for the whole detail. */
	if (vsnprintf(raw, sizeof(raw) - sizeof(err->what) - 2, fmt, args) < 0)
		raw[0] = '\0';
	va_end(args);
	len = strlen(raw);
	snprintf(raw + len, sizeof(raw) - len, ": %s",
	         err && err->what[0] ? err->what : kt_code_name(err ? err->code : KT_OK));
	emit(level, raw);
}
