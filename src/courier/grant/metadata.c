/* Finding a job's endpoint: the tokenURL itself, or the metadata that the issuer publishes, kept for a while. */
#include <string.h>

#include "courier/grant/grant_internal.h"

#define METADATA_MAX 16u
#define METADATA_FOR (10 * KT_MINUTE)

static kt_ms now(const struct kt_grant *grant)
{
	return kt_clock_mono(kt_loop_clock(grant->courier->loop));
}

void grant_metadata_destroy(struct grant_metadata *entry)
{
	if (entry != NULL) {
		grant_endpoints_finish(&entry->at);
		kt_free(entry);
	}
}

/* Forgets what is too old, and the oldest of too many. */
static void tidy(struct kt_grant *grant)
{
	unsigned count = 0;

	for (struct grant_metadata **at = &grant->metadata; *at != NULL;) {
		struct grant_metadata *entry = *at;

		if (entry->until <= now(grant) || ++count > METADATA_MAX) {
			*at = entry->next;
			grant_metadata_destroy(entry);
		} else {
			at = &entry->next;
		}
	}
}

static enum kt_code copy(const struct grant_endpoints *from, struct grant_endpoints *to)
{
	for (unsigned i = 0; i < GRANT_ENDPOINT_COUNT; i++) {
		if ((from->plain[i] != NULL && (to->plain[i] = kt_strdup(from->plain[i])) == NULL) ||
		    (from->mtls[i] != NULL && (to->mtls[i] = kt_strdup(from->mtls[i])) == NULL)) {
			return KT_E_NOMEM;
		}
	}
	return from->keys == NULL || (to->keys = kt_strdup(from->keys)) != NULL ? KT_OK : KT_E_NOMEM;
}

static void keep(const struct grant_job *job)
{
	struct kt_grant *grant = job->grant;
	struct grant_metadata *entry = kt_calloc(1, sizeof(*entry));

	if (entry == NULL || copy(&job->at, &entry->at) != KT_OK) {
		grant_metadata_destroy(entry);
		return;
	}
	memcpy(entry->hash, job->hash, sizeof(entry->hash));
	entry->until = now(grant) + METADATA_FOR;
	entry->next = grant->metadata;
	grant->metadata = entry;
}

/* Which of the endpoints it is: for a connection that shows a certificate its alias, where there is one. */
static void choose(struct grant_job *job)
{
	static const char *const names[GRANT_ENDPOINT_COUNT] = {"token", "revocation", "introspection"};
	enum grant_endpoint which = job->op == NULL                  ? GRANT_TOKEN_ENDPOINT
				    : strcmp(job->op, "revoke") == 0 ? GRANT_REVOCATION
								     : GRANT_INTROSPECTION;
	struct kt_err err;

	job->url = job->mtls && job->at.mtls[which] != NULL ? job->at.mtls[which] : job->at.plain[which];
	if (job->url == NULL) {
		(void)kt_err_set(&err, KT_E_UNSUPPORTED,
				 job->by_metadata
					 ? "the server's metadata names no %s endpoint"
					 : "spec.oauth2.tokenURL names no %s endpoint: give its issuer instead",
				 names[which]);
		grant_job_fail(job, &err);
		return;
	}
	grant_job_try(job);
}

static void discover(struct grant_job *job, const struct kt_err *last);

/* The one of those who wait for the metadata of this issuer that came first, or NULL. */
static struct grant_job *next_waiting(const struct kt_grant *grant, const uint8_t hash[KT_SHA256_LEN])
{
	struct grant_job *first = NULL;

	for (struct grant_job *job = grant->jobs; job != NULL; job = job->next) {
		if (job->waits && memcmp(job->hash, hash, sizeof(job->hash)) == 0) {
			first = job;
		}
	}
	return first;
}

/* What was found, or why nothing was, is so for all who waited for it. */
static void tell_waiting(struct grant_job *job, const struct kt_err *why)
{
	struct grant_job *other;

	job->discovers = false;
	while ((other = next_waiting(job->grant, job->hash)) != NULL) {
		struct kt_err err = *why;

		other->waits = false;
		if (err.code == KT_OK && copy(&job->at, &other->at) != KT_OK) {
			(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for a token request");
		}
		if (err.code == KT_OK) {
			choose(other);
		} else {
			grant_job_fail(other, &err);
		}
	}
}

static void give_up(struct grant_job *job, const struct kt_err *why)
{
	tell_waiting(job, why);
	grant_job_fail(job, why);
}

void grant_metadata_pass_on(const struct grant_job *gone)
{
	struct grant_job *other = NULL;

	if (gone->discovers && !gone->grant->dropping) {
		other = next_waiting(gone->grant, gone->hash);
	}
	if (other != NULL) {
		other->waits = false;
		other->discovers = true;
		discover(other, NULL);
	}
}

static void on_metadata(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct grant_job *job = arg;
	struct kt_err why = *err;

	job->call = NULL;
	if (why.code == KT_OK && grant_metadata_parse(reply, job->named, &job->at, &why) == KT_OK) {
		grant_server_learn(grant_server_get(job->grant, job->at.plain[GRANT_TOKEN_ENDPOINT]), reply);
		keep(job);
		tell_waiting(job, &why);
		choose(job);
	} else if (why.code == KT_E_NOTFOUND) {
		job->well_known++;
		discover(job, &why);
	} else {
		give_up(job, &why);
	}
}

/* Asks at the next well-known place; last is what the one before said. */
static void discover(struct grant_job *job, const struct kt_err *last)
{
	struct kt_http_request request = {.method = "GET",
					  .named = job->named,
					  .ca_bundle = kt_view_str(job->ca_bundle),
					  .accept = "application/json",
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_buf url;
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&url, KT_URL_MAX + 64);
	if (grant_well_known(job->named, job->well_known, &url, &err) == KT_OK) {
		request.url = url.ptr;
		(void)kt_http_send(job->grant->courier->http, &request, on_metadata, job, &job->call, &err);
	} else if (err.code == KT_E_NOTFOUND && last != NULL) {
		err = *last;
		err.code = KT_E_PROTO;
	}
	kt_buf_finish(&url);
	if (err.code != KT_OK) {
		give_up(job, &err);
	}
}

/* Whether another job reads the same metadata just now. */
static bool is_discovered(const struct grant_job *job)
{
	for (const struct grant_job *other = job->grant->jobs; other != NULL; other = other->next) {
		if (other->discovers && memcmp(other->hash, job->hash, sizeof(job->hash)) == 0) {
			return true;
		}
	}
	return false;
}

void grant_job_locate(struct grant_job *job)
{
	enum kt_code code = KT_E_NOTFOUND;
	struct kt_err err;

	tidy(job->grant);
	if (!job->by_metadata) {
		job->at.plain[GRANT_TOKEN_ENDPOINT] = kt_strdup(job->named);
		code = job->at.plain[GRANT_TOKEN_ENDPOINT] != NULL ? KT_OK : KT_E_NOMEM;
	}
	for (struct grant_metadata *entry = job->grant->metadata; job->by_metadata && entry != NULL;
	     entry = entry->next) {
		if (memcmp(entry->hash, job->hash, sizeof(entry->hash)) == 0) {
			code = copy(&entry->at, &job->at);
			break;
		}
	}
	if (code == KT_OK) {
		choose(job);
	} else if (code == KT_E_NOTFOUND && is_discovered(job)) {
		job->waits = true;
	} else if (code == KT_E_NOTFOUND) {
		job->discovers = true;
		discover(job, NULL);
	} else {
		(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for a token request");
		grant_job_fail(job, &err);
	}
}
