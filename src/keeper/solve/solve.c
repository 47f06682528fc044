/*
 * The courier asks for an answer to a challenge: which of those that the CA offers, and how it is presented and taken
 * back.
 */
#include <string.h>

#include "kt/jose.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "keeper/keeper.h"

/* The token of the challenge of this type among those that are offered; a fresh string, NULL when there is none. */
static char *token_of(struct kt_view offered, const char *type)
{
	KT_AUTOJSON json_t *list = NULL;
	size_t i;
	json_t *one;

	if (kt_json_parse(offered, 16384, &list, NULL) != KT_OK) {
		return NULL;
	}
	json_array_foreach(list, i, one) {
		const char *has = kt_json_str(one, "type"), *token = kt_json_str(one, "token");

		if (has != NULL && token != NULL && strcmp(has, type) == 0) {
			return kt_strdup(token);
		}
	}
	return NULL;
}

void kt_acme_on_challenge(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_challenge *ask = in->msg;
	struct kt_msg_challenged done = {.type = KT_VIEW_LIT("http-01")};
	struct kt_buf body KT_AUTOBUF = {0};
	char *token KT_AUTOFREE = token_of(ask->offered, "http-01");
	struct kt_flight *flight;
	struct kt_err err;
	bool wait = false;

	kt_err_clear(&err);
	kt_buf_init(&body, 1024);
	if (!ask->present) { /* also of an order that is not worked on any more */
		if (token != NULL) {
			kt_answers_withdraw(keeper, ask->job, token);
		}
		kt_wire_reply(in->wire, in->id, KT_CHALLENGED, &done, NULL, 0);
		return;
	}
	flight = kt_acme_flight(keeper, ask->job, &err);
	if (flight != NULL && token == NULL) {
		(void)kt_err_set(&err, KT_E_UNSUPPORTED, "the CA offers no http-01 challenge%s",
		                 ask->wildcard ? " (a wildcard needs dns-01)" : "");
	} else if (flight != NULL &&
	           kt_jose_key_authorization(flight->issuer->signing_key, token, &body, &err) == KT_OK) {
		(void)kt_answers_present(keeper, ask, in->id, flight->issuer->spec->issuer.acme->webroot, token, kt_buf_view(&body), &wait, &err);
	}
	if (err.code != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
	} else if (!wait) {
		kt_wire_reply(in->wire, in->id, KT_CHALLENGED, &done, NULL, 0);
	}
}
