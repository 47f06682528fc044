/* What public CAs allow, and the arithmetic of buckets that refill. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "keeper/plan/limits.h"
#include "keeper/plan/plan_internal.h"

/*
 * As the CAs publish them (docs/limits.md has when that was looked up). Let's Encrypt's are buckets that refill evenly;
 * renewals that name the certificate they replace (RFC 9773) count for none of them, other renewals of an exact set of
 * names not for the two with renewals_free. ZeroSSL and Google publish no numbers for orders; theirs is what they answer.
 */
#define ALL_OF(orders, domain, set, failed, accounts)                                                                   \
	{                                                                                                              \
		{KT_LIMIT_ORDER, "orders", KT_LIMIT_ACCOUNT, orders, 3 * KT_HOUR, .renewals_free = true},              \
		{KT_LIMIT_CERTIFICATE, "certificates", KT_LIMIT_DOMAIN, domain, 7 * KT_DAY, .renewals_free = true},    \
		{KT_LIMIT_SET, "certificates for the same names", KT_LIMIT_NAMES, set, 7 * KT_DAY, false, false},      \
		{KT_LIMIT_FAILED, "failed validations", KT_LIMIT_NAME, failed, KT_HOUR, false, false},                 \
		{KT_LIMIT_IN_A_ROW, "failed validations in a row", KT_LIMIT_NAME, 1152, 1152 * KT_DAY, false, false},  \
		{KT_LIMIT_NEW_ACCOUNT, "new accounts", KT_LIMIT_ADDRESS, accounts, 3 * KT_HOUR, false, false},         \
	}

static const struct kt_ca_limits table[] = {
        {"letsencrypt", "acme-v02.api.letsencrypt.org", true, ALL_OF(300, 50, 5, 5, 10), 6},
        {"letsencrypt-staging", "acme-staging-v02.api.letsencrypt.org", false, ALL_OF(1500, 30000, 30000, 60, 50), 6},
        {"zerossl", "acme.zerossl.com", true, {{.what = NULL}}, 0},
        {"buypass", "api.buypass.com", true,
         {
                 {KT_LIMIT_CERTIFICATE, "certificates", KT_LIMIT_DOMAIN, 20, 7 * KT_DAY, .renewals_free = true,
                  .sliding = true},
                 {KT_LIMIT_SET, "certificates for the same names", KT_LIMIT_NAMES, 5, 7 * KT_DAY, .sliding = true},
                 {KT_LIMIT_FAILED, "failed validations", KT_LIMIT_NAME, 5, KT_HOUR, .sliding = true},
         },
         3},
        {"google", "dv.acme-v02.api.pki.goog", true, {{.what = NULL}}, 0},
};
static const struct kt_ca_limits none = {"", "", false, {{.what = NULL}}, 0};

/* The first numbers of a manifest that replace (or add) one of the table. */
static const struct kt_limit kinds[] = {
        [KT_RATE_ORDERS] = {KT_LIMIT_ORDER, "orders", KT_LIMIT_ACCOUNT, 0, 0, false, false},
        [KT_RATE_CERTIFICATES] = {KT_LIMIT_CERTIFICATE, "certificates", KT_LIMIT_DOMAIN, 0, 0, false, false},
        [KT_RATE_DUPLICATES] = {KT_LIMIT_SET, "certificates for the same names", KT_LIMIT_NAMES, 0, 0, false, false},
        [KT_RATE_FAILURES] = {KT_LIMIT_FAILED, "failed validations", KT_LIMIT_NAME, 0, 0, false, false},
        [KT_RATE_ACCOUNTS] = {KT_LIMIT_NEW_ACCOUNT, "new accounts", KT_LIMIT_ADDRESS, 0, 0, false, false},
};

void kt_limits_host(const char *url, char *out, size_t size)
{
	const char *at = url ? strstr(url, "://") : NULL;
	size_t len = 0;

	for (at = at ? at + 3 : ""; *at && !strchr("/?#", *at) && len + 1 < size; at++)
		out[len++] = *at >= 'A' && *at <= 'Z' ? (char)(*at + 32) : *at;
	out[len] = '\0';
	if (len > 4 && strcmp(out + len - 4, ":443") == 0)
		out[len - 4] = '\0';
}

