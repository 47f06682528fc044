/*
 * Renewal information (RFC 9773): asked for soon after a certificate came, and then as often as the CA wants, between one
 * hour and a day. What it says moves the credential's due time; the plan decides how far it is believed. When to ask is an
 * index in the store: a tick costs what is due, however many certificates there are.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/acme.h"

#define ASKS_MAX    8u               /* questions under way */
#define BATCH       64u              /* rows looked at in one tick */
#define ASK_TIMEOUT (60 * KT_SECOND)
#define FIRST_MIN   (60 * KT_SECOND) /* after the switch */
#define FIRST_MAX   (10 * KT_MINUTE)
#define AGAIN_MIN   KT_HOUR
#define AGAIN       (6 * KT_HOUR)
#define AGAIN_MAX   KT_DAY

struct info_ask {
	struct info_ask *next;
	struct kt_info_asks *asks;
	int64_t credential, material;
};

struct kt_info_asks {
	struct kt_keeper *keeper;
	struct kt_wall_timer *timer;
	struct kt_timer *soon;
	struct info_ask *open;
	unsigned count;
	bool running;
	kt_ms armed; /* what the timer is set to */
};

/* --- when ------------------------------------------------------------------------------------------------------------------- */

static kt_ms clamp(kt_ms delay)
{
	return delay < AGAIN_MIN ? AGAIN_MIN : delay > AGAIN_MAX ? AGAIN_MAX : delay;
}

/* Not all that were asked for together come back together: up to a tenth later. */
static kt_ms next_check(kt_ms now, kt_ms delay)
{
	delay = clamp(delay);
	return now + clamp(delay + (kt_ms)kt_rand_below((uint64_t)(delay / 10) + 1));
}

/* For what was not due yet at that time. */
static void arm(struct kt_info_asks *asks, kt_ms looked_at)
{
	kt_ms now = kt_keeper_now(asks->keeper), next = 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_store_renewal_info_next_due(asks->keeper->store, looked_at, &next, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "when to ask for renewal information can't be read");
		next = now + KT_MINUTE;
	}
	asks->armed = next == 0 || next > now + KT_DAY ? now + KT_DAY : next;
	kt_wall_timer_start(asks->timer, asks->armed);
}

/* --- rows --------------------------------------------------------------------------------------------------------------------- */

static enum kt_code put(struct kt_keeper *keeper, const struct kt_store_renewal_info *info, struct kt_err *err)
{
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_store_renewal_info_put(keeper->store, info, err);
	return kt_store_end(keeper->store, code, err);
}

static enum kt_code forget(struct kt_keeper *keeper, int64_t credential, struct kt_err *err)
{
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_store_renewal_info_delete(keeper->store, credential, err);
	return kt_store_end(keeper->store, code, err);
}

enum kt_code kt_renewal_info_begin(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_info_asks *asks = flight->keeper->infos;
	kt_ms now = kt_keeper_now(flight->keeper);
	struct kt_store_renewal_info info = {
	        .credential = flight->id,
	        .material = flight->material.id,
	        .check_at = now + FIRST_MIN + (kt_ms)kt_rand_below((uint64_t)(FIRST_MAX - FIRST_MIN)),
	};

	if (flight->issuer == NULL || flight->issuer->ops != &kt_issuer_acme ||
	    flight->issuer->spec->issuer.acme->renewal_info_disabled) {
		return KT_OK;
	}
	if (asks != NULL && asks->running && info.check_at < asks->armed) {
		asks->armed = info.check_at;
		kt_wall_timer_start(asks->timer, asks->armed);
	}
	return kt_store_renewal_info_put(flight->keeper->store, &info, err);
}

enum kt_code kt_renewal_info_wish(struct kt_keeper *keeper, int64_t credential, struct kt_err *err)
{
	struct kt_store_renewal_info info;

	if (kt_store_renewal_info_get(keeper->store, credential, &info, NULL) != KT_OK) {
		return KT_OK;
	}
	if (info.asked_at == 0 && info.check_at != 0) {
		info.check_at = kt_keeper_now(keeper);
		(void)kt_store_renewal_info_put(keeper->store, &info, err);
		if (keeper->infos != NULL && keeper->infos->running) { /* the timer is set for later */
			kt_timer_start(keeper->infos->soon, 0);
		}
	}
	kt_store_renewal_info_finish(&info);
	return err->code;
}

/* --- answers ------------------------------------------------------------------------------------------------------------------ */

