/* Trust sets of the HTTP client: one certificate store and one multi handle for each, made late and dropped early. */
#include <malloc.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

#include "courier/http_internal.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "pki/pki_openssl.h"

#define TRUST_MAX        32u /* sets with CAs of their own; those for client certificates: one a call */
#define CHAIN_DEPTH_MAX  8
#define CONNECTIONS_HOST 8L
#define CONNECTIONS_ALL  128L /* so that a few servers that never answer don't have them all */
#define KEEP_CONNECTIONS (30 * KT_SECOND)
#define KEEP_TRUST       (10 * KT_MINUTE)

static kt_ms now(const struct kt_http *http)
{
	return kt_clock_mono(kt_loop_clock(http->loop));
}

CURLcode http_trust_apply(CURL *easy, void *ssl_ctx, void *arg)
{
	struct kt_http_call *call = arg;
	const struct http_trust *trust = call->trust;
	SSL_CTX *ctx = ssl_ctx;

	(void)easy;
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || !http_cert_apply(call, ctx)) {
		return CURLE_SSL_CERTPROBLEM;
	}
	if (trust->insecure) {
		return CURLE_OK;
	}
	SSL_CTX_set_security_level(ctx, 2);
	SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
	SSL_CTX_set1_cert_store(ctx, kt_pki_trust_store(trust->base != NULL ? trust->base->trust : trust->trust));
	return CURLE_OK;
}

/* --- libcurl's events on our loop ------------------------------------------------------------------------------ */

/*
 * A socket of libcurl's, from its first use until it is closed. Between two requests it stays watched: that saves
 * several system calls for each.
 */
struct socket_watch {
	struct http_trust *trust;
	struct socket_watch *next;
	struct kt_watch *watch;
	curl_socket_t fd;
	int events;
	bool idle; /* libcurl keeps the connection and waits for nothing */
};

static void unwatch(struct http_trust *trust, curl_socket_t fd)
{
	struct socket_watch **at = &trust->sockets;
	struct socket_watch *gone;

	while (*at != NULL && (*at)->fd != fd) {
		at = &(*at)->next;
	}
	gone = *at;
	if (gone != NULL) {
		*at = gone->next;
		kt_watch_destroy(gone->watch);
		kt_free(gone);
	}
}

static void on_socket(int events, void *arg)
{
	const struct socket_watch *at = arg;
	struct http_trust *trust = at->trust;
	int mask = 0, running = 0;

	if (at->idle) { /* the server ended it, most likely: libcurl will see */
		unwatch(trust, at->fd);
		return;
	}
	mask |= (events & KT_LOOP_READ) != 0 ? CURL_CSELECT_IN : 0;
	mask |= (events & KT_LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0;
	mask |= (events & KT_LOOP_HANGUP) != 0 ? CURL_CSELECT_IN | CURL_CSELECT_ERR : 0;
	(void)curl_multi_socket_action(trust->multi, at->fd, mask, &running);
	http_reap(trust);
}

int http_trust_close_socket(void *arg, curl_socket_t fd)
{
	unwatch(arg, fd);
	return close(fd);
}

static void on_timer(void *arg)
{
	struct http_trust *trust = arg;
	int running = 0;

	if (trust->multi != NULL) {
		(void)curl_multi_socket_action(trust->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		http_reap(trust);
	}
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	struct http_trust *trust = arg;
	struct socket_watch *at = trust->sockets;
	int events = ((what & CURL_POLL_IN) != 0 ? KT_LOOP_READ : 0) | ((what & CURL_POLL_OUT) != 0 ? KT_LOOP_WRITE : 0);

	(void)easy;
	(void)assigned;
	while (at != NULL && at->fd != fd) {
		at = at->next;
	}
	if (what == CURL_POLL_REMOVE) {
		if (at != NULL && at->events == KT_LOOP_READ) {
			at->idle = true;
		} else { /* perhaps still connecting, and then libcurl closes it without a word */
			unwatch(trust, fd);
		}
		return 0;
	}
	if (at == NULL) {
		at = kt_calloc(1, sizeof(*at));
		if (at == NULL) {
			return -1;
		}
		at->trust = trust;
		at->fd = fd;
		at->next = trust->sockets;
		trust->sockets = at;
		if (kt_watch_create(trust->http->loop, fd, events, on_socket, at, &at->watch, NULL) != KT_OK) {
			unwatch(trust, fd);
			return -1;
		}
	} else if (kt_watch_set(at->watch, events, NULL) != KT_OK) {
		unwatch(trust, fd);
		return -1;
	}
	at->events = events;
	at->idle = false;
	return 0;
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct http_trust *trust = arg;

	(void)multi;
	if (timeout_ms < 0) {
		kt_timer_stop(trust->timer);
	} else {
		kt_timer_start(trust->timer, timeout_ms);
	}
	return 0;
}

enum kt_code http_trust_multi(struct http_trust *trust, struct kt_err *err)
{
	CURLM *multi;

	if (trust->multi != NULL) {
		return KT_OK;
	}
	multi = curl_multi_init();
	if (multi == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for connections");
	}
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, trust);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, trust);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, CONNECTIONS_HOST);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, CONNECTIONS_ALL);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_HOST);
	trust->multi = multi;
	return KT_OK;
}

/* --- the sets --------------------------------------------------------------------------------------------------- */

static void close_multi(struct http_trust *trust)
{
	kt_timer_stop(trust->timer);
	if (trust->multi != NULL) {
		curl_multi_cleanup(trust->multi);
		trust->multi = NULL;
	}
}

void http_trust_destroy(struct http_trust *trust)
{
	if (trust != NULL) {
		close_multi(trust);
		kt_timer_destroy(trust->timer);
		kt_pki_trust_destroy(trust->trust);
		if (trust->base != NULL) {
			trust->base->calls--;
			trust->base->used = now(trust->http);
		}
		kt_free(trust);
	}
}

