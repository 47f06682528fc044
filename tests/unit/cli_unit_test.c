/* Tests of src/cli: options and environment, tables, JSON and YAML from rows, times. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "kt/mem.h"

#define ARGS_MAX 16

/* --- options -------------------------------------------------------------------------------------------------------- */

struct parsed {
	struct kt_cli cli;
	struct kt_err err;
	enum kt_code code;
	char *argv[ARGS_MAX];
};

/* words: separated by one space; getopt moves argv about, so each test has its own. */
static void parse(struct parsed *parsed, const char *words)
{
	static char line[512];
	char *rest = line;
	int argc = 0;

	memset(parsed, 0, sizeof(*parsed));
	kt_err_clear(&parsed->err);
	(void)snprintf(line, sizeof(line), "%s", words);
	while (rest != NULL && argc < ARGS_MAX - 1) {
		parsed->argv[argc++] = strsep(&rest, " ");
	}
	parsed->code = kt_cli_parse(&parsed->cli, argc, parsed->argv, &parsed->err);
}

static void clear_env(void)
{
	static const char *const names[] = {"KEYTURN_CONFIG", "KEYTURN_STATE_DIR", "KEYTURN_SECRETS_DIR", "KEYTURN_SOCKET",
	                                    "KEYTURN_OUTPUT", "KEYTURN_LOG",       "KEYTURN_QUIET",       "KEYTURN_VERBOSE",
	                                    "KEYTURN_SANDBOX"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)unsetenv(names[i]);
	}
}

static void test_options_anywhere(void **state)
{
	static const char *const lines[] = {
	        "keyturn -c a --config b renew --force web -v --timeout 3s api",
	        "keyturn renew web -c a api --force -c b --timeout=3s -v",
	        "keyturn renew -fvca -cb web api --timeout 3s",
	};

	(void)state;
	clear_env();
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct parsed p;
		kt_ms timeout = 0;

		parse(&p, lines[i]);
		assert_int_equal(p.code, KT_OK);
		assert_string_equal(p.cli.command->name, "renew");
		assert_int_equal(p.cli.manifest_count, 2);
		assert_string_equal(p.cli.manifests[0], "a");
		assert_string_equal(p.cli.manifests[1], "b");
		assert_null(p.cli.manifests[2]);
		assert_false(p.cli.manifests_default);
		assert_true(kt_cli_flag(&p.cli, "force"));
		assert_false(kt_cli_flag(&p.cli, "no-wait"));
		assert_int_equal(kt_cli_duration(&p.cli, "timeout", &timeout, &p.err), KT_OK);
		assert_int_equal(timeout, 3000);
		assert_int_equal(p.cli.verbose, 1);
		assert_int_equal(p.cli.arg_count, 2);
		assert_string_equal(p.cli.args[0], "web");
		assert_string_equal(p.cli.args[1], "api");
		kt_cli_finish(&p.cli);
	}
}

static void test_two_words(void **state)
{
	struct parsed p;

	(void)state;
	clear_env();
	parse(&p, "keyturn -q secret set -n team demo key=-");
	assert_int_equal(p.code, KT_OK);
	assert_string_equal(p.cli.command->name, "secret set");
	assert_string_equal(kt_cli_value(&p.cli, "namespace"), "team");
	assert_int_equal(p.cli.arg_count, 2);
	assert_string_equal(p.cli.args[1], "key=-");
	assert_int_equal(kt_cli_level(&p.cli, KT_LOG_INFO), KT_LOG_ERROR);
	kt_cli_finish(&p.cli);
	/* -n is a number here and a namespace there. */
	parse(&p, "keyturn audit -n 7");
	assert_string_equal(kt_cli_value(&p.cli, "number"), "7");
	kt_cli_finish(&p.cli);
}

static void test_environment(void **state)
{
	struct parsed p;
	struct kt_warden_options options;

	(void)state;
	clear_env();
	(void)setenv("KEYTURN_CONFIG", "/a:/b::/c", 1);
	(void)setenv("KEYTURN_STATE_DIR", "/state", 1);
	(void)setenv("KEYTURN_OUTPUT", "yaml", 1);
	(void)setenv("KEYTURN_LOG", "json", 1);
	parse(&p, "keyturn status");
	assert_int_equal(p.code, KT_OK);
	assert_int_equal(p.cli.manifest_count, 3);
	assert_string_equal(p.cli.manifests[2], "/c");
	assert_string_equal(p.cli.state_dir, "/state");
	assert_int_equal(p.cli.format, KT_FORMAT_YAML);
	kt_cli_warden_options(&p.cli, KT_MODE_DAEMON, &options);
	assert_true(options.log_json);
	assert_false(options.manifests_optional);
	assert_int_equal(options.log_level, KT_LOG_INFO);
	kt_cli_finish(&p.cli);
	/* Options win. */
	parse(&p, "keyturn status -c /x --state-dir /y -o json");
	assert_int_equal(p.cli.manifest_count, 1);
	assert_string_equal(p.cli.manifests[0], "/x");
	assert_string_equal(p.cli.state_dir, "/y");
	assert_int_equal(p.cli.format, KT_FORMAT_JSON);
	kt_cli_finish(&p.cli);
	clear_env();
	parse(&p, "keyturn status");
	assert_true(p.cli.manifests_default);
	assert_string_equal(p.cli.manifests[0], KT_SYSCONFDIR);
	kt_cli_finish(&p.cli);
}

