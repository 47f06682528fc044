/* keyturn check: reads manifests as the agent would and says everything that is wrong, without doing anything. */
#include "cli/check_align.h"
#include "cli/cli.h"

#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"

const struct kt_cli_option kt_cli_check_options[] = {
        {"host", 0, NULL, "FILEs too: check that hooks exist here and that nobody else may write them"},
        {"strict", 0, NULL, "warnings count as errors"},
        {"call", 0, "TOKEN[,CERTIFICATE[,CLIENT]]", "say what each reader of a call with them would answer; - is none"},
        {"expired", 0, NULL, "with --call: the token is past its end"},
        {"request", 0, "\"METHOD URL\"", "with --call: of this request"},
        {NULL, 0, NULL, NULL},
};

struct reading {
	bool trust;
	void (*on_resource)(const struct kt_resource *resource, void *arg);
	void *arg;
	struct kt_check *check;
	struct kt_cli *cli;           /* its state's store is looked into for secrets; NULL: not */
	char why[320];                /* ... it could not be */
	bool keeps;                   /* ACME issuers are kept for a second reading */
	struct kt_resource **issuers;
	size_t issuer_count;
	struct kt_align *align;       /* what others read of calls; NULL: not looked at */
	bool calls;                   /* a call is to be predicted */
};

static bool has_acme(const struct kt_resource *resource)
{
	return (resource->kind == KT_RES_ISSUER || resource->kind == KT_RES_CLUSTER_ISSUER) && resource->issuer.acme != NULL;
}

static enum kt_code keep_issuer(struct reading *reading, struct kt_resource *issuer, struct kt_err *err)
{
	struct kt_resource **more = kt_realloc(reading->issuers, (reading->issuer_count + 1) * sizeof(*more));

	if (more == NULL) {
		kt_resource_destroy(issuer);
		return kt_err_set(err, KT_E_NOMEM, "no memory for an issuer");
	}
	reading->issuers = more;
	reading->issuers[reading->issuer_count++] = issuer;
	return KT_OK;
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct reading *reading = arg;

	reading->check->resources++;
	if (reading->trust) {
		kt_manifest_check_host(resource, geteuid(), &reading->check->report);
	}
	if (reading->on_resource != NULL) {
		reading->on_resource(resource, reading->arg);
	}
	if (reading->keeps && has_acme(resource)) {
		return keep_issuer(reading, resource, err);
	}
	kt_resource_destroy(resource);
	return KT_OK;
}

/* --- names that no solver can prove: issuers may stand after their Certificates, so it takes a second reading ------------ */

static enum kt_code on_again(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct reading *reading = arg;
	const struct kt_issuer_ref *ref = &resource->certificate.issuer_ref;

	(void)err;
	for (size_t i = 0; resource->kind == KT_RES_CERTIFICATE && i < reading->issuer_count; i++) {
		const struct kt_resource *issuer = reading->issuers[i];

		if (issuer->kind == ref->kind && strcmp(issuer->meta.name, ref->name) == 0 &&
		    (issuer->kind == KT_RES_CLUSTER_ISSUER || strcmp(issuer->meta.ns, resource->meta.ns) == 0)) {
			kt_acme_check_names(resource, issuer, &reading->check->report);
		}
	}
	kt_resource_destroy(resource);
	return KT_OK;
}

static enum kt_code check_names(struct reading *reading, struct kt_view bundle, struct kt_err *err)
{
	struct kt_report again; /* the complaints of the first reading */
	enum kt_code code = KT_OK;

	if (reading->issuer_count > 0) {
		kt_report_init(&again);
		code = kt_manifest_read_bundle(bundle, NULL, on_again, reading, &again, err);
		kt_report_finish(&again);
	}
	return code;
}

static void drop_issuers(struct reading *reading)
{
	for (size_t i = 0; i < reading->issuer_count; i++) {
		kt_resource_destroy(reading->issuers[i]);
	}
	kt_free(reading->issuers);
	reading->issuers = NULL;
	reading->issuer_count = 0;
}

/* --- secrets that the manifests do not have ------------------------------------------------------------------------------ */

static void know_secret(const json_t *row, void *arg)
{
	const char *ns = kt_json_str(row, "namespace");
	const char *name = kt_json_str(row, "name");

	if (ns != NULL && name != NULL) {
		(void)kt_set_know_secret(arg, ns, name, NULL);
	}
}

