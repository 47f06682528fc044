/* The plan: pure functions that say what is due for one credential, when, and why. No I/O, no clock of their own. */
#ifndef KEEPER_PLAN_PLAN_H
#define KEEPER_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/cron.h"
#include "kt/err.h"

/* All times are wall time in ms (kt_ms); 0 means "not known" unless said otherwise. KT_TIME_MAX means "never". */

/* ---- renewal windows ----------------------------------------------------------------------------------------- */

struct kt_plan_window {
	struct kt_cron cron;        /* when it opens */
	kt_ms duration;             /* how long it stays open; > 0 */
	const struct kt_zone *zone; /* borrowed; NULL: UTC */
};
/*
 * Whether `at` lies in a window, and if not, when the next one opens (within five years, else KT_TIME_MAX). Returns
 * `at` when inside (or when count is 0). ret_end (or NULL) gets that window's end.
 */
kt_ms kt_plan_window_next(const struct kt_plan_window *windows, size_t count, kt_ms at, kt_ms *ret_end);
/*
 * When a consumer may be told, from `now` on: in a window, or, where the next one opens too late for what it still uses
 * (valid from `start` to `end`), when a tenth of that life is left, a week at most. As renewal's windows, see kt_plan_decide.
 */
kt_ms kt_plan_window_tell(const struct kt_plan_window *windows, size_t count, kt_ms start, kt_ms end, kt_ms now);

/* ---- policy and state ---------------------------------------------------------------------------------------- */

/* A client's secret ends never: it is rotated by its age. */
enum kt_plan_kind { KT_PLAN_CERTIFICATE, KT_PLAN_TOKEN, KT_PLAN_CLIENT };

/* What the manifest asks for. Zero means default everywhere. */
struct kt_plan_policy {
	enum kt_plan_kind kind;
	kt_ms renew_before;            /* renewBefore */
	int renew_before_percentage;   /* 1..99: renews with that part of the life LEFT */
	kt_ms rotation_interval;       /* of a client's secret */
	kt_ms publish_ahead;           /* of a client's key: shown so long before its first use, so made that much earlier */
	bool renewal_disabled;         /* renewal.policy: Disabled */
	const struct kt_plan_window *windows;
	size_t window_count;
};

/* What is on disk, as kt_volume_check or the pipeline found it. */
enum kt_plan_disk {
	KT_PLAN_DISK_OK = 0,
	KT_PLAN_DISK_UNKNOWN,   /* not looked at yet: taken as ok */
	KT_PLAN_DISK_DRIFTED,   /* our copy is good, the files differ: deliver again */
	KT_PLAN_DISK_MISSING,   /* the volume is gone (a reboot, an rm): deliver again */
	KT_PLAN_DISK_OUTDATED,  /* other formats, owners or modes are asked for: deliver again */
	KT_PLAN_DISK_STALE,     /* delivery of newer material did not finish */
};

