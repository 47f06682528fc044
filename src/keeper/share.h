/* Shares: how many of the flights one issuer may have, so that one that never answers leaves room for all others. */
#ifndef KEEPER_SHARE_H
#define KEEPER_SHARE_H

#include "keeper/flight.h"

/*
 * What is due at an issuer. One that is asked over the network has a share of the flights; when it is used up the issuer
 * is crowded: what else is due at it stays due in the store, is left out when the rounds ask what is due, and takes the
 * places that its own flights leave. There are no more of these than issuers with flights, and crowded ones.
 */
struct kt_share {
	struct kt_share *next;
	char ns[256];
	char name[520]; /* "Issuer/name", as credentials' links have it */
	bool remote;
	bool linked;    /* the store knows whose credentials are its own */
	bool crowded;
	unsigned flying;
	int64_t *waiting; /* of a crowded one: some that are due, the soonest to expire first; NULL until there is room */
	size_t at, count;
	kt_ms look_at;    /* monotonic: not sooner is the store asked for more of them */
};

/* Counts a flight for its issuer, or no more. */
void kt_share_join(struct kt_flight *flight);
void kt_share_leave(struct kt_flight *flight);

/*
 * Whether a due credential has to wait because it would ask an issuer whose share is used up. *ret_crowded: that was not
 * known before, and what is due has to be read anew.
 */
bool kt_share_holds(struct kt_flight *flight, bool *ret_crowded);
/* One that waited and whose issuer has room; false: there is none. *ret: to put it back, by ->at--. */
bool kt_share_next(struct kt_keeper *keeper, struct kt_share **ret, int64_t *ret_id);
/* What is due, without what waits. */
enum kt_code kt_share_due(struct kt_keeper *keeper, int64_t *ids, size_t *count, struct kt_err *err);
/* Whether that was read a moment ago, at a cost, and something waits: keeper->look_again says when it can be. */
bool kt_share_too_soon(struct kt_keeper *keeper);
/* That took since then (monotonic). */
void kt_share_looked(struct kt_keeper *keeper, kt_ms since);
/* Frees those that nothing flies of. all: at the end. */
void kt_share_drop(struct kt_keeper *keeper, bool all);

#endif
