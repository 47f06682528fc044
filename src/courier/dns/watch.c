/* Looks for a TXT value at every authoritative server with growing pauses, then at the recursive ones, and tells. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

#define FIRST_PAUSE (300)
#define LAST_PAUSE  (15 * KT_SECOND)
#define CHAIN_MAX   16u

enum sight {
	UNSEEN,
	HAS,
	LACKS,
	SILENT,
	BEYOND, /* this host has no way there: IPv6 only, mostly */
};

/* One address that is asked. */
struct target {
	struct dns_watch *watch;
	const char *name; /* of the server, or its address */
	struct dns_server at;
	unsigned ns;
	bool recursive;
	struct dns_query *query;
	enum sight sight;
	char why[96];  /* SILENT */
	bool serial_known;
	uint32_t serial;
	int64_t cached; /* LACKS at a recursive server: seconds that its answer lasts; 0: not said */
	kt_ms again;    /* not before */
};

struct dns_watch {
	struct dns_job *job;
	dns_seen_fn *fn;
	void *arg;
	char name[DNS_NAME_SIZE];
	struct target *targets;
	unsigned count, authoritative; /* the first ones */
	unsigned ns_count;
	unsigned open;
	kt_ms deadline, pause;
	bool last; /* everything is known: the recursive ones are asked as information */
	struct kt_timer *timer;
	struct kt_err err; /* how it ends after that */
};

/* --- what a record says ------------------------------------------------------------------------------------------------- */

static struct kt_view trimmed(struct kt_view text)
{
	while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
		text.ptr++;
		text.len--;
	}
	while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t')) {
		text.len--;
	}
	return text;
}

/* The next part of an issue-value (RFC 8659 section 4.2), without the white space around it; false at the end. */
static bool next_part(struct kt_view *rest, struct kt_view *ret)
{
	const char *end = rest->len > 0 ? memchr(rest->ptr, ';', rest->len) : NULL;
	size_t len = end != NULL ? (size_t)(end - rest->ptr) : rest->len;

	if (rest->ptr == NULL) {
		return false;
	}
	*ret = trimmed((struct kt_view){rest->ptr, len});
	rest->ptr = end != NULL ? end + 1 : NULL;
	rest->len = end != NULL ? rest->len - len - 1 : 0;
	return true;
}

/* "tag=value" */
static struct kt_view split_tag(struct kt_view part, struct kt_view *ret_value)
{
	const char *equals = part.len > 0 ? memchr(part.ptr, '=', part.len) : NULL;
	size_t len = equals != NULL ? (size_t)(equals - part.ptr) : part.len;

	*ret_value = equals != NULL ? trimmed((struct kt_view){equals + 1, part.len - len - 1}) : (struct kt_view){"", 0};
	return trimmed((struct kt_view){part.ptr, len});
}

/* A parameter of a record that is as it is wanted; only an account's URL is compared to the letter. */
static bool has_parameter(struct kt_view record, struct kt_view tag, struct kt_view value)
{
	struct kt_view part, has;

	while (next_part(&record, &part)) {
		if (kt_ascii_ieq(split_tag(part, &has), tag)) {
			return has.len == value.len && (kt_ascii_ieq(tag, KT_VIEW_LIT("accounturi"))
								? memcmp(has.ptr, value.ptr, has.len) == 0
								: kt_ascii_ieq(has, value));
		}
	}
	return false;
}

/* draft-ietf-acme-dns-persist: a record may say until when it is good. */
static bool is_over(struct kt_view record, kt_ms now)
{
	struct kt_view part, value;
	int64_t until;

	while (next_part(&record, &part)) {
		if (kt_ascii_ieq(split_tag(part, &value), KT_VIEW_LIT("persistUntil"))) {
			return kt_parse_i64(value, 0, KT_TIME_MAX / KT_SECOND, &until, NULL) != KT_OK || until * KT_SECOND < now;
		}
	}
	return false;
}

