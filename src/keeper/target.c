/* Uploads to Anypoint Platform (secret groups, private spaces), and the look at what lies there. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/oauth/oauth.h"
#include "keeper/refused.h"
#include "keeper/target.h"

static const struct kt_target *target_of(const struct kt_task_run *run)
{
	return &run->consumer->consumer.targets.items[run->target];
}

static const struct kt_anypoint_api *api_of(const struct kt_task_run *run)
{
	const struct kt_target *target = target_of(run);

	return target->secret_group != NULL ? &target->secret_group->api : &target->private_space->api;
}

/* What is replaced there, for people. */
static const char *what_of(const struct kt_task_run *run)
{
	return target_of(run)->secret_group != NULL ? "keystore" : "TLS context";
}

static int nth_target(const struct kt_task_run *run, int index)
{
	const struct kt_targets *targets = &run->consumer->consumer.targets;
	uint32_t i;

	for (i = 0; i < targets->count; i++) {
		if (strcmp(targets->items[i].secret, run->secret_name) == 0 && index-- == 0) {
			return (int)i;
		}
	}
	return -1;
}

int kt_target_count(const struct kt_task_run *run)
{
	int count = 0;

	while (nth_target(run, count) >= 0) {
		count++;
	}
	return count;
}

/* --- answers ------------------------------------------------------------------------------------------------------------ */

/* The token was refused: another one is minted, and the next try has it. */
static void say_refused(struct kt_task_run *run)
{
	struct kt_keeper *keeper = run->keeper;
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	struct kt_refusal refusal;

	if (kt_store_cred_find_secret(keeper->store, run->resource.ns, api_of(run)->token_ref, &cred, NULL) == KT_OK &&
	    kt_store_resource_get(keeper->store, cred.id, &resource, NULL) == KT_OK) {
		(void)kt_token_refused(keeper, &resource, &cred, "", "agent", run->task.consumer_name, &refusal, NULL);
	}
	kt_store_resource_finish(&resource);
	kt_store_cred_finish(&cred);
}

/* What an answer that is no 2xx means. 503 without a body is how rate limits were seen. */
static enum kt_code judge(struct kt_task_run *run, const struct kt_msg_http_done *done, struct kt_err *err)
{
	struct kt_secret *token KT_AUTOSECRET = NULL;
	char reason[320];
	enum kt_code code = KT_E_DENIED;

	if (done->status >= 200 && done->status <= 299) {
		return KT_OK;
	}
	(void)kt_oauth_token_of(run->keeper, run->resource.ns, api_of(run)->token_ref, &token, NULL);
	kt_target_reason(done->value, api_of(run)->name, token, reason, sizeof(reason));
	if (done->status == 401) {
		code = KT_E_AUTH;
		say_refused(run);
	} else if (done->status == 429 || done->status >= 500) {
		code = KT_E_LATER;
	}
	(void)kt_err_set(err, code, "%s answered with status %u: %s", api_of(run)->host, done->status, reason);
	err->retry_after_s = done->retry_after;
	return code;
}

