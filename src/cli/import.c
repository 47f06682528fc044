/* keyturn import: accounts, certificates and settings of another ACME client become manifests and state; nothing is
 * ordered. */
#include "cli/cli.h"
#include "cli/import.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

#define DOCUMENT_MAX  ((size_t)64 << 20)
#define MANIFESTS_MAX ((size_t)16 << 20)

const struct kt_cli_option kt_cli_import_options[] = {
	{"dry-run", 0, NULL, "print the manifests and touch nothing"},
	{"manifests", 0, "PATH", "file or folder that the manifests are written to (default: the folder of --config)"},
	{"namespace", 'n', "NS", "namespace of the manifests (default: default)"},
	{"server", 0, "URL", "directory URL of the CA, for clients that do not write it down"},
	{"ca-bundle", 0, "FILE", "roots that the CA's own server is trusted by, in PEM"},
	{"exec", 0, "PROGRAM", "hook script of dns-01, for clients that do not write it down"},
	{"with-secrets", 0, NULL, "take credentials of DNS providers along, sealed"},
	{NULL, 0, NULL, NULL},
};

static const struct kt_import_source *const sources[] = {&kt_import_certbot, &kt_import_lego, &kt_import_acme_sh,
							 &kt_import_dehydrated, &kt_import_certmonger};

struct job {
	struct kt_cli *cli;
	struct kt_import import;
	struct kt_import_docs docs;
	const char *ns;
	char *file;    /* the manifests */
	json_t *taken; /* names that other manifests have */
	bool there;    /* it is there already, just as it would be written */
	json_t *rows;  /* what the keeper made of each object */
};

/* --- reading ----------------------------------------------------------------------------------------------- */

static const struct kt_import_source *find_source(const char *name)
{
	const char *names[6] = {NULL};
	const char *near;

	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		if (strcmp(sources[i]->name, name) == 0) {
			return sources[i];
		}
		names[i] = sources[i]->name;
	}
	near = kt_nearest(name, names);
	kt_cli_complain(
		"'%s' is no client that can be imported: certbot, lego, acme.sh, dehydrated or certmonger%s%s%s", name,
		near != NULL ? " (did you mean " : "", near != NULL ? near : "", near != NULL ? "?)" : "");
	return NULL;
}

static char *default_dir(const char *dir)
{
	const char *home = getenv("HOME");

	return kt_starts_with(dir, "~/") ? kt_asprintf("%s/%s", home != NULL ? home : "", dir + 2) : kt_strdup(dir);
}

static enum kt_code read_source(struct job *job, const struct kt_import_source *source, struct kt_err *err)
{
	struct kt_cli *cli = job->cli;
	char *dir KT_AUTOFREE = cli->arg_count > 1 ? kt_strdup(cli->args[1]) : default_dir(source->default_dir);
	enum kt_code code;

	job->import.client = source->name;
	job->import.server = kt_cli_value(cli, "server");
	job->import.exec = kt_cli_value(cli, "exec");
	job->import.with_secrets = kt_cli_flag(cli, "with-secrets");
	if (dir == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an import");
	}
	code = kt_import_open(&job->import, dir, err);
	if (code == KT_OK) {
		code = source->read(&job->import, err);
	}
	if (code == KT_OK && job->import.account_count == 0 && job->import.cert_count == 0 &&
	    json_array_size(job->import.lost) == 0) {
		code = kt_err_set(err, KT_E_INVALID, "%s is no folder of %s: it has neither accounts nor certificates",
				  dir, source->name);
	}
	return code;
}

/* The roots in base64, as a manifest holds them. */
static enum kt_code read_bundle(const struct kt_cli *cli, struct kt_buf *out, struct kt_err *err)
{
	const char *file = kt_cli_value(cli, "ca-bundle");
	struct kt_buf pem KT_AUTOBUF = {0};
	enum kt_code code = KT_OK;

	kt_buf_init(out, 2 * KT_IMPORT_FILE_MAX);
	kt_buf_init(&pem, KT_IMPORT_FILE_MAX);
	if (file != NULL) {
		code = kt_io_read_file(AT_FDCWD, file, &pem, err);
		kt_base64_encode(out, pem.len > 0 ? pem.ptr : "", pem.len);
	}
	return code == KT_OK ? kt_buf_check(out, "the CA bundle", err) : code;
}

/* --- the file of manifests --------------------------------------------------------------------------------- */

/* Where it goes; a folder gets imported-<client>.yaml. */
static enum kt_code find_file(struct job *job, struct kt_err *err)
{
	const struct kt_cli *cli = job->cli;
	const char *path = kt_cli_value(cli, "manifests");
	struct stat info;

