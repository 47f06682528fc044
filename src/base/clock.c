/* The clocks, durations, and the printing of times. */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kt/clock.h"

static kt_ms read_clock(clockid_t id)
{
	struct timespec now;

	if (clock_gettime(id, &now) < 0)
		return 0;
	return (kt_ms)now.tv_sec * KT_SECOND + now.tv_nsec / 1000000;
}

static kt_ms system_wall(void *arg)
{
	(void)arg;
	return read_clock(CLOCK_REALTIME);
}

static kt_ms system_mono(void *arg)
{
	(void)arg;
	return read_clock(CLOCK_BOOTTIME);
}

const struct kt_clock kt_clock_system = {.wall = system_wall, .mono = system_mono};

kt_ms kt_clock_wall(const struct kt_clock *clock)
{
	return clock->wall(clock->arg);
}

kt_ms kt_clock_mono(const struct kt_clock *clock)
{
	return clock->mono(clock->arg);
}

static kt_ms fake_wall(void *arg)
{
	return ((struct kt_clock_fake *)arg)->wall;
}

static kt_ms fake_mono(void *arg)
{
	return ((struct kt_clock_fake *)arg)->mono;
}

struct kt_clock kt_clock_from_fake(struct kt_clock_fake *fake)
{
	return (struct kt_clock){.wall = fake_wall, .mono = fake_mono, .arg = fake};
}

/* --- durations --------------------------------------------------------------------------------------------------- */

static const struct {
	struct kt_view name;
	uint64_t ns;
} units[] = {
	{KT_VIEW_LIT("ns"), 1},
	{KT_VIEW_LIT("us"), 1000},
	{KT_VIEW_LIT("\xc2\xb5s"), 1000}, /* micro sign */
	{KT_VIEW_LIT("\xce\xbcs"), 1000}, /* Greek mu */
	{KT_VIEW_LIT("ms"), 1000000},
	{KT_VIEW_LIT("s"), 1000000000},
	{KT_VIEW_LIT("m"), 60000000000},
	{KT_VIEW_LIT("h"), 3600000000000},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Takes one "1.5h" off *text and adds it to *ns. KT_E_LIMIT: more than an int64 of nanoseconds. */
static enum kt_code take_part(struct kt_view *text, uint64_t *ns)
{
	uint64_t whole = 0, unit = 0, fraction = 0, scale = 1;
	size_t at = 0, digits = 0, start;

	for (; at < text->len && is_digit(text->ptr[at]); at++, digits++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(text->ptr[at] - '0'), &whole))
			return KT_E_LIMIT;
	if (at < text->len && text->ptr[at] == '.') {
		for (at++; at < text->len && is_digit(text->ptr[at]); at++, digits++) {
			/* Beyond nine digits nothing counts any more. */
			if (scale < 1000000000) {
				fraction = fraction * 10 + (uint64_t)(text->ptr[at] - '0');
				scale *= 10;
			}
		}
	}
	if (digits == 0)
		return KT_E_INVALID;
	start = at;
	while (at < text->len && text->ptr[at] != '.' && !is_digit(text->ptr[at]))
		at++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (kt_view_eq(units[i].name, (struct kt_view){text->ptr + start, at - start}))
			unit = units[i].ns;
	if (unit == 0)
		return KT_E_INVALID;
	if (__builtin_mul_overflow(whole, unit, &whole) || __builtin_add_overflow(*ns, whole, ns))
		return KT_E_LIMIT;
	/* fraction < scale <= 10^9 and unit < 2^42: split the product so that it can't overflow. */
	fraction = unit / scale * fraction + unit % scale * fraction / scale;
	if (__builtin_add_overflow(*ns, fraction, ns) || *ns > INT64_MAX)
		return KT_E_LIMIT;
	*text = (struct kt_view){text->ptr + at, text->len - at};
	return KT_OK;
}

enum kt_code kt_duration_parse(struct kt_view text, kt_ms *ret, struct kt_err *err)
{
	struct kt_view rest = text;
	int shown = (int)(text.len < 40 ? text.len : 40);
	bool negative = false;
	uint64_t ns = 0;

	if (rest.len > 0 && (rest.ptr[0] == '-' || rest.ptr[0] == '+')) {
		negative = rest.ptr[0] == '-';
		rest = (struct kt_view){rest.ptr + 1, rest.len - 1};
	}
	if (rest.len == 0)
		return kt_err_set(err, KT_E_INVALID, "a duration is missing (such as 90m or 2160h)");
	if (kt_view_eq_str(rest, "0")) {
		*ret = 0;
		return KT_OK;
	}
	while (rest.len > 0) {
		switch (take_part(&rest, &ns)) {
		case KT_OK:
			break;
		case KT_E_LIMIT:
			return kt_err_set(err, KT_E_LIMIT, "duration '%.*s' is too long", shown, text.ptr);
		default:
			return kt_err_set(err, KT_E_INVALID,
			                  "'%.*s' is no duration: numbers with h, m, s or ms, such as 1h30m", shown,
			                  text.ptr);
		}
	}
	*ret = (kt_ms)(ns / 1000000);
	if (negative)
		*ret = -*ret;
	return KT_OK;
}

