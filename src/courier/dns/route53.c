/* Provider route53: Amazon's API, whose records are sets of values: ours is added to what is there, and taken out again. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "kt/mem.h"
#include "kt/text.h"

#define API        "https://route53.amazonaws.com"
#define VERSION    "/2013-04-01"
#define NAMESPACE  "https://route53.amazonaws.com/doc/2013-04-01/"
#define VALUES_MAX 100u
#define POLL       (2 * KT_SECOND)
#define CLASHES_MAX 5u /* of another change that is not done yet */

struct route53 {
	bool add;
	char *region;
	char name[DNS_NAME_SIZE]; /* the zone that is asked for */
	char zone[64], change[64];
	/* The record as it is. */
	bool exists, found; /* found: ours is among the values */
	unsigned ttl, count;
	char *values[VALUES_MAX]; /* with their quotes */
	unsigned clashes;
	kt_ms deadline;
	/* Of an answer with an error. */
	char code[64], message[256];
};

static void forget_values(struct route53 *state)
{
	for (unsigned i = 0; i < state->count; i++) {
		kt_free(state->values[i]);
	}
	state->count = 0;
	state->exists = state->found = false;
}

static void free_state(void *arg)
{
	struct route53 *state = arg;

	forget_values(state);
	kt_free(state->region);
	kt_free(state);
}

static kt_ms now(const struct dns_job *job)
{
	return kt_clock_mono(kt_loop_clock(job->dns->courier->loop));
}

/* --- requests --------------------------------------------------------------------------------------------------------- */

static void request(struct dns_job *job, const char *method, struct kt_buf *url, struct kt_view body, dns_api_fn *then)
{
	const struct route53 *state = job->state;
	KT_AUTOSECRET struct kt_secret *key = NULL, *id = NULL;
	struct kt_http_request req = {.method = method, .accept = "application/xml", .body = body};
	struct kt_err err;

	kt_err_clear(&err);
	req.sigv4_id = kt_json_str(job->solver, "accessKeyID");
	if (dns_job_secret(job, "secretAccessKey", &key, &err) != KT_OK ||
	    (req.sigv4_id == NULL && dns_job_secret(job, "accessKeyID", &id, &err) != KT_OK)) {
		kt_buf_finish(url);
		dns_job_fail(job, &err);
		return;
	}
	req.sigv4 = state->region;
	req.sigv4_id = req.sigv4_id == NULL ? kt_secret_view(id).ptr : req.sigv4_id;
	req.sigv4_secret = kt_secret_view(key);
	req.content_type = body.len > 0 ? "application/xml" : NULL;
	dns_api_send(job, &req, url, "apiURL", then);
}

