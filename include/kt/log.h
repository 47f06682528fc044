/* Log lines to standard error: text for people or JSON for machines; takes no secrets by type. */
#ifndef KT_LOG_H
#define KT_LOG_H

#include <stdbool.h>

#include "kt/err.h"

enum kt_level { KT_LOG_ERROR, KT_LOG_WARN, KT_LOG_INFO, KT_LOG_DEBUG, KT_LOG_TRACE };

/* room: "warden", "keeper", ... (static string). Lines above `level` are dropped. */
void kt_log_setup(const char *room, enum kt_level level, bool json);
enum kt_level kt_log_level(void);

/* One line; control characters are escaped; at most 2 KiB. */
void kt_log(enum kt_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "<text>: <err->what>". */
void kt_log_err(enum kt_level level, const struct kt_err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

/* Captures lines instead of writing them, for tests; NULL ends it. */
void kt_log_capture(void (*sink)(enum kt_level level, const char *line, void *arg), void *arg);

#endif
