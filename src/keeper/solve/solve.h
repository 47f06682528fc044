/* Answers to challenges, inside the keeper: one answer, the table of ways to give it, and what those share. */
#ifndef KEEPER_SOLVE_H
#define KEEPER_SOLVE_H

#include "kt/json.h"
#include "keeper/keeper.h"

/*
 * A walk through one answer.
 *
 * The courier reads an authorization and asks the keeper (CHALLENGE) for an answer to one of the challenges that the CA
 * offers. solve.c chooses the solver (choice.c) and makes a struct kt_answer; answers.c minds its life: what outlives
 * this process (a file in a webroot, a TXT record) is a row of the store before it is presented, and the row goes when
 * the answer is taken back. The order that wanted it may end at any time: what is being presented is then taken back
 * when the presenting has ended. After a kill -9 the rows that are left are taken back by the next process; an answer
 * to the same challenge adopts such a row instead.
 *
 * How an answer is presented and taken back stands behind struct kt_solver_ops, one file each.
 */

enum kt_answer_state {
	KT_ANSWER_WAITING,     /* for another answer at the same place to go */
	KT_ANSWER_PRESENTING,
	KT_ANSWER_THERE,       /* presented, or perhaps so: nothing is under way */
	KT_ANSWER_WITHDRAWING,
};

struct kt_solver_ops;

struct kt_answer {
	struct kt_answer *next;
	struct kt_keeper *keeper;
	const struct kt_solver_ops *ops;
	enum kt_answer_state state;
	uint64_t job;      /* the order's; 0: it is over */
	uint32_t reply_to; /* the courier's request that waits for it; 0: none does */
	int64_t row;       /* in the store; 0: none */
	int64_t credential;
	bool wanted;   /* false: to be taken back */
	bool begun;    /* presenting was begun: something may be out there */
	bool wildcard;
	bool inherited; /* its row is an earlier answer's: what was done for that one may be there */
	bool untouched; /* nobody was asked to write it, or who was has refused to: there is nothing to take back */
	unsigned tries; /* to take it back, or (desk) to present it */
	kt_ms next_try; /* monotonic */
	kt_ms created;  /* wall */
	int solver;     /* index among the issuer's */
	uint32_t generation; /* exec: the manifests that the program was run from; 0: those of an earlier process */
	uint32_t found_at;   /* exec: ... and its index among the solvers there */
	uint64_t call;  /* job of a question to the courier that is under way */
	char trace_id[33]; /* "": of an earlier process */
	char *issuer;   /* identity */
	char *name;     /* without "*." */
	char *token;
	char *authorization; /* key authorization; NULL: the challenge has none, or (from a row) it is not needed any more */
	char *place;    /* two answers at one place can't be there at the same time */
	char *record, *value; /* dns-01: before any CNAME */
	char *effective;      /* ... after them */
	char *config;   /* what is needed to take it back: as in the store */
	char *handle;   /* what the provider gave */
};

/* What an answer is prepared from; borrowed. */
struct kt_answer_order {
	const struct kt_flight *flight;
	const struct kt_acme_solver *solver; /* NULL: the issuer has none */
	const json_t *offer;
};

/* One way to answer: a row of the table in solve.c. */
struct kt_solver_ops {
	const char *name;    /* for people */
	unsigned challenge;  /* enum kt_challenge */
	bool durable;        /* what it presents outlives the process */
	bool at_once;        /* withdraw is never pending */
	/* Fills place and what else the way needs. Pure. */
	enum kt_code (*prepare)(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err);
	/* PENDING: kt_answer_presented follows. */
	enum kt_effect (*present)(struct kt_answer *answer, struct kt_err *err);
	/* Presenting is under way and its end is of no interest any more; it may take its time all the same. NULL: no way. */
	void (*interrupt)(struct kt_answer *answer);
	/* PENDING: kt_answer_withdrawn follows. Also of what was presented only in part. NULL: there is nothing to do. */
	enum kt_effect (*withdraw)(struct kt_answer *answer, struct kt_err *err);
	/* The desk was started anew. NULL: it has no part in it. */
	void (*serve_again)(struct kt_answer *answer);
};

extern const struct kt_solver_ops kt_solve_http, kt_solve_webroot, kt_solve_alpn, kt_solve_dns, kt_solve_exec,
        kt_solve_persist;

/* --- choice.c ---------------------------------------------------------------------------------------------------- */

struct kt_choice {
	int solver; /* index; -1: the issuer has none at all, and http-01 is answered */
	unsigned challenge;
	const json_t *offer; /* the challenge; borrowed from what was offered */
};

/*
 * The solver for a name (with "*." of a wildcard) of an issuer (ref is for people): the most specific one of those whose
 * challenge can prove it and is offered. KT_E_UNSUPPORTED says what to change.
 */
enum kt_code kt_choose(const char *ref, const struct kt_acme *acme, const struct kt_pairs *labels, const char *name,
                       const json_t *offered, struct kt_choice *ret, struct kt_err *err);

/* --- answers.c ---------------------------------------------------------------------------------------------------- */

/* Takes the answer over: it is presented as soon as its place is free. */
void kt_answers_add(struct kt_keeper *keeper, struct kt_answer *answer);
/* Takes back what a job has for a name; returns the challenge of one of them, 0 when there is none. */
unsigned kt_answers_withdraw_name(struct kt_keeper *keeper, uint64_t job, struct kt_view name, bool wildcard);
/* How presenting ended; KT_OK or a failure. The answer may be gone afterwards. */
void kt_answer_presented(struct kt_answer *answer, const struct kt_err *why);
void kt_answer_withdrawn(struct kt_answer *answer, const struct kt_err *why);
/* Writes down where it is and what the provider gave (NULL: as it was), where the answer has a row. */
enum kt_code kt_answer_save(struct kt_answer *answer, struct kt_view effective, struct kt_view handle, struct kt_err *err);
/* A copy into an answer's text, which is freed. */
enum kt_code kt_answer_text(char **to, struct kt_view from, struct kt_err *err);
void kt_answer_destroy(struct kt_answer *answer); /* NULL accepted */
/* "00-…" for the answer's trace into out; "" when it has none. */
struct kt_view kt_answer_traceparent(const struct kt_answer *answer, char out[56]);

/* --- dns.c ---------------------------------------------------------------------------------------------------------- */

/* Record and value of dns-01, and the place. */
enum kt_code kt_solve_dns_record(struct kt_answer *answer, struct kt_err *err);
/*
 * Asks the courier to add, remove or look for the answer's record. solver: JSON; refs: JSON of its secrets by member, or
 * NULL; ns: where those are; patient: waits for the propagation, else it is looked at once.
 */
struct kt_dns_ask {
	enum kt_dns01_action action;
	const json_t *solver, *refs;
	const char *ns;
	const char *record, *value; /* NULL: the answer's */
	bool patient;
};
enum kt_code kt_solve_dns_ask(struct kt_answer *answer, const struct kt_dns_ask *ask, kt_wire_reply_fn *fn,
                              struct kt_err *err);
/* Calls such a question off: its answer comes all the same. */
void kt_solve_dns_interrupt(struct kt_answer *answer);

/* --- persist.c ------------------------------------------------------------------------------------------------------ */

/* The text of the record that dns-persist-01 wants (draft-ietf-acme-dns-persist). */
enum kt_code kt_solve_persist_value(const char *issuer_domain, const char *account_url, bool wildcard, struct kt_buf *out,
                                    struct kt_err *err);

#endif
