/* What the files of dns-01 share: the job, the trace of a name, the watch of its servers, and what a provider is. */
#ifndef KT_COURIER_DNS_INTERNAL_H
#define KT_COURIER_DNS_INTERNAL_H

#include "courier/dns/dns.h"
#include "courier/dns/query.h"
#include "courier/xml.h"
#include "kt/json.h"

#define DNS_RECURSIVE_MAX 8u
#define DNS_NS_MAX        16u /* authoritative servers of a zone */
#define DNS_NS_ADDRESSES  4u  /* of each */
#define DNS_ALIASES_MAX   8u  /* CNAMEs in a row */
#define DNS_TTL           60u /* of what providers write, where they allow it */
#define DNS_SEEN_MAX      2048u

struct dns_job;

/*
 * A provider. Both functions start the work on job->effective and job->value and end it, now or later, with dns_job_done
 * or dns_job_fail. What remove needs to find the record again is put into job->handle by add; remove must also work with
 * an empty one, and a record that is gone is done. NULL: nothing to do.
 */
struct kt_dns_provider {
	const char *name;
	void (*add)(struct dns_job *job);
	void (*remove)(struct dns_job *job);
	bool aliased; /* an alias at the record, which leads to where it writes, is what it needs */
};

/* An authoritative server: a name with its addresses. */
struct dns_ns {
	char host[DNS_NAME_SIZE];
	unsigned count;
	struct dns_server at[DNS_NS_ADDRESSES];
};

/* Where a name leads, and who speaks for it. zone "" and no ns when only recursive servers may be asked. */
struct dns_traced {
	char end[DNS_NAME_SIZE];
	char zone[DNS_NAME_SIZE];
	unsigned ns_count;
	struct dns_ns ns[DNS_NS_MAX];
};

struct dns_trace;
struct dns_watch;

struct dns_job {
	struct dns_job *next;
	struct kt_dns *dns;
	uint32_t reply_to;
	uint64_t id;
	enum kt_dns01_action action;
	char record[DNS_NAME_SIZE];
	char effective[DNS_NAME_SIZE]; /* where the provider writes */
	char *value;
	json_t *solver;
	struct kt_secret *secret; /* JSON, or NULL */
	json_t *handle;           /* an object */
	char traceparent[KT_TRACE_MAX + 1];
	const struct kt_dns_provider *provider;

	/* The Agent's settings. */
	struct dns_server recursive[DNS_RECURSIVE_MAX];
	unsigned recursive_count;
	bool recursive_named; /* by the settings, not by resolv.conf */
	bool recursive_only;
	kt_ms timeout;
	/* rfc2136: where updates go. */
	struct dns_server update[DNS_NS_ADDRESSES];
	unsigned update_count;

	bool touched;       /* a request that may change something was made */
	bool writing;       /* the provider is at work: nobody else is on this name */
	char locked[DNS_NAME_SIZE];
	bool waiting;       /* for somebody else to end that */
	json_t *named;      /* the settings' name servers as text, or NULL */
	unsigned resolving; /* the next of them to be looked up */
	struct kt_timer *limit; /* of the whole job */
	struct kt_lookup *lookup;
	struct dns_trace *trace;
	struct dns_traced *traced;
	struct dns_watch *watch;
	/* The provider's: at most one of each at a time; all end with the job. */
	struct dns_query *query;
	struct kt_http_call *call;
	void (*then)(struct dns_job *job, const struct kt_http_reply *reply);
	struct kt_timer *timer;
	void (*tick)(struct dns_job *job);
	void *state;
	void (*state_free)(void *state);
};

struct kt_dns {
	struct kt_courier *courier;
	struct dns_job *jobs;
	unsigned count;
	/* resolv.conf as it was when it could be read last. */
	struct dns_server system[3];
	unsigned system_count;
};

/* --- job.c ------------------------------------------------------------------------------------------------------------ */

