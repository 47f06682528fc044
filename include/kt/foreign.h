/* What others read of a call, as far as `keyturn check` looks at it: Istio's security resources, API Manager's policies
 * and Flex Gateway's files. The agent itself passes over them. */
#ifndef KT_FOREIGN_H
#define KT_FOREIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/manifest.h"

struct kt_node;

/* Conventions as in manifest_types.h: strings live in the arena of their document, NULL when absent. */

enum kt_foreign_kind {
	KT_FOREIGN_NONE = 0,
	KT_FOREIGN_REQUEST_AUTHENTICATION, /* security.istio.io */
	KT_FOREIGN_AUTHORIZATION_POLICY,
	KT_FOREIGN_PEER_AUTHENTICATION,
	KT_FOREIGN_API_POLICY,   /* API Manager's policy, or a PolicyBinding of gateway.mulesoft.com */
	KT_FOREIGN_API_INSTANCE, /* gateway.mulesoft.com */
	KT_FOREIGN_SERVICE,      /* gateway.mulesoft.com */
	KT_FOREIGN_OTHER         /* of these groups, but nothing that a call meets */
};

/* A text and the line it stands on. */
struct kt_foreign_text {
	const char *text; /* NULL when absent */
	uint32_t line;    /* of the nearest parent when absent */
};

struct kt_foreign_texts {
	struct kt_foreign_text *items;
	uint32_t count;
	uint32_t line;
	bool given;
};

/* Which workloads: sorted "label=value", or "targetRef=Kind/name"; empty: all of the namespace. */
typedef struct kt_foreign_texts kt_foreign_selector;

struct kt_foreign_header {
	const char *name;
	const char *prefix; /* NULL: none */
};

/* One of RequestAuthentication's spec.jwtRules. */
struct kt_foreign_jwt_rule {
	uint32_t line, index;
	struct kt_foreign_text issuer, jwks_uri, jwks;
	struct kt_foreign_texts audiences;
	struct kt_foreign_header *headers;
	uint32_t header_count;
	bool elsewhere; /* fromHeaders, fromParams or fromCookies is given: the usual places are not looked at */
	bool forward;   /* forwardOriginalToken */
	uint32_t from_line;
};

/* A list of what is wanted and one of what must not be; both match with exact text, "x*", "*x" and "*". */
struct kt_foreign_match {
	const char *field; /* "principals", "requestPrincipals", or the key of `when` */
	struct kt_foreign_texts values, not_values;
};

#define KT_FOREIGN_SOURCE_FIELDS                                                                                       \
	6u /* principals requestPrincipals namespaces serviceAccounts ipBlocks remoteIpBlocks */
#define KT_FOREIGN_TARGET_FIELDS 4u /* hosts ports methods paths */

struct kt_foreign_source {
	struct kt_foreign_match fields[KT_FOREIGN_SOURCE_FIELDS];
};
struct kt_foreign_operation {
	struct kt_foreign_match fields[KT_FOREIGN_TARGET_FIELDS];
};

struct kt_foreign_rule {
	uint32_t line, index;
	struct kt_foreign_source *from;
	uint32_t from_count;
	struct kt_foreign_operation *to;
	uint32_t to_count;
	struct kt_foreign_match *when;
	uint32_t when_count;
};

enum kt_foreign_action { KT_FOREIGN_ALLOW = 0, KT_FOREIGN_DENY, KT_FOREIGN_AUDIT, KT_FOREIGN_CUSTOM };

enum kt_foreign_policy {
	KT_FOREIGN_POLICY_OTHER = 0,
	KT_FOREIGN_POLICY_JWT,
	KT_FOREIGN_POLICY_CLIENT_ID,
	KT_FOREIGN_POLICY_TLS
};

struct kt_foreign_claim {
	const char *key, *value; /* value: text, or "#[...]" */
	uint32_t line;
	bool mandatory;
};

/* Configuration of an API Manager policy; defaults are those of the policy. */
struct kt_foreign_config {
	enum kt_foreign_policy policy;
	struct kt_foreign_text origin;     /* jwtOrigin, or credentialsOriginHasHttpBasicAuthenticationHeader */
	struct kt_foreign_text expression; /* jwtExpression, or clientIdExpression of Client ID Enforcement */
	struct kt_foreign_text signing_method, key_length, key_origin, text_key;
	struct kt_foreign_texts jwks_urls;
	int64_t jwks_minutes; /* jwksServiceTimeToLive; 60 when absent */
	uint32_t jwks_minutes_line;
	bool skip_client_id;
	struct kt_foreign_text client_id; /* clientIdExpression */
	bool validate_aud, mandatory_aud, mandatory_exp, mandatory_nbf, validate_custom;
	uint32_t mandatory_nbf_line;
	struct kt_foreign_texts audiences;
	struct kt_foreign_claim *claims;
	uint32_t claim_count;
	bool client_certificate; /* tls: requireClientCertificate */
	uint32_t line;
};

struct kt_foreign {
	enum kt_foreign_kind kind;
	const char *kind_name; /* as written; "API policy" where there is none */
	const char *file;
	uint32_t line;
	const char *ns, *name; /* ns: "default" when absent */
	kt_foreign_selector selector;
	/* RequestAuthentication */
	struct kt_foreign_jwt_rule *jwt_rules;
	uint32_t jwt_rule_count;
	/* AuthorizationPolicy */
	enum kt_foreign_action action;
	struct kt_foreign_rule *rules;
	uint32_t rule_count;
	/* PeerAuthentication */
	bool strict;
	uint32_t strict_line;
	/* API policy */
	struct kt_foreign_config config;
	const char *config_path; /* "spec.config", "configurationData", "" */
	int64_t order;
	bool disabled;
	struct kt_foreign_text target_kind, target; /* PolicyBinding's targetRef */
	const char *address;                        /* ApiInstance, Service */
	struct kt_arena *arena;
};

/* True for a document that only `check` reads. */
bool kt_foreign_is(const struct kt_node *root);

/* Takes one document; owns it from here (kt_foreign_destroy). */
typedef enum kt_code kt_foreign_fn(void *arg, struct kt_foreign *foreign, struct kt_err *err);

/*
 * Reads the foreign documents of one file, or of a bundle, and passes over all others without a word. What can't be
 * understood in them is a complaint. Bounded as kt_manifest_read is; KT_OK even when there are complaints.
 */
enum kt_code kt_foreign_read(struct kt_view text, const char *file, kt_foreign_fn *on_foreign, void *arg,
			     struct kt_report *report, struct kt_err *err);
enum kt_code kt_foreign_read_bundle(struct kt_view bundle, kt_foreign_fn *on_foreign, void *arg,
				    struct kt_report *report, struct kt_err *err);
void kt_foreign_destroy(struct kt_foreign *foreign); /* NULL is accepted */

#endif
