/* The acme issuer inside the keeper: accounts, the courier's jobs that are no orders, renewal information. */
#ifndef KEEPER_ACME_H
#define KEEPER_ACME_H

#include "kt/json.h"
#include "keeper/keeper.h"

struct kt_session;
struct kt_acme_job;

/* --- acme_account.c: the account's key and URL ------------------------------------------------------------------------- */

/*
 * Loads the account into the entry: key from the store, else from the Secret that the issuer names, else a new one,
 * sealed before its first use. entry->account_off: it was deactivated by command. entry->account_moves: a new key is stored
 * and nobody knows yet whether the CA has it (kt_acme_hold).
 */
enum kt_code kt_acme_account_load(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err);
/* What the CA said of the account: URL ("" forgets it) and status, into the store and all cached entries. */
enum kt_code kt_acme_account_store(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const char *url,
                                   const char *status, struct kt_err *err);

/*
 * A new key for the account, while the old one is in force (RFC 8555 section 7.3.5): make seals it in a row of its own
 * before it is used; promote puts it, with the URL, in the old one's place in one transaction; drop removes it.
 */
enum kt_code kt_acme_next_make(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_key **ret,
                               struct kt_err *err);
enum kt_code kt_acme_next_load(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_key **ret,
                               struct kt_err *err); /* KT_E_NOTFOUND */
enum kt_code kt_acme_next_promote(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const struct kt_key *key,
                                  const char *url, const char *actor, struct kt_err *err);
enum kt_code kt_acme_next_drop(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err);

/* The issuer as the courier wants it (KT_MSG_ACME); adds to out. */
enum kt_code kt_acme_issuer_json(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, struct kt_buf *out,
                                 struct kt_err *err);
/* True when both URLs have the same scheme, host and port. */
bool kt_acme_same_origin(struct kt_view a, struct kt_view b);
/* A record about the issuer itself; actor NULL: "agent". In a transaction. */
enum kt_code kt_acme_audit(struct kt_keeper *keeper, const struct kt_issuer_entry *entry, const char *step,
                           const char *actor, const char *reason, struct kt_err *err);
/* Says how to mend an error that means that the CA has deactivated the account. */
void kt_acme_explain(const struct kt_issuer_entry *entry, struct kt_err *err);

/* --- acme_job.c: work of the courier that is no order ------------------------------------------------------------------- */

/* why->code KT_OK: done; answer is NULL for a revocation. The job is destroyed afterwards. */
typedef void kt_acme_job_fn(struct kt_acme_job *job, const struct kt_err *why,
                            const struct kt_msg_acme_account_done *answer);

struct kt_acme_job {
	struct kt_acme_job *next;
	struct kt_keeper *keeper;
	struct kt_issuer_entry *issuer;
	uint64_t id;
	struct kt_key *key;      /* signs in place of the account's; owned; NULL: the account's */
	struct kt_key *next_key; /* roll-over: makes the inner JWS; owned */
	bool promotes;           /* key becomes the account's when the CA has said yes */
	bool exclusive;          /* orders of the issuer wait for its end */
	bool settles;            /* finds out which key the CA knows */
	kt_acme_job_fn *done;
	struct kt_session *session; /* whom to tell; NULL once that is gone */
	json_t *directory;          /* account show: what came first */
	int64_t credential, material; /* revocation */
	uint32_t reason;
	unsigned saves; /* times that the courier had something saved */
	char actor[32];
};

/* *ret belongs to the table until it has been done; kt_acme_job_destroy when it could not be sent. */
enum kt_code kt_acme_job_create(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_acme_job_fn *done,
                                struct kt_session *session, struct kt_acme_job **ret, struct kt_err *err);
void kt_acme_job_destroy(struct kt_acme_job *job);
/* Both destroy the job when they fail. */
enum kt_code kt_acme_job_account(struct kt_acme_job *job, const char *op, const char *email, struct kt_err *err);
enum kt_code kt_acme_job_revoke(struct kt_acme_job *job, struct kt_view certificate, bool by_key, struct kt_err *err);
struct kt_acme_job *kt_acme_job_find(struct kt_keeper *keeper, uint64_t id);
/* Whether a job of this entry is open: it must not be dropped from the cache. */
bool kt_acme_job_uses(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry);
/* A session ends: its jobs go on without it. */
void kt_acme_jobs_leave(struct kt_keeper *keeper, const struct kt_session *session);
void kt_acme_jobs_finish(struct kt_keeper *keeper);

/*
 * *ret: the account can't be used now, because its key is being changed or a change was cut off by a crash; in the latter
 * case finding out which key the CA knows is begun. Flights in the stage OBTAIN that wait are woken afterwards.
 */
enum kt_code kt_acme_hold(struct kt_keeper *keeper, struct kt_issuer_entry *entry, bool *ret, struct kt_err *err);
/* The same for a command: done is called when it is known (the job's own done; it may be retried then). */
enum kt_code kt_acme_settle(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_acme_job_fn *done,
                            struct kt_session *session, struct kt_err *err);
bool kt_acme_is_held(const struct kt_keeper *keeper, const struct kt_issuer_entry *entry);
/* After settling: what the CA's answer means. KT_OK: one key is in force now. */
enum kt_code kt_acme_settled(struct kt_acme_job *job, const struct kt_err *why, struct kt_err *err);

#endif
