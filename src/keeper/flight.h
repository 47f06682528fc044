/* Flights: what rotate.c (the rounds) and steps.c (what one step does) share. */
#ifndef KEEPER_FLIGHT_H
#define KEEPER_FLIGHT_H

#include "keeper/keeper.h"

/* Loads resource, credential and spec of a due credential. *ret: kt_flight_destroy. */
enum kt_code kt_flight_create(struct kt_keeper *keeper, int64_t id, struct kt_flight **ret, struct kt_err *err);
void kt_flight_destroy(struct kt_flight *flight);

/*
 * The database part of the flight's stage, in the round's transaction; leaves stage at an effect or at END. An error is
 * one of the store: the round is rolled back.
 */
enum kt_code kt_flight_commit(struct kt_flight *flight, struct kt_err *err);
/* Records that the flight failed (flight->err), decides when it is tried again, and ends it. */
enum kt_code kt_flight_fail(struct kt_flight *flight, struct kt_err *err);
/* The effect of the flight's stage. DONE: the stage is the next one to commit. */
enum kt_effect kt_flight_effect(struct kt_flight *flight, struct kt_err *err);

/* The Consumers' validate hooks, one after another (validate.c). */
enum kt_effect kt_flight_validate(struct kt_flight *flight, struct kt_err *err);
/* Whether any Consumer of the flight has a validate hook. */
bool kt_flight_has_validation(struct kt_flight *flight);

/* Issuing comes at once for who waited for this secret as a CA. In a transaction. */
enum kt_code kt_flight_wake_dependents(struct kt_flight *flight, struct kt_err *err);

#endif
