/* Finalizing the order and fetching the chain (RFC 8555 sections 7.4 and 7.4.2). */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/text.h"

#define FINALIZE_TRIES 3u

static void on_finalized(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	if (err->code == KT_OK) {
		acme_order_judge(job, answer);
	} else if (err->code == KT_E_NET || err->code == KT_E_TIMEOUT) {
		if (answer != NULL || ++job->flips > FINALIZE_TRIES) {
			acme_job_fail(job, err);
			return;
		}
		/* It may well have arrived: the order knows, and is finalized again only if it is still ready. */
		job->finalized = false;
		acme_job_pause(job, job->poll_next, acme_order_poll);
	} else if (acme_problem_is(err, "orderNotReady") && ++job->flips <= FINALIZE_TRIES) {
		job->finalized = false;
		acme_job_pause(job, KT_SECOND, acme_order_poll);
	} else {
		acme_job_fail(job, err);
	}
}

void acme_finalize_step(struct acme_job *job)
{
	struct kt_buf payload;

	job->step = "finalizing the order";
	job->finalized = true;
	job->resumed = false;
	job->poll_next = ACME_POLL_FIRST;
	kt_buf_init(&payload, 65536);
	kt_buf_adds(&payload, "{\"csr\":\"");
	kt_base64url_encode(&payload, job->csr.ptr, job->csr.len);
	kt_buf_adds(&payload, "\"}");
	if (payload.failed != KT_OK) {
		acme_job_failf(job, payload.failed, "the certificate request is too large");
	} else {
		acme_post(job, job->finalize_url, kt_buf_view(&payload), 0, on_finalized);
	}
	kt_buf_finish(&payload);
}

/* Only that it is a chain at all: whether it is the right one is the keeper's to check. */
static void on_downloaded(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	KT_AUTOCHAIN struct kt_chain *chain = NULL;

	if (err->code != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	if (!kt_http_is_type(answer->http, "application/pem-certificate-chain")) {
		const char *type = answer->http->headers[KT_HTTP_CONTENT_TYPE];

		acme_job_failf(job, KT_E_PROTO, "the CA answered with '%.60s' instead of a certificate chain",
			       type != NULL ? type : "");
		return;
	}
	if (kt_pki_chain_parse(answer->http->body, &chain, err) != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	kt_buf_addv(&job->chain, answer->http->body);
	if (kt_buf_check(&job->chain, "the chain", err) != KT_OK) {
		acme_job_fail(job, err);
		return;
	}
	acme_job_done(job);
}

void acme_download_step(struct acme_job *job)
{
	job->step = "downloading the certificate";
	acme_post(job, job->cert_url, KT_VIEW_LIT(""), ACME_POST_PEM, on_downloaded);
}
