/* Commands about state: token, secret, master key, walls, reload. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/admin.h"
#include "keeper/render.h"

#define RETRY_PAGE 1000u

/* A record of a command itself. */
static enum kt_code audit_command(struct kt_session *session, const char *step, const char *ns, const char *name,
                                  const char *reason, struct kt_err *err)
{
	char trace[33];
	char actor[32];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(kt_keeper_now(session->keeper), trace),
	                               .actor = actor,
	                               .kind = name != NULL ? "Secret" : NULL,
	                               .ns = ns,
	                               .name = name,
	                               .step = step,
	                               .outcome = "ok",
	                               .reason = reason};

	(void)snprintf(actor, sizeof(actor), "uid:%u", session->uid);
	return kt_keeper_audit(session->keeper, &event, err);
}

/* --- token ------------------------------------------------------------------------------------------------------------ */

/* "token" is the token alone, "text" what a file of the asked format would hold. */
static enum kt_code add_token(struct kt_session *session, const struct kt_store_resource *resource,
                              const struct kt_store_material *material, json_t *result, struct kt_err *err)
{
	const char *format = kt_session_arg(session, "format");
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&text, KT_ADMIN_REQUEST_MAX);
	if (kt_session_arg(session, "method") != NULL && kt_session_arg(session, "url") != NULL) {
		code = kt_oauth_headers(session->keeper, resource, material, kt_session_arg(session, "method"),
		                        kt_session_arg(session, "url"), kt_session_arg(session, "nonce"), &text, err);
		format = "dpop";
	} else {
		code = kt_render_token_text(session->keeper, resource, material, format != NULL ? format : "raw", &text, err);
	}
	if (code == KT_OK) {
		/* The one place where a token leaves as JSON: over the private stream of who asked for it. */
		(void)json_object_set_new(result, format != NULL ? "text" : "token", json_stringn(text.ptr, text.len));
	}
	return code;
}

void kt_command_token(struct kt_session *session)
{
	struct kt_keeper *keeper = session->keeper;
	const char *name = kt_session_arg(session, "name");
	struct kt_store_resource resource = {0};
	struct kt_store_material material = {0};
	struct kt_store_cred cred = {0};
	json_t *result = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (name == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "token needs the name of a Token");
	} else if (kt_admin_find(keeper, name, &resource, &err) == KT_OK &&
	           kt_store_cred_get(keeper->store, resource.id, &cred, &err) == KT_OK) {
		if (cred.kind != KT_KIND_TOKEN) {
			(void)kt_err_set(&err, KT_E_INVALID, "%s is a %s, not a Token", name, resource.kind);
		} else if (cred.active == 0 || cred.expiry <= kt_keeper_now(keeper)) {
			(void)kt_err_set(&err, KT_E_LATER, "%s has no valid token now%s%s", name,
			                 cred.error_text[0] != '\0' ? ": " : "", cred.error_text);
		} else if (kt_store_material_get(keeper->store, cred.active, &material, &err) == KT_OK) {
			char type[KT_TOKEN_TYPE_SIZE];
			const char *scope = kt_render_token_type(material.cookie, type);

			result = json_pack("{s:s,s:o,s:s}", "token_type", type, "expiresAt", kt_admin_time(material.not_after),
			                   "scope", scope);
			(void)add_token(session, &resource, &material, result, &err);
		}
	}
	kt_store_material_finish(&material);
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	if (err.code != KT_OK) {
		json_decref(result);
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, 0, result);
}

/* --- secret ----------------------------------------------------------------------------------------------------------- */

static const char *namespace_of(const struct kt_session *session)
{
	const char *ns = kt_session_arg(session, "namespace");

	return ns != NULL && ns[0] != '\0' ? ns : "default";
}

struct waking {
	struct kt_keeper *keeper;
	enum kt_code code;
	struct kt_err *err;
	char ns[256], name[256], kind[64]; /* the last one that was looked at */
	unsigned count;
};

static bool wake_source(int64_t id, void *arg)
{
	struct waking *waking = arg;
	struct kt_keeper *keeper = waking->keeper;

	waking->code = kt_store_cred_wake(keeper->store, id, kt_keeper_now(keeper), KT_CRED_FORCED, waking->err);
	return waking->code == KT_OK;
}

