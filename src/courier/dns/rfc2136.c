/* Provider rfc2136: dynamic updates, signed with TSIG; adds one TXT record and removes exactly that one. */
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"

/* An update under way: first the zone is found at the very server, then it is changed. */
struct update {
	struct dns_tsig tsig; /* key NULL: unsigned */
	bool tcp;
	bool add;
	unsigned server; /* of job->update */
	char zone[DNS_NAME_SIZE];
};

static void free_update(void *state)
{
	struct update *update = state;

	dns_tsig_finish(&update->tsig);
	kt_free(update);
}

/* --- what a refusal means --------------------------------------------------------------------------------------------- */

static const struct {
	unsigned error;
	const char *name, *advice;
} tsig_errors[] = {
	{DNS_BADSIG, "BADSIG", "the secret of the key is not the one that the server has"},
	{DNS_BADKEY, "BADKEY", "the server has no key of this name and algorithm: compare tsigKeyName and tsigAlgorithm with "
			       "its configuration"},
	{DNS_BADTRUNC, "BADTRUNC", "the server wants longer signatures"},
};

/* The failure of an answer, with the way to mend it. */
static void explain(struct dns_job *job, const struct update *update, unsigned rcode, const struct dns_verdict *verdict)
{
	const char *server = job->update[update->server].text, *advice = "";
	const char *key = update->tsig.key == NULL ? "none" : update->tsig.name;
	enum kt_code code = KT_E_DENIED;

	for (size_t i = 0; i < sizeof(tsig_errors) / sizeof(tsig_errors[0]); i++) {
		if (tsig_errors[i].error == verdict->error) {
			dns_job_failf(job, KT_E_AUTH, "name server %s refuses TSIG key '%s' (%s): %s", server, key,
				      tsig_errors[i].name, tsig_errors[i].advice);
			return;
		}
	}
	if (verdict->error == DNS_BADTIME) {
		dns_job_failf(job, KT_E_AUTH,
			      "name server %s refuses TSIG key '%s' (BADTIME): its clock is %lld s %s of ours, more than %u s "
			      "are not accepted: set the clocks",
			      server, key, (long long)(verdict->skew < 0 ? -verdict->skew : verdict->skew),
			      verdict->skew < 0 ? "behind" : "ahead", DNS_TSIG_FUDGE);
		return;
	}
	switch (rcode) {
	case LDNS_RCODE_REFUSED:
		advice = update->tsig.key == NULL
				 ? ": updates must be signed there: give tsigKeyName and tsigSecretSecretRef"
				 : ": the key may not change this name: allow it there (BIND: update-policy or allow-update; "
				   "Knot: acl with action update)";
		break;
	case LDNS_RCODE_NOTAUTH:
		advice = ": it does not serve the zone as its primary, or does not know the key: name the primary in "
			 "nameserver";
		break;
	case LDNS_RCODE_NOTZONE:
		advice = ": the record is not in that zone";
		break;
	case LDNS_RCODE_NOTIMPL:
		advice = ": it takes no dynamic updates";
		break;
	case LDNS_RCODE_SERVFAIL:
		advice = ": see its log; a zone file or journal that it can't write is the usual reason";
		code = KT_E_NET;
		break;
	default:
		break;
	}
	dns_job_failf(job, code, "name server %s answers %s to an update of '%s' (zone '%s', key %s)%s", server,
		      dns_rcode_name(rcode), job->effective, update->zone, key, advice);
}

/* --- the update ------------------------------------------------------------------------------------------------------- */

static void start(struct dns_job *job);

static void remember(struct dns_job *job, const struct update *update)
{
	(void)json_object_set_new(job->handle, "zone", json_string(update->zone));
}

static void on_updated(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
		       void *arg)
{
	struct dns_job *job = arg;
	struct update *update = job->state;

	job->query = NULL;
	if (err->code != KT_OK) {
		dns_job_fail(job, err);
	} else if (answer->rcode != LDNS_RCODE_NOERROR) {
		explain(job, update, answer->rcode, verdict);
	} else {
		remember(job, update);
		dns_job_done(job);
	}
}

static void ask(struct dns_job *job, const struct dns_ask *what, dns_answer_fn *fn)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (dns_ask(job->dns->courier->loop, what, fn, job, &job->query, &err) != KT_OK) {
		dns_job_fail(job, &err);
	}
}