	if (path == NULL && cli->manifest_count != 1) {
		return kt_err_set(err, KT_E_INVALID, "there are several places for manifests: say --manifests PATH");
	}
	path = path != NULL ? path : cli->manifests[0];
	if ((stat(path, &info) == 0 && S_ISDIR(info.st_mode)) ||
	    (kt_cli_value(cli, "manifests") == NULL && cli->manifests_default)) {
		job->file = kt_asprintf("%s/imported-%s.yaml", path, job->import.client);
	} else if (kt_cli_value(cli, "manifests") == NULL) {
		return kt_err_set(err, KT_E_INVALID, "%s is one file of manifests: say --manifests PATH for a new one",
				  path);
	} else {
		job->file = kt_strdup(path);
	}
	return job->file != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for a path");
}

static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void take_name(const struct kt_resource *resource, void *arg)
{
	struct job *job = arg;
	char key[600];

	if (strcmp(resource->meta.ns, job->ns) != 0 || (job->file != NULL && same_file(resource->file, job->file))) {
		return; /* what this very import wrote before is no other's */
	}
	(void)snprintf(key, sizeof(key), "%s/%s", kt_kind_name(resource->kind), resource->meta.name);
	(void)json_object_set_new(job->taken, key, json_true());
	if (resource->kind == KT_RES_CERTIFICATE || resource->kind == KT_RES_TOKEN) {
		(void)snprintf(key, sizeof(key), "Secret/%s",
			       resource->kind == KT_RES_TOKEN ? resource->token.secret_name
							      : resource->certificate.secret_name);
		(void)json_object_set_new(job->taken, key, json_true());
	}
}

/* The manifests that are there keep their names; what is wrong with them is not told here. */
static void read_taken(struct job *job)
{
	const struct kt_cli *cli = job->cli;
	struct kt_check check;
	struct kt_err err;

	kt_err_clear(&err);
	(void)kt_check_manifests(cli->manifests, cli->manifest_count, false, cli->sidecar, true, take_name, job, NULL, &check,
				 &err);
	kt_check_finish(&check);
}

/* A file that is there is never overwritten; one with the same bytes is a second run of the same import. */
static enum kt_code look_at_file(struct job *job, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	struct stat info;

	kt_buf_init(&text, MANIFESTS_MAX);
	if (lstat(job->file, &info) != 0 && errno == ENOENT) {
		return KT_OK;
	}
	job->there = kt_io_read_file(AT_FDCWD, job->file, &text, NULL) == KT_OK &&
		     kt_view_eq_str(kt_buf_view(&text), job->docs.yaml);
	return job->there
		       ? KT_OK
		       : kt_err_set(err, KT_E_EXISTS,
				    "%s is there already: remove it, or name another file by --manifests", job->file);
}

static enum kt_code write_file(struct job *job, struct kt_err *err)
{
	char *slash = strrchr(job->file, '/');
	char *folder KT_AUTOFREE =
		slash == NULL || slash == job->file ? NULL : kt_strndup(job->file, (size_t)(slash - job->file));
	KT_AUTOCLOSE int parent = -1;
	KT_AUTOCLOSE int fd = -1;
	enum kt_code code;