char *kt_duration_format(kt_ms span, char out[32])
{
	static const struct {
		uint64_t ms;
		const char *name;
	} steps[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	uint64_t rest = span < 0 ? 0 - (uint64_t)span : (uint64_t)span;
	size_t first = 0, count = sizeof(steps) / sizeof(steps[0]);
	int len;

	if (span == 0)
		return memcpy(out, "0s", 3);
	while (rest < steps[first].ms)
		first++;
	len = snprintf(out, 32, "%s%llu%s", span < 0 ? "-" : "", (unsigned long long)(rest / steps[first].ms),
	               steps[first].name);
	rest %= steps[first].ms;
	/* Only the neighbour follows: people read "2h10m", not "2h10m3s". */
	if (first + 1 < count && steps[first].ms > 1000 && rest >= steps[first + 1].ms && len > 0)
		snprintf(out + len, 32 - (size_t)len, "%llu%s", (unsigned long long)(rest / steps[first + 1].ms),
		         steps[first + 1].name);
	return out;
}

char *kt_duration_format_go(kt_ms span, char out[32])
{
	uint64_t rest = span < 0 ? 0 - (uint64_t)span : (uint64_t)span;
	const char *sign = span < 0 ? "-" : "";
	unsigned long long hours = rest / 3600000, minutes = rest / 60000 % 60;
	unsigned seconds = (unsigned)(rest / 1000 % 60), ms = (unsigned)(rest % 1000);
	char fraction[8] = "";

	if (span == 0)
		return memcpy(out, "0s", 3);
	if (rest < 1000) {
		snprintf(out, 32, "%s%ums", sign, ms);
		return out;
	}
	if (ms > 0) {
		size_t len = (size_t)snprintf(fraction, sizeof(fraction), ".%03u", ms);
		while (fraction[len - 1] == '0')
			fraction[--len] = '\0';
	}
	if (hours > 0)
		snprintf(out, 32, "%s%lluh%llum%u%ss", sign, hours, minutes, seconds, fraction);
	else if (minutes > 0)
		snprintf(out, 32, "%s%llum%u%ss", sign, minutes, seconds, fraction);
	else
		snprintf(out, 32, "%s%u%ss", sign, seconds, fraction);
	return out;
}

/* --- calendar ---------------------------------------------------------------------------------------------------- */

/* Days since 1970-01-01 of a date in the Gregorian calendar; years are counted from March to put the leap day last. */
static int64_t days_from_civil(int64_t year, int month, int day)
{
	int64_t era, of_era, of_year;

	year -= month <= 2;
	era = (year >= 0 ? year : year - 399) / 400;
	of_era = year - era * 400;
	of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

kt_ms kt_time_civil(int64_t year, int month, int day, int hour, int minute, int second)
{
	/* Far outside what is printed; keeps the product within an int64. */
	if (year > 9999)
		return KT_TIME_MAX;
	if (year < -9999)
		year = -9999;
	return (((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * KT_SECOND;
}

void kt_time_date(kt_ms wall, int64_t *ret_year, int *ret_month, int *ret_day)
{
	int64_t days = wall / KT_DAY - (wall % KT_DAY < 0) + 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100), mp = (5 * of_year + 2) / 153;

	*ret_day = (int)(of_year - (153 * mp + 2) / 5 + 1);
	*ret_month = (int)(mp < 10 ? mp + 3 : mp - 9);
	*ret_year = year + era * 400 + (*ret_month <= 2);
}

static char *format_time(kt_ms wall, bool with_ms, char out[32])
{
	int64_t rest, year;
	int month, day;

	if (wall > KT_TIME_MAX)
		wall = KT_TIME_MAX;
	if (wall < 0)
		wall = 0;
	rest = wall % KT_DAY;
	kt_time_date(wall, &year, &month, &day);
	int len = snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, month, day, (int)(rest / KT_HOUR),
	                   (int)(rest / KT_MINUTE % 60), (int)(rest / KT_SECOND % 60));
	if (with_ms)
		snprintf(out + len, 32 - (size_t)len, ".%03dZ", (int)(rest % KT_SECOND));
	else
		snprintf(out + len, 32 - (size_t)len, "Z");
	return out;
}

char *kt_time_format(kt_ms wall, char out[32])
{
	return format_time(wall, false, out);
}

char *kt_time_format_ms(kt_ms wall, char out[32])
{
	return format_time(wall, true, out);
}
