/* Alignment without files: patterns, audiences, and what each reader answers to a call. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "cli/align/align_internal.h"
#include "kt/json.h"
#include "kt/mem.h"

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern, *value;
		bool open;
		enum kt_tri result;
	} rows[] = {
		{"a/b", "a/b", false, KT_YES}, {"a/b", "a/c", false, KT_NO},    {"a/*", "a/b", false, KT_YES},
		{"a/*", "b/a", false, KT_NO},  {"*/b", "a/b", false, KT_YES},   {"*/b", "a/c", false, KT_NO},
		{"*", "a", false, KT_YES},     {"*", "", false, KT_NO},         {"", "a", false, KT_NO},
		{"i/*", "i/", true, KT_YES},   {"i/s*", "i/", true, KT_MAYBE},  {"i/sub", "i/", true, KT_MAYBE},
		{"j/sub", "i/", true, KT_NO},  {"*/sub", "i/", true, KT_MAYBE}, {"j/*", "i/", true, KT_NO},
		{"abc*", "ab", false, KT_NO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (kt_align_pattern(rows[i].pattern, rows[i].value, rows[i].open) != rows[i].result) {
			fail_msg("%s of %s", rows[i].pattern, rows[i].value);
		}
	}
}

static void test_comparisons(void **state)
{
	(void)state;
	assert_true(kt_align_envoy_audience("https://a/b", "http://a/b/"));
	assert_true(kt_align_envoy_audience("a", "https://a"));
	assert_false(kt_align_envoy_audience("https://a/b//", "https://a/b"));
	assert_false(kt_align_envoy_audience("https://A", "https://a"));
	assert_false(kt_align_envoy_audience("", "a"));
	assert_true(kt_align_loosely("HTTPS://a", "https://A") == false); /* a scheme is written small */
	assert_true(kt_align_loosely("https://a/b/", "http://A/B"));
	assert_false(kt_align_loosely("/", "/"));
	assert_false(kt_align_loosely(NULL, "a"));
	assert_true(kt_align_same_host("https://a.b/c", "http://A.b"));
	assert_false(kt_align_same_host("https://a.b:1/c", "http://A.b"));
	assert_true(kt_align_same_path("https://a/c/d", "http://b/c/d"));
}

/* --- calls ---------------------------------------- */

#define OURS                                                                                                           \
	"apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: t}\n"                                   \
	"spec: {local: {issuerURL: 'https://t.example'}}\n---\n"                                                       \
	"apiVersion: keyturn.dev/v1alpha1\nkind: Token\nmetadata: {name: a}\n"                                         \
	"spec: {secretName: a, issuerRef: {name: t}, audiences: ['https://api'], claims: {subject: s}}\n---\n"         \
	"apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: o}\n"                                   \
	"spec: {oauth2: {issuer: 'https://o.example', auth: {clientID: c, clientSecretRef: {name: s}}}}\n---\n"        \
	"apiVersion: keyturn.dev/v1alpha1\nkind: Token\nmetadata: {name: b}\n"                                         \
	"spec: {secretName: b, issuerRef: {name: o}, audiences: ['https://api']}\n---\n"                               \
	"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: c}\n"                                     \
	"spec: {secretName: c, uris: ['spiffe://td.example/ns/default/sa/s'], issuerRef: {name: i}}\n"

#define ISTIO(kind, spec)                                                                                              \
	"---\n{apiVersion: security.istio.io/v1, kind: " kind ", metadata: {name: x}, spec: " spec "}\n"
#define RA(rule) ISTIO("RequestAuthentication", "{jwtRules: [" rule "]}")
#define AP(spec) ISTIO("AuthorizationPolicy", spec)
#define GOOD     RA("{issuer: 'https://t.example', audiences: [api]}")

static enum kt_code take_ours(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	return kt_align_add(arg, resource, err);
}

static enum kt_code take_foreign(void *arg, struct kt_foreign *foreign, struct kt_err *err)
{
	return kt_align_add_foreign(arg, foreign, err);
}

static struct kt_align *make(const char *foreign)
{
	struct kt_align *align;
	struct kt_report report;
	struct kt_err err;

	kt_report_init(&report);
	assert_int_equal(kt_align_create(&align, &err), KT_OK);
	assert_int_equal(kt_manifest_read(kt_view_str(OURS), "ours", take_ours, align, &report, &err), KT_OK);
	assert_int_equal(kt_foreign_read(kt_view_str(foreign), "theirs", take_foreign, align, &report, &err), KT_OK);
	assert_int_equal(report.errors, 0);
	assert_int_equal(kt_align_ready(align, &err), KT_OK);
	kt_report_finish(&report);
	return align;
}

