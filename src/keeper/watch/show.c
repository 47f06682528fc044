/* What plan, status and metrics say of Watches. */
#include <stdio.h>

#include "keeper/admin.h"
#include "keeper/flight.h"
#include "keeper/watch/facts.h"
#include "keeper/watch/watched.h"

#define METRICS_MAX (24u * 1024u) /* bytes of one family: there are few Watches as a rule, and the page has a limit */

enum kt_code kt_watched_plan(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                             const struct kt_store_cred *cred, const struct kt_resource *spec, struct kt_plan *ret,
                             struct kt_err *err)
{
	kt_ms now = kt_keeper_now(keeper);
	struct kt_plan_watch watch;
	struct kt_plan_watch_next next;
	struct kt_watch_facts facts;
	char text[32];

	(void)err;
	kt_watch_facts_read(cred, &facts);
	kt_watch_plan_input(resource, cred, spec, &facts, facts.not_after != 0, now, &watch);
	kt_plan_watch_decide(&watch, now, &next);
	*ret = next.plan;
	if (resource->gone) {
		ret->action = KT_PLAN_NONE;
		ret->reason = KT_WHY_ORPHAN;
	} else if (facts.phase != KT_WATCH_IDLE) {
		ret->action = KT_PLAN_RESUME;
		ret->reason = KT_WHY_IN_FLIGHT;
		(void)snprintf(ret->text, sizeof(ret->text), "%s",
		               facts.phase == KT_WATCH_RENEWING ? "its renewal command runs"
		                                                : "its renewal command has ended, a later certificate is waited for");
	} else if (facts.not_after == 0) {
		ret->action = KT_PLAN_WAIT;
		ret->reason = KT_WHY_NEVER_ISSUED;
		ret->due_at = cred->due_at;
		(void)snprintf(ret->text, sizeof(ret->text), "%s", "its source has not been read yet");
	} else if (!watch.has_command) {
		ret->action = KT_PLAN_WAIT;
		ret->due_at = next.warn_at > now ? next.warn_at : facts.not_after;
		ret->renew_at = 0;
		(void)snprintf(ret->text, sizeof(ret->text), "no command renews it; %s %s", next.warn ? "it ends" : "warned about from",
		               kt_time_format(next.warn ? facts.not_after : next.warn_at, text));
	} else if (cred->attempts > 0 && cred->next_try > now && !watch.forced) {
		ret->action = KT_PLAN_WAIT;
		ret->due_at = cred->next_try;
	}
	return KT_OK;
}

static const char *state_of(const struct kt_store_cred *cred, const struct kt_watch_facts *facts, bool warned, kt_ms now)
{
	if (facts->phase != KT_WATCH_IDLE) {
		return kt_watch_phases[facts->phase];
	}
	if (facts->not_after != 0 && facts->not_after <= now) {
		return "expired";
	}
	if (cred->attempts > 0) {
		return "failing";
	}
	if (facts->not_after == 0) {
		return "unread";
	}
	return warned ? "expiring" : cred->proof == KT_PROOF_PROVED ? "proved" : "watched";
}

void kt_watched_describe(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                         const struct kt_store_cred *cred, const struct kt_resource *spec, json_t *out)
{
	kt_ms now = kt_keeper_now(keeper);
	struct kt_plan_watch watch;
	struct kt_watch_facts facts;
	char source[600];
	kt_ms warn_at;

	kt_watch_facts_read(cred, &facts);
	kt_watch_plan_input(resource, cred, spec, &facts, facts.not_after != 0, now, &watch);
	warn_at = kt_plan_watch_warn_at(&watch);
	(void)json_object_set_new(out, "state", json_string(state_of(cred, &facts, warn_at != 0 && now >= warn_at, now)));
	/* Nothing of a Watch is retired: what it does, or what it failed at. */
	(void)json_object_set_new(out, "step", json_string(facts.phase != KT_WATCH_IDLE         ? kt_watch_phases[facts.phase]
	                                                   : cred->attempts > 0                 ? facts.renewal_failed ? "renewing" : "reading"
	                                                   : cred->proof == KT_PROOF_PROVED     ? "proved"
	                                                                                        : "watched"));
	if (cred->proof == KT_PROOF_NOBODY) {
		(void)json_object_set_new(out, "proof", json_string("none"));
	}
	(void)json_object_set_new(out, "source", json_string(kt_watch_source_text(spec, source, sizeof(source))));
	if (facts.not_after != 0) {
		(void)json_object_set_new(out, "serial", json_string(facts.serial));
		(void)json_object_set_new(out, "sha256", json_string(facts.sha256));
		(void)json_object_set_new(out, "subject", json_string(facts.subject));
		(void)json_object_set_new(out, "notBefore", kt_admin_time(facts.not_before));
		(void)json_object_set_new(out, "notAfter", kt_admin_time(facts.not_after));
	}
	(void)json_object_set_new(out, "readAt", kt_admin_time(facts.read_at));
	(void)json_object_set_new(out, "warnAt", kt_admin_time(warn_at));
	(void)json_object_set_new(out, "ranAt", kt_admin_time(facts.ran_at));
	(void)json_object_set_new(out, "hasCommand", json_boolean(spec->watch.renew != NULL));
}

