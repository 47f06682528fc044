/* PEM and DER from the network and from disk: chains, certificates, keys, and the check of what a CA gave. */
#include <string.h>

#include "fuzz.h"
#include "kt/pki.h"

static struct kt_key *ours;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_err err;

	(void)argc, (void)argv;
	FUZZ_MUST(kt_pki_init(&err) == KT_OK);
	FUZZ_MUST(kt_pki_key_generate(KT_KEY_ECDSA, 256, &ours, &err) == KT_OK);
	return 0;
}

static void look_at(const struct kt_cert *cert)
{
	KT_AUTOBUF struct kt_buf out;
	struct kt_key *key = NULL;
	struct kt_err err;

	kt_buf_init(&out, 1u << 20);
	FUZZ_MUST(kt_pki_cert_serial(cert) != NULL && kt_pki_cert_subject(cert) != NULL);
	FUZZ_MUST(kt_pki_cert_issuer(cert) != NULL && strlen(kt_pki_cert_sha256(cert)) == 64);
	(void)kt_pki_cert_common_name(cert);
	for (size_t i = 0; i < 8; i++) {
		(void)kt_pki_cert_name(cert, i);
	}
	(void)kt_pki_cert_has_key(cert, ours);
	(void)kt_pki_cert_self_issued(cert);
	(void)kt_pki_cert_ari_id(cert, &out, &err);
	if (kt_pki_cert_key(cert, &key, &err) == KT_OK) {
		(void)kt_pki_key_same_public(key, ours);
		kt_pki_key_destroy(key);
	}
	FUZZ_MUST(kt_pki_cert_pem(cert, &out, &err) == KT_OK);
}

static void chain(struct kt_chain *got)
{
	const char *const names[] = {"a.example"};
	struct kt_cert_request request = {.dns_names = {names, 1}};
	struct kt_issue_expect expect = {.key = ours, .request = &request, .now = 1800000000000, .min_remaining = 1000};
	KT_AUTOBUF struct kt_buf pem, root;
	struct kt_err err;

	kt_buf_init(&pem, KT_PKI_CHAIN_BYTES_MAX);
	kt_buf_init(&root, KT_PKI_CHAIN_BYTES_MAX);
	FUZZ_MUST(kt_pki_chain_count(got) > 0);
	for (size_t i = 0; i < kt_pki_chain_count(got); i++) {
		look_at(kt_pki_chain_at(got, i));
	}
	(void)kt_pki_chain_split(got, &pem, &root, &err);
	/* Nobody but this process has the key. */
	FUZZ_MUST(kt_pki_check_issued(got, &expect, &err) != KT_OK);
	kt_pki_chain_destroy(got);
}

static void key(struct kt_key *got)
{
	struct kt_secret *der = NULL;
	struct kt_err err;

	if (kt_pki_key_is_private(got) && kt_pki_key_to_der(got, KT_KEY_PKCS8, &der, &err) == KT_OK) {
		kt_secret_destroy(der);
	}
	kt_pki_key_destroy(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view view = {(const char *)data, size};
	struct kt_chain *got_chain = NULL;
	struct kt_trust *trust = NULL;
	struct kt_key *got_key = NULL;
	struct kt_err err;

	if (kt_pki_chain_parse(view, &got_chain, &err) == KT_OK || kt_pki_chain_from_der(view, &got_chain, &err) == KT_OK) {
		chain(got_chain);
	}
	if (kt_pki_key_from_pem(view, &got_key, &err) == KT_OK || kt_pki_key_from_der(view, &got_key, &err) == KT_OK ||
	    kt_pki_key_from_public(view, &got_key, &err) == KT_OK) {
		key(got_key);
	}
	if (kt_pki_trust_create(view, &trust, &err) == KT_OK) {
		kt_pki_trust_destroy(trust);
	}
	return 0;
}
