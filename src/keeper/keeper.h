/* The keeper's own surface: what its files share. Store, plan, keys, deliver and audit have headers of their own. */
#ifndef KEEPER_KEEPER_H
#define KEEPER_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/loop.h"
#include "kt/manifest.h"
#include "kt/pki.h"
#include "kt/room.h"
#include "kt/wire.h"
#include "keeper/audit/audit.h"
#include "keeper/deliver/deliver.h"
#include "keeper/keys/keys.h"
#include "keeper/plan/plan.h"
#include "keeper/store/store.h"

/*
 * A walk through the keeper.
 *
 * Everything durable is a row in the store; nothing that grows with the number of credentials stays in memory. A
 * timer waits for the earliest due_at. When it fires, a *round* (rotate.c) loads up to FLIGHTS_MAX due credentials as
 * *flights* and drives them: in one transaction every flight that is ready takes its database steps until it comes
 * to an effect outside; after the commit the effects run: a key made in the pool, files written, a question to the
 * courier or the warden. An effect that ends at once makes the flight ready for the next round, which follows
 * immediately; one that waits for another room makes it ready when the answer comes. A kill -9 at any point leaves
 * rows from which the same flight begins again at its last committed step.
 *
 * What differs between a certificate and a token stands behind struct kt_issuer_ops (issuers.c). A flight ends with
 * the switch of its volumes; what consumers still have to do is in the task queue (tasks.c): notify, prove, roll back.
 */

#define KT_FLIGHTS_MAX 256u
#define KT_DUE_BATCH   4096u
#define KT_STASH_MAX   512u
#define KT_STASH_BATCH 128u

/* A flag of ours among KT_CRED_*: formats, owners or Consumers changed, the material is to be delivered again. */
#define KT_CRED_REDELIVER 0x100u
/* The material in place was refused by a consumer: the previous one is to be put back. */
#define KT_CRED_ROLL_BACK 0x200u
/* The next try is made at another issuer, at once: commands wait for it. */
#define KT_CRED_ELSEWHERE 0x1000u

struct kt_keeper;
struct kt_flight;

/* How far an effect got. */
enum kt_effect { KT_EFFECT_DONE, KT_EFFECT_PENDING, KT_EFFECT_FAILED };

/* An issuer resource, decoded and with what is costly to make; kept in a small cache (issuers.c). */
struct kt_issuer_entry {
	struct kt_issuer_entry *next;
	int64_t id;         /* resource id */
	int64_t generation; /* of the resource when it was loaded */
	struct kt_resource *spec;
	const struct kt_issuer_ops *ops;
	char ref[600];              /* "Issuer/ns/name" */
	struct kt_issuer *ca;       /* ca issuer, prepared; NULL until needed */
	struct kt_key *signing_key; /* local token issuer: the key that signs now; acme: the account's; oauth2: the client's */
	char read_from[KT_SHA256_HEX]; /* oauth2: fingerprint of the text that signing_key was read from */
	char kid[64];
	kt_ms signing_until;        /* local token issuer: look for another key then */
	char account_url[2048];     /* acme; "" until registered */
	bool staging;               /* acme: the same issuer at its staging server (fallback.h) */
	bool account_off;           /* ... deactivated by command */
	bool account_moves;         /* ... a new key is stored that the CA may know or not (acme.h) */
	char *ca_pem;               /* what goes into ca.crt */
	char *chain_pem;            /* the CA's own certificate and intermediates */
	kt_ms used_at;
};

/* One kind of issuer: a row of the table in issuers.c. */
struct kt_issuer_ops {
	const char *name;  /* for people and the audit: "ca", "acme" */
	bool makes_tokens;
	bool remote;       /* asks the courier: the flight's key and step are committed before obtain */
	/*
	 * Gets the certificate or token for a flight whose key (if any) is there. DONE: flight->got is filled. PENDING: the
	 * flight is made ready by kt_rotate_wake. FAILED: err says why.
	 */
	enum kt_effect (*obtain)(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err);
	/* What the issuer has to write down when that is committed; in the transaction. NULL: nothing. */
	enum kt_code (*obtained)(struct kt_flight *flight, struct kt_err *err);
};