/* The window is shown to people and is one reason of a renewal: that it moved is a fact for the audit trail. */
static enum kt_code audit(struct kt_keeper *keeper, const struct kt_store_renewal_info *info,
                          const struct kt_store_resource *resource, struct kt_err *err)
{
	char start[32], end[32], trace[33], reason[400];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(kt_keeper_now(keeper), trace),
	                               .actor = "agent",
	                               .kind = resource->kind,
	                               .ns = resource->ns,
	                               .name = resource->name,
	                               .step = "renewal-info",
	                               .outcome = "ok",
	                               .reason = reason};

	if (info->window_start == 0) {
		(void)snprintf(reason, sizeof(reason), "the CA suggests no window any more");
	} else {
		(void)snprintf(reason, sizeof(reason), "the CA suggests renewal between %s and %s%s%.250s",
		               kt_time_format(info->window_start, start), kt_time_format(info->window_end, end),
		               info->explanation[0] != '\0' ? ", see " : "", info->explanation);
	}
	return kt_keeper_audit(keeper, &event, err);
}

/* What is due sooner by now becomes due then; what is due later finds out when it is looked at. */
static enum kt_code move_due(struct kt_keeper *keeper, int64_t credential, const struct kt_store_resource *resource,
                             struct kt_err *err)
{
	struct kt_store_cred cred;
	struct kt_resource *spec = NULL;
	struct kt_plan plan;
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code = kt_store_cred_get(keeper->store, credential, &cred, err);

	if (code != KT_OK) {
		return code;
	}
	if (kt_rotate_find(keeper, credential) == NULL) { /* one in flight plans anew at its end */
		code = kt_load_spec(resource, &spec, err);
		if (code == KT_OK) {
			code = kt_rotate_plan(keeper, resource, &cred, spec, true, &plan, err);
		}
		if (code == KT_OK && plan.due_at < KT_TIME_MAX && (cred.due_at == 0 || plan.due_at < cred.due_at)) {
			code = kt_store_cred_wake(keeper->store, credential, plan.due_at > now ? plan.due_at : now, 0, err);
		}
	}
	kt_resource_destroy(spec);
	kt_store_cred_finish(&cred);
	return code;
}

