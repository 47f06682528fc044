/* A TLS handshake to see which certificate is served: nothing is verified, for what is served is read, not trusted. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "courier/probe/probe_internal.h"
#include "courier/probe/starttls.h"
#include "courier/url.h"
#include "kt/mem.h"
#include "kt/pki.h"

#define TIMEOUT_DEFAULT (5 * KT_SECOND)
#define TIMEOUT_MAX     (10 * KT_SECOND)

struct tls_probe {
	struct probe_item item;
	struct kt_lookup *lookup;
	struct kt_timer *timer;
	struct kt_watch *watch;
	struct kt_addresses addresses;
	unsigned next; /* address to try */
	uint16_t port;
	int fd;
	bool connected;
	struct kt_starttls_talk *talk; /* NULL: TLS from the first byte, or from here on */
	SSL_CTX *ctx;
	SSL *ssl;
	char address[520], server_name[KT_NAME_MAX + 1];
};

static void on_ready(int events, void *arg);

static void disconnect(struct tls_probe *probe)
{
	kt_watch_destroy(probe->watch);
	SSL_free(probe->ssl);
	if (probe->fd >= 0) {
		(void)close(probe->fd);
	}
	probe->watch = NULL;
	probe->ssl = NULL;
	probe->fd = -1;
	probe->connected = false;
}

static void destroy(struct probe_item *item)
{
	struct tls_probe *probe = (struct tls_probe *)item;

	kt_resolve_cancel(probe->lookup);
	kt_timer_destroy(probe->timer);
	disconnect(probe);
	kt_starttls_destroy(probe->talk);
	SSL_CTX_free(probe->ctx);
	kt_free(probe);
}

static void fail(struct tls_probe *probe, const struct kt_err *err)
{
	struct kt_err why = *err;

	(void)kt_err_prefix(&why, "TLS handshake with %.300s", probe->address);
	probe_fail(&probe->item, &why);
}

static void on_timer(void *arg)
{
	struct tls_probe *probe = arg;
	struct kt_err err;

	(void)kt_err_set(&err, KT_E_TIMEOUT, "%s", probe->connected ? "no answer in time" : "no connection in time");
	fail(probe, &err);
}

/* --- what is served ------------------------------------------------------------------------------------------------
 */

static enum kt_code read_leaf(struct tls_probe *probe, struct kt_err *err)
{
	KT_AUTOCERT struct kt_cert *cert = NULL;
	struct kt_msg_probed_tls done = {0};
	X509 *leaf = SSL_get1_peer_certificate(probe->ssl);
	unsigned char *der = NULL;
	int len = leaf == NULL ? -1 : i2d_X509(leaf, &der);
	enum kt_code code;

	X509_free(leaf);
	if (len <= 0) {
		return kt_err_set(err, KT_E_PROTO, "the server showed no certificate");
	}
	code = kt_pki_cert_from_der((struct kt_view){(const char *)der, (size_t)len}, &cert, err);
	OPENSSL_free(der);
	if (code != KT_OK) {
		return code;
	}
	done.serial = kt_view_str(kt_pki_cert_serial(cert));
	done.sha256 = kt_view_str(kt_pki_cert_sha256(cert));
	done.not_after = kt_pki_cert_not_after(cert);
	done.subject = kt_view_str(kt_pki_cert_subject(cert));
	done.protocol = kt_view_str(SSL_get_version(probe->ssl));
	kt_wire_reply(probe->item.courier->keeper, probe->item.reply_to, KT_PROBED_TLS, &done, NULL, 0);
	probe_end(&probe->item);
	return KT_OK;
}

/*
 * A server that insists on a client certificate ends the handshake, but only after it has proved to hold the key of its
 * own: up to TLS 1.2 that is done once we have sent our Finished.
 */
static bool proved_before_refusal(const struct tls_probe *probe)
{
	OSSL_HANDSHAKE_STATE state = SSL_get_state(probe->ssl);

	return state == TLS_ST_CW_FINISHED || state == TLS_ST_CR_SESSION_TICKET || state == TLS_ST_CR_CHANGE ||
	       state == TLS_ST_CR_FINISHED || state == TLS_ST_OK;
}

