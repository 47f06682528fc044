/* keyturn trace: one rotation on a line of time, from the audit trail and from access logs of mesh and gateway. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"

#define LINE_LIMIT  (64u * 1024u) /* bytes of a log line that are read */
#define LINES_LIMIT 10000u        /* lines of a trace that are shown */
#define ID_LEN      32u
#define B3_SHORT    16u /* a trace id of 64 bits: the low half */

const struct kt_cli_option kt_cli_trace_options[] = {
        {"logs", 'l', NULL, "the words behind ID are log files: Envoy, Istio, API gateways; '-' is standard input"},
        {NULL, 0, NULL, NULL},
};

/* What reading one log file found. */
struct log {
	const char *path;
	const char *id;
	json_t *rows;
	uint64_t line;
	uint64_t matched, bad, too_long;
	bool full;
};

/* --- one line ----------------------------------------------------------------------------------------------------------- */

/* Trace ids are hex digits of either case. */
static bool same_hex(const char *text, const char *id, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (tolower((unsigned char)text[i]) != id[i]) {
			return false;
		}
	}
	return true;
}

/* The id stands in the text as a whole: no hex digit before or behind it. */
static bool holds(const char *text, size_t len, const char *id, size_t id_len)
{
	for (size_t i = 0; i + id_len <= len; i++) {
		if (same_hex(text + i, id, id_len) && (i == 0 || !isxdigit((unsigned char)text[i - 1])) &&
		    (i + id_len == len || !isxdigit((unsigned char)text[i + id_len]))) {
			return true;
		}
	}
	return false;
}

static bool is_id_key(const char *key)
{
	static const char *const keys[] = {"traceparent", "trace_id",     "traceid",     "trace.id",    "x-b3-traceid",
	                                   "x_b3_traceid", "b3",          "b3_trace_id", "otel.trace_id", "correlation_id",
	                                   "correlationid", "x-correlation-id"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcasecmp(key, keys[i]) == 0) {
			return true;
		}
	}
	return false;
}

/* A member that carries trace ids has this one; members of members (headers, attributes) count. */
static bool is_of_trace(const json_t *object, const char *id, int depth)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		if (json_is_string(value) && is_id_key(key)) {
			const char *text = json_string_value(value);
			size_t len = json_string_length(value);

			if (holds(text, len, id, ID_LEN) || holds(text, len, id + ID_LEN - B3_SHORT, B3_SHORT)) {
				return true;
			}
		} else if (json_is_object(value) && depth < 2 && is_of_trace(value, id, depth + 1)) {
			return true;
		}
	}
	return false;
}

/* The first of these members that is there, in the object or in one below it. */
static const json_t *member(const json_t *object, const char *const *names)
{
	const char *key;
	json_t *value;

	for (size_t i = 0; names[i] != NULL; i++) {
		const json_t *found = json_object_get(object, names[i]);

		if (found != NULL && !json_is_null(found) && !(json_is_string(found) && strcmp(json_string_value(found), "-") == 0)) {
			return found;
		}
	}
	json_object_foreach((json_t *)object, key, value)
	{
		const json_t *found = json_is_object(value) ? member(value, names) : NULL;

		if (found != NULL) {
			return found;
		}
	}
	return NULL;
}

static bool number_time(double value, kt_ms *ret)
{
	/* Seconds, or milliseconds, of this century. */
	double ms = value > 1e11 ? value : value * 1000.0;

	if (!(ms > 9e11 && ms < 4.2e12)) {
		return false;
	}
	*ret = (kt_ms)(ms + 0.5);
	return true;
}

/* A time in what stands before the JSON, as container logs and `kubectl logs --timestamps` have it. */
static bool time_before(struct kt_view text, kt_ms *ret)
{
	size_t start = 0;

	while (start < text.len) {
		size_t end = start;

		while (end < text.len && strchr(" \t[]()|", text.ptr[end]) == NULL) {
			end++;
		}
		if (end - start >= 20 && kt_time_parse((struct kt_view){text.ptr + start, end - start}, ret, NULL) == KT_OK) {
			return true;
		}
		start = end + 1;
	}
	return false;
}

