/* A document as a tree of nodes with line numbers, and the arena that trees and resources are allocated from. */
#ifndef KT_MANIFEST_NODE_H
#define KT_MANIFEST_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/manifest.h"

/* --- arena: bump allocation, freed as a whole ------------------------------------------------------------------- */

struct kt_arena_chunk;
struct kt_arena {
	struct kt_arena_chunk *chunks; /* the newest first */
	bool failed;                   /* an allocation failed: check once at the end */
};

/* Embedded use: zero-initialised is ready. */
void *kt_arena_alloc(struct kt_arena *arena, size_t size); /* zeroed, aligned for anything; NULL on failure */
const char *kt_arena_str(struct kt_arena *arena, const char *text, size_t len); /* NUL-terminated copy */
void kt_arena_finish(struct kt_arena *arena);                                   /* wipes and frees everything */
void kt_arena_reset(struct kt_arena *arena); /* the same, but keeps one chunk for the next use */
/* Makes sure that `size` more bytes need no further allocation. */
void kt_arena_reserve(struct kt_arena *arena, size_t size);

/* --- nodes -----------------------------------------------------------------------------------------------------------
 */

enum kt_node_type {
	KT_NODE_NULL = 0,
	KT_NODE_BOOL,
	KT_NODE_INT,
	KT_NODE_FLOAT,
	KT_NODE_STRING,
	KT_NODE_LIST,
	KT_NODE_MAP
};

struct kt_node {
	enum kt_node_type type;
	bool truth;            /* of a bool */
	uint32_t line;         /* of the key of a map's entry, else of the value; from 1 */
	uint32_t len;          /* bytes of text, entries of a list or map */
	const char *key;       /* in a map; NUL-terminated */
	const char *text;      /* scalars: as written; NUL-terminated, may hold NULs itself (len says) */
	struct kt_node *first; /* children */
	struct kt_node *next;  /* sibling */
};

const char *kt_node_type_name(enum kt_node_type type);                         /* "a string", "a list" … */
const struct kt_node *kt_node_get(const struct kt_node *map, const char *key); /* NULL when absent */
/* Follows "spec.dnsNames[2]" as far as it exists; never NULL. */
const struct kt_node *kt_node_find(const struct kt_node *root, const char *path);
/* Bytes that decoding this tree will need at most, roughly. */
size_t kt_node_cost(const struct kt_node *node);

/* --- where trees come from
 * ---------------------------------------------------------------------------------------------- */

/* Decides type and truth of a plain scalar as YAML 1.1 does in Kubernetes. */
void kt_node_resolve(struct kt_node *node);

/*
 * Parses one slice of YAML (one document as a rule) that starts on `line`; calls on_document for each document in it.
 * Mistakes go into the report and skip the rest of the slice. KT_E_NOMEM or what on_document returned otherwise.
 */
typedef enum kt_code kt_tree_fn(void *arg, const struct kt_node *root, struct kt_err *err);
enum kt_code kt_yaml_slice(struct kt_view slice, uint32_t line, const char *file, struct kt_arena *arena,
			   kt_tree_fn *on_document, void *arg, struct kt_report *report, struct kt_err *err);
/* The length of the first document of text, with its separator; at least 1 unless text is empty. */
size_t kt_yaml_document_len(struct kt_view text);

/* The same tree from jansson's; texts are borrowed from value. NULL when memory ran out or it is too deep. */
struct kt_node *kt_node_from_json(const json_t *value, struct kt_arena *arena, unsigned depth);

#endif
