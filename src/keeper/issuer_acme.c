/*
 * The acme issuer: what the keeper does of RFC 8555. The protocol itself runs in the courier; here are the account key
 * (which signs only for URLs of the issuer's own origin), the facts that must be durable before the next request
 * (account URL, order URL), and the check of what the CA gave. Challenges are answered in solve/.
 */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/keeper.h"

#define ORDER_TIMEOUT (10 * KT_MINUTE)

static const struct kt_acme *acme_of(const struct kt_flight *flight)
{
	return flight->issuer->spec->issuer.acme;
}

/* "https://host:port" of a URL: its length, 0 when it has none. */
static size_t origin_len(struct kt_view url)
{
	size_t i = 0;

	if (url.len < 9 || (memcmp(url.ptr, "https://", 8) != 0 && memcmp(url.ptr, "http://", 7) != 0)) {
		return 0;
	}
	for (i = url.ptr[4] == 's' ? 8 : 7; i < url.len && url.ptr[i] != '/' && url.ptr[i] != '?'; i++) {
		if (url.ptr[i] == '@' || url.ptr[i] == '\\') {
			return 0;
		}
	}
	return i;
}

static bool same_origin(struct kt_view a, struct kt_view b)
{
	size_t len = origin_len(a);

	return len > 0 && len == origin_len(b) && kt_ascii_ieq((struct kt_view){a.ptr, len}, (struct kt_view){b.ptr, len});
}

/* --- the account ------------------------------------------------------------------------------------------------- */

static struct kt_seal_id account_seal(const struct kt_issuer_entry *entry)
{
	return kt_store_account_seal_id(entry->ref, entry->spec->issuer.acme->server);
}

static enum kt_code store_account(struct kt_keeper *keeper, struct kt_issuer_entry *entry, const char *url,
                                  struct kt_err *err)
{
	struct kt_secret *der KT_AUTOSECRET = NULL;
	struct kt_buf sealed KT_AUTOBUF = {0};
	struct kt_seal_id id = account_seal(entry);
	struct kt_store_account row = {.issuer = entry->ref,
	                               .server_url = entry->spec->issuer.acme->server,
	                               .account_url = url,
	                               .status = url[0] != '\0' ? "valid" : "new",
	                               .created = kt_keeper_now(keeper)};
	enum kt_code code;

	kt_buf_init(&sealed, 16384);
	code = kt_pki_key_to_der(entry->signing_key, KT_KEY_PKCS8, &der, err);
	if (code == KT_OK) {
		code = kt_keys_seal(keeper->keys, &id, kt_secret_view(der), &sealed, err);
	}
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code != KT_OK) {
		return code;
	}
	row.sealed_key = kt_buf_view(&sealed);
	code = kt_store_account_put(keeper->store, &row, err);
	if (code != KT_OK) {
		kt_store_rollback(keeper->store);
		return code;
	}
	return kt_store_commit(keeper->store, err);
}

/* The account's key: from the store, from the Secret that the issuer names, or a new one, sealed before its first use. */
static enum kt_code load_account(struct kt_keeper *keeper, struct kt_issuer_entry *entry, struct kt_err *err)
{
	const struct kt_acme *acme = entry->spec->issuer.acme;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_store_account row;
	struct kt_seal_id id = account_seal(entry);
	enum kt_code code;

	if (entry->signing_key != NULL) {
		return KT_OK;
	}
	code = kt_store_account_get(keeper->store, entry->ref, acme->server, &row, err);
	if (code == KT_OK) {
		code = kt_keys_unseal(keeper->keys, &id, row.sealed_key, &secret, err);
		if (code == KT_OK) {
			code = kt_pki_key_from_der(kt_secret_view(secret), &entry->signing_key, err);
		}
		(void)snprintf(entry->account_url, sizeof(entry->account_url), "%s", row.account_url);
		kt_store_account_finish(&row);
		return code;
	}
	if (code != KT_E_NOTFOUND) {
		return code;
	}
	entry->account_url[0] = '\0';
	code = kt_issuers_secret(keeper, entry->spec->meta.ns, acme->private_key_ref.name, acme->private_key_ref.key,
	                         &secret, err);
	if (code == KT_OK) {
		code = kt_pki_key_from_pem(kt_secret_view(secret), &entry->signing_key, err);
	} else if (acme->disable_account_key_generation) {
		return kt_err_prefix(err, "%s: spec.acme.disableAccountKeyGeneration is set", entry->ref);
	} else {
		code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &entry->signing_key, err);
	}
	return code == KT_OK ? store_account(keeper, entry, "", err) : code;
}

/* --- the order --------------------------------------------------------------------------------------------------- */

static enum kt_code issuer_json(const struct kt_issuer_entry *entry, struct kt_buf *out, struct kt_err *err)
{
	const struct kt_acme *acme = entry->spec->issuer.acme;

