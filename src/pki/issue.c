/* Certificate requests and certificates, written as DER by ourselves: several times faster than OpenSSL's objects. */
#include "pki/pki_internal.h"

#include <string.h>

#define SERIAL_LEN 16
#define KEY_ID_LEN 20
#define URLS_MAX 16

static const uint8_t oid_ext_request[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e};
static const uint8_t oid_ski[] = {0x55, 0x1d, 0x0e};
static const uint8_t oid_aki[] = {0x55, 0x1d, 0x23};
static const uint8_t oid_crl[] = {0x55, 0x1d, 0x1f};
static const uint8_t oid_aia[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01};
static const uint8_t oid_acme[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f}; /* id-pe-acmeIdentifier */
static const uint8_t oid_ocsp[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01};
static const uint8_t oid_ca_issuers[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02};

struct kt_issuer {
	struct kt_signer signer;
	struct kt_key *key;
	uint8_t *name; /* subject of the CA, DER */
	size_t name_len;
	uint8_t key_id[64];
	size_t key_id_len;
	kt_ms not_before, not_after;
	int path_len;
};

/* --- request -------------------------------------------------------------------------------------------------------- */

static enum kt_code put_csr_info(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                                 struct kt_err *err)
{
	size_t info = kt_der_open(out, DER_SEQUENCE), attrs, attr, set, exts;
	enum kt_code code;
	bool empty;

	kt_der_small(out, 0);
	code = kt_pki_dn_encode(request, out, &empty, err);
	if (code != KT_OK)
		return code;
	kt_buf_add(out, key->spki, key->spki_len);
	attrs = kt_der_open(out, DER_CONTEXT_CONS(0));
	attr = kt_der_open(out, DER_SEQUENCE);
	kt_der_put(out, DER_OID, oid_ext_request, sizeof(oid_ext_request));
	set = kt_der_open(out, DER_SET);
	exts = kt_der_open(out, DER_SEQUENCE);
	code = kt_pki_extensions_encode(request, empty, true, out, err);
	if (code != KT_OK)
		return code;
	kt_der_close(out, exts);
	kt_der_close(out, set);
	kt_der_close(out, attr);
	kt_der_close(out, attrs);
	kt_der_close(out, info);
	return kt_buf_check(out, "certificate request", err);
}

enum kt_code kt_pki_csr_der(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                            struct kt_err *err)
{
	struct kt_signer signer;
	enum kt_signature sig;
	enum kt_code code;
	size_t outer, start, info_len;

	code = kt_pki_signature_for(key, request->signature, &sig, err);
	if (code != KT_OK)
		return code;
	outer = kt_der_open(out, DER_SEQUENCE);
	start = out->len;
	code = put_csr_info(request, key, out, err);
	if (code == KT_OK)
		code = kt_signer_init(&signer, key, sig, err);
	if (code != KT_OK)
		return code;
	info_len = out->len - start;
	kt_pki_signature_alg(out, sig);
	code = kt_buf_check(out, "certificate request", err);
	if (code == KT_OK)
		code = kt_signer_sign(&signer, out->ptr + start, info_len, out, err);
	kt_signer_finish(&signer);
	kt_der_close(out, outer);
	return code == KT_OK ? kt_buf_check(out, "certificate request", err) : code;
}

enum kt_code kt_pki_csr_pem(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                            struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF der;
	enum kt_code code;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	code = kt_pki_csr_der(request, key, &der, err);
	if (code != KT_OK)
		return code;
	kt_pki_pem_encode(out, "CERTIFICATE REQUEST", kt_buf_view(&der));
	return kt_buf_check(out, "certificate request", err);
}

/* --- certificate ---------------------------------------------------------------------------------------------------- */

/* RFC 7093 section 2 (1): independent of SHA-1. */
static void key_id_of(const struct kt_key *key, uint8_t out[KEY_ID_LEN])
{
	uint8_t digest[KT_SHA256_LEN];

	kt_sha256(key->spki + key->bits_at, key->spki_len - key->bits_at, digest);
	memcpy(out, digest, KEY_ID_LEN);
}

static enum kt_code check_urls(const char *kind, const struct kt_strs *urls, struct kt_err *err)
{
	if (urls->count > URLS_MAX)
		return kt_err_set(err, KT_E_INVALID, "%s: at most %d URLs", kind, URLS_MAX);
	for (size_t i = 0; i < urls->count; i++) {
		size_t len = strlen(urls->at[i]);

		if (strstr(urls->at[i], ":") == NULL || len > 1024)
			return kt_err_set(err, KT_E_INVALID, "%s: \"%.100s\" is no URL", kind, urls->at[i]);
		for (size_t c = 0; c < len; c++)
			if (urls->at[i][c] <= ' ' || urls->at[i][c] >= 0x7f)
				return kt_err_set(err, KT_E_INVALID, "%s: \"%.100s\" is no URL", kind, urls->at[i]);
	}
	return KT_OK;
}

