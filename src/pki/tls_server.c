/* The server half of tls-alpn-01 handshakes, on libraries that are opened only where somebody wants them. */
#include "kt/tls.h"

#include <dlfcn.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

/*
 * The desk that shows pages only must not carry OpenSSL, whose relocations and tables alone are half a megabyte of its
 * own memory; and a desk whose walls stand can't open a library any more. So every function is looked up by name in
 * kt_tls_load, and this file refers to nothing else of OpenSSL, nor of this folder.
 */

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LIBSSL "libssl.so." TEXT(OPENSSL_SHLIB_VERSION)
#define LIBCRYPTO "libcrypto.so." TEXT(OPENSSL_SHLIB_VERSION)

#define CRYPTO_FUNCTIONS(F)                                                                                            \
	F(CRYPTO_set_mem_functions)                                                                                    \
	F(ERR_peek_error) F(ERR_reason_error_string) F(ERR_clear_error) F(BIO_new) F(BIO_s_mem) F(BIO_read)            \
		F(BIO_write) F(BIO_free) F(BIO_ctrl_pending) F(d2i_X509) F(X509_free) F(X509_check_private_key)                    \
			F(d2i_PKCS8_PRIV_KEY_INFO) F(PKCS8_PRIV_KEY_INFO_free) F(EVP_PKCS82PKEY) F(EVP_PKEY_free)
#define SSL_FUNCTIONS(F)                                                                                               \
	F(OPENSSL_init_ssl)                                                                                            \
	F(TLS_server_method) F(SSL_CTX_new) F(SSL_CTX_free) F(SSL_CTX_ctrl) F(SSL_CTX_set_options)                     \
		F(SSL_CTX_set_cipher_list) F(SSL_CTX_set_ciphersuites) F(SSL_CTX_set_num_tickets)                      \
			F(SSL_CTX_set_client_hello_cb) F(SSL_CTX_set_alpn_select_cb) F(SSL_client_hello_get0_ext)      \
				F(SSL_new) F(SSL_free) F(SSL_set_bio) F(SSL_set_accept_state) F(SSL_do_handshake)      \
					F(SSL_get_error) F(SSL_shutdown) F(SSL_use_certificate) F(SSL_use_PrivateKey)

#define MEMBER(name) __typeof__(&(name)) name;
static struct {
	bool loaded;
	CRYPTO_FUNCTIONS(MEMBER)
	SSL_FUNCTIONS(MEMBER)
} lib;
#undef MEMBER

struct kt_tls_server {
	SSL_CTX *ctx;
	kt_tls_find_fn *find;
	void *arg;
	struct kt_tls_handshake *fed; /* the callbacks get the server: whose hello is it? */
};

struct kt_tls_handshake {
	struct kt_tls_server *server;
	SSL *ssl;
	BIO *in, *out; /* of ssl */
	size_t taken;  /* bytes */
	enum kt_tls_step step;
	const char *why; /* what a callback has refused for */
};

/* --- the libraries ---------------------------------------------------------------------------------------------- */

static void *ssl_malloc(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return kt_malloc(size);
}

static void *ssl_realloc(void *ptr, size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return kt_realloc(ptr, size);
}

static void ssl_free(void *ptr, const char *file, int line)
{
	(void)file;
	(void)line;
	kt_free(ptr);
}

static bool find_function(void *library, const char *name, void *ret)
{
	void *found = dlsym(library, name);

	memcpy(ret, &found, sizeof(found)); /* an object pointer becomes one to a function */
	return found != NULL;
}

enum kt_code kt_tls_load(struct kt_err *err)
{
	void *crypto, *ssl;
	bool found = true;

