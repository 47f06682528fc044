/* Tests of import: the parsers of what other clients wrote, their folders, and the manifests that are made of them. */
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

#include "cli/import.h"
#include "kt/io.h"
#include "kt/manifest.h"
#include "kt/mem.h"
#include "kt/text.h"

/* a.example, *.b.example, 192.0.2.1, 2001:db8::1; P-256; must-staple. */
static const char cert_pem[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIBzTCCAXKgAwIBAgIUWZqRfOxae9MO2m9XYwAM9KrT44gwCgYIKoZIzj0EAwIw\n"
	"FDESMBAGA1UEAwwJYS5leGFtcGxlMCAXDTI2MTEyMzE0NDAwNloYDzIxMjYxMDMw\n"
	"MTQ0MDA2WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwWTATBgcqhkjOPQIBBggqhkjO\n"
	"PQMBBwNCAATbUkWPQpNax5YDzrWQJT7WgJcaDN14VFzaflVAM92RXeKla0/nbf9Q\n"
	"nLsXZFqczhIonW8PkiZpoZrSfSGnqAXIo4GfMIGcMB0GA1UdDgQWBBTLwbRfN+KB\n"
	"q8/5IDlXJ7GraGOpUDAfBgNVHSMEGDAWgBTLwbRfN+KBq8/5IDlXJ7GraGOpUDA5\n"
	"BgNVHREEMjAwgglhLmV4YW1wbGWCCyouYi5leGFtcGxlhwTAAAIBhxAgAQ24AAAA\n"
	"AAAAAAAAAAABMBEGCCsGAQUFBwEYBAUwAwIBBTAMBgNVHRMBAf8EAjAAMAoGCCqG\n"
	"SM49BAMCA0kAMEYCIQCCYwqwI82fVHl7eQd7ZaRaX99xLWy/CjLt3aeG/6uT5gIh\n"
	"APtHbxoSzzqNDjEaraNyqUWYifkMzGSNnzMMeV1sDB1Y\n"
	"-----END CERTIFICATE-----\n";
static const char key_pem[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

static char root[64];

/* --- a folder ---------------------------------------------------------------------------------------------------------- */

static void put(const char *path, const char *text)
{
	char full[512];
	FILE *out;

	(void)snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		(void)mkdir(full, 0755);
		*at = '/';
	}
	out = fopen(full, "w");
	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof(root), "/tmp/import_test.XXXXXX");
	return mkdtemp(root) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	struct kt_err err;

	(void)state;
	return kt_io_remove_tree(AT_FDCWD, root, &err) == KT_OK ? 0 : -1;
}

struct made {
	struct kt_import import;
	struct kt_import_docs docs;
	struct kt_err err;
};

static void make(struct made *made, const struct kt_import_source *source, bool with_secrets)
{
	*made = (struct made){.import = {.dir = -1, .client = source->name, .with_secrets = with_secrets}};
	kt_err_clear(&made->err);
	assert_int_equal(kt_import_open(&made->import, root, &made->err), KT_OK);
	assert_int_equal(source->read(&made->import, &made->err), KT_OK);
	assert_int_equal(kt_import_documents(&made->import, "default", NULL, NULL, &made->docs, &made->err), KT_OK);
}

static void finish(struct made *made)
{
	kt_import_docs_finish(&made->docs);
	kt_import_finish(&made->import);
}

static bool says(const struct made *made, const char *text)
{
	return strstr(made->docs.yaml, text) != NULL;
}

static bool lost(const struct made *made, const char *what)
{
	json_t *item;
	size_t i;

	json_array_foreach(made->import.lost, i, item)
	{
		if (strcmp(kt_json_str(item, "what"), what) == 0) {
			return true;
		}
	}
	return false;
}

/* --- parsers ------------------------------------------------------------------------------------------------------------ */

