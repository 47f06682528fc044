/* TZif files and cron expressions: "TZif..." is a zone, everything else an expression. */
#include <string.h>

#include "fuzz.h"
#include "keeper/plan/plan.h"
#include "kt/mem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

static void zone(struct kt_view view)
{
	struct kt_zone *zone = NULL;
	struct kt_plan_window window = {.duration = KT_HOUR};
	struct kt_err err;

	if (kt_zone_parse(view, &zone, &err) != KT_OK) {
		return;
	}
	for (int64_t year = -100; year < 400; year += 7) {
		int32_t offset = kt_zone_offset(zone, year * 31556952000);

		FUZZ_MUST(offset > -200000 && offset < 200000);
	}
	FUZZ_MUST(kt_cron_parse("30 2 * * 0", &window.cron) == NULL);
	window.zone = zone;
	FUZZ_MUST(kt_plan_window_next(&window, 1, 1800000000000, NULL) >= 1800000000000);
	kt_zone_destroy(zone);
}

/* Whatever the parser takes fires at a minute that the expression names, or never. */
static void expression(struct kt_view view)
{
	const kt_ms now = 1800000000000;
	KT_AUTOFREE char *text = kt_strndup(view.ptr, view.len);
	struct kt_plan_window window = {.duration = KT_MINUTE};
	struct kt_cron *cron = &window.cron;
	kt_ms next;

	if (text == NULL || strlen(text) != view.len) {
		return;
	}
	(void)kt_zone_name_ok(text);
	if (kt_cron_parse(text, cron) != NULL) {
		return;
	}
	FUZZ_MUST(cron->minutes != 0 && cron->hours != 0 && cron->days != 0 && cron->months != 0 && cron->weekdays != 0);
	next = kt_cron_next(cron, NULL, now);
	FUZZ_MUST(next > now);
	if (next < KT_TIME_MAX) {
		FUZZ_MUST(next % KT_MINUTE == 0 && (cron->minutes >> (next / KT_MINUTE % 60) & 1) == 1);
		FUZZ_MUST((cron->hours >> (next / KT_HOUR % 24) & 1) == 1);
		FUZZ_MUST(kt_plan_window_next(&window, 1, next, NULL) == next);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view view = {size > 0 ? (const char *)data : "", size};

	if (size >= 4 && memcmp(data, "TZif", 4) == 0) {
		zone(view);
	} else {
		expression(view);
	}
	return 0;
}