static bool time_of(const json_t *object, struct kt_view before, kt_ms *ret)
{
	static const char *const names[] = {"time", "start_time", "timestamp", "@timestamp", "ts", "date", NULL};
	const json_t *value = member(object, names);

	if (json_is_number(value)) {
		return number_time(json_number_value(value), ret);
	}
	if (json_is_string(value) &&
	    kt_time_parse((struct kt_view){json_string_value(value), json_string_length(value)}, ret, NULL) == KT_OK) {
		return true;
	}
	return time_before(before, ret);
}

/* Who wrote it: what it says itself, else what only the one or the other writes. */
static const char *source_of(const json_t *object)
{
	static const char *const said[] = {"source", "log_source", NULL};
	static const char *const gateway[] = {"api_id", "apiId", "api_name", "apiName", "apiInstanceId", "policy", NULL};
	static const char *const mesh[] = {"upstream_cluster", "response_flags", "route_name", "authority", NULL};
	const json_t *value = member(object, said);

	if (json_is_string(value) && json_string_length(value) <= 32) {
		return json_string_value(value);
	}
	return member(object, gateway) != NULL ? "gateway" : member(object, mesh) != NULL ? "envoy" : "log";
}

static void copy(json_t *row, const char *as, const json_t *object, const char *const *names)
{
	const json_t *value = member(object, names);

	if (json_is_string(value) && json_string_length(value) > 0) {
		(void)json_object_set_new(row, as, json_stringn(json_string_value(value),
		                                                json_string_length(value) < 512 ? json_string_length(value) : 512));
	} else if (json_is_number(value)) {
		(void)json_object_set(row, as, (json_t *)value);
	}
}

static json_t *row_of(const struct log *log, json_t *object, kt_ms at)
{
	static const char *const method[] = {"method", "request_method", ":method", "http.request.method", NULL};
	static const char *const path[] = {"path", "request_path", "requestPath", ":path", "uri", "url.path", NULL};
	static const char *const host[] = {"authority", "host", ":authority", "server.address", NULL};
	static const char *const status[] = {"response_code", "status", "status_code", "statusCode",
	                                     "http.response.status_code", NULL};
	static const char *const duration[] = {"duration", "duration_ms", "response_time", "responseTime", NULL};
	static const char *const peer[] = {"downstream_peer_uri_san", "peer", "principal", "client_id", "clientId", "jwt_client_id",
	                                   "downstream_peer_subject", NULL};
	static const char *const serial[] = {"downstream_peer_serial", "serial", NULL};
	static const char *const flags[] = {"response_flags", NULL};
	static const char *const policy[] = {"policy", "message", "response_code_details", NULL};
	json_t *row;
	char time[32];

	row = json_pack("{s:s,s:s,s:s,s:I,s:O}", "time", kt_time_format_ms(at, time), "source", source_of(object), "file",
	                log->path, "line", (json_int_t)log->line, "record", object);
	if (row != NULL) {
		copy(row, "method", object, method);
		copy(row, "path", object, path);
		copy(row, "host", object, host);
		copy(row, "status", object, status);
		copy(row, "durationMs", object, duration);
		copy(row, "peer", object, peer);
		copy(row, "serial", object, serial);
		copy(row, "flags", object, flags);
		copy(row, "note", object, policy);
	}
	return row;
}

