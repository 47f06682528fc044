/* Several issuers for one certificate: how they fare, which one is asked, whether what a fallback gave is trusted. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/budget.h"
#include "keeper/fallback.h"
#include "keeper/plan/health.h"
#include "keeper/plan/limits.h"

#define ISSUERS_MAX 9u /* its own and eight fallbacks */

struct list {
	struct kt_issuer_entry *entries[ISSUERS_MAX];
	struct kt_health_candidate seen[ISSUERS_MAX];
	size_t count;
};

static bool has_fallbacks(const struct kt_issuer_entry *issuer)
{
	return issuer->ops == &kt_issuer_acme && issuer->spec->issuer.acme->fallback.count > 0;
}

/* --- health ------------------------------------------------------------------------------------------------------------ */

static struct kt_health health_of(struct kt_keeper *keeper, const char *issuer)
{
	struct kt_store_health row;
	struct kt_health health = {0};

	if (kt_store_health_get(keeper->store, issuer, &row, NULL) == KT_OK) {
		health = (struct kt_health){row.failures, row.failed_at, row.ok_at, row.retry_at};
		kt_store_health_finish(&row);
	}
	return health;
}

static enum kt_code put_health(struct kt_keeper *keeper, const char *issuer, const struct kt_health *health,
                               const struct kt_err *why, struct kt_err *err)
{
	struct kt_store_health row = {.issuer = issuer,
	                              .failures = health->failures,
	                              .failed_at = health->failed_at,
	                              .ok_at = health->ok_at,
	                              .retry_at = health->retry_at,
	                              .error = why != NULL ? why->code : KT_OK,
	                              .error_text = why != NULL ? why->what : NULL};

	return kt_store_health_put(keeper->store, &row, err);
}

enum kt_code kt_fallback_failed(struct kt_flight *flight, const struct kt_plan_retry *row, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_issuer_entry *issuer = flight->issuer;
	kt_ms now = kt_keeper_now(keeper);
	struct kt_health health;

	if (issuer == NULL || issuer->ops != &kt_issuer_acme || issuer->staging || flight->stage != KT_FLIGHT_OBTAIN ||
	    !kt_health_counts(row->fault)) {
		return KT_OK;
	}
	health = health_of(keeper, issuer->ref);
	kt_health_fail(&health, flight->err.retry_after_s, now);
	if (health.failures == KT_HEALTH_FAILURES) {
		kt_log(KT_LOG_WARN, "%s failed %u times in a row and counts as down: %s", issuer->ref, health.failures,
		       flight->err.what);
	}
	return put_health(keeper, issuer->ref, &health, &flight->err, err);
}

enum kt_code kt_fallback_obtained(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_issuer_entry *issuer = flight->issuer;
	kt_ms now = kt_keeper_now(keeper);
	struct kt_health health = health_of(keeper, issuer->ref);

	if (health.failures == 0 && health.ok_at != 0 && now - health.ok_at < KT_HOUR && now >= health.ok_at) {
		return KT_OK; /* known to be well: one row an hour, not one a certificate */
	}
	kt_health_ok(&health, now);
	return put_health(keeper, issuer->ref, &health, NULL, err);
}

json_t *kt_fallback_health_json(struct kt_keeper *keeper, const char *issuer)
{
	struct kt_store_health row;
	struct kt_health health;
	kt_ms now = kt_keeper_now(keeper);
	json_t *out = NULL;
	char at[3][32];

	if (kt_store_health_get(keeper->store, issuer, &row, NULL) != KT_OK) {
		return NULL;
	}
	health = (struct kt_health){row.failures, row.failed_at, row.ok_at, row.retry_at};
	out = json_pack("{s:s,s:s,s:I,s:o,s:o,s:o,s:s}", "issuer", issuer, "state",
	                kt_health_state(&health, now) == KT_HEALTH_GOOD ? "ok"
	                : kt_health_state(&health, now) == KT_HEALTH_TRY ? "to be tried"
	                                                                 : "down",
	                "failures", (json_int_t)row.failures, "lastOK",
	                row.ok_at > 0 ? json_string(kt_time_format(row.ok_at, at[0])) : json_null(), "lastFailure",
	                row.failed_at > 0 ? json_string(kt_time_format(row.failed_at, at[1])) : json_null(), "retryAt",
	                row.failures >= KT_HEALTH_FAILURES && row.retry_at > 0 ? json_string(kt_time_format(row.retry_at, at[2]))
	                                                                        : json_null(),
	                "lastError", row.error_text);
	kt_store_health_finish(&row);
	return out;
}

