/* What a job asks the keeper for just before its request goes out: secrets, key, assertion, proof, one after the other.
 */
#include <string.h>

#include "courier/grant/grant_internal.h"

#define KEEPER_TIME (30 * KT_SECOND)

/* As CLIENT_SECRET names them; NULL: not asked for by name. */
static const char *const names[GRANT_SECRET_COUNT] = {
	[GRANT_CLIENT_SECRET] = "client_secret", [GRANT_SUBJECT] = "subject_token",
	[GRANT_ACTOR] = "actor_token",           [GRANT_BEARER] = "assertion",
	[GRANT_REFRESH] = "refresh_token",
};

/* Lowest bit first: what must be fresh is asked for last. */
static unsigned next_of(unsigned asks)
{
	return asks & (~asks + 1);
}

/* Each take_… moves what the reply gave into the job. */
static enum kt_code take_secret(struct grant_job *job, unsigned bit, struct kt_secret **given, struct kt_err *err)
{
	unsigned which = (unsigned)__builtin_ctz(bit);

	if (*given == NULL || kt_secret_len(*given) == 0) {
		return kt_err_set(err, KT_E_NOTFOUND, "the keeper has no %s",
				  which < GRANT_SECRET_COUNT && names[which] != NULL ? names[which] : "secret");
	}
	kt_secret_destroy(job->secrets[which]);
	job->secrets[which] = *given;
	job->input.secret[which] = *given;
	*given = NULL;
	return KT_OK;
}

static enum kt_code take_assertion(struct grant_job *job, struct kt_msg_assertion_given *given, struct kt_err *err)
{
	enum kt_code code = take_secret(job, 1u << GRANT_CLIENT_ASSERTION, &given->assertion, err);

	kt_free(job->assertion_type);
	job->assertion_type = NULL;
	if (code == KT_OK && given->type.len == 0) {
		code = kt_err_set(err, KT_E_PROTO, "the keeper gave an assertion without a type");
	}
	if (code == KT_OK) {
		code = kt_courier_copy(given->type, &job->assertion_type, err);
	}
	job->input.assertion_type = job->assertion_type;
	return code;
}

static enum kt_code take_key(struct grant_job *job, struct kt_msg_client_key_given *given, struct kt_err *err)
{
	if (given->key == NULL || given->chain.len == 0) {
		return kt_err_set(err, KT_E_NOTFOUND, "the keeper has no client certificate");
	}
	kt_secret_destroy(job->key);
	job->key = given->key;
	given->key = NULL;
	kt_buf_reset(&job->chain);
	kt_buf_addv(&job->chain, given->chain);
	return kt_buf_check(&job->chain, "a client certificate", err);
}

static enum kt_code take_proof(struct grant_job *job, const struct kt_msg_dpop_proof_given *given, struct kt_err *err)
{
	if (given->proof.len == 0) {
		return kt_err_set(err, KT_E_NOTFOUND, "the keeper gave no DPoP proof");
	}
	kt_buf_reset(&job->proof);
	kt_buf_addv(&job->proof, given->proof);
	return kt_buf_check(&job->proof, "a DPoP proof", err);
}

static void on_given(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct grant_job *job = arg;
	unsigned bit = next_of(job->asks);
	struct kt_err why = *err;

	(void)fds;
	(void)fd_count;
	if (why.code != KT_OK) {
		grant_job_fail(job, &why);
		return;
	}
	if (bit == GRANT_ASK_ASSERTION && type == KT_ASSERTION_GIVEN) {
		(void)take_assertion(job, msg, &why);
	} else if (bit == GRANT_ASK_KEY && type == KT_CLIENT_KEY_GIVEN) {
		(void)take_key(job, msg, &why);
	} else if (bit == GRANT_ASK_PROOF && type == KT_DPOP_PROOF_GIVEN) {
		(void)take_proof(job, msg, &why);
	} else if (bit < GRANT_ASK_KEY && type == KT_CLIENT_SECRET_GIVEN) {
		(void)take_secret(job, bit, &((struct kt_msg_client_secret_given *)msg)->secret, &why);
	} else {
		(void)kt_err_set(&why, KT_E_PROTO, "the keeper answered with something else");
	}
	if (why.code != KT_OK) {
		grant_job_fail(job, &why);
		return;
	}
	job->asks &= ~bit;
	grant_job_ask(job);
}

static enum kt_code call(struct grant_job *job, enum kt_msg_type type, const void *msg, struct kt_err *err)
{
	return kt_wire_call(job->grant->courier->keeper, type, msg, NULL, 0, KEEPER_TIME, on_given, job, err);
}

static enum kt_code ask_assertion(struct grant_job *job, struct kt_err *err)
{
	struct kt_msg_assertion ask = {.job = job->id,
				       .endpoint = kt_view_str(job->at.plain[GRANT_TOKEN_ENDPOINT]),
				       .issuer = kt_view_str(job->by_metadata ? job->named : ""),
				       .skew = job->skew};

	if (job->op == NULL) {
		ask.endpoint = kt_view_str(job->url);
	}
	return call(job, KT_ASSERTION, &ask, err);
}

/* htu is the URL without query and fragment (RFC 9449 section 4.2). */
static enum kt_code ask_proof(struct grant_job *job, const struct grant_server *server, struct kt_err *err)
{
	struct kt_msg_dpop_proof ask = {.job = job->id,
					.method = KT_VIEW_LIT("POST"),
					.url = {job->url, strcspn(job->url, "?#")},
					.nonce = kt_view_str(server != NULL ? server->nonce : NULL),
					.skew = job->skew};

	return call(job, KT_DPOP_PROOF, &ask, err);
}

void grant_job_ask(struct grant_job *job)
{
	const struct grant_server *server = grant_server_get(job->grant, job->url);
	unsigned bit = next_of(job->asks);
	struct kt_err err;

	kt_err_clear(&err);
	if (bit == 0) {
		grant_job_exchange(job);
		return;
	}
	if (bit == GRANT_ASK_ASSERTION) {
		(void)ask_assertion(job, &err);
	} else if (bit == GRANT_ASK_PROOF) {
		(void)ask_proof(job, server, &err);
	} else if (bit == GRANT_ASK_KEY) {
		struct kt_msg_client_key ask = {.job = job->id};

		(void)call(job, KT_CLIENT_KEY, &ask, &err);
	} else {
		struct kt_msg_client_secret ask = {.job = job->id, .what = kt_view_str(names[__builtin_ctz(bit)])};

		(void)call(job, KT_CLIENT_SECRET, &ask, &err);
	}
	if (err.code != KT_OK) {
		grant_job_fail(job, &err);
	}
}