/* One line without its end. What does not name the trace is not looked at any further. */
static void take_line(struct log *log, struct kt_view text, bool whole)
{
	const char *brace;
	json_t *object KT_AUTOJSON = NULL;
	json_t *row;
	kt_ms at;

	log->line++;
	if (!holds(text.ptr, text.len, log->id, ID_LEN) &&
	    !holds(text.ptr, text.len, log->id + ID_LEN - B3_SHORT, B3_SHORT)) {
		return;
	}
	if (!whole) {
		log->too_long++;
		return;
	}
	brace = memchr(text.ptr, '{', text.len);
	if (brace == NULL ||
	    kt_json_parse((struct kt_view){brace, text.len - (size_t)(brace - text.ptr)}, LINE_LIMIT, &object, NULL) != KT_OK ||
	    !json_is_object(object)) {
		log->bad++;
		return;
	}
	if (!is_of_trace(object, log->id, 0)) {
		return; /* the digits mean something else there */
	}
	if (!time_of(object, (struct kt_view){text.ptr, (size_t)(brace - text.ptr)}, &at)) {
		log->bad++;
		return;
	}
	if (json_array_size(log->rows) >= LINES_LIMIT) {
		log->full = true;
		return;
	}
	row = row_of(log, object, at);
	if (row != NULL && json_array_append_new(log->rows, row) == 0) {
		log->matched++;
	}
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

struct reader {
	struct log *log;
	char *line; /* LINE_LIMIT bytes */
	size_t len;
	bool cut; /* the line goes on beyond them */
};

static void take_bytes(struct reader *reader, const char *bytes, size_t len)
{
	while (len > 0) {
		const char *newline = memchr(bytes, '\n', len);
		size_t part = newline != NULL ? (size_t)(newline - bytes) : len;
		size_t room = LINE_LIMIT - reader->len;

		memcpy(reader->line + reader->len, bytes, part < room ? part : room);
		reader->len += part < room ? part : room;
		reader->cut = reader->cut || part > room;
		if (newline != NULL) {
			take_line(reader->log, (struct kt_view){reader->line, reader->len}, !reader->cut);
			reader->len = 0;
			reader->cut = false;
			part++;
		}
		bytes += part;
		len -= part;
	}
}

static enum kt_code read_log(struct log *log, struct kt_err *err)
{
	bool input = strcmp(log->path, "-") == 0;
	KT_AUTOFREE char *line = kt_malloc(LINE_LIMIT);
	KT_AUTOFREE char *chunk = kt_malloc(LINE_LIMIT);
	struct reader reader = {.log = log, .line = line};
	int fd = input ? STDIN_FILENO : open(log->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = 0;

	if (line == NULL || chunk == NULL) {
		n = -1;
		(void)kt_err_set(err, KT_E_NOMEM, "no memory to read %s", log->path);
	} else if (fd < 0) {
		n = -1;
		(void)kt_err_set(err, KT_E_INVALID, "%s can't be read: %s", log->path, strerrordesc_np(errno));
	} else {
		while ((n = read(fd, chunk, LINE_LIMIT)) > 0 || (n < 0 && errno == EINTR)) {
			take_bytes(&reader, chunk, n > 0 ? (size_t)n : 0);
		}
		if (n < 0) {
			(void)kt_err_set(err, KT_E_INVALID, "%s can't be read: %s", log->path, strerrordesc_np(errno));
		} else if (reader.len > 0) {
			take_line(log, (struct kt_view){line, reader.len}, !reader.cut);
		}
	}
	if (fd >= 0 && !input) {
		close(fd);
	}
	return n < 0 ? err->code : KT_OK;
}

static void say_skipped(const struct log *log)
{
	if (log->bad > 0) {
		kt_cli_complain("%s: %llu line%s that name%s the trace skipped: no JSON object, or no time in it", log->path,
		                (unsigned long long)log->bad, log->bad == 1 ? "" : "s", log->bad == 1 ? "s" : "");
	}
	if (log->too_long > 0) {
		kt_cli_complain("%s: %llu line%s that name%s the trace skipped: longer than %u KiB", log->path,
		                (unsigned long long)log->too_long, log->too_long == 1 ? "" : "s",
		                log->too_long == 1 ? "s" : "", LINE_LIMIT / 1024u);
	}
	if (log->full) {
		kt_cli_complain("%s: more than %u lines of logs belong to the trace; the rest is left out", log->path, LINES_LIMIT);
	}
}

/* --- the line of time ----------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
	const json_t *const *x = a;
	const json_t *const *y = b;
	int order = strcmp(kt_json_str(*x, "time"), kt_json_str(*y, "time"));

	/* Records of our own in the order in which they were written; logs behind what was done at that time. */
	if (order == 0) {
		int64_t left = kt_json_int(*x, "seq", INT64_MAX);
		int64_t right = kt_json_int(*y, "seq", INT64_MAX);

		order = (left > right) - (left < right);
	}
	return order;
}

/* A new list in the order of time; NULL without memory. */
static json_t *in_order(const json_t *rows)
{
	size_t count = json_array_size(rows);
	json_t **sorted = kt_calloc(count + 1, sizeof(*sorted));
	json_t *out = json_array();

	for (size_t i = 0; sorted != NULL && i < count; i++) {
		sorted[i] = json_array_get(rows, i);
	}
	if (sorted != NULL) {
		qsort(sorted, count, sizeof(*sorted), by_time);
	}
	for (size_t i = 0; sorted != NULL && i < count; i++) {
		(void)json_array_append(out, sorted[i]);
	}
	kt_free(sorted);
	return out;
}

static void add_word(const json_t *row, const char *key, const char *before, struct kt_buf *out)
{
	const json_t *value = json_object_get(row, key);

	if (json_is_string(value)) {
		kt_buf_addf(out, "%s%s", before, json_string_value(value));
	} else if (json_is_integer(value)) {
		kt_buf_addf(out, "%s%lld", before, (long long)json_integer_value(value));
	} else if (json_is_real(value)) {
		kt_buf_addf(out, "%s%.3g", before, json_real_value(value));
	}
}

static void log_what(const json_t *row, struct kt_buf *out)
{
	add_word(row, "method", "", out);
	add_word(row, "host", " ", out);
	add_word(row, "path", " ", out);
	add_word(row, "status", " -> ", out);
	add_word(row, "flags", " ", out);
	add_word(row, "durationMs", "; ms ", out);
	add_word(row, "peer", "; peer ", out);
	add_word(row, "serial", "; serial ", out);
	add_word(row, "note", "; ", out);
}

/* Since the start, who, what, how it ended. */
static void draw_row(const struct kt_cli *cli, const json_t *row, kt_ms since, bool sources)
{
	const char *source = kt_json_str(row, "source");
	const char *outcome = kt_json_str(row, "outcome");
	const char *consumer = kt_json_str(row, "consumer");
	struct kt_buf what KT_AUTOBUF = {0};
	char span[32];

	kt_buf_init(&what, 16384);
	(void)printf("%10s  ", kt_duration_format(since, span));
	if (sources) {
		char name[40];

		(void)snprintf(name, sizeof(name), "%-10s ", source != NULL ? source : "keyturn");
		kt_cli_print(stdout, name);
	}
	if (source == NULL) {
		(void)printf("%s%-12s%s %-10s ", kt_cli_color(cli, outcome), kt_json_str(row, "step"), kt_cli_plain(cli),
		             outcome != NULL ? outcome : "");
		if (consumer != NULL) {
			kt_cli_print(stdout, consumer);
			(void)fputs("  ", stdout);
		}
		kt_cli_audit_what(cli, row, &what);
	} else {
		log_what(row, &what);
	}
	kt_cli_print(stdout, what.ptr != NULL ? what.ptr : "");
	(void)fputc('\n', stdout);
}

static void draw(const struct kt_cli *cli, json_t *rows, bool sources)
{
	const char *about = NULL;
	kt_ms first = 0;
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		about = about == NULL ? kt_json_str(row, "resource") : about;
	}
	json_array_foreach(rows, i, row)
	{
		const char *time = kt_json_str(row, "time");
		kt_ms at = first;

		(void)kt_time_parse(kt_view_str(time), &at, NULL);
		if (i == 0) {
			first = at;
			(void)printf("%s  ", time);
			kt_cli_print(stdout, about != NULL ? about : "");
			(void)fputc('\n', stdout);
		}
		draw_row(cli, row, at - first, sources);
	}
}

