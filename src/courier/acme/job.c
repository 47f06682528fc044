/* The life of an ACME job: from the keeper's request, through whatever it waits for, to exactly one reply. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/url.h"
#include "kt/text.h"

void acme_job_destroy(struct acme_job *job)
{
	if (job == NULL) {
		return;
	}
	kt_http_cancel(job->call);
	kt_wire_forget(job->acme->courier->keeper, job);
	kt_timer_destroy(job->pause);
	kt_timer_destroy(job->deadline);
	acme_post_finish(job);
	acme_authzs_clear(job);
	for (size_t i = 0; i < job->name_count; i++) {
		kt_free(job->names[i].type);
		kt_free(job->names[i].value);
	}
	kt_free(job->names);
	kt_free(job->email);
	kt_free(job->order_url);
	kt_free(job->finalize_url);
	kt_free(job->cert_url);
	kt_free(job->account_url);
	kt_free(job->profile);
	kt_free(job->preferred_chain);
	kt_free(job->replaces);
	kt_free(job->op);
	kt_free(job->new_email);
	kt_free(job->cert_id);
	kt_free(job->explanation);
	for (unsigned i = 0; i < job->alternate_count; i++) {
		kt_free(job->alternates[i]);
	}
	kt_buf_finish(&job->csr);
	kt_buf_finish(&job->chain);
	kt_buf_finish(&job->result);
	json_decref(job->new_order);
	job->acme->jobs--;
	kt_free(job);
}

static void end(struct acme_job *job)
{
	if (job->server != NULL) {
		acme_server_remove(job->server, job);
	}
	acme_job_destroy(job);
}

void acme_job_fail(struct acme_job *job, const struct kt_err *err)
{
	struct kt_err why = *err;
	struct kt_url url;

	acme_account_abandoned(job, err);
	acme_authzs_withdraw(job);
	if (job->flying) {
		(void)kt_err_prefix(&why, "%s", job->step != NULL ? job->step : "start");
		if (kt_url_parse(job->server->url, &url, NULL) == KT_OK) {
			(void)kt_err_prefix(&why, "ACME server %.200s:%u", url.host, url.port);
		}
	}
	kt_wire_reply_err(job->acme->courier->keeper, job->reply_to, &why);
	end(job);
}

void acme_job_failf(struct acme_job *job, enum kt_code code, const char *fmt, ...)
{
	struct kt_err err;
	char text[512];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	(void)kt_err_set(&err, code, "%s", text);
	acme_job_fail(job, &err);
}

void acme_job_begin(struct acme_job *job)
{
	if (job->kind == ACME_INFO) {
		acme_info_step(job);
	} else if (job->kind == ACME_REVOKE && job->account_known) {
		acme_revoke_step(job);
	} else if (job->kind == ACME_MANAGE && strcmp(job->op, "directory") == 0) {
		acme_manage_step(job);
	} else {
		acme_account_step(job);
	}
}

static void reply(struct acme_job *job, enum kt_msg_type type, const void *msg)
{
	kt_wire_reply(job->acme->courier->keeper, job->reply_to, type, msg, NULL, 0);
}

void acme_job_done(struct acme_job *job)
{
	struct kt_msg_acme_done order = {.chain = kt_buf_view(&job->chain),
					 .cert_url = kt_view_str(job->cert_url != NULL ? job->cert_url : ""),
					 .replaces_dropped = job->replaces_dropped};
	struct kt_msg_acme_account_done account = {
		.account_url = kt_view_str(job->account_url != NULL ? job->account_url : ""),
		.body = kt_buf_view(&job->result)};
	struct kt_msg_acme_info_done info = {.start = job->info_start,
					     .end = job->info_end,
					     .explanation = kt_view_str(job->explanation != NULL ? job->explanation : ""),
					     .retry_after = job->info_retry_after};
	struct kt_msg_done done = {0};

	acme_authzs_withdraw(job);
	switch (job->kind) {
	case ACME_ORDER:
		order.public = acme_chain_is_public(job);
		reply(job, KT_ACME_DONE, &order);
		break;
	case ACME_MANAGE:
		reply(job, KT_ACME_ACCOUNT_DONE, &account);
		break;
	case ACME_INFO:
		reply(job, KT_ACME_INFO_DONE, &info);
		break;
	case ACME_REVOKE:
		reply(job, KT_DONE, &done);
		break;
	}
	end(job);
}

/* --- pauses and questions to the keeper -----------------------------------------------------------------------------
 */

