/* dns-01 (RFC 8555 section 8.4): the courier writes the record at the provider and waits until it is seen. */
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/solve/solve.h"

#define WRITE_TIME  (5 * KT_MINUTE) /* beside the propagation */
#define REMOVE_TIME (2 * KT_MINUTE)
#define SECRETS_MAX 60000u

enum kt_code kt_solve_dns_record(struct kt_answer *answer, struct kt_err *err)
{
	uint8_t digest[KT_SHA256_LEN];
	struct kt_buf value KT_AUTOBUF = {0};

	kt_sha256(answer->authorization, strlen(answer->authorization), digest);
	kt_buf_init(&value, 64);
	kt_base64url_encode(&value, digest, sizeof(digest));
	if (kt_buf_check(&value, "challenge", err) != KT_OK || kt_answer_text(&answer->value, kt_buf_view(&value), err) != KT_OK) {
		return err->code;
	}
	answer->record = kt_asprintf("_acme-challenge.%s", answer->name);
	answer->place = kt_asprintf("_acme-challenge.%s %s", answer->name, answer->value);
	return answer->record != NULL && answer->place != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
}

/* --- secrets ----------------------------------------------------------------------------------------------------------- */

/* White space around a secret comes from editors; no provider's has any. */
static struct kt_view trim(struct kt_view text)
{
	while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL) {
		text.len--;
	}
	return text;
}

/* refs: {member: [name, key]}. As they are now: they may have been changed since the record was written. */
static enum kt_code gather(struct kt_keeper *keeper, const json_t *refs, const char *ns, struct kt_secret **ret,
                           struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	const char *member;
	json_t *ref;
	enum kt_code code;

	if (json_object_size(refs) == 0) {
		return KT_OK;
	}
	kt_buf_init(&text, SECRETS_MAX);
	json_object_foreach((json_t *)(uintptr_t)refs, member, ref) {
		struct kt_secret *secret KT_AUTOSECRET = NULL;
		const char *name = json_string_value(json_array_get(ref, 0)), *key = json_string_value(json_array_get(ref, 1));

		if (name == NULL || key == NULL) {
			return kt_err_set(err, KT_E_CORRUPT, "what is known of a challenge is not sound");
		}
		code = kt_issuers_secret(keeper, ns, name, key, &secret, err);
		if (code != KT_OK) {
			return code;
		}
		kt_buf_addc(&text, text.len == 0 ? '{' : ',');
		kt_buf_add_json(&text, kt_view_str(member));
		kt_buf_addc(&text, ':');
		kt_buf_add_json(&text, trim(kt_secret_view(secret)));
	}
	kt_buf_addc(&text, '}');
	code = kt_buf_check(&text, "a solver's secrets", err);
	return code == KT_OK ? kt_secret_from_buf(&text, ret, err) : code;
}

/* --- asking the courier -------------------------------------------------------------------------------------------------- */

static kt_ms patience(const struct kt_keeper *keeper)
{
	return keeper->agent != NULL ? keeper->agent->agent.dns01.propagation_timeout : 2 * KT_MINUTE;
}

static enum kt_code settings_json(const struct kt_keeper *keeper, bool patient, struct kt_buf *out, struct kt_err *err)
{
	const struct kt_dns_settings *dns = keeper->agent != NULL ? &keeper->agent->agent.dns01 : NULL;

	kt_buf_adds(out, "{\"recursiveNameservers\":[");
	for (uint32_t i = 0; dns != NULL && i < dns->recursive_nameservers.count; i++) {
		kt_buf_adds(out, i > 0 ? "," : "");
		kt_buf_add_json(out, kt_view_str(dns->recursive_nameservers.items[i]));
	}
	kt_buf_addf(out, "],\"recursiveNameserversOnly\":%s,\"propagationTimeoutMs\":%lld}",
	            dns != NULL && dns->recursive_nameservers_only ? "true" : "false",
	            patient ? (long long)patience(keeper) : 0LL);
	return kt_buf_check(out, "DNS settings", err);
}

