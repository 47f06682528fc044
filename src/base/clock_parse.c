/* Reading times that others wrote: RFC 3339, the three HTTP dates, Retry-After. */
#include "config.h"

#include <string.h>

#include "base/base_internal.h"
#include "kt/clock.h"
#include "kt/text.h"

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char *const days[] = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"};

/* What is still to be read; `bad` sticks, so that callers check once. */
struct cursor {
	const char *at;
	size_t left;
	bool bad;
};

static int take_number(struct cursor *in, size_t digits)
{
	int value = 0;

	if (in->bad || in->left < digits) {
		in->bad = true;
		return 0;
	}
	for (size_t i = 0; i < digits; i++) {
		if (in->at[i] < '0' || in->at[i] > '9') {
			in->bad = true;
			return 0;
		}
		value = value * 10 + (in->at[i] - '0');
	}
	in->at += digits;
	in->left -= digits;
	return value;
}

static bool take_char(struct cursor *in, const char *any_of)
{
	if (in->bad || in->left == 0 || in->at[0] == '\0' || !strchr(any_of, in->at[0])) {
		in->bad = true;
		return false;
	}
	in->at++;
	in->left--;
	return true;
}

static void take_text(struct cursor *in, const char *text)
{
	size_t len = strlen(text);

	if (in->bad || in->left < len || memcmp(in->at, text, len) != 0) {
		in->bad = true;
		return;
	}
	in->at += len;
	in->left -= len;
}

static int take_month(struct cursor *in)
{
	if (!in->bad && in->left >= 3) {
		for (int i = 0; i < 12; i++) {
			if (memcmp(in->at, months + 3 * i, 3) == 0) {
				in->at += 3;
				in->left -= 3;
				return i + 1;
			}
		}
	}
	in->bad = true;
	return 1;
}

static bool in_range(int year, int month, int day, int hour, int minute, int second)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (month < 1 || month > 12 || day < 1)
		return false;
	if (day > lengths[month - 1] + (month == 2 && kt_base_leap_year(year)))
		return false;
	return hour <= 23 && minute <= 59 && second <= 60; /* 60: a leap second reads as the next minute */
}

static kt_ms clamp(kt_ms wall)
{
	return wall > KT_TIME_MAX ? KT_TIME_MAX : wall;
}

enum kt_code kt_time_parse(struct kt_view text, kt_ms *ret, struct kt_err *err)
{
	struct cursor in = {text.ptr, text.len, false};
	int year, month, day, hour, minute, second, ms = 0, offset = 0;
	bool east;

	year = take_number(&in, 4);
	take_char(&in, "-");
	month = take_number(&in, 2);
	take_char(&in, "-");
	day = take_number(&in, 2);
	take_char(&in, "Tt ");
	hour = take_number(&in, 2);
	take_char(&in, ":");
	minute = take_number(&in, 2);
	take_char(&in, ":");
	second = take_number(&in, 2);
	if (!in.bad && in.left > 0 && in.at[0] == '.') {
		int digits = 0;

		take_char(&in, ".");
		for (int scale = 100; in.left > 0 && in.at[0] >= '0' && in.at[0] <= '9'; scale /= 10, digits++)
			ms += take_number(&in, 1) * scale;
		in.bad |= digits == 0 || digits > 9;
	}
	if (!in.bad && in.left > 0 && (in.at[0] == '+' || in.at[0] == '-')) {
		int hours, minutes;

		east = in.at[0] == '+';
		take_char(&in, "+-");
		hours = take_number(&in, 2);
		take_char(&in, ":");
		minutes = take_number(&in, 2);
		in.bad |= hours > 23 || minutes > 59;
		offset = (hours * 60 + minutes) * (east ? 1 : -1);
	} else {
		take_char(&in, "Zz");
	}
	if (in.bad || in.left > 0 || !in_range(year, month, day, hour, minute, second))
		return kt_err_set(err, KT_E_INVALID, "not an RFC 3339 time such as 2026-11-23T09:56:29Z");
	*ret = clamp(kt_time_civil(year, month, day, hour, minute, second) + ms - offset * KT_MINUTE);
	return KT_OK;
}

