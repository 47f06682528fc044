/* The field tables: one row a field, from which decoding, checking, writing, schema and reference page are made. */
#ifndef KT_MANIFEST_FIELD_H
#define KT_MANIFEST_FIELD_H

#include <stdarg.h>
#include <stddef.h>

#include "manifest/node.h"

/*
 * A walk through. A kind has a table of top fields (metadata, spec …) relative to struct kt_resource; a table is an
 * array of rows sorted by name. A row says what is read where: name, type, offset in the struct of the table, default,
 * limits, a check of the value, and the sentence for the reference page. decode.c fills structs from trees, encode.c
 * writes the canonical JSON, doc.c the schema and the page: all by walking the same rows. What one field alone can't
 * show (renewBefore against duration) is in the table's check function.
 */

enum kt_field_type {
	KT_F_STRING,   /* const char * */
	KT_F_BOOL,     /* bool */
	KT_F_INT,      /* int64_t */
	KT_F_DURATION, /* kt_ms */
	KT_F_MODE,     /* int64_t; "0440" in the manifest */
	KT_F_ENUM,     /* an enum (int) */
	KT_F_FLAGS,    /* uint32_t; a list of names in the manifest */
	KT_F_BYTES,    /* struct kt_bytes; base64 in the manifest */
	KT_F_STRINGS,  /* struct kt_strings */
	KT_F_PAIRS,    /* struct kt_pairs */
	KT_F_SECRETS,  /* struct kt_secret_items; several rows may add to one list */
	KT_F_STRUCT,   /* embedded struct of `object` */
	KT_F_OBJECT,   /* pointer to a struct of `object`, NULL when absent */
	KT_F_LIST,     /* {items, count} of structs of `object` */
	KT_F_FIXED,    /* read elsewhere (apiVersion, kind); in schema and page only */
	KT_F_IGNORED,  /* accepted without effect; doc says why */
	KT_F_REFUSED   /* known, not offered; doc says why and what to do */
};

enum {
	KT_F_REQUIRED = 1,  /* must be there and not empty */
	KT_F_CHOICE = 2,    /* member of the table's choice: see struct kt_table */
	KT_F_BASE64 = 4,    /* of KT_F_SECRETS: values are base64 */
	KT_F_QUIET = 8,     /* the value is never shown in a complaint */
	KT_F_WARN = 16,     /* of KT_F_IGNORED: a warning when given */
	KT_F_OPTIONAL = 32, /* of KT_F_STRUCT: its required fields are asked for only when it is given */
};

struct kt_enum_name {
	const char *name; /* NULL ends the list; the first name of a value is the one that is written */
	int value;
};

/* NULL when the text is good; else what is wrong and how to mend it, to follow the value. */
typedef const char *kt_check_fn(const char *text);

struct kt_table;

struct kt_field {
	const char *name;
	enum kt_field_type type;
	unsigned flags;
	size_t offset;
	const struct kt_table *object;    /* STRUCT, OBJECT, LIST */
	const struct kt_enum_name *names; /* ENUM, FLAGS */
	kt_check_fn *check;               /* STRING, each of STRINGS, each value of PAIRS */
	kt_check_fn *check_key;           /* each key of PAIRS */
	int64_t min, max; /* INT, DURATION (ms; 0, 0: only not negative); STRING, BYTES: max bytes; lists: max items */
	int64_t def;      /* INT, DURATION, MODE, ENUM, FLAGS, BOOL */
	const char *def_text; /* STRING */
	const char *doc;
};

struct kt_decoder;

struct kt_table {
	const char *name; /* of the object, for schema definitions: "PrivateKey" */
	const struct kt_field *fields;
	size_t count;
	size_t size; /* of the struct */
	const char *doc;
	/* How many of the rows with KT_F_CHOICE must be given: between choice_min and choice_max. 0, 0: no choice. */
	unsigned choice_min, choice_max;
	/* Looks at the filled struct; complains by kt_complain with the path of the field below the object ("" for
	 * itself). */
	void (*check)(struct kt_decoder *d, const struct kt_node *node, void *object);
};

#define KT_TABLE_FIELDS(rows) .fields = (rows), .count = sizeof(rows) / sizeof((rows)[0])

/* A path on the stack of the decoder: made of names and indices, put together only for a complaint. */
struct kt_path {
	const struct kt_path *parent;
	const char *name; /* NULL: index */
	uint32_t index;
};

struct kt_decoder {
	struct kt_arena *arena;
	struct kt_report *report;
	const char *file;
	uint32_t line;              /* where there is no better one */
	const struct kt_path *path; /* of the object being read */
	struct kt_resource *resource;
	const struct kt_kind_info *kind;
	unsigned errors; /* complaints about this resource */
};

/* What a kind is. */
struct kt_kind_info {
	enum kt_kind kind;
	const char *name;
	const char *api_version;
	bool namespaced;
	const struct kt_table *top;
	const char *file; /* of the schema: "certificate" */
	const char *doc;
	const char *example; /* a short manifest for the reference page */
};
extern const struct kt_kind_info kt_kind_infos[KT_RES_COUNT];

/* The tables. */
/* What more than one table names. */
extern const struct kt_table kt_table_publish_jwks;
extern const struct kt_enum_name kt_assertion_algs[];
extern const struct kt_table kt_table_meta, kt_table_issuer, kt_table_solver, kt_table_certificate, kt_table_secret,
	kt_table_token_issuer, kt_table_token, kt_table_client_credential, kt_table_consumer, kt_table_exec, kt_table_window,
	kt_table_prove_tls, kt_table_agent, kt_table_watch, kt_table_target;

/* Fills *object (zeroed, of table->size) with defaults, then from node (NULL: defaults only). */
void kt_decode(struct kt_decoder *d, const struct kt_table *table, const struct kt_node *node, void *object);
/* A complaint about the field `name` ("renewBefore", "argv[0]", "" for the object) of node, the object being read. */
void kt_complain(struct kt_decoder *d, const struct kt_node *node, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void kt_warn(struct kt_decoder *d, const struct kt_node *node, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* A duration for a complaint: as it is written in node, else formatted into out. */
const char *kt_written(const struct kt_node *node, const char *name, kt_ms span, char out[32]);
const char *kt_enum_text(const struct kt_enum_name *names, int value); /* "?" for none */

/* Value checks (value.c), each a kt_check_fn. */
kt_check_fn kt_value_name, kt_value_label, kt_value_dns_name, kt_value_dns_domain, kt_value_ip, kt_value_cidr,
	kt_value_email, kt_value_uri, kt_value_url, kt_value_any_url, kt_value_oid, kt_value_path, kt_value_file_path,
	kt_value_relative_path, kt_value_address, kt_value_listen, kt_value_cron, kt_value_timezone, kt_value_key,
	kt_value_user, kt_value_unit, kt_value_cgroup, kt_value_env_name, kt_value_json_path, kt_value_log_field,
	kt_value_header_name, kt_value_header_text, kt_value_scope, kt_value_arn, kt_value_region, kt_value_session_name, kt_value_country, kt_value_label_key,
	kt_value_common_name, kt_value_credential, kt_value_claim_name, kt_value_printable, kt_value_segment;
/* The URL's host is this machine (localhost, 127.0.0.0/8, ::1). */
bool kt_url_is_loopback(const char *url);

#endif