/* In the store of the agent, or of the state that no agent works on. */
static const char *look_into_store(struct kt_set *set, void *arg)
{
	struct reading *reading = arg;
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "secret-list");
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .aside = true, .row = know_secret, .arg = set};
	struct kt_answer answer;

	kt_client_call(reading->cli, &request, &answer);
	if (answer.status != KT_EXIT_OK) {
		(void)snprintf(reading->why, sizeof(reading->why), "%s", answer.what != NULL ? answer.what : "nobody answers");
	}
	kt_answer_finish(&answer);
	return reading->why[0] != '\0' ? reading->why : NULL;
}

static enum kt_code read_all(const char *const *paths, size_t count, const struct kt_load_options *load,
                             struct reading *reading, int *ret_bundle, struct kt_err *err)
{
	struct kt_report *report = &reading->check->report;
	struct kt_buf bundle KT_AUTOBUF = {0};
	struct kt_set *set = NULL;
	enum kt_code code;

	kt_buf_init(&bundle, KT_MANIFEST_TOTAL_MAX);
	code = kt_set_create(&set, err);
	if (code == KT_OK && reading->cli != NULL) {
		kt_set_look_with(set, look_into_store, reading);
	}
	if (code == KT_OK) {
		code = kt_manifest_load_paths(paths, count, load, &bundle, report, err);
	}
	if (code == KT_OK) {
		code = kt_buf_check(&bundle, "the manifests", err);
	}
	if (code == KT_OK) {
		code = kt_manifest_read_bundle(kt_buf_view(&bundle), set, on_resource, reading, report, err);
	}
	kt_set_destroy(set);
	if (code == KT_OK) {
		code = check_names(reading, kt_buf_view(&bundle), err);
	}
	if (code == KT_OK && reading->align != NULL) {
		code = kt_check_align_read(kt_buf_view(&bundle), reading->calls, reading->align, report, err);
	}
	drop_issuers(reading);
	if (code == KT_OK && report->nomem) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for all complaints");
	}
	if (code == KT_OK && ret_bundle != NULL && report->errors == 0) {
		*ret_bundle = kt_io_memfd("keyturn-manifests", bundle.ptr, bundle.len, err);
		code = *ret_bundle < 0 ? err->code : KT_OK;
	}
	return code;
}

enum kt_code kt_check_manifests(const char *const *paths, size_t count, bool trust, bool in_pod, bool missing_is_ok,
                                void (*fn)(const struct kt_resource *resource, void *arg), void *arg, struct kt_cli *cli,
                                struct kt_check *ret, struct kt_err *err)
{
	struct kt_load_options load = {
	        .check_trust = trust, .uid = geteuid(), .in_pod = in_pod, .missing_is_ok = missing_is_ok};
	struct reading reading = {.trust = trust, .on_resource = fn, .arg = arg, .check = ret, .cli = cli, .keeps = true};

	*ret = (struct kt_check){.resources = 0};
	kt_report_init(&ret->report);
	return read_all(paths, count, &load, &reading, NULL, err);
}

int kt_check_bundle(const struct kt_cli *cli, int *ret)
{
	struct kt_load_options load = {
	        .check_trust = true, .uid = geteuid(), .in_pod = cli->sidecar, .missing_is_ok = cli->manifests_default};
	struct kt_check check = {.resources = 0};
	struct reading reading = {.trust = true, .check = &check};
	int status = KT_EXIT_OK;
	struct kt_err err;
	int fd = -1;

	*ret = 0;
	kt_err_clear(&err);
	kt_report_init(&check.report);
	if (read_all(cli->manifests, cli->manifest_count, &load, &reading, &fd, &err) != KT_OK) {
		status = kt_cli_fail(&err);
	} else if (check.report.errors > 0 && !cli->manifests_default) {
		kt_check_print(&check, false);
		status = KT_EXIT_USAGE;
	}
	kt_check_finish(&check);
	if (fd >= 0 && check.resources == 0 && cli->manifests_default) {
		close(fd); /* nobody uses the default folder here */
	} else if (fd >= 0) {
		*ret = fd;
	}
	return status;
}

void kt_check_finish(struct kt_check *check)
{
	kt_report_finish(&check->report);
}

void kt_check_print(const struct kt_check *check, bool warnings)
{
	struct kt_buf text KT_AUTOBUF = {0};

	kt_buf_init(&text, 1024u * 1024u);
	kt_report_format(&check->report, warnings, &text);
	(void)fflush(stdout);
	if (text.len > 0) {
		(void)fputs(text.ptr, stderr);
	}
}

