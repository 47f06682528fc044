/* Time zones: the TZif files of zoneinfo (RFC 8536) and the rule in their footer. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/cron.h"

#define FOLDER    "/usr/share/zoneinfo"
#define FILE_MAX  ((size_t)128 * 1024)
#define TIMES_MAX 5000u
#define KEPT_MAX  64u

/* When daylight saving begins or ends: of a POSIX TZ rule. */
struct change {
	char form; /* 'M': month.week.day, 'J': day 1..365 without 29 February, 'N': day 0..365 */
	int month, week, day;
	int32_t at; /* seconds of the local day */
};

struct rule {
	bool given, saving;
	int32_t standard, daylight; /* seconds east */
	struct change begin, end;
};

struct kt_zone {
	struct kt_zone *next;
	char name[64];
	uint32_t count;
	int64_t *times;   /* transitions, ascending */
	int32_t *offsets; /* from each on */
	int32_t first;    /* before the first */
	struct rule rule; /* after the last */
};

static struct kt_zone *zones;
static unsigned kept;
static const char *folder = FOLDER;
static struct kt_zone utc_zone = {.name = "UTC"};

/* --- the rule of the footer ("CET-1CEST,M3.5.0,M10.5.0/3") ------------------------------------------------------ */

static bool skip_name(const char **at)
{
	size_t n;

	if (**at == '<') {
		n = strcspn(*at, ">");
		if (!(*at)[n])
			return false;
		*at += n + 1;
		return true;
	}
	n = strspn(*at, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
	*at += n;
	return n >= 3;
}

static bool small_number(const char **at, int max, int *ret)
{
	size_t n = strspn(*at, "0123456789");
	uint64_t value;

	if (!n || kt_parse_u64((struct kt_view){*at, n}, (uint64_t)max, &value, NULL) != KT_OK)
		return false;
	*at += n;
	*ret = (int)value;
	return true;
}

/* [+-]hh[:mm[:ss]] */
static bool clock_time(const char **at, int32_t *ret)
{
	int sign = 1, h = 0, m = 0, s = 0;

	if (**at == '-' || **at == '+')
		sign = *(*at)++ == '-' ? -1 : 1;
	if (!small_number(at, 167, &h))
		return false;
	if (**at == ':' && ((*at)++, !small_number(at, 59, &m)))
		return false;
	if (**at == ':' && ((*at)++, !small_number(at, 59, &s)))
		return false;
	*ret = sign * (h * 3600 + m * 60 + s);
	return true;
}

static bool parse_change(const char **at, struct change *change)
{
	*change = (struct change){.form = 'N', .at = 7200};
	if (**at != ',')
		return false;
	(*at)++;
	if (**at == 'M') {
		change->form = 'M';
		(*at)++;
		if (!small_number(at, 12, &change->month) || *(*at)++ != '.' || !small_number(at, 5, &change->week) ||
		    *(*at)++ != '.' || !small_number(at, 6, &change->day) || !change->month || !change->week)
			return false;
	} else {
		if (**at == 'J') {
			change->form = 'J';
			(*at)++;
		}
		if (!small_number(at, 365, &change->day))
			return false;
	}
	if (**at == '/')
		return (*at)++, clock_time(at, &change->at);
	return true;
}

static bool parse_rule(const char *at, struct rule *rule)
{
	int32_t west;

	*rule = (struct rule){0};
	if (!*at)
		return true;
	if (!skip_name(&at) || !clock_time(&at, &west))
		return false;
	rule->given = true;
	rule->standard = -west;
	if (!*at)
		return true;
	if (!skip_name(&at))
		return false;
	rule->saving = true;
	rule->daylight = rule->standard + 3600;
	if (*at != ',') {
		if (!clock_time(&at, &west))
			return false;
		rule->daylight = -west;
	}
	return parse_change(&at, &rule->begin) && parse_change(&at, &rule->end) && !*at;
}

static int64_t days_from_civil(int64_t year, int month, int day)
{
	return kt_time_civil(year, month, day, 0, 0, 0) / KT_DAY;
}

static bool is_leap(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* The local moment of a change in a year, in seconds since the epoch as if local time were UTC. */
static int64_t change_in(const struct change *change, int64_t year)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int64_t first;
	int day, length;

	if (change->form != 'M') {
		/* J counts 1..365 and never 29 February; N counts 0..365. */
		day = change->form == 'J' ? change->day - 1 + (is_leap(year) && change->day >= 60) : change->day;
		return (days_from_civil(year, 1, 1) + day) * 86400 + change->at;
	}
	first = days_from_civil(year, change->month, 1);
	day = (int)(((change->day - (first + 4)) % 7 + 7) % 7) + (change->week - 1) * 7;
	length = lengths[change->month - 1] + (change->month == 2 && is_leap(year));
	while (day >= length)
		day -= 7;
	return (first + day) * 86400 + change->at;
}

static int32_t rule_offset(const struct rule *rule, int64_t utc)
{
	int64_t year = 1970 + (utc + rule->standard) / 31556952, begin, end;

	if (!rule->saving)
		return rule->standard;
	/* The division can be a day off around New Year. */
	if ((utc + rule->standard) < days_from_civil(year, 1, 1) * 86400)
		year--;
	else if ((utc + rule->standard) >= days_from_civil(year + 1, 1, 1) * 86400)
		year++;
	begin = change_in(&rule->begin, year) - rule->standard;
	end = change_in(&rule->end, year) - rule->daylight;
	if (begin < end)
		return utc >= begin && utc < end ? rule->daylight : rule->standard;
	return utc >= end && utc < begin ? rule->standard : rule->daylight;
}

/* --- the file ----------------------------------------------------------------------------------------------------- */

static uint32_t be32(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

struct header {
	uint32_t utc_count, std_count, leaps, times, types, chars;
};

static bool read_header(struct kt_view *file, struct header *h, size_t time_size, size_t *ret_data)
{
	const unsigned char *at = (const unsigned char *)file->ptr;

	if (file->len < 44 || memcmp(at, "TZif", 4) != 0 || at[4] < '2')
		return false;
	*h = (struct header){be32(at + 20), be32(at + 24), be32(at + 28), be32(at + 32), be32(at + 36), be32(at + 40)};
	file->ptr += 44;
	file->len -= 44;
	if (h->times > TIMES_MAX || h->types > 256 || !h->types || h->chars > 4096 || h->leaps > 1000 ||
	    h->utc_count > 256 || h->std_count > 256)
		return false;
	*ret_data = h->times * (time_size + 1) + h->types * 6 + h->chars + h->leaps * (time_size + 4) + h->std_count +
		    h->utc_count;
	return file->len >= *ret_data;
}

static bool read_times(struct kt_zone *zone, const unsigned char *at, const struct header *h)
{
	const unsigned char *index = at + h->times * 8, *types = index + h->times;

	zone->count = h->times;
	zone->times = kt_calloc(h->times + 1, sizeof(*zone->times));
	zone->offsets = kt_calloc(h->times + 1, sizeof(*zone->offsets));
	if (!zone->times || !zone->offsets)
		return false;
	zone->first = (int32_t)be32(types);
	for (uint32_t i = 0; i < h->times; i++) {
		if (index[i] >= h->types)
			return false;
		zone->times[i] = (int64_t)((uint64_t)be32(at + i * 8) << 32 | be32(at + i * 8 + 4));
		zone->offsets[i] = (int32_t)be32(types + index[i] * 6);
		if ((i && zone->times[i] <= zone->times[i - 1]) || abs(zone->offsets[i]) > 26 * 3600)
			return false;
	}
	return abs(zone->first) <= 26 * 3600;
}

static bool parse_file(struct kt_zone *zone, struct kt_view file)
{
	struct header h;
	size_t data, len;
	char text[128];

	if (!read_header(&file, &h, 4, &data))
		return false;
	file.ptr += data;
	file.len -= data;
	if (!read_header(&file, &h, 8, &data) || !read_times(zone, (const unsigned char *)file.ptr, &h))
		return false;
	file.ptr += data;
	file.len -= data;
	if (file.len < 2 || file.ptr[0] != '\n' || file.ptr[file.len - 1] != '\n' || file.len - 2 >= sizeof(text))
		return false;
	len = file.len - 2;
	memcpy(text, file.ptr + 1, len);
	text[len] = '\0';
	return parse_rule(text, &zone->rule);
}

static void zone_destroy(struct kt_zone *zone)
{
	if (!zone)
		return;
	kt_free(zone->times);
	kt_free(zone->offsets);
	kt_free(zone);
}

static bool name_plausible(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-_/");

	return n && !name[n] && n < sizeof(utc_zone.name) && *name != '/' && *name != '-' && !strstr(name, "//") &&
	       name[n - 1] != '/';
}

static enum kt_code load(const char *name, struct kt_zone **ret, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf file = {0};
	KT_AUTOFREE char *path = kt_asprintf("%s/%s", folder, name);
	struct kt_zone *zone = kt_calloc(1, sizeof(*zone));
	enum kt_code code;

	kt_buf_init(&file, FILE_MAX);
	if (!path || !zone) {
		code = kt_err_set(err, KT_E_NOMEM, "time zone %s: out of memory", name);
		goto out;
	}
	code = kt_io_read_file(AT_FDCWD, path, &file, err);
	if (code != KT_OK)
		goto out;
	if (!parse_file(zone, kt_buf_view(&file))) {
		code = kt_err_set(err, KT_E_INVALID, "%s is not a time zone file that can be read", path);
		goto out;
	}
	memcpy(zone->name, name, strlen(name) + 1);
	*ret = zone;
	zone = NULL;
out:
	zone_destroy(zone);
	return code;
}

enum kt_code kt_zone_get(const char *name, const struct kt_zone **ret, struct kt_err *err)
{
	struct kt_zone *zone;
	enum kt_code code;

	*ret = &utc_zone;
	if (!strcmp(name, "UTC") || !strcmp(name, "Etc/UTC"))
		return KT_OK;
	for (zone = zones; zone; zone = zone->next) {
		if (!strcmp(zone->name, name)) {
			*ret = zone;
			return KT_OK;
		}
	}
	if (!name_plausible(name))
		return kt_err_set(err, KT_E_INVALID, "%.64s is not the name of a time zone", name);
	if (kept >= KEPT_MAX)
		return kt_err_set(err, KT_E_LIMIT, "time zone %s: more than %u time zones in use", name, KEPT_MAX);
	code = load(name, &zone, err);
	if (code != KT_OK)
		return code;
	zone->next = zones;
	zones = zone;
	kept++;
	*ret = zone;
	return KT_OK;
}

bool kt_zone_name_ok(const char *name)
{
	const struct kt_zone *zone;
	struct stat st;

	if (!name_plausible(name))
		return false;
	/* Without zoneinfo nothing can be said here; where a window is asked for, the missing file is named. */
	return kt_zone_get(name, &zone, NULL) == KT_OK || stat(folder, &st) != 0;
}

int32_t kt_zone_offset(const struct kt_zone *zone, int64_t utc)
{
	uint32_t low = 0, high = zone->count;

	if (!zone->count || utc >= zone->times[zone->count - 1]) {
		if (zone->rule.given)
			return rule_offset(&zone->rule, utc);
		return zone->count ? zone->offsets[zone->count - 1] : zone->first;
	}
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (zone->times[mid] <= utc)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? zone->offsets[low - 1] : zone->first;
}

void kt_zone_set_folder(const char *path)
{
	while (zones) {
		struct kt_zone *next = zones->next;

		zone_destroy(zones);
		zones = next;
	}
	kept = 0;
	folder = path ? path : FOLDER;
}
