/*
 * The floor for ACME: what one process with libcurl and OpenSSL needs to get certificates (ECDSA P-256, http-01) when it
 * stores nothing, checks nothing and recovers from nothing but a refused nonce.
 *
 * usage: acme_floor DIRECTORY-URL CA-FILE HTTP-PORT COUNT IN-FLIGHT
 *
 * A thread a flight, each with one connection and one nonce of its own; another thread answers the challenges. Prints one
 * line of JSON: {"count", "wall_s", "cpu_s", "requests", "connections", "peak_rss_kib"}.
 */
#include <curl/curl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BODY_MAX    65536
#define POLL_PAUSE  3000000L /* nanoseconds before the first poll; twice as long before each further one */
#define POLL_MAX    400000000L
#define POLLS_MAX   100  /* 38 s */
#define REPLY_MAX   10L  /* seconds for a request */
#define NONCE_TRIES 50

struct flight {
	CURL *easy;
	char nonce[256];
	char location[512];
	char body[BODY_MAX];
	size_t len;
};

static const char *ca_file;
static char *new_nonce, *new_account, *new_order;
static EVP_PKEY *account;
static char jwk[256], thumbprint[64], kid[512];
static atomic_long left, number, requests, connections;
static int listener;

static void die(const char *what, const char *more)
{
	(void)fprintf(stderr, "acme_floor: %s %.2000s\n", what, more);
	exit(1);
}

static void *need(void *ptr)
{
	if (ptr == NULL) {
		die("out of memory", "");
	}
	return ptr;
}

static double seconds(clockid_t which)
{
	struct timespec at;

	(void)clock_gettime(which, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* base64url, as a string of its own. */
static char *b64(const void *data, size_t len)
{
	char *out = need(malloc(len * 4 / 3 + 8));
	int n = EVP_EncodeBlock((unsigned char *)out, data, (int)len);

	while (n > 0 && out[n - 1] == '=') {
		n--;
	}
	out[n] = '\0';
	for (char *c = out; *c != '\0'; c++) {
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
	}
	return out;
}

/* --- HTTP --------------------------------------------------------------------------------------------------------- */

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
	struct flight *flight = arg;
	size_t len = size * count;
	const struct {
		const char *name;
		char *into;
		size_t max;
	} wanted[] = {{"Replay-Nonce: ", flight->nonce, sizeof(flight->nonce)},
		      {"Location: ", flight->location, sizeof(flight->location)}};

	for (size_t i = 0; i < 2; i++) {
		size_t skip = strlen(wanted[i].name);

		if (len > skip + 2 && strncasecmp(data, wanted[i].name, skip) == 0 && len - skip - 2 < wanted[i].max) {
			memcpy(wanted[i].into, data + skip, len - skip - 2);
			wanted[i].into[len - skip - 2] = '\0';
		}
	}
	return len;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct flight *flight = arg;
	size_t len = size * count;

	if (flight->len + len >= BODY_MAX) {
		return 0;
	}
	memcpy(flight->body + flight->len, data, len);
	flight->len += len;
	flight->body[flight->len] = '\0';
	return len;
}

static struct flight *flight_create(struct curl_slist *headers)
{
	struct flight *flight = need(calloc(1, sizeof(*flight)));
	CURL *easy = flight->easy = need(curl_easy_init());

	curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, REPLY_MAX);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "acme_floor");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, flight);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, flight);
	return flight;
}

static void flight_destroy(struct flight *flight)
{
	curl_easy_cleanup(flight->easy);
	free(flight);
}

