/* The certificate that answers tls-alpn-01, RFC 8737 and RFC 8738. */
#include "pki/pki_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Looked at once, within minutes; clocks of validators may be off. */
#define LIFE  KT_DAY
#define SLACK KT_HOUR

enum kt_code kt_pki_acme_alpn(const char *name, struct kt_view key_authorization, kt_ms now, struct kt_buf *out,
                              struct kt_secret **ret_key, struct kt_err *err)
{
	uint8_t digest[KT_SHA256_LEN], address[16];
	struct kt_strs names = {&name, 1};
	struct kt_cert_request request = {.not_before = now > SLACK ? now - SLACK : 0,
	                                  .not_after = now + LIFE,
	                                  .usages = KT_USAGE_DIGITAL_SIGNATURE | KT_USAGE_SERVER_AUTH,
	                                  .acme_digest = digest};
	struct kt_key *key KT_AUTOKEY = NULL;
	enum kt_code code;
	size_t len;

	kt_sha256(key_authorization.ptr, key_authorization.len, digest);
	if (kt_pki_ip_parse(name, address, &len, NULL) == KT_OK)
		request.ip_addresses = names;
	else
		request.dns_names = names;
	code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, err);
	if (code == KT_OK)
		code = kt_pki_self_sign(&request, key, out, NULL, err);
	return code == KT_OK ? kt_pki_key_to_der(key, KT_KEY_PKCS8, ret_key, err) : code;
}

void kt_pki_acme_alpn_sni(const char *name, char out[256])
{
	uint8_t address[16];
	size_t len = 0, at = 0;

	if (kt_pki_ip_parse(name, address, &len, NULL) != KT_OK) {
		(void)snprintf(out, 256, "%s", name);
		return;
	}
	for (size_t i = len; i-- > 0;) {
		int n = len == 4 ? snprintf(out + at, 256 - at, "%u.", address[i])
		                 : snprintf(out + at, 256 - at, "%x.%x.", address[i] & 15u, address[i] >> 4);

		at += (size_t)n;
	}
	(void)snprintf(out + at, 256 - at, "%s", len == 4 ? "in-addr.arpa" : "ip6.arpa");
}
