/* A token as its readers will see it: verified with the keys that its server publishes (RFC 7517), which are kept for a while. */
#include <stdio.h>
#include <string.h>

#include "courier/grant/grant_internal.h"
#include "kt/jose.h"
#include "kt/log.h"

#define KEYS_MAX      16u              /* sets */
#define FRESH_FOR     (10 * KT_MINUTE) /* then they are asked for again, as a verifier would */
#define ASK_PAUSE     KT_MINUTE        /* between two requests, however many unknown kids come */
#define FAILED_PAUSE  (10 * KT_SECOND) /* where there are none that could be used meanwhile */
#define STALE_FOR     KT_DAY           /* what an old set is good for when there is no newer one */
#define CLOCKS_LEEWAY (5 * KT_MINUTE)

struct grant_keys {
	struct grant_keys *next;
	struct kt_grant *grant;
	uint8_t hash[KT_SHA256_LEN]; /* of the URL and what it is trusted by */
	struct kt_jwks *set;         /* NULL: none yet */
	kt_ms read_at;
	kt_ms asked_at; /* 0: never */
	struct kt_http_call *call;
	struct kt_err failure; /* of the last request */
};

static kt_ms now(const struct kt_grant *grant)
{
	return kt_clock_mono(kt_loop_clock(grant->courier->loop));
}

/* --- sets ----------------------------------------------------------------------------------------------------------- */

static void keys_destroy(struct grant_keys *keys)
{
	if (keys != NULL) {
		kt_http_cancel(keys->call);
		kt_jose_jwks_destroy(keys->set);
		kt_free(keys);
	}
}

void grant_keys_destroy(struct kt_grant *grant)
{
	while (grant->keys != NULL) {
		struct grant_keys *keys = grant->keys;

		grant->keys = keys->next;
		keys_destroy(keys);
	}
}

static bool is_waited_for(const struct grant_keys *keys)
{
	const struct grant_job *job = keys->grant->jobs;

	while (job != NULL && job->keys != keys) {
		job = job->next;
	}
	return job != NULL;
}

/* Those used longest ago make room for one; while jobs wait for more than there may be, there are more. */
static void keys_make_room(struct kt_grant *grant)
{
	struct grant_keys *keys, **at, **last;
	unsigned count;

	do {
		count = 0;
		last = NULL;
		for (at = &grant->keys; *at != NULL; at = &(*at)->next) {
			last = is_waited_for(*at) ? last : at;
			count++;
		}
		if (count >= KEYS_MAX && last != NULL) {
			keys = *last;
			*last = keys->next;
			keys_destroy(keys);
		}
	} while (count > KEYS_MAX && last != NULL);
}

/* The job's set, in front of the others. NULL without memory. */
static struct grant_keys *keys_get(struct kt_grant *grant, const uint8_t hash[KT_SHA256_LEN])
{
	struct grant_keys *keys, **at = &grant->keys;

	while (*at != NULL && memcmp((*at)->hash, hash, KT_SHA256_LEN) != 0) {
		at = &(*at)->next;
	}
	keys = *at;
	if (keys != NULL) {
		*at = keys->next;
	} else {
		keys_make_room(grant);
		keys = kt_calloc(1, sizeof(*keys));
		if (keys == NULL) {
			return NULL;
		}
		keys->grant = grant;
		memcpy(keys->hash, hash, KT_SHA256_LEN);
	}
	keys->next = grant->keys;
	grant->keys = keys;
	return keys;
}

static enum kt_code take_set(struct grant_keys *keys, const struct kt_http_reply *reply, struct kt_err *err)
{
	struct kt_jwks *set = NULL;

	if (reply->status != 200) {
		(void)kt_err_set(err, reply->status == 429 || reply->status >= 500 ? KT_E_LATER : KT_E_PROTO, "HTTP %ld",
				 reply->status);
		err->retry_after_s = reply->retry_after;
		grant_is_broken(reply->status, err);
		return err->code;
	}
	if (kt_jose_jwks_parse(reply->body, &set, err) != KT_OK) {
		err->code = err->code == KT_E_NOTFOUND ? KT_E_PROTO : err->code;
		return err->code;
	}
	kt_jose_jwks_destroy(keys->set);
	keys->set = set;
	keys->read_at = now(keys->grant);
	return KT_OK;
}

/* --- one token -------------------------------------------------------------------------------------------------------- */

static enum kt_code check(const struct grant_job *job, const struct grant_keys *keys, struct kt_err *err)
{
	struct kt_jwt_rules rules = {.now = kt_clock_wall(kt_loop_clock(keys->grant->courier->loop)),
				     .leeway = CLOCKS_LEEWAY};
	enum kt_code code = kt_jose_jwt_verify(kt_secret_view(job->token.token), keys->set, &rules, NULL, err);

