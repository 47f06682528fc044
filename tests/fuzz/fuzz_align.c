/* Documents of meshes and gateways: any bytes beside our manifests give findings and predictions that are complete. */
#include <string.h>

#include "cli/align/align.h"
#include "fuzz.h"
#include "kt/json.h"

static const char ours[] =
	"apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: t}\n"
	"spec: {local: {issuerURL: 'https://tokens.example'}}\n---\n"
	"apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: o}\n"
	"spec: {oauth2: {issuer: 'https://okta.example/o', profile: Okta, auth: {clientID: c, clientSecretRef: {name: "
	"s}}}}\n---\n"
	"apiVersion: keyturn.dev/v1alpha1\nkind: Token\nmetadata: {name: a}\n"
	"spec: {secretName: a, issuerRef: {name: t}, audiences: ['https://api.example'], scopes: [one, two], claims: "
	"{subject: s}}\n---\n"
	"apiVersion: keyturn.dev/v1alpha1\nkind: Token\nmetadata: {name: b}\n"
	"spec: {secretName: b, issuerRef: {name: o}, audiences: ['https://api.example']}\n---\n"
	"apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: c}\n"
	"spec: {secretName: c, uris: ['spiffe://cluster.local/ns/default/sa/s'], issuerRef: {name: i}}\n";

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	kt_json_init();
	return 0;
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	return kt_align_add(arg, resource, err);
}

static enum kt_code on_foreign(void *arg, struct kt_foreign *foreign, struct kt_err *err)
{
	FUZZ_MUST(foreign->kind != KT_FOREIGN_NONE && foreign->kind_name != NULL && foreign->name != NULL &&
		  foreign->ns != NULL);
	return kt_align_add_foreign(arg, foreign, err);
}

static void look(const json_t *rows, const char *text)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		int64_t status = kt_json_int(row, "status", 200);

		FUZZ_MUST(kt_json_str(row, text) != NULL && kt_json_str(row, "file") != NULL);
		FUZZ_MUST(status == 0 || status == 200 || status == 400 || status == 401 || status == 403);
	}
}

static void calls(const struct kt_align *align)
{
	static const struct kt_align_call all[] = {
		{.token = "a"},
		{.token = "b"},
		{.token = "a", .expired = true},
		{.certificate = "c"},
		{.certificate = "-"},
		{.token = "a", .certificate = "c", .method = "GET", .path = "/x", .host = "api.example"},
	};
	struct kt_err err;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		KT_AUTOJSON json_t *rows = NULL;
		int status;

		FUZZ_MUST(kt_align_predict(align, &all[i], &rows, &status, &err) == KT_OK);
		look(rows, "why");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KT_AUTOJSON json_t *findings = NULL;
	struct kt_align *align = NULL;
	struct kt_report report;
	struct kt_err err;

	kt_report_init(&report);
	FUZZ_MUST(kt_align_create(&align, &err) == KT_OK);
	FUZZ_MUST(kt_manifest_read(kt_view_str(ours), "ours.yaml", on_resource, align, &report, &err) == KT_OK);
	FUZZ_MUST(report.errors == 0);
	FUZZ_MUST(kt_foreign_read((struct kt_view){(const char *)data, size}, "input.yaml", on_foreign, align, &report,
				  &err) == KT_OK);
	FUZZ_MUST(kt_align_ready(align, &err) == KT_OK);
	findings = kt_align_findings(align);
	FUZZ_MUST(findings != NULL);
	look(findings, "text");
	if (kt_align_foreign_count(align) > 0) {
		calls(align);
	}
	kt_align_destroy(align);
	kt_report_finish(&report);
	return 0;
}
