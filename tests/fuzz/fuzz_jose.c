/* JWKS and JWTs: as a key set, as a token looked into, and as a token verified against one of our keys. */
#include <string.h>

#include "fuzz.h"
#include "kt/jose.h"
#include "kt/json.h"

static struct kt_jwks *ours;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_key *key = NULL;
	struct kt_buf set;
	struct kt_err err;

	(void)argc, (void)argv;
	kt_json_init();
	FUZZ_MUST(kt_pki_init(&err) == KT_OK);
	FUZZ_MUST(kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, &err) == KT_OK);
	kt_buf_init(&set, 8192);
	kt_buf_adds(&set, "{\"keys\":[");
	FUZZ_MUST(kt_jose_jwk_published(key, KT_JOSE_ES256, "k1", &set, &err) == KT_OK);
	kt_buf_adds(&set, "]}");
	FUZZ_MUST(kt_jose_jwks_parse(kt_buf_view(&set), &ours, &err) == KT_OK);
	kt_buf_finish(&set);
	kt_pki_key_destroy(key);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_jwt_rules rules = {.now = 1800000000000, .leeway = 60000, .iss = "https://as.example"};
	struct kt_view view = {(const char *)data, size};
	struct kt_jwks *set = NULL;
	struct kt_jwt jwt;
	struct kt_err err;

	if (kt_jose_jwks_parse(view, &set, &err) == KT_OK) {
		FUZZ_MUST(kt_jose_jwks_count(set) > 0 && kt_jose_jwks_count(set) <= KT_JOSE_JWKS_MAX);
		for (size_t i = 0; i < kt_jose_jwks_count(set); i++) {
			FUZZ_MUST(kt_jose_jwks_kid(set, i) != NULL && kt_jose_jwks_key(set, i) != NULL);
			FUZZ_MUST(!kt_pki_key_is_private(kt_jose_jwks_key(set, i)));
		}
		(void)kt_jose_jwt_verify(view, set, &rules, NULL, &err);
		kt_jose_jwks_destroy(set);
	}
	if (kt_jose_jwt_peek(view, &jwt, &err) == KT_OK) {
		FUZZ_MUST(json_is_object(jwt.header) && json_is_object(jwt.claims));
		kt_jose_jwt_finish(&jwt);
	}
	FUZZ_MUST(kt_jose_jwt_verify(view, ours, &rules, NULL, &err) != KT_OK);
	return 0;
}
