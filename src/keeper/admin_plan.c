/* The commands plan and why: what would be done, with the manifests in force or with those on disk. They touch nothing. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/admin.h"
#include "keeper/budget.h"
#include "keeper/fallback.h"

enum kt_code kt_admin_draft(struct kt_session *session, struct kt_err *err)
{
	return session->passed_fd < 0 ? KT_OK : kt_draft_create(session->keeper, session->passed_fd, &session->draft, err);
}

/* --- one row ---------------------------------------------------------------------------------------------------------- */

/* What loading the manifests on disk would make of one credential. */
struct view {
	struct kt_store_resource resource; /* borrowed */
	struct kt_store_cred cred;         /* a copy whose strings are borrowed */
	const char *manifest;              /* "new", "changed", "removed", "affected"; NULL: as it is */
	char *changes;
	bool redeliver; /* loading it has the files written again, if nothing more */
};

static void view_changed(struct view *view, struct kt_draft_entry *entry)
{
	entry->told = true;
	view->resource = entry->row;
	view->manifest = entry->is_new ? "new" : "changed";
	view->changes = entry->changes != NULL ? kt_strdup(entry->changes) : NULL;
	view->cred.flags &= ~(unsigned)(KT_CRED_FAILED | KT_CRED_ORPHAN);
	view->redeliver = view->cred.active != 0;
	view->cred.attempts = 0;
	view->cred.next_try = 0;
}

static void view_init(struct view *view, struct kt_draft *draft, const struct kt_store_resource *resource,
                      const struct kt_store_cred *cred)
{
	struct kt_draft_entry *entry = draft != NULL ? kt_draft_find(draft, resource->id) : NULL;
	const char *consumer = NULL;

	*view = (struct view){.resource = *resource};
	if (cred != NULL) {
		view->cred = *cred;
	} else {
		view->cred.kind = strcmp(resource->kind, "Token") == 0              ? KT_KIND_TOKEN
		                  : strcmp(resource->kind, "Watch") == 0            ? KT_KIND_WATCH
		                  : strcmp(resource->kind, "ClientCredential") == 0 ? KT_KIND_CLIENT
		                                                                    : KT_KIND_CERT;
		view->cred.error_text = view->cred.cookie = view->cred.trace_id = view->cred.secret_name = "";
	}
	if (entry != NULL) {
		view_changed(view, entry);
	} else if (draft != NULL && resource->id == 0) {
		view->manifest = "new";
	} else if (draft != NULL && !kt_draft_has(draft, resource->id)) {
		view->manifest = "removed";
		view->resource.gone = true;
	} else if (draft != NULL && cred != NULL && cred->active != 0 &&
	           (consumer = kt_draft_consumer_of(draft, resource->ns, cred->secret_name)) != NULL) {
		view->manifest = "affected";
		view->changes = kt_asprintf("Consumer/%s", consumer);
		view->redeliver = true;
	}
}

static void set_manifest(json_t *row, const char *manifest, const char *changes)
{
	if (row != NULL && manifest != NULL) {
		(void)json_object_set_new(row, "manifest", json_string(manifest));
		(void)json_object_set_new(row, "changes", changes != NULL ? json_string(changes) : json_null());
	}
}

/* What the CA suggests (RFC 9773), and whether the plan goes by it. */
static void set_renewal_info(struct kt_keeper *keeper, json_t *row, const struct kt_store_cred *cred, bool followed)
{
	struct kt_store_renewal_info info;

	if (row == NULL || cred->active == 0 || keeper->store == NULL ||
	    kt_store_renewal_info_get(keeper->store, cred->id, &info, NULL) != KT_OK) {
		return;
	}
	if (info.material == cred->active && info.asked_at != 0) {
		(void)json_object_set_new(row, "renewalInfo",
		                          json_pack("{s:o,s:o,s:s?,s:o,s:o,s:b}", "start", kt_admin_time(info.window_start), "end",
		                                    kt_admin_time(info.window_end), "explanation",
		                                    info.explanation[0] != '\0' ? info.explanation : NULL, "askedAt",
		                                    kt_admin_time(info.asked_at), "nextCheck", kt_admin_time(info.check_at),
		                                    "followed", followed));
	}
	kt_store_renewal_info_finish(&info);
}

/* The agent writes the files first and then goes on to what is due; of both, the greater is told. */
static enum kt_code plan_of(struct kt_keeper *keeper, struct view *view, const struct kt_resource *spec, struct kt_plan *ret)
{
	enum kt_code code = kt_rotate_plan(keeper, &view->resource, &view->cred, spec, false, ret, NULL);

