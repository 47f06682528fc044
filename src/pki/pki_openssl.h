/* The one door through which OpenSSL's types leave pki/: for the courier's SSL_CTX. */
#ifndef KT_PKI_OPENSSL_H
#define KT_PKI_OPENSSL_H

#include <openssl/types.h>

#include "kt/pki.h"

/* Borrowed; take a reference (X509_STORE_up_ref, EVP_PKEY_up_ref, X509_up_ref) to keep it. */
X509_STORE *kt_pki_trust_store(const struct kt_trust *trust);
EVP_PKEY *kt_pki_key_evp(const struct kt_key *key);
/* Without its key when it comes from kt_pki_chain_parse_for. */
X509 *kt_pki_cert_x509(const struct kt_cert *cert);

#endif
