/* Where a name leads and who speaks for it: zone, authoritative servers, their addresses, and aliases on the way. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "courier/url.h"
#include "kt/mem.h"

#define TRACE_TIMEOUT  (45 * KT_SECOND)
#define REFERRALS_MAX  8u
#define QUESTIONS_MAX  200u

/*
 * One question is under way at a time. ZONE asks the recursive servers for the SOA of the name's parent (a question for
 * the name itself would leave a negative answer in their caches), then upwards; NS and ADDRESS find the servers; PROBE
 * asks one of these for the name: an alias starts all over at its target, a referral leads a zone further down.
 */
enum step { STEP_ZONE, STEP_NS, STEP_ADDRESS, STEP_PROBE, STEP_ALIAS };

struct dns_trace {
	struct dns_job *job;
	struct dns_query *query;
	struct kt_timer *timer;
	dns_traced_fn *fn;
	void *arg;
	enum step step;
	struct dns_traced *at;
	char ask[DNS_NAME_SIZE]; /* ZONE: whose SOA */
	char visited[DNS_ALIASES_MAX + 1][DNS_NAME_SIZE];
	unsigned aliases, referrals, questions;
	unsigned recursive; /* the one that is asked now */
	unsigned ns, address;
	bool v6; /* ADDRESS: AAAA is asked for */
	struct kt_err last;
};

/* --- resolv.conf ------------------------------------------------------------------------------------------------------ */

static bool parse_server(struct kt_view text, struct dns_server *ret)
{
	struct sockaddr_storage at = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&at;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&at;
	char host[INET6_ADDRSTRLEN];

	if (text.len == 0 || text.len >= sizeof(host)) {
		return false;
	}
	memcpy(host, text.ptr, text.len);
	host[text.len] = '\0';
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
	} else {
		return false;
	}
	dns_server_set(ret, &at, 53);
	return true;
}