static void test_ini(void **state)
{
	json_t *found KT_AUTOJSON = NULL;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_import_ini(kt_view_str("# c\nversion = 2.1\n[renewalparams]\nserver = https://x/dir\nhook = \"a b\"\r\n"
	                                           "[[webroot_map]]\na.example = /var/www\nno line\n"),
	                               &found, &err),
	                 KT_OK);
	assert_string_equal(kt_json_str(json_object_get(found, ""), "version"), "2.1");
	assert_string_equal(kt_json_str(json_object_get(found, "renewalparams"), "server"), "https://x/dir");
	assert_string_equal(kt_json_str(json_object_get(found, "renewalparams"), "hook"), "a b");
	assert_string_equal(kt_json_str(json_object_get(found, "webroot_map"), "a.example"), "/var/www");
}

static void test_ini_refuses(void **state)
{
	json_t *found = NULL;
	struct kt_err err;
	char *big = kt_malloc(KT_IMPORT_FILE_MAX + 1);

	(void)state;
	assert_int_equal(kt_import_ini((struct kt_view){"a=\0b", 4}, &found, &err), KT_E_PROTO);
	assert_int_equal(kt_import_ini(kt_view_str("a=\xff\n"), &found, &err), KT_E_PROTO);
	assert_int_equal(kt_import_ini(kt_view_str("[]\n"), &found, &err), KT_E_PROTO);
	memset(big, 'a', KT_IMPORT_FILE_MAX + 1);
	assert_int_equal(kt_import_ini((struct kt_view){big, KT_IMPORT_FILE_MAX + 1}, &found, &err), KT_E_LIMIT);
	kt_free(big);
}

static void test_shell(void **state)
{
	static const struct {
		const char *line, *value; /* NULL: only a shell could say */
	} cases[] = {
	        {"A=b", "b"},           {"A='b c'", "b c"},     {"A=\"b c\" # d", "b c"}, {"export A=b", "b"},
	        {"A=", ""},             {"A=b\\ c", "b c"},     {"A='$x'", "$x"},         {"A=\"\\$x\"", "$x"},
	        {"A=$x", NULL},         {"A=`id`", NULL},       {"A=$(id)", NULL},        {"A=\"$x\"", NULL},
	        {"A=b; id", NULL},      {"A=b id", NULL},       {"A='b", NULL},           {"A=b|c", NULL},
	        {"A=(b c)", NULL},      {"A=b\nA=c", "c"},      {"A='a'\\''b'", "a'b"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *found KT_AUTOJSON = NULL;
		struct kt_err err;

		assert_int_equal(kt_import_shell(kt_view_str(cases[i].line), &found, &err), KT_OK);
		assert_non_null(json_object_get(found, "A"));
		if (cases[i].value == NULL) {
			assert_true(json_is_null(json_object_get(found, "A")));
		} else {
			assert_string_equal(kt_json_str(found, "A"), cases[i].value);
		}
	}
}

static void test_pairs(void **state)
{
	json_t *found KT_AUTOJSON = NULL;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_import_pairs(kt_view_str("id=1\ncert=a\n b\n c\nname=x=y\nno\n z\n"), &found, &err), KT_OK);
	assert_string_equal(kt_json_str(found, "id"), "1");
	assert_string_equal(kt_json_str(found, "cert"), "a\nb\nc");
	assert_string_equal(kt_json_str(found, "name"), "x=y");
}

