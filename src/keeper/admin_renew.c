/* The command renew: does what is due (or what is named), follows along, and says what came of it. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/admin.h"
#include "keeper/client/client.h"
#include "keeper/flight.h"
#include "keeper/remedy.h"
#include "keeper/watch/watched.h"

#define NAMES_MAX  10000u
#define QUICK_WAIT (11 * KT_SECOND) /* what is tried again so soon is waited for, unless it is late */
#define INFO_WAIT  (20 * KT_SECOND)
#define PAGE       64u

static void progress(struct kt_session *session);

/* What is in flight would overwrite the flag; where it issues already, that is what was asked for. */
static void force_flight(struct kt_flight *flight)
{
	flight->forced = flight->forced || flight->redelivery || flight->withdraw || flight->stage == KT_FLIGHT_RETIRE;
}

/* The peer asked to be left alone until then, or counts; who asks sooner only makes it longer. */
static bool must_wait(const struct kt_store_cred *cred, kt_ms now)
{
	const char *problem;
	int64_t asked = kt_flight_peer_said(cred, &problem);
	const struct kt_plan_retry *row = kt_flight_retry_row(cred, cred->error, problem);

	if (cred->attempts == 0 || cred->error == KT_OK || cred->next_try <= now) {
		return false;
	}
	asked = asked > 86400 ? 86400 : asked;
	return (row->obey_retry_after && asked > 0 && now < cred->error_at + asked * KT_SECOND) ||
	       (row->problem != NULL && row->fault == KT_FAULT_LIMIT);
}

/* A request that is sent again has been done for what came into force since: it is not forced twice. */
static bool is_done(const struct kt_session *session, const struct kt_store_cred *cred)
{
	int64_t sent_at = kt_json_int(session->request, "sentAt", 0);

	/* Nothing of a Watch is delivered. */
	return sent_at > 0 && (cred->kind == KT_KIND_WATCH ? cred->proved_at : cred->delivered_at) >= sent_at;
}

bool kt_admin_will_report(const struct kt_keeper *keeper, int64_t id)
{
	const struct kt_session *session = keeper->sessions;
	size_t i;

	if (keeper->mode == KT_MODE_DAEMON || session == NULL || session->progress != progress) {
		return false;
	}
	for (i = 0; i < session->id_count; i++) {
		if (session->ids[i] == id) {
			return true;
		}
	}
	return session->id_count == 0;
}

