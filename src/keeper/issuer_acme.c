/*
 * The acme issuer: what the keeper does of RFC 8555 for an order. The protocol itself runs in the courier; here are what
 * is ordered, the facts that must be durable before the next request (order URL), and the check of what the CA gave.
 * Accounts and signatures are in acme_account.c and acme_job.c, challenges are answered in solve/.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/acme.h"
#include "keeper/budget.h"
#include "keeper/fallback.h"

/* The courier minds every step; this is the net below it. Records in the DNS take their time to be seen. */
#define ORDER_TIMEOUT (10 * KT_MINUTE)
#define DNS_TIMEOUT   (30 * KT_MINUTE)

/* Facts of one job: an account, an order, and each again where the CA forgot. More fills the audit trail. */
#define SAVES_MAX 16u

static const struct kt_acme *acme_of(const struct kt_flight *flight)
{
	return flight->issuer->spec->issuer.acme;
}

/* --- the order --------------------------------------------------------------------------------------------------- */

/* RFC 8738: an address as RFC 5952 writes it, which is how the CA repeats it. False: it is none. */
static bool canonical_address(const char *text, char out[INET6_ADDRSTRLEN])
{
	unsigned char raw[16];
	int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;

	return inet_pton(family, text, raw) == 1 && inet_ntop(family, raw, out, INET6_ADDRSTRLEN) != NULL;
}

static bool has_name(const struct kt_strings *list, size_t until, const char *name)
{
	size_t i;

	for (i = 0; i < until; i++) {
		if (kt_ascii_ieq(kt_view_str(list->items[i]), kt_view_str(name))) {
			return true;
		}
	}
	return false;
}

static bool has_address(const struct kt_strings *list, size_t until, const char *address)
{
	char other[INET6_ADDRSTRLEN];
	size_t i;

	for (i = 0; i < until; i++) {
		if (canonical_address(list->items[i], other) && strcmp(other, address) == 0) {
			return true;
		}
	}
	return false;
}

static void add_name(struct kt_buf *out, const char *type, const char *value)
{
	if (out->len > 1) {
		kt_buf_addc(out, ',');
	}
	kt_buf_addf(out, "{\"type\":\"%s\",\"value\":", type);
	kt_buf_add_json(out, kt_view_str(value));
	kt_buf_addc(out, '}');
}

static enum kt_code add_address(struct kt_buf *out, const struct kt_strings *list, size_t until, const char *text,
                                struct kt_err *err)
{
	char address[INET6_ADDRSTRLEN];

	if (!canonical_address(text, address)) {
		return kt_err_set(err, KT_E_INVALID, "%.64s is no IP address", text);
	}
	if (!has_address(list, until, address)) {
		add_name(out, "ip", address);
	}
	return KT_OK;
}

/* Whether the common name stands among the alternative names. */
static bool common_is_named(const struct kt_certificate_spec *spec)
{
	char address[INET6_ADDRSTRLEN];

	return has_name(&spec->dns_names, spec->dns_names.count, spec->common_name) ||
	       (canonical_address(spec->common_name, address) &&
	        has_address(&spec->ip_addresses, spec->ip_addresses.count, address));
}

/* Identifiers of the order: every DNS name and address once; the common name when it is not among them. */
static enum kt_code names_json(const struct kt_certificate_spec *spec, struct kt_buf *out, struct kt_err *err)
{
	char address[INET6_ADDRSTRLEN];
	enum kt_code code = KT_OK;
	uint32_t i;

	kt_buf_addc(out, '[');
	for (i = 0; i < spec->dns_names.count; i++) {
		if (!has_name(&spec->dns_names, i, spec->dns_names.items[i])) {
			add_name(out, "dns", spec->dns_names.items[i]);
		}
	}
	for (i = 0; i < spec->ip_addresses.count && code == KT_OK; i++) {
		code = add_address(out, &spec->ip_addresses, i, spec->ip_addresses.items[i], err);
	}
	if (spec->common_name != NULL && !common_is_named(spec)) {
		bool is_address = canonical_address(spec->common_name, address);

		add_name(out, is_address ? "ip" : "dns", is_address ? address : spec->common_name);
	}
	kt_buf_addc(out, ']');
	return code == KT_OK ? kt_buf_check(out, "names", err) : code;
}

