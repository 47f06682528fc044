/* The keeper's part in tokens for courier_drive: secrets, assertions, proofs and the client's key, from files and
 * flags. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courier_drive.h"
#include "kt/io.h"
#include "kt/jose.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"

#define GIVEN_MAX 8u
#define TURNS_MAX 64u
#define JOBS_MAX  256u

static struct {
	const char *names[GIVEN_MAX], *values[GIVEN_MAX]; /* --give NAME=VALUE */
	unsigned count;
	const char *assertion_key, *alg, *dpop_key, *show, *show_key;
	bool print, print_saved, deny_save;
	const char *turns[TURNS_MAX]; /* --turn CERTIFICATE,KEY */
	unsigned turn_count, turn;
	const char *turn_of[JOBS_MAX]; /* by the job */
	char shown[KT_PATH_MAX];
	int64_t clock; /* how far ours is off, as a test wants it */
	const char *secret;
	json_t *issuer;
} own;

static void must(enum kt_code code, const struct kt_err *err, const char *what)
{
	if (code != KT_OK) {
		(void)fprintf(stderr, "courier_drive: %s: %s\n", what, err->what);
		exit(2);
	}
}

bool drive_oauth_option(const char *name, const char *value)
{
	const struct {
		const char *name, **at;
	} texts[] = {{"--assertion-key", &own.assertion_key},
		     {"--alg", &own.alg},
		     {"--dpop-key", &own.dpop_key},
		     {"--show", &own.show},
		     {"--show-key", &own.show_key}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (strcmp(name, texts[i].name) == 0) {
			*texts[i].at = value;
			return true;
		}
	}
	if (strcmp(name, "--print") == 0) {
		own.print = strstr(value, "token") != NULL;
		own.print_saved = strstr(value, "refresh") != NULL;
	} else if (strcmp(name, "--save") == 0) {
		own.deny_save = strcmp(value, "no") == 0;
	} else if (strcmp(name, "--turn") == 0 && own.turn_count < TURNS_MAX) {
		own.turns[own.turn_count++] = value;
	} else if (strcmp(name, "--clock") == 0) {
		own.clock = strtoll(value, NULL, 10);
	} else if (strcmp(name, "--give") == 0 && own.count < GIVEN_MAX && strchr(value, '=') != NULL) {
		own.names[own.count] = value;
		own.values[own.count++] = strchr(value, '=') + 1;
	} else {
		return false;
	}
	return true;
}

const char *drive_oauth_turn(uint64_t job, const char *request)
{
	if (own.turn_count == 0) {
		return request;
	}
	own.turn_of[job % JOBS_MAX] = own.turns[own.turn++ % own.turn_count];
	return own.turn_of[job % JOBS_MAX][0] == '\0' ? "{}" : "{\"certificate\":true}";
}

void drive_oauth_begin(struct kt_view issuer, const char *secret)
{
	struct kt_err err;

	json_decref(own.issuer);
	must(kt_json_parse(issuer, 65536, &own.issuer, &err), &err, "issuer");
	own.secret = secret;
}

void drive_oauth_finish(void)
{
	json_decref(own.issuer);
	own.issuer = NULL;
}

void drive_oauth_print(const struct kt_secret *token)
{
	struct kt_view view = kt_secret_view(token);

	if (own.print) {
		(void)printf("token %.*s\n", (int)view.len, view.ptr);
	}
}

static void read_file(const char *path, struct kt_buf *out)
{
	struct kt_err err;

	kt_buf_init(out, 65536);
	must(kt_io_read_file(AT_FDCWD, path != NULL ? path : "", out, &err), &err, "a file");
}

static struct kt_key *read_key(const char *path)
{
	KT_AUTOBUF struct kt_buf text;
	struct kt_key *key;
	struct kt_err err;

	read_file(path, &text);
	must(kt_pki_key_from_pem(kt_buf_view(&text), &key, &err), &err, "a key");
	return key;
}

static const char *client_id(void)
{
	return kt_json_str(json_object_get(own.issuer, "auth"), "clientID");
}

