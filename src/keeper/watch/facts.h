/* What is known of a Watch between two looks: the cookie of its row. */
#ifndef KEEPER_WATCH_FACTS_H
#define KEEPER_WATCH_FACTS_H

#include "keeper/keeper.h"

struct kt_watch_facts {
	char source[600]; /* what was looked at: another source has another certificate */
	enum kt_plan_watch_phase phase;
	kt_ms not_before, not_after, read_at;
	char serial[132], sha256[68], subject[520];
	kt_ms was_not_after, ran_at, ended_at;
	unsigned looks;
	bool renewal_failed; /* what the row counts failures of: the renewal, else looking */
	bool waits;          /* the command of before still runs */
	kt_ms warned;        /* the end that a warning was about */
	kt_ms too_long;      /* that end and the renewBefore that is not shorter than the life, when that was said */
};

/* Of enum kt_plan_watch_phase. */
extern const char *const kt_watch_phases[3];

/* A cookie that can't be read is an empty one: the source is looked at again. */
void kt_watch_facts_read(const struct kt_store_cred *cred, struct kt_watch_facts *facts);
enum kt_code kt_watch_facts_write(const struct kt_watch_facts *facts, struct kt_buf *out, struct kt_err *err);
/* The source as people write it; returns out. */
const char *kt_watch_source_text(const struct kt_resource *spec, char *out, size_t size);
/* What the plan is made from. readable: the source could be read just now. */
void kt_watch_plan_input(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                         const struct kt_resource *spec, const struct kt_watch_facts *facts, bool readable, kt_ms now,
                         struct kt_plan_watch *ret);

#endif
