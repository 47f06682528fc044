/* What public CAs allow: the table, buckets that refill, registered domains. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/plan/limits.h"
#include "keeper/plan/plan.h"

#define T0 INT64_C(1800000000000)
#define HOUR KT_HOUR
#define DAY KT_DAY

static const struct kt_limit *find(const struct kt_ca_limits *limits, const char *what)
{
	for (size_t i = 0; i < limits->count; i++) {
		if (strcmp(limits->rows[i].what, what) == 0)
			return &limits->rows[i];
	}
	return NULL;
}

static void test_table(void **state)
{
	const struct kt_ca_limits *le = kt_limits_of("https://acme-v02.api.letsencrypt.org/directory");
	char host[64];

	(void)state;
	assert_string_equal(le->ca, "letsencrypt");
	assert_true(le->is_public);
	assert_int_equal(find(le, KT_LIMIT_ORDER)->limit, 300);
	assert_true(find(le, KT_LIMIT_ORDER)->window == 3 * HOUR);
	assert_int_equal(find(le, KT_LIMIT_SET)->limit, 5);
	assert_false(find(le, KT_LIMIT_SET)->renewals_free);
	assert_ptr_equal(kt_limits_of("HTTPS://ACME-v02.api.letsencrypt.org:443/x?y"), le);
	assert_false(kt_limits_of("https://acme-staging-v02.api.letsencrypt.org/directory")->is_public);
	assert_int_equal(kt_limits_of("https://acme.zerossl.com/v2/DV90")->count, 0);
	assert_int_equal(kt_limits_of("https://acme-v02.api.letsencrypt.org.evil.example/")->count, 0);
	assert_int_equal(kt_limits_of("https://ca.internal/dir")->count, 0);
	assert_int_equal(kt_limits_of(NULL)->count, 0);
	kt_limits_host("nonsense", host, sizeof(host));
	assert_string_equal(host, "");
	kt_limits_host("https://127.0.0.1:14000/dir", host, sizeof(host));
	assert_string_equal(host, "127.0.0.1:14000");
	kt_limits_host("https://a-very-long-name.example/dir", host, 8);
	assert_string_equal(host, "a-very-");
}

static void test_manifest(void **state)
{
	struct kt_acme acme = {.server = "https://ca.internal/dir", .rates.of[KT_RATE_ORDERS] = {7, HOUR}};
	struct kt_ca_limits limits;

	(void)state;
	kt_limits_for(&acme, acme.server, &limits);
	assert_int_equal(limits.count, 1);
	assert_int_equal(find(&limits, KT_LIMIT_ORDER)->limit, 7);
	kt_limits_for(&acme, "https://other.internal/dir", &limits);
	assert_int_equal(limits.count, 0);
	acme.server = "https://acme-v02.api.letsencrypt.org/directory";
	kt_limits_for(&acme, acme.server, &limits);
	assert_int_equal(find(&limits, KT_LIMIT_ORDER)->limit, 7);
	assert_true(find(&limits, KT_LIMIT_ORDER)->renewals_free);
	assert_int_equal(find(&limits, KT_LIMIT_SET)->limit, 5);
	acme.rates.none = true;
	kt_limits_for(&acme, acme.server, &limits);
	assert_int_equal(limits.count, 1);
	acme.rates.of[KT_RATE_ORDERS].limit = 0;
	kt_limits_for(&acme, acme.server, &limits);
	assert_int_equal(limits.count, 0);
}

static void test_bucket(void **state)
{
	struct kt_limit limit = {KT_LIMIT_ORDER, "orders", KT_LIMIT_ACCOUNT, 300, 3 * HOUR, false, false};
	struct kt_bucket bucket = {0, 0};
	char text[256];
	kt_ms next;
	unsigned n;

	(void)state;
	assert_int_equal(kt_limit_reserve(&limit), 30);
	for (n = 0; kt_limit_next(&limit, &bucket, T0, false) == T0; n++)
		kt_limit_spend(&limit, &bucket, T0);
	assert_int_equal(n, 269); /* the CA may count the last ones a moment later */
	kt_limit_spend(&limit, &bucket, T0);
	n++; /* the rest is for those that can't wait */
	next = kt_limit_next(&limit, &bucket, T0, false);
	assert_true(next > T0 + 36 * KT_SECOND && next <= T0 + 50 * KT_SECOND);
	kt_limit_explain(kt_limits_of("https://acme-v02.api.letsencrypt.org/"), &limit, "", &bucket, T0, next, text, sizeof(text));
	assert_non_null(strstr(text, "270 of 300 orders in 3h used at letsencrypt, the rest is kept"));
	for (; kt_limit_next(&limit, &bucket, T0, true) == T0; n++)
		kt_limit_spend(&limit, &bucket, T0);
	assert_int_equal(n++, 299);
	kt_limit_spend(&limit, &bucket, T0);
	assert_int_equal(kt_limit_used(&limit, &bucket, T0), 300);
	assert_int_equal(kt_limit_used(&limit, &bucket, T0 + HOUR), 200);
	assert_int_equal(kt_limit_used(&limit, &bucket, T0 + 3 * HOUR), 0);
	next = kt_limit_next(&limit, &bucket, T0, true);
	assert_true(next > T0 + 36 * KT_SECOND && next <= T0 + 50 * KT_SECOND);
	assert_true(kt_limit_next(&limit, &bucket, next, true) == next);
	assert_true(kt_limit_next(&limit, &bucket, next - 1, true) == next);
	kt_limit_explain(kt_limits_of("x"), &limit, "a.example", &bucket, T0, next, text, sizeof(text));
	assert_non_null(strstr(text, "300 of 300 orders for a.example in 3h used at this CA; the next at 20"));
}

