/* The oauth2 issuer inside the keeper: requests, the courier's questions, what came, bindings, revocation. */
#ifndef KEEPER_OAUTH_OAUTH_H
#define KEEPER_OAUTH_OAUTH_H

#include "kt/jose.h"
#include "keeper/keeper.h"

/*
 * A walk through a token. request.c writes issuer and request as JSON and asks the courier (KT_MINT). While that works it
 * asks back, by the flight's job: answers.c gives secrets, assertions (assertion.c), DPoP proofs, the client's certificate
 * (binding.c), and keeps refresh tokens (refresh.c). check.c judges what came. revoke.c takes superseded tokens back when
 * the old generation is retired.
 *
 * A token's material has the DPoP key in sealed_key, and in finalize_url the fingerprint of the certificate it is bound to.
 */

/* --- request.c ------------------------------------------------------------------------------------------------------- */

/* spec.oauth2 as the courier wants it (KT_MSG_MINT), and how many requests may be under way there; adds to out. */
enum kt_code kt_oauth_issuer_json(const struct kt_oauth2_issuer *oauth2, int64_t in_flight, struct kt_buf *out,
                                  struct kt_err *err);
/* spec.limits.perIssuer, 0 where no Agent says any. */
int64_t kt_oauth_in_flight(const struct kt_keeper *keeper);
/* How long the courier's answer is waited for: as long as it takes when nobody else asks, and all the turns before it. */
kt_ms kt_oauth_patience(const struct kt_keeper *keeper, kt_ms alone);
enum kt_code kt_oauth_request_json(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec,
                                   struct kt_buf *out, struct kt_err *err);
/* A clock that is further off than a day is not followed. */
int64_t kt_oauth_bounded_skew(int64_t seconds);

/* --- check.c: pure ---------------------------------------------------------------------------------------------------- */

/* What a token has to be; NULL members are not looked at. */
struct kt_oauth_wanted {
	kt_ms now;
	const char *issuer;
	struct kt_strs audiences;
	const char *x5t; /* base64url SHA-256 of the certificate that the connection showed */
	const char *jkt; /* thumbprint of the DPoP key */
	bool bound;      /* a JWT has to name the certificate; else only if it names one */
};
/* A JWT's own claims; an opaque token has none and passes. *ret_exp: seconds, 0 when not said; jti: "" when it has none. */
enum kt_code kt_oauth_check_token(struct kt_view token, const struct kt_oauth_wanted *wanted, int64_t *ret_exp,
                                  char jti[128], struct kt_err *err);
/* granted (words; empty: as asked) has all that was asked for. KT_E_DENIED names the first that it lacks. */
enum kt_code kt_oauth_check_scope(const struct kt_strings *asked, struct kt_view granted, struct kt_err *err);
/* RFC 6749 appendix A: nothing that would end a header's line; from: '!' or ' '. */
bool kt_oauth_visible(struct kt_view text, char from);
/* "ab01..." (64 digits) as base64url; out: 44 bytes. */
enum kt_code kt_oauth_x5t(const char *hex, char out[44], struct kt_err *err);

/* --- assertion.c: pure ------------------------------------------------------------------------------------------------- */

#define KT_OAUTH_JWT_BEARER "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#define KT_OAUTH_JWT_SPIFFE "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

/* Where and when an assertion is used. */
struct kt_oauth_moment {
	kt_ms now;            /* our clock */
	int64_t skew;         /* seconds that the server's is ahead */
	const char *endpoint; /* the token endpoint in use */
	const char *issuer;   /* the metadata's, "" when unknown */
};
/* aud of an assertion: the manifest's, else by the profile. */
const char *kt_oauth_assertion_aud(const struct kt_oauth2_issuer *oauth2, const struct kt_oauth_moment *moment);
/* RFC 7523 section 3, by the key (private_key_jwt) or, where that is NULL, by the secret (client_secret_jwt). */
enum kt_code kt_oauth_assertion(const struct kt_oauth2_issuer *oauth2, const struct kt_key *key, struct kt_view secret,
                                const struct kt_oauth_moment *moment, struct kt_secret **ret, struct kt_err *err);

/* A DPoP proof, RFC 9449 section 4.2. */
struct kt_oauth_proof {
	struct kt_view method, url, nonce; /* nonce empty: none */
	struct kt_view token;              /* goes with it (ath); empty: none */
	kt_ms now;                         /* the server's */
};
enum kt_code kt_oauth_proof(const struct kt_key *key, enum kt_assertion_alg alg, const struct kt_oauth_proof *proof,
                            struct kt_secret **ret, struct kt_err *err);
enum kt_jose_alg kt_oauth_alg(enum kt_assertion_alg alg);

/* --- binding.c --------------------------------------------------------------------------------------------------------- */

/* secretName of the Certificate that the connection shows, or NULL. */
const char *kt_oauth_certificate_ref(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec);
/* The Certificate in force of a secretName: what is asked for may be NULL. KT_E_LATER: never issued yet. */
enum kt_code kt_oauth_certificate(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_buf *chain,
                                  struct kt_secret **key, char sha256[72], struct kt_err *err);
/* The newest valid token of a secretName. KT_E_LATER: there is none now. */
enum kt_code kt_oauth_token_of(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_secret **ret,
                               struct kt_err *err);
/* Looks whether this secret is there (NULL: none is needed); else KT_E_LATER, and the flight waits for it. */
enum kt_code kt_oauth_need(struct kt_flight *flight, const char *secret_name, enum kt_store_kind kind, struct kt_err *err);
/* Looks whether all that the token is made of is there; else KT_E_LATER, and the flight waits for it. */
enum kt_code kt_oauth_needs(struct kt_flight *flight, struct kt_err *err);

/* --- answers.c --------------------------------------------------------------------------------------------------------- */

/*
 * The issuer as it is now: where the client's secret is that of a ClientCredential, the client id is that one's too, and is
 * remembered in the flight. Borrows from both.
 */
enum kt_code kt_oauth_issuer_now(struct kt_flight *flight, struct kt_oauth2_issuer *ret, struct kt_err *err);

/* --- remedy.c: pure ------------------------------------------------------------------------------------------------------ */

/* Adds to a server's refusal (code and problem_type) what helps, as far as the refusal tells. */
void kt_oauth_remedy(const struct kt_oauth2_issuer *oauth2, const struct kt_token_spec *spec, struct kt_err *err);

/* --- refresh.c --------------------------------------------------------------------------------------------------------- */

/* The refresh token that the flight's try uses. KT_E_NOTFOUND: no further one is kept. */
enum kt_code kt_oauth_refresh_get(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err);
/* Another came: it is the newest from now on, and the one that was used is kept. Once a try. Commits. */
enum kt_code kt_oauth_refresh_save(struct kt_flight *flight, struct kt_view token, struct kt_err *err);
/* The try was a success: what is older than the token that was used goes. Commits. */
enum kt_code kt_oauth_refresh_worked(struct kt_flight *flight, struct kt_err *err);
/* The server refused the one that was tried; true when there is an older one to be tried now. */
bool kt_oauth_refresh_older(struct kt_flight *flight);

#endif