static void put_url(struct kt_buf *out, const char *url)
{
	kt_der_put(out, DER_CONTEXT(6), url, strlen(url));
}

static void put_access(struct kt_buf *out, const uint8_t *oid, size_t oid_len, const struct kt_strs *urls)
{
	for (size_t i = 0; i < urls->count; i++) {
		size_t seq = kt_der_open(out, DER_SEQUENCE);

		kt_der_put(out, DER_OID, oid, oid_len);
		put_url(out, urls->at[i]);
		kt_der_close(out, seq);
	}
}

static void put_crl_points(struct kt_buf *out, const struct kt_strs *urls)
{
	struct kt_ext_mark mark = kt_pki_ext_open(out, oid_crl, sizeof(oid_crl), false);
	size_t seq = kt_der_open(out, DER_SEQUENCE);

	for (size_t i = 0; i < urls->count; i++) {
		size_t point = kt_der_open(out, DER_SEQUENCE);
		size_t name = kt_der_open(out, DER_CONTEXT_CONS(0));
		size_t full = kt_der_open(out, DER_CONTEXT_CONS(0));

		put_url(out, urls->at[i]);
		kt_der_close(out, full);
		kt_der_close(out, name);
		kt_der_close(out, point);
	}
	kt_der_close(out, seq);
	kt_pki_ext_close(out, mark);
}

/* What only certificates have: key identifiers and where to find the CA's things. */
static enum kt_code put_issuer_extensions(const struct kt_issuer *issuer, const struct kt_cert_request *request,
                                          const struct kt_key *subject, struct kt_buf *out, struct kt_err *err)
{
	uint8_t id[KEY_ID_LEN];
	struct kt_ext_mark mark;
	enum kt_code code;
	size_t seq;

	key_id_of(subject, id);
	mark = kt_pki_ext_open(out, oid_ski, sizeof(oid_ski), false);
	kt_der_put(out, DER_OCTETS, id, sizeof(id));
	kt_pki_ext_close(out, mark);
	if (issuer != NULL && issuer->key_id_len > 0) {
		mark = kt_pki_ext_open(out, oid_aki, sizeof(oid_aki), false);
		seq = kt_der_open(out, DER_SEQUENCE);
		kt_der_put(out, DER_CONTEXT(0), issuer->key_id, issuer->key_id_len);
		kt_der_close(out, seq);
		kt_pki_ext_close(out, mark);
	}
	code = check_urls("ocspServers", &request->ocsp_urls, err);
	if (code == KT_OK)
		code = check_urls("issuingCertificateURLs", &request->issuer_urls, err);
	if (code == KT_OK)
		code = check_urls("crlDistributionPoints", &request->crl_urls, err);
	if (code != KT_OK)
		return code;
	if (request->ocsp_urls.count + request->issuer_urls.count > 0) {
		mark = kt_pki_ext_open(out, oid_aia, sizeof(oid_aia), false);
		seq = kt_der_open(out, DER_SEQUENCE);
		put_access(out, oid_ocsp, sizeof(oid_ocsp), &request->ocsp_urls);
		put_access(out, oid_ca_issuers, sizeof(oid_ca_issuers), &request->issuer_urls);
		kt_der_close(out, seq);
		kt_pki_ext_close(out, mark);
	}
	if (request->crl_urls.count > 0)
		put_crl_points(out, &request->crl_urls);
	if (request->acme_digest != NULL) {
		mark = kt_pki_ext_open(out, oid_acme, sizeof(oid_acme), true);
		kt_der_put(out, DER_OCTETS, request->acme_digest, KT_SHA256_LEN);
		kt_pki_ext_close(out, mark);
	}
	return KT_OK;
}

/* The part that is signed. issuer NULL: self-signed. */
static enum kt_code put_tbs(const struct kt_issuer *issuer, const struct kt_cert_request *request,
                            const struct kt_key *subject, enum kt_signature sig, const uint8_t serial[SERIAL_LEN],
                            struct kt_buf *out, struct kt_err *err)
{
	size_t tbs = kt_der_open(out, DER_SEQUENCE), pos, seq;
	struct kt_buf KT_AUTOBUF name;
	enum kt_code code;
	bool empty = true;