/* --- the command ------------------------------------------------------------------------------------------------------------ */

static void keep(const json_t *row, void *arg)
{
	(void)json_array_append(arg, (json_t *)row);
}

/* For programs: each row says who wrote it. */
static void name_sources(json_t *rows)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (json_object_get(row, "source") == NULL) {
			(void)json_object_set_new(row, "source", json_string("keyturn"));
		}
	}
}

static int own_records(struct kt_cli *cli, const char *id, bool logs, json_t *rows)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s,s:s,s:i}", "command", "audit", "traceId", id, "limit", 10000);
	struct kt_request request = {.body = body, .mode = KT_MODE_READONLY, .row = keep, .arg = rows};
	struct kt_answer answer;
	int status = KT_EXIT_OK;

	kt_client_call(cli, &request, &answer);
	if (!logs || answer.code != KT_E_NOTFOUND) { /* logs can be laid out where there is no state, too */
		status = kt_answer_report(&answer);
	}
	kt_answer_finish(&answer);
	return status;
}

/* ID and files may stand in any order: the one that looks like an id is it. */
static const char *find_id(const struct kt_cli *cli)
{
	for (int i = 0; i < cli->arg_count; i++) {
		if (strlen(cli->args[i]) == ID_LEN && strspn(cli->args[i], "0123456789abcdef") == ID_LEN) {
			return cli->args[i];
		}
	}
	return NULL;
}