unsigned dns_resolv_conf(struct kt_view text, struct dns_server *ret, unsigned max)
{
	unsigned count = 0;

	while (text.len > 0 && count < max) {
		const char *newline = memchr(text.ptr, '\n', text.len);
		struct kt_view line = {text.ptr, newline == NULL ? text.len : (size_t)(newline - text.ptr)};

		text.ptr += line.len;
		text.len -= line.len;
		if (text.len > 0) {
			text.ptr++;
			text.len--;
		}
		if (line.len < 11 || memcmp(line.ptr, "nameserver", 10) != 0 ||
		    (line.ptr[10] != ' ' && line.ptr[10] != '\t')) {
			continue;
		}
		line.ptr += 10;
		line.len -= 10;
		while (line.len > 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t')) {
			line.ptr++;
			line.len--;
		}
		for (size_t i = 0; i < line.len; i++) {
			if (line.ptr[i] == ' ' || line.ptr[i] == '\t' || line.ptr[i] == '\r' || line.ptr[i] == '#') {
				line.len = i;
			}
		}
		count += parse_server(line, &ret[count]) ? 1 : 0;
	}
	return count;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

void dns_trace_cancel(struct dns_trace *trace)
{
	if (trace != NULL) {
		dns_cancel(trace->query);
		kt_timer_destroy(trace->timer);
		kt_free(trace->at);
		kt_free(trace);
	}
}

static void finish(struct dns_trace *trace, const struct kt_err *why)
{
	dns_traced_fn *fn = trace->fn;
	void *arg = trace->arg;
	struct dns_traced *traced = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (why != NULL) {
		err = *why;
	} else {
		traced = trace->at;
		trace->at = NULL;
	}
	dns_trace_cancel(trace);
	fn(&err, traced, arg);
}

static void on_timer(void *arg)
{
	struct dns_trace *trace = arg;
	struct kt_err err;

	(void)kt_err_set(&err, KT_E_TIMEOUT, "the name servers of '%s' were not found in time", trace->at->end);
	finish(trace, &err);
}

/* --- asking ----------------------------------------------------------------------------------------------------------- */

static void on_recursive(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
			 void *arg);
static void on_probe(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
		     void *arg);

static void put_question(struct dns_trace *trace, const struct dns_ask *ask, dns_answer_fn *fn)
{
	struct kt_err err;

	if (++trace->questions > QUESTIONS_MAX) {
		(void)kt_err_set(&err, KT_E_LIMIT, "finding the name servers of '%s' took more than %u questions",
				 trace->at->end, QUESTIONS_MAX);
		finish(trace, &err);
		return;
	}
	kt_err_clear(&err);
	if (dns_ask(trace->job->dns->courier->loop, ask, fn, trace, &trace->query, &err) != KT_OK) {
		finish(trace, &err);
	}
}

static void ask_recursive(struct dns_trace *trace)
{
	static const ldns_rr_type types[] = {
		[STEP_ZONE] = LDNS_RR_TYPE_SOA, [STEP_NS] = LDNS_RR_TYPE_NS, [STEP_ALIAS] = LDNS_RR_TYPE_CNAME};
	struct dns_ask ask = {.server = &trace->job->recursive[trace->recursive], .recurse = true, .tries = 2};

	ask.type = trace->step == STEP_ADDRESS ? (trace->v6 ? LDNS_RR_TYPE_AAAA : LDNS_RR_TYPE_A) : types[trace->step];
	ask.name = trace->step == STEP_ADDRESS ? trace->at->ns[trace->ns].host
		   : trace->step == STEP_NS    ? trace->at->zone
		   : trace->step == STEP_ALIAS ? trace->at->end
					       : trace->ask;
	put_question(trace, &ask, on_recursive);
}

static void begin(struct dns_trace *trace, enum step step)
{
	trace->step = step;
	trace->recursive = 0;
	ask_recursive(trace);
}

/* --- aliases ---------------------------------------------------------------------------------------------------------- */

/* A label with "_" first is no host: its zone is looked for one step up. */
static void start_name(struct dns_trace *trace)
{
	const char *name = trace->at->end;

	trace->referrals = 0;
	trace->at->zone[0] = '\0';
	trace->at->ns_count = 0;
	memcpy(trace->ask, name, strlen(name) + 1);
	if (name[0] == '_' && strchr(name, '.') != NULL) {
		memcpy(trace->ask, dns_name_parent(name), strlen(dns_name_parent(name)) + 1);
	}
	begin(trace, trace->job->recursive_only ? STEP_ALIAS : STEP_ZONE);
}

static void follow(struct dns_trace *trace, const char *target)
{
	struct kt_err err;

	kt_err_clear(&err);
	for (unsigned i = 0; i <= trace->aliases; i++) {
		if (strcmp(trace->visited[i], target) == 0) {
			(void)kt_err_set(&err, KT_E_INVALID, "its aliases (CNAME) go round in a circle at '%s'", target);
		}
	}
	if (err.code == KT_OK && trace->aliases + 1 >= DNS_ALIASES_MAX) {
		(void)kt_err_set(&err, KT_E_LIMIT, "more than %u aliases (CNAME) in a row, the last is '%s'",
				 DNS_ALIASES_MAX - 1, trace->at->end);
	}
	if (err.code != KT_OK) {
		finish(trace, &err);
		return;
	}
	memcpy(trace->visited[++trace->aliases], target, strlen(target) + 1);
	memcpy(trace->at->end, target, strlen(target) + 1);
	start_name(trace);
}

/* --- servers ---------------------------------------------------------------------------------------------------------- */

static void add_address(struct dns_trace *trace, struct dns_ns *ns, const struct sockaddr_storage *at)
{
	if (ns->count >= DNS_NS_ADDRESSES || !dns_job_allows(trace->job, at)) {
		return;
	}
	for (unsigned i = 0; i < ns->count; i++) {
		if (dns_server_same_host(&ns->at[i].at, at)) {
			return;
		}
	}
	dns_server_set(&ns->at[ns->count++], at, dns_job_port(trace->job, at));
}

static void add_addresses(struct dns_trace *trace, const struct dns_answer *answer, ldns_pkt_section section,
			  struct dns_ns *ns, const char *owner)
{
	for (unsigned i = 0; i < answer->count; i++) {
		const struct dns_record *at = &answer->records[i];

		if (at->section == section && (at->type == LDNS_RR_TYPE_A || at->type == LDNS_RR_TYPE_AAAA) &&
		    strcmp(at->owner, owner) == 0) {
			add_address(trace, ns, &at->address);
		}
	}
}

/* The NS records of a zone in a section, with the addresses that came along. */
static void take_servers(struct dns_trace *trace, const struct dns_answer *answer, ldns_pkt_section section,
			 const char *zone)
{
	const struct dns_record *record = NULL;
	struct dns_traced *at = trace->at;

	while (at->ns_count < DNS_NS_MAX &&
	       (record = dns_answer_find(answer, section, LDNS_RR_TYPE_NS, zone, record)) != NULL) {
		struct dns_ns *ns = &at->ns[at->ns_count];
		bool known = record->target[0] == '\0';

		for (unsigned i = 0; i < at->ns_count; i++) {
			known = known || strcmp(at->ns[i].host, record->target) == 0;
		}
		if (!known) {
			memset(ns, 0, sizeof(*ns));
			memcpy(ns->host, record->target, strlen(record->target) + 1);
			add_addresses(trace, answer, LDNS_SECTION_ADDITIONAL, ns, ns->host);
			at->ns_count++;
		}
	}
}

static void probe(struct dns_trace *trace)
{
	struct dns_ask ask = {.name = trace->at->end, .type = LDNS_RR_TYPE_TXT, .tries = 2};

	trace->step = STEP_PROBE;
	while (trace->ns < trace->at->ns_count && trace->address >= trace->at->ns[trace->ns].count) {
		trace->ns++;
		trace->address = 0;
	}
	if (trace->ns >= trace->at->ns_count) {
		(void)kt_err_prefix(&trace->last, "no authoritative name server of zone '%.200s' can be asked",
				    trace->at->zone);
		finish(trace, &trace->last);
		return;
	}
	ask.server = &trace->at->ns[trace->ns].at[trace->address++];
	put_question(trace, &ask, on_probe);
}

/* The next server without an address; then the probe. */
static void next_address(struct dns_trace *trace)
{
	while (trace->ns < trace->at->ns_count && trace->at->ns[trace->ns].count > 0) {
		trace->ns++;
	}
	if (trace->ns < trace->at->ns_count) {
		trace->v6 = false;
		begin(trace, STEP_ADDRESS);
		return;
	}
	trace->ns = 0;
	trace->address = 0;
	(void)kt_err_set(&trace->last, KT_E_NET, "none has an address that may be asked");
	probe(trace);
}

/* Servers come in any order; people read them in one. */
static int by_host(const void *a, const void *b)
{
	return strcmp(((const struct dns_ns *)a)->host, ((const struct dns_ns *)b)->host);
}

static void found_servers(struct dns_trace *trace)
{
	struct kt_err err;

	if (trace->at->ns_count == 0) {
		(void)kt_err_set(&err, KT_E_NET, "zone '%s' has no name servers that can be found", trace->at->zone);
		finish(trace, &err);
		return;
	}
	qsort(trace->at->ns, trace->at->ns_count, sizeof(trace->at->ns[0]), by_host);
	trace->ns = 0;
	next_address(trace);
}

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static void set_zone(struct dns_trace *trace, const char *zone)
{
	memcpy(trace->at->zone, zone, strlen(zone) + 1);
	trace->at->ns_count = 0;
	begin(trace, STEP_NS);
}

static void up(struct dns_trace *trace)
{
	memmove(trace->ask, dns_name_parent(trace->ask), strlen(dns_name_parent(trace->ask)) + 1);
	begin(trace, STEP_ZONE);
}

static void on_zone(struct dns_trace *trace, const struct dns_answer *answer)
{
	const struct dns_record *soa = dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_SOA, trace->ask, NULL);
	struct kt_err err;

	if (soa == NULL) {
		soa = dns_answer_find(answer, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_SOA, NULL, NULL);
	}
	if (soa != NULL && dns_name_within(trace->ask, soa->owner)) {
		set_zone(trace, soa->owner);
		return;
	}
	if (trace->ask[0] == '\0') {
		(void)kt_err_set(&err, KT_E_NET, "no zone of '%s' can be found: name server %s tells of none", trace->at->end,
				 trace->job->recursive[trace->recursive].text);
		finish(trace, &err);
		return;
	}
	up(trace);
}

