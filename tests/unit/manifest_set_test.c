/* Whole sets: files, bundles, the example manifests, and what only all resources together show. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/manifest.h"
#include "kt/mem.h"

#define HEAD(kind, name) "---\napiVersion: keyturn.dev/v1alpha1\nkind: " kind "\nmetadata: {name: " name "}\n"
#define CM(kind, name)   "---\napiVersion: cert-manager.io/v1\nkind: " kind "\nmetadata: {name: " name "}\n"
#define SELF             CM("Issuer", "ca") "spec: {selfSigned: {}}\n" /* 5 lines */
#define CERT(name, secret)                                                                                             \
	CM("Certificate", name)                                                                                        \
	"spec:\n  secretName: " secret "\n  issuerRef: {name: ca}\n  dnsNames: [a.b]\n" /* 8 lines */
#define AT_SERVER(auth)                                                                                                \
	HEAD("TokenIssuer", "i") "spec: {oauth2: {tokenURL: \"https://a.b\", auth: {clientID: c, " auth "}}}\n"
#define CLIENT(spec) HEAD("ClientCredential", "cc") "spec: {" spec "}\n"
#define TOKEN(spec) HEAD("Token", "t") "spec: {secretName: t, issuerRef: {name: i}, " spec "}\n"

/* Says of what the store has, once. */
struct store {
	const char *has, *why;
	unsigned asked;
};

static const char *look(struct kt_set *set, void *arg)
{
	struct store *store = arg;

	store->asked++;
	for (int i = 0; i < 2000 && store->has; i++) { /* the table grows meanwhile */
		char name[32];

		snprintf(name, sizeof(name), "other%d", i);
		assert_int_equal(kt_set_know_secret(set, "default", name, NULL), KT_OK);
	}
	if (store->has)
		assert_int_equal(kt_set_know_secret(set, "default", store->has, NULL), KT_OK);
	return store->why;
}

/* known: a secret that is there (NULL: none); store: what is asked for those that are missing (NULL: nothing). */
static void read_with(const char *text, const char *known, struct store *store, struct kt_buf *out)
{
	struct kt_buf bundle;
	struct kt_report report;
	struct kt_set *set = NULL;
	struct kt_err err = {0};

	kt_buf_init(&bundle, 1 << 20);
	kt_buf_init(out, 1 << 20);
	kt_report_init(&report);
	assert_int_equal(kt_set_create(&set, &err), KT_OK);
	if (known)
		assert_int_equal(kt_set_know_secret(set, "default", known, &err), KT_OK);
	if (store)
		kt_set_look_with(set, look, store);
	kt_bundle_begin(&bundle);
	kt_bundle_add(&bundle, "f", kt_view_str(text));
	assert_int_equal(kt_manifest_read_bundle(kt_buf_view(&bundle), set, NULL, NULL, &report, &err), KT_OK);
	kt_report_format(&report, true, out);
	kt_buf_adds(out, "");
	kt_report_finish(&report);
	kt_set_destroy(set);
	kt_buf_finish(&bundle);
}

static void test_look(void **state)
{
	static const char one[] =
		CLIENT("secretName: c, clients: [{clientID: x, secretRef: {name: s}}], issuer: {static: {}}") HEAD("Consumer", "d")
			"spec: {secrets: [c]}\n";
	struct store store = {.has = "s"};
	struct kt_buf out;

	(void)state;
	read_with(one, NULL, &store, &out);
	assert_string_equal(out.ptr, "");
	assert_int_equal(store.asked, 1);
	kt_buf_finish(&out);
	store = (struct store){.has = "t"};
	read_with(one, NULL, &store, &out);
	assert_non_null(strstr(out.ptr, "that neither the manifests nor the store have; set it with keyturn secret set"));
	kt_buf_finish(&out);
	store = (struct store){.why = "it is shut"};
	read_with(one, NULL, &store, &out);
	assert_non_null(strstr(out.ptr, "nothing here provides, and the store could not be looked into (it is shut); it must"));
	kt_buf_finish(&out);
	store = (struct store){.has = "s"};
	read_with(SELF CERT("a", "x"), NULL, &store, &out);
	assert_int_equal(store.asked, 0); /* nothing is missing */
	kt_buf_finish(&out);
}

