/*
 * What the courier does for an ACME issuer beside orders (work on accounts, revocations) while it does it, and the
 * signatures that it asks for, for these and for orders. A key signs only for URLs of the issuer's own origin.
 */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/acme.h"
#include "keeper/budget.h"

#define JOB_TIMEOUT (5 * KT_MINUTE + 30 * KT_SECOND) /* the courier gives up after five minutes by itself */
#define JOBS_MAX    64u

/* --- the table ------------------------------------------------------------------------------------------------------------ */

enum kt_code kt_acme_job_create(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_acme_job_fn *done,
                                struct kt_session *session, struct kt_acme_job **ret, struct kt_err *err)
{
	struct kt_acme_job *job;
	unsigned count = 0;

	for (job = keeper->acme_jobs; job != NULL; job = job->next) {
		count++;
	}
	if (count >= JOBS_MAX) {
		return kt_err_set(err, KT_E_BUSY, "too many accounts and revocations are in work already");
	}
	job = kt_calloc(1, sizeof(*job));
	if (job == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for work on an account");
	}
	job->keeper = keeper;
	job->issuer = entry;
	job->id = ++keeper->next_job;
	job->done = done;
	job->session = session;
	job->next = keeper->acme_jobs;
	keeper->acme_jobs = job;
	*ret = job;
	return KT_OK;
}

void kt_acme_job_destroy(struct kt_acme_job *job)
{
	struct kt_acme_job **at;

	if (job == NULL) {
		return;
	}
	for (at = &job->keeper->acme_jobs; *at != NULL; at = &(*at)->next) {
		if (*at == job) {
			*at = job->next;
			break;
		}
	}
	kt_wire_forget(job->keeper->courier, job);
	kt_pki_key_destroy(job->key);
	kt_pki_key_destroy(job->next_key);
	json_decref(job->directory);
	kt_free(job);
}

struct kt_acme_job *kt_acme_job_find(struct kt_keeper *keeper, uint64_t id)
{
	struct kt_acme_job *job = keeper->acme_jobs;

	while (job != NULL && job->id != id) {
		job = job->next;
	}
	return job;
}

bool kt_acme_job_uses(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry)
{
	const struct kt_acme_job *job;

	for (job = keeper->acme_jobs; job != NULL; job = job->next) {
		if (job->issuer == entry) {
			return true;
		}
	}
	return false;
}

void kt_acme_jobs_leave(struct kt_keeper *keeper, const struct kt_session *session)
{
	struct kt_acme_job *job;

	for (job = keeper->acme_jobs; job != NULL; job = job->next) {
		if (job->session == session) {
			job->session = NULL;
		}
	}
}

void kt_acme_jobs_finish(struct kt_keeper *keeper)
{
	while (keeper->acme_jobs != NULL) {
		kt_acme_job_destroy(keeper->acme_jobs);
	}
}

/* Orders that wait for the account look at it again; err: why they can't go on. */
static void wake_orders(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const struct kt_err *err)
{
	struct kt_flight *flight;

	for (flight = keeper->flights; flight != NULL; flight = flight->next) {
		if (flight->waiting && flight->again && flight->job == 0 && flight->stage == KT_FLIGHT_OBTAIN &&
		    flight->issuer != NULL && flight->waiting_for[0] == '\0' && strcmp(flight->issuer->ref, entry->ref) == 0) {
			kt_rotate_wake(flight, err);
		}
	}
}

/* --- to the courier and back -------------------------------------------------------------------------------------------- */

static void on_answer(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_acme_job *job = arg;
	struct kt_keeper *keeper = job->keeper;
	struct kt_issuer_entry *entry = job->issuer;
	bool exclusive = job->exclusive, settles = job->settles;
	struct kt_err err = *why;

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && type != KT_ACME_ACCOUNT_DONE && type != KT_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	} else if (err.code != KT_OK) {
		kt_acme_explain(entry, &err);
	}
	if (err.code == KT_E_TIMEOUT) {
		struct kt_msg_cancel cancel = {job->id};

		(void)kt_wire_notice(keeper->courier, KT_CANCEL, &cancel, NULL, 0, NULL);
	}
	job->done(job, &err, err.code == KT_OK && type == KT_ACME_ACCOUNT_DONE ? msg : NULL);
	entry->used_at = kt_clock_mono(keeper->clock);
	kt_acme_job_destroy(job);
	if (exclusive) {
		wake_orders(keeper, entry, settles && entry->account_moves && err.code != KT_OK ? &err : NULL);
	}
}

