/* Maintenance windows: cron expressions, time zones with their clock changes, and when a window opens. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <string.h>

#include "kt/manifest.h"
#include "manifest/cron.h"

static kt_ms at(const char *text)
{
	kt_ms time = 0;

	assert_int_equal(kt_time_parse(kt_view_str(text), &time, NULL), KT_OK);
	return time;
}

static void test_parse(void **state)
{
	static const char *const wrong[] = {
		"",           "* * * *",    "* * * * * *", "60 * * * *",  "* 24 * * *", "* * 0 * *",     "* * * 13 *",
		"* * * * 8",  "a * * * *",  "5-1 * * * *", "*/0 * * * *", "1, * * * *", "1-2-3 * * * *", "@never",
		"-1 * * * *", "1.5 * * * *"};
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
		const char *cron, *zone, *from, *next;
	} cases[] = {
		{"0 2 * * *", "UTC", "2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"},
		{"0 2 * * *", "UTC", "2026-11-23T02:00:00Z", "2026-11-23T02:00:00Z"},
		{"0 2 * * *", "UTC", "2026-11-23T02:00:01Z", "2026-11-24T02:00:00Z"},
		{"0 2 * * *", "Europe/Berlin", "2026-07-01T00:00:01Z", "2026-07-02T00:00:00Z"},
		{"0 2 * * *", "Europe/Berlin", "2026-12-01T00:30:00Z", "2026-12-01T01:00:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
		 "2026-03-29T01:00:00Z"}, /* never shown: the jump */
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
		 "2026-10-25T00:30:00Z"}, /* shown twice: the first */
		{"30 2 * * *", "Europe/Berlin", "2050-03-27T00:00:00Z", "2050-03-27T01:00:00Z"}, /* by the rule */
		{"0 3 * * *", "Europe/Berlin", "2050-07-01T00:00:00Z", "2050-07-01T01:00:00Z"},
		{"0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 0 13 * 5", "UTC", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00Z"}, /* either: the Friday */
		{"0 0 1 1 *", "Pacific/Kiritimati", "2026-12-31T00:00:00Z", "2026-12-31T10:00:00Z"},
		{"0 6 * * *", "America/New_York", "2026-11-23T00:00:00Z", "2026-11-23T11:00:00Z"},
		{"0 6 * * *", "Australia/Lord_Howe", "2045-01-10T00:00:00Z", "2045-01-10T19:00:00Z"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct kt_zone *zone = NULL;
		struct kt_cron cron;
		char text[32];

		assert_null(kt_cron_parse(cases[i].cron, &cron));
		assert_int_equal(kt_zone_get(cases[i].zone, &zone, NULL), KT_OK);
		(void)kt_time_format(kt_cron_next(&cron, zone, at(cases[i].from) / 1000) * 1000, text);
		if (strcmp(text, cases[i].next) != 0)
			fail_msg("case %zu (%s %s from %s): %s, not %s", i, cases[i].cron, cases[i].zone, cases[i].from,
				 text, cases[i].next);
	}
}

static void test_windows(void **state)
{
	struct kt_window items[] = {{"0 2 * * *", "UTC", 2 * KT_HOUR}, {"0 12 * * 0", "UTC", KT_HOUR}};
	struct kt_windows windows = {items, 2}, none = {NULL, 0};
	kt_ms next = 0;

	(void)state;
	assert_true(kt_windows_open(&none, at("2026-11-23T10:00:00Z")));
	assert_true(kt_windows_open(&windows, at("2026-11-23T02:00:00Z")));
	assert_true(kt_windows_open(&windows, at("2026-11-23T03:59:59Z")));
	assert_false(kt_windows_open(&windows, at("2026-11-23T04:00:00Z")));
	assert_false(kt_windows_open(&windows, at("2026-11-23T01:59:59Z")));
	assert_int_equal(kt_windows_next(&windows, at("2026-11-23T04:00:00Z"), &next, NULL), KT_OK);
	assert_int_equal(next, at("2026-11-24T02:00:00Z"));
	assert_int_equal(kt_windows_next(&windows, at("2026-11-29T05:00:00Z"), &next, NULL), KT_OK);
	assert_int_equal(next, at("2026-11-29T12:00:00Z"));
	items[0].cron = "0 0 30 2 *"; /* never */
	windows.count = 1;
	assert_int_equal(kt_windows_next(&windows, at("2026-11-29T05:00:00Z"), &next, NULL), KT_OK);
	assert_int_equal(next, KT_TIME_MAX);
	items[0].timezone = "../../etc/passwd";
	assert_int_equal(kt_windows_next(&windows, 0, &next, NULL), KT_E_INVALID);
	assert_false(kt_zone_name_ok("Europe/../UTC"));
	assert_false(kt_zone_name_ok("Europe/Atlantis"));
	kt_zone_set_folder(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_next),
					   cmocka_unit_test(test_windows)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
