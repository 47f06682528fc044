/*
 * The courier asks for an answer to a challenge: which of those that the CA offers, by which solver, and in which way.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/solve/solve.h"

#define OFFERED_MAX 16384u
#define ROUNDS_MAX  4u /* answers for each name of an order, which is placed anew at most twice */

static bool same_address(const char *a, const char *b)
{
	uint8_t one[16], other[16];

	return (inet_pton(AF_INET6, a, one) == 1 && inet_pton(AF_INET6, b, other) == 1 && memcmp(one, other, 16) == 0) ||
	       (inet_pton(AF_INET, a, one) == 1 && inet_pton(AF_INET, b, other) == 1 && memcmp(one, other, 4) == 0);
}

/* The order is for this name ("*.": the wildcard): a courier that was taken over gets no records for others. */
static bool asked_for(const struct kt_certificate_spec *spec, const char *name)
{
	for (uint32_t i = 0; i < spec->dns_names.count; i++) {
		if (kt_ascii_ieq(kt_view_str(spec->dns_names.items[i]), kt_view_str(name))) {
			return true;
		}
	}
	for (uint32_t i = 0; i < spec->ip_addresses.count; i++) {
		if (same_address(spec->ip_addresses.items[i], name)) {
			return true;
		}
	}
	return spec->common_name != NULL && kt_ascii_ieq(kt_view_str(spec->common_name), kt_view_str(name));
}

/* The way for a solver: a challenge can be answered in several. */
static const struct kt_solver_ops *ops_of(const struct kt_choice *choice, const struct kt_acme *acme)
{
	switch (choice->challenge) {
	case KT_CHALLENGE_HTTP01:
		return acme->webroot != NULL ? &kt_solve_webroot : &kt_solve_http;
	case KT_CHALLENGE_TLS_ALPN01:
		return &kt_solve_alpn;
	case KT_CHALLENGE_DNS01:
		return acme->solvers.items[choice->solver].dns01->exec != NULL ? &kt_solve_exec : &kt_solve_dns;
	default:
		return &kt_solve_persist;
	}
}

static enum kt_code fill(struct kt_answer *answer, const struct kt_flight *flight, const struct kt_choice *choice,
                         struct kt_err *err)
{
	const struct kt_acme *acme = flight->issuer->spec->issuer.acme;
	struct kt_answer_order order = {flight, choice->solver >= 0 ? &acme->solvers.items[choice->solver] : NULL, choice->offer};
	struct kt_buf text KT_AUTOBUF = {0};
	const char *token = kt_json_str(choice->offer, "token");
	enum kt_code code = kt_answer_text(&answer->issuer, kt_view_str(flight->issuer->ref), err);

	answer->ops = ops_of(choice, acme);
	answer->solver = choice->solver;
	kt_buf_init(&text, 1024);
	if (code == KT_OK && token != NULL) {
		code = kt_jose_key_authorization(flight->issuer->signing_key, token, &text, err);
		if (code == KT_OK) {
			code = kt_answer_text(&answer->token, kt_view_str(token), err);
		}
		if (code == KT_OK) {
			code = kt_answer_text(&answer->authorization, kt_buf_view(&text), err);
		}
	}
	return code == KT_OK ? answer->ops->prepare(answer, &order, err) : code;
}

/* The answer that will be given to what is offered. */
static enum kt_code make_answer(struct kt_keeper *keeper, const struct kt_flight *flight, const struct kt_msg_challenge *ask,
                                struct kt_answer **ret, struct kt_err *err)
{
	struct kt_answer *answer = kt_calloc(1, sizeof(*answer));
	KT_AUTOJSON json_t *offered = NULL;
	struct kt_choice choice;
	char name[KT_NAME_MAX + 3];
	enum kt_code code = answer != NULL ? kt_json_parse(ask->offered, OFFERED_MAX, &offered, err)
	                                   : kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");

	(void)snprintf(name, sizeof(name), "%s%.*s", ask->wildcard ? "*." : "", (int)ask->name.len, ask->name.ptr);
	if (code == KT_OK && !asked_for(&flight->spec->certificate, name)) {
		code = kt_err_set(err, KT_E_POLICY, "%s %s has no name %.255s", flight->resource.kind, flight->resource.name, name);
	}
	if (code == KT_OK) {
		answer->keeper = keeper;
		answer->job = ask->job;
		answer->wildcard = ask->wildcard;
		answer->credential = flight->id;
		answer->created = kt_keeper_now(keeper);
		answer->wanted = true;
		memcpy(answer->trace_id, flight->trace_id, sizeof(answer->trace_id));
		code = kt_answer_text(&answer->name, ask->name, err);
	}
	if (code == KT_OK) {
		code = kt_choose(flight->issuer->ref, flight->issuer->spec->issuer.acme, &flight->spec->meta.labels, name, offered,
		                 &choice, err);
	}
	if (code == KT_OK) {
		code = fill(answer, flight, &choice, err);
	}
	if (code != KT_OK) {
		kt_answer_destroy(answer);
		return code;
	}
	*ret = answer;
	return KT_OK;
}

/* A courier that was taken over could ask on and on, and each answer is a file or a record. */
static enum kt_code count_challenge(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_certificate_spec *spec = &flight->spec->certificate;
	unsigned names = spec->dns_names.count + spec->ip_addresses.count + (spec->common_name != NULL ? 1 : 0);

	return ++flight->challenges <= ROUNDS_MAX * names
	               ? KT_OK
	               : kt_err_set(err, KT_E_LIMIT, "%s %s: the courier wants more challenges answered than an order has",
	                            flight->resource.kind, flight->resource.name);
}

void kt_acme_on_challenge(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_challenge *ask = in->msg;
	struct kt_answer *answer = NULL;
	struct kt_flight *flight;
	struct kt_err err;
	unsigned before = kt_answers_withdraw_name(keeper, ask->job, ask->name, ask->wildcard);

	kt_err_clear(&err);
	if (!ask->present) { /* also of an order that is not worked on any more */
		struct kt_msg_challenged done = {.type = kt_view_str(kt_challenge_name(before))};

		kt_wire_reply(in->wire, in->id, KT_CHALLENGED, &done, NULL, 0);
		return;
	}
	flight = kt_acme_flight(keeper, ask->job, &err);
	if (flight == NULL || count_challenge(flight, &err) != KT_OK || make_answer(keeper, flight, ask, &answer, &err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	answer->reply_to = in->id;
	kt_answers_add(keeper, answer);
}
