/* What helps after a failure: the one table of it. (What an authorization server refuses is in oauth/remedy.c, which knows the method.) */
#ifndef KEEPER_REMEDY_H
#define KEEPER_REMEDY_H

#include "keeper/flight.h"

/*
 * What a person can do, as a half sentence; the problem ("" or NULL: none) wins over the code. Never NULL or empty. Static.
 */
const char *kt_remedy_find(enum kt_code code, const char *problem);

/* For a credential that fails; "" when it does not, or when its error says by itself what to do. Static. */
const char *kt_remedy_of(const struct kt_store_cred *cred);

/* For a Consumer that was not told, or does not prove: NULL when it has not failed. Static. */
const char *kt_remedy_of_task(const struct kt_store_task *task);

#endif