/* What the store knows about one credential. Plain data; the zero value is a resource never seen before. */
struct kt_plan_state {
	/* the material in use */
	bool has_material;
	kt_ms not_before, not_after;   /* certificate: as in it; token: the end by kt_plan_token_life */
	kt_ms issued_at;               /* our wall time when it was obtained; 0: not known */
	/* the CA's renewal information (RFC 9773) about it; 0: none. Believed as far as kt_plan_info_moment says */
	kt_ms ari_start, ari_end;
	bool ari_again;                /* it was itself asked for by renewal information: not so again at once */
	/* reasons to issue again, whatever its age */
	bool request_changed;          /* dnsNames, commonName, duration, usages, isCA, issuerRef, key alg/size, scopes ... */
	bool issuer_changed;           /* the issuer's own key or certificate is another one */
	bool material_corrupt;         /* what the store holds does not parse, or chain and names are wrong */
	bool key_mismatch;             /* key and certificate do not belong together */
	bool revoked;                  /* or superseded by a reset: must not be used any more */
	bool binding_changed;          /* a bound token's certificate or DPoP key has rotated */
	bool secret_deleted;           /* the user took the secret away (secret rm): cert-manager issues anew */
	bool refused;                  /* a token that its server did not take: a consumer said so */
	bool forced;                   /* renew --force, Issuing=True set by hand */
	/* on disk */
	enum kt_plan_disk disk;
	/* a flight that was begun and not finished */
	bool in_flight;
	bool flight_stale;             /* ... for a request that is no longer the one asked for */
	kt_ms shown_at;                /* ... and a client's new key is shown since then; 0: it is not, or none is */
	const char *flight_step;       /* its last committed step, for the text; NULL: unknown */
	/* the ledger of the current attempt */
	unsigned failures;             /* in a row; 0 after success */
	kt_ms last_attempt;            /* when the last one ended */
	enum kt_code last_code;
	char last_problem[96];         /* kt_err.problem_type */
	int64_t retry_after_s;         /* kt_err.retry_after_s of it */
	kt_ms announced;               /* the next try, as it was drawn and told then; 0: drawn from the table */
	bool cause_changed;            /* since then the key, secret, issuer or request changed, or a person asked by
	                                * command: forget the backoff */
	/* the ledger of delivering again (REDELIVER), which fails for other reasons than issuing does */
	unsigned deliver_failures;     /* in a row */
	kt_ms deliver_last;            /* when the last one ended */
	enum kt_code deliver_code;
	/* others */
	bool orphan;                   /* no manifest asks for it any more */
	const char *not_ready;         /* the issuer is not usable yet: what is missing (static text); NULL: ready */
	kt_ms limit_at;                /* the CA's limits: no order before then; 0: one may be placed now */
	kt_ms limit_spread;            /* how far apart those come back that wait for it */
	const char *limit_text;        /* which one, for the text; NULL: not known */
	uint64_t seed;                 /* kt_plan_seed of credential and revision: makes jitter reproducible */
};

/* FNV-1a of a credential's identity and revision: the same in every process and run. */
uint64_t kt_plan_seed(const char *resource, uint64_t revision);

/* ---- the plan ------------------------------------------------------------------------------------------------ */

enum kt_plan_action {
	KT_PLAN_NONE,      /* nothing, and nothing will ever be due (orphan, disabled) */
	KT_PLAN_WAIT,      /* nothing now: look again at due_at */
	KT_PLAN_ISSUE,     /* first material */
	KT_PLAN_RENEW,     /* time has come */
	KT_PLAN_REISSUE,   /* the material does not fit any more */
	KT_PLAN_RESUME,    /* go on with the flight */
	KT_PLAN_REDELIVER, /* write the material that the store has again */
	KT_PLAN_ACTION_COUNT
};
/* "none", "wait", "issue", ...; never NULL. */
const char *kt_plan_action_name(enum kt_plan_action action);

/* Why; each has a stable name for JSON (kt_plan_reason_name). */
enum kt_plan_reason {
	KT_WHY_NOT_DUE,           /* valid, the renewal point is ahead */
	KT_WHY_NEVER_ISSUED,
	KT_WHY_RENEWAL_POINT,     /* the renewal point has passed */
	KT_WHY_FLOOR,             /* close to its end: outside windows, backoff cut short */
	KT_WHY_EXPIRED,
	KT_WHY_REQUEST_CHANGED,
	KT_WHY_ISSUER_CHANGED,
	KT_WHY_CORRUPT,
	KT_WHY_KEY_MISMATCH,
	KT_WHY_REVOKED,
	KT_WHY_BINDING_CHANGED,
	KT_WHY_SECRET_DELETED,
	KT_WHY_FORCED,
	KT_WHY_CLOCK,             /* not valid yet by our clock: the clock was or is wrong */
	KT_WHY_IN_FLIGHT,
	KT_WHY_DRIFT,             /* files on disk differ, are gone or outdated */
	KT_WHY_BACKOFF,           /* the last attempt failed: waiting for the next */
	KT_WHY_NEEDS_CHANGE,      /* refused for good: waits (long) for a change of key, secret or request */
	KT_WHY_WINDOW,            /* due, but the window is closed */
	KT_WHY_DISABLED,          /* renewal.policy: Disabled */
	KT_WHY_ORPHAN,
	KT_WHY_ISSUER_NOT_READY,
	KT_WHY_RENEWAL_INFO,      /* the moment in the window that the CA suggests has come */
	KT_WHY_LIMIT,             /* due, but what the CA allows is used up for now */
	KT_WHY_REFUSED,           /* a token that was seen refused */
	KT_WHY_SHOWN,             /* a client's new key is shown, and not used before publishAhead is over */
	KT_WHY_COUNT
};
const char *kt_plan_reason_name(enum kt_plan_reason reason);

