/* Notifying and proving: what tasks.c (the queue) and prove.c (the single acts) share. */
#ifndef KEEPER_PROVE_H
#define KEEPER_PROVE_H

#include "keeper/keeper.h"

/* A task that is being worked on. */
struct kt_task_run {
	struct kt_task_run *next;
	struct kt_keeper *keeper;
	struct kt_store_task task;
	struct kt_store_material material;
	struct kt_store_resource resource; /* of the credential */
	struct kt_resource *consumer;
	kt_ms delivered_at;
	kt_ms proved_at;    /* of the credential */
	kt_ms window_at;    /* its window opens then; 0: it may be told */
	bool looks_first;   /* it is late: perhaps it has taken it meanwhile */
	bool roll_back;
	bool wrong_answer;
	int64_t retry_after_s;
	int target;         /* index of the target that is worked on */
	bool target_looks;  /* it is only read back */
	char target_id[64]; /* of the keystore there */
	char secret_name[256];
	char error_text[768];
	char seen[768];
	char expected[256];
};

/* Index of the first proof of the run's secret at or after `from`, or -1. */
int kt_prove_next(const struct kt_task_run *run, int from);
/* How many steps there are before the proofs: uploads first, then notifiers. */
int kt_prove_steps(const struct kt_task_run *run);
/* Starts the upload or notifier / the proof that task.step names. The end comes by kt_task_done, unless an error is returned. */
enum kt_code kt_prove_notify(struct kt_task_run *run, struct kt_err *err);
enum kt_code kt_prove_look(struct kt_task_run *run, struct kt_err *err);
/* The act has ended. wrong_answer: the consumer showed something that was never ours. */
void kt_task_done(struct kt_task_run *run, const struct kt_err *why, bool wrong_answer);

/* --- turn.c --- */

/* rollout.maxUnavailable: `now` when those before are proved, else when to look again; the end of one of them comes before that. */
kt_ms kt_turn_at(struct kt_task_run *run, kt_ms now);
/* rollout.windows: *ret gets when it may be told, `now` or later. */
enum kt_code kt_turn_window(struct kt_task_run *run, kt_ms now, kt_ms *ret, struct kt_err *err);

/* A handshake by the courier; the reply (PROBED_TLS) goes to fn. */
enum kt_code kt_prove_probe(struct kt_keeper *keeper, const struct kt_prove_tls *tls, const char *trace_id, kt_ms timeout,
                            kt_wire_reply_fn *fn, void *arg, struct kt_err *err);
/* A plain file of somebody else, for reading; what: "the access log", for errors. -1 on failure. */
struct stat;
int kt_prove_open(const char *what, const char *path, struct stat *ret_info, struct kt_err *err);

#endif