static const struct {
	const char *text, *known, *error; /* NULL: nothing at all */
} cases[] = {
	{CLIENT("secretName: c, clients: [{clientID: x}], issuer: {anypoint: {tokenRef: t}}"), NULL,
	 "f:5: spec.issuer.anypoint.tokenRef (t) names a secret that no Token has as its secretName"},
	{CLIENT("secretName: c, clients: [{clientID: x, secretRef: {name: s}}], issuer: {static: {}}") HEAD(
		 "Consumer", "d") "spec: {secrets: [c]}\n",
	 NULL, "names a secret that nothing here provides"},
	{CLIENT("secretName: x, clients: [{clientID: x, secretRef: {name: s}}], issuer: {static: {}}") SELF CERT("a", "x"), NULL,
	 "has an owner already: ClientCredential"},
	{SELF CERT("a", "a") CERT("b", "b"), NULL, NULL},
	{SELF CERT("a", "a") CERT("a", "b"), NULL,
	 "f:17: metadata.name (a) is taken: another Certificate of this name is at f:9"},
	{SELF CERT("a", "x") CERT("b", "x"), NULL,
	 "f:19: spec.secretName (x) has an owner already: Certificate at f:11"},
	{CM("Issuer", "cb") "spec: {selfSigned: {}}\n" CERT("a", "x"), NULL,
	 "f:12: spec.issuerRef.name (ca) names an Issuer that is not there, did you mean cb?"},
	{CERT("a", "x"), NULL, "names an Issuer that is not there"},
	{SELF CERT("a", "web-tls") HEAD("Consumer", "c") "spec: {secrets: [web-tsl]}\n", NULL,
	 "f:18: spec.secrets (web-tsl) names a secret that no Certificate, Token or ClientCredential has as its secretName, did you "
	 "mean web-tls?"},
	{SELF CERT("a", "a") CERT("b", "b")
		 HEAD("Consumer", "c") "spec: {volumes: [{path: /v, sources: [{secret: {name: a}}]}]}\n" HEAD(
			 "Consumer", "d") "spec: {volumes: [{path: /v/, sources: [{secret: {name: b}}]}]}\n",
	 NULL, "is the volume of the Consumer at f:26 already"},
	{SELF CERT("a", "a")
		 HEAD("Consumer", "c") "spec: {volumes: [{path: /v, sources: [{secret: {name: a}}]}]}\n" HEAD(
			 "Consumer", "d") "spec: {volumes: [{path: /v/w/x, sources: [{secret: {name: a}}]}]}\n",
	 NULL, "lies inside the volume of the Consumer"},
	{CM("Issuer", "ca") "spec: {ca: {secretName: root}}\n", NULL,
	 "f:5: warning: spec.ca.secretName (root) names a secret that nothing here provides"},
	{CM("Issuer", "ca") "spec: {ca: {secretName: root}}\n", "root", NULL},
	{HEAD("Agent", "a") "spec: {}\n" HEAD("Agent", "b") "spec: {}\n", NULL, "kind Agent is given a second time"},
	{HEAD("TokenIssuer", "i") "spec: {local: {issuerURL: \"https://a.b\"}}\n" HEAD(
		 "Token", "t") "spec: {secretName: t, issuerRef: {name: i}}\n",
	 NULL, "spec.audiences (i) must not be empty"},
	{HEAD("TokenIssuer",
	      "i") "spec: {oauth2: {tokenURL: \"https://a.b\", auth: {clientID: c, clientSecretRef: {name: "
		   "s}}}}\n" HEAD("Token", "t") "spec: {secretName: t, issuerRef: {name: i}, claims: {subject: x}}\n",
	 "s", "has a meaning only with a local TokenIssuer"},
	{AT_SERVER("method: tls_client_auth, certificateRef: web") SELF CERT("a", "web")
		 TOKEN("certificateRef: web, grant: {jwtBearer: {assertion: {tokenRef: t}}}"),
	 NULL, NULL},
	{AT_SERVER("method: tls_client_auth, certificateRef: t") TOKEN("outputs: [raw]"), NULL,
	 "f:5: spec.oauth2.auth.certificateRef (t) names a secret that no Certificate has as its secretName"},
	{AT_SERVER("method: tls_client_auth, certificateRef: web") SELF CERT("a", "web") CERT("b", "other")
		 TOKEN("certificateRef: other"),
	 NULL, "spec.certificateRef (other) is another certificate than the one in auth.certificateRef"},
	{AT_SERVER("method: none") TOKEN("outputs: [raw]"), NULL, "which can't use client_credentials"},
	{AT_SERVER("method: none") TOKEN("grant: {refreshToken: {secretRef: {name: r}}}"), "r", NULL},
	{AT_SERVER("method: none") TOKEN("grant: {refreshToken: {secretRef: {name: r}}}"), NULL,
	 "warning: spec.grant.refreshToken.secretRef.name (r) names a secret that nothing here provides"},
	{AT_SERVER("method: none") SELF CERT("a", "web") TOKEN("grant: {tokenExchange: {subject: {tokenRef: web}}}"),
	 NULL, "spec.grant.tokenExchange.subject.tokenRef (web) names a secret that no Token has as its secretName"},
	{HEAD("TokenIssuer", "i") "spec: {local: {issuerURL: \"https://a.b\"}}\n" TOKEN("audiences: [x], dpop: {}"),
	 NULL, "has a meaning only with an oauth2 TokenIssuer"},
	{SELF CERT("a", "shop") "---\napiVersion: cert-manager.io/v1\nkind: ClusterIssuer\nmetadata: {name: s}\nspec: "
				"{selfSigned: {}}\n---\napiVersion: cert-manager.io/v1\nkind: Certificate\n"
				"metadata: {name: b, namespace: shop}\nspec: {secretName: b, issuerRef: {name: s, "
				"kind: ClusterIssuer}, dnsNames: [a.b]}\n",
	 NULL, "metadata.namespace (shop) is also the folder of the secret at f:11"},
	{CM("Issuer", "le") "spec: {acme: {server: \"https://a.b/d\", privateKeySecretRef: {name: k}, solvers: "
			    "[{http01: {ingress: {}}}]}}\n",
	 NULL, "can't be answered: no Agent has spec.listeners.http01"},
	{CM("Issuer", "le") "spec: {acme: {server: \"https://a.b/d\", privateKeySecretRef: {name: k}, solvers: "
			    "[{tlsAlpn01: {}}]}}\n",
	 NULL, "no Agent has spec.listeners.tlsAlpn01"},
	{SELF CERT("a", "shop") "---\napiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c}\nspec: {secrets: [a-tls], "
				"socket: {users: [x]}}\n",
	 NULL, "spec.socket is of no use: no Agent has spec.listeners.tokens"},
	{SELF CERT("a", "shop") "---\napiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c}\nspec: {secrets: [a-tls], "
				"socket: {users: [x], secrets: [a-tls]}}\n",
	 NULL, "spec.socket.secrets"},
	{CM("Issuer", "le") "spec: {acme: {server: \"https://a.b/d\", privateKeySecretRef: {name: k}, solvers: "
			    "[{dnsPersist01: {}}]}}\n",
	 NULL, NULL},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_buf out;

		read_with(cases[i].text, cases[i].known, NULL, &out);
		if (cases[i].error ? !out.len || !strstr(out.ptr, cases[i].error) : out.len > 0)
			fail_msg("case %zu: wanted %s, got:\n%s", i, cases[i].error ? cases[i].error : "nothing",
				 out.len ? out.ptr : "nothing");
		kt_buf_finish(&out);
	}
}

