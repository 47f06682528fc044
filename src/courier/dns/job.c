/* A job of dns-01 from the keeper's request to the reply: prepare, trace, write or remove, watch. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "courier/dns/dns_internal.h"
#include "courier/url.h"
#include "kt/io.h"
#include "kt/mem.h"

#define RESOLVE_TIMEOUT (5 * KT_SECOND)
/* Less than the keeper waits, which then knows why. */
#define WRITE_LIMIT     (4 * KT_MINUTE) /* beside the propagation */
#define REMOVE_LIMIT    (100 * KT_SECOND)
#define RESOLV_CONF     "/etc/resolv.conf"

/* --- the list --------------------------------------------------------------------------------------------------------- */

static void read_system(struct kt_dns *dns)
{
	KT_AUTOBUF struct kt_buf text;

	kt_buf_init(&text, 65536);
	if (kt_io_read_file(AT_FDCWD, RESOLV_CONF, &text, NULL) == KT_OK) {
		dns->system_count = dns_resolv_conf(kt_buf_view(&text), dns->system, 3);
	}
}

enum kt_code kt_dns_create(struct kt_courier *courier, struct kt_dns **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	if (*ret == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for dns-01");
	}
	(*ret)->courier = courier;
	read_system(*ret); /* it may be out of reach once the walls are closed */
	return KT_OK;
}

/* What the provider had under way. */
static void end_provider(struct dns_job *job)
{
	dns_cancel(job->query);
	kt_http_cancel(job->call);
	kt_timer_destroy(job->timer);
	if (job->state_free != NULL) {
		job->state_free(job->state);
	}
	job->query = NULL;
	job->call = NULL;
	job->timer = NULL;
	job->state = NULL;
	job->state_free = NULL;
	job->writing = false;
}

static void wake_waiting(struct kt_dns *dns, const char *name);

static void end(struct dns_job *job)
{
	struct kt_dns *dns = job->dns;
	struct dns_job **at = &dns->jobs;
	char name[DNS_NAME_SIZE];
	bool wrote = job->writing;

	while (*at != job) {
		at = &(*at)->next;
	}
	*at = job->next;
	dns->count--;
	memcpy(name, job->locked, sizeof(name));
	end_provider(job);
	kt_timer_destroy(job->limit);
	kt_resolve_cancel(job->lookup);
	dns_trace_cancel(job->trace);
	dns_watch_cancel(job->watch);
	kt_free(job->traced);
	json_decref(job->solver);
	json_decref(job->handle);
	json_decref(job->named);
	kt_secret_destroy(job->secret);
	kt_free(job->value);
	kt_free(job);
	if (wrote) {
		wake_waiting(dns, name);
	}
}

void kt_dns_drop(struct kt_dns *dns)
{
	for (struct dns_job *job = dns->jobs; job != NULL; job = job->next) {
		job->writing = job->waiting = false; /* nobody is to be woken */
	}
	while (dns->jobs != NULL) {
		end(dns->jobs);
	}
}

void kt_dns_destroy(struct kt_dns *dns)
{
	if (dns != NULL) {
		kt_dns_drop(dns);
		kt_free(dns);
	}
}

bool kt_dns_cancel(struct kt_dns *dns, uint64_t id)
{
	struct dns_job *job = dns->jobs;
	struct kt_err err;

	while (job != NULL && job->id != id) {
		job = job->next;
	}
	if (job == NULL) {
		return false;
	}
	(void)kt_err_set(&err, KT_E_CANCELLED, "called off");
	dns_job_fail(job, &err);
	return true;
}

/* --- ends ------------------------------------------------------------------------------------------------------------- */

