/* The list of complaints about a set of manifests. */
#include <stdio.h>
#include <string.h>

#include "kt/manifest.h"
#include "kt/mem.h"

void kt_report_init(struct kt_report *report)
{
	*report = (struct kt_report){0};
}

void kt_report_finish(struct kt_report *report)
{
	for (uint32_t i = 0; i < report->count; i++) {
		kt_free((char *)(uintptr_t)report->items[i].file);
		kt_free((char *)(uintptr_t)report->items[i].text);
	}
	kt_free(report->items);
	kt_report_init(report);
}

static uint32_t kept(const struct kt_report *report, enum kt_severity severity)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < report->count; i++)
		n += report->items[i].severity == severity;
	return n;
}

/* Escapes control characters; keeps UTF-8. */
static char *printable(const char *text)
{
	KT_AUTOBUF struct kt_buf out = {0};

	kt_buf_init(&out, 4096);
	for (const char *at = text; *at; at++) {
		unsigned char c = (unsigned char)*at;

		if (c < 0x20 || c == 0x7f)
			kt_buf_addf(&out, "\\x%02x", c);
		else
			kt_buf_addc(&out, *at);
	}
	if (!out.len)
		kt_buf_addc(&out, ' ');
	return out.failed ? NULL : kt_buf_steal(&out, NULL);
}

static bool make_room(struct kt_report *report)
{
	struct kt_complaint *items;
	uint32_t cap;

	if (report->count & (report->count - 1) || (report->count && report->count < 4))
		return report->count != 0;
	cap = report->count ? report->count * 2 : 4;
	items = kt_realloc(report->items, cap * sizeof(*items));
	if (!items)
		return false;
	report->items = items;
	return true;
}

void kt_report_add(struct kt_report *report, enum kt_severity severity, const char *file, uint32_t line,
		   const char *fmt, ...)
{
	struct kt_complaint complaint = {.severity = severity, .line = line};
	char text[1024];
	va_list args;
	int n;

	if (severity == KT_COMPLAINT_ERROR)
		report->errors++;
	else
		report->warnings++;
	if (kept(report, severity) >= KT_REPORT_MAX)
		return;
	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n >= (int)sizeof(text))
		memcpy(text + sizeof(text) - 4, "...", 4);
	complaint.file = printable(file ? file : "-");
	complaint.text = printable(n < 0 ? "?" : text);
	if (complaint.file && complaint.text && make_room(report)) {
		report->items[report->count++] = complaint;
		return;
	}
	report->nomem = true;
	kt_free((char *)(uintptr_t)complaint.file);
	kt_free((char *)(uintptr_t)complaint.text);
}

static void add_where(struct kt_buf *out, const struct kt_complaint *complaint)
{
	kt_buf_adds(out, complaint->file);
	if (complaint->line)
		kt_buf_addf(out, ":%u", complaint->line);
	kt_buf_adds(out, complaint->severity == KT_COMPLAINT_WARNING ? ": warning: " : ": ");
	kt_buf_adds(out, complaint->text);
}

void kt_report_format(const struct kt_report *report, bool with_warnings, struct kt_buf *out)
{
	uint32_t errors = kept(report, KT_COMPLAINT_ERROR), warnings = kept(report, KT_COMPLAINT_WARNING);

	for (uint32_t i = 0; i < report->count; i++) {
		if (report->items[i].severity == KT_COMPLAINT_WARNING && !with_warnings)
			continue;
		add_where(out, &report->items[i]);
		kt_buf_addc(out, '\n');
	}
	if (report->errors > errors)
		kt_buf_addf(out, "and %u more errors\n", report->errors - errors);
	if (with_warnings && report->warnings > warnings)
		kt_buf_addf(out, "and %u more warnings\n", report->warnings - warnings);
	if (report->nomem)
		kt_buf_adds(out, "out of memory: not everything could be read\n");
}

enum kt_code kt_report_check(const struct kt_report *report, struct kt_err *err)
{
	KT_AUTOBUF struct kt_buf text = {0};

	if (report->nomem)
		return kt_err_set(err, KT_E_NOMEM, "out of memory while reading manifests");
	if (!report->errors)
		return KT_OK;
	kt_buf_init(&text, 4096);
	for (uint32_t i = 0; i < report->count; i++) {
		if (report->items[i].severity == KT_COMPLAINT_ERROR) {
			add_where(&text, &report->items[i]);
			break;
		}
	}
	if (report->errors > 1)
		kt_buf_addf(&text, " (and %u more)", report->errors - 1);
	return kt_err_set(err, KT_E_INVALID, "%s", text.len ? text.ptr : "manifests are wrong");
}
