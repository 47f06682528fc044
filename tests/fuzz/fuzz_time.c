/* TZif files and cron expressions: "TZif..." is a zone, everything else an expression. */
#include <string.h>

#include "fuzz.h"
#include "keeper/plan/plan.h"
#include "kt/mem.h"
#include "manifest/cron.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

static void zone(struct kt_view view)
{
	struct kt_plan_zone *zone = NULL;
	struct kt_plan_window window = {.duration = KT_HOUR};
	struct kt_err err;

	if (kt_plan_zone_parse(view, &zone, &err) != KT_OK) {
		return;
	}
	for (int64_t year = -100; year < 400; year += 7) {
		int32_t offset = kt_plan_zone_offset(zone, year * 31556952000);

		FUZZ_MUST(offset > -200000 && offset < 200000);
	}
	FUZZ_MUST(kt_plan_cron_parse(KT_VIEW_LIT("30 2 * * 0"), &window.cron, &err) == KT_OK);
	window.zone = zone;
	FUZZ_MUST(kt_plan_window_next(&window, 1, 1800000000000, NULL) >= 1800000000000);
	kt_plan_zone_destroy(zone);
}

/* What the manifest takes the plan takes as well, and both agree on when it fires. */
static void expression(struct kt_view view)
{
	const kt_ms now = 1800000000000;
	KT_AUTOFREE char *text = kt_strndup(view.ptr, view.len);
	struct kt_plan_window window = {.duration = KT_MINUTE};
	const struct kt_zone *utc = NULL;
	struct kt_cron cron;
	struct kt_err err;
	const char *why;
	kt_ms next;

	if (text == NULL || strlen(text) != view.len) {
		return;
	}
	(void)kt_zone_name_ok(text);
	(void)kt_plan_zone_name_ok(text);
	why = kt_cron_parse(text, &cron);
	if (kt_plan_cron_parse(view, &window.cron, &err) != KT_OK) {
		FUZZ_MUST(why != NULL);
		return;
	}
	if (why != NULL || kt_zone_get("UTC", &utc, &err) != KT_OK) {
		return;
	}
	next = kt_plan_window_next(&window, 1, now, NULL);
	FUZZ_MUST(next >= now);
	if (next < KT_TIME_MAX) {
		FUZZ_MUST(kt_cron_next(&cron, utc, now / 1000) == next / 1000);
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
