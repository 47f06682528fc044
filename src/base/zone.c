/* Time zones: the TZif files of zoneinfo (RFC 8536) and the rule that they end with. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base_internal.h"
#include "kt/cron.h"
#include "kt/io.h"
#include "kt/mem.h"

#define FOLDER "/usr/share/zoneinfo"
#define NAME_MAX_LEN 63u
#define TZIF_MAX ((size_t)128 * 1024)
#define TZIF_HEADER 44
#define OFFSET_MAX (26 * 3600)
#define DAY_S 86400

/* One half of a POSIX rule: Mm.w.d, Jn or n, and a time of day (RFC 8536 section 3.3.1 allows -167 to 167 hours). */
struct rule {
	char form; /* 'M', 'J' or 'n' */
	int month, week, day;
	int32_t time;
};

struct kt_zone {
	size_t count;
	int64_t *at;     /* from when on, seconds */
	int32_t *offset; /* count entries: the offset from at[i] on */
	int32_t first;   /* before at[0] */
	/* after the last transition */
	bool has_tail, has_dst;
	int32_t standard, summer;
	struct rule starts, ends;
};

void kt_zone_destroy(struct kt_zone *zone)
{
	if (!zone)
		return;
	kt_free(zone->at);
	kt_free(zone->offset);
	kt_free(zone);
}

bool kt_zone_name_ok(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-_/");

	return n && !name[n] && n <= NAME_MAX_LEN && *name != '/' && *name != '-' && !strstr(name, "//") &&
	       name[n - 1] != '/';
}

/* ---- the rule at the end ---- */

struct text {
	const char *p, *end;
};