static void take_clock(struct cursor *in, int *hour, int *minute, int *second)
{
	*hour = take_number(in, 2);
	take_char(in, ":");
	*minute = take_number(in, 2);
	take_char(in, ":");
	*second = take_number(in, 2);
}

/* RFC 9110: a two-digit year that seems more than 50 years ahead is the most recent past one with those digits. */
static int expand_year(int two)
{
	char now[32];
	struct kt_view head = {kt_time_format(kt_clock_wall(&kt_clock_system), now), 4};
	uint64_t this_year = 1970;

	(void)kt_parse_u64(head, 9999, &this_year, NULL);
	int year = (int)this_year / 100 * 100 + two;
	return year > (int)this_year + 50 ? year - 100 : year;
}

/* Takes the name of a day off the front: the whole one (*ret_whole) or its first three letters. */
static void take_day_name(struct cursor *in, bool *ret_whole)
{
	for (size_t i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
		size_t len = strlen(days[i]);

		if (in->left < 3 || memcmp(in->at, days[i], 3) != 0)
			continue;
		*ret_whole = in->left >= len && memcmp(in->at, days[i], len) == 0;
		len = *ret_whole ? len : 3;
		in->at += len;
		in->left -= len;
		return;
	}
	in->bad = true;
}

enum kt_code kt_time_parse_http(struct kt_view text, kt_ms *ret, struct kt_err *err)
{
	struct cursor in = {text.ptr, text.len, false};
	int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
	bool whole = false;

	take_day_name(&in, &whole);
	if (whole) { /* Sunday, 06-Nov-94 08:49:37 GMT */
		take_text(&in, ", ");
		day = take_number(&in, 2);
		take_char(&in, "-");
		month = take_month(&in);
		take_char(&in, "-");
		year = expand_year(take_number(&in, 2));
		take_char(&in, " ");
		take_clock(&in, &hour, &minute, &second);
		take_text(&in, " GMT");
	} else if (!in.bad && in.left > 0 && in.at[0] == ',') { /* Sun, 06 Nov 1994 08:49:37 GMT */
		take_text(&in, ", ");
		day = take_number(&in, 2);
		take_char(&in, " ");
		month = take_month(&in);
		take_char(&in, " ");
		year = take_number(&in, 4);
		take_char(&in, " ");
		take_clock(&in, &hour, &minute, &second);
		take_text(&in, " GMT");
	} else { /* Sun Nov  6 08:49:37 1994 */
		take_char(&in, " ");
		month = take_month(&in);
		take_char(&in, " ");
		if (!in.bad && in.left > 0 && in.at[0] == ' ') {
			take_char(&in, " ");
			day = take_number(&in, 1);
		} else {
			day = take_number(&in, 2);
		}
		take_char(&in, " ");
		take_clock(&in, &hour, &minute, &second);
		take_char(&in, " ");
		year = take_number(&in, 4);
	}
	if (in.bad || in.left > 0 || !in_range(year, month, day, hour, minute, second))
		return kt_err_set(err, KT_E_INVALID, "not an HTTP date");
	*ret = clamp(kt_time_civil(year, month, day, hour, minute, second));
	return KT_OK;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

int64_t kt_retry_after(struct kt_view value, kt_ms now_wall)
{
	enum { LEAST = 1, MOST = 24 * 3600 };
	uint64_t seconds = 0;
	kt_ms at, wait;

	while (value.len > 0 && is_blank(value.ptr[0]))
		value = (struct kt_view){value.ptr + 1, value.len - 1};
	while (value.len > 0 && is_blank(value.ptr[value.len - 1]))
		value.len--;
	switch (kt_parse_u64(value, MOST, &seconds, NULL)) {
	case KT_OK:
		return seconds < LEAST ? LEAST : (int64_t)seconds;
	case KT_E_LIMIT:
		/* Above the limit so far; garbage may still follow. */
		for (size_t i = 0; i < value.len; i++)
			if (value.ptr[i] < '0' || value.ptr[i] > '9')
				return 0;
		return MOST;
	default:
		break;
	}
	if (kt_time_parse_http(value, &at, NULL) != KT_OK)
		return 0;
	wait = (at - now_wall + KT_SECOND - 1) / KT_SECOND;
	if (wait < LEAST)
		return LEAST;
	return wait > MOST ? MOST : wait;
}