/* Makes one due now. */
static enum kt_code make_due(struct kt_session *session, const char *name, bool force, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_store_resource resource;
	struct kt_store_cred cred;
	enum kt_code code = kt_admin_find(keeper, name, &resource, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_store_cred_get(keeper->store, resource.id, &cred, err);
	if (code == KT_OK) {
		session->ids[session->id_count++] = cred.id;
		force = force && !is_done(session, &cred);
		if (force || !must_wait(&cred, kt_keeper_now(keeper))) {
			cred.due_at = kt_keeper_now(keeper);
			cred.next_try = 0;
		}
		kt_flight_forget_deliveries(&cred);
		cred.flags |= force ? KT_CRED_FORCED : 0u;
		cred.flags &= ~(unsigned)KT_CRED_FAILED;
		if (!force) {
			code = kt_renewal_info_wish(keeper, cred.id, err);
		}
		if (code == KT_OK && kt_rotate_find(keeper, cred.id) == NULL) {
			code = kt_store_cred_put(keeper->store, &cred, err);
		} else if (force) {
			force_flight(kt_rotate_find(keeper, cred.id));
		}
		code = code == KT_OK ? kt_tasks_renew(keeper, cred.id, session->hurry, err) : code;
		kt_store_cred_finish(&cred);
	}
	kt_store_resource_finish(&resource);
	return code;
}

/*
 * What asks a server costs something there, and would be cut off by the end of the command. The rest is done beside what is
 * named: one of those may be waiting for it, as for its CA.
 */
bool kt_admin_passes_over(struct kt_keeper *keeper, const struct kt_flight *flight)
{
	const struct kt_session *session = keeper->sessions;
	struct kt_issuer_entry *issuer = NULL;
	size_t i;

	if (keeper->mode == KT_MODE_DAEMON || (session != NULL && session->id_count == 0) || flight->resource.gone ||
	    flight->cred.kind == KT_KIND_JWKS) {
		return false;
	}
	for (i = 0; session != NULL && i < session->id_count; i++) {
		if (session->ids[i] == flight->id) {
			return false;
		}
	}
	return kt_issuers_get(keeper, flight->spec, &issuer, NULL) == KT_OK && issuer->ops->remote;
}

struct force_all {
	const struct kt_session *session;
	struct kt_keeper *keeper;
	kt_ms now;
	enum kt_code code;
	struct kt_err *err;
};

static bool force_one(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct force_all *all = arg;
	struct kt_flight *flight = kt_rotate_find(all->keeper, cred->id);

	if (is_done(all->session, cred)) {
		return true;
	}
	if (flight != NULL) {
		force_flight(flight);
		return true;
	}
	if (!resource->gone && cred->kind != KT_KIND_JWKS) {
		all->code = kt_store_cred_wake(all->keeper->store, cred->id, all->now, KT_CRED_FORCED, all->err);
	}
	return all->code == KT_OK;
}

static enum kt_code begin(struct kt_session *session, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	bool force = kt_json_bool(session->request, "force", false);
	json_t *names = json_object_get(session->request, "names");
	struct force_all all = {session, keeper, kt_keeper_now(keeper), KT_OK, err};
	struct kt_store_page page = {.limit = 10000000};
	enum kt_code code = kt_store_begin(keeper->store, err);
	size_t i;

	if (code != KT_OK) {
		return code;
	}
	session->ids = kt_calloc(json_array_size(names) + 1, sizeof(*session->ids));
	if (session->ids == NULL || json_array_size(names) > NAMES_MAX) {
		code = kt_err_set(err, KT_E_LIMIT, "renew takes at most %u names", NAMES_MAX);
	} else if (session->hurry && json_array_size(names) == 0) {
		code = kt_err_set(err, KT_E_INVALID, "--now needs the names of those whose consumers are not to wait for their windows");
	}
	for (i = 0; i < json_array_size(names) && code == KT_OK; i++) {
		const char *name = json_string_value(json_array_get(names, i));

		code = name != NULL ? make_due(session, name, force, err)
		                    : kt_err_set(err, KT_E_INVALID, "names must be texts");
	}
	if (code == KT_OK && json_array_size(names) == 0 && force) {
		code = kt_store_cred_page(keeper->store, &page, force_one, &all, err);
		code = code == KT_OK ? all.code : code;
	}
	return kt_store_end(keeper->store, code, err);
}

/* --- what came of it ------------------------------------------------------------------------------------------------ */

/* What helps the first consumer that fails; NULL when none does. */
static const char *failing_consumer(const json_t *row)
{
	const json_t *consumer;
	size_t i;

	json_array_foreach(json_object_get(row, "consumers"), i, consumer)
	{
		if (kt_json_str(consumer, "mend") != NULL) {
			return kt_json_str(consumer, "mend");
		}
	}
	return NULL;
}

/* What to do about it, when it is tried again by itself, and what tries it now. */
static void mend(const struct kt_store_resource *resource, const struct kt_store_cred *cred, const json_t *row, kt_ms now,
                 struct kt_buf *out)
{
	bool issuing = cred->attempts > 0 && cred->error != KT_OK;
	kt_ms next = issuing ? cred->next_try : cred->deliver_failures > 0 ? cred->due_at : 0;
	const char *text = failing_consumer(row);
	char span[32];

	kt_buf_adds(out, issuing || cred->deliver_failures > 0 ? kt_remedy_of(cred)
	                 : text != NULL                        ? text
	                                                       : kt_remedy_find(KT_OK, ""));
	if (next <= now || next == KT_TIME_MAX) {
		return;
	}
	kt_buf_addf(out, "%sthe next try is in %s", out->len > 0 ? "; " : "",
	            kt_duration_format((next - now + 999) / 1000 * 1000, span));
	if (kt_client_must_wait(cred)) { /* which --force does not change */
		return;
	}
	if (must_wait(cred, now)) {
		kt_buf_addf(out, " because the server asked for that, 'keyturn renew --force");
	} else {
		kt_buf_addf(out, ", 'keyturn renew");
	}
	kt_buf_addf(out, " %s%s%s' tries now", strcmp(resource->ns, "default") == 0 ? "" : resource->ns,
	            strcmp(resource->ns, "default") == 0 ? "" : "/", resource->name);
}

/* Exit status for one credential; 0 when all is well with it. */
static int judge(const struct kt_store_cred *cred, bool delivered_only, bool *ret_failed)
{
	const struct kt_plan_retry *row;

	*ret_failed = true;
	if (cred->attempts > 0 && cred->error != KT_OK) {
		if (cred->step == KT_STEP_ROLLED_BACK || cred->error == KT_E_MISMATCH) {
			return 5;
		}
		row = kt_plan_retry_find(cred->error, NULL);
		if (cred->error == KT_E_POLICY) {
			return 4;
		}
		return row->needs_change ? 1 : 75;
	}
	if (cred->deliver_failures > 0) {
		return cred->deliver_error == KT_E_POLICY ? 4 : 75;
	}
	if (cred->kind == KT_KIND_WATCH) { /* read, and no renewal under way */
		*ret_failed = cred->expiry == 0 || kt_watched_open(cred);
		return *ret_failed ? 75 : 0;
	}
	if (cred->active == 0) {
		return 75;
	}
	if (delivered_only) {
		*ret_failed = false;
		return 0;
	}
	*ret_failed = cred->proof == KT_PROOF_FAILED || cred->proof == KT_PROOF_WAITING;
	return *ret_failed ? 5 : 0;
}

/* Whether an order is held back by what its CA allows, or a client's new key rests: asked of those that should have one. */
static bool is_held(struct kt_keeper *keeper, const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                    struct kt_plan *ret)
{
	struct kt_resource *spec = NULL;
	bool held;

	if ((cred->kind != KT_KIND_CERT && cred->kind != KT_KIND_CLIENT) || cred->attempts > 0 ||
	    (cred->active != 0 && (cred->flags & KT_CRED_FORCED) == 0) || kt_load_spec(resource, &spec, NULL) != KT_OK) {
		return false;
	}
	held = kt_rotate_plan(keeper, resource, cred, spec, false, ret, NULL) == KT_OK &&
	       (ret->reason == KT_WHY_LIMIT || ret->reason == KT_WHY_SHOWN);
	kt_resource_destroy(spec);
	return held;
}

static void report(struct kt_session *session, const struct kt_store_resource *resource,
                   const struct kt_store_cred *cred)
{
	struct kt_plan plan;
	bool failed;
	int status = judge(cred, session->delivered_only, &failed);
	bool waits = cred->proof == KT_PROOF_WAITING && status == 5 && kt_tasks_held(session->keeper, cred->active);
	bool held = is_held(session->keeper, resource, cred, &plan);
	json_t *row;

	if (resource->gone || (cred->kind == KT_KIND_JWKS && cred->attempts == 0)) { /* keys that can't be shown do count */
		return;
	}
	if (waits && cred->attempts == 0) {
		status = 0;
		failed = false;
		session->waiting++;
	}
	/* A new key that is shown goes into force when servers have read it: what was asked for is under way as it should be. */
	if (held && plan.reason == KT_WHY_SHOWN) {
		session->resting += !failed;
		held = false;
	} else if (held) {
		status = 75;
		failed = true;
	}
	if (status == 0 && kt_rotate_find(session->keeper, cred->id) != NULL) {
		status = 75; /* the time to wait is over, and the rotation is not */
		failed = true;
	}
	session->good += !failed;
	session->failed += failed;
	session->worst = kt_admin_worse(session->worst, status);
	if (!failed || session->failed > 1000) {
		return;
	}
	row = kt_admin_credential(session->keeper, resource, cred, true);
	if (row != NULL) {
		(void)json_object_set_new(row, "exitStatus", json_integer(status));
		if (held) {
			(void)json_object_set_new(row, "lastError", json_string(plan.text));
		}
		struct kt_buf text KT_AUTOBUF = {0};

		kt_buf_init(&text, 4096);
		mend(resource, cred, row, kt_keeper_now(session->keeper), &text);
		(void)json_object_set_new(row, "mend", json_stringn(text.ptr, text.len));
	}
	kt_session_row(session, row);
}

static bool report_row(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct kt_session *session = arg;

	(void)snprintf(session->after_ns, sizeof(session->after_ns), "%s", resource->ns);
	(void)snprintf(session->after_name, sizeof(session->after_name), "%s", resource->name);
	(void)snprintf(session->after_kind, sizeof(session->after_kind), "%s", resource->kind);
	session->seeded = true;
	session->after_id++;
	report(session, resource, cred);
	return true;
}

static void end(struct kt_session *session)
{
	kt_session_end(session, session->worst,
	               json_pack("{s:I,s:I,s:I,s:I,s:b}", "ok", (json_int_t)session->good, "failed", (json_int_t)session->failed,
	                         "waiting", (json_int_t)session->waiting, "resting", (json_int_t)session->resting, "timedOut",
	                         session->rows == UINT64_MAX));
}

/* Walks all credentials, page by page. */
static void more_report(struct kt_session *session)
{
	struct kt_store_page page = {.limit = PAGE};
	struct kt_err err;
	int64_t before;

	kt_err_clear(&err);
	do {
		before = session->after_id;
		page.after_ns = session->seeded ? session->after_ns : NULL;
		page.after_name = session->seeded ? session->after_name : NULL;
		page.after_kind = session->seeded ? session->after_kind : NULL;
		if (kt_store_cred_page(session->keeper->store, &page, report_row, session, &err) != KT_OK) {
			kt_session_fail(session, &err);
			return;
		}
	} while (session->after_id - before == PAGE && kt_session_room(session));
	if (session->after_id - before < PAGE) {
		end(session);
	}
}

static void report_named(struct kt_session *session)
{
	size_t i;

	for (i = 0; i < session->id_count; i++) {
		struct kt_store_resource resource;
		struct kt_store_cred cred;

		if (kt_store_resource_get(session->keeper->store, session->ids[i], &resource, NULL) != KT_OK) {
			continue;
		}
		if (kt_store_cred_get(session->keeper->store, session->ids[i], &cred, NULL) == KT_OK) {
			report(session, &resource, &cred);
			kt_store_cred_finish(&cred);
		}
		kt_store_resource_finish(&resource);
	}
	end(session);
}

static void conclude(struct kt_session *session)
{
	session->progress = NULL;
	session->follow = false;
	if (session->id_count > 0) {
		report_named(session);
		return;
	}
	session->more = more_report;
	more_report(session);
	kt_session_flush(session);
}

/* It failed in a way that passes, and is tried again in a moment: no reason to give up yet. */
static bool is_near(const struct kt_store_cred *cred, kt_ms now)
{
	const char *problem;
	int64_t asked = kt_flight_peer_said(cred, &problem);

	return kt_watched_open(cred) ||
	       (cred->attempts > 0 && !kt_client_must_wait(cred) && cred->error != KT_OK && cred->due_at != 0 &&
	       ((cred->flags & KT_CRED_ELSEWHERE) != 0 || kt_plan_retry_is_near(kt_flight_retry_row(cred, cred->error, problem), cred->attempts, asked,
	                                                                            cred->next_try - now)));
}

/* Whether one of those that are due so soon is worth to wait for. */
static bool any_near(struct kt_keeper *keeper, kt_ms now)
{
	int64_t ids[512];
	size_t count = sizeof(ids) / sizeof(ids[0]);
	bool near = false;
	size_t i;

	if (kt_store_cred_due(keeper->store, now + QUICK_WAIT, ids, &count, NULL) != KT_OK) {
		return true; /* not known: asked again */
	}
	for (i = 0; i < count && !near; i++) {
		struct kt_store_cred cred;

		if (kt_store_cred_get(keeper->store, ids[i], &cred, NULL) == KT_OK) {
			near = is_near(&cred, now);
			kt_store_cred_finish(&cred);
		}
	}
	return near;
}

static bool named_busy(struct kt_session *session, kt_ms now)
{
	struct kt_keeper *keeper = session->keeper;
	size_t i;

	for (i = 0; i < session->id_count; i++) {
		struct kt_store_cred cred;
		bool busy = kt_rotate_find(keeper, session->ids[i]) != NULL || kt_watched_busy(keeper, session->ids[i]);

		if (!busy && kt_store_cred_get(keeper->store, session->ids[i], &cred, NULL) == KT_OK) {
			busy = (cred.due_at != 0 && cred.due_at <= now) || is_near(&cred, now);
			busy = busy || (!session->delivered_only && cred.active != 0 && kt_tasks_hopeful(keeper, cred.id, now + QUICK_WAIT));
			kt_store_cred_finish(&cred);
		}
		if (busy) {
			return true;
		}
	}
	return false;
}

/* What is switched meanwhile has consumers of its own, which are not to wait either. */
static void hurry(struct kt_session *session)
{
	struct kt_err err;
	size_t i;

	kt_err_clear(&err);
	for (i = 0; session->hurry && i < session->id_count; i++) {
		struct kt_store_cred cred;

		if (kt_store_cred_get(session->keeper->store, session->ids[i], &cred, NULL) != KT_OK) {
			continue;
		}
		if (cred.active != 0 && kt_tasks_hurry(session->keeper, cred.id, cred.active, &err) != KT_OK) {
			kt_log_err(KT_LOG_WARN, &err, "a consumer can't be told outside of its window");
		}
		kt_store_cred_finish(&cred);
	}
}

/* True while anything that this command waits for is under way. */
static bool busy(struct kt_session *session)
{
	struct kt_keeper *keeper = session->keeper;
	kt_ms now = kt_keeper_now(keeper);
	int64_t id;
	size_t one = 1;

	if (keeper->mode != KT_MODE_DAEMON && kt_answers_busy(keeper)) {
		return true; /* nobody else would take them back today */
	}
	if (session->id_count == 0 && (!keeper->swept || keeper->flight_count > 0 || keeper->watched_count > 0)) {
		return true;
	}
	/* What CAs say may make something due; a CA that is down must not hold this up for long. */
	if (now - session->started < INFO_WAIT && kt_renewal_info_busy(keeper)) {
		return true;
	}
	if (session->id_count > 0) {
		return named_busy(session, now);
	}
	/* What can't be read may be due: the next round meets the same obstacle, and gives up after three. */
	if (kt_store_cred_due(keeper->store, now, &id, &one, NULL) != KT_OK || (one > 0 && keeper->commit_delay == 0)) {
		return true;
	}
	return (!session->delivered_only && kt_tasks_hopeful(keeper, 0, now + QUICK_WAIT)) || any_near(keeper, now);
}

static void progress(struct kt_session *session)
{
	kt_ms now = kt_clock_mono(session->keeper->clock);

	if (session->keeper->commit_failures > 2 && session->keeper->commit_delay > 0) {
		struct kt_err err;

		kt_err_clear(&err);
		(void)kt_err_set(&err, KT_E_LATER,
		                 "the state in %s can't be written: make room or mend permissions, then run renew again",
		                 session->keeper->state_dir);
		kt_session_fail(session, &err);
		return;
	}
	if (session->deadline != 0 && now >= session->deadline) {
		conclude(session);
		return;
	}
	hurry(session);
	/* What could not be written is tried again; after three times the state is given up. */
	if (session->keeper->commit_delay == 0 && !busy(session)) {
		conclude(session);
	}
}

static void on_timer(void *arg)
{
	struct kt_session *session = arg;

	if (session->progress != NULL) {
		kt_rotate_kick(session->keeper);
		kt_timer_start(session->timer, 250);
		progress(session);
	}
}

void kt_command_renew(struct kt_session *session)
{
	struct kt_keeper *keeper = session->keeper;
	int64_t timeout = kt_json_int(session->request, "timeout", 0); /* ms; 0: none */
	const char *until = kt_session_arg(session, "until");
	struct kt_err err;

	kt_err_clear(&err);
	session->delivered_only = until != NULL && strcmp(until, "delivered") == 0;
	session->hurry = kt_json_bool(session->request, "now", false);
	session->started = kt_keeper_now(keeper);
	session->deadline = timeout > 0 ? kt_clock_mono(keeper->clock) + timeout : 0;
	if (begin(session, &err) != KT_OK ||
	    kt_timer_create(keeper->loop, on_timer, session, &session->timer, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	if (keeper->rotating) {
		kt_rotate_kick(keeper);
	} else {
		kt_rotate_go(keeper);
	}
	if (!kt_json_bool(session->request, "wait", true) && keeper->mode == KT_MODE_DAEMON) {
		kt_session_end(session, 0, NULL);
		return;
	}
	session->follow = true;
	session->every_step = kt_json_bool(session->request, "events", false);
	session->progress = progress;
	kt_timer_start(session->timer, 250);
}
