/*
 * The floor for tokens: what one process with libcurl needs to ask for them (client_credentials, client_secret_basic)
 * when it stores nothing and checks nothing but that a token came.
 *
 * usage: token_floor TOKEN-URL CA-FILE CLIENT-ID:SECRET COUNT IN-FLIGHT PREFIX
 *
 * A thread a flight, each with one connection. The resource is PREFIX and a number. Prints one line of JSON:
 * {"count", "wall_s", "cpu_s"}.
 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_MAX  65536
#define REPLY_MAX 30L /* seconds for a request */

struct flight {
	CURL *easy;
	size_t len;
	char body[BODY_MAX];
};

static char **args;
static atomic_long left, number;

static void die(const char *what, const char *more)
{
	(void)fprintf(stderr, "token_floor: %s %.2000s\n", what, more);
	exit(1);
}

static double seconds(clockid_t which)
{
	struct timespec at;

	(void)clock_gettime(which, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
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

static void ask(struct flight *flight, long which)
{
	char form[512];
	long status = 0;
	CURLcode result;

	(void)snprintf(form, sizeof(form), "grant_type=client_credentials&scope=pay.write&resource=%s%ld", args[6],
		       which);
	flight->len = 0;
	flight->body[0] = '\0';
	(void)curl_easy_setopt(flight->easy, CURLOPT_COPYPOSTFIELDS, form);
	result = curl_easy_perform(flight->easy);
	if (result != CURLE_OK) {
		die("asking:", curl_easy_strerror(result));
	}
	(void)curl_easy_getinfo(flight->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 || strstr(flight->body, "\"access_token\"") == NULL) {
		die("no token:", flight->body);
	}
}

static void *fly(void *arg)
{
	struct flight *flight = arg;

	flight->easy = curl_easy_init();
	if (flight->easy == NULL) {
		die("out of memory", "");
	}
	(void)curl_easy_setopt(flight->easy, CURLOPT_URL, args[1]);
	(void)curl_easy_setopt(flight->easy, CURLOPT_CAINFO, args[2]);
	(void)curl_easy_setopt(flight->easy, CURLOPT_USERPWD, args[3]);
	(void)curl_easy_setopt(flight->easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
	(void)curl_easy_setopt(flight->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(flight->easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(flight->easy, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(flight->easy, CURLOPT_TIMEOUT, REPLY_MAX);
	(void)curl_easy_setopt(flight->easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(flight->easy, CURLOPT_WRITEDATA, flight);
	while (atomic_fetch_sub(&left, 1) > 0) {
		ask(flight, atomic_fetch_add(&number, 1));
	}
	curl_easy_cleanup(flight->easy);
	free(flight);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	long count, flights;
	double began = seconds(CLOCK_MONOTONIC);

	if (argc != 7) {
		(void)fprintf(stderr, "usage: token_floor TOKEN-URL CA-FILE CLIENT-ID:SECRET COUNT IN-FLIGHT PREFIX\n");
		return 2;
	}
	args = argv;
	count = strtol(argv[4], NULL, 10);
	flights = strtol(argv[5], NULL, 10);
	if (flights < 1 || flights > 64 || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
		die("bad arguments", "");
	}
	atomic_store(&left, count);
	for (long i = 0; i < flights; i++) {
		struct flight *flight = calloc(1, sizeof(*flight));

		if (flight == NULL || pthread_create(&threads[i], NULL, fly, flight) != 0) {
			die("no thread", "");
		}
	}
	for (long i = 0; i < flights; i++) {
		(void)pthread_join(threads[i], NULL);
	}
	(void)printf("{\"count\": %ld, \"wall_s\": %.4f, \"cpu_s\": %.4f}\n", count, seconds(CLOCK_MONOTONIC) - began,
		     seconds(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
