/* The client certificate of a request (RFC 8705): shown in one handshake, its key forgotten after it. */
#include <openssl/ssl.h>

#include "courier/http_internal.h"
#include "kt/mem.h"
#include "pki/pki_openssl.h"

/*
 * libcurl has no way to take a key back once it was given to an SSL_CTX, which lives as long as the connection. So the
 * SSL_CTX gets none: a callback puts certificate and key into the handshake that asks for them, and another one takes
 * them out again when it is over. The call whose handshake it is outlives it: without the call libcurl closes the
 * connection.
 */

/* Where an SSL_CTX keeps the call whose handshake it makes. */
static int slot(void)
{
	static int index = -1;

	if (index < 0) {
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	}
	return index;
}

void http_cert_forget(struct kt_http_call *call)
{
	kt_pki_chain_destroy(call->client_chain);
	kt_pki_key_destroy(call->client_key);
	call->client_chain = NULL;
	call->client_key = NULL;
}

static enum kt_code hash_leaf(const struct kt_chain *chain, uint8_t out[KT_SHA256_LEN], struct kt_err *err)
{
	uint8_t *der = NULL;
	int len = i2d_X509(kt_pki_cert_x509(kt_pki_chain_at(chain, 0)), &der);

	if (len <= 0) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a client certificate");
	}
	kt_sha256(der, (size_t)len, out);
	OPENSSL_free(der);
	return KT_OK;
}

enum kt_code http_cert_take(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err)
{
	uint8_t hash[KT_SHA256_LEN];
	enum kt_code code = kt_pki_chain_parse(request->client_chain, &call->client_chain, err);

	if (code == KT_OK) {
		code = kt_pki_key_from_der(kt_secret_view(request->client_key), &call->client_key, err);
	}
	if (code == KT_OK && !kt_pki_cert_has_key(kt_pki_chain_at(call->client_chain, 0), call->client_key)) {
		code = kt_err_set(err, KT_E_CRYPTO, "the key does not belong to the certificate");
	}
	if (code == KT_OK) {
		code = hash_leaf(call->client_chain, hash, err);
	}
	if (code != KT_OK) {
		return err != NULL ? kt_err_prefix(err, "the client certificate") : code;
	}
	return http_trust_get_shown(call->trust, hash, &call->trust, err);
}

/* The server asks for a certificate. Returns 1, or 0 to end the handshake. */
static int on_asked(SSL *ssl, void *arg)
{
	const struct kt_http_call *call = arg;
	STACK_OF(X509) * rest;
	int ok = 1;

	if (call->client_key == NULL) {
		return 1;
	}
	rest = sk_X509_new_null();
	for (size_t i = 1; rest != NULL && ok > 0 && i < kt_pki_chain_count(call->client_chain); i++) {
		ok = sk_X509_push(rest, kt_pki_cert_x509(kt_pki_chain_at(call->client_chain, i)));
	}
	ok = rest != NULL && ok > 0 &&
	     SSL_use_cert_and_key(ssl, kt_pki_cert_x509(kt_pki_chain_at(call->client_chain, 0)),
				  kt_pki_key_evp(call->client_key), rest, 1) == 1;
	sk_X509_free(rest); /* what is in it has references of its own where it was taken */
	return ok;
}

static void on_state(const SSL *ssl, int where, int ret)
{
	SSL *connection = (SSL *)(uintptr_t)ssl;
	struct kt_http_call *call = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), slot());

	(void)ret;
	if ((where & SSL_CB_HANDSHAKE_DONE) == 0 || call == NULL) {
		return;
	}
	SSL_set_cert_cb(connection, NULL, NULL);
	SSL_certs_clear(connection);
	SSL_set_info_callback(connection, NULL);
	(void)SSL_CTX_set_ex_data(SSL_get_SSL_CTX(ssl), slot(), NULL); /* session tickets come this way as well */
	http_cert_forget(call);
}

bool http_cert_apply(struct kt_http_call *call, SSL_CTX *ctx)
{
	SSL_CTX_set_post_handshake_auth(ctx, 0); /* what a connection has shown at its start is what it stands for */
	if (call->client_key == NULL) {
		return true;
	}
	if (slot() < 0 || SSL_CTX_set_ex_data(ctx, slot(), call) != 1) {
		return false;
	}
	SSL_CTX_set_cert_cb(ctx, on_asked, call);
	SSL_CTX_set_info_callback(ctx, on_state);
	return true;
}