/* --- which one ------------------------------------------------------------------------------------------------------------- */

static void issuer_in(const char *cookie, char out[600])
{
	KT_AUTOJSON json_t *object = NULL;
	const char *name = NULL;

	if (cookie != NULL && cookie[0] == '{' && kt_json_parse(kt_view_str(cookie), 4096, &object, NULL) == KT_OK) {
		name = kt_json_str(object, "issuer");
	}
	(void)snprintf(out, 600, "%s", name != NULL ? name : "");
}

const char *kt_fallback_issuer_of(const struct kt_store_material *material, char out[600])
{
	issuer_in(material->cookie, out);
	return out;
}

/* "Issuer/b" of an issuer: in its own namespace. */
static enum kt_code entry_of(struct kt_keeper *keeper, const struct kt_issuer_entry *of, const char *name,
                             struct kt_issuer_entry **ret, struct kt_err *err)
{
	bool cluster = strncmp(name, "ClusterIssuer/", 14) == 0;
	enum kt_code code = kt_issuers_entry(keeper, cluster ? "ClusterIssuer" : "Issuer", cluster ? "" : of->spec->meta.ns,
	                                     strchr(name, '/') + 1, ret, err);

	if (code == KT_OK && (*ret)->ops->makes_tokens) {
		return kt_err_set(err, KT_E_INVALID, "%s can't issue a certificate", (*ret)->ref);
	}
	return code;
}

static bool has_entry(const struct list *list, const struct kt_issuer_entry *entry)
{
	size_t i;

	for (i = 0; i < list->count && list->entries[i] != entry; i++) {
	}
	return i < list->count;
}

static void list_of(struct kt_keeper *keeper, struct kt_issuer_entry *first, struct list *ret)
{
	const struct kt_strings *names = &first->spec->issuer.acme->fallback;
	struct kt_err err;
	size_t i;

	*ret = (struct list){.entries = {first}, .count = 1};
	for (i = 0; i < names->count && ret->count < ISSUERS_MAX; i++) {
		struct kt_issuer_entry *entry;

		kt_err_clear(&err);
		if (entry_of(keeper, first, names->items[i], &entry, &err) == KT_OK && has_entry(ret, entry)) {
			continue;
		}
		if (err.code == KT_OK &&
		    (entry->ops == &kt_issuer_acme || first->spec->issuer.acme->fallback_unchecked)) {
			ret->entries[ret->count++] = entry;
		} else if (err.code == KT_OK) {
			kt_log(KT_LOG_WARN, "the fallback %s of %s is no acme issuer: it needs keyturn.dev/fallback-trust: Unchecked",
			       names->items[i], first->ref);
		} else {
			kt_log_err(KT_LOG_WARN, &err, "a fallback of %s is passed over", first->ref);
		}
	}
	for (i = 0; i < ret->count; i++) {
		ret->seen[i].health = health_of(keeper, ret->entries[i]->ref);
	}
}

static bool is_pressing(const struct kt_flight *flight, kt_ms now)
{
	return kt_plan_is_pressing(flight->cred.active != 0, flight->plan.renew_at, flight->cred.expiry, now);
}

/* Where the last attempt failed for a reason that another issuer may not have; "" when it did not. */
static void failed_at(const struct kt_flight *flight, const struct kt_issuer_entry *first, char out[600])
{
	const char *problem;
	const struct kt_plan_retry *row;

	out[0] = '\0';
	if (flight->cred.attempts == 0) {
		return;
	}
	(void)kt_flight_peer_said(&flight->cred, &problem);
	row = kt_plan_retry_find(flight->cred.error, problem);
	if (!kt_health_counts(row->fault) && row->fault != KT_FAULT_LIMIT) {
		return;
	}
	issuer_in(flight->material.cookie, out);
	if (out[0] == '\0') {
		(void)snprintf(out, 600, "%s", first->ref);
	}
}

