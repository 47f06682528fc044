/* A parsed certificate: OpenSSL parses, we take out and escape once what others ask for. */
#include "pki/pki_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdatomic.h>
#include <string.h>

#define TEXT_MAX 512
#define NAME_TEXT_MAX 4096

static kt_ms time_of(const ASN1_TIME *t)
{
	struct tm tm;

	if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1)
		return 0;
	return kt_time_civil(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* Printable ASCII as it is, everything else as \xNN; the end is cut. */
char *kt_pki_escape(const uint8_t *data, size_t len, size_t max)
{
	static const char digits[] = "0123456789abcdef";
	struct kt_buf KT_AUTOBUF out;

	kt_buf_init(&out, max);
	for (size_t i = 0; i < len && out.len + 8 < max; i++) {
		if (data[i] >= 0x20 && data[i] < 0x7f && data[i] != '\\') {
			kt_buf_addc(&out, (char)data[i]);
		} else {
			const char hex[4] = {'\\', 'x', digits[data[i] >> 4], digits[data[i] & 15]};

			kt_buf_add(&out, hex, sizeof(hex));
		}
	}
	return kt_buf_steal(&out, NULL);
}

void kt_pki_lower(char *text)
{
	for (; *text != '\0'; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

static char *name_text(const X509_NAME *name)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL, *data;
	long len;

	if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
		len = BIO_get_mem_data(bio, &data);
		text = kt_strndup(data, (size_t)(len > TEXT_MAX ? TEXT_MAX : len));
	}
	BIO_free(bio);
	return text;
}

static char *common_name_text(const X509_NAME *name)
{
	int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1), len;
	unsigned char *utf8 = NULL;
	char *text = NULL;

	if (at < 0)
		return NULL;
	len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
	if (len >= 0)
		text = kt_pki_escape(utf8, (size_t)len, TEXT_MAX);
	OPENSSL_free(utf8);
	return text;
}

static enum kt_code take_serial(struct kt_cert *cert, struct kt_err *err)
{
	static const char digits[] = "0123456789abcdef";
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert->x509);
	const uint8_t *bytes = ASN1_STRING_get0_data(serial);
	size_t len = (size_t)ASN1_STRING_length(serial), at = 0;

	/* RFC 5280 4.1.2.2: at most 20; some are a little longer in the wild. */
	if (len > 30)
		return kt_err_set(err, KT_E_PROTO, "a serial number of %zu bytes", len);
	if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER)
		cert->serial[at++] = '-';
	for (size_t i = 0; i < len; i++) {
		cert->serial[at++] = digits[bytes[i] >> 4];
		cert->serial[at++] = digits[bytes[i] & 15];
	}
	if (len == 0)
		memcpy(cert->serial, "00", 3);
	return KT_OK;
}

/* --- alternative names -------------------------------------------------------------------------------------------- */

static char *prefixed(const char *prefix, const ASN1_STRING *text, bool lower)
{
	char *escaped = kt_pki_escape(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text), NAME_TEXT_MAX), *out;

	if (escaped == NULL)
		return NULL;
	if (lower)
		kt_pki_lower(escaped);
	out = kt_asprintf("%s:%s", prefix, escaped);
	kt_free(escaped);
	return out;
}

static char *ip_text(const ASN1_OCTET_STRING *ip)
{
	char text[INET6_ADDRSTRLEN] = "";
	int len = ASN1_STRING_length(ip);

	if ((len != 4 && len != 16) ||
	    inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), text, sizeof(text)) == NULL)
		return kt_strdup("unknown:7");
	return kt_asprintf("ip:%s", text);
}

static char *other_text(const OTHERNAME *other)
{
	char oid[128] = "", prefix[144];

	if (other->value == NULL || other->value->type != V_ASN1_UTF8STRING ||
	    OBJ_obj2txt(oid, sizeof(oid), other->type_id, 1) <= 0)
		return kt_strdup("unknown:0");
	snprintf(prefix, sizeof(prefix), "other:%s", oid);
	return prefixed(prefix, other->value->value.utf8string, false);
}

static char *general_name_text(const GENERAL_NAME *name)
{
	switch (name->type) {
	case GEN_DNS:
		return prefixed("dns", name->d.dNSName, true);
	case GEN_EMAIL:
		return prefixed("email", name->d.rfc822Name, false);
	case GEN_URI:
		return prefixed("uri", name->d.uniformResourceIdentifier, false);
	case GEN_IPADD:
		return ip_text(name->d.iPAddress);
	case GEN_OTHERNAME:
		return other_text(name->d.otherName);
	default:
		return kt_asprintf("unknown:%d", name->type);
	}
}

