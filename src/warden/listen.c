/* The desk's listeners: bound here, because ports below 1024 and folders of sockets are not the desk's to touch. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "warden/hands/hands.h"
#include "warden/sockets.h"

#define BACKLOG  128
#define UNIX_TAG "unix:"

/* Splits "host:port", "[v6]:port" or ":port"; host and port are copies in buf. */
static enum kt_code split(const char *address, char *buf, size_t size, char **ret_host, char **ret_port,
                          struct kt_err *err)
{
	size_t len = strlen(address);
	char *colon;

	if (len >= size) {
		return kt_err_set(err, KT_E_INVALID, "the address of a listener is too long");
	}
	memcpy(buf, address, len + 1);
	colon = strrchr(buf, ':');
	if (colon == NULL || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
		return kt_err_set(err, KT_E_INVALID, "\"%s\" is not host:port, :port or unix:/path", address);
	}
	*colon = '\0';
	*ret_port = colon + 1;
	*ret_host = buf;
	if (buf[0] == '[' && colon[-1] == ']') {
		colon[-1] = '\0';
		*ret_host = buf + 1;
	} else if (strchr(buf, ':') != NULL) {
		return kt_err_set(err, KT_E_INVALID, "\"%s\": an IPv6 address stands in brackets, [::1]:8080", address);
	}
	return KT_OK;
}

static int bind_one(const struct addrinfo *info, bool any, const char *address, struct kt_err *err)
{
	int on = 1;
	int off = 0;
	int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol);

	if (fd < 0) {
		(void)kt_err_sys(err, "listener %s", address);
		return -1;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (info->ai_family == AF_INET6) {
		/* ":80" means both kinds of addresses, "[::]:80" what it says. */
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on, sizeof(on));
	}
	if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		const char *mend = errno == EADDRINUSE      ? "end what listens there, or change spec.listeners of kind Agent"
		                   : errno == EACCES        ? "a port below 1024 needs root or CAP_NET_BIND_SERVICE"
		                   : errno == EADDRNOTAVAIL ? "this machine has no such address"
		                                            : "see spec.listeners of kind Agent";

		(void)kt_err_sys(err, "listener %s (%s)", address, mend);
		close(fd);
		return -1;
	}
	return fd;
}

static int listen_tcp(const char *address, struct kt_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	struct addrinfo *info;
	char buf[300];
	char *host = NULL;
	char *port = NULL;
	bool any;
	int fd = -1;
	int rc;

	if (split(address, buf, sizeof(buf), &host, &port, err) != KT_OK) {
		return -1;
	}
	any = host[0] == '\0';
	rc = getaddrinfo(any ? "::" : host, port, &hints, &found);
	if (rc != 0) {
		(void)kt_err_set(err, KT_E_INVALID, "listener %s: %s", address, gai_strerror(rc));
		return -1;
	}
	for (info = found; info != NULL && fd < 0; info = info->ai_next) {
		fd = bind_one(info, any, address, err);
	}
	freeaddrinfo(found);
	if (fd < 0 && any && (err == NULL || err->sys_errno == EAFNOSUPPORT || err->sys_errno == EADDRNOTAVAIL)) {
		/* A machine without IPv6. */
		struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
		struct addrinfo plain = {.ai_family = AF_INET,
		                         .ai_socktype = SOCK_STREAM,
		                         .ai_addr = (struct sockaddr *)&v4,
		                         .ai_addrlen = sizeof(v4)};

		fd = bind_one(&plain, any, address, err);
	}
	return fd;
}

int kt_listen_on(const char *address, gid_t gid, struct kt_err *err)
{
	if (kt_starts_with(address, UNIX_TAG)) {
		return kt_local_listen(address + strlen(UNIX_TAG), gid, BACKLOG, err);
	}
	return listen_tcp(address, err);
}

/* --- all of them ------------------------------------------------------------------------------------------------- */

#define TLS_ALPN "tlsAlpn01"
#define TOKENS   "tokens"
#define AWS      "aws"

static const char *const known_names[] = {"acme", "jwks", "metrics", "probes", "control", TLS_ALPN, TOKENS, AWS};

bool kt_bound_names_known(const char *names)
{
	while (true) {
		size_t len = strcspn(names, "+");
		bool known = false;

		for (size_t i = 0; i < sizeof(known_names) / sizeof(known_names[0]); i++) {
			known = known || (strlen(known_names[i]) == len && memcmp(known_names[i], names, len) == 0);
		}
		if (!known || names[len] == '\0') {
			return known;
		}
		names += len + 1;
	}
}