static const struct {
	const char *foreign, *token, *certificate;
	bool expired;
	int status;
	bool certain; /* all rows */
} calls[] = {
	{GOOD, "a", "-", false, 200, true},
	{GOOD, "a", "-", true, 401, true},
	{GOOD, NULL, "-", false, 200, true},
	{GOOD, "b", "-", false, 401, true},
	{RA("{issuer: 'https://t.example', audiences: [other]}"), "a", "-", false, 403, true},
	/* expired comes before the audience, the audience before the keys */
	{RA("{issuer: 'https://t.example', audiences: [other]}"), "a", "-", true, 401, true},
	{RA("{issuer: 'https://t.example', audiences: [other], jwksUri: 'https://t.example/x'}"), "a", "-", false, 403,
	 true},
	{RA("{issuer: 'https://t.example', jwksUri: 'https://t.example/x'}"), "a", "-", false, 401, true},
	{RA("{issuer: 'https://t.example'}, {issuer: 'https://o.example'}"), "b", "-", false, 200, true},
	{GOOD AP("{}"), "a", "c", false, 403, true},
	{GOOD AP("{rules: [{}]}"), NULL, "-", false, 200, true},
	{GOOD AP("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}"), "a", "-", false, 200, true},
	{GOOD AP("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}"), NULL, "-", false, 403, true},
	{GOOD AP("{rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}"), NULL, "-", false, 200, true},
	{AP("{rules: [{from: [{source: {principals: ['td.example/ns/default/sa/s']}}]}]}"), NULL, "c", false, 200,
	 true},
	{AP("{rules: [{from: [{source: {principals: ['td.example/ns/default/sa/s']}}]}]}"), NULL, "-", false, 403,
	 true},
	/* the mesh may call its trust domain td.example */
	{AP("{rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/s']}}]}]}"), NULL, "c", false, 200,
	 false},
	{AP("{rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/t']}}]}]}"), NULL, "c", false, 403,
	 true},
	/* of a server elsewhere, only iss and aud are known */
	{RA("{issuer: 'https://o.example'}")
		 AP("{rules: [{from: [{source: {requestPrincipals: ['https://o.example/*']}}]}]}"),
	 "b", "-", false, 200, true},
	{RA("{issuer: 'https://o.example'}")
		 AP("{rules: [{from: [{source: {requestPrincipals: ['https://o.example/x']}}]}]}"),
	 "b", "-", false, 200, false},
	{RA("{issuer: 'https://o.example'}")
		 AP("{rules: [{when: [{key: 'request.auth.claims[roles]', values: [x]}]}]}"),
	 "b", "-", false, 200, false},
	/* DENY goes before ALLOW, and one that may hit is no refusal */
	{GOOD AP("{action: DENY, rules: [{from: [{source: {namespaces: [default]}}]}]}") AP("{rules: [{}]}"), "a", "c",
	 false, 403, true},
	{GOOD AP("{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}") AP("{rules: [{}]}"), "a", "c", false,
	 200, false},
	{ISTIO("PeerAuthentication", "{mtls: {mode: STRICT}}"), "a", "-", false, 0, true},
	{ISTIO("PeerAuthentication", "{mtls: {mode: PERMISSIVE}}"), "a", "-", false, 200, true},
	{"{jwtOrigin: httpBearerAuthenticationHeader, signingMethod: es, jwksUrl: 'https://t.example/jwks.json'}", "a",
	 "-", false, 200, true},
	{"{jwtOrigin: httpBearerAuthenticationHeader, signingMethod: es, jwksUrl: 'https://t.example/jwks.json'}", NULL,
	 "-", false, 400, true},
	{"{jwtOrigin: httpBearerAuthenticationHeader, jwksUrl: 'https://t.example/jwks.json'}", "a", "-", false, 401,
	 true},
	{"{jwtOrigin: httpBearerAuthenticationHeader, jwksUrl: 'https://o.example/k'}", "b", "-", false, 200, false},
};

static void test_calls(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct kt_align_call call = {
			.token = calls[i].token, .certificate = calls[i].certificate, .expired = calls[i].expired};
		struct kt_align *align = make(calls[i].foreign);
		KT_AUTOJSON json_t *rows = NULL;
		bool certain = true;
		struct kt_err err;
		int status;

		assert_int_equal(kt_align_predict(align, &call, &rows, &status, &err), KT_OK);
		for (size_t k = 0; k < json_array_size(rows); k++) {
			certain &= kt_json_bool(json_array_get(rows, k), "certain", false);
		}
		if (status != calls[i].status || certain != calls[i].certain) {
			fail_msg("row %zu: %d%s", i, status, certain ? "" : "?");
		}
		kt_align_destroy(align);
	}
}

