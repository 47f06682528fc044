/* What `keyturn check` does with the documents of a mesh and of API gateways. */
#ifndef KT_CLI_CHECK_ALIGN_H
#define KT_CLI_CHECK_ALIGN_H

#include "cli/align/align.h"
#include "cli/cli.h"

/* Fills align from a bundle; what can't be understood goes into the report. always: ours are read even if nothing else
 * is. */
enum kt_code kt_check_align_read(struct kt_view bundle, bool always, struct kt_align *align, struct kt_report *report,
				 struct kt_err *err);
/* Adds the findings to the report and gives them back as JSON (a new reference). */
enum kt_code kt_check_align_report(const struct kt_align *align, struct kt_report *report, json_t **ret,
				   struct kt_err *err);
/* --call: prints what each reader answers; the exit status, 4 when one refuses. */
int kt_check_align_call(const struct kt_cli *cli, const struct kt_align *align);

#endif