/* The record is for the same issuer and has every parameter that is wanted; it may have more. */
static bool issue_matches(struct kt_view wanted, struct kt_view record, kt_ms now)
{
	struct kt_view part, other, value, rest = record;

	if (!next_part(&wanted, &part) || !next_part(&rest, &other) || !kt_ascii_ieq(part, other)) {
		return false;
	}
	while (next_part(&wanted, &part)) {
		struct kt_view tag = split_tag(part, &value);

		if (tag.len > 0 && !has_parameter(rest, tag, value)) {
			return false;
		}
	}
	return !is_over(rest, now);
}

bool dns_value_matches(const char *value, struct kt_view text)
{
	size_t len = strlen(value);

	return len > 0 && value[len - 1] == ';' ? issue_matches(kt_view_str(value), text, kt_clock_wall(&kt_clock_system))
						: kt_view_eq_str(text, value);
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

void dns_watch_cancel(struct dns_watch *watch)
{
	if (watch != NULL) {
		for (unsigned i = 0; i < watch->count; i++) {
			dns_cancel(watch->targets[i].query);
		}
		kt_timer_destroy(watch->timer);
		kt_free(watch->targets);
		kt_free(watch);
	}
}

static void say(const struct target *at, struct kt_buf *out)
{
	switch (at->sight) {
	case HAS:
		kt_buf_addf(out, "%s has it", at->name);
		break;
	case LACKS:
		kt_buf_addf(out, "%s not yet", at->name);
		if (at->recursive && at->cached > 0) {
			kt_buf_addf(out, " (cached %lld s)", (long long)at->cached);
		} else if (!at->recursive && at->serial_known) {
			kt_buf_addf(out, " (old serial %lu)", (unsigned long)at->serial);
		}
		break;
	case SILENT:
		kt_buf_addf(out, "%s no answer (%s)", at->name, at->why);
		break;
	case BEYOND:
		kt_buf_addf(out, "%s can't be asked from this host (%s)", at->name, at->at.text);
		break;
	default:
		kt_buf_addf(out, "%s not asked", at->name);
		break;
	}
}

/* Another address of this server has been seen to answer. */
static bool answers_elsewhere(const struct dns_watch *watch, unsigned ns)
{
	for (unsigned i = 0; i < watch->authoritative; i++) {
		if (watch->targets[i].ns == ns && (watch->targets[i].sight == HAS || watch->targets[i].sight == LACKS)) {
			return true;
		}
	}
	return false;
}

static bool skipped(const struct dns_watch *watch, unsigned i)
{
	return (watch->targets[i].sight == SILENT || watch->targets[i].sight == BEYOND) && i < watch->authoritative &&
	       answers_elsewhere(watch, watch->targets[i].ns);
}

static void write_seen(const struct dns_watch *watch, struct kt_buf *out)
{
	const char *before = "authoritative: ";

	for (unsigned i = 0; i < watch->count && out->len < DNS_SEEN_MAX - 400; i++) {
		if (i == watch->authoritative) {
			before = i > 0 ? "; recursive: " : "recursive: ";
		}
		if (!skipped(watch, i)) {
			kt_buf_adds(out, before);
			say(&watch->targets[i], out);
			before = ", ";
		}
	}
}

static void finish(struct dns_watch *watch)
{
	struct kt_err err = watch->err;
	dns_seen_fn *fn = watch->fn;
	void *arg = watch->arg;
	struct kt_buf seen;

	kt_buf_init(&seen, DNS_SEEN_MAX);
	kt_buf_adds(&seen, "");
	write_seen(watch, &seen);
	if (err.code != KT_OK && seen.failed == KT_OK) {
		struct kt_err why = err;

		(void)kt_err_set(&err, why.code, "%s: %s", why.what, seen.ptr);
		err.retry_after_s = why.retry_after_s;
	}
	dns_watch_cancel(watch);
	fn(&err, seen.failed == KT_OK ? seen.ptr : "", arg);
	kt_buf_finish(&seen);
}

/* --- one answer ------------------------------------------------------------------------------------------------------- */

/* The owner at which a chain of aliases in the answer ends. */
static const char *end_of_chain(const struct dns_answer *answer, const char *name)
{
	const struct dns_record *alias;

	for (unsigned i = 0; i < CHAIN_MAX; i++) {
		alias = dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_CNAME, name, NULL);
		if (alias == NULL) {
			break;
		}
		name = alias->target;
	}
	return name;
}