/* What is in force now; KT_E_NOTFOUND. */
static enum kt_code predecessor(const struct kt_flight *flight, struct kt_store_material *ret, struct kt_err *err)
{
	if (flight->cred.active == 0 || flight->cred.active == flight->material.id) {
		return kt_err_set(err, KT_E_NOTFOUND, "nothing is in force");
	}
	return kt_store_material_get(flight->keeper->store, flight->cred.active, ret, err);
}

static json_t *cookie_of(const char *text)
{
	json_t *cookie = NULL;

	if (text == NULL || text[0] == '\0' || kt_json_parse(kt_view_str(text), 4096, &cookie, NULL) != KT_OK) {
		return json_object();
	}
	return cookie;
}

/* A successor shares a name with its predecessor, else the CA refuses it as such. */
static bool shares_name(const struct kt_certificate_spec *spec, struct kt_view pem)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	const struct kt_cert *leaf;
	size_t i;

	if (kt_pki_chain_parse(pem, &chain, NULL) != KT_OK) {
		return false;
	}
	leaf = kt_pki_chain_at(chain, 0);
	for (i = 0; i < kt_pki_cert_name_count(leaf); i++) {
		const char *name = kt_pki_cert_name(leaf, i);

		if ((kt_starts_with(name, "dns:") && has_name(&spec->dns_names, spec->dns_names.count, name + 4)) ||
		    (kt_starts_with(name, "ip:") && has_address(&spec->ip_addresses, spec->ip_addresses.count, name + 3))) {
			return true;
		}
	}
	return false;
}

/*
 * RFC 9773 section 5: the certificate that the new one replaces, where it came from the same server and nothing has taken
 * its place there before.
 */
static enum kt_code add_replaces(const struct kt_flight *flight, struct kt_buf *out, struct kt_err *err)
{
	struct kt_store_material old = {0};
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	KT_AUTOJSON json_t *cookie = NULL;
	struct kt_buf id KT_AUTOBUF = {0};

	(void)err;
	kt_buf_init(&id, 256);
	if (acme_of(flight)->renewal_info_disabled || predecessor(flight, &old, NULL) != KT_OK) {
		return KT_OK;
	}
	cookie = cookie_of(old.cookie);
	/* A CA that stumbles over it must not be asked that way for ever: the third try goes without. */
	if (flight->cred.attempts < 2 && shares_name(&flight->spec->certificate, old.chain) &&
	    kt_acme_same_origin(kt_view_str(old.cert_url), kt_view_str(acme_of(flight)->server)) &&
	    !kt_json_bool(cookie, "replaced", false) && kt_pki_chain_parse(old.chain, &chain, NULL) == KT_OK &&
	    kt_pki_cert_ari_id(kt_pki_chain_at(chain, 0), &id, NULL) == KT_OK) {
		kt_buf_adds(out, "\"replaces\":");
		kt_buf_add_json(out, kt_buf_view(&id));
		kt_buf_addc(out, ',');
	}
	kt_store_material_finish(&old);
	return KT_OK;
}

/* What is asked for beside names: see KT_MSG_ACME. */
static enum kt_code options_json(const struct kt_flight *flight, struct kt_buf *out, struct kt_err *err)
{
	const struct kt_acme *acme = acme_of(flight);
	enum kt_code code;

	kt_buf_addc(out, '{');
	if (acme->profile != NULL) {
		kt_buf_adds(out, "\"profile\":");
		kt_buf_add_json(out, kt_view_str(acme->profile));
		kt_buf_addc(out, ',');
	}
	if (acme->preferred_chain != NULL) {
		kt_buf_adds(out, "\"preferredChain\":");
		kt_buf_add_json(out, kt_view_str(acme->preferred_chain));
		kt_buf_addc(out, ',');
	}
	code = add_replaces(flight, out, err);
	kt_buf_addf(out, "\"checkPublic\":%s}", (acme->fallback.count > 0 && !acme->fallback_unchecked) || flight->by_fallback ? "true" : "false");
	return code == KT_OK ? kt_buf_check(out, "options", err) : code;
}