const struct kt_ca_limits *kt_limits_of(const char *server)
{
	char host[256];

	kt_limits_host(server, host, sizeof(host));
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(table[i].host, host) == 0)
			return &table[i];
	}
	return &none;
}

static struct kt_limit *row_of(struct kt_ca_limits *limits, const char *what)
{
	for (size_t i = 0; i < limits->count; i++) {
		if (strcmp(limits->rows[i].what, what) == 0)
			return &limits->rows[i];
	}
	return limits->count < KT_LIMITS_MAX ? &limits->rows[limits->count++] : NULL;
}

void kt_limits_for(const struct kt_acme *acme, const char *server, struct kt_ca_limits *ret)
{
	*ret = *kt_limits_of(server);
	if (!acme || !acme->server || strcmp(acme->server, server) != 0)
		return; /* the numbers are those of the issuer's own CA, not of its staging */
	if (acme->rates.none)
		ret->count = 0;
	for (size_t i = 0; i < KT_RATE_COUNT; i++) {
		const struct kt_rate *rate = &acme->rates.of[i];
		struct kt_limit *row = rate->limit ? row_of(ret, kinds[i].what) : NULL;

		if (!row)
			continue;
		if (!row->what)
			*row = kinds[i];
		row->limit = rate->limit;
		row->window = rate->window;
		row->sliding = false;
	}
}

/* ---- buckets -------------------------------------------------------------------------------------------------------- */

unsigned kt_limit_size(const struct kt_limit *limit)
{
	return limit->sliding && limit->limit > 1 ? limit->limit / 2 : limit->limit;
}

/* How long one takes to come back, rounded up. */
static kt_ms interval_of(const struct kt_limit *limit)
{
	kt_ms size = kt_limit_size(limit);

	return size > 0 ? (limit->window + size - 1) / size : limit->window;
}

/* The CA counts a little later than we do: what has only just come back is not asked for yet. */
static kt_ms slack_of(const struct kt_limit *limit)
{
	return kt_plan_min(limit->window / 1000, 10 * KT_SECOND);
}

/* When the bucket is full, by a clock that says now: in [now, now + window]. */
static kt_ms full_at(const struct kt_limit *limit, const struct kt_bucket *bucket, kt_ms now)
{
	kt_ms all = interval_of(limit) * kt_limit_size(limit);
	kt_ms at = kt_plan_bound(bucket->at), full = kt_plan_bound(bucket->full_at);

	if (at > now)
		full = now + kt_plan_min(full - at, all);
	return kt_plan_max(now, kt_plan_min(full, now + all));
}

unsigned kt_limit_used(const struct kt_limit *limit, const struct kt_bucket *bucket, kt_ms now)
{
	kt_ms interval = interval_of(limit);

	now = kt_plan_bound(now);
	return (unsigned)((full_at(limit, bucket, now) - now + interval - 1) / interval);
}

unsigned kt_limit_reserve(const struct kt_limit *limit)
{
	unsigned size = kt_limit_size(limit);

	/* Of very few nothing can be kept, and failures are not wanted by anybody. */
	if (size < 4 || limit->scope == KT_LIMIT_NAME || limit->scope == KT_LIMIT_ADDRESS)
		return 0;
	return size < 10 ? 1 : size / 10;
}

kt_ms kt_limit_next(const struct kt_limit *limit, const struct kt_bucket *bucket, kt_ms now, bool urgent)
{
	kt_ms room = kt_limit_size(limit), slack = slack_of(limit);

	now = kt_plan_bound(now);
	if (bucket->at > now || kt_plan_add(bucket->full_at, slack) <= now)
		return now;
	room -= urgent ? 0 : kt_limit_reserve(limit);
	return kt_plan_max(now, full_at(limit, bucket, now) - (room - 1) * interval_of(limit) + slack);
}

kt_ms kt_limit_spread(const struct kt_limit *limit)
{
	return kt_plan_min(limit->window / 16, 10 * KT_MINUTE);
}

void kt_limit_spend(const struct kt_limit *limit, struct kt_bucket *bucket, kt_ms now)
{
	now = kt_plan_bound(now);
	bucket->full_at = kt_plan_add(full_at(limit, bucket, now), interval_of(limit));
	bucket->at = now;
}

