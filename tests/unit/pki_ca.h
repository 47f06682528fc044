/* Keys, authorities and certificates for the tests of pki. */
#ifndef TESTS_UNIT_PKI_CA_H
#define TESTS_UNIT_PKI_CA_H

#include "pki_helper.h"

#define T0 ((kt_ms)1790000000 * KT_SECOND)
#define STRS(...)                                                                                                      \
	{                                                                                                              \
		(const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)        \
	}

static inline struct kt_key *new_key(enum kt_key_type type, unsigned bits)
{
	struct kt_key *key = NULL;

	ok(kt_pki_key_generate(type, bits, &key, &err));
	return key;
}

struct ca {
	struct kt_key *key;
	struct kt_cert *cert;
	struct kt_issuer *issuer;
};

static inline struct kt_cert *parse(struct kt_buf *der)
{
	struct kt_cert *cert = NULL;

	ok(kt_pki_cert_from_der(kt_buf_view(der), &cert, &err));
	return cert;
}

static inline struct kt_cert *issue(struct kt_issuer *issuer, const struct kt_cert_request *request, const struct kt_key *key)
{
	struct kt_buf KT_AUTOBUF der;
	struct kt_issued info;
	struct kt_cert *cert;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	if (issuer != NULL)
		ok(kt_pki_issue(issuer, request, key, &der, &info, &err));
	else
		ok(kt_pki_self_sign(request, key, &der, &info, &err));
	cert = parse(&der);
	assert_string_equal(info.serial, kt_pki_cert_serial(cert));
	assert_string_equal(info.sha256, kt_pki_cert_sha256(cert));
	assert_true(info.not_before == kt_pki_cert_not_before(cert));
	assert_true(info.not_after == kt_pki_cert_not_after(cert));
	return cert;
}

static inline struct ca new_ca(const char *cn, struct ca *parent, enum kt_key_type type, unsigned bits)
{
	struct kt_cert_request request = {.common_name = cn, .is_ca = true, .usages = KT_USAGE_CERT_SIGN | KT_USAGE_CRL_SIGN,
	                                  .not_before = T0 - KT_DAY, .not_after = T0 + 3650 * KT_DAY};
	struct ca ca = {.key = new_key(type, bits)};

	ca.cert = issue(parent != NULL ? parent->issuer : NULL, &request, ca.key);
	ok(kt_pki_issuer_create(ca.cert, ca.key, &ca.issuer, &err));
	return ca;
}

static inline void free_ca(struct ca *ca)
{
	kt_pki_issuer_destroy(ca->issuer);
	kt_pki_cert_destroy(ca->cert);
	kt_pki_key_destroy(ca->key);
}

#endif
