/* Fills typed structs from trees by the field tables; every mistake becomes a complaint with path, value and fix. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/clock.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "manifest/field.h"

#define STRING_MAX ((int64_t)8192)
#define BYTES_MAX  ((int64_t)(512 * 1024))
#define SHOWN_MAX  64 /* bytes of a value in a complaint */
#define TABLE_MAX  64 /* rows of a table */

/* The layout of every {items, count}. */
struct any_list {
	void *items;
	uint32_t count;
};

/* --- complaints --------------------------------------------------------------------------------------------------- */

static void add_path(struct kt_buf *out, const struct kt_path *path)
{
	if (!path)
		return;
	add_path(out, path->parent);
	if (path->name)
		kt_buf_addf(out, "%s%s", path->parent ? "." : "", path->name);
	else
		kt_buf_addf(out, "[%u]", path->index);
}

__attribute__((format(printf, 5, 0))) static void vcomplain(struct kt_decoder *d, enum kt_severity severity,
							    const struct kt_node *node, const char *name,
							    const char *fmt, va_list args)
{
	KT_AUTOBUF struct kt_buf text = {0};
	char what[512];
	const struct kt_node *at = node && name ? kt_node_find(node, name) : node;

	if (vsnprintf(what, sizeof(what), fmt, args) < 0)
		what[0] = '\0';
	kt_buf_init(&text, 2048);
	add_path(&text, d->path);
	if (name && *name)
		kt_buf_addf(&text, "%s%s", d->path && *name != '[' ? "." : "", name);
	if (severity == KT_COMPLAINT_ERROR)
		d->errors++;
	kt_report_add(d->report, severity, d->file, at ? at->line : d->line, "%s%s%s", text.len ? text.ptr : "",
		      text.len ? " " : "", what);
}

void kt_complain(struct kt_decoder *d, const struct kt_node *node, const char *name, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vcomplain(d, KT_COMPLAINT_ERROR, node, name, fmt, args);
	va_end(args);
}

void kt_warn(struct kt_decoder *d, const struct kt_node *node, const char *name, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vcomplain(d, KT_COMPLAINT_WARNING, node, name, fmt, args);
	va_end(args);
}

/* A complaint about one value, which is d->path already. */
static void bad_value(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, const char *what)
{
	bool shown = !(field->flags & KT_F_QUIET) && node->text && node->type != KT_NODE_NULL;

	if (shown)
		kt_complain(d, node, NULL, "(%.*s%s) %s", SHOWN_MAX, node->text, node->len > SHOWN_MAX ? "..." : "",
			    what);
	else
		kt_complain(d, node, NULL, "%s", what);
}

static void wrong_type(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
		       const char *wanted)
{
	char what[160];
	const char *hint = "";

	if (node->type == KT_NODE_BOOL || node->type == KT_NODE_INT || node->type == KT_NODE_FLOAT)
		hint = !strncmp(wanted, "a string", 8) || !strncmp(wanted, "a duration", 10) ? "; write it in quotes"
											     : "";
	(void)snprintf(what, sizeof(what), "must be %s, not %s%s", wanted, kt_node_type_name(node->type), hint);
	bad_value(d, field, node, what);
}

const char *kt_enum_text(const struct kt_enum_name *names, int value)
{
	for (; names->name; names++) {
		if (names->value == value)
			return names->name;
	}
	return "?";
}

static void bad_enum(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node)
{
	const char *all[64], *near;
	char what[400];
	size_t count = 0, used = 0;

	for (const struct kt_enum_name *e = field->names; e->name && count < 63; e++)
		all[count++] = e->name;
	all[count] = NULL;
	near = kt_nearest(node->text, all);
	for (size_t i = 0; !near && i < count; i++) {
		if (kt_ascii_ieq(kt_view_str(all[i]), kt_view_str(node->text)))
			near = all[i];
	}
	used = (size_t)snprintf(what, sizeof(what), "%s%s%smust be ", near ? "is not known, did you mean " : "",
				near ? near : "", near ? "? It " : "");
	for (size_t i = 0; i < count && used < sizeof(what); i++) {
		int n = snprintf(what + used, sizeof(what) - used, "%s%s",
				 i == 0           ? ""
				 : i + 1 == count ? " or "
						  : ", ",
				 all[i]);

		used += n > 0 ? (size_t)n : 0;
	}
	bad_value(d, field, node, what);
}

