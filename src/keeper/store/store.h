/* The keeper's durable state: one SQLite database, one writer, typed records, group commit. */
#ifndef KEEPER_STORE_STORE_H
#define KEEPER_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"

/*
 * How to use it
 *
 * One thread, one struct kt_store. Reading works at any time. Every write must stand between kt_store_begin and
 * kt_store_commit; many credentials share one transaction (a commit costs an fsync, a row some microseconds). When
 * a write fails (KT_E_EXISTS and KT_E_NOTFOUND apart) the transaction can't be committed any more: kt_store_commit
 * then rolls back and returns the first error.
 *
 * A *_get function fills a record whose texts live in one block owned by the record: call its *_finish. A walk
 * (functions with `fn`) lends the record for the length of the call; fn returns false to stop, and may use the
 * store itself. To write, fill a record with pointers of your own (mem stays NULL). Absent text is NULL when
 * written and "" when read; absent times and ids are 0.
 *
 * Everything sealed (private keys, tokens, secrets) comes and goes as an opaque blob made by keys/; the store
 * never sees it open.
 *
 * Errors: KT_E_SYS (ENOSPC: "disk full"), KT_E_CORRUPT (with what to do), KT_E_BUSY, KT_E_NOTFOUND, KT_E_EXISTS,
 * KT_E_NOMEM, KT_E_LIMIT (a value above 4 MiB), KT_E_INVALID (a write without a transaction, nested begin).
 */
struct kt_store;

/* ---- opening ------------------------------------------------------------------------------------------------ */

struct kt_store_open {
	const char *dir;         /* state directory; made 0700 when absent (not for read_only) */
	bool in_pod;             /* folders above dir may be mount points that others may write to */
	bool read_only;          /* shared lock, no writes, no migration: for status, plan, why, audit */
	int64_t pid;             /* who holds the lock, written into <dir>/lock; 0: getpid() */
	const char *socket_path; /* control socket, written into <dir>/lock; NULL: none */
	const struct kt_clock *clock; /* NULL: the machine's */
};

/* What kt_store_open noticed; the caller logs it. */
enum {
	KT_STORE_IS_NEW = 1,       /* made just now */
	KT_STORE_WAS_UNCLEAN = 2,  /* the last holder did not close it; the quick check passed */
	KT_STORE_NO_ANCHOR = 4,    /* <dir>/anchor was missing: nobody can say whether this is the newest copy */
	KT_STORE_MIGRATED = 8,     /* the schema was brought up to date */
	KT_STORE_CHECK_CUT = 16,   /* the quick check ran out of its time (2 s) without finding anything */
};

/*
 * Takes the lock (OFD lock on <dir>/lock, exclusive or shared, never waits), checks owner and mode of the directory,
 * opens <dir>/state.db, brings the schema up to date and compares with <dir>/anchor.
 *
 * KT_E_BUSY: another agent or command holds it; err names pid and socket (see kt_store_holder). KT_E_NOTFOUND:
 * read_only and nothing there. KT_E_POLICY: others may write the directory. KT_E_UNSUPPORTED: made by a newer
 * keyturn. KT_E_CORRUPT: not a database, damaged, replaced by another one, or an older copy than the anchor knows;
 * whoever restored a backup on purpose removes <dir>/anchor first. *ret is owned by the caller: kt_store_close.
 */
enum kt_code kt_store_open(const struct kt_store_open *options, struct kt_store **ret, struct kt_err *err);

/* Rolls back what is open, checkpoints, releases the lock. NULL is accepted. */
void kt_store_close(struct kt_store *store);

unsigned kt_store_notes(const struct kt_store *store);   /* KT_STORE_* bits */
const char *kt_store_dir(const struct kt_store *store);  /* absolute path */
const uint8_t *kt_store_id(const struct kt_store *store); /* 16 random bytes, made with the store */
bool kt_store_is_read_only(const struct kt_store *store);

/* Who holds the lock of a state directory now: pid 0 when nobody. socket is "" when there is none. */
struct kt_store_holder {
	int64_t pid;
	bool shared; /* a reading command, not an agent */
	char socket[128];
};
enum kt_code kt_store_holder(const char *dir, struct kt_store_holder *ret, struct kt_err *err);