/* Whether what that CA allows is used up for this certificate. */
static bool is_used_up(struct kt_keeper *keeper, const struct kt_issuer_entry *entry,
                       const struct kt_store_resource *resource, const struct kt_resource *spec,
                       const struct kt_store_material *active, kt_ms renew_at, kt_ms now)
{
	struct kt_plan_state state = {0};
	struct kt_budget_ask ask;
	char text[256];

	if (entry->ops != &kt_issuer_acme) {
		return false;
	}
	kt_budget_ask_init(&ask, entry, resource, spec, active, renew_at, now);
	return kt_budget_look(keeper, &ask, now, &state, text, NULL) == KT_OK && state.limit_at > now;
}

bool kt_fallback_has_room(struct kt_keeper *keeper, struct kt_issuer_entry *issuer,
                          const struct kt_store_resource *resource, const struct kt_resource *spec,
                          const struct kt_store_material *active, kt_ms renew_at, kt_ms now)
{
	struct list list;
	size_t i;

	if (!has_fallbacks(issuer) ||
	    !kt_plan_is_pressing(active != NULL, renew_at, active != NULL ? active->not_after : 0, now)) {
		return false;
	}
	list_of(keeper, issuer, &list);
	for (i = 1; i < list.count; i++) {
		if (kt_health_state(&list.seen[i].health, now) != KT_HEALTH_DOWN &&
		    !is_used_up(keeper, list.entries[i], resource, spec, active, renew_at, now)) {
			return true;
		}
	}
	return false;
}

static size_t choose_of(struct kt_flight *flight, struct list *list, kt_ms now)
{
	struct kt_store_material active = {.request_key = ""};
	bool pressing = is_pressing(flight, now);
	bool have = flight->cred.active != 0 &&
	            kt_store_material_get(flight->keeper->store, flight->cred.active, &active, NULL) == KT_OK;
	char failed[600];
	size_t i;

	failed_at(flight, list->entries[0], failed);
	for (i = 0; i < list->count; i++) {
		list->seen[i].failed = (failed[0] != '\0' && strcmp(failed, list->entries[i]->ref) == 0) ||
		                       (pressing && flight->order_url[0] == '\0' &&
		                        is_used_up(flight->keeper, list->entries[i], &flight->resource, flight->spec,
		                                   have ? &active : NULL, flight->plan.renew_at, now));
	}
	kt_store_material_finish(&active);
	return kt_health_choose(list->seen, list->count, pressing, now);
}

/* The row says from now on who is asked. */
static void write_cookie(struct kt_flight *flight)
{
	KT_AUTOJSON json_t *object = NULL;
	struct kt_buf text KT_AUTOBUF = {0};

	if (flight->material.cookie == NULL || flight->material.cookie[0] != '{' ||
	    kt_json_parse(kt_view_str(flight->material.cookie), 4096, &object, NULL) != KT_OK) {
		object = json_object();
	}
	kt_buf_init(&text, sizeof(flight->cookie));
	(void)json_object_set_new(object, "issuer", json_string(flight->issuer->ref));
	if (kt_json_dump(object, &text, NULL) == KT_OK && text.len < sizeof(flight->cookie)) {
		(void)snprintf(flight->cookie, sizeof(flight->cookie), "%.*s", (int)text.len, text.ptr);
		flight->material.cookie = flight->cookie;
	}
}

/* An order at another issuer is of no use any more. */
static enum kt_code leave_order(struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code;

	write_cookie(flight);
	code = kt_store_material_urls(flight->keeper->store, flight->material.id, "", "", "", flight->cookie, err);
	flight->order_url[0] = '\0';
	flight->material.order_url = flight->material.finalize_url = flight->material.cert_url = NULL;
	flight->cred.step = KT_STEP_KEYED;
	return code;
}

static enum kt_code tell(struct kt_flight *flight, const struct kt_issuer_entry *first, struct kt_err *err)
{
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_DUE), .outcome = "retry"};
	char reason[1400];

	(void)snprintf(reason, sizeof(reason), "%s fails: its fallback %s is asked", first->ref, flight->issuer->ref);
	event.reason = reason;
	kt_log(KT_LOG_WARN, "%s/%s: %s", flight->resource.ns, flight->resource.name, reason);
	return kt_flight_audit(flight, &event, err);
}

