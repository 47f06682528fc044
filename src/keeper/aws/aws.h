/* Sessions of AWS roles inside the keeper: the requests for them, signed here, and what an SDK fetches at the listener. */
#ifndef KEEPER_AWS_AWS_H
#define KEEPER_AWS_AWS_H

#include "keeper/keeper.h"

/*
 * A walk through a session. session.c asks the courier (KT_AWS_SESSION), which asks back for the request itself when it is
 * about to send it (KT_AWS_REQUEST): request.c writes it, for IAM Roles Anywhere signed at that moment by the key of a
 * Certificate, which never leaves the keeper. What comes back is three texts as JSON: the token of the Token, type "AWS".
 */
#define KT_AWS_TOKEN_TYPE "AWS"

/* --- request.c: pure ---------------------------------------------------------------------------------------------------- */

/* One request. init/finish. */
struct kt_aws_request {
	struct kt_buf headers; /* lines "Name: value\n" */
	struct kt_buf body;
	size_t hidden; /* so many bytes at the end of body are a secret */
};
void kt_aws_request_init(struct kt_aws_request *request);
void kt_aws_request_finish(struct kt_aws_request *request);

/* The URL that is asked; adds to out. */
enum kt_code kt_aws_url(const struct kt_aws_issuer *aws, struct kt_buf *out, struct kt_err *err);
/* AssumeRoleWithWebIdentity. session_name: where the issuer has none. */
enum kt_code kt_aws_web_identity(const struct kt_aws_issuer *aws, const char *session_name, struct kt_view token,
                                 struct kt_aws_request *ret, struct kt_err *err);
/* CreateSession, signed at the moment `now` (the server's) with the key of chain's first certificate. */
enum kt_code kt_aws_roles_anywhere(const struct kt_aws_issuer *aws, const struct kt_chain *chain, const struct kt_key *key,
                                   kt_ms now, struct kt_aws_request *ret, struct kt_err *err);
/* The string that is signed, for tests; as kt_aws_roles_anywhere. Adds to out. */
enum kt_code kt_aws_string_to_sign(const struct kt_aws_issuer *aws, const struct kt_chain *chain, kt_ms now,
                                   struct kt_buf *out, struct kt_err *err);
/* Lower-case hex as a decimal number; out: 64 bytes. KT_E_LIMIT: it has more digits. */
enum kt_code kt_aws_decimal(const char *hex, char out[64], struct kt_err *err);

#endif