/* What an issuer gave; owned by the flight. */
struct kt_obtained {
	char *chain_pem; /* leaf and intermediates */
	char *ca_pem;    /* NULL: none */
	struct kt_secret *token;
	char token_type[32];
	char scope[1024];
	char serial[128]; /* or the token's id */
	char sha256[72];
	kt_ms not_before;
	kt_ms not_after;
	bool public;           /* acme, where the issuer has fallbacks: the system's roots know the chain */
	bool replaces_dropped; /* acme: the CA refused `replaces` */
};

/* Which effect a flight is at; when it has ended, kt_flight_commit writes down what was done and chooses the next. */
enum kt_flight_stage {
	KT_FLIGHT_BEGIN,    /* decide by the plan */
	KT_FLIGHT_KEY,      /* effect: make the key (and, where nobody else is asked, the certificate) */
	KT_FLIGHT_OBTAIN,   /* effect: ask the issuer */
	KT_FLIGHT_STAGE,    /* effect: write the generations */
	KT_FLIGHT_VALIDATE, /* effect: consumers look at the candidate */
	KT_FLIGHT_SWITCH,   /* effect: one rename a volume */
	KT_FLIGHT_RECHECK,  /* effect: validation after the switch, where it could not be had before */
	KT_FLIGHT_RETIRE,   /* effect: remove what nobody needs any more */
	KT_FLIGHT_END
};

struct kt_flight {
	struct kt_flight *next, *previous;
	struct kt_flight *next_ready, *next_by_id, *next_by_job; /* rotate.c's lists */
	bool queued; /* on the list of ready ones */
	struct kt_share *share; /* of its issuer; NULL: it asks none */
	struct kt_keeper *keeper;
	int64_t id;   /* of resource and credential */
	uint64_t job; /* names the flight to the courier; 0: none */
	enum kt_flight_stage stage;
	bool waiting;   /* an effect is pending */
	bool again;     /* ... and is to be called again when it has ended, not taken as done */
	bool failed;    /* err is to be committed */
	bool fresh_row; /* material not inserted yet */
	bool redelivery; /* material is the active one: no new revision */
	bool rollback;   /* material is the previous one */
	bool alone;      /* was in work when the keeper died, more than once: nothing flies beside it */
	bool retrial;    /* material was rolled back before: failures go on counting */
	bool validated;
	bool recheck;
	bool withdraw; /* retire: take the whole secret off the disk (expired token) */
	bool holds_volume; /* works on a volume that is made of several secrets: the others' flights wait */
	bool waits_volume; /* ... for the end of one that does */
	bool roll_back; /* what is in place was refused while it did something else: put back when that is done */
	bool forced;   /* renew --force came while it did something else: issue when that is done */
	char refused[33]; /* the token in force was refused meanwhile (refused.h): the trace of that; else "" */
	struct kt_err err;

	struct kt_store_resource resource;
	struct kt_store_cred cred;
	struct kt_store_material material; /* the candidate; texts owned by mem or by `got` */
	struct kt_resource *spec;
	struct kt_issuer_entry *issuer;
	struct kt_plan plan;
	char trace_id[33];
	char error_text[768];
	char secret_name[256];

	struct kt_key *key;
	struct kt_obtained got;
	struct kt_buf sealed_key, sealed_token;
	char dir[KT_GENERATION_MAX];
	char previous_dir[KT_GENERATION_MAX];
	char order_url[2048];
	char cert_url[2048];
	char cookie[1120]; /* acme: JSON of the candidate, as its row has it; token: type and scope */
	uint64_t counted_job;   /* budget.c: what was counted of this job already */
	unsigned counted;
	kt_ms held_until;       /* ... and until when its CA's limits hold it back, 0: they did not */
	bool ordered_replacing; /* the order names the certificate that it replaces */
	bool by_fallback;       /* fallback.c: issuer is not the one that the manifest names */
	bool rehearsing;        /* issuer is its staging server: what comes of it is thrown away */
	bool rehearsed;         /* that was tried */
	bool rehearsal_failed;
	struct kt_issuer_entry *real, *staging; /* both, once it is rehearsed */
	bool resumed_order; /* the courier goes on with order_url */
	unsigned saves, challenges; /* times that the courier asked for these in this job */