/*
 * ACME has no use for a subject beyond the common name, and CAs ignore the rest. Where a profile is asked for the common
 * name is left out, too: those that there are have none, and it stands among the alternative names.
 */
static enum kt_code csr_of(struct kt_flight *flight, struct kt_buf *out, struct kt_err *err)
{
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	struct kt_spec_request request;
	enum kt_code code = kt_spec_request_init(spec, &request, err);

	if (code == KT_OK && acme_of(flight)->profile != NULL && spec->common_name != NULL && common_is_named(spec)) {
		request.request.common_name = NULL;
	}
	if (code == KT_OK) {
		code = kt_pki_csr_der(&request.request, flight->key, out, err);
	}
	kt_spec_request_finish(&request);
	return code;
}

static enum kt_code check_chain(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_chain *chain,
                                struct kt_err *err)
{
	struct kt_spec_request request;
	struct kt_issue_expect expect = {.key = flight->key, .now = kt_keeper_now(keeper)};
	enum kt_code code = kt_spec_request_init(&flight->spec->certificate, &request, err);

	if (code == KT_OK) {
		/* The CA decides on subjects; names must be exactly what was asked for. */
		request.request.subject_count = 0;
		request.request.literal_subject = NULL;
		expect.request = &request.request;
		expect.min_remaining = KT_SECOND;
		code = kt_pki_check_issued(chain, &expect, err);
	}
	kt_spec_request_finish(&request);
	return code;
}

static enum kt_code take_result(struct kt_keeper *keeper, struct kt_flight *flight, const struct kt_msg_acme_done *done,
                                struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_buf chain_pem KT_AUTOBUF = {0};
	struct kt_buf root_pem KT_AUTOBUF = {0};
	const struct kt_cert *leaf;
	const char *server = acme_of(flight)->server;
	enum kt_code code = KT_OK;

	if (!kt_acme_same_origin(done->cert_url, kt_view_str(server))) {
		code = kt_err_set(err, KT_E_PROTO, "a certificate at another host: %.*s",
		                  (int)(done->cert_url.len < 200 ? done->cert_url.len : 200), done->cert_url.ptr);
	}
	if (code == KT_OK) {
		code = kt_pki_chain_parse_for(done->chain, flight->key, &chain, err);
	}
	kt_buf_init(&chain_pem, KT_PKI_CHAIN_BYTES_MAX);
	kt_buf_init(&root_pem, KT_PKI_CHAIN_BYTES_MAX);
	if (code == KT_OK) {
		code = check_chain(keeper, flight, chain, err);
	}
	if (code == KT_OK) {
		code = kt_fallback_check(flight, chain, done->public, err);
	}
	if (code == KT_OK) {
		code = kt_pki_chain_split(chain, &chain_pem, &root_pem, err);
	}
	if (code == KT_OK) {
		code = kt_issuers_take_chain(flight, kt_buf_view(&chain_pem), kt_buf_view(&root_pem), err);
	}
	if (code != KT_OK) {
		return code;
	}
	leaf = kt_pki_chain_at(chain, 0);
	(void)snprintf(flight->got.serial, sizeof(flight->got.serial), "%s", kt_pki_cert_serial(leaf));
	(void)snprintf(flight->got.sha256, sizeof(flight->got.sha256), "%s", kt_pki_cert_sha256(leaf));
	flight->got.not_before = kt_pki_cert_not_before(leaf);
	flight->got.not_after = kt_pki_cert_not_after(leaf);
	(void)snprintf(flight->cert_url, sizeof(flight->cert_url), "%.*s", (int)done->cert_url.len, done->cert_url.ptr);
	flight->material.cert_url = flight->cert_url;
	return KT_OK;
}

/*
 * An order that gave what can't be used gives the same whenever it is resumed: its URL goes. Where it was resumed it may
 * be of another time (a store from a backup, a key that was lost): then a new one is placed at once, but only once.
 */
