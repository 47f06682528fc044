/* What the files of pki/ share: the structs behind the handles, fetched algorithms, DER and PEM helpers. */
#ifndef KT_PKI_INTERNAL_H
#define KT_PKI_INTERNAL_H

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "kt/mem.h"
#include "kt/pki.h"
#include "kt/text.h"
#include "pki/pki_openssl.h"

/* Cleanup attributes for OpenSSL's types: KT_AUTOSSL(X509) cert = NULL; */
#define KT_SSL_CLEANUP(T, fn)                                                                                          \
	static inline void kt_cleanup_##T(T **p)                                                                       \
	{                                                                                                              \
		fn(*p);                                                                                                \
	}
#define KT_AUTOSSL(T) __attribute__((cleanup(kt_cleanup_##T))) T *
KT_SSL_CLEANUP(BIGNUM, BN_clear_free)
KT_SSL_CLEANUP(EVP_PKEY, EVP_PKEY_free)
KT_SSL_CLEANUP(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
KT_SSL_CLEANUP(EVP_MD_CTX, EVP_MD_CTX_free)
KT_SSL_CLEANUP(ECDSA_SIG, ECDSA_SIG_free)
KT_SSL_CLEANUP(X509, X509_free)
KT_SSL_CLEANUP(ASN1_TYPE, ASN1_TYPE_free)
KT_SSL_CLEANUP(X509_STORE, X509_STORE_free)
KT_SSL_CLEANUP(X509_STORE_CTX, X509_STORE_CTX_free)
KT_SSL_CLEANUP(GENERAL_NAMES, GENERAL_NAMES_free)
KT_SSL_CLEANUP(ASN1_OBJECT, ASN1_OBJECT_free)

/* Digests, fetched once by kt_pki_init. */
struct kt_pki_algs {
	EVP_MD *sha1, *sha256, *sha384, *sha512;
};
extern struct kt_pki_algs kt_pki_algs;

/* Fills err from OpenSSL's queue (whose texts name no data) and clears it: "<text>: <reason>". Out of memory
 * becomes KT_E_NOMEM. */
enum kt_code kt_pki_openssl_err(struct kt_err *err, enum kt_code code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* A refusal that came while allocations failed (`failures` is kt_mem_failures() from before) is for want of memory. */
enum kt_code kt_pki_settle(enum kt_code code, uint64_t failures, struct kt_err *err);

/* --- keys --- */

struct kt_key {
	EVP_PKEY *pkey;
	enum kt_key_type type;
	unsigned bits;
	bool private;
	uint8_t *spki;
	size_t spki_len;
	size_t bits_at; /* where the subjectPublicKey bytes start in spki */
	struct kt_signer *jose; /* set up by the first kt_jose_sign; a key signs in one thread at a time */
};

/* Takes pkey, whatever the outcome. */
enum kt_code kt_pki_key_wrap(EVP_PKEY *pkey, bool private, struct kt_key **ret, struct kt_err *err);
/* Adds the private half as DER. */
enum kt_code kt_pki_key_add_private(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_buf *out,
                                    struct kt_err *err);

/* --- certificates --- */

struct kt_cert {
	_Atomic unsigned more; /* references beside the first */
	X509 *x509;
	EVP_PKEY *own; /* a reference to our key, whose certificate it is; NULL: x509 has the key */
	struct kt_view der;
	kt_ms not_before, not_after;
	enum kt_key_type key_type;
	unsigned key_bits;
	uint32_t usages;
	bool is_ca;
	bool broken; /* extensions that OpenSSL can't make sense of */
	char serial[64];
	char sha256[KT_SHA256_HEX];
	char *subject, *issuer, *common_name;
	char **names;
	size_t name_count;
};

/* As kt_pki_cert_from_der; where it is for this key (which may be NULL), the key is not decoded again. */
enum kt_code kt_pki_cert_for_key(struct kt_view der, const struct kt_key *key, struct kt_cert **ret, struct kt_err *err);
/* A new reference to one with its key decoded; NULL: out of memory. */
X509 *kt_pki_cert_whole(const struct kt_cert *cert);

/* The certificate without its key decoded; NULL where it is not for this key, bytes and all, or can't be read so. */
X509 *kt_pki_keyless_read(struct kt_view der, const struct kt_key *key);
/* Whether the issuer's key verifies the signature of a certificate that was read so. */
bool kt_pki_keyless_verify(const struct kt_cert *cert, EVP_PKEY *issuer);
void kt_pki_keyless_finish(void); /* called by kt_pki_finish */

/* Printable ASCII as it is, everything else (and the backslash) as \xNN, cut at max bytes. kt_free it. */
char *kt_pki_escape(const uint8_t *data, size_t len, size_t max);
void kt_pki_lower(char *text); /* ASCII, in place */

struct kt_chain {
	struct kt_cert *at[KT_PKI_CHAIN_MAX];
	size_t count;
};

struct kt_trust {
	X509_STORE *store;
	size_t count;
};

/* --- DER --- */

enum {
	DER_BOOLEAN = 0x01,
	DER_INTEGER = 0x02,
	DER_BITS = 0x03,
	DER_OCTETS = 0x04,
	DER_NULL = 0x05,
	DER_OID = 0x06,
	DER_UTF8 = 0x0c,
	DER_PRINTABLE = 0x13,
	DER_IA5 = 0x16,
	DER_UTC_TIME = 0x17,
	DER_GENERALIZED_TIME = 0x18,
	DER_BMP = 0x1e,
	DER_SEQUENCE = 0x30,
	DER_SET = 0x31,
};
#define DER_CONTEXT(n) ((uint8_t)(0x80 | (n)))        /* implicit, primitive */
#define DER_CONTEXT_CONS(n) ((uint8_t)(0xa0 | (n)))   /* explicit, or implicit and constructed */

/* Opens a TLV whose length is set by kt_der_close with the returned position. Failures stay in out->failed. */
size_t kt_der_open(struct kt_buf *out, uint8_t tag);
void kt_der_close(struct kt_buf *out, size_t pos);
void kt_der_put(struct kt_buf *out, uint8_t tag, const void *data, size_t len);
/* A non-negative INTEGER from big-endian bytes. */
void kt_der_uint(struct kt_buf *out, const uint8_t *bytes, size_t len);
void kt_der_small(struct kt_buf *out, unsigned value);
void kt_der_bool(struct kt_buf *out, bool value);
/* An OID from dotted text; false when it is none. */
bool kt_der_oid(struct kt_buf *out, const char *dotted);
/* UTCTime until 2049, then GeneralizedTime (RFC 5280 4.1.2.5). */
void kt_der_time(struct kt_buf *out, kt_ms wall);
/* Bit string of up to 32 named bits, bit 0 first, trailing zeros cut (X.690 11.2.2). */
void kt_der_named_bits(struct kt_buf *out, uint32_t bits);

/* --- PKCS#12 --- */

/* A library context with OpenSSL's legacy provider, made once. */
enum kt_code kt_pki_p12_legacy(OSSL_LIB_CTX **ret, struct kt_err *err);

/* --- PEM --- */

struct kt_pem {
	struct kt_view label; /* "CERTIFICATE" */
	struct kt_view body;  /* between the lines */
};
/* The next block of *rest, which moves on. strict: only white space and lines starting with '#' may stand before it, and
 * after the last. KT_E_NOTFOUND at the end. */
enum kt_code kt_pem_next(struct kt_view *rest, bool strict, struct kt_pem *ret, struct kt_err *err);
/* Base64 of a block's body; adds to out. */
enum kt_code kt_pem_decode(const struct kt_pem *block, struct kt_buf *out, struct kt_err *err);
/* Bytes that a PEM block of this size takes, and writing it into exactly as many. */
size_t kt_pem_size(const char *label, size_t der_len);
void kt_pem_write(char *out, const char *label, const void *der, size_t der_len);

/* --- names and extensions --- */

/* The Name of the request, as DER. empty tells whether it has no RDN. */
enum kt_code kt_pki_dn_encode(const struct kt_cert_request *request, struct kt_buf *out, bool *empty,
                              struct kt_err *err);
/* GeneralNames of the request's alternative names; adds nothing when there are none. */
enum kt_code kt_pki_san_encode(const struct kt_cert_request *request, struct kt_buf *out, struct kt_err *err);
bool kt_pki_has_names(const struct kt_cert_request *request);

enum kt_code kt_pki_ip_parse(const char *text, uint8_t out[16], size_t *len, struct kt_err *err);
enum kt_code kt_pki_constraints_encode(const struct kt_cert_request *request, struct kt_buf *out, struct kt_err *err);
bool kt_pki_dns_valid(const char *name);

/* Adds the Extension SEQUENCEs that request and CSR share: key usage, extended usages, basic constraints, alternative
 * names, name constraints. for_csr leaves basic constraints out unless is_ca. */
enum kt_code kt_pki_extensions_encode(const struct kt_cert_request *request, bool empty_subject, bool for_csr,
                                      struct kt_buf *out, struct kt_err *err);
/* Adds one Extension: open, write the value, close. */
struct kt_ext_mark {
	size_t seq, octets;
};
struct kt_ext_mark kt_pki_ext_open(struct kt_buf *out, const uint8_t *oid, size_t oid_len, bool critical);
void kt_pki_ext_close(struct kt_buf *out, struct kt_ext_mark mark);

/* The bit of an extended key usage's OID contents, or 0. */
uint32_t kt_pki_eku_bit(const uint8_t *oid, size_t len);

/* Gives the issuers that chain.c remembers back; called by kt_pki_finish. */
void kt_pki_chain_forget(void);
/* Unloads the legacy provider; called by kt_pki_finish. */
void kt_pki_p12_finish(void);

/* --- signatures --- */

/* The signature algorithm for a key, or KT_E_INVALID when `wanted` doesn't fit it. */
enum kt_code kt_pki_signature_for(const struct kt_key *key, enum kt_signature wanted, enum kt_signature *ret,
                                  struct kt_err *err);
/* AlgorithmIdentifier. */
void kt_pki_signature_alg(struct kt_buf *out, enum kt_signature sig);
EVP_MD *kt_pki_signature_md(enum kt_signature sig); /* NULL for Ed25519 */

/* A signer with its contexts kept between signatures. */
struct kt_signer {
	enum kt_signature sig;
	EVP_PKEY *pkey;     /* owned reference */
	EVP_PKEY_CTX *ctx;  /* sign_init done; NULL for Ed25519 */
	EVP_MD_CTX *md_ctx;
};
enum kt_code kt_signer_init(struct kt_signer *signer, const struct kt_key *key, enum kt_signature sig,
                            struct kt_err *err);
void kt_signer_finish(struct kt_signer *signer);
/* The signature as OpenSSL has it (ECDSA: DER) into sig, which has *len bytes room. */
enum kt_code kt_signer_raw(struct kt_signer *signer, const void *data, size_t len, uint8_t *sig, size_t *sig_len,
                           struct kt_err *err);
/* Adds BIT STRING with the signature over data. data may point into out's memory before the call: it is copied first. */
enum kt_code kt_signer_sign(struct kt_signer *signer, const void *data, size_t len, struct kt_buf *out,
                            struct kt_err *err);

#endif
