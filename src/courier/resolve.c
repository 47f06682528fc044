/* Names to addresses: getaddrinfo on a pool thread (libcurl's own resolver would start threads and block the loop). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <uv.h>

#include "courier/resolve.h"
#include "courier/url.h"
#include "kt/log.h"
#include "kt/mem.h"

#define CACHE_MAX   16u
#define CACHE_FOR   (30 * KT_SECOND)
#define QUERIES_MAX 32u

struct answer {
	char host[256];
	kt_ms until;
	struct kt_addresses addresses;
};

/* One getaddrinfo under way. It outlives its resolver: the pool can't be interrupted. */
struct query {
	uv_getaddrinfo_t req;
	struct kt_resolver *resolver; /* NULL: nobody waits any more */
	struct query *next;
	char host[256];
};

struct kt_lookup {
	struct kt_resolver *resolver;
	struct kt_lookup *next;
	struct kt_timer *timer;
	kt_resolved_fn *fn;
	void *arg;
	bool allow_local;
	bool ready; /* answered without a query */
	struct kt_addresses addresses;
	char host[256];
};

struct kt_resolver {
	struct kt_loop *loop;
	struct query *queries;
	unsigned query_count;
	struct kt_lookup *lookups;
	struct answer *cache; /* CACHE_MAX, made at first use */
	bool had_config;      /* resolv.conf could be read before the walls closed */
};

#define CONFIG "/etc/resolv.conf"

static bool can_read_config(void)
{
	KT_AUTOCLOSE int fd = open(CONFIG, O_RDONLY | O_CLOEXEC);

	return fd >= 0 || errno != EACCES;
}

/*
 * Landlock admits files, not names: a resolv.conf that was replaced since is out of reach, and walls can't be moved.
 * Only a fresh room sees it, so this one ends and the warden starts another.
 */
static void check_config(struct kt_resolver *resolver)
{
	if (resolver->had_config && !can_read_config()) {
		kt_log(KT_LOG_WARN, CONFIG " was replaced: starting anew to read it");
		kt_loop_stop(resolver->loop);
	}
}

static kt_ms now(const struct kt_resolver *resolver)
{
	return kt_clock_mono(kt_loop_clock(resolver->loop));
}

enum kt_code kt_resolver_create(struct kt_loop *loop, struct kt_resolver **ret, struct kt_err *err)
{
	*ret = kt_calloc(1, sizeof(**ret));
	if (*ret == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for the resolver");
	}
	(*ret)->loop = loop;
	(*ret)->had_config = can_read_config();
	return KT_OK;
}

bool kt_resolver_busy(const struct kt_resolver *resolver)
{
	return resolver->queries != NULL;
}

void kt_resolver_destroy(struct kt_resolver *resolver)
{
	if (resolver == NULL) {
		return;
	}
	for (struct query *query = resolver->queries; query != NULL; query = query->next) {
		query->resolver = NULL;
		(void)uv_cancel((uv_req_t *)&query->req);
	}
	kt_free(resolver->cache);
	kt_free(resolver);
}

void kt_resolve_cancel(struct kt_lookup *lookup)
{
	struct kt_lookup **at;

	if (lookup == NULL) {
		return;
	}
	for (at = &lookup->resolver->lookups; *at != NULL && *at != lookup;) {
		at = &(*at)->next;
	}
	if (*at != NULL) {
		*at = lookup->next;
	}
	kt_timer_destroy(lookup->timer);
	kt_free(lookup);
}

/* Takes the look-up off the list and tells its owner. */
static void finish(struct kt_lookup *lookup, const struct kt_err *err, const struct kt_addresses *addresses)
{
	kt_resolved_fn *fn = lookup->fn;
	void *arg = lookup->arg;

	kt_resolve_cancel(lookup);
	fn(err, addresses, arg);
}

static void judge(struct kt_lookup *lookup, const struct kt_addresses *addresses)
{
	struct kt_addresses copy = *addresses;
	struct kt_err err;

	kt_err_clear(&err);
	for (unsigned i = 0; i < copy.count && err.code == KT_OK; i++) {
		enum kt_reach reach = kt_reach_of_address((struct sockaddr *)&copy.at[i]);

		if (reach == KT_REACH_NONE || (reach != KT_REACH_ANY && !lookup->allow_local)) {
			(void)kt_err_set(&err, KT_E_POLICY,
					 "'%s' resolves to a %s address, which only a manifest that names it may do",
					 lookup->host,
					 reach == KT_REACH_LOOPBACK ? "loopback"
					 : reach == KT_REACH_LINK   ? "link-local"
								    : "wildcard or multicast");
		}
	}
	finish(lookup, &err, err.code == KT_OK ? &copy : NULL);
}

static void on_timer(void *arg)
{
	struct kt_lookup *lookup = arg;
	struct kt_err err;

	if (lookup->ready) {
		judge(lookup, &lookup->addresses);
		return;
	}
	(void)kt_err_set(&err, KT_E_TIMEOUT, "looking up '%s': the name servers did not answer in time", lookup->host);
	finish(lookup, &err, NULL);
}

static void keep_answer(struct kt_resolver *resolver, const char *host, const struct kt_addresses *addresses)
{
	struct answer *oldest;

	if (resolver->cache == NULL) {
		resolver->cache = kt_calloc(CACHE_MAX, sizeof(*resolver->cache));
		if (resolver->cache == NULL) {
			return;
		}
	}
	oldest = &resolver->cache[0];
	for (unsigned i = 0; i < CACHE_MAX; i++) {
		if (strcmp(resolver->cache[i].host, host) == 0) {
			oldest = &resolver->cache[i];
			break;
		}
		if (resolver->cache[i].until < oldest->until) {
			oldest = &resolver->cache[i];
		}
	}
	memcpy(oldest->host, host, strlen(host) + 1);
	oldest->addresses = *addresses;
	oldest->until = now(resolver) + CACHE_FOR;
}

