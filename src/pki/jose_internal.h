/* What the JOSE files share. */
#ifndef KT_JOSE_INTERNAL_H
#define KT_JOSE_INTERNAL_H

#include "kt/jose.h"
#include "kt/json.h"
#include "pki/pki_internal.h"

struct kt_jwks_entry {
	char *kid; /* "" when it has none */
	enum kt_jose_alg alg; /* KT_JOSE_NONE: not said */
	struct kt_key *key;
};

struct kt_jwks {
	struct kt_jwks_entry at[KT_JOSE_JWKS_MAX];
	size_t count;
};

/* The AlgorithmIdentifier's SubjectPublicKeyInfo around public bits: type and size select it. */
void kt_pki_spki_write(struct kt_buf *out, enum kt_key_type type, unsigned bits, struct kt_view public_bits);
/* Big-endian bytes of RSA's modulus and exponent; adds to out. */
enum kt_code kt_pki_rsa_public(const struct kt_key *key, struct kt_buf *n, struct kt_buf *e, struct kt_err *err);

/* "HS256"; NULL for others. */
const char *kt_jose_mac_name(enum kt_jose_mac mac);
/* The MAC over data, base64url added to out. KT_E_INVALID for a key that is too short. */
enum kt_code kt_jose_mac(enum kt_jose_mac mac, struct kt_view mac_key, struct kt_view data, struct kt_buf *out,
                         struct kt_err *err);

#endif
