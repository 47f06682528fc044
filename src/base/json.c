/* jansson with limits on what strangers send, and errors that never quote the text. */
#include "config.h"

#include <string.h>

#include "kt/json.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

enum { DEPTH_MAX = 64 };

/* jansson reports many a failed allocation as a syntax error: remember it here. */
static _Thread_local bool ran_out;

static void *json_malloc(size_t size)
{
	void *ptr = kt_malloc(size);

	if (!ptr)
		ran_out = true;
	return ptr;
}

void kt_json_init(void)
{
	size_t seed = 0;

	json_set_alloc_funcs(json_malloc, kt_free);
	/* Keys come from strangers: a seed they can't know keeps the hash tables flat. 0 would mean the clock. */
	while (seed == 0)
		kt_rand_bytes(&seed, sizeof(seed));
	json_object_seed(seed);
}

/* jansson descends up to 2048 levels on the stack; count before it does. Malformed text is left to jansson. */
static bool too_deep(struct kt_view text)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		switch (c) {
		case '"':
			in_string = true;
			break;
		case '{':
		case '[':
			if (++depth > DEPTH_MAX)
				return true;
			break;
		case '}':
		case ']':
			if (depth > 0)
				depth--;
			break;
		default:
			break;
		}
	}
	return false;
}

/* jansson's own text quotes what it read, which may be a token: say what and where in our words. */
static const char *reason(enum json_error_code code)
{
	switch (code) {
	case json_error_premature_end_of_input:
		return "ends too early";
	case json_error_end_of_input_expected:
		return "something follows the value";
	case json_error_invalid_utf8:
		return "invalid UTF-8";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "a NUL character";
	case json_error_duplicate_key:
		return "a key is there twice";
	case json_error_numeric_overflow:
		return "a number is too large";
	default:
		return "malformed";
	}
}

enum kt_code kt_json_parse(struct kt_view text, size_t max, json_t **ret, struct kt_err *err)
{
	json_error_t error;

	*ret = NULL;
	if (text.len > max)
		return kt_err_set(err, KT_E_LIMIT, "JSON of %zu bytes is above the limit of %zu", text.len, max);
	if (text.len == 0)
		return kt_err_set(err, KT_E_INVALID, "JSON: empty");
	if (too_deep(text))
		return kt_err_set(err, KT_E_LIMIT, "JSON is nested deeper than %d levels", DEPTH_MAX);
	memset(&error, 0, sizeof(error));
	ran_out = false;
	*ret = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (*ret)
		return KT_OK;
	enum json_error_code code = json_error_code(&error);
	int line = error.line, column = error.column;

	kt_wipe(&error, sizeof(error));
	if (ran_out || code == json_error_out_of_memory || code == json_error_unknown)
		return kt_err_set(err, KT_E_NOMEM, "JSON: out of memory");
	return kt_err_set(err, KT_E_INVALID, "JSON: %s at line %d, column %d", reason(code), line, column);
}

static int add_chunk(const char *chunk, size_t len, void *arg)
{
	struct kt_buf *out = arg;

	kt_buf_add(out, chunk, len);
	return out->failed == KT_OK ? 0 : -1;
}

enum kt_code kt_json_dump(const json_t *value, struct kt_buf *out, struct kt_err *err)
{
	int failed = json_dump_callback(value, add_chunk, out, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

	if (out->failed != KT_OK)
		return kt_buf_check(out, "JSON", err);
	if (failed)
		return kt_err_set(err, value ? KT_E_NOMEM : KT_E_INVALID, "JSON: cannot be written");
	return KT_OK;
}

const char *kt_json_str(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

int64_t kt_json_int(const json_t *object, const char *key, int64_t fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? (int64_t)json_integer_value(value) : fallback;
}

bool kt_json_bool(const json_t *object, const char *key, bool fallback)
{
	const json_t *value = json_object_get(object, key);

	return json_is_boolean(value) ? json_is_true(value) : fallback;
}
