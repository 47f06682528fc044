/* Provider cloudflare: API v4, by token or by e-mail and global key. */
#include <stdio.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

#define API "https://api.cloudflare.com/client/v4"
#define RECORD_EXISTS 81058 /* "An identical record already exists." */
#define RECORD_GONE   81044 /* "Record does not exist." */

struct cloudflare {
	bool add;
	char name[DNS_NAME_SIZE]; /* the zone that is asked for */
	char zone[64], record[64];
};

static void request(struct dns_job *job, const char *method, struct kt_buf *url, struct kt_view body, dns_api_fn *then)
{
	const char *email = kt_json_str(job->solver, "email");
	KT_AUTOSECRET struct kt_secret *key = NULL;
	struct kt_http_request req = {.method = method, .accept = "application/json", .body = body};
	struct kt_err err;

	kt_err_clear(&err);
	req.content_type = body.len > 0 ? "application/json" : NULL;
	if (dns_job_secret(job, "apiToken", &key, &err) == KT_OK) {
		req.header_name = "Authorization";
		req.header_prefix = "Bearer ";
	} else if (email != NULL && dns_job_secret(job, "apiKey", &key, &err) == KT_OK) {
		req.header_name = "X-Auth-Key";
		req.extra_name = "X-Auth-Email";
		req.extra_value = kt_view_str(email);
	} else {
		kt_buf_finish(url);
		dns_job_fail(job, &err);
		return;
	}
	req.header_value = kt_secret_view(key);
	dns_api_send(job, &req, url, "apiURL", then);
}

/* The first error of an answer; code 0 when there is none. */
static const char *first_error(const json_t *body, int64_t *ret_code)
{
	const json_t *error = json_array_get(json_object_get(body, "errors"), 0);

	*ret_code = kt_json_int(error, "code", 0);
	return kt_json_str(error, "message");
}

/* The answer, when it is one of success; else the job has failed. */
static json_t *success(struct dns_job *job, const struct kt_http_reply *reply, const char *doing)
{
	json_t *body = dns_api_json(job, reply, doing);
	int64_t code;

	if (body != NULL && (reply->status != 200 || !kt_json_bool(body, "success", false))) {
		dns_api_refused(job, reply, doing, first_error(body, &code));
		json_decref(body);
		return NULL;
	}
	return body;
}

/* --- the record ------------------------------------------------------------------------------------------------------- */

static void remember(struct dns_job *job)
{
	const struct cloudflare *state = job->state;

	(void)json_object_set_new(job->handle, "zone", json_string(state->zone));
	(void)json_object_set_new(job->handle, "id", json_string(state->record));
}

static void delete_record(struct dns_job *job);

static void on_deleted(struct dns_job *job, const struct kt_http_reply *reply)
{
	KT_AUTOJSON json_t *body = NULL;
	int64_t code;

	if (reply->status == 200 || reply->status == 404) {
		dns_job_done(job);
		return;
	}
	body = dns_api_json(job, reply, "removing a record");
	if (body != NULL) {
		const char *detail = first_error(body, &code);

		if (code == RECORD_GONE) {
			dns_job_done(job);
		} else {
			dns_api_refused(job, reply, "removing a record", detail);
		}
	}
}

static void delete_record(struct dns_job *job)
{
	const struct cloudflare *state = job->state;
	struct kt_buf url;

	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/zones/%s/dns_records/%s", state->zone, state->record);
	request(job, "DELETE", &url, (struct kt_view){NULL, 0}, on_deleted);
}

/* content comes with or without its quotes. */
static bool has_value(const struct dns_job *job, const json_t *record)
{
	const char *content = kt_json_str(record, "content");
	size_t len = content == NULL ? 0 : strlen(content);
	struct kt_view text = {content, len};

	if (len >= 2 && content[0] == '"' && content[len - 1] == '"') {
		text = (struct kt_view){content + 1, len - 2};
	}
	return content != NULL && kt_view_eq_str(text, job->value);
}

static void on_listed(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct cloudflare *state = job->state;
	KT_AUTOJSON json_t *body = success(job, reply, "listing records");
	json_t *record;
	size_t i;

	if (body == NULL) {
		return;
	}
	json_array_foreach(json_object_get(body, "result"), i, record) {
		if (has_value(job, record) && dns_api_id(json_object_get(record, "id"), state->record)) {
			if (state->add) {
				remember(job);
				dns_job_done(job);
			} else {
				delete_record(job);
			}
			return;
		}
	}
	if (state->add) {
		dns_job_failf(job, KT_E_PROTO, "cloudflare says that the record exists, but does not list it");
	} else {
		dns_job_done(job);
	}
}