/* The provider's work is done. */
void dns_job_done(struct dns_job *job);
/* The record's values are settled at the provider: others may go on with this name. */
void dns_job_unlock(struct dns_job *job);
/* The job fails; err is copied. */
void dns_job_fail(struct dns_job *job, const struct kt_err *err);
/* KT_E_… from a format; for one line in providers. */
void dns_job_failf(struct dns_job *job, enum kt_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A member of the secret's JSON as a secret of its own. KT_E_INVALID says which is missing. */
enum kt_code dns_job_secret(const struct dns_job *job, const char *member, struct kt_secret **ret, struct kt_err *err);
/* Loopback and link-local name servers are asked only where the manifest names one such itself. */
bool dns_job_allows(const struct dns_job *job, const struct sockaddr_storage *at);
/* Port of an authoritative server: the one that the manifest gives this address, else 53. */
uint16_t dns_job_port(const struct dns_job *job, const struct sockaddr_storage *at);

/* --- lookup.c --------------------------------------------------------------------------------------------------------- */

/* traced is the taker's (kt_free); NULL with an error. */
typedef void dns_traced_fn(const struct kt_err *err, struct dns_traced *traced, void *arg);

/* Follows the aliases of name and finds the zone of where they end. fn is called from the loop, once. */
enum kt_code dns_trace(struct dns_job *job, const char *name, dns_traced_fn *fn, void *arg, struct dns_trace **ret,
		       struct kt_err *err);
void dns_trace_cancel(struct dns_trace *trace); /* NULL accepted */
/* The servers of resolv.conf's text; at most max. */
unsigned dns_resolv_conf(struct kt_view text, struct dns_server *ret, unsigned max);

/* --- watch.c ---------------------------------------------------------------------------------------------------------- */

/* err->code KT_OK, or why it was not seen; seen: one line of who has it. */
typedef void dns_seen_fn(const struct kt_err *err, const char *seen, void *arg);

/* Looks until every authoritative server (else every recursive one) has job->value at traced->end. */
enum kt_code dns_watch(struct dns_job *job, const struct dns_traced *traced, dns_seen_fn *fn, void *arg,
		       struct dns_watch **ret, struct kt_err *err);
void dns_watch_cancel(struct dns_watch *watch); /* NULL accepted */
/* Whether a TXT text is the value looked for; one that ends in ";" is an issue-value (RFC 8659)
 * of which the text must say all; persistUntil counts. */
bool dns_value_matches(const char *value, struct kt_view text);

/* --- api.c: what providers with an HTTP interface share ----------------------------------------------------------------- */

typedef void dns_api_fn(struct dns_job *job, const struct kt_http_reply *reply);

/*
 * Sends a request for the job; then gets any complete answer, whatever its status (all else fails the job). url is
 * finished by this. request: method, headers, body; the rest is set here. named: the manifest's member that may name
 * another address.
 */
void dns_api_send(struct dns_job *job, struct kt_http_request *request, struct kt_buf *url, const char *named,
		  dns_api_fn *then);
/* Starts url (which it initialises) with solver's `named`, else with fallback, without a "/" at the end. */
void dns_api_url(const struct dns_job *job, struct kt_buf *url, const char *named, const char *fallback);
/* Fails the job by the status of the answer; detail: what the answer says, "" or NULL when nothing. */
void dns_api_refused(struct dns_job *job, const struct kt_http_reply *reply, const char *doing, const char *detail);
/* The answer as a JSON object, or NULL: then the job has failed. */
json_t *dns_api_json(struct dns_job *job, const struct kt_http_reply *reply, const char *doing);
/* A text member of an answer or handle that may go into a path: [A-Za-z0-9_-], at most 63 of them. */
bool dns_api_id(const json_t *value, char ret[64]);

/* --- providers -------------------------------------------------------------------------------------------------------- */

const struct kt_dns_provider *dns_provider(const char *name);
extern const struct kt_dns_provider dns_provider_none, dns_provider_rfc2136, dns_provider_acme_dns,
	dns_provider_cloudflare, dns_provider_digitalocean, dns_provider_route53;

#endif