	int64_t *consumers; /* resource ids of the Consumers of this secret */
	size_t consumer_count;
	size_t next_hook_consumer;
	size_t next_hook;
	char waiting_for[520]; /* "ns/secretName" of a CA, Certificate or Token that has to come first */

	/* oauth/: a token in work */
	char request_hash[65];  /* what is asked for, where others may share the answer; "" where not */
	int64_t follows;        /* the flight whose answer is this one's too; 0: none */
	unsigned followers;
	char bound_to[72];      /* SHA-256 of the certificate that was shown */
	kt_ms sent_at;          /* when the request began whose answer this is: a life in seconds counts from there */
	unsigned asked;         /* questions of the courier in this job */
	unsigned refresh_at;    /* which of the refresh tokens that are kept is tried */
	bool refresh_saved;     /* the server gave another in its place */
	struct kt_secret *trying; /* client/: a client's id and secret, at the token endpoint now */
	char client_id[128];      /* a Token: the client that asks for it, where a ClientCredential names it */
	char client_other[128];   /* the server's id of a secret that is being taken away, or of a key */
	char client_kid[64];      /* ... and the kid of that key */
	bool client_take;         /* ... which is the new one: kept, not taken away */
	unsigned client_phase, client_index, client_gone;
	bool retire_first; /* RETIRE, before what is due is begun */
	bool client_begun; /* nothing can have been sent for the candidate before this flight */
	int64_t revoking, revoked; /* materials: the one that is being revoked, the last one that was */
	unsigned revoke_tries, revoked_count;
};

/* A stream to a command (admin.c). */
struct kt_session;

struct kt_keeper {
	struct kt_room_ctx *ctx;
	struct kt_loop *loop;
	const struct kt_clock *clock;
	enum kt_run_mode mode;
	uint32_t generation; /* the warden's number of the manifest set */
	char *state_dir;
	char *secrets_dir;
	char *socket_path;
	struct kt_resource *agent; /* kind Agent, decoded; NULL: defaults */
	bool needs_pkcs12; /* some Certificate wants a key store, or a Watch reads one */
	bool tokens_depend; /* some Token is made of, or bound to, another secret of ours */

	struct kt_store *store;
	struct kt_keys *keys;
	bool master_given; /* the master key came from systemd or a command: not ours to replace */
	struct kt_volume_root *root;
	struct kt_volume_policy volume_policy; /* its gid: secretsGroup of the settings, for all volumes */
	mode_t secrets_mode;                   /* of files with keys and tokens; 0: 0600 */

	struct kt_wire *courier;
	struct kt_wire *desk;
	struct kt_timer *gone; /* a room's wire ended: time for a fresh end to come */
	bool courier_asked, desk_asked;

	/* rotate.c */
	struct kt_flight *flights, *last_flight;
	struct kt_flight *ready, *ready_last; /* those whose effect has ended; some may have become busy again */
	struct kt_flight *by_id[KT_FLIGHTS_MAX], *by_job[KT_FLIGHTS_MAX]; /* chained by the remainder */
	unsigned flight_count;
	bool look; /* something may have become due since it was asked */
	bool passed_over;   /* not all of them became flights: those that end make room */
	bool dates_changed; /* a flight ended: the next due time may be another */
	int64_t *due; /* ids that wait for a place among the flights, up to KT_DUE_BATCH; NULL when idle */
	size_t due_at, due_count;
	struct kt_share *shares; /* share.h */
	kt_ms shares_look_at;    /* monotonic */
	struct kt_key **stash; /* effect.c: keys made ahead, up to KT_STASH_MAX; NULL when idle */
	unsigned stash_count;
	bool stash_making;
	struct kt_timer *round_timer;
	struct kt_wall_timer *due_timer;
	bool rotating; /* the agent always; a one-shot only for renew */
	bool round_planned;
	bool died; /* the agent before this one was not ended in order */
	bool draining; /* quit.c: nothing new is begun, what is in flight ends */
	char *quit_token; /* path of the token that /quit needs over a listener; NULL: there is none */
	struct kt_timer *quit_timer;
	kt_ms quit_deadline; /* monotonic */
	struct kt_timer *head_timer; /* head.c */
	int64_t head_told;           /* newest record whose hash has gone out; 0: none */
	kt_ms head_at;               /* monotonic */
	bool was_ready; /* pages.c: ready at least once since the start */
	bool ending;
	unsigned commit_failures;
	kt_ms commit_delay;
	kt_ms look_again; /* wall time; 0: nothing due was passed over */
	kt_ms looked_at, tasks_looked_at; /* wall time: what was due by then has been seen */
	struct kt_issuer_entry *issuers;
	uint64_t next_job;
	kt_ms ledger_pruned; /* budget.c */
	struct kt_acme_job *acme_jobs; /* acme_job.c */
	struct kt_info_asks *infos;    /* renewal_info.c */
	struct kt_answer *answers; /* solve/answers.c */
	struct kt_timer *answer_timer;