static void forget_order(struct kt_flight *flight, bool *ret_anew, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_ORDERED),
	                               .outcome = "retry",
	                               .server_address = acme_of(flight)->server,
	                               .reason = err->what};
	struct kt_err failed;
	enum kt_code code;

	*ret_anew = flight->resumed_order;
	flight->resumed_order = false;
	kt_err_clear(&failed);
	code = kt_store_begin(keeper->store, &failed);
	if (code == KT_OK) {
		code = kt_store_material_urls(keeper->store, flight->material.id, "", "", "", NULL, &failed);
		if (code == KT_OK && *ret_anew) {
			code = kt_flight_audit(flight, &event, &failed);
		}
		if (code == KT_OK) {
			flight->cred.step = KT_STEP_KEYED;
			code = kt_store_cred_put(keeper->store, &flight->cred, &failed);
		}
		code = kt_store_end(keeper->store, code, &failed);
	}
	if (code != KT_OK) {
		*err = failed;
		*ret_anew = false;
		return;
	}
	flight->order_url[0] = '\0';
	flight->material.order_url = flight->material.finalize_url = flight->material.cert_url = NULL;
	if (*ret_anew) {
		kt_log_err(KT_LOG_WARN, err, "the resumed order %s is of no use, a new one is placed", flight->resource.name);
		flight->again = true;
		kt_err_clear(err);
	}
}

/* What the row of the certificate says of its origin: which issuer gave it, and why it was asked for. */
static void take_extras(struct kt_flight *flight, const struct kt_msg_acme_done *done)
{
	KT_AUTOJSON json_t *cookie = cookie_of(flight->material.cookie);
	struct kt_buf text KT_AUTOBUF = {0};

	flight->got.public = done->public;
	flight->got.replaces_dropped = done->replaces_dropped;
	kt_buf_init(&text, sizeof(flight->cookie));
	(void)json_object_set_new(cookie, "issuer", json_string(flight->issuer->ref));
	if (done->public) {
		(void)json_object_set_new(cookie, "public", json_true());
	}
	if (kt_json_dump(cookie, &text, NULL) == KT_OK) {
		(void)snprintf(flight->cookie, sizeof(flight->cookie), "%s", text.ptr);
	}
	flight->material.cookie = flight->cookie;
}

/* In the transaction of the step "obtained": nothing may name the certificate before as one that it replaces again. */
static enum kt_code obtained_acme(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_OBTAINED),
	                               .outcome = "refused",
	                               .server_address = acme_of(flight)->server,
	                               .reason = "the CA refused to take it as the successor of the one before: ordered without"};
	struct kt_store_material old = {0};
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code = flight->got.replaces_dropped ? kt_flight_audit(flight, &event, err) : KT_OK;

	kt_buf_init(&text, 4096);
	if (code == KT_OK && predecessor(flight, &old, NULL) == KT_OK) {
		KT_AUTOJSON json_t *cookie = cookie_of(old.cookie);

		(void)json_object_set_new(cookie, "replaced", json_true());
		code = kt_json_dump(cookie, &text, err);
		if (code == KT_OK) {
			code = kt_store_material_urls(flight->keeper->store, old.id, NULL, NULL, NULL, text.ptr, err);
		}
		kt_store_material_finish(&old);
	}
	if (code == KT_OK) {
		code = kt_budget_obtained(flight, err);
	}
	return code == KT_OK ? kt_fallback_obtained(flight, err) : code;
}

static void end_rehearsal(struct kt_flight *flight, struct kt_err *err);

static void on_done(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	bool anew = false;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	kt_err_clear(&err);
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (flight->rehearsing) {
		err = *why;
		end_rehearsal(flight, &err);
		kt_rotate_wake(flight, &err);
		return;
	}
	if (why->code != KT_OK) {
		err = *why;
		kt_acme_explain(flight->issuer, &err);
		if (strstr(err.what, acme_of(flight)->server) == NULL) { /* the courier may have named it */
			(void)kt_err_prefix(&err, "%s", acme_of(flight)->server);
		}
	} else if (type != KT_ACME_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	} else if (take_result(flight->keeper, flight, msg, &err) != KT_OK) {
		(void)kt_err_prefix(&err, "%s: the certificate is refused", acme_of(flight)->server);
		if (err.code != KT_E_NOMEM) {
			forget_order(flight, &anew, &err);
		}
	} else {
		take_extras(flight, msg);
	}
	kt_rotate_wake(flight, &err);
}

