/* JOSE: JWK, thumbprints, JWS (flattened for ACME, compact for JWT), JWT claims and their rules, JWK sets. */
#ifndef KT_JOSE_H
#define KT_JOSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"
#include "kt/pki.h"

#define KT_JOSE_JWKS_BYTES_MAX (256u * 1024u)
#define KT_JOSE_JWKS_MAX 64u                 /* usable keys; more are ignored */
#define KT_JOSE_JWT_MAX (16u * 1024u)        /* bytes of one compact JWT */
#define KT_JOSE_PAYLOAD_MAX (128u * 1024u)   /* bytes that we sign */

enum kt_jose_alg {
	KT_JOSE_NONE = 0, /* as input: the key's own; never accepted on a token */
	KT_JOSE_ES256,
	KT_JOSE_ES384,
	KT_JOSE_ES512,
	KT_JOSE_RS256,
	KT_JOSE_PS256,
	KT_JOSE_EDDSA,
	KT_JOSE_ALG_COUNT
};

const char *kt_jose_alg_name(enum kt_jose_alg alg);
/* KT_JOSE_NONE for unknown names ("none", "HS256"). */
enum kt_jose_alg kt_jose_alg_parse(const char *name);
/* RS256 for RSA, ES* by the curve, EdDSA. */
enum kt_jose_alg kt_jose_alg_default(const struct kt_key *key);
bool kt_jose_alg_fits(enum kt_jose_alg alg, const struct kt_key *key);

/* The public JWK with exactly the members of RFC 7638 in lexical order: {"crv":…,"kty":…,"x":…,"y":…}. Adds to out. */
enum kt_code kt_jose_jwk(const struct kt_key *key, struct kt_buf *out, struct kt_err *err);
/* A private RSA or EC key as JWK, all its members (RSA: also p, q, dp, dq, qi). KT_E_CRYPTO, KT_E_PROTO. *ret is the caller's. */
enum kt_code kt_jose_jwk_private(struct kt_view text, struct kt_key **ret, struct kt_err *err);
/* For a JWKS: adds "alg", "kid" (NULL: the thumbprint) and "use":"sig". */
enum kt_code kt_jose_jwk_published(const struct kt_key *key, enum kt_jose_alg alg, const char *kid, struct kt_buf *out,
                                   struct kt_err *err);
/* base64url SHA-256 thumbprint, 43 characters and NUL. */
#define KT_JOSE_THUMBPRINT 44u
enum kt_code kt_jose_thumbprint(const struct kt_key *key, char out[KT_JOSE_THUMBPRINT], struct kt_err *err);

/* Raw JWS signature (RFC 7518: r||s for ECDSA) over data, base64url added to out / checked (KT_E_CRYPTO). */
enum kt_code kt_jose_sign(const struct kt_key *key, enum kt_jose_alg alg, struct kt_view data, struct kt_buf *out,
                          struct kt_err *err);
enum kt_code kt_jose_verify(const struct kt_key *key, enum kt_jose_alg alg, struct kt_view data,
                            struct kt_view signature, struct kt_err *err);

/* The protected header of RFC 8555 section 6.2; NULL members are left out. */
struct kt_jws_header {
	enum kt_jose_alg alg; /* KT_JOSE_NONE: the key's default */
	const char *nonce;    /* newNonce isn't needed for key-change's inner JWS */
	const char *url;
	const char *kid;      /* the account URL; when NULL the jwk is put in */
};

/* {"protected":…,"payload":…,"signature":…}, added to out; payload empty: POST-as-GET. */
enum kt_code kt_jose_jws_acme(const struct kt_key *key, const struct kt_jws_header *header, struct kt_view payload,
                              struct kt_buf *out, struct kt_err *err);

/* MACs by which a CA knows whom an account belongs to. */
enum kt_jose_mac { KT_JOSE_HS256 = 0, KT_JOSE_HS384, KT_JOSE_HS512 };
/*
 * The same object with a MAC: the external account binding of RFC 8555 section 7.3.4, over the account's public key
 * (kt_jose_jwk). mac_key: raw bytes, 16 at least; kid: the CA's name for it. KT_E_INVALID, KT_E_CRYPTO.
 */
enum kt_code kt_jose_jws_mac(enum kt_jose_mac mac, struct kt_view mac_key, const char *kid, const char *url,
                             struct kt_view payload, struct kt_buf *out, struct kt_err *err);

