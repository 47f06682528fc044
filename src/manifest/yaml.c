/* YAML into trees: libyaml's events, with limits on size, depth and aliases. */
#include <string.h>
#include <yaml.h>

#include "manifest/node.h"

#define ANCHORS_MAX 64

/* An anchored scalar; aliases of lists and maps are refused, so that nothing can multiply. */
struct anchor {
	const char *name;
	const struct kt_node *node; /* NULL: a list or map */
};

struct frame {
	struct kt_node *node;
	struct kt_node **tail;
	struct kt_node *pending; /* a map's entry whose key was read and whose value comes next */
};

struct builder {
	yaml_parser_t *parser;
	struct kt_arena *arena;
	struct kt_report *report;
	const char *file;
	uint32_t line; /* of the slice's first byte, from 1 */
	uint32_t nodes;
	size_t alias_bytes;
	struct kt_node *root;
	struct frame stack[KT_MANIFEST_DEPTH_MAX];
	unsigned depth;
	struct anchor anchors[ANCHORS_MAX];
	unsigned anchor_count;
	bool bad; /* a complaint was made about this document */
};

static uint32_t line_of(const struct builder *b, yaml_mark_t mark)
{
	return b->line + (uint32_t)mark.line;
}

#define complain(b, mark, ...)                                                                                         \
	do {                                                                                                           \
		(b)->bad = true;                                                                                       \
		kt_report_add((b)->report, KT_COMPLAINT_ERROR, (b)->file, line_of(b, mark), __VA_ARGS__);              \
	} while (0)

/* Takes a value (or a key) into its place. False ends the document. */
static bool place(struct builder *b, struct kt_node *node, yaml_mark_t mark)
{
	struct frame *top;

	if (!b->depth) {
		b->root = node;
		return true;
	}
	top = &b->stack[b->depth - 1];
	if (top->node->type == KT_NODE_LIST) {
		*top->tail = node;
		top->tail = &node->next;
		top->node->len++;
		return true;
	}
	if (!top->pending) {
		if (node->type != KT_NODE_STRING) {
			complain(b, mark, "a key must be a string, this is %s%s%.32s; write it in quotes",
				 kt_node_type_name(node->type), node->text ? ": " : "", node->text ? node->text : "");
			return false;
		}
		if (strlen(node->text) != node->len || node->len > KT_MANIFEST_DOC_MAX / 16) {
			complain(b, mark, "a key of %u bytes, or with a NUL in it, is not accepted", node->len);
			return false;
		}
		top->pending = node;
		return true;
	}
	node->key = top->pending->text;
	node->line = top->pending->line;
	top->pending = NULL;
	*top->tail = node;
	top->tail = &node->next;
	top->node->len++;
	return true;
}

static struct kt_node *new_node(struct builder *b, enum kt_node_type type, yaml_mark_t mark)
{
	struct kt_node *node;

	if (++b->nodes > KT_MANIFEST_NODES_MAX) {
		complain(b, mark, "the document has more than %u values; split it", KT_MANIFEST_NODES_MAX);
		return NULL;
	}
	node = kt_arena_alloc(b->arena, sizeof(*node));
	if (!node)
		return NULL;
	node->type = type;
	node->line = line_of(b, mark);
	return node;
}

static bool remember(struct builder *b, const yaml_char_t *name, const struct kt_node *node, yaml_mark_t mark)
{
	struct anchor *anchor;

	if (!name)
		return true;
	if (b->anchor_count == ANCHORS_MAX) {
		complain(b, mark, "more than %d anchors in one document are not accepted", ANCHORS_MAX);
		return false;
	}
	anchor = &b->anchors[b->anchor_count];
	anchor->name = kt_arena_str(b->arena, (const char *)name, strlen((const char *)name));
	anchor->node = node;
	b->anchor_count += anchor->name != NULL;
	return anchor->name != NULL;
}