	/* tasks.c */
	struct kt_task_run *tasks;
	unsigned task_count;

	struct kt_watched *watched; /* watched.c */
	unsigned watched_count;

	/* sweep.c */
	struct kt_timer *sweep_timer;
	int64_t sweep_after;
	bool swept;     /* every volume was looked at since the start */
	kt_ms swept_at; /* when the walk under way began */

	struct kt_sandbox_path *box_paths;
	unsigned box_path_count;

	struct kt_owner *owners; /* owners.c: names that the warden has looked up */
	struct kt_token_ask *token_asks; /* token_ask.c: those that wait for such a name */
	kt_ms aws_refused_at;            /* aws/ask.c: monotonic, when that was logged; 0: never */
	struct kt_stranger *strangers;   /* token_ask.c: users that asked for what is not theirs, of late */
	struct kt_session *sessions;
	uint64_t rotations; /* since the start, for metrics */
	uint64_t failures;
	kt_ms started_at;
	struct kt_timer *trim_timer;
};

/* What the keeper's main runs. */
extern const struct kt_room_ops kt_keeper_ops;

/* --- keeper.c: life ---------------------------------------------------------------------------------------------- */

kt_ms kt_keeper_now(const struct kt_keeper *keeper);
/* The wire to a room; asks the warden to start it when it is not there yet. Requests wait in the wire meanwhile. */
struct kt_wire *kt_keeper_courier(struct kt_keeper *keeper);
struct kt_wire *kt_keeper_desk(struct kt_keeper *keeper);
/* "00-<trace id>-<fresh span id>-01" into out (56 bytes). */
char *kt_keeper_traceparent(const char *trace_id, char out[56]);

/* Whether resources of this kind have a life that is planned: Certificate, Token, ClientCredential, Watch. */
bool kt_keeper_rotates(const char *kind);

/* --- load.c: manifests into the store ---------------------------------------------------------------------------- */

/* Reads a bundle into the store as the new set, in one transaction; refused whole with every complaint in err->what (the
 * first) and in *report. */
enum kt_code kt_load_bundle(struct kt_keeper *keeper, int fd, struct kt_err *err);
/* Decodes a stored resource. *ret: kt_resource_destroy. */
enum kt_code kt_load_spec(const struct kt_store_resource *row, struct kt_resource **ret, struct kt_err *err);
/* The name of each secret that a Consumer uses, as often as it names it. */
void kt_load_each_consumed(const struct kt_consumer_spec *consumer, void (*fn)(const char *secret, void *arg), void *arg);
/* The name of each secret that a Consumer uses, as often as it names it. */
void kt_load_each_consumed(const struct kt_consumer_spec *consumer, void (*fn)(const char *secret, void *arg), void *arg);

/* --- spec.c: manifests as pki, plan and deliver want them --------------------------------------------------------- */

/* Borrows from list. */
static inline struct kt_strs kt_spec_strs(const struct kt_strings *list)
{
	return (struct kt_strs){(const char *const *)list->items, list->count};
}
/* A kt_cert_request with the arrays it borrows. */
struct kt_spec_request {
	struct kt_cert_request request;
	struct kt_cert_attr *attrs;
	struct kt_cert_other_name *others;
};
/* Dates and URLs are the issuer's to fill in. Borrows from spec. */
enum kt_code kt_spec_request_init(const struct kt_certificate_spec *spec, struct kt_spec_request *ret,
                                  struct kt_err *err);