	if (job->there) {
		return KT_OK;
	}
	if (folder != NULL && job->cli->manifests_default && kt_cli_value(job->cli, "manifests") == NULL) {
		parent = kt_io_open_dir_create(folder, 0755, err);
	} else {
		parent = open(folder != NULL ? folder : slash != NULL ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (parent < 0) {
		return kt_err_sys(err, "the folder of %s can't be opened", job->file);
	}
	fd = openat(parent, slash != NULL ? slash + 1 : job->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		    0644);
	if (fd < 0) {
		return kt_err_sys(err, "%s can't be made", job->file);
	}
	code = kt_io_write_all(fd, job->docs.yaml, strlen(job->docs.yaml), job->file, err);
	if (code == KT_OK && (fsync(fd) != 0 || fsync(parent) != 0)) {
		code = kt_err_sys(err, "%s can't be written", job->file);
	}
	if (code != KT_OK) {
		(void)unlinkat(parent, slash != NULL ? slash + 1 : job->file, 0);
	}
	return code;
}

/* --- the state --------------------------------------------------------------------------------------------- */

static void add_member(struct kt_buf *out, const char *key, struct kt_view value)
{
	kt_buf_addf(out, ",\"%s\":", key);
	kt_buf_add_json(out, value);
}

static void add_accounts(const struct job *job, struct kt_buf *out)
{
	json_t *row;
	size_t i;

	json_array_foreach(job->docs.accounts, i, row)
	{
		const struct kt_import_account *account = &job->import.accounts[kt_json_int(row, "account", 0)];

		kt_buf_addf(out, "%s{\"format\":\"%s\"", i > 0 ? "," : "", account->jwk ? "jwk" : "pem");
		add_member(out, "issuer", kt_view_str(kt_json_str(row, "issuer")));
		add_member(out, "server", kt_view_str(account->server));
		if (account->url != NULL) {
			add_member(out, "url", kt_view_str(account->url));
		}
		add_member(out, "key", kt_secret_view(account->key));
		kt_buf_addc(out, '}');
	}
}

static void add_certificates(const struct job *job, struct kt_buf *out)
{
	json_t *row;
	size_t i;

	json_array_foreach(job->docs.certs, i, row)
	{
		const struct kt_import_cert *cert = &job->import.certs[kt_json_int(row, "cert", 0)];

		kt_buf_addf(out, "%s{\"format\":\"pem\"", i > 0 ? "," : "");
		add_member(out, "namespace", kt_view_str(kt_json_str(row, "namespace")));
		add_member(out, "name", kt_view_str(kt_json_str(row, "name")));
		add_member(out, "chain", kt_view_str(cert->chain));
		add_member(out, "key", kt_secret_view(cert->key));
		kt_buf_addc(out, '}');
	}
}

static void add_secrets(const struct job *job, struct kt_buf *out)
{
	json_t *row;
	size_t i;

	json_array_foreach(job->import.secrets, i, row)
	{
		kt_buf_addf(out, "%s{\"format\":\"text\"", i > 0 ? "," : "");
		add_member(out, "namespace", kt_view_str(job->ns));
		add_member(out, "name", kt_view_str(kt_json_str(row, "name")));
		add_member(out, "key", kt_view_str(kt_json_str(row, "key")));
		add_member(out, "value", kt_view_str(kt_json_str(row, "value")));
		kt_buf_addc(out, '}');
	}
}

/* The document for the keeper, in sealed memory: keys go that way and no other. -1 on failure. */
static int make_document(const struct job *job, struct kt_err *err)
{
	struct kt_buf out KT_AUTOBUF = {0};

	kt_buf_init(&out, DOCUMENT_MAX);
	kt_buf_adds(&out, "{\"client\":");
	kt_buf_add_json(&out, kt_view_str(job->import.client));
	add_member(&out, "manifests", kt_view_str(job->docs.yaml));
	kt_buf_adds(&out, ",\"accounts\":[");
	add_accounts(job, &out);
	kt_buf_adds(&out, "],\"certificates\":[");
	add_certificates(job, &out);
	kt_buf_adds(&out, "],\"secrets\":[");
	add_secrets(job, &out);
	kt_buf_adds(&out, "]}");
	return kt_buf_check(&out, "the import", err) == KT_OK ? kt_io_memfd("keyturn-import", out.ptr, out.len, err)
							      : -1;
}

static void on_row(const json_t *row, void *arg)
{
	struct job *job = arg;

	(void)json_array_append(job->rows, (json_t *)row);
}

static int send_state(struct job *job)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "import");
	struct kt_request request = {.body = body, .mode = KT_MODE_ONESHOT, .row = on_row, .arg = job};
	struct kt_answer answer;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	request.bundle = make_document(job, &err);
	if (request.bundle < 0) {
		return kt_cli_fail(&err);
	}
	kt_client_call(job->cli, &request, &answer);
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	close(request.bundle);
	return status;
}

/* An agent that reads the folder takes the new manifests at once; without one there is nothing to do. */
static int reload(struct job *job)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "reload");
	struct kt_answer answer;
	struct kt_err err;
	int status;
	int fd;

	kt_err_clear(&err);
	fd = kt_client_connect(job->cli, &err);
	if (fd < 0) {
		return KT_EXIT_OK;
	}
	close(fd);
	status = kt_client_simple(job->cli, body, KT_MODE_DAEMON, &answer);
	kt_answer_finish(&answer);
	return status;
}

/* --- telling ----------------------------------------------------------------------------------------------- */

