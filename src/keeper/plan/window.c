/* Renewal windows: which one is open, or opens next. */
#include "keeper/plan/plan_internal.h"

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
		kt_ms opens = kt_cron_next(&windows[i].cron, windows[i].zone, kt_plan_add(at, -span));
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

kt_ms kt_plan_window_tell(const struct kt_plan_window *windows, size_t count, kt_ms start, kt_ms end, kt_ms now)
{
	kt_ms opens = kt_plan_window_next(windows, count, now, NULL), life;

	now = kt_plan_bound(now);
	start = kt_plan_bound(start);
	end = kt_plan_bound(end);
	life = kt_plan_max(end - start, 0);
	if (opens <= end - kt_plan_min(life / 20, 6 * KT_HOUR))
		return opens;
	return kt_plan_max(now, end - kt_plan_min(life / 10, 7 * KT_DAY));
}
