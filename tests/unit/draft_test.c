/* Where two manifests differ, as plan and why name it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "keeper/draft.h"

static void differ(const char *from, const char *to, const char *expected)
{
	json_t *before KT_AUTOJSON = json_loads(from, 0, NULL);
	json_t *after KT_AUTOJSON = json_loads(to, 0, NULL);
	struct kt_buf out KT_AUTOBUF = {0};

	assert_non_null(before);
	assert_non_null(after);
	kt_buf_init(&out, 16384);
	kt_draft_differences(before, after, &out);
	assert_string_equal(out.len > 0 ? out.ptr : "", expected);
}

static void test_paths(void **state)
{
	(void)state;
	differ("{\"a\":1,\"b\":{\"c\":[1,2]}}", "{\"b\":{\"c\":[1,2]},\"a\":1}", "");
	differ("{\"spec\":{\"a\":1}}", "{\"spec\":{\"a\":2}}", "spec.a");
	differ("{\"spec\":{\"a\":[1,2,3]}}", "{\"spec\":{\"a\":[1,5,3]}}", "spec.a[1]");
	differ("{\"spec\":{\"a\":[1,2,3]}}", "{\"spec\":{\"a\":[1,2]}}", "spec.a");
	differ("{\"spec\":{\"a\":1}}", "{\"spec\":{\"b\":1}}", "spec.a, spec.b");
	differ("{\"spec\":{\"a\":{\"x\":1}}}", "{\"spec\":{\"a\":\"x\"}}", "spec.a");
	differ("{\"a\":[{\"b\":1},{\"b\":2}]}", "{\"a\":[{\"b\":1},{\"b\":3,\"c\":null}]}", "a[1].b, a[1].c");
}

/* However much differs, the answer is bounded. */
static void test_many(void **state)
{
	json_t *before KT_AUTOJSON = json_object();
	json_t *after KT_AUTOJSON = json_object();
	struct kt_buf out KT_AUTOBUF = {0};
	unsigned commas = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char key[16];

		(void)snprintf(key, sizeof(key), "k%d", i);
		(void)json_object_set_new(before, key, json_integer(i));
		(void)json_object_set_new(after, key, json_integer(i + 1));
	}
	kt_buf_init(&out, 16384);
	kt_draft_differences(before, after, &out);
	for (size_t i = 0; i < out.len; i++) {
		commas += out.ptr[i] == ',';
	}
	assert_int_equal(commas, 15);
	assert_non_null(strstr(out.ptr, " and more"));
	assert_null(strstr(strstr(out.ptr, " and more") + 1, " and more"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_paths), cmocka_unit_test(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
