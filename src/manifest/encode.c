/* The canonical JSON of a resource, written from the field tables: rows are sorted, defaults are left out. */
#include <stdio.h>
#include <string.h>

#include "kt/clock.h"
#include "kt/text.h"
#include "manifest/field.h"

struct any_list {
	const char *items;
	uint32_t count;
};

static void add_text(struct kt_buf *out, const char *text)
{
	kt_buf_add_json(out, kt_view_str(text));
}

static void add_pairs(struct kt_buf *out, const struct kt_pairs *pairs)
{
	kt_buf_addc(out, '{');
	for (uint32_t i = 0; i < pairs->count; i++) {
		if (i)
			kt_buf_addc(out, ',');
		add_text(out, pairs->items[i].key);
		kt_buf_addc(out, ':');
		add_text(out, pairs->items[i].value ? pairs->items[i].value : "");
	}
	kt_buf_addc(out, '}');
}

static void add_flags(struct kt_buf *out, const struct kt_enum_name *names, uint32_t bits)
{
	bool first = true;

	kt_buf_addc(out, '[');
	for (unsigned i = 0; i < 32; i++) {
		if (!(bits & (UINT32_C(1) << i)))
			continue;
		if (!first)
			kt_buf_addc(out, ',');
		add_text(out, kt_enum_text(names, (int)(UINT32_C(1) << i)));
		first = false;
	}
	kt_buf_addc(out, ']');
}

static void encode_object(struct kt_buf *out, const struct kt_table *table, const void *object);

/* True when there is nothing to write. */
static bool is_default(const struct kt_field *field, const void *at)
{
	int64_t number;
	const void *pointer;
	int small;

	switch (field->type) {
	case KT_F_STRING:
		memcpy(&pointer, at, sizeof(pointer));
		return !pointer || (field->def_text && !strcmp(pointer, field->def_text));
	case KT_F_BOOL:
		return *(const bool *)at == (field->def != 0);
	case KT_F_INT:
	case KT_F_DURATION:
	case KT_F_MODE:
		memcpy(&number, at, sizeof(number));
		return number == field->def;
	case KT_F_ENUM:
	case KT_F_FLAGS:
		memcpy(&small, at, sizeof(small));
		return small == (int)field->def;
	case KT_F_BYTES:
		return !((const struct kt_bytes *)at)->ptr;
	case KT_F_STRINGS:
	case KT_F_PAIRS:
	case KT_F_LIST:
		return !((const struct any_list *)at)->count;
	case KT_F_STRUCT:
		for (size_t i = 0; i < field->object->count; i++) {
			if (!is_default(&field->object->fields[i], (const char *)at + field->object->fields[i].offset))
				return false;
		}
		return true;
	case KT_F_OBJECT:
		memcpy(&pointer, at, sizeof(pointer));
		return !pointer;
	case KT_F_SECRETS:
	case KT_F_FIXED:
	case KT_F_IGNORED:
	case KT_F_REFUSED:
	default:
		return true;
	}
}

static void encode_number(struct kt_buf *out, const struct kt_field *field, const void *at)
{
	char text[32];
	int64_t number;

	memcpy(&number, at, sizeof(number));
	if (field->type == KT_F_DURATION)
		kt_buf_addf(out, "\"%s\"", kt_duration_format_go(number, text));
	else if (field->type == KT_F_MODE)
		kt_buf_addf(out, "\"%04llo\"", (unsigned long long)number);
	else
		kt_buf_addf(out, "%lld", (long long)number);
}

static void encode_list(struct kt_buf *out, const struct kt_table *table, const struct any_list *list)
{
	kt_buf_addc(out, '[');
	for (uint32_t i = 0; i < list->count; i++) {
		if (i)
			kt_buf_addc(out, ',');
		encode_object(out, table, list->items + i * table->size);
	}
	kt_buf_addc(out, ']');
}

static void encode_bytes(struct kt_buf *out, const struct kt_bytes *bytes)
{
	kt_buf_addc(out, '"');
	kt_base64_encode(out, bytes->ptr, bytes->len);
	kt_buf_addc(out, '"');
}

static void encode_field(struct kt_buf *out, const struct kt_field *field, const void *at)
{
	const void *pointer;
	int small;

	switch (field->type) {
	case KT_F_STRING:
		memcpy(&pointer, at, sizeof(pointer));
		add_text(out, pointer);
		break;
	case KT_F_BOOL:
		kt_buf_adds(out, *(const bool *)at ? "true" : "false");
		break;
	case KT_F_INT:
	case KT_F_DURATION:
	case KT_F_MODE:
		encode_number(out, field, at);
		break;
	case KT_F_ENUM:
		memcpy(&small, at, sizeof(small));
		add_text(out, kt_enum_text(field->names, small));
		break;
	case KT_F_FLAGS:
		memcpy(&small, at, sizeof(small));
		add_flags(out, field->names, (uint32_t)small);
		break;
	case KT_F_BYTES:
		encode_bytes(out, at);
		break;
	case KT_F_STRINGS:
		kt_buf_add_json_list(out, ((const struct kt_strings *)at)->items, ((const struct kt_strings *)at)->count);
		break;
	case KT_F_PAIRS:
		add_pairs(out, at);
		break;
	case KT_F_STRUCT:
		encode_object(out, field->object, at);
		break;
	case KT_F_OBJECT:
		memcpy(&pointer, at, sizeof(pointer));
		encode_object(out, field->object, pointer);
		break;
	case KT_F_LIST:
		encode_list(out, field->object, at);
		break;
	case KT_F_SECRETS:
	case KT_F_FIXED:
	case KT_F_IGNORED:
	case KT_F_REFUSED:
	default:
		break;
	}
}

static void encode_object(struct kt_buf *out, const struct kt_table *table, const void *object)
{
	bool first = true;

	kt_buf_addc(out, '{');
	for (size_t i = 0; i < table->count; i++) {
		const struct kt_field *field = &table->fields[i];
		const void *at = (const char *)object + field->offset;

		/* What is required must be there when it is read back. */
		if (is_default(field, at) && !((field->flags & KT_F_REQUIRED) && field->type != KT_F_FIXED))
			continue;
		if (!first)
			kt_buf_addc(out, ',');
		first = false;
		kt_buf_addc(out, '"');
		kt_buf_adds(out, field->name);
		kt_buf_add(out, "\":", 2);
		encode_field(out, field, at);
	}
	kt_buf_addc(out, '}');
}

static void encode_secret(const struct kt_resource *resource, struct kt_buf *out)
{
	const struct kt_secret_items *data = &resource->secret.data;

	kt_buf_adds(out, "{\"keys\":[");
	for (uint32_t i = 0; i < data->count; i++) {
		if (i)
			kt_buf_addc(out, ',');
		add_text(out, data->items[i].key);
	}
	kt_buf_adds(out, "],\"metadata\":");
	encode_object(out, &kt_table_meta, &resource->meta);
	kt_buf_addc(out, '}');
}

enum kt_code kt_resource_to_json(const struct kt_resource *resource, struct kt_buf *out, struct kt_err *err)
{
	if (resource->kind == KT_RES_SECRET)
		encode_secret(resource, out);
	else
		encode_object(out, kt_kind_infos[resource->kind].top, resource);
	return kt_buf_check(out, resource->meta.name, err);
}
