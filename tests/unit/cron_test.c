/* When renewal windows open: cron expressions, and time zones with their clock changes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>

#include "kt/cron.h"
#include "kt/io.h"

static kt_ms at(const char *text)
{
	kt_ms time = 0;

	assert_int_equal(kt_time_parse(kt_view_str(text), &time, NULL), KT_OK);
	return time;
}

static void test_parse(void **state)
{
	static const char *const wrong[] = {"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
	                                    "* * * 13 *", "* * * * 8", "a * * * *", "5-1 * * * *", "*/0 * * * *", "1, * * * *",
	                                    "1-2-3 * * * *", "1,,2 * * * *", "1- * * * *", "@never", "-1 * * * *",
	                                    "1.5 * * * *", "99999999999999999999 * * * *"};
	struct kt_cron cron;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (!kt_cron_parse(wrong[i], &cron))
			fail_msg("accepted: %s", wrong[i]);
	}
	assert_null(kt_cron_parse("0,30 2-4 */10 jan-MAR,12 mon-fri", &cron));
	assert_int_equal(cron.minutes, UINT64_C(1) | UINT64_C(1) << 30);
	assert_int_equal(cron.hours, 7u << 2);
	assert_int_equal(cron.days, 1u << 1 | 1u << 11 | 1u << 21 | 1u << 31);
	assert_int_equal(cron.months, 7u << 1 | 1u << 12);
	assert_int_equal(cron.weekdays, 31u << 1);
	assert_null(kt_cron_parse("@daily", &cron));
	assert_null(kt_cron_parse("0 0 * * 7", &cron));
	assert_int_equal(cron.weekdays & 1, 1);
}

static void test_next(void **state)
{
	static const struct {
		const char *cron, *zone, *after, *next;
	} cases[] = {
	        {"0 2 * * *", "UTC", "2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"},
	        {"0 2 * * *", "UTC", "2026-11-23T01:59:59Z", "2026-11-23T02:00:00Z"},
	        {"0 2 * * *", "UTC", "2026-11-23T02:00:00Z", "2026-11-24T02:00:00Z"},
	        {"30 2 * * *", "UTC", "2026-11-23T03:31:00Z", "2026-11-24T02:30:00Z"},
	        {"0 2 * * 6", "UTC", "2026-11-23T00:00:00Z", "2026-11-28T02:00:00Z"},
	        {"0 2 * * sat,7", "UTC", "2026-11-28T12:00:00Z", "2026-11-29T02:00:00Z"},
	        {"0 0 13 * 5", "UTC", "2026-11-07T12:00:00Z", "2026-11-13T00:00:00Z"}, /* both: a Friday, the 13th */
	        {"0 0 13 * 5", "UTC", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"}, /* either: the Friday */
	        {"0 0 1 jan *", "UTC", "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"},
	        {"0 0 29 2 *", "UTC", "2026-11-23T00:00:00Z", "2028-02-29T00:00:00Z"},
	        {"*/20 5-6 * * *", "UTC", "2026-11-23T06:41:00Z", "2026-11-24T05:00:00Z"},
	        {"50/5 * * * *", "UTC", "2026-11-23T06:51:30Z", "2026-11-23T06:55:00Z"},
	        {"@weekly", "UTC", "2026-11-23T06:51:30Z", "2026-11-29T00:00:00Z"},
	        {"0 0 * * *", "UTC", "9998-12-31T01:00:00Z", "9999-01-01T00:00:00Z"},
	        {"0 4 * * *", "UTC", "2038-01-19T03:14:08Z", "2038-01-19T04:00:00Z"},
	        {"0 2 * * *", "Europe/Berlin", "2026-07-01T00:00:01Z", "2026-07-02T00:00:00Z"},
	        {"30 2 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-02T00:30:00Z"},
	        {"0 2 * * *", "Europe/Berlin", "2026-12-01T00:30:00Z", "2026-12-01T01:00:00Z"},
	        /* never shown: as long after the jump as it lies inside it */
	        {"30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:30:00Z"},
	        {"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"},
	        /* shown twice: the first */
	        {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
	        {"30 2 * * *", "Europe/Berlin", "2050-03-27T00:00:00Z", "2050-03-27T01:30:00Z"}, /* by the rule */
	        {"0 3 * * *", "Europe/Berlin", "2050-07-01T00:00:00Z", "2050-07-01T01:00:00Z"},
	        {"0 0 1 1 *", "Pacific/Kiritimati", "2026-12-31T00:00:00Z", "2026-12-31T10:00:00Z"},
	        {"0 6 * * *", "America/New_York", "2026-11-23T00:00:00Z", "2026-11-23T11:00:00Z"},
	        {"0 6 * * *", "Australia/Lord_Howe", "2045-01-10T00:00:00Z", "2045-01-10T19:00:00Z"},
	};
	struct kt_cron never;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_zone *zone = NULL;
		struct kt_cron cron;
		char text[32];

		assert_null(kt_cron_parse(cases[i].cron, &cron));
		assert_int_equal(kt_zone_read(cases[i].zone, &zone, NULL), KT_OK);
		(void)kt_time_format(kt_cron_next(&cron, zone, at(cases[i].after)), text);
		kt_zone_destroy(zone);
		if (strcmp(text, cases[i].next) != 0)
			fail_msg("case %zu (%s %s after %s): %s, not %s", i, cases[i].cron, cases[i].zone, cases[i].after, text,
			         cases[i].next);
	}
	/* February 30th never comes, and that is found out in bounded time; so it is at the ends of time. */
	assert_null(kt_cron_parse("0 0 30 2 *", &never));
	assert_int_equal(kt_cron_next(&never, NULL, at("2026-11-23T00:00:00Z")), KT_TIME_MAX);
	assert_int_equal(kt_cron_next(&never, NULL, INT64_MIN), KT_TIME_MAX);
	assert_int_equal(kt_cron_next(&never, NULL, INT64_MAX), KT_TIME_MAX);
}

static struct kt_zone *zone_of(const char *name)
{
	struct kt_zone *ret = NULL;

	assert_int_equal(kt_zone_read(name, &ret, NULL), KT_OK);
	assert_non_null(ret);
	return ret;
}

static void test_offset(void **state)
{
	static const struct {
		const char *zone, *at;
		int32_t offset;
	} cases[] = {
	        {"Europe/Berlin", "2026-01-01T00:00:00Z", 3600},
	        {"Europe/Berlin", "2026-07-01T00:00:00Z", 7200},
	        /* the edges of 2026, and of a year that only the rule at the end knows */
	        {"Europe/Berlin", "2026-03-29T00:59:59Z", 3600},
	        {"Europe/Berlin", "2026-03-29T01:00:00Z", 7200},
	        {"Europe/Berlin", "2100-03-28T00:59:59Z", 3600},
	        {"Europe/Berlin", "2100-03-28T01:00:00Z", 7200},
	        {"Europe/Berlin", "2100-10-31T00:59:59Z", 7200},
	        {"Europe/Berlin", "2100-10-31T01:00:00Z", 3600},
	        {"Australia/Sydney", "2100-01-01T00:00:00Z", 11 * 3600},
	        {"Australia/Sydney", "2100-07-01T00:00:00Z", 10 * 3600},
	        {"Etc/GMT+1", "2026-07-01T00:00:00Z", -3600},
	};
	struct kt_zone *berlin = zone_of("Europe/Berlin");

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_zone *zone = zone_of(cases[i].zone);
		int32_t offset = kt_zone_offset(zone, at(cases[i].at));

		kt_zone_destroy(zone);
		if (offset != cases[i].offset)
			fail_msg("%s at %s: %d", cases[i].zone, cases[i].at, offset);
	}
	(void)kt_zone_offset(berlin, INT64_MAX);
	(void)kt_zone_offset(berlin, INT64_MIN);
	kt_zone_destroy(berlin);
	assert_int_equal(kt_zone_offset(NULL, at("2026-07-01T00:00:00Z")), 0);
}

