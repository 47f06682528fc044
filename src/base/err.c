/* Error codes, their names, and the filling of struct kt_err. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base_internal.h"
#include "kt/err.h"

static const char *const code_names[KT_CODE_COUNT] = {
	[KT_OK] = "ok",
	[KT_E_NOMEM] = "nomem",
	[KT_E_SYS] = "sys",
	[KT_E_INVALID] = "invalid",
	[KT_E_LIMIT] = "limit",
	[KT_E_NOTFOUND] = "notfound",
	[KT_E_EXISTS] = "exists",
	[KT_E_BUSY] = "busy",
	[KT_E_LATER] = "later",
	[KT_E_TIMEOUT] = "timeout",
	[KT_E_NET] = "net",
	[KT_E_PROTO] = "proto",
	[KT_E_AUTH] = "auth",
	[KT_E_DENIED] = "denied",
	[KT_E_POLICY] = "policy",
	[KT_E_CRYPTO] = "crypto",
	[KT_E_CORRUPT] = "corrupt",
	[KT_E_CLOSED] = "closed",
	[KT_E_CANCELLED] = "cancelled",
	[KT_E_UNSUPPORTED] = "unsupported",
	[KT_E_MISMATCH] = "mismatch",
};

const char *kt_code_name(enum kt_code code)
{
	if ((int)code < 0 || code >= KT_CODE_COUNT)
		return "unknown";
	return code_names[code];
}

enum kt_code kt_code_from_name(const char *name)
{
	if (!name)
		return KT_CODE_COUNT;
	for (int i = 0; i < KT_CODE_COUNT; i++)
		if (strcmp(code_names[i], name) == 0)
			return (enum kt_code)i;
	return KT_CODE_COUNT;
}

void kt_err_clear(struct kt_err *err)
{
	if (!err)
		return;
	err->code = KT_OK;
	err->sys_errno = 0;
	err->retry_after_s = 0;
	err->problem_type[0] = '\0';
	err->what[0] = '\0';
}

/* Larger than `what`, so that a text that is too long is seen as such by the escaping. */
enum { RAW_SIZE = sizeof(((struct kt_err *)0)->what) + 64 };

/* The arguments may point into err itself: format first, then write. */
static void format(char raw[RAW_SIZE], const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
static void format(char raw[RAW_SIZE], const char *fmt, va_list args)
{
	if (vsnprintf(raw, RAW_SIZE, fmt, args) < 0)
		raw[0] = '\0';
}

enum kt_code kt_err_set(struct kt_err *err, enum kt_code code, const char *fmt, ...)
{
	int saved = errno;
	char raw[RAW_SIZE];
	va_list args;

	if (!err)
		return code;
	va_start(args, fmt);
	format(raw, fmt, args);
	va_end(args);
	kt_err_clear(err);
	err->code = code;
	kt_base_escape(raw, strlen(raw), err->what, sizeof(err->what));
	errno = saved;
	return code;
}

enum kt_code kt_err_sys(struct kt_err *err, const char *fmt, ...)
{
	int saved = errno;
	enum kt_code code = saved == ENOMEM ? KT_E_NOMEM : KT_E_SYS;
	char raw[RAW_SIZE];
	char reason[128];
	const char *text;
	size_t len, room;
	va_list args;

	if (!err)
		return code;
	va_start(args, fmt);
	format(raw, fmt, args);
	va_end(args);
	/* The reason matters more than the end of a long path: it always fits. */
	text = strerror_r(saved, reason, sizeof(reason));
	len = strlen(raw);
	room = sizeof(err->what) - strlen(text) - 3;
	if (len > room) {
		memcpy(raw + room - 3, "...", 3);
		len = room;
	}
	snprintf(raw + len, sizeof(raw) - len, ": %s", text);
	kt_err_clear(err);
	err->code = code;
	err->sys_errno = saved;
	kt_base_escape(raw, strlen(raw), err->what, sizeof(err->what));
	errno = saved;
	return code;
}

bool kt_err_is_full(const struct kt_err *err)
{
	return err->code != KT_OK && (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT);
}

enum kt_code kt_err_prefix(struct kt_err *err, const char *fmt, ...)
{
	int saved = errno;
	char raw[RAW_SIZE];
	char prefix[sizeof(err->what)];
	char old[sizeof(err->what)];
	size_t len, room;
	va_list args;

	va_start(args, fmt);
	format(raw, fmt, args);
	va_end(args);
	memcpy(old, err->what, sizeof(old));
	len = kt_base_escape(raw, strlen(raw), prefix, sizeof(prefix) / 2);
	memcpy(err->what, prefix, len);
	memcpy(err->what + len, ": ", 2);
	/* What is there was escaped already, so this only cuts. */
	room = sizeof(err->what) - len - 2;
	kt_base_escape(old, strlen(old), err->what + len + 2, room);
	errno = saved;
	return err->code;
}