	if (lib.loaded)
		return KT_OK;
	crypto = dlopen(LIBCRYPTO, RTLD_NOW | RTLD_LOCAL);
	ssl = crypto ? dlopen(LIBSSL, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!ssl)
		return kt_err_set(err, KT_E_UNSUPPORTED, "tls-alpn-01 needs %s and %s: %s", LIBCRYPTO, LIBSSL, dlerror());
#define LOOK_UP(library, name) found = found && find_function(library, #name, &lib.name);
#define IN_CRYPTO(name) LOOK_UP(crypto, name)
#define IN_SSL(name) LOOK_UP(ssl, name)
	CRYPTO_FUNCTIONS(IN_CRYPTO)
	SSL_FUNCTIONS(IN_SSL)
	if (!found)
		return kt_err_set(err, KT_E_UNSUPPORTED, "tls-alpn-01: a function is missing in %s or %s: %s", LIBCRYPTO, LIBSSL,
		                  dlerror());
	/* Refused when something of libcrypto ran before: then it stays with its own allocator. */
	(void)lib.CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free);
	/* What openssl.cnf says is for others; ours is below, and it must not depend on a file. */
	if (lib.OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return kt_err_set(err, KT_E_UNSUPPORTED, "tls-alpn-01: %s can't start", LIBSSL);
	lib.loaded = true;
	return KT_OK;
}

/* err from OpenSSL's queue, whose texts hold nothing that the client sent; the queue is empty after. */
static enum kt_code ssl_err(struct kt_err *err, enum kt_code code, const char *what)
{
	unsigned long first = lib.ERR_peek_error();
	const char *reason = first ? lib.ERR_reason_error_string(first) : NULL;

	if (ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE)
		code = KT_E_NOMEM;
	lib.ERR_clear_error();
	return kt_err_set(err, code, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

/* --- certificate and key ---------------------------------------------------------------------------------------- */

static X509 *read_certificate(struct kt_view der)
{
	const unsigned char *at = (const unsigned char *)der.ptr;
	X509 *x509 = der.len > 0 && der.len <= LONG_MAX ? lib.d2i_X509(NULL, &at, (long)der.len) : NULL;

	if (x509 && at != (const unsigned char *)der.ptr + der.len) {
		lib.X509_free(x509);
		return NULL;
	}
	return x509;
}

static EVP_PKEY *read_key(struct kt_view der)
{
	const unsigned char *at = (const unsigned char *)der.ptr;
	PKCS8_PRIV_KEY_INFO *info = lib.d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.len);
	EVP_PKEY *key = info ? lib.EVP_PKCS82PKEY(info) : NULL;

	lib.PKCS8_PRIV_KEY_INFO_free(info);
	return key;
}

/* Reads both; NULLs when something is wrong. The caller frees what came. */
static bool read_identity(const struct kt_tls_identity *identity, X509 **ret_x509, EVP_PKEY **ret_key)
{
	*ret_x509 = read_certificate(identity->certificate);
	*ret_key = *ret_x509 ? read_key(kt_secret_view(identity->key)) : NULL;
	return *ret_key && lib.X509_check_private_key(*ret_x509, *ret_key) == 1;
}

enum kt_code kt_tls_check(const struct kt_tls_identity *identity, struct kt_err *err)
{
	X509 *x509;
	EVP_PKEY *key;
	bool fits;