enum kt_code kt_solve_dns_ask(struct kt_answer *answer, const struct kt_dns_ask *ask, kt_wire_reply_fn *fn,
                              struct kt_err *err)
{
	struct kt_keeper *keeper = answer->keeper;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_buf solver KT_AUTOBUF = {0};
	struct kt_buf dns KT_AUTOBUF = {0};
	char traceparent[56];
	struct kt_msg_dns01 msg = {.action = (uint32_t)ask->action,
	                           .record = kt_view_str(ask->record != NULL ? ask->record : answer->record),
	                           .value = kt_view_str(ask->value != NULL ? ask->value : answer->value),
	                           .traceparent = kt_answer_traceparent(answer, traceparent)};
	enum kt_code code;

	kt_buf_init(&solver, 16384);
	kt_buf_init(&dns, 4096);
	code = settings_json(keeper, ask->patient, &dns, err);
	if (code == KT_OK) {
		code = kt_json_dump(ask->solver, &solver, err);
	}
	if (code == KT_OK) {
		code = gather(keeper, ask->refs, ask->ns, &secret, err);
	}
	if (code != KT_OK) {
		return code;
	}
	if (ask->action == KT_DNS01_REMOVE && answer->handle != NULL) {
		msg.handle = kt_view_str(answer->handle);
	}
	answer->call = ++keeper->next_job;
	msg.job = answer->call;
	msg.solver = kt_buf_view(&solver);
	msg.dns = kt_buf_view(&dns);
	msg.secret = secret;
	return kt_wire_call(kt_keeper_courier(keeper), KT_DNS01, &msg, NULL, 0,
	                    ask->action == KT_DNS01_REMOVE ? REMOVE_TIME : patience(keeper) + WRITE_TIME, fn, answer, err);
}

void kt_solve_dns_interrupt(struct kt_answer *answer)
{
	struct kt_msg_cancel msg = {answer->call};

	if (answer->call != 0 && kt_wire_attached(answer->keeper->courier)) {
		(void)kt_wire_notice(answer->keeper->courier, KT_CANCEL, &msg, NULL, 0, NULL);
	}
}

/* --- the providers' manifests ---------------------------------------------------------------------------------------------- */

/* What is kept of a solver; failed: something is missing for lack of memory, and it would not do. */
struct kept {
	json_t *solver, *refs;
	bool failed;
};

static void put(struct kept *kept, const char *member, const char *text)
{
	if (text != NULL && json_object_set_new(kept->solver, member, json_string(text)) != 0) {
		kept->failed = true;
	}
}

static void put_ref(struct kept *kept, const char *member, const struct kt_secret_ref *ref)
{
	if (ref->name != NULL && json_object_set_new(kept->refs, member, json_pack("[s,s]", ref->name, ref->key)) != 0) {
		kept->failed = true;
	}
}

static void put_provider(const struct kt_dns01_solver *s, struct kept *kept)
{
	if (s->rfc2136 != NULL) {
		put(kept, "provider", "rfc2136");
		put(kept, "nameserver", s->rfc2136->nameserver);
		put(kept, "protocol", s->rfc2136->protocol == KT_DNS_TCP ? "TCP" : "UDP");
		put(kept, "tsigAlgorithm", s->rfc2136->tsig_algorithm);
		put(kept, "tsigKeyName", s->rfc2136->tsig_key_name);
		put_ref(kept, "tsigSecret", &s->rfc2136->tsig_secret);
	} else if (s->acme_dns != NULL) {
		put(kept, "provider", "acmeDNS");
		put(kept, "host", s->acme_dns->host);
		put_ref(kept, "account", &s->acme_dns->account);
	} else if (s->cloudflare != NULL) {
		put(kept, "provider", "cloudflare");
		put(kept, "email", s->cloudflare->email);
		put(kept, "apiURL", s->cloudflare->api_url);
		put_ref(kept, "apiKey", &s->cloudflare->api_key);
		put_ref(kept, "apiToken", &s->cloudflare->api_token);
	} else if (s->digitalocean != NULL) {
		put(kept, "provider", "digitalocean");
		put(kept, "apiURL", s->digitalocean->api_url);
		put_ref(kept, "token", &s->digitalocean->token);
	} else if (s->route53 != NULL) {
		put(kept, "provider", "route53");
		put(kept, "region", s->route53->region);
		put(kept, "accessKeyID", s->route53->access_key_id);
		put(kept, "hostedZoneID", s->route53->hosted_zone_id);
		put(kept, "apiURL", s->route53->api_url);
		put_ref(kept, "accessKeyID", &s->route53->access_key_id_ref);
		put_ref(kept, "secretAccessKey", &s->route53->secret_access_key);
	}
}

