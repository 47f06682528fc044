/*
 * rehearse: the coming days on a virtual clock, by the very plan that the agent follows; nothing is written. What is
 * played are the manifests on disk where the command brought them, on what the state holds where there is one.
 */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/admin.h"

#define ROWS_MAX  20000u
#define TURNS_MAX 100000u /* of one credential: certificates of seconds over years end here */
#define PAGE      32u
#define ISSUERS_MAX 1000u /* that are counted one by one */
#define HOURS_MAX (24u * 3660u)

struct rehearsal {
	struct kt_session *session;
	unsigned taken;
};

/* What a whole command adds up. Hangs on the session's ids. */
struct sums {
	kt_ms from, until;
	uint64_t issuances, expired, listed, credentials;
	size_t hours;
	uint32_t per_hour[];
};

static struct sums *sums_of(struct kt_session *session)
{
	return (struct sums *)(void *)session->ids;
}

static void count_issuer(struct kt_session *session, const struct kt_resource *spec, uint64_t issuances)
{
	const struct kt_issuer_ref *ref =
	        spec->kind == KT_RES_CERTIFICATE ? &spec->certificate.issuer_ref : &spec->token.issuer_ref;
	char name[600];

	/* An Issuer belongs to a namespace, a ClusterIssuer to none; a ClientCredential is its own. */
	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		(void)snprintf(name, sizeof(name), "%s/%s/%s", kt_kind_name(spec->kind), spec->meta.ns, spec->meta.name);
	} else if (ref->kind == KT_RES_CLUSTER_ISSUER) {
		(void)snprintf(name, sizeof(name), "ClusterIssuer/%s", ref->name);
	} else {
		(void)snprintf(name, sizeof(name), "%s/%s/%s", kt_kind_name(ref->kind), spec->meta.ns, ref->name);
	}
	if (json_object_get(session->tally, name) != NULL || json_object_size(session->tally) < ISSUERS_MAX) {
		(void)json_object_set_new(session->tally, name,
		                          json_integer(kt_json_int(session->tally, name, 0) + (json_int_t)issuances));
	}
}

static void issue(struct sums *sums, struct kt_session *session, const struct kt_store_resource *resource,
                  const struct kt_plan *plan, kt_ms at)
{
	size_t hour = (size_t)((at - sums->from) / KT_HOUR);

	sums->issuances++;
	if (hour < sums->hours) {
		sums->per_hour[hour]++;
	}
	if (sums->listed++ < ROWS_MAX) {
		kt_session_row(session, json_pack("{s:o,s:s,s:s,s:s,s:s,s:s}", "at", kt_admin_time(at), "namespace",
		                                  resource->ns, "name", resource->name, "kind", resource->kind, "action",
		                                  kt_plan_action_name(plan->action), "reason",
		                                  kt_plan_reason_name(plan->reason)));
	}
}