void dns_job_fail(struct dns_job *job, const struct kt_err *err)
{
	static const char *const doing[] = {"writing", "removing", "looking for"};
	struct kt_err why = *err;

	(void)kt_err_prefix(&why, "dns-01: %s TXT '%s'", doing[job->action], job->record);
	if (job->action == KT_DNS01_ADD && !job->touched && job->provider != NULL && job->provider->add != NULL) {
		(void)snprintf(why.problem_type, sizeof(why.problem_type), "%s", KT_DNS01_UNWRITTEN);
	}
	kt_wire_reply_err(job->dns->courier->keeper, job->reply_to, &why);
	end(job);
}

void dns_job_failf(struct dns_job *job, enum kt_code code, const char *fmt, ...)
{
	char text[700];
	struct kt_err err;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	(void)kt_err_set(&err, code, "%s", text);
	dns_job_fail(job, &err);
}

static void reply(struct dns_job *job, const char *seen)
{
	struct kt_msg_dns01_done done = {.effective = kt_view_str(job->effective), .seen = kt_view_str(seen)};
	KT_AUTOBUF struct kt_buf handle;
	struct kt_err err;

	kt_buf_init(&handle, 2048);
	if (job->action == KT_DNS01_ADD && kt_json_dump(job->handle, &handle, &err) != KT_OK) {
		dns_job_fail(job, &err);
		return;
	}
	done.handle = kt_buf_view(&handle);
	kt_wire_reply(job->dns->courier->keeper, job->reply_to, KT_DNS01_DONE, &done, NULL, 0);
	end(job);
}

/* --- what a job may know ---------------------------------------------------------------------------------------------- */

enum kt_code dns_job_secret(const struct dns_job *job, const char *member, struct kt_secret **ret, struct kt_err *err)
{
	KT_AUTOJSON json_t *all = NULL;
	const char *text = NULL;

	if (job->secret != NULL && kt_json_parse(kt_secret_view(job->secret), 65536, &all, NULL) == KT_OK) {
		text = kt_json_str(all, member);
	}
	if (text == NULL || text[0] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "the secret of solver %s has no '%s'", job->provider->name, member);
	}
	return kt_secret_create(text, strlen(text), ret, err);
}

static bool is_local(const struct sockaddr_storage *at)
{
	enum kt_reach reach = kt_reach_of_address((const struct sockaddr *)at);

	return reach == KT_REACH_LOOPBACK || reach == KT_REACH_LINK;
}

bool dns_job_allows(const struct dns_job *job, const struct sockaddr_storage *at)
{
	bool named = false;

	for (unsigned i = 0; i < job->recursive_count && job->recursive_named; i++) {
		named = named || is_local(&job->recursive[i].at);
	}
	for (unsigned i = 0; i < job->update_count; i++) {
		named = named || is_local(&job->update[i].at);
	}
	return kt_reach_of_address((const struct sockaddr *)at) == KT_REACH_ANY || (is_local(at) && named);
}

uint16_t dns_job_port(const struct dns_job *job, const struct sockaddr_storage *at)
{
	for (unsigned i = 0; i < job->update_count; i++) {
		if (dns_server_same_host(&job->update[i].at, at)) {
			return dns_server_port(&job->update[i]);
		}
	}
	for (unsigned i = 0; i < job->recursive_count && is_local(at) && job->recursive_named; i++) {
		if (dns_server_same_host(&job->recursive[i].at, at)) {
			return dns_server_port(&job->recursive[i]);
		}
	}
	return 53;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static bool taken(const struct dns_job *job)
{
	for (const struct dns_job *other = job->dns->jobs; other != NULL; other = other->next) {
		if (other != job && other->writing && strcmp(other->locked, job->effective) == 0) {
			return true;
		}
	}
	return false;
}

/* One at a time on a name: some providers replace the whole set of its values. */
static void write_record(struct dns_job *job)
{
	job->waiting = taken(job);
	if (job->waiting) {
		return;
	}
	job->writing = true;
	memcpy(job->locked, job->effective, sizeof(job->locked));
	(void)json_object_set_new(job->handle, "name", json_string(job->effective));
	if (job->action == KT_DNS01_ADD) {
		job->provider->add(job);
	} else if (job->provider->remove != NULL) {
		job->provider->remove(job);
	} else {
		dns_job_done(job);
	}
}

static void wake_waiting(struct kt_dns *dns, const char *name)
{
	for (struct dns_job *job = dns->jobs; job != NULL; job = job->next) {
		if (job->waiting && strcmp(job->effective, name) == 0) {
			write_record(job);
			return;
		}
	}
}

void dns_job_unlock(struct dns_job *job)
{
	job->writing = false;
	wake_waiting(job->dns, job->locked);
}

static void on_seen(const struct kt_err *err, const char *seen, void *arg)
{
	struct dns_job *job = arg;

	job->watch = NULL;
	if (err->code != KT_OK) {
		dns_job_fail(job, err);
	} else {
		reply(job, seen);
	}
}

static void look(struct dns_job *job)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (dns_watch(job, job->traced, on_seen, job, &job->watch, &err) != KT_OK) {
		dns_job_fail(job, &err);
	}
}

