/* The arena, look-ups in a tree, trees from JSON, and the YAML 1.1 typing of plain scalars. */
#include "manifest/node.h"

#include <string.h>

#include "kt/mem.h"

#define CHUNK_MIN ((size_t)4096)

struct kt_arena_chunk {
	struct kt_arena_chunk *next;
	size_t used;
	size_t cap;
	max_align_t data[];
};

static struct kt_arena_chunk *grow(struct kt_arena *arena, size_t size)
{
	size_t cap = size < CHUNK_MIN ? CHUNK_MIN : size;
	struct kt_arena_chunk *chunk = kt_malloc(sizeof(*chunk) + cap);

	if (!chunk) {
		arena->failed = true;
		return NULL;
	}
	chunk->used = 0;
	chunk->cap = cap;
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	return chunk;
}

void kt_arena_reserve(struct kt_arena *arena, size_t size)
{
	struct kt_arena_chunk *chunk = arena->chunks;

	if (chunk && chunk->cap - chunk->used >= size)
		return;
	chunk = kt_malloc(sizeof(*chunk) + size);
	if (!chunk)
		return; /* not needed yet: the next allocation tells */
	chunk->used = 0;
	chunk->cap = size;
	chunk->next = arena->chunks;
	arena->chunks = chunk;
}

void *kt_arena_alloc(struct kt_arena *arena, size_t size)
{
	size_t need = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
	struct kt_arena_chunk *chunk = arena->chunks;
	char *at;

	if (arena->failed || need < size)
		return NULL;
	if (!chunk || chunk->cap - chunk->used < need)
		chunk = grow(arena, need);
	if (!chunk)
		return NULL;
	at = (char *)chunk->data + chunk->used;
	chunk->used += need;
	return memset(at, 0, need);
}

const char *kt_arena_str(struct kt_arena *arena, const char *text, size_t len)
{
	char *copy = kt_arena_alloc(arena, len + 1);

	if (copy && len)
		memcpy(copy, text, len);
	return copy;
}

void kt_arena_finish(struct kt_arena *arena)
{
	struct kt_arena_chunk *chunk = arena->chunks;

	while (chunk) {
		struct kt_arena_chunk *next = chunk->next;

		kt_free(chunk);
		chunk = next;
	}
	*arena = (struct kt_arena){0};
}

void kt_arena_reset(struct kt_arena *arena)
{
	struct kt_arena_chunk *keep = arena->chunks;

	if (!keep || keep->next || keep->cap > CHUNK_MIN * 16) {
		kt_arena_finish(arena);
		return;
	}
	memset(keep->data, 0, keep->used);
	keep->used = 0;
	arena->failed = false;
}

const char *kt_node_type_name(enum kt_node_type type)
{
	static const char *const names[] = {
		[KT_NODE_NULL] = "null",        [KT_NODE_BOOL] = "a boolean",  [KT_NODE_INT] = "a number",
		[KT_NODE_FLOAT] = "a fraction", [KT_NODE_STRING] = "a string", [KT_NODE_LIST] = "a list",
		[KT_NODE_MAP] = "an object",
	};

	return names[type];
}

const struct kt_node *kt_node_get(const struct kt_node *map, const char *key)
{
	if (!map || map->type != KT_NODE_MAP)
		return NULL;
	for (const struct kt_node *child = map->first; child; child = child->next) {
		if (!strcmp(child->key, key))
			return child;
	}
	return NULL;
}

static const struct kt_node *nth(const struct kt_node *list, unsigned long index)
{
	const struct kt_node *child = list->type == KT_NODE_LIST ? list->first : NULL;

	while (child && index-- > 0)
		child = child->next;
	return child;
}

static const struct kt_node *get_span(const struct kt_node *map, const char *key, size_t len)
{
	const struct kt_node *child = map->type == KT_NODE_MAP ? map->first : NULL;

	while (child && (strncmp(child->key, key, len) != 0 || child->key[len] != '\0'))
		child = child->next;
	return child;
}

const struct kt_node *kt_node_find(const struct kt_node *root, const char *path)
{
	const struct kt_node *node = root;

	while (*path) {
		const struct kt_node *child;

		if (*path == '[') {
			unsigned long index = 0;

			for (path++; *path >= '0' && *path <= '9' && index < KT_MANIFEST_NODES_MAX; path++)
				index = index * 10 + (unsigned long)(*path - '0');
			child = nth(node, index);
			path += *path == ']';
		} else {
			size_t len = strcspn(path, ".[");

			child = get_span(node, path, len);
			path += len;
		}
		if (!child)
			break;
		node = child;
		path += *path == '.';
	}
	return node;
}

size_t kt_node_cost(const struct kt_node *node)
{
	size_t cost = 24;

	if (node->type == KT_NODE_STRING)
		return cost + node->len;
	for (const struct kt_node *child = node->first; child; child = child->next)
		cost += kt_node_cost(child);
	/* Entries of lists of objects become structs: the largest are below 256 bytes. */
	return cost + (node->type == KT_NODE_MAP ? 200 : 0);
}

/* --- plain scalars ------------------------------------------------------------------------------------------------ */