void kt_spec_request_finish(struct kt_spec_request *request);
/* Windows are parsed into memory of the policy: kt_spec_policy_finish. */
struct kt_spec_policy {
	struct kt_plan_policy plan;
	struct kt_plan_window *windows;
	struct kt_zone **zones;
	size_t count;
};
enum kt_code kt_spec_policy_init(const struct kt_resource *spec, struct kt_spec_policy *ret, struct kt_err *err);
void kt_spec_policy_finish(struct kt_spec_policy *policy);
/* Hex SHA-256 of what makes a new issue necessary. out: 65 bytes. Empty for other kinds. */
enum kt_code kt_spec_request_key(const struct kt_resource *spec, char out[65], struct kt_err *err);
const char *kt_spec_secret_name(const struct kt_resource *spec);
kt_ms kt_spec_duration(const struct kt_resource *spec);

/* --- rotate.c: the pipeline ---------------------------------------------------------------------------------------- */

enum kt_code kt_rotate_start(struct kt_keeper *keeper, struct kt_err *err);
/* From now on what is due is done. */
void kt_rotate_go(struct kt_keeper *keeper);
void kt_rotate_finish(struct kt_keeper *keeper);
/* Something may be due: a round follows at once. */
void kt_rotate_kick(struct kt_keeper *keeper);
/* The store refused a commit: nothing goes on for a while, longer each time. */
void kt_rotate_not_written(struct kt_keeper *keeper);
/* A pending effect of the flight has ended: code KT_OK, or failed with *err. */
void kt_rotate_wake(struct kt_flight *flight, const struct kt_err *err);
struct kt_flight *kt_rotate_find(struct kt_keeper *keeper, int64_t id);
/* Adds an audit record with the flight's resource, trace and revision filled in. In a transaction. */
enum kt_code kt_flight_audit(struct kt_flight *flight, struct kt_audit_event *event, struct kt_err *err);
/* The plan of a credential as it stands, without doing anything. policy and spec as decoded. */
enum kt_code kt_rotate_plan(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, const struct kt_resource *spec, bool quick,
                            struct kt_plan *ret, struct kt_err *err);
/* Puts the previous material of a credential back in place (a consumer gave a wrong answer). In a transaction. */
enum kt_code kt_rotate_roll_back(struct kt_keeper *keeper, int64_t credential, const char *reason,
                                 struct kt_err *err);

/* --- publish.c: flights' volumes ---------------------------------------------------------------------------------- */

/*
 * A volume that is made of several secrets is worked on by one flight at a time, because each composes it of its own
 * set and of what is in force of the others. *ret: another one does; the flight is woken when that has ended.
 */
enum kt_code kt_publish_must_wait(struct kt_flight *flight, bool *ret, struct kt_err *err);
/* PENDING while the warden looks up an owner; the flight is woken and asks again. */
enum kt_effect kt_publish_stage(struct kt_flight *flight, struct kt_err *err);
enum kt_code kt_publish_switch(struct kt_flight *flight, struct kt_err *err);
enum kt_code kt_publish_retire(struct kt_flight *flight, struct kt_err *err);
/* Lines "staged\tlive\n" for a Consumer's validation. */
enum kt_code kt_publish_binds(struct kt_flight *flight, const struct kt_resource *consumer, struct kt_buf *out,
                              struct kt_err *err);
/* Looks whether what is served is as it should be (stat only), for the sweep. */
enum kt_code kt_publish_check(struct kt_keeper *keeper, int64_t id, bool *ret_drifted, struct kt_err *err);
/* "<secretsDir>/<ns>/<secretName>" of a credential into out. */
void kt_publish_path(const struct kt_keeper *keeper, const char *ns, const char *secret_name, char *out, size_t size);

/* --- owners.c: users and groups as numbers ------------------------------------------------------------------------- */

/* uid and gid of names for a flight's volume; where no group is named, secretsGroup of the settings. KT_E_BUSY: the warden has
 * been asked, come again when the flight is woken. */
