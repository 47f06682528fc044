/* What the typed forms of several kinds of manifests are made of. */
#ifndef KT_MANIFEST_PARTS_H
#define KT_MANIFEST_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/clock.h"

/*
 * Conventions of all structs here:
 *  - strings are NUL-terminated UTF-8 in the arena of their resource; NULL when the field is absent and has no default;
 *  - lists are {items, count}; absent lists have count 0;
 *  - a pointer to a struct is NULL when the field is absent; an embedded struct is always there, filled with defaults;
 *  - durations are kt_ms; 0 when absent without a default;
 *  - enumerations have their default value when absent.
 * Everything lives as long as its struct kt_resource. Nothing here is written to after decoding.
 */

enum kt_kind {
	KT_RES_NONE = 0,
	KT_RES_ISSUER,         /* cert-manager.io/v1 */
	KT_RES_CLUSTER_ISSUER, /* cert-manager.io/v1, without a namespace */
	KT_RES_CERTIFICATE,    /* cert-manager.io/v1 */
	KT_RES_SECRET,         /* v1 */
	KT_RES_TOKEN_ISSUER,   /* keyturn.dev/v1alpha1, as all below */
	KT_RES_TOKEN,
	KT_RES_CONSUMER,
	KT_RES_AGENT, /* without a namespace */
	KT_RES_WATCH,
	KT_RES_CLIENT_CREDENTIAL,
	KT_RES_COUNT
};

struct kt_strings {
	const char **items;
	uint32_t count;
};

struct kt_pair {
	const char *key;
	const char *value;
};

/* map[string]string, in order of the keys. */
struct kt_pairs {
	struct kt_pair *items;
	uint32_t count;
};

/* Decoded base64 (fields of format byte); not NUL-terminated. ptr is NULL when absent. */
struct kt_bytes {
	const unsigned char *ptr;
	uint32_t len;
};

struct kt_meta {
	const char *ns; /* metadata.namespace, "default" when absent; "" for ClusterIssuer and Agent */
	const char *name;
	struct kt_pairs labels;
	struct kt_pairs annotations;
};

/* The value of key, or NULL. */
const char *kt_pairs_get(const struct kt_pairs *pairs, const char *key);

struct kt_issuer_ref {
	const char *name;
	enum kt_kind kind; /* KT_RES_ISSUER (default of Certificate), KT_RES_CLUSTER_ISSUER, KT_RES_TOKEN_ISSUER */
	const char *group; /* cert-manager.io or keyturn.dev */
};

/* One key of a Secret in the same namespace. */
struct kt_secret_ref {
	const char *name;
	const char *key; /* never NULL: each use names its default (tls.key, client-secret, password …) */
};

/* A program, run by the warden without a shell. */
struct kt_exec {
	struct kt_strings argv; /* argv[0] absolute; no shell */
	const char *user;       /* NULL: the agent's own; root only when it says root */
	const char *group;
	kt_ms timeout;       /* 30 s when absent */
	struct kt_pairs env; /* on top of the documented fixed environment */
};

/* A maintenance window: opens when cron fires (5 fields, in timezone), stays open for window_duration. */
struct kt_window {
	const char *cron;
	const char *timezone; /* IANA name, "UTC" when absent */
	kt_ms window_duration;
};

struct kt_windows {
	struct kt_window *items;
	uint32_t count;
};

#endif