static bool one_of(const char *text, const char *const *words)
{
	for (; *words; words++) {
		if (!strcmp(text, *words))
			return true;
	}
	return false;
}

static bool digits(const char **at, const char *set)
{
	size_t n = strspn(*at, set);

	*at += n;
	return n > 0;
}

/* Integers as Go's ParseInt with base 0 takes them (with underscores). */
static bool looks_int(const char *text)
{
	const char *at = text + (*text == '-' || *text == '+');

	if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X'))
		return at += 2, digits(&at, "0123456789abcdefABCDEF_") && !*at;
	if (at[0] == '0' && (at[1] == 'b' || at[1] == 'B'))
		return at += 2, digits(&at, "01_") && !*at;
	if (at[0] == '0' && at[1] == 'o')
		return at += 2, digits(&at, "01234567_") && !*at;
	return *at >= '0' && *at <= '9' && digits(&at, "0123456789_") && !*at;
}

static bool looks_float(const char *text)
{
	static const char *const specials[] = {".inf",  ".Inf",  ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
					       "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN",  NULL};
	const char *at = text + (*text == '-' || *text == '+');
	bool whole, part = false;

	if (one_of(text, specials))
		return true;
	whole = digits(&at, "0123456789");
	if (*at == '.') {
		at++;
		part = digits(&at, "0123456789");
	}
	if (!whole && !part)
		return false;
	if (*at == 'e' || *at == 'E') {
		at++;
		at += *at == '-' || *at == '+';
		if (!digits(&at, "0123456789"))
			return false;
	}
	return !*at;
}

void kt_node_resolve(struct kt_node *node)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
	static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES",
					  "on",   "On",   "ON",   "y",   "Y",   NULL};
	static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO",
					 "off",   "Off",   "OFF",   "n",  "N",  NULL};
	const char *text = node->text;

	node->type = KT_NODE_STRING;
	if (node->len > 64 || strlen(text) != node->len)
		return;
	if (strchr("ynYNtTfFoO", *text) && *text) {
		node->truth = one_of(text, yes);
		if (node->truth || one_of(text, no))
			node->type = KT_NODE_BOOL;
		return;
	}
	if (one_of(text, nulls))
		node->type = KT_NODE_NULL;
	else if (strchr("+-.0123456789", *text))
		node->type = looks_int(text) ? KT_NODE_INT : looks_float(text) ? KT_NODE_FLOAT : KT_NODE_STRING;
}

/* --- from JSON
 * ---------------------------------------------------------------------------------------------------------- */

static const char *int_text(const json_t *value, struct kt_arena *arena, uint32_t *ret_len)
{
	char digits_of[24];
	size_t at = sizeof(digits_of);
	json_int_t n = json_integer_value(value);
	bool negative = n < 0;

	do {
		int digit = (int)(n % 10);

		digits_of[--at] = (char)('0' + (digit < 0 ? -digit : digit));
		n /= 10;
	} while (n);
	if (negative)
		digits_of[--at] = '-';
	*ret_len = (uint32_t)(sizeof(digits_of) - at);
	return kt_arena_str(arena, digits_of + at, *ret_len);
}

static bool add_children(struct kt_node *node, const json_t *value, struct kt_arena *arena, unsigned depth)
{
	struct kt_node **tail = &node->first;
	const char *key;
	json_t *item;
	size_t i;

	if (json_is_object(value)) {
		json_object_foreach((json_t *)(uintptr_t)value, key, item)
		{
			*tail = kt_node_from_json(item, arena, depth + 1);
			if (!*tail)
				return false;
			(*tail)->key = key;
			tail = &(*tail)->next;
			node->len++;
		}
		return true;
	}
	json_array_foreach(value, i, item)
	{
		*tail = kt_node_from_json(item, arena, depth + 1);
		if (!*tail)
			return false;
		tail = &(*tail)->next;
		node->len++;
	}
	return true;
}

struct kt_node *kt_node_from_json(const json_t *value, struct kt_arena *arena, unsigned depth)
{
	struct kt_node *node = depth > KT_MANIFEST_DEPTH_MAX ? NULL : kt_arena_alloc(arena, sizeof(*node));

	if (!node)
		return NULL;
	switch (json_typeof(value)) {
	case JSON_OBJECT:
	case JSON_ARRAY:
		node->type = json_is_object(value) ? KT_NODE_MAP : KT_NODE_LIST;
		return add_children(node, value, arena, depth) ? node : NULL;
	case JSON_STRING:
		node->type = KT_NODE_STRING;
		node->text = json_string_value(value);
		node->len = (uint32_t)json_string_length(value);
		return node;
	case JSON_INTEGER:
		node->type = KT_NODE_INT;
		node->text = int_text(value, arena, &node->len);
		return node->text ? node : NULL;
	case JSON_TRUE:
	case JSON_FALSE:
		node->type = KT_NODE_BOOL;
		node->truth = json_is_true(value);
		node->text = node->truth ? "true" : "false";
		return node;
	case JSON_REAL:
		node->type = KT_NODE_FLOAT;
		node->text = "a fraction";
		return node;
	case JSON_NULL:
	default:
		node->type = KT_NODE_NULL;
		node->text = "null";
		return node;
	}
}
