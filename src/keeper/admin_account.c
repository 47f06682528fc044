/* The command account: an ACME issuer's account as the server has it, and changes to it. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/acme.h"
#include "keeper/admin.h"

/* --- which issuer --------------------------------------------------------------------------------------------------------- */

static bool is_there(struct kt_keeper *keeper, const char *kind, const char *ns, const char *name)
{
	struct kt_store_resource row;
	bool there = kt_store_resource_find(keeper->store, kind, ns, name, &row, NULL) == KT_OK;

	if (there) {
		there = !row.gone;
		kt_store_resource_finish(&row);
	}
	return there;
}

enum kt_code kt_admin_find_issuer(struct kt_keeper *keeper, const char *text, struct kt_issuer_entry **ret,
                                  struct kt_err *err)
{
	char *copy KT_AUTOFREE = kt_strdup(text);
	char *parts[3] = {copy, NULL, NULL};
	const char *ns = "default", *name = copy;
	bool issuer, cluster;
	int count = 1;
	char *c;

	if (copy == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a name");
	}
	for (c = copy; *c != '\0' && count < 3; c++) {
		if (*c == '/') {
			*c = '\0';
			parts[count++] = c + 1;
		}
	}
	cluster = count > 1 && strcmp(parts[0], "ClusterIssuer") == 0;
	issuer = count > 1 && strcmp(parts[0], "Issuer") == 0;
	name = parts[count - 1];
	if (count == 3 || (count == 2 && !cluster && !issuer)) {
		ns = parts[count - 2];
	}
	if (!cluster && is_there(keeper, "Issuer", ns, name)) {
		if (count == 1 && is_there(keeper, "ClusterIssuer", "", name)) {
			return kt_err_set(err, KT_E_INVALID, "%s is not unique: say Issuer/%s or ClusterIssuer/%s", name, name, name);
		}
		return kt_issuers_entry(keeper, "Issuer", ns, name, ret, err);
	}
	if (!issuer && (count == 1 || cluster) && is_there(keeper, "ClusterIssuer", "", name)) {
		return kt_issuers_entry(keeper, "ClusterIssuer", "", name, ret, err);
	}
	return kt_err_set(err, KT_E_NOTFOUND, "there is no Issuer or ClusterIssuer %s in the manifests", text);
}

/* --- answers ------------------------------------------------------------------------------------------------------------------ */

static json_t *result_of(const struct kt_issuer_entry *entry)
{
	return json_pack("{s:s,s:s,s:s?}", "issuer", entry->ref, "server", entry->spec->issuer.acme->server, "accountURL",
	                 entry->account_url[0] != '\0' ? entry->account_url : NULL);
}

static json_t *parse_body(const struct kt_msg_acme_account_done *answer)
{
	json_t *body = NULL;

	if (answer == NULL || kt_json_parse(answer->body, 65536, &body, NULL) != KT_OK) {
		return NULL;
	}
	return body;
}

/* Of what a directory says only what people ask it for. */
static json_t *directory_of(const json_t *object)
{
	const json_t *meta = json_object_get(object, "meta");
	const json_t *binding = json_object_get(meta, "externalAccountRequired");
	const char *info = kt_json_str(object, "renewalInfo");
	json_t *profiles = json_object_get(meta, "profiles");
	json_t *names = json_object_get(meta, "caaIdentities");

	return json_pack("{s:s?,s:s?,s:b,s:b,s:s?,s:O?,s:O?}", "termsOfService", kt_json_str(meta, "termsOfService"), "website",
	                 kt_json_str(meta, "website"), "externalAccountRequired", json_is_true(binding), "keyChange",
	                 kt_json_str(object, "keyChange") != NULL, "renewalInfo", info, "profiles",
	                 json_is_object(profiles) ? profiles : NULL, "caaIdentities", json_is_array(names) ? names : NULL);
}

static void fail(struct kt_acme_job *job, const struct kt_err *why)
{
	struct kt_err err = *why;

	if (job->session != NULL) {
		(void)kt_err_prefix(&err, "%s", job->issuer->ref);
		kt_session_fail(job->session, &err);
		job->session = NULL;
	}
}

/* The account as the server has it ends the command. */
static void tell(struct kt_acme_job *job, const struct kt_msg_acme_account_done *answer)
{
	json_t *result = result_of(job->issuer);
	json_t *body = parse_body(answer);

	if (result != NULL && body != NULL) {
		(void)json_object_set_new(result, "account", body);
	} else {
		json_decref(body);
	}
	if (result != NULL && job->directory != NULL) {
		(void)json_object_set_new(result, "directory", directory_of(job->directory));
	}
	if (job->session != NULL) {
		kt_session_end(job->session, 0, result);
		job->session = NULL;
	} else {
		json_decref(result);
	}
}

