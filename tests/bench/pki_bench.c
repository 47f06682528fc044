/* Certificates a second for key generation and issuing, beside the floor: EVP_EC_gen and one ECDSA signature. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kt/jose.h"
#include "kt/pki.h"

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void must(enum kt_code code, const struct kt_err *err)
{
	if (code == KT_OK)
		return;
	fprintf(stderr, "pki_bench: %s\n", err->what);
	exit(1);
}

static const char *const names[] = {"www.bench.example", "bench.example"};
static const struct kt_cert_request leaf_request = {
        .common_name = "www.bench.example",
        .dns_names = {names, 2},
        .usages = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_KEY_ENCIPHERMENT | KT_USAGE_SERVER_AUTH,
        .not_before = (kt_ms)1780000000 * KT_SECOND,
        .not_after = (kt_ms)1787776000 * KT_SECOND,
};

static double report(const char *what, int count, double seconds)
{
	double us = seconds * 1e6 / count;

	printf("%-44s %8.1f us %10.0f /s\n", what, us, 1e6 / us);
	return us;
}

static double floor_cost(int count)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char data[600] = {1}, sig[128];
	double start = now_s();

	for (int i = 0; i < count; i++) {
		EVP_PKEY *key = EVP_EC_gen("P-256");
		size_t len = sizeof(sig);

		EVP_MD_CTX_reset(ctx);
		if (EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
		    EVP_DigestSign(ctx, sig, &len, data, sizeof(data)) != 1)
			exit(1);
		EVP_PKEY_free(key);
	}
	EVP_MD_CTX_free(ctx);
	return report("floor: EVP_EC_gen + one ECDSA signature", count, now_s() - start);
}

static struct kt_issuer *make_ca(void)
{
	struct kt_cert_request request = {.common_name = "bench CA", .is_ca = true, .not_before = leaf_request.not_before,
	                                  .not_after = leaf_request.not_after * 2};
	struct kt_buf KT_AUTOBUF der;
	struct kt_issuer *issuer = NULL;
	struct kt_cert *cert = NULL;
	struct kt_key *key = NULL;
	struct kt_err err;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	must(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err), &err);
	must(kt_pki_self_sign(&request, key, &der, NULL, &err), &err);
	must(kt_pki_cert_from_der(kt_buf_view(&der), &cert, &err), &err);
	must(kt_pki_issuer_create(cert, key, &issuer, &err), &err);
	kt_pki_cert_destroy(cert);
	kt_pki_key_destroy(key);
	return issuer;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 5000;
	struct kt_buf KT_AUTOBUF der;
	struct kt_issued info;
	struct kt_issuer *ca;
	struct kt_key *key = NULL;
	struct kt_err err;
	uint8_t digest[KT_SHA256_LEN];
	double start, low, gen, all;

	kt_buf_init(&der, KT_PKI_DER_MAX);
	must(kt_pki_init(&err), &err);
	ca = make_ca();
	low = floor_cost(count);

	start = now_s();
	for (int i = 0; i < count; i++) {
		kt_pki_key_destroy(key);
		must(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err), &err);
	}
	gen = report("kt_pki_key_generate P-256", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++) {
		kt_buf_reset(&der);
		must(kt_pki_issue(ca, &leaf_request, key, &der, &info, &err), &err);
	}
	report("kt_pki_issue", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++) {
		struct kt_key *fresh = NULL;

		kt_buf_reset(&der);
		must(kt_pki_key_generate(KT_KEY_ECDSA, 256, &fresh, &err), &err);
		must(kt_pki_issue(ca, &leaf_request, fresh, &der, &info, &err), &err);
		kt_pki_key_destroy(fresh);
	}
	all = report("key + certificate", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++) {
		struct kt_secret *sealed = NULL, *pem = NULL;

		must(kt_pki_key_to_der(key, KT_KEY_PKCS8, &sealed, &err), &err);
		must(kt_pki_key_to_pem(key, KT_KEY_PKCS1, &pem, &err), &err);
		kt_secret_destroy(sealed);
		kt_secret_destroy(pem);
	}
	report("key as PKCS#8 DER and PEM", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++) {
		struct kt_secret *sealed = NULL;
		struct kt_key *back = NULL;

		must(kt_pki_key_to_der(key, KT_KEY_PKCS8, &sealed, &err), &err);
		must(kt_pki_key_from_der(kt_secret_view(sealed), &back, &err), &err);
		kt_pki_key_destroy(back);
		kt_secret_destroy(sealed);
	}
	report("key read back from PKCS#8 DER", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++) {
		struct kt_cert *cert = NULL;

		must(kt_pki_cert_from_der(kt_buf_view(&der), &cert, &err), &err);
		kt_pki_cert_destroy(cert);
	}
	report("certificate parsed", count, now_s() - start);

	start = now_s();
	for (int i = 0; i < count; i++)
		kt_sha256(der.ptr, der.len, digest);
	report("kt_sha256 of a certificate", count, now_s() - start);

	printf("floor / (key + certificate): %.0f %%, on top of key generation %.1f us\n", 100 * low / all, all - gen);
	kt_pki_key_destroy(key);
	kt_pki_issuer_destroy(ca);
	kt_buf_finish(&der);
	kt_pki_finish();
	return 0;
}