void dns_job_done(struct dns_job *job)
{
	struct kt_dns *dns = job->dns;
	char name[DNS_NAME_SIZE];

	memcpy(name, job->locked, sizeof(name));
	end_provider(job);
	kt_secret_destroy(job->secret); /* looking needs none */
	job->secret = NULL;
	if (job->action == KT_DNS01_ADD) {
		look(job);
	} else {
		reply(job, "");
	}
	wake_waiting(dns, name);
}

/* --- where the record is ---------------------------------------------------------------------------------------------- */

static bool follows(const struct dns_job *job)
{
	return kt_json_bool(job->solver, "followCNAME", false);
}

static void on_traced(const struct kt_err *err, struct dns_traced *traced, void *arg)
{
	struct dns_job *job = arg;
	bool only_looks = job->action == KT_DNS01_CHECK || job->provider->add == NULL;

	job->trace = NULL;
	job->traced = traced;
	if (err->code != KT_OK) {
		dns_job_fail(job, err);
		return;
	}
	if (only_looks || follows(job)) {
		memcpy(job->effective, traced->end, sizeof(job->effective));
	}
	if (only_looks) {
		look(job);
	} else if (job->action == KT_DNS01_ADD && !job->provider->aliased &&
		   strcmp(job->effective, traced->end) != 0) {
		dns_job_failf(job, KT_E_INVALID,
			      "it is an alias (CNAME) of '%s', where the CA will look: set cnameStrategy: Follow to write there",
			      traced->end);
	} else {
		write_record(job);
	}
}

/* Removing needs no name server when the record's place is known. */
static void locate(struct dns_job *job)
{
	const char *name = kt_json_str(job->handle, "name");
	struct kt_err err;

	kt_err_clear(&err);
	if (job->action == KT_DNS01_REMOVE && name != NULL) {
		if (dns_name(kt_view_str(name), job->effective, &err) != KT_OK) {
			dns_job_fail(job, &err);
			return;
		}
		write_record(job);
		return;
	}
	if (job->action == KT_DNS01_REMOVE && (!follows(job) || job->provider->remove == NULL)) {
		write_record(job);
		return;
	}
	if (dns_trace(job, job->record, on_traced, job, &job->trace, &err) != KT_OK) {
		dns_job_fail(job, &err);
	}
}

/* --- the manifest's servers ------------------------------------------------------------------------------------------- */

static void resolve_next(struct dns_job *job);

static bool literal(const char *host, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		return true;
	}
	v6->sin6_family = AF_INET6;
	return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
}

/* The text of the n-th server that the manifest names: the update server first. NULL after the last. */
static const char *server_text(const struct dns_job *job, unsigned n, bool *is_update)
{
	const char *update = kt_json_str(job->solver, "nameserver");

	*is_update = update != NULL && n == 0;
	if (*is_update) {
		return update;
	}
	return json_string_value(json_array_get(job->named, n - (update != NULL ? 1 : 0)));
}

/* "host", "host:port", "[v6]", "[v6]:port" */
static enum kt_code split(const char *text, char host[256], uint16_t *port, struct kt_err *err)
{
	size_t len = strlen(text);