/* Sends the request that is set up; the status. */
static long perform(struct flight *flight, const char *url)
{
	long status = 0, opened = 0;
	CURLcode code;

	flight->len = 0;
	flight->body[0] = '\0';
	curl_easy_setopt(flight->easy, CURLOPT_URL, url);
	code = curl_easy_perform(flight->easy);
	if (code != CURLE_OK) {
		die(url, curl_easy_strerror(code));
	}
	curl_easy_getinfo(flight->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(flight->easy, CURLINFO_NUM_CONNECTS, &opened);
	atomic_fetch_add(&requests, 1);
	atomic_fetch_add(&connections, opened);
	return status;
}

/* --- JOSE --------------------------------------------------------------------------------------------------------- */

static char *sign(const char *protected, const char *payload)
{
	unsigned char der[80], raw[64];
	const unsigned char *at = der;
	size_t len = sizeof(der), size = strlen(protected) + strlen(payload) + 2;
	char *input = need(malloc(size));
	EVP_MD_CTX *ctx = need(EVP_MD_CTX_new());
	ECDSA_SIG *sig;

	(void)snprintf(input, size, "%s.%s", protected, payload);
	if (EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, account) != 1 ||
	    EVP_DigestSign(ctx, der, &len, (const unsigned char *)input, size - 1) != 1) {
		die("can't sign", "");
	}
	sig = need(d2i_ECDSA_SIG(NULL, &at, (long)len));
	BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32);
	BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32);
	ECDSA_SIG_free(sig);
	EVP_MD_CTX_free(ctx);
	free(input);
	return b64(raw, sizeof(raw));
}

static void make_account_key(void)
{
	unsigned char point[65], hash[SHA256_DIGEST_LENGTH];
	size_t len = 0;
	char *x, *y, *print;

	account = need(EVP_EC_gen("P-256"));
	if (EVP_PKEY_get_octet_string_param(account, "encoded-pub-key", point, sizeof(point), &len) != 1) {
		die("no public key", "");
	}
	x = b64(point + 1, 32);
	y = b64(point + 33, 32);
	(void)snprintf(jwk, sizeof(jwk), "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}", x, y);
	SHA256((const unsigned char *)jwk, strlen(jwk), hash);
	print = b64(hash, sizeof(hash));
	(void)snprintf(thumbprint, sizeof(thumbprint), "%s", print);
	free(x);
	free(y);
	free(print);
}

static long post(struct flight *flight, const char *url, const char *payload)
{
	char header[1024], *protected, *body64 = b64(payload, strlen(payload)), *signature, *body;
	size_t size;
	long status = 0;

	for (int i = 0; i < NONCE_TRIES; i++) {
		if (kid[0] == '\0') {
			(void)snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"jwk\":%s,\"nonce\":\"%s\",\"url\":\"%s\"}", jwk,
				       flight->nonce, url);
		} else {
			(void)snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"kid\":\"%s\",\"nonce\":\"%s\",\"url\":\"%s\"}",
				       kid, flight->nonce, url);
		}
		protected = b64(header, strlen(header));
		signature = sign(protected, body64);
		size = strlen(protected) + strlen(body64) + strlen(signature) + 64;
		body = need(malloc(size));
		(void)snprintf(body, size, "{\"protected\":\"%s\",\"payload\":\"%s\",\"signature\":\"%s\"}", protected, body64,
			       signature);
		curl_easy_setopt(flight->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(flight->easy, CURLOPT_POSTFIELDS, body);
		status = perform(flight, url);
		free(protected);
		free(signature);
		free(body);
		if (status != 400 || strstr(flight->body, "badNonce") == NULL) {
			break;
		}
	}
	free(body64);
	if (status >= 300) {
		die(url, flight->body);
	}
	return status;
}

/* --- an order ------------------------------------------------------------------------------------------------------ */

static char *member(struct flight *flight, const char *name)
{
	json_t *object = json_loadb(flight->body, flight->len, 0, NULL);
	json_t *value = json_object_get(object, name);
	char *copy;

	if (json_is_array(value)) {
		value = json_array_get(value, 0);
	}
	if (!json_is_string(value)) {
		die(name, flight->body);
	}
	copy = need(strdup(json_string_value(value)));
	json_decref(object);
	return copy;
}

static char *http_challenge(struct flight *flight)
{
	json_t *object = json_loadb(flight->body, flight->len, 0, NULL), *one;
	char *url = NULL;
	size_t i;

	json_array_foreach(json_object_get(object, "challenges"), i, one) {
		const char *type = json_string_value(json_object_get(one, "type"));

		if (type != NULL && strcmp(type, "http-01") == 0) {
			url = strdup(json_string_value(json_object_get(one, "url")));
		}
	}
	json_decref(object);
	return need(url);
}