static int read_logs(struct kt_cli *cli, const char *id, json_t *rows)
{
	int status = KT_EXIT_OK;
	struct kt_err err;

	for (int i = 0; i < cli->arg_count; i++) {
		struct log log = {.path = cli->args[i], .id = id, .rows = rows};

		if (cli->args[i] == id) {
			continue;
		}
		kt_err_clear(&err);
		if (read_log(&log, &err) != KT_OK) {
			status = kt_cli_worse(status, kt_cli_fail(&err));
		}
		say_skipped(&log);
	}
	return status;
}

int kt_cli_trace(struct kt_cli *cli)
{
	bool logs = kt_cli_flag(cli, "logs");
	const char *id = find_id(cli);
	json_t *rows KT_AUTOJSON = json_array();
	json_t *sorted KT_AUTOJSON = NULL;
	int status;

	if (id == NULL) {
		kt_cli_complain("'%s' is not a trace id (32 lower-case hex digits): 'keyturn status -o wide' shows them", cli->args[0]);
		return KT_EXIT_USAGE;
	}
	if (logs != (cli->arg_count > 1)) {
		kt_cli_complain(logs ? "--logs needs files behind the trace id: keyturn trace ID --logs access.log"
		                     : "trace takes one ID; log files stand behind --logs");
		return KT_EXIT_USAGE;
	}
	status = own_records(cli, id, logs, rows);
	if (status == KT_EXIT_OK && logs) {
		status = read_logs(cli, id, rows);
	}
	sorted = in_order(rows);
	if (status == KT_EXIT_OK && json_array_size(sorted) == 0) {
		kt_cli_complain("there is no record of trace %s%s", id, logs ? ", and no line of it in the logs" : "");
		status = KT_EXIT_USAGE;
	} else if (json_array_size(sorted) > 0 && cli->format >= KT_FORMAT_JSON) {
		name_sources(sorted);
		status = kt_cli_worse(status, kt_cli_audit_list(cli, sorted, false));
	} else {
		draw(cli, sorted, logs);
	}
	return status;
}