static void test_argv(void **state)
{
	static const struct {
		const char *line, *last; /* NULL: refused */
		size_t count;
	} cases[] = {
	        {"/bin/true", "/bin/true", 1},
	        {"/bin/true  a 'b c'", "b c", 3},
	        {"/bin/echo \"a b\"c", "a bc", 2},
	        {"sh -c id", "id", 3},
	        {"/bin/true 'a$b'", "a$b", 2},
	        {"/bin/true && id", NULL, 0},
	        {"/bin/true; id", NULL, 0},
	        {"/bin/true $x", NULL, 0},
	        {"/bin/true \"$x\"", NULL, 0},
	        {"/bin/true *", NULL, 0},
	        {"/bin/true > /tmp/x", NULL, 0},
	        {"/bin/true 'a", NULL, 0},
	        {"A=b /bin/true", NULL, 0},
	        {"bin/true", NULL, 0},
	        {"no-such-program-here a", NULL, 0},
	        {"", NULL, 0},
	        {"/bin/true\n/bin/id", NULL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *argv KT_AUTOJSON = NULL;
		struct kt_err err;
		enum kt_code code = kt_import_argv(cases[i].line, &argv, &err);

		assert_int_equal(code, cases[i].last != NULL ? KT_OK : KT_E_UNSUPPORTED);
		if (cases[i].last != NULL) {
			assert_int_equal(json_array_size(argv), cases[i].count);
			assert_int_equal(json_string_value(json_array_get(argv, 0))[0], '/');
			assert_string_equal(json_string_value(json_array_get(argv, cases[i].count - 1)), cases[i].last);
		}
	}
}

static void test_facts(void **state)
{
	struct kt_import_facts facts;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_import_facts(kt_view_str(cert_pem), &facts, &err), KT_OK);
	assert_int_equal(json_array_size(facts.dns), 2);
	assert_string_equal(json_string_value(json_array_get(facts.dns, 1)), "*.b.example");
	assert_string_equal(json_string_value(json_array_get(facts.ips, 0)), "192.0.2.1");
	assert_string_equal(json_string_value(json_array_get(facts.ips, 1)), "2001:db8::1");
	assert_string_equal(facts.common_name, "a.example");
	assert_string_equal(facts.algorithm, "ECDSA");
	assert_int_equal(facts.size, 256);
	assert_true(facts.must_staple);
	assert_false(facts.is_ca);
	kt_import_facts_finish(&facts);
	assert_int_equal(kt_import_facts(kt_view_str("nothing"), &facts, &err), KT_E_PROTO);
	kt_import_facts_finish(&facts);
}

/* --- files --------------------------------------------------------------------------------------------------------------- */

static void test_links(void **state)
{
	struct kt_import import = {.dir = -1};
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_err err;
	char path[256], target[256];

	(void)state;
	put("archive/a", "inside");
	put("live/x", "");
	(void)snprintf(path, sizeof(path), "%s/live/good", root);
	assert_int_equal(symlink("../archive/a", path), 0);
	(void)snprintf(path, sizeof(path), "%s/live/away", root);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	(void)snprintf(path, sizeof(path), "%s/live/up", root);
	assert_int_equal(symlink("../../etc", path), 0);
	(void)snprintf(path, sizeof(path), "%s/live/fifo", root);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(kt_import_open(&import, root, &err), KT_OK);
	kt_buf_init(&text, KT_IMPORT_FILE_MAX);
	assert_int_equal(kt_import_file(&import, "live/good", &text, &err), KT_OK);
	assert_string_equal(text.ptr, "inside");
	assert_int_equal(kt_import_file(&import, "live/away", &text, &err), KT_E_POLICY);
	assert_int_equal(kt_import_file(&import, "live/up/passwd", &text, &err), KT_E_POLICY);
	assert_int_equal(kt_import_file(&import, "../etc/passwd", &text, &err), KT_E_POLICY);
	assert_int_equal(kt_import_file(&import, "live/none", &text, &err), KT_E_NOTFOUND);
	assert_int_equal(kt_import_file(&import, "live/fifo", &text, &err), KT_E_INVALID);
	/* By an absolute path: a link is followed in the folder only. */
	(void)snprintf(target, sizeof(target), "%s/live/good", root);
	kt_buf_reset(&text);
	assert_int_equal(kt_import_elsewhere(&import, target, &text, &err), KT_OK);
	kt_import_finish(&import);
}

static void test_no_folder(void **state)
{
	struct kt_import import = {.dir = -1};
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_import_open(&import, "/nowhere/at/all", &err), KT_E_NOTFOUND);
	kt_import_finish(&import);
}

/* --- certbot -------------------------------------------------------------------------------------------------------------- */

