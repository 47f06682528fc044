/* Manifests and bundles: any bytes give resources or complaints; what was read comes back from its stored form. */
#include <string.h>

#include "fuzz.h"
#include "kt/json.h"
#include "kt/manifest.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	kt_json_init();
	return 0;
}

/* The stored form is canonical: written, read and written again it is the same. */
static void there_and_back(const struct kt_resource *resource)
{
	KT_AUTOBUF struct kt_buf first, second;
	struct kt_resource *again = NULL;
	struct kt_err err;

	kt_buf_init(&first, 8u << 20);
	kt_buf_init(&second, 8u << 20);
	if (resource->kind == KT_RES_SECRET || kt_resource_to_json(resource, &first, &err) != KT_OK) {
		return;
	}
	FUZZ_MUST(kt_resource_from_json(resource->kind, kt_buf_view(&first), &again, &err) == KT_OK);
	FUZZ_MUST(kt_resource_to_json(again, &second, &err) == KT_OK);
	FUZZ_MUST(first.len == second.len && memcmp(first.ptr, second.ptr, first.len) == 0);
	kt_resource_destroy(again);
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	(void)arg, (void)err;
	there_and_back(resource);
	kt_resource_destroy(resource);
	return KT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view text = {(const char *)data, size};
	struct kt_report report;
	struct kt_set *set = NULL;
	struct kt_err err;
	KT_AUTOBUF struct kt_buf out;

	kt_buf_init(&out, 1u << 20);
	kt_report_init(&report);
	FUZZ_MUST(kt_set_create(&set, &err) == KT_OK);
	if (size >= 4 && memcmp(data, "KTB1", 4) == 0) {
		(void)kt_manifest_read_bundle(text, set, on_resource, NULL, &report, &err);
	} else {
		(void)kt_manifest_read(text, "input.yaml", on_resource, NULL, &report, &err);
		/* Once more as the only file of a bundle, where the whole set is checked. */
		kt_buf_init(&out, (4u << 20) + size);
		kt_bundle_begin(&out);
		kt_bundle_add(&out, "input.yaml", text);
		FUZZ_MUST(kt_manifest_read_bundle(kt_buf_view(&out), set, on_resource, NULL, &report, &err) == KT_OK);
	}
	kt_buf_finish(&out);
	kt_buf_init(&out, 1u << 20);
	kt_report_format(&report, true, &out);
	for (size_t i = 0; i < out.len; i++) {
		FUZZ_MUST(out.ptr[i] == '\n' || (unsigned char)out.ptr[i] >= ' ');
	}
	kt_set_destroy(set);
	kt_report_finish(&report);
	return 0;
}