const char *kt_written(const struct kt_node *node, const char *name, kt_ms span, char out[32])
{
	const struct kt_node *field = kt_node_get(node, name);

	return field && field->text && field->len < 32 ? field->text : kt_duration_format(span, out);
}

/* --- scalars
 * ---------------------------------------------------------------------------------------------------------- */

static int64_t limit_of(const struct kt_field *field, int64_t fallback)
{
	return field->max ? field->max : fallback;
}

/* A string of field, checked; NULL after a complaint. */
static const char *read_string(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node)
{
	/* The maximum of a list or a map is about its items. */
	const int64_t most = field->type == KT_F_STRING ? limit_of(field, STRING_MAX) : STRING_MAX;
	const char *problem;

	if (node->type != KT_NODE_STRING) {
		wrong_type(d, field, node, "a string");
		return NULL;
	}
	if ((int64_t)node->len > most) {
		char what[96];

		(void)snprintf(what, sizeof(what), "has %u bytes, at most %lld are accepted", node->len,
			       (long long)most);
		bad_value(d, field, node, what);
		return NULL;
	}
	if (memchr(node->text, '\0', node->len)) {
		bad_value(d, field, node, "has a NUL in it, which is not accepted");
		return NULL;
	}
	problem = field->check ? field->check(node->text) : NULL;
	if (problem) {
		bad_value(d, field, node, problem);
		return NULL;
	}
	return kt_arena_str(d->arena, node->text, node->len);
}

static void read_int(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, int64_t *out)
{
	int64_t max = field->max ? field->max : INT32_MAX, n;
	char what[96];

	if (node->type != KT_NODE_INT) {
		wrong_type(d, field, node, "a number");
		return;
	}
	if (node->text[0] == '0' && node->text[1]) {
		bad_value(d, field, node, "must be a decimal number without leading zeros");
		return;
	}
	if (kt_parse_i64(kt_view_str(node->text), field->min, max, &n, NULL) == KT_OK) {
		*out = n;
		return;
	}
	(void)snprintf(what, sizeof(what), "must be a whole number from %lld to %lld", (long long)field->min,
		       (long long)max);
	bad_value(d, field, node, what);
}

static void read_duration(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, kt_ms *out)
{
	char what[128], a[32], b[32];
	kt_ms span;

	if (node->type != KT_NODE_STRING) {
		if (node->type == KT_NODE_INT && !strcmp(node->text, "0") && !field->min)
			*out = 0;
		else
			wrong_type(d, field, node, "a duration such as 90m or 2160h");
		return;
	}
	if (kt_duration_parse(kt_view_str(node->text), &span, NULL) != KT_OK) {
		bad_value(d, field, node, "is not a duration; write it as 30s, 90m, 2160h or 1h30m");
		return;
	}
	if (span >= field->min && (!field->max || span <= field->max)) {
		*out = span;
		return;
	}
	if (field->max)
		(void)snprintf(what, sizeof(what), "must be from %s to %s", kt_duration_format(field->min, a),
			       kt_duration_format(field->max, b));
	else
		(void)snprintf(what, sizeof(what), "must be at least %s", kt_duration_format(field->min, a));
	bad_value(d, field, node, what);
}