static void test_names(void **state)
{
	struct kt_align *align = make(GOOD);
	struct kt_align_call call = {.token = "default/a"};
	KT_AUTOJSON json_t *rows = NULL;
	json_t *none = NULL;
	struct kt_err err;
	int status;

	(void)state;
	assert_int_equal(kt_align_predict(align, &call, &rows, &status, &err), KT_OK);
	call.token = "else/a";
	assert_int_equal(kt_align_predict(align, &call, &none, &status, &err), KT_E_NOTFOUND);
	assert_null(none);
	call = (struct kt_align_call){.token = "a", .certificate = "x"};
	assert_int_equal(kt_align_predict(align, &call, &none, &status, &err), KT_E_NOTFOUND);
	kt_align_destroy(align);
}

/* The Token that is meant for a hop is the one that is named; others with the same issuer are not complained about. */
static void test_findings(void **state)
{
	struct kt_align *align =
		make(GOOD AP("{rules: [{from: [{source: {requestPrincipals: ['https://t.example/x']}}]}]}"));
	KT_AUTOJSON json_t *findings = kt_align_findings(align);
	bool found = false;

	(void)state;
	for (size_t i = 0; i < json_array_size(findings); i++) {
		const json_t *one = json_array_get(findings, i);

		if (kt_json_int(one, "status", -1) == 403) {
			assert_string_equal(kt_json_str(one, "token"), "default/a");
			assert_string_equal(kt_json_str(one, "field"),
					    "spec.rules[0].from[0].source.requestPrincipals");
			assert_non_null(strstr(kt_json_str(one, "mend"), "https://t.example/s"));
			found = true;
		}
	}
	assert_true(found);
	kt_align_destroy(align);
}

/* Every allocation fails once: an error that says so, or the same result as ever; no crash, nothing leaked. */
static void test_nomem(void **state)
{
	static const char foreign[] =
		RA("{issuer: 'https://t.example/', audiences: [other, api], jwksUri: 'https://x/y'}")
			AP("{selector: {matchLabels: {a: b, c: d}}, rules: [{from: [{source: {principals: [a]}}], "
			   "when: [{key: source.ip, "
			   "values: [x]}]}]}") "---\n{policies: [{assetId: jwt-validation, configuration: {jwksUrl: "
					       "'https://a/b,https://c/d', validateAudClaim: "
					       "true, supportedAudiences: 'x, y', validateCustomClaim: true, "
					       "mandatoryCustomClaims: [{key: iss, value: z}]}}]}\n";
	unsigned good = 0;

	(void)state;
	for (int64_t n = 0; n < 2000 && good < 3; n++) {
		uint64_t before = kt_mem_failures();
		struct kt_align *align = NULL;
		json_t *findings = NULL;
		struct kt_report report;
		struct kt_err err;
		enum kt_code code;

		kt_report_init(&report);
		kt_mem_fail_after(n, 0);
		code = kt_align_create(&align, &err);
		if (code == KT_OK) {
			code = kt_manifest_read(kt_view_str(OURS), "ours", take_ours, align, &report, &err);
		}
		if (code == KT_OK) {
			code = kt_foreign_read(kt_view_str(foreign), "theirs", take_foreign, align, &report, &err);
		}
		if (code == KT_OK) {
			code = kt_align_ready(align, &err);
		}
		if (code == KT_OK && (findings = kt_align_findings(align)) == NULL) {
			code = KT_E_NOMEM;
		}
		kt_mem_fail_after(-1, 0);
		if (code != KT_OK) {
			assert_int_equal(code, KT_E_NOMEM);
		}
		good += kt_mem_failures() == before ? 1 : 0;
		if (kt_mem_failures() == before) {
			assert_true(code == KT_OK && json_array_size(findings) >= 3);
		}
		json_decref(findings);
		kt_align_destroy(align);
		kt_report_finish(&report);
	}
	assert_true(good == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns), cmocka_unit_test(test_comparisons), cmocka_unit_test(test_calls),
		cmocka_unit_test(test_names),    cmocka_unit_test(test_findings),    cmocka_unit_test(test_nomem),
	};

	kt_json_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