/* Gives back page cache and rarely used statements; call when a burst of work is over. */
void kt_store_trim(struct kt_store *store);

/* ---- transactions ------------------------------------------------------------------------------------------- */

enum kt_code kt_store_begin(struct kt_store *store, struct kt_err *err); /* nested: KT_E_INVALID */
/* After KT_OK everything is on disk. After an error nothing of the transaction is. */
enum kt_code kt_store_commit(struct kt_store *store, struct kt_err *err);
void kt_store_rollback(struct kt_store *store); /* harmless when none is open */
/* How a transaction ends: committed when code is KT_OK, else rolled back and code returned. */
enum kt_code kt_store_end(struct kt_store *store, enum kt_code code, struct kt_err *err);
bool kt_store_in_transaction(const struct kt_store *store);

/* ---- meta: small named texts --------------------------------------------------------------------------------- */

/* fn is called after each commit that holds audit records; NULL: nobody. */
void kt_store_on_audit(struct kt_store *store, void (*fn)(void *arg), void *arg);

/* Names are the caller's own, except those that begin with "kt." KT_E_NOTFOUND when absent; adds to out. */
enum kt_code kt_store_meta_get(struct kt_store *store, const char *name, struct kt_buf *out, struct kt_err *err);
enum kt_code kt_store_meta_set(struct kt_store *store, const char *name, struct kt_view value, struct kt_err *err);

/* ---- resources: the manifest set ----------------------------------------------------------------------------- */

struct kt_store_resource {
	int64_t id;
	const char *kind; /* "Certificate", "Issuer", "Consumer", ... */
	const char *ns;
	const char *name;
	int64_t generation;      /* of the set in which the spec last changed */
	struct kt_view spec;     /* canonical JSON */
	const char *request_key; /* hash over the fields that make a new issue necessary */
	const char *file;
	int64_t line;
	bool gone; /* no longer in the manifests, kept because its credential is */
	void *mem;
};
void kt_store_resource_finish(struct kt_store_resource *resource);

enum kt_store_change {
	KT_STORE_SAME,     /* spec is byte for byte what it was (file and line may have moved) */
	KT_STORE_ADDED,
	KT_STORE_CHANGED,
	KT_STORE_RETURNED, /* was gone; spec may differ too. Its credential is no orphan any more */
};

/* A reference that a resource holds, so that "who uses this issuer / this secret" is one look-up. */
struct kt_store_link {
	const char *rel; /* "issuer", "secret", "consumes", ... : the caller's own words */
	const char *ns;
	const char *name; /* for instance "ClusterIssuer/letsencrypt" or a secretName */
};

/*
 * Replaces the whole set inside the caller's transaction: begin, put each, finish. What was not put is removed by
 * finish; where it has a credential the row stays with gone set, the credential becomes an orphan (nothing due, its
 * files stay). `removed` (may be NULL) hears of each. kt_store_rollback leaves the old set whole.
 */
enum kt_code kt_store_set_begin(struct kt_store *store, int64_t *ret_generation, struct kt_err *err);
/* id, generation and gone of resource are ignored; links may be NULL (left alone when the spec is the same). */
enum kt_code kt_store_set_put(struct kt_store *store, const struct kt_store_resource *resource,
                              const struct kt_store_link *links, size_t link_count, int64_t *ret_id,
                              enum kt_store_change *ret_change, struct kt_err *err);
enum kt_code kt_store_set_finish(struct kt_store *store,
                                 bool (*removed)(const struct kt_store_resource *resource, bool orphan, void *arg),
                                 void *arg, struct kt_err *err);
int64_t kt_store_generation(struct kt_store *store); /* of the newest committed set; 0: none yet */

enum kt_code kt_store_resource_get(struct kt_store *store, int64_t id, struct kt_store_resource *ret,
                                   struct kt_err *err);
/*
 * Inserts a resource that no manifest set has yet, with gone set: give it an orphaned credential in the same transaction,
 * which comes to life when a set brings the resource (KT_STORE_RETURNED). KT_E_EXISTS when there is one of this name.
 */
