/* The account (RFC 8555 section 7.3): registered once for all jobs of an issuer, again when the CA forgot it. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/log.h"

/* Jobs that wait for another's newAccount stand at this step with nothing under way. */
static const char waiting[] = "account";
static const char registering[] = "registering an account";

static struct acme_job *next_waiting(struct acme_server *server, const struct acme_account *account)
{
	struct acme_job *job = server->flying;

	while (job != NULL && (job->step != waiting || job->account != account)) {
		job = job->next;
	}
	return job;
}

static void register_account(struct acme_job *job);

static void go_on(struct acme_job *job)
{
	job->account_known = true;
	job->account_epoch = job->account->epoch;
	if (job->kind == ACME_MANAGE && job->account_url[0] == '\0') { /* it waited for another job's: only that one was told */
		register_account(job);
		return;
	}
	switch (job->kind) {
	case ACME_MANAGE:
		acme_manage_step(job);
		break;
	case ACME_REVOKE:
		acme_revoke_step(job);
		break;
	default:
		acme_order_step(job);
		break;
	}
}

static void wake(struct acme_server *server, struct acme_account *account, const struct kt_err *err)
{
	struct acme_job *job;

	while ((job = next_waiting(server, account)) != NULL) {
		if (err != NULL) {
			acme_job_fail(job, err);
		} else {
			go_on(job);
		}
	}
}

static void on_saved(struct acme_job *job)
{
	struct acme_server *server = job->server;
	struct acme_account *account = job->account;

	account->state = ACME_ACCOUNT_READY;
	account->epoch++;
	go_on(job);
	wake(server, account, NULL);
}

static void on_account(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	struct acme_server *server = job->server;
	const char *location, *status;
	struct kt_err why = *err;

	if (why.code == KT_OK) {
		location = answer->http->headers[KT_HTTP_LOCATION];
		status = kt_json_str(answer->json, "status");
		if (status == NULL || strcmp(status, "valid") != 0) {
			(void)kt_err_set(&why, KT_E_AUTH, "the account is '%.40s' at the CA, not valid",
					 status != NULL ? status : "without a status");
		} else if (!acme_server_owns(server, location)) {
			(void)kt_err_set(&why, KT_E_PROTO, "the CA gave no account URL, or one elsewhere: '%.200s'",
					 location != NULL ? location : "");
		} else {
			kt_free(job->account_url);
			job->account_url = kt_strdup(location);
			acme_job_save(job, "account", location, on_saved);
			return;
		}
	}
	acme_job_fail(job, &why);
}

/* binding: the inner JWS, empty when there is none. */
static void send_registration(struct acme_job *job, struct kt_view binding)
{
	KT_AUTOBUF struct kt_buf payload = {0};
	KT_AUTOBUF struct kt_buf contact = {0};

	kt_buf_init(&payload, 32768);
	kt_buf_init(&contact, 4096);
	kt_buf_adds(&payload, "{");
	if (job->terms_agreed) {
		kt_buf_adds(&payload, "\"termsOfServiceAgreed\":true");
	}
	if (job->email != NULL && job->email[0] != '\0') {
		kt_buf_addf(&contact, "mailto:%s", job->email);
		kt_buf_addf(&payload, "%s\"contact\":[", payload.len > 1 ? "," : "");
		kt_buf_add_json(&payload, kt_buf_view(&contact));
		kt_buf_adds(&payload, "]");
	}
	if (binding.len > 0) {
		kt_buf_addf(&payload, "%s\"externalAccountBinding\":", payload.len > 1 ? "," : "");
		kt_buf_addv(&payload, binding);
	}
	kt_buf_adds(&payload, "}");
	acme_post(job, job->server->directory.new_account, kt_buf_view(&payload), ACME_POST_JWK | ACME_POST_REPEAT,
		  on_account);
}

static void register_account(struct acme_job *job)
{
	job->step = registering;
	job->account->state = ACME_ACCOUNT_CREATING;
	if (job->binds) {
		acme_job_inner(job, "eab", job->server->directory.new_account, send_registration);
	} else if (job->server->directory.binding_required) {
		acme_job_failf(job, KT_E_AUTH,
			       "the CA wants an external account binding: get a key from it and name it in "
			       "spec.acme.externalAccountBinding");
	} else {
		send_registration(job, KT_VIEW_LIT(""));
	}
}

void acme_account_step(struct acme_job *job)
{
	job->step = waiting;
	if (job->account->state == ACME_ACCOUNT_CREATING) {
		return; /* woken by the job that registers it */
	}
	/* Work on an account needs its URL, which an order does without. */
	if (job->account_known || (job->account->state == ACME_ACCOUNT_READY && job->kind == ACME_ORDER)) {
		go_on(job);
		return;
	}
	register_account(job);
}

void acme_account_lost(struct acme_job *job, const struct kt_err *err)
{
	struct acme_account *account = job->account;

	/* Who asks for an account, or works with what belongs to one, is not helped by another one. */
	if (job->reregistered || job->kind == ACME_REVOKE || (job->kind == ACME_MANAGE && strcmp(job->op, "register") != 0)) {
		acme_job_fail(job, err);
		return;
	}
	if (job->account_epoch == account->epoch && account->state != ACME_ACCOUNT_CREATING) {
		kt_log_err(KT_LOG_WARN, err, "ACME job %llu: the CA does not know the account, registering it again",
			   (unsigned long long)job->id);
		account->state = ACME_ACCOUNT_UNKNOWN;
	}
	/* What belonged to the lost account is lost with it. */
	job->reregistered = true;
	job->account_known = false;
	acme_order_forget(job);
	acme_account_step(job);
}

void acme_account_abandoned(struct acme_job *job, const struct kt_err *err)
{
	struct acme_account *account = job->account;

	if (account == NULL || account->state != ACME_ACCOUNT_CREATING || job->step != registering) {
		return;
	}
	account->state = ACME_ACCOUNT_UNKNOWN;
	if (err != NULL && err->code == KT_E_CANCELLED) {
		struct acme_job *other = next_waiting(job->server, account);

		if (other != NULL) {
			register_account(other);
		}
		return;
	}
	wake(job->server, account, err);
}