	if (!lib.loaded)
		return kt_err_set(err, KT_E_UNSUPPORTED, "kt_tls_load was not called");
	fits = read_identity(identity, &x509, &key);
	lib.EVP_PKEY_free(key);
	lib.X509_free(x509);
	return fits ? KT_OK
	            : ssl_err(err, KT_E_CRYPTO, "the certificate and the key of a challenge can't be used together");
}

/* --- what a hello must have ------------------------------------------------------------------------------------- */

static unsigned number_at(const unsigned char *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

/* RFC 7301 section 3.1, with this protocol alone in the list. */
static bool is_acme_alone(const unsigned char *ext, size_t len)
{
	static const char acme[] = KT_TLS_ALPN_ACME;
	const size_t n = sizeof(acme) - 1;

	return len == n + 3 && number_at(ext) == n + 1 && ext[2] == n && memcmp(ext + 3, acme, n) == 0;
}

/* RFC 6066 section 3: a list of one host_name. */
static bool read_server_name(const unsigned char *ext, size_t len, char name[256])
{
	size_t n;

	if (len < 5 || number_at(ext) != len - 2 || ext[2] != TLSEXT_NAMETYPE_host_name)
		return false;
	n = number_at(ext + 3);
	if (n != len - 5 || n == 0 || n > 255 || memchr(ext + 5, '\0', n))
		return false;
	memcpy(name, ext + 5, n);
	name[n] = '\0';
	return true;
}

static int refuse(struct kt_tls_handshake *handshake, int *alert, int description, const char *why)
{
	handshake->why = why;
	*alert = description;
	return SSL_CLIENT_HELLO_ERROR;
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
	struct kt_tls_server *server = arg;
	struct kt_tls_identity identity;
	const unsigned char *ext;
	size_t len;
	char name[256];
	X509 *x509;
	EVP_PKEY *key;
	bool fits;

	if (lib.SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext, &len) != 1 ||
	    !is_acme_alone(ext, len))
		return refuse(server->fed, alert, SSL_AD_NO_APPLICATION_PROTOCOL, "the client wants another protocol than " KT_TLS_ALPN_ACME);
	if (lib.SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &ext, &len) != 1 ||
	    !read_server_name(ext, len, name) || !server->find(name, &identity, server->arg))
		return refuse(server->fed, alert, SSL_AD_UNRECOGNIZED_NAME, "no challenge waits for the server name that the client sent");
	fits = read_identity(&identity, &x509, &key) && lib.SSL_use_certificate(ssl, x509) == 1 &&
	       lib.SSL_use_PrivateKey(ssl, key) == 1;
	lib.EVP_PKEY_free(key);
	lib.X509_free(x509);
	return fits ? SSL_CLIENT_HELLO_SUCCESS
	            : refuse(server->fed, alert, SSL_AD_INTERNAL_ERROR, "the certificate of the challenge can't be used");
}

/* The hello has been looked at: there is one protocol, and it is the right one. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len,
                   void *arg)
{
	(void)ssl;
	(void)arg;
	if (in_len < 1 || in_len < 1u + in[0])
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = in + 1;
	*out_len = in[0];
	return SSL_TLSEXT_ERR_OK;
}

/* --- the server ------------------------------------------------------------------------------------------------- */

static bool set_up(SSL_CTX *ctx)
{
	/* Names of curves that are there in every build; the long ones cost a stranger nothing and us milliseconds. */
	static char groups[] = "X25519:P-256:P-384";

	(void)lib.SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
	                                           SSL_OP_CIPHER_SERVER_PREFERENCE);
	(void)lib.SSL_CTX_ctrl(ctx, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
	(void)lib.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL);
	return lib.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) == 1 &&
	       lib.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_GROUPS_LIST, 0, groups) == 1 &&
	       lib.SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
	       lib.SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
	                                         "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
	       lib.SSL_CTX_set_num_tickets(ctx, 0) == 1;
}

enum kt_code kt_tls_server_create(kt_tls_find_fn *find, void *arg, struct kt_tls_server **ret, struct kt_err *err)
{
	struct kt_tls_server *server;

	*ret = NULL;
	if (!lib.loaded)
		return kt_err_set(err, KT_E_UNSUPPORTED, "kt_tls_load was not called");
	server = kt_calloc(1, sizeof(*server));
	if (!server)
		return kt_err_set(err, KT_E_NOMEM, "no memory for the TLS server");
	*server = (struct kt_tls_server){.ctx = lib.SSL_CTX_new(lib.TLS_server_method()), .find = find, .arg = arg};
	if (!server->ctx || !set_up(server->ctx)) {
		kt_tls_server_destroy(server);
		return ssl_err(err, KT_E_CRYPTO, "the TLS server can't start");
	}
	lib.SSL_CTX_set_client_hello_cb(server->ctx, on_hello, server);
	lib.SSL_CTX_set_alpn_select_cb(server->ctx, on_alpn, server);
	*ret = server;
	return KT_OK;
}

