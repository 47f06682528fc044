/* What building, reading and verifying audit records share. */
#ifndef KEEPER_AUDIT_AUDIT_INTERNAL_H
#define KEEPER_AUDIT_AUDIT_INTERNAL_H

#include "keeper/audit/audit.h"
#include "keeper/store/store_internal.h"

/*
 * A row holds the body of a record: the JSON object without prev_hash and hash, which are added when it is shown.
 * hash = SHA-256(hash of the record before (32 bytes) || body). meta "kt.audit_head" holds seq and hash of the newest,
 * "kt.audit_base" those of the newest one that was pruned.
 */
void kt_audit_hash(const uint8_t *prev, struct kt_view body, uint8_t *hash);
/* The first 8 bytes of a trace id, which is what the index holds. False when it is not 32 hex digits. */
bool kt_audit_trace_key(const char *trace, int64_t *ret);
void kt_audit_hex(const uint8_t *hash, char out[65]);

#endif
