/* Transaction signatures (RFC 8945) over DNS messages. */
#ifndef KT_COURIER_DNS_TSIG_H
#define KT_COURIER_DNS_TSIG_H

#include "courier/dns/packet.h"
#include "kt/clock.h"
#include "kt/secret.h"

#define DNS_TSIG_MAC_MAX 64u
#define DNS_TSIG_FUDGE   300u /* seconds */

/* The TSIG error field, RFC 8945 section 3. */
enum { DNS_BADSIG = 16, DNS_BADKEY = 17, DNS_BADTIME = 18, DNS_BADTRUNC = 22 };

struct dns_tsig {
	char name[DNS_NAME_SIZE];
	const char *algorithm; /* as in the message, static */
	const char *digest;    /* as OpenSSL calls it, static */
	struct kt_secret *key;
};

struct dns_mac {
	size_t len;
	uint8_t bytes[DNS_TSIG_MAC_MAX];
};

/* What the signature of an answer says. */
enum dns_signed {
	DNS_SIGNED,     /* by our key, in time */
	DNS_UNSIGNED,   /* not at all, or only with an error: nothing in it is proved */
	DNS_FORGED,     /* not what our key gives */
};

/* algorithm: HMACMD5, HMACSHA1, HMACSHA256, HMACSHA512; secret: base64 of the key as in a key file. KT_E_INVALID. */
enum kt_code dns_tsig_init(struct dns_tsig *tsig, const char *name, const char *algorithm, struct kt_view secret,
			   struct kt_err *err);
void dns_tsig_finish(struct dns_tsig *tsig); /* zeroed is accepted */

/* Appends the signature to a message that has its id; mac is needed to check the answer. */
enum kt_code dns_tsig_sign(const struct dns_tsig *tsig, kt_ms wall, struct kt_buf *wire, struct dns_mac *mac,
			   struct kt_err *err);
/* error: the TSIG error field (RFC 8945 section 3), 0 when there is none; skew: seconds that the server's clock is ahead
 * of ours where it complains about the time. */
enum dns_signed dns_tsig_verify(const struct dns_tsig *tsig, kt_ms wall, const struct dns_mac *request,
				struct kt_view wire, unsigned *error, int64_t *skew);

#endif
