/* Names to addresses: getaddrinfo on a pool thread, with a deadline, few answers and a policy on loopback. */
#ifndef KT_COURIER_RESOLVE_H
#define KT_COURIER_RESOLVE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "kt/err.h"
#include "kt/loop.h"

#define KT_RESOLVE_MAX 8u /* addresses that are kept of an answer */

struct kt_resolver;
struct kt_lookup;

struct kt_addresses {
	unsigned count;
	struct sockaddr_storage at[KT_RESOLVE_MAX]; /* port 0 */
};

/* err->code KT_OK and addresses (borrowed), or what failed. */
typedef void kt_resolved_fn(const struct kt_err *err, const struct kt_addresses *addresses, void *arg);

enum kt_code kt_resolver_create(struct kt_loop *loop, struct kt_resolver **ret, struct kt_err *err);
/* True while the pool works on a query, which nothing can interrupt. */
bool kt_resolver_busy(const struct kt_resolver *resolver);
/* No look-up may be open. Look-ups that the pool still holds end by themselves. */
void kt_resolver_destroy(struct kt_resolver *resolver);

/*
 * Looks host up (a literal is answered without a look-up); fn is called once from the loop, never from within this
 * call. allow_local: loopback and link-local answers are fine; else they fail with KT_E_POLICY. Look-ups of one host
 * share a query; answers are kept for 30 s.
 */
enum kt_code kt_resolve(struct kt_resolver *resolver, const char *host, bool allow_local, kt_ms timeout,
			kt_resolved_fn *fn, void *arg, struct kt_lookup **ret, struct kt_err *err);
/* fn won't be called. NULL accepted. */
void kt_resolve_cancel(struct kt_lookup *lookup);

#endif
