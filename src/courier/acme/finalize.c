/* Finalizing the order and fetching the chain (RFC 8555 sections 7.4 and 7.4.2). */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/log.h"
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
	job->resumed = job->inherited = false;
	acme_order_wait(job);
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

/* --- download: the first chain, or the preferred among the alternates (RFC 8555 section 7.4.2) --------------------- */

static void download(struct acme_job *job, const char *url);

/* Only that it is said to be a chain: what it is worth is the keeper's to check. */
static bool is_chain(const struct acme_answer *answer, struct kt_err *err)
{
	const char *type;

	if (err->code == KT_OK && !kt_http_is_type(answer->http, "application/pem-certificate-chain")) {
		type = answer->http->headers[KT_HTTP_CONTENT_TYPE];
		(void)kt_err_set(err, KT_E_PROTO, "the CA answered with '%.60s' instead of a certificate chain",
				 type != NULL ? type : "");
	}
	return err->code == KT_OK;
}

/* True when the topmost certificate was issued by the one whose common name is preferred, or none is. */
static bool is_preferred(const struct acme_job *job, struct kt_view pem)
{
	KT_AUTOCHAIN struct kt_chain *chain = NULL;
	const char *dn;
	size_t len;

	if (job->preferred_chain == NULL) {
		return true;
	}
	if (kt_pki_chain_parse(pem, &chain, NULL) != KT_OK) {
		return false;
	}
	dn = kt_pki_cert_issuer(kt_pki_chain_at(chain, kt_pki_chain_count(chain) - 1));
	len = strlen(job->preferred_chain);

	for (const char *cn = strstr(dn, "CN="); cn != NULL; cn = strstr(cn + 3, "CN=")) {
		bool starts = cn == dn || cn[-1] == ',' || cn[-1] == '+' || cn[-1] == ' ';

		if (starts && strncmp(cn + 3, job->preferred_chain, len) == 0 &&
		    (cn[3 + len] == '\0' || cn[3 + len] == ',' || cn[3 + len] == '+')) {
			return true;
		}
	}
	return false;
}

static void keep_chain(struct acme_job *job, struct kt_view pem)
{
	struct kt_err err;

	kt_buf_finish(&job->chain);
	kt_buf_init(&job->chain, KT_DOC_MAX);
	kt_buf_addv(&job->chain, pem);
	if (kt_buf_check(&job->chain, "the chain", &err) != KT_OK) {
		acme_job_fail(job, &err);
		return;
	}
	acme_job_done(job);
}

/* `<url>;rel="alternate"` of the Link headers. */
static void take_alternates(struct acme_job *job, const char *links)
{
	while (links != NULL && (links = strchr(links, '<')) != NULL && job->alternate_count < ACME_ALTERNATES_MAX) {
		const char *end = strchr(links, '>');
		size_t len = end == NULL ? 0 : (size_t)(end - links - 1);
		size_t params = end == NULL ? 0 : strcspn(end, "<");
		KT_AUTOFREE char *url = NULL;
		KT_AUTOFREE char *rest = NULL;

		if (end == NULL) {
			return;
		}
		url = kt_strndup(links + 1, len);
		rest = kt_strndup(end, params);
		links = end;
		if (url != NULL && rest != NULL &&
		    (strstr(rest, "rel=\"alternate\"") != NULL || strstr(rest, "rel=alternate") != NULL) &&
		    acme_server_owns(job->server, url)) {
			job->alternates[job->alternate_count++] = url;
			url = NULL;
		}
	}
}

static void on_downloaded(struct acme_job *job, struct kt_err *err, const struct acme_answer *answer)
{
	bool good = is_chain(answer, err);
	struct kt_err ignored;

	if (!good && job->alternate_at == 0) {
		acme_job_fail(job, err);
		return;
	}
	if (!good) { /* another chain is a wish: the first one is good too */
		kt_log_err(KT_LOG_WARN, err, "ACME job %llu: an alternate chain is not to be had",
			   (unsigned long long)job->id);
	}
	if (good && is_preferred(job, answer->http->body)) {
		keep_chain(job, answer->http->body);
		return;
	}
	if (job->alternate_at == 0) {
		take_alternates(job, answer->http->headers[KT_HTTP_LINK]);
		kt_buf_addv(&job->chain, answer->http->body);
	}
	if (job->alternate_at < job->alternate_count) {
		download(job, job->alternates[job->alternate_at++]);
		return;
	}
	kt_log(KT_LOG_WARN, "ACME job %llu: the CA offers no chain up to '%s', its first one is taken",
	       (unsigned long long)job->id, job->preferred_chain);
	if (kt_buf_check(&job->chain, "the chain", &ignored) != KT_OK) {
		acme_job_fail(job, &ignored);
		return;
	}
	acme_job_done(job);
}

static void download(struct acme_job *job, const char *url)
{
	acme_post(job, url, KT_VIEW_LIT(""), ACME_POST_PEM, on_downloaded);
}

void acme_download_step(struct acme_job *job)
{
	job->step = "downloading the certificate";
	download(job, job->cert_url);
}

bool acme_chain_is_public(const struct acme_job *job)
{
	KT_AUTOCHAIN struct kt_chain *chain = NULL;
	struct kt_trust *roots = NULL;
	struct kt_err err;
	bool public = false;

	if (!job->check_public) { /* the system's roots take 27 ms and a megabyte: only where somebody needs to know */
		return false;
	}
	kt_err_clear(&err);
	if (kt_pki_chain_parse(kt_buf_view(&job->chain), &chain, &err) == KT_OK &&
	    kt_pki_trust_create_system(&roots, &err) == KT_OK) {
		public = kt_pki_chain_verify(chain, roots, kt_clock_wall(kt_loop_clock(job->acme->courier->loop)),
					     &err) == KT_OK;
	}
	kt_pki_trust_destroy(roots);
	return public;
}
