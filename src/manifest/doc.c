/* The JSON Schema and the reference page of a kind, made from its field table. */
#include "manifest/doc.h"

#include <stdio.h>
#include <string.h>

#include "kt/clock.h"
#include "manifest/field.h"

#define DURATION_PATTERN "^([0-9]+(\\\\.[0-9]+)?(ns|us|ms|s|m|h))+$"

/* --- JSON Schema ----------------------------------------------------------------------------------------------------
 */

static void indent(struct kt_buf *out, unsigned depth)
{
	kt_buf_addc(out, '\n');
	for (unsigned i = 0; i < depth; i++)
		kt_buf_adds(out, "  ");
}

static void add_text(struct kt_buf *out, const char *text)
{
	kt_buf_add_json(out, kt_view_str(text));
}

static void schema_object(struct kt_buf *out, const struct kt_table *table, const struct kt_kind_info *kind,
			  unsigned depth);

static void schema_names(struct kt_buf *out, const struct kt_enum_name *names)
{
	kt_buf_adds(out, "\"type\": \"string\", \"enum\": [");
	for (const struct kt_enum_name *e = names; e->name; e++) {
		if (e != names)
			kt_buf_adds(out, ", ");
		add_text(out, e->name);
	}
	kt_buf_addc(out, ']');
}

static void schema_default(struct kt_buf *out, const struct kt_field *field)
{
	char text[32];

	if (field->flags & KT_F_REQUIRED)
		return;
	switch (field->type) {
	case KT_F_STRING:
		if (field->def_text) {
			kt_buf_adds(out, ", \"default\": ");
			add_text(out, field->def_text);
		}
		break;
	case KT_F_BOOL:
		kt_buf_addf(out, ", \"default\": %s", field->def ? "true" : "false");
		break;
	case KT_F_INT:
		if (field->def)
			kt_buf_addf(out, ", \"default\": %lld", (long long)field->def);
		break;
	case KT_F_DURATION:
		if (field->def)
			kt_buf_addf(out, ", \"default\": \"%s\"", kt_duration_format_go(field->def, text));
		break;
	case KT_F_ENUM:
		if (strcmp(kt_enum_text(field->names, (int)field->def), "?") != 0)
			kt_buf_addf(out, ", \"default\": \"%s\"", kt_enum_text(field->names, (int)field->def));
		break;
	case KT_F_MODE:
	case KT_F_FLAGS:
	case KT_F_BYTES:
	case KT_F_STRINGS:
	case KT_F_PAIRS:
	case KT_F_SECRETS:
	case KT_F_STRUCT:
	case KT_F_OBJECT:
	case KT_F_LIST:
	case KT_F_FIXED:
	case KT_F_IGNORED:
	case KT_F_REFUSED:
	default:
		break;
	}
}

static void schema_type(struct kt_buf *out, const struct kt_field *field, const struct kt_kind_info *kind,
			unsigned depth)
{
	long long max_items = field->max ? field->max : KT_MANIFEST_NAMES_MAX;

	switch (field->type) {
	case KT_F_STRING:
		kt_buf_addf(out, "\"type\": \"string\", \"maxLength\": %lld",
			    field->max ? (long long)field->max : 8192LL);
		break;
	case KT_F_BOOL:
		kt_buf_adds(out, "\"type\": \"boolean\"");
		break;
	case KT_F_INT:
		kt_buf_addf(out, "\"type\": \"integer\", \"minimum\": %lld, \"maximum\": %lld", (long long)field->min,
			    field->max ? (long long)field->max : (long long)INT32_MAX);
		break;
	case KT_F_DURATION:
		kt_buf_adds(out, "\"type\": \"string\", \"pattern\": \"" DURATION_PATTERN "\"");
		break;
	case KT_F_MODE:
		kt_buf_adds(out, "\"type\": \"string\", \"pattern\": \"^0?[0-7]{3}$\"");
		break;
	case KT_F_ENUM:
		schema_names(out, field->names);
		break;
	case KT_F_FLAGS:
		kt_buf_addf(out, "\"type\": \"array\", \"maxItems\": %lld, \"items\": {", max_items);
		schema_names(out, field->names);
		kt_buf_addc(out, '}');
		break;
	case KT_F_BYTES:
		kt_buf_adds(out, "\"type\": \"string\", \"contentEncoding\": \"base64\"");
		break;
	case KT_F_STRINGS:
		kt_buf_addf(
			out,
			"\"type\": \"array\", \"maxItems\": %lld, \"items\": {\"type\": \"string\", \"minLength\": 1}",
			max_items);
		break;
	case KT_F_PAIRS:
	case KT_F_SECRETS:
		kt_buf_addf(out,
			    "\"type\": \"object\", \"maxProperties\": %lld, \"additionalProperties\": {\"type\": "
			    "\"string\"}",
			    max_items);
		break;
	case KT_F_STRUCT:
	case KT_F_OBJECT:
		schema_object(out, field->object, kind, depth);
		break;
	case KT_F_LIST:
		kt_buf_addf(out, "\"type\": \"array\", \"maxItems\": %lld, \"items\": {", max_items);
		schema_object(out, field->object, kind, depth);
		kt_buf_addc(out, '}');
		break;
	case KT_F_FIXED:
		kt_buf_adds(out, "\"const\": ");
		add_text(out, field->def_text ? field->def_text : kind->name);
		break;
	case KT_F_IGNORED:
		kt_buf_adds(out, "\"$comment\": \"accepted without effect\"");
		break;
	case KT_F_REFUSED:
	default:
		kt_buf_adds(out, "\"not\": {}");
		break;
	}
}