static void list_records(struct dns_job *job)
{
	const struct cloudflare *state = job->state;
	struct kt_buf url;

	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/zones/%s/dns_records?name=%s&per_page=100&type=TXT", state->zone, job->effective);
	request(job, "GET", &url, (struct kt_view){NULL, 0}, on_listed);
}

static void on_created(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct cloudflare *state = job->state;
	KT_AUTOJSON json_t *body = dns_api_json(job, reply, "writing a record");
	const char *detail;
	int64_t code;

	if (body == NULL) {
		return;
	}
	detail = first_error(body, &code);
	if (code == RECORD_EXISTS) {
		list_records(job);
	} else if (reply->status != 200 || !kt_json_bool(body, "success", false)) {
		dns_api_refused(job, reply, "writing a record", detail);
	} else if (!dns_api_id(json_object_get(json_object_get(body, "result"), "id"), state->record)) {
		dns_job_failf(job, KT_E_PROTO, "cloudflare wrote a record without an id");
	} else {
		remember(job);
		dns_job_done(job);
	}
}

static void create_record(struct dns_job *job)
{
	const struct cloudflare *state = job->state;
	KT_AUTOBUF struct kt_buf body, content;
	struct kt_buf url;

	kt_buf_init(&body, 4096);
	kt_buf_init(&content, 2048);
	kt_buf_addf(&content, "\"%s\"", job->value);
	kt_buf_adds(&body, "{\"content\":");
	kt_buf_add_json(&body, kt_buf_view(&content));
	kt_buf_addf(&body, ",\"name\":\"%s\",\"ttl\":%u,\"type\":\"TXT\"}", job->effective, DNS_TTL);
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/zones/%s/dns_records", state->zone);
	request(job, "POST", &url, kt_buf_view(&body), on_created);
}

/* --- the zone --------------------------------------------------------------------------------------------------------- */

static void find_zone(struct dns_job *job);

static void on_zone(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct cloudflare *state = job->state;
	KT_AUTOJSON json_t *body = success(job, reply, "looking for the zone");
	const json_t *zone;

	if (body == NULL) {
		return;
	}
	zone = json_array_get(json_object_get(body, "result"), 0);
	if (zone == NULL) {
		memmove(state->name, dns_name_parent(state->name), strlen(dns_name_parent(state->name)) + 1);
		find_zone(job);
	} else if (!dns_api_id(json_object_get(zone, "id"), state->zone)) {
		dns_job_failf(job, KT_E_PROTO, "cloudflare tells of a zone without an id");
	} else if (state->add) {
		create_record(job);
	} else {
		list_records(job);
	}
}

/* A single label is nobody's zone here. */
static void find_zone(struct dns_job *job)
{
	const struct cloudflare *state = job->state;
	struct kt_buf url;

	if (strchr(state->name, '.') == NULL) {
		dns_job_failf(job, KT_E_NOTFOUND,
			      "this Cloudflare account has no zone for '%s', or the token may not read it (it needs Zone:Read "
			      "and DNS:Edit)",
			      job->effective);
		return;
	}
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/zones?name=%s", state->name);
	request(job, "GET", &url, (struct kt_view){NULL, 0}, on_zone);
}

static void start(struct dns_job *job, bool add)
{
	struct cloudflare *state = kt_calloc(1, sizeof(*state));

	if (state == NULL) {
		dns_job_failf(job, KT_E_NOMEM, "out of memory for a record");
		return;
	}
	job->state = state;
	job->state_free = kt_free;
	state->add = add;
	if (!add && dns_api_id(json_object_get(job->handle, "zone"), state->zone) &&
	    dns_api_id(json_object_get(job->handle, "id"), state->record)) {
		delete_record(job);
		return;
	}
	memcpy(state->name, dns_name_parent(job->effective), strlen(dns_name_parent(job->effective)) + 1);
	find_zone(job);
}

static void add(struct dns_job *job)
{
	start(job, true);
}

static void remove_record(struct dns_job *job)
{
	start(job, false);
}

const struct kt_dns_provider dns_provider_cloudflare = {.name = "cloudflare", .add = add, .remove = remove_record};