	if (code == KT_OK && view->redeliver && (ret->action == KT_PLAN_WAIT || ret->action == KT_PLAN_NONE)) {
		view->cred.flags |= KT_CRED_REDELIVER;
		code = kt_rotate_plan(keeper, &view->resource, &view->cred, spec, false, ret, NULL);
		if (code == KT_OK && ret->action == KT_PLAN_REDELIVER) {
			(void)snprintf(ret->text, sizeof(ret->text), "loading the manifests writes its files again");
		}
	}
	return code;
}

json_t *kt_admin_plan_row(struct kt_session *session, const struct kt_store_resource *resource,
                          const struct kt_store_cred *cred)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_resource *spec = NULL;
	struct kt_plan plan;
	json_t *row = NULL;
	struct view view;

	view_init(&view, session->draft, resource, cred);
	if (kt_load_spec(&view.resource, &spec, NULL) == KT_OK &&
	    plan_of(keeper, &view, spec, &plan) == KT_OK) {
		row = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o,s:s,s:b}", "namespace", resource->ns, "name", resource->name,
		                "kind", resource->kind, "action", kt_plan_action_name(plan.action), "reason",
		                kt_plan_reason_name(plan.reason), "at", kt_admin_time(plan.due_at), "renewAt",
		                kt_admin_time(plan.renew_at), "notAfter", kt_admin_time(view.cred.expiry), "text", plan.text, "alarm",
		                plan.alarm);
		set_manifest(row, view.manifest, view.changes);
		set_renewal_info(keeper, row, &view.cred, plan.by_info);
	}
	kt_resource_destroy(spec);
	kt_free(view.changes);
	return row;
}

/* --- plan: the credentials of the store ------------------------------------------------------------------------------- */

struct rows {
	struct kt_session *session;
	unsigned taken;
};

static bool add_row(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct rows *rows = arg;
	struct kt_session *session = rows->session;
	bool returns = resource->gone && session->draft != NULL && kt_draft_find(session->draft, resource->id) != NULL;

	rows->taken++;
	kt_session_page_at(session, resource);
	if (cred->kind != KT_KIND_JWKS && (!resource->gone || returns)) {
		kt_session_row(session, kt_admin_plan_row(session, resource, cred));
	}
	return true;
}

/* True when all are told. */
static bool page_credentials(struct kt_session *session, struct kt_err *err)
{
	struct kt_store_page page = {.limit = KT_ADMIN_PAGE};
	struct rows rows = {session, KT_ADMIN_PAGE};

	while (rows.taken == KT_ADMIN_PAGE && kt_session_room(session)) {
		rows.taken = 0;
		kt_session_page(session, &page);
		if (kt_store_cred_page(session->keeper->store, &page, add_row, &rows, err) != KT_OK) {
			return false;
		}
	}
	return rows.taken < KT_ADMIN_PAGE;
}

/* --- plan: what else the draft holds ------------------------------------------------------------------------------------ */

static json_t *other_row(const struct kt_store_resource *resource, const char *manifest, const char *changes)
{
	json_t *row = json_pack("{s:s,s:s,s:s,s:s,s:s,s:n,s:n,s:n,s:s,s:b}", "namespace", resource->ns, "name", resource->name,
	                        "kind", resource->kind, "action", "none", "reason", "manifest-changed", "at", "renewAt",
	                        "notAfter", "text",
	                        strcmp(manifest, "removed") == 0 ? "it is no longer in the manifests"
	                                                         : "it is in force once the manifests are loaded",
	                        "alarm", 0);

	set_manifest(row, manifest, changes);
	return row;
}

/* Credentials that are new, and issuers and Consumers that are new or changed. */
static void entry_rows(struct kt_session *session)
{
	struct kt_draft_entry *entry;

	while (kt_session_room(session) && (entry = kt_draft_at(session->draft, session->next_entry)) != NULL) {
		const struct kt_store_resource *row = &entry->row;

		session->next_entry++;
		if (entry->told) {
			continue;
		}
		if (kt_keeper_rotates(row->kind)) {
			kt_session_row(session, kt_admin_plan_row(session, row, NULL));
		} else {
			kt_session_row(session, other_row(row, entry->is_new ? "new" : "changed", entry->changes));
		}
	}
}

static bool add_removed(const struct kt_store_resource *resource, void *arg)
{
	struct rows *rows = arg;
	struct kt_session *session = rows->session;

	rows->taken++;
	session->after_id = resource->id;
	if (!kt_draft_has(session->draft, resource->id) && !kt_keeper_rotates(resource->kind)) {
		kt_session_row(session, other_row(resource, "removed", NULL));
	}
	return true;
}

