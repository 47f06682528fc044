/*
 * The command revoke: the CA is told that the certificate in force must not be trusted any more (RFC 8555 section 7.6).
 * Then it is never put back in place, and a successor with a new key is due at once.
 */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/acme.h"
#include "keeper/admin.h"

/* RFC 5280 section 5.3.1, without removeFromCRL, which takes a certificate off a list. */
static const struct {
	const char *name;
	uint32_t code;
} reasons[] = {
        {"unspecified", 0},         {"keyCompromise", 1},        {"cACompromise", 2},     {"affiliationChanged", 3},
        {"superseded", 4},          {"cessationOfOperation", 5}, {"certificateHold", 6},  {"privilegeWithdrawn", 9},
        {"aACompromise", 10},
};

static enum kt_code reason_of(const char *text, uint32_t *ret, struct kt_err *err)
{
	for (size_t i = 0; text != NULL && i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (strcasecmp(text, reasons[i].name) == 0) {
			*ret = reasons[i].code;
			return KT_OK;
		}
	}
	*ret = 0;
	return text == NULL ? KT_OK
	                    : kt_err_set(err, KT_E_INVALID,
	                                 "--reason %.40s: RFC 5280 has unspecified, keyCompromise, cACompromise, "
	                                 "affiliationChanged, superseded, cessationOfOperation, certificateHold, "
	                                 "privilegeWithdrawn and aACompromise",
	                                 text);
}

static const char *reason_name(uint32_t code)
{
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (reasons[i].code == code) {
			return reasons[i].name;
		}
	}
	return "unspecified";
}

/* --- afterwards --------------------------------------------------------------------------------------------------------- */

static enum kt_code mark(struct kt_acme_job *job, bool renew, const struct kt_store_resource *resource,
                         struct kt_store_cred *cred, const struct kt_store_material *material, struct kt_err *err)
{
	struct kt_keeper *keeper = job->keeper;
	char reason[120], trace[33];
	struct kt_audit_event event = {.trace_id = kt_audit_trace_id(kt_keeper_now(keeper), trace),
	                               .actor = job->actor,
	                               .kind = resource->kind,
	                               .ns = resource->ns,
	                               .name = resource->name,
	                               .step = "revoked",
	                               .outcome = "ok",
	                               .reason = reason,
	                               .serial = material->serial,
	                               .sha256 = material->sha256,
	                               .revision = material->revision,
	                               .not_after = material->not_after,
	                               .issuer = job->issuer->ref,
	                               .server_address = job->issuer->spec->issuer.acme->server};
	enum kt_code code = kt_store_material_mark(keeper->store, material->id, KT_MATERIAL_REVOKED, NULL, err);

	(void)snprintf(reason, sizeof(reason), "%s%s%s", reason_name(job->reason), job->key != NULL ? ", by its own key" : "",
	               renew ? "" : "; nothing takes its place yet");
	if (code == KT_OK) {
		code = kt_keeper_audit(keeper, &event, err);
	}
	if (code == KT_OK && cred->active == material->id && kt_rotate_find(keeper, cred->id) == NULL) {
		if (cred->candidate != 0) { /* it may hold the same key */
			code = kt_store_material_mark(keeper->store, cred->candidate, KT_MATERIAL_FAILED, NULL, err);
			cred->candidate = 0;
		}
		cred->flags = renew ? cred->flags & ~(unsigned)(KT_CRED_HELD | KT_CRED_FAILED) : cred->flags | KT_CRED_HELD;
		if (renew) {
			cred->due_at = kt_keeper_now(keeper);
			cred->next_try = 0;
			cred->attempts = 0;
		}
		code = code == KT_OK ? kt_store_cred_put(keeper->store, cred, err) : code;
	}
	return code;
}

static enum kt_code revoked(struct kt_acme_job *job, bool renew, json_t **ret, struct kt_err *err)
{
	struct kt_store *store = job->keeper->store;
	struct kt_store_resource resource = {0};
	struct kt_store_material material = {0};
	struct kt_store_cred cred = {0};
	enum kt_code code = kt_store_resource_get(store, job->credential, &resource, err);

	if (code == KT_OK) {
		code = kt_store_cred_get(store, job->credential, &cred, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_get(store, job->material, &material, err);
	}
	if (code == KT_OK) {
		code = kt_store_begin(store, err);
	}
	if (code == KT_OK) {
		code = mark(job, renew, &resource, &cred, &material, err);
		code = kt_store_end(store, code, err);
	}
	if (code == KT_OK) {
		*ret = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:b}", "kind", resource.kind, "namespace", resource.ns, "name",
		                 resource.name, "serial", material.serial, "issuer", job->issuer->ref, "reason",
		                 reason_name(job->reason), "revoked", 1);
	}
	kt_store_material_finish(&material);
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	return code;
}

static void on_revoked(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_session *session = job->session;
	bool renew = session == NULL || kt_json_bool(session->request, "renew", true);
	struct kt_err err = *why;
	json_t *row = NULL;

	(void)answer;
	job->session = NULL;
	if (err.code == KT_OK) {
		(void)revoked(job, renew, &row, &err);
	}
	if (session == NULL) {
		if (err.code != KT_OK) {
			kt_log_err(KT_LOG_ERROR, &err, "a revocation");
		}
		json_decref(row);
		kt_rotate_kick(job->keeper);
		return;
	}
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	if (!renew) {
		kt_session_end(session, 0, row);
		return;
	}
	kt_session_row(session, row);
	kt_command_renew(session); /* names of the request: this one; it follows along until the successor is in use */
}

