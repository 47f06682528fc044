/* Keys, certificate requests, certificates, chains, trust and PKCS#12: everything X.509, without OpenSSL's types. */
#ifndef KT_PKI_H
#define KT_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"
#include "kt/secret.h"

/* Bounds on what strangers send. */
#define KT_PKI_CHAIN_BYTES_MAX (256u * 1024u) /* of PEM */
#define KT_PKI_CHAIN_MAX 16u                  /* certificates of one chain */
#define KT_PKI_TRUST_BYTES_MAX (4u * 1024u * 1024u)
#define KT_PKI_TRUST_MAX 2048u                /* certificates of one bundle */
#define KT_PKI_NAMES_MAX 1000u                /* names of one kind in a request */
#define KT_PKI_DER_MAX (64u * 1024u)          /* one certificate or request */

/*
 * Puts kt_malloc & co behind libcrypto (must run before anything else of OpenSSL does; when that is too late it goes on
 * without) and fetches digests and signature algorithms once. Calls kt_secret_init. Idempotent; call before threads
 * start. Every function below needs it.
 */
enum kt_code kt_pki_init(struct kt_err *err);
/*
 * Has OpenSSL load what keys and signatures need. When memory is missing just then, it takes what it could not load for
 * unsupported as long as the process lives: so this is done at a start, where a failure ends the process.
 */
enum kt_code kt_pki_warm(struct kt_err *err);
/* Gives everything back, for leak checks; nothing of pki or OpenSSL may be used after. */
void kt_pki_finish(void);

/* --- digests ------------------------------------------------------------------------------------------------- */

#define KT_SHA256_LEN 32u
#define KT_SHA256_HEX 65u

/* One shot. Thread-safe; well under a microsecond for an audit record. */
void kt_sha256(const void *data, size_t len, uint8_t out[KT_SHA256_LEN]);
/* Lower-case hex, NUL-terminated. */
void kt_sha256_hex(const void *data, size_t len, char out[KT_SHA256_HEX]);

/* Incremental. init, add..., finish (which gives the digest, out may be NULL, and frees). */
struct kt_sha256 {
	void *ctx;
};
enum kt_code kt_sha256_init(struct kt_sha256 *sha, struct kt_err *err);
void kt_sha256_add(struct kt_sha256 *sha, const void *data, size_t len);
void kt_sha256_finish(struct kt_sha256 *sha, uint8_t out[KT_SHA256_LEN]);

/* --- keys ---------------------------------------------------------------------------------------------------- */

enum kt_key_type { KT_KEY_RSA, KT_KEY_ECDSA, KT_KEY_ED25519 };
enum kt_key_encoding { KT_KEY_PKCS1, KT_KEY_PKCS8 };

/* A key pair, or a public key alone. Immutable after creation: may be used by several threads at once. */
struct kt_key;

/* "RSA", "ECDSA", "Ed25519" as manifests write them (matched exactly). KT_E_INVALID for others. */
enum kt_code kt_pki_key_type_parse(const char *name, enum kt_key_type *ret, struct kt_err *err);
const char *kt_pki_key_type_name(enum kt_key_type type);

/* bits: RSA 2048 to 8192 in practice 2048, 3072, 4096 (0: 2048); ECDSA 256, 384, 521 (0: 256); Ed25519: ignored.
 * Thread-safe. KT_E_INVALID for other sizes. */
enum kt_code kt_pki_key_generate(enum kt_key_type type, unsigned bits, struct kt_key **ret, struct kt_err *err);
/* PKCS#1, SEC1 or PKCS#8, unencrypted, the first private key block of the text. RSA of 2048..8192 bits, P-256/384/521,
 * Ed25519. KT_E_CRYPTO when it is no such key or inconsistent. */
enum kt_code kt_pki_key_from_pem(struct kt_view pem, struct kt_key **ret, struct kt_err *err);
enum kt_code kt_pki_key_from_der(struct kt_view der, struct kt_key **ret, struct kt_err *err);
/* SubjectPublicKeyInfo, DER or PEM ("PUBLIC KEY"). */
enum kt_code kt_pki_key_from_public(struct kt_view data, struct kt_key **ret, struct kt_err *err);
void kt_pki_key_destroy(struct kt_key *key); /* NULL accepted */

