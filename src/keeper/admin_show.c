/* The command status: what there is. It reads the store and touches nothing. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/client/client.h"
#include "keeper/admin.h"
#include "keeper/fallback.h"
#include "keeper/remedy.h"
#include "keeper/watch/watched.h"

#define NEVER (KT_TIME_MAX - 366 * KT_DAY) /* what is planned for the end of time, less a span or two, is not planned */

json_t *kt_admin_time(kt_ms at)
{
	char text[32];

	return at <= 0 || at >= NEVER ? json_null() : json_string(kt_time_format(at, text));
}

static const char *proof_name(enum kt_store_proof proof)
{
	static const char *const names[] = {"delivered", "waiting", "proved", "not proved", "uploaded"};

	return (unsigned)proof < 5 ? names[proof] : "unknown";
}

static const char *task_name(enum kt_task_state state)
{
	static const char *const names[] = {"pending", "notified", "proved", "failed", "superseded", "delivered", "uploaded"};

	return (unsigned)state < 7 ? names[state] : "unknown";
}

static bool add_task(const struct kt_store_task *task, void *arg)
{
	(void)json_array_append_new(
	        arg, json_pack("{s:s,s:s,s:s*,s:i,s:s*,s:s*,s:s*,s:s*,s:o}", "name", task->consumer_name, "state",
	                       task_name(task->state), "waitsFor", kt_tasks_is_held(task) ? "window" : NULL, "attempts", (int)task->attempts, "lastError",
	                       task->error_text[0] != '\0' ? task->error_text : NULL, "mend", kt_remedy_of_task(task), "seen",
	                       task->seen[0] != '\0' ? task->seen : NULL, "expected",
	                       task->expected[0] != '\0' ? task->expected : NULL, "nextTry", kt_admin_time(task->next_try)));
	return true;
}

/* What a person calls the state: ready, renewing, failing ... */
static const char *state_name(const struct kt_store_cred *cred, kt_ms now)
{
	if (cred->active == 0) {
		return cred->attempts > 0 ? "failing" : "issuing";
	}
	if (cred->expiry != 0 && cred->expiry <= now) {
		return "expired";
	}
	if (cred->step == KT_STEP_ROLLED_BACK) {
		return "rolled back";
	}
	if (cred->attempts > 0 || cred->deliver_failures > 0) {
		return "failing";
	}
	return proof_name(cred->proof);
}

static void add_material(struct kt_keeper *keeper, const struct kt_store_cred *cred, json_t *out, bool token)
{
	struct kt_store_material material;
	char by[600];

	if (cred->active == 0 || kt_store_material_get(keeper->store, cred->active, &material, NULL) != KT_OK) {
		return;
	}
	(void)json_object_set_new(out, token ? "tokenId" : "serial", json_string(material.serial));
	(void)json_object_set_new(out, "sha256", json_string(material.sha256));
	(void)json_object_set_new(out, "notBefore", kt_admin_time(material.not_before));
	(void)json_object_set_new(out, "notAfter", kt_admin_time(material.not_after));
	(void)json_object_set_new(out, "revision", json_integer(material.revision));
	(void)json_object_set_new(out, "rotations", json_integer(material.revision));
	(void)json_object_set_new(out, "generation", json_string(material.dir));
	(void)json_object_set_new(out, "issued", kt_admin_time(material.issued));
	if (!token && kt_fallback_issuer_of(&material, by)[0] != '\0') {
		(void)json_object_set_new(out, "issuedBy", json_string(by));
	}
	if (material.state == KT_MATERIAL_REVOKED) {
		(void)json_object_set_new(out, "certificateRevoked", json_true());
	}
	(void)json_object_set_new(out, "orderURL",
	                          cred->kind == KT_KIND_CERT && material.order_url[0] != '\0' ? json_string(material.order_url)
	                                                                                      : json_null());
	kt_store_material_finish(&material);
}

