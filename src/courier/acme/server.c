/* What the jobs of one ACME server share: the directory, the nonces, the accounts, the queue and its limit. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/url.h"

#define DIRECTORY_FOR (KT_HOUR)
#define IDLE_FOR      (2 * KT_MINUTE)

static kt_ms now(const struct acme_server *server)
{
	return kt_clock_mono(kt_loop_clock(server->acme->courier->loop));
}

/* --- nonces ------------------------------------------------------------------------------------------------------ */

bool acme_nonce_ok(const char *text)
{
	size_t len = text == NULL ? 0 : strnlen(text, ACME_NONCE_LEN_MAX + 1);

	if (len == 0 || len > ACME_NONCE_LEN_MAX) {
		return false;
	}
	return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == len;
}

void acme_server_take_nonce(struct acme_server *server, const struct kt_http_reply *reply)
{
	const char *text = reply->headers[KT_HTTP_REPLAY_NONCE];
	char *copy;

	if (!acme_nonce_ok(text) || server->nonce_count >= ACME_NONCES_MAX) {
		return;
	}
	for (unsigned i = 0; i < server->nonce_count; i++) {
		if (strcmp(server->nonces[i], text) == 0) {
			return;
		}
	}
	copy = kt_strdup(text);
	if (copy != NULL) {
		server->nonces[server->nonce_count++] = copy;
	}
}

char *acme_server_nonce(struct acme_server *server)
{
	return server->nonce_count > 0 ? server->nonces[--server->nonce_count] : NULL;
}

void acme_server_forget_nonces(struct acme_server *server)
{
	char *nonce;

	while ((nonce = acme_server_nonce(server)) != NULL) {
		kt_free(nonce);
	}
}

/* --- the queue ---------------------------------------------------------------------------------------------------- */

static void start_queued(void *arg)
{
	struct acme_server *server = arg;

	while (server->queue != NULL && server->flights < server->flights_max) {
		struct acme_job *job = server->queue;

		server->queue = job->next;
		job->next = server->flying;
		server->flying = job;
		server->flights++;
		job->flying = true;
		acme_job_restart_clock(job, 0);
		acme_server_directory(server, job);
	}
}

void acme_server_add(struct acme_server *server, struct acme_job *job)
{
	struct acme_job **end = &server->queue;

	while (*end != NULL) {
		end = &(*end)->next;
	}
	job->next = NULL;
	*end = job;
	kt_timer_stop(server->idle);
	kt_timer_start(server->kick, 0);
}

static bool take_off(struct acme_job **list, const struct acme_job *job)
{
	for (; *list != NULL; list = &(*list)->next) {
		if (*list == job) {
			*list = job->next;
			return true;
		}
	}
	return false;
}

void acme_server_remove(struct acme_server *server, struct acme_job *job)
{
	if (take_off(&server->flying, job)) {
		server->flights--;
	} else {
		(void)take_off(&server->queue, job);
	}
	if (server->queue != NULL) {
		kt_timer_start(server->kick, 0);
	} else if (server->flying == NULL) {
		kt_timer_start(server->idle, IDLE_FOR);
	}
}

/* --- the directory ------------------------------------------------------------------------------------------------ */

/* The jobs in flight that wait for the directory have nothing under way and stand at this step. */
static const char waiting[] = "directory";

static void read_directory(struct acme_server *server, const struct kt_http_reply *reply, struct kt_err *err)
{
	struct acme_directory directory;
	json_t *json = NULL;

	if (reply->status != 200) {
		if (kt_http_is_type(reply, "json")) {
			(void)kt_http_json(reply, &json, NULL);
		}
		(void)acme_problem(json, reply->status, reply->retry_after, err);
		(void)kt_err_prefix(err, "reading the directory %.200s", server->url);
		if (err->code == KT_E_NOTFOUND || err->code == KT_E_DENIED) {
			err->code = KT_E_PROTO;
		}
	} else if (!kt_http_is_type(reply, "json")) {
		(void)kt_err_set(
			err, KT_E_PROTO, "%.200s answered with '%.60s' instead of a JSON directory", server->url,
			reply->headers[KT_HTTP_CONTENT_TYPE] != NULL ? reply->headers[KT_HTTP_CONTENT_TYPE] : "");
	} else if (kt_http_json(reply, &json, err) != KT_OK) {
		(void)kt_err_prefix(err, "the directory %.200s", server->url);
	} else if (acme_directory_parse(json, server->url, &directory, err) == KT_OK) {
		acme_directory_finish(&server->directory);
		server->directory = directory;
		server->has_directory = true;
		server->read_at = now(server);
		acme_server_take_nonce(server, reply);
	}
	json_decref(json);
}

static struct acme_job *next_waiting(struct acme_server *server)
{
	struct acme_job *job = server->flying;

	while (job != NULL && job->step != waiting) {
		job = job->next;
	}
	return job;
}

