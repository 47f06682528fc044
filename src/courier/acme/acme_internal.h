/* What the files of the ACME client share: servers, accounts and jobs. */
#ifndef KT_COURIER_ACME_INTERNAL_H
#define KT_COURIER_ACME_INTERNAL_H

#include "courier/acme/acme.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/pki.h"

#define ACME_NONCES_MAX    32u
#define ACME_NONCE_LEN_MAX 512u
#define ACME_NAMES_MAX     1000u
#define ACME_NONCE_TRIES   5u /* refused nonces in a row for one request; then the keeper's plan decides */
#define ACME_ALTERNATES_MAX 8u
#define ACME_SERVER_TRIES  2u /* 500s in a row for one request; likewise */
#define ACME_JOB_TIME      (5 * KT_MINUTE)
#define ACME_POLL_FIRST    ((kt_ms)3)
#define ACME_EARLY_LOOKS   6u /* polls that come before the time that Retry-After asks for; 189 ms in all at first */
#define ACME_PACE_STREAK   4u /* first looks that were not in vain before the next ones come earlier */
#define ACME_POLL_MAX      ((kt_ms)2000)
#define ACME_SIGN_AHEAD    ((kt_ms)50) /* a look that comes so soon is signed while it is waited for */
#define ACME_KEEPER_TIME   (60 * KT_SECOND)
#define ACME_PRESENT_TIME  (15 * KT_MINUTE) /* a record may take long to be seen everywhere */

struct acme_job;

/* An issuer's account at a server: at most one newAccount is under way for it. */
struct acme_account {
	struct acme_account *next;
	uint8_t hash[KT_SHA256_LEN]; /* of the issuer's JSON */
	enum { ACME_ACCOUNT_UNKNOWN, ACME_ACCOUNT_CREATING, ACME_ACCOUNT_READY } state;
	uint32_t epoch; /* counts registrations, so that a stale complaint doesn't cause another */
};

/* What a server offers (RFC 8555 section 7.1.1; renewalInfo: RFC 9773). */
struct acme_directory {
	char *new_nonce, *new_account, *new_order;
	char *revoke_cert, *key_change, *renewal_info; /* NULL: not offered */
	bool binding_required;                         /* externalAccountRequired */
	json_t *object;                                /* as it came */
};

/* A directory and what all jobs of a server share. */
/* When the first look after a question comes: learned from how long the server took before. */
struct acme_pace {
	kt_ms first; /* 0: ACME_POLL_FIRST */
	unsigned streak;
};

struct acme_server {
	struct kt_acme *acme;
	struct acme_server *next;
	uint8_t hash[KT_SHA256_LEN]; /* of directory URL, CA bundle and skipTLSVerify */
	char *url, *ca_bundle;
	bool insecure;
	struct acme_directory directory;
	bool has_directory;
	bool slow; /* looking early was in vain here: Retry-After is obeyed at once */
	struct acme_pace pace[2]; /* of validations, and of certificates */
	kt_ms read_at;
	struct kt_http_call *call;       /* the directory being read */
	struct acme_job *queue, *flying; /* lists by ->next */
	unsigned flights, flights_max;
	struct acme_account *accounts;
	char *nonces[ACME_NONCES_MAX];
	unsigned nonce_count;
	struct kt_timer *idle;
	struct kt_timer *kick; /* starts queued jobs from the loop, not from within another job's end */
};

struct acme_name {
	char *type;
	char *value;
	bool seen; /* in the order */
};

/* A challenge as the CA offers it. */
struct acme_challenge {
	char *type;
	char *url;
	char *offer; /* JSON for the keeper: {"type", "token"?, "issuer-domain-names"?} */
	bool pending;
};

#define ACME_CHALLENGES_MAX 16u
#define ACME_LOOKS_AGAIN    3u /* for a CA that found nothing and leaves the challenge open (RFC 8555 section 8.2) */
#define ACME_PRESENTING_MAX 8u  /* questions to the keeper at once, of one job */

struct acme_authz {
	struct acme_job *job;
	char *url;
	char *identifier;
	bool wildcard;
	struct acme_challenge *offered;
	size_t offered_count;
	const struct acme_challenge *chosen; /* NULL: the authorization is valid already, or not presented yet */
	bool asked;                          /* the keeper may have something to take back */
	bool told;
	unsigned retries; /* times that the CA was asked to look again */
};

/* What the server said to a request of ours. */
struct acme_answer {
	const struct kt_http_reply *http;
	json_t *json; /* NULL when the body isn't JSON; borrowed */
};

/* err->code KT_OK: a 2xx answer. */
typedef void acme_answered_fn(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer);
typedef void acme_step_fn(struct acme_job *job);
typedef void acme_inner_fn(struct acme_job *job, struct kt_view jws);