static void add_issuer(const struct kt_resource *spec, json_t *out)
{
	const struct kt_issuer_ref *ref = NULL;

	if (spec->kind == KT_RES_CERTIFICATE) {
		ref = &spec->certificate.issuer_ref;
	} else if (spec->kind == KT_RES_TOKEN) {
		ref = &spec->token.issuer_ref;
	} else if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		(void)json_object_set_new(out, "issuer", json_string(kt_client_issuer_name(&spec->client)));
	}
	if (ref != NULL) {
		char text[300];

		(void)snprintf(text, sizeof(text), "%s/%s", kt_kind_name(ref->kind), ref->name);
		(void)json_object_set_new(out, "issuer", json_string(text));
	}
}

/* What failed last and when it is tried again: issuing, or else only delivering again what is in force. */
static void add_failure(const struct kt_store_cred *cred, json_t *out)
{
	bool issuing = cred->attempts > 0 && cred->error != KT_OK;
	bool delivering = cred->deliver_failures > 0;
	bool any = issuing || delivering;

	(void)json_object_set_new(out, "lastError",
	                          any ? json_string(issuing ? cred->error_text : cred->deliver_text) : json_null());
	(void)json_object_set_new(
	        out, "errorCode",
	        any ? json_string(kt_code_name(issuing ? cred->error : cred->deliver_error)) : json_null());
	(void)json_object_set_new(out, "nextTry",
	                          any ? kt_admin_time(issuing ? cred->next_try : cred->due_at) : json_null());
	(void)json_object_set_new(out, "mend", any && kt_remedy_of(cred)[0] != '\0' ? json_string(kt_remedy_of(cred)) : json_null());
	(void)json_object_set_new(out, "deliverFailures", json_integer(cred->deliver_failures));
	(void)json_object_set_new(out, "deliverError", delivering ? json_string(cred->deliver_text) : json_null());
}

json_t *kt_admin_credential(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, bool deep)
{
	kt_ms now = kt_keeper_now(keeper);
	struct kt_resource *spec = NULL;
	json_t *out = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:i,s:b,s:s,s:I}", "namespace", resource->ns, "name",
	                        resource->name, "kind", resource->kind, "secretName", cred->secret_name, "state",
	                        state_name(cred, now), "step", kt_step_name(cred->step), "proof", proof_name(cred->proof),
	                        "due", kt_admin_time(cred->due_at), "provedAt", kt_admin_time(cred->proved_at), "attempts",
	                        (int)cred->attempts, "proved", cred->proof == KT_PROOF_PROVED, "traceId", cred->trace_id,
	                        "rotations", (json_int_t)cred->revision);

	if (out == NULL) {
		return NULL;
	}
	add_failure(cred, out);
	add_material(keeper, cred, out, cred->kind != KT_KIND_CERT);
	if (kt_load_spec(resource, &spec, NULL) == KT_OK) {
		struct kt_plan plan;

		add_issuer(spec, out);
		if (kt_rotate_plan(keeper, resource, cred, spec, true, &plan, NULL) == KT_OK) {
			(void)json_object_set_new(out, "renewAt", kt_admin_time(plan.renew_at));
			(void)json_object_set_new(out, "alarmAt", kt_admin_time(plan.alarm_at));
		}
		if (spec->kind == KT_RES_WATCH) {
			kt_watched_describe(keeper, resource, cred, spec, out);
		}
		kt_resource_destroy(spec);
	}
	if (cred->active != 0) {
		json_t *consumers = json_array();

		(void)kt_store_task_each(keeper->store, cred->active, deep ? 1000 : 8, add_task, consumers, NULL);
		(void)json_object_set_new(out, "consumers", consumers);
	}
	if (deep) {
		char path[4096];

		if (cred->kind != KT_KIND_WATCH) {
			kt_publish_path(keeper, resource->ns, cred->secret_name, path, sizeof(path));
			(void)json_object_set_new(out, "volume", json_string(path));
		}
		(void)json_object_set_new(out, "manifest",
		                          json_pack("{s:s,s:I}", "file", resource->file, "line", (json_int_t)resource->line));
		(void)json_object_set_new(out, "deliveredAt", kt_admin_time(cred->delivered_at));
	}
	return out;
}

struct find {
	const char *kind, *ns, *name;
	struct kt_keeper *keeper;
	int64_t id;
	unsigned hits;
};

