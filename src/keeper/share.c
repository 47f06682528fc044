/* Shares: how many of the flights one issuer may have, so that one that never answers leaves room for all others. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/client/client.h"
#include "keeper/share.h"

#define SHARE_MIN   64u  /* what few issuers may always have: eight times what the courier asks of one at once */
#define SHARE_MAX   (KT_FLIGHTS_MAX / 2)
#define RESERVED    32u  /* no remote issuer's: embedded ones answer by themselves */
#define WAITING_MAX 1024u
#define PACE        10   /* a look at the store costs no more than this part of the time */

static unsigned share_max(const struct kt_keeper *keeper)
{
	int64_t max = keeper->agent != NULL ? keeper->agent->agent.limits.per_issuer * 4 : 0;

	return max <= 0 || max > SHARE_MAX ? SHARE_MAX : max < SHARE_MIN ? SHARE_MIN : (unsigned)max;
}

/* At most half of what is free, so that each further issuer that does not answer finds room still. */
static bool has_room(const struct kt_keeper *keeper, const struct kt_share *share)
{
	const struct kt_share *other;
	unsigned remote = RESERVED;

	if (!share->remote) {
		return true;
	}
	for (other = keeper->shares; other != NULL; other = other->next) {
		remote += other->remote ? other->flying : 0;
	}
	return share->flying < share_max(keeper) && share->flying + remote < KT_FLIGHTS_MAX;
}

/* Whose share it is; false: it asks nobody. */
static bool name_issuer(const struct kt_resource *spec, const char **ret_ns, char name[520])
{
	const struct kt_issuer_ref *ref = &spec->certificate.issuer_ref;

	switch (spec->kind) {
	case KT_RES_CLIENT_CREDENTIAL:
		*ret_ns = "";
		(void)snprintf(name, 520, "%s/%s", kt_kind_name(spec->kind), kt_client_issuer_name(&spec->client));
		return true;
	case KT_RES_TOKEN:
		ref = &spec->token.issuer_ref;
		break;
	case KT_RES_CERTIFICATE:
		break;
	default:
		return false;
	}
	*ret_ns = ref->kind == KT_RES_CLUSTER_ISSUER ? "" : spec->meta.ns;
	(void)snprintf(name, 520, "%s/%s", kt_kind_name(ref->kind), ref->name);
	return true;
}

/* Finds or makes the flight's share; NULL where there is none, or no memory: then nothing is held back. */
static struct kt_share *share_of(struct kt_flight *flight)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_issuer_entry *issuer;
	struct kt_share *share;
	const char *ns;
	char name[520];

	if (flight->share != NULL || !name_issuer(flight->spec, &ns, name)) {
		return flight->share;
	}
	for (share = keeper->shares; share != NULL; share = share->next) {
		if (strcmp(share->name, name) == 0 && strcmp(share->ns, ns) == 0) {
			return share;
		}
	}
	share = kt_calloc(1, sizeof(*share));
	if (share == NULL) {
		return NULL;
	}
	(void)snprintf(share->ns, sizeof(share->ns), "%s", ns);
	(void)snprintf(share->name, sizeof(share->name), "%s", name);
	share->remote = kt_issuers_get(keeper, flight->spec, &issuer, NULL) == KT_OK && issuer->ops->remote;
	share->linked = flight->spec->kind != KT_RES_CLIENT_CREDENTIAL;
	share->next = keeper->shares;
	keeper->shares = share;
	return share;
}

void kt_share_join(struct kt_flight *flight)
{
	struct kt_share *share = share_of(flight);

	if (flight->share == NULL && share != NULL) {
		flight->share = share;
		share->flying++;
	}
}

void kt_share_leave(struct kt_flight *flight)
{
	if (flight->share != NULL) {
		flight->share->flying--;
		flight->share = NULL;
	}
}

static unsigned crowd_count(const struct kt_keeper *keeper)
{
	const struct kt_share *share;
	unsigned count = 0;

	for (share = keeper->shares; share != NULL; share = share->next) {
		count += share->crowded ? 1 : 0;
	}
	return count;
}

/* Whether the issuer would be asked: what is only written, put back or removed waits for nobody. */
static bool asks_issuer(struct kt_flight *flight)
{
	const struct kt_store_cred *cred = &flight->cred;
	struct kt_plan plan;

	memset(&plan, 0, sizeof(plan));
	if (flight->resource.gone || (cred->flags & KT_CRED_ROLL_BACK) != 0 ||
	    kt_rotate_plan(flight->keeper, &flight->resource, cred, flight->spec, true, &plan, NULL) != KT_OK ||
	    (plan.remove && cred->active != 0)) {
		return false;
	}
	return plan.action == KT_PLAN_ISSUE || plan.action == KT_PLAN_RENEW || plan.action == KT_PLAN_REISSUE ||
	       (plan.action == KT_PLAN_RESUME && cred->step <= KT_STEP_ORDERED);
}