static void send_update(struct dns_job *job)
{
	struct update *update = job->state;
	struct dns_ask what = {.server = &job->update[update->server],
			       .name = job->effective,
			       .tcp = update->tcp,
			       .tsig = update->tsig.key == NULL ? NULL : &update->tsig,
			       .zone = update->zone,
			       .value = kt_view_str(job->value),
			       .add = update->add,
			       .ttl = DNS_TTL};

	job->touched = true;
	ask(job, &what, on_updated);
}

/* --- the zone --------------------------------------------------------------------------------------------------------- */

/* Owner of the SOA in an answer with authority for name; NULL: this server says nothing of it. */
static const char *zone_in(const struct dns_answer *answer, const char *name)
{
	const struct dns_record *soa = dns_answer_find(answer, LDNS_SECTION_ANSWER, LDNS_RR_TYPE_SOA, name, NULL);

	if (soa == NULL) {
		soa = dns_answer_find(answer, LDNS_SECTION_AUTHORITY, LDNS_RR_TYPE_SOA, NULL, NULL);
	}
	return answer->aa && soa != NULL && dns_name_within(name, soa->owner) ? soa->owner : NULL;
}

static void ask_zone(struct dns_job *job);

static void on_zone(const struct kt_err *err, const struct dns_answer *answer, const struct dns_verdict *verdict,
		    void *arg)
{
	struct dns_job *job = arg;
	struct update *update = job->state;
	const char *zone;

	job->query = NULL;
	if (err->code != KT_OK) {
		if (update->server + 1 < job->update_count) {
			update->server++;
			start(job);
			return;
		}
		dns_job_fail(job, err);
		return;
	}
	if (verdict->error != 0) {
		explain(job, update, answer->rcode, verdict);
		return;
	}
	zone = zone_in(answer, update->zone);
	if (zone != NULL) {
		memcpy(update->zone, zone, strlen(zone) + 1);
		send_update(job);
		return;
	}
	memmove(update->zone, dns_name_parent(update->zone), strlen(dns_name_parent(update->zone)) + 1);
	if (update->zone[0] != '\0') {
		ask_zone(job);
		return;
	}
	dns_job_failf(job, KT_E_DENIED,
		      "name server %s serves no zone of '%s' (its last answer was %s): name the primary of that zone in nameserver",
		      job->update[update->server].text, job->effective, dns_rcode_name(answer->rcode));
}

static void ask_zone(struct dns_job *job)
{
	struct update *update = job->state;
	struct dns_ask what = {.server = &job->update[update->server],
			       .name = update->zone,
			       .type = LDNS_RR_TYPE_SOA,
			       .tcp = update->tcp,
			       .tsig = update->tsig.key == NULL ? NULL : &update->tsig};

	ask(job, &what, on_zone);
}

static void start(struct dns_job *job)
{
	struct update *update = job->state;

	memcpy(update->zone, job->effective, strlen(job->effective) + 1);
	ask_zone(job);
}

static enum kt_code read_key(const struct dns_job *job, struct update *update, struct kt_err *err)
{
	const char *name = kt_json_str(job->solver, "tsigKeyName");
	const char *algorithm = kt_json_str(job->solver, "tsigAlgorithm");
	KT_AUTOSECRET struct kt_secret *secret = NULL;

	if (name == NULL || name[0] == '\0') {
		return KT_OK;
	}
	if (dns_job_secret(job, "tsigSecret", &secret, err) != KT_OK) {
		return err->code;
	}
	return dns_tsig_init(&update->tsig, name, algorithm == NULL ? "HMACSHA256" : algorithm, kt_secret_view(secret),
			     err);
}

static void prepare(struct dns_job *job, bool add)
{
	struct update *update = kt_calloc(1, sizeof(*update));
	const char *protocol = kt_json_str(job->solver, "protocol");
	struct kt_err err;

	if (update == NULL) {
		dns_job_failf(job, KT_E_NOMEM, "out of memory for an update");
		return;
	}
	job->state = update;
	job->state_free = free_update;
	update->add = add;
	update->tcp = protocol != NULL && strcmp(protocol, "TCP") == 0;
	kt_err_clear(&err);
	if (job->update_count == 0) {
		dns_job_failf(job, KT_E_INVALID, "rfc2136 needs nameserver");
	} else if (read_key(job, update, &err) != KT_OK) {
		dns_job_fail(job, &err);
	} else {
		start(job);
	}
}

static void add(struct dns_job *job)
{
	prepare(job, true);
}

/* A zone that has no such record takes the update just the same (RFC 2136 section 3.4.2.4). */
static void remove_record(struct dns_job *job)
{
	prepare(job, false);
}

const struct kt_dns_provider dns_provider_rfc2136 = {.name = "rfc2136", .add = add, .remove = remove_record};
