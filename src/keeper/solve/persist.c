/*
 * dns-persist-01 (draft-ietf-acme-dns-persist): a record that names the CA and the account, published once by hand. Here it
 * is only looked for, so that a CA is not asked in vain.
 */
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/solve/solve.h"

#define RECORD     "_validation-persist"
#define WILDCARD   "; policy=wildcard"
#define LEVELS_MAX 8u

/* Printable ASCII without separators, so that the value reads back as the same one. */
static bool stands_in_record(const char *text)
{
	for (const char *p = text; *p != '\0'; p++) {
		if (*p <= ' ' || *p >= 0x7f || *p == ';' || *p == '"' || *p == '\\') {
			return false;
		}
	}
	return true;
}

enum kt_code kt_solve_persist_value(const char *issuer_domain, const char *account_url, bool wildcard, struct kt_buf *out,
                                    struct kt_err *err)
{
	if (!stands_in_record(account_url)) {
		return kt_err_set(err, KT_E_PROTO, "the account URL can't stand in a DNS record: %.200s", account_url);
	}
	if (!stands_in_record(issuer_domain)) { /* the CA's word: with a ";" it would name another account, too */
		return kt_err_set(err, KT_E_PROTO, "the CA's name for itself can't stand in a DNS record: %.200s", issuer_domain);
	}
	kt_buf_addf(out, "%s; accounturi=%s%s", issuer_domain, account_url, wildcard ? WILDCARD : "");
	return kt_buf_check(out, "record", err);
}

/* The CA's name in the record: what the manifest says where the CA takes it, else the first that the CA takes. */
static const char *domain_of(const struct kt_dns_persist01_solver *solver, const json_t *offer)
{
	const json_t *domains = json_object_get(offer, "issuer-domain-names");
	size_t i;
	json_t *one;

	if (solver->issuer_domain == NULL) {
		return json_string_value(json_array_get(domains, 0));
	}
	json_array_foreach(domains, i, one) {
		const char *name = json_string_value(one);

		if (name != NULL && kt_ascii_ieq(kt_view_str(name), kt_view_str(solver->issuer_domain))) {
			return solver->issuer_domain;
		}
	}
	return json_array_size(domains) == 0 ? solver->issuer_domain : NULL;
}

static enum kt_code prepare(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const char *domain = domain_of(order->solver->dns_persist01, order->offer);
	const char *account = order->flight->issuer->account_url;
	struct kt_buf value KT_AUTOBUF = {0};
	enum kt_code code;

	if (domain == NULL || strlen(domain) > KT_NAME_MAX || kt_view_str(domain).len == 0) {
		const char *first = json_string_value(json_array_get(json_object_get(order->offer, "issuer-domain-names"), 0));

		return order->solver->dns_persist01->issuer_domain != NULL
		               ? kt_err_set(err, KT_E_UNSUPPORTED, "the CA does not go by issuerDomain %s: leave it out, or name %.253s",
		                            order->solver->dns_persist01->issuer_domain, first != NULL ? first : "the CA's")
		               : kt_err_set(err, KT_E_UNSUPPORTED, "the CA names no domain for dns-persist-01: set issuerDomain");
	}
	kt_buf_init(&value, 1000);
	code = kt_solve_persist_value(domain, account, answer->wildcard, &value, err);
	if (code == KT_OK) {
		code = kt_answer_text(&answer->value, kt_buf_view(&value), err);
	}
	if (code != KT_OK) {
		return code;
	}
	answer->record = kt_asprintf(RECORD ".%s", answer->name);
	answer->place = kt_asprintf("%llu %s%s", (unsigned long long)answer->job, answer->wildcard ? "*." : "", answer->name);
	return answer->record != NULL && answer->place != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
}

/*
 * Looks at the name, then (answer->tries) at the domains above it: a record there that says policy=wildcard is good for all
 * below, with CAs that take it so.
 */
static kt_wire_reply_fn on_seen;

static enum kt_code look(struct kt_answer *answer, struct kt_err *err)
{
	KT_AUTOJSON json_t *solver = json_pack("{s:s,s:b}", "provider", "none", "followCNAME", 1);
	struct kt_dns_ask question = {.action = KT_DNS01_CHECK, .solver = solver, .ns = ""};
	const char *domain = answer->name;
	char *record KT_AUTOFREE = NULL, *value KT_AUTOFREE = NULL;

	for (unsigned i = 0; i < answer->tries && domain != NULL; i++) {
		domain = strchr(domain, '.');
		domain = domain != NULL ? domain + 1 : NULL;
	}
	if (domain == NULL || strchr(domain, '.') == NULL) {
		return kt_err_set(err, KT_E_NOTFOUND, "nor above it");
	}
	record = kt_asprintf(RECORD ".%s", domain);
	/* To be read as what it says, not byte by byte. */
	value = kt_asprintf("%s%s;", answer->value, answer->tries > 0 && !answer->wildcard ? WILDCARD : "");
	if (solver == NULL || record == NULL || value == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
	}
	question.record = record;
	question.value = value;
	return kt_solve_dns_ask(answer, &question, on_seen, err);
}

static void on_seen(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;
	struct kt_err err = *why;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	/* It is not there: TIMEOUT of a single look. */
	if (err.code == KT_E_TIMEOUT && answer->wanted && ++answer->tries < LEVELS_MAX && look(answer, NULL) == KT_OK) {
		return;
	}
	if (err.code != KT_OK && err.code != KT_E_CLOSED && err.code != KT_E_CANCELLED && err.code != KT_E_NOMEM) {
		(void)kt_err_set(&err, why->code, "publish once: %s. TXT \"%s\" ('keyturn dns-record' prints it) (%.250s)",
		                 answer->record, answer->value, why->what);
	}
	kt_answer_presented(answer, &err);
}

static enum kt_effect present(struct kt_answer *answer, struct kt_err *err)
{
	return look(answer, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

const struct kt_solver_ops kt_solve_persist = {.name = "dns-persist-01",
                                               .challenge = KT_CHALLENGE_DNS_PERSIST01,
                                               .prepare = prepare,
                                               .present = present,
                                               .interrupt = kt_solve_dns_interrupt};