static void put_certbot(const char *name, const char *settings)
{
	char path[256], text[2048];

	put("accounts/acme-v02.api.letsencrypt.org/directory/0123/private_key.json", "{\"kty\":\"RSA\"}");
	put("accounts/acme-v02.api.letsencrypt.org/directory/0123/regr.json",
	    "{\"body\":{\"contact\":[\"mailto:ops@example.com\"]},\"uri\":\"https://acme-v02.api.letsencrypt.org/acme/acct/7\"}");
	(void)snprintf(path, sizeof(path), "live/%s/privkey.pem", name);
	put(path, key_pem);
	(void)snprintf(path, sizeof(path), "live/%s/fullchain.pem", name);
	put(path, cert_pem);
	(void)snprintf(path, sizeof(path), "renewal/%s.conf", name);
	(void)snprintf(text, sizeof(text), "version = 2.1\n[renewalparams]\naccount = 0123\nserver = "
	                                   "https://acme-v02.api.letsencrypt.org/directory\n%s", settings);
	put(path, text);
}

static void test_certbot_solvers(void **state)
{
	static const struct {
		const char *settings;
		const char *yaml[3];
		const char *lost;
	} cases[] = {
	        {"authenticator = standalone\n", {"http01:\n        ingress: {}"}, NULL},
	        {"authenticator = webroot\nwebroot_path = /var/www,\n", {"keyturn.dev/http01-webroot: /var/www"}, NULL},
	        {"authenticator = webroot\n[[webroot_map]]\na.example = /a\nb.example = /b\n", {"http01-webroot: /a"}, "webroot_map"},
	        {"authenticator = dns-cloudflare\ndns_cloudflare_credentials = /nowhere\n", {"apiTokenSecretRef", "secret set cloudflare"}, NULL},
	        {"authenticator = dns-route53\n", {"route53:", "accessKeyIDSecretRef"}, NULL},
	        {"authenticator = dns-digitalocean\n", {"digitalocean:", "tokenSecretRef"}, NULL},
	        {"authenticator = dns-rfc2136\ndns_rfc2136_credentials = /nowhere\n", {"http01"}, "authenticator dns-rfc2136"},
	        {"authenticator = manual\npref_challs = dns-01,\nmanual_auth_hook = /bin/true add\nmanual_cleanup_hook = /bin/true rm\n",
	         {"convention: Certbot", "- add", "cleanupArgv"}, NULL},
	        {"authenticator = manual\npref_challs = dns-01,\nmanual_auth_hook = a && b\n", {NULL}, "manual_auth_hook"},
	        {"authenticator = nginx\ninstaller = nginx\n", {NULL}, "nginx"},
	        {"authenticator = dns-gandi\n", {NULL}, "dns-gandi"},
	        {"authenticator = standalone\nkey_type = rsa\nrsa_key_size = 4096\nreuse_key = True\nmust_staple = True\n",
	         {"size: 4096", "rotationPolicy: Never", "must-staple"}, NULL},
	        {"authenticator = standalone\npreferred_chain = ISRG Root X1\nrequired_profile = tlsserver\n",
	         {"preferredChain: \"ISRG Root X1\"", "profile: tlsserver"}, NULL},
	        {"authenticator = standalone\nrenew_hook = /bin/true a\n", {"kind: Consumer", "- /bin/true"}, NULL},
	        {"authenticator = standalone\nrenew_hook = a | b\npost_hook = x\n", {NULL}, "renew_hook"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct made made;

		put_certbot("a.example", cases[i].settings);
		make(&made, &kt_import_certbot, false);
		assert_true(says(&made, "kind: Certificate"));
		assert_true(says(&made, "email: \"ops@example.com\""));
		assert_int_equal(json_array_size(made.docs.certs), 1);
		assert_int_equal(json_array_size(made.docs.accounts), 1);
		for (size_t y = 0; y < 3 && cases[i].yaml[y] != NULL; y++) {
			if (!says(&made, cases[i].yaml[y])) {
				fail_msg("case %zu: no '%s' in\n%s", i, cases[i].yaml[y], made.docs.yaml);
			}
		}
		if (cases[i].lost != NULL && !lost(&made, cases[i].lost)) {
			fail_msg("case %zu: '%s' is not listed:\n%s", i, cases[i].lost, made.docs.yaml);
		}
		finish(&made);
	}
}

static void test_certbot_credentials(void **state)
{
	struct made made;
	char settings[512];

	(void)state;
	put("dns.ini", "dns_rfc2136_server = 192.0.2.53\ndns_rfc2136_name = key.example.\ndns_rfc2136_secret = c2VjcmV0\n"
	               "dns_rfc2136_algorithm = HMAC-SHA512\n");
	(void)snprintf(settings, sizeof(settings), "authenticator = dns-rfc2136\ndns_rfc2136_credentials = %s/dns.ini\n", root);
	put_certbot("a.example", settings);
	for (int with = 0; with < 2; with++) {
		make(&made, &kt_import_certbot, with != 0);
		assert_true(says(&made, "192.0.2.53:53"));
		assert_true(says(&made, "tsigKeyName: key.example\n"));
		assert_true(says(&made, "tsigAlgorithm: HMACSHA512"));
		assert_false(says(&made, "c2VjcmV0"));
		assert_int_equal(json_array_size(made.import.secrets), with);
		finish(&made);
	}
}

/* Two ways to prove names are two issuers of one account; the same way is one. */
static void test_issuers(void **state)
{
	struct made made;

	(void)state;
	put_certbot("a.example", "authenticator = standalone\nrenew_hook = systemctl reload nginx\n");
	put_certbot("b.example", "authenticator = standalone\n");
	put_certbot("c.example", "authenticator = webroot\nwebroot_path = /var/www\n");
	make(&made, &kt_import_certbot, false);
	assert_int_equal(json_array_size(made.docs.certs), 3);
	assert_int_equal(json_array_size(made.docs.accounts), 2);
	assert_true(says(&made, "name: letsencrypt\n") && says(&made, "name: letsencrypt-2\n"));
	finish(&made);
}

/* Whatever stands in a foreign file, the manifests stay manifests. */
static void test_hostile_settings(void **state)
{
	struct made made;

	(void)state;
	put_certbot("a.example", "authenticator = webroot\nwebroot_path = \"/x\\n---\\nkind: Agent\"\npreferred_chain = x: {y}\\n- z\n");
	put("accounts/acme-v02.api.letsencrypt.org/directory/0123/regr.json",
	    "{\"body\":{\"contact\":[\"mailto:not an\\naddress\"]},\"uri\":\"https://x/\\n---\\nkind: Agent\"}");
	make(&made, &kt_import_certbot, false);
	assert_false(says(&made, "\nkind: Agent"));
	assert_false(says(&made, "kind: Certificate")); /* its issuer is refused by the parser */
	assert_int_equal(json_array_size(made.docs.certs), 0);
	assert_int_equal(json_array_size(made.docs.accounts), 0);
	assert_true(json_array_size(made.import.lost) >= 2);
	finish(&made);
}

static void test_missing_parts(void **state)
{
	struct made made;
	char path[256];

	(void)state;
	put_certbot("a.example", "authenticator = standalone\n");
	put_certbot("b.example", "authenticator = standalone\n");
	put("live/b.example/fullchain.pem", "no certificate");
	put_certbot("c.example", "authenticator = standalone\n");
	(void)snprintf(path, sizeof(path), "%s/live/c.example/privkey.pem", root);
	assert_int_equal(unlink(path), 0);
	make(&made, &kt_import_certbot, false);
	assert_int_equal(json_array_size(made.docs.certs), 1);
	assert_true(lost(&made, "b.example") && lost(&made, "c.example"));
	finish(&made);
}

/* --- the others ------------------------------------------------------------------------------------------------------------- */

static void test_lego(void **state)
{
	struct made made;

	(void)state;
	put("accounts/acme-v02.api.letsencrypt.org/me@example.com/account.json",
	    "{\"email\":\"me@example.com\",\"registration\":{\"uri\":\"https://acme-v02.api.letsencrypt.org/acme/acct/1\"}}");
	put("accounts/acme-v02.api.letsencrypt.org/me@example.com/keys/me@example.com.key", key_pem);
	put("accounts/unknown.example/me@example.com/account.json", "{\"email\":\"\"}");
	put("accounts/unknown.example/me@example.com/me@example.com.key", key_pem);
	put("certificates/_.b.example.json", "{\"domain\":\"*.b.example\",\"certUrl\":\"https://acme-v02.api.letsencrypt.org/c/1\"}");
	put("certificates/_.b.example.crt", cert_pem);
	put("certificates/_.b.example.key", key_pem);
	make(&made, &kt_import_lego, false);
	assert_true(says(&made, "server: \"https://acme-v02.api.letsencrypt.org/directory\""));
	assert_true(says(&made, "secretName: wildcard.b.example-tls"));
	assert_true(lost(&made, "challenge") && lost(&made, "account"));
	finish(&made);
}

/* Files where no client puts them, and text that is cut within a character. */
static void test_odd_places(void **state)
{
	static const struct kt_import_source *const sources[] = {&kt_import_certbot, &kt_import_lego, &kt_import_acme_sh,
	                                                         &kt_import_dehydrated};
	char line[1024] = "authenticator = standalone\nrenew_hook = \"| ";

	(void)state;
	put_certbot("a.example", "authenticator = standalone\n");
	put("accounts/account.json", "{}");
	put("accounts/private_key.json", "{}");
	put("accounts/account_key.pem", key_pem);
	put("ca/account.key", key_pem);
	put("requests", "no folder");
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		struct made made;

		make(&made, sources[i], false);
		assert_int_equal(json_array_size(made.docs.accounts), 0);
		finish(&made);
	}
	for (size_t len = strlen(line); len < 900; len += 2) {
		(void)snprintf(line + len, sizeof(line) - len, "\xc3\xa4");
	}
	for (int odd = 0; odd < 2; odd++) {
		char path[256];
		struct made made;

		(void)snprintf(path, sizeof(path), "%s/accounts/private_key.json", root);
		(void)unlink(path);
		(void)strncat(line, odd ? "x\"\n" : "", sizeof(line) - strlen(line) - 1);
		put_certbot("a.example", line);
		make(&made, &kt_import_certbot, false);
		assert_true(lost(&made, "renew_hook"));
		finish(&made);
	}
}