static enum kt_code count(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	(void)err;
	++*(unsigned *)arg;
	kt_resource_destroy(resource);
	return KT_OK;
}

static void test_examples(void **state)
{
	static const char *const files[] = {"host-nginx.yaml", "sidecar.yaml", "token.yaml"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		char path[512];
		const char *paths[] = {path};
		struct kt_load_options options = {0};
		struct kt_buf bundle, out;
		struct kt_report report;
		struct kt_set *set = NULL;
		struct kt_err err = {0};
		unsigned n = 0;

		(void)snprintf(path, sizeof(path), KT_TEST_SRCDIR "/data/examples/%s", files[i]);
		kt_buf_init(&bundle, 1 << 20);
		kt_buf_init(&out, 1 << 16);
		kt_report_init(&report);
		assert_int_equal(kt_set_create(&set, &err), KT_OK);
		assert_int_equal(kt_set_know_secret(set, "default", "okta-client", &err), KT_OK);
		assert_int_equal(kt_manifest_load_paths(paths, 1, &options, &bundle, &report, &err), KT_OK);
		assert_int_equal(kt_manifest_read_bundle(kt_buf_view(&bundle), set, count, &n, &report, &err), KT_OK);
		kt_report_format(&report, true, &out);
		if (out.len || n < 4 || n != kt_set_count(set, KT_RES_NONE))
			fail_msg("%s: %u resources, %s", files[i], n, out.len ? out.ptr : "");
		kt_set_destroy(set);
		kt_report_finish(&report);
		kt_buf_finish(&bundle);
		kt_buf_finish(&out);
	}
}