/* caBundle is base64 in a cluster's manifests and may have been decoded on its way or not. */
static enum kt_code load(struct http_trust *trust, struct kt_view bundle, struct kt_err *err)
{
	struct kt_buf pem;
	enum kt_code code;

	if (trust->insecure) {
		return KT_OK;
	}
	if (bundle.len == 0) {
		return kt_pki_trust_create_system(&trust->trust, err);
	}
	if (memmem(bundle.ptr, bundle.len, "-----BEGIN", 10) != NULL) {
		code = kt_pki_trust_create(bundle, &trust->trust, err);
	} else {
		kt_buf_init(&pem, KT_PKI_TRUST_BYTES_MAX);
		code = kt_base64_decode(bundle, &pem, err);
		if (code == KT_OK) {
			code = kt_pki_trust_create(kt_buf_view(&pem), &trust->trust, err);
		}
		kt_buf_finish(&pem);
	}
	if (code != KT_OK && err != NULL) {
		(void)kt_err_prefix(err, "caBundle");
	}
	return code;
}

/* Makes room by forgetting the set that was used longest ago. */
static enum kt_code make_room(struct kt_http *http, bool shown, struct kt_err *err)
{
	struct http_trust **oldest = NULL;
	unsigned count = 0;

	for (struct http_trust **at = &http->trusts; *at != NULL; at = &(*at)->next) {
		if (((*at)->base != NULL) != shown) {
			continue;
		}
		count++;
		if ((*at)->calls == 0 && (oldest == NULL || (*at)->used < (*oldest)->used)) {
			oldest = at;
		}
	}
	if (count >= (shown ? KT_HTTP_CALLS_MAX : TRUST_MAX)) {
		struct http_trust *gone;

		if (oldest == NULL) {
			return kt_err_set(err, KT_E_LATER, "too many %s are in use at once",
					  shown ? "client certificates" : "CA bundles");
		}
		gone = *oldest;
		*oldest = gone->next;
		http_trust_destroy(gone);
	}
	return KT_OK;
}

/* A fresh set at the head of the list, trusting nobody yet. */
static enum kt_code add_set(struct kt_http *http, bool insecure, struct http_trust **ret, struct kt_err *err)
{
	struct http_trust *trust = kt_calloc(1, sizeof(*trust));
	enum kt_code code;

	if (trust == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a CA bundle");
	}
	trust->http = http;
	trust->insecure = insecure;
	trust->used = now(http);
	code = kt_timer_create(http->loop, on_timer, trust, &trust->timer, err);
	if (code != KT_OK) {
		http_trust_destroy(trust);
		return code;
	}
	trust->next = http->trusts;
	http->trusts = trust;
	*ret = trust;
	return KT_OK;
}

enum kt_code http_trust_get(struct kt_http *http, struct kt_view ca_bundle, bool insecure, struct http_trust **ret,
			    struct kt_err *err)
{
	uint8_t hash[KT_SHA256_LEN] = {0};
	struct http_trust *trust;
	enum kt_code code;

	if (ca_bundle.len > 0 && !insecure) {
		kt_sha256(ca_bundle.ptr, ca_bundle.len, hash);
	}
	for (trust = http->trusts; trust != NULL; trust = trust->next) {
		if (trust->base == NULL && trust->insecure == insecure &&
		    memcmp(trust->hash, hash, sizeof(hash)) == 0) {
			*ret = trust;
			return KT_OK;
		}
	}
	if (make_room(http, false, err) != KT_OK) {
		return KT_E_LATER;
	}
	code = add_set(http, insecure, &trust, err);
	if (code == KT_OK) {
		memcpy(trust->hash, hash, sizeof(hash));
		code = load(trust, ca_bundle, err);
		if (code != KT_OK) {
			http->trusts = trust->next;
			http_trust_destroy(trust);
		}
	}
	*ret = code == KT_OK ? trust : NULL;
	return code;
}

/* A set with a base stands before it in the list, always, so that it ends before it. */
enum kt_code http_trust_get_shown(struct http_trust *base, const uint8_t shown[KT_SHA256_LEN], struct http_trust **ret,
				  struct kt_err *err)
{
	struct kt_http *http = base->http;
	struct http_trust *trust;
	enum kt_code code;

	for (trust = http->trusts; trust != NULL; trust = trust->next) {
		if (trust->base == base && memcmp(trust->shown, shown, sizeof(trust->shown)) == 0) {
			*ret = trust;
			return KT_OK;
		}
	}
	base->calls++; /* holds it while room is made */
	code = make_room(http, true, err);
	if (code == KT_OK) {
		code = add_set(http, base->insecure, &trust, err);
	}
	if (code != KT_OK) {
		base->calls--;
		return code;
	}
	trust->base = base;
	memcpy(trust->shown, shown, sizeof(trust->shown));
	*ret = trust;
	return KT_OK;
}

bool http_trust_tidy(struct kt_http *http)
{
	kt_ms at = now(http);
	bool left = false;

	for (struct http_trust **link = &http->trusts; *link != NULL;) {
		struct http_trust *trust = *link;

		if (trust->calls == 0 && at - trust->used >= KEEP_CONNECTIONS) {
			close_multi(trust);
		}
		/* One for a client certificate is made again in no time, and has a certificate that may be replaced. */
		if (trust->calls == 0 && at - trust->used >= (trust->base != NULL ? KEEP_CONNECTIONS : KEEP_TRUST)) {
			*link = trust->next;
			http_trust_destroy(trust);
			continue;
		}
		left = true;
		link = &trust->next;
	}
	(void)malloc_trim(0);
	return left;
}
