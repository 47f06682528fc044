/* Cron expressions of five fields and time zones, for maintenance windows. */
#ifndef KT_MANIFEST_CRON_H
#define KT_MANIFEST_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/clock.h"
#include "kt/err.h"

/* Sets of minutes, hours, days, months, weekdays (0 Sunday) as bits. */
struct kt_cron {
	uint64_t minutes;
	uint32_t hours;
	uint32_t days;
	uint32_t months;
	uint32_t weekdays;
	bool any_day, any_weekday; /* written as a star: both restricted means either (as cron does) */
};

/* NULL when good, else what is wrong. Also @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually. */
const char *kt_cron_parse(const char *text, struct kt_cron *cron);

/* A time zone read from zoneinfo (RFC 8536), kept for the life of the process. */
struct kt_zone;
bool kt_zone_name_ok(const char *name);
enum kt_code kt_zone_get(const char *name, const struct kt_zone **ret, struct kt_err *err);
/* Seconds east of UTC at a time (seconds since the epoch). */
int32_t kt_zone_offset(const struct kt_zone *zone, int64_t utc);
/* For tests: the folder in place of /usr/share/zoneinfo; drops what is kept. NULL: the default. */
void kt_zone_set_folder(const char *folder);

/* The first firing at or after `from` (seconds); INT64_MAX when none within 5 years. A time that the clock skips fires
 * at the moment of the jump, one that it shows twice fires the first time. */
int64_t kt_cron_next(const struct kt_cron *cron, const struct kt_zone *zone, int64_t from);

#endif