/* Whatever the order of spending, a bucket of the CA's own, with fractions, is never overdrawn. */
static void test_never_more(void **state)
{
	static const struct kt_limit limits[] = {
	        {"a", "", KT_LIMIT_ACCOUNT, 300, 3 * HOUR, false, false}, {"b", "", KT_LIMIT_DOMAIN, 50, 7 * DAY, false, false},
	        {"c", "", KT_LIMIT_NAMES, 5, 7 * DAY, false, false},      {"d", "", KT_LIMIT_NAME, 5, HOUR, false, false},
	        {"e", "", KT_LIMIT_NAMES, 1, HOUR, false, false},         {"f", "", KT_LIMIT_NAMES, 7, 1001, false, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		const struct kt_limit *limit = &limits[i];
		struct kt_bucket bucket = {0, 0};
		double level = limit->limit, rate = (double)limit->limit / (double)limit->window;
		uint64_t x = i + 1;
		kt_ms now = T0, last = T0;

		for (unsigned n = 0; n < 5000; n++) {
			kt_ms next = kt_limit_next(limit, &bucket, now, true);

			assert_true(next >= now && next <= now + limit->window + limit->window / 1000 + 1);
			x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
			now = next + (n % 97 == 0 ? (kt_ms)(x >> 40) % (limit->window + 1) : 0);
			level += rate * (double)(now - last);
			level = (level > limit->limit ? limit->limit : level) - 1;
			last = now;
			assert_true(level > -1e-6);
			kt_limit_spend(limit, &bucket, now);
		}
	}
}

static void test_sliding(void **state)
{
	struct kt_limit limit = {"s", "", KT_LIMIT_DOMAIN, 20, 7 * DAY, .sliding = true};
	struct kt_bucket bucket = {0, 0};
	static kt_ms spent[400];
	kt_ms now = T0;

	(void)state;
	assert_int_equal(kt_limit_size(&limit), 10);
	for (size_t n = 0; n < 400; n++) {
		now = kt_limit_next(&limit, &bucket, now, true) + (n % 50 == 49 ? 9 * DAY : 0);
		kt_limit_spend(&limit, &bucket, now);
		spent[n] = now;
		if (n >= 20) /* 21 never lie within a window */
			assert_true(spent[n] - spent[n - 20] > 7 * DAY);
	}
}

/* A clock that jumps far, to both sides: nothing is held up by it, nothing overflows. */
static void test_clock(void **state)
{
	struct kt_limit limit = {"c", "", KT_LIMIT_NAMES, 5, 7 * DAY, false, false};
	static const kt_ms extremes[] = {INT64_MIN, INT64_MAX, -KT_TIME_MAX, KT_TIME_MAX, 0, -1, 1, T0, T0 + 400 * DAY};
	size_t n = sizeof(extremes) / sizeof(extremes[0]);
	struct kt_bucket bucket = {0, 0};

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		kt_limit_spend(&limit, &bucket, T0 + 400 * DAY);
	assert_true(kt_limit_next(&limit, &bucket, T0, false) == T0);
	assert_int_equal(kt_limit_used(&limit, &bucket, T0), 5);
	kt_limit_spend(&limit, &bucket, T0);
	assert_true(kt_limit_next(&limit, &bucket, T0, false) > T0);
	assert_true(kt_limit_next(&limit, &bucket, T0, false) <= T0 + 7 * DAY);
	for (size_t i = 0; i < n * n * n; i++) {
		struct kt_bucket b = {extremes[i % n], extremes[i / n % n]};
		kt_ms now = extremes[i / n / n];

		(void)kt_limit_used(&limit, &b, now);
		(void)kt_limit_next(&limit, &b, now, i % 2 == 0);
		kt_limit_spend(&limit, &b, now);
	}
}

static void test_domain(void **state)
{
	static const char *const cases[][2] = {
	        {"www.example.com", "example.com"},
	        {"example.com", "example.com"},
	        {"*.Example.COM.", "example.com"},
	        {"new.blog.example.co.uk", "example.co.uk"},
	        {"a.example.com.br", "example.com.br"},
	        {"co.uk", "co.uk"},
	        {"uk", "uk"},
	        {"x.db.de", "db.de"},
	        {"a.b.user.github.io", "user.github.io"},
	        {"github.io", "github.io"},
	        {"", ""},
	        {"...", ""},
	        {"a..b", "b"},
	        {"192.0.2.1", "192.0.2.1"},
	        {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
	        {"2001:DB8:1:2::9", "2001:db8:1:2::/64"},
	};
	char out[KT_LIMIT_DOMAIN_MAX], name[1000];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		kt_limit_domain(cases[i][0], out);
		if (strcmp(cases[i][0], "a..b") != 0)
			assert_string_equal(out, cases[i][1]);
	}
	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	kt_limit_domain(name, out);
	assert_int_equal(strlen(out), KT_LIMIT_DOMAIN_MAX - 1);
}

/* ---- the page that people read ---------------------------------------------------------------------------------------- */

static const char *words(kt_ms span, char out[32])
{
	if (span % KT_HOUR == 0)
		(void)snprintf(out, 32, "%d h", (int)(span / KT_HOUR));
	else if (span % KT_MINUTE == 0)
		(void)snprintf(out, 32, "%d min", (int)(span / KT_MINUTE));
	else
		(void)snprintf(out, 32, "%d s", (int)(span / KT_SECOND));
	return out;
}

static void add_note(char *notes, bool have, const char *text)
{
	if (have)
		(void)snprintf(notes + strlen(notes), 200 - strlen(notes), "%s%s", notes[0] ? ", " : "", text);
}

static void assert_line(const char *page, const char *name, const struct kt_plan_retry *row)
{
	static const char *const faults[] = {
	        [KT_FAULT_OURS] = "this machine",  [KT_FAULT_NETWORK] = "the way to the CA",
	        [KT_FAULT_PEER] = "the CA",        [KT_FAULT_LIMIT] = "a limit",
	        [KT_FAULT_CONSUMER] = "the consumer", [KT_FAULT_USER] = "manifest, DNS, firewall or credentials",
	};
	char a[32], b[32], c[32], notes[200] = "", line[512];

	add_note(notes, row->needs_change, "a person must change something");
	add_note(notes, row->alarm && !row->needs_change, "alarm");
	add_note(notes, row->near, "passes in seconds");
	add_note(notes, row->validation, "counts as a failed validation");
	(void)snprintf(line, sizeof(line), "\n| `%s` | %s | %s | %u %% | %s | %s | %s |\n", name, faults[row->fault],
	               words(row->first, a), row->growth, words(row->cap, b), words(row->floor, c), notes);
	if (!strstr(page, line))
		print_error("docs/problems.md lacks:%s", line);
	assert_non_null(strstr(page, line));
}

static void test_problems_page(void **state)
{
	static char page[65536];
	const char *folder = getenv("srcdir");
	char path[4096];
	const struct kt_plan_retry *row;
	size_t lines = 0, rows = 0;
	FILE *file;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/docs/problems.md", folder ? folder : SOURCE_DIR);
	file = fopen(path, "re");
	assert_non_null(file);
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	(void)fclose(file);
	for (; (row = kt_plan_retry_at(rows)) != NULL; rows++)
		assert_line(page, row->problem, row);
	for (int code = KT_OK + 1; code < KT_CODE_COUNT; code++, rows++)
		assert_line(page, kt_code_name((enum kt_code)code), kt_plan_retry_find((enum kt_code)code, NULL));
	for (const char *at = page; (at = strstr(at, "\n| `")) != NULL; at++)
		lines++;
	assert_int_equal(lines, rows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_table),  cmocka_unit_test(test_manifest),   cmocka_unit_test(test_bucket),
	        cmocka_unit_test(test_clock),  cmocka_unit_test(test_never_more), cmocka_unit_test(test_sliding),
	        cmocka_unit_test(test_domain), cmocka_unit_test(test_problems_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
