/* keyturn check beside a mesh and API gateways: what does not line up, and what each reader would answer to a call. */
#include "cli/check_align.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

static enum kt_code take_foreign(void *arg, struct kt_foreign *foreign, struct kt_err *err)
{
	return kt_align_add_foreign(arg, foreign, err);
}

static enum kt_code take_ours(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	return kt_align_add(arg, resource, err);
}

enum kt_code kt_check_align_read(struct kt_view bundle, bool always, struct kt_align *align, struct kt_report *report,
				 struct kt_err *err)
{
	struct kt_report again; /* the complaints of the first reading */
	enum kt_code code = kt_foreign_read_bundle(bundle, take_foreign, align, report, err);

	if (code != KT_OK || (!always && kt_align_foreign_count(align) == 0)) {
		return code;
	}
	kt_report_init(&again);
	code = kt_manifest_read_bundle(bundle, NULL, take_ours, align, &again, err);
	kt_report_finish(&again);
	return code == KT_OK ? kt_align_ready(align, err) : code;
}

enum kt_code kt_check_align_report(const struct kt_align *align, struct kt_report *report, json_t **ret,
				   struct kt_err *err)
{
	json_t *findings = kt_align_findings(align);
	json_t *item;
	size_t i;

	*ret = findings;
	if (findings == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for findings");
	}
	json_array_foreach(findings, i, item)
	{
		bool error = strcmp(kt_json_str(item, "severity"), "error") == 0;

		kt_report_add(report, error ? KT_COMPLAINT_ERROR : KT_COMPLAINT_WARNING, kt_json_str(item, "file"),
			      (uint32_t)kt_json_int(item, "line", 0), "%s", kt_json_str(item, "text"));
	}
	return KT_OK;
}

/* --- --call ---------------------------------------- */

static void cell_answer(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	(void)cli;
	kt_buf_adds(out, kt_json_str(row, "answer"));
	kt_buf_adds(out, kt_json_bool(row, "certain", true) ? "" : "?");
}

static void cell_where(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	(void)cli;
	kt_buf_addf(out, "%s:%lld", kt_json_str(row, "file"), (long long)kt_json_int(row, "line", 0));
}

static const struct kt_column columns[] = {
	{"HOP", "hop", NULL, 0},          {"READER", "reader", NULL, 0},
	{"ANSWER", NULL, cell_answer, 0}, {"WHY", "why", NULL, KT_COLUMN_TRUNC},
	{"WHERE", NULL, cell_where, 0},   {NULL, NULL, NULL, 0},
};

/* "TOKEN[,CERTIFICATE[,CLIENT]]" and "METHOD URL", each cut at its separator. */
struct words {
	char *call, *request;
	struct kt_align_call wanted;
};

static enum kt_code take_words(const struct kt_cli *cli, struct words *w, struct kt_err *err)
{
	const char *request = kt_cli_value(cli, "request");
	char *comma, *url, *path;
	char *second = NULL;

	w->call = kt_strdup(kt_cli_value(cli, "call"));
	w->request = request != NULL ? kt_strdup(request) : NULL;
	if (w->call == NULL || (request != NULL && w->request == NULL)) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a call");
	}
	comma = strchr(w->call, ',');
	if (comma != NULL) {
		*comma = '\0';
		w->wanted.certificate = comma + 1;
		second = strchr(comma + 1, ',');
	}
	if (second != NULL) {
		*second = '\0';
		w->wanted.client = second + 1;
	}
	w->wanted.token = strcmp(w->call, "-") == 0 ? NULL : w->call;
	w->wanted.expired = kt_cli_flag(cli, "expired");
	if (w->call[0] == '\0' || (comma != NULL && comma[1] == '\0') || (second != NULL && second[1] == '\0')) {
		return kt_err_set(err, KT_E_INVALID, "--call takes TOKEN[,CERTIFICATE[,CLIENT]], each a name or -");
	}
	if (request == NULL) {
		return KT_OK;
	}
	url = strchr(w->request, ' ');
	if (url == NULL || url == w->request || url[1] == '\0') {
		return kt_err_set(err, KT_E_INVALID, "--request takes \"METHOD URL\" or \"METHOD /path\", not '%s'",
				  request);
	}
	*url++ = '\0';
	w->wanted.method = w->request;
	path = strstr(url, "://");
	if (path != NULL) { /* the host is moved to the front, so that both end with a NUL */
		char *host = path + 3;
		size_t len = strcspn(host, "/?#");

		path = host + len;
		memmove(host - 1, host, len);
		host[len - 1] = '\0';
		w->wanted.host = host - 1;
	}
	w->wanted.path = path == NULL ? url : *path == '/' ? path : "/";
	path = strpbrk(path == NULL ? url : path, "?#");
	if (path != NULL) {
		*path = '\0';
	}
	return KT_OK;
}

static enum kt_code print_call(const struct kt_cli *cli, const json_t *rows, int status, struct kt_err *err)
{
	json_t *summary KT_AUTOJSON = json_pack("{s:i}", "answer", status);
	struct kt_listing *listing = NULL;
	enum kt_code code = kt_listing_create(cli, stdout, "hops", columns, NULL, &listing, err);
	json_t *row;
	size_t i;

	if (code != KT_OK) {
		return code;
	}
	json_array_foreach(rows, i, row)
	{
		kt_listing_row(listing, row);
	}
	(void)kt_listing_end(listing, summary);
	kt_listing_destroy(listing);
	if (cli->format >= KT_FORMAT_JSON || cli->quiet) {
		return KT_OK;
	}
	if (json_array_size(rows) == 0) {
		(void)printf("nothing here reads the call\n");
	} else if (status == 0) {
		(void)printf("the connection would be refused\n");
	} else {
		(void)printf("the call would get %d\n", status);
	}
	return KT_OK;
}

int kt_check_align_call(const struct kt_cli *cli, const struct kt_align *align)
{
	struct words w = {.call = NULL};
	json_t *rows KT_AUTOJSON = NULL;
	struct kt_err err;
	int status = 200;
	enum kt_code code;
	int result;

	kt_err_clear(&err);
	code = take_words(cli, &w, &err);
	if (code == KT_OK) {
		code = kt_align_predict(align, &w.wanted, &rows, &status, &err);
		code = code == KT_E_NOTFOUND ? (err.code = KT_E_INVALID) : code;
	}
	if (code == KT_OK) {
		code = print_call(cli, rows, status, &err);
	}
	kt_free(w.call);
	kt_free(w.request);
	result = code != KT_OK ? kt_cli_fail(&err) : status == 200 ? KT_EXIT_OK : KT_EXIT_POLICY;
	return result;
}
