/* Watches: credentials that something else issues. */
#ifndef KEEPER_WATCH_WATCHED_H
#define KEEPER_WATCH_WATCHED_H

#include <jansson.h>

#include "keeper/keeper.h"

/*
 * A Watch has a row among the credentials (KT_KIND_WATCH) without any material: due_at says when it is looked at next, expiry
 * is the end of the certificate that was seen last, the cookie holds the rest. One that is due becomes no flight: it is looked
 * at here, and what the plan makes of it is written down before it is done.
 */
struct kt_watched;

/* One that is due. Does nothing when it is being worked on, or is not what a command is about. */
void kt_watched_start(struct kt_keeper *keeper, int64_t id);
void kt_watched_finish(struct kt_keeper *keeper);
bool kt_watched_busy(const struct kt_keeper *keeper, int64_t id);
/* By its row: a renewal is under way. */
bool kt_watched_open(const struct kt_store_cred *cred);

enum kt_code kt_watched_plan(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                             const struct kt_store_cred *cred, const struct kt_resource *spec, struct kt_plan *ret,
                             struct kt_err *err);
/* Adds what status shows of a Watch, in place of what a credential of ours has. */
void kt_watched_describe(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                         const struct kt_store_cred *cred, const struct kt_resource *spec, json_t *out);
/* The lines of /metrics. */
void kt_watched_metrics(struct kt_keeper *keeper, struct kt_buf *out);
/* How many of what is watched has ended: no fault of what the agent delivers. */
uint64_t kt_watched_expired(struct kt_keeper *keeper);

#endif
