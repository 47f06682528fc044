/* One HTTP request: its easy handle, the limits on what comes back, and what libcurl's verdict means. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "courier/http_internal.h"
#include "kt/mem.h"
#include "kt/msg.h"
#include "kt/text.h"

#define LOW_SPEED_BYTES 16L /* a second */
#define LOW_SPEED_TIME  10L /* seconds: a server may think for as long as a request may last */

static const char *const wanted[KT_HTTP_HEADER_COUNT] = {
	[KT_HTTP_CONTENT_TYPE] = "Content-Type",
	[KT_HTTP_LOCATION] = "Location",
	[KT_HTTP_REPLAY_NONCE] = "Replay-Nonce",
	[KT_HTTP_RETRY_AFTER] = "Retry-After",
	[KT_HTTP_DATE] = "Date",
	[KT_HTTP_LINK] = "Link",
	[KT_HTTP_DPOP_NONCE] = "DPoP-Nonce",
	[KT_HTTP_RATE_RESET] = "X-RateLimit-Reset",
	[KT_HTTP_RATE_RESET_OKTA] = "X-Rate-Limit-Reset",
};

/* --- what comes back -------------------------------------------------------------------------------------------- */

static size_t broken(struct kt_http_call *call, enum kt_code code, const char *what)
{
	if (call->broken.code == KT_OK) {
		(void)kt_err_set(&call->broken, code, "%s", what);
	}
	return 0; /* fewer bytes than offered ends the transfer */
}

static void forget_headers(struct kt_http_call *call)
{
	for (unsigned i = 0; i < KT_HTTP_HEADER_COUNT; i++) {
		kt_free(call->found[i]);
		call->found[i] = NULL;
	}
	call->content_length = -1;
	call->chunked = false;
}

/* Appends another line of a header that may come more than once; without memory it is left out. */
static void join(char **text, struct kt_view value)
{
	size_t len = strlen(*text), size = len + value.len + 3;
	char *both = kt_malloc(size);

	if (both != NULL) {
		(void)snprintf(both, size, "%s, %.*s", *text, (int)value.len, value.ptr);
		kt_free(*text);
		*text = both;
	}
}

/* Judges one header; NULL, or why the answer is refused. */
static const char *take_header(struct kt_http_call *call, struct kt_view name, struct kt_view value)
{
	if (kt_ascii_ieq(name, KT_VIEW_LIT("Content-Encoding")) && !kt_ascii_ieq(value, KT_VIEW_LIT("identity"))) {
		return "the server compressed its answer although nobody asked for it";
	}
	if (kt_ascii_ieq(name, KT_VIEW_LIT("Content-Length"))) {
		int64_t length;

		if (kt_parse_i64(value, 0, INT64_MAX, &length, NULL) != KT_OK ||
		    (call->content_length >= 0 && call->content_length != length)) {
			return "the server sent a Content-Length that makes no sense";
		}
		call->content_length = length;
		if ((uint64_t)length > call->answer.max && strcmp(call->method, "HEAD") != 0) {
			return "the answer is larger than allowed";
		}
	}
	if (kt_ascii_ieq(name, KT_VIEW_LIT("Transfer-Encoding"))) {
		/* libcurl unpacks what it was never told to ask for, and takes "identity" as an answer without an end. */
		if (!kt_ascii_ieq(value, KT_VIEW_LIT("chunked"))) {
			return "the server sent a Transfer-Encoding other than chunked";
		}
		call->chunked = true;
	}
	for (unsigned i = 0; i < KT_HTTP_HEADER_COUNT; i++) {
		if (!kt_ascii_ieq(name, kt_view_str(wanted[i]))) {
			continue;
		}
		if (call->found[i] != NULL) {
			if (i == KT_HTTP_LINK) {
				join(&call->found[i], value);
				continue;
			}
			if (i == KT_HTTP_LOCATION || i == KT_HTTP_REPLAY_NONCE || i == KT_HTTP_CONTENT_TYPE ||
			    i == KT_HTTP_DPOP_NONCE) {
				return "the server sent a header twice that may come once";
			}
			continue;
		}
		call->found[i] = kt_strndup(value.len > 0 ? value.ptr : "", value.len);
	}
	return NULL;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
	struct kt_http_call *call = arg;
	size_t len = size * count, end = len;
	struct kt_view name, value;
	const char *colon, *why;

	if (++call->header_count > KT_HTTP_HEADERS_MAX || (call->header_bytes += len) > KT_HTTP_HEADER_BYTES) {
		return broken(call, KT_E_LIMIT, "the server sent more headers than allowed");
	}
	while (end > 0 && (data[end - 1] == '\n' || data[end - 1] == '\r')) {
		end--;
	}
	for (size_t i = 0; i < end; i++) {
		if ((data[i] < ' ' && data[i] != '\t') || data[i] == 0x7f) {
			return broken(call, KT_E_PROTO, "the server sent a header with control characters");
		}
	}
	if (end >= 5 && memcmp(data, "HTTP/", 5) == 0) {
		forget_headers(call); /* what came with a 1xx doesn't count */
		return len;
	}
	colon = memchr(data, ':', end);
	if (colon == NULL) {
		return len;
	}
	name = (struct kt_view){data, (size_t)(colon - data)};
	value = (struct kt_view){colon + 1, end - name.len - 1};
	while (value.len > 0 && (value.ptr[0] == ' ' || value.ptr[0] == '\t')) {
		value.ptr++;
		value.len--;
	}
	while (value.len > 0 && (value.ptr[value.len - 1] == ' ' || value.ptr[value.len - 1] == '\t')) {
		value.len--;
	}
	why = take_header(call, name, value);
	return why == NULL ? len : broken(call, KT_E_PROTO, why);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct kt_http_call *call = arg;

	kt_buf_add(&call->answer, data, size * count);
	if (call->answer.failed != KT_OK) {
		return broken(call, call->answer.failed, "the answer is larger than allowed");
	}
	return size * count;
}

