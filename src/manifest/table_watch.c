/* The field table of Watch: a credential that something else issues, and how it is renewed. */
#include "manifest/rows.h"

static const struct kt_enum_name formats[] = {
	{"PEM", KT_WATCH_PEM}, {"PKCS12", KT_WATCH_PKCS12}, {"JKS", KT_WATCH_JKS}, {NULL, 0}};

const char *kt_watch_format_name(enum kt_watch_format format)
{
	return kt_enum_text(formats, (int)format);
}

SECRET_REF_TABLE(store_password_table, "password");

static const struct kt_field file_rows[] = {
	ROW("alias", KT_F_STRING, struct kt_watch_file, alias, .check = kt_value_printable,
	    DOC "Which entry of a key store; the one with a key when absent, or the first certificate."),
	ROW("format", KT_F_ENUM, struct kt_watch_file, format, .def = KT_WATCH_PEM, .names = formats,
	    DOC "What the file is. PEM: the first certificate in it, also within a text such as YAML."),
	ROW("passwordSecretRef", KT_F_OBJECT, struct kt_watch_file, password_ref, OF(store_password_table),
	    DOC "Password of a PKCS12 store. The certificates of a JKS store can be read without."),
	ROW("path", KT_F_STRING, struct kt_watch_file, path, REQUIRED, .check = kt_value_file_path,
	    DOC "The file itself, not a link."),
};

static void check_file(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_watch_file *file = object;

	if (file->format == KT_WATCH_PEM && file->alias)
		kt_complain(d, node, "alias", "is for key stores; a PEM file has none: remove it, or set format");
	if (file->format != KT_WATCH_PKCS12 && file->password_ref)
		kt_complain(d, node, "passwordSecretRef", "is for format: PKCS12; %s is read without one: remove it",
			    kt_watch_format_name(file->format));
}

static const struct kt_table file_table = TABLE("WatchFile", struct kt_watch_file, file_rows, .check = check_file,
						.doc = "A file that has the certificate.");

static const struct kt_field source_rows[] = {
	ROW("file", KT_F_OBJECT, struct kt_watch_source, file, CHOICE, OF(file_table), DOC "A file on this machine."),
	ROW("tls", KT_F_OBJECT, struct kt_watch_source, tls, CHOICE, OF(kt_table_prove_tls),
	    DOC "What a server shows in a handshake."),
};
static const struct kt_table source_table = TABLE("WatchSource", struct kt_watch_source, source_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "Where the certificate is seen.");

static const struct kt_field renew_rows[] = {
	ROW("exec", KT_F_OBJECT, struct kt_watch_renew, exec, REQUIRED, OF(kt_table_exec),
	    DOC "A program; exit status 0 means that it has renewed, which is proved then."),
};
static const struct kt_table renew_table =
	TABLE("WatchRenew", struct kt_watch_renew, renew_rows, .doc = "What renews the credential.");

static const struct kt_field prove_rows[] = {
	ROW("within", KT_F_DURATION, struct kt_watch_prove, within, .def = 30 * KT_SECOND, .min = KT_SECOND, .max = KT_DAY,
	    DOC "Time for the source to show a certificate that ends later, from the end of the command."),
};
static const struct kt_table prove_table =
	TABLE("WatchProve", struct kt_watch_prove, prove_rows, .doc = "How the renewal is proved.");

typedef struct kt_watch_spec watch;

static const struct kt_field spec_rows[] = {
	ROW("prove", KT_F_STRUCT, watch, prove, OF(prove_table), DOC "How the renewal is proved."),
	ROW("renew", KT_F_OBJECT, watch, renew, OF(renew_table),
	    DOC "What renews it; when absent it is only read and warned about."),
	ROW("renewBefore", KT_F_DURATION, watch, renew_before, .min = KT_SECOND, .max = 3660 * KT_DAY,
	    DOC "Renew so long before the end; when absent, or not shorter than the whole life (which is warned about), at two "
		"thirds of the life, or at half of one under 10d. Excludes renewBeforePercentage."),
	ROW("renewBeforePercentage", KT_F_INT, watch, renew_before_percentage, .min = 1, .max = 99,
	    DOC "Renew with so many per cent of the life left. Excludes renewBefore."),
	ROW("source", KT_F_STRUCT, watch, source, REQUIRED, OF(source_table), DOC "Where the certificate is seen."),
	ROW("warnBefore", KT_F_DURATION, watch, warn_before, .min = KT_SECOND, .max = 3660 * KT_DAY,
	    DOC "Warn so long before the end; when absent halfway from the point of renewal to the end."),
};

static void check_watch(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const watch *w = object;
	char a[32], b[32];

	if (w->renew_before && w->renew_before_percentage)
		kt_complain(d, node, "renewBeforePercentage", "excludes renewBefore; keep one of them");
	if (!w->renew && (w->renew_before || w->renew_before_percentage))
		kt_complain(d, node, w->renew_before ? "renewBefore" : "renewBeforePercentage",
			    "has a meaning only with spec.renew; use warnBefore to be warned");
	if (w->renew && w->warn_before && w->renew_before && w->warn_before >= w->renew_before)
		kt_warn(d, node, "warnBefore", "(%s) warns before the renewal is tried (renewBefore %s)",
			kt_written(node, "warnBefore", w->warn_before, a), kt_written(node, "renewBefore", w->renew_before, b));
}

static const struct kt_table spec_table =
	TABLE("WatchSpec", watch, spec_rows, .check = check_watch, .doc = "What is watched, and how it is renewed.");

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "Watch"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, watch, REQUIRED, OF(spec_table),
	    DOC "What is watched, and how it is renewed."),
	STATUS_ROW,
};

const struct kt_table kt_table_watch =
	TABLE("Watch", struct kt_resource, top_rows, .doc = "A credential that something else issues.");