static char *make_csr(const char *name)
{
	EVP_PKEY *key = need(EVP_EC_gen("P-256"));
	X509_REQ *csr = need(X509_REQ_new());
	STACK_OF(X509_EXTENSION) *list = need(sk_X509_EXTENSION_new_null());
	GENERAL_NAMES *names = need(GENERAL_NAMES_new());
	GENERAL_NAME *dns = need(GENERAL_NAME_new());
	ASN1_IA5STRING *text = need(ASN1_IA5STRING_new());
	unsigned char *der = NULL;
	char *out;
	int len;

	ASN1_STRING_set(text, name, -1);
	GENERAL_NAME_set0_value(dns, GEN_DNS, text);
	sk_GENERAL_NAME_push(names, dns);
	sk_X509_EXTENSION_push(list, need(X509V3_EXT_i2d(NID_subject_alt_name, 0, names)));
	X509_REQ_set_pubkey(csr, key);
	X509_REQ_add_extensions(csr, list);
	X509_REQ_sign(csr, key, EVP_sha256());
	len = i2d_X509_REQ(csr, &der);
	out = b64(der, (size_t)len);
	OPENSSL_free(der);
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	X509_REQ_free(csr);
	EVP_PKEY_free(key);
	return out;
}

/* Polls the order until it has this status. */
static void wait_for(struct flight *flight, const char *url, const char *wanted, bool known)
{
	struct timespec pause = {.tv_nsec = POLL_PAUSE};

	for (int i = 0; i < POLLS_MAX; i++) {
		char *status;
		bool good;

		if (!known) {
			(void)nanosleep(&pause, NULL);
			pause.tv_nsec = pause.tv_nsec * 2 > POLL_MAX ? POLL_MAX : pause.tv_nsec * 2;
			post(flight, url, "");
		}
		known = false;
		status = member(flight, "status");
		good = strcmp(status, wanted) == 0;
		if (strcmp(status, "invalid") == 0) {
			die("invalid:", flight->body);
		}
		free(status);
		if (good) {
			return;
		}
	}
	die("never:", flight->body);
}

static void one(struct flight *flight)
{
	char name[64], payload[2048], *authz, *finalize, *challenge, *csr, *cert, *order;

	(void)snprintf(name, sizeof(name), "floor-%ld.example", atomic_fetch_add(&number, 1));
	(void)snprintf(payload, sizeof(payload), "{\"identifiers\":[{\"type\":\"dns\",\"value\":\"%s\"}]}", name);
	post(flight, new_order, payload);
	order = need(strdup(flight->location));
	authz = member(flight, "authorizations");
	finalize = member(flight, "finalize");
	post(flight, authz, "");
	challenge = http_challenge(flight);
	post(flight, challenge, "{}");
	wait_for(flight, order, "ready", false);
	csr = make_csr(name);
	(void)snprintf(payload, sizeof(payload), "{\"csr\":\"%s\"}", csr);
	post(flight, finalize, payload);
	wait_for(flight, order, "valid", true);
	cert = member(flight, "certificate");
	post(flight, cert, "");
	if (strstr(flight->body, "-----BEGIN CERTIFICATE") == NULL) {
		die("no certificate:", flight->body);
	}
	free(authz);
	free(finalize);
	free(challenge);
	free(csr);
	free(cert);
	free(order);
}

static void *fly(void *arg)
{
	struct flight *flight = arg;

	if (flight->nonce[0] == '\0') {
		curl_easy_setopt(flight->easy, CURLOPT_NOBODY, 1L);
		perform(flight, new_nonce);
		curl_easy_setopt(flight->easy, CURLOPT_NOBODY, 0L);
	}
	while (atomic_fetch_sub(&left, 1) > 0) {
		one(flight);
	}
	flight_destroy(flight);
	return NULL;
}

/* --- the challenges ------------------------------------------------------------------------------------------------- */