/* --- before ---------------------------------------------------------------------------------------------------------------- */

/* The issuer that gave it, which need not be the one that the manifest names today. */
static enum kt_code issuer_of(struct kt_keeper *keeper, const struct kt_resource *spec,
                              const struct kt_store_material *material, struct kt_issuer_entry **ret, struct kt_err *err)
{
	KT_AUTOJSON json_t *cookie = NULL;
	const char *ref = NULL;

	if (material->cookie[0] != '\0' && kt_json_parse(kt_view_str(material->cookie), 4096, &cookie, NULL) == KT_OK) {
		ref = kt_json_str(cookie, "issuer");
	}
	if (ref != NULL && kt_admin_find_issuer(keeper, ref, ret, NULL) == KT_OK && (*ret)->ops == &kt_issuer_acme) {
		return KT_OK;
	}
	return kt_issuers_get(keeper, spec, ret, err);
}

static enum kt_code own_key(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_material *material, struct kt_key **ret, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(resource, material->revision, "key");
	struct kt_secret *der KT_AUTOSECRET = NULL;
	enum kt_code code = kt_keys_unseal(keeper->keys, &id, material->sealed_key, &der, err);

	return code == KT_OK ? kt_pki_key_from_der(kt_secret_view(der), ret, err) : code;
}

static enum kt_code ask(struct kt_session *session, const struct kt_store_resource *resource,
                        const struct kt_store_material *material, struct kt_issuer_entry *entry, struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	bool by_key = kt_json_bool(session->request, "byKey", false);
	struct kt_acme_job *job = NULL;
	uint32_t reason;
	enum kt_code code = reason_of(kt_session_arg(session, "reason"), &reason, err);

	if (code == KT_OK) {
		code = kt_pki_chain_parse(material->chain, &chain, err);
	}
	if (code == KT_OK && !by_key) {
		code = kt_acme_account_load(session->keeper, entry, err);
	}
	if (code == KT_OK && !by_key && (entry->account_off || entry->account_url[0] == '\0')) {
		code = kt_err_set(err, KT_E_AUTH, "%s has no account to revoke by: --by-key revokes by the certificate's own key",
		                  entry->ref);
	}
	if (code == KT_OK && !by_key && (entry->account_moves || kt_acme_is_held(session->keeper, entry))) {
		code = kt_err_set(err, KT_E_BUSY,
		                  "the key of the account of %s is being changed: see 'keyturn account show', or use --by-key",
		                  entry->ref);
	}
	if (code == KT_OK) {
		code = kt_acme_job_create(session->keeper, entry, on_revoked, session, &job, err);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(job->actor, sizeof(job->actor), "uid:%u", session->uid);
	job->credential = resource->id;
	job->material = material->id;
	job->reason = reason;
	if (by_key) {
		code = own_key(session->keeper, resource, material, &job->key, err);
		if (code != KT_OK) {
			kt_acme_job_destroy(job);
			return code;
		}
	}
	return kt_acme_job_revoke(job, kt_pki_cert_der(kt_pki_chain_at(chain, 0)), by_key, err);
}

static enum kt_code begin(struct kt_session *session, const char *name, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_store_resource resource = {0};
	struct kt_store_material material = {0};
	struct kt_issuer_entry *entry = NULL;
	struct kt_resource *spec = NULL;
	struct kt_store_cred cred = {0};
	enum kt_code code = kt_admin_find(keeper, name, &resource, err);

	if (code == KT_OK) {
		code = kt_store_cred_get(keeper->store, resource.id, &cred, err);
	}
	if (code == KT_OK && cred.kind != KT_KIND_CERT) {
		code = kt_err_set(err, KT_E_INVALID, "%s is a %s: only certificates are revoked", name, resource.kind);
	} else if (code == KT_OK && cred.active == 0) {
		code = kt_err_set(err, KT_E_NOTFOUND, "%s has no certificate in force", name);
	} else if (code == KT_OK && kt_rotate_find(keeper, cred.id) != NULL) {
		code = kt_err_set(err, KT_E_BUSY, "%s is being renewed just now: try again when that is done", name);
	}
	if (code == KT_OK) {
		code = kt_load_spec(&resource, &spec, err);
	}
	if (code == KT_OK) {
		code = kt_store_material_get(keeper->store, cred.active, &material, err);
	}
	if (code == KT_OK) {
		code = issuer_of(keeper, spec, &material, &entry, err);
	}
	if (code == KT_OK && entry->ops != &kt_issuer_acme) {
		code = kt_err_set(err, KT_E_UNSUPPORTED,
		                  "%s: revocation is unsupported: a '%s' issuer keeps no list of what it revoked. 'keyturn renew "
		                  "--force %s' replaces it, a new CA makes it worthless",
		                  entry->ref, entry->ops->name, name);
	}
	if (code == KT_OK) {
		code = ask(session, &resource, &material, entry, err);
	}
	kt_store_material_finish(&material);
	kt_resource_destroy(spec);
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	return code;
}

void kt_command_revoke(struct kt_session *session)
{
	json_t *names = json_object_get(session->request, "names");
	const char *name = json_string_value(json_array_get(names, 0));
	struct kt_err err;

	kt_err_clear(&err);
	if (name == NULL || json_array_size(names) != 1) {
		(void)kt_err_set(&err, KT_E_INVALID, "revoke needs the name of one Certificate");
	} else {
		(void)begin(session, name, &err);
	}
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
	}
}
