/* A reader of the small XML documents that AWS answers with: no DTD, so no entities but the five and numbers. */
#include <string.h>

#include "courier/xml.h"

#define DEPTH_MAX (sizeof(((struct kt_xml *)0)->open) / sizeof(struct kt_view))
#define TEXT_MAX  16384u

void kt_xml_init(struct kt_xml *xml, struct kt_view document)
{
	memset(xml, 0, sizeof(*xml));
	xml->rest = document;
	kt_buf_init(&xml->text, TEXT_MAX);
}

void kt_xml_finish(struct kt_xml *xml)
{
	kt_buf_finish(&xml->text);
}

static void skip(struct kt_xml *xml, size_t len)
{
	xml->rest.ptr += len;
	xml->rest.len -= len;
}

/* Skips to behind `mark`; false when there is none. */
static bool skip_past(struct kt_xml *xml, const char *mark)
{
	const char *at = memmem(xml->rest.ptr, xml->rest.len, mark, strlen(mark));

	if (at == NULL) {
		return false;
	}
	skip(xml, (size_t)(at - xml->rest.ptr) + strlen(mark));
	return true;
}

static bool starts(const struct kt_xml *xml, const char *text)
{
	return xml->rest.len >= strlen(text) && memcmp(xml->rest.ptr, text, strlen(text)) == 0;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
	       c == '.' || c == ':';
}

static struct kt_view take_name(struct kt_xml *xml)
{
	struct kt_view name = {xml->rest.ptr, 0};

	while (name.len < xml->rest.len && is_name_char(name.ptr[name.len])) {
		name.len++;
	}
	skip(xml, name.len);
	return name;
}

static void add_utf8(struct kt_buf *out, unsigned long c)
{
	if (c < 0x80) {
		kt_buf_addc(out, (char)c);
	} else if (c < 0x800) {
		kt_buf_addc(out, (char)(0xc0 | c >> 6));
		kt_buf_addc(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		kt_buf_addc(out, (char)(0xe0 | c >> 12));
		kt_buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		kt_buf_addc(out, (char)(0x80 | (c & 0x3f)));
	} else {
		kt_buf_addc(out, (char)(0xf0 | c >> 18));
		kt_buf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
		kt_buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		kt_buf_addc(out, (char)(0x80 | (c & 0x3f)));
	}
}

/* &#10; or &#x0a; behind "&#". */
static bool take_number(struct kt_xml *xml, unsigned long *ret)
{
	bool hex = starts(xml, "x");
	unsigned long value = 0;
	unsigned digits = 0;

	skip(xml, hex ? 1 : 0);
	while (xml->rest.len > 0 && xml->rest.ptr[0] != ';') {
		char c = xml->rest.ptr[0];
		int digit = c >= '0' && c <= '9'          ? c - '0'
			    : hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
							  : -1;

		if (digit < 0 || ++digits > 7) {
			return false;
		}
		value = value * (hex ? 16 : 10) + (unsigned long)digit;
		skip(xml, 1);
	}
	if (digits == 0 || xml->rest.len == 0 || value == 0 || value > 0x10ffff) {
		return false;
	}
	skip(xml, 1);
	*ret = value;
	return true;
}

static bool take_entity(struct kt_xml *xml)
{
	static const struct {
		const char *name;
		char c;
	} known[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
	unsigned long number;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (starts(xml, known[i].name)) {
			skip(xml, strlen(known[i].name));
			kt_buf_addc(&xml->text, known[i].c);
			return true;
		}
	}
	if (!starts(xml, "&#")) {
		return false;
	}
	skip(xml, 2);
	if (!take_number(xml, &number)) {
		return false;
	}
	add_utf8(&xml->text, number);
	return true;
}

static enum kt_xml_event take_text(struct kt_xml *xml)
{
	bool blank = true;

	kt_buf_reset(&xml->text);
	kt_buf_adds(&xml->text, "");
	while (xml->rest.len > 0 && xml->rest.ptr[0] != '<') {
		char c = xml->rest.ptr[0];

		blank = blank && (c == ' ' || c == '\t' || c == '\r' || c == '\n');
		if (c == '\0' || (c == '&' && !take_entity(xml))) {
			return KT_XML_BAD;
		}
		if (c != '&') {
			kt_buf_addc(&xml->text, c);
			skip(xml, 1);
		}
	}
	if (xml->text.failed != KT_OK || (!blank && xml->depth == 0)) {
		return KT_XML_BAD;
	}
	return blank ? KT_XML_DONE /* nothing to tell */ : KT_XML_TEXT;
}

/* Behind the name of a start tag: to its end, over attributes in quotes. */
static bool skip_attributes(struct kt_xml *xml, bool *ret_empty)
{
	*ret_empty = false;
	while (xml->rest.len > 0) {
		char c = xml->rest.ptr[0];

		skip(xml, 1);
		if (c == '>') {
			return true;
		}
		if (c == '<') {
			return false;
		}
		if (c == '"' || c == '\'') {
			const char quote[2] = {c, '\0'};

			if (!skip_past(xml, quote)) {
				return false;
			}
		}
		*ret_empty = c == '/';
	}
	return false;
}

static enum kt_xml_event take_tag(struct kt_xml *xml)
{
	bool closing = starts(xml, "</");
	struct kt_view name;

	skip(xml, closing ? 2 : 1);
	name = take_name(xml);
	if (name.len == 0) {
		return KT_XML_BAD;
	}
	if (closing) {
		if (xml->depth == 0 || !kt_view_eq(name, xml->open[xml->depth - 1]) || !skip_past(xml, ">")) {
			return KT_XML_BAD;
		}
		xml->ended = true;
		return KT_XML_END;
	}
	if (xml->depth >= DEPTH_MAX || !skip_attributes(xml, &xml->empty)) {
		return KT_XML_BAD;
	}
	xml->open[xml->depth++] = name;
	return KT_XML_START;
}

enum kt_xml_event kt_xml_next(struct kt_xml *xml)
{
	enum kt_xml_event event;

	if (xml->ended) {
		xml->ended = false;
		xml->depth--;
	}
	if (xml->empty) {
		xml->empty = false;
		xml->ended = true;
		return KT_XML_END;
	}
	while (xml->rest.len > 0) {
		if (xml->rest.ptr[0] != '<') {
			event = take_text(xml);
			if (event != KT_XML_DONE) {
				return event;
			}
		} else if (starts(xml, "<?") ? skip_past(xml, "?>") : starts(xml, "<!--") && skip_past(xml, "-->")) {
			continue;
		} else {
			return starts(xml, "<!") || starts(xml, "<?") ? KT_XML_BAD : take_tag(xml);
		}
	}
	return xml->depth == 0 ? KT_XML_DONE : KT_XML_BAD;
}

bool kt_xml_at(const struct kt_xml *xml, const char *path)
{
	unsigned depth = xml->depth;
	size_t len = strlen(path);

	while (len > 0 && depth > 0) {
		size_t start = len;

		while (start > 0 && path[start - 1] != '/') {
			start--;
		}
		if (!kt_view_eq(xml->open[--depth], (struct kt_view){path + start, len - start})) {
			return false;
		}
		len = start > 0 ? start - 1 : 0;
	}
	return len == 0;
}