enum kt_code kt_store_resource_adopt(struct kt_store *store, const struct kt_store_resource *resource, int64_t *ret_id,
                                     struct kt_err *err);
/* Finds gone ones too: see the flag. */
enum kt_code kt_store_resource_find(struct kt_store *store, const char *kind, const char *ns, const char *name,
                                    struct kt_store_resource *ret, struct kt_err *err);
/* In order of ids, those above after_id, at most limit; gone ones are left out. kind NULL: all. */
enum kt_code kt_store_resource_each(struct kt_store *store, const char *kind, int64_t after_id, unsigned limit,
                                    bool (*fn)(const struct kt_store_resource *resource, void *arg), void *arg,
                                    struct kt_err *err);
/* Ids (ascending, above after_id) of the resources that hold such a link. *count: room in, number out. */
enum kt_code kt_store_linked(struct kt_store *store, const struct kt_store_link *link, int64_t after_id, int64_t *ids,
                             size_t *count, struct kt_err *err);
/* All of them, however many; fn returns false to stop. It may change the store, but not these links. */
enum kt_code kt_store_linked_each(struct kt_store *store, const struct kt_store_link *link,
                                  bool (*fn)(int64_t id, void *arg), void *arg, struct kt_err *err);

/* ---- credentials --------------------------------------------------------------------------------------------- */

/* Stored as numbers: append only. */
enum kt_store_kind {
	KT_KIND_CERT = 0,
	KT_KIND_TOKEN = 1,
	KT_KIND_JWKS = 2,
	KT_KIND_BUNDLE = 3,
	KT_KIND_WATCH = 4,
	KT_KIND_CLIENT = 5,
	KT_KIND_COUNT
};

/* The pipeline. Stored as numbers: append only. A step is what has been done last. */
enum kt_step {
	KT_STEP_NEW = 0, /* never issued, nothing begun */
	KT_STEP_DUE = 1,
	KT_STEP_KEYED = 2,
	KT_STEP_ORDERED = 3,
	KT_STEP_OBTAINED = 4,
	KT_STEP_STAGED = 5,
	KT_STEP_VALIDATED = 6,
	KT_STEP_SWITCHED = 7,
	KT_STEP_NOTIFIED = 8,
	KT_STEP_PROVED = 9,
	KT_STEP_RETIRED = 10,     /* at rest: done until due_at */
	KT_STEP_ROLLED_BACK = 11, /* at rest after a rollback */
	KT_STEP_COUNT
};
const char *kt_step_name(enum kt_step step); /* "due", "keyed", ...; "unknown" for others */

enum kt_store_proof { KT_PROOF_NOBODY = 0, KT_PROOF_WAITING = 1, KT_PROOF_PROVED = 2, KT_PROOF_FAILED = 3, KT_PROOF_UPLOADED = 4 };

enum {
	KT_CRED_FORCED = 1, /* renew --force, or a trigger: issue now */
	KT_CRED_ORPHAN = 2, /* its manifest is gone */
	KT_CRED_HELD = 16,  /* its certificate was revoked, and nobody asked for another */
	KT_CRED_FAILED = 8, /* stopped for good: needs a change of manifest or a forced renewal */
};

/* id is the resource's. */
struct kt_store_cred {
	int64_t id;
	enum kt_store_kind kind;
	const char *secret_name;
	enum kt_step step;
	kt_ms step_at;     /* when that step was committed */
	kt_ms due_at;      /* when to look at it next; 0: never. Stays in the past while it is in flight, so that a
	                    * restart finds it */
	kt_ms expiry;      /* not_after of the active material; 0: none */
	int64_t active;    /* material in place */
	int64_t candidate; /* material in flight */
	int64_t revision;  /* highest revision ever used; the next material takes revision + 1 */
	unsigned attempts; /* failures in a row */
	unsigned deaths;   /* begins that no end followed: in flight at so many deaths, and now if it is */
	kt_ms next_try;    /* after a failure: not before */
	enum kt_code error;
	const char *error_text;
	kt_ms error_at;
	const char *trace_id; /* 32 hex digits */
	unsigned flags;       /* KT_CRED_* */
	enum kt_store_proof proof;
	kt_ms delivered_at;
	kt_ms proved_at;
	const char *cookie; /* JSON of the pipeline's own */
	unsigned deliver_failures; /* of delivering what is active again, in a row; 0 after a success */
	kt_ms deliver_at;          /* when the last one ended */
	enum kt_code deliver_error;
	const char *deliver_text;
	void *mem;
};
void kt_store_cred_finish(struct kt_store_cred *cred);