static bool on_alias(struct builder *b, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	const struct anchor *found = NULL;
	struct kt_node *node;

	for (unsigned i = b->anchor_count; i > 0 && !found; i--) {
		if (!strcmp(b->anchors[i - 1].name, name))
			found = &b->anchors[i - 1];
	}
	if (!found) {
		complain(b, event->start_mark, "alias *%.64s has no anchor above it", name);
		return false;
	}
	if (!found->node) {
		complain(b, event->start_mark,
			 "alias *%.64s stands for a list or an object, which is not accepted; write it out", name);
		return false;
	}
	b->alias_bytes += found->node->len + 1;
	if (b->alias_bytes > KT_MANIFEST_DOC_MAX) {
		complain(b, event->start_mark,
			 "aliases make the document larger than %zu bytes; write it out or split it",
			 KT_MANIFEST_DOC_MAX);
		return false;
	}
	node = new_node(b, found->node->type, event->start_mark);
	if (!node)
		return false;
	node->truth = found->node->truth;
	node->text = found->node->text;
	node->len = found->node->len;
	return place(b, node, event->start_mark);
}

static bool is_tag(const yaml_char_t *tag, const char *name)
{
	static const char core[] = "tag:yaml.org,2002:";

	return !strncmp((const char *)tag, core, sizeof(core) - 1) &&
	       !strcmp((const char *)tag + sizeof(core) - 1, name);
}

static bool on_scalar(struct builder *b, const yaml_event_t *event)
{
	struct kt_node *node = new_node(b, KT_NODE_STRING, event->start_mark);
	const yaml_char_t *tag = event->data.scalar.tag;
	bool is_key;

	if (!node)
		return false;
	node->len = (uint32_t)event->data.scalar.length;
	node->text = kt_arena_str(b->arena, (const char *)event->data.scalar.value, event->data.scalar.length);
	if (!node->text)
		return false;
	if (tag && strcmp((const char *)tag, "!") != 0 && !is_tag(tag, "str")) {
		complain(b, event->start_mark, "tag %.64s is not accepted; leave it out, or quote what is a string",
			 (const char *)tag);
		return false;
	}
	if (!tag && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		kt_node_resolve(node);
	is_key = b->depth && b->stack[b->depth - 1].node->type == KT_NODE_MAP && !b->stack[b->depth - 1].pending;
	if (is_key && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !strcmp(node->text, "<<")) {
		complain(b, event->start_mark, "merge keys (<<) are not accepted; write the fields out");
		return false;
	}
	return remember(b, event->data.scalar.anchor, node, event->start_mark) && place(b, node, event->start_mark);
}

static bool on_start(struct builder *b, const yaml_event_t *event, enum kt_node_type type, const yaml_char_t *anchor,
		     const yaml_char_t *tag)
{
	struct kt_node *node = new_node(b, type, event->start_mark);

	if (!node)
		return false;
	if (tag && strcmp((const char *)tag, "!") != 0 && !is_tag(tag, type == KT_NODE_MAP ? "map" : "seq")) {
		complain(b, event->start_mark, "tag %.64s is not accepted; leave it out", (const char *)tag);
		return false;
	}
	if (b->depth == KT_MANIFEST_DEPTH_MAX) {
		complain(b, event->start_mark, "nested deeper than %u", KT_MANIFEST_DEPTH_MAX);
		return false;
	}
	if (!remember(b, anchor, NULL, event->start_mark) || !place(b, node, event->start_mark))
		return false;
	b->stack[b->depth++] = (struct frame){.node = node, .tail = &node->first};
	return true;
}

/* One event. False: the rest of the slice is of no use. */
static bool on_event(struct builder *b, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(b, event);
	case YAML_ALIAS_EVENT:
		return on_alias(b, event);
	case YAML_SEQUENCE_START_EVENT:
		return on_start(b, event, KT_NODE_LIST, event->data.sequence_start.anchor,
				event->data.sequence_start.tag);
	case YAML_MAPPING_START_EVENT:
		return on_start(b, event, KT_NODE_MAP, event->data.mapping_start.anchor, event->data.mapping_start.tag);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		return true;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
	default:
		return true;
	}
}