enum kt_key_type kt_pki_key_type(const struct kt_key *key);
unsigned kt_pki_key_bits(const struct kt_key *key); /* 256 for Ed25519 */
bool kt_pki_key_is_private(const struct kt_key *key);
/* True when the public halves are the same. */
bool kt_pki_key_same_public(const struct kt_key *a, const struct kt_key *b);
/* SubjectPublicKeyInfo DER, owned by the key. */
struct kt_view kt_pki_key_public_der(const struct kt_key *key);

/* Text as it goes into tls.key. PKCS1: "RSA PRIVATE KEY", for ECDSA "EC PRIVATE KEY" (SEC1); Ed25519 is always PKCS#8. */
enum kt_code kt_pki_key_to_pem(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_secret **ret,
                               struct kt_err *err);
/* The same choice as DER (cert-manager's key.der is KT_KEY_PKCS8). For sealing use KT_KEY_PKCS8. */
enum kt_code kt_pki_key_to_der(const struct kt_key *key, enum kt_key_encoding encoding, struct kt_secret **ret,
                               struct kt_err *err);
/* SubjectPublicKeyInfo PEM ("PUBLIC KEY"); adds to out. */
enum kt_code kt_pki_key_public_pem(const struct kt_key *key, struct kt_buf *out, struct kt_err *err);

static inline void kt_cleanup_key(struct kt_key **p)
{
	kt_pki_key_destroy(*p);
}
#define KT_AUTOKEY __attribute__((cleanup(kt_cleanup_key)))

/* --- what to put into a certificate --------------------------------------------------------------------------- */

/* Key usages (bits 0..8 of RFC 5280 4.2.1.3) and extended key usages, by cert-manager's names. */
enum {
	KT_USAGE_DIGITAL_SIGNATURE = 1 << 0, /* "signing", "digital signature" */
	KT_USAGE_CONTENT_COMMITMENT = 1 << 1,
	KT_USAGE_KEY_ENCIPHERMENT = 1 << 2,
	KT_USAGE_DATA_ENCIPHERMENT = 1 << 3,
	KT_USAGE_KEY_AGREEMENT = 1 << 4,
	KT_USAGE_CERT_SIGN = 1 << 5,
	KT_USAGE_CRL_SIGN = 1 << 6,
	KT_USAGE_ENCIPHER_ONLY = 1 << 7,
	KT_USAGE_DECIPHER_ONLY = 1 << 8,
	KT_USAGE_ANY = 1 << 9, /* extended from here on */
	KT_USAGE_SERVER_AUTH = 1 << 10,
	KT_USAGE_CLIENT_AUTH = 1 << 11,
	KT_USAGE_CODE_SIGNING = 1 << 12,
	KT_USAGE_EMAIL_PROTECTION = 1 << 13, /* "email protection", "s/mime" */
	KT_USAGE_IPSEC_END_SYSTEM = 1 << 14,
	KT_USAGE_IPSEC_TUNNEL = 1 << 15,
	KT_USAGE_IPSEC_USER = 1 << 16,
	KT_USAGE_TIMESTAMPING = 1 << 17,
	KT_USAGE_OCSP_SIGNING = 1 << 18,
	KT_USAGE_MICROSOFT_SGC = 1 << 19,
	KT_USAGE_NETSCAPE_SGC = 1 << 20,
};
/* The bit of a name ("server auth"); 0 for an unknown one. */
uint32_t kt_pki_usage_parse(const char *name);
/* The name of one bit; NULL for none. */
const char *kt_pki_usage_name(uint32_t bit);

enum kt_signature {
	KT_SIG_DEFAULT, /* by the signer's key: SHA256WithRSA, ECDSA with the curve's size, PureEd25519 */
	KT_SIG_SHA256_RSA,
	KT_SIG_SHA384_RSA,
	KT_SIG_SHA512_RSA,
	KT_SIG_ECDSA_SHA256,
	KT_SIG_ECDSA_SHA384,
	KT_SIG_ECDSA_SHA512,
	KT_SIG_ED25519,
};
/* "SHA256WithRSA", ..., "ECDSAWithSHA256", ..., "PureEd25519"; "" and NULL give KT_SIG_DEFAULT. */
enum kt_code kt_pki_signature_parse(const char *name, enum kt_signature *ret, struct kt_err *err);

/* A list of NUL-terminated strings, borrowed. */
struct kt_strs {
	const char *const *at;
	size_t count;
};

/* One attribute of the subject; type: "CN", "O", "OU", "C", "ST", "L", "STREET", "POSTALCODE", "SERIALNUMBER", "DC", "UID",
 * "T", "GN", "SN", "EMAILADDRESS" ... (any case) or a dotted OID. */