static void on_directory(const struct kt_err *err, const struct kt_http_reply *reply, void *arg)
{
	struct acme_server *server = arg;
	struct kt_err why = *err;
	struct acme_job *job;

	server->call = NULL;
	if (why.code == KT_OK) {
		read_directory(server, reply, &why);
	}
	/* Without a directory the queued ones have no chance either. */
	while (why.code != KT_OK && (server->flying != NULL || server->queue != NULL)) {
		job = next_waiting(server);
		if (job == NULL) {
			job = server->queue;
		}
		if (job == NULL) {
			break;
		}
		acme_job_fail(job, &why);
	}
	while (why.code == KT_OK && (job = next_waiting(server)) != NULL) {
		acme_job_begin(job);
	}
}

void acme_server_directory(struct acme_server *server, struct acme_job *job)
{
	struct kt_http_request request = {.method = "GET",
					  .url = server->url,
					  .named = server->url,
					  .ca_bundle = kt_view_str(server->ca_bundle),
					  .insecure = server->insecure,
					  .accept = "application/json",
					  .traceparent = kt_view_str(job->traceparent)};
	struct kt_err err;

	if (server->has_directory && now(server) - server->read_at < DIRECTORY_FOR) {
		acme_job_begin(job);
		return;
	}
	job->step = waiting;
	kt_err_clear(&err);
	if (server->call == NULL &&
	    kt_http_send(server->acme->courier->http, &request, on_directory, server, &server->call, &err) != KT_OK) {
		acme_job_fail(job, &err);
	}
}

bool acme_server_owns(const struct acme_server *server, const char *text)
{
	return text != NULL && kt_url_text_same_origin(text, server->url);
}

/* --- servers and accounts -------------------------------------------------------------------------------------------
 */

static void on_idle(void *arg)
{
	struct acme_server *server = arg;
	struct acme_server **at = &server->acme->servers;

	while (*at != server) {
		at = &(*at)->next;
	}
	*at = server->next;
	acme_server_destroy(server);
}

void acme_server_destroy(struct acme_server *server)
{
	if (server == NULL) {
		return;
	}
	kt_http_cancel(server->call);
	acme_server_forget_nonces(server);
	while (server->accounts != NULL) {
		struct acme_account *account = server->accounts;

		server->accounts = account->next;
		kt_free(account);
	}
	kt_timer_destroy(server->idle);
	kt_timer_destroy(server->kick);
	kt_free(server->url);
	kt_free(server->ca_bundle);
	acme_directory_finish(&server->directory);
	kt_free(server);
}

static enum kt_code hash_of(const char *url, const char *ca_bundle, bool insecure, uint8_t out[KT_SHA256_LEN],
			    struct kt_err *err)
{
	struct kt_sha256 sha;

	if (kt_sha256_init(&sha, err) != KT_OK) {
		return KT_E_NOMEM;
	}
	kt_sha256_add(&sha, url, strlen(url) + 1);
	kt_sha256_add(&sha, ca_bundle, strlen(ca_bundle) + 1);
	kt_sha256_add(&sha, insecure ? "1" : "0", 1);
	kt_sha256_finish(&sha, out);
	return KT_OK;
}

struct acme_server *acme_server_get(struct kt_acme *acme, const char *url, const char *ca_bundle, bool insecure,
				    struct kt_err *err)
{
	uint8_t hash[KT_SHA256_LEN];
	struct acme_server *server;

	if (hash_of(url, ca_bundle, insecure, hash, err) != KT_OK) {
		return NULL;
	}
	for (server = acme->servers; server != NULL; server = server->next) {
		if (memcmp(server->hash, hash, sizeof(hash)) == 0) {
			return server;
		}
	}
	server = kt_calloc(1, sizeof(*server));
	if (server == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "out of memory for an ACME server");
		return NULL;
	}
	server->acme = acme;
	memcpy(server->hash, hash, sizeof(hash));
	server->insecure = insecure;
	server->flights_max = KT_ACME_FLIGHTS;
	server->url = kt_strdup(url);
	server->ca_bundle = kt_strdup(ca_bundle);
	if (server->url == NULL || server->ca_bundle == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "out of memory for an ACME server");
		acme_server_destroy(server);
		return NULL;
	}
	if (kt_timer_create(acme->courier->loop, on_idle, server, &server->idle, err) != KT_OK ||
	    kt_timer_create(acme->courier->loop, start_queued, server, &server->kick, err) != KT_OK) {
		acme_server_destroy(server);
		return NULL;
	}
	kt_timer_start(server->idle, IDLE_FOR);
	server->next = acme->servers;
	acme->servers = server;
	return server;
}

struct acme_account *acme_account_get(struct acme_server *server, struct kt_view issuer, struct kt_err *err)
{
	uint8_t hash[KT_SHA256_LEN];
	struct acme_account *account;

	kt_sha256(issuer.ptr, issuer.len, hash);
	for (account = server->accounts; account != NULL; account = account->next) {
		if (memcmp(account->hash, hash, sizeof(hash)) == 0) {
			return account;
		}
	}
	account = kt_calloc(1, sizeof(*account));
	if (account == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "out of memory for an ACME account");
		return NULL;
	}
	memcpy(account->hash, hash, sizeof(hash));
	account->next = server->accounts;
	server->accounts = account;
	return account;
}