void kt_limit_explain(const struct kt_ca_limits *limits, const struct kt_limit *limit, const char *subject,
                      const struct kt_bucket *bucket, kt_ms now, kt_ms next, char *out, size_t size)
{
	char span[32], at[32] = "";
	bool kept = next > now && kt_limit_next(limit, bucket, now, true) <= now;
	int len;

	len = snprintf(out, size, "%u of %u %s%s%s in %s used at %s", kt_limit_used(limit, bucket, now),
	               kt_limit_size(limit), limit->text, subject[0] ? " for " : "", subject,
	               kt_duration_format(limit->window, span), limits->ca[0] ? limits->ca : "this CA");
	if (len > 0 && (size_t)len < size && next > now)
		(void)snprintf(out + len, size - (size_t)len, "%s; the next at %s",
		               kept ? ", the rest is kept for renewals near their end" : "",
		               kt_time_format(next, at));
}

/* ---- registered domains --------------------------------------------------------------------------------------------- */

/* Second labels below a country's that are registries' own, and hosts below which strangers have their names. */
static const char second_level[] = " ac co com edu firm gen go gob gouv gov gv id idv ind info ltd me mil mod name ne net nhs "
				   "nic nom or org plc press pro sch tm web ";
static const char *const shared[] = {
        "appspot.com",   "azurewebsites.net",   "blogspot.com", "cloudfront.net", "compute.amazonaws.com",
        "ddns.net",      "duckdns.org",         "dyndns.org",   "fly.dev",        "github.io",
        "gitlab.io",     "herokuapp.com",       "hopto.org",    "netlify.app",    "no-ip.org",
        "nip.io",        "pages.dev",           "sslip.io",     "run.app",        "vercel.app",
        "workers.dev",   "cloudapp.azure.com",  "dynv6.net",    "myqnapcloud.com", "synology.me",
};

/* Where the label begins that ends before `end`. */
static const char *label_before(const char *name, const char *end)
{
	while (end > name && end[-1] != '.')
		end--;
	return end;
}

static bool in_second_level(const char *label, size_t len)
{
	char word[16];

	if (len + 3 > sizeof(word))
		return false;
	(void)snprintf(word, sizeof(word), " %.*s ", (int)len, label);
	return strstr(second_level, word) != NULL;
}

/* What below which names are registered: "example" of "www.example", "co.uk" of "a.b.co.uk". A pointer into name. */
static const char *suffix_of(const char *name, size_t len)
{
	const char *end = name + len, *top = label_before(name, end), *second;

	for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
		size_t n = strlen(shared[i]);

		if (len > n && name[len - n - 1] == '.' && strcmp(end - n, shared[i]) == 0)
			return end - n;
	}
	if (top == name || end - top != 2)
		return top;
	second = label_before(name, top - 1);
	return second > name && in_second_level(second, (size_t)(top - 1 - second)) ? second : top;
}

void kt_limit_domain(const char *name, char out[KT_LIMIT_DOMAIN_MAX])
{
	unsigned char bytes[16];
	char low[KT_LIMIT_DOMAIN_MAX];
	size_t len = 0;
	const char *suffix;

	if (inet_pton(AF_INET6, name, bytes) == 1) {
		memset(bytes + 8, 0, 8);
		if (inet_ntop(AF_INET6, bytes, low, sizeof(low)))
			(void)snprintf(out, KT_LIMIT_DOMAIN_MAX, "%.64s/64", low);
		return;
	}
	if (strncmp(name, "*.", 2) == 0)
		name += 2;
	for (; *name && len + 1 < sizeof(low); name++)
		low[len++] = *name >= 'A' && *name <= 'Z' ? (char)(*name + 32) : *name;
	while (len > 0 && low[len - 1] == '.')
		len--;
	low[len] = '\0';
	suffix = inet_pton(AF_INET, low, bytes) == 1 ? low : suffix_of(low, len);
	(void)snprintf(out, KT_LIMIT_DOMAIN_MAX, "%s", suffix > low ? label_before(low, suffix - 1) : low);
}