static kt_ms order_timeout(const struct kt_acme *acme)
{
	for (uint32_t i = 0; i < acme->solvers.count; i++) {
		if (acme->solvers.items[i].dns01 != NULL) {
			return DNS_TIMEOUT;
		}
	}
	return ORDER_TIMEOUT;
}

static enum kt_code send_order(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_buf names KT_AUTOBUF = {0};
	struct kt_buf csr KT_AUTOBUF = {0};
	struct kt_buf options KT_AUTOBUF = {0};
	char traceparent[56];
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	struct kt_msg_acme msg = {.account_url = kt_view_str(flight->issuer->account_url),
	                          .order_url = kt_view_str(flight->rehearsing ? "" : flight->order_url)};
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code;

	kt_buf_init(&issuer, 65536);
	kt_buf_init(&names, 65536);
	kt_buf_init(&csr, 32768);
	kt_buf_init(&options, 4096);
	code = kt_acme_issuer_json(keeper, flight->issuer, &issuer, err);
	if (code == KT_OK) {
		code = names_json(spec, &names, err);
	}
	if (code == KT_OK) {
		code = csr_of(flight, &csr, err);
	}
	if (code == KT_OK) {
		code = options_json(flight, &options, err);
	}
	if (code != KT_OK) {
		return code;
	}
	kt_rotate_begin_job(flight);
	flight->resumed_order = !flight->rehearsing && flight->order_url[0] != '\0';
	flight->saves = flight->challenges = 0;
	flight->held_until = 0;
	msg.job = flight->job;
	msg.issuer = kt_buf_view(&issuer);
	msg.names = kt_buf_view(&names);
	msg.csr = kt_buf_view(&csr);
	msg.options = kt_buf_view(&options);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	if (acme_of(flight)->enable_duration_feature) {
		msg.not_before = now;
		msg.not_after = now + spec->duration;
	}
	return kt_wire_call(kt_keeper_courier(keeper), KT_ACME, &msg, NULL, 0, order_timeout(acme_of(flight)), on_done, flight,
	                    err);
}

/*
 * Validation failed before, so that this try goes to the issuer's staging server first, with an account of its own there:
 * failing costs nothing, and what it gives is thrown away. Where that is down itself the real one is asked.
 */
static enum kt_code begin_rehearsal(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	struct kt_issuer_entry *staging;
	enum kt_code code = kt_fallback_staging(keeper, flight->issuer, &staging, err);

	if (code == KT_OK) {
		flight->rehearsing = true;
		flight->real = flight->issuer;
		flight->issuer = flight->staging = staging;
	}
	return code;
}

static void end_rehearsal(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_plan_retry *row = kt_plan_retry_find(err->code, err->problem_type);

	flight->rehearsing = false;
	flight->rehearsed = true;
	flight->issuer = flight->real;
	flight->rehearsal_failed = err->code != KT_OK && (row->validation || row->fault == KT_FAULT_USER);
	if (flight->rehearsal_failed) {
		(void)kt_err_prefix(err, "tried at %s first", flight->staging->spec->issuer.acme->server);
		return;
	}
	if (err->code != KT_OK) {
		kt_log_err(KT_LOG_WARN, err, "%s can't be tried at its staging server first", flight->issuer->ref);
	}
	kt_err_clear(err);
	flight->again = true; /* now the real one */
}