enum kt_code kt_owners_of_flight(struct kt_flight *flight, const char *user, const char *group, uid_t *uid, gid_t *gid,
                                 struct kt_err *err);
/*
 * uid of a user, or gid of a group (the other one is ""), by what the warden knows. KT_E_BUSY: it has been asked, and `known`
 * is called when it has answered; KT_E_NOTFOUND: it knows nobody of that name.
 */
enum kt_code kt_owners_find(struct kt_keeper *keeper, const char *user, const char *group,
                              void (*known)(struct kt_keeper *keeper), uid_t *ret_uid, gid_t *ret_gid, struct kt_err *err);
void kt_owners_finish(struct kt_keeper *keeper);

/* --- issuers.c ---------------------------------------------------------------------------------------------------- */

extern const struct kt_issuer_ops kt_issuer_self_signed, kt_issuer_ca, kt_issuer_acme, kt_issuer_oauth2, kt_issuer_local,
        kt_issuer_aws, kt_issuer_client, kt_issuer_client_static, kt_issuer_client_key;

/* The issuer that a Certificate or Token refers to; cached. KT_E_NOTFOUND names what is missing. */
enum kt_code kt_issuers_get(struct kt_keeper *keeper, const struct kt_resource *spec, struct kt_issuer_entry **ret,
                            struct kt_err *err);
void kt_issuers_drop(struct kt_keeper *keeper, bool all); /* not used for 60 s, or all */
/* Reads a key of a Secret: store, then secret volume of a credential, then mounted directory, then systemd credential. */
enum kt_code kt_issuers_secret(struct kt_keeper *keeper, const char *ns, const char *name, const char *key,
                               struct kt_secret **ret, struct kt_err *err);

/* What an issuer does with a chain in PEM: fills flight->got (chain, ca, serial, dates). */
enum kt_code kt_issuers_take_chain(struct kt_flight *flight, struct kt_view chain_pem, struct kt_view ca_pem,
                                   struct kt_err *err);
/* Handlers of the courier's questions; arg: the keeper. */
void kt_acme_on_sign(struct kt_wire_in *in, void *arg);
/* renewal_info.c: asking CAs when they suggest renewal, on a timer of its own. */
enum kt_code kt_renewal_info_start(struct kt_keeper *keeper, struct kt_err *err);
void kt_renewal_info_go(struct kt_keeper *keeper); /* from now on what is due is asked for */
void kt_renewal_info_finish(struct kt_keeper *keeper);
/* The flight's certificate is in force: it is asked for soon. In a transaction. */
enum kt_code kt_renewal_info_begin(struct kt_flight *flight, struct kt_err *err);
/* A command is about this credential: asked for now if it was not yet. In a transaction. */
enum kt_code kt_renewal_info_wish(struct kt_keeper *keeper, int64_t credential, struct kt_err *err);
bool kt_renewal_info_busy(struct kt_keeper *keeper); /* something is asked for, or due to be */
void kt_acme_jobs_finish(struct kt_keeper *keeper); /* acme_job.c */
void kt_acme_on_inner(struct kt_wire_in *in, void *arg);
void kt_acme_on_save(struct kt_wire_in *in, void *arg);
void kt_acme_on_challenge(struct kt_wire_in *in, void *arg);
void kt_oauth_on_client_secret(struct kt_wire_in *in, void *arg);
void kt_oauth_on_assertion(struct kt_wire_in *in, void *arg);
void kt_oauth_on_dpop_proof(struct kt_wire_in *in, void *arg);
void kt_oauth_on_client_key(struct kt_wire_in *in, void *arg);
void kt_oauth_on_save_refresh(struct kt_wire_in *in, void *arg);
void kt_aws_on_request(struct kt_wire_in *in, void *arg);
/* Handler of the desk's question; arg: the keeper. */
void kt_aws_on_ask(struct kt_wire_in *in, void *arg);
/* The flight ends: those that wait for its answer ask by themselves. */
void kt_oauth_forget(struct kt_flight *leader);
/* The flight's secret has come or changed: Tokens that wait for it, or are bound to it, are due. In a transaction. */
enum kt_code kt_oauth_changed(struct kt_flight *flight, struct kt_err *err);
/* The Certificate that a Token is bound to is not the one of this fingerprint any more. */
bool kt_oauth_binding_changed(struct kt_keeper *keeper, const struct kt_resource *spec, const char *bound_to);
/* Before a generation goes: its tokens are revoked where the issuer says so. PENDING: called again by the flight. */
enum kt_effect kt_oauth_revoke_superseded(struct kt_flight *flight);
/*
 * A Consumer's volume holds a Certificate and a Token that is bound to it, and the flight has one without the other: the
 * volume stays as it is until the Token's flight writes both by one rename.
 */
