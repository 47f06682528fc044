/* The JSON Schema and the reference page of a kind: for the generator and the test that both are up to date. */
#ifndef KT_MANIFEST_DOC_H
#define KT_MANIFEST_DOC_H

#include "kt/manifest.h"

/* Both add a whole file to out (256 KiB are enough). kind: not KT_RES_NONE. */
void kt_manifest_schema(enum kt_kind kind, struct kt_buf *out);
void kt_manifest_reference(enum kt_kind kind, struct kt_buf *out);
/* "certificate": the files are data/<it>.schema.json and docs/reference/<it>.md. */
const char *kt_manifest_doc_file(enum kt_kind kind);

#endif
