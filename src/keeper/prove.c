/* Single acts towards a consumer: one notification, one look at what it uses. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/client/client.h"
#include "keeper/hook.h"
#include "keeper/prove.h"
#include "keeper/target.h"

#define PROBE_TIMEOUT (5 * KT_SECOND)
#define HTTP_TIMEOUT  (10 * KT_SECOND)
#define LOG_TAIL      65536

int kt_prove_next(const struct kt_task_run *run, int from)
{
	const struct kt_proves *proves = &run->consumer->consumer.prove;
	uint32_t i;

	for (i = (uint32_t)from; i < proves->count; i++) {
		if (strcmp(proves->items[i].secret, run->secret_name) == 0) {
			return (int)i;
		}
	}
	return -1;
}

/* --- hooks ------------------------------------------------------------------------------------------------------------ */

static void on_hooked(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_task_run *run = arg;
	struct kt_err err;
	enum kt_hook_verdict verdict = kt_hook_judge(why, type, msg, &err);

	(void)fds;
	(void)fd_count;
	/* A proof by exec that says no has seen a wrong answer. */
	kt_task_done(run, &err, verdict == KT_HOOK_REFUSED && run->task.state == KT_TASK_NOTIFIED);
}

static enum kt_code run_hook(struct kt_task_run *run, enum kt_hook_phase phase, uint32_t index, struct kt_err *err)
{
	struct kt_hook_call call = {.consumer = run->consumer,
	                            .phase = phase,
	                            .index = index,
	                            .resource = &run->resource,
	                            .secret_name = run->secret_name,
	                            .serial = run->material.serial,
	                            .sha256 = run->material.sha256,
	                            .trace_id = run->task.trace_id,
	                            .not_after = run->material.not_after,
	                            .delivered_at = run->delivered_at};

	return kt_hook_run(run->keeper, &call, on_hooked, run, err);
}

/* --- http ------------------------------------------------------------------------------------------------------------- */

static struct kt_view bundle_view(const struct kt_bytes *bytes)
{
	return (struct kt_view){(const char *)bytes->ptr, bytes->len};
}

static void on_notified(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                        void *arg)
{
	const struct kt_msg_http_done *done = msg;
	struct kt_err err = *why;

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && (type != KT_HTTP_DONE || done->status < 200 || done->status > 299)) {
		const struct kt_task_run *run = arg;
		const struct kt_notify *notify = &run->consumer->consumer.notify.items[run->task.step - kt_target_count(run)];

		(void)kt_err_set(&err, KT_E_PROTO, "the notified URL %.300s answered with status %u", notify->http->url,
		                 type == KT_HTTP_DONE ? done->status : 0);
	}
	kt_task_done(arg, &err, false);
}

static enum kt_code notify_http(struct kt_task_run *run, const struct kt_notify_http *http, struct kt_err *err)
{
	struct kt_buf body KT_AUTOBUF = {0};
	char traceparent[56];
	char when[32];
	struct kt_msg_http msg = {.method = KT_VIEW_LIT("POST"),
	                          .url = kt_view_str(http->url),
	                          .content_type = KT_VIEW_LIT("application/json"),
	                          .ca_bundle = bundle_view(&http->ca_bundle),
	                          .timeout_ms = (uint32_t)http->timeout};
	enum kt_code code;

	kt_buf_init(&body, 4096);
	kt_buf_addf(&body, "{\"resource\":\"%s/%s/%s\",\"secretName\":\"%s\",\"serial\":\"%s\",\"sha256\":\"%s\","
	                   "\"notAfter\":\"%s\"}",
	            run->resource.kind, run->resource.ns, run->resource.name, run->secret_name, run->material.serial,
	            run->material.sha256, kt_time_format(run->material.not_after, when));
	code = kt_buf_check(&body, "notification", err);
	msg.body = kt_buf_view(&body);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(run->task.trace_id, traceparent));
	return code == KT_OK ? kt_wire_call(kt_keeper_courier(run->keeper), KT_HTTP, &msg, NULL, 0,
	                                    http->timeout + KT_SECOND, on_notified, run, err)
	                     : code;
}