static void put_file(const char *dir, const char *name, const char *text)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(kt_io_replace_file(fd, name, text, strlen(text), 0644, (uid_t)-1, (gid_t)-1, false, NULL),
			 KT_OK);
	assert_int_equal(close(fd), 0);
}

static void test_folder(void **state)
{
	char dir[] = "/tmp/keyturn-manifest-XXXXXX";
	const char *paths[] = {dir, "/nonexistent/keyturn"};
	struct kt_load_options options = {0};
	struct kt_buf bundle;
	struct kt_report report;
	struct kt_err err = {0};
	struct kt_view path, content;
	size_t offset = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	put_file(dir, "b.yml", "b");
	put_file(dir, "a.yaml", "a");
	put_file(dir, "c.json", "{}");
	put_file(dir, "d.txt", "no");
	put_file(dir, ".e.yaml", "no");
	kt_buf_init(&bundle, 1 << 20);
	kt_report_init(&report);
	assert_int_equal(kt_manifest_load_paths(paths, 2, &options, &bundle, &report, &err), KT_OK);
	assert_int_equal(report.errors, 1);
	assert_string_equal(report.items[0].file, paths[1]);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kt_bundle_next(kt_buf_view(&bundle), &offset, &path, &content, &err), KT_OK);
		assert_string_equal(path.ptr + strlen(dir) + 1, ((const char *[]){"a.yaml", "b.yml", "c.json"})[i]);
	}
	assert_int_equal(kt_bundle_next(kt_buf_view(&bundle), &offset, &path, &content, &err), KT_E_NOTFOUND);
	/* Cut off anywhere, it is an error and never a read past the end. */
	for (size_t len = 0; len < bundle.len; len++) {
		char *copy = kt_strndup(bundle.ptr, len);
		enum kt_code code = KT_OK;

		offset = 0;
		while (code == KT_OK)
			code = kt_bundle_next((struct kt_view){copy, len}, &offset, &path, &content, &err);
		assert_true(code == KT_E_CORRUPT || (code == KT_E_NOTFOUND && offset == len));
		kt_free(copy);
	}
	kt_report_finish(&report);
	/* A folder that others may write is refused. */
	kt_buf_reset(&bundle);
	assert_int_equal(chmod(dir, 0777), 0);
	options = (struct kt_load_options){.check_trust = true, .uid = getuid(), .missing_is_ok = true};
	assert_int_equal(kt_manifest_load_paths(paths, 2, &options, &bundle, &report, &err), KT_OK);
	assert_int_equal(report.errors, 3);
	kt_report_finish(&report);
	kt_buf_finish(&bundle);
	assert_int_equal(kt_io_remove_tree(AT_FDCWD, dir, &err), KT_OK);
}

static enum kt_code check_host(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	(void)err;
	kt_manifest_check_host(resource, getuid(), arg);
	kt_resource_destroy(resource);
	return KT_OK;
}

static void test_host(void **state)
{
	struct kt_report report;
	struct kt_buf out;

	(void)state;
	kt_report_init(&report);
	kt_buf_init(&out, 1 << 16);
	assert_int_equal(
		kt_manifest_read(
			kt_view_str(
				"apiVersion: keyturn.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c}\nspec:\n  "
				"secrets: [s]\n"
				"  validate:\n    - exec: {argv: [/bin/true]}\n    - exec: {argv: [/nonexistent/x]}\n"
				"  notify:\n    - exec:\n        argv: [/etc/passwd]\n"),
			"f", check_host, &report, &report, NULL),
		KT_OK);
	kt_report_format(&report, true, &out);
	assert_int_equal(report.errors, 2);
	assert_non_null(strstr(
		out.ptr, "f:8: spec.validate[1].exec.argv[0] (/nonexistent/x) can't be run: there is no such file"));
	assert_non_null(strstr(
		out.ptr, "f:11: spec.notify[0].exec.argv[0] (/etc/passwd) can't be run: it is not an executable file"));
	kt_report_finish(&report);
	kt_buf_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_examples),
					   cmocka_unit_test(test_folder), cmocka_unit_test(test_look), cmocka_unit_test(test_host)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
