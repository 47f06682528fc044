/* A reader of the small XML documents that AWS answers with. */
#ifndef KT_COURIER_XML_H
#define KT_COURIER_XML_H

#include <stdbool.h>

#include "kt/buf.h"

enum kt_xml_event { KT_XML_START, KT_XML_TEXT, KT_XML_END, KT_XML_DONE, KT_XML_BAD };

/* A reader of small documents without DTD: elements and text; attributes, comments and namespaces are passed over. */
struct kt_xml {
	struct kt_view rest;
	unsigned depth;
	struct kt_view open[16]; /* names, from the root to here */
	bool empty;              /* the element has nothing in it: its end comes next */
	bool ended;              /* the innermost element is over */
	struct kt_buf text;      /* TEXT: decoded, at most 16384 bytes */
};

void kt_xml_init(struct kt_xml *xml, struct kt_view document);
void kt_xml_finish(struct kt_xml *xml);
/* START and END: of the element open[depth - 1] (END: still there, gone with the next call). TEXT: xml->text. */
enum kt_xml_event kt_xml_next(struct kt_xml *xml);
/* The innermost open elements are these, such as "ChangeInfo/Status". */
bool kt_xml_at(const struct kt_xml *xml, const char *path);

#endif