static void test_acme_sh(void **state)
{
	struct made made;

	(void)state;
	put("ca/acme-v02.api.letsencrypt.org/directory/account.key", key_pem);
	put("ca/acme-v02.api.letsencrypt.org/directory/ca.conf",
	    "ACCOUNT_URL='https://acme-v02.api.letsencrypt.org/acme/acct/2'\nCA_EMAIL='me@example.com'\n");
	put("account.conf", "SAVED_CF_Key='k'\nSAVED_CF_Email='cf@example.com'\n");
	put("a.example/a.example.conf", "Le_Domain='a.example'\nLe_Webroot='dns_cf'\nLe_API='https://acme-v02.api.letsencrypt.org/directory'\n"
	                                "Le_Keylength='4096'\nLe_ForceNewDomainKey='1'\nLe_ChallengeAlias='x.example'\nLe_DeployHook='ssh'\n");
	put("a.example/a.example.key", key_pem);
	put("a.example/fullchain.cer", cert_pem);
	put("b.example_ecc/b.example.conf", "Le_Webroot='dns_gd'\nLe_API='https://acme-v02.api.letsencrypt.org/directory'\n"
	                                    "Le_ReloadCmd='__ACME_BASE64__START_!!!__ACME_BASE64__END_'\n");
	put("b.example_ecc/b.example.key", key_pem);
	put("b.example_ecc/fullchain.cer", cert_pem);
	make(&made, &kt_import_acme_sh, false);
	assert_true(says(&made, "apiKeySecretRef") && says(&made, "email: \"cf@example.com\"") && says(&made, "cnameStrategy: Follow"));
	assert_true(says(&made, "size: 4096") && says(&made, "rotationPolicy: Always"));
	assert_true(lost(&made, "dns_gd") && lost(&made, "Le_DeployHook"));
	assert_int_equal(json_array_size(made.docs.certs), 2);
	finish(&made);
}

