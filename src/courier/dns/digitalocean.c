/* Provider digitalocean: API v2, by token. */
#include <inttypes.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"

#define API      "https://api.digitalocean.com/v2"
#define PER_PAGE 200u
#define PAGES_MAX 10u

struct digitalocean {
	bool add;
	char zone[DNS_NAME_SIZE];
	int64_t record;
	unsigned page;
};

static void request(struct dns_job *job, const char *method, struct kt_buf *url, struct kt_view body, dns_api_fn *then)
{
	KT_AUTOSECRET struct kt_secret *token = NULL;
	struct kt_http_request req = {.method = method,
				      .accept = "application/json",
				      .body = body,
				      .header_name = "Authorization",
				      .header_prefix = "Bearer "};
	struct kt_err err;

	kt_err_clear(&err);
	if (dns_job_secret(job, "token", &token, &err) != KT_OK) {
		kt_buf_finish(url);
		dns_job_fail(job, &err);
		return;
	}
	req.content_type = body.len > 0 ? "application/json" : NULL;
	req.header_value = kt_secret_view(token);
	dns_api_send(job, &req, url, "apiURL", then);
}

static void refuse(struct dns_job *job, const struct kt_http_reply *reply, const char *doing)
{
	KT_AUTOJSON json_t *body = dns_api_json(job, reply, doing);

	if (body != NULL) {
		dns_api_refused(job, reply, doing, kt_json_str(body, "message"));
	}
}

/* --- the record ------------------------------------------------------------------------------------------------------- */

static void on_deleted(struct dns_job *job, const struct kt_http_reply *reply)
{
	if (reply->status == 204 || reply->status == 200 || reply->status == 404) {
		dns_job_done(job);
	} else {
		refuse(job, reply, "removing a record");
	}
}

static void delete_record(struct dns_job *job)
{
	const struct digitalocean *state = job->state;
	struct kt_buf url;

	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/domains/%s/records/%" PRId64, state->zone, state->record);
	request(job, "DELETE", &url, (struct kt_view){NULL, 0}, on_deleted);
}

static void remember(struct dns_job *job)
{
	const struct digitalocean *state = job->state;

	(void)json_object_set_new(job->handle, "zone", json_string(state->zone));
	(void)json_object_set_new(job->handle, "id", json_integer(state->record));
}

static void on_created(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct digitalocean *state = job->state;
	KT_AUTOJSON json_t *body = NULL;

	if (reply->status != 201 && reply->status != 200) {
		refuse(job, reply, "writing a record");
		return;
	}
	body = dns_api_json(job, reply, "writing a record");
	if (body == NULL) {
		return;
	}
	state->record = kt_json_int(json_object_get(body, "domain_record"), "id", 0);
	if (state->record <= 0) {
		dns_job_failf(job, KT_E_PROTO, "digitalocean wrote a record without an id");
		return;
	}
	remember(job);
	dns_job_done(job);
}

/* The name of a record is told within its zone; "@" is the zone itself. */
static void create_record(struct dns_job *job)
{
	const struct digitalocean *state = job->state;
	size_t len = strlen(job->effective) - strlen(state->zone);
	KT_AUTOBUF struct kt_buf body;
	struct kt_buf url;

	kt_buf_init(&body, 4096);
	kt_buf_adds(&body, "{\"data\":");
	kt_buf_add_json(&body, kt_view_str(job->value));
	kt_buf_addf(&body, ",\"name\":\"%.*s\",\"ttl\":%u,\"type\":\"TXT\"}", len == 0 ? 1 : (int)len - 1,
		    len == 0 ? "@" : job->effective, DNS_TTL);
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/domains/%s/records", state->zone);
	request(job, "POST", &url, kt_buf_view(&body), on_created);
}

static void list_records(struct dns_job *job);

static void on_listed(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct digitalocean *state = job->state;
	KT_AUTOJSON json_t *body = NULL;
	json_t *record, *list;
	const char *data;
	size_t i;

	if (reply->status != 200) {
		refuse(job, reply, "listing records");
		return;
	}
	body = dns_api_json(job, reply, "listing records");
	if (body == NULL) {
		return;
	}
	list = json_object_get(body, "domain_records");
	json_array_foreach(list, i, record) {
		data = kt_json_str(record, "data");
		state->record = kt_json_int(record, "id", 0);
		if (data != NULL && strcmp(data, job->value) == 0 && state->record > 0) {
			if (state->add) {
				remember(job);
				dns_job_done(job);
			} else {
				delete_record(job);
			}
			return;
		}
	}
	if (json_array_size(list) >= PER_PAGE && state->page < PAGES_MAX) {
		list_records(job);
	} else if (state->add) {
		create_record(job);
	} else {
		dns_job_done(job);
	}
}

static void list_records(struct dns_job *job)
{
	struct digitalocean *state = job->state;
	struct kt_buf url;

	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/domains/%s/records?name=%s&page=%u&per_page=%u&type=TXT", state->zone, job->effective,
		    ++state->page, PER_PAGE);
	request(job, "GET", &url, (struct kt_view){NULL, 0}, on_listed);
}

/* --- the zone --------------------------------------------------------------------------------------------------------- */

static void find_zone(struct dns_job *job);

static void on_zone(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct digitalocean *state = job->state;

	if (reply->status == 200) {
		list_records(job); /* a record of an ADD that was cut short is not written twice */
	} else if (reply->status == 404) {
		memmove(state->zone, dns_name_parent(state->zone), strlen(dns_name_parent(state->zone)) + 1);
		find_zone(job);
	} else {
		refuse(job, reply, "looking for the zone");
	}
}

static void find_zone(struct dns_job *job)
{
	const struct digitalocean *state = job->state;
	struct kt_buf url;

	if (strchr(state->zone, '.') == NULL) {
		dns_job_failf(job, KT_E_NOTFOUND, "this DigitalOcean account has no domain for '%s'", job->effective);
		return;
	}
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, "/domains/%s", state->zone);
	request(job, "GET", &url, (struct kt_view){NULL, 0}, on_zone);
}

static void start(struct dns_job *job, bool add)
{
	struct digitalocean *state = kt_calloc(1, sizeof(*state));
	const char *zone = kt_json_str(job->handle, "zone");

	if (state == NULL) {
		dns_job_failf(job, KT_E_NOMEM, "out of memory for a record");
		return;
	}
	job->state = state;
	job->state_free = kt_free;
	state->add = add;
	state->record = kt_json_int(job->handle, "id", 0);
	if (!add && zone != NULL && state->record > 0 && dns_name(kt_view_str(zone), state->zone, NULL) == KT_OK) {
		delete_record(job);
		return;
	}
	memcpy(state->zone, dns_name_parent(job->effective), strlen(dns_name_parent(job->effective)) + 1);
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

const struct kt_dns_provider dns_provider_digitalocean = {.name = "digitalocean", .add = add, .remove = remove_record};
