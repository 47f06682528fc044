/* Records: one function copies all texts of any of them into a block that the record owns. */
#include "keeper/store/store_internal.h"

#include <string.h>

static const char **text_at(void *record, size_t offset)
{
	return (const char **)(void *)((char *)record + offset);
}

static struct kt_view *view_at(void *record, size_t offset)
{
	return (struct kt_view *)(void *)((char *)record + offset);
}

enum kt_code kt_row_own(void *record, const struct kt_shape *shape, struct kt_err *err)
{
	size_t total = 1;

	for (size_t i = 0; i < shape->text_count; i++)
		total += strlen(*text_at(record, shape->texts[i])) + 1;
	for (size_t i = 0; i < shape->view_count; i++)
		total += view_at(record, shape->views[i])->len + 1;
	char *block = kt_malloc(total);
	if (block == NULL) {
		memset(record, 0, shape->size);
		return kt_err_set(err, KT_E_NOMEM, "read the store: out of memory");
	}
	char *at = block;
	for (size_t i = 0; i < shape->text_count; i++) {
		const char **text = text_at(record, shape->texts[i]);
		size_t len = strlen(*text) + 1;
		memcpy(at, *text, len);
		*text = at;
		at += len;
	}
	for (size_t i = 0; i < shape->view_count; i++) {
		struct kt_view *view = view_at(record, shape->views[i]);
		if (view->len != 0)
			memcpy(at, view->ptr, view->len);
		view->ptr = at;
		at[view->len] = '\0';
		at += view->len + 1;
	}
	*at = '\0';
	memcpy((char *)record + shape->mem, &block, sizeof(block));
	return KT_OK;
}

void kt_row_finish(void *record, const struct kt_shape *shape)
{
	void *block;

	memcpy(&block, (char *)record + shape->mem, sizeof(block));
	kt_free(block);
	memset(record, 0, shape->size);
}

bool kt_same_text(const char *a, const char *b)
{
	return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}