static void test_dehydrated(void **state)
{
	struct made made;

	(void)state;
	put("config", "CHALLENGETYPE=\"dns-01\"\nHOOK=/bin/true\nCA=\"letsencrypt\"\nKEY_ALGO=secp384r1\nX=$(id)\nD=${BASEDIR}/x\n"
	              "DOMAINS_TXT=$BASEDIR/domains.txt\n");
	put("domains.txt", "# c\na.example www.a.example\nnever.example x.example > other\n");
	put("accounts/aHR0cHM6Ly9hY21lLXYwMi5hcGkubGV0c2VuY3J5cHQub3JnL2RpcmVjdG9yeQo/account_key.pem", key_pem);
	put("accounts/aHR0cHM6Ly9hY21lLXYwMi5hcGkubGV0c2VuY3J5cHQub3JnL2RpcmVjdG9yeQo/account_id.json",
	    "{\"url\":\"https://acme-v02.api.letsencrypt.org/acme/acct/3\"}");
	put("certs/a.example/privkey.pem", key_pem);
	put("certs/a.example/fullchain.pem", cert_pem);
	make(&made, &kt_import_dehydrated, false);
	assert_true(says(&made, "convention: Dehydrated") && says(&made, "size: 384"));
	assert_string_equal(made.import.accounts[0].server, "https://acme-v02.api.letsencrypt.org/directory");
	assert_string_equal(made.import.accounts[0].url, "https://acme-v02.api.letsencrypt.org/acme/acct/3");
	assert_true(lost(&made, "X") && lost(&made, "other") && !lost(&made, "D"));
	finish(&made);
}