static void read_mode(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, int64_t *out)
{
	int64_t mode = 0;

	if (node->type == KT_NODE_STRING && node->len >= 3 && node->len <= 4 &&
	    strspn(node->text, "01234567") == node->len && (node->len == 3 || node->text[0] == '0')) {
		for (const char *at = node->text; *at; at++)
			mode = mode * 8 + (*at - '0');
		*out = mode;
		return;
	}
	bad_value(d, field, node, "must be an octal mode in quotes, such as \"0440\"");
}

static bool find_enum(const struct kt_field *field, const char *text, int *out)
{
	for (const struct kt_enum_name *e = field->names; e->name; e++) {
		if (!strcmp(e->name, text)) {
			*out = e->value;
			return true;
		}
	}
	return false;
}

static void read_enum(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, int *out)
{
	const char *problem = field->check && node->type == KT_NODE_STRING ? field->check(node->text) : NULL;

	if (node->type != KT_NODE_STRING)
		wrong_type(d, field, node, "a string");
	else if (problem)
		bad_value(d, field, node, problem);
	else if (!find_enum(field, node->text, out))
		bad_enum(d, field, node);
}

/* Base64 with white space, as folded YAML leaves it; fills ptr and len. */
static bool read_base64(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
			struct kt_bytes *out)
{
	KT_AUTOBUF struct kt_buf packed = {0}, raw = {0};
	bool good;

	kt_buf_init(&packed, (size_t)BYTES_MAX * 2);
	kt_buf_init(&raw, (size_t)BYTES_MAX);
	for (uint32_t i = 0; i < node->len;) {
		size_t n = strcspn(node->text + i, " \t\r\n");

		kt_buf_add(&packed, node->text + i, n);
		i += (uint32_t)(n + (node->text[i + n] != '\0'));
		if (!n && !node->text[i])
			break;
	}
	good = packed.failed == KT_OK && kt_base64_decode(kt_buf_view(&packed), &raw, NULL) == KT_OK &&
	       raw.failed == KT_OK;
	if (!good) {
		bad_value(d, field, node, "is not base64 of at most 512 KiB");
		return false;
	}
	out->ptr = (const unsigned char *)kt_arena_str(d->arena, raw.ptr ? raw.ptr : "", raw.len);
	out->len = (uint32_t)raw.len;
	return out->ptr != NULL;
}

static void read_bytes(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
		       struct kt_bytes *out)
{
	struct kt_field quiet = *field;

	quiet.flags |= KT_F_QUIET;
	if (node->type != KT_NODE_STRING)
		wrong_type(d, &quiet, node, "a string with base64");
	else
		(void)read_base64(d, &quiet, node, out);
}

/* --- lists and maps
 * ------------------------------------------------------------------------------------------------------ */

static bool list_fits(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
		      enum kt_node_type type)
{
	char what[96];
	int64_t max = limit_of(field, KT_MANIFEST_NAMES_MAX);

	if (node->type != type) {
		wrong_type(d, field, node, type == KT_NODE_LIST ? "a list" : "an object");
		return false;
	}
	if ((int64_t)node->len <= max)
		return true;
	(void)snprintf(what, sizeof(what), "has %u entries, at most %lld are accepted; split it", node->len,
		       (long long)max);
	bad_value(d, field, node, what);
	return false;
}

static void read_strings(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
			 struct kt_strings *out)
{
	struct kt_path path = {.parent = d->path};
	const char **items;

	if (!list_fits(d, field, node, KT_NODE_LIST) || !node->len)
		return;
	items = kt_arena_alloc(d->arena, node->len * sizeof(*items));
	if (!items)
		return;
	d->path = &path;
	for (const struct kt_node *child = node->first; child; child = child->next, path.index++) {
		if (child->type == KT_NODE_STRING && !child->len)
			kt_complain(d, child, NULL, "must not be empty");
		else
			items[path.index] = read_string(d, field, child);
	}
	d->path = path.parent;
	out->items = items;
	out->count = node->len;
}

