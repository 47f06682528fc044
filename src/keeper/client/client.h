/* Clients' ids and secrets as credentials: choosing the client, resetting, trying, cleaning up (docs/internals/clients.md). */
#ifndef KEEPER_CLIENT_CLIENT_H
#define KEEPER_CLIENT_CLIENT_H

#include "keeper/flight.h"
#include "keeper/oauth/oauth.h"

/*
 * A walk through a rotation. kt_client_choose says which client gets a new secret: never the one that consumers use where
 * there are two. That is committed ("keyed", the client's id in order_url of the candidate) before anything is sent, so that
 * after a kill it is known that a reset may have happened. obtain.c then sends the request (server.c knows the servers),
 * commits the pair that came ("ordered", in sealed_token) before its first use, tries it at the token endpoint, and hands it
 * on to the pipeline. Where a kill or a broken connection came in between, the secret that is stored for that client is
 * tried first: refused, the answer to a reset was lost, which is said in the audit trail; either way the client is reset
 * (again). cert_url of a material is the server's own id of the secret, where it has one (Okta).
 */

/* --- pair.c: id and secret in one ------------------------------------------------------------------------------------ */

/* *ret: kt_secret_destroy. KT_E_PROTO: a part is empty, too long, or holds a line's end. */
enum kt_code kt_client_pair_make(struct kt_view id, struct kt_view secret, struct kt_secret **ret, struct kt_err *err);
/* The parts lie in the pair. False: it is none. */
bool kt_client_pair_split(const struct kt_secret *pair, struct kt_view *ret_id, struct kt_view *ret_secret);
/*
 * The pair in force of the ClientCredential with this secretName. KT_E_NOTFOUND: there is no such ClientCredential;
 * KT_E_LATER: it has none yet.
 */
enum kt_code kt_client_pair_in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name,
                                     struct kt_secret **ret, struct kt_err *err);
/* The id (false) or the secret (true) of that one. */
enum kt_code kt_client_part(struct kt_keeper *keeper, const char *ns, const char *secret_name, bool secret,
                            struct kt_secret **ret, struct kt_err *err);
/* Whether a ClientCredential has this secretName; one whose manifest is gone until somebody sets a secret of this name. */
bool kt_client_owns(struct kt_keeper *keeper, const char *ns, const char *secret_name);

/* --- key.c: clients that show themselves by a key (spec.privateKey) ---------------------------------------------------- */

/*
 * The key is made as a certificate's is, and committed ("keyed") before anybody hears of it. Then its server is told: the set
 * at a URL of ours has it (hosted), or it is added to the application's keys (Okta), where one whose answer was lost is found by
 * its kid. Then "ordered" is committed, with client id and kid as the pair; hosted, the key rests for publishAhead from there
 * (the plan: usable_at; not_before of the material is when it was shown). It is tried, and handed on to the pipeline. Keys of the
 * application that are none of ours are never touched.
 */
void kt_client_key_kind(const struct kt_client_key *spec, enum kt_key_type *type, unsigned *bits);
/* The key in force of the ClientCredential with this secretName, and how it signs. KT_E_LATER: it has none yet. */
enum kt_code kt_client_key_in_force(struct kt_keeper *keeper, const char *ns, const char *secret_name, struct kt_key **ret,
                                    enum kt_assertion_alg *ret_alg, struct kt_err *err);
/* Shows the public keys of a hosted client; shown (or NULL) is called when the desk has them, where *ret_pending. */
enum kt_code kt_client_keys_show(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                                 const struct kt_resource *spec, const struct kt_store_cred *cred, kt_wire_reply_fn *shown,
                                 void *arg, bool *ret_pending, struct kt_err *err);
void kt_client_keys_show_all(struct kt_keeper *keeper);
/* What is over is not shown any more. In the transaction that retires it. */
enum kt_code kt_client_key_retired(struct kt_flight *flight, struct kt_err *err);
/* The courier's question is about the key that is tried; what it signs then. */
#define KT_CLIENT_ASKED_MAX 64u
bool kt_client_tries_key(const struct kt_flight *flight);
enum kt_code kt_client_key_assert(struct kt_flight *flight, const struct kt_oauth_moment *moment, struct kt_secret **ret,
                                  struct kt_err *err);