struct kt_cert_attr {
	const char *type;
	const char *value;
};

struct kt_cert_other_name {
	const char *oid;
	const char *utf8;
};

/* One side of name constraints; dns, emails, uris as RFC 5280 4.2.1.10 writes them, ips as CIDR. */
struct kt_cert_subtrees {
	struct kt_strs dns, ips, emails, uris;
};

/* Plain data; every pointer is borrowed for the call. All zero is the empty request. */
struct kt_cert_request {
	/* An RFC 4514 name, most specific first ("CN=a,O=b"): encoded in the reverse order, as cert-manager does. Excludes
	 * subject and common_name. */
	const char *literal_subject;
	const struct kt_cert_attr *subject; /* in the order of encoding, one RDN each */
	size_t subject_count;
	const char *common_name; /* added to subject as the last RDN */
	struct kt_strs dns_names, ip_addresses, uris, emails;
	const struct kt_cert_other_name *other_names;
	size_t other_name_count;

	uint32_t usages; /* KT_USAGE_ bits; 0: digital signature and key encipherment. is_ca adds cert sign. */
	bool usages_critical_off; /* key usage is critical unless this is set */
	bool is_ca;
	bool has_path_len;
	unsigned path_len;
	struct kt_cert_subtrees permitted, excluded;
	bool constraints_critical;
	bool must_staple; /* TLS feature status_request (RFC 7633) */
	enum kt_signature signature; /* must fit the signer's key, else the signer's default (error when self-signed) */

	/* For issuing only. */
	kt_ms not_before, not_after; /* wall ms; cut to seconds */
	struct kt_strs crl_urls, ocsp_urls, issuer_urls;
	const uint8_t *acme_digest; /* KT_SHA256_LEN bytes: id-pe-acmeIdentifier, RFC 8737; NULL: none */
};

/* All that can be wrong with a request (syntax of names, addresses, OIDs, DN); says which. Pure. */
enum kt_code kt_pki_request_check(const struct kt_cert_request *request, struct kt_err *err);
/* Checks an RFC 4514 string by itself. */
enum kt_code kt_pki_dn_check(const char *literal, struct kt_err *err);

/* PKCS#10 with our key: DER (adds to out) / PEM. KT_E_INVALID names the wrong field. */
enum kt_code kt_pki_csr_der(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                            struct kt_err *err);
enum kt_code kt_pki_csr_pem(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                            struct kt_err *err);

/* Signature of data with SHA-256, raw bytes added to out: RSA by PKCS #1 v1.5, ECDSA as DER. KT_E_UNSUPPORTED: another key. */
enum kt_code kt_pki_sign_sha256(const struct kt_key *key, struct kt_view data, struct kt_buf *out, struct kt_err *err);

/* --- certificates and chains ---------------------------------------------------------------------------------- */

/* One parsed certificate. Immutable. */
struct kt_cert;

enum kt_code kt_pki_cert_from_der(struct kt_view der, struct kt_cert **ret, struct kt_err *err);
void kt_pki_cert_destroy(struct kt_cert *cert);

struct kt_view kt_pki_cert_der(const struct kt_cert *cert);
/* Lower-case hex of the serial without leading zero bytes, as `openssl x509 -serial` but lower case. */
const char *kt_pki_cert_serial(const struct kt_cert *cert);
kt_ms kt_pki_cert_not_before(const struct kt_cert *cert);
kt_ms kt_pki_cert_not_after(const struct kt_cert *cert);
/* RFC 4514-like text, escaped, ASCII, at most 512 bytes. */
const char *kt_pki_cert_subject(const struct kt_cert *cert);
const char *kt_pki_cert_issuer(const struct kt_cert *cert);
/* Lower-case hex of SHA-256 over the DER. */
const char *kt_pki_cert_sha256(const struct kt_cert *cert);
bool kt_pki_cert_is_ca(const struct kt_cert *cert);
/* Subject and issuer are the same name (the signature is not looked at). */
bool kt_pki_cert_self_issued(const struct kt_cert *cert);
bool kt_pki_cert_same(const struct kt_cert *a, const struct kt_cert *b);
/* First common name or NULL. Escaped when it holds control characters. */
const char *kt_pki_cert_common_name(const struct kt_cert *cert);

