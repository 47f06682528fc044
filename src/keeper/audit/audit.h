/* The audit trail: one hash-chained record per step, written in the transaction of the step itself. */
#ifndef KEEPER_AUDIT_AUDIT_H
#define KEEPER_AUDIT_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"
#include "keeper/store/store.h"

/*
 * What one record says (data/audit.schema.json). NULL or "" leaves a field out; time 0 is the clock's now. Texts may
 * come from strangers: they are escaped as JSON and cut at 1 KiB. Never put a secret or a token here.
 */
struct kt_audit_event {
	kt_ms time;
	const char *trace_id; /* 32 lower-case hex digits; required */
	const char *span_id;  /* 16; NULL: a fresh one */
	const char *actor;    /* required: "agent", "command", "uid:1000", "manifest", ... */
	const char *kind;     /* resource "Kind/ns/name"; kind NULL: about the agent itself */
	const char *ns;
	const char *name;
	const char *step;    /* required: kt_step_name(...), or "manifest.loaded", "secret.set", "master-key.rotated" ... */
	const char *outcome; /* required: "ok", "failed", "retry", "refused", "rolled-back" */
	const char *reason;  /* one line for people */
	const char *error_type;     /* error.type: kt_code_name or the problem type */
	const char *serial;         /* of a certificate */
	const char *token_id;       /* jti or sha256 of a token; never the token */
	const char *sha256;         /* fingerprint of the leaf */
	const char *issuer;
	const char *audience;
	const char *consumer;
	const char *server_address; /* server.address: whom we talked to */
	const char *seen;           /* a proof's finding and what it should have been */
	const char *expected;
	int64_t revision; /* of the material; 0: none */
	kt_ms not_after;  /* 0: none */
};

/* 32 hex digits + NUL: time first, so that the index stays local, then 80 random bits (W3C trace context). */
char *kt_audit_trace_id(kt_ms now, char out[33]);
/* 16 hex digits + NUL. */
char *kt_audit_span_id(char out[17]);

/* Adds one record to the chain, inside the caller's transaction (KT_E_INVALID without one). No allocation. */
enum kt_code kt_audit_append(struct kt_store *store, const struct kt_audit_event *event, struct kt_err *err);

/* A record as it is shown: `json` is the whole object, prev_hash and hash included, without a newline. */
struct kt_audit_record {
	int64_t seq;
	kt_ms time;
	struct kt_view json;
};
struct kt_audit_query {
	const char *trace_id; /* NULL: all */
	kt_ms since;          /* records with time >= since; 0: all */
	int64_t after_seq;    /* ascending from here; 0: from the first */
	bool newest_first;    /* then after_seq is "before", 0: from the last */
	unsigned limit;       /* 0: 1000 */
};
enum kt_code kt_audit_each(struct kt_store *store, const struct kt_audit_query *query,
                           bool (*fn)(const struct kt_audit_record *record, void *arg), void *arg,
                           struct kt_err *err);

/* What verify found. */
struct kt_audit_verdict {
	bool good;
	int64_t first_seq; /* first record there is (after pruning) */
	int64_t last_seq;
	uint64_t count;
	int64_t bad_seq;   /* the first record that is wrong or missing; 0 when good */
	char head[65];     /* hash of the last record, hex: to compare with a copy kept elsewhere */
	char what[256];    /* "record 17 was changed", "records 18 to 20 are missing", ... */
};
/* Walks the whole chain. KT_OK also when the verdict is bad; errors are those of reading. */
enum kt_code kt_audit_verify(struct kt_store *store, struct kt_audit_verdict *ret, struct kt_err *err);

/* Last record: seq 0 and 64 zeros when there is none. */
void kt_audit_head(struct kt_store *store, int64_t *ret_seq, char ret_hash[65]);

/*
 * Removes records with time < before, but never the newest `keep`, in the caller's transaction; the hash of the last
 * one removed stays as the anchor of the chain and a record "audit.pruned" says so. At most max_rows at a time;
 * *ret_removed says how many (may be NULL).
 */
enum kt_code kt_audit_prune(struct kt_store *store, kt_ms before, uint64_t keep, uint64_t max_rows,
                            const char *trace_id, uint64_t *ret_removed, struct kt_err *err);

#endif
