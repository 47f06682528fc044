/* http-01 (RFC 8555 section 8.3): by the desk's own listener, or as a file in somebody's webroot. */
#include <stdio.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/solve/solve.h"

#define CHALLENGE_PATH "/.well-known/acme-challenge/"
#define SERVE_TRIES    3u
#define SERVE_TIME     (10 * KT_SECOND)

/* --- the desk -------------------------------------------------------------------------------------------------------- */

static enum kt_code prepare_http(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const struct kt_resource *agent = answer->keeper->agent;

	if (agent == NULL || agent->agent.listeners.http01 == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED,
		                  "http-01 needs spec.listeners.http01 of kind Agent (such as \":80\"), or annotation "
		                  "keyturn.dev/http01-webroot of %s", order->flight->issuer->ref);
	}
	if (strlen(answer->token) > 256) {
		return kt_err_set(err, KT_E_PROTO, "the challenge token is too long");
	}
	return kt_answer_text(&answer->place, kt_view_str(answer->token), err);
}

static enum kt_code ask_desk(struct kt_answer *answer, bool there, kt_wire_reply_fn *fn, void *arg, struct kt_err *err)
{
	struct kt_keeper *keeper = answer->keeper;
	char path[512];
	struct kt_msg_serve msg = {.listener = KT_VIEW_LIT("acme"),
	                           .content_type = there ? KT_VIEW_LIT("application/octet-stream") : KT_VIEW_LIT(""),
	                           .body = there ? kt_view_str(answer->authorization) : KT_VIEW_LIT("")};

	(void)snprintf(path, sizeof(path), CHALLENGE_PATH "%s", answer->token);
	msg.path = kt_view_str(path);
	return kt_wire_call(kt_keeper_desk(keeper), KT_SERVE, &msg, NULL, 0, SERVE_TIME, fn, arg, err);
}

static void on_served(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	/* The desk died over it: the next one is asked. */
	if (why->code == KT_E_CLOSED && answer->wanted && !answer->keeper->ending && ++answer->tries < SERVE_TRIES &&
	    ask_desk(answer, true, on_served, answer, NULL) == KT_OK) {
		return;
	}
	kt_answer_presented(answer, why);
}

static void on_again(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	(void)type, (void)msg, (void)fds, (void)fd_count, (void)arg;
	if (why->code != KT_OK && why->code != KT_E_CLOSED) {
		kt_log_err(KT_LOG_WARN, why, "a challenge can't be served");
	}
}

static enum kt_effect present_http(struct kt_answer *answer, struct kt_err *err)
{
	return ask_desk(answer, true, on_served, answer, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

static enum kt_effect withdraw_http(struct kt_answer *answer, struct kt_err *err)
{
	(void)err;
	if (kt_wire_attached(answer->keeper->desk)) { /* a desk that is not there serves nothing */
		(void)ask_desk(answer, false, on_again, NULL, NULL);
	}
	return KT_EFFECT_DONE;
}

static void serve_http_again(struct kt_answer *answer)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (ask_desk(answer, true, on_again, NULL, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a challenge can't be served again");
	}
}

const struct kt_solver_ops kt_solve_http = {.name = "http-01 by the listener",
                                            .challenge = KT_CHALLENGE_HTTP01,
                                            .prepare = prepare_http,
                                            .present = present_http,
                                            .withdraw = withdraw_http,
                                            .serve_again = serve_http_again};

/* --- a webroot --------------------------------------------------------------------------------------------------------- */

static enum kt_code prepare_webroot(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const char *webroot = order->flight->issuer->spec->issuer.acme->webroot;

	answer->place = kt_asprintf("%s/%s", webroot, answer->token);
	return answer->place != NULL ? kt_answer_text(&answer->config, kt_view_str(webroot), err)
	                             : kt_err_set(err, KT_E_NOMEM, "no memory for a challenge");
}

static enum kt_effect present_webroot(struct kt_answer *answer, struct kt_err *err)
{
	return kt_challenge_write(answer->config, answer->token, kt_view_str(answer->authorization), err) == KT_OK
	               ? KT_EFFECT_DONE
	               : KT_EFFECT_FAILED;
}

static enum kt_effect withdraw_webroot(struct kt_answer *answer, struct kt_err *err)
{
	return kt_challenge_remove(answer->config, answer->token, err) == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
}

const struct kt_solver_ops kt_solve_webroot = {.name = "http-01 by a webroot",
                                               .challenge = KT_CHALLENGE_HTTP01,
                                               .durable = true,
                                               .at_once = true,
                                               .prepare = prepare_webroot,
                                               .present = present_webroot,
                                               .withdraw = withdraw_webroot};