static void collect(const struct addrinfo *list, struct kt_addresses *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (; list != NULL && ret->count < KT_RESOLVE_MAX; list = list->ai_next) {
		if ((list->ai_family == AF_INET || list->ai_family == AF_INET6) &&
		    list->ai_addrlen <= sizeof(ret->at[0])) {
			memcpy(&ret->at[ret->count++], list->ai_addr, list->ai_addrlen);
		}
	}
}

static struct kt_lookup *waiting_for(struct kt_resolver *resolver, const char *host)
{
	struct kt_lookup *lookup = resolver->lookups;

	while (lookup != NULL && (lookup->ready || strcmp(lookup->host, host) != 0)) {
		lookup = lookup->next;
	}
	return lookup;
}

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct query *query = req->data;
	struct kt_resolver *resolver = query->resolver;
	struct kt_addresses addresses;
	struct kt_lookup *lookup;
	struct kt_err err;

	collect(list, &addresses);
	uv_freeaddrinfo(list);
	if (resolver != NULL) {
		struct query **at = &resolver->queries;

		while (*at != query) {
			at = &(*at)->next;
		}
		*at = query->next;
		resolver->query_count--;
		kt_err_clear(&err);
		if (status != 0 || addresses.count == 0) {
			(void)kt_err_set(&err, KT_E_NET, "looking up '%s': %s", query->host,
					 status != 0 ? uv_strerror(status) : "the answer holds no address");
			check_config(resolver);
		} else {
			keep_answer(resolver, query->host, &addresses);
		}
		while ((lookup = waiting_for(resolver, query->host)) != NULL) {
			if (err.code != KT_OK) {
				finish(lookup, &err, NULL);
			} else {
				judge(lookup, &addresses);
			}
		}
	}
	kt_free(query);
}

static enum kt_code start_query(struct kt_resolver *resolver, const char *host, struct kt_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct query *query;
	int rc;

	for (query = resolver->queries; query != NULL; query = query->next) {
		if (strcmp(query->host, host) == 0) {
			return KT_OK;
		}
	}
	if (resolver->query_count >= QUERIES_MAX) {
		return kt_err_set(err, KT_E_LATER, "looking up '%s': too many names are being looked up already", host);
	}
	query = kt_calloc(1, sizeof(*query));
	if (query == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a look-up");
	}
	query->req.data = query;
	query->resolver = resolver;
	memcpy(query->host, host, strlen(host) + 1);
	rc = uv_getaddrinfo(kt_loop_uv(resolver->loop), &query->req, on_answer, host, NULL, &hints);
	if (rc != 0) {
		kt_free(query);
		return kt_err_set(err, KT_E_NET, "looking up '%s': %s", host, uv_strerror(rc));
	}
	query->next = resolver->queries;
	resolver->queries = query;
	resolver->query_count++;
	return KT_OK;
}

/* Fills addresses when no query is needed: a literal, localhost, or an answer that is still fresh. */
static bool known(struct kt_resolver *resolver, const char *host, struct kt_addresses *ret)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	bool numeric, local = kt_reach_of_name(host, &numeric) == KT_REACH_LOOPBACK && !numeric;

	memset(ret, 0, sizeof(*ret));
	if (local) {
		v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		v6.sin6_addr = in6addr_loopback;
	}
	if (local || inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		memcpy(&ret->at[ret->count++], &v4, sizeof(v4));
	}
	if (local || inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		memcpy(&ret->at[ret->count++], &v6, sizeof(v6));
	}
	for (unsigned i = 0; ret->count == 0 && resolver->cache != NULL && i < CACHE_MAX; i++) {
		if (strcmp(resolver->cache[i].host, host) == 0 && now(resolver) < resolver->cache[i].until) {
			*ret = resolver->cache[i].addresses;
		}
	}
	return ret->count > 0;
}

enum kt_code kt_resolve(struct kt_resolver *resolver, const char *host, bool allow_local, kt_ms timeout,
			kt_resolved_fn *fn, void *arg, struct kt_lookup **ret, struct kt_err *err)
{
	struct kt_lookup *lookup;
	enum kt_code code;

	if (strlen(host) >= sizeof(lookup->host)) {
		return kt_err_set(err, KT_E_INVALID, "a host name is too long");
	}
	lookup = kt_calloc(1, sizeof(*lookup));
	if (lookup == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for a look-up");
	}
	lookup->resolver = resolver;
	lookup->fn = fn;
	lookup->arg = arg;
	lookup->allow_local = allow_local;
	memcpy(lookup->host, host, strlen(host) + 1);
	lookup->ready = known(resolver, host, &lookup->addresses);
	code = kt_timer_create(resolver->loop, on_timer, lookup, &lookup->timer, err);
	if (code == KT_OK && !lookup->ready) {
		code = start_query(resolver, host, err);
	}
	if (code != KT_OK) {
		kt_timer_destroy(lookup->timer);
		kt_free(lookup);
		return code;
	}
	kt_timer_start(lookup->timer, lookup->ready ? 0 : timeout);
	lookup->next = resolver->lookups;
	resolver->lookups = lookup;
	*ret = lookup;
	return KT_OK;
}