static bool match(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct find *find = arg;

	if (strcmp(resource->name, find->name) == 0 && (find->ns == NULL || strcmp(resource->ns, find->ns) == 0) &&
	    (find->kind == NULL || strcmp(resource->kind, find->kind) == 0) && cred->kind != KT_KIND_JWKS) {
		find->id = resource->id;
		find->hits++;
	}
	return find->hits < 2;
}

/* Exact look-ups for what names a namespace; "default" is tried before all namespaces are searched. */
static bool find_exact(struct find *find)
{
	static const char *const kinds[] = {"Certificate", "Token", "Watch", "ClientCredential"};
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct kt_store_resource row;

		if ((find->kind == NULL || strcmp(find->kind, kinds[i]) == 0) &&
		    kt_store_resource_find(find->keeper->store, kinds[i], find->ns != NULL ? find->ns : "default", find->name,
		                           &row, NULL) == KT_OK) {
			find->id = row.id;
			find->hits += !row.gone;
			kt_store_resource_finish(&row);
		}
	}
	return find->hits > 0;
}

enum kt_code kt_admin_find(struct kt_keeper *keeper, const char *name, struct kt_store_resource *ret,
                           struct kt_err *err)
{
	struct kt_store_page page = {.limit = 1000000};
	char *copy KT_AUTOFREE = kt_strdup(name);
	struct find find = {.keeper = keeper};
	char *slash = copy != NULL ? strchr(copy, '/') : NULL;

	if (copy == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a name");
	}
	find.name = copy;
	if (slash != NULL) {
		char *second = strchr(slash + 1, '/');

		*slash = '\0';
		find.ns = copy;
		find.name = slash + 1;
		if (second != NULL) {
			*second = '\0';
			find.kind = copy;
			find.ns = slash + 1;
			find.name = second + 1;
		}
	}
	if (!find_exact(&find) && find.ns == NULL) {
		enum kt_code code = kt_store_cred_page(keeper->store, &page, match, &find, err);

		if (code != KT_OK) {
			return code;
		}
	}
	if (find.hits == 0) {
		return kt_err_set(err, KT_E_NOTFOUND, "there is no Certificate, Token, ClientCredential or Watch %s: 'keyturn status' lists all",
		                  name);
	}
	if (find.hits > 1) {
		return kt_err_set(err, KT_E_INVALID, "%s is not unique: say Kind/namespace/name", name);
	}
	return kt_store_resource_get(keeper->store, find.id, ret, err);
}

/* --- what ends too soon -------------------------------------------------------------------------------------------------- */

#define SOON_NAMED 20u /* the rest is only counted */

static kt_ms member_time(const json_t *row, const char *key)
{
	const char *text = kt_json_str(row, key);
	kt_ms at = 0;

	return text != NULL && kt_time_parse(kt_view_str(text), &at, NULL) == KT_OK ? at : 0;
}

/*
 * Whether it ends within this time, or has nothing in force for failures. What lives shorter, or is renewed later, than that is
 * measured by its own life: it counts from where it should have been renewed long ago.
 */
static bool ends_soon(const struct kt_store_cred *cred, const json_t *row, kt_ms within, kt_ms now)
{
	kt_ms renew = member_time(row, "renewAt"), alarm = member_time(row, "alarmAt");

	if (cred->expiry == 0) {
		return cred->active == 0 && cred->attempts > 0;
	}
	if (cred->kind == KT_KIND_WATCH) { /* without a command nobody is late */
		alarm = renew != 0 && renew < cred->expiry ? renew + (cred->expiry - renew) / 2 : 0;
	}
	if (alarm != 0 && alarm < cred->expiry && cred->expiry - alarm < within) {
		within = cred->expiry - alarm;
	}
	return cred->expiry - now <= within;
}