	kt_buf_init(&name, KT_PKI_DER_MAX);
	code = kt_pki_dn_encode(request, &name, &empty, err);
	if (code != KT_OK)
		return code;
	if (empty && request->is_ca)
		return kt_err_set(err, KT_E_INVALID, "a CA certificate needs a common name or a subject");
	pos = kt_der_open(out, DER_CONTEXT_CONS(0));
	kt_der_small(out, 2);
	kt_der_close(out, pos);
	kt_der_put(out, DER_INTEGER, serial, SERIAL_LEN);
	kt_pki_signature_alg(out, sig);
	if (issuer != NULL)
		kt_buf_add(out, issuer->name, issuer->name_len);
	else
		kt_buf_add(out, name.ptr, name.len);
	seq = kt_der_open(out, DER_SEQUENCE);
	kt_der_time(out, request->not_before);
	kt_der_time(out, request->not_after);
	kt_der_close(out, seq);
	kt_buf_add(out, name.ptr, name.len);
	kt_buf_add(out, subject->spki, subject->spki_len);
	pos = kt_der_open(out, DER_CONTEXT_CONS(3));
	seq = kt_der_open(out, DER_SEQUENCE);
	code = kt_pki_extensions_encode(request, empty, false, out, err);
	if (code == KT_OK)
		code = put_issuer_extensions(issuer, request, subject, out, err);
	if (code != KT_OK)
		return code;
	kt_der_close(out, seq);
	kt_der_close(out, pos);
	kt_der_close(out, tbs);
	return kt_buf_check(out, "certificate", err);
}

static void fill_info(const struct kt_cert_request *request, const uint8_t serial[SERIAL_LEN], const char *der,
                      size_t len, struct kt_issued *info)
{
	static const char digits[] = "0123456789abcdef";

	if (info == NULL)
		return;
	memset(info, 0, sizeof(*info));
	for (size_t i = 0; i < SERIAL_LEN; i++) {
		info->serial[2 * i] = digits[serial[i] >> 4];
		info->serial[2 * i + 1] = digits[serial[i] & 15];
	}
	kt_sha256_hex(der, len, info->sha256);
	info->not_before = request->not_before / KT_SECOND * KT_SECOND;
	info->not_after = request->not_after / KT_SECOND * KT_SECOND;
}

static enum kt_code make_certificate(const struct kt_issuer *issuer, struct kt_signer *signer,
                                     const struct kt_cert_request *request, const struct kt_key *subject,
                                     struct kt_buf *out, struct kt_issued *info, struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();
	uint8_t serial[SERIAL_LEN];
	size_t start = out->len, outer, tbs_at, tbs_len;
	enum kt_code code;

	if (request->not_before < 0 || request->not_after <= request->not_before || request->not_after > KT_TIME_MAX)
		return kt_err_set(err, KT_E_INVALID, "the certificate would end before it begins");
	kt_rand_bytes(serial, sizeof(serial));
	serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, and always of the same length */
	outer = kt_der_open(out, DER_SEQUENCE);
	tbs_at = out->len;
	code = put_tbs(issuer, request, subject, signer->sig, serial, out, err);
	if (code != KT_OK)
		return kt_pki_settle(code, failures, err);
	tbs_len = out->len - tbs_at;
	kt_pki_signature_alg(out, signer->sig);
	code = kt_buf_check(out, "certificate", err);
	if (code == KT_OK)
		code = kt_signer_sign(signer, out->ptr + tbs_at, tbs_len, out, err);
	kt_der_close(out, outer);
	if (code == KT_OK)
		code = kt_buf_check(out, "certificate", err);
	if (code == KT_OK)
		fill_info(request, serial, out->ptr + start, out->len - start, info);
	return kt_pki_settle(code, failures, err);
}

/* --- issuers ---------------------------------------------------------------------------------------------------------- */

static enum kt_code issuer_fill(struct kt_issuer *issuer, const struct kt_cert *cert, struct kt_err *err)
{
	const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(cert->x509);
	const uint8_t *der = NULL;
	size_t len = 0;

	if (X509_NAME_get0_der(X509_get_subject_name(cert->x509), &der, &len) != 1)
		return kt_pki_openssl_err(err, KT_E_CRYPTO, "the CA's name");
	issuer->name = kt_malloc(len);
	if (issuer->name == NULL)
		return kt_err_set(err, KT_E_NOMEM, "issuer: out of memory");
	memcpy(issuer->name, der, len);
	issuer->name_len = len;
	if (ski != NULL && ASN1_STRING_length(ski) <= (int)sizeof(issuer->key_id)) {
		issuer->key_id_len = (size_t)ASN1_STRING_length(ski);
		memcpy(issuer->key_id, ASN1_STRING_get0_data(ski), issuer->key_id_len);
	}
	issuer->not_before = cert->not_before;
	issuer->not_after = cert->not_after;
	issuer->path_len = (int)X509_get_pathlen(cert->x509);
	return KT_OK;
}