/* Sends a message once `issuer`, a member of it, says with whom; the job ends where that can't be done. */
static enum kt_code send_job(struct kt_acme_job *job, enum kt_msg_type type, const void *msg, struct kt_view *issuer,
                             struct kt_err *err)
{
	struct kt_buf json KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&json, 65536);
	code = kt_acme_issuer_json(job->keeper, job->issuer, &json, err);
	*issuer = kt_buf_view(&json);
	if (code == KT_OK) {
		code = kt_wire_call(kt_keeper_courier(job->keeper), type, msg, NULL, 0, JOB_TIMEOUT, on_answer, job, err);
	}
	if (code != KT_OK) {
		kt_acme_job_destroy(job);
	}
	return code;
}

static struct kt_view fresh_trace(struct kt_keeper *keeper, char out[56])
{
	char trace[33];

	return kt_view_str(kt_keeper_traceparent(kt_audit_trace_id(kt_keeper_now(keeper), trace), out));
}

enum kt_code kt_acme_job_account(struct kt_acme_job *job, const char *op, const char *email, struct kt_err *err)
{
	char traceparent[56];
	struct kt_msg_acme_account msg = {.job = job->id,
	                                  .op = kt_view_str(op),
	                                  .account_url = kt_view_str(job->promotes && !job->settles ? "" : job->issuer->account_url),
	                                  .email = kt_view_str(email != NULL ? email : ""),
	                                  .traceparent = fresh_trace(job->keeper, traceparent)};

	return send_job(job, KT_ACME_ACCOUNT, &msg, &msg.issuer, err);
}

enum kt_code kt_acme_job_revoke(struct kt_acme_job *job, struct kt_view certificate, bool by_key, struct kt_err *err)
{
	char traceparent[56];
	struct kt_msg_acme_revoke msg = {.job = job->id,
	                                 .account_url = kt_view_str(by_key ? "" : job->issuer->account_url),
	                                 .certificate = certificate,
	                                 .reason = job->reason,
	                                 .traceparent = fresh_trace(job->keeper, traceparent)};

	return send_job(job, KT_ACME_REVOKE, &msg, &msg.issuer, err);
}

/* --- a change of the key that was cut off ------------------------------------------------------------------------------- */

bool kt_acme_is_held(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry)
{
	const struct kt_acme_job *job;

	for (job = keeper->acme_jobs; job != NULL; job = job->next) {
		if (job->exclusive && strcmp(job->issuer->ref, entry->ref) == 0) {
			return true;
		}
	}
	return false;
}

enum kt_code kt_acme_settled(struct kt_acme_job *job, const struct kt_err *why, struct kt_err *err)
{
	struct kt_issuer_entry *entry = job->issuer;

	if (why->code == KT_OK) { /* the CA takes the new key's signature for this account */
		kt_log(KT_LOG_INFO, "%s: the CA knows the new account key, it is in force", entry->ref);
		return kt_acme_next_promote(job->keeper, entry, job->key, entry->account_url, NULL, err);
	}
	if (why->code == KT_E_DENIED || why->code == KT_E_AUTH || why->code == KT_E_INVALID || why->code == KT_E_NOTFOUND) {
		kt_log(KT_LOG_INFO, "%s: the CA does not know the new account key, the old one stays", entry->ref);
		return kt_acme_next_drop(job->keeper, entry, err);
	}
	*err = *why;
	return kt_err_prefix(err, "%s: finding out which account key the CA knows", entry->ref);
}