/* Counts it and keeps its name, where the command asks for that. */
static bool note_soon(struct kt_session *session, const struct kt_store_cred *cred, json_t *row)
{
	kt_ms within = (kt_ms)kt_json_int(session->request, "within", 0);

	if (within <= 0 || row == NULL || !ends_soon(cred, row, within, kt_keeper_now(session->keeper))) {
		return false;
	}
	session->soon_count++;
	if (session->soon == NULL) {
		session->soon = json_array();
	}
	if (json_array_size(session->soon) < SOON_NAMED) {
		json_t *brief = json_object();

		static const char *const keys[] = {"kind", "namespace", "name", "notAfter", "lastError"};

		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			(void)json_object_set(brief, keys[i], json_object_get(row, keys[i]));
		}
		(void)json_array_append_new(session->soon, brief);
	}
	return true;
}

/* --- rows, page by page ------------------------------------------------------------------------------------------------- */

struct rows {
	struct kt_session *session;
	unsigned taken;
};

static bool add_row(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct rows *rows = arg;
	struct kt_session *session = rows->session;

	rows->taken++;
	kt_session_page_at(session, resource);
	if (cred->kind != KT_KIND_JWKS && !resource->gone) {
		json_t *row = kt_admin_credential(session->keeper, resource, cred, false);

		(void)note_soon(session, cred, row);
		kt_session_row(session, row);
	}
	return true;
}

json_t *kt_admin_summary(struct kt_session *session)
{
	struct kt_store *store = session->keeper->store;
	struct kt_store_counts counts;
	json_t *summary;

	if (store == NULL || kt_store_counts(store, &counts, NULL) != KT_OK) {
		return NULL;
	}
	summary = json_pack("{s:I,s:I,s:I,s:I,s:s,s:o}", "total", (json_int_t)counts.total, "failing",
	                 (json_int_t)(counts.failing[KT_KIND_CERT] + counts.failing[KT_KIND_TOKEN] + counts.failing[KT_KIND_WATCH] +
	                              counts.failing[KT_KIND_CLIENT]),
	                 "unpublished",
	                 (json_int_t)(counts.unpublished[KT_KIND_CERT] + counts.unpublished[KT_KIND_TOKEN] +
	                              counts.unpublished[KT_KIND_CLIENT]),
	                 "expiring",
	                 (json_int_t)session->soon_count, "mode", session->keeper->mode == KT_MODE_DAEMON ? "agent" : "command",
	                 "time", kt_admin_time(kt_keeper_now(session->keeper)));
	if (summary != NULL && session->soon != NULL) {
		(void)json_object_set(summary, "endsSoon", session->soon);
	}
	return summary;
}

static void more_status(struct kt_session *session)
{
	struct rows rows = {session, 0};
	struct kt_store_page page = {.limit = KT_ADMIN_PAGE};
	struct kt_err err;

	kt_err_clear(&err);
	do {
		rows.taken = 0;
		kt_session_page(session, &page);
		if (kt_store_cred_page(session->keeper->store, &page, add_row, &rows, &err) != KT_OK) {
			kt_session_fail(session, &err);
			return;
		}
	} while (rows.taken == KT_ADMIN_PAGE && kt_session_room(session));
	if (rows.taken < KT_ADMIN_PAGE) {
		json_t *result = kt_admin_summary(session);
		bool soon = kt_json_int(result, "expiring", 0) > 0;

		kt_session_end(session, soon ? 1 : 0, result);
	}
}

/* A single one, with everything around it. */
static void show_one(struct kt_session *session, const char *name)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	struct kt_err err;
	json_t *result = NULL;
	bool soon = false;

	kt_err_clear(&err);
	if (kt_admin_find(keeper, name, &resource, &err) == KT_OK &&
	    kt_store_cred_get(keeper->store, resource.id, &cred, &err) == KT_OK) {
		result = kt_admin_credential(keeper, &resource, &cred, true);
		soon = note_soon(session, &cred, result);
	}
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
	} else {
		if (soon) {
			(void)json_object_set_new(result, "endsSoon", json_true());
		}
		kt_session_end(session, soon ? 1 : 0, result);
	}
}

void kt_command_status(struct kt_session *session)
{
	const char *name = kt_session_arg(session, "name");

	if (name != NULL) {
		show_one(session, name);
		return;
	}
	session->more = more_status;
	more_status(session);
}