struct kt_plan {
	enum kt_plan_action action;
	enum kt_plan_reason reason;   /* of the action, or of the waiting */
	enum kt_plan_reason pending;  /* while waiting for backoff, window, limit or issuer: why something is due at all;
	                               * else equal to reason */
	kt_ms due_at;                 /* when to look again: <= now when action is to be done; KT_TIME_MAX: never. May be
	                               * before act_at: at alarm_at and remove_at something is to be said or done */
	kt_ms act_at;                 /* when the pending action will be begun, as far as is known now */
	kt_ms renew_at;               /* the renewal point (status.renewalTime); 0 without material or when disabled */
	kt_ms alarm_at;               /* the hard floor: not renewed by then is an alarm; 0 without material */
	kt_ms remove_at;              /* tokens: when it must be off the disk; KT_TIME_MAX for certificates */
	bool alarm;                   /* now is past alarm_at, or the last failure needs a person */
	bool remove;                  /* now is past remove_at (or it was revoked): take it off the disk, besides the action */
	bool abandon;                 /* the flight is stale: drop it, then do the action */
	bool by_info;                 /* renew_at comes from the CA's renewal information */
	bool new_key;                 /* REISSUE for a reason that makes the old key unusable (mismatch, revoked) */
	char text[256];               /* one line for `keyturn why`: "renews in 40m; expires in 2h10m (at 2/3 of its life)" */
};

/*
 * What is due for one credential at `now`. Pure: the same input gives the same answer. Times in it are bounded to
 * [now - 400 d .. KT_TIME_MAX]; a clock that jumped back makes old ledger times count as now.
 */
void kt_plan_decide(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                    struct kt_plan *ret);

/*
 * As kt_plan_decide, without the text (it costs most of the time): for the scheduler, where only action and due_at
 * matter. kt_plan_explain fills text afterwards.
 */
void kt_plan_decide_quick(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                          struct kt_plan *ret);
void kt_plan_explain(const struct kt_plan_policy *policy, const struct kt_plan_state *state, kt_ms now,
                     struct kt_plan *plan);

/*
 * The renewal point of a life [not_before, not_after] with its jitter; what plan uses. KT_TIME_MAX when disabled. By default
 * a certificate is renewed at two thirds of its life, as cert-manager does, and one that lives less than ten days at
 * half of it, as RFC 9773 and the CAs of such certificates recommend: there must be time for a CA that is down. A token by
 * default at 77 % of its life, at half of it where that is less than ten minutes, and never every few milliseconds.
 */
kt_ms kt_plan_renewal_point(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after, uint64_t seed);
/*
 * Whether renewBefore is not shorter than this life, and so counts as not set (as cert-manager has it): with it the next one
 * would be due the moment that it came.
 */
bool kt_plan_before_is_too_long(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after);
/*
 * The rule by which the renewal point of that life was found, in words: "renewBefore 720h", "at half of its life", or why
 * renewBefore was not the rule. Returns out.
 */
#define KT_PLAN_RULE_SIZE 128
const char *kt_plan_rule(const struct kt_plan_policy *policy, kt_ms not_before, kt_ms not_after, char out[KT_PLAN_RULE_SIZE]);

/*
 * The moment within the CA's window (RFC 9773 section 4.2): anywhere in it, by the seed; in the past where the window is.
 * 0 where the window is not to be believed: its end before its start, longer than the certificate's life, or begun after
 * its end; then the renewal point counts. Never later than three quarters of the way from that point to alarm_at. After a
 * renewal that renewal information had asked for not before a tenth of life (one hour to a day): a CA that goes on asking
 * for another one is not followed into a loop.
 */
kt_ms kt_plan_info_moment(const struct kt_plan_state *state, kt_ms start, kt_ms end, kt_ms renewal_point, kt_ms alarm_at);

