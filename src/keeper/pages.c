/* What the agent says about itself: metrics, health, and the data of the status page. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/mem.h"
#include "keeper/admin.h"
#include "keeper/watch/watched.h"

#define ROWS_MAX   200u
#define EVENTS_MAX 20u

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0"
#endif

static const char *const kind_names[KT_KIND_COUNT] = {"certificate", "token", "jwks", "bundle", "watch", "client"};

/* Ready: every credential has a valid set in place. */
static bool is_ready(struct kt_keeper *keeper, struct kt_buf *why)
{
	struct kt_store_counts counts;
	uint64_t expired = 0;
	uint64_t missing;

	if (keeper->store == NULL || kt_store_counts(keeper->store, &counts, NULL) != KT_OK ||
	    kt_store_cred_expiring(keeper->store, kt_keeper_now(keeper), &expired, NULL) != KT_OK) {
		kt_buf_adds(why, "the state can't be read\n");
		return false;
	}
	expired -= kt_watched_expired(keeper);
	missing = counts.unpublished[KT_KIND_CERT] + counts.unpublished[KT_KIND_TOKEN] + counts.unpublished[KT_KIND_CLIENT];
	if (missing > 0 || expired > 0) {
		kt_buf_addf(why, "%llu of %llu credentials have no valid set in place\n",
		            (unsigned long long)(missing + expired), (unsigned long long)counts.total);
		return false;
	}
	kt_buf_adds(why, "ready\n");
	keeper->was_ready = true;
	return true;
}

static void gauge(struct kt_buf *out, const char *name, const char *type, const char *help)
{
	kt_buf_addf(out, "# HELP keyturn_%s %s\n# TYPE keyturn_%s %s\n", name, help, name, type);
}

static void metrics(struct kt_keeper *keeper, struct kt_buf *out)
{
	struct kt_store_counts counts;
	uint64_t expired = 0;
	kt_ms next = 0;
	kt_ms now = kt_keeper_now(keeper);
	int kind;
	int step;

	if (keeper->store == NULL || kt_store_counts(keeper->store, &counts, NULL) != KT_OK) {
		return;
	}
	(void)kt_store_cred_expiring(keeper->store, now, &expired, NULL);
	expired -= kt_watched_expired(keeper);
	(void)kt_store_cred_next_due(keeper->store, -1, &next, NULL);
	gauge(out, "build_info", "gauge", "Version of the agent.");
	kt_buf_addf(out, "keyturn_build_info{version=\"%s\"} 1\n", PACKAGE_VERSION);
	gauge(out, "start_time_seconds", "gauge", "When the keeper was started, in seconds since the epoch.");
	kt_buf_addf(out, "keyturn_start_time_seconds %lld\n", (long long)(keeper->started_at / 1000));
	gauge(out, "credentials", "gauge", "Credentials by kind and the step they are at.");
	for (kind = 0; kind < KT_KIND_COUNT; kind++) {
		for (step = 0; step < KT_STEP_COUNT; step++) {
			if (counts.step[kind][step] > 0) {
				kt_buf_addf(out, "keyturn_credentials{kind=\"%s\",step=\"%s\"} %llu\n", kind_names[kind],
				            kt_step_name((enum kt_step)step), (unsigned long long)counts.step[kind][step]);
			}
		}
	}
	gauge(out, "credentials_failing", "gauge", "Credentials whose last try failed, by kind.");
	for (kind = 0; kind < KT_KIND_COUNT; kind++) {
		if (kind == KT_KIND_JWKS || kind == KT_KIND_BUNDLE) {
			continue;
		}
		kt_buf_addf(out, "keyturn_credentials_failing{kind=\"%s\"} %llu\n", kind_names[kind],
		            (unsigned long long)counts.failing[kind]);
	}
	gauge(out, "credentials_unpublished", "gauge", "Credentials without a set in place, by kind.");
	for (kind = 0; kind < 2; kind++) {
		kt_buf_addf(out, "keyturn_credentials_unpublished{kind=\"%s\"} %llu\n", kind_names[kind],
		            (unsigned long long)counts.unpublished[kind]);
	}
	gauge(out, "credentials_expired", "gauge", "Credentials whose set in place has expired.");
	kt_buf_addf(out, "keyturn_credentials_expired %llu\n", (unsigned long long)expired);
	gauge(out, "rotations_total", "counter", "Sets switched into place since the start.");
	kt_buf_addf(out, "keyturn_rotations_total %llu\n", (unsigned long long)keeper->rotations);
	gauge(out, "failures_total", "counter", "Failed tries since the start.");
	kt_buf_addf(out, "keyturn_failures_total %llu\n", (unsigned long long)keeper->failures);
	gauge(out, "credentials_in_flight", "gauge", "Credentials that are being rotated now.");
	kt_buf_addf(out, "keyturn_credentials_in_flight %u\n", keeper->flight_count);
	gauge(out, "next_due_timestamp_seconds", "gauge", "When the next credential is due, in seconds since the epoch.");
	kt_buf_addf(out, "keyturn_next_due_timestamp_seconds %lld\n", (long long)(next / 1000));
	kt_watched_metrics(keeper, out);
}

/* --- status.json ---------------------------------------------------------------------------------------------------- */

struct rows {
	struct kt_keeper *keeper;
	json_t *list;
	uint64_t total;
};