static void on_pause(void *arg)
{
	struct acme_job *job = arg;

	job->after_pause(job);
}

void acme_job_pause(struct acme_job *job, kt_ms delay, acme_step_fn *step)
{
	kt_ms left = job->started + ACME_JOB_TIME - kt_clock_mono(kt_loop_clock(job->acme->courier->loop));

	if (delay >= left) {
		struct kt_err err;

		(void)kt_err_set(&err, KT_E_LATER, "the CA asks to come back in %lld s",
				 (long long)((delay + KT_SECOND - 1) / KT_SECOND));
		err.retry_after_s = (delay + KT_SECOND - 1) / KT_SECOND;
		acme_job_fail(job, &err);
		return;
	}
	job->after_pause = step;
	kt_timer_start(job->pause, delay);
}

void acme_job_restart_clock(struct acme_job *job, kt_ms more)
{
	job->started = kt_clock_mono(kt_loop_clock(job->acme->courier->loop)) + more;
	job->allowed = ACME_JOB_TIME + more;
	kt_timer_start(job->deadline, job->allowed);
}

static void on_deadline(void *arg)
{
	struct acme_job *job = arg;

	acme_job_failf(job, KT_E_TIMEOUT,
		       "not finished after %d minutes; the order is kept and goes on at the next try",
		       (int)(job->allowed / KT_MINUTE));
}

static void on_keeper(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
		      void *arg)
{
	struct acme_job *job = arg;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	if (err->code != KT_OK) {
		acme_job_fail(job, err);
	} else {
		job->after_keeper(job);
	}
}

static void ask_keeper(struct acme_job *job, enum kt_msg_type type, const void *msg, acme_step_fn *step)
{
	struct kt_err err;

	kt_err_clear(&err);
	job->after_keeper = step;
	if (kt_wire_call(job->acme->courier->keeper, type, msg, NULL, 0, ACME_KEEPER_TIME, on_keeper, job, &err) !=
	    KT_OK) {
		acme_job_fail(job, &err);
	}
}

void acme_job_save(struct acme_job *job, const char *what, const char *value, acme_step_fn *step)
{
	struct kt_msg_acme_save save = {.job = job->id, .what = kt_view_str(what), .value = kt_view_str(value)};

	ask_keeper(job, KT_ACME_SAVE, &save, step);
}

static void on_inner(const struct kt_err *err, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct acme_job *job = arg;
	const struct kt_msg_acme_signed *inner = msg;

	(void)fds, (void)fd_count;
	if (err->code != KT_OK) {
		acme_job_fail(job, err);
	} else if (type != KT_ACME_SIGNED) {
		acme_job_failf(job, KT_E_PROTO, "the keeper gave no signature");
	} else {
		job->after_inner(job, inner->jws);
	}
}