/* The request that is under way, kept so that it can be signed again with another nonce. */
struct acme_post {
	char *url;
	struct kt_buf payload;
	struct kt_buf jws; /* signed, and held back until the job's hold is over */
	bool by_jwk;
	bool repeatable; /* may be sent again when the connection broke */
	bool pem;        /* the answer is a chain, not JSON */
	unsigned nonce_tries, server_tries;
	acme_answered_fn *answered;
};

enum acme_kind { ACME_ORDER, ACME_MANAGE, ACME_REVOKE, ACME_INFO };

struct acme_job {
	enum acme_kind kind;
	struct kt_acme *acme;
	struct acme_server *server;
	struct acme_account *account;
	struct acme_job *next;
	uint64_t id;
	uint32_t reply_to;
	bool flying;
	kt_ms started; /* monotonic; see acme_job_restart_clock */
	kt_ms allowed; /* until the deadline, when that was set */

	/* what the keeper asked for */
	char *email;
	bool terms_agreed;
	bool binds;         /* the issuer has an external account binding */
	bool account_known; /* or, for a revocation, none is needed */
	char *account_url;  /* "" until it is known */
	char *profile, *preferred_chain, *replaces; /* NULL: not asked for */
	struct acme_name *names;
	size_t name_count;
	struct kt_buf csr;
	kt_ms not_before, not_after;
	char traceparent[KT_TRACE_MAX + 1];

	/* where it stands */
	char *order_url, *finalize_url, *cert_url;
	bool resumed; /* order_url came from the keeper */
	bool inherited; /* ... and its challenges may have been told to the CA while nobody answered them */
	bool reregistered;
	bool finalized;
	uint32_t account_epoch;
	struct acme_authz *authzs;
	size_t authz_count, authz_at;
	unsigned presenting; /* answers that the keeper is about to present */
	kt_ms poll_next;
	kt_ms hold; /* the request is signed now, and sent at this time (monotonic); 0: not held back */
	unsigned early; /* looks before the time that Retry-After asked for, since the last step */
	int64_t poll_wait; /* seconds that the answers to our challenges asked for */
	unsigned flips;    /* polls that went backwards */
	json_t *new_order; /* the order just placed, while its URL is being committed */
	struct kt_buf chain;
	char *alternates[ACME_ALTERNATES_MAX]; /* URLs of other chains */
	unsigned alternate_count, alternate_at;
	bool replaces_dropped;
	bool check_public;

	/* other work than orders: manage.c */
	char *op, *new_email, *cert_id;
	uint32_t reason;
	struct kt_buf result;  /* JSON for the keeper */
	int64_t info_start, info_end, info_retry_after;
	char *explanation;

	/* the one thing under way */
	struct kt_http_call *call;
	struct kt_timer *pause;
	acme_step_fn *after_pause;
	acme_step_fn *after_keeper;
	acme_inner_fn *after_inner;
	struct acme_post post;
	struct kt_timer *deadline;
	const char *step; /* for errors: "order", "authorization", ... */
};

struct kt_acme {
	struct kt_courier *courier;
	struct acme_server *servers;
	unsigned jobs;
};