struct walk {
	struct kt_keeper *keeper;
	struct kt_buf *out;
	const char *name, *type, *help;
	int what;
	size_t end; /* of the buffer, for this family */
	uint64_t expired;
};

static bool walk_one(const struct kt_store_resource *resource, void *arg)
{
	struct walk *walk = arg;
	kt_ms now = kt_keeper_now(walk->keeper);
	struct kt_resource *spec = NULL;
	struct kt_store_cred cred;
	struct kt_plan_watch watch;
	struct kt_watch_facts facts;
	long long value = 0;

	if (kt_store_cred_get(walk->keeper->store, resource->id, &cred, NULL) != KT_OK) {
		return true;
	}
	walk->expired += cred.expiry != 0 && cred.expiry <= now;
	if (walk->out != NULL && kt_load_spec(resource, &spec, NULL) == KT_OK) {
		kt_watch_facts_read(&cred, &facts);
		kt_watch_plan_input(resource, &cred, spec, &facts, true, now, &watch);
		switch (walk->what) {
		case 0:
			value = (long long)(facts.not_after / 1000);
			break;
		case 1:
			value = (long long)(facts.read_at / 1000);
			break;
		case 2:
			value = facts.not_after != 0 && now >= kt_plan_watch_warn_at(&watch);
			break;
		case 3:
			value = (long long)cred.attempts;
			break;
		default:
			value = (long long)cred.revision;
			break;
		}
		if (walk->end == 0) {
			walk->end = walk->out->len + METRICS_MAX;
			kt_buf_addf(walk->out, "# HELP keyturn_watch_%s %s\n# TYPE keyturn_watch_%s %s\n", walk->name, walk->help,
			            walk->name, walk->type);
		}
		kt_buf_addf(walk->out, "keyturn_watch_%s{namespace=\"%s\",name=\"%s\"} %lld\n", walk->name, resource->ns,
		            resource->name, value);
		kt_resource_destroy(spec);
	}
	kt_store_cred_finish(&cred);
	return walk->out == NULL || walk->end == 0 || walk->out->len < walk->end;
}

void kt_watched_metrics(struct kt_keeper *keeper, struct kt_buf *out)
{
	static const struct {
		const char *name, *type, *help;
	} rows[] = {
	        {"not_after_seconds", "gauge", "When what is watched ends, in seconds since the epoch; 0: not read yet."},
	        {"read_timestamp_seconds", "gauge", "When a certificate was last read there; 0: never."},
	        {"warning", "gauge", "1 from spec.warnBefore on."},
	        {"failures", "gauge", "Failures in a row, of reading or of renewing."},
	        {"renewals_total", "counter", "Renewals that were proved."},
	};

	for (int i = 0; i < 5; i++) {
		struct walk walk = {.keeper = keeper,
		                    .out = out,
		                    .name = rows[i].name,
		                    .type = rows[i].type,
		                    .help = rows[i].help,
		                    .what = i};

		(void)kt_store_resource_each(keeper->store, "Watch", 0, 100000, walk_one, &walk, NULL);
	}
}

uint64_t kt_watched_expired(struct kt_keeper *keeper)
{
	struct walk walk = {.keeper = keeper};

	(void)kt_store_resource_each(keeper->store, "Watch", 0, 100000, walk_one, &walk, NULL);
	return walk.expired;
}
