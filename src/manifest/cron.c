/* Cron expressions: parsing, the next firing in a time zone, and whether a maintenance window is open. */
#include "manifest/cron.h"

#include <string.h>
#include <strings.h>

#include "kt/manifest.h"
#include "kt/text.h"

#define DAY        ((int64_t)86400)
#define DAYS_AHEAD 1830 /* five years: 29 February comes round in it */

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL",
					  "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const day_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};

struct part {
	unsigned min, max;
	const char *const *names; /* of min and up */
	const char *problem;
};

static const struct part parts[5] = {
	{0, 59, NULL, "has a wrong first field: minutes are 0-59"},
	{0, 23, NULL, "has a wrong second field: hours are 0-23"},
	{1, 31, NULL, "has a wrong third field: days of the month are 1-31"},
	{1, 12, month_names, "has a wrong fourth field: months are 1-12 or JAN-DEC"},
	{0, 7, day_names, "has a wrong fifth field: days of the week are 0-7 or SUN-SAT"},
};

static bool number(const char **at, const struct part *part, unsigned *ret)
{
	size_t digits = strspn(*at, "0123456789");
	uint64_t n;

	if (digits) {
		if (kt_parse_u64((struct kt_view){*at, digits}, part->max, &n, NULL) != KT_OK || n < part->min)
			return false;
		*ret = (unsigned)n;
		*at += digits;
		return true;
	}
	for (unsigned i = 0; part->names && part->names[i]; i++) {
		if (!strncasecmp(*at, part->names[i], 3)) {
			*ret = part->min + i;
			*at += 3;
			return true;
		}
	}
	return false;
}

/* One entry of a list: star, n, n-m, each with an optional step. */
static bool entry(const char **at, const struct part *part, uint64_t *bits, bool *star)
{
	unsigned low, high, step = 1;
	bool all = false;

	if (**at == '*' || **at == '?') {
		(*at)++;
		low = part->min;
		high = part->names == day_names ? 6 : part->max;
		all = true;
	} else {
		if (!number(at, part, &low))
			return false;
		high = low;
		if (**at == '-') {
			(*at)++;
			if (!number(at, part, &high) || high < low)
				return false;
		} else if (**at == '/') {
			high = part->names == day_names ? 6 : part->max;
		}
	}
	if (**at == '/') {
		struct part any = {1, 59, NULL, NULL};

		(*at)++;
		if (!number(at, &any, &step))
			return false;
	}
	*star = *star || (all && step == 1); /* a star with a step restricts */
	for (unsigned i = low; i <= high; i += step)
		*bits |= UINT64_C(1) << i;
	return true;
}

static bool parse_part(const char **at, const struct part *part, uint64_t *bits, bool *star)
{
	*bits = 0;
	*star = false;
	for (;;) {
		if (!entry(at, part, bits, star))
			return false;
		if (**at != ',')
			return **at == ' ' || **at == '\t' || !**at;
		(*at)++;
	}
}

static const char *expand(const char *text)
{
	static const struct {
		const char *name, *cron;
	} words[] = {{"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
		     {"@weekly", "0 0 * * 0"},  {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
		     {"@annually", "0 0 1 1 *"}};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(words[i].name, text))
			return words[i].cron;
	}
	return text;
}

const char *kt_cron_parse(const char *text, struct kt_cron *cron)
{
	const char *at = expand(text);
	uint64_t bits[5];
	bool star[5];

	if (strlen(text) > 256)
		return "is longer than 256 bytes";
	for (unsigned i = 0; i < 5; i++) {
		at += strspn(at, " \t");
		if (!*at)
			return "must have five fields: minute, hour, day of the month, month, day of the week";
		if (!parse_part(&at, &parts[i], &bits[i], &star[i]))
			return parts[i].problem;
	}
	at += strspn(at, " \t");
	if (*at)
		return "must have five fields: minute, hour, day of the month, month, day of the week";
	*cron = (struct kt_cron){
		.minutes = bits[0],
		.hours = (uint32_t)bits[1],
		.days = (uint32_t)bits[2],
		.months = (uint32_t)bits[3],
		.weekdays = (uint32_t)((bits[4] | bits[4] >> 7) & 0x7f), /* 7 is Sunday too */
		.any_day = star[2],
		.any_weekday = star[4],
	};
	return NULL;
}

