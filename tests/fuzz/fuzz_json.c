/* JSON from strangers: the first line is a JSON path, the rest the document. */
#include <string.h>

#include "courier/probe/probe.h"
#include "fuzz.h"
#include "kt/json.h"
#include "kt/mem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	kt_json_init();
	return 0;
}

/* Canonical JSON is read again and gives the same. */
static void there_and_back(const json_t *value)
{
	KT_AUTOBUF struct kt_buf first, second;
	json_t *again = NULL;
	struct kt_err err;

	kt_buf_init(&first, 8u << 20);
	kt_buf_init(&second, 8u << 20);
	FUZZ_MUST(kt_json_dump(value, &first, &err) == KT_OK);
	FUZZ_MUST(kt_json_parse(kt_buf_view(&first), 8u << 20, &again, &err) == KT_OK);
	FUZZ_MUST(kt_json_dump(again, &second, &err) == KT_OK);
	FUZZ_MUST(first.len == second.len && memcmp(first.ptr, second.ptr, first.len) == 0);
	json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t path_len = line != NULL ? (size_t)(line - data) : 0;
	KT_AUTOFREE char *path = kt_strndup(size > 0 ? (const char *)data : "", path_len);
	KT_AUTOJSON json_t *value = NULL;
	KT_AUTOBUF struct kt_buf out;
	struct kt_err err;

	kt_buf_init(&out, 65536);
	if (line == NULL) {
		return 0;
	}
	if (kt_json_parse((struct kt_view){(const char *)line + 1, size - path_len - 1}, 262144, &value, &err) != KT_OK) {
		FUZZ_MUST(err.what[0] != '\0');
		return 0;
	}
	there_and_back(value);
	(void)kt_json_path(value, path, &out, &err);
	return 0;
}