static const char *page_step(const struct kt_store_cred *cred)
{
	if (cred->step == KT_STEP_RETIRED || cred->step == KT_STEP_NOTIFIED || cred->step == KT_STEP_PROVED) {
		return cred->proof == KT_PROOF_PROVED ? "proved"
		       : cred->proof == KT_PROOF_NOBODY ? "delivered"
		       : cred->proof == KT_PROOF_UPLOADED ? "uploaded"
		                                        : "notified";
	}
	return kt_step_name(cred->step);
}

static bool add_row(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct rows *rows = arg;
	json_t *row;
	json_t *consumers;
	size_t i;

	if (cred->kind == KT_KIND_JWKS || resource->gone) {
		return true;
	}
	rows->total++;
	if (json_array_size(rows->list) >= ROWS_MAX) {
		return rows->total < 10000; /* enough to say "more" */
	}
	row = kt_admin_credential(rows->keeper, resource, cred, false);
	if (row == NULL) {
		return false;
	}
	(void)json_object_set_new(row, "step", json_string(page_step(cred)));
	if (json_is_null(json_object_get(row, "lastError"))) {
		(void)json_object_set_new(row, "lastError", json_string(""));
	}
	consumers = json_object_get(row, "consumers");
	for (i = 0; i < json_array_size(consumers); i++) {
		json_t *consumer = json_array_get(consumers, i);

		if (json_object_get(consumer, "lastError") == NULL) {
			(void)json_object_set_new(consumer, "lastError", json_string(""));
		}
	}
	(void)json_array_append_new(rows->list, row);
	return true;
}

static bool add_event(const struct kt_audit_record *record, void *arg)
{
	json_t *json = NULL;

	if (kt_json_parse(record->json, 65536, &json, NULL) == KT_OK) {
		(void)json_array_append_new(arg, json);
	}
	return true;
}

static json_t *count_steps(struct kt_keeper *keeper)
{
	struct kt_store_counts counts;
	json_t *out = json_object();
	int step;

	if (kt_store_counts(keeper->store, &counts, NULL) == KT_OK) {
		for (step = 0; step < KT_STEP_COUNT; step++) {
			uint64_t n = counts.step[KT_KIND_CERT][step] + counts.step[KT_KIND_TOKEN][step] +
			             counts.step[KT_KIND_WATCH][step] + counts.step[KT_KIND_CLIENT][step];

			if (n > 0) {
				(void)json_object_set_new(out, kt_step_name((enum kt_step)step), json_integer((json_int_t)n));
			}
		}
	}
	return out;
}

enum kt_code kt_pages_status_json(struct kt_keeper *keeper, struct kt_buf *out, struct kt_err *err)
{
	struct rows rows = {keeper, json_array(), 0};
	struct kt_store_page page = {.limit = 10000};
	struct kt_audit_query query = {.newest_first = true, .limit = EVENTS_MAX};
	struct kt_buf why KT_AUTOBUF = {0};
	json_t *events = json_array();
	json_t *status KT_AUTOJSON = NULL;
	enum kt_code code = kt_store_cred_page(keeper->store, &page, add_row, &rows, err);

	kt_buf_init(&why, 512);
	if (code == KT_OK) {
		code = kt_audit_each(keeper->store, &query, add_event, events, err);
	}
	status = json_pack("{s:o,s:s,s:b,s:o,s:o,s:I,s:o}", "time", kt_admin_time(kt_keeper_now(keeper)), "version",
	                   PACKAGE_VERSION, "ready", is_ready(keeper, &why), "counts", count_steps(keeper), "credentials",
	                   rows.list, "truncated", (json_int_t)(rows.total - json_array_size(rows.list)), "events", events);
	if (code == KT_OK && status == NULL) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for the status");
	}
	return code == KT_OK ? kt_json_dump(status, out, err) : code;
}

void kt_pages_serve(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_page *ask = in->msg;
	struct kt_msg_page_given given = {.status = 200, .content_type = KT_VIEW_LIT("text/plain; charset=utf-8")};
	struct kt_buf body KT_AUTOBUF = {0};
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&body, KT_DOC_MAX);
	if (kt_view_eq_str(ask->path, "/metrics")) {
		metrics(keeper, &body);
		given.content_type = KT_VIEW_LIT("text/plain; version=0.0.4; charset=utf-8");
	} else if (kt_view_eq_str(ask->path, "/livez")) {
		kt_buf_adds(&body, "alive\n");
	} else if (kt_view_eq_str(ask->path, "/readyz")) {
		given.status = is_ready(keeper, &body) ? 200 : 503;
	} else if (kt_view_eq_str(ask->path, "/startupz") && keeper->was_ready) { /* what comes later is /readyz's to tell */
		kt_buf_adds(&body, "started\n");
	} else if (kt_view_eq_str(ask->path, "/startupz")) {
		given.status = is_ready(keeper, &body) ? 200 : 503;
	} else if (kt_view_eq_str(ask->path, "/status.json") && keeper->store != NULL) {
		(void)kt_pages_status_json(keeper, &body, &err);
		given.content_type = KT_VIEW_LIT("application/json");
	} else {
		(void)kt_err_set(&err, KT_E_NOTFOUND, "there is no such page");
	}
	if (err.code == KT_OK) {
		(void)kt_buf_check(&body, "page", &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	given.body = kt_buf_view(&body);
	kt_wire_reply(in->wire, in->id, KT_PAGE_GIVEN, &given, NULL, 0);
}