	if (kt_url_split_address(kt_view_str(text), host, port, NULL) == KT_OK) {
		return KT_OK;
	}
	*port = 53;
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len == 0 || len > 255 || strpbrk(text, " /@") != NULL) {
		return kt_err_set(err, KT_E_INVALID, "'%.200s' is no name server: write host:port or [::1]:port", text);
	}
	memcpy(host, text, len);
	host[len] = '\0';
	return KT_OK;
}

static void take_address(struct dns_job *job, bool is_update, const struct sockaddr_storage *at, uint16_t port)
{
	if (is_update && job->update_count < DNS_NS_ADDRESSES) {
		dns_server_set(&job->update[job->update_count++], at, port);
	} else if (!is_update && job->recursive_count < DNS_RECURSIVE_MAX) {
		dns_server_set(&job->recursive[job->recursive_count++], at, port);
		job->recursive_named = true;
	}
}

static void on_resolved(const struct kt_err *err, const struct kt_addresses *addresses, void *arg)
{
	struct dns_job *job = arg;
	bool is_update;
	const char *text = server_text(job, job->resolving, &is_update);
	char host[256];
	uint16_t port = 53;

	job->lookup = NULL;
	if (err->code != KT_OK) {
		dns_job_fail(job, err);
		return;
	}
	(void)split(text, host, &port, NULL);
	for (unsigned i = 0; i < addresses->count; i++) {
		take_address(job, is_update, &addresses->at[i], port);
	}
	job->resolving++;
	resolve_next(job);
}

static void use_system(struct dns_job *job)
{
	struct kt_dns *dns = job->dns;

	read_system(dns);
	for (unsigned i = 0; i < dns->system_count; i++) {
		job->recursive[job->recursive_count++] = dns->system[i];
	}
}

static void resolve_next(struct dns_job *job)
{
	struct sockaddr_storage at;
	struct kt_err err;
	char host[256];
	uint16_t port;
	const char *text;
	bool is_update;

	kt_err_clear(&err);
	while ((text = server_text(job, job->resolving, &is_update)) != NULL) {
		if (split(text, host, &port, &err) != KT_OK) {
			dns_job_fail(job, &err);
			return;
		}
		if (!literal(host, &at)) {
			if (kt_resolve(kt_http_resolver(job->dns->courier->http), host, true, RESOLVE_TIMEOUT,
				       on_resolved, job, &job->lookup, &err) != KT_OK) {
				dns_job_fail(job, &err);
			}
			return;
		}
		take_address(job, is_update, &at, port);
		job->resolving++;
	}
	if (job->recursive_count == 0) {
		use_system(job);
	}
	if (job->recursive_count == 0) {
		dns_job_failf(job, KT_E_INVALID,
			      "no name server is known: " RESOLV_CONF " names none; give the Agent spec.dns01.recursiveNameservers");
		return;
	}
	locate(job);
}

/* --- the request ------------------------------------------------------------------------------------------------------ */

static enum kt_code read_settings(struct dns_job *job, struct kt_view text, struct kt_err *err)
{
	KT_AUTOJSON json_t *dns = NULL;
	json_t *list;

	if (text.len == 0) {
		job->timeout = 2 * KT_MINUTE;
		return KT_OK;
	}
	if (kt_json_parse(text, 4096, &dns, err) != KT_OK || !json_is_object(dns)) {
		return kt_err_set(err, KT_E_INVALID, "the DNS settings of a request are no JSON object");
	}
	job->recursive_only = kt_json_bool(dns, "recursiveNameserversOnly", false);
	job->timeout = kt_json_int(dns, "propagationTimeoutMs", 2 * KT_MINUTE);
	job->timeout = job->timeout < 0 ? 0 : job->timeout > KT_HOUR ? KT_HOUR : job->timeout;
	list = json_object_get(dns, "recursiveNameservers");
	if (json_array_size(list) > DNS_RECURSIVE_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "more than %u recursive name servers", DNS_RECURSIVE_MAX);
	}
	job->named = json_incref(list);
	return KT_OK;
}