static enum kt_code take_names(struct kt_cert *cert, struct kt_err *err)
{
	KT_AUTOSSL(GENERAL_NAMES) names = NULL;
	int critical = 0, count;

	names = X509_get_ext_d2i(cert->x509, NID_subject_alt_name, &critical, NULL);
	if (names == NULL) {
		if (critical != -1) /* there, but unreadable or there twice */
			cert->broken = true;
		return KT_OK;
	}
	count = sk_GENERAL_NAME_num(names);
	cert->names = kt_calloc((size_t)count + 1, sizeof(char *));
	for (int i = 0; cert->names != NULL && i < count; i++) {
		char *text = general_name_text(sk_GENERAL_NAME_value(names, i));

		if (text == NULL)
			return kt_err_set(err, KT_E_NOMEM, "certificate: out of memory");
		cert->names[cert->name_count++] = text;
	}
	return cert->names != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "certificate: out of memory");
}

static void take_usages(struct kt_cert *cert)
{
	uint32_t flags = X509_get_extension_flags(cert->x509), usage = X509_get_key_usage(cert->x509);
	static const struct {
		uint32_t theirs, ours;
	} map[] = {
	        {KU_DIGITAL_SIGNATURE, KT_USAGE_DIGITAL_SIGNATURE},
	        {KU_NON_REPUDIATION, KT_USAGE_CONTENT_COMMITMENT},
	        {KU_KEY_ENCIPHERMENT, KT_USAGE_KEY_ENCIPHERMENT},
	        {KU_DATA_ENCIPHERMENT, KT_USAGE_DATA_ENCIPHERMENT},
	        {KU_KEY_AGREEMENT, KT_USAGE_KEY_AGREEMENT},
	        {KU_KEY_CERT_SIGN, KT_USAGE_CERT_SIGN},
	        {KU_CRL_SIGN, KT_USAGE_CRL_SIGN},
	        {KU_ENCIPHER_ONLY, KT_USAGE_ENCIPHER_ONLY},
	        {KU_DECIPHER_ONLY, KT_USAGE_DECIPHER_ONLY},
	};
	EXTENDED_KEY_USAGE *eku;

	for (size_t i = 0; (flags & EXFLAG_KUSAGE) != 0 && i < sizeof(map) / sizeof(map[0]); i++)
		if ((usage & map[i].theirs) != 0)
			cert->usages |= map[i].ours;
	if ((flags & EXFLAG_INVALID) != 0)
		cert->broken = true;
	cert->is_ca = (flags & EXFLAG_CA) != 0;
	if ((flags & EXFLAG_XKUSAGE) == 0)
		return;
	eku = X509_get_ext_d2i(cert->x509, NID_ext_key_usage, NULL, NULL);
	for (int i = 0; eku != NULL && i < sk_ASN1_OBJECT_num(eku); i++) {
		const ASN1_OBJECT *obj = sk_ASN1_OBJECT_value(eku, i);

		cert->usages |= kt_pki_eku_bit(OBJ_get0_data(obj), OBJ_length(obj));
	}
	EXTENDED_KEY_USAGE_free(eku);
}

/* The SubjectPublicKeyInfo as it stands in the certificate; empty when it can't be had. */
static struct kt_view spki_of(const struct kt_cert *cert, uint8_t **owned)
{
	int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert->x509), owned);

	return len > 0 ? (struct kt_view){(const char *)*owned, (size_t)len} : (struct kt_view){NULL, 0};
}

static EVP_PKEY *pkey_of(const struct kt_cert *cert)
{
	return cert->own != NULL ? cert->own : X509_get0_pubkey(cert->x509);
}

static void take_key(struct kt_cert *cert)
{
	EVP_PKEY *pkey = pkey_of(cert);

	if (pkey == NULL) {
		cert->broken = true;
		return;
	}
	cert->key_bits = (unsigned)EVP_PKEY_get_bits(pkey);
	cert->key_type = KT_KEY_ECDSA;
	if (EVP_PKEY_is_a(pkey, "RSA") || EVP_PKEY_is_a(pkey, "RSA-PSS"))
		cert->key_type = KT_KEY_RSA;
	else if (EVP_PKEY_is_a(pkey, "ED25519"))
		cert->key_type = KT_KEY_ED25519;
	else if (!EVP_PKEY_is_a(pkey, "EC"))
		cert->broken = true;
	if (cert->key_type == KT_KEY_ED25519)
		cert->key_bits = 256;
}