void drive_on_secret(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_client_secret *ask = in->msg;
	struct kt_msg_client_secret_given reply = {0};
	const char *text = kt_view_eq_str(ask->what, "client_secret") ? own.secret : NULL;
	struct kt_err err;

	(void)arg;
	(void)printf("ask secret %.*s\n", (int)ask->what.len, ask->what.ptr);
	for (unsigned i = 0; i < own.count; i++) {
		size_t len = strcspn(own.names[i], "=");

		if (len == ask->what.len && memcmp(own.names[i], ask->what.ptr, len) == 0) {
			text = own.values[i];
		}
	}
	if (text == NULL) {
		(void)kt_err_set(&err, KT_E_NOTFOUND, "no such secret was given");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	must(kt_secret_create(text, strlen(text), &reply.secret, &err), &err, "secret");
	kt_wire_reply(in->wire, in->id, KT_CLIENT_SECRET_GIVEN, &reply, NULL, 0);
	kt_secret_destroy(reply.secret);
}

static int64_t seconds(int64_t skew)
{
	return kt_clock_wall(&kt_clock_system) / KT_SECOND + own.clock + skew;
}

void drive_on_assertion(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_assertion *ask = in->msg;
	struct kt_msg_assertion_given reply = {
		.type = KT_VIEW_LIT("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")};
	KT_AUTOFREE char *endpoint = kt_strndup(ask->endpoint.ptr, ask->endpoint.len);
	const char *aud[1] = {endpoint};
	char jti[33], kid[KT_JOSE_THUMBPRINT];
	struct kt_jwt_claims claims = {
		.iss = client_id(), .sub = client_id(), .jti = jti, .aud = {aud, 1}, .iat = seconds(ask->skew)};
	KT_AUTOKEY struct kt_key *key = NULL;
	struct kt_err err;

	(void)arg;
	(void)printf("ask assertion %s issuer=%.*s skew=%lld\n", endpoint, (int)ask->issuer.len, ask->issuer.ptr,
		     (long long)ask->skew);
	claims.exp = claims.iat + 60;
	kt_rand_hex(jti, 16);
	if (own.assertion_key != NULL) {
		key = read_key(own.assertion_key);
		must(kt_jose_thumbprint(key, kid, &err), &err, "kid");
		claims.kid = kid;
		must(kt_jose_jwt_sign(key, kt_jose_alg_parse(own.alg != NULL ? own.alg : ""), &claims, &reply.assertion,
				      &err),
		     &err, "assertion");
	} else {
		must(kt_jose_jwt_mac(KT_JOSE_HS256, kt_view_str(own.secret), &claims, &reply.assertion, &err), &err,
		     "assertion");
	}
	kt_wire_reply(in->wire, in->id, KT_ASSERTION_GIVEN, &reply, NULL, 0);
	kt_secret_destroy(reply.assertion);
}

void drive_on_proof(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_dpop_proof *ask = in->msg;
	struct kt_msg_dpop_proof_given reply = {0};
	KT_AUTOJSON json_t *extra = json_object();
	KT_AUTOSECRET struct kt_secret *proof = NULL;
	char jti[33];
	struct kt_jwt_claims claims = {
		.typ = "dpop+jwt", .jti = jti, .iat = seconds(ask->skew), .jwk = true, .extra = extra};
	KT_AUTOKEY struct kt_key *key = read_key(own.dpop_key);
	struct kt_err err;

	(void)arg;
	(void)printf("ask proof %.*s %.*s nonce=%s skew=%lld\n", (int)ask->method.len, ask->method.ptr,
		     (int)ask->url.len, ask->url.ptr, ask->nonce.len > 0 ? "yes" : "no", (long long)ask->skew);
	kt_rand_hex(jti, 16);
	(void)json_object_set_new(extra, "htm", json_stringn(ask->method.ptr, ask->method.len));
	(void)json_object_set_new(extra, "htu", json_stringn(ask->url.ptr, ask->url.len));
	if (ask->nonce.len > 0) {
		(void)json_object_set_new(extra, "nonce", json_stringn(ask->nonce.ptr, ask->nonce.len));
	}
	must(kt_jose_jwt_sign(key, KT_JOSE_NONE, &claims, &proof, &err), &err, "proof");
	reply.proof = kt_secret_view(proof);
	kt_wire_reply(in->wire, in->id, KT_DPOP_PROOF_GIVEN, &reply, NULL, 0);
}

void drive_on_key(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_client_key *ask = in->msg;
	struct kt_msg_client_key_given reply = {0};
	KT_AUTOKEY struct kt_key *key = NULL;
	KT_AUTOBUF struct kt_buf chain;
	struct kt_err err;

	(void)arg;
	if (own.turn_count > 0) {
		(void)snprintf(own.shown, sizeof(own.shown), "%s", own.turn_of[ask->job % JOBS_MAX]);
		own.show = own.shown;
		own.show_key = strchr(own.shown, ',') + 1;
		own.shown[strcspn(own.shown, ",")] = '\0';
	}
	key = read_key(own.show_key);
	(void)printf("ask key\n");
	read_file(own.show, &chain);
	must(kt_pki_key_to_der(key, KT_KEY_PKCS8, &reply.key, &err), &err, "key");
	reply.chain = kt_buf_view(&chain);
	kt_wire_reply(in->wire, in->id, KT_CLIENT_KEY_GIVEN, &reply, NULL, 0);
	kt_secret_destroy(reply.key);
}

void drive_on_refresh(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_save_refresh *save = in->msg;
	struct kt_view view = kt_secret_view(save->token);
	struct kt_msg_done done = {0};
	struct kt_err err;

	(void)arg;
	(void)printf("save refresh %.*s\n", own.print_saved ? (int)view.len : 0, view.ptr);
	if (own.deny_save) {
		(void)kt_err_set(&err, KT_E_SYS, "the disk is full");
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
}