int kt_prove_steps(const struct kt_task_run *run)
{
	return kt_target_count(run) + (int)run->consumer->consumer.notify.count;
}

enum kt_code kt_prove_notify(struct kt_task_run *run, struct kt_err *err)
{
	int uploads = kt_target_count(run);
	uint32_t index = (uint32_t)(run->task.step - uploads);
	const struct kt_notify *notify;

	if (run->task.step < uploads) {
		return kt_target_upload(run, run->task.step, err);
	}
	notify = &run->consumer->consumer.notify.items[index];
	return notify->http != NULL ? notify_http(run, notify->http, err) : run_hook(run, KT_HOOK_NOTIFY, index, err);
}

/* --- comparing ---------------------------------------------------------------------------------------------------------- */

/* Hex without case and without colons or spaces, as people and servers write fingerprints. */
static bool same_hex(struct kt_view seen, const char *wanted)
{
	size_t i;

	for (i = 0; i < seen.len; i++) {
		char c = seen.ptr[i];

		if (c == ':' || c == ' ') {
			continue;
		}
		c = (char)(c >= 'A' && c <= 'F' ? c + 32 : c);
		if (*wanted == '\0' || c != *wanted) {
			return false;
		}
		wanted++;
	}
	return *wanted == '\0';
}

struct known {
	struct kt_view seen;
	bool ours;
};

static bool is_known(const struct kt_store_material *material, void *arg)
{
	struct known *known = arg;

	known->ours = known->ours || (material->sha256[0] != '\0' && same_hex(known->seen, material->sha256)) ||
	              (material->serial[0] != '\0' && same_hex(known->seen, material->serial));
	return !known->ours;
}

/* Whether a fingerprint or serial belongs to any material of the credential, older or newer. */
static bool ever_ours(struct kt_task_run *run, struct kt_view seen)
{
	struct known known = {seen, false};

	(void)kt_store_material_each(run->keeper->store, run->task.credential, 64, is_known, &known, NULL);
	return known.ours;
}

/* Ends the look: what was seen against what was delivered. */
static void compare(struct kt_task_run *run, struct kt_view seen, const char *text)
{
	struct kt_view plain = seen;
	struct kt_err err;
	bool client = strcmp(run->resource.kind, "ClientCredential") == 0;
	bool same;

	kt_err_clear(&err);
	while (plain.len > 1 && plain.ptr[0] == '0' && plain.len % 2 != 0) { /* serials without leading zeros */
		plain.ptr++;
		plain.len--;
	}
	/* A client keeps its id when its secret changes. */
	same = same_hex(seen, run->material.sha256) ||
	       (!client && (same_hex(plain, run->material.serial) || kt_view_eq_str(seen, run->material.serial)));
	/* From a stranger's log line or answer: escaped like any error's text, since it is stored and shown. */
	kt_err_clear(&err);
	(void)kt_err_set(&err, KT_E_MISMATCH, "%s", text);
	(void)snprintf(run->seen, sizeof(run->seen), "%s", err.what);
	kt_err_clear(&err);
	(void)snprintf(run->expected, sizeof(run->expected), "serial %s, sha256 %s", run->material.serial,
	               run->material.sha256);
	run->task.seen = run->seen;
	run->task.expected = run->expected;
	run->wrong_answer = !same && !ever_ours(run, seen);
	if (!same) {
		(void)kt_err_set(&err, KT_E_MISMATCH, "%s %s, expected serial %s",
		                 run->wrong_answer ? "something that was never ours is used:" : "an older set is still used:",
		                 text, run->material.serial);
	}
	kt_task_done(run, &err, run->wrong_answer);
}

/* --- looks ----------------------------------------------------------------------------------------------------------------- */

static void on_probed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_task_run *run = arg;
	const struct kt_msg_probed_tls *probed = msg;
	struct kt_err err = *why;
	char text[256];
	char when[32];

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && type != KT_PROBED_TLS) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code != KT_OK) {
		kt_task_done(run, &err, false);
		return;
	}
	(void)snprintf(text, sizeof(text), "serial %.*s (not after %s) is served", (int)probed->serial.len,
	               probed->serial.ptr, kt_time_format(probed->not_after, when));
	compare(run, probed->sha256, text);
}