/* Issuers and Consumers that are gone from the disk. True when all are told. */
static bool page_removed(struct kt_session *session, struct kt_err *err)
{
	struct rows rows = {session, KT_ADMIN_PAGE};

	while (rows.taken == KT_ADMIN_PAGE && kt_session_room(session)) {
		rows.taken = 0;
		if (kt_store_resource_each(session->keeper->store, NULL, session->after_id, KT_ADMIN_PAGE, add_removed, &rows, err) !=
		    KT_OK) {
			return false;
		}
	}
	return rows.taken < KT_ADMIN_PAGE;
}

struct fares {
	struct kt_keeper *keeper;
	json_t *list;
};

static bool add_fare(const struct kt_store_resource *resource, void *arg)
{
	struct fares *fares = arg;
	char ref[600];
	json_t *row;

	(void)snprintf(ref, sizeof(ref), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	row = kt_fallback_health_json(fares->keeper, ref);
	if (row != NULL) {
		(void)json_array_append_new(fares->list, row);
	}
	return true;
}

/* What is left of what CAs allow, and how issuers fare. */
static json_t *with_issuers(struct kt_session *session, json_t *summary)
{
	struct fares fares = {session->keeper, NULL};

	if (summary == NULL || session->keeper->store == NULL) {
		return summary;
	}
	fares.list = json_array();
	(void)kt_store_resource_each(session->keeper->store, "Issuer", 0, 64, add_fare, &fares, NULL);
	(void)kt_store_resource_each(session->keeper->store, "ClusterIssuer", 0, 64, add_fare, &fares, NULL);
	(void)json_object_set_new(summary, "budgets", kt_budget_json(session->keeper));
	(void)json_object_set_new(summary, "issuers", fares.list);
	return summary;
}

static void more_plan(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (session->keeper->store != NULL && !session->paged) {
		session->paged = page_credentials(session, &err);
		if (err.code != KT_OK) {
			kt_session_fail(session, &err);
		}
		if (!session->paged || session->ended) {
			return;
		}
	}
	if (session->draft != NULL) {
		entry_rows(session);
		if (kt_draft_at(session->draft, session->next_entry) != NULL) {
			return; /* the rest when there is room */
		}
		if (session->keeper->store != NULL && !page_removed(session, &err)) {
			if (err.code != KT_OK) {
				kt_session_fail(session, &err);
			}
			return;
		}
	}
	kt_session_end(session, 0, with_issuers(session, kt_admin_summary(session)));
}

void kt_command_plan(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_admin_draft(session, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	session->more = more_plan;
	more_plan(session);
}

/* --- why ---------------------------------------------------------------------------------------------------------------- */

/* One that only the manifests on disk know. */
static json_t *unborn(struct kt_session *session, const char *name)
{
	struct kt_draft_entry *entry = session->draft != NULL ? kt_draft_find_new(session->draft, name) : NULL;
	const struct kt_store_resource *row = entry != NULL ? &entry->row : NULL;
	json_t *out;

	if (entry == NULL) {
		return NULL;
	}
	out = json_pack("{s:s,s:s,s:s,s:s,s:n,s:{s:s,s:I}}", "namespace", row->ns, "name", row->name, "kind", row->kind, "state",
	                "not loaded", "notAfter", "manifest", "file", row->file, "line", (json_int_t)row->line);
	if (out != NULL) {
		(void)json_object_set_new(out, "plan", kt_admin_plan_row(session, row, NULL));
	}
	return out;
}

static json_t *explain(struct kt_session *session, const char *name, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	json_t *result = NULL;

	if (keeper->store == NULL) {
		(void)kt_err_set(err, KT_E_NOTFOUND, "the manifests have no Certificate, Token, ClientCredential or Watch %s", name);
	} else if (kt_admin_find(keeper, name, &resource, err) == KT_OK &&
	           kt_store_cred_get(keeper->store, resource.id, &cred, err) == KT_OK) {
		result = kt_admin_credential(keeper, &resource, &cred, true);
		if (result != NULL) {
			(void)json_object_set_new(result, "plan", kt_admin_plan_row(session, &resource, &cred));
		}
	}
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	if (err->code == KT_E_NOTFOUND && (result = unborn(session, name)) != NULL) {
		kt_err_clear(err);
	}
	return result;
}

void kt_command_why(struct kt_session *session)
{
	const char *name = kt_session_arg(session, "name");
	json_t *result = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (name == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "why needs the name of a credential");
	} else if (kt_admin_draft(session, &err) == KT_OK) {
		result = explain(session, name, &err);
	}
	if (err.code != KT_OK) {
		json_decref(result);
		kt_session_fail(session, &err);
	} else {
		kt_session_end(session, 0, result);
	}
}