static void read_flags(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, uint32_t *out)
{
	struct kt_path path = {.parent = d->path};
	uint32_t bits = 0;

	if (!list_fits(d, field, node, KT_NODE_LIST) || !node->len)
		return;
	d->path = &path;
	for (const struct kt_node *child = node->first; child; child = child->next, path.index++) {
		int bit = 0;

		read_enum(d, field, child, &bit);
		bits |= (uint32_t)bit;
	}
	d->path = path.parent;
	*out = bits;
}

static int compare_pairs(const void *a, const void *b)
{
	return strcmp(((const struct kt_pair *)a)->key, ((const struct kt_pair *)b)->key);
}

static void read_pairs(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
		       struct kt_pairs *out)
{
	struct kt_path path = {.parent = d->path};
	struct kt_pair *items;
	uint32_t count = 0;

	if (!list_fits(d, field, node, KT_NODE_MAP) || !node->len)
		return;
	items = kt_arena_alloc(d->arena, node->len * sizeof(*items));
	if (!items)
		return;
	d->path = &path;
	for (const struct kt_node *child = node->first; child; child = child->next) {
		const char *problem = field->check_key ? field->check_key(child->key) : NULL;

		path.name = child->key;
		items[count].key = kt_arena_str(d->arena, child->key, strlen(child->key));
		items[count].value = problem ? NULL : read_string(d, field, child);
		if (problem)
			kt_complain(d, child, NULL, "%s", problem);
		if (!items[count].key)
			break;
		count++;
	}
	qsort(items, count, sizeof(*items), compare_pairs);
	for (uint32_t i = 1; i < count; i++) {
		path.name = items[i].key;
		if (!strcmp(items[i - 1].key, items[i].key))
			kt_complain(d, node, NULL, "is given twice");
	}
	d->path = path.parent;
	out->items = items;
	out->count = count;
}

static void read_secrets(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
			 struct kt_secret_items *out)
{
	struct kt_path path = {.parent = d->path};
	struct kt_field quiet = *field;
	struct kt_secret_item *items;
	uint32_t count = out->count;

	quiet.flags |= KT_F_QUIET;
	if (!list_fits(d, &quiet, node, KT_NODE_MAP) || !node->len)
		return;
	items = kt_arena_alloc(d->arena, (count + node->len) * sizeof(*items));
	if (!items)
		return;
	if (count)
		memcpy(items, out->items, count * sizeof(*items));
	d->path = &path;
	for (const struct kt_node *child = node->first; child; child = child->next) {
		struct kt_secret_item *item = &items[count];
		const char *problem = kt_value_key(child->key);

		path.name = child->key;
		if (problem)
			kt_complain(d, child, NULL, "%s", problem);
		else if (child->type != KT_NODE_STRING)
			wrong_type(d, &quiet, child, "a string");
		else if (field->flags & KT_F_BASE64 ? !read_base64(d, &quiet, child, &item->value) : false)
			continue;
		if (!(field->flags & KT_F_BASE64) && child->type == KT_NODE_STRING) {
			item->value.ptr = (const unsigned char *)kt_arena_str(d->arena, child->text, child->len);
			item->value.len = child->len;
		}
		item->key = kt_arena_str(d->arena, child->key, strlen(child->key));
		if (!item->key)
			break;
		count++;
	}
	d->path = path.parent;
	out->items = items;
	out->count = count;
}

static void read_list(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node,
		      struct any_list *out)
{
	struct kt_path path = {.parent = d->path};
	char *items;

	if (!list_fits(d, field, node, KT_NODE_LIST) || !node->len)
		return;
	items = kt_arena_alloc(d->arena, node->len * field->object->size);
	if (!items)
		return;
	d->path = &path;
	for (const struct kt_node *child = node->first; child; child = child->next, path.index++) {
		if (child->type == KT_NODE_MAP)
			kt_decode(d, field->object, child, items + path.index * field->object->size);
		else
			wrong_type(d, field, child, "an object");
	}
	d->path = path.parent;
	out->items = items;
	out->count = node->len;
}