enum kt_code kt_prove_probe(struct kt_keeper *keeper, const struct kt_prove_tls *tls, const char *trace_id, kt_ms timeout,
                            kt_wire_reply_fn *fn, void *arg, struct kt_err *err)
{
	char host[256];
	char traceparent[56];
	const char *colon = strrchr(tls->address, ':');
	struct kt_msg_probe_tls msg = {.address = kt_view_str(tls->address), .timeout_ms = (uint32_t)timeout};

	(void)snprintf(host, sizeof(host), "%.*s", colon != NULL ? (int)(colon - tls->address) : 255, tls->address);
	msg.server_name = kt_view_str(tls->server_name != NULL ? tls->server_name : host);
	msg.start_tls = kt_view_str(kt_start_tls_name(tls->start_tls));
	msg.traceparent = kt_view_str(kt_keeper_traceparent(trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(keeper), KT_PROBE_TLS, &msg, NULL, 0, timeout + KT_SECOND, fn, arg, err);
}

static enum kt_code look_tls(struct kt_task_run *run, const struct kt_prove_tls *tls, struct kt_err *err)
{
	return kt_prove_probe(run->keeper, tls, run->task.trace_id, PROBE_TIMEOUT, on_probed, run, err);
}

static void on_observed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                        void *arg)
{
	struct kt_task_run *run = arg;
	const struct kt_msg_http_done *done = msg;
	struct kt_err err = *why;
	char text[256];

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && (type != KT_HTTP_DONE || done->status != 200)) {
		(void)kt_err_set(&err, KT_E_PROTO, "the consumer's report has status %u",
		                 type == KT_HTTP_DONE ? done->status : 0);
	}
	if (err.code != KT_OK) {
		kt_task_done(run, &err, false);
		return;
	}
	(void)snprintf(text, sizeof(text), "the consumer reports %.*s",
	               (int)(done->value.len < 130 ? done->value.len : 130), done->value.ptr);
	compare(run, done->value, text);
}

static enum kt_code look_report(struct kt_task_run *run, const struct kt_observed_http *http, struct kt_err *err)
{
	char traceparent[56];
	struct kt_msg_http msg = {.method = KT_VIEW_LIT("GET"),
	                          .url = kt_view_str(http->url),
	                          .ca_bundle = bundle_view(&http->ca_bundle),
	                          .json_path = kt_view_str(http->json_path),
	                          .timeout_ms = HTTP_TIMEOUT};

	msg.traceparent = kt_view_str(kt_keeper_traceparent(run->task.trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(run->keeper), KT_HTTP, &msg, NULL, 0, HTTP_TIMEOUT + KT_SECOND, on_observed,
	                    run, err);
}

static void on_accepted(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count,
                        void *arg)
{
	struct kt_task_run *run = arg;
	const struct kt_msg_http_done *done = msg;
	const struct kt_proves *proves = &run->consumer->consumer.prove;
	int64_t wanted = proves->items[run->task.step].accepted->http->expect_status;
	struct kt_err err = *why;
	bool good;
	bool refused = false;

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && type != KT_HTTP_DONE) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		good = wanted != 0 ? done->status == (uint32_t)wanted : done->status >= 200 && done->status <= 299;
		refused = done->status == 401 || done->status == 403;
		if (!good) {
			(void)kt_err_set(&err, KT_E_MISMATCH, "the new credential is not accepted: status %u, expected %s",
			                 done->status, wanted != 0 ? "another" : "2xx");
		}
	}
	run->wrong_answer = refused;
	kt_task_done(run, &err, refused);
}

/* A client's pair as Basic authentication has it. */
static enum kt_code make_basic(struct kt_secret **pair, struct kt_err *err)
{
	struct kt_buf plain KT_AUTOBUF = {0};
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_view id, secret;
	enum kt_code code;

