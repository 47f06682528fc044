/* When renewal windows open: cron expressions of five fields and the time zones that they are read in. */
#ifndef KT_CRON_H
#define KT_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"

/* A time zone; where one is asked for, NULL is UTC. */
struct kt_zone;

/* True for a name that is safe to look up in zoneinfo ("Europe/Berlin"; below 64 bytes, no dots, no leading '/'). */
bool kt_zone_name_ok(const char *name);
/* From the bytes of a TZif file (RFC 8536) of version 2 or later; at most 128 KiB of them. */
enum kt_code kt_zone_parse(struct kt_view tzif, struct kt_zone **ret, struct kt_err *err);
/* From /usr/share/zoneinfo; NULL for UTC. KT_E_INVALID for what is no name, else as kt_io_read_file. */
enum kt_code kt_zone_read(const char *name, struct kt_zone **ret, struct kt_err *err);
/* Whether this machine has zoneinfo at all. */
bool kt_zone_machine_has_any(void);
void kt_zone_destroy(struct kt_zone *zone);
/* Seconds east of UTC at a wall time. */
int32_t kt_zone_offset(const struct kt_zone *zone, kt_ms wall);

/* A five-field cron expression as bit sets (Vixie's rules: day of month OR day of week when both are restricted). */
struct kt_cron {
	uint64_t minutes; /* bit 0..59 */
	uint32_t hours;   /* bit 0..23 */
	uint32_t days;    /* bit 1..31 */
	uint32_t months;  /* bit 1..12 */
	uint32_t weekdays; /* bit 0..6, Sunday is 0 */
	bool any_day, any_weekday;
};

/*
 * "30 2 * * 1-5", names of months and weekdays, steps, lists, @daily and its kin. NULL when good, else what is wrong with
 * it, to follow the expression's name ("has a wrong second field: hours are 0-23").
 */
const char *kt_cron_parse(const char *text, struct kt_cron *ret);
/*
 * The first firing strictly after `after`; KT_TIME_MAX when there is none within five years. A local time that the clock
 * skips fires as long after the gap as it lies inside it, one that it shows twice fires the first time.
 */
kt_ms kt_cron_next(const struct kt_cron *cron, const struct kt_zone *zone, kt_ms after);

#endif