enum kt_code kt_fallback_choose(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	kt_ms now = kt_keeper_now(keeper);
	bool obtained = flight->got.serial[0] != '\0';
	struct kt_issuer_entry *first;
	struct list list;
	char asked[600];
	size_t chosen;
	enum kt_code code = kt_issuers_get(keeper, flight->spec, &first, err);

	if (code != KT_OK) {
		return code;
	}
	flight->issuer = first;
	flight->cred.flags &= ~KT_CRED_ELSEWHERE;
	if (!has_fallbacks(first)) {
		return KT_OK;
	}
	list_of(keeper, first, &list);
	issuer_in(flight->material.cookie, asked);
	chosen = choose_of(flight, &list, now);
	for (size_t i = 0; i < list.count; i++) {
		bool stays = obtained || (flight->order_url[0] != '\0' && !list.seen[i].failed &&
		                          kt_health_state(&list.seen[i].health, now) != KT_HEALTH_DOWN);

		if (strcmp(list.entries[i]->ref, asked) == 0 && stays) {
			chosen = i;
		}
	}
	flight->issuer = list.entries[chosen];
	flight->by_fallback = chosen > 0;
	if (obtained) {
		return KT_OK;
	}
	if (kt_health_state(&list.seen[chosen].health, now) == KT_HEALTH_TRY) {
		kt_health_trying(&list.seen[chosen].health, now);
		code = put_health(keeper, flight->issuer->ref, &list.seen[chosen].health, NULL, err);
	}
	if (code == KT_OK && !flight->fresh_row && asked[0] != '\0' && strcmp(asked, flight->issuer->ref) != 0) {
		code = leave_order(flight, err);
	}
	write_cookie(flight);
	return code == KT_OK && flight->by_fallback && strcmp(asked, flight->issuer->ref) != 0 ? tell(flight, first, err) : code;
}

bool kt_fallback_is_other(struct kt_flight *flight, bool held)
{
	kt_ms now = kt_keeper_now(flight->keeper);
	struct kt_issuer_entry *first;
	struct list list;
	size_t next;

	if (flight->issuer == NULL || flight->stage != KT_FLIGHT_OBTAIN ||
	    kt_issuers_get(flight->keeper, flight->spec, &first, NULL) != KT_OK || !has_fallbacks(first)) {
		return false;
	}
	list_of(flight->keeper, first, &list);
	next = choose_of(flight, &list, now);
	/* Once round the list at a time; in between the delays are those of any failure. */
	return (held || flight->cred.attempts % list.count != 0) && !list.seen[next].failed && list.entries[next] != flight->issuer &&
	       kt_health_state(&list.seen[next].health, now) != KT_HEALTH_DOWN;
}

/* --- trust ------------------------------------------------------------------------------------------------------------------ */

static bool was_public(const struct kt_store_material *active, const struct kt_issuer_entry *first)
{
	KT_AUTOJSON json_t *object = NULL;

	if (active == NULL) {
		return kt_limits_of(first->spec->issuer.acme->server)->is_public;
	}
	if (active->cookie != NULL && active->cookie[0] == '{' &&
	    kt_json_parse(kt_view_str(active->cookie), 4096, &object, NULL) == KT_OK && kt_json_bool(object, "public", false)) {
		return true;
	}
	return kt_limits_of(active->order_url)->is_public;
}

/*
 * Many CAs send no root, and the topmost certificate that they do send was delivered as ca.crt: the same one above the new
 * leaf is as good, where each certificate up to it was signed by the next.
 */
static bool shares_one(const struct kt_chain *chain, struct kt_view delivered)
{
	struct kt_chain *known KT_AUTOCHAIN = NULL;
	size_t i, k;

	if (kt_pki_chain_parse(delivered, &known, NULL) != KT_OK) {
		return false;
	}
	for (i = 1; i < kt_pki_chain_count(chain) &&
	            kt_pki_cert_issued_by(kt_pki_chain_at(chain, i - 1), kt_pki_chain_at(chain, i));
	     i++) {
		for (k = 0; k < kt_pki_chain_count(known); k++) {
			if (strcmp(kt_pki_cert_sha256(kt_pki_chain_at(chain, i)), kt_pki_cert_sha256(kt_pki_chain_at(known, k))) == 0) {
				return true;
			}
		}
	}
	return false;
}

