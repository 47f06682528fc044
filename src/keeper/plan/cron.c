/* Renewal windows: cron expressions and when they open next. */
#include <string.h>
#include <strings.h>

#include "keeper/plan/plan_internal.h"

#define DAY_S 86400
#define SEARCH_DAYS (5 * 366)

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

/* One field: its range and the names that may stand for numbers. */
struct field {
	const char *what;
	unsigned low, high;
	const char *const *names;
	unsigned name_count;
};

static const struct field fields[] = {
        {"minute", 0, 59, NULL, 0},
        {"hour", 0, 23, NULL, 0},
        {"day of month", 1, 31, NULL, 0},
        {"month", 1, 12, month_names, 12},
        {"day of week", 0, 7, weekday_names, 7}, /* 7 is Sunday too */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A number or a name at *p; moves *p on. */
static bool read_value(const char **p, const char *end, const struct field *field, unsigned *ret)
{
	unsigned value = 0;
	const char *at = *p;

	for (unsigned i = 0; i < field->name_count; i++) {
		if (end - at >= 3 && strncasecmp(at, field->names[i], 3) == 0) {
			*p = at + 3;
			*ret = i + field->low;
			return true;
		}
	}
	while (at < end && is_digit(*at) && value < 1000)
		value = value * 10 + (unsigned)(*at++ - '0');
	if (at == *p || value < field->low || value > field->high)
		return false;
	*p = at;
	*ret = value;
	return true;
}

static bool read_step(const char **p, const char *end, unsigned *ret)
{
	unsigned value = 0;
	const char *at = *p;

	while (at < end && is_digit(*at) && value < 1000)
		value = value * 10 + (unsigned)(*at++ - '0');
	if (at == *p || value == 0)
		return false;
	*p = at;
	*ret = value;
	return true;
}

/* A list of "*", "a", "a-b", each with an optional "/step"; sets bits and whether it is unrestricted. */
static bool read_field(const char *p, const char *end, const struct field *field, uint64_t *ret_bits, bool *ret_any)
{
	const unsigned last = field->high == 7 ? 6 : field->high; /* what a star or "5/15" goes to */

	*ret_bits = 0;
	*ret_any = false;
	for (;;) {
		unsigned from, to, step = 1;
		bool star = false;

		if (p < end && (*p == '*' || *p == '?')) {
			from = field->low;
			to = last;
			star = true;
			p++;
		} else {
			if (!read_value(&p, end, field, &from))
				return false;
			to = from;
			if (p < end && *p == '-') {
				p++;
				if (!read_value(&p, end, field, &to) || to < from)
					return false;
			} else if (p < end && *p == '/') {
				to = last; /* "5/15" is "5-59/15" */
			}
		}
		if (p < end && *p == '/') {
			p++;
			if (!read_step(&p, end, &step))
				return false;
		}
		*ret_any = *ret_any || (star && step == 1); /* a star with a step restricts */
		for (unsigned v = from; v <= to; v += step)
			*ret_bits |= UINT64_C(1) << v;
		if (p == end)
			return true;
		if (*p++ != ',')
			return false;
	}
}

static struct kt_view expand(struct kt_view text)
{
	static const struct {
		const char *name, *means;
	} shorthand[] = {{"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
	                 {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
	                 {"@hourly", "0 * * * *"}};

	for (size_t i = 0; i < sizeof(shorthand) / sizeof(shorthand[0]); i++) {
		if (kt_view_eq_str(text, shorthand[i].name))
			return kt_view_str(shorthand[i].means);
	}
	return text;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

enum kt_code kt_plan_cron_parse(struct kt_view text, struct kt_plan_cron *ret, struct kt_err *err)
{
	uint64_t bits[5];
	bool any[5];
	const char *p, *end;

	*ret = (struct kt_plan_cron){0};
	if (text.len == 0 || text.len > 256)
		return kt_err_set(err, KT_E_INVALID, "a cron expression has five fields, such as \"30 2 * * 6\"");
	text = expand(text);
	p = text.ptr;
	end = text.ptr + text.len;
	for (size_t i = 0; i < 5; i++) {
		const char *start;

		while (p < end && is_space(*p))
			p++;
		for (start = p; p < end && !is_space(*p);)
			p++;
		if (start == p)
			return kt_err_set(err, KT_E_INVALID, "cron expression \"%.*s\": the field %s is missing", (int)text.len,
			                  text.ptr, fields[i].what);
		if (!read_field(start, p, &fields[i], &bits[i], &any[i]))
			return kt_err_set(err, KT_E_INVALID, "cron expression \"%.*s\": \"%.*s\" is no %s", (int)text.len, text.ptr,
			                  (int)(p - start), start, fields[i].what);
	}
	while (p < end && is_space(*p))
		p++;
	if (p != end)
		return kt_err_set(err, KT_E_INVALID, "cron expression \"%.*s\" has more than five fields", (int)text.len,
		                  text.ptr);
	ret->minutes = bits[0];
	ret->hours = (uint32_t)bits[1];
	ret->days = (uint32_t)bits[2];
	ret->months = (uint16_t)bits[3];
	ret->weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7f);
	ret->any_day = any[2];
	ret->any_weekday = any[4];
	return KT_OK;
}

/* ---- when ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Gregorian month (1..12) and day (1..31) of a day since the epoch. */
static void civil(int64_t day, int *ret_month, int *ret_day)
{
	/* Counted from 1 March of year 0: the leap day then ends a year, and months follow one linear rule. */
	int64_t since = day + 719468, era = floor_div(since, 146097), of_era = since - era * 146097;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153;

	*ret_day = (int)(of_year - (153 * m + 2) / 5 + 1);
	*ret_month = (int)(m < 10 ? m + 3 : m - 9);
}

static bool day_matches(const struct kt_plan_cron *cron, int64_t day)
{
	int month, of_month, weekday = (int)(((day + 4) % 7 + 7) % 7); /* the epoch was a Thursday */
	bool by_day, by_weekday;

	civil(day, &month, &of_month);
	if (!(cron->months >> month & 1))
		return false;
	by_day = cron->days >> of_month & 1;
	by_weekday = cron->weekdays >> weekday & 1;
	return cron->any_day || cron->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Local seconds to UTC. A time that a change to summer time skips opens as long after the gap as it lies inside it. */
static int64_t to_utc(const struct kt_plan_zone *zone, int64_t local)
{
	int64_t before = local - kt_plan_zone_offset(zone, (local - DAY_S) * 1000);
	int64_t after = local - kt_plan_zone_offset(zone, (local + DAY_S) * 1000);

	/* The earlier one that reads as `local` again; in a gap neither does, and the old offset leads behind it. */
	if (before + kt_plan_zone_offset(zone, before * 1000) == local)
		return before;
	return after + kt_plan_zone_offset(zone, after * 1000) == local ? after : before;
}

/* The first opening strictly after `after`; KT_TIME_MAX when none within SEARCH_DAYS. */
static kt_ms next_opening(const struct kt_plan_window *window, kt_ms after)
{
	int64_t second = floor_div(after, 1000), day;

	day = floor_div(second + kt_plan_zone_offset(window->zone, after), DAY_S) - 1;
	for (int64_t end = day + SEARCH_DAYS; day < end; day++) {
		if (!day_matches(&window->cron, day))
			continue;
		for (int hour = 0; hour < 24; hour++) {
			if (!(window->cron.hours >> hour & 1))
				continue;
			/* An hour that is over in any zone's reckoning is not searched minute by minute. */
			if (day * DAY_S + hour * 3600 + 30 * 3600 < second)
				continue;
			for (int minute = 0; minute < 60; minute++) {
				kt_ms at;

				if (!(window->cron.minutes >> minute & 1))
					continue;
				at = to_utc(window->zone, day * DAY_S + hour * 3600 + minute * 60) * 1000;
				if (at > after)
					return at;
			}
		}
	}
	return KT_TIME_MAX;
}

kt_ms kt_plan_window_next(const struct kt_plan_window *windows, size_t count, kt_ms at, kt_ms *ret_end)
{
	kt_ms best = KT_TIME_MAX, best_end = KT_TIME_MAX;

	at = kt_plan_bound(at);
	if (ret_end)
		*ret_end = KT_TIME_MAX;
	if (count == 0)
		return at;
	for (size_t i = 0; i < count; i++) {
		kt_ms span = kt_plan_min(kt_plan_max(windows[i].duration, 0), 366 * KT_DAY);
		/* Open at `at` if it opened later than one span ago; else this is when it opens next. */
		kt_ms opens = next_opening(&windows[i], kt_plan_add(at, -span));
		kt_ms from = kt_plan_max(opens, at);

		if (opens == KT_TIME_MAX || from > best)
			continue;
		if (from < best || kt_plan_add(opens, span) > best_end)
			best_end = kt_plan_add(opens, span);
		best = from;
	}
	if (ret_end)
		*ret_end = best_end;
	return kt_plan_min(best, KT_TIME_MAX);
}