enum kt_code kt_acme_settle(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_acme_job_fn *done,
                            struct kt_session *session, struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_acme_job *job;
	enum kt_code code;

	if (entry->account_url[0] == '\0') { /* it would have been the first account: a key that nobody else knows */
		return kt_acme_next_drop(keeper, entry, err);
	}
	code = kt_acme_next_load(keeper, entry, &key, err);
	if (code == KT_E_NOTFOUND) {
		kt_err_clear(err);
		entry->account_moves = false;
		return KT_OK;
	}
	if (code == KT_OK) {
		code = kt_acme_job_create(keeper, entry, done, session, &job, err);
	}
	if (code != KT_OK) {
		return code;
	}
	job->key = key;
	key = NULL;
	job->exclusive = job->settles = job->promotes = true;
	return kt_acme_job_account(job, "show", NULL, err);
}

static void on_settled(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_err err;

	(void)answer;
	kt_err_clear(&err);
	if (kt_acme_settled(job, why, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "the account can't be used yet");
	}
}

enum kt_code kt_acme_hold(struct kt_keeper *keeper, struct kt_issuer_entry *entry, bool *ret, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	*ret = kt_acme_is_held(keeper, entry);
	if (!*ret && entry->account_moves) {
		code = kt_acme_settle(keeper, entry, on_settled, NULL, err);
		*ret = code == KT_OK && kt_acme_is_held(keeper, entry);
	}
	return code;
}

/* --- signatures --------------------------------------------------------------------------------------------------------------- */

/* Whose job it is, and what signs for it. */
struct signer {
	struct kt_issuer_entry *issuer;
	const struct kt_key *key;
	struct kt_acme_job *job; /* NULL: an order's */
	struct kt_flight *flight; /* ... of this one */
};

static enum kt_code find_signer(struct kt_keeper *keeper, uint64_t id, struct kt_view url, struct signer *ret,
                                struct kt_err *err)
{
	struct kt_flight *flight;

	*ret = (struct signer){0};
	ret->job = kt_acme_job_find(keeper, id);
	if (ret->job != NULL) {
		ret->issuer = ret->job->issuer;
		ret->key = ret->job->key != NULL ? ret->job->key : ret->issuer->signing_key;
	} else {
		flight = kt_acme_flight(keeper, id, err);
		if (flight == NULL) {
			return KT_E_CANCELLED;
		}
		ret->issuer = flight->issuer;
		ret->key = flight->issuer->signing_key;
		ret->flight = flight;
	}
	if (ret->key == NULL) {
		return kt_err_set(err, KT_E_CANCELLED, "%s has no account key at hand", ret->issuer->ref);
	}
	if (!kt_acme_same_origin(url, kt_view_str(ret->issuer->spec->issuer.acme->server))) {
		return kt_err_set(err, KT_E_POLICY, "the account of %s signs nothing for %.*s", ret->issuer->ref,
		                  (int)(url.len < 200 ? url.len : 200), url.ptr);
	}
	return KT_OK;
}

static void answer_jws(struct kt_wire_in *in, const struct kt_buf *jws, const struct kt_err *err)
{
	struct kt_msg_acme_signed answer;

	if (err->code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, err);
		return;
	}
	answer.jws = kt_buf_view(jws);
	kt_wire_reply(in->wire, in->id, KT_ACME_SIGNED, &answer, NULL, 0);
}

void kt_acme_on_sign(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_sign *ask = in->msg;
	struct kt_buf jws KT_AUTOBUF = {0};
	char *nonce KT_AUTOFREE = kt_strndup(ask->nonce.ptr, ask->nonce.len);
	char *url KT_AUTOFREE = kt_strndup(ask->url.ptr, ask->url.len);
	struct kt_jws_header header = {.nonce = nonce, .url = url};
	struct signer signer;
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&jws, 131072);
	if (nonce == NULL || url == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a signature");
	} else if (find_signer(arg, ask->job, ask->url, &signer, &err) == KT_OK &&
	           kt_budget_request(arg, signer.issuer, signer.flight, ask->payload, ask->by_jwk, &err) == KT_OK) {
		header.kid = ask->by_jwk ? NULL : signer.issuer->account_url;
		(void)kt_jose_jws_acme(signer.key, &header, ask->payload, &jws, &err);
	}
	answer_jws(in, &jws, &err);
}