enum kt_code kt_store_cred_get(struct kt_store *store, int64_t id, struct kt_store_cred *ret, struct kt_err *err);
/* The owner of a secret name; the one that is no orphan wins. */
enum kt_code kt_store_cred_find_secret(struct kt_store *store, const char *ns, const char *secret_name,
                                       struct kt_store_cred *ret, struct kt_err *err);
/* Inserts or replaces the row with this id (a resource with the id must exist). */
enum kt_code kt_store_cred_put(struct kt_store *store, const struct kt_store_cred *cred, struct kt_err *err);
/* Removes it with materials and tasks, and the resource too when that is gone. */
enum kt_code kt_store_cred_delete(struct kt_store *store, int64_t id, struct kt_err *err);

/*
 * Ids of the credentials with due_at <= now, the soonest to expire first (one never issued counts as expiring ten
 * minutes after it became due). Includes those in flight. *count: room in, number out. Works on an index alone; with
 * n due it costs n index entries, so take a batch of some hundreds at a time.
 */
enum kt_code kt_store_cred_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count, struct kt_err *err);
/*
 * The same, without those that only wait for one of these issuers (the links that they hold; not more than KT_DUE_BUT_MAX),
 * and: those of one issuer. What is to be delivered again, put back or retired waits for none. Costs more per index entry.
 */
#define KT_DUE_BUT_MAX 8u
enum kt_code kt_store_cred_due_but(struct kt_store *store, kt_ms now, const struct kt_store_link *links, size_t link_count,
                                   int64_t *ids, size_t *count, struct kt_err *err);
enum kt_code kt_store_cred_due_of(struct kt_store *store, kt_ms now, const char *ns, const char *name, int64_t *ids,
                                  size_t *count, struct kt_err *err);
/* Earliest due_at of all that is > after (pass -1 for the very first); 0 when nothing is due ever. One index step. */
enum kt_code kt_store_cred_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err);
/* All that are in the middle of the pipeline have due_at set; this moves due_at of one row without reading it. */
enum kt_code kt_store_cred_wake(struct kt_store *store, int64_t id, kt_ms due_at, unsigned add_flags,
                                struct kt_err *err);

/* Resource and credential together, ORDER BY ns, name, kind, for status. after_*: the last row of the page before, or
 * NULL. ns NULL: all namespaces. Resources without a credential are left out. */
struct kt_store_page {
	const char *ns;
	const char *after_ns;
	const char *after_name;
	const char *after_kind;
	unsigned limit;
};
enum kt_code kt_store_cred_page(struct kt_store *store, const struct kt_store_page *page,
                                bool (*fn)(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                                           void *arg),
                                void *arg, struct kt_err *err);

/* Kept up to date with every put (a read-only store counts them once). Follows the transaction. */
struct kt_store_counts {
	uint64_t step[KT_KIND_COUNT][KT_STEP_COUNT]; /* orphans are left out here and in the next two */
	uint64_t failing[KT_KIND_COUNT];             /* attempts or deliver_failures > 0, or KT_CRED_FAILED */
	uint64_t unpublished[KT_KIND_COUNT];         /* no active material */
	uint64_t orphans;
	uint64_t total; /* all of them */
};
enum kt_code kt_store_counts(struct kt_store *store, struct kt_store_counts *ret, struct kt_err *err);
/* Credentials (no orphans) with 0 < expiry <= limit: for readyz and status --fail-within. */
enum kt_code kt_store_cred_expiring(struct kt_store *store, kt_ms limit, uint64_t *ret, struct kt_err *err);