static void test_wrong_words(void **state)
{
	static const struct {
		const char *words, *says;
	} cases[] = {
	        {"keyturn", "a command is missing"},
	        {"keyturn renwe", "did you mean renew?"},
	        {"keyturn --cnofig x status", "did you mean --config?"},
	        {"keyturn status --fail-within", "needs a value"},
	        {"keyturn renew --force=1", "--force takes no value"},
	        {"keyturn renew -x", "no option -x"},
	        {"keyturn status -o tabel", "did you mean table?"},
	        {"keyturn secret", "set, list, rm"},
	        {"keyturn secret lsit", "no 'keyturn secret lsit'"},
	        {"keyturn token", "needs NAME"},
	        {"keyturn why a b", "does not take 'b'"},
	        {"keyturn -c  status", "not an empty text"},
	};

	(void)state;
	clear_env();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;

		parse(&p, cases[i].words);
		assert_int_equal(p.code, KT_E_INVALID);
		if (strstr(p.err.what, cases[i].says) == NULL) {
			fail_msg("'%s' says '%s'", cases[i].words, p.err.what);
		}
		kt_cli_finish(&p.cli);
	}
}

/* The table is sound: names, letters that don't clash with the global ones' meaning, places for all values. */
static void test_table(void **state)
{
	(void)state;
	for (const struct kt_command *at = kt_commands; at->name != NULL; at++) {
		unsigned count = 0;

		assert_non_null(at->run);
		assert_true(at->line[0] != '\0' && at->line[strlen(at->line) - 1] != '.');
		for (const struct kt_cli_option *own = at->options; own != NULL && own->name != NULL; own++) {
			count++;
			for (const struct kt_cli_option *global = kt_cli_globals; global->name != NULL; global++) {
				assert_string_not_equal(own->name, global->name);
				assert_true(own->letter == 0 || own->letter != global->letter);
			}
		}
		assert_true(count <= KT_CLI_VALUES_MAX);
	}
}

/* --- times ---------------------------------------------------------------------------------------------------------- */

static void test_times(void **state)
{
	static const struct {
		const char *at, *says;
	} cases[] = {
	        {"2026-11-23T14:12:00Z", "in 2h10m (2026-11-23 14:12Z)"},
	        {"2026-11-23T12:02:30Z", "in 30s (2026-11-23 12:02:30Z)"},
	        {"2026-11-23T11:59:00Z", "3m ago (2026-11-23 11:59:00Z)"},
	        {"2026-11-21T12:02:00Z", "2d ago (2026-11-21 12:02Z)"},
	        {NULL, "-"},
	        {"soon", "-"},
	};
	struct kt_cli cli = {.now = kt_time_civil(2026, 11, 23, 12, 2, 0)};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kt_buf text KT_AUTOBUF;

		kt_buf_init(&text, 256);
		kt_cli_when(&cli, cases[i].at, &text);
		assert_string_equal(text.ptr, cases[i].says);
	}
}

/* --- rows ------------------------------------------------------------------------------------------------------------- */

static void cell_upper(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	(void)cli;
	kt_buf_addf(out, "<%s>", kt_json_str(row, "name"));
}

static const struct kt_column columns[] = {
        {"NAME", "name", NULL, 0},
        {"COUNT", "count", NULL, KT_COLUMN_RIGHT},
        {"MORE", NULL, cell_upper, KT_COLUMN_WIDE},
        {"GOOD", "good", NULL, 0},
        {NULL, NULL, NULL, 0},
};