	/* "account" tells the courier two accounts at one server apart. */
	kt_buf_adds(out, "{\"account\":");
	kt_buf_add_json(out, kt_view_str(entry->ref));
	kt_buf_adds(out, ",\"server\":");
	kt_buf_add_json(out, kt_view_str(acme->server));
	kt_buf_adds(out, ",\"termsOfServiceAgreed\":true");
	if (acme->email != NULL) {
		kt_buf_adds(out, ",\"email\":");
		kt_buf_add_json(out, kt_view_str(acme->email));
	}
	if (acme->ca_bundle.len > 0) {
		kt_buf_adds(out, ",\"caBundle\":");
		kt_buf_add_json(out, (struct kt_view){(const char *)acme->ca_bundle.ptr, acme->ca_bundle.len});
	}
	kt_buf_addf(out, ",\"skipTLSVerify\":%s}", acme->skip_tls_verify ? "true" : "false");
	return kt_buf_check(out, "issuer", err);
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

/* Identifiers of the order: every DNS name and address once; the common name when it is not among them. */
static enum kt_code names_json(const struct kt_certificate_spec *spec, struct kt_buf *out, struct kt_err *err)
{
	bool common = spec->common_name == NULL;
	uint32_t i;

	kt_buf_addc(out, '[');
	for (i = 0; i < spec->dns_names.count; i++) {
		add_name(out, "dns", spec->dns_names.items[i]);
		common = common || kt_ascii_ieq(kt_view_str(spec->dns_names.items[i]), kt_view_str(spec->common_name));
	}
	for (i = 0; i < spec->ip_addresses.count; i++) {
		add_name(out, "ip", spec->ip_addresses.items[i]);
		common = common || strcmp(spec->ip_addresses.items[i], spec->common_name) == 0;
	}
	if (!common) {
		add_name(out, "dns", spec->common_name);
	}
	kt_buf_addc(out, ']');
	return kt_buf_check(out, "names", err);
}

/* ACME has no use for a subject beyond the common name, and CAs ignore the rest. */
static enum kt_code csr_of(struct kt_flight *flight, struct kt_buf *out, struct kt_err *err)
{
	struct kt_spec_request request;
	enum kt_code code = kt_spec_request_init(&flight->spec->certificate, &request, err);

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

static enum kt_code take_result(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_view pem,
                                struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_buf chain_pem KT_AUTOBUF = {0};
	struct kt_buf root_pem KT_AUTOBUF = {0};
	const struct kt_cert *leaf;
	enum kt_code code = kt_pki_chain_parse(pem, &chain, err);

	kt_buf_init(&chain_pem, KT_PKI_CHAIN_BYTES_MAX);
	kt_buf_init(&root_pem, KT_PKI_CHAIN_BYTES_MAX);
	if (code == KT_OK) {
		code = check_chain(keeper, flight, chain, err);
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
		if (code == KT_OK) {
			code = kt_store_commit(keeper->store, &failed);
		} else {
			kt_store_rollback(keeper->store);
		}
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

static void on_done(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_flight *flight = arg;
	bool anew = false;
	struct kt_err err;

	(void)fds;
	(void)fd_count;
	kt_err_clear(&err);
	kt_rotate_end_job(flight, why->code == KT_E_TIMEOUT);
	if (why->code != KT_OK) {
		err = *why;
		if (strstr(err.what, acme_of(flight)->server) == NULL) { /* the courier may have named it */
			(void)kt_err_prefix(&err, "%s", acme_of(flight)->server);
		}
	} else if (type != KT_ACME_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	} else if (take_result(flight->keeper, flight, ((struct kt_msg_acme_done *)msg)->chain, &err) != KT_OK) {
		(void)kt_err_prefix(&err, "%s: the certificate is refused", acme_of(flight)->server);
		if (err.code != KT_E_NOMEM) {
			forget_order(flight, &anew, &err);
		}
	}
	kt_rotate_wake(flight, &err);
}

static enum kt_code send_order(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	struct kt_buf issuer KT_AUTOBUF = {0};
	struct kt_buf names KT_AUTOBUF = {0};
	struct kt_buf csr KT_AUTOBUF = {0};
	char traceparent[56];
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	struct kt_msg_acme msg = {.account_url = kt_view_str(flight->issuer->account_url),
	                          .order_url = kt_view_str(flight->order_url)};
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code;

	kt_buf_init(&issuer, 65536);
	kt_buf_init(&names, 65536);
	kt_buf_init(&csr, 32768);
	code = issuer_json(flight->issuer, &issuer, err);
	if (code == KT_OK) {
		code = names_json(spec, &names, err);
	}
	if (code == KT_OK) {
		code = csr_of(flight, &csr, err);
	}
	if (code != KT_OK) {
		return code;
	}
	flight->job = ++keeper->next_job;
	flight->resumed_order = flight->order_url[0] != '\0';
	msg.job = flight->job;
	msg.issuer = kt_buf_view(&issuer);
	msg.names = kt_buf_view(&names);
	msg.csr = kt_buf_view(&csr);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(flight->trace_id, traceparent));
	if (acme_of(flight)->enable_duration_feature) {
		msg.not_before = now;
		msg.not_after = now + spec->duration;
	}
	return kt_wire_call(kt_keeper_courier(keeper), KT_ACME, &msg, NULL, 0, ORDER_TIMEOUT, on_done, flight, err);
}

static enum kt_effect obtain_acme(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_err *err)
{
	enum kt_code code = load_account(keeper, flight->issuer, err);

	if (code == KT_OK) {
		code = send_order(keeper, flight, err);
	}
	return code == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_issuer_ops kt_issuer_acme = {.name = "acme", .remote = true, .obtain = obtain_acme};

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

void kt_acme_on_sign(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_acme_sign *ask = in->msg;
	struct kt_msg_acme_signed answer;
	struct kt_buf jws KT_AUTOBUF = {0};
	char *nonce KT_AUTOFREE = kt_strndup(ask->nonce.ptr, ask->nonce.len);
	char *url KT_AUTOFREE = kt_strndup(ask->url.ptr, ask->url.len);
	struct kt_err err;
	struct kt_flight *flight;
	struct kt_jws_header header = {.nonce = nonce, .url = url};

	kt_err_clear(&err);
	kt_buf_init(&jws, 131072);
	flight = kt_acme_flight(keeper, ask->job, &err);
	if (flight != NULL && (nonce == NULL || url == NULL)) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a signature");
	} else if (flight != NULL && !same_origin(ask->url, kt_view_str(acme_of(flight)->server))) {
		(void)kt_err_set(&err, KT_E_POLICY, "the account of %s signs nothing for %.*s", flight->issuer->ref,
		                 (int)(ask->url.len < 200 ? ask->url.len : 200), ask->url.ptr);
	} else if (flight != NULL) {
		header.kid = ask->by_jwk ? NULL : flight->issuer->account_url;
		(void)kt_jose_jws_acme(flight->issuer->signing_key, &header, ask->payload, &jws, &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	answer.jws = kt_buf_view(&jws);
	kt_wire_reply(in->wire, in->id, KT_ACME_SIGNED, &answer, NULL, 0);
}

/* The order URL: with it the step "ordered", its audit record and an entry in the ledger. */
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
		code = kt_store_ledger_add(store, flight->issuer->ref, "order", NULL, flight->cred.step_at, "placed", err);
	}
	if (code == KT_OK) {
		code = kt_flight_audit(flight, &event, err);
	}
	return code;
}

static enum kt_code save(struct kt_keeper *keeper, struct kt_flight *flight, struct kt_view what, const char *value,
                         struct kt_err *err)
{
	enum kt_code code;

	if (kt_view_eq_str(what, "account")) {
		(void)snprintf(flight->issuer->account_url, sizeof(flight->issuer->account_url), "%s", value);
		return store_account(keeper, flight->issuer, value, err);
	}
	code = kt_store_begin(keeper->store, err);
	if (code != KT_OK) {
		return code;
	}
	if (kt_view_eq_str(what, "order")) {
		code = save_order(keeper, flight, value, err);
	} else if (kt_view_eq_str(what, "finalize")) {
		code = kt_store_material_urls(keeper->store, flight->material.id, NULL, value, NULL, NULL, err);
	} else if (kt_view_eq_str(what, "certificate")) {
		code = kt_store_material_urls(keeper->store, flight->material.id, NULL, NULL, value, NULL, err);
	} else {
		code = kt_err_set(err, KT_E_PROTO, "the courier wants to save an unknown fact");
	}
	if (code != KT_OK) {
		kt_store_rollback(keeper->store);
		return code;
	}
	return kt_store_commit(keeper->store, err);
}

void kt_acme_on_save(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_acme_save *ask = in->msg;
	struct kt_msg_done done = {0};
	char *value KT_AUTOFREE = kt_strndup(ask->value.ptr, ask->value.len);
	struct kt_err err;
	struct kt_flight *flight;

	kt_err_clear(&err);
	flight = kt_acme_flight(keeper, ask->job, &err);
	if (flight != NULL && value == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a URL");
	} else if (flight != NULL && value[0] != '\0' &&
	           !same_origin(ask->value, kt_view_str(acme_of(flight)->server))) {
		(void)kt_err_set(&err, KT_E_PROTO, "%s gave a URL of another host: %.200s", acme_of(flight)->server, value);
	} else if (flight != NULL) {
		(void)save(keeper, flight, ask->what, value, &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}