/* ---- tokens -------------------------------------------------------------------------------------------------- */

/* What a token endpoint's answer says about life; 0: not said. */
struct kt_plan_token_answer {
	kt_ms now;            /* wall, when the answer came */
	kt_ms skew;           /* issuer's clock minus ours, learnt from its Date header; 0: not known */
	int64_t expires_in_s; /* seconds; 0: absent */
	kt_ms exp;            /* the JWT's exp claim in ms; 0: absent (opaque) */
	kt_ms cap;            /* maxLifetime of the manifest; 0: none */
	kt_ms fallback;       /* configured default life where neither is given; 0: 5 min */
	kt_ms sent;           /* when the request was sent (expires_in counts from there at worst); 0: now */
};
/*
 * The moment from which the token counts as expired: min(expires_in, exp - now, cap), never before now. *ret_longer
 * (or NULL) is set when the server gave a longer life than cap (onLongerLifetime).
 */
kt_ms kt_plan_token_life(const struct kt_plan_token_answer *answer, bool *ret_longer);

/* Until when a token that was minted for a consumer that saw one refused is believed to be good, whatever they say. */
#define KT_PLAN_REFUSAL_PAUSE (10 * KT_SECOND) /* or a tenth of the life of the one that was refused */
kt_ms kt_plan_refusal_until(kt_ms not_before, kt_ms issued_at, kt_ms not_after, kt_ms now);

/* ---- retries: one table -------------------------------------------------------------------------------------- */

enum kt_plan_fault {
	KT_FAULT_OURS,     /* our machine: disk full, memory, damaged state */
	KT_FAULT_NETWORK,  /* between us and the peer */
	KT_FAULT_PEER,     /* the peer is down, slow, or breaks its protocol */
	KT_FAULT_LIMIT,    /* the peer is fine and asks us to wait */
	KT_FAULT_USER,     /* manifest, credentials or permission: a person must change something */
	KT_FAULT_CONSUMER, /* the consumer did not take it */
};
const char *kt_plan_fault_name(enum kt_plan_fault fault);

/* One row: how failures of a kind are retried. */
struct kt_plan_retry {
	const char *problem;   /* ACME error type (without urn prefix) or OAuth error code; NULL: any problem of code */
	enum kt_code code;     /* where problem is NULL */
	enum kt_plan_fault fault;
	kt_ms first;           /* delay after the first failure, before jitter */
	unsigned growth;       /* factor per further failure, in percent (200: doubles) */
	kt_ms cap;             /* longest delay */
	kt_ms floor;           /* shortest delay, also where a credential's end is near */
	bool obey_retry_after; /* never earlier than asked (asked is already clamped to [1 s, 24 h]) */
	bool needs_change;     /* waits at `cap` unless key, secret or request change (negative cache) */
	bool alarm;            /* tell a person at once */
	bool validation;       /* the CA could not see that a name is ours: CAs count such failures by name */
	bool near;             /* passes within seconds as a rule: a command waits for the next try */
};
/* The row for a failure; problem ("" or NULL: none) wins over code. Never NULL. */
const struct kt_plan_retry *kt_plan_retry_find(enum kt_code code, const char *problem);
/* The rows for problems, one after another; NULL past the end. */
const struct kt_plan_retry *kt_plan_retry_at(size_t index);
/*
 * The same for a failure after which the next try goes on where this one stood (an order that was placed): a broken
 * connection then costs nothing, and is tried again as soon as a refused nonce is.
 */
const struct kt_plan_retry *kt_plan_retry_find_resumed(enum kt_code code, const char *problem);
/*
 * Whether a command waits for the next try, which is `wait` ms ahead: it is close, the failure is of a kind that passes
 * (or the peer asked to come back so soon), and there were few of them in a row.
 */
bool kt_plan_retry_is_near(const struct kt_plan_retry *row, unsigned failures, int64_t retry_after_s, kt_ms wait);

/*
 * How long to wait after failure number `failures` (1 = first): full jitter over the upper half of first * growth^n,
 * capped; at most 1/8 of life_left (ms until the credential ends; KT_TIME_MAX: no end), never below the row's floor,
 * never earlier than retry_after_s where the row obeys it. seed: any number that differs per credential.
 */