static void on_ns(struct dns_trace *trace, const struct dns_answer *answer)
{
	take_servers(trace, answer, LDNS_SECTION_ANSWER, trace->at->zone);
	if (trace->at->ns_count == 0) {
		take_servers(trace, answer, LDNS_SECTION_AUTHORITY, trace->at->zone);
	}
	found_servers(trace);
}

/* Addresses at the host itself or at the end of an alias of it, which should not be but is. */
static void on_address(struct dns_trace *trace, const struct dns_answer *answer)
{
	struct dns_ns *ns = &trace->at->ns[trace->ns];

	if (answer != NULL) {
		for (unsigned i = 0; i < answer->count; i++) {
			const struct dns_record *at = &answer->records[i];

			if (at->section == LDNS_SECTION_ANSWER &&
			    (at->type == LDNS_RR_TYPE_A || at->type == LDNS_RR_TYPE_AAAA)) {
				add_address(trace, ns, &at->address);
			}
		}
	}
	if (!trace->v6) {
		trace->v6 = true;
		begin(trace, STEP_ADDRESS);
		return;
	}
	trace->ns++;
	next_address(trace);
}

static void on_alias(struct dns_trace *trace, const struct dns_answer *answer)
{
	const struct dns_record *alias =
		dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_CNAME, trace->at->end, NULL);

	if (alias != NULL) {
		follow(trace, alias->target);
	} else {
		finish(trace, NULL);
	}
}