enum kt_effect kt_client_key_clean_up(struct kt_flight *flight);

/* --- obtain.c -------------------------------------------------------------------------------------------------------- */

/*
 * For a new revision: the client, in order_url. KT_E_LATER: the secret that would have to go may still be in use (nobody
 * has proved the newer one, or spec.drain is not over).
 */
enum kt_code kt_client_choose(struct kt_flight *flight, struct kt_err *err);
/* Whether that is why nothing new was begun: no failure, only reported like one. */
bool kt_client_must_wait(const struct kt_store_cred *cred);
/* It is over: a failure that comes now is the first one. */
void kt_client_forget_wait(struct kt_store_cred *cred);
/* Whether there is a secret before this one that may still be in use. */
bool kt_client_has_previous(struct kt_flight *flight);
/* What key.c uses of it. The pair of the flight is committed, with step "ordered". */
enum kt_code kt_client_store(struct kt_flight *flight, const char *reason, struct kt_err *err);
/* Into audit trail and log. */
void kt_client_tell(struct kt_flight *flight, const char *step, const char *outcome, const char *reason);
/* One call of the management API, and a token that is asked for and thrown away (KT_E_NOTFOUND: there is nowhere to). */
struct kt_client_call;
enum kt_code kt_client_send(struct kt_flight *flight, const struct kt_client_call *wanted, kt_wire_reply_fn *called,
                            struct kt_err *err);
enum kt_code kt_client_try(struct kt_flight *flight, kt_wire_reply_fn *tried, struct kt_err *err);
/* The courier asks for the secret that is tried (KT_CLIENT_SECRET). False: none is. */
bool kt_client_trying(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err);
/* Before a generation goes: what nobody uses any more is taken away at the server, where it has such. */
enum kt_effect kt_client_clean_up(struct kt_flight *flight);

/* --- server.c: the servers' ways, a few lines each ------------------------------------------------------------------- */

enum kt_client_what {
	KT_CLIENT_MAKE,       /* a new secret; what was there before is refused from then on, unless overlap */
	KT_CLIENT_LIST,       /* value: the server's id of the secret at `index`, "" where there is none */
	KT_CLIENT_DEACTIVATE, /* of the secret `id` */
	KT_CLIENT_DELETE,
	/* the same for keys; value: its kid, the server's id of it, its state */
	KT_CLIENT_KEY_MAKE, /* the body is the caller's */
	KT_CLIENT_KEY_LIST, /* kid of the key at `index`, "" where there is none */
	KT_CLIENT_KEY_ID,   /* id of the key at `index` */
	KT_CLIENT_KEY_KID,  /* of the key `id` */
	KT_CLIENT_KEY_STATUS,
	KT_CLIENT_KEY_ACTIVATE,
	KT_CLIENT_KEY_DEACTIVATE,
	KT_CLIENT_KEY_DELETE
};

/* One call of the management API. */
struct kt_client_call {
	const char *method;
	char url[2048];
	const char *body;     /* NULL: none */
	char json_path[64];
	const char *secret_path; /* NULL: no secret is expected */
	struct kt_bytes ca_bundle;
	const char *token_ref;
};

struct kt_client_ask {
	enum kt_client_what what;
	const struct kt_client *client;
	const char *id; /* of one secret or key */
	unsigned index; /* of one in the list */
};

/* "anypoint", "okta", "hosted" or "static". */
const char *kt_client_issuer_name(const struct kt_client_credential_spec *spec);
/* Two secrets, or keys, of a client are good at the same time. */
bool kt_client_overlaps(const struct kt_client_credential_spec *spec);
enum kt_code kt_client_call_init(const struct kt_client_credential_spec *spec, const struct kt_client_ask *ask,
                                 struct kt_client_call *ret, struct kt_err *err);
/*
 * Where a secret of the client is tried: an issuer and a request for kt_oauth_issuer_json and kt_oauth_request_json, which
 * borrow from spec, client and url (which has room for 2048 bytes). False: nowhere.
 */
bool kt_client_test_of(const struct kt_client_credential_spec *spec, const struct kt_client *client, char *url,
                       struct kt_oauth2_issuer *oauth2, struct kt_token_spec *request);

#endif