	if (code == KT_E_TIMEOUT || code == KT_E_LATER) { /* the signature is good; of its times the keeper is the judge */
		kt_err_clear(err);
		return KT_OK;
	}
	if (code == KT_OK) {
		return KT_OK;
	}
	(void)snprintf(err->problem_type, sizeof(err->problem_type), "tokenUnverified");
	return kt_err_prefix(err, "its token is refused, as its readers would do, by %.200s", job->keys_url);
}

static bool is_old(const struct grant_keys *keys)
{
	return keys->set == NULL || now(keys->grant) - keys->read_at > FRESH_FOR;
}

static bool is_usable(const struct grant_keys *keys)
{
	return keys->set != NULL && now(keys->grant) - keys->read_at <= STALE_FOR;
}

static bool may_ask(const struct grant_keys *keys)
{
	return keys->asked_at == 0 ||
	       now(keys->grant) - keys->asked_at >= (is_usable(keys) ? ASK_PAUSE : FAILED_PAUSE);
}

/* With what there is: the newest set, or one that is not too old, or none. */
static void judge(struct grant_job *job, struct grant_keys *keys)
{
	job->keys = NULL;
	kt_err_clear(&job->verdict);
	if (is_usable(keys)) {
		(void)check(job, keys, &job->verdict);
	} else {
		job->verdict = keys->failure;
		if (job->verdict.problem_type[0] == '\0' && job->verdict.code != KT_E_NET && job->verdict.code != KT_E_TIMEOUT) {
			(void)snprintf(job->verdict.problem_type, sizeof(job->verdict.problem_type), "keysUnreadable");
		}
		(void)kt_err_prefix(&job->verdict, "its token can't be verified: the keys at %.200s can't be read", job->keys_url);
	}
	grant_job_verified(job);
}

static void on_keys(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_keys *keys = arg;

	keys->call = NULL;
	keys->failure = *err;
	if (err->code == KT_OK && take_set(keys, reply, &keys->failure) != KT_OK && keys->set != NULL) {
		kt_log_err(KT_LOG_WARN, &keys->failure, "the keys of a token server can't be read: those of before are used");
	}
	for (struct grant_job *job = keys->grant->jobs; job != NULL;) {
		if (job->keys == keys) {
			judge(job, keys);
			job = keys->grant->jobs; /* which it has left */
		} else {
			job = job->next;
		}
	}
}

static void ask(struct grant_job *job, struct grant_keys *keys)
{
	struct kt_http_request request = {.method = "GET",
					  .url = job->keys_url,
					  .named = job->keys_named,
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = "application/jwk-set+json, application/json",
					  .traceparent = kt_view_str(job->traceparent)};

	keys->asked_at = now(keys->grant);
	keys->asked_at += keys->asked_at == 0;
	job->keys = keys;
	if (kt_http_send(keys->grant->courier->http, &request, on_keys, keys, &keys->call, &keys->failure) != KT_OK) {
		judge(job, keys);
	}
}

/* Where the keys are: as the manifest says, or the metadata. */
static enum kt_code locate(struct grant_job *job, uint8_t hash[KT_SHA256_LEN], struct kt_err *err)
{
	const char *said = kt_json_str(job->issuer, "jwksURL");
	struct kt_sha256 sha;

	job->keys_url = said != NULL ? said : job->at.keys;
	job->keys_named = said != NULL ? said : job->named;
	if (job->keys_url == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "its token can't be verified: the metadata names no jwks_uri on the "
				  "issuer's own host; give spec.oauth2.jwksURL");
	}
	if (kt_sha256_init(&sha, err) != KT_OK) {
		return KT_E_NOMEM;
	}
	kt_sha256_add(&sha, job->keys_url, strlen(job->keys_url) + 1);
	kt_sha256_add(&sha, job->ca_bundle, strlen(job->ca_bundle) + 1);
	kt_sha256_finish(&sha, hash);
	return KT_OK;
}

void grant_job_verify(struct grant_job *job)
{
	uint8_t hash[KT_SHA256_LEN];
	struct grant_keys *keys = NULL;

	kt_err_clear(&job->verdict);
	if (locate(job, hash, &job->verdict) == KT_OK) {
		keys = keys_get(job->grant, hash);
		if (keys == NULL) {
			(void)kt_err_set(&job->verdict, KT_E_NOMEM, "out of memory for a token server's keys");
		}
	}
	if (keys == NULL) {
		grant_job_verified(job);
	} else if (keys->call != NULL) {
		job->keys = keys; /* somebody has asked */
	} else if (!is_old(keys) && check(job, keys, &job->verdict) == KT_OK) {
		grant_job_verified(job);
	} else if (may_ask(keys)) {
		ask(job, keys);
	} else {
		judge(job, keys);
	}
}