static void *serve(void *arg)
{
	char in[2048], out[4096], *token, *end;

	(void)arg;
	for (;;) {
		struct timeval patience = {.tv_sec = 1};
		int fd = accept(listener, NULL, NULL);
		int set = fd >= 0 ? setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) : -1;
		ssize_t len = set == 0 ? recv(fd, in, sizeof(in) - 1, 0) : 0;

		if (len > 0) {
			in[len] = '\0';
			token = strstr(in, "acme-challenge/");
			end = token == NULL ? NULL : strchr(token, ' ');
			if (end != NULL) {
				*end = '\0';
				token += strlen("acme-challenge/");
				(void)snprintf(out, sizeof(out),
					       "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s.%s",
					       strlen(token) + strlen(thumbprint) + 1, token, thumbprint);
				(void)send(fd, out, strlen(out), MSG_NOSIGNAL);
			}
		}
		if (fd >= 0) {
			(void)close(fd);
		}
	}
	return NULL;
}

static void listen_at(const char *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int on = 1;

	at.sin_port = htons((in_port_t)strtoul(port, NULL, 10));
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 256) != 0) {
		die("can't listen on", port);
	}
}

/* The largest resident size so far, in KiB. (getrusage would count the parent's before exec.) */
static long peak_rss(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[128];
	long kib = 0;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (strncmp(line, "VmHWM:", 6) == 0) {
			kib = strtol(line + 6, NULL, 10);
		}
	}
	if (file != NULL) {
		(void)fclose(file);
	}
	return kib;
}

static struct flight *begin(const char *directory, struct curl_slist *headers)
{
	struct flight *first = flight_create(headers);

	perform(first, directory);
	new_nonce = member(first, "newNonce");
	new_account = member(first, "newAccount");
	new_order = member(first, "newOrder");
	curl_easy_setopt(first->easy, CURLOPT_NOBODY, 1L);
	perform(first, new_nonce);
	curl_easy_setopt(first->easy, CURLOPT_NOBODY, 0L);
	post(first, new_account, "{\"termsOfServiceAgreed\":true}");
	(void)snprintf(kid, sizeof(kid), "%s", first->location);
	return first;
}

int main(int argc, char **argv)
{
	struct curl_slist *headers = NULL;
	struct flight *first;
	pthread_t server, *threads;
	long count, flights;
	double began, wall, cpu;

	if (argc != 6) {
		(void)fprintf(stderr, "usage: acme_floor DIRECTORY-URL CA-FILE HTTP-PORT COUNT IN-FLIGHT\n");
		return 2;
	}
	ca_file = argv[2];
	count = strtol(argv[4], NULL, 10);
	flights = strtol(argv[5], NULL, 10);
	if (count < 1 || flights < 1 || flights > 256) {
		die("COUNT and IN-FLIGHT (at most 256)", "must be positive");
	}
	curl_global_init(CURL_GLOBAL_DEFAULT);
	headers = need(curl_slist_append(curl_slist_append(headers, "Content-Type: application/jose+json"), "Expect:"));
	listen_at(argv[3]);
	make_account_key();
	pthread_create(&server, NULL, serve, NULL);
	/* The account exists before the clock starts: what is measured are orders. */
	first = begin(argv[1], headers);
	atomic_store(&requests, 0);
	atomic_store(&left, count);
	threads = need(calloc((size_t)flights, sizeof(*threads)));
	began = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	for (long i = 0; i < flights; i++) {
		pthread_create(&threads[i], NULL, fly, i == 0 ? first : flight_create(headers));
	}
	for (long i = 0; i < flights; i++) {
		pthread_join(threads[i], NULL);
	}
	wall = seconds(CLOCK_MONOTONIC) - began;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("{\"count\": %ld, \"wall_s\": %.4f, \"cpu_s\": %.4f, \"requests\": %ld, \"connections\": %ld, "
	       "\"peak_rss_kib\": %ld}\n",
	       count, wall, cpu, atomic_load(&requests), atomic_load(&connections), peak_rss());
	return 0;
}
