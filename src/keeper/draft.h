/* A draft: manifests as a command found them on disk, beside those in force; for plan, why and rehearse. */
#ifndef KEEPER_DRAFT_H
#define KEEPER_DRAFT_H

#include "kt/json.h"
#include "keeper/keeper.h"

/*
 * A command hands over what it read (a sealed bundle, as the warden makes it). The draft is parsed once and compared
 * with the store; kept are only the resources that are new or changed and a bit for each one that is still there. It
 * is never loaded: nothing is written, and no hook of it can run.
 */
struct kt_draft;

struct kt_draft_entry {
	struct kt_store_resource row; /* as loading it would write it; id 0: the store has none of this name */
	bool is_new;                  /* not in force: never was, or was removed */
	bool told;                    /* the command has shown it */
	char *changes;                /* "spec.duration, spec.dnsNames[2]"; NULL when new */
};

/* Reads the bundle behind fd, which stays the caller's. KT_E_INVALID with every complaint when there is an error. */
enum kt_code kt_draft_create(struct kt_keeper *keeper, int fd, struct kt_draft **ret, struct kt_err *err);
void kt_draft_destroy(struct kt_draft *draft); /* NULL accepted */

/* NULL: it is as it was, or gone (see kt_draft_has). */
struct kt_draft_entry *kt_draft_find(struct kt_draft *draft, int64_t id);
/* By "name", "ns/name" or "Kind/ns/name", among new Certificates and Tokens; NULL when there is none. */
struct kt_draft_entry *kt_draft_find_new(struct kt_draft *draft, const char *name);
/* True when the resource with this id is in the draft, changed or not. */
bool kt_draft_has(const struct kt_draft *draft, int64_t id);
/* A Consumer of this secret is new or changed: its name, or NULL. */
const char *kt_draft_consumer_of(const struct kt_draft *draft, const char *ns, const char *secret_name);
/* All entries, in the order of ids; those without an id first. */
size_t kt_draft_count(const struct kt_draft *draft);
struct kt_draft_entry *kt_draft_at(struct kt_draft *draft, size_t index);

/* Where two JSON documents differ: paths joined by ", ", at most some; adds to out. */
void kt_draft_differences(const json_t *from, const json_t *to, struct kt_buf *out);

#endif
