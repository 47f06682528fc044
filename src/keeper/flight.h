/* Flights: what rotate.c (the rounds) and the stages (begin.c, commit.c, effect.c) share. */
#ifndef KEEPER_FLIGHT_H
#define KEEPER_FLIGHT_H

#include "keeper/keeper.h"

/* Loads resource, credential and spec of a due credential. *ret: kt_flight_destroy. */
enum kt_code kt_flight_create(struct kt_keeper *keeper, int64_t id, struct kt_flight **ret, struct kt_err *err);
void kt_flight_destroy(struct kt_flight *flight);

/* In work at so many sudden ends of the keeper in a row: alone from then on; and: a failure. */
#define KT_DEATHS_ALONE 2u
#define KT_DEATHS_MAX   3u
/* How many there were before this start. 0 for commands: one that is called again was called by somebody. */
unsigned kt_flight_deaths(const struct kt_flight *flight);

/* How long the set before is kept at least. */
#define KT_KEEP_PREVIOUS KT_MINUTE
kt_ms kt_flight_keep_previous(const struct kt_flight *flight);

/* Writes the step into the credential and the audit trail. reason: NULL or one line. In a transaction. */
enum kt_code kt_flight_step(struct kt_flight *flight, enum kt_step step, const char *reason, struct kt_err *err);
/* Ends the flight; its credential is looked at again at due_at (0 or KT_TIME_MAX: never). In a transaction. */
enum kt_code kt_flight_end(struct kt_flight *flight, kt_ms due_at, struct kt_err *err);
/* The first stage: the plan decides what is to be done (begin.c). */
enum kt_code kt_flight_begin(struct kt_flight *flight, struct kt_err *err);

/*
 * The database part of the flight's stage, in the round's transaction; leaves stage at an effect or at END. An error is
 * one of the store: the round is rolled back.
 */
enum kt_code kt_flight_commit(struct kt_flight *flight, struct kt_err *err);
/* Nothing is known against delivering: after a success, or because what stood in its way may be gone. */
void kt_flight_forget_deliveries(struct kt_store_cred *cred);
/* Records that the flight failed (flight->err), decides when it is tried again, and ends it. */
enum kt_code kt_flight_fail(struct kt_flight *flight, struct kt_err *err);
/* What the peer said at the last failure: the seconds that it asked for (0: none) and the problem's name ("": none). */
int64_t kt_flight_peer_said(const struct kt_store_cred *cred, const char **ret_problem);
/* The row of the retry table for a failure of this credential; takes into account that an order goes on. */
const struct kt_plan_retry *kt_flight_retry_row(const struct kt_store_cred *cred, enum kt_code code,
                                                const char *problem);
/* The effect of the flight's stage. DONE: the stage is the next one to commit. */
enum kt_effect kt_flight_effect(struct kt_flight *flight, struct kt_err *err);

/* Destroys the keys that were made ahead. */
void kt_effect_drop_stash(struct kt_keeper *keeper);

/* The Consumers' validate hooks, one after another (validate.c). */
enum kt_effect kt_flight_validate(struct kt_flight *flight, struct kt_err *err);
/* Whether any Consumer of the flight has a validate hook. */
bool kt_flight_has_validation(struct kt_flight *flight);

/* True when the secret that the flight lacks is in work, and does not wait for this one: the flight waits for its end. */
bool kt_rotate_wait_for(struct kt_flight *flight);
/* The flight has ended: those that wait for its secret go on. */
void kt_rotate_release(struct kt_flight *of);

/* Issuing comes at once for who waited for this secret as a CA. In a transaction. */
enum kt_code kt_flight_wake_dependents(struct kt_flight *flight, struct kt_err *err);

#endif