static void judge(struct target *target, const struct dns_answer *answer)
{
	const struct dns_watch *watch = target->watch;
	const char *owner = end_of_chain(answer, watch->name);
	const struct dns_record *at = NULL, *soa;
	uint32_t ttl = 0;

	target->sight = LACKS;
	target->serial_known = false;
	while ((at = dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_TXT, owner, at)) != NULL) {
		ttl = at->ttl;
		if (dns_value_matches(watch->job->value, (struct kt_view){at->text, at->text_len})) {
			target->sight = HAS;
			return;
		}
	}
	soa = dns_answer_find(answer, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_SOA, NULL, NULL);
	if (soa != NULL) {
		target->serial = soa->serial;
		target->serial_known = true;
		ttl = soa->ttl < soa->minimum ? soa->ttl : soa->minimum; /* RFC 2308 section 5 */
	}
	target->cached = ttl;
}

static void round_done(struct dns_watch *watch);

static bool no_way(int error)
{
	return error == ENETUNREACH || error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

static void on_answer(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
		      void *arg)
{
	struct target *target = arg;
	struct dns_watch *watch = target->watch;

	(void)verdict;
	target->query = NULL;
	target->again = 0;
	if (err->code != KT_OK) {
		const char *why = strstr(err->what, ": ");

		target->sight = no_way(err->sys_errno) ? BEYOND : SILENT;
		why = why == NULL ? err->what : why + 2;
		(void)snprintf(target->why, sizeof(target->why), "%.90s", why);
	} else if (answer->rcode != LDNS_RCODE_NOERROR && answer->rcode != LDNS_RCODE_NXDOMAIN) {
		target->sight = SILENT;
		(void)snprintf(target->why, sizeof(target->why), "%s", dns_rcode_name(answer->rcode));
	} else if (!target->recursive && !answer->aa) {
		target->sight = SILENT;
		(void)snprintf(target->why, sizeof(target->why), "it is not authoritative");
	} else {
		judge(target, answer);
	}
	if (target->recursive && target->sight == LACKS) {
		/* Asking again before its cache forgets gives the same answer, and may renew it. */
		target->again = kt_clock_mono(kt_loop_clock(watch->job->dns->courier->loop)) +
				(kt_ms)(target->cached > 86400 ? 86400 : target->cached) * KT_SECOND;
	}
	if (--watch->open == 0) {
		round_done(watch);
	}
}

/* --- rounds ----------------------------------------------------------------------------------------------------------- */

static void ask(struct dns_watch *watch, struct target *target)
{
	struct dns_ask what = {.server = &target->at,
			       .name = watch->name,
			       .type = LDNS_RR_TYPE_TXT,
			       .recurse = target->recursive,
			       .tries = target->recursive && watch->last ? 1 : 2};
	struct kt_err err;

	kt_err_clear(&err);
	if (dns_ask(watch->job->dns->courier->loop, &what, on_answer, target, &target->query, &err) == KT_OK) {
		watch->open++;
	} else {
		target->sight = SILENT;
		(void)snprintf(target->why, sizeof(target->why), "%.90s", err.what);
	}
}

static kt_ms now(const struct dns_watch *watch)
{
	return kt_clock_mono(kt_loop_clock(watch->job->dns->courier->loop));
}

static void start_round(void *arg)
{
	struct dns_watch *watch = arg;
	unsigned first = watch->last ? watch->authoritative : 0;
	unsigned end = watch->authoritative > 0 && !watch->last ? watch->authoritative : watch->count;

	watch->open = 1; /* answers come later, but keep the round open until all are asked */
	for (unsigned i = first; i < end; i++) {
		if (watch->targets[i].sight != HAS && watch->targets[i].again <= now(watch)) {
			ask(watch, &watch->targets[i]);
		}
	}
	if (--watch->open == 0) {
		round_done(watch);
	}
}

static void end_with_recursive(struct dns_watch *watch)
{
	if (watch->authoritative == 0 || watch->authoritative == watch->count || watch->last) {
		finish(watch);
		return;
	}
	watch->last = true;
	start_round(watch);
}

/* Of those that decide: how many have it not, and when it makes sense to ask again. */
static unsigned missing(const struct dns_watch *watch, kt_ms *ret_again)
{
	unsigned end = watch->authoritative > 0 ? watch->authoritative : watch->count, count = 0;
	bool seen = false; /* by somebody: then those beyond reach are left out */

	*ret_again = -1;
	for (unsigned i = 0; i < end; i++) {
		seen = seen || watch->targets[i].sight == HAS;
	}
	for (unsigned i = 0; i < end; i++) {
		if (watch->targets[i].sight != HAS && !skipped(watch, i) && !(watch->targets[i].sight == BEYOND && seen)) {
			count++;
			if (*ret_again < 0 || watch->targets[i].again > *ret_again) {
				*ret_again = watch->targets[i].again;
			}
		}
	}
	return count;
}

static void round_done(struct dns_watch *watch)
{
	kt_ms again, at = now(watch), next;

	if (watch->last) {
		finish(watch);
		return;
	}
	if (missing(watch, &again) == 0) {
		end_with_recursive(watch);
		return;
	}
	next = at + watch->pause;
	if (watch->authoritative == 0 && again > next) {
		next = again; /* the slowest cache decides */
	}
	if (next > watch->deadline) {
		(void)kt_err_set(&watch->err, KT_E_TIMEOUT, "it is not seen everywhere");
		watch->err.retry_after_s = again > at ? (again - at + 999) / KT_SECOND : 0;
		end_with_recursive(watch);
		return;
	}
	kt_timer_start(watch->timer, next - at);
	watch->pause = watch->pause * 3 / 2 > LAST_PAUSE ? LAST_PAUSE : watch->pause * 3 / 2;
}

/* --- the start -------------------------------------------------------------------------------------------------------- */

static void add_target(struct dns_watch *watch, const char *name, const struct dns_server *at, unsigned ns,
		       bool recursive)
{
	struct target *target = &watch->targets[watch->count++];

	target->watch = watch;
	target->name = name;
	target->at = *at;
	target->ns = ns;
	target->recursive = recursive;
}

enum kt_code dns_watch(struct dns_job *job, const struct dns_traced *traced, dns_seen_fn *fn, void *arg,
		       struct dns_watch **ret, struct kt_err *err)
{
	struct dns_watch *watch = kt_calloc(1, sizeof(*watch));
	unsigned count = job->recursive_count;

	for (unsigned i = 0; i < traced->ns_count; i++) {
		count += traced->ns[i].count;
	}
	if (watch == NULL || (watch->targets = kt_calloc(count, sizeof(*watch->targets))) == NULL ||
	    kt_timer_create(job->dns->courier->loop, start_round, watch, &watch->timer, err) != KT_OK) {
		dns_watch_cancel(watch);
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a look at name servers");
	}
	watch->job = job;
	watch->fn = fn;
	watch->arg = arg;
	memcpy(watch->name, traced->end, sizeof(watch->name));
	watch->ns_count = traced->ns_count;
	for (unsigned i = 0; i < traced->ns_count; i++) {
		for (unsigned j = 0; j < traced->ns[i].count; j++) {
			add_target(watch, traced->ns[i].host, &traced->ns[i].at[j], i, false);
		}
	}
	watch->authoritative = watch->count;
	for (unsigned i = 0; i < job->recursive_count; i++) {
		add_target(watch, job->recursive[i].text, &job->recursive[i], 0, true);
	}
	watch->pause = FIRST_PAUSE;
	watch->deadline = now(watch) + job->timeout;
	*ret = watch;
	kt_timer_start(watch->timer, 0);
	return KT_OK;
}