static void print_value(const struct kt_cli *cli, const struct kt_check *check, const json_t *findings)
{
	json_t *errors = json_array();
	json_t *warnings = json_array();
	json_t *value KT_AUTOJSON = NULL;

	for (uint32_t i = 0; i < check->report.count; i++) {
		const struct kt_complaint *item = &check->report.items[i];

		(void)json_array_append_new(item->severity == KT_COMPLAINT_ERROR ? errors : warnings,
		                            json_pack("{s:s,s:I,s:s}", "file", item->file, "line", (json_int_t)item->line,
		                                      "text", item->text));
	}
	value = json_pack("{s:I,s:I,s:I,s:I,s:o,s:o,s:O}", "resources", (json_int_t)check->resources, "foreign",
	                  (json_int_t)check->foreign, "errorCount", (json_int_t)check->report.errors, "warningCount",
	                  (json_int_t)check->report.warnings, "errors", errors, "warnings", warnings, "findings", findings);
	kt_cli_print_value(cli, stdout, value);
}

static void print_counts(const struct kt_check *check)
{
	(void)printf("%u resource%s, ", check->resources, check->resources == 1 ? "" : "s");
	if (check->foreign > 0) {
		(void)printf("%u read by check only, ", check->foreign);
	}
	(void)printf("%u error%s, %u warning%s\n", check->report.errors, check->report.errors == 1 ? "" : "s",
	             check->report.warnings, check->report.warnings == 1 ? "" : "s");
}

static int print_check(const struct kt_cli *cli, const struct kt_check *check, const json_t *findings)
{
	if (cli->format >= KT_FORMAT_JSON) {
		print_value(cli, check, findings);
	} else {
		kt_check_print(check, !cli->quiet);
		if (!cli->quiet) {
			print_counts(check);
		}
	}
	return check->report.errors > 0 || (kt_cli_flag(cli, "strict") && check->report.warnings > 0) ? KT_EXIT_USAGE
	                                                                                              : KT_EXIT_OK;
}

/* A prediction needs manifests without errors; that they don't line up is what it shows. */
static int print_prediction(const struct kt_cli *cli, const struct kt_check *check, const struct kt_align *align)
{
	if (check->report.errors > 0) {
		kt_check_print(check, false);
		return KT_EXIT_USAGE;
	}
	return kt_check_align_call(cli, align);
}

static int run_check(struct kt_cli *cli, struct kt_align *align, struct kt_check *check)
{
	bool named = cli->arg_count > 0;
	bool trust = !named || kt_cli_flag(cli, "host");
	const char *const *paths = named ? (const char *const *)cli->args : cli->manifests;
	struct kt_load_options load = {.check_trust = trust,
	                               .uid = geteuid(),
	                               .in_pod = cli->sidecar,
	                               .missing_is_ok = !named && cli->manifests_default};
	struct reading reading = {.trust = trust, .check = check, .cli = cli, .keeps = true, .align = align,
	                          .calls = kt_cli_flag(cli, "call")};
	json_t *findings KT_AUTOJSON = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	if (read_all(paths, named ? (size_t)cli->arg_count : cli->manifest_count, &load, &reading, NULL, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	check->foreign = kt_align_foreign_count(align);
	if (check->resources == 0 && check->foreign == 0 && check->report.errors == 0) {
		(void)kt_manifest_none(paths, named ? (size_t)cli->arg_count : cli->manifest_count, &err);
		return kt_cli_fail(&err);
	}
	if (kt_cli_flag(cli, "call")) {
		return print_prediction(cli, check, align);
	}
	if (kt_check_align_report(align, &check->report, &findings, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	return print_check(cli, check, findings);
}

int kt_cli_check(struct kt_cli *cli)
{
	struct kt_check check = {.resources = 0};
	struct kt_align *align = NULL;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (!kt_cli_flag(cli, "call") && (kt_cli_flag(cli, "expired") || kt_cli_flag(cli, "request"))) {
		(void)kt_err_set(&err, KT_E_INVALID, "--expired and --request belong to --call");
		return kt_cli_fail(&err);
	}
	kt_report_init(&check.report);
	if (kt_align_create(&align, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	status = run_check(cli, align, &check);
	kt_align_destroy(align);
	kt_check_finish(&check);
	return status;
}
