/* What other clients wrote: the first line says which parser, the rest is for it. */
#include <string.h>

#include "cli/import.h"
#include "fuzz.h"
#include "kt/mem.h"
#include "kt/text.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	kt_json_init();
	return 0;
}

/* Every value is text or null, at most one level of sections deep. */
static void values(const json_t *object, int depth)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		FUZZ_MUST(json_is_string(value) || json_is_null(value) || (depth == 0 && json_is_object(value)));
		if (json_is_object(value)) {
			values(value, depth + 1);
		}
	}
}

static void argv_of(struct kt_view text)
{
	KT_AUTOFREE char *line = kt_strndup(text.ptr, text.len);
	KT_AUTOJSON json_t *argv = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (line != NULL && kt_import_argv(line, &argv, &err) == KT_OK) {
		FUZZ_MUST(json_array_size(argv) >= 1 && json_array_size(argv) <= 64);
		FUZZ_MUST(json_string_value(json_array_get(argv, 0))[0] == '/');
	}
}

static void names(const json_t *list)
{
	json_t *name;
	size_t i;

	json_array_foreach(list, i, name)
	{
		const char *text = json_string_value(name);

		FUZZ_MUST(text != NULL && text[0] != '\0');
		for (; *text != '\0'; text++) {
			FUZZ_MUST(*text > 0x20 && *text < 0x7f);
		}
	}
}

/* The certificate itself, so that mutations of DER are not lost in base64. */
static void certificate(struct kt_view der)
{
	KT_AUTOBUF struct kt_buf pem;
	struct kt_import_facts facts;
	struct kt_err err;

	kt_buf_init(&pem, 1u << 20);
	kt_buf_adds(&pem, "-----BEGIN CERTIFICATE-----\n");
	kt_base64_encode(&pem, der.ptr, der.len);
	kt_buf_adds(&pem, "\n-----END CERTIFICATE-----\n");
	(void)kt_import_facts(kt_buf_view(&pem), &facts, &err);
	names(facts.dns);
	names(facts.ips);
	FUZZ_MUST(facts.size <= 32768 && strnlen(facts.common_name, sizeof(facts.common_name)) < sizeof(facts.common_name));
	kt_import_facts_finish(&facts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
	struct kt_view what = {(const char *)data, line != NULL ? (size_t)(line - data) : 0};
	struct kt_view text = {line != NULL ? (const char *)line + 1 : "", line != NULL ? size - what.len - 1 : 0};
	KT_AUTOJSON json_t *found = NULL;
	struct kt_import_facts facts;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_view_eq_str(what, "ini") && kt_import_ini(text, &found, &err) == KT_OK) {
		FUZZ_MUST(json_is_object(json_object_get(found, "")));
		values(found, 0);
	} else if (kt_view_eq_str(what, "shell") && kt_import_shell(text, &found, &err) == KT_OK) {
		values(found, 1);
	} else if (kt_view_eq_str(what, "pairs") && kt_import_pairs(text, &found, &err) == KT_OK) {
		values(found, 1);
	} else if (kt_view_eq_str(what, "argv")) {
		argv_of(text);
	} else if (kt_view_eq_str(what, "der")) {
		certificate(text);
	} else if (kt_view_eq_str(what, "pem")) {
		(void)kt_import_facts(text, &facts, &err);
		kt_import_facts_finish(&facts);
	}
	return 0;
}