static bool leads_to(const struct kt_chain *chain, struct kt_view delivered, kt_ms now)
{
	struct kt_trust *trust = NULL;
	bool leads;

	if (delivered.len == 0) {
		return false;
	}
	leads = kt_pki_trust_create(delivered, &trust, NULL) == KT_OK &&
	        kt_pki_chain_verify(chain, trust, now, NULL) == KT_OK;
	kt_pki_trust_destroy(trust);
	return leads || shares_one(chain, delivered);
}

enum kt_code kt_fallback_check(struct kt_flight *flight, const struct kt_chain *chain, bool is_public, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_store_material active = {.request_key = ""};
	struct kt_issuer_entry *first;
	bool have = false, trusted;
	enum kt_code code;

	if (!flight->by_fallback) {
		return KT_OK;
	}
	code = kt_issuers_get(keeper, flight->spec, &first, err);
	if (code == KT_OK && flight->cred.active != 0) {
		code = kt_store_material_get(keeper->store, flight->cred.active, &active, err);
		have = code == KT_OK;
	}
	if (code != KT_OK) {
		return code;
	}
	trusted = first->spec->issuer.acme->fallback_unchecked ||
	          (have && leads_to(chain, active.ca, kt_keeper_now(keeper))) ||
	          (is_public && was_public(have ? &active : NULL, first));
	kt_store_material_finish(&active);
	if (trusted) {
		return KT_OK;
	}
	return kt_err_set(err, KT_E_CRYPTO,
	                  "consumers may not trust what the fallback %s gave: it leads to none of the roots that %s, and the two are "
	                  "not both public; if consumers have its root, set keyturn.dev/fallback-trust: Unchecked on %s",
	                  flight->issuer->ref, have ? "were delivered" : "its first issuer has", first->ref);
}

/* --- staging ------------------------------------------------------------------------------------------------------------------ */

bool kt_fallback_rehearses(const struct kt_flight *flight)
{
	const struct kt_acme *acme = flight->issuer->spec->issuer.acme;
	const char *problem;

	if (flight->rehearsed || flight->rehearsing || acme->staging_server == NULL || flight->cred.attempts == 0) {
		return false;
	}
	(void)kt_flight_peer_said(&flight->cred, &problem);
	return kt_plan_retry_find(flight->cred.error, problem)->validation;
}

enum kt_code kt_fallback_staging(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, struct kt_issuer_entry **ret,
                                 struct kt_err *err)
{
	struct kt_issuer_entry *entry;
	struct kt_store_resource row;
	enum kt_code code;

	for (entry = keeper->issuers; entry != NULL; entry = entry->next) {
		if (entry->staging && entry->id == issuer->id && entry->generation == issuer->generation) {
			entry->used_at = kt_clock_mono(keeper->clock);
			*ret = entry;
			return KT_OK;
		}
	}
	entry = kt_calloc(1, sizeof(*entry));
	if (entry == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an issuer");
	}
	code = kt_store_resource_get(keeper->store, issuer->id, &row, err);
	if (code == KT_OK) {
		code = kt_load_spec(&row, &entry->spec, err);
		kt_store_resource_finish(&row);
	}
	if (code == KT_OK && (entry->spec->issuer.acme == NULL || entry->spec->issuer.acme->staging_server == NULL)) {
		code = kt_err_set(err, KT_E_CANCELLED, "%s has changed", issuer->ref);
	}
	if (code != KT_OK) {
		kt_resource_destroy(entry->spec);
		kt_free(entry);
		return code;
	}
	entry->spec->issuer.acme->server = entry->spec->issuer.acme->staging_server;
	entry->staging = true;
	entry->id = issuer->id;
	entry->generation = issuer->generation;
	entry->ops = issuer->ops;
	(void)snprintf(entry->ref, sizeof(entry->ref), "%s", issuer->ref);
	entry->used_at = kt_clock_mono(keeper->clock);
	entry->next = keeper->issuers;
	keeper->issuers = entry;
	*ret = entry;
	return KT_OK;
}