bool kt_oauth_set_incomplete(struct kt_flight *flight, const struct kt_consumer_volume *volume);
/*
 * For `keyturn token NAME --dpop METHOD URL`: the header lines of one call, each with its end, by the key of the Token's
 * material. KT_E_INVALID: it has none.
 */
enum kt_code kt_oauth_headers(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                              const struct kt_store_material *material, const char *method, const char *url,
                              const char *nonce, struct kt_buf *out, struct kt_err *err);
/* Fills in by what the flight's token is named: its jti, or its fingerprint. */
void kt_token_identify(struct kt_flight *flight, const char *jti);
/* The flight of an ACME order that is being worked on; NULL, with an error, when it is not any more. */
struct kt_flight *kt_acme_flight(struct kt_keeper *keeper, uint64_t job, struct kt_err *err);
/* Gives the flight a job of its own, in flight->job. */
void kt_rotate_begin_job(struct kt_flight *flight);
/* The flight that a job names, or NULL. */
struct kt_flight *kt_rotate_find_job(struct kt_keeper *keeper, uint64_t job);
/*
 * The flight's job at the courier, if there is one, is over for us, and what was served for it goes. running: the courier
 * has not answered; it is told that the answer is of no use any more.
 */
void kt_rotate_end_job(struct kt_flight *flight, bool running);
/* The manifests have changed: what asks for something else by now, or is not wanted, is called off and begins anew. */
void kt_rotate_reconsider(struct kt_keeper *keeper);

/* --- solve: answers to challenges -------------------------------------------------------------------------------------- */

/* Takes back all answers of a job, soon. */
void kt_answers_withdraw(struct kt_keeper *keeper, uint64_t job);
/* The desk was started anew. */
void kt_answers_serve_again(struct kt_keeper *keeper);
/* At the start, before the sandbox: removes files that were out when the keeper died, and reads what else there is. */
void kt_answers_clean(struct kt_keeper *keeper);
/* From now on what was left is taken back. */
void kt_answers_go(struct kt_keeper *keeper);
/* Something is being taken back that should not take long. */
bool kt_answers_busy(const struct kt_keeper *keeper);
void kt_answers_finish(struct kt_keeper *keeper);

/* --- jwks.c: keys of embedded token issuers ------------------------------------------------------------------------ */

/*
 * Makes sure that a key signs now and that the next one is published in time; entry->signing_key and kid are set.
 * In a transaction of its own. *ret_next: when to come again (wall ms).
 */
enum kt_code kt_jwks_ensure(struct kt_keeper *keeper, struct kt_issuer_entry *entry, kt_ms *ret_next,
                            struct kt_err *err);
/* Serves key set and metadata on the desk, and writes them where a volume is named. */
enum kt_code kt_jwks_publish(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err);
/* Where a set of keys that is no issuer's is shown: at the path of a URL, or in a volume. */
struct kt_jwks_place {
	const struct kt_publish_jwks *publish;
	const char *url;
	kt_ms max_age;
};
/* keys: public JWKs, comma separated. shown (or NULL) is called with arg when the desk has them: then *ret_pending. */
enum kt_code kt_jwks_show(struct kt_keeper *keeper, const struct kt_jwks_place *place, struct kt_view keys,
                          kt_wire_reply_fn *shown, void *arg, bool *ret_pending, struct kt_err *err);