static void print_lost(FILE *out, const struct kt_import *import)
{
	json_t *item;
	size_t i;

	if (json_array_size(import->lost) > 0) {
		(void)fputs("not carried over:\n", out);
	}
	json_array_foreach(import->lost, i, item)
	{
		(void)fputs("  ", out);
		kt_cli_print(out, kt_json_str(item, "file"));
		(void)fputs(": ", out);
		kt_cli_print(out, kt_json_str(item, "what"));
		(void)fputs(": ", out);
		kt_cli_print(out, kt_json_str(item, "reason"));
		if (kt_json_str(item, "instead")[0] != '\0') {
			(void)fputs("\n    instead: ", out);
			kt_cli_print(out, kt_json_str(item, "instead"));
		}
		(void)fputc('\n', out);
	}
	if (import->lost_more > 0) {
		(void)fprintf(out, "  and %llu more\n", (unsigned long long)import->lost_more);
	}
	json_array_foreach(import->notes, i, item)
	{
		(void)fputs(i == 0 ? "to do:\n  " : "  ", out);
		kt_cli_print(out, json_string_value(item));
		(void)fputc('\n', out);
	}
}

static void print_rows(const struct job *job)
{
	json_t *row;
	size_t i;

	json_array_foreach(job->rows, i, row)
	{
		kt_cli_print(stdout, kt_json_str(row, "kind"));
		(void)fputc(' ', stdout);
		kt_cli_print(stdout, kt_json_str(row, "name"));
		(void)fputs(": ", stdout);
		kt_cli_print(stdout, kt_json_str(row, "outcome"));
		if (kt_json_str(row, "reason")[0] != '\0') {
			(void)fputs(": ", stdout);
			kt_cli_print(stdout, kt_json_str(row, "reason"));
		}
		(void)fputc('\n', stdout);
	}
}

static void tell(struct job *job, bool dry)
{
	const struct kt_cli *cli = job->cli;
	json_t *value KT_AUTOJSON = NULL;

	if (cli->format >= KT_FORMAT_JSON) {
		value = json_pack("{s:s,s:s,s:s?,s:b,s:O,s:O,s:O,s:O}", "client", job->import.client, "from",
				  job->import.path, "file", dry ? NULL : job->file, "dryRun", dry, "manifests",
				  job->docs.names, "state", job->rows, "lost", job->import.lost, "notes",
				  job->import.notes);
		if (dry && value != NULL) {
			(void)json_object_set_new(value, "yaml", json_string(job->docs.yaml));
		}
		kt_cli_print_value(cli, stdout, value);
		return;
	}
	if (dry) {
		(void)fputs(job->docs.yaml, stdout);
		return;
	}
	if (!cli->quiet) {
		print_rows(job);
		(void)printf("%s %s\n", job->file, job->there ? "is as it was" : "is written");
	}
	print_lost(stderr, &job->import);
}

/* --- the command ------------------------------------------------------------------------------------------- */

/* State first: a manifest that is in force without it would order anew. */
static int carry_over(struct job *job)
{
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (look_at_file(job, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	status = send_state(job);
	if (status != KT_EXIT_OK && json_array_size(job->rows) == 0) {
		return status;
	}
	if (write_file(job, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	tell(job, false);
	return job->there ? status : kt_cli_worse(status, reload(job));
}

static enum kt_code make_documents(struct job *job, bool dry, struct kt_err *err)
{
	struct kt_buf bundle KT_AUTOBUF = {0};
	enum kt_code code = read_bundle(job->cli, &bundle, err);

	if (code == KT_OK && find_file(job, err) != KT_OK) {
		code = dry ? KT_OK : err->code;
	}
	if (code != KT_OK) {
		return code;
	}
	read_taken(job);
	return kt_import_documents(&job->import, job->ns, bundle.len > 0 ? bundle.ptr : NULL, job->taken, &job->docs,
				   err);
}

int kt_cli_import(struct kt_cli *cli)
{
	const struct kt_import_source *source = find_source(cli->args[0]);
	const char *ns = kt_cli_value(cli, "namespace");
	struct job job = {.cli = cli,
			  .import = {.dir = -1},
			  .ns = ns != NULL ? ns : "default",
			  .rows = json_array(),
			  .taken = json_object()};
	bool dry = kt_cli_flag(cli, "dry-run");
	struct kt_err err;
	int status = KT_EXIT_USAGE;

	kt_err_clear(&err);
	if (source == NULL) {
		/* said already */
	} else if (read_source(&job, source, &err) != KT_OK || make_documents(&job, dry, &err) != KT_OK) {
		status = kt_cli_fail(&err);
	} else if (dry) {
		tell(&job, true);
		status = KT_EXIT_OK;
	} else {
		status = carry_over(&job);
	}
	json_decref(job.rows);
	json_decref(job.taken);
	kt_free(job.file);
	kt_import_docs_finish(&job.docs);
	kt_import_finish(&job.import);
	return status;
}
