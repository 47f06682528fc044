/* Which solver answers, what is said when none can, and how programs are called. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/solve/solve.h"

#define ISSUER                                                                                                         \
	"{\"metadata\":{\"name\":\"ca\",\"namespace\":\"default\"},\"spec\":{\"acme\":{\"server\":\"https://ca.example/dir\","   \
	"\"privateKeySecretRef\":{\"name\":\"k\"},\"solvers\":[%s]}}}"
#define HTTP    "{\"http01\":{\"ingress\":{}}}"
#define ALPN    "{\"tlsAlpn01\":{\"listener\":\"tlsAlpn01\"}}"
#define DNS     "{\"dns01\":{\"rfc2136\":{\"nameserver\":\"127.0.0.1:53\"}}}"
#define PERSIST "{\"dnsPersist01\":{}}"
#define ZONED   "{\"dns01\":{\"rfc2136\":{\"nameserver\":\"127.0.0.1:53\"}},\"selector\":{\"dnsZones\":[\"in.example\"]}}"
#define LABEL   "{\"http01\":{\"ingress\":{}},\"selector\":{\"matchLabels\":{\"team\":\"a\"}}}"

#define T          "\"token\":\"evaGxfADs6pSRb2LAv9IZf17\""
#define O_HTTP     "{\"type\":\"http-01\"," T "}"
#define O_ALPN     "{\"type\":\"tls-alpn-01\"," T "}"
#define O_DNS      "{\"type\":\"dns-01\"," T "}"
#define O_PERSIST  "{\"type\":\"dns-persist-01\",\"issuer-domain-names\":[\"ca.example\"]}"
#define O_ACCOUNT  "{\"type\":\"dns-account-01\"}"
#define O_LATER    "{\"type\":\"smoke-signal-01\"," T "}"
#define O_TOKENLESS "{\"type\":\"http-01\"}"
#define O_ALL      O_PERSIST "," O_ACCOUNT "," O_DNS "," O_ALPN "," O_HTTP

static struct kt_resource *issuer_of(const char *solvers)
{
	struct kt_resource *issuer = NULL;
	struct kt_err err;
	char *text = kt_asprintf(ISSUER, solvers);

	kt_err_clear(&err);
	if (kt_resource_from_json(KT_RES_ISSUER, kt_view_str(text), &issuer, &err) != KT_OK)
		fail_msg("%s: %s", text, err.what);
	kt_free(text);
	return issuer;
}

static void test_choice(void **state)
{
	static const struct {
		const char *solvers, *name, *offered;
		int solver;
		unsigned challenge;
		const char *says[3]; /* of a refusal */
	} cases[] = {
	        {HTTP, "a.example", O_ALL, 0, KT_CHALLENGE_HTTP01, {NULL}},
	        {"", "a.example", O_ALL, -1, KT_CHALLENGE_HTTP01, {NULL}},
	        {ALPN, "a.example", O_ALL, 0, KT_CHALLENGE_TLS_ALPN01, {NULL}},
	        {DNS, "*.a.example", O_ALL, 0, KT_CHALLENGE_DNS01, {NULL}},
	        {PERSIST, "*.a.example", O_ALL, 0, KT_CHALLENGE_DNS_PERSIST01, {NULL}},
	        {HTTP "," DNS, "*.a.example", O_ALL, 1, KT_CHALLENGE_DNS01, {NULL}},
	        {DNS "," HTTP, "192.0.2.1", O_ALL, 1, KT_CHALLENGE_HTTP01, {NULL}},
	        {HTTP "," ZONED, "www.in.example", O_ALL, 1, KT_CHALLENGE_DNS01, {NULL}},
	        {HTTP "," ZONED, "www.in.example", O_HTTP, 0, KT_CHALLENGE_HTTP01, {NULL}},
	        {HTTP "," ZONED, "www.out.example", O_ALL, 0, KT_CHALLENGE_HTTP01, {NULL}},
	        {HTTP "," LABEL, "a.example", O_ALL, 1, KT_CHALLENGE_HTTP01, {NULL}},
	        /* what is not known, and what has no token, does not count */
	        {HTTP, "a.example", O_ACCOUNT "," O_LATER "," O_HTTP, 0, KT_CHALLENGE_HTTP01, {NULL}},
	        {HTTP, "a.example", O_TOKENLESS "," O_DNS, -1, 0, {"solvers[0] is http-01", "the CA offers dns-01", "add one of dns-01"}},
	        {ALPN, "a.example", O_HTTP "," O_DNS, -1, 0, {"the CA offers http-01, dns-01", "solvers[0] is tls-alpn-01", "Issuer/x"}},
	        {ALPN, "a.example", O_LATER, -1, 0, {"the CA offers no challenge that is known here", "it needs http-01", "a.example"}},
	        {HTTP, "*.a.example", O_DNS, -1, 0, {"*.a.example: a wildcard needs dns-01, dns-persist-01", "add one of dns-01", "Issuer/x"}},
	        {DNS, "2001:db8::1", O_ALL, -1, 0, {"an IP address needs http-01, tls-alpn-01", "add one of", "Issuer/x"}},
	        {"", "*.a.example", O_DNS, -1, 0, {"no solvers and answers http-01 only", "a wildcard", "Issuer/x"}},
	        {ZONED, "www.out.example", O_ALL, -1, 0, {"no selector", "www.out.example", "add one of http-01"}},
	};
	struct kt_pair pair = {"team", "a"};
	struct kt_pairs labels = {&pair, 1};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool none = cases[i].solvers[0] == '\0';
		struct kt_resource *issuer = issuer_of(none ? HTTP : cases[i].solvers);
		struct kt_acme acme = *issuer->issuer.acme;
		char *text = kt_asprintf("[%s]", cases[i].offered);
		json_t *offered = NULL;
		struct kt_choice choice = {0};
		struct kt_err err;
		enum kt_code code;

		kt_err_clear(&err);
		acme.solvers.count = none ? 0 : acme.solvers.count;
		assert_int_equal(kt_json_parse(kt_view_str(text), 16384, &offered, &err), KT_OK);
		code = kt_choose("Issuer/x", &acme, &labels, cases[i].name, offered, &choice, &err);
		if ((code == KT_OK) != (cases[i].challenge != 0))
			fail_msg("%zu: %s", i, err.what);
		if (code == KT_OK) {
			assert_int_equal(choice.solver, cases[i].solver);
			assert_int_equal(choice.challenge, cases[i].challenge);
			assert_string_equal(kt_json_str(choice.offer, "type"), kt_challenge_name(cases[i].challenge));
		}
		for (size_t k = 0; code != KT_OK && k < 3; k++) {
			if (strstr(err.what, cases[i].says[k]) == NULL)
				fail_msg("%zu: \"%s\" lacks \"%s\"", i, err.what, cases[i].says[k]);
		}
		json_decref(offered);
		kt_free(text);
		kt_resource_destroy(issuer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_choice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
