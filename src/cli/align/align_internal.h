/* The inside of the alignment: set, hops, calls, answers. */
#ifndef KT_CLI_ALIGN_INTERNAL_H
#define KT_CLI_ALIGN_INTERNAL_H

#include "cli/align/align.h"

#define KT_ANSWERS_MAX 64u
#define KT_VALUES_MAX  160u

struct kt_align_token {
	struct kt_resource *resource;
	const struct kt_resource *issuer;      /* NULL: unknown */
	const char *iss;                       /* NULL: unknown */
	char *jwks;                            /* where the keys are; NULL: unknown */
	char *sub;                             /* NULL: unknown */
	char *scope;                           /* joined; NULL: unknown or none */
	const struct kt_resource *certificate; /* that goes with it; NULL: none */
	const struct kt_resource *client;      /* whose id and secret a Consumer has beside it; NULL: none */
	bool paired;                           /* by certificateRef or a Consumer, not only by standing beside it */
	uint32_t line_audiences, line_duration;
};

struct kt_align_hop {
	bool mesh;
	char *name; /* "mesh payments app=api", "ApiInstance payments" */
	const char *ns;
	const kt_foreign_selector *selector;
	const struct kt_foreign **readers;
	uint32_t reader_count;
};

struct kt_align {
	struct kt_resource **resources; /* all that are kept */
	uint32_t resource_count;
	struct kt_align_token *tokens;
	uint32_t token_count;
	struct kt_foreign **foreigns;
	uint32_t foreign_count;
	struct kt_align_hop *hops;
	uint32_t hop_count;
};

struct kt_call {
	const struct kt_align_token *token;    /* NULL: none */
	const struct kt_resource *certificate; /* NULL: none */
	const struct kt_resource *client;      /* NULL: none */
	bool no_client;                        /* and none from elsewhere */
	const char *method, *path, *host;
	bool expired;
};

/* What one reader answers. */
struct kt_answer_row {
	const struct kt_foreign *reader;
	uint32_t line;
	int status;   /* 200: it goes on; 0: no connection */
	bool certain; /* false: it hangs on what stands in no manifest */
	char field[200], why[420], mend[320];
};

struct kt_answers {
	struct kt_answer_row rows[KT_ANSWERS_MAX];
	uint32_t count;
};

enum kt_tri { KT_NO = 0, KT_MAYBE, KT_YES };

/* --- text.c
 * ------------------------------------------------------------------------------------------------------------ */

/* Equal but for scheme, trailing slashes and case. */
bool kt_align_loosely(const char *a, const char *b);
/* As Envoy compares audiences: without scheme http(s) and one trailing slash. */
bool kt_align_envoy_audience(const char *a, const char *b);
/* Istio's patterns. open: value goes on in a way nobody here knows. */
enum kt_tri kt_align_pattern(const char *pattern, const char *value, bool open);
bool kt_align_same_host(const char *a, const char *b); /* of two URLs */
bool kt_align_same_path(const char *a, const char *b);
const char *kt_align_file_name(const char *path);

/* Values of a claim. known false: nobody here knows; then present says whether it is there for sure. */
struct kt_values {
	const char *items[KT_VALUES_MAX];
	uint32_t count;
	bool known, present;
};
void kt_align_claim(const struct kt_align_token *token, const char *name, struct kt_values *ret);
/* The identity of a Certificate without spiffe://; NULL: none. */
const char *kt_align_spiffe(const struct kt_resource *certificate);
/* False where the extended key usages leave clients out. */
bool kt_align_client_usage(const struct kt_resource *certificate);
/* What the keys of a token would have to be fetched from: KT_YES fits, KT_MAYBE nobody knows, KT_NO it does not. */
enum kt_tri kt_align_jwks(const struct kt_align_token *token, const char *url);
bool kt_align_is_local(const struct kt_align_token *token);
bool kt_align_is_opaque(const struct kt_align_token *token);

/* --- answers
 * ------------------------------------------------------------------------------------------------------------- */

/* Adds a row (status 200, certain); NULL when there are too many: then the last one is used again. */
struct kt_answer_row *kt_align_answer(struct kt_answers *answers, const struct kt_foreign *reader, uint32_t line);
void kt_align_refuse(struct kt_answer_row *row, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void kt_align_pass(struct kt_answer_row *row, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kt_align_mend(struct kt_answer_row *row, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void kt_align_judge_mesh(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret);
void kt_align_judge_api(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret);
void kt_align_judge(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret);
/* The first refusal, or NULL. */
const struct kt_answer_row *kt_align_refusal(const struct kt_answers *answers);

/* rule.c: whether a rule of an AuthorizationPolicy takes a call. */
struct kt_rule_call {
	const struct kt_call *call;
	bool authenticated; /* the token was taken by a RequestAuthentication */
	const struct kt_foreign *policy;
};
/* Why a rule does not match, at its best. */
struct kt_rule_miss {
	unsigned depth; /* how far it went */
	uint32_t line;
	char field[200], why[300], mend[320];
};
enum kt_tri kt_align_rule(const struct kt_rule_call *c, const struct kt_foreign_rule *rule, struct kt_rule_miss *miss);
/* Whether a policy asks for identities of workloads, or of requests. */
bool kt_align_wants_peer(const struct kt_foreign *policy);
bool kt_align_wants_request(const struct kt_foreign *policy);

/* --- findings ---------------------------------------- */

struct kt_finding {
	bool error;
	const char *file;
	uint32_t line;
	const struct kt_align_token *token;
	const struct kt_resource *certificate;
	const struct kt_align_hop *hop;
	const struct kt_foreign *reader;
	int status; /* -1: none */
	char field[200], why[420], mend[320];
};

struct kt_finder {
	const struct kt_align *align;
	json_t *out;
	struct kt_answers answers;
	bool failed;
};

/* "RequestAuthentication ns/name", "API policy jwt-validation". */
void kt_align_reader_name(const struct kt_foreign *reader, char *out, size_t size);
void kt_align_emit(struct kt_finder *finder, const struct kt_finding *finding);
/* A finding about a reader as such, without a status. line 0: the reader's own. */
void kt_align_warn(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *reader,
		   uint32_t line, const char *field, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 7, 8)));
bool kt_align_is_jwt_policy(const struct kt_foreign *f);
bool kt_align_shares_audience(const struct kt_foreign_texts *audiences, const struct kt_align_token *token);
/* lint.c */
void kt_align_lint_mesh(struct kt_finder *finder, const struct kt_align_hop *hop);
void kt_align_lint_api(struct kt_finder *finder, const struct kt_align_hop *hop);
void kt_align_lint_tokens(struct kt_finder *finder);

#endif