static enum kt_code take(struct kt_keeper *keeper, const struct info_ask *ask, const struct kt_store_renewal_info *fresh,
                         bool moved, struct kt_err *err)
{
	struct kt_store_resource resource;
	enum kt_code code = kt_store_resource_get(keeper->store, ask->credential, &resource, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_store_begin(keeper->store, err);
	if (code == KT_OK) {
		code = kt_store_renewal_info_put(keeper->store, fresh, err);
		if (code == KT_OK && moved) {
			code = audit(keeper, fresh, &resource, err);
		}
		if (code == KT_OK) {
			code = move_due(keeper, ask->credential, &resource, err);
		}
		code = kt_store_end(keeper->store, code, err);
	}
	kt_store_resource_finish(&resource);
	return code;
}

/* What the CA said, or that it said nothing, into the row. */
static void judge(struct kt_keeper *keeper, const struct info_ask *ask, const struct kt_err *why,
                  const struct kt_msg_acme_info_done *answer)
{
	struct kt_store_renewal_info old = {.explanation = ""};
	struct kt_store_renewal_info fresh = {.credential = ask->credential, .material = ask->material, .explanation = ""};
	kt_ms now = kt_keeper_now(keeper);
	char *explanation KT_AUTOFREE = NULL;
	bool known = kt_store_renewal_info_get(keeper->store, ask->credential, &old, NULL) == KT_OK;
	bool moved;
	struct kt_err err;

	kt_err_clear(&err);
	if (known && old.material != ask->material) { /* it was replaced meanwhile */
		kt_store_renewal_info_finish(&old);
		return;
	}
	fresh.asked_at = now;
	if (answer != NULL && answer->start < answer->end) {
		explanation = kt_strndup(answer->explanation.ptr, answer->explanation.len);
		fresh.window_start = answer->start;
		fresh.window_end = answer->end;
		fresh.explanation = explanation != NULL ? explanation : "";
		fresh.check_at = next_check(now, answer->retry_after > 0 && answer->retry_after < KT_DAY
		                                         ? answer->retry_after * KT_SECOND
		                                         : answer->retry_after > 0 ? AGAIN_MAX : AGAIN);
	} else if (answer != NULL) { /* the CA has none */
		fresh.check_at = next_check(now, AGAIN_MAX);
	} else {
		bool passes = why->code == KT_E_NET || why->code == KT_E_TIMEOUT || why->code == KT_E_LATER || why->code == KT_E_NOMEM;

		if (passes && known) { /* what it said last still holds */
			fresh.window_start = old.window_start;
			fresh.window_end = old.window_end;
			fresh.explanation = old.explanation;
		}
		fresh.check_at = next_check(now, why->retry_after_s > 0 && why->retry_after_s < 86400 ? why->retry_after_s * KT_SECOND
		                                                                                   : AGAIN_MIN);
		kt_log_err(KT_LOG_INFO, why, "no renewal information: the certificate's life counts");
	}
	moved = fresh.window_start != old.window_start || fresh.window_end != old.window_end;
	if (take(keeper, ask, &fresh, moved, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "renewal information can't be stored");
	}
	kt_store_renewal_info_finish(&old);
}

static void on_info(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct info_ask *ask = arg;
	struct kt_info_asks *asks = ask->asks;
	struct info_ask **at = &asks->open;
	struct kt_err err = *why;

	(void)fds;
	(void)fd_count;
	while (*at != ask) {
		at = &(*at)->next;
	}
	*at = ask->next;
	asks->count--;
	if (err.code == KT_OK && type != KT_ACME_INFO_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	judge(asks->keeper, ask, &err, err.code == KT_OK ? msg : NULL);
	kt_free(ask);
	kt_rotate_kick(asks->keeper);
	kt_timer_start(asks->soon, 0);
}

/* --- questions -------------------------------------------------------------------------------------------------------------------- */

static enum kt_code send_ask(struct kt_info_asks *asks, const struct kt_issuer_entry *entry, int64_t credential,
                             int64_t material, struct kt_view id, struct kt_err *err)
{
	struct kt_keeper *keeper = asks->keeper;
	struct info_ask *ask = kt_calloc(1, sizeof(*ask));
	struct kt_buf issuer KT_AUTOBUF = {0};
	char trace[33], traceparent[56];
	struct kt_msg_acme_info msg = {.cert_id = id};
	enum kt_code code;

	if (ask == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a question");
	}
	kt_buf_init(&issuer, 65536);
	code = kt_acme_issuer_json(keeper, entry, &issuer, err);
	msg.issuer = kt_buf_view(&issuer);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(kt_audit_trace_id(kt_keeper_now(keeper), trace), traceparent));
	ask->asks = asks;
	ask->credential = credential;
	ask->material = material;
	if (code == KT_OK) {
		code = kt_wire_call(kt_keeper_courier(keeper), KT_ACME_INFO, &msg, NULL, 0, ASK_TIMEOUT, on_info, ask, err);
	}
	if (code != KT_OK) {
		kt_free(ask);
		return code;
	}
	ask->next = asks->open;
	asks->open = ask;
	asks->count++;
	return KT_OK;
}

/*
 * Asks for the certificate in force. Where there is nothing to ask for *ret_at says when to look again (0: the row is of no
 * use).
 */
static enum kt_code ask_for(struct kt_info_asks *asks, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, kt_ms *ret_at, struct kt_err *err)
{
	struct kt_keeper *keeper = asks->keeper;
	kt_ms now = kt_keeper_now(keeper);
	struct kt_store_material material = {0};
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_issuer_entry *entry = NULL;
	struct kt_resource *spec = NULL;
	struct kt_buf id KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&id, 256);
	*ret_at = now + AGAIN_MAX;
	code = kt_load_spec(resource, &spec, err);
	if (code == KT_OK) {
		code = kt_issuers_get(keeper, spec, &entry, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, cred->active, &material, err);
	}
	if (code != KT_OK) {
		goto out;
	}
	if (entry->ops != &kt_issuer_acme || material.cert_url[0] == '\0') {
		*ret_at = 0;
	} else if (entry->spec->issuer.acme->renewal_info_disabled || material.state == KT_MATERIAL_REVOKED ||
	           material.not_after <= now || strcmp(material.request_key, resource->request_key) != 0 ||
	           !kt_acme_same_origin(kt_view_str(material.cert_url), kt_view_str(entry->spec->issuer.acme->server))) {
		/* Nothing that this CA says of it would matter. */
	} else if (kt_pki_chain_parse(material.chain, &chain, NULL) != KT_OK ||
	           kt_pki_cert_ari_id(kt_pki_chain_at(chain, 0), &id, NULL) != KT_OK) {
		*ret_at = 0; /* without an authority key identifier it has no name there */
	} else {
		code = send_ask(asks, entry, cred->id, cred->active, kt_buf_view(&id), err);
		*ret_at = KT_TIME_MAX;
	}
out:
	kt_store_material_finish(&material);
	kt_resource_destroy(spec);
	return code;
}

/* The row may be about another certificate: the one before was put back in place, for instance. */
static enum kt_code make_row_fit(struct kt_keeper *keeper, const struct kt_store_cred *cred, struct kt_err *err)
{
	struct kt_store_renewal_info info;
	enum kt_code code = kt_store_renewal_info_get(keeper->store, cred->id, &info, err);

	if (code == KT_OK && info.material != cred->active) {
		info.material = cred->active;
		info.window_start = info.window_end = info.asked_at = 0;
		info.explanation = "";
		code = put(keeper, &info, err);
	}
	kt_store_renewal_info_finish(&info);
	return code;
}