void kt_tls_server_destroy(struct kt_tls_server *server)
{
	if (!server)
		return;
	lib.SSL_CTX_free(server->ctx);
	kt_free(server);
}

/* --- one handshake ---------------------------------------------------------------------------------------------- */

enum kt_code kt_tls_handshake_create(struct kt_tls_server *server, struct kt_tls_handshake **ret, struct kt_err *err)
{
	struct kt_tls_handshake *handshake = kt_calloc(1, sizeof(*handshake));

	*ret = NULL;
	if (!handshake)
		return kt_err_set(err, KT_E_NOMEM, "no memory for a handshake");
	handshake->server = server;
	handshake->ssl = lib.SSL_new(server->ctx);
	handshake->in = lib.BIO_new(lib.BIO_s_mem());
	handshake->out = lib.BIO_new(lib.BIO_s_mem());
	if (!handshake->ssl || !handshake->in || !handshake->out) {
		(void)lib.BIO_free(handshake->in);
		(void)lib.BIO_free(handshake->out);
		kt_tls_handshake_destroy(handshake);
		return ssl_err(err, KT_E_NOMEM, "no memory for a handshake");
	}
	lib.SSL_set_bio(handshake->ssl, handshake->in, handshake->out);
	lib.SSL_set_accept_state(handshake->ssl);
	*ret = handshake;
	return KT_OK;
}

static void take_output(struct kt_tls_handshake *handshake, struct kt_buf *out)
{
	size_t left = lib.BIO_ctrl_pending(handshake->out);
	char *at = left > 0 && left <= INT_MAX ? kt_buf_extend(out, left) : NULL;

	if (at)
		(void)lib.BIO_read(handshake->out, at, (int)left);
}

/* What became of it, from OpenSSL's point of view. */
static enum kt_tls_step judge(struct kt_tls_handshake *handshake, int rc, struct kt_err *err)
{
	if (rc == 1) {
		(void)lib.SSL_shutdown(handshake->ssl); /* close_notify: RFC 8737 section 3, nothing else follows */
		lib.ERR_clear_error();
		return KT_TLS_DONE;
	}
	if (lib.SSL_get_error(handshake->ssl, rc) == SSL_ERROR_WANT_READ)
		return KT_TLS_MORE;
	if (handshake->why) {
		lib.ERR_clear_error();
		(void)kt_err_set(err, KT_E_POLICY, "%s", handshake->why);
	} else {
		(void)ssl_err(err, KT_E_PROTO, "the handshake failed");
	}
	return KT_TLS_REFUSED;
}

enum kt_tls_step kt_tls_handshake_feed(struct kt_tls_handshake *handshake, struct kt_view in, struct kt_buf *out,
                                       struct kt_err *err)
{
	if (handshake->step != KT_TLS_MORE)
		return handshake->step;
	handshake->taken += in.len;
	if (in.len > KT_TLS_INPUT_MAX || handshake->taken > KT_TLS_INPUT_MAX) {
		(void)kt_err_set(err, KT_E_LIMIT, "the client sent more than %u bytes for one handshake", KT_TLS_INPUT_MAX);
		return handshake->step = KT_TLS_REFUSED;
	}
	lib.ERR_clear_error();
	if (in.len > 0 && lib.BIO_write(handshake->in, in.ptr, (int)in.len) != (int)in.len) {
		(void)ssl_err(err, KT_E_NOMEM, "no memory for a handshake");
		return handshake->step = KT_TLS_REFUSED;
	}
	handshake->server->fed = handshake;
	handshake->step = judge(handshake, lib.SSL_do_handshake(handshake->ssl), err);
	handshake->server->fed = NULL;
	take_output(handshake, out);
	return handshake->step;
}

void kt_tls_handshake_destroy(struct kt_tls_handshake *handshake)
{
	if (!handshake)
		return;
	lib.SSL_free(handshake->ssl);
	kt_free(handshake);
}