/* --- the next firing --------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Month (1..12) and day (1..31) of a day number since the epoch (Howard Hinnant's civil_from_days). */
static void civil(int64_t days, unsigned *month, unsigned *day)
{
	int64_t z = days + 719468, era = floor_div(z, 146097);
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
	*month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
}

static bool day_matches(const struct kt_cron *cron, int64_t days)
{
	unsigned month, day, weekday = (unsigned)(((days + 4) % 7 + 7) % 7);
	bool by_day, by_weekday;

	civil(days, &month, &day);
	if (!(cron->months & (1u << month)))
		return false;
	by_day = cron->days & (1u << day);
	by_weekday = cron->weekdays & (1u << weekday);
	return cron->any_day || cron->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Local time to UTC; see kt_cron_next for times that come twice or never. */
static int64_t to_utc(const struct kt_zone *zone, int64_t local)
{
	int32_t before = kt_zone_offset(zone, local - DAY), after = kt_zone_offset(zone, local + DAY);
	int64_t low = local - after, high = local - before;

	if (before == after || kt_zone_offset(zone, high) == before)
		return high;
	if (kt_zone_offset(zone, low) == after)
		return low;
	while (high - low > 1) {
		int64_t mid = low + (high - low) / 2;

		if (kt_zone_offset(zone, mid) == before)
			low = mid;
		else
			high = mid;
	}
	return high;
}

/* The first firing of a day at or after from; INT64_MAX when there is none. */
static int64_t next_in_day(const struct kt_cron *cron, const struct kt_zone *zone, int64_t days, int64_t from)
{
	for (int hour = 0; hour < 24; hour++) {
		/* A clock change is never more than a few hours: skip what is surely before. */
		if (!(cron->hours & (1u << hour)))
			continue;
		for (int minute = 0; minute < 60; minute++) {
			int64_t at;

			if (!(cron->minutes & (UINT64_C(1) << minute)))
				continue;
			at = to_utc(zone, days * DAY + hour * 3600 + minute * 60);
			if (at >= from)
				return at;
		}
	}
	return INT64_MAX;
}

int64_t kt_cron_next(const struct kt_cron *cron, const struct kt_zone *zone, int64_t from)
{
	int64_t first = floor_div(from + kt_zone_offset(zone, from), DAY);

	for (int64_t days = first; days < first + DAYS_AHEAD; days++) {
		int64_t at = day_matches(cron, days) ? next_in_day(cron, zone, days, from) : INT64_MAX;

		if (at != INT64_MAX)
			return at;
	}
	return INT64_MAX;
}

/* --- windows --------------------------------------------------------------------------------------------------------
 */

enum kt_code kt_windows_prepare(const struct kt_windows *windows, struct kt_err *err)
{
	for (uint32_t i = 0; i < windows->count; i++) {
		const struct kt_zone *zone;
		enum kt_code code = kt_zone_get(windows->items[i].timezone, &zone, err);

		if (code != KT_OK)
			return code;
	}
	return KT_OK;
}

enum kt_code kt_windows_next(const struct kt_windows *windows, kt_ms now, kt_ms *ret, struct kt_err *err)
{
	*ret = windows->count ? KT_TIME_MAX : now;
	for (uint32_t i = 0; i < windows->count; i++) {
		const struct kt_window *window = &windows->items[i];
		const struct kt_zone *zone;
		struct kt_cron cron;
		const char *problem = kt_cron_parse(window->cron, &cron);
		enum kt_code code = kt_zone_get(window->timezone, &zone, err);
		int64_t fires;

		if (problem)
			return kt_err_set(err, KT_E_INVALID, "cron (%s) %s", window->cron, problem);
		if (code != KT_OK)
			return code;
		/* A firing in (now - length, now] means that the window is open; else the first one after now is next.
		 */
		fires = kt_cron_next(&cron, zone, floor_div(now - window->window_duration, 1000) + 1);
		if (fires > KT_TIME_MAX / 1000)
			continue;
		if (fires * 1000 <= now)
			fires = -1;
		if (fires < 0) {
			*ret = now;
			return KT_OK;
		}
		if (fires * 1000 < *ret)
			*ret = fires * 1000;
	}
	return KT_OK;
}