static void look_at(struct kt_info_asks *asks, int64_t id)
{
	struct kt_keeper *keeper = asks->keeper;
	struct kt_store_renewal_info info = {.credential = id, .explanation = ""};
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	kt_ms at = 0;
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = kt_store_resource_get(keeper->store, id, &resource, &err);
	if (code == KT_OK) {
		code = kt_store_cred_get(keeper->store, id, &cred, &err);
	}
	if (code == KT_OK && resource.gone) {
		at = kt_keeper_now(keeper) + AGAIN_MAX;
	} else if (code == KT_OK && cred.active != 0) {
		code = make_row_fit(keeper, &cred, &err);
	}
	if (code == KT_OK && at == 0 && cred.active != 0) {
		code = ask_for(asks, &resource, &cred, &at, &err);
	}
	if (code != KT_OK && code != KT_E_NOTFOUND) {
		kt_log_err(KT_LOG_WARN, &err, "renewal information can't be asked for");
		at = kt_keeper_now(keeper) + AGAIN_MIN;
	}
	kt_err_clear(&err);
	if (at == 0) {
		code = forget(keeper, id, &err);
	} else if (at != KT_TIME_MAX) {
		info.material = cred.active;
		info.check_at = at;
		info.asked_at = kt_keeper_now(keeper);
		code = put(keeper, &info, &err);
	} else {
		code = KT_OK;
	}
	if (code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "renewal information can't be stored");
		kt_timer_start(asks->soon, KT_MINUTE);
	}
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
}

static bool is_open(const struct kt_info_asks *asks, int64_t id)
{
	const struct info_ask *ask;

	for (ask = asks->open; ask != NULL; ask = ask->next) {
		if (ask->credential == id) {
			return true;
		}
	}
	return false;
}

/* Rows stay due until they are answered, so that a restart finds them: those that are open are passed over. */
static void run(struct kt_info_asks *asks)
{
	struct kt_keeper *keeper = asks->keeper;
	int64_t ids[BATCH];
	size_t count = BATCH, i;
	kt_ms now = kt_keeper_now(keeper);
	struct kt_err err;

	kt_err_clear(&err);
	if (!asks->running || keeper->ending || keeper->draining || asks->count >= ASKS_MAX) {
		return;
	}
	if (keeper->commit_delay > 0) { /* the state can't be written: nothing that is said could be kept */
		kt_timer_start(asks->soon, KT_MINUTE);
		return;
	}
	if (kt_store_renewal_info_due(keeper->store, now, ids, &count, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "what renewal information is due can't be read");
		kt_timer_start(asks->soon, KT_MINUTE);
		return;
	}
	for (i = 0; i < count && asks->count < ASKS_MAX; i++) {
		if (!is_open(asks, ids[i])) {
			look_at(asks, ids[i]);
		}
	}
	if (count == BATCH && i == count) {
		kt_timer_start(asks->soon, 0);
	}
	arm(asks, now);
}

static void on_soon(void *arg)
{
	run(arg);
}

static void on_time(bool clock_changed, void *arg)
{
	(void)clock_changed;
	run(arg);
}

/* --- life ----------------------------------------------------------------------------------------------------------------------- */

void kt_renewal_info_go(struct kt_keeper *keeper)
{
	if (keeper->infos != NULL) {
		keeper->infos->running = true;
		run(keeper->infos);
	}
}

bool kt_renewal_info_busy(struct kt_keeper *keeper)
{
	int64_t id;
	size_t one = 1;

	if (keeper->infos == NULL || !keeper->infos->running) {
		return false;
	}
	return keeper->infos->count > 0 ||
	       (kt_store_renewal_info_due(keeper->store, kt_keeper_now(keeper), &id, &one, NULL) == KT_OK && one > 0);
}

enum kt_code kt_renewal_info_start(struct kt_keeper *keeper, struct kt_err *err)
{
	struct kt_info_asks *asks = kt_calloc(1, sizeof(*asks));
	enum kt_code code;

	if (asks == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for renewal information");
	}
	asks->keeper = keeper;
	keeper->infos = asks;
	code = kt_timer_create(keeper->loop, on_soon, asks, &asks->soon, err);
	return code == KT_OK ? kt_wall_timer_create(keeper->loop, on_time, asks, &asks->timer, err) : code;
}

void kt_renewal_info_finish(struct kt_keeper *keeper)
{
	struct kt_info_asks *asks = keeper->infos;

	if (asks == NULL) {
		return;
	}
	while (asks->open != NULL) {
		struct info_ask *ask = asks->open;

		asks->open = ask->next;
		kt_wire_forget(keeper->courier, ask);
		kt_free(ask);
	}
	kt_timer_destroy(asks->soon);
	kt_wall_timer_destroy(asks->timer);
	kt_free(asks);
	keeper->infos = NULL;
}
