/* Cron expressions: parsing, and the next firing in a time zone. */
#include "kt/cron.h"

#include <string.h>
#include <strings.h>

#include "kt/text.h"

#define DAY_S ((int64_t)86400)
#define SEARCH_DAYS (5 * 366) /* 29 February comes round in it */

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

const char *kt_cron_parse(const char *text, struct kt_cron *ret)
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
	*ret = (struct kt_cron){
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

static bool day_matches(const struct kt_cron *cron, int64_t day)
{
	int month, of_month, weekday = (int)(((day + 4) % 7 + 7) % 7); /* the epoch was a Thursday */
	bool by_day, by_weekday;
	int64_t year;

	kt_time_date(day * KT_DAY, &year, &month, &of_month);
	if (!(cron->months >> month & 1))
		return false;
	by_day = cron->days >> of_month & 1;
	by_weekday = cron->weekdays >> weekday & 1;
	return cron->any_day || cron->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Local seconds to UTC, as kt_cron_next says of times that come twice or never. */
static int64_t to_utc(const struct kt_zone *zone, int64_t local)
{
	int64_t before = local - kt_zone_offset(zone, (local - DAY_S) * 1000);
	int64_t after = local - kt_zone_offset(zone, (local + DAY_S) * 1000);

	/* The earlier one that reads as `local` again; in a gap neither does, and the old offset leads behind it. */
	if (before + kt_zone_offset(zone, before * 1000) == local)
		return before;
	return after + kt_zone_offset(zone, after * 1000) == local ? after : before;
}

kt_ms kt_cron_next(const struct kt_cron *cron, const struct kt_zone *zone, kt_ms after)
{
	int64_t second, day;

	after = after > KT_TIME_MAX ? KT_TIME_MAX : after < -KT_TIME_MAX ? -KT_TIME_MAX : after;
	second = floor_div(after, 1000);
	day = floor_div(second + kt_zone_offset(zone, after), DAY_S) - 1;
	for (int64_t end = day + SEARCH_DAYS; day < end; day++) {
		if (!day_matches(cron, day))
			continue;
		for (int hour = 0; hour < 24; hour++) {
			if (!(cron->hours >> hour & 1))
				continue;
			/* An hour that is over in any zone's reckoning is not searched minute by minute. */
			if (day * DAY_S + hour * 3600 + 30 * 3600 < second)
				continue;
			for (int minute = 0; minute < 60; minute++) {
				kt_ms at;

				if (!(cron->minutes >> minute & 1))
					continue;
				at = to_utc(zone, day * DAY_S + hour * 3600 + minute * 60) * 1000;
				if (at > after)
					return at;
			}
		}
	}
	return KT_TIME_MAX;
}
