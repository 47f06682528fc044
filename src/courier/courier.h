/* The courier's state, and what each of its parts offers to main: handlers of the keeper's messages. */
#ifndef KT_COURIER_H
#define KT_COURIER_H

#include "courier/http.h"
#include "kt/loop.h"
#include "kt/wire.h"

/*
 * The courier does what the keeper asks and knows nothing by itself: no file, no key, no clock of its own beyond
 * time-outs. A request that arrives becomes a job in one of the parts below; the reply ends it. When the keeper's wire
 * ends all jobs are dropped without a word: the keeper issues them again from its store.
 */
struct kt_acme;
struct kt_grant;
struct kt_probe;
struct kt_dns;

struct kt_courier {
	struct kt_loop *loop;
	struct kt_wire *keeper;
	struct kt_http *http;
	struct kt_acme *acme;
	struct kt_grant *grant;
	struct kt_probe *probe;
	struct kt_dns *dns; /* NULL in a build without dns-01 */
};

/* Reads src into a fresh kt_strdup'd string; KT_E_INVALID when it holds a NUL, KT_E_NOMEM. */
enum kt_code kt_courier_copy(struct kt_view src, char **ret, struct kt_err *err);
/* Everything below, on a loop and with a wire to the keeper (which may have no end yet). */
enum kt_code kt_courier_create(struct kt_loop *loop, struct kt_courier **ret, struct kt_err *err);
void kt_courier_destroy(struct kt_courier *courier);
/* The keeper is gone: every job ends. */
void kt_courier_drop(struct kt_courier *courier);

#endif