bool kt_share_holds(struct kt_flight *flight, bool *ret_crowded)
{
	struct kt_share *share = share_of(flight);

	*ret_crowded = false;
	if (share == NULL || has_room(flight->keeper, share) || !asks_issuer(flight)) {
		return false;
	}
	if (!share->crowded && share->linked && crowd_count(flight->keeper) < KT_DUE_BUT_MAX) {
		share->crowded = *ret_crowded = true;
	}
	return true;
}

/* --- what waits -------------------------------------------------------------------------------------------------------- */

static void look_at(struct kt_keeper *keeper, kt_ms monotonic)
{
	kt_ms at = kt_keeper_now(keeper) + monotonic - kt_clock_mono(keeper->clock);

	keeper->look_again = keeper->look_again == 0 || at < keeper->look_again ? at : keeper->look_again;
}

/* The next ones that wait, without those that fly. */
static enum kt_code refill(struct kt_keeper *keeper, struct kt_share *share, struct kt_err *err)
{
	kt_ms since = kt_clock_mono(keeper->clock);
	size_t count = WAITING_MAX;
	size_t i;
	enum kt_code code;

	if (share->waiting == NULL) {
		share->waiting = kt_calloc(WAITING_MAX, sizeof(*share->waiting));
	}
	if (share->waiting == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for what is due");
	}
	share->at = share->count = 0;
	code = kt_store_cred_due_of(keeper->store, kt_keeper_now(keeper), share->ns, share->name, share->waiting, &count, err);
	for (i = 0; i < count && code == KT_OK; i++) {
		if (kt_rotate_find(keeper, share->waiting[i]) == NULL) {
			share->waiting[share->count++] = share->waiting[i];
		}
	}
	share->look_at = kt_clock_mono(keeper->clock);
	share->look_at += (share->look_at - since + 1) * PACE;
	return code;
}

bool kt_share_next(struct kt_keeper *keeper, struct kt_share **ret, int64_t *ret_id)
{
	struct kt_share *share;
	struct kt_err err;

	kt_err_clear(&err);
	for (share = keeper->shares; share != NULL; share = share->next) {
		if (!share->crowded || !has_room(keeper, share)) {
			continue;
		}
		if (share->at == share->count && kt_clock_mono(keeper->clock) < share->look_at) {
			look_at(keeper, share->look_at);
			continue;
		}
		if (share->at == share->count && refill(keeper, share, &err) != KT_OK) {
			kt_log_err(KT_LOG_ERROR, &err, "what waits for %s can't be read", share->name);
			share->look_at = kt_clock_mono(keeper->clock) + KT_SECOND;
			look_at(keeper, share->look_at);
			continue;
		}
		if (share->at < share->count) {
			*ret = share;
			*ret_id = share->waiting[share->at++];
			return true;
		}
		share->crowded = false; /* all that is due has its place */
		keeper->look = true;
	}
	return false;
}

enum kt_code kt_share_due(struct kt_keeper *keeper, int64_t *ids, size_t *count, struct kt_err *err)
{
	const struct kt_share *share;
	struct kt_store_link crowded[KT_DUE_BUT_MAX];
	size_t n = 0;

	for (share = keeper->shares; share != NULL && n < KT_DUE_BUT_MAX; share = share->next) {
		if (share->crowded) {
			crowded[n++] = (struct kt_store_link){"issuer", share->ns, share->name};
		}
	}
	return n == 0 ? kt_store_cred_due(keeper->store, kt_keeper_now(keeper), ids, count, err)
	              : kt_store_cred_due_but(keeper->store, kt_keeper_now(keeper), crowded, n, ids, count, err);
}

bool kt_share_too_soon(struct kt_keeper *keeper)
{
	if (crowd_count(keeper) == 0 || kt_clock_mono(keeper->clock) >= keeper->shares_look_at) {
		return false;
	}
	look_at(keeper, keeper->shares_look_at);
	return true;
}

void kt_share_looked(struct kt_keeper *keeper, kt_ms since)
{
	kt_ms now = kt_clock_mono(keeper->clock);

	keeper->shares_look_at = now + (now - since + 1) * PACE;
}

void kt_share_drop(struct kt_keeper *keeper, bool all)
{
	struct kt_share **at = &keeper->shares;

	while (*at != NULL) {
		struct kt_share *share = *at;

		if (all || (share->flying == 0 && !share->crowded)) {
			*at = share->next;
			kt_free(share->waiting);
			kt_free(share);
		} else {
			at = &share->next;
		}
	}
}