static void syntax_error(struct builder *b)
{
	const yaml_parser_t *p = b->parser;
	yaml_mark_t mark = p->problem_mark;

	if (p->error == YAML_MEMORY_ERROR) {
		b->report->nomem = true;
		return;
	}
	if (p->error == YAML_READER_ERROR) {
		complain(b, p->mark, "not UTF-8 text: %s at byte %zu", p->problem ? p->problem : "unreadable",
			 p->problem_offset);
		return;
	}
	complain(b, mark, "not YAML: %s%s%s (column %zu)", p->problem ? p->problem : "syntax error",
		 p->context ? ", " : "", p->context ? p->context : "", mark.column + 1);
}

static void begin_document(struct builder *b)
{
	b->root = NULL;
	b->depth = 0;
	b->nodes = 0;
	b->alias_bytes = 0;
	b->anchor_count = 0;
}

/* Events to the end of the slice. */
static enum kt_code run(struct builder *b, kt_tree_fn *on_document, void *arg, struct kt_err *err)
{
	enum kt_code code = KT_OK;
	bool more = true;

	while (more && code == KT_OK) {
		yaml_event_t event;

		if (!yaml_parser_parse(b->parser, &event)) {
			syntax_error(b);
			break;
		}
		if (event.type == YAML_DOCUMENT_START_EVENT)
			begin_document(b);
		more = event.type != YAML_STREAM_END_EVENT && on_event(b, &event);
		if (event.type == YAML_DOCUMENT_END_EVENT && b->root && !b->arena->failed) {
			code = on_document(arg, b->root, err);
			kt_arena_reset(b->arena);
		}
		yaml_event_delete(&event);
		if (b->arena->failed)
			code = kt_err_set(err, KT_E_NOMEM, "%s: out of memory", b->file);
	}
	return code;
}

enum kt_code kt_yaml_slice(struct kt_view slice, uint32_t line, const char *file, struct kt_arena *arena,
			   kt_tree_fn *on_document, void *arg, struct kt_report *report, struct kt_err *err)
{
	yaml_parser_t parser;
	struct builder b;
	enum kt_code code;

	/* The arrays of the builder are large; only what is read before it is written gets a value. */
	b.parser = &parser;
	b.arena = arena;
	b.report = report;
	b.file = file;
	b.line = line;
	b.bad = false;
	begin_document(&b);
	if (slice.len > KT_MANIFEST_DOC_MAX) {
		complain(&b, ((yaml_mark_t){0}),
			 "the document has %zu bytes, at most %zu are accepted; split it with ---", slice.len,
			 KT_MANIFEST_DOC_MAX);
		return KT_OK;
	}
	if (!yaml_parser_initialize(&parser))
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", file);
	yaml_parser_set_input_string(&parser, (const unsigned char *)slice.ptr, slice.len);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	code = run(&b, on_document, arg, err);
	yaml_parser_delete(&parser);
	kt_arena_reset(arena);
	return code;
}

/* "---" alone or with something after it at the start of a line separates documents, even inside scalars (YAML 9.1.2).
 */
static bool is_separator(const char *at, const char *end)
{
	return end - at >= 3 && !memcmp(at, "---", 3) &&
	       (end - at == 3 || at[3] == ' ' || at[3] == '\t' || at[3] == '\n' || at[3] == '\r');
}

size_t kt_yaml_document_len(struct kt_view text)
{
	const char *end = text.ptr + text.len, *at = text.ptr;
	bool content = false;

	while (at < end) {
		const char *eol = memchr(at, '\n', (size_t)(end - at));

		if (content && is_separator(at, end))
			break;
		/* A directive or comment before the first separator belongs to the document after it. */
		if (*at != '%' && *at != '#' && *at != '\n' && *at != '\r')
			content = true;
		at = eol ? eol + 1 : end;
	}
	return (size_t)(at - text.ptr);
}
