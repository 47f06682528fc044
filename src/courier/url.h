/* URLs as strangers and manifests write them: parsed once, compared by origin, judged by where they point. */
#ifndef KT_COURIER_URL_H
#define KT_COURIER_URL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "kt/buf.h"
#include "kt/err.h"

/* What a host name or address is, as far as policy cares. */
enum kt_reach {
	KT_REACH_ANY,      /* a public or private address, or a name that must be looked up */
	KT_REACH_LOOPBACK, /* 127/8, ::1, localhost, *.localhost */
	KT_REACH_LINK,     /* link-local: 169.254/16, fe80::/10 */
	KT_REACH_NONE,     /* unspecified, multicast, broadcast: never */
};

/* The parts of a URL that decide where a request goes. */
struct kt_url {
	bool https;
	bool numeric; /* the host is an address literal */
	uint16_t port;
	enum kt_reach reach; /* of the literal or of the name by itself; no look-up is made */
	char host[256];      /* lower case, without brackets */
};

/* Loads libcurl with the wiping allocator; called by whoever needs it, works once. */
enum kt_code kt_courier_curl(struct kt_err *err);

/*
 * Absolute http or https URL of at most KT_URL_MAX bytes: no user, no fragment, no control characters, no white space,
 * ASCII only. KT_E_INVALID else; the text of the error names the URL (escaped, cut).
 */
enum kt_code kt_url_parse(const char *text, struct kt_url *ret, struct kt_err *err);
bool kt_url_same_origin(const struct kt_url *a, const struct kt_url *b);
/* Both parse and have the same scheme, host and port. */
bool kt_url_text_same_origin(const char *a, const char *b);

enum kt_reach kt_reach_of_address(const struct sockaddr *address);
enum kt_reach kt_reach_of_name(const char *host, bool *ret_numeric);

/* "host:port" or "[v6]:port" into host (at least 256 bytes) and port. KT_E_INVALID. */
enum kt_code kt_url_split_address(struct kt_view text, char host[256], uint16_t *port, struct kt_err *err);

#endif