static void shake(struct tls_probe *probe)
{
	struct kt_err err;
	int rc, why, events = 0;

	ERR_clear_error();
	rc = SSL_do_handshake(probe->ssl);
	why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(probe->ssl, rc);
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
		events = why == SSL_ERROR_WANT_READ ? KT_LOOP_READ : KT_LOOP_WRITE;
		if (kt_watch_set(probe->watch, events, &err) != KT_OK) {
			fail(probe, &err);
		}
		return;
	}
	kt_err_clear(&err);
	if (rc == 1 || proved_before_refusal(probe)) {
		if (read_leaf(probe, &err) != KT_OK) {
			fail(probe, &err);
		}
		return;
	}
	if (why == SSL_ERROR_SSL && ERR_peek_last_error() != 0) {
		const char *reason = ERR_reason_error_string(ERR_peek_last_error());

		(void)kt_err_set(&err, KT_E_NET, "%s", reason != NULL ? reason : "refused");
	} else {
		(void)kt_err_set(&err, KT_E_NET, "the server closed the connection");
	}
	ERR_clear_error();
	fail(probe, &err);
}

static enum kt_code start_tls(struct tls_probe *probe, struct kt_err *err)
{
	bool numeric;

	if (probe->ctx == NULL) {
		probe->ctx = SSL_CTX_new(TLS_client_method());
		if (probe->ctx == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "out of memory for TLS");
		}
		SSL_CTX_set_verify(probe->ctx, SSL_VERIFY_NONE, NULL);
		SSL_CTX_set_security_level(probe->ctx, 0);
		SSL_CTX_set_options(probe->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_LEGACY_SERVER_CONNECT);
	}
	probe->ssl = SSL_new(probe->ctx);
	if (probe->ssl == NULL || SSL_set_fd(probe->ssl, probe->fd) != 1) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for TLS");
	}
	(void)kt_reach_of_name(probe->server_name, &numeric);
	if (probe->server_name[0] != '\0' && !numeric &&
	    SSL_set_tlsext_host_name(probe->ssl, probe->server_name) != 1) {
		return kt_err_set(err, KT_E_INVALID, "serverName '%.100s' can't be sent", probe->server_name);
	}
	SSL_set_connect_state(probe->ssl);
	return KT_OK;
}

/* --- what is said before ---------------------------------------------------------------------------------------------
 */

static enum kt_code begin_tls(struct tls_probe *probe, struct kt_err *err)
{
	enum kt_code code = start_tls(probe, err);

	if (code == KT_OK) {
		shake(probe);
	}
	return code;
}

/* A few bytes on a connection that has sent none yet, or one line: they go at once or the connection is dead. */
static enum kt_code say(struct tls_probe *probe, struct kt_view text, struct kt_err *err)
{
	ssize_t sent = text.len > 0 ? send(probe->fd, text.ptr, text.len, MSG_NOSIGNAL) : 0;

	if (sent != (ssize_t)text.len) {
		return kt_err_set(err, KT_E_NET, "the connection broke");
	}
	return kt_watch_set(probe->watch, KT_LOOP_READ, err);
}

static enum kt_code listen_to(struct tls_probe *probe, struct kt_err *err)
{
	char bytes[1024];
	ssize_t got = recv(probe->fd, bytes, sizeof(bytes), 0);
	struct kt_view answer;
	bool ready = false;
	enum kt_code code;

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return KT_OK;
	}
	if (got <= 0) {
		return kt_err_set(err, KT_E_NET, "the server closed the connection before TLS");
	}
	code = kt_starttls_feed(probe->talk, (struct kt_view){bytes, (size_t)got}, &answer, &ready, err);
	if (code == KT_OK && ready) {
		kt_starttls_destroy(probe->talk);
		probe->talk = NULL;
		return begin_tls(probe, err);
	}
	return code == KT_OK && answer.len > 0 ? say(probe, answer, err) : code;
}

/* --- connecting -----------------------------------------------------------------------------------------------------
 */

static enum kt_code connect_to(struct tls_probe *probe, const struct sockaddr *to, socklen_t len, struct kt_err *err)
{
	int one = 1;

	probe->fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (probe->fd < 0) {
		return kt_err_sys(err, "a socket");
	}
	(void)setsockopt(probe->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(probe->fd, to, len) != 0 && errno != EINPROGRESS) {
		(void)kt_err_sys(err, "connecting");
		err->code = KT_E_NET;
		return KT_E_NET;
	}
	return kt_watch_create(probe->item.courier->loop, probe->fd, KT_LOOP_WRITE, on_ready, probe, &probe->watch,
			       err);
}