/* ---- materials: one issued (or half issued) key and certificate, or token ------------------------------------ */

/* Stored as numbers: append only. */
enum kt_material_state {
	KT_MATERIAL_PENDING = 0,
	KT_MATERIAL_CURRENT = 1,
	KT_MATERIAL_PREVIOUS = 2,
	KT_MATERIAL_RETIRED = 3,
	KT_MATERIAL_FAILED = 4,
	KT_MATERIAL_REVOKED = 5, /* by its CA, for us: stays so whatever else becomes of it */
};

struct kt_store_material {
	int64_t id; /* set by insert */
	int64_t credential;
	int64_t revision; /* from 1, never used twice for one credential */
	enum kt_material_state state;
	struct kt_view sealed_key;   /* sealed with part "key" */
	struct kt_view sealed_token; /* sealed with part "token" */
	const char *request_key;     /* of the resource when it was begun */
	struct kt_view csr;          /* DER */
	struct kt_view chain;        /* leaf first, PEM */
	struct kt_view ca;           /* PEM */
	const char *serial;          /* lower-case hex, or the token's jti */
	const char *sha256;          /* lower-case hex of the leaf's DER, or of the token */
	kt_ms not_before;
	kt_ms not_after;
	const char *order_url;
	const char *finalize_url;
	const char *cert_url;
	const char *cookie; /* opaque JSON of the issuer plug-in */
	const char *dir;    /* volume generation directory name */
	kt_ms created;
	kt_ms issued;
	void *mem;
};
void kt_store_material_finish(struct kt_store_material *material);

/* KT_E_EXISTS when that revision of that credential is there already. Sets material->id. */
enum kt_code kt_store_material_insert(struct kt_store *store, struct kt_store_material *material, struct kt_err *err);
/* Writes the whole row with material->id (credential and revision are left alone). */
enum kt_code kt_store_material_put(struct kt_store *store, const struct kt_store_material *material,
                                   struct kt_err *err);
/* The cheap one: state and, when not NULL, the directory name. */
enum kt_code kt_store_material_mark(struct kt_store *store, int64_t id, enum kt_material_state state, const char *dir,
                                    struct kt_err *err);
/* Order URLs and cookie only, when they must be on disk before the next request. NULL: leave that one alone. */
enum kt_code kt_store_material_urls(struct kt_store *store, int64_t id, const char *order_url,
                                    const char *finalize_url, const char *cert_url, const char *cookie,
                                    struct kt_err *err);
enum kt_code kt_store_material_get(struct kt_store *store, int64_t id, struct kt_store_material *ret,
                                   struct kt_err *err);
/* Of one credential, newest revision first, at most limit. */
enum kt_code kt_store_material_each(struct kt_store *store, int64_t credential, unsigned limit,
                                    bool (*fn)(const struct kt_store_material *material, void *arg), void *arg,
                                    struct kt_err *err);
/* Deletes retired and failed ones of a credential, except the newest `keep` of them and what it points to. */
enum kt_code kt_store_material_prune(struct kt_store *store, int64_t credential, unsigned keep, struct kt_err *err);

/* ---- tasks: the durable queue of consumers that must take a material into use -------------------------------- */

/* Stored as numbers: append only. */
enum kt_task_state {
	KT_TASK_PENDING = 0,
	KT_TASK_NOTIFIED = 1,
	KT_TASK_PROVED = 2,
	KT_TASK_FAILED = 3,
	KT_TASK_SUPERSEDED = 4,
	KT_TASK_DELIVERED = 5, /* notified, and nobody proves it */
	KT_TASK_UPLOADED = 6,  /* its targets have taken and shown it; nobody proves that it is in use */
};

struct kt_store_task {
	int64_t id; /* set by insert */
	int64_t material;
	int64_t credential;
	int64_t consumer;     /* resource id */
	const char *consumer_name; /* "ns/name", for status after the consumer is gone */
	enum kt_task_state state;
	int step; /* index of the notifier or proof that is next */
	unsigned attempts;
	kt_ms next_try; /* 0: nothing to do */
	kt_ms created;
	kt_ms updated;
	enum kt_code error;
	const char *error_text;
	const char *seen;
	const char *expected;
	const char *trace_id;
	const char *cookie; /* JSON of the pipeline's own */
	void *mem;
};
void kt_store_task_finish(struct kt_store_task *task);

