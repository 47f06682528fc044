/* JSON paths as manifests write them: members and array indexes, nothing else. */
#include <string.h>

#include "courier/probe/probe.h"
#include "kt/text.h"

#define STEPS_MAX 32u

/* One step of the path; NULL when there is nothing there, *bad when the path itself is wrong. */
static json_t *step(json_t *at, const char **path, bool *bad)
{
	char name[256];
	uint64_t index;
	size_t len;

	if ((*path)[0] == '.') {
		len = strcspn(*path + 1, ".[");
		*bad = len == 0 || len >= sizeof(name);
		if (*bad) {
			return NULL;
		}
		memcpy(name, *path + 1, len);
		name[len] = '\0';
		*path += 1 + len;
		return json_object_get(at, name);
	}
	len = (*path)[0] == '[' ? strcspn(*path, "]") : 0;
	*bad = len < 2 || (*path)[len] != ']' ||
	       kt_parse_u64((struct kt_view){*path + 1, len - 1}, 1000000, &index, NULL) != KT_OK;
	if (*bad) {
		return NULL;
	}
	*path += len + 1;
	return json_array_get(at, index);
}

enum kt_code kt_json_at(json_t *root, const char *path, json_t **ret, struct kt_err *err)
{
	const char *rest = path;
	bool bad = false;
	json_t *at = root;

	if (strcmp(path, ".") == 0) {
		rest = "";
	}
	for (unsigned steps = 0; *rest != '\0' && at != NULL; steps++) {
		at = steps < STEPS_MAX ? step(at, &rest, &bad) : NULL;
	}
	if (bad || path[0] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "'%.200s' is not a JSON path: write .name or .list[0].name", path);
	}
	if (at == NULL) {
		return kt_err_set(err, KT_E_NOTFOUND, "the answer has nothing at %.200s", path);
	}
	*ret = at;
	return KT_OK;
}

enum kt_code kt_json_path(json_t *root, const char *path, struct kt_buf *out, struct kt_err *err)
{
	json_t *at = NULL;
	enum kt_code code = kt_json_at(root, path, &at, err);

	if (code != KT_OK) {
		return code;
	}
	if (json_is_string(at)) {
		kt_buf_add(out, json_string_value(at), json_string_length(at));
		return kt_buf_check(out, "a JSON value", err);
	}
	return kt_json_dump(at, out, err);
}