/* Tries the addresses one after the other; last is why the one before failed. */
static void try_next(struct tls_probe *probe, struct kt_err *last)
{
	while (probe->next < probe->addresses.count) {
		struct sockaddr_storage *to = &probe->addresses.at[probe->next++];
		socklen_t len = to->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

		if (to->ss_family == AF_INET) {
			((struct sockaddr_in *)to)->sin_port = htons(probe->port);
		} else {
			((struct sockaddr_in6 *)to)->sin6_port = htons(probe->port);
		}
		disconnect(probe);
		if (connect_to(probe, (struct sockaddr *)to, len, last) == KT_OK) {
			return;
		}
	}
	fail(probe, last);
}

static void on_ready(int events, void *arg)
{
	struct tls_probe *probe = arg;
	int error = 0;
	socklen_t len = sizeof(error);
	enum kt_code code = KT_OK;
	struct kt_err err;

	(void)events;
	if (!probe->connected) {
		kt_err_clear(&err);
		(void)getsockopt(probe->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error != 0) {
			errno = error;
			(void)kt_err_sys(&err, "connecting");
			err.code = KT_E_NET;
			try_next(probe, &err);
			return;
		}
		probe->connected = true;
		code = probe->talk != NULL ? say(probe, kt_starttls_hello(probe->talk), &err) : begin_tls(probe, &err);
	} else if (probe->talk != NULL) {
		code = listen_to(probe, &err);
	} else {
		shake(probe);
	}
	if (code != KT_OK) { /* shake has seen to its own end, and the probe may be gone */
		fail(probe, &err);
	}
}

static void on_resolved(const struct kt_err *err, const struct kt_addresses *addresses, void *arg)
{
	struct tls_probe *probe = arg;
	struct kt_err why = *err;

	probe->lookup = NULL;
	if (why.code != KT_OK) {
		fail(probe, &why);
		return;
	}
	probe->addresses = *addresses;
	(void)kt_err_set(&why, KT_E_NET, "there is no address");
	try_next(probe, &why);
}

static enum kt_code start(struct tls_probe *probe, const struct kt_msg_probe_tls *msg, struct kt_err *err)
{
	kt_ms timeout = msg->timeout_ms == 0 ? TIMEOUT_DEFAULT : msg->timeout_ms;
	char host[256];

	timeout = timeout > TIMEOUT_MAX ? TIMEOUT_MAX : timeout;
	if (msg->server_name.len > KT_NAME_MAX || msg->address.len >= sizeof(probe->address) || msg->address.len == 0) {
		return kt_err_set(err, KT_E_INVALID, "the address or the server name is empty or too long");
	}
	memcpy(probe->address, msg->address.ptr, msg->address.len);
	if (msg->server_name.len > 0) {
		memcpy(probe->server_name, msg->server_name.ptr, msg->server_name.len);
	}
	if (msg->start_tls.len > 0 && kt_starttls_create(msg->start_tls, &probe->talk, err) != KT_OK) {
		return err->code;
	}
	if (kt_timer_create(probe->item.courier->loop, on_timer, probe, &probe->timer, err) != KT_OK) {
		return err->code;
	}
	kt_timer_start(probe->timer, timeout);
	if (kt_url_split_address(kt_view_str(probe->address), host, &probe->port, err) != KT_OK) {
		return err->code;
	}
	return kt_resolve(kt_http_resolver(probe->item.courier->http), host, true, timeout, on_resolved, probe,
			  &probe->lookup, err);
}

void kt_probe_handle_tls(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	struct tls_probe *probe = kt_calloc(1, sizeof(*probe));
	struct kt_err err;

	(void)kt_err_set(&err, KT_E_NOMEM, "out of memory for a probe");
	if (probe == NULL || probe_add(courier, &probe->item, in->id, &err) != KT_OK) {
		kt_free(probe);
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	probe->item.destroy = destroy;
	probe->fd = -1;
	kt_err_clear(&err);
	if (start(probe, in->msg, &err) != KT_OK) {
		fail(probe, &err);
	}
}