/*
 * An answer whose length only the end of the connection tells is whole only if TLS says so (close_notify), and libcurl
 * forgives an end without it: somebody on the way can cut such an answer.
 */
void http_call_check(struct kt_http_call *call)
{
	long version = CURL_HTTP_VERSION_NONE;

	(void)curl_easy_getinfo(call->easy, CURLINFO_HTTP_VERSION, &version);
	if (version >= CURL_HTTP_VERSION_2_0) {
		return; /* its frames say where an answer ends */
	}
	if (call->url.https && call->answer.len > 0 && call->content_length < 0 && !call->chunked) {
		(void)broken(call, KT_E_PROTO, "the answer does not say how long it is, so it may have been cut");
	}
}

/* Epoch seconds, as both headers are documented; what can't be an epoch (a day in 1973 at most) counts from now. */
static int64_t reset_to_seconds(const char *value, kt_ms wall)
{
	int64_t at;

	if (value == NULL || kt_parse_i64(kt_view_str(value), 0, INT64_MAX / 1000, &at, NULL) != KT_OK) {
		return 0;
	}
	at -= at < 100000000 ? 0 : wall / KT_SECOND;
	return at < 1 ? 1 : at > 86400 ? 86400 : at;
}

void http_call_reply(struct kt_http_call *call, struct kt_http_reply *ret)
{
	kt_ms wall = kt_clock_wall(kt_loop_clock(call->http->loop)), date;

	memset(ret, 0, sizeof(*ret));
	(void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &ret->status);
	ret->body = kt_buf_view(&call->answer);
	for (unsigned i = 0; i < KT_HTTP_HEADER_COUNT; i++) {
		ret->headers[i] = call->found[i];
	}
	if (ret->headers[KT_HTTP_DATE] != NULL &&
	    kt_time_parse_http(kt_view_str(ret->headers[KT_HTTP_DATE]), &date, NULL) == KT_OK) {
		ret->date_skew = (date - wall) / KT_SECOND;
		wall = date;
	}
	if (ret->headers[KT_HTTP_RETRY_AFTER] != NULL) {
		ret->retry_after = kt_retry_after(kt_view_str(ret->headers[KT_HTTP_RETRY_AFTER]), wall);
	}
	for (unsigned i = KT_HTTP_RATE_RESET; i <= KT_HTTP_RATE_RESET_OKTA && ret->retry_after == 0; i++) {
		ret->retry_after = reset_to_seconds(ret->headers[i], wall);
	}
}

/* Which fault of the server's certificate it was: another thing has to be mended for each. */
static const char *certificate_problem(struct kt_http_call *call)
{
	long result = X509_V_OK;

	(void)curl_easy_getinfo(call->easy, CURLINFO_SSL_VERIFYRESULT, &result);
	switch (result) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return "serverCertificateExpired";
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return "serverCertificateNotYetValid";
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return "serverCertificateName";
	default: /* libcurl looks at the name by itself, and says so in its text only */
		return strstr(call->curl_error, "subject name") != NULL ? "serverCertificateName" : "serverCertificateUntrusted";
	}
}