static void get(struct dns_job *job, dns_api_fn *then, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void get(struct dns_job *job, dns_api_fn *then, const char *fmt, ...)
{
	char path[512];
	struct kt_buf url;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(path, sizeof(path), fmt, args);
	va_end(args);
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_adds(&url, VERSION);
	kt_buf_adds(&url, path);
	request(job, "GET", &url, (struct kt_view){NULL, 0}, then);
}

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static void copy_text(const struct kt_xml *xml, char *ret, size_t size)
{
	size_t len = xml->text.len < size ? xml->text.len : size - 1;

	memcpy(ret, xml->text.ptr, len);
	ret[len] = '\0';
}

/* What is in an answer that is no success; fails the job. */
static void refuse(struct dns_job *job, const struct kt_http_reply *reply, const char *doing)
{
	struct route53 *state = job->state;
	char detail[360] = "";
	struct kt_xml xml;
	enum kt_xml_event event;

	state->code[0] = state->message[0] = '\0';
	kt_xml_init(&xml, reply->body);
	while ((event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		if (event == KT_XML_TEXT && kt_xml_at(&xml, "Error/Code")) {
			copy_text(&xml, state->code, sizeof(state->code));
		} else if (event == KT_XML_TEXT &&
			   (kt_xml_at(&xml, "Error/Message") || kt_xml_at(&xml, "Messages/Message"))) {
			copy_text(&xml, state->message, sizeof(state->message));
		}
	}
	kt_xml_finish(&xml);
	(void)snprintf(detail, sizeof(detail), "%s%s%s", state->code, state->code[0] != '\0' ? ": " : "", state->message);
	if (reply->status == 400 && strstr(state->code, "Throttling") != NULL) {
		dns_job_failf(job, KT_E_LATER, "route53 answers Throttling to %s", doing);
	} else {
		dns_api_refused(job, reply, doing, detail);
	}
}

static void bad_answer(struct dns_job *job, const char *doing)
{
	dns_job_failf(job, KT_E_PROTO, "route53 gives an answer to %s that can't be read", doing);
}

/* "/hostedzone/Z123", "/change/C123": what is behind the last "/". */
static bool take_id(const char *text, char ret[64])
{
	const char *slash = strrchr(text, '/');
	KT_AUTOJSON json_t *value = json_string(slash == NULL ? text : slash + 1);

	return dns_api_id(value, ret);
}

static bool same_name(const struct kt_xml *xml, const char *name)
{
	char got[DNS_NAME_SIZE];

	return dns_name(kt_buf_view(&xml->text), got, NULL) == KT_OK && strcmp(got, name) == 0;
}

/* --- the change ------------------------------------------------------------------------------------------------------- */

static void list_values(struct dns_job *job);

static void poll_change(struct dns_job *job);

static void on_tick(void *arg)
{
	struct dns_job *job = arg;

	job->tick(job);
}

static void after(struct dns_job *job, kt_ms pause, void (*tick)(struct dns_job *job))
{
	struct kt_err err;

	kt_err_clear(&err);
	if (job->timer == NULL &&
	    kt_timer_create(job->dns->courier->loop, on_tick, job, &job->timer, &err) != KT_OK) {
		dns_job_fail(job, &err);
		return;
	}
	job->tick = tick;
	kt_timer_start(job->timer, pause);
}

/* ChangeInfo: its id and whether every server has it; false when it can't be read. */
static bool read_change(const struct kt_http_reply *reply, char id[64], bool *ret_insync)
{
	struct kt_xml xml;
	enum kt_xml_event event;
	bool known = false, status = false;

	kt_xml_init(&xml, reply->body);
	while ((event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		if (event == KT_XML_TEXT && kt_xml_at(&xml, "ChangeInfo/Id")) {
			known = take_id(xml.text.ptr, id);
		} else if (event == KT_XML_TEXT && kt_xml_at(&xml, "ChangeInfo/Status")) {
			status = true;
			*ret_insync = strcmp(xml.text.ptr, "INSYNC") == 0;
		}
	}
	kt_xml_finish(&xml);
	return event == KT_XML_DONE && known && status;
}

static void go_on(struct dns_job *job, bool insync)
{
	const struct route53 *state = job->state;

	if (insync || !state->add) {
		dns_job_done(job);
	} else if (now(job) + POLL > state->deadline) {
		dns_job_failf(job, KT_E_TIMEOUT, "route53 has not brought change %s to its servers in time", state->change);
	} else {
		after(job, POLL, poll_change);
	}
}

static void on_polled(struct dns_job *job, const struct kt_http_reply *reply)
{
	char id[64];
	bool insync = false;

	if (reply->status != 200) {
		refuse(job, reply, "asking for a change");
	} else if (!read_change(reply, id, &insync)) {
		bad_answer(job, "asking for a change");
	} else {
		go_on(job, insync);
	}
}

static void poll_change(struct dns_job *job)
{
	const struct route53 *state = job->state;

	get(job, on_polled, "/change/%s", state->change);
}

static void on_changed(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct route53 *state = job->state;
	bool insync = false;

	if (reply->status == 400 && state->clashes < CLASHES_MAX &&
	    (memmem(reply->body.ptr, reply->body.len, "PriorRequestNotComplete", 23) != NULL ||
	     memmem(reply->body.ptr, reply->body.len, "InvalidChangeBatch", 18) != NULL)) {
		state->clashes++; /* somebody else changed it meanwhile: look again */
		after(job, POLL, list_values);
		return;
	}
	if (reply->status != 200) {
		refuse(job, reply, "changing the record");
	} else if (!read_change(reply, state->change, &insync)) {
		bad_answer(job, "changing the record");
	} else {
		(void)json_object_set_new(job->handle, "zone", json_string(state->zone));
		dns_job_unlock(job); /* who reads now sees the change, though its servers may not have it yet */
		go_on(job, insync);
	}
}

static void add_xml(struct kt_buf *out, const char *text)
{
	for (; *text != '\0'; text++) {
		switch (*text) {
		case '<':
			kt_buf_adds(out, "&lt;");
			break;
		case '>':
			kt_buf_adds(out, "&gt;");
			break;
		case '&':
			kt_buf_adds(out, "&amp;");
			break;
		case '"':
			kt_buf_adds(out, "&quot;");
			break;
		default:
			kt_buf_addc(out, *text);
			break;
		}
	}
}

static bool is_ours(const struct dns_job *job, const char *value)
{
	size_t len = strlen(job->value);

	return strlen(value) == len + 2 && value[0] == '"' && value[len + 1] == '"' &&
	       memcmp(value + 1, job->value, len) == 0;
}

static void add_value(struct kt_buf *out, const char *value)
{
	kt_buf_adds(out, "<ResourceRecord><Value>");
	add_xml(out, value);
	kt_buf_adds(out, "</Value></ResourceRecord>");
}

/* The last value goes by DELETE, which must tell the set as it is; all else is an UPSERT of the set as it is to be. */
static void send_change(struct dns_job *job)
{
	const struct route53 *state = job->state;
	bool last = !state->add && state->count == 1;
	KT_AUTOBUF struct kt_buf body, ours;
	struct kt_buf url;

	kt_buf_init(&body, 65536);
	kt_buf_init(&ours, 2048);
	kt_buf_addf(&ours, "\"%s\"", job->value);
	kt_buf_addf(&body,
		    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ChangeResourceRecordSetsRequest xmlns=\"" NAMESPACE
		    "\"><ChangeBatch><Changes><Change><Action>%s</Action><ResourceRecordSet><Name>%s.</Name>"
		    "<Type>TXT</Type><TTL>%u</TTL><ResourceRecords>",
		    last ? "DELETE" : "UPSERT", job->effective, state->ttl);
	for (unsigned i = 0; i < state->count; i++) {
		if (last || !is_ours(job, state->values[i])) {
			add_value(&body, state->values[i]);
		}
	}
	if (state->add && ours.failed == KT_OK) {
		add_value(&body, ours.ptr);
	}
	kt_buf_adds(&body, "</ResourceRecords></ResourceRecordSet></Change></Changes></ChangeBatch>"
			   "</ChangeResourceRecordSetsRequest>");
	dns_api_url(job, &url, "apiURL", API);
	kt_buf_addf(&url, VERSION "/hostedzone/%s/rrset", state->zone);
	request(job, "POST", &url, kt_buf_view(&body), on_changed);
}

/* --- the values that are there ------------------------------------------------------------------------------------------ */

/* NULL, or why the answer is of no use. One record set is asked for: it is ours or one behind it. */
static const char *read_values(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct route53 *state = job->state;
	bool name = false, type = false, known = false;
	const char *why = NULL;
	enum kt_xml_event event;
	struct kt_xml xml;
	uint64_t ttl;

	kt_xml_init(&xml, reply->body);
	while (why == NULL && (event = kt_xml_next(&xml)) != KT_XML_DONE) {
		known = known || kt_xml_at(&xml, "ListResourceRecordSetsResponse");
		if (event == KT_XML_BAD) {
			why = "that can't be read";
		} else if (event == KT_XML_END && kt_xml_at(&xml, "ResourceRecordSets/ResourceRecordSet")) {
			state->exists = name && type;
			break;
		} else if (event != KT_XML_TEXT) {
			continue;
		} else if (kt_xml_at(&xml, "ResourceRecordSet/Name")) {
			name = same_name(&xml, job->effective);
		} else if (kt_xml_at(&xml, "ResourceRecordSet/Type")) {
			type = strcmp(xml.text.ptr, "TXT") == 0;
		} else if (kt_xml_at(&xml, "ResourceRecordSet/SetIdentifier") && name) {
			why = "with a routing policy, which can't be changed from here";
		} else if (kt_xml_at(&xml, "ResourceRecordSet/TTL") &&
			   kt_parse_u64(kt_buf_view(&xml.text), 2147483647, &ttl, NULL) == KT_OK) {
			state->ttl = (unsigned)ttl;
		} else if (kt_xml_at(&xml, "ResourceRecord/Value")) {
			char *value = state->count < VALUES_MAX ? kt_strdup(xml.text.ptr) : NULL;

			if (value == NULL) {
				why = "with more values than there is room for";
				break;
			}
			state->values[state->count++] = value;
		}
	}
	kt_xml_finish(&xml);
	why = known ? why : "that can't be read";
	if (!state->exists) {
		forget_values(state);
		state->ttl = DNS_TTL;
	}
	for (unsigned i = 0; i < state->count; i++) {
		state->found = state->found || is_ours(job, state->values[i]);
	}
	return why;
}

static void on_listed(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct route53 *state = job->state;
	const char *why;

	if (reply->status != 200) {
		refuse(job, reply, "listing the record");
		return;
	}
	forget_values(state);
	state->ttl = DNS_TTL;
	why = read_values(job, reply);
	if (why != NULL) {
		dns_job_failf(job, KT_E_PROTO, "route53 tells of a record %s", why);
	} else if (state->found == state->add) {
		(void)json_object_set_new(job->handle, "zone", json_string(state->zone));
		dns_job_done(job);
	} else {
		send_change(job);
	}
}

static void list_values(struct dns_job *job)
{
	const struct route53 *state = job->state;

	get(job, on_listed, "/hostedzone/%s/rrset?maxitems=1&name=%s.&type=TXT", state->zone, job->effective);
}

/* --- the zone --------------------------------------------------------------------------------------------------------- */

static void find_zone(struct dns_job *job);

/* The public zone of exactly this name: there may be private ones beside it. */
static bool read_zone(struct route53 *state, const struct kt_http_reply *reply, bool *ret_found)
{
	bool name = false, private = false, known = false;
	enum kt_xml_event event = KT_XML_BAD;
	struct kt_xml xml;
	char id[64] = "";

	*ret_found = false;
	kt_xml_init(&xml, reply->body);
	while (!*ret_found && (event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		known = known || kt_xml_at(&xml, "ListHostedZonesByNameResponse");
		if (event == KT_XML_START && kt_xml_at(&xml, "HostedZones/HostedZone")) {
			name = private = false;
			id[0] = '\0';
		} else if (event == KT_XML_TEXT && kt_xml_at(&xml, "HostedZone/Id")) {
			(void)take_id(xml.text.ptr, id);
		} else if (event == KT_XML_TEXT && kt_xml_at(&xml, "HostedZone/Name")) {
			name = same_name(&xml, state->name);
		} else if (event == KT_XML_TEXT && kt_xml_at(&xml, "Config/PrivateZone")) {
			private = strcmp(xml.text.ptr, "true") == 0;
		} else if (event == KT_XML_END && kt_xml_at(&xml, "HostedZones/HostedZone") && name && !private &&
			   id[0] != '\0') {
			memcpy(state->zone, id, sizeof(state->zone));
			*ret_found = true;
		}
	}
	kt_xml_finish(&xml);
	return *ret_found || (event == KT_XML_DONE && known);
}

static void on_zone(struct dns_job *job, const struct kt_http_reply *reply)
{
	struct route53 *state = job->state;
	bool found;

	if (reply->status != 200) {
		refuse(job, reply, "looking for the zone");
	} else if (!read_zone(state, reply, &found)) {
		bad_answer(job, "looking for the zone");
	} else if (found) {
		list_values(job);
	} else {
		memmove(state->name, dns_name_parent(state->name), strlen(dns_name_parent(state->name)) + 1);
		find_zone(job);
	}
}

static void find_zone(struct dns_job *job)
{
	const struct route53 *state = job->state;

	if (strchr(state->name, '.') == NULL) {
		dns_job_failf(job, KT_E_NOTFOUND,
			      "this AWS account has no public hosted zone for '%s'; name one in hostedZoneID", job->effective);
		return;
	}
	get(job, on_zone, "/hostedzonesbyname?dnsname=%s.&maxitems=10", state->name);
}

static void start(struct dns_job *job, bool add)
{
	struct route53 *state = kt_calloc(1, sizeof(*state));
	const char *region = kt_json_str(job->solver, "region"), *zone = kt_json_str(job->solver, "hostedZoneID");

	if (state == NULL) {
		dns_job_failf(job, KT_E_NOMEM, "out of memory for a record");
		return;
	}
	job->state = state;
	job->state_free = free_state;
	state->add = add;
	state->deadline = now(job) + (job->timeout > KT_MINUTE ? job->timeout : KT_MINUTE);
	state->region = kt_asprintf("aws:amz:%s:route53", region == NULL ? "us-east-1" : region);
	if (state->region == NULL) {
		dns_job_failf(job, KT_E_NOMEM, "out of memory for a record");
		return;
	}
	zone = zone == NULL || zone[0] == '\0' ? kt_json_str(job->handle, "zone") : zone;
	if (zone != NULL && !take_id(zone, state->zone)) {
		dns_job_failf(job, KT_E_INVALID, "hostedZoneID '%.60s' is none", zone);
	} else if (zone != NULL) {
		list_values(job);
	} else {
		memcpy(state->name, dns_name_parent(job->effective), strlen(dns_name_parent(job->effective)) + 1);
		find_zone(job);
	}
}

static void add(struct dns_job *job)
{
	start(job, true);
}

static void remove_record(struct dns_job *job)
{
	start(job, false);
}

const struct kt_dns_provider dns_provider_route53 = {.name = "route53", .add = add, .remove = remove_record};