static void test_certmonger(void **state)
{
	struct made made;
	char text[1024];

	(void)state;
	put("key", key_pem);
	put("cert", cert_pem);
	put("cas/1", "id=SelfSign\nca_type=INTERNAL:SELF\n");
	put("cas/2", "id=IPA\nca_type=EXTERNAL\nca_external_helper=/usr/lib/certmonger/ipa-submit\n");
	for (int i = 0; i < 3; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "requests/%d", i);
		(void)snprintf(text, sizeof(text), "id=r%d\nkey_storage_type=%s\nkey_storage_location=%s/key\ncert_storage_type=FILE\n"
		                                   "cert_storage_location=%s/cert\nca_name=%s\n",
		               i, i == 2 ? "NSSDB" : "FILE", root, root, i == 0 ? "SelfSign" : "IPA");
		put(path, text);
	}
	make(&made, &kt_import_certmonger, false);
	assert_true(says(&made, "selfSigned: {}"));
	assert_int_equal(json_array_size(made.docs.certs), 1);
	assert_true(lost(&made, "r1") && lost(&made, "r2"));
	finish(&made);
}

/* --- limits ------------------------------------------------------------------------------------------------------------------ */

static void test_limits(void **state)
{
	struct kt_import import = {.dir = -1};
	struct kt_err err;
	unsigned i;

	(void)state;
	assert_int_equal(kt_import_open(&import, root, &err), KT_OK);
	for (i = 0; i < KT_IMPORT_CERTS_MAX; i++) {
		assert_non_null(kt_import_add_cert(&import, "x", "y", &err));
	}
	assert_null(kt_import_add_cert(&import, "x", "y", &err));
	assert_int_equal(err.code, KT_E_LIMIT);
	for (i = 0; i < KT_IMPORT_LOST_MAX + 5; i++) {
		kt_import_lose(&import, "f", "w", "r", "%s", "i");
	}
	assert_int_equal(json_array_size(import.lost), KT_IMPORT_LOST_MAX);
	assert_int_equal(import.lost_more, 5);
	kt_import_finish(&import);
}

#define FOLDER(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_ini),       cmocka_unit_test(test_ini_refuses), cmocka_unit_test(test_shell),
	        cmocka_unit_test(test_pairs),     cmocka_unit_test(test_argv),        cmocka_unit_test(test_facts),
	        cmocka_unit_test(test_no_folder), FOLDER(test_links),                 FOLDER(test_certbot_solvers),
	        FOLDER(test_certbot_credentials), FOLDER(test_issuers),               FOLDER(test_hostile_settings),
	        FOLDER(test_missing_parts),       FOLDER(test_lego),                  FOLDER(test_acme_sh),
	        FOLDER(test_dehydrated),          FOLDER(test_certmonger),            FOLDER(test_limits),
	        FOLDER(test_odd_places),
	};
	struct kt_err err;

	kt_json_init();
	return kt_secret_init(&err) == KT_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