/* The MAC key as CAs hand it out: base64url, with or without padding, perhaps with a newline. */
static enum kt_code mac_key(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_buf *out,
                            struct kt_err *err)
{
	const struct kt_acme_eab *eab = entry->spec->issuer.acme->eab;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_view text;
	enum kt_code code = kt_issuers_secret(keeper, entry->spec->meta.ns, eab->key.name, eab->key.key, &secret, err);

	if (code != KT_OK) {
		return code;
	}
	text = kt_secret_view(secret);
	while (text.len > 0 && strchr("=\r\n \t", text.ptr[text.len - 1]) != NULL) {
		text.len--;
	}
	code = kt_base64url_decode(text, out, NULL);
	return code == KT_OK ? KT_OK
	                     : kt_err_set(err, KT_E_INVALID, "%s: the key of externalAccountBinding in secret %s is no base64url",
	                                  entry->ref, eab->key.name);
}

/* RFC 8555 section 7.3.4: over the account's public key, by the key that the CA gave. */
static enum kt_code bind_account(struct kt_keeper *keeper, const struct signer *signer, const char *url,
                                 struct kt_buf *out, struct kt_err *err)
{
	static const enum kt_jose_mac macs[] = {
	        [KT_EAB_HS256] = KT_JOSE_HS256, [KT_EAB_HS384] = KT_JOSE_HS384, [KT_EAB_HS512] = KT_JOSE_HS512};
	const struct kt_acme_eab *eab = signer->issuer->spec->issuer.acme->eab;
	struct kt_buf key KT_AUTOBUF = {0};
	struct kt_buf jwk KT_AUTOBUF = {0};
	enum kt_code code;

	if (eab == NULL) {
		return kt_err_set(err, KT_E_POLICY, "%s has no externalAccountBinding", signer->issuer->ref);
	}
	kt_buf_init(&key, 4096);
	kt_buf_init(&jwk, 8192);
	code = mac_key(keeper, signer->issuer, &key, err);
	if (code == KT_OK) {
		code = kt_jose_jwk(signer->key, &jwk, err);
	}
	if (code == KT_OK) {
		code = kt_jose_jws_mac(macs[eab->alg], kt_buf_view(&key), eab->key_id, url, kt_buf_view(&jwk), out, err);
	}
	return code;
}

/* RFC 8555 section 7.3.5: by the new key, over the account's URL and the old key. */
static enum kt_code roll_over(const struct signer *signer, const char *url, struct kt_buf *out, struct kt_err *err)
{
	struct kt_jws_header header = {.url = url};
	struct kt_buf payload KT_AUTOBUF = {0};
	enum kt_code code;

	if (signer->job == NULL || signer->job->next_key == NULL) {
		return kt_err_set(err, KT_E_POLICY, "nobody asked for a new account key of %s", signer->issuer->ref);
	}
	kt_buf_init(&payload, 16384);
	kt_buf_adds(&payload, "{\"account\":");
	kt_buf_add_json(&payload, kt_view_str(signer->issuer->account_url));
	kt_buf_adds(&payload, ",\"oldKey\":");
	code = kt_jose_jwk(signer->key, &payload, err);
	kt_buf_addc(&payload, '}');
	if (code == KT_OK) {
		code = kt_buf_check(&payload, "roll-over", err);
	}
	return code == KT_OK ? kt_jose_jws_acme(signer->job->next_key, &header, kt_buf_view(&payload), out, err) : code;
}

void kt_acme_on_inner(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_inner *ask = in->msg;
	struct kt_buf jws KT_AUTOBUF = {0};
	char *url KT_AUTOFREE = kt_strndup(ask->url.ptr, ask->url.len);
	struct signer signer;
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&jws, 131072);
	if (url == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a signature");
	} else if (find_signer(arg, ask->job, ask->url, &signer, &err) != KT_OK) {
		/* said */
	} else if (kt_view_eq_str(ask->what, "eab")) {
		(void)bind_account(arg, &signer, url, &jws, &err);
	} else if (kt_view_eq_str(ask->what, "rollover")) {
		(void)roll_over(&signer, url, &jws, &err);
	} else {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier wants an unknown signature");
	}
	answer_jws(in, &jws, &err);
}