/* --- objects
 * ------------------------------------------------------------------------------------------------------------ */

static void set_default(struct kt_decoder *d, const struct kt_field *field, void *at)
{
	switch (field->type) {
	case KT_F_STRING:
		memcpy(at, &field->def_text, sizeof(field->def_text));
		break;
	case KT_F_BOOL:
		*(bool *)at = field->def != 0;
		break;
	case KT_F_INT:
	case KT_F_DURATION:
	case KT_F_MODE:
		memcpy(at, &field->def, sizeof(field->def));
		break;
	case KT_F_ENUM:
	case KT_F_FLAGS:
		memcpy(at, &(int){(int)field->def}, sizeof(int));
		break;
	case KT_F_STRUCT:
		/* The struct's own defaults; its checks run when it is read from a node. */
		for (size_t i = 0; i < field->object->count; i++)
			set_default(d, &field->object->fields[i], (char *)at + field->object->fields[i].offset);
		break;
	case KT_F_BYTES:
	case KT_F_STRINGS:
	case KT_F_PAIRS:
	case KT_F_SECRETS:
	case KT_F_OBJECT:
	case KT_F_LIST:
	case KT_F_FIXED:
	case KT_F_IGNORED:
	case KT_F_REFUSED:
	default:
		break;
	}
}

static void read_object(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, void *at)
{
	void *object;

	if (node->type != KT_NODE_MAP) {
		wrong_type(d, field, node, "an object");
		return;
	}
	if (field->type == KT_F_STRUCT) {
		kt_decode(d, field->object, node, at);
		return;
	}
	object = kt_arena_alloc(d->arena, field->object->size);
	if (!object)
		return;
	kt_decode(d, field->object, node, object);
	memcpy(at, &object, sizeof(object));
}

static void read_field(struct kt_decoder *d, const struct kt_field *field, const struct kt_node *node, void *at)
{
	const char *text;

	switch (field->type) {
	case KT_F_STRING:
		text = read_string(d, field, node);
		if (text)
			memcpy(at, &text, sizeof(text));
		break;
	case KT_F_BOOL:
		if (node->type == KT_NODE_BOOL)
			*(bool *)at = node->truth;
		else
			wrong_type(d, field, node, "true or false");
		break;
	case KT_F_INT:
		read_int(d, field, node, at);
		break;
	case KT_F_DURATION:
		read_duration(d, field, node, at);
		break;
	case KT_F_MODE:
		read_mode(d, field, node, at);
		break;
	case KT_F_ENUM:
		read_enum(d, field, node, at);
		break;
	case KT_F_FLAGS:
		read_flags(d, field, node, at);
		break;
	case KT_F_BYTES:
		read_bytes(d, field, node, at);
		break;
	case KT_F_STRINGS:
		read_strings(d, field, node, at);
		break;
	case KT_F_PAIRS:
		read_pairs(d, field, node, at);
		break;
	case KT_F_SECRETS:
		read_secrets(d, field, node, at);
		break;
	case KT_F_STRUCT:
	case KT_F_OBJECT:
		read_object(d, field, node, at);
		break;
	case KT_F_LIST:
		read_list(d, field, node, at);
		break;
	case KT_F_IGNORED:
		if (field->flags & KT_F_WARN)
			kt_warn(d, node, NULL, "has no effect here: %s", field->doc);
		break;
	case KT_F_REFUSED:
		kt_complain(d, node, NULL, "is not offered: %s", field->doc);
		break;
	case KT_F_FIXED:
	default:
		break;
	}
}

/* The row of a name by binary search; -1 when there is none. */
static int find_field(const struct kt_table *table, const char *name)
{
	size_t low = 0, high = table->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(name, table->fields[mid].name);

		if (!order)
			return (int)mid;
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return -1;
}