void acme_job_inner(struct acme_job *job, const char *what, const char *url, acme_inner_fn *fn)
{
	struct kt_msg_acme_inner ask = {.job = job->id, .what = kt_view_str(what), .url = kt_view_str(url)};
	struct kt_err err;

	kt_err_clear(&err);
	job->after_inner = fn;
	if (kt_wire_call(job->acme->courier->keeper, KT_ACME_INNER, &ask, NULL, 0, ACME_KEEPER_TIME, on_inner, job,
			 &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

/* --- beginning ------------------------------------------------------------------------------------------------------
 */

static char *lower(const char *text)
{
	char *copy = kt_strdup(text);

	for (char *c = copy; c != NULL && *c != '\0'; c++) {
		*c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
	}
	return copy;
}

static enum kt_code take_names(struct acme_job *job, struct kt_view text, struct kt_err *err)
{
	KT_AUTOJSON json_t *list = NULL;
	size_t count;

	if (kt_json_parse(text, 65536, &list, err) != KT_OK) {
		return kt_err_prefix(err, "names");
	}
	count = json_array_size(list);
	if (count == 0 || count > ACME_NAMES_MAX) {
		return kt_err_set(err, KT_E_INVALID, "a certificate by ACME needs 1 to %u names", ACME_NAMES_MAX);
	}
	job->names = kt_calloc(count, sizeof(*job->names));
	if (job->names == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
	}
	job->name_count = count;
	for (size_t i = 0; i < count; i++) {
		const char *type = kt_json_str(json_array_get(list, i), "type");
		const char *value = kt_json_str(json_array_get(list, i), "value");

		if (type == NULL || value == NULL || value[0] == '\0') {
			return kt_err_set(err, KT_E_INVALID, "a name needs a type and a value");
		}
		job->names[i].type = kt_strdup(type);
		job->names[i].value = lower(value);
		if (job->names[i].type == NULL || job->names[i].value == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
		}
	}
	return KT_OK;
}

enum kt_code acme_job_take_issuer(struct acme_job *job, struct kt_view text, struct kt_err *err)
{
	KT_AUTOJSON json_t *issuer = NULL;
	const char *url, *ca_bundle, *email;
	struct kt_url parsed;

	if (kt_json_parse(text, 65536, &issuer, err) != KT_OK) {
		return kt_err_prefix(err, "issuer");
	}
	url = kt_json_str(issuer, "server");
	ca_bundle = kt_json_str(issuer, "caBundle");
	email = kt_json_str(issuer, "email");
	if (kt_url_parse(url, &parsed, err) != KT_OK || !parsed.https) {
		return kt_err_set(err, KT_E_INVALID, "spec.acme.server must be an https URL, not '%.200s'",
				  url != NULL ? url : "");
	}
	job->terms_agreed = kt_json_bool(issuer, "termsOfServiceAgreed", true);
	job->binds = kt_json_bool(issuer, "externalAccountBinding", false);
	job->email = kt_strdup(email != NULL ? email : "");
	if (job->email == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
	}
	job->server = acme_server_get(job->acme, url, ca_bundle != NULL ? ca_bundle : "",
				      kt_json_bool(issuer, "skipTLSVerify", false), err);
	if (job->server != NULL) {
		int64_t flights = kt_json_int(issuer, "inFlight", KT_ACME_FLIGHTS);

		job->server->flights_max = flights < 1 ? 1 : flights > KT_ACME_FLIGHTS_MAX ? KT_ACME_FLIGHTS_MAX : (unsigned)flights;
		job->account = acme_account_get(job->server, text, err);
	}
	return job->account != NULL ? KT_OK : KT_E_NOMEM;
}

void acme_job_trace(struct acme_job *job, struct kt_view traceparent)
{
	if (traceparent.len > 0 && traceparent.len <= KT_TRACE_MAX) {
		memcpy(job->traceparent, traceparent.ptr, traceparent.len);
	}
}

/* Of spec.acme, what an order asks for. */
static enum kt_code take_options(struct acme_job *job, struct kt_view text, struct kt_err *err)
{
	KT_AUTOJSON json_t *options = NULL;
	const struct {
		const char *name;
		char **ret;
	} wanted[] = {{"profile", &job->profile}, {"preferredChain", &job->preferred_chain}, {"replaces", &job->replaces}};

	if (text.len == 0) {
		return KT_OK;
	}
	if (kt_json_parse(text, 4096, &options, err) != KT_OK) {
		return kt_err_prefix(err, "options");
	}
	job->check_public = kt_json_bool(options, "checkPublic", false);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		const char *value = kt_json_str(options, wanted[i].name);

		if (value != NULL && (*wanted[i].ret = kt_strdup(value)) == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
		}
	}
	return KT_OK;
}

/* Trusts nothing that lies at another origin than the directory, even if it comes from the store. */
static enum kt_code take_order(struct acme_job *job, const struct kt_msg_acme *msg, struct kt_err *err)
{
	KT_AUTOFREE char *url = NULL;
	enum kt_code code = kt_courier_copy(msg->order_url, &url, err);

	if (code == KT_OK && url[0] != '\0' && acme_server_owns(job->server, url)) {
		job->order_url = url;
		job->resumed = true;
		url = NULL;
	}
	job->account_known = msg->account_url.len > 0;
	job->not_before = msg->not_before;
	job->not_after = msg->not_after;
	acme_job_trace(job, msg->traceparent);
	kt_buf_addv(&job->csr, msg->csr);
	return code == KT_OK ? kt_buf_check(&job->csr, "a request", err) : code;
}

struct acme_job *acme_job_create(struct kt_wire_in *in, struct kt_courier *courier, enum acme_kind kind, uint64_t id,
				 struct kt_err *err)
{
	struct acme_job *job;

	if (courier->acme->jobs >= KT_ACME_JOBS_MAX) {
		(void)kt_err_set(err, KT_E_LATER, "too many ACME orders are under way already");
		return NULL;
	}
	job = kt_calloc(1, sizeof(*job));
	if (job == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "out of memory for an order");
		return NULL;
	}
	job->acme = courier->acme;
	job->acme->jobs++;
	job->kind = kind;
	job->id = id;
	job->reply_to = in->id;
	kt_buf_init(&job->csr, 32768);
	kt_buf_init(&job->chain, KT_DOC_MAX);
	kt_buf_init(&job->result, 65536);
	if (kt_timer_create(courier->loop, on_pause, job, &job->pause, err) != KT_OK ||
	    kt_timer_create(courier->loop, on_deadline, job, &job->deadline, err) != KT_OK) {
		acme_job_destroy(job);
		return NULL;
	}
	return job;
}

void acme_job_enqueue(struct acme_job *job)
{
	acme_server_add(job->server, job);
}

void kt_acme_handle(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme *msg = in->msg;
	struct kt_err err;
	struct acme_job *job;

	kt_err_clear(&err);
	job = acme_job_create(in, arg, ACME_ORDER, msg->job, &err);
	if (job == NULL || take_names(job, msg->names, &err) != KT_OK ||
	    acme_job_take_issuer(job, msg->issuer, &err) != KT_OK || take_options(job, msg->options, &err) != KT_OK ||
	    take_order(job, msg, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		acme_job_destroy(job);
		return;
	}
	acme_job_enqueue(job);
}

/* --- ending from outside -------------------------------------------------------------------------------------------
 */

static struct acme_job *find(struct acme_job *list, uint64_t id)
{
	while (list != NULL && list->id != id) {
		list = list->next;
	}
	return list;
}

bool kt_acme_cancel(struct kt_acme *acme, uint64_t id)
{
	for (struct acme_server *server = acme->servers; server != NULL; server = server->next) {
		struct acme_job *job = find(server->flying, id);

		if (job == NULL) {
			job = find(server->queue, id);
		}
		if (job != NULL) {
			acme_job_failf(job, KT_E_CANCELLED, "called off");
			return true;
		}
	}
	return false;
}

void kt_acme_drop(struct kt_acme *acme)
{
	while (acme->servers != NULL) {
		struct acme_server *server = acme->servers;

		acme->servers = server->next;
		while (server->flying != NULL || server->queue != NULL) {
			struct acme_job *job = server->flying != NULL ? server->flying : server->queue;

			acme_server_remove(server, job);
			acme_job_destroy(job);
		}
		acme_server_destroy(server);
	}
}

enum kt_code kt_acme_create(struct kt_courier *courier, struct kt_acme **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	if (*ret == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for ACME");
	}
	(*ret)->courier = courier;
	return KT_OK;
}

void kt_acme_destroy(struct kt_acme *acme)
{
	if (acme != NULL) {
		kt_acme_drop(acme);
		kt_free(acme);
	}
}