/* A new account or key may be what failed orders wait for. */
static void go_on_with_orders(struct kt_acme_job *job)
{
	kt_admin_retry_failed(job->keeper);
	kt_rotate_kick(job->keeper);
}

static struct kt_acme_job *begin(struct kt_session *session, struct kt_issuer_entry *entry, kt_acme_job_fn *done,
                                 struct kt_err *err)
{
	struct kt_acme_job *job = NULL;

	if (kt_acme_job_create(session->keeper, entry, done, session, &job, err) == KT_OK) {
		(void)snprintf(job->actor, sizeof(job->actor), "uid:%u", session->uid);
	}
	return job;
}

static enum kt_code audit(struct kt_acme_job *job, const char *step, const char *reason, struct kt_err *err)
{
	struct kt_keeper *keeper = job->keeper;
	enum kt_code code = kt_store_begin(keeper->store, err);

	if (code != KT_OK) {
		return code;
	}
	code = kt_acme_audit(keeper, job->issuer, step, job->actor, reason, err);
	return kt_store_end(keeper->store, code, err);
}

/* --- show ------------------------------------------------------------------------------------------------------------------------ */

static void on_shown(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	if (why->code != KT_OK) {
		fail(job, why);
	} else {
		tell(job, answer);
	}
}

static void on_directory(struct kt_acme_job *job, const struct kt_err *why,
                         const struct kt_msg_acme_account_done *answer)
{
	struct kt_session *session = job->session;
	struct kt_acme_job *next;
	struct kt_err err;

	kt_err_clear(&err);
	if (why->code != KT_OK || session == NULL) {
		fail(job, why);
		return;
	}
	job->directory = parse_body(answer);
	if (job->issuer->account_url[0] == '\0') {
		tell(job, NULL);
		return;
	}
	next = begin(session, job->issuer, on_shown, &err);
	if (next != NULL) {
		next->directory = json_incref(job->directory);
	}
	if (next == NULL || kt_acme_job_account(next, "show", NULL, &err) != KT_OK) {
		fail(job, &err);
		return;
	}
	job->session = NULL;
}

/* --- changes ----------------------------------------------------------------------------------------------------------------------- */

static void on_registered(struct kt_acme_job *job, const struct kt_err *why,
                          const struct kt_msg_acme_account_done *answer)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (why->code != KT_OK) {
		if (job->promotes && (why->code == KT_E_DENIED || why->code == KT_E_AUTH || why->code == KT_E_INVALID)) {
			(void)kt_acme_next_drop(job->keeper, job->issuer, &err); /* nobody has it */
		}
		fail(job, why);
		return;
	}
	go_on_with_orders(job);
	tell(job, answer);
}

static void on_updated(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_err err = *why;

	if (err.code == KT_OK) {
		(void)audit(job, "account.updated", NULL, &err);
	}
	if (err.code != KT_OK) {
		fail(job, &err);
	} else {
		tell(job, answer);
	}
}

static void on_deactivated(struct kt_acme_job *job, const struct kt_err *why,
                           const struct kt_msg_acme_account_done *answer)
{
	struct kt_err err = *why;

	if (err.code == KT_OK &&
	    kt_acme_account_store(job->keeper, job->issuer, job->issuer->account_url, "deactivated", &err) == KT_OK) {
		(void)audit(job, "account.deactivated", job->issuer->account_url, &err);
	}
	if (err.code != KT_OK) {
		fail(job, &err);
	} else {
		tell(job, answer);
	}
}

static void on_rolled_over(struct kt_acme_job *job, const struct kt_err *why,
                           const struct kt_msg_acme_account_done *answer)
{
	struct kt_err err = *why, failed;

	kt_err_clear(&failed);
	if (err.code == KT_OK) {
		(void)kt_acme_next_promote(job->keeper, job->issuer, job->next_key, job->issuer->account_url, job->actor, &err);
	} else if (err.code == KT_E_DENIED || err.code == KT_E_AUTH || err.code == KT_E_INVALID ||
	           err.code == KT_E_UNSUPPORTED) {
		(void)kt_acme_next_drop(job->keeper, job->issuer, &failed); /* refused: the old key is in force */
	} /* else nobody knows: the next who needs the account finds out */
	if (err.code != KT_OK) {
		fail(job, &err);
		return;
	}
	tell(job, answer);
}

/* A challenge's answer holds the key's fingerprint: with a new one the CA would look for another. */
static enum kt_code no_orders(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_err *err)
{
	const struct kt_flight *flight;

	for (flight = keeper->flights; flight != NULL; flight = flight->next) {
		if (flight->job != 0 && flight->issuer != NULL && strcmp(flight->issuer->ref, entry->ref) == 0) {
			return kt_err_set(err, KT_E_BUSY, "orders of %s are under way: try again when they are done", entry->ref);
		}
	}
	return KT_OK;
}

