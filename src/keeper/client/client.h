/* Clients' ids and secrets as credentials: choosing the client, resetting, trying, cleaning up (docs/internals/clients.md). */
#ifndef KEEPER_CLIENT_CLIENT_H
#define KEEPER_CLIENT_CLIENT_H

#include "keeper/flight.h"

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
/* Whether a ClientCredential has this secretName. */
bool kt_client_owns(struct kt_keeper *keeper, const char *ns, const char *secret_name);

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
/* The courier asks for the secret that is tried (KT_CLIENT_SECRET). False: none is. */
bool kt_client_trying(struct kt_flight *flight, struct kt_secret **ret, struct kt_err *err);
/* Before a generation goes: what nobody uses any more is taken away at the server, where it has such. */
enum kt_effect kt_client_clean_up(struct kt_flight *flight);

/* --- server.c: the servers' ways, a few lines each ------------------------------------------------------------------- */

enum kt_client_what {
	KT_CLIENT_MAKE,       /* a new secret; what was there before is refused from then on, unless overlap */
	KT_CLIENT_LIST,       /* value: the server's id of the secret at `index`, "" where there is none */
	KT_CLIENT_DEACTIVATE, /* of the secret `id` */
	KT_CLIENT_DELETE
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
	const char *id; /* DEACTIVATE, DELETE */
	unsigned index; /* LIST */
};

/* "anypoint", "okta" or "static". */
const char *kt_client_issuer_name(const struct kt_client_credential_spec *spec);
/* Two secrets of a client are good at the same time, and each has an id. */
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