/* The JSON of a good answer, or why there is none. */
static enum kt_code take(struct kt_task_run *run, const struct kt_err *why, enum kt_msg_type type, const void *msg,
                         json_t **ret, struct kt_err *err)
{
	const struct kt_msg_http_done *done = msg;

	*err = *why;
	if (err->code == KT_OK && type != KT_HTTP_DONE) {
		return kt_err_set(err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err->code == KT_OK && judge(run, done, err) == KT_OK &&
	    kt_json_parse(done->value, KT_TARGET_ANSWER_MAX, ret, err) != KT_OK) {
		err->code = KT_E_PROTO;
		(void)kt_err_prefix(err, "%s", api_of(run)->host);
	}
	return err->code;
}

/* --- requests ----------------------------------------------------------------------------------------------------------- */

struct ask {
	const char *method;
	const char *id;   /* of a keystore; "": all of them */
	const char *type; /* Content-Type, "": nothing is sent */
	struct kt_secret *body;
	kt_wire_reply_fn *fn;
};

/* Of all keystores or TLS contexts there, or of one. */
static void put_url(const struct kt_task_run *run, const char *id, char *out, size_t size)
{
	const struct kt_anypoint_secret_group *group = target_of(run)->secret_group;
	const struct kt_anypoint_api *api = api_of(run);
	const char *slash = id[0] != '\0' ? "/" : "";

	if (group != NULL) {
		(void)snprintf(out, size,
		               "https://%s/secrets-manager/api/v1/organizations/%s/environments/%s/secretGroups/%s/keystores%s%s",
		               api->host, api->organization, group->environment, group->secret_group, slash, id);
	} else {
		(void)snprintf(out, size, "https://%s/runtimefabric/api/organizations/%s/privatespaces/%s/tlsContexts%s%s",
		               api->host, api->organization, target_of(run)->private_space->private_space, slash, id);
	}
}

static enum kt_code send(struct kt_task_run *run, const struct ask *ask, struct kt_err *err)
{
	const struct kt_anypoint_api *api = api_of(run);
	struct kt_secret *token KT_AUTOSECRET = NULL;
	char url[640], traceparent[56];
	struct kt_msg_http msg = {.method = kt_view_str(ask->method),
	                          .content_type = kt_view_str(ask->type),
	                          .ca_bundle = {(const char *)api->ca_bundle.ptr, api->ca_bundle.len},
	                          .timeout_ms = (uint32_t)api->timeout,
	                          .secret_body = ask->body};
	enum kt_code code = kt_oauth_token_of(run->keeper, run->resource.ns, api->token_ref, &token, err);

	if (code != KT_OK) {
		return code;
	}
	put_url(run, ask->id, url, sizeof(url));
	msg.url = kt_view_str(url);
	msg.token = token;
	msg.traceparent = kt_view_str(kt_keeper_traceparent(run->task.trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(run->keeper), KT_HTTP, &msg, NULL, 0, api->timeout + KT_SECOND, ask->fn, run,
	                    err);
}

/* --- reading back ------------------------------------------------------------------------------------------------------- */

/* details.certificate of a keystore against the set that was delivered. */
static enum kt_code compare(struct kt_task_run *run, const json_t *root, struct kt_err *err)
{
	const json_t *certificate = json_object_get(json_object_get(root, "details"), "certificate");
	const char *serial = kt_json_str(certificate, "serialNumber");
	const char *until = kt_json_str(json_object_get(certificate, "validity"), "notAfter");
	char when[32];
	kt_ms not_after = 0;
	struct kt_err shown;

	if (serial == NULL || until == NULL || !kt_target_is_serial(serial)) {
		return kt_err_set(err, KT_E_PROTO, "%s shows no serial and end of validity of keystore %s", api_of(run)->host,
		                  api_of(run)->name);
	}
	if (kt_target_time(until, &not_after, err) != KT_OK) {
		return kt_err_prefix(err, "%s", api_of(run)->host);
	}
	(void)kt_err_set(&shown, KT_OK, "keystore %s has serial %.80s (not after %.40s)", api_of(run)->name, serial, until);
	(void)snprintf(run->seen, sizeof(run->seen), "%s", shown.what);
	(void)snprintf(run->expected, sizeof(run->expected), "serial %s (not after %s)", run->material.serial,
	               kt_time_format(run->material.not_after, when));
	run->task.seen = run->seen;
	run->task.expected = run->expected;
	if (!kt_target_same_serial(serial, run->material.serial) || not_after / 1000 != run->material.not_after / 1000) {
		return kt_err_set(err, KT_E_MISMATCH, "%s, expected %s", run->seen, run->expected);
	}
	return KT_OK;
}

/* A private space shows no serial, only the day of the end. */
static enum kt_code compare_day(struct kt_task_run *run, const json_t *root, struct kt_err *err)
{
	const char *until = kt_json_str(json_object_get(root, "keyStore"), "expirationDate");
	char when[32];
	struct kt_err shown;

	if (until == NULL || !kt_target_is_day(until)) {
		return kt_err_set(err, KT_E_PROTO, "%s shows no end of validity of TLS context %s", api_of(run)->host,
		                  api_of(run)->name);
	}
	(void)kt_err_set(&shown, KT_OK, "TLS context %s ends %.10s (no serial is shown)", api_of(run)->name, until);
	(void)snprintf(run->seen, sizeof(run->seen), "%s", shown.what);
	(void)snprintf(run->expected, sizeof(run->expected), "%.10s", kt_time_format(run->material.not_after, when));
	run->task.seen = run->seen;
	run->task.expected = run->expected;
	return strncmp(until, run->expected, 10) == 0
	               ? KT_OK
	               : kt_err_set(err, KT_E_MISMATCH, "%s, expected %s", run->seen, run->expected);
}

static void on_read(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_task_run *run = arg;
	json_t *root KT_AUTOJSON = NULL;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	if (take(run, why, type, msg, &root, &err) == KT_OK) {
		(void)(target_of(run)->secret_group != NULL ? compare(run, root, &err) : compare_day(run, root, &err));
	}
	kt_task_done(run, &err, false);
}

static enum kt_code read_back(struct kt_task_run *run, const char *id, struct kt_err *err)
{
	return send(run, &(struct ask){.method = "GET", .id = id, .type = "", .fn = on_read}, err);
}

/* --- uploading ---------------------------------------------------------------------------------------------------------- */

/* It comes into URLs. */
static bool id_ok(const char *id)
{
	return id != NULL && id[0] != '\0' && strlen(id) < sizeof(((struct kt_task_run *)0)->target_id) &&
	       strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == strlen(id);
}

static void on_stored(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_task_run *run = arg;
	json_t *root KT_AUTOJSON = NULL;
	const char *id;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	if (take(run, why, type, msg, &root, &err) == KT_OK && run->target_id[0] == '\0') {
		id = kt_json_str(root, "id");
		if (id_ok(id)) {
			(void)snprintf(run->target_id, sizeof(run->target_id), "%s", id);
		} else {
			(void)kt_err_set(&err, KT_E_PROTO, "%s made keystore %s but gave no id", api_of(run)->host,
			                 api_of(run)->name);
		}
	}
	if (err.code != KT_OK || read_back(run, run->target_id, &err) != KT_OK) {
		kt_task_done(run, &err, false);
	}
}

static enum kt_code store(struct kt_task_run *run, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(&run->resource, run->material.revision, "key");
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_secret *body KT_AUTOSECRET = NULL;
	struct kt_key *key KT_AUTOKEY = NULL;
	char boundary[KT_TARGET_BOUNDARY] = "", type[96];
	bool space = target_of(run)->private_space != NULL;
	enum kt_code code = kt_keys_unseal(run->keeper->keys, &id, run->material.sealed_key, &der, err);

	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(der), &key, err);
	}
	if (code == KT_OK) {
		code = space ? kt_target_tls_context(key, run->material.chain, run->material.ca, &body, err)
		             : kt_target_form(target_of(run)->secret_group, key, run->material.chain, run->material.ca, boundary, &body, err);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(type, sizeof(type), "%s%s", space ? "application/json" : "multipart/form-data; boundary=", boundary);
	return send(run,
	            &(struct ask){.method = space ? "PATCH" : run->target_id[0] != '\0' ? "PUT" : "POST",
	                          .id = run->target_id,
	                          .type = type,
	                          .body = body,
	                          .fn = on_stored},
	            err);
}

/* The keystore of our name, if there is one. */
static enum kt_code find(struct kt_task_run *run, const json_t *list, struct kt_err *err)
{
	const char *name = api_of(run)->name;
	bool grouped = target_of(run)->secret_group != NULL;
	const json_t *row;
	size_t i;

	if (!json_is_array(list)) {
		return kt_err_set(err, KT_E_PROTO, "%s gave no list of %ss", api_of(run)->host, what_of(run));
	}
	json_array_foreach(list, i, row)
	{
		const char *seen = kt_json_str(row, "name");
		const char *id = kt_json_str(grouped ? json_object_get(row, "meta") : row, "id");

		if (seen == NULL || strcmp(seen, name) != 0) {
			continue;
		}
		if (!id_ok(id)) {
			return kt_err_set(err, KT_E_PROTO, "%s shows %s %s without an id", api_of(run)->host, what_of(run), name);
		}
		(void)snprintf(run->target_id, sizeof(run->target_id), "%s", id);
		return KT_OK;
	}
	return KT_OK;
}

static void on_listed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_task_run *run = arg;
	json_t *root KT_AUTOJSON = NULL;
	struct kt_err err;
	enum kt_code code;

	(void)fds;
	(void)fd_count;
	code = take(run, why, type, msg, &root, &err);
	if (code == KT_OK) {
		code = find(run, root, &err);
	}
	if (code == KT_OK && (run->target_looks || target_of(run)->private_space != NULL) && run->target_id[0] == '\0') {
		code = kt_err_set(&err, KT_E_MISMATCH, "%s has no %s %s", api_of(run)->host, what_of(run), api_of(run)->name);
	}
	if (code == KT_OK) {
		code = run->target_looks ? read_back(run, run->target_id, &err) : store(run, &err);
	}
	if (code != KT_OK) {
		kt_task_done(run, &err, false);
	}
}

static enum kt_code begin(struct kt_task_run *run, int target, bool looks, struct kt_err *err)
{
	run->target = target;
	run->target_looks = looks;
	run->target_id[0] = '\0';
	if (run->material.sealed_token.len > 0) {
		return kt_err_set(err, KT_E_INVALID, "a keystore takes Certificates only: %s is a token", run->secret_name);
	}
	return send(run, &(struct ask){.method = "GET", .id = "", .type = "", .fn = on_listed}, err);
}

enum kt_code kt_target_upload(struct kt_task_run *run, int index, struct kt_err *err)
{
	return begin(run, nth_target(run, index), false, err);
}

enum kt_code kt_target_look(struct kt_task_run *run, const char *name, struct kt_err *err)
{
	int i, target;

	for (i = 0; (target = nth_target(run, i)) >= 0; i++) {
		const struct kt_anypoint_secret_group *group = run->consumer->consumer.targets.items[target].secret_group;

		if (group != NULL && strcmp(group->api.name, name) == 0) {
			return begin(run, target, true, err);
		}
	}
	return kt_err_set(err, KT_E_INVALID, "there is no target %.128s", name);
}