/* Alternative names as text: "dns:a.example", "ip:192.0.2.1", "uri:...", "email:...", "other:<oid>:<utf8>",
 * "unknown:<tag>"; lower-case for dns; escaped. Index from 0 to count - 1. */
size_t kt_pki_cert_name_count(const struct kt_cert *cert);
const char *kt_pki_cert_name(const struct kt_cert *cert, size_t index);
/* Extended and plain usages as KT_USAGE_ bits. */
uint32_t kt_pki_cert_usages(const struct kt_cert *cert);
enum kt_key_type kt_pki_cert_key_type(const struct kt_cert *cert);
unsigned kt_pki_cert_key_bits(const struct kt_cert *cert);
bool kt_pki_cert_has_key(const struct kt_cert *cert, const struct kt_key *key);
/* A new public key object of the subject. */
enum kt_code kt_pki_cert_key(const struct kt_cert *cert, struct kt_key **ret, struct kt_err *err);
/* True when `issuer` is named as issuer and its key verifies the signature. */
bool kt_pki_cert_issued_by(const struct kt_cert *cert, const struct kt_cert *issuer);
/* RFC 9773 section 4.1: base64url(AKI key id) "." base64url(serial); KT_E_NOTFOUND without an AKI. */
enum kt_code kt_pki_cert_ari_id(const struct kt_cert *cert, struct kt_buf *out, struct kt_err *err);
enum kt_code kt_pki_cert_pem(const struct kt_cert *cert, struct kt_buf *out, struct kt_err *err);
/* Any DER as a PEM block with this label ("CERTIFICATE"); adds to out. */
void kt_pki_pem_encode(struct kt_buf *out, const char *label, struct kt_view der);

/* An ordered list of certificates, leaf first. */
struct kt_chain;

/*
 * PEM: 1 to KT_PKI_CHAIN_MAX "CERTIFICATE" blocks in at most KT_PKI_CHAIN_BYTES_MAX bytes. Between blocks white space, and
 * lines that start with '#', are allowed. KT_E_LIMIT, or KT_E_PROTO for anything else: other text (HTML), a private key
 * block, a block of another type, garbage in a block, none at all.
 */
enum kt_code kt_pki_chain_parse(struct kt_view pem, struct kt_chain **ret, struct kt_err *err);
/*
 * The same for a chain that ends in a certificate for this key (NULL: any), which is then not decoded from the certificate
 * but compared byte by byte: ten times faster. The chain refers to the key until it is destroyed.
 */
enum kt_code kt_pki_chain_parse_for(struct kt_view pem, const struct kt_key *key, struct kt_chain **ret, struct kt_err *err);
/* One certificate or several concatenated, as DER. */
enum kt_code kt_pki_chain_from_der(struct kt_view der, struct kt_chain **ret, struct kt_err *err);
void kt_pki_chain_destroy(struct kt_chain *chain);
size_t kt_pki_chain_count(const struct kt_chain *chain);
const struct kt_cert *kt_pki_chain_at(const struct kt_chain *chain, size_t index); /* borrowed; NULL past the end */
/*
 * Splits for delivery: `chain` (chain_pem, may be NULL) gets the leaf and intermediates as PEM without self-signed roots, as tls.crt
 * wants it (a lone self-signed leaf stays); `root` (may be NULL) gets the last certificate when it is self-issued, else
 * the topmost issuer that is there, as ca.crt wants it (nothing when there is only a leaf that isn't self-signed).
 */
enum kt_code kt_pki_chain_split(const struct kt_chain *chain, struct kt_buf *chain_pem, struct kt_buf *root_pem,
                                struct kt_err *err);
enum kt_code kt_pki_chain_pem(const struct kt_chain *chain, struct kt_buf *out, struct kt_err *err);

static inline void kt_cleanup_cert(struct kt_cert **p)
{
	kt_pki_cert_destroy(*p);
}
static inline void kt_cleanup_chain(struct kt_chain **p)
{
	kt_pki_chain_destroy(*p);
}
#define KT_AUTOCERT __attribute__((cleanup(kt_cleanup_cert)))
#define KT_AUTOCHAIN __attribute__((cleanup(kt_cleanup_chain)))

/* --- issuing --------------------------------------------------------------------------------------------------- */

/* A CA ready to sign: certificate and key, with all that is the same for each leaf prepared. Keeps references of its own:
 * cert and key may be destroyed after. One thread at a time. */
struct kt_issuer;

