/* Provider acmeDNS: an acme-dns server holds the two latest values of a name that an alias leads to. */
#include <string.h>

#include "courier/dns/dns_internal.h"

#define CHALLENGE "_acme-challenge."

static void on_update(struct dns_job *job, const struct kt_http_reply *reply)
{
	KT_AUTOJSON json_t *body = NULL;

	if (reply->status == 200) {
		dns_job_done(job);
		return;
	}
	body = dns_api_json(job, reply, "an update");
	if (body != NULL) {
		const char *error = kt_json_str(body, "error");

		/* Its errors are words like bad_txt; anything longer may be what we sent. */
		if (error != NULL && (strlen(error) > 40 || strspn(error, "abcdefghijklmnopqrstuvwxyz_") != strlen(error))) {
			error = NULL;
		}
		dns_api_refused(job, reply, "an update", error);
	}
}

static bool leads_to(const json_t *account, const char *end)
{
	const char *full = kt_json_str(account, "fulldomain");
	char name[DNS_NAME_SIZE];

	return full != NULL && dns_name(kt_view_str(full), name, NULL) == KT_OK && strcmp(name, end) == 0;
}

/* The account that the alias leads to; else that of the domain, or of the nearest one above it. */
static const json_t *choose(const struct dns_job *job, json_t *accounts)
{
	const char *key, *domain = job->record;
	json_t *account;

	json_object_foreach(accounts, key, account) {
		if (leads_to(account, job->traced->end)) {
			return account;
		}
	}
	if (strncmp(domain, CHALLENGE, strlen(CHALLENGE)) == 0) {
		domain += strlen(CHALLENGE);
	}
	while (domain[0] != '\0') {
		account = json_object_get(accounts, domain);
		if (account != NULL) {
			return account;
		}
		domain = dns_name_parent(domain);
	}
	return NULL;
}

static void update(struct dns_job *job, const json_t *account)
{
	const char *user = kt_json_str(account, "username"), *password = kt_json_str(account, "password");
	const char *subdomain = kt_json_str(account, "subdomain"), *full = kt_json_str(account, "fulldomain");
	struct kt_http_request request = {.method = "POST", .content_type = "application/json"};
	KT_AUTOBUF struct kt_buf body;
	struct kt_buf url;

	kt_buf_init(&body, 2048);
	if (user == NULL || password == NULL || subdomain == NULL || full == NULL ||
	    dns_name(kt_view_str(full), job->effective, NULL) != KT_OK) {
		dns_job_failf(job, KT_E_INVALID, "the acme-dns account of '%s' lacks username, password, fulldomain or subdomain",
			      job->record);
		return;
	}
	if (strcmp(job->effective, job->traced->end) != 0) {
		dns_job_failf(job, KT_E_INVALID,
			      "the CA will look at '%s', but acme-dns serves '%s': publish once: %s. CNAME %s.",
			      job->traced->end, job->effective, job->record, job->effective);
		return;
	}
	kt_buf_adds(&body, "{\"subdomain\":");
	kt_buf_add_json(&body, kt_view_str(subdomain));
	kt_buf_adds(&body, ",\"txt\":");
	kt_buf_add_json(&body, kt_view_str(job->value));
	kt_buf_adds(&body, "}");
	request.body = kt_buf_view(&body);
	request.header_name = "X-Api-User";
	request.header_value = kt_view_str(user);
	request.extra_name = "X-Api-Key";
	request.extra_value = kt_view_str(password);
	dns_api_url(job, &url, "host", "");
	kt_buf_adds(&url, "/update");
	dns_api_send(job, &request, &url, "host", on_update);
}

static void add(struct dns_job *job)
{
	KT_AUTOSECRET struct kt_secret *text = NULL;
	KT_AUTOJSON json_t *accounts = NULL;
	const json_t *account;
	struct kt_err err;

	kt_err_clear(&err);
	if (dns_job_secret(job, "account", &text, &err) != KT_OK) {
		dns_job_fail(job, &err);
		return;
	}
	if (kt_json_parse(kt_secret_view(text), 65536, &accounts, NULL) != KT_OK || !json_is_object(accounts)) {
		dns_job_failf(job, KT_E_INVALID, "the acme-dns accounts are no JSON object of domains");
		return;
	}
	account = choose(job, accounts);
	if (account == NULL) {
		dns_job_failf(job, KT_E_NOTFOUND,
			      "there is no acme-dns account for '%s': register one and store it under this domain",
			      job->record);
		return;
	}
	update(job, account);
}

/* The server forgets by itself, when two newer values came. */
const struct kt_dns_provider dns_provider_acme_dns = {.name = "acmeDNS", .add = add, .aliased = true};
