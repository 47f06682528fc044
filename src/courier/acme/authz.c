/* Authorizations and http-01 (RFC 8555 sections 7.5 and 8.3): answer what is open, and say why one failed. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/text.h"

static const char explaining[] = "validation";

bool acme_token_ok(const char *token)
{
	size_t len = token == NULL ? 0 : strnlen(token, 257);

	return len >= 16 && len <= 256 &&
	       strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == len;
}

static struct acme_authz *current(struct acme_job *job)
{
	return &job->authzs[job->authz_at];
}

static void next(struct acme_job *job)
{
	job->authz_at++;
	acme_authz_step(job);
}

static const json_t *find_challenge(const json_t *authz, const char *type)
{
	const json_t *list = json_object_get(authz, "challenges");

	for (size_t i = 0; i < json_array_size(list) && i < 64; i++) {
		const char *has = kt_json_str(json_array_get(list, i), "type");

		if (has != NULL && strcmp(has, type) == 0) {
			return json_array_get(list, i);
		}
	}
	return NULL;
}

/* Why an authorization that is no longer pending failed. */
static enum kt_code describe(const struct acme_authz *authz, const json_t *object, struct kt_err *err)
{
	const json_t *list = json_object_get(object, "challenges");
	const char *status = kt_json_str(object, "status");
	const char *name = authz->identifier != NULL ? authz->identifier : "a name";

	for (size_t i = 0; i < json_array_size(list) && i < 64; i++) {
		json_t *problem = json_object_get(json_array_get(list, i), "error");

		if (json_is_object(problem)) {
			(void)acme_problem(problem, 0, 0, err);
			if (err->code == KT_E_PROTO) {
				err->code = KT_E_DENIED;
			}
			return kt_err_prefix(err, "the CA could not validate %.100s", name);
		}
	}
	return kt_err_set(err, KT_E_DENIED, "the authorization for %.100s is '%.40s'", name,
			  status != NULL ? status : "");
}

static bool asked_for(const struct acme_job *job, const char *value, bool wildcard)
{
	for (size_t i = 0; i < job->name_count; i++) {
		const char *name = job->names[i].value;

		if (wildcard && kt_starts_with(name, "*.")) {
			name += 2;
		}
		if (kt_ascii_ieq(kt_view_str(name), kt_view_str(value))) {
			return true;
		}
	}
	return false;
}

static void on_told(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	const char *status;

	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	status = kt_json_str(answer->json, "status");
	if (status != NULL && strcmp(status, "invalid") == 0) {
		acme_authz_explain(job);
		return;
	}
	if (answer->http->retry_after > job->poll_wait) {
		job->poll_wait = answer->http->retry_after;
	}
	next(job);
}

static void tell(struct acme_job *job)
{
	job->step = "answering the http-01 challenge";
	acme_post(job, current(job)->challenge_url, KT_VIEW_LIT("{}"), ACME_POST_REPEAT, on_told);
}

static void answer_challenge(struct acme_job *job, const json_t *object)
{
	struct acme_authz *authz = current(job);
	const json_t *challenge = find_challenge(object, "http-01");
	const char *token = kt_json_str(challenge, "token"), *url = kt_json_str(challenge, "url");
	const char *status = kt_json_str(challenge, "status");

	if (challenge == NULL) {
		acme_job_failf(job, KT_E_UNSUPPORTED, "the CA offers no http-01 challenge for %.100s%s",
			       authz->identifier,
			       kt_json_bool(object, "wildcard", false) ? " (a wildcard needs dns-01)" : "");
	} else if (!acme_token_ok(token)) {
		acme_job_failf(job, KT_E_PROTO, "the CA's challenge for %.100s has a token that is not base64url",
			       authz->identifier);
	} else if (!acme_server_owns(job->server, url)) {
		acme_job_failf(job, KT_E_PROTO, "the CA's challenge for %.100s lies elsewhere: '%.200s'",
			       authz->identifier, url != NULL ? url : "");
	} else {
		authz->token = kt_strdup(token);
		authz->challenge_url = kt_strdup(url);
		if (authz->token == NULL || authz->challenge_url == NULL) {
			acme_job_failf(job, KT_E_NOMEM, "out of memory for a challenge");
			return;
		}
		/* One that is being looked at already (a resumed order) must only be served. */
		acme_job_present(job, authz, status != NULL && strcmp(status, "pending") != 0 ? next : tell);
	}
}

static void on_authz(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	struct acme_authz *authz = current(job);
	const json_t *identifier;
	const char *status, *value;
	struct kt_err why;

	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	status = kt_json_str(answer->json, "status");
	identifier = json_object_get(answer->json, "identifier");
	value = kt_json_str(identifier, "value");
	if (status == NULL || value == NULL || strlen(value) > KT_NAME_MAX ||
	    !asked_for(job, value, kt_json_bool(answer->json, "wildcard", false))) {
		acme_job_failf(job, KT_E_PROTO, "the CA's authorization is for '%.100s', which nobody asked for",
			       value != NULL ? value : "");
		return;
	}
	kt_free(authz->identifier);
	authz->identifier = kt_strdup(value);
	if (authz->identifier == NULL) {
		acme_job_failf(job, KT_E_NOMEM, "out of memory for an authorization");
	} else if (strcmp(status, "valid") == 0) {
		next(job);
	} else if (strcmp(status, "pending") == 0) {
		answer_challenge(job, answer->json);
	} else {
		(void)describe(authz, answer->json, &why);
		acme_job_fail(job, &why);
	}
}

void acme_authz_step(struct acme_job *job)
{
	kt_ms wait;

	if (job->authz_at < job->authz_count) {
		job->step = "reading an authorization";
		acme_post(job, current(job)->url, KT_VIEW_LIT(""), 0, on_authz);
		return;
	}
	job->step = "waiting for the order";
	wait = job->poll_wait > 0 ? job->poll_wait * KT_SECOND : job->poll_next;
	job->poll_wait = 0;
	acme_job_pause(job, wait, acme_order_poll);
}

static void on_explained(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	struct acme_authz *authz = current(job);
	const char *status = err->code == KT_OK ? kt_json_str(answer->json, "status") : NULL;
	struct kt_err why;

	if (status != NULL && strcmp(status, "valid") != 0 && strcmp(status, "pending") != 0) {
		(void)describe(authz, answer->json, &why);
		acme_job_fail(job, &why);
		return;
	}
	job->authz_at++;
	acme_authz_explain(job);
}

void acme_authz_explain(struct acme_job *job)
{
	if (job->step != explaining) {
		job->step = explaining;
		job->authz_at = 0;
	}
	if (job->authz_at < job->authz_count) {
		acme_post(job, current(job)->url, KT_VIEW_LIT(""), 0, on_explained);
		return;
	}
	acme_job_failf(job, KT_E_DENIED, "the CA says the order is invalid and gives no reason");
}
