/* dns-01 and dns-persist-01: TXT records written by providers, and what name servers say of them. */
#ifndef KT_COURIER_DNS_H
#define KT_COURIER_DNS_H

#include "courier/courier.h"

/*
 * A walk through an ADD. The job asks the name servers of the Agent's settings (or of resolv.conf) for the zone of the
 * record and its authoritative servers, and these for the record, so that an alias (CNAME) is seen as the CA will see
 * it (lookup.c). The provider writes the value where the alias leads, or at the record itself. Then every authoritative
 * server is asked with growing pauses until all have it, and at last the recursive ones, as information (watch.c).
 * REMOVE goes by the handle of the ADD; without one it looks for the alias again. CHECK only looks.
 */
#define KT_DNS_JOBS_MAX 128u

struct kt_dns;

enum kt_code kt_dns_create(struct kt_courier *courier, struct kt_dns **ret, struct kt_err *err);
void kt_dns_destroy(struct kt_dns *dns);
/* The keeper is gone: every job ends without a word. */
void kt_dns_drop(struct kt_dns *dns);

void kt_dns_handle(struct kt_wire_in *in, void *arg); /* KT_DNS01; arg: the courier */
/* True when there was such a job; it ends with KT_E_CANCELLED. */
bool kt_dns_cancel(struct kt_dns *dns, uint64_t job);

#endif