	kt_buf_init(&plain, 8192);
	kt_buf_init(&text, 16384);
	if (!kt_client_pair_split(*pair, &id, &secret)) {
		return kt_err_set(err, KT_E_CORRUPT, "what is stored is no client's id and secret");
	}
	kt_buf_addv(&plain, id);
	kt_buf_addc(&plain, ':');
	kt_buf_addv(&plain, secret);
	kt_base64_encode(&text, plain.ptr, plain.len);
	kt_wipe(plain.ptr, plain.len);
	kt_secret_destroy(*pair);
	*pair = NULL;
	code = kt_buf_check(&text, "a client's credentials", err);
	return code == KT_OK ? kt_secret_from_buf(&text, pair, err) : code;
}

static enum kt_code look_accepted(struct kt_task_run *run, const struct kt_accepted_http *http, struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(&run->resource, run->material.revision, "token");
	struct kt_secret *token KT_AUTOSECRET = NULL;
	char traceparent[56];
	struct kt_msg_http msg = {.method = KT_VIEW_LIT("GET"),
	                          .url = kt_view_str(http->url),
	                          .ca_bundle = bundle_view(&http->ca_bundle),
	                          .header_name = kt_view_str(http->header_name),
	                          .header_prefix = kt_view_str(http->header_prefix),
	                          .timeout_ms = HTTP_TIMEOUT};
	enum kt_code code;

	if (run->material.sealed_token.len == 0) {
		return kt_err_set(err, KT_E_INVALID, "'accepted' proves tokens only: %s is a certificate", run->secret_name);
	}
	code = kt_keys_unseal(run->keeper->keys, &id, run->material.sealed_token, &token, err);
	if (code == KT_OK && run->material.sealed_key.len > 0 && strcmp(run->resource.kind, "ClientCredential") == 0) {
		return kt_err_set(err, KT_E_INVALID, "'accepted' shows a secret: %s is a key", run->secret_name);
	}
	if (code == KT_OK && strcmp(run->resource.kind, "ClientCredential") == 0) {
		code = make_basic(&token, err);
		if (http->header_prefix != NULL && strcmp(http->header_prefix, "Bearer ") == 0) {
			msg.header_prefix = KT_VIEW_LIT("Basic ");
		}
	}
	if (code != KT_OK) {
		return code;
	}
	msg.token = token;
	msg.traceparent = kt_view_str(kt_keeper_traceparent(run->task.trace_id, traceparent));
	return kt_wire_call(kt_keeper_courier(run->keeper), KT_HTTP, &msg, NULL, 0, HTTP_TIMEOUT + KT_SECOND, on_accepted,
	                    run, err);
}

/* --- access log --------------------------------------------------------------------------------------------------------------- */

/* The n-th column (from 1) of a line. */
static struct kt_view column(struct kt_view line, uint64_t n)
{
	size_t at = 0;

	while (at < line.len) {
		size_t start;

		while (at < line.len && line.ptr[at] == ' ') {
			at++;
		}
		start = at;
		while (at < line.len && line.ptr[at] != ' ') {
			at++;
		}
		if (--n == 0) {
			return (struct kt_view){line.ptr + start, at - start};
		}
	}
	return (struct kt_view){NULL, 0};
}

/* A string member by a path ".a.b" of a JSON line; the text lives in `out`. */
static struct kt_view member(struct kt_view line, const char *path, char *out, size_t size)
{
	json_t *root KT_AUTOJSON = NULL;
	const json_t *at;
	char name[128];

	if (kt_json_parse(line, LOG_TAIL, &root, NULL) != KT_OK) {
		return (struct kt_view){NULL, 0};
	}
	for (at = root; at != NULL && path[0] == '.';) {
		size_t len = strcspn(path + 1, ".");

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, path + 1);
		at = json_object_get(at, name);
		path += len + 1;
	}
	if (!json_is_string(at)) {
		return (struct kt_view){NULL, 0};
	}
	(void)snprintf(out, size, "%s", json_string_value(at));
	return kt_view_str(out);
}