static enum kt_code read_request(struct dns_job *job, struct kt_msg_dns01 *msg, struct kt_err *err)
{
	const char *name;

	if (msg->action > KT_DNS01_CHECK || msg->traceparent.len > KT_TRACE_MAX || msg->value.len == 0) {
		return kt_err_set(err, KT_E_INVALID, "a DNS request has a bad action, trace or value");
	}
	if (dns_name(msg->record, job->record, err) != KT_OK || job->record[0] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "a DNS request has a bad record name");
	}
	memcpy(job->effective, job->record, sizeof(job->effective));
	if (msg->traceparent.len > 0) {
		memcpy(job->traceparent, msg->traceparent.ptr, msg->traceparent.len);
	}
	for (size_t i = 0; i < msg->value.len; i++) {
		if (msg->value.ptr[i] < ' ' || msg->value.ptr[i] > '~' || msg->value.ptr[i] == '"' ||
		    msg->value.ptr[i] == '\\') {
			return kt_err_set(err, KT_E_INVALID, "a DNS request has a value that is not plain text");
		}
	}
	if (kt_courier_copy(msg->value, &job->value, err) != KT_OK) {
		return err->code;
	}
	if (msg->handle.len > 0 && kt_json_parse(msg->handle, 2048, &job->handle, err) != KT_OK) {
		return kt_err_prefix(err, "the handle of a DNS request");
	}
	if (job->handle == NULL) {
		job->handle = json_object();
	}
	if (kt_json_parse(msg->solver, 16384, &job->solver, err) != KT_OK || !json_is_object(job->solver) ||
	    !json_is_object(job->handle)) {
		return kt_err_set(err, KT_E_INVALID, "the solver or the handle of a DNS request is no JSON object");
	}
	name = kt_json_str(job->solver, "provider");
	job->provider = dns_provider(name == NULL ? "none" : name);
	if (job->provider == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "there is no DNS provider '%.60s' here", name);
	}
	if (msg->secret != NULL && kt_secret_len(msg->secret) > 0) {
		job->secret = msg->secret;
		msg->secret = NULL;
	}
	return read_settings(job, msg->dns, err);
}

static void on_limit(void *arg)
{
	struct dns_job *job = arg;

	dns_job_failf(job, KT_E_TIMEOUT, "%s",
		      job->waiting ? "other changes of this name take too long" : "provider and name servers take too long");
}

void kt_dns_handle(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct kt_dns *dns = courier->dns;
	struct dns_job *job = dns->count < KT_DNS_JOBS_MAX ? kt_calloc(1, sizeof(*job)) : NULL;
	struct kt_msg_dns01 *msg = in->msg;
	struct kt_err err;

	if (job == NULL) {
		(void)(dns->count < KT_DNS_JOBS_MAX
			       ? kt_err_set(&err, KT_E_NOMEM, "out of memory for a DNS job")
			       : kt_err_set(&err, KT_E_LATER, "too many DNS records are being written already"));
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	job->dns = dns;
	job->reply_to = in->id;
	job->id = msg->job;
	job->action = msg->action <= KT_DNS01_CHECK ? (enum kt_dns01_action)msg->action : KT_DNS01_CHECK;
	job->next = dns->jobs;
	dns->jobs = job;
	dns->count++;
	kt_err_clear(&err);
	if (read_request(job, msg, &err) != KT_OK) {
		dns_job_fail(job, &err);
		return;
	}
	if (kt_timer_create(courier->loop, on_limit, job, &job->limit, &err) != KT_OK) {
		dns_job_fail(job, &err);
		return;
	}
	kt_timer_start(job->limit, job->action == KT_DNS01_REMOVE ? REMOVE_LIMIT : job->timeout + WRITE_LIMIT);
	resolve_next(job);
}