static enum kt_code fill(struct kt_cert *cert, struct kt_view der, struct kt_err *err)
{
	enum kt_code code = take_serial(cert, err);
	char *copy;

	if (code != KT_OK)
		return code;
	copy = kt_malloc(der.len);
	cert->subject = name_text(X509_get_subject_name(cert->x509));
	cert->issuer = name_text(X509_get_issuer_name(cert->x509));
	cert->common_name = common_name_text(X509_get_subject_name(cert->x509));
	if (copy == NULL || cert->subject == NULL || cert->issuer == NULL) {
		kt_free(copy);
		return kt_err_set(err, KT_E_NOMEM, "certificate: out of memory");
	}
	memcpy(copy, der.ptr, der.len);
	cert->der = (struct kt_view){copy, der.len};
	kt_sha256_hex(der.ptr, der.len, cert->sha256);
	cert->not_before = time_of(X509_get0_notBefore(cert->x509));
	cert->not_after = time_of(X509_get0_notAfter(cert->x509));
	take_usages(cert);
	take_key(cert);
	code = take_names(cert, err);
	ERR_clear_error(); /* what can't be read is remembered in `broken` */
	return code;
}

enum kt_code kt_pki_cert_for_key(struct kt_view der, const struct kt_key *key, struct kt_cert **ret, struct kt_err *err)
{
	const unsigned char *p = (const unsigned char *)der.ptr;
	uint64_t failures = kt_mem_failures();
	struct kt_cert *cert;
	enum kt_code code;

	if (der.len == 0 || der.len > KT_PKI_DER_MAX)
		return kt_err_set(err, der.len == 0 ? KT_E_PROTO : KT_E_LIMIT, "a certificate of %zu bytes", der.len);
	cert = kt_calloc(1, sizeof(*cert));
	if (cert == NULL)
		return kt_err_set(err, KT_E_NOMEM, "certificate: out of memory");
	cert->x509 = key != NULL ? kt_pki_keyless_read(der, key) : NULL;
	if (cert->x509 != NULL && EVP_PKEY_up_ref(key->pkey) == 1) {
		cert->own = key->pkey;
		p += der.len;
	} else {
		X509_free(cert->x509);
		ERR_clear_error();
		cert->x509 = d2i_X509(NULL, &p, (long)der.len);
	}
	if (cert->x509 == NULL)
		code = kt_pki_openssl_err(err, KT_E_PROTO, "not a certificate");
	else if (p != (const unsigned char *)der.ptr + der.len)
		code = kt_err_set(err, KT_E_PROTO, "bytes follow the certificate");
	else
		code = fill(cert, der, err);
	/* An extension that there was no memory for looks like one that is not there. */
	if (code == KT_OK && kt_mem_failures() != failures)
		code = kt_err_set(err, KT_E_NOMEM, "certificate: out of memory");
	if (code != KT_OK) {
		kt_pki_cert_destroy(cert);
		return code;
	}
	*ret = cert;
	return KT_OK;
}

enum kt_code kt_pki_cert_from_der(struct kt_view der, struct kt_cert **ret, struct kt_err *err)
{
	return kt_pki_cert_for_key(der, NULL, ret, err);
}

X509 *kt_pki_cert_whole(const struct kt_cert *cert)
{
	const unsigned char *p = (const unsigned char *)cert->der.ptr;

	if (cert->own != NULL)
		return d2i_X509(NULL, &p, (long)cert->der.len);
	return X509_up_ref(cert->x509) == 1 ? cert->x509 : NULL;
}

void kt_pki_cert_destroy(struct kt_cert *cert)
{
	if (cert == NULL || atomic_fetch_sub(&cert->more, 1) > 0)
		return;
	X509_free(cert->x509);
	EVP_PKEY_free(cert->own);
	kt_free((void *)(uintptr_t)cert->der.ptr);
	kt_free(cert->subject);
	kt_free(cert->issuer);
	kt_free(cert->common_name);
	for (size_t i = 0; i < cert->name_count; i++)
		kt_free(cert->names[i]);
	kt_free(cert->names);
	kt_free(cert);
}

/* --- accessors ---------------------------------------------------------------------------------------------------- */

struct kt_view kt_pki_cert_der(const struct kt_cert *cert)
{
	return cert->der;
}

const char *kt_pki_cert_serial(const struct kt_cert *cert)
{
	return cert->serial;
}