static enum kt_code register_account(struct kt_session *session, struct kt_issuer_entry *entry, struct kt_err *err)
{
	bool anew = kt_json_bool(session->request, "newKey", false) || entry->account_off;
	struct kt_acme_job *job;
	enum kt_code code = anew ? no_orders(session->keeper, entry, err) : KT_OK;

	if (code != KT_OK) {
		return code;
	}
	job = begin(session, entry, on_registered, err);
	if (job == NULL) {
		return err->code;
	}
	if (anew) {
		code = kt_acme_next_make(session->keeper, entry, &job->key, err);
		if (code != KT_OK) {
			kt_acme_job_destroy(job);
			return code;
		}
		job->promotes = job->exclusive = true;
	}
	return kt_acme_job_account(job, "register", NULL, err);
}

static enum kt_code roll_over(struct kt_session *session, struct kt_issuer_entry *entry, struct kt_err *err)
{
	struct kt_acme_job *job;
	enum kt_code code = no_orders(session->keeper, entry, err);

	if (code != KT_OK) {
		return code;
	}
	job = begin(session, entry, on_rolled_over, err);
	if (job == NULL) {
		return err->code;
	}
	code = kt_acme_next_make(session->keeper, entry, &job->next_key, err);
	if (code != KT_OK) {
		kt_acme_job_destroy(job);
		return code;
	}
	job->exclusive = true;
	return kt_acme_job_account(job, "rollover", NULL, err);
}

static enum kt_code simple(struct kt_session *session, struct kt_issuer_entry *entry, const char *op,
                           kt_acme_job_fn *done, struct kt_err *err)
{
	struct kt_acme_job *job = begin(session, entry, done, err);

	if (job == NULL) {
		return err->code;
	}
	job->exclusive = done == on_deactivated;
	return kt_acme_job_account(job, op, kt_session_arg(session, "email"), err);
}

static enum kt_code do_op(struct kt_session *session, struct kt_issuer_entry *entry, const char *op, struct kt_err *err)
{
	if (strcmp(op, "show") == 0) {
		return simple(session, entry, "directory", on_directory, err);
	}
	if (strcmp(op, "register") == 0) {
		return register_account(session, entry, err);
	}
	if (entry->account_url[0] == '\0') {
		return kt_err_set(err, KT_E_NOTFOUND, "%s has no account yet: 'keyturn account register %s' makes one", entry->ref,
		                  entry->ref);
	}
	if (entry->account_off) {
		return kt_err_set(err, KT_E_AUTH, "the account of %s was deactivated: 'keyturn account register %s' makes a new one",
		                  entry->ref, entry->ref);
	}
	if (strcmp(op, "update") == 0) {
		return kt_session_arg(session, "email") != NULL
		               ? simple(session, entry, "update", on_updated, err)
		               : kt_err_set(err, KT_E_INVALID, "account update needs --email");
	}
	if (strcmp(op, "deactivate") == 0) {
		return simple(session, entry, "deactivate", on_deactivated, err);
	}
	if (strcmp(op, "rollover") == 0) {
		return roll_over(session, entry, err);
	}
	return kt_err_set(err, KT_E_INVALID, "there is no 'account %.40s'", op);
}

static void on_settled(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_session *session = job->session;
	struct kt_err err;

	(void)answer;
	kt_err_clear(&err);
	if (kt_acme_settled(job, why, &err) != KT_OK) {
		fail(job, &err);
	} else if (session != NULL) {
		job->session = NULL;
		job->exclusive = false; /* what it was exclusive for is known */
		kt_command_account(session);
	}
}

void kt_command_account(struct kt_session *session)
{
	const char *op = kt_session_arg(session, "op"), *name = kt_session_arg(session, "issuer");
	struct kt_issuer_entry *entry = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (op == NULL || name == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "account needs what to do and an issuer");
	} else if (kt_admin_find_issuer(session->keeper, name, &entry, &err) != KT_OK) {
		/* said */
	} else if (entry->ops != &kt_issuer_acme) {
		(void)kt_err_set(&err, KT_E_INVALID, "%s is no acme issuer: it has no account", entry->ref);
	} else if (kt_acme_account_load(session->keeper, entry, &err) != KT_OK) {
		/* said */
	} else if (kt_acme_is_held(session->keeper, entry)) {
		(void)kt_err_set(&err, KT_E_BUSY, "the account of %s is being changed: try again in a moment", entry->ref);
	} else if (entry->account_moves) {
		(void)kt_acme_settle(session->keeper, entry, on_settled, session, &err);
		if (err.code == KT_OK && !kt_acme_is_held(session->keeper, entry)) { /* nothing had to be asked */
			(void)do_op(session, entry, op, &err);
		}
	} else {
		(void)do_op(session, entry, op, &err);
	}
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
	}
}
