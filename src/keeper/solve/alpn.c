/* tls-alpn-01 (RFC 8737; RFC 8738 for addresses): a certificate made for the one handshake, served by the desk. */
#include "kt/log.h"
#include "kt/mem.h"
#include "keeper/solve/solve.h"

#define SERVE_TRIES 3u
#define SERVE_TIME  (10 * KT_SECOND)

static enum kt_code prepare(struct kt_answer *answer, const struct kt_answer_order *order, struct kt_err *err)
{
	const struct kt_resource *agent = answer->keeper->agent;
	char sni[256];

	(void)order;
	if (agent == NULL || agent->agent.listeners.tls_alpn01 == NULL) {
		return kt_err_set(err, KT_E_UNSUPPORTED,
		                  "tls-alpn-01 needs spec.listeners.tlsAlpn01 of kind Agent (such as \":443\"), which is not set");
	}
	kt_pki_acme_alpn_sni(answer->name, sni);
	return kt_answer_text(&answer->place, kt_view_str(sni), err);
}

/* Made anew each time that it is served: its key is kept nowhere here. */
static enum kt_code ask_desk(struct kt_answer *answer, kt_wire_reply_fn *fn, void *arg, struct kt_err *err)
{
	struct kt_secret *key KT_AUTOSECRET = NULL;
	struct kt_buf certificate KT_AUTOBUF = {0};
	struct kt_msg_serve_alpn msg = {.present = true, .name = kt_view_str(answer->place)};
	enum kt_code code;

	kt_buf_init(&certificate, 8192);
	code = kt_pki_acme_alpn(answer->name, kt_view_str(answer->authorization), kt_keeper_now(answer->keeper), &certificate,
	                        &key, err);
	if (code != KT_OK) {
		return code;
	}
	msg.certificate = kt_buf_view(&certificate);
	msg.key = key;
	return kt_wire_call(kt_keeper_desk(answer->keeper), KT_SERVE_ALPN, &msg, NULL, 0, SERVE_TIME, fn, arg, err);
}

static void on_served(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_answer *answer = arg;

	(void)type, (void)msg, (void)fds, (void)fd_count;
	if (why->code == KT_E_CLOSED && answer->wanted && !answer->keeper->ending && ++answer->tries < SERVE_TRIES &&
	    ask_desk(answer, on_served, answer, NULL) == KT_OK) {
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

static enum kt_effect present(struct kt_answer *answer, struct kt_err *err)
{
	return ask_desk(answer, on_served, answer, err) == KT_OK ? KT_EFFECT_PENDING : KT_EFFECT_FAILED;
}

static enum kt_effect withdraw(struct kt_answer *answer, struct kt_err *err)
{
	struct kt_msg_serve_alpn msg = {.present = false, .name = kt_view_str(answer->place)};

	(void)err;
	if (kt_wire_attached(answer->keeper->desk)) { /* a desk that is not there serves nothing */
		(void)kt_wire_call(answer->keeper->desk, KT_SERVE_ALPN, &msg, NULL, 0, SERVE_TIME, on_again, NULL, NULL);
	}
	return KT_EFFECT_DONE;
}

static void serve_again(struct kt_answer *answer)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (ask_desk(answer, on_again, NULL, &err) != KT_OK) {
		kt_log_err(KT_LOG_WARN, &err, "a challenge can't be served again");
	}
}

const struct kt_solver_ops kt_solve_alpn = {.name = "tls-alpn-01",
                                            .challenge = KT_CHALLENGE_TLS_ALPN01,
                                            .prepare = prepare,
                                            .present = present,
                                            .withdraw = withdraw,
                                            .serve_again = serve_again};