static void schema_required(struct kt_buf *out, const struct kt_table *table, unsigned depth)
{
	bool first = true;

	for (size_t i = 0; i < table->count; i++) {
		if (!(table->fields[i].flags & KT_F_REQUIRED))
			continue;
		if (first) {
			kt_buf_addc(out, ',');
			indent(out, depth);
			kt_buf_adds(out, "\"required\": [");
		}
		kt_buf_addf(out, "%s\"%s\"", first ? "" : ", ", table->fields[i].name);
		first = false;
	}
	if (!first)
		kt_buf_addc(out, ']');
}

static void schema_choice(struct kt_buf *out, const struct kt_table *table, unsigned depth)
{
	bool first = true;

	if (!table->choice_min)
		return;
	kt_buf_addc(out, ',');
	indent(out, depth);
	kt_buf_addf(out, "\"%s\": [", table->choice_max == 1 ? "oneOf" : "anyOf");
	for (size_t i = 0; i < table->count; i++) {
		if (!(table->fields[i].flags & KT_F_CHOICE) || table->fields[i].type == KT_F_REFUSED)
			continue;
		kt_buf_addf(out, "%s{\"required\": [\"%s\"]}", first ? "" : ", ", table->fields[i].name);
		first = false;
	}
	kt_buf_addc(out, ']');
}

static void schema_object(struct kt_buf *out, const struct kt_table *table, const struct kt_kind_info *kind,
			  unsigned depth)
{
	kt_buf_adds(out, "\"type\": \"object\", \"additionalProperties\": false");
	schema_required(out, table, depth);
	schema_choice(out, table, depth);
	kt_buf_addc(out, ',');
	indent(out, depth);
	kt_buf_adds(out, "\"properties\": {");
	for (size_t i = 0; i < table->count; i++) {
		const struct kt_field *field = &table->fields[i];

		if (i)
			kt_buf_addc(out, ',');
		indent(out, depth + 1);
		kt_buf_addf(out, "\"%s\": {\"description\": ", field->name);
		add_text(out, field->doc);
		kt_buf_adds(out, ", ");
		schema_type(out, field, kind, depth + 2);
		schema_default(out, field);
		kt_buf_addc(out, '}');
	}
	indent(out, depth);
	kt_buf_addc(out, '}');
}

void kt_manifest_schema(enum kt_kind kind, struct kt_buf *out)
{
	const struct kt_kind_info *info = &kt_kind_infos[kind];

	kt_buf_adds(out, "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"$id\": "
			 "\"https://keyturn.dev/schema/");
	kt_buf_addf(out, "%s.schema.json\",\n  \"title\": \"%s\",\n  \"description\": ", info->file, info->name);
	add_text(out, info->doc);
	kt_buf_adds(out, ",\n  ");
	schema_object(out, info->top, info, 1);
	kt_buf_adds(out, "\n}\n");
}

/* --- the reference page
 * ------------------------------------------------------------------------------------------------ */