/* "<token>.<thumbprint>" of RFC 8555 section 8.1; token must be base64url of at most 256 characters. */
enum kt_code kt_jose_key_authorization(const struct kt_key *account, const char *token, struct kt_buf *out,
                                       struct kt_err *err);

/* --- JWT ----------------------------------------------------------------------------------------------------------- */

/* What goes into a token; NULL and 0 members are left out. Times in seconds since the epoch. */
struct kt_jwt_claims {
	const char *typ; /* header: "at+jwt", "JWT"; NULL: none */
	const char *kid; /* header; NULL: none */
	const char *iss, *sub, *jti;
	struct kt_strs aud; /* one: a string, several: an array */
	int64_t iat, nbf, exp;
	const json_t *extra; /* object with further claims; may not repeat the above (KT_E_INVALID) */
	bool jwk;            /* header: the public key itself, as a DPoP proof has it (RFC 9449 section 4.2) */
};
/* The compact token: a secret. */
enum kt_code kt_jose_jwt_sign(const struct kt_key *key, enum kt_jose_alg alg, const struct kt_jwt_claims *claims,
                              struct kt_secret **ret, struct kt_err *err);
/* The same with a MAC by a secret that both sides know, as client_secret_jwt wants it; 16 bytes at least. */
enum kt_code kt_jose_jwt_mac(enum kt_jose_mac mac, struct kt_view mac_key, const struct kt_jwt_claims *claims,
                             struct kt_secret **ret, struct kt_err *err);

/* Keys by which to verify. */
struct kt_jwks;

/*
 * RFC 7517 section 5 from a stranger: at most KT_JOSE_JWKS_BYTES_MAX; keys that can't be used for verification here are
 * skipped (unknown kty or crv, use other than sig, key_ops without verify), those that mustn't exist refuse the whole set
 * (oct, private members, RSA outside 2048..8192 bits or exponent even or outside [3, 2^32], EC point off its curve, a kid
 * above 256 bytes). KT_E_PROTO, KT_E_CRYPTO, KT_E_LIMIT. A set without any usable key is KT_E_NOTFOUND.
 */
enum kt_code kt_jose_jwks_parse(struct kt_view text, struct kt_jwks **ret, struct kt_err *err);
void kt_jose_jwks_destroy(struct kt_jwks *set);
size_t kt_jose_jwks_count(const struct kt_jwks *set);
const char *kt_jose_jwks_kid(const struct kt_jwks *set, size_t index); /* "" when it has none */
const struct kt_key *kt_jose_jwks_key(const struct kt_jwks *set, size_t index);

struct kt_jwt_rules {
	kt_ms now;            /* wall */
	kt_ms leeway;         /* for exp, nbf and iat; at most 5 minutes */
	const char *typ;      /* wanted header typ, without case, "application/" may precede; NULL: any */
	const char *iss;      /* NULL: any */
	const char *aud;      /* must be among the token's; NULL: any */
	uint32_t algs;        /* bits 1 << enum kt_jose_alg; 0: all that we know. Must fit the key as well */
	bool need_exp;        /* exp must be there */
	kt_ms max_life;       /* refuse exp further than this ahead; 0: no limit */
};

struct kt_jwt {
	json_t *header, *claims; /* owned */
	const char *iss, *sub, *kid, *jti; /* borrowed from them; NULL when absent */
	int64_t iat, nbf, exp;   /* seconds; 0 when absent */
};

/*
 * Signature and rules, whole: strict base64url, three parts, no "none", crit and b64 refused, no duplicate members, types of
 * iss, sub, jti, aud, exp, nbf, iat checked. KT_E_PROTO (malformed), KT_E_CRYPTO (signature, key, alg), KT_E_POLICY (rules;
 * KT_E_TIMEOUT when expired, KT_E_LATER when not valid yet). ret may be NULL; kt_jose_jwt_finish after success.
 */
enum kt_code kt_jose_jwt_verify(struct kt_view token, const struct kt_jwks *keys, const struct kt_jwt_rules *rules,
                                struct kt_jwt *ret, struct kt_err *err);
/* Header and claims without a check of the signature: for looking at tokens that are not for us. Same limits and types. */
enum kt_code kt_jose_jwt_peek(struct kt_view token, struct kt_jwt *ret, struct kt_err *err);
void kt_jose_jwt_finish(struct kt_jwt *jwt);

#endif