/* What the failure means to whoever retries, and the sentence for people. */
void http_call_error(struct kt_http_call *call, CURLcode result, struct kt_err *err)
{
	const char *detail = call->curl_error[0] != '\0' ? call->curl_error : curl_easy_strerror(result);
	enum kt_code code = KT_E_NET;

	if (call->broken.code != KT_OK) {
		*err = call->broken;
		(void)kt_err_prefix(err, "%s %.300s", call->method, call->url_text);
		return;
	}
	switch (result) {
	case CURLE_OPERATION_TIMEDOUT:
		code = KT_E_TIMEOUT;
		break;
	case CURLE_OUT_OF_MEMORY:
		code = KT_E_NOMEM;
		if (call->header_count > 0 && call->answer.len == 0) {
			code = KT_E_LIMIT; /* libcurl says the same of a header line above its limit */
			detail = "a header line is too long, or memory ran out";
		}
		break;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_BAD_CONTENT_ENCODING:
		code = KT_E_PROTO;
		break;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
		code = KT_E_CRYPTO;
		break;
	case CURLE_URL_MALFORMAT:
		code = KT_E_INVALID;
		break;
	default:
		break;
	}
	(void)kt_err_set(err, code, "%s %.300s: %s", call->method, call->url_text, detail);
	if (code == KT_E_CRYPTO) {
		(void)snprintf(err->problem_type, sizeof(err->problem_type), "%s", certificate_problem(call));
	}
}

/* --- what goes out ----------------------------------------------------------------------------------------------- */

static bool header_text_ok(struct kt_view text)
{
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f) {
			return false;
		}
	}
	return true;
}

static enum kt_code add_header(struct kt_http_call *call, const char *name, const char *prefix, struct kt_view value,
			       struct kt_err *err)
{
	struct curl_slist *longer = NULL;
	struct kt_buf line;

	if (!header_text_ok(value) || !header_text_ok(kt_view_str(prefix)) || !header_text_ok(kt_view_str(name)) ||
	    name[0] == '\0' || strpbrk(name, ": ") != NULL) {
		return kt_err_set(err, KT_E_INVALID, "a header to be sent to %.200s has a bad name or value",
				  call->url_text);
	}
	kt_buf_init(&line, 128u * 1024u);
	kt_buf_adds(&line, name);
	/* libcurl reads "Name:" as "leave it out" and "Name;" as "send it empty". */
	kt_buf_adds(&line, ": ");
	kt_buf_adds(&line, prefix);
	kt_buf_addv(&line, value);
	if (line.failed == KT_OK) {
		longer = curl_slist_append(call->headers, line.ptr);
	}
	kt_buf_finish(&line);
	if (longer == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a request");
	}
	call->headers = longer;
	return KT_OK;
}

static enum kt_code add_lines(struct kt_http_call *call, struct kt_view lines, struct kt_err *err)
{
	enum kt_code code = KT_OK;

	while (code == KT_OK && lines.len > 0) {
		const char *end = memchr(lines.ptr, '\n', lines.len);
		size_t len = end == NULL ? lines.len : (size_t)(end - lines.ptr);
		const char *mark = memmem(lines.ptr, len, ": ", 2);
		size_t name_len = mark == NULL ? 0 : (size_t)(mark - lines.ptr);
		char name[64];

		if (end == NULL || name_len == 0 || name_len >= sizeof(name)) {
			return kt_err_set(err, KT_E_INVALID, "the headers to be sent to %.200s are no lines", call->url_text);
		}
		memcpy(name, lines.ptr, name_len);
		name[name_len] = '\0';
		code = add_header(call, name, "", (struct kt_view){mark + 2, len - name_len - 2}, err);
		lines.ptr += len + 1;
		lines.len -= len + 1;
	}
	return code;
}

static enum kt_code add_headers(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err)
{
	struct curl_slist *first = curl_slist_append(NULL, "Expect:");
	enum kt_code code = first == NULL ? kt_err_set(err, KT_E_NOMEM, "out of memory for a request") : KT_OK;

	call->headers = first;
	if (code == KT_OK && request->accept == NULL) {
		code = add_header(call, "Accept", "", KT_VIEW_LIT("*/*"), err);
	} else if (code == KT_OK) {
		code = add_header(call, "Accept", "", kt_view_str(request->accept), err);
	}
	if (code == KT_OK && request->content_type != NULL) {
		code = add_header(call, "Content-Type", "", kt_view_str(request->content_type), err);
	}
	if (code == KT_OK && request->traceparent.len > 0) {
		code = add_header(call, "traceparent", "", request->traceparent, err);
	}
	if (code == KT_OK && request->header_name != NULL) {
		code = add_header(call, request->header_name,
				  request->header_prefix == NULL ? "" : request->header_prefix, request->header_value,
				  err);
	}
	if (code == KT_OK && request->extra_name != NULL) {
		code = add_header(call, request->extra_name, "", request->extra_value, err);
	}
	if (code == KT_OK) {
		code = add_lines(call, request->header_lines, err);
	}
	return code;
}