/* ClientCredentials that only deliver what the store has. */
static enum kt_code deliver_again(struct kt_keeper *keeper, const char *ns, const char *name, struct kt_err *err)
{
	struct kt_store_link link = {"source", ns, name};
	struct waking waking = {.keeper = keeper, .err = err};
	enum kt_code code = kt_store_linked_each(keeper->store, &link, wake_source, &waking, err);

	return code == KT_OK ? waking.code : code;
}

static enum kt_code put_secret(struct kt_session *session, const char *ns, const char *name, const char *key,
                               struct kt_view value, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_seal_id id = kt_store_secret_seal_id(ns, name, key);
	struct kt_store_secret row = {
	        .ns = ns, .name = name, .key = key, .source = KT_SECRET_COMMAND, .updated = kt_keeper_now(keeper)};
	enum kt_code code;

	kt_buf_init(&sealed, KT_ADMIN_REQUEST_MAX);
	code = kt_keys_seal(keeper->keys, &id, value, &sealed, err);
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	row.sealed = kt_buf_view(&sealed);
	code = kt_store_secret_put(keeper->store, &row, err);
	if (code == KT_OK) {
		code = audit_command(session, "secret.set", ns, name, key, err);
	}
	if (code == KT_OK) {
		code = deliver_again(keeper, ns, name, err);
	}
	return kt_store_end(keeper->store, code, err);
}

/* Credentials that wait because a secret was wrong or missing are tried at once. */
static bool wake_failed(const struct kt_store_resource *resource, const struct kt_store_cred *cred, void *arg)
{
	struct waking *waking = arg;
	struct kt_keeper *keeper = waking->keeper;

	(void)snprintf(waking->ns, sizeof(waking->ns), "%s", resource->ns);
	(void)snprintf(waking->name, sizeof(waking->name), "%s", resource->name);
	(void)snprintf(waking->kind, sizeof(waking->kind), "%s", resource->kind);
	waking->count++;
	if (cred->attempts > 0 && !resource->gone) {
		struct kt_store_cred again = *cred;

		again.next_try = 0;
		again.due_at = kt_keeper_now(keeper);
		again.flags &= ~(unsigned)KT_CRED_FAILED;
		again.mem = NULL;
		waking->code = kt_store_cred_put(keeper->store, &again, waking->err);
	}
	return waking->code == KT_OK;
}

void kt_admin_retry_failed(struct kt_keeper *keeper)
{
	struct kt_err err;
	struct waking waking = {.keeper = keeper, .err = &err};
	struct kt_store_page page = {.limit = RETRY_PAGE};
	struct kt_store_counts counts;
	enum kt_code code;

	kt_err_clear(&err);

	if (kt_store_counts(keeper->store, &counts, NULL) != KT_OK ||
	    counts.failing[KT_KIND_CERT] + counts.failing[KT_KIND_TOKEN] + counts.failing[KT_KIND_WATCH] +
	                    counts.failing[KT_KIND_CLIENT] == 0 ||
	    kt_store_begin(keeper->store, NULL) != KT_OK) {
		return;
	}
	do {
		waking.count = 0;
		code = kt_store_cred_page(keeper->store, &page, wake_failed, &waking, &err);
		code = code == KT_OK ? waking.code : code;
		page.after_ns = waking.ns;
		page.after_name = waking.name;
		page.after_kind = waking.kind;
	} while (code == KT_OK && waking.count == RETRY_PAGE);
	if (kt_store_end(keeper->store, code, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "what failed can't be tried again at once: it is at its own time");
	}
	kt_rotate_kick(keeper);
}

void kt_command_secret_set(struct kt_session *session)
{
	const char *name = kt_session_arg(session, "name");
	const char *key = kt_session_arg(session, "key");
	const char *value = kt_session_arg(session, "value");
	struct kt_buf bytes KT_AUTOBUF = {0};
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&bytes, KT_ADMIN_REQUEST_MAX);
	if (name == NULL || key == NULL || value == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "secret set needs a name, a key and a value");
	} else if (!kt_dns1123_subdomain(name) || !kt_dns1123_subdomain(namespace_of(session))) {
		(void)kt_err_set(&err, KT_E_INVALID, "%.64s is not a name as Kubernetes has them (a-z, 0-9, '-', '.')", name);
	} else if (kt_base64_decode(kt_view_str(value), &bytes, &err) == KT_OK) {
		(void)put_secret(session, namespace_of(session), name, key, kt_buf_view(&bytes), &err);
	}
	/* The request holds the value: it goes now (the allocator wipes it). */
	(void)json_object_del(session->request, "value");
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_admin_retry_failed(session->keeper);
	kt_rotate_kick(session->keeper);
	kt_session_end(session, 0, NULL);
}