kt_ms kt_plan_retry_delay(const struct kt_plan_retry *row, unsigned failures, int64_t retry_after_s, kt_ms life_left,
                          uint64_t seed);

/* ---- consumers: notify and prove ----------------------------------------------------------------------------- */

struct kt_plan_task {
	bool prove;              /* a proof (quick looks first) or a notification */
	bool superseded;         /* newer material is switched: this one is over */
	kt_ms started_at;        /* notify: when it became due; prove: when notify succeeded */
	kt_ms within;            /* the Consumer's `within`; 0: 30 s */
	unsigned attempts;       /* made so far */
	kt_ms last_attempt;      /* when the last one ended; 0: none */
	enum kt_code last_code;  /* of it */
	int64_t retry_after_s;
	kt_ms not_after;         /* the credential's end: a task never outlives it; 0: none */
	uint64_t seed;
};
enum kt_plan_task_phase {
	KT_TASK_QUICK,  /* inside `within`: 50 ms, 100 ms, 200 ms ... 2 s */
	KT_TASK_LATE,   /* `within` is over: the consumer counts as not proved; tried on, 5 min at most apart */
	KT_TASK_OVER,   /* superseded or expired: no more tries */
};
struct kt_plan_task_next {
	enum kt_plan_task_phase phase;
	kt_ms next_at;     /* when to try; KT_TIME_MAX when over */
	kt_ms deadline;    /* started_at + within */
	bool just_late;    /* within is over at next_at, or was at now: report "not proved" (exit status 5) */
};
void kt_plan_task_decide(const struct kt_plan_task *task, kt_ms now, struct kt_plan_task_next *ret);

/* ---- watches: credentials that something else issues ----------------------------------------------------------- */

/* Where a renewal by command is. Stored by name. */
enum kt_plan_watch_phase {
	KT_WATCH_IDLE,
	KT_WATCH_RENEWING, /* the command was started, and no end of it is written down */
	KT_WATCH_PROVING,  /* it has ended well: the source has to show a later certificate */
};

/* What is known after the source was looked at. */
struct kt_plan_watch {
	struct kt_plan_policy policy; /* renew_before, renew_before_percentage */
	bool has_command;
	kt_ms within;
	kt_ms warn_before;           /* 0: halfway from the renewal point to the end */
	enum kt_plan_watch_phase phase;
	bool readable;               /* the last look found a certificate */
	kt_ms not_before, not_after; /* of the last that was found; 0: none yet */
	kt_ms was_not_after;         /* with a phase: the end of the one that is to be replaced; 0: there was none */
	kt_ms ended_at;              /* PROVING: when the command ended */
	unsigned looks;              /* PROVING: since then */
	bool forced;
	unsigned failures;           /* in a row, of looks or of renewals */
	kt_ms last_attempt;
	enum kt_code last_code;
	kt_ms announced;
	bool cause_changed;          /* a person asked by command: forget the backoff */
	uint64_t seed;
};
enum kt_plan_watch_action {
	KT_WATCH_WAIT,   /* look again at due_at */
	KT_WATCH_RUN,    /* the command */
	KT_WATCH_PROVED, /* the renewal is over, and it was one */
	KT_WATCH_LATE,   /* `within` is over: the renewal has failed */
};
struct kt_plan_watch_next {
	enum kt_plan_watch_action action;
	kt_ms due_at;
	kt_ms warn_at;       /* 0: no certificate is known */
	bool warn;           /* now is past it */
	struct kt_plan plan; /* as for a certificate of ours, for status and plan; its action is not for the pipeline */
};
void kt_plan_watch_decide(const struct kt_plan_watch *watch, kt_ms now, struct kt_plan_watch_next *ret);
kt_ms kt_plan_watch_warn_at(const struct kt_plan_watch *watch);
/* When to try again after failure number watch->failures; ran: it was the command, or its proof, that failed. */
kt_ms kt_plan_watch_retry(const struct kt_plan_watch *watch, enum kt_code code, bool ran, kt_ms now);

#endif
