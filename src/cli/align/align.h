/* Alignment: what a mesh, API Manager and Flex Gateway would answer to calls with our Tokens and Certificates. */
#ifndef KT_CLI_ALIGN_H
#define KT_CLI_ALIGN_H

#include <jansson.h>

#include "kt/foreign.h"
#include "kt/manifest.h"

/*
 * A walk through. The set takes our resources and the foreign documents. Readers that stand behind one another in one
 * place make a hop: all Istio resources that hold for one workload, or all policies of one API. A call is a Token and
 * the Certificate that goes with it. judge_mesh.c and judge_api.c say what each reader of a hop answers to a call, by
 * the rules of the reader; align.c turns that into findings by trying every call that is meant for a hop, lint.c adds
 * what no call shows. All of it is pure.
 */
struct kt_align;

enum kt_code kt_align_create(struct kt_align **ret, struct kt_err *err);
void kt_align_destroy(struct kt_align *align); /* NULL is accepted */
/* Owns what it is given, also on failure. Kinds that don't matter here are let go at once. Call inside the callback of
 * the reading, for exact lines. */
enum kt_code kt_align_add(struct kt_align *align, struct kt_resource *resource, struct kt_err *err);
enum kt_code kt_align_add_foreign(struct kt_align *align, struct kt_foreign *foreign, struct kt_err *err);
/* After the last one: resolves references and makes hops. */
enum kt_code kt_align_ready(struct kt_align *align, struct kt_err *err);
uint32_t kt_align_foreign_count(const struct kt_align *align);

/*
 * Findings, in the order of hops: {severity "error"|"warning", file, line, field, token, certificate, hop, reader,
 * status, why, mend, text}. token, certificate, status and mend may be absent; status 0 is a refused connection. New
 * reference; NULL when memory ran out.
 */
json_t *kt_align_findings(const struct kt_align *align);

/* One call, for a prediction. */
struct kt_align_call {
	const char *token;                /* [NAMESPACE/]NAME; NULL: without */
	const char *certificate;          /* NULL: the one that goes with the token; "-": without */
	const char *client;               /* ClientCredential: the same */
	const char *method, *path, *host; /* NULL: not said */
	bool expired;                     /* the token is past its end */
};
/*
 * Rows {hop, reader, status, certain, answer "200"|"401"|...|"refused", why, file, line}, a row a reader in order; in a
 * hop nothing follows a refusal. KT_E_NOTFOUND: no such Token, Certificate or ClientCredential. *ret_status: the first refusal, else 200.
 */
enum kt_code kt_align_predict(const struct kt_align *align, const struct kt_align_call *call, json_t **ret_rows,
			      int *ret_status, struct kt_err *err);

#endif