/* KT_E_CRYPTO when the key is not the certificate's, KT_E_POLICY when it is no CA or may not sign certificates. */
enum kt_code kt_pki_issuer_create(const struct kt_cert *cert, const struct kt_key *key, struct kt_issuer **ret,
                                  struct kt_err *err);
void kt_pki_issuer_destroy(struct kt_issuer *issuer);
kt_ms kt_pki_issuer_not_after(const struct kt_issuer *issuer); /* clamp the leaf's to it */
kt_ms kt_pki_issuer_not_before(const struct kt_issuer *issuer);
/* -1: no limit. A CA below it needs at least 1. */
int kt_pki_issuer_path_len(const struct kt_issuer *issuer);

/* What came out, without parsing it again. */
struct kt_issued {
	char serial[48];            /* lower-case hex, as kt_pki_cert_serial */
	char sha256[KT_SHA256_HEX]; /* of the DER */
	kt_ms not_before, not_after;
};

/*
 * Signs a certificate for subject_key (only its public half is used): DER, added to out. Serial: 16 random bytes, positive,
 * never zero. SAN critical when the subject is empty; basicConstraints and key usage critical; SKI (RFC 7093 method 1:
 * the first 160 bits of SHA-256 of the key), AKI as the CA's own SKI has it. info may be NULL. KT_E_INVALID for a bad request, KT_E_POLICY
 * when path length forbids it.
 */
enum kt_code kt_pki_issue(struct kt_issuer *issuer, const struct kt_cert_request *request,
                          const struct kt_key *subject_key, struct kt_buf *out, struct kt_issued *info,
                          struct kt_err *err);
enum kt_code kt_pki_self_sign(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                              struct kt_issued *info, struct kt_err *err);
/*
 * What answers tls-alpn-01 for a DNS name or an address (RFC 8737 section 3, RFC 8738): a P-256 key that nobody else has
 * and a self-signed certificate with that one name and, critical, the SHA-256 of the key authorization. Adds the
 * certificate to out as DER; *ret_key is the key as PKCS#8 DER.
 */
enum kt_code kt_pki_acme_alpn(const char *name, struct kt_view key_authorization, kt_ms now, struct kt_buf *out,
                              struct kt_secret **ret_key, struct kt_err *err);
/* The server name of its TLS handshake: the name itself, or that of an address in in-addr.arpa or ip6.arpa. out: 256 bytes. */
void kt_pki_acme_alpn_sni(const char *name, char out[256]);


/* --- trust ------------------------------------------------------------------------------------------------------ */

/* A set of trusted CA certificates. */
struct kt_trust;

/* A bundle of PEM certificates (text between blocks is skipped, as CA bundles have it); pem empty and system true: OpenSSL's
 * default store (/etc/ssl/certs). At least one certificate, else KT_E_INVALID. */
enum kt_code kt_pki_trust_create(struct kt_view pem, struct kt_trust **ret, struct kt_err *err);
enum kt_code kt_pki_trust_create_system(struct kt_trust **ret, struct kt_err *err);
void kt_pki_trust_destroy(struct kt_trust *trust);
size_t kt_pki_trust_count(const struct kt_trust *trust); /* 0 for the system's */

/* Whether the chain (leaf first) leads to one of the roots at that wall time: KT_E_CRYPTO with OpenSSL's reason, KT_E_NOMEM. */
enum kt_code kt_pki_chain_verify(const struct kt_chain *chain, const struct kt_trust *roots, kt_ms now,
                                 struct kt_err *err);

/* --- checking what a CA gave us ------------------------------------------------------------------------------------ */

struct kt_issue_expect {
	const struct kt_key *key;                /* ours: the leaf must hold it */
	const struct kt_cert_request *request;   /* names and is_ca are compared */
	kt_ms now;                               /* wall */
	kt_ms min_remaining;                     /* not_after must be at least this far ahead */
	kt_ms skew;                              /* how far not_before may lie ahead; 0: 5 minutes */
	bool need_chain;                         /* refuse a lone leaf that isn't self-signed, unless roots know its CA */
	const struct kt_trust *roots;            /* NULL: the chain is only checked link by link */
};

/*
 * All that is checked on receipt: count, key, names (exact sets; DNS without case; a common name that is asked for may be
 * missing, or stand among the alternative names; one that isn't asked for must be one of the names), CA flag, dates, order
 * (put right in place where links allow, strangers are refused), each link by signature and CA flag, digests (no MD5,
 * SHA-1), key sizes, trust. KT_E_CRYPTO, KT_E_PROTO, KT_E_POLICY with a text that says what was wrong.
 */