/*
 * Requests that share an HTTP/2 connection: not with libcurl 7.88 (Debian 12), where under load one got the answer to
 * another (seen with Pebble: an authorization for a name that nobody asked for).
 */
static bool can_multiplex(void)
{
	return curl_version_info(CURLVERSION_NOW)->version_num >= 0x080100;
}

static void set_limits(struct kt_http_call *call, bool http2)
{
	CURL *easy = call->easy;

	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, call->url.https ? "https" : "http");
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)(http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, http2 ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, NULL);
	curl_easy_setopt(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
	curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)KT_HTTP_CONNECT_TIMEOUT);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_BYTES);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, LOW_SPEED_TIME);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 16384L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 16384L); /* nobody sends more, and each is cleared */
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, http2 ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, call->trust->insecure ? 0L : 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, call->trust->insecure ? 0L : 2L);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, http_trust_apply);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, call);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, http_trust_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, call->trust);
}

enum kt_code http_call_prepare(struct kt_http_call *call, const struct kt_http_request *request, struct kt_err *err)
{
	CURL *easy;

	if (strlen(request->method) >= sizeof(call->method)) {
		return kt_err_set(err, KT_E_INVALID, "the method of a request is too long");
	}
	memcpy(call->method, request->method, strlen(request->method) + 1);
	call->content_length = -1;
	kt_buf_init(&call->answer, request->body_max > 0 ? request->body_max : KT_HTTP_BODY_MAX);
	kt_buf_init(&call->body, 192u * 1024u);
	kt_buf_addv(&call->body, request->body);
	call->has_body = request->body.len > 0 || strcmp(call->method, "POST") == 0 || strcmp(call->method, "PUT") == 0;
	easy = call->easy = curl_easy_init();
	if (easy == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a request");
	}
	if (add_headers(call, request, err) != KT_OK || kt_buf_check(&call->body, "a request", err) != KT_OK) {
		return err != NULL ? err->code : KT_E_NOMEM;
	}
	set_limits(call, request->http2 && can_multiplex());
	curl_easy_setopt(call->easy, CURLOPT_FRESH_CONNECT, request->once ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_URL, call->url_text);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	if (request->sigv4 != NULL) {
		curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, request->sigv4);
		curl_easy_setopt(easy, CURLOPT_USERNAME, request->sigv4_id);
		curl_easy_setopt(easy, CURLOPT_PASSWORD, request->sigv4_secret.ptr);
	}
	if (strcmp(call->method, "HEAD") == 0) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (call->has_body) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body.len > 0 ? call->body.ptr : "");
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
	} else {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
	}
	return KT_OK;
}

/* "host:port:address,[address],…": libcurl then never looks anything up by itself. */
enum kt_code http_call_pin(struct kt_http_call *call, const struct kt_addresses *addresses, struct kt_err *err)
{
	char text[INET6_ADDRSTRLEN];
	struct kt_buf pin;
	kt_ms left = call->timeout - (kt_clock_mono(kt_loop_clock(call->http->loop)) - call->started);

	curl_easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, (long)(left > 1 ? left : 1));
	if (call->url.numeric) {
		return KT_OK;
	}
	kt_buf_init(&pin, 2048);
	kt_buf_addf(&pin, "%s:%u:", call->url.host, call->url.port);
	for (unsigned i = 0; i < addresses->count; i++) {
		const struct sockaddr_storage *at = &addresses->at[i];
		const void *raw = at->ss_family == AF_INET
					  ? (const void *)&((const struct sockaddr_in *)at)->sin_addr
					  : (const void *)&((const struct sockaddr_in6 *)at)->sin6_addr;

		if (inet_ntop(at->ss_family, raw, text, sizeof(text)) != NULL) {
			kt_buf_addf(&pin, at->ss_family == AF_INET6 ? "%s[%s]" : "%s%s", i > 0 ? "," : "", text);
		}
	}
	call->pins = pin.failed == KT_OK ? curl_slist_append(NULL, pin.ptr) : NULL;
	kt_buf_finish(&pin);
	if (call->pins == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a request");
	}
	curl_easy_setopt(call->easy, CURLOPT_RESOLVE, call->pins);
	return KT_OK;
}

void http_call_destroy(struct kt_http_call *call)
{
	if (call == NULL) {
		return;
	}
	kt_resolve_cancel(call->lookup);
	http_cert_forget(call);
	if (call->easy != NULL) {
		curl_easy_cleanup(call->easy);
	}
	curl_slist_free_all(call->headers);
	curl_slist_free_all(call->pins);
	kt_buf_finish(&call->body);
	kt_buf_finish(&call->answer);
	forget_headers(call);
	kt_free(call->url_text);
	kt_free(call);
}