static enum kt_effect obtain_acme(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	bool hold = false;
	enum kt_code code = KT_OK;

	if (kt_fallback_rehearses(flight)) {
		code = begin_rehearsal(keeper, flight, err);
	}
	if (code == KT_OK) {
		code = kt_acme_account_load(keeper, flight->issuer, err);
	}
	if (code == KT_OK) {
		code = kt_acme_hold(keeper, flight->issuer, &hold, err);
	}
	if (code == KT_OK && hold) { /* woken when it is known which key is in force, and called again */
		flight->again = true;
		return KT_EFFECT_PENDING;
	}
	if (code == KT_OK && flight->issuer->account_off) {
		code = kt_err_set(err, KT_E_AUTH,
		                  "the account of %s was deactivated: 'keyturn account register %s' makes a new one",
		                  flight->issuer->ref, flight->issuer->ref);
	}
	if (code == KT_OK) {
		code = send_order(keeper, flight, err);
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_issuer_ops kt_issuer_acme = {
        .name = "acme", .remote = true, .obtain = obtain_acme, .obtained = obtained_acme};

/* --- the courier's questions --------------------------------------------------------------------------------------- */

struct kt_flight *kt_acme_flight(struct kt_keeper *keeper, uint64_t job, struct kt_err *err)
{
	struct kt_flight *flight = kt_rotate_find_job(keeper, job);

	if (flight == NULL || flight->issuer == NULL || flight->issuer->ops != &kt_issuer_acme) {
		(void)kt_err_set(err, KT_E_CANCELLED, "that order is not being worked on any more");
		return NULL;
	}
	return flight;
}

/* The order URL: with it the step "ordered" and its audit record. What it costs was counted before (budget.c). */
static enum kt_code save_order(struct kt_keeper *keeper, struct kt_flight *flight, const char *url, struct kt_err *err)
{
	struct kt_store *store = keeper->store;
	struct kt_audit_event event = {.step = kt_step_name(KT_STEP_ORDERED),
	                               .outcome = "ok",
	                               .issuer = flight->issuer->ref,
	                               .server_address = acme_of(flight)->server};
	enum kt_code code = kt_store_material_urls(store, flight->material.id, url, NULL, NULL, NULL, err);

	(void)snprintf(flight->order_url, sizeof(flight->order_url), "%s", url);
	flight->resumed_order = false;
	if (code == KT_OK) {
		flight->cred.step = KT_STEP_ORDERED;
		flight->cred.step_at = kt_keeper_now(keeper);
		code = kt_store_cred_put(store, &flight->cred, err);
	}
	if (code == KT_OK) {
		code = kt_flight_audit(flight, &event, err);
	}
	return code;
}

static enum kt_code save_of_order(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_view what,
                                  const char *value, struct kt_err *err)
{
	enum kt_code code;

	if (!kt_view_eq_str(what, "order")) {
		return kt_err_set(err, KT_E_PROTO, "the courier wants to save an unknown fact");
	}
	code = kt_store_begin(keeper->store, err);
	if (code != KT_OK) {
		return code;
	}
	code = save_order(keeper, flight, value, err);
	return kt_store_end(keeper->store, code, err);
}

static enum kt_code save(struct kt_keeper *keeper, const struct kt_msg_acme_save *ask, const char *value,
                         struct kt_err *err)
{
	struct kt_acme_job *job = kt_acme_job_find(keeper, ask->job);
	struct kt_flight *flight = job == NULL ? kt_acme_flight(keeper, ask->job, err) : NULL;
	struct kt_issuer_entry *entry = job != NULL ? job->issuer : flight != NULL ? flight->issuer : NULL;

	if (entry == NULL) {
		return err->code;
	}
	if (++*(job != NULL ? &job->saves : &flight->saves) > SAVES_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the courier wants to save more than an order of %s has", entry->ref);
	}
	if (value[0] != '\0' && !kt_acme_same_origin(ask->value, kt_view_str(entry->spec->issuer.acme->server))) {
		return kt_err_set(err, KT_E_PROTO, "%s gave a URL of another host: %.200s", entry->spec->issuer.acme->server,
		                  value);
	}
	if (!kt_view_eq_str(ask->what, "account")) {
		if (flight != NULL && flight->rehearsing) {
			return KT_OK; /* nothing of it is gone on with */
		}
		return flight != NULL ? save_of_order(keeper, flight, ask->what, value, err)
		                      : kt_err_set(err, KT_E_PROTO, "the courier wants to save an order that nobody asked for");
	}
	if (job != NULL && job->promotes) {
		return kt_acme_next_promote(keeper, entry, job->key, value, job->actor, err);
	}
	return kt_acme_account_store(keeper, entry, value, "valid", err);
}

void kt_acme_on_save(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_acme_save *ask = in->msg;
	struct kt_msg_done done = {0};
	char *value KT_AUTOFREE = kt_strndup(ask->value.ptr, ask->value.len);
	struct kt_err err;

	kt_err_clear(&err);
	if (value == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a URL");
	} else {
		(void)save(arg, ask, value, &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}