/* Two rows in this format; the text is the caller's: free. */
static char *render(enum kt_format format, unsigned rows, bool color)
{
	struct kt_cli cli = {.format = format, .color = color};
	struct kt_listing *listing = NULL;
	json_t *result KT_AUTOJSON = json_pack("{s:i}", "total", (int)rows);
	size_t len = 0;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	assert_int_equal(kt_listing_create(&cli, out, "things", columns, "name", &listing, NULL), KT_OK);
	for (unsigned i = 0; i < rows; i++) {
		json_t *row KT_AUTOJSON = json_pack("{s:s,s:i,s:b,s:[s,{s:n,s:s}]}", "name", i == 0 ? "web" : "failed", "count",
		                                    (int)(i * 100), "good", i == 0, "list", "a b", "none", "text", "\033[2J");

		kt_listing_row(listing, row);
	}
	assert_int_equal(kt_listing_end(listing, result), rows);
	kt_listing_destroy(listing);
	(void)fclose(out);
	return text;
}

static void test_table_text(void **state)
{
	char *text = render(KT_FORMAT_TABLE, 2, false);

	(void)state;
	assert_string_equal(text, "NAME    COUNT  GOOD\n"
	                          "web         0  yes\n"
	                          "failed    100  no\n");
	free(text);
	text = render(KT_FORMAT_WIDE, 2, false);
	assert_non_null(strstr(text, "<failed>"));
	free(text);
	text = render(KT_FORMAT_TABLE, 2, true);
	assert_non_null(strstr(text, "\033[31m"));
	free(text);
	text = render(KT_FORMAT_TABLE, 0, false);
	assert_string_equal(text != NULL ? text : "", "");
	free(text);
}

static void test_json(void **state)
{
	(void)state;
	for (unsigned rows = 0; rows < 3; rows++) {
		char *text = render(KT_FORMAT_JSON, rows, true);
		json_t *value KT_AUTOJSON = json_loads(text, 0, NULL);

		assert_non_null(value);
		assert_int_equal(json_array_size(json_object_get(value, "things")), rows);
		assert_int_equal(kt_json_int(json_object_get(value, "summary"), "total", -1), rows);
		free(text);
	}
}

static void test_yaml(void **state)
{
	char *text = render(KT_FORMAT_YAML, 1, false);

	(void)state;
	assert_string_equal(text, "things:\n"
	                          "- name: web\n"
	                          "  count: 0\n"
	                          "  good: true\n"
	                          "  list:\n"
	                          "  - \"a b\"\n"
	                          "  - none: null\n"
	                          "    text: \"\\u001b[2J\"\n"
	                          "summary:\n"
	                          "  total: 1\n");
	free(text);
	text = render(KT_FORMAT_YAML, 0, false);
	assert_string_equal(text, "things: []\nsummary:\n  total: 0\n");
	free(text);
}

/* Words that YAML would take for something else are quoted. */
static void test_yaml_words(void **state)
{
	static const char *const quoted[] = {"true", "No", "null", "12", "-1", "", "a: b", "~", "2026-11-23", "#x"};
	struct kt_cli cli = {.format = KT_FORMAT_YAML};

	(void)state;
	for (size_t i = 0; i < sizeof(quoted) / sizeof(quoted[0]); i++) {
		json_t *value KT_AUTOJSON = json_string(quoted[i]);
		char want[64];
		size_t len = 0;
		char *text = NULL;
		FILE *out = open_memstream(&text, &len);

		kt_cli_print_value(&cli, out, value);
		(void)fclose(out);
		(void)snprintf(want, sizeof(want), "\"%s\"\n", quoted[i]);
		assert_string_equal(text, want);
		free(text);
	}
}

static void test_print_escapes(void **state)
{
	size_t len = 0;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	kt_cli_print(out, "a\033[31m\n\x7f\xc2\x9b\xc3\xa4");
	(void)fclose(out);
	assert_string_equal(text, "a\\x1b[31m\\x0a\\x7f\\xc2\x9b\xc3\xa4");
	free(text);
}

static void test_statuses(void **state)
{
	(void)state;
	assert_int_equal(kt_cli_worse(0, 75), 75);
	assert_int_equal(kt_cli_worse(75, 5), 5);
	assert_int_equal(kt_cli_worse(1, 5), 1);
	assert_int_equal(kt_cli_worse(4, 1), 4);
	assert_int_equal(kt_cli_status_of(KT_E_BUSY), 75);
	assert_int_equal(kt_cli_status_of(KT_E_INVALID), 2);
	assert_int_equal(kt_cli_status_of(KT_E_POLICY), 4);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_options_anywhere), cmocka_unit_test(test_two_words),
	        cmocka_unit_test(test_environment),      cmocka_unit_test(test_wrong_words),
	        cmocka_unit_test(test_table),            cmocka_unit_test(test_times),
	        cmocka_unit_test(test_table_text),       cmocka_unit_test(test_json),
	        cmocka_unit_test(test_yaml),             cmocka_unit_test(test_yaml_words),
	        cmocka_unit_test(test_print_escapes),    cmocka_unit_test(test_statuses),
	};

	kt_json_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