static void on_recursive(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
			 void *arg)
{
	struct dns_trace *trace = arg;

	(void)verdict;
	trace->query = NULL;
	trace->last = *err;
	if (err->code == KT_OK && answer->rcode != LDNS_RCODE_NOERROR && answer->rcode != LDNS_RCODE_NXDOMAIN) {
		(void)kt_err_set(&trace->last, KT_E_NET, "name server %s answers %s to a question about '%s'",
				 trace->job->recursive[trace->recursive].text, dns_rcode_name(answer->rcode),
				 trace->step == STEP_ZONE ? trace->ask : trace->at->end);
	}
	if (trace->last.code != KT_OK) {
		if (trace->step == STEP_ZONE && err->code == KT_OK && answer->rcode == LDNS_RCODE_SERVFAIL &&
		    strchr(trace->ask, '.') != NULL) {
			up(trace); /* an alias that leads nowhere, for instance */
		} else if (++trace->recursive < trace->job->recursive_count) {
			ask_recursive(trace);
		} else if (trace->step == STEP_ADDRESS) {
			on_address(trace, NULL); /* others may have one */
		} else {
			finish(trace, &trace->last);
		}
		return;
	}
	switch (trace->step) {
	case STEP_ZONE:
		on_zone(trace, answer);
		break;
	case STEP_NS:
		on_ns(trace, answer);
		break;
	case STEP_ADDRESS:
		on_address(trace, answer);
		break;
	default:
		on_alias(trace, answer);
		break;
	}
}

/* A zone below ours, which the server tells of instead of answering. */
static const struct dns_record *referral(const struct dns_trace *trace, const struct dns_answer *answer)
{
	const struct dns_record *ns = NULL;

	if (answer->aa || dns_answer_find(answer, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_SOA, NULL, NULL) != NULL) {
		return NULL;
	}
	while ((ns = dns_answer_find(answer, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_NS, NULL, ns)) != NULL) {
		if (strlen(ns->owner) > strlen(trace->at->zone) && dns_name_within(ns->owner, trace->at->zone) &&
		    dns_name_within(trace->at->end, ns->owner)) {
			return ns;
		}
	}
	return NULL;
}

static void on_probe(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
		     void *arg)
{
	struct dns_trace *trace = arg;
	const struct dns_record *alias, *below;

	(void)verdict;
	trace->query = NULL;
	if (err->code != KT_OK) {
		trace->last = *err;
		probe(trace);
		return;
	}
	below = referral(trace, answer);
	alias = dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_CNAME, trace->at->end, NULL);
	if (below != NULL && trace->referrals++ < REFERRALS_MAX) {
		memcpy(trace->at->zone, below->owner, sizeof(trace->at->zone));
		trace->at->ns_count = 0;
		take_servers(trace, answer, LDNS_SECTION_AUTHORITY, trace->at->zone);
		found_servers(trace);
	} else if (alias != NULL) {
		follow(trace, alias->target);
	} else if (answer->aa && (answer->rcode == LDNS_RCODE_NOERROR || answer->rcode == LDNS_RCODE_NXDOMAIN)) {
		finish(trace, NULL);
	} else {
		(void)kt_err_set(&trace->last, KT_E_NET, "name server %s (%s) answers %s and is not authoritative",
				 trace->at->ns[trace->ns].host, trace->at->ns[trace->ns].at[trace->address - 1].text,
				 dns_rcode_name(answer->rcode));
		probe(trace);
	}
}

enum kt_code dns_trace(struct dns_job *job, const char *name, dns_traced_fn *fn, void *arg, struct dns_trace **ret,
		       struct kt_err *err)
{
	struct dns_trace *trace = kt_calloc(1, sizeof(*trace));

	if (trace == NULL || (trace->at = kt_calloc(1, sizeof(*trace->at))) == NULL ||
	    kt_timer_create(job->dns->courier->loop, on_timer, trace, &trace->timer, err) != KT_OK) {
		dns_trace_cancel(trace);
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a DNS trace");
	}
	trace->job = job;
	trace->fn = fn;
	trace->arg = arg;
	memcpy(trace->at->end, name, strlen(name) + 1);
	memcpy(trace->visited[0], name, strlen(name) + 1);
	kt_timer_start(trace->timer, TRACE_TIMEOUT);
	*ret = trace;
	start_name(trace);
	return KT_OK;
}