/* One credential from now to the end, each renewal succeeding at once. */
static void simulate(struct kt_session *session, const struct kt_store_resource *resource,
                     const struct kt_store_cred *cred, const struct kt_resource *spec)
{
	struct sums *sums = sums_of(session);
	struct kt_spec_policy policy;
	struct kt_plan_state state = {0};
	char identity[600];
	uint64_t revision = (uint64_t)cred->revision;
	kt_ms life = kt_spec_duration(spec);
	kt_ms now = sums->from;
	uint64_t before = sums->issuances;
	unsigned turn;

	if (kt_spec_policy_init(spec, &policy, NULL) != KT_OK) {
		return;
	}
	(void)snprintf(identity, sizeof(identity), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	if (cred->active != 0) {
		struct kt_store_material material;

		if (kt_store_material_get(session->keeper->store, cred->active, &material, NULL) == KT_OK) {
			state.has_material = true;
			state.not_before = material.not_before;
			state.not_after = spec->kind == KT_RES_CLIENT_CREDENTIAL ? KT_TIME_MAX : material.not_after;
			state.issued_at = material.issued;
			life = material.not_after - material.issued > 0 ? material.not_after - material.issued : life;
			kt_store_material_finish(&material);
		}
	}
	for (turn = 0; turn < TURNS_MAX && now < sums->until; turn++) {
		struct kt_plan plan;

		state.seed = kt_plan_seed(identity, revision);
		kt_plan_decide_quick(&policy.plan, &state, now, &plan);
		if (plan.action == KT_PLAN_ISSUE || plan.action == KT_PLAN_RENEW || plan.action == KT_PLAN_REISSUE) {
			sums->expired += state.has_material && state.not_after <= now;
			issue(sums, session, resource, &plan, now);
			state = (struct kt_plan_state){.has_material = true, .not_before = now, .not_after = now + life, .issued_at = now};
			revision++;
			continue;
		}
		if (plan.due_at <= now || plan.due_at >= sums->until) {
			break;
		}
		now = plan.due_at;
	}
	kt_spec_policy_finish(&policy);
	sums->credentials++;
	count_issuer(session, spec, sums->issuances - before);
}

static void play(struct kt_session *session, const struct kt_store_resource *resource, const struct kt_store_cred *cred)
{
	struct kt_resource *spec = NULL;

	if (kt_load_spec(resource, &spec, NULL) == KT_OK) {
		simulate(session, resource, cred, spec);
	}
	kt_resource_destroy(spec);
}

static bool one(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct rehearsal *rehearsal = arg;
	struct kt_session *session = rehearsal->session;
	struct kt_draft_entry *entry = session->draft != NULL ? kt_draft_find(session->draft, resource->id) : NULL;
	bool here = session->draft == NULL ? !resource->gone : kt_draft_has(session->draft, resource->id);

	rehearsal->taken++;
	kt_session_page_at(session, resource);
	if (here && cred->kind != KT_KIND_JWKS && cred->kind != KT_KIND_WATCH) {
		if (entry != NULL) {
			entry->told = true;
		}
		play(session, entry != NULL ? &entry->row : resource, cred);
	}
	return kt_session_room(session);
}

/* True when every credential of the store was played. */
static bool page_credentials(struct kt_session *session, struct kt_err *err)
{
	struct kt_store_page page = {.limit = PAGE};
	struct rehearsal rehearsal = {session, 0};

	kt_session_page(session, &page);
	return kt_store_cred_page(session->keeper->store, &page, one, &rehearsal, err) == KT_OK && rehearsal.taken == 0;
}

/* Those that the store has never seen. True when all were played. */
static bool page_entries(struct kt_session *session)
{
	static const struct kt_store_cred never;
	struct kt_draft_entry *entry = NULL;

	while (kt_session_room(session) && (entry = kt_draft_at(session->draft, session->next_entry)) != NULL) {
		session->next_entry++;
		if (!entry->told &&
		    kt_keeper_rotates(entry->row.kind) && strcmp(entry->row.kind, "Watch") != 0) {
			play(session, &entry->row, &never);
		}
	}
	return kt_draft_at(session->draft, session->next_entry) == NULL;
}

static void sum_up(struct kt_session *session)
{
	struct sums *sums = sums_of(session);
	uint32_t peak = 0;
	size_t i;

	for (i = 0; i < sums->hours; i++) {
		peak = sums->per_hour[i] > peak ? sums->per_hour[i] : peak;
	}
	kt_session_end(session, sums->expired > 0 ? 1 : 0,
	               json_pack("{s:I,s:I,s:I,s:I,s:b,s:O}", "credentials", (json_int_t)sums->credentials, "issuances",
	                         (json_int_t)sums->issuances, "peakPerHour", (json_int_t)peak, "expired",
	                         (json_int_t)sums->expired, "cut", sums->listed > ROWS_MAX, "perIssuer", session->tally));
}

static void more(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (session->keeper->store != NULL && !session->paged) {
		session->paged = page_credentials(session, &err);
		if (err.code != KT_OK) {
			kt_session_fail(session, &err);
		}
		if (!session->paged || session->ended) {
			return; /* the rest when there is room */
		}
	}
	if (session->draft == NULL || page_entries(session)) {
		sum_up(session);
	}
}

void kt_command_rehearse(struct kt_session *session)
{
	int64_t days = kt_json_int(session->request, "days", 30);
	struct sums *sums;
	size_t hours;
	struct kt_err err;

	kt_err_clear(&err);
	if (days < 1 || days > 3660) {
		(void)kt_err_set(&err, KT_E_INVALID, "--days must be between 1 and 3660");
		kt_session_fail(session, &err);
		return;
	}
	hours = (size_t)days * 24;
	if (kt_admin_draft(session, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	sums = kt_calloc(1, sizeof(*sums) + hours * sizeof(sums->per_hour[0]));
	session->tally = json_object();
	if (sums == NULL || session->tally == NULL) {
		kt_free(sums);
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a rehearsal");
		kt_session_fail(session, &err);
		return;
	}
	sums->from = kt_keeper_now(session->keeper);
	sums->until = sums->from + days * KT_DAY;
	sums->hours = hours;
	session->ids = (int64_t *)(void *)sums;
	session->more = more;
	more(session);
}