static bool list_secret(const struct kt_store_secret *secret, void *arg)
{
	kt_session_row(arg, json_pack("{s:s,s:s,s:s,s:s,s:o}", "namespace", secret->ns, "name", secret->name, "key",
	                              secret->key, "source", secret->source == KT_SECRET_MANIFEST ? "manifest" : "command",
	                              "updated", kt_admin_time(secret->updated)));
	return true;
}

void kt_command_secret_list(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_store_secret_each(session->keeper->store, kt_session_arg(session, "namespace"), NULL, list_secret, session,
	                         &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, 0, NULL);
}

void kt_command_secret_rm(struct kt_session *session)
{
	struct kt_store *store = session->keeper->store;
	const char *name = kt_session_arg(session, "name");
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	if (name == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "secret rm needs a name");
		kt_session_fail(session, &err);
		return;
	}
	code = kt_store_begin(store, &err);
	if (code == KT_OK) {
		code = kt_store_secret_delete(store, namespace_of(session), name, kt_session_arg(session, "key"), &err);
		if (code == KT_OK) {
			code = audit_command(session, "secret.removed", namespace_of(session), name,
			                     kt_session_arg(session, "key"), &err);
		}
		code = kt_store_end(store, code, &err);
	}
	if (code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, 0, NULL);
}

/* --- master key, walls, reload ------------------------------------------------------------------------------------------ */

void kt_command_master_key(struct kt_session *session)
{
	struct kt_keeper *keeper = session->keeper;
	const struct kt_master_key *settings = &keeper->agent->agent.master_key;
	uint64_t count = 0;
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	if (settings->credential != NULL || settings->command.count > 0 || keeper->master_given) {
		(void)kt_err_set(&err, KT_E_UNSUPPORTED,
		                 "the master key does not come from a file: put the new one where the old one comes from");
		kt_session_fail(session, &err);
		return;
	}
	if (keeper->flight_count > 0) { /* nothing may be sealed under the old key meanwhile */
		(void)kt_err_set(&err, KT_E_LATER, "credentials are being rotated: try again in a moment");
		kt_session_fail(session, &err);
		return;
	}
	code = kt_keys_rotate_file(keeper->store, keeper->keys, settings->file, &count, &err);
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, &err);
	}
	if (code == KT_OK) {
		code = audit_command(session, "master-key.rotated", NULL, NULL, NULL, &err);
		code = kt_store_end(keeper->store, code, &err);
	}
	if (code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, 0, json_pack("{s:I}", "resealed", (json_int_t)count));
}

void kt_command_walls(struct kt_session *session)
{
	const struct kt_sandbox_report *walls = &session->keeper->ctx->walls;

	kt_session_end(session, 0,
	               json_pack("{s:b,s:b,s:b,s:b,s:i,s:b}", "noNewPrivs", walls->no_new_privs, "noCore", walls->no_core,
	                         "capsDropped", walls->caps_dropped, "seccomp", walls->seccomp, "landlockABI",
	                         walls->landlock_abi, "lockedMemory", kt_secret_locked()));
}

static void on_reloaded(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_keeper *keeper = arg;
	struct kt_session *session;

	(void)type;
	(void)msg;
	(void)fds;
	(void)fd_count;
	for (session = keeper->sessions; session != NULL; session = session->next) {
		const char *command = session->request != NULL ? kt_session_arg(session, "command") : NULL;

		if (session->ended || command == NULL || strcmp(command, "reload") != 0) {
			continue;
		}
		if (why->code != KT_OK) {
			kt_session_fail(session, why);
		} else {
			kt_session_end(session, 0, json_pack("{s:i}", "generation", (int)keeper->generation));
		}
	}
}

void kt_command_reload(struct kt_session *session)
{
	struct kt_msg_reload msg = {kt_json_bool(session->request, "exec", false)};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_wire_call(session->keeper->ctx->warden, KT_RELOAD, &msg, NULL, 0, 60 * KT_SECOND, on_reloaded,
	                 session->keeper, &err) != KT_OK) {
		kt_session_fail(session, &err);
	}
}