static struct kt_bound *find_bound(const struct kt_bound_list *list, const char *address)
{
	for (unsigned i = 0; list != NULL && i < list->count; i++) {
		if (strcmp(list->items[i].address, address) == 0) {
			return (struct kt_bound *)&list->items[i];
		}
	}
	return NULL;
}

/* Another protocol, or other people that may come in. */
static bool is_alone(const char *name)
{
	return strcmp(name, TLS_ALPN) == 0 || strcmp(name, TOKENS) == 0 || strcmp(name, AWS) == 0;
}

/* What speaks HTTP may share a socket: the paths tell. */
static enum kt_code share(struct kt_bound *bound, const char *name, struct kt_err *err)
{
	char *names;

	if (is_alone(name) || is_alone(bound->names)) {
		return kt_err_set(err, KT_E_INVALID, "spec.listeners of kind Agent: %s can't share %s with others",
		                  is_alone(name) ? name : bound->names, bound->address);
	}
	names = kt_asprintf("%s+%s", bound->names, name);
	if (names == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for listener %s", bound->address);
	}
	kt_free(bound->names);
	bound->names = names;
	return KT_OK;
}

static enum kt_code open_one(const char *name, const char *address, gid_t gid, const struct kt_bound_list *old,
                             struct kt_bound_list *list, struct kt_err *err)
{
	struct kt_bound *bound = &list->items[list->count];
	const struct kt_bound *known = find_bound(old, address);
	struct kt_bound *shared = find_bound(list, address);

	if (shared != NULL) {
		return share(shared, name, err);
	}
	*bound = (struct kt_bound){.names = kt_strdup(name), .address = kt_strdup(address), .fd = -1};
	list->count++;
	if (bound->address == NULL || bound->names == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for listener %s", address);
	}
	/* Everybody may come in at that of tokens, so it becomes no other, nor another that one. */
	if (known != NULL && (strcmp(known->names, TOKENS) == 0) != (strcmp(name, TOKENS) == 0)) {
		return kt_err_set(err, KT_E_INVALID,
		                  "spec.listeners of kind Agent: %s can't take over %s from %s while the agent runs: restart "
		                  "it",
		                  name, address, known->names);
	}
	if (known != NULL) {
		bound->fd = fcntl(known->fd, F_DUPFD_CLOEXEC, 3);
		return bound->fd < 0 ? kt_err_sys(err, "listener %s", address) : KT_OK;
	}
	if (strcmp(name, TOKENS) == 0) {
		bound->fd = kt_starts_with(address, UNIX_TAG) ? kt_local_listen_open(address + strlen(UNIX_TAG), BACKLOG, err) : -1;
	} else {
		bound->fd = kt_listen_on(address, gid, err);
	}
	return bound->fd < 0 ? (err != NULL ? err->code : KT_E_SYS) : KT_OK;
}

enum kt_code kt_bound_open(const struct kt_listeners *listeners, const struct kt_bound_list *old, struct kt_bound_list *ret,
                           struct kt_err *err)
{
	const char *const addresses[] = {listeners->http01,          listeners->jwks, listeners->metrics, listeners->probes,
	                                 listeners->control.address, listeners->tls_alpn01, listeners->tokens,
	                                 listeners->aws};
	struct kt_bound_list list = {0};
	gid_t gid = (gid_t)-1;
	enum kt_code code = KT_OK;

	_Static_assert(sizeof(addresses) / sizeof(addresses[0]) == sizeof(known_names) / sizeof(known_names[0]), "one each");
	_Static_assert(sizeof(addresses) / sizeof(addresses[0]) == KT_LISTENERS_MAX, "room for all");
	if (listeners->socket_group != NULL) {
		code = kt_gid_resolve(listeners->socket_group, &gid, err);
	}
	for (unsigned i = 0; code == KT_OK && i < KT_LISTENERS_MAX; i++) {
		if (addresses[i] != NULL) {
			code = open_one(known_names[i], addresses[i], gid, old, &list, err);
		}
	}
	if (code != KT_OK) {
		kt_bound_close(&list, old);
		return code;
	}
	*ret = list;
	return KT_OK;
}

void kt_bound_close(struct kt_bound_list *list, const struct kt_bound_list *keep)
{
	for (unsigned i = 0; i < list->count; i++) {
		struct kt_bound *bound = &list->items[i];

		if (bound->fd >= 0 && kt_starts_with(bound->address, UNIX_TAG) && find_bound(keep, bound->address) == NULL) {
			kt_local_remove(bound->address + strlen(UNIX_TAG), bound->fd);
		}
		if (bound->fd >= 0) {
			close(bound->fd);
		}
		kt_free(bound->address);
		kt_free(bound->names);
	}
	list->count = 0;
}