static enum kt_code prepare(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const struct kt_dns01_solver *dns = order->solver->dns01;
	json_t *solver = json_object(), *refs = json_object();
	struct kept kept = {solver, refs, false};
	KT_AUTOJSON json_t *config =
	        json_pack("{s:o,s:o,s:s}", "solver", solver, "refs", refs, "ns", order->flight->issuer->spec->meta.ns);
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code = kt_solve_dns_record(answer, err);

	if (code != KT_OK) {
		return code;
	}
	if (config == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	kept.failed = json_object_set_new(solver, "followCNAME", json_boolean(dns->cname_strategy == KT_CNAME_FOLLOW)) != 0;
	put_provider(dns, &kept);
	if (kept.failed) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	kt_buf_init(&text, 16384);
	code = kt_json_dump(config, &text, err);
	return code == KT_OK ? kt_answer_text(&answer->config, kt_buf_view(&text), err) : code;
}

/* --- presenting, taking back ------------------------------------------------------------------------------------------------- */

static enum kt_code ask(struct kt_answer *answer, enum kt_dns01_action action, kt_wire_reply_fn *fn, struct kt_err *err)
{
	KT_AUTOJSON json_t *config = NULL;
	enum kt_code code = kt_json_parse(kt_view_str(answer->config), 65536, &config, err);
	const char *ns = kt_json_str(config, "ns");
	struct kt_dns_ask question = {action, json_object_get(config, "solver"), json_object_get(config, "refs"),
	                              ns != NULL ? ns : "", NULL, NULL, true};

	return code == KT_OK ? kt_solve_dns_ask(answer, &question, fn, err) : code;
}

/*
 * A name server that refuses an update has changed nothing. Of the other providers that is not said: with them writing takes
 * several requests, and a later one may be what was refused.
 */
static bool is_refused(const struct kt_answer *answer, enum kt_code code)
{
	KT_AUTOJSON json_t *config = NULL;
	const char *provider;

	if ((code != KT_E_AUTH && code != KT_E_DENIED) ||
	    kt_json_parse(kt_view_str(answer->config), 65536, &config, NULL) != KT_OK) {
		return false;
	}
	provider = kt_json_str(json_object_get(config, "solver"), "provider");
	return provider != NULL && strcmp(provider, "rfc2136") == 0;
}

static void on_added(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;
	const struct kt_msg_dns01_done *done = msg;
	struct kt_err err = *why;

	(void)fds, (void)fd_count;
	if (err.code == KT_OK && type != KT_DNS01_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		(void)kt_answer_save(answer, done->effective, done->handle, &err);
	} else if (strcmp(err.problem_type, KT_DNS01_UNWRITTEN) == 0) {
		answer->untouched = !answer->inherited;
		err.problem_type[0] = '\0'; /* between the two of us */
	} else {
		answer->untouched = !answer->inherited && is_refused(answer, err.code);
	}
	kt_answer_presented(answer, &err);
}

static void on_removed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;
	struct kt_err err = *why;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	/* Called off before it was heard of, and the same key is refused a moment later: it was not let in before, either. */
	if (answer->tries == 0 && !answer->inherited && answer->trace_id[0] != '\0' && answer->effective == NULL &&
	    is_refused(answer, err.code)) {
		kt_err_clear(&err);
	}
	kt_answer_withdrawn(answer, &err);
}

static enum kt_effect present(struct kt_answer *answer, struct kt_err *err)
{
	if (ask(answer, KT_DNS01_ADD, on_added, err) == KT_OK) {
		return KT_EFFECT_PENDING;
	}
	answer->untouched = !answer->inherited; /* a secret is missing, for instance: nobody was asked */
	return KT_EFFECT_FAILED;
}

static enum kt_effect withdraw(struct kt_answer *answer, struct kt_err *err)
{
	if (answer->untouched) {
		return KT_EFFECT_DONE;
	}
	return ask(answer, KT_DNS01_REMOVE, on_removed, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_solver_ops kt_solve_dns = {.name = "dns-01",
                                           .challenge = KT_CHALLENGE_DNS01,
                                           .durable = true,
                                           .prepare = prepare,
                                           .present = present,
                                           .interrupt = kt_solve_dns_interrupt,
                                           .withdraw = withdraw};
