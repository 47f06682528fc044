/* Time: an injectable clock, durations as Go writes them, RFC 3339 and HTTP dates. */
#ifndef KT_CLOCK_H
#define KT_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/err.h"

/* Milliseconds. Wall time since the epoch; monotonic time since some start, suspend included (BOOTTIME). */
typedef int64_t kt_ms;

#define KT_SECOND ((kt_ms)1000)
#define KT_MINUTE (60 * KT_SECOND)
#define KT_HOUR (60 * KT_MINUTE)
#define KT_DAY (24 * KT_HOUR)
/* 9999-12-31T23:59:59Z in ms: later times are clamped to it, so that arithmetic can't overflow. */
#define KT_TIME_MAX ((kt_ms)253402300799000)

/* A clock is a pair of functions, so that tests and `rehearse` bring their own. */
struct kt_clock {
	kt_ms (*wall)(void *arg);
	kt_ms (*mono)(void *arg);
	void *arg;
};

/* The machine's clock. */
extern const struct kt_clock kt_clock_system;
kt_ms kt_clock_wall(const struct kt_clock *clock);
kt_ms kt_clock_mono(const struct kt_clock *clock);

/* A clock set by hand; `fake` must outlive the kt_clock. */
struct kt_clock_fake {
	kt_ms wall;
	kt_ms mono;
};
struct kt_clock kt_clock_from_fake(struct kt_clock_fake *fake);

/* Go's time.ParseDuration ("1h30m", "10s", "1.5h", "300ms"); sub-millisecond parts are dropped. */
enum kt_code kt_duration_parse(struct kt_view text, kt_ms *ret, struct kt_err *err);
/* "90d", "2h10m", "45s", "300ms": short, for people. out of at least 32 bytes. Returns out. */
char *kt_duration_format(kt_ms span, char out[32]);
/* As Go prints it ("2160h0m0s"): for manifests and JSON. */
char *kt_duration_format_go(kt_ms span, char out[32]);

/* "2026-11-23T09:56:29Z" (no fraction) / "2026-11-23T09:56:29.123Z". out of at least 32 bytes. Returns out. */
char *kt_time_format(kt_ms wall, char out[32]);
char *kt_time_format_ms(kt_ms wall, char out[32]);
/* RFC 3339, with any offset and up to nine fraction digits. */
enum kt_code kt_time_parse(struct kt_view text, kt_ms *ret, struct kt_err *err);
/* RFC 9110 section 5.6.7, all three forms; independent of the locale. */
enum kt_code kt_time_parse_http(struct kt_view text, kt_ms *ret, struct kt_err *err);
/* Civil date (UTC) to wall time; month 1..12, day 1..31; no validation of ranges. */
kt_ms kt_time_civil(int64_t year, int month, int day, int hour, int minute, int second);
/* The way back: the date (UTC) of a wall time; month 1..12, day 1..31. */
void kt_time_date(kt_ms wall, int64_t *ret_year, int *ret_month, int *ret_day);

/* Retry-After in both forms (seconds or HTTP date, RFC 9110 section 10.2.3), clamped to [1 s, 24 h]; 0 when absent
 * or garbage. */
int64_t kt_retry_after(struct kt_view value, kt_ms now_wall);

#endif
