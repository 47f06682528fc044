/*
 * Authorizations (RFC 8555 section 7.5): read all of them, have the keeper answer what is open, tell the CA, and say why
 * one failed. Answers are presented side by side, because a DNS record takes its time to be seen.
 */
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

static void clear_offers(struct acme_authz *authz)
{
	for (size_t i = 0; i < authz->offered_count; i++) {
		kt_free(authz->offered[i].type);
		kt_free(authz->offered[i].url);
		kt_free(authz->offered[i].offer);
	}
	kt_free(authz->offered);
	authz->offered = NULL;
	authz->offered_count = 0;
	authz->chosen = NULL;
}

void acme_authzs_clear(struct acme_job *job)
{
	for (size_t i = 0; i < job->authz_count; i++) {
		kt_wire_forget(job->acme->courier->keeper, &job->authzs[i]);
		clear_offers(&job->authzs[i]);
		kt_free(job->authzs[i].url);
		kt_free(job->authzs[i].identifier);
	}
	kt_free(job->authzs);
	job->authzs = NULL;
	job->authz_count = job->authz_at = 0;
	job->presenting = 0;
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

/* --- telling the CA -------------------------------------------------------------------------------------------------- */

static void tell(struct acme_job *job);

/* The CA looked, found fault, and lets us ask again: a few times, then what it says is the end. */
static void look_again(struct acme_job *job, json_t *problem, int64_t retry_after)
{
	struct acme_authz *authz = current(job);
	kt_ms delay = KT_SECOND << authz->retries;
	struct kt_err err;

	if (authz->retries >= ACME_LOOKS_AGAIN) {
		kt_err_clear(&err);
		(void)acme_problem(problem, 0, retry_after, &err);
		err.code = err.code == KT_E_PROTO ? KT_E_DENIED : err.code;
		(void)kt_err_prefix(&err, "the CA could not validate %.100s", authz->identifier);
		acme_job_fail(job, &err);
		return;
	}
	authz->retries++;
	authz->told = false;
	acme_job_pause(job, delay < retry_after * KT_SECOND ? retry_after * KT_SECOND : delay, tell);
}

static void on_told(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	const char *status;
	json_t *problem;

	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	status = kt_json_str(answer->json, "status");
	problem = json_object_get(answer->json, "error");
	if (status != NULL && strcmp(status, "invalid") == 0) {
		acme_authz_explain(job);
		return;
	}
	if (json_is_object(problem) && status != NULL && strcmp(status, "pending") == 0) {
		look_again(job, problem, answer->http->retry_after);
		return;
	}
	if (answer->http->retry_after > job->poll_wait) {
		job->poll_wait = answer->http->retry_after;
	}
	tell(job);
}

static void tell(struct acme_job *job)
{
	int64_t wait;

	for (job->authz_at = 0; job->authz_at < job->authz_count; job->authz_at++) {
		struct acme_authz *authz = current(job);

		if (authz->chosen == NULL || authz->told) {
			continue;
		}
		authz->told = true;
		/* One that is being looked at already (a resumed order) must only be served. */
		if (authz->chosen->pending) {
			job->step = "answering the challenge";
			acme_post(job, authz->chosen->url, KT_VIEW_LIT("{}"), ACME_POST_REPEAT, on_told);
			return;
		}
	}
	job->step = "waiting for the order";
	wait = job->poll_wait;
	job->poll_wait = 0;
	acme_order_wait(job);
	acme_order_poll_later(job, wait);
}

/* --- presenting -------------------------------------------------------------------------------------------------------- */

static void present(struct acme_job *job);

/* Whatever hindered our own side is no failure of the CA: without a name of its own it gets one. */
static void blame_solver(struct kt_err *why)
{
	switch (why->code) {
	case KT_E_NET:
	case KT_E_TIMEOUT:
	case KT_E_PROTO:
	case KT_E_LIMIT:
	case KT_E_LATER:
	case KT_E_CRYPTO:
		if (why->problem_type[0] == '\0') {
			(void)snprintf(why->problem_type, sizeof(why->problem_type), "solver");
		}
		break;
	default:
		break;
	}
}

static void on_presented(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
			 void *arg)
{
	struct acme_authz *authz = arg;
	struct acme_job *job = authz->job;
	const struct kt_msg_challenged *done = msg;

	(void)fds, (void)fd_count;
	job->presenting--;
	if (err->code != KT_OK) {
		struct kt_err why = *err;

		if (strstr(why.what, authz->identifier) == NULL) {
			(void)kt_err_prefix(&why, "%.100s", authz->identifier);
		}
		blame_solver(&why);
		acme_job_fail(job, &why);
		return;
	}
	for (size_t i = 0; type == KT_CHALLENGED && i < authz->offered_count; i++) {
		if (kt_view_eq_str(done->type, authz->offered[i].type)) {
			authz->chosen = &authz->offered[i];
		}
	}
	if (authz->chosen == NULL) {
		acme_job_failf(job, KT_E_PROTO, "%.100s: the keeper chose a challenge that was not offered",
			       authz->identifier);
		return;
	}
	present(job);
}

/* Asks the keeper to answer (offer: all that is offered) or to take the answer back (only the chosen one). */
static enum kt_code ask(struct acme_authz *authz, bool there, kt_wire_reply_fn *fn, struct kt_err *err)
{
	struct acme_job *job = authz->job;
	struct kt_msg_challenge msg = {.job = job->id,
				       .present = there,
				       .wildcard = authz->wildcard,
				       .name = kt_view_str(authz->identifier)};
	KT_AUTOBUF struct kt_buf offered = {0};
	enum kt_code code;

	kt_buf_init(&offered, 16384);
	kt_buf_adds(&offered, "[");
	for (size_t i = 0; i < authz->offered_count; i++) {
		if (there || authz->chosen == NULL || authz->chosen == &authz->offered[i]) {
			kt_buf_adds(&offered, offered.len > 1 ? "," : "");
			kt_buf_adds(&offered, authz->offered[i].offer);
		}
	}
	kt_buf_adds(&offered, "]");
	code = kt_buf_check(&offered, "what the CA offers", err);
	if (code != KT_OK) {
		return code;
	}
	msg.offered = kt_buf_view(&offered);
	return kt_wire_call(job->acme->courier->keeper, KT_CHALLENGE, &msg, NULL, 0,
			    there ? ACME_PRESENT_TIME : ACME_KEEPER_TIME, fn, there ? authz : NULL, err);
}

static void present(struct acme_job *job)
{
	bool open = false;
	struct kt_err err;

	kt_err_clear(&err);
	job->step = "answering the challenge";
	for (size_t i = 0; i < job->authz_count; i++) {
		struct acme_authz *authz = &job->authzs[i];

		if (authz->offered_count == 0 || authz->chosen != NULL) {
			continue;
		}
		open = true;
		if (authz->asked || job->presenting >= ACME_PRESENTING_MAX) {
			continue;
		}
		authz->asked = true;
		job->presenting++;
		if (ask(authz, true, on_presented, &err) != KT_OK) {
			acme_job_fail(job, &err);
			return;
		}
	}
	if (!open) {
		acme_job_restart_clock(job, 0);
		tell(job);
	}
}

static void ignore_reply(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
			 void *arg)
{
	(void)err, (void)type, (void)msg, (void)fds, (void)fd_count, (void)arg;
}

void acme_authzs_withdraw(struct acme_job *job)
{
	struct kt_err ignored;

	for (size_t i = 0; i < job->authz_count; i++) {
		if (job->authzs[i].asked) {
			job->authzs[i].asked = false;
			(void)ask(&job->authzs[i], false, ignore_reply, &ignored);
		}
	}
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

/* Takes one challenge of an authorization, where it is one that can be handed to the keeper. */
static enum kt_code take_offer(struct acme_job *job, struct acme_authz *authz, const json_t *object, struct kt_err *err)
{
	const char *type = kt_json_str(object, "type"), *url = kt_json_str(object, "url");
	const char *token = kt_json_str(object, "token"), *status = kt_json_str(object, "status");
	json_t *domains = json_object_get(object, "issuer-domain-names");
	struct acme_challenge *offer = &authz->offered[authz->offered_count];
	KT_AUTOJSON json_t *copy = NULL;

	if (type == NULL || strlen(type) > 31 || (json_object_get(object, "token") != NULL && !acme_token_ok(token)) ||
	    (domains != NULL && (!json_is_array(domains) || json_array_size(domains) > 10))) {
		return kt_err_set(err, KT_E_PROTO,
				  "the CA's challenge for %.100s is not one, or has a token that is not base64url",
				  authz->identifier);
	}
	if (!acme_server_owns(job->server, url)) {
		return kt_err_set(err, KT_E_PROTO, "the CA's challenge for %.100s lies elsewhere: '%.200s'",
				  authz->identifier, url != NULL ? url : "");
	}
	copy = json_pack("{s:s}", "type", type);
	if (copy == NULL || (token != NULL && json_object_set_new(copy, "token", json_string(token)) != 0) ||
	    (domains != NULL && json_object_set(copy, "issuer-domain-names", domains) != 0)) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a challenge");
	}
	offer->type = kt_strdup(type);
	offer->url = kt_strdup(url);
	offer->offer = json_dumps(copy, JSON_COMPACT);
	offer->pending = status == NULL || strcmp(status, "pending") == 0;
	authz->offered_count++; /* from here on it is freed with the authorization */
	return offer->type != NULL && offer->url != NULL && offer->offer != NULL
		       ? KT_OK
		       : kt_err_set(err, KT_E_NOMEM, "out of memory for a challenge");
}

static enum kt_code take_offers(struct acme_job *job, struct acme_authz *authz, const json_t *object,
				struct kt_err *err)
{
	const json_t *list = json_object_get(object, "challenges");
	size_t count = json_array_size(list);

	if (count == 0 || count > ACME_CHALLENGES_MAX) {
		return kt_err_set(err, count == 0 ? KT_E_UNSUPPORTED : KT_E_PROTO, "the CA offers %s for %.100s",
				  count == 0 ? "no challenge" : "too many challenges", authz->identifier);
	}
	clear_offers(authz);
	authz->offered = kt_calloc(count, sizeof(*authz->offered));
	if (authz->offered == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a challenge");
	}
	/* What can't be used is left out; it matters only when nothing else is offered. */
	for (size_t i = 0; i < count; i++) {
		if (take_offer(job, authz, json_array_get(list, i), err) == KT_E_NOMEM) {
			return KT_E_NOMEM;
		}
	}
	if (authz->offered_count == 0) {
		return err->code;
	}
	kt_err_clear(err);
	return KT_OK;
}

static void on_authz(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	struct acme_authz *authz = current(job);
	const char *status, *value;
	struct kt_err why;

	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	status = kt_json_str(answer->json, "status");
	value = kt_json_str(json_object_get(answer->json, "identifier"), "value");
	authz->wildcard = kt_json_bool(answer->json, "wildcard", false);
	if (status == NULL || value == NULL || strlen(value) > KT_NAME_MAX || !asked_for(job, value, authz->wildcard)) {
		acme_job_failf(job, KT_E_PROTO, "the CA's authorization is for '%.100s', which nobody asked for",
			       value != NULL ? value : "");
		return;
	}
	kt_free(authz->identifier);
	authz->identifier = kt_strdup(value);
	if (authz->identifier == NULL) {
		acme_job_failf(job, KT_E_NOMEM, "out of memory for an authorization");
		return;
	}
	kt_err_clear(&why);
	if (strcmp(status, "pending") == 0) {
		(void)take_offers(job, authz, answer->json, &why);
	} else if (strcmp(status, "valid") != 0) {
		(void)describe(authz, answer->json, &why);
		acme_order_refused(job, &why);
		return;
	}
	if (why.code != KT_OK) {
		acme_job_fail(job, &why);
		return;
	}
	job->authz_at++;
	acme_authz_step(job);
}

void acme_authz_step(struct acme_job *job)
{
	if (job->authz_at < job->authz_count) {
		job->step = "reading an authorization";
		acme_post(job, current(job)->url, KT_VIEW_LIT(""), 0, on_authz);
		return;
	}
	acme_job_restart_clock(job, ACME_PRESENT_TIME);
	present(job);
}

/* --- explaining ------------------------------------------------------------------------------------------------------------ */

static void on_explained(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	struct acme_authz *authz = current(job);
	const char *status = err->code == KT_OK ? kt_json_str(answer->json, "status") : NULL;
	struct kt_err why;

	if (status != NULL && strcmp(status, "valid") != 0 && strcmp(status, "pending") != 0) {
		(void)describe(authz, answer->json, &why);
		acme_order_refused(job, &why);
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