/* All of them, and clients' keys, again: the desk was started anew. */
void kt_jwks_publish_all(struct kt_keeper *keeper);
/* The entry of an issuer resource itself (not by reference). */
enum kt_code kt_issuers_entry(struct kt_keeper *keeper, const char *kind, const char *ns, const char *name,
                              struct kt_issuer_entry **ret, struct kt_err *err);

/* --- tasks.c: consumers ------------------------------------------------------------------------------------------- */

void kt_tasks_run(struct kt_keeper *keeper); /* starts what is due */
/*
 * Whether a command should wait: a consumer of the credential (0: of any) is tried again before then, and its time is not
 * over yet. One that is late is tried on, but nobody waits for it.
 */
bool kt_tasks_hopeful(struct kt_keeper *keeper, int64_t credential, kt_ms before);
/* Somebody asks for this credential by name: consumers that are late begin anew, and are waited for as at first. */
enum kt_code kt_tasks_renew(struct kt_keeper *keeper, int64_t credential, bool whenever, struct kt_err *err);
/* Those that wait for their window wait no longer. A transaction of its own. (whenever, above: late ones will not wait for it.) */
enum kt_code kt_tasks_hurry(struct kt_keeper *keeper, int64_t credential, int64_t material, struct kt_err *err);
/* Whether all that is left to do for a material waits for windows. */
bool kt_tasks_held(struct kt_keeper *keeper, int64_t material);
bool kt_tasks_is_held(const struct kt_store_task *task);
/* Inserts a task per consumer of a switched material, supersedes older ones; in the caller's transaction. */
enum kt_code kt_tasks_add(struct kt_flight *flight, size_t *ret_count, struct kt_err *err);
void kt_tasks_finish(struct kt_keeper *keeper);

/* --- sweep.c: drift ------------------------------------------------------------------------------------------------ */

enum kt_code kt_sweep_start(struct kt_keeper *keeper, struct kt_err *err);
void kt_sweep_go(struct kt_keeper *keeper);
void kt_sweep_finish(struct kt_keeper *keeper);

/* --- admin.c: commands -------------------------------------------------------------------------------------------- */

/* Whether a command still waits for its last line. */
bool kt_admin_waited_for(const struct kt_keeper *keeper);
/* Whether the command, which is all that this keeper is for, has named others. */
bool kt_admin_passes_over(struct kt_keeper *keeper, const struct kt_flight *flight);
enum kt_code kt_admin_accept(struct kt_keeper *keeper, int fd, uint32_t uid, uint32_t gid, uint32_t pid,
                             struct kt_err *err);
/* Tells sessions that follow along about a step, and lets waiting ones see whether their work is done. */
void kt_admin_event(struct kt_keeper *keeper, const struct kt_audit_event *event);
void kt_admin_progress(struct kt_keeper *keeper);
void kt_admin_finish(struct kt_keeper *keeper);

/* --- head.c: the head of the audit chain, for outside (spec.audit.anchor) ----------------------------------------- */

enum kt_code kt_head_start(struct kt_keeper *keeper, struct kt_err *err);
void kt_head_flush(struct kt_keeper *keeper); /* what has waited for its turn goes out now */
void kt_head_finish(struct kt_keeper *keeper);

/* --- pages.c ------------------------------------------------------------------------------------------------------- */

/* quit.c: the end that somebody asked for. who: for the log. What is in flight is finished first, 10 s long; then the warden
 * ends the agent with status 0. Harmless when it is on its way. */
enum kt_code kt_quit_begin(struct kt_keeper *keeper, const char *who, struct kt_err *err);
void kt_quit_on_command(struct kt_wire_in *in, void *arg); /* handler of KT_COMMAND; arg: the keeper */
void kt_quit_finish(struct kt_keeper *keeper);

void kt_pages_serve(struct kt_wire_in *in, void *arg); /* handler of KT_PAGE; arg: the keeper */
enum kt_code kt_pages_status_json(struct kt_keeper *keeper, struct kt_buf *out, struct kt_err *err);

/* --- audit helper --------------------------------------------------------------------------------------------------- */

/* Appends the event with the flight's names filled in, and tells the sessions. In a transaction. */
enum kt_code kt_keeper_audit(struct kt_keeper *keeper, struct kt_audit_event *event, struct kt_err *err);

#endif