/* One for each (material, consumer): KT_E_EXISTS otherwise. Sets task->id. */
enum kt_code kt_store_task_insert(struct kt_store *store, struct kt_store_task *task, struct kt_err *err);
enum kt_code kt_store_task_put(struct kt_store *store, const struct kt_store_task *task, struct kt_err *err);
enum kt_code kt_store_task_get(struct kt_store *store, int64_t id, struct kt_store_task *ret, struct kt_err *err);
/* Of one material, in order of creation. */
enum kt_code kt_store_task_each(struct kt_store *store, int64_t material, unsigned limit,
                                bool (*fn)(const struct kt_store_task *task, void *arg), void *arg,
                                struct kt_err *err);
/* Ids with 0 < next_try <= now, longest waiting first. *count: room in, number out. */
enum kt_code kt_store_task_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count, struct kt_err *err);
enum kt_code kt_store_task_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err);
/* Open tasks of the credential with this cookie begin anew at this time, with the next one (NULL: without). */
enum kt_code kt_store_task_renew(struct kt_store *store, int64_t credential, const char *cookie, const char *next,
                                 kt_ms at, struct kt_err *err);
/* Open tasks of the credential with this cookie, or of a consumer, are looked at by this time; all else stays as it is. */
enum kt_code kt_store_task_wake(struct kt_store *store, int64_t credential, const char *cookie, kt_ms at, struct kt_err *err);
enum kt_code kt_store_task_wake_consumer(struct kt_store *store, int64_t consumer, kt_ms at, struct kt_err *err);
/* Open tasks of older materials of the credential become superseded; ret_count may be NULL. */
enum kt_code kt_store_task_supersede(struct kt_store *store, int64_t credential, int64_t newest_material,
                                     unsigned *ret_count, struct kt_err *err);

/* ---- accounts ------------------------------------------------------------------------------------------------ */

struct kt_store_account {
	const char *issuer; /* identity: "ClusterIssuer//letsencrypt"; the sealing name too */
	const char *server_url;
	const char *account_url;
	struct kt_view sealed_key; /* see kt_store_account_seal_id */
	const char *status;
	const char *cookie; /* JSON of the issuer plug-in */
	kt_ms created;
	void *mem;
};
void kt_store_account_finish(struct kt_store_account *account);
/* Key is (issuer, server_url). */
enum kt_code kt_store_account_get(struct kt_store *store, const char *issuer, const char *server_url,
                                  struct kt_store_account *ret, struct kt_err *err);
enum kt_code kt_store_account_put(struct kt_store *store, const struct kt_store_account *account, struct kt_err *err);
enum kt_code kt_store_account_delete(struct kt_store *store, const char *issuer, const char *server_url,
                                     struct kt_err *err);
enum kt_code kt_store_account_each(struct kt_store *store,
                                   bool (*fn)(const struct kt_store_account *account, void *arg), void *arg,
                                   struct kt_err *err);

/* ---- secrets: keyturn secret set, and v1 Secret in manifests ------------------------------------------------- */

enum kt_secret_source { KT_SECRET_COMMAND = 0, KT_SECRET_MANIFEST = 1 };

struct kt_store_secret {
	const char *ns;
	const char *name;
	const char *key;
	struct kt_view sealed; /* see kt_store_secret_seal_id */
	enum kt_secret_source source;
	kt_ms updated;
	void *mem;
};
void kt_store_secret_finish(struct kt_store_secret *secret);
enum kt_code kt_store_secret_get(struct kt_store *store, const char *ns, const char *name, const char *key,
                                 struct kt_store_secret *ret, struct kt_err *err);
enum kt_code kt_store_secret_put(struct kt_store *store, const struct kt_store_secret *secret, struct kt_err *err);
/* key NULL: all keys of that name. KT_E_NOTFOUND when there was none. */
enum kt_code kt_store_secret_delete(struct kt_store *store, const char *ns, const char *name, const char *key,
                                    struct kt_err *err);
