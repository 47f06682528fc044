/* keyturn-manifest-doc DIR: writes DIR/data/<kind>.schema.json and DIR/docs/reference/<kind>.md from the field tables.
 */
#include <fcntl.h>
#include <stdio.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "manifest/doc.h"

static enum kt_code write_file(const char *dir, const char *name, const struct kt_buf *text, struct kt_err *err)
{
	KT_AUTOCLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum kt_code code = kt_buf_check(text, name, err);

	if (code != KT_OK)
		return code;
	if (fd < 0)
		return kt_err_sys(err, "%s", dir);
	return kt_io_replace_file(fd, name, text->ptr, text->len, 0644, (uid_t)-1, (gid_t)-1, false, err);
}

static enum kt_code write_kind(const char *root, enum kt_kind kind, struct kt_err *err)
{
	KT_AUTOFREE char *data = kt_asprintf("%s/data", root), *docs = kt_asprintf("%s/docs/reference", root);
	KT_AUTOFREE char *schema = kt_asprintf("%s.schema.json", kt_manifest_doc_file(kind));
	KT_AUTOFREE char *page = kt_asprintf("%s.md", kt_manifest_doc_file(kind));
	KT_AUTOBUF struct kt_buf text = {0};
	enum kt_code code;

	kt_buf_init(&text, 1 << 20);
	if (!data || !docs || !schema || !page)
		return kt_err_set(err, KT_E_NOMEM, "out of memory");
	kt_manifest_schema(kind, &text);
	code = write_file(data, schema, &text, err);
	if (code != KT_OK)
		return code;
	kt_buf_reset(&text);
	kt_manifest_reference(kind, &text);
	return write_file(docs, page, &text, err);
}

int main(int argc, char **argv)
{
	struct kt_err err = {0};

	if (argc != 2) {
		(void)fprintf(stderr, "usage: keyturn-manifest-doc SOURCE-DIR\n");
		return 2;
	}
	for (int kind = KT_RES_NONE + 1; kind < KT_RES_COUNT; kind++) {
		if (write_kind(argv[1], (enum kt_kind)kind, &err) != KT_OK) {
			(void)fprintf(stderr, "keyturn-manifest-doc: %s\n", err.what);
			return 1;
		}
	}
	return 0;
}
