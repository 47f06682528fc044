/*
 * What public CAs allow: published limits as a table, and the arithmetic of buckets that refill. Pure; the ledger in the
 * store holds what was spent (budget.c brings the two together).
 */
#ifndef KEEPER_PLAN_LIMITS_H
#define KEEPER_PLAN_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

#include "kt/clock.h"
#include "kt/manifest_types.h"

/* Whom a limit counts for, beside the CA. */
enum kt_limit_scope {
	KT_LIMIT_ACCOUNT, /* one account */
	KT_LIMIT_ADDRESS, /* our address: all accounts of this machine */
	KT_LIMIT_DOMAIN,  /* a registered domain (or an IPv4 address, or a /64), whoever asks */
	KT_LIMIT_NAMES,   /* an exact set of names, whoever asks */
	KT_LIMIT_NAME,    /* one name of one account */
};

/* `limit` things at once, which refill evenly within `window`. */
struct kt_limit {
	const char *what; /* its name in the ledger */
	const char *text; /* for people, of many: "orders" */
	enum kt_limit_scope scope;
	unsigned limit;
	kt_ms window;
	bool renewals_free; /* a renewal of the exact set does not count */
	bool sliding;       /* counted within the last `window`, without refill: half of it is used at once */
};

/* Names in the ledger. */
#define KT_LIMIT_ORDER       "order"
#define KT_LIMIT_NEW_ACCOUNT "account"
#define KT_LIMIT_CERTIFICATE "certificate"
#define KT_LIMIT_SET         "certificate-set"
#define KT_LIMIT_FAILED      "failed-validation"
#define KT_LIMIT_IN_A_ROW    "failed-in-a-row"

#define KT_LIMITS_MAX 8u

struct kt_ca_limits {
	const char *ca;   /* "letsencrypt"; "" where nothing is known */
	const char *host; /* of its directory */
	bool is_public;   /* its certificates are trusted by systems and browsers */
	struct kt_limit rows[KT_LIMITS_MAX];
	size_t count;
};

/* The published limits of the CA with this directory; never NULL, without rows where none are known. */
const struct kt_ca_limits *kt_limits_of(const char *server);
/* What counts for an issuer: the published ones with the numbers of its manifest in their place. */
void kt_limits_for(const struct kt_acme *acme, const char *server, struct kt_ca_limits *ret);
/* The host of a URL (with the port where it names one) in lower case; "" when there is none. */
void kt_limits_host(const char *url, char *out, size_t size);

/*
 * A bucket is the newest entry of the ledger for it: when that was, and when the bucket will be full again after it. The
 * zero value is a full one. An entry of the future (the clock was set back) is taken as one of now, and never holds
 * anything up by itself.
 */
struct kt_bucket {
	kt_ms at;
	kt_ms full_at;
};
unsigned kt_limit_size(const struct kt_limit *limit); /* how many at once */
unsigned kt_limit_used(const struct kt_limit *limit, const struct kt_bucket *bucket, kt_ms now);
/*
 * When one more may be spent: `now`, or later. A part of the bucket is kept for what can't wait (urgent): renewals that
 * are near their end.
 */
kt_ms kt_limit_next(const struct kt_limit *limit, const struct kt_bucket *bucket, kt_ms now, bool urgent);
/* Over how long those that wait for the same bucket come back: not all at the moment at which one can go. */
kt_ms kt_limit_spread(const struct kt_limit *limit);
/* One more is spent now. */
void kt_limit_spend(const struct kt_limit *limit, struct kt_bucket *bucket, kt_ms now);
/* How many are kept for the urgent ones. */
unsigned kt_limit_reserve(const struct kt_limit *limit);

/*
 * The registered domain of a name (an address: itself, or the /64 of an IPv6 one), in lower case, into out. By a rule in
 * place of the public suffix list: see docs/limits.md.
 */
#define KT_LIMIT_DOMAIN_MAX 256u
void kt_limit_domain(const char *name, char out[KT_LIMIT_DOMAIN_MAX]);

/* "300 of 300 orders in 3h used at letsencrypt; the next at 2026-11-23T14:05:00Z". subject: "" or what it is for. */
void kt_limit_explain(const struct kt_ca_limits *limits, const struct kt_limit *limit, const char *subject,
                      const struct kt_bucket *bucket, kt_ms now, kt_ms next, char *out, size_t size);

#endif