/* ORDER BY ns, name, key; ns and name may be NULL (all). sealed is empty here. */
enum kt_code kt_store_secret_each(struct kt_store *store, const char *ns, const char *name,
                                  bool (*fn)(const struct kt_store_secret *secret, void *arg), void *arg,
                                  struct kt_err *err);
/* Drops the secrets of source MANIFEST not written since `before` (a new set was loaded). */
enum kt_code kt_store_secret_drop_stale(struct kt_store *store, kt_ms before, struct kt_err *err);

/* ---- ledger: what was asked of an issuer, so that a restart never burns a rate limit ------------------------- */

/*
 * An entry that takes from a bucket, which is full again at full_at. subject: whom it counts for beside the issuer
 * ("shop.example", a hash of names); "": nobody in particular.
 */
enum kt_code kt_store_ledger_spend(struct kt_store *store, const char *issuer, const char *what, const char *subject,
                                   kt_ms at, const char *outcome, kt_ms full_at, struct kt_err *err);
/* The newest entry of a bucket; both 0 when there is none. One index step. */
enum kt_code kt_store_ledger_newest(struct kt_store *store, const char *issuer, const char *what, const char *subject,
                                    kt_ms *ret_at, kt_ms *ret_full_at, struct kt_err *err);
/* The buckets that are not full at `now`, the longest to go first, at most limit. */
enum kt_code kt_store_ledger_tight(struct kt_store *store, const char *issuer, const char *what, kt_ms now,
                                   unsigned limit,
                                   bool (*fn)(const char *subject, kt_ms at, kt_ms full_at, void *arg), void *arg,
                                   struct kt_err *err);
/* Forgets entries from before `before`, except of buckets that are not full by then. */
enum kt_code kt_store_ledger_prune(struct kt_store *store, kt_ms before, struct kt_err *err);

/* ---- renewal information (RFC 9773) of the material in use ---------------------------------------------------- */

struct kt_store_renewal_info {
	int64_t credential; /* the key */
	int64_t material;   /* what it was asked for: of no use for another */
	kt_ms window_start; /* 0: the server has none */
	kt_ms window_end;
	kt_ms check_at; /* when to ask again; 0: never */
	kt_ms asked_at;
	const char *explanation; /* https URL, or "" */
	void *mem;
};
void kt_store_renewal_info_finish(struct kt_store_renewal_info *info);
enum kt_code kt_store_renewal_info_put(struct kt_store *store, const struct kt_store_renewal_info *info,
                                       struct kt_err *err);
/* KT_E_NOTFOUND when nothing was asked yet. */
enum kt_code kt_store_renewal_info_get(struct kt_store *store, int64_t credential, struct kt_store_renewal_info *ret,
                                       struct kt_err *err);
/* Credentials whose information is due to be asked for; *count in: room, out: found. */
enum kt_code kt_store_renewal_info_due(struct kt_store *store, kt_ms now, int64_t *ids, size_t *count,
                                       struct kt_err *err);
/* The next check after `after`; 0 when there is none. */
enum kt_code kt_store_renewal_info_next_due(struct kt_store *store, kt_ms after, kt_ms *ret, struct kt_err *err);
enum kt_code kt_store_renewal_info_delete(struct kt_store *store, int64_t credential, struct kt_err *err);

/* ---- how issuers fare ------------------------------------------------------------------------------------------ */

struct kt_store_health {
	const char *issuer; /* identity, the key */
	unsigned failures;  /* in a row */
	kt_ms failed_at;
	kt_ms ok_at;
	kt_ms retry_at; /* it asked to be left alone until then; 0: it did not */
	enum kt_code error;
	const char *error_text;
	void *mem;
};
void kt_store_health_finish(struct kt_store_health *health);
enum kt_code kt_store_health_put(struct kt_store *store, const struct kt_store_health *health, struct kt_err *err);
/* KT_E_NOTFOUND when nothing is known. */
enum kt_code kt_store_health_get(struct kt_store *store, const char *issuer, struct kt_store_health *ret,
                                 struct kt_err *err);