enum kt_code kt_pki_check_issued(struct kt_chain *chain, const struct kt_issue_expect *expect, struct kt_err *err);

/* --- PKCS#12 --------------------------------------------------------------------------------------------------------- */

enum kt_p12_profile { KT_P12_LEGACY_RC2, KT_P12_LEGACY_DES, KT_P12_MODERN_2023, KT_P12_MODERN_2026 };
/* "LegacyRC2", "LegacyDES", "Modern2023", "Modern2026"; "" and NULL give LegacyRC2, cert-manager's default. */
enum kt_code kt_pki_p12_profile_parse(const char *name, enum kt_p12_profile *ret, struct kt_err *err);

/* Loads what a profile needs (LegacyRC2: OpenSSL's legacy provider, a file). Call it before the sandbox closes when the profile
 * is going to be used; else the first use does it. KT_E_UNSUPPORTED names what is missing. */
enum kt_code kt_pki_p12_prepare(enum kt_p12_profile profile, struct kt_err *err);

/*
 * A key store: key and leaf under `alias` (NULL: "certificate"), the rest of chain beside them. KT_E_UNSUPPORTED when
 * OpenSSL here lacks the algorithms (LegacyRC2 needs its legacy provider). password: UTF-8.
 */
enum kt_code kt_pki_p12_keystore(const struct kt_key *key, const struct kt_chain *chain, const char *alias,
                                 const struct kt_secret *password, enum kt_p12_profile profile, struct kt_secret **ret,
                                 struct kt_err *err);
/* A trust store that keytool lists as trustedCertEntry; aliases are "ca", "ca-1", ... Adds to out. */
enum kt_code kt_pki_p12_truststore(const struct kt_chain *cas, const struct kt_secret *password,
                                   enum kt_p12_profile profile, struct kt_buf *out, struct kt_err *err);

/* "ENCRYPTED PRIVATE KEY" (RFC 5958 section 3) by PBES2 with AES-256-CBC, as PEM. password: UTF-8. */
enum kt_code kt_pki_key_to_encrypted_pem(const struct kt_key *key, const struct kt_secret *password,
                                         struct kt_secret **ret, struct kt_err *err);

/* --- JKS -------------------------------------------------------------------------------------------------------------- */

/*
 * A key store in Java's first format: one PrivateKeyEntry under `alias` (NULL: "certificate"; printable ASCII, stored in small
 * letters as Java looks them up), the key protected by the store's password (UTF-8). Equal material, alias and password give
 * equal bytes; the entry's date is the leaf's not_before. KT_E_UNSUPPORTED: OpenSSL here has no SHA-1.
 */
enum kt_code kt_pki_jks_keystore(const struct kt_key *key, const struct kt_chain *chain, const char *alias,
                                 const struct kt_secret *password, struct kt_secret **ret, struct kt_err *err);
/* A trust store: a TrustedCertEntry for each CA, aliases as in kt_pki_p12_truststore. Adds to out. */
enum kt_code kt_pki_jks_truststore(const struct kt_chain *cas, const struct kt_secret *password, struct kt_buf *out,
                                   struct kt_err *err);

/* --- what others keep (store_read.c) ------------------------------------------------------------------------------------ */

/*
 * One certificate out of a file that somebody else writes, at most 192 KiB; bounded in all of it, and no private key is opened.
 * alias: which entry of a store, without regard to case; NULL: that of the first key, else the first certificate. KT_E_PROTO:
 * not such a file; KT_E_NOTFOUND: no such alias; KT_E_AUTH: wrong password; KT_E_LIMIT.
 */
/* The first CERTIFICATE block, whatever stands around it. */
enum kt_code kt_pki_pem_first(struct kt_view text, struct kt_cert **ret, struct kt_err *err);
/* password NULL: an empty one. The store's MAC is checked, unless it is a PBMAC1. */
enum kt_code kt_pki_p12_certificate(struct kt_view bytes, const char *alias, const struct kt_secret *password,
                                    struct kt_cert **ret, struct kt_err *err);
/* Needs no password: certificates are not encrypted there. The digest over the store is not looked at. */
enum kt_code kt_pki_jks_certificate(struct kt_view bytes, const char *alias, struct kt_cert **ret, struct kt_err *err);

#endif