static void unknown_field(struct kt_decoder *d, const struct kt_table *table, const struct kt_node *child)
{
	const char *names[TABLE_MAX + 1], *near = NULL;
	struct kt_path path = {.parent = d->path, .name = child->key};
	size_t count = 0;

	for (size_t i = 0; i < table->count; i++) {
		if (kt_ascii_ieq(kt_view_str(child->key), kt_view_str(table->fields[i].name)))
			near = table->fields[i].name;
		if (table->fields[i].type != KT_F_REFUSED)
			names[count++] = table->fields[i].name;
	}
	names[count] = NULL;
	if (!near)
		near = kt_nearest(child->key, names);
	d->path = &path;
	if (near)
		kt_complain(d, child, NULL, "is not a field that is known here, did you mean %s?", near);
	else
		kt_complain(d, child, NULL, "is not a field that is known here; remove it");
	d->path = path.parent;
}

/* Absent in the sense of Go's omitempty: null, or an empty string. */
static bool is_absent(const struct kt_node *node)
{
	return node->type == KT_NODE_NULL || (node->type == KT_NODE_STRING && !node->len);
}

static void check_presence(struct kt_decoder *d, const struct kt_table *table, const struct kt_node *node,
			   uint64_t given)
{
	unsigned chosen = 0;
	char names[256];
	size_t used = 0;

	for (size_t i = 0; i < table->count; i++) {
		const struct kt_field *field = &table->fields[i];
		bool there = given & (UINT64_C(1) << i);
		int n;

		if ((field->flags & KT_F_REQUIRED) && field->type != KT_F_FIXED && !there) {
			struct kt_path path = {.parent = d->path, .name = field->name};

			d->path = &path;
			kt_complain(d, node, NULL, "is required");
			d->path = path.parent;
		}
		if (!(field->flags & KT_F_CHOICE))
			continue;
		/* A refused member was complained about already. */
		chosen += there;
		if (field->type == KT_F_REFUSED || used >= sizeof(names))
			continue;
		n = snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", field->name);
		used += n > 0 ? (size_t)n : 0;
	}
	if (chosen < table->choice_min)
		kt_complain(d, node, "", "must have one of: %s", names);
	else if (table->choice_max && chosen > table->choice_max)
		kt_complain(d, node, "", "must have only one of: %s", names);
}

void kt_decode(struct kt_decoder *d, const struct kt_table *table, const struct kt_node *node, void *object)
{
	struct kt_path path = {.parent = d->path};
	uint64_t seen = 0, given = 0;
	unsigned before = d->errors;

	for (size_t i = 0; i < table->count; i++)
		set_default(d, &table->fields[i], (char *)object + table->fields[i].offset);
	for (const struct kt_node *child = node ? node->first : NULL; child; child = child->next) {
		int row = find_field(table, child->key);

		if (row < 0) {
			unknown_field(d, table, child);
			continue;
		}
		path.name = child->key;
		d->path = &path;
		if (seen & (UINT64_C(1) << row))
			kt_complain(d, child, NULL, "is given twice");
		else if (!is_absent(child))
			read_field(d, &table->fields[row], child, (char *)object + table->fields[row].offset);
		d->path = path.parent;
		seen |= UINT64_C(1) << row;
		if (!is_absent(child) && !((child->type == KT_NODE_LIST) && !child->len))
			given |= UINT64_C(1) << row;
	}
	if (!node)
		return;
	check_presence(d, table, node, given);
	for (size_t i = 0; i < table->count; i++) {
		/* An embedded struct that is left out must still have what it requires. */
		const struct kt_field *field = &table->fields[i];

		if (field->type != KT_F_STRUCT || (seen & (UINT64_C(1) << i)) ||
		    (field->flags & (KT_F_OPTIONAL | KT_F_REQUIRED)))
			continue;
		path.name = field->name;
		d->path = &path;
		check_presence(d, field->object, node, 0);
		d->path = path.parent;
	}
	/* What depends on several fields is looked at only when each of them is right. */
	if (table->check && d->errors == before && !d->arena->failed)
		table->check(d, node, object);
}