static void test_names(void **state)
{
	static const char *const wrong[] = {"", "../../etc/passwd", "/etc/localtime", "Europe//Berlin", "Europe/../UTC",
	                                    "Europe/", "-x"};
	struct kt_zone *zone = NULL;

	(void)state;
	assert_true(kt_zone_name_ok("Europe/Berlin") && kt_zone_name_ok("Etc/GMT+1"));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_false(kt_zone_name_ok(wrong[i]));
		assert_int_equal(kt_zone_read(wrong[i], &zone, NULL), KT_E_INVALID);
	}
	assert_int_not_equal(kt_zone_read("Europe/Atlantis", &zone, NULL), KT_OK);
	assert_null(zone);
	assert_int_equal(kt_zone_read("UTC", &zone, NULL), KT_OK);
	assert_null(zone);
}

/* Every shorter file is refused, never overrun; so is one with a byte more. */
static void test_damaged_file(void **state)
{
	struct kt_buf KT_AUTOBUF file = {0};
	struct kt_zone *zone = NULL;

	(void)state;
	kt_buf_init(&file, 256 << 10);
	assert_int_equal(kt_io_read_file(AT_FDCWD, "/usr/share/zoneinfo/Europe/Berlin", &file, NULL), KT_OK);
	for (size_t len = 0; len < file.len; len++)
		assert_int_equal(kt_zone_parse((struct kt_view){file.ptr, len}, &zone, NULL), KT_E_INVALID);
	kt_buf_add(&file, "x", 1);
	assert_int_equal(kt_zone_parse(kt_buf_view(&file), &zone, NULL), KT_E_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_next),
	                                   cmocka_unit_test(test_offset), cmocka_unit_test(test_names),
	                                   cmocka_unit_test(test_damaged_file)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