static void type_name(struct kt_buf *out, const struct kt_field *field)
{
	static const char *const names[] = {
		[KT_F_STRING] = "string",
		[KT_F_BOOL] = "boolean",
		[KT_F_INT] = "number",
		[KT_F_DURATION] = "duration",
		[KT_F_MODE] = "mode",
		[KT_F_BYTES] = "base64",
		[KT_F_STRINGS] = "list of strings",
		[KT_F_PAIRS] = "map of strings",
		[KT_F_SECRETS] = "map of strings",
		[KT_F_STRUCT] = "object",
		[KT_F_OBJECT] = "object",
		[KT_F_LIST] = "list of objects",
		[KT_F_FIXED] = "string",
		[KT_F_IGNORED] = "not used",
		[KT_F_REFUSED] = "**refused**",
		[KT_F_ENUM] = "",
		[KT_F_FLAGS] = "list of ",
	};

	kt_buf_adds(out, names[field->type]);
	if (field->type != KT_F_ENUM && field->type != KT_F_FLAGS)
		return;
	for (const struct kt_enum_name *e = field->names; e->name; e++)
		kt_buf_addf(out, "%s`%s`", e == field->names ? "" : ", ", e->name);
}

static void default_text(struct kt_buf *out, const struct kt_field *field)
{
	char text[32];
	bool first = true;

	if (field->flags & KT_F_REQUIRED) {
		kt_buf_adds(out, "**required**");
		return;
	}
	if (field->type == KT_F_STRING && field->def_text)
		kt_buf_addf(out, "`%s`", field->def_text);
	else if (field->type == KT_F_BOOL)
		kt_buf_adds(out, field->def ? "`true`" : "`false`");
	else if (field->type == KT_F_INT && field->def)
		kt_buf_addf(out, "`%lld`", (long long)field->def);
	else if (field->type == KT_F_DURATION && field->def)
		kt_buf_addf(out, "`%s`", kt_duration_format(field->def, text));
	else if (field->type == KT_F_ENUM && strcmp(kt_enum_text(field->names, (int)field->def), "?") != 0)
		kt_buf_addf(out, "`%s`", kt_enum_text(field->names, (int)field->def));
	for (unsigned bit = 0; field->type == KT_F_FLAGS && bit < 31; bit++) {
		if (!(field->def & (INT64_C(1) << bit)))
			continue;
		kt_buf_addf(out, "%s`%s`", first ? "" : ", ", kt_enum_text(field->names, 1 << bit));
		first = false;
	}
}

static void limits_text(struct kt_buf *out, const struct kt_field *field)
{
	char a[32], b[32];

	if (field->type == KT_F_INT)
		kt_buf_addf(out, " From %lld to %lld.", (long long)field->min,
			    field->max ? (long long)field->max : (long long)INT32_MAX);
	else if (field->type == KT_F_DURATION && field->max)
		kt_buf_addf(out, " From %s to %s.", kt_duration_format(field->min, a),
			    kt_duration_format(field->max, b));
	else if ((field->type == KT_F_STRINGS || field->type == KT_F_LIST) && field->max)
		kt_buf_addf(out, " At most %lld.", (long long)field->max);
	if (field->flags & KT_F_CHOICE)
		kt_buf_adds(out, " *(a choice)*");
}

static void reference_rows(struct kt_buf *out, const struct kt_table *table, const char *prefix)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct kt_field *field = &table->fields[i];
		char path[256];

		(void)snprintf(path, sizeof(path), "%s%s%s", prefix, field->name, field->type == KT_F_LIST ? "[]" : "");
		kt_buf_addf(out, "| `%s` | ", path);
		type_name(out, field);
		kt_buf_adds(out, " | ");
		default_text(out, field);
		kt_buf_addf(out, " | %s", field->doc);
		limits_text(out, field);
		kt_buf_adds(out, " |\n");
		if (field->object && field->object != &kt_table_meta) {
			(void)snprintf(path + strlen(path), sizeof(path) - strlen(path), ".");
			reference_rows(out, field->object, path);
		}
	}
}

#define HEAD "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"

void kt_manifest_reference(enum kt_kind kind, struct kt_buf *out)
{
	const struct kt_kind_info *info = &kt_kind_infos[kind];

	kt_buf_addf(out, "# %s (%s)\n\n%s\n\n```yaml\n%s```\n\n", info->name, info->api_version, info->doc,
		    info->example);
	kt_buf_adds(out, "A field marked *refused* is known and not offered: it is an error, with the reason. Fields "
			 "that stand nowhere "
			 "here are errors too; none is ignored in silence.\n\n" HEAD);
	reference_rows(out, info->top, "");
	kt_buf_adds(out, "\n`metadata`:\n\n" HEAD);
	reference_rows(out, &kt_table_meta, "metadata.");
	kt_buf_addf(out,
		    "\nThis page and `data/%s.schema.json` are made from the field table that also reads the manifests "
		    "(`make manifest-doc`).\n",
		    info->file);
}

const char *kt_manifest_doc_file(enum kt_kind kind)
{
	return kt_kind_infos[kind].file;
}