/*
 * What stands in a log, or a watched file, is shown, and its folder often belongs to the consumer: who may put a link there must not make us
 * show a line of a file that only we can read. The folder itself may be reached by links (/var/log on another disk).
 */
int kt_prove_open(const char *what, const char *path, struct stat *ret_info, struct kt_err *err)
{
	char *folder KT_AUTOFREE = kt_strdup(path);
	char *slash = folder != NULL ? strrchr(folder, '/') : NULL;
	char real[PATH_MAX];
	int dir KT_AUTOCLOSE = -1;
	int fd;

	if (slash == NULL) {
		(void)kt_err_set(err, KT_E_NOMEM, "no memory for a path");
		return -1;
	}
	slash[slash == folder] = '\0';
	if (realpath(folder, real) == NULL) {
		(void)kt_err_sys(err, "the folder of %s %s", what, path);
		return -1;
	}
	dir = kt_io_open_nolinks(AT_FDCWD, real, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, err);
	if (dir < 0) {
		return -1;
	}
	fd = openat(dir, path + (slash - folder) + 1, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno != ELOOP) {
		(void)kt_err_sys(err, "%s %s can't be read", what, path);
	} else if (fd < 0 || fstat(fd, ret_info) != 0 || !S_ISREG(ret_info->st_mode) || ret_info->st_nlink > 1) {
		(void)kt_err_set(err, KT_E_POLICY, "%s %s is a link or no plain file: name the file itself", what, path);
		kt_cleanup_close(&fd);
		fd = -1;
	}
	return fd;
}

static enum kt_code look_log(struct kt_task_run *run, const struct kt_observed_log *log, struct kt_err *err)
{
	char *tail KT_AUTOFREE = kt_malloc(LOG_TAIL);
	struct stat info;
	int fd KT_AUTOCLOSE = kt_prove_open("the access log", log->path, &info, err);
	uint64_t n = 0;
	bool numbered = kt_parse_u64(kt_view_str(log->field), 1000, &n, NULL) == KT_OK;
	char value[512];
	ssize_t got;
	size_t end;

	if (tail == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a log");
	}
	if (fd < 0) {
		return err->code;
	}
	got = pread(fd, tail, LOG_TAIL, info.st_size > LOG_TAIL ? info.st_size - LOG_TAIL : 0);
	for (end = got > 0 ? (size_t)got : 0; end > 0;) {
		size_t begin = end;
		struct kt_view line;
		struct kt_view seen;

		while (begin > 0 && tail[begin - 1] != '\n') {
			begin--;
		}
		line = (struct kt_view){tail + begin, end - begin};
		seen = numbered ? column(line, n) : member(line, log->field, value, sizeof(value));
		end = begin > 0 ? begin - 1 : 0;
		if (seen.len > 1) {
			char text[256];

			(void)snprintf(text, sizeof(text), "%s shows %.*s", log->path, (int)(seen.len < 100 ? seen.len : 100),
			               seen.ptr);
			compare(run, seen, text);
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_LATER, "%s has no line with field %s yet", log->path, log->field);
}

enum kt_code kt_prove_look(struct kt_task_run *run, struct kt_err *err)
{
	int index = kt_prove_next(run, run->task.step);
	const struct kt_prove *prove;

	if (index < 0) {
		kt_task_done(run, NULL, false);
		return KT_OK;
	}
	run->task.step = index;
	prove = &run->consumer->consumer.prove.items[index];
	if (prove->tls != NULL) {
		return look_tls(run, prove->tls, err);
	}
	if (prove->observed != NULL && prove->observed->http != NULL) {
		return look_report(run, prove->observed->http, err);
	}
	if (prove->observed != NULL && prove->observed->access_log != NULL) {
		return look_log(run, prove->observed->access_log, err);
	}
	if (prove->accepted != NULL) {
		return look_accepted(run, prove->accepted->http, err);
	}
	if (prove->read_back != NULL) {
		return kt_target_look(run, prove->read_back->name, err);
	}
	return run_hook(run, KT_HOOK_PROVE, (uint32_t)index, err);
}
