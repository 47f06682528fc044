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

int kt_listen_on(const char *address, struct kt_err *err)
{
	if (kt_starts_with(address, UNIX_TAG)) {
		return kt_local_listen(address + strlen(UNIX_TAG), (gid_t)-1, BACKLOG, err);
	}
	return listen_tcp(address, err);
}

/* What is open already under this name and address, or -1. */
static int take_over(const struct kt_bound_list *old, const char *name, const char *address)
{
	unsigned i;

	for (i = 0; old != NULL && i < old->count; i++) {
		if (strcmp(old->items[i].name, name) == 0 && strcmp(old->items[i].address, address) == 0) {
			return old->items[i].fd;
		}
	}
	return -1;
}

static enum kt_code open_one(const char *name, const char *address, const struct kt_bound_list *old,
                             struct kt_bound_list *list, struct kt_err *err)
{
	struct kt_bound *bound = &list->items[list->count];
	int known;

	if (address == NULL) {
		return KT_OK;
	}
	known = take_over(old, name, address);
	bound->name = name;
	bound->address = kt_strdup(address);
	if (bound->address == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for listener %s", address);
	}
	list->count++;
	if (known >= 0) {
		bound->fd = fcntl(known, F_DUPFD_CLOEXEC, 3);
		return bound->fd < 0 ? kt_err_sys(err, "listener %s", address) : KT_OK;
	}
	bound->fd = kt_listen_on(address, err);
	return bound->fd < 0 ? (err != NULL ? err->code : KT_E_SYS) : KT_OK;
}

enum kt_code kt_bound_open(const struct kt_listeners *listeners, const struct kt_bound_list *old, struct kt_bound_list *ret,
                           struct kt_err *err)
{
	struct kt_bound_list list = {0};
	enum kt_code code = open_one("acme", listeners->http01, old, &list, err);

	if (code == KT_OK) {
		code = open_one("jwks", listeners->jwks, old, &list, err);
	}
	if (code == KT_OK) {
		code = open_one("metrics", listeners->metrics, old, &list, err);
	}
	if (code == KT_OK) {
		code = open_one("probes", listeners->probes, old, &list, err);
	}
	if (code == KT_OK) {
		code = open_one("control", listeners->control.address, old, &list, err);
	}
	if (code != KT_OK) {
		kt_bound_close(&list);
		return code;
	}
	*ret = list;
	return KT_OK;
}

void kt_bound_close(struct kt_bound_list *list)
{
	unsigned i;

	for (i = 0; i < list->count; i++) {
		if (list->items[i].fd >= 0) {
			close(list->items[i].fd);
		}
		kt_free(list->items[i].address);
	}
	list->count = 0;
}