kt_ms kt_pki_cert_not_before(const struct kt_cert *cert)
{
	return cert->not_before;
}

kt_ms kt_pki_cert_not_after(const struct kt_cert *cert)
{
	return cert->not_after;
}

const char *kt_pki_cert_subject(const struct kt_cert *cert)
{
	return cert->subject;
}

const char *kt_pki_cert_issuer(const struct kt_cert *cert)
{
	return cert->issuer;
}

const char *kt_pki_cert_sha256(const struct kt_cert *cert)
{
	return cert->sha256;
}

bool kt_pki_cert_is_ca(const struct kt_cert *cert)
{
	return cert->is_ca;
}

bool kt_pki_cert_self_issued(const struct kt_cert *cert)
{
	return X509_NAME_cmp(X509_get_subject_name(cert->x509), X509_get_issuer_name(cert->x509)) == 0;
}

bool kt_pki_cert_same(const struct kt_cert *a, const struct kt_cert *b)
{
	return kt_view_eq(a->der, b->der);
}

const char *kt_pki_cert_common_name(const struct kt_cert *cert)
{
	return cert->common_name;
}

size_t kt_pki_cert_name_count(const struct kt_cert *cert)
{
	return cert->name_count;
}

const char *kt_pki_cert_name(const struct kt_cert *cert, size_t index)
{
	return index < cert->name_count ? cert->names[index] : NULL;
}

uint32_t kt_pki_cert_usages(const struct kt_cert *cert)
{
	return cert->usages;
}

enum kt_key_type kt_pki_cert_key_type(const struct kt_cert *cert)
{
	return cert->key_type;
}

unsigned kt_pki_cert_key_bits(const struct kt_cert *cert)
{
	return cert->key_bits;
}

X509 *kt_pki_cert_x509(const struct kt_cert *cert)
{
	return cert->x509;
}

bool kt_pki_cert_has_key(const struct kt_cert *cert, const struct kt_key *key)
{
	EVP_PKEY *pkey = pkey_of(cert);
	bool same = pkey != NULL && (pkey == key->pkey || EVP_PKEY_eq(pkey, key->pkey) == 1);

	ERR_clear_error();
	return same;
}

enum kt_code kt_pki_cert_key(const struct kt_cert *cert, struct kt_key **ret, struct kt_err *err)
{
	uint8_t *owned = NULL;
	struct kt_view spki = spki_of(cert, &owned);
	enum kt_code code = kt_pki_key_from_public(spki, ret, err);

	OPENSSL_free(owned);
	return code;
}

bool kt_pki_cert_issued_by(const struct kt_cert *cert, const struct kt_cert *issuer)
{
	EVP_PKEY *pkey = pkey_of(issuer);
	bool ok = pkey != NULL &&
	          X509_NAME_cmp(X509_get_issuer_name(cert->x509), X509_get_subject_name(issuer->x509)) == 0 &&
	          (cert->own != NULL ? kt_pki_keyless_verify(cert, pkey) : X509_verify(cert->x509, pkey) == 1);

	ERR_clear_error();
	return ok;
}

enum kt_code kt_pki_cert_ari_id(const struct kt_cert *cert, struct kt_buf *out, struct kt_err *err)
{
	const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(cert->x509);
	const ASN1_INTEGER *serial = X509_get0_serialNumber(cert->x509);
	const uint8_t *bytes = ASN1_STRING_get0_data(serial);
	size_t len = (size_t)ASN1_STRING_length(serial);
	uint8_t padded[32] = {0};

	if (aki == NULL)
		return kt_err_set(err, KT_E_NOTFOUND, "the certificate has no authority key identifier");
	kt_base64url_encode(out, ASN1_STRING_get0_data(aki), (size_t)ASN1_STRING_length(aki));
	kt_buf_addc(out, '.');
	/* The contents of the INTEGER: a leading zero where the first bit is set. */
	memcpy(padded + 1, bytes, len);
	if (len > 0 && (bytes[0] & 0x80) != 0)
		kt_base64url_encode(out, padded, len + 1);
	else
		kt_base64url_encode(out, padded + 1, len);
	return kt_buf_check(out, "renewal information", err);
}

enum kt_code kt_pki_cert_pem(const struct kt_cert *cert, struct kt_buf *out, struct kt_err *err)
{
	kt_pki_pem_encode(out, "CERTIFICATE", cert->der);
	return kt_buf_check(out, "certificate", err);
}