static bool take(struct text *t, char c)
{
	if (t->p >= t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

static bool number(struct text *t, int max, int *ret)
{
	int value = 0;
	const char *start = t->p;

	while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && value <= 1000)
		value = value * 10 + (*t->p++ - '0');
	*ret = value;
	return t->p > start && value <= max;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static bool clock_time(struct text *t, int max_hours, int32_t *ret)
{
	int h, m = 0, s = 0, sign = 1;

	if (take(t, '-'))
		sign = -1;
	else
		take(t, '+');
	if (!number(t, max_hours, &h) || (take(t, ':') && (!number(t, 59, &m) || (take(t, ':') && !number(t, 59, &s)))))
		return false;
	*ret = sign * (h * 3600 + m * 60 + s);
	return true;
}

static bool zone_letters(struct text *t)
{
	const char *start = t->p;

	if (take(t, '<')) {
		while (t->p < t->end && *t->p != '>')
			t->p++;
		return take(t, '>');
	}
	while (t->p < t->end && ((*t->p >= 'A' && *t->p <= 'Z') || (*t->p >= 'a' && *t->p <= 'z')))
		t->p++;
	return t->p - start >= 3;
}

static bool read_rule(struct text *t, struct rule *rule)
{
	rule->time = 2 * 3600;
	if (take(t, 'M')) {
		rule->form = 'M';
		if (!number(t, 12, &rule->month) || rule->month < 1 || !take(t, '.') || !number(t, 5, &rule->week) ||
		    rule->week < 1 || !take(t, '.') || !number(t, 6, &rule->day))
			return false;
	} else {
		rule->form = take(t, 'J') ? 'J' : 'n';
		if (!number(t, 365, &rule->day) || (rule->form == 'J' && rule->day < 1))
			return false;
	}
	return !take(t, '/') || clock_time(t, 167, &rule->time);
}

/* "CET-1CEST,M3.5.0,M10.5.0/3". West is positive there; here east is. */
static bool read_tail(struct kt_zone *zone, const char *p, const char *end)
{
	struct text t = {p, end};
	int32_t west;

	if (!zone_letters(&t) || !clock_time(&t, 24, &west))
		return false;
	zone->standard = -west;
	zone->has_tail = true;
	if (t.p == t.end)
		return true;
	if (!zone_letters(&t))
		return false;
	zone->summer = zone->standard + 3600;
	if (t.p < t.end && *t.p != ',') {
		if (!clock_time(&t, 24, &west))
			return false;
		zone->summer = -west;
	}
	zone->has_dst = true;
	return take(&t, ',') && read_rule(&t, &zone->starts) && take(&t, ',') && read_rule(&t, &zone->ends) && t.p == t.end;
}

static int64_t days_of_year(int64_t year)
{
	return kt_time_civil(year, 1, 1, 0, 0, 0) / KT_DAY;
}

/* The second (local, by the offset before) when the rule strikes in a year. */
static int64_t strikes(const struct rule *rule, int64_t year)
{
	int64_t day;

	if (rule->form == 'M') {
		int64_t first = kt_time_civil(year, rule->month, 1, 0, 0, 0) / KT_DAY, length, weekday;

		length = (rule->month == 12 ? days_of_year(year + 1)
		                            : kt_time_civil(year, rule->month + 1, 1, 0, 0, 0) / KT_DAY) -
		         first;
		weekday = ((first + 4) % 7 + 7) % 7;
		day = (rule->day - weekday + 7) % 7 + 7 * (rule->week - 1);
		if (day >= length)
			day -= 7; /* week 5 means the last one */
		day += first;
	} else {
		day = days_of_year(year) + rule->day;
		/* J counts from 1 and never counts the leap day. */
		if (rule->form == 'J' && !(kt_base_leap_year(year) && rule->day >= 60))
			day--;
	}
	return day * DAY_S + rule->time;
}

static int32_t tail_offset(const struct kt_zone *zone, int64_t second)
{
	int64_t local = second + zone->standard, year, from, to;
	int month, day;

	if (!zone->has_dst)
		return zone->standard;
	kt_time_date(local > KT_TIME_MAX / 1000 ? KT_TIME_MAX : local * 1000, &year, &month, &day);
	from = strikes(&zone->starts, year) - zone->standard;
	to = strikes(&zone->ends, year) - zone->summer;
	if (from < to)
		return second >= from && second < to ? zone->summer : zone->standard;
	return second >= from || second < to ? zone->summer : zone->standard; /* the southern hemisphere */
}

int32_t kt_zone_offset(const struct kt_zone *zone, kt_ms wall)
{
	int64_t second;
	size_t low = 0, high;

	if (!zone)
		return 0;
	wall = wall > KT_TIME_MAX ? KT_TIME_MAX : wall < -KT_TIME_MAX ? -KT_TIME_MAX : wall;
	second = wall / 1000 - (wall % 1000 < 0);
	high = zone->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (zone->at[middle] <= second)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == zone->count && zone->has_tail && second >= 0)
		return tail_offset(zone, second);
	return low == 0 ? zone->first : zone->offset[low - 1];
}

/* ---- the file ---- */

static int64_t big_endian(const char *p, size_t n)
{
	uint64_t value = n == 8 || !((unsigned char)p[0] & 0x80) ? 0 : UINT64_MAX; /* sign extension */

	for (size_t i = 0; i < n; i++)
		value = value << 8 | (unsigned char)p[i];
	return (int64_t)value;
}

/* The sizes of one block, from its header. */
struct block {
	size_t times, types, length;
};

static bool read_header(struct kt_view tzif, size_t at, size_t time_size, struct block *ret)
{
	uint32_t counts[6];

	if (tzif.len < at + TZIF_HEADER || memcmp(tzif.ptr + at, "TZif", 4) != 0)
		return false;
	for (size_t i = 0; i < 6; i++) {
		counts[i] = (uint32_t)big_endian(tzif.ptr + at + 20 + 4 * i, 4);
		if (counts[i] > 10000)
			return false;
	}
	ret->times = counts[3];
	ret->types = counts[4];
	ret->length = ret->times * (time_size + 1) + ret->types * 6 + counts[5] + counts[2] * (time_size + 4) + counts[1] +
	              counts[0];
	return ret->types >= 1 && tzif.len - at - TZIF_HEADER >= ret->length;
}

static bool read_block(struct kt_zone *zone, const char *data, const struct block *block)
{
	const char *indexes = data + block->times * 8, *types = indexes + block->times;

	zone->first = (int32_t)big_endian(types, 4);
	zone->count = block->times;
	for (size_t i = 0; i < block->types; i++) {
		int64_t offset = big_endian(types + 6 * i, 4);

		if (offset < -OFFSET_MAX || offset > OFFSET_MAX)
			return false;
	}
	for (size_t i = 0; i < block->times; i++) {
		size_t type = (unsigned char)indexes[i];

		zone->at[i] = big_endian(data + i * 8, 8);
		if (type >= block->types || (i && zone->at[i] <= zone->at[i - 1]))
			return false;
		zone->offset[i] = (int32_t)big_endian(types + 6 * type, 4);
	}
	return true;
}

static bool read_file(struct kt_zone *zone, struct kt_view tzif)
{
	struct block block;
	const char *tail, *end = tzif.ptr + tzif.len;
	size_t at;

	/* The first block is for readers of the last century. */
	if (!read_header(tzif, 0, 4, &block) || tzif.ptr[4] < '2')
		return false;
	at = TZIF_HEADER + block.length;
	if (!read_header(tzif, at, 8, &block))
		return false;
	at += TZIF_HEADER;
	zone->at = kt_calloc(block.times + 1, sizeof(*zone->at));
	zone->offset = kt_calloc(block.times + 1, sizeof(*zone->offset));
	if (!zone->at || !zone->offset || !read_block(zone, tzif.ptr + at, &block))
		return false;
	tail = tzif.ptr + at + block.length;
	if (end - tail < 2 || *tail != '\n' || end[-1] != '\n')
		return false;
	tail++;
	end--;
	return end == tail || read_tail(zone, tail, end);
}

enum kt_code kt_zone_parse(struct kt_view tzif, struct kt_zone **ret, struct kt_err *err)
{
	struct kt_zone *zone;

	*ret = NULL;
	if (tzif.len > TZIF_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a time zone file may have %zu bytes", TZIF_MAX);
	zone = kt_calloc(1, sizeof(*zone));
	if (!zone)
		return kt_err_set(err, KT_E_NOMEM, "time zone: out of memory");
	if (!read_file(zone, tzif)) {
		kt_zone_destroy(zone);
		return kt_err_set(err, KT_E_INVALID, "this is no time zone file (RFC 8536)");
	}
	*ret = zone;
	return KT_OK;
}

enum kt_code kt_zone_read(const char *name, struct kt_zone **ret, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf file = {0};
	char path[sizeof(FOLDER) + 1 + NAME_MAX_LEN];
	enum kt_code code;

	*ret = NULL;
	if (!strcmp(name, "UTC") || !strcmp(name, "Etc/UTC"))
		return KT_OK;
	if (!kt_zone_name_ok(name))
		return kt_err_set(err, KT_E_INVALID, "%.64s is not the name of a time zone", name);
	(void)snprintf(path, sizeof(path), FOLDER "/%s", name);
	kt_buf_init(&file, TZIF_MAX);
	code = kt_io_read_file(AT_FDCWD, path, &file, err);
	return code == KT_OK ? kt_zone_parse(kt_buf_view(&file), ret, err) : code;
}

bool kt_zone_machine_has_any(void)
{
	struct stat st;

	return stat(FOLDER, &st) == 0;
}
