/* A client's id and secret: the pair, the calls of the servers, where a secret is tried. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "keeper/client/client.h"

static struct kt_client one = {.client_id = "abc", .id = "41"};
static struct kt_client_anypoint anypoint = {.url = "https://eu1.anypoint.mulesoft.com/", .organization = "org"};
static struct kt_client_okta okta = {.org_url = "https://acme.okta.com"};

static void test_pair(void **state)
{
	static const char *const bad[] = {"", "two\nlines", "a\rb"};
	struct kt_secret *pair = NULL;
	struct kt_view id, secret;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_client_pair_make(kt_view_str("id"), kt_view_str("s e:c\xc3\xa9t"), &pair, &err), KT_OK);
	assert_true(kt_client_pair_split(pair, &id, &secret));
	assert_true(kt_view_eq_str(id, "id"));
	assert_true(kt_view_eq_str(secret, "s e:c\xc3\xa9t"));
	kt_secret_destroy(pair);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(kt_client_pair_make(kt_view_str("id"), kt_view_str(bad[i]), &pair, &err), KT_E_PROTO);
		assert_null(strstr(err.what, "lines"));
		assert_int_equal(kt_client_pair_make(kt_view_str(bad[i]), kt_view_str("x"), &pair, &err), KT_E_PROTO);
	}
	assert_int_equal(kt_secret_create("abc", 3, &pair, &err), KT_OK);
	assert_false(kt_client_pair_split(pair, &id, &secret));
	assert_false(kt_client_pair_split(NULL, &id, &secret));
	kt_secret_destroy(pair);
}

static void check_call(const struct kt_client_credential_spec *spec, enum kt_client_what what, const char *method,
                       const char *url)
{
	struct kt_client_ask ask = {.what = what, .client = &one, .id = "ocs7", .index = 1};
	struct kt_client_call call;
	struct kt_err err;

	assert_int_equal(kt_client_call_init(spec, &ask, &call, &err), KT_OK);
	assert_string_equal(call.method, method);
	assert_string_equal(call.url, url);
}

static void test_calls(void **state)
{
	struct kt_client_credential_spec spec = {.issuer.anypoint = &anypoint};
	struct kt_client_ask ask = {.what = KT_CLIENT_LIST, .client = &one};
	struct kt_client_call call;
	struct kt_err err;

	(void)state;
	check_call(&spec, KT_CLIENT_MAKE, "PATCH",
	           "https://eu1.anypoint.mulesoft.com/accounts/api/organizations/org/connectedApplications/41?resetSecret=true");
	anypoint.kind = KT_ANYPOINT_ENVIRONMENT_CLIENT;
	check_call(&spec, KT_CLIENT_MAKE, "PATCH",
	           "https://eu1.anypoint.mulesoft.com/accounts/api/organizations/org/clients/41?resetSecret=true");
	anypoint.kind = KT_ANYPOINT_APPLICATION_CONTRACT;
	check_call(&spec, KT_CLIENT_MAKE, "POST",
	           "https://eu1.anypoint.mulesoft.com/exchange/api/v2/organizations/org/applications/41/secret/reset");
	anypoint.kind = KT_ANYPOINT_CONNECTED_APP;
	anypoint.organization = NULL;
	one.id = NULL;
	check_call(&spec, KT_CLIENT_MAKE, "PATCH",
	           "https://eu1.anypoint.mulesoft.com/accounts/api/connectedApplications/abc?resetSecret=true");
	assert_int_equal(kt_client_call_init(&spec, &ask, &call, &err), KT_E_UNSUPPORTED);
	spec = (struct kt_client_credential_spec){.issuer.okta = &okta};
	check_call(&spec, KT_CLIENT_MAKE, "POST", "https://acme.okta.com/api/v1/apps/abc/credentials/secrets");
	check_call(&spec, KT_CLIENT_LIST, "GET", "https://acme.okta.com/api/v1/apps/abc/credentials/secrets");
	check_call(&spec, KT_CLIENT_DEACTIVATE, "POST",
	           "https://acme.okta.com/api/v1/apps/abc/credentials/secrets/ocs7/lifecycle/deactivate");
	check_call(&spec, KT_CLIENT_DELETE, "DELETE", "https://acme.okta.com/api/v1/apps/abc/credentials/secrets/ocs7");
	assert_true(kt_client_overlaps(&spec));
}

static void test_where_it_is_tried(void **state)
{
	struct kt_client_test test = {.token_url = "https://login.example/token", .method = KT_AUTH_SECRET_BASIC};
	struct kt_client_credential_spec spec = {.issuer.anypoint = &anypoint};
	struct kt_oauth2_issuer oauth2;
	struct kt_token_spec wanted;
	char url[2048];

	(void)state;
	anypoint.kind = KT_ANYPOINT_CONNECTED_APP;
	assert_true(kt_client_test_of(&spec, &one, url, &oauth2, &wanted));
	assert_string_equal(oauth2.token_url, "https://eu1.anypoint.mulesoft.com/accounts/api/v2/oauth2/token");
	assert_int_equal(oauth2.profile, KT_PROFILE_ANYPOINT);
	assert_string_equal(oauth2.auth.client_id, "abc");
	anypoint.kind = KT_ANYPOINT_APPLICATION_CONTRACT;
	assert_false(kt_client_test_of(&spec, &one, url, &oauth2, &wanted));
	spec.test = &test;
	assert_true(kt_client_test_of(&spec, &one, url, &oauth2, &wanted));
	assert_string_equal(oauth2.token_url, "https://login.example/token");
	assert_int_equal(oauth2.auth.method, KT_AUTH_SECRET_BASIC);
}

static int set_up(void **state)
{
	(void)state;
	return kt_secret_init(NULL) == KT_OK ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_pair), cmocka_unit_test(test_calls),
	                                   cmocka_unit_test(test_where_it_is_tried)};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