/* ---- answers to challenges, until they are taken back: nothing is left behind by a kill ------------------------ */

struct kt_store_challenge {
	int64_t id; /* set by insert */
	int64_t credential;
	const char *issuer; /* identity */
	const char *type;   /* "http-01", "dns-01", "tls-alpn-01" */
	int solver;         /* index in the issuer's solvers when it was chosen */
	const char *name;   /* identifier, without "*." */
	const char *record; /* dns-01: where the TXT record is, after CNAMEs once that is known */
	const char *value;  /* dns-01: its text */
	const char *token;
	const char *config; /* JSON of the solver as it was then, without secrets; http-01: the webroot */
	const char *handle; /* what the provider needs to remove it */
	kt_ms created;
};
enum kt_code kt_store_challenge_insert(struct kt_store *store, struct kt_store_challenge *challenge,
                                       struct kt_err *err);
/* What is known once it was written; NULL leaves a column alone. */
enum kt_code kt_store_challenge_written(struct kt_store *store, int64_t id, const char *record, const char *handle,
                                        struct kt_err *err);
enum kt_code kt_store_challenge_delete(struct kt_store *store, int64_t id, struct kt_err *err);
/* Of one credential (0: of all), oldest first, at most limit. */
enum kt_code kt_store_challenge_each(struct kt_store *store, int64_t credential, unsigned limit,
                                     bool (*fn)(const struct kt_store_challenge *challenge, void *arg), void *arg,
                                     struct kt_err *err);

/* ---- signing keys of embedded token issuers ------------------------------------------------------------------ */

struct kt_store_issuer_key {
	const char *issuer; /* "TokenIssuer/default/local" */
	const char *kid;
	const char *alg;
	struct kt_view sealed_key; /* see kt_store_issuer_key_seal_id */
	struct kt_view public_jwk; /* JSON */
	kt_ms created;
	kt_ms publish_from;
	kt_ms sign_from;
	kt_ms retire_at; /* 0: not yet known */
	void *mem;
};
void kt_store_issuer_key_finish(struct kt_store_issuer_key *key);
/* Key is (issuer, kid); replaces. */
enum kt_code kt_store_issuer_key_put(struct kt_store *store, const struct kt_store_issuer_key *key,
                                     struct kt_err *err);
/* Ordered by sign_from. */
enum kt_code kt_store_issuer_key_each(struct kt_store *store, const char *issuer,
                                      bool (*fn)(const struct kt_store_issuer_key *key, void *arg), void *arg,
                                      struct kt_err *err);
enum kt_code kt_store_issuer_key_delete(struct kt_store *store, const char *issuer, const char *kid,
                                        struct kt_err *err);

/* ---- every sealed column, for a new master key ---------------------------------------------------------------- */

/* What a sealed blob belongs to: bound into it as associated data. Names, not row ids: those are used again. */
struct kt_seal_id {
	const char *table; /* "material", "account", "secret", "issuer_key", "meta" */
	const char *kind;  /* resource kind, or "" */
	const char *ns;
	const char *name;
	const char *part;  /* "key", "token", a secret's key, a kid, ... */
	int64_t revision;  /* of a material; 0 elsewhere */
};
/* Identity of a material's blob: resource's kind, ns, name + revision. part: "key" or "token". */
struct kt_seal_id kt_store_material_seal_id(const struct kt_store_resource *resource, int64_t revision,
                                            const char *part);
/* The others; the texts are borrowed. */
struct kt_seal_id kt_store_account_seal_id(const char *issuer, const char *server_url);
struct kt_seal_id kt_store_secret_seal_id(const char *ns, const char *name, const char *key);
struct kt_seal_id kt_store_issuer_key_seal_id(const char *issuer, const char *kid);

/* Replaces each sealed blob by what fn appends to `fresh` (reset before each). Inside the caller's transaction. */
enum kt_code kt_store_reseal(struct kt_store *store,
                             enum kt_code (*fn)(const struct kt_seal_id *id, struct kt_view old, struct kt_buf *fresh,
                                                void *arg, struct kt_err *err),
                             void *arg, uint64_t *ret_count, struct kt_err *err);

#endif