/* --- job.c ------------------------------------------------------------------------------------------------------ */
/* Both end the job: the caller returns at once and doesn't touch it again. err is copied before anything is freed. */
void acme_job_fail(struct acme_job *job, const struct kt_err *err);
void acme_job_failf(struct acme_job *job, enum kt_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void acme_job_done(struct acme_job *job);
/* A job that belongs to nobody yet, and what every kind takes from the keeper's request; see kt_acme_handle. */
struct acme_job *acme_job_create(struct kt_wire_in *in, struct kt_courier *courier, enum acme_kind kind, uint64_t id,
				 struct kt_err *err);
enum kt_code acme_job_take_issuer(struct acme_job *job, struct kt_view issuer, struct kt_err *err);
void acme_job_trace(struct acme_job *job, struct kt_view traceparent);
void acme_job_enqueue(struct acme_job *job);
void acme_job_destroy(struct acme_job *job);
/* Calls step after delay ms. */
void acme_job_pause(struct acme_job *job, kt_ms delay, acme_step_fn *step);
/* From now on the job may take ACME_JOB_TIME, and more: waiting for DNS is not held against the CA. */
void acme_job_restart_clock(struct acme_job *job, kt_ms more);
/* Has the keeper make a JWS that goes into another ("eab", "rollover"); then is called with it, or the job fails. */
void acme_job_inner(struct acme_job *job, const char *what, const char *url, acme_inner_fn *fn);
/* Has the keeper commit a fact, then goes on with step. */
void acme_job_save(struct acme_job *job, const char *what, const char *value, acme_step_fn *step);

/* --- server.c --------------------------------------------------------------------------------------------------- */
struct acme_server *acme_server_get(struct kt_acme *acme, const char *url, const char *ca_bundle, bool insecure,
				    struct kt_err *err);
struct acme_account *acme_account_get(struct acme_server *server, struct kt_view issuer, struct kt_err *err);
void acme_server_destroy(struct acme_server *server);
/* Puts a job in the queue / takes it off; starts what may start. */
void acme_server_add(struct acme_server *server, struct acme_job *job);
void acme_server_remove(struct acme_server *server, struct acme_job *job);
/* Has the directory read (once for all jobs), then acme_account_step for each job in flight that waits for it. */
void acme_server_directory(struct acme_server *server, struct acme_job *job);
/* True when text is a URL of the directory's origin. */
bool acme_server_owns(const struct acme_server *server, const char *text);
/* Keeps the nonce of an answer, if it has a good one. */
void acme_server_take_nonce(struct acme_server *server, const struct kt_http_reply *reply);
char *acme_server_nonce(struct acme_server *server); /* NULL when none is left; kt_free it */
void acme_server_forget_nonces(struct acme_server *server);
bool acme_nonce_ok(const char *text);
/* Checks a directory; *ret is set on success only. */
enum kt_code acme_directory_parse(json_t *object, const char *url, struct acme_directory *ret, struct kt_err *err);
void acme_directory_finish(struct acme_directory *directory);
/* Whether the directory lists the profile; those that it lists, for an error, into out. */
bool acme_directory_profile(const struct acme_directory *directory, const char *profile, struct kt_buf *out);
/* The directory is there: the first step of a job by its kind. */
void acme_job_begin(struct acme_job *job);

/* --- account.c, order.c, authz.c, finalize.c, manage.c: the steps ----------------------------------------------------------- */
void acme_account_step(struct acme_job *job);
/* The server does not know the account: registers anew (once a job) and starts over. */
void acme_account_lost(struct acme_job *job, const struct kt_err *err);
/* A job ends: if it was the one that registers the account, those that wait share its error, or (cancelled) one takes
 * over. */
void acme_account_abandoned(struct acme_job *job, const struct kt_err *err);
void acme_order_step(struct acme_job *job);
void acme_manage_step(struct acme_job *job);
void acme_revoke_step(struct acme_job *job);
void acme_info_step(struct acme_job *job);
void acme_order_poll(struct acme_job *job);
/* A new wait begins: the next poll comes soon, those after it ever later. */
void acme_order_wait(struct acme_job *job);
/* Polls the order after the next pause, or when Retry-After (seconds, 0: none) says. */
void acme_order_poll_later(struct acme_job *job, int64_t retry_after);
/* The order is of no use any more: what is known of it goes, and the answers to its challenges are taken back. */
void acme_order_forget(struct acme_job *job);
/* The CA could not validate: fails the job, or gives up an order that was inherited, once, for a new one. */
void acme_order_refused(struct acme_job *job, const struct kt_err *err);
/* Judges an order object: goes on by its status. */
void acme_order_judge(struct acme_job *job, const struct acme_answer *answer);
void acme_authz_step(struct acme_job *job);
/* The order failed: finds out which challenge failed and why, then fails the job. */
void acme_authz_explain(struct acme_job *job);
/* Has the keeper take back every answer; its replies are of no interest. */
void acme_authzs_withdraw(struct acme_job *job);
void acme_authzs_clear(struct acme_job *job);
bool acme_token_ok(const char *token);
void acme_finalize_step(struct acme_job *job);
void acme_download_step(struct acme_job *job);
/* Whether the chain that was taken verifies against the system's roots. */
bool acme_chain_is_public(const struct acme_job *job);

/* --- post.c ------------------------------------------------------------------------------------------------------ */
enum { ACME_POST_JWK = 1, ACME_POST_REPEAT = 2, ACME_POST_PEM = 4 };
/* Signs (through the keeper) and sends payload ("" for POST-as-GET); nonces, 5xx and broken connections are dealt with.
 */
void acme_post(struct acme_job *job, const char *url, struct kt_view payload, int flags, acme_answered_fn *answered);
void acme_post_finish(struct acme_job *job);

/* --- problem.c -----------------------------------------------------------------------------------------------------
 */
/* Turns a problem document (or its absence) and a status into an error with everything a person needs, bounded. */
enum kt_code acme_problem(json_t *problem, long status, int64_t retry_after, struct kt_err *err);
/* True when err is the ACME problem of this short name ("badNonce"). */
bool acme_problem_is(const struct kt_err *err, const char *name);

#endif
