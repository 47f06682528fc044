/* Feedback of consumers: a token that its server refused is minted anew, once. */
#ifndef KEEPER_REFUSED_H
#define KEEPER_REFUSED_H

#include "keeper/keeper.h"

/* The token in force was seen refused (a 401): due now, until another one is in place. A flag among KT_CRED_*. */
#define KT_CRED_REFUSED 0x2000u

/* A token is minted anew for this reason once in a tenth of its life, and never more often than this. */
#define KT_REFUSED_PAUSE (10 * KT_SECOND)

enum kt_refused {
	KT_REFUSED_MINTING, /* it is due from now on */
	KT_REFUSED_ALREADY, /* another one is being minted already */
	KT_REFUSED_NEWER,   /* the token that was refused is not the one in force */
	KT_REFUSED_DAMPED,  /* it was minted for this reason a moment ago */
};
/* "minting", "already-minting", "newer", "damped". */
const char *kt_refused_name(enum kt_refused outcome);

struct kt_refusal {
	enum kt_refused outcome;
	kt_ms minted_at;    /* of the token in force; 0: there is none */
	kt_ms again_at;     /* DAMPED: from then on; ALREADY after a failure: the next try; 0: not known */
	char sha256[72];    /* of the token in force, "" when there is none */
	char trace_id[33];  /* MINTING: of the record, and of the rotation that follows */
	char text[256];     /* one line for people */
};

/*
 * Somebody saw the token refused whose SHA-256 is sha256 (hex, lower case; "": the newest). actor: for the audit; consumer:
 * the Consumer that it uses, or NULL. Has its own transaction.
 */
enum kt_code kt_token_refused(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                              const struct kt_store_cred *cred, const char *sha256, const char *actor,
                              const char *consumer, struct kt_refusal *ret, struct kt_err *err);

/* {"outcome", "message", "sha256"?, "traceId"?, "mintedAt"?, "againAt"?}; adds to out. */
void kt_refusal_json(const struct kt_refusal *refusal, struct kt_buf *out);

/* token_ask.c: a question of the desk; arg: the keeper. */
void kt_token_on_ask(struct kt_wire_in *in, void *arg);
/* The desk that asked is gone. */
void kt_token_asks_forget(struct kt_keeper *keeper);
void kt_token_asks_finish(struct kt_keeper *keeper);

#endif
