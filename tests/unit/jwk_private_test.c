/* Tests of private keys as JWK: the key of RFC 7515, wrong members, halves that do not belong together. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/json.h"

/* RFC 7515 appendix A.3. */
#define EC_X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC_D "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"

/* Made for this test. */
static const char rsa[] =
        "{\"kty\":\"RSA\","
        "\"n\":\"npOkKPNleDubfO1eQrJeBclhwDTq661wXAb1nDRGcz_wl7Ua2CR-tiwTeC7A1tJCx6qMgHSm_aap5_PeLkJdNZaV6gaf2wt7F4ov"
        "JNvviux50Ce9tIgTboLs3Cwmd7HqeemKgMa70kXePYptao6kWqUXlrTnOmmPlDB_P38KQ1BMx489TKImPA5jEUnY7JYjxD5xIdh-"
        "rFbGOi96U-btxmJM-zq5WoJLCLdZzfHyRX-hN1KIdAQfvwNTwH0a7TfK4fY-QWl3AOaCV8lmgXiU4Ak6f-Jiibt-MVgfuC943Omm"
        "cDdAZ9XfMzNDeFDAljxX90TfA07wFd_JKjSCwrGMOQ\","
        "\"e\":\"AQAB\","
        "\"d\":\"Ej2oNlwyHbuYkg0haMFpApgkxgXoSHojyLg1uDVErdTq7V6EIx0GlNi62BojrUpUK3DNNukEPPz3AiMZmX9hhqym27vNl1Ypn35y"
        "GBazBitXw0eRATNebdnCWny7I41cDBA-0fuaRxCppPFXjvhvxCwFq7ytNPlHzmtqNcD8qpujjLizFwNMSyYXQ6aCNXWQXjEBWtm8"
        "nH0PUtg094Cr2aDhOQouU6ue7Qp0X9TuG7mFb7ppfnh_wtwCTSdYEYaqFIJO8MOSaNwTgAWYcgGwk5GZg061nFF02ToBLV6RNk5A"
        "5wnFMOfd8O6alLf34PRwkrtI3ss2YZE8dP57DA8WwQ\","
        "\"p\":\"zuFQs5e7AfBXFyeKZ1LGz82_8ti-r-OTkcLuHh3fTOTnqkujdWwvcsIKXdKbDNHp6oJCzieq7AU-OK-2WQBo4cnGp734pBnHekBs"
        "bBON-krmHLbIiG9xE0-ga6sSg6lMHOIv__NUgjoTTwa29fAO6BC07vQv21E9JwE746bsREE\","
        "\"q\":\"xDpTT1ZtAiB7ejllhszrujP9Gf-YOlTbRViv-2SEulXPAqNi1onyzpwCRQMvrSOOrcfMhUnxHron0UXFqLgz9FvJyEBqMRoEVRFG"
        "8uVGmUQyCuUjjMUXRlCilrPiG_t0GdfDYvNueYjnQsMf9DEAZP-XGGLk4yu4fTbDwVvE6fk\","
        "\"dp\":\"awcUCiV4QROG6tqw9q1TX5RxNoC9fh99a85uBDSuHojZ9Tc2dHwou_T5Cfr37hT3MDR9vUu2WG6J9yeobbkRiaYq2QMmDDeuBGgp"
        "72vaat-u1rIVYshMtpHeS3VwmZ7PWq4F6SOI1-qVrK-rnea4v4RNJsY7r_oCahhwVGE6IEE\","
        "\"dq\":\"fL-Xtxh6tJ9x4IIcyVX9hqMGhUC4xlysCaoYNvnwZ4Wl1UeJzlpkwnTr_HPKG4g_bLtYimQ3phEyvxhcUKbKYM75uRU6bXzcxDf3"
        "ovOfrlBsgACsWRHzegBJXQV--csiREunK4EW-qzOWOMzrUp5tbvHkvlMCiABaZknWgW9agE\","
        "\"qi\":\"IgSm09rvx1aEDu3Lmfo5qoLKeuJ3dCGKipyY-9cA_31ulTPdjeJvFFmlJ-qgL99Y5fnWwl1as8vlBk3wwUGFI7v2hHHhRTwtZE4R"
        "DLg0htWDjoV-_GPqjntcAQL3el3j8gdFqyLQ2qBHrKZFw4wuyyHiq7yE94V6ga-0ubvbs5Q\"}";

static enum kt_code read_ec(const char *crv, const char *x, const char *y, const char *d, struct kt_key **ret)
{
	char text[1024];
	struct kt_err err;

	(void)snprintf(text, sizeof(text), "{\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"%s\",\"y\":\"%s\",\"d\":\"%s\"}", crv, x, y, d);
	return kt_jose_jwk_private(kt_view_str(text), ret, &err);
}

static void test_ec(void **state)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_buf out KT_AUTOBUF = {0};
	struct kt_err err;

	(void)state;
	assert_int_equal(read_ec("P-256", EC_X, EC_Y, EC_D, &key), KT_OK);
	assert_true(kt_pki_key_is_private(key));
	kt_buf_init(&out, 1024);
	assert_int_equal(kt_jose_jwk(key, &out, &err), KT_OK);
	assert_string_equal(out.ptr, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}");
}

static void test_rsa(void **state)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_err err;
	enum kt_code code = kt_jose_jwk_private(kt_view_str(rsa), &key, &err);

	(void)state;
	if (code != KT_OK) {
		fail_msg("%s", err.what);
	}
	assert_int_equal(kt_pki_key_type(key), KT_KEY_RSA);
	assert_int_equal(kt_pki_key_bits(key), 2048);
}

static void test_wrong(void **state)
{
	static const char *const texts[] = {
	        "", "[]", "{}", "{\"kty\":\"oct\",\"k\":\"AAAA\"}", "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
	        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}", "{\"kty\":\"EC\",\"x\":\"AA\",\"y\":\"AA\",\"d\":\"AA\"}",
	};
	struct kt_key *key = NULL;
	struct kt_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_not_equal(kt_jose_jwk_private(kt_view_str(texts[i]), &key, &err), KT_OK);
		assert_null(key);
	}
	assert_int_equal(read_ec("P-192", EC_X, EC_Y, EC_D, &key), KT_E_CRYPTO);
	assert_int_equal(read_ec("P-384", EC_X, EC_Y, EC_D, &key), KT_E_CRYPTO); /* a point that is not on it */
	assert_int_equal(read_ec("P-256", EC_X, EC_Y, "AQ", &key), KT_E_CRYPTO); /* another private half */
	assert_int_equal(read_ec("P-256", EC_X EC_X, EC_Y, EC_D, &key), KT_E_CRYPTO);
	assert_int_equal(read_ec("P-256", "!!", EC_Y, EC_D, &key), KT_E_CRYPTO);
	assert_null(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ec), cmocka_unit_test(test_rsa), cmocka_unit_test(test_wrong)};
	struct kt_err err;

	kt_json_init();
	return kt_pki_init(&err) == KT_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