static enum kt_code issuer_create(const struct kt_cert *cert, const struct kt_key *key, struct kt_issuer **ret,
                                  struct kt_err *err)
{
	struct kt_issuer *issuer;
	enum kt_signature sig;
	enum kt_code code;

	if (!kt_pki_cert_has_key(cert, key))
		return kt_err_set(err, KT_E_CRYPTO, "the CA's private key is not that of its certificate (%s)",
		                  kt_pki_cert_subject(cert));
	if (!cert->is_ca)
		return kt_err_set(err, KT_E_POLICY, "%s is no CA certificate (basicConstraints CA:TRUE is missing)",
		                  kt_pki_cert_subject(cert));
	if ((X509_get_extension_flags(cert->x509) & EXFLAG_KUSAGE) != 0 && (cert->usages & KT_USAGE_CERT_SIGN) == 0)
		return kt_err_set(err, KT_E_POLICY, "%s may not sign certificates (key usage)", kt_pki_cert_subject(cert));
	issuer = kt_calloc(1, sizeof(*issuer));
	if (issuer == NULL)
		return kt_err_set(err, KT_E_NOMEM, "issuer: out of memory");
	code = kt_pki_signature_for(key, KT_SIG_DEFAULT, &sig, err);
	if (code == KT_OK)
		code = kt_signer_init(&issuer->signer, key, sig, err);
	if (code == KT_OK)
		code = issuer_fill(issuer, cert, err);
	if (code == KT_OK && EVP_PKEY_up_ref(key->pkey) == 1)
		code = kt_pki_key_wrap(key->pkey, true, &issuer->key, err);
	if (code != KT_OK) {
		kt_pki_issuer_destroy(issuer);
		return code;
	}
	*ret = issuer;
	return KT_OK;
}

enum kt_code kt_pki_issuer_create(const struct kt_cert *cert, const struct kt_key *key, struct kt_issuer **ret,
                                  struct kt_err *err)
{
	uint64_t failures = kt_mem_failures();

	return kt_pki_settle(issuer_create(cert, key, ret, err), failures, err);
}

void kt_pki_issuer_destroy(struct kt_issuer *issuer)
{
	if (issuer == NULL)
		return;
	kt_signer_finish(&issuer->signer);
	kt_pki_key_destroy(issuer->key);
	kt_free(issuer->name);
	kt_free(issuer);
}

kt_ms kt_pki_issuer_not_after(const struct kt_issuer *issuer)
{
	return issuer->not_after;
}

kt_ms kt_pki_issuer_not_before(const struct kt_issuer *issuer)
{
	return issuer->not_before;
}

int kt_pki_issuer_path_len(const struct kt_issuer *issuer)
{
	return issuer->path_len;
}

enum kt_code kt_pki_issue(struct kt_issuer *issuer, const struct kt_cert_request *request,
                          const struct kt_key *subject_key, struct kt_buf *out, struct kt_issued *info,
                          struct kt_err *err)
{
	struct kt_signer other;
	enum kt_signature sig;
	enum kt_code code;

	if (request->is_ca && issuer->path_len == 0)
		return kt_err_set(err, KT_E_POLICY, "this CA may not issue further CAs (its path length is 0)");
	if (request->signature == KT_SIG_DEFAULT || request->signature == issuer->signer.sig ||
	    kt_pki_signature_for(issuer->key, request->signature, &sig, NULL) != KT_OK)
		return make_certificate(issuer, &issuer->signer, request, subject_key, out, info, err);
	code = kt_signer_init(&other, issuer->key, sig, err);
	if (code == KT_OK) {
		code = make_certificate(issuer, &other, request, subject_key, out, info, err);
		kt_signer_finish(&other);
	}
	return code;
}

enum kt_code kt_pki_self_sign(const struct kt_cert_request *request, const struct kt_key *key, struct kt_buf *out,
                              struct kt_issued *info, struct kt_err *err)
{
	struct kt_signer signer;
	enum kt_signature sig;
	enum kt_code code;

	code = kt_pki_signature_for(key, request->signature, &sig, err);
	if (code == KT_OK)
		code = kt_signer_init(&signer, key, sig, err);
	if (code != KT_OK)
		return code;
	code = make_certificate(NULL, &signer, request, key, out, info, err);
	kt_signer_finish(&signer);
	return code;
}
